//! wasmCloud's `wash dev` with the front of `examples/wasmcloud` and the plugin.

use crate::consul::{free_port, spawn};
use crate::{api, plugin, tools, wasip2};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};
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

/// A running `wash dev`. It is killed when this is dropped, and on Linux also when the test process
/// dies without dropping it.
pub struct Wash {
    process: Child,
    url: String,
    client: ureq::Agent,
    /// The project and the home folder, which is not the user's.
    _folder: TempDir,
    /// An unnamed file, so that nothing is left in the file system.
    log: File,
}

impl Wash {
    /// Starts the example with this allow-list for the plugin, and waits until it answers.
    pub fn start(plugin: &Plugin, allowed: &[&str]) -> Result<Wash> {
        let (folder, log, port) = (TempDir::new()?, tempfile::tempfile()?, free_port());
        let project = folder.path().join(".wash");
        std::fs::create_dir(&project)?;
        std::fs::write(project.join("config.yaml"), config(port, plugin, allowed)?)?;
        let mut command = tools::command(tools::wash()?);
        command.args(["--non-interactive", "dev"]).current_dir(folder.path()).env("HOME", folder.path());
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let (url, client) = (format!("http://{}:{port}/", Ipv4Addr::LOCALHOST), api::client(Duration::from_secs(30)));
        let mut wash = Wash { process: spawn(command)?, url, client, _folder: folder, log };
        wash.wait_until_ready()?;
        Ok(wash)
    }

    /// Returns the version, as `wash --version` prints it.
    pub fn version() -> Result<String> {
        let output = Command::new(tools::wash()?).arg("--version").output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.trim().strip_prefix("wash ").with_context(|| format!("not a version: {text}"))?.to_owned())
    }

    /// Returns the address of the front.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends the options to the front, and returns the status and the body of its answer.
    pub fn apply(&self, options: &str) -> Result<(u16, String)> {
        let mut response = self.client.post(&self.url).send(options)?;
        // The default limit is less than a long list of sessions.
        let body = response.body_mut().with_config().limit(1 << 30).read_to_string()?;
        Ok((response.status().as_u16(), body))
    }

    /// Returns what `wash` printed.
    pub fn log(&self) -> Result<String> {
        let mut text = vec![0; usize::try_from(self.log.metadata()?.len())?];
        // Without seeking: wash writes at the offset, which both share.
        self.log.read_exact_at(&mut text, 0).context("wash's log")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits until the front answers. Before that nothing listens, and then wash itself answers 404.
    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.apply("").is_ok_and(|(status, _)| status != 404) {
            if let Some(status) = self.process.try_wait()? {
                bail!("wash ended at once ({status}); its log:\n{}", self.log()?);
            }
            ensure!(start.elapsed() < START_LIMIT, "wash was not ready in {START_LIMIT:?}; its log:\n{}", self.log()?);
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Wash {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of wash at {}:\n{}", self.url, self.log().unwrap_or_default());
        }
    }
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
