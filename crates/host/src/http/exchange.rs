//! What is told of each request to whoever runs the host.

use super::LastFailure;
use crate::policy::Authority;
use http::{Method, Request, Uri};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime_wasi_http::Error as Code;

/// A request of the component of which nothing more will come. It has no headers in it, and so no token.
///
/// As text: `GET http://localhost:8500/v1/session/list: 200, 512 B, 1.3 ms`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// Its method.
    pub method: Method,
    /// Its scheme, as the component wrote it.
    pub scheme: String,
    /// Whom it was for; none where that could not be understood.
    pub authority: Option<Authority>,
    /// Its path and query, as they were sent.
    pub path_and_query: String,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How much of the answer's body the component read, in bytes.
    pub bytes: u64,
    /// From the request to the end of the answer.
    pub took: Duration,
    /// Why there is no answer, or no whole one: the host did not allow it, there was no connection, the component gave up.
    pub error: Option<String>,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}://", self.method, self.scheme)?;
        match &self.authority {
            Some(authority) => authority.fmt(f)?,
            None => f.write_str("?")?,
        }
        write!(f, "{}: ", self.path_and_query)?;
        if let Some(status) = self.status {
            write!(f, "{status}, {} B, ", self.bytes)?;
        }
        if let Some(error) = &self.error {
            write!(f, "{error}, ")?;
        }
        write!(f, "{:.1} ms", self.took.as_secs_f64() * 1000.0)
    }
}

/// Who is told, if anybody.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Tell>>);

type Tell = dyn Fn(&Exchange) + Send + Sync;

impl Observer {
    pub fn new(tell: impl Fn(&Exchange) + Send + Sync + 'static) -> Observer {
        Observer(Some(Arc::new(tell)))
    }

    /// Begins to tell of a request. Why it fails is in `memory`, if the host knows it.
    pub(super) fn begin<B>(&self, request: &Request<B>, at: Option<&Authority>, memory: &LastFailure) -> Report {
        Report(self.0.is_some().then(|| {
            let uri: &Uri = request.uri();
            let exchange = Exchange {
                method: request.method().clone(),
                scheme: uri.scheme_str().unwrap_or_default().to_owned(),
                authority: at.cloned(),
                path_and_query: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                status: None,
                bytes: 0,
                took: Duration::ZERO,
                error: None,
            };
            Box::new(Begun { observer: self.clone(), exchange, start: Instant::now(), memory: memory.clone() })
        }))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}

/// Tells of a request when it is dropped: then nothing more comes of it. Nothing where nobody wants to know.
pub struct Report(Option<Box<Begun>>);

struct Begun {
    observer: Observer,
    exchange: Exchange,
    start: Instant,
    memory: LastFailure,
}

impl Report {
    pub fn answered(&mut self, status: u16) {
        if let Some(begun) = &mut self.0 {
            begun.exchange.status = Some(status);
        }
    }

    pub fn read(&mut self, bytes: usize) {
        if let Some(begun) = &mut self.0 {
            // A length of `usize` always fits.
            begun.exchange.bytes += bytes as u64;
        }
    }

    pub fn failed(&mut self, code: &Code) {
        if let Some(begun) = &mut self.0 {
            begun.exchange.error = Some(begun.memory.text().unwrap_or_else(|| code.to_string()));
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let Some(begun) = self.0.take() else { return };
        let Begun { observer, mut exchange, start, .. } = *begun;
        exchange.took = start.elapsed();
        if exchange.status.is_none() && exchange.error.is_none() {
            exchange.error = Some("no answer: the component gave up".into());
        }
        if let Observer(Some(tell)) = observer {
            tell(&exchange);
        }
    }
}
