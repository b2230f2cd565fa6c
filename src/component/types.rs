//! The types of our interfaces, as `wit/` has them and in its order: `tests/native/wit.rs` compares the two.
//!
//! The functions' arguments are types here too: where they are many, the host puts them behind one pointer.

#![expect(dead_code, reason = "what one side makes, the other reads")]

use super::abi::{List, Maybe, Text};
use crate::lock::Contents;
use crate::session::Session;

pub type Seconds = f64;

/// Makes an enum whose words are those of an option: a number, read from the list of them.
macro_rules! words {
    ($($name:ident)*) => {
        $(
            #[repr(transparent)]
            pub struct $name(u8);

            impl $name {
                pub fn word(&self) -> Option<&'static str> {
                    crate::options::$name::NAMES.get(usize::from(self.0)).copied()
                }
            }
        )*
    };
}

words! { Behavior OnMismatch Scheme State }

#[repr(u8)]
pub enum Consistency {
    Default,
    Stale,
    Consistent,
}

#[repr(C)]
pub struct Connection {
    pub host: Maybe<Text>,
    pub port: Maybe<u16>,
    pub scheme: Maybe<Scheme>,
    pub validate_certs: Maybe<bool>,
    pub token: Maybe<Text>,
    pub datacenter: Maybe<Text>,
    pub namespace: Maybe<Text>,
    pub partition: Maybe<Text>,
    pub timeout: Maybe<Seconds>,
}

#[repr(C)]
pub struct CreateOptions {
    pub name: Maybe<Text>,
    pub node: Maybe<Text>,
    pub lock_delay: Maybe<Seconds>,
    pub behavior: Maybe<Behavior>,
    pub ttl: Maybe<Seconds>,
    pub node_checks: Maybe<List<Text>>,
    pub service_checks: Maybe<List<Text>>,
}

#[repr(C)]
pub struct Query {
    pub consistency: Maybe<Consistency>,
    pub index: Maybe<u64>,
    pub wait: Maybe<Seconds>,
}

#[repr(C)]
pub struct Lookup {
    pub session: Maybe<Session>,
    pub index: u64,
    pub filtered: bool,
}

#[repr(C)]
pub struct Listing {
    pub sessions: List<Session>,
    pub index: u64,
    pub filtered: bool,
}

#[repr(C)]
pub struct InvalidOption {
    pub option: Text,
    pub message: Text,
}

#[repr(C)]
pub struct Difference {
    pub option: Text,
    pub found: Text,
    pub wanted: Text,
}

#[repr(C)]
pub struct Mismatch {
    pub session_id: Text,
    pub differences: List<Difference>,
    pub message: Text,
}

#[repr(C)]
pub struct NodeRequired {
    pub nodes: List<Text>,
    pub message: Text,
}

#[repr(C)]
pub struct Refusal {
    pub status: u16,
    pub message: Text,
}

#[repr(C, u8)]
pub enum Error {
    InvalidOption(InvalidOption),
    Unsupported(Text),
    NotFound(Text),
    Mismatch(Mismatch),
    NodeRequired(NodeRequired),
    Hidden(Text),
    UnknownNode(Text),
    UnknownCheck(Text),
    CriticalCheck(Text),
    UnknownDatacenter(Text),
    AccessDenied(Refusal),
    Unavailable(Refusal),
    Refused(Refusal),
    Unreachable(Text),
    DeniedByHost(Text),
    Tls(Text),
    Timeout(Text),
    InvalidResponse(Text),
    ResponseTooLarge(Text),
    OutcomeUnknown(Text),
    Other(Text),
}

#[repr(C)]
pub struct Options {
    pub state: Maybe<State>,
    pub id: Maybe<Text>,
    pub name: Maybe<Text>,
    pub node: Maybe<Text>,
    pub datacenter: Maybe<Text>,
    pub checks: Maybe<List<Text>>,
    pub node_checks: Maybe<List<Text>>,
    pub service_checks: Maybe<List<Text>>,
    pub behavior: Maybe<Behavior>,
    pub delay: Maybe<Seconds>,
    pub ttl: Maybe<Seconds>,
    pub token: Maybe<Text>,
    pub host: Maybe<Text>,
    pub port: Maybe<u16>,
    pub scheme: Maybe<Scheme>,
    pub validate_certs: Maybe<bool>,
    pub timeout: Maybe<Seconds>,
    pub namespace: Maybe<Text>,
    pub partition: Maybe<Text>,
    pub on_mismatch: Maybe<OnMismatch>,
    pub dry_run: Maybe<bool>,
}

#[repr(C)]
pub struct Diff {
    pub before: Text,
    pub after: Text,
}

#[repr(C)]
pub struct Outcome {
    pub changed: bool,
    pub session_id: Maybe<Text>,
    pub sessions: List<Session>,
    pub destroyed: List<Text>,
    pub diff: Maybe<Diff>,
    pub filtered: bool,
    pub notes: List<Text>,
}

#[repr(C)]
pub struct CreateArguments {
    pub options: CreateOptions,
    pub connection: Maybe<Connection>,
}

#[repr(C)]
pub struct DestroyArguments {
    pub id: Text,
    pub connection: Maybe<Connection>,
}

pub type RenewArguments = DestroyArguments;

#[repr(C)]
pub struct InfoArguments {
    pub id: Text,
    pub query: Maybe<Query>,
    pub connection: Maybe<Connection>,
}

#[repr(C)]
pub struct NodeArguments {
    pub node: Text,
    pub query: Maybe<Query>,
    pub connection: Maybe<Connection>,
}

#[repr(C)]
pub struct ListSessionsArguments {
    pub query: Maybe<Query>,
    pub connection: Maybe<Connection>,
}

#[repr(C)]
pub struct ApplyArguments {
    pub options: Options,
}

#[repr(C)]
pub struct AcquireArguments {
    pub key: Text,
    pub session_id: Text,
    pub contents: Maybe<Contents>,
    pub connection: Maybe<Connection>,
}

pub type ReleaseArguments = AcquireArguments;

#[repr(C)]
pub struct HolderArguments {
    pub key: Text,
    pub query: Maybe<Query>,
    pub connection: Maybe<Connection>,
}
