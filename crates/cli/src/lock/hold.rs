//! `hold`: keeps a session alive, for others to lock with it.

use super::claim::{Agent, Attempt, Check, Claim, Session, query};
use super::keeper::{Keeper, Task};
use consul_session::error::Error;
use consul_session_args::flags::Hold as Args;
use consul_session_args::{Format, Invocation, Output};
use consul_session_host::{CallError, CreateOptions, Host};
use serde_json::json;

/// Keeps a session while the command runs, or until a signal.
///
/// # Errors
///
/// An option is not valid, so that nothing was sent. Other failures are the output.
pub async fn run(host: Host, invocation: &Invocation, args: &Args) -> Result<Output, Error> {
    invocation.accept(&[Format::Table, Format::Ids, Format::Json], "hold")?;
    let name = invocation.options.name.clone().unwrap_or_default();
    // One line, for scripts.
    let announce = |id: &str| match invocation.format {
        Format::Json => format!("{}\n", json!({ "session_id": id, "name": name })),
        _ => format!("{id}\n"),
    };
    let task = match &args.command[..] {
        [] => Task::Wait(&announce),
        line => Task::Command { line, kill_after: args.kill_after.time },
    };
    let claim = Alone { name: name.clone() };
    Keeper::new(host, invocation, claim, false)?.run(None, task, invocation.format).await
}

/// A session that this program holds nothing with.
struct Alone {
    name: String,
}

impl Claim for Alone {
    const COMMAND: &'static str = "hold";
    const HELD: Option<&'static str> = None;
    const HAS_DELAY: bool = false;

    fn name(&self) -> &str {
        &self.name
    }

    fn defaults(&self, _new: &mut CreateOptions, _is_given: &dyn Fn(&str) -> bool) {}

    async fn attempt(&self, _agent: &Agent, session: &Session, _index: Option<u64>) -> Result<Attempt, CallError> {
        session.may_hold.set(true);
        Ok(Attempt::Acquired(vec![
            ("CONSUL_SESSION_ID", Some(session.id.clone())),
            ("CONSUL_SESSION_NAME", Some(self.name.clone())),
        ]))
    }

    async fn check(&self, agent: &Agent, id: &str, index: Option<u64>) -> Result<Check, CallError> {
        let found = agent.host.info(id, query(index), Some(&agent.connection)).await?;
        Ok(match found.session {
            Some(_) => Check::Held(found.index),
            None => Check::Lost("Consul has ended it".into()),
        })
    }

    async fn release(&self, agent: &Agent, id: &str) -> Result<bool, CallError> {
        let found = agent.host.info(id, query(None), Some(&agent.connection)).await?;
        Ok(found.session.is_some())
    }
}
