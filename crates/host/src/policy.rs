//! Where a component may connect: rules, and the policy made of them.
//!
//! An empty policy allows nothing. A rule is one string, with the same syntax on the command line
//! (`--allow`) and in the configuration file (`allow`, `deny`):
//!
//! | rule | matches |
//! |---|---|
//! | `consul.example:PORT` | that name |
//! | `*.example:PORT` | every name below `example`, at any depth; not `example` itself |
//! | `1.2.3.4:PORT`, `[::1]:PORT` | that address, if the request names an address |
//! | `10.0.0.0/8:PORT`, `[fd00::/8]:PORT` | every address of the network, also of resolved names |
//! | `*:PORT` | every name and every address |
//! | `unix:///absolute/path` | that socket; the path is literal, without escapes |
//!
//! `PORT` is a number, a range (`8500-8510`) or `*`, and is required. Names are compared without
//! regard to case or a trailing dot, and addresses as numbers. A name is looked up with the trailing
//! dot of the request, which makes it absolute. An IPv4-mapped IPv6 address
//! (`::ffff:1.2.3.4`) is the IPv4 address, so IPv6 networks contain no IPv4 addresses. Anything
//! else is a parse error: a scheme, a path, a user, `*` elsewhere.
//!
//! A name is checked twice: by [`Policy::check`] before it is resolved, and by
//! [`Policy::check_address`] for each address that it resolves to. The second check decides. The
//! caller connects to exactly the address that was checked and does not resolve the name again, so a
//! DNS answer that changes a moment later has no effect.
//!
//! `2130706433`, `0x7f.1` and `127.1` are names here, even if the resolver takes them for
//! addresses. The addresses that they resolve to are checked.

use crate::config_error::ConfigError;
use ipnet::IpNet;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

/// A host and a port: `consul.example:8500`, `1.2.3.4:80`, `[::1]:80`.
///
/// A name is in lower case and has no trailing dot. An IPv4-mapped IPv6 address becomes the IPv4
/// address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    host: Host,
    port: u16,
}

impl Authority {
    /// Returns the authority of `uri`. The default port is 80 for `http`, and 443 for `https` and
    /// `https+insecure`.
    ///
    /// # Errors
    ///
    /// Fails if the host is missing, the port is missing and has no default, or the authority has a
    /// user or is malformed.
    pub fn of(uri: &http::Uri) -> Result<Authority, ConfigError> {
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" | "https+insecure" => Some(443),
            _ => None,
        };
        // `Uri::port` would not do: it is `None` for an invalid port.
        Authority::parse(uri.authority().map_or("", |authority| authority.as_str()), default)
    }

    /// Returns the name, or the address without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        }
    }

    /// Returns the name, or `None` for an address.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// Returns the address, or `None` for a name.
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Name(_) => None,
            Host::Address(address) => Some(address),
        }
    }

    /// Returns the port, which is never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn parse(text: &str, default: Option<u16>) -> Result<Authority, ConfigError> {
        let parse = || {
            let (host, port) = split(text)?;
            let host = parse_host(host)?;
            let port = match port {
                Some(port) => parse_port(port)?,
                None => default.ok_or_else(|| format!("the port is missing: write `{host}:8500`"))?,
            };
            Ok(Authority { host, port })
        };
        parse().map_err(|reason: String| {
            ConfigError::new(format!(
                "`{text}` is not a valid authority: {reason}; accepted: `name:port`, `1.2.3.4:80`, `[::1]:80`"
            ))
        })
    }
}

impl FromStr for Authority {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Authority, ConfigError> {
        Authority::parse(text, None)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// A name in lower case, without empty labels.
    Name(String),
    /// A canonical address: IPv4-mapped IPv6 addresses are IPv4.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => address.fmt(f),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A pattern for authorities, or a Unix socket.
///
/// The forms are `name:PORT`, `*.suffix:PORT`, `1.2.3.4:PORT`, `[::1]:PORT`, `10.0.0.0/8:PORT`,
/// `[fd00::/8]:PORT`, `*:PORT` and `unix:///absolute/path`. `PORT` is a number, a range
/// (`8500-8510`) or `*`.
///
/// `Display` writes the canonical form, which parses to the same rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Rule(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Host(Pattern, Ports),
    Socket(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pattern {
    Any,
    /// The suffix with its leading dot.
    Suffix(String),
    Exact(Host),
    Network(IpNet),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ports(RangeInclusive<u16>);

const ALL_PORTS: RangeInclusive<u16> = 1..=u16::MAX;

impl Rule {
    /// Returns whether the rule matches the authority as written, without resolving its name. A
    /// rule for an address or a network matches no name, and a rule for a name matches no address.
    pub fn matches(&self, authority: &Authority) -> bool {
        let Kind::Host(pattern, ports) = &self.0 else { return false };
        let host = match (pattern, &authority.host) {
            (Pattern::Any, _) => true,
            (Pattern::Exact(exact), host) => exact == host,
            // A name does not begin with a dot, so a label precedes the suffix.
            (Pattern::Suffix(suffix), Host::Name(name)) => name.ends_with(suffix),
            (Pattern::Network(network), Host::Address(address)) => network.contains(address),
            (Pattern::Suffix(_), Host::Address(_)) | (Pattern::Network(_), Host::Name(_)) => false,
        };
        host && ports.0.contains(&authority.port)
    }

    /// Returns whether the rule names this socket. It does not resolve `..` or symbolic links.
    pub fn matches_socket(&self, path: &Path) -> bool {
        matches!(&self.0, Kind::Socket(socket) if Path::new(socket) == path)
    }

    /// Returns whether the rule is for a network, and its ports include this one.
    pub(crate) fn is_network(&self, port: u16) -> bool {
        matches!(&self.0, Kind::Host(Pattern::Network(_), ports) if ports.0.contains(&port))
    }
}

impl FromStr for Rule {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Rule, ConfigError> {
        parse_rule(text).map(Rule).map_err(|reason| {
            ConfigError::new(format!(
                "`{text}` is not a valid rule: {reason}; accepted: `name:PORT`, `*.suffix:PORT`, `1.2.3.4:PORT`, `[::1]:PORT`, \
                 `10.0.0.0/8:PORT`, `[fd00::/8]:PORT`, `*:PORT`, where PORT is a number, a range like `8500-8510` or `*`, \
                 and `unix:///absolute/path`"
            ))
        })
    }
}

/// The rule that matches exactly this authority.
impl From<Authority> for Rule {
    fn from(Authority { host, port }: Authority) -> Rule {
        Rule(Kind::Host(Pattern::Exact(host), Ports(port..=port)))
    }
}

impl TryFrom<String> for Rule {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Rule, ConfigError> {
        text.parse()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Host(pattern, ports) => write!(f, "{pattern}:{ports}"),
            Kind::Socket(path) => write!(f, "unix://{path}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Suffix(suffix) => write!(f, "*{suffix}"),
            Pattern::Exact(host) => host.fmt(f),
            Pattern::Network(IpNet::V4(network)) => network.fmt(f),
            Pattern::Network(IpNet::V6(network)) => write!(f, "[{network}]"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if self.0 == ALL_PORTS {
            f.write_str("*")
        } else if first == last {
            first.fmt(f)
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

/// An allow-list and a deny-list for connections. Default: nothing is allowed.
///
/// A rule of `deny` wins over every rule of `allow`. Addresses are compared as numbers: 0.0.0.0 and
/// `::`, which reach the machine itself on Linux, are not in the loopback networks. Deny them as
/// well. The same applies to `[64:ff9b::/96]` where the network translates it to IPv4 (NAT64).
///
/// A network in `allow` lets the component resolve any name at that port, since only the address
/// decides. A lookup shows the name to the DNS servers. Without networks, only names that a rule
/// matches are resolved.
///
/// # Examples
///
/// ```
/// use consul_session_host::{Authority, Policy};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut policy = Policy::default();
/// policy.allow("*.example:8500".parse()?);
/// policy.deny("169.254.0.0/16:*".parse()?);
/// let consul: Authority = "consul.example:8500".parse()?;
/// assert!(policy.check(&consul).is_ok());
/// assert!(policy.check_address(&consul, "10.1.2.3".parse()?).is_ok());
/// assert!(policy.check_address(&consul, "169.254.169.254".parse()?).is_err());
/// assert!(policy.check(&"consul.example:22".parse()?).is_err());
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Policy {
    /// Adds a rule to `allow`.
    pub fn allow(&mut self, rule: Rule) {
        self.allow.push(rule);
    }

    /// Adds a rule to `deny`.
    pub fn deny(&mut self, rule: Rule) {
        self.deny.push(rule);
    }

    /// Checks an authority. For an address the result is final. A name may then be resolved, and
    /// [`Policy::check_address`] decides for each of its addresses.
    ///
    /// # Errors
    ///
    /// Fails if a rule of `deny` matches, or no rule of `allow` does.
    pub fn check(&self, authority: &Authority) -> Result<(), Denied> {
        let matches = |rule: &Rule| rule.matches(authority);
        let by_address = |rule: &Rule| authority.address().is_none() && rule.is_network(authority.port);
        self.decide(authority, None, matches, |rule| matches(rule) || by_address(rule))
    }

    /// Returns whether a rule of `allow` matches the authority as written, without its addresses.
    pub(crate) fn allows_as_written(&self, authority: &Authority) -> bool {
        self.allow.iter().any(|rule| rule.matches(authority))
    }

    /// Checks `address`, to which the name of the authority resolved. A rule for a single address
    /// does not allow it for a name, but does deny it for every name.
    ///
    /// # Errors
    ///
    /// Fails if a rule of `deny` matches the authority or the address, or no rule of `allow` does.
    pub fn check_address(&self, authority: &Authority, address: IpAddr) -> Result<(), Denied> {
        let found = Authority { host: Host::Address(address.to_canonical()), port: authority.port };
        if authority.address().is_some() {
            return self.check(&found);
        }
        let denies = |rule: &Rule| rule.matches(authority) || rule.matches(&found);
        let allows = |rule: &Rule| rule.matches(authority) || rule.is_network(found.port) && rule.matches(&found);
        self.decide(authority, found.address(), denies, allows)
    }

    /// Checks a Unix socket. Only `unix://` rules count.
    ///
    /// # Errors
    ///
    /// Fails if a rule of `deny` matches, or no rule of `allow` does.
    pub fn check_socket(&self, path: &Path) -> Result<(), Denied> {
        let matches = |rule: &Rule| rule.matches_socket(path);
        self.decide(&format_args!("unix://{}", path.display()), None, matches, matches)
    }

    fn decide(
        &self,
        target: &dyn fmt::Display,
        resolved: Option<IpAddr>,
        denies: impl Fn(&Rule) -> bool,
        allows: impl Fn(&Rule) -> bool,
    ) -> Result<(), Denied> {
        let rule = self.deny.iter().find(|rule| denies(rule)).cloned();
        if rule.is_none() && self.allow.iter().any(allows) {
            return Ok(());
        }
        Err(Denied { target: target.to_string(), resolved, rule })
    }
}

/// A denial by the policy: what was denied, by which rule, and the configuration that would allow
/// it.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The authority or socket, which is also the rule that would allow it.
    target: String,
    /// The address that the name resolved to, if an address was checked.
    resolved: Option<IpAddr>,
    /// The matching rule of `deny`, or `None` if no rule of `allow` matches.
    rule: Option<Rule>,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denied { target, resolved, rule } = self;
        write!(f, "the host's policy does not allow {target}")?;
        if let Some(address) = resolved {
            write!(f, ", which resolves to {address}")?;
        }
        match (rule, target.parse::<Rule>()) {
            (Some(rule), _) => write!(f, ", which the rule `{rule}` of `deny` forbids: take that rule out of `deny`"),
            (None, Ok(_)) => {
                // A rule for exactly that address may exist, but does not apply to a name.
                let cause = if resolved.is_some() { ", which no rule allows for a name" } else { "" };
                write!(f, "{cause}: add `--allow {target}`, or to the configuration file: allow = [{target:?}]")
            }
            // For example, a socket with a relative path.
            (None, Err(error)) => write!(f, ", and no rule can: {error}"),
        }
    }
}

impl std::error::Error for Denied {}

fn parse_rule(text: &str) -> Result<Kind, String> {
    if let Some(path) = text.strip_prefix("unix:/") {
        // Some programs accept `unix:/path`, and `unix://path` is a common mistake.
        return match path.strip_prefix('/') {
            Some(path) if path.contains('*') => Err("the path of a socket has no wildcards".into()),
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Kind::Socket(path.into())),
            _ => Err("the path of a socket is absolute, after `unix://`: write `unix:///run/consul.sock`".into()),
        };
    }
    let (host, ports) = split(text)?;
    let pattern = parse_pattern(host)?;
    match ports {
        Some(ports) => Ok(Kind::Host(pattern, parse_ports(ports)?)),
        None => Err(format!("the port is missing: write `{pattern}:8500`, or `{pattern}:*` for every port")),
    }
}

/// Splits `host:port`. The host keeps its brackets. The port is `None` if nothing or only `:`
/// follows the host.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("it has a scheme: leave `{scheme}://` out"));
    }
    if text.contains(char::is_whitespace) {
        return Err("it has a blank".into());
    }
    if text.contains('@') {
        return Err("it has a user: leave out what is before the `@`, and the `@`".into());
    }
    if text.contains(['?', '#']) {
        return Err("it has a query or a fragment: leave it out".into());
    }
    if !text.is_ascii() {
        return Err("it has characters that are not ASCII: write the name in punycode (xn--…)".into());
    }
    let end = match text.find(']') {
        Some(bracket) if text.starts_with('[') => bracket + 1,
        _ => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        None => {
            Err("after `]` comes `:` and the port, and the length of a network's prefix before it: `[fd00::/8]:8500`".into())
        }
        Some("") => Ok((host, None)),
        Some(port) if port.contains(':') => {
            Err("it has more than one `:`; an IPv6 address is written in brackets: `[::1]:8500`".into())
        }
        Some(port) if port.contains('/') => Err("it has a path: leave it out".into()),
        Some(port) => Ok((host, Some(port))),
    }
}

fn parse_pattern(text: &str) -> Result<Pattern, String> {
    if text == "*" {
        return Ok(Pattern::Any);
    }
    let suffix = text.strip_prefix("*.");
    if suffix.unwrap_or(text).contains('*') {
        return Err("`*` stands alone or before the first dot, as in `*.example`; a network is written `10.0.0.0/8`".into());
    }
    if let Some(suffix) = suffix {
        return Ok(Pattern::Suffix(format!(".{}", parse_name(suffix)?)));
    }
    match brackets(text).unwrap_or(text).split_once('/') {
        Some((address, length)) => parse_network(text, address, length),
        None => Ok(Pattern::Exact(parse_host(text)?)),
    }
}

/// Parses a network. `text` is `address/length`, with or without brackets.
fn parse_network(text: &str, address: &str, length: &str) -> Result<Pattern, String> {
    let (address, max): (IpAddr, _) = match brackets(text) {
        Some(_) => (parse_ipv6(address)?, 128),
        None => (address.parse::<Ipv4Addr>().map_err(|_| "it has a path: leave it out")?.into(), 32),
    };
    let length = number(length)
        .filter(|&length| length <= max)
        .ok_or_else(|| format!("`{length}` is not a prefix length: a number from 0 to {max}"))?;
    let (address, length) = match address.to_canonical() {
        // All its addresses are IPv4-mapped, so it is an IPv4 network. (The length of a network in
        // IPv4 notation is at most 32.)
        IpAddr::V4(canonical) if length >= 96 => (canonical.into(), length - 96),
        _ => (address, length),
    };
    let network = IpNet::new(address, length).map_err(|error| error.to_string())?;
    if network.addr() != network.network() {
        return Err(format!(
            "the address has bits set after the prefix: the network is `{}`, the address alone `{}`",
            Pattern::Network(network.trunc()),
            Host::Address(address.to_canonical())
        ));
    }
    Ok(Pattern::Network(network))
}

fn parse_host(text: &str) -> Result<Host, String> {
    if text.contains('/') {
        return Err("it has a path: leave it out".into());
    }
    if let Some(address) = brackets(text) {
        return Ok(Host::Address(parse_ipv6(address)?.to_canonical()));
    }
    // An address with a trailing dot is that address.
    let name = parse_name(text)?;
    Ok(name.parse().map_or(Host::Name(name), Host::Address))
}

/// Returns the text inside the brackets, or `None` without brackets.
fn brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

fn parse_ipv6(text: &str) -> Result<IpAddr, String> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ok(address.into()),
        Err(_) if text.contains('%') => Err("it has a zone: leave out the `%` and what follows it".into()),
        Err(_) => Err(format!("`{text}` is not an IPv6 address, and only those go in brackets")),
    }
}

/// Parses a name into lower case, without the trailing dot. Underscores are not allowed in host
/// names, but resolvers look such names up anyway.
fn parse_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Some(other) = name.chars().find(|&c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.')) {
        return Err(format!("`{other}` is not allowed in a name"));
    }
    if name.split('.').any(str::is_empty) {
        return Err("the name is empty or has nothing before a dot: every name below `example` is `*.example`".into());
    }
    Ok(name)
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    if text == "*" {
        return Ok(Ports(ALL_PORTS));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if first > last {
        return Err(format!("the range is reversed: write `{last}-{first}`"));
    }
    Ok(Ports(first..=last))
}

fn parse_port(text: &str) -> Result<u16, String> {
    number(text).filter(|&port| port > 0).ok_or_else(|| format!("`{text}` is not a port: a number from 1 to 65535"))
}

/// Parses digits. `parse` alone would accept a sign too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Rules of `allow`, rules of `deny`, the request, the addresses that the name resolves to, and
    /// the verdicts: the first before the name is resolved, then one for each address. A path is a
    /// socket.
    type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

    const ROWS: &[Row] = &[
        // Nothing is allowed by default, and no rule of `deny` allows.
        ("", "", "db.example:8500", "1.2.3.4", "no no"),
        ("", "", "1.2.3.4:80", "", "no"),
        ("", "", "[::1]:80", "", "no"),
        ("", "", "/run/consul.sock", "", "no"),
        ("", "other.example:*", "db.example:8500", "1.2.3.4", "no no"),
        ("", "10.0.0.0/8:*", "11.0.0.1:80", "", "no"),
        // Names.
        ("db.example:8500", "", "db.example:8500", "1.2.3.4 ::1 127.0.0.1", "yes yes yes yes"),
        ("db.example:8500", "", "db.example:8501", "1.2.3.4", "no no"),
        ("db.example:8500", "", "a.db.example:8500", "1.2.3.4", "no no"),
        ("db.example:8500", "", "example:8500", "1.2.3.4", "no no"),
        ("db.example:8500", "", "1.2.3.4:8500", "", "no"),
        ("db.example:8500", "", "/run/consul.sock", "", "no"),
        ("DB.Example:8500", "", "db.eXAMPLE:8500", "1.2.3.4", "yes yes"),
        ("db.example.:8500", "", "db.example:8500", "1.2.3.4", "yes yes"),
        ("db.example:8500", "", "db.example.:8500", "1.2.3.4", "yes yes"),
        ("*:*", "Db.Example.:*", "dB.example.:8500", "1.2.3.4", "no no"),
        ("localhost:8500", "", "localhost:8500", "127.0.0.1 ::1", "yes yes yes"),
        ("localhost:8500", "", "127.0.0.1:8500", "", "no"),
        ("my_service:8500", "", "my_service:8500", "1.2.3.4", "yes yes"),
        ("xn--bcher-kva.example:80", "", "XN--bcher-kva.example:80", "1.2.3.4", "yes yes"),
        ("b.example:80 db.example:8500", "", "db.example:8500", "1.2.3.4", "yes yes"),
        // Suffixes.
        ("*.example.com:80", "", "a.example.com:80", "1.2.3.4", "yes yes"),
        ("*.example.com:80", "", "a.b.c.example.com:80", "1.2.3.4", "yes yes"),
        ("*.example.com:80", "", "A.EXAMPLE.COM.:80", "1.2.3.4", "yes yes"),
        ("*.Example.Com.:80", "", "a.example.com:80", "1.2.3.4", "yes yes"),
        ("*.example.com:80", "", "example.com:80", "1.2.3.4", "no no"),
        ("*.example.com:80", "", "evilexample.com:80", "1.2.3.4", "no no"),
        ("*.example.com:80", "", "example.com.evil:80", "1.2.3.4", "no no"),
        ("*.example.com:80", "", "a.example.com.evil:80", "1.2.3.4", "no no"),
        ("*.example.com:80", "", "a.example.com:443", "1.2.3.4", "no no"),
        ("*.0.0.1:80", "", "127.0.0.1:80", "", "no"),
        ("*:*", "*.example.com:*", "a.example.com:80", "1.2.3.4", "no no"),
        ("*:*", "*.example.com:*", "evilexample.com:80", "1.2.3.4", "yes yes"),
        ("*.example.com:80", "secret.example.com:*", "secret.example.com:80", "1.2.3.4", "no no"),
        // Addresses.
        ("1.2.3.4:80", "", "1.2.3.4:80", "", "yes"),
        ("1.2.3.4:80", "", "1.2.3.4.:80", "", "yes"),
        ("1.2.3.4:80", "", "1.2.3.5:80", "", "no"),
        ("1.2.3.4:80", "", "1.2.3.4:81", "", "no"),
        ("[::1]:80", "", "[::1]:80", "", "yes"),
        ("[::1]:80", "", "[0:0:0:0:0:0:0:1]:80", "", "yes"),
        ("[FD00::00ab]:80", "", "[fd00:0::AB]:80", "", "yes"),
        ("[::1]:80", "", "[::2]:80", "", "no"),
        ("[::1]:80", "", "127.0.0.1:80", "", "no"),
        // A rule for an address does not allow a name, and does not let it be resolved.
        ("1.2.3.4:80", "", "db.example:80", "1.2.3.4", "no no"),
        ("1.2.3.4:80 10.0.0.0/8:80", "", "db.example:80", "1.2.3.4 10.1.2.3", "yes no yes"),
        // Networks, for addresses in requests and for addresses of names.
        ("10.0.0.0/8:80", "", "10.0.0.0:80", "", "yes"),
        ("10.0.0.0/8:80", "", "10.255.255.255:80", "", "yes"),
        ("10.0.0.0/8:80", "", "11.0.0.0:80", "", "no"),
        ("10.0.0.0/8:80", "", "9.255.255.255:80", "", "no"),
        ("10.0.0.0/8:80", "", "10.0.0.1:81", "", "no"),
        ("10.0.0.0/8:80", "", "db.example:80", "10.1.2.3 11.0.0.0 ::1 fd00::1", "yes yes no no no"),
        ("10.0.0.0/8:80", "", "db.example:81", "10.1.2.3", "no no"),
        ("10.0.0.0/8:80 11.0.0.0/8:81", "", "db.example:81", "10.1.2.3 11.1.2.3", "yes no yes"),
        ("1.2.3.4/32:80", "", "db.example:80", "1.2.3.4 1.2.3.5", "yes yes no"),
        ("0.0.0.0/0:80", "", "db.example:80", "255.255.255.255 ::1 ::ffff:1.2.3.4", "yes yes no yes"),
        ("[fd00::/8]:80", "", "[fd12:3456::1]:80", "", "yes"),
        ("[fd00::/8]:80", "", "[fe80::1]:80", "", "no"),
        ("[fd00::/8]:80", "", "db.example:80", "fd12::1 fe80::1 1.2.3.4", "yes yes no no"),
        ("[fd00::1/128]:80", "", "db.example:80", "fd00::1 fd00::2", "yes yes no"),
        ("[::/0]:80", "", "[::1]:80", "", "yes"),
        // An IPv4-mapped IPv6 address is the IPv4 address: in the rule, the request, and the DNS
        // answer.
        ("[::ffff:1.2.3.4]:80", "", "1.2.3.4:80", "", "yes"),
        ("1.2.3.4:80", "", "[::ffff:1.2.3.4]:80", "", "yes"),
        ("1.2.3.4:80", "", "[::ffff:102:304]:80", "", "yes"),
        ("[::ffff:10.0.0.0/104]:80", "", "db.example:80", "10.1.2.3 ::ffff:10.1.2.3 11.1.2.3", "yes yes yes no"),
        ("[::ffff:0:0/96]:80", "", "db.example:80", "1.2.3.4 ::1", "yes yes no"),
        ("10.0.0.0/8:80", "", "db.example:80", "::ffff:10.1.2.3 ::ffff:11.1.2.3 ::10.1.2.3", "yes yes no no"),
        ("[::/0]:80", "", "db.example:80", "::ffff:1.2.3.4 ::2", "yes no yes"),
        ("[::/0]:80", "", "[::ffff:1.2.3.4]:80", "", "no"),
        ("*:*", "169.254.0.0/16:*", "[::ffff:169.254.169.254]:80", "", "no"),
        ("*:*", "169.254.169.254:*", "db.example:80", "::ffff:169.254.169.254 ::ffff:1.2.3.4", "yes no yes"),
        ("*:*", "[::ffff:169.254.0.0/112]:*", "db.example:80", "169.254.169.254 1.2.3.4", "yes no yes"),
        ("*:*", "[::ffff:169.254.169.254]:*", "169.254.169.254:80", "", "no"),
        // Everything, and a rule of `deny` wins: by name, by address, by network, by port.
        ("*:*", "", "db.example:1", "1.2.3.4 ::1", "yes yes yes"),
        ("*:80", "", "1.2.3.4:80", "", "yes"),
        ("*:80", "", "[::1]:81", "", "no"),
        ("*:*", "", "/run/consul.sock", "", "no"),
        ("*:*", "*:*", "db.example:80", "1.2.3.4", "no no"),
        ("*:*", "*:22", "db.example:22", "1.2.3.4", "no no"),
        ("*:*", "*:22", "db.example:23", "1.2.3.4", "yes yes"),
        ("*:*", "*:22", "1.2.3.4:22", "", "no"),
        ("db.example:80", "db.example:80", "db.example:80", "1.2.3.4", "no no"),
        ("db.example:*", "db.example:22", "db.example:80", "1.2.3.4", "yes yes"),
        ("db.example:80", "10.0.0.0/8:*", "db.example:80", "10.1.2.3 1.2.3.4 10.0.0.0", "yes no yes no"),
        ("db.example:80", "10.1.2.3:*", "db.example:80", "10.1.2.3 10.1.2.4", "yes no yes"),
        ("db.example:80", "10.0.0.0/8:81", "db.example:80", "10.1.2.3", "yes yes"),
        ("db.example:80", "10.1.2.3:81", "db.example:80", "10.1.2.3", "yes yes"),
        ("10.0.0.0/8:*", "10.1.0.0/16:*", "db.example:80", "10.0.2.3 10.1.2.3", "yes yes no"),
        ("10.0.0.0/8:*", "10.1.2.3:*", "10.1.2.3:80", "", "no"),
        ("10.0.0.0/8:*", "db.example:*", "db.example:80", "10.1.2.3", "no no"),
        ("10.1.2.3:80", "10.0.0.0/8:*", "10.1.2.3:80", "", "no"),
        ("*:*", "127.0.0.0/8:* [::1]:*", "localhost:80", "127.0.0.1 ::1 ::ffff:127.0.0.1", "yes no no no"),
        // 0.0.0.0 is an ordinary address.
        ("*:*", "127.0.0.0/8:*", "0.0.0.0:80", "", "yes"),
        ("*:*", "127.0.0.0/8:* 0.0.0.0:*", "db.example:80", "0.0.0.0", "yes no"),
        // Unusual spellings of addresses are names here, and addresses for the resolver.
        ("127.0.0.1:80", "", "2130706433:80", "127.0.0.1", "no no"),
        ("127.0.0.1:80", "", "127.1:80", "127.0.0.1", "no no"),
        ("127.0.0.1:80", "", "127.0.0.01:80", "127.0.0.1", "no no"),
        ("*:*", "127.0.0.1:*", "2130706433:80", "127.0.0.1", "yes no"),
        ("*:*", "127.0.0.0/8:*", "0x7f.1:80", "127.0.0.1", "yes no"),
        ("*:*", "127.0.0.0/8:*", "127.1:80", "127.0.0.1", "yes no"),
        ("*:*", "127.0.0.0/8:*", "0177.0.0.1:80", "127.0.0.1", "yes no"),
        ("127.0.0.0/8:80", "", "0x7f000001:80", "127.0.0.1", "yes yes"),
        ("127.1:80", "", "127.1:80", "127.0.0.1", "yes yes"),
        ("127.1:80", "", "127.0.0.1:80", "", "no"),
        // Ports.
        ("db.example:1", "", "db.example:1", "1.2.3.4", "yes yes"),
        ("db.example:65535", "", "db.example:65535", "1.2.3.4", "yes yes"),
        ("db.example:*", "", "db.example:65535", "1.2.3.4", "yes yes"),
        ("db.example:0080", "", "db.example:080", "1.2.3.4", "yes yes"),
        ("db.example:8500-8510", "", "db.example:8499", "1.2.3.4", "no no"),
        ("db.example:8500-8510", "", "db.example:8500", "1.2.3.4", "yes yes"),
        ("db.example:8500-8510", "", "db.example:8510", "1.2.3.4", "yes yes"),
        ("db.example:8500-8510", "", "db.example:8511", "1.2.3.4", "no no"),
        ("*:1-65535", "*:1-1023", "1.2.3.4:1023", "", "no"),
        ("*:1-65535", "*:1-1023", "1.2.3.4:1024", "", "yes"),
        // URLs and their default ports.
        ("db.example:80", "", "http://db.example/v1?dc=x", "1.2.3.4", "yes yes"),
        ("db.example:443", "", "http://db.example/", "1.2.3.4", "no no"),
        ("db.example:443", "", "https://db.example", "1.2.3.4", "yes yes"),
        ("db.example:443", "", "HTTPS+insecure://db.example", "1.2.3.4", "yes yes"),
        ("db.example:80", "", "http://DB.example.:/", "1.2.3.4", "yes yes"),
        ("db.example:8500", "", "https://db.example:8500/", "1.2.3.4", "yes yes"),
        ("db.example:443", "", "https://db.example:8500/", "1.2.3.4", "no no"),
        ("[::1]:80", "", "http://[::1]/", "", "yes"),
        ("[::1]:443", "", "https://[0::1]:443/", "", "yes"),
        ("127.0.0.1:80", "", "http://[::ffff:7f00:1]/", "", "yes"),
        // Sockets.
        ("unix:///run/consul.sock", "", "/run/consul.sock", "", "yes"),
        ("unix:///run/consul.sock", "", "/run/./consul.sock", "", "yes"),
        ("unix:///run/consul.sock", "", "/run/consul.sock.old", "", "no"),
        ("unix:///run/consul.sock", "", "/run/x/../consul.sock", "", "no"),
        ("unix:///run/consul.sock", "", "/run/Consul.sock", "", "no"),
        ("unix:///run", "", "/run/consul.sock", "", "no"),
        ("unix:///run/a b%20.sock", "", "/run/a b%20.sock", "", "yes"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock", "/run/consul.sock", "", "no"),
        ("unix:///run/consul.sock", "*:*", "/run/consul.sock", "", "yes"),
        ("unix:///run/consul.sock", "", "run:80", "1.2.3.4", "no no"),
    ];

    /// Parses the rules of a row, separated by spaces. A socket is the only rule of its row, since
    /// its path may have spaces.
    fn rules(text: &str) -> Vec<Rule> {
        let texts =
            if text.starts_with("unix:") { vec![text] } else { text.split(' ').filter(|text| !text.is_empty()).collect() };
        texts.into_iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    fn policy(allow: &str, deny: &str) -> Policy {
        let mut policy = Policy::default();
        rules(allow).into_iter().for_each(|rule| policy.allow(rule));
        rules(deny).into_iter().for_each(|rule| policy.deny(rule));
        policy
    }

    fn and_allow(policy: &Policy, rule: Rule) -> Policy {
        let mut policy = policy.clone();
        policy.allow(rule);
        policy
    }

    fn authority(text: &str) -> Authority {
        let parsed = if text.contains("://") { Authority::of(&text.parse().unwrap()) } else { text.parse() };
        parsed.unwrap_or_else(|error| panic!("{error}"))
    }

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|address| address.parse().unwrap()).collect()
    }

    /// Asks the policy everything that a row asks, in order.
    fn ask(policy: &Policy, asked: &str, resolved: &str) -> Vec<Result<(), Denied>> {
        if asked.starts_with('/') {
            return vec![policy.check_socket(Path::new(asked))];
        }
        let authority = authority(asked);
        let found = addresses(resolved).into_iter().map(|address| policy.check_address(&authority, address));
        std::iter::once(policy.check(&authority)).chain(found).collect()
    }

    /// Returns the rule that a denial suggests adding, or `None` if a rule of `deny` is the cause.
    fn suggested(denied: &Denied) -> Option<Rule> {
        let message = denied.to_string();
        let (cause, remedy) = message.split_once(": add `--allow ")?;
        assert!(!cause.contains("`deny`"), "{message}");
        let (rule, rest) = remedy.split_once('`').unwrap();
        assert_eq!(rest, format!(", or to the configuration file: allow = [\"{rule}\"]"));
        Some(rule.parse().unwrap())
    }

    #[test]
    fn table_has_the_expected_verdicts() {
        for &(allow, deny, asked, resolved, expected) in ROWS {
            let answers = ask(&policy(allow, deny), asked, resolved);
            let verdicts: Vec<_> = answers.iter().map(|answer| if answer.is_ok() { "yes" } else { "no" }).collect();
            assert_eq!(verdicts.join(" "), expected, "allow {allow:?} deny {deny:?} {asked} {resolved}");
        }
    }

    /// Adding the suggested rule makes the same request succeed. For a rule of `deny`, the message
    /// names the rule to remove.
    #[test]
    fn suggested_remedies_work() {
        for &(allow, deny, asked, resolved, _) in ROWS {
            let policy = policy(allow, deny);
            for (index, answer) in ask(&policy, asked, resolved).into_iter().enumerate() {
                let Err(denied) = answer else { continue };
                match suggested(&denied) {
                    Some(rule) => {
                        let again = ask(&and_allow(&policy, rule), asked, resolved).swap_remove(index);
                        assert!(again.is_ok(), "allow {allow:?} deny {deny:?} {asked}: {denied}: {again:?}");
                    }
                    None => {
                        let named = |rule: &&str| denied.to_string().contains(&format!("`{}`", rules(rule)[0]));
                        assert!(deny.split(' ').any(|rule| named(&rule)), "deny {deny:?} {asked}: {denied}");
                        let again = ask(&and_allow(&policy, "*:*".parse().unwrap()), asked, resolved).swap_remove(index);
                        assert!(again.is_err(), "allow {allow:?} deny {deny:?} {asked}: {denied}");
                    }
                }
            }
        }
    }

    /// Applies every policy of the table to every authority and every address of the table.
    #[test]
    fn invariants_hold_for_all_combinations() {
        let asked: BTreeSet<_> = ROWS.iter().map(|row| row.2).filter(|asked| !asked.starts_with('/')).collect();
        let authorities: Vec<_> = asked.into_iter().map(authority).collect();
        let addresses: BTreeSet<_> = ROWS.iter().flat_map(|row| addresses(row.3)).collect();
        let mut asked = 0;
        for &(allow, deny, ..) in ROWS {
            let policy = policy(allow, deny);
            let allowing = and_allow(&policy, "*:*".parse().unwrap());
            let mut denying = policy.clone();
            denying.deny("*:*".parse().unwrap());
            for authority in &authorities {
                let before = policy.check(authority);
                assert!(denying.check(authority).is_err());
                for &address in &addresses {
                    let context = || format!("allow {allow:?} deny {deny:?} {authority} {address}");
                    let answer = policy.check_address(authority, address);
                    asked += 1;
                    // A name that must not be resolved has no address that may be connected to.
                    assert!(before.is_ok() || answer.is_err() || authority.address().is_some(), "{}", context());
                    assert!(denying.check_address(authority, address).is_err(), "{}", context());
                    // Both spellings of an address have the same verdict. Both functions have the
                    // same verdict for a literal address.
                    if let IpAddr::V4(v4) = address {
                        let mapped = policy.check_address(authority, v4.to_ipv6_mapped().into());
                        assert_eq!(mapped.is_ok(), answer.is_ok(), "{}", context());
                    }
                    if let Some(literal) = authority.address() {
                        assert_eq!(policy.check_address(authority, literal).is_ok(), before.is_ok(), "{}", context());
                        let other = Authority { host: Host::Address(address.to_canonical()), port: authority.port };
                        assert_eq!(answer.is_ok(), policy.check(&other).is_ok(), "{}", context());
                    }
                    if let Err(denied) = answer {
                        let again = |policy: &Policy| policy.check_address(authority, address).is_ok();
                        match suggested(&denied) {
                            Some(rule) => assert!(again(&and_allow(&policy, rule)), "{}", context()),
                            None => assert!(!again(&allowing), "{}", context()),
                        }
                    }
                }
            }
        }
        assert!(asked > 100_000, "{asked}");
    }

    #[test]
    fn denials_name_cause_and_remedy() {
        for (allow, deny, asked, resolved, message) in [
            (
                "",
                "",
                "DB.example.:8500",
                "",
                "the host's policy does not allow db.example:8500: add `--allow db.example:8500`, or to the configuration \
                 file: allow = [\"db.example:8500\"]",
            ),
            (
                "",
                "",
                "http://[::ffff:1.2.3.4]/",
                "",
                "the host's policy does not allow 1.2.3.4:80: add `--allow 1.2.3.4:80`, or to the configuration file: allow = \
                 [\"1.2.3.4:80\"]",
            ),
            (
                "",
                "",
                "[0::1]:80",
                "",
                "the host's policy does not allow [::1]:80: add `--allow [::1]:80`, or to the configuration file: allow = \
                 [\"[::1]:80\"]",
            ),
            (
                "192.168.0.0/16:*",
                "",
                "db.example:8500",
                "::ffff:10.1.2.3",
                "the host's policy does not allow db.example:8500, which resolves to 10.1.2.3, which no rule allows for a \
                 name: add `--allow db.example:8500`, or to the configuration file: allow = [\"db.example:8500\"]",
            ),
            (
                "*:*",
                "*.internal:* 169.254.0.0/16:1-65535",
                "db.example:8500",
                "169.254.169.254",
                "the host's policy does not allow db.example:8500, which resolves to 169.254.169.254, which the rule \
                 `169.254.0.0/16:*` of `deny` forbids: take that rule out of `deny`",
            ),
            (
                "*:*",
                "*.example:*",
                "db.example:8500",
                "",
                "the host's policy does not allow db.example:8500, which the rule `*.example:*` of `deny` forbids: take that \
                 rule out of `deny`",
            ),
            (
                "",
                "",
                "/run/consul.sock",
                "",
                "the host's policy does not allow unix:///run/consul.sock: add `--allow unix:///run/consul.sock`, or to the \
                 configuration file: allow = [\"unix:///run/consul.sock\"]",
            ),
        ] {
            let denied = ask(&policy(allow, deny), asked, resolved).pop().unwrap().unwrap_err();
            assert_eq!(denied.to_string(), message);
        }
        let denied = Policy::default().check_socket(Path::new("consul.sock")).unwrap_err().to_string();
        let start = "the host's policy does not allow unix://consul.sock, and no rule can: `unix://consul.sock` is not a valid rule: the \
                     path of a socket is absolute";
        assert!(denied.starts_with(start), "{denied}");
    }

    #[test]
    fn rules_are_shown_in_canonical_form() {
        for (text, canonical) in [
            ("consul.example:8500", "consul.example:8500"),
            ("Consul.EXAMPLE.:08500", "consul.example:8500"),
            ("*.Example.:*", "*.example:*"),
            ("*:*", "*:*"),
            ("*:1-65535", "*:*"),
            ("*:80-80", "*:80"),
            ("*:1-65534", "*:1-65534"),
            ("*:65535", "*:65535"),
            ("1.2.3.4:80", "1.2.3.4:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("[::FFFF:1.2.3.4]:80", "1.2.3.4:80"),
            ("[FD00::/8]:8500-8510", "[fd00::/8]:8500-8510"),
            ("[::ffff:10.0.0.0/104]:80", "10.0.0.0/8:80"),
            ("[::ffff:0:0/96]:80", "0.0.0.0/0:80"),
            ("[::/0]:80", "[::/0]:80"),
            ("[::/96]:80", "[::/96]:80"),
            ("10.1.2.3/32:80", "10.1.2.3/32:80"),
            ("unix:8500", "unix:8500"),
            ("unix:///run/a b.sock", "unix:///run/a b.sock"),
        ] {
            let rule: Rule = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(rule.to_string(), canonical);
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
        }
        let every = ROWS.iter().flat_map(|row| [rules(row.0), rules(row.1)]).flatten();
        for rule in every {
            let again: Rule = rule.to_string().parse().unwrap();
            assert_eq!((again.to_string(), &again), (rule.to_string(), &rule));
        }
        for (_, _, asked, ..) in ROWS.iter().filter(|row| !row.2.starts_with('/')) {
            let authority = authority(asked);
            assert_eq!(authority.to_string().parse(), Ok(authority.clone()));
            // The rule with the same text matches this authority and no other.
            let rule: Rule = authority.to_string().parse().unwrap();
            assert!(rule.matches(&authority));
            assert_eq!(Rule::from(authority.clone()), rule);
            let other = Authority { port: authority.port ^ 1, ..authority };
            assert!(!rule.matches(&other));
        }
    }

    /// Each prefix length matches up to both ends of its network and not beyond.
    #[test]
    fn networks_match_exactly_their_addresses() {
        let matches = |rule: &str, address: u32| {
            let rule: Rule = rule.parse().unwrap_or_else(|error| panic!("{error}"));
            rule.matches(&authority(&format!("{}:80", Ipv4Addr::from(address))))
        };
        for length in 1..=32 {
            let first = 0b1010_1010_1010_1010_1010_1010_1010_1010 & (u32::MAX << (32 - length));
            let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
            for rule in [
                format!("{}/{length}:80", Ipv4Addr::from(first)),
                format!("[::ffff:{}/{}]:80", Ipv4Addr::from(first), 96 + length),
            ] {
                assert!(matches(&rule, first) && matches(&rule, last), "{rule}");
                assert!(!matches(&rule, first.wrapping_sub(1)) && !matches(&rule, last.wrapping_add(1)), "{rule}");
            }
        }
    }

    #[test]
    fn port_range_matches_exactly_its_ports() {
        let rule: Rule = "*:8500-8510".parse().unwrap();
        for port in 1..=u16::MAX {
            let authority: Authority = format!("db.example:{port}").parse().unwrap();
            assert_eq!(rule.matches(&authority), (8500..=8510).contains(&port), "{port}");
        }
    }

    #[test]
    fn authority_returns_its_parts() {
        let name = authority("Consul.Example.:8500");
        assert_eq!((name.name(), name.address(), name.port()), (Some("consul.example"), None, 8500));
        let address = authority("https://[::ffff:1.2.3.4]");
        assert_eq!((address.name(), address.address(), address.port()), (None, "1.2.3.4".parse().ok(), 443));
        assert_eq!((name.host().as_str(), authority("[FD00::1]:80").host().as_str()), ("consul.example", "fd00::1"));
    }

    #[test]
    fn invalid_rules_are_rejected() {
        for (text, reason) in [
            ("", "it is empty"),
            ("http://consul.example:8500", "it has a scheme: leave `http://` out"),
            ("https+insecure://consul.example", "it has a scheme: leave `https+insecure://` out"),
            (" consul.example:8500", "it has a blank"),
            ("consul.example:8500 ", "it has a blank"),
            ("consul.example:85\t00", "it has a blank"),
            ("a.example:80 b.example:80", "it has a blank"),
            ("me:secret@consul.example:80", "it has a user: leave out what is before the `@`"),
            ("consul.example:80?dc=dc1", "it has a query or a fragment"),
            ("consul.example:80#x", "it has a query or a fragment"),
            ("bücher.example:80", "write the name in punycode (xn--…)"),
            ("１.2.3.4:80", "not ASCII"),
            ("consul.example", "the port is missing: write `consul.example:8500`, or `consul.example:*` for every port"),
            ("Consul.Example.", "write `consul.example:8500`"),
            ("consul.example:", "the port is missing: write `consul.example:8500`"),
            ("*", "the port is missing: write `*:8500`, or `*:*` for every port"),
            ("*.example", "write `*.example:8500`"),
            ("1.2.3.4", "write `1.2.3.4:8500`"),
            ("[::1]", "write `[::1]:8500`, or `[::1]:*`"),
            ("10.0.0.0/8", "write `10.0.0.0/8:8500`, or `10.0.0.0/8:*`"),
            ("[fd00::/8]", "write `[fd00::/8]:8500`"),
            (":80", "the name is empty"),
            (".:80", "the name is empty"),
            ("*.:80", "the name is empty"),
            (".example:80", "has nothing before a dot: every name below `example` is `*.example`"),
            ("a..example:80", "has nothing before a dot"),
            ("a.example..:80", "has nothing before a dot"),
            ("*..example:80", "has nothing before a dot"),
            ("*foo:80", "`*` stands alone or before the first dot"),
            ("*foo.example:80", "`*` stands alone or before the first dot"),
            ("foo.*:80", "`*` stands alone or before the first dot"),
            ("a.*.example:80", "`*` stands alone or before the first dot"),
            ("*.*.example:80", "`*` stands alone or before the first dot"),
            ("**:80", "`*` stands alone or before the first dot"),
            ("10.*:80", "a network is written `10.0.0.0/8`"),
            ("con$ul.example:80", "`$` is not allowed in a name"),
            ("consul%2eexample:80", "`%` is not allowed in a name"),
            ("consul.example\\:80", "`\\` is not allowed in a name"),
            ("consul.example\0:80", "is not allowed in a name"),
            ("consul.example/v1:80", "it has a path: leave it out"),
            ("consul.example:80/", "it has a path: leave it out"),
            ("consul.example:80/v1", "it has a path: leave it out"),
            ("10.0.0.0:80/8", "it has a path: leave it out"),
            ("/run/consul.sock", "it has a path: leave it out"),
            ("consul.example:0", "`0` is not a port: a number from 1 to 65535"),
            ("consul.example:65536", "`65536` is not a port: a number from 1 to 65535"),
            ("consul.example:+80", "`+80` is not a port"),
            ("consul.example:http", "`http` is not a port"),
            ("consul.example:80,443", "`80,443` is not a port"),
            ("consul.example:85*", "`85*` is not a port"),
            ("consul.example:8510-8500", "the range is reversed: write `8500-8510`"),
            ("consul.example:0-80", "`0` is not a port"),
            ("consul.example:80-", "`` is not a port"),
            ("consul.example:-80", "`` is not a port"),
            ("consul.example:80-90-100", "`90-100` is not a port"),
            ("::1:80", "more than one `:`; an IPv6 address is written in brackets: `[::1]:8500`"),
            ("fd00::/8:80", "an IPv6 address is written in brackets"),
            ("a:b]:80", "more than one `:`"),
            ("[::1", "an IPv6 address is written in brackets"),
            ("[::1]80", "after `]` comes `:` and the port"),
            ("[fd00::]/8:80", "after `]` comes `:` and the port, and the length of a network's prefix before it"),
            ("[1.2.3.4]:80", "`1.2.3.4` is not an IPv6 address"),
            ("[10.0.0.0/8]:80", "`10.0.0.0` is not an IPv6 address"),
            ("[consul.example]:80", "`consul.example` is not an IPv6 address, and only those go in brackets"),
            ("[fe80::1%eth0]:80", "it has a zone: leave out the `%` and what follows it"),
            ("[fe80::%1/64]:80", "it has a zone"),
            ("[::1.]:80", "`::1.` is not an IPv6 address"),
            ("10.1.2.3/8:80", "the network is `10.0.0.0/8`, the address alone `10.1.2.3`"),
            ("[fd00::1/8]:80", "the network is `[fd00::/8]`, the address alone `[fd00::1]`"),
            ("[::ffff:10.1.2.3/104]:80", "the network is `10.0.0.0/8`, the address alone `10.1.2.3`"),
            ("[::ffff:10.0.0.0/95]:80", "the network is `[::fffe:0:0/95]`, the address alone `10.0.0.0`"),
            ("10.0.0.0/33:80", "`33` is not a prefix length: a number from 0 to 32"),
            ("[fd00::/129]:80", "`129` is not a prefix length: a number from 0 to 128"),
            ("10.0.0.0/:80", "`` is not a prefix length"),
            ("10.0.0.0/+8:80", "`+8` is not a prefix length"),
            ("10.0.0.0/255.0.0.0:80", "`255.0.0.0` is not a prefix length"),
            ("10.0.0.0/8/8:80", "`8/8` is not a prefix length"),
            ("010.0.0.0/8:80", "it has a path"),
            ("unix://run/consul.sock", "write `unix:///run/consul.sock`"),
            ("unix:/run/consul.sock", "the path of a socket is absolute, after `unix://`"),
            ("unix://", "the path of a socket is absolute"),
            ("unix:///", "the path of a socket is absolute"),
            ("unix:///run/*.sock", "the path of a socket has no wildcards"),
        ] {
            let message = text.parse::<Rule>().expect_err(text).to_string();
            assert!(message.starts_with(&format!("`{text}` is not a valid rule: ")), "{message}");
            assert!(message.contains(reason), "{message}");
            let accepted = "; accepted: `name:PORT`, ";
            assert!(message.contains(accepted) && message.ends_with("and `unix:///absolute/path`"), "{message}");
            // The configuration file reports the same.
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<Rule>(&json).unwrap_err().to_string().starts_with(&message));
        }
    }

    #[test]
    fn invalid_authorities_are_rejected() {
        for (text, reason) in [
            ("", "it is empty"),
            ("db.example", "the port is missing: write `db.example:8500`"),
            ("[::1]", "the port is missing: write `[::1]:8500`"),
            ("db.example:", "the port is missing"),
            ("db.example:0", "`0` is not a port"),
            ("db.example:65536", "`65536` is not a port"),
            ("db.example:*", "`*` is not a port"),
            ("db.example:80-90", "`80-90` is not a port"),
            ("*:80", "`*` is not allowed in a name"),
            ("*.example:80", "`*` is not allowed in a name"),
            ("10.0.0.0/8:80", "it has a path"),
            ("[fd00::/8]:80", "it has a path"),
            ("http://db.example:80", "leave `http://` out"),
            ("unix:///run/consul.sock", "leave `unix://` out"),
            ("me@db.example:80", "it has a user"),
            ("[fe80::1%eth0]:80", "it has a zone"),
            ("::1:80", "an IPv6 address is written in brackets"),
            ("db.example:80/v1", "it has a path"),
            ("bücher.example:80", "punycode"),
            ("a..example:80", "has nothing before a dot"),
        ] {
            let message = text.parse::<Authority>().expect_err(text).to_string();
            assert!(message.starts_with(&format!("`{text}` is not a valid authority: ")), "{message}");
            assert!(message.contains(reason), "{message}");
            assert!(message.ends_with("; accepted: `name:port`, `1.2.3.4:80`, `[::1]:80`"), "{message}");
        }
        for (uri, reason) in [
            ("/v1/session/list", "it is empty"),
            ("http://me:secret@db.example/", "it has a user"),
            ("http://db.example:0/", "`0` is not a port"),
            ("http://db.example:99999/", "`99999` is not a port"),
            ("http://db.example:+80/", "`+80` is not a port"),
            ("ftp://db.example/", "the port is missing"),
            ("http://con$ul.example/", "`$` is not allowed in a name"),
            ("http://*.example/", "`*` is not allowed in a name"),
        ] {
            let message = Authority::of(&uri.parse().unwrap()).expect_err(uri).to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
