//! Instances that are kept from call to call.

use crate::error::CallError;
use crate::host::{Host, Instance};
use bytesize::ByteSize;
use std::sync::{Arc, Mutex, PoisonError};

/// How many calls an instance serves by default.
const DEFAULT_CALLS: u32 = 1_000;
/// The largest memory of an instance that is kept. A component's memory never shrinks, and a small
/// call takes a tenth of this.
const LARGEST: ByteSize = ByteSize::mib(8);

/// Instances that are kept from call to call, for callers that trust each other: see [`Host::pool`].
/// Clones are cheap, and share the instances.
///
/// It has the functions of [`Host`]. A call uses the idle instance that was used last, or makes one if
/// none is idle. So as many calls run at once as the host allows ([`Limits::instances`]), and each
/// instance serves one call at a time.
///
/// An instance is dropped instead of being kept
///
/// - after a call that was stopped or trapped, or whose future was dropped;
/// - after its 1,000th call ([`Pool::renew_after`]);
/// - once it has taken more than 8 MiB of memory, by a large list;
/// - if as many are idle as the pool keeps, or, in all pools of the host together, as
///   [`Limits::instances`].
///
/// # What a kept instance keeps
///
/// Nothing that a later call could ask for: the plugin has no state between calls, and the host
/// counts limits for each call anew. But its memory is not cleared. A fault in the plugin could give
/// what it read for one caller, a token among it, to the next. Two pools never share an instance, so
/// give each tenant a pool of its own; or call the [`Host`], which makes an instance for each call.
///
/// [`Limits::instances`]: crate::Limits::instances
#[derive(Clone)]
pub struct Pool {
    host: Host,
    /// How many instances are kept idle.
    size: usize,
    /// After how many calls an instance is dropped.
    calls: u32,
    idle: Arc<Mutex<Vec<Kept>>>,
}

/// An instance of a pool.
pub(crate) struct Kept {
    pub(crate) instance: Instance,
    /// The calls that it has served.
    calls: u32,
}

impl Pool {
    pub(crate) fn new(host: Host, size: usize) -> Pool {
        Pool { host, size, calls: DEFAULT_CALLS, idle: Arc::default() }
    }

    /// Sets after how many calls an instance is dropped. Default: 1,000. With 0 or 1, each call has a
    /// fresh instance.
    #[must_use]
    pub fn renew_after(mut self, calls: u32) -> Pool {
        self.calls = calls;
        self
    }

    /// Returns an instance for one call, once the host has a permit for it.
    ///
    /// # Errors
    ///
    /// Fails as [`Host::instance`] does.
    pub(crate) async fn take(&self) -> Result<Kept, CallError> {
        let permit = self.host.permit().await;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(mut kept) => {
                kept.instance.permit = permit;
                Ok(kept)
            }
            None => Ok(Kept { instance: self.host.instance_with(permit).await?, calls: 0 }),
        }
    }

    /// Keeps an instance after a call, if it can serve another.
    pub(crate) fn put_back<T>(&self, mut kept: Kept, answer: &Result<T, CallError>) {
        kept.calls += 1;
        let is_usable = matches!(answer, Ok(_) | Err(CallError::Plugin(_)));
        if !is_usable || kept.calls >= self.calls || kept.instance.memory() > LARGEST {
            return;
        }
        let Some(permit) = self.host.idle_permit() else { return };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.size {
            kept.instance.permit = permit;
            idle.push(kept);
        }
    }
}
