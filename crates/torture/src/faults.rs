//! The faults of a run, made one after another as the schedule says.

use crate::cluster::{HTTP, Servers};
use crate::history::FaultKind;
use crate::net::{Cut, Effect, Rule};
use crate::recorder::lock;
use crate::schedule::{ClientFault, ClientFaultKind, Fault, Links, Partition, Planned, Step, Target};
use crate::world::{CLIENT_HOSTS, World};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use test_support::cluster::SERVERS;

/// The time for a new leader after a fault has taken the old one.
const ELECTION: Duration = Duration::from_secs(5);
/// The longest that the servers may need until they work again after a step.
const RECOVERY: Duration = Duration::from_secs(120);
/// The time between two looks at whether the run is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// The clients of a run, as the faults see them.
pub trait ClientFaults: Sync {
    /// Begins a fault, and returns the name of the client that it strikes; none if it has none of the
    /// kind at present.
    fn begin(&self, fault: ClientFault) -> Result<Option<String>>;

    /// Ends a fault that [`ClientFaults::begin`] began. It strikes the client of this name.
    fn end(&self, fault: ClientFault, client: &str) -> Result<()>;
}

/// A fault that was made.
#[derive(Clone, Debug)]
pub struct Struck {
    /// Which fault.
    pub kind: FaultKind,
    /// The servers that it struck.
    pub servers: Vec<usize>,
    /// What it struck, for people.
    pub targets: Vec<String>,
    /// The time before it began.
    pub start: Instant,
    /// The time after it had ended.
    pub end: Instant,
}

/// What was done to the servers in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The faults that were made, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The connections that were cut in the middle of a response.
    pub cuts: u64,
    /// The faults that struck nothing: the server was down already, or no client was of the kind.
    pub skipped: u64,
    /// How often a server became the leader.
    pub elections: u64,
    /// How often another server became the leader than the one before.
    pub leader_changes: u64,
    /// How often Consul ended by itself.
    pub exits: u64,
}

/// The faults of a step, and what they share.
struct Run<'a> {
    world: &'a World,
    clients: &'a dyn ClientFaults,
    record: &'a (dyn Fn(Struck) + Sync),
    stop: &'a AtomicBool,
    tally: Mutex<Tally>,
    /// The servers that a fault has stopped, or filled the disk of.
    taken: Mutex<BTreeSet<usize>>,
}

/// A fault that has begun, and what undoes it.
struct Begun<'a> {
    kind: FaultKind,
    servers: Vec<usize>,
    targets: Vec<String>,
    undo: Box<dyn FnOnce() -> Result<()> + 'a>,
}

/// Makes the faults of the schedule until `stop` is true.
pub(crate) fn run(
    world: &World,
    schedule: impl Iterator<Item = Step>,
    clients: &dyn ClientFaults,
    record: &(dyn Fn(Struck) + Sync),
    stop: &AtomicBool,
) -> Result<Tally> {
    let run = Run { world, clients, record, stop, tally: Mutex::default(), taken: Mutex::default() };
    let before = world.servers().elections();
    for step in schedule {
        if !run.sleep(step.rest) {
            break;
        }
        run.step(&step)?;
        world.servers().recover(RECOVERY).with_context(|| format!("after {step:?}"))?;
    }
    let mut tally = run.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let after = world.servers().elections();
    tally.elections = after.won - before.won;
    tally.leader_changes = after.changes - before.changes;
    tally.exits = world.servers().exits();
    Ok(tally)
}

impl Run<'_> {
    /// Sleeps, and returns whether the run goes on.
    fn sleep(&self, length: Duration) -> bool {
        let end = Instant::now() + length;
        while !self.stop.load(Ordering::SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(LOOK));
        }
        false
    }

    /// Makes the faults of a step, each in a thread of its own.
    fn step(&self, step: &Step) -> Result<()> {
        thread::scope(|scope| {
            let faults: Vec<_> = step.faults.iter().map(|planned| scope.spawn(|| self.fault(planned))).collect();
            // All are undone before an error is returned.
            let results: Vec<Result<()>> =
                faults.into_iter().map(|fault| fault.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
            results.into_iter().collect()
        })
    }

    fn fault(&self, planned: &Planned) -> Result<()> {
        if !self.sleep(planned.start) {
            return Ok(());
        }
        let start = Instant::now();
        let Some(begun) = self.begin(&planned.fault).with_context(|| format!("{:?}", planned.fault))? else {
            lock(&self.tally).skipped += 1;
            return Ok(());
        };
        self.sleep(planned.length);
        (begun.undo)().with_context(|| format!("at the end of {:?}", planned.fault))?;
        *lock(&self.tally).faults.entry(begun.kind).or_default() += 1;
        (self.record)(Struck { kind: begun.kind, servers: begun.servers, targets: begun.targets, start, end: Instant::now() });
        Ok(())
    }

    /// Begins a fault, if it strikes anything.
    fn begin(&self, fault: &Fault) -> Result<Option<Begun<'_>>> {
        match *fault {
            Fault::Kill(target) => self.of_a_process(FaultKind::Kill, target, Servers::kill, Servers::start_one),
            Fault::Restart(target) => self.of_a_process(FaultKind::Restart, target, Servers::stop, Servers::start_one),
            Fault::Halt(target) => self.of_a_process(FaultKind::Halt, target, Servers::halt, Servers::resume),
            Fault::DiskFull(target) => self.of_a_process(FaultKind::DiskFull, target, Servers::fill, Servers::free),
            Fault::Partition(target, how) => Ok(Some(self.partition(target, how))),
            Fault::Latency(links, delay) => {
                let text = format!("{} ms there and back", delay.as_millis());
                Ok(Some(self.of_links(FaultKind::Latency, links, Effect::Delay(delay / 2), text)))
            }
            Fault::Loss(links, share) => {
                let text = format!("{:.0} %", share * 100.0);
                Ok(Some(self.of_links(FaultKind::Loss, links, Effect::Lose(share), text)))
            }
            Fault::Cut { server, after, connections } => Ok(Some(self.cut(server, Cut { port: HTTP, after, connections }))),
            Fault::Client(fault) => self.of_a_client(fault),
        }
    }

    /// Returns the server that is meant, and its name for people.
    fn resolve(&self, target: Target) -> (usize, String) {
        let servers = self.world.servers();
        // Without a leader, all are the same.
        let leader = servers.wait_for_leader(ELECTION).unwrap_or(0);
        match target {
            Target::Leader => (leader, format!("{} (leader)", servers.node(leader))),
            Target::Follower(number) => {
                let server = (leader + 1 + number) % SERVERS;
                (server, servers.node(server))
            }
        }
    }

    fn of_a_process(
        &self,
        kind: FaultKind,
        target: Target,
        begin: fn(&Servers, usize) -> Result<()>,
        end: fn(&Servers, usize) -> Result<()>,
    ) -> Result<Option<Begun<'_>>> {
        let (server, name) = self.resolve(target);
        if !lock(&self.taken).insert(server) {
            return Ok(None);
        }
        begin(self.world.servers(), server)?;
        let undo = Box::new(move || {
            end(self.world.servers(), server)?;
            lock(&self.taken).remove(&server);
            Ok(())
        });
        Ok(Some(Begun { kind, servers: vec![server], targets: vec![name], undo }))
    }

    fn partition(&self, target: Target, how: Partition) -> Begun<'_> {
        let (server, name) = self.resolve(target);
        let blocked = blocked(server, how, &self.server_numbers(), &self.client_numbers());
        let rules = blocked.into_iter().map(|(from, to)| self.world.network().rule(from, to, Effect::Block)).collect();
        let text = match how {
            Partition::Alone => "from all",
            Partition::FromServers => "from the other servers",
            Partition::WithClients => "with the clients of its own host",
            Partition::Deaf => "hears nobody",
            Partition::Mute => "nobody hears it",
        };
        begun(FaultKind::Partition, vec![server], vec![name, text.to_owned()], rules)
    }

    fn of_links(&self, kind: FaultKind, links: Links, effect: Effect, text: String) -> Begun<'_> {
        let numbers = self.server_numbers();
        let (struck, name, one, other) = match links {
            Links::Of(target) => {
                let (server, name) = self.resolve(target);
                let own = self.world.servers().number(server);
                let others = numbers.iter().copied().chain(self.client_numbers()).filter(|other| *other != own);
                (vec![server], name, vec![own], others.collect())
            }
            Links::Servers => ((0..SERVERS).collect(), "between servers".to_owned(), numbers.clone(), numbers),
            Links::Clients => (Vec::new(), "clients to servers".to_owned(), self.client_numbers(), numbers),
        };
        let rule = |from: &Vec<u8>, to: &Vec<u8>| self.world.network().rule(from.clone(), to.clone(), effect);
        let mut rules = vec![rule(&one, &other)];
        if one != other {
            rules.push(rule(&other, &one));
        }
        begun(kind, struck, vec![name, text], rules)
    }

    fn cut(&self, server: usize, cut: Cut) -> Begun<'_> {
        let servers = self.world.servers();
        let rule = self.world.network().rule([servers.number(server)], self.client_numbers(), Effect::Cut(cut));
        let text = format!("{} connections after {} bytes", cut.connections, cut.after);
        let undo = Box::new(move || {
            lock(&self.tally).cuts += rule.cuts() as u64;
            Ok(())
        });
        Begun { kind: FaultKind::Cut, servers: vec![server], targets: vec![servers.node(server), text], undo }
    }

    fn of_a_client(&self, fault: ClientFault) -> Result<Option<Begun<'_>>> {
        let kind = match fault.kind {
            ClientFaultKind::Halt => FaultKind::ClientHalt,
            ClientFaultKind::ClockJump(_) => FaultKind::ClockJump,
            ClientFaultKind::Kill => FaultKind::ClientKill,
        };
        let Some(client) = self.clients.begin(fault)? else { return Ok(None) };
        let targets = vec![client.clone()];
        let undo = Box::new(move || self.clients.end(fault, &client));
        Ok(Some(Begun { kind, servers: Vec::new(), targets, undo }))
    }

    fn server_numbers(&self) -> Vec<u8> {
        (0..SERVERS).map(|server| self.world.servers().number(server)).collect()
    }

    fn client_numbers(&self) -> Vec<u8> {
        (0..CLIENT_HOSTS).map(|client| self.world.client_host(client).number()).collect()
    }
}

/// Returns from where to where a partition of this server lets no packets pass.
fn blocked(server: usize, how: Partition, servers: &[u8], clients: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = match how {
        Partition::WithClients => vec![servers[server], clients[server]],
        _ => vec![servers[server]],
    };
    let all = match how {
        Partition::FromServers => servers.to_vec(),
        _ => [servers, clients].concat(),
    };
    let outside: Vec<u8> = all.into_iter().filter(|host| !inside.contains(host)).collect();
    match how {
        Partition::Deaf => vec![(outside, inside)],
        Partition::Mute => vec![(inside, outside)],
        _ => vec![(inside.clone(), outside.clone()), (outside, inside)],
    }
}

/// Returns a fault that ends when its rules end.
fn begun<'a>(kind: FaultKind, servers: Vec<usize>, targets: Vec<String>, rules: Vec<Rule>) -> Begun<'a> {
    let undo = Box::new(move || {
        drop(rules);
        Ok(())
    });
    Begun { kind, servers, targets, undo }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_blocks_what_its_name_says() {
        let blocked = |how| blocked(1, how, &[1, 2, 3], &[11, 12, 13]);
        let both =
            |inside: &[u8], outside: &[u8]| vec![(inside.to_vec(), outside.to_vec()), (outside.to_vec(), inside.to_vec())];
        assert_eq!(blocked(Partition::Alone), both(&[2], &[1, 3, 11, 12, 13]));
        assert_eq!(blocked(Partition::FromServers), both(&[2], &[1, 3]));
        assert_eq!(blocked(Partition::WithClients), both(&[2, 12], &[1, 3, 11, 13]));
        assert_eq!(blocked(Partition::Deaf), [(vec![1, 3, 11, 12, 13], vec![2])]);
        assert_eq!(blocked(Partition::Mute), [(vec![2], vec![1, 3, 11, 12, 13])]);
    }
}
