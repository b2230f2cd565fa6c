//! The core through its public API: no Consul, no plugin runtime, no clock.
//!
//! Two transports take the place of Consul. [`script`] expects each request exactly and returns a
//! fixed answer. [`memory`] is the dev agent in memory, which [`interleavings`] uses to let the
//! requests of several callers arrive in every order.

mod endpoints;
mod interleavings;
mod invariants;
mod memory;
mod options;
mod output;
mod races;
mod script;
mod secrets;
mod states;
mod wit;
