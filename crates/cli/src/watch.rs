//! `watch`: the sessions as they come and go, by blocking queries.
//!
//! One task reads and compares, another prints. What comes and goes again between two reads is not seen: Consul answers with what
//! is, not with what was.

mod lines;
mod screen;
mod state;

use crate::convert;
use crate::{VERBOSE, terminal};
use backon::{BackoffBuilder, ExponentialBuilder};
use consul_session::error::{Error, ErrorKind};
use consul_session_args::{self as cli, Command, Format, Invocation, Output};
use consul_session_host::{self as wit, CallError, Connection, Consistency, Exceeded, Host, Query};
use screen::Screen;
use state::{Event, Listing, Watch};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// The command.
pub const COMMAND: Command = Command {
    name: "watch",
    args: &[],
    rest: None,
    flags: &[],
    settings: &[],
    help: "Show the sessions as they come and go, until interrupted; `name` and `node` filter. With --format json, or where \
           standard output is no terminal, one event a line",
};

/// The options that filter, which mean something here beside those of the connection.
const FILTERS: [&str; 2] = ["name", "node"];

/// The longest that Consul may leave a call unanswered, in seconds: short, since a machine that is gone is only missed when the
/// answer is.
const WAIT: f64 = 60.0;
/// What brought nothing new is not asked again before this time is over.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the terminal is drawn anew while there are ages on it.
const TICK: Duration = Duration::from_secs(1);

/// What happened at one time.
struct News {
    /// Consul's index; 0 before the first answer.
    index: u64,
    time: SystemTime,
    events: Vec<Event>,
}

impl News {
    fn new(index: u64, events: Vec<Event>) -> News {
        News { index, time: SystemTime::now(), events }
    }
}

/// Whose sessions are read.
struct Source {
    host: Host,
    connection: Connection,
    node: Option<String>,
}

impl Source {
    /// What there is, at once or when the index is above this. With a quorum's consistency: after a change of its leader, Consul
    /// may answer a plain read with what was a moment ago, so that sessions would seem to go and come again.
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

/// Watches until somebody stops it, or nobody reads it, which is success.
///
/// Errors: what waiting does not mend, before the first answer. Afterwards a token or a certificate that was taken away is waited for
/// as a dead agent is; only a limit that cuts off each blocking query is an error at any time.
pub async fn run(host: Host, invocation: &Invocation) -> Result<Output, Error> {
    invocation.only(&FILTERS, |option| {
        format!("option `{option}` means nothing to `watch`, which reads all sessions: `name` and `node` filter")
    })?;
    // An id alone does not say what became of it.
    invocation.accept(&[Format::Table, Format::Json], COMMAND.name)?;
    let options = invocation.options.clone().resolve();
    let agent = format!("{}:{}", options.host.as_str(), options.port);
    let source = Source { host, connection: convert::connection(&options), node: options.node };
    let (sender, all_news) = mpsc::channel(16);
    let reading = tokio::spawn(read(source, Watch::new(options.name), sender));
    // Requests that are told of would go through the table.
    let verbose = invocation.flags.contains(&VERBOSE) && io::stderr().is_terminal();
    let on_screen = invocation.format == Format::Table && io::stdout().is_terminal() && !terminal::is_dumb() && !verbose;
    let printing = match on_screen {
        true => tokio::spawn(draw(all_news, Screen::new(agent, terminal::style().stdout))),
        false => tokio::spawn(print(all_news, agent, invocation.format)),
    };
    tokio::select! {
        printed = printing => if let Err(error) = joined(printed)? {
            // A call that the runtime's end cuts off would complain.
            reading.abort();
            let _ = reading.await;
            return match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(nothing_more(true)),
                _ => Err(Error::new(ErrorKind::Other, format!("standard output cannot be written to: {error}"))),
            };
        },
        () = stopped() => {
            // The runtime's end would wait for a write that nobody takes, and cut off a call, which complains.
            std::process::exit(0);
        }
    }
    let error = joined(reading.await)?;
    Ok(match invocation.format {
        Format::Json => Output { stdout: lines::json_of_last(error), ..nothing_more(false) },
        format => cli::failure(&error, format, &terminal::style()),
    })
}

fn nothing_more(success: bool) -> Output {
    Output { stdout: String::new(), stderr: String::new(), success }
}

fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> Result<T, Error> {
    ended.map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
}

/// Reads until nobody wants to know, or until an error that ends it.
async fn read(source: Source, mut watch: Watch, sender: mpsc::Sender<News>) -> Error {
    // With jitter, so that many watchers do not come back to an agent at once.
    let backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter();
    let mut delays = backoff.build();
    loop {
        let (asked, known) = (Instant::now(), watch.index());
        let (events, pause) = match source.listing(watch.ask()).await {
            Ok(listing) => {
                delays = backoff.build();
                let is_new = listing.index > known;
                let events = watch.listed(listing, Instant::now());
                (events, if is_new { Duration::ZERO } else { PAUSE.saturating_sub(asked.elapsed()) })
            }
            Err(error) if is_final(&error, watch.has_begun()) => return convert::error(error),
            Err(error) => (watch.failed(convert::error(error)), delays.next().unwrap_or(PAUSE)),
        };
        if !events.is_empty() && sender.send(News::new(watch.index(), events)).await.is_err() {
            return Error::new(ErrorKind::Other, "nobody reads");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether waiting cannot mend it.
pub fn is_final(error: &CallError, has_begun: bool) -> bool {
    match error {
        // A limit under which no blocking query ends.
        CallError::Stopped(Exceeded::Time(_)) => true,
        _ if has_begun => false,
        CallError::Plugin(error) => match error {
            wit::Error::Unreachable(_)
            | wit::Error::Timeout(_)
            | wit::Error::Unavailable(_)
            | wit::Error::InvalidResponse(_) => false,
            wit::Error::Refused(refusal) => refusal.status < 500,
            _ => true,
        },
        _ => true,
    }
}

/// Prints each event in a line.
async fn print(mut all_news: mpsc::Receiver<News>, agent: String, format: Format) -> io::Result<()> {
    while let Some(news) = all_news.recv().await {
        let text = match format {
            Format::Json => lines::lines_of_json(&news, &agent),
            _ => lines::text(&news, &agent),
        };
        // A slow reader must not hold up the thread that waits for signals.
        block_in_place(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        })?;
    }
    Ok(())
}

/// Draws the table, again and again.
async fn draw(mut all_news: mpsc::Receiver<News>, mut screen: Screen) -> io::Result<()> {
    let mut tick = tokio::time::interval(TICK);
    let mut resized = Resizes::new();
    loop {
        block_in_place(|| {
            let size = terminal::size(&io::stdout()).unwrap_or((80, 24));
            screen.draw(&mut io::stdout().lock(), size, Instant::now())
        })?;
        tokio::select! {
            news = all_news.recv() => match news {
                Some(news) => screen.update(news, Instant::now()),
                None => return Ok(()),
            },
            _ = tick.tick(), if screen.ages() => {}
            () = resized.next() => {}
        }
    }
}

/// Waits for SIGINT, for SIGTERM, and until nobody reads standard output any more.
#[cfg(unix)]
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let of = async |kind| match signal(kind) {
        Ok(mut signal) => signal.recv().await.unwrap_or_default(),
        // Then it does what it does to other programs.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = of(SignalKind::interrupt()) => {}
        () = of(SignalKind::terminate()) => {}
        () = unread() => {}
    }
}

#[cfg(not(unix))]
async fn stopped() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the other end of standard output is gone, which a program that writes seldom would not notice for long.
#[cfg(unix)]
async fn unread() {
    use rustix::event::{PollFd, PollFlags, poll};
    let (gone, told) = tokio::sync::oneshot::channel();
    // On a thread of its own: the runtime's own way refuses files.
    std::thread::spawn(move || {
        let stdout = io::stdout();
        // Errors and the end are told unasked.
        while poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) == Err(rustix::io::Errno::INTR) {}
        let _ = gone.send(());
    });
    let _ = told.await;
}

/// The terminal's changes of size.
#[cfg(unix)]
struct Resizes(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Resizes {
    fn new() -> Resizes {
        Resizes(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()).ok())
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => signal.recv().await.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
struct Resizes;

#[cfg(not(unix))]
impl Resizes {
    fn new() -> Resizes {
        Resizes
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
