//! `cargo xtask install`: the program with the plugin inside, its manual pages and completions, where
//! `cargo install` puts programs.

use crate::build;
use crate::tools::{output, root};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the program.
pub const PROGRAM: &str = "consul-session";

/// The manual pages below the installation's root.
pub const MANUAL: &str = "share/man/man1";

/// The completion scripts: the shell, and where its packages put them below the installation's root.
pub const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/consul-session"),
    ("zsh", "share/zsh/site-functions/_consul-session"),
    ("fish", "share/fish/vendor_completions.d/consul-session.fish"),
];

/// Installs the program below this folder, or else where `cargo install` would. With `debug` it is
/// built as the tests are, which is faster to build and slower to run.
pub fn run(to: Option<&str>, debug: bool) -> Result<()> {
    build::plugin_to(&root().join("dist"))?;
    let folder = to.map(PathBuf::from).or_else(default_root).context("no home folder: name one with --root FOLDER")?;
    let mut install = Command::new("cargo");
    // Not from the current folder, which may have a configuration of its own.
    install.current_dir(root()).args(["install", "--locked", "--force", "--features", "embedded", "--path", "crates/cli"]);
    install.arg("--root").arg(std::path::absolute(&folder)?);
    if debug {
        install.arg("--debug");
    }
    ensure!(install.status()?.success(), "cargo install failed");
    let program = folder.join("bin").join(PROGRAM);
    documentation(&program, &folder)?;
    println!("manual pages: {}", folder.join(MANUAL).display());
    for (shell, path) in COMPLETIONS {
        println!("completions for {shell}: {}", folder.join(path).display());
    }
    Ok(())
}

/// Writes the manual pages and completions of this program below the folder.
pub fn documentation(program: &Path, folder: &Path) -> Result<()> {
    output(Command::new(program).args(["man", "--to"]).arg(folder.join(MANUAL)))?;
    for (shell, path) in COMPLETIONS {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        std::fs::write(&path, output(Command::new(program).args(["completions", shell]))?)?;
    }
    Ok(())
}

/// Returns where `cargo install` installs, apart from cargo's configuration files.
fn default_root() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    variable("CARGO_INSTALL_ROOT")
        .or_else(|| variable("CARGO_HOME"))
        .or_else(|| std::env::home_dir().map(|home| home.join(Path::new(".cargo"))))
}
