//! A call of an endpoint: its parameters and headers, and Consul's checks of them, which precede
//! all others.

use crate::answer::{Answer, ReadOptions, bad_request, internal, lacking};
use crate::go;
use crate::state::DATACENTER;
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::time::Duration;

const DEFAULT_WAIT: Duration = Duration::from_secs(300);
const MAX_WAIT: Duration = Duration::from_secs(600);

/// A call of an endpoint.
pub struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    /// The rest of the path, after the endpoint's own.
    pub argument: &'a str,
    pub query: Query,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// A feature of Consul Enterprise: its header, its parameter, and its name.
const PARTITIONS: (&str, &str, &str) = ("X-Consul-Partition", "partition", "Partitions");

impl Call<'_> {
    /// Answers a call that needs something that this agent lacks.
    pub fn lacking(&self, what: &str) -> Answer {
        lacking(&format!("{what} in {} {}", self.method, self.path))
    }

    /// Refuses these parameters, which Consul knows here and this agent does not.
    pub fn lacks(&self, parameters: &[&str]) -> Result<(), Answer> {
        match parameters.iter().find(|name| self.query.has(name)) {
            Some(name) => Err(self.lacking(&format!("?{name}"))),
            None => Ok(()),
        }
    }

    /// Checks the parameters of a read in Consul's order, with [`Call::no_enterprise`] last.
    pub fn read_options(&self) -> Result<ReadOptions, Answer> {
        let options = self.shared_read_options()?;
        self.no_enterprise()?;
        Ok(options)
    }

    /// Does the same for a read of nodes, which are in no namespace: Consul ignores one there.
    pub fn node_read_options(&self) -> Result<ReadOptions, Answer> {
        let options = self.shared_read_options()?;
        self.refuse(&[PARTITIONS])?;
        Ok(options)
    }

    fn shared_read_options(&self) -> Result<ReadOptions, Answer> {
        let max_stale = self.query.get("max_stale");
        if !max_stale.is_empty() && go::duration(max_stale).is_err() {
            return Err(bad_request(&format!("Invalid max_stale value {max_stale:?}")));
        }
        let stale = self.query.has("stale") || !max_stale.is_empty();
        for (given, name) in [(stale, "stale"), (self.query.has("cached"), "cached")] {
            if given && self.query.has("consistent") {
                let text = format!("Cannot specify ?{name} with ?consistent, conflicting semantics.");
                return Err(bad_request(&text));
            }
        }
        let cache = self.headers.get("cache-control").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let max_age = cache.split(',').find_map(|directive| directive.trim().strip_prefix("max-age="));
        if max_age.is_some_and(|max_age| max_age.parse::<u64>().is_err()) {
            return Err(bad_request("Invalid Cache-Control header."));
        }
        let wait = match self.query.get("wait") {
            "" => 0,
            text => go::duration(text).map_err(|_| bad_request("Invalid wait time"))?,
        };
        let wait = if wait <= 0 { DEFAULT_WAIT } else { Duration::from_nanos(wait.unsigned_abs()).min(MAX_WAIT) };
        let index = match self.query.get("index") {
            "" => 0,
            text => text.parse().map_err(|_| bad_request("Invalid index"))?,
        };
        Ok(ReadOptions { index, wait })
    }

    /// Refuses namespaces and partitions, as Community Edition does.
    pub fn no_enterprise(&self) -> Result<(), Answer> {
        self.refuse(&[("X-Consul-Namespace", "ns", "Namespaces"), PARTITIONS])
    }

    fn refuse(&self, features: &[(&str, &str, &str)]) -> Result<(), Answer> {
        for (header, parameter, feature) in features {
            let refused = if self.headers.get(*header).is_some_and(|value| !value.is_empty()) {
                format!("header: \"{header}\"")
            } else if !self.query.get(parameter).is_empty() {
                format!("query parameter: \"{parameter}\"")
            } else {
                continue;
            };
            return Err(bad_request(&format!("Invalid {refused} - {feature} are a Consul Enterprise feature")));
        }
        Ok(())
    }

    /// Returns the consistency mode of a read.
    pub fn consistency(&self) -> &'static str {
        ["consistent", "stale"].into_iter().find(|mode| self.query.has(mode)).unwrap_or("leader")
    }

    pub fn datacenter(&self) -> Result<(), Answer> {
        let long = self.query.get("datacenter");
        known_datacenter(if long.is_empty() { self.query.get("dc") } else { long })
    }

    /// Returns the body, which counts as empty if the client does not send its length, as in
    /// Consul.
    pub fn sized_body(&self) -> &[u8] {
        if self.headers.contains_key(TRANSFER_ENCODING) { b"" } else { self.body }
    }
}

pub fn known_datacenter(name: &str) -> Result<(), Answer> {
    if name.is_empty() || name == DATACENTER { Ok(()) } else { Err(internal("No path to datacenter".into())) }
}

/// Returns `None` if two hexadecimal digits do not follow a `%`.
pub fn percent_decode(text: &str) -> Option<String> {
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let valid = text.split('%').skip(1).all(is_escape);
    valid.then(|| percent_decode_str(text).decode_utf8_lossy().into_owned())
}

/// The parameters of a URL, in order.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Returns `None` for a text that Go's `url.ParseQuery` refuses.
    pub fn parse(text: &str) -> Option<Query> {
        let decode = |text: &str| if text.contains(';') { None } else { percent_decode(&text.replace('+', " ")) };
        let parts = text.split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name)?, decode(value)?))
        });
        pairs.collect::<Option<_>>().map(Query)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// Returns the first value of this name, or an empty string if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// Returns the first value of this name as a number.
    ///
    /// # Errors
    ///
    /// Consul's answer to a value that is not a number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Answer> {
        if !self.has(name) {
            return Ok(None);
        }
        go::parse_uint(self.get(name)).map(Some).map_err(internal)
    }

    /// Refuses more than one of these names.
    pub fn no_conflict(&self, names: &[&str]) -> Result<(), Answer> {
        match names.iter().filter(|name| self.has(name)).count() {
            0 | 1 => Ok(()),
            _ => Err(bad_request(&format!("Conflicting flags: {}\n", self.encode()))),
        }
    }

    /// Returns the parameters by name, as Go's `url.Values.Encode` does.
    fn encode(&self) -> String {
        const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');
        let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string().replace(' ', "+");
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        let pairs: Vec<_> = sorted.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        pairs.join("&")
    }
}
