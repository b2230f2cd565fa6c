//! The report: tables for people, the targets, and all figures as JSON.

use crate::backend::{AGENT, CANNED};
use crate::footprint::{Figure, IDLE, PEAK, PLUGIN, READY};
use crate::measure::{FEWEST, Row};
use crate::subjects::{Client, Fresh, Kept, Native};
use crate::workload::Workload;
use anyhow::Result;
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use test_support::consul::Consul;
use test_support::tools::{ansible_playbook, command, root, wasmtime};

const GO: &str = "Consul's Go client";

/// Prints the tables and writes all figures to this file in `target/`.
pub fn report(rows: &[Row], figures: &[Figure], left_out: &[String], rounds: usize, file: &str) -> Result<()> {
    let versions = versions();
    let cores = std::thread::available_parallelism()?.get();
    let profile = if cfg!(debug_assertions) { "dev, not optimised: the times mean nothing" } else { "dist" };
    println!(
        "{rounds} rounds ({FEWEST} for workloads that take long), in turns. Cores: {cores}. Profile: {profile}. {}.\n",
        list(&versions)
    );
    for backend in [CANNED, AGENT] {
        let mut shown = table(&["workload", "client", "p50", "p99", "× the first", "processor time", "calls"]);
        let mut first: Option<&Row> = None;
        for row in rows.iter().filter(|row| row.backend == backend) {
            let workload = if first.is_some_and(|first| first.workload == row.workload) {
                String::new()
            } else {
                row.workload.to_string()
            };
            let base = *first.insert(first.filter(|first| first.workload == row.workload).unwrap_or(row));
            shown.add_row(vec![
                workload,
                row.subject.clone(),
                time(row.quantile(0.5)),
                time(row.quantile(0.99)),
                format!("{:.2}", row.ratio(base)),
                row.cpu.map(time).unwrap_or_default(),
                row.calls().to_string(),
            ]);
        }
        if first.is_some() {
            println!("## On the {backend}\n\n{}\n", aligned(shown, 2));
        }
    }
    let mut other = table(&["figure", "value", "unit"]);
    for figure in figures {
        other.add_row(vec![figure.what.clone(), number(figure.value), figure.unit.to_owned()]);
    }
    println!("## Other figures\n\n{}\n", aligned(other, 1));
    let targets = targets(rows, figures);
    let mut shown = table(&["target", "at most", "figure", "met"]);
    for target in &targets {
        let met = target.met().map_or("not measured", |met| if met { "yes" } else { "no" });
        let figure = target.figure.map(number).unwrap_or_default();
        shown.add_row(vec![target.what.clone(), target.bound(), figure, met.into()]);
    }
    println!("## Targets\n\n{}\n", aligned(shown, 1));
    for reason in left_out {
        println!("Not measured: {reason}");
    }
    let json = json!({
        "rounds": rounds, "cores": cores, "profile": profile, "left_out": left_out, "figures": figures,
        "versions": versions.into_iter().map(|(name, version)| (name.to_owned(), version.into())).collect::<serde_json::Map<_, _>>(),
        "times": rows.iter().map(|row| json!({
            "backend": row.backend, "workload": row.workload.to_string(), "subject": row.subject, "calls": row.calls(),
            "p50_ns": nanoseconds(row.quantile(0.5)), "p99_ns": nanoseconds(row.quantile(0.99)), "cpu_ns": row.cpu.map(nanoseconds),
            "rounds_ns": row.rounds().iter().copied().map(nanoseconds).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "targets": targets.iter().map(|target| json!({
            "what": target.what, "bound": target.bound, "figure": target.figure, "met": target.met(),
        })).collect::<Vec<_>>(),
    });
    let path = root().join("target").join(file);
    std::fs::write(&path, format!("{json:#}\n"))?;
    println!("{} calls; all figures are in target/{file}", rows.iter().map(Row::calls).sum::<usize>());
    Ok(())
}

/// An upper or lower bound for a figure.
struct Target {
    what: String,
    bound: f64,
    figure: Option<f64>,
    /// Whether the bound is a lower one.
    least: bool,
}

impl Target {
    fn met(&self) -> Option<bool> {
        self.figure.map(|figure| if self.least { figure >= self.bound } else { figure <= self.bound })
    }

    fn bound(&self) -> String {
        if self.least { format!("at least {}", number(self.bound)) } else { number(self.bound) }
    }
}

fn targets(rows: &[Row], figures: &[Figure]) -> Vec<Target> {
    let find = |backend: &str, workload: Workload, subject: &str| {
        rows.iter().find(|row| row.backend == backend && row.workload == workload && row.subject == subject)
    };
    let ratio = |backend, workload, one, other| Some(find(backend, workload, one)?.ratio(find(backend, workload, other)?));
    let of = |name: &str| figures.iter().find(|figure| figure.what == name).map(|figure| figure.value);
    let mut targets = Vec::new();
    let mut most = |what: String, bound: f64, figure: Option<f64>| targets.push(Target { what, bound, figure, least: false });
    let (native, kept, fresh) = (Native::NAME, Kept::NAME, Fresh::NAME);
    let large = Workload::List(100_000);
    most(format!("info, {CANNED}, kept instance / {native}"), 1.10, ratio(CANNED, Workload::Info, kept, native));
    most(format!("info, {CANNED}, fresh instance / {native}"), 1.25, ratio(CANNED, Workload::Info, fresh, native));
    for subject in [kept, fresh] {
        most(format!("{large}, {CANNED}, {subject} / {native}"), 1.20, ratio(CANNED, large, subject, native));
    }
    most(PEAK.into(), 3.0, of(PEAK));
    for (workload, _) in crate::workload::WORKLOADS {
        if !matches!(workload, Workload::Cold | Workload::Task) {
            let bound = if let Workload::List(10_000..) = workload { 0.5 } else { 1.0 };
            most(format!("{workload}, {AGENT}, kept instance / {GO}"), bound, ratio(AGENT, workload, kept, GO));
            most(format!("{workload}, {AGENT}, fresh instance / {GO}"), bound, ratio(AGENT, workload, fresh, GO));
        }
    }
    most(READY.into(), 10.0, of(READY));
    for backend in [CANNED, AGENT] {
        let cold = "consul-session with its cache";
        most(format!("{cold} / curl, {backend}"), 2.0, ratio(backend, Workload::Cold, cold, "curl"));
    }
    let call = find(AGENT, Workload::Present, fresh).map(|row| row.quantile(0.5).as_secs_f64());
    let task = find(AGENT, Workload::Task, "community.general under Ansible").map(|row| row.quantile(0.5).as_secs_f64());
    let call_of_task = call.zip(task).map(|(call, task)| call / task);
    most("the call of a task, fresh instance / community.general's task".into(), 0.01, call_of_task);
    most(format!("{PLUGIN}, bytes"), 330_000.0, of(PLUGIN));
    most(format!("{IDLE}, KiB"), 256.0, of(IDLE));
    for backend in [CANNED, AGENT] {
        for subject in [kept, fresh] {
            // Operations per second are the inverse of the time per operation.
            let figure = ratio(backend, Workload::Create(64), native, subject);
            let what = format!("64 at a time, {backend}, operations per second, {subject} / {native}");
            targets.push(Target { what, bound: 0.95, figure, least: true });
        }
    }
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

/// Formats a time with three digits.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
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
