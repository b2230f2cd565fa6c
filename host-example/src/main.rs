//! The smallest complete host: loads the plugin, grants HTTP, calls `apply`, prints the answer.

use exports::consul_session::plugin::{desired_state::Options, sessions::Error};
use std::{process::ExitCode, time::Duration};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Result, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksCtx, WasiClocksCtxView};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock as clock;
use wasmtime_wasi_http::{Error as Code, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};
use wasmtime_wasi_io::IoView;

// The plugin's WIT as Rust. Only its exports are used: `load` links wasmtime's implementations.
wasmtime::component::bindgen!({ path: "../wit", world: "plugin", exports: { default: async } });

/// Overall timeout of a call. The plugin's own default is 10 seconds.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The host's side of one instance.
pub struct State {
    table: ResourceTable,
    clocks: WasiClocksCtx,
    http: WasiHttpCtx,
    allowed: AllowList,
    limits: StoreLimits,
}

/// The authorities to which the plugin may connect, each as `host:port`.
pub struct AllowList(pub Vec<String>);

type Transmission = Box<dyn Future<Output = Result<(), Code>> + Send>;

/// Grants the network: every request of the plugin passes here.
impl WasiHttpHooks for AllowList {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        transmission: Transmission,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Transmission), Code>> + Send> {
        match request.uri().authority() {
            Some(authority) if self.0.iter().any(|allowed| authority == allowed.as_str()) => {
                wasmtime_wasi_http::default_hooks().send_request(request, options, transmission)
            }
            _ => Box::new(async { Err(Code::HttpRequestDenied) }), // The plugin answers with `denied-by-host`.
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.allowed }
    }
}

impl IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

/// Compiles the plugin and links HTTP and a clock: no files, sockets, environment or randomness.
/// Refuses a component that imports more.
pub fn load(path: &str) -> Result<PluginPre<State>> {
    let engine = Engine::new(Config::new().epoch_interruption(true))?;
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?; // wasi:io: bodies and waiting.
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?; // wasi:http: `send_request`.
    clock::add_to_linker::<_, WasiClocks>(&mut linker, |s| WasiClocksCtxView { ctx: &mut s.clocks, table: &mut s.table })?;
    let plugin = PluginPre::new(linker.instantiate_pre(&Component::from_file(&engine, path)?)?)?;
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(10));
            engine.increment_epoch();
        }
    });
    Ok(plugin)
}

/// Creates an instance with its own limits. The largest answer that the plugin reads needs 360 MiB.
pub async fn instantiate(plugin: &PluginPre<State>, allowed: AllowList) -> Result<(Plugin, Store<State>)> {
    let limits = StoreLimitsBuilder::new().memories(1).memory_size(400 << 20).instances(10).tables(10).table_elements(1_000);
    let (table, clocks, http) = (ResourceTable::new(), WasiClocksCtx::default(), WasiHttpCtx::new());
    let mut store = Store::new(plugin.engine(), State { table, clocks, http, allowed, limits: limits.build() });
    store.limiter(|state| &mut state.limits);
    // The plugin yields to tokio at each epoch, so that `TIMEOUT` ends endless loops too.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    Ok((plugin.instantiate_async(&mut store).await?, store))
}

/// Parses the plugin's path, the allow-list and the options. Returns none for wrong usage.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<(String, AllowList, Options)> {
    let (path, mut allowed) = (arguments.next()?, vec!["localhost:8500".to_owned()]);
    #[rustfmt::skip]
    let mut options = Options {
        state: None, id: None, name: None, node: None, datacenter: None, checks: None, node_checks: None, service_checks: None,
        behavior: None, delay: None, ttl: None, token: None, host: None, port: None, scheme: None, validate_certs: None,
        timeout: None, namespace: None, partition: None, on_mismatch: None, dry_run: None,
    };
    for argument in arguments {
        match argument.split_once('=')? {
            ("--allow", authority) => allowed.push(authority.into()),
            ("name", value) => options.name = Some(value.into()),
            ("host", value) => options.host = Some(value.into()),
            ("port", value) => options.port = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some((path, AllowList(allowed), options))
}

/// Returns the case of an error, spelt as in WIT, and its message.
#[rustfmt::skip]
pub fn describe(error: &Error) -> (&str, &str) {
    use Error::*;
    match error {
        InvalidOption(e) => ("invalid-option", &e.message), Mismatch(e) => ("mismatch", &e.message),
        NodeRequired(e) => ("node-required", &e.message), AccessDenied(e) => ("access-denied", &e.message),
        Unavailable(e) => ("unavailable", &e.message), Refused(e) => ("refused", &e.message), Tls(m) => ("tls", m),
        Unsupported(m) => ("unsupported", m), NotFound(m) => ("not-found", m), Hidden(m) => ("hidden", m),
        UnknownNode(m) => ("unknown-node", m), UnknownCheck(m) => ("unknown-check", m), Unreachable(m) => ("unreachable", m),
        UnknownDatacenter(m) => ("unknown-datacenter", m), DeniedByHost(m) => ("denied-by-host", m), Other(m) => ("other", m),
        InvalidResponse(m) => ("invalid-response", m), ResponseTooLarge(m) => ("response-too-large", m),
        CriticalCheck(m) => ("critical-check", m), OutcomeUnknown(m) => ("outcome-unknown", m), Timeout(m) => ("timeout", m),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Some((path, allowed, options)) = parse(std::env::args().skip(1)) else {
        eprintln!("usage: host-example PLUGIN [name=NAME] [host=HOST] [port=PORT] [--allow=HOST:PORT]...");
        return Ok(ExitCode::from(2));
    };
    let call = async {
        let (instance, mut store) = instantiate(&load(&path)?, allowed).await?;
        instance.consul_session_plugin_desired_state().call_apply(&mut store, &options).await
    };
    // A timeout or a trap ends the program with status 1 too.
    match tokio::time::timeout(TIMEOUT, call).await?? {
        Ok(outcome) => {
            println!("{} {}", outcome.session_id.unwrap_or_default(), if outcome.changed { "changed" } else { "unchanged" });
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let (case, message) = describe(&error);
            eprintln!("error ({case}): {message}");
            Ok(ExitCode::FAILURE)
        }
    }
}
