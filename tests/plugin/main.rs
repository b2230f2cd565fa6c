//! The built component, embedded in wasmtime: the requests it sends, its reading of every answer,
//! and each function against agents.

mod answers;
mod functions;
mod locks;
mod requests;
mod semaphores;
