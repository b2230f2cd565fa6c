//! Runs the conformance cases in every runtime against a real Consul, and in the embedded one
//! against an older Consul and the dev agent too.
//!
//! Each case begins by cleaning its agent, so each thread has its own agents.

use anyhow::{Context, Result, anyhow, ensure};
use consul_session_dev_agent::DevAgent;
use consul_session_tests::embedded::start_dev_agent;
use consul_session_tests::report::{self, ExpectedFailure, Tally};
use consul_session_tests::runtime::{self, Running, Runtime};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use test_support::api::Api;
use test_support::case::{self, Case};
use test_support::consul::{Consul, Kind};
use test_support::tools::{self, Transpiled};
use test_support::{component, in_ci, plugin};

/// The most threads. Runtimes wait more than they compute, but two cores are not enough for more.
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
    let older = Consul::older_binary().map(Older::new).transpose()?.map(Arc::new);
    let mut trials = Vec::new();
    let mut all = 0;
    for runtime in runtime::ALL {
        let missing = is_missing(runtime);
        for case in cases.iter().filter(|case| runtime.only.is_none_or(|topic| topic == case.topic)) {
            all += 1;
            let (name, case, run) =
                (format!("{}::{}::{}", runtime.name, case.topic, case.name), Arc::clone(case), Arc::clone(&run));
            trials.push(trial(name, move || run.on_consul(runtime, &case, None)).with_ignored_flag(no_consul || missing));
        }
    }
    for (older, case) in older.iter().flat_map(|older| cases.iter().map(move |case| (older, case))) {
        all += 1;
        let (older, case, run) = (Arc::clone(older), Arc::clone(case), Arc::clone(&run));
        let name = format!("{}::{}::{}", older.name, case.topic, case.name);
        trials.push(trial(name, move || run.on_consul(&runtime::ALL[0], &case, Some(&older))));
    }
    for case in cases.iter().filter(|case| case.agent == case::Agent::Plain) {
        let (name, case, run) = (format!("dev::{}::{}", case.topic, case.name), Arc::clone(case), Arc::clone(&run));
        trials.push(trial(name, move || run.on_dev_agent(&case)));
    }
    trials.extend(probes(&run.expected));
    let conclusion = libtest_mimic::run(&arguments, trials);

    // The table reports all of these tests, so it is checked after them.
    let tallies = std::mem::take(&mut *run.tallies.lock().unwrap_or_else(PoisonError::into_inner));
    let ran: usize = tallies.values().map(|tally| tally.cases).sum();
    let partial = ran < all || conclusion.has_failed();
    let table = trial("the table in docs/runtimes.md", move || check_table(&tallies, &run.expected)).with_ignored_flag(partial);
    let table_conclusion = libtest_mimic::run(&arguments, vec![table]);
    if conclusion.has_failed() { Ok(conclusion.exit_code()) } else { Ok(table_conclusion.exit_code()) }
}

/// Makes a test whose failure shows the whole chain of causes.
fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// Returns whether the runtime is not installed, so that its tests are shown as ignored. In CI they
/// fail instead.
fn is_missing(runtime: &Runtime) -> bool {
    match runtime.installed() {
        Err(error) if !in_ci() => {
            eprintln!("ignored: {}: {error:#}", runtime.name);
            true
        }
        _ => false,
    }
}

/// The state that all threads share.
#[derive(Default)]
struct Run {
    expected: Vec<ExpectedFailure>,
    /// The results, by the name of the runtime or of the older Consul.
    tallies: Mutex<BTreeMap<String, Tally>>,
    /// The slots that no thread uses at the moment.
    idle: Mutex<Vec<Slot>>,
}

/// A Consul older than the one that all runtimes run on.
struct Older {
    /// `consul-` and the version.
    name: String,
    program: PathBuf,
}

impl Older {
    fn new(program: PathBuf) -> Result<Older> {
        Ok(Older { name: format!("consul-{}", Consul::version(&program)?), program })
    }
}

/// The agents and the runtime of one thread, reused from case to case. The first case that needs
/// one starts it.
#[derive(Default)]
struct Slot {
    consul: case::Agents,
    older: Option<case::Agents>,
    dev: Option<DevAgent>,
    running: Option<(&'static str, Running)>,
}

/// Returns the value, which is made if it is missing.
fn get_or_make<T>(option: &mut Option<T>, make: impl FnOnce() -> Result<T>) -> Result<&mut T> {
    match option {
        Some(value) => Ok(value),
        None => Ok(option.insert(make()?)),
    }
}

impl Run {
    fn with_slot<T>(&self, run: impl FnOnce(&mut Slot) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slot = idle().pop().unwrap_or_default();
        let result = run(&mut slot);
        idle().push(slot);
        result
    }

    fn on_consul(&self, runtime: &'static Runtime, case: &Case, older: Option<&Older>) -> Result<()> {
        let expected = self.expected.iter().find(|expected| expected.is_about(runtime.name, &case.name));
        let begin = Instant::now();
        let (version, result) = self.with_slot(|slot| slot.on_consul(runtime, case, older))?;
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.entry(older.map_or(runtime.name, |older| &older.name).to_owned()).or_default();
        tally.version = version;
        tally.cases += 1;
        tally.time += begin.elapsed();
        tally.passed += usize::from(result.is_ok());
        match (result, expected) {
            (result, None) => result,
            (Err(_), Some(_)) => Ok(()),
            (Ok(()), Some(expected)) => {
                Err(anyhow!("the case passes, but expected-failures.json lists it: {}", expected.reason))
            }
        }
    }

    fn on_dev_agent(&self, case: &Case) -> Result<()> {
        self.with_slot(|slot| {
            let agent = get_or_make(&mut slot.dev, || start_dev_agent((Ipv4Addr::LOCALHOST, 0).into()))?;
            let api = Api::new(agent.addr(), Kind::Plain);
            let (_, running) = get_or_start_runtime(&mut slot.running, &runtime::ALL[0])?;
            case::run(case, &api, |options| running.apply(options))
        })
    }
}

/// Returns the running runtime of a thread. It replaces another one.
fn get_or_start_runtime<'a>(
    running: &'a mut Option<(&'static str, Running)>,
    runtime: &'static Runtime,
) -> Result<&'a mut (&'static str, Running)> {
    if running.as_ref().is_some_and(|(name, _)| *name != runtime.name) {
        *running = None;
    }
    get_or_make(running, || Ok((runtime.name, runtime.start()?)))
}

impl Slot {
    /// Runs a case in a runtime, and returns the version of the runtime and the result of the case.
    ///
    /// # Errors
    ///
    /// The runtime gave no answer, which is never an expected failure.
    fn on_consul(&mut self, runtime: &'static Runtime, case: &Case, older: Option<&Older>) -> Result<(String, Result<()>)> {
        let agents = match older {
            Some(older) => self.older.get_or_insert_with(|| case::Agents::of(&older.program)),
            None => &mut self.consul,
        };
        let consul = agents.get(case.agent)?;
        let (_, running) = get_or_start_runtime(&mut self.running, runtime)?;
        let begin = consul.log_length();
        let mut broken = false;
        let result = case::run(case, &consul.api(), |options| running.apply(options).inspect_err(|_| broken = true));
        let version = running.version.clone();
        let result = result.with_context(|| {
            // The requests to the agent explain a failure best.
            let log = consul.log_since(begin);
            let requests: Vec<&str> = log.lines().filter(|line| line.contains("agent.http: Request")).collect();
            format!("the agent's log of the case:\n{}\n", requests.join("\n"))
        });
        if broken {
            // The next case starts another runtime.
            self.running = None;
            result?;
            return Err(anyhow!("the runtime broke"));
        }
        Ok((version, result))
    }
}

/// Makes a test for each script that proves an expected failure.
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
                ensure!(output.status.success(), "the limitation is gone: {}", String::from_utf8_lossy(&output.stderr));
                Ok(())
            };
            trial(format!("probe::{script}"), probe).with_ignored_flag(ignored)
        })
        .collect()
}

fn check_table(tallies: &BTreeMap<String, Tally>, expected: &[ExpectedFailure]) -> Result<()> {
    let rows: Vec<(&Runtime, Tally)> =
        runtime::ALL.iter().map(|runtime| (runtime, tallies.get(runtime.name).cloned().unwrap_or_default())).collect();
    let table = report::table(&rows, expected)?;
    std::fs::write(tools::root().join("target/conformance.md"), &table)?;
    println!("{table}");
    for file in [plugin()?, component()?] {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        println!("dist/{name}: SHA-256 {}", tools::sha256(&file)?);
    }
    for (name, Tally { cases, passed, time, .. }) in tallies {
        println!("{name}: {passed} of {cases} cases passed in {:.1} s of two threads", time.as_secs_f64());
    }
    for (runtime, tally) in &rows {
        ensure!(tally.suffices(), "{}: only {} of {} cases passed", runtime.name, tally.passed, tally.cases);
    }
    report::check_document(&table)
}
