//! What there is beside times: bytes, memory, allocations, passages.

use crate::canned::{SHORT, Server};
use crate::place::Place;
use crate::subjects::{Fresh, InProcess, Kept, Kind, Native, Stock, Subject, connection, host};
use crate::workload::{Workload, sizes};
use anyhow::{Context, Result, ensure};
use consul_session_host::{CallError, Error};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The system's allocator, which counts.
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

/// A figure.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figure {
    /// What it is of.
    pub what: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

fn figure(what: impl Into<String>, value: f64, unit: &'static str) -> Figure {
    Figure { what: what.into(), value, unit }
}

/// The figures by which the targets name them.
pub const PLUGIN: &str = "the plugin";
/// From the asking for a fresh instance to having it.
pub const READY: &str = "fresh instance, ready to call, p50";
/// Resident memory.
pub const IDLE: &str = "an idle instance that was called once";
/// How many times the body, for the largest list.
pub const PEAK: &str = "peak guest memory of the largest list / its body";

/// All of them.
pub fn figures(runtime: &Arc<Runtime>, place: &Place, instances: usize) -> Result<Vec<Figure>> {
    let plugin = test_support::plugin()?;
    let mut figures = vec![
        figure(PLUGIN, fs::metadata(&plugin)?.len() as f64, "bytes"),
        figure("the command component", fs::metadata(test_support::component()?)?.len() as f64, "bytes"),
    ];
    figures.extend(ready(runtime)?);
    figures.extend(runtime.block_on(idle(place, instances))?);
    figures.extend(runtime.block_on(peak(place))?);
    let works =
        [Workload::Info, Workload::CreateDestroy, Workload::Present, Workload::List(sizes()[0]), Workload::List(largest())];
    for work in works {
        let stock = Stock::new()?;
        let crossings = Arc::clone(&stock.crossings);
        let mut stock = InProcess::new(runtime, stock);
        let count = || [&crossings.to_host, &crossings.to_guest].map(|count| count.load(Ordering::Relaxed));
        stock.run(work, place, 1)?;
        let before = count();
        let calls = if let Workload::List(size) = work
            && size > 1_000
        {
            1
        } else {
            20
        };
        stock.run(work, place, calls)?;
        let [to_host, to_guest] = [0, 1].map(|n| (count()[n] - before[n]) as f64 / calls as f64);
        figures.push(figure(format!("{work}: guest to host"), to_host, "passages"));
        figures.push(figure(format!("{work}: host to guest, cabi_realloc among them"), to_guest, "passages"));
        figures.push(allocations(&mut InProcess::new(runtime, Native::new()), work, place, calls)?);
        figures.push(allocations(&mut InProcess::new(runtime, Kept(host()?)), work, place, calls)?);
        figures.push(allocations(&mut InProcess::new(runtime, Fresh(host()?)), work, place, calls)?);
    }
    Ok(figures)
}

fn largest() -> usize {
    sizes().into_iter().max().unwrap_or_default()
}

/// The host's allocations, of all threads, in one call.
fn allocations(peer: &mut dyn Subject, work: Workload, place: &Place, calls: usize) -> Result<Figure> {
    peer.run(work, place, 1)?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    peer.run(work, place, calls)?;
    let count = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / calls as f64;
    Ok(figure(format!("{work}: {}", peer.name()), count, "allocations of the host"))
}

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

/// Resident memory of instances that wait for their next call.
async fn idle(place: &Place, count: usize) -> Result<Vec<Figure>> {
    let rule = "127.0.0.1:*".parse()?;
    let builder = consul_session_host::Host::builder().allow(rule).limit("instances", &(count + 1).to_string())?;
    let host = builder.build(test_support::plugin()?).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let connection = connection(place.address(Workload::Info));
    // What is there once, however many there are.
    host.instance().await?.info(&place.id, None, Some(&connection)).await?;
    let mut instances = Vec::with_capacity(count);
    let before = resident()?;
    for _ in 0..count {
        instances.push(host.instance().await?);
    }
    let fresh = resident()?;
    for instance in &mut instances {
        let found = instance.info(&place.id, None, Some(&connection)).await?;
        ensure!(found.session.is_some(), "no session");
    }
    let called = resident()?;
    let each = |after: u64| (after - before) as f64 / count as f64 / 1024.0;
    Ok(vec![figure("an idle instance, fresh", each(fresh), "KiB resident"), figure(IDLE, each(called), "KiB resident")])
}

/// The process's resident bytes.
fn resident() -> Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The guest's memory, which grows only, after the largest list.
async fn peak(place: &Place) -> Result<Vec<Figure>> {
    let address = place.address(Workload::List(largest()));
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

/// Lists up to a million of the shortest sessions, and one that is too large: with each the time of the call and the guest's memory.
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
