//! The three Consul servers, each on a host with a disk of its own.

use crate::host::{Disk, Host};
use crate::net::Network;
use crate::recorder::lock;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};
use test_support::api::Api;
use test_support::cluster::{Addresses, Cluster, SERVERS, command};
use test_support::consul::Kind;

/// The port of the HTTP API.
pub const HTTP: u16 = 8500;
/// The size of each server's disk in bytes.
const DISK: u64 = 128 << 20;
/// The size of a segment of Raft's log in bytes.
const SEGMENT: usize = 1 << 20;
/// About the size of the largest value that Consul takes, in bytes.
const LARGEST_VALUE: usize = 500_000;
/// The most writes that show a server that its disk is full.
const FILL_WRITES: usize = 10;
/// The file that fills a disk.
const FILL: &str = "fill";
/// The time for the servers to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The time for a server to stop as an operator stops it.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The time between two calls of [`Servers::join`].
const JOIN_INTERVAL: Duration = Duration::from_millis(500);
/// The time between two looks at a server.
const LOOK: Duration = Duration::from_millis(100);
/// The time for a server to answer a look.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// The time after which an answer no longer counts.
const FRESH: Duration = Duration::from_millis(800);

/// The running servers, by number from 0 on. They are killed when this is dropped.
pub struct Servers {
    shared: Arc<Shared>,
    watchers: Vec<JoinHandle<Result<()>>>,
    control: Arc<Host>,
}

/// How often leaders came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elections {
    /// The terms in which a server led.
    pub won: u64,
    /// Those of them in which it was another server than in the one before.
    pub changes: u64,
}

struct Shared {
    addresses: [Addresses; SERVERS],
    servers: Vec<Server>,
    /// The leaders by term.
    leaders: Mutex<BTreeMap<u64, usize>>,
    /// What must never be, if it was seen.
    fault: Mutex<Option<String>>,
    exits: AtomicU64,
    ended: AtomicBool,
}

struct Server {
    host: Host,
    disk: PathBuf,
    log: PathBuf,
    process: Mutex<Process>,
    seen: Mutex<Option<Seen>>,
}

enum Process {
    Runs(Child),
    /// Stopped by [`Servers::kill`] or [`Servers::stop`].
    Stopped,
    /// Ended by itself.
    Ended,
}

/// What a server last said of itself.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    leads: bool,
    term: u64,
    /// The leader as this server knows it.
    leader: Option<usize>,
}

impl Servers {
    /// Starts the servers at 10.77.0.1 to 10.77.0.3, and waits until each can create sessions. Their
    /// logs are in the folder. The control host is one that no fault strikes.
    pub fn start(network: &Network, control: Arc<Host>, folder: &Path) -> Result<Servers> {
        let servers = (0..SERVERS).map(|number| Server::new(network, number, folder)).collect::<Result<Vec<_>>>()?;
        let addresses = |server: &Server| Addresses { host: server.host.address(), http: HTTP, server: 8300, serf: 8301 };
        let addresses: [Addresses; SERVERS] = std::array::from_fn(|number| addresses(&servers[number]));
        let shared = Arc::new(Shared {
            addresses,
            servers,
            leaders: Mutex::default(),
            fault: Mutex::default(),
            exits: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let mut servers = Servers { shared, watchers: Vec::new(), control };
        for number in 0..SERVERS {
            servers.start_one(number)?;
            let shared = Arc::clone(&servers.shared);
            servers.watchers.push(servers.control.thread(move || {
                shared.watch(number);
                Ok(())
            })?);
        }
        servers.wait_until_working(START_LIMIT, || match servers.ended().first() {
            Some(server) => bail!("server {server} ended at once; its log:\n{}", servers.log(*server)),
            None => Ok(()),
        })?;
        Ok(servers)
    }

    /// Returns the address of the HTTP API of a server.
    pub fn http(&self, server: usize) -> SocketAddr {
        (self.shared.addresses[server].host, HTTP).into()
    }

    /// Returns the name of a server's node.
    pub fn node(&self, server: usize) -> String {
        Cluster::node(server)
    }

    /// Returns the last byte of a server's address.
    pub fn number(&self, server: usize) -> u8 {
        self.shared.servers[server].host.number()
    }

    /// Returns the server that leads in the highest term, if one says at present that it leads.
    pub fn leader(&self) -> Option<usize> {
        let seen = (0..SERVERS).filter_map(|server| Some((server, self.shared.fresh(server)?)));
        Some(seen.filter(|(_, seen)| seen.leads).max_by_key(|(_, seen)| seen.term)?.0)
    }

    /// Waits for a leader, and returns it; none after this time.
    pub fn wait_for_leader(&self, limit: Duration) -> Option<usize> {
        self.wait_for(limit, || self.leader())
    }

    /// Waits for another leader than this server, and returns it; none after this time.
    pub fn wait_for_another_leader(&self, than: usize, limit: Duration) -> Option<usize> {
        self.wait_for(limit, || self.leader().filter(|leader| *leader != than))
    }

    /// Returns whether a server says at present that it leads; none if it says nothing.
    pub fn leads(&self, server: usize) -> Option<bool> {
        Some(self.shared.fresh(server)?.leads)
    }

    /// Returns how often leaders came so far.
    pub fn elections(&self) -> Elections {
        let leaders: Vec<usize> = lock(&self.shared.leaders).values().copied().collect();
        let changes = leaders.windows(2).filter(|pair| pair[0] != pair[1]).count();
        Elections { won: leaders.len() as u64, changes: changes as u64 }
    }

    /// Returns how often a Consul has ended by itself so far.
    pub fn exits(&self) -> u64 {
        self.shared.exits.load(Ordering::SeqCst)
    }

    /// Kills a server at once (SIGKILL).
    pub fn kill(&self, server: usize) -> Result<()> {
        let mut process = lock(&self.shared.servers[server].process);
        if let Process::Runs(child) = &mut *process {
            child.kill()?;
            child.wait()?;
        }
        *process = Process::Stopped;
        Ok(())
    }

    /// Stops a server as an operator does (SIGINT).
    pub fn stop(&self, server: usize) -> Result<()> {
        let mut process = lock(&self.shared.servers[server].process);
        if let Process::Runs(child) = &mut *process {
            signal(child, Signal::SIGINT)?;
            let begin = Instant::now();
            while child.try_wait()?.is_none() {
                if begin.elapsed() > STOP_LIMIT {
                    // As systemd does.
                    child.kill()?;
                }
                sleep(Duration::from_millis(10));
            }
        }
        *process = Process::Stopped;
        Ok(())
    }

    /// Starts a server with its data, unless it runs.
    pub fn start_one(&self, server: usize) -> Result<()> {
        let Server { host, disk, log, process, .. } = &self.shared.servers[server];
        let mut process = lock(process);
        if !matches!(&*process, Process::Runs(_)) {
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            *process = Process::Runs(host.spawn(server_command(server, &self.shared.addresses, disk, &log)?)?);
        }
        Ok(())
    }

    /// Halts a server (SIGSTOP): the kernel accepts connections, and nothing answers.
    pub fn halt(&self, server: usize) -> Result<()> {
        if let Process::Runs(child) = &*lock(&self.shared.servers[server].process) {
            signal(child, Signal::SIGSTOP)?;
            // Before that, some of its threads might still answer.
            // The status is left for those who look whether it has ended.
            waitid(Id::Pid(pid(child)), WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        }
        Ok(())
    }

    /// Resumes a server after [`Servers::halt`] (SIGCONT).
    pub fn resume(&self, server: usize) -> Result<()> {
        match &*lock(&self.shared.servers[server].process) {
            Process::Runs(child) => signal(child, Signal::SIGCONT),
            Process::Stopped | Process::Ended => Ok(()),
        }
    }

    /// Fills the disk of a server, and writes more than it can store.
    pub fn fill(&self, server: usize) -> Result<()> {
        self.fill_disk(server)?;
        let value = Value::String("x".repeat(LARGEST_VALUE));
        let mut api = Api::new(self.http(server), Kind::Plain).with_timeout(ANSWER_LIMIT * 4);
        self.control.run(|| {
            // A leader that cannot store a write gives up the lead, and may win it again.
            for _ in 0..FILL_WRITES {
                let leader = self.wait_for_leader(ANSWER_LIMIT * 4).unwrap_or(server);
                api.address = self.http(leader);
                let written = api.put("/v1/kv/world/fill", Some(&value)).is_ok();
                if written && leader != server {
                    break;
                }
            }
            Ok(())
        })
    }

    fn fill_disk(&self, server: usize) -> Result<()> {
        let Server { host, disk, .. } = &self.shared.servers[server];
        host.run(|| {
            let mut file = OpenOptions::new().create(true).append(true).open(disk.join(FILL))?;
            // Smaller and smaller pieces: the last ones fill the last page.
            for size in [1 << 20, 4096, 1] {
                let piece = vec![0; size];
                loop {
                    match file.write(&piece) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::StorageFull => break,
                        Err(error) => return Err(error).context(FILL),
                    }
                }
            }
            Ok(())
        })
    }

    /// Frees the disk of a server.
    pub fn free(&self, server: usize) -> Result<()> {
        let Server { host, disk, .. } = &self.shared.servers[server];
        host.run(|| match std::fs::remove_file(disk.join(FILL)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context(FILL),
            _ => Ok(()),
        })
    }

    /// Waits until all servers know the same leader, and each can create sessions. Meanwhile, it starts
    /// those that ended by themselves.
    ///
    /// # Errors
    ///
    /// They do not in this time, or two servers led in the same term.
    pub fn recover(&self, limit: Duration) -> Result<()> {
        let mut joined = Instant::now();
        self.wait_until_working(limit, || {
            self.ended().into_iter().try_for_each(|server| self.start_one(server))?;
            if joined.elapsed() > JOIN_INTERVAL {
                self.join();
                joined = Instant::now();
            }
            Ok(())
        })
    }

    /// Lets the leader look for the others at once, as `consul join` does. Serf looks for a server that
    /// it has given up only each 30 seconds.
    fn join(&self) {
        if let Some(leader) = self.leader() {
            let api = Api::new(self.http(leader), Kind::Plain).with_timeout(ANSWER_LIMIT);
            for server in (0..SERVERS).filter(|server| *server != leader) {
                // It fails while the other one cannot be reached, or is slow.
                let _ = api.put(&format!("/v1/agent/join/{}", self.shared.addresses[server].host), None);
            }
        }
    }

    /// Waits as [`Servers::recover`], and calls this closure again and again.
    fn wait_until_working(&self, limit: Duration, mut each: impl FnMut() -> Result<()> + Send) -> Result<()> {
        let api = Api::new(self.http(0), Kind::Plain).with_timeout(ANSWER_LIMIT * 4);
        let works = || {
            let leader = self.leader()?;
            let knows = |server| self.shared.fresh(server).is_some_and(|seen| seen.leader == Some(leader));
            let mut api = api.clone();
            api.address = self.http(leader);
            ((0..SERVERS).all(knows) && all_are_healthy(&api)? && can_write(&api)).then_some(())
        };
        let worked = self.control.run(|| {
            self.wait_for(limit, || match each() {
                Ok(()) => works().map(Ok),
                Err(error) => Some(Err(error)),
            })
            .with_context(|| format!("the servers do not work after {limit:?}: {}", self.state()))?
        });
        match &*lock(&self.shared.fault) {
            Some(fault) => bail!("{fault}"),
            None => worked,
        }
    }

    /// Returns the servers that have ended by themselves.
    fn ended(&self) -> Vec<usize> {
        let ended = |server: &usize| matches!(&*lock(&self.shared.servers[*server].process), Process::Ended);
        (0..SERVERS).filter(ended).collect()
    }

    /// Returns the end of a server's log.
    fn log(&self, server: usize) -> String {
        let log = std::fs::read_to_string(&self.shared.servers[server].log).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let begin = Instant::now();
        loop {
            match look() {
                None if begin.elapsed() < limit => sleep(Duration::from_millis(20)),
                found => return found,
            }
        }
    }

    /// Returns what is known of the servers, for an error.
    fn state(&self) -> String {
        let state = |server: usize| {
            let runs = match &*lock(&self.shared.servers[server].process) {
                Process::Runs(_) => "runs",
                Process::Stopped => "stopped",
                Process::Ended => "ended by itself",
            };
            let says = match self.shared.fresh(server) {
                None => "says nothing".to_owned(),
                Some(Seen { leads: true, term, .. }) => format!("leads in term {term}"),
                Some(Seen { term, leader, .. }) => format!("knows leader {leader:?} in term {term}"),
            };
            format!("server {server} {runs}, {says}; its log is {}", self.shared.servers[server].log.display())
        };
        (0..SERVERS).map(state).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for server in 0..SERVERS {
            // It fails only for a process that has ended.
            let _ = self.kill(server);
        }
        for watcher in self.watchers.drain(..) {
            // It was of use only before.
            let _ = watcher.join();
        }
    }
}

impl Server {
    fn new(network: &Network, number: usize, folder: &Path) -> Result<Server> {
        let name = Cluster::node(number);
        let disk = folder.join(&name);
        std::fs::create_dir_all(&disk).with_context(|| disk.display().to_string())?;
        let log = folder.join(format!("{name}.log"));
        let host = Host::new(network, &name, number as u8 + 1, Some(Disk { folder: disk.clone(), size: DISK }))?;
        Ok(Server { host, disk, log, process: Mutex::new(Process::Stopped), seen: Mutex::default() })
    }
}

impl Shared {
    /// Returns what a server has said just now.
    fn fresh(&self, server: usize) -> Option<Seen> {
        lock(&self.servers[server].seen).filter(|seen| seen.at.elapsed() < FRESH)
    }

    /// Looks at a server again and again.
    fn watch(&self, number: usize) {
        let server = &self.servers[number];
        let api = Api::new((self.addresses[number].host, HTTP).into(), Kind::Plain).with_timeout(ANSWER_LIMIT);
        while !self.ended.load(Ordering::SeqCst) {
            let mut process = lock(&server.process);
            if let Process::Runs(child) = &mut *process
                && let Some(status) = child.try_wait().transpose()
            {
                eprintln!("server {number} has ended by itself: {status:?}");
                self.exits.fetch_add(1, Ordering::SeqCst);
                *process = Process::Ended;
            }
            drop(process);
            let at = Instant::now();
            if let Some(seen) = api.get("/v1/agent/self").ok().and_then(|agent| self.parse(at, &agent)) {
                *lock(&server.seen) = Some(seen);
                if seen.leads {
                    self.led(number, seen.term);
                }
            }
            sleep(LOOK);
        }
    }

    fn parse(&self, at: Instant, agent: &Value) -> Option<Seen> {
        let stats = &agent["Stats"];
        let leader = stats["consul"]["leader_addr"].as_str()?;
        Some(Seen {
            at,
            leads: stats["raft"]["state"] == "Leader",
            term: stats["raft"]["term"].as_str()?.parse().ok()?,
            leader: self.addresses.iter().position(|server| leader == format!("{}:{}", server.host, server.server)),
        })
    }

    fn led(&self, number: usize, term: u64) {
        let before = lock(&self.leaders).insert(term, number);
        if let Some(other) = before.filter(|other| *other != number) {
            let text = format!("servers {other} and {number} both led in term {term}");
            lock(&self.fault).get_or_insert(text);
        }
    }
}

/// Returns whether each server's node is healthy, according to this server; none if it does not say.
fn all_are_healthy(api: &Api) -> Option<bool> {
    let checks = api.get("/v1/health/state/any").ok()?;
    let passes = |check: &&Value| check["CheckID"] == "serfHealth" && check["Status"] == "passing";
    Some(checks.as_array()?.iter().filter(passes).count() == SERVERS)
}

/// Returns whether a write works. It is one of a key that nobody looks at.
fn can_write(api: &Api) -> bool {
    api.put("/v1/kv/world/works", None).is_ok()
}

/// Returns the command of a server.
fn server_command(
    number: usize,
    addresses: &[Addresses; SERVERS],
    disk: &Path,
    log: &std::fs::File,
) -> Result<std::process::Command> {
    let mut command = command(number, addresses, disk, log)?;
    // All clients of a host have one address. Raft's log takes disk space by the segment.
    let config = format!(
        "limits {{ http_max_conns_per_client = 10000 }}
         raft_logstore {{ wal {{ segment_size_mb = {} }} }}
         disable_update_check = true",
        SEGMENT >> 20
    );
    command.arg("-hcl").arg(config);
    Ok(command)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill(pid(child), signal).with_context(|| format!("{signal}"))
}
