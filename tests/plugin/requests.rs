//! The requests that the component sends, as a server receives them.

use anyhow::{Context, Result, ensure};
use consul_session_host::{Behavior, Connection, Consistency, CreateOptions, Host, Options, Query, State};
use consul_session_tests::embedded::{SLACK, answer, connection, host};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::scripted::{Reply, Request, Scripted};
use test_support::{TOKEN, block_on};

/// The session of the server.
const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
const SESSION: &str = r#"[{"ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","Name":"s1","Node":"n1","LockDelay":15000000000,
    "Behavior":"release","TTL":"","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":5,"ModifyIndex":5}]"#;

/// The key of the server.
const KEY: &str = r#"{"LockIndex":1,"Key":"key","Flags":0,"Value":null,"Session":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","CreateIndex":6,
    "ModifyIndex":6}"#;

/// Answers as an agent with one session does.
fn agent(request: &Request) -> Reply {
    let headers = "X-Consul-Index: 7\r\n";
    let line = request.line();
    let path = line.split(' ').nth(1).unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/v1/session/create" => Reply::json(&format!("{{\"ID\":\"{ID}\"}}")),
        "/v1/agent/self" => Reply::json(r#"{"Config":{"NodeName":"n1"}}"#),
        "/v1/internal/acl/authorize" => Reply::json(r#"[{"Allow":true}]"#),
        "/v1/txn" => Reply::json(&format!(r#"{{"Results":[{{"KV":{KEY}}}],"Errors":null}}"#)),
        "/v1/kv/key" => Reply::http(200, headers, &format!("[{KEY}]")),
        path if path.starts_with("/v1/session/destroy/") => Reply::json("true"),
        // Without a token this agent may hide sessions.
        "/v1/session/node/n1" => Reply::http(200, "X-Consul-Default-ACL-Policy: deny\r\n", "[]"),
        _ => Reply::http(200, headers, SESSION),
    }
}

/// Makes `calls` to such an agent and returns the requests that it received.
fn received(calls: impl AsyncFnOnce(&Host, &Connection) -> Result<()>) -> Result<Vec<Request>> {
    let server = Scripted::start(agent)?;
    block_on(calls(host()?, &connection(server.address())))?;
    Ok(server.requests())
}

fn lines(requests: &[Request]) -> Vec<String> {
    requests.iter().map(Request::line).collect()
}

/// Calls every function once, and `apply` so that it uses the endpoints that only it uses.
async fn every_endpoint(host: &Host, to: &Connection) -> Result<()> {
    answer(host.create(&CreateOptions::default(), Some(to))).await?.value()?;
    answer(host.destroy(ID, Some(to))).await?.value()?;
    answer(host.renew(ID, Some(to))).await?.value()?;
    answer(host.info(ID, None, Some(to))).await?.value()?;
    answer(host.node("n2", None, Some(to))).await?.value()?;
    answer(host.list_sessions(None, Some(to))).await?.value()?;
    answer(host.acquire("key", ID, None, Some(to))).await?.value()?;
    answer(host.release("key", ID, None, Some(to))).await?.value()?;
    answer(host.holder("key", None, Some(to))).await?.value()?;
    let present = Options { name: Some("s1".into()), ..options_of(to) };
    answer(host.apply(&present)).await?.value()?;
    let absent = Options { state: Some(State::Absent), name: Some("s2".into()), node: Some("n1".into()), ..options_of(to) };
    answer(host.apply(&absent)).await?.value()?;
    Ok(())
}

/// Options for the same connection.
fn options_of(to: &Connection) -> Options {
    let to = to.clone();
    Options {
        host: to.host,
        port: to.port,
        token: to.token,
        datacenter: to.datacenter,
        namespace: to.namespace,
        partition: to.partition,
        ..Options::default()
    }
}

#[test]
fn read_sends_these_bytes() -> Result<()> {
    let server = Scripted::start(agent)?;
    let to = Connection { token: Some(TOKEN.into()), ..connection(server.address()) };
    block_on(answer(host()?.list_sessions(None, Some(&to))))?.value()?;
    let expected = format!(
        "GET /v1/session/list HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nx-consul-token: {TOKEN}\r\n\r\n",
        server.address()
    );
    ensure!(server.requests()[0].text() == expected, "{:?}", server.requests()[0].text());
    Ok(())
}

#[test]
fn create_sends_these_bytes() -> Result<()> {
    let server = Scripted::start(agent)?;
    let session = CreateOptions { name: Some("s1".into()), ..CreateOptions::default() };
    let id = block_on(answer(host()?.create(&session, Some(&connection(server.address())))))?.value()?;
    ensure!(id == ID);
    let body = r#"{"Name":"s1","LockDelay":"15s","Behavior":"release"}"#;
    let expected = format!(
        "PUT /v1/session/create HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
        server.address(),
        body.len()
    );
    ensure!(server.requests()[0].text() == expected, "{:?}", server.requests()[0].text());
    Ok(())
}

#[test]
fn create_with_every_option_sends_this_body() -> Result<()> {
    let session = CreateOptions {
        name: Some("\"quoted\" \\ \u{1} ü 🔒".into()),
        node: Some("n1".into()),
        lock_delay: Some(0.5),
        behavior: Some(Behavior::Delete),
        ttl: Some(90.0),
        node_checks: Some(vec![]),
        service_checks: Some(vec!["service:web".into()]),
    };
    let requests = received(async |host, to| {
        answer(host.create(&session, Some(to))).await?.value()?;
        Ok(())
    })?;
    let expected = concat!(
        r#"{"Name":"\"quoted\" \\ \u0001 ü 🔒","Node":"n1","LockDelay":"500ms","Behavior":"delete","TTL":"90s","#,
        r#""NodeChecks":[],"ServiceChecks":[{"ID":"service:web"}]}"#
    );
    ensure!(requests[0].body() == expected, "{}", requests[0].body());
    Ok(())
}

#[test]
fn functions_call_their_endpoints() -> Result<()> {
    let lines = lines(&received(every_endpoint)?);
    let expected = [
        "PUT /v1/session/create",
        &format!("PUT /v1/session/destroy/{ID}"),
        &format!("PUT /v1/session/renew/{ID}"),
        &format!("GET /v1/session/info/{ID}"),
        "GET /v1/session/node/n2",
        "GET /v1/session/list",
        "PUT /v1/txn",
        "PUT /v1/txn",
        "GET /v1/kv/key",
    ];
    ensure!(lines[..9] == expected, "{lines:#?}");
    Ok(())
}

#[test]
fn apply_sends_only_the_requests_that_it_needs() -> Result<()> {
    // An agent whose session exists once it was created.
    let created = AtomicBool::new(false);
    let server = Scripted::start(move |request| {
        let line = request.line();
        created.fetch_or(line.starts_with("PUT /v1/session/create"), Ordering::SeqCst);
        match line.starts_with("GET /v1/session/list") && !created.load(Ordering::SeqCst) {
            true => Reply::json("[]"),
            false => agent(request),
        }
    })?;
    let to = &connection(server.address());
    block_on(async {
        let host = host()?;
        let create = Options { name: Some("s1".into()), ..options_of(to) };
        answer(host.apply(&create)).await?.value()?;
        let find = Options { name: Some("s1".into()), ..options_of(to) };
        answer(host.apply(&find)).await?.value()?;
        let destroy =
            Options { state: Some(State::Absent), name: Some("s2".into()), node: Some("n1".into()), ..options_of(to) };
        answer(host.apply(&destroy)).await?.value()
    })?;
    let requests = server.requests();
    let expected = [
        "GET /v1/session/list?consistent",
        "PUT /v1/session/create",
        "GET /v1/session/list?consistent",
        // A session has the name: is it on the agent's own node?
        "GET /v1/session/list?consistent",
        "GET /v1/agent/self",
        // No session has the name, and without a token Consul does not say whether it hid some.
        "GET /v1/session/node/n1?consistent",
        "POST /v1/internal/acl/authorize",
    ];
    ensure!(lines(&requests) == expected, "{:#?}", lines(&requests));
    ensure!(requests[6].body() == r#"[{"Resource":"session","Access":"read","Segment":"n1"}]"#, "{}", requests[6].body());
    Ok(())
}

#[test]
fn query_fields_are_sent_as_query_parameters() -> Result<()> {
    let query = |consistency, index, wait| Query { consistency, index, wait };
    let requests = received(async |host, to| {
        for query in [
            query(Some(Consistency::Default), None, None),
            query(Some(Consistency::Stale), None, None),
            query(Some(Consistency::Consistent), Some(0), None),
            query(None, Some(6), None),
            query(Some(Consistency::Stale), Some(u64::MAX), Some(1.5)),
        ] {
            answer(host.list_sessions(Some(query), Some(to))).await?.value()?;
        }
        let to = Connection { datacenter: Some("dc1".into()), ..to.clone() };
        let blocking = query(Some(Consistency::Consistent), Some(6), Some(600.0));
        answer(host.info(ID, Some(blocking), Some(&to))).await?.value()?;
        answer(host.node("n2", Some(blocking), Some(&to))).await?.value()?;
        Ok(())
    })?;
    let expected = [
        "GET /v1/session/list",
        "GET /v1/session/list?stale",
        "GET /v1/session/list?consistent",
        "GET /v1/session/list?index=6",
        "GET /v1/session/list?stale&index=18446744073709551615&wait=1500ms",
        &format!("GET /v1/session/info/{ID}?consistent&index=6&wait=600s&dc=dc1"),
        "GET /v1/session/node/n2?consistent&index=6&wait=600s&dc=dc1",
    ];
    ensure!(lines(&requests) == expected, "{:#?}", lines(&requests));
    Ok(())
}

#[test]
fn requests_have_a_content_length_and_no_chunks() -> Result<()> {
    for request in received(every_endpoint)? {
        let length = request.header("content-length");
        ensure!(length == [request.body().len().to_string()], "{request:?}");
        ensure!(request.header("transfer-encoding").is_empty(), "{request:?}");
    }
    Ok(())
}

#[test]
fn token_is_sent_only_in_its_header() -> Result<()> {
    // Every character that a token can contain and that would be encoded elsewhere.
    let token = format!("{TOKEN}/?&=%#+\"\\");
    let requests =
        received(async |host, to| every_endpoint(host, &Connection { token: Some(token.clone()), ..to.clone() }).await)?;
    for request in requests {
        ensure!(request.header("x-consul-token") == [token.as_str()], "{}", request.text());
        ensure!(request.text().matches(TOKEN).count() == 1, "{}", request.text());
    }
    Ok(())
}

#[test]
fn node_names_are_percent_encoded() -> Result<()> {
    let names = [
        ("a b", "a%20b"),
        ("a/b", "a%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("100%", "100%25"),
        ("a+b&c=d;e", "a%2Bb%26c%3Dd%3Be"),
        ("ü🔒", "%C3%BC%F0%9F%94%92"),
        ("Node-1_a.example~", "Node-1_a.example~"),
        ("\"\\\r\n", "%22%5C%0D%0A"),
    ];
    let requests = received(async |host, to| {
        for (name, _) in names {
            answer(host.node(name, None, Some(to))).await?.value()?;
        }
        Ok(())
    })?;
    let expected = names.map(|(_, encoded)| format!("GET /v1/session/node/{encoded}"));
    ensure!(lines(&requests) == expected, "{:#?}", lines(&requests));
    Ok(())
}

#[test]
fn datacenter_namespace_and_partition_are_percent_encoded() -> Result<()> {
    let requests = received(async |host, to| {
        let to = Connection {
            datacenter: Some("dc 1&x=y".into()),
            namespace: Some("n/s".into()),
            partition: Some("p#ü".into()),
            ..to.clone()
        };
        every_endpoint(host, &to).await
    })?;
    for line in lines(&requests) {
        let (_, query) = line.split_once('?').unwrap_or_default();
        ensure!(query.trim_start_matches("consistent&") == "dc=dc%201%26x%3Dy&ns=n%2Fs&partition=p%23%C3%BC", "{line}");
    }
    Ok(())
}

#[test]
fn large_body_arrives_whole() -> Result<()> {
    let checks: Vec<String> = (0..10_000).map(|number| format!("check-{number:04}")).collect();
    let session = CreateOptions { node_checks: Some(checks.clone()), ..CreateOptions::default() };
    let requests = received(async |host, to| {
        answer(host.create(&session, Some(to))).await?.value()?;
        Ok(())
    })?;
    let expected = format!("{{\"LockDelay\":\"15s\",\"Behavior\":\"release\",\"NodeChecks\":[\"{}\"]}}", checks.join("\",\""));
    ensure!(requests[0].body() == expected, "{} bytes", requests[0].body().len());
    Ok(())
}

#[test]
fn host_header_is_the_given_authority() -> Result<()> {
    let server = Scripted::start(agent)?;
    let port = server.address().port();
    for name in ["localhost", "127.0.0.1"] {
        let to = Connection { host: Some(name.into()), ..connection(server.address()) };
        block_on(answer(host()?.list_sessions(None, Some(&to))))?.value()?;
    }
    let hosts: Vec<_> = server.requests().iter().map(|request| request.header("host")).collect();
    ensure!(hosts == [[format!("localhost:{port}")], [format!("127.0.0.1:{port}")]], "{hosts:?}");
    Ok(())
}

#[test]
fn ipv6_host_has_brackets() -> Result<()> {
    let server = Scripted::start_on(IpAddr::V6(Ipv6Addr::LOCALHOST), agent).context("no IPv6 loopback address")?;
    for host_name in ["::1", "[::1]", "0:0:0:0:0:0:0:1"] {
        let to = Connection { host: Some(host_name.into()), ..connection(server.address()) };
        block_on(answer(host()?.list_sessions(None, Some(&to))))?.value()?;
    }
    let port = server.address().port();
    let hosts: Vec<_> = server.requests().iter().map(|request| request.header("host")).collect();
    let short = format!("[::1]:{port}");
    ensure!(hosts == [[short.clone()], [short], [format!("[0:0:0:0:0:0:0:1]:{port}")]], "{hosts:?}");
    Ok(())
}

#[test]
fn calls_share_their_connections() -> Result<()> {
    let requests = received(async |host, to| {
        every_endpoint(host, to).await?;
        every_endpoint(host, to).await
    })?;
    ensure!(requests.len() == 26, "{}", requests.len());
    let connections: Vec<usize> = requests.iter().map(|request| request.connection).collect();
    ensure!(connections.iter().all(|connection| *connection == 0), "{connections:?}");
    Ok(())
}

/// An election: the agent has no leader for the first requests.
#[test]
fn requests_without_a_leader_are_repeated() -> Result<()> {
    let count = AtomicUsize::new(0);
    let server = Scripted::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        ..3 => Reply::http(500, "", "rpc error making call: No cluster leader"),
        _ => agent(request),
    })?;
    let to = connection(server.address());
    block_on(async {
        answer(host()?.create(&CreateOptions::default(), Some(&to))).await?.value()?;
        answer(host()?.list_sessions(None, Some(&to))).await?.value()
    })?;
    let sent = lines(&server.requests());
    ensure!(sent == [["PUT /v1/session/create"; 4].as_slice(), &["GET /v1/session/list"]].concat(), "{sent:?}");
    let bodies: Vec<String> = server.requests().iter().take(4).map(Request::body).collect();
    ensure!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    Ok(())
}

/// The pauses grow, and the call ends with Consul's answer within its timeout.
#[test]
fn requests_without_a_leader_are_repeated_until_the_timeout() -> Result<()> {
    let server = Scripted::start(|_| Reply::http(500, "", "No cluster leader"))?;
    let to = Connection { timeout: Some(2.0), ..connection(server.address()) };
    let start = Instant::now();
    let message = block_on(answer(host()?.list_sessions(None, Some(&to))))?.error("unavailable")?;
    ensure!(start.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", start.elapsed());
    let sent = server.requests().len();
    ensure!((4..=8).contains(&sent), "{sent} requests");
    ensure!(message.ends_with(&format!("this was attempt {sent}")), "{message}");
    Ok(())
}

/// Each function checks its arguments before it sends a request.
#[test]
fn invalid_arguments_are_not_sent() -> Result<()> {
    let requests = received(async |host, to| {
        let created = async |session: CreateOptions| answer(host.create(&session, Some(to))).await;
        let listed = async |to: Connection| answer(host.list_sessions(None, Some(&to))).await;
        let waited = async |index, wait| {
            answer(host.list_sessions(Some(Query { index, wait: Some(wait), consistency: None }), Some(to))).await
        };
        let none = CreateOptions::default;
        let evil = format!("{TOKEN}\r\nX-Evil: 1");
        for (option, refused) in [
            ("id", answer(host.info("../list", None, Some(to))).await?.invalid_option()),
            ("id", answer(host.destroy("s1", Some(to))).await?.invalid_option()),
            ("id", answer(host.renew("", Some(to))).await?.invalid_option()),
            ("node", answer(host.node("", None, Some(to))).await?.invalid_option()),
            ("key", answer(host.acquire("/k", ID, None, Some(to))).await?.invalid_option()),
            ("id", answer(host.acquire("k", "x", None, Some(to))).await?.invalid_option()),
            ("key", answer(host.release("", ID, None, Some(to))).await?.invalid_option()),
            ("key", answer(host.holder("..", None, Some(to))).await?.invalid_option()),
            ("node", answer(host.node("..", None, Some(to))).await?.invalid_option()),
            ("wait", waited(None, 1.0).await?.invalid_option()),
            ("wait", waited(Some(1), 601.0).await?.invalid_option()),
            ("delay", created(CreateOptions { lock_delay: Some(61.0), ..none() }).await?.invalid_option()),
            ("delay", created(CreateOptions { lock_delay: Some(f64::NAN), ..none() }).await?.invalid_option()),
            ("ttl", created(CreateOptions { ttl: Some(9.999), ..none() }).await?.invalid_option()),
            ("ttl", created(CreateOptions { ttl: Some(-10.0), ..none() }).await?.invalid_option()),
            ("name", created(CreateOptions { name: Some("".into()), ..none() }).await?.invalid_option()),
            ("node_checks", created(CreateOptions { node_checks: Some(vec!["".into()]), ..none() }).await?.invalid_option()),
            ("host", listed(Connection { host: Some("http://localhost".into()), ..to.clone() }).await?.invalid_option()),
            ("port", listed(Connection { port: Some(0), ..to.clone() }).await?.invalid_option()),
            ("timeout", listed(Connection { timeout: Some(0.0), ..to.clone() }).await?.invalid_option()),
            ("timeout", listed(Connection { timeout: Some(f64::INFINITY), ..to.clone() }).await?.invalid_option()),
            ("token", listed(Connection { token: Some(evil), ..to.clone() }).await?.invalid_option()),
        ] {
            let (found, message) = refused?;
            ensure!(found == option, "expected an error about `{option}`, found one about `{found}`: {message}");
            ensure!(!message.contains(TOKEN), "the token is in {message}");
        }
        Ok(())
    })?;
    ensure!(requests.is_empty(), "{requests:?}");
    Ok(())
}
