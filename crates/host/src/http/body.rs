//! The body of a response: limited in size, and counted as a request in flight until it ends.

use super::LastFailure;
use super::exchange::Recorder;
use super::explain::Failure;
use crate::policy::Authority;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::Error as Code;

/// A counter of requests in flight. Each clone counts as one until it is dropped; the original,
/// which the instance keeps, does not count.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<()>);

impl InFlight {
    /// Returns how many requests are in flight.
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// A body that ends with an error once it exceeds its limit.
pub(crate) struct LimitedBody {
    /// Dropped at the end of the body, so that the connection and the count in flight are released
    /// before the guest drops the body.
    open: Option<(Incoming, InFlight, Recorder)>,
    left: u64,
    limit: u64,
    at: Authority,
    last_failure: LastFailure,
}

impl LimitedBody {
    /// Wraps a body.
    ///
    /// # Errors
    ///
    /// Fails if the length of the body is known and exceeds `limit`.
    pub(crate) fn new(
        body: Incoming,
        limit: u64,
        in_flight: InFlight,
        mut recorder: Recorder,
        at: Authority,
        last_failure: LastFailure,
    ) -> Result<LimitedBody, Code> {
        if body.size_hint().lower() > limit {
            let code = last_failure.record(&Failure::TooLarge(limit), &at);
            recorder.set_error(&code);
            return Err(code);
        }
        Ok(LimitedBody { open: Some((body, in_flight, recorder)), left: limit, limit, at, last_failure })
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = Code;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Code>>> {
        let this = self.get_mut();
        let Some((body, _in_flight, recorder)) = &mut this.open else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                // A `usize` always fits in a `u64`.
                match this.left.checked_sub(length as u64) {
                    Some(left) => {
                        this.left = left;
                        recorder.add_bytes(length);
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    None => Some(Err(this.last_failure.record(&Failure::TooLarge(this.limit), &this.at))),
                }
            }
            Some(Err(error)) => Some(Err(Code::from(error))),
            None => None,
        };
        if let Some(Err(code)) = &frame {
            recorder.set_error(code);
        }
        this.open = None;
        Poll::Ready(frame)
    }
}

/// Reads a body up to this many bytes. Returns them, and whether they are all.
///
/// # Errors
///
/// Fails if the body breaks off.
pub(crate) async fn read_up_to(
    mut body: impl Body<Data = Bytes, Error = Code> + Unpin,
    limit: usize,
) -> Result<(Vec<u8>, bool), Code> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        // A trailer has no data.
        let Ok(data) = frame?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > limit {
            bytes.truncate(limit);
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::convert::Infallible;

    #[tokio::test]
    async fn body_is_read_up_to_its_limit() {
        for (text, expected) in [("", ("", true)), ("1234", ("1234", true)), ("12345", ("1234", false))] {
            let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {});
            let (bytes, is_whole) = read_up_to(body, 4).await.unwrap();
            assert_eq!((bytes.as_slice(), is_whole), (expected.0.as_bytes(), expected.1), "{text}");
        }
    }
}
