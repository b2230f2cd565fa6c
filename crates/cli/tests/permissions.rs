//! What the host grants, as a person types it, against a real Consul: Unix sockets, what standard input may name, the configuration
//! file, tokens and limits; and the very words of what is refused. TLS is in `tls.rs`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::process::ExitCode;
use tempfile::tempdir;
use test_support::TOKEN;
use test_support::certificates::Certificate;
use test_support::consul::{Consul, Kind, ROOT_TOKEN, Settings};
use test_support::program::{Typed, file};
use test_support::trial::{Test, run_tests};

fn main() -> ExitCode {
    let without_consul: [(&str, Test); 6] = [
        ("rules, limits and files that are none", bad_values),
        ("a mistake in the configuration file has the file's name, and the line where it is known", bad_config),
        ("a component that wants more memory than its limit is stopped", little_memory),
        ("a Unix socket that is missing, and one on which nobody listens", dead_sockets),
        ("a Unix socket leaves no room for a port or a scheme", unix_socket_alone),
        ("--dev has nothing to do with the environment", dev),
    ];
    let with_consul: [(&str, Test); 5] = [
        ("a Unix socket from the environment, as typed, and in the configuration file", unix_socket),
        ("standard input may name only what is granted", standard_input),
        ("the configuration file allows, denies and limits", config_file),
        ("a token of the host's reaches the agent over HTTP, HTTPS and a Unix socket", host_token),
        ("a token of the host's is never shown", host_token_hidden),
    ];
    run_tests(without_consul, with_consul)
}

fn typed(line: impl Into<String>) -> Typed {
    Typed::new(env!("CARGO_BIN_EXE_consul-session"), line)
}

/// What `state=list` prints of a fresh agent.
const NONE: &str = "no session\n";

fn unix_socket() -> Result<()> {
    let agent = Consul::start_with(Settings { unix_socket: true, ..Settings::default() })?;
    let socket = agent.socket().context("no socket")?;
    let socket = socket.display();
    typed(format!("CONSUL_HTTP_ADDR=unix://{socket} state=list")).prints(NONE)?;
    typed(format!("state=list host=unix://{socket}")).prints(NONE)?;
    typed(format!("state=list --host unix://{socket}")).prints(NONE)?;
    // What is typed counts for more.
    typed(format!("CONSUL_HTTP_ADDR=unix:///missing.sock state=list host=unix://{socket}")).prints(NONE)?;
    typed(format!("CONSUL_HTTP_ADDR=https://localhost:1 CONSUL_HTTP_SSL=true state=list host=unix://{socket}")).prints(NONE)?;
    let port = agent.http().port();
    typed(format!("CONSUL_HTTP_ADDR=unix:///missing.sock state=list host=127.0.0.1 port={port}")).prints(NONE)?;
    let made = typed(format!("CONSUL_HTTP_ADDR=unix://{socket} name=s delay=20s")).run(&[])?.succeeded()?.stdout;
    ensure!(made.starts_with("changed: created a session\n"), "{made}");
    typed(format!("CONSUL_HTTP_ADDR=unix://{socket} name=s state=absent")).run(&[])?.succeeded()?;
    ensure!(agent.api().sessions()?.is_empty());
    // By the configuration file, under the name that the component knows.
    let folder = tempdir()?;
    std::os::unix::fs::symlink(agent.socket().context("no socket")?, folder.path().join("s.sock"))?;
    let socket = folder.path().join("s.sock");
    let mapping = "[unix_sockets]\n\"consul.invalid:80\" = \"s.sock\"\n";
    let config = file(&folder, "c.toml", format!("allow = [\"unix://{}\"]\n{mapping}", socket.display()))?;
    typed(format!("CONSUL_HTTP_ADDR=consul.invalid:80 state=list --config {config}")).prints(NONE)?;
    let config = file(&folder, "c.toml", mapping)?;
    let socket = socket.display();
    typed(format!("CONSUL_HTTP_ADDR=consul.invalid:80 state=list --config {config}")).fails(
        "denied-by-host",
        &format!("the host's policy does not allow unix://{socket}: add `--allow unix://{socket}`, or to the configuration file: allow = [\"unix://{socket}\"]"),
    )
}

fn unix_socket_alone() -> Result<()> {
    for (line, option) in [
        ("CONSUL_HTTP_ADDR=unix:///run/consul.sock state=list port=8500", "port"),
        ("state=list host=unix:///run/consul.sock port=8500", "port"),
        ("state=list host=unix:///run/consul.sock scheme=https", "scheme"),
    ] {
        let message = format!("option `{option}` cannot be combined with a Unix socket (unix:///run/consul.sock)");
        typed(line).fails("invalid-option", &message)?;
    }
    typed("CONSUL_HTTP_ADDR=unix:///run/consul.sock -")
        .reading(r#"{"port": 8500}"#)
        .fails("invalid-option", "option `port` cannot be combined with a Unix socket (unix:///run/consul.sock)")?;
    for (line, address) in
        [("CONSUL_HTTP_ADDR=unix://consul.sock state=list", "unix://consul.sock"), ("state=list host=unix://", "unix://")]
    {
        let message =
            format!("option `host`: `{address}`: the path of a Unix socket is absolute, as in unix:///run/consul.sock");
        typed(line).fails("invalid-option", &message)?;
    }
    Ok(())
}

fn dead_sockets() -> Result<()> {
    let folder = tempdir()?;
    let path = folder.path().join("consul.sock");
    let socket = path.display();
    let missing =
        format!("the Unix socket {socket} (for localhost:8500) does not exist: check the path, and whether the agent runs");
    typed(format!("CONSUL_HTTP_ADDR=unix://{socket} delay=20s")).fails("unreachable", &missing)?;
    typed(format!("delay=20s host=unix://{socket}")).fails("unreachable", &missing)?;
    // The file outlives its listener. One without permission would have to be another user's, and root may use every socket.
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    let dead = format!("nothing listens on the Unix socket {socket} (for localhost:8500): check whether the agent runs");
    typed(format!("CONSUL_HTTP_ADDR=unix://{socket} delay=20s")).fails("unreachable", &dead)
}

/// What is said of a connection for which there is no rule.
fn not_allowed(target: &str) -> String {
    format!(
        "the host's policy does not allow {target}: add `--allow {target}`, or to the configuration file: allow = [\"{target}\"]"
    )
}

fn standard_input() -> Result<()> {
    let agent = Consul::start_with(Settings { unix_socket: true, ..Settings::default() })?;
    let port = agent.http().port();
    let to = |host: &str| format!(r#"{{"state": "list", "host": "{host}", "port": {port}}}"#);
    for (host, rule, other) in [
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.1", "127.0.0.0/8", "10.0.0.0/8"),
        ("localhost", "localhost", "*.localhost"),
        // The name is decided by the addresses that it has.
        ("localhost", "127.0.0.0/8", "127.0.0.1"),
        ("LOCALHOST", "localhost", "consul.example"),
    ] {
        let target = format!("{}:{port}", host.to_lowercase());
        typed("-").reading(to(host)).fails("denied-by-host", &not_allowed(&target))?;
        typed(format!("- --allow {other}:{port} --allow {rule}:1-2"))
            .reading(to(host))
            .fails("denied-by-host", &not_allowed(&target))?;
        typed(format!("- --allow {rule}:{port}")).reading(to(host)).prints(NONE)?;
    }
    // Half of the address is from standard input; it is no less chosen there.
    let only_port = format!(r#"{{"state": "list", "port": {port}}}"#);
    typed("- host=127.0.0.1").reading(&only_port).fails("denied-by-host", &not_allowed(&format!("127.0.0.1:{port}")))?;
    typed("CONSUL_HTTP_ADDR=127.0.0.1:1 -")
        .reading(&only_port)
        .fails("denied-by-host", &not_allowed(&format!("127.0.0.1:{port}")))?;
    // What was typed is granted, whatever else comes from there.
    typed(format!("- host=127.0.0.1 port={port}"))
        .reading(r#"{"state": "list", "host": "10.0.0.1", "port": 1}"#)
        .prints(NONE)?;
    typed(format!("CONSUL_HTTP_ADDR=127.0.0.1:{port} -")).reading(r#"{"state": "list"}"#).prints(NONE)?;

    let socket = agent.socket().context("no socket")?;
    let socket = format!("unix://{}", socket.display());
    let to_socket = format!(r#"{{"state": "list", "host": "{socket}"}}"#);
    typed("-").reading(&to_socket).fails("denied-by-host", &not_allowed(&socket))?;
    // An address that is granted is none of a socket.
    typed("- --allow *:*").reading(&to_socket).fails("denied-by-host", &not_allowed(&socket))?;
    typed(format!("- --allow {socket}")).reading(&to_socket).prints(NONE)
}

fn config_file() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let port = agent.http().port();
    let folder = tempdir()?;
    let input = format!(r#"{{"state": "list", "host": "127.0.0.1", "port": {port}}}"#);
    for allow in [format!("[\"127.0.0.1:{port}\"]"), "[\"10.0.0.0/8:*\", \"127.0.0.0/8:*\"]".to_owned()] {
        let config = file(&folder, "c.toml", format!("allow = {allow}\n"))?;
        typed(format!("- --config {config}")).reading(&input).prints(NONE)?;
    }
    // Several add up.
    let (one, two) = (file(&folder, "1.toml", "allow = [\"a:1\"]\n")?, file(&folder, "2.toml", "allow = [\"127.0.0.1:*\"]\n")?);
    typed(format!("- --config {one}")).reading(&input).fails("denied-by-host", &not_allowed(&format!("127.0.0.1:{port}")))?;
    typed(format!("- --config {one} --config {two}")).reading(&input).prints(NONE)?;
    // What is denied there is denied, also to who types it.
    let config = file(&folder, "c.toml", "deny = [\"127.0.0.0/8:*\"]\n")?;
    let denied = |target: &str, resolved: &str| {
        format!(
            "the host's policy does not allow {target}:{port}{resolved}, which the rule `127.0.0.0/8:*` of `deny` forbids: take that rule out of `deny`"
        )
    };
    typed(format!("state=list host=127.0.0.1 port={port} --allow *:* --config {config}"))
        .fails("denied-by-host", &denied("127.0.0.1", ""))?;
    let hosts = file(&folder, "c.toml", format!("deny = [\"127.0.0.0/8:*\", \"[::1]:{port}\"]\n"))?;
    let ran = typed(format!("state=list host=localhost port={port} --config {hosts}")).run(&[])?;
    // Whichever of its addresses the name has first.
    let v6 = format!(
        "error (denied-by-host): the host's policy does not allow localhost:{port}, which resolves to ::1, which the rule `[::1]:{port}` of `deny` forbids: take that rule out of `deny`\n"
    );
    let v4 = format!("error (denied-by-host): {}\n", denied("localhost", ", which resolves to 127.0.0.1"));
    ensure!(ran.status == 1 && (ran.stderr == v4 || ran.stderr == v6), "{ran:?}");
    let limits = file(&folder, "c.toml", "[limits]\nresponse = 1\n")?;
    typed(format!("state=list host=127.0.0.1 port={port} --config {limits}")).fails(
        "response-too-large",
        &format!(
            "the answer from 127.0.0.1:{port} is larger than 1 B, the host's limit `response`: read the sessions of one node, or raise it with `--limit response=SIZE`"
        ),
    )?;
    // What is typed counts for more.
    typed(format!("state=list host=127.0.0.1 port={port} --config {limits} --limit response=1KiB")).prints(NONE)
}

/// An agent that needs a token, and where it listens: CONSUL_HTTP_ADDR and CONSUL_CACERT.
fn with_acls() -> Result<(Consul, [String; 3])> {
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

/// How the answer begins for whoever may see the session that is there.
const FOUND: &str = "unchanged: the session is as wanted\n";

fn host_token() -> Result<()> {
    let (agent, addresses) = with_acls()?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "s"})))?;
    let folder = tempdir()?;
    let right = file(&folder, "token", ROOT_TOKEN)?;
    let line = file(&folder, "line", format!("{ROOT_TOKEN}\r\n"))?;
    let wrong = file(&folder, "wrong", TOKEN)?;
    for at in &addresses {
        for given in [
            format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={right} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={line} name=s"),
            format!("name=s --token-file {right}"),
            format!("name=s token={ROOT_TOKEN}"),
            format!("name=s --token-file {wrong} --token-file {right}"),
            // What is typed counts for more, and a file for more than the token itself.
            format!("CONSUL_HTTP_TOKEN={TOKEN} name=s --token-file {right}"),
            format!("CONSUL_HTTP_TOKEN={TOKEN} name=s token={ROOT_TOKEN}"),
            format!("CONSUL_HTTP_TOKEN={TOKEN} CONSUL_HTTP_TOKEN_FILE={right} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={wrong} name=s token={ROOT_TOKEN}"),
            format!("CONSUL_HTTP_TOKEN_FILE={wrong} name=s --token-file {right}"),
        ] {
            typed(format!("{at} {given}")).begins(FOUND)?;
        }
    }
    // Standard input names the agent, which is granted: the token is for where it may connect.
    let port = agent.http().port();
    let input = format!(r#"{{"name": "s", "host": "127.0.0.1", "port": {port}}}"#);
    typed(format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN} - --allow 127.0.0.1:{port}")).reading(input).begins(FOUND)?;
    let socket = format!("unix://{}", agent.socket().context("no socket")?.display());
    let input = format!(r#"{{"name": "s", "host": "{socket}"}}"#);
    typed(format!("CONSUL_HTTP_TOKEN={ROOT_TOKEN} - --allow {socket}")).reading(input).begins(FOUND)?;
    // The file's own rule.
    let config = file(&folder, "c.toml", format!("[[token]]\nauthority = \"127.0.0.1:{port}\"\nfile = \"token\"\n"))?;
    typed(format!("{} name=s --config {config}", addresses[0])).begins(FOUND)?;
    let other = file(&folder, "c.toml", "[[token]]\nauthority = \"127.0.0.1:1\"\nfile = \"token\"\n")?;
    let hidden = "no session\nnote: ACLs hid sessions from this answer, or may have\n";
    typed(format!("{} state=list --config {other}", addresses[0])).prints(hidden)
}

fn host_token_hidden() -> Result<()> {
    let (_agent, mut addresses) = with_acls()?;
    let folder = tempdir()?;
    for at in &addresses {
        for options in ["name=s", "delay=20s", "state=list"] {
            let message = "consul answered 403: ACL not found: give a `token` that is allowed to do this";
            typed(format!("{at} CONSUL_HTTP_TOKEN={TOKEN} {options}")).fails("access-denied", message)?;
        }
    }
    let right = file(&folder, "token", TOKEN)?;
    let two = file(&folder, "two", format!("{TOKEN}\n{TOKEN}\n"))?;
    let control = file(&folder, "control", format!("{TOKEN}\u{7}"))?;
    let words = file(&folder, "config.toml", format!("[[token]]\nauthority = \"*:*\"\nfile = {two:?}\n"))?;
    let inline = file(&folder, "inline.toml", format!("[[token]]\nauthority = \"*:*\"\ntoken = {TOKEN:?}\n"))?;
    addresses[2] += " CONSUL_HTTP_SSL_VERIFY=false";
    for at in addresses.iter().map(String::as_str).chain(["CONSUL_HTTP_ADDR=127.0.0.1:1", "CONSUL_HTTP_ADDR=unix:///missing"]) {
        for given in [
            format!("CONSUL_HTTP_TOKEN={TOKEN} name=s"),
            format!("CONSUL_HTTP_TOKEN={TOKEN} id=x state=info"),
            format!("CONSUL_HTTP_TOKEN={TOKEN}\u{e9} name=s"),
            format!("CONSUL_HTTP_TOKEN={TOKEN}\u{1b} name=s"),
            format!("CONSUL_HTTP_TOKEN_FILE={right} name=s"),
            format!("name=s --token-file {right}"),
            format!("name=s --token-file {two}"),
            format!("name=s --token-file {control}"),
            format!("name=s --token-file {right} --token-file {control}"),
            format!("name=s --config {words}"),
            format!("name=s --config {inline}"),
        ] {
            for format in ["table", "json"] {
                let ran = typed(format!("{at} {given}")).run(&["--format", format])?;
                let text = format!("{}{}", ran.stdout, ran.stderr);
                ensure!(ran.status == 1 && !text.contains(TOKEN), "{at} {given}: {text}");
            }
        }
    }
    Ok(())
}

/// An address that nobody asks: what is typed is refused before.
const NOWHERE: &str = "CONSUL_HTTP_ADDR=localhost:1 state=list";

/// What stands behind each complaint about a rule.
const RULES: &str = "accepted: `name:PORT`, `*.suffix:PORT`, `1.2.3.4:PORT`, `[::1]:PORT`, `10.0.0.0/8:PORT`, `[fd00::/8]:PORT`, \
                     `*:PORT`, where PORT is a number, a range like `8500-8510` or `*`, and `unix:///absolute/path`";

const NO_PORT: &str = "`consul.example` is not a valid rule: the port is missing: write `consul.example:8500`, or `consul.example:*` for every port";

const LIMITS: &str = "memory, table, handles, compute, time, requests, in_flight, response, instances";

const NO_SIZE: &str = "limit `memory`: `lots` is not a size above 0, such as 512KiB, 256MiB or 1GiB";

fn bad_values() -> Result<()> {
    for (given, message) in [
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
            "tls-server-name \"https://server.dc1.consul\": no DNS name and no IP address; it stands without scheme, port and brackets"
                .to_owned(),
        ),
    ] {
        typed(format!("{NOWHERE} {given}")).fails("invalid-option", &message)?;
    }
    let folder = tempdir()?;
    let missing = "cannot be read: No such file or directory (os error 2)";
    typed(format!("{NOWHERE} --config /missing")).fails("invalid-option", &format!("/missing: {missing}"))?;
    for named in ["CONSUL_HTTP_TOKEN_FILE=", "name=x --token-file "] {
        let line = |file: &str| typed(format!("CONSUL_HTTP_ADDR=localhost:1 {named}{file}"));
        line("/missing").fails("invalid-option", &format!("the token's file /missing {missing}"))?;
        for content in ["", "\n", "one\ntwo\n", "one\u{7}"] {
            let file = file(&folder, "token", content)?;
            let reason = "a token is not empty, and has no line break and no other control character";
            line(&file).fails("invalid-option", &format!("the token's file {file} holds no token: {reason}"))?;
        }
    }
    typed("CONSUL_HTTP_ADDR=localhost:1 CONSUL_HTTP_TOKEN=one\u{7} name=x").fails(
        "invalid-option",
        "invalid value for CONSUL_HTTP_TOKEN: a line break or a control character cannot be sent in a header",
    )
}

fn bad_config() -> Result<()> {
    let folder = tempdir()?;
    for (content, message) in [
        (
            "allow = [\"a:1\"]\nalow = []\n",
            "line 2: unknown field `alow`, expected one of `allow`, `deny`, `insecure`, `locks`, `tls`, `token`, `unix_sockets`, `limits`"
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
        typed(format!("{NOWHERE} --config {config}")).fails("invalid-option", &format!("{config}: {message}"))?;
    }
    Ok(())
}

fn little_memory() -> Result<()> {
    typed("--dev state=list --limit memory=1MiB")
        .fails("other", "the component was stopped: it wanted more memory than the limit `memory` of 1.0 MiB allows; an operator raises it by `--limit memory=VALUE`, or in the configuration file: [limits]")?;
    typed("--dev state=list --limit memory=1MiB --limit memory=4MiB").prints(NONE)
}

fn dev() -> Result<()> {
    let typed = typed(
        "CONSUL_HTTP_ADDR=unix:///missing CONSUL_HTTP_SSL=maybe CONSUL_HTTP_TOKEN_FILE=/missing CONSUL_CACERT=/missing \
         CONSUL_CLIENT_KEY=/missing CONSUL_TLS_SERVER_NAME=: --dev state=list",
    );
    typed.prints(NONE)
}
