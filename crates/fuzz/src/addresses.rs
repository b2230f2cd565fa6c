//! The address of the agent, and what the options put into the paths of requests.

use crate::support::check_refusal;
use consul_session::consul::{Client, Connection, Query, Scope};
use consul_session::error::{Error, ErrorKind};
use consul_session::lock::Key;
use consul_session::options::{self, Options, Scheme};
use consul_session::transport::{Request, Response, Transport};
use consul_session_args::{Invocation, Source, read_environment};
use http::Uri;
use serde_json::Value;
use std::net::Ipv6Addr;

/// The options in the lines of the input, before the key and the value of `CONSUL_HTTP_ADDR`.
const NAMES: [&str; 7] = ["host", "port", "scheme", "node", "datacenter", "namespace", "partition"];

/// Keeps the request, and answers nothing.
#[derive(Default)]
struct Recorder(Option<Request>);

impl Transport for Recorder {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        self.0 = Some(request.clone());
        Err(Error::new(ErrorKind::Unreachable, "recorded"))
    }
}

/// Reads the lines of the input as options, as a key and as `CONSUL_HTTP_ADDR`. Each request goes
/// to the host and port that were given, and its path and query say exactly what was given.
pub fn addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut options = Options::default();
    for name in NAMES {
        let Some(line) = lines.next() else { break };
        if !line.is_empty()
            && let Err(error) = options.set(name, &Value::from(line))
        {
            check_refusal(&error);
        }
    }
    let key = lines.next().map(Key::parse);
    if let Some(Err(error)) = &key {
        assert!(matches!(&error.kind, ErrorKind::InvalidOption { option } if option == "key"), "{error:?}");
    }
    check_variable(lines.next().unwrap_or_default());
    if let Some(host) = &options.host {
        assert_eq!(options::host("host", host.as_str()).as_ref(), Ok(host));
    }
    check_requests(options, key.and_then(Result::ok).as_ref());
}

fn check_requests(options: Options, key: Option<&Key>) {
    let given = options.resolve();
    let connection = Connection::new(&given);
    let parameters = [("dc", &given.datacenter), ("ns", &given.namespace), ("partition", &given.partition)];
    let parameters: Vec<(&str, &str)> =
        parameters.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    let check = |folder: &str, segment: &str, send: &dyn Fn(&mut Client)| {
        let mut recorder = Recorder::default();
        send(&mut Client { connection: &connection, transport: &mut recorder });
        let request = recorder.0.expect("a request is sent");
        let scheme = if given.scheme == Scheme::Http { "http" } else { "https" };
        let text = format!("{scheme}://{}{}", request.authority, request.path_and_query);
        let uri: Uri = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((uri.host(), uri.port_u16()), (Some(given.host.as_str()), Some(given.port)), "{text}");
        assert!(uri.authority().is_some_and(|authority| authority.as_str() == request.authority), "{text}");
        let rest = uri.path().strip_prefix(folder).unwrap_or_else(|| panic!("{text}: not in {folder}"));
        assert_eq!(decoded(rest), segment, "{text}");
        let query = uri.query().unwrap_or_default();
        let query = query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (name, decoded(value))
        });
        let query: Vec<(&str, String)> = query.collect();
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(query, parameters, "{text}");
        #[cfg(feature = "host")]
        check_host(&uri);
    };
    if let Some(node) = &given.node {
        check("/v1/session/node/", node, &|client| {
            let _ = client.sessions(&Scope::Node(node.clone()), &Query::default());
        });
    }
    if let Some(key) = key {
        check("/v1/kv/", key.as_str(), &|client| {
            let _ = client.holder(key, &Query::default());
        });
    }
}

/// Checks that the host connects to the authority that the component asks for.
#[cfg(feature = "host")]
fn check_host(uri: &Uri) {
    use consul_session_host::{Authority, Rule};
    // The plugin takes names that the host does not, such as those with empty labels.
    let Ok(authority) = Authority::of(uri) else { return };
    let written = authority.to_string();
    assert_eq!(written.parse::<Authority>().ok().as_ref(), Some(&authority), "{written}");
    assert_eq!(authority.port(), uri.port_u16().unwrap_or_default());
    let same = |host: &str| host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    if authority.name().is_some() {
        assert_eq!(Some(authority.host()), uri.host().map(same));
    }
    assert!(Rule::from(authority.clone()).matches(&authority), "{written}");
    assert!(written.parse::<Rule>().is_ok_and(|rule| rule.matches(&authority)), "{written}");
}

/// Reads `CONSUL_HTTP_ADDR`. What is accepted is equal after it was written and read again.
fn check_variable(address: &str) {
    let read = |address: &str| {
        let mut invocation = Invocation::default();
        let address = address.to_owned();
        read_environment(&mut invocation, &|name| (name == "CONSUL_HTTP_ADDR").then(|| address.clone())).map(|()| invocation)
    };
    match read(address) {
        Ok(invocation) => {
            let Options { host: Some(host), port: Some(port), scheme, .. } = &invocation.options else {
                assert!(address.is_empty(), "{address}: {invocation:?}");
                return;
            };
            let is_address =
                !host.as_str().starts_with('[') || host.as_str().trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok();
            assert!(is_address && invocation.given.iter().all(|(_, source)| *source == Source::Environment));
            let scheme = scheme.map(|scheme| format!("{}://", scheme.name())).unwrap_or_default();
            let written = format!("{scheme}{}:{port}", host.as_str());
            assert_eq!(read(&written).as_ref(), Ok(&invocation), "{address} is read as {written}");
        }
        Err(error) => assert!(matches!(error.kind, ErrorKind::InvalidOption { .. }), "{error:?}"),
    }
}

/// Decodes `%XX`. Everything else must be unreserved, so that no segment or parameter ends early.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or_default()).to_digit(16));
                let [Some(high), Some(low)] = digits else { panic!("{text}: not an escape") };
                bytes.push((high * 16 + low) as u8);
            }
            b'-' | b'.' | b'_' | b'~' => bytes.push(byte),
            byte if byte.is_ascii_alphanumeric() => bytes.push(byte),
            _ => panic!("{text}: `{}` is not escaped", char::from(byte)),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|error| panic!("{text}: {error}"))
}
