//! The figures beside times: bytes, memory, allocations, boundary crossings.

use crate::backend::Backend;
use crate::canned::{SHORT, Server};
use crate::subjects::{Client, Fresh, InProcess, Kept, Native, Stock, Subject, connection, host};
use crate::workload::{Workload, sizes};
use anyhow::{Context, Result, ensure};
use consul_session_host::{CallError, Error};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The system allocator, which counts its allocations and the blocks that are in use.
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BLOCKS: AtomicU64 = AtomicU64::new(0);

/// Returns how many blocks of the heap are in use.
pub fn blocks() -> u64 {
    BLOCKS.load(Ordering::Relaxed)
}

// SAFETY: every call is passed on to the system allocator unchanged, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this function, which is the system
        // allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this function, which is the system
        // allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this function, which is the system
        // allocator's.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of this function, which is the system
        // allocator's.
        unsafe { System.dealloc(place, layout) }
    }
}

/// A measured value other than a time of a workload.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value.
    pub value: f64,
    /// The unit of the value.
    pub unit: &'static str,
}

fn figure(what: impl Into<String>, value: f64, unit: &'static str) -> Figure {
    Figure { what: what.into(), value, unit }
}

/// Size of the plugin. The targets refer to this and the next figures by name.
pub const PLUGIN: &str = "the plugin";
/// Time from the request for a fresh instance until it can be called.
pub const READY: &str = "fresh instance, ready to call, p50";
/// Resident memory of an idle instance.
pub const IDLE: &str = "an idle instance that was called once";
/// Guest memory for the largest list, as a multiple of its body.
pub const PEAK: &str = "peak guest memory of the largest list / its body";

/// Measures all figures but those of [`growth`].
pub fn figures(runtime: &Arc<Runtime>, backend: &Backend, instances: usize) -> Result<Vec<Figure>> {
    let plugin = test_support::plugin()?;
    let mut figures = vec![
        figure(PLUGIN, fs::metadata(&plugin)?.len() as f64, "bytes"),
        figure("the command component", fs::metadata(test_support::component()?)?.len() as f64, "bytes"),
    ];
    figures.extend(ready(runtime)?);
    figures.extend(runtime.block_on(idle(backend, instances))?);
    figures.extend(runtime.block_on(peak(backend))?);
    let workloads =
        [Workload::Info, Workload::CreateDestroy, Workload::Present, Workload::List(sizes()[0]), Workload::List(largest())];
    for workload in workloads {
        let stock = Stock::new()?;
        let crossings = Arc::clone(&stock.crossings);
        let mut stock = InProcess::new(runtime, stock);
        let count = || [&crossings.to_host, &crossings.to_guest].map(|count| count.load(Ordering::Relaxed));
        stock.run(workload, backend, 1)?;
        let before = count();
        let calls = if let Workload::List(size) = workload
            && size > 1_000
        {
            1
        } else {
            20
        };
        stock.run(workload, backend, calls)?;
        let [to_host, to_guest] = [0, 1].map(|n| (count()[n] - before[n]) as f64 / calls as f64);
        figures.push(figure(format!("{workload}: guest to host"), to_host, "host calls"));
        figures.push(figure(format!("{workload}: host to guest, cabi_realloc included"), to_guest, "guest calls"));
        figures.push(allocations(&mut InProcess::new(runtime, Native::new()), workload, backend, calls)?);
        figures.push(allocations(&mut InProcess::new(runtime, Kept(host()?)), workload, backend, calls)?);
        figures.push(allocations(&mut InProcess::new(runtime, Fresh(host()?)), workload, backend, calls)?);
    }
    Ok(figures)
}

fn largest() -> usize {
    sizes().into_iter().max().unwrap_or_default()
}

/// Counts the allocations of this process, in all threads, per call.
fn allocations(subject: &mut dyn Subject, workload: Workload, backend: &Backend, calls: usize) -> Result<Figure> {
    subject.run(workload, backend, 1)?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    subject.run(workload, backend, calls)?;
    let count = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / calls as f64;
    Ok(figure(format!("{workload}: {}", subject.name()), count, "allocations of the host"))
}

/// Measures how soon a fresh instance can be called. The first 500 of 2,000 are not counted.
fn ready(runtime: &Runtime) -> Result<Vec<Figure>> {
    let host = host()?;
    let mut times: Vec<Duration> = runtime.block_on(async {
        tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..2_000 {
                let start = Instant::now();
                let instance = host.instance().await?;
                times.push(start.elapsed());
                drop(instance);
            }
            anyhow::Ok(times)
        })
        .await?
    })?;
    times.drain(..500);
    times.sort();
    let micro = |part| crate::measure::quantile(&times, part).as_secs_f64() * 1e6;
    Ok(vec![figure(READY, micro(0.5), "µs"), figure("fresh instance, ready to call, p99", micro(0.99), "µs")])
}

/// Measures the resident memory of instances that wait for their next call.
async fn idle(backend: &Backend, count: usize) -> Result<Vec<Figure>> {
    let rule = "127.0.0.1:*".parse()?;
    let builder = consul_session_host::Host::builder().allow(rule).limit("instances", &(count + 1).to_string())?;
    let host = builder.build(test_support::plugin()?).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let connection = connection(backend.address(Workload::Info));
    // Loads what all instances share, before the first measurement.
    host.instance().await?.info(&backend.id, None, Some(&connection)).await?;
    let mut instances = Vec::with_capacity(count);
    let before = resident()?;
    for _ in 0..count {
        instances.push(host.instance().await?);
    }
    let fresh = resident()?;
    for instance in &mut instances {
        let found = instance.info(&backend.id, None, Some(&connection)).await?;
        ensure!(found.session.is_some(), "no session");
    }
    let called = resident()?;
    let each = |after: u64| (after - before) as f64 / count as f64 / 1024.0;
    Ok(vec![figure("an idle instance, fresh", each(fresh), "KiB resident"), figure(IDLE, each(called), "KiB resident")])
}

/// Returns the resident bytes of this process.
fn resident() -> Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Measures the guest memory after the largest list. It never shrinks.
async fn peak(backend: &Backend) -> Result<Vec<Figure>> {
    let address = backend.address(Workload::List(largest()));
    let mut instance = host()?.instance().await?;
    instance.list_sessions(None, Some(&connection(address))).await?;
    let body = Native::new().caller(address).await?.body("session/list").await?;
    let (memory, body) = (instance.memory().as_u64() as f64, body as f64);
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    Ok(vec![
        figure("body of the largest list", mib(body), "MiB"),
        figure("peak guest memory of the largest list", mib(memory), "MiB"),
        figure(PEAK, memory / body, "×"),
    ])
}

/// Measures time and guest memory of lists of up to a million of the shortest sessions, and of a
/// list that is too large.
pub async fn growth() -> Result<Vec<Figure>> {
    const TOO_LARGE: usize = 1_100_000;
    let sizes = [SHORT, 2 * SHORT, 4 * SHORT, TOO_LARGE];
    let server = Server::start(&sizes)?;
    let mut figures = Vec::new();
    for size in sizes {
        let connection = connection(server.address(size).context("no such list")?);
        let mut fastest = Duration::MAX;
        let mut memory = 0.0;
        for _ in 0..3 {
            let mut instance = host()?.instance().await?;
            let start = Instant::now();
            let answer = instance.list_sessions(None, Some(&connection)).await;
            fastest = fastest.min(start.elapsed());
            memory = instance.memory().as_u64() as f64 / f64::from(1 << 20);
            match answer {
                Ok(listing) => {
                    ensure!(size < TOO_LARGE && listing.sessions.len() == size, "{} sessions", listing.sessions.len())
                }
                Err(error) => ensure!(
                    size == TOO_LARGE && matches!(error, CallError::Plugin(Error::ResponseTooLarge(_))),
                    "{size}: {error:?}"
                ),
            }
        }
        let what = format!("list of {size} short sessions{}", if size == TOO_LARGE { ", refused as too large" } else { "" });
        figures.push(figure(format!("{what}: fastest of 3"), fastest.as_secs_f64() * 1e3, "ms"));
        figures.push(figure(format!("{what}: guest memory"), memory, "MiB"));
    }
    Ok(figures)
}
