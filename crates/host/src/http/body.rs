//! The body of a response: bounded, and counted among its instance's requests until it ends.

use super::LastFailure;
use super::exchange::Report;
use super::explain::Failure;
use crate::policy::Authority;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::Error as Code;

/// A request under way. The first of an instance is its own, and counts for nothing; its clones count until they are dropped.
#[derive(Clone, Debug, Default)]
pub struct Slot(Arc<()>);

impl Slot {
    /// How many requests are under way.
    pub fn taken(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// A body that ends with an error when it turns out to be too large.
pub struct Limited {
    /// Dropped at the end, so that the connection and the slot are free before the guest drops the body.
    open: Option<(Incoming, Slot, Report)>,
    left: u64,
    limit: u64,
    at: Authority,
    memory: LastFailure,
}

impl Limited {
    /// Errors: the body's length is known, and more than `limit`.
    pub fn new(
        body: Incoming,
        limit: u64,
        slot: Slot,
        mut report: Report,
        at: Authority,
        memory: LastFailure,
    ) -> Result<Limited, Code> {
        if body.size_hint().lower() > limit {
            let code = memory.tell(&Failure::TooLarge(limit), &at);
            report.failed(&code);
            return Err(code);
        }
        Ok(Limited { open: Some((body, slot, report)), left: limit, limit, at, memory })
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = Code;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Code>>> {
        let this = self.get_mut();
        let Some((body, _slot, report)) = &mut this.open else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                // A length of `usize` always fits.
                match this.left.checked_sub(length as u64) {
                    Some(left) => {
                        this.left = left;
                        report.read(length);
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    None => Some(Err(this.memory.tell(&Failure::TooLarge(this.limit), &this.at))),
                }
            }
            Some(Err(error)) => Some(Err(Code::from(error))),
            None => None,
        };
        if let Some(Err(code)) = &frame {
            report.failed(code);
        }
        this.open = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|(body, ..)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.open.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, ..)| body.size_hint())
    }
}
