//! The results of the component for every kind of answer, and for none.

use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_host::{Connection, CreateOptions, Host, Listing, Options, Query, Scheme, State};
use consul_session_tests::embedded::{Answer, SLACK, answer, connection, host, options, within};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::scripted::{Reply, Request, Scripted};
use test_support::{TOKEN, block_on, peak_memory, plugin, started, unused_address};

const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
const SESSION: &str = r#"{"ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","Name":"s1","Node":"n1","LockDelay":15000000000,
    "Behavior":"release","TTL":"","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":5,"ModifyIndex":5}"#;
const HTML: &str = "<!DOCTYPE html><html><body><h1>It works!</h1></body></html>";

/// The timeout of calls that are expected to exceed it.
const SHORT: Duration = Duration::from_secs(1);

/// An answer, and the errors that it leads to.
struct BadAnswer {
    name: &'static str,
    reply: Reply,
    /// The error of a read.
    read: &'static str,
    /// The error of a creation and of an acquisition.
    change: &'static str,
    /// A part of every error text.
    text: &'static str,
    timeout: Duration,
}

impl BadAnswer {
    /// An answer that does not say whether a change happened.
    fn lost(name: &'static str, reply: Reply, read: &'static str, text: &'static str) -> BadAnswer {
        // An unavailable Consul is asked again until the timeout.
        let timeout = if read == "unavailable" { SHORT } else { Duration::from_secs(10) };
        BadAnswer { name, reply, read, change: "outcome-unknown", text, timeout }
    }

    /// An answer that comes too late, or not at all.
    fn late(name: &'static str, reply: Reply) -> BadAnswer {
        BadAnswer { timeout: SHORT, ..BadAnswer::lost(name, reply, "timeout", "within 1s") }
    }

    /// An answer that says that nothing was changed.
    fn refusal(name: &'static str, status: u16, body: &str, case: &'static str, text: &'static str) -> BadAnswer {
        BadAnswer { change: case, ..BadAnswer::lost(name, Reply::http(status, "", body), case, text) }
    }

    fn check_read(&self) -> Result<()> {
        let server = Scripted::replies([self.reply.clone()])?;
        let to = with_timeout(server.address(), self.timeout);
        check(self.read, self.text, self.timeout, || list(&to, self.timeout))
    }

    fn check_create(&self) -> Result<()> {
        let server = Scripted::replies([self.reply.clone()])?;
        let to = with_timeout(server.address(), self.timeout);
        check(self.change, self.text, self.timeout, || {
            block_on(within(self.timeout, host()?.create(&CreateOptions::default(), Some(&to))))
        })
    }

    fn check_acquire(&self) -> Result<()> {
        let server = Scripted::replies([self.reply.clone()])?;
        let to = with_timeout(server.address(), self.timeout);
        check(self.change, self.text, self.timeout, || {
            block_on(within(self.timeout, host()?.acquire("key", ID, None, Some(&to))))
        })
    }
}

/// Checks a read, a creation and an acquisition with each answer. The error names every answer that
/// failed.
fn check_all(answers: Vec<BadAnswer>) -> Result<()> {
    let mut failures = Vec::new();
    for answer in answers {
        // At the same time, since most calls only wait.
        thread::scope(|scope| {
            let read = scope.spawn(|| answer.check_read());
            let create = scope.spawn(|| answer.check_create());
            let acquire = scope.spawn(|| answer.check_acquire());
            for (call, check) in [("read", read), ("create", create), ("acquire", acquire)] {
                if let Err(error) = check.join().unwrap_or_else(|_| Err(anyhow!("the check panicked"))) {
                    failures.push(format!("{}: {call}: {error:#}", answer.name));
                }
            }
        });
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// A connection with a token and a timeout.
fn with_timeout(address: SocketAddr, timeout: Duration) -> Connection {
    Connection { token: Some(TOKEN.into()), timeout: Some(timeout.as_secs_f64()), ..connection(address) }
}

/// Checks the error of a call: its case, a part of its text, that it contains no part of the token,
/// and that it is in time.
fn check<T: std::fmt::Debug>(
    case: &str,
    part: &str,
    timeout: Duration,
    call: impl FnOnce() -> Result<Answer<T>>,
) -> Result<()> {
    let start = Instant::now();
    let answer = call()?;
    let elapsed = start.elapsed();
    let everything = format!("{:?}", answer.0);
    let text = answer.error(case)?;
    ensure!(text.contains(part), "the text does not contain `{part}`: {text}");
    ensure!(!everything.contains(&TOKEN[..8]), "the token is in {everything}");
    ensure!(elapsed < timeout + SLACK, "the call took {elapsed:?}");
    Ok(())
}

/// A 200 with these headers, each with its line end, and this body.
fn ok(headers: &str, body: &str) -> Reply {
    Reply::raw(format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}"))
}

#[test]
#[rustfmt::skip]
fn answers_that_are_not_http_are_invalid() -> Result<()> {
    let long_header = format!("X-Long: {}\r\nContent-Length: 2\r\n", "x".repeat(1_000_000));
    let many_headers: String = (0..1000).map(|number| format!("X-Header-{number}: x\r\n")).collect();
    let check_host = "check `host` and `port`";
    let invalid = "invalid-response";
    check_all(vec![
        BadAnswer::lost("garbage", Reply::raw("garbage\r\n\r\n"), invalid, "without a whole HTTP answer"),
        BadAnswer::lost("binary garbage", Reply::raw([0, 255, 254, 13, 10, 13, 10]), invalid, "without a whole HTTP answer"),
        BadAnswer::lost("garbage that repeats the token", Reply::raw(format!("{TOKEN} {TOKEN}\r\n\r\n")), invalid, "HTTP"),
        BadAnswer::lost("an SSH server", Reply::raw("SSH-2.0-OpenSSH_9.6\r\n").then_stall(), invalid, "HTTP"),
        BadAnswer::lost("closed without an answer", Reply::close(), invalid, "without a whole HTTP answer"),
        BadAnswer::lost("closed in the status line", Reply::raw("HTTP/1.1 200").then_close(), invalid, "HTTP"),
        BadAnswer::lost("closed in a header", Reply::raw("HTTP/1.1 200 OK\r\nContent-Le").then_close(), invalid, "HTTP"),
        BadAnswer::lost("closed after the head", ok("Content-Length: 100\r\n", "").then_close(), invalid, "broke off after 0 bytes"),
        BadAnswer::lost("half a body", ok("Content-Length: 100\r\n", "[{\"ID\":").then_close(), invalid, "broke off after 7 bytes"),
        BadAnswer::lost("half a body without a length", ok("Connection: close\r\n", "[{\"ID\":").then_close(), invalid, check_host),
        BadAnswer::lost("a length that is not a number", ok("Content-Length: many\r\n", "[]"), invalid, "HTTP"),
        BadAnswer::lost("two lengths", ok("Content-Length: 2\r\nContent-Length: 3\r\n", "[]"), invalid, "HTTP"),
        BadAnswer::lost("a length out of range", ok("Content-Length: 18446744073709551615\r\n", "[]").then_close(), invalid, ""),
        BadAnswer::lost("a chunk with an invalid length", ok("Transfer-Encoding: chunked\r\n", "zz\r\n[]\r\n0\r\n\r\n"), invalid, "broke off"),
        BadAnswer::lost("a chunk longer than its length", ok("Transfer-Encoding: chunked\r\n", "1\r\n[]\r\n0\r\n\r\n"), invalid, "broke off"),
        BadAnswer::lost("chunks without an end", ok("Transfer-Encoding: chunked\r\n", "2\r\n[]\r\n").then_close(), invalid, "broke off"),
        BadAnswer::lost("chunks that repeat the token", ok("Transfer-Encoding: chunked\r\n", &format!("{TOKEN}\r\n")), invalid, "broke off"),
        BadAnswer::lost("a header that is too long", ok(&long_header, "[]"), invalid, ""),
        BadAnswer::lost("too many headers", ok(&many_headers, "[]"), invalid, "HTTP"),
        BadAnswer::lost("another protocol", Reply::http(101, "Upgrade: x\r\nConnection: upgrade\r\n", ""), invalid, check_host),
    ])
}

#[test]
#[rustfmt::skip]
fn answers_of_other_servers_are_invalid() -> Result<()> {
    let deep = "[".repeat(100_000);
    let deep_in_session = format!("[{}{deep}", r#"{"ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","Name":"#);
    let check_host = "check `host` and `port`";
    let invalid = "invalid-response";
    check_all(vec![
        BadAnswer::lost("HTML with 200", Reply::http(200, "Content-Type: text/html\r\n", HTML), invalid, check_host),
        BadAnswer::lost("HTML with 404", Reply::http(404, "Content-Type: text/html\r\n", HTML), invalid, check_host),
        BadAnswer::lost("HTML with 502", Reply::http(502, "Content-Type: text/html\r\n", HTML), "unavailable", "try again later"),
        BadAnswer::lost("HTML that repeats the token", Reply::http(200, "", &format!("<p>{TOKEN}</p>")), invalid, "<p>(token)</p>"),
        BadAnswer::lost("a redirect with 301", Reply::http(301, "Location: /elsewhere\r\n", ""), invalid, check_host),
        BadAnswer::lost("a redirect with 307", Reply::http(307, "Location: http://elsewhere.invalid/\r\n", ""), invalid, check_host),
        BadAnswer::lost("no content", Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"), invalid, check_host),
        BadAnswer::lost("an empty body with 200", Reply::json(""), invalid, check_host),
        BadAnswer::lost("truncated JSON", Reply::json("[{\"ID\":"), invalid, check_host),
        BadAnswer::lost("JSON with trailing data", Reply::json("[] []"), invalid, check_host),
        BadAnswer::lost("JSON of another shape", Reply::json("{\"sessions\":[]}"), invalid, check_host),
        BadAnswer::lost("JSON null", Reply::json("null"), invalid, check_host),
        BadAnswer::lost("a list of other values", Reply::json("[1,\"x\",null]"), invalid, check_host),
        BadAnswer::lost("a session whose id is a number", Reply::json("[{\"ID\":5}]"), invalid, check_host),
        BadAnswer::lost("a session with a duplicate member", Reply::json("[{\"ID\":\"a\",\"Name\":\"a\",\"Name\":\"b\"}]"), invalid, check_host),
        BadAnswer::lost("JSON that is not UTF-8", Reply::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[\"\xff]".as_slice()), invalid, check_host),
        BadAnswer::lost("JSON that is nested too deeply", Reply::json(&deep), invalid, check_host),
        BadAnswer::lost("JSON that is nested too deeply in a session", Reply::json(&deep_in_session), invalid, check_host),
        BadAnswer::lost("JSON that repeats the token", Reply::json(&format!("{{\"token\":\"{TOKEN}\"}}")), invalid, "\"(token)\""),
        BadAnswer::lost("an answer of 65 MiB", ok("Content-Length: 68157440\r\n", "").filled(65 << 20), "response-too-large", "larger than 64 MiB"),
        BadAnswer::lost("an endless answer", ok("Connection: close\r\n", "").filled(u64::MAX), "response-too-large", "larger than 64 MiB"),
    ])
}

#[test]
#[rustfmt::skip]
fn late_answers_time_out() -> Result<()> {
    check_all(vec![
        BadAnswer::late("no byte, forever", Reply::stall()),
        BadAnswer::late("half a head, then nothing", Reply::raw("HTTP/1.1 200 OK\r\n").then_stall()),
        BadAnswer::late("half a body, then nothing", ok("Content-Length: 100\r\n", "[").then_stall()),
        BadAnswer::late("a head that trickles", Reply::raw("HTTP/1.1 200 OK\r\nX-Slow: ".to_owned() + &"x".repeat(10_000)).dripping(Duration::from_millis(20))),
        BadAnswer::late("a body that trickles", ok("Content-Length: 10000\r\n", &" ".repeat(10_000)).dripping(Duration::from_millis(20))),
        BadAnswer::late("chunks that trickle", ok("Transfer-Encoding: chunked\r\n", &"1\r\n \r\n".repeat(2000)).dripping(Duration::from_millis(20))),
        BadAnswer::late("only interim answers", Reply::raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(500)).dripping(Duration::from_millis(20))),
    ])
}

#[test]
#[rustfmt::skip]
fn refusals_of_consul_are_reported() -> Result<()> {
    let cut = format!("{}{TOKEN}", "x".repeat(190));
    check_all(vec![
        BadAnswer::refusal("an unknown token", 403, "ACL not found", "access-denied", "give a `token`"),
        BadAnswer::refusal("no permission", 403, "rpc error making call: Permission denied: token lacks permission", "access-denied", "give a `token`"),
        BadAnswer::refusal("no permission, from a proxy", 401, "Unauthorized", "access-denied", "give a `token`"),
        BadAnswer::refusal("a rate limit", 429, "RPC rate limit exceeded", "unavailable", "429"),
        BadAnswer::refusal("the leader's rate limit", 503, "rpc error making call: rate limit exceeded for operation that can only be performed by the leader", "unavailable", "503"),
        BadAnswer::refusal("no leader", 500, "rpc error making call: No cluster leader", "unavailable", "try again later"),
        BadAnswer::refusal("another error of the server", 500, "something broke", "refused", "consul answered 500: something broke"),
        BadAnswer::refusal("an error without a text", 500, "", "refused", "(nothing)"),
        BadAnswer::refusal("an unknown datacenter", 500, "No path to datacenter", "unknown-datacenter", "check `datacenter`"),
        BadAnswer::refusal("a Community Edition", 400, "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature", "unsupported", "Community Edition"),
        BadAnswer::refusal("a refusal that repeats the token", 403, &format!("token {TOKEN} is not known"), "access-denied", "token (token) is not known"),
        BadAnswer::refusal("an error that repeats the token", 500, &format!("{TOKEN}\n\n{TOKEN}"), "refused", "(token) (token)"),
        BadAnswer::refusal("an error that repeats the token where its text is truncated", 500, &cut, "refused", "x(token)…"),
        BadAnswer::lost("a gateway timeout", Reply::http(504, "", "upstream timed out"), "unavailable", "504"),
        BadAnswer::lost("lost leadership", Reply::http(500, "", "leadership lost while committing log"), "unavailable", "try again later"),
    ])
}

fn list(to: &Connection, timeout: Duration) -> Result<Answer<Listing>> {
    block_on(within(timeout, host()?.list_sessions(None, Some(to))))
}

#[test]
fn port_without_a_listener_is_unreachable() -> Result<()> {
    let to = connection(unused_address()?);
    let limit = Duration::from_secs(10);
    check("unreachable", "check `host` and `port`", limit, || list(&to, limit))?;
    // No request was sent, so the outcome is known.
    check("unreachable", "check `host`", limit, || block_on(answer(host()?.create(&CreateOptions::default(), Some(&to)))))
}

#[test]
fn host_that_does_not_resolve_is_unreachable() -> Result<()> {
    let to = Connection { host: Some("name.invalid".into()), ..Connection::default() };
    let limit = Duration::from_secs(10);
    check("unreachable", "check `host`", limit, || list(&to, limit))
}

#[test]
fn https_to_a_silent_server_times_out() -> Result<()> {
    let silence = Scripted::silent()?;
    let to = Connection { scheme: Some(Scheme::Https), ..with_timeout(silence.local_addr()?, SHORT) };
    check("timeout", "within 1s", SHORT, || list(&to, SHORT))
}

#[test]
fn https_without_validation_is_denied_and_sends_nothing() -> Result<()> {
    let server = Scripted::silent()?;
    server.set_nonblocking(true)?;
    let to =
        Connection { scheme: Some(Scheme::Https), validate_certs: Some(false), ..with_timeout(server.local_addr()?, SHORT) };
    check("denied-by-host", "`validate_certs=false` is not granted", SHORT, || list(&to, SHORT))?;
    ensure!(server.accept().is_err(), "the plugin connected");
    Ok(())
}

/// The requests are larger than the buffers of both sockets and of the host between them.
#[test]
fn large_request_that_is_not_read_times_out() -> Result<()> {
    let silence = Scripted::silent()?;
    let to = with_timeout(silence.local_addr()?, SHORT);
    for (count, length) in [(1000, 100), (100_000, 200)] {
        let session = CreateOptions { node_checks: Some(vec!["x".repeat(length); count]), ..CreateOptions::default() };
        check("outcome-unknown", "within 1s", SHORT, || block_on(within(SHORT, host()?.create(&session, Some(&to)))))?;
    }
    // `apply` reads first, and a read without an answer ends with `timeout`.
    let options = Options {
        name: Some("s1".into()),
        checks: Some(vec!["x".repeat(100); 1000]),
        timeout: Some(SHORT.as_secs_f64()),
        ..options(silence.local_addr()?)
    };
    check("timeout", "within 1s", SHORT, || block_on(within(SHORT, host()?.apply(&options))))
}

#[test]
fn blocking_query_times_out_after_its_wait_and_timeout() -> Result<()> {
    let server = Scripted::replies([Reply::stall()])?;
    let to = with_timeout(server.address(), SHORT);
    let query = Query { index: Some(7), wait: Some(1.0), consistency: None };
    let start = Instant::now();
    // Consul adds up to a sixteenth to the wait.
    check("timeout", "within 2062ms", SHORT * 3, || {
        block_on(within(SHORT * 3, host()?.list_sessions(Some(query), Some(&to))))
    })?;
    ensure!(start.elapsed() >= Duration::from_millis(2062), "it timed out after {:?}", start.elapsed());
    Ok(())
}

/// The session is created, and the answer that says so is lost.
#[test]
fn create_whose_answer_is_lost_is_found_by_apply() -> Result<()> {
    let created = AtomicBool::new(false);
    let server = Scripted::start(move |request| match request.line().as_str() {
        "PUT /v1/session/create" => {
            created.store(true, Ordering::Relaxed);
            Reply::close()
        }
        "GET /v1/agent/self" => Reply::json(r#"{"Config":{"NodeName":"n1"}}"#),
        _ if created.load(Ordering::Relaxed) => Reply::json(&format!("[{SESSION}]")),
        _ => Reply::json("[]"),
    })?;
    let options = Options { name: Some("s1".into()), ..options(server.address()) };
    let outcome = block_on(answer(host()?.apply(&options)))?.value()?;
    ensure!(outcome.changed && outcome.session_id.as_deref() == Some(ID), "{outcome:?}");
    let creations = server.requests().iter().filter(|request| request.line().contains("create")).count();
    ensure!(creations == 1, "the session was created {creations} times");
    Ok(())
}

#[test]
fn destroy_whose_answer_is_lost_is_retried() -> Result<()> {
    let server = Scripted::replies([Reply::close(), Reply::json("true")])?;
    block_on(answer(host()?.destroy(ID, Some(&connection(server.address())))))?.value()?;
    let lines: Vec<String> = server.requests().iter().map(Request::line).collect();
    let line = format!("PUT /v1/session/destroy/{ID}");
    ensure!(lines == [line.clone(), line], "{lines:?}");
    Ok(())
}

#[test]
fn answer_in_pieces_is_read_whole() -> Result<()> {
    let list = format!("[{SESSION}]");
    let (begin, end) = list.split_at(100);
    let chunks = format!("{:x}\r\n{begin}\r\n{:x};x=y\r\n{end}\r\n0\r\nX-Trailer: x\r\n\r\n", begin.len(), end.len());
    for reply in [
        Reply::raw(format!("HTTP/1.1 200 OK\r\nx-CONSUL-index: 7\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
        Reply::raw(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nX-Consul-Index: 7\r\n\r\n{list}")).then_close(),
    ] {
        let server = Scripted::replies([reply.dripping(Duration::from_millis(1))])?;
        let listing = block_on(answer(host()?.list_sessions(None, Some(&connection(server.address())))))?.value()?;
        ensure!(listing.index == 7 && listing.sessions.len() == 1 && listing.sessions[0].id == ID, "{listing:?}");
    }
    Ok(())
}

#[test]
fn list_of_20_000_sessions_is_read() -> Result<()> {
    let server = Scripted::replies([Reply::json(&format!("[{}]", vec![SESSION; 20_000].join(",\n")))])?;
    let listing = block_on(answer(host()?.list_sessions(None, Some(&connection(server.address())))))?.value()?;
    ensure!(listing.sessions.len() == 20_000, "{}", listing.sessions.len());
    ensure!(listing.sessions.iter().all(|session| session.id == ID));
    Ok(())
}

/// A session can be read whatever its fields hold.
#[test]
fn sessions_with_unexpected_fields_are_read() -> Result<()> {
    let server = Scripted::replies([Reply::http(
        200,
        "X-Consul-Index: none\r\nX-Consul-Results-Filtered-By-ACLs: \u{e9}\r\n",
        &format!(
            r#"[{{"ID":"{ID}"}},
                {{"ID":"{ID}","Name":null,"Node":7,"LockDelay":-5000000000,"Behavior":[],"TTL":{{}},"NodeChecks":null,
                  "ServiceChecks":[null,{{"ID":"web"}}],"Checks":"x","CreateIndex":-1,"ModifyIndex":1e400,"New":[{{"a":[]}}]}},
                {{"Name":"b","ID":"{ID}","LockDelay":9223372036854775808}}]"#
        )
        .replace("1e400", "1e300"),
    )])?;
    let listing = block_on(answer(host()?.list_sessions(None, Some(&connection(server.address())))))?.value()?;
    ensure!(listing.sessions.len() == 3 && listing.index == 0 && !listing.filtered, "{listing:?}");
    ensure!(listing.sessions.iter().any(|session| session.lock_delay == -5_000_000_000), "{listing:?}");
    Ok(())
}

/// Sessions with one name, as Consul writes them, not sorted by age.
fn sessions(count: usize) -> String {
    let session = |n: usize| {
        let index = 1000 + n * 7919 % count;
        format!(
            r#"{{"ID":"adf4238a-882b-9ddc-4a9d-{n:012x}","Name":"session-1","Node":"node-{}","LockDelay":15000000000,"Behavior":"release","TTL":"","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":{index},"ModifyIndex":{index}}}"#,
            n % 50
        )
    };
    format!("[{}]", (0..count).map(session).collect::<Vec<_>>().join(","))
}

/// The guest's memory never shrinks, so its size after a call is the peak of that call.
#[test]
fn list_of_100_000_sessions_takes_less_than_three_times_its_body() -> Result<()> {
    let body = sessions(100_000);
    let size = body.len() as u64;
    let server = Scripted::start(move |_| Reply::json(&body))?;
    let (to, listing) = (connection(server.address()), Options { state: Some(State::List), ..options(server.address()) });
    let json = format!(r#"{{"state":"list","host":"{}","port":{}}}"#, server.address().ip(), server.address().port());
    block_on(async {
        let mut instance = host()?.instance().await?;
        let listed = answer(instance.list_sessions(None, Some(&to))).await?.value()?.sessions;
        ensure!(listed.len() == 100_000 && listed.is_sorted_by_key(|session| session.create_index), "{}", listed.len());
        ensure!(instance.memory().as_u64() < 3 * size, "{} for {size} bytes", instance.memory());
        // The next call reuses all of it.
        let after_one = instance.memory();
        answer(instance.list_sessions(None, Some(&to))).await?.value()?;
        ensure!(instance.memory() == after_one, "{after_one} grew to {}", instance.memory());
        ensure!(answer(instance.apply(&listing)).await?.value()?.sessions == listed, "apply lists other sessions");
        ensure!(instance.memory().as_u64() < 3 * size, "apply: {} for {size} bytes", instance.memory());
        answer(instance.apply_json(&json)).await?.value()?;
        ensure!(instance.memory().as_u64() < 4 * size, "apply-json: {} for {size} bytes", instance.memory());
        Ok(())
    })
}

/// The most memory that the plugin takes to read an answer of any content; stated in
/// docs/host-contract.md.
const MOST_READ: u64 = 256 << 20;
/// The most memory that it takes to read the answer and write it as JSON.
const MOST_WRITTEN: u64 = 360 << 20;

/// A session as most are.
const PLAIN: &str = r#"{"ID":"adf4238a-882b-9ddc-4a9d-5b6758e4159e","Name":"session-1","Node":"node-1","LockDelay":15000000000,"Behavior":"release","TTL":"","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":5,"ModifyIndex":5}"#;

/// How long a call with a large answer may take. These tests are about memory, and a busy machine is
/// slow.
const LONG: Duration = Duration::from_secs(60);

/// Returns a plugin host for large answers, which may compute for as long.
fn patient_host() -> Result<&'static Host> {
    static HOST: LazyLock<Result<Host>> = LazyLock::new(|| {
        let builder = Host::builder().allow("*:*".parse()?).limit("compute", "5m")?;
        builder.build(plugin()?).map_err(|error| anyhow!("{error:?}"))
    });
    started(&HOST)
}

/// Makes the body of an answer.
type Body = fn() -> String;

#[test]
fn answers_of_64_mib_with_sessions_are_read_in_bounded_memory() -> Result<()> {
    check_large_answers(
        None,
        &[
            ("sessions", || filled(PLAIN)),
            ("sessions whose names are not ASCII", || filled(&PLAIN.replace("session-1", "sëssiön-1 🦀"))),
            ("sessions with a service check", || filled(&with_service_checks(PLAIN, 1))),
            ("sessions with three service checks", || filled(&with_service_checks(PLAIN, 3))),
            ("sessions with five service checks", || filled(&with_service_checks(PLAIN, 5))),
            ("sessions with five node checks", || filled(&PLAIN.replace("serfHealth", r#"serfHealth","c1","c2","c3","c4"#))),
            ("one session with a name of 64 MiB", || named("")),
            ("one session with a name of 64 MiB that has an escape", || named(r"\n")),
            ("sessions with an unknown field of 10,000 numbers", || filled(&with_unknown(&list_of("0", 20_000)))),
            ("one session with an unknown field of 32,000,000 numbers", || {
                format!("[{}]", with_unknown(&list_of("0", 64_000_000)))
            }),
            ("one session with an unknown field that is nested", || {
                format!("[{}]", with_unknown(&format!("{}{}", "[".repeat(32_000_000), "]".repeat(32_000_000))))
            }),
        ],
    )
}

#[test]
fn answers_of_64_mib_with_too_many_elements_are_too_large() -> Result<()> {
    check_large_answers(
        Some("response-too-large"),
        &[
            ("the shortest sessions", || filled(r#"{"ID":"x"}"#)),
            ("sessions with five node checks of one letter", || filled(r#"{"ID":"x","NodeChecks":["x","x","x","x","x"]}"#)),
            ("sessions with five service checks of two letters", || {
                let check = r#"{"ID":"x","Namespace":"x"}"#;
                filled(&format!(r#"{{"ID":"x","ServiceChecks":[{}]}}"#, [check; 5].join(",")))
            }),
            ("sessions with 250,000 checks in each list", || filled(&with_checks(250_000))),
            ("one session with 2,400,000 checks in each list", || {
                let rest = "x".repeat(17 << 20);
                format!(r#"[{{"ID":"{rest}"}},{}]"#, with_checks(2_400_000))
            }),
            ("one session with 21,000,000 node checks", || {
                format!(r#"[{{"ID":"x","NodeChecks":{}}}]"#, list_of(r#""""#, 64_000_000))
            }),
            ("one session with 21,000,000 service checks", || {
                format!(r#"[{{"ID":"x","ServiceChecks":{}}}]"#, list_of("{}", 64_000_000))
            }),
        ],
    )
}

#[test]
fn answers_of_64_mib_without_sessions_are_invalid() -> Result<()> {
    check_large_answers(
        Some("invalid-response"),
        &[("empty objects", || filled("{}")), ("empty lists", || filled("[]")), ("numbers", || filled("0"))],
    )
}

/// An answer that is written more than once: `info` has the fields of the session beside it, and
/// `diff` has the sessions before and after.
#[test]
fn answers_of_64_mib_are_written_in_bounded_memory() -> Result<()> {
    let info = format!(r#""state":"info","id":"{ID}""#);
    let absent = r#""state":"absent","name":"session-1","node":"node-1","dry_run":true"#;
    for (name, options, body) in [
        ("info of a long name", &info[..], named("")),
        ("info of a long name with an escape", &info, named(r"\n")),
        ("info of many checks", &info, format!("[{}]", with_checks(250_000))),
        ("absent", absent, filled(PLAIN)),
    ] {
        let server = Scripted::start(move |_| Reply::json(&body))?;
        let options =
            format!(r#"{{{options},"timeout":60,"host":"{}","port":{}}}"#, server.address().ip(), server.address().port());
        block_on(async {
            let mut instance = patient_host()?.instance().await?;
            let written = within(LONG, instance.apply_json(&options)).await.context(name)?;
            let written = written.value()?;
            ensure!(written.len() > 1 << 20, "{name}: {written}");
            ensure!(instance.memory().as_u64() <= MOST_WRITTEN, "{name}: {}", instance.memory());
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

/// Checks answers of nearly 64 MiB: the memory that each takes, and that a read of it ends with
/// this error, or with sessions.
fn check_large_answers(error: Option<&str>, answers: &[(&'static str, Body)]) -> Result<()> {
    answers.iter().try_for_each(|(name, body)| check_large_answer(body(), error).context(*name))
}

/// A list of nearly 64 MiB that repeats this element.
fn filled(element: &str) -> String {
    list_of(element, (64 << 20) - 100)
}

/// A list of nearly `size` bytes that repeats this element.
fn list_of(element: &str, size: usize) -> String {
    format!("[{}]", vec![element; size / (element.len() + 1)].join(","))
}

fn with_service_checks(session: &str, count: usize) -> String {
    let checks = (0..count).map(|n| format!(r#"{{"ID":"service:web-{n}","Namespace":""}}"#)).collect::<Vec<_>>().join(",");
    session.replace("null", &format!("[{checks}]"))
}

/// A session with this many checks in each of its lists.
fn with_checks(count: usize) -> String {
    let [checks, services] = [r#""x""#, r#"{"ID":"x"}"#].map(|check| list_of(check, count * (check.len() + 1)));
    format!(r#"{{"ID":"x","NodeChecks":{checks},"Checks":{checks},"ServiceChecks":{services}}}"#)
}

/// A list of one session whose name takes nearly 64 MiB.
fn named(start: &str) -> String {
    format!(r#"[{{"ID":"x","Name":"{start}{}"}}]"#, "x".repeat((64 << 20) - 100))
}

fn with_unknown(value: &str) -> String {
    format!(r#"{{"ID":"x","Unknown":{value}}}"#)
}

fn check_large_answer(body: String, error: Option<&str>) -> Result<()> {
    ensure!((60 << 20..=64 << 20).contains(&body.len()), "{} bytes", body.len());
    let (server, small) = (Scripted::start(move |_| Reply::json(&body))?, Scripted::replies([Reply::json("[]")])?);
    let to = server.address();
    let patient = Connection { timeout: Some(LONG.as_secs_f64()), ..connection(to) };
    let options = format!(r#"{{"state":"list","timeout":60,"host":"{}","port":{}}}"#, to.ip(), to.port());
    block_on(async {
        let mut instance = patient_host()?.instance().await?;
        let listed = within(LONG, instance.list_sessions(None, Some(&patient))).await?;
        let read = instance.memory().as_u64();
        let printed = within(LONG, instance.apply_json(&options)).await?;
        match error {
            None => ensure!(!listed.value()?.sessions.is_empty() && printed.value()?.len() > 100),
            Some(case) => ensure!(listed.error(case)? == printed.error(case)?),
        }
        let written = instance.memory().as_u64();
        ensure!(read <= MOST_READ && written <= MOST_WRITTEN, "{} and {} MiB of memory", read >> 20, written >> 20);
        // The instance still works.
        answer(instance.list_sessions(None, Some(&connection(small.address())))).await?.value()?;
        Ok(())
    })
}

#[test]
fn call_with_2_000_requests_takes_bounded_memory() -> Result<()> {
    const SESSIONS: usize = 2_000;
    let body = sessions(SESSIONS);
    let size = body.len() as u64;
    let left = AtomicUsize::new(SESSIONS);
    let server = Scripted::start(move |request| {
        let reads = request.line().starts_with("GET");
        match left.fetch_sub(usize::from(!reads), Ordering::SeqCst) {
            0 => Reply::json("[]"),
            _ if reads => Reply::json(&body),
            _ => Reply::json("true"),
        }
    })?;
    let absent = Options {
        state: Some(State::Absent),
        name: Some("session-1".into()),
        node: Some("node-0".into()),
        ..options(server.address())
    };
    block_on(async {
        let mut instance = host()?.instance().await?;
        let before = instance.memory().as_u64();
        let destroyed = answer(instance.apply(&absent)).await?.value()?.destroyed;
        ensure!(destroyed.len() == SESSIONS, "{}", destroyed.len());
        let grown = instance.memory().as_u64() - before;
        ensure!(grown < 5 * size, "{grown} bytes for {size} and the requests");
        Ok(())
    })
}

/// Runs in a process of its own, so that the memory of other tests does not count.
#[test]
fn endless_answer_takes_bounded_memory() -> Result<()> {
    /// Set in the copy of this program that runs this test alone.
    const ALONE: &str = "CONSUL_SESSION_TEST_ENDLESS_ANSWER";
    /// The most that it takes: four times the largest answer.
    const MOST: u64 = 4 * (64 << 20);

    if std::env::var_os(ALONE).is_none() {
        let mut copy = Command::new(std::env::current_exe()?);
        copy.args(["--exact", "answers::endless_answer_takes_bounded_memory", "--nocapture"]).env(ALONE, "1");
        let output = copy.output()?;
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(output.status.success() && text.contains("1 passed"), "{text}");
        return Ok(());
    }
    let server = Scripted::replies([Reply::raw("HTTP/1.1 200 OK\r\n\r\n").filled(u64::MAX)])?;
    let (host, to) = (host()?, connection(server.address()));
    let before = peak_memory()?;
    block_on(answer(host.list_sessions(None, Some(&to))))?.error("response-too-large")?;
    if let (Some(before), Some(after)) = (before, peak_memory()?) {
        ensure!(after - before < MOST, "{} MiB", (after - before) >> 20);
    }
    Ok(())
}

#[test]
fn rest_of_a_large_answer_is_not_read_by_the_next_call() -> Result<()> {
    let large = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 68157440\r\n\r\n").filled(65 << 20);
    let server = Scripted::replies([large, Reply::json(&format!("[{SESSION}]"))])?;
    let to = connection(server.address());
    block_on(answer(host()?.list_sessions(None, Some(&to))))?.error("response-too-large")?;
    let listing = block_on(answer(host()?.list_sessions(None, Some(&to))))?.value()?;
    ensure!(listing.sessions.len() == 1, "{listing:?}");
    Ok(())
}

#[test]
fn dropped_call_does_not_affect_the_next_call() -> Result<()> {
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Scripted::start(move |request| match request.connection {
        0 => {
            // The receiver lives as long as the test.
            let _ = sender.send(());
            Reply::stall()
        }
        _ => Reply::json("[]"),
    })?;
    let to = connection(server.address());
    block_on(async {
        let host = host()?;
        tokio::select! {
            answer = host.list_sessions(None, Some(&to)) => bail!("the stalled call returned {answer:?}"),
            _ = requests.recv() => {}
        }
        answer(host.list_sessions(None, Some(&to))).await?.value()?;
        Ok(())
    })
}
