//! A binary module of Ansible: run with the path of a file that holds a task's options, the program is `consul_session`.

use crate::{PROGRAM, apply, grants, host};
use consul_session::cli::{self, Invocation, Output, Program};
use consul_session::error::{Case, Error};
use consul_session::json::Json;
use consul_session::options::{self, Options};
use std::borrow::Cow;
use std::path::Path;

/// An option of community.general's module that is none of the component's.
const CA_PATH: &str = "ca_path";
const TOKEN: &str = "token";

/// The file of the task's options, if this is how Ansible runs a module: the only word is an absolute path, or, for those who try it by
/// hand, the name of a `.json` file. Neither is ever an option or a command.
pub fn task_file(words: &[String]) -> Option<&Path> {
    let [word] = words else { return None };
    let path = Path::new(word);
    let by_hand = word.ends_with(".json") && !word.starts_with('-') && !word.contains('=');
    (path.is_absolute() || by_hand).then_some(path)
}

/// Does the task; what a module prints, which is one JSON object, also for an error.
pub async fn run(file: &Path) -> Output {
    let task = match Task::read(file) {
        Ok(task) => task,
        Err(error) => return output(&error.to_json(), false),
    };
    let done = task.apply().await;
    let mut answer = match &done {
        Ok(answer) => answer.clone(),
        Err(error) => error.to_json().into_owned(),
    };
    add(&mut answer, "invocation", Json::object(vec![("module_args", task.shown())]));
    hide(&mut answer, &task.token());
    output(&answer, done.is_ok())
}

fn output(answer: &Json, success: bool) -> Output {
    Output { stdout: format!("{answer}\n"), stderr: String::new(), success }
}

/// What Ansible says. Of its own keys `_ansible_no_log` asks for nothing here: it is about the system's log, where nothing is written.
struct Task {
    /// As in the playbook, and how Ansible's messages call it.
    module: String,
    check_mode: bool,
    diff_mode: bool,
    /// The options, without those that are `null`, which are not given.
    options: Vec<(Cow<'static, str>, Json<'static>)>,
}

impl Task {
    fn read(file: &Path) -> Result<Task, Error> {
        let refused =
            |reason: String| Error::invalid("arguments", format!("the task's options in {} {reason}", file.display()));
        let text = std::fs::read(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
        let json = Json::parse(&text).map_err(|error| refused(format!("are not JSON: {error}")))?;
        let is_set = |key: &str| *json.get(key) == Json::Bool(true);
        let (check_mode, diff_mode) = (is_set("_ansible_check_mode"), is_set("_ansible_diff"));
        let module =
            Some(json.get("_ansible_module_name").text()).filter(|name| !name.is_empty()).unwrap_or("consul_session").into();
        let Json::Object(fields) = json.into_owned() else { return Err(refused("are no JSON object".into())) };
        let is_option = |(name, value): &(Cow<str>, Json)| !name.starts_with("_ansible_") && *value != Json::Null;
        Ok(Task { module, check_mode, diff_mode, options: fields.into_iter().filter(is_option).collect() })
    }

    fn option(&self, name: &str) -> Option<&Json<'static>> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value)
    }

    async fn apply(&self) -> Result<Json<'static>, Error> {
        let mut invocation = self.invocation()?;
        let answer = apply(&host(&mut invocation)?, &invocation).await?;
        let mut answer = Json::parse(answer.as_bytes())
            .map_err(|error| Case::Other.because(format!("the component's answer is not JSON: {error}")))?
            .into_owned();
        if let (Json::Object(fields), false) = (&mut answer, self.diff_mode) {
            fields.retain(|(key, _)| key != "diff");
        }
        // Nobody reads the notes in an answer, and Ansible shows these.
        let notes = answer.get("notes").clone();
        if !notes.items().is_empty() {
            add(&mut answer, "warnings", notes);
        }
        // The module that this one stands in for says again what was asked for.
        for (key, option) in [("session_id", "id"), ("node", "node")] {
            if let (Json::Null, Some(value)) = (answer.get(key), self.option(option)) {
                add(&mut answer, key, value.clone());
            }
        }
        Ok(answer)
    }

    /// As if the author of the task had typed it: what names the agent there is granted.
    fn invocation(&self) -> Result<Invocation, Error> {
        self.no_others()?;
        let mut given: Vec<_> = self.options.iter().filter(|(name, _)| name != CA_PATH).cloned().collect();
        if self.check_mode {
            given.retain(|(name, _)| name != "dry_run");
            given.push(("dry_run".into(), Json::Bool(true)));
        }
        let mut input = || Ok(Json::Object(given.clone()).to_string());
        let mut invocation =
            cli::parse(&PROGRAM, vec!["-".into()], &grants::visible, &mut input).map_err(|(_, error)| error)?;
        invocation.from_input.clear();
        match self.option(CA_PATH) {
            None => {}
            Some(Json::Text(path)) => {
                let setting = if Path::new(path.as_ref()).is_dir() { "ca-path" } else { "ca-file" };
                invocation.settings.push((setting, path.to_string()));
            }
            Some(_) => {
                return Err(Error::invalid(CA_PATH, format!("option `{CA_PATH}`: it is the path of a file or a folder")));
            }
        }
        if let Some(agent) = self.unverified(&invocation)? {
            invocation.settings.push(("insecure", agent));
        }
        Ok(invocation)
    }

    /// Refuses options that there are not, in Ansible's words.
    fn no_others(&self) -> Result<(), Error> {
        let mut known: Vec<&str> = options::TABLE.iter().map(|info| info.name).chain([CA_PATH]).collect();
        let mut others: Vec<&str> =
            self.options.iter().map(|(name, _)| name.as_ref()).filter(|name| !known.contains(name)).collect();
        known.sort_unstable();
        others.sort_unstable();
        let Some(first) = others.first() else { return Ok(()) };
        let (module, others, known) = (&self.module, options::join(&others), options::join(&known));
        Err(Error::invalid(
            first,
            format!("Unsupported parameters for ({module}) module: {others}. Supported parameters include: {known}."),
        ))
    }

    /// The agent whose certificate is not to be verified. Whoever writes a task names the agent and cannot type `--insecure`, so that
    /// `validate_certs: false` is granted for this one; not so that of the environment.
    fn unverified(&self, invocation: &Invocation) -> Result<Option<String>, Error> {
        let mut options = Options::default();
        if let Some(value) = self.option("validate_certs") {
            options.set("validate_certs", value)?;
        }
        let given = ["host", "port"].map(|name| (name, invocation.option(name)));
        let is_socket = given.iter().any(|(_, value)| value.is_some_and(|value| value.text().starts_with(Program::UNIX)));
        if options.validate_certs != Some(false) || is_socket {
            return Ok(None);
        }
        for (name, value) in given {
            options.set(name, value.unwrap_or(&Json::Null))?;
        }
        let Options { host: Some(host), port: Some(port), .. } = options.or_default()? else { return Ok(None) };
        Ok(Some(format!("{}:{port}", host.as_str())))
    }

    /// The options as Ansible shows them. Of those that there are not, one may be a misspelt `token`.
    fn shown(&self) -> Json<'static> {
        let known = |name: &str| name == CA_PATH || options::info(name).is_some();
        let hidden = |name: &str, value: &Json<'static>| match name {
            TOKEN => "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER".into(),
            _ => value.clone(),
        };
        let shown = self.options.iter().filter(|(name, _)| known(name));
        Json::Object(shown.map(|(name, value)| (name.clone(), hidden(name, value))).collect())
    }

    fn token(&self) -> String {
        match self.option(TOKEN) {
            Some(Json::Text(token)) => token.to_string(),
            Some(Json::Whole(token)) => token.to_string(),
            _ => String::new(),
        }
    }
}

fn add(object: &mut Json<'static>, key: &'static str, value: Json<'static>) {
    if let Json::Object(fields) = object {
        fields.push((key.into(), value));
    }
}

/// Takes the secret out of every text, as Ansible does for what is `no_log`: a task may have named a session after it.
fn hide(answer: &mut Json, secret: &str) {
    match answer {
        Json::Text(text) if !secret.is_empty() && text.contains(secret) => *text = text.replace(secret, "********").into(),
        Json::List(items) => items.iter_mut().for_each(|item| hide(item, secret)),
        Json::Object(fields) => fields.iter_mut().for_each(|(_, value)| hide(value, secret)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ansible_types_is_told_from_what_people_type() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        for file in ["/root/.ansible/tmp/x/args", "/tmp/a=b/args", "args.json", "./name.json", "/x.json"] {
            assert_eq!(task_file(&words(&[file])), Some(Path::new(file)), "{file}");
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
            assert_eq!(task_file(&words(other)), None, "{other:?}");
        }
    }
}
