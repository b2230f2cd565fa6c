//! What a process uses, many times in its life, and whether that grows.

use crate::report::{self, aligned};
use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use std::fs;
use std::ops::Range;
use std::time::Duration;

/// What a process uses at one moment. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Resident memory, in bytes. It grows with each page of the program's file that is used.
    pub resident: u64,
    /// The part of it that no file holds, in bytes: heap, stacks, linear memory.
    pub anonymous: u64,
    /// The most resident memory so far, in bytes.
    pub peak: u64,
    /// Open files, sockets among them.
    pub files: u64,
    /// Threads.
    pub threads: u64,
    /// Blocks of the heap that are in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
    /// Linear memory of the instance, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear: Option<u64>,
    /// Median time of a call before this moment.
    #[serde(rename = "call_ns", skip_serializing_if = "Option::is_none", serialize_with = "nanoseconds")]
    pub call: Option<Duration>,
    /// The longest of these times.
    #[serde(rename = "slowest_ns", skip_serializing_if = "Option::is_none", serialize_with = "nanoseconds")]
    pub slowest: Option<Duration>,
}

fn nanoseconds<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(report::nanoseconds).serialize(to)
}

impl Sample {
    /// Reads what a process uses; without an id, this process.
    ///
    /// # Errors
    ///
    /// Fails if the process has ended.
    pub fn of(process: Option<u32>) -> Result<Sample> {
        let folder = process.map_or("/proc/self".into(), |id| format!("/proc/{id}"));
        let status = fs::read_to_string(format!("{folder}/status")).with_context(|| folder.clone())?;
        let field = |name: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = value.with_context(|| format!("no {name} in {folder}/status: the process has ended"))?;
            Ok(value.trim().trim_end_matches(" kB").parse()?)
        };
        let files = fs::read_dir(format!("{folder}/fd")).with_context(|| folder.clone())?.count() as u64;
        Ok(Sample {
            resident: field("VmRSS")? << 10,
            anonymous: field("RssAnon")? << 10,
            peak: field("VmHWM")? << 10,
            // Reading the folder of this process opened it.
            files: files - u64::from(process.is_none()),
            threads: field("Threads")?,
            ..Sample::default()
        })
    }
}

/// The life of a process or of a run of calls, in samples at equal distances.
#[derive(Debug, Serialize)]
pub struct Life {
    /// Name in the table.
    pub name: String,
    /// All samples, without those of the warm-up.
    pub samples: Vec<Sample>,
}

/// What is compared, how many units of growth are noise, and the unit.
type Figure = (&'static str, fn(&Sample) -> Option<u64>, u64);

/// The heap keeps pages for later, and tables for as many entries as there were at once. A call more
/// in flight has a connection more, and the runtime starts a thread for work that blocks, which ends
/// after some seconds. A page of linear memory is never noise.
const FIGURES: [Figure; 5] = [
    ("bytes of memory", |sample| Some(sample.anonymous), 1 << 20),
    ("open files", |sample| Some(sample.files), 2),
    ("threads", |sample| Some(sample.threads), 2),
    ("blocks of the heap", |sample| sample.blocks, 100),
    ("bytes of linear memory", |sample| sample.linear, 0),
];

impl Life {
    /// Returns the samples of the beginning, of the middle and of the end: a tenth of all each, and
    /// at least one.
    fn parts(&self) -> [&[Sample]; 3] {
        let count = self.samples.len();
        let width = (count / 10).max(1).min(count);
        let part = |from: usize| -> Range<usize> { from..from + width };
        [part(0), part((count - width) / 2), part(count - width)].map(|range| &self.samples[range])
    }

    /// Returns what leaks: what is at the end always more than ever in the middle, beyond noise.
    ///
    /// What only rises and falls, such as connections to an agent that comes and goes, has no such
    /// end. What grows all the time has, however little it is, if the run is long enough.
    pub fn leaks(&self) -> Vec<String> {
        let [_, middle, end] = self.parts();
        let leak = |(what, value, noise): Figure| {
            let most = middle.iter().filter_map(value).max()?;
            let least = end.iter().filter_map(value).min()?;
            let name = &self.name;
            (least > most + noise).then(|| format!("{name}: {what} grew from {most} in the middle to {least} at the end"))
        };
        FIGURES.into_iter().filter_map(leak).collect()
    }

    /// Returns the beginning, the middle and the end: the median of each figure.
    fn medians(&self) -> [Sample; 3] {
        self.parts().map(|samples| Sample {
            resident: median(samples, |sample| Some(sample.resident)).unwrap_or_default(),
            anonymous: median(samples, |sample| Some(sample.anonymous)).unwrap_or_default(),
            peak: median(samples, |sample| Some(sample.peak)).unwrap_or_default(),
            files: median(samples, |sample| Some(sample.files)).unwrap_or_default(),
            threads: median(samples, |sample| Some(sample.threads)).unwrap_or_default(),
            blocks: median(samples, |sample| sample.blocks),
            linear: median(samples, |sample| sample.linear),
            call: median(samples, |sample| sample.call),
            slowest: median(samples, |sample| sample.slowest),
        })
    }
}

fn median<T: Ord + Copy>(samples: &[Sample], value: impl Fn(&Sample) -> Option<T>) -> Option<T> {
    let mut values: Vec<T> = samples.iter().filter_map(value).collect();
    values.sort();
    values.get(values.len() / 2).copied()
}

/// Returns a table of at most 80 columns with the beginning, the middle and the end of each life.
/// Memory is in MiB, the time of a call in microseconds.
pub fn table(lives: &[Life]) -> String {
    let has = |value: fn(&Sample) -> bool| lives.iter().flat_map(|life| &life.samples).any(value);
    let (blocks, linear, call) =
        (has(|sample| sample.blocks.is_some()), has(|sample| sample.linear.is_some()), has(|sample| sample.call.is_some()));
    let mut header = vec!["what", "when", "RSS", "anon", "files", "threads"];
    header.extend(blocks.then_some("blocks"));
    header.extend(linear.then_some("guest"));
    header.extend(call.then_some("call"));
    let mut table = report::table(&header);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for life in lives.iter().filter(|life| !life.samples.is_empty()) {
        for (when, sample) in ["begin", "middle", "end"].into_iter().zip(life.medians()) {
            let name = if when == "begin" { life.name.clone() } else { String::new() };
            let mut row = vec![name, when.to_owned(), mib(sample.resident), mib(sample.anonymous)];
            row.extend([sample.files, sample.threads].map(|count| count.to_string()));
            row.extend(blocks.then(|| sample.blocks.map(|count| count.to_string()).unwrap_or_default()));
            row.extend(linear.then(|| sample.linear.map(mib).unwrap_or_default()));
            row.extend(call.then(|| sample.call.map(|time| time.as_micros().to_string()).unwrap_or_default()));
            table.add_row(row);
        }
    }
    aligned(table, 2).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Returns a life of 100 samples.
    fn life(sample: impl Fn(u64) -> Sample) -> Life {
        Life { name: "x".into(), samples: (0..100).map(sample).collect() }
    }

    fn usual() -> Sample {
        Sample {
            resident: 50 * MIB,
            anonymous: 30 * MIB,
            peak: 60 * MIB,
            files: 12,
            threads: 4,
            blocks: Some(5_000),
            linear: Some(MIB),
            call: None,
            slowest: None,
        }
    }

    #[test]
    fn figures_that_rise_and_fall_are_not_leaks() {
        // An agent that comes and goes, every seven samples, and a heap that breathes.
        let life = life(|n| Sample {
            anonymous: 30 * MIB + (n * 7919 % 13) * MIB,
            files: 12 + u64::from(n % 7 < 3),
            threads: 4 + u64::from(n % 11 == 0),
            blocks: Some(5_000 + n * 104_729 % 50),
            ..usual()
        });
        assert_eq!(life.leaks(), [""; 0]);
    }

    #[test]
    fn growth_before_the_middle_is_not_a_leak() {
        let grown = |n: u64| n.min(40);
        let life = life(|n| Sample {
            anonymous: (30 + grown(n)) * MIB,
            files: 12 + grown(n),
            blocks: Some(5_000 + 1_000 * grown(n)),
            linear: Some(grown(n) * MIB),
            ..usual()
        });
        assert_eq!(life.leaks(), [""; 0]);
    }

    #[test]
    fn pages_of_files_are_not_a_leak() {
        assert_eq!(life(|n| Sample { resident: (50 + n) * MIB, ..usual() }).leaks(), [""; 0]);
    }

    #[test]
    fn growth_until_the_end_is_a_leak() {
        for (what, life) in [
            // A slow one, with noise of 13 pages.
            ("bytes of memory", life(|n| Sample { anonymous: 30 * MIB + n * MIB / 20 + (n % 13) * 4096, ..usual() })),
            ("open files", life(|n| Sample { files: 12 + n / 8, ..usual() })),
            ("threads", life(|n| Sample { threads: 4 + n / 8, ..usual() })),
            ("blocks of the heap", life(|n| Sample { blocks: Some(5_000 + 4 * n), ..usual() })),
            ("bytes of linear memory", life(|n| Sample { linear: Some(MIB + (n / 80) * 65_536), ..usual() })),
        ] {
            let leaks = life.leaks();
            assert!(matches!(&leaks[..], [leak] if leak.starts_with(&format!("x: {what} grew from "))), "{what}: {leaks:?}");
        }
    }

    #[test]
    fn short_lives_have_a_beginning_a_middle_and_an_end() {
        for count in 1..25 {
            let life = Life { name: "x".into(), samples: (0..count).map(|n| Sample { files: n, ..usual() }).collect() };
            let [begin, middle, end] = life.medians().map(|sample| sample.files);
            assert!(begin <= middle && middle <= end && end < count, "{count}: {begin} {middle} {end}");
        }
        assert_eq!(Life { name: "x".into(), samples: Vec::new() }.leaks(), [""; 0]);
    }

    #[test]
    fn table_has_80_columns_at_most() {
        let call = Some(Duration::from_micros(12_345));
        let large = Sample {
            resident: 1234 * MIB,
            anonymous: 1234 * MIB,
            blocks: Some(123_456),
            linear: Some(123 * MIB),
            call,
            ..usual()
        };
        let lives = [Life { name: "fresh".into(), samples: vec![large; 20] }, life(|_| usual())];
        let table = table(&lives);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert_eq!(table.lines().count(), 2 + 6, "{table}");
    }

    #[test]
    fn sample_of_this_process_is_read() -> Result<()> {
        let before = Sample::of(None)?;
        assert!(
            before.anonymous > 0
                && before.resident > before.anonymous
                && before.peak >= before.resident
                && before.files >= 3
                && before.threads >= 1
        );
        assert!(Sample::of(Some(std::process::id()))?.resident > MIB);
        assert!(Sample::of(Some(u32::MAX)).is_err());
        Ok(())
    }
}
