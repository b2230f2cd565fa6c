//! Tests of basic authentication: `Authorization: Basic …`, which the host adds for a proxy in front
//! of the agent. It follows the rules of tokens; see `tokens.rs` for the paths and methods.

use super::*;
use crate::bindings::Options;
use crate::error::CallError;
use crate::{Builder, Host};
use std::net::SocketAddr;
use test_support::consul::{Consul, Kind, ROOT_TOKEN};

/// A user and a password, and the two as the header carries them.
const PAIR: &str = "ops:tr0ub4dor:&3";
const ENCODED: &str = "b3BzOnRyMHViNGRvcjomMw==";

/// Returns the value of a request's header.
fn header(request: &str, name: &str) -> Option<String> {
    request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
}

/// Returns the `Authorization` and the token of the next request.
async fn sent(requests: &mut mpsc::UnboundedReceiver<String>) -> (Option<String>, Option<String>) {
    let request = requests.recv().await.unwrap();
    (header(&request, "authorization"), header(&request, "x-consul-token"))
}

fn basic() -> Option<String> {
    Some(format!("Basic {ENCODED}"))
}

#[tokio::test]
async fn password_is_added_for_its_authority_only_and_beside_a_token() {
    let (at, mut requests) = record(OK).await;
    let (elsewhere, mut others) = record(OK).await;
    let list = format!("http://{at}/v1/session/list");
    let builder = Builder::default()
        .token_over_http(at.parse().unwrap(), "secret".parse().unwrap())
        .basic_auth_over_http(at.parse().unwrap(), PAIR.parse().unwrap())
        .basic_auth_over_http("*:*".parse().unwrap(), "second:x".parse().unwrap())
        .allow("*:*".parse().unwrap());
    let mut both = outgoing(Network { tls: allowing(&[]).tls, ..builder.network });
    let alone = Network { secrets: vec![password(&at, PAIR)], ..allowing(&["*:*"]) };
    let mut alone = outgoing(alone);
    get(&mut both, &list).await.unwrap();
    assert_eq!(sent(&mut requests).await, (basic(), Some("secret".into())));
    get(&mut alone, &list).await.unwrap();
    assert_eq!(sent(&mut requests).await, (basic(), None));
    // An authority that no rule names, and a request that the plugin does not send.
    get(&mut alone, &format!("http://{elsewhere}/v1/session/list")).await.unwrap();
    assert_eq!(sent(&mut others).await, (None, None));
    for path in ["/v1/acl/token/self", "/v1/session/../acl/token/self", "/v1/agent/metrics"] {
        get(&mut both, &format!("http://{at}{path}")).await.unwrap();
        assert_eq!(sent(&mut requests).await, (None, None), "{path}");
    }
    // The proxy asks for the password whichever token the request has.
    for (own, expected) in [
        (("X-Consul-Token", "own"), (basic(), Some("own".into()))),
        (("Authorization", "Bearer own"), (Some("Bearer own".into()), None)),
    ] {
        request_as_guest(&mut both, WasiMethod::Get, &list, &[own], b"").await.unwrap();
        assert_eq!(sent(&mut requests).await, expected, "{own:?}");
    }
}

#[tokio::test]
async fn password_for_tls_is_refused_over_http() {
    let (at, mut requests) = record(OK).await;
    let builder = Builder::default().basic_auth(at.parse().unwrap(), PAIR.parse().unwrap()).allow("*:*".parse().unwrap());
    let mut outgoing = outgoing(Network { tls: allowing(&[]).tls, locks: true, ..builder.network });
    let text = format!(
        "the host sends its password to {at} over TLS only, but the request is plain http: use `scheme=https`, or let the password be read on the way: type `scheme=http`, or in the configuration file: [[basic_auth]] with scheme = \"http\""
    );
    // A token of the component's own does not open the way for the password.
    for own in [&[][..], &[("X-Consul-Token", "own")]] {
        for path in ["/v1/session/list", "/v1/agent/self", "/v1/kv/a", "/v1/txn"] {
            let url = format!("http://{at}{path}");
            let code = request_as_guest(&mut outgoing, WasiMethod::Get, &url, own, b"").await.unwrap_err();
            assert!(matches!(code, ErrorCode::HttpRequestDenied), "{code:?}");
            assert_eq!(explained(&outgoing, &code, &at), ("denied-by-host", text.clone()), "{path}");
        }
    }
    assert_eq!(get(&mut outgoing, &format!("http://{at}/v1/status/leader")).await.unwrap(), good());
    let request = requests.recv().await.unwrap();
    assert!(requests.try_recv().is_err() && header(&request, "authorization").is_none(), "{request}");
}

/// A proxy that asks for a password may be all that protects the agent.
#[tokio::test]
async fn password_is_added_for_keys_only_if_locks_are_granted() {
    let (at, mut requests) = record(OK).await;
    let granted = Network { secrets: vec![password(&at, PAIR)], locks: true, ..allowing(&["*:*"]) };
    let lock = br#"[{"KV":{"Verb":"lock","Key":"a/b","Value":"eA==","Flags":7,"Session":"s"}}]"#;
    let denied = |request: &str| format!("the password for {at} is not {request}");
    for own in [&[][..], &[("X-Consul-Token", "own")]] {
        let mut may = outgoing(granted.clone());
        for (method, path, body) in [(WasiMethod::Get, "/v1/kv/a/b", &b""[..]), (WasiMethod::Put, "/v1/txn", lock)] {
            let url = format!("http://{at}{path}");
            request_as_guest(&mut may, method.clone(), &url, own, body).await.unwrap();
            assert_eq!(sent(&mut requests).await.0, basic(), "{path}");
            let mut may_not = outgoing(Network { locks: false, ..granted.clone() });
            let code = request_as_guest(&mut may_not, method, &url, own, body).await.unwrap_err();
            let (case, text) = explained(&may_not, &code, &at);
            assert_eq!(case, "denied-by-host", "{path}");
            assert!(text.starts_with(&denied("granted for keys: add to the configuration file: locks = true")), "{text}");
        }
        let other = request_as_guest(&mut may, WasiMethod::Put, &format!("http://{at}/v1/txn"), own, b"[]").await;
        let text = explained(&may, &other.unwrap_err(), &at).1;
        let expected =
            "granted for this transaction, which is not that of one lock or semaphore: lock or unlock one key at a time";
        assert_eq!(text, denied(expected));
        let url = format!("http://{at}/v1/kv/a//b");
        let text = request_as_guest(&mut may, WasiMethod::Get, &url, own, b"").await.unwrap_err();
        let text = explained(&may, &text, &at).1;
        assert!(text.starts_with(&denied("sent for a key with `%`, ")) && text.ends_with(": choose another key"), "{text}");
    }
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn password_of_a_network_is_not_left_out_for_a_name() {
    let (at, mut requests) = record(OK).await;
    let (_, port) = at.split_once(':').unwrap();
    let network = format!("127.0.0.0/8:{port}");
    let url = format!("http://{at}/v1/session/list");
    let mut by_network = outgoing(Network { secrets: vec![password(&network, PAIR)], ..allowing(&[&network]) });
    let code = get(&mut by_network, &url).await.unwrap_err();
    let text = format!(
        "the password of the rule `{network}` is for addresses, not for the name in {at}, and without one the request would be anonymous: give an address as `host`, or add to the configuration file: [[basic_auth]] with authority = \"{at}\""
    );
    assert_eq!(explained(&by_network, &code, &at), ("denied-by-host", text));
    // A required token is a token: a password does not stand in for it.
    let required = Network { secrets: vec![password(&at, PAIR)], token_required: true, ..allowing(&["*:*"]) };
    let mut required = outgoing(required);
    let code = get(&mut required, &url).await.unwrap_err();
    assert!(explained(&required, &code, &at).1.starts_with(&format!("no token is for {at}, ")));
    assert!(requests.try_recv().is_err());
}

/// Starts a proxy in front of the agent, which asks the first request of each connection for the
/// password, and refuses it in an error that quotes the request. Returns its authority.
async fn proxy(agent: SocketAddr) -> String {
    let (listener, _, at) = listen().await;
    tokio::spawn(async move {
        loop {
            let mut stream = accept(&listener).await;
            tokio::spawn(async move {
                let request = read_request(&mut stream).await;
                if header(&request, "authorization") == basic() {
                    let mut agent = TcpStream::connect(agent).await.unwrap();
                    agent.write_all(request.as_bytes()).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut agent).await;
                } else if !request.is_empty() {
                    let quoted = request.replace("\r\n", " ");
                    let head = format!("HTTP/1.1 401 -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", quoted.len());
                    stream.write_all(format!("{head}{quoted}").as_bytes()).await.unwrap();
                }
            });
        }
    });
    at
}

/// A real agent with ACLs, whose token the same requests need.
#[tokio::test(flavor = "multi_thread")]
async fn password_lets_the_plugin_through_a_proxy() {
    let consul = Consul::start(Kind::Acl).unwrap();
    let at = proxy(consul.http()).await;
    let port = at.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let options = Options { name: Some("session1".into()), port, ..Options::default() };
    let rule = || at.parse().unwrap();
    let apply = async |pair: &str| {
        let builder = Host::builder().allow(rule()).token_over_http(rule(), ROOT_TOKEN.parse().unwrap());
        let builder = builder.basic_auth_over_http(rule(), pair.parse().unwrap());
        builder.build(test_support::plugin().unwrap()).unwrap().apply(&options).await
    };
    let wrong = apply("ops:wr0ng-passw0rd").await.unwrap_err().to_string();
    assert!(wrong.contains("authorization: Basic (password)") && !wrong.contains("d3Iwbmct"), "{wrong}");
    assert!(consul.api().sessions().unwrap().is_empty());
    let outcome = apply(PAIR).await.unwrap();
    assert!(outcome.changed && outcome.session_id.is_some(), "{outcome:?}");
    assert_eq!(consul.api().sessions().unwrap().len(), 1);
}

#[tokio::test]
async fn password_in_an_error_of_the_server_is_redacted() {
    let body =
        format!("401: Authorization: Basic {ENCODED}; user ops, {PAIR}; Basic {}… X-Consul-Token: secret", &ENCODED[..8]);
    let head = format!("X-Echo: <{ENCODED}>\r\nX-Consul-Default-ACL-Policy: deny\r\n");
    let response = format!("HTTP/1.1 401 -\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let (at, _requests) = record(Box::leak(response.into_bytes().into_boxed_slice())).await;
    let url = format!("http://{at}/v1/session/list");
    let with = |secrets: Vec<SecretRule>| outgoing(Network { secrets, ..allowing(&["*:*"]) });
    let text = async |mut outgoing: Outgoing| {
        let answer = get(&mut outgoing, &url).await.unwrap();
        assert_eq!((answer.status, answer.broken), (401, false));
        String::from_utf8(answer.body).unwrap()
    };
    let expected = "401: Authorization: Basic (password); user ops, (password); Basic (password)… X-Consul-Token: ";
    assert_eq!(text(with(vec![password(&at, PAIR)])).await, format!("{expected}secret"));
    assert_eq!(text(with(vec![password(&at, PAIR), token(&at, "secret")])).await, format!("{expected}(token)"));
    assert_eq!(text(anywhere()).await, body);
    let mut outgoing = with(vec![password(&at, PAIR)]);
    let sent = Box::into_pin(outgoing.send_request(request(&url), None, Box::new(async { Ok(()) }))).await;
    let (response, _) = sent.map_err(|_| ()).unwrap();
    assert_eq!(response.headers()["x-echo"], "<(password)>");
    // Without a token the request is an anonymous one, whose answer needs the default policy.
    assert_eq!(response.headers()["x-consul-default-acl-policy"], "deny");
}

#[test]
fn passwords_are_redacted_in_errors_of_the_plugin() {
    let secrets = vec![password("*:*", PAIR), password("*:*", "nobody"), token("*:*", "first-token")];
    let outgoing = outgoing(Network { secrets, ..allowing(&[]) });
    for (message, expected) in [
        (format!("answered Basic {ENCODED} and {PAIR}"), "answered Basic (password) and (password)"),
        (format!("first-token, {ENCODED}{ENCODED}"), "(token), (password)(password)"),
        (format!("cut: {}", &PAIR[..6]), "cut: (password)"),
        // The user alone is not secret, and without a password there is none.
        ("no such user: ops".into(), "no such user: ops"),
        ("no such user: ops:".into(), "no such user: ops:"),
        ("no such user: nobody:".into(), "no such user: nobody:"),
    ] {
        let error = CallError::from_plugin(Error::Other(message), |message| outgoing.redact(message));
        assert_eq!(error.to_string(), expected);
    }
}

/// The headers are those that Consul 1.22 sends for the same `CONSUL_HTTP_AUTH`.
#[test]
fn credentials_are_parsed_as_consul_parses_them_and_never_shown() {
    for (text, expected) in [
        ("us:pa:ss", "Basic dXM6cGE6c3M="),
        ("justuser", "Basic anVzdHVzZXI6"),
        ("justuser:", "Basic anVzdHVzZXI6"),
        (":secret", "Basic OnNlY3JldA=="),
        ("ü: ", "Basic w7w6IA=="),
    ] {
        let rule = password("*:*", text);
        let (name, value) = rule.secret.header();
        assert_eq!((name, value.to_str().unwrap()), (AUTHORIZATION, expected), "{text}");
        for shown in [format!("{rule:?}"), format!("{value:?}")] {
            assert!(!shown.contains(text) && !shown.contains(&expected[6..]), "{shown}");
        }
    }
    for wrong in ["", "secret\n", "us:se\rcret", "us:se\0cret", "us:secret\u{7f}"] {
        let error = wrong.parse::<Credentials>().unwrap_err().to_string();
        let expected = "a user and a password are written USER:PASSWORD, without a line break or another control character";
        assert_eq!(error, expected, "{wrong:?}");
    }
}
