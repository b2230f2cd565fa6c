//! Compiled components on disk, so that a program that starts often need not compile each time.

use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The component, from the folder if it has been compiled there before, else compiled, and kept there if that can be done.
///
/// An entry is used for just this component (its name holds the file's SHA-256) and just this engine (its name holds what
/// wasmtime says must be the same: version, target, settings; wasmtime compares that once more).
///
/// Errors: those of compiling. A folder that cannot be used is no error: the component is compiled.
pub fn load(engine: &Engine, wasm: &[u8], folder: &Path) -> wasmtime::Result<Component> {
    let entry = folder.join(name(engine, wasm));
    // The entry too: it may be older than the folder's mode.
    if [folder, &entry].into_iter().all(|path| is_own(path).unwrap_or(false)) && entry.is_file() {
        // SAFETY: the file must be what `serialize` gave and must not change while it is mapped. Nobody but this user can write to
        // it or to the folder, and this program only ever puts whole files there, under names of their own.
        if let Ok(component) = unsafe { Component::deserialize_file(engine, &entry) } {
            return Ok(component);
        }
    }
    let component = Component::from_binary(engine, wasm)?;
    let compiled = component.serialize()?;
    // The next start compiles again, which is no error of this one.
    let _ = keep(folder, &entry, &compiled);
    Ok(component)
}

fn name(engine: &Engine, wasm: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:x}-{:016x}.cwasm", Sha256::digest(wasm), hasher.finish())
}

/// Writes the file beside its place first: a reader sees all of it or nothing.
fn keep(folder: &Path, entry: &Path, compiled: &[u8]) -> io::Result<()> {
    create(folder)?;
    if !is_own(folder)? {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(compiled)?;
    // Else a crash of the machine may leave the name without the content.
    file.as_file().sync_all()?;
    file.persist(entry)?;
    Ok(())
}

#[cfg(unix)]
fn create(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Whether only this user can write there: what is loaded from there is run without a sandbox.
#[cfg(unix)]
fn is_own(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path)?;
    Ok(metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0)
}

#[cfg(not(unix))]
fn is_own(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use wasmtime::Config;

    /// A component with nothing but an export of this name.
    fn wasm(export: &str) -> Vec<u8> {
        wat::parse_str(format!("(component (core module $m) (export {export:?} (core module $m)))")).unwrap()
    }

    /// The name of its export: which component it is.
    fn export(component: &Component) -> String {
        component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    /// A folder that is used, and in it the entry of the component `a`, which is in truth another: `b`. What comes of loading `a`
    /// then shows whether the entry was used. It is what `serialize` gave, so that it may be.
    fn folder_with_entry(engine: &Engine) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join(name(engine, &wasm("a")));
        let other = Component::from_binary(engine, &wasm("b")).unwrap().serialize().unwrap();
        keep(folder.path(), &entry, &other).unwrap();
        (folder, entry)
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_compiled_before_is_used() {
        let engine = Engine::default();
        let folder = tempfile::tempdir().unwrap();
        // In a folder that is not there yet.
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
    fn another_component_has_another_entry() {
        let engine = Engine::default();
        let (folder, _) = folder_with_entry(&engine);
        assert_eq!(export(&load(&engine, &wasm("c"), folder.path()).unwrap()), "c");
        assert_eq!(entries(folder.path()).len(), 2);
    }

    #[test]
    fn another_engine_has_another_entry() {
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
        // The same settings have the same.
        let same = Engine::new(Config::new().epoch_interruption(true)).unwrap();
        load(&same, &wasm("a"), folder.path()).unwrap();
        assert_eq!(entries(folder.path()).len(), 4);
    }

    #[test]
    fn an_entry_that_is_broken_is_replaced() {
        let engine = Engine::default();
        let (folder, entry) = folder_with_entry(&engine);
        let whole = Component::from_binary(&engine, &wasm("a")).unwrap().serialize().unwrap();
        let broken: [&[u8]; 5] = [b"", b"garbage", &whole[..100], &whole[..whole.len() / 2], &wasm("a")];
        for content in broken {
            fs::write(&entry, content).unwrap();
            assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "a");
            assert!(fs::read(&entry).unwrap() == whole && entries(folder.path()).len() == 1, "{} bytes", content.len());
        }
        // What cannot be replaced is no error either.
        fs::remove_file(&entry).unwrap();
        fs::create_dir(&entry).unwrap();
        assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "a");
    }

    #[test]
    fn what_is_no_component_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(&Engine::default(), b"no component", folder.path()).is_err());
        assert!(entries(folder.path()).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for folder in [file.path(), &file.path().join("x"), Path::new("")] {
            assert_eq!(export(&load(&Engine::default(), &wasm("a"), folder).unwrap()), "a");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_others_can_write_to_is_not_used() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let engine = Engine::default();
        let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let used = |folder: &Path| export(&load(&engine, &wasm("a"), folder).unwrap()) == "b";
        for mode in [0o770, 0o707, 0o777, 0o1777] {
            let (folder, entry) = folder_with_entry(&engine);
            set_mode(folder.path(), mode);
            assert!(!used(folder.path()), "{mode:o}");
            // And it is left as it was, in case somebody else uses it.
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
        assert!(!used(folder.path()), "an entry that others could change");
        if rustix::process::geteuid().is_root() {
            let (folder, entry) = folder_with_entry(&engine);
            chown(&entry, Some(1), None).unwrap();
            assert!(!used(folder.path()), "somebody else's entry");
            let (folder, _) = folder_with_entry(&engine);
            chown(folder.path(), Some(1), None).unwrap();
            assert!(!used(folder.path()), "somebody else's folder");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_made_is_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("x");
        load(&Engine::default(), &wasm("a"), &inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&entries(&inner)[0]).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn any_number_at_once_find_a_whole_entry_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let load_again_and_again = || {
            // As programs of their own have it.
            let engine = Engine::default();
            for _ in 0..20 {
                assert_eq!(export(&load(&engine, &wasm("a"), folder.path()).unwrap()), "a");
                // So that the next has to write it again, whoever reads it now.
                let _ = fs::remove_file(folder.path().join(name(&engine, &wasm("a"))));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(load_again_and_again);
            }
        });
        load(&Engine::default(), &wasm("a"), folder.path()).unwrap();
        assert_eq!(entries(folder.path()).len(), 1, "something is left over");
    }
}
