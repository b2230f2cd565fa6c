//! Loading the plugin, and calling its functions.

use crate::bindings::{
    self, Acquisition, Connection, Contents, CreateOptions, Holding, Listing, Lookup, Options, Outcome, Query, Session,
    SlotAcquisition,
};
use crate::cache;
use crate::config_error::ConfigError;
use crate::error::CallError;
use crate::http::{
    self, BODY_CHUNK, Credentials, Exchange, Http, MAX_HEADERS, Network, Observer, Outgoing, RequestLimits, Secret, SecretRule,
    Tls, Token, View,
};
use crate::limits::{CpuBudget, Exceeded, Limits, MAX_MEMORIES, MemoryLimiter, spawn_epoch_ticker};
use crate::policy::{Authority, Rule};
use crate::pool::Pool;
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
    CallHook, Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Result, Store,
    UpdateDeadline,
};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksCtx, WasiClocksCtxView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

/// The configuration of a [`Host`]. By default, every connection is denied.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    pub(crate) network: Network,
    pub(crate) limits: Limits,
    pub(crate) cache: Option<PathBuf>,
    unoptimized: bool,
}

impl Builder {
    /// Allows connections; see [`Rule`] for the forms. Each call adds a rule.
    pub fn allow(mut self, rule: Rule) -> Builder {
        self.network.policy.allow(rule);
        self
    }

    /// Denies connections, even those that a rule allows. Each call adds a rule.
    pub fn deny(mut self, rule: Rule) -> Builder {
        self.network.policy.deny(rule);
        self
    }

    /// Grants `validate_certs=false` for authorities that are allowed: if the plugin asks for it,
    /// their certificates are not verified. Each call adds a rule.
    pub fn insecure(mut self, rule: Rule) -> Builder {
        self.network.insecure.push(rule);
        self
    }

    /// Adds the token to the plugin's requests to these authorities, unless a request has a token
    /// of its own. The component never sees it. Each call adds a rule; the first match counts.
    ///
    /// The token is sent over TLS or a Unix socket only, since the component chooses the scheme. A
    /// request over plain HTTP that would get the token is denied.
    ///
    /// A name does not match a rule for a network. If the name is allowed by its addresses alone,
    /// the request is denied too.
    pub fn token(self, authorities: Rule, token: Token) -> Builder {
        self.secret(authorities, Secret::Token(token), false)
    }

    /// Adds the token as [`Builder::token`] does, over plain HTTP too. Whoever can read the traffic
    /// can then read the token.
    pub fn token_over_http(self, authorities: Rule, token: Token) -> Builder {
        self.secret(authorities, Secret::Token(token), true)
    }

    /// Sets whether the plugin's requests need a token: one that has none of its own and matches no
    /// rule of [`Builder::token`] is denied. Default: `false`, it is sent without one.
    pub fn token_required(mut self, required: bool) -> Builder {
        self.network.token_required = required;
        self
    }

    /// Adds `Authorization: Basic …` to the plugin's requests to these authorities, unless a request
    /// has an `Authorization` of its own: for a proxy in front of the agent. The component never sees
    /// it. Each call adds a rule; the first match counts.
    ///
    /// It follows the rules of [`Builder::token`]: over TLS or a Unix socket only, and to the same
    /// requests. A request can get both.
    pub fn basic_auth(self, authorities: Rule, credentials: Credentials) -> Builder {
        self.secret(authorities, Secret::Password(credentials), false)
    }

    /// Adds the header as [`Builder::basic_auth`] does, over plain HTTP too. Whoever can read the
    /// traffic can then read the password.
    pub fn basic_auth_over_http(self, authorities: Rule, credentials: Credentials) -> Builder {
        self.secret(authorities, Secret::Password(credentials), true)
    }

    fn secret(mut self, authorities: Rule, secret: Secret, over_http: bool) -> Builder {
        self.network.secrets.push(SecretRule { authorities, secret, over_http });
        self
    }

    /// Sets whether the tokens of [`Builder::token`] and the credentials of [`Builder::basic_auth`]
    /// are added to requests for locks too, which [`Host::acquire`] needs. Default: `false`, such
    /// requests are denied.
    ///
    /// With `true`, the component can read, write, lock, unlock and delete every key that the token
    /// permits. It cannot use the token for the other operations of a transaction, such as on nodes
    /// and services.
    ///
    /// Reading a key with `%`, `\` or an empty segment (`a//b`, `a/`) is denied where it would get a
    /// token: a server may read its path as that of something else. Reading all keys that start with
    /// `a/`, as semaphores need it, is not denied.
    pub fn locks(mut self, granted: bool) -> Builder {
        self.network.locks = granted;
        self
    }

    /// Sends the requests to this authority over a Unix socket. A rule must allow the socket
    /// (`unix:///path`); the authority itself needs no rule.
    pub fn unix_socket(mut self, authority: Authority, path: impl Into<PathBuf>) -> Builder {
        self.network.sockets.push((authority, path.into()));
        self
    }

    /// Sets a function that is called once per request of the component, when the request
    /// completes, fails or is denied. Retries by hyper on another connection are not reported. The
    /// function must not block.
    pub fn on_request(mut self, callback: impl Fn(&Exchange) + Send + Sync + 'static) -> Builder {
        self.network.observer = Observer::new(callback);
        self
    }

    /// Sets which certificates are trusted, and the client certificate. Default: the platform's
    /// roots, and no client certificate.
    pub fn tls(mut self, tls: Tls) -> Builder {
        self.network.tls = tls;
        self
    }

    /// Sets how much the component may use. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Sets one limit by its name; see [`Limits::set`].
    ///
    /// # Errors
    ///
    /// Fails if there is no limit of this name, or the value is invalid.
    pub fn limit(mut self, name: &str, value: &str) -> std::result::Result<Builder, ConfigError> {
        self.limits.set(name, value)?;
        Ok(self)
    }

    /// Caches the compiled component in this folder. The folder is created with access for this
    /// user alone. It keeps the 16 entries that were written last; each has some 400 kB. Default: no
    /// cache; compiling at each start takes a fraction of a second.
    ///
    /// What is loaded from there runs without a sandbox. So on Unix the folder is used only if no
    /// other user except root can write to it, or can replace it or a part of its path: all folders
    /// and links in it belong to this user or to root. Otherwise each start compiles.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.cache = Some(folder.into());
        self
    }

    /// Sets whether the compiler optimises the component. Default: `true`. If not, it compiles in four
    /// fifths of the time, to code that is slower: for a program that makes one call and has no
    /// cache.
    pub fn optimize(mut self, optimize: bool) -> Builder {
        self.unoptimized = !optimize;
        self
    }

    /// Loads the plugin's `.wasm` file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is not a component, lacks the plugin's exports, or imports
    /// more than outgoing HTTP. An invalid setting of [`Tls`] is a [`ConfigError`]; use
    /// [`wasmtime::Error::downcast_ref`] to tell it apart.
    pub fn build(mut self, plugin: impl AsRef<Path>) -> Result<Host> {
        let plugin = plugin.as_ref();
        // Before the plugin, and without its context: TLS errors are not about the plugin's file.
        let http = Http::new(std::mem::take(&mut self.network))?;
        let host = std::fs::read(plugin).map_err(Into::into).and_then(|wasm| self.build_pooled(http, &wasm));
        host.with_context(|| format!("cannot load the plugin {}", plugin.display()))
    }

    /// Loads the plugin from the content of its `.wasm` file.
    ///
    /// # Errors
    ///
    /// Fails as [`Builder::build`] does.
    pub fn build_from_bytes(mut self, wasm: &[u8]) -> Result<Host> {
        let http = Http::new(std::mem::take(&mut self.network))?;
        self.build_pooled(http, wasm)
    }

    fn build_pooled(self, http: Http, wasm: &[u8]) -> Result<Host> {
        let mut on_demand = Config::new();
        if self.unoptimized {
            on_demand.cranelift_opt_level(OptLevel::None);
        }
        let mut pooled = on_demand.clone();
        pooled.allocation_strategy(pool(&self.limits));
        // Where that much address space is not available, allocate each instance on demand.
        let engine = engine(pooled).or_else(|_| engine(on_demand))?;
        self.build_on(engine, http, wasm)
    }

    fn build_on(self, engine: Engine, http: Http, wasm: &[u8]) -> Result<Host> {
        let component = match &self.cache {
            Some(folder) => cache::load(&engine, wasm, folder)?,
            None => Component::from_binary(&engine, wasm)?,
        };
        let plugin = linker(&engine)?.instantiate_pre(&component)?;
        let exports = Arc::new(Exports::new(&component)?);
        spawn_epoch_ticker(&engine)?;
        let [permits, idle_permits] =
            [(), ()].map(|()| Arc::new(Semaphore::new(self.limits.instances.min(Semaphore::MAX_PERMITS))));
        let timer_started = Arc::new(Once::new());
        Ok(Host { plugin, exports, http, limits: self.limits, permits, idle_permits, timer_started })
    }
}

fn engine(mut config: Config) -> Result<Engine> {
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// Returns a pool for the memories, tables and stacks of instances, which makes instantiation
/// almost free of system calls.
///
/// The pool is larger than the [`Limits`], so that a component reaches its limits first.
fn pool(limits: &Limits) -> InstanceAllocationStrategy {
    /// Each memory reserves 4 GiB of the 128 TiB of address space.
    const MAX_INSTANCES: usize = 1_000;
    /// Core modules of a component, which have no other limit. The plugin has three.
    const MAX_MODULES: u32 = 10;
    let Some(instances) = u32::try_from(limits.instances).ok().filter(|_| limits.instances <= MAX_INSTANCES) else {
        return InstanceAllocationStrategy::OnDemand;
    };
    // The instances that run, and the idle ones of all pools.
    let instances = 2 * instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances).total_stacks(instances);
    pool.total_core_instances(instances * MAX_MODULES)
        .total_tables(instances * MAX_MODULES)
        .total_memories(instances * MAX_MEMORIES as u32);
    pool.max_tables_per_module(100).max_memories_per_module(100);
    pool.table_elements(limits.table.max(Limits::default().table));
    // These pages are zeroed and stay resident for the next instance, which saves page faults. The
    // cost is this much memory for the highest number of instances at once so far: up to 50 MiB by
    // default, and as much for the idle instances of pools.
    pool.linear_memory_keep_resident(512 << 10).table_keep_resident(16 << 10);
    pool.pagemap_scan(Enabled::Auto);
    pool.into()
}

/// The loaded plugin. Clones are cheap, and share the compiled code, the connection pool and the
/// limits.
///
/// Each call gets a fresh instance, so calls share no memory and run concurrently, up to
/// [`Limits::instances`]. Further calls wait for a permit. Dropping the future of a call ends the
/// call and closes its connection.
///
/// Pooled connections belong to the tokio runtime that opened them: use a `Host` on one runtime
/// only.
#[derive(Clone)]
pub struct Host {
    plugin: InstancePre<State>,
    exports: Arc<Exports>,
    http: Http,
    limits: Limits,
    /// A permit for each instance that runs, or that a caller has.
    permits: Arc<Semaphore>,
    /// A permit for each idle instance of all pools.
    idle_permits: Arc<Semaphore>,
    timer_started: Arc<Once>,
}

/// Keeps a timer running that expires before those of calls, until the host is dropped.
///
/// Tokio wakes a thread whenever a new timer is the earliest of all. Without this one, the timer of
/// each call would be, more than once.
async fn keep_earliest_timer(host: Weak<Semaphore>) {
    while host.strong_count() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Host {
    /// Returns a builder for a host that denies every connection until rules are added.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Waits for a permit, and returns an instance for any number of calls. It keeps its permit
    /// until it is dropped.
    ///
    /// # Errors
    ///
    /// Fails if the component cannot be instantiated within the limits.
    pub async fn instance(&self) -> Result<Instance, CallError> {
        self.instance_with(self.permit().await).await
    }

    /// Returns a pool that keeps up to `size` idle instances, for calls by callers that trust each
    /// other. A call by the pool spares the time to make an instance; docs/performance.md has the
    /// figures. Each call of this function returns another pool, with instances of its own.
    #[must_use]
    pub fn pool(&self, size: usize) -> Pool {
        Pool::new(self.clone(), size)
    }

    /// Waits for the permit of an instance.
    pub(crate) async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Returns the permit of an idle instance, unless there are as many as [`Limits::instances`].
    pub(crate) fn idle_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.idle_permits).try_acquire_owned().ok()
    }

    /// Returns an instance that has this permit.
    pub(crate) async fn instance_with(&self, permit: OwnedSemaphorePermit) -> Result<Instance, CallError> {
        self.timer_started.call_once(|| drop(tokio::spawn(keep_earliest_timer(Arc::downgrade(&self.permits)))));
        let Limits { response, in_flight, requests, handles, .. } = self.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles);
        let mut http_ctx = WasiHttpCtx::new();
        http_ctx.set_field_size_limit(MAX_HEADERS);
        let limits = RequestLimits { response_bytes: response.as_u64(), in_flight, per_call: requests };
        let state = State {
            table,
            clocks: WasiClocksCtx::default(),
            http_ctx,
            outgoing: self.http.outgoing(limits),
            memory_limiter: MemoryLimiter::new(self.limits),
        };
        let mut store = Store::new(self.plugin.engine(), state);
        store.limiter(|state| &mut state.memory_limiter);
        // A handle counts twice while it is borrowed. With twice the capacity, the table is always
        // the one that is full first.
        store.set_max_component_handles(handles.saturating_mul(2));
        let body_limit = usize::try_from(response.as_u64()).unwrap_or(usize::MAX);
        let max_result = body_limit.saturating_mul(RESULT_PER_BODY_BYTE).saturating_add(MIN_RESULT_BYTES);
        store.call_hook(move |mut store, hook| {
            store.set_hostcall_fuel(if let CallHook::CallingHost = hook { MAX_ARGUMENT_BYTES } else { max_result });
            Ok(())
        });
        store.epoch_deadline_callback(|store| match store.data().outgoing.exceeded_requests() {
            true => Err(wasmtime::format_err!("too many requests")),
            false => Ok(UpdateDeadline::Yield(1)),
        });
        let instantiate = async |store: &mut Store<State>| self.plugin.instantiate_async(store).await;
        let instance = run(&mut store, &self.limits, instantiate).await?;
        Ok(Instance { instance, exports: Arc::clone(&self.exports), store, limits: self.limits, permit })
    }
}

/// The largest arguments of one host call, in bytes. The host keeps some of them, such as the
/// method of a request.
const MAX_ARGUMENT_BYTES: usize = 2 * BODY_CHUNK;
/// The part of the largest result of a call that does not depend on the body limit, such as for
/// errors, in bytes as the host holds them.
const MIN_RESULT_BYTES: usize = 1 << 20;
/// The part that does: this many bytes for each byte of the largest response body. A million of the
/// shortest sessions, 64 MiB as JSON, are 300 MiB.
const RESULT_PER_BODY_BYTE: usize = 6;

/// Runs the component until `call` is done, within the limits.
async fn run<T>(
    store: &mut Store<State>,
    limits: &Limits,
    call: impl AsyncFnOnce(&mut Store<State>) -> Result<T>,
) -> Result<T, CallError> {
    store.data_mut().outgoing.begin_call();
    store.set_epoch_deadline(1);
    let requests = store.data().outgoing.requests();
    let call = CpuBudget::new(call(store), limits.compute);
    let result = tokio::time::timeout(limits.time, requests.drive(call)).await;
    if store.data().outgoing.exceeded_requests() {
        // Whatever the result is, this is its cause.
        return Err(CallError::Stopped(Exceeded::Requests(limits.requests)));
    }
    match result {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(trap)) if matches!(trap.downcast_ref(), Some(ResourceTableError::Full)) => {
            Err(CallError::Stopped(Exceeded::Handles(limits.handles)))
        }
        Ok(Err(trap)) => Err(trap.into()),
        Err(_elapsed) => Err(CallError::Stopped(Exceeded::Time(limits.time))),
    }
}

/// An instance of the plugin, for calls one after another.
///
/// After a call that ended with [`CallError::Stopped`] or [`CallError::Trapped`], or whose future
/// was dropped, the instance is unusable: each further call ends with [`CallError::Trapped`].
pub struct Instance {
    instance: component::Instance,
    exports: Arc<Exports>,
    store: Store<State>,
    limits: Limits,
    /// [`Pool`] exchanges it when the instance becomes idle. Held, and not read.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Instance {
    /// Returns how much memory the instance has taken so far. The memory of a component never shrinks.
    pub fn memory(&self) -> ByteSize {
        self.store.data().memory_limiter.memory()
    }

    /// Calls a function, within the limits.
    ///
    /// It checks the types of this function at each call. The struct that `bindgen!` generates
    /// would check all functions of the interface for each instance, and most instances are called
    /// once.
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
        let outgoing = &self.store.data().outgoing;
        answer.map_err(|error| CallError::from_plugin(outgoing.explain(error), |message| outgoing.redact(message)))
    }
}

/// Defines each function of the plugin three times: on [`Instance`]; on [`Host`], where it calls a
/// fresh instance; and on [`Pool`], where it calls a kept one.
macro_rules! functions {
    ($($(#[$doc:meta])+ $interface:ident.$name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        /// The indices of the component's functions.
        struct Exports {
            $($name: ComponentExportIndex,)*
        }

        impl Exports {
            /// Finds all functions.
            ///
            /// # Errors
            ///
            /// Fails if the component lacks a function.
            fn new(component: &Component) -> Result<Exports> {
                Ok(Exports { $($name: bindings::export(component, stringify!($interface), stringify!($name))?,)* })
            }
        }

        impl Instance {
            $($(#[$doc])+
            ///
            /// # Errors
            ///
            /// Fails with [`CallError::Plugin`] if the plugin answers with an error, or with another
            /// case if the component was stopped or trapped.
            pub async fn $name(&mut self, $($argument: $type),*) -> Result<$answer, CallError> {
                self.call(self.exports.$name, ($($argument,)*)).await
            })*
        }

        impl Host {
            $($(#[$doc])+
            ///
            /// # Errors
            ///
            /// Fails with [`CallError::Plugin`] if the plugin answers with an error, or with another
            /// case if the component was stopped or trapped.
            pub async fn $name(&self, $($argument: $type),*) -> Result<$answer, CallError> {
                self.instance().await?.$name($($argument),*).await
            })*
        }

        impl Pool {
            $($(#[$doc])+
            ///
            /// # Errors
            ///
            /// Fails with [`CallError::Plugin`] if the plugin answers with an error, or with another
            /// case if the component was stopped or trapped.
            pub async fn $name(&self, $($argument: $type),*) -> Result<$answer, CallError> {
                let mut kept = self.take().await?;
                let answer = kept.instance.$name($($argument),*).await;
                self.put_back(kept, &answer);
                answer
            })*
        }
    };
}

functions! {
    /// Brings sessions into the state that the options describe: `desired-state.apply`.
    desired_state.apply(options: &Options) -> Outcome;

    /// Does the same with JSON: takes an object of `consul_session` options, and returns an object:
    /// `desired-state.apply-json`.
    desired_state.apply_json(options: &str) -> String;

    /// Creates a session and returns its id: `sessions.create`. Not idempotent.
    sessions.create(options: &CreateOptions, connection: Option<&Connection>) -> String;

    /// Destroys a session: `sessions.destroy`. A session that does not exist is not an error.
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

    /// Releases a key, and returns whether the session held it: `locks.release`.
    locks.release(key: &str, session_id: &str, contents: Option<&Contents>, connection: Option<&Connection>) -> bool;

    /// Reads a key and the session that holds it: `locks.holder`.
    locks.holder(key: &str, query: Option<Query>, connection: Option<&Connection>) -> Holding;

    /// Acquires one of `limit` slots of a semaphore for a session: `locks.acquire-slot`. Does not
    /// wait.
    locks.acquire_slot(
        prefix: &str, session_id: &str, limit: u32, value: Option<&[u8]>, connection: Option<&Connection>
    ) -> SlotAcquisition;

    /// Releases a slot, and returns whether the session had one: `locks.release-slot`.
    locks.release_slot(prefix: &str, session_id: &str, connection: Option<&Connection>) -> bool;

    /// Reads a semaphore and the sessions that have a slot: `locks.slot-holders`.
    locks.slot_holders(prefix: &str, query: Option<Query>, connection: Option<&Connection>) -> bindings::Semaphore;
}

/// Links the six interfaces that the plugin imports. A component that imports more fails to load.
fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p2::bindings::clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(&mut linker, |state| {
        WasiClocksCtxView { ctx: &mut state.clocks, table: &mut state.table }
    })?;
    http::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The data of one instance's store.
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

    /// A creator of component memories that keeps all of them for inspection, and never frees one.
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

    // SAFETY: wasmtime requires memories that are zeroed, aligned to a page and never moved, and
    // that have the guard size it asks for. `alloc_zeroed` with an alignment of 64 KiB provides the
    // first two, each allocation is never freed, and the assertion on `guard` excludes guard pages.
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
            // SAFETY: `alloc_zeroed` requires a layout whose size is not 0, and `CAPACITY` is 64
            // MiB.
            let start = unsafe { alloc_zeroed(Layout::from_size_align(Memory::CAPACITY, 1 << 16).unwrap()) };
            let memory = Memory { start: start.expose_provenance(), size: Arc::new(AtomicUsize::new(minimum)) };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory.clone());
            Ok(Box::new(memory))
        }
    }

    // SAFETY: wasmtime requires that `as_ptr` stays valid for `byte_capacity` bytes and does not
    // change. The allocation has `CAPACITY` bytes, and `grow_to` never exceeds or moves it.
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
        /// Returns whether the memory of any component contains the beginning of [`TOKEN`], or did
        /// when the component ended.
        ///
        /// Must not be called while a component runs.
        fn hold_token(&self) -> bool {
            let memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let token = &TOKEN.as_bytes()[..8];
            memories.iter().any(|memory| {
                // SAFETY: `from_raw_parts` requires initialized memory that is not written to
                // meanwhile. `alloc_zeroed` initialized all of it, and no component runs now.
                let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.byte_size()) };
                bytes.split(|byte| *byte == token[0]).any(|rest| rest.starts_with(&token[1..]))
            })
        }

        /// Returns the result of a call, and whether a component had the token before or after the
        /// call, or whenever it waited.
        async fn watch<T>(&self, call: impl Future<Output = T>) -> (T, bool) {
            let (mut call, mut held) = (pin!(call), false);
            let answer = poll_fn(|context| {
                // Components run only inside this poll.
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

    /// Lists, creates and destroys sessions, and returns whether the component had the token
    /// meanwhile.
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

    /// Uses a single thread, so that no component runs while its memory is read.
    #[tokio::test]
    async fn token_of_the_host_never_reaches_the_component() {
        let [granted, other] = [(), ()].map(|()| Scripted::start(agent).unwrap());
        let quoting = Scripted::start(|request| Reply::http(403, "", &request.text())).unwrap();
        let memories = Memories::default();
        let mut config = Config::new();
        config.with_host_memory(Arc::new(memories.clone())).memory_reservation(0).memory_guard_size(0).memory_init_cow(false);
        let rule = |server: &Scripted| server.address().to_string().parse::<Rule>().unwrap();
        let mut builder = Host::builder().allow(rule(&other));
        for server in [&granted, &quoting] {
            builder = builder.allow(rule(server)).token_over_http(rule(server), TOKEN.parse().unwrap());
        }
        let (http, wasm) = (Http::new(builder.network.clone()).unwrap(), std::fs::read(plugin().unwrap()).unwrap());
        let host = builder.build_on(engine(config).unwrap(), http, &wasm).unwrap();

        assert!(!calls(&host, &memories, &connection(granted.address())).await);
        let requests = granted.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| request.header("X-Consul-Token") == [TOKEN]), "{requests:?}");

        assert!(!calls(&host, &memories, &connection(other.address())).await);
        let requests = other.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| !request.text().contains(&TOKEN[..8])), "{requests:?}");

        // An agent or a proxy that quotes the request gives it neither to the component nor to the
        // caller.
        let (listed, held) = memories.watch(host.list_sessions(None, Some(&connection(quoting.address())))).await;
        let message = listed.unwrap_err().to_string();
        assert!(!held && message.contains("(token)") && !message.contains(&TOKEN[..8]), "{message}");
        assert_eq!(quoting.requests()[0].header("X-Consul-Token"), [TOKEN]);

        // The search does find a token that the component has.
        let given = Connection { token: Some(TOKEN.into()), ..connection(other.address()) };
        assert!(calls(&host, &memories, &given).await);
    }

    #[test]
    fn only_tls_errors_of_build_are_config_errors() {
        let is_config_error = |builder: Builder, plugin: &Path| {
            let error = builder.build(plugin).err().unwrap();
            error.downcast_ref::<ConfigError>().is_some()
        };
        let folder = tempfile::tempdir().unwrap();
        let (missing, invalid) = (folder.path().join("missing"), folder.path().join("invalid.wasm"));
        std::fs::write(&invalid, "not a component").unwrap();
        for plugin in [&missing, &invalid] {
            assert!(!is_config_error(Host::builder(), plugin));
            let tls = Tls { ca_file: Some(missing.clone()), ..Tls::default() };
            assert!(is_config_error(Host::builder().tls(tls), plugin));
        }
    }

    #[test]
    fn types_and_futures_are_send() {
        fn send<T: Send + 'static>() {}
        fn sync<T: Sync + 'static>() {}
        fn sent<T: Send>(_: T) {}
        send::<Builder>();
        sync::<Builder>();
        send::<Host>();
        sync::<Host>();
        send::<Instance>();
        send::<Pool>();
        sync::<Pool>();
        send::<CallError>();
        sync::<CallError>();
        let _ = |host: &Host, instance: &mut Instance, options: &Options, create: &CreateOptions| {
            sent(host.pool(1).apply(options));
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
