//! The agent without a network, as a plain value.

use consul_session_dev_agent::Agent;
use http::{Method, Request};
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;

fn send(agent: &mut Agent, method: Method, uri: &str, body: &'static str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    let response = agent.answer(&request);
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
}

fn create(agent: &mut Agent, body: &'static str) -> String {
    let (status, answer) = send(agent, Method::PUT, "/v1/session/create", body);
    assert_eq!(status, 200, "{answer}");
    answer["ID"].as_str().unwrap().to_owned()
}

fn list(agent: &mut Agent) -> Vec<Value> {
    send(agent, Method::GET, "/v1/session/list", "").1.as_array().unwrap().clone()
}

#[test]
fn agents_with_the_same_history_are_equal() {
    let mut agent = Agent::new("n1");
    let empty = agent.clone();
    let id = create(&mut agent, r#"{"Name":"a"}"#);
    assert_ne!(agent, empty);
    let mut again = empty.clone();
    assert_eq!(create(&mut again, r#"{"Name":"a"}"#), id);
    assert_eq!(agent, again);
    assert_eq!(HashSet::from([agent.clone(), again, empty]).len(), 2);

    let before = agent.clone();
    assert_eq!(list(&mut agent).len(), 1);
    assert_eq!(agent, before, "a read changes nothing");
}

#[test]
fn order_of_ids_is_independent_of_age() {
    let mut agent = Agent::new("n1");
    let ids: Vec<String> = (0..20).map(|_| create(&mut agent, "")).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), ids.len());
    assert_ne!(sorted, ids);
    assert!(list(&mut agent).iter().map(|session| session["ID"].as_str().unwrap()).eq(&sorted));
}

#[test]
fn own_node_has_the_given_name() {
    let mut agent = Agent::new("n1");
    create(&mut agent, "");
    assert_eq!(list(&mut agent)[0]["Node"], "n1");
    assert_eq!(send(&mut agent, Method::GET, "/v1/agent/self", "").1["Config"]["NodeName"], "n1");
    // It comes back, as an agent registers its own node again.
    assert_eq!(send(&mut agent, Method::PUT, "/v1/catalog/deregister", r#"{"Node":"n1"}"#).0, 200);
    assert!(list(&mut agent).is_empty());
    create(&mut agent, "");
}

#[test]
fn clock_ends_sessions_and_lock_delays() {
    let mut agent = Agent::new("n1");
    let seconds = Duration::from_secs;
    let id = create(&mut agent, r#"{"TTL":"10s","LockDelay":"5s"}"#);
    assert_eq!(send(&mut agent, Method::PUT, &format!("/v1/kv/k?acquire={id}"), "").1, true);
    agent.advance_to(seconds(19));
    assert_eq!(list(&mut agent).len(), 1);
    agent.advance_to(seconds(24));
    assert!(list(&mut agent).is_empty());

    let acquire = format!("/v1/kv/k?acquire={}", create(&mut agent, ""));
    // The clock is not turned back.
    agent.advance_to(seconds(0));
    assert_eq!(send(&mut agent, Method::PUT, &acquire, "").1, false);
    agent.advance_to(seconds(25));
    assert_eq!(send(&mut agent, Method::PUT, &acquire, "").1, true);
}

#[test]
fn reads_with_an_index_are_answered_at_once() {
    let mut agent = Agent::new("n1");
    create(&mut agent, "");
    let (status, sessions) = send(&mut agent, Method::GET, "/v1/session/list?index=1000&wait=10m", "");
    assert_eq!((status, sessions.as_array().unwrap().len()), (200, 1));
}
