//! Subjects in this process, on one runtime. Each implements [`Client`] and [`Caller`].

use super::{Round, Subject, is_call};
use crate::backend::{Backend, CREATED};
use crate::workload::{MANY, Workload};
use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Makes one call after another.
pub trait Caller: Send + 'static {
    /// Reads one session, which must exist.
    fn info(&mut self, id: &str) -> impl Future<Output = Result<()>> + Send;
    /// Creates a session and returns its ID.
    fn create(&mut self, name: &str) -> impl Future<Output = Result<String>> + Send;
    /// Destroys a session.
    fn destroy(&mut self, id: &str) -> impl Future<Output = Result<()>> + Send;
    /// Ensures that a session with this name exists. Returns whether it was created.
    fn present(&mut self, name: &str) -> impl Future<Output = Result<bool>> + Send;
    /// Reads all sessions and returns their number.
    fn list(&mut self) -> impl Future<Output = Result<usize>> + Send;
}

/// An implementation, which makes callers.
pub trait Client {
    /// Type of the callers.
    type Caller: Caller;
    /// Returns the name in the tables.
    fn name(&self) -> String;
    /// Returns a caller for the agent at this address.
    fn caller(&self, address: SocketAddr) -> impl Future<Output = Result<Self::Caller>> + Send;
}

/// A client as a subject in this process.
pub struct InProcess<C: Client> {
    runtime: Arc<Runtime>,
    client: C,
    /// Kept from round to round.
    callers: Vec<(SocketAddr, C::Caller)>,
}

impl<C: Client> InProcess<C> {
    /// Runs the client in tasks of this runtime.
    pub fn new(runtime: &Arc<Runtime>, client: C) -> InProcess<C> {
        InProcess { runtime: Arc::clone(runtime), client, callers: Vec::new() }
    }

    fn caller(&mut self, address: SocketAddr) -> Result<C::Caller> {
        match self.callers.iter().position(|(at, _)| *at == address) {
            Some(at) => Ok(self.callers.swap_remove(at).1),
            None => self.runtime.block_on(self.client.caller(address)),
        }
    }
}

impl<C: Client> Subject for InProcess<C> {
    fn name(&self) -> String {
        self.client.name()
    }

    fn supports(&self, workload: Workload) -> bool {
        is_call(workload)
    }

    fn run(&mut self, workload: Workload, backend: &Backend, calls: usize) -> Result<Round> {
        let address = backend.address(workload);
        let at_once = if let Workload::Create(at_once) = workload { at_once } else { 1 };
        // A kept instance holds its permit until it is dropped.
        self.callers.retain(|(at, _)| *at == address);
        let mut callers = Vec::new();
        for _ in 0..at_once {
            callers.push(self.caller(address)?);
        }
        let (id, name) = (backend.id.clone(), backend.session.clone());
        let start = clock_gettime(ClockId::ProcessCPUTime);
        let (callers, times) = self.runtime.block_on(async {
            // In a task, as in a server: a woken task stays on the same thread.
            let calls = tokio::spawn(async move {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    callers = once(workload, callers, &id, &name).await?;
                    times.push(start.elapsed() / if let Workload::Create(_) = workload { MANY as u32 } else { 1 });
                }
                anyhow::Ok((callers, times))
            });
            calls.await?
        })?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime) - start;
        self.callers.extend(callers.into_iter().map(|caller| (address, caller)));
        let done = calls * if let Workload::Create(_) = workload { MANY } else { 1 };
        Ok(Round { times, cpu: Some(Duration::try_from(cpu)? / done as u32) })
    }
}

async fn once<C: Caller>(workload: Workload, mut callers: Vec<C>, id: &str, name: &str) -> Result<Vec<C>> {
    let first = &mut callers[0];
    match workload {
        Workload::Info => first.info(id).await?,
        Workload::CreateDestroy => {
            let id = first.create(CREATED).await?;
            first.destroy(&id).await?;
        }
        Workload::Present => ensure!(!first.present(name).await?, "a session was created"),
        Workload::List(size) => {
            let listed = first.list().await?;
            ensure!(listed == size, "{listed} sessions instead of {size}");
        }
        Workload::Create(_) => return create(callers).await,
        Workload::Cold | Workload::Task => anyhow::bail!("not a call within a process"),
    }
    Ok(callers)
}

/// Creates [`MANY`] sessions. All callers work concurrently.
async fn create<C: Caller>(callers: Vec<C>) -> Result<Vec<C>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let begun = Arc::clone(&begun);
        tasks.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < MANY {
                caller.create(CREATED).await?;
            }
            anyhow::Ok(caller)
        });
    }
    tasks.join_all().await.into_iter().collect()
}
