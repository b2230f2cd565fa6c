//! The plugin's WIT as Rust types: the output of `bindgen!` for `wit/`, re-exported under short
//! names.

use generated::exports::consul_session::plugin::{desired_state, locks, sessions};
use wasmtime::Result;
use wasmtime::component::{Component, ComponentExportIndex};
use wasmtime::error::Context as _;

#[allow(missing_docs, reason = "generated items have the documentation of the WIT")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        // The world `plugin` without its imports, which wasmtime implements and `host.rs` links.
        inline: "
            package consul-session:host;
            world plugin {
                export consul-session:plugin/sessions@0.1.0;
                export consul-session:plugin/desired-state@0.1.0;
                export consul-session:plugin/locks@0.1.0;
            }
        ",
        world: "consul-session:host/plugin",
        exports: { default: async },
        additional_derives: [PartialEq],
    });
}

pub use desired_state::{Diff, OnMismatch, Options, Outcome, State};
pub use locks::{Acquisition, Contents, Holding, Lock, Semaphore, SlotAcquisition};
pub use sessions::{
    Behavior, Connection, Consistency, CreateOptions, Difference, Error, InvalidOption, Listing, Lookup, Mismatch,
    NodeRequired, Query, Refusal, Scheme, ServiceCheck, Session,
};

/// Returns the index of an exported function. Both names are the Rust names that `bindgen!` makes
/// from those in WIT.
///
/// # Errors
///
/// Fails if the component does not export the interface, or the interface has no such function.
pub(crate) fn export(component: &Component, interface: &str, function: &str) -> Result<ComponentExportIndex> {
    let wit = |name: &str| name.replace('_', "-");
    let (interface, function) = (format!("consul-session:plugin/{}@0.1.0", wit(interface)), wit(function));
    let index = component.get_export_index(None, &interface).with_context(|| format!("it exports no interface {interface}"))?;
    let index = component.get_export_index(Some(&index), &function);
    index.with_context(|| format!("it exports no function {function} in {interface}"))
}

/// Implements `Default` for records whose fields are all optional: every field is `None`.
macro_rules! default_all_none {
    ($($record:ident { $($field:ident),* $(,)? })*) => {
        $(impl Default for $record {
            fn default() -> Self {
                Self { $($field: None),* }
            }
        })*
    };
}

default_all_none! {
    Connection { host, port, scheme, validate_certs, token, datacenter, namespace, partition, timeout }
    CreateOptions { name, node, lock_delay, behavior, ttl, node_checks, service_checks }
    Query { consistency, index, wait }
    Contents { value, flags }
    Options {
        state, id, name, node, datacenter, checks, node_checks, service_checks, behavior, delay, ttl, token, host, port,
        scheme, validate_certs, timeout, namespace, partition, on_mismatch, dry_run,
    }
}

impl Error {
    /// Returns the name of the case, as in WIT: `invalid-option`.
    pub fn name(&self) -> &'static str {
        match self {
            Error::InvalidOption(_) => "invalid-option",
            Error::Unsupported(_) => "unsupported",
            Error::NotFound(_) => "not-found",
            Error::Mismatch(_) => "mismatch",
            Error::NodeRequired(_) => "node-required",
            Error::Hidden(_) => "hidden",
            Error::UnknownNode(_) => "unknown-node",
            Error::UnknownCheck(_) => "unknown-check",
            Error::CriticalCheck(_) => "critical-check",
            Error::UnknownDatacenter(_) => "unknown-datacenter",
            Error::AccessDenied(_) => "access-denied",
            Error::Unavailable(_) => "unavailable",
            Error::Refused(_) => "refused",
            Error::Unreachable(_) => "unreachable",
            Error::DeniedByHost(_) => "denied-by-host",
            Error::Tls(_) => "tls",
            Error::Timeout(_) => "timeout",
            Error::InvalidResponse(_) => "invalid-response",
            Error::ResponseTooLarge(_) => "response-too-large",
            Error::OutcomeUnknown(_) => "outcome-unknown",
            Error::Other(_) => "other",
        }
    }

    /// Returns the message: the cause first, then the remedy.
    pub fn message(&self) -> &str {
        match self {
            Error::InvalidOption(invalid) => &invalid.message,
            Error::Mismatch(mismatch) => &mismatch.message,
            Error::NodeRequired(required) => &required.message,
            Error::AccessDenied(refusal) | Error::Unavailable(refusal) | Error::Refused(refusal) => &refusal.message,
            Error::Unsupported(message)
            | Error::NotFound(message)
            | Error::Hidden(message)
            | Error::UnknownNode(message)
            | Error::UnknownCheck(message)
            | Error::CriticalCheck(message)
            | Error::UnknownDatacenter(message)
            | Error::Unreachable(message)
            | Error::DeniedByHost(message)
            | Error::Tls(message)
            | Error::Timeout(message)
            | Error::InvalidResponse(message)
            | Error::ResponseTooLarge(message)
            | Error::OutcomeUnknown(message)
            | Error::Other(message) => message,
        }
    }

    /// Returns the message, to change it in place.
    pub(crate) fn message_mut(&mut self) -> &mut String {
        match self {
            Error::InvalidOption(invalid) => &mut invalid.message,
            Error::Mismatch(mismatch) => &mut mismatch.message,
            Error::NodeRequired(required) => &mut required.message,
            Error::AccessDenied(refusal) | Error::Unavailable(refusal) | Error::Refused(refusal) => &mut refusal.message,
            Error::Unsupported(message)
            | Error::NotFound(message)
            | Error::Hidden(message)
            | Error::UnknownNode(message)
            | Error::UnknownCheck(message)
            | Error::CriticalCheck(message)
            | Error::UnknownDatacenter(message)
            | Error::Unreachable(message)
            | Error::DeniedByHost(message)
            | Error::Tls(message)
            | Error::Timeout(message)
            | Error::InvalidResponse(message)
            | Error::ResponseTooLarge(message)
            | Error::OutcomeUnknown(message)
            | Error::Other(message) => message,
        }
    }
}
