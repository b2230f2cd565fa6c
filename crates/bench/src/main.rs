//! `cargo xtask bench`: measures the plugin beside other clients that do the same work, in one run.
//!
//! The subjects take turns in rounds, so that other load on the machine affects all of them alike.
//! Every answer is checked. The tables go to standard output, all figures to a file in `target/`.
//!
//! [`soak`] is another program over the same server and clients: `cargo xtask soak`.

mod backend;
mod canned;
mod footprint;
mod measure;
mod report;
mod soak;
mod subjects;
mod workload;

use anyhow::{Context, Result, bail};
use backend::Backend;
use std::path::PathBuf;
use std::sync::Arc;
use subjects::{Ansible, Fresh, Go, InProcess, Kept, Module, Native, Process, Round, Stock, Subject, host, once};
use test_support::consul::Consul;
use tokio::runtime::Runtime;
use workload::WORKLOADS;

#[global_allocator]
static ALLOCATOR: footprint::Counting = footprint::Counting;

/// How much one run measures.
struct Extent {
    rounds: usize,
    /// Instances that are idle at the same time.
    instances: usize,
    /// Whether to measure on a real agent and under Ansible too.
    all: bool,
    /// Name of the file in `target/` for all figures.
    file: &'static str,
}

const FULL: Extent = Extent { rounds: 15, instances: 500, all: true, file: "bench.json" };
const QUICK: Extent = Extent { rounds: measure::FEWEST, instances: 50, all: false, file: "bench-quick.json" };

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        None => run(FULL),
        Some((arg, [])) if arg == "--quick" => run(QUICK),
        Some((arg, sizes)) if arg == canned::SERVE => canned::serve(sizes),
        Some((arg, rest)) if arg == subjects::ONCE => once(rest),
        Some((arg, rest)) if arg == ONLY => only(rest),
        Some((arg, rest)) if arg == soak::SOAK => soak::run(rest),
        Some((arg, _)) => bail!("unknown argument `{arg}` (expected --quick)"),
    }
}

/// First argument to repeat one workload with one subject, for a profiler.
const ONLY: &str = "only";

fn only(args: &[String]) -> Result<()> {
    let (args, backend): (_, fn() -> Result<Backend>) = match args {
        [args @ .., backend] if backend == backend::AGENT => (args, Backend::agent),
        args => (args, Backend::canned),
    };
    let [subject, workload, calls] = args else {
        bail!("usage: {ONLY} CLIENT WORKLOAD CALLS [{:?}], with the names in the tables", backend::AGENT)
    };
    let runtime = Arc::new(Runtime::new()?);
    let mut subject = in_process(&runtime)?.into_iter().find(|one| one.name() == *subject).context("no client of this name")?;
    let (workload, _) =
        WORKLOADS.into_iter().find(|(one, _)| one.to_string() == *workload).context("no workload of this name")?;
    let calls = calls.parse()?;
    let mut backend = backend()?;
    backend.prepare(workload)?;
    let Round { mut times, cpu } = subject.run(workload, &backend, calls)?;
    times.sort();
    println!("p50 {:?}, processor time {cpu:?}", measure::quantile(&times, 0.5));
    Ok(())
}

/// Returns the subjects that run in this process. All others are compared with the first.
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
    // `cargo xtask bench` sets both: the program of `go/`, and the folder with community.general.
    let path = |variable| std::env::var_os(variable).map(PathBuf::from);
    let go = path("BENCH_GO");
    let (processes, mut left_out) = Process::all(go.clone())?;
    let mut subjects = in_process(&runtime)?;
    match &go {
        Some(program) => subjects.push(Box::new(Go::start(program).with_context(|| program.display().to_string())?)),
        None => left_out.push("Consul's Go client: BENCH_GO is not set".into()),
    }
    subjects.extend(processes.into_iter().map(|process| Box::new(process) as Box<dyn Subject>));
    let mut backends = vec![Backend::canned()?];
    if extent.all {
        for module in [Module::Community, Module::Own] {
            let collections = path("BENCH_COLLECTIONS").unwrap_or_default();
            match Ansible::new(module, collections) {
                Ok(ansible) => subjects.push(Box::new(ansible)),
                Err(error) => left_out.push(format!("{module:?} under Ansible: {error:#}")),
            }
        }
        if Consul::is_missing() {
            left_out.push("the real agent: no CONSUL_BIN".into());
        } else {
            backends.push(Backend::agent()?);
        }
    }
    eprintln!("   other figures");
    let mut figures = footprint::figures(&runtime, &backends[0], extent.instances)?;
    if extent.all {
        figures.extend(runtime.block_on(footprint::growth())?);
    }
    let mut rows = Vec::new();
    for backend in &mut backends {
        rows.extend(measure::measure(backend, &mut subjects, extent.rounds)?);
    }
    report::report(&rows, &figures, &left_out, extent.rounds, extent.file)
}
