//! The components: what exists only on wasm32. One crate makes both: the plugin, and with the feature `command` the command line.

#[cfg(not(feature = "command"))]
mod bindings;
#[cfg(feature = "command")]
mod command;
#[cfg(not(feature = "command"))]
mod convert;
#[cfg(not(feature = "command"))]
mod plugin;
mod wasi_http;

/// The plugin's functions under their names in the canonical ABI.
#[cfg(not(feature = "command"))]
#[allow(unsafe_code, reason = "generated, as the bindings are")]
mod exports {
    use super::{bindings, plugin::Plugin};

    bindings::export!(Plugin with_types_in bindings);
}

/// The command's entry point.
#[cfg(feature = "command")]
#[allow(unsafe_code, reason = "generated, as the bindings are")]
mod exports {
    use super::command::Command;

    wasi::cli::command::export!(Command);
}

/// Chosen by what it weighs and by the memory that large lists take with it; docs/performance.md has what was compared.
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();
