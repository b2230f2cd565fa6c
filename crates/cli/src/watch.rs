//! `watch`: shows sessions as they come and go, by blocking queries.
//!
//! One task reads and compares, another prints. A session that comes and goes between two reads
//! is not seen: Consul answers with the present state, not with its history.

mod lines;
mod news;
mod screen;
mod state;

use crate::retry::is_final;
use crate::{convert, terminal};
use backon::{BackoffBuilder, ExponentialBuilder};
use consul_session::error::{Error, ErrorKind};
use consul_session_args::{self as cli, Format, Invocation, Output};
use consul_session_host::{CallError, Connection, Consistency, Host, Query};
use news::News;
use screen::{Alternate, Screen};
use state::{Listing, Watch};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;

/// How long Consul may block a query, in seconds. Short, since a dead machine is only noticed
/// when its answer is overdue.
const WAIT: f64 = 60.0;
/// The minimum time between two queries, if the first brings nothing new.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the screen is redrawn while it shows ages.
const TICK: Duration = Duration::from_secs(1);
/// How long a signal waits until the terminal is restored. A terminal that is stopped (Ctrl-S)
/// blocks.
const RESTORE: Duration = Duration::from_secs(1);

/// The source of the sessions.
struct Source {
    host: Host,
    connection: Connection,
    node: Option<String>,
}

impl Source {
    /// Reads the sessions, at once or when Consul's index is above this one. Reads are
    /// consistent: after a change of leader, Consul may answer a plain read with an old state, in
    /// which sessions seem to go and come again.
    async fn listing(&self, index: Option<u64>) -> Result<Listing, CallError> {
        let query = Query { consistency: Some(Consistency::Consistent), index, wait: index.map(|_| WAIT) };
        let listing = match &self.node {
            Some(node) => self.host.node(node, Some(query), Some(&self.connection)).await,
            None => self.host.list_sessions(Some(query), Some(&self.connection)).await,
        }?;
        let sessions = listing.sessions.into_iter().map(convert::session).collect();
        Ok(Listing { sessions, index: listing.index, filtered: listing.filtered })
    }
}

/// Watches until a signal or a closed standard output ends it, which is success.
///
/// # Errors
///
/// Before the first answer: an error that a retry cannot mend. Afterwards every error is retried,
/// such as a revoked token, an invalid certificate or a dead agent. Only a time limit that no
/// blocking query meets is an error at any time.
pub async fn run(host: Host, invocation: &Invocation) -> Result<Output, Error> {
    // The ids alone do not tell which of them came or went.
    invocation.accept(&[Format::Table, Format::Json], "watch")?;
    let options = invocation.options.clone().resolve();
    let agent = format!("{}:{}", options.host.as_str(), options.port);
    let source = Source { host, connection: convert::connection(&options), node: options.node };
    // Before anything is printed, after which a signal may come.
    let stopped = stopped();
    let (sender, news) = mpsc::channel(16);
    let reading = tokio::spawn(read(source, Watch::new(options.name), sender));
    // Lines about requests would break the table.
    let verbose = invocation.flags.verbose && io::stderr().is_terminal();
    let on_screen = invocation.format == Format::Table && io::stdout().is_terminal() && !terminal::is_dumb() && !verbose;
    let (stop, stopping) = oneshot::channel();
    let mut printing = match on_screen {
        true => tokio::spawn(draw(news, Screen::new(agent, terminal::style().stdout), stopping)),
        false => tokio::spawn(print(news, agent, invocation.format)),
    };
    tokio::select! {
        printed = &mut printing => if let Err(error) = joined(printed)? {
            // A call that the runtime's shutdown cuts off would report an error.
            reading.abort();
            let _ = reading.await;
            return match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(no_output(Output::DONE)),
                _ => Err(Error::new(ErrorKind::Other, format!("standard output cannot be written to: {error}"))),
            };
        },
        () = stopped => {
            if on_screen && stop.send(()).is_ok() {
                let _ = tokio::time::timeout(RESTORE, printing).await;
            }
            // The runtime's shutdown would wait for a blocked write, and cut off a call, which
            // would report an error.
            std::process::exit(0);
        }
    }
    let error = joined(reading.await)?;
    Ok(match invocation.format {
        Format::Json => Output { stdout: lines::json_of_final(error), ..no_output(Output::FAILED) },
        format => cli::failure(&error, format, &terminal::style()),
    })
}

fn no_output(status: u8) -> Output {
    Output { stdout: String::new(), stderr: String::new(), status }
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Error> {
    result.map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
}

/// Reads and compares until the receiver is closed or an error is final. Returns that error.
async fn read(source: Source, mut watch: Watch, sender: mpsc::Sender<News>) -> Error {
    // With jitter, so that many watchers do not return to an agent at the same time.
    let backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter();
    let mut delays = backoff.build();
    loop {
        let (sent, known) = (Instant::now(), watch.index());
        let (events, pause) = match source.listing(watch.next_index()).await {
            Ok(listing) => {
                delays = backoff.build();
                let is_new = listing.index > known;
                let events = watch.listed(listing, Instant::now());
                (events, if is_new { Duration::ZERO } else { PAUSE.saturating_sub(sent.elapsed()) })
            }
            Err(error) if is_final(&error, watch.has_begun()) => return convert::error(error),
            Err(error) => (watch.failed(convert::error(error)), delays.next().unwrap_or(PAUSE)),
        };
        if !events.is_empty() && sender.send(News::new(watch.index(), events)).await.is_err() {
            return Error::new(ErrorKind::Other, "standard output is closed");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Prints a line for each event.
async fn print(mut receiver: mpsc::Receiver<News>, agent: String, format: Format) -> io::Result<()> {
    while let Some(news) = receiver.recv().await {
        let text = match format {
            Format::Json => lines::json(&news, &agent),
            _ => lines::text(&news, &agent),
        };
        // A slow reader must not block the thread that waits for signals.
        block_in_place(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        })?;
    }
    Ok(())
}

/// Draws the screen after each event, tick and resize, until there is no more news or a signal stops
/// it. Then leaves what is known on the terminal.
async fn draw(mut receiver: mpsc::Receiver<News>, mut screen: Screen, mut stopping: oneshot::Receiver<()>) -> io::Result<()> {
    let size = || terminal::size(&io::stdout()).unwrap_or((80, 24));
    let mut tick = tokio::time::interval(TICK);
    // After a pause without ages, or suspended, one redraw is enough.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut redraws = Redraws::new();
    let alternate = block_in_place(Alternate::enter)?;
    let is_stopped = loop {
        block_in_place(|| screen.draw(&mut io::stdout().lock(), size(), Instant::now()))?;
        tokio::select! {
            news = receiver.recv() => match news {
                Some(news) => screen.update(news, Instant::now()),
                None => break false,
            },
            _ = tick.tick(), if screen.shows_ages() => {}
            () = redraws.next() => {}
            _ = &mut stopping => break true,
        }
    };
    block_in_place(|| {
        drop(alternate);
        // An error at the start says it all.
        match is_stopped || screen.has_begun() {
            true => screen.print_last(&mut io::stdout().lock(), size(), Instant::now()),
            false => Ok(()),
        }
    })
}

/// Listens for SIGINT, SIGTERM and a closed standard output. Returns a future that waits for one of
/// them.
#[cfg(unix)]
fn stopped() -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let received = async |signal: io::Result<Signal>| match signal {
        Ok(mut signal) => signal.recv().await.unwrap_or_default(),
        // The signal then has its default effect.
        Err(_) => std::future::pending().await,
    };
    async move {
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
            () = stdout_closed() => {}
        }
    }
}

#[cfg(not(unix))]
async fn stopped() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the other end of standard output is closed. A program that writes seldom would
/// notice it late.
#[cfg(unix)]
async fn stdout_closed() {
    use rustix::event::{PollFd, PollFlags, poll};
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // On a separate thread, since tokio cannot poll a standard output that is a file.
    std::thread::spawn(move || {
        let stdout = io::stdout();
        // `poll` reports errors and hang-ups even if no events are requested.
        while poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) == Err(rustix::io::Errno::INTR) {}
        let _ = sender.send(());
    });
    let _ = receiver.await;
}

/// What makes the screen out of date: another size, and a shell that wrote to it while the program
/// was suspended.
#[cfg(unix)]
struct Redraws([Option<tokio::signal::unix::Signal>; 2]);

#[cfg(unix)]
impl Redraws {
    fn new() -> Redraws {
        use tokio::signal::unix::{SignalKind, signal};
        Redraws([SignalKind::window_change(), SignalKind::from_raw(libc::SIGCONT)].map(|kind| signal(kind).ok()))
    }

    async fn next(&mut self) {
        let [resized, continued] = self.0.each_mut().map(async |signal| match signal {
            Some(signal) => signal.recv().await.unwrap_or_default(),
            None => std::future::pending().await,
        });
        tokio::select! {
            () = resized => {}
            () = continued => {}
        }
    }
}

#[cfg(not(unix))]
struct Redraws;

#[cfg(not(unix))]
impl Redraws {
    fn new() -> Redraws {
        Redraws
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
