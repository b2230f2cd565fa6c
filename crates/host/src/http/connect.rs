//! Opens connections: looks the name up, asks the policy, connects, and does the TLS handshake.

use super::Network;
use super::explain::{Failure, is_about_client, rustls_error};
use crate::policy::{Authority, Policy};
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Ready;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// Bound on finding the address, connecting and the TLS handshake together. The plugin has a deadline of its own, but a
/// connection that is being opened may go on in the background, to serve the next request, after the plugin gave up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// The connection that the request of this task opened last. A connection that ends before hyper made a client of it leaves no
    /// other trace.
    pub static LAST_CONNECTION: RefCell<Option<ConnectionState>>;
}

/// Opens connections for one client: with certificates verified, or not.
///
/// Behind one pointer, since hyper clones it for each request, whether or not there is a connection already.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    network: Arc<Network>,
    tls: TlsConnector,
    /// What certificates are verified against, in place of the host's name.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    pub fn new(network: Arc<Network>, tls: ClientConfig, server_name: Option<ServerName<'static>>) -> Connector {
        Connector(Arc::new(Inner { network, tls: TlsConnector::from(Arc::new(tls)), server_name }))
    }
}

impl Inner {
    async fn open(&self, uri: &Uri, watch: ConnectionState, life: AliveGuard) -> Result<Stream, Failure> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let authority = Authority::of(uri).map_err(|_| Failure::Uri)?;
        let io = timeout_at(deadline, self.dial(&authority)).await.map_err(|_| Failure::ConnectTimeout(CONNECT_TIMEOUT))??;
        if uri.scheme() == Some(&http::uri::Scheme::HTTP) {
            return Ok(Stream { io: TokioIo::new(io), tls: false, h2: false, failed: None, watch, _life: life });
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
        Ok(Stream { io: TokioIo::new(Box::new(tls)), tls: true, h2, failed: None, watch, _life: life })
    }

    /// A connection to the authority, by its Unix socket or over TCP.
    async fn dial(&self, authority: &Authority) -> Result<Box<dyn Io>, Failure> {
        if let Some(path) = self.network.socket(authority) {
            let stream = UnixStream::connect(path).await.map_err(|error| Failure::Socket(path.to_owned(), error))?;
            return Ok(Box::new(stream));
        }
        let addresses = match authority.address() {
            // The policy has decided on it, and the connector looks no address up.
            Some(_) => Vec::new(),
            None => {
                let found = lookup_host((authority.host(), authority.port())).await.map_err(Failure::Lookup)?;
                allowed(&self.network.policy, authority, found)?
            }
        };
        // Only what the policy saw: the connector gets addresses, and a URI that was written from the authority.
        let mut tcp = HttpConnector::new_with_resolver(Known(addresses));
        tcp.set_nodelay(true);
        // Divided among the addresses, so that one that does not answer leaves time for the next.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let uri = Uri::try_from(format!("http://{authority}/")).map_err(|_| Failure::Uri)?;
        let stream = tcp.call(uri).await.map_err(|error| Failure::Connect(io_error(error)))?;
        Ok(Box::new(stream.into_inner()))
    }
}

/// Those of a name's addresses that the policy allows, one at least.
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
        let (watch, life) = ConnectionState::new(self.0.network.tls.client_cert.is_some());
        // Always in the task of a request; hyper may take the future elsewhere.
        let _ = LAST_CONNECTION.try_with(|opened| opened.replace(Some(watch.clone())));
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.open(&uri, watch, life).await })
    }
}

/// A resolver that knows the addresses already.
#[derive(Clone)]
struct Known(Vec<SocketAddr>);

impl Service<Name> for Known {
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

/// The system's error in one of hyper's connector, whose own text does not say why.
fn io_error(error: impl StdError + Send + Sync + 'static) -> io::Error {
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
        None => io::Error::other(error),
    }
}

/// What a connection runs over: TCP, a Unix socket, or TLS over one of them.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub struct Stream {
    io: TokioIo<Box<dyn Io>>,
    tls: bool,
    h2: bool,
    /// Why nothing can be written any more, while the peer's last word is waited for.
    failed: Option<io::Error>,
    watch: ConnectionState,
    _life: AliveGuard,
}

impl Stream {
    /// Writes. A peer that refuses the client says so and closes: should the write find it closed first, then what it said is still
    /// there to be read. That wait ends, since there is always something to read from a connection that was closed.
    fn write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TokioIo<Box<dyn Io>>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed.is_none() {
            match write(Pin::new(&mut self.io), context) {
                Poll::Ready(Err(error)) if self.tls && !self.watch.has_alert() => self.failed = Some(error),
                other => return other,
            }
        }
        // Into no room at all, so that nothing of an answer is lost.
        let nowhere = &mut ReadBuf::new(&mut []);
        if let Err(error) = ready!(Pin::new(self.io.inner_mut()).poll_read(context, nowhere)) {
            self.watch.note(&error);
        }
        Poll::Ready(Err(self.failed.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.watch.clone());
        if self.h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &result {
            self.watch.note(error);
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

/// Ends with the connection, or with the attempt to open it.
type AliveGuard = watch::Sender<()>;

/// What is remembered of a connection after its handshake, since HTTP/2 loses the cause when a connection fails.
#[derive(Clone, Debug)]
pub struct ConnectionState(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    alert: OnceLock<AlertDescription>,
    answered: AtomicBool,
    client_cert: bool,
    life: watch::Receiver<()>,
}

impl ConnectionState {
    fn new(client_cert: bool) -> (ConnectionState, AliveGuard) {
        let (sender, life) = watch::channel(());
        (
            ConnectionState(Arc::new(Watched { alert: OnceLock::new(), answered: AtomicBool::new(false), client_cert, life })),
            sender,
        )
    }

    /// The connection that was used.
    pub fn of(connected: &Connected) -> Option<ConnectionState> {
        let mut extras = Extensions::new();
        connected.get_extras(&mut extras);
        extras.remove()
    }

    /// Waits until the connection is gone.
    pub async fn gone(&self) {
        // Nothing is ever sent.
        while self.0.life.clone().changed().await.is_ok() {}
    }

    pub fn is_gone(&self) -> bool {
        self.0.life.has_changed().is_err()
    }

    pub fn is(&self, other: &ConnectionState) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Keeps the alert in an error of the connection.
    pub fn note(&self, error: &io::Error) {
        if let Some(rustls::Error::AlertReceived(alert)) = rustls_error(error) {
            let _ = self.0.alert.set(*alert);
        }
    }

    fn has_alert(&self) -> bool {
        self.0.alert.get().is_some()
    }

    /// The peer answered a request, so that it has accepted the client.
    pub fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// That the peer refused the client, if it did: nothing that was sent on this connection was read.
    pub fn refused(&self) -> Option<Failure> {
        let alert = *self.0.alert.get().filter(|alert| is_about_client(**alert))?;
        let answered = self.0.answered.load(Ordering::Relaxed);
        (!answered).then_some(Failure::Refused { alert, client_cert: self.0.client_cert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime_wasi_http::Error as Code;

    #[tokio::test]
    async fn the_system_says_why() {
        // To this address nobody connects.
        let mut tcp = HttpConnector::new_with_resolver(Known(Vec::new()));
        let error = io_error(tcp.call(Uri::from_static("http://255.255.255.255:1/")).await.unwrap_err());
        assert!(error.to_string().contains("os error"), "{error}");
    }

    #[test]
    fn denied_addresses_are_left_out() {
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

    /// After the handshake, only what refuses this client says that the request was not carried out.
    #[test]
    fn alerts_after_the_handshake() {
        let noted = |alert, answered| {
            let (watch, _life) = ConnectionState::new(false);
            watch.note(&io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert)));
            if answered {
                watch.answered();
            }
            watch.refused().map(|failure| failure.tell(&"a.example:1".parse().unwrap()).0)
        };
        let required = noted(AlertDescription::CertificateRequired, false);
        assert!(matches!(required, Some(Code::TlsAlertReceived { alert_id: Some(116), .. })));
        for other in [AlertDescription::InternalError, AlertDescription::UserCanceled, AlertDescription::BadRecordMac] {
            assert!(noted(other, false).is_none(), "{other:?}");
        }
        // An answer has come on this connection: the client was accepted, and a later request may have been carried out.
        assert!(noted(AlertDescription::CertificateRequired, true).is_none());
        assert!(ConnectionState::new(false).0.refused().is_none());
    }
}
