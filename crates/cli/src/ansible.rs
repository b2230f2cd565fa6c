//! The binary Ansible module `consul_session`: the program, run with the path of a file that
//! holds a task's options.

mod arguments;
#[cfg(test)]
mod documentation;

use crate::{host, permissions};
use consul_session::error::Error;
use consul_session::options::{self, Options};
use consul_session_args::{self as cli, Invocation, Output, Source};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// An option of community.general's module that the component does not have.
const CA_PATH: &str = "ca_path";
const TOKEN: &str = "token";

/// Returns the file of the task's options, if the program runs as an Ansible module: its only
/// argument is an absolute path, or, when run by hand, the name of a `.json` file. Neither is
/// ever an option or a command.
pub fn task_file(args: &[String]) -> Option<&Path> {
    let [arg] = args else { return None };
    let path = Path::new(arg);
    let by_hand = arg.ends_with(".json") && !arg.starts_with('-') && !arg.contains('=');
    (path.is_absolute() || by_hand).then_some(path)
}

/// Runs the task. Returns a module's output: one JSON object, also for an error.
pub async fn run(file: &Path) -> Output {
    let task = match Task::read(file) {
        Ok(task) => task,
        Err(error) => return output(&json!(error), Output::FAILED),
    };
    let result = task.apply().await;
    let status = if result.is_ok() { Output::DONE } else { Output::FAILED };
    let mut answer = result.unwrap_or_else(|error| json!(error));
    answer["invocation"] = json!({ "module_args": task.redacted_options() });
    redact(&mut answer, &task.token());
    output(&answer, status)
}

fn output(answer: &Value, status: u8) -> Output {
    Output { stdout: format!("{answer}\n"), stderr: String::new(), status }
}

/// A task, as Ansible passes it. `_ansible_no_log` needs no handling: it is about the system log,
/// to which this program writes nothing.
struct Task {
    /// The module's name in the playbook and in Ansible's messages.
    module: String,
    check_mode: bool,
    diff_mode: bool,
    /// The options, without those that are `null`, which means not given.
    options: Map<String, Value>,
}

impl Task {
    fn read(file: &Path) -> Result<Task, Error> {
        let invalid =
            |reason: String| Error::invalid("arguments", format!("the task's options in {} {reason}", file.display()));
        let text = std::fs::read(file).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| invalid(format!("are not JSON: {error}")))?;
        let Value::Object(mut options) = json else { return Err(invalid("are not a JSON object".into())) };
        let is_set = |key: &str| options.get(key) == Some(&Value::Bool(true));
        let (check_mode, diff_mode) = (is_set("_ansible_check_mode"), is_set("_ansible_diff"));
        let module = options.get("_ansible_module_name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let module = module.unwrap_or("consul_session").to_owned();
        options.retain(|name, value| !name.starts_with("_ansible_") && !value.is_null());
        Ok(Task { module, check_mode, diff_mode, options })
    }

    async fn apply(&self) -> Result<Value, Error> {
        let mut invocation = self.invocation()?;
        let host = host::build(&mut invocation, false)?;
        let outcome = host::apply(&host, &invocation.options).await;
        let outcome = outcome.map_err(|error| arguments::rejected_together(&self.options, error))?;
        let mut answer = json!(outcome);
        if let (Value::Object(fields), false) = (&mut answer, self.diff_mode) {
            fields.shift_remove("diff");
        }
        // Ansible shows warnings to its user, but no notes.
        if !outcome.notes.is_empty() {
            answer["warnings"] = outcome.notes.into();
        }
        // community.general's module returns the given options too.
        for (key, option) in [("session_id", "id"), ("node", "node")] {
            if let (None, Some(value)) = (answer.get(key), self.options.get(option)) {
                answer[key] = value.clone();
            }
        }
        Ok(answer)
    }

    /// Returns the task as a command line of its author: the agent that it names is allowed.
    fn invocation(&self) -> Result<Invocation, Error> {
        arguments::reject_unknown(&self.module, &self.options)?;
        let mut invocation = Invocation::default();
        if self.check_mode {
            invocation.give("dry_run", &true.into(), Source::Arguments)?;
        }
        let is_used = |name: &str| name != CA_PATH && !arguments::is_ignored(&self.options, name);
        for (name, value) in self.options.iter().filter(|(name, _)| is_used(name)) {
            invocation.give(name, value, Source::Arguments).map_err(|error| arguments::rejected(name, value, error))?;
        }
        cli::read_environment(&mut invocation, &permissions::visible)?;
        match self.options.get(CA_PATH) {
            None => {}
            Some(Value::String(path)) => {
                let path = PathBuf::from(path);
                let flag = if path.is_dir() { &mut invocation.flags.ca_path } else { &mut invocation.flags.ca_file };
                *flag = Some(path);
            }
            Some(value) => return Err(arguments::rejected_ca_path(value)),
        }
        if let Some(agent) = self.unverified(&invocation) {
            invocation.flags.insecure.push(agent);
        }
        Ok(invocation)
    }

    /// Returns the agent whose certificate is not verified. The author of a task names the agent
    /// and cannot type `--insecure`, so the task's `validate_certs: false` is granted for that
    /// agent; the environment's is not.
    fn unverified(&self, invocation: &Invocation) -> Option<String> {
        let is_given = invocation.source("validate_certs") == Some(Source::Arguments);
        let Options { validate_certs, host, port, .. } = invocation.options.clone();
        if !is_given || validate_certs != Some(false) || invocation.socket.is_some() {
            return None;
        }
        let agent = Options { host, port, ..Options::default() }.resolve();
        Some(format!("{}:{}", agent.host.as_str(), agent.port))
    }

    /// Returns the options as Ansible shows them, without unknown ones: one may be a misspelt
    /// `token`.
    fn redacted_options(&self) -> Map<String, Value> {
        let known = |name: &str| name == CA_PATH || options::info(name).is_some();
        let redacted = |name: &str, value: &Value| match name {
            TOKEN => "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER".into(),
            _ => value.clone(),
        };
        let options = self.options.iter().filter(|(name, _)| known(name));
        options.map(|(name, value)| (name.clone(), redacted(name, value))).collect()
    }

    fn token(&self) -> String {
        match self.options.get(TOKEN) {
            Some(Value::String(token)) => token.clone(),
            Some(Value::Number(token)) => token.to_string(),
            _ => String::new(),
        }
    }
}

/// Redacts the secret in every string, as Ansible does for `no_log` options: a task may have
/// named a session after it.
fn redact(answer: &mut Value, secret: &str) {
    match answer {
        Value::String(text) if !secret.is_empty() && text.contains(secret) => *text = text.replace(secret, "********"),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, secret)),
        Value::Object(fields) => fields.values_mut().for_each(|value| redact(value, secret)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_files_are_recognized() {
        let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<String>>();
        for file in ["/root/.ansible/tmp/x/args", "/tmp/a=b/args", "args.json", "./name.json", "/x.json"] {
            assert_eq!(task_file(&args(&[file])), Some(Path::new(file)), "{file}");
        }
        for other in [
            &[][..],
            &["-"],
            &["help"],
            &["demo"],
            &["args"],
            &["name=x.json"],
            &["name=/x"],
            &["--config=/x.json"],
            &["--x.json"],
            &["--config", "/x.json"],
            &["/x.json", "name=x"],
        ] {
            assert_eq!(task_file(&args(other)), None, "{other:?}");
        }
    }
}
