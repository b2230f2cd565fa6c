//! A folder by its path, for systems without Unix permissions.

use super::TEMPORARY;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder of the user's profile, which the system protects.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens a folder, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be created.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        Ok(Folder(path.to_owned()))
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or it cannot be read.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    /// Writes a file. Readers see all of it or nothing.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.0)?;
        file.write_all(content)?;
        // Without this, a crash of the machine may leave the name without the content.
        file.as_file().sync_all()?;
        file.persist(self.0.join(name))?;
        Ok(())
    }

    /// Returns the names of the files, and how long ago each was written.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub(super) fn files(&self) -> io::Result<Vec<(String, Duration)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if metadata.is_file() {
                files.push((name, metadata.modified()?.elapsed().unwrap_or_default()));
            }
        }
        Ok(files)
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or it cannot be removed.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }
}
