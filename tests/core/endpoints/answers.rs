//! Answers other than success, from Consul or another server: every status and text of the
//! reference's first chapter, and the resulting error.

use crate::script::{Exchange, Script, call, create, destroy, get, id, put};
use consul_session::consul::{Client, Connection, NewSession, Query, Scope};
use consul_session::error::{Error, ErrorKind, excerpt, from_status};
use consul_session::options::SessionId;
use consul_session::transport::{Request, Response, Transport, from_error_code};
use consul_session::{Options, Session};
use serde_json::json;

/// Asserts that the answer leads to this kind of error, also after several hops between agents and
/// servers.
#[track_caller]
fn means(status: u16, body: &str, case: &ErrorKind) {
    for hops in ["", "rpc error making call: ", "rpc error making call: rpc error making call: "] {
        let error = from_status(status, format!("{hops}{body}").as_bytes());
        assert_eq!(error.kind, *case, "{status} {hops}{body}");
        let quoted = excerpt(format!("{hops}{body}").as_bytes());
        assert!(error.message.contains(&quoted), "the answer is quoted: {error}");
        assert!(error.message.contains(&status.to_string()), "the status is named: {error}");
    }
}

#[test]
fn refusals_by_acls_are_access_denied() {
    for body in [
        "ACL not found",
        "Permission denied: token with AccessorID 'a9b9f3b6-4d0c-4e2c-9b0b-0e7b6f7f0b0a' lacks permission 'session:write' on \"n1\"",
        "Permission denied: anonymous token lacks permission 'session:write' on \"n1\". The anonymous token is used implicitly when a request does not specify a token.",
        "Permission denied: token with AccessorID '00000000-0000-0000-0000-000000000002' lacks permission 'session:write' on \"n1\"",
        "Permission denied",
        "Endpoint is blocked by agent configuration",
        "Access is restricted",
    ] {
        means(403, body, &ErrorKind::AccessDenied { status: 403 });
    }
    // Consul maps these texts to 403; older versions did not.
    means(500, "Permission denied", &ErrorKind::AccessDenied { status: 500 });
    means(500, "ACL not found", &ErrorKind::AccessDenied { status: 500 });
    means(401, "", &ErrorKind::AccessDenied { status: 401 });
}

#[test]
fn temporary_failures_are_unavailable() {
    for (status, body) in [
        (429, "RPC rate limit exceeded"),
        (429, "rate limit exceeded, try again later or against a different server"),
        (429, "Your IP is issuing too many concurrent connections, please rate limit your calls\n"),
        (503, "rate limit exceeded for operation that can only be performed by the leader, try again later"),
        (500, "rate limit exceeded, try again later or against a different server"),
        (500, "No cluster leader"),
        (500, "Raft leader not found in server lookup mapping"),
        (500, "No known Consul servers"),
        (500, "leadership lost while committing log"),
        (502, "Bad Gateway"),
        (503, ""),
        (504, "<html>Gateway Time-out</html>"),
    ] {
        means(status, body, &ErrorKind::Unavailable { status });
    }
    // Each hop between agents says how far it came.
    for end in [
        "rpc error making call: EOF",
        "rpc error making call: stream closed",
        "rpc error making call: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer",
        "rpc error getting client: failed to get conn: dial tcp 127.0.0.1:0->127.0.0.1:2: connect: connection refused",
        "rpc error getting client: failed to get conn: rpc error: lead thread didn't get connection",
        "rpc error getting client: failed to get conn: EOF",
        "apply failed: node is not the leader",
        "Not ready to serve consistent reads",
    ] {
        means(500, end, &ErrorKind::Unavailable { status: 500 });
    }
}

#[test]
fn unknown_datacenters_nodes_and_checks_have_their_own_errors() {
    means(500, "No path to datacenter", &ErrorKind::UnknownDatacenter);
    means(500, "Remote DC has no server currently reachable", &ErrorKind::UnknownDatacenter);
    for prefix in ["apply failed: ", ""] {
        means(500, &format!("{prefix}Missing node registration"), &ErrorKind::UnknownNode);
        means(500, &format!("{prefix}Missing check 'dne' registration"), &ErrorKind::UnknownCheck);
        means(500, &format!("{prefix}Missing check 'serfHealth' registration"), &ErrorKind::UnknownCheck);
        means(500, &format!("{prefix}Check 'web' is in critical state"), &ErrorKind::CriticalCheck);
    }
    let error = from_status(500, b"apply failed: Missing check 'serfHealth' registration");
    assert!(error.message.contains("give `checks=` for a node without serfHealth"), "{error}");
}

#[test]
fn enterprise_options_are_unsupported() {
    for body in [
        "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
        "Invalid header: \"X-Consul-Namespace\" - Namespaces are a Consul Enterprise feature",
        "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature",
        "Invalid header: \"X-Consul-Partition\" - Partitions are a Consul Enterprise feature",
    ] {
        means(400, body, &ErrorKind::Unsupported);
    }
}

#[test]
fn other_refusals_are_quoted() {
    for (status, body) in [
        (400, "Invalid index"),
        (400, "Invalid wait time"),
        (400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
        (400, "Invalid max_stale value \"x\""),
        (400, "Invalid Cache-Control header."),
        (400, "Missing session"),
        (400, "Missing node name"),
        (400, "Request decode failed: time: missing unit in duration \"15\""),
        (400, "Request decode failed: json: cannot unmarshal number into Go struct field .Alias.TTL of type string"),
        (404, "Invalid URL path: not a recognized HTTP API endpoint\n"),
        (405, "method DELETE not allowed"),
        (500, "Must provide Node"),
        (500, "Invalid Behavior setting 'x'"),
        (500, "Session TTL '10z' invalid: time: unknown unit \"z\" in duration \"10z\""),
        (500, "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]"),
        (500, "cross datacenter lock must be created at server agent"),
        (500, "Cannot resolve root ACL"),
        (500, ""),
        (418, "short and stout"),
    ] {
        means(status, body, &ErrorKind::Refused { status });
    }
    assert_eq!(from_status(500, b"Must provide Node").message, "consul answered 500: Must provide Node");
    assert_eq!(from_status(400, b"").message, "consul answered 400: (nothing)");
}

#[test]
fn answers_of_other_servers_are_invalid() {
    for (status, body) in [
        (301, "<a href=\"/v1/session/\">Moved Permanently</a>."),
        (302, ""),
        (307, "<a href=\"/ui/\">Temporary Redirect</a>."),
        (404, "<!DOCTYPE html><html><body>nginx</body></html>"),
        (400, "<html>The plain HTTP request was sent to HTTPS port</html>"),
        (201, ""),
        (204, ""),
    ] {
        let error = from_status(status, body.as_bytes());
        assert_eq!(error.kind, ErrorKind::InvalidResponse, "{status} {body}");
        assert!(
            error.message.starts_with("the server at this address is not a Consul agent; check `host` and `port`"),
            "{error}"
        );
    }
}

fn session_id() -> SessionId {
    SessionId::parse(&id(1)).unwrap()
}

fn destroys(script: Script) -> Result<(), Error> {
    call(json!({}), script, |client| client.destroy(&session_id()))
}

fn reads(script: Script) -> Result<Vec<Session>, Error> {
    call(json!({}), script, |client| client.sessions(&Scope::All, &Query::default())).map(|listing| listing.sessions)
}

fn renews(script: Script) -> Result<Session, Error> {
    call(json!({}), script, |client| client.renew(&session_id()))
}

fn creates(script: Script) -> Result<SessionId, Error> {
    let options = Options::from_json(r#"{"name": "web"}"#).unwrap().resolve();
    call(json!({}), script, |client| client.create(&NewSession::new(&options)))
}

#[test]
fn refusals_are_the_same_at_every_endpoint() {
    let denied = ErrorKind::AccessDenied { status: 403 };
    let renew = || put(&format!("/v1/session/renew/{}", id(1)));
    assert_eq!(reads(Script::new([get("/v1/session/list").says(403, "ACL not found")])).unwrap_err().kind, denied);
    assert_eq!(creates(Script::new([create("web").says(403, "Permission denied")])).unwrap_err().kind, denied);
    assert_eq!(destroys(Script::new([destroy(1).says(403, "Permission denied")])).unwrap_err().kind, denied);
    assert_eq!(renews(Script::new([renew().says(403, "Permission denied")])).unwrap_err().kind, denied);
    let own = Script::new([get("/v1/agent/self").says(403, "Permission denied")]);
    assert_eq!(call(json!({}), own, |client| client.own_node()).unwrap_err().kind, denied);
}

#[test]
fn errors_name_the_unknown_datacenter_or_node() {
    let unknown = get("/v1/session/list?dc=dc%202").says(500, "No path to datacenter");
    let error =
        call(json!({"datacenter": "dc 2"}), Script::new([unknown]), |client| client.sessions(&Scope::All, &Query::default()))
            .unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnknownDatacenter);
    assert!(error.message.ends_with("dc=dc%202"), "{error}");
    let error = creates(Script::new([create("web").says(500, "apply failed: Missing node registration")])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnknownNode);
    assert!(error.message.contains(r#""Name":"web""#), "{error}");
}

#[test]
fn unexpected_bodies_with_status_200_are_invalid() {
    for (body, quoted) in [
        ("", "(nothing)"),
        ("<html>hello</html>", "<html>hello</html>"),
        ("[{\"ID\":\"x\"", "[{\"ID\":\"x\""),
        ("{}", "{}"),
        ("null", "null"),
        ("\"ok\"", "\"ok\""),
        ("[1, 2]", "[1, 2]"),
        ("[{}]", "[{}]"),
        ("[[]]", "[[]]"),
        ("[] []", "[] []"),
    ] {
        let error = reads(Script::new([get("/v1/session/list").says(200, body)])).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidResponse, "{body}");
        assert!(error.message.contains("is not a Consul agent; check `host` and `port`"), "{error}");
        assert!(error.message.ends_with(&format!("in the answer {quoted}")), "{error}");
    }
    for body in ["", "{}", "{\"ID\":\"web\"}", "{\"ID\":7}", "[]", "true"] {
        assert_eq!(
            creates(Script::new([create("web").says(200, body)])).unwrap_err().kind,
            ErrorKind::InvalidResponse,
            "{body}"
        );
    }
    for body in ["{}", "{\"Config\":{}}", "{\"Config\":{\"NodeName\":\"\"}}", "[]", "x"] {
        let script = Script::new([get("/v1/agent/self").says(200, body)]);
        assert_eq!(call(json!({}), script, |client| client.own_node()).unwrap_err().kind, ErrorKind::InvalidResponse, "{body}");
    }
}

#[test]
fn excerpts_are_one_short_line() {
    assert_eq!(excerpt(b"  a\r\n\tb\0  c \n"), "a b c");
    assert_eq!(excerpt(b" \n"), "(no text)");
    assert_eq!(excerpt(b"\xff\xfe\x00"), "(no text)");
    assert_eq!(excerpt(b"caf\xc3\xa9 \xff"), "café");
    assert_eq!(excerpt("x".repeat(200).as_bytes()), "x".repeat(200));
    assert_eq!(excerpt("x".repeat(201).as_bytes()), "x".repeat(200) + "…");
    // The cut is between characters.
    assert_eq!(excerpt("🦀".repeat(5_000).as_bytes()).trim_end_matches('…'), "🦀".repeat(200));
    for shift in 0..4 {
        let text = "x".repeat(shift) + &"🦀".repeat(300);
        assert!(excerpt(text.as_bytes()).starts_with(&text[..shift + 4]), "{shift}");
    }
}

#[test]
fn destruction_without_answer_is_retried_once() {
    let lost = || destroy(1).fails(ErrorKind::InvalidResponse);
    assert_eq!(destroys(Script::new([lost(), destroy(1).gives(json!(true))])), Ok(()));
    for second in
        [ErrorKind::InvalidResponse, ErrorKind::Timeout, ErrorKind::Unreachable, ErrorKind::DeniedByHost, ErrorKind::Other]
    {
        // With any result of the second attempt, the first one might have succeeded.
        let error = destroys(Script::new([lost(), destroy(1).fails(second)])).unwrap_err();
        assert_eq!(error.kind, ErrorKind::OutcomeUnknown, "{error}");
        assert!(error.message.ends_with("the destruction of the session may have happened: look before trying again"));
    }
    let refused = destroys(Script::new([lost(), destroy(1).says(500, "No cluster leader")])).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::OutcomeUnknown);
    for body in ["false", "null", "{}", "", "<html>"] {
        let twice = [destroy(1).says(200, body), destroy(1).says(200, body)];
        assert_eq!(destroys(Script::new(twice)).unwrap_err().kind, ErrorKind::OutcomeUnknown, "{body}");
    }
}

#[test]
fn a_destruction_that_was_surely_not_done_is_not_tried_again() {
    for case in [ErrorKind::Unreachable, ErrorKind::DeniedByHost, ErrorKind::Tls, ErrorKind::Unsupported] {
        assert_eq!(destroys(Script::new([destroy(1).fails(case.clone())])).unwrap_err().kind, case);
    }
    assert_eq!(
        destroys(Script::new([destroy(1).says(400, "Missing session")])).unwrap_err().kind,
        ErrorKind::Refused { status: 400 }
    );
    let error = destroys(Script::new([destroy(1).says(500, "No cluster leader")])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable { status: 500 });
}

#[test]
fn renewal_without_answer_is_unknown() {
    let renew = put(&format!("/v1/session/renew/{}", id(1)));
    let error = renews(Script::new([renew.fails(ErrorKind::Timeout)])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
    assert!(error.message.contains("the renewal may have happened"), "{error}");
}

#[test]
fn failed_changes_are_ambiguous_unless_consul_refused_them() {
    for (status, body) in [
        (500, "rpc error making call: EOF"),
        (500, "rpc error making call: unexpected EOF"),
        (500, "rpc error making call: i/o deadline reached"),
        (500, "rpc error making call: read tcp 10.0.0.1:1->10.0.0.2:2: i/o timeout"),
        (500, "rpc error making call: read tcp 10.0.0.1:1->10.0.0.2:2: connection reset by peer"),
        (500, "context deadline exceeded"),
        (500, "leadership lost while committing log"),
        (500, "raft is already shutdown"),
        (500, "rpc error making call: stream closed"),
        (500, "rpc error making call: session shutdown"),
        (500, "rpc error making call: rpc error making call: write tcp 10.0.0.1:1->10.0.0.2:2: write: broken pipe"),
        (500, "apply failed: write /data/raft.db: no space left on device"),
        (502, "Bad Gateway"),
        (503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
        (504, "Gateway Time-out"),
        (301, ""),
        (404, "<html>"),
    ] {
        assert!(from_status(status, body.as_bytes()).is_ambiguous(), "{status} {body}");
    }
    for (status, body) in [
        (400, "Missing session"),
        (403, "Permission denied"),
        (405, "method PUT not allowed"),
        (429, "RPC rate limit exceeded"),
        (500, "No cluster leader"),
        (500, "No known Consul servers"),
        (500, "No path to datacenter"),
        (500, "apply failed: Missing node registration"),
        (500, "apply failed: Missing check 'EOF' registration"),
        (500, "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]"),
        (500, "rpc error getting client: failed to get conn: dial tcp 10.0.0.1:8300: connect: connection refused"),
        (500, "rpc error getting client: failed to get conn: rpc error: lead thread didn't get connection"),
        (500, "rpc error making call: rpc error getting client: failed to get conn: EOF"),
        (500, "rpc error getting client: failed to start stream: session shutdown"),
        (500, "rpc error getting client: failed to get conn: dial tcp 10.0.0.1:8300: i/o timeout"),
        (500, "apply failed: node is not the leader"),
        (500, "leadership transfer in progress"),
        (500, "raft apply failed: timed out enqueuing operation"),
        (500, "Raft leader not found in server lookup mapping"),
        (500, "Not ready to serve consistent reads"),
        (503, "rate limit exceeded for operation that can only be performed by the leader, try again later"),
    ] {
        assert!(!from_status(status, body.as_bytes()).is_ambiguous(), "{status} {body}");
    }
}

#[test]
fn error_codes_of_the_host_map_to_errors() {
    for (codes, case) in [
        (
            &["DNS-timeout", "DNS-error", "destination-not-found", "destination-unavailable", "destination-IP-unroutable"][..],
            ErrorKind::Unreachable,
        ),
        (&["connection-refused", "connection-limit-reached"], ErrorKind::Unreachable),
        (&["destination-IP-prohibited", "HTTP-request-denied"], ErrorKind::DeniedByHost),
        (
            &["connection-timeout", "connection-read-timeout", "connection-write-timeout", "HTTP-response-timeout"],
            ErrorKind::Timeout,
        ),
        (&["TLS-protocol-error", "TLS-certificate-error", "TLS-alert-received"], ErrorKind::Tls),
        (&["connection-terminated", "HTTP-protocol-error", "HTTP-upgrade-failed"], ErrorKind::InvalidResponse),
        (
            &["HTTP-response-incomplete", "HTTP-response-header-section-size", "HTTP-response-header-size"],
            ErrorKind::InvalidResponse,
        ),
        (
            &["HTTP-response-body-size", "HTTP-response-trailer-section-size", "HTTP-response-trailer-size"],
            ErrorKind::InvalidResponse,
        ),
        (&["HTTP-response-transfer-coding", "HTTP-response-content-coding"], ErrorKind::InvalidResponse),
        (&["HTTP-request-length-required", "HTTP-request-body-size", "HTTP-request-method-invalid"], ErrorKind::Other),
        (&["HTTP-request-URI-invalid", "HTTP-request-URI-too-long", "HTTP-request-header-section-size"], ErrorKind::Other),
        (&["HTTP-request-header-size", "HTTP-request-trailer-section-size", "HTTP-request-trailer-size"], ErrorKind::Other),
        (&["loop-detected", "configuration-error", "internal-error", "a-code-of-the-future"], ErrorKind::Other),
    ] {
        for code in codes {
            let error = from_error_code(code, None, "consul:8500");
            assert_eq!(error.kind, case, "{code}");
            assert!(error.message.starts_with("no answer from consul:8500: "), "{error}");
            assert!(error.message.ends_with(&format!(" ({code})")), "{error}");
            let error = from_error_code(code, Some("the\nhost's  words"), "consul:8500");
            assert!(error.message.ends_with(&format!(" ({code}: the host's words)")), "{error}");
        }
    }
}

#[test]
fn host_contract_documents_the_same_error_codes() {
    let document = include_str!("../../../docs/host-contract.md");
    let (_, table) = document.split_once("| `wasi:http` error code |").expect("the table");
    let rows: Vec<Vec<&str>> = table.lines().skip(2).map_while(|line| line.strip_prefix("| ")).map(columns).collect();
    assert_eq!(rows.len(), 6, "{rows:?}");
    for row in rows {
        let case = row[1].split('`').nth(1).expect("a case");
        for code in row[0].split('`').skip(1).step_by(2) {
            let code = code.replace("HTTP-response-*", "HTTP-response-incomplete");
            assert_eq!(from_error_code(&code, None, "consul:8500").kind.name(), case, "{code}");
        }
        let doubtful = ["timeout", "invalid-response", "other"].contains(&case);
        assert_eq!(row[1].contains("`outcome-unknown` for a change"), doubtful, "{row:?}");
    }
}

fn columns(row: &str) -> Vec<&str> {
    row.split('|').map(str::trim).collect()
}

/// A transport that can wait, for this many pauses.
struct Patient {
    script: Script,
    left: usize,
    pauses: Vec<i64>,
}

impl Transport for Patient {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        self.script.send(request)
    }

    fn pause(&mut self, longest: i64) -> bool {
        self.pauses.push(longest);
        self.pauses.len() <= self.left
    }
}

/// Calls an endpoint with these exchanges. Returns the pauses between them too, in milliseconds.
#[track_caller]
fn patiently<T>(
    exchanges: Vec<Exchange>,
    left: usize,
    call: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> (Result<T, Error>, Vec<i64>) {
    let mut transport = Patient { script: Script::new(exchanges), left, pauses: Vec::new() };
    let connection = Connection::new(&Options::default().resolve());
    let result = call(&mut Client { connection: &connection, transport: &mut transport });
    (result, transport.pauses.into_iter().map(|pause| pause / 1_000_000).collect())
}

#[test]
fn requests_are_repeated_while_there_is_no_leader() {
    let list = || get("/v1/session/list");
    let read = |client: &mut Client| client.sessions(&Scope::All, &Query::default());
    let down = |exchange: Exchange| exchange.says(500, "No cluster leader");
    let (result, pauses) = patiently(vec![down(list()), down(list()), list().gives(json!([]))], 9, read);
    assert_eq!((result.unwrap().sessions.len(), pauses), (0, vec![100, 200]));
    // A read, also if Consul may have begun it.
    for (status, text) in [(500, "rpc error making call: EOF"), (504, "Gateway Time-out"), (429, "RPC rate limit exceeded")] {
        assert_eq!(patiently(vec![list().says(status, text), list().gives(json!([]))], 1, read).1, [100]);
    }
    // A change that Consul certainly did not begin.
    let new = NewSession::new(&Options::default().resolve());
    let unnamed = || put("/v1/session/create").body(r#"{"LockDelay":"15s","Behavior":"release"}"#);
    let refused = unnamed().says(500, "rpc error getting client: failed to get conn: EOF");
    let (result, _) = patiently(vec![refused, unnamed().gives(json!({"ID": id(1)}))], 1, |client| client.create(&new));
    assert_eq!(result.unwrap().as_str(), id(1));
    let lost = unnamed().says(500, "rpc error making call: EOF");
    let (result, pauses) = patiently(vec![lost], 9, |client| client.create(&new));
    assert!(result.unwrap_err().is_ambiguous() && pauses.is_empty());
}

#[test]
fn transport_without_a_clock_repeats_nothing() {
    struct Timeless(Script);
    impl Transport for Timeless {
        fn send(&mut self, request: &Request) -> Result<Response, Error> {
            self.0.send(request)
        }
    }
    let connection = Connection::new(&Options::default().resolve());
    let mut transport = Timeless(Script::new([get("/v1/session/list").says(500, "No cluster leader")]));
    let result = Client { connection: &connection, transport: &mut transport }.sessions(&Scope::All, &Query::default());
    assert_eq!(result.unwrap_err().kind, ErrorKind::Unavailable { status: 500 });
}

#[test]
fn repetition_ends_with_the_timeout_and_says_how_often_it_was_tried() {
    let list = || get("/v1/session/list").says(500, "No cluster leader");
    let read = |client: &mut Client| client.sessions(&Scope::All, &Query::default());
    let (result, pauses) = patiently((0..8).map(|_| list()).collect(), 7, read);
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable { status: 500 });
    assert_eq!(error.message, "consul answered 500: No cluster leader: try again later; this was attempt 8");
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
}

#[test]
fn repetition_that_is_cut_off_reports_the_answer_before() {
    let list = || get("/v1/session/list");
    let read = |client: &mut Client| client.sessions(&Scope::All, &Query::default());
    let (result, _) = patiently(vec![list().says(500, "No cluster leader"), list().fails(ErrorKind::Timeout)], 9, read);
    assert_eq!(result.unwrap_err().kind, ErrorKind::Unavailable { status: 500 });
    // The change may have happened.
    let new = NewSession::new(&Options::default().resolve());
    let unnamed = || put("/v1/session/create").body(r#"{"LockDelay":"15s","Behavior":"release"}"#);
    let requests = vec![unnamed().says(500, "No cluster leader"), unnamed().fails(ErrorKind::Timeout)];
    let (result, _) = patiently(requests, 9, |client| client.create(&new));
    assert_eq!(result.unwrap_err().kind, ErrorKind::Timeout);
}

#[test]
fn other_errors_and_blocking_queries_are_not_repeated() {
    let list = || get("/v1/session/list");
    let read = |client: &mut Client| client.sessions(&Scope::All, &Query::default());
    let errors = [
        list().says(403, "Permission denied"),
        list().says(500, "no"),
        list().says(404, "<html>"),
        list().fails(ErrorKind::Unreachable),
        list().fails(ErrorKind::Timeout),
        list().fails(ErrorKind::InvalidResponse),
    ];
    for error in errors {
        assert_eq!(patiently(vec![error], 9, read).1, [0_i64; 0]);
    }
    let query = Query { index: 5, ..Query::default() };
    let blocking = get("/v1/session/list?index=5").says(500, "No cluster leader");
    assert_eq!(patiently(vec![blocking], 9, |client| client.sessions(&Scope::All, &query)).1, [0_i64; 0]);
}
