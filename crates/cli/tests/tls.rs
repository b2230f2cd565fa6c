//! TLS options against a real Consul: which agents the program trusts, and which clients an agent
//! accepts. The texts of the errors are compared exactly.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_host::{Connection, CreateOptions, Host, Options, Query, Scheme, State, Tls};
use consul_session_tests::embedded::{answer, within};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};
use test_support::certificates::{Authority, Certificate, Pair};
use test_support::consul::{Consul, NODE, Settings};
use test_support::plugin;
use test_support::program::{self, CommandLine, file, run};
use test_support::{block_on, unused_address};
use tokio::task::JoinSet;

/// Returns the command line of the program with these variables and arguments.
fn consul_session(line: impl Into<String>) -> CommandLine {
    CommandLine::new(env!("CARGO_BIN_EXE_consul-session"), line)
}

/// The output of `state=list` with a new agent.
const NO_SESSION: &str = "no session\n";

/// Starts an agent with HTTPS and this certificate, and returns it with its HTTPS port.
fn start_with(certificate: Certificate) -> Result<(Consul, u16)> {
    Consul::start_secure(Settings { https: Some(certificate), ..Settings::default() })
}

/// The remedy in the error for a certificate of an unknown CA.
const CA_REMEDY: &str = "give the CA's certificate with `--ca-file FILE` (CONSUL_CACERT)";

#[test]
fn certificates_are_verified_with_each_ca_source() -> Result<()> {
    let (agent, port) = start_with(Certificate::Good)?;
    let (folder, ca) = (tempdir()?, agent.ca());
    let (ca_folder, ca) = (ca.parent().context("no folder")?.display(), ca.display());
    // The agent's folder also has private keys, which the program ignores.
    fs::create_dir(folder.path().join("certs"))?;
    fs::copy(agent.ca(), folder.path().join("certs/ca.pem"))?;
    let by_file = file(&folder, "file.toml", "[tls]\nca_file = \"certs/ca.pem\"\n")?;
    let by_missing = file(&folder, "missing.toml", "[tls]\nca_file = \"missing.pem\"\n")?;
    let by_path = file(&folder, "path.toml", "[tls]\nca_path = \"certs\"\n")?;
    for address in [format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}")] {
        for args in [
            format!("CONSUL_CACERT={ca} state=list"),
            format!("CONSUL_CAPATH={ca_folder} state=list"),
            format!("SSL_CERT_FILE={ca} state=list"),
            format!("state=list --ca-file {ca}"),
            format!("state=list --ca-path={ca_folder}"),
            format!("state=list --config {by_file}"),
            format!("state=list --config {by_path}"),
            // An argument takes precedence over the environment, and the environment over the
            // configuration file.
            format!("CONSUL_CACERT=/missing.pem state=list --ca-file {ca}"),
            format!("CONSUL_CACERT=/missing.pem state=list --ca-path {ca_folder}"),
            format!("CONSUL_CACERT={ca} state=list --config {by_missing}"),
        ] {
            consul_session(format!("CONSUL_HTTP_ADDR={address} {args}")).prints(NO_SESSION)?;
        }
    }
    // The scheme is set by a variable or an argument.
    consul_session(format!("CONSUL_HTTP_ADDR=localhost:{port} CONSUL_HTTP_SSL=true CONSUL_CACERT={ca} state=list"))
        .prints(NO_SESSION)?;
    consul_session(format!("state=list host=localhost port={port} scheme=https --ca-file {ca}")).prints(NO_SESSION)
}

#[test]
fn unknown_ca_is_rejected() -> Result<()> {
    let (agent, port) = start_with(Certificate::OtherCa)?;
    let env = format!("CONSUL_HTTP_ADDR=https://localhost:{port}");
    let message = format!("the certificate of localhost:{port} is not signed by a CA that this host trusts: {CA_REMEDY}");
    consul_session(format!("{env} state=list")).fails("tls", &message)?;
    // The program refuses the connection before it can change anything.
    consul_session(format!("{env} CONSUL_CACERT={} state=present", agent.ca().display())).fails("tls", &message)?;
    consul_session(format!("{env} SSL_CERT_FILE={} state=present", agent.ca().display())).fails("tls", &message)?;
    ensure!(agent.api().sessions()?.is_empty());
    // A CA replaces the platform's roots, unless `platform_roots` keeps them.
    let (trusted, port) = start_with(Certificate::Good)?;
    let (folder, ca) = (tempdir()?, trusted.ca());
    let env = format!("CONSUL_HTTP_ADDR=https://localhost:{port} SSL_CERT_FILE={}", ca.display());
    let message = format!("the certificate of localhost:{port} is not signed by a CA that this host trusts: {CA_REMEDY}");
    let other_ca = agent.ca();
    consul_session(format!("{env} state=list --ca-file {}", other_ca.display())).fails("tls", &message)?;
    let both = file(&folder, "c.toml", format!("[tls]\nca_file = {other_ca:?}\nplatform_roots = true\n"))?;
    consul_session(format!("{env} state=list --config {both}")).prints(NO_SESSION)?;
    let none = file(&folder, "c.toml", "[tls]\nplatform_roots = false\n")?;
    consul_session(format!("{env} state=list --config {none}")).fails("tls", &message)
}

#[test]
fn certificate_for_another_name_needs_that_name() -> Result<()> {
    let (agent, port) = start_with(Certificate::Server)?;
    let ca_env = format!("CONSUL_CACERT={}", agent.ca().display());
    let folder = tempdir()?;
    for host in ["localhost", "127.0.0.1"] {
        let env = format!("{ca_env} CONSUL_HTTP_ADDR=https://{host}:{port}");
        let message = |expected: &str| {
            format!(
                "the certificate of {host}:{port} is for server.dc1.consul, not for {expected}: set `host` to a name that it is for, or \
                 say which to expect with `--tls-server-name NAME` (CONSUL_TLS_SERVER_NAME)"
            )
        };
        consul_session(format!("{env} state=present")).fails("tls", &message(host))?;
        ensure!(agent.api().sessions()?.is_empty());
        consul_session(format!("{env} state=list --tls-server-name server.dc1.consul")).prints(NO_SESSION)?;
        consul_session(format!("{env} CONSUL_TLS_SERVER_NAME=server.dc1.consul state=list")).prints(NO_SESSION)?;
        let config = file(&folder, "c.toml", "[tls]\nserver_name = \"server.dc1.consul\"\n")?;
        consul_session(format!("{env} state=list --config {config}")).prints(NO_SESSION)?;
        consul_session(format!(
            "{env} CONSUL_TLS_SERVER_NAME=server.dc1.consul state=list --tls-server-name server.dc2.consul"
        ))
        .fails("tls", &message("server.dc2.consul"))?;
    }
    Ok(())
}

#[test]
fn expired_certificate_is_rejected() -> Result<()> {
    let (agent, port) = start_with(Certificate::Expired)?;
    consul_session(format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={} state=present", agent.ca().display())).fails(
        "tls",
        &format!(
            "the certificate of localhost:{port}, or of its CA, expired 10 days ago: have it renewed, and check this machine's clock"
        ),
    )?;
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

#[test]
fn certificate_that_is_not_yet_valid_is_rejected() -> Result<()> {
    let (agent, port) = start_with(Certificate::NotYetValid)?;
    consul_session(format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={} state=present", agent.ca().display()))
        .fails(
        "tls",
        &format!(
            "the certificate of localhost:{port}, or of its CA, is not valid yet, but in 10 days: check this machine's clock"
        ),
    )?;
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

/// The remedy in the errors for client certificates.
const CLIENT_CERT_REMEDY: &str = "with `--client-cert FILE --client-key FILE` (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY)";

/// Starts an agent that requires client certificates, and returns it with its HTTPS port.
fn start_strict() -> Result<(Consul, u16)> {
    Consul::start_secure(Settings { https: Some(Certificate::Good), verify_incoming: true, ..Settings::default() })
}

#[test]
fn unacceptable_client_certificate_is_rejected_before_any_change() -> Result<()> {
    let (agent, port) = start_strict()?;
    let env = format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display());
    for (certificate, alert) in [(Certificate::OtherCa, "UnknownCA"), (Certificate::Expired, "CertificateExpired")] {
        let pair = agent.issue(certificate)?;
        let (cert, key) = (pair.cert.display(), pair.key.display());
        // In TLS 1.3 the alert can arrive after the client has sent the request. The agent does
        // not process the request, so this is the error of a change too.
        for options in ["state=list", "name=x", "state=present"] {
            consul_session(format!("{env} {options} --client-cert {cert} --client-key {key}")).fails(
                "tls",
                &format!(
                    "localhost:{port} refused the client certificate ({alert}): give one that its CA signed {CLIENT_CERT_REMEDY}"
                ),
            )?;
        }
    }
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

#[test]
fn client_certificate_is_presented_on_request() -> Result<()> {
    let (agent, port) = start_strict()?;
    let env = format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display());
    let pair = agent.issue(Certificate::Good)?;
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let folder = tempdir()?;
    fs::copy(&pair.cert, folder.path().join("client.pem"))?;
    fs::copy(&pair.key, folder.path().join("key.pem"))?;
    let config = file(&folder, "c.toml", "[tls]\nclient_cert = \"client.pem\"\nclient_key = \"key.pem\"\n")?;
    consul_session(format!("{env} state=list --client-cert {cert} --client-key {key}")).prints(NO_SESSION)?;
    consul_session(format!("{env} CONSUL_CLIENT_CERT={cert} CONSUL_CLIENT_KEY={key} state=list")).prints(NO_SESSION)?;
    let both = file(&folder, "both.pem", fs::read_to_string(&pair.cert)? + &fs::read_to_string(&pair.key)?)?;
    consul_session(format!("{env} state=list --client-cert {both} --client-key {both}")).prints(NO_SESSION)?;
    // An argument takes precedence over the environment.
    consul_session(format!("{env} CONSUL_CLIENT_CERT=/missing CONSUL_CLIENT_KEY={key} state=list --client-cert {cert}"))
        .prints(NO_SESSION)?;
    consul_session(format!("{env} state=list --config {config}")).prints(NO_SESSION)
}

#[test]
fn missing_client_certificate_is_rejected_before_any_change() -> Result<()> {
    let (agent, port) = start_strict()?;
    let env = format!("CONSUL_HTTP_ADDR=https://localhost:{port} CONSUL_CACERT={}", agent.ca().display());
    let message = format!("localhost:{port} wants a client certificate (CertificateRequired): give one {CLIENT_CERT_REMEDY}");
    for options in ["state=list", "name=x", "state=present"] {
        consul_session(format!("{env} {options}")).fails("tls", &message)?;
    }
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

/// Returns the message for a port of localhost at which nothing listens.
fn nothing_listens(port: u16) -> String {
    format!("nothing listens at localhost:{port}: check `host` and `port`, and whether the agent runs")
}

#[test]
fn wrong_scheme_for_the_port_is_explained() -> Result<()> {
    let (agent, port) = start_with(Certificate::Good)?;
    let plain = agent.http().port();
    let ca_env = format!("CONSUL_CACERT={}", agent.ca().display());
    consul_session(format!("{ca_env} CONSUL_HTTP_ADDR=https://localhost:{plain} state=present"))
        .fails("tls", &format!("the server at localhost:{plain} does not speak TLS: check `port`, or give `scheme=http`"))?;
    consul_session(format!("{ca_env} CONSUL_HTTP_ADDR=localhost:{port} state=list"))
        .fails("refused", "consul answered 400: Client sent an HTTP request to an HTTPS server.")?;
    // Consul reads only the beginning of a request with a body. How much of its answer arrives is
    // therefore random.
    let output = consul_session(format!("{ca_env} CONSUL_HTTP_ADDR=localhost:{port} state=present")).run(&[])?;
    ensure!(output.status == 1 && output.stdout.is_empty(), "{output:?}");
    let unused = unused_address()?.port();
    consul_session(format!("{ca_env} CONSUL_HTTP_ADDR=https://localhost:{unused} state=present"))
        .fails("unreachable", &nothing_listens(unused))?;
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

#[test]
fn insecure_is_granted_by_flag_and_file_only() -> Result<()> {
    let (agent, port) = start_with(Certificate::OtherCa)?;
    let env = format!("CONSUL_HTTP_ADDR=https://localhost:{port}");
    let message = format!(
        "`validate_certs=false` is not granted for localhost:{port}: add `--insecure localhost:{port}`, or to the configuration file: \
         insecure = [\"localhost:{port}\"]"
    );
    let folder = tempdir()?;
    let granting = file(&folder, "yes.toml", format!("insecure = [\"localhost:{port}\"]\n"))?;
    let other = file(&folder, "no.toml", format!("insecure = [\"127.0.0.1:{port}\"]\n"))?;
    for args in ["state=present validate_certs=false", "state=present --validate-certs no"] {
        consul_session(format!("{env} {args}")).fails("denied-by-host", &message)?;
        // The permission is for another authority.
        consul_session(format!("{env} {args} --insecure 127.0.0.1:{port} --insecure localhost:1"))
            .fails("denied-by-host", &message)?;
        consul_session(format!("{env} {args} --config {other}")).fails("denied-by-host", &message)?;
    }
    consul_session(format!("CONSUL_HTTP_SSL_VERIFY=false {env} state=present")).fails("denied-by-host", &message)?;
    ensure!(agent.api().sessions()?.is_empty());
    consul_session(format!("{env} state=list validate_certs=false --insecure localhost:{port}")).prints(NO_SESSION)?;
    consul_session(format!("{env} state=list validate_certs=false --insecure *:{port}")).prints(NO_SESSION)?;
    consul_session(format!("{env} state=list validate_certs=false --config {granting}")).prints(NO_SESSION)?;
    consul_session(format!("CONSUL_HTTP_SSL_VERIFY=false {env} state=list --insecure localhost:{port}")).prints(NO_SESSION)?;
    // The permission alone does not turn verification off.
    consul_session(format!("{env} state=present --insecure localhost:{port}")).fails(
        "tls",
        &format!("the certificate of localhost:{port} is not signed by a CA that this host trusts: {CA_REMEDY}"),
    )?;
    // No other error in the certificate matters either.
    for certificate in [Certificate::Expired, Certificate::NotYetValid, Certificate::Server] {
        let (_agent, port) = start_with(certificate)?;
        consul_session(format!(
            "CONSUL_HTTP_ADDR=https://localhost:{port} state=list validate_certs=false --insecure localhost:{port}"
        ))
        .prints(NO_SESSION)?;
    }
    // A request that needs verification never reuses an unverified connection.
    let host = Host::builder().allow("localhost:*".parse()?).insecure("localhost:*".parse()?).build(plugin()?);
    let host = host.map_err(|error| anyhow!("{error:?}"))?;
    let verified = connection(port, Scheme::Https);
    let unverified = Connection { validate_certs: Some(false), ..verified.clone() };
    for _ in 0..2 {
        block_on(answer(host.list_sessions(None, Some(&unverified))))?.value()?;
        block_on(answer(host.list_sessions(None, Some(&verified))))?.error("tls")?;
    }
    // The agent still requires a client certificate from a client that does not verify.
    let (_agent, port) = start_strict()?;
    consul_session(format!(
        "CONSUL_HTTP_ADDR=https://localhost:{port} state=present validate_certs=false --insecure localhost:{port}"
    ))
    .fails("tls", &format!("localhost:{port} wants a client certificate (CertificateRequired): give one {CLIENT_CERT_REMEDY}"))
}

#[test]
fn insecure_is_unsupported_by_wasmtime_run() -> Result<()> {
    let (agent, port) = start_with(Certificate::Good)?;
    let output = run(&mut program::component(
        &["state=present", "host=localhost", &format!("port={port}"), "scheme=https", "validate_certs=no"],
        &[],
    )?)?;
    let message = format!(
        "error (unsupported): this host does not grant `validate_certs=false` for localhost:{port}: have it trust the CA of the agent's \
         certificate instead\n"
    );
    ensure!((output.status, output.stdout.as_str(), output.stderr.as_str()) == (1, "", message.as_str()), "{output:?}");
    ensure!(agent.api().sessions()?.is_empty());
    Ok(())
}

/// Returns a host that may connect to the agent, and has a valid client certificate.
fn host_for(agent: &Consul) -> Result<Host> {
    let pair = agent.issue(Certificate::Good)?;
    let tls = Tls { ca_file: Some(agent.ca()), client_cert: Some(pair.cert), client_key: Some(pair.key), ..Tls::default() };
    let host = Host::builder().allow("localhost:*".parse()?).tls(tls).build(plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

/// Returns the connection options for this port of localhost.
fn connection(port: u16, scheme: Scheme) -> Connection {
    Connection { host: Some("localhost".into()), port: Some(port), scheme: Some(scheme), ..Connection::default() }
}

/// Sends 20 concurrent blocking queries, each of which takes at least a second.
///
/// Returns the number of connections that they use, and the time until all are answered.
fn count_connections(agent: &Consul, connection: &Connection) -> Result<(usize, Duration)> {
    let host = host_for(agent)?;
    let list = async |query| answer(host.list_sessions(query, Some(connection))).await?.value();
    // The first request opens a connection before the queries start.
    let index = block_on(list(None))?.index;
    let (before, start) = (agent.log_length(), Instant::now());
    let query = Query { index: Some(index), wait: Some(1.0), consistency: None };
    block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..20 {
            let (host, connection) = (host.clone(), connection.clone());
            running.spawn(async move { answer(host.list_sessions(Some(query), Some(&connection))).await?.value() });
        }
        running.join_all().await.into_iter().try_for_each(|listing| listing.map(|_| ()))
    })?;
    let elapsed = start.elapsed();
    loop {
        let log = agent.log_since(before);
        let queries = log.lines().filter(|line| line.contains("Request finished") && line.contains("index="));
        let clients: Vec<_> = queries.filter_map(|line| line.split_once(" from=")?.1.split(' ').next()).collect();
        if clients.len() >= 20 {
            return Ok((clients.iter().collect::<BTreeSet<_>>().len(), elapsed));
        }
        ensure!(start.elapsed() < Duration::from_secs(30), "the agent saw {} queries:\n{log}", clients.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn http2_requests_share_a_connection() -> Result<()> {
    let (agent, port) = start_strict()?;
    let (count, elapsed) = count_connections(&agent, &connection(port, Scheme::Https))?;
    ensure!(count == 1 && elapsed < Duration::from_secs(10), "{count} connections, {elapsed:?}");
    // The count is valid: without TLS there is no HTTP/2, and an HTTP/1.1 connection carries one
    // request at a time.
    let (count, elapsed) = count_connections(&agent, &connection(agent.http().port(), Scheme::Http))?;
    ensure!(count == 20 && elapsed < Duration::from_secs(10), "{count} connections, {elapsed:?}");
    Ok(())
}

#[test]
fn every_function_works_with_client_certificates() -> Result<()> {
    let (agent, port) = start_strict()?;
    let host = host_for(&agent)?;
    let connection = connection(port, Scheme::Https);
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
        let lookup = answer(host.info(&id, None, Some(&connection))).await?.value()?;
        ensure!(lookup.session.is_some_and(|session| session.id == id && session.name == "x"));
        ensure!(answer(host.node(NODE, None, Some(&connection))).await?.value()?.sessions.len() == 1);
        let listing = answer(host.list_sessions(None, Some(&connection))).await?.value()?;
        ensure!(listing.sessions.len() == 1 && listing.sessions[0].id == id);

        let query = Query { index: Some(listing.index), wait: Some(60.0), consistency: None };
        let blocking = tokio::spawn({
            let (host, connection) = (host.clone(), connection.clone());
            async move { within(Duration::from_secs(30), host.list_sessions(Some(query), Some(&connection))).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        ensure!(!blocking.is_finished(), "an answer without a change");
        answer(host.create(&CreateOptions::default(), Some(&connection))).await?.value()?;
        ensure!(blocking.await??.value()?.sessions.len() == 2);

        let destroyed = answer(host.apply(&options(State::Absent))).await?.value()?;
        ensure!(destroyed.changed && destroyed.destroyed == [id]);
        ensure!(answer(host.list_sessions(None, Some(&connection))).await?.value()?.sessions.len() == 1);
        Ok(())
    })
}

#[test]
fn two_hundred_calls_run_at_once() -> Result<()> {
    let (agent, port) = start_strict()?;
    let host = host_for(&agent)?;
    let connection = connection(port, Scheme::Https);
    block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..200 {
            let (host, connection) = (host.clone(), connection.clone());
            let call =
                async move { within(Duration::from_secs(30), host.list_sessions(None, Some(&connection))).await?.value() };
            running.spawn(call);
        }
        let listings = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(listings.len() == 200 && listings.iter().all(|listing| listing.sessions.is_empty()));
        Ok(())
    })
}

/// An address that gets no request, since the program rejects the other arguments first.
const NOWHERE: &str = "CONSUL_HTTP_ADDR=https://localhost:1 state=list";

/// Issues a valid client certificate of a CA that no agent trusts.
fn issue_pair(folder: &TempDir) -> Result<Pair> {
    Authority::new()?.issue(Certificate::Good, folder.path(), "client")
}

#[test]
fn client_certificate_without_key_is_rejected() -> Result<()> {
    let folder = tempdir()?;
    let pair = issue_pair(&folder)?;
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let no_key = format!("client-cert {cert}: needs client-key too, the PEM file of its key");
    let no_cert = format!("client-key {key}: needs client-cert too, the PEM file of its certificate");
    consul_session(format!("{NOWHERE} --client-cert {cert}")).fails("invalid-option", &no_key)?;
    consul_session(format!("CONSUL_CLIENT_CERT={cert} {NOWHERE}")).fails("invalid-option", &no_key)?;
    consul_session(format!("{NOWHERE} --client-key {key}")).fails("invalid-option", &no_cert)?;
    consul_session(format!("CONSUL_CLIENT_KEY={key} {NOWHERE}")).fails("invalid-option", &no_cert)?;
    // An argument and a variable together are complete.
    consul_session(format!("CONSUL_CLIENT_KEY={key} {NOWHERE} --client-cert {cert}")).fails("unreachable", &nothing_listens(1))
}

#[test]
fn missing_files_are_named() -> Result<()> {
    let folder = tempdir()?;
    let pair = issue_pair(&folder)?;
    let (cert, key) = (pair.cert.display(), pair.key.display());
    const ERROR: &str = "cannot be read: No such file or directory (os error 2)";
    for (args, message) in [
        ("--ca-file /missing".into(), format!("ca-file /missing: {ERROR}")),
        ("--ca-path /missing".into(), format!("ca-path /missing: {ERROR}")),
        (format!("--client-cert /missing --client-key {key}"), format!("client-cert /missing: {ERROR}")),
        (format!("--client-cert {cert} --client-key /missing"), format!("client-key /missing: {ERROR}")),
    ] {
        consul_session(format!("{NOWHERE} {args}")).fails("invalid-option", &message)?;
    }
    consul_session(format!("CONSUL_CACERT=/missing {NOWHERE}")).fails("invalid-option", &format!("ca-file /missing: {ERROR}"))
}

#[test]
fn files_without_usable_content_are_named() -> Result<()> {
    let folder = tempdir()?;
    let pair = issue_pair(&folder)?;
    let other = Authority::new()?.issue(Certificate::Good, folder.path(), "other")?;
    let (cert, key, other) = (pair.cert.display(), pair.key.display(), other.key.display());
    let empty = file(&folder, "empty", "")?;
    let empty_folder = tempdir()?;
    let empty_folder = empty_folder.path().display();
    const CERTIFICATE: &str = "no certificate (PEM, -----BEGIN CERTIFICATE-----)";
    const KEY: &str = "no private key (PEM, -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY)";
    for (args, message) in [
        (format!("--ca-file {empty}"), format!("ca-file {empty}: {CERTIFICATE}; found no PEM block")),
        (format!("--ca-file {key}"), format!("ca-file {key}: {CERTIFICATE}; found 1 PRIVATE KEY")),
        (
            format!("--ca-path {empty_folder}"),
            format!("ca-path {empty_folder}: no file in this folder has a certificate (PEM, -----BEGIN CERTIFICATE-----)"),
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
        consul_session(format!("{NOWHERE} {args}")).fails("invalid-option", &message)?;
    }
    Ok(())
}
