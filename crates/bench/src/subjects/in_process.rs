//! Peers in this process, on one runtime: each an implementation of [`Caller`], and nothing else.

use super::{Round, Subject, is_call};
use crate::place::{MADE, Place};
use crate::workload::{MANY, Workload};
use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// What does one call after another.
pub trait Caller: Send + 'static {
    /// Reads one session, which must be there.
    fn info(&mut self, id: &str) -> impl Future<Output = Result<()>> + Send;
    /// Creates a session; its id.
    fn create(&mut self, name: &str) -> impl Future<Output = Result<String>> + Send;
    /// Destroys a session.
    fn destroy(&mut self, id: &str) -> impl Future<Output = Result<()>> + Send;
    /// Makes sure that there is a session of this name; whether one was made.
    fn present(&mut self, name: &str) -> impl Future<Output = Result<bool>> + Send;
    /// Reads all sessions; how many there are.
    fn list(&mut self) -> impl Future<Output = Result<usize>> + Send;
}

/// What makes callers.
pub trait Kind {
    /// As it stands in the tables.
    const NAME: &str;
    /// The callers.
    type Caller: Caller;
    /// A caller of the agent at this address.
    fn caller(&self, address: SocketAddr) -> impl Future<Output = Result<Self::Caller>> + Send;
}

/// A peer in this process.
pub struct InProcess<K: Kind> {
    runtime: Arc<Runtime>,
    kind: K,
    /// Kept from round to round.
    callers: Vec<(SocketAddr, K::Caller)>,
}

impl<K: Kind> InProcess<K> {
    /// Works in tasks of this runtime.
    pub fn new(runtime: &Arc<Runtime>, kind: K) -> InProcess<K> {
        InProcess { runtime: Arc::clone(runtime), kind, callers: Vec::new() }
    }

    fn caller(&mut self, address: SocketAddr) -> Result<K::Caller> {
        match self.callers.iter().position(|(at, _)| *at == address) {
            Some(at) => Ok(self.callers.swap_remove(at).1),
            None => self.runtime.block_on(self.kind.caller(address)),
        }
    }
}

impl<K: Kind> Subject for InProcess<K> {
    fn name(&self) -> String {
        K::NAME.into()
    }

    fn does(&self, work: Workload) -> bool {
        is_call(work)
    }

    fn run(&mut self, work: Workload, place: &Place, calls: usize) -> Result<Round> {
        let address = place.address(work);
        let at_once = if let Workload::Create(at_once) = work { at_once } else { 1 };
        // A kept instance has its turn until it is dropped.
        self.callers.retain(|(at, _)| *at == address);
        let mut callers = Vec::new();
        for _ in 0..at_once {
            callers.push(self.caller(address)?);
        }
        let (id, name) = (place.id.clone(), place.session.clone());
        let start = clock_gettime(ClockId::ProcessCPUTime);
        let (callers, times) = self.runtime.block_on(async {
            // In a task, as a server has it: what is woken stays on the same thread.
            let calls = tokio::spawn(async move {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    callers = once(work, callers, &id, &name).await?;
                    times.push(start.elapsed() / if let Workload::Create(_) = work { MANY as u32 } else { 1 });
                }
                anyhow::Ok((callers, times))
            });
            calls.await?
        })?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime) - start;
        self.callers.extend(callers.into_iter().map(|caller| (address, caller)));
        let done = calls * if let Workload::Create(_) = work { MANY } else { 1 };
        Ok(Round { times, cpu: Some(Duration::try_from(cpu)? / done as u32) })
    }
}

async fn once<C: Caller>(work: Workload, mut callers: Vec<C>, id: &str, name: &str) -> Result<Vec<C>> {
    let first = &mut callers[0];
    match work {
        Workload::Info => first.info(id).await?,
        Workload::CreateDestroy => {
            let id = first.create(MADE).await?;
            first.destroy(&id).await?;
        }
        Workload::Present => ensure!(!first.present(name).await?, "a session was made"),
        Workload::List(size) => {
            let listed = first.list().await?;
            ensure!(listed == size, "{listed} sessions instead of {size}");
        }
        Workload::Create(_) => return create(callers).await,
        Workload::Cold | Workload::Task => anyhow::bail!("not within a process"),
    }
    Ok(callers)
}

/// [`MANY`] sessions, as many at a time as there are callers.
async fn create<C: Caller>(callers: Vec<C>) -> Result<Vec<C>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let begun = Arc::clone(&begun);
        tasks.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < MANY {
                caller.create(MADE).await?;
            }
            anyhow::Ok(caller)
        });
    }
    tasks.join_all().await.into_iter().collect()
}
