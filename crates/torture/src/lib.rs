//! Three real Consul servers and their clients in network namespaces of their own, faults by a
//! seeded schedule, and the history of every call.

pub mod checker;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod host;
pub mod names;
pub mod net;
pub mod recorder;
pub mod register;
pub mod report;
pub mod run;
pub mod schedule;
pub mod workload;
pub mod world;
