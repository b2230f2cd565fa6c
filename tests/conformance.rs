//! The conformance cases: in every runtime against a real Consul, and in the embedded one against the dev agent too.
//!
//! Each case begins by making its agent forget everything, so each thread has agents of its own.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_dev_agent::DevAgent;
use consul_session_tests::embedded::start_dev_agent;
use consul_session_tests::report::{self, ExpectedFailure, Tally};
use consul_session_tests::runtime::{self, Running, Runtime};
use libtest_mimic::{Arguments, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use test_support::agent::Api;
use test_support::case::{self, Case};
use test_support::consul::{Consul, Kind};
use test_support::tools::{self, Transpiled};
use test_support::trial::trial;
use test_support::{component, in_ci, plugin};

/// Runtimes wait more than they compute, but a machine of two cores is enough for no more.
const THREADS: usize = 2;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("the conformance cases cannot be run: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/cases");
    let cases = case::load(Path::new(directory)).context("the cases cannot be read")?;
    let expected = report::expected_failures(runtime::ALL, &cases).context("expected-failures.json")?;
    let cases: Vec<Arc<Case>> = cases.into_iter().map(Arc::new).collect();
    let run = Arc::new(Run { expected, ..Run::default() });

    let no_consul = Consul::is_missing();
    let mut trials = Vec::new();
    let mut wanted = 0;
    for runtime in runtime::ALL {
        let missing = is_missing(runtime);
        for case in cases.iter().filter(|case| runtime.only.is_none_or(|topic| topic == case.topic)) {
            wanted += 1;
            let (name, case, run) =
                (format!("{}::{}::{}", runtime.name, case.topic, case.name), Arc::clone(case), Arc::clone(&run));
            trials.push(trial(name, move || run.on_consul(runtime, &case)).with_ignored_flag(no_consul || missing));
        }
    }
    for case in cases.iter().filter(|case| case.agent == case::Agent::Plain) {
        let (name, case, run) = (format!("dev::{}::{}", case.topic, case.name), Arc::clone(case), Arc::clone(&run));
        trials.push(trial(name, move || run.on_dev_agent(&case)));
    }
    trials.extend(probes(&run.expected));
    let conclusion = libtest_mimic::run(&arguments, trials);

    // The table is about all of this, so it comes after it.
    let tallies = std::mem::take(&mut *run.tallies.lock().unwrap_or_else(PoisonError::into_inner));
    let ran: usize = tallies.values().map(|tally| tally.cases).sum();
    let partial = ran < wanted || conclusion.has_failed();
    let table = trial("the table in README.md", move || check_table(&tallies, &run.expected)).with_ignored_flag(partial);
    let table_conclusion = libtest_mimic::run(&arguments, vec![table]);
    if conclusion.has_failed() { Ok(conclusion.exit_code()) } else { Ok(table_conclusion.exit_code()) }
}

/// Whether the runtime is not installed, so that its tests are to be shown as ignored; never in CI.
fn is_missing(runtime: &Runtime) -> bool {
    match runtime.installed() {
        Err(error) if !in_ci() => {
            eprintln!("ignored: {}: {error:#}", runtime.name);
            true
        }
        _ => false,
    }
}

/// What all threads share.
#[derive(Default)]
struct Run {
    expected: Vec<ExpectedFailure>,
    /// By the name of the runtime.
    tallies: Mutex<BTreeMap<&'static str, Tally>>,
    /// What no thread uses at the moment.
    idle: Mutex<Vec<Slot>>,
}

/// What a thread has to itself: agents, and runtimes that go on from case to case. Each is started by the first case that
/// needs it.
#[derive(Default)]
struct Slot {
    plain: Option<Consul>,
    acl: Option<Consul>,
    dev: Option<DevAgent>,
    running: Option<(&'static str, Running)>,
}

/// The thing, made if it is not there.
fn made<T>(thing: &mut Option<T>, make: impl FnOnce() -> Result<T>) -> Result<&mut T> {
    match thing {
        Some(thing) => Ok(thing),
        None => Ok(thing.insert(make()?)),
    }
}

impl Run {
    fn with_slot<T>(&self, use_it: impl FnOnce(&mut Slot) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slot = idle().pop().unwrap_or_default();
        let result = use_it(&mut slot);
        idle().push(slot);
        result
    }

    fn on_consul(&self, runtime: &'static Runtime, case: &Case) -> Result<()> {
        let expected = self.expected.iter().find(|expected| expected.is_about(runtime.name, &case.name));
        let begin = Instant::now();
        let (version, result) = self.with_slot(|slot| slot.on_consul(runtime, case))?;
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.entry(runtime.name).or_default();
        tally.version = version;
        tally.cases += 1;
        tally.time += begin.elapsed();
        tally.passed += usize::from(result.is_ok());
        match (result, expected) {
            (result, None) => result,
            (Err(_), Some(_)) => Ok(()),
            (Ok(()), Some(expected)) => {
                Err(anyhow!("passes, and expected-failures.json says that it cannot: {}", expected.reason))
            }
        }
    }

    fn on_dev_agent(&self, case: &Case) -> Result<()> {
        self.with_slot(|slot| {
            let agent = made(&mut slot.dev, || start_dev_agent((Ipv4Addr::LOCALHOST, 0).into()))?;
            let api = Api::new(agent.addr(), Kind::Plain);
            let (_, running) = made_runtime(&mut slot.running, &runtime::ALL[0])?;
            case::run(case, &api, |options| running.apply(options))
        })
    }
}

/// The runtime of a thread, in the place of the one before.
fn made_runtime<'a>(
    running: &'a mut Option<(&'static str, Running)>,
    runtime: &'static Runtime,
) -> Result<&'a mut (&'static str, Running)> {
    if running.as_ref().is_some_and(|(name, _)| *name != runtime.name) {
        *running = None;
    }
    made(running, || Ok((runtime.name, runtime.start()?)))
}

impl Slot {
    /// Runs a case in a runtime: its version, and what came of the case. An error is more than a failed case, and never
    /// expected: the runtime gave no answer.
    fn on_consul(&mut self, runtime: &'static Runtime, case: &Case) -> Result<(String, Result<()>)> {
        let (agent, kind) = match case.agent {
            case::Agent::Plain => (&mut self.plain, Kind::Plain),
            case::Agent::Acl => (&mut self.acl, Kind::Acl),
        };
        let consul = made(agent, || Consul::start(kind))?;
        let (_, running) = made_runtime(&mut self.running, runtime)?;
        let begin = consul.log_length();
        let mut broken = false;
        let result = case::run(case, &consul.api(), |options| running.apply(options).inspect_err(|_| broken = true));
        let version = running.version.clone();
        let result = result.with_context(|| {
            // What the agent was asked says more than anything else about what went wrong.
            let log = consul.log_since(begin);
            let requests: Vec<&str> = log.lines().filter(|line| line.contains("agent.http: Request")).collect();
            format!("the agent's log of the case:\n{}\n", requests.join("\n"))
        });
        if broken {
            // The next case gets another.
            self.running = None;
            result?;
            return Err(anyhow!("the runtime broke"));
        }
        Ok((version, result))
    }
}

/// A test for each script that proves an expected failure.
fn probes(expected: &[ExpectedFailure]) -> Vec<Trial> {
    let scripts: BTreeSet<&str> = expected.iter().filter_map(ExpectedFailure::script).collect();
    scripts
        .into_iter()
        .map(|script| {
            let ignored =
                !in_ci() && (tools::node_modules().is_err() || (script.contains("browser") && tools::chromium().is_err()));
            let file = tools::root().join("tests/conformance").join(script);
            let probe = move || {
                let output = tools::command("node").arg(file).arg(tools::transpiled(Transpiled::Browser)?).output()?;
                ensure!(output.status.success(), "it is not so any more: {}", String::from_utf8_lossy(&output.stderr));
                Ok(())
            };
            trial(format!("probe::{script}"), probe).with_ignored_flag(ignored)
        })
        .collect()
}

fn check_table(tallies: &BTreeMap<&'static str, Tally>, expected: &[ExpectedFailure]) -> Result<()> {
    let rows: Vec<(&Runtime, Tally)> =
        runtime::ALL.iter().map(|runtime| (runtime, tallies.get(runtime.name).cloned().unwrap_or_default())).collect();
    let table = report::table(&rows, expected)?;
    std::fs::write(tools::root().join("target/conformance.md"), &table)?;
    println!("{table}");
    for file in [plugin()?, component()?] {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        println!("dist/{name}: SHA-256 {}", tools::sha256(&file)?);
    }
    for (runtime, tally) in &rows {
        println!("{}: {} cases in {:.1} s of two threads", runtime.name, tally.cases, tally.time.as_secs_f64());
    }
    for (runtime, tally) in &rows {
        ensure!(tally.suffices(), "{}: only {} of {} cases passed", runtime.name, tally.passed, tally.cases);
    }
    report::check_readme(&table)
}
