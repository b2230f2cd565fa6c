//! The package for Debian and its descendants, made by nfpm.

use super::archive::{Entry, gzip, source_date};
use super::{DOCUMENTS, VERSION};
use crate::install::{COMPLETIONS, MANUAL, PROGRAM};
use crate::tools::{output, root, run_command};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

/// The targets of Rust that have a package, and what Debian calls their architectures.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64-unknown-linux-gnu", "amd64"), ("aarch64-unknown-linux-gnu", "arm64")];

/// A host of `.example` belongs to nobody.
const MAINTAINER: &str = "The consul-session authors <maintainers@consul-session.example>";

/// The first line is the summary.
const DESCRIPTION: &str = "\
operate Consul sessions, from a shell or Ansible
consul-session lists, creates, renews and destroys sessions of HashiCorp
Consul, runs commands under a lock, and brings sessions to a desired state.
The code that talks to Consul is a WebAssembly component inside the program,
which can connect only where its rules allow.";

/// Where Debian's zsh looks for the completions of packages.
const ZSH: &str = "share/zsh/vendor-completions/_consul-session";

/// The file `copyright`, before the MIT licence. Debian has the Apache License in one place.
const COPYRIGHT: &str = "\
consul-session is under the MIT License or the Apache License, Version 2.0, at your
option. The latter is in /usr/share/common-licenses/Apache-2.0, the former is below.
The licences of the libraries that are linked into the program are in
LICENSES-THIRD-PARTY.txt.gz.

";

/// The packages of the libraries that Rust's programs are linked with.
const LIBRARIES: [(&str, &str); 6] = [
    ("libc.so.", "libc6"),
    ("libm.so.", "libc6"),
    ("libdl.so.", "libc6"),
    ("libpthread.so.", "libc6"),
    ("ld-linux", "libc6"),
    ("libgcc_s.so.", "libgcc-s1"),
];

/// Writes the package, with the files that the archive has. There is none for most targets.
///
/// `work` is an empty folder for the files that nfpm reads; `program` is the one among `installed`.
pub fn write(folder: &Path, work: &Path, nfpm: &Path, target: &str, program: &Path, installed: &[Entry]) -> Result<()> {
    let Some((_, architecture)) = ARCHITECTURES.iter().find(|(name, _)| *name == target) else {
        println!("no .deb for {target}");
        return Ok(());
    };
    let time = source_date()?;
    let mut contents = Vec::new();
    for (number, entry) in entries(installed, VERSION, time)?.into_iter().enumerate() {
        let source = work.join(number.to_string());
        std::fs::write(&source, &entry.bytes)?;
        contents.push(json!({"src": source, "dst": entry.path, "file_info": {"mode": entry.mode}}));
    }
    let mut readelf = Command::new("readelf");
    let needs = output(readelf.args(["--wide", "--dynamic", "--version-info"]).arg(program))?;
    // JSON is YAML.
    let config = json!({
        "name": PROGRAM,
        "arch": architecture,
        "platform": "linux",
        "version": VERSION,
        "section": "net",
        "priority": "optional",
        "maintainer": MAINTAINER,
        "homepage": env!("CARGO_PKG_REPOSITORY"),
        "description": DESCRIPTION,
        "depends": depends(&needs)?,
        "disable_globbing": true,
        "contents": contents,
    });
    let file = work.join("nfpm.yaml");
    std::fs::write(&file, config.to_string())?;
    let package = folder.join(format!("{PROGRAM}_{VERSION}_{architecture}.deb"));
    let mut command = Command::new(nfpm);
    command.args(["package", "--packager", "deb", "--config"]).arg(file).arg("--target").arg(package);
    run_command(command.env("SOURCE_DATE_EPOCH", time.to_string()).stdout(Stdio::null()))
}

/// Returns the files of the package: those of the archive as Debian's policy wants them, and two
/// that it requires.
fn entries(installed: &[Entry], version: &str, time: u64) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in installed {
        let Entry { path, mode, bytes } = entry.clone();
        let name = path.strip_prefix(DOCUMENTS).map(|name| name.trim_start_matches('/'));
        let is_compressed = path.starts_with(MANUAL) || matches!(name, Some("CHANGELOG.md" | "LICENSES-THIRD-PARTY.txt"));
        entries.push(match name {
            // Their text is in `copyright`.
            Some("LICENSE-MIT" | "LICENSE-APACHE") => continue,
            _ if is_compressed => Entry { path: format!("/usr/{path}.gz"), mode, bytes: gzip(&bytes)? },
            _ if COMPLETIONS.contains(&("zsh", &path)) => Entry { path: format!("/usr/{ZSH}"), mode, bytes },
            _ => Entry { path: format!("/usr/{path}"), mode, bytes },
        });
    }
    let copyright = COPYRIGHT.to_owned() + &std::fs::read_to_string(root().join("LICENSE-MIT"))?;
    entries.push(Entry::file(format!("/usr/{DOCUMENTS}/copyright"), copyright));
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time)).replace("GMT", "+0000");
    let changelog = format!(
        "{PROGRAM} ({version}) unstable; urgency=medium\n\n  * Release {version}; the changes are in CHANGELOG.md.gz.\n\n \
         -- {MAINTAINER}  {date}\n"
    );
    entries.push(Entry::file(format!("/usr/{DOCUMENTS}/changelog.gz"), gzip(changelog.as_bytes())?));
    Ok(entries)
}

/// Returns the packages that the program needs, from what `readelf` prints of it: those of its
/// libraries, of libc6 at least the version whose symbols it uses.
fn depends(readelf: &str) -> Result<Vec<String>> {
    let mut glibc = None;
    let mut packages = BTreeMap::new();
    for line in readelf.lines() {
        if let Some((_, library)) = line.split_once("Shared library: [") {
            let library = library.trim_end_matches(']');
            let package = LIBRARIES.iter().find(|(name, _)| library.starts_with(name));
            let Some((_, package)) = package else { bail!("no package of Debian is known for {library}") };
            packages.insert(*package, None);
        }
        if let Some((_, symbols)) = line.split_once("Name: GLIBC_") {
            let symbols = symbols.split_whitespace().next().unwrap_or_default();
            let parts = symbols.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>();
            glibc = glibc.max(Some((parts.with_context(|| format!("GLIBC_{symbols}"))?, symbols)));
        }
    }
    let (_, glibc) = glibc.context("readelf prints no version of glibc")?;
    ensure!(packages.contains_key("libc6"), "readelf prints no libraries");
    packages.insert("libc6", Some(glibc));
    let depends = packages.into_iter().map(|(package, version)| match version {
        Some(version) => format!("{package} (>= {version})"),
        None => package.to_owned(),
    });
    Ok(depends.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_has_the_newest_symbols_of_glibc() -> Result<()> {
        let printed = "\
 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
  0x0010:   Name: GLIBC_2.3  Flags: none  Version: 10
  0x0020:   Name: GCC_3.0  Flags: none  Version: 9
  0x0030:   Name: GLIBC_2.34  Flags: none  Version: 8
  0x0040:   Name: GLIBC_2.2.5  Flags: none  Version: 3
";
        assert_eq!(depends(printed)?, ["libc6 (>= 2.34)", "libgcc-s1"]);
        let error = depends(&printed.replace("libgcc_s", "libssl")).expect_err("an unknown library");
        assert_eq!(error.to_string(), "no package of Debian is known for libssl.so.1");
        assert!(depends("").is_err());
        Ok(())
    }

    #[test]
    fn files_are_where_debian_has_them() -> Result<()> {
        let paths = ["bin/consul-session", "share/man/man1/consul-session.1", COMPLETIONS[1].1];
        let documents = ["README.md", "CHANGELOG.md", "LICENSE-MIT"].map(|name| format!("{DOCUMENTS}/{name}"));
        let installed = paths.iter().map(|path| (*path).to_owned()).chain(documents).map(|path| Entry::file(path, ""));
        let found: Vec<String> =
            entries(&installed.collect::<Vec<_>>(), "0.1.0", 0)?.into_iter().map(|entry| entry.path).collect();
        let documents = ["README.md", "CHANGELOG.md.gz", "copyright", "changelog.gz"];
        let expected = ["bin/consul-session", "share/man/man1/consul-session.1.gz", ZSH].map(|path| format!("/usr/{path}"));
        let documents = documents.map(|name| format!("/usr/share/doc/consul-session/{name}"));
        assert_eq!(found, [&expected[..], &documents].concat());
        Ok(())
    }
}
