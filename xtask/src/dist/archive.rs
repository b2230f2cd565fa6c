//! Archives with the same bytes on every machine: sorted, owned by root, with one time for all.

use crate::tools::{output, root};
use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tar::{Builder, EntryType, Header};

/// A file or a folder of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path with `/` between its parts. That of a folder ends with `/`; folders are only in the
    /// archive if they are listed.
    pub path: String,
    /// The permissions, such as `0o644`.
    pub mode: u32,
    /// The content of a file.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// Creates a file that everybody can read.
    pub fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Entry {
        Entry { path: path.into(), mode: 0o644, bytes: bytes.into() }
    }

    /// Creates a program.
    pub fn program(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Entry {
        Entry { mode: 0o755, ..Entry::file(path, bytes) }
    }

    /// Creates a folder, whose path ends with `/`.
    pub fn folder(path: impl Into<String>) -> Entry {
        Entry::program(path, Vec::new())
    }
}

/// Writes the entries as `.tar.gz`, in the order of their paths.
pub fn write(file: &Path, entries: &[Entry]) -> Result<()> {
    let bytes = tar_gz(entries, source_date()?)?;
    std::fs::write(file, bytes).with_context(|| format!("{} cannot be written", file.display()))
}

/// Returns the entries as `.tar.gz`, in the order of their paths.
pub fn tar_gz(entries: &[Entry], time: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| &entry.path);
    if let Some([twice, _]) = sorted.array_windows().find(|[one, next]| one.path == next.path) {
        bail!("`{}` is in the archive twice", twice.path);
    }
    // The header has neither a name nor a time.
    let mut tar = Builder::new(GzBuilder::new().write(Vec::new(), Compression::default()));
    for entry in sorted {
        let mut header = Header::new_gnu();
        let is_folder = entry.path.ends_with('/');
        ensure!(!is_folder || entry.bytes.is_empty(), "`{}` is a folder with content", entry.path);
        header.set_entry_type(if is_folder { EntryType::Directory } else { EntryType::Regular });
        header.set_size(entry.bytes.len() as u64);
        header.set_mode(entry.mode);
        header.set_mtime(time);
        // The owner's names stay empty, and its numbers say root.
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, &entry.path, entry.bytes.as_slice())
            .with_context(|| format!("`{}` cannot be archived", entry.path))?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// Returns the bytes compressed as by `gzip -9n`.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

/// Returns the time of the source in seconds since 1970: `SOURCE_DATE_EPOCH`, or else the time of
/// the last commit.
pub fn source_date() -> Result<u64> {
    let advice = "SOURCE_DATE_EPOCH can name the time of the source, in seconds since 1970";
    if let Some(given) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let given = given.to_string_lossy();
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH is `{given}`, not a number of seconds"));
    }
    let mut git = Command::new("git");
    let time = output(git.args(["log", "-1", "--format=%ct"]).current_dir(root())).context(advice)?;
    time.trim().parse().context(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use tar::Archive;

    const TIME: u64 = 1_700_000_000;

    #[test]
    fn archive_of_a_second_run_has_the_same_bytes() -> Result<()> {
        let entries = [Entry::program("p/bin/b", "two"), Entry::file("p/a", "one")];
        let [second, first] = entries.clone();
        assert_eq!(tar_gz(&entries, TIME)?, tar_gz(&[first, second], TIME)?);
        Ok(())
    }

    #[test]
    fn archive_entries_are_sorted_and_owned_by_root() -> Result<()> {
        let long = format!("p/{}", "long/".repeat(40));
        let entries = [Entry::program(format!("{long}b"), "two"), Entry::folder("p/"), Entry::file("p/a", "one")];
        let bytes = tar_gz(&entries, TIME)?;
        let mut archive = Archive::new(GzDecoder::new(&*bytes));
        let mut found = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            let (path, header) = (entry.path()?.display().to_string(), entry.header());
            assert_eq!((header.uid()?, header.gid()?, header.mtime()?), (0, 0, TIME), "{path}");
            found.push((path, header.mode()?, entry.size()));
        }
        assert_eq!(found, [("p/".into(), 0o755, 0), ("p/a".into(), 0o644, 3), (format!("{long}b"), 0o755, 3)]);
        Ok(())
    }

    #[test]
    fn path_given_twice_is_refused() {
        let error = tar_gz(&[Entry::file("a", "one"), Entry::file("a", "two")], TIME).expect_err("the same path");
        assert_eq!(error.to_string(), "`a` is in the archive twice");
    }
}
