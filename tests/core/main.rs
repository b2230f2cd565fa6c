//! The core, natively and through its public API: no Consul, no runtime, no clock.
//!
//! Two stand-ins carry its requests. [`script`] expects each request exactly and answers as it is told; [`cluster`] keeps
//! sessions as Consul does, and [`interleavings`] lets the requests of several interleavings reach it in every order.

mod answers;
mod cluster;
mod combinations;
mod interleavings;
mod locks;
mod options;
mod output;
mod races;
mod random;
mod requests;
mod script;
mod secrets;
mod states;
mod values;
mod wit;
