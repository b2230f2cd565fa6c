//! The endpoints of Consul, one request each: its bytes, and the result of every answer.

mod answers;
mod locks;
mod requests;
mod semaphores;
