//! Rounds in which the peers take turns, and what is said of them.

use crate::place::Place;
use crate::subjects::Subject;
use crate::workload::{MANY, WORKLOADS, Workload};
use anyhow::{Context, Result};
use std::time::Duration;

/// Rounds of a work that takes long.
pub const FEWEST: usize = 5;

/// What one peer took for one work in one place.
pub struct Row {
    /// [`Place::name`]
    pub place: &'static str,
    /// The work.
    pub work: Workload,
    /// [`Subject::name`]
    pub peer: String,
    /// Each call, the shortest first.
    times: Vec<Duration>,
    /// The median of each round.
    rounds: Vec<Duration>,
    /// The processor's time for one call: the median of the rounds.
    pub cpu: Option<Duration>,
}

impl Row {
    /// How long it takes at most in this part of the calls.
    pub fn quantile(&self, part: f64) -> Duration {
        quantile(&self.times, part)
    }

    /// How many times as long this takes as the other: the median of the rounds, each compared with itself, so that what
    /// happens on the machine meanwhile meets both.
    pub fn ratio(&self, other: &Row) -> f64 {
        let mut ratios: Vec<f64> =
            self.rounds.iter().zip(&other.rounds).map(|(this, other)| this.as_secs_f64() / other.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        quantile(&ratios, 0.5)
    }

    /// The median of each round.
    pub fn rounds(&self) -> &[Duration] {
        &self.rounds
    }

    /// How many calls were measured.
    pub fn calls(&self) -> usize {
        self.times.len() * if let Workload::Create(_) = self.work { MANY } else { 1 }
    }
}

/// The value below which this part of the values is. They are sorted, and there is one at least.
pub fn quantile<T: Copy>(sorted: &[T], part: f64) -> T {
    let last = sorted.len() - 1;
    sorted[((last as f64 * part).round() as usize).min(last)]
}

/// Has all peers do all their works, in turns; a first round of each is not counted. An answer that is not right is an error.
pub fn measure(place: &mut Place, peers: &mut [Box<dyn Subject>], rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (work, calls) in WORKLOADS {
        // The other server is no Consul, to which a stranger's module would have to be fitted.
        if work == Workload::Task && !place.is_real() {
            continue;
        }
        place.prepare(work)?;
        let mut able: Vec<&mut Box<dyn Subject>> = peers.iter_mut().filter(|peer| peer.does(work)).collect();
        let first = rows.len();
        for peer in &able {
            let (place, peer) = (place.name, peer.name());
            rows.push(Row { place, work, peer, times: Vec::new(), rounds: Vec::new(), cpu: None });
        }
        eprintln!("   {}: {work}", place.name);
        // These take seconds, and as long again to be undone.
        let rounds = if matches!(work, Workload::Create(_) | Workload::Task) { rounds.min(FEWEST) } else { rounds };
        let mut cpus = vec![Vec::new(); able.len()];
        for round in 0..=rounds {
            for at in 0..able.len() {
                // Another one begins each time.
                let at = (at + round) % able.len();
                let said = |peer: &str| format!("{peer}, {}: {work}", place.name);
                let mut result = able[at].run(work, place, calls).with_context(|| said(&able[at].name()))?;
                if matches!(work, Workload::Create(_) | Workload::Task) {
                    place.clean()?;
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
