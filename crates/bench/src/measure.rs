//! Runs the workloads in rounds in which the subjects take turns.

use crate::backend::Backend;
use crate::subjects::Subject;
use crate::workload::{MANY, WORKLOADS, Workload};
use anyhow::{Context, Result};
use std::time::Duration;

/// Number of rounds for workloads that take long.
pub const FEWEST: usize = 5;

/// The times of one subject for one workload on one backend.
pub struct Row {
    /// [`Backend::name`]
    pub backend: &'static str,
    /// The workload.
    pub workload: Workload,
    /// [`Subject::name`]
    pub subject: String,
    /// The time of each call, sorted.
    times: Vec<Duration>,
    /// The median of each round.
    rounds: Vec<Duration>,
    /// Processor time per call: the median of the rounds.
    pub cpu: Option<Duration>,
}

impl Row {
    /// Returns this quantile of the times of all calls.
    pub fn quantile(&self, part: f64) -> Duration {
        quantile(&self.times, part)
    }

    /// Returns how many times as long this takes as the other row: the median of the ratios per
    /// round. Other load on the machine affects both rows of a round.
    pub fn ratio(&self, other: &Row) -> f64 {
        let mut ratios: Vec<f64> =
            self.rounds.iter().zip(&other.rounds).map(|(this, other)| this.as_secs_f64() / other.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        quantile(&ratios, 0.5)
    }

    /// Returns the median of each round.
    pub fn rounds(&self) -> &[Duration] {
        &self.rounds
    }

    /// Returns the number of measured calls.
    pub fn calls(&self) -> usize {
        self.times.len() * if let Workload::Create(_) = self.workload { MANY } else { 1 }
    }
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
        let first = rows.len();
        for subject in &able {
            let (backend, subject) = (backend.name, subject.name());
            rows.push(Row { backend, workload, subject, times: Vec::new(), rounds: Vec::new(), cpu: None });
        }
        eprintln!("   {}: {workload}", backend.name);
        // These take seconds, and the cleanup takes as long again.
        let rounds = if matches!(workload, Workload::Create(_) | Workload::Task) { rounds.min(FEWEST) } else { rounds };
        let mut cpus = vec![Vec::new(); able.len()];
        for round in 0..=rounds {
            for at in 0..able.len() {
                // Each round begins with another subject.
                let at = (at + round) % able.len();
                let mut result = able[at]
                    .run(workload, backend, calls)
                    .with_context(|| format!("{}, {}: {workload}", able[at].name(), backend.name))?;
                if matches!(workload, Workload::Create(_) | Workload::Task) {
                    backend.clean()?;
                }
                if round > 0 {
                    result.times.sort();
                    rows[first + at].rounds.push(quantile(&result.times, 0.5));
                    rows[first + at].times.extend(result.times);
                    cpus[at].extend(result.cpu);
                }
            }
        }
        for (row, mut cpus) in rows[first..].iter_mut().zip(cpus) {
            row.times.sort();
            cpus.sort();
            row.cpu = (!cpus.is_empty()).then(|| quantile(&cpus, 0.5));
        }
    }
    Ok(rows)
}
