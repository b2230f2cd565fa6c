//! The tables, the targets, and the same as JSON.

use crate::footprint::{Figure, IDLE, PEAK, PLUGIN, READY};
use crate::measure::{FEWEST, Row};
use crate::place::{AGENT, CANNED};
use crate::subjects::{Fresh, Kept, Kind, Native};
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

/// Prints it all, and writes this file in `target/`.
pub fn report(rows: &[Row], figures: &[Figure], left_out: &[String], rounds: usize, file: &str) -> Result<()> {
    let versions = versions();
    let cores = std::thread::available_parallelism()?.get();
    let profile = if cfg!(debug_assertions) { "dev: host code is not optimised, so that times say nothing" } else { "dist" };
    println!(
        "{rounds} rounds ({FEWEST} of what takes long), in turns. Cores: {cores}. Profile: {profile}. {}.\n",
        list(&versions)
    );
    for place in [CANNED, AGENT] {
        let mut shown = table(&["work", "who", "p50", "p99", "× the first", "processor", "calls"]);
        let mut first: Option<&Row> = None;
        for row in rows.iter().filter(|row| row.place == place) {
            let work = if first.is_some_and(|first| first.work == row.work) { String::new() } else { row.work.to_string() };
            let base = *first.insert(first.filter(|first| first.work == row.work).unwrap_or(row));
            shown.add_row(vec![
                work,
                row.peer.clone(),
                time(row.quantile(0.5)),
                time(row.quantile(0.99)),
                format!("{:.2}", row.ratio(base)),
                row.cpu.map(time).unwrap_or_default(),
                row.calls().to_string(),
            ]);
        }
        if first.is_some() {
            println!("## On the {place}\n\n{}\n", aligned(shown, 2));
        }
    }
    let mut beside = table(&["what", "how much", "of what"]);
    for figure in figures {
        beside.add_row(vec![figure.what.clone(), number(figure.value), figure.unit.to_owned()]);
    }
    println!("## Beside the times\n\n{}\n", aligned(beside, 1));
    let targets = targets(rows, figures);
    let mut shown = table(&["target", "at most", "figure", "met"]);
    for target in &targets {
        let met = target.met().map_or("not measured", |met| if met { "yes" } else { "no" });
        let figure = target.figure.map(number).unwrap_or_default();
        shown.add_row(vec![target.what.clone(), target.bound(), figure, met.into()]);
    }
    println!("## Targets\n\n{}\n", aligned(shown, 1));
    for reason in left_out {
        println!("Left out: {reason}");
    }
    let json = json!({
        "rounds": rounds, "cores": cores, "profile": profile, "left_out": left_out, "beside": figures,
        "versions": versions.into_iter().map(|(name, version)| (name.to_owned(), version.into())).collect::<serde_json::Map<_, _>>(),
        "times": rows.iter().map(|row| json!({
            "place": row.place, "work": row.work.to_string(), "peer": row.peer, "calls": row.calls(),
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

/// One line of the table.
struct Target {
    what: String,
    bound: f64,
    figure: Option<f64>,
    /// At least, not at most.
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
    let find = |place: &str, work: Workload, peer: &str| {
        rows.iter().find(|row| row.place == place && row.work == work && row.peer == peer)
    };
    let ratio = |place, work, one, other| Some(find(place, work, one)?.ratio(find(place, work, other)?));
    let of = |name: &str| figures.iter().find(|figure| figure.what == name).map(|figure| figure.value);
    let mut targets = Vec::new();
    let mut most = |what: String, bound: f64, figure: Option<f64>| targets.push(Target { what, bound, figure, least: false });
    let (native, kept, fresh) = (Native::NAME, Kept::NAME, Fresh::NAME);
    let large = Workload::List(100_000);
    most(format!("info, {CANNED}, kept instance / {native}"), 1.10, ratio(CANNED, Workload::Info, kept, native));
    most(format!("info, {CANNED}, fresh instance / {native}"), 1.25, ratio(CANNED, Workload::Info, fresh, native));
    for peer in [kept, fresh] {
        most(format!("{large}, {CANNED}, {peer} / {native}"), 1.20, ratio(CANNED, large, peer, native));
    }
    most(PEAK.into(), 3.0, of(PEAK));
    for (work, _) in crate::workload::WORKLOADS {
        if !matches!(work, Workload::Cold | Workload::Task) {
            let bound = if let Workload::List(10_000..) = work { 0.5 } else { 1.0 };
            most(format!("{work}, {AGENT}, kept instance / {GO}"), bound, ratio(AGENT, work, kept, GO));
            most(format!("{work}, {AGENT}, fresh instance / {GO}"), bound, ratio(AGENT, work, fresh, GO));
        }
    }
    most(READY.into(), 10.0, of(READY));
    for place in [CANNED, AGENT] {
        let cold = "consul-session with its cache";
        most(format!("{cold} / curl, {place}"), 2.0, ratio(place, Workload::Cold, cold, "curl"));
    }
    let call = find(AGENT, Workload::Present, fresh).map(|row| row.quantile(0.5).as_secs_f64());
    let task = find(AGENT, Workload::Task, "community.general under Ansible").map(|row| row.quantile(0.5).as_secs_f64());
    let call_of_task = call.zip(task).map(|(call, task)| call / task);
    most("the call of a task, fresh instance / community.general's task".into(), 0.01, call_of_task);
    most(format!("{PLUGIN}, bytes"), 330_000.0, of(PLUGIN));
    most(format!("{IDLE}, KiB"), 256.0, of(IDLE));
    for place in [CANNED, AGENT] {
        for peer in [kept, fresh] {
            // Operations per second are the inverse of the time for one.
            let figure = ratio(place, Workload::Create(64), native, peer);
            let what = format!("64 at a time, {place}, operations per second, {peer} / {native}");
            targets.push(Target { what, bound: 0.95, figure, least: true });
        }
    }
    targets
}

/// What was measured, as each says itself.
fn versions() -> Vec<(&'static str, String)> {
    let says = |program: Option<PathBuf>, words: &[&str]| {
        let output = command(program?).args(words).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let on_path = |name: &str| Some(PathBuf::from(name));
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap_or_default();
    let locked = lock.split_once("name = \"wasmtime\"\nversion = \"").and_then(|(_, rest)| rest.split('"').next());
    let all = [
        ("rustc", says(on_path("rustc"), &["--version"])),
        ("wasmtime (crate)", locked.map(str::to_owned)),
        ("wasmtime (program)", says(wasmtime().ok(), &["--version"])),
        ("consul", says(Consul::binary(), &["version"])),
        ("go", says(on_path("go"), &["version"])),
        ("curl", says(on_path("curl"), &["--version"]).map(|line| line.split(" (").next().unwrap_or_default().to_owned())),
        ("ansible", says(ansible_playbook().ok(), &["--version"])),
        ("community.general", collection()),
    ];
    all.into_iter().filter_map(|(name, version)| Some((name, version?))).collect()
}

/// The version of community.general.
fn collection() -> Option<String> {
    let folder = PathBuf::from(std::env::var_os("BENCH_COLLECTIONS")?).join("ansible_collections/community/general");
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("MANIFEST.json")).ok()?).ok()?;
    manifest["collection_info"]["version"].as_str().map(str::to_owned)
}

fn list(versions: &[(&str, String)]) -> String {
    versions.iter().map(|(name, version)| format!("{name}: {version}")).collect::<Vec<_>>().join("; ")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header.to_vec());
    table
}

/// With numbers to the right, from this column on.
fn aligned(mut table: Table, from: usize) -> Table {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// With three digits.
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
