//! What is known of the sessions, and what a new answer of Consul says of them. Without network and clock.

use consul_session::Session;
use consul_session::duration::{SECOND, parse_go};
use consul_session::error::Error;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// All sessions that an answer shows, with what stands beside them.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub sessions: Vec<Session>,
    pub index: u64,
    pub filtered: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A session was there when the watching began.
    Is(Session),
    /// A session was made.
    Came(Session),
    /// A session ended, or cannot be seen any more.
    Went(Session, Option<Why>),
    /// The first answer was told in full, or what ACLs hide has changed.
    Listed(Summary),
    /// The last call got no answer. Told once for each kind of error.
    Failed(Error),
    /// There is an answer again.
    Recovered(Summary),
}

/// What an answer says as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many sessions are watched.
    pub sessions: usize,
    /// Whether ACLs hid some, or may have.
    pub filtered: bool,
}

/// Why a session went. Consul does not say, so that each is a conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The index went backwards: Consul has other data than before.
    Reset,
    /// ACLs began to hide sessions with this very answer.
    Acl,
    /// It went two TTLs after it came, which is when Consul ends a session that nobody renewed.
    Ttl,
    /// All sessions of its node that depend on one of its checks went at once.
    Checks,
}

impl Why {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Why::Reset => "reset",
            Why::Acl => "acl",
            Why::Ttl => "ttl",
            Why::Checks => "checks",
        }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Why::Reset => "other data",
            Why::Acl => "hidden?",
            Why::Ttl => "TTL ran out?",
            Why::Checks => "node or check?",
        }
    }
}

/// A session that was there in the last answer.
struct Known {
    session: Session,
    /// When it came, if that was seen as it happened.
    came: Option<Instant>,
}

/// What is known.
#[derive(Default)]
pub struct Watch {
    /// The sessions to tell of; all if there is no name.
    name: Option<String>,
    /// By id, those of other names too. None before the first answer.
    known: Option<BTreeMap<String, Known>>,
    index: u64,
    /// The index to ask for; 0 for an answer at once.
    ask: u64,
    filtered: bool,
    /// The last call's error.
    failing: Option<&'static str>,
}

impl Watch {
    /// Watches the sessions of this name, or all.
    pub fn new(name: Option<String>) -> Watch {
        Watch { name, ..Watch::default() }
    }

    /// Whether there was an answer yet.
    pub fn has_begun(&self) -> bool {
        self.known.is_some()
    }

    /// The index of the last answer.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The index above which Consul is to answer the next call; none for an answer at once: in the beginning, after an error, and
    /// after an index that went backwards, above which Consul would be silent for long.
    pub fn ask(&self) -> Option<u64> {
        Some(self.ask).filter(|index| *index > 0)
    }

    /// A call failed.
    pub fn failed(&mut self, error: Error) -> Vec<Event> {
        self.ask = 0;
        let known = self.failing.replace(error.kind.name());
        if known == self.failing { Vec::new() } else { vec![Event::Failed(error)] }
    }

    /// A call was answered. Compared is always with the last answer, whatever was in between, so that each session is told once.
    pub fn listed(&mut self, listing: Listing, now: Instant) -> Vec<Event> {
        let interrupted = self.failing.take().is_some();
        let reset = listing.index < self.index;
        let hides = listing.filtered && !self.filtered;
        self.ask = if reset { 0 } else { listing.index.max(1) };
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
            // Of what happened meanwhile the time is not known.
            () if interrupted => None,
            () if ran_out(known, now) => Some(Why::Ttl),
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

/// Whether the session went when Consul ends one that was never renewed: two TTLs after it was made.
fn ran_out(known: &Known, now: Instant) -> bool {
    const EARLY: Duration = Duration::from_millis(500);
    const LATE: Duration = Duration::from_secs(2);
    let ttl = parse_go(&known.session.ttl).filter(|ttl| *ttl >= SECOND).and_then(|ttl| u64::try_from(ttl).ok());
    let (Some(ttl), Some(came)) = (ttl.map(Duration::from_nanos), known.came) else { return false };
    let lived = now.saturating_duration_since(came);
    (ttl.saturating_mul(2).saturating_sub(EARLY)..=ttl.saturating_mul(2).saturating_add(LATE)).contains(&lived)
}

/// The checks, each of a node, of which several sessions depended that went at once, and none is left.
struct FailedChecks(HashMap<(String, String), usize>);

impl FailedChecks {
    fn new(went: &[Known], left: &BTreeMap<String, Known>) -> FailedChecks {
        let mut checks = HashMap::new();
        if went.len() < 2 {
            return FailedChecks(checks);
        }
        for key in went.iter().flat_map(|known| Self::of(&known.session)) {
            *checks.entry(key).or_insert(0) += 1;
        }
        for known in left.values() {
            for key in Self::of(&known.session) {
                checks.remove(&key);
            }
        }
        checks.retain(|_, sessions| *sessions > 1);
        FailedChecks(checks)
    }

    fn ended(&self, session: &Session) -> bool {
        Self::of(session).any(|key| self.0.contains_key(&key))
    }

    fn of(session: &Session) -> impl Iterator<Item = (String, String)> {
        // Consul does not tell the letters' case of a node's name.
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

    /// Tells of an event in a word.
    fn words(events: &[Event]) -> String {
        let word = |event: &Event| match event {
            Event::Is(session) => format!("={}", session.id),
            Event::Came(session) => format!("+{}", session.id),
            Event::Went(session, None) => format!("-{}", session.id),
            Event::Went(session, Some(why)) => format!("-{}:{}", session.id, why.name()),
            Event::Listed(summary) => format!("listed:{}{}", summary.sessions, if summary.filtered { "?" } else { "" }),
            Event::Failed(error) => format!("!{}", error.kind.name()),
            Event::Recovered(summary) => format!("recovered:{}", summary.sessions),
        };
        events.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn tells(watch: &mut Watch, listing: Listing, expected: &str) {
        assert_eq!(words(&watch.listed(listing, Instant::now())), expected);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut watch = Watch::new(None);
        assert_eq!((watch.ask(), watch.has_begun()), (None, false));
        tells(&mut watch, listing(5, &["a"]), "=a listed:1");
        assert_eq!((watch.ask(), watch.has_begun()), (Some(5), true));
        tells(&mut watch, listing(7, &["a", "b", "c"]), "+b +c");
        assert_eq!(watch.ask(), Some(7));
        tells(&mut watch, listing(8, &["a", "b", "c"]), "");
        tells(&mut watch, listing(9, &["b", "d"]), "-a -c +d");
        tells(&mut watch, listing(9, &["b", "d"]), "");
    }

    #[test]
    fn an_index_that_goes_backwards_is_asked_again_at_once() {
        let mut watch = Watch::new(None);
        tells(&mut watch, listing(100, &["a", "b"]), "=a =b listed:2");
        tells(&mut watch, listing(7, &["b", "c"]), "-a:reset +c");
        assert_eq!((watch.ask(), watch.index()), (None, 7));
        tells(&mut watch, listing(7, &["b", "c"]), "");
        assert_eq!(watch.ask(), Some(7));
        // An index of 0 would be no blocking query.
        let mut watch = Watch::new(None);
        tells(&mut watch, listing(0, &[]), "listed:0");
        assert_eq!(watch.ask(), Some(1));
    }

    #[test]
    fn an_error_is_told_once_and_what_it_hid_afterwards() {
        let mut watch = Watch::new(None);
        let fails = |watch: &mut Watch, kind: ErrorKind| words(&watch.failed(Error::new(kind, "x")));
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "!unreachable");
        assert!(!watch.has_begun());
        tells(&mut watch, listing(5, &["a", "b"]), "recovered:2 =a =b listed:2");
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "!unreachable");
        assert_eq!(watch.ask(), None);
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "");
        assert_eq!(fails(&mut watch, ErrorKind::Unavailable { status: 500 }), "!unavailable");
        tells(&mut watch, listing(9, &["c"]), "recovered:1 -a -b +c");
        assert_eq!(watch.ask(), Some(9));
        tells(&mut watch, listing(9, &["c"]), "");
        // The agent came back without its data.
        assert_eq!(fails(&mut watch, ErrorKind::Unreachable), "!unreachable");
        tells(&mut watch, listing(1, &[]), "recovered:0 -c:reset");
    }

    #[test]
    fn other_names_are_known_and_not_told() {
        let mut watch = Watch::new(Some("web".into()));
        let mut other = listing(5, &["a", "b"]);
        other.sessions[1].name = "Web".into();
        tells(&mut watch, other, "=a listed:1");
        tells(&mut watch, listing(6, &[]), "-a:checks");
    }

    #[test]
    fn acls_that_begin_to_hide() {
        let mut watch = Watch::new(None);
        tells(&mut watch, listing(5, &["a", "b"]), "=a =b listed:2");
        tells(&mut watch, Listing { filtered: true, ..listing(5, &["b"]) }, "-a:acl listed:1?");
        tells(&mut watch, Listing { filtered: true, ..listing(6, &[]) }, "-b");
        tells(&mut watch, listing(6, &["a"]), "+a listed:1");
    }

    #[test]
    fn a_ttl_that_ran_out() {
        let start = Instant::now();
        let after = |lived: f64, seen: bool, broken: bool| {
            let mut watch = Watch::new(None);
            let mut with_ttl = listing(6, &["a"]);
            with_ttl.sessions[0].ttl = "10s".into();
            watch.listed(listing(5, &[]), start);
            if !seen {
                watch = Watch::new(None);
            }
            watch.listed(with_ttl, start);
            if broken {
                watch.failed(Error::new(ErrorKind::Unreachable, "x"));
            }
            words(&watch.listed(listing(7, &[]), start + Duration::from_secs_f64(lived)))
        };
        assert_eq!(after(20.1, true, false), "-a:ttl");
        assert_eq!(after(10.0, true, false), "-a");
        assert_eq!(after(30.0, true, false), "-a");
        assert_eq!(after(20.1, false, false), "-a");
        assert_eq!(after(20.1, true, true), "recovered:0 -a");
    }

    #[test]
    fn checks_that_failed() {
        let mut watch = Watch::new(None);
        let on = |id: &str, node: &str, check: &str| Session {
            node: node.into(),
            node_checks: vec!["always".into(), check.into()],
            ..session(id)
        };
        let sessions = vec![on("a", "n1", "x"), on("b", "N1", "x"), on("c", "n1", "y"), on("d", "n2", "x"), on("e", "n2", "x")];
        let left = vec![sessions[2].clone(), sessions[4].clone()];
        tells(&mut watch, Listing { index: 5, sessions, filtered: false }, "=a =b =c =d =e listed:5");
        // `d` shared its checks with `e`, which is still there.
        tells(&mut watch, Listing { index: 6, sessions: left, filtered: false }, "-a:checks -b:checks -d");
        tells(&mut watch, listing(7, &[]), "-c -e");
    }
}
