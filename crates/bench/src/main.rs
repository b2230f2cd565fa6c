//! `cargo xtask bench`: measures the plugin beside other clients that do the same work, in one run.
//!
//! The subjects take turns in rounds, so that other load on the machine affects all of them alike.
//! Every answer is checked. The tables go to standard output, all figures to a file in `target/`.
//!
//! [`soak`] is another program over the same server and clients: `cargo xtask soak`.

mod backend;
mod canned;
mod document;
mod footprint;
mod graph;
mod measure;
mod plan;
mod report;
mod soak;
mod subjects;
mod workload;

use anyhow::{Context, Result, bail, ensure};
use backend::Backend;
use measure::Run;
use plan::Plan;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use subjects::{
    Ansible, Fresh, Go, InProcess, Kept, Module, Native, PLUGIN, Pooled, Process, Round, Stock, Subject, host, load, once,
};
use test_support::consul::Consul;
use tokio::runtime::Runtime;
use workload::{CALLERS, WORKLOADS, Workload};

#[global_allocator]
static ALLOCATOR: footprint::Counting = footprint::Counting;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((arg, sizes)) if arg == canned::SERVE => canned::serve(sizes),
        Some((arg, rest)) if arg == subjects::ONCE => once(rest),
        Some((arg, rest)) if arg == ONLY => only(rest),
        Some((arg, rest)) if arg == MEASURE => Ok(serde_json::to_writer(std::io::stdout(), &measure(&Plan::new(rest)?)?)?),
        Some((arg, rest)) if arg == document::DOCUMENT => document::run(rest),
        Some((arg, rest)) if arg == soak::SOAK => soak::run(rest),
        _ => run(&args),
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
        Box::new(InProcess::new(runtime, Kept(PLUGIN.into(), host()?))),
        Box::new(InProcess::new(runtime, Pooled(PLUGIN.into(), host()?.pool(CALLERS)))),
        Box::new(InProcess::new(runtime, Fresh(PLUGIN.into(), host()?))),
        Box::new(InProcess::new(runtime, Stock::new()?)),
    ])
}

/// Returns the subjects that call another plugin, once each of their functions has answered.
///
/// # Errors
///
/// Fails if the plugin does not load, or has another WIT: the host compares the types of a function
/// when it is called.
fn others(runtime: &Arc<Runtime>, path: &Path, name: &str, backend: &Backend) -> Result<[Box<dyn Subject>; 2]> {
    let mut others: [Box<dyn Subject>; 2] = [
        Box::new(InProcess::new(runtime, Kept(name.into(), load(path)?))),
        Box::new(InProcess::new(runtime, Fresh(name.into(), load(path)?))),
    ];
    for workload in [Workload::Info, Workload::CreateDestroy, Workload::Present, Workload::List(10)] {
        others[0].run(workload, backend, 1).with_context(|| format!("{workload}: the host cannot call {name}"))?;
    }
    Ok(others)
}

/// Measures as often as the arguments say, and reports it.
fn run(args: &[String]) -> Result<()> {
    let plan = Plan::new(args)?;
    let mut runs = Vec::new();
    for n in 1..=plan.runs {
        if plan.runs > 1 {
            eprintln!("   run {n} of {}", plan.runs);
        }
        runs.push(measure_apart(args)?);
    }
    report::report(&runs, &plan)
}

/// First argument to measure once, and to print the figures as JSON.
const MEASURE: &str = "measure";

/// Measures in a process of its own. In one that has measured before, instances take memory that was
/// resident already.
fn measure_apart(args: &[String]) -> Result<Run> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg(MEASURE).args(args).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed, see above ({})", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(plan: &Plan) -> Result<Run> {
    let runtime = Arc::new(Runtime::new()?);
    let mut backends = vec![Backend::canned()?];
    let mut subjects = in_process(&runtime)?;
    if let Some((path, name)) = plan.against.as_deref().zip(plan.other()) {
        subjects.extend(others(&runtime, path, &name, &backends[0])?);
    }
    // `cargo xtask bench` sets both: the program of `go/`, and the folder with community.general.
    let path = |variable| std::env::var_os(variable).map(PathBuf::from);
    let go = path("BENCH_GO");
    let (processes, mut left_out) = Process::all(go.clone())?;
    match &go {
        Some(program) => subjects.push(Box::new(Go::start(program).with_context(|| program.display().to_string())?)),
        None => left_out.push("Consul's Go client: BENCH_GO is not set".into()),
    }
    subjects.extend(processes.into_iter().map(|process| Box::new(process) as Box<dyn Subject>));
    if plan.extent.all {
        for module in [Module::Community, Module::Own] {
            let collections = path("BENCH_COLLECTIONS").unwrap_or_default();
            match Ansible::new(module, collections) {
                Ok(ansible) => subjects.push(Box::new(ansible)),
                Err(error) => left_out.push(format!("{}: {error:#}", module.name())),
            }
        }
        if Consul::is_missing() {
            left_out.push("the real agent: no CONSUL_BIN".into());
        } else {
            backends.push(Backend::agent()?);
        }
    }
    let is_whole = left_out.is_empty() || !plan.is_documented();
    ensure!(is_whole, "UPDATE_DOCS=1 documents whole runs only; not measured would be:\n{}", left_out.join("\n"));
    eprintln!("   other figures");
    let mut figures = footprint::figures(&runtime, &backends[0], plan.extent.instances)?;
    if plan.extent.all {
        figures.extend(runtime.block_on(footprint::growth())?);
    }
    let mut times = Vec::new();
    for backend in &mut backends {
        times.extend(measure::measure(backend, &mut subjects, plan.extent.rounds)?);
    }
    Ok(Run { left_out, figures, times })
}
