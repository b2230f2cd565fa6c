//! A real OCI registry, distribution's, for one test.

use crate::consul::free_port;
use crate::server::Server;
use crate::{api, tools};
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
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

/// A running registry, which speaks plain HTTP.
pub struct Registry {
    // Dropped before its folder.
    _server: Server,
    port: u16,
    /// Holds the configuration and everything that is pushed.
    _folder: TempDir,
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
        let (folder, port) = (TempDir::new()?, free_port());
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
        let (client, url) = (api::client(Duration::from_secs(5)), format!("http://{}:{port}/v2/", Ipv4Addr::LOCALHOST));
        // Any answer will do: with a password it is a 401.
        let server = Server::start("the registry", command, START_LIMIT, || client.get(&url).call().is_ok())?;
        Ok(Registry { _server: server, port, _folder: folder })
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
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
