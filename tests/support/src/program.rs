//! The programs as typed in a shell.

use crate::consul::{Consul, Kind};
use crate::tools::{self, command, root};
use crate::{component as command_component, plugin};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Seek, Write};
use std::process::Command;
use tempfile::TempDir;

/// The output and the exit status of a program that ended.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit status.
    pub status: i32,
}

impl Output {
    /// Parses standard output as one JSON value.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}{}", self.stdout, self.stderr))
    }

    /// Fails unless the program succeeded and wrote nothing to standard error.
    pub fn succeeded(self) -> Result<Output> {
        ensure!(self.status == 0 && self.stderr.is_empty(), "status {}: {}{}", self.status, self.stdout, self.stderr);
        Ok(self)
    }
}

/// Runs a command until it ends.
///
/// # Errors
///
/// Fails if a signal ends the command, or if its output is not UTF-8.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    Ok(Output {
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        status: output.status.code().context("ended by a signal")?,
    })
}

/// Runs a command, which must succeed, and returns its standard output. It may write warnings to
/// standard error; see [`Output::succeeded`].
pub fn stdout_of(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    ensure!(output.status == 0, "{command:?}: {}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}

/// Checks that a program creates `session1` once: the first of two runs creates the session, the
/// second finds it.
///
/// `run` runs the program against the agent at this port of `localhost`. Returns its output, the id
/// and `changed` or `unchanged`.
pub fn creates_session1_once(mut run: impl FnMut(u16) -> Result<String>) -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    let port = consul.http().port();
    let (first, second) = (run(port)?, run(port)?);
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["Name"] == "session1", "{sessions:?}");
    let id = sessions[0]["ID"].as_str().context("a session without an id")?;
    ensure!(first == format!("{id} changed\n") && second == format!("{id} unchanged\n"), "{first}{second}");
    Ok(())
}

/// Returns a file with this text, for standard input.
pub fn input(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A line as typed in a shell, and the text on standard input.
///
/// The line starts with the environment variables and leaves out the program's name.
pub struct CommandLine {
    program: &'static str,
    line: String,
    input: String,
}

impl CommandLine {
    /// Creates a command line for the `consul-session` at the path `program`. Spaces separate
    /// arguments; the line has no quotes.
    pub fn new(program: &'static str, line: impl Into<String>) -> CommandLine {
        CommandLine { program, line: line.into(), input: String::new() }
    }

    /// Sets the text on standard input.
    #[must_use]
    pub fn reading(self, input: impl Into<String>) -> CommandLine {
        CommandLine { input: input.into(), ..self }
    }

    /// Runs the line with more arguments at its end.
    pub fn run(&self, more: &[&str]) -> Result<Output> {
        let is_variable = |part: &&str| {
            part.split_once('=').is_some_and(|(name, _)| name.contains('_') && !name.contains(|c: char| c.is_lowercase()))
        };
        let variables = self.line.split_whitespace().take_while(is_variable);
        let environment: Vec<_> = variables.filter_map(|variable| variable.split_once('=')).collect();
        let args: Vec<_> = self.line.split_whitespace().skip_while(is_variable).chain(more.iter().copied()).collect();
        run(consul_session(self.program, &args, &environment)?.stdin(input(&self.input)?))
    }

    /// Fails unless the program succeeds and prints exactly this.
    pub fn prints(&self, expected: &str) -> Result<()> {
        let output = self.run(&[])?.succeeded().with_context(|| self.line.clone())?;
        ensure!(output.stdout == expected, "{}: {}", self.line, output.stdout);
        Ok(())
    }

    /// Fails unless the program succeeds and its output begins with this.
    pub fn begins(&self, expected: &str) -> Result<()> {
        let output = self.run(&[])?.succeeded().with_context(|| self.line.clone())?;
        ensure!(output.stdout.starts_with(expected), "{}: {}", self.line, output.stdout);
        Ok(())
    }

    /// Fails unless the program reports this error and prints nothing else, as text and with
    /// `--format json`.
    pub fn fails(&self, case: &str, message: &str) -> Result<()> {
        let CommandLine { line, .. } = self;
        // Nothing was sent after a wrong use.
        let status = if case == "invalid-option" { 2 } else { 1 };
        let output = self.run(&[])?;
        ensure!(
            output.status == status && output.stdout.is_empty(),
            "{line}: status {}: {}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        let expected = format!("error ({case}): {message}\n");
        ensure!(output.stderr == expected, "{line}:\n{}expected:\n{expected}", output.stderr);
        let output = self.run(&["--format", "json"])?;
        ensure!(
            output.status == status && output.stderr.is_empty(),
            "{line}: status {}: {}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        let mut error = output.json()?;
        let extra_field = match case {
            "invalid-option" => Some("option"),
            "refused" | "access-denied" => Some("status"),
            _ => None,
        };
        if let (Some(field), Some(fields)) = (extra_field, error.as_object_mut()) {
            ensure!(fields.remove(field).is_some(), "{line}: no {field}");
        }
        ensure!(error == json!({"changed": false, "failed": true, "error": case, "msg": message}), "{line}: {error}");
        Ok(())
    }
}

/// Writes a file into a test's folder and returns its path.
pub fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
    let path = folder.path().join(name);
    std::fs::write(&path, content)?;
    Ok(path.display().to_string())
}

/// Returns the command that runs `program` with these arguments.
///
/// The program is `consul-session` or starts it. The command inherits no variable that configures
/// `consul-session`: it has those of `environment`, the plugin and a cache.
pub fn consul_session(program: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    let mut consul_session = command(program);
    consul_session.args(args).env("CONSUL_SESSION_PLUGIN", plugin()?);
    // Leaves the user's own cache alone.
    consul_session.env("CONSUL_SESSION_CACHE", root().join("target/tmp/compiled"));
    consul_session.envs(environment.iter().copied());
    Ok(consul_session)
}

/// Returns the command that runs `consul-session` against this agent.
pub fn consul_session_at(program: &str, agent: &Consul, args: &[&str]) -> Result<Command> {
    consul_session(program, args, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())])
}

/// Returns the command that runs the command component under `wasmtime run`.
pub fn component(args: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    let mut wasmtime = command(tools::wasmtime()?);
    wasmtime.args(["run", "-S", "http"]);
    for (name, value) in environment {
        wasmtime.arg("--env").arg(format!("{name}={value}"));
    }
    wasmtime.arg(command_component()?).args(args);
    Ok(wasmtime)
}
