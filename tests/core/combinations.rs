//! Options that go together, and those that do not: all of it before any request.

use consul_session::Options;
use consul_session::apply::Plan;
use consul_session::error::{Error, ErrorKind};
use serde_json::{Value, json};

const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

fn task(options: &Value) -> Result<Plan, Error> {
    Plan::new(Options::from_json(&options.to_string())?)
}

/// The combination is refused for this option, with these words.
#[track_caller]
fn refuses(options: Value, option: &str, words: &str) {
    let error = task(&options).expect_err(&format!("{options} is refused"));
    assert_eq!(error.kind, ErrorKind::InvalidOption { option: option.into() }, "{options}");
    assert!(error.message.contains(words), "{options}: {error}");
}

#[test]
fn each_state_takes_what_it_needs() {
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
        assert!(task(&options).is_ok(), "{options}");
    }
}

#[test]
fn what_is_missing_is_named() {
    refuses(json!({"state": "absent"}), "id", "state=absent needs `id` or `name`");
    refuses(json!({"state": "absent", "node": "n1"}), "id", "state=absent needs `id` or `name`");
    refuses(json!({"state": "info"}), "id", "state=info needs `id`; sessions are found by name with state=list name=…");
    refuses(json!({"state": "info", "name": "web"}), "id", "state=info needs `id`");
    refuses(json!({"state": "node"}), "node", "state=node needs `node`");
    refuses(json!({"state": "node", "name": "web"}), "node", "state=node needs `node`");
}

#[test]
fn an_id_on_node_or_list_is_an_error_that_says_which_state_to_use() {
    refuses(json!({"state": "list", "id": ID}), "id", "state=list takes no `id`: one session is read with state=info");
    refuses(json!({"state": "node", "id": ID}), "id", "state=node takes no `id`: one session is read with state=info");
    refuses(json!({"state": "node", "id": ID, "node": "n1"}), "id", "state=info");
}

#[test]
fn exact_lists_stand_beside_each_other_and_not_beside_checks() {
    for checks in [json!(["a"]), json!([]), json!("")] {
        for exact in ["node_checks", "service_checks"] {
            for state in ["present", "absent", "list"] {
                let options = json!({"state": state, "name": "web", "checks": checks, exact: ["b"]});
                refuses(options, exact, &format!("`{exact}` cannot be combined with `checks`"));
            }
        }
    }
    assert!(task(&json!({"name": "web", "node_checks": [], "service_checks": ["a"]})).is_ok());
}

#[test]
fn what_only_describes_a_new_session_stands_beside_any_state() {
    for (state, key, value) in [("absent", "name", "web"), ("info", "id", ID), ("node", "node", "n1"), ("list", "name", "web")]
    {
        let options = json!({
            "state": state, key: value, "behavior": "delete", "checks": ["a"], "delay": 20, "ttl": 30, "on_mismatch": "replace",
        });
        assert!(task(&options).is_ok(), "{options}");
    }
}

#[test]
fn the_timeout_is_the_transports_to_keep() {
    assert_eq!(task(&json!({})).unwrap().timeout(), 10_000_000_000);
    assert_eq!(task(&json!({"timeout": "1m500ms"})).unwrap().timeout(), 60_500_000_000);
}
