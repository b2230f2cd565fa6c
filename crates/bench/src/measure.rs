//! Runs the workloads in rounds in which the subjects take turns.

use crate::backend::Backend;
use crate::footprint::Figure;
use crate::report::nanoseconds;
use crate::subjects::{Round, Subject};
use crate::workload::{MANY, WORKLOADS, Workload};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Number of rounds for workloads that take long.
pub const FEWEST: usize = 5;

/// What one run measured, as its process prints it and as the file for all figures has it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Run {
    /// What was not measured, with the reasons.
    pub left_out: Vec<String>,
    /// All figures but those of `times`.
    pub figures: Vec<Figure>,
    /// The times of the workloads.
    pub times: Vec<Row>,
}

impl Run {
    /// Returns the times of one subject for one workload on one backend.
    pub fn row(&self, backend: &str, workload: Workload, subject: &str) -> Option<&Row> {
        let workload = workload.to_string();
        self.times.iter().find(|row| row.backend == backend && row.workload == workload && row.subject == subject)
    }

    /// Returns the [`Row::ratio`] of one subject and another.
    pub fn ratio(&self, backend: &str, workload: Workload, one: &str, other: &str) -> Option<f64> {
        Some(self.row(backend, workload, one)?.ratio(self.row(backend, workload, other)?))
    }

    /// Returns the figure of this name.
    pub fn figure(&self, what: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.what == what).map(|figure| figure.value)
    }
}

/// The times of one subject for one workload on one backend, in nanoseconds.
#[derive(Debug, Deserialize, Serialize)]
pub struct Row {
    /// [`Backend::name`]
    pub backend: String,
    /// The workload, as text.
    pub workload: String,
    /// [`Subject::name`]
    pub subject: String,
    /// Number of measured calls.
    pub calls: usize,
    /// Median of the times of all calls.
    pub p50_ns: u64,
    /// 99th percentile of the times of all calls.
    pub p99_ns: u64,
    /// Processor time per call: the median of the rounds.
    pub cpu_ns: Option<u64>,
    /// The median of each round.
    pub rounds_ns: Vec<u64>,
}

impl Row {
    /// Returns how many times as long this takes as the other row: the median of the ratios per
    /// round. Other load on the machine affects both rows of a round.
    pub fn ratio(&self, other: &Row) -> f64 {
        median(self.rounds_ns.iter().zip(&other.rounds_ns).map(|(this, other)| *this as f64 / *other as f64).collect())
    }
}

/// Returns the median.
///
/// # Panics
///
/// Panics if there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// Returns a quantile of sorted values.
///
/// # Panics
///
/// Panics if there are no values.
pub fn quantile<T: Copy>(sorted: &[T], part: f64) -> T {
    let last = sorted.len() - 1;
    sorted[((last as f64 * part).round() as usize).min(last)]
}

/// What the rounds of one subject measured.
#[derive(Clone, Default)]
struct Samples {
    times: Vec<Duration>,
    rounds: Vec<Duration>,
    cpus: Vec<Duration>,
}

impl Samples {
    fn add(&mut self, mut round: Round) {
        round.times.sort();
        self.rounds.push(quantile(&round.times, 0.5));
        self.times.extend(round.times);
        self.cpus.extend(round.cpu);
    }

    fn row(mut self, backend: &str, workload: Workload, subject: String) -> Row {
        self.times.sort();
        self.cpus.sort();
        Row {
            backend: backend.to_owned(),
            workload: workload.to_string(),
            subject,
            calls: self.times.len() * if let Workload::Create(_) = workload { MANY } else { 1 },
            p50_ns: nanoseconds(quantile(&self.times, 0.5)),
            p99_ns: nanoseconds(quantile(&self.times, 0.99)),
            cpu_ns: (!self.cpus.is_empty()).then(|| nanoseconds(quantile(&self.cpus, 0.5))),
            rounds_ns: self.rounds.into_iter().map(nanoseconds).collect(),
        }
    }
}

/// Runs all workloads with all subjects that support them, in turns. The first round is not
/// counted.
///
/// # Errors
///
/// Fails if a subject fails or gets a wrong answer.
pub fn measure(backend: &mut Backend, subjects: &mut [Box<dyn Subject>], rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (workload, calls) in WORKLOADS {
        // The canned server would have to be adapted to community.general's module.
        if workload == Workload::Task && !backend.is_real() {
            continue;
        }
        backend.prepare(workload)?;
        let mut able: Vec<&mut Box<dyn Subject>> = subjects.iter_mut().filter(|subject| subject.supports(workload)).collect();
        eprintln!("   {}: {workload}", backend.name);
        // These take seconds, and the cleanup takes as long again.
        let rounds = if matches!(workload, Workload::Create(_) | Workload::Task) { rounds.min(FEWEST) } else { rounds };
        let mut samples = vec![Samples::default(); able.len()];
        for round in 0..=rounds {
            for at in 0..able.len() {
                // Each round begins with another subject.
                let at = (at + round) % able.len();
                let measured = able[at]
                    .run(workload, backend, calls)
                    .with_context(|| format!("{}, {}: {workload}", able[at].name(), backend.name))?;
                if matches!(workload, Workload::Create(_) | Workload::Task) {
                    backend.clean()?;
                }
                if round > 0 {
                    samples[at].add(measured);
                }
            }
        }
        rows.extend(able.iter().zip(samples).map(|(subject, samples)| samples.row(backend.name, workload, subject.name())));
    }
    Ok(rows)
}

#[cfg(test)]
impl Row {
    /// Returns the row of rounds of one call each, which took these nanoseconds.
    pub fn of_rounds(backend: &str, workload: Workload, subject: &str, times: &[u64]) -> Row {
        let mut samples = Samples::default();
        for time in times {
            samples.add(Round { times: vec![Duration::from_nanos(*time)], cpu: None });
        }
        samples.row(backend, workload, subject.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(times: &[u64]) -> Row {
        Row::of_rounds("server", Workload::Info, "subject", times)
    }

    #[test]
    fn ratio_is_the_median_of_the_ratios_of_the_rounds() {
        // Other load makes the third round slow for both. The ratio of the medians would be 3.
        assert_eq!(row(&[10, 30, 900]).ratio(&row(&[10, 10, 300])), 3.0);
        assert_eq!(row(&[10, 20, 900]).ratio(&row(&[10, 10, 300])), 2.0);
    }
}
