//! Components that exceed their limits: each is stopped with an error that says why, while calls of
//! other components on the same threads continue.
//!
//! Each fixture is a core module `*.wat` in this folder, which this file makes into a component of
//! the plugin's world. It attacks in `apply-json`, or when it is instantiated.

use crate::exclusive;
use crate::plugin::{connection, load};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use consul_session_host::{Builder, CallError, Host, Rule};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use test_support::peak_memory;
use test_support::scripted::{Reply, Scripted};
use test_support::tools::root;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WasmExport, WasmExportKind, WorldItem};

/// The deadline of a test. The longest limit that a test waits for is five seconds; the rest is for
/// a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many ordinary calls run beside each attack.
const ORDINARY: usize = 100;

/// How many attacks run at once: more than there are threads, so that attacks that do not yield
/// would block every thread.
const ATTACKS: usize = 4;

/// Runs a test alone, with a deadline. If it does not end, its thread is left behind. A timer of
/// the test's runtime would not do: a component could block all threads of the runtime.
fn with_deadline(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let _exclusive = exclusive();
    let (sender, result) = mpsc::channel();
    std::thread::spawn(move || sender.send(test()));
    result.recv_timeout(DEADLINE).context("the component was not stopped in time")?
}

/// An attack that needs nothing but its fixture.
struct Attack {
    fixture: &'static str,
    argument: &'static str,
    limits: &'static [(&'static str, &'static str)],
    /// The beginning of the error's `Debug` output.
    case: &'static str,
    /// The error's message, up to the remedy.
    message: &'static str,
}

/// Defines a test for each attack: `name: "FIXTURE"(ARGUMENT) LIMIT="VALUE"… => "CASE", "MESSAGE"`.
macro_rules! attacks {
    ($($name:ident: $fixture:literal($argument:expr) $($limit:ident=$value:literal)* => $case:literal, $message:literal;)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                let attack = Attack {
                    fixture: include_str!(concat!($fixture, ".wat")),
                    argument: $argument,
                    limits: &[$((stringify!($limit), $value)),*],
                    case: $case,
                    message: $message,
                };
                with_deadline(move || attack.is_stopped())
            }
        )*
    };
}

attacks! {
    endless_loop_is_stopped: "loop"("x") compute="300ms" => "Stopped(Compute(",
        "the component was stopped: it wanted to compute for longer than the limit `compute` of 300ms allows";
    endless_loop_at_start_is_stopped: "start-loop"("") compute="300ms" => "Stopped(Compute(",
        "the component was stopped: it wanted to compute for longer than the limit `compute` of 300ms allows";
    endless_wait_is_stopped: "wait"("") time="300ms" => "Stopped(Time(",
        "the component was stopped: it wanted to take longer than the limit `time` of 300ms allows";
    endless_wait_at_start_is_stopped: "start-wait"("") time="300ms" => "Stopped(Time(",
        "the component was stopped: it wanted to take longer than the limit `time` of 300ms allows";
    growing_memory_is_stopped: "memory"("") memory="64MiB" => "Stopped(Memory(",
        "the component was stopped: it wanted more memory than the limit `memory` of 64.0 MiB allows";
    large_initial_memory_is_stopped: "start-memory"("") memory="64MiB" => "Stopped(Memory(",
        "the component was stopped: it wanted more memory than the limit `memory` of 64.0 MiB allows";
    many_memories_are_rejected: "memories"("") => "Trapped(",
        "the component failed: resource limit exceeded: memory count too high at 11";
    growing_table_is_stopped: "table"("") table="500" => "Stopped(Table(",
        "the component was stopped: it wanted a larger table than the limit `table` of 500 allows";
    many_timers_are_stopped: "timers"("") handles="100" => "Stopped(Handles(",
        "the component was stopped: it wanted more open at once than the limit `handles` of 100 allows";
    long_arguments_are_stopped: "method"("") handles="20" => "Trapped(",
        "the component failed: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been \
         exhausted";
    endless_headers_are_stopped: "headers"("") => "Trapped(",
        "the component failed: total size of fields exceeds limit";
    endless_recursion_is_stopped: "recursion"("") => "Trapped(",
        "the component failed: wasm trap: call stack exhausted";
    trap_is_reported: "trap"("") => "Trapped(",
        "the component failed: wasm trap: wasm `unreachable` instruction executed";
    result_out_of_bounds_is_rejected: "claim"("") => "Trapped(",
        "the component failed: string pointer/length out of bounds of memory";
    result_of_200_mib_is_rejected: "answer"(TWO_HUNDRED) memory="256MiB" response="32MiB" => "Trapped(",
        "the component failed: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been \
         exhausted";
}

const TWO_HUNDRED: &str = match std::str::from_utf8(&[b'x'; 200]) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

impl Attack {
    fn is_stopped(&self) -> Result<()> {
        let mut builder = Host::builder();
        for (name, value) in self.limits {
            builder = builder.limit(name, value)?;
        }
        let errors = beside_ordinary_calls(built(builder, self.fixture)?, self.argument)?;
        expect(errors, self.case, self.message)
    }
}

/// Checks that each error has this case and this message, up to the remedy.
fn expect(errors: Vec<CallError>, case: &str, message: &str) -> Result<()> {
    for error in errors {
        let shown = error.to_string();
        let cause = shown.split("; an operator").next();
        ensure!(format!("{error:?}").starts_with(case) && cause == Some(message), "{shown}\n{error:?}");
    }
    Ok(())
}

/// The plugin's world, with an import that the host does not link.
const WORLD: &str = "
    package test:hostile;
    world hostile {
        include consul-session:plugin/plugin@0.1.0;
        import wasi:cli/stdout@0.2.0;
    }
";

/// Makes a fixture into a component. Exports of the plugin that the fixture lacks are added, and
/// trap.
fn component(fixture: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_dir(root().join("wit"))?;
    let package = resolve.push_str("hostile.wit", WORLD)?;
    let world = resolve.select_world(&[package], None)?;

    let mut module = fixture.trim_end().strip_suffix(')').context("a fixture is a module")?.to_owned();
    let mut add = |export: &str, field: String| {
        if !fixture.contains(&format!("\"{export}\"")) {
            module.push_str(&field);
        }
    };
    add("memory", r#"(memory (export "memory") 2)"#.into());
    // Arguments are always copied to the second page, where they fit.
    let signature_and_body = "(param i32 i32 i32 i32) (result i32) (i32.const 65536)";
    add("cabi_realloc", format!(r#"(func (export "cabi_realloc") {signature_and_body})"#));
    for (key, item) in &resolve.worlds[world].exports {
        let WorldItem::Interface { id, .. } = item else { continue };
        for func in resolve.interfaces[*id].functions.values() {
            let export = WasmExport::Func { interface: Some(key), func, kind: WasmExportKind::Normal };
            let name = resolve.wasm_export_name(ManglingAndAbi::Legacy(LiftLowerAbi::Sync), export);
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, func);
            let (params, results) = (types(&signature.params), types(&signature.results));
            add(&name, format!("(func (export {name:?}) (param {params}) (result {results}) unreachable)"));
        }
    }
    module.push(')');

    let mut module = wat::parse_str(&module)?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.encode()
}

/// Returns the names of core types, separated by spaces.
fn types(types: &[WasmType]) -> String {
    let names = types.iter().map(|kind| match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    });
    names.collect::<Vec<_>>().join(" ")
}

/// Builds the host of a fixture.
pub fn built(builder: Builder, fixture: &str) -> Result<Host> {
    builder.build_from_bytes(&component(fixture)?).map_err(|error| anyhow!("{error:?}"))
}

/// Returns a runtime of two threads, for the attacks and the ordinary calls.
fn two_threads() -> Result<Runtime> {
    Ok(runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Runs attacks while ordinary calls run on the same threads, and returns the errors of the
/// attacks.
///
/// # Errors
///
/// Fails if an ordinary call fails, or an attack does not.
fn beside_ordinary_calls(hostile: Host, argument: &str) -> Result<Vec<CallError>> {
    let server = Scripted::replies([Reply::json("[]")])?;
    let to = connection(server.address());
    two_threads()?.block_on(async {
        let (mut attacks, mut ordinary) = (JoinSet::new(), JoinSet::new());
        for _ in 0..ATTACKS {
            let (hostile, argument) = (hostile.clone(), argument.to_owned());
            attacks.spawn(async move { hostile.apply_json(&argument).await });
        }
        let host = load()?;
        for _ in 0..ORDINARY {
            let (host, to) = (host.clone(), to.clone());
            ordinary.spawn(async move { host.list_sessions(None, Some(&to)).await });
        }
        for answer in ordinary.join_all().await {
            answer.context("an ordinary call beside the attack failed")?;
        }
        attacks.join_all().await.into_iter().map(|answer| answer.err().context("the component was not stopped")).collect()
    })
}

/// Starts a server that never answers. Returns it with the rule that allows it, and its authority.
fn silent_server() -> Result<(Scripted, Rule, String)> {
    let server = Scripted::replies([Reply::stall()])?;
    let authority = server.address().to_string();
    Ok((server, authority.parse()?, authority))
}

#[test]
fn kept_requests_are_stopped() -> Result<()> {
    with_deadline(|| {
        let (server, rule, authority) = silent_server()?;
        let builder = Host::builder().allow(rule).limit("handles", "100")?;
        let errors = beside_ordinary_calls(built(builder, include_str!("requests-kept.wat"))?, &authority)?;
        let sent = server.requests().len();
        ensure!(sent <= ATTACKS * 100, "{sent} requests were sent");
        expect(
            errors,
            "Stopped(Handles(",
            "the component was stopped: it wanted more open at once than the limit `handles` of 100 allows",
        )
    })
}

/// Runs in a process of its own, so that the memory of other tests does not count.
#[test]
fn kept_requests_take_bounded_memory() -> Result<()> {
    /// Set in the copy of this program that runs this test alone.
    const ALONE: &str = "CONSUL_SESSION_TEST_KEPT_REQUESTS";
    /// The most that the attacks take together: 8 MiB for each, as `Limits` says.
    const MOST: u64 = ATTACKS as u64 * (8 << 20);

    if std::env::var_os(ALONE).is_none() {
        let mut copy = Command::new(std::env::current_exe()?);
        copy.args(["--exact", "hostile::kept_requests_take_bounded_memory", "--nocapture"]).env(ALONE, "1");
        let output = copy.output()?;
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(output.status.success() && text.contains("1 passed"), "{text}");
        return Ok(());
    }
    with_deadline(|| {
        let hostile = built(Host::builder(), include_str!("parts.wat"))?;
        let attack = || {
            two_threads()?.block_on(async {
                // What an instance keeps is freed when it is dropped, so all of them live to the end.
                let (mut instances, mut errors) = (Vec::new(), Vec::new());
                for _ in 0..ATTACKS {
                    let mut instance = hostile.instance().await?;
                    errors.push(instance.apply_json("").await.err().context("the component was not stopped")?);
                    instances.push(instance);
                }
                anyhow::Ok(errors)
            })
        };
        let before = peak_memory()?;
        let errors = attack()?;
        if let (Some(before), Some(after)) = (before, peak_memory()?) {
            ensure!(after - before < MOST, "{} KiB", (after - before) >> 10);
        }
        expect(
            errors,
            "Stopped(Handles(",
            "the component was stopped: it wanted more open at once than the limit `handles` of 200 allows",
        )
    })
}

#[test]
fn dropped_requests_are_stopped() -> Result<()> {
    with_deadline(|| {
        let (server, rule, authority) = silent_server()?;
        // The limit `requests` stops it, long before `compute` does.
        let builder = Host::builder().allow(rule).limit("requests", "50")?.limit("compute", "5m")?;
        let errors = beside_ordinary_calls(built(builder, include_str!("requests-dropped.wat"))?, &authority)?;
        let sent = server.requests().len();
        ensure!(sent <= ATTACKS * 50, "{sent} requests were sent");
        expect(
            errors,
            "Stopped(Requests(",
            "the component was stopped: it wanted to send more requests than the limit `requests` of 50 allows",
        )
    })
}

#[test]
fn requests_in_flight_are_limited() -> Result<()> {
    with_deadline(|| {
        let (server, rule, authority) = silent_server()?;
        let builder = Host::builder().allow(rule).limit("in_flight", "5")?.limit("time", "1s")?;
        let errors = beside_ordinary_calls(built(builder, include_str!("requests-in-flight.wat"))?, &authority)?;
        let sent = server.requests().len();
        ensure!((1..=ATTACKS * 5).contains(&sent), "{sent} requests were under way");
        expect(
            errors,
            "Stopped(Time(",
            "the component was stopped: it wanted to take longer than the limit `time` of 1s allows",
        )
    })
}

#[test]
fn request_to_denied_authority_is_not_sent() -> Result<()> {
    with_deadline(|| {
        let (allowed, other) = (Scripted::replies([Reply::json("[]")])?, Scripted::replies([Reply::json("[]")])?);
        let hostile =
            built(Host::builder().allow(allowed.address().to_string().parse()?), include_str!("request-to-authority.wat"))?;
        two_threads()?.block_on(async {
            let answer = hostile.apply_json(&other.address().to_string()).await?;
            ensure!(answer.is_empty() && other.requests().is_empty(), "{answer:?}, {:?}", other.requests());
            // The fixture traps if the request is answered.
            let answered = hostile.apply_json(&allowed.address().to_string()).await;
            ensure!(matches!(answered, Err(CallError::Trapped(_))) && allowed.requests().len() == 1, "{answered:?}");
            Ok(())
        })
    })
}

#[test]
fn import_of_stdout_is_rejected() -> Result<()> {
    with_deadline(|| {
        let result = Host::builder().build_from_bytes(&component(include_str!("stdout.wat"))?);
        let error = result.err().context("the component was loaded")?;
        let text = format!("{error:#}");
        ensure!(
            text == "component imports instance `wasi:cli/stdout@0.2.0`, but a matching implementation was not found in the linker: \
                     instance export `get-stdout` has the wrong type: function implementation is missing",
            "{text}"
        );
        Ok(())
    })
}

/// Returns the result of `answer.wat`.
fn answer(argument: &str) -> Result<Result<String, CallError>> {
    let host = built(Host::builder(), include_str!("answer.wat"))?;
    Ok(two_threads()?.block_on(host.apply_json(argument)))
}

#[test]
fn result_of_30_mib_is_returned() -> Result<()> {
    with_deadline(|| {
        let text = answer(&"x".repeat(30))?.context("the result is within the limit")?;
        ensure!(text.len() == 30 << 20);
        Ok(())
    })
}

#[test]
fn error_message_of_30_mib_is_cut() -> Result<()> {
    with_deadline(|| {
        let Err(CallError::Plugin(error)) = answer(&"e".repeat(30))? else { bail!("not an error of the plugin") };
        ensure!(error.message() == format!("{}…", "a".repeat(4096)), "{} bytes", error.message().len());
        Ok(())
    })
}

#[test]
fn function_names_of_a_trap_are_not_displayed() -> Result<()> {
    with_deadline(|| {
        let host = built(Host::builder(), include_str!("trap.wat"))?;
        let error = two_threads()?.block_on(host.apply_json("")).err().context("the component did not trap")?;
        let name = "this_name_is_the_component's_own";
        // `Debug` shows it, for the author of the component.
        ensure!(format!("{error:?}").contains(name) && !error.to_string().contains(name), "{error:?}");
        Ok(())
    })
}

#[test]
fn calls_to_an_attacked_host_wait_only_for_a_permit() -> Result<()> {
    with_deadline(|| {
        let builder = Host::builder().limit("compute", "300ms")?.limit("instances", "2")?;
        let host = built(builder, include_str!("loop.wat"))?;
        two_threads()?.block_on(async {
            let mut calls = JoinSet::new();
            for number in 0..ATTACKS + ORDINARY {
                let (host, argument) = (host.clone(), if number < ATTACKS { "x" } else { "" });
                calls.spawn(async move { (argument, host.apply_json(argument).await) });
            }
            for (argument, answer) in calls.join_all().await {
                match (argument, answer) {
                    ("", Ok(_)) | ("x", Err(CallError::Stopped(_))) => {}
                    (argument, answer) => bail!("{argument:?}: {answer:?}"),
                }
            }
            Ok(())
        })
    })
}

#[test]
fn ordinary_call_ends_first_on_a_single_thread() -> Result<()> {
    with_deadline(|| {
        let server = Scripted::replies([Reply::json("[]")])?;
        let to = connection(server.address());
        // The limit is far longer than an ordinary call takes.
        let (hostile, host) = (built(Host::builder().limit("compute", "5s")?, include_str!("loop.wat"))?, load()?);
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut attack = tokio::spawn(async move { hostile.apply_json("x").await });
            tokio::select! {
                biased;
                result = &mut attack => bail!("the attack ended first: {result:?}"),
                answer = host.list_sessions(None, Some(&to)) => drop(answer?),
            }
            let error = attack.await?.err().context("the component was not stopped")?;
            let text = "the component was stopped: it wanted to compute for longer than the limit `compute` of 5s allows";
            expect(vec![error], "Stopped(Compute(", text)
        })
    })
}

#[test]
fn stopped_instance_is_unusable() -> Result<()> {
    with_deadline(|| {
        let host = built(Host::builder().limit("compute", "300ms")?, include_str!("loop.wat"))?;
        two_threads()?.block_on(async {
            let mut instance = host.instance().await?;
            ensure!(instance.apply_json("").await?.is_empty());
            ensure!(matches!(instance.apply_json("x").await, Err(CallError::Stopped(_))));
            expect_unusable(instance.apply_json("").await)
        })
    })
}

#[test]
fn instance_of_a_dropped_call_is_unusable() -> Result<()> {
    with_deadline(|| {
        let host = built(Host::builder(), include_str!("wait.wat"))?;
        two_threads()?.block_on(async {
            let mut instance = host.instance().await?;
            let dropped = tokio::time::timeout(Duration::from_millis(100), instance.apply_json("")).await;
            ensure!(dropped.is_err(), "{dropped:?}");
            expect_unusable(instance.apply_json("").await)
        })
    })
}

/// Checks that a call failed because the instance is unusable.
fn expect_unusable(answer: Result<String, CallError>) -> Result<()> {
    let error = answer.err().context("the instance is still usable")?;
    expect(vec![error], "Trapped(", "the component failed: wasm trap: cannot enter component instance")
}
