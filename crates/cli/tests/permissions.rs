//! The host's permissions against a real Consul: Unix sockets, addresses from standard input, the
//! configuration file, tokens and limits. The texts of the errors are compared exactly. TLS is in
//! `tls.rs`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use tempfile::tempdir;
use test_support::TOKEN;
use test_support::certificates::Certificate;
use test_support::consul::{Consul, Kind, ROOT_TOKEN, Settings};
use test_support::program::{CommandLine, file};
use test_support::scripted::{Reply, Scripted};

/// Returns the command line of the program with these variables and arguments.
fn consul_session(line: impl Into<String>) -> CommandLine {
    CommandLine::new(env!("CARGO_BIN_EXE_consul-session"), line)
}

/// The output of `state=list` with a new agent.
const NO_SESSION: &str = "no session\n";

#[test]
fn unix_socket_is_accepted_from_every_source() -> Result<()> {
    let agent = Consul::start_with(Settings { unix_socket: true, ..Settings::default() })?;
    let socket = agent.socket().context("no socket")?;
    let socket = socket.display();
    consul_session(format!("CONSUL_HTTP_ADDR=unix://{socket} state=list")).prints(NO_SESSION)?;
    consul_session(format!("state=list host=unix://{socket}")).prints(NO_SESSION)?;
    consul_session(format!("state=list --host unix://{socket}")).prints(NO_SESSION)?;
    // An argument takes precedence over the environment.
    consul_session(format!("CONSUL_HTTP_ADDR=unix:///missing.sock state=list host=unix://{socket}")).prints(NO_SESSION)?;
    consul_session(format!("CONSUL_HTTP_ADDR=https://localhost:1 CONSUL_HTTP_SSL=true state=list host=unix://{socket}"))
        .prints(NO_SESSION)?;
    let port = agent.http().port();
    consul_session(format!("CONSUL_HTTP_ADDR=unix:///missing.sock state=list host=127.0.0.1 port={port}"))
        .prints(NO_SESSION)?;
    let created = consul_session(format!("CONSUL_HTTP_ADDR=unix://{socket} name=s delay=20s")).run(&[])?.succeeded()?.stdout;
    ensure!(created.starts_with("changed: created a session\n"), "{created}");
    consul_session(format!("CONSUL_HTTP_ADDR=unix://{socket} name=s state=absent")).run(&[])?.succeeded()?;
    ensure!(agent.api().sessions()?.is_empty());
    // The configuration file maps the address that the component uses to a socket.
    let folder = tempdir()?;
    std::os::unix::fs::symlink(agent.socket().context("no socket")?, folder.path().join("s.sock"))?;
    let socket = folder.path().join("s.sock");
    let mapping = "[unix_sockets]\n\"consul.invalid:80\" = \"s.sock\"\n";
    let config = file(&folder, "c.toml", format!("allow = [\"unix://{}\"]\n{mapping}", socket.display()))?;
    consul_session(format!("CONSUL_HTTP_ADDR=consul.invalid:80 state=list --config {config}")).prints(NO_SESSION)?;
    let config = file(&folder, "c.toml", mapping)?;
    let socket = socket.display();
    consul_session(format!("CONSUL_HTTP_ADDR=consul.invalid:80 state=list --config {config}")).fails(
        "denied-by-host",
        &format!("the host's policy does not allow unix://{socket}: add `--allow unix://{socket}`, or to the configuration file: allow = [\"unix://{socket}\"]"),
    )
}

#[test]
fn unix_socket_with_port_or_scheme_is_rejected() -> Result<()> {
    for (line, option) in [
        ("CONSUL_HTTP_ADDR=unix:///run/consul.sock state=list port=8500", "port"),
        ("state=list host=unix:///run/consul.sock port=8500", "port"),
        ("state=list host=unix:///run/consul.sock scheme=https", "scheme"),
    ] {
        let message = format!("option `{option}` cannot be combined with a Unix socket (unix:///run/consul.sock)");
        consul_session(line).fails("invalid-option", &message)?;
    }
    consul_session("CONSUL_HTTP_ADDR=unix:///run/consul.sock -")
        .reading(r#"{"state": "list", "port": 8500}"#)
        .fails("invalid-option", "option `port` cannot be combined with a Unix socket (unix:///run/consul.sock)")?;
    for (line, address) in
        [("CONSUL_HTTP_ADDR=unix://consul.sock state=list", "unix://consul.sock"), ("state=list host=unix://", "unix://")]
    {
        let message =
            format!("option `host`: `{address}`: the path of a Unix socket is absolute, as in unix:///run/consul.sock");
        consul_session(line).fails("invalid-option", &message)?;
    }
    Ok(())
}

#[test]
fn missing_or_dead_unix_socket_is_reported() -> Result<()> {
    let folder = tempdir()?;
    let path = folder.path().join("consul.sock");
    let socket = path.display();
    let missing =
        format!("the Unix socket {socket} (for localhost:8500) does not exist: check the path, and whether the agent runs");
    consul_session(format!("CONSUL_HTTP_ADDR=unix://{socket} state=present")).fails("unreachable", &missing)?;
    consul_session(format!("state=present host=unix://{socket}")).fails("unreachable", &missing)?;
    // The file outlives its listener. A socket without permission is not tested: it needs another
    // user, and root can use every socket.
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    let dead = format!("nothing listens on the Unix socket {socket} (for localhost:8500): check whether the agent runs");
    consul_session(format!("CONSUL_HTTP_ADDR=unix://{socket} state=present")).fails("unreachable", &dead)
}

/// Returns the message of a connection that no rule allows.
fn not_allowed(target: &str) -> String {
    format!(
        "the host's policy does not allow {target}: add `--allow {target}`, or to the configuration file: allow = [\"{target}\"]"
    )
}

#[test]
fn stdin_address_without_permission_is_denied() -> Result<()> {
    let agent = Consul::start_with(Settings { unix_socket: true, ..Settings::default() })?;
    let port = agent.http().port();
    let to = |host: &str| format!(r#"{{"state": "list", "host": "{host}", "port": {port}}}"#);
    for (host, rule, other) in [
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.1", "127.0.0.0/8", "10.0.0.0/8"),
        ("localhost", "localhost", "*.localhost"),
        // A rule for addresses decides on the addresses of the name.
        ("localhost", "127.0.0.0/8", "127.0.0.1"),
        ("LOCALHOST", "localhost", "consul.example"),
    ] {
        let target = format!("{}:{port}", host.to_lowercase());
        consul_session("-").reading(to(host)).fails("denied-by-host", &not_allowed(&target))?;
        consul_session(format!("- --allow {other}:{port} --allow {rule}:1-2"))
            .reading(to(host))
            .fails("denied-by-host", &not_allowed(&target))?;
        consul_session(format!("- --allow {rule}:{port}")).reading(to(host)).prints(NO_SESSION)?;
    }
    // An address that comes only in part from standard input needs permission too.
    let only_port = format!(r#"{{"state": "list", "port": {port}}}"#);
    consul_session("- host=127.0.0.1")
        .reading(&only_port)
        .fails("denied-by-host", &not_allowed(&format!("127.0.0.1:{port}")))?;
    consul_session("CONSUL_HTTP_ADDR=127.0.0.1:1 -")
        .reading(&only_port)
        .fails("denied-by-host", &not_allowed(&format!("127.0.0.1:{port}")))?;
    // An address from the arguments or the environment needs none, whatever standard input
    // contains.
    consul_session(format!("- host=127.0.0.1 port={port}"))
        .reading(r#"{"state": "list", "host": "10.0.0.1", "port": 1}"#)
        .prints(NO_SESSION)?;
    consul_session(format!("CONSUL_HTTP_ADDR=127.0.0.1:{port} -")).reading(r#"{"state": "list"}"#).prints(NO_SESSION)?;

    let socket = agent.socket().context("no socket")?;
    let socket = format!("unix://{}", socket.display());
    let to_socket = format!(r#"{{"state": "list", "host": "{socket}"}}"#);
    consul_session("-").reading(&to_socket).fails("denied-by-host", &not_allowed(&socket))?;
    // A rule for addresses does not allow a socket.
    consul_session("- --allow *:*").reading(&to_socket).fails("denied-by-host", &not_allowed(&socket))?;
    consul_session(format!("- --allow {socket}")).reading(&to_socket).prints(NO_SESSION)
}

#[test]
fn config_file_allows_denies_and_limits() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let port = agent.http().port();
    let folder = tempdir()?;
    let input = format!(r#"{{"state": "list", "host": "127.0.0.1", "port": {port}}}"#);
    for allow in [format!("[\"127.0.0.1:{port}\"]"), "[\"10.0.0.0/8:*\", \"127.0.0.0/8:*\"]".to_owned()] {
        let config = file(&folder, "c.toml", format!("allow = {allow}\n"))?;
        consul_session(format!("- --config {config}")).reading(&input).prints(NO_SESSION)?;
    }
    // The rules of several files add up.
    let (one, two) = (file(&folder, "1.toml", "allow = [\"a:1\"]\n")?, file(&folder, "2.toml", "allow = [\"127.0.0.1:*\"]\n")?);
    consul_session(format!("- --config {one}"))
        .reading(&input)
        .fails("denied-by-host", &not_allowed(&format!("127.0.0.1:{port}")))?;
    consul_session(format!("- --config {one} --config {two}")).reading(&input).prints(NO_SESSION)?;
    // `deny` also applies to an address from the arguments.
    let config = file(&folder, "c.toml", "deny = [\"127.0.0.0/8:*\"]\n")?;
    let denied = |target: &str, resolved: &str| {
        format!(
            "the host's policy does not allow {target}:{port}{resolved}, which the rule `127.0.0.0/8:*` of `deny` forbids: take that rule out of `deny`"
        )
    };
    consul_session(format!("state=list host=127.0.0.1 port={port} --allow *:* --config {config}"))
        .fails("denied-by-host", &denied("127.0.0.1", ""))?;
    let hosts = file(&folder, "c.toml", format!("deny = [\"127.0.0.0/8:*\", \"[::1]:{port}\"]\n"))?;
    let output = consul_session(format!("state=list host=localhost port={port} --config {hosts}")).run(&[])?;
    // The message names the address that the name resolves to first.
    let v6 = format!(
        "error (denied-by-host): the host's policy does not allow localhost:{port}, which resolves to ::1, which the rule `[::1]:{port}` of `deny` forbids: take that rule out of `deny`\n"
    );
    let v4 = format!("error (denied-by-host): {}\n", denied("localhost", ", which resolves to 127.0.0.1"));
    ensure!(output.status == 1 && (output.stderr == v4 || output.stderr == v6), "{output:?}");
    let limits = file(&folder, "c.toml", "[limits]\nresponse = 1\n")?;
    consul_session(format!("state=list host=127.0.0.1 port={port} --config {limits}")).fails(
        "response-too-large",
        &format!(
            "the answer from 127.0.0.1:{port} is larger than 1 B, the host's limit `response`: read the sessions of one node, or raise it with `--limit response=SIZE`"
        ),
    )?;
    // An argument takes precedence over the file.
    consul_session(format!("state=list host=127.0.0.1 port={port} --config {limits} --limit response=1KiB")).prints(NO_SESSION)
}

/// Starts an agent that needs a token.
///
/// Returns it with the variables for HTTP, HTTPS and the Unix socket.
fn agent_with_acls() -> Result<(Consul, [String; 3])> {
    let settings = Settings { acl: true, https: Some(Certificate::Good), unix_socket: true, ..Settings::default() };
    let (agent, port) = Consul::start_secure(settings)?;
    let socket = agent.socket().context("no socket")?;
    let addresses = [
        format!("CONSUL_HTTP_ADDR={}", agent.http()),
        format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display()),
        format!("CONSUL_HTTP_ADDR=unix://{}", socket.display()),
    ];
    Ok((agent, addresses))
}

/// The beginning of the answer when the token can see the existing session.
const FOUND: &str = "unchanged: the session is as wanted\n";

#[test]
fn host_token_reaches_the_agent() -> Result<()> {
    let (agent, addresses) = agent_with_acls()?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "s"})))?;
    let folder = tempdir()?;
    let right = file(&folder, "token", ROOT_TOKEN)?;
    let line = file(&folder, "line", format!("{ROOT_TOKEN}\r\n"))?;
    let wrong = file(&folder, "wrong", TOKEN)?;
    for address in &addresses {
        for args in [
            format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={right} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={line} name=s"),
            format!("name=s --token-file {right}"),
            format!("name=s token={ROOT_TOKEN}"),
            // An argument takes precedence over the environment, and a file over the token itself.
            format!("CONSUL_HTTP_TOKEN={TOKEN} name=s --token-file {right}"),
            format!("CONSUL_HTTP_TOKEN={TOKEN} name=s token={ROOT_TOKEN}"),
            format!("CONSUL_HTTP_TOKEN={TOKEN} CONSUL_HTTP_TOKEN_FILE={right} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={wrong} name=s token={ROOT_TOKEN}"),
            format!("CONSUL_HTTP_TOKEN_FILE={wrong} name=s --token-file {right}"),
        ] {
            consul_session(format!("{address} {args}")).begins(FOUND)?;
        }
    }
    // Standard input names an allowed agent. The token is sent to each agent that is allowed.
    let port = agent.http().port();
    let input = format!(r#"{{"name": "s", "host": "127.0.0.1", "port": {port}}}"#);
    consul_session(format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN} - --allow 127.0.0.1:{port}")).reading(input).begins(FOUND)?;
    let socket = format!("unix://{}", agent.socket().context("no socket")?.display());
    let input = format!(r#"{{"name": "s", "host": "{socket}"}}"#);
    consul_session(format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN} - --allow {socket}")).reading(input).begins(FOUND)?;
    // A `[[token]]` rule of the configuration file.
    let rule = format!("[[token]]\nauthority = \"127.0.0.1:{port}\"\nfile = \"token\"\nscheme = \"http\"\n");
    let config = file(&folder, "c.toml", rule)?;
    consul_session(format!("{} name=s --config {config}", addresses[0])).begins(FOUND)?;
    let other = file(&folder, "c.toml", "[[token]]\nauthority = \"127.0.0.1:1\"\nfile = \"token\"\n")?;
    let nothing_visible =
        "no session is visible: ACLs hide sessions, or may\nnote: ACLs hid sessions from this answer, or may have\n";
    consul_session(format!("{} state=list --config {other}", addresses[0])).prints(nothing_visible)
}

/// Returns the message for a token that would go over plain HTTP.
fn needs_tls(at: SocketAddr) -> String {
    format!(
        "the host sends its token to {at} over TLS only, but the request is plain http: use `scheme=https`, or let the token be read on the way: type `scheme=http`, or in the configuration file: [[token]] with scheme = \"http\""
    )
}

#[test]
fn host_token_goes_over_http_only_where_the_operator_wrote_http() -> Result<()> {
    let server = Scripted::start(|_| Reply::json("[]"))?;
    let (at, folder) = (server.address(), tempdir()?);
    let (host, port) = (at.ip(), at.port());
    let token = file(&folder, "token", TOKEN)?;
    let record = file(&folder, "records.yaml", "- {name: s, scheme: http}\n")?;
    let refused = needs_tls(at);
    let input = r#"{"state": "list", "scheme": "http"}"#;
    let with_host = format!(r#"{{"state": "list", "scheme": "http", "host": "{host}", "port": {port}}}"#);
    for (line, input) in [
        (format!("CONSUL_HTTP_ADDR=https://{at} CONSUL_HTTP_TOKEN={TOKEN} -"), input),
        (format!("CONSUL_HTTP_ADDR={at} CONSUL_HTTP_SSL=true CONSUL_HTTP_TOKEN_FILE={token} -"), input),
        (format!("CONSUL_HTTP_ADDR=https://{at} - --token-file {token}"), input),
        (format!("CONSUL_HTTP_ADDR=https://{at} - host={host} port={port} --token-file {token}"), input),
        (format!("CONSUL_HTTP_SSL=1 CONSUL_HTTP_TOKEN={TOKEN} - --allow {at}"), &with_host),
    ] {
        consul_session(line).reading(input).fails("denied-by-host", &refused)?;
    }
    // A typed scheme takes precedence over the input's.
    consul_session(format!("CONSUL_HTTP_TOKEN={TOKEN} - host={host} port={port} scheme=https")).reading(input).run(&[])?;
    for args in [
        format!("CONSUL_HTTP_ADDR=https://{at} CONSUL_HTTP_TOKEN={TOKEN} apply {record}"),
        format!("CONSUL_HTTP_TOKEN={TOKEN} apply {record} --host={host} --port={port} --scheme=https"),
    ] {
        let output = consul_session(&args).run(&["--format", "json"])?;
        ensure!(output.status == 1 && output.stdout.contains("denied-by-host"), "{args}: {output:?}");
    }
    // A rule of the configuration file is for TLS, whatever is typed.
    let rule = format!("[[token]]\nauthority = \"{at}\"\nfile = \"token\"\n");
    for scheme in ["", "scheme = \"https\"\n"] {
        let config = file(&folder, "c.toml", format!("{rule}{scheme}"))?;
        consul_session(format!("CONSUL_HTTP_ADDR={at} state=list --config {config}")).fails("denied-by-host", &refused)?;
        consul_session(format!("state=list host={host} port={port} scheme=http --config {config}"))
            .fails("denied-by-host", &refused)?;
    }
    let seen: String = server.requests().iter().map(|request| request.text()).collect();
    ensure!(!seen.contains(TOKEN) && !seen.contains("/v1/"), "{seen}");

    // Where the operator wrote http, or nothing, which means http.
    let config = file(&folder, "c.toml", format!("{rule}scheme = \"http\"\n"))?;
    let lines = [
        format!("CONSUL_HTTP_ADDR=http://{at} CONSUL_HTTP_TOKEN={TOKEN} -"),
        format!("CONSUL_HTTP_ADDR={at} CONSUL_HTTP_TOKEN={TOKEN} -"),
        format!("CONSUL_HTTP_TOKEN={TOKEN} - host={host} port={port}"),
        format!("CONSUL_HTTP_ADDR=https://{at} CONSUL_HTTP_TOKEN={TOKEN} - scheme=http"),
        format!("CONSUL_HTTP_ADDR=https://{at} - --config {config}"),
    ];
    for line in &lines {
        consul_session(line).reading(input).prints(NO_SESSION)?;
    }
    let requests = server.requests();
    let tokens = requests.iter().filter(|request| request.header("X-Consul-Token") == [TOKEN]).count();
    ensure!(tokens == lines.len(), "{requests:?}");
    Ok(())
}

#[test]
fn host_token_without_a_rule_for_the_agent_is_an_error() -> Result<()> {
    let server = Scripted::start(|_| Reply::json("[]"))?;
    let (at, folder) = (server.address(), tempdir()?);
    let port = at.port();
    let token = file(&folder, "token", TOKEN)?;
    let input = |host: &str| format!(r#"{{"state": "list", "host": "{host}", "port": {port}}}"#);
    let missing = |at: &str| {
        format!(
            "no token is for {at}, and without one the request would be anonymous: add `--allow {at}`, or to the configuration file: [[token]] with authority = \"{at}\""
        )
    };
    // Allowed by the file alone, or by a network, which is for no name.
    let config = file(&folder, "c.toml", format!("allow = [\"{at}\"]\n"))?;
    for (line, host) in [
        (format!("CONSUL_HTTP_TOKEN={TOKEN} - --config {config}"), "127.0.0.1"),
        (format!("- --token-file {token} --config {config}"), "127.0.0.1"),
        (format!("CONSUL_HTTP_TOKEN={TOKEN} - --allow 127.0.0.0/8:{port}"), "localhost"),
    ] {
        consul_session(line).reading(input(host)).fails("denied-by-host", &missing(&format!("{host}:{port}")))?;
    }
    let socket = folder.path().join("s.sock");
    let sockets = file(&folder, "s.toml", format!("allow = [\"unix://{}\"]\n", socket.display()))?;
    consul_session(format!("CONSUL_HTTP_TOKEN={TOKEN} - --config {sockets}"))
        .reading(format!(r#"{{"state": "list", "host": "unix://{}"}}"#, socket.display()))
        .fails("denied-by-host", &missing("localhost:8500"))?;
    // A rule of the file for a network.
    let rule = "allow = [\"127.0.0.0/8:*\"]\n[[token]]\nauthority = \"127.0.0.0/8:*\"\nfile = \"token\"\n";
    let networks = file(&folder, "n.toml", rule)?;
    consul_session(format!("- --config {networks}")).reading(input("localhost")).fails(
        "denied-by-host",
        &format!(
            "the token of the rule `127.0.0.0/8:*` is for addresses, not for the name in localhost:{port}, and without one the request would be anonymous: give an address as `host`, or add to the configuration file: [[token]] with authority = \"localhost:{port}\""
        ),
    )?;
    ensure!(server.requests().is_empty(), "{:?}", server.requests());

    // Without a token, requests are anonymous. With the rule that the error names, they have it.
    consul_session(format!("- --config {config}")).reading(input("127.0.0.1")).prints(NO_SESSION)?;
    ensure!(server.requests()[0].header("X-Consul-Token").is_empty());
    consul_session(format!("CONSUL_HTTP_TOKEN={TOKEN} - --config {config} --allow {at}"))
        .reading(input("127.0.0.1"))
        .prints(NO_SESSION)?;
    ensure!(server.requests()[1].header("X-Consul-Token") == [TOKEN]);
    Ok(())
}

#[test]
fn host_token_in_an_error_of_the_server_is_redacted() -> Result<()> {
    let server = Scripted::start(|request| {
        let head = request.text().replace("\r\n", " ");
        Reply::http(403, "", &format!("denied: {}", head.split_once("x-consul-token").map_or("no token", |(_, rest)| rest)))
    })?;
    let (at, folder) = (server.address(), tempdir()?);
    let token = file(&folder, "token", TOKEN)?;
    let message = "consul answered 403: denied: : (token): give a `token` that is allowed to do this";
    for line in [
        format!("CONSUL_HTTP_TOKEN={TOKEN} CONSUL_HTTP_ADDR={at} state=list"),
        format!("CONSUL_HTTP_TOKEN_FILE={token} CONSUL_HTTP_ADDR={at} name=s node=n"),
        format!("CONSUL_HTTP_ADDR={at} state=list --token-file {token}"),
        // The plugin redacts its own token.
        format!("CONSUL_HTTP_ADDR={at} state=list token={TOKEN}"),
    ] {
        consul_session(line).fails("access-denied", message)?;
    }
    for args in ["lock key -- true", "apply -", "watch"] {
        let line = consul_session(format!("CONSUL_HTTP_TOKEN={TOKEN} CONSUL_HTTP_ADDR={at} {args}"));
        let output = line.reading("- {name: s, node: n}\n").run(&[])?;
        let text = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.status == 1 && text.contains("(token)") && !text.contains(&TOKEN[..8]), "{args}: {text}");
    }
    Ok(())
}

#[test]
fn host_token_sees_what_consul_says_that_it_sees() -> Result<()> {
    let (agent, addresses) = agent_with_acls()?;
    let api = agent.api();
    api.put("/v1/session/create", Some(&json!({"Name": "s"})))?;
    api.put("/v1/acl/policy", Some(&json!({"Name": "other", "Rules": r#"session "other" { policy = "read" }"#})))?;
    let partial = api.put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "other"}]})))?;
    let partial = partial["SecretID"].as_str().context("no token")?;
    for address in &addresses {
        for (token, filtered) in
            [(format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN}"), false), (format!("CONSUL_HTTP_TOKEN={partial}"), true)]
        {
            let line = consul_session(format!("{address} {token} state=list --format json"));
            let answer = line.run(&[])?.succeeded()?.json()?;
            ensure!(answer["filtered"] == filtered, "{address}: {answer}");
        }
        // Without a token, Consul does not say what it hides.
        let answer = consul_session(format!("{address} state=list --format json")).run(&[])?.succeeded()?.json()?;
        ensure!(answer["filtered"] == true, "{address}: {answer}");
    }
    Ok(())
}

#[test]
fn host_token_is_redacted() -> Result<()> {
    let (_agent, mut addresses) = agent_with_acls()?;
    let folder = tempdir()?;
    for address in &addresses {
        for options in ["name=s", "state=present", "state=list"] {
            let message = "consul answered 403: ACL not found: give a `token` that is allowed to do this";
            consul_session(format!("{address} CONSUL_HTTP_TOKEN={TOKEN} {options}")).fails("access-denied", message)?;
        }
    }
    let right = file(&folder, "token", TOKEN)?;
    let two = file(&folder, "two", format!("{TOKEN}\n{TOKEN}\n"))?;
    let control = file(&folder, "control", format!("{TOKEN}\u{7}"))?;
    let config = file(&folder, "config.toml", format!("[[token]]\nauthority = \"*:*\"\nfile = {two:?}\n"))?;
    let inline = file(&folder, "inline.toml", format!("[[token]]\nauthority = \"*:*\"\ntoken = {TOKEN:?}\n"))?;
    addresses[2] += " CONSUL_HTTP_SSL_VERIFY=false";
    for address in
        addresses.iter().map(String::as_str).chain(["CONSUL_HTTP_ADDR=127.0.0.1:1", "CONSUL_HTTP_ADDR=unix:///missing"])
    {
        for args in [
            format!("CONSUL_HTTP_TOKEN={TOKEN} name=s"),
            format!("CONSUL_HTTP_TOKEN={TOKEN} id=x state=info"),
            format!("CONSUL_HTTP_TOKEN={TOKEN}\u{e9} name=s"),
            format!("CONSUL_HTTP_TOKEN={TOKEN}\u{1b} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={right} name=s"),
            format!("name=s --token-file {right}"),
            format!("name=s --token-file {two}"),
            format!("name=s --token-file {control}"),
            format!("name=s --config {config}"),
            format!("name=s --config {inline}"),
        ] {
            for format in ["table", "json"] {
                let output = consul_session(format!("{address} {args}")).run(&["--format", format])?;
                let text = format!("{}{}", output.stdout, output.stderr);
                ensure!(output.status != 0 && !text.contains(TOKEN), "{address} {args}: {text}");
            }
        }
    }
    Ok(())
}

/// An address that gets no request, since the arguments are rejected first.
const NOWHERE: &str = "CONSUL_HTTP_ADDR=localhost:1 state=list";

/// The end of each error about a rule.
const RULES: &str = "accepted: `name:PORT`, `*.suffix:PORT`, `1.2.3.4:PORT`, `[::1]:PORT`, `10.0.0.0/8:PORT`, `[fd00::/8]:PORT`, \
                     `*:PORT`, where PORT is a number, a range like `8500-8510` or `*`, and `unix:///absolute/path`";

const NO_PORT: &str = "`consul.example` is not a valid rule: the port is missing: write `consul.example:8500`, or `consul.example:*` for every port";

const LIMITS: &str = "memory, table, handles, compute, time, requests, in_flight, response, instances";

const NO_SIZE: &str = "limit `memory`: `lots` is not a size above 0, such as 512KiB, 256MiB or 1GiB";

#[test]
fn invalid_rules_limits_and_files_are_rejected() -> Result<()> {
    for (args, message) in [
        ("--allow consul.example", format!("--allow: {NO_PORT}; {RULES}")),
        ("--insecure consul.example", format!("--insecure: {NO_PORT}; {RULES}")),
        (
            "--allow http://consul.example:8500",
            format!("--allow: `http://consul.example:8500` is not a valid rule: it has a scheme: leave `http://` out; {RULES}"),
        ),
        ("--limit memory", "--limit: `memory` is not NAME=VALUE, such as memory=256MiB".to_owned()),
        ("--limit memroy=1MiB", format!("--limit: there is no limit `memroy`; known are {LIMITS}")),
        ("--limit memory=lots", format!("--limit: {NO_SIZE}")),
        (
            "--tls-server-name https://server.dc1.consul",
            "tls-server-name \"https://server.dc1.consul\": not a DNS name or an IP address (write it without scheme, port and brackets)"
                .to_owned(),
        ),
    ] {
        consul_session(format!("{NOWHERE} {args}")).fails("invalid-option", &message)?;
    }
    let folder = tempdir()?;
    let missing = "cannot be read: No such file or directory (os error 2)";
    consul_session(format!("{NOWHERE} --config /missing")).fails("invalid-option", &format!("/missing: {missing}"))?;
    for (source, rest) in [("CONSUL_HTTP_TOKEN_FILE=", " state=list"), ("name=x --token-file ", "")] {
        let line = |file: &str| consul_session(format!("CONSUL_HTTP_ADDR=localhost:1 {source}{file}{rest}"));
        line("/missing").fails("invalid-option", &format!("the token's file /missing {missing}"))?;
        for content in ["", "\n", "one\ntwo\n", "one\u{7}"] {
            let file = file(&folder, "token", content)?;
            let reason = "a token is not empty, and has no line break and no other control character";
            line(&file).fails("invalid-option", &format!("the token's file {file} holds no token: {reason}"))?;
        }
    }
    consul_session("CONSUL_HTTP_ADDR=localhost:1 CONSUL_HTTP_TOKEN=one\u{7} name=x").fails(
        "invalid-option",
        "invalid value for CONSUL_HTTP_TOKEN: a line break or a control character cannot be sent in a header",
    )
}

#[test]
fn config_errors_name_the_file_and_the_line() -> Result<()> {
    let folder = tempdir()?;
    for (content, message) in [
        (
            "allow = [\"a:1\"]\nalow = []\n",
            "line 2: unknown field `alow`, expected one of `allow`, `deny`, `insecure`, `locks`, `tls`, `token`, `basic_auth`, `unix_sockets`, `limits`"
                .to_owned(),
        ),
        (
            "\n[tls]\nca-file = \"ca.pem\"\n",
            "line 3: unknown field `ca-file`, expected one of `ca_file`, `ca_path`, `platform_roots`, `client_cert`, `client_key`, \
             `server_name`"
                .to_owned(),
        ),
        ("\nallow = [\"a:1\", \"consul.example\"]\n", format!("line 2: {NO_PORT}; {RULES}")),
        ("allow = \"a:1\"\n", "line 1: invalid type: string, expected a sequence".to_owned()),
        (
            "[limits]\n\nmemory = 1.5\n",
            "line 3: a limit is a string such as \"256MiB\" or \"15m\", or a whole number".to_owned(),
        ),
        ("[limits]\nmemory = \"lots\"\n", NO_SIZE.to_owned()),
        ("[limits]\nmemroy = \"1MiB\"\n", format!("there is no limit `memroy`; known are {LIMITS}")),
        ("\n[[token]]\nauthority = \"a:1\"\n", "line 2: missing field `file`".to_owned()),
        (
            "[[token]]\nauthority = \"a:1\"\nfile = \"missing\"\n",
            format!("the token's file {}/missing cannot be read: No such file or directory (os error 2)", folder.path().display()),
        ),
        (
            "[unix_sockets]\nlocalhost = \"/run/consul.sock\"\n",
            "unix_sockets: `localhost` is not a valid authority: the port is missing: write `localhost:8500`; accepted: `name:port`, \
             `1.2.3.4:80`, `[::1]:80`"
                .to_owned(),
        ),
        ("deny = []\nallow = [\n", "line 2: unclosed array, expected `]`".to_owned()),
    ] {
        let config = file(&folder, "consul.toml", content)?;
        consul_session(format!("{NOWHERE} --config {config}")).fails("invalid-option", &format!("{config}: {message}"))?;
    }
    Ok(())
}

#[test]
fn memory_limit_stops_the_component() -> Result<()> {
    consul_session("--dev state=list --limit memory=256KiB")
        .fails("other", "the component was stopped: it wanted more memory than the limit `memory` of 256.0 KiB allows; an operator raises it by `--limit memory=VALUE`, or in the configuration file: [limits]")?;
    consul_session("--dev state=list --limit memory=256KiB --limit memory=4MiB").prints(NO_SESSION)
}

#[test]
fn dev_ignores_the_environment() -> Result<()> {
    let line = consul_session(
        "CONSUL_HTTP_ADDR=unix:///missing CONSUL_HTTP_SSL=maybe CONSUL_HTTP_TOKEN_FILE=/missing CONSUL_CACERT=/missing \
         CONSUL_CLIENT_KEY=/missing CONSUL_TLS_SERVER_NAME=: --dev state=list",
    );
    line.prints(NO_SESSION)
}
