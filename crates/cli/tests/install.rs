//! The program as `cargo xtask install` installs it.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use test_support::program::run;
use test_support::tools::root;

/// The task that the test calls is built in the folder of all tests.
#[test]
fn installed_program_works_in_any_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let to = folder.path().join("installed");
    let mut install = Command::new("cargo");
    // What configures the build of this test is not for that of the program.
    install.args(["xtask", "install", "--root"]).arg(&to).arg("--debug").current_dir(root());
    let output = run(&mut install)?;
    ensure!(output.status == 0, "{}{}", output.stdout, output.stderr);
    let elsewhere = tempfile::tempdir()?;
    let at = |args: &[&str]| {
        let mut command = Command::new(to.join("bin/consul-session"));
        command.args(args).current_dir(elsewhere.path()).env_remove("CONSUL_SESSION_PLUGIN").env("CONSUL_SESSION_CACHE", "");
        run(&mut command)?.succeeded()
    };
    ensure!(at(&["--dev", "present", "session1"])?.stdout.starts_with("changed: created a session\n"));
    for (path, part) in [
        ("share/man/man1/consul-session.1", r"consul\-session\-lock(1)"),
        ("share/man/man1/consul-session-lock.1", ".TH consul-session-lock 1"),
        ("share/bash-completion/completions/consul-session", "complete -F "),
        ("share/zsh/site-functions/_consul-session", "#compdef consul-session"),
        ("share/fish/vendor_completions.d/consul-session.fish", "complete -c consul-session"),
    ] {
        let text = std::fs::read_to_string(to.join(path)).with_context(|| path.to_owned())?;
        ensure!(text.contains(part), "{path}: {text}");
    }
    Ok(())
}
