//! Tests of TLS, HTTP/2 and Unix sockets.

use super::*;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_rustls::TlsAcceptor;

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];
const HTTP_2: &str = "h2";
const HTTP_1: &str = "http/1.1";
/// The size of a body that exceeds an HTTP/2 window.
const BIG: usize = 6 << 20;

/// A CA, and a folder for its files.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, both as PEM.
type Identity = (String, String);

impl Ca {
    fn new() -> Ca {
        Ca::named("consul ca")
    }

    fn named(name: &str) -> Ca {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Ca { issuer, folder: TempDir::new().unwrap() }
    }

    fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, name: &str, content: &str) -> Option<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Some(path)
    }

    /// Returns settings that trust this CA.
    fn trusted(&self) -> Tls {
        Tls { ca_file: self.write("ca.pem", &self.issuer.pem()), ..Tls::default() }
    }

    /// Returns settings that trust this CA and have a client certificate.
    fn trusted_with(&self, (cert, key): &Identity) -> Tls {
        Tls { client_cert: self.write("client.pem", cert), client_key: self.write("key.pem", key), ..self.trusted() }
    }
}

/// Returns the configuration of a server that speaks either HTTP/1.1 or HTTP/2.
fn config(
    (cert, key): &Identity,
    client_ca: Option<&Ca>,
    versions: &[&'static SupportedProtocolVersion],
    protocol: &str,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match client_ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    config.alpn_protocols = vec![protocol.into()];
    config
}

/// A running server.
struct Server {
    at: String,
    address: String,
    connections: Arc<AtomicUsize>,
    /// The requests, and `dropped` for each request to `/wait` that the client dropped.
    seen: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(config: ServerConfig) -> Server {
        let (listener, address, at) = listen().await;
        let (sender, seen) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, sender, acceptor) = (accept(&listener).await, sender.clone(), acceptor.clone());
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, sender.clone()));
                    let _ = if stream.get_ref().1.alpn_protocol() == Some(HTTP_2.as_bytes()) {
                        let server = http2::Builder::new(TokioExecutor::new());
                        server.serve_connection(TokioIo::new(stream), service).await
                    } else {
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                    };
                });
            }
        });
        Server { at, address, connections, seen }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn answer(request: Request<Incoming>, seen: mpsc::UnboundedSender<String>) -> Result<Response<Full<Bytes>>, Infallible> {
    struct ReportDrop(mpsc::UnboundedSender<String>);
    impl Drop for ReportDrop {
        fn drop(&mut self) {
            let _ = self.0.send("dropped".into());
        }
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name| parts.headers.get(name).map_or("-", |value: &HeaderValue| value.to_str().unwrap());
    let (host, length) = (header("host"), header("content-length"));
    let text = format!("{} {} {:?} host={host} length={length} {}", parts.method, parts.uri, parts.version, body.len());
    seen.send(text).unwrap();
    match parts.uri.path() {
        "/wait" => {
            let _report = ReportDrop(seen);
            std::future::pending().await
        }
        "/big" => Ok(Response::new(vec![b'x'; BIG].into())),
        _ => Ok(Response::new("true".into())),
    }
}

/// Sends `count` PUT requests at once, each from an instance of its own.
async fn put_concurrently(http: &Http, count: usize, url: &str) -> Vec<Result<GuestResponse, ErrorCode>> {
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (mut outgoing, url) = (http.outgoing(LIMITS), url.to_owned());
            tokio::spawn(async move { put(&mut outgoing, &url).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

fn trusting(tls: Tls) -> Network {
    Network { tls, ..allowing(&["*:*"]) }
}

// Certificates

#[tokio::test]
async fn certificates_are_verified() {
    let (ca, recreated, other) = (Ca::new(), Ca::new(), Ca::named("other"));
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for protocol in [HTTP_1, HTTP_2] {
            let server = async |identity: Identity| Server::start(config(&identity, None, versions, protocol)).await;
            let check = async |tls: Tls, at: &str| {
                let mut outgoing = outgoing(trusting(tls));
                let result = get(&mut outgoing, &format!("https://{at}/")).await;
                match result {
                    Ok(answer) => Ok(answer),
                    Err(code) => {
                        assert!(matches!(code, ErrorCode::TlsCertificateError), "{code:?}");
                        let (case, text) = explained(&outgoing, &code, at);
                        assert_eq!(case, "tls");
                        Err(text)
                    }
                }
            };
            let right = server(ca.issue(&["localhost"])).await;
            let (at, address) = (&right.at, &right.address);
            assert_eq!(check(ca.trusted(), at).await, Ok(good()));
            let name = |name: &str| Tls { server_name: Some(name.into()), ..ca.trusted() };
            assert_eq!(check(name("localhost"), address).await, Ok(good()));
            let unknown = format!(
                "the certificate of {at} is not signed by a CA that this host trusts: give the CA's certificate with `--ca-file FILE` (CONSUL_CACERT)"
            );
            assert_eq!(check(other.trusted(), at).await, Err(unknown.clone()));
            assert_eq!(check(recreated.trusted(), at).await, Err(unknown.clone()));
            assert_eq!(check(Tls { platform_roots: Some(false), ..Tls::default() }, at).await, Err(unknown));
            let wrong = |at: &str, names: &str, expected: &str| {
                Err(format!(
                    "the certificate of {at} is for {names}, not for {expected}: set `host` to a name that it is for, or say which to expect with `--tls-server-name NAME` (CONSUL_TLS_SERVER_NAME)"
                ))
            };
            assert_eq!(check(ca.trusted(), address).await, wrong(address, "localhost", "127.0.0.1"));
            assert_eq!(check(name("server.dc1.consul"), at).await, wrong(at, "localhost", "server.dc1.consul"));
            let several = server(ca.issue(&["server.dc1.consul", "127.0.0.2"])).await;
            assert_eq!(check(ca.trusted(), &several.at).await, wrong(&several.at, "server.dc1.consul, 127.0.0.2", "localhost"));
            let nameless = server(ca.issue(&[])).await;
            assert_eq!(check(ca.trusted(), &nameless.at).await, wrong(&nameless.at, "no name at all", "localhost"));

            let expired = server(ca.issue_with(&["localhost"], |params| params.not_after = date_time_ymd(2000, 1, 1))).await;
            let text = check(ca.trusted(), &expired.at).await.unwrap_err();
            let days = text
                .strip_prefix(&format!("the certificate of {}, or of its CA, expired ", expired.at))
                .and_then(|text| text.strip_suffix(" days ago: have it renewed, and check this machine's clock"));
            assert!(days.is_some_and(|days| days.parse::<u32>().unwrap() > 9_000), "{text}");
            let future = server(ca.issue_with(&["localhost"], |params| params.not_before = date_time_ymd(4000, 1, 1))).await;
            let text = check(ca.trusted(), &future.at).await.unwrap_err();
            let days = text
                .strip_prefix(&format!("the certificate of {}, or of its CA, is not valid yet, but in ", future.at))
                .and_then(|text| text.strip_suffix(" days: check this machine's clock"));
            assert!(days.is_some_and(|days| days.parse::<u32>().unwrap() > 700_000), "{text}");
            let client_only = |params: &mut CertificateParams| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            };
            let client_only = server(ca.issue_with(&["localhost"], client_only)).await;
            let text = check(ca.trusted(), &client_only.at).await.unwrap_err();
            assert!(text.starts_with(&format!("the certificate of {} is not for servers: ", client_only.at)), "{text}");
        }
    }
}

/// In TLS 1.3 the server refuses the client after the handshake, while the request is sent. The
/// order varies, so the test repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_client_certificates_are_explained() {
    let (ca, other) = (Ca::new(), Ca::named("other"));
    let right = ca.trusted_with(&ca.issue(&[]));
    let flags = "`--client-cert FILE --client-key FILE` (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY)";
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for protocol in [HTTP_1, HTTP_2] {
            let server = Server::start(config(&ca.issue(&["localhost"]), Some(&ca), versions, protocol)).await;
            let at = &server.at;
            let url = format!("https://{at}/");
            let mut accepted = outgoing(trusting(right.clone()));
            assert_eq!(put(&mut accepted, &url).await.unwrap(), good());
            let (cert, key) = other.issue(&[]);
            let foreign =
                Tls { client_cert: other.write("client.pem", &cert), client_key: other.write("key.pem", &key), ..ca.trusted() };
            for (tls, expected) in [
                (ca.trusted(), format!("{at} wants a client certificate (CertificateRequired): give one with {flags}")),
                (foreign, format!("{at} refused the client certificate (UnknownCA): give one that its CA signed with {flags}")),
            ] {
                let http = Http::new(trusting(tls)).unwrap();
                for _ in 0..20 {
                    let mut outgoing = http.outgoing(LIMITS);
                    let code = put(&mut outgoing, &url).await.unwrap_err();
                    assert!(matches!(code, ErrorCode::TlsAlertReceived(_)), "{protocol} {code:?}");
                    assert_eq!(explained(&outgoing, &code, at), ("tls", expected.clone()));
                }
                // Concurrent requests may wait for one connection on HTTP/2. Those that waited for
                // the connection of another request do not get the alert, but a code that says that
                // nothing was sent.
                for answer in put_concurrently(&http, 4, &url).await {
                    let code = answer.unwrap_err();
                    let known = matches!(code, ErrorCode::TlsAlertReceived(_) | ErrorCode::DestinationUnavailable);
                    assert!(known, "{protocol} {code:?}");
                }
            }
        }
    }
}

/// An alert after a response does not prove that a later request was not carried out.
#[tokio::test]
async fn alert_after_a_response_is_not_a_refusal() {
    let ca = Ca::new();
    let server = Server::start(config(&ca.issue(&["localhost"]), None, BOTH, HTTP_2)).await;
    let mut outgoing = outgoing(trusting(ca.trusted()));
    let sent = outgoing.send_request(request(&format!("https://{}/", server.at)), None, Box::new(async { Ok(()) }));
    let (response, _) = Box::into_pin(sent).await.map_err(|_| ()).unwrap();
    let state = response.extensions().get::<ConnectionState>().unwrap();
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
    state.record_alert(&std::io::Error::other(alert));
    assert!(state.refusal().is_none());
}

#[tokio::test]
async fn peers_without_tls_are_explained() {
    let mut outgoing = anywhere();
    let silent = "the server at AT does not speak TLS: check `port`, or give `scheme=http`";
    let cut =
        "AT cut the TLS handshake off: check `port`, whether it speaks TLS (else `scheme=http`), and whether the agent is well";
    for (answer, expected) in [(OK, silent), (b"HTTP/1.1 400 Bad Request\r\n\r\n", silent), (b"", cut)] {
        let (listener, _, at) = listen().await;
        let server = tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            stream.read_u8().await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let code = get(&mut outgoing, &format!("https://{at}/")).await.unwrap_err();
        assert!(matches!(code, ErrorCode::TlsProtocolError), "{answer:?} {code:?}");
        assert_eq!(explained(&outgoing, &code, &at), ("tls", expected.replace("AT", &at)));
        server.await.unwrap();
    }
}

/// The clock is paused, and advances when every task is idle.
#[tokio::test(start_paused = true)]
async fn handshake_has_a_deadline() {
    let (_listener, at, _) = listen().await;
    let mut outgoing = anywhere();
    let begin = tokio::time::Instant::now();
    let code = get(&mut outgoing, &format!("https://{at}/")).await.unwrap_err();
    assert!(matches!(code, ErrorCode::DestinationUnavailable));
    assert_eq!(begin.elapsed().as_secs(), 10);
    let text = format!(
        "{at} accepted the connection, but no TLS handshake within 10s, so that nothing was sent: check whether it speaks TLS (else `scheme=http`), and whether the agent is well"
    );
    assert_eq!(explained(&outgoing, &code, &at), ("unreachable", text));
}

// HTTP/2

#[tokio::test]
async fn http2_requests_share_a_connection() {
    let ca = Ca::new();
    let mut server = Server::start(config(&ca.issue(&["localhost"]), None, BOTH, HTTP_2)).await;
    let at = server.at.clone();
    let http = Http::new(trusting(ca.trusted())).unwrap();
    let url = format!("https://{at}/v1/session/create?dc=dc1");
    let expected = format!("PUT {url} HTTP/2.0 host={at} length=4 4");
    assert_eq!(put(&mut http.outgoing(LIMITS), &url).await.unwrap(), good());
    assert_eq!(server.seen.recv().await.unwrap(), expected);
    for answer in put_concurrently(&http, 20, &url).await {
        assert_eq!(answer.unwrap(), good());
        assert_eq!(server.seen.recv().await.unwrap(), expected);
    }
    let mut large = http.outgoing(RequestLimits { response_bytes: BIG as u64, ..LIMITS });
    let answer = get(&mut large, &format!("https://{at}/big")).await.unwrap();
    assert_eq!((answer.body.len(), answer.broken), (BIG, false));
    let code = get(&mut http.outgoing(LIMITS), &format!("https://{at}/big")).await.unwrap_err();
    assert!(matches!(code, ErrorCode::HttpResponseBodySize(_)));
    assert_eq!(server.connections(), 1);
}

/// Concurrent first requests each open a connection, of which one is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_requests_succeed() {
    let ca = Ca::new();
    for protocol in [HTTP_1, HTTP_2] {
        for _ in 0..10 {
            let server = Server::start(config(&ca.issue(&["localhost"]), None, BOTH, protocol)).await;
            let http = Http::new(trusting(ca.trusted())).unwrap();
            for answer in put_concurrently(&http, 20, &format!("https://{}/", server.at)).await {
                assert_eq!(answer.unwrap(), good());
            }
        }
    }
}

#[tokio::test]
async fn dropped_request_resets_its_stream() {
    let ca = Ca::new();
    let mut server = Server::start(config(&ca.issue(&["localhost"]), None, BOTH, HTTP_2)).await;
    let http = Http::new(trusting(ca.trusted())).unwrap();
    let (mut outgoing, url) = (http.outgoing(LIMITS), format!("https://{}/wait", server.at));
    let call = tokio::spawn(async move { get(&mut outgoing, &url).await });
    assert!(server.seen.recv().await.unwrap().contains("/wait"));
    call.abort();
    assert_eq!(server.seen.recv().await.unwrap(), "dropped");
    // Other requests on the connection are not affected.
    assert_eq!(get(&mut http.outgoing(LIMITS), &format!("https://{}/", server.at)).await.unwrap(), good());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn silent_http2_connection_times_out() {
    let ca = Ca::new();
    let (listener, _, at) = listen().await;
    let acceptor = TlsAcceptor::from(Arc::new(config(&ca.issue(&["localhost"]), None, BOTH, HTTP_2)));
    let server = tokio::spawn(async move {
        let mut stream = acceptor.accept(accept(&listener).await).await.unwrap();
        // Empty settings, and nothing after that.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&buffer).contains("body") {
            assert_ne!(stream.read(&mut buffer).await.unwrap(), 0);
        }
        // The paused clock advances when every task is idle.
        tokio::time::pause();
        std::future::pending::<()>().await;
    });
    let mut outgoing = outgoing(trusting(ca.trusted()));
    let code = put(&mut outgoing, &format!("https://{at}/")).await.unwrap_err();
    assert!(matches!(code, ErrorCode::ConnectionReadTimeout), "{code:?}");
    server.abort();
}

// Without verification

#[tokio::test]
async fn insecure_is_granted_per_authority() {
    let (ca, other) = (Ca::new(), Ca::new());
    for protocol in [HTTP_1, HTTP_2] {
        let expired = ca.issue_with(&["other.example"], |params| params.not_after = date_time_ymd(2000, 1, 1));
        let mut server = Server::start(config(&expired, None, BOTH, protocol)).await;
        let at = server.at.clone();
        let (verified, insecure) = (format!("https://{at}/"), format!("https+insecure://{at}/"));
        for rules in [&[][..], &["localhost:1"], &["*.localhost:*"]] {
            let insecure_rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            let mut outgoing = outgoing(Network { insecure: insecure_rules, ..trusting(other.trusted()) });
            let code = get(&mut outgoing, &insecure).await.unwrap_err();
            assert!(matches!(code, ErrorCode::HttpRequestDenied));
            let text = format!(
                "`validate_certs=false` is not granted for {at}: add `--insecure {at}`, or to the configuration file: insecure = [\"{at}\"]"
            );
            assert_eq!(explained(&outgoing, &code, &at), ("denied-by-host", text));
        }
        assert_eq!(server.connections(), 0);
        let insecure_rules = vec![at.parse().unwrap()];
        let mut outgoing = outgoing(Network { insecure: insecure_rules, ..trusting(other.trusted()) });
        assert_eq!(get(&mut outgoing, &insecure).await.unwrap(), good());
        // The server sees `https`.
        let seen = server.seen.recv().await.unwrap();
        let uri = if protocol == HTTP_2 { format!("https://{at}/ HTTP/2.0") } else { "/ HTTP/1.1".to_owned() };
        assert_eq!(seen, format!("GET {uri} host={at} length=0 0"));
        // A verified request still fails.
        assert!(matches!(get(&mut outgoing, &verified).await, Err(ErrorCode::TlsCertificateError)));
        // It does not allow a connection.
        let mut nowhere = super::outgoing(Network { insecure: vec!["*:*".parse().unwrap()], ..allowing(&[]) });
        assert!(matches!(get(&mut nowhere, &insecure).await, Err(ErrorCode::HttpRequestDenied)));
    }
}

#[tokio::test]
async fn verified_and_insecure_requests_share_no_connection() {
    let ca = Ca::new();
    for protocol in [HTTP_1, HTTP_2] {
        for first in ["https", "https+insecure"] {
            let second = if first == "https" { "https+insecure" } else { "https" };
            let server = Server::start(config(&ca.issue(&["localhost"]), None, BOTH, protocol)).await;
            let insecure = vec!["localhost:*".parse().unwrap()];
            let mut outgoing = outgoing(Network { insecure, ..trusting(ca.trusted()) });
            for (scheme, connections) in [(first, 1), (first, 1), (second, 2), (second, 2), (first, 2)] {
                assert_eq!(get(&mut outgoing, &format!("{scheme}://{}/", server.at)).await.unwrap(), good());
                assert_eq!(server.connections(), connections, "{protocol} {first} {scheme}");
            }
        }
    }
}

// Unix sockets

#[tokio::test]
async fn unix_socket_replaces_the_authority() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("consul.sock");
    let allowed = format!("unix://{}", path.display());
    let network = |rules: &[&str]| Network {
        sockets: vec![("localhost:8500".parse().unwrap(), path.clone())],
        // The token is not for plain HTTP over a network.
        secrets: vec![SecretRule { over_http: false, ..token("localhost:8500", "secret") }],
        ..allowing(rules)
    };
    let url = "http://localhost:8500/v1/agent/self";
    let mut outgoing = outgoing(network(&[&allowed]));
    let failed = async |outgoing: &mut Outgoing, expected: &str| {
        let code = get(outgoing, url).await.unwrap_err();
        let name = format!("{code:?}");
        let (case, text) = explained(outgoing, &code, "localhost:8500");
        let expected = expected.replace("PATH", &path.display().to_string());
        assert_eq!((case, text), (if name.contains("Denied") { "denied-by-host" } else { "unreachable" }, expected));
        name
    };
    let missing = "the Unix socket PATH (for localhost:8500) does not exist: check the path, and whether the agent runs";
    assert!(failed(&mut outgoing, missing).await.contains("DestinationUnavailable"));
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let first = read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        let second = read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        (first, second)
    });
    assert_eq!(get(&mut outgoing, url).await.unwrap(), good());
    assert_eq!(get(&mut outgoing, "http://LOCALHOST:8500/v1/acl/token/self").await.unwrap(), good());
    let (first, second) = server.await.unwrap();
    assert_eq!(
        first,
        "GET /v1/agent/self HTTP/1.1\r\nhost: localhost:8500\r\ncontent-length: 0\r\nx-consul-token: secret\r\n\r\n"
    );
    assert_eq!(second, "GET /v1/acl/token/self HTTP/1.1\r\nhost: LOCALHOST:8500\r\ncontent-length: 0\r\n\r\n");
    // The file still exists, but nothing listens on it.
    let dead = "nothing listens on the Unix socket PATH (for localhost:8500): check whether the agent runs";
    assert!(failed(&mut outgoing, dead).await.contains("ConnectionRefused"));
    // A rule must allow the socket. A rule for the authority does not count.
    let mut outgoing = super::outgoing(network(&["*:*"]));
    let denied = "the host's policy does not allow unix://PATH: add `--allow unix://PATH`, or to the configuration file: allow = [\"unix://PATH\"]";
    assert!(failed(&mut outgoing, denied).await.contains("HttpRequestDenied"));
}

#[tokio::test]
async fn tls_works_over_a_unix_socket() {
    let ca = Ca::new();
    let path = ca.folder.path().join("consul.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config(&ca.issue(&["localhost"]), None, BOTH, HTTP_1)));
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        }
    });
    let rule = format!("unix://{}", path.display());
    let long = format!("{}:1", "a".repeat(64));
    let sockets = vec![("localhost:8501".parse().unwrap(), path.clone()), (long.parse().unwrap(), path)];
    let mut outgoing = outgoing(Network { sockets, tls: ca.trusted(), ..allowing(&[&rule]) });
    assert_eq!(get(&mut outgoing, "https://localhost:8501/").await.unwrap(), good());
    // No certificate can be valid for this host.
    let code = get(&mut outgoing, &format!("https://{long}/")).await.unwrap_err();
    assert!(matches!(code, ErrorCode::TlsCertificateError));
    let text = format!(
        "no certificate can be for the host of {long}: say which name to expect with `--tls-server-name NAME` (CONSUL_TLS_SERVER_NAME)"
    );
    assert_eq!(explained(&outgoing, &code, &long), ("tls", text));
    // Another port of the same name is not mapped.
    let code = get(&mut outgoing, "https://localhost:8502/").await.unwrap_err();
    assert!(matches!(code, ErrorCode::HttpRequestDenied));
}
