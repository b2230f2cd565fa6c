//! A binary module of Ansible: run with the path of a file that holds a task's options, the program is `consul_session`.

use crate::{apply, host, permissions};
use consul_session::error::Error;
use consul_session::options::{self, Options};
use consul_session_args::{self as cli, Invocation, Output, Source};
use serde_json::{Map, Value, json};
use std::path::Path;

/// An option of community.general's module that is none of the component's.
const CA_PATH: &str = "ca_path";
const TOKEN: &str = "token";

/// The file of the task's options, if this is how Ansible runs a module: the only word is an absolute path, or, for those who try it by
/// hand, the name of a `.json` file. Neither is ever an option or a command.
pub fn task_file(args: &[String]) -> Option<&Path> {
    let [word] = args else { return None };
    let path = Path::new(word);
    let by_hand = word.ends_with(".json") && !word.starts_with('-') && !word.contains('=');
    (path.is_absolute() || by_hand).then_some(path)
}

/// Does the task; what a module prints, which is one JSON object, also for an error.
pub async fn run(file: &Path) -> Output {
    let task = match Task::read(file) {
        Ok(task) => task,
        Err(error) => return output(&json!(error), false),
    };
    let done = task.apply().await;
    let success = done.is_ok();
    let mut answer = done.unwrap_or_else(|error| json!(error));
    answer["invocation"] = json!({ "module_args": task.shown() });
    hide(&mut answer, &task.token());
    output(&answer, success)
}

fn output(answer: &Value, success: bool) -> Output {
    Output { stdout: format!("{answer}\n"), stderr: String::new(), success }
}

/// What Ansible says. Of its own keys `_ansible_no_log` asks for nothing here: it is about the system's log, where nothing is written.
struct Task {
    /// As in the playbook, and how Ansible's messages call it.
    module: String,
    check_mode: bool,
    diff_mode: bool,
    /// The options, without those that are `null`, which are not given.
    options: Map<String, Value>,
}

impl Task {
    fn read(file: &Path) -> Result<Task, Error> {
        let refused =
            |reason: String| Error::invalid("arguments", format!("the task's options in {} {reason}", file.display()));
        let text = std::fs::read(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| refused(format!("are not JSON: {error}")))?;
        let Value::Object(mut options) = json else { return Err(refused("are not a JSON object".into())) };
        let is_set = |key: &str| options.get(key) == Some(&Value::Bool(true));
        let (check_mode, diff_mode) = (is_set("_ansible_check_mode"), is_set("_ansible_diff"));
        let module = options.get("_ansible_module_name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let module = module.unwrap_or("consul_session").to_owned();
        options.retain(|name, value| !name.starts_with("_ansible_") && !value.is_null());
        Ok(Task { module, check_mode, diff_mode, options })
    }

    async fn apply(&self) -> Result<Value, Error> {
        let mut invocation = self.invocation()?;
        let outcome = apply(&host(&mut invocation)?, &invocation.options).await?;
        let mut answer = json!(outcome);
        if let (Value::Object(fields), false) = (&mut answer, self.diff_mode) {
            fields.shift_remove("diff");
        }
        // Nobody reads the notes in an answer, and Ansible shows these.
        if !outcome.notes.is_empty() {
            answer["warnings"] = outcome.notes.into();
        }
        // The module that this one stands in for says again what was asked for.
        for (key, option) in [("session_id", "id"), ("node", "node")] {
            if let (None, Some(value)) = (answer.get(key), self.options.get(option)) {
                answer[key] = value.clone();
            }
        }
        Ok(answer)
    }

    /// As if the author of the task had typed it: what names the agent there is granted.
    fn invocation(&self) -> Result<Invocation, Error> {
        self.no_others()?;
        let mut invocation = Invocation::default();
        if self.check_mode {
            invocation.give("dry_run", &true.into(), Source::Arguments)?;
        }
        for (name, value) in self.options.iter().filter(|(name, _)| *name != CA_PATH) {
            invocation.give(name, value, Source::Arguments)?;
        }
        cli::read_environment(&mut invocation, &permissions::visible)?;
        match self.options.get(CA_PATH) {
            None => {}
            Some(Value::String(path)) => {
                let setting = if Path::new(path).is_dir() { "ca-path" } else { "ca-file" };
                invocation.settings.push((setting, path.clone()));
            }
            Some(_) => {
                return Err(Error::invalid(CA_PATH, format!("option `{CA_PATH}`: it is the path of a file or a folder")));
            }
        }
        if let Some(agent) = self.unverified(&invocation) {
            invocation.settings.push(("insecure", agent));
        }
        Ok(invocation)
    }

    /// Refuses options that there are not, in Ansible's words.
    fn no_others(&self) -> Result<(), Error> {
        let mut known: Vec<&str> = options::TABLE.iter().map(|info| info.name).chain([CA_PATH]).collect();
        let mut others: Vec<&str> = self.options.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        known.sort_unstable();
        others.sort_unstable();
        let Some(first) = others.first() else { return Ok(()) };
        let (module, others, known) = (&self.module, others.join(", "), known.join(", "));
        Err(Error::invalid(
            first,
            format!("Unsupported parameters for ({module}) module: {others}. Supported parameters include: {known}."),
        ))
    }

    /// The agent whose certificate is not to be verified. Whoever writes a task names the agent and cannot type `--insecure`, so that
    /// `validate_certs: false` is granted for this one; not so that of the environment.
    fn unverified(&self, invocation: &Invocation) -> Option<String> {
        let is_typed = invocation.source("validate_certs") == Some(Source::Arguments);
        let Options { validate_certs, host, port, .. } = invocation.options.clone();
        if !is_typed || validate_certs != Some(false) || invocation.socket.is_some() {
            return None;
        }
        let agent = Options { host, port, ..Options::default() }.resolve();
        Some(format!("{}:{}", agent.host.as_str(), agent.port))
    }

    /// The options as Ansible shows them. Of those that there are not, one may be a misspelt `token`.
    fn shown(&self) -> Map<String, Value> {
        let known = |name: &str| name == CA_PATH || options::info(name).is_some();
        let hidden = |name: &str, value: &Value| match name {
            TOKEN => "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER".into(),
            _ => value.clone(),
        };
        let shown = self.options.iter().filter(|(name, _)| known(name));
        shown.map(|(name, value)| (name.clone(), hidden(name, value))).collect()
    }

    fn token(&self) -> String {
        match self.options.get(TOKEN) {
            Some(Value::String(token)) => token.clone(),
            Some(Value::Number(token)) => token.to_string(),
            _ => String::new(),
        }
    }
}

/// Takes the secret out of every text, as Ansible does for what is `no_log`: a task may have named a session after it.
fn hide(answer: &mut Value, secret: &str) {
    match answer {
        Value::String(text) if !secret.is_empty() && text.contains(secret) => *text = text.replace(secret, "********"),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secret)),
        Value::Object(fields) => fields.values_mut().for_each(|value| hide(value, secret)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ansible_types_is_told_from_what_people_type() {
        let args = |args: &[&str]| args.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
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
