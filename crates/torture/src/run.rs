//! A run: starts the world and the clients, makes the faults, and keeps the history.

use crate::clients::locker::Programs;
use crate::clients::watcher::{self, MARK};
use crate::clients::{Client, Place, Shared, Way, library};
use crate::faults::{Struck, Tally};
use crate::history::{Answer, Event, Session, Wish};
use crate::recorder::{Recorder, Subject, lock};
use crate::register::Register;
use crate::schedule::Schedule;
use crate::workload;
use crate::world::{CLIENT_HOSTS, World};
use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_host::Host;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use test_support::tools::root;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The name of the history in the folder of the run.
pub const HISTORY: &str = "history.jsonl";
/// The longest that the clients may take to end, once the servers work: several calls of 30 seconds.
const ENDING: Duration = Duration::from_secs(150);
/// The longest that a watch may take to print what happened, or a session with a TTL to end.
const SETTLING: Duration = Duration::from_secs(60);
/// The time between two looks at what nobody tells.
const LOOK: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Chooses the faults and the calls.
    pub seed: u64,
    /// How long faults are made.
    pub length: Duration,
    /// The folder for the history and the messages of servers and programs, which is made if it is
    /// missing, and must be empty.
    pub folder: PathBuf,
    /// The program of this package.
    pub torture: PathBuf,
}

/// What a run did.
#[derive(Debug)]
pub struct Results {
    /// The faults.
    pub tally: Tally,
    /// How many runs of `consul-session lock` ended with each exit status.
    pub locks: BTreeMap<i32, u64>,
    /// What no call may do, such as to trap.
    pub breaches: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

/// Returns a folder of this name below `target/torture`, without what an earlier run left there.
pub fn own_folder(name: &str) -> Result<PathBuf> {
    let folder = root().join("target/torture").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(folder)
}

/// Runs, and writes the history.
///
/// # Errors
///
/// The world cannot be made or does not recover, or a client ended otherwise than it should.
pub fn run(settings: &Settings) -> Result<Results> {
    let begin = Instant::now();
    fs::create_dir_all(&settings.folder).with_context(|| settings.folder.display().to_string())?;
    let is_empty = fs::read_dir(&settings.folder)?.next().is_none();
    ensure!(is_empty, "{} is not empty: name a new folder", settings.folder.display());
    let folder = settings.folder.canonicalize()?;
    let world = World::start(settings.seed, &folder)?;
    let recorder = Arc::new(Recorder::create(&folder.join(HISTORY))?);
    let register = Arc::new(Register::new(Arc::clone(&recorder)));
    // Not in the folder: the path of a socket has 107 bytes at most.
    let sockets = tempfile::tempdir()?;
    let socket = sockets.path().join("register");
    register.serve(&socket)?;
    let shared = Arc::new(Shared {
        recorder: Arc::clone(&recorder),
        register: Arc::clone(&register),
        socket,
        program: program(&settings.torture)?,
        torture: settings.torture.clone(),
        folder,
        faketime: faketime()?,
        breaches: Mutex::default(),
    });
    let places = (0..CLIENT_HOSTS).map(|number| place(&world, world.client_host(number), number, &shared));
    let places: Vec<Arc<Place>> = places.collect::<Result<_>>()?;
    let judge = place(&world, world.control(), 0, &shared)?;

    let runtime = Runtime::new()?;
    let programs = Arc::new(Programs::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut watches = runtime.block_on(async { Watches::start(&places, &programs) });
    let mut clients = runtime.block_on(async { workload::start(&places, &programs, settings.seed, &stop) });
    let faults = Faults { world: &world, programs: &programs, recorder: &recorder };
    let tally = faults.make(settings, &runtime, &mut clients, &mut watches);
    stop.store(true, Ordering::Relaxed);
    let ended = match &tally {
        Ok(_) => runtime.block_on(async { timeout(ENDING, joined(&mut clients)).await }),
        Err(_) => Ok(Ok(())),
    };
    // Those of programs that were killed.
    for command in register.commands() {
        let _ = killpg(Pid::from_raw(command.cast_signed()), Signal::SIGKILL);
    }
    let concluded = match (&tally, &ended) {
        (Ok(_), Ok(Ok(()))) => runtime.block_on(conclude(&judge, &mut watches)),
        _ => Ok(()),
    };
    // Of a run that failed as well.
    recorder.finish()?;
    let tally = tally?;
    ended.map_err(|_| anyhow!("clients do not end within {ENDING:?}"))??;
    concluded?;
    let breaches = std::mem::take(&mut *lock(&shared.breaches));
    Ok(Results { tally, locks: programs.ended(), breaches, time: begin.elapsed() })
}

/// Makes the faults while the clients run.
struct Faults<'a> {
    world: &'a World,
    programs: &'a Arc<Programs>,
    recorder: &'a Arc<Recorder>,
}

impl Faults<'_> {
    /// Makes faults for as long as the settings say, or until a client ends early.
    fn make(
        &self,
        settings: &Settings,
        runtime: &Runtime,
        clients: &mut JoinSet<Result<()>>,
        watches: &mut Watches,
    ) -> Result<Tally> {
        let begin = Instant::now();
        let stop = AtomicBool::new(false);
        let record = |struck: Struck| {
            let Struck { kind: fault, servers, targets, start, end } = struck;
            let subject = Subject { client: "faults".into(), host: self.world.control().name().to_owned(), server: None };
            let times = [start, end].map(|time| self.recorder.at(time));
            self.recorder.write(&subject, times, Event::Fault { fault, servers, targets }, None);
        };
        thread::scope(|scope| {
            let schedule = Schedule::new(settings.seed);
            let faults = scope.spawn(|| self.world.run(schedule, &**self.programs, &record, &stop));
            let mut early = None;
            while begin.elapsed() < settings.length && early.is_none() && !faults.is_finished() {
                early = runtime.block_on(async {
                    sleep(LOOK).await;
                    clients.try_join_next().or_else(|| watches.running.try_join_next())
                });
            }
            stop.store(true, Ordering::SeqCst);
            let tally = faults.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match early {
                None => tally,
                Some(ended) => {
                    ended??;
                    bail!("a client ended before the run")
                }
            }
        })
    }
}

/// Waits until all tasks have ended. Returns the first error.
async fn joined(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    let mut all = Ok(());
    while let Some(ended) = tasks.join_next().await {
        all = all.and(ended.map_err(Into::into).flatten());
    }
    all
}

/// Writes down what is true at the end.
async fn conclude(judge: &Arc<Place>, watches: &mut Watches) -> Result<()> {
    let client =
        Client { name: "judge".into(), place: Arc::clone(judge), way: Way::Library, timeout: Some(30.0), omits_node: false };
    let recorder = &judge.shared.recorder;
    let start = Instant::now();
    // Nothing ends by itself any more.
    while read(&client).await?.iter().any(|session| session.ttl > 0) {
        ensure!(start.elapsed() < SETTLING, "sessions with a TTL remain");
        sleep(LOOK).await;
    }
    let mut mark = MARK.to_owned();
    loop {
        mark.push('x');
        let wish = Wish { checks: Some(Vec::new()), ..Wish::default() };
        let created = client.call(Event::Create { name: Some(mark.clone()), node: judge.node.clone(), wish }).await;
        if let Answer::Created { .. } = created {
            break;
        }
        ensure!(start.elapsed() < SETTLING, "the last session cannot be created: {created:?}");
        sleep(LOOK).await;
    }
    watches.wait_for(&mark).await?;
    let begin = recorder.now();
    let sessions = read(&client).await?;
    let registers = judge.shared.register.values();
    let mut holders = BTreeMap::new();
    for key in registers.keys() {
        let (client, key) = (client.clone(), key.clone());
        let holder = judge.runtime.spawn(async move { library::holder(&client, &key).await.map(|holder| (key, holder)) });
        if let (key, Some(holder)) = holder.await?? {
            holders.insert(key, holder);
        }
    }
    let event = Event::Final { sessions, holders, registers, watches: watches.names.clone() };
    recorder.write(&client.subject(), [begin, recorder.now()], event, None);
    watches.stop.send_replace(true);
    joined(&mut watches.running).await
}

/// Returns all sessions, by a consistent read.
async fn read(client: &Client) -> Result<Vec<Session>> {
    let start = Instant::now();
    loop {
        match client.call(Event::Read { name: None, consistent: true }).await {
            Answer::Sessions { sessions } => return Ok(sessions),
            other => ensure!(start.elapsed() < SETTLING, "the sessions cannot be read at the end: {other:?}"),
        }
        sleep(LOOK).await;
    }
}

/// The programs that watch, one on each host.
struct Watches {
    names: Vec<String>,
    running: JoinSet<Result<()>>,
    seen: Vec<watch::Receiver<BTreeSet<String>>>,
    stop: watch::Sender<bool>,
}

impl Watches {
    fn start(places: &[Arc<Place>], programs: &Arc<Programs>) -> Watches {
        let stop = watch::Sender::new(false);
        let mut watches = Watches { names: Vec::new(), running: JoinSet::new(), seen: Vec::new(), stop };
        for (number, place) in places.iter().enumerate() {
            let (name, place) = (format!("watch-{number}"), Arc::clone(place));
            let (sender, seen) = watch::channel(BTreeSet::new());
            let runtime = place.runtime.clone();
            let client = Client { name: name.clone(), place, way: Way::Program, timeout: None, omits_node: false };
            let watching = watcher::run(client, Arc::clone(programs), sender, watches.stop.subscribe());
            watches.running.spawn_on(watching, &runtime);
            watches.names.push(name);
            watches.seen.push(seen);
        }
        watches
    }

    /// Waits until each has printed the session of this name.
    async fn wait_for(&mut self, mark: &str) -> Result<()> {
        for (name, seen) in self.names.iter().zip(&mut self.seen) {
            let waiting = timeout(SETTLING, seen.wait_for(|seen| seen.contains(mark))).await;
            waiting
                .with_context(|| format!("{name} does not print the last session within {SETTLING:?}"))?
                .context("it ended")?;
        }
        Ok(())
    }
}

/// Makes the place of clients of this host, which ask this server.
fn place(world: &World, host: &crate::host::Host, server: usize, shared: &Arc<Shared>) -> Result<Arc<Place>> {
    let address = world.servers().http(server);
    let library = Host::builder()
        .allow(address.to_string().parse()?)
        .cache(root().join("target/tmp/compiled"))
        .build(test_support::plugin()?)
        .map_err(|error| anyhow!("{error:?}"))?;
    Ok(Arc::new(Place {
        host: host.name().to_owned(),
        server,
        node: world.servers().node(server),
        address,
        runtime: host.runtime().handle().clone(),
        library,
        shared: Arc::clone(shared),
    }))
}

/// Returns the program `consul-session`, which cargo builds beside that of this package.
fn program(torture: &Path) -> Result<PathBuf> {
    let program = torture.with_file_name("consul-session");
    ensure!(program.is_file(), "no program at {}: run `cargo xtask torture`, which builds it", program.display());
    Ok(program)
}

/// Returns libfaketime, as distributions install it.
fn faketime() -> Result<PathBuf> {
    let below = |folder: &Path| folder.join("faketime/libfaketime.so.1");
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(Path::new);
    // Debian has a folder for each architecture.
    let nested = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().map(|entry| entry.path());
    let found =
        folders.iter().map(|folder| below(folder)).chain(nested.map(|folder| below(&folder))).find(|path| path.is_file());
    found.context("no libfaketime: install it (Debian, as root: apt-get install faketime)")
}
