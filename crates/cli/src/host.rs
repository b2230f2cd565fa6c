//! The plugin host that a command uses: permissions, component, and calls in the core's types.

use crate::{convert, permissions, terminal};
use consul_session::error::{Error, ErrorKind};
use consul_session::{Options, Outcome};
use consul_session_args::{DIM, Invocation, printable};
use consul_session_host::{ConfigError, Host};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The flag that reports each request on standard error.
pub const VERBOSE: &str = "verbose";

/// The component's path, as `cargo xtask build` writes it.
const PLUGIN: &str = "dist/consul-session-plugin.wasm";

/// The component as a part of this program, so that one file is enough to install it.
#[cfg(feature = "embedded")]
const EMBEDDED: Option<&[u8]> = Some(include_bytes!("../../../dist/consul-session-plugin.wasm"));
#[cfg(not(feature = "embedded"))]
const EMBEDDED: Option<&[u8]> = None;

/// Builds the host with the permissions of the invocation. With `locks` it adds its tokens to
/// requests for locks too.
///
/// The component is the one that `CONSUL_SESSION_PLUGIN` names, else the embedded one, else the one
/// in `dist/`, else the one beside this program.
pub fn build(invocation: &mut Invocation, locks: bool) -> Result<Host, Error> {
    let mut builder = permissions::builder(invocation)?;
    if locks {
        builder = builder.locks(true);
    }
    if invocation.flags.contains(&VERBOSE) {
        let terminal = terminal::style().stderr;
        builder = builder.on_request(move |exchange| {
            let line = terminal.paint(DIM, &terminal.fold(&printable(&exchange.to_string())));
            // A closed standard error does not stop the program.
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }
    let host = match (std::env::var_os("CONSUL_SESSION_PLUGIN"), EMBEDDED) {
        (Some(path), _) => builder.build(path),
        (None, Some(wasm)) => builder.build_from_bytes(wasm),
        (None, None) => builder.build(plugin()?),
    };
    host.map_err(|error| match error.downcast_ref::<ConfigError>() {
        Some(error) => {
            let text = error.to_string();
            Error::invalid(text.split(' ').next().unwrap_or_default(), &text)
        }
        None => Error::new(ErrorKind::Other, format!("{error:#}")),
    })
}

/// Calls the component's `apply` with these options.
pub async fn apply(host: &Host, options: &Options) -> Result<Outcome, Error> {
    host.apply(&convert::options(options)).await.map(convert::outcome).map_err(convert::error)
}

/// Finds the component's file, for a program without an embedded one.
fn plugin() -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(Path::new(PLUGIN).file_name()?)));
    [Some(PathBuf::from(PLUGIN)), beside].into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        let message = format!(
            "the component is neither at {PLUGIN} nor beside this program: run `cargo xtask build`, or name it in \
             CONSUL_SESSION_PLUGIN"
        );
        Error::new(ErrorKind::Other, message)
    })
}
