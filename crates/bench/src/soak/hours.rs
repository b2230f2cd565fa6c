//! `watch` and `lock` for hours, while a real agent comes and goes.

use super::programs::{Lock, Place, Screen, Watch, beside};
use super::sample::{Life, Sample};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use test_support::api::Api;
use test_support::consul::{Consul, Kind};

/// The key of the lock that no fault is long enough to lose.
const KEPT: &str = "soak/kept";
/// The key of the lock that two processes take from each other.
const LOST: &str = "soak/lost";
/// The longest time to lose and to take a lock again, and for `watch` to see what it missed.
const SETTLED: Duration = Duration::from_secs(120);
/// Sessions of others that are there at the same time.
const GUESTS: usize = 10;
/// The beginning of their names.
const GUEST: &str = "guest-";

/// What happens to the agent, and for how long, in seconds. The longer ones outlast the TTL of the
/// lock that is lost, and the shorter ones do not.
const FAULTS: [(Fault, u64); 7] = [
    (Fault::Kill, 0),
    (Fault::Halt, 3),
    (Fault::Kill, 15),
    (Fault::Halt, 25),
    (Fault::Kill, 4),
    (Fault::Halt, 12),
    (Fault::Kill, 30),
];
/// The seconds between the end of a fault and the next one. With as many other faults, each fault
/// comes after each pause.
const PAUSES: [u64; 5] = [20, 45, 30, 60, 25];

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL, and a new process with the same data.
    Kill,
    /// SIGSTOP and SIGCONT.
    Halt,
}

/// Whether the run is over, for all of its threads.
#[derive(Default)]
pub struct Stop(Mutex<bool>, Condvar);

impl Stop {
    /// Ends the run.
    pub fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    /// Waits for this time. Returns whether the run goes on.
    fn sleep(&self, time: Duration) -> bool {
        let is_over = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(is_over, time, |is_over| !*is_over);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What came of the hours.
pub struct Hours {
    /// The processes that ran all the time.
    pub lives: Vec<Life>,
    /// What happened, in lines.
    pub events: Vec<String>,
    /// The same for programs.
    pub json: Value,
}

/// Runs the programs for this time, or until `stop`. Writes all samples to a file in the folder as
/// they are taken.
///
/// # Errors
///
/// A program ended that should not have, `watch` or `lock` differs from Consul in the end, or
/// sessions remain.
pub fn run(time: Duration, stop: &Stop, folder: &Path) -> Result<Hours> {
    // A tenth of the run is the longest pause and the longest fault, so that a short run has some.
    let (longest, every) = (time / 10, Duration::from_secs(60).min(time / 100));
    let program = beside()?;
    eprintln!("   {:.2} hours of watch and lock", time.as_secs_f64() / 3600.0);
    let mut consul = Consul::start_persistent(Kind::Plain)?;
    let api = consul.api();
    let impatient = api.clone().with_timeout(Duration::from_secs(1));
    let place = Place { program: &program, agent: consul.http(), folder };
    let mut watch = Watch::start(place)?;
    let mut screen = Screen::start(place)?;
    // Their sessions outlast every fault.
    let mut kept = [
        Lock::start(place, "lock, kept", &format!("{KEPT} --ttl 10m"))?,
        Lock::start(place, "slot, kept", "-n 2 soak/slots --ttl 10m")?,
    ];
    let mut lost = ["lock, first", "lock, second"]
        .map(|name| Lock::start(place, name, &format!("{LOST} --ttl 10s --delay 1s")))
        .into_iter()
        .collect::<Result<Vec<Lock>>>()?;
    let start = Instant::now();
    let mut samples = [const { Vec::new() }; 4];
    let mut most = Sample::default();
    let mut file = File::create(folder.join("hours.jsonl"))?;
    let (faults, churn) = scope(|scope| {
        let faults = scope.spawn(|| torment(&mut consul, stop, longest));
        let churn = scope.spawn(|| come_and_go(&impatient, stop));
        let mut observe = || -> Result<()> {
            let (mut due, second) = (every, every.min(Duration::from_secs(1)));
            while stop.sleep(second) && start.elapsed() < time {
                for lock in &mut lost {
                    lock.start_again(place)?;
                }
                if start.elapsed() < due {
                    continue;
                }
                due += every;
                let [first, second] = &mut kept;
                let now = [&mut watch.process, &mut screen.process, first.process(), second.process()].map(|process| {
                    let ended = process.ended()?;
                    ensure!(ended.is_none(), "a program that should go on has ended with status {ended:?}");
                    process.sample()
                });
                for (life, sample) in samples.iter_mut().zip(now) {
                    life.push(sample?);
                }
                // A process that ends meanwhile has none.
                for sample in lost.iter_mut().filter_map(|lock| lock.process().sample().ok()) {
                    most.peak = most.peak.max(sample.peak);
                    most.files = most.files.max(sample.files);
                    most.threads = most.threads.max(sample.threads);
                }
                let last = samples.each_ref().map(|life: &Vec<Sample>| life.last());
                let records = kept
                    .iter()
                    .chain(&lost)
                    .map(|lock| json!({ "name": lock.name, "taken": lock.record().taken, "lost": lock.record().lost }));
                let line = json!({
                    "seconds": start.elapsed().as_secs(), "watch": last[0], "screen": last[1], "lock": last[2], "slot": last[3],
                    "events": watch.picture().events, "locks": records.collect::<Vec<_>>(),
                });
                writeln!(file, "{line}")?;
            }
            Ok(())
        };
        let observed = observe();
        stop.set();
        let joined = (faults.join().expect("no panic"), churn.join().expect("no panic"));
        observed.map(|()| joined)
    })?;
    let (faults, created) = (faults?, churn);
    let ran = start.elapsed();

    // The agent is there again: everything comes to rest as Consul says.
    let picture = settled(|| {
        for lock in &mut lost {
            lock.start_again(place)?;
        }
        let listed = sessions(&api)?;
        let picture = watch.picture();
        ensure!(picture.sessions == listed, "watch shows {:?} instead of {listed:?}", picture.sessions);
        ensure!(screen.sessions() == Some(listed.len()), "the screen shows {:?} of {}", screen.sessions(), listed.len());
        for key in [KEPT, LOST] {
            let entry = api.get(&format!("/v1/kv/{key}?consistent"))?;
            let holder = entry[0]["Session"].as_str().unwrap_or_default();
            ensure!(listed.contains(holder), "no session of {listed:?} holds {key}: {entry}");
        }
        Ok(picture)
    })?;
    ensure!(picture.impossible.is_empty(), "impossible events of watch: {:?}", picture.impossible);
    for lock in &kept {
        let record = lock.record();
        ensure!(record.taken == 1 && record.lost == 0, "{}: {record:?}", lock.name);
    }
    let mut fences: Vec<u64> = lost.iter().flat_map(|lock| lock.record().fences).collect();
    let taken = fences.len();
    fences.sort();
    fences.dedup();
    ensure!(fences.len() == taken, "two locks had the same fence");
    // Each releases and destroys what it has.
    for lock in kept.iter_mut().chain(&mut lost) {
        let status = lock.process().end()?;
        ensure!(status == 128 + 15, "{}: status {status} after SIGTERM", lock.name);
    }
    settled(|| {
        for key in [KEPT, LOST] {
            let entry = api.get(&format!("/v1/kv/{key}?consistent"))?;
            ensure!(entry[0]["Session"].is_null(), "{key} is still held: {entry}");
        }
        let left: Vec<Value> = api.sessions()?.into_iter().filter(|left| !is_guest(left)).collect();
        ensure!(left.is_empty(), "sessions are left: {left:?}");
        Ok(())
    })?;
    for process in [&mut watch.process, &mut screen.process] {
        let status = process.end()?;
        ensure!(status == 0, "watch: status {status} after SIGTERM");
    }

    let (records, minutes) = (lost.iter().map(Lock::record).collect::<Vec<_>>(), ran.as_secs_f64() / 60.0);
    let sum = |count: fn(&super::programs::Record) -> u64| records.iter().map(count).sum::<u64>();
    let (processes, lost, refused) = (sum(|one| one.started), sum(|one| one.lost), sum(|one| one.refused));
    let event = |kind: &str| picture.events.get(kind).copied().unwrap_or_default();
    let events = vec![
        format!("{minutes:.0} minutes. The agent was killed {} times and halted {} times.", faults[0], faults[1]),
        format!(
            "watch: {} came, {} went, {} errors, {} recovered; as Consul in the end.",
            event("came"),
            event("went"),
            event("error"),
            event("recovered")
        ),
        format!("{created} sessions were created by others."),
        "lock and slot, kept: taken once, never lost.".into(),
        format!("lock, by two in turn: taken {taken} times, lost {lost} times; held in the end."),
        format!(
            "Its {processes} processes ({refused} found no agent) had at most {} MiB, {} files, {} threads.",
            most.peak >> 20,
            most.files,
            most.threads
        ),
    ];
    let json = json!({
        "minutes": minutes, "killed": faults[0], "halted": faults[1], "created": created, "watch": picture.events,
        "taken": taken, "lost": lost, "processes": processes, "refused": refused, "most": most,
    });
    let names = ["watch, JSON", "watch, screen", "lock, kept", "slot, kept"];
    let lives = names.into_iter().zip(samples).map(|(name, samples)| Life { name: name.into(), samples }).collect();
    Ok(Hours { lives, events, json })
}

/// Kills and halts the agent until `stop`, and leaves it running. Returns how often it did each.
fn torment(consul: &mut Consul, stop: &Stop, longest: Duration) -> Result<[u64; 2]> {
    let mut counts = [0; 2];
    let seconds = |seconds: &u64| Duration::from_secs(*seconds).min(longest);
    for ((fault, away), pause) in FAULTS.iter().cycle().zip(PAUSES.iter().cycle()) {
        if !stop.sleep(seconds(pause)) {
            break;
        }
        match fault {
            Fault::Kill => {
                consul.kill()?;
                stop.sleep(seconds(away));
                consul.restart().context("the agent was killed")?;
                counts[0] += 1;
            }
            Fault::Halt => {
                consul.pause()?;
                stop.sleep(seconds(away));
                consul.resume()?;
                counts[1] += 1;
            }
        }
    }
    Ok(counts)
}

/// Creates and destroys sessions until `stop`, where the agent answers. Returns how many were
/// created.
fn come_and_go(api: &Api, stop: &Stop) -> u64 {
    let mut created = 0;
    while stop.sleep(Duration::from_secs(1)) {
        let new = json!({ "Name": format!("{GUEST}{created}"), "TTL": "60s" });
        created += u64::from(api.put("/v1/session/create", Some(&new)).is_ok());
        // Also those whose creation had no answer. Their TTL begins anew with each start of the
        // agent.
        let mut guests = api.sessions().unwrap_or_default();
        guests.retain(is_guest);
        guests.sort_by_key(|guest| guest["CreateIndex"].as_u64());
        for old in guests.iter().rev().skip(GUESTS) {
            // The next turn finds it again.
            let _ = api.put(&format!("/v1/session/destroy/{}", old["ID"].as_str().unwrap_or_default()), None);
        }
    }
    created
}

fn is_guest(session: &Value) -> bool {
    session["Name"].as_str().is_some_and(|name| name.starts_with(GUEST))
}

/// Returns the ids of all sessions, as a consistent read has them.
fn sessions(api: &Api) -> Result<BTreeSet<String>> {
    let listed = api.get("/v1/session/list?consistent")?;
    let ids = listed.as_array().context("no list")?.iter().filter_map(|session| session["ID"].as_str());
    Ok(ids.map(str::to_owned).collect())
}

/// Repeats the check until it succeeds, for [`SETTLED`] at most.
fn settled<T>(mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Err(_) if start.elapsed() < SETTLED => sleep(Duration::from_millis(200)),
            result => return result.context("not even at rest"),
        }
    }
}
