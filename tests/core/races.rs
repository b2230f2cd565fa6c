//! Concurrent callers, and faults of the network.

use crate::interleavings::{Troubles, World};
use crate::invariants::Guarantee;
use crate::memory::InMemoryConsul;
use consul_session::Outcome;
use consul_session::error::{Error, ErrorKind};
use fastrand::Rng;
use serde_json::{Value, json};

/// Returns a Consul with one session named `web` with the defaults, and its id.
fn with_one_session() -> (InMemoryConsul, String) {
    let mut cluster = InMemoryConsul::default();
    let id = cluster.create(&json!({"Name": "web"}));
    (cluster, id)
}

const NONE: Troubles = Troubles { faults: 0, removals: 0, stops: 0 };

fn faults(faults: usize) -> Troubles {
    Troubles { faults, ..NONE }
}

/// Allows or denies reads of `agent/self`.
fn with_agent_read(allowed: bool, mut cluster: InMemoryConsul) -> InMemoryConsul {
    cluster.agent_read = allowed;
    cluster
}

fn same(options: Value, callers: usize) -> Vec<Value> {
    vec![options; callers]
}

/// Asserts that all callers got the same session, the only one of its name on the node. Returns its
/// id.
#[track_caller]
fn all_get_one_session(world: &World) -> String {
    let ids: Vec<Option<&str>> = world.results().iter().map(|result| result.as_ref().unwrap().session_id()).collect();
    let left = world.cluster.named("web");
    assert_eq!(left.len(), 1, "exactly one session remains; the callers got {ids:?}");
    assert!(ids.iter().all(|id| *id == Some(&left[0])), "{left:?} exists, the callers got {ids:?}");
    assert!(world.cluster.get(&left[0]).unwrap()["Node"].as_str().unwrap().eq_ignore_ascii_case("n1"));
    left[0].clone()
}

/// Asserts that the callers which report a change are those that created or destroyed sessions, of
/// which there is at least one. Several can destroy the one that they replace: Consul does not say
/// which of them did.
#[track_caller]
fn those_that_changed_it_report_that(world: &World) {
    let mut changed = 0;
    for outcome in world.results().into_iter().flatten() {
        let created = outcome.diff.as_ref().unwrap().before.is_empty();
        assert!(!outcome.changed || created || !outcome.destroyed.is_empty());
        changed += usize::from(outcome.changed);
    }
    assert!(changed > 0);
}

#[track_caller]
fn one_reports_a_change(world: &World) {
    let changed = world.results().iter().filter(|result| result.as_ref().unwrap().changed).count();
    assert_eq!(changed, 1, "one caller created it, the others found it");
}

#[test]
fn two_creators_get_one_session_in_every_order() {
    for options in [json!({"name": "web"}), json!({"name": "web", "node": "N1"}), json!({"name": "web", "delay": 5})] {
        let ways = World::new(InMemoryConsul::default(), &same(options, 2)).every_way(NONE, &mut |world| {
            all_get_one_session(world);
            one_reports_a_change(world);
        });
        assert!(ways > 2, "{ways}");
    }
}

#[test]
fn three_creators_get_one_session_in_every_order() {
    let ways = World::new(InMemoryConsul::default(), &same(json!({"name": "web"}), 3)).every_way(NONE, &mut |world| {
        all_get_one_session(world);
        one_reports_a_change(world);
    });
    assert!(ways > 30, "{ways}");
}

#[test]
fn creators_without_agent_read_get_one_session_in_every_order() {
    let empty = with_agent_read(false, InMemoryConsul::default());
    World::new(empty.clone(), &same(json!({"name": "web"}), 2)).every_way(NONE, &mut |world| {
        all_get_one_session(world);
    });
    let mut existing = empty;
    let id = existing.create(&json!({"Name": "web"}));
    World::new(existing, &same(json!({"name": "web"}), 2))
        .every_way(NONE, &mut |world| assert_eq!(all_get_one_session(world), id));
}

#[test]
fn two_replacers_leave_one_new_session_in_every_order() {
    for allowed in [true, false] {
        let (cluster, old) = with_one_session();
        let cluster = with_agent_read(allowed, cluster);
        let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
        World::new(cluster, &same(options, 2)).every_way(NONE, &mut |world| {
            let new = all_get_one_session(world);
            assert_ne!(new, old);
            assert_eq!(world.cluster.get(&new).unwrap()["LockDelay"], 5_000_000_000_i64);
            those_that_changed_it_report_that(world);
        });
    }
}

#[test]
fn three_replacers_leave_one_new_session_in_every_order() {
    let (cluster, old) = with_one_session();
    let options = json!({"name": "web", "node": "n1", "ttl": "1m", "on_mismatch": "replace"});
    World::new(cluster, &same(options, 3)).every_way(NONE, &mut |world| assert_ne!(all_get_one_session(world), old));
}

#[test]
fn fifty_creators_get_one_session() {
    for seed in 0..10 {
        let world = World::new(InMemoryConsul::default(), &same(json!({"name": "web"}), 50));
        let world = world.one_way(&mut Rng::with_seed(seed), 0, seed % 2 == 1);
        all_get_one_session(&world);
        one_reports_a_change(&world);
    }
}

#[test]
fn fifty_replacers_leave_one_new_session() {
    for seed in 0..10 {
        let (cluster, old) = with_one_session();
        let options = json!({"name": "web", "behavior": "delete", "on_mismatch": "replace"});
        let world = World::new(cluster, &same(options, 50)).one_way(&mut Rng::with_seed(seed), 0, seed % 2 == 1);
        assert_ne!(all_get_one_session(&world), old);
        those_that_changed_it_report_that(&world);
    }
}

#[test]
fn callers_in_random_orders_get_one_session() {
    for seed in 0..250 {
        let mut rng = Rng::with_seed(seed);
        let mut cluster = with_agent_read(rng.bool(), InMemoryConsul::default());
        // A session of the same name on another node, which does not concern the callers.
        let other = cluster.create(&json!({"Name": "web", "Node": "n2"}));
        if rng.bool() {
            cluster.create(&json!({"Name": "web"}));
        }
        let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
        let callers = 2 + rng.usize(..6);
        let stale = rng.bool();
        let world = World::new(cluster, &same(options, callers)).one_way(&mut rng, 0, stale);
        let mut world = world;
        assert!(world.cluster.get(&other).is_some(), "seed {seed}: the session of another node remains");
        world.cluster.destroy(&other);
        all_get_one_session(&world);
    }
}

#[test]
fn replacers_with_different_options_leave_one_session() {
    let options = [5, 10, 5, 20].map(|delay| json!({"name": "web", "delay": delay, "on_mismatch": "replace"}));
    let check = |world: &World| {
        let gave_up = |error: &Error| error.message.contains("did not settle");
        assert!(world.results().iter().all(|result| result.as_ref().err().is_none_or(gave_up)));
        assert!(world.results().iter().any(|result| result.is_ok()));
        assert_eq!(world.cluster.named("web").len(), 1);
    };
    World::new(with_one_session().0, &options[..2]).every_way(NONE, &mut |world| check(world));
    for seed in 0..100 {
        check(&World::new(with_one_session().0, &options).one_way(&mut Rng::with_seed(seed), 0, false));
    }
}

#[test]
fn creators_with_different_options_get_one_session_or_a_mismatch() {
    let options = [5, 10].map(|delay| json!({"name": "web", "delay": delay}));
    World::new(InMemoryConsul::default(), &options).every_way(NONE, &mut |world| {
        let left = world.cluster.named("web");
        assert_eq!(left.len(), 1);
        let (mut succeeded, mut refused) = (0, 0);
        for result in world.results() {
            match result {
                Ok(outcome) => {
                    assert_eq!(outcome.session_id(), Some(left[0].as_str()));
                    succeeded += 1;
                }
                Err(error) => {
                    let ErrorKind::Mismatch { session_id, differences } = &error.kind else { panic!("{error}") };
                    assert_eq!((session_id, differences.len()), (&left[0], 1));
                    refused += 1;
                }
            }
        }
        assert_eq!((succeeded, refused), (1, 1));
    });
}

#[test]
fn concurrent_create_and_destroy_succeed_and_leave_at_most_one_session() {
    let callers = [json!({"name": "web"}), json!({"name": "web"}), json!({"name": "web", "state": "absent"})];
    for cluster in [InMemoryConsul::default(), with_one_session().0] {
        World::new(cluster, &callers).every_way(NONE, &mut |world| {
            assert!(world.results().iter().all(|result| result.is_ok()));
            assert!(world.cluster.named("web").len() <= 1);
        });
    }
}

/// Returns the outputs of all callers.
fn outputs(results: &[&Result<Outcome, Error>]) -> String {
    results.iter().map(|result| result.as_ref().map_or_else(|error| error.to_json(), |outcome| outcome.to_json())).collect()
}

/// Asserts that a retry without faults gets one session, which is the session of every caller that
/// succeeded before.
#[track_caller]
fn retries_get_one_session(world: &World, options: &Value) {
    let again = World::new(world.cluster.clone(), &same(options.clone(), 2)).one_way(&mut Rng::with_seed(1), 0, false);
    let ids: Vec<_> = again.results().iter().map(|result| result.as_ref().unwrap().session_id().unwrap().to_owned()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    for result in world.results().into_iter().flatten() {
        assert_eq!(result.session_id(), Some(ids[0].as_str()), "a caller that succeeded before has it already");
    }
}

/// Asserts that, after any fault, each extra session is reported and there are at most `extra` of
/// them.
#[track_caller]
fn faults_are_reported(world: &World, extra: usize) {
    let results = world.results();
    let left = world.cluster.named("web");
    let output = outputs(&results);
    for result in &results {
        match result {
            Ok(outcome) => assert!(left.contains(&outcome.session_id().unwrap().to_owned()), "{left:?}: {output}"),
            Err(error) => assert!(
                matches!(
                    error.kind,
                    ErrorKind::OutcomeUnknown
                        | ErrorKind::InvalidResponse
                        | ErrorKind::Timeout
                        | ErrorKind::Unreachable
                        | ErrorKind::Unavailable { .. }
                ),
                "{error:?}"
            ),
        }
    }
    assert!(left.len() <= 1 + extra, "{left:?}: {output}");
    let is_unknown = output.contains("outcome-unknown") || output.contains("may exist, or appear later");
    if results.iter().all(|result| result.is_err()) && !is_unknown {
        assert!(left.is_empty(), "every caller reports that nothing changed, but {left:?} exists: {output}");
    }
    for extra in left.iter().skip(1) {
        assert!(is_unknown || output.contains(extra), "no caller reports {extra}: {output}");
    }
}

#[test]
fn creator_with_faults_succeeds_or_reports_them() {
    for options in [json!({"name": "web"}), json!({"name": "web", "node": "n1"})] {
        World::new(InMemoryConsul::default(), &same(options.clone(), 1)).every_way(faults(2), &mut |world| {
            faults_are_reported(world, 0);
            retries_get_one_session(world, &options);
        });
    }
}

#[test]
fn two_creators_with_two_faults_leave_at_most_two_extra_sessions() {
    let options = json!({"name": "web"});
    let ways = World::new(InMemoryConsul::default(), &same(options.clone(), 2)).every_way(faults(2), &mut |world| {
        faults_are_reported(world, world.troubles.faults);
        retries_get_one_session(world, &options);
    });
    assert!(ways > 500, "{ways}");
}

#[test]
fn replacer_with_faults_succeeds_or_reports_them() {
    let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
    let (cluster, old) = with_one_session();
    World::new(cluster, &same(options.clone(), 1)).every_way(faults(2), &mut |world| {
        let left = world.cluster.named("web");
        match world.results()[0] {
            Ok(outcome) => assert_eq!(left, [outcome.session_id().unwrap()]),
            Err(error) if error.kind == ErrorKind::OutcomeUnknown => {
                assert!((1..=2).contains(&left.len()), "{left:?}: {error}")
            }
            Err(error) => {
                assert!(
                    matches!(
                        error.kind,
                        ErrorKind::InvalidResponse
                            | ErrorKind::Timeout
                            | ErrorKind::Unreachable
                            | ErrorKind::Unavailable { .. }
                    ),
                    "{error:?}"
                );
                assert_eq!(left[0], old, "the old session remains as long as there is no new one: {error}");
                assert!(left[1..].iter().all(|new| error.message.contains(new)), "{left:?}: {error}");
            }
        }
        // A retry succeeds after any of these ends.
        let again = World::new(world.cluster.clone(), &same(options.clone(), 2)).one_way(&mut Rng::with_seed(1), 0, false);
        assert!(again.results().iter().all(|result| result.is_ok()));
    });
}

#[test]
fn two_replacers_with_one_fault_leave_at_most_one_extra_session() {
    let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
    World::new(with_one_session().0, &same(options, 2)).every_way(faults(1), &mut |world| {
        let left = world.cluster.named("web");
        assert!((1..=2).contains(&left.len()), "{left:?}");
        let output = outputs(&world.results());
        let is_unknown = output.contains("outcome-unknown") || output.contains("may exist, or appear later");
        assert!(is_unknown || left[1..].iter().all(|extra| output.contains(extra)), "{left:?}: {output}");
    });
}

#[test]
fn destroyer_with_faults_succeeds_or_reports_them() {
    let (cluster, old) = with_one_session();
    for options in [
        json!({"state": "absent", "name": "web"}),
        json!({"state": "absent", "name": "web", "node": "n1"}),
        json!({"state": "absent", "id": old}),
    ] {
        World::new(cluster.clone(), &same(options, 1)).every_way(faults(3), &mut |world| {
            let left = world.cluster.named("web");
            match world.results()[0] {
                Ok(outcome) => assert!(outcome.changed && left.is_empty()),
                Err(error) if error.kind == ErrorKind::OutcomeUnknown => {}
                Err(error) => assert_eq!(left, [old.as_str()], "the error says that nothing changed: {error:?}"),
            }
        });
    }
}

#[test]
fn callers_with_random_faults_leave_at_most_one_extra_session_per_fault() {
    let options = json!({"name": "web"});
    let mut faults = 0;
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let callers = 2 + rng.usize(..5);
        let world = World::new(InMemoryConsul::default(), &same(options.clone(), callers)).one_way(&mut rng, 8, seed % 2 == 1);
        faults_are_reported(&world, world.troubles.faults);
        retries_get_one_session(&world, &options);
        faults += world.troubles.faults;
    }
    assert!(faults > 150, "{faults}");
}

/// The wishes of the callers in [`check_schedules`].
fn wish(delay: i64, on_mismatch: &str) -> Value {
    json!({"name": "web", "delay": delay, "on_mismatch": on_mismatch})
}

/// Returns every choice of so many wishes, regardless of their order.
fn choices(count: usize) -> Vec<Vec<Value>> {
    let wishes = [wish(5, "fail"), wish(10, "fail"), wish(5, "replace"), wish(10, "replace")];
    let mut choices: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..count {
        let longer = |choice: &Vec<usize>| {
            let choice = choice.clone();
            (choice.last().copied().unwrap_or(0)..wishes.len()).map(move |next| [&choice[..], &[next]].concat())
        };
        choices = choices.iter().flat_map(longer).collect();
    }
    choices.into_iter().map(|choice| choice.into_iter().map(|at| wishes[at].clone()).collect()).collect()
}

/// Returns a Consul with sessions of the name with these lock delays, oldest first. No wish gives
/// their other properties.
fn with_delays(delays: &[i64]) -> InMemoryConsul {
    let mut cluster = InMemoryConsul::default();
    for delay in delays {
        let delay = format!("{delay}s");
        cluster.create(&json!({"Name": "web", "LockDelay": delay, "Behavior": "delete", "TTL": "30s", "NodeChecks": []}));
    }
    cluster
}

/// Checks every schedule of every choice of wishes against the guarantee. Returns their number.
fn check_schedules(callers: usize, starts: &[&[i64]], limit: Troubles, switches: Option<usize>) -> usize {
    check_schedules_of(&choices(callers), starts, limit, switches)
}

/// Checks every schedule of callers with each of these lists of options.
fn check_schedules_of(choices: &[Vec<Value>], starts: &[&[i64]], limit: Troubles, switches: Option<usize>) -> usize {
    let (mut schedules, mut crossings) = (0, 0);
    let callers = choices[0].len();
    for options in choices {
        for start in starts {
            let start = with_delays(start);
            let guarantee = Guarantee::new(&start, options);
            let world = World::new(start, options);
            let world = switches.map_or(world.clone(), |switches| world.with_switches(switches));
            schedules += world.every_way(limit, &mut |world| guarantee.check(world));
            crossings += guarantee.crossings();
        }
    }
    println!(
        "{callers} callers, {} starts, {limit:?}, {switches:?} switches: {schedules} schedules, {crossings} crossings",
        starts.len()
    );
    schedules
}

/// One of each.
const TROUBLES: [Troubles; 3] =
    [Troubles { removals: 1, ..NONE }, Troubles { stops: 1, ..NONE }, Troubles { faults: 1, ..NONE }];

#[test]
fn schedules_of_one_caller_with_troubles_keep_the_guarantee() {
    for limit in [faults(2), faults(3), Troubles { faults: 1, removals: 1, stops: 1 }] {
        check_schedules(1, &[&[], &[15], &[15, 5]], limit, None);
    }
}

#[test]
fn schedules_of_two_callers_keep_the_guarantee() {
    check_schedules(2, &[&[], &[15], &[15, 5]], NONE, None);
}

#[test]
fn schedules_of_two_callers_with_one_trouble_keep_the_guarantee() {
    for limit in TROUBLES {
        check_schedules(2, &[&[], &[15]], limit, None);
    }
}

#[test]
fn schedules_of_three_callers_keep_the_guarantee() {
    check_schedules(3, &[&[], &[15]], NONE, Some(3));
}

#[test]
fn schedules_of_three_callers_with_one_trouble_keep_the_guarantee() {
    for limit in TROUBLES {
        check_schedules(3, &[&[]], limit, Some(if limit == faults(1) { 1 } else { 2 }));
    }
}

#[test]
fn schedules_of_replacers_that_give_different_options_keep_the_guarantee() {
    let replace = |option: &str, value: Value| json!({"name": "web", option: value, "on_mismatch": "replace"});
    let (delay, ttl, behavior) = (replace("delay", 5.into()), replace("ttl", 60.into()), replace("behavior", "release".into()));
    let two = [vec![delay.clone(), ttl.clone()], vec![ttl.clone(), behavior.clone()]];
    check_schedules_of(&two, &[&[], &[15], &[15, 5]], NONE, None);
    for limit in TROUBLES {
        check_schedules_of(&two, &[&[15]], limit, None);
    }
    check_schedules_of(&[vec![delay, ttl, behavior]], &[&[15]], NONE, Some(2));
}
