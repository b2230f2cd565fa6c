//! The schedule of a run: which faults, when, and for how long. A seed gives all of it.

use fastrand::Rng;
use std::time::Duration;
use test_support::cluster::SERVERS;

/// The steps of a schedule, without end. The same seed gives the same steps.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Rng,
}

/// A time without faults, and then one fault, or a few that overlap. The next step begins when
/// the servers work again.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The time without faults.
    pub rest: Duration,
    /// The faults.
    pub faults: Vec<Planned>,
}

/// A fault with its times.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The time from the end of the rest until it begins.
    pub start: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// The fault.
    pub fault: Fault,
}

/// A fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A server is killed, and started with its data at the end.
    Kill(Target),
    /// A server is stopped as an operator does, and started at the end.
    Restart(Target),
    /// A server is halted (SIGSTOP), and resumed at the end.
    Halt(Target),
    /// The disk of a server is full.
    DiskFull(Target),
    /// A server is cut off.
    Partition(Target, Partition),
    /// Packets arrive later.
    Latency(Links, Duration),
    /// This share of the packets is lost.
    Loss(Links, f64),
    /// Responses of this server to clients end in the middle.
    Cut {
        /// The number of the server.
        server: usize,
        /// The bytes that still arrive.
        after: usize,
        /// The number of connections.
        connections: usize,
    },
    /// A fault of a client, which the clients make themselves.
    Client(ClientFault),
}

/// A server by what it is when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The leader.
    Leader,
    /// One of the others.
    Follower(usize),
}

/// What a server is cut off from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// From all others, and from all clients.
    Alone,
    /// From the other servers only: all clients reach it.
    FromServers,
    /// From all but the clients of its own host.
    WithClients,
    /// It hears nobody, and all hear it.
    Deaf,
    /// Nobody hears it, and it hears all.
    Mute,
}

/// The links that a fault strikes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// All of one server.
    Of(Target),
    /// Those between servers.
    Servers,
    /// Those between clients and servers.
    Clients,
}

/// A fault of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFault {
    /// A number that chooses the client: one of N by its remainder.
    pub client: usize,
    /// What happens to it.
    pub kind: ClientFaultKind,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFaultKind {
    /// It is halted (SIGSTOP) for the time of the fault.
    Halt,
    /// Its wall clock jumps by so many seconds, and back at the end.
    ClockJump(i64),
    /// It is killed, and another one is started at the end.
    Kill,
}

impl Schedule {
    /// Makes the schedule of a seed.
    pub fn new(seed: u64) -> Schedule {
        Schedule { random: Rng::with_seed(seed) }
    }

    /// Returns a duration between these seconds, most often a short one.
    fn length(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + (most - least) * self.random.f64().powi(4))
    }

    fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + (most - least) * self.random.f64())
    }

    /// Returns the leader twice as often as another.
    fn target(&mut self) -> Target {
        if self.random.u8(..3) < 2 { Target::Leader } else { Target::Follower(self.random.usize(..SERVERS - 1)) }
    }

    fn links(&mut self) -> Links {
        match self.random.u8(..3) {
            0 => Links::Of(self.target()),
            1 => Links::Servers,
            _ => Links::Clients,
        }
    }

    /// Returns a fault that a majority may not survive together with another one.
    fn of_a_server(&mut self) -> Fault {
        let target = self.target();
        match self.random.u8(..20) {
            0..=3 => Fault::Kill(target),
            4..=6 => Fault::Halt(target),
            7..=8 => Fault::Restart(target),
            9 => Fault::DiskFull(target),
            _ => {
                let how = match self.random.u8(..5) {
                    0 => Partition::Alone,
                    1 => Partition::FromServers,
                    2 => Partition::WithClients,
                    3 => Partition::Deaf,
                    _ => Partition::Mute,
                };
                Fault::Partition(target, how)
            }
        }
    }

    /// Returns a fault that may come together with any other.
    fn of_a_link_or_client(&mut self) -> Fault {
        match self.random.u8(..10) {
            0..=1 => Fault::Latency(self.links(), self.between(0.01, 0.3)),
            2..=3 => Fault::Loss(self.links(), 0.01 + 0.19 * self.random.f64()),
            4..=6 => Fault::Cut {
                server: self.random.usize(..SERVERS),
                after: self.random.usize(..600),
                connections: self.random.usize(1..8),
            },
            _ => {
                let kind = match self.random.u8(..3) {
                    0 => ClientFaultKind::Halt,
                    1 => ClientFaultKind::ClockJump(if self.random.bool() { 3600 } else { -3600 }),
                    _ => ClientFaultKind::Kill,
                };
                Fault::Client(ClientFault { client: self.random.usize(..1000), kind })
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let rest = self.between(1.0, 3.0);
        let (fault, length) = match self.random.u8(..10) {
            0..=2 => (self.of_a_link_or_client(), self.length(1.0, 10.0)),
            _ => (self.of_a_server(), self.length(1.5, 15.0)),
        };
        let first = Planned { start: Duration::ZERO, length, fault };
        let second = match self.random.u8(..10) {
            0..=1 => Some(Planned {
                start: length.mul_f64(self.random.f64()),
                length: self.length(1.0, 8.0),
                fault: self.of_a_link_or_client(),
            }),
            // Without a majority for two seconds at most.
            2 => Some(Planned {
                start: length.saturating_sub(self.between(0.1, 2.0)),
                length: self.length(1.5, 6.0),
                fault: self.of_a_server(),
            }),
            _ => None,
        };
        Some(Step { rest, faults: [Some(first), second].into_iter().flatten().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn schedule_of_a_seed_is_always_the_same() {
        let steps = |seed| Schedule::new(seed).take(200).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn schedule_of_an_hour_strikes_often_enough_with_every_kind() {
        for seed in 1..=20 {
            let (mut time, mut faults) = (Duration::ZERO, Vec::new());
            let mut schedule = Schedule::new(seed);
            while time < Duration::from_secs(3600) {
                let step = schedule.next().expect("a schedule without end");
                // About what the servers need to work again.
                let recovery = Duration::from_millis(1500);
                let end = step.faults.iter().map(|fault| fault.start + fault.length).max().unwrap_or_default();
                time += step.rest + end + recovery;
                faults.extend(step.faults);
            }
            let of_the_leader = |fault: &&Planned| {
                use Fault::*;
                matches!(fault.fault, Kill(Target::Leader) | Halt(Target::Leader) | Restart(Target::Leader))
                    || matches!(fault.fault, Partition(Target::Leader, _))
            };
            assert!(faults.iter().filter(of_the_leader).count() > 200, "seed {seed}: {}", faults.len());
            let partitions = faults.iter().filter(|fault| matches!(fault.fault, Fault::Partition(..))).count();
            assert!(partitions > 150, "seed {seed}: {partitions}");
            let kinds: BTreeSet<String> =
                faults.iter().map(|fault| format!("{:?}", std::mem::discriminant(&fault.fault))).collect();
            assert_eq!(kinds.len(), 9, "seed {seed}: {kinds:?}");
        }
    }

    #[test]
    fn schedule_never_takes_the_majority_for_more_than_two_seconds() {
        let strikes_a_server = |fault: &Fault| {
            use Fault::*;
            matches!(fault, Kill(_) | Halt(_) | Restart(_) | DiskFull(_) | Partition(..))
        };
        for step in Schedule::new(3).take(2000) {
            let struck: Vec<&Planned> = step.faults.iter().filter(|fault| strikes_a_server(&fault.fault)).collect();
            if let [first, second] = struck[..] {
                assert!((first.start + first.length).saturating_sub(second.start) <= Duration::from_secs(2), "{step:?}");
            }
        }
    }
}
