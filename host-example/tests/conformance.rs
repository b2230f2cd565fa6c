//! The conformance cases of `tests/conformance/`, in this host, against a real Consul.

#[path = "../src/main.rs"]
#[allow(dead_code, reason = "the cases need the host, not the command line")]
mod host;

use anyhow::{Context, Result, anyhow};
use host::exports::consul_session::plugin::sessions::{Difference, Error};
use host::{AllowList, PluginPre, State, TIMEOUT};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use test_support::case::{self, Agents, Case};
use test_support::consul::Consul;
use test_support::{block_on, plugin, tools};

/// As many as in the conformance run of the other runtimes.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("the conformance cases cannot be run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>> {
    let path = plugin()?.display().to_string();
    let plugin = Arc::new(host::load(&path).map_err(|error| anyhow!("{error:?}"))?);
    let no_consul = Consul::is_missing();
    let idle = Arc::new(Mutex::new(Vec::new()));
    let cases = case::load(&tools::root().join("tests/conformance/cases"))?;
    let trials = cases.into_iter().map(|case| {
        let (plugin, idle) = (Arc::clone(&plugin), Arc::clone(&idle));
        let name = format!("{}::{}", case.topic, case.name);
        let test = move || run(&plugin, &idle, &case).map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(name, test).with_ignored_flag(no_consul)
    });
    Ok(trials.collect())
}

fn run(plugin: &PluginPre<State>, idle: &Mutex<Vec<Agents>>, case: &Case) -> Result<()> {
    let idle = || idle.lock().unwrap_or_else(PoisonError::into_inner);
    let mut agents = idle().pop().unwrap_or_default();
    let api = agents.get(case.agent)?.api();
    let result = case::run(case, &api, |options| block_on(apply_json(plugin, options)));
    idle().push(agents);
    result
}

/// Calls `apply-json` in a fresh instance. Returns the object that the command line would print.
async fn apply_json(plugin: &PluginPre<State>, options: &str) -> Result<Value> {
    let call = async {
        let (instance, mut store) = host::instantiate(plugin, AllowList(vec![authority(options)])).await?;
        instance.consul_session_plugin_desired_state().call_apply_json(&mut store, options).await
    };
    let answer = tokio::time::timeout(TIMEOUT, call).await.context("no answer in time")?;
    match answer.map_err(|error| anyhow!("{error:?}"))? {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) => Ok(failure(&error)),
    }
}

/// Returns the authority that the options name: the only one that the plugin may connect to.
fn authority(options: &str) -> String {
    let options: Value = serde_json::from_str(options).unwrap_or_default();
    let host = options["host"].as_str().unwrap_or("localhost");
    let port = match &options["port"] {
        Value::String(port) => port.clone(),
        Value::Number(port) => port.to_string(),
        _ => "8500".to_owned(),
    };
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Returns the object that the command line prints for an error.
fn failure(error: &Error) -> Value {
    let (case, message) = host::describe(error);
    let mut object = json!({"changed": false, "failed": true, "error": case, "msg": message});
    match error {
        Error::InvalidOption(invalid) => object["option"] = json!(invalid.option),
        Error::Mismatch(mismatch) => {
            let difference = |one: &Difference| json!({"option": one.option, "found": one.found, "wanted": one.wanted});
            object["session_id"] = json!(mismatch.session_id);
            object["differences"] = mismatch.differences.iter().map(difference).collect();
        }
        Error::NodeRequired(required) => object["nodes"] = json!(required.nodes),
        Error::AccessDenied(refusal) | Error::Unavailable(refusal) | Error::Refused(refusal) => {
            object["status"] = json!(refusal.status);
        }
        _ => {}
    }
    object
}
