//! The world of a run: real servers, and faults that strike them and are undone. These tests need
//! root, or `unshare --user --map-root-user`.

use anyhow::{Context, Result, ensure};
use consul_session_torture::faults::{ClientFaults, Struck};
use consul_session_torture::history::FaultKind;
use consul_session_torture::net::Effect;
use consul_session_torture::schedule::{ClientFault, ClientFaultKind, Fault, Links, Partition, Planned, Step, Target};
use consul_session_torture::world::World;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::api::{Answer, Api};
use test_support::cluster::SERVERS;
use test_support::consul::Kind;

/// The longest that the servers may need for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes by this server from the first client host. A slow machine may take a while to do it.
fn write(world: &World, server: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        match send(world, server, "PUT", "/v1/kv/written") {
            Ok(answer) if answer.status == 200 => return Ok(()),
            answer => ensure!(begin.elapsed() < LIMIT, "{answer:?}"),
        }
    }
}

/// Sends a request from the first client host.
fn send(world: &World, server: usize, method: &str, path: &str) -> Result<Answer> {
    let api = Api::new(world.servers().http(server), Kind::Plain).with_timeout(Duration::from_secs(2));
    world.client_host(0).run(|| api.send(method, path, None))
}

#[test]
fn leader_that_is_cut_off_loses_the_lead_to_another_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::start(1, folder.path())?;
    let servers = world.servers();
    let old = servers.leader().context("no leader")?;
    let others = (0..SERVERS).filter(|server| *server != old).map(|server| servers.number(server));
    let (others, own): (Vec<u8>, _) = (others.collect(), [servers.number(old)]);
    let rules =
        [world.network().rule(own, others.clone(), Effect::Block), world.network().rule(others.clone(), own, Effect::Block)];
    let new = servers.wait_for_another_leader(old, LIMIT).context("no other leader")?;
    let begin = Instant::now();
    while servers.leads(old) != Some(false) {
        ensure!(begin.elapsed() < LIMIT, "the old leader still says that it leads");
        thread::sleep(Duration::from_millis(20));
    }
    write(&world, new)?;
    // Without a quorum, it answers with an error after a while, or the client gives up first.
    ensure!(send(&world, old, "PUT", "/v1/kv/written").map_or(true, |answer| answer.status == 500));
    drop(rules);
    servers.recover(LIMIT)?;
    write(&world, old)?;
    ensure!(servers.elections().changes >= 1);
    Ok(())
}

#[test]
fn disk_that_is_full_is_an_error_of_its_server_which_recovers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::start(1, folder.path())?;
    let servers = world.servers();
    let full = servers.leader().context("no leader")?;
    servers.fill(full)?;
    let log = folder.path().join(format!("{}.log", servers.node(full)));
    ensure!(std::fs::read_to_string(&log)?.contains("no space left on device"), "{}", log.display());
    let new = servers.wait_for_another_leader(full, LIMIT).context("it still leads")?;
    write(&world, new)?;
    let read = || send(&world, full, "GET", "/v1/kv/written?stale");
    ensure!(read()?.status == 404, "it has no space for what the others have");
    servers.free(full)?;
    servers.recover(LIMIT)?;
    let begin = Instant::now();
    while read()?.status != 200 {
        ensure!(begin.elapsed() < LIMIT, "it has not caught up");
        thread::sleep(Duration::from_millis(20));
    }
    // All of that is in a mount that nobody else sees.
    ensure!(std::fs::read_dir(folder.path().join(servers.node(full)))?.next().is_none());
    Ok(())
}

/// Clients that are told of faults.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl ClientFaults for Told {
    fn begin(&self, fault: ClientFault) -> Result<Option<String>> {
        // Of the first two only: the third one is not there.
        let client = format!("client-{}", fault.client % 3);
        self.0.lock().expect("a lock").push(format!("begin {client}"));
        Ok(Some(client).filter(|client| client != "client-2"))
    }

    fn end(&self, _: ClientFault, client: &str) -> Result<()> {
        self.0.lock().expect("a lock").push(format!("end {client}"));
        Ok(())
    }
}

#[test]
fn run_makes_every_fault_of_its_steps_and_undoes_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::start(1, folder.path())?;
    let second = Duration::from_secs(1);
    let step = |faults: Vec<Fault>| {
        let planned = |fault| Planned { start: Duration::ZERO, length: second, fault };
        Step { rest: Duration::ZERO, faults: faults.into_iter().map(planned).collect() }
    };
    let client = |client| Fault::Client(ClientFault { client, kind: ClientFaultKind::Kill });
    let steps = [
        step(vec![Fault::Kill(Target::Leader), client(0), client(2)]),
        step(vec![Fault::Halt(Target::Follower(0)), Fault::Latency(Links::Clients, second / 10)]),
        step(vec![Fault::Partition(Target::Leader, Partition::Mute), Fault::Restart(Target::Follower(1))]),
        step(vec![Fault::Cut { server: 0, after: 100, connections: 2 }, Fault::Loss(Links::Servers, 0.01)]),
        // The second one finds the server taken.
        step(vec![Fault::Kill(Target::Follower(0)), Fault::Kill(Target::Follower(0))]),
    ];
    let (told, struck, stop) = (Told::default(), Mutex::new(Vec::new()), AtomicBool::new(false));
    let record = |fault: Struck| struck.lock().expect("a lock").push(fault);
    // What the cuts strike.
    let (tally, resets) = thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let mut resets = 0;
            while !stop.load(Ordering::SeqCst) {
                let answer = send(&world, 0, "GET", "/v1/agent/self");
                resets += usize::from(answer.is_err_and(|error| format!("{error:#}").contains("reset")));
            }
            resets
        });
        let tally = world.run(steps.into_iter(), &told, &record, &AtomicBool::new(false));
        stop.store(true, Ordering::SeqCst);
        (tally, calls.join().expect("no panic"))
    });
    let (tally, struck) = (tally?, struck.into_inner().expect("a lock"));
    let kinds: BTreeSet<FaultKind> = struck.iter().map(|fault| fault.kind).collect();
    use FaultKind::{ClientKill, Cut, Halt, Kill, Latency, Loss, Restart};
    assert_eq!(kinds, [Kill, Halt, Restart, FaultKind::Partition, Latency, Loss, Cut, ClientKill].into());
    assert_eq!((struck.len(), tally.faults.values().sum::<u64>(), tally.skipped), (9, 9, 2));
    ensure!(struck.iter().all(|fault| fault.end - fault.start >= second), "{struck:?}");
    // The faults of a step begin in any order.
    let mut told = told.0.into_inner().expect("a lock");
    told.sort();
    assert_eq!(told, ["begin client-0", "begin client-2", "end client-0"]);
    ensure!(tally.leader_changes >= 1 && tally.exits == 0, "{tally:?}");
    // A server that was killed resets its connections, too.
    ensure!(tally.cuts == 2 && resets >= 2, "{tally:?}, {resets} resets");
    (0..SERVERS).try_for_each(|server| write(&world, server))
}
