//! Opening connections: resolves the name, asks the policy, connects, and does the TLS handshake.

use super::Network;
use super::explain::{Failure, is_about_client, rustls_error};
use super::tls::MakeConfig;
use crate::policy::{Authority, Policy};
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::Ready;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// The deadline for resolving, connecting and the TLS handshake together. The plugin has its own
/// deadline, but after that a connection may still be opened in the background, for the next
/// request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many names the host looks up at once.
const MAX_LOOKUPS: usize = 32;

tokio::task_local! {
    /// The last connection that the request of this task opened. A connection that ends before
    /// hyper's handshake leaves no other trace.
    pub(crate) static LAST_CONNECTION: RefCell<Option<ConnectionState>>;
    /// The permits for lookups of the instance whose request this is.
    pub(crate) static LOOKUPS: Arc<Semaphore>;
}

/// Looks up the addresses of names.
///
/// A lookup takes a thread, and cannot be cancelled. So its permits are returned when the lookup
/// ends, not when its request is dropped: a component that sends requests and drops them takes no
/// more threads than one that waits for them.
#[derive(Clone)]
pub(crate) struct Resolver {
    resolve: Arc<Resolve>,
    permits: Arc<Semaphore>,
}

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

impl Resolver {
    /// Returns a resolver that looks up names by this function, which may block.
    pub(crate) fn new(resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Resolver {
        Resolver { resolve: Arc::new(resolve), permits: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    /// Looks up a name, once the instance and the host have a permit for it.
    async fn look_up(&self, name: String, port: u16, instance: Option<Arc<Semaphore>>) -> io::Result<Vec<SocketAddr>> {
        const OPEN: &str = "the semaphore is never closed";
        // That of the instance first: one that waits for it must not take from the others.
        let of_instance = match instance {
            Some(permits) => Some(permits.acquire_owned().await.expect(OPEN)),
            None => None,
        };
        let of_host = Arc::clone(&self.permits).acquire_owned().await.expect(OPEN);
        let resolve = Arc::clone(&self.resolve);
        let lookup = tokio::task::spawn_blocking(move || {
            let _permits = (of_instance, of_host);
            resolve(&name, port)
        });
        lookup.await.map_err(io::Error::other)?
    }
}

/// The resolver of the system.
impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new(|name, port| Ok((name, port).to_socket_addrs()?.collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Opens the connections of one client, with or without verification of certificates.
///
/// A single pointer, since hyper clones it for each request, even if a connection is available.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    network: Arc<Network>,
    tls: LazyLock<TlsConnector, Box<dyn FnOnce() -> TlsConnector + Send>>,
    /// The name that certificates are verified against, in place of the authority's.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    /// Returns a connector that offers HTTP/2 and HTTP/1.1 over TLS.
    pub(crate) fn new(network: Arc<Network>, make_config: MakeConfig, server_name: Option<ServerName<'static>>) -> Connector {
        let tls = move || {
            let mut tls = make_config();
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(tls))
        };
        Connector(Arc::new(Inner { network, tls: LazyLock::new(Box::new(tls)), server_name }))
    }
}

impl Inner {
    /// Opens a connection for a request to `uri`.
    async fn open(
        &self,
        uri: &Uri,
        lookups: Option<Arc<Semaphore>>,
        state: ConnectionState,
        alive: AliveGuard,
    ) -> Result<Stream, Failure> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let authority = Authority::of(uri).map_err(|_| Failure::Uri)?;
        // A name with a final dot is absolute: the resolver must not try it below other domains.
        let absolute = uri.host().is_some_and(|host| host.ends_with('.'));
        let io = timeout_at(deadline, self.dial(&authority, absolute, lookups))
            .await
            .map_err(|_| Failure::ConnectTimeout(CONNECT_TIMEOUT))??;
        if uri.scheme() == Some(&http::uri::Scheme::HTTP) {
            return Ok(Stream { io: TokioIo::new(io), tls: false, h2: false, write_error: None, state, _alive: alive });
        }
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(authority.host()).map_err(|_| Failure::ServerName)?,
        };
        let tls = timeout_at(deadline, self.tls.connect(name, io))
            .await
            .map_err(|_| Failure::HandshakeTimeout(CONNECT_TIMEOUT))?
            .map_err(|error| Failure::Handshake { error, client_cert: self.network.tls.client_cert.is_some() })?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { io: TokioIo::new(Box::new(tls)), tls: true, h2, write_error: None, state, _alive: alive })
    }

    /// Connects to the authority, over its Unix socket or over TCP.
    async fn dial(
        &self,
        authority: &Authority,
        absolute: bool,
        lookups: Option<Arc<Semaphore>>,
    ) -> Result<Box<dyn Io>, Failure> {
        if let Some(path) = self.network.socket(authority) {
            let stream = UnixStream::connect(path).await.map_err(|error| Failure::Socket(path.to_owned(), error))?;
            return Ok(Box::new(stream));
        }
        let addresses = match authority.name() {
            // The policy has allowed the address, and the connector does not resolve it.
            None => Vec::new(),
            Some(name) => {
                let name = if absolute { format!("{name}.") } else { name.to_owned() };
                let found = self.network.resolver.look_up(name, authority.port(), lookups).await.map_err(Failure::Lookup)?;
                allowed(&self.network.policy, authority, found.into_iter())?
            }
        };
        // The connector gets only what the policy has checked: the addresses, and a URI made from
        // the authority.
        let mut tcp = HttpConnector::new_with_resolver(StaticResolver(addresses));
        tcp.set_nodelay(true);
        // The connector divides it among the addresses, so that one that does not answer leaves
        // time for the next.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let uri = Uri::try_from(format!("http://{authority}/")).map_err(|_| Failure::Uri)?;
        let stream = tcp.call(uri).await.map_err(|error| Failure::Connect(io_error(error)))?;
        Ok(Box::new(stream.into_inner()))
    }
}

/// Returns the addresses of a name that the policy allows.
///
/// # Errors
///
/// Fails if the policy denies all of them.
fn allowed(
    policy: &Policy,
    authority: &Authority,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, Failure> {
    let mut allowed = Vec::new();
    let mut denied = None;
    for address in found {
        match policy.check_address(authority, address.ip()) {
            Ok(()) => allowed.push(address),
            Err(reason) => denied = denied.or(Some(reason)),
        }
    }
    match denied {
        Some(denied) if allowed.is_empty() => Err(Failure::AddressDenied(denied)),
        _ => Ok(allowed),
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (state, alive) = ConnectionState::new(self.0.network.tls.client_cert.is_some());
        // This runs in the task of the request. Hyper may poll the future in another task.
        let _ = LAST_CONNECTION.try_with(|last| last.replace(Some(state.clone())));
        let lookups = LOOKUPS.try_with(Arc::clone).ok();
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.open(&uri, lookups, state, alive).await })
    }
}

/// A resolver with fixed addresses.
#[derive(Clone)]
struct StaticResolver(Vec<SocketAddr>);

impl Service<Name> for StaticResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _name: Name) -> Self::Future {
        std::future::ready(Ok(self.0.clone().into_iter()))
    }
}

/// Returns the system's error inside an error of hyper's connector, whose own message does not name
/// the cause.
fn io_error(error: impl StdError + Send + Sync + 'static) -> io::Error {
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
        None => io::Error::other(error),
    }
}

/// The transport of a connection: TCP, a Unix socket, or TLS over one of them.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub(crate) struct Stream {
    io: TokioIo<Box<dyn Io>>,
    tls: bool,
    h2: bool,
    /// The error of a write, while an alert from the peer is still read.
    write_error: Option<io::Error>,
    state: ConnectionState,
    _alive: AliveGuard,
}

impl Stream {
    /// Writes, and after a failed write reads the peer's alert.
    ///
    /// A peer that refuses the client sends an alert and closes the connection. If the write fails
    /// first, the alert can still be read. This wait ends, since a closed connection is always
    /// readable.
    fn write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TokioIo<Box<dyn Io>>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.write_error.is_none() {
            match write(Pin::new(&mut self.io), context) {
                Poll::Ready(Err(error)) if self.tls && !self.state.has_alert() => self.write_error = Some(error),
                other => return other,
            }
        }
        // An empty buffer, so that no part of a response is lost.
        let empty = &mut ReadBuf::new(&mut []);
        if let Err(error) = ready!(Pin::new(self.io.inner_mut()).poll_read(context, empty)) {
            self.state.record_alert(&error);
        }
        Poll::Ready(Err(self.write_error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.state.clone());
        if self.h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &result {
            self.state.record_alert(error);
        }
        result
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(context, |io, context| io.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |io, context| io.poll_write_vectored(context, slices))
    }
}

/// Dropped when the connection ends, or the attempt to open it.
type AliveGuard = watch::Sender<()>;

/// The state of a connection. It keeps the peer's alert, since HTTP/2 loses the cause when a
/// connection fails.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionState(Arc<State>);

#[derive(Debug)]
struct State {
    alert: OnceLock<AlertDescription>,
    answered: AtomicBool,
    client_cert: bool,
    alive: watch::Receiver<()>,
}

impl ConnectionState {
    fn new(client_cert: bool) -> (ConnectionState, AliveGuard) {
        let (guard, alive) = watch::channel(());
        let state = State { alert: OnceLock::new(), answered: AtomicBool::new(false), client_cert, alive };
        (ConnectionState(Arc::new(state)), guard)
    }

    /// Returns the state of the connection that a request used.
    pub(crate) fn from_connected(connected: &Connected) -> Option<ConnectionState> {
        let mut extras = Extensions::new();
        connected.get_extras(&mut extras);
        extras.remove()
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(&self) {
        // Nothing is ever sent: the channel only reports that the guard was dropped.
        while self.0.alive.clone().changed().await.is_ok() {}
    }

    /// Returns whether the connection is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.alive.has_changed().is_err()
    }

    /// Returns whether both are the state of the same connection.
    pub(crate) fn is_same(&self, other: &ConnectionState) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Records the alert in an error of the connection, if there is one.
    pub(crate) fn record_alert(&self, error: &io::Error) {
        if let Some(rustls::Error::AlertReceived(alert)) = rustls_error(error) {
            let _ = self.0.alert.set(*alert);
        }
    }

    fn has_alert(&self) -> bool {
        self.0.alert.get().is_some()
    }

    /// Records that the peer has answered a request, and so accepted the client.
    pub(crate) fn mark_answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Returns the failure if the peer refused the client. Then it read nothing that was sent on
    /// this connection.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        let alert = *self.0.alert.get().filter(|alert| is_about_client(**alert))?;
        let answered = self.0.answered.load(Ordering::Relaxed);
        (!answered).then_some(Failure::Refused { alert, client_cert: self.0.client_cert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt as _, BufStream, duplex, join};
    use tokio::time::timeout;
    use wasmtime_wasi_http::Error as Code;

    #[tokio::test]
    async fn connect_error_has_the_system_message() {
        // Connecting to this address always fails.
        let mut tcp = HttpConnector::new_with_resolver(StaticResolver(Vec::new()));
        let error = io_error(tcp.call(Uri::from_static("http://255.255.255.255:1/")).await.unwrap_err());
        assert!(error.to_string().contains("os error"), "{error}");
    }

    #[test]
    fn denied_addresses_are_removed() {
        let mut policy = Policy::default();
        policy.allow("*.example:80".parse().unwrap());
        policy.deny("10.0.0.0/8:*".parse().unwrap());
        let [first, denied, last] = ["1.2.3.4:80", "10.1.2.3:80", "[::1]:80"].map(|address| address.parse().unwrap());
        let name: Authority = "a.example:80".parse().unwrap();
        let check = |found: &[SocketAddr]| allowed(&policy, &name, found.iter().copied()).ok();
        assert_eq!(check(&[first, denied, last]), Some(vec![first, last]));
        assert_eq!(check(&[denied, last]), Some(vec![last]));
        assert_eq!(check(&[denied]), None);
        // A name without addresses is not denied: there is nothing to connect to.
        assert_eq!(check(&[]), Some(vec![]));
    }

    /// Returns a stream without TLS.
    fn stream(io: impl Io + 'static) -> Stream {
        let (state, alive) = ConnectionState::new(false);
        Stream { io: TokioIo::new(Box::new(io)), tls: false, h2: false, write_error: None, state, _alive: alive }
    }

    #[tokio::test]
    async fn peer_gets_what_was_flushed_and_the_end() {
        let (near, mut far) = duplex(16);
        let mut stream = stream(BufStream::new(near));
        poll_fn(|context| Pin::new(&mut stream).poll_write(context, b"x")).await.unwrap();
        poll_fn(|context| Pin::new(&mut stream).poll_flush(context)).await.unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(timeout(second, far.read_u8()).await.unwrap().unwrap(), b'x');
        poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await.unwrap();
        assert_eq!(timeout(second, far.read(&mut [0])).await.unwrap().unwrap(), 0);
    }

    #[test]
    fn state_says_when_its_connection_is_closed() {
        let ((state, alive), (other, _alive)) = (ConnectionState::new(false), ConnectionState::new(false));
        let mut context = Context::from_waker(Waker::noop());
        let mut is_closed = || (state.is_closed(), pin!(state.closed()).poll(&mut context).is_ready());
        assert_eq!(is_closed(), (false, false));
        drop(alive);
        assert_eq!(is_closed(), (true, true));
        assert!(state.is_same(&state.clone()) && !state.is_same(&other));
    }

    /// A peer that sends nothing.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn failed_write_waits_for_an_alert_only_where_one_may_come() {
        for (tls, alert, waits) in [(true, false, true), (true, true, false), (false, false, false)] {
            let mut stream = Stream { tls, ..stream(join(Silent, duplex(1).0)) };
            if alert {
                stream.state.0.alert.set(AlertDescription::CertificateRequired).unwrap();
            }
            let mut context = Context::from_waker(Waker::noop());
            let written = Pin::new(&mut stream).poll_write(&mut context, b"x");
            assert_eq!(written.is_pending(), waits, "TLS {tls}, alert {alert}: {written:?}");
        }
    }

    /// After the handshake, only an alert about the client shows that the request was not carried
    /// out.
    #[test]
    fn only_alerts_about_the_client_are_refusals() {
        let refusal = |alert, answered| {
            let (state, _alive) = ConnectionState::new(false);
            state.record_alert(&io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert)));
            if answered {
                state.mark_answered();
            }
            state.refusal().map(|failure| failure.explain(&"a.example:1".parse().unwrap()).0)
        };
        let required = refusal(AlertDescription::CertificateRequired, false);
        assert!(matches!(required, Some(Code::TlsAlertReceived { alert_id: Some(116), .. })));
        for other in [AlertDescription::InternalError, AlertDescription::UserCanceled, AlertDescription::BadRecordMac] {
            assert!(refusal(other, false).is_none(), "{other:?}");
        }
        // After a response on this connection, the client is accepted, and a later request may have
        // been carried out.
        assert!(refusal(AlertDescription::CertificateRequired, true).is_none());
        assert!(ConnectionState::new(false).0.refusal().is_none());
    }
}
