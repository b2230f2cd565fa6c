//! The error of a configuration value.

use std::fmt;

/// An invalid configuration value: a rule, an authority, a token, credentials, a limit, a TLS file,
/// or a configuration file.
///
/// The text names the value, what is wrong with it, and what is accepted. It never shows a token,
/// a password or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> ConfigError {
        ConfigError(message.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}
