//! The endpoints of keys: `/v1/kv/<key>` and `/v1/txn`.

use crate::answer::{Answer, bad_request, internal};
use crate::call::Call;
use crate::kv::{self, Entry, Operation, Refusal, Undecoded, Verb};
use crate::state::State;
use http::{Method, StatusCode};
use serde::Serialize;

/// Answers `/v1/kv/<key>`.
pub fn kv(state: &mut State, call: &Call) -> Result<Answer, Answer> {
    let operation = match *call.method {
        Method::GET => return read(state, call),
        Method::PUT => put(call)?,
        _ => delete(call)?,
    };
    call.datacenter()?;
    match state.transact(&[operation]) {
        Ok(_) => Ok(Answer::json(&true)),
        Err(refused) => match refused.into_iter().next() {
            Some((_, Refusal::Error(text))) => Err(internal(format!("raft apply failed: {text}"))),
            _ => Ok(Answer::json(&false)),
        },
    }
}

fn read(state: &State, call: &Call) -> Result<Answer, Answer> {
    let options = call.read_options()?;
    let (key, recurse) = (call.argument, call.query.has("recurse"));
    // Consul ignores ?raw beside ?recurse.
    call.lacks(if recurse { &["keys"] } else { &["keys", "raw"] })?;
    if !recurse {
        required(key)?;
    }
    call.datacenter()?;
    let (index, found): (_, Vec<&Entry>) = if recurse {
        (state.keys.list_index(key), state.keys.list(key).collect())
    } else {
        (state.keys.index(key), state.keys.get(key).into_iter().collect())
    };
    let answer = match found.as_slice() {
        [] => Answer::text(StatusCode::NOT_FOUND, String::new()),
        found => Answer::json(&found),
    };
    Ok(answer.blocking(index, options))
}

fn put(call: &Call) -> Result<Operation, Answer> {
    call.read_options()?;
    let query = &call.query;
    required(call.argument)?;
    query.no_conflict(&["cas", "acquire", "release"])?;
    let flags = query.number("flags")?.unwrap_or(0);
    let cas = query.number("cas")?;
    let (verb, session) = match ["acquire", "release"].map(|name| query.has(name)) {
        [true, _] => (Verb::Lock, query.get("acquire")),
        [_, true] => (Verb::Unlock, query.get("release")),
        _ if cas.is_some() => (Verb::Cas, ""),
        _ => (Verb::Set, ""),
    };
    let (key, value, index) = (call.argument.into(), call.body.to_vec(), cas.unwrap_or(0));
    Ok(Operation { verb, key, value, flags, session: session.into(), index })
}

fn delete(call: &Call) -> Result<Operation, Answer> {
    call.read_options()?;
    let query = &call.query;
    query.no_conflict(&["recurse", "cas"])?;
    let (verb, index) = match (query.has("recurse"), query.number("cas")?) {
        (true, _) => (Verb::DeleteTree, 0),
        (_, Some(index)) => (Verb::DeleteCas, index),
        _ => (Verb::Delete, 0),
    };
    if verb != Verb::DeleteTree {
        required(call.argument)?;
    }
    Ok(Operation { verb, key: call.argument.into(), index, ..Operation::default() })
}

fn required(key: &str) -> Result<(), Answer> {
    if key.is_empty() { Err(bad_request("Missing key name")) } else { Ok(()) }
}

/// Answers `/v1/txn`.
pub fn transaction(state: &mut State, call: &Call) -> Result<Answer, Answer> {
    let operations = kv::decode(call.body).map_err(|error| match error {
        Undecoded::Body(text) => bad_request(&format!("Failed to parse body: {text}")),
        Undecoded::Lacking(what) => call.lacking(&what),
    })?;
    call.datacenter()?;
    if operations.iter().all(|operation| matches!(operation.verb, Verb::Get | Verb::CheckSession)) {
        return Err(call.lacking("transactions that only read"));
    }
    Ok(match state.transact(&operations) {
        Ok(entries) => {
            let results: Vec<_> = entries.into_iter().map(|entry| Kv { kv: entry }).collect();
            Answer::json(&TransactionResult { results: Some(results), errors: None })
        }
        Err(refused) => {
            let errors = refused.iter().map(|(at, refusal)| Failed { op_index: *at, what: refusal.text() });
            let answer = Answer::json(&TransactionResult { results: None, errors: Some(errors.collect()) });
            Answer { status: StatusCode::CONFLICT, ..answer }
        }
    })
}

/// The body of the answer to a transaction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TransactionResult<'a> {
    results: Option<Vec<Kv>>,
    errors: Option<Vec<Failed<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
struct Kv {
    kv: Entry,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed<'a> {
    op_index: usize,
    what: &'a str,
}
