//! What the clients do: how many there are of each kind, and what each does next.

use crate::clients::holder::{Held, Holder};
use crate::clients::locker::{Locker, Programs};
use crate::clients::{Client, Place, Way};
use crate::history::{Event, Wish};
use crate::names::{Kind, Names};
use anyhow::Result;
use fastrand::Rng;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// The timeout that the documents advise, beside the default.
const LONG: f64 = 30.0;
/// The kinds of names, each with callers of its own.
const NAMES: [Kind; 9] =
    [Kind::Same, Kind::Mixed, Kind::Replace, Kind::Ttl, Kind::Same, Kind::Mixed, Kind::Replace, Kind::Health, Kind::Ttl];
/// The keys that clients of the library hold, with one client on each host, and so those of the
/// program.
const KEYS: usize = 2;
/// The slots of a semaphore.
const SLOTS: u32 = 2;
/// The TTL of the sessions of holders, in milliseconds: Consul's shortest.
pub const TTL: u64 = 10_000;

/// Starts all clients, which end when `stop` is true.
pub fn start(places: &[Arc<Place>], programs: &Arc<Programs>, seed: u64, stop: &Arc<AtomicBool>) -> JoinSet<Result<()>> {
    let mut random = Rng::with_seed(seed);
    let mut running = JoinSet::new();
    // Half of the clients of each host have each timeout.
    let client = |name: String, number: usize, way: Way| Client {
        name,
        place: Arc::clone(&places[number % places.len()]),
        way,
        timeout: (number / places.len() % 2 == 1).then_some(LONG),
        omits_node: number.is_multiple_of(4),
    };
    for (number, kind) in NAMES.into_iter().enumerate() {
        let library = (0..2 * places.len()).map(|caller| client(format!("library-{number}-{caller}"), caller, Way::Library));
        let program = client(format!("program-{number}"), number, Way::Program);
        let names = Names {
            kind,
            number,
            node: places[number % places.len()].node.clone(),
            clients: Arc::new(Mutex::new(library.chain([program]).collect())),
            cleaner: client(format!("cleaner-{number}"), number + places.len(), Way::Library),
            random: random.fork(),
            stop: Arc::clone(stop),
        };
        running.spawn(names.run());
    }
    let shared = |held: Held, health: bool, delay: u64| {
        // With the health of the node as without it, with a lock delay as without one.
        let behavior = matches!(held, Held::Slot(..)).then(|| "delete".to_owned());
        let wish = Wish { behavior, delay: Some(delay), ttl: None, checks: (!health).then(Vec::new) };
        (held, wish)
    };
    let mut library: Vec<(Held, Wish)> =
        (0..KEYS).map(|key| shared(Held::Key(format!("library/{key}")), key == 1, key as u64 * 1000)).collect();
    library.push(shared(Held::Slot("library/slots".into(), SLOTS), false, 0));
    for (number, (held, wish)) in library.into_iter().enumerate() {
        let wish = Wish { ttl: Some(TTL), ..wish };
        for caller in 0..=places.len() {
            let client = client(format!("holder-{number}-{caller}"), caller, Way::Library);
            let node = client.place.node.clone();
            let (held, wish, random, stop) = (held.clone(), wish.clone(), random.fork(), Arc::clone(stop));
            let holder = Holder { client, held, wish, node, random, stop };
            running.spawn(async move {
                holder.run().await;
                Ok(())
            });
        }
    }
    let mut program: Vec<(Held, Wish)> =
        (0..KEYS).map(|key| shared(Held::Key(format!("program/{key}")), key == 0, key as u64 * 1000)).collect();
    program.push(shared(Held::Slot("program/slots".into(), SLOTS), false, 0));
    for (number, (held, wish)) in program.into_iter().enumerate() {
        for caller in 0..places.len() {
            let client = client(format!("locker-{number}-{caller}"), number + caller * 4, Way::Program);
            let runtime = client.place.runtime.clone();
            let (held, wish, random, stop) = (held.clone(), wish.clone(), random.fork(), Arc::clone(stop));
            let has_clock = caller == 0;
            let locker = Locker { client, held, wish, has_clock, random, stop, programs: Arc::clone(programs) };
            running.spawn_on(locker.run(), &runtime);
        }
    }
    running
}

/// Returns the properties of the session that callers of a name want, where they want different ones.
pub fn wish(kind: Kind, other: bool) -> Wish {
    Wish {
        delay: Some(if other { 20_000 } else { 15_000 }),
        ttl: (kind == Kind::Ttl).then_some(TTL),
        // Else it ends when its node is down.
        checks: (kind != Kind::Health).then(Vec::new),
        behavior: None,
    }
}

/// Returns whether a client of the program can make this call.
pub fn is_for_programs(event: &Event) -> bool {
    matches!(event, Event::Present { .. } | Event::Absent { .. } | Event::Renew { .. } | Event::Read { .. })
}
