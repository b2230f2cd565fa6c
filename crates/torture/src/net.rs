//! The network: a router between hosts, which forwards IPv4 packets by the last byte of their address,
//! and the rules that make it fail.

use crate::host::Host;
use crate::recorder::lock;
use anyhow::{Context, Result};
use etherparse::{Ipv4Slice, PacketBuilder, TcpSlice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tun_rs::SyncDevice;

/// The size of a packet at most.
pub const MTU: u16 = 1500;
/// The packets of one host that are forwarded before it is another one's turn.
const BATCH: usize = 64;

/// Returns the address of a host: 10.77.0.N.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// What happens to packets from one host to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// They are dropped.
    Block,
    /// They arrive later.
    Delay(Duration),
    /// This share of them is dropped.
    Lose(f64),
    /// They are the responses of a server, whose connections end in the middle of one.
    Cut(Cut),
}

/// Connections that end in the middle of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The port of the server.
    pub port: u16,
    /// The bytes of each connection that still arrive.
    pub after: usize,
    /// The number of connections.
    pub connections: usize,
}

/// A network, in which everything is open at first. It ends when this is dropped.
pub struct Network {
    shared: Arc<Shared>,
    router: Option<JoinHandle<()>>,
}

/// A rule of a network, which applies until this is dropped. Of several, each applies.
#[must_use = "the rule ends when this is dropped"]
pub struct Rule {
    shared: Arc<Shared>,
    id: u64,
}

struct Shared {
    state: Mutex<State>,
    next: AtomicU64,
    /// Wakes the router.
    wake: EventFd,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    devices: BTreeMap<u8, Arc<SyncDevice>>,
    rules: BTreeMap<u64, Active>,
}

/// A rule, and what it has done so far.
struct Active {
    from: BTreeSet<u8>,
    to: BTreeSet<u8>,
    effect: Effect,
    /// The bytes that were sent so far, by connection.
    sent: HashMap<Connection, usize>,
    cut: HashSet<Connection>,
}

/// A TCP connection: the server's end, then the client's.
type Connection = [(Ipv4Addr, u16); 2];

impl Network {
    /// Makes a network without hosts. Losses are chosen by the seed.
    pub fn new(seed: u64) -> Result<Network> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            next: AtomicU64::new(0),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            ended: AtomicBool::new(false),
        });
        let router = Router { shared: Arc::clone(&shared), random: fastrand::Rng::with_seed(seed), waiting: BinaryHeap::new() };
        let router = std::thread::Builder::new().name("router".into()).spawn(move || router.run())?;
        Ok(Network { shared, router: Some(router) })
    }

    /// Adds a host with the address 10.77.0.N.
    ///
    /// # Errors
    ///
    /// Network namespaces cannot be made here; the message says what to do.
    pub fn host(&self, name: &str, number: u8) -> Result<Host> {
        Host::new(self, name, number, None)
    }

    pub(crate) fn attach(&self, number: u8, device: SyncDevice) -> Result<()> {
        device.set_nonblocking(true)?;
        self.shared.lock().devices.insert(number, Arc::new(device));
        self.shared.wake.write(1).context("eventfd")?;
        Ok(())
    }

    /// Makes a rule for the packets from each of these hosts to each of those.
    pub fn rule(&self, from: impl IntoIterator<Item = u8>, to: impl IntoIterator<Item = u8>, effect: Effect) -> Rule {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (from.into_iter().collect(), to.into_iter().collect());
        let active = Active { from, to, effect, sent: HashMap::new(), cut: HashSet::new() };
        self.shared.lock().rules.insert(id, active);
        Rule { shared: Arc::clone(&self.shared), id }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // It fails only if the counter is full, and then the router wakes too.
        let _ = self.shared.wake.write(1);
        if let Some(router) = self.router.take() {
            // It panics never; and this must not.
            let _ = router.join();
        }
        self.shared.lock().devices.clear();
    }
}

impl Rule {
    /// Returns the number of connections that it has cut.
    pub fn cuts(&self) -> usize {
        self.shared.lock().rules.get(&self.id).map_or(0, |rule| rule.cut.len())
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.shared.lock().rules.remove(&self.id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

struct Router {
    shared: Arc<Shared>,
    random: fastrand::Rng,
    waiting: BinaryHeap<Waiting>,
}

/// A packet on its way.
#[derive(PartialEq, Eq)]
struct Waiting {
    due: Instant,
    /// Of two that are due at the same time, the first one goes first.
    order: u64,
    packet: Vec<u8>,
}

impl Ord for Waiting {
    /// The heap gives the greatest first: the one that is due first.
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Router {
    fn run(mut self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let mut order = 0;
        while !self.shared.ended.load(Ordering::SeqCst) {
            let devices: Vec<Arc<SyncDevice>> = self.shared.lock().devices.values().cloned().collect();
            self.wait(&devices);
            for device in &devices {
                for _ in 0..BATCH {
                    let Ok(length) = device.recv(&mut buffer) else { break };
                    for (packet, delay) in self.route(&buffer[..length]) {
                        order += 1;
                        match delay {
                            Duration::ZERO => self.send(&packet),
                            delay => self.waiting.push(Waiting { due: Instant::now() + delay, order, packet }),
                        }
                    }
                }
            }
            while self.waiting.peek().is_some_and(|first| first.due <= Instant::now()) {
                if let Some(first) = self.waiting.pop() {
                    self.send(&first.packet);
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, devices: &[Arc<SyncDevice>]) {
        let readable = devices.iter().map(|device| device.as_fd()).chain([self.shared.wake.as_fd()]);
        let mut readable: Vec<PollFd<'_>> = readable.map(|file| PollFd::new(file, PollFlags::POLLIN)).collect();
        let timeout = match self.waiting.peek() {
            // One millisecond too late rather than a busy loop until then.
            Some(first) => {
                PollTimeout::try_from(first.due.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
            }
            None => Ok(PollTimeout::NONE),
        };
        // An interrupted wait is one without a result.
        let _ = poll(&mut readable, timeout.unwrap_or(PollTimeout::MAX));
        // Empties the counter, if it is not empty.
        let _ = self.shared.wake.read();
    }

    fn send(&self, packet: &[u8]) {
        let device = self.shared.lock().devices.get(&packet[19]).cloned();
        if let Some(device) = device {
            // As in any network, a packet that cannot be delivered is lost.
            let _ = device.send(packet);
        }
    }

    /// Returns the packets that follow from one, with their delays.
    fn route(&mut self, packet: &[u8]) -> Vec<(Vec<u8>, Duration)> {
        // Everything else than IPv4 is neighbour discovery.
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            return Vec::new();
        }
        let (from, to) = (packet[15], packet[19]);
        let mut delay = Duration::ZERO;
        let mut state = self.shared.lock();
        for rule in state.rules.values_mut() {
            if let Effect::Cut(cut) = rule.effect {
                if (rule.applies(from, to) || rule.applies(to, from))
                    && let Some(answers) = rule.cut_in(packet, cut)
                {
                    return answers.into_iter().map(|answer| (answer, Duration::ZERO)).collect();
                }
            } else if rule.applies(from, to) {
                match rule.effect {
                    Effect::Block => return Vec::new(),
                    Effect::Lose(share) if self.random.f64() < share => return Vec::new(),
                    Effect::Delay(more) => delay += more,
                    Effect::Lose(_) | Effect::Cut(_) => {}
                }
            }
        }
        vec![(packet.to_vec(), delay)]
    }
}

impl Active {
    fn applies(&self, from: u8, to: u8) -> bool {
        self.from.contains(&from) && self.to.contains(&to)
    }

    /// Cuts a connection, or keeps it cut. Returns the packets that replace this one.
    fn cut_in(&mut self, packet: &[u8], cut: Cut) -> Option<Vec<Vec<u8>>> {
        let ip = Ipv4Slice::from_slice(packet).ok()?;
        let tcp = TcpSlice::from_slice(ip.payload().payload).ok()?;
        let source = (ip.header().source_addr(), tcp.source_port());
        let destination = (ip.header().destination_addr(), tcp.destination_port());
        let from_server = tcp.source_port() == cut.port && self.from.contains(&packet[15]);
        let connection = if from_server { [source, destination] } else { [destination, source] };
        let segment = Segment { source, destination, tcp: &tcp };
        if self.cut.contains(&connection) {
            if tcp.syn() && !tcp.ack() {
                // A new connection with the same ports.
                self.cut.remove(&connection);
                return None;
            }
            // A reset counts only with the number that its receiver expects: the one that it
            // acknowledges.
            return Some(if tcp.rst() { Vec::new() } else { vec![segment.reset_of_source()] });
        }
        if !from_server || tcp.payload().is_empty() || self.cut.len() == cut.connections {
            return None;
        }
        let sent = self.sent.entry(connection).or_default();
        let rest = cut.after.saturating_sub(*sent);
        if tcp.payload().len() <= rest {
            *sent += tcp.payload().len();
            return None;
        }
        self.cut.insert(connection);
        let mut packets = vec![segment.reset_of_destination(rest), segment.reset_of_source()];
        if rest > 0 {
            packets.insert(0, segment.shortened(rest));
        }
        Some(packets)
    }
}

/// A TCP segment between two ends.
struct Segment<'a> {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    tcp: &'a TcpSlice<'a>,
}

impl Segment<'_> {
    /// Returns the segment with only so much of its payload.
    fn shortened(&self, length: usize) -> Vec<u8> {
        let tcp = self.tcp;
        let packet = PacketBuilder::ipv4(self.source.0.octets(), self.destination.0.octets(), 64)
            .tcp(self.source.1, self.destination.1, tcp.sequence_number(), tcp.window_size())
            .ack(tcp.acknowledgment_number())
            .psh()
            .options_raw(tcp.options())
            .expect("the options of a segment fit into one");
        built(|bytes| packet.write(bytes, &tcp.payload()[..length]))
    }

    /// Returns a reset for the receiver, as if the sender had sent it after so much of the payload.
    fn reset_of_destination(&self, sent: usize) -> Vec<u8> {
        let number = self.tcp.sequence_number().wrapping_add(sent as u32);
        reset(self.source, self.destination, number, self.tcp.acknowledgment_number())
    }

    /// Returns a reset for the sender, as if the receiver had sent it.
    fn reset_of_source(&self) -> Vec<u8> {
        let received = self.tcp.sequence_number().wrapping_add(self.tcp.payload().len() as u32);
        reset(self.destination, self.source, self.tcp.acknowledgment_number(), received)
    }
}

fn reset(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), number: u32, acknowledged: u32) -> Vec<u8> {
    let packet = PacketBuilder::ipv4(source.0.octets(), destination.0.octets(), 64)
        .tcp(source.1, destination.1, number, 0)
        .ack(acknowledged)
        .rst();
    built(|bytes| packet.write(bytes, &[]))
}

fn built(write: impl FnOnce(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes).expect("a vector takes every packet of this size");
    bytes
}
