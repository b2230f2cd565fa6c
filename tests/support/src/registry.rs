//! A real OCI registry, distribution's, for one test.

use crate::consul::{free_port, spawn};
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user of a registry that asks for a password.
pub const USER: &str = "publisher";
/// The password of [`USER`].
pub const PASSWORD: &str = "correct-horse";
/// The line of an `htpasswd` file with the password's bcrypt hash.
const HTPASSWD: &str = "publisher:$2b$04$abcdefghijklmnopqrstuuPoaPXzWjiVz4HaNq2LJXksWbO79E.S6\n";

/// The commit of [`release`].
pub const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";
/// The time of [`REVISION`].
pub const CREATED: &str = "2026-01-02T03:04:05Z";

/// The time limit for a registry to answer. It takes a tenth of a second.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running registry, which speaks plain HTTP. It is killed when this is dropped, and on Linux also
/// when the test process dies without dropping it.
pub struct Registry {
    process: Child,
    port: u16,
    /// Holds the configuration and everything that is pushed.
    _folder: TempDir,
    /// An unnamed file, so that nothing is left in the file system.
    log: File,
}

impl Registry {
    /// Starts an empty registry that asks for no password, and waits until it answers.
    pub fn start() -> Result<Registry> {
        Registry::launch(false)
    }

    /// Starts an empty registry that asks for [`USER`] and [`PASSWORD`]; see [`Registry::start`].
    pub fn start_with_password() -> Result<Registry> {
        Registry::launch(true)
    }

    fn launch(password: bool) -> Result<Registry> {
        let (folder, log, port) = (TempDir::new()?, tempfile::tempfile()?, free_port());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\n\
             log: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            path("storage")
        );
        if password {
            std::fs::write(path("htpasswd"), HTPASSWD)?;
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n", path("htpasswd")));
        }
        std::fs::write(path("config.yml"), config)?;
        let mut command = tools::command(tools::registry()?);
        command.arg("serve").arg(path("config.yml"));
        // It would report to a collector on this machine.
        command.env("OTEL_TRACES_EXPORTER", "none");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        let mut registry = Registry { process: spawn(command)?, port, _folder: folder, log };
        registry.wait_until_ready()?;
        Ok(registry)
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let (start, client) = (Instant::now(), crate::api::client(Duration::from_secs(5)));
        let url = format!("http://{}/v2/", self.address());
        // Any answer will do: with a password it is a 401.
        while client.get(&url).call().is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("the registry ended at once ({status}); its log:\n{}", self.log()?);
            }
            if start.elapsed() > START_LIMIT {
                bail!("the registry was not ready in {START_LIMIT:?}; its log:\n{}", self.log()?);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log(&self) -> Result<String> {
        let mut text = vec![0; usize::try_from(self.log.metadata()?.len())?];
        // Without seeking: the registry writes at the offset, which both share.
        self.log.read_exact_at(&mut text, 0).context("the registry's log")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Makes a folder with what `cargo xtask publish` reads, as `cargo xtask dist` makes it from a commit:
/// the files of [`tools::dist`], whose tree may have uncommitted changes.
pub fn release() -> Result<TempDir> {
    let folder = TempDir::new()?;
    for entry in std::fs::read_dir(tools::dist()?)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default();
        if name.to_string_lossy().ends_with(".wasm") {
            std::fs::copy(&file, folder.path().join(name))?;
        }
    }
    std::fs::write(folder.path().join("REVISION"), format!("{REVISION} {CREATED}\n"))?;
    write_sums(folder.path())?;
    Ok(folder)
}

/// Writes the `SHA256SUMS` of a folder.
pub fn write_sums(folder: &Path) -> Result<()> {
    let sums = folder.join("SHA256SUMS");
    // The file does not list itself.
    if sums.exists() {
        std::fs::remove_file(&sums)?;
    }
    let files = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let lines = files.iter().map(|file| {
        let name = file.file_name().unwrap_or_default().display();
        Ok(format!("{}  {name}\n", tools::sha256(file)?))
    });
    Ok(std::fs::write(sums, lines.collect::<Result<String>>()?)?)
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of the registry at {}:\n{}", self.address(), self.log().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_with_a_password_refuses_requests_without_it() -> Result<()> {
        let client = crate::api::client(Duration::from_secs(5));
        let status = |registry: &Registry| -> Result<u16> {
            Ok(client.get(format!("http://{}/v2/", registry.address())).call()?.status().as_u16())
        };
        assert_eq!(status(&Registry::start()?)?, 200);
        assert_eq!(status(&Registry::start_with_password()?)?, 401);
        Ok(())
    }
}
