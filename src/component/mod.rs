//! The parts for wasm32: the transport over `wasi:http`; with the feature `plugin`, the exports.

mod allocator;
#[cfg(feature = "plugin")]
mod bindings;
#[cfg(feature = "plugin")]
mod convert;
#[cfg(feature = "plugin")]
mod plugin;
mod wasi_http;

pub use wasi_http::WasiHttp;

/// The plugin's exported functions by their names in the canonical ABI.
#[cfg(feature = "plugin")]
#[allow(unsafe_code, reason = "generated, like the bindings")]
mod exports {
    use super::{bindings, plugin::Plugin};

    bindings::export!(Plugin with_types_in bindings);
}
