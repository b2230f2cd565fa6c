//! What an endpoint is asked: Consul's checks of parameters and headers, which come before anything else.

use crate::answer::{Answer, Meta, bad_request, internal};
use crate::go;
use crate::state::{DATACENTER, State};
use http::{HeaderMap, Method};
use hyper::body::Bytes;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use std::time::Duration;

const DEFAULT_WAIT: Duration = Duration::from_secs(300);
const MAX_WAIT: Duration = Duration::from_secs(600);

/// What an endpoint is asked.
pub struct Call<'a> {
    pub method: Method,
    pub argument: &'a str,
    pub query: Query,
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Whether the length of the body was given.
    pub sized: bool,
}

/// How a read is to be answered.
pub struct ReadOptions {
    /// 0: at once.
    pub index: u64,
    pub wait: Duration,
}

impl Call<'_> {
    /// Consul's checks of the parameters of a read, in Consul's order; [`Call::no_enterprise`] comes last.
    pub fn read_options(&self) -> Result<ReadOptions, Answer> {
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
        self.no_enterprise()?;
        Ok(ReadOptions { index, wait })
    }

    /// Namespaces and partitions are refused, as by Community Edition.
    pub fn no_enterprise(&self) -> Result<(), Answer> {
        for (header, parameter, what) in
            [("X-Consul-Namespace", "ns", "Namespaces"), ("X-Consul-Partition", "partition", "Partitions")]
        {
            let refused = if self.headers.get(header).is_some_and(|value| !value.is_empty()) {
                format!("header: \"{header}\"")
            } else if !self.query.get(parameter).is_empty() {
                format!("query parameter: \"{parameter}\"")
            } else {
                continue;
            };
            return Err(bad_request(&format!("Invalid {refused} - {what} are a Consul Enterprise feature")));
        }
        Ok(())
    }

    pub fn datacenter(&self) -> Result<(), Answer> {
        let long = self.query.get("datacenter");
        known_datacenter(if long.is_empty() { self.query.get("dc") } else { long })
    }

    /// The answer to a read of the catalog. It never blocks.
    pub fn catalog(&self, state: &State, content: &impl Serialize) -> Answer {
        let modes = ["stale", "consistent"].into_iter();
        let consistency = modes.filter(|mode| self.query.has(mode)).last().unwrap_or("leader");
        let meta = Meta { index: state.catalog_index, known_leader: true, consistency: Some(consistency) };
        Answer { meta: Some(meta), ..Answer::json(content) }
    }
}

pub fn known_datacenter(name: &str) -> Result<(), Answer> {
    if name.is_empty() || name == DATACENTER { Ok(()) } else { Err(internal("No path to datacenter".into())) }
}

/// `None` if a `%` is not followed by two hexadecimal digits.
pub fn percent_decode(text: &str) -> Option<String> {
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let valid = text.split('%').skip(1).all(is_escape);
    valid.then(|| percent_decode_str(text).decode_utf8_lossy().into_owned())
}

/// The parameters of a URL.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// `None` for what Go's `url.ParseQuery` refuses.
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

    /// The first of this name; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}
