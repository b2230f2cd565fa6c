//! The registry, and how artifacts get there.

use crate::artifact::Artifact;
use crate::credentials;
use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A registry, and the path below which the repositories are.
pub struct Destination {
    client: Client,
    auth: RegistryAuth,
    /// Host and port.
    host: String,
    /// The path, which ends with a slash unless it is empty.
    path: String,
    insecure: bool,
}

/// An artifact that the registry has.
#[derive(Debug)]
pub struct Published {
    /// The name with the tag.
    pub reference: String,
    /// The digest of the manifest, which names it for ever.
    pub digest: String,
    /// Whether the registry had it already.
    pub unchanged: bool,
}

impl fmt::Display for Published {
    /// Writes the lines for a terminal: a name with a digest would be wider than 80 columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unchanged = if self.unchanged { " (was there)" } else { "" };
        write!(f, "{}{unchanged}\n  @{}", self.reference, self.digest)
    }
}

impl Destination {
    /// Reads `HOST[:PORT][/PATH]`, and looks for credentials. By https, or with `insecure` by http.
    ///
    /// # Errors
    ///
    /// Not a registry, or unusable credentials.
    pub fn new(registry: &str, insecure: bool) -> Result<Destination> {
        let (host, path) = registry.trim_end_matches('/').split_once('/').unwrap_or((registry.trim_end_matches('/'), ""));
        let path = if path.is_empty() { String::new() } else { format!("{path}/") };
        // A name without a dot or a port would be a repository of docker.io.
        let valid = format!("{host}/{path}name:tag").parse::<Reference>().is_ok_and(|reference| reference.registry() == host);
        ensure!(valid, "invalid registry `{registry}` (expected HOST[:PORT][/PATH], such as ghcr.io/OWNER or localhost:5000)");
        let protocol = if insecure { ClientProtocol::Http } else { ClientProtocol::Https };
        // Credentials never cross a network in the clear.
        let auth = if insecure && !is_loopback(host) { RegistryAuth::Anonymous } else { credentials::of(host)? };
        // Fails if it is installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(Duration::from_secs(10)),
            read_timeout: Some(Duration::from_secs(60)),
            user_agent: concat!("consul-session-publish/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)?;
        Ok(Destination { client, auth, host: host.to_owned(), path, insecure })
    }

    /// Pushes all, unless a tag has other bytes.
    pub(crate) async fn push_all(&self, artifacts: &[Artifact]) -> Result<Vec<Published>> {
        self.check_realm().await?;
        // All are looked up before the first is pushed: a release is published as a whole.
        let mut found = Vec::new();
        for artifact in artifacts {
            found.push(self.find(artifact).await?);
        }
        let mut published = Vec::new();
        for (artifact, digest) in artifacts.iter().zip(found) {
            let unchanged = digest.is_some();
            let digest = match digest {
                Some(digest) => digest,
                None => self.push(artifact).await?,
            };
            published.push(Published { reference: self.reference(artifact)?.to_string(), digest, unchanged });
        }
        Ok(published)
    }

    /// Fails if the registry wants the credentials to be sent by http to another machine.
    async fn check_realm(&self) -> Result<()> {
        if self.auth == RegistryAuth::Anonymous {
            return Ok(());
        }
        let host = &self.host;
        // The first request of the client says more about an error.
        let Ok(response) = reqwest::get(format!("{}://{host}/v2/", self.scheme())).await else { return Ok(()) };
        let challenges = response.headers().get_all("WWW-Authenticate");
        let realms = challenges.iter().filter_map(|one| one.to_str().ok()?.split_once("realm=\"")?.1.split('"').next());
        for realm in realms {
            let server = realm.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
            ensure!(
                server.is_none_or(is_loopback),
                "{host} asks for the credentials to be sent by http, to {realm}; its operator must use https"
            );
        }
        Ok(())
    }

    fn scheme(&self) -> &'static str {
        if self.insecure { "http" } else { "https" }
    }

    /// Returns the digest of the manifest if the registry has this artifact.
    async fn find(&self, artifact: &Artifact) -> Result<Option<String>> {
        let reference = self.reference(artifact)?;
        // Pull is not enough to push, and the token is kept.
        let authorized = self.client.auth(&reference, &self.auth, RegistryOperation::Push).await;
        authorized.map_err(|error| self.explain(error, &reference))?;
        match self.client.pull_manifest(&reference, &self.auth).await {
            // Annotations may differ: the bytes can be those of an earlier commit.
            Ok((OciManifest::Image(manifest), digest))
                if manifest.layers.iter().map(|layer| &layer.digest).eq([&artifact.manifest.layers[0].digest]) =>
            {
                Ok(Some(digest))
            }
            Ok(_) => bail!(
                "{reference} exists with other bytes, and a published version never changes; raise the version in \
                 Cargo.toml (of the WIT package: in wit/)"
            ),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.explain(error, &reference)),
        }
    }

    /// Pushes an artifact, and returns the digest of its manifest.
    async fn push(&self, artifact: &Artifact) -> Result<String> {
        let reference = self.reference(artifact)?;
        let Artifact { layer, config, manifest, .. } = artifact;
        let layers = std::slice::from_ref(layer);
        let pushed = self.client.push(&reference, layers, config.clone(), &self.auth, Some(manifest.clone())).await;
        pushed.map_err(|error| self.explain(error, &reference))?;
        self.find(artifact).await?.with_context(|| format!("the registry does not have {reference} after it was pushed"))
    }

    fn reference(&self, artifact: &Artifact) -> Result<Reference> {
        let Artifact { repository, tag, .. } = artifact;
        format!("{}/{}{repository}:{tag}", self.host, self.path).parse().context("invalid name")
    }

    /// Adds a remedy to an error of the registry.
    fn explain(&self, error: OciDistributionError, reference: &Reference) -> anyhow::Error {
        let host = &self.host;
        match error {
            OciDistributionError::RequestError(error) if error.is_connect() => {
                let advice = if self.insecure { "" } else { " A registry without TLS needs --insecure" };
                anyhow!("no connection to {host} by {}: {}; is it running?{advice}", self.scheme(), root_cause(&error))
            }
            error if is_unauthorized(&error) => {
                let advice = match &self.auth {
                    RegistryAuth::Anonymous if self.insecure && !is_loopback(host) => {
                        "credentials are not sent by http; leave out --insecure".to_owned()
                    }
                    RegistryAuth::Anonymous => format!("`docker login {host}` stores a user and a password"),
                    _ => format!("may the user of `docker login {host}` write there?"),
                };
                anyhow!("{host} does not authorize the access to {}; {advice}", reference.repository())
            }
            error => anyhow::Error::new(error).context(format!("{reference} cannot be pushed")),
        }
    }
}

/// Returns whether a registry's host, with or without a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_not_found(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. } => true,
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound)
        }),
        _ => false,
    }
}

fn is_unauthorized(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::ServerError { code: 401 | 403, .. } => true,
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|error| matches!(error.code, OciErrorCode::Unauthorized | OciErrorCode::Denied))
        }
        _ => false,
    }
}

/// Returns the innermost cause, which says what the operating system or TLS found.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognized_with_and_without_a_port() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["ghcr.io", "localhost.example.com:5000", "10.0.0.1:5000", "127.0.0.1.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn registry_without_a_host_is_refused() {
        for registry in ["", "consul-session", "https://ghcr.io/owner", "ghcr.io/owner:1", "/owner", "ghcr.io/Owner"] {
            let error = Destination::new(registry, true).map(drop).expect_err(registry).to_string();
            assert!(error.starts_with(&format!("invalid registry `{registry}` (expected HOST[:PORT]")), "{error}");
        }
    }
}
