//! The programs as a person types them.

use crate::consul::Consul;
use crate::tools::{self, command, root};
use crate::{component as command_component, plugin};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Seek, Write};
use std::process::Command;
use tempfile::TempDir;

/// What a run of a program printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit status.
    pub status: i32,
}

impl Ran {
    /// The one JSON value on standard output.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}{}", self.stdout, self.stderr))
    }

    /// Fails unless the program succeeded.
    pub fn succeeded(self) -> Result<Ran> {
        ensure!(self.status == 0 && self.stderr.is_empty(), "status {}: {}{}", self.status, self.stdout, self.stderr);
        Ok(self)
    }
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Result<Ran> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    Ok(Ran {
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        status: output.status.code().context("ended by a signal")?,
    })
}

/// Standard input with this text.
pub fn input(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A line as it is typed in a shell, variables first and without the program's name, and what is read on standard input.
pub struct Typed {
    program: &'static str,
    line: String,
    input: String,
}

impl Typed {
    /// To the `consul-session` that is at `program`. The line has no blanks but those between its words.
    pub fn new(program: &'static str, line: impl Into<String>) -> Typed {
        Typed { program, line: line.into(), input: String::new() }
    }

    /// The same with this on standard input.
    #[must_use]
    pub fn reading(self, input: impl Into<String>) -> Typed {
        Typed { input: input.into(), ..self }
    }

    /// Runs it, with these words at the end.
    pub fn run(&self, more: &[&str]) -> Result<Ran> {
        let is_variable = |word: &&str| {
            word.split_once('=').is_some_and(|(name, _)| name.contains('_') && !name.contains(|c: char| c.is_lowercase()))
        };
        let variables = self.line.split_whitespace().take_while(is_variable);
        let environment: Vec<_> = variables.filter_map(|word| word.split_once('=')).collect();
        let words: Vec<_> = self.line.split_whitespace().skip_while(is_variable).chain(more.iter().copied()).collect();
        run(host(self.program, &words, &environment)?.stdin(input(&self.input)?))
    }

    /// Fails unless the program succeeds and prints just this.
    pub fn prints(&self, expected: &str) -> Result<()> {
        let ran = self.run(&[])?.succeeded().with_context(|| self.line.clone())?;
        ensure!(ran.stdout == expected, "{}: {}", self.line, ran.stdout);
        Ok(())
    }

    /// Fails unless the program succeeds and what it prints begins so.
    pub fn begins(&self, expected: &str) -> Result<()> {
        let ran = self.run(&[])?.succeeded().with_context(|| self.line.clone())?;
        ensure!(ran.stdout.starts_with(expected), "{}: {}", self.line, ran.stdout);
        Ok(())
    }

    /// Fails unless the program ends with this error and prints nothing else, for people and as JSON.
    pub fn fails(&self, case: &str, message: &str) -> Result<()> {
        let Typed { line, .. } = self;
        let ran = self.run(&[])?;
        ensure!(ran.status == 1 && ran.stdout.is_empty(), "{line}: status {}: {}{}", ran.status, ran.stdout, ran.stderr);
        let expected = format!("error ({case}): {message}\n");
        ensure!(ran.stderr == expected, "{line}:\n{}expected:\n{expected}", ran.stderr);
        let ran = self.run(&["--format", "json"])?;
        ensure!(ran.status == 1 && ran.stderr.is_empty(), "{line}: status {}: {}{}", ran.status, ran.stdout, ran.stderr);
        let mut error = ran.json()?;
        let own = match case {
            "invalid-option" => Some("option"),
            "refused" | "access-denied" => Some("status"),
            _ => None,
        };
        if let (Some(own), Some(fields)) = (own, error.as_object_mut()) {
            ensure!(fields.remove(own).is_some(), "{line}: no {own}");
        }
        ensure!(error == json!({"changed": false, "failed": true, "error": case, "msg": message}), "{line}: {error}");
        Ok(())
    }
}

/// A file of this name and content, in a test's folder; its path.
pub fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
    let path = folder.path().join(name);
    std::fs::write(&path, content)?;
    Ok(path.display().to_string())
}

/// `consul-session`, which is at `program`, with these words and no other environment of its own than this.
pub fn host(program: &str, words: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    let mut host = command(program);
    host.args(words).env("CONSUL_SESSION_PLUGIN", plugin()?);
    // Not the user's.
    host.env("CONSUL_SESSION_CACHE", root().join("target/tmp/compiled"));
    host.envs(environment.iter().copied());
    Ok(host)
}

/// The same, to be typed at this agent.
pub fn host_at(program: &str, agent: &Consul, words: &[&str]) -> Result<Command> {
    host(program, words, &[("CONSUL_HTTP_ADDR", &agent.http().to_string())])
}

/// `wasmtime run` on the command component.
pub fn component(words: &[&str], environment: &[(&str, &str)]) -> Result<Command> {
    let mut wasmtime = command(tools::wasmtime()?);
    wasmtime.args(["run", "-S", "http"]);
    for (name, value) in environment {
        wasmtime.arg("--env").arg(format!("{name}={value}"));
    }
    wasmtime.arg(command_component()?).args(words);
    Ok(wasmtime)
}
