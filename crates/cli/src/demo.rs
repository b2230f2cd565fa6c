//! `demo`: the five examples of the `consul_session` options, one after another.

use crate::{host, terminal};
use consul_session::Error;
use consul_session_args::{self as cli, Invocation, Program, Source};
use consul_session_dev_agent::DevAgent;
use consul_session_host::Host;

/// The examples, each with its purpose as the module's documentation has it, and its options.
/// `session_id` is replaced by the id of the first example's session.
const EXAMPLES: [(&str, &[(&str, &str)]); 5] = [
    ("register basic session with consul", &[("name", "session1")]),
    ("register a session with an existing check", &[("name", "session_with_check"), ("checks", "existing_check_name")]),
    ("register a session with lock_delay", &[("name", "session_with_delay"), ("delay", "20s")]),
    ("retrieve info about session by id", &[("id", "session_id"), ("state", "info")]),
    ("retrieve active sessions", &[("state", "list")]),
];

/// Runs the examples against the dev agent. Returns each command, as typed,
/// and its output.
pub async fn run(host: &Host, agent: &DevAgent, connection: &Invocation) -> Result<String, Error> {
    agent.register_check("existing_check_name");
    let mut text = format!("The five examples of the consul_session options, on a dev agent at {}.\n", agent.addr());
    let mut session_id: Option<String> = None;
    let style = terminal::style();
    for (purpose, options) in EXAMPLES {
        let mut invocation = connection.clone();
        let mut command = format!("$ {}", Program::NAME);
        for (name, value) in options {
            let value = match (*value, &session_id) {
                ("session_id", Some(id)) => id as &str,
                (value, _) => value,
            };
            invocation.give(name, &value.into(), Source::Arguments)?;
            command += &format!(" {name}={value}");
        }
        let outcome = host::apply(host, &invocation.options).await?;
        let output = cli::success(&outcome, &invocation, &style).stdout;
        text += &format!("\n# {purpose}\n{command}\n{output}");
        if session_id.is_none() {
            session_id = outcome.session_id().map(str::to_owned);
        }
    }
    Ok(text)
}
