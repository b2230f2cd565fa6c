//! Outgoing HTTP for the plugin: the requests of all instances over one client with one pool of connections.
//!
//! What the plugin asks for is what is sent: no redirect is followed, no proxy used, nothing decompressed.

use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Bound on finding the address, connecting and the TLS handshake together. The plugin has a deadline of its own, but a
/// connection that is being opened may go on in the background, to serve the next request, after the plugin gave up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many unused connections are kept for each authority. Consul accepts 200 from one address by default.
const MAX_IDLE: usize = 64;

type Connector = Bounded<HttpsConnector<HttpConnector<Resolver>>>;
type SendResult = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// The `wasi:http` of all instances. Clones share the pool.
#[derive(Clone)]
pub struct Http {
    client: Client<Connector, WasiBody>,
}

impl Http {
    /// Trusts the platform's root certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub fn new() -> wasmtime::Result<Http> {
        let mut roots = RootCertStore::empty();
        // A machine without root certificates can still speak plain HTTP; https then fails with a certificate error.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Http::with_roots(roots)
    }

    fn with_roots(roots: RootCertStore) -> wasmtime::Result<Http> {
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            // Safe for a PUT: only a request of which no byte was written, because the reused connection turned out to
            // be closed, is sent again on another connection. One that was begun fails, and the plugin looks whether
            // it happened. Without this, the first request after a restart of the agent could fail.
            .retry_canceled_requests(true)
            .build(Bounded(HttpsConnector::from((tcp, tls))));
        Ok(Http { client })
    }
}

impl WasiHttpHooks for Http {
    // `is_supported_scheme` stays wasmtime's: http and https. For any other the guest gets `HTTP-protocol-error`.
    // `set_host_header` too: `Host` is the authority, as the guest wrote it.

    /// Dropping the future, as wasmtime does when the guest drops its handle of the response, or ends, makes hyper close
    /// the connection: an unread answer can then be no other request's.
    ///
    /// Timeouts in `_options` are not applied: the plugin sets none, since its own deadline covers the whole call.
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let https = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let response = self.client.request(request);
        Box::new(async move {
            let response = response.await.map_err(|error| error_code(&error, error.is_connect(), https))?;
            let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
            Ok((response, Box::new(async { Ok(()) }) as Box<_>))
        })
    }
}

/// The `wasi:http` error code that says most about a request that got no response. `connecting`: it failed before there was
/// a connection.
fn error_code(error: &(dyn StdError + 'static), connecting: bool, https: bool) -> Error {
    if let Some(LookupError(cause)) = find(error) {
        return Error::DnsError { rcode: Some(cause.to_string()), info_code: None };
    }
    if find::<tokio::time::error::Elapsed>(error).is_some() {
        return Error::ConnectionTimeout;
    }
    match find::<rustls::Error>(error) {
        Some(rustls::Error::AlertReceived(alert)) if connecting || refuses_client(*alert) => {
            return Error::TlsAlertReceived { alert_id: Some((*alert).into()), alert_message: Some(format!("{alert:?}")) };
        }
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) if connecting => {
            return Error::TlsCertificateError;
        }
        Some(_) if connecting => return Error::TlsProtocolError,
        _ => {}
    }
    if !connecting {
        // The peer closed the connection, or what it sent is no HTTP. The request may have been carried out.
        return Error::HttpProtocolError;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
        Some(ErrorKind::TimedOut) => Error::ConnectionTimeout,
        // TCP was connected, the handshake was cut off.
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) if https => Error::TlsProtocolError,
        _ => Error::DestinationUnavailable,
    }
}

/// Whether the peer will not have this client's certificate, or wants one. In TLS 1.3 that comes after the handshake, when
/// the request is on its way already, but before it is read.
fn refuses_client(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
    )
}

/// The innermost error of type `T` in the chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let causes = std::iter::successors(Some(error), |&error| {
        // An `io::Error` around another error is transparent: its `source` is the other's source, not the other.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    });
    causes.filter_map(|error| error.downcast_ref()).last()
}

/// Bounds the time that `C` takes to connect.
#[derive(Clone)]
struct Bounded<C>(C);

impl<C: Service<http::Uri>> Service<http::Uri> for Bounded<C>
where
    C::Future: Send + 'static,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = C::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let connection = self.0.call(uri);
        Box::pin(async move { tokio::time::timeout(CONNECT_TIMEOUT, connection).await?.map_err(Into::into) })
    }
}

/// The system's resolver, with errors that can be told from those of connecting.
#[derive(Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, LookupError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        self.0.poll_ready(context).map_err(LookupError)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = self.0.call(name);
        Box::pin(async move { addresses.await.map_err(LookupError) })
    }
}

/// A name could not be resolved.
#[derive(Debug)]
struct LookupError(io::Error);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for LookupError {}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::Bytes;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use wasmtime::component::{Resource, ResourceTable};
    use wasmtime_wasi::p2::Pollable as _;
    use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
    use wasmtime_wasi_http::p2::bindings::http::types::{
        ErrorCode, HostFields as _, HostFutureIncomingResponse, HostIncomingBody as _, HostIncomingResponse as _,
        HostOutgoingBody, HostOutgoingRequest, Method, Scheme,
    };
    use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView};

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";

    /// Sends a request through the functions of `wasi:http` that a guest calls, in the order in which the plugin calls
    /// them. Answers with what the guest sees.
    async fn send(
        http: &Http,
        (method, scheme, authority, path): (Method, &str, &str, &str),
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), ErrorCode> {
        let (mut table, mut ctx, mut hooks) = (ResourceTable::new(), WasiHttpCtx::new(), http.clone());
        let mut wasi = WasiHttpCtxView { hooks: &mut hooks, table: &mut table, ctx: &mut ctx };
        let length = body.len().to_string().into_bytes();
        let headers = wasi.from_list(vec![("content-length".into(), length)]).unwrap();
        let request = HostOutgoingRequest::new(&mut wasi, headers).unwrap();
        let same = || Resource::new_borrow(request.rep());
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => Scheme::Other(other.into()),
        };
        wasi.set_method(same(), method).unwrap().unwrap();
        wasi.set_scheme(same(), Some(scheme)).unwrap().unwrap();
        wasi.set_authority(same(), Some(authority.into())).unwrap().unwrap();
        wasi.set_path_with_query(same(), Some(path.into())).unwrap().unwrap();
        let outgoing = wasi.body(same()).unwrap().unwrap();
        let future = wasi.handle(request, None).map_err(|error| error.downcast().unwrap())?;
        let stream = wasi.write(Resource::new_borrow(outgoing.rep())).unwrap().unwrap();
        if !body.is_empty() {
            let stream = wasi.table.get_mut(&stream).unwrap();
            stream.write_ready().await.unwrap();
            stream.write(Bytes::copy_from_slice(body)).unwrap();
        }
        wasi.table.delete(stream).unwrap();
        HostOutgoingBody::finish(&mut wasi, outgoing, None).unwrap();

        wasi.table.get_mut(&future).unwrap().ready().await;
        let response = HostFutureIncomingResponse::get(&mut wasi, future).unwrap().unwrap().unwrap()?;
        let status = wasi.status(Resource::new_borrow(response.rep())).unwrap();
        let incoming = wasi.consume(response).unwrap().unwrap();
        let stream = wasi.stream(incoming).unwrap().unwrap();
        let mut content = Vec::new();
        loop {
            let stream = wasi.table.get_mut(&stream).unwrap();
            stream.ready().await;
            match stream.read(4096) {
                Ok(bytes) => content.extend_from_slice(&bytes),
                Err(_closed) => return Ok((status, content)),
            }
        }
    }

    /// Reads a request up to the end of its body; empty if the peer closed.
    async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut text = String::new();
        loop {
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    return text;
                }
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await.unwrap() {
                0 => return String::new(),
                n => text.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
            }
        }
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        (listener, authority)
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        listener.accept().await.unwrap().0
    }

    #[tokio::test]
    async fn request_is_sent_as_written() {
        let (listener, authority) = listen().await;
        // A name keeps its spelling in `Host`, whatever address it has.
        let authority = authority.replace("127.0.0.1", "localhost");
        let http = Http::new().unwrap();
        let server = tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            let first = read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            // The same connection: there is no second `accept`.
            let second = read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            (first, second)
        });
        let path = "/v1/session/create?dc=dc1&x=%2F";
        let answer = send(&http, (Method::Put, "http", &authority, path), b"{\"Name\":\"a\"}").await;
        assert_eq!(answer.unwrap(), (200, b"true".to_vec()));
        let answer = send(&http.clone(), (Method::Put, "http", &authority, "/v1/session/renew/x"), b"").await;
        assert_eq!(answer.unwrap(), (200, b"true".to_vec()));
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
    async fn redirect_is_not_followed() {
        let (listener, authority) = listen().await;
        let server = tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            read_request(&mut stream).await;
            let answer = "HTTP/1.1 301 Moved Permanently\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            read_request(&mut stream).await
        });
        let http = Http::new().unwrap();
        let answer = send(&http, (Method::Get, "http", &authority, "/"), b"").await;
        assert_eq!(answer.unwrap().0, 301);
        drop(http);
        assert_eq!(server.await.unwrap(), "");
    }

    #[tokio::test]
    async fn errors_are_told_apart() {
        let http = Http::new().unwrap();
        let free = listen().await.1;
        let error =
            async |scheme: &str, authority: &str| send(&http, (Method::Get, scheme, authority, "/"), b"").await.unwrap_err();
        assert!(matches!(error("http", &free).await, ErrorCode::ConnectionRefused));
        assert!(matches!(error("https", &free).await, ErrorCode::ConnectionRefused));
        assert!(matches!(error("http", "name.invalid:1").await, ErrorCode::DnsError(_)));
        for scheme in ["https+insecure", "unix", "ftp"] {
            assert!(matches!(error(scheme, &free).await, ErrorCode::HttpProtocolError), "{scheme}");
        }
        for answer in ["", "HTTP/1.1 200", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            let (listener, authority) = listen().await;
            let server = tokio::spawn(async move {
                let mut stream = accept(&listener).await;
                read_request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            assert!(matches!(error("http", &authority).await, ErrorCode::HttpProtocolError), "{answer:?}");
            server.await.unwrap();
        }
        // A server that speaks no TLS, and one that closes at once.
        for answer in [OK, b""] {
            let (listener, authority) = listen().await;
            let server = tokio::spawn(async move {
                let mut stream = accept(&listener).await;
                stream.read_u8().await.unwrap();
                stream.write_all(answer).await.unwrap();
            });
            assert!(matches!(error("https", &authority).await, ErrorCode::TlsProtocolError), "{answer:?}");
            server.await.unwrap();
        }
    }

    /// What a test cannot provoke on every machine.
    #[test]
    fn errors_of_the_network() {
        let code = |kind: ErrorKind, connecting| error_code(&io::Error::from(kind), connecting, false);
        assert!(matches!(code(ErrorKind::NetworkUnreachable, true), Error::DestinationUnavailable));
        assert!(matches!(code(ErrorKind::HostUnreachable, true), Error::DestinationUnavailable));
        assert!(matches!(code(ErrorKind::TimedOut, true), Error::ConnectionTimeout));
        assert!(matches!(code(ErrorKind::TimedOut, false), Error::HttpProtocolError));
        // After the handshake, only what refuses this client says that the request was not carried out.
        let alert = |alert, connecting| {
            let error = io::Error::other(io::Error::other(rustls::Error::AlertReceived(alert)));
            error_code(&error, connecting, true)
        };
        let required = alert(AlertDescription::CertificateRequired, false);
        assert!(matches!(required, Error::TlsAlertReceived { alert_id: Some(116), .. }));
        assert!(matches!(alert(AlertDescription::InternalError, false), Error::HttpProtocolError));
        assert!(matches!(alert(AlertDescription::InternalError, true), Error::TlsAlertReceived { .. }));
    }

    #[tokio::test]
    async fn certificates_are_verified() {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let certificate: CertificateDer<'static> = cert.der().clone();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            loop {
                if let Ok(mut stream) = tls.accept(accept(&listener).await).await {
                    read_request(&mut stream).await;
                    stream.write_all(OK).await.unwrap();
                }
            }
        });
        let by_name = address.replace("127.0.0.1", "localhost");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let trusting = Http::with_roots(roots).unwrap();
        let answer = send(&trusting, (Method::Get, "https", &by_name, "/"), b"").await;
        assert_eq!(answer.unwrap(), (200, b"true".to_vec()));
        let wrong_name = send(&trusting, (Method::Get, "https", &address, "/"), b"").await;
        assert!(matches!(wrong_name, Err(ErrorCode::TlsCertificateError)));
        let unknown_issuer = send(&Http::new().unwrap(), (Method::Get, "https", &by_name, "/"), b"").await;
        assert!(matches!(unknown_issuer, Err(ErrorCode::TlsCertificateError)));
    }

    /// The clock is paused, and runs on when nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn handshake_is_bounded() {
        let (_listener, authority) = listen().await;
        let answer = send(&Http::new().unwrap(), (Method::Get, "https", &authority, "/"), b"").await;
        assert!(matches!(answer, Err(ErrorCode::ConnectionTimeout)));
    }

    #[tokio::test]
    async fn abandoned_request_closes_its_connection() {
        let (listener, authority) = listen().await;
        let http = Http::new().unwrap();
        let call = tokio::spawn({
            let http = http.clone();
            async move { send(&http, (Method::Get, "http", &authority, "/"), b"").await }
        });
        let mut stream = accept(&listener).await;
        read_request(&mut stream).await;
        call.abort();
        assert_eq!(read_request(&mut stream).await, "");
    }

    #[tokio::test]
    async fn a_request_is_written_once() {
        let (listener, authority) = listen().await;
        let http = Http::new().unwrap();
        let server = tokio::spawn(async move {
            let mut received = Vec::new();
            for answers in [1, 0, 1] {
                let mut stream = accept(&listener).await;
                for _ in 0..answers {
                    received.push(read_request(&mut stream).await);
                    stream.write_all(OK).await.unwrap();
                }
                // Two of three are read and not answered: whether they happened is for the plugin to find out.
                if answers == 0 {
                    received.push(read_request(&mut stream).await);
                }
            }
            received.len()
        });
        let put = || send(&http, (Method::Put, "http", &authority, "/"), b"body");
        assert!(put().await.is_ok());
        // The server has closed the pooled connection; this one goes out on another, is read, and gets no answer.
        assert!(matches!(put().await, Err(ErrorCode::HttpProtocolError)));
        assert!(put().await.is_ok());
        assert_eq!(server.await.unwrap(), 3);
    }
}
