//! Tests of HTTP, the policy, limits and explanations.

use super::*;
use crate::bindings::Refusal;

// HTTP

#[tokio::test]
async fn requests_are_sent_as_written() {
    let (listener, _, authority) = listen().await;
    // `Host` keeps the guest's spelling.
    let authority = authority.replace("localhost", "LocalHost");
    let http = Http::new(allowing(&[&authority])).unwrap();
    let server = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let first = read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        // On the same connection: there is no second `accept`.
        let second = read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        (first, second)
    });
    let create = format!("http://{authority}/v1/session/create?dc=dc1&x=%2F");
    let answer = request_as_guest(&mut http.outgoing(LIMITS), WasiMethod::Put, &create, &[], b"{\"Name\":\"a\"}").await;
    assert_eq!(answer.unwrap(), good());
    let renew = format!("http://{authority}/v1/session/renew/x");
    let answer = request_as_guest(&mut http.clone().outgoing(LIMITS), WasiMethod::Put, &renew, &[], b"").await;
    assert_eq!(answer.unwrap(), good());
    let (first, second) = server.await.unwrap();
    assert_eq!(
        first,
        format!(
            "PUT /v1/session/create?dc=dc1&x=%2F HTTP/1.1\r\nhost: {authority}\r\ncontent-length: 12\r\n\r\n{{\"Name\":\"a\"}}"
        )
    );
    assert_eq!(second, format!("PUT /v1/session/renew/x HTTP/1.1\r\nhost: {authority}\r\ncontent-length: 0\r\n\r\n"));
}

#[tokio::test]
async fn ipv6_addresses_are_reached() {
    // Not every machine has IPv6.
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let at = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let request = read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        request
    });
    assert_eq!(get(&mut outgoing(allowing(&[&at])), &format!("http://{at}/")).await.unwrap(), good());
    assert_eq!(server.await.unwrap(), format!("GET / HTTP/1.1\r\nhost: {at}\r\ncontent-length: 0\r\n\r\n"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (listener, authority, _) = listen().await;
    let (elsewhere, other, _) = listen().await;
    let server = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        read_request(&mut stream).await;
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        read_request(&mut stream).await
    });
    // The policy allows the target of the redirect.
    let mut outgoing = anywhere();
    assert_eq!(get(&mut outgoing, &format!("http://{authority}/")).await.unwrap().status, 302);
    drop(outgoing);
    assert_eq!(server.await.unwrap(), "");
    assert!(timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err());
}

#[tokio::test]
async fn failures_have_distinct_codes() {
    let mut outgoing = anywhere();
    let free = listen().await.1;
    for scheme in ["http", "https", "https+insecure"] {
        outgoing.http.network = Arc::new(Network { insecure: vec!["*:*".parse().unwrap()], ..allowing(&["*:*"]) });
        let code = get(&mut outgoing, &format!("{scheme}://{free}/")).await.unwrap_err();
        assert!(matches!(code, ErrorCode::ConnectionRefused), "{scheme} {code:?}");
        let text = format!("nothing listens at {free}: check `host` and `port`, and whether the agent runs");
        assert_eq!(explained(&outgoing, &code, &free), ("unreachable", text));
    }
    let code = get(&mut outgoing, "http://name.invalid:1/").await.unwrap_err();
    assert!(matches!(code, ErrorCode::DnsError(_)));
    let (case, text) = explained(&outgoing, &code, "name.invalid:1");
    assert_eq!(case, "unreachable");
    assert!(text.starts_with("the name in name.invalid:1 cannot be resolved: check `host`"), "{text}");
    for scheme in ["unix", "ftp", "HTTPS+insecurely"] {
        let code = get(&mut outgoing, &format!("{scheme}://{free}/")).await.unwrap_err();
        assert!(matches!(code, ErrorCode::HttpProtocolError), "{scheme}");
    }
    for authority in ["user@localhost:80", "user:secret@localhost:80", "localhost:99999", "localhost:0"] {
        let code = get(&mut outgoing, &format!("http://{authority}/")).await.unwrap_err();
        assert!(matches!(code, ErrorCode::HttpRequestUriInvalid), "{authority}");
    }
    for answer in ["", "HTTP/1.1 200", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let (listener, authority, _) = listen().await;
        let server = tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let code = get(&mut outgoing, &format!("http://{authority}/")).await.unwrap_err();
        assert!(matches!(code, ErrorCode::HttpProtocolError), "{answer:?}");
        // The explanation of an earlier failure is gone.
        assert_eq!(explained(&outgoing, &code, &authority).0, "invalid-response");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn length_without_a_body_is_refused() {
    for (length, is_refused) in [("0", false), ("4", true)] {
        let (mut outgoing, mut table, mut ctx) = (anywhere(), ResourceTable::new(), WasiHttpCtx::new());
        let mut wasi = WasiHttpCtxView { hooks: &mut outgoing, table: &mut table, ctx: &mut ctx };
        let fields = wasi.from_list(vec![("content-length".into(), length.into())]).unwrap();
        let request = HostOutgoingRequest::new(&mut wasi, fields).unwrap();
        wasi.set_scheme(Resource::new_borrow(request.rep()), Some(WasiScheme::Http)).unwrap().unwrap();
        wasi.set_authority(Resource::new_borrow(request.rep()), Some("localhost:1".into())).unwrap().unwrap();
        wasi.set_path_with_query(Resource::new_borrow(request.rep()), Some("/".into())).unwrap().unwrap();
        let refusal = future::handle(&mut outgoing, &mut table, request).map_err(|error| error.downcast().unwrap()).err();
        match is_refused {
            true => assert!(matches!(refusal, Some(ErrorCode::HttpRequestBodySize(Some(0)))), "{refusal:?}"),
            false => assert!(refusal.is_none(), "{refusal:?}"),
        }
    }
}

#[tokio::test]
async fn response_with_long_headers_is_broken() {
    // Names and values together have 16 bytes more.
    for (length, long) in [(16_368, false), (16_369, true)] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: {}\r\n\r\ntrue", "x".repeat(length));
        let (at, _requests) = record(answer.leak().as_bytes()).await;
        let answer = get(&mut anywhere(), &format!("http://{at}/")).await;
        match long {
            false => assert_eq!(answer.unwrap(), good()),
            true => assert!(matches!(answer, Err(ErrorCode::HttpResponseHeaderSectionSize(Some(16_385)))), "{answer:?}"),
        }
    }
}

#[tokio::test]
async fn truncated_body_is_broken() {
    let (listener, _, cut) = listen().await;
    tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ntrue").await.unwrap();
    });
    let answer = get(&mut anywhere(), &format!("http://{cut}/")).await.unwrap();
    assert_eq!(answer, GuestResponse { broken: true, ..good() });
}

#[tokio::test]
async fn dropped_request_closes_its_connection() {
    let (listener, authority, _) = listen().await;
    let mut outgoing = anywhere();
    let call = tokio::spawn(async move { get(&mut outgoing, &format!("http://{authority}/")).await });
    let mut stream = accept(&listener).await;
    read_request(&mut stream).await;
    call.abort();
    assert_eq!(read_request(&mut stream).await, "");
}

#[tokio::test]
async fn request_is_written_once() {
    let (listener, authority, _) = listen().await;
    let mut outgoing = anywhere();
    let server = tokio::spawn(async move {
        let mut received = Vec::new();
        for answers in [1, 0, 1] {
            let mut stream = accept(&listener).await;
            for _ in 0..answers {
                received.push(read_request(&mut stream).await);
                stream.write_all(OK).await.unwrap();
            }
            // The second connection reads a request and does not answer it: the plugin must find
            // out whether it was carried out.
            if answers == 0 {
                received.push(read_request(&mut stream).await);
            }
        }
        received.len()
    });
    let url = format!("http://{authority}/");
    assert!(put(&mut outgoing, &url).await.is_ok());
    // The server has closed the pooled connection. This request uses another, is read, and gets no
    // response.
    assert!(matches!(put(&mut outgoing, &url).await, Err(ErrorCode::HttpProtocolError)));
    assert!(put(&mut outgoing, &url).await.is_ok());
    assert_eq!(server.await.unwrap(), 3);
}

// Policy

#[tokio::test]
async fn nothing_is_allowed_by_default() {
    let (listener, address, name) = listen().await;
    let mut outgoing = outgoing(allowing(&[]));
    for scheme in ["http", "https", "https+insecure"] {
        for authority in [&address, &name] {
            for code in [
                get(&mut outgoing, &format!("{scheme}://{authority}/")).await.unwrap_err(),
                put(&mut outgoing, &format!("{scheme}://{authority}/")).await.unwrap_err(),
            ] {
                assert!(matches!(code, ErrorCode::HttpRequestDenied), "{code:?}");
                let text = format!(
                    "the host's policy does not allow {authority}: add `--allow {authority}`, or to the configuration file: allow = [\"{authority}\"]"
                );
                assert_eq!(explained(&outgoing, &code, authority), ("denied-by-host", text));
            }
        }
    }
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}

#[tokio::test]
async fn resolved_addresses_are_checked() {
    let (at, _requests) = record(OK).await;
    let (_, port) = at.split_once(':').unwrap();
    let url = format!("http://{at}/");
    let mut network = allowing(&[&at]);
    for rule in ["127.0.0.0/8:*", "[::1]:*"] {
        network.policy.deny(rule.parse().unwrap());
    }
    let mut denied = outgoing(network);
    let code = get(&mut denied, &url).await.unwrap_err();
    assert!(matches!(code, ErrorCode::DestinationIpProhibited), "{code:?}");
    let (case, text) = explained(&denied, &code, &at);
    assert_eq!(case, "denied-by-host");
    assert!(text.starts_with(&format!("the host's policy does not allow {at}, which resolves to ")), "{text}");
    assert!(text.ends_with("of `deny` forbids: take that rule out of `deny`"), "{text}");

    // Allowed by the network alone, and only with its port.
    let mut by_network = outgoing(allowing(&[&format!("127.0.0.0/8:{port}")]));
    assert_eq!(get(&mut by_network, &url).await.unwrap(), good());
    let code = get(&mut by_network, "http://localhost:1/").await.unwrap_err();
    assert!(matches!(code, ErrorCode::HttpRequestDenied));
    let mut other_network = outgoing(allowing(&[&format!("10.0.0.0/8:{port}")]));
    let code = get(&mut other_network, &url).await.unwrap_err();
    assert!(matches!(code, ErrorCode::DestinationIpProhibited), "{code:?}");
}

// Limits

#[tokio::test]
async fn response_size_is_limited() {
    for (answer, at_once) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntrue\n"[..], true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntr\r\n3\r\nue\n\r\n0\r\n\r\n", false),
    ] {
        let (at, _requests) = record(answer).await;
        let http = Http::new(allowing(&["*:*"])).unwrap();
        let url = format!("http://{at}/v1/session/list");
        let mut outgoing = http.outgoing(RequestLimits { response_bytes: 5, ..LIMITS });
        assert_eq!(get(&mut outgoing, &url).await.unwrap().body, b"true\n");
        let mut outgoing = http.outgoing(RequestLimits { response_bytes: 4, ..LIMITS });
        match get(&mut outgoing, &url).await {
            Err(ErrorCode::HttpResponseBodySize(Some(4))) if at_once => {}
            Ok(GuestResponse { broken: true, body, .. }) if !at_once => assert_eq!(body, b"tr"),
            other => panic!("{other:?}"),
        }
        let text = format!(
            "the answer from {at} is larger than 4 B, the host's limit `response`: read the sessions of one node, or raise it with `--limit response=SIZE`"
        );
        let code = ErrorCode::HttpResponseBodySize(None);
        assert_eq!(explained(&outgoing, &code, &at), ("response-too-large", text));
    }
}

#[tokio::test]
async fn requests_in_flight_are_limited() {
    let (listener, at, _) = listen().await;
    let (head, mut heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let mut stream = accept(&listener).await;
            read_request(&mut stream).await;
            // The first half of a body. The test writes the rest.
            stream.write_all(OK.strip_suffix(b"ue").unwrap()).await.unwrap();
            head.send(stream).unwrap();
        }
    });
    let mut outgoing = Http::new(allowing(&["*:*"])).unwrap().outgoing(RequestLimits { in_flight: 2, ..LIMITS });
    let request = || {
        let body = http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
        Request::builder().uri(format!("http://{at}/")).body(body).unwrap()
    };
    let send = |outgoing: &mut Outgoing| Box::into_pin(outgoing.send_request(request(), None, Box::new(async { Ok(()) })));
    // One request without a response yet, and one whose body is not read to the end.
    let waiting = send(&mut outgoing);
    let (response, _) = send(&mut outgoing).await.map_err(|_| ()).unwrap();
    let refused = send(&mut outgoing).await.err();
    assert!(matches!(refused, Some(Code::ConnectionLimitReached)));
    let text = format!(
        "the component had 2 requests under way and wanted another, to {at}: the host's limit `in_flight` ends it; raise it with `--limit in_flight=NUMBER`"
    );
    assert_eq!(explained(&outgoing, &ErrorCode::ConnectionLimitReached, &at), ("unreachable", text));
    // Another instance has its own count.
    let mut other = outgoing.http.outgoing(outgoing.limits);
    assert!(send(&mut other).await.is_ok());

    // Read the body to its end, without dropping it.
    let mut body = response.into_body();
    heads.recv().await.unwrap().write_all(b"ue").await.unwrap();
    while body.frame().await.is_some() {}
    let (response, _) = send(&mut outgoing).await.map_err(|_| ()).unwrap();
    assert!(send(&mut outgoing).await.is_err());
    drop(response);
    let (response, _) = send(&mut outgoing).await.map_err(|_| ()).unwrap();
    assert!(send(&mut outgoing).await.is_err());
    drop(waiting);
    assert!(send(&mut outgoing).await.is_ok());
    drop((response, body));
}

#[tokio::test]
async fn requests_per_call_are_limited() {
    let (at, _requests) = record(OK).await;
    let url = format!("http://{at}/");
    let mut outgoing = Http::new(allowing(&["*:*"])).unwrap().outgoing(RequestLimits { per_call: 2, ..LIMITS });
    for _call in 0..2 {
        outgoing.begin_call();
        assert!(get(&mut outgoing, &url).await.is_ok());
        // Denied requests count too.
        assert!(get(&mut outgoing, &format!("https+insecure://{at}/")).await.is_err());
        assert!(!outgoing.exceeded_requests());
        let code = get(&mut outgoing, &url).await.unwrap_err();
        assert!(matches!(code, ErrorCode::ConnectionLimitReached));
        assert!(outgoing.exceeded_requests());
        let text = format!(
            "the component wanted more than 2 requests in one call, this one to {at}: the host's limit `requests` ends it; raise it with `--limit requests=NUMBER`"
        );
        assert_eq!(explained(&outgoing, &code, &at), ("unreachable", text));
    }
}

// Explanations

#[tokio::test]
async fn explanation_replaces_only_the_error_of_its_failure() {
    let mut outgoing = outgoing(allowing(&[]));
    let denied = || Error::DeniedByHost("no answer from a.example:1: the host's policy does not allow it".into());
    assert_eq!(outgoing.explain(denied()), denied());
    get(&mut outgoing, "http://a.example:1/").await.unwrap_err();
    let text = "the host's policy does not allow a.example:1: add `--allow a.example:1`, or to the configuration file: allow = [\"a.example:1\"]";
    assert_eq!(outgoing.explain(denied()), Error::DeniedByHost(text.into()));
    // The consequences that the plugin reports are kept.
    let consequences = "destroyed: x; not destroyed: y";
    let with_consequences = Error::DeniedByHost(format!("{}; {consequences}", denied().message()));
    assert_eq!(outgoing.explain(with_consequences), Error::DeniedByHost(format!("{text}; {consequences}")));
    let other = || Error::AccessDenied(Refusal { status: 403, message: "consul answered 403".into() });
    assert_eq!(outgoing.explain(other()), other());
    outgoing.begin_call();
    assert_eq!(outgoing.explain(denied()), denied());
    // The next request replaces the explanation.
    let _first = outgoing.send_request(request("http://a.example:1/"), None, Box::new(async { Ok(()) }));
    assert_ne!(outgoing.explain(denied()), denied());
    let _second = outgoing.send_request(request("http://user@a.example:1/"), None, Box::new(async { Ok(()) }));
    assert_eq!(outgoing.explain(denied()), denied());
}

#[tokio::test]
async fn observer_is_called_once_per_request() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let observer = Observer::new(move |exchange| log.lock().unwrap().push(exchange.to_string()));
    let (at, _requests) = record(OK).await;
    let (broken, _requests) = record(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntrue").await;
    let (large, _requests) = record(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n").await;
    let rules = [at.as_str(), &broken, &large];
    let mut outgoing = outgoing(Network { observer, ..allowing(&rules) });
    let free = listen().await.1;
    for url in [
        format!("http://{at}/v1/x?a=%20&b"),
        format!("http://{free}/"),
        format!("http://{large}/"),
        format!("https+insecure://{at}/"),
    ] {
        let headers = [("x-consul-token", "5ecret")];
        let _ = request_as_guest(&mut outgoing, WasiMethod::Put, &url, &headers, b"").await;
    }
    // Dropped before its response arrives.
    let (listener, silent, _) = listen().await;
    let mut elsewhere = super::outgoing(Network { observer: outgoing.http.network.observer.clone(), ..allowing(&["*:*"]) });
    let dropped = async { drop(timeout(Duration::from_millis(50), get(&mut elsewhere, &format!("http://{silent}/"))).await) };
    tokio::join!(dropped, async { drop(accept(&listener).await) });
    let lines: Vec<String> = lines.lock().unwrap().iter().map(|line| line.rsplit_once(", ").unwrap().0.to_owned()).collect();
    assert_eq!(lines[0], format!("PUT http://{at}/v1/x?a=%20&b: 200, 4 B"));
    assert!(lines[1].starts_with(&format!("PUT http://{free}/: the host's policy does not allow {free}: add")), "{}", lines[1]);
    assert!(
        lines[2].starts_with(&format!("PUT http://{large}/: 200, 0 B, the answer from {large} is larger than")),
        "{}",
        lines[2]
    );
    assert!(
        lines[3].starts_with(&format!("PUT https+insecure://{at}/: `validate_certs=false` is not granted")),
        "{}",
        lines[3]
    );
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines[4].starts_with(&format!("GET http://{silent}/: ")), "{}", lines[4]);
    assert!(!lines.concat().contains("5ecret"));
}
