//! What the host adds to requests without showing it to the component: a token for Consul, and a
//! user's password for a proxy in front of it.

use crate::config_error::ConfigError;
use crate::policy::Rule;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use std::fmt;
use std::str::FromStr;

/// The header of a token.
pub(super) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consul-token");

/// The scheme of basic authentication, as it precedes the credentials in their header.
const BASIC: &str = "Basic ";

/// A secret, and where it is sent.
#[derive(Clone, Debug)]
pub(crate) struct SecretRule {
    /// The authorities.
    pub(crate) authorities: Rule,
    /// The secret.
    pub(crate) secret: Secret,
    /// Whether it is sent over plain HTTP too, which others can read on the way.
    pub(crate) over_http: bool,
}

/// A token or a password.
#[derive(Clone, Debug)]
pub(crate) enum Secret {
    Token(Token),
    Password(Credentials),
}

/// The kind of a secret. A request can get one of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SecretKind {
    Token,
    Password,
}

impl Secret {
    /// Returns the kind.
    pub(crate) fn kind(&self) -> SecretKind {
        match self {
            Secret::Token(_) => SecretKind::Token,
            Secret::Password(_) => SecretKind::Password,
        }
    }

    /// Returns the header that carries the secret.
    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        match self {
            Secret::Token(Token(value)) => (TOKEN_HEADER, value.clone()),
            Secret::Password(credentials) => (AUTHORIZATION, credentials.header.clone()),
        }
    }
}

impl SecretKind {
    /// Returns the table of the configuration file with the secrets of this kind.
    pub(super) fn table(self) -> &'static str {
        match self {
            SecretKind::Token => "[[token]]",
            SecretKind::Password => "[[basic_auth]]",
        }
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecretKind::Token => "token",
            SecretKind::Password => "password",
        })
    }
}

/// A token of Consul's ACL system. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(pub(super) HeaderValue);

impl FromStr for Token {
    type Err = ConfigError;

    /// Returns the text as a token, unchanged.
    ///
    /// # Errors
    ///
    /// Fails if the text is empty, or not a valid header value.
    fn from_str(text: &str) -> Result<Token, ConfigError> {
        // Without the text: a mistyped token is a secret too.
        let invalid = || ConfigError::new("a token is not empty, and has no line break and no other control character");
        let mut value = HeaderValue::from_str(text).map_err(|_| invalid())?;
        if value.is_empty() {
            return Err(invalid());
        }
        value.set_sensitive(true);
        Ok(Token(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A user and a password for HTTP's basic authentication, which a proxy in front of the agent may
/// ask for. `Debug` shows neither.
#[derive(Clone)]
pub struct Credentials {
    /// The value of the header: `Basic` and the pair in base64.
    header: HeaderValue,
    /// The user, a colon and the password.
    pair: String,
    /// The length of the user's name in bytes.
    user: usize,
}

impl Credentials {
    /// Returns the pair as the header carries it, without the scheme.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.header.as_bytes()[BASIC.len()..]
    }

    /// Returns the user, a colon and the password.
    pub(crate) fn pair(&self) -> &[u8] {
        self.pair.as_bytes()
    }

    /// Returns where the password starts in the pair.
    pub(super) fn password_start(&self) -> usize {
        self.user + 1
    }
}

impl FromStr for Credentials {
    type Err = ConfigError;

    /// Parses `USER:PASSWORD`, as Consul's own tools read `CONSUL_HTTP_AUTH`: the first colon
    /// separates the two, and without a colon the password is empty.
    ///
    /// # Errors
    ///
    /// Fails if the text is empty or contains a control character.
    fn from_str(text: &str) -> Result<Credentials, ConfigError> {
        // Without the text, which contains the password.
        if text.is_empty() || text.contains(char::is_control) {
            return Err(ConfigError::new(
                "a user and a password are written USER:PASSWORD, without a line break or another control character",
            ));
        }
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let pair = format!("{user}:{password}");
        let header = format!("{BASIC}{}", BASE64_STANDARD.encode(&pair));
        let mut header = HeaderValue::from_str(&header).map_err(|_| ConfigError::new("the user and password are too long"))?;
        header.set_sensitive(true);
        Ok(Credentials { header, user: user.len(), pair })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}
