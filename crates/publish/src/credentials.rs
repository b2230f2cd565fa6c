//! The user and the password for a registry, where Docker and other tools keep them.

use anyhow::{Result, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential};
use oci_client::secrets::RegistryAuth;

/// Returns what Docker's configuration has for this host, or anonymous access.
///
/// # Errors
///
/// The configuration has credentials that cannot be used. The message holds none of them.
pub fn of(host: &str) -> Result<RegistryAuth> {
    // Docker's own registry has another name there; some tools write URLs.
    let names = match host {
        "docker.io" => vec!["https://index.docker.io/v1/".to_owned()],
        host => vec![host.to_owned(), format!("https://{host}")],
    };
    for name in names {
        match get_credential(&name) {
            Ok(DockerCredential::UsernamePassword(user, password)) => return Ok(RegistryAuth::Basic(user, password)),
            Ok(DockerCredential::IdentityToken(_)) => {
                bail!("Docker's configuration has an identity token for {host}, not a password; try `docker login {host}`")
            }
            // No file, or nothing about this host.
            Err(
                CredentialRetrievalError::ConfigNotFound
                | CredentialRetrievalError::ConfigReadError
                | CredentialRetrievalError::NoCredentialConfigured,
            ) => {}
            // A helper has no other way to say so.
            Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {}
            // Its output may hold a secret.
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                bail!("Docker's credential helper `{helper}` failed for {host}; try `docker login {host}`")
            }
            Err(error) => bail!("the credentials for {host} in Docker's configuration: {error}; try `docker login {host}`"),
        }
    }
    Ok(RegistryAuth::Anonymous)
}
