//! The plugin in the runtimes that load it: embedded in wasmtime, and in other runtimes.

pub mod embedded;
pub mod report;
pub mod runtime;
