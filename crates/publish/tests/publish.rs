//! The program against a real registry, whose content other tools and plain HTTP read.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use test_support::api::client;
use test_support::program::{Output, run, stdout_of};
use test_support::registry::{CREATED, PASSWORD, REVISION, Registry, USER, release, write_sums};
use test_support::scripted::{Reply, Scripted};
use test_support::{component, plugin, tools, unused_address};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The program with this folder and registry, without the credentials of whoever runs the test.
fn command(from: &Path, to: &str, more: &[&str]) -> Command {
    let mut command = tools::command(env!("CARGO_BIN_EXE_consul-session-publish"));
    command.arg("--from").arg(from).args(["--to", to]).args(more).env("DOCKER_CONFIG", from);
    command
}

fn publish(from: &TempDir, registry: &Registry) -> Result<Output> {
    run(&mut command(from.path(), &registry.address().to_string(), &["--insecure"]))
}

/// Runs the command, which must fail and print nothing but this message.
fn fails(command: &mut Command, expected: &str) -> Result<()> {
    let output = run(command)?;
    ensure!(output.status == 1 && output.stdout.is_empty(), "{output:?}");
    ensure!(output.stderr == format!("error: {expected}\n"), "{}expected:\nerror: {expected}", output.stderr);
    Ok(())
}

/// Returns a manifest, with its digest, or a blob of the registry.
fn get(registry: &Registry, path: &str) -> Result<(Value, String)> {
    let url = format!("http://{}/v2/{path}", registry.address());
    let mut response = client(Duration::from_secs(30))
        .get(&url)
        .header("Accept", "application/vnd.oci.image.manifest.v1+json")
        .call()
        .with_context(|| url.clone())?;
    ensure!(response.status() == 200, "{url}: {}", response.status());
    let digest = response.headers()["Docker-Content-Digest"].to_str()?.to_owned();
    Ok((serde_json::from_str(&response.body_mut().read_to_string()?)?, digest))
}

/// Writes a configuration of Docker with the password of [`USER`] for this registry.
fn configure(release: &TempDir, registry: &str, password: &str) -> Result<()> {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
    let config = json!({"auths": {registry: {"auth": auth}}});
    Ok(std::fs::write(release.path().join("config.json"), config.to_string())?)
}

/// Pulls a name by wasmCloud's tool, and returns the bytes.
fn pull_by_wash(reference: &str) -> Result<Vec<u8>> {
    let folder = TempDir::new()?;
    let file = folder.path().join("pulled.wasm");
    let mut wash = tools::command(tools::wash()?);
    wash.args(["--non-interactive", "oci", "pull", "--insecure", reference]).arg(&file).env("HOME", folder.path());
    stdout_of(&mut wash)?;
    Ok(std::fs::read(file)?)
}

#[test]
fn published_files_are_pulled_by_wash_with_the_same_bytes() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    let output = publish(&release, &registry)?.succeeded()?;
    let address = registry.address();
    let wit = release.path().join(format!("consul-session-plugin-{VERSION}.wit.wasm"));
    let repositories = [
        ("consul-session/plugin", plugin()?),
        ("consul-session/command", component()?),
        ("interfaces/consul-session/plugin", wit),
    ];
    let mut expected = String::new();
    for (repository, file) in repositories {
        let reference = format!("{address}/{repository}:{VERSION}");
        assert_eq!(pull_by_wash(&reference)?, std::fs::read(file)?, "{reference}");
        let (_, digest) = get(&registry, &format!("{repository}/manifests/{VERSION}"))?;
        expected.push_str(&format!("{reference}\n  @{digest}\n"));
        // By digest, as it is pinned.
        get(&registry, &format!("{repository}/manifests/{digest}"))?;
    }
    assert_eq!(output.stdout, expected);
    assert!(output.stdout.lines().all(|line| line.len() <= 80), "{}", output.stdout);
    Ok(())
}

#[test]
fn manifest_has_the_annotations_and_the_config_of_the_component() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    publish(&release, &registry)?.succeeded()?;
    let (manifest, _) = get(&registry, &format!("consul-session/plugin/manifests/{VERSION}"))?;
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(
        manifest["annotations"],
        json!({
            "org.opencontainers.image.title": "consul-session/plugin",
            "org.opencontainers.image.description": "Consul sessions as a sandboxed WebAssembly component",
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.revision": REVISION,
            "org.opencontainers.image.created": CREATED,
        })
    );
    let layer = format!("sha256:{}", tools::sha256(&plugin()?)?);
    let exports = ["desired-state", "locks", "sessions"].map(|name| format!("consul-session:plugin/{name}@0.1.0"));
    assert_eq!(
        manifest["layers"],
        json!([{
            "mediaType": "application/wasm",
            "digest": layer,
            "size": std::fs::metadata(plugin()?)?.len(),
            "annotations": {"org.opencontainers.image.title": "consul-session-plugin.wasm"},
        }])
    );
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    let digest = manifest["config"]["digest"].as_str().context("no config")?;
    let (config, _) = get(&registry, &format!("consul-session/plugin/blobs/{digest}"))?;
    assert_eq!(
        config,
        json!({
            "created": CREATED,
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer],
            "component": {
                "exports": exports,
                "imports": [
                    "wasi:clocks/monotonic-clock@0.2.0", "wasi:http/outgoing-handler@0.2.0", "wasi:http/types@0.2.0",
                    "wasi:io/error@0.2.0", "wasi:io/poll@0.2.0", "wasi:io/streams@0.2.0"
                ],
            },
        })
    );
    Ok(())
}

#[test]
fn wit_package_is_found_by_the_name_of_the_package() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    publish(&release, &registry)?.succeeded()?;
    let (manifest, _) = get(&registry, "interfaces/consul-session/plugin/manifests/0.1.0")?;
    let digest = manifest["config"]["digest"].as_str().context("no config")?;
    let (config, _) = get(&registry, &format!("interfaces/consul-session/plugin/blobs/{digest}"))?;
    let names = ["command", "desired-state", "locks", "plugin", "sessions"];
    assert_eq!(config["component"]["exports"], json!(names.map(|name| format!("consul-session:plugin/{name}@0.1.0"))));

    // A guest that imports the package, and nothing but its name.
    let project = TempDir::new()?;
    let folder = |name: &str| project.path().join(name);
    std::fs::create_dir(folder("wit"))?;
    std::fs::write(
        folder("wit/world.wit"),
        "package test:guest;\nworld guest { import consul-session:plugin/desired-state@0.1.0; }\n",
    )?;
    let address = registry.address();
    std::fs::create_dir_all(folder("config/wasm-pkg"))?;
    std::fs::write(
        folder("config/wasm-pkg/config.toml"),
        format!(
            "[namespace_registries.consul-session]
             registry = '{address}'
             metadata = {{preferredProtocol = 'oci', oci = {{registry = '{address}', namespacePrefix = 'interfaces/'}}}}
             [registry.'{address}'.oci]
             protocol = 'http'"
        ),
    )?;
    let mut wash = tools::command(tools::wash()?);
    wash.args(["--non-interactive", "wit", "fetch"]).current_dir(&project);
    wash.env("HOME", project.path()).env("XDG_CONFIG_HOME", folder("config"));
    stdout_of(&mut wash)?;
    let fetched = std::fs::read_to_string(folder("wit/deps/consul-session-plugin-0.1.0/package.wit"))?;
    assert!(fetched.contains("apply-json: func(options: string) -> result<string, error>;"), "{fetched}");
    Ok(())
}

#[test]
fn second_run_changes_nothing() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    let first = publish(&release, &registry)?.succeeded()?;
    // Another commit can have the same bytes.
    std::fs::write(release.path().join("REVISION"), format!("{} {CREATED}\n", "f".repeat(40)))?;
    write_sums(release.path())?;
    let second = publish(&release, &registry)?.succeeded()?;
    assert_eq!(second.stdout, first.stdout.replace("\n  @", " (was there)\n  @"));
    let (manifest, _) = get(&registry, &format!("consul-session/plugin/manifests/{VERSION}"))?;
    assert_eq!(manifest["annotations"]["org.opencontainers.image.revision"], REVISION);
    Ok(())
}

#[test]
fn other_bytes_under_a_tag_that_exists_are_refused() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    publish(&release, &registry)?.succeeded()?;
    let (_, before) = get(&registry, &format!("consul-session/command/manifests/{VERSION}"))?;
    // An empty custom section: another file with the same metadata and meaning.
    let file = release.path().join("consul-session.wasm");
    std::fs::write(&file, [std::fs::read(&file)?, b"\x00\x02\x01x".to_vec()].concat())?;
    write_sums(release.path())?;
    let reference = format!("{}/consul-session/command:{VERSION}", registry.address());
    fails(
        &mut command(release.path(), &registry.address().to_string(), &["--insecure"]),
        &format!(
            "{reference} exists with other bytes, and a published version never changes; raise the version in Cargo.toml \
             (of the WIT package: in wit/)"
        ),
    )?;
    assert_eq!(get(&registry, &format!("consul-session/command/manifests/{VERSION}"))?.1, before);
    Ok(())
}

#[test]
fn registry_with_a_path_has_the_names_below_it() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    let to = format!("{}/owner/project", registry.address());
    let output = run(&mut command(release.path(), &to, &["--insecure"]))?.succeeded()?;
    assert!(output.stdout.starts_with(&format!("{to}/consul-session/plugin:{VERSION}\n")), "{}", output.stdout);
    get(&registry, "owner/project/interfaces/consul-session/plugin/manifests/0.1.0")?;
    Ok(())
}

#[test]
fn credentials_come_from_the_configuration_of_docker() -> Result<()> {
    let (registry, release) = (Registry::start_with_password()?, release()?);
    let to = registry.address().to_string();
    let refused = format!("{to} does not authorize the access to consul-session/plugin; ");
    let command = || command(release.path(), &to, &["--insecure"]);
    fails(&mut command(), &format!("{refused}`docker login {to}` stores a user and a password"))?;

    configure(&release, &to, "wrong-horse")?;
    fails(&mut command(), &format!("{refused}may the user of `docker login {to}` write there?"))?;
    configure(&release, &to, PASSWORD)?;
    let output = run(&mut command())?.succeeded()?;
    assert!(!output.stdout.contains(PASSWORD), "{}", output.stdout);
    Ok(())
}

#[test]
fn credentials_are_not_sent_by_http_to_another_machine() -> Result<()> {
    let release = release()?;
    let challenge =
        |scheme: &'static str| Scripted::start(move |_| Reply::http(401, &format!("WWW-Authenticate: {scheme}\r\n"), ""));

    // A proxy, to be that machine.
    let proxy = challenge("Basic realm=\"test\"")?;
    configure(&release, "registry.example:5000", PASSWORD)?;
    fails(
        command(release.path(), "registry.example:5000", &["--insecure"])
            .env("http_proxy", format!("http://{}", proxy.address())),
        "registry.example:5000 does not authorize the access to consul-session/plugin; credentials are not sent by http; leave \
         out --insecure",
    )?;
    assert!(!proxy.requests().is_empty(), "no request to the proxy");
    assert!(proxy.requests().iter().all(|request| request.header("Authorization").is_empty()), "{:?}", proxy.requests());

    let registry = challenge("Bearer realm=\"http://auth.example/token\",service=\"registry\"")?;
    let to = registry.address().to_string();
    configure(&release, &to, PASSWORD)?;
    fails(
        &mut command(release.path(), &to, &["--insecure"]),
        &format!("{to} asks for the credentials to be sent by http, to http://auth.example/token; its operator must use https"),
    )
}

#[test]
fn credentials_that_cannot_be_used_are_errors() -> Result<()> {
    let release = release()?;
    let mut command = command(release.path(), "127.0.0.1:1", &["--insecure"]);
    let configure = |config: Value| std::fs::write(release.path().join("config.json"), config.to_string());
    configure(json!({"auths": {"127.0.0.1:1": {"identitytoken": "5ec2e7"}}}))?;
    fails(
        &mut command,
        "Docker's configuration has an identity token for 127.0.0.1:1, not a password; try `docker login 127.0.0.1:1`",
    )?;
    configure(json!({"credHelpers": {"127.0.0.1:1": "failing"}}))?;
    let helper = release.path().join("docker-credential-failing");
    let answer = |text: &str| std::fs::write(&helper, format!("#!/bin/sh\ncat; echo {text}; echo {text} >&2; exit 1\n"));
    answer("5ec2e7")?;
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = format!("{}:{}", release.path().display(), std::env::var("PATH")?);
    fails(
        command.env("PATH", path),
        "Docker's credential helper `docker-credential-failing` failed for 127.0.0.1:1; try `docker login 127.0.0.1:1`",
    )?;
    // No credentials are not an error.
    answer("credentials not found in native keychain")?;
    fails(&mut command, "no connection to 127.0.0.1:1 by http: Connection refused (os error 111); is it running?")
}

#[test]
fn registry_that_does_not_answer_is_named_with_the_remedy() -> Result<()> {
    let (registry, release) = (Registry::start()?, release()?);
    let nobody = unused_address()?.to_string();
    fails(
        &mut command(release.path(), &nobody, &["--insecure"]),
        &format!("no connection to {nobody} by http: Connection refused (os error 111); is it running?"),
    )?;
    fails(
        &mut command(release.path(), &registry.address().to_string(), &[]),
        &format!(
            "no connection to {} by https: received corrupt message of type InvalidContentType; is it running? A registry \
             without TLS needs --insecure",
            registry.address()
        ),
    )
}

#[test]
fn folder_that_is_not_a_release_is_refused() -> Result<()> {
    let empty = TempDir::new()?;
    fails(
        &mut command(empty.path(), "127.0.0.1:1", &["--insecure"]),
        &format!(
            "{}/SHA256SUMS cannot be read; `cargo xtask dist` makes the folder to publish: No such file or directory (os error 2)",
            empty.path().display()
        ),
    )?;

    let release = release()?;
    let mut command = command(release.path(), "127.0.0.1:1", &["--insecure"]);
    let revision = release.path().join("REVISION");
    std::fs::write(&revision, format!("{REVISION}-dirty {CREATED}\n"))?;
    fails(
        &mut command,
        &format!("{} is not the file that SHA256SUMS lists; run `cargo xtask dist` again", revision.display()),
    )?;
    write_sums(release.path())?;
    fails(
        &mut command,
        &format!("the files were built from changes after commit {REVISION}; commit them, and run `cargo xtask dist` again"),
    )?;
    std::fs::remove_file(&revision)?;
    fails(
        &mut command,
        &format!("{} cannot be read; `cargo xtask dist` makes it: No such file or directory (os error 2)", revision.display()),
    )
}
