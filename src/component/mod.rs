//! The components: what exists only on wasm32. One crate makes both: the plugin, and with the feature `command` the command line.

mod abi;
#[cfg(feature = "command")]
mod command;
#[cfg(not(feature = "command"))]
mod convert;
mod heap;
#[cfg(not(feature = "command"))]
mod plugin;
#[cfg(not(feature = "command"))]
mod types;
mod wasi_http;

/// What `wit-bindgen` makes of the command's world. The plugin does without: its exports and `wasi:http` are by hand.
#[cfg(feature = "command")]
mod bindings {
    wit_bindgen::generate!({
        world: "command",
        path: "wit",
        generate_all,
        pub_export_macro: true,
        disable_run_ctors_once_workaround: true,
    });
}

pub use self::abi::{List, Maybe, Text};
pub use self::heap::passing;
use self::wasi_http::WasiHttp;
use crate::apply::Task;
use crate::error::Error;
use crate::options::Options;

/// The plugin has no panic that could be met, and nowhere to tell of one: std's texts and hooks for them are left out.
#[cfg(not(feature = "command"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// Applies the options over the host's HTTP.
fn apply(options: Options) -> Result<crate::Outcome, Error> {
    let task = Task::new(options)?;
    task.run(&mut WasiHttp::new(task.timeout()))
}
