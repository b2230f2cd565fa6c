//! The plugin in the runtimes that load it: embedded in wasmtime, and in those of others.

pub mod embedded;
pub mod report;
pub mod runtime;
