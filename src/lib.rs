//! Consul sessions with the option semantics of Ansible's `consul_session` module, as a WebAssembly component.
//!
//! Any host that runs WASI 0.2 loads `consul-session-plugin.wasm`; the host alone owns the network. This crate is what the
//! component is made of. Its core compiles and is tested natively; what needs WebAssembly is in one module.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | the option page as one table: names, defaults, choices, checks |
//! | [`duration`] | `20s`, `20`, `1m30s` |
//! | [`session`] | a session, and Consul's JSON for it |
//! | [`lock`] | a key that a session may hold, and Consul's JSON for it |
//! | [`consul`] | one file for each endpoint: build a request, read a response |
//! | [`apply`] | the states of the page as steps over `consul` |
//! | [`outcome`] | what `apply` answers, and its JSON |
//! | [`json`] | one small JSON type, for what is read and what is written |
//! | [`error`] | the errors, and the one function from a status of Consul to them |
//! | [`transport`] | the trait that carries a request, and plain requests and responses |
//! | `cli` | the command line: words and environment to options, answers to text |
//! | `component` | wasm32 only: bindings, conversions, and the one module that touches `wasi:http` |
//!
//! Dependence goes one way: `component` and `cli` → `apply` → `consul` → plain types. Nothing in the core knows WASI, threads,
//! clocks or the environment.
//!
//! # Endpoints
//!
//! | operation | request |
//! |---|---|
//! | create | `PUT /v1/session/create` |
//! | destroy | `PUT /v1/session/destroy/<id>` |
//! | renew | `PUT /v1/session/renew/<id>` |
//! | info | `GET /v1/session/info/<id>` |
//! | node | `GET /v1/session/node/<name>` |
//! | list | `GET /v1/session/list` |
//! | the agent's own node | `GET /v1/agent/self` |
//! | may these sessions be read? | `POST /v1/internal/acl/authorize` |
//! | acquire or release a key | `PUT /v1/txn` |
//! | who holds a key | `GET /v1/kv/<key>` |

#![cfg_attr(all(target_arch = "wasm32", not(feature = "cli")), no_std)]
#![allow(
    clippy::useless_conversion,
    clippy::clone_on_copy,
    reason = "natively `Text` is `String`, in a component it is `Copy`"
)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

extern crate alloc;

/// A text of these texts. What `format!` needs for it, with its widths and its numbers, is 5 kB of the plugin.
macro_rules! text {
    ($($part:expr),* $(,)?) => {
        $crate::concat(&[$(AsRef::<str>::as_ref(&$part)),*])
    };
}

pub mod apply;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(target_arch = "wasm32")]
mod component;
pub mod consul;
pub mod duration;
pub mod error;
pub mod json;
pub mod lock;
pub mod options;
pub mod outcome;
pub mod session;
pub mod text;
pub mod transport;

use alloc::string::String;

pub use error::Error;
pub use options::Options;
pub use outcome::Outcome;
pub use session::Session;

/// As the slice's own `concat`, which is a kilobyte.
fn concat(parts: &[&str]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        text.push_str(part);
    }
    text
}

/// A whole number in digits. What std has for it, with widths and signs, is 3 kB of the plugin.
fn whole(number: i64) -> String {
    let mut text = String::new();
    write_whole(&mut text, number);
    text
}

fn write_whole(to: &mut String, number: i64) {
    if number < 0 {
        to.push('-');
    }
    write_digits(to, number.unsigned_abs());
}

/// A count in digits.
fn decimal(count: usize) -> String {
    digits(count as u64)
}

fn digits(number: u64) -> String {
    let mut text = String::new();
    write_digits(&mut text, number);
    text
}

fn write_digits(to: &mut String, number: u64) {
    if number > 9 {
        write_digits(to, number / 10);
    }
    to.push(char::from(b'0' + (number % 10) as u8));
}
