//! Reads, runs and compares the conformance cases, as `tests/conformance/README.md` specifies.

use crate::api::Api;
use crate::consul::{Consul, Kind};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A conformance case.
#[derive(Debug)]
pub struct Case {
    /// The name of its file, without the extension.
    pub topic: String,
    /// Its unique name.
    pub name: String,
    /// The kind of agent that runs it.
    pub agent: Agent,
    steps: Vec<Step>,
}

/// The kind of agent of a case.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Agent {
    /// Every agent.
    #[default]
    Plain,
    /// A real Consul with ACLs.
    Acl,
}

/// The Consul agents of one thread, reused from case to case. Each starts when a case first needs
/// it.
#[derive(Default)]
pub struct Agents {
    /// The Consul program, if it is not [`Consul::binary`].
    program: Option<PathBuf>,
    plain: Option<Consul>,
    acl: Option<Consul>,
}

impl Agents {
    /// Returns agents of this Consul program.
    pub fn of(program: &Path) -> Agents {
        Agents { program: Some(program.to_owned()), ..Agents::default() }
    }

    /// Returns the agent of this kind.
    ///
    /// # Errors
    ///
    /// The agent cannot be started.
    pub fn get(&mut self, agent: Agent) -> Result<&Consul> {
        let (agent, kind) = match agent {
            Agent::Plain => (&mut self.plain, Kind::Plain),
            Agent::Acl => (&mut self.acl, Kind::Acl),
        };
        match (agent, &self.program) {
            (Some(agent), _) => Ok(agent),
            (agent, None) => Ok(agent.insert(Consul::start(kind)?)),
            (agent, Some(program)) => Ok(agent.insert(Consul::start_program(program.clone(), kind)?)),
        }
    }
}

#[derive(Debug)]
struct Step {
    action: Action,
    expect: Option<Value>,
    remember: Option<String>,
}

#[derive(Debug)]
enum Action {
    Request { method: &'static str, path: String, body: Option<Value>, status: Option<u16> },
    Apply(Value),
}

/// A case as it is in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    agent: Agent,
    steps: Vec<WrittenStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    put: Option<String>,
    get: Option<String>,
    apply: Option<Value>,
    body: Option<Value>,
    status: Option<u16>,
    expect: Option<Value>,
    r#as: Option<String>,
}

/// The names that the runner sets.
const GIVEN: [&str; 4] = ["agent_node", "host", "port", "silent_port"];
/// The names that are patterns in comparisons.
const PATTERNS: [&str; 5] = ["any", "uuid", "absent", "set", "one_of"];
/// `{"${set}": […]}` matches an array in any order.
const SET: &str = "${set}";
/// `{"${one_of}": […]}` matches one of these values.
const ONE_OF: &str = "${one_of}";

/// Reads every case of a directory, and checks that each is valid: its name is unique, it compares
/// an answer, and it uses only names that are known at that step.
pub fn load(directory: &Path) -> Result<Vec<Case>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .with_context(|| directory.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    let mut cases = Vec::new();
    let mut names = BTreeSet::new();
    for file in files {
        let topic = file.file_stem().and_then(|stem| stem.to_str()).context("a file without a name")?;
        let text = std::fs::read_to_string(&file)?;
        for case in parse(topic, &text).with_context(|| file.display().to_string())? {
            ensure!(names.insert(case.name.clone()), "{topic}: two cases have the name {:?}", case.name);
            cases.push(case);
        }
    }
    Ok(cases)
}

/// Reads the cases of one file.
pub fn parse(topic: &str, text: &str) -> Result<Vec<Case>> {
    let written: Vec<Written> = serde_json::from_str(text)?;
    written
        .into_iter()
        .map(|case| {
            let name = case.name.clone();
            Case::new(topic, case).with_context(|| format!("case {name:?}"))
        })
        .collect()
}

impl Case {
    fn new(topic: &str, written: Written) -> Result<Case> {
        let mut known: BTreeSet<String> = GIVEN.map(String::from).into();
        let mut steps = Vec::new();
        for (index, step) in written.steps.into_iter().enumerate() {
            let step = Step::new(step, &mut known).with_context(|| format!("step {}", index + 1))?;
            steps.push(step);
        }
        ensure!(steps.iter().any(|step| matches!(step.action, Action::Apply(_))), "no step is an `apply`");
        Ok(Case { topic: topic.to_owned(), name: written.name, agent: written.agent, steps })
    }
}

impl Step {
    fn new(step: WrittenStep, known: &mut BTreeSet<String>) -> Result<Step> {
        let WrittenStep { put, get, apply, body, status, expect, r#as: remember } = step;
        let action = match (put, get, apply) {
            (Some(path), None, None) => Action::Request { method: "PUT", path, body, status },
            (None, Some(path), None) => {
                ensure!(body.is_none(), "`body` is only valid with `put`");
                Action::Request { method: "GET", path, body, status }
            }
            (None, None, Some(options)) => {
                ensure!(body.is_none() && status.is_none(), "`body` and `status` are only valid with `put` and `get`");
                let expect = expect.as_ref().context("`apply` needs `expect`")?;
                ensure!(expect.is_object(), "`expect` of `apply` must be an object");
                ensure!(expect.get("msg").is_none(), "message texts are not compared");
                Action::Apply(options)
            }
            _ => bail!("a step has one of `put`, `get` and `apply`"),
        };
        let mut used = Vec::new();
        match &action {
            Action::Request { path, body, .. } => {
                names_in(&Value::String(path.clone()), &mut used);
                body.iter().for_each(|body| names_in(body, &mut used));
            }
            Action::Apply(options) => names_in(options, &mut used),
        }
        ensure!(used.iter().all(|name| known.contains(name)), "one of {used:?} is not known at this step");
        let mut compared = Vec::new();
        expect.iter().for_each(|expect| names_in(expect, &mut compared));
        ensure!(
            compared.iter().all(|name| known.contains(name) || PATTERNS.contains(&name.as_str())),
            "one of {compared:?} is not known at this step"
        );
        if let Some(name) = &remember {
            let reserved = GIVEN.iter().chain(&PATTERNS).any(|reserved| reserved == name);
            ensure!(!reserved, "{name:?} is reserved");
            known.insert(name.clone());
        }
        Ok(Step { action, expect, remember })
    }

    /// Describes the step, for a message.
    fn summary(&self) -> String {
        match &self.action {
            Action::Request { method, path, .. } => format!("{method} {path}"),
            Action::Apply(options) => format!("apply {options}"),
        }
    }
}

/// Runs a case. `apply` calls `apply-json` with a string, and returns the object that the command
/// line would print.
///
/// # Errors
///
/// A step failed. The error contains the step, the path of the difference, the expected value and
/// the value found.
pub fn run(case: &Case, api: &Api, mut apply: impl FnMut(&str) -> Result<Value>) -> Result<()> {
    /// Accepts connections and never answers.
    static SILENT: LazyLock<Option<TcpListener>> = LazyLock::new(|| crate::scripted::Scripted::silent().ok());
    let silent = SILENT.as_ref().context("no port for the silent server")?.local_addr()?;
    let mut names = BTreeMap::from([
        ("agent_node".to_owned(), api.node()?),
        ("host".to_owned(), api.address.ip().to_string()),
        ("port".to_owned(), api.address.port().to_string()),
        ("silent_port".to_owned(), silent.port().to_string()),
    ]);
    api.clean().context("before the case")?;
    for (index, step) in case.steps.iter().enumerate() {
        step.run(api, &mut names, &mut apply).with_context(|| format!("step {}: {}", index + 1, step.summary()))?;
    }
    Ok(())
}

impl Step {
    fn run(
        &self,
        api: &Api,
        names: &mut BTreeMap<String, String>,
        apply: &mut impl FnMut(&str) -> Result<Value>,
    ) -> Result<()> {
        let answer = match &self.action {
            Action::Request { method, path, body, status } => {
                let body = body.as_ref().map(|body| substitute(body, names));
                let answer = api.send(method, &substitute_text(path, names), body.as_ref())?;
                ensure!(answer.status == status.unwrap_or(200), "status {}: {}", answer.status, answer.text);
                match status {
                    Some(_) => Value::String(answer.text),
                    None => serde_json::from_str(&answer.text).unwrap_or(Value::String(answer.text)),
                }
            }
            Action::Apply(options) => {
                let text = options_text(substitute(options, names), names);
                let answer = apply(&text)?;
                check_always(options, &answer)?;
                answer
            }
        };
        if let Some(name) = &self.remember {
            let key = if matches!(self.action, Action::Apply(_)) { "session_id" } else { "SecretID" };
            let value = answer.get(key).or_else(|| answer.get("ID")).and_then(Value::as_str);
            let value = value.with_context(|| format!("no value for {name:?} in {answer:#}"))?;
            names.insert(name.clone(), value.to_owned());
        }
        if let Some(expect) = &self.expect {
            let differences = differences(&substitute(expect, names), &answer);
            ensure!(differences.is_empty(), "{}\nthe whole answer: {answer:#}", differences.join("\n"));
        }
        Ok(())
    }
}

/// Checks the properties of every answer, which no case needs to repeat.
fn check_always(options: &Value, answer: &Value) -> Result<()> {
    ensure!(answer.is_object(), "the answer is not an object: {answer}");
    if let Some(token) = options.get("token").and_then(Value::as_str) {
        // A short token might be part of another word.
        ensure!(token.len() < 8 || !answer.to_string().contains(token), "the token is in the answer: {answer:#}");
    }
    if answer.get("failed").is_some() {
        let text = answer.get("msg").and_then(Value::as_str).unwrap_or_default();
        ensure!(!text.is_empty(), "an error without a message: {answer}");
        ensure!(answer["changed"] == false && answer["failed"] == true && answer["error"].is_string(), "{answer:#}");
    }
    Ok(())
}

/// Returns the argument of `apply-json`. An object that has neither `host` nor `port` gets both; a
/// string is passed as it is, for input that is not JSON.
fn options_text(options: Value, names: &BTreeMap<String, String>) -> String {
    match options {
        Value::String(text) => text,
        Value::Object(mut options) => {
            if !options.contains_key("host") && !options.contains_key("port") {
                options.insert("host".into(), names["host"].as_str().into());
                // As a number, as a program passes it.
                options.insert("port".into(), names["port"].parse::<u16>().unwrap_or_default().into());
            }
            Value::Object(options).to_string()
        }
        other => other.to_string(),
    }
}

/// Collects the names in `${…}`.
fn names_in(value: &Value, names: &mut Vec<String>) {
    let mut in_text = |text: &str| {
        names.extend(text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name.to_owned()));
    };
    match value {
        Value::String(text) => in_text(text),
        Value::Array(elements) => elements.iter().for_each(|element| names_in(element, names)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            names_in(&Value::String(key.clone()), names);
            names_in(value, names);
        }),
        _ => {}
    }
}

/// Replaces each `${NAME}` with its value.
fn substitute(value: &Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(substitute_text(text, names)),
        Value::Array(elements) => elements.iter().map(|element| substitute(element, names)).collect(),
        Value::Object(fields) => {
            let substituted = fields.iter().map(|(key, value)| (key.clone(), substitute(value, names)));
            Value::Object(substituted.collect::<Map<_, _>>())
        }
        _ => value.clone(),
    }
}

fn substitute_text(text: &str, names: &BTreeMap<String, String>) -> String {
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
}

/// Compares a value with the expected one, and describes each difference with its path.
pub fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare("$", expected, Some(found), &mut all);
    all
}

fn compare(path: &str, expected: &Value, found: Option<&Value>, all: &mut Vec<String>) {
    let equal = match (expected, found) {
        (Value::String(pattern), None) => pattern == "${absent}",
        (_, None) => false,
        (Value::String(pattern), Some(found)) => match pattern.as_str() {
            "${any}" => true,
            "${absent}" => false,
            "${uuid}" => found.as_str().is_some_and(is_uuid),
            text => found.as_str() == Some(text),
        },
        // 15 and 15.0 are the same number in JSON. Large integers are compared exactly, since as
        // floats different ones can be equal.
        (Value::Number(expected), Some(Value::Number(found))) => {
            expected == found || ((expected.is_f64() || found.is_f64()) && expected.as_f64() == found.as_f64())
        }
        (Value::Array(expected), Some(Value::Array(found))) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(&format!("{path}[{index}]"), expected, Some(found), all);
            }
            return;
        }
        (Value::Object(expected), Some(found)) if expected.contains_key(ONE_OF) => {
            expected[ONE_OF].as_array().is_some_and(|all| all.iter().any(|one| differences(one, found).is_empty()))
        }
        (Value::Object(expected), Some(found)) => match (expected.get(SET), found) {
            (Some(Value::Array(expected)), Value::Array(found)) => {
                expected.len() == found.len() && matches_in_any_order(expected, &found.iter().collect::<Vec<_>>())
            }
            (None, Value::Object(found)) => {
                for (key, expected) in expected {
                    compare(&format!("{path}.{key}"), expected, found.get(key), all);
                }
                return;
            }
            _ => false,
        },
        (expected, Some(found)) => expected == found,
    };
    if !equal {
        let mut text = format!("{path}: expected {expected}, found ");
        // Writing to a String cannot fail.
        let _ = match found {
            Some(found) => write!(text, "{found}"),
            None => write!(text, "no such key"),
        };
        all.push(text);
    }
}

/// Returns whether each expected element matches a different element found.
fn matches_in_any_order(expected: &[Value], found: &[&Value]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return found.is_empty() };
    (0..found.len()).any(|index| {
        let mut others = found.to_vec();
        let candidate = others.remove(index);
        differences(first, candidate).is_empty() && matches_in_any_order(rest, &others)
    })
}

/// Returns whether this is a UUID as Consul writes it, in lower case.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(index, c)| match index {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

    fn same(expected: Value, found: Value) -> bool {
        differences(&expected, &found).is_empty()
    }

    #[test]
    fn objects_with_the_given_keys_match() {
        assert!(same(json!({"a": 1}), json!({"a": 1, "b": 2})));
        assert!(same(json!({}), json!({"a": 1})));
        assert!(!same(json!({"a": 1}), json!({"a": 2})));
        assert!(!same(json!({"a": 1}), json!({})));
        assert!(!same(json!({"a": null}), json!({})));
        assert!(!same(json!({}), json!([])));
        assert!(!same(json!({}), json!(null)));
        assert!(!same(json!({"a": {"b": [{"c": 1}]}}), json!({"a": {"b": [{"c": 2}]}})));
    }

    #[test]
    fn one_of_matches_any_of_its_values() {
        assert!(same(json!({"${one_of}": ["a", "b"]}), json!("b")));
        assert!(same(json!({"x": {"${one_of}": [{"a": 1}, 2]}}), json!({"x": {"a": 1, "b": 2}})));
        assert!(!same(json!({"${one_of}": ["a", "b"]}), json!("c")));
        assert!(!same(json!({"x": {"${one_of}": ["a"]}}), json!({})));
        assert!(!same(json!({"${one_of}": []}), json!({})));
    }

    #[test]
    fn arrays_with_the_same_elements_in_order_match() {
        assert!(same(json!([1, {"a": 1}]), json!([1, {"a": 1, "b": 2}])));
        assert!(!same(json!([1, 2]), json!([2, 1])));
        assert!(!same(json!([1]), json!([1, 2])));
        assert!(!same(json!([1, 2]), json!([1])));
        assert!(!same(json!([]), json!({})));
        assert!(!same(json!([]), json!(null)));
    }

    #[test]
    fn scalars_match_by_value_and_type() {
        assert!(same(json!(15), json!(15.0)));
        assert!(same(json!(null), json!(null)));
        assert!(!same(json!(15), json!(15.5)));
        assert!(!same(json!(15), json!("15")));
        assert!(!same(json!("15"), json!(15)));
        assert!(!same(json!(false), json!(0)));
        assert!(!same(json!(false), json!(true)));
        assert!(!same(json!("a"), json!("b")));
        assert!(!same(json!(i64::MIN + 1), json!(i64::MIN)));
    }

    #[test]
    fn patterns_match_their_values() {
        assert!(same(json!({"a": "${any}"}), json!({"a": null})));
        assert!(!same(json!({"a": "${any}"}), json!({})));
        assert!(same(json!({"a": "${absent}"}), json!({})));
        assert!(!same(json!({"a": "${absent}"}), json!({"a": null})));
        assert!(same(json!("${uuid}"), json!(ID)));
        for other in [json!(ID.to_uppercase()), json!(""), json!(ID.replace('-', "")), json!(format!("{ID}0")), json!(1)] {
            assert!(!same(json!("${uuid}"), other.clone()), "{other}");
        }
    }

    #[test]
    fn sets_match_in_any_order() {
        let set = |elements: Value| json!({"${set}": elements});
        assert!(same(set(json!([1, 2, 3])), json!([3, 1, 2])));
        assert!(same(set(json!([])), json!([])));
        assert!(!same(set(json!([1, 2])), json!([1, 2, 3])));
        assert!(!same(set(json!([1, 2, 3])), json!([1, 2])));
        assert!(!same(set(json!([1, 1])), json!([1, 2])));
        assert!(!same(set(json!([1])), json!({"1": 1})));
        assert!(!same(set(json!([1])), json!(1)));
        // The first pattern matches both elements, the second only one.
        assert!(same(set(json!(["${any}", "a"])), json!(["a", "b"])));
        assert!(same(set(json!([{"a": 1}, {"a": 2}])), json!([{"a": 2, "b": 0}, {"a": 1}])));
    }

    #[test]
    fn differences_contain_the_path() {
        assert_eq!(
            differences(&json!({"a": [{"b": 1, "c": true}]}), &json!({"a": [{"b": 2}]})),
            ["$.a[0].b: expected 1, found 2", "$.a[0].c: expected true, found no such key"]
        );
    }

    #[test]
    fn invalid_cases_are_rejected() {
        let rejected = |steps: Value| {
            let text = json!([{"name": "x", "steps": steps}]).to_string();
            parse("t", &text).map(|_| ()).expect_err("this case is invalid")
        };
        rejected(json!([]));
        rejected(json!([{"get": "/", "expect": {}}]));
        rejected(json!([{"apply": {}}]));
        rejected(json!([{"apply": {}, "expect": {"msg": "text"}}]));
        rejected(json!([{"apply": {}, "get": "/", "expect": {}}]));
        rejected(json!([{"apply": {}, "expect": {}, "expects": {}}]));
        rejected(json!([{"apply": {"id": "${old}"}, "expect": {}}]));
        rejected(json!([{"apply": {}, "expect": {"session_id": "${old}"}}]));
        rejected(json!([{"apply": {}, "expect": {}, "as": "port"}]));
        rejected(json!([{"apply": {}, "expect": {}, "as": "any"}]));
        parse("t", r#"[{"name": "x", "steps": [], "more": 1}]"#).expect_err("an unknown key");
        parse("t", r#"[{"name": "x", "steps": [], "agent": "any"}]"#).expect_err("an unknown agent");
    }

    #[test]
    fn options_without_an_address_get_host_and_port() {
        let names = BTreeMap::from([("host".to_owned(), "h".to_owned()), ("port".to_owned(), "1".to_owned())]);
        let text = |options: Value| options_text(options, &names);
        assert_eq!(text(json!({"a": 1})), r#"{"a":1,"host":"h","port":1}"#);
        assert_eq!(text(json!({"port": 2})), r#"{"port":2}"#);
        assert_eq!(text(json!("{")), "{");
        assert_eq!(text(json!([1])), "[1]");
    }

    #[test]
    fn answers_are_checked_always() {
        check_always(&json!({}), &json!({"changed": true})).unwrap();
        check_always(&json!({}), &json!({"changed": false, "failed": true, "error": "timeout", "msg": "x"})).unwrap();
        let invalid = |options: Value, answer: Value| check_always(&options, &answer).expect_err("invalid");
        invalid(json!({}), json!([]));
        invalid(json!({}), json!({"changed": true, "failed": true, "error": "timeout", "msg": "x"}));
        invalid(json!({}), json!({"changed": false, "failed": true, "error": "timeout", "msg": ""}));
        invalid(json!({}), json!({"changed": false, "failed": true, "msg": "x"}));
        invalid(json!({"token": "long-enough"}), json!({"notes": ["my long-enough token"]}));
    }

    /// The committed cases can be read, and cover every option and state.
    #[test]
    fn committed_cases_are_valid() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/cases"));
        let cases = load(directory).unwrap();
        assert!(cases.len() >= 130, "only {} cases", cases.len());
        let applied = || {
            cases.iter().flat_map(|case| &case.steps).filter_map(|step| match &step.action {
                Action::Apply(Value::Object(options)) => Some((options, step.expect.as_ref())),
                _ => None,
            })
        };
        let error = |expect: Option<&Value>, key: &str| expect.and_then(|e| e.get(key)).cloned().unwrap_or_default();
        for option in [
            "state",
            "id",
            "name",
            "node",
            "datacenter",
            "checks",
            "node_checks",
            "service_checks",
            "behavior",
            "delay",
            "ttl",
            "token",
            "host",
            "port",
            "scheme",
            "validate_certs",
            "timeout",
            "namespace",
            "partition",
            "on_mismatch",
            "dry_run",
        ] {
            let refused = applied().filter(|(_, expect)| error(*expect, "option") == option).count();
            assert!(refused > 0, "no case refuses a value of {option}");
            let accepted = applied().filter(|(o, e)| o.contains_key(option) && error(*e, "option") != option).count();
            assert!(accepted > 0, "no case accepts a value of {option}");
        }
        for state in ["present", "absent", "info", "node", "list"] {
            assert!(applied().any(|(options, _)| options.get("state").is_some_and(|s| s == state)), "state {state}");
        }
    }
}
