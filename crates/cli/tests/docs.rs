//! The documents: tables made from the source, code that is quoted from a file, links, and the
//! screens.

use anyhow::{Context, Result, bail, ensure};
use consul_session::options::{self, Kind as OptionKind};
use consul_session_args::help;
use consul_session_host::{Host, Limits};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::HashSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use tempfile::{TempDir, tempdir};
use test_support::consul::{Consul, Kind};
use test_support::program;
use test_support::screen::masked;
use test_support::terminal::Terminal;
use test_support::tools::{self, root};

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
const REFERENCE: &str = "docs/reference.md";
const RUNTIMES: &str = "docs/runtimes.md";

/// Returns the text of a file of the repository.
fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Returns the text between the comments `<!-- NAME: … -->` and `<!-- /NAME -->`.
fn marked<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- {name}: ")).with_context(|| format!("no beginning of {name}"))?;
    let (_, rest) = rest.split_once(" -->\n").with_context(|| format!("no end of the comment of {name}"))?;
    let (part, _) = rest.split_once(&format!("<!-- /{name} -->")).with_context(|| format!("no end of {name}"))?;
    Ok(part)
}

/// Returns the rows of a Markdown table as cells, without its first two lines.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// Returns the fenced blocks of a document that are in this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// Whether the documents are to be written, not compared.
fn is_update() -> bool {
    std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1")
}

/// Held while a document is written: two tests write docs/cli.md.
static WRITING: Mutex<()> = Mutex::new(());

/// Compares the tables of a document, by the names of their comments, or writes them.
fn check_tables(document: &str, tables: [(&str, String); 2]) -> Result<()> {
    let _alone = WRITING.lock();
    let mut text = read(document)?;
    for (name, expected) in tables {
        let table = marked(&text, name)?;
        if is_update() {
            text = text.replace(&format!("{table}<!-- /{name} -->"), &format!("{expected}<!-- /{name} -->"));
        } else {
            let hint = "UPDATE_DOCS=1 on the same command writes it";
            ensure!(table == expected, "{document} has another table of {name}; {hint}:\n{expected}");
        }
    }
    if is_update() {
        std::fs::write(root().join(document), text)?;
    }
    Ok(())
}

#[test]
fn tables_of_options_and_limits_are_made_from_the_source() -> Result<()> {
    let mut limits = "| limit | default | on what |\n|---|---|---|\n".to_owned();
    for (name, default, help) in Limits::table() {
        limits += &format!("| `{name}` | {default} | {help} |\n");
    }
    check_tables(REFERENCE, [("options", help::options_markdown()), ("limits", limits)])
}

#[test]
fn tables_of_commands_and_exit_status_are_made_from_the_source() -> Result<()> {
    check_tables("docs/cli.md", [("commands", help::commands_markdown()), ("status", help::exit_status_markdown())])
}

#[test]
fn error_table_has_every_case_of_the_wit() -> Result<()> {
    let wit = read("wit/sessions.wit")?;
    let (_, variant) = wit.split_once("variant error {").context("no variant")?;
    let (variant, _) = variant.split_once("\n    }").context("no end")?;
    let names = variant.lines().filter_map(|line| Some(line.trim().split_once('(')?.0));
    let cases: Vec<String> = names.filter(|name| !name.starts_with('/')).map(|name| format!("`{name}`")).collect();
    ensure!(cases.len() > 15, "{cases:?}");
    let reference = read(REFERENCE)?;
    let documented: Vec<&str> = rows(marked(&reference, "errors")?).iter().map(|row| row[0]).collect();
    ensure!(documented == cases, "{REFERENCE} has the cases {documented:?}, the WIT has {cases:?}");
    Ok(())
}

#[test]
fn state_table_has_every_state() -> Result<()> {
    let Some(OptionKind::Choice(states)) = options::info("state").map(|info| info.kind) else { bail!("no states") };
    let reference = read(REFERENCE)?;
    let mut documented: Vec<&str> = rows(marked(&reference, "states")?).iter().map(|row| row[0].trim_matches('`')).collect();
    documented.dedup();
    ensure!(documented == states, "{documented:?}");
    Ok(())
}

#[test]
fn readme_has_at_most_150_lines() -> Result<()> {
    let lines = read("README.md")?.lines().count();
    ensure!(lines <= 150, "{lines} lines");
    Ok(())
}

#[test]
fn readme_options_are_rows_of_the_reference() -> Result<()> {
    let (readme, all) = (read("README.md")?, help::options_markdown());
    let shown = rows(marked(&readme, "options")?);
    ensure!(shown.len() == 5, "{shown:?}");
    for row in shown {
        let [name, default, purpose] = row[..] else { bail!("{row:?}") };
        let found = rows(&all).into_iter().find(|full| full[0] == name).with_context(|| format!("no option {name}"))?;
        ensure!((default, purpose) == (found[1], found[3]), "{row:?} differs from {found:?}");
    }
    Ok(())
}

/// The conformance run compares the table of `docs/runtimes.md` with what it found.
#[test]
fn readme_runtimes_are_those_of_the_conformance_run() -> Result<()> {
    let (readme, runtimes) = (read("README.md")?, read(RUNTIMES)?);
    let expected: Vec<[&str; 2]> = rows(marked(&runtimes, "runtimes")?).iter().map(|row| [row[0], row[2]]).collect();
    let shown = rows(marked(&readme, "runtimes")?);
    ensure!(shown == expected, "README.md has {shown:?}, {RUNTIMES} has {expected:?}");
    Ok(())
}

#[test]
fn every_flag_and_variable_of_the_help_is_documented() -> Result<()> {
    let help = program::run(&mut program::consul_session(PROGRAM, &["--help"], &[])?)?.succeeded()?.stdout;
    let document = read("docs/cli.md")?;
    let words = help
        .lines()
        .filter(|line| line.starts_with("  "))
        .flat_map(|line| line.trim_start().split([' ', ',', '[', ']']).take(3));
    let is_option = |term: &str| options::info(&term.trim_start_matches('-').replace('-', "_")).is_some();
    let terms: Vec<&str> = words
        .filter(|term| term.starts_with("CONSUL_") || term.starts_with("--") && !is_option(term) && *term != "--version")
        .collect();
    ensure!(terms.len() > 25, "{terms:?}");
    for term in terms {
        ensure!(document.contains(term), "{term} is not in docs/cli.md");
    }
    Ok(())
}

#[test]
fn configuration_file_is_accepted() -> Result<()> {
    let document = read("docs/cli.md")?;
    let [text] = blocks(&document, "toml")[..] else { bail!("not one block in TOML") };
    let folder = tempdir()?;
    for (name, content) in [("consul-token", "secret\n"), ("consul-proxy", "user:secret\n")] {
        ensure!(text.contains(&format!("\"/run/secrets/{name}\"")), "{name}");
        std::fs::write(folder.path().join(name), content)?;
    }
    let file = folder.path().join("host.toml");
    std::fs::write(&file, text.replace("/run/secrets", &folder.path().display().to_string()))?;
    let _ = Host::builder().config_file(&file)?;
    Ok(())
}

#[test]
fn quoted_code_is_that_of_the_file() -> Result<()> {
    const EMBEDDING: &str = "docs/embedding.md";
    let mut text = read(EMBEDDING)?;
    for (file, language) in [
        ("host-example/src/main.rs", "rust"),
        ("crates/host/examples/apply.rs", "rust"),
        ("examples/python/main.py", "python"),
        ("examples/c/main.c", "c"),
        ("examples/go/main.go", "go"),
        ("examples/go/plugin/plugin.go", "go"),
        ("examples/java/Main.java", "java"),
        ("examples/java/Wasmtime.java", "java"),
        ("examples/node/main.mjs", "js"),
        ("examples/browser/index.html", "html"),
    ] {
        let begin = format!("](../{file}):\n\n```{language}\n");
        let (before, rest) = text.split_once(&begin).with_context(|| format!("{EMBEDDING} does not show {file}"))?;
        let (shown, after) = rest.split_once("\n```\n").context("no end of the code")?;
        let code = read(file)?;
        if is_update() {
            text = format!("{before}{begin}{code}```\n{after}");
        } else {
            ensure!(
                format!("{shown}\n") == code,
                "{EMBEDDING} shows an older {file}; UPDATE_DOCS=1 on the same command writes it"
            );
        }
    }
    if is_update() {
        std::fs::write(root().join(EMBEDDING), text)?;
    }
    let (readme, library) = (read("README.md")?, read("crates/host/examples/apply.rs")?);
    let [excerpt] = blocks(&readme, "rust")[..] else { bail!("not one block in Rust") };
    ensure!(library.contains(excerpt), "README.md does not show crates/host/examples/apply.rs as it is");
    Ok(())
}

#[test]
fn relative_links_and_anchors_resolve() -> Result<()> {
    let files = markdown_files(root())?;
    ensure!(files.len() > 10, "{files:?}");
    let mut broken = Vec::new();
    let mut count = 0;
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => file.clone(),
                path => file.with_file_name(path),
            };
            let is_found = match anchor {
                "" => target.exists(),
                anchor => std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !is_found {
                broken.push(format!("{}: {link}", file.strip_prefix(root()).unwrap_or(file).display()));
            }
        }
    }
    ensure!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    ensure!(count > 50, "only {count} links");
    Ok(())
}

/// Returns the Markdown files of the repository.
fn markdown_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let (path, name) = (entry.as_ref().map(|entry| entry.path()), entry.as_ref().map(|entry| entry.file_name()));
        let (Ok(path), Ok(name)) = (path, name) else { continue };
        if path.is_dir() && !["target", "node_modules", "dist", ".git"].iter().any(|other| name == *other) {
            files.extend(markdown_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Returns the lines of a document that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !fence && !is_code
    })
}

/// Returns the targets of the links `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// Returns the anchors that GitHub gives to the headings.
fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let mut anchors = HashSet::new();
    for heading in headings {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        anchors.extend(std::iter::once(anchor.clone()).chain(numbered).find(|anchor| !anchors.contains(anchor)));
    }
    anchors
}

/// The width of the terminal on which the screens are shown.
const COLUMNS: u16 = 100;

#[test]
fn readme_screens_are_what_the_commands_print() -> Result<()> {
    screens("README.md", 2)
}

#[test]
fn cli_screens_are_what_the_commands_print() -> Result<()> {
    screens("docs/cli.md", 7)
}

/// Runs the commands of each `console` block of a document, and compares what they print on a
/// terminal.
///
/// All blocks share one agent, which the documents have at the default port; its sessions are
/// removed after each block. Lists of records (`yaml`) are in the file `sessions.yaml`.
fn screens(document: &str, at_least: usize) -> Result<()> {
    let _alone = WRITING.lock();
    let path = root().join(document);
    let text = read(document)?;
    let folder = tempdir()?;
    let bin = folder.path().join("bin");
    let release = folder.path().join("target/release");
    for folder in [&bin, &release] {
        std::fs::create_dir_all(folder)?;
        symlink(PROGRAM, folder.join("consul-session"))?;
    }
    symlink(tools::wasmtime()?, bin.join("wasmtime"))?;
    symlink(root().join("dist"), folder.path().join("dist"))?;
    let agent = Consul::start(Kind::Plain)?;
    let mut written = String::new();
    let mut count = 0;
    for (at, part) in text.split("```").enumerate() {
        if at > 0 {
            written += "```";
        }
        match part.strip_prefix("console\n") {
            Some(screen) if at % 2 == 1 => {
                let shown = capture(screen, &agent, &folder, &bin).with_context(|| screen.to_owned())?;
                let ages = screen.lines().any(is_watch);
                // A screen that differs only in ids and times is not rewritten.
                let same = masked(screen, ages) == masked(&shown, ages);
                written += &format!("console\n{}", if same { screen } else { &shown });
                count += 1;
                agent.api().clean()?;
            }
            _ => {
                if let Some(file) = part.strip_prefix("yaml\n").filter(|_| at % 2 == 1) {
                    std::fs::write(folder.path().join("sessions.yaml"), file)?;
                }
                written += part;
            }
        }
    }
    ensure!(count >= at_least, "only {count} screens");
    if is_update() {
        std::fs::write(&path, &written)?;
        return Ok(());
    }
    // Not a line that differs in its ids only.
    let differ = text.lines().zip(written.lines()).find(|(old, new)| masked(old, true) != masked(new, true));
    ensure!(
        text == written,
        "{document} has `{}`, the program prints `{}`; UPDATE_DOCS=1 on the same command writes it",
        differ.map_or("no end", |(old, _)| old),
        differ.map_or("an end", |(_, new)| new)
    );
    Ok(())
}

/// Whether the command runs until it is stopped.
fn is_watch(typed: &str) -> bool {
    typed.ends_with(" watch")
}

/// Runs the commands of a block and returns the block as it would be now.
fn capture(screen: &str, agent: &Consul, folder: &TempDir, bin: &Path) -> Result<String> {
    let port = agent.http().port();
    let (test_address, default_address) = (format!("localhost:{port}"), "localhost:8500");
    let mut shown = String::new();
    // The value of `$?` for the next command.
    let mut status = 0;
    for typed in screen.lines().filter_map(|line| line.strip_prefix("$ ")) {
        // In place of the shell, so that a signal reaches the program.
        let line = match is_watch(typed) {
            true => format!("exec {typed}"),
            false => format!("(exit {status}); {}", with_port(typed, port)),
        };
        let mut shell = program::consul_session("sh", &["-c", &line], &[("CONSUL_HTTP_ADDR", &test_address)])?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = [bin.to_owned()].into_iter().chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(paths)?).env("NO_COLOR", "1").env("TERM", "xterm").current_dir(folder.path());
        let text = match is_watch(typed) {
            true => watched(&mut shell, agent)?,
            false => {
                let (terminal, ended) = Terminal::run_to_end(&mut shell, COLUMNS)?;
                status = ended.code().with_context(|| format!("{typed}: {ended}"))?;
                terminal.text()
            }
        };
        shown += &format!("$ {typed}\n{}", text.replace(&test_address, default_address));
    }
    Ok(shown)
}

/// Names the agent's port in a call in WAVE. A document has the default port there, or none.
fn with_port(typed: &str, port: u16) -> String {
    typed.replace("port: 8500", &format!("port: {port}")).replace("'apply({", &format!("'apply({{port: {port}, "))
}

/// Returns the screen of `watch` after one session came and another went.
fn watched(shell: &mut Command, agent: &Consul) -> Result<String> {
    let api = agent.api();
    let first = api.put("/v1/session/create", Some(&json!({"Name": "first"})))?;
    let (terminal, mut child) = Terminal::run(shell, COLUMNS)?;
    let result = (|| {
        terminal.wait_for(|text| text.contains("first"))?;
        api.put("/v1/session/create", Some(&json!({"Name": "second"})))?;
        terminal.wait_for(|text| text.contains("\n+ "))?;
        let Some(id) = first["ID"].as_str() else { bail!("no id: {first}") };
        api.put(&format!("/v1/session/destroy/{id}"), None)?;
        terminal.wait_for(|text| text.contains("\n+ ") && text.contains("\n- "))
    })();
    kill_process(Pid::from_child(&child), Signal::INT)?;
    child.wait()?;
    result
}
