//! A cache of compiled components on disk, for programs that start often.

use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads the component from its entry in the folder. Without a usable entry, compiles the component
/// and stores it there if possible.
///
/// An entry fits exactly one component and one engine. Its name has the SHA-256 of the `.wasm`
/// file, and wasmtime's compatibility hash (version, target, settings), which wasmtime verifies
/// again.
///
/// # Errors
///
/// Fails if the component cannot be compiled. An unusable folder is not an error.
pub(crate) fn load(engine: &Engine, wasm: &[u8], folder: &Path) -> wasmtime::Result<Component> {
    let entry = folder.join(entry_name(engine, wasm));
    // Check the entry as well: it may be older than the mode of the folder.
    if [folder, &entry].into_iter().all(|path| is_private(path).unwrap_or(false)) && entry.is_file() {
        // SAFETY: the file must be the output of `serialize`, and must not change while it is
        // mapped. `is_private` shows that no other user can write to the file or its folder. This
        // library only writes the output of `serialize` there, and replaces entries by renaming
        // whole files, which leaves a mapped file unchanged.
        if let Ok(component) = unsafe { Component::deserialize_file(engine, &entry) } {
            return Ok(component);
        }
    }
    let component = Component::from_binary(engine, wasm)?;
    let compiled = component.serialize()?;
    // On failure, the next start compiles again.
    let _ = store(folder, &entry, &compiled);
    Ok(component)
}

/// Returns the file name of the entry of a component.
fn entry_name(engine: &Engine, wasm: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:x}-{:016x}.cwasm", Sha256::digest(wasm), hasher.finish())
}

/// Writes the entry to a temporary file and renames it, so that a reader sees all of it or nothing.
fn store(folder: &Path, entry: &Path, compiled: &[u8]) -> io::Result<()> {
    create_private(folder)?;
    if !is_private(folder)? {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(compiled)?;
    // Without this, a crash of the machine may leave the name without the content.
    file.as_file().sync_all()?;
    file.persist(entry)?;
    Ok(())
}

#[cfg(unix)]
fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Returns whether only this user can write to the path. Code that is loaded from there runs
/// without a sandbox.
#[cfg(unix)]
fn is_private(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path)?;
    Ok(metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0)
}

#[cfg(not(unix))]
fn is_private(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use wasmtime::Config;

    /// Returns a component that has a single export, of this name.
    fn wasm(export: &str) -> Vec<u8> {
        wat::parse_str(format!("(component (core module $m) (export {export:?} (core module $m)))")).unwrap()
    }

    /// Returns the name of the component's export, which identifies it.
    fn export(component: &Component) -> String {
        component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    /// Returns a folder in which the entry of component `a` holds component `b`. The result of
    /// loading `a` shows whether the entry was used. The entry is an output of `serialize`, so
    /// using it is safe.
    fn folder_with_entry(engine: &Engine) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join(entry_name(engine, &wasm("a")));
        let other = Component::from_binary(engine, &wasm("b")).unwrap().serialize().unwrap();
        store(folder.path(), &entry, &other).unwrap();
        (folder, entry)
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn entry_of_an_earlier_start_is_used() {
        let engine = Engine::default();
        let folder = tempfile::tempdir().unwrap();
        // In a folder that does not exist yet.
        let inner = folder.path().join("x/y");
        assert_eq!(export(&load(&engine, &wasm("a"), &inner).unwrap()), "a");
        let compiled = Component::from_binary(&engine, &wasm("a")).unwrap().serialize().unwrap();
        assert_eq!(entries(&inner).iter().map(|entry| fs::read(entry).unwrap()).collect::<Vec<_>>(), [compiled]);
        assert_eq!(export(&load(&engine, &wasm("a"), &inner).unwrap()), "a");

        let (folder, entry) = folder_with_entry(&engine);
        let before = fs::read(&entry).unwrap();
        assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "b");
        assert!(fs::read(&entry).unwrap() == before && entries(folder.path()) == [entry]);
    }

    #[test]
    fn entries_differ_by_component() {
        let engine = Engine::default();
        let (folder, _) = folder_with_entry(&engine);
        assert_eq!(export(&load(&engine, &wasm("c"), folder.path()).unwrap()), "c");
        assert_eq!(entries(folder.path()).len(), 2);
    }

    #[test]
    fn entries_differ_by_engine() {
        let (folder, _) = folder_with_entry(&Engine::default());
        for (number, engine) in [
            Engine::new(Config::new().epoch_interruption(true)).unwrap(),
            Engine::new(Config::new().consume_fuel(true)).unwrap(),
            Engine::new(Config::new().memory_reservation(0)).unwrap(),
        ]
        .iter()
        .enumerate()
        {
            assert_eq!(export(&load(engine, &wasm("a"), folder.path()).unwrap()), "a");
            assert_eq!(entries(folder.path()).len(), 2 + number);
        }
        // The same settings share one entry.
        let same = Engine::new(Config::new().epoch_interruption(true)).unwrap();
        load(&same, &wasm("a"), folder.path()).unwrap();
        assert_eq!(entries(folder.path()).len(), 4);
    }

    #[test]
    fn broken_entry_is_replaced() {
        let engine = Engine::default();
        let (folder, entry) = folder_with_entry(&engine);
        let whole = Component::from_binary(&engine, &wasm("a")).unwrap().serialize().unwrap();
        let broken: [&[u8]; 5] = [b"", b"garbage", &whole[..100], &whole[..whole.len() / 2], &wasm("a")];
        for content in broken {
            fs::write(&entry, content).unwrap();
            assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "a");
            assert!(fs::read(&entry).unwrap() == whole && entries(folder.path()).len() == 1, "{} bytes", content.len());
        }
        // An entry that cannot be replaced is not an error either.
        fs::remove_file(&entry).unwrap();
        fs::create_dir(&entry).unwrap();
        assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "a");
    }

    #[test]
    fn invalid_component_is_an_error_and_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(&Engine::default(), b"no component", folder.path()).is_err());
        assert!(entries(folder.path()).is_empty());
    }

    #[test]
    fn unusable_folder_is_not_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for folder in [file.path(), &file.path().join("x"), Path::new("")] {
            assert_eq!(export(&load(&Engine::default(), &wasm("a"), folder).unwrap()), "a");
        }
    }

    #[cfg(unix)]
    #[test]
    fn paths_writable_by_others_are_not_used() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let engine = Engine::default();
        let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let used = |folder: &Path| export(&load(&engine, &wasm("a"), folder).unwrap()) == "b";
        for mode in [0o770, 0o707, 0o777, 0o1777] {
            let (folder, entry) = folder_with_entry(&engine);
            set_mode(folder.path(), mode);
            assert!(!used(folder.path()), "{mode:o}");
            // The folder is left as it was, in case another program uses it.
            fs::remove_file(&entry).unwrap();
            assert!(!used(folder.path()) && entries(folder.path()).is_empty(), "{mode:o}");
        }
        for mode in [0o755, 0o750, 0o500] {
            let (folder, _) = folder_with_entry(&engine);
            set_mode(folder.path(), mode);
            assert!(used(folder.path()), "{mode:o}");
        }
        let (folder, entry) = folder_with_entry(&engine);
        set_mode(&entry, 0o666);
        assert!(!used(folder.path()), "an entry that others can write");
        if rustix::process::geteuid().is_root() {
            let (folder, entry) = folder_with_entry(&engine);
            chown(&entry, Some(1), None).unwrap();
            assert!(!used(folder.path()), "another user's entry");
            let (folder, _) = folder_with_entry(&engine);
            chown(folder.path(), Some(1), None).unwrap();
            assert!(!used(folder.path()), "another user's folder");
        }
    }

    #[cfg(unix)]
    #[test]
    fn created_folder_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("x");
        load(&Engine::default(), &wasm("a"), &inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&entries(&inner)[0]).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn concurrent_loads_find_a_whole_entry_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let load_repeatedly = || {
            // An engine for each thread, as separate programs have.
            let engine = Engine::default();
            for _ in 0..20 {
                assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "a");
                // The next load must write the entry again while others read it.
                let _ = fs::remove_file(folder.path().join(entry_name(&engine, &wasm("a"))));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(load_repeatedly);
            }
        });
        load(&Engine::default(), &wasm("a"), folder.path()).unwrap();
        assert_eq!(entries(folder.path()).len(), 1, "temporary files are left");
    }
}
