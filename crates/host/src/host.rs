//! Loads the plugin and calls it.

use crate::bindings::{
    self, Acquisition, Connection, Contents, CreateOptions, Holding, Listing, Lookup, Options, Outcome, Query, Session,
};
use crate::cache;
use crate::error::CallError;
use crate::http::{self, BODY_CHUNK, Exchange, Http, Network, Observer, Outgoing, RequestLimits, Tls, Token, View};
use crate::limits::{CpuBudget, Exceeded, InvalidLimit, Limits, MEMORIES, MemoryLimiter, count_epochs};
use crate::policy::{Authority, Rule};
use bytesize::ByteSize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{
    self, Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower, ResourceTable,
    ResourceTableError,
};
use wasmtime::error::Context as _;
use wasmtime::{
    CallHook, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store, UpdateDeadline,
};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksCtx, WasiClocksCtxView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

/// What a [`Host`] is made of. Without a word more it may connect nowhere.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    pub(crate) network: Network,
    pub(crate) limits: Limits,
    pub(crate) cache: Option<PathBuf>,
}

impl Builder {
    /// Allows connections; see [`Rule`] for the forms. May be repeated.
    pub fn allow(mut self, rule: Rule) -> Builder {
        self.network.policy.allow(rule);
        self
    }

    /// Forbids connections, whatever is allowed. May be repeated.
    pub fn deny(mut self, rule: Rule) -> Builder {
        self.network.policy.deny(rule);
        self
    }

    /// Grants `validate_certs=false` for authorities that are allowed: their certificates are not verified. May be repeated.
    pub fn insecure(mut self, rule: Rule) -> Builder {
        self.network.insecure.push(rule);
        self
    }

    /// Sends the token with the plugin's requests to these authorities, unless it sends one itself; the component never sees it. May be
    /// repeated; the first rule that matches counts.
    pub fn token(mut self, authorities: Rule, token: Token) -> Builder {
        self.network.tokens.push((authorities, token));
        self
    }

    /// Whether the host's tokens are sent with requests for locks too, so that a token of [`Builder::token`] does for
    /// [`Host::acquire`]. Off by default: the component can then read, change and delete every key that a token may, not only
    /// those of locks. A key with `%`, `\` or an empty part (`a//b`, `a/`) never gets one.
    pub fn locks(mut self, granted: bool) -> Builder {
        self.network.locks = granted;
        self
    }

    /// Sends the requests to this authority to a Unix socket. The socket must be allowed (`unix:///path`), the authority need not
    /// be.
    pub fn unix_socket(mut self, authority: Authority, path: impl Into<PathBuf>) -> Builder {
        self.network.sockets.push((authority, path.into()));
        self
    }

    /// Tells of each request of the component when nothing more comes of it, also of one that was not allowed. Not of what hyper sends
    /// again by itself because the connection had been closed. The function must not wait.
    pub fn on_request(mut self, tell: impl Fn(&Exchange) + Send + Sync + 'static) -> Builder {
        self.network.observer = Observer::new(tell);
        self
    }

    /// Which certificates are trusted and shown. Default: the platform's roots, and none.
    pub fn tls(mut self, tls: Tls) -> Builder {
        self.network.tls = tls;
        self
    }

    /// What the component may use. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Sets one limit by its name; see [`Limits::set`].
    pub fn limit(mut self, name: &str, value: &str) -> std::result::Result<Builder, InvalidLimit> {
        self.limits.set(name, value)?;
        Ok(self)
    }

    /// Keeps the compiled component in this folder, which is created for this user alone, and takes it from there the next time.
    /// Default: it is compiled at each start, which takes a fraction of a second.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.cache = Some(folder.into());
        self
    }

    /// Loads the plugin's `.wasm` file.
    ///
    /// Errors: the file cannot be read, is no component, lacks the plugin's exports, or imports more than outgoing HTTP; a file of
    /// [`Tls`] cannot be used.
    pub fn build(mut self, plugin: impl AsRef<Path>) -> Result<Host> {
        let plugin = plugin.as_ref();
        // First: a file of TLS that cannot be used is no fault of the plugin.
        let http = Http::new(std::mem::take(&mut self.network))?;
        let host = std::fs::read(plugin).map_err(Into::into).and_then(|wasm| self.build_pooled(http, &wasm));
        host.with_context(|| format!("cannot load the plugin {}", plugin.display()))
    }

    /// As [`Builder::build`], from the content of the file.
    pub fn build_from_bytes(mut self, wasm: &[u8]) -> Result<Host> {
        let http = Http::new(std::mem::take(&mut self.network))?;
        self.build_pooled(http, wasm)
    }

    fn build_pooled(self, http: Http, wasm: &[u8]) -> Result<Host> {
        let mut pooled = Config::new();
        pooled.allocation_strategy(pool(&self.limits));
        // Where so many addresses are not to be had, each instance asks for its own.
        let engine = engine(pooled).or_else(|_| engine(Config::new()))?;
        self.build_on(engine, http, wasm)
    }

    fn build_on(self, engine: Engine, http: Http, wasm: &[u8]) -> Result<Host> {
        let component = match &self.cache {
            Some(folder) => cache::load(&engine, wasm, folder)?,
            None => Component::from_binary(&engine, wasm)?,
        };
        let plugin = linker(&engine)?.instantiate_pre(&component)?;
        let exports = Arc::new(Exports::new(&component)?);
        count_epochs(&engine)?;
        let permits = Arc::new(Semaphore::new(self.limits.instances.min(Semaphore::MAX_PERMITS)));
        Ok(Host { plugin, exports, http, limits: self.limits, permits, timer: Arc::new(Once::new()) })
    }
}

fn engine(mut config: Config) -> Result<Engine> {
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// A pool for what instances are made of, so that to make one hardly takes a system call. What a component may have is for the
/// [`Limits`] to say: it is refused by them before the pool is at its end.
fn pool(limits: &Limits) -> InstanceAllocationStrategy {
    /// Each memory takes 4 GiB of the 128 TiB of addresses.
    const MOST: usize = 1_000;
    /// Modules in a component, which are refused by nobody else; the plugin has three.
    const MODULES: u32 = 10;
    let Some(instances) = u32::try_from(limits.instances).ok().filter(|_| limits.instances <= MOST) else {
        return InstanceAllocationStrategy::OnDemand;
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances).total_stacks(instances);
    pool.total_core_instances(instances * MODULES)
        .total_tables(instances * MODULES)
        .total_memories(instances * MEMORIES as u32);
    pool.max_tables_per_module(100).max_memories_per_module(100);
    pool.table_elements(limits.table.max(Limits::default().table));
    // What an instance used is wiped and stays for the next, which so need not ask for its pages again. That is so much for each of the
    // most that there ever were at once, 50 MiB by default.
    pool.linear_memory_keep_resident(512 << 10).table_keep_resident(16 << 10);
    pool.pagemap_scan(Enabled::Auto);
    pool.into()
}

/// The loaded plugin. Cheap to clone; clones share the compiled code, the pool of connections and the limits.
///
/// Each call gets a fresh instance, so that calls share no memory and any number may run at once: as many as
/// [`Limits::instances`] at a time, the others wait for their turn. Dropping the future of a call ends the call and closes its
/// connection.
///
/// The pooled connections live on the tokio runtime that opened them: use one `Host` on one runtime.
#[derive(Clone)]
pub struct Host {
    plugin: InstancePre<State>,
    exports: Arc<Exports>,
    http: Http,
    limits: Limits,
    permits: Arc<Semaphore>,
    timer: Arc<Once>,
}

/// Keeps a timer that is nearer than those of calls, until the host is gone. Tokio wakes a thread for each timer that is nearer than
/// all others, which each call's would else be, and more than once.
async fn near_timer(host: Weak<Semaphore>) {
    while host.strong_count() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Host {
    /// A host that may connect nowhere yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An instance to call more than once, when its turn has come. It keeps its turn until it is dropped.
    ///
    /// Errors: the component cannot be started.
    pub async fn instance(&self) -> Result<Instance, CallError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        self.timer.call_once(|| drop(tokio::spawn(near_timer(Arc::downgrade(&self.permits)))));
        let Limits { response, in_flight, requests, handles, .. } = self.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles);
        let limits = RequestLimits { response_bytes: response.as_u64(), in_flight, per_call: requests };
        let state = State {
            table,
            clocks: WasiClocksCtx::default(),
            http_ctx: WasiHttpCtx::new(),
            outgoing: self.http.outgoing(limits),
            memory_limiter: MemoryLimiter::new(self.limits),
        };
        let mut store = Store::new(self.plugin.engine(), state);
        store.limiter(|state| &mut state.memory_limiter);
        // A handle counts once more while it is lent: so that it is always the table that is full.
        store.set_max_component_handles(handles.saturating_mul(2));
        let answer =
            usize::try_from(response.as_u64()).unwrap_or(usize::MAX).saturating_mul(ANSWER_OF_BODY).saturating_add(ANSWER);
        store.call_hook(move |mut store, hook| {
            store.set_hostcall_fuel(if let CallHook::CallingHost = hook { ARGUMENTS } else { answer });
            Ok(())
        });
        store.epoch_deadline_callback(|store| match store.data().outgoing.flooded() {
            true => Err(wasmtime::format_err!("too many requests")),
            false => Ok(UpdateDeadline::Yield(1)),
        });
        let start = async |store: &mut Store<State>| self.plugin.instantiate_async(store).await;
        let instance = run(&mut store, &self.limits, start).await?;
        Ok(Instance { instance, exports: Arc::clone(&self.exports), store, limits: self.limits, _permit: permit })
    }
}

/// What a component can hand over in one call to the host, in bytes; some of it the host keeps, such as the method of a request.
const ARGUMENTS: usize = 2 * BODY_CHUNK;
/// What a component can answer, in bytes as the host holds them: so much whatever it reads, such as errors, …
const ANSWER: usize = 1 << 20;
/// … and so many times the largest body of a response: a million of the shortest sessions, 64 MiB as JSON, are 300 MiB.
const ANSWER_OF_BODY: usize = 6;

/// Lets the component run until it is through, within the limits.
async fn run<T>(
    store: &mut Store<State>,
    limits: &Limits,
    run: impl AsyncFnOnce(&mut Store<State>) -> Result<T>,
) -> Result<T, CallError> {
    store.data_mut().outgoing.begin();
    store.set_epoch_deadline(1);
    let requests = store.data().outgoing.requests();
    let computing = CpuBudget::new(run(store), limits.compute);
    let ended = tokio::time::timeout(limits.time, requests.drive(computing)).await;
    if store.data().outgoing.flooded() {
        // Whatever came of it: it was the flood that was stopped.
        return Err(CallError::Stopped(Exceeded::Requests(limits.requests)));
    }
    match ended {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(trap)) if matches!(trap.downcast_ref(), Some(ResourceTableError::Full)) => {
            Err(CallError::Stopped(Exceeded::Handles(limits.handles)))
        }
        Ok(Err(trap)) => Err(trap.into()),
        Err(_elapsed) => Err(CallError::Stopped(Exceeded::Time(limits.time))),
    }
}

/// An instance of the plugin. Calls to one instance come one after another.
///
/// An instance whose call ended with [`CallError::Stopped`] or [`CallError::Trapped`], or was dropped half-way, is of no more use:
/// each further call ends with [`CallError::Trapped`].
pub struct Instance {
    instance: component::Instance,
    exports: Arc<Exports>,
    store: Store<State>,
    limits: Limits,
    _permit: OwnedSemaphorePermit,
}

impl Instance {
    /// How much memory the instance has taken so far. It never gives any back.
    pub fn memory(&self) -> ByteSize {
        self.store.data().memory_limiter.memory()
    }

    /// One call, within the limits. It checks the types of its own function, each time: what `bindgen!` makes would check those of all
    /// functions of the interface once for each instance, and most instances are called once.
    async fn call<Arguments, Answer>(
        &mut self,
        function: ComponentExportIndex,
        arguments: Arguments,
    ) -> Result<Answer, CallError>
    where
        Arguments: ComponentNamedList + Lower + Send + Sync,
        Answer: Lift + Send + Sync + 'static,
    {
        let instance = self.instance;
        let call = async |store: &mut Store<State>| {
            let function = instance.get_typed_func::<Arguments, (Result<Answer, bindings::Error>,)>(&mut *store, function)?;
            function.call_async(store, arguments).await
        };
        let (answer,) = run(&mut self.store, &self.limits, call).await?;
        answer.map_err(|error| CallError::answered(self.store.data().outgoing.explain(error)))
    }
}

/// Defines each function of the plugin twice: on an [`Instance`], and on a [`Host`], for a fresh instance.
macro_rules! functions {
    ($($(#[$doc:meta])+ $interface:ident.$name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        /// Where the component has its functions.
        struct Exports {
            $($name: ComponentExportIndex,)*
        }

        impl Exports {
            /// Errors: a function is missing.
            fn new(component: &Component) -> Result<Exports> {
                Ok(Exports { $($name: bindings::export(component, stringify!($interface), stringify!($name))?,)* })
            }
        }

        impl Instance {
            $($(#[$doc])+ pub async fn $name(&mut self, $($argument: $type),*) -> Result<$answer, CallError> {
                self.call(self.exports.$name, ($($argument,)*)).await
            })*
        }

        impl Host {
            $($(#[$doc])+ pub async fn $name(&self, $($argument: $type),*) -> Result<$answer, CallError> {
                self.instance().await?.$name($($argument),*).await
            })*
        }
    };
}

functions! {
    /// Makes sessions as the options say: `desired-state.apply`.
    desired_state.apply(options: &Options) -> Outcome;

    /// As `apply`, on JSON with the option page's names; answers with a JSON object: `desired-state.apply-json`.
    desired_state.apply_json(options: &str) -> String;

    /// Creates a session and answers with its id: `sessions.create`. Not idempotent.
    sessions.create(options: &CreateOptions, connection: Option<&Connection>) -> String;

    /// Destroys a session: `sessions.destroy`. One that does not exist is no error.
    sessions.destroy(id: &str, connection: Option<&Connection>) -> ();

    /// Restarts the TTL of a session: `sessions.renew`.
    sessions.renew(id: &str, connection: Option<&Connection>) -> Session;

    /// Reads one session: `sessions.info`.
    sessions.info(id: &str, query: Option<Query>, connection: Option<&Connection>) -> Lookup;

    /// Reads the sessions of a node: `sessions.node`.
    sessions.node(node: &str, query: Option<Query>, connection: Option<&Connection>) -> Listing;

    /// Reads all sessions of the datacenter: `sessions.list-sessions`.
    sessions.list_sessions(query: Option<Query>, connection: Option<&Connection>) -> Listing;

    /// Acquires a key for a session: `locks.acquire`. Does not wait.
    locks.acquire(key: &str, session_id: &str, contents: Option<&Contents>, connection: Option<&Connection>) -> Acquisition;

    /// Releases a key; whether the session held it: `locks.release`.
    locks.release(key: &str, session_id: &str, contents: Option<&Contents>, connection: Option<&Connection>) -> bool;

    /// Reads a key and who holds it: `locks.holder`.
    locks.holder(key: &str, query: Option<Query>, connection: Option<&Connection>) -> Holding;
}

/// Links the six interfaces that the plugin imports. A component that wants more is refused when it is loaded.
fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p2::bindings::clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(&mut linker, |state| {
        WasiClocksCtxView { ctx: &mut state.clocks, table: &mut state.table }
    })?;
    http::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The host's side of one instance.
struct State {
    table: ResourceTable,
    clocks: WasiClocksCtx,
    http_ctx: WasiHttpCtx,
    outgoing: Outgoing,
    memory_limiter: MemoryLimiter,
}

impl IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http_ctx, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

impl View for State {
    fn outgoing(&mut self) -> (&mut Outgoing, &mut ResourceTable) {
        (&mut self.outgoing, &mut self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed};
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};
    use test_support::TOKEN;
    use test_support::plugin;
    use test_support::scripted::{Reply, Request, Scripted};
    use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

    const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

    /// Makes the memories of components, and keeps them so that they can be looked at. None is ever freed.
    #[derive(Clone, Default)]
    struct Memories(Arc<Mutex<Vec<Memory>>>);

    #[derive(Clone)]
    struct Memory {
        start: usize,
        size: Arc<AtomicUsize>,
    }

    impl Memory {
        const CAPACITY: usize = 64 << 20;
    }

    // SAFETY: each memory has a place of its own, zeroed and aligned to more than a page, which never moves and is never freed. The
    // engine is told to reserve nothing and to rely on no guard pages.
    unsafe impl MemoryCreator for Memories {
        fn new_memory(
            &self,
            _ty: MemoryType,
            minimum: usize,
            _maximum: Option<usize>,
            _reserved: Option<usize>,
            guard: usize,
        ) -> std::result::Result<Box<dyn LinearMemory>, String> {
            assert!(minimum <= Memory::CAPACITY && guard == 0);
            // SAFETY: the size is not 0.
            let start = unsafe { alloc_zeroed(Layout::from_size_align(Memory::CAPACITY, 1 << 16).unwrap()) };
            let memory = Memory { start: start.expose_provenance(), size: Arc::new(AtomicUsize::new(minimum)) };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory.clone());
            Ok(Box::new(memory))
        }
    }

    // SAFETY: as above.
    unsafe impl LinearMemory for Memory {
        fn byte_size(&self) -> usize {
            self.size.load(Ordering::Relaxed)
        }

        fn byte_capacity(&self) -> usize {
            Memory::CAPACITY
        }

        fn grow_to(&mut self, size: usize) -> Result<()> {
            assert!(size <= Memory::CAPACITY);
            self.size.store(size, Ordering::Relaxed);
            Ok(())
        }

        fn as_ptr(&self) -> *mut u8 {
            std::ptr::with_exposed_provenance_mut(self.start)
        }
    }

    impl Memories {
        /// Whether any component has, or had at its end, the beginning of [`TOKEN`] anywhere in its memory.
        ///
        /// To be called while no component is running.
        fn hold_token(&self) -> bool {
            let memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let token = &TOKEN.as_bytes()[..8];
            memories.iter().any(|memory| {
                // SAFETY: so much of it is initialized, and nobody writes to it now.
                let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.byte_size()) };
                bytes.split(|byte| *byte == token[0]).any(|rest| rest.starts_with(&token[1..]))
            })
        }

        /// The answer of a call, and whether a component had the token before, after or whenever it waited for something.
        async fn watch<T>(&self, call: impl Future<Output = T>) -> (T, bool) {
            let (mut call, mut held) = (pin!(call), false);
            let answer = poll_fn(|context| {
                // A component only runs in here.
                let polled = call.as_mut().poll(context);
                held |= self.hold_token();
                polled
            });
            (answer.await, held)
        }
    }

    fn agent(request: &Request) -> Reply {
        let line = request.line();
        if line.contains("/v1/session/create") {
            Reply::json(&format!(r#"{{"ID":"{ID}"}}"#))
        } else if line.contains("/v1/session/destroy/") {
            Reply::json("true")
        } else {
            Reply::json(&format!(r#"[{{"ID":"{ID}","Name":"x","Node":"n1"}}]"#))
        }
    }

    fn connection(address: SocketAddr) -> Connection {
        Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
    }

    /// Reads, creates and destroys; whether the component had the token meanwhile.
    async fn calls(host: &Host, memories: &Memories, to: &Connection) -> bool {
        let create = CreateOptions::default();
        let (listed, while_listing) = memories.watch(host.list_sessions(None, Some(to))).await;
        let (created, while_creating) = memories.watch(host.create(&create, Some(to))).await;
        let (destroyed, while_destroying) = memories.watch(host.destroy(ID, Some(to))).await;
        assert_eq!(listed.unwrap().sessions.len(), 1);
        assert_eq!(created.unwrap(), ID);
        destroyed.unwrap();
        while_listing || while_creating || while_destroying
    }

    /// On this one thread, so that no component runs while its memory is looked at.
    #[tokio::test]
    async fn the_token_of_the_host_never_reaches_the_component() {
        let [of_rule, other] = [(), ()].map(|()| Scripted::start(agent).unwrap());
        let memories = Memories::default();
        let mut config = Config::new();
        config.with_host_memory(Arc::new(memories.clone())).memory_reservation(0).memory_guard_size(0).memory_init_cow(false);
        let rule = |server: &Scripted| server.address().to_string().parse::<Rule>().unwrap();
        let builder = Host::builder().allow(rule(&of_rule)).allow(rule(&other)).token(rule(&of_rule), TOKEN.parse().unwrap());
        let (http, wasm) = (Http::new(builder.network.clone()).unwrap(), std::fs::read(plugin().unwrap()).unwrap());
        let host = builder.build_on(engine(config).unwrap(), http, &wasm).unwrap();

        assert!(!calls(&host, &memories, &connection(of_rule.address())).await);
        let requests = of_rule.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| request.header("X-Consul-Token") == [TOKEN]), "{requests:?}");

        assert!(!calls(&host, &memories, &connection(other.address())).await);
        let requests = other.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| !request.text().contains(&TOKEN[..8])), "{requests:?}");

        // The search would find it.
        let given = Connection { token: Some(TOKEN.into()), ..connection(other.address()) };
        assert!(calls(&host, &memories, &given).await);
    }

    #[test]
    fn everything_can_go_to_another_thread() {
        fn send<T: Send + 'static>() {}
        fn sync<T: Sync + 'static>() {}
        fn sent<T: Send>(_: T) {}
        send::<Builder>();
        sync::<Builder>();
        send::<Host>();
        sync::<Host>();
        send::<Instance>();
        send::<CallError>();
        sync::<CallError>();
        let _ = |host: &Host, instance: &mut Instance, options: &Options, create: &CreateOptions| {
            sent(host.instance());
            sent(host.apply(options));
            sent(host.apply_json(""));
            sent(host.create(create, None));
            sent(host.destroy("", None));
            sent(host.renew("", None));
            sent(host.info("", None, None));
            sent(host.node("", None, None));
            sent(host.list_sessions(None, None));
            sent(instance.apply(options));
            sent(instance.list_sessions(None, None));
        };
    }
}
