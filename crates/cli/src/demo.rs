//! `--dev demo`: the five examples of `consul_session`'s page, one after another.

use crate::{PROGRAM, apply, terminal};
use consul_session::Error;
use consul_session_args::{self as cli, Invocation, Source};
use consul_session_dev_agent::DevAgent;
use consul_session_host::Host;

/// Each as on the page: what it is for, and its options. `session_id` stands for the id of the first example's session.
const EXAMPLES: [(&str, &[(&str, &str)]); 5] = [
    ("register basic session with consul", &[("name", "session1")]),
    ("register a session with an existing check", &[("name", "session_with_check"), ("checks", "existing_check_name")]),
    ("register a session with lock_delay", &[("name", "session_with_delay"), ("delay", "20s")]),
    ("retrieve info about session by id", &[("id", "session_id"), ("state", "info")]),
    ("retrieve active sessions", &[("state", "list")]),
];

/// Runs them against the dev agent; the commands and what each prints.
pub async fn run(host: &Host, agent: &DevAgent, connection: &Invocation) -> Result<String, Error> {
    agent.register_check("existing_check_name");
    let mut text = format!("The five examples of consul_session's page, on a dev agent at {}.\n", agent.addr());
    let mut session_id: Option<String> = None;
    let style = terminal::style();
    for (purpose, options) in EXAMPLES {
        let mut invocation = connection.clone();
        let mut command = format!("$ {}", PROGRAM.name);
        for (name, value) in options {
            let value = match (*value, &session_id) {
                ("session_id", Some(id)) => id as &str,
                (value, _) => value,
            };
            invocation.give(name, &value.into(), Source::Arguments)?;
            command += &format!(" {name}={value}");
        }
        let outcome = apply(host, &invocation.options).await?;
        let shown = cli::success(&outcome, &invocation, &style).stdout;
        text += &format!("\n# {purpose}\n{command}\n{shown}");
        if session_id.is_none() {
            session_id = outcome.session_id().map(str::to_owned);
        }
    }
    Ok(text)
}
