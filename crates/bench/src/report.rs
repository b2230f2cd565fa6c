//! The report: tables for people, the targets, and all figures as JSON.

use crate::backend::{AGENT, CANNED};
use crate::document;
use crate::footprint::{Figure, IDLE, PEAK};
use crate::measure::{FEWEST, Row, Run, median};
use crate::plan::Plan;
use crate::subjects::{CACHED, COMPILES, CURL, FRESH, GO, KEPT, Module, NATIVE, PLUGIN, POOLED, named};
use crate::workload::{CALLERS, WORKLOADS, Workload};
use anyhow::{Context, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use test_support::consul::Consul;
use test_support::tools::{ansible_playbook, command, root, wasmtime};

/// Prints the tables, and writes all figures to a file in `target/`. Writes those of the
/// documents too if [`Plan::is_documented`].
pub fn report(runs: &[Run], plan: &Plan) -> Result<()> {
    let last = runs.last().context("no run")?;
    let (rounds, file) = (plan.extent.rounds, plan.extent.file);
    let versions = versions();
    let cores = std::thread::available_parallelism()?.get();
    let profile = if cfg!(debug_assertions) { "dev, not optimised: the times mean nothing" } else { "dist" };
    println!(
        "{rounds} rounds ({FEWEST} for workloads that take long), in turns. Cores: {cores}. Profile: {profile}. {}.\n",
        list(&versions)
    );
    if runs.len() > 1 {
        println!("The targets are compared with the medians of {} runs. All other tables are of the last run.\n", runs.len());
    }
    for backend in [CANNED, AGENT] {
        if let Some(times) = times(last, backend) {
            println!("## On the {backend}\n\n{}\n", aligned(times, 2));
        }
    }
    if let Some(other) = plan.other() {
        println!("## Time as a multiple of that of {other}\n\n{}\n", aligned(against(last, &other), 2));
    }
    println!("## Other figures\n\n{}\n", aligned(others(&last.figures), 1));
    let targets = targets(runs);
    println!("## Targets\n\n{}\n", aligned(compared(&targets, runs.len()), 1));
    for reason in &last.left_out {
        println!("Not measured: {reason}");
    }
    let json = json!({
        "rounds": rounds, "cores": cores, "profile": profile,
        "versions": versions.into_iter().collect::<BTreeMap<_, _>>(),
        "targets": targets.iter().map(|target| json!({
            "what": target.what, "bound": target.bound.to_string(), "figures": target.figures, "figure": target.figure(),
            "met": target.met(),
        })).collect::<Vec<_>>(),
        "runs": runs,
    });
    let json = format!("{json:#}\n");
    std::fs::write(root().join("target").join(file), &json)?;
    if plan.is_documented() {
        std::fs::write(root().join(document::FIGURES), json)?;
        document::write(runs, root())?;
    }
    let calls: usize = runs.iter().flat_map(|run| &run.times).map(|row| row.calls).sum();
    println!("{calls} calls; all figures are in target/{file}");
    Ok(())
}

/// Returns the table of times on one backend, if something was measured there.
fn times(run: &Run, backend: &str) -> Option<Table> {
    let mut shown = table(&["workload", "client", "p50", "p99", "× the first", "processor time", "calls"]);
    let mut first: Option<&Row> = None;
    for row in run.times.iter().filter(|row| row.backend == backend) {
        let is_first = first.is_none_or(|first| first.workload != row.workload);
        let base = *first.insert(first.filter(|_| !is_first).unwrap_or(row));
        shown.add_row(vec![
            if is_first { row.workload.clone() } else { String::new() },
            row.subject.clone(),
            time(row.p50_ns),
            time(row.p99_ns),
            number(row.ratio(base)),
            row.cpu_ns.map(time).unwrap_or_default(),
            row.calls.to_string(),
        ]);
    }
    first.map(|_| shown)
}

/// Returns the table that compares the plugin with another one.
fn against(run: &Run, other: &str) -> Table {
    let mut shown = table(&["workload", "server", KEPT, FRESH]);
    for backend in [CANNED, AGENT] {
        for (workload, _) in WORKLOADS {
            let ratio = |instances| run.ratio(backend, workload, &named(PLUGIN, instances), &named(other, instances));
            if let Some((kept, fresh)) = ratio(KEPT).zip(ratio(FRESH)) {
                shown.add_row(vec![workload.to_string(), backend.to_owned(), number(kept), number(fresh)]);
            }
        }
    }
    shown
}

fn others(figures: &[Figure]) -> Table {
    let mut shown = table(&["figure", "value", "unit"]);
    for figure in figures {
        shown.add_row(vec![figure.what.clone(), number(figure.value), figure.unit.clone()]);
    }
    shown
}

/// Returns the table of targets. Only several runs have a least and a most figure.
pub fn compared(targets: &[Target], runs: usize) -> Table {
    let has_range = runs > 1;
    let range = if has_range { &["least", "most"][..] } else { &[] };
    let mut shown = table(&[&["what", "bound", "figure"], range, &["met"]].concat());
    for target in targets {
        let text = |figure: Option<f64>| figure.map(number).unwrap_or_default();
        let mut row = vec![target.what.clone(), target.bound.to_string(), text(target.figure())];
        if has_range {
            let figures = || target.figures.iter().copied();
            row.extend([figures().reduce(f64::min), figures().reduce(f64::max)].map(text));
        }
        row.push(target.met().map_or("not measured", |met| if met { "yes" } else { "no" }).into());
        shown.add_row(row);
    }
    shown
}

/// What a figure may be.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(f, "<= {}", number(*bound)),
            Bound::AtLeast(bound) => write!(f, ">= {}", number(*bound)),
        }
    }
}

/// A bound for the median of a figure of several runs.
pub struct Target {
    what: String,
    bound: Bound,
    /// The figure of each run. None if a run lacks it.
    figures: Vec<f64>,
}

impl Target {
    fn new(runs: &[Run], what: String, bound: Bound, figure: impl Fn(&Run) -> Option<f64>) -> Target {
        Target { what, bound, figures: runs.iter().map(figure).collect::<Option<_>>().unwrap_or_default() }
    }

    fn figure(&self) -> Option<f64> {
        (!self.figures.is_empty()).then(|| median(self.figures.clone()))
    }

    fn met(&self) -> Option<bool> {
        self.figure().map(|figure| match self.bound {
            Bound::AtMost(bound) => figure <= bound,
            Bound::AtLeast(bound) => figure >= bound,
        })
    }
}

/// Returns the targets, with their figures in these runs.
pub fn targets(runs: &[Run]) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    let new = |what: String, bound, figure: &dyn Fn(&Run) -> Option<f64>| Target::new(runs, what, bound, figure);
    let ratio = |backend: &str, workload: Workload, one: &str, other: &str, bound| {
        new(format!("{workload}, {backend}, {one} / {other}"), bound, &|run| run.ratio(backend, workload, one, other))
    };
    let plugin = |backend: &str, workload: Workload, instances: &str, other: &str, bound| {
        let subject = named(PLUGIN, instances);
        new(format!("{workload}, {backend}, {instances} / {other}"), bound, &|run| {
            run.ratio(backend, workload, &subject, other)
        })
    };
    let small = [Workload::Info, Workload::CreateDestroy, Workload::Present, Workload::List(10)];
    let large = [Workload::List(10_000), Workload::List(100_000)];
    let concurrent = Workload::Create(CALLERS);
    let mut targets = Vec::new();
    for (instances, bound) in [(FRESH, 1.0), (POOLED, 0.85), (KEPT, 0.85)] {
        targets.extend(small.map(|workload| plugin(AGENT, workload, instances, GO, AtMost(bound))));
    }
    targets.push(plugin(CANNED, Workload::Info, KEPT, NATIVE, AtMost(1.5)));
    targets.push(plugin(CANNED, Workload::Info, FRESH, NATIVE, AtMost(1.9)));
    targets.push(plugin(AGENT, concurrent, FRESH, GO, AtMost(1.0)));
    let what = format!("{concurrent}, {CANNED}, operations per second, {KEPT} / {NATIVE}");
    // Operations per second are the inverse of the time per operation.
    targets.push(new(what, AtLeast(0.6), &|run| run.ratio(CANNED, concurrent, NATIVE, &named(PLUGIN, KEPT))));
    targets.extend(large.map(|workload| plugin(CANNED, workload, KEPT, NATIVE, AtMost(1.3))));
    targets.extend(large.map(|workload| plugin(AGENT, workload, KEPT, GO, AtMost(0.65))));
    targets.extend([CANNED, AGENT].map(|backend| ratio(backend, Workload::Cold, CACHED, CURL, AtMost(1.2))));
    targets.push(new(format!("{}, {CANNED}, {COMPILES}, p50, ms", Workload::Cold), AtMost(150.0), &|run| {
        Some(run.row(CANNED, Workload::Cold, COMPILES)?.p50_ns as f64 / 1e6)
    }));
    let [own, community] = [Module::Own, Module::Community].map(Module::name);
    targets.push(ratio(AGENT, Workload::Task, own, community, AtMost(0.2)));
    targets.push(new(format!("{IDLE}, KiB resident"), AtMost(64.0), &|run| run.figure(IDLE)));
    targets.push(new(PEAK.into(), AtMost(3.0), &|run| run.figure(PEAK)));
    targets
}

/// Returns the versions of everything that was measured, as the programs print them.
fn versions() -> Vec<(&'static str, String)> {
    let first_line = |program: Option<PathBuf>, args: &[&str]| {
        let output = command(program?).args(args).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let on_path = |name: &str| Some(PathBuf::from(name));
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap_or_default();
    let locked = lock.split_once("name = \"wasmtime\"\nversion = \"").and_then(|(_, rest)| rest.split('"').next());
    let all = [
        ("rustc", first_line(on_path("rustc"), &["--version"])),
        ("wasmtime (crate)", locked.map(str::to_owned)),
        ("wasmtime (program)", first_line(wasmtime().ok(), &["--version"])),
        ("consul", first_line(Consul::binary(), &["version"])),
        ("go", first_line(on_path("go"), &["version"])),
        (
            "curl",
            first_line(on_path("curl"), &["--version"]).map(|line| line.split(" (").next().unwrap_or_default().to_owned()),
        ),
        ("ansible", first_line(ansible_playbook().ok(), &["--version"])),
        ("community.general", collection()),
    ];
    all.into_iter().filter_map(|(name, version)| Some((name, version?))).collect()
}

/// Returns the version of community.general.
fn collection() -> Option<String> {
    let folder = PathBuf::from(std::env::var_os("BENCH_COLLECTIONS")?).join("ansible_collections/community/general");
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("MANIFEST.json")).ok()?).ok()?;
    manifest["collection_info"]["version"].as_str().map(str::to_owned)
}

fn list(versions: &[(&str, String)]) -> String {
    versions.iter().map(|(name, version)| format!("{name}: {version}")).collect::<Vec<_>>().join("; ")
}

/// Returns an empty table with this header.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header.to_vec());
    table
}

/// Aligns all columns from this one on to the right.
pub fn aligned(mut table: Table, from: usize) -> Table {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns a time in nanoseconds, for JSON.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Formats nanoseconds with three digits.
pub fn time(nanoseconds: u64) -> String {
    let seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
    let (value, unit) = match seconds {
        ..1e-3 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    format!("{} {unit}", number(value))
}

fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(idle: f64, native: u64, kept: u64) -> Run {
        let row = |subject: &str, time| Row::of_rounds(CANNED, Workload::Create(CALLERS), subject, &[time]);
        let figures = vec![Figure { what: IDLE.into(), value: idle, unit: String::new() }];
        Run { left_out: Vec::new(), figures, times: vec![row(NATIVE, native), row(&named(PLUGIN, KEPT), kept)] }
    }

    /// Returns the cells of the target whose name contains this.
    fn cells(runs: &[Run], what: &str) -> Vec<String> {
        let table = compared(&targets(runs), runs.len()).to_string();
        let row = table.lines().find(|line| line.contains(what)).unwrap();
        row.trim_matches('|').split('|').skip(1).map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn targets_are_compared_with_the_median_of_the_runs() {
        let runs = [run(80.0, 70, 100), run(60.0, 50, 100), run(63.0, 59, 100)];
        assert_eq!(cells(&runs, IDLE), ["<= 64.0", "63.0", "60.0", "80.0", "yes"]);
        assert_eq!(cells(&runs, "operations per second"), [">= 0.60", "0.59", "0.50", "0.70", "no"]);
        assert_eq!(cells(&runs[1..2], IDLE), ["<= 64.0", "60.0", "yes"]);
        assert_eq!(cells(&runs[..1], "operations per second"), [">= 0.60", "0.70", "yes"]);
    }

    #[test]
    fn targets_that_a_run_lacks_are_not_measured() {
        let mut runs = [run(80.0, 70, 100), run(60.0, 50, 100)];
        runs[1].figures.clear();
        assert_eq!(cells(&runs, IDLE), ["<= 64.0", "", "", "", "not measured"]);
    }
}
