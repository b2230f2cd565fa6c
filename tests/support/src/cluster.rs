//! A cluster of three Consul servers on this machine, each of which can be killed and restarted, or
//! halted and resumed.

use crate::api::Api;
use crate::consul::{Consul, Kind, START_LIMIT, free_port, spawn};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::File;
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The number of servers. The cluster works without one of them.
pub const SERVERS: usize = 3;

/// The running servers, by number. They are killed when this is dropped.
pub struct Cluster(Vec<Server>);

struct Server {
    process: Child,
    addresses: Addresses,
    data: TempDir,
    log: File,
}

impl Cluster {
    /// Starts the servers, and waits until they have a leader and each can create sessions.
    pub fn start() -> Result<Cluster> {
        let addresses = || Addresses { host: Ipv4Addr::LOCALHOST, http: free_port(), server: free_port(), serf: free_port() };
        let all = [(); SERVERS].map(|()| addresses());
        let servers = all.into_iter().enumerate().map(|(number, addresses)| {
            let (data, log) = (TempDir::new()?, tempfile::tempfile()?);
            let process = spawn(command(number, &all, data.path(), &log)?)?;
            Ok(Server { process, addresses, data, log })
        });
        let cluster = Cluster(servers.collect::<Result<_>>()?);
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Returns the name of a server's node.
    pub fn node(number: usize) -> String {
        format!("server-{number}")
    }

    /// Returns the address of the HTTP API of a server.
    pub fn http(&self, number: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0[number].addresses.http).into()
    }

    /// Returns a client of the API of a server.
    pub fn api(&self, number: usize) -> Api {
        Api::new(self.http(number), Kind::Plain)
    }

    /// Returns the leader, according to the server `asked`.
    pub fn leader(&self, asked: usize) -> Result<usize> {
        let answer = self.api(asked).get("/v1/status/leader")?;
        let leads = |server: &Server| answer == format!("127.0.0.1:{}", server.addresses.server);
        self.0.iter().position(leads).with_context(|| format!("no server leads: {answer}"))
    }

    /// Kills a server at once, as a crash does (SIGKILL).
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.0[number].process.kill()?;
        self.0[number].process.wait()?;
        Ok(())
    }

    /// Restarts a server after [`Cluster::kill`] with its data, and waits until each can create
    /// sessions.
    pub fn restart(&mut self, number: usize) -> Result<()> {
        let all: Vec<Addresses> = self.0.iter().map(|server| server.addresses).collect();
        let server = &mut self.0[number];
        server.process = spawn(command(number, &all, server.data.path(), &server.log)?)?;
        self.wait_until_ready()
    }

    /// Halts a server (SIGSTOP), as a suspended machine does: the kernel accepts connections, and
    /// nothing answers.
    pub fn halt(&self, number: usize) -> Result<()> {
        let process = Pid::from_child(&self.0[number].process);
        kill_process(process, Signal::STOP)?;
        // Before that, some of its threads might still answer.
        waitpid(Some(process), WaitOptions::UNTRACED)?;
        Ok(())
    }

    /// Resumes a server after [`Cluster::halt`] (SIGCONT), and waits until each can create
    /// sessions.
    pub fn resume(&self, number: usize) -> Result<()> {
        kill_process(Pid::from_child(&self.0[number].process), Signal::CONT)?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let healthy = |asked: usize, of: usize| {
                let path = format!("/v1/health/node/{}", Cluster::node(of));
                self.api(asked).get(&path).is_ok_and(|checks| checks[0]["Status"] == "passing")
            };
            let all = || (0..SERVERS).all(|asked| (0..SERVERS).all(|of| healthy(asked, of)));
            if (0..SERVERS).all(|asked| self.leader(asked).is_ok()) && all() {
                return Ok(());
            }
            if start.elapsed() > START_LIMIT {
                bail!("the servers were not ready in {START_LIMIT:?}; their logs:\n{}", self.logs()?);
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> Result<String> {
        let mut text = String::new();
        for server in &self.0 {
            let mut log = server.log.try_clone()?;
            log.rewind()?;
            log.read_to_string(&mut text)?;
        }
        Ok(text)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.0 {
            // Both fail only for a process that has ended.
            let _ = server.process.kill();
            let _ = server.process.wait();
        }
    }
}

/// The addresses of one server.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Of all of its ports.
    pub host: Ipv4Addr,
    /// The port of the HTTP API.
    pub http: u16,
    /// The port for the other servers.
    pub server: u16,
    /// The port for gossip.
    pub serf: u16,
}

/// Returns the command of a server, one of [`SERVERS`] at these addresses.
pub fn command(number: usize, all: &[Addresses], data: &Path, log: &File) -> Result<Command> {
    let binary = Consul::binary().context("no Consul agent")?;
    ensure!(all.len() == SERVERS);
    let Addresses { host, http, server, serf } = all[number];
    let mut command = Command::new(binary);
    command.args(["agent", "-server", "-retry-interval=1s"]);
    command.arg(format!("-bind={host}")).arg(format!("-client={host}"));
    command.arg(format!("-bootstrap-expect={SERVERS}")).arg(format!("-node={}", Cluster::node(number)));
    command.args(all.iter().map(|other| format!("-retry-join={}:{}", other.host, other.serf)));
    // A server that is down stays a member. Else it comes back without a vote for ten seconds, in which
    // the others cannot lose one more.
    command.arg("-data-dir").arg(data).arg("-hcl").arg(format!(
        "ports {{ http = {http}, https = -1, server = {server}, serf_lan = {serf}, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }}
         performance {{ raft_multiplier = 1 }}
         connect {{ enabled = false }}
         autopilot {{ cleanup_dead_servers = false }}"
    ));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    Ok(command)
}
