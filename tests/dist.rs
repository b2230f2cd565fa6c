//! The files of a release, as `cargo xtask dist` makes them, installed and used as docs/packages.md
//! says.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;
use test_support::consul::{Consul, Kind};
use test_support::program::{run, stdout_of};
use test_support::tools::{command, dist, dist_file, on_path, root};
use test_support::{plugin, started};
use wit_component::{DecodedWasm, WitPrinter};
use wit_parser::{InterfaceId, PackageId, Resolve, WorldItem};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMS: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.minisig";

/// What the program writes below an installation's root, and a part of the text of each.
const DOCUMENTATION: [(&str, &str); 4] = [
    ("share/man/man1/consul-session-lock.1", ".TH consul-session-lock 1"),
    ("share/bash-completion/completions/consul-session", "complete -F "),
    ("share/zsh/site-functions/_consul-session", "#compdef consul-session"),
    ("share/fish/vendor_completions.d/consul-session.fish", "complete -c consul-session"),
];

/// A second folder made from the same source, signed with a key that is made for it.
static SECOND: LazyLock<Result<Signed>> = LazyLock::new(Signed::make);

struct Signed {
    _keys: TempDir,
    public_key: PathBuf,
    folder: PathBuf,
}

impl Signed {
    fn make() -> Result<Signed> {
        on_path("minisign", "install it (Debian: apt-get install minisign)")?;
        let keys = tempfile::tempdir()?;
        let [public_key, secret_key, folder] = ["key.pub", "key.sec", "release"].map(|name| keys.path().join(name));
        // -W: without a password.
        stdout_of(Command::new("minisign").args(["-G", "-W", "-p"]).arg(&public_key).arg("-s").arg(&secret_key))?;
        let mut xtask = Command::new("cargo");
        xtask.args(["xtask", "dist", "--debug", "--to"]).arg(&folder).arg("--sign").arg(&secret_key).current_dir(root());
        stdout_of(&mut xtask)?;
        Ok(Signed { _keys: keys, public_key, folder })
    }
}

/// Returns the names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Returns the command of docs/packages.md that begins so.
fn documented(begin: &str) -> Result<String> {
    let document = std::fs::read_to_string(root().join("docs/packages.md"))?;
    let blocks = document.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let mut lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or_default().trim_end());
    let line = lines.find(|line| line.starts_with(begin));
    Ok(line.with_context(|| format!("docs/packages.md has no command `{begin}`"))?.to_owned())
}

/// Returns the shell that runs a line in this folder.
fn shell(line: &str, folder: &Path) -> Command {
    let mut shell = command("sh");
    shell.args(["-c", line]).current_dir(folder);
    shell
}

/// Creates a session on a real agent and lists it. `program` makes the command that runs the
/// installed program, which has nothing but its own file and a folder for what it compiled.
fn use_on_an_agent(cache: &Path, program: impl Fn() -> Result<Command>) -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let run_program = |args: &[&str]| -> Result<String> {
        let mut program = program()?;
        program.args(args).env("CONSUL_HTTP_ADDR", agent.http().to_string());
        program.env("CONSUL_SESSION_CACHE", cache).env_remove("CONSUL_SESSION_PLUGIN");
        Ok(run(&mut program)?.succeeded()?.stdout)
    };
    let version = run_program(&["--version"])?;
    ensure!(version.starts_with(&format!("consul-session {VERSION}")), "{version}");
    let created = run_program(&["present", "session1", "--delay", "20s"])?;
    ensure!(created.starts_with("changed: created a session\n"), "{created}");
    let sessions = agent.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["Name"] == "session1", "{sessions:?}");
    let (list, id) = (run_program(&["list"])?, sessions[0]["ID"].as_str().context("no id")?);
    ensure!(list.contains(id) && list.contains("session1"), "{list}");
    Ok(())
}

#[test]
fn checksums_cover_every_file() -> Result<()> {
    let folder = dist()?;
    let printed = stdout_of(&mut shell(&documented("sha256sum")?, &folder))?;
    let checked: Vec<&str> = printed.lines().filter_map(|line| line.strip_suffix(": OK")).collect();
    let files: Vec<String> = names(&folder)?.into_iter().filter(|name| ![SUMS, SIGNATURE].contains(&&**name)).collect();
    ensure!(checked == files, "{checked:?} are checked, not {files:?}");
    Ok(())
}

#[test]
fn folder_has_every_file_of_a_release() -> Result<()> {
    let found: Vec<String> = names(&dist()?)?.into_iter().filter(|name| name != SIGNATURE).collect();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let expected = [
        "RELEASE_NOTES.md".into(),
        "REVISION".into(),
        SUMS.into(),
        format!("consul-session-{VERSION}-{target}.tar.gz"),
        format!("consul-session-{VERSION}.cdx.json"),
        format!("consul-session-command-{VERSION}.cdx.json"),
        format!("consul-session-plugin-{VERSION}.cdx.json"),
        format!("consul-session-plugin-{VERSION}.wit"),
        format!("consul-session-plugin-{VERSION}.wit.wasm"),
        "consul-session-plugin.wasm".into(),
        "consul-session.wasm".into(),
        format!("consul-session_{VERSION}_{}.deb", stdout_of(command("dpkg").arg("--print-architecture"))?.trim()),
        format!("consul_session-consul-{VERSION}.tar.gz"),
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

#[test]
fn second_run_gives_the_same_bytes() -> Result<()> {
    let (first, second) = (dist()?, &started(&SECOND)?.folder);
    let files = names(second)?.into_iter().filter(|name| name != SIGNATURE).collect::<Vec<_>>();
    ensure!(files == names(&first)?, "{files:?}");
    let mut differ = Vec::new();
    for name in &files {
        if std::fs::read(first.join(name))? != std::fs::read(second.join(name))? {
            differ.push(name);
        }
    }
    let remedy = "if the source changed since, make the first one again";
    ensure!(differ.is_empty(), "{differ:?} differ from those in {}; {remedy}", first.display());
    Ok(())
}

#[test]
fn signature_is_valid_until_a_file_changes() -> Result<()> {
    let Signed { folder, public_key, .. } = started(&SECOND)?;
    let copy = tempfile::tempdir()?;
    for name in names(folder)? {
        std::fs::copy(folder.join(&name), copy.path().join(&name))?;
    }
    std::fs::copy(public_key, copy.path().join("consul-session.pub"))?;
    let (signature, sums) = (documented("minisign -V")?, documented("sha256sum")?);
    let verified = stdout_of(&mut shell(&signature, copy.path()))?;
    ensure!(verified.contains(&format!("Trusted comment: consul-session {VERSION}\n")), "{verified}");
    stdout_of(&mut shell(&sums, copy.path()))?;

    let notes = copy.path().join("RELEASE_NOTES.md");
    std::fs::write(&notes, std::fs::read_to_string(&notes)? + " ")?;
    let checked = run(&mut shell(&sums, copy.path()))?;
    ensure!(checked.status != 0 && checked.stdout.contains("RELEASE_NOTES.md: FAILED\n"), "{checked:?}");
    // Whoever changes a file can change its checksum, and not the signature.
    stdout_of(&mut shell(&format!("sha256sum $(cut -d' ' -f3 {SUMS}) > new; mv new {SUMS}"), copy.path()))?;
    stdout_of(&mut shell(&sums, copy.path()))?;
    let verified = run(&mut shell(&signature, copy.path()))?;
    ensure!(verified.status != 0 && verified.stderr.contains("Signature verification failed"), "{verified:?}");
    Ok(())
}

#[test]
fn archive_in_a_prefix_works_on_an_agent() -> Result<()> {
    let prefix = tempfile::tempdir()?;
    let line = documented("tar ")?;
    ensure!(line.contains(" -C /usr/local "), "{line}");
    stdout_of(&mut shell(&line.replace("/usr/local", &prefix.path().display().to_string()), &dist()?))?;
    ensure!(names(prefix.path())? == ["bin", "share"], "{:?}", names(prefix.path())?);
    use_on_an_agent(&prefix.path().join("cache"), || Ok(command(prefix.path().join("bin/consul-session"))))?;
    for (path, part) in DOCUMENTATION {
        let text = std::fs::read_to_string(prefix.path().join(path)).with_context(|| path.to_owned())?;
        ensure!(text.contains(part), "{path}: {text}");
    }
    let documents = names(&prefix.path().join("share/doc/consul-session"))?;
    let expected = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "LICENSES-THIRD-PARTY.txt", "README.md"];
    ensure!(documents == expected, "{documents:?}");
    on_path("man", "install it (Debian: apt-get install man-db)")?;
    let page = prefix.path().join(DOCUMENTATION[0].0);
    let printed = stdout_of(command("man").arg("-l").arg(page).env("MANPAGER", "cat").env("MANROFFOPT", "-c"))?;
    ensure!(printed.contains("consul-session-lock(1)") && printed.contains("SYNOPSIS"), "{printed}");
    Ok(())
}

#[test]
fn archive_has_one_top_folder_and_belongs_to_root() -> Result<()> {
    let archive = dist_file("consul-session-", ".tar.gz")?;
    let listed = stdout_of(command("tar").arg("--numeric-owner").arg("-tvzf").arg(&archive))?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let top = name.strip_suffix(".tar.gz").context("no archive")?;
    for line in listed.lines() {
        let mode = if line.contains("/bin/") { "-rwxr-xr-x 0/0 " } else { "-rw-r--r-- 0/0 " };
        ensure!(line.starts_with(mode) && line.contains(&format!(" {top}/")), "{line}");
    }
    ensure!(listed.lines().count() > 20, "{listed}");
    Ok(())
}

#[test]
fn debian_package_has_the_fields_and_modes() -> Result<()> {
    let package = dist_file("consul-session_", ".deb")?;
    let fields = stdout_of(command("dpkg-deb").arg("--field").arg(&package))?;
    for field in [
        "Package: consul-session\n",
        &format!("Version: {VERSION}\n"),
        "Section: net\n",
        "Priority: optional\n",
        "Maintainer: The consul-session authors <maintainers@consul-session.example>\n",
        "Homepage: https://github.com/consul-session/consul-session\n",
        "Description: operate Consul sessions, from a shell or Ansible\n",
        ", libgcc-s1\n",
    ] {
        ensure!(fields.contains(field), "{field}{fields}");
    }
    // The version is that of the machine that built it.
    let (_, glibc) = fields.split_once("\nDepends: libc6 (>= 2.").context("no dependency on libc6")?;
    ensure!(glibc.split(')').next().is_some_and(|minor| minor.parse::<u32>().is_ok()), "{fields}");
    let listed = stdout_of(command("dpkg-deb").arg("--contents").arg(&package))?;
    let mut paths = BTreeSet::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[5]);
        ensure!(owner == "root/root", "{line}");
        let expected = match path {
            path if path.ends_with('/') => "drwxr-xr-x",
            "./usr/bin/consul-session" => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        ensure!(mode == expected, "{line}");
        paths.insert(path);
    }
    // Debian's zsh reads another folder than a zsh of /usr/local.
    let zsh = "zsh/vendor-completions/_consul-session";
    for path in ["man/man1/consul-session.1.gz", "doc/consul-session/copyright", "doc/consul-session/changelog.gz", zsh] {
        ensure!(paths.contains(&*format!("./usr/share/{path}")), "{path}: {paths:?}");
    }
    Ok(())
}

/// The root has nothing but the package and the libraries that it depends on.
#[test]
fn debian_package_in_an_empty_root_works_on_an_agent() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let database = root.join("var/lib/dpkg");
    for folder in ["info", "updates"] {
        std::fs::create_dir_all(database.join(folder))?;
    }
    std::fs::write(database.join("status"), "")?;
    let dpkg = |rest: &str| -> Result<String> {
        let line = format!("dpkg --root={} {rest}", root.display());
        stdout_of(as_root("sh")?.args(["-c", &line]).current_dir(dist()?))
    };
    let line = documented("dpkg ")?;
    let install = line.strip_prefix("dpkg ").context("no arguments")?;
    // Debian's own packages of the two libraries are not here.
    dpkg(&format!("--force-depends --force-script-chrootless {install}"))?;
    let status = dpkg("--status consul-session")?;
    ensure!(status.contains("Status: install ok installed\n"), "{status}");
    ensure!(dpkg("--verify consul-session")?.is_empty());

    let program = root.join("usr/bin/consul-session");
    let libraries = stdout_of(command("ldd").arg(&program))?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().context("no folder")?)?;
        std::fs::copy(library, &to)?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755))?;
    }
    use_on_an_agent(Path::new("/cache"), || {
        let mut chroot = as_root("chroot")?;
        chroot.arg(root).arg("/usr/bin/consul-session").current_dir(root);
        Ok(chroot)
    })?;

    dpkg("--force-script-chrootless --remove consul-session")?;
    ensure!(!program.exists() && !root.join("usr/share/doc").exists(), "files are left");
    Ok(())
}

/// Makes a command for which this user is root, in a namespace of its own if it is another.
fn as_root(program: &str) -> Result<Command> {
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        return Ok(command(program));
    }
    let mut unshare = command("unshare");
    unshare.args(["--map-root-user", "--", program]);
    Ok(unshare)
}

#[test]
fn release_notes_are_a_section_of_the_changelog() -> Result<()> {
    let notes = std::fs::read_to_string(dist()?.join("RELEASE_NOTES.md"))?;
    let (heading, text) = notes.split_once("\n\n").context("no heading")?;
    let is_released = heading == format!("# consul-session {VERSION}");
    ensure!(is_released || heading == format!("# consul-session {VERSION} (unreleased)"), "{heading}");
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md"))?;
    let (text, _) = text.split_once("\n## The difference of the WIT\n").unwrap_or((text, ""));
    let section = changelog.replace("\n### ", "\n## ");
    ensure!(text.lines().count() > 5 && section.contains(text.trim_end()), "{text}");
    Ok(())
}

/// Returns the interfaces of a package, by name, as text without comments.
fn interfaces(resolve: &Resolve, package: PackageId) -> Result<BTreeMap<String, String>> {
    let interfaces = resolve.packages[package].interfaces.iter();
    interfaces.map(|(name, id)| Ok((name.clone(), interface(resolve, *id)?))).collect()
}

fn interface(resolve: &Resolve, id: InterfaceId) -> Result<String> {
    let mut printer = WitPrinter::default();
    printer.emit_docs(false).print_interface(resolve, id)?;
    let text: String = printer.output.into();
    // A component does not keep since when it has what.
    Ok(text.lines().filter(|line| !line.trim_start().starts_with("@since")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn wit_package_is_what_the_plugin_exports() -> Result<()> {
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let bytes = read(&dist_file("consul-session-plugin-", ".wit.wasm")?)?;
    let DecodedWasm::WitPackage(package, id) = wit_component::decode(&bytes)? else { anyhow::bail!("not a package") };
    let version = package.packages[id].name.version.as_ref().map(ToString::to_string);
    ensure!(version.as_deref() == Some(VERSION), "{version:?}");
    let encoded = interfaces(&package, id)?;

    let component = dist()?.join("consul-session-plugin.wasm");
    ensure!(read(&component)? == read(&plugin()?)?, "the plugin of the release is not the tested one");
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&read(&component)?)? else {
        anyhow::bail!("not a component")
    };
    let mut exported = BTreeMap::new();
    for (key, item) in &resolve.worlds[world].exports {
        let WorldItem::Interface { id, .. } = item else { anyhow::bail!("{key:?} is not an interface") };
        let name = resolve.interfaces[*id].name.clone().context("no name")?;
        exported.insert(name, interface(&resolve, *id)?);
    }
    ensure!(exported == encoded, "the plugin exports {exported:#?}, the package has {encoded:#?}");

    let text = String::from_utf8(read(&dist_file("consul-session-plugin-", ".wit")?)?)?;
    ensure!(text.contains("  /// How to reach the Consul agent."), "no comments: {text}");
    let mut resolve = Resolve::default();
    let id = resolve.push_source("the text of the release", &text)?;
    ensure!(interfaces(&resolve, id)? == encoded, "the text differs from the package");
    Ok(())
}

#[test]
fn folder_with_other_files_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("thesis.txt"), "years of work")?;
    let output = run(Command::new("cargo").args(["xtask", "dist", "--debug", "--to"]).arg(folder.path()).current_dir(root()))?;
    let expected = format!("Error: {} has files and no SHA256SUMS: name a new folder", folder.path().display());
    ensure!(output.status == 1 && output.stderr.contains(&expected), "{output:?}");
    ensure!(names(folder.path())? == ["thesis.txt"]);
    Ok(())
}
