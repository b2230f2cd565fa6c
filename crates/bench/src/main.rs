//! `cargo xtask bench`: the plugin beside everything else that does the same work, in one run.
//!
//! The peers take turns, call by call in the same rounds, so that what else happens on the machine meets all of them. Their
//! answers are checked. The table goes to standard output, and every figure to a file in `target/`.

mod canned;
mod footprint;
mod measure;
mod place;
mod report;
mod subjects;
mod workload;

use anyhow::{Context, Result, bail};
use place::Place;
use std::path::PathBuf;
use std::sync::Arc;
use subjects::{Ansible, Fresh, Go, InProcess, Kept, Module, Native, Process, Round, Stock, Subject, host, once};
use test_support::consul::Consul;
use tokio::runtime::Runtime;
use workload::WORKLOADS;

#[global_allocator]
static ALLOCATOR: footprint::Counting = footprint::Counting;

/// How much is done.
struct Extent {
    rounds: usize,
    /// Instances that idle at once.
    instances: usize,
    /// With the real agent and Ansible.
    all: bool,
    /// The name of the file with all figures.
    file: &'static str,
}

const FULL: Extent = Extent { rounds: 15, instances: 500, all: true, file: "bench.json" };
const QUICK: Extent = Extent { rounds: measure::FEWEST, instances: 50, all: false, file: "bench-quick.json" };

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        None => run(FULL),
        Some((word, [])) if word == "--quick" => run(QUICK),
        Some((word, sizes)) if word == canned::SERVE => canned::serve(sizes),
        Some((word, rest)) if word == subjects::ONCE => once(rest),
        Some((word, rest)) if word == ONLY => only(rest),
        Some((word, _)) => bail!("unknown word `{word}`; known is --quick"),
    }
}

/// The word that makes the program do one thing over and over, for a profiler to look at.
const ONLY: &str = "only";

fn only(words: &[String]) -> Result<()> {
    let (words, place): (_, fn() -> Result<Place>) = match words {
        [words @ .., place] if place == place::AGENT => (words, Place::agent),
        words => (words, Place::canned),
    };
    let [peer, work, calls] = words else { bail!("{ONLY} PEER WORK CALLS [{:?}], as the tables call them", place::AGENT) };
    let runtime = Arc::new(Runtime::new()?);
    let mut peer = in_process(&runtime)?.into_iter().find(|one| one.name() == *peer).context("no such peer")?;
    let (work, _) = WORKLOADS.into_iter().find(|(one, _)| one.to_string() == *work).context("no such work")?;
    let calls = calls.parse()?;
    let mut place = place()?;
    place.prepare(work)?;
    let Round { mut times, cpu } = peer.run(work, &place, calls)?;
    times.sort();
    println!("p50 {:?}, processor {cpu:?}", measure::quantile(&times, 0.5));
    Ok(())
}

/// The peers of this process; the others are compared with the first.
fn in_process(runtime: &Arc<Runtime>) -> Result<Vec<Box<dyn Subject>>> {
    Ok(vec![
        Box::new(InProcess::new(runtime, Native::new())),
        Box::new(InProcess::new(runtime, Kept(host()?))),
        Box::new(InProcess::new(runtime, Fresh(host()?))),
        Box::new(InProcess::new(runtime, Stock::new()?)),
    ])
}

fn run(extent: Extent) -> Result<()> {
    let runtime = Arc::new(Runtime::new()?);
    // The program that `go/` is, and the folder that has community.general: set by `cargo xtask bench`.
    let path = |variable| std::env::var_os(variable).map(PathBuf::from);
    let go = path("BENCH_GO");
    let (processes, mut left_out) = Process::all(go.clone())?;
    let mut peers = in_process(&runtime)?;
    match &go {
        Some(program) => peers.push(Box::new(Go::start(program).with_context(|| program.display().to_string())?)),
        None => left_out.push("Consul's Go client: no Go to build it with".into()),
    }
    peers.extend(processes.into_iter().map(|process| Box::new(process) as Box<dyn Subject>));
    let mut places = vec![Place::canned()?];
    if extent.all {
        for module in [Module::Community, Module::Own] {
            let collections = path("BENCH_COLLECTIONS").unwrap_or_default();
            match Ansible::new(module, collections) {
                Ok(ansible) => peers.push(Box::new(ansible)),
                Err(error) => left_out.push(format!("{module:?} under Ansible: {error:#}")),
            }
        }
        if Consul::is_missing() {
            left_out.push("the real agent: no CONSUL_BIN".into());
        } else {
            places.push(Place::agent()?);
        }
    }
    eprintln!("   beside the times");
    let mut figures = footprint::figures(&runtime, &places[0], extent.instances)?;
    if extent.all {
        figures.extend(runtime.block_on(footprint::growth())?);
    }
    let mut rows = Vec::new();
    for place in &mut places {
        rows.extend(measure::measure(place, &mut peers, extent.rounds)?);
    }
    report::report(&rows, &figures, &left_out, extent.rounds, extent.file)
}
