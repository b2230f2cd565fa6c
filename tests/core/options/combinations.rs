//! Valid and invalid combinations of options, which are checked before any request.

use consul_session::Options;
use consul_session::apply::Plan;
use consul_session::error::{Error, ErrorKind};
use serde_json::{Value, json};

const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

fn plan(options: &Value) -> Result<Plan, Error> {
    Plan::new(Options::from_json(&options.to_string())?)
}

/// Asserts that the combination is rejected because of `option`, with this text.
#[track_caller]
fn rejects(options: Value, option: &str, text: &str) {
    let error = plan(&options).expect_err(&format!("{options} is rejected"));
    assert_eq!(error.kind, ErrorKind::InvalidOption { option: option.into() }, "{options}");
    assert!(error.message.contains(text), "{options}: {error}");
}

#[test]
fn required_options_of_each_state_are_sufficient() {
    for options in [
        json!({}),
        json!({"name": "web"}),
        json!({"id": ID}),
        json!({"id": ID, "name": "web", "node": "n1"}),
        json!({"state": "absent", "id": ID}),
        json!({"state": "absent", "name": "web"}),
        json!({"state": "absent", "id": ID, "name": "web"}),
        json!({"state": "info", "id": ID}),
        json!({"state": "info", "id": ID, "name": "web", "node": "n1"}),
        json!({"state": "node", "node": "n1"}),
        json!({"state": "node", "node": "n1", "name": "web"}),
        json!({"state": "list"}),
        json!({"state": "list", "name": "web", "node": "n1"}),
    ] {
        assert!(plan(&options).is_ok(), "{options}");
    }
}

#[test]
fn missing_options_are_named() {
    rejects(json!({"state": "absent"}), "id", "state=absent needs `id` or `name`");
    rejects(json!({"state": "absent", "node": "n1"}), "id", "state=absent needs `id` or `name`");
    rejects(json!({"state": "info"}), "id", "state=info needs `id`; sessions are found by name with state=list name=…");
    rejects(json!({"state": "info", "name": "web"}), "id", "state=info needs `id`");
    rejects(json!({"state": "node"}), "node", "state=node needs `node`");
    rejects(json!({"state": "node", "name": "web"}), "node", "state=node needs `node`");
}

#[test]
fn id_with_node_or_list_is_rejected_with_the_right_state() {
    rejects(json!({"state": "list", "id": ID}), "id", "state=list takes no `id`: one session is read with state=info");
    rejects(json!({"state": "node", "id": ID}), "id", "state=node takes no `id`: one session is read with state=info");
    rejects(json!({"state": "node", "id": ID, "node": "n1"}), "id", "state=info");
}

#[test]
fn exact_check_lists_combine_with_each_other_but_not_with_checks() {
    for checks in [json!(["a"]), json!([]), json!("")] {
        for exact in ["node_checks", "service_checks"] {
            for state in ["present", "absent", "list"] {
                let options = json!({"state": state, "name": "web", "checks": checks, exact: ["b"]});
                rejects(options, exact, &format!("`{exact}` cannot be combined with `checks`"));
            }
        }
    }
    assert!(plan(&json!({"name": "web", "node_checks": [], "service_checks": ["a"]})).is_ok());
}

#[test]
fn session_settings_combine_with_every_state() {
    for (state, key, value) in [("absent", "name", "web"), ("info", "id", ID), ("node", "node", "n1"), ("list", "name", "web")]
    {
        let options = json!({
            "state": state, key: value, "behavior": "delete", "checks": ["a"], "delay": 20, "ttl": 30, "on_mismatch": "replace",
        });
        assert!(plan(&options).is_ok(), "{options}");
    }
}

#[test]
fn plan_returns_the_timeout_for_the_transport() {
    assert_eq!(plan(&json!({})).unwrap().timeout(), 10_000_000_000);
    assert_eq!(plan(&json!({"timeout": "1m500ms"})).unwrap().timeout(), 60_500_000_000);
}
