//! Several callers at once, and answers that are lost.

use crate::cluster::Cluster;
use crate::interleavings::World;
use crate::random::Random;
use consul_session::Outcome;
use consul_session::error::{Error, ErrorKind};
use serde_json::{Value, json};

/// A Consul with one session of this name, with the defaults.
fn with_one() -> (Cluster, String) {
    let mut cluster = Cluster::default();
    let id = cluster.create(&json!({"Name": "web"})).unwrap();
    (cluster, id)
}

/// One whose agent may not be asked for its node.
fn secretive(denied: bool, mut cluster: Cluster) -> Cluster {
    cluster.agent_read = !denied;
    cluster
}

fn same(options: Value, callers: usize) -> Vec<Value> {
    vec![options; callers]
}

/// Everybody got the same session, and it is the only one of its name on the node. Its id.
#[track_caller]
fn one_for_all(world: &World) -> String {
    let ids: Vec<Option<&str>> = world.results().iter().map(|result| result.as_ref().unwrap().session_id()).collect();
    let left = world.cluster.named("web");
    assert_eq!(left.len(), 1, "exactly one session stays; the callers have {ids:?}");
    assert!(ids.iter().all(|id| *id == Some(&left[0])), "{left:?} is there, the callers have {ids:?}");
    assert!(world.cluster.get(&left[0]).unwrap().node.eq_ignore_ascii_case("n1"));
    left[0].clone()
}

#[track_caller]
fn one_is_changed(world: &World) {
    let changed = world.results().iter().filter(|result| result.as_ref().unwrap().changed).count();
    assert_eq!(changed, 1, "one caller made it, the others found it");
}

#[test]
fn two_creators_get_one_session_in_every_order() {
    for options in [json!({"name": "web"}), json!({"name": "web", "node": "N1"}), json!({"name": "web", "delay": 5})] {
        let ways = World::new(Cluster::default(), &same(options, 2)).every_way(0, &mut |world| {
            one_for_all(world);
            one_is_changed(world);
        });
        assert!(ways > 5, "{ways}");
    }
}

#[test]
fn three_creators_get_one_session_in_every_order() {
    let ways = World::new(Cluster::default(), &same(json!({"name": "web"}), 3)).every_way(0, &mut |world| {
        one_for_all(world);
        one_is_changed(world);
    });
    assert!(ways > 30, "{ways}");
}

#[test]
fn creators_that_may_not_ask_for_their_node_get_one_session_in_every_order() {
    let empty = secretive(true, Cluster::default());
    World::new(empty.clone(), &same(json!({"name": "web"}), 2)).every_way(0, &mut |world| {
        one_for_all(world);
    });
    let mut there = empty;
    let id = there.create(&json!({"Name": "web"})).unwrap();
    World::new(there, &same(json!({"name": "web"}), 2)).every_way(0, &mut |world| assert_eq!(one_for_all(world), id));
}

#[test]
fn two_replacers_leave_one_new_session_in_every_order() {
    for denied in [false, true] {
        let (cluster, old) = with_one();
        let cluster = secretive(denied, cluster);
        let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
        World::new(cluster, &same(options, 2)).every_way(0, &mut |world| {
            let new = one_for_all(world);
            assert_ne!(new, old);
            assert_eq!(world.cluster.get(&new).unwrap().lock_delay, 5_000_000_000);
            one_is_changed(world);
        });
    }
}

#[test]
fn three_replacers_leave_one_new_session_in_every_order() {
    let (cluster, old) = with_one();
    let options = json!({"name": "web", "node": "n1", "ttl": "1m", "on_mismatch": "replace"});
    World::new(cluster, &same(options, 3)).every_way(0, &mut |world| assert_ne!(one_for_all(world), old));
}

#[test]
fn fifty_creators_get_one_session() {
    for seed in 0..10 {
        let world = World::new(Cluster::default(), &same(json!({"name": "web"}), 50));
        let world = world.one_way(&mut Random::new(seed), 0, seed % 2 == 1);
        one_for_all(&world);
        one_is_changed(&world);
    }
}

#[test]
fn fifty_replacers_leave_one_new_session() {
    for seed in 0..10 {
        let (cluster, old) = with_one();
        let options = json!({"name": "web", "behavior": "delete", "on_mismatch": "replace"});
        let world = World::new(cluster, &same(options, 50)).one_way(&mut Random::new(seed), 0, seed % 2 == 1);
        assert_ne!(one_for_all(&world), old);
        one_is_changed(&world);
    }
}

#[test]
fn a_few_callers_get_one_session_in_very_many_orders() {
    for seed in 0..250 {
        let mut random = Random::new(seed);
        let mut cluster = secretive(random.below(2) == 0, Cluster::default());
        // Of the same name and none of theirs: on another node.
        let other = cluster.create(&json!({"Name": "web", "Node": "n2"})).unwrap();
        if random.below(2) == 0 {
            cluster.create(&json!({"Name": "web"})).unwrap();
        }
        let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
        let callers = 2 + random.below(6);
        let stale = random.below(2) == 0;
        let world = World::new(cluster, &same(options, callers)).one_way(&mut random, 0, stale);
        let mut world = world;
        assert!(world.cluster.get(&other).is_some(), "seed {seed}: another node's session is left alone");
        world.cluster.destroy(&other);
        one_for_all(&world);
    }
}

#[test]
fn replacers_that_want_different_things_leave_one_session() {
    let wants = [5, 10, 5, 20].map(|delay| json!({"name": "web", "delay": delay, "on_mismatch": "replace"}));
    let check = |world: &World| {
        assert!(world.results().iter().all(|result| result.is_ok()));
        assert_eq!(world.cluster.named("web").len(), 1);
    };
    World::new(with_one().0, &wants[..2]).every_way(0, &mut |world| check(world));
    for seed in 0..100 {
        check(&World::new(with_one().0, &wants).one_way(&mut Random::new(seed), 0, false));
    }
}

#[test]
fn creators_that_want_different_things_leave_one_session_and_say_so() {
    let wants = [5, 10].map(|delay| json!({"name": "web", "delay": delay}));
    World::new(Cluster::default(), &wants).every_way(0, &mut |world| {
        let left = world.cluster.named("web");
        assert_eq!(left.len(), 1);
        let (mut got, mut refused) = (0, 0);
        for result in world.results() {
            match result {
                Ok(outcome) => {
                    assert_eq!(outcome.session_id(), Some(left[0].as_str()));
                    got += 1;
                }
                Err(error) => {
                    let ErrorKind::Mismatch { session_id, differences } = &error.kind else { panic!("{error}") };
                    assert_eq!((session_id, differences.len()), (&left[0], 1));
                    refused += 1;
                }
            }
        }
        assert_eq!((got, refused), (1, 1));
    });
}

#[test]
fn creating_beside_destroying_never_fails_and_leaves_at_most_one() {
    let callers = [json!({"name": "web"}), json!({"name": "web"}), json!({"name": "web", "state": "absent"})];
    for cluster in [Cluster::default(), with_one().0] {
        World::new(cluster, &callers).every_way(0, &mut |world| {
            assert!(world.results().iter().all(|result| result.is_ok()));
            assert!(world.cluster.named("web").len() <= 1);
        });
    }
}

/// Everything that is said to the callers.
fn all_texts(results: &[&Result<Outcome, Error>]) -> String {
    results.iter().map(|result| result.as_ref().map_or_else(|error| error.to_json(), |outcome| outcome.to_json())).collect()
}

/// Whoever failed tries again, undisturbed: everybody has the same session then.
#[track_caller]
fn once_more(world: &World, options: &Value) {
    let again = World::new(world.cluster.clone(), &same(options.clone(), 2)).one_way(&mut Random::new(1), 0, false);
    let ids: Vec<_> = again.results().iter().map(|result| result.as_ref().unwrap().session_id().unwrap().to_owned()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    for result in world.results().into_iter().flatten() {
        assert_eq!(result.session_id(), Some(ids[0].as_str()), "who had succeeded already has it");
    }
}

/// What holds after a fault, whatever it was.
#[track_caller]
fn nothing_is_kept_secret(world: &World, more: usize) {
    let results = world.results();
    let left = world.cluster.named("web");
    let texts = all_texts(&results);
    for result in &results {
        match result {
            Ok(outcome) => assert!(left.contains(&outcome.session_id().unwrap().to_owned()), "{left:?}: {texts}"),
            Err(error) => assert!(
                matches!(
                    error.kind,
                    ErrorKind::OutcomeUnknown | ErrorKind::InvalidResponse | ErrorKind::Timeout | ErrorKind::Unreachable
                ),
                "{error:?}"
            ),
        }
    }
    assert!(left.len() <= 1 + more, "{left:?}: {texts}");
    let doubt = results.iter().any(|result| matches!(result, Err(error) if error.kind == ErrorKind::OutcomeUnknown));
    if results.iter().all(|result| result.is_err()) && !doubt {
        assert!(left.is_empty(), "everybody says that nothing was changed, but {left:?} is there: {texts}");
    }
    for extra in left.iter().skip(1) {
        assert!(doubt || texts.contains(extra), "nobody says a word of {extra}: {texts}");
    }
}

#[test]
fn a_fault_at_any_request_of_a_creator_is_survived_or_reported() {
    for options in [json!({"name": "web"}), json!({"name": "web", "node": "n1"})] {
        World::new(Cluster::default(), &same(options.clone(), 1)).every_way(2, &mut |world| {
            nothing_is_kept_secret(world, 0);
            once_more(world, &options);
        });
    }
}

#[test]
fn two_faults_at_any_requests_of_two_creators_leave_at_most_two_sessions_more() {
    let options = json!({"name": "web"});
    let ways = World::new(Cluster::default(), &same(options.clone(), 2)).every_way(2, &mut |world| {
        nothing_is_kept_secret(world, world.faults);
        once_more(world, &options);
    });
    assert!(ways > 500, "{ways}");
}

#[test]
fn a_fault_at_any_request_of_a_replacer_is_survived_or_reported() {
    let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
    let (cluster, old) = with_one();
    World::new(cluster, &same(options.clone(), 1)).every_way(2, &mut |world| {
        let left = world.cluster.named("web");
        match world.results()[0] {
            Ok(outcome) => assert_eq!(left, [outcome.session_id().unwrap()]),
            Err(error) if error.kind == ErrorKind::OutcomeUnknown => {
                assert!((1..=2).contains(&left.len()), "{left:?}: {error}")
            }
            Err(error) => {
                assert!(
                    matches!(error.kind, ErrorKind::InvalidResponse | ErrorKind::Timeout | ErrorKind::Unreachable),
                    "{error:?}"
                );
                assert_eq!(left[0], old, "the old one stays for as long as there is no new one: {error}");
                assert!(left[1..].iter().all(|new| error.message.contains(new)), "{left:?}: {error}");
            }
        }
        // The new one is found, whatever happened before.
        let again = World::new(world.cluster.clone(), &same(options.clone(), 2)).one_way(&mut Random::new(1), 0, false);
        assert!(again.results().iter().all(|result| result.is_ok()));
    });
}

#[test]
fn a_fault_at_any_request_of_two_replacers_leaves_at_most_one_session_more() {
    let options = json!({"name": "web", "delay": 5, "on_mismatch": "replace"});
    World::new(with_one().0, &same(options, 2)).every_way(1, &mut |world| {
        let left = world.cluster.named("web");
        assert!((1..=2).contains(&left.len()), "{left:?}");
        let texts = all_texts(&world.results());
        let doubt =
            world.results().iter().any(|result| matches!(result, Err(error) if error.kind == ErrorKind::OutcomeUnknown));
        assert!(doubt || left[1..].iter().all(|extra| texts.contains(extra)), "{left:?}: {texts}");
    });
}

#[test]
fn a_fault_at_any_request_of_a_destroyer_is_survived_or_reported() {
    let (cluster, old) = with_one();
    for options in [
        json!({"state": "absent", "name": "web"}),
        json!({"state": "absent", "name": "web", "node": "n1"}),
        json!({"state": "absent", "id": old}),
    ] {
        World::new(cluster.clone(), &same(options, 1)).every_way(3, &mut |world| {
            let left = world.cluster.named("web");
            match world.results()[0] {
                Ok(outcome) => assert!(outcome.changed && left.is_empty()),
                Err(error) if error.kind == ErrorKind::OutcomeUnknown => {}
                Err(error) => assert_eq!(left, [old.as_str()], "who says that nothing was changed must be right: {error:?}"),
            }
        });
    }
}

#[test]
fn faults_here_and_there_leave_at_most_one_session_more_for_each() {
    let options = json!({"name": "web"});
    let mut faults = 0;
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let callers = 2 + random.below(5);
        let world = World::new(Cluster::default(), &same(options.clone(), callers)).one_way(&mut random, 8, seed % 2 == 1);
        nothing_is_kept_secret(&world, world.faults);
        once_more(&world, &options);
        faults += world.faults;
    }
    assert!(faults > 150, "{faults}");
}
