//! A cache of compiled components on disk, for programs that start often.

#[cfg(unix)]
#[path = "cache/private.rs"]
mod folder;
#[cfg(not(unix))]
#[path = "cache/shared.rs"]
mod folder;
// The implementation for other systems has a test on Unix too.
#[cfg(all(unix, test))]
#[path = "cache/shared.rs"]
mod shared;

use folder::Folder;
use sha2::{Digest, Sha256};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::Path;
use std::time::Duration;
use wasmtime::Engine;
use wasmtime::component::Component;

/// How many entries are kept, those that were written last. Each build of a component and each
/// version of wasmtime has an entry of its own, of some 400 kB.
const MAX_ENTRIES: usize = 16;
/// The beginning of the name of a file that is being written.
const TEMPORARY: &str = ".cwasm-";
/// After this time, a temporary file belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

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
    let Ok(folder) = Folder::open(folder) else { return Component::from_binary(engine, wasm) };
    let entry = entry_name(engine, wasm);
    if let Ok(compiled) = folder.read(&entry) {
        // SAFETY: the bytes must be the output of `serialize`, unchanged. `Folder` took them from a
        // file that belongs to this user and that no other user can write to, in a folder of which
        // the same is true, and reached both without passing anything that another user, except
        // root, can change. In such a folder, this user's programs alone make entries, and this
        // library writes only the output of `serialize` under their names. The bytes are a copy, so
        // what happens to the file later does not matter.
        if let Ok(component) = unsafe { Component::deserialize(engine, compiled) } {
            return Ok(component);
        }
    }
    let component = Component::from_binary(engine, wasm)?;
    let compiled = component.serialize()?;
    // On failure, the next start compiles again.
    let _ = folder.write(&entry, &compiled).and_then(|()| remove_old(&folder));
    Ok(component)
}

/// Returns the file name of the entry of a component.
fn entry_name(engine: &Engine, wasm: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:x}-{:016x}.cwasm", Sha256::digest(wasm), hasher.finish())
}

/// Returns whether a file name is that of an entry.
fn is_entry(name: &str) -> bool {
    let is_hash = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hashes = name.strip_suffix(".cwasm").and_then(|hashes| hashes.split_once('-'));
    hashes.is_some_and(|(component, engine)| is_hash(component, 64) && is_hash(engine, 16))
}

/// Removes all entries but [`MAX_ENTRIES`], and abandoned temporary files.
fn remove_old(folder: &Folder) -> io::Result<()> {
    let (mut entries, others): (Vec<_>, Vec<_>) = folder.files()?.into_iter().partition(|(name, _)| is_entry(name));
    entries.sort_by_key(|(_, age)| *age);
    let old = entries.into_iter().skip(MAX_ENTRIES);
    let abandoned = others.into_iter().filter(|(name, age)| name.starts_with(TEMPORARY) && *age > ABANDONED);
    for (name, _) in old.chain(abandoned) {
        // Another process may have removed it meanwhile.
        let _ = folder.remove(&name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
        fs::write(&entry, other).unwrap();
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

    /// Returns a folder that has a private folder `cache` in it, with the entry of
    /// [`folder_with_entry`].
    #[cfg(unix)]
    fn folder_with_cache(engine: &Engine) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        fs::rename(folder_with_entry(engine).0.keep(), &cache).unwrap();
        (folder, cache)
    }

    #[cfg(unix)]
    #[test]
    fn folder_that_others_can_replace_is_not_used() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let engine = Engine::default();
        let used = |folder: &Path| export(&load(&engine, &wasm("a"), folder).unwrap()) == "b";
        for (mode, usable) in [(0o755, true), (0o711, true), (0o1777, true), (0o777, false), (0o775, false), (0o703, false)] {
            let (parent, cache) = folder_with_cache(&engine);
            let set_mode = || fs::set_permissions(parent.path(), fs::Permissions::from_mode(mode)).unwrap();
            set_mode();
            assert_eq!(used(&cache), usable, "{mode:o}");
            // Nothing is created there either.
            assert!(!used(&parent.path().join("new")) && parent.path().join("new").exists() == usable, "{mode:o}");
        }
        if rustix::process::geteuid().is_root() {
            // The home of another user, in which root once made the folder.
            let (home, cache) = folder_with_cache(&engine);
            chown(home.path(), Some(1), None).unwrap();
            assert!(!used(&cache));
            let new = home.path().join("x/y");
            assert!(!used(&new) && !home.path().join("x").exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_of_this_user_alone_are_followed() {
        use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
        let engine = Engine::default();
        let used = |folder: &Path| export(&load(&engine, &wasm("a"), folder).unwrap()) == "b";
        let (folder, cache) = folder_with_cache(&engine);
        let [link, relative, circle] = ["link", "relative", "circle"].map(|name| folder.path().join(name));
        symlink(&cache, &link).unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        symlink("inner/.././link", &relative).unwrap();
        symlink(&circle, &circle).unwrap();
        assert!(used(&link) && used(&relative) && !used(&circle));
        // A link into a folder that others can change.
        let (open, other) = folder_with_cache(&engine);
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let outside = folder.path().join("outside");
        symlink(&other, &outside).unwrap();
        assert!(!used(&outside));
        if rustix::process::geteuid().is_root() {
            lchown(&link, Some(1), None).unwrap();
            assert!(!used(&link) && !used(&relative), "another user's link");
        }
    }

    #[cfg(unix)]
    #[test]
    fn entry_that_is_not_a_file_is_not_used() {
        use std::os::unix::fs::symlink;
        let engine = Engine::default();
        let used = |folder: &Path| export(&load(&engine, &wasm("a"), folder).unwrap()) == "b";
        let (folder, entry) = folder_with_entry(&engine);
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&entry, &elsewhere).unwrap();
        symlink(&elsewhere, &entry).unwrap();
        assert!(!used(folder.path()), "a link");
        // It was replaced, and the file that it led to is as it was.
        let whole = Component::from_binary(&engine, &wasm("a")).unwrap().serialize().unwrap();
        assert!(!entry.is_symlink() && fs::read(&entry).unwrap() == whole && fs::read(&elsewhere).unwrap() != whole);
        // A pipe without a writer, which an ordinary `open` would wait for.
        fs::remove_file(&entry).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &entry, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(!used(folder.path()), "a pipe");
    }

    /// What takes the folder's place after it was opened is neither read nor written.
    #[cfg(unix)]
    #[test]
    fn replaced_folder_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let [path, moved] = ["cache", "moved"].map(|name| parent.path().join(name));
        let folder = Folder::open(&path).unwrap();
        folder.write("entry", b"ours").unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("entry"), b"theirs").unwrap();
        assert_eq!(folder.read("entry").unwrap(), b"ours");
        folder.write("second", b"ours").unwrap();
        folder.remove("entry").unwrap();
        assert_eq!(entries(&path), [path.join("entry")]);
        assert_eq!(entries(&moved), [moved.join("second")]);
    }

    #[test]
    fn old_entries_and_abandoned_files_are_removed() {
        let engine = Engine::default();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, hours: u64| {
            let path = folder.path().join(name);
            fs::write(&path, "x").unwrap();
            let time = std::time::SystemTime::now() - Duration::from_secs(hours * 60 * 60);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let old: Vec<_> = (1..=30).map(|hours| file(&format!("{hours:064x}-{hours:016x}.cwasm"), hours)).collect();
        let abandoned = [file(".cwasm-7-1", 2), file(".cwasm-8-1", 48)];
        // In use, or not the cache's.
        let others = [file(".cwasm-9-1", 0), file("x.cwasm", 100), file(".tmp", 100), file("mine", 100)];
        load(&engine, &wasm("a"), folder.path()).unwrap();
        assert!(folder.path().join(entry_name(&engine, &wasm("a"))).exists());
        let kept = old.iter().filter(|path| path.exists()).collect::<Vec<_>>();
        assert_eq!(kept, old.iter().take(MAX_ENTRIES - 1).collect::<Vec<_>>());
        assert!(!abandoned.iter().any(|path| path.exists()) && others.iter().all(|path| path.exists()));
    }

    #[cfg(unix)]
    #[test]
    fn folder_by_its_path_is_read_and_written() {
        let parent = tempfile::tempdir().unwrap();
        let folder = shared::Folder::open(&parent.path().join("x/y")).unwrap();
        folder.write("a", b"first").unwrap();
        folder.write("a", b"second").unwrap();
        assert_eq!(folder.read("a").unwrap(), b"second");
        let files = folder.files().unwrap();
        assert!(matches!(&files[..], [(name, age)] if name == "a" && *age < ABANDONED), "{files:?}");
        folder.remove("a").unwrap();
        assert!(folder.read("a").is_err() && folder.files().unwrap().is_empty());
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
