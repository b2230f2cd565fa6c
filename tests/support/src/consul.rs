//! A real Consul agent for one test, on free ports.

use crate::api::Api;
use crate::certificates::{Authority, Certificate, Pair};
use crate::server::read_log;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of the agent's node.
pub const NODE: &str = "agent-node";
/// The management token of an agent with ACLs. Any other agent ignores it.
pub const ROOT_TOKEN: &str = "root";
/// The time limit for an agent to become ready to create sessions. It takes half a second; after a
/// restart with data, five.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);

/// Lets any web page use the API and read the headers that the component reads. Only the browser's
/// runner needs it.
const CORS: &str = r#"http_config { response_headers {
    "Access-Control-Allow-Origin" = "*"
    "Access-Control-Allow-Methods" = "GET, PUT"
    "Access-Control-Allow-Headers" = "X-Consul-Token"
    "Access-Control-Expose-Headers" = "X-Consul-Index, X-Consul-Results-Filtered-By-ACLs, X-Consul-Default-ACL-Policy"
} }
"#;

/// The names of the files in an agent's folder.
const CA: &str = "ca.pem";
const AGENT: &str = "agent";
const SOCKET: &str = "consul.sock";

const MISSING: &str = "no Consul agent: run `cargo xtask test`, which builds one, or set CONSUL_BIN";

/// The common setups of an agent; [`Settings`] has the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No ACLs, no TLS.
    Plain,
    /// ACLs on, default policy deny, all permissions for [`ROOT_TOKEN`].
    Acl,
    /// As `Plain`, and HTTPS on a second port, with a valid certificate of a private CA.
    Tls,
}

/// The setup of an agent. It always listens for plain HTTP too. Default: [`Kind::Plain`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// ACLs on, default policy deny, all permissions for [`ROOT_TOKEN`].
    pub acl: bool,
    /// HTTPS on a second port, with this certificate of a private CA.
    pub https: Option<Certificate>,
    /// HTTPS only for clients with a certificate of the same CA.
    pub verify_incoming: bool,
    /// HTTP on a Unix socket too.
    pub unix_socket: bool,
    /// 10,000 connections from one address instead of Consul's 200.
    pub many_connections: bool,
}

impl From<Kind> for Settings {
    fn from(kind: Kind) -> Settings {
        let plain = Settings::default();
        match kind {
            Kind::Plain => plain,
            Kind::Acl => Settings { acl: true, ..plain },
            Kind::Tls => Settings { https: Some(Certificate::Good), ..plain },
        }
    }
}

/// A running agent. It is killed when this is dropped, and on Linux also when the test process dies
/// without dropping it.
pub struct Consul {
    binary: PathBuf,
    settings: Settings,
    ports: Ports,
    /// Raft's data, for an agent that keeps it across a restart. An agent with `-dev` keeps
    /// everything in memory.
    data: Option<TempDir>,
    ca: Authority,
    /// Holds the certificates and the Unix socket.
    folder: TempDir,
    process: Child,
    /// An unnamed file, so that nothing is left in the file system.
    log: File,
}

struct Ports {
    http: u16,
    https: u16,
    server: u16,
    serf: u16,
}

impl Consul {
    /// Returns the Consul program: the one that `CONSUL_BIN` names, or the newest that `cargo xtask
    /// test` has built.
    ///
    /// # Panics
    ///
    /// The program is missing in CI, or `CONSUL_BIN` names one that is missing.
    pub fn binary() -> Option<PathBuf> {
        let given = std::env::var_os("CONSUL_BIN").map(PathBuf::from);
        let must_exist = given.is_some() || crate::in_ci();
        program(given.unwrap_or_else(|| built("1.22")), must_exist)
    }

    /// Returns an older Consul program, for the conformance cases: the one that `CONSUL_OLDER_BIN`
    /// names, or the one that `cargo xtask test` has built. There is none beside a Consul that
    /// `CONSUL_BIN` alone names.
    ///
    /// # Panics
    ///
    /// The program is missing in CI, or `CONSUL_OLDER_BIN` names one that is missing.
    pub fn older_binary() -> Option<PathBuf> {
        match std::env::var_os("CONSUL_OLDER_BIN") {
            Some(given) => program(given.into(), true),
            None if std::env::var_os("CONSUL_BIN").is_some() => None,
            None => program(built("1.20"), crate::in_ci()),
        }
    }

    /// Returns the version of a Consul program, such as `1.22.7`.
    ///
    /// # Errors
    ///
    /// The program cannot be run, or is not Consul.
    pub fn version(binary: &Path) -> Result<String> {
        let output = Command::new(binary).arg("version").output().with_context(|| binary.display().to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().and_then(|line| line.strip_prefix("Consul v"));
        Ok(version.with_context(|| format!("{} is not a Consul: {text}", binary.display()))?.to_owned())
    }

    /// Returns whether there is no Consul program, for data-driven tests, which are then shown as
    /// ignored. Prints how to get one.
    pub fn is_missing() -> bool {
        let missing = Consul::binary().is_none();
        if missing {
            eprintln!("{MISSING}");
        }
        missing
    }

    /// Starts an agent that keeps everything in memory (`-dev`), and waits until it can create
    /// sessions: about half a second.
    pub fn start(kind: Kind) -> Result<Consul> {
        Consul::start_with(kind.into())
    }

    /// Starts an agent with these settings; see [`Consul::start`].
    pub fn start_with(settings: Settings) -> Result<Consul> {
        Consul::launch(Consul::binary().context(MISSING)?, settings, None)
    }

    /// Starts an agent of this Consul program; see [`Consul::start`].
    pub fn start_program(binary: PathBuf, kind: Kind) -> Result<Consul> {
        Consul::launch(binary, kind.into(), None)
    }

    /// Starts an agent that keeps its data in its own directory, where [`Consul::restart`] finds
    /// it.
    pub fn start_persistent(kind: Kind) -> Result<Consul> {
        Consul::launch(Consul::binary().context(MISSING)?, kind.into(), Some(TempDir::new()?))
    }

    fn launch(binary: PathBuf, settings: Settings, data: Option<TempDir>) -> Result<Consul> {
        let (ca, folder) = (Authority::new()?, TempDir::new()?);
        std::fs::write(folder.path().join(CA), ca.pem())?;
        if let Some(certificate) = settings.https {
            ca.issue(certificate, folder.path(), AGENT)?;
        }
        let ports = Ports { http: free_port(), https: free_port(), server: free_port(), serf: free_port() };
        let log = tempfile::tempfile()?;
        let command = command(&binary, settings, &ports, data.as_ref().map(TempDir::path), folder.path(), &log)?;
        let mut agent = Consul { process: spawn(command)?, binary, settings, ports, data, ca, folder, log };
        agent.wait_until_ready()?;
        agent.api().register_checks().with_context(|| agent.log_since(0))?;
        Ok(agent)
    }

    /// Returns the address of its HTTP API.
    pub fn http(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.http).into()
    }

    /// Starts an agent as [`Consul::start_with`], and returns it with the port of its HTTPS API,
    /// which it must have.
    pub fn start_secure(settings: Settings) -> Result<(Consul, u16)> {
        let agent = Consul::start_with(settings)?;
        let port = agent.https().context("an agent without HTTPS")?.port();
        Ok((agent, port))
    }

    /// Returns the address of its HTTPS API, if it has one.
    pub fn https(&self) -> Option<SocketAddr> {
        self.settings.https.map(|_| (Ipv4Addr::LOCALHOST, self.ports.https).into())
    }

    /// Returns the certificate (PEM) of the CA that signed the agent's, unless that is
    /// [`Certificate::OtherCa`].
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join(CA)
    }

    /// Issues a certificate for a client. The agent accepts a valid one.
    pub fn issue(&self, certificate: Certificate) -> Result<Pair> {
        self.ca.issue(certificate, self.folder.path(), &format!("client-{certificate:?}"))
    }

    /// Returns its Unix socket, if it has one.
    pub fn socket(&self) -> Option<PathBuf> {
        self.settings.unix_socket.then(|| self.folder.path().join(SOCKET))
    }

    /// Returns a client of its API.
    pub fn api(&self) -> Api {
        Api::new(self.http(), if self.settings.acl { Kind::Acl } else { Kind::Plain })
    }

    /// Kills the agent at once, as a crash does (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Pauses the agent (SIGSTOP): the kernel accepts connections, and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // Before that, some of its threads might still answer.
        waitpid(Some(Pid::from_child(&self.process)), WaitOptions::UNTRACED)?;
        Ok(())
    }

    /// Resumes a paused agent (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Restarts the agent after [`Consul::kill`] on the same ports, and waits until it can create
    /// sessions. An agent that was started with [`Consul::start_persistent`] keeps its sessions.
    pub fn restart(&mut self) -> Result<()> {
        let data = self.data.as_ref().map(TempDir::path);
        let command = command(&self.binary, self.settings, &self.ports, data, self.folder.path(), &self.log)?;
        self.process = spawn(command)?;
        self.wait_until_ready()?;
        self.api().register_checks().with_context(|| self.log_since(0))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Returns the current length of the agent's log, for [`Consul::log_since`].
    pub fn log_length(&self) -> u64 {
        self.log.metadata().map_or(0, |log| log.len())
    }

    /// Returns the part of the agent's log after this length.
    pub fn log_since(&self, length: u64) -> String {
        read_log(&self.log, length).unwrap_or_else(|error| format!("(cannot read the agent's log: {error})"))
    }

    /// Waits until the agent is the leader and its node is healthy: before that no session can be
    /// created.
    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        let api = self.api();
        loop {
            if api.has_checks(NODE, &["serfHealth"]).unwrap_or(false) {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("Consul ended at once ({status}); its log:\n{}", self.log_since(0));
            }
            if start.elapsed() > START_LIMIT {
                bail!("Consul was not ready in {START_LIMIT:?}; its log:\n{}", self.log_since(0));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log_since(self.log_length().saturating_sub(4000));
            eprintln!("the end of the log of Consul at {}:\n{log}", self.http());
        }
    }
}

/// Returns the program that `cargo xtask test` builds of this version.
fn built(version: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/consul-agent")).join(version).join("consul")
}

/// Returns the program if it exists.
///
/// # Panics
///
/// It must exist and does not.
fn program(binary: PathBuf, must_exist: bool) -> Option<PathBuf> {
    assert!(binary.is_file() || !must_exist, "no Consul at {}", binary.display());
    binary.is_file().then_some(binary)
}

fn command(
    binary: &Path,
    settings: Settings,
    ports: &Ports,
    data: Option<&Path>,
    folder: &Path,
    log: &File,
) -> Result<Command> {
    let mut command = Command::new(binary);
    command.arg("agent").args(["-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=debug"]);
    command.arg(format!("-node={NODE}"));
    match data {
        None => command.arg("-dev"),
        Some(data) => command.args(["-server", "-bootstrap-expect=1"]).arg("-data-dir").arg(data),
    };
    let Ports { http, https, server, serf } = ports;
    let https = if settings.https.is_some() { i32::from(*https) } else { -1 };
    let mut config = format!(
        "ports {{ http = {http}, https = {https}, server = {server}, serf_lan = {serf}, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }}
         performance {{ raft_multiplier = 1 }}
         connect {{ enabled = false }}
         {CORS}"
    );
    if settings.acl {
        config.push_str(&format!(
            "acl {{ enabled = true, default_policy = \"deny\"
                    tokens {{ initial_management = \"{ROOT_TOKEN}\", agent = \"{ROOT_TOKEN}\" }} }}\n"
        ));
    }
    let file = |name: &str| folder.join(name).display().to_string();
    if settings.https.is_some() {
        config.push_str(&format!(
            "tls {{ https {{ cert_file = {:?}, key_file = {:?}, ca_file = {:?}, verify_incoming = {} }} }}\n",
            file(&format!("{AGENT}.pem")),
            file(&format!("{AGENT}-key.pem")),
            file(CA),
            settings.verify_incoming
        ));
    }
    if settings.many_connections {
        config.push_str("limits { http_max_conns_per_client = 10000 }\n");
    }
    if settings.unix_socket {
        config.push_str(&format!("addresses {{ http = \"127.0.0.1 unix://{}\" }}\n", file(SOCKET)));
    }
    command.arg("-hcl").arg(config);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    Ok(command)
}

/// Returns a port that is free for TCP and UDP (gossip uses both). It is below the ports that the
/// system gives to clients, so that no client takes it while the agent restarts.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new((std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16));
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}

/// Starts a process that is killed when this process dies in any way.
///
/// Linux sends that signal when the *thread* that started the child ends, and each test has its own
/// thread. So one thread, which lives as long as this process, starts all children.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                // The receiver waits for the result.
                let _ = answer.send(die_with_parent(&mut command).spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    STARTER.send((command, answer)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

/// Lets the kernel kill the process of this command when the thread that starts it ends.
#[cfg(target_os = "linux")]
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    use rustix::process::{getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure makes only two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent might have died before that.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        })
    }
}

/// Does nothing: only Linux has this.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        let distinct: std::collections::HashSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
    }
}
