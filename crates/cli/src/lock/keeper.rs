//! Keeps a session of this program, and what it holds, for as long as a command runs.
//!
//! Two tasks accompany the command: the renewal of the session, whose deadline counts from the
//! time at which the last successful renewal was sent, and blocking queries on what it holds. The
//! first to find that it is lost ends the command.

use super::child::{self, Child, Event, Signals};
use super::claim::{Agent, Attempt, Check, Claim, Environment, Obstacle, Session};
use super::clock::{now, until};
use super::for_people;
use crate::retry::is_final;
use crate::{convert, terminal};
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session_args::{self as cli, Format, Invocation, Output, printable};
use consul_session_host::{self as wit, CallError, Connection, CreateOptions, Host};
use rustix::process::Signal;
use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The default TTL, in nanoseconds.
const TTL: i64 = 15 * duration::SECOND;
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

/// The exit status where the time to wait for the lock is over, as of `timeout`.
const NOT_IN_TIME: u8 = 124;
/// The exit status where the lock or the session was lost, or may stay.
const LOST: u8 = 125;
/// The exit status of a command that cannot be run, as of a shell.
const NOT_RUN: u8 = 126;
/// The exit status of a command that does not exist, as of a shell.
const NOT_FOUND: u8 = 127;

/// What to do while the session is kept.
pub enum Task<'a> {
    /// To run this command. Without the session it gets SIGTERM, and SIGKILL after this time.
    Command { line: &'a [String], kill_after: Duration },
    /// To print this about the session's id, and to wait for a signal.
    Wait(&'a dyn Fn(&str) -> String),
}

/// How the task ended.
enum Ended {
    /// By itself, with this exit status.
    Done(u8),
    /// What the session held was lost.
    Lost,
    /// A signal ended the wait for the lock.
    Signal(Signal),
    /// It did not begin.
    Failed(Failure),
}

/// An error with its exit status.
struct Failure {
    error: Error,
    status: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, status: Output::FAILED }
    }
}

/// How the clean-up ended.
enum Closed {
    /// Nothing remains.
    Free,
    /// As `Free`, and the session held nothing before either.
    NotHeld,
    /// The session may still exist and hold something.
    MayHold,
    /// A signal ended the clean-up.
    Interrupted(Signal),
}

/// A session to keep, and what it is for.
pub struct Keeper<C> {
    agent: Agent,
    /// The connection with a shorter timeout, so that several renewals fit into a TTL.
    renewal: Connection,
    claim: C,
    new: CreateOptions,
    ttl: Duration,
    /// Whether to make a single attempt.
    once: bool,
    session: RefCell<Option<Rc<Session>>>,
    /// The obstacle of the last attempt.
    obstacle: RefCell<Option<Obstacle>>,
}

impl<C: Claim> Keeper<C> {
    /// Returns the keeper of a session that is to be created with these options.
    ///
    /// # Errors
    ///
    /// An option does not suit.
    pub fn new(host: Host, invocation: &Invocation, claim: C, once: bool) -> Result<Keeper<C>, Error> {
        let options = invocation.options.clone().resolve();
        let ttl = match options.ttl.unwrap_or(TTL) {
            0 => {
                let command = C::COMMAND;
                return Err(Error::invalid(
                    "ttl",
                    format!("option `ttl`: `{command}` needs one, since without it the session could outlive this program"),
                ));
            }
            ttl => Duration::from_nanos(ttl.unsigned_abs()),
        };
        let connection = convert::connection(&options);
        let quarter = ttl.as_secs_f64() / 4.0;
        let renewal = Connection { timeout: connection.timeout.map(|timeout| timeout.min(quarter)), ..connection.clone() };
        let mut new = CreateOptions { ttl: Some(ttl.as_secs_f64()), ..convert::create_options(&options) };
        claim.defaults(&mut new, &|option| invocation.is_given(option));
        let (session, obstacle) = Default::default();
        Ok(Keeper { agent: Agent { host, connection }, renewal, claim, new, ttl, once, session, obstacle })
    }

    /// Creates the session, does the task while the session holds what it is for, and destroys it.
    ///
    /// # Errors
    ///
    /// Signals cannot be listened for. Other failures are the output.
    pub async fn run(&self, wait: Option<Duration>, task: Task<'_>, format: Format) -> Result<Output, Error> {
        let mut signals = Signals::listen()
            .map_err(|error| Error::new(ErrorKind::Other, format!("signals cannot be listened for: {error}")))?;
        let ended = self.work(wait, task, &mut signals).await.unwrap_or_else(Ended::Failed);
        let closed = self.close(&mut signals).await;
        let mut output = match &ended {
            Ended::Failed(failure) => cli::failure(&failure.error, format, &terminal::style()),
            _ => Output::text(String::new()),
        };
        output.status = match (ended, closed) {
            (_, Closed::Interrupted(signal)) => child::status_of(signal),
            (Ended::Lost, _) | (_, Closed::MayHold) => LOST,
            (Ended::Done(_), Closed::NotHeld) => {
                self.report("was lost before the end");
                LOST
            }
            (Ended::Done(status), Closed::Free) => status,
            (Ended::Signal(signal), _) => child::status_of(signal),
            (Ended::Failed(failure), _) => failure.status,
        };
        Ok(output)
    }

    async fn work(&self, wait: Option<Duration>, task: Task<'_>, signals: &mut Signals) -> Result<Ended, Failure> {
        let elapsed = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => pending().await,
            }
        };
        let (session, environment) = tokio::select! {
            biased;
            signal = signals.next() => return Ok(Ended::Signal(signal)),
            obtained = self.obtain() => obtained?,
            () = elapsed => return Err(self.not_obtained()),
        };
        match task {
            Task::Command { line, kill_after } => self.run_command(&session, environment, line, kill_after, signals).await,
            Task::Wait(announce) => self.wait(&session, &announce(&session.id), signals).await,
        }
    }

    /// Prints a message on standard error: standard output is the command's.
    fn report(&self, text: &str) {
        // A closed standard error does not end the lock.
        let _ = writeln!(io::stderr(), "{} {}: {text}", C::COMMAND, printable(self.claim.name()));
    }

    /// Creates a session that holds what it is for.
    async fn obtain(&self) -> Result<(Rc<Session>, Environment), Failure> {
        loop {
            let session = self.open().await?;
            tokio::select! {
                biased;
                lost = self.renew(&session) => self.report(&format!("session {}: {lost}; going on with another", session.id)),
                acquired = self.acquire(&session) => match acquired? {
                    Some(environment) if !session.may_have_ended() => return Ok((session, environment)),
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
            match self.agent.host.create(&self.new, Some(&self.agent.connection)).await {
                Ok(id) => {
                    let (renewed, may_hold) = (sent.into(), false.into());
                    let session = Rc::new(Session { id, ttl: self.ttl, renewed, may_hold });
                    if let Some(old) = self.session.replace(Some(session.clone())) {
                        // If this fails, the session ends by itself.
                        if old.may_hold.get() {
                            let _ = self.claim.release(&self.agent, &old.id).await;
                        }
                        let _ = self.destroy(&old).await;
                    }
                    return Ok(session);
                }
                Err(error) if self.session.borrow().is_none() || !may_pass(&error) => return Err(convert::error(error)),
                Err(error) => self.note(Obstacle::Error(convert::error(error))),
            }
            sleep(RETRY).await;
        }
    }

    /// Acquires what the session is for as soon as possible. Returns `None` if the session has
    /// ended.
    async fn acquire(&self, session: &Session) -> Result<Option<Environment>, Failure> {
        let mut index = None;
        let mut pause = Duration::ZERO;
        loop {
            let obstacle = match self.claim.attempt(&self.agent, session, index).await {
                Ok(Attempt::Acquired(environment)) => return Ok(Some(environment)),
                Ok(Attempt::Ended) => return Ok(None),
                Ok(Attempt::Unusable(error)) => return Err(error.into()),
                Ok(Attempt::Blocked(obstacle, at)) => {
                    index = blocking(at);
                    pause = Duration::ZERO;
                    obstacle
                }
                // The pauses are for an agent whose reads never tell who was faster.
                Ok(Attempt::Outrun) if pause.is_zero() || pause < RETRY && !self.once => {
                    index = None;
                    sleep(pause).await;
                    pause = (pause * 2).clamp(FIRST_PAUSE, RETRY);
                    continue;
                }
                Ok(Attempt::Outrun) => {
                    index = None;
                    Obstacle::Unseen
                }
                Err(error) if !may_pass(&error) => return Err(convert::error(error).into()),
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

    /// Remembers an obstacle, and reports it if the last one was of another kind.
    fn note(&self, obstacle: Obstacle) {
        let before = self.obstacle.replace(None);
        let kind = std::mem::discriminant::<Obstacle>;
        if !self.once && before.as_ref().map(kind) != Some(kind(&obstacle)) {
            let goes_on = if let Obstacle::Error(_) = obstacle { "trying again" } else { "waiting" };
            self.report(&format!("{}; {goes_on}", obstacle.described()));
        }
        self.obstacle.replace(Some(obstacle));
    }

    /// Returns the error of a failed attempt, or of a wait that is over.
    fn not_obtained(&self) -> Failure {
        match self.obstacle.take() {
            Some(Obstacle::Error(error)) => error.into(),
            Some(obstacle) => Failure { error: self.claim.refusal(&obstacle.described()), status: NOT_IN_TIME },
            None => {
                let refusal = self.claim.refusal("no answer in the time to wait");
                Error::new(ErrorKind::Timeout, refusal.message.clone()).into()
            }
        }
    }

    /// Renews the session until it is too late, or the session has ended. Returns the reason.
    async fn renew(&self, session: &Session) -> String {
        let mut failed = None;
        let mut due = session.renewed.get() + session.ttl / 2;
        loop {
            until(due.min(session.deadline())).await;
            let sent = now();
            if sent >= session.deadline() {
                return expired(failed.as_ref());
            }
            let renewed = tokio::select! {
                renewed = self.agent.host.renew(&session.id, Some(&self.renewal)) => renewed,
                () = until(session.deadline()) => continue,
            };
            due = match renewed {
                Ok(_) => {
                    session.renewed.set(sent);
                    failed = None;
                    sent + session.ttl / 2
                }
                Err(CallError::Plugin(wit::Error::NotFound(_))) => return "Consul has ended it".into(),
                Err(error) => {
                    failed = Some(convert::error(error));
                    now() + RETRY
                }
            };
        }
    }

    /// Watches what the session holds until that is lost. Returns the reason.
    async fn watch(&self, session: &Session) -> String {
        let mut index = None;
        loop {
            let sent = Instant::now();
            index = match self.claim.check(&self.agent, &session.id, index).await {
                Ok(Check::Held(at)) => blocking(at),
                Ok(Check::Lost(why)) => return why,
                // The renewal decides when errors last too long.
                Err(_) => None,
            };
            sleep(RETRY.saturating_sub(sent.elapsed())).await;
        }
    }

    /// Runs the command while the session holds what it is for.
    async fn run_command(
        &self,
        session: &Session,
        environment: Environment,
        line: &[String],
        kill_after: Duration,
        signals: &mut Signals,
    ) -> Result<Ended, Failure> {
        let mut child = Child::start(line, environment).map_err(|error| Failure {
            status: if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN },
            error: Error::new(ErrorKind::Other, format!("the command cannot be started: {error}")),
        })?;
        let (mut renewal, mut watch) = (pin!(self.renew(session)), pin!(self.watch(session)));
        let mut interrupted = false;
        let lost = loop {
            tokio::select! {
                biased;
                lost = &mut renewal => break lost,
                event = child.event() => match event {
                    Event::Ended(status) => return Ok(Ended::Done(status)),
                    Event::Stopped => {
                        child.suspend();
                        if session.may_have_ended() {
                            break expired(None);
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
        if let Err(error) = child.end(kill_after, hurry).await {
            let held = C::HELD.unwrap_or("the session");
            self.report(&format!("the command cannot be killed: {error}; it runs on without {held}"));
        }
        Ok(Ended::Lost)
    }

    /// Prints the text, and waits for a signal.
    async fn wait(&self, session: &Session, text: &str, signals: &mut Signals) -> Result<Ended, Failure> {
        let mut stdout = io::stdout();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Error::new(ErrorKind::Other, format!("the session's id cannot be printed: {error}")))?;
        let lost = tokio::select! {
            biased;
            lost = self.renew(session) => lost,
            lost = self.watch(session) => lost,
            _ = signals.next() => return Ok(Ended::Done(Output::DONE)),
        };
        self.report(&format!("lost: session {}: {lost}", session.id));
        Ok(Ended::Lost)
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

    /// Releases what the session holds, so that the next holder does not wait for the lock delay,
    /// and destroys the session whether or not the release succeeded. Reports what failed.
    async fn clean_up(&self, session: &Session) -> Closed {
        let id = &session.id;
        let released = self.release(session).await;
        let destroyed = persist(async || self.destroy(session).await).await;
        let failed = |what: &str, error: &CallError| format!("{what} failed: {}", printable(&error.to_string()));
        let release_failed = C::HELD.zip(released.as_ref().err()).map(|(held, error)| {
            let release = failed(&format!("the release of {held}"), error);
            (held, release)
        });
        match (release_failed, &destroyed) {
            (None, Ok(())) => {}
            (Some((held, release)), Ok(())) => {
                let free = match self.lock_delay() {
                    None => String::new(),
                    Some(delay) => format!(" after its lock delay of {delay}"),
                };
                self.report(&format!("{release}; session {id} was destroyed instead, which frees {held}{free}"));
            }
            (release, Err(error)) => {
                let release = release.map(|(_, release)| release + "; ").unwrap_or_default();
                let destroyed = failed(&format!("the destruction of session {id}"), error);
                self.report(&format!("{release}{destroyed}; {}", self.remains(session)));
            }
        }
        if destroyed.is_ok() {
            session.may_hold.set(false);
        }
        match released {
            Ok(Some(false)) => Closed::NotHeld,
            _ if session.may_hold.get() => Closed::MayHold,
            _ => Closed::Free,
        }
    }

    /// Releases what the session holds. Returns whether it held that until then, if that is known.
    async fn release(&self, session: &Session) -> Result<Option<bool>, CallError> {
        if !session.may_hold.get() {
            return Ok(Some(false));
        }
        let in_doubt = Cell::new(false);
        let released = persist(async || {
            let released = self.claim.release(&self.agent, &session.id).await;
            if let Err(CallError::Plugin(wit::Error::OutcomeUnknown(_))) = &released {
                in_doubt.set(true);
            }
            released
        });
        let held = released.await?;
        // The session itself remains.
        session.may_hold.set(C::HELD.is_none());
        // A release whose answer was lost may be the one that freed the key.
        Ok((held || !in_doubt.get()).then_some(held))
    }

    async fn destroy(&self, session: &Session) -> Result<(), CallError> {
        self.agent.host.destroy(&session.id, Some(&self.agent.connection)).await
    }

    /// Returns until when a session that may not have been destroyed stays, and what it holds.
    fn remains(&self, session: &Session) -> String {
        let id = &session.id;
        let ends = format!("Consul ends it by itself within {}, twice its ttl", for_people(session.ttl * 2));
        let Some(held) = C::HELD else { return format!("session {id} may still exist: then {ends}") };
        match self.lock_delay() {
            _ if !session.may_hold.get() => format!("session {id} does not hold {held}; if it still exists, {ends}"),
            None => format!("session {id} may hold {held}; if it still exists, {ends}"),
            Some(delay) => format!(
                "session {id} may hold {held}; if it still exists, {ends}, and {held} is free after its lock delay of {delay}"
            ),
        }
    }

    /// Returns the lock delay of what the session holds, if it has one.
    fn lock_delay(&self) -> Option<String> {
        let delay = Duration::from_secs_f64(self.new.lock_delay.unwrap_or_default());
        (C::HAS_DELAY && !delay.is_zero()).then(|| for_people(delay))
    }
}

/// Returns the reason of a loss where no renewal succeeded in time, with the last error.
fn expired(error: Option<&Error>) -> String {
    match error {
        None => "it was not renewed within its TTL".into(),
        Some(error) => format!("it could not be renewed within its TTL: {}", printable(&error.message)),
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

/// Returns whether another attempt may succeed.
fn may_pass(error: &CallError) -> bool {
    matches!(error, CallError::Plugin(wit::Error::OutcomeUnknown(_))) || !is_final(error, false)
}
