//! Fuzz targets as plain functions: each takes bytes, and panics where the code under test breaks
//! a promise.
//!
//! `cargo xtask fuzz` runs them under coverage guidance, by the package in `targets/`. On stable,
//! `tests/replay.rs` runs each on the inputs that are saved in `corpus/NAME/`. The README says how
//! to add one.

mod addresses;
mod answers;
mod batch_files;
#[cfg(feature = "host")]
mod component;
#[cfg(feature = "host")]
mod config_files;
#[cfg(feature = "consul")]
mod dev_agent;
#[cfg(feature = "host")]
mod http_answers;
mod option_words;
mod options_json;
mod policy_rules;
mod support;
#[cfg(feature = "host")]
mod wit_values;

// The program has no library.
#[path = "../../cli/src/batch/file.rs"]
#[expect(dead_code, reason = "the program reads each field")]
mod batch_file;

// Parts of the host's library, which needs wasmtime as a whole.
#[path = "../../host/src/config_error.rs"]
mod config_error;
#[path = "../../host/src/policy.rs"]
#[expect(dead_code, reason = "the library calls each function")]
mod policy;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its function, its corpus and its binary.
    pub name: &'static str,
    /// Its function.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        $($(#[$attribute])* pub use $name::$name;)*

        /// The targets, the cheapest first.
        pub const TARGETS: &[Target] = &[$($(#[$attribute])* Target { name: stringify!($name), run: $name },)*];
    };
}

targets! {
    addresses,
    policy_rules,
    options_json,
    answers,
    batch_files,
    option_words,
    #[cfg(feature = "host")]
    config_files,
    #[cfg(feature = "consul")]
    dev_agent,
    #[cfg(feature = "host")]
    http_answers,
    #[cfg(feature = "host")]
    wit_values,
}
