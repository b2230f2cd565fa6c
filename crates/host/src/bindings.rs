//! The plugin's WIT as Rust: what `bindgen!` makes of `wit/`, under readable names.

use consul_session::consul::create::effective;
use consul_session::options::{self as core_options, Resolved};
use generated::exports::consul_session::plugin::{desired_state, locks, sessions};
use wasmtime::Result;
use wasmtime::component::{Component, ComponentExportIndex};
use wasmtime::error::Context as _;

#[allow(missing_docs, reason = "the documentation of generated items is the WIT's")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        // The world `plugin` without its imports: those are wasmtime's own, linked in `host.rs`.
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
pub use locks::{Acquisition, Contents, Holding, Lock};
pub use sessions::{
    Behavior, Connection, Consistency, CreateOptions, Error, Listing, Lookup, Query, Scheme, ServiceCheck, Session,
};
use sessions::{InvalidOption, Refusal};

/// Where a component has a function of the plugin's. Both names are Rust's, as `bindgen!` makes them of the WIT's.
///
/// Errors: it has no such interface, or the interface has no such function.
pub fn export(component: &Component, interface: &str, function: &str) -> Result<ComponentExportIndex> {
    let wit = |name: &str| name.replace('_', "-");
    let (interface, function) = (format!("consul-session:plugin/{}@0.1.0", wit(interface)), wit(function));
    let index = component.get_export_index(None, &interface).with_context(|| format!("it exports no interface {interface}"))?;
    let index = component.get_export_index(Some(&index), &function);
    index.with_context(|| format!("it exports no function {function} in {interface}"))
}

/// Implements `Default` for records whose fields are all optional: everything left out.
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

/// The connection that options speak of.
impl From<&Resolved> for Connection {
    fn from(options: &Resolved) -> Connection {
        Connection {
            host: Some(options.host.as_str().to_owned()),
            port: Some(options.port),
            scheme: Some(options.scheme.into()),
            validate_certs: Some(options.validate_certs),
            token: options.token.as_ref().map(|token| token.secret().to_owned()),
            datacenter: options.datacenter.clone(),
            namespace: options.namespace.clone(),
            partition: options.partition.clone(),
            timeout: Some(seconds(options.timeout)),
        }
    }
}

/// The new session that options speak of.
impl From<&Resolved> for CreateOptions {
    fn from(options: &Resolved) -> CreateOptions {
        CreateOptions {
            name: options.name.clone(),
            node: options.node.clone(),
            lock_delay: Some(seconds(options.delay)),
            behavior: Some(options.behavior.into()),
            ttl: options.ttl.map(seconds),
            node_checks: options.checks.as_deref().map(effective).or_else(|| options.node_checks.clone()),
            service_checks: options.service_checks.clone(),
        }
    }
}

/// The same options, each as the WIT has it.
impl From<&consul_session::Options> for Options {
    fn from(options: &consul_session::Options) -> Options {
        Options {
            state: options.state.map(Into::into),
            id: options.id.as_ref().map(|id| id.as_str().to_owned()),
            name: options.name.clone(),
            node: options.node.clone(),
            datacenter: options.datacenter.clone(),
            checks: options.checks.clone(),
            node_checks: options.node_checks.clone(),
            service_checks: options.service_checks.clone(),
            behavior: options.behavior.map(Into::into),
            delay: options.delay.map(seconds),
            ttl: options.ttl.map(seconds),
            token: options.token.as_ref().map(|token| token.secret().to_owned()),
            host: options.host.as_ref().map(|host| host.as_str().to_owned()),
            port: options.port,
            scheme: options.scheme.map(Into::into),
            validate_certs: options.validate_certs,
            timeout: options.timeout.map(seconds),
            namespace: options.namespace.clone(),
            partition: options.partition.clone(),
            on_mismatch: options.on_mismatch.map(Into::into),
            dry_run: options.dry_run,
        }
    }
}

impl From<core_options::State> for State {
    fn from(state: core_options::State) -> State {
        match state {
            core_options::State::Present => State::Present,
            core_options::State::Absent => State::Absent,
            core_options::State::Info => State::Info,
            core_options::State::Node => State::Node,
            core_options::State::List => State::List,
        }
    }
}

impl From<core_options::Behavior> for Behavior {
    fn from(behavior: core_options::Behavior) -> Behavior {
        match behavior {
            core_options::Behavior::Release => Behavior::Release,
            core_options::Behavior::Delete => Behavior::Delete,
        }
    }
}

impl From<core_options::Scheme> for Scheme {
    fn from(scheme: core_options::Scheme) -> Scheme {
        match scheme {
            core_options::Scheme::Http => Scheme::Http,
            core_options::Scheme::Https => Scheme::Https,
        }
    }
}

impl From<core_options::OnMismatch> for OnMismatch {
    fn from(on_mismatch: core_options::OnMismatch) -> OnMismatch {
        match on_mismatch {
            core_options::OnMismatch::Fail => OnMismatch::Fail,
            core_options::OnMismatch::Replace => OnMismatch::Replace,
        }
    }
}

/// From nanoseconds, as the core has durations.
fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The same session as the core has it, which knows its JSON.
impl From<Session> for consul_session::Session {
    fn from(session: Session) -> consul_session::Session {
        let service_check =
            |check: ServiceCheck| consul_session::session::ServiceCheck { id: check.id, namespace: check.namespace };
        consul_session::Session {
            id: session.id,
            name: session.name,
            node: session.node,
            lock_delay: session.lock_delay,
            behavior: session.behavior,
            ttl: session.ttl,
            node_checks: session.node_checks,
            service_checks: session.service_checks.into_iter().map(service_check).collect(),
            checks: session.checks,
            namespace: session.namespace,
            partition: session.partition,
            create_index: session.create_index,
            modify_index: session.modify_index,
        }
    }
}

/// The same outcome as the core has it, which knows its JSON.
impl From<Outcome> for consul_session::Outcome {
    fn from(outcome: Outcome) -> consul_session::Outcome {
        let all = |sessions: Vec<Session>| sessions.into_iter().map(Into::into).collect();
        let sessions: Vec<consul_session::Session> = all(outcome.sessions);
        // The one that the options speak of is named by its id, and has none yet in the dry run of a creation.
        let id = outcome.session_id.unwrap_or_default();
        consul_session::Outcome {
            changed: outcome.changed,
            session: sessions.iter().find(|session| session.id == id).cloned(),
            sessions,
            destroyed: outcome.destroyed,
            diff: outcome.diff.map(|diff| consul_session::outcome::Diff { before: all(diff.before), after: all(diff.after) }),
            filtered: outcome.filtered,
            notes: outcome.notes,
        }
    }
}

/// The same error as the core has it, which is the one that callers get: it knows its case's name, its text and its JSON.
impl From<Error> for consul_session::Error {
    fn from(error: Error) -> consul_session::Error {
        use consul_session::error::{Case, Difference};
        let (case, message) = match error {
            Error::InvalidOption(InvalidOption { option, message }) => (Case::InvalidOption { option }, message),
            Error::Unsupported(message) => (Case::Unsupported, message),
            Error::NotFound(message) => (Case::NotFound, message),
            Error::Mismatch(mismatch) => {
                let known = |name: &str| consul_session::options::info(name).map_or("", |info| info.name);
                let differences = mismatch
                    .differences
                    .into_iter()
                    .map(|one| Difference { option: known(&one.option), found: one.found, wanted: one.wanted })
                    .collect();
                (Case::Mismatch { session_id: mismatch.session_id, differences }, mismatch.message)
            }
            Error::NodeRequired(required) => (Case::NodeRequired { nodes: required.nodes }, required.message),
            Error::Hidden(message) => (Case::Hidden, message),
            Error::UnknownNode(message) => (Case::UnknownNode, message),
            Error::UnknownCheck(message) => (Case::UnknownCheck, message),
            Error::CriticalCheck(message) => (Case::CriticalCheck, message),
            Error::UnknownDatacenter(message) => (Case::UnknownDatacenter, message),
            Error::AccessDenied(Refusal { status, message }) => (Case::AccessDenied { status }, message),
            Error::Unavailable(Refusal { status, message }) => (Case::Unavailable { status }, message),
            Error::Refused(Refusal { status, message }) => (Case::Refused { status }, message),
            Error::Unreachable(message) => (Case::Unreachable, message),
            Error::DeniedByHost(message) => (Case::DeniedByHost, message),
            Error::Tls(message) => (Case::Tls, message),
            Error::Timeout(message) => (Case::Timeout, message),
            Error::InvalidResponse(message) => (Case::InvalidResponse, message),
            Error::ResponseTooLarge(message) => (Case::ResponseTooLarge, message),
            Error::OutcomeUnknown(message) => (Case::OutcomeUnknown, message),
            Error::Other(message) => (Case::Other, message),
        };
        case.because(message)
    }
}
