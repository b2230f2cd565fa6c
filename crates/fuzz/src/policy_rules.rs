//! The policy of the host.

use crate::policy::{Authority, Policy, Rule};
use http::Uri;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// Reads the lines of the input: an authority, an address to which it resolves, and rules, each
/// after `+` for the allow-list or `-` for the deny-list.
///
/// A rule that is accepted is equal after it was written and parsed again. The policy allows
/// exactly what an oracle does that reads the rules in a way of its own.
pub fn policy_rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let written = lines.next().unwrap_or_default();
    let address: IpAddr = lines.next().and_then(|line| line.parse().ok()).unwrap_or(Ipv6Addr::LOCALHOST.into());
    let mut policy = Policy::default();
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    for line in lines {
        let (denies, text) = match line.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, line.strip_prefix('+').unwrap_or(line)),
        };
        let rule: Rule = match text.parse() {
            Ok(rule) => rule,
            Err(error) => {
                assert!(error.to_string().contains(text), "{error}");
                continue;
            }
        };
        let canonical = rule.to_string();
        assert_eq!(canonical.parse::<Rule>().ok().as_ref(), Some(&rule), "{text} is written {canonical}");
        assert!(policy.check_socket(Path::new(text)).is_err(), "{text}: a path without a rule");
        let model = Model::new(text).unwrap_or_else(|| panic!("`{text}` is accepted, and the oracle cannot read it"));
        let (rules, list) =
            if denies { (&mut deny, Policy::deny as fn(&mut _, _)) } else { (&mut allow, Policy::allow as fn(&mut _, _)) };
        rules.push(model);
        list(&mut policy, rule);
    }
    check_sockets(&policy, &allow, &deny);
    let Ok(authority) = written.parse::<Authority>() else { return };
    check_authority(written, &authority);
    let host = host(written.rsplit_once(':').map_or(written, |(host, _)| host));
    let port = authority.port();
    let matches = |rule: &Model| rule.matches(&host, port);
    let of_address = |rule: &Model| rule.matches(&Host::Address(number(address)), port);
    let is_network = |rule: &Model| matches!(rule, Model::Host(Pattern::Network(..), ports) if ports.contains(&port));
    let is_name = matches!(host, Host::Name(_));
    let before = !deny.iter().any(matches) && allow.iter().any(|rule| matches(rule) || is_name && is_network(rule));
    assert_eq!(policy.check(&authority).is_ok(), before, "{text}");
    let after = match is_name {
        true => {
            !deny.iter().any(|rule| matches(rule) || of_address(rule))
                && allow.iter().any(|rule| matches(rule) || is_network(rule) && of_address(rule))
        }
        // The address decides that is connected to.
        false => !deny.iter().any(of_address) && allow.iter().any(of_address),
    };
    assert_eq!(policy.check_address(&authority, address).is_ok(), after, "{text}");
    if let Err(denied) = policy.check(&authority) {
        check_remedy(policy, &authority, &denied.to_string(), deny.iter().any(matches));
    }
}

/// Checks that the rule which a denial proposes allows what was denied.
fn check_remedy(mut policy: Policy, authority: &Authority, message: &str, is_denied: bool) {
    if let Some((_, rest)) = message.split_once("add `--allow ") {
        let rule = rest.split('`').next().unwrap_or_default();
        policy.allow(rule.parse().unwrap_or_else(|error| panic!("{message}: {error}")));
        assert!(policy.check(authority).is_ok(), "{message}");
    } else {
        assert!(is_denied, "{message}");
    }
}

fn check_authority(written: &str, authority: &Authority) {
    let canonical = authority.to_string();
    assert_eq!(canonical.parse::<Authority>().ok().as_ref(), Some(authority), "{written} is written {canonical}");
    assert!(Rule::from(authority.clone()).matches(authority), "{canonical}");
    if let Ok(uri) = format!("http://{written}/").parse::<Uri>() {
        assert_eq!(Authority::of(&uri).ok().as_ref(), Some(authority), "{uri}");
    }
}

fn check_sockets(policy: &Policy, allow: &[Model], deny: &[Model]) {
    let sockets = |rules: &[Model]| -> Vec<String> {
        let path = |rule: &Model| if let Model::Socket(path) = rule { Some(path.clone()) } else { None };
        rules.iter().filter_map(path).collect()
    };
    let (allowed, denied) = (sockets(allow), sockets(deny));
    for path in allowed.iter().chain(&denied) {
        // `Path` leaves out what makes no difference to the file that is meant.
        let is_in = |list: &[String]| list.iter().any(|other| Path::new(other).components().eq(Path::new(path).components()));
        assert_eq!(policy.check_socket(Path::new(path)).is_ok(), is_in(&allowed) && !is_in(&denied), "{path}");
    }
}

/// A host as the oracle reads it. An address is its 128 bits, mapped to IPv6.
#[derive(Debug, PartialEq)]
enum Host {
    Name(String),
    Address(u128),
}

#[derive(Debug)]
enum Pattern {
    Any,
    Suffix(String),
    Exact(Host),
    /// The first and the last address.
    Network(u128, u128),
}

/// A rule as the oracle reads it.
#[derive(Debug)]
enum Model {
    Host(Pattern, std::ops::RangeInclusive<u16>),
    Socket(String),
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn host(text: &str) -> Host {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let name = bare.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match name.parse::<IpAddr>() {
        Ok(address) => Host::Address(number(address)),
        Err(_) => Host::Name(name.to_owned()),
    }
}

impl Model {
    /// Reads a rule that is valid.
    fn new(text: &str) -> Option<Model> {
        if let Some(path) = text.strip_prefix("unix://") {
            return path.starts_with('/').then(|| Model::Socket(path.to_owned()));
        }
        let (left, ports) = text.rsplit_once(':')?;
        let (first, last) = match ports {
            "*" => ("1", "65535"),
            ports => ports.split_once('-').unwrap_or((ports, ports)),
        };
        let ports = first.parse().ok()?..=last.parse().ok()?;
        let pattern = if left == "*" {
            Pattern::Any
        } else if let Some(suffix) = left.strip_prefix('*') {
            Pattern::Suffix(suffix.strip_suffix('.').unwrap_or(suffix).to_ascii_lowercase())
        } else if let Some((address, length)) = left.trim_matches(['[', ']']).split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let free = if address.is_ipv4() { 32 } else { 128 } - length.parse::<u32>().ok()?;
            let rest = 1_u128.checked_shl(free).unwrap_or(0).wrapping_sub(1);
            Pattern::Network(number(address), number(address) | rest)
        } else {
            Pattern::Exact(host(left))
        };
        Some(Model::Host(pattern, ports))
    }

    fn matches(&self, host: &Host, port: u16) -> bool {
        let Model::Host(pattern, ports) = self else { return false };
        let is_host = match (pattern, host) {
            (Pattern::Any, _) => true,
            (Pattern::Exact(exact), host) => exact == host,
            (Pattern::Suffix(suffix), Host::Name(name)) => name.len() > suffix.len() && name.ends_with(suffix),
            (Pattern::Network(first, last), Host::Address(address)) => {
                // An IPv6 network contains no IPv4 addresses, unless all of its are.
                let is_ipv4 = |address: u128| address >> 32 == 0xffff;
                (*first..=*last).contains(address) && is_ipv4(*address) == (is_ipv4(*first) && is_ipv4(*last))
            }
            _ => false,
        };
        is_host && ports.contains(&port)
    }
}
