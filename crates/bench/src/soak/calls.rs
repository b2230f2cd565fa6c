//! Very many calls of the plugin in this process, on the canned server.

use super::sample::{Life, Sample};
use crate::canned::{self, Server};
use crate::footprint;
use crate::subjects::{connection, host};
use anyhow::{Context, Result, bail, ensure};
use consul_session_host::{CallError, Connection, CreateOptions, Error, Host, Instance, Options};
use std::fs::File;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Sessions in the list.
const LISTED: usize = 10;
/// Samples of a run.
const SAMPLES: u64 = 100;
/// Calls that are not in a sample, as a part of all: connections, caches and memory come to rest.
const WARM_UP: u64 = 10;
/// Different calls, which are made in turn.
const TURNS: u64 = 9;

/// A leak, for the test that each kind is found.
#[derive(Clone, Copy, Debug)]
pub enum Leak {
    /// 64 KiB for each call.
    Memory,
    /// A small block for each call.
    Blocks,
    /// A file for each sample.
    Files,
    /// A thread for each sample.
    Threads,
}

impl Leak {
    /// Returns the leak of this name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn named(name: &str) -> Result<Leak> {
        Ok(match name {
            "memory" => Leak::Memory,
            "blocks" => Leak::Blocks,
            "files" => Leak::Files,
            "threads" => Leak::Threads,
            _ => bail!("unknown leak `{name}` (expected memory, blocks, files or threads)"),
        })
    }

    fn after_call(self) {
        match self {
            // A leak that nobody looks at would be optimised away.
            Leak::Memory => drop(black_box(vec![1_u8; 64 << 10].leak())),
            Leak::Blocks => drop(black_box(Box::leak(Box::new(1_u64)))),
            Leak::Files | Leak::Threads => {}
        }
    }

    fn after_sample(self) -> Result<()> {
        match self {
            Leak::Files => std::mem::forget(File::open("/dev/null")?),
            Leak::Threads => drop(std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            })),
            Leak::Memory | Leak::Blocks => {}
        }
        Ok(())
    }
}

/// What calls are made with.
struct Calls {
    host: Host,
    agent: SocketAddr,
    connection: Connection,
    /// An address at which nothing listens.
    nowhere: Connection,
    id: String,
    leak: Option<Leak>,
}

/// Makes this many calls of one kept instance, and this many with a fresh instance each. Returns
/// the lives of both.
///
/// # Errors
///
/// A call has another answer than the prepared one.
pub fn run(kept: u64, fresh: u64, leak: Option<Leak>) -> Result<Vec<Life>> {
    let server = Server::start(&[LISTED])?;
    let agent = server.address(LISTED).context("no list")?;
    // No port that the system gives to clients, so that nobody can ever listen there meanwhile.
    let nowhere = connection(SocketAddr::new(agent.ip(), 1));
    let calls = Calls { host: host()?, agent, connection: connection(agent), nowhere, id: canned::id(0), leak };
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        // In a task, as in a server: a woken task stays on the same thread.
        let lives = tokio::spawn(async move {
            let mut lives = Vec::new();
            if kept > 0 {
                eprintln!("   {kept} calls of one instance");
                let mut instance = Some(calls.host.instance().await?);
                lives.push(Life { name: "kept".into(), samples: calls.life(kept, &mut instance).await? });
            }
            if fresh > 0 {
                eprintln!("   {fresh} calls of a fresh instance each");
                lives.push(Life { name: "fresh".into(), samples: calls.life(fresh, &mut None).await? });
            }
            anyhow::Ok(lives)
        });
        lives.await?
    })
}

impl Calls {
    /// Makes this many calls, with the instance or with a fresh one for each, and takes samples.
    async fn life(&self, calls: u64, kept: &mut Option<Instance>) -> Result<Vec<Sample>> {
        let warm_up = calls / WARM_UP;
        let each = ((calls - warm_up) / SAMPLES).max(1);
        // Allocated before the first sample.
        let mut samples = Vec::with_capacity(SAMPLES as usize + 1);
        let mut times: Vec<Duration> = Vec::with_capacity(each as usize);
        // The memory of fresh instances: the most that one of them took since the last sample.
        let mut linear = 0;
        for n in 0..calls {
            let start = Instant::now();
            let context = || format!("call {n}, after {:?}", start.elapsed());
            let memory = match kept {
                Some(instance) => {
                    self.call(instance, n).await.with_context(context)?;
                    instance.memory()
                }
                None => {
                    let mut instance = self.host.instance().await?;
                    self.call(&mut instance, n).await.with_context(context)?;
                    instance.memory()
                }
            };
            times.push(start.elapsed());
            linear = linear.max(memory.as_u64());
            if let Some(leak) = self.leak {
                leak.after_call();
            }
            if n + 1 == warm_up {
                (times, linear) = (emptied(times), 0);
            }
            if times.len() as u64 == each && n >= warm_up {
                times.sort_unstable();
                let call = times.get(times.len() / 2).copied();
                let slowest = times.last().copied();
                let blocks = Some(footprint::blocks());
                samples.push(Sample { blocks, linear: Some(linear), call, slowest, ..Sample::of(None)? });
                (times, linear) = (emptied(times), 0);
                if let Some(leak) = self.leak {
                    leak.after_sample()?;
                }
            }
        }
        Ok(samples)
    }

    /// Makes the n-th call, and checks its answer.
    async fn call(&self, instance: &mut Instance, n: u64) -> Result<()> {
        let Calls { id, connection, nowhere, .. } = self;
        match n % TURNS {
            0 => {
                let found = instance.info(id, None, Some(connection)).await?.session.context("no session")?;
                ensure!(found.id == *id && found.name == canned::name(0), "{found:?}");
            }
            1 => {
                let options = CreateOptions { name: Some("made".into()), ..CreateOptions::default() };
                let created = instance.create(&options, Some(connection)).await?;
                ensure!(created == *id, "{created} was created");
            }
            2 => instance.destroy(id, Some(connection)).await?,
            3 => {
                let (host, port) = (Some(self.agent.ip().to_string()), Some(self.agent.port()));
                let options = Options { name: Some(canned::name(0)), host, port, ..Options::default() };
                let outcome = instance.apply(&options).await?;
                ensure!(!outcome.changed && outcome.session_id.as_ref() == Some(id), "{outcome:?}");
            }
            4 => {
                let listed = instance.list_sessions(None, Some(connection)).await?.sessions;
                ensure!(listed.len() == LISTED && listed[LISTED - 1].id == canned::id(LISTED - 1), "{listed:?}");
            }
            5 => {
                let (host, port) = (self.agent.ip(), self.agent.port());
                let options = format!(r#"{{"state":"info","id":"{id}","host":"{host}","port":{port}}}"#);
                let outcome = instance.apply_json(&options).await?;
                ensure!(outcome.contains(&canned::name(0)), "{outcome}");
            }
            // The server has no such endpoint.
            6 => match instance.renew(id, Some(connection)).await {
                Err(CallError::Plugin(Error::Refused(refusal))) if refusal.status == 404 => {}
                other => bail!("renew: {other:?}"),
            },
            7 => match instance.info(id, None, Some(nowhere)).await {
                Err(CallError::Plugin(Error::Unreachable(_))) => {}
                other => bail!("info where nobody listens: {other:?}"),
            },
            _ => match instance.info("no UUID", None, Some(connection)).await {
                Err(CallError::Plugin(Error::InvalidOption(_))) => {}
                other => bail!("info of no UUID: {other:?}"),
            },
        }
        Ok(())
    }
}

/// Returns the vector without its elements, and with its memory.
fn emptied<T>(mut vector: Vec<T>) -> Vec<T> {
    vector.clear();
    vector
}
