//! The states of the `consul_session` options: the requests of each, in order, and the outcome.

use crate::script::{
    Exchange, apply, apply_with_pauses, create, destroy, get, id, own_node, own_node_denied, post, put, session,
};
use consul_session::error::{Difference, Error, ErrorKind};
use consul_session::transport::{DEFAULT_POLICY, FILTERED};
use consul_session::{Outcome, Session};
use serde_json::{Value, json};

#[track_caller]
fn list(sessions: Value) -> Exchange {
    get("/v1/session/list").gives(sessions)
}

#[track_caller]
fn list_again(sessions: Value) -> Exchange {
    get("/v1/session/list?consistent").gives(sessions)
}

#[track_caller]
fn node(sessions: Value) -> Exchange {
    get("/v1/session/node/n1?consistent").gives(sessions)
}

/// Expects the read of one session by its id.
#[track_caller]
fn info(number: u64) -> Exchange {
    get(&format!("/v1/session/info/{}", id(number)))
}

#[track_caller]
fn info_again(number: u64) -> Exchange {
    get(&format!("/v1/session/info/{}?consistent", id(number)))
}

#[track_caller]
fn may_read(answer: bool) -> Exchange {
    post("/v1/internal/acl/authorize")
        .body(r#"[{"Resource":"session","Access":"read","Segment":"n1"}]"#)
        .gives(json!([{"Resource": "session", "Access": "read", "Segment": "n1", "Allow": answer}]))
}

/// Adds the header that Consul sends where the default policy is `deny`.
fn masked(exchange: Exchange) -> Exchange {
    exchange.header(DEFAULT_POLICY, "deny")
}

fn filtered(exchange: Exchange) -> Exchange {
    exchange.header(FILTERED, "true")
}

/// Expects the creation of a session named `web`, with these fields after the name.
#[track_caller]
fn create_with(fields: &str) -> Exchange {
    put("/v1/session/create").body(&format!(r#"{{"Name":"web",{fields}}}"#))
}

fn made(number: u64) -> Value {
    json!({"ID": id(number)})
}

fn plain(number: u64) -> Value {
    session(number, json!({}))
}

fn ids(sessions: &[Session]) -> Vec<&str> {
    sessions.iter().map(|session| session.id.as_str()).collect()
}

#[track_caller]
fn found(result: Result<Outcome, Error>, number: u64) -> Outcome {
    let outcome = result.unwrap();
    assert!(!outcome.changed);
    assert_eq!(outcome.session_id(), Some(id(number).as_str()));
    assert_eq!(outcome.destroyed, [""; 0]);
    let diff = outcome.diff.as_ref().unwrap();
    assert_eq!(diff.before, diff.after);
    assert_eq!(ids(&diff.after), [id(number)]);
    outcome
}

#[track_caller]
fn new(result: Result<Outcome, Error>, number: u64) -> Outcome {
    let outcome = result.unwrap();
    assert!(outcome.changed);
    assert_eq!(outcome.session_id(), Some(id(number).as_str()));
    outcome
}

#[track_caller]
fn gone<const N: usize>(result: Result<Outcome, Error>, numbers: [u64; N]) -> Outcome {
    let outcome = result.unwrap();
    assert_eq!(outcome.changed, N > 0);
    assert_eq!(outcome.session_id(), None);
    assert_eq!(outcome.destroyed, numbers.map(id));
    let diff = outcome.diff.as_ref().unwrap();
    assert_eq!(ids(&diff.before), numbers.map(id));
    assert!(diff.after.is_empty());
    outcome
}

#[track_caller]
fn fails(result: Result<Outcome, Error>, case: &ErrorKind, text: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind, *case, "{error}");
    assert!(error.message.contains(text), "{text:?} is missing: {error}");
}

#[track_caller]
fn differs<const N: usize>(
    result: Result<Outcome, Error>,
    number: u64,
    differences: [(&'static str, &str, &str); N],
) -> String {
    let error = result.unwrap_err();
    let differences =
        differences.map(|(option, found, wanted)| Difference { option, found: found.into(), wanted: wanted.into() }).into();
    assert_eq!(error.kind, ErrorKind::Mismatch { session_id: id(number), differences }, "{error}");
    for Difference { option, found, wanted } in match &error.kind {
        ErrorKind::Mismatch { differences, .. } => differences.as_slice(),
        _ => &[],
    } {
        assert!(error.message.contains(&format!("{option} is {found}, not {wanted}")), "{error}");
    }
    error.message.clone()
}

mod present_without_id_or_name {
    use super::*;

    fn create_unnamed() -> Exchange {
        put("/v1/session/create").body(r#"{"LockDelay":"15s","Behavior":"release"}"#)
    }

    #[test]
    fn creates_a_session_every_time_and_reads_it_back() {
        let outcome = new(apply(json!({}), [create_unnamed().gives(made(1)), info_again(1).gives(json!([plain(1)]))]), 1);
        assert_eq!(ids(&outcome.sessions), [id(1)]);
        assert!(outcome.diff.unwrap().before.is_empty());
    }

    #[test]
    fn fails_if_the_new_session_no_longer_exists() {
        let result = apply(json!({}), [create_unnamed().gives(made(1)), info_again(1).gives(json!([]))]);
        fails(result, &ErrorKind::NotFound, &format!("session {} was created, and was gone when it was read back", id(1)));
    }

    #[test]
    fn succeeds_if_the_session_cannot_be_read_back() {
        let outcome = new(apply(json!({}), [create_unnamed().gives(made(1)), info_again(1).fails(ErrorKind::Timeout)]), 1);
        assert_eq!(outcome.notes, ["the new session could not be read back: no answer: timeout"]);
        assert_eq!(outcome.session.unwrap().lock_delay, 15_000_000_000);
    }

    #[test]
    fn reports_a_creation_without_answer_as_unknown() {
        for case in [ErrorKind::Timeout, ErrorKind::InvalidResponse, ErrorKind::ResponseTooLarge, ErrorKind::Other] {
            let result = apply(json!({}), [create_unnamed().fails(case)]);
            fails(
                result,
                &ErrorKind::OutcomeUnknown,
                "the creation of the session, which has no name to find it by, may have happened",
            );
        }
        let result = apply(json!({}), [create_unnamed().says(500, "rpc error making call: EOF")]);
        fails(result, &ErrorKind::OutcomeUnknown, "consul answered 500: rpc error making call: EOF");
    }

    #[test]
    fn returns_the_error_of_a_refusal() {
        let refused = create_unnamed().says(500, "apply failed: Check 'serfHealth' is in critical state");
        fails(apply(json!({}), [refused]), &ErrorKind::CriticalCheck, "try again when it passes");
        fails(apply(json!({}), [create_unnamed().fails(ErrorKind::Unreachable)]), &ErrorKind::Unreachable, "no answer");
    }

    #[test]
    fn writes_nothing_in_a_dry_run() {
        let options = json!({"dry_run": true, "ttl": 30, "node_checks": ["a"], "service_checks": ["s"]});
        let outcome = apply(options.clone(), [own_node()]).unwrap();
        assert!(outcome.changed);
        assert_eq!(outcome.session_id(), None);
        let planned = &outcome.diff.unwrap().after[0];
        assert_eq!((planned.id.as_str(), planned.node.as_str(), planned.ttl.as_str()), ("", "n1", "30s"));
        assert_eq!(planned.all_checks(), ["a", "s"]);
        // If ACLs deny the name of the node, it stays empty, since nothing depends on it.
        let outcome = apply(options, [own_node_denied()]).unwrap();
        assert_eq!(outcome.session.unwrap().node, "");
        let outcome = apply(json!({"dry_run": true, "node": "n7"}), []).unwrap();
        assert_eq!(outcome.session.unwrap().node, "n7");
    }

    #[test]
    fn dry_run_notes_what_it_does_not_check() {
        for (given, unchecked) in [
            (json!({"node": "n7", "checks": ["a"]}), "the node and the checks exist"),
            (json!({"node": "n7"}), "the node exists"),
            (json!({"checks": ["a"]}), "the checks exist"),
            (json!({"node_checks": ["a"]}), "the checks exist"),
            (json!({"service_checks": ["a"]}), "the checks exist"),
            (json!({}), ""),
            (json!({"checks": []}), ""),
        ] {
            let mut options = given.clone();
            options["dry_run"] = true.into();
            let notes = apply(options, given.get("node").is_none().then(own_node)).unwrap().notes;
            let expected = (!unchecked.is_empty()).then(|| format!("a dry run does not check whether {unchecked}"));
            assert_eq!(notes, Vec::from_iter(expected), "{given}");
        }
    }
}

mod present_by_id {
    use super::*;

    fn options(more: Value) -> Value {
        let mut options = json!({"id": id(1)});
        more.as_object().unwrap().iter().for_each(|(key, value)| options[key] = value.clone());
        options
    }

    #[test]
    fn finds_a_session_that_matches() {
        for more in [json!({}), json!({"name": "web", "node": "N1", "delay": "15s", "ttl": 0, "checks": "serfHealth"})] {
            found(apply(options(more), [info_again(1).gives(json!([plain(1)]))]), 1);
        }
    }

    #[test]
    fn never_creates_because_consul_chooses_the_ids() {
        let result = apply(options(json!({})), [info_again(1).gives(json!([]))]);
        fails(result, &ErrorKind::NotFound, "exists: consul chooses the ids, so leave `id` out to create one");
        let result = apply(options(json!({})), [masked(info_again(1).gives(json!([])))]);
        fails(result, &ErrorKind::NotFound, "exists, or ACLs hide it: consul chooses the ids");
    }

    #[test]
    fn names_every_difference_with_any_on_mismatch() {
        for on_mismatch in ["fail", "replace"] {
            let wanted = json!({
                "name": "db", "node": "n2", "behavior": "delete", "delay": 1, "ttl": "1m", "checks": ["a"], "on_mismatch": on_mismatch,
            });
            let message = differs(
                apply(options(wanted), [info_again(1).gives(json!([plain(1)]))]),
                1,
                [
                    ("name", "web", "db"),
                    ("node", "n1", "n2"),
                    ("behavior", "release", "delete"),
                    ("delay", "15s", "1s"),
                    ("ttl", "none", "60s"),
                    ("checks", "serfHealth", "serfHealth, a"),
                ],
            );
            assert!(message.ends_with("sessions cannot be changed: a new one gets another id, so leave `id` out"), "{message}");
        }
    }
}

mod present_by_name {
    use super::*;

    #[test]
    fn creates_without_asking_for_the_node_if_no_session_is_seen() {
        let outcome = new(
            apply(json!({"name": "web"}), [list_again(json!([])), create("web").gives(made(1)), list_again(json!([plain(1)]))]),
            1,
        );
        assert_eq!(ids(&outcome.sessions), [id(1)]);
        assert_eq!(outcome.notes, [""; 0]);
    }

    #[test]
    fn reads_only_the_sessions_of_the_given_node() {
        let created = create_with(r#""Node":"n1","LockDelay":"15s","Behavior":"release""#).gives(made(1));
        let requests = [node(json!([])), created, node(json!([plain(1)]))];
        new(apply(json!({"name": "web", "node": "n1"}), requests), 1);
        found(apply(json!({"name": "web", "node": "n1"}), [node(json!([plain(1)]))]), 1);
    }

    #[test]
    fn finds_a_matching_session_on_the_agents_own_node() {
        for options in [json!({"name": "web"}), json!({"name": "web", "delay": 15, "behavior": "release", "ttl": 0})] {
            let outcome = found(apply(options, [list_again(json!([plain(1)])), own_node()]), 1);
            assert_eq!(outcome.notes, [""; 0]);
        }
    }

    #[test]
    fn returns_the_oldest_and_reports_the_others() {
        let sessions = json!([plain(5), session(4, json!({"LockDelay": 1})), plain(2), session(1, json!({"Name": "db"}))]);
        let outcome = found(apply(json!({"name": "web", "delay": 15}), [list_again(sessions), own_node()]), 2);
        assert_eq!(ids(&outcome.sessions), [id(2), id(4), id(5)]);
        assert_eq!(outcome.notes, [format!("other sessions have the same name: {}, {}", id(4), id(5))]);
    }

    #[test]
    fn younger_match_does_not_hide_that_the_oldest_differs() {
        let sessions = json!([session(1, json!({"LockDelay": 1_000_000_000})), plain(2)]);
        let result = apply(json!({"name": "web", "delay": 15}), [list_again(sessions), own_node()]);
        let message = differs(result, 1, [("delay", "1s", "15s")]);
        assert!(message.ends_with(&format!("; the younger session {} of that name matches", id(2))), "{message}");
    }

    #[test]
    fn ignores_sessions_of_other_nodes() {
        let elsewhere = json!([session(1, json!({"Node": "n2"}))]);
        let both = json!([session(1, json!({"Node": "n2"})), plain(2)]);
        let outcome = new(
            apply(json!({"name": "web"}), [list_again(elsewhere), own_node(), create("web").gives(made(2)), list_again(both)]),
            2,
        );
        assert_eq!(ids(&outcome.sessions), [id(2)]);
    }

    #[test]
    fn compares_names_of_nodes_regardless_of_case() {
        let sessions = json!([session(1, json!({"Node": "N1"}))]);
        found(apply(json!({"name": "web"}), [list_again(sessions.clone()), own_node()]), 1);
        found(apply(json!({"name": "web", "node": "n1"}), [node(sessions)]), 1);
    }

    #[test]
    fn compares_only_given_options() {
        let odd =
            json!({"LockDelay": -5_000_000_000_i64, "Behavior": "delete", "TTL": "1h", "NodeChecks": null, "Checks": ["old"]});
        found(apply(json!({"name": "web"}), [list_again(json!([session(1, odd)])), own_node()]), 1);
    }

    #[test]
    fn compares_durations_by_value_and_checks_as_sets() {
        let stored = json!({
            "LockDelay": 500_000_000, "TTL": "600s", "NodeChecks": ["b", "serfHealth"], "Checks": ["a"],
            "ServiceChecks": [{"ID": "s", "Namespace": ""}],
        });
        for options in [
            json!({"delay": 0.5, "ttl": "10m", "checks": ["s", "a", "b", "b"]}),
            json!({"delay": "500ms", "ttl": "600000ms", "checks": "serfHealth,a,b,s"}),
            json!({"node_checks": ["serfHealth", "a", "b"], "service_checks": ["s"]}),
            json!({"node_checks": ["a", "b", "serfHealth"]}),
            json!({"service_checks": ["s", "s"]}),
        ] {
            let mut options = options;
            options["name"] = "web".into();
            found(apply(options, [list_again(json!([session(1, stored.clone())])), own_node()]), 1);
        }
        for ttl in ["", "0", "0s", "0m"] {
            let stored = session(1, json!({"TTL": ttl, "NodeChecks": null}));
            found(apply(json!({"name": "web", "ttl": 0, "checks": []}), [list_again(json!([stored])), own_node()]), 1);
        }
    }

    #[test]
    fn mismatch_error_names_each_field_found_and_wanted() {
        let stored = json!({"LockDelay": 90_000_000_500_i64, "TTL": "soon", "NodeChecks": [], "ServiceChecks": [{"ID": "s"}]});
        let requests = || [list_again(json!([session(1, stored.clone())])), own_node()];
        let message = differs(
            apply(json!({"name": "web", "delay": 20, "ttl": 30, "checks": []}), requests()),
            1,
            [("delay", "90000000500ns", "20s"), ("ttl", "soon", "30s"), ("checks", "s", "none")],
        );
        assert!(message.contains("on_mismatch=replace creates a new one and destroys it"), "{message}");
        differs(
            apply(json!({"name": "web", "node_checks": ["a"], "service_checks": [], "ttl": 0}), requests()),
            1,
            [("ttl", "soon", "none"), ("node_checks", "none", "a"), ("service_checks", "s", "none")],
        );
    }

    #[test]
    fn mismatch_error_describes_the_oldest_and_counts_the_others() {
        let stored = |number| session(number, json!({"LockDelay": 1_000_000_000}));
        let requests = [list_again(json!([stored(3), stored(1), stored(2)])), own_node()];
        let message = differs(apply(json!({"name": "web", "delay": 2}), requests), 1, [("delay", "1s", "2s")]);
        assert!(message.ends_with("; 2 more of that name differ too"), "{message}");
    }

    #[test]
    fn creates_before_it_destroys_every_session_that_differs() {
        let new_one = session(3, json!({"Behavior": "delete"}));
        let created = create_with(r#""LockDelay":"15s","Behavior":"delete","NodeChecks":["serfHealth"]"#).gives(made(3));
        let requests = [
            list_again(json!([plain(1), plain(2)])),
            own_node(),
            created,
            list_again(json!([plain(1), plain(2), new_one])),
            destroy(2).gives(json!(true)),
            destroy(1).gives(json!(true)),
            list_again(json!([new_one])),
        ];
        let outcome = new(apply(json!({"name": "web", "behavior": "delete", "on_mismatch": "replace"}), requests), 3);
        assert_eq!(outcome.destroyed, [id(1), id(2)]);
        let note = format!("replaces {}, {}: locks held there are freed under its lock delay (15s, 15s)", id(1), id(2));
        assert_eq!(outcome.notes, [note]);
        let diff = outcome.diff.unwrap();
        assert_eq!((ids(&diff.before), ids(&diff.after)), (vec![id(1).as_str(), id(2).as_str()], vec![id(3).as_str()]));
    }

    /// The oldest session of the name has these properties, and its replacement is created with those.
    #[test]
    fn replacement_has_what_was_not_given_from_the_session_that_it_replaces() {
        let old = json!({
            "LockDelay": -1_500_000_000_i64, "Behavior": "delete", "TTL": "10m", "NodeChecks": ["serfHealth", "a"],
            "Checks": ["a", "b"], "ServiceChecks": [{"ID": "s", "Namespace": "n"}, {"ID": "t", "Namespace": ""}],
        });
        let (nodes, services) =
            (r#""NodeChecks":["serfHealth","a","b"]"#, r#""ServiceChecks":[{"ID":"s","Namespace":"n"},{"ID":"t"}]"#);
        let base = r#""LockDelay":"-1500ms","Behavior":"delete","TTL":"10m""#;
        for (given, created, new) in [
            (
                json!({"delay": 1}),
                format!(r#""LockDelay":"1s","Behavior":"delete","TTL":"10m",{nodes},{services}"#),
                json!({"LockDelay": 1_000_000_000}),
            ),
            (
                json!({"behavior": "release"}),
                format!(r#""LockDelay":"-1500ms","Behavior":"release","TTL":"10m",{nodes},{services}"#),
                json!({"Behavior": "release"}),
            ),
            (json!({"ttl": 0}), format!(r#""LockDelay":"-1500ms","Behavior":"delete",{nodes},{services}"#), json!({"TTL": ""})),
            // `checks` stands for all lists, each of the others for itself.
            (
                json!({"checks": "c"}),
                format!(r#"{base},"NodeChecks":["serfHealth","c"]"#),
                json!({"NodeChecks": ["serfHealth", "c"], "Checks": [], "ServiceChecks": []}),
            ),
            (
                json!({"node_checks": []}),
                format!(r#"{base},"NodeChecks":[],{services}"#),
                json!({"NodeChecks": [], "Checks": []}),
            ),
            (
                json!({"service_checks": "u"}),
                format!(r#"{base},{nodes},"ServiceChecks":[{{"ID":"u"}}]"#),
                json!({"ServiceChecks": [{"ID": "u"}]}),
            ),
        ] {
            let mut options = given.clone();
            options["name"] = "web".into();
            options["on_mismatch"] = "replace".into();
            let old = session(1, old.clone());
            // Consul keeps the legacy list apart.
            let mut merged = old.clone();
            if given["checks"].is_null() && given["node_checks"].is_null() {
                merged["NodeChecks"] = json!(["serfHealth", "a", "b"]);
                merged["Checks"] = json!([]);
            }
            for (field, value) in new.as_object().unwrap() {
                merged[field] = value.clone();
            }
            merged["ID"] = id(2).into();
            merged["CreateIndex"] = 2.into();
            let requests = [
                list_again(json!([old])),
                own_node(),
                create_with(&created).gives(made(2)),
                list_again(json!([old, merged])),
                destroy(1).gives(json!(true)),
                list_again(json!([merged])),
            ];
            let outcome = self::new(apply(options.clone(), requests), 2);
            assert_eq!(outcome.destroyed, [id(1)], "{given}");
            // A dry run shows the same.
            options["dry_run"] = true.into();
            let planned = apply(options, [list_again(json!([old])), own_node()]).unwrap();
            let (planned, made) = (&planned.diff.unwrap().after[0], &outcome.diff.unwrap().after[0]);
            let properties = |session: &Session| (session.lock_delay, session.behavior.clone(), session.ttl.clone());
            assert_eq!(properties(planned), properties(made), "{given}");
            assert_eq!((planned.all_checks(), &planned.node), (made.all_checks(), &made.node), "{given}");
        }
    }

    /// No checks at all stay no checks, and no TTL stays none: Consul's defaults differ.
    #[test]
    fn replacement_keeps_that_there_were_no_checks() {
        let fields = json!({"NodeChecks": null, "ServiceChecks": null, "TTL": "", "LockDelay": 0});
        let (old, mut new_one) = (session(1, fields.clone()), session(2, fields));
        new_one["Behavior"] = "delete".into();
        let requests = [
            list_again(json!([old])),
            own_node(),
            create_with(r#""LockDelay":"0s","Behavior":"delete","NodeChecks":[]"#).gives(made(2)),
            list_again(json!([old, new_one])),
            destroy(1).gives(json!(true)),
            list_again(json!([new_one])),
        ];
        new(apply(json!({"name": "web", "behavior": "delete", "on_mismatch": "replace"}), requests), 2);
    }

    /// A younger session that lacks what the oldest has was not created to replace it.
    #[test]
    fn younger_session_without_the_other_properties_is_replaced_too() {
        let old = session(1, json!({"TTL": "30s"}));
        let younger = session(2, json!({"LockDelay": 1_000_000_000}));
        let new_one = session(3, json!({"LockDelay": 1_000_000_000, "TTL": "30s"}));
        let requests = [
            list_again(json!([old, younger])),
            own_node(),
            create_with(r#""LockDelay":"1s","Behavior":"release","TTL":"30s","NodeChecks":["serfHealth"]"#).gives(made(3)),
            list_again(json!([old, younger, new_one])),
            destroy(2).gives(json!(true)),
            destroy(1).gives(json!(true)),
            list_again(json!([new_one])),
        ];
        let outcome = new(apply(json!({"name": "web", "delay": 1, "on_mismatch": "replace"}), requests), 3);
        assert_eq!(outcome.destroyed, [id(1), id(2)]);
    }

    /// Another caller replaced the old session at the same moment, and gave another option. What it
    /// gave is not lost.
    #[test]
    fn replacement_of_another_session_than_before_is_created_anew() {
        let old = plain(1);
        let theirs = session(2, json!({"TTL": "30s"}));
        let mine = session(3, json!({"LockDelay": 1_000_000_000}));
        let again = session(4, json!({"LockDelay": 1_000_000_000, "TTL": "30s"}));
        let requests = [
            list_again(json!([old])),
            own_node(),
            create_with(r#""LockDelay":"1s","Behavior":"release","NodeChecks":["serfHealth"]"#).gives(made(3)),
            list_again(json!([theirs, mine])),
            list_again(json!([theirs, mine])),
            destroy(3).gives(json!(true)),
            list_again(json!([theirs])),
            create_with(r#""LockDelay":"1s","Behavior":"release","TTL":"30s","NodeChecks":["serfHealth"]"#).gives(made(4)),
            list_again(json!([theirs, again])),
            destroy(2).gives(json!(true)),
            list_again(json!([again])),
        ];
        let outcome = new(apply(json!({"name": "web", "delay": 1, "on_mismatch": "replace"}), requests), 4);
        assert_eq!(outcome.destroyed, [id(2)]);
    }

    #[test]
    fn ttl_of_a_session_that_was_found_is_noted() {
        let note = "its ttl of 30s is running: unless it is renewed, consul ends it within 60s, or later if the leader changes";
        let with_ttl = session(1, json!({"TTL": "30s"}));
        for options in [json!({"name": "web"}), json!({"name": "web", "dry_run": true})] {
            let outcome = found(apply(options, [list_again(json!([with_ttl])), own_node()]), 1);
            assert_eq!(outcome.notes, [note]);
        }
        let outcome = found(apply(json!({"id": id(1)}), [info_again(1).gives(json!([with_ttl]))]), 1);
        assert_eq!(outcome.notes, [note]);
        // The TTL of a new one has just begun, and its caller gave it.
        let created = create_with(r#""LockDelay":"15s","Behavior":"release","TTL":"30s""#).gives(made(1));
        let requests = [list_again(json!([])), created, list_again(json!([with_ttl]))];
        assert_eq!(new(apply(json!({"name": "web", "ttl": 30}), requests), 1).notes, [""; 0]);
        for ttl in ["0s", "soon"] {
            let requests = [list_again(json!([session(1, json!({"TTL": ttl}))])), own_node()];
            assert_eq!(found(apply(json!({"name": "web"}), requests), 1).notes, [""; 0]);
        }
    }

    /// A replacement that was interrupted between its creation and its destructions. The second look
    /// leaves its caller time to finish it.
    #[test]
    fn finishes_a_replacement_that_was_interrupted() {
        let both = json!([session(1, json!({"Behavior": "delete"})), plain(2), plain(3)]);
        let options = json!({"name": "web", "behavior": "release", "on_mismatch": "replace"});
        let requests = || [list_again(both.clone()), own_node(), list_again(both.clone()), destroy(1).gives(json!(true))];
        let finished = requests().into_iter().chain([list_again(json!([plain(2), plain(3)]))]);
        let outcome = new(apply(options.clone(), finished), 2);
        assert_eq!(outcome.destroyed, [id(1)]);
        assert_eq!(outcome.notes[1], format!("other sessions have the same name: {}", id(3)));
        let diff = outcome.diff.unwrap();
        assert_eq!((ids(&diff.before), ids(&diff.after)), (vec![id(1).as_str(), id(2).as_str()], vec![id(2).as_str()]));
        let finished_by_its_caller = [list_again(both.clone()), own_node(), list_again(json!([plain(2)]))];
        found(apply(options.clone(), finished_by_its_caller), 2);
        let mut dry = options.clone();
        dry["dry_run"] = true.into();
        let planned = new(apply(dry, [list_again(both.clone()), own_node()]), 2);
        assert_eq!(ids(&planned.sessions), [id(2), id(3)]);
        assert_eq!(planned.destroyed, [id(1)]);
        let unseen = requests().into_iter().chain([get("/v1/session/list?consistent").fails(ErrorKind::Timeout)]);
        let text = format!("destroyed: {}; do the same again, which finishes it", id(1));
        fails(apply(options, unseen), &ErrorKind::OutcomeUnknown, &text);
    }

    /// Consul says of a session that it is destroyed, and shows it afterwards.
    #[test]
    fn destroys_again_what_is_still_there() {
        let new_one = session(2, json!({"Behavior": "delete"}));
        let requests = [
            list_again(json!([plain(1)])),
            own_node(),
            create_with(r#""LockDelay":"15s","Behavior":"delete","NodeChecks":["serfHealth"]"#).gives(made(2)),
            list_again(json!([plain(1), new_one])),
            destroy(1).gives(json!(true)),
            list_again(json!([plain(1), new_one])),
            destroy(1).gives(json!(true)),
            list_again(json!([new_one])),
        ];
        let outcome = new(apply(json!({"name": "web", "behavior": "delete", "on_mismatch": "replace"}), requests), 2);
        assert_eq!(outcome.destroyed, [id(1)]);
    }

    #[test]
    fn keeps_the_old_session_if_the_new_one_is_refused() {
        let created = create_with(r#""LockDelay":"15s","Behavior":"release","NodeChecks":["serfHealth","dne"]"#);
        let refused = created.says(500, "apply failed: Missing check 'dne' registration");
        let options = json!({"name": "web", "checks": "dne", "on_mismatch": "replace"});
        fails(apply(options, [list_again(json!([plain(1)])), own_node(), refused]), &ErrorKind::UnknownCheck, "'dne'");
    }

    #[test]
    fn error_lists_destroyed_and_remaining_sessions() {
        let new_one = session(3, json!({"LockDelay": 0}));
        let requests = |second: Exchange| {
            [
                list_again(json!([plain(1), plain(2)])),
                own_node(),
                create_with(r#""LockDelay":"0s","Behavior":"release","NodeChecks":["serfHealth"]"#).gives(made(3)),
                list_again(json!([plain(1), plain(2), new_one.clone()])),
                destroy(2).gives(json!(true)),
                second,
            ]
        };
        let options = json!({"name": "web", "delay": 0, "on_mismatch": "replace"});
        let result = apply(options, requests(destroy(1).says(403, "Permission denied")));
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied { status: 403 });
        let end = format!("destroyed: {}; not destroyed: {}; session {} was created to replace it", id(2), id(1), id(3));
        assert!(error.message.ends_with(&end), "{error}");
    }

    #[test]
    fn error_lists_sessions_that_were_destroyed_before() {
        let kept = session(3, json!({"LockDelay": 0}));
        let requests = [
            list_again(json!([plain(1), kept.clone()])),
            own_node(),
            list_again(json!([plain(1), kept.clone()])),
            destroy(1).gives(json!(true)),
            // Another caller's.
            list_again(json!([plain(2), kept])),
            destroy(2).says(403, "Permission denied"),
        ];
        let error = apply(json!({"name": "web", "delay": 0, "on_mismatch": "replace"}), requests).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied { status: 403 });
        let role = format!("session {} is there to replace it", id(3));
        let end = format!("not destroyed: {}; {role}; destroyed before: {}", id(2), id(1));
        assert!(error.message.ends_with(&end), "{error}");
    }

    #[test]
    fn later_of_two_callers_destroys_its_own_session_and_returns_the_other() {
        let requests = [
            list_again(json!([])),
            create("web").gives(made(2)),
            list_again(json!([plain(2), plain(1)])),
            list_again(json!([plain(2), plain(1)])),
            destroy(2).gives(json!(true)),
            list_again(json!([plain(1)])),
        ];
        let outcome = found(apply(json!({"name": "web"}), requests), 1);
        assert_eq!(ids(&outcome.sessions), [id(1)]);
        assert_eq!(outcome.notes, ["another caller created it at the same moment"]);
    }

    #[test]
    fn later_of_two_callers_reports_that_its_own_session_remains() {
        let requests = [
            list_again(json!([])),
            create("web").gives(made(2)),
            list_again(json!([plain(1), plain(2)])),
            list_again(json!([plain(1), plain(2)])),
            destroy(2).fails(ErrorKind::Unreachable),
        ];
        let stays = format!("session {} stays beside the older {} of the same name", id(2), id(1));
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::Unreachable, &stays);
    }

    #[test]
    fn later_of_two_callers_with_other_options_fails_with_a_mismatch() {
        let other = session(1, json!({"LockDelay": 1_000_000_000}));
        let mine = session(2, json!({"LockDelay": 2_000_000_000}));
        let created = create_with(r#""LockDelay":"2s","Behavior":"release""#).gives(made(2));
        let requests = [
            list_again(json!([])),
            created,
            list_again(json!([other, mine])),
            list_again(json!([other, mine])),
            destroy(2).gives(json!(true)),
            list_again(json!([other])),
        ];
        differs(apply(json!({"name": "web", "delay": 2}), requests), 1, [("delay", "1s", "2s")]);
    }

    #[test]
    fn later_of_two_callers_keeps_its_session_if_the_other_vanishes() {
        let requests = [
            list_again(json!([])),
            create("web").gives(made(2)),
            list_again(json!([plain(1), plain(2)])),
            list_again(json!([plain(2)])),
        ];
        new(apply(json!({"name": "web"}), requests), 2);
    }

    /// The other caller is probably about to create one.
    #[test]
    fn waits_before_it_replaces_what_another_caller_removed() {
        let requests = [
            list_again(json!([])),
            create("web").gives(made(1)),
            list_again(json!([])),
            create("web").gives(made(2)),
            list_again(json!([plain(2)])),
        ];
        let (result, pauses) = apply_with_pauses(json!({"name": "web"}), requests);
        new(result, 2);
        assert_eq!(pauses, [200]);
    }

    #[test]
    fn does_not_wait_after_it_destroyed_its_own_session() {
        let requests = [
            list_again(json!([])),
            create("web").gives(made(2)),
            list_again(json!([plain(1), plain(2)])),
            list_again(json!([plain(1), plain(2)])),
            destroy(2).gives(json!(true)),
            list_again(json!([plain(1)])),
        ];
        let (result, pauses) = apply_with_pauses(json!({"name": "web"}), requests);
        found(result, 1);
        assert_eq!(pauses, [0; 0]);
    }

    #[test]
    fn refused_creation_names_the_sessions_destroyed_before_it() {
        let refused = |fields: &str| create_with(fields).says(500, "No cluster leader");
        let error = apply(json!({"name": "web"}), [list_again(json!([])), create("web").says(500, "No cluster leader")]);
        assert!(error.unwrap_err().message.ends_with(": try again later"));
        let fields = r#""LockDelay":"1s","Behavior":"release","NodeChecks":["serfHealth"]"#;
        let requests = [
            list_again(json!([plain(1)])),
            own_node(),
            create_with(fields).gives(made(2)),
            list_again(json!([plain(1), session(2, json!({"LockDelay": 1_000_000_000}))])),
            destroy(1).gives(json!(true)),
            list_again(json!([])),
            refused(r#""LockDelay":"1s","Behavior":"release""#),
        ];
        let error = apply(json!({"name": "web", "delay": 1, "on_mismatch": "replace"}), requests).unwrap_err();
        assert!(error.message.ends_with(&format!(": try again later; destroyed before: {}", id(1))), "{error}");
    }

    #[test]
    fn starts_over_if_the_new_session_no_longer_exists() {
        let gone = |number| [create("web").gives(made(number)), list_again(json!([]))];
        let requests = [list_again(json!([]))].into_iter().chain(gone(1));
        let again = requests.chain([create("web").gives(made(2)), list_again(json!([plain(2)]))]);
        new(apply(json!({"name": "web"}), again), 2);
        let requests = [list_again(json!([]))].into_iter().chain(gone(1)).chain(gone(2)).chain(gone(3));
        let text = format!("did not settle: {}, {}, {} were created, and none stayed", id(1), id(2), id(3));
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::Other, &text);
    }

    #[test]
    fn unverified_creation_is_reported_with_its_id() {
        for case in [ErrorKind::Timeout, ErrorKind::Unreachable, ErrorKind::InvalidResponse] {
            let requests =
                [list_again(json!([])), create("web").gives(made(1)), get("/v1/session/list?consistent").fails(case)];
            let text = format!("session {} was created, but whether another caller", id(1));
            fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, &text);
        }
    }

    #[test]
    fn dry_run_shows_the_planned_changes() {
        let outcome = apply(json!({"name": "web", "dry_run": true}), [list_again(json!([])), own_node()]).unwrap();
        assert!(outcome.changed && outcome.session_id().is_none() && outcome.destroyed.is_empty());
        let planned = outcome.session.unwrap();
        assert_eq!((planned.name.as_str(), planned.node.as_str()), ("web", "n1"));
        let options = json!({"name": "web", "delay": 0, "on_mismatch": "replace", "dry_run": true});
        let outcome = apply(options, [list_again(json!([plain(1)])), own_node()]).unwrap();
        assert!(outcome.changed && outcome.session_id().is_none());
        assert_eq!(outcome.destroyed, [id(1)]);
        assert_eq!(outcome.session.unwrap().node, "n1");
        found(apply(json!({"name": "web", "dry_run": true}), [list_again(json!([plain(1)])), own_node()]), 1);
        let options = json!({"name": "web", "delay": 0, "dry_run": true});
        differs(apply(options, [list_again(json!([plain(1)])), own_node()]), 1, [("delay", "15s", "0s")]);
    }
}

mod present_by_name_without_agent_read {
    use super::*;

    #[test]
    fn creates_first_and_returns_the_earlier_session_of_its_own_node() {
        let requests = [
            list_again(json!([plain(1)])),
            own_node_denied(),
            create("web").gives(made(2)),
            list_again(json!([plain(1), plain(2)])),
            list_again(json!([plain(1), plain(2)])),
            destroy(2).gives(json!(true)),
            list_again(json!([plain(1)])),
        ];
        let outcome = found(apply(json!({"name": "web"}), requests), 1);
        assert_eq!(outcome.notes, [""; 0], "there was no concurrent caller");
    }

    #[test]
    fn keeps_its_own_session_if_the_others_are_on_other_nodes() {
        let other = session(1, json!({"Node": "n2"}));
        let requests =
            [list_again(json!([other])), own_node_denied(), create("web").gives(made(2)), list_again(json!([other, plain(2)]))];
        new(apply(json!({"name": "web"}), requests), 2);
    }

    /// Expects the creation of session 2, and listings with session 1 on the same node with another
    /// delay.
    fn creates_beside_a_mismatch(listings: usize) -> (Vec<Exchange>, Value) {
        let mine = session(2, json!({"LockDelay": 1_000_000_000}));
        let created = create_with(r#""LockDelay":"1s","Behavior":"release""#).gives(made(2));
        let mut requests = vec![list_again(json!([plain(1)])), own_node_denied(), created];
        requests.extend((0..listings).map(|_| list_again(json!([plain(1), mine]))));
        (requests, mine)
    }

    #[test]
    fn mismatch_fails_and_leaves_no_new_session() {
        let (mut requests, _) = creates_beside_a_mismatch(2);
        requests.extend([destroy(2).gives(json!(true)), list_again(json!([plain(1)]))]);
        let message = differs(apply(json!({"name": "web", "delay": 1}), requests), 1, [("delay", "15s", "1s")]);
        assert!(!message.contains("of that name"), "there is no other: {message}");
    }

    #[test]
    fn replaces_a_session_that_differs() {
        let (mut requests, mine) = creates_beside_a_mismatch(1);
        requests.extend([destroy(1).gives(json!(true)), list_again(json!([mine]))]);
        let outcome = new(apply(json!({"name": "web", "delay": 1, "on_mismatch": "replace"}), requests), 2);
        assert_eq!(outcome.destroyed, [id(1)]);
    }

    #[test]
    fn dry_run_requires_the_node() {
        let sessions = json!([plain(1), session(2, json!({"Node": "n2"})), session(3, json!({"Node": "n2"}))]);
        let result = apply(json!({"name": "web", "dry_run": true}), [list_again(sessions), own_node_denied()]);
        let nodes = vec!["n1".into(), "n2".into()];
        fails(result, &ErrorKind::NodeRequired { nodes }, "give `node`; sessions of that name were seen on n1, n2");
    }

    #[test]
    fn returns_other_errors_of_agent_self() {
        let broken = || get("/v1/agent/self").says(500, "No cluster leader");
        let result = apply(json!({"name": "web"}), [list_again(json!([plain(1)])), broken()]);
        fails(result, &ErrorKind::Unavailable { status: 500 }, "No cluster leader");
        let result = apply(json!({"name": "web", "state": "absent"}), [list_again(json!([plain(1)])), broken()]);
        fails(result, &ErrorKind::Unavailable { status: 500 }, "No cluster leader");
    }
}

mod creation_by_name_without_answer {
    use super::*;

    fn lost() -> Exchange {
        create("web").fails(ErrorKind::InvalidResponse)
    }

    const NOTE: &str = "the answer to the creation was lost (no answer: invalid-response): the session found afterwards may be \
                        another caller's, and a younger one of this call may exist, or appear later";

    #[test]
    fn is_searched_and_found() {
        let requests = [list_again(json!([])), lost(), list_again(json!([plain(1)])), own_node()];
        assert_eq!(new(apply(json!({"name": "web"}), requests), 1).notes, [NOTE]);
    }

    /// A write that is carried out later than the next look.
    #[test]
    fn is_searched_twice() {
        let requests = [list_again(json!([])), lost(), list_again(json!([])), list_again(json!([plain(1)])), own_node()];
        assert_eq!(new(apply(json!({"name": "web"}), requests), 1).notes, [NOTE]);
    }

    #[test]
    fn is_found_on_the_given_node() {
        let options = json!({"name": "web", "node": "n1"});
        let created = create_with(r#""Node":"n1","LockDelay":"15s","Behavior":"release""#).says(502, "");
        new(apply(options, [node(json!([])), created, node(json!([plain(1)]))]), 1);
    }

    #[test]
    fn continues_with_the_replacement() {
        let created =
            create_with(r#""LockDelay":"1s","Behavior":"release","NodeChecks":["serfHealth"]"#).fails(ErrorKind::Other);
        let mine = session(2, json!({"LockDelay": 1_000_000_000}));
        let all = json!([plain(1), mine]);
        let requests = [
            list_again(json!([plain(1)])),
            own_node(),
            created,
            list_again(all.clone()),
            list_again(all),
            destroy(1).gives(json!(true)),
            list_again(json!([mine])),
        ];
        let outcome = new(apply(json!({"name": "web", "delay": 1, "on_mismatch": "replace"}), requests), 2);
        assert_eq!(outcome.destroyed, [id(1)]);
    }

    /// No look proves that a lost write does not follow.
    #[test]
    fn is_unknown_if_it_is_not_found() {
        let others = || json!([session(1, json!({"Node": "n2"})), session(4, json!({"Name": "db"}))]);
        let requests = [list_again(others()), own_node(), lost(), list_again(others()), list_again(others())];
        let text = "the creation of the session may have happened: look before trying again";
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, text);
        let refused = create("web").says(500, "rpc error making call: EOF");
        let requests = [list_again(json!([])), refused, list_again(json!([])), list_again(json!([]))];
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, text);
    }

    #[test]
    fn is_unknown_beside_a_mismatch() {
        let other = json!([session(3, json!({"LockDelay": 2_000_000_000}))]);
        let created = create_with(r#""LockDelay":"1s","Behavior":"release""#).fails(ErrorKind::InvalidResponse);
        let requests = [list_again(json!([])), created, list_again(other), own_node()];
        let text = format!("session {} differs from the options: delay is 2s, not 1s", id(3));
        fails(apply(json!({"name": "web", "delay": 1}), requests), &ErrorKind::OutcomeUnknown, &text);
    }

    #[test]
    fn is_unknown_if_it_cannot_be_searched() {
        let text = "the creation of the session may have happened";
        let requests = [list_again(json!([])), lost(), get("/v1/session/list?consistent").fails(ErrorKind::Timeout)];
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, text);
        let again = || list_again(json!([plain(1)]));
        let requests = [list_again(json!([])), lost(), again(), own_node_denied(), again()];
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, text);
        let requests = [list_again(json!([])), lost(), again(), get("/v1/agent/self").fails(ErrorKind::Timeout)];
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, text);
        let both = || list_again(json!([plain(1), plain(2)]));
        let requests = [again(), own_node_denied(), lost(), both(), both()];
        fails(apply(json!({"name": "web"}), requests), &ErrorKind::OutcomeUnknown, text);
    }
}

mod absent_by_id {
    use super::*;

    fn options(more: Value) -> Value {
        let mut options = json!({"state": "absent", "id": id(1)});
        more.as_object().unwrap().iter().for_each(|(key, value)| options[key] = value.clone());
        options
    }

    #[test]
    fn destroys_an_existing_session() {
        let gone_now = || info_again(1).gives(json!([]));
        let requests = [info_again(1).gives(json!([plain(1)])), destroy(1).gives(json!(true)), gone_now()];
        gone(apply(options(json!({})), requests), [1]);
    }

    #[test]
    fn sends_the_destruction_of_an_unseen_session_that_acls_might_hide() {
        gone(apply(options(json!({})), [info_again(1).gives(json!([])), destroy(1).gives(json!(true))]), []);
        let denied = destroy(1).says(403, "Permission denied: anonymous token lacks permission 'session:write' on \"n1\".");
        let result = apply(options(json!({})), [info_again(1).gives(json!([])), denied]);
        fails(
            result,
            &ErrorKind::AccessDenied { status: 403 },
            &format!("session {} exists, but ACLs hide it from reads", id(1)),
        );
        for blocked in ["Access is restricted", "Endpoint is blocked by agent configuration"] {
            let result = apply(options(json!({})), [info_again(1).gives(json!([])), destroy(1).says(403, blocked)]);
            assert!(!result.unwrap_err().message.contains("exists"), "this is not known");
        }
        let result = apply(options(json!({})), [info_again(1).gives(json!([])), destroy(1).says(500, "No cluster leader")]);
        fails(result, &ErrorKind::Unavailable { status: 500 }, "No cluster leader");
    }

    #[test]
    fn destroys_no_session_with_another_name_or_node() {
        let read = || info_again(1).gives(json!([plain(1)]));
        let message = differs(apply(options(json!({"name": "db"})), [read()]), 1, [("name", "web", "db")]);
        assert!(message.ends_with("nothing was destroyed; check which session is meant"), "{message}");
        differs(apply(options(json!({"node": "n2"})), [read()]), 1, [("node", "n1", "n2")]);
        // Options that only describe a new session are not compared.
        let requests = [read(), destroy(1).gives(json!(true)), info_again(1).gives(json!([]))];
        gone(apply(options(json!({"name": "web", "delay": 1})), requests), [1]);
    }

    #[test]
    fn writes_nothing_in_a_dry_run() {
        let dry = || options(json!({"dry_run": true}));
        gone(apply(dry(), [info_again(1).gives(json!([plain(1)]))]), [1]);
        gone(apply(dry(), [info_again(1).gives(json!([]))]), []);
        for read in [masked(info_again(1).gives(json!([]))), filtered(info_again(1).gives(json!([])))] {
            fails(apply(dry(), [read]), &ErrorKind::Hidden, "ACLs may hide it: give a `token` that can read it");
        }
    }
}

mod absent_by_name {
    use super::*;

    fn web() -> Value {
        json!({"state": "absent", "name": "web"})
    }

    fn web_on_n1() -> Value {
        json!({"state": "absent", "name": "web", "node": "n1"})
    }

    #[test]
    fn destroys_every_session_of_the_name_on_the_agents_own_node() {
        let sessions = json!([plain(3), session(1, json!({"Node": "n2"})), plain(2), session(4, json!({"Name": "db"}))]);
        let requests = [
            list_again(sessions),
            own_node(),
            destroy(3).gives(json!(true)),
            destroy(2).gives(json!(true)),
            node(json!([session(4, json!({"Name": "db"}))])),
        ];
        gone(apply(web(), requests), [2, 3]);
    }

    #[test]
    fn destroys_every_session_of_the_name_on_the_given_node() {
        let other = session(2, json!({"Name": "db"}));
        let requests = [node(json!([plain(1), other])), destroy(1).gives(json!(true)), node(json!([other]))];
        gone(apply(web_on_n1(), requests), [1]);
    }

    /// A new leader says that a session is destroyed which it does not know yet.
    #[test]
    fn destroys_again_what_is_still_there() {
        let there = || node(json!([plain(1)]));
        let done = || destroy(1).gives(json!(true));
        gone(apply(web_on_n1(), [there(), done(), there(), done(), node(json!([]))]), [1]);
        let unseen = get("/v1/session/node/n1?consistent").fails(ErrorKind::Timeout);
        let text = format!("destroyed: {}, but whether they are gone could not be checked", id(1));
        fails(apply(web_on_n1(), [there(), done(), unseen]), &ErrorKind::OutcomeUnknown, &text);
        let requests = [there(), done(), there(), done(), there(), done(), there(), done()];
        fails(apply(web_on_n1(), requests), &ErrorKind::OutcomeUnknown, "consul lists sessions that it says are destroyed");
    }

    #[test]
    fn error_of_a_second_destruction_lists_what_the_first_destroyed() {
        let both = || node(json!([plain(1), plain(2)]));
        let done = |number| destroy(number).gives(json!(true));
        let refused = destroy(1).says(500, "No cluster leader");
        let result = apply(web_on_n1(), [both(), done(2), done(1), node(json!([plain(1)])), refused]);
        let end = format!("not destroyed: {}; destroyed before: {}", id(1), id(2));
        fails(result, &ErrorKind::Unavailable { status: 500 }, &end);
    }

    #[test]
    fn succeeds_if_no_session_exists() {
        gone(apply(web(), [list_again(json!([session(1, json!({"Name": "db"}))]))]), []);
        gone(apply(web(), [list_again(json!([session(1, json!({"Node": "n2"}))])), own_node()]), []);
        gone(apply(web_on_n1(), [node(json!([]))]), []);
    }

    #[test]
    fn writes_nothing_in_a_dry_run() {
        let dry = json!({"state": "absent", "name": "web", "dry_run": true});
        gone(apply(dry, [list_again(json!([plain(1), plain(2)])), own_node()]), [1, 2]);
    }

    #[test]
    fn requires_the_node_without_agent_read() {
        let result = apply(web(), [list_again(json!([plain(1), session(2, json!({"Node": "n2"}))])), own_node_denied()]);
        fails(
            result,
            &ErrorKind::NodeRequired { nodes: vec!["n1".into(), "n2".into()] },
            "give `node`; sessions of that name were seen on",
        );
        let result = apply(web(), [masked(list_again(json!([]))), own_node_denied()]);
        fails(result, &ErrorKind::NodeRequired { nodes: Vec::new() }, "give `node`; none of that name can be seen");
    }

    #[test]
    fn verifies_a_filtered_listing_of_all_nodes() {
        // A token for one node gets a filtered list, which is normal. For that node the list is
        // complete.
        gone(apply(web(), [filtered(list_again(json!([]))), own_node(), node(json!([]))]), []);
        let destroyed = || [destroy(1).gives(json!(true)), node(json!([]))];
        let requests = [filtered(list_again(json!([]))), own_node(), node(json!([plain(1)]))];
        gone(apply(web(), requests.into_iter().chain(destroyed())), [1]);
        // If one session of a node is visible, all of them are.
        let requests = [filtered(list_again(json!([plain(1)]))), own_node()];
        gone(apply(web(), requests.into_iter().chain(destroyed())), [1]);
        let result = apply(web(), [filtered(list_again(json!([]))), own_node(), filtered(node(json!([])))]);
        fails(
            result,
            &ErrorKind::Hidden,
            "no session named `web` can be seen on node `n1`, but there may be one: ACLs hide the sessions",
        );
    }

    #[test]
    fn asks_for_the_permission_to_read_without_a_token() {
        gone(apply(web_on_n1(), [masked(node(json!([]))), may_read(true)]), []);
        let result = apply(web_on_n1(), [masked(node(json!([]))), may_read(false)]);
        fails(
            result,
            &ErrorKind::Hidden,
            "without a token the sessions of this node cannot be read; give a `token` with session:read",
        );
        let refused = post("/v1/internal/acl/authorize")
            .body(r#"[{"Resource":"session","Access":"read","Segment":"n1"}]"#)
            .says(403, "Endpoint is blocked by agent configuration");
        fails(
            apply(web_on_n1(), [masked(node(json!([]))), refused]),
            &ErrorKind::Hidden,
            "could not be checked: consul answered 403",
        );
        gone(apply(web(), [masked(list_again(json!([]))), own_node(), masked(node(json!([]))), may_read(true)]), []);
    }

    #[test]
    fn error_lists_the_sessions_destroyed_before_it() {
        let sessions = || node(json!([plain(1), plain(2), plain(3)]));
        let refused = || destroy(2).says(500, "No cluster leader");
        let result = apply(web_on_n1(), [sessions(), destroy(3).gives(json!(true)), refused()]);
        let end = format!("destroyed: {}; not destroyed: {}, {}", id(3), id(1), id(2));
        fails(result, &ErrorKind::Unavailable { status: 500 }, &end);
        let result = apply(web_on_n1(), [sessions(), destroy(3).says(500, "No cluster leader")]);
        let end = format!("try again later; not destroyed: {}, {}, {}", id(1), id(2), id(3));
        fails(result, &ErrorKind::Unavailable { status: 500 }, &end);
    }

    #[test]
    fn destroys_no_session_whose_id_is_not_a_uuid() {
        let result = apply(web_on_n1(), [node(json!([session(1, json!({"ID": "../kv/x"}))]))]);
        fails(result, &ErrorKind::InvalidResponse, "consul lists a session whose id is not a UUID: ../kv/x");
    }
}

mod reads {
    use super::*;

    #[track_caller]
    fn reads<const N: usize>(options: Value, request: Exchange, numbers: [u64; N]) -> Outcome {
        let outcome = apply(options, [request]).unwrap();
        assert!(!outcome.changed && outcome.diff.is_none() && outcome.destroyed.is_empty());
        assert_eq!(ids(&outcome.sessions), numbers.map(id));
        outcome
    }

    #[test]
    fn list_returns_all_sessions_oldest_first() {
        reads(json!({"state": "list"}), list(json!([])), []);
        let sessions = json!([plain(3), session(1, json!({"Name": "db", "Node": "n2"})), plain(2)]);
        let outcome = reads(json!({"state": "list"}), list(sessions), [1, 2, 3]);
        assert!(outcome.session.is_none() && !outcome.filtered && outcome.notes.is_empty());
    }

    #[test]
    fn name_and_node_filter_the_result() {
        let sessions = || json!([plain(1), session(2, json!({"Name": "db"})), session(3, json!({"Node": "n2"}))]);
        reads(json!({"state": "list", "name": "web"}), list(sessions()), [1, 3]);
        reads(json!({"state": "list", "node": "N2"}), list(sessions()), [3]);
        reads(json!({"state": "list", "name": "db", "node": "n2"}), list(sessions()), []);
        reads(json!({"state": "node", "node": "n1", "name": "db"}), get("/v1/session/node/n1").gives(sessions()), [2]);
        let by_id = |name| json!({"state": "info", "id": id(1), "name": name});
        assert!(reads(by_id("web"), info(1).gives(json!([plain(1)])), [1]).session.is_some());
        assert!(reads(by_id("db"), info(1).gives(json!([plain(1)])), []).session.is_none());
    }

    #[test]
    fn node_returns_the_sessions_of_the_node() {
        reads(json!({"state": "node", "node": "n 1"}), get("/v1/session/node/n%201").gives(json!([])), []);
        let outcome = reads(json!({"state": "node", "node": "N1"}), get("/v1/session/node/N1").gives(json!([plain(1)])), [1]);
        assert!(outcome.session.is_none());
    }

    #[test]
    fn info_returns_the_session_or_none() {
        let outcome = reads(json!({"state": "info", "id": id(1).to_uppercase()}), info(1).gives(json!([plain(1)])), [1]);
        assert_eq!(outcome.session_id(), Some(id(1).as_str()));
        let outcome = reads(json!({"state": "info", "id": id(1)}), info(1).gives(json!([])), []);
        assert_eq!(outcome.session_id(), None);
    }

    #[test]
    fn sessions_possibly_hidden_by_acls_are_noted() {
        for (request, options) in [
            (masked(list(json!([plain(1)]))), json!({"state": "list"})),
            (filtered(list(json!([plain(1)]))), json!({"state": "list"})),
            (masked(get("/v1/session/node/n1").gives(json!([plain(1)]))), json!({"state": "node", "node": "n1"})),
            (filtered(info(1).gives(json!([plain(1)]))), json!({"state": "info", "id": id(1)})),
        ] {
            let outcome = reads(options, request, [1]);
            assert!(outcome.filtered);
            assert_eq!(outcome.notes, ["ACLs hid sessions from this answer, or may have"]);
        }
    }

    #[test]
    fn session_settings_do_not_affect_reads() {
        let options = json!({"state": "list", "delay": 1, "ttl": 10, "checks": ["a"], "behavior": "delete", "dry_run": true});
        reads(options, list(json!([plain(1)])), [1]);
    }
}
