//! TLS as a person types it, against a real Consul: which agents are trusted, which clients they let in, and the very words of what is
//! refused.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_host::{Connection, CreateOptions, Host, Options, Query, Scheme, State, Tls};
use consul_session_tests::embedded::{answer, within};
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};
use test_support::certificates::{Authority, Certificate, Pair};
use test_support::consul::{Consul, NODE, Settings};
use test_support::plugin;
use test_support::program::{self, Typed, file, run};
use test_support::trial::{Test, run_tests};
use test_support::{block_on, unused_address};
use tokio::task::JoinSet;

fn main() -> ExitCode {
    let without_consul: [(&str, Test); 3] = [
        ("a client certificate without its key, and a key without its certificate", half_a_pair),
        ("files that are missing", missing_files),
        ("files without what they should hold", wrong_files),
    ];
    let with_consul: [(&str, Test); 14] = [
        ("a certificate is verified by each way to give a CA", verified),
        ("a certificate of an unknown CA is refused", unknown_ca),
        ("a certificate for another name is refused, and accepted under that name", wrong_name),
        ("a certificate that has expired is refused", expired),
        ("a certificate that is not valid yet is refused", not_yet_valid),
        ("an agent that wants a client certificate gets one", client_certificates),
        ("a client certificate that the agent does not accept is refused before anything happened", bad_client_certificates),
        ("a client without a certificate is refused before anything happened", no_client_certificate),
        ("https to a port of plain HTTP, and http to one of HTTPS", wrong_scheme),
        ("validate_certs=false is granted by --insecure and the configuration file, and by nothing else", insecure),
        ("validate_certs=false is unsupported by `wasmtime run`", insecure_elsewhere),
        ("HTTP/2: requests share a connection", shared_connection),
        ("every function works over TLS with client certificates", functions),
        ("200 calls at once over TLS", many_calls),
    ];
    run_tests(without_consul, with_consul)
}

fn typed(line: impl Into<String>) -> Typed {
    Typed::new(env!("CARGO_BIN_EXE_consul-session"), line)
}

/// What `state=list` prints of a fresh agent.
const NONE: &str = "no session\n";

/// An agent with HTTPS and this certificate, and its port.
fn agent_with(certificate: Certificate) -> Result<(Consul, u16)> {
    Consul::start_secure(Settings { https: Some(certificate), ..Settings::default() })
}

const CA: &str = "give the CA's certificate with `--ca-file FILE` (CONSUL_CACERT)";

fn verified() -> Result<()> {
    let (agent, port) = agent_with(Certificate::Good)?;
    let (folder, ca) = (tempdir()?, agent.ca());
    let (inside, ca) = (ca.parent().context("no folder")?.display(), ca.display());
    // The agent's folder has keys too, which are no certificates.
    fs::create_dir(folder.path().join("certs"))?;
    fs::copy(agent.ca(), folder.path().join("certs/ca.pem"))?;
    let by_file = file(&folder, "file.toml", "[tls]\nca_file = \"certs/ca.pem\"\n")?;
    let by_missing = file(&folder, "missing.toml", "[tls]\nca_file = \"missing.pem\"\n")?;
    let by_path = file(&folder, "path.toml", "[tls]\nca_path = \"certs\"\n")?;
    for address in [format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}")] {
        for given in [
            format!("CONSUL_CACERT={ca} state=list"),
            format!("CONSUL_CAPATH={inside} state=list"),
            format!("SSL_CERT_FILE={ca} state=list"),
            format!("state=list --ca-file {ca}"),
            format!("state=list --ca-path={inside}"),
            format!("state=list --config {by_file}"),
            format!("state=list --config {by_path}"),
            // What is typed counts for more than the environment, and that for more than the file.
            format!("CONSUL_CACERT=/missing.pem state=list --ca-file {ca}"),
            format!("CONSUL_CACERT=/missing.pem state=list --ca-path {inside}"),
            format!("state=list --ca-file /missing.pem --ca-file {ca}"),
            format!("CONSUL_CACERT={ca} state=list --config {by_missing}"),
        ] {
            typed(format!("CONSUL_HTTP_ADDR={address} {given}")).prints(NONE)?;
        }
    }
    // The scheme by each way to give it.
    typed(format!("CONSUL_HTTP_ADDR=localhost:{port} CONSUL_HTTP_SSL=true CONSUL_CACERT={ca} state=list")).prints(NONE)?;
    typed(format!("state=list host=localhost port={port} scheme=https --ca-file {ca}")).prints(NONE)
}

fn unknown_ca() -> Result<()> {
    let (agent, port) = agent_with(Certificate::OtherCa)?;
    let at = format!("CONSUL_HTTP_ADDR=https://localhost:{port}");
    let message = format!("the certificate of localhost:{port} is signed by no CA that this host trusts: {CA}");
    typed(format!("{at} state=list")).fails("tls", &message)?;
    // A change is refused before it can have happened.
    typed(format!("{at} CONSUL_CACERT={} delay=20s", agent.ca().display())).fails("tls", &message)?;
    typed(format!("{at} SSL_CERT_FILE={} delay=20s", agent.ca().display())).fails("tls", &message)?;
    ensure!(agent.api().sessions()?.is_empty());
    // The platform's roots do not count beside a CA, unless that is asked for.
    let (trusted, port) = agent_with(Certificate::Good)?;
    let (folder, ca) = (tempdir()?, trusted.ca());
    let at = format!("CONSUL_HTTP_ADDR=https://localhost:{port} SSL_CERT_FILE={}", ca.display());
    let message = format!("the certificate of localhost:{port} is signed by no CA that this host trusts: {CA}");
    let other = agent.ca();
    typed(format!("{at} state=list --ca-file {}", other.display())).fails("tls", &message)?;
    let both = file(&folder, "c.toml", format!("[tls]\nca_file = {other:?}\nplatform_roots = true\n"))?;
    typed(format!("{at} state=list --config {both}")).prints(NONE)?;
    let none = file(&folder, "c.toml", "[tls]\nplatform_roots = false\n")?;
    typed(format!("{at} state=list --config {none}")).fails("tls", &message)
}

fn wrong_name() -> Result<()> {
    let (agent, port) = agent_with(Certificate::Server)?;
    let by = format!("CONSUL_CACERT={}", agent.ca().display());
    let folder = tempdir()?;
    for host in ["localhost", "127.0.0.1"] {
        let at = format!("{by} CONSUL_HTTP_ADDR=https://{host}:{port}");
        let refused = |expected: &str| {
            format!(
                "the certificate of {host}:{port} is for server.dc1.consul, not for {expected}: set `host` to a name that it is for, or \
                 say which to expect with `--tls-server-name NAME` (CONSUL_TLS_SERVER_NAME)"
            )
        };
        typed(format!("{at} delay=20s")).fails("tls", &refused(host))?;
        ensure!(agent.api().sessions()?.is_empty());
        typed(format!("{at} state=list --tls-server-name server.dc1.consul")).prints(NONE)?;
        typed(format!("{at} CONSUL_TLS_SERVER_NAME=server.dc1.consul state=list")).prints(NONE)?;
        let config = file(&folder, "c.toml", "[tls]\nserver_name = \"server.dc1.consul\"\n")?;
        typed(format!("{at} state=list --config {config}")).prints(NONE)?;
        typed(format!("{at} CONSUL_TLS_SERVER_NAME=server.dc1.consul state=list --tls-server-name server.dc2.consul"))
            .fails("tls", &refused("server.dc2.consul"))?;
    }
    Ok(())
}

fn expired() -> Result<()> {
    let (agent, port) = agent_with(Certificate::Expired)?;
    typed(format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={} delay=20s", agent.ca().display())).fails(
        "tls",
        &format!(
            "the certificate of localhost:{port}, or of its CA, expired 10 days ago: have it renewed, and check this machine's clock"
        ),
    )?;
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

fn not_yet_valid() -> Result<()> {
    let (agent, port) = agent_with(Certificate::NotYetValid)?;
    typed(format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={} delay=20s", agent.ca().display())).fails(
        "tls",
        &format!(
            "the certificate of localhost:{port}, or of its CA, is not valid yet, but in 10 days: check this machine's clock"
        ),
    )?;
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

const CLIENT_CERT: &str = "with `--client-cert FILE --client-key FILE` (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY)";

fn strict() -> Result<(Consul, u16)> {
    Consul::start_secure(Settings { https: Some(Certificate::Good), verify_incoming: true, ..Settings::default() })
}

fn bad_client_certificates() -> Result<()> {
    let (agent, port) = strict()?;
    let at = format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display());
    for (certificate, alert) in [(Certificate::OtherCa, "UnknownCA"), (Certificate::Expired, "CertificateExpired")] {
        let pair = agent.issue(certificate)?;
        let (cert, key) = (pair.cert.display(), pair.key.display());
        // Also for a change: in TLS 1.3 the refusal comes when the request is on its way, and yet it did not happen.
        for options in ["state=list", "name=x", "delay=20s"] {
            typed(format!("{at} {options} --client-cert {cert} --client-key {key}")).fails(
                "tls",
                &format!(
                    "localhost:{port} refused the client certificate ({alert}): give one that its CA signed {CLIENT_CERT}"
                ),
            )?;
        }
    }
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

fn client_certificates() -> Result<()> {
    let (agent, port) = strict()?;
    let at = format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display());
    let pair = agent.issue(Certificate::Good)?;
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let folder = tempdir()?;
    fs::copy(&pair.cert, folder.path().join("client.pem"))?;
    fs::copy(&pair.key, folder.path().join("key.pem"))?;
    let config = file(&folder, "c.toml", "[tls]\nclient_cert = \"client.pem\"\nclient_key = \"key.pem\"\n")?;
    typed(format!("{at} state=list --client-cert {cert} --client-key {key}")).prints(NONE)?;
    typed(format!("{at} CONSUL_CLIENT_CERT={cert} CONSUL_CLIENT_KEY={key} state=list")).prints(NONE)?;
    let both = file(&folder, "both.pem", fs::read_to_string(&pair.cert)? + &fs::read_to_string(&pair.key)?)?;
    typed(format!("{at} state=list --client-cert {both} --client-key {both}")).prints(NONE)?;
    // What is typed counts for more.
    typed(format!("{at} CONSUL_CLIENT_CERT=/missing CONSUL_CLIENT_KEY={key} state=list --client-cert {cert}")).prints(NONE)?;
    typed(format!("{at} state=list --config {config}")).prints(NONE)
}

fn no_client_certificate() -> Result<()> {
    let (agent, port) = strict()?;
    let at = format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display());
    let message = format!("localhost:{port} wants a client certificate (CertificateRequired): give one {CLIENT_CERT}");
    for options in ["state=list", "name=x", "delay=20s"] {
        typed(format!("{at} {options}")).fails("tls", &message)?;
    }
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

fn nobody(port: u16) -> String {
    format!("nothing listens at localhost:{port}: check `host` and `port`, and whether the agent runs")
}

fn wrong_scheme() -> Result<()> {
    let (agent, port) = agent_with(Certificate::Good)?;
    let plain = agent.http().port();
    let by = format!("CONSUL_CACERT={}", agent.ca().display());
    typed(format!("{by} CONSUL_HTTP_ADDR=https://localhost:{plain} delay=20s"))
        .fails("tls", &format!("what listens at localhost:{plain} does not speak TLS: check `port`, or give `scheme=http`"))?;
    typed(format!("{by} CONSUL_HTTP_ADDR=localhost:{port} state=list"))
        .fails("refused", "consul answered 400: Client sent an HTTP request to an HTTPS server.")?;
    // How much arrives of that answer to a request with a body is chance, since Consul reads no more than its beginning.
    let ran = typed(format!("{by} CONSUL_HTTP_ADDR=localhost:{port} delay=20s")).run(&[])?;
    ensure!(ran.status == 1 && ran.stdout.is_empty(), "{ran:?}");
    let free = unused_address()?.port();
    typed(format!("{by} CONSUL_HTTP_ADDR=https://localhost:{free} delay=20s")).fails("unreachable", &nobody(free))?;
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

fn insecure() -> Result<()> {
    let (agent, port) = agent_with(Certificate::OtherCa)?;
    let at = format!("CONSUL_HTTP_ADDR=https://localhost:{port}");
    let message = format!(
        "`validate_certs=false` is not granted for localhost:{port}: add `--insecure localhost:{port}`, or to the configuration file: \
         insecure = [\"localhost:{port}\"]"
    );
    let folder = tempdir()?;
    let granting = file(&folder, "yes.toml", format!("insecure = [\"localhost:{port}\"]\n"))?;
    let other = file(&folder, "no.toml", format!("insecure = [\"127.0.0.1:{port}\"]\n"))?;
    for asked in ["delay=20s validate_certs=false", "delay=20s --validate-certs no"] {
        typed(format!("{at} {asked}")).fails("denied-by-host", &message)?;
        // For another authority only.
        typed(format!("{at} {asked} --insecure 127.0.0.1:{port} --insecure localhost:1")).fails("denied-by-host", &message)?;
        typed(format!("{at} {asked} --config {other}")).fails("denied-by-host", &message)?;
    }
    typed(format!("CONSUL_HTTP_SSL_VERIFY=false {at} delay=20s")).fails("denied-by-host", &message)?;
    ensure!(agent.api().sessions()?.is_empty());
    typed(format!("{at} state=list validate_certs=false --insecure localhost:{port}")).prints(NONE)?;
    typed(format!("{at} state=list validate_certs=false --insecure *:{port}")).prints(NONE)?;
    typed(format!("{at} state=list validate_certs=false --config {granting}")).prints(NONE)?;
    typed(format!("CONSUL_HTTP_SSL_VERIFY=false {at} state=list --insecure localhost:{port}")).prints(NONE)?;
    // Granted, but not asked for.
    typed(format!("{at} delay=20s --insecure localhost:{port}"))
        .fails("tls", &format!("the certificate of localhost:{port} is signed by no CA that this host trusts: {CA}"))?;
    // A certificate that is wrong in every other way.
    for certificate in [Certificate::Expired, Certificate::NotYetValid, Certificate::Server] {
        let (_agent, port) = agent_with(certificate)?;
        typed(format!("CONSUL_HTTP_ADDR=https://localhost:{port} state=list validate_certs=false --insecure localhost:{port}"))
            .prints(NONE)?;
    }
    // A connection that was not verified serves no request that is to be.
    let host = Host::builder().allow("localhost:*".parse()?).insecure("localhost:*".parse()?).build(plugin()?);
    let host = host.map_err(|error| anyhow!("{error:?}"))?;
    let verified = connection(port, Scheme::Https);
    let unverified = Connection { validate_certs: Some(false), ..verified.clone() };
    for _ in 0..2 {
        block_on(answer(host.list_sessions(None, Some(&unverified))))?.value()?;
        block_on(answer(host.list_sessions(None, Some(&verified))))?.error("tls")?;
    }
    // Whoever is not let in gets nothing by not verifying.
    let (_agent, port) = strict()?;
    typed(format!("CONSUL_HTTP_ADDR=https://localhost:{port} delay=20s validate_certs=false --insecure localhost:{port}"))
        .fails("tls", &format!("localhost:{port} wants a client certificate (CertificateRequired): give one {CLIENT_CERT}"))
}

fn insecure_elsewhere() -> Result<()> {
    let (agent, port) = agent_with(Certificate::Good)?;
    let ran = run(&mut program::component(
        &["delay=20s", "host=localhost", &format!("port={port}"), "scheme=https", "validate_certs=no"],
        &[],
    )?)?;
    let message = format!(
        "error (unsupported): this host does not grant `validate_certs=false` for localhost:{port}: have it trust the CA of the agent's \
         certificate instead\n"
    );
    ensure!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()) == (1, "", message.as_str()), "{ran:?}");
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

/// A host that may connect to the agent, with a good client certificate.
fn library(agent: &Consul) -> Result<Host> {
    let pair = agent.issue(Certificate::Good)?;
    let tls = Tls { ca_file: Some(agent.ca()), client_cert: Some(pair.cert), client_key: Some(pair.key), ..Tls::default() };
    let host = Host::builder().allow("localhost:*".parse()?).tls(tls).build(plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

fn connection(port: u16, scheme: Scheme) -> Connection {
    Connection { host: Some("localhost".into()), port: Some(port), scheme: Some(scheme), ..Connection::default() }
}

/// How many connections 20 blocking queries at once take, and how long. Each takes a second or more.
fn connections(agent: &Consul, to: &Connection) -> Result<(usize, Duration)> {
    let host = library(agent)?;
    let list = async |query| answer(host.list_sessions(query, Some(to))).await?.value();
    // The connection is there when the queries come.
    let index = block_on(list(None))?.index;
    let (before, start) = (agent.log_length(), Instant::now());
    let query = Query { index: Some(index), wait: Some(1.0), consistency: None };
    block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..20 {
            let (host, to) = (host.clone(), to.clone());
            running.spawn(async move { answer(host.list_sessions(Some(query), Some(&to))).await?.value() });
        }
        running.join_all().await.into_iter().try_for_each(|listing| listing.map(|_| ()))
    })?;
    let elapsed = start.elapsed();
    loop {
        let log = agent.log_since(before);
        let queries = log.lines().filter(|line| line.contains("Request finished") && line.contains("index="));
        let from: Vec<_> = queries.filter_map(|line| line.split_once(" from=")?.1.split(' ').next()).collect();
        if from.len() >= 20 {
            return Ok((from.iter().collect::<BTreeSet<_>>().len(), elapsed));
        }
        ensure!(start.elapsed() < Duration::from_secs(30), "the agent saw {} queries:\n{log}", from.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// By HTTP/1.1 one connection carries one request at a time.
fn shared_connection() -> Result<()> {
    let (agent, port) = strict()?;
    let (count, elapsed) = connections(&agent, &connection(port, Scheme::Https))?;
    ensure!(count == 1 && elapsed < Duration::from_secs(10), "{count} connections, {elapsed:?}");
    // So much for the measure: without TLS there is no HTTP/2.
    let (count, elapsed) = connections(&agent, &connection(agent.http().port(), Scheme::Http))?;
    ensure!(count == 20 && elapsed < Duration::from_secs(10), "{count} connections, {elapsed:?}");
    Ok(())
}

fn functions() -> Result<()> {
    let (agent, port) = strict()?;
    let host = library(&agent)?;
    let to = connection(port, Scheme::Https);
    let options = |state: State| Options {
        state: Some(state),
        name: Some("x".into()),
        host: Some("localhost".into()),
        port: Some(port),
        scheme: Some(Scheme::Https),
        ..Options::default()
    };
    block_on(async {
        let created = answer(host.apply(&options(State::Present))).await?.value()?;
        let id = created.session_id.context("no id")?;
        ensure!(created.changed && !answer(host.apply(&options(State::Present))).await?.value()?.changed);
        let lookup = answer(host.info(&id, None, Some(&to))).await?.value()?;
        ensure!(lookup.session.is_some_and(|session| session.id == id && session.name == "x"));
        ensure!(answer(host.node(NODE, None, Some(&to))).await?.value()?.sessions.len() == 1);
        let listing = answer(host.list_sessions(None, Some(&to))).await?.value()?;
        ensure!(listing.sessions.len() == 1 && listing.sessions[0].id == id);

        let query = Query { index: Some(listing.index), wait: Some(60.0), consistency: None };
        let (waiting, waiting_to) = (host.clone(), to.clone());
        let waiting = tokio::spawn(async move {
            within(Duration::from_secs(30), waiting.list_sessions(Some(query), Some(&waiting_to))).await
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        ensure!(!waiting.is_finished(), "nothing changed, and yet it answered");
        answer(host.create(&CreateOptions::default(), Some(&to))).await?.value()?;
        ensure!(waiting.await??.value()?.sessions.len() == 2);

        let destroyed = answer(host.apply(&options(State::Absent))).await?.value()?;
        ensure!(destroyed.changed && destroyed.destroyed == [id]);
        ensure!(answer(host.list_sessions(None, Some(&to))).await?.value()?.sessions.len() == 1);
        Ok(())
    })
}

fn many_calls() -> Result<()> {
    let (agent, port) = strict()?;
    let host = library(&agent)?;
    let to = connection(port, Scheme::Https);
    block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..200 {
            let (host, to) = (host.clone(), to.clone());
            let call = async move { within(Duration::from_secs(30), host.list_sessions(None, Some(&to))).await?.value() };
            running.spawn(call);
        }
        let listings = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(listings.len() == 200 && listings.iter().all(|listing| listing.sessions.is_empty()));
        Ok(())
    })
}

/// An address that nobody asks: what is typed is refused before.
const NOWHERE: &str = "CONSUL_HTTP_ADDR=https://localhost:1 state=list";

/// A certificate that no agent has anything to do with.
fn pair(folder: &TempDir) -> Result<Pair> {
    Authority::new()?.issue(Certificate::Good, folder.path(), "client")
}

fn half_a_pair() -> Result<()> {
    let folder = tempdir()?;
    let pair = pair(&folder)?;
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let no_key = format!("client-cert {cert}: needs client-key too, the PEM file of its key");
    let no_cert = format!("client-key {key}: needs client-cert too, the PEM file of its certificate");
    typed(format!("{NOWHERE} --client-cert {cert}")).fails("invalid-option", &no_key)?;
    typed(format!("CONSUL_CLIENT_CERT={cert} {NOWHERE}")).fails("invalid-option", &no_key)?;
    typed(format!("{NOWHERE} --client-key {key}")).fails("invalid-option", &no_cert)?;
    typed(format!("CONSUL_CLIENT_KEY={key} {NOWHERE}")).fails("invalid-option", &no_cert)?;
    // One typed, the other from the environment.
    typed(format!("CONSUL_CLIENT_KEY={key} {NOWHERE} --client-cert {cert}")).fails("unreachable", &nobody(1))
}

fn missing_files() -> Result<()> {
    let folder = tempdir()?;
    let pair = pair(&folder)?;
    let (cert, key) = (pair.cert.display(), pair.key.display());
    const ERROR: &str = "cannot be read: No such file or directory (os error 2)";
    for (given, message) in [
        ("--ca-file /missing".into(), format!("ca-file /missing: {ERROR}")),
        (
            "--ca-path /missing".into(),
            "ca-path /missing: no folder that can be read: No such file or directory (os error 2)".into(),
        ),
        (format!("--client-cert /missing --client-key {key}"), format!("client-cert /missing: {ERROR}")),
        (format!("--client-cert {cert} --client-key /missing"), format!("client-key /missing: {ERROR}")),
    ] {
        typed(format!("{NOWHERE} {given}")).fails("invalid-option", &message)?;
    }
    typed(format!("CONSUL_CACERT=/missing {NOWHERE}")).fails("invalid-option", &format!("ca-file /missing: {ERROR}"))
}

fn wrong_files() -> Result<()> {
    let folder = tempdir()?;
    let pair = pair(&folder)?;
    let other = Authority::new()?.issue(Certificate::Good, folder.path(), "other")?;
    let (cert, key, other) = (pair.cert.display(), pair.key.display(), other.key.display());
    let empty = file(&folder, "empty", "")?;
    let nothing = tempdir()?;
    let nothing = nothing.path().display();
    const CERTIFICATE: &str = "no certificate (PEM, -----BEGIN CERTIFICATE-----)";
    const KEY: &str = "no private key (PEM, -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY)";
    for (given, message) in [
        (format!("--ca-file {empty}"), format!("ca-file {empty}: {CERTIFICATE}; found no PEM block")),
        (format!("--ca-file {key}"), format!("ca-file {key}: {CERTIFICATE}; found 1 PRIVATE KEY")),
        (
            format!("--ca-path {nothing}"),
            format!("ca-path {nothing}: no file in this folder has a certificate (PEM, -----BEGIN CERTIFICATE-----)"),
        ),
        (format!("--client-cert {key} --client-key {key}"), format!("client-cert {key}: {CERTIFICATE}; found 1 PRIVATE KEY")),
        (format!("--client-cert {cert} --client-key {cert}"), format!("client-key {cert}: {KEY}; found 1 CERTIFICATE")),
        (
            format!("--client-cert {cert} --client-key {other}"),
            format!(
                "client-key {other}: the key does not belong to the first certificate in {cert}, which must be the client's own"
            ),
        ),
    ] {
        typed(format!("{NOWHERE} {given}")).fails("invalid-option", &message)?;
    }
    Ok(())
}
