//! The guarantee of `present` by name, as code. Every schedule is checked against it.
//!
//! The callers want sessions named `web` on the node `n1`, and differ in `delay`, `ttl`, `behavior`
//! and `on_mismatch` only. `docs/reference.md` says the same in words.

use crate::interleavings::{Caller, Troubles, World};
use crate::memory::InMemoryConsul;
use consul_session::error::{Error, ErrorKind};
use consul_session::transport::Request;
use consul_session::{Outcome, duration};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Checks the schedules of some callers at one Consul.
pub struct Guarantee {
    start: InMemoryConsul,
    options: Vec<Value>,
    /// The ends of all orders in which the callers come one after another, by how often each comes.
    in_turn: RefCell<HashMap<Vec<usize>, HashSet<End>>>,
    crossings: Cell<usize>,
    /// The states of Consul for which [`Guarantee::next_call_converges`] holds.
    converging: RefCell<HashSet<InMemoryConsul>>,
}

/// What is left of the name, and what each caller got.
type End = (Vec<Properties>, Vec<&'static str>);

/// The lock delay, behavior, TTL and node checks of a session.
type Properties = [String; 4];

impl Guarantee {
    pub fn new(start: &InMemoryConsul, options: &[Value]) -> Guarantee {
        Guarantee {
            start: start.clone(),
            options: options.to_vec(),
            in_turn: RefCell::default(),
            crossings: Cell::default(),
            converging: RefCell::default(),
        }
    }

    /// Asserts that the end of a schedule is one that is promised.
    #[track_caller]
    pub fn check(&self, world: &World) {
        for caller in &world.callers {
            if let Some(result) = caller.result() {
                self.answer_is_true(caller, result, world);
            }
        }
        self.what_is_left_is_known(world);
        self.equal_wishes_get_one_session(world);
        self.what_is_not_given_is_kept(world);
        self.next_call_converges(world);
        if world.troubles == Troubles::default() && !world.results().iter().any(|result| gave_up(result)) {
            match crossing(world) || overtaking(world) {
                true => self.crossings.set(self.crossings.get() + 1),
                false => self.is_as_if_in_turn(world),
            }
        }
    }

    /// Returns the number of schedules so far with a [`crossing`] or an [`overtaking`].
    pub fn crossings(&self) -> usize {
        self.crossings.get()
    }

    /// Callers end as if they had come one after another. A caller whose session another one replaced
    /// starts over, as if it had come again.
    #[track_caller]
    fn is_as_if_in_turn(&self, world: &World) {
        let times = |caller: &Caller| {
            1 + created(caller).difference(&destroyed(caller)).filter(|id| world.cluster.get(id).is_none()).count()
        };
        let times: Vec<usize> = world.callers.iter().map(times).collect();
        let end = (left(&world.cluster), world.results().into_iter().map(kind).collect());
        let mut in_turn = self.in_turn.borrow_mut();
        let ends = in_turn.entry(times.clone()).or_insert_with(|| {
            let mut ends = HashSet::new();
            self.come_in_turn(&self.start, &mut times.clone(), &mut vec![""; times.len()], &mut ends);
            ends
        });
        assert!(ends.contains(&end), "no order of the callers explains {end:?}, only {ends:?}: {}", shown(world));
    }

    /// Collects the ends of all orders in which each caller comes so many times.
    fn come_in_turn(
        &self,
        cluster: &InMemoryConsul,
        times: &mut Vec<usize>,
        got: &mut Vec<&'static str>,
        ends: &mut HashSet<End>,
    ) {
        if times.iter().all(|times| *times == 0) {
            ends.insert((left(cluster), got.clone()));
        }
        for at in 0..times.len() {
            if times[at] > 0 {
                let world = alone(cluster, &self.options[at]);
                let before = std::mem::replace(&mut got[at], kind(world.results()[0]));
                times[at] -= 1;
                self.come_in_turn(&world.cluster, times, got, ends);
                times[at] += 1;
                got[at] = before;
            }
        }
    }

    /// An answer names the session that the caller's last look showed as the oldest of the name, says
    /// whether it is as wanted, and whether the call changed something. An error says what it left.
    #[track_caller]
    fn answer_is_true(&self, caller: &Caller, result: &Result<Outcome, Error>, world: &World) {
        let oldest = last_look(caller);
        let id = oldest.as_ref().map(|session| text(&session["ID"]));
        let created = created(caller);
        let destroyed = destroyed(caller);
        let seen = looks(caller).next_back().unwrap_or_default();
        let own: Vec<_> = created.iter().filter(|id| seen.iter().any(|session| session["ID"] == **id)).collect();
        let is_wanted = |session: &Value| created.contains(&text(&session["ID"])) || matches(&caller.options, session);
        match result {
            Ok(outcome) => {
                assert_eq!(outcome.session_id(), id.as_deref(), "the oldest at the last look: {}", shown(world));
                assert!(is_wanted(&oldest.unwrap()), "it is as wanted: {}", shown(world));
                let of_others = destroyed.difference(&created).next().is_some();
                let made = id.is_some_and(|id| created.contains(&id));
                match outcome.changed {
                    true => assert!(made || of_others || caller.is_in_doubt(), "nothing changed: {}", shown(world)),
                    false => assert!(!of_others && own.is_empty(), "it changed something: {own:?}: {}", shown(world)),
                }
            }
            Err(error) => match &error.kind {
                ErrorKind::Mismatch { session_id, differences } => {
                    assert_eq!(Some(session_id), id.as_ref(), "the oldest at the last look: {}", shown(world));
                    assert!(!differences.is_empty() && !is_wanted(&oldest.unwrap()), "it differs: {}", shown(world));
                    assert!(own.is_empty(), "it left {own:?}: {}", shown(world));
                }
                _ if gave_up(result) => {
                    assert!(wishes(world) > 1 || world.troubles.removals > 0, "nobody destroys its own: {}", shown(world));
                }
                ErrorKind::OutcomeUnknown => {
                    assert!(!created.is_empty() || !destroyed.is_empty() || caller.is_in_doubt(), "{}", shown(world));
                }
                _ => {
                    let left = world.cluster.named("web");
                    let own: Vec<_> = created.iter().filter(|id| left.contains(id)).collect();
                    assert!(own.iter().all(|id| error.message.contains(*id)), "{own:?} not reported: {}", shown(world));
                    assert!(!caller.lost_a_creation(), "it may have created one: {}", shown(world));
                }
            },
        }
    }

    /// Without trouble one session is left. Each fault and each stop leaves at most one more, which
    /// an answer reports, or whose caller does not know.
    #[track_caller]
    fn what_is_left_is_known(&self, world: &World) {
        let Troubles { faults, removals, stops } = world.troubles;
        let left = world.cluster.named("web");
        let start = self.start.named("web").len();
        assert!(left.len() <= start.max(1) + faults + stops, "{left:?}: {}", shown(world));
        let new = left.iter().filter(|id| self.start.get(id).is_none()).count();
        assert!(new <= 1 + faults + stops, "{left:?}: {}", shown(world));
        if crossing(world) || world.results().iter().any(|result| gave_up(result)) {
            return;
        }
        if world.troubles == Troubles::default() && start < 2 {
            assert_eq!(left.len(), 1, "{}", shown(world));
        }
        if removals == 0 && world.results().iter().any(|result| result.is_ok()) {
            assert!(!left.is_empty(), "{}", shown(world));
        }
        let outputs: String = world.results().iter().map(|result| output(result)).collect();
        let is_unknown = |result: &&Result<Outcome, Error>| {
            matches!(result, Err(error) if error.kind == ErrorKind::OutcomeUnknown) || output(result).contains("may exist")
        };
        let unknown = world.results().iter().any(is_unknown) || stops > 0;
        for extra in left.iter().skip(1) {
            let known = unknown || outputs.contains(extra) || self.start.get(extra).is_some();
            assert!(known, "no caller reports {extra}: {}", shown(world));
        }
    }

    /// Callers that want the same, with nobody else who destroys sessions, get one id, and its
    /// session is there.
    #[track_caller]
    fn equal_wishes_get_one_session(&self, world: &World) {
        if wishes(world) > 1 || world.troubles.removals > 0 {
            return;
        }
        let oldest = world.cluster.named("web").into_iter().next();
        for outcome in world.results().into_iter().flatten() {
            assert_eq!(outcome.session_id(), oldest.as_deref(), "{}", shown(world));
        }
        if world.troubles == Troubles::default() {
            let creators = |caller: &&Caller| caller.result().is_some_and(|result| result.as_ref().is_ok_and(|o| o.changed));
            let changed = world.callers.iter().filter(creators).count();
            let was_there =
                self.start.named("web").iter().any(|id| matches(&world.callers[0].options, &self.start.get(id).unwrap()));
            assert!((usize::from(!was_there)..).contains(&changed) || world.results().iter().any(|result| result.is_err()));
            if self.start.named("web").is_empty() {
                assert_eq!(changed, 1, "one creates it, the others find it: {}", shown(world));
            }
        }
    }

    /// What all sessions had in common at the start, and no caller gives, stays. If somebody destroys
    /// the sessions, there is nothing to carry over from.
    #[track_caller]
    fn what_is_not_given_is_kept(&self, world: &World) {
        if world.troubles.removals > 0 || crossing(world) {
            return;
        }
        let start = left(&self.start);
        let Some((first, others)) = start.split_first() else { return };
        for (at, option) in ["delay", "behavior", "ttl", "checks"].iter().enumerate() {
            let is_given = world.callers.iter().any(|caller| !caller.options[option].is_null());
            if !is_given && others.iter().all(|other| other[at] == first[at]) {
                let kept = left(&world.cluster).iter().all(|session| session[at] == first[at]);
                assert!(kept, "`{option}` was {}: {}", first[at], shown(world));
            }
        }
    }

    /// Whatever happened, the next call that may replace ends with the session that it wants, and a
    /// further one changes nothing.
    #[track_caller]
    fn next_call_converges(&self, world: &World) {
        if !self.converging.borrow_mut().insert(world.cluster.clone()) {
            return;
        }
        let wishes: BTreeMap<_, _> = world.callers.iter().map(|caller| (caller.options.to_string(), &caller.options)).collect();
        for options in wishes.into_values() {
            let mut options = options.as_ref().clone();
            options["on_mismatch"] = json!("replace");
            let first = alone(&world.cluster, &options);
            let outcome = first.results()[0].as_ref().unwrap_or_else(|error| panic!("{error}: {}", shown(world)));
            let id = outcome.session_id().unwrap();
            assert_eq!(first.cluster.named("web").first().map(String::as_str), Some(id), "{}", shown(world));
            let again = alone(&first.cluster, &options);
            let outcome = again.results()[0].as_ref().unwrap();
            assert!(!outcome.changed && outcome.session_id() == Some(id), "{}", shown(world));
        }
    }
}

/// Returns how many different sessions the callers want.
fn wishes(world: &World) -> usize {
    let wish = |caller: &Caller| {
        let mut wish = caller.options.as_ref().clone();
        wish["on_mismatch"].take();
        wish.to_string()
    };
    world.callers.iter().map(wish).collect::<BTreeSet<_>>().len()
}

/// Runs one caller without trouble.
fn alone(cluster: &InMemoryConsul, options: &Value) -> World {
    let mut rng = fastrand::Rng::with_seed(0);
    World::new(cluster.clone(), std::slice::from_ref(options)).one_way(&mut rng, 0, false)
}

fn kind(result: &Result<Outcome, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.kind.name(),
    }
}

/// Returns whether a caller took a session for the one of the name, which its creator was about to
/// destroy: that one had seen an older session, which went in between. Consul has no compare-and-set
/// for sessions, so this cannot be excluded. It takes a third party that destroys sessions, or three
/// callers that want different things.
fn crossing(world: &World) -> bool {
    let answered = world.callers.iter().filter_map(|caller| Some((caller, caller.result()?.as_ref().ok()?.session_id()?)));
    let mut gone = answered.filter(|(_, id)| world.cluster.get(id).is_none());
    let crossing = gone.any(|(caller, id)| {
        let sent = |other: &Caller| other.exchanges().any(|(request, _)| request.path_and_query.ends_with(id));
        let creator = |other: &&Caller| created(other).contains(id) && sent(other);
        world.callers.iter().find(creator).is_some_and(|creator| !std::ptr::eq(creator, caller))
    });
    let is_possible = world.troubles.removals > 0 || world.callers.len() > 2 && wishes(world) > 1;
    assert!(!crossing || is_possible, "{}", shown(world));
    crossing
}

/// Returns whether a caller destroyed a session that another one has as its answer, and had not seen
/// that as the session of the name: it had seen an older one, which went in between, and carried over
/// from that. So what only the other one gave is lost. Consul has no compare-and-set for sessions, so
/// this cannot be excluded where callers give different options.
fn overtaking(world: &World) -> bool {
    let destroyed_unseen = |caller: &Caller, id: &str| {
        let mut oldest = None;
        caller.exchanges().any(|(request, answer)| {
            if let Some(look) = look(request, answer.as_ref()) {
                oldest = look.first().map(|session| text(&session["ID"]));
            }
            request.path_and_query == format!("/v1/session/destroy/{id}") && oldest.as_deref() != Some(id)
        })
    };
    let answered = world.callers.iter().filter_map(|caller| Some((caller, caller.result()?.as_ref().ok()?.session_id()?)));
    let overtaking = answered
        .filter(|(_, id)| world.cluster.get(id).is_none())
        .any(|(caller, id)| world.callers.iter().any(|other| !std::ptr::eq(caller, other) && destroyed_unseen(other, id)));
    let given = |caller: &Caller| caller.options.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    overtaking && world.callers.iter().map(given).collect::<BTreeSet<_>>().len() > 1
}

/// Returns whether a caller gave up, since others replaced what it created again and again.
fn gave_up(result: &Result<Outcome, Error>) -> bool {
    matches!(result, Err(error) if error.message.contains("did not settle"))
}

fn left(cluster: &InMemoryConsul) -> Vec<Properties> {
    let properties = |id: &String| {
        let session = cluster.get(id).unwrap();
        // Consul keeps a TTL as it was written.
        let ttl = duration::parse_go(session["TTL"].as_str().unwrap()).unwrap_or(0).to_string();
        [session["LockDelay"].to_string(), text(&session["Behavior"]), ttl, session["NodeChecks"].to_string()]
    };
    cluster.named("web").iter().map(properties).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Returns whether a session in Consul's JSON is as the options say.
fn matches(options: &Value, session: &Value) -> bool {
    let is = |option: &str, found: Option<i64>| {
        options[option].as_i64().is_none_or(|seconds| found == Some(seconds * duration::SECOND))
    };
    is("delay", session["LockDelay"].as_i64())
        && is("ttl", duration::parse_go(session["TTL"].as_str().unwrap()))
        && (options["behavior"].is_null() || options["behavior"] == session["Behavior"])
}

/// Returns the sessions of the name, oldest first, that each look of a caller showed.
fn looks(caller: &Caller) -> impl DoubleEndedIterator<Item = Vec<Value>> {
    caller.exchanges().filter_map(|(request, answer)| look(request, answer.as_ref()))
}

/// Returns the sessions that a request showed, if it is a look and has an answer.
fn look(request: &Request, answer: Option<&Value>) -> Option<Vec<Value>> {
    let path = &request.path_and_query;
    let is_look = path.starts_with("/v1/session/list") || path.starts_with("/v1/session/node/");
    let mut sessions = answer.filter(|_| is_look)?.as_array().unwrap().clone();
    sessions.retain(|session| session["Name"] == "web" && session["Node"] == "n1");
    sessions.sort_by_key(|session| session["CreateIndex"].as_u64());
    Some(sessions)
}

/// Returns the session that a caller's last look showed as the oldest.
fn last_look(caller: &Caller) -> Option<Value> {
    looks(caller).next_back()?.into_iter().next()
}

/// Returns the ids of the sessions that Consul says a caller created.
fn created(caller: &Caller) -> BTreeSet<String> {
    let id = |(request, answer): (&_, Option<Value>)| {
        let request: &Request = request;
        (request.path_and_query == "/v1/session/create").then(|| text(&answer?["ID"]).into())
    };
    caller.exchanges().filter_map(|exchange| id(exchange).flatten()).collect()
}

/// Returns the ids of the sessions that Consul says a caller destroyed.
fn destroyed(caller: &Caller) -> BTreeSet<String> {
    let exchanges = caller.exchanges().filter(|(_, answer)| answer.is_some());
    exchanges.filter_map(|(request, _)| Some(request.path_and_query.strip_prefix("/v1/session/destroy/")?.to_owned())).collect()
}

fn output(result: &Result<Outcome, Error>) -> String {
    result.as_ref().map_or_else(|error| error.to_json(), |outcome| outcome.to_json())
}

/// Describes a schedule: each caller's requests and result, and what is left.
fn shown(world: &World) -> String {
    let mut text = format!("left {:?}, {:?}", world.cluster.named("web"), world.troubles);
    for (number, caller) in world.callers.iter().enumerate() {
        text += &format!("\ncaller {number}: {}", caller.options);
        for (request, answer) in caller.exchanges() {
            let answer = answer.map_or("(no JSON)".into(), |answer| answer.to_string());
            text += &format!("\n  {:?} {} -> {answer}", request.method, request.path_and_query);
        }
        text += &format!("\n  {}", caller.result().map_or("stopped".into(), output));
    }
    text
}
