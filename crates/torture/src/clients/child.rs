//! The command of the program's locks and semaphores: this package's own program with a hidden
//! argument. It writes to the register with the fencing number that it finds in its environment, or
//! says that it has a slot, until its time is over.

use crate::history::{Answer, Event};
use crate::register::Hello;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// The hidden argument.
pub const ARGUMENT: &str = "lock-command";
/// The time between a read and the write that follows from it, and between two reads: the chance of
/// faults.
const PAUSE: Duration = Duration::from_millis(40);
/// The exit status of a command whose fencing number was refused.
const REFUSED: u8 = 3;

/// Runs the command with the arguments that come after [`ARGUMENT`]: the socket, the subject of its
/// records, when its program was started, what it holds, and its time in milliseconds. Returns the exit status.
pub fn run(args: &[String]) -> Result<ExitCode> {
    let [socket, subject, run, held, time] = args else { bail!("expected 5 arguments") };
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let session = Some(variable("CONSUL_LOCK_SESSION")?);
    let event = match serde_json::from_str(held)? {
        Event::Hold { key, since, wish, .. } => {
            Event::Hold { key, session, fence: variable("CONSUL_LOCK_FENCE")?.parse()?, since, wish }
        }
        Event::HoldSlot { prefix, limit, since, wish, .. } => Event::HoldSlot { prefix, session, limit, since, wish },
        other => bail!("{other:?} cannot be held"),
    };
    let time = Duration::from_millis(time.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let subject = serde_json::from_str(subject)?;
        let hello = Hello { subject, run: run.parse()?, command: std::process::id(), event: event.clone() };
        let mut connection = Connection::open(Path::new(socket), &hello).await?;
        let status = {
            let mut work = pin!(work(&mut connection, &event, time));
            tokio::select! {
                status = &mut work => Some(status?),
                // The lock is lost.
                _ = terminate.recv() => None,
            }
        };
        connection.leave().await?;
        Ok(status.unwrap_or(0).into())
    })
}

/// Does what the lock protects until the time is over, or a write was refused.
async fn work(connection: &mut Connection, event: &Event, time: Duration) -> Result<u8> {
    let end = Instant::now() + time;
    loop {
        let is_over = Instant::now() >= end;
        if let Event::Hold { .. } = event {
            let answer = connection.send("read ").await?;
            sleep(PAUSE).await;
            // A refused reader writes nevertheless: the register must not rely on manners.
            let value = if let Answer::Value { value } = answer { value } else { 0 };
            if let Answer::Refused { .. } = connection.send(&format!("write {value}")).await? {
                return Ok(REFUSED);
            }
        } else {
            connection.send("still ").await?;
        }
        // After the last write, since after a halt the time is always over.
        if is_over {
            return Ok(0);
        }
        sleep(PAUSE).await;
    }
}

/// A connection to the register.
struct Connection {
    reader: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Connection {
    async fn open(socket: &Path, hello: &Hello) -> Result<Connection> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let mut connection = Connection { reader: BufReader::new(reader).lines(), writer };
        connection.send(&serde_json::to_string(hello)?).await?;
        Ok(connection)
    }

    /// Sends a line, and waits for its answer.
    async fn send(&mut self, line: &str) -> Result<Answer> {
        self.writer.write_all(format!("{line}\n").as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer> {
        Ok(serde_json::from_str(&self.reader.next_line().await?.context("the run is over")?)?)
    }

    /// Says that it holds nothing any more. Until the answer it does.
    async fn leave(mut self) -> Result<()> {
        self.writer.write_all(b"leave \n").await?;
        self.writer.shutdown().await?;
        // There may be the answer of a line before.
        while self.reader.next_line().await?.is_some() {}
        Ok(())
    }
}
