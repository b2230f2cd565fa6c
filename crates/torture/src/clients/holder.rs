//! Holders of keys and slots by the library.

use super::{Client, is_unknown};
use crate::history::{Answer, Event, Wish};
use fastrand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The time between two renewals: several fit into a TTL.
const RENEWAL: Duration = Duration::from_secs(3);
/// How often a release and a destruction are tried.
const TRIES: usize = 3;
/// The chance that a holder sleeps for longer than its TTL, and then goes on as if it had not.
const SLEEPS: f64 = 0.05;

/// What a holder holds.
#[derive(Clone, Debug)]
pub enum Held {
    /// A key, which protects the counter of its name.
    Key(String),
    /// One of so many slots.
    Slot(String, u32),
}

/// A client that acquires, works and releases, with sessions of its own.
pub struct Holder {
    /// The client.
    pub client: Client,
    /// What it holds.
    pub held: Held,
    /// The properties of its sessions.
    pub wish: Wish,
    /// The node of its sessions.
    pub node: String,
    /// Chooses its pauses.
    pub random: Rng,
    /// Whether to end.
    pub stop: Arc<AtomicBool>,
}

impl Holder {
    /// Holds until the run stops.
    pub async fn run(mut self) {
        while !self.stopped() {
            let (name, node, wish) = (None, self.node.clone(), self.wish.clone());
            let begin = Instant::now();
            match self.client.call(Event::Create { name, node, wish }).await {
                Answer::Created { session } => {
                    self.use_session(&session, begin).await;
                    self.persist(Event::Destroy { session }).await;
                }
                _ => self.pause(100..500).await,
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.random.u64(milliseconds))).await;
    }

    /// Acquires and releases with this session until it has ended, or there was enough of it.
    async fn use_session(&mut self, session: &str, mut renewed: Instant) {
        while !self.stopped() && self.random.u8(..8) > 0 && self.renew(session, &mut renewed).await {
            let id = session.to_owned();
            let acquire = match self.held.clone() {
                Held::Key(key) => Event::Acquire { key, session: id },
                Held::Slot(prefix, limit) => Event::AcquireSlot { prefix, session: id, limit },
            };
            match self.client.call(acquire).await {
                Answer::Acquired { fence, .. } => self.work(session, Some(fence), &mut renewed).await,
                Answer::Slot => self.work(session, None, &mut renewed).await,
                Answer::Error { case, .. } if case == "not-found" => return,
                // It may hold it now, or later. The next attempt tells.
                _ => {}
            }
            self.pause(50..400).await;
        }
        self.release(session).await;
    }

    /// Works, and releases what it holds.
    async fn work(&mut self, session: &str, fence: Option<u64>, renewed: &mut Instant) {
        for _ in 0..self.random.usize(1..8) {
            if let (Held::Key(key), Some(fence)) = (self.held.clone(), fence) {
                let (subject, register) = (self.client.subject(), Arc::clone(&self.client.place.shared.register));
                let Answer::Value { value } = register.read(&subject, &key, fence) else { break };
                if self.random.f64() < SLEEPS {
                    self.oversleep().await;
                } else {
                    self.pause(5..60).await;
                }
                register.write(&subject, &key, fence, value);
            }
            self.pause(20..200).await;
            if self.stopped() || !self.renew(session, renewed).await {
                break;
            }
        }
        self.release(session).await;
    }

    /// Sleeps without a renewal for about as long as Consul may take to end the session: twice the TTL.
    async fn oversleep(&mut self) {
        let end = Instant::now() + Duration::from_millis(self.random.u64(18_000..30_000));
        while Instant::now() < end && !self.stopped() {
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Renews the session if that is due. Returns whether it exists, as far as is known.
    async fn renew(&self, session: &str, renewed: &mut Instant) -> bool {
        if renewed.elapsed() < RENEWAL {
            return true;
        }
        let begin = Instant::now();
        match self.client.call(Event::Renew { session: session.to_owned() }).await {
            Answer::Renewed { .. } => *renewed = begin,
            Answer::Error { case, .. } if case == "not-found" => return false,
            _ => {}
        }
        true
    }

    async fn release(&self, session: &str) {
        let session = session.to_owned();
        self.persist(match self.held.clone() {
            Held::Key(key) => Event::Release { key, session },
            Held::Slot(prefix, _) => Event::ReleaseSlot { prefix, session },
        })
        .await;
    }

    /// Calls until there is an answer.
    async fn persist(&self, event: Event) {
        for _ in 0..TRIES {
            match self.client.call(event.clone()).await {
                answer @ Answer::Error { .. } if is_unknown(&answer) => {}
                Answer::Error { .. } => sleep(Duration::from_millis(300)).await,
                _ => return,
            }
        }
    }
}
