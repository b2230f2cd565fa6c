//! The report of each request to the plugin host's observer.

use super::LastFailure;
use crate::policy::Authority;
use http::{Method, Request, Uri};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime_wasi_http::Error as Code;

/// A request of the component that has completed, failed or been denied. It contains no headers,
/// and so no token.
///
/// `Display` writes one line: `GET http://localhost:8500/v1/session/list: 200, 512 B, 1.3 ms`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// The scheme, as the component wrote it.
    pub scheme: String,
    /// The authority, or `None` if it is invalid.
    pub authority: Option<Authority>,
    /// The path and query, as they were sent.
    pub path_and_query: String,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// How many bytes of the response body the component read.
    pub bytes: u64,
    /// The time from the request to the end of the response.
    pub took: Duration,
    /// Why there is no response, or only a part of it: the host denied the request, there was no
    /// connection, or the component gave up.
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

/// The function that is called for each request, if any.
#[derive(Clone, Default)]
pub(crate) struct Observer(Option<Arc<Callback>>);

type Callback = dyn Fn(&Exchange) + Send + Sync;

impl Observer {
    pub(crate) fn new(callback: impl Fn(&Exchange) + Send + Sync + 'static) -> Observer {
        Observer(Some(Arc::new(callback)))
    }

    /// Starts the record of a request. If the request fails, `last_failure` has the host's
    /// explanation.
    pub(super) fn record<B>(&self, request: &Request<B>, at: Option<&Authority>, last_failure: &LastFailure) -> Recorder {
        Recorder(self.0.is_some().then(|| {
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
            Box::new(Record { observer: self.clone(), exchange, start: Instant::now(), last_failure: last_failure.clone() })
        }))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}

/// The record of a request, which calls the observer when it is dropped. Empty without an observer.
pub(crate) struct Recorder(Option<Box<Record>>);

struct Record {
    observer: Observer,
    exchange: Exchange,
    start: Instant,
    last_failure: LastFailure,
}

impl Recorder {
    /// Sets the status of the response.
    pub(crate) fn set_status(&mut self, status: u16) {
        if let Some(record) = &mut self.0 {
            record.exchange.status = Some(status);
        }
    }

    /// Adds to the bytes of the body that the component read.
    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        if let Some(record) = &mut self.0 {
            // A `usize` always fits in a `u64`.
            record.exchange.bytes += bytes as u64;
        }
    }

    /// Sets the error: the host's explanation, or else the code.
    pub(crate) fn set_error(&mut self, code: &Code) {
        if let Some(record) = &mut self.0 {
            record.exchange.error = Some(record.last_failure.message().unwrap_or_else(|| code.to_string()));
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Some(record) = self.0.take() else { return };
        let Record { observer, mut exchange, start, .. } = *record;
        exchange.took = start.elapsed();
        if exchange.status.is_none() && exchange.error.is_none() {
            exchange.error = Some("no answer: the component gave up".into());
        }
        if let Observer(Some(callback)) = observer {
            callback(&exchange);
        }
    }
}
