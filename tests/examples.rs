//! The examples for those who embed the plugin: each runs as it stands in its file, and stands in the README as it is there.

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use std::process::{Command, ExitCode};
use test_support::consul::{Consul, Kind};
use test_support::in_ci;
use test_support::tools::{self, Transpiled, root};
use test_support::trial::trial;

fn main() -> ExitCode {
    let no_consul = Consul::is_missing();
    let runs = |name: &str, missing: bool, command: fn() -> Result<Command>| -> Trial {
        trial(format!("{name} runs"), move || runs(command()?)).with_ignored_flag(no_consul || (missing && !in_ci()))
    };
    let trials = vec![
        runs("examples/rust", false, || Ok(Command::new(env!("CARGO_BIN_EXE_example-rust")))),
        runs("examples/python", tools::python().is_err(), || {
            let mut python = Command::new(tools::python()?);
            python.arg("examples/python/main.py");
            Ok(python)
        }),
        runs("examples/node", tools::node_modules().is_err(), || {
            // Beside the transpiled plugin, where the example wants to be.
            let main = tools::transpiled(Transpiled::Node)?.join("main.mjs");
            std::fs::copy(root().join("examples/node/main.mjs"), &main)?;
            let mut node = Command::new("node");
            node.arg(main);
            Ok(node)
        }),
        runs("examples/browser", tools::node_modules().and(tools::chromium()).is_err(), || {
            let mut node = Command::new("node");
            node.arg("tests/conformance/runners/browser/example.mjs").arg(tools::transpiled(Transpiled::Browser)?);
            Ok(node)
        }),
        trial("README.md shows the examples", shown),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a program twice: the first makes the session, the second finds it.
fn runs(mut command: Command) -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    command.arg(consul.http().port().to_string()).current_dir(root());
    let mut run = || -> Result<String> {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        // The page shows the answer as it is.
        let Ok(answer) = serde_json::from_str::<Value>(&text) else { return Ok(text) };
        let changed = if answer["changed"] == true { "changed" } else { "unchanged" };
        Ok(format!("{} {changed}\n", answer["session_id"].as_str().with_context(|| text.clone())?))
    };
    let (first, second) = (run()?, run()?);
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["Name"] == "session1", "{sessions:?}");
    let id = sessions[0]["ID"].as_str().context("a session without an id")?;
    ensure!(first == format!("{id} changed\n") && second == format!("{id} unchanged\n"), "{first}{second}");
    Ok(())
}

fn shown() -> Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    for (file, language) in
        [("rust/main.rs", "rust"), ("python/main.py", "python"), ("node/main.mjs", "js"), ("browser/index.html", "html")]
    {
        let example = std::fs::read_to_string(root().join("examples").join(file))?;
        ensure!(readme.contains(&format!("```{language}\n{example}```\n")), "README.md does not show examples/{file} as it is");
    }
    Ok(())
}
