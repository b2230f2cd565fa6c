//! `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_SSL`, `CONSUL_HTTP_SSL_VERIFY`,
//! `CONSUL_NAMESPACE` and `CONSUL_PARTITION`, read as Consul's own tools read them. An option that is given elsewhere takes precedence, each by
//! itself.

use crate::invocation::{Invocation, Source};
use consul_session::error::Error;
use serde_json::Value;

/// A user and a password, which the program gives to its host.
const AUTH: &str = "CONSUL_HTTP_AUTH";

/// Sets the options that the environment holds and that are not given yet.
///
/// # Errors
///
/// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), with the variable's name.
pub fn read(invocation: &mut Invocation, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), Error> {
    // Consul's tools treat an empty variable as unset.
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    // A given option takes precedence, so the variable's value is not even checked.
    let mut give = |name, value: &str| match invocation.is_given(name) {
        true => Ok(()),
        false => invocation.give(name, &Value::from(value), Source::Environment),
    };
    let mut scheme = None;
    if let Some(address) = variable("CONSUL_HTTP_ADDR") {
        let (given, host, port) = split(&address)?;
        scheme = given;
        // Go's default ports: Consul's tools do not add 8500 to a bare host.
        let default_port = if scheme == Some("https") { "443" } else { "80" };
        give("host", host)?;
        give("port", port.unwrap_or(default_port))?;
    }
    // The booleans that Go accepts.
    let boolean = |name: &str| match variable(name).as_deref() {
        None => Ok(None),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
        Some(text) => {
            Err(Error::invalid(name, format!("invalid value `{text}` for {name}: not a boolean (expected true, false, 1, 0)")))
        }
    };
    if boolean("CONSUL_HTTP_SSL")? == Some(true) {
        scheme = Some("https");
    }
    if boolean("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
        give("validate_certs", "false")?;
    }
    if let Some(scheme) = scheme {
        give("scheme", scheme)?;
    }
    if let Some(token) = variable("CONSUL_HTTP_TOKEN") {
        give("token", &token)?;
    }
    for (name, option) in [("CONSUL_NAMESPACE", "namespace"), ("CONSUL_PARTITION", "partition")] {
        if let Some(value) = variable(name) {
            give(option, &value)?;
        }
    }
    if variable(AUTH).is_some() {
        return Err(Error::invalid(AUTH, format!("{AUTH} is not supported here: a component cannot add such a header")));
    }
    Ok(())
}

/// Splits an address into scheme, host and port, such as `127.0.0.1:8500`,
/// `https://consul.example:8501` or `[::1]:8500`.
fn split(address: &str) -> Result<(Option<&'static str>, &str, Option<&str>), Error> {
    let invalid = |reason: &str| {
        Error::invalid(
            "CONSUL_HTTP_ADDR",
            format!(
                "invalid value `{address}` for CONSUL_HTTP_ADDR: {reason} (expected HOST:PORT, http://HOST:PORT, https://HOST:PORT)"
            ),
        )
    };
    let (scheme, rest) = match address.split_once("://") {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some(("unix", _)) => return Err(invalid("Unix sockets are not supported here")),
        Some((scheme, _)) => return Err(invalid(&format!("unknown scheme {scheme}"))),
        None => (None, address),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(invalid("a path is not supported"));
    }
    if rest.contains('@') {
        return Err(Error::invalid(
            "CONSUL_HTTP_ADDR",
            "invalid value for CONSUL_HTTP_ADDR: it holds a user, which is not supported",
        ));
    }
    let (host, port) = match rest.rfind(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some(colon) if !rest.ends_with(']') => match rest.split_at_checked(colon) {
            Some((host, port)) => (host, Some(port.trim_start_matches(':'))),
            None => (rest, None),
        },
        _ => (rest, None),
    };
    if host.is_empty() { Err(invalid("it has no host")) } else { Ok((scheme, host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The resulting options: `host port scheme token validate_certs`, with `-` for an option
    /// that is not given.
    #[track_caller]
    fn with(arguments: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<String, Error> {
        let mut invocation = Invocation::default();
        for (name, value) in arguments {
            invocation.give(name, &Value::from(*value), Source::Arguments)?;
        }
        let variable =
            |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
        read(&mut invocation, &variable)?;
        let options = invocation.options;
        let values = [
            options.host.map(|host| host.as_str().to_owned()),
            options.port.map(|port| port.to_string()),
            options.scheme.map(|scheme| scheme.name().to_owned()),
            options.token.map(|token| token.secret().to_owned()),
            options.validate_certs.map(|value| value.to_string()),
        ];
        Ok(values.map(|value| value.unwrap_or_else(|| "-".into())).join(" "))
    }

    #[test]
    fn addresses_are_split() {
        for (address, expected) in [
            ("127.0.0.1:8500", "127.0.0.1 8500 - - -"),
            ("http://consul.example:8080/", "consul.example 8080 http - -"),
            ("https://consul.example:8501", "consul.example 8501 https - -"),
            ("https://consul.example", "consul.example 443 https - -"),
            ("consul.example", "consul.example 80 - - -"),
            ("[::1]:8500", "[::1] 8500 - - -"),
            ("[::1]", "[::1] 80 - - -"),
        ] {
            assert_eq!(with(&[], &[("CONSUL_HTTP_ADDR", address)]).unwrap(), expected, "{address}");
        }
    }

    #[test]
    fn unsupported_values_are_rejected() {
        for (name, value, part) in [
            ("CONSUL_HTTP_ADDR", "unix:///run/consul.sock", "Unix sockets"),
            ("CONSUL_HTTP_ADDR", "ftp://x", "ftp"),
            ("CONSUL_HTTP_ADDR", "http://x:80/prefix", "path"),
            ("CONSUL_HTTP_ADDR", ":8500", "no host"),
            ("CONSUL_HTTP_ADDR", "http://user:secret@x", "user"),
            ("CONSUL_HTTP_SSL", "maybe", "maybe"),
            ("CONSUL_HTTP_SSL_VERIFY", "no", "`no` for CONSUL_HTTP_SSL_VERIFY"),
        ] {
            let error = with(&[], &[(name, value)]).unwrap_err();
            assert!(error.message.contains(part) && error.message.contains(name), "{error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn arguments_take_precedence_over_the_environment() {
        let variables = [("CONSUL_HTTP_ADDR", "http://a:1"), ("CONSUL_HTTP_TOKEN", "t"), ("CONSUL_HTTP_SSL", "true")];
        assert_eq!(with(&[], &variables).unwrap(), "a 1 https t -");
        assert_eq!(with(&[("host", "b"), ("scheme", "http"), ("token", "u")], &variables).unwrap(), "b 1 http u -");
        assert_eq!(with(&[("port", "2")], &[("CONSUL_HTTP_ADDR", "http://a:b")]).unwrap(), "a 2 http - -");
        assert_eq!(with(&[], &[("CONSUL_HTTP_ADDR", ""), ("CONSUL_HTTP_SSL", "0")]).unwrap(), "- - - - -");
        let verify = |value| with(&[("host", "b")], &[("CONSUL_HTTP_SSL_VERIFY", value)]).unwrap();
        assert_eq!((verify("false"), verify("1")), ("b - - - false".into(), "b - - - -".into()));
        let mut invocation = Invocation::default();
        invocation.give("host", &"b".into(), Source::Arguments).unwrap();
        read(&mut invocation, &|name| (name == "CONSUL_HTTP_ADDR").then(|| "http://a:1".into())).unwrap();
        let environment = Source::Environment;
        assert_eq!(invocation.given, [("host", Source::Arguments), ("port", environment), ("scheme", environment)]);
    }
}
