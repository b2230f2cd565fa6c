//! Tests of the host's tokens: to which requests they are added, and that they do not come back.

use super::*;
use crate::bindings::Refusal;
use crate::error::CallError;
use test_support::TOKEN;
use test_support::consul::{Consul, Kind, NODE, ROOT_TOKEN};

#[tokio::test]
async fn token_is_added_to_plugin_paths_only() {
    let (at, mut requests) = record(OK).await;
    let (elsewhere, mut others) = record(OK).await;
    let mut outgoing = outgoing(Network { secrets: vec![token(&at, "first"), token(&at, "second")], ..allowing(&["*:*"]) });
    let header = |request: String| {
        let mut values = request.lines().filter_map(|line| line.strip_prefix("x-consul-token: ").map(str::to_owned));
        (values.next(), values.next())
    };
    let sent = (Some("first".to_owned()), None);
    for path in [
        "/v1/session/create",
        "/v1/session/list?dc=dc1&x=../..//%2e",
        "/v1/session/node/a%20b",
        "/v1/session/node/a..b",
        "/v1/agent/self",
        "/v1/agent/self?x",
        "/v1/internal/acl/authorize",
    ] {
        get(&mut outgoing, &format!("http://{at}{path}")).await.unwrap();
        assert_eq!(header(requests.recv().await.unwrap()), sent, "{path}");
        get(&mut outgoing, &format!("http://{elsewhere}{path}")).await.unwrap();
        assert_eq!(header(others.recv().await.unwrap()), (None, None), "{path}");
    }
    for path in [
        "/",
        "/?/v1/session/list",
        "/v1/session",
        "/v1/sessions/list",
        "/v1/acl/token/self",
        "/v1/agent/self/",
        "/v1/agent/self/x",
        "/v1/agent/selfish",
        "/v1/agent/metrics",
        "/v1/internal/acl/authorize/x",
        "/V1/session/list",
        "/x/v1/session/list",
        "//v1/session/list",
        "/v1//session/list",
        "/v1/session//list",
        "/v1/session/../acl/token/self",
        "/v1/session/./list",
        "/v1/session/..",
        "/v1/session/.",
        "/v1/session/%2e%2e/acl/token/self",
        "/v1/session/%2E%2e/acl/token/self",
        "/v1/session/.%2e/acl/token/self",
        "/v1/session/%2e./acl/token/self",
        "/v1/session/..%2facl/token/self",
        "/v1/session/..%2Facl%2ftoken/self",
        "/v1/session/..%5cacl/token/self",
        "/v1/session/..\\acl/token/self",
        "/v1/session/%252e%252e/acl/token/self",
        "/v1/session/a%2fb",
        "/v1/session/list/",
    ] {
        get(&mut outgoing, &format!("http://{at}{path}")).await.unwrap();
        assert_eq!(header(requests.recv().await.unwrap()), (None, None), "{path}");
    }
    let list = format!("http://{at}/v1/session/list");
    for (method, expected) in [("TRACE", (None, None)), ("OPTIONS", (None, None)), ("DELETE", sent)] {
        request_as_guest(&mut outgoing, WasiMethod::Other(method.into()), &list, &[], b"").await.unwrap();
        assert_eq!(header(requests.recv().await.unwrap()), expected, "{method}");
    }
    for (own, expected) in [
        (("X-Consul-Token", "own"), (Some("own".to_owned()), None)),
        (("X-Consul-Token", ""), (Some(String::new()), None)),
        (("Authorization", "Bearer own"), (None, None)),
    ] {
        request_as_guest(&mut outgoing, WasiMethod::Get, &list, &[own], b"").await.unwrap();
        assert_eq!(header(requests.recv().await.unwrap()), expected, "{own:?}");
    }
}

#[tokio::test]
async fn token_is_added_to_key_paths_only_if_locks_are_granted() {
    let (at, mut requests) = record(OK).await;
    let granted = Network { secrets: vec![token(&at, "secret")], locks: true, ..allowing(&["*:*"]) };
    let mut sent = async |method: WasiMethod, path: &str| {
        let url = format!("http://{at}{path}");
        request_as_guest(&mut outgoing(granted.clone()), method, &url, &[], b"").await.unwrap();
        requests.recv().await.unwrap().contains("x-consul-token: secret\r\n")
    };
    let not_granted = Network { locks: false, ..granted.clone() };
    for path in [
        "/v1/kv/a",
        "/v1/kv/a/b?index=1",
        "/v1/kv/a%2Fb%2f.lock",
        "/v1/kv/%C3%BC%20x",
        "/v1/kv/a/?recurse",
        "/v1/kv/a%2Fb%2F?consistent&recurse&dc=dc1",
        "/v1/txn",
        "/v1/txn?dc=dc1",
    ] {
        if path.starts_with("/v1/kv/") {
            assert!(sent(WasiMethod::Get, path).await, "{path}");
            // The plugin only reads keys so.
            assert!(!sent(WasiMethod::Put, path).await && !sent(WasiMethod::Delete, path).await, "{path}");
        }
        let mut outgoing = outgoing(not_granted.clone());
        let code = get(&mut outgoing, &format!("http://{at}{path}")).await.unwrap_err();
        let text = format!(
            "the token for {at} is not granted for keys: add to the configuration file: locks = true, or call `Builder::locks(true)`"
        );
        assert_eq!(explained(&outgoing, &code, &at), ("denied-by-host", text), "{path}");
    }
    assert!(sent(WasiMethod::Get, "/v1/session/list").await);
    for path in ["/v1/kv", "/v1/txn/", "/v1/txn/x", "/v1/session/..%2fkv%2fa", "/v1/session/a%2fb", "/v1/acl/token/self"] {
        assert!(!sent(WasiMethod::Get, path).await, "{path}");
    }
    for path in [
        "/v1/kv/",
        "/v1/kv/a/",
        "/v1/kv//a",
        "/v1/kv/a%2F",
        "/v1/kv/a%2F%2Fb",
        "/v1/kv/?recurse",
        "/v1/kv//?recurse",
        "/v1/kv/a//?recurse",
        "/v1/kv/..%2F?recurse",
        "/v1/kv/a/?recursed",
        "/v1/kv/../acl/token/self",
        "/v1/kv/..%2facl%2Ftoken/self",
        "/v1/kv/a%2F%2e%2e%2F..%2Facl/token/self",
        "/v1/kv/a/./b",
        "/v1/kv/..%5cacl",
        "/v1/kv/%252e%252e/acl/token/self",
    ] {
        assert!(!sent(WasiMethod::Put, path).await, "{path}");
        let mut outgoing = outgoing(granted.clone());
        let code = get(&mut outgoing, &format!("http://{at}{path}")).await.unwrap_err();
        let (case, text) = explained(&outgoing, &code, &at);
        assert_eq!(case, "denied-by-host", "{path}");
        assert!(text.starts_with(&format!("the token for {at} is not sent for a key with `%`, ")), "{text}");
    }
}

#[test]
fn invalid_tokens_are_rejected_and_valid_ones_never_shown() {
    for wrong in ["", "a\nb", "a\r", "a\0b", "a\u{7f}"] {
        assert!(wrong.parse::<Token>().is_err(), "{wrong:?}");
    }
    let rule = token("*:*", "5ecret-1");
    let network = Network { secrets: vec![rule.clone()], ..Network::default() };
    for shown in [format!("{rule:?}"), format!("{network:?}"), format!("{:?}", rule.secret.header())] {
        assert!(!shown.contains("5ecret"), "{shown}");
    }
}

/// The component chooses the scheme.
#[tokio::test]
async fn token_for_tls_is_refused_over_http() {
    let (at, mut requests) = record(OK).await;
    let rules = vec![SecretRule { over_http: false, ..token(&at, "secret") }, token("*:*", "other")];
    let mut outgoing = outgoing(Network { secrets: rules, locks: true, ..allowing(&["*:*"]) });
    let text = format!(
        "the host sends its token to {at} over TLS only, but the request is plain http: use `scheme=https`, or let the token be read on the way: type `scheme=http`, or in the configuration file: [[token]] with scheme = \"http\""
    );
    for path in ["/v1/session/list", "/v1/agent/self", "/v1/kv/a", "/v1/txn"] {
        let code = put(&mut outgoing, &format!("http://{at}{path}")).await;
        let code = if path == "/v1/kv/a" { get(&mut outgoing, &format!("http://{at}{path}")).await } else { code };
        let code = code.unwrap_err();
        assert!(matches!(code, ErrorCode::HttpRequestDenied), "{code:?}");
        assert_eq!(explained(&outgoing, &code, &at), ("denied-by-host", text.clone()), "{path}");
    }
    // The component's own token is the component's affair, and other requests need none.
    let url = format!("http://{at}/v1/session/list");
    let own = ("X-Consul-Token", "own");
    assert_eq!(request_as_guest(&mut outgoing, WasiMethod::Get, &url, &[own], b"").await.unwrap(), good());
    assert_eq!(get(&mut outgoing, &format!("http://{at}/v1/status/leader")).await.unwrap(), good());
    drop(outgoing);
    while let Ok(request) = requests.try_recv() {
        assert!(!request.contains("secret") && !request.contains("other"), "{request}");
    }
}

#[tokio::test]
async fn token_that_cannot_be_added_is_an_error() {
    let (at, mut requests) = record(OK).await;
    let (_, port) = at.split_once(':').unwrap();
    let url = format!("http://{at}/v1/session/list");
    let network = format!("127.0.0.0/8:{port}");
    let with = |allow: &str, tokens: &[&str]| Network {
        secrets: tokens.iter().map(|rule| token(rule, "secret")).collect(),
        ..allowing(&[allow])
    };
    // The name is allowed by its addresses, which the rule of the token means too.
    let mut by_network = outgoing(with(&network, &[&network]));
    let code = get(&mut by_network, &url).await.unwrap_err();
    let text = format!(
        "the token of the rule `{network}` is for addresses, not for the name in {at}, and without one the request would be anonymous: give an address as `host`, or add to the configuration file: [[token]] with authority = \"{at}\""
    );
    assert_eq!(explained(&by_network, &code, &at), ("denied-by-host", text));
    // A token is required.
    let mut required = outgoing(Network { token_required: true, ..with(&at, &[]) });
    let code = get(&mut required, &url).await.unwrap_err();
    let text = format!(
        "no token is for {at}, and without one the request would be anonymous: add `--allow {at}`, or to the configuration file: [[token]] with authority = \"{at}\""
    );
    assert_eq!(explained(&required, &code, &at), ("denied-by-host", text));
    assert!(requests.try_recv().is_err());
    // Anonymous requests: to a cluster without a token, by name, or where no rule is for the port.
    for network in [with(&at, &["127.0.0.1:1"]), with(&at, &[&network]), with(&network, &["127.0.0.0/8:1", "10.0.0.1:*"])] {
        assert_eq!(get(&mut outgoing(network), &url).await.unwrap(), good());
        assert!(!requests.recv().await.unwrap().contains("x-consul-token"));
    }
    // With a rule for the name beside that for the network.
    assert_eq!(get(&mut outgoing(with(&network, &[&network, &at])), &url).await.unwrap(), good());
    assert!(requests.recv().await.unwrap().contains("x-consul-token: secret\r\n"));
    // What gets no token needs none.
    let mut required = outgoing(Network { token_required: true, ..with(&at, &[]) });
    assert_eq!(get(&mut required, &format!("http://{at}/v1/status/leader")).await.unwrap(), good());
}

/// Uses a real agent whose token permits everything.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_do_more_than_lock_are_refused() {
    let consul = Consul::start(Kind::Acl).unwrap();
    let (api, at) = (consul.api(), consul.http().to_string());
    let nodes = || api.get("/v1/catalog/nodes").unwrap().as_array().unwrap().len();
    let mut outgoing = outgoing(Network { secrets: vec![token(&at, ROOT_TOKEN)], locks: true, ..allowing(&["*:*"]) });
    let mut send = async |body: &str| {
        let url = format!("http://{at}/v1/txn");
        let result = request_as_guest(&mut outgoing, WasiMethod::Put, &url, &[], body.as_bytes()).await;
        result.map_err(|code| explained(&outgoing, &code, &at))
    };
    let session = api.put("/v1/session/create", None).unwrap()["ID"].as_str().unwrap().to_owned();
    let lock = |verb: &str| format!(r#"{{"KV":{{"Verb":"{verb}","Key":"k","Value":"eA==","Flags":0,"Session":"{session}"}}}}"#);
    let node = r#"{"Node":{"Verb":"set","Node":{"Node":"evil","Address":"10.6.6.6"}}}"#;
    let service =
        format!(r#"{{"Service":{{"Verb":"set","Node":"{NODE}","Service":{{"Service":"db","Address":"10.6.6.6"}}}}}}"#);
    let (locked, before) = (lock("lock"), nodes());
    let refused = format!(
        "the token for {at} is not granted for this transaction, which is not that of one lock or semaphore: give the request a token of its own"
    );
    for body in [
        format!("[{node}]"),
        format!("[{locked},{node}]"),
        format!("[{service}]"),
        format!("[{{{},{}}}]", &locked[1..locked.len() - 1], &node[1..node.len() - 1]),
        format!("[{}]", locked.replace("\"Verb\"", "\"verb\":\"set\",\"Verb\"")),
        format!("[{}]", lock("set")),
        String::new(),
        format!("[{locked}]{}", " ".repeat(2 << 20)),
    ] {
        assert_eq!(send(&body).await.unwrap_err(), ("denied-by-host", refused.clone()), "{body:.200}");
    }
    assert_eq!((nodes(), api.send("GET", "/v1/kv/k", None).unwrap().status), (before, 404));
    assert_eq!(api.get("/v1/catalog/service/db").unwrap().as_array().unwrap().len(), 0);
    // The same operation alone is what locks need. The largest value that Consul stores is 512 KiB.
    assert_eq!(send(&format!("[{locked}]")).await.unwrap().status, 200);
    assert_eq!(api.get("/v1/kv/k").unwrap()[0]["Session"], session.as_str());
    assert_eq!(send(&format!("[ {} ]", lock("unlock"))).await.unwrap().status, 200);
    assert!(api.get("/v1/kv/k").unwrap()[0]["Session"].is_null());
    let large = locked.replace("eA==", &"eHh4".repeat(100_000));
    assert_eq!(send(&format!("[{large}]")).await.unwrap().status, 200);
    // What semaphores need.
    let swap = |verb: &str, index: u64| {
        let end = format!(r#""Session":"","Index":{index}}}"#);
        lock(verb).replace(r#""Key":"k""#, r#""Key":"s""#).replace(&format!(r#""Session":"{session}"}}"#), &end)
    };
    assert_eq!(send(&format!("[{locked},{}]", swap("cas", 0))).await.unwrap().status, 200);
    assert_eq!(send(&format!("[{},{}]", swap("cas", 1), lock("delete"))).await.unwrap().status, 409);
    let index = api.get("/v1/kv/s").unwrap()[0]["ModifyIndex"].as_u64().unwrap();
    assert_eq!(send(&format!("[{},{}]", swap("delete-cas", index), lock("delete"))).await.unwrap().status, 200);
    for key in ["k", "s"] {
        assert_eq!(api.send("GET", &format!("/v1/kv/{key}"), None).unwrap().status, 404);
    }
}

/// Returns a response that quotes a request.
fn quoting(status: &str, headers: &str, body: &str) -> &'static [u8] {
    let length = body.len();
    let response = format!("HTTP/1.1 {status} -\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    Box::leak(response.into_bytes().into_boxed_slice())
}

#[tokio::test]
async fn token_in_an_error_of_the_server_is_redacted() {
    let body = format!("X-Consul-Token: {TOKEN}, Authorization: Bearer {}", &TOKEN[..20]);
    let (at, _requests) = record(quoting("403", "", &body)).await;
    let url = format!("http://{at}/v1/session/list");
    let network = Network { secrets: vec![token(&at, TOKEN)], ..allowing(&["*:*"]) };
    let answer = get(&mut outgoing(network), &url).await.unwrap();
    let expected = "X-Consul-Token: (token), Authorization: Bearer (token)";
    assert_eq!((answer.status, String::from_utf8(answer.body).unwrap().as_str(), answer.broken), (403, expected, false));
    // The component's own token is not the host's to redact.
    let answer = get(&mut anywhere(), &url).await.unwrap();
    assert_eq!(answer.body, body.as_bytes());
    // No more than the beginning of a long error, so no more than the beginning of a token at its end.
    let long = format!("{}{TOKEN}{}", "x".repeat((64 << 10) - 20), "y".repeat(1_000));
    let (at, _requests) = record(quoting("500", "", &long)).await;
    let network = Network { secrets: vec![token(&at, TOKEN)], ..allowing(&["*:*"]) };
    let answer = get(&mut outgoing(network), &format!("http://{at}/v1/session/list")).await.unwrap();
    let expected = format!("{}(token)", "x".repeat((64 << 10) - 20));
    assert!(answer.body == expected.as_bytes() && !answer.broken, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn answers_are_whole_unless_they_are_errors_to_a_token() {
    const LENGTH: usize = 100_000;
    for (status, secrets, whole) in [("200 OK", true, true), ("500 X", false, true), ("500 X", true, false)] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {LENGTH}\r\n\r\n{}", "x".repeat(LENGTH));
        let (at, _requests) = record(answer.leak().as_bytes()).await;
        let secrets = if secrets { vec![token(&at, "5ec7e7-0000-host")] } else { Vec::new() };
        let mut outgoing = outgoing(Network { secrets, ..allowing(&["*:*"]) });
        let answer = get(&mut outgoing, &format!("http://{at}/v1/session/list")).await.unwrap();
        assert_eq!((answer.body.len() == LENGTH, answer.broken), (whole, false), "{status}: {}", answer.body.len());
    }
}

#[tokio::test]
async fn response_headers_show_no_token_and_no_default_policy() {
    let headers = format!("X-Consul-Default-ACL-Policy: deny\r\nX-Consul-Index: 7\r\nX-Echo: <{TOKEN}>\r\n");
    let (at, _requests) = record(quoting("200", &headers, "[]")).await;
    let network = Network { secrets: vec![token(&at, TOKEN)], ..allowing(&["*:*"]) };
    let header = async |outgoing: &mut Outgoing, path: &str, name: &str| {
        let request = request(&format!("http://{at}{path}"));
        let sent = Box::into_pin(outgoing.send_request(request, None, Box::new(async { Ok(()) }))).await;
        let (response, _) = sent.map_err(|_| ()).unwrap();
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let [policy, index, echo] = ["x-consul-default-acl-policy", "x-consul-index", "x-echo"];
    let mut with_token = outgoing(network);
    let list = "/v1/session/list";
    assert_eq!(header(&mut with_token, list, policy).await, None);
    assert_eq!(header(&mut with_token, list, index).await.as_deref(), Some("7"));
    assert_eq!(header(&mut with_token, list, echo).await.as_deref(), Some("<(token)>"));
    // An anonymous request needs the policy: to another path, and to an authority without a token.
    assert_eq!(header(&mut with_token, "/v1/catalog/nodes", policy).await.as_deref(), Some("deny"));
    assert_eq!(header(&mut anywhere(), list, policy).await.as_deref(), Some("deny"));
}

/// Covers every case of the plugin's error. A message may quote a 200, whose body is passed on.
#[test]
fn tokens_are_redacted_in_every_error() {
    let network = Network { secrets: vec![token("a.example:1", "first-token"), token("*:*", TOKEN)], ..allowing(&[]) };
    let outgoing = outgoing(network);
    let refusal = |message| Refusal { status: 500, message };
    let cases: [fn(String) -> Error; 18] = [
        Error::Unsupported,
        Error::NotFound,
        Error::Hidden,
        Error::UnknownNode,
        Error::UnknownCheck,
        Error::CriticalCheck,
        Error::UnknownDatacenter,
        Error::Unreachable,
        Error::DeniedByHost,
        Error::Tls,
        Error::Timeout,
        Error::InvalidResponse,
        Error::ResponseTooLarge,
        Error::OutcomeUnknown,
        Error::Other,
        |message| Error::InvalidOption(crate::bindings::InvalidOption { option: "name".into(), message }),
        |message| Error::NodeRequired(crate::bindings::NodeRequired { nodes: Vec::new(), message }),
        |message| {
            let (session_id, differences) = (String::new(), Vec::new());
            Error::Mismatch(crate::bindings::Mismatch { session_id, differences, message })
        },
    ];
    let message = format!("answered {TOKEN} and first-token: {}…", &TOKEN[..6]);
    let refusals = [Error::AccessDenied, Error::Unavailable, Error::Refused];
    let refusals = refusals.map(|case| case(refusal(message.clone())));
    for error in cases.into_iter().map(|case| case(message.clone())).chain(refusals) {
        let case = error.name();
        let error = CallError::from_plugin(outgoing.explain(error), |message| outgoing.redact(message));
        assert_eq!(error.to_string(), "answered (token) and (token): (token)…", "{case}");
    }
}
