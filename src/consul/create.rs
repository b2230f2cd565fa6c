//! [`PUT /v1/session/create`](https://developer.hashicorp.com/consul/api-docs/session#create-session)

#![forbid(unsafe_code)]

use super::connection::{Connection, body};
use super::response::{json, not_consul};
use crate::duration;
use crate::error::Error;
use crate::options::{Behavior, Resolved, SessionId};
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
    /// Nanoseconds; not 0.
    ttl: Option<i64>,
    node_checks: Option<Vec<String>>,
    service_checks: Option<Vec<String>>,
}

impl NewSession {
    /// Returns the session that these options describe.
    pub fn new(options: &Resolved) -> NewSession {
        NewSession {
            name: options.name.clone(),
            node: options.node.clone(),
            lock_delay: options.delay,
            behavior: options.behavior,
            ttl: options.ttl.filter(|ttl| *ttl != 0),
            node_checks: options.checks.as_deref().map(expand_checks).or_else(|| options.node_checks.clone()),
            service_checks: options.service_checks.clone(),
        }
    }

    /// Returns the session as Consul would store it, without the id and indexes that it assigns.
    pub(crate) fn planned(&self) -> Session {
        let service_check = |id: &String| ServiceCheck { id: id.clone(), ..ServiceCheck::default() };
        Session {
            name: self.name.clone().unwrap_or_default(),
            node: self.node.clone().unwrap_or_default(),
            lock_delay: self.lock_delay,
            behavior: self.behavior.name().to_owned(),
            ttl: self.ttl.map(duration::format).unwrap_or_default(),
            node_checks: self.node_checks.clone().unwrap_or_else(|| vec![SERF_HEALTH.to_owned()]),
            service_checks: self.service_checks.iter().flatten().map(service_check).collect(),
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
    for check in checks {
        if !all.contains(check) {
            all.push(check.clone());
        }
    }
    all
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
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_checks: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_checks: Option<Vec<ById<'a>>>,
}

#[derive(Serialize)]
struct ById<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
}

/// Builds the request.
pub(super) fn request(connection: &Connection, session: &NewSession) -> Request {
    let session = Body {
        name: session.name.as_deref(),
        node: session.node.as_deref(),
        lock_delay: duration::format(session.lock_delay),
        behavior: session.behavior.name(),
        ttl: session.ttl.map(duration::format),
        node_checks: session.node_checks.as_deref(),
        service_checks: session.service_checks.as_ref().map(|checks| checks.iter().map(|id| ById { id }).collect()),
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
