//! A folder that only this user can write to, on Unix. It is opened once; what is in it is reached
//! by its descriptor, so nothing that happens to its path afterwards matters.

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many links the path may have, as in Linux.
const MAX_LINKS: usize = 40;

/// Opens a folder only to reach what is in it. Where the system can, this needs no permission to
/// read the folder: `/home` often has none.
const PASS: OFlags = {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let access = OFlags::PATH;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let access = OFlags::RDONLY;
    access.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC)
};

/// An open folder. While it was opened, nobody but this user and root could change its path or write
/// to it.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder. Parts of its path that are missing are created with access for this user
    /// alone.
    ///
    /// The path is followed from the root. Each folder and link in it belongs to this user or to
    /// root, and others can write to no folder in it, unless it is sticky, like `/tmp`: there they
    /// cannot replace what is not theirs. The last folder belongs to this user, and nobody else can
    /// write to it.
    ///
    /// # Errors
    ///
    /// Fails if the path is not like that, or a part of it cannot be created or opened.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        let path = std::path::absolute(path)?;
        let mut folder = openat(CWD, "/", PASS, Mode::empty())?;
        check(&fstat(&folder)?)?;
        let mut names: VecDeque<OsString> = names(&path).collect();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let found = match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    match mkdirat(&folder, &name, Mode::RWXU) {
                        // Another process may have created it meanwhile.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?
                }
                found => found?,
            };
            if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS || !is_trusted(&found) {
                    return Err(denied());
                }
                let target = readlinkat(&folder, &name, Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    folder = openat(CWD, "/", PASS, Mode::empty())?;
                }
                for name in self::names(target).collect::<Vec<_>>().into_iter().rev() {
                    names.push_front(name);
                }
                continue;
            }
            folder = openat(&folder, &name, PASS, Mode::empty())?;
            check(&fstat(&folder)?)?;
        }
        let folder = openat(&folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if is_private(&fstat(&folder)?) { Ok(Folder(folder)) } else { Err(denied()) }
    }

    /// Reads a file of this user that nobody else can write to.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or it cannot be read.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        // Without waiting for the other end, if it is a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.0, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_private(&stat) {
            return Err(denied());
        }
        let mut content = Vec::new();
        File::from(file).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Writes a file for this user alone. Readers see all of it or nothing.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let temporary = format!("{}{}-{now}", super::TEMPORARY, std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
        // Without `sync_all`, a crash of the machine may leave the name without the content.
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| Ok(renameat(&self.0, &temporary, &self.0, name)?));
        if renamed.is_err() {
            let _ = self.remove(&temporary);
        }
        renamed
    }

    /// Returns the names of the files, and how long ago each was written.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub(super) fn files(&self) -> io::Result<Vec<(String, Duration)>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            // Gone, if another process removes it meanwhile.
            let Ok(stat) = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let (seconds, nanoseconds) = (u64::try_from(stat.st_mtime), u32::try_from(stat.st_mtime_nsec));
                let written = UNIX_EPOCH + Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0));
                files.push((name.to_owned(), written.elapsed().unwrap_or_default()));
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
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }
}

/// Returns the names in a path. `..` is one of them: it is followed like any other folder.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check(folder: &Stat) -> io::Result<()> {
    let sticky = Mode::from_raw_mode(folder.st_mode).contains(Mode::SVTX);
    if is_trusted(folder) && (sticky || !is_writable_by_others(folder)) { Ok(()) } else { Err(denied()) }
}

/// Returns whether it belongs to this user or to root.
fn is_trusted(stat: &Stat) -> bool {
    stat.st_uid == 0 || is_own(stat)
}

fn is_private(stat: &Stat) -> bool {
    is_own(stat) && !is_writable_by_others(stat)
}

fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn is_writable_by_others(stat: &Stat) -> bool {
    Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

fn denied() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "another user can change it")
}
