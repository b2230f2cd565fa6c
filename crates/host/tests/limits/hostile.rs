//! Components that want more than they may have: each is stopped with an error that says why, and others on the same threads go
//! on.
//!
//! Each is a core module `*.wat` in this folder, made into a component of the plugin's world here. It attacks in `apply-json`, or
//! before it can be called at all.

use crate::plugin::{connection, load};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use consul_session_host::{Builder, CallError, Host, Rule};
use libtest_mimic::Trial;
use std::sync::mpsc;
use std::time::Duration;
use test_support::scripted::{Reply, Scripted};
use test_support::tools::root;
use test_support::trial::trial;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WasmExport, WasmExportKind, WorldItem};

type Test = fn() -> Result<()>;

/// No test waits for a limit that is longer than five seconds. The rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// How many ordinary calls go on beside each attack.
const ORDINARY: usize = 100;

/// More than there are threads, so that one that does not yield would stop all.
const ATTACKS: usize = 4;

pub fn trials() -> Vec<Trial> {
    let attacks = ATTACK.iter().map(|attack| trial(format!("hostile: {}", attack.name), || in_time(|| attack.is_stopped())));
    let tests: [(&str, Test); 12] = [
        ("requests that are kept are stopped", requests_kept),
        ("requests that are dropped at once are stopped", requests_dropped),
        ("no more requests at once are sent than may be", requests_at_once),
        ("a request elsewhere is not sent", elsewhere),
        ("one that wants to write to standard output is not loaded", stdout),
        ("a text of 30 MiB is an answer", long_answer),
        ("an error text of 30 MiB is cut", long_error),
        ("the name of a function that trapped is not shown", trap_without_names),
        ("calls of the same host wait for no attack but for their turn", same_host),
        ("a call on the same and only thread ends first", one_thread),
        ("an instance that was stopped is of no more use", instance_after_stop),
        ("an instance whose call was dropped is of no more use", instance_after_drop),
    ];
    attacks.chain(tests.map(|(name, test)| trial(format!("hostile: {name}"), move || in_time(test)))).collect()
}

/// Runs a test in a thread of its own, which is left behind if it does not end. A timer of the test's runtime would not run if a
/// component kept all its threads.
fn in_time(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let (told, ended) = mpsc::channel();
    std::thread::spawn(move || told.send(test()));
    ended.recv_timeout(BOUND).context("it was not stopped in time")?
}

/// An attack that needs nothing but its fixture.
struct Attack {
    name: &'static str,
    fixture: &'static str,
    argument: &'static str,
    limits: &'static [(&'static str, &'static str)],
    /// How the error begins when it is written with `{:?}`.
    case: &'static str,
    text: &'static str,
}

macro_rules! attack {
    ($name:literal: $fixture:literal($argument:expr) $($limit:ident=$value:literal)* => $case:literal, $text:literal) => {
        Attack {
            name: $name,
            fixture: include_str!(concat!($fixture, ".wat")),
            argument: $argument,
            limits: &[$((stringify!($limit), $value)),*],
            case: $case,
            text: $text,
        }
    };
}

const ATTACK: &[Attack] = &[
    attack!("one that computes for ever is stopped": "loop"("x") compute="300ms" => "Stopped(Compute(",
        "the component was stopped: it wanted to compute for longer than the limit `compute` of 300ms allows"),
    attack!("one that computes for ever when it starts is stopped": "start-loop"("") compute="300ms" => "Stopped(Compute(",
        "the component was stopped: it wanted to compute for longer than the limit `compute` of 300ms allows"),
    attack!("one that waits for ever is stopped": "wait"("") time="300ms" => "Stopped(Time(",
        "the component was stopped: it wanted to take longer than the limit `time` of 300ms allows"),
    attack!("one that waits for ever when it starts is stopped": "start-wait"("") time="300ms" => "Stopped(Time(",
        "the component was stopped: it wanted to take longer than the limit `time` of 300ms allows"),
    attack!("one that wants ever more memory is stopped": "memory"("") memory="64MiB" => "Stopped(Memory(",
        "the component was stopped: it wanted more memory than the limit `memory` of 64.0 MiB allows"),
    attack!("one that is too large from the start is stopped": "start-memory"("") memory="64MiB" => "Stopped(Memory(",
        "the component was stopped: it wanted more memory than the limit `memory` of 64.0 MiB allows"),
    attack!("one that has many memories is not started": "memories"("") => "Trapped(",
        "the component failed: resource limit exceeded: memory count too high at 11"),
    attack!("one that wants ever more of a table is stopped": "table"("") table="500" => "Stopped(Table(",
        "the component was stopped: it wanted a larger table than the limit `table` of 500 allows"),
    attack!("one that wants ever more timers is stopped": "timers"("") handles="100" => "Stopped(Handles(",
        "the component was stopped: it wanted more open at once than the limit `handles` of 100 allows"),
    attack!("one that has the host keep long words is stopped": "method"("") handles="20" => "Trapped(",
        "the component failed: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been \
         exhausted"),
    attack!("one that calls itself for ever is stopped": "recursion"("") => "Trapped(",
        "the component failed: wasm trap: call stack exhausted"),
    attack!("one that traps is stopped": "trap"("") => "Trapped(",
        "the component failed: wasm trap: wasm `unreachable` instruction executed"),
    attack!("one that claims an answer that it does not have is stopped": "claim"("") => "Trapped(",
        "the component failed: string pointer/length out of bounds of memory"),
    attack!("one that answers with 200 MiB is stopped": "answer"(TWO_HUNDRED) memory="256MiB" response="32MiB" => "Trapped(",
        "the component failed: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been \
         exhausted"),
];

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
        expect(errors, self.case, self.text)
    }
}

/// Each error has this case and this text, up to the remedy.
fn expect(errors: Vec<CallError>, case: &str, text: &str) -> Result<()> {
    for error in errors {
        let said = error.to_string();
        let cause = said.split("; an operator").next();
        ensure!(format!("{error:?}").starts_with(case) && cause == Some(text), "{said}\n{error:?}");
    }
    Ok(())
}

/// The plugin's world, and what else a component might want.
const WORLD: &str = "
    package test:hostile;
    world hostile {
        include consul-session:plugin/plugin@0.1.0;
        import wasi:cli/stdout@0.2.0;
    }
";

/// The component of a fixture. What the plugin has to export and the fixture does not is there too, and traps.
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
    // Arguments go to the second page, and have room there.
    let to = "(param i32 i32 i32 i32) (result i32) (i32.const 65536)";
    add("cabi_realloc", format!(r#"(func (export "cabi_realloc") {to})"#));
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
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    ComponentEncoder::default().module(&module)?.encode()
}

fn types(types: &[WasmType]) -> String {
    let names = types.iter().map(|kind| match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    });
    names.collect::<Vec<_>>().join(" ")
}

fn built(builder: Builder, fixture: &str) -> Result<Host> {
    builder.build_from_bytes(&component(fixture)?).map_err(|error| anyhow!("{error:?}"))
}

/// Two threads for everything.
fn two_threads() -> Result<Runtime> {
    Ok(runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Attacks some times at once while ordinary calls are made on the same threads, each of which must succeed. Answers with the
/// attacks' errors.
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
            answer.context("an ordinary call beside it failed")?;
        }
        attacks.join_all().await.into_iter().map(|answer| answer.err().context("it was not stopped")).collect()
    })
}

/// A server that never answers, and what may be sent there.
fn silence() -> Result<(Scripted, Rule, String)> {
    let server = Scripted::replies([Reply::stall()])?;
    let authority = server.address().to_string();
    Ok((server, authority.parse()?, authority))
}

fn requests_kept() -> Result<()> {
    let (server, rule, authority) = silence()?;
    let builder = Host::builder().allow(rule).limit("handles", "100")?;
    let errors = beside_ordinary_calls(built(builder, include_str!("requests-kept.wat"))?, &authority)?;
    let sent = server.requests().len();
    ensure!(sent <= ATTACKS * 100, "{sent} requests were sent");
    expect(
        errors,
        "Stopped(Handles(",
        "the component was stopped: it wanted more open at once than the limit `handles` of 100 allows",
    )
}

fn requests_dropped() -> Result<()> {
    let (server, rule, authority) = silence()?;
    // It ends at once, and not when it has computed for too long.
    let builder = Host::builder().allow(rule).limit("requests", "50")?.limit("compute", "5m")?;
    let errors = beside_ordinary_calls(built(builder, include_str!("requests-dropped.wat"))?, &authority)?;
    let sent = server.requests().len();
    ensure!(sent <= ATTACKS * 50, "{sent} requests were sent");
    expect(
        errors,
        "Stopped(Requests(",
        "the component was stopped: it wanted to send more requests than the limit `requests` of 50 allows",
    )
}

fn requests_at_once() -> Result<()> {
    let (server, rule, authority) = silence()?;
    let builder = Host::builder().allow(rule).limit("in_flight", "5")?.limit("time", "1s")?;
    let errors = beside_ordinary_calls(built(builder, include_str!("requests-at-once.wat"))?, &authority)?;
    let sent = server.requests().len();
    ensure!((1..=ATTACKS * 5).contains(&sent), "{sent} requests were under way");
    expect(errors, "Stopped(Time(", "the component was stopped: it wanted to take longer than the limit `time` of 1s allows")
}

fn elsewhere() -> Result<()> {
    let (allowed, other) = (Scripted::replies([Reply::json("[]")])?, Scripted::replies([Reply::json("[]")])?);
    let hostile = built(Host::builder().allow(allowed.address().to_string().parse()?), include_str!("elsewhere.wat"))?;
    two_threads()?.block_on(async {
        let answer = hostile.apply_json(&other.address().to_string()).await?;
        ensure!(answer.is_empty() && other.requests().is_empty(), "{answer:?}, {:?}", other.requests());
        // It would have noticed.
        let noticed = hostile.apply_json(&allowed.address().to_string()).await;
        ensure!(matches!(noticed, Err(CallError::Trapped(_))) && allowed.requests().len() == 1, "{noticed:?}");
        Ok(())
    })
}

fn stdout() -> Result<()> {
    let refused = Host::builder().build_from_bytes(&component(include_str!("stdout.wat"))?);
    let error = refused.err().context("it was loaded")?;
    let text = format!("{error:#}");
    ensure!(
        text == "component imports instance `wasi:cli/stdout@0.2.0`, but a matching implementation was not found in the linker: \
                 instance export `get-stdout` has the wrong type: function implementation is missing",
        "{text}"
    );
    Ok(())
}

/// The answer of `answer.wat`.
fn answer(argument: &str) -> Result<Result<String, CallError>> {
    let host = built(Host::builder(), include_str!("answer.wat"))?;
    Ok(two_threads()?.block_on(host.apply_json(argument)))
}

fn long_answer() -> Result<()> {
    let text = answer(&"x".repeat(30))?.context("it may say so much")?;
    ensure!(text.len() == 30 << 20);
    Ok(())
}

fn long_error() -> Result<()> {
    let Err(CallError::Plugin(error)) = answer(&"e".repeat(30))? else { bail!("that is no error of the plugin") };
    ensure!(error.message() == format!("{}…", "a".repeat(4096)), "{} bytes", error.message().len());
    Ok(())
}

fn trap_without_names() -> Result<()> {
    let host = built(Host::builder(), include_str!("trap.wat"))?;
    let error = two_threads()?.block_on(host.apply_json("")).err().context("it did not trap")?;
    let name = "this_name_is_the_component's_own";
    // For those who write the component.
    ensure!(format!("{error:?}").contains(name) && !error.to_string().contains(name), "{error:?}");
    Ok(())
}

fn same_host() -> Result<()> {
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
}

fn one_thread() -> Result<()> {
    let server = Scripted::replies([Reply::json("[]")])?;
    let to = connection(server.address());
    // Far longer than an ordinary call takes.
    let (hostile, host) = (built(Host::builder().limit("compute", "5s")?, include_str!("loop.wat"))?, load()?);
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut attack = tokio::spawn(async move { hostile.apply_json("x").await });
        tokio::select! {
            biased;
            attacked = &mut attack => bail!("it ended first: {attacked:?}"),
            answer = host.list_sessions(None, Some(&to)) => drop(answer?),
        }
        let error = attack.await?.err().context("it was not stopped")?;
        let text = "the component was stopped: it wanted to compute for longer than the limit `compute` of 5s allows";
        expect(vec![error], "Stopped(Compute(", text)
    })
}

fn instance_after_stop() -> Result<()> {
    let host = built(Host::builder().limit("compute", "300ms")?, include_str!("loop.wat"))?;
    two_threads()?.block_on(async {
        let mut instance = host.instance().await?;
        ensure!(instance.apply_json("").await?.is_empty());
        ensure!(matches!(instance.apply_json("x").await, Err(CallError::Stopped(_))));
        is_of_no_use(instance.apply_json("").await)
    })
}

fn instance_after_drop() -> Result<()> {
    let host = built(Host::builder(), include_str!("wait.wat"))?;
    two_threads()?.block_on(async {
        let mut instance = host.instance().await?;
        let dropped = tokio::time::timeout(Duration::from_millis(100), instance.apply_json("")).await;
        ensure!(dropped.is_err(), "{dropped:?}");
        is_of_no_use(instance.apply_json("").await)
    })
}

fn is_of_no_use(answer: Result<String, CallError>) -> Result<()> {
    let error = answer.err().context("it can still be called")?;
    expect(vec![error], "Trapped(", "the component failed: wasm trap: cannot enter component instance")
}
