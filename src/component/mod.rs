//! What exists only on wasm32: the transport over `wasi:http`, and with the feature `plugin` the plugin's exports.

#[cfg(feature = "plugin")]
mod bindings;
#[cfg(feature = "plugin")]
mod convert;
#[cfg(feature = "plugin")]
mod plugin;
mod wasi_http;

pub use wasi_http::WasiHttp;

/// The plugin's functions under their names in the canonical ABI.
#[cfg(feature = "plugin")]
#[allow(unsafe_code, reason = "generated, as the bindings are")]
mod exports {
    use super::{bindings, plugin::Plugin};

    bindings::export!(Plugin with_types_in bindings);
}

/// Chosen by what it weighs and by the memory that large lists take with it; docs/performance.md has what was compared.
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();
