//! `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN` and `CONSUL_HTTP_SSL`, as Consul's own tools read them. An option that was typed
//! counts for more, each by itself.

use super::Invocation;
use crate::error::Error;

pub fn read(invocation: &mut Invocation, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), Error> {
    // Consul's tools take an empty variable for none.
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let mut scheme = None;
    if let Some(address) = variable("CONSUL_HTTP_ADDR") {
        let (given, host, port) = split(&address)?;
        scheme = given;
        // Go's default ports: Consul's tools do not put 8500 behind a bare host.
        let default_port = if scheme == Some("https") { "443" } else { "80" };
        invocation.set_default("host", host);
        invocation.set_default("port", port.unwrap_or(default_port));
    }
    if let Some(text) = variable("CONSUL_HTTP_SSL") {
        match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => scheme = Some("https"),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => {}
            _ => {
                return Err(Error::invalid(
                    "CONSUL_HTTP_SSL",
                    format!("the environment's CONSUL_HTTP_SSL is `{text}`; accepted: true, false, 1, 0"),
                ));
            }
        }
    }
    if let Some(scheme) = scheme {
        invocation.set_default("scheme", scheme);
    }
    if let Some(token) = variable("CONSUL_HTTP_TOKEN") {
        invocation.set_default("token", token);
    }
    Ok(())
}

/// Scheme, host and port of an address such as `127.0.0.1:8500`, `https://consul.example:8501` or `[::1]:8500`.
fn split(address: &str) -> Result<(Option<&'static str>, &str, Option<&str>), Error> {
    let refused = |reason: &str| {
        Error::invalid(
            "CONSUL_HTTP_ADDR",
            format!(
                "the environment's CONSUL_HTTP_ADDR is `{address}`: {reason}; accepted: HOST:PORT, http://HOST:PORT, https://HOST:PORT"
            ),
        )
    };
    let (scheme, rest) = match address.split_once("://") {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some(("unix", _)) => return Err(refused("Unix sockets are not supported")),
        Some((scheme, _)) => return Err(refused(&format!("the scheme {scheme} is not known"))),
        None => (None, address),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(refused("a path is not supported"));
    }
    if rest.contains('@') {
        return Err(Error::invalid("CONSUL_HTTP_ADDR", "the environment's CONSUL_HTTP_ADDR holds a user: it is not supported"));
    }
    let (host, port) = match rest.rfind(':') {
        // The colons of an IPv6 address stand inside its brackets.
        Some(colon) if !rest.ends_with(']') => match rest.split_at_checked(colon) {
            Some((host, port)) => (host, Some(port.trim_start_matches(':'))),
            None => (rest, None),
        },
        _ => (rest, None),
    };
    if host.is_empty() { Err(refused("it has no host")) } else { Ok((scheme, host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Action, Format};
    use crate::json::Json;

    #[track_caller]
    fn with(typed: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Result<String, Error> {
        let mut invocation = Invocation {
            action: Action::Apply,
            format: Format::Table,
            flags: Vec::new(),
            options: typed.iter().map(|(name, value)| (*name, Json::Text((*value).to_owned().into()))).collect(),
        };
        let variable =
            |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
        read(&mut invocation, &variable).map(|()| invocation.json())
    }

    #[test]
    fn addresses() {
        for (address, json) in [
            ("127.0.0.1:8500", r#"{"host":"127.0.0.1","port":"8500"}"#),
            ("http://consul.example:8080/", r#"{"host":"consul.example","port":"8080","scheme":"http"}"#),
            ("https://consul.example:8501", r#"{"host":"consul.example","port":"8501","scheme":"https"}"#),
            ("https://consul.example", r#"{"host":"consul.example","port":"443","scheme":"https"}"#),
            ("consul.example", r#"{"host":"consul.example","port":"80"}"#),
            ("[::1]:8500", r#"{"host":"[::1]","port":"8500"}"#),
            ("[::1]", r#"{"host":"[::1]","port":"80"}"#),
        ] {
            assert_eq!(with(&[], &[("CONSUL_HTTP_ADDR", address)]).unwrap(), json, "{address}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (name, value, part) in [
            ("CONSUL_HTTP_ADDR", "unix:///run/consul.sock", "Unix sockets"),
            ("CONSUL_HTTP_ADDR", "ftp://x", "ftp"),
            ("CONSUL_HTTP_ADDR", "http://x:80/prefix", "path"),
            ("CONSUL_HTTP_ADDR", ":8500", "no host"),
            ("CONSUL_HTTP_ADDR", "http://user:secret@x", "user"),
            ("CONSUL_HTTP_SSL", "maybe", "maybe"),
        ] {
            let error = with(&[], &[(name, value)]).unwrap_err();
            assert!(error.message.contains(part) && error.message.contains(name), "{error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_was_typed_counts_for_more() {
        let variables = [("CONSUL_HTTP_ADDR", "http://a:1"), ("CONSUL_HTTP_TOKEN", "t"), ("CONSUL_HTTP_SSL", "true")];
        assert_eq!(with(&[], &variables).unwrap(), r#"{"host":"a","port":"1","scheme":"https","token":"t"}"#);
        assert_eq!(
            with(&[("host", "b"), ("scheme", "http"), ("token", "u")], &variables).unwrap(),
            r#"{"host":"b","scheme":"http","token":"u","port":"1"}"#
        );
        assert_eq!(with(&[], &[("CONSUL_HTTP_ADDR", ""), ("CONSUL_HTTP_SSL", "0")]).unwrap(), "{}");
    }
}
