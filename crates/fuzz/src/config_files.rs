//! The configuration file of the host.

use crate::support::{SECRET, check_redacted};
use consul_session_host::Builder;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// A token, which the file `token` beside the configuration holds, as `password` holds a user's.
const TOKEN: &str = "0f7c2d3e-b1a5-4c96-8d7f-e2a94b6c1d05";

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no folder: {error}"));
    write(&folder.path().join("token"), &format!("{TOKEN}\n"));
    write(&folder.path().join("password"), &format!("ops:{TOKEN}\n"));
    folder
});

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// Reads the input as a configuration file.
///
/// An error is one line that names the file. Neither an error nor the configuration shows the
/// content of another file, or of a string that is in the wrong place. What is read twice gives no
/// more than what is read once.
pub fn config_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Devices are files too, and some never end.
    if text.contains("dev") || text.contains("proc") {
        return;
    }
    let file = FOLDER.path().join("host.toml");
    match read(&file, text) {
        Ok(builder) => {
            let shown = format!("{builder:?}");
            assert!(!shown.contains(TOKEN), "{shown}");
            let again = read(&file, text).map(|again| format!("{again:?}"));
            assert_eq!(again.as_ref(), Ok(&shown));
        }
        Err(error) => {
            assert!(error.contains("host.toml"), "{error}");
            assert!(!error.contains(TOKEN), "{error}");
            assert!(!error.contains(['\n', '\r', '\u{1b}']), "not one line: {error:?}");
        }
    }
    // A token in the place of a value that is not a string.
    for key in ["locks", "allow", "tls", "token", "limits", "nokey", "tls.platform_roots"] {
        if let Err(error) = read(&file, &format!("{key} = {SECRET:?}\n{text}")) {
            check_redacted(&error);
        }
    }
}

fn read(file: &PathBuf, text: &str) -> Result<Builder, String> {
    write(file, text);
    Builder::default().config_file(file).map_err(|error| error.to_string())
}
