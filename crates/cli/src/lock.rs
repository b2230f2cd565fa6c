//! `lock`: runs a command while a session of its own holds a key, as `consul lock` does.
//!
//! Two tasks accompany the command: the renewal of the session, whose deadline counts from the
//! time at which the last successful renewal was sent, and a blocking query on the key. The first
//! to find that the lock is lost ends the command.

mod child;

use crate::convert;
use crate::retry::is_final;
use child::{Child, Event, Signals};
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session::lock::Key;
use consul_session_args::{Command, Invocation, Output, printable};
use consul_session_host::{
    self as wit, Acquisition, CallError, Connection, Consistency, Contents, CreateOptions, Holding, Host, Lock, Query,
};
use rustix::process::{Signal, getpid};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::pending;
use std::io::{self, Write};
use std::pin::pin;
use std::process::exit;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The command.
pub const COMMAND: Command = Command {
    name: "lock",
    args: &["KEY"],
    rest: Some("COMMAND [ARG]..."),
    flags: &[],
    settings: &[
        ("wait", "DURATION", "How long to wait for the lock before failing; 0 for one attempt. Default: no limit"),
        ("kill-after", "DURATION", "How long after SIGTERM a command that lost its lock is killed. Default: 5s"),
    ],
    help: "Run a command while a session of its own (`ttl`: 15s if not given) holds KEY; excludes `consul lock PREFIX` where KEY \
           is PREFIX/.lock. The command finds CONSUL_LOCK_HELD, _KEY, _SESSION, _INDEX and _FENCE, the fencing number, in its \
           environment. If the lock is lost, the command is ended. Exit status: the command's, or 128 plus the number of the \
           signal that ended it, but 1 in place of 0 if the lock was lost or KEY may stay held; 1 if there was no lock",
};

/// The options of a new session. Of the others only those of the connection are accepted.
const OPTIONS: [&str; 8] = ["name", "node", "checks", "node_checks", "service_checks", "behavior", "delay", "ttl"];

/// The flags of keys that Go's `api.Lock` holds. With them `consul lock` and this program exclude
/// each other, and neither takes a key that holds something else.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// The default TTL, in nanoseconds.
const TTL: i64 = 15 * duration::SECOND;
const KILL_AFTER: Duration = Duration::from_secs(5);
/// How long Consul may block a query, in seconds.
const BLOCK: f64 = 60.0;
/// The time before another attempt, after an error or where no blocking query tells when to retry.
const RETRY: Duration = Duration::from_secs(1);
/// The first of the pauses, each twice as long as the one before and at most [`RETRY`], between
/// attempts that find a holder which reads do not show.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long the release, and then the destruction of the session, are tried again.
const PERSISTENCE: Duration = Duration::from_secs(5);
/// How long signals do not end the clean-up. A service manager can send its signal to this program
/// and to the command at once, so that the command has ended before this program sees the signal.
const GRACE: Duration = Duration::from_secs(1);
/// The most characters to show of a value that another holder wrote.
const SHOWN: usize = 200;

/// Runs the command, and exits with its status, which an [`Output`] cannot express.
///
/// # Errors
///
/// The lock was not acquired, or the command could not be started.
pub async fn run(host: Host, invocation: &Invocation) -> Result<Output, Error> {
    let wait = duration_setting(invocation, "wait")?;
    let kill_after = duration_setting(invocation, "kill-after")?.unwrap_or(KILL_AFTER);
    let locker = Locker::new(host, invocation, wait == Some(Duration::ZERO))?;
    let mut signals =
        Signals::listen().map_err(|error| Error::new(ErrorKind::Other, format!("signals cannot be listened for: {error}")))?;
    let elapsed = async {
        match wait {
            Some(wait) if !wait.is_zero() => sleep(wait).await,
            _ => pending().await,
        }
    };
    let obtained = tokio::select! {
        biased;
        signal = signals.next() => Err(Unobtained::Signal(signal)),
        obtained = locker.obtain() => obtained.map_err(Unobtained::Error),
        () = elapsed => Err(Unobtained::Error(locker.not_obtained())),
    };
    let status = match obtained {
        Ok((session, lock)) => {
            let ran = locker.hold(&session, &lock, &invocation.rest, kill_after, &mut signals).await;
            let closed = locker.close(&mut signals).await;
            match (ran?, closed) {
                (_, Closed::Interrupted(signal)) => child::status_of(signal),
                (Ran { status, lost: false }, Closed::NotHeld) => {
                    locker.report("was lost before the command had ended");
                    status.max(1)
                }
                (Ran { status, lost }, closed) => status.max((lost || matches!(closed, Closed::MayHold)).into()),
            }
        }
        Err(unobtained) => match (unobtained, locker.close(&mut signals).await) {
            (Unobtained::Error(error), _) => return Err(error),
            (_, Closed::Interrupted(signal)) | (Unobtained::Signal(signal), _) => child::status_of(signal),
        },
    };
    exit(status.into())
}

/// Why the lock was not acquired.
enum Unobtained {
    Signal(Signal),
    Error(Error),
}

/// How the clean-up ended.
enum Closed {
    /// The session does not hold the key.
    Free,
    /// As `Free`, and it did not hold the key before either.
    NotHeld,
    /// The session may still exist and hold the key.
    MayHold,
    /// A signal ended the clean-up.
    Interrupted(Signal),
}

/// How the command ended.
struct Ran {
    status: u8,
    lost: bool,
}

/// Returns the duration of a setting.
fn duration_setting(invocation: &Invocation, name: &str) -> Result<Option<Duration>, Error> {
    let Some(text) = invocation.setting(name).next_back() else { return Ok(None) };
    let nanoseconds = duration::parse(text).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    let invalid = || {
        Error::invalid(
            name,
            format!("invalid value `{text}` for --{name}: not a duration (expected 0 or more, such as 30, 30s or 1m30s)"),
        )
    };
    nanoseconds.map(|nanoseconds| Some(Duration::from_nanos(nanoseconds))).ok_or_else(invalid)
}

/// A session of this program.
struct Session {
    id: String,
    ttl: Duration,
    /// When the last successful renewal, or the creation, was sent, as a time of [`now`].
    renewed: Cell<Duration>,
    /// Whether it may hold the key: false only if it certainly does not.
    may_hold: Cell<bool>,
}

impl Session {
    /// Returns the time from which Consul may have ended the session.
    fn deadline(&self) -> Duration {
        self.renewed.get() + self.ttl
    }

    fn may_have_ended(&self) -> bool {
        now() >= self.deadline()
    }
}

/// Why the lock is lost.
enum Lost {
    /// No renewal succeeded in time, with the last error.
    Expired(Option<Error>),
    Ended,
    Deleted,
    Freed,
    Taken(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Expired(None) => f.write_str("it was not renewed within its TTL"),
            Lost::Expired(Some(error)) => write!(f, "it could not be renewed within its TTL: {}", printable(&error.message)),
            Lost::Ended => f.write_str("Consul has ended it"),
            Lost::Deleted => f.write_str("the key was deleted"),
            Lost::Freed => f.write_str("it no longer holds the key: it has ended, or the key was released"),
            Lost::Taken(other) => write!(f, "session {} holds the key", printable(other)),
        }
    }
}

/// Why the key cannot be acquired at present.
enum Obstacle {
    Holder {
        session: String,
        value: Vec<u8>,
    },
    /// An acquisition found a holder that reads do not show.
    Unseen,
    Delay,
    Error(Error),
}

/// The lock to acquire and hold.
struct Locker {
    host: Host,
    connection: Connection,
    /// The connection with a shorter timeout, so that several renewals fit into a TTL.
    renewal: Connection,
    key: String,
    contents: Contents,
    new: CreateOptions,
    ttl: Duration,
    /// Whether to make a single attempt.
    once: bool,
    session: RefCell<Option<Rc<Session>>>,
    /// The obstacle of the last attempt.
    obstacle: RefCell<Option<Obstacle>>,
}

impl Locker {
    fn new(host: Host, invocation: &Invocation, once: bool) -> Result<Locker, Error> {
        invocation
            .only(&OPTIONS, |option| format!("option `{option}` does not apply to `lock`, which creates its own session"))?;
        let options = invocation.options.clone().resolve();
        let ttl = match options.ttl.unwrap_or(TTL) {
            0 => {
                return Err(Error::invalid(
                    "ttl",
                    "option `ttl`: `lock` needs one, since without it the lock could outlive this program",
                ));
            }
            ttl => Duration::from_nanos(ttl.unsigned_abs()),
        };
        let connection = convert::connection(&options);
        let quarter = ttl.as_secs_f64() / 4.0;
        let renewal = Connection { timeout: connection.timeout.map(|timeout| timeout.min(quarter)), ..connection.clone() };
        let key = invocation.args.first().cloned().unwrap_or_default();
        // Before the session is created.
        Key::parse(&key)?;
        let new = CreateOptions {
            name: Some(options.name.clone().unwrap_or_else(|| format!("lock {key}"))),
            ttl: Some(ttl.as_secs_f64()),
            ..convert::create_options(&options)
        };
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let holder = json!({ "host": machine, "pid": getpid().as_raw_nonzero().get() }).to_string();
        let contents = Contents { value: Some(holder.into_bytes()), flags: Some(FLAGS) };
        let (session, obstacle) = Default::default();
        Ok(Locker { host, connection, renewal, key, contents, new, ttl, once, session, obstacle })
    }

    /// Prints a message on standard error: standard output is the command's.
    fn report(&self, text: &str) {
        // A closed standard error does not end the lock.
        let _ = writeln!(io::stderr(), "lock {}: {text}", printable(&self.key));
    }

    /// Creates a session that holds the key.
    async fn obtain(&self) -> Result<(Rc<Session>, Lock), Error> {
        loop {
            let session = self.open().await?;
            tokio::select! {
                biased;
                lost = self.renew(&session) => self.report(&format!("session {}: {lost}; going on with another", session.id)),
                acquired = self.acquire(&session) => match acquired? {
                    Some(lock) if !session.may_have_ended() => return Ok((session, lock)),
                    _ => sleep(RETRY).await,
                },
            }
        }
    }

    /// Creates a session, and destroys the previous one.
    ///
    /// # Errors
    ///
    /// An error of the first session is returned. For a later session, an error that may pass is
    /// retried.
    async fn open(&self) -> Result<Rc<Session>, Error> {
        loop {
            let sent = now();
            match self.host.create(&self.new, Some(&self.connection)).await {
                Ok(id) => {
                    let (renewed, may_hold) = (sent.into(), false.into());
                    let session = Rc::new(Session { id, ttl: self.ttl, renewed, may_hold });
                    if let Some(old) = self.session.replace(Some(session.clone())) {
                        // If this fails, the session ends by itself.
                        if old.may_hold.get() {
                            let _ = self.release_once(&old).await;
                        }
                        let _ = self.destroy_once(&old).await;
                    }
                    return Ok(session);
                }
                Err(error) if self.session.borrow().is_none() || !may_pass(&error) => return Err(convert::error(error)),
                Err(error) => self.note(Obstacle::Error(convert::error(error))),
            }
            sleep(RETRY).await;
        }
    }

    /// Acquires the key as soon as possible. Returns `None` if the session has ended.
    async fn acquire(&self, session: &Session) -> Result<Option<Lock>, Error> {
        let mut index = None;
        let mut pause = Duration::ZERO;
        loop {
            let obstacle = match self.holder(index).await {
                Ok(Holding { lock: Some(found), .. }) if found.flags != FLAGS => return Err(self.in_use(&found)),
                Ok(Holding { lock: Some(Lock { session: Some(holder), value, .. }), index: at }) if holder != session.id => {
                    index = blocking(at);
                    pause = Duration::ZERO;
                    Obstacle::Holder { session: holder, value }
                }
                Ok(_) => {
                    index = None;
                    session.may_hold.set(true);
                    let answer = self.host.acquire(&self.key, &session.id, Some(&self.contents), Some(&self.connection)).await;
                    session.may_hold.set(match &answer {
                        Ok(answer) => matches!(answer, Acquisition::Acquired(_)),
                        Err(CallError::Plugin(error)) => matches!(error, wit::Error::OutcomeUnknown(_)),
                        Err(_) => true,
                    });
                    match answer {
                        Ok(Acquisition::Acquired(lock)) => return Ok(Some(lock)),
                        // Another session was faster; the next read tells which. The pauses are for
                        // an agent whose reads never do.
                        Ok(Acquisition::Held) if pause.is_zero() || pause < RETRY && !self.once => {
                            sleep(pause).await;
                            pause = (pause * 2).clamp(FIRST_PAUSE, RETRY);
                            continue;
                        }
                        Ok(Acquisition::Held) => Obstacle::Unseen,
                        Ok(Acquisition::Delayed) => Obstacle::Delay,
                        Err(CallError::Plugin(wit::Error::NotFound(_))) => return Ok(None),
                        Err(error) if !may_pass(&error) => return Err(convert::error(error)),
                        Err(error) => Obstacle::Error(convert::error(error)),
                    }
                }
                Err(error) if !may_pass(&error) => return Err(convert::error(error)),
                Err(error) => {
                    // The index may belong to a state that Consul has lost.
                    index = None;
                    Obstacle::Error(convert::error(error))
                }
            };
            self.note(obstacle);
            if self.once {
                return Err(self.not_obtained());
            }
            if index.is_none() {
                sleep(RETRY).await;
            }
        }
    }

    /// Reads the key's holder, at once or when Consul's index is above this one. Reads are
    /// consistent: after a change of leader, Consul may answer a plain read with an old state.
    async fn holder(&self, index: Option<u64>) -> Result<Holding, CallError> {
        let query = Query { consistency: Some(Consistency::Consistent), index, wait: index.map(|_| BLOCK) };
        self.host.holder(&self.key, Some(query), Some(&self.connection)).await
    }

    /// Remembers an obstacle, and reports it if the last one was of another kind.
    fn note(&self, obstacle: Obstacle) {
        let before = self.obstacle.replace(None);
        let kind = std::mem::discriminant::<Obstacle>;
        if !self.once && before.as_ref().map(kind) != Some(kind(&obstacle)) {
            self.report(&match &obstacle {
                Obstacle::Error(error) => format!("{}; trying again", printable(&error.message)),
                _ => format!("{}; waiting", described(&obstacle)),
            });
        }
        self.obstacle.replace(Some(obstacle));
    }

    /// Returns the error of a failed attempt, or of a wait that is over.
    fn not_obtained(&self) -> Error {
        match self.obstacle.take() {
            Some(Obstacle::Error(error)) => error,
            // Consul's status for a refused acquisition.
            Some(obstacle) => {
                Error::new(ErrorKind::Refused { status: 409 }, format!("no lock on `{}`: {}", self.key, described(&obstacle)))
            }
            None => Error::new(ErrorKind::Timeout, format!("no lock on `{}`: no answer in the time to wait", self.key)),
        }
    }

    /// Returns the error for a key that holds something else.
    fn in_use(&self, found: &Lock) -> Error {
        let (key, flags) = (&self.key, found.flags);
        let message = format!(
            "`key`: `{key}` holds something other than a lock (its flags are {flags}), which a lock would overwrite: name a \
             key that does not exist yet"
        );
        Error::invalid("key", message)
    }

    /// Renews the session until it is too late, or the session has ended.
    async fn renew(&self, session: &Session) -> Lost {
        let mut failed = None;
        let mut due = session.renewed.get() + session.ttl / 2;
        loop {
            until(due.min(session.deadline())).await;
            let sent = now();
            if sent >= session.deadline() {
                return Lost::Expired(failed);
            }
            let renewed = tokio::select! {
                renewed = self.host.renew(&session.id, Some(&self.renewal)) => renewed,
                () = until(session.deadline()) => continue,
            };
            due = match renewed {
                Ok(_) => {
                    session.renewed.set(sent);
                    failed = None;
                    sent + session.ttl / 2
                }
                Err(CallError::Plugin(wit::Error::NotFound(_))) => return Lost::Ended,
                Err(error) => {
                    failed = Some(convert::error(error));
                    now() + RETRY
                }
            };
        }
    }

    /// Watches the key until the session no longer holds it.
    async fn watch(&self, session: &Session) -> Lost {
        let mut index = None;
        loop {
            let sent = Instant::now();
            index = match self.holder(index).await {
                Ok(Holding { lock: None, .. }) => return Lost::Deleted,
                Ok(Holding { lock: Some(Lock { session: Some(holder), .. }), index }) if holder == session.id => {
                    blocking(index)
                }
                Ok(Holding { lock: Some(Lock { session: Some(other), .. }), .. }) => return Lost::Taken(other),
                Ok(Holding { lock: Some(_), .. }) => return Lost::Freed,
                // The renewal decides when errors last too long.
                Err(_) => None,
            };
            sleep(RETRY.saturating_sub(sent.elapsed())).await;
        }
    }

    /// Runs the command while the session holds the key.
    async fn hold(
        &self,
        session: &Session,
        lock: &Lock,
        command: &[String],
        kill_after: Duration,
        signals: &mut Signals,
    ) -> Result<Ran, Error> {
        let environment = [
            ("CONSUL_LOCK_HELD", "true".to_owned()),
            ("CONSUL_LOCK_KEY", self.key.clone()),
            ("CONSUL_LOCK_SESSION", session.id.clone()),
            ("CONSUL_LOCK_INDEX", lock.lock_index.to_string()),
            ("CONSUL_LOCK_FENCE", lock.modify_index.to_string()),
        ];
        let mut child = Child::start(command, environment)
            .map_err(|error| Error::new(ErrorKind::Other, format!("the command cannot be started: {error}")))?;
        let (mut renewal, mut watch) = (pin!(self.renew(session)), pin!(self.watch(session)));
        let mut interrupted = false;
        let lost = loop {
            tokio::select! {
                biased;
                lost = &mut renewal => break lost,
                event = child.event() => match event {
                    Event::Ended(status) => return Ok(Ran { status, lost: false }),
                    Event::Stopped => {
                        child.suspend();
                        if session.may_have_ended() {
                            break Lost::Expired(None);
                        }
                        child.resume();
                    }
                },
                lost = &mut watch => break lost,
                signal = signals.next() => {
                    if let Err(error) = child.signal(if interrupted { Signal::KILL } else { signal }) {
                        self.report(&format!("the command cannot be sent the signal: {error}"));
                    }
                    interrupted = true;
                }
            }
        };
        self.report(&format!("lost: session {}: {lost}; ending the command", session.id));
        let hurry = async {
            signals.next().await;
        };
        let status = child.end(kill_after, hurry).await.unwrap_or_else(|error| {
            self.report(&format!("the command cannot be killed: {error}; it runs on without the lock"));
            1
        });
        Ok(Ran { status, lost: true })
    }

    /// Cleans up, until a signal ends that.
    async fn close(&self, signals: &mut Signals) -> Closed {
        let Some(session) = self.session.take() else { return Closed::Free };
        let interrupted = async {
            sleep(GRACE).await;
            signals.next().await
        };
        tokio::select! {
            biased;
            closed = self.clean_up(&session) => closed,
            signal = interrupted => {
                self.report(&format!("the clean-up was interrupted; {}", self.remains(&session)));
                Closed::Interrupted(signal)
            }
        }
    }

    /// Releases the key, so that the next holder does not wait for the lock delay, and destroys
    /// the session whether or not the release succeeded. Reports what failed.
    async fn clean_up(&self, session: &Session) -> Closed {
        let id = &session.id;
        let released = self.release(session).await;
        let destroyed = persist(async || self.destroy_once(session).await).await;
        let failed = |what: &str, error: &CallError| format!("{what} failed: {}", printable(&error.to_string()));
        match (&released, &destroyed) {
            (Ok(_), Ok(())) => {}
            (Err(error), Ok(())) => {
                session.may_hold.set(false);
                let free = match self.lock_delay() {
                    None => String::new(),
                    Some(delay) => format!(" after its lock delay of {delay}"),
                };
                let released = failed("the release of the key", error);
                self.report(&format!("{released}; session {id} was destroyed instead, which frees the key{free}"));
            }
            (_, Err(error)) => {
                let released = released.as_ref().err().map(|error| failed("the release of the key", error) + "; ");
                let destroyed = failed(&format!("the destruction of session {id}"), error);
                self.report(&format!("{}{destroyed}; {}", released.unwrap_or_default(), self.remains(session)));
            }
        }
        match released {
            Ok(Some(false)) => Closed::NotHeld,
            _ if session.may_hold.get() => Closed::MayHold,
            _ => Closed::Free,
        }
    }

    /// Releases the key. Returns whether the session held it until then, if that is known.
    async fn release(&self, session: &Session) -> Result<Option<bool>, CallError> {
        if !session.may_hold.get() {
            return Ok(Some(false));
        }
        let in_doubt = Cell::new(false);
        let released = persist(async || {
            let released = self.release_once(session).await;
            if let Err(CallError::Plugin(wit::Error::OutcomeUnknown(_))) = &released {
                in_doubt.set(true);
            }
            released
        });
        let held = released.await?;
        session.may_hold.set(false);
        // A release whose answer was lost may be the one that freed the key.
        Ok((held || !in_doubt.get()).then_some(held))
    }

    async fn release_once(&self, session: &Session) -> Result<bool, CallError> {
        self.host.release(&self.key, &session.id, Some(&self.contents), Some(&self.connection)).await
    }

    async fn destroy_once(&self, session: &Session) -> Result<(), CallError> {
        self.host.destroy(&session.id, Some(&self.connection)).await
    }

    /// Returns until when a session that may not have been destroyed stays, and what it holds.
    fn remains(&self, session: &Session) -> String {
        let until =
            format!("if it still exists, Consul ends it by itself within {}, twice its ttl", for_people(session.ttl * 2));
        let id = &session.id;
        match self.lock_delay() {
            _ if !session.may_hold.get() => format!("session {id} does not hold the key; {until}"),
            None => format!("session {id} may hold the key; {until}"),
            Some(delay) => {
                format!("session {id} may hold the key; {until}, and the key is free after its lock delay of {delay}")
            }
        }
    }

    /// Returns the lock delay of the session, if it has one.
    fn lock_delay(&self) -> Option<String> {
        let delay = Duration::from_secs_f64(self.new.lock_delay.unwrap_or_default());
        (!delay.is_zero()).then(|| for_people(delay))
    }
}

/// Calls until that succeeds, or fails in a way that another call cannot mend, or has failed for
/// [`PERSISTENCE`].
async fn persist<T>(call: impl AsyncFn() -> Result<T, CallError>) -> Result<T, CallError> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(error) if may_pass(&error) && start.elapsed() < PERSISTENCE => sleep(RETRY).await,
            result => return result,
        }
    }
}

/// Returns the index for a blocking query. 0 means that the answer had none, as behind a proxy
/// that removes the header: then there is no blocking query.
fn blocking(index: u64) -> Option<u64> {
    (index > 0).then_some(index)
}

fn for_people(duration: Duration) -> String {
    duration::for_people(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// Returns an obstacle as text.
fn described(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Holder { session, value } => {
            let value: String = String::from_utf8_lossy(value).chars().take(SHOWN).collect();
            let value = if value.is_empty() { "empty".into() } else { printable(&value) };
            format!("session {} holds it, value: {value}", printable(session))
        }
        Obstacle::Unseen => "another session holds it, or did a moment ago".into(),
        Obstacle::Delay => "the session that held it has ended, and its lock delay runs, for 60 seconds at most".into(),
        Obstacle::Error(error) => printable(&error.message),
    }
}

/// Returns whether another attempt may succeed.
fn may_pass(error: &CallError) -> bool {
    matches!(error, CallError::Plugin(wit::Error::OutcomeUnknown(_))) || !is_final(error, false)
}

/// Returns the time of a clock that runs while this program is stopped and while the machine
/// sleeps, as the clock of a remote Consul does.
fn now() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere the monotonic clock is the closest.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Waits until a time of [`now`], in steps: the runtime's timers stop while the machine sleeps.
async fn until(time: Duration) {
    loop {
        match time.saturating_sub(now()) {
            Duration::ZERO => return,
            left => sleep(left.min(RETRY)).await,
        }
    }
}
