//! The examples for Python, C, Go, Java, Node and the browser, run as `docs/embedding.md` says. The
//! one in Rust is in `crates/host/examples`.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::iter::once;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::{TempDir, tempdir};
use test_support::program::{creates_session1_once, run};
use test_support::tools::{self, root};
use test_support::unused_address;

#[test]
fn python_example_creates_the_session_once() -> Result<()> {
    let python = tools::python()?;
    creates_session1_once(|port| output(Command::new(&python).args(["examples/python/main.py", &port.to_string()])))
}

#[test]
fn c_example_creates_the_session_once() -> Result<()> {
    tools::on_path("cc", "install a C compiler (Debian: gcc)")?;
    Example::of_section("C")?.works()
}

#[test]
fn go_example_creates_the_session_once() -> Result<()> {
    tools::on_path("go", "install Go 1.24 or newer")?;
    tools::on_path("gcc", "install it: cgo needs a C compiler (Debian: gcc)")?;
    Example::of_section("Go")?.works()
}

#[test]
fn java_example_creates_the_session_once() -> Result<()> {
    Example { path: Some(tools::java_home(22)?.join("bin")), ..Example::of_section("Java")? }.works()
}

/// A program that calls every function of the headers, which is linked and not run.
#[test]
fn c_headers_declare_only_what_the_library_has() -> Result<()> {
    tools::on_path("cc", "install a C compiler (Debian: gcc)")?;
    let (library, folder) = (tools::wasmtime_c()?, tempdir()?);
    let headers = "#include <wasi.h>\n#include <wasmtime.h>\n#include <wasmtime/component.h>\n";
    let (include, lib) = (format!("-I{}", library.join("include").display()), format!("-L{}", library.join("lib").display()));
    let source = folder.path().join("all.c");
    std::fs::write(&source, headers)?;
    let declarations = output(Command::new("cc").args(["-E", "-P", &include]).arg(&source))?;
    let words = declarations.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '(');
    let calls = words.filter_map(|word| word.split_once('(').map(|(name, _)| name));
    let functions: BTreeSet<&str> = calls.filter(|name| name.starts_with("wasm") || name.starts_with("wasi_")).collect();
    ensure!(functions.len() > 700, "only {} functions", functions.len());
    let addresses: String = functions.iter().map(|name| format!("(void *)&{name},\n")).collect();
    std::fs::write(&source, format!("{headers}void *all[] = {{\n{addresses}}};\nint main(void) {{ return all[0] == 0; }}\n"))?;
    let mut link = Command::new("cc");
    link.arg(&include).arg(&source).arg("-o").arg(folder.path().join("all")).args([&lib, "-lwasmtime"]);
    output(&mut link).map(drop)
}

#[test]
fn node_example_in_a_folder_of_npm_init_creates_the_session_once() -> Result<()> {
    let project = Project::of_section("Node", "examples/node/main.mjs")?;
    creates_session1_once(|port| output(&mut project.shell(&format!("{} {port}", project.last_command))))
}

#[test]
fn browser_example_as_it_is_served_creates_the_session_once() -> Result<()> {
    tools::chromium()?;
    let project = Project::of_section("A web page", "examples/browser/index.html")?;
    let server = Server::start(&project)?;
    creates_session1_once(|port| {
        let mut example = Command::new("node");
        example.arg("tests/conformance/runners/browser/example.mjs").arg(&project.folder);
        output(example.args([&server.url, &port.to_string()]))
    })
}

/// Returns the standard output of an example.
fn output(example: &mut Command) -> Result<String> {
    if example.get_current_dir().is_none() {
        example.current_dir(root());
    }
    Ok(run(example)?.succeeded()?.stdout)
}

/// Returns the commands of a section of docs/embedding.md.
fn commands(section: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root().join("docs/embedding.md"))?;
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).with_context(|| format!("no section {section}"))?;
    let section = rest.split("\n## ").next().unwrap_or_default();
    let (_, block) = section.split_once("\n```sh\n").context("no commands")?;
    let (block, _) = block.split_once("\n```\n").context("no end of the commands")?;
    Ok(block.replace("\\\n", "").lines().map(str::to_owned).collect())
}

/// A program that calls wasmtime's C library, built by the commands of a section, all but the last.
struct Example {
    last_command: String,
    /// A folder that is searched for programs before the others.
    path: Option<PathBuf>,
}

impl Example {
    /// Runs the commands in the folder of the repository.
    ///
    /// `cargo xtask test` has run the first one, which installs the library.
    fn of_section(section: &str) -> Result<Example> {
        tools::wasmtime_c()?;
        let mut commands = commands(section)?;
        ensure!(commands.first().is_some_and(|first| first == "cargo xtask wasmtime-c"), "{commands:?}");
        let last_command = commands.pop().unwrap_or_default();
        let script = format!("set -e\n{}", commands[1..].join("\n"));
        output(tools::command("sh").args(["-c", &script])).with_context(|| script.clone())?;
        Ok(Example { last_command, path: None })
    }

    /// Returns the last command, for an agent at this port.
    fn run(&self, port: u16) -> Result<Command> {
        let mut shell = tools::command("sh");
        if let Some(folder) = &self.path {
            let path = std::env::var_os("PATH").unwrap_or_default();
            shell.env("PATH", std::env::join_paths(once(folder.clone()).chain(std::env::split_paths(&path)))?);
        }
        shell.args(["-c", &format!("{} {port}", self.last_command)]).current_dir(root());
        Ok(shell)
    }

    /// Checks that it creates the session once. Without Consul it prints the error's case and message,
    /// and the status is 1.
    fn works(&self) -> Result<()> {
        creates_session1_once(|port| output(&mut self.run(port)?))?;
        let failed = run(&mut self.run(unused_address()?.port())?)?;
        let message = "unreachable: no answer from localhost:";
        ensure!(failed.status == 1 && failed.stdout.is_empty(), "{failed:?}");
        ensure!(failed.stderr.starts_with(message) && failed.stderr.lines().count() == 1, "{failed:?}");
        Ok(())
    }
}

/// A folder in which a reader has typed the commands of a section, all but the last.
struct Project {
    folder: PathBuf,
    last_command: String,
    _parent: TempDir,
}

impl Project {
    /// Copies the example and the plugin, and runs the commands of a section of docs/embedding.md.
    ///
    /// npm installs nothing: the folder gets the packages that are pinned for the tests.
    fn of_section(section: &str, example: &str) -> Result<Project> {
        let mut commands = commands(section)?;
        let last_command = commands.pop().unwrap_or_default();
        ensure!(commands.first().is_some_and(|first| first == "npm init -y"), "{commands:?}");

        let parent = tempdir()?;
        // npm names the package after the folder.
        let folder = parent.path().join("app");
        std::fs::create_dir(&folder)?;
        let name = Path::new(example).file_name().context("no file")?;
        std::fs::copy(root().join(example), folder.join(name))?;
        std::fs::copy(test_support::plugin()?, folder.join("consul-session-plugin.wasm"))?;
        let project = Project { folder, last_command, _parent: parent };
        for command in commands {
            match command.strip_prefix("npm install ") {
                Some(packages) => project.link(packages)?,
                None => drop(output(&mut project.shell(&command)).with_context(|| command.clone())?),
            }
        }
        Ok(project)
    }

    /// Links the installed packages, which include these.
    fn link(&self, packages: &str) -> Result<()> {
        let modules = tools::node_modules()?;
        for package in packages.split(' ') {
            ensure!(modules.join(package).is_dir(), "{package} is not in tests/conformance/runners/package.json");
        }
        Ok(std::os::unix::fs::symlink(modules, self.folder.join("node_modules"))?)
    }

    /// Returns a command as a shell runs it in the folder.
    fn shell(&self, line: &str) -> Command {
        let mut shell = tools::command("sh");
        // Without it, npx would download what the folder lacks.
        shell.env("NPM_CONFIG_OFFLINE", "true").env("NPM_CONFIG_UPDATE_NOTIFIER", "false");
        shell.args(["-c", line]).current_dir(&self.folder);
        shell
    }
}

/// The server of a web page.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// Runs the last command of the section, on a free port in place of 8000.
    fn start(project: &Project) -> Result<Server> {
        let command = project.last_command.replace(" 8000 ", " 0 ");
        ensure!(command != project.last_command, "another port than 8000: {command}");
        let mut shell = project.shell(&format!("exec {command}"));
        shell.env("PYTHONUNBUFFERED", "1").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server { process: shell.spawn()?, url: String::new() };
        let mut line = String::new();
        BufReader::new(server.process.stdout.take().context("no output")?).read_line(&mut line)?;
        // `Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ...`
        let port = line.split_once(" port ").and_then(|(_, rest)| rest.split(' ').next()).with_context(|| line.clone())?;
        server.url = format!("http://localhost:{port}");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
