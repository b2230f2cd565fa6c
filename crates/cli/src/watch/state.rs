//! The known sessions, and the events that follow from a new answer of Consul. Uses neither
//! network nor clock.

use consul_session::Session;
use consul_session::duration::{SECOND, parse_go};
use consul_session::error::Error;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The sessions of one answer, with its index and whether ACLs filtered it.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub sessions: Vec<Session>,
    pub index: u64,
    pub filtered: bool,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A session existed in the first answer.
    Is(Session),
    /// A session was created.
    Came(Session),
    /// A session ended, or is hidden now.
    Went(Session, Option<Why>),
    /// The first answer is complete, or ACLs began or ceased to hide sessions.
    Listed(Summary),
    /// A call failed. Reported once for consecutive errors of the same kind.
    Failed(Error),
    /// A call succeeded after an error.
    Recovered(Summary),
}

/// Totals of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of watched sessions.
    pub sessions: usize,
    /// Whether ACLs hid sessions, or may have.
    pub filtered: bool,
}

/// Why a session went. Consul does not report it, so each reason is a conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The index went backwards: Consul has different data now.
    Reset,
    /// ACLs began to hide sessions in this answer.
    Acl,
    /// The session went two TTLs after it came, when Consul ends a session that is not renewed.
    Ttl,
    /// All sessions of the node that depend on one of the session's checks went at once.
    Checks,
}

impl Why {
    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Why::Reset => "reset",
            Why::Acl => "acl",
            Why::Ttl => "ttl",
            Why::Checks => "checks",
        }
    }

    /// Returns the text for people.
    pub fn text(self) -> &'static str {
        match self {
            Why::Reset => "other data",
            Why::Acl => "hidden?",
            Why::Ttl => "TTL ran out?",
            Why::Checks => "node or check?",
        }
    }
}

/// A session of the last answer.
struct Known {
    session: Session,
    /// When it came, if that was observed.
    came: Option<Instant>,
}

/// The state of the watch: the sessions of the last answer, and the next index to ask for.
#[derive(Default)]
pub struct Watch {
    /// The name of the watched sessions; none to watch all.
    name: Option<String>,
    /// All sessions by id, not only those of the name. None before the first answer.
    known: Option<BTreeMap<String, Known>>,
    index: u64,
    /// The index of the next query; 0 for an answer at once.
    next_index: u64,
    filtered: bool,
    /// The kind of the last call's error.
    failing: Option<&'static str>,
}

impl Watch {
    /// Creates a watch of the sessions with this name, or of all.
    pub fn new(name: Option<String>) -> Watch {
        Watch { name, ..Watch::default() }
    }

    /// Returns whether there was an answer.
    pub fn has_begun(&self) -> bool {
        self.known.is_some()
    }

    /// Returns the index of the last answer.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns the index above which Consul answers the next query, or none for an answer at
    /// once: in the first query, after an error, and after an index that went backwards, since
    /// Consul would not reach the old one for long.
    pub fn next_index(&self) -> Option<u64> {
        Some(self.next_index).filter(|index| *index > 0)
    }

    /// Takes the error of a call, and returns the events that follow from it.
    pub fn failed(&mut self, error: Error) -> Vec<Event> {
        self.next_index = 0;
        let known = self.failing.replace(error.kind.name());
        if known == self.failing { Vec::new() } else { vec![Event::Failed(error)] }
    }

    /// Takes an answer, and returns the events that follow from it. It is compared with the last
    /// answer, even after errors, so each change is reported once.
    pub fn listed(&mut self, listing: Listing, now: Instant) -> Vec<Event> {
        let interrupted = self.failing.take().is_some();
        let reset = listing.index < self.index;
        let hides = listing.filtered && !self.filtered;
        self.next_index = if reset { 0 } else { listing.index.max(1) };
        self.index = listing.index;
        let first = self.known.is_none();
        let changed = first || listing.filtered != self.filtered;
        self.filtered = listing.filtered;

        let mut before = self.known.take().unwrap_or_default();
        let mut after = BTreeMap::new();
        let mut came = Vec::new();
        for session in listing.sessions {
            let known = before.remove(&session.id).unwrap_or_else(|| {
                came.push(session.clone());
                Known { session, came: (!first && !interrupted && !reset).then_some(now) }
            });
            after.insert(known.session.id.clone(), known);
        }
        let mut went: Vec<Known> = before.into_values().collect();
        went.sort_by(|a, b| a.session.age().cmp(&b.session.age()));
        let why = |known: &Known, failed: &FailedChecks| match () {
            () if reset => Some(Why::Reset),
            () if hides => Some(Why::Acl),
            // The time of an event during an interruption is not known.
            () if interrupted => None,
            () if ttl_expired(known, now) => Some(Why::Ttl),
            () if failed.ended(&known.session) => Some(Why::Checks),
            () => None,
        };
        let failed = FailedChecks::new(&went, &after);
        let watched = |session: &Session| self.name.as_ref().is_none_or(|name| *name == session.name);
        let summary =
            Summary { sessions: after.values().filter(|known| watched(&known.session)).count(), filtered: listing.filtered };

        let mut events = Vec::new();
        if interrupted {
            events.push(Event::Recovered(summary));
        }
        events.extend(
            went.iter()
                .filter(|known| watched(&known.session))
                .map(|known| Event::Went(known.session.clone(), why(known, &failed))),
        );
        events.extend(came.into_iter().filter(watched).map(if first { Event::Is } else { Event::Came }));
        if changed {
            events.push(Event::Listed(summary));
        }
        self.known = Some(after);
        events
    }
}

/// Returns whether the session went two TTLs after its creation, when Consul ends a session that
/// was never renewed.
fn ttl_expired(known: &Known, now: Instant) -> bool {
    const EARLY: Duration = Duration::from_millis(500);
    const LATE: Duration = Duration::from_secs(2);
    let ttl = parse_go(&known.session.ttl).filter(|ttl| *ttl >= SECOND).and_then(|ttl| u64::try_from(ttl).ok());
    let (Some(ttl), Some(came)) = (ttl.map(Duration::from_nanos), known.came) else { return false };
    let lived = now.saturating_duration_since(came);
    (ttl.saturating_mul(2).saturating_sub(EARLY)..=ttl.saturating_mul(2).saturating_add(LATE)).contains(&lived)
}

/// The checks, by node, on which several sessions depended that all went at once.
struct FailedChecks(HashMap<(String, String), usize>);

impl FailedChecks {
    fn new(went: &[Known], left: &BTreeMap<String, Known>) -> FailedChecks {
        let mut checks = HashMap::new();
        if went.len() < 2 {
            return FailedChecks(checks);
        }
        for key in went.iter().flat_map(|known| Self::keys(&known.session)) {
            *checks.entry(key).or_insert(0) += 1;
        }
        for known in left.values() {
            for key in Self::keys(&known.session) {
                checks.remove(&key);
            }
        }
        checks.retain(|_, sessions| *sessions > 1);
        FailedChecks(checks)
    }

    fn ended(&self, session: &Session) -> bool {
        Self::keys(session).any(|key| self.0.contains_key(&key))
    }

    fn keys(session: &Session) -> impl Iterator<Item = (String, String)> {
        // Consul ignores the case of node names.
        session.all_checks().into_iter().map(|check| (session.node.to_ascii_lowercase(), check.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consul_session::error::ErrorKind;

    fn session(id: &str) -> Session {
        Session { id: id.into(), node: "n1".into(), name: "web".into(), node_checks: vec!["c".into()], ..Session::default() }
    }

    fn listing(index: u64, ids: &[&str]) -> Listing {
        Listing { index, sessions: ids.iter().map(|id| session(id)).collect(), filtered: false }
    }

    /// Formats events in short form.
    fn summarized(events: &[Event]) -> String {
        let short = |event: &Event| match event {
            Event::Is(session) => format!("={}", session.id),
            Event::Came(session) => format!("+{}", session.id),
            Event::Went(session, None) => format!("-{}", session.id),
            Event::Went(session, Some(why)) => format!("-{}:{}", session.id, why.name()),
            Event::Listed(summary) => format!("listed:{}{}", summary.sessions, if summary.filtered { "?" } else { "" }),
            Event::Failed(error) => format!("!{}", error.kind.name()),
            Event::Recovered(summary) => format!("recovered:{}", summary.sessions),
        };
        events.iter().map(short).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn reports(watch: &mut Watch, listing: Listing, expected: &str) {
        assert_eq!(summarized(&watch.listed(listing, Instant::now())), expected);
    }

    #[test]
    fn changes_are_reported_once() {
        let mut watch = Watch::new(None);
        assert_eq!((watch.next_index(), watch.has_begun()), (None, false));
        reports(&mut watch, listing(5, &["a"]), "=a listed:1");
        assert_eq!((watch.next_index(), watch.has_begun()), (Some(5), true));
        reports(&mut watch, listing(7, &["a", "b", "c"]), "+b +c");
        assert_eq!(watch.next_index(), Some(7));
        reports(&mut watch, listing(8, &["a", "b", "c"]), "");
        reports(&mut watch, listing(9, &["b", "d"]), "-a -c +d");
        reports(&mut watch, listing(9, &["b", "d"]), "");
    }

    #[test]
    fn index_that_goes_backwards_is_queried_at_once() {
        let mut watch = Watch::new(None);
        reports(&mut watch, listing(100, &["a", "b"]), "=a =b listed:2");
        reports(&mut watch, listing(7, &["b", "c"]), "-a:reset +c");
        assert_eq!((watch.next_index(), watch.index()), (None, 7));
        reports(&mut watch, listing(7, &["b", "c"]), "");
        assert_eq!(watch.next_index(), Some(7));
        // A query with index 0 would not block.
        let mut watch = Watch::new(None);
        reports(&mut watch, listing(0, &[]), "listed:0");
        assert_eq!(watch.next_index(), Some(1));
    }

    #[test]
    fn errors_are_reported_once_and_changes_after_recovery() {
        let mut watch = Watch::new(None);
        let fails = |watch: &mut Watch, kind: ErrorKind| summarized(&watch.failed(Error::new(kind, "x")));
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "!unreachable");
        assert!(!watch.has_begun());
        reports(&mut watch, listing(5, &["a", "b"]), "recovered:2 =a =b listed:2");
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "!unreachable");
        assert_eq!(watch.next_index(), None);
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "");
        assert_eq!(fails(&mut watch, ErrorKind::Unavailable { status: 500 }), "!unavailable");
        reports(&mut watch, listing(9, &["c"]), "recovered:1 -a -b +c");
        assert_eq!(watch.next_index(), Some(9));
        reports(&mut watch, listing(9, &["c"]), "");
        // The agent restarted without its data.
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "!unreachable");
        reports(&mut watch, listing(1, &[]), "recovered:0 -c:reset");
    }

    #[test]
    fn sessions_of_other_names_are_not_reported() {
        let mut watch = Watch::new(Some("web".into()));
        let mut other = listing(5, &["a", "b"]);
        other.sessions[1].name = "Web".into();
        reports(&mut watch, other, "=a listed:1");
        reports(&mut watch, listing(6, &[]), "-a:checks");
    }

    #[test]
    fn sessions_hidden_by_acls_have_the_reason_acl() {
        let mut watch = Watch::new(None);
        reports(&mut watch, listing(5, &["a", "b"]), "=a =b listed:2");
        reports(&mut watch, Listing { filtered: true, ..listing(5, &["b"]) }, "-a:acl listed:1?");
        reports(&mut watch, Listing { filtered: true, ..listing(6, &[]) }, "-b");
        reports(&mut watch, listing(6, &["a"]), "+a listed:1");
    }

    #[test]
    fn sessions_with_an_expired_ttl_have_the_reason_ttl() {
        let start = Instant::now();
        let after = |lived: f64, observed: bool, interrupted: bool| {
            let mut watch = Watch::new(None);
            let mut with_ttl = listing(6, &["a"]);
            with_ttl.sessions[0].ttl = "10s".into();
            watch.listed(listing(5, &[]), start);
            if !observed {
                watch = Watch::new(None);
            }
            watch.listed(with_ttl, start);
            if interrupted {
                watch.failed(Error::new(ErrorKind::Unreachable, "x"));
            }
            summarized(&watch.listed(listing(7, &[]), start + Duration::from_secs_f64(lived)))
        };
        assert_eq!(after(20.1, true, false), "-a:ttl");
        assert_eq!(after(10.0, true, false), "-a");
        assert_eq!(after(30.0, true, false), "-a");
        assert_eq!(after(20.1, false, false), "-a");
        assert_eq!(after(20.1, true, true), "recovered:0 -a");
    }

    #[test]
    fn sessions_with_a_failed_check_have_the_reason_checks() {
        let mut watch = Watch::new(None);
        let on = |id: &str, node: &str, check: &str| Session {
            node: node.into(),
            node_checks: vec!["always".into(), check.into()],
            ..session(id)
        };
        let sessions = vec![on("a", "n1", "x"), on("b", "N1", "x"), on("c", "n1", "y"), on("d", "n2", "x"), on("e", "n2", "x")];
        let left = vec![sessions[2].clone(), sessions[4].clone()];
        reports(&mut watch, Listing { index: 5, sessions, filtered: false }, "=a =b =c =d =e listed:5");
        // `d` shares its checks with `e`, which remains.
        reports(&mut watch, Listing { index: 6, sessions: left, filtered: false }, "-a:checks -b:checks -d");
        reports(&mut watch, listing(7, &[]), "-c -e");
    }
}
