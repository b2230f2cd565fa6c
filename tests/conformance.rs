//! The conformance cases through the plugin embedded in wasmtime, against a real Consul and against the dev agent.
//!
//! One case runs at a time: each begins by making its agent forget everything.

use anyhow::{Context, Result, anyhow};
use consul_session_host::{DevAgent, Error, Host, error_case, error_message};
use consul_session_tests::agent::Api;
use consul_session_tests::case::{self, Case};
use consul_session_tests::consul::{Consul, Kind};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;

/// No call may take longer, whatever its own timeout says.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/cases");
    let cases = match case::load(Path::new(directory)) {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("the conformance cases cannot be read: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let no_consul = Consul::is_missing();
    let agents = Arc::new(Agents::default());
    let mut trials = Vec::new();
    for case in cases {
        let case = Arc::new(case);
        trials.push(trial(Where::Consul, &case, &agents).with_ignored_flag(no_consul));
        if case.agent == case::Agent::Plain {
            trials.push(trial(Where::DevAgent, &case, &agents));
        }
    }
    // The trials are gone when this is back, and with this the agents, which stop when they are dropped.
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(agents);
    conclusion.exit_code()
}

#[derive(Clone, Copy)]
enum Where {
    Consul,
    DevAgent,
}

/// The agents, each started by the first case that needs it.
#[derive(Default)]
struct Agents {
    plain: OnceLock<Result<Consul>>,
    acl: OnceLock<Result<Consul>>,
    dev: OnceLock<Result<DevAgent>>,
}

impl Agents {
    fn consul(&self, agent: case::Agent) -> Result<&Consul> {
        let (cell, kind) = match agent {
            case::Agent::Plain => (&self.plain, Kind::Plain),
            case::Agent::Acl => (&self.acl, Kind::Acl),
        };
        started(cell.get_or_init(|| Consul::start(kind)))
    }
}

/// The error stays with the agent that could not be started; every case that needs it tells it again.
fn started<T>(agent: &Result<T>) -> Result<&T> {
    agent.as_ref().map_err(|error| anyhow!("{error:#}"))
}

fn trial(place: Where, case: &Arc<Case>, agents: &Arc<Agents>) -> Trial {
    let (case, agents) = (Arc::clone(case), Arc::clone(agents));
    let prefix = match place {
        Where::Consul => "consul",
        Where::DevAgent => "dev",
    };
    let name = format!("{prefix}::{}::{}", case.topic, case.name);
    Trial::test(name, move || {
        match place {
            Where::Consul => on_consul(&case, &agents),
            Where::DevAgent => on_dev_agent(&case, &agents),
        }
        .map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn on_consul(case: &Case, agents: &Agents) -> Result<()> {
    let consul = agents.consul(case.agent)?;
    let begin = consul.log_length();
    case::run(case, &consul.api(), apply).with_context(|| {
        // What the agent was asked says more than anything else about what went wrong.
        let log = consul.log_since(begin);
        let requests: Vec<&str> = log.lines().filter(|line| line.contains("agent.http: Request")).collect();
        format!("the agent's log of the case:\n{}\n", requests.join("\n"))
    })
}

fn on_dev_agent(case: &Case, agents: &Agents) -> Result<()> {
    let start = || {
        let agent = RUNTIME.block_on(DevAgent::start((Ipv4Addr::LOCALHOST, 0).into()))?;
        Api::new(agent.addr(), Kind::Plain).register_checks()?;
        Ok(agent)
    };
    let agent = started(agents.dev.get_or_init(start))?;
    case::run(case, &Api::new(agent.addr(), Kind::Plain), apply)
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a tokio runtime"));

/// Calls `apply-json` as a program does that embeds the plugin.
fn apply(options: &str) -> Result<Value> {
    static HOST: LazyLock<Result<Host>> =
        LazyLock::new(|| Host::new(&consul_session_tests::plugin()?).map_err(|error| anyhow!("{error:?}")));
    let host = started(&HOST)?;
    let answer = RUNTIME.block_on(async { tokio::time::timeout(LIMIT, host.apply_json(options)).await });
    match answer.with_context(|| format!("no answer in {LIMIT:?}"))?.map_err(|trap| anyhow!("trap: {trap:?}"))? {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("the answer is no JSON: {text}")),
        Err(error) => Ok(printed(&error)),
    }
}

/// The object that the command line prints for an error.
fn printed(error: &Error) -> Value {
    let mut object = json!({"changed": false, "failed": true, "error": error_case(error), "msg": error_message(error)});
    match error {
        Error::InvalidOption(invalid) => object["option"] = json!(invalid.option),
        Error::Mismatch(mismatch) => {
            object["session_id"] = json!(mismatch.session_id);
            let differences = mismatch.differences.iter();
            object["differences"] = differences
                .map(|difference| json!({"option": difference.option, "found": difference.found, "wanted": difference.wanted}))
                .collect();
        }
        Error::NodeRequired(required) => object["nodes"] = json!(required.nodes),
        Error::AccessDenied(refusal) | Error::Unavailable(refusal) | Error::Refused(refusal) => {
            object["status"] = json!(refusal.status);
        }
        _ => {}
    }
    object
}
