//! The plugin as stock runtimes run it: without limits, and with wasmtime's default sender, which
//! opens a connection for each request.
//!
//! It also counts the boundary crossings between guest and host. They do not depend on the host.

use super::{Caller, Client};
use anyhow::{Result, anyhow, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{CallHook, Config, Engine, ProfilingStrategy, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView, default_hooks};

#[allow(missing_docs, reason = "the documentation of generated items is the WIT's")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package consul-session:bench;
            world plugin {
                export consul-session:plugin/sessions@0.1.0;
                export consul-session:plugin/desired-state@0.1.0;
            }
        ",
        world: "consul-session:bench/plugin",
        exports: { default: async },
    });
}

use bindings::exports::consul_session::plugin::desired_state::Options;
use bindings::exports::consul_session::plugin::sessions::{Connection, CreateOptions};

/// The loaded plugin.
pub struct Stock {
    plugin: bindings::PluginPre<State>,
    /// The boundary crossings of all callers.
    pub crossings: Arc<Crossings>,
}

/// Numbers of boundary crossings.
#[derive(Debug, Default)]
pub struct Crossings {
    /// Guest to host: calls of imported functions.
    pub to_host: AtomicU64,
    /// Host to guest: calls of exported functions, of `cabi_realloc`, and of post-return functions.
    pub to_guest: AtomicU64,
}

impl Stock {
    /// Compiles the plugin.
    pub fn new() -> Result<Stock> {
        let load = || -> wasmtime::Result<_> {
            let mut config = Config::new();
            // With it perf knows the guest's functions. Not by default: it leaves a file in /tmp.
            if std::env::var_os("BENCH_PERF_MAP").is_some() {
                config.profiler(ProfilingStrategy::PerfMap);
            }
            let engine = Engine::new(&config)?;
            let path = test_support::plugin().map_err(|error| wasmtime::format_err!("{error:#}"))?;
            let mut linker = Linker::new(&engine);
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            bindings::PluginPre::new(linker.instantiate_pre(&Component::from_file(&engine, path)?)?)
        };
        Ok(Stock { plugin: load().map_err(|error| anyhow!("{error:?}"))?, crossings: Arc::default() })
    }
}

/// The host's side of one instance.
struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: default_hooks() }
    }
}

/// A caller with one instance for all calls.
pub struct StockCaller {
    plugin: bindings::Plugin,
    store: Store<State>,
    address: SocketAddr,
    connection: Connection,
}

impl Client for Stock {
    type Caller = StockCaller;

    fn name(&self) -> String {
        "plugin, wasmtime's default sender".into()
    }

    async fn caller(&self, address: SocketAddr) -> Result<StockCaller> {
        let state = State { table: ResourceTable::new(), wasi: WasiCtx::builder().build(), http: WasiHttpCtx::new() };
        let mut store = Store::new(self.plugin.engine(), state);
        let crossings = Arc::clone(&self.crossings);
        store.call_hook(move |mut store, hook| {
            let counted = match hook {
                CallHook::CallingHost => {
                    // The default is 128 MiB for all calls of a store together, too little for
                    // large lists.
                    store.set_hostcall_fuel(usize::MAX);
                    &crossings.to_host
                }
                CallHook::CallingWasm => &crossings.to_guest,
                CallHook::ReturningFromHost | CallHook::ReturningFromWasm => return Ok(()),
            };
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let plugin = self.plugin.instantiate_async(&mut store).await.map_err(|error| anyhow!("{error:?}"))?;
        let connection = Connection {
            host: Some(address.ip().to_string()),
            port: Some(address.port()),
            scheme: None,
            validate_certs: None,
            token: None,
            datacenter: None,
            namespace: None,
            partition: None,
            timeout: None,
        };
        Ok(StockCaller { plugin, store, address, connection })
    }
}

/// Returns the plugin's answer. Both a trap and an error of the plugin are errors.
fn answer<T, E: std::fmt::Debug>(answer: wasmtime::Result<Result<T, E>>) -> Result<T> {
    answer.map_err(|error| anyhow!("{error:?}"))?.map_err(|error| anyhow!("{error:?}"))
}

impl Caller for StockCaller {
    async fn info(&mut self, id: &str) -> Result<()> {
        let sessions = self.plugin.consul_session_plugin_sessions();
        let found = answer(sessions.call_info(&mut self.store, id, None, Some(&self.connection)).await)?;
        ensure!(found.session.is_some(), "no session");
        Ok(())
    }

    async fn create(&mut self, name: &str) -> Result<String> {
        let options = CreateOptions {
            name: Some(name.into()),
            node: None,
            lock_delay: None,
            behavior: None,
            ttl: None,
            node_checks: None,
            service_checks: None,
        };
        let sessions = self.plugin.consul_session_plugin_sessions();
        answer(sessions.call_create(&mut self.store, &options, Some(&self.connection)).await)
    }

    async fn destroy(&mut self, id: &str) -> Result<()> {
        let sessions = self.plugin.consul_session_plugin_sessions();
        answer(sessions.call_destroy(&mut self.store, id, Some(&self.connection)).await)
    }

    async fn present(&mut self, name: &str) -> Result<bool> {
        let options = Options {
            name: Some(name.into()),
            host: Some(self.address.ip().to_string()),
            port: Some(self.address.port()),
            state: None,
            id: None,
            node: None,
            datacenter: None,
            checks: None,
            node_checks: None,
            service_checks: None,
            behavior: None,
            delay: None,
            ttl: None,
            token: None,
            scheme: None,
            validate_certs: None,
            timeout: None,
            namespace: None,
            partition: None,
            on_mismatch: None,
            dry_run: None,
        };
        let desired_state = self.plugin.consul_session_plugin_desired_state();
        Ok(answer(desired_state.call_apply(&mut self.store, &options).await)?.changed)
    }

    async fn list(&mut self) -> Result<usize> {
        let sessions = self.plugin.consul_session_plugin_sessions();
        let found = answer(sessions.call_list_sessions(&mut self.store, None, Some(&self.connection)).await)?;
        Ok(found.sessions.len())
    }
}
