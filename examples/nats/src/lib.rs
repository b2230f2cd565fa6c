//! Calls `apply-json` with each line of standard input, and prints each answer or error as a line.
//! It uses neither HTTP nor NATS itself.

// An empty crate on other targets, so that the whole workspace builds natively.
#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "consul-session:distributed-caller/caller",
        generate_all,
        pub_export_macro: true,
        // A cdylib for wasm32-unknown-unknown has no constructors to run before each export.
        disable_run_ctors_once_workaround: true,
    });
}

use bindings::consul_session::plugin::desired_state::apply_json;
use bindings::exports::wasi::cli::run::Guest;
use bindings::wasi::cli::{stdin, stdout};

struct Caller;

bindings::export!(Caller with_types_in bindings);

impl Guest for Caller {
    fn run() -> Result<(), ()> {
        let (input, output) = (stdin::get_stdin(), stdout::get_stdout());
        let mut bytes = Vec::new();
        // The end of the stream is its error `closed`.
        while let Ok(chunk) = input.blocking_read(4096) {
            bytes.extend(chunk);
        }
        for line in String::from_utf8(bytes).map_err(|_| ())?.lines() {
            let answer = apply_json(line).unwrap_or_else(|error| format!("{error:?}"));
            for chunk in format!("{answer}\n").as_bytes().chunks(4096) {
                output.blocking_write_and_flush(chunk).map_err(|_| ())?;
            }
        }
        Ok(())
    }
}
