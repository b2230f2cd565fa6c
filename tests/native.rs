//! The core, natively and through its public API: no Consul, no runtime, no clock.
//!
//! Two stand-ins carry its requests. [`script`] expects each request exactly and answers as it is told; [`cluster`] keeps
//! sessions as Consul does, and [`callers`] lets the requests of several callers reach it in every order.

#[path = "native/answers.rs"]
mod answers;
#[path = "native/callers.rs"]
mod callers;
#[path = "native/cluster.rs"]
mod cluster;
#[path = "native/combinations.rs"]
mod combinations;
#[path = "native/locks.rs"]
mod locks;
#[path = "native/options.rs"]
mod options;
#[path = "native/output.rs"]
mod output;
#[path = "native/races.rs"]
mod races;
#[path = "native/random.rs"]
mod random;
#[path = "native/requests.rs"]
mod requests;
#[path = "native/script.rs"]
mod script;
#[path = "native/secrets.rs"]
mod secrets;
#[path = "native/states.rs"]
mod states;
#[path = "native/values.rs"]
mod values;
#[path = "native/wit.rs"]
mod wit;
