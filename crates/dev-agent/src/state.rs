//! Nodes, checks, sessions and keys, and their effects on each other. This module knows neither
//! HTTP nor JSON bodies.

use crate::go::{self, SECOND};
use crate::kv::{Entry, Keys, Operation, Refusal};
use crate::session::Session;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The id of the agent's own node.
pub const NODE_ID: &str = "0d0a6e7c-0000-4000-8000-000000000001";
/// The only datacenter.
pub const DATACENTER: &str = "dc1";

const CRITICAL: &str = "critical";

/// Everything that Consul keeps in its state store, and a clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The name of the agent's own node.
    own_node: String,
    ids: Ids,
    /// The time since the agent started.
    now: Duration,
    /// Grows with every change, as Raft's index does.
    pub index: u64,
    /// The index of the last change of any session; 0 before the first.
    sessions_index: u64,
    /// The index of the last change of any node or service.
    pub nodes_index: u64,
    /// The index of the last change of any check.
    pub checks_index: u64,
    /// By name in lower case.
    nodes: BTreeMap<String, Node>,
    /// By id, which is the order in which Consul lists them.
    sessions: BTreeMap<String, Live>,
    pub keys: Keys,
}

/// How the ids of sessions are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ids {
    /// Random UUIDs.
    Random,
    /// Derived from the index of the creation. As with random ids, their order says nothing about
    /// the age of the sessions.
    FromIndex,
}

impl Ids {
    fn id(self, index: u64) -> String {
        match self {
            Ids::Random => uuid::Uuid::new_v4().to_string(),
            Ids::FromIndex => {
                let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!("{:08x}-{:04x}-4000-8000-{index:012x}", mixed >> 32, mixed & 0xffff)
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Live {
    session: Session,
    /// Twice the TTL, if there is one.
    lifetime: Option<Duration>,
    /// On the state's clock.
    expires: Option<Duration>,
}

/// A node as the catalog shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Node")]
    pub name: String,
    pub address: String,
    datacenter: &'static str,
    tagged_addresses: Option<BTreeMap<String, String>>,
    meta: Option<BTreeMap<String, String>>,
    create_index: u64,
    modify_index: u64,
    /// By id in lower case.
    #[serde(skip)]
    services: BTreeMap<String, Service>,
    /// By id in lower case.
    #[serde(skip)]
    checks: BTreeMap<String, Check>,
}

/// A service of a node, of which only its checks can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    pub id: String,
    pub name: String,
    pub tags: Vec<String>,
    pub address: String,
}

/// A check as the catalog shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    pub node: String,
    #[serde(rename = "CheckID")]
    pub id: String,
    pub name: String,
    pub status: String,
    pub notes: String,
    pub output: String,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    pub service_name: String,
    pub service_tags: Vec<String>,
    #[serde(rename = "Type")]
    pub kind: String,
    pub interval: String,
    pub timeout: String,
    pub exposed_port: i64,
    pub definition: BTreeMap<String, String>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// The registration of a node, a service of it and its checks.
#[derive(Default)]
pub struct Registration {
    pub id: String,
    pub node: String,
    pub address: String,
    pub datacenter: String,
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    pub meta: Option<BTreeMap<String, String>>,
    /// Leaves a node that exists as it is.
    pub skip_node_update: bool,
    pub service: Option<Service>,
    pub checks: Vec<Check>,
}

impl Registration {
    /// Checks the fields in Consul's order.
    ///
    /// # Errors
    ///
    /// Consul's text.
    pub fn validate(&self) -> Result<(), String> {
        if self.node.is_empty() {
            return Err("Must provide node".into());
        }
        if !self.id.is_empty() {
            check_uuid(&self.id).map_err(|error| format!("Bad node ID: {error}"))?;
        }
        if self.address.is_empty() && !self.skip_node_update {
            return Err("Must provide address if SkipNodeUpdate is not set".into());
        }
        match &self.service {
            Some(Service { id, name, .. }) if name.is_empty() && id.is_empty() => {
                return Err("service name (Service.Service) is required; \
                            both Service ID (Service.ID) and Service Name cannot be empty"
                    .into());
            }
            Some(Service { name, .. }) if name.is_empty() => {
                return Err("Must provide service name (Service.Service) when service ID is provided".into());
            }
            Some(Service { address, .. }) if ["0.0.0.0", "::", "[::]"].contains(&address.as_str()) => {
                return Err("Invalid service address".into());
            }
            _ => {}
        }
        match self.checks.iter().find(|check| !check.node.is_empty() && !same(&check.node, &self.node)) {
            Some(Check { node, id, .. }) => {
                Err(format!("Node '{node}' for check '{id}' doesn't match register request node '{}'", self.node))
            }
            None => Ok(()),
        }
    }
}

/// Checks the form of an id as `go-uuid` does.
fn check_uuid(id: &str) -> Result<(), String> {
    if id.len() != 36 {
        return Err("uuid string is wrong length".into());
    }
    let is_dash = |at: &usize| [8, 13, 18, 23].contains(at);
    if !id.bytes().enumerate().filter(|(at, _)| is_dash(at)).all(|(_, byte)| byte == b'-') {
        return Err("uuid is improperly formatted".into());
    }
    match id.char_indices().find(|(at, c)| !is_dash(at) && !c.is_ascii_hexdigit()) {
        Some((_, c)) => Err(format!("encoding/hex: invalid byte: U+{:04X} '{c}'", u32::from(c))),
        None => Ok(()),
    }
}

impl State {
    /// Returns a state with the agent's own node and nothing else.
    pub fn new(own_node: &str, ids: Ids) -> State {
        let mut state = State {
            own_node: own_node.into(),
            ids,
            now: Duration::ZERO,
            index: 10,
            sessions_index: 0,
            nodes_index: 0,
            checks_index: 0,
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            keys: Keys::default(),
        };
        state.register_own_node();
        state
    }

    fn register_own_node(&mut self) {
        let serf_health = Check {
            id: "serfHealth".into(),
            name: "Serf Health Status".into(),
            status: "passing".into(),
            output: "Agent alive and reachable".into(),
            ..Check::default()
        };
        let registered = self.register(Registration {
            id: NODE_ID.into(),
            node: self.own_node.clone(),
            address: "127.0.0.1".into(),
            checks: vec![serf_health],
            ..Registration::default()
        });
        debug_assert!(registered.is_ok(), "only a check of an unknown service is refused");
    }

    /// Returns the index of the change that begins.
    fn next_index(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    /// Returns the name of the agent's own node.
    pub fn own_node(&self) -> &str {
        &self.own_node
    }

    /// Returns the index that a read of sessions shows.
    pub fn sessions_index(&self) -> u64 {
        self.sessions_index.max(1)
    }

    /// Returns all sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(|live| &live.session)
    }

    /// Checks a session in Consul's order, stores it under a new id and returns the id.
    ///
    /// # Errors
    ///
    /// Consul's text.
    pub fn create(&mut self, mut session: Session) -> Result<String, String> {
        if session.node.is_empty() {
            return Err("Must provide Node".into());
        }
        match session.behavior.as_str() {
            "" => session.behavior = "release".into(),
            "release" | "delete" => {}
            other => return Err(format!("Invalid Behavior setting '{other}'")),
        }
        let ttl = match session.ttl.as_str() {
            "" => 0,
            text => go::duration(text).map_err(|error| format!("Session TTL '{text}' invalid: {error}"))?,
        };
        if ttl != 0 && !(10 * SECOND..=24 * 3600 * SECOND).contains(&ttl) {
            return Err(format!("Invalid Session TTL '{ttl}', must be between [10s=24h0m0s]"));
        }
        let node = self.nodes.get(&session.node.to_lowercase());
        let node = node.ok_or("apply failed: Missing node registration")?;
        for check in session.all_checks() {
            if check.is_empty() {
                return Err("apply failed: failed check lookup: index error: object is missing a value for this index".into());
            }
            match node.checks.get(&check.to_lowercase()) {
                None => return Err(format!("apply failed: Missing check '{check}' registration")),
                Some(found) if found.status == CRITICAL => {
                    return Err(format!("apply failed: Check '{check}' is in critical state"));
                }
                Some(_) => {}
            }
        }
        let index = self.next_index();
        self.sessions_index = index;
        session.id = self.ids.id(index);
        (session.create_index, session.modify_index) = (index, index);
        let lifetime = (ttl != 0).then(|| 2 * Duration::from_nanos(ttl.unsigned_abs()));
        let id = session.id.clone();
        let live = Live { session, lifetime, expires: lifetime.map(|lifetime| self.now + lifetime) };
        self.sessions.insert(id.clone(), live);
        Ok(id)
    }

    /// Ends a session if it exists.
    pub fn destroy(&mut self, id: &str) {
        if self.sessions.contains_key(&id.to_lowercase()) {
            let index = self.next_index();
            self.end_sessions(index, |session| session.id.eq_ignore_ascii_case(id));
        }
    }

    /// Restarts the TTL of a session, and returns the session.
    pub fn renew(&mut self, id: &str) -> Option<&Session> {
        let live = self.sessions.get_mut(&id.to_lowercase())?;
        live.expires = live.lifetime.map(|lifetime| self.now + lifetime);
        Some(&live.session)
    }

    /// Sets the clock, unless that would turn it back, and ends the sessions that have expired.
    pub fn advance_to(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.now;
        let expired = self.sessions.values().filter(|live| live.expires.is_some_and(|expires| expires <= now));
        let expired: BTreeSet<String> = expired.map(|live| live.session.id.clone()).collect();
        if !expired.is_empty() {
            let index = self.next_index();
            self.end_sessions(index, |session| expired.contains(&session.id));
        }
    }

    /// Returns the time at which the next session expires.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.sessions.values().filter_map(|live| live.expires).min()
    }

    /// Ends sessions, as a part of the change with this index.
    fn end_sessions(&mut self, index: u64, ended: impl Fn(&Session) -> bool) {
        let gone: Vec<Live> = self.sessions.extract_if(.., |_, live| ended(&live.session)).map(|(_, live)| live).collect();
        if gone.is_empty() {
            return;
        }
        self.sessions_index = index;
        let now = self.now;
        for Live { session, expires, .. } in gone {
            // A session ends when it expires, and not at the next request.
            self.keys.release_all(&session, expires.map_or(now, |expires| expires.min(now)), index);
        }
    }

    /// Performs all operations on keys or none: see [`Keys::transact`].
    pub fn transact(&mut self, operations: &[Operation]) -> Result<Vec<Entry>, Vec<(usize, Refusal)>> {
        let index = self.next_index();
        let sessions = &self.sessions;
        self.keys.transact(operations, index, self.now, |id| sessions.contains_key(&id.to_lowercase()))
    }

    /// Returns all nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Returns the checks of a node, by id; none if the node does not exist.
    pub fn checks(&self, node: &str) -> impl Iterator<Item = &Check> {
        self.nodes.get(&node.to_lowercase()).into_iter().flat_map(|node| node.checks.values())
    }

    /// Returns whether a registration changes the name or the id of a node, which Consul allows under
    /// conditions.
    pub fn renames(&self, Registration { id, node, .. }: &Registration) -> bool {
        let renames = |found: &Node| !found.id.is_empty() && (found.id == *id) != same(&found.name, node);
        !id.is_empty() && self.nodes().any(renames)
    }

    /// Adds or changes a node, its service and its checks, or nothing.
    ///
    /// # Errors
    ///
    /// Consul's text.
    pub fn register(&mut self, registration: Registration) -> Result<(), String> {
        let Registration { id, node: name, address, tagged_addresses, meta, service, checks, .. } = registration;
        let key = name.to_lowercase();
        let found = self.nodes.get(&key);
        // Here alone the case of an id matters.
        let services = found.iter().flat_map(|node| node.services.values()).chain(&service);
        let services: BTreeSet<&String> = services.map(|service| &service.id).collect();
        if let Some(check) = checks.iter().find(|check| !check.service_id.is_empty() && !services.contains(&check.service_id)) {
            return Err(format!("Unknown service ID '{}' for check ID '{}'", check.service_id, check.id));
        }
        let index = self.next_index();
        let mut node = Node {
            id,
            name: name.clone(),
            address,
            datacenter: DATACENTER,
            tagged_addresses,
            meta,
            create_index: index,
            modify_index: index,
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
        };
        if let Some(found) = self.nodes.remove(&key) {
            if registration.skip_node_update {
                node = found;
            } else {
                (node.create_index, node.modify_index) = (found.create_index, found.modify_index);
                (node.services, node.checks) = (found.services.clone(), found.checks.clone());
                // Another case of the name alone is not a change.
                node.name.clone_from(&found.name);
                if node != found {
                    (node.name, node.modify_index) = (name.clone(), index);
                }
            }
        }
        let service = service.map(|service| (service.id.to_lowercase(), service));
        let changed = service.is_some_and(|(id, service)| node.services.insert(id, service.clone()) != Some(service));
        if changed || node.modify_index == index {
            self.nodes_index = index;
        }
        self.nodes.insert(key, node);
        for check in checks {
            self.put_check(Check { node: name.clone(), ..check }, index);
        }
        Ok(())
    }

    /// Adds or changes a check of an existing node. A critical check ends the sessions that depend
    /// on it. Without a status, a check is critical.
    pub fn register_check(&mut self, check: Check) {
        let index = self.next_index();
        self.put_check(check, index);
    }

    fn put_check(&mut self, mut check: Check, index: u64) {
        let Some(node) = self.nodes.get_mut(&check.node.to_lowercase()) else { return };
        if check.status.is_empty() {
            check.status = CRITICAL.into();
        }
        if let Some(service) = node.services.get(&check.service_id.to_lowercase()) {
            (check.service_name, check.service_tags) = (service.name.clone(), service.tags.clone());
        }
        let key = check.id.to_lowercase();
        let found = node.checks.get(&key);
        (check.create_index, check.modify_index) =
            found.map_or((index, index), |found| (found.create_index, found.modify_index));
        let (id, node_name, critical) = (check.id.clone(), check.node.clone(), check.status == CRITICAL);
        // Another case of the node's name alone is not a change.
        if found.is_none_or(|found| *found != Check { node: found.node.clone(), ..check.clone() }) {
            check.modify_index = index;
            node.checks.insert(key, check);
            self.checks_index = index;
        }
        if critical {
            self.end_sessions_of_check(&node_name, &id, index);
        }
    }

    /// Removes a check, and ends the sessions that depend on it.
    pub fn deregister_check(&mut self, node: &str, check: &str) {
        let index = self.next_index();
        self.remove_check(node, check, index);
    }

    fn remove_check(&mut self, node: &str, check: &str, index: u64) {
        let Some(found) = self.nodes.get_mut(&node.to_lowercase()) else { return };
        if found.checks.remove(&check.to_lowercase()).is_some() {
            self.checks_index = index;
            self.end_sessions_of_check(node, check, index);
        }
    }

    /// Removes a service with its checks, and ends the sessions that depend on these.
    pub fn deregister_service(&mut self, node: &str, service: &str) {
        let index = self.next_index();
        let Some(found) = self.nodes.get_mut(&node.to_lowercase()) else { return };
        if found.services.remove(&service.to_lowercase()).is_some() {
            (self.nodes_index, self.checks_index) = (index, index);
            let checks = found.checks.values().filter(|check| same(&check.service_id, service));
            for check in checks.map(|check| check.id.clone()).collect::<Vec<_>>() {
                self.remove_check(node, &check, index);
            }
        }
    }

    /// Removes a node, and ends its sessions. The agent registers its own node again, as a Consul
    /// agent does within a minute.
    pub fn deregister_node(&mut self, node: &str) {
        let index = self.next_index();
        if let Some(removed) = self.nodes.remove(&node.to_lowercase()) {
            self.nodes_index = index;
            if !(removed.checks.is_empty() && removed.services.is_empty()) {
                self.checks_index = index;
            }
            self.end_sessions(index, |session| same(&session.node, node));
        }
        if same(node, &self.own_node) {
            self.register_own_node();
        }
    }

    fn end_sessions_of_check(&mut self, node: &str, check: &str, index: u64) {
        self.end_sessions(index, |session| same(&session.node, node) && session.all_checks().any(|id| same(id, check)));
    }
}

/// Returns whether two names of nodes, or two ids of checks, are equal regardless of case.
pub fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}
