//! Each endpoint's request, byte for byte, and its successful answers.

use crate::script::{Exchange, Script, apply, call, get, id, post, put, session};
use consul_session::Options;
use consul_session::Session;
use consul_session::consul::{Consistency, NewSession, Query, Scope};
use consul_session::error::ErrorKind;
use consul_session::options::SessionId;
use consul_session::session::ServiceCheck;
use consul_session::transport::{DEFAULT_POLICY, FILTERED, INDEX, Protocol};
use serde_json::{Value, json};

fn session_id(number: u64) -> SessionId {
    SessionId::parse(&id(number)).unwrap()
}

/// Asserts that a creation with these options sends this body.
#[track_caller]
fn creates(options: Value, body: &str) {
    let new = NewSession::new(&Options::from_json(&options.to_string()).unwrap().resolve());
    let script = Script::new([put("/v1/session/create").body(body).gives(json!({"ID": id(1)}))]);
    let created = call(json!({}), script, |client| client.create(&new));
    assert_eq!(created, Ok(session_id(1)), "{options}");
}

#[test]
fn create_sends_given_options_and_leaves_the_rest_to_consul() {
    creates(json!({}), r#"{"LockDelay":"15s","Behavior":"release"}"#);
    creates(json!({"name": "a\"b\\ä\n🦀"}), r#"{"Name":"a\"b\\ä\n🦀","LockDelay":"15s","Behavior":"release"}"#);
    creates(
        json!({"name": "web", "node": "n2", "behavior": "delete", "delay": 0, "ttl": "1m30s", "checks": ["a"]}),
        r#"{"Name":"web","Node":"n2","LockDelay":"0s","Behavior":"delete","TTL":"90s","NodeChecks":["serfHealth","a"]}"#,
    );
}

#[test]
fn durations_are_sent_with_a_unit() {
    // Without a unit, 1000 would be a microsecond, and 999 a quarter of an hour.
    for (delay, sent) in
        [(json!(1), "1s"), (json!(60), "60s"), (json!("1ms"), "1ms"), (json!(0.999), "999ms"), (json!("1m"), "60s")]
    {
        creates(json!({"delay": delay}), &format!(r#"{{"LockDelay":"{sent}","Behavior":"release"}}"#));
    }
    for (ttl, sent) in [(json!(10), "10s"), (json!("10.5"), "10500ms"), (json!("24h"), "86400s")] {
        creates(json!({"ttl": ttl}), &format!(r#"{{"LockDelay":"15s","Behavior":"release","TTL":"{sent}"}}"#));
    }
    creates(json!({"ttl": 0}), r#"{"LockDelay":"15s","Behavior":"release"}"#);
}

#[test]
fn checks_include_serf_health_unless_the_list_is_empty() {
    let with = |lists: &str| format!(r#"{{"LockDelay":"15s","Behavior":"release",{lists}}}"#);
    creates(json!({"checks": []}), &with(r#""NodeChecks":[]"#));
    creates(json!({"checks": ["a", "b", "a"]}), &with(r#""NodeChecks":["serfHealth","a","b"]"#));
    creates(json!({"checks": ["serfHealth"]}), &with(r#""NodeChecks":["serfHealth"]"#));
    creates(json!({"checks": "a,serfHealth"}), &with(r#""NodeChecks":["serfHealth","a"]"#));
    creates(json!({"node_checks": ["a"]}), &with(r#""NodeChecks":["a"]"#));
    creates(json!({"node_checks": []}), &with(r#""NodeChecks":[]"#));
    creates(json!({"service_checks": ["s", "t"]}), &with(r#""ServiceChecks":[{"ID":"s"},{"ID":"t"}]"#));
    creates(json!({"node_checks": [], "service_checks": ["s"]}), &with(r#""NodeChecks":[],"ServiceChecks":[{"ID":"s"}]"#));
}

#[test]
fn destroy_and_renew_have_no_body_and_no_consistency() {
    let script = Script::new([put(&format!("/v1/session/destroy/{}", id(1))).gives(json!(true))]);
    assert_eq!(call(json!({}), script, |client| client.destroy(&session_id(1))), Ok(()));
    let script = Script::new([put(&format!("/v1/session/renew/{}", id(1))).gives(json!([session(1, json!({"TTL": "10s"}))]))]);
    let renewed = call(json!({}), script, |client| client.renew(&session_id(1))).unwrap();
    assert_eq!((renewed.id, renewed.ttl), (id(1), "10s".into()));
}

#[test]
fn reads_send_consistency_index_and_wait() {
    let query = |consistency, index, wait| Query { consistency, index, wait };
    for (query, sent) in [
        (Query::default(), ""),
        (Query::CONSISTENT, "?consistent"),
        (query(Consistency::Stale, 0, None), "?stale"),
        (query(Consistency::Default, 7, None), "?index=7"),
        (query(Consistency::Stale, u64::MAX, Some(500_000_000)), "?stale&index=18446744073709551615&wait=500ms"),
        (query(Consistency::Consistent, 1, Some(300_000_000_000)), "?consistent&index=1&wait=300s"),
        // Without an index, no read blocks.
        (query(Consistency::Default, 0, Some(1_000_000_000)), ""),
    ] {
        for (scope, path) in [
            (Scope::All, "/v1/session/list".to_owned()),
            (Scope::Node("n1".into()), "/v1/session/node/n1".into()),
            (Scope::Id(session_id(1)), format!("/v1/session/info/{}", id(1))),
        ] {
            let script = Script::new([get(&format!("{path}{sent}")).gives(json!([])).header(INDEX, "42")]);
            let listing = call(json!({}), script, |client| client.sessions(&scope, &query)).unwrap();
            assert_eq!((listing.sessions.len(), listing.index, listing.filtered, listing.masked), (0, 42, false, false));
        }
    }
    assert_eq!(Query::default().longest_wait(), 0);
    assert_eq!(query(Consistency::Default, 0, Some(16)).longest_wait(), 0);
    assert_eq!(query(Consistency::Default, 1, None).longest_wait(), 318_750_000_000);
    assert_eq!(query(Consistency::Default, 1, Some(16_000_000_000)).longest_wait(), 17_000_000_000);
}

#[test]
fn datacenter_namespace_and_partition_are_in_every_request() {
    let options = json!({"datacenter": "dc 2", "namespace": "team-a", "partition": "p&q"});
    const QUERY: &str = "dc=dc%202&ns=team-a&partition=p%26q";
    let (id1, new) = (id(1), NewSession::new(&Options::default().resolve()));
    let with = |path: &str| format!("/v1/{path}?{QUERY}");
    let all = || Script::new([get(&with("session/list")).gives(json!([]))]);
    assert!(call(options.clone(), all(), |client| client.sessions(&Scope::All, &Query::default())).is_ok());
    let script = Script::new([get(&format!("/v1/session/info/{id1}?consistent&{QUERY}")).gives(json!([]))]);
    let scope = Scope::Id(session_id(1));
    assert!(call(options.clone(), script, |client| client.sessions(&scope, &Query::CONSISTENT)).is_ok());
    let body = r#"{"LockDelay":"15s","Behavior":"release"}"#;
    let script = Script::new([put(&with("session/create")).body(body).gives(json!({"ID": id1}))]);
    assert!(call(options.clone(), script, |client| client.create(&new)).is_ok());
    let script = Script::new([put(&with(&format!("session/destroy/{id1}"))).gives(json!(true))]);
    assert!(call(options.clone(), script, |client| client.destroy(&session_id(1))).is_ok());
    let script = Script::new([put(&with(&format!("session/renew/{id1}"))).gives(json!([session(1, json!({}))]))]);
    assert!(call(options.clone(), script, |client| client.renew(&session_id(1))).is_ok());
    let script = Script::new([get(&with("agent/self")).gives(json!({"Config": {"NodeName": "n1"}}))]);
    assert_eq!(call(options.clone(), script, |client| client.own_node()), Ok("n1".into()));
    let question = r#"[{"Resource":"session","Access":"read","Segment":"n1"}]"#;
    let script = Script::new([post(&with("internal/acl/authorize")).body(question).gives(json!([{"Allow": true}]))]);
    assert_eq!(call(options, script, |client| client.may_read("n1")), Ok(true));
}

#[test]
fn reserved_characters_in_paths_and_queries_are_percent_encoded() {
    let node = "a/b?c#d%e f\"g<h>i\\j^k`l{m|n}o'p(q)r*s!t$u&v+w,x;y=z:@[]~-._ä🦀";
    let encoded = "a%2Fb%3Fc%23d%25e%20f%22g%3Ch%3Ei%5Cj%5Ek%60l%7Bm%7Cn%7Do%27p%28q%29r%2As%21t%24u%26v%2Bw%2Cx%3By%3Dz%3A%40%5B%5D\
                   ~-._%C3%A4%F0%9F%A6%80";
    let script = Script::new([get(&format!("/v1/session/node/{encoded}?dc={encoded}")).gives(json!([]))]);
    let scope = Scope::Node(node.into());
    assert!(call(json!({"datacenter": node}), script, |client| client.sessions(&scope, &Query::default())).is_ok());
}

#[test]
fn protocol_and_authority_come_from_the_options() {
    let reads = |options: Value, protocol, authority: &str| {
        let script = Script::new([get("/v1/session/list").gives(json!([]))]).at(protocol, authority);
        assert!(call(options, script, |client| client.sessions(&Scope::All, &Query::default())).is_ok());
    };
    reads(json!({}), Protocol::Http, "localhost:8500");
    reads(json!({"host": "consul", "port": 80}), Protocol::Http, "consul:80");
    reads(json!({"host": "::1"}), Protocol::Http, "[::1]:8500");
    reads(json!({"host": "[2001:db8::1]", "port": 8501, "scheme": "https"}), Protocol::Https, "[2001:db8::1]:8501");
    reads(json!({"scheme": "https", "validate_certs": false}), Protocol::HttpsInsecure, "localhost:8500");
    // Plain HTTP has no certificate, so the host does not have to grant anything.
    reads(json!({"scheme": "http", "validate_certs": "no"}), Protocol::Http, "localhost:8500");
}

#[test]
fn token_is_in_every_request_and_only_in_its_own_field() {
    let token = "b1gs33cr3t-0000";
    let outcome = apply(
        json!({"name": "web", "token": token, "on_mismatch": "replace", "delay": 1}),
        [
            get("/v1/session/list?consistent").gives(json!([session(1, json!({}))])),
            get("/v1/agent/self").gives(json!({"Config": {"NodeName": "n1"}})),
            put("/v1/session/create")
                .body(r#"{"Name":"web","LockDelay":"1s","Behavior":"release","NodeChecks":["serfHealth"]}"#)
                .gives(json!({"ID": id(2)})),
            get("/v1/session/list?consistent")
                .gives(json!([session(1, json!({})), session(2, json!({"LockDelay": 1_000_000_000}))])),
            put(&format!("/v1/session/destroy/{}", id(1))).gives(json!(true)),
            get("/v1/session/list?consistent").gives(json!([session(2, json!({"LockDelay": 1_000_000_000}))])),
        ],
    )
    .unwrap();
    assert!(!outcome.to_json().contains(token));
}

#[test]
fn listings_are_sorted_by_age_and_then_by_id() {
    let list = json!([
        session(5, json!({})),
        session(3, json!({"CreateIndex": 7})),
        session(9, json!({"CreateIndex": 7})),
        session(4, json!({"CreateIndex": 2})),
    ]);
    let script = Script::new([get("/v1/session/list").gives(list)]);
    let listing = call(json!({}), script, |client| client.sessions(&Scope::All, &Query::default())).unwrap();
    let ids: Vec<String> = listing.sessions.into_iter().map(|session| session.id).collect();
    assert_eq!(ids, [id(4), id(5), id(3), id(9)]);
}

#[test]
fn unusual_sessions_of_other_clients_are_read() {
    let odd = json!([{
        "ID": id(1), "Name": "ä\u{0}\n\"🦀", "Node": "n1", "LockDelay": -5_000_000_000_000_000_000_i64, "Behavior": "",
        "TTL": "not a duration", "NodeChecks": null, "ServiceChecks": [{"ID": "s", "Namespace": "ns1", "More": 1}, {}, null, 7],
        "Checks": ["old", 3], "Namespace": "ns1", "Partition": "", "CreateIndex": 18_446_744_073_709_551_615_u64,
        "ModifyIndex": "7", "Future": {"deep": [[[]]]},
    }]);
    let script = Script::new([get("/v1/session/list").gives(odd)]);
    let listing = call(json!({}), script, |client| client.sessions(&Scope::All, &Query::default())).unwrap();
    let check = |id: &str, namespace: &str| ServiceCheck { id: id.into(), namespace: namespace.into() };
    let expected = Session {
        id: id(1),
        name: "ä\u{0}\n\"🦀".into(),
        node: "n1".into(),
        lock_delay: -5_000_000_000_000_000_000,
        ttl: "not a duration".into(),
        service_checks: vec![check("s", "ns1"), check("", ""), check("", ""), check("", "")],
        checks: vec!["old".into(), String::new()],
        namespace: Some("ns1".into()),
        create_index: u64::MAX,
        ..Session::default()
    };
    assert_eq!(listing.sessions, [expected]);
}

#[test]
fn indented_answers_are_read() {
    let script = Script::new([put("/v1/session/create")
        .body(r#"{"LockDelay":"15s","Behavior":"release"}"#)
        .says(200, &format!("{{\n    \"ID\": \"{}\"\n}}\n", id(1).to_uppercase()))]);
    let new = NewSession::new(&Options::default().resolve());
    assert_eq!(call(json!({}), script, |client| client.create(&new)), Ok(session_id(1)));
    let script = Script::new([put(&format!("/v1/session/destroy/{}", id(1))).says(200, " true\n")]);
    assert_eq!(call(json!({}), script, |client| client.destroy(&session_id(1))), Ok(()));
}

#[test]
fn headers_show_whether_acls_might_hide_sessions() {
    let listing = |options: Value, headers: &[(&'static str, &str)]| {
        let token = options["token"].as_str().map(String::from);
        let exchange = get("/v1/session/list").gives(json!([]));
        let exchange = headers.iter().fold(exchange, |exchange, (name, value)| exchange.header(name, value));
        let mut script = Script::new([exchange]);
        if let Some(token) = token {
            script = script.token(&token);
        }
        let listing = call(options, script, |client| client.sessions(&Scope::All, &Query::default())).unwrap();
        (listing.filtered, listing.masked, listing.may_hide())
    };
    let token = json!({"token": "t"});
    assert_eq!(listing(json!({}), &[]), (false, false, false));
    assert_eq!(listing(json!({}), &[(DEFAULT_POLICY, "allow")]), (false, false, false));
    // Consul never sends the other header to the anonymous token.
    assert_eq!(listing(json!({}), &[(DEFAULT_POLICY, "deny")]), (false, true, true));
    assert_eq!(listing(token.clone(), &[(DEFAULT_POLICY, "deny")]), (false, false, false));
    assert_eq!(listing(token.clone(), &[(DEFAULT_POLICY, "deny"), (FILTERED, "true")]), (true, false, true));
    assert_eq!(listing(token, &[(FILTERED, "false"), (INDEX, "no number")]), (false, false, false));
}

#[test]
fn may_read_returns_the_answer_of_consul() {
    let ask = |answer: fn(Exchange) -> Exchange| {
        let question = r#"[{"Resource":"session","Access":"read","Segment":"n 1\""}]"#;
        let script = Script::new([answer(post("/v1/internal/acl/authorize").body(question))]);
        call(json!({}), script, |client| client.may_read("n 1\"")).map_err(|error| error.into_parts().kind)
    };
    assert_eq!(ask(|exchange| exchange.gives(json!([{"Resource": "session", "Access": "read", "Allow": false}]))), Ok(false));
    assert_eq!(ask(|exchange| exchange.gives(json!([{"Allow": true}]))), Ok(true));
    assert_eq!(ask(|exchange| exchange.says(401, "ACL support disabled")), Err(ErrorKind::AccessDenied { status: 401 }));
    for broken in ["[]", r#"[{"Allow": "yes"}]"#, "[{}]", "true", r#"{"Allow": true}"#, ""] {
        let question = r#"[{"Resource":"session","Access":"read","Segment":"n"}]"#;
        let script = Script::new([post("/v1/internal/acl/authorize").body(question).says(200, broken)]);
        let error = call(json!({}), script, |client| client.may_read("n")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidResponse, "{broken}");
    }
}

#[test]
fn renewal_of_a_missing_session_is_not_found() {
    let renew = |status, body: String| {
        let mut requests = vec![put(&format!("/v1/session/renew/{}", id(1))).says(status, &body)];
        if status == 404 && body.starts_with("Session") || body == "[]" {
            requests.push(get(&format!("/v1/session/info/{}?consistent", id(1))).gives(json!([])));
        }
        call(json!({}), Script::new(requests), |client| client.renew(&session_id(1))).unwrap_err()
    };
    let error = renew(404, format!("Session id '{}' not found", id(1)));
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.message, format!("no session {} exists (any more): create a new one", id(1)));
    assert_eq!(renew(200, "[]".into()).kind, ErrorKind::NotFound);
    // This 404 is not Consul's own.
    assert_eq!(renew(404, "not found".into()).kind, ErrorKind::Refused { status: 404 });
    assert_eq!(renew(200, "null".into()).kind, ErrorKind::OutcomeUnknown);
}

/// A new leader does not know a session that its predecessor created a moment before.
#[test]
fn renewal_of_a_session_that_a_consistent_read_shows_is_sent_again() {
    let renew = || put(&format!("/v1/session/renew/{}", id(1)));
    let missing = renew().says(404, &format!("Session id '{}' not found", id(1)));
    let read = get(&format!("/v1/session/info/{}?consistent", id(1))).gives(json!([session(1, json!({}))]));
    let script = Script::new([missing, read, renew().gives(json!([session(1, json!({}))]))]);
    assert_eq!(call(json!({}), script, |client| client.renew(&session_id(1))).unwrap().id, id(1));
    let missing = renew().says(404, &format!("Session id '{}' not found", id(1)));
    let unread = get(&format!("/v1/session/info/{}?consistent", id(1))).fails(ErrorKind::Unreachable);
    let error = call(json!({}), Script::new([missing, unread]), |client| client.renew(&session_id(1))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
}
