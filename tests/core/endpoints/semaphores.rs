//! Semaphores: each request, byte for byte, and its answers.

use crate::script::{Exchange, Script, call, call_with_pauses, get, id, put};
use consul_session::consul::{Client, Query};
use consul_session::error::{Error, ErrorKind};
use consul_session::options::SessionId;
use consul_session::semaphore::{Prefix, Semaphore, SlotAcquisition};
use consul_session::transport::{FILTERED, INDEX};
use serde_json::{Value, json};

const FLAGS: u64 = 16_210_313_421_097_356_768;

fn session_id(number: u64) -> SessionId {
    SessionId::parse(&id(number)).unwrap()
}

fn prefix() -> Prefix {
    Prefix::parse("a/b").unwrap()
}

/// Returns the key `.lock` with these holders, in the words of Go's client. Its index is 40.
fn lock(limit: u32, holders: &[u64]) -> Value {
    key(".lock", FLAGS, &lock_value(limit, holders))
}

fn lock_value(limit: u32, holders: &[u64]) -> String {
    let holders: Vec<_> = holders.iter().map(|number| format!("\"{}\":true", id(*number))).collect();
    format!(r#"{{"Limit":{limit},"Holders":{{{}}}}}"#, holders.join(","))
}

fn key(name: &str, flags: u64, value: &str) -> Value {
    json!({
        "LockIndex": 0, "Key": format!("a/b/{name}"), "Flags": flags, "Value": base64(value), "CreateIndex": 30,
        "ModifyIndex": 40,
    })
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Returns the key of a session that holds it.
fn contender(number: u64) -> Value {
    let mut key = key(&id(number), FLAGS, "");
    key["Session"] = id(number).into();
    key
}

#[track_caller]
fn read(keys: Value) -> Exchange {
    let read = get("/v1/kv/a%2Fb%2F?consistent&recurse");
    let read = if keys.as_array().unwrap().is_empty() { read.says(404, "") } else { read.gives(keys) };
    read.header(INDEX, "77")
}

/// Expects the transaction that makes session 1 a holder beside these.
#[track_caller]
fn acquires(limit: u32, holders: &[u64], index: u64) -> Exchange {
    let (contender, lock) = (id(1), base64(&lock_value(limit, holders)));
    put("/v1/txn").body(&format!(
        r#"[{{"KV":{{"Verb":"lock","Key":"a/b/{contender}","Value":"{}","Flags":{FLAGS},"Session":"{contender}"}}}},{{"KV":{{"Verb":"cas","Key":"a/b/.lock","Value":"{lock}","Flags":{FLAGS},"Session":"","Index":{index}}}}}]"#,
        base64("me")
    ))
}

fn done(exchange: Exchange) -> Exchange {
    exchange.gives(json!({"Results": [], "Errors": null}))
}

fn refused(exchange: Exchange, reasons: &[&str]) -> Exchange {
    let errors: Vec<_> = reasons.iter().map(|reason| json!({"OpIndex": 1, "What": reason})).collect();
    exchange.says(409, &json!({"Results": null, "Errors": errors}).to_string())
}

const STALE: &str = "failed to set key \"a/b/.lock\", index is stale";

fn acquire(limit: u32, requests: impl IntoIterator<Item = Exchange>) -> Result<SlotAcquisition, Error> {
    call(json!({}), Script::new(requests), |client| client.acquire_slot(&prefix(), &session_id(1), limit, b"me"))
}

fn release(requests: impl IntoIterator<Item = Exchange>) -> Result<bool, Error> {
    call(json!({}), Script::new(requests), |client| client.release_slot(&prefix(), &session_id(1)))
}

#[test]
fn free_slot_is_acquired_in_one_transaction() {
    // Nobody uses the semaphore yet, or nobody any more.
    let acquired = Ok(SlotAcquisition::Acquired);
    assert_eq!(acquire(2, [read(json!([])), done(acquires(2, &[1], 0))]), acquired);
    assert_eq!(acquire(2, [read(json!([key(".lock", FLAGS, "")])), done(acquires(2, &[1], 40))]), acquired);
    // Beside another holder, and a waiting client of Go's.
    let keys = json!([lock(2, &[2]), contender(2), contender(3)]);
    assert_eq!(acquire(2, [read(keys), done(acquires(2, &[2, 1], 40))]), acquired);
}

#[test]
fn slot_of_a_holder_whose_session_has_ended_is_free() {
    let mut ended = contender(3);
    ended.as_object_mut().unwrap().remove("Session");
    let keys = json!([lock(2, &[2, 3]), contender(2), ended]);
    assert_eq!(acquire(2, [read(keys), done(acquires(2, &[2, 1], 40))]), Ok(SlotAcquisition::Acquired));
    // A key beside the prefix is not read, but one below it counts, as with Go's client.
    let mut below = key("c/d", 0, "");
    below["Session"] = id(3).into();
    assert_eq!(acquire(1, [read(json!([lock(1, &[3]), below]))]), Ok(SlotAcquisition::Full(77)));
}

#[test]
fn acquired_slot_is_kept() {
    let keys = json!([lock(1, &[1]), contender(1)]);
    assert_eq!(acquire(1, [read(keys)]), Ok(SlotAcquisition::Acquired));
    // Somebody deleted the key of the session: then it is not a holder for the others.
    let keys = json!([lock(1, &[1])]);
    assert_eq!(acquire(1, [read(keys), done(acquires(1, &[1], 40))]), Ok(SlotAcquisition::Acquired));
}

#[test]
fn full_semaphore_returns_the_index_to_wait_with() {
    let keys = json!([lock(2, &[2, 3]), contender(2), contender(3)]);
    assert_eq!(acquire(2, [read(keys)]), Ok(SlotAcquisition::Full(77)));
}

#[test]
fn other_limit_is_reported_while_there_are_holders() {
    let keys = json!([lock(2, &[2]), contender(2)]);
    assert_eq!(acquire(3, [read(keys)]), Ok(SlotAcquisition::OtherLimit(2)));
    // The last holder has gone without a word.
    assert_eq!(acquire(3, [read(json!([lock(2, &[2])])), done(acquires(3, &[1], 40))]), Ok(SlotAcquisition::Acquired));
}

#[test]
fn key_of_something_else_is_not_changed() {
    for foreign in [
        key(".lock", 3_304_740_253_564_472_344, ""),
        key(".lock", 0, &lock_value(2, &[])),
        key(".lock", FLAGS, "x"),
        key(".lock", FLAGS, "[]"),
        key(".lock", FLAGS, r#"{"Holders":{}}"#),
        key(".lock", FLAGS, r#"{"Limit":-1,"Holders":{}}"#),
        key(".lock", FLAGS, r#"{"Limit":2,"Holders":[]}"#),
    ] {
        assert_eq!(acquire(2, [read(json!([foreign]))]), Ok(SlotAcquisition::NotASemaphore), "{foreign}");
    }
    // Go's client writes `null` for a map that it never made.
    let keys = json!([key(".lock", FLAGS, r#"{"Limit":2,"Holders":null}"#)]);
    assert_eq!(acquire(2, [read(keys), done(acquires(2, &[1], 40))]), Ok(SlotAcquisition::Acquired));
}

#[test]
fn acquisition_starts_over_if_the_semaphore_changes_meanwhile() {
    let one = json!([lock(2, &[2]), contender(2)]);
    let two = json!([lock(2, &[2, 3]), contender(2), contender(3)]);
    let requests = [read(one.clone()), refused(acquires(2, &[2, 1], 40), &[STALE]), read(two)];
    assert_eq!(acquire(2, requests), Ok(SlotAcquisition::Full(77)));
    // Not for ever.
    let attempts = (0..20).flat_map(|_| [read(one.clone()), refused(acquires(2, &[2, 1], 40), &[STALE])]);
    let error = acquire(2, attempts).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other);
    assert!(error.message.contains("other clients changed a/b/.lock at each of 20 attempts"), "{error}");
}

#[test]
fn acquisition_waits_only_before_it_starts_over() {
    let (free, stale) = (|| read(json!([])), || refused(acquires(2, &[1], 0), &[STALE]));
    let requests = [free(), stale(), free(), stale(), free(), done(acquires(2, &[1], 0))];
    let acquire = |client: &mut Client| client.acquire_slot(&prefix(), &session_id(1), 2, b"me");
    let acquired = call_with_pauses(json!({}), Script::new(requests), acquire);
    assert_eq!(acquired, (Ok(SlotAcquisition::Acquired), vec![100, 100]));
}

#[test]
fn acquisition_fails_for_a_session_that_has_ended() {
    let reason = format!("invalid session {:?}", id(1));
    let delayed = format!("failed to lock key \"a/b/{}\" due to lock delay", id(1));
    for reasons in [&[reason.as_str()][..], &[&reason, STALE], &[STALE, &reason], &[&delayed]] {
        let error = acquire(2, [read(json!([])), refused(acquires(2, &[1], 0), reasons)]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
}

#[test]
fn acquisition_without_permission_or_answer_fails() {
    let error = acquire(2, [read(json!([])), refused(acquires(2, &[1], 0), &["Permission denied: lacks key:write"])]);
    assert_eq!(error.unwrap_err().kind, ErrorKind::AccessDenied { status: 409 });
    let error = acquire(2, [read(json!([])), acquires(2, &[1], 0).fails(ErrorKind::Timeout)]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
    // The same again finds the slot.
    assert_eq!(acquire(2, [read(json!([lock(2, &[1]), contender(1)]))]), Ok(SlotAcquisition::Acquired));
    let error = acquire(2, [read(json!([])), acquires(2, &[1], 0).says(200, "true")]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
    let error = acquire(2, [read(json!([])), acquires(2, &[1], 0).says(409, "")]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused { status: 409 });
}

/// A holder whose key is hidden would count as dead.
/// A proxy, or a server without the KV store. For no key, Consul's body is empty.
#[test]
fn missing_path_is_an_error() {
    let missing = get("/v1/kv/a%2Fb%2F?consistent&recurse").says(404, "404 page not found");
    assert!(matches!(acquire(2, [missing]).unwrap_err().kind, ErrorKind::Refused { status: 404 }));
}

#[test]
fn hidden_keys_are_an_error() {
    for error in [
        acquire(2, [read(json!([lock(1, &[2])])).header(FILTERED, "true")]).unwrap_err(),
        release([read(json!([])).header(FILTERED, "true")]).unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Hidden);
        assert_eq!(error.message, "ACLs hide keys of this semaphore: give a `token` with key:read for a/b/");
    }
}

/// Expects the transaction with which session 1 ceases to be a holder.
#[track_caller]
fn releases(change: &str) -> Exchange {
    let delete = format!(r#"{{"KV":{{"Verb":"delete","Key":"a/b/{}","Value":"","Flags":0,"Session":""}}}}"#, id(1));
    put("/v1/txn").body(&format!("[{change}{delete}]"))
}

#[test]
fn release_removes_the_holder_and_its_key() {
    let rest = base64(&lock_value(2, &[2]));
    let swap =
        format!(r#"{{"KV":{{"Verb":"cas","Key":"a/b/.lock","Value":"{rest}","Flags":{FLAGS},"Session":"","Index":40}}}},"#);
    let keys = json!([lock(2, &[1, 2]), contender(1), contender(2)]);
    assert_eq!(release([read(keys.clone()), done(releases(&swap))]), Ok(true));
    let raced = [read(keys.clone()), refused(releases(&swap), &[STALE]), read(keys), done(releases(&swap))];
    assert_eq!(release(raced), Ok(true));
    // The last one.
    let delete = r#"{"KV":{"Verb":"delete-cas","Key":"a/b/.lock","Value":"","Flags":0,"Session":"","Index":40}},"#;
    let keys = json!([lock(2, &[1, 3]), contender(1)]);
    assert_eq!(release([read(keys), done(releases(delete))]), Ok(true));
    // Without a slot, as after a release whose answer was lost.
    for keys in [json!([]), json!([lock(2, &[2]), contender(2)]), json!([key(".lock", 0, "x")])] {
        assert_eq!(release([read(keys), done(releases(""))]), Ok(false));
    }
    let error = release([read(json!([])), releases("").fails(ErrorKind::InvalidResponse)]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
}

#[test]
fn semaphore_is_read_with_its_living_holders() {
    let read = |query: Query, request: &str, keys: Value| {
        let script = Script::new([get(request).gives(keys).header(INDEX, "78")]);
        call(json!({}), script, |client: &mut Client| client.semaphore(&prefix(), &query))
    };
    let keys = json!([lock(3, &[2, 3]), contender(2), contender(4)]);
    let expected = Semaphore { limit: Some(3), holders: vec![id(2)], index: 78 };
    assert_eq!(read(Query::default(), "/v1/kv/a%2Fb%2F?recurse", keys.clone()), Ok(expected.clone()));
    let waiting = Query { index: 77, wait: Some(30_000_000_000), ..Query::default() };
    assert_eq!(read(waiting, "/v1/kv/a%2Fb%2F?index=77&wait=30s&recurse", keys), Ok(expected));
    let foreign = json!([key(".lock", 0, "x")]);
    let expected = Semaphore { limit: None, holders: vec![], index: 78 };
    assert_eq!(read(Query::default(), "/v1/kv/a%2Fb%2F?recurse", foreign), Ok(expected));
}

/// Community Edition refuses a namespace in the query of a read, which comes first.
#[test]
fn namespace_is_in_the_read_and_in_every_operation() {
    let operations = format!(
        r#"[{{"KV":{{"Verb":"lock","Key":"a/b/{0}","Value":"","Flags":{FLAGS},"Session":"{0}","Namespace":"n","Partition":"p"}}}},{{"KV":{{"Verb":"cas","Key":"a/b/.lock","Value":"{1}","Flags":{FLAGS},"Session":"","Index":0,"Namespace":"n","Partition":"p"}}}}]"#,
        id(1),
        base64(&lock_value(1, &[1]))
    );
    let requests = [
        get("/v1/kv/a%2Fb%2F?consistent&recurse&ns=n&partition=p").says(404, ""),
        done(put("/v1/txn?ns=n&partition=p").body(&operations)),
    ];
    let options = json!({"namespace": "n", "partition": "p"});
    let acquired = call(options, Script::new(requests), |client| client.acquire_slot(&prefix(), &session_id(1), 1, b""));
    assert_eq!(acquired, Ok(SlotAcquisition::Acquired));
}

#[test]
fn prefixes_are_checked_like_keys() {
    assert_eq!(Prefix::parse("a/b/"), Ok(prefix()));
    for wrong in ["", "/", "/a", "a//", "a/../b", " a", "a\n"] {
        let error = Prefix::parse(wrong).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidOption { option: "prefix".into() }, "{wrong:?}");
        assert!(error.message.starts_with(&format!("`prefix`: `{wrong}` ")), "{error}");
    }
}
