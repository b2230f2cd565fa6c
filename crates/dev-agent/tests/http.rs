//! The dev agent over HTTP, request by request.

use consul_session_dev_agent::DevAgent;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

async fn agent() -> DevAgent {
    DevAgent::start(([127, 0, 0, 1], 0).into()).await.unwrap()
}

/// Sends `request` (a method and a path), lines of headers and a body as they are. Returns the
/// status, the head and the body of the answer.
async fn raw(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.into(), body.into())
}

async fn send(agent: &DevAgent, request: &str, body: &str) -> (u16, String) {
    let (status, _, body) = raw(agent.addr(), request, &format!("Content-Length: {}\r\n", body.len()), body).await;
    (status, body)
}

async fn create(agent: &DevAgent, body: &str) -> String {
    let (status, body) = send(agent, "PUT /v1/session/create", body).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["ID"].as_str().unwrap().into()
}

/// Returns the index and the names of the sessions.
async fn read(agent: &DevAgent, path: &str) -> (u64, Vec<String>) {
    let (status, head, body) = raw(agent.addr(), &format!("GET /v1/session/{path}"), "", "").await;
    assert_eq!(status, 200, "{body}");
    let index = head.lines().find_map(|line| line.strip_prefix("X-Consul-Index: ")).unwrap();
    let sessions: Vec<Value> = serde_json::from_str(&body).unwrap();
    let names = sessions.iter().map(|session| session["Name"].as_str().unwrap().to_owned());
    (index.parse().unwrap(), names.collect())
}

#[tokio::test]
async fn invalid_requests_are_refused_as_by_consul() {
    let agent = agent().await;
    send(&agent, "PUT /v1/agent/check/register", r#"{"Name":"crit","TTL":"1h"}"#).await;
    for (request, body, status, text) in [
        (
            "PUT /v1/session/create?ns=default",
            "x",
            400,
            "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
        ),
        ("PUT /v1/session/create?dc=nope", "x", 400, "Request decode failed: "),
        ("PUT /v1/session/create", "{", 400, "Request decode failed: unexpected EOF"),
        ("PUT /v1/session/create?dc=nope", r#"{"Node":""}"#, 500, "No path to datacenter"),
        ("PUT /v1/session/create", r#"{"Node":"","Behavior":"x"}"#, 500, "Must provide Node"),
        ("PUT /v1/session/create", r#"{"Behavior":"x","TTL":"x"}"#, 500, "Invalid Behavior setting 'x'"),
        (
            "PUT /v1/session/create",
            r#"{"TTL":"10z","Node":"n"}"#,
            500,
            "Session TTL '10z' invalid: time: unknown unit \"z\" in duration \"10z\"",
        ),
        (
            "PUT /v1/session/create",
            r#"{"TTL":"5s","Node":"n"}"#,
            500,
            "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]",
        ),
        (
            "PUT /v1/session/create",
            r#"{"TTL":"86401s"}"#,
            500,
            "Invalid Session TTL '86401000000000', must be between [10s=24h0m0s]",
        ),
        ("PUT /v1/session/create", r#"{"Node":"n","NodeChecks":["dne"]}"#, 500, "apply failed: Missing node registration"),
        ("PUT /v1/session/create", r#"{"NodeChecks":["dne","crit"]}"#, 500, "apply failed: Missing check 'dne' registration"),
        ("PUT /v1/session/create", r#"{"NodeChecks":["crit"]}"#, 500, "apply failed: Check 'crit' is in critical state"),
        ("PUT /v1/session/renew/a%20b", "", 404, "Session id 'a b' not found"),
        ("PUT /v1/session/renew/", "", 400, "Missing session"),
        ("PUT /v1/session/renew/x?stale&consistent", "", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
        ("PUT /v1/session/destroy/x", "", 200, "true"),
        ("PUT /v1/session/destroy/x?datacenter=nope&dc=dc1", "", 500, "No path to datacenter"),
        (
            "GET /v1/session/info/x?partition=p",
            "",
            400,
            "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature",
        ),
        ("GET /v1/session/info/x", "", 200, "[]"),
        ("GET /v1/session/node/", "", 400, "Missing node name"),
        ("GET /v1/session/list?index=-1", "", 400, "Invalid index"),
        ("GET /v1/session/list?index=x&wait=5", "", 400, "Invalid wait time"),
        ("GET /v1/session/list?a=%zz", "", 500, ""),
        ("DELETE /v1/session/list", "", 405, "method DELETE not allowed"),
        ("PUT /v1/session/destroy", "", 307, ""),
    ] {
        let (found, answer) = send(&agent, request, body).await;
        assert_eq!(found, status, "{request} {body}: {answer}");
        assert!(if text.ends_with(": ") { answer.starts_with(text) } else { answer == text }, "{request} {body}: {answer}");
    }
}

#[tokio::test]
async fn headers_are_those_of_consul() {
    let agent = agent().await;
    let head = async |request| raw(agent.addr(), request, "", "").await.1;
    let list = head("GET /v1/session/list").await;
    for line in [
        "Content-Type: application/json",
        "X-Consul-Default-Acl-Policy: allow",
        "X-Consul-Index: 1",
        "X-Consul-Knownleader: true",
        "X-Consul-Lastcontact: 0",
        "X-Consul-Query-Backend: blocking-query",
    ] {
        assert!(list.lines().any(|found| found == line), "{line} in {list}");
    }
    let destroy = head("PUT /v1/session/destroy/x").await;
    assert!(destroy.contains("X-Consul-Default-Acl-Policy: allow") && !destroy.contains("X-Consul-Index"), "{destroy}");
    let no_path = head("GET /v1/session/list?dc=nope").await;
    assert!(no_path.contains("text/plain; charset=utf-8") && no_path.contains("X-Consul-Knownleader: false"), "{no_path}");
    assert!(head("OPTIONS /v1/session/create").await.contains("Allow: OPTIONS,PUT"));
    assert!(head("HEAD /v1/session/list").await.contains("Allow: OPTIONS,GET"));
    let (status, _, text) = raw(agent.addr(), "GET /v1/session/list", "X-Consul-Namespace: default\r\n", "").await;
    assert_eq!((status, text.starts_with("Invalid header: \"X-Consul-Namespace\"")), (400, true));
}

#[tokio::test]
async fn create_without_content_length_ignores_the_body() {
    let agent = agent().await;
    let chunked = "c\r\n{\"Name\":\"x\"}\r\n0\r\n\r\n";
    let (status, ..) = raw(agent.addr(), "PUT /v1/session/create", "Transfer-Encoding: chunked\r\n", chunked).await;
    assert_eq!(status, 200);
    assert_eq!(read(&agent, "list").await.1, [""]);
}

#[tokio::test]
async fn sessions_end_with_their_checks_and_nodes() {
    let agent = agent().await;
    let register = |status: &str| {
        let body = format!(r#"{{"Node":"n","Address":"::1","Check":{{"CheckID":"c","Name":"C","Status":"{status}"}}}}"#);
        let agent = &agent;
        async move { assert_eq!(send(agent, "PUT /v1/catalog/register", &body).await, (200, "true".into())) }
    };
    let names = async || read(&agent, "list").await.1;
    register("passing").await;
    create(&agent, r#"{"Node":"N","NodeChecks":["C"],"Name":"a"}"#).await;
    register("warning").await;
    assert_eq!(names().await, ["a"]);
    register("critical").await;
    assert!(names().await.is_empty());

    register("passing").await;
    create(&agent, r#"{"Node":"n","NodeChecks":[],"ServiceChecks":[{"ID":"c"}]}"#).await;
    create(&agent, r#"{"Node":"n","NodeChecks":[],"Name":"b"}"#).await;
    send(&agent, "PUT /v1/catalog/deregister", r#"{"Node":"n","CheckID":"c"}"#).await;
    assert_eq!(names().await, ["b"]);
    send(&agent, "PUT /v1/catalog/deregister", r#"{"Node":"n"}"#).await;
    assert!(names().await.is_empty());

    send(&agent, "PUT /v1/agent/check/register", r#"{"Name":"own","TTL":"1h","Status":"passing"}"#).await;
    create(&agent, r#"{"Checks":["own"]}"#).await;
    // A check that is registered again keeps its status.
    send(&agent, "PUT /v1/agent/check/register", r#"{"Name":"own","TTL":"1h","Status":"critical"}"#).await;
    assert_eq!(names().await.len(), 1);
    send(&agent, "PUT /v1/agent/check/fail/own", "").await;
    assert!(names().await.is_empty());
}

/// The clock is paused, and advances when all tasks wait.
#[tokio::test(start_paused = true)]
async fn sessions_expire_after_twice_the_ttl() {
    let agent = agent().await;
    let id = create(&agent, r#"{"TTL":"10s","Name":"a"}"#).await;
    let created = Instant::now();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(send(&agent, &format!("PUT /v1/session/renew/{id}"), "").await.0, 200);
    let index = read(&agent, "list").await.0;
    let (expired, names) = read(&agent, &format!("info/{id}?index={index}&wait=60s")).await;
    assert_eq!((expired > index, names.is_empty()), (true, true));
    assert_eq!(created.elapsed().as_secs(), 15 + 20);
    assert_eq!(send(&agent, &format!("PUT /v1/session/renew/{id}"), "").await.0, 404);
}

/// The lock delay starts when the session expires, even without a request at that time. It is 60 s
/// at most.
#[tokio::test(start_paused = true)]
async fn lock_delay_starts_when_the_session_expires() {
    let agent = agent().await;
    let id = create(&agent, r#"{"TTL":"10s","LockDelay":"5m"}"#).await;
    assert_eq!(send(&agent, &format!("PUT /v1/kv/k?acquire={id}"), "x").await, (200, "true".into()));
    sleep(Duration::from_secs(20 + 59)).await;
    let other = create(&agent, "").await;
    let acquire = format!("PUT /v1/kv/k?acquire={other}");
    assert_eq!(send(&agent, &acquire, "").await.1, "false");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(send(&agent, &acquire, "").await.1, "true");
}

/// The answer to a request that this agent lacks says so, and is never that to a similar request.
#[tokio::test]
async fn lacking_features_are_named_as_those_of_the_dev_agent() {
    let agent = agent().await;
    for (request, body, what) in [
        ("GET /v1/nope", "", "GET /v1/nope"),
        ("GET /v1/agent/services?x=y", "", "GET /v1/agent/services"),
        ("GET /", "", "GET /"),
        ("GET /v1/kv/k?keys", "", "?keys in GET /v1/kv/k"),
        ("GET /v1/kv/k?raw", "", "?raw in GET /v1/kv/k"),
        ("GET /v1/catalog/nodes?filter=x", "", "?filter in GET /v1/catalog/nodes"),
        ("GET /v1/catalog/nodes?near=_agent", "", "?near in GET /v1/catalog/nodes"),
        ("GET /v1/catalog/nodes?node-meta=a:b", "", "?node-meta in GET /v1/catalog/nodes"),
        ("GET /v1/health/node/n?filter=x", "", "?filter in GET /v1/health/node/n"),
        ("GET /v1/agent/checks?filter=x", "", "?filter in GET /v1/agent/checks"),
        ("PUT /v1/txn", "[]", "transactions that only read in PUT /v1/txn"),
        ("PUT /v1/txn", r#"[{"KV":{"Verb":"get","Key":"k"}}]"#, "transactions that only read in PUT /v1/txn"),
        ("PUT /v1/txn", r#"[{"KV":{"Verb":"check-index","Key":"k"}}]"#, "the verb \"check-index\" in PUT /v1/txn"),
        ("PUT /v1/txn", r#"[{"Node":{}}]"#, "operations other than on keys in PUT /v1/txn"),
        (
            "PUT /v1/catalog/register",
            r#"{"Service":{"Service":"s","Kind":"connect-proxy"}}"#,
            "the field kind of services in PUT /v1/catalog/register",
        ),
        (
            "PUT /v1/catalog/register",
            r#"{"Check":{"Definition":{"HTTP":"http://x"}}}"#,
            "the field HTTP of the definitions of checks in PUT /v1/catalog/register",
        ),
        (
            "PUT /v1/catalog/register",
            r#"{"Locality":{"Region":"x"}}"#,
            "the field locality of nodes in PUT /v1/catalog/register",
        ),
        (
            "PUT /v1/catalog/register",
            r#"{"Node":"dev-agent","Address":"x","ID":"e0155642-135d-4739-9853-a1ee6c9f945b"}"#,
            "another name or id for a node in PUT /v1/catalog/register",
        ),
        (
            "PUT /v1/agent/check/register",
            r#"{"Name":"c","HTTP":"http://x"}"#,
            "the field http of an agent's checks in PUT /v1/agent/check/register",
        ),
    ] {
        let text = format!("the dev agent of consul-session does not implement {what}: use a Consul agent\n");
        assert_eq!(send(&agent, request, body).await, (501, text), "{request} {body}");
    }
    assert_eq!(send(&agent, "GET /v1/kv/k", "").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn blocking_queries_wait_for_a_change() {
    let agent = agent().await;
    let id = create(&agent, r#"{"Name":"a"}"#).await;
    let (index, _) = read(&agent, "list").await;

    let start = Instant::now();
    assert_eq!(read(&agent, &format!("list?index={}&wait=10s", index - 1)).await.1, ["a"]);
    assert_eq!(start.elapsed().as_secs(), 0);
    assert_eq!(read(&agent, &format!("list?index={index}&wait=16s")).await, (index, vec!["a".into()]));
    assert_eq!(start.elapsed().as_secs(), 17);

    // A change of another session wakes a reader of all sessions, but not a reader of one.
    let start = Instant::now();
    let (all, one) = (format!("list?index={index}&wait=16s"), format!("info/{id}?index={index}&wait=16s"));
    let change = async {
        sleep(Duration::from_secs(5)).await;
        create(&agent, r#"{"Name":"b"}"#).await;
    };
    let timed = async |path| (read(&agent, path).await.1.len(), start.elapsed().as_secs());
    let ((), all, one) = tokio::join!(change, timed(&all), timed(&one));
    assert_eq!((all, one), ((2, 5), (1, 17)));
}

#[tokio::test]
async fn dropped_agent_closes_its_connections() {
    let agent = agent().await;
    let address = agent.addr();
    let mut open = TcpStream::connect(address).await.unwrap();
    create(&agent, "").await;
    drop(agent);
    assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err());
}
