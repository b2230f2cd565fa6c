//! [`PUT /v1/session/create`](https://developer.hashicorp.com/consul/api-docs/session#create-session)

#![forbid(unsafe_code)]

use super::connection::{Connection, body};
use super::response::{json, not_consul};
use crate::duration;
use crate::error::Error;
use crate::options::{Behavior, Options, Resolved, SessionId};
use crate::session::{ServiceCheck, Session};
use crate::transport::{Method, Request, Response};
use serde::{Deserialize, Serialize};

/// The check of every node that takes part in the cluster's gossip.
const SERF_HEALTH: &str = "serfHealth";

/// The properties of a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    name: Option<String>,
    node: Option<String>,
    /// Nanoseconds.
    lock_delay: i64,
    behavior: Behavior,
    /// As Consul stores it; empty for none.
    ttl: String,
    node_checks: Option<Vec<String>>,
    service_checks: Option<Vec<ServiceCheck>>,
}

impl NewSession {
    /// Returns the session that these options describe.
    pub fn new(options: &Resolved) -> NewSession {
        let service_check = |id: &String| ServiceCheck { id: id.clone(), ..ServiceCheck::default() };
        NewSession {
            name: options.name.clone(),
            node: options.node.clone(),
            lock_delay: options.delay,
            behavior: options.behavior,
            ttl: options.ttl.filter(|ttl| *ttl != 0).map(duration::format).unwrap_or_default(),
            node_checks: options.checks.as_deref().map(expand_checks).or_else(|| options.node_checks.clone()),
            service_checks: options.service_checks.as_ref().map(|ids| ids.iter().map(service_check).collect()),
        }
    }

    /// Returns the session that replaces `old`: what was not `given` is as it is there, even if it is
    /// something that no option accepts. `checks` stands for both lists.
    pub(crate) fn replacing(&self, old: &Session, given: &Options) -> NewSession {
        let mut new = self.clone();
        if given.delay.is_none() {
            new.lock_delay = old.lock_delay;
        }
        if given.behavior.is_none() {
            // Consul accepts no other behaviors.
            new.behavior = old.behavior.parse().unwrap_or(new.behavior);
        }
        if given.ttl.is_none() {
            new.ttl.clone_from(&old.ttl);
        }
        if given.checks.is_none() && given.node_checks.is_none() {
            // The older list has node checks too.
            let mut checks = old.node_checks.clone();
            add_missing(&mut checks, &old.checks);
            new.node_checks = Some(checks);
        }
        if given.checks.is_none() && given.service_checks.is_none() {
            new.service_checks = Some(old.service_checks.clone()).filter(|checks| !checks.is_empty());
        }
        new
    }

    /// Returns the session as Consul would store it, without the id and indexes that it assigns.
    pub fn planned(&self) -> Session {
        Session {
            name: self.name.clone().unwrap_or_default(),
            node: self.node.clone().unwrap_or_default(),
            lock_delay: self.lock_delay,
            behavior: self.behavior.name().to_owned(),
            ttl: self.ttl.clone(),
            node_checks: self.node_checks.clone().unwrap_or_else(|| vec![SERF_HEALTH.to_owned()]),
            service_checks: self.service_checks.clone().unwrap_or_default(),
            ..Session::default()
        }
    }
}

/// Returns the node checks that the option `checks` stands for: serfHealth in addition, so that a
/// failing node still ends the session, but none for the empty list.
pub fn expand_checks(checks: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    if !checks.is_empty() {
        all.push(SERF_HEALTH.to_owned());
    }
    add_missing(&mut all, checks);
    all
}

fn add_missing(all: &mut Vec<String>, checks: &[String]) {
    for check in checks {
        if !all.contains(check) {
            all.push(check.clone());
        }
    }
}

/// The JSON of the request.
///
/// It has only `NodeChecks` and `ServiceChecks`, and neither is `null`: the older `Checks` cannot
/// leave serfHealth out, and Consul treats `null` as "no health check at all".
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// Always with a unit: Consul reads a bare 1000 as nanoseconds and 999 as seconds.
    lock_delay: String,
    behavior: &'static str,
    #[serde(rename = "TTL", skip_serializing_if = "str::is_empty")]
    ttl: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_checks: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_checks: Option<Vec<ById<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ById<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
}

impl<'a> From<&'a ServiceCheck> for ById<'a> {
    fn from(check: &'a ServiceCheck) -> ById<'a> {
        ById { id: &check.id, namespace: &check.namespace }
    }
}

/// Builds the request.
pub(super) fn request(connection: &Connection, session: &NewSession) -> Request {
    let session = Body {
        name: session.name.as_deref(),
        node: session.node.as_deref(),
        lock_delay: duration::format(session.lock_delay),
        behavior: session.behavior.name(),
        ttl: &session.ttl,
        node_checks: session.node_checks.as_deref(),
        service_checks: session.service_checks.as_deref().map(|checks| checks.iter().map(ById::from).collect()),
    };
    Request { body: body(&session), ..connection.request(Method::Put, "session/create", "") }
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

/// Reads the id of the new session.
pub(super) fn response(response: &Response) -> Result<SessionId, Error> {
    let Created { id } = json(response)?;
    SessionId::parse(&id).ok_or_else(|| not_consul(&response.body, "it has no session id"))
}
