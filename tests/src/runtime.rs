//! The runtimes of the conformance cases, each with its own way to call `apply-json`.

use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_host::{CallError, Difference, Error};
use serde_json::{Map, Value, json};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;
use test_support::tools::{self, Transpiled, transpiled};
use test_support::wash::{Plugin, Wash};
use test_support::{block_on, component, plugin, started, wasip2};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;
use wasm_wave::value::Type;
use wasm_wave::wasm::{WasmTypeKind, WasmValue};

#[path = "../conformance/runners/wasmtime-rust/runner.rs"]
mod wasmtime_rust;

/// The longest that a call may take, whatever its own timeout.
const LIMIT: Duration = Duration::from_secs(30);

/// A runtime as its users install it.
pub struct Runtime {
    /// The name, as in the names of its tests and in docs/runtimes.md.
    pub name: &'static str,
    /// A remark for the readers of the table.
    pub note: &'static str,
    /// The runner, below `tests/conformance/runners/`, if the runtime needs code.
    pub host_code: Option<&'static str>,
    /// The only topic that it runs, if it does not run all.
    pub only: Option<&'static str>,
    /// Checks that the runtime is installed.
    needs: fn() -> Result<()>,
    start: fn() -> Result<Running>,
}

/// All runtimes, in the order of the table.
pub const ALL: &[Runtime] = &[
    Runtime {
        name: "wasmtime (embedded)",
        note: "in Rust, by the library `consul-session-host`",
        host_code: Some("wasmtime-rust/runner.rs"),
        only: None,
        needs: || Ok(()),
        start: wasmtime_embedded,
    },
    Runtime {
        name: "wasmtime run --invoke",
        note: "",
        host_code: None,
        only: None,
        needs: || tools::wasmtime().map(drop),
        start: || wasmtime_invoke(tools::wasmtime()?),
    },
    Runtime {
        name: "wasmtime run --invoke, oldest",
        note: "the oldest release that has a wheel",
        host_code: None,
        only: None,
        needs: || tools::wasmtime_release("wasmtime-oldest").map(drop),
        start: || wasmtime_invoke(tools::wasmtime_release("wasmtime-oldest")?),
    },
    Runtime {
        name: "wasmtime run --invoke, newest",
        note: "the newest release that has a wheel",
        host_code: None,
        only: None,
        needs: || tools::wasmtime_release("wasmtime-newest").map(drop),
        start: || wasmtime_invoke(tools::wasmtime_release("wasmtime-newest")?),
    },
    Runtime {
        name: "wasmtime run --invoke, wasm32-wasip2",
        note: "as plain `cargo build --release --target wasm32-wasip2` makes it; compiled once",
        host_code: None,
        only: None,
        needs: || tools::wasmtime().and(wasip2()).map(drop),
        start: wasmtime_wasip2,
    },
    Runtime {
        name: "consul-session.wasm under wasmtime",
        note: "",
        host_code: None,
        only: None,
        needs: || tools::wasmtime().map(drop),
        start: wasmtime_command,
    },
    Runtime {
        name: "wasmtime-py",
        note: "",
        host_code: Some("wasmtime-py/runner.py"),
        only: None,
        needs: || tools::python().map(drop),
        start: || lines(tools::command(tools::python()?).arg(runner("wasmtime-py/runner.py")).arg(plugin()?)),
    },
    Runtime {
        name: "wasmtime's C library (Go)",
        note: "by the package in `examples/go`, whose lines these are",
        host_code: Some("../../../examples/go/plugin/plugin.go"),
        only: None,
        needs: || tools::go_runner().map(drop),
        start: || lines(tools::command(tools::go_runner()?).arg(plugin()?)),
    },
    Runtime {
        name: "jco (Node)",
        note: "",
        host_code: Some("jco-node/runner.mjs"),
        only: None,
        needs: || tools::node_modules().map(drop),
        start: || lines(tools::command("node").arg(runner("jco-node/runner.mjs")).arg(transpiled(Transpiled::Node)?)),
    },
    Runtime {
        name: "consul-session.wasm under jco",
        note: "transpiled once",
        host_code: Some("jco-node/command.mjs"),
        only: None,
        needs: || tools::node_modules().map(drop),
        start: jco_command,
    },
    Runtime {
        name: "jco (Chromium)",
        note: "Consul must allow the page (CORS)",
        host_code: Some("browser/page.html"),
        only: None,
        needs: || tools::node_modules().and(tools::chromium()).map(drop),
        start: || lines(tools::command("node").arg(runner("browser/runner.mjs")).arg(transpiled(Transpiled::Browser)?)),
    },
    Runtime {
        name: "wasmCloud (wash)",
        note: "linked by `wash dev` to a component that serves HTTP, whose lines these are",
        host_code: Some("../../../examples/wasmcloud/src/lib.rs"),
        only: None,
        needs: || tools::wash().and(wasip2()).map(drop),
        start: wash,
    },
    Runtime {
        name: "jco run",
        note: "transpiles in each call, which takes seconds: the examples only",
        host_code: None,
        only: Some("examples"),
        needs: || tools::node_modules().map(drop),
        start: jco_run,
    },
];

impl Runtime {
    /// Checks that the runtime is installed.
    ///
    /// # Errors
    ///
    /// The tool that is not installed.
    pub fn installed(&self) -> Result<()> {
        (self.needs)()
    }

    /// Starts the runtime. Expensive steps such as compiling run once, as far as the runtime allows
    /// it.
    pub fn start(&self) -> Result<Running> {
        (self.start)().with_context(|| format!("{} does not start", self.name))
    }
}

type Apply = dyn FnMut(&str) -> Result<Value> + Send;

/// A runtime that is ready for calls.
pub struct Running {
    /// Its version, and those of the packages that it needs.
    pub version: String,
    apply: Box<Apply>,
}

impl Running {
    /// Calls `apply-json` and returns the object that the command line would print.
    ///
    /// # Errors
    ///
    /// The runtime trapped, hung or broke, and must be restarted.
    pub fn apply(&mut self, options: &str) -> Result<Value> {
        (self.apply)(options)
    }
}

fn wasmtime_embedded() -> Result<Running> {
    // One runner for all threads, as in a program.
    static RUNNER: LazyLock<Result<wasmtime_rust::Runner>> =
        LazyLock::new(|| wasmtime_rust::Runner::new(crate::embedded::load()?));
    let runner = started(&RUNNER)?;
    let version = locked_version("wasmtime")?;
    Ok(Running {
        version,
        apply: Box::new(move |options| match runner.apply_json(options) {
            Ok(text) => printed(json!({"ok": text})),
            Err(CallError::Plugin(error)) => printed(json!({"err": {"tag": error.name(), "val": payload(&error)}})),
            Err(error) => Err(anyhow!("{error:?}")),
        }),
    })
}

/// Returns the payload of a plugin's error, spelt as in WIT.
fn payload(error: &Error) -> Value {
    match error {
        Error::InvalidOption(invalid) => json!({"option": invalid.option, "message": invalid.message}),
        Error::Mismatch(mismatch) => {
            let difference = |one: &Difference| json!({"option": one.option, "found": one.found, "wanted": one.wanted});
            let differences: Vec<Value> = mismatch.differences.iter().map(difference).collect();
            json!({"session-id": mismatch.session_id, "differences": differences, "message": mismatch.message})
        }
        Error::NodeRequired(required) => json!({"nodes": required.nodes, "message": required.message}),
        Error::AccessDenied(refusal) | Error::Unavailable(refusal) | Error::Refused(refusal) => {
            json!({"status": refusal.status, "message": refusal.message})
        }
        error => json!(error.message()),
    }
}

/// Returns the version of a crate in Cargo.lock.
fn locked_version(name: &str) -> Result<String> {
    let lock = include_str!("../../Cargo.lock");
    let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).context("not in Cargo.lock")?;
    Ok(package.split('"').next().unwrap_or_default().to_owned())
}

/// Runs the plugin by a command line of wasmtime: values are in WAVE, and each call is a process.
/// The first one compiles the plugin, and wasmtime's cache has it for the others.
fn wasmtime_invoke(wasmtime: PathBuf) -> Result<Running> {
    let plugin = plugin()?;
    let answer = result_of_apply_json(&plugin)?;
    invoke(wasmtime, answer, move |wasmtime| {
        wasmtime.arg(&plugin);
    })
}

/// Runs the component of the target wasm32-wasip2. It is larger, so it is compiled once and not by
/// each call.
fn wasmtime_wasip2() -> Result<Running> {
    let component = wasip2()?;
    let answer = result_of_apply_json(&component)?;
    let folder = tempfile::tempdir()?;
    let compiled = folder.path().join("plugin.cwasm");
    let compile = tools::command(tools::wasmtime()?).arg("compile").arg(&component).arg("-o").arg(&compiled).output()?;
    ensure!(compile.status.success(), "wasmtime compile: {}", String::from_utf8_lossy(&compile.stderr));
    invoke(tools::wasmtime()?, answer, move |wasmtime| {
        wasmtime.arg("--allow-precompiled").arg(folder.path().join("plugin.cwasm"));
    })
}

/// Calls `apply-json`, whose result has this type, by `wasmtime run --invoke`. `run` adds the
/// component to the command.
fn invoke(wasmtime: PathBuf, answer: Type, run: impl Fn(&mut Command) + Send + 'static) -> Result<Running> {
    Ok(Running {
        version: wasmtime_version(&wasmtime)?,
        apply: Box::new(move |options| {
            let options = wasm_wave::to_string(&wasm_wave::value::Value::make_string(options.into()))?;
            let call = format!("apply-json({options})");
            let mut command = tools::command(&wasmtime);
            command.args(["run", "-S", "http", "--invoke", &call]);
            run(&mut command);
            let (success, text) = output(&mut command, "")?;
            ensure!(success, "wasmtime failed: {text}");
            let value: wasm_wave::value::Value = wasm_wave::from_str(&answer, text.trim()).with_context(|| text.clone())?;
            printed(wave_to_json(&value)?)
        }),
    })
}

/// Reads the result type of `apply-json` from the component.
fn result_of_apply_json(plugin: &Path) -> Result<Type> {
    let decoded = wit_component::decode(&std::fs::read(plugin)?)?;
    let resolve = decoded.resolve();
    let function = resolve.interfaces.iter().find_map(|(_, interface)| interface.functions.get("apply-json"));
    let ty = wasm_wave::value::resolve_wit_func_type(resolve, function.context("no apply-json")?)?;
    use wasm_wave::wasm::WasmFunc;
    ty.results().next().context("apply-json has no result")
}

fn wave_to_json(value: &wasm_wave::value::Value) -> Result<Value> {
    Ok(match value.kind() {
        WasmTypeKind::Result => match value.unwrap_result() {
            Ok(value) => json!({"ok": value.map(|value| wave_to_json(&value)).transpose()?}),
            Err(value) => json!({"err": value.map(|value| wave_to_json(&value)).transpose()?}),
        },
        WasmTypeKind::Variant => {
            let (case, value) = value.unwrap_variant();
            json!({"tag": case, "val": value.map(|value| wave_to_json(&value)).transpose()?})
        }
        WasmTypeKind::Record => {
            let fields = value.unwrap_record().map(|(name, value)| Ok((name.into_owned(), wave_to_json(&value)?)));
            Value::Object(fields.collect::<Result<_>>()?)
        }
        WasmTypeKind::List => value.unwrap_list().map(|element| wave_to_json(&element)).collect::<Result<_>>()?,
        WasmTypeKind::String => Value::String(value.unwrap_string().into_owned()),
        WasmTypeKind::U16 => json!(value.unwrap_u16()),
        kind => bail!("unexpected {kind} in the result of apply-json"),
    })
}

fn wasmtime_version(wasmtime: &Path) -> Result<String> {
    let (_, text) = output(tools::command(wasmtime).arg("--version"), "")?;
    Ok(text.split_whitespace().nth(1).with_context(|| text.clone())?.to_owned())
}

fn wasmtime_command() -> Result<Running> {
    let (wasmtime, component) = (tools::wasmtime()?, component()?);
    Ok(Running {
        version: wasmtime_version(&wasmtime)?,
        apply: Box::new(move |options| {
            command_answer(tools::command(&wasmtime).args(["run", "-S", "http"]).arg(&component), options)
        }),
    })
}

fn jco_command() -> Result<Running> {
    let folder = transpiled(Transpiled::Node)?;
    Ok(Running {
        version: jco_version()?,
        apply: Box::new(move |options| {
            command_answer(tools::command("node").arg(runner("jco-node/command.mjs")).arg(&folder), options)
        }),
    })
}

fn jco_run() -> Result<Running> {
    let (jco, component) = (tools::node_modules()?.join(".bin/jco"), component()?);
    Ok(Running {
        version: jco_version()?,
        apply: Box::new(move |options| command_answer(tools::command(&jco).arg("run").arg(&component), options)),
    })
}

/// Runs the plugin in wasmCloud's host, which may connect anywhere. Each call is a request.
fn wash() -> Result<Running> {
    let wash = Wash::start(&Plugin::File, &["*"])?;
    Ok(Running {
        version: Wash::version()?,
        apply: Box::new(move |options| match wash.apply(options)? {
            (200, outcome) => printed(json!({"ok": outcome})),
            (422, error) => printed(json!({"err": serde_json::from_str::<Value>(&error)?})),
            (status, text) => bail!("status {status}: {text}\n{}", wash.log()?),
        }),
    })
}

fn jco_version() -> Result<String> {
    let version = |name: &str| -> Result<String> {
        let package = tools::node_modules()?.join("@bytecodealliance").join(name).join("package.json");
        let package: Value = serde_json::from_str(&std::fs::read_to_string(package)?)?;
        Ok(package["version"].as_str().context("a package without a version")?.to_owned())
    };
    Ok(format!("jco {}, preview2-shim {}", version("jco")?, version("preview2-shim")?))
}

fn runner(path: &str) -> PathBuf {
    tools::root().join("tests/conformance/runners").join(path)
}

/// Returns the output of the command component, which must match its exit status.
fn command_answer(command: &mut Command, options: &str) -> Result<Value> {
    command.args(["-", "--output", "json"]);
    // A session without a name needs a word here, and is the default of the options.
    let given = serde_json::from_str::<Value>(options).unwrap_or_default();
    if given.is_object() && ["state", "name", "id"].iter().all(|option| given[option].is_null()) {
        command.arg("state=present");
    }
    let (success, text) = output(command, options)?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    ensure!(success != (answer["failed"] == true), "the exit status says success = {success}: {answer:#}");
    Ok(answer)
}

/// Runs a command with this standard input, and returns whether it succeeded and its output.
fn output(command: &mut Command, input: &str) -> Result<(bool, String)> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    command.stdin(file);
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    command.kill_on_drop(true);
    let output = block_on(async { timeout(LIMIT, command.output()).await })
        .with_context(|| format!("the command did not end in {LIMIT:?}"))??;
    let text = String::from_utf8(output.stdout)?;
    ensure!(!text.is_empty(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

/// A runner that speaks the protocol of `tests/conformance/runners/README.md`.
struct LineRunner {
    /// `None` after the last call.
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    process: Child,
}

/// Lets the runner end by itself, so that it can close its browser. A runner that does not is
/// killed.
impl Drop for LineRunner {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = block_on(async { timeout(Duration::from_secs(5), self.process.wait()).await });
    }
}

fn lines(command: &mut Command) -> Result<Running> {
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut runner = block_on(async {
        let mut process = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().context("no standard output")?).lines();
        anyhow::Ok(LineRunner { stdin, stdout, process })
    })?;
    let first = block_on(runner.read())?;
    let version = first["version"].as_str().with_context(|| format!("a first line without a version: {first}"))?.to_owned();
    Ok(Running { version, apply: Box::new(move |options| printed(block_on(runner.call(options))?)) })
}

impl LineRunner {
    async fn call(&mut self, options: &str) -> Result<Value> {
        let line = format!("{}\n", json!(options));
        let stdin = self.stdin.as_mut().context("no standard input")?;
        stdin.write_all(line.as_bytes()).await.context("the runner has ended")?;
        self.read().await
    }

    async fn read(&mut self) -> Result<Value> {
        let line = timeout(LIMIT, self.stdout.next_line()).await.with_context(|| format!("no answer in {LIMIT:?}"))??;
        let line = line.context("the runner has ended: a trap, or the error that it printed above")?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

/// Returns the object that the command line would print, from `{"ok": text}` or `{"err": {"tag":
/// case, "val": payload}}`.
fn printed(answer: Value) -> Result<Value> {
    if let Some(text) = answer["ok"].as_str() {
        return serde_json::from_str(text).with_context(|| format!("the answer is not JSON: {text}"));
    }
    let error = &answer["err"];
    let case = error["tag"].as_str().with_context(|| format!("neither an answer nor an error: {answer}"))?;
    let mut object =
        Map::from_iter([("changed".into(), json!(false)), ("failed".into(), json!(true)), ("error".into(), json!(case))]);
    match &error["val"] {
        Value::String(message) => {
            object.insert("msg".into(), json!(message));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if name == "message" { "msg".into() } else { snake_case(name) };
                object.insert(name, value.clone());
            }
        }
        other => bail!("the payload of an error must be a string or a record, found {other}"),
    }
    Ok(Value::Object(object))
}

/// Converts WIT's `session-id` and JavaScript's `sessionId` to `session_id`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        match c {
            '-' => snake.push('_'),
            c if c.is_ascii_uppercase() => snake.extend(['_', c.to_ascii_lowercase()]),
            c => snake.push(c),
        }
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runner_that_ends_is_an_error() {
        let script = "echo '{\"version\": \"1\"}'; read line; echo '{\"ok\": \"{}\"}'; read line; exit 1";
        let mut running = lines(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(running.version, "1");
        assert_eq!(running.apply("{}").unwrap(), json!({}));
        assert!(running.apply("{}").unwrap_err().to_string().contains("has ended"));
        assert!(running.apply("{}").is_err());
    }

    #[test]
    fn commands_with_an_inconsistent_exit_status_are_errors() {
        let answer = |script: &str| command_answer(Command::new("sh").args(["-c", script]), "text");
        assert_eq!(answer("cat >/dev/null; echo '{}'").unwrap(), json!({}));
        assert!(answer("echo '{\"failed\": true}'; exit 1").is_ok());
        for broken in ["echo '{}'; exit 1", "echo '{\"failed\": true}'", "exit 1", "echo text", "true"] {
            assert!(answer(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn names_of_every_spelling_become_snake_case() {
        for name in ["session-id", "sessionId", "session_id"] {
            assert_eq!(snake_case(name), "session_id");
        }
    }

    #[test]
    fn answers_of_runners_become_printed_objects() {
        assert_eq!(printed(json!({"ok": "{\"changed\": true}"})).unwrap(), json!({"changed": true}));
        assert_eq!(
            printed(json!({"err": {"tag": "hidden", "val": "text"}})).unwrap(),
            json!({"changed": false, "failed": true, "error": "hidden", "msg": "text"})
        );
        assert_eq!(
            printed(json!({"err": {"tag": "mismatch", "val": {"sessionId": "x", "differences": [], "message": "text"}}}))
                .unwrap(),
            json!({"changed": false, "failed": true, "error": "mismatch", "msg": "text", "session_id": "x", "differences": []})
        );
        for broken in [json!({}), json!({"ok": "{"}), json!({"err": {"tag": "x"}}), json!("text")] {
            assert!(printed(broken.clone()).is_err(), "{broken}");
        }
    }
}
