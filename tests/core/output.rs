//! The output: outcomes and errors in JSON, byte for byte.

use crate::script::{apply, create, destroy, get, id, own_node, put, session};
use crate::wit::every_case;
use consul_session::error::{Difference, Error, ErrorKind};
use serde_json::{Value, json};

fn keys(json: &str) -> Vec<String> {
    match serde_json::from_str(json).unwrap() {
        Value::Object(fields) => fields.keys().cloned().collect(),
        other => panic!("not an object: {other}"),
    }
}

/// Returns the output for a session `web` with these fields.
fn found(fields: Value) -> String {
    let requests = [get("/v1/session/list?consistent").gives(json!([session(1, fields)])), own_node()];
    apply(json!({"name": "web"}), requests).unwrap().to_json()
}

#[test]
fn created_session_is_printed_in_full() {
    let requests = [
        get("/v1/session/list?consistent").gives(json!([])),
        create("web").gives(json!({"ID": id(1)})),
        get("/v1/session/list?consistent").gives(json!([session(1, json!({}))])),
    ];
    let outcome = apply(json!({"name": "web"}), requests).unwrap();
    let stored = format!(
        r#"{{"ID":"{}","Name":"web","Node":"n1","LockDelay":15000000000,"Behavior":"release","TTL":"","NodeChecks":["serfHealth"],"ServiceChecks":[],"CreateIndex":1,"ModifyIndex":1}}"#,
        id(1)
    );
    let expected = format!(
        r#"{{"changed":true,"session_id":"{}","name":"web","node":"n1","behavior":"release","delay":15,"checks":["serfHealth"],"sessions":[{stored}],"destroyed":[],"diff":{{"before":{{"sessions":[]}},"after":{{"sessions":[{stored}]}}}},"filtered":false,"notes":[],"ttl":null}}"#,
        id(1)
    );
    assert_eq!(outcome.to_json(), expected);
}

#[test]
fn keys_depend_on_the_contents_and_not_on_the_state() {
    let of_a_session = ["name", "node", "behavior", "delay", "checks"];
    let all = |with_id: bool, with_session: bool, with_diff: bool| {
        let mut keys = vec!["changed"];
        keys.extend(with_id.then_some("session_id"));
        keys.extend(with_session.then_some(of_a_session).into_iter().flatten());
        keys.extend(["sessions", "destroyed"]);
        keys.extend(with_diff.then_some("diff"));
        keys.extend(["filtered", "notes"]);
        keys.extend(with_session.then_some("ttl"));
        keys
    };
    let one = || json!([session(1, json!({}))]);
    let outcome = apply(json!({"name": "web"}), [get("/v1/session/list?consistent").gives(one()), own_node()]).unwrap();
    assert_eq!(keys(&outcome.to_json()), all(true, true, true));
    let outcome =
        apply(json!({"name": "web", "dry_run": true, "node": "n1"}), [get("/v1/session/node/n1?consistent").gives(json!([]))]);
    assert_eq!(keys(&outcome.unwrap().to_json()), all(false, true, true));
    let read = |sessions| get("/v1/session/node/n1?consistent").gives(sessions);
    let requests = [read(one()), destroy(1).gives(json!(true)), read(json!([]))];
    let outcome = apply(json!({"state": "absent", "name": "web", "node": "n1"}), requests).unwrap();
    assert_eq!(keys(&outcome.to_json()), all(false, false, true));
    let outcome = apply(json!({"state": "list"}), [get("/v1/session/list").gives(one())]).unwrap();
    assert_eq!(keys(&outcome.to_json()), all(false, false, false));
    let info = || get(&format!("/v1/session/info/{}", id(1)));
    let outcome = apply(json!({"state": "info", "id": id(1)}), [info().gives(one())]).unwrap();
    assert_eq!(keys(&outcome.to_json()), all(true, true, false));
    let outcome = apply(json!({"state": "info", "id": id(1)}), [info().gives(json!([]))]).unwrap();
    assert_eq!(keys(&outcome.to_json()), all(false, false, false));
}

#[test]
fn delays_are_printed_in_seconds() {
    for (stored, printed) in [
        (15_000_000_000_i64, "15"),
        (500_000_000, "0.5"),
        (1_000_000, "0.001"),
        (1, "0.000000001"),
        (0, "0"),
        (-5_000_000_000, "-5"),
        (-50_000_000, "-0.05"),
        (120_000_000_000, "120"),
        (i64::MIN, "-9223372036.854775808"),
        (i64::MAX, "9223372036.854775807"),
    ] {
        let json = found(json!({"LockDelay": stored}));
        assert!(json.contains(&format!(r#""delay":{printed},"#)), "{json}");
        assert!(json.contains(&format!(r#""LockDelay":{stored},"#)), "{json}");
    }
}

#[test]
fn ttls_are_printed_in_seconds_or_null_or_as_stored() {
    for (stored, printed) in [
        ("", "null"),
        ("0", "null"),
        ("0s", "null"),
        ("30s", "30"),
        ("10m", "600"),
        ("10.5s", "10.5"),
        ("600000ms", "600"),
        ("forever", r#""forever""#),
    ] {
        let json = found(json!({"TTL": stored}));
        assert!(json.ends_with(&format!(r#","ttl":{printed}}}"#)), "{json}");
        assert!(json.contains(&format!(r#""TTL":"{stored}""#)), "{json}");
    }
}

#[test]
fn sessions_have_consuls_field_names_and_one_list_of_checks() {
    let json = found(json!({
        "Node": "N1", "NodeChecks": ["a"], "Checks": ["old", "a"], "ServiceChecks": [{"ID": "s", "Namespace": "ns1"}],
        "Namespace": "ns1", "Partition": "p1",
    }));
    assert!(json.contains(r#""checks":["a","old","s"]"#), "{json}");
    let tail = r#""NodeChecks":["a"],"ServiceChecks":[{"ID":"s","Namespace":"ns1"}],"Checks":["old","a"],"Namespace":"ns1","Partition":"p1","CreateIndex":1,"ModifyIndex":1}"#;
    assert!(json.contains(tail), "{json}");
}

#[test]
fn stored_texts_are_escaped() {
    // JSON allows U+2028 and the like unescaped, but no control characters.
    let stored = "\"\\\u{1}\n\u{7f}\u{2028}ä🦀</script>";
    let requests = [get("/v1/session/list").gives(json!([session(1, json!({"Name": stored}))]))];
    let printed = apply(json!({"state": "list"}), requests).unwrap().to_json();
    let read: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read["sessions"][0]["Name"], stored);
    assert!(!printed.contains('\n') && !printed.contains('\u{1}'), "{printed}");
}

#[test]
fn outcome_larger_than_expected_is_printed_whole() {
    let name = "x".repeat(100_000);
    let requests = [get("/v1/session/list").gives(json!([session(1, json!({"Name": name}))]))];
    let printed = apply(json!({"state": "list"}), requests).unwrap().to_json();
    let read: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read["sessions"][0]["Name"], name);
    // It has not grown while it was written.
    assert_eq!(printed.capacity(), printed.len());
}

#[test]
fn errors_are_printed_with_their_details() {
    let print = |case: ErrorKind| Error::new(case, "the \"text\"").to_json();
    let has_more = |case: &ErrorKind| {
        matches!(
            case,
            ErrorKind::InvalidOption { .. }
                | ErrorKind::Mismatch { .. }
                | ErrorKind::NodeRequired { .. }
                | ErrorKind::AccessDenied { .. }
                | ErrorKind::Unavailable { .. }
                | ErrorKind::Refused { .. }
        )
    };
    for case in every_case().into_iter().filter(|case| !has_more(case)) {
        let name = case.name();
        let expected = format!(r#"{{"changed":false,"failed":true,"error":"{name}","msg":"the \"text\""}}"#);
        assert_eq!(print(case), expected);
    }
    assert_eq!(
        print(ErrorKind::InvalidOption { option: "delay".into() }),
        r#"{"changed":false,"failed":true,"error":"invalid-option","msg":"the \"text\"","option":"delay"}"#
    );
    let differences = vec![Difference { option: "ttl", found: "none".into(), wanted: "30s".into() }];
    assert_eq!(
        print(ErrorKind::Mismatch { session_id: id(1), differences }),
        format!(
            r#"{{"changed":false,"failed":true,"error":"mismatch","msg":"the \"text\"","session_id":"{}","differences":[{{"option":"ttl","found":"none","wanted":"30s"}}]}}"#,
            id(1)
        )
    );
    assert_eq!(
        print(ErrorKind::NodeRequired { nodes: vec!["a".into(), "b".into()] }),
        r#"{"changed":false,"failed":true,"error":"node-required","msg":"the \"text\"","nodes":["a","b"]}"#
    );
    for (case, name) in [
        (ErrorKind::AccessDenied { status: 403 }, "access-denied"),
        (ErrorKind::Unavailable { status: 403 }, "unavailable"),
        (ErrorKind::Refused { status: 403 }, "refused"),
    ] {
        let expected = format!(r#"{{"changed":false,"failed":true,"error":"{name}","msg":"the \"text\"","status":403}}"#);
        assert_eq!(print(case), expected);
    }
}

#[test]
fn error_displays_its_message() {
    let error: Box<dyn std::error::Error> = Box::new(Error::new(ErrorKind::Other, "cause").context("remedy"));
    assert_eq!(error.to_string(), "cause; remedy");
    let error = Error::invalid("port", "no port");
    let parts = error.into_parts();
    assert_eq!((parts.kind, parts.message.as_str()), (ErrorKind::InvalidOption { option: "port".into() }, "no port"));
}

#[test]
fn replacement_is_printed_with_both_sides() {
    let requests = [
        get("/v1/session/node/n1?consistent").gives(json!([session(1, json!({}))])),
        put("/v1/session/create")
            .body(
                r#"{"Name":"web","Node":"n1","LockDelay":"15s","Behavior":"release","TTL":"30s","NodeChecks":["serfHealth"]}"#,
            )
            .gives(json!({"ID": id(2)})),
        get("/v1/session/node/n1?consistent").gives(json!([session(1, json!({})), session(2, json!({"TTL": "30s"}))])),
        destroy(1).gives(json!(true)),
        get("/v1/session/node/n1?consistent").gives(json!([session(2, json!({"TTL": "30s"}))])),
    ];
    let outcome = apply(json!({"name": "web", "node": "n1", "ttl": 30, "on_mismatch": "replace"}), requests).unwrap();
    let printed: Value = serde_json::from_str(&outcome.to_json()).unwrap();
    assert_eq!(printed["diff"]["before"]["sessions"][0]["ID"], id(1));
    assert_eq!(printed["diff"]["after"]["sessions"][0]["ID"], id(2));
    assert_eq!((&printed["destroyed"], &printed["ttl"]), (&json!([id(1)]), &json!(30)));
}

#[test]
fn indented_json_has_the_same_contents() {
    let requests =
        [get("/v1/session/list?consistent").gives(json!([session(1, json!({})), session(2, json!({}))])), own_node()];
    let outcome = apply(json!({"name": "web"}), requests).unwrap();
    let indented = serde_json::to_string_pretty(&outcome).unwrap();
    assert!(indented.starts_with("{\n  \"changed\": false,\n  \"session_id\": "), "{indented}");
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(read(&indented), read(&outcome.to_json()));
}
