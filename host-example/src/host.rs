//! Loads the plugin and calls it.

use crate::bindings::{Connection, CreateOptions, Error, Listing, Lookup, Options, Outcome, PluginPre, Query, Session};
use crate::http::Http;
use std::path::Path;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::error::Context as _;
use wasmtime::{Engine, Result, Store};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksCtx, WasiClocksCtxView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

/// The loaded plugin. Cheap to clone; clones share the compiled code and the pool of connections.
///
/// Each call gets a fresh instance, so that calls share no memory and any number may run at once. Dropping the future of
/// a call ends the call and closes its connection.
///
/// The pooled connections live on the tokio runtime that opened them: use one `Host` on one runtime.
#[derive(Clone)]
pub struct Host {
    plugin: PluginPre<State>,
    http: Http,
}

impl Host {
    /// Loads and compiles the plugin's `.wasm` file.
    ///
    /// Errors: the file cannot be read, is no component, lacks the plugin's exports, or imports more than outgoing HTTP.
    pub fn new(path: &Path) -> Result<Host> {
        let load = || Host::from_bytes(&std::fs::read(path)?);
        load().with_context(|| format!("cannot load the plugin {}", path.display()))
    }

    /// As [`Host::new`], from the content of the file.
    pub fn from_bytes(wasm: &[u8]) -> Result<Host> {
        let engine = Engine::default();
        let component = Component::from_binary(&engine, wasm)?;
        Ok(Host { plugin: PluginPre::new(linker(&engine)?.instantiate_pre(&component)?)?, http: Http::new()? })
    }

    /// Makes sessions as the options say: `desired-state.apply`.
    pub async fn apply(&self, options: &Options) -> Result<Result<Outcome, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_desired_state().call_apply(&mut store, options).await
    }

    /// As [`Host::apply`], on JSON with the option page's names; answers with a JSON object: `desired-state.apply-json`.
    pub async fn apply_json(&self, options: &str) -> Result<Result<String, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_desired_state().call_apply_json(&mut store, options).await
    }

    /// Creates a session and answers with its id: `sessions.create`. Not idempotent.
    pub async fn create(&self, options: &CreateOptions, connection: Option<&Connection>) -> Result<Result<String, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_sessions().call_create(&mut store, options, connection).await
    }

    /// Destroys a session: `sessions.destroy`. One that does not exist is no error.
    pub async fn destroy(&self, id: &str, connection: Option<&Connection>) -> Result<Result<(), Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_sessions().call_destroy(&mut store, id, connection).await
    }

    /// Restarts the TTL of a session: `sessions.renew`.
    pub async fn renew(&self, id: &str, connection: Option<&Connection>) -> Result<Result<Session, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_sessions().call_renew(&mut store, id, connection).await
    }

    /// Reads one session: `sessions.info`.
    pub async fn info(&self, id: &str, query: Option<Query>, connection: Option<&Connection>) -> Result<Result<Lookup, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_sessions().call_info(&mut store, id, query, connection).await
    }

    /// Reads the sessions of a node: `sessions.node`.
    pub async fn node(
        &self,
        node: &str,
        query: Option<Query>,
        connection: Option<&Connection>,
    ) -> Result<Result<Listing, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_sessions().call_node(&mut store, node, query, connection).await
    }

    /// Reads all sessions of the datacenter: `sessions.list-sessions`.
    pub async fn list_sessions(&self, query: Option<Query>, connection: Option<&Connection>) -> Result<Result<Listing, Error>> {
        let mut store = self.store();
        let plugin = self.plugin.instantiate_async(&mut store).await?;
        plugin.consul_session_plugin_sessions().call_list_sessions(&mut store, query, connection).await
    }

    /// What one instance has for itself.
    fn store(&self) -> Store<State> {
        let state = State {
            table: ResourceTable::new(),
            clocks: WasiClocksCtx::default(),
            http_ctx: WasiHttpCtx::new(),
            http: self.http.clone(),
        };
        Store::new(self.plugin.engine(), state)
    }
}

/// Links the six interfaces that the plugin imports. A component that wants more is refused when it is loaded.
fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p2::bindings::clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(&mut linker, |state| {
        WasiClocksCtxView { ctx: &mut state.clocks, table: &mut state.table }
    })?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// The host's side of one instance.
struct State {
    table: ResourceTable,
    clocks: WasiClocksCtx,
    http_ctx: WasiHttpCtx,
    http: Http,
}

impl IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http_ctx, table: &mut self.table, hooks: &mut self.http }
    }
}
