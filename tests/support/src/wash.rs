//! wasmCloud's `wash dev` with the front of `examples/wasmcloud` and the plugin.

use crate::consul::free_port;
use crate::program::stdout_of;
use crate::server::Server;
use crate::{api, plugin, tools, wasip2};
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The time limit for `wash dev` to serve the front. It compiles both components: a second.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The configuration of the example, which the tests run with other addresses and paths.
const CONFIG: &str = include_str!("../../../examples/wasmcloud/.wash/config.yaml");

/// Where the plugin comes from.
pub enum Plugin {
    /// The file that [`plugin`] returns.
    File,
    /// A name in a registry that speaks http.
    Image(String),
}

/// A running `wash dev`.
pub struct Wash {
    // Dropped before its folder.
    server: Server,
    url: String,
    client: ureq::Agent,
    /// The project and the home folder, which is not the user's.
    _folder: TempDir,
}

impl Wash {
    /// Starts the example with this allow-list for the plugin, and waits until it answers.
    pub fn start(plugin: &Plugin, allowed: &[&str]) -> Result<Wash> {
        let (folder, port) = (TempDir::new()?, free_port());
        let project = folder.path().join(".wash");
        std::fs::create_dir(&project)?;
        std::fs::write(project.join("config.yaml"), config(port, plugin, allowed)?)?;
        let mut command = tools::command(tools::wash()?);
        command.args(["--non-interactive", "dev"]).current_dir(folder.path()).env("HOME", folder.path());
        let (url, client) = (format!("http://{}:{port}/", Ipv4Addr::LOCALHOST), api::client(Duration::from_secs(30)));
        // Before the front answers nothing listens, and then wash itself answers 404.
        let is_ready = || post(&client, &url, "").is_ok_and(|(status, _)| status != 404);
        let server = Server::start("wash", command, START_LIMIT, is_ready)?;
        Ok(Wash { server, url, client, _folder: folder })
    }

    /// Returns the version, as `wash --version` prints it.
    pub fn version() -> Result<String> {
        let text = stdout_of(Command::new(tools::wash()?).arg("--version"))?;
        Ok(text.trim().strip_prefix("wash ").with_context(|| format!("not a version: {text}"))?.to_owned())
    }

    /// Sends the options to the front, and returns the status and the body of its answer.
    pub fn apply(&self, options: &str) -> Result<(u16, String)> {
        post(&self.client, &self.url, options)
    }

    /// Returns what `wash` printed.
    pub fn log(&self) -> Result<String> {
        self.server.log()
    }
}

fn post(client: &ureq::Agent, url: &str, options: &str) -> Result<(u16, String)> {
    let mut response = client.post(url).send(options)?;
    // The default limit is less than a long list of sessions.
    let body = response.body_mut().with_config().limit(1 << 30).read_to_string()?;
    Ok((response.status().as_u16(), body))
}

/// Returns the front, which plain cargo builds beside the plugin.
fn front() -> Result<PathBuf> {
    let path = wasip2()?.with_file_name("wasmcloud_front.wasm");
    let advice = "run `cargo build --release --target wasm32-wasip2 -p wasmcloud-front`";
    ensure!(path.is_file(), "no front at {}: {advice}", path.display());
    Ok(path)
}

/// Returns the example's configuration with these values in place of its own.
fn config(port: u16, plugin_from: &Plugin, allowed: &[&str]) -> Result<String> {
    let source = match plugin_from {
        Plugin::File => format!("file: {}", plugin()?.display()),
        Plugin::Image(name) => format!("image: {name}"),
    };
    let values = [
        ("command: cargo build --release --target wasm32-wasip2", "command: \"true\"".to_owned()),
        (
            "component_path: ../../target/wasm32-wasip2/release/wasmcloud_front.wasm",
            format!("component_path: {}", front()?.display()),
        ),
        ("address: 127.0.0.1:8000", format!("address: 127.0.0.1:{port}\n  allow_insecure_registries: true")),
        ("file: ../../dist/consul-session-plugin.wasm", source),
        ("allowedHosts: [\"http://localhost:8500\"]", format!("allowedHosts: {allowed:?}")),
    ];
    let mut config = CONFIG.to_owned();
    for (from, to) in values {
        ensure!(config.matches(from).count() == 1, "examples/wasmcloud/.wash/config.yaml has no unique `{from}`");
        config = config.replace(from, &to);
    }
    Ok(config)
}
