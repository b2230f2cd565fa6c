//! The callers of a name of sessions. A name ends after some calls, and the next one begins.

use crate::clients::{Client, Way, is_unknown};
use crate::history::{Answer, Event, Wish};
use crate::recorder::lock;
use crate::workload::{TTL, wish};
use anyhow::Result;
use fastrand::Rng;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The calls of a name after which it ends, and the unknown outcomes: the search for an explanation
/// takes exponential time in the calls that may have happened.
const CALLS: usize = 36;
const UNKNOWN: usize = 4;
/// How long the calls of a round are waited for. Those that take longer go on beside the next round.
const ROUND: Duration = Duration::from_secs(2);
/// The pause of a client of the program after a call, which takes the computing of a hundred calls by
/// the library.
const PROGRAM_PAUSE: Duration = Duration::from_millis(2500);
/// The ids of a name that its callers remember.
const REMEMBERED: usize = 8;
/// How often the sessions of a name that ends are made absent, until that succeeds.
const TRIES: usize = 3;

/// What the callers of a name want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All the same.
    Same,
    /// Two different sessions, and none is replaced.
    Mixed,
    /// Two different sessions, and what differs is replaced.
    Replace,
    /// A session with a TTL, which nobody renews for long.
    Ttl,
    /// A session that ends with the health of its node.
    Health,
}

/// The names of one kind, one after another.
pub struct Names {
    /// What their callers want.
    pub kind: Kind,
    /// The number among all, which makes their names unique.
    pub number: usize,
    /// The node of their sessions.
    pub node: String,
    /// The clients that make no call at present.
    pub clients: Arc<Mutex<Vec<Client>>>,
    /// The client that makes the sessions absent at the end of a name.
    pub cleaner: Client,
    /// Chooses the calls and the pauses.
    pub random: Rng,
    /// Whether to end.
    pub stop: Arc<AtomicBool>,
}

/// What is known of a name.
#[derive(Default)]
struct Known {
    ids: VecDeque<String>,
    unknown: usize,
}

impl Names {
    /// Calls until the run stops, and until all names have ended.
    pub async fn run(mut self) -> Result<()> {
        let mut ending = JoinSet::new();
        for generation in 0.. {
            if self.stopped() {
                break;
            }
            let name = format!("{:?}-{}-{generation}", self.kind, self.number).to_lowercase();
            let left = self.use_name(&name).await;
            ending.spawn(end(self.cleaner.clone(), name, self.node.clone(), left));
        }
        ending.join_all().await;
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Calls until the name ends. Returns the calls that have not ended by then.
    async fn use_name(&mut self, name: &str) -> JoinSet<()> {
        let (mut calls, mut running) = (0, JoinSet::new());
        let known = Arc::new(Mutex::new(Known::default()));
        while calls < CALLS && lock(&known).unknown < UNKNOWN && !self.stopped() {
            // Most often several at the same moment, and at first all: who creates the session?
            let is_first = calls == 0;
            let size = match self.random.u8(..3) {
                _ if is_first => usize::MAX,
                0 => 1,
                _ => self.random.usize(2..=5),
            };
            for _ in 0..size {
                let Some(client) = self.free_client() else { break };
                let event = self.event(name, &known, &client, is_first);
                let (known, free) = (Arc::clone(&known), Arc::clone(&self.clients));
                running.spawn(async move {
                    known_of(&client.call(event).await, &known);
                    // Nobody waits for that.
                    tokio::spawn(async move {
                        if client.way == Way::Program {
                            sleep(PROGRAM_PAUSE).await;
                        }
                        lock(&free).push(client);
                    });
                });
                calls += 1;
            }
            let ended = async { while running.join_next().await.is_some() {} };
            // A call that takes longer goes on.
            let _ = timeout(ROUND, ended).await;
            self.pause().await;
        }
        running
    }

    fn free_client(&mut self) -> Option<Client> {
        let mut free = lock(&self.clients);
        let count = free.len();
        (count > 0).then(|| free.swap_remove(self.random.usize(..count)))
    }

    /// Chooses the next call of a client.
    fn event(&mut self, name: &str, known: &Mutex<Known>, client: &Client, is_first: bool) -> Event {
        let (name, node) = (name.to_owned(), self.node.clone());
        let ids = lock(known).ids.clone();
        // Most often the last one, which most likely exists.
        let id = match (ids.len(), self.random.u8(..3)) {
            (0, _) => None,
            (count, 0) => Some(ids[self.random.usize(..count)].clone()),
            _ => ids.back().cloned(),
        };
        match (if is_first { 100 } else { self.random.u8(..100) }, id) {
            (0..=21, _) => Event::Read { name: Some(name), consistent: client.way == Way::Library },
            (22..=31, _) if self.kind != Kind::Ttl => Event::Absent { name: Some(name), node: Some(node), session: None },
            (32..=39, Some(id)) => Event::Absent { name: None, node: None, session: Some(id) },
            (40..=43, Some(session)) => Event::Renew { session },
            // Now and then, so that it runs out in between.
            (44..=59, Some(session)) if self.kind == Kind::Ttl => Event::Renew { session },
            _ => {
                let other = matches!(self.kind, Kind::Mixed | Kind::Replace) && self.random.bool();
                let replace = self.kind == Kind::Replace && self.random.u8(..4) > 0;
                // Whoever wants nothing in particular takes what is there.
                let wish = if self.random.u8(..12) == 0 {
                    Wish { ttl: None, ..wish(self.kind, false) }
                } else {
                    wish(self.kind, other)
                };
                Event::Present { name, node, wish, replace }
            }
        }
    }

    async fn pause(&mut self) {
        let milliseconds = match self.kind {
            // Now and then longer than twice the TTL, after which nothing is left.
            Kind::Ttl if self.random.u8(..6) == 0 => self.random.u64(TTL..TTL * 5 / 2),
            Kind::Ttl => self.random.u64(200..2000),
            _ => self.random.u64(20..700),
        };
        let end = tokio::time::Instant::now() + Duration::from_millis(milliseconds);
        while tokio::time::Instant::now() < end && !self.stopped() {
            sleep(Duration::from_millis(100).min(end - tokio::time::Instant::now())).await;
        }
    }
}

/// Ends a name: waits for its calls, and makes its sessions absent, so that the lists stay short.
async fn end(cleaner: Client, name: String, node: String, calls: JoinSet<()>) {
    calls.join_all().await;
    for _ in 0..TRIES {
        let (name, node) = (Some(name.clone()), Some(node.clone()));
        if let Answer::Outcome { .. } = cleaner.call(Event::Absent { name, node, session: None }).await {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Takes in what an answer says of a name.
fn known_of(answer: &Answer, known: &Mutex<Known>) {
    let mut known = lock(known);
    if is_unknown(answer) {
        known.unknown += 1;
    }
    let ids = match answer {
        Answer::Outcome { session, .. } | Answer::Error { session, .. } => session.iter().cloned().collect(),
        Answer::Sessions { sessions } => sessions.iter().map(|session| session.id.clone()).collect(),
        _ => Vec::new(),
    };
    for id in ids {
        if !known.ids.contains(&id) {
            known.ids.push_back(id);
        }
    }
    while known.ids.len() > REMEMBERED {
        known.ids.pop_front();
    }
}
