//! The figures beside times of workloads: bytes, memory, allocations, page faults, boundary crossings,
//! the parts of a call by a fresh instance.

use crate::backend::Backend;
use crate::canned::{SHORT, Server};
use crate::measure::{median, quantile};
use crate::subjects::{Client, Fresh, InProcess, Kept, Native, PLUGIN, Pooled, Stock, Subject, connection, host};
use crate::workload::{Workload, sizes};
use anyhow::{Context, Result, ensure};
use consul_session_host::{CallError, Error, Instance};
use serde::{Deserialize, Serialize};
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
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value.
    pub value: f64,
    /// The unit of the value.
    pub unit: String,
}

fn figure(what: impl Into<String>, value: f64, unit: &str) -> Figure {
    Figure { what: what.into(), value, unit: unit.to_owned() }
}

/// Resident memory of an idle instance. The targets refer to this and the next figure by name.
pub const IDLE: &str = "an idle instance that was called once";
/// Guest memory for the largest list, as a multiple of its body.
pub const PEAK: &str = "peak guest memory of the largest list / its body";
/// Resident pages of an idle instance that all instances share.
const SHARED: &str = "an idle instance that was called once, pages shared by all";

/// Measures all figures but those of [`growth`].
pub fn figures(runtime: &Arc<Runtime>, backend: &Backend, instances: usize) -> Result<Vec<Figure>> {
    let plugin = test_support::plugin()?;
    let mut figures = vec![
        figure("the plugin", fs::metadata(&plugin)?.len() as f64, "bytes"),
        figure("the command component", fs::metadata(test_support::component()?)?.len() as f64, "bytes"),
    ];
    figures.extend(parts(runtime, backend)?);
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
            100
        };
        stock.run(workload, backend, calls)?;
        let [to_host, to_guest] = [0, 1].map(|n| (count()[n] - before[n]) as f64 / calls as f64);
        figures.push(figure(format!("{workload}: guest to host"), to_host, "host calls"));
        figures.push(figure(format!("{workload}: host to guest, cabi_realloc included"), to_guest, "guest calls"));
        let mut subjects: [Box<dyn Subject>; 4] = [
            Box::new(InProcess::new(runtime, Native::new())),
            Box::new(InProcess::new(runtime, Kept(PLUGIN.into(), host()?))),
            Box::new(InProcess::new(runtime, Pooled(PLUGIN.into(), host()?.pool(1)))),
            Box::new(InProcess::new(runtime, Fresh(PLUGIN.into(), host()?))),
        ];
        for subject in &mut subjects {
            figures.extend(counts(&mut **subject, workload, backend, calls)?);
        }
    }
    Ok(figures)
}

fn largest() -> usize {
    sizes().into_iter().max().unwrap_or_default()
}

/// Counts allocations and page faults of this process, in all threads, per call.
fn counts(subject: &mut dyn Subject, workload: Workload, backend: &Backend, calls: usize) -> Result<[Figure; 2]> {
    let count = || anyhow::Ok([ALLOCATIONS.load(Ordering::Relaxed), page_faults()?]);
    // As many, so that the heap and the memory of instances have grown before.
    subject.run(workload, backend, calls)?;
    let before = count()?;
    subject.run(workload, backend, calls)?;
    let after = count()?;
    let what = format!("{workload}: {}", subject.name());
    let per_call = |n: usize, unit| figure(what.clone(), (after[n] - before[n]) as f64 / calls as f64, unit);
    Ok([per_call(0, "allocations of the host"), per_call(1, "page faults")])
}

/// Returns how many page faults of this process needed no input so far, as `getrusage` counts them.
fn page_faults() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is the name of the program, in parentheses. It may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/self/stat")?;
    Ok(fields.split(' ').nth(7).context("no page faults in /proc/self/stat")?.parse()?)
}

/// Measures the parts of a call by a fresh instance. The first 500 of 2,000 instances are not
/// counted.
fn parts(runtime: &Runtime, backend: &Backend) -> Result<Vec<Figure>> {
    let host = host()?;
    let (id, connection) = (backend.id.clone(), connection(backend.address(Workload::Info)));
    let read = async move |instance: &mut Instance| {
        let found = instance.info(&id, None, Some(&connection)).await?;
        ensure!(found.session.is_some(), "no session");
        Ok(())
    };
    let mut parts: Vec<[f64; 3]> = runtime.block_on(async {
        tokio::spawn(async move {
            let mut parts = Vec::new();
            for _ in 0..2_000 {
                let start = Instant::now();
                let mut instance = host.instance().await?;
                let made = Instant::now();
                read(&mut instance).await?;
                let first = Instant::now();
                read(&mut instance).await?;
                let second = Instant::now();
                drop(instance);
                let dropped = Instant::now();
                let micro = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e6;
                parts.push([micro(start, made), micro(made, first) - micro(first, second), micro(second, dropped)]);
            }
            anyhow::Ok(parts)
        })
        .await?
    })?;
    parts.drain(..500);
    let [mut made, beyond, dropped] = [0, 1, 2].map(|n| parts.iter().map(|parts| parts[n]).collect::<Vec<_>>());
    made.sort_by(f64::total_cmp);
    Ok(vec![
        figure("fresh instance, ready to call, p50", quantile(&made, 0.5), "µs"),
        figure("fresh instance, ready to call, p99", quantile(&made, 0.99), "µs"),
        figure("fresh instance, its first `info` beyond its second, p50", median(beyond), "µs"),
        figure("fresh instance, time to drop it, p50", median(dropped), "µs"),
    ])
}

/// Measures the resident memory of instances that wait for their next call.
///
/// [`SHARED`] counts for each of them the pages of the component's file that it has read. There is one
/// copy of these for all instances.
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
    let each =
        |what, after: [u64; 2], n: usize| figure(what, (after[n] - before[n]) as f64 / count as f64 / 1024.0, "KiB resident");
    Ok(vec![each("an idle instance, fresh", fresh, 0), each(IDLE, called, 0), each(SHARED, called, 1)])
}

/// Returns the resident bytes of this process: those that are its own, and those that it shares, or
/// that are a file's.
fn resident() -> Result<[u64; 2]> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = |n| anyhow::Ok(statm.split(' ').nth(n).context("no such number of pages")?.parse::<u64>()?);
    let (all, shared) = (pages(1)?, pages(2)?);
    Ok([all - shared, shared].map(|pages| pages * rustix::param::page_size() as u64))
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

/// Measures time and guest memory of lists of up to 500,000 of the shortest sessions, the most that
/// the plugin reads, and of a list that is too large.
pub async fn growth() -> Result<Vec<Figure>> {
    const TOO_LARGE: usize = 4 * SHORT;
    let sizes = [SHORT, 2 * SHORT, TOO_LARGE];
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
