//! The texts of the licences under which a release passes on the work of others.

use crate::linked::{Artifact, Id, Package, Rust, Workspace};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use spdx::detection::scan::Scanner;
use spdx::detection::{Store, TextData};
use spdx::{Expression, LicenseReq, Licensee, ParseMode};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The licences whose text names no holder of a copyright. Where a crate has no file with the text,
/// that of SPDX is the same.
const WITHOUT_HOLDER: [&str; 3] = ["Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MPL-2.0"];

/// How alike a file and SPDX's text are, from 0 to 1.
const ALIKE: f32 = 0.8;

/// Files with several licences, one of which the scan does not find: crate, file, that licence, and
/// words that say so.
const SEVERAL: [(&str, &str, &str, &str); 1] = [("libm", "LICENSE.txt", "MIT", "available for use under the MIT license")];

/// Beginnings of the names of files about licences, in capitals.
const FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The licences that `deny.toml` accepts.
pub struct Licences {
    /// For every crate, the preferred ones first.
    accepted: Vec<Licensee>,
    exceptions: Vec<Exception>,
    texts: Store,
    /// What was found in a text: many crates have the same.
    found: RefCell<BTreeMap<String, Vec<String>>>,
}

struct Exception {
    name: String,
    accepted: Vec<Licensee>,
}

/// The part of `deny.toml` about licences.
#[derive(Deserialize)]
struct Config {
    licenses: Section,
}

#[derive(Deserialize)]
struct Section {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

/// A text, and the packages that it applies to.
type Texts = BTreeMap<String, BTreeSet<String>>;

impl Licences {
    /// Reads what the workspace's `deny.toml` accepts.
    pub fn read(root: &Path) -> Result<Licences> {
        let file = root.join("deny.toml");
        Licences::parse(&std::fs::read_to_string(&file)?).with_context(|| file.display().to_string())
    }

    fn parse(config: &str) -> Result<Licences> {
        let licensees = |names: Vec<String>| -> Result<Vec<Licensee>> {
            names.iter().map(|name| Licensee::parse(name).with_context(|| format!("`{name}` is not a licence"))).collect()
        };
        let config: Config = toml::from_str(config)?;
        let accepted = licensees(config.licenses.allow)?;
        let exceptions = config.licenses.exceptions.into_iter().map(|entry| {
            // Not the version that may follow the name.
            let name = entry.name.split(['@', ':']).next().unwrap_or_default().to_owned();
            Ok(Exception { name, accepted: licensees(entry.allow)? })
        });
        let exceptions: Vec<Exception> = exceptions.collect::<Result<_>>()?;
        let mut texts = Store::new();
        for licensee in accepted.iter().chain(exceptions.iter().flat_map(|exception| &exception.accepted)) {
            let licence = licensee.clone().into_req();
            texts.add_license(licence.to_string(), TextData::new(&spdx_text(&licence)?));
        }
        Ok(Licences { accepted, exceptions, texts, found: RefCell::default() })
    }

    /// Returns the text of a file with all licences of what is linked into the artifacts.
    ///
    /// # Errors
    ///
    /// If a licence is not accepted, or a crate has no file with the text of its licence.
    pub fn text(&self, workspace: &Workspace, artifacts: &[&Artifact]) -> Result<String> {
        let mut packages: BTreeMap<Id, Package> = BTreeMap::new();
        for artifact in artifacts {
            packages.extend(workspace.linked(artifact)?.packages);
        }
        let mut texts = Texts::new();
        let mut list = String::new();
        let mut mistakes = Vec::new();
        for package in packages.values().filter(|package| !package.is_ours()) {
            let label = format!("{} {}", package.name, package.version);
            match self.texts_of(package) {
                Ok(found) => found.into_iter().for_each(|text| {
                    texts.entry(text).or_default().insert(label.clone());
                }),
                Err(error) => mistakes.push(format!("{label}: {error:#}")),
            }
            writeln!(list, "{label}: {}", canonical(&package.licence)?)?;
            if let Some(address) = &package.repository {
                writeln!(list, "    {address}")?;
            }
        }
        ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
        Ok(file(workspace.rust(), &list, texts, &plain(&workspace.rust().notices()?)))
    }

    /// Returns the texts of the licences that the package is passed on under, and its notices.
    fn texts_of(&self, package: &Package) -> Result<Vec<String>> {
        let mut chosen: BTreeSet<String> = BTreeSet::new();
        let mut missing: BTreeMap<String, LicenseReq> = BTreeMap::new();
        for licence in self.chosen(package)? {
            chosen.insert(licence.to_string());
            missing.insert(licence.to_string(), licence);
        }
        let mut texts = Vec::new();
        for file in files(&package.folder)? {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let text = trimmed(&text);
            let mut found = self.found_in(&text);
            for (name, path, licence, words) in SEVERAL {
                if name == package.name && file.ends_with(path) && text.contains(words) {
                    found.push(licence.to_owned());
                }
            }
            for licence in &found {
                missing.remove(licence);
            }
            // Left out: the texts of licences that were not chosen.
            if found.is_empty() || found.iter().any(|licence| chosen.contains(licence)) {
                texts.push(text);
            }
        }
        for (name, licence) in missing {
            ensure!(WITHOUT_HOLDER.contains(&name.as_str()), "no file has the text of {name}");
            texts.push(trimmed(&spdx_text(&licence)?));
        }
        Ok(texts)
    }

    /// Returns the licences that are enough for the package, the preferred ones.
    fn chosen(&self, package: &Package) -> Result<Vec<LicenseReq>> {
        let Package { name, licence, .. } = package;
        let exceptions = self.exceptions.iter().filter(|exception| exception.name == *name);
        let accepted = self.accepted.iter().chain(exceptions.flat_map(|exception| &exception.accepted));
        let expression = Expression::parse_mode(licence, ParseMode::LAX).with_context(|| format!("the licence `{licence}`"))?;
        match expression.minimized_requirements(accepted) {
            Ok(chosen) => Ok(chosen),
            Err(_) => bail!("the licence `{licence}` is not in deny.toml: add it to `allow`, or do without {name}"),
        }
    }

    /// Returns the licences whose text is in this one.
    fn found_in(&self, text: &str) -> Vec<String> {
        if let Some(found) = self.found.borrow().get(text) {
            return found.clone();
        }
        let scanner = Scanner::new(&self.texts).confidence_threshold(ALIKE).optimize(true);
        let result = scanner.scan(&TextData::new(text));
        let contained = result.containing.iter().map(|found| found.license.name);
        let found: Vec<String> = result.license.iter().map(|found| found.name).chain(contained).map(str::to_owned).collect();
        self.found.borrow_mut().insert(text.to_owned(), found.clone());
        found
    }
}

/// Returns the expression as SPDX writes it: `MIT OR Apache-2.0` for `MIT/Apache-2.0`.
pub fn canonical(licence: &str) -> Result<String> {
    let canonical = Expression::canonicalize(licence).with_context(|| format!("the licence `{licence}`"))?;
    Ok(canonical.unwrap_or_else(|| licence.to_owned()))
}

/// Returns SPDX's text of a licence.
fn spdx_text(licence: &LicenseReq) -> Result<String> {
    let text = licence.license.id().with_context(|| format!("SPDX does not have `{licence}`"))?.text();
    let exception = match &licence.addition {
        None => "",
        Some(exception) => exception.id().with_context(|| format!("SPDX does not have `{licence}`"))?.text(),
    };
    Ok(format!("{text}\n{exception}"))
}

/// Returns the files about licences in a crate's folder, in the order of their names: those with
/// such a name, and all in a folder with such a name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    };
    let mut files = Vec::new();
    for path in list(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if FILES.iter().any(|beginning| name.trim_start_matches('.').starts_with(beginning)) {
            if path.is_dir() { files.extend(list(&path)?) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the text without spaces and empty lines at its ends, and with plain line ends.
fn trimmed(text: &str) -> String {
    let text: String = text.trim_start_matches('\u{feff}').lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    text.trim_matches('\n').to_owned()
}

/// Returns the text of HTML without its markup and without empty lines in a row.
fn plain(html: &str) -> String {
    let mut text = String::new();
    // Not what is before the body: the title and the style.
    let body = html.split_once("<body>").map_or(html, |(_, body)| body);
    let mut rest = body;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        rest = tag.split_once('>').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    for (escaped, character) in [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">")]
    {
        text = text.replace(escaped, character);
    }
    text = text.replace("&#38;", "&").replace("&amp;", "&");
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.dedup_by(|one, before| one.is_empty() && before.is_empty());
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Puts the parts together.
fn file(rust: &Rust, list: &str, texts: Texts, library: &str) -> String {
    const RULE: &str = "--------------------------------------------------------------------------------";
    let mut file = format!(
        "The licences of the software of others that is in consul-session: the program, the plugin and the\n\
         command component. consul-session itself is under MIT OR Apache-2.0.\n\n\
         {RULE}\nCrates, their licences and where their source is\n{RULE}\n\n{list}\
         Rust's standard library {}: MIT OR Apache-2.0\n    https://github.com/rust-lang/rust\n",
        rust.version,
    );
    // Sorted by the crates, and not by the text.
    let mut sections: Vec<(String, String)> =
        texts.into_iter().map(|(text, used)| (used.into_iter().collect::<Vec<_>>().join(", "), text)).collect();
    sections.sort();
    sections.push((format!("Rust's standard library {}", rust.version), library.to_owned()));
    for (used, text) in sections {
        file += &format!("\n{RULE}\n{used}\n{RULE}\n\n{text}\n");
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const CONFIG: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Zlib"]
        exceptions = [{ crate = "one@1", allow = ["MPL-2.0"] }]
    "#;

    /// A crate with these files, and the texts that are passed on with it.
    fn texts_of(licence: &str, files: &[(&str, &str)]) -> Result<Vec<String>> {
        let folder = TempDir::new()?;
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::write(path, text)?;
        }
        Licences::parse(CONFIG)?.texts_of(&Package {
            name: "one".into(),
            version: "1.0.0".into(),
            description: None,
            licence: licence.into(),
            repository: None,
            folder: folder.path().into(),
            sha256: Some(String::new()),
        })
    }

    fn text(licence: &str) -> Result<String> {
        Ok(spdx::license_id(licence).context("no such licence")?.text().to_owned())
    }

    #[test]
    fn texts_of_licences_that_are_not_needed_are_left_out() -> Result<()> {
        let (mit, apache) = (text("MIT")?, text("Apache-2.0")?);
        let files =
            [("LICENSE-MIT", &*mit), ("LICENSE-APACHE", &apache), ("NOTICE.txt", "Made by one.\r\n"), ("README", "text")];
        assert_eq!(texts_of("Apache-2.0/MIT", &files)?, [trimmed(&mit), "Made by one.".into()]);
        assert_eq!(texts_of("MIT AND Apache-2.0", &files)?, [trimmed(&apache), trimmed(&mit), "Made by one.".into()]);
        Ok(())
    }

    #[test]
    fn files_in_a_folder_of_licences_are_found() -> Result<()> {
        let mit = text("MIT")?;
        assert_eq!(texts_of("MIT", &[(".licenses/of-one", &mit), ("LICENSE", "See .licenses.")])?.len(), 2);
        Ok(())
    }

    #[test]
    fn missing_text_of_a_licence_without_holder_is_that_of_spdx() -> Result<()> {
        assert_eq!(texts_of("Apache-2.0", &[])?, [trimmed(&text("Apache-2.0")?)]);
        // By the exception for this crate.
        assert_eq!(texts_of("MPL-2.0", &[])?, [trimmed(&text("MPL-2.0")?)]);
        Ok(())
    }

    #[test]
    fn missing_and_unknown_texts_are_refused() -> Result<()> {
        let (mit, zlib) = (text("MIT")?, text("Zlib")?);
        for files in [&[][..], &[("LICENSE", "Do what you like.")], &[("LICENSE", &zlib)], &[("README", &mit)]] {
            let error = texts_of("MIT", files).expect_err("no text");
            assert_eq!(error.to_string(), "no file has the text of MIT");
        }
        Ok(())
    }

    #[test]
    fn licences_that_are_not_accepted_are_refused() {
        for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "ISC", "Apache-2.0 WITH LLVM-exception"] {
            let error = texts_of(licence, &[]).expect_err("a licence that is not accepted");
            let expected = format!("the licence `{licence}` is not in deny.toml: add it to `allow`, or do without one");
            assert_eq!(error.to_string(), expected);
        }
        assert!(texts_of("no licence", &[]).expect_err("no expression").to_string().starts_with("the licence `no licence`"));
    }

    #[test]
    fn markup_is_left_out() {
        let html = "<html><head><title>T</title></head><body>\n<p>A &#60;b&#62; &amp;lt;</p>\n\n\n<i>c</i></body></html>";
        assert_eq!(plain(html), "A <b> &lt;\n\nc");
    }
}
