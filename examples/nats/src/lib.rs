//! Has `apply-json` answer each line of standard input, and writes each answer, or the error's case, as a line. It knows neither HTTP
//! nor NATS.

// An empty crate elsewhere, so that the whole workspace still builds natively.
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
        // Until the stream is closed, which is its error.
        while let Ok(piece) = input.blocking_read(4096) {
            bytes.extend(piece);
        }
        for line in String::from_utf8(bytes).map_err(|_| ())?.lines() {
            let answer = apply_json(line).unwrap_or_else(|error| format!("{error:?}"));
            for piece in format!("{answer}\n").as_bytes().chunks(4096) {
                output.blocking_write_and_flush(piece).map_err(|_| ())?;
            }
        }
        Ok(())
    }
}
