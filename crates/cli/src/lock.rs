//! `lock` and `hold`: run a command while a session of their own exists, and holds a key or a slot
//! of a semaphore, as `consul lock` does.
//!
//! [`keeper`] keeps the session, whatever it is for. That is a [`claim::Claim`].

mod child;
mod claim;
mod clock;
mod hold;
mod keeper;
mod key;
mod slot;

pub use hold::run as hold;

use claim::Claim;
use consul_session::duration;
use consul_session::error::Error;
use consul_session_args::flags::Lock as Args;
use consul_session_args::{Invocation, Output};
use consul_session_host::Host;
use keeper::{Keeper, Task};
use key::Key;
use rustix::process::getpid;
use serde_json::json;
use slot::Slot;
use std::time::Duration;

/// Runs the command while a session holds the key, or a slot with `--semaphore`.
///
/// # Errors
///
/// An argument is not valid, so that nothing was sent. Other failures are the output.
pub async fn run(host: Host, invocation: &Invocation, args: &Args) -> Result<Output, Error> {
    match args.semaphore {
        None => run_with(host, invocation, args, Key::new(&args.key)?).await,
        Some(limit) => run_with(host, invocation, args, Slot::new(&args.key, limit)?).await,
    }
}

async fn run_with(host: Host, invocation: &Invocation, args: &Args, claim: impl Claim) -> Result<Output, Error> {
    let once = args.wait == Some(Duration::ZERO);
    let wait = args.wait.filter(|wait| !wait.is_zero());
    let task = Task::Command { line: &args.command, kill_after: args.kill_after.time };
    Keeper::new(host, invocation, claim, once)?.run(wait, task, invocation.format).await
}

/// Returns the value by which other clients can tell who holds a key.
fn own_value() -> Vec<u8> {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    json!({ "host": machine, "pid": getpid().as_raw_nonzero().get() }).to_string().into_bytes()
}

fn for_people(duration: Duration) -> String {
    duration::for_people(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}
