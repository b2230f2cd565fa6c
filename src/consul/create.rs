//! [`PUT /v1/session/create`](https://developer.hashicorp.com/consul/api-docs/session#create-session)

use super::{Connection, need};
use crate::duration;
use crate::error::Error;
use crate::json::Json;
use crate::options::{Behavior, Options, SessionId};
use crate::session::{ServiceCheck, Session};
use crate::text::{List, Text};
use crate::transport::{Method, Request, Response};
use alloc::vec;
use alloc::vec::Vec;

/// The check that every node of the cluster's gossip has.
const SERF_HEALTH: &str = "serfHealth";

/// What a new session is made of: Consul's own names and words.
///
/// Only `NodeChecks` and `ServiceChecks` are sent, and neither as `null`: the older `Checks` cannot leave serfHealth out, and
/// Consul takes `null` for "no health check at all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    name: Option<Text>,
    node: Option<Text>,
    /// Nanoseconds.
    lock_delay: i64,
    behavior: &'static str,
    ttl: Option<Text>,
    node_checks: Option<List<Text>>,
    service_checks: Option<List<Text>>,
}

impl NewSession {
    /// From options that have their defaults.
    pub fn new(options: &Options) -> Result<NewSession, Error> {
        Ok(NewSession {
            name: options.name.clone(),
            node: options.node.clone(),
            lock_delay: need(options.delay, "delay")?,
            behavior: need::<Behavior>(options.behavior, "behavior")?.name(),
            ttl: options.ttl.filter(|ttl| *ttl != 0).map(|ttl| duration::format(ttl).into()),
            node_checks: options.checks.as_deref().map(effective).or_else(|| options.node_checks.clone()),
            service_checks: options.service_checks.clone(),
        })
    }

    /// The session as Consul would store it, without the id and indexes that only Consul gives.
    pub fn planned(&self) -> Session {
        let of_service = |id: &Text| ServiceCheck { id: id.clone(), ..ServiceCheck::default() };
        Session {
            name: self.name.clone().unwrap_or_default(),
            node: self.node.clone().unwrap_or_default(),
            lock_delay: self.lock_delay,
            behavior: self.behavior.into(),
            ttl: self.ttl.clone().unwrap_or_default(),
            node_checks: self.node_checks.clone().unwrap_or_else(|| [SERF_HEALTH].map(Text::from).to_vec().into()),
            service_checks: self.service_checks.as_deref().unwrap_or_default().iter().map(of_service).collect(),
            ..Session::default()
        }
    }
}

/// What the option `checks` means: beside serfHealth, so that a failing node still ends the session; the empty list means none.
pub fn effective(checks: &[Text]) -> List<Text> {
    let mut all: Vec<Text> = Vec::new();
    if !checks.is_empty() {
        all.push(SERF_HEALTH.into());
    }
    for check in checks {
        if !all.contains(check) {
            all.push(check.clone());
        }
    }
    all.into()
}

/// The request.
pub fn request(connection: &Connection, session: &NewSession) -> Request {
    let delay = duration::format(session.lock_delay);
    let by_id = |id| Json::object(vec![("ID", Json::from(id))]);
    let body = Json::object(vec![
        ("Name", session.name.as_deref().into()),
        ("Node", session.node.as_deref().into()),
        // With a unit, always: Consul takes a bare 1000 for nanoseconds and 999 for seconds.
        ("LockDelay", delay.as_str().into()),
        ("Behavior", session.behavior.into()),
        ("TTL", session.ttl.as_deref().into()),
        ("NodeChecks", session.node_checks.as_ref().map_or(Json::Null, |checks| Json::Texts(checks))),
        ("ServiceChecks", session.service_checks.as_ref().map_or(Json::Null, |checks| checks.iter().map(by_id).collect())),
    ]);
    Request { body: body.to_text().into_bytes(), ..connection.request(Method::Put, "session/create", "") }
}

/// The id of the new session.
pub fn response(response: &Response) -> Result<SessionId, Error> {
    SessionId::parse(super::json(response)?.get("ID").text())
        .ok_or_else(|| super::not_consul(&response.body, "it has no session id"))
}
