//! Locks: each request, byte for byte, and its answers.

use crate::script::{Exchange, Script, call, get, id, put};
use consul_session::consul::{Client, Query, Verb};
use consul_session::error::{Error, ErrorKind};
use consul_session::lock::{Acquisition, Contents, Holding, Key, Lock};
use consul_session::options::SessionId;
use consul_session::transport::INDEX;
use serde_json::{Value, json};

fn session_id(number: u64) -> SessionId {
    SessionId::parse(&id(number)).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Expects the transaction that locks or unlocks `key` for session 1, without a value.
#[track_caller]
fn transaction(verb: &str) -> Exchange {
    let operation = json!({"Verb": verb, "Key": "key", "Value": "", "Flags": 0, "Session": id(1)}).as_object().unwrap().clone();
    let fields = ["Verb", "Key", "Value", "Flags", "Session"].map(|name| format!("\"{name}\":{}", operation[name]));
    put("/v1/txn").body(&format!("[{{\"KV\":{{{}}}}}]", fields.join(",")))
}

fn rolled_back(verb: &str, reason: &str) -> Exchange {
    let body = json!({"Results": null, "Errors": [{"OpIndex": 0, "What": reason}]});
    transaction(verb).says(409, &body.to_string())
}

fn change(verb: Verb, answer: Exchange) -> Result<Acquisition, Error> {
    let change = |client: &mut Client| client.lock(verb, &key("key"), &session_id(1), None);
    call(json!({}), Script::new([answer]), change)
}

/// Returns Consul 1.20.6's answer to a transaction, which omits the value.
fn result(session: Option<&str>) -> Value {
    let mut kv = json!({"LockIndex": 3, "Key": "key", "Flags": 0, "Value": null, "CreateIndex": 24, "ModifyIndex": 32});
    if let Some(session) = session {
        kv["Session"] = session.into();
    }
    json!({"Results": [{"KV": kv}], "Errors": null})
}

#[test]
fn acquisition_is_a_transaction_and_returns_the_indexes() {
    for (bytes, flags, value) in [
        (None, None, ""),
        (Some(&b"f"[..]), Some(3_304_740_253_564_472_344), "Zg=="),
        (Some(b"fo"), None, "Zm8="),
        (Some(b"foo"), Some(u64::MAX), "Zm9v"),
        (Some(&[0, 255, 254, 62]), Some(0), "AP/+Pg=="),
        (None, Some(7), ""),
    ] {
        let body = format!(
            r#"[{{"KV":{{"Verb":"lock","Key":"a \"key\"/ä","Value":"{value}","Flags":{},"Session":"{}"}}}}]"#,
            flags.unwrap_or(0),
            id(1)
        );
        // Consul repeats the flags, but not the value.
        let mut answer = result(Some(&id(1)));
        answer["Results"][0]["KV"]["Flags"] = flags.unwrap_or(0).into();
        let contents = Contents { value: bytes.map(Vec::from), flags };
        let script = Script::new([put("/v1/txn?dc=dc2").body(&body).gives(answer)]);
        let (key, id1) = (key("a \"key\"/ä"), session_id(1));
        let acquired =
            call(json!({"datacenter": "dc2"}), script, |client| client.lock(Verb::Lock, &key, &id1, Some(&contents)));
        let (value, flags) = (bytes.map(Vec::from).unwrap_or_default(), flags.unwrap_or(0));
        let lock = Lock { session: Some(id(1)), lock_index: 3, modify_index: 32, create_index: 24, flags, value };
        assert_eq!(acquired, Ok(Acquisition::Acquired(lock)));
    }
}

/// Community Edition ignores a namespace in an operation, but refuses a read with one in its query.
#[test]
fn namespace_is_verified_by_a_read_before_the_lock() {
    let options = json!({"namespace": "a b", "partition": "p"});
    let read = || get("/v1/kv/key?ns=a%20b&partition=p");
    let lock = |client: &mut Client| client.lock(Verb::Lock, &key("key"), &session_id(1), None);
    let refused = read().says(400, r#"Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature"#);
    assert_eq!(call(options.clone(), Script::new([refused]), lock).unwrap_err().kind, ErrorKind::Unsupported);
    let body = format!(
        r#"[{{"KV":{{"Verb":"lock","Key":"key","Value":"","Flags":0,"Session":"{}","Namespace":"a b","Partition":"p"}}}}]"#,
        id(1)
    );
    let locked = put("/v1/txn?ns=a%20b&partition=p").body(&body).gives(result(Some(&id(1))));
    assert!(matches!(call(options, Script::new([read().says(404, ""), locked]), lock), Ok(Acquisition::Acquired(_))));
    for (name, query) in [("namespace", "ns=x"), ("partition", "partition=x")] {
        let refused = get(&format!("/v1/kv/key?{query}")).says(400, "Invalid query parameter: Enterprise feature");
        let error = call(json!({name: "x"}), Script::new([refused]), lock).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{name}");
    }
}

#[test]
fn rolled_back_transactions_have_a_reason() {
    for (verb, word) in [(Verb::Lock, "lock"), (Verb::Unlock, "unlock")] {
        let why = |reason: &str| change(verb, rolled_back(word, reason));
        assert_eq!(why("failed to lock key \"key\", lock is already held"), Ok(Acquisition::Held));
        assert_eq!(why("failed to unlock key \"key\", lock isn't held, or is held by another session"), Ok(Acquisition::Held));
        assert_eq!(why("failed to lock key \"key\" due to lock delay"), Ok(Acquisition::Delayed));
        assert_eq!(why(&format!("invalid session \"{}\"", id(1))).unwrap_err().kind, ErrorKind::NotFound);
        // The reason is not searched in the name of the key.
        let odd = why("failed to lock key \"lock is already held due to lock delay\", because").unwrap_err();
        assert_eq!(odd.kind, ErrorKind::Refused { status: 409 });
        assert!(odd.message.contains("because"), "{odd}");
        let denied = "Permission denied: token with AccessorID '1' lacks permission 'key:write' on \"key\"";
        assert_eq!(why(denied).unwrap_err().kind, ErrorKind::AccessDenied { status: 409 });
    }
}

#[test]
fn release_returns_the_free_key() {
    let released = change(Verb::Unlock, transaction("unlock").gives(result(None))).unwrap();
    assert!(matches!(released, Acquisition::Acquired(Lock { session: None, lock_index: 3, .. })), "{released:?}");
}

#[test]
fn invalid_answers_to_transactions_are_errors() {
    for (verb, word) in [(Verb::Lock, "lock"), (Verb::Unlock, "unlock")] {
        let case = |answer: Exchange| change(verb, answer).unwrap_err().kind.clone();
        for body in ["", "true", "{}", "[]", r#"{"Results":[]}"#, r#"{"Results":[{"KV":{}}]}"#, r#"{"Results":[{"KV":{"#] {
            // The transaction was sent, and its result is unknown.
            assert_eq!(case(transaction(word).says(200, body)), ErrorKind::OutcomeUnknown, "{body}");
        }
        assert_eq!(case(transaction(word).says(409, "a conflict")), ErrorKind::Refused { status: 409 });
        assert_eq!(case(transaction(word).says(403, "Permission denied")), ErrorKind::AccessDenied { status: 403 });
        assert_eq!(case(transaction(word).says(500, "No cluster leader")), ErrorKind::Unavailable { status: 500 });
        assert_eq!(case(transaction(word).fails(ErrorKind::Timeout)), ErrorKind::OutcomeUnknown);
        assert_eq!(case(transaction(word).fails(ErrorKind::Unreachable)), ErrorKind::Unreachable);
    }
}

fn reads(answer: Exchange, name: &str, query: &Query) -> Result<Holding, Error> {
    call(json!({}), Script::new([answer]), |client| client.holder(&key(name), query))
}

#[test]
fn key_is_read_with_its_holder() {
    let stored = json!({
        "LockIndex": 1, "Key": "a/b ä?", "Flags": 42, "Value": "AP/+Pg==", "Session": id(1), "CreateIndex": 5, "ModifyIndex": 7,
    });
    let query = Query { index: 6, wait: Some(5_000_000_000), ..Query::CONSISTENT };
    let asked = get("/v1/kv/a%2Fb%20%C3%A4%3F?consistent&index=6&wait=5s");
    let value = vec![0, 255, 254, 62];
    let lock = Lock { session: Some(id(1)), lock_index: 1, modify_index: 7, create_index: 5, flags: 42, value };
    assert_eq!(
        reads(asked.gives(json!([stored])).header(INDEX, "7"), "a/b ä?", &query),
        Ok(Holding { lock: Some(lock.clone()), index: 7 })
    );

    // A free key, with contents of another client.
    for (value, bytes) in [(Value::Null, &b""[..]), (json!(""), b""), (json!("Zm9v"), b"foo"), (json!("!"), b"")] {
        let free = json!({"LockIndex": 1, "Key": "k", "Flags": u64::MAX, "Value": value, "CreateIndex": 5, "ModifyIndex": 7});
        let holding = reads(get("/v1/kv/k").gives(json!([free])), "k", &Query::default()).unwrap().lock.unwrap();
        assert_eq!(holding, Lock { session: None, value: bytes.into(), flags: u64::MAX, ..lock.clone() });
    }
}

#[test]
fn missing_key_is_not_an_error() {
    let missing = get("/v1/kv/k").says(404, "").header(INDEX, "9");
    assert_eq!(reads(missing, "k", &Query::default()), Ok(Holding { lock: None, index: 9 }));
    for (status, body, case) in [
        (404, "404 page not found", ErrorKind::Refused { status: 404 }),
        (403, "Permission denied", ErrorKind::AccessDenied { status: 403 }),
        (200, "", ErrorKind::InvalidResponse),
        (200, "{}", ErrorKind::InvalidResponse),
        (200, "[]", ErrorKind::InvalidResponse),
        (200, "[{}]", ErrorKind::InvalidResponse),
    ] {
        assert_eq!(reads(get("/v1/kv/k").says(status, body), "k", &Query::default()).unwrap_err().kind, case, "{body}");
    }
}

#[test]
fn keys_must_be_valid_for_consuls_clients() {
    for good in ["k", "service/leader", "service/.lock", "a/", "...", "a/..b/c", "ä 🦀", "%2e", "100% sure", "%41"] {
        assert_eq!(Key::parse(good).map(|key| key.as_str().to_owned()), Ok(good.into()));
    }
    for bad in [
        "", ".", "..", "/k", "a\nb", "a\u{0}", "\u{7f}", "/", "a//b", "a//", "a/./b", "a/..", "../a", "a/../b", " a", "a ",
        "a%20b", "%2e%2e", "a%2e.",
    ] {
        let error = Key::parse(bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidOption { option: "key".into() }, "{bad:?}");
        assert!(error.message.starts_with("`key`: "), "{error}");
    }
}
