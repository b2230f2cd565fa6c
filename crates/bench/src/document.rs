//! `docs/performance.md`: its tables and its graph, from the figures beside it.

use crate::backend::{AGENT, CANNED};
use crate::graph;
use crate::measure::{Run, median};
use crate::report::{aligned, compared, table, targets, time};
use crate::subjects::{CACHED, COMPILES, CURL, FRESH, GO, KEPT, Module, NATIVE, PLUGIN, POOLED, named};
use crate::workload::{CALLERS, Workload};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::Path;

/// First argument to write tables and graph.
pub const DOCUMENT: &str = "document";
/// The figures, from the root of the checkout.
pub const FIGURES: &str = "docs/performance.json";
/// The graph.
const GRAPH: &str = "docs/performance.svg";
/// The document.
const FILE: &str = "docs/performance.md";

const BEGIN: &str = "<!-- figures: made by `cargo xtask bench` -->\n";
const END: &str = "<!-- /figures -->";

/// The rows of the tables of calls.
const CALLS: [Workload; 8] = [
    Workload::Info,
    Workload::CreateDestroy,
    Workload::Present,
    Workload::List(10),
    Workload::Create(1),
    Workload::Create(CALLERS),
    Workload::List(10_000),
    Workload::List(100_000),
];

/// The part of the file with all figures that is shown.
#[derive(Deserialize)]
struct Figures {
    runs: Vec<Run>,
}

/// Writes tables and graph: `document FIGURES FOLDER`.
pub fn run(args: &[String]) -> Result<()> {
    let [figures, folder] = args else { bail!("usage: {DOCUMENT} FIGURES FOLDER") };
    let text = std::fs::read(figures).with_context(|| figures.clone())?;
    let Figures { runs } = serde_json::from_slice(&text).with_context(|| figures.clone())?;
    write(&runs, Path::new(folder))
}

/// Writes tables and graph of these runs into the checkout in this folder.
pub fn write(runs: &[Run], folder: &Path) -> Result<()> {
    std::fs::write(folder.join(GRAPH), graph::draw(runs)?)?;
    let file = folder.join(FILE);
    let text = std::fs::read_to_string(&file)?;
    Ok(std::fs::write(file, with_tables(&text, runs)?)?)
}

/// Returns the document's text with the tables of these runs.
///
/// # Errors
///
/// Fails if the text has no place for them.
fn with_tables(text: &str, runs: &[Run]) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no place for the tables in {FILE}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no end of the tables in {FILE}"))?;
    let subjects = [NATIVE.to_owned(), named(PLUGIN, KEPT), named(PLUGIN, POOLED), named(PLUGIN, FRESH), GO.to_owned()];
    let calls = |backend: &str| {
        let mut shown = table(&["p50", "native Rust", "kept", "pooled", "fresh", "Go client"]);
        for workload in CALLS {
            let times = subjects.iter().map(|subject| p50(runs, backend, workload, subject));
            shown.add_row([workload.to_string()].into_iter().chain(times));
        }
        aligned(shown, 1)
    };
    let mut processes = table(&["p50, real agent", "client", "time"]);
    let [own, community] = [Module::Own, Module::Community].map(Module::name);
    let cold = [CURL, NATIVE, GO, CACHED, COMPILES].map(|subject| (Workload::Cold, subject));
    for (workload, subject) in cold.into_iter().chain([(Workload::Task, community), (Workload::Task, own)]) {
        processes.add_row([workload.to_string(), subject.to_owned(), p50(runs, AGENT, workload, subject)]);
    }
    let [canned, agent] = [CANNED, AGENT].map(calls);
    let (processes, targets) = (aligned(processes, 2), aligned(compared(&targets(runs), runs.len()), 1));
    Ok(format!(
        "{before}{BEGIN}\n**On a real agent**\n\n{agent}\n\n**On the canned server**\n\n{canned}\n\n### One process, one task\n\n\
         {processes}\n\n### Targets\n\n{targets}\n\n{END}{after}"
    ))
}

/// Returns the median of the runs, or nothing if one lacks it.
fn p50(runs: &[Run], backend: &str, workload: Workload, subject: &str) -> String {
    let times = runs.iter().map(|run| run.row(backend, workload, subject).map(|row| row.p50_ns as f64));
    let times: Option<Vec<f64>> = times.collect();
    times.filter(|times| !times.is_empty()).map(|times| time(median(times) as u64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Row;

    fn run(nanoseconds: u64) -> Run {
        let times = vec![Row::of_rounds(AGENT, Workload::Info, &named(PLUGIN, POOLED), &[nanoseconds])];
        Run { left_out: Vec::new(), figures: Vec::new(), times }
    }

    #[test]
    fn tables_replace_those_of_the_text_and_have_the_medians() -> Result<()> {
        let text = format!("a\n{BEGIN}old\n{END}\nb\n");
        let text = with_tables(&text, &[run(100_000), run(300_000), run(200_000)])?;
        assert!(text.starts_with("a\n") && text.ends_with("\nb\n") && !text.contains("old"), "{text}");
        let (agent, _) = text.split_once("**On the canned server**").context("no table")?;
        let info = agent.lines().find(|line| line.starts_with("| info ")).context("no row")?;
        let cells: Vec<&str> = info.split('|').map(str::trim).collect();
        assert_eq!(cells, ["", "info", "", "", "200 µs", "", "", ""]);
        assert_eq!(with_tables(&text, &[run(100_000), run(300_000), run(200_000)])?, text);
        Ok(())
    }

    #[test]
    fn text_without_a_place_for_tables_is_refused() {
        for text in ["", BEGIN, END] {
            assert!(with_tables(text, &[run(1)]).is_err(), "{text}");
        }
    }
}
