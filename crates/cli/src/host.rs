//! The plugin host that a command uses: permissions, component, and calls in the core's types.

use crate::{convert, permissions, terminal};
use consul_session::error::{Error, ErrorKind};
use consul_session::{Options, Outcome, Session};
use consul_session_args::{Calls, DIM, Invocation, printable};
use consul_session_host::{ConfigError, Host};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The name of the component's file.
const PLUGIN: &str = "consul-session-plugin.wasm";

/// The component as a part of this program, so that one file is enough to install it.
#[cfg(feature = "embedded")]
const EMBEDDED: Option<&[u8]> = Some(include_bytes!("../../../dist/consul-session-plugin.wasm"));
#[cfg(not(feature = "embedded"))]
const EMBEDDED: Option<&[u8]> = None;

/// Builds the host with the permissions of the invocation. With `locks` it adds its tokens to
/// requests for locks too.
///
/// The component is the one that `CONSUL_SESSION_PLUGIN` names, else the embedded one, else the one
/// that [`plugin_of`] finds. None is taken from the current folder, which can be anybody's.
pub fn build(invocation: &mut Invocation, locks: bool) -> Result<Host, Error> {
    let mut builder = permissions::builder(invocation)?;
    if locks {
        builder = builder.locks(true);
    }
    if invocation.flags.verbose {
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

/// The calls of the commands, through the host.
pub struct Component<'a>(pub &'a Host);

impl Calls for Component<'_> {
    async fn apply(&mut self, options: &Options) -> Result<Outcome, Error> {
        apply(self.0, options).await
    }

    async fn create(&mut self, options: &Options) -> Result<String, Error> {
        let options = options.clone().resolve();
        let (session, connection) = (convert::create_options(&options), convert::connection(&options));
        self.0.create(&session, Some(&connection)).await.map_err(convert::error)
    }

    async fn renew(&mut self, options: &Options) -> Result<Session, Error> {
        let options = options.clone().resolve();
        let id = options.id.as_ref().map(|id| id.as_str()).unwrap_or_default();
        self.0.renew(id, Some(&convert::connection(&options))).await.map(convert::session).map_err(convert::error)
    }
}

/// Finds the component's file, for a program without an embedded one.
fn plugin() -> Result<PathBuf, Error> {
    let program = std::env::current_exe()
        .map_err(|error| Error::new(ErrorKind::Other, format!("the path of this program is not known: {error}")))?;
    plugin_of(&program).ok_or_else(|| {
        let message = format!(
            "no component: {PLUGIN} is not beside this program ({}): put it there, or name it in CONSUL_SESSION_PLUGIN; a \
             program that cargo built finds it in `dist/` of its checkout after `cargo xtask build`",
            program.display()
        );
        Error::new(ErrorKind::Other, message)
    })
}

/// Returns the component's file beside this program, or else in `dist/` of the checkout in whose
/// folder `target/` the program is.
fn plugin_of(program: &Path) -> Option<PathBuf> {
    let beside = program.with_file_name(PLUGIN);
    let target = program.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "target"));
    let built = target.map(|target| target.with_file_name("dist").join(PLUGIN));
    [Some(beside), built].into_iter().flatten().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_beside_the_program_precedes_that_of_the_checkout() {
        let folder = tempfile::tempdir().unwrap();
        let path = |path: &str| folder.path().join(path);
        let write = |name: &str| {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "").unwrap();
        };
        let (built, beside) =
            ("checkout/dist/consul-session-plugin.wasm", "checkout/target/release/consul-session-plugin.wasm");
        write(built);
        for program in ["checkout/target/release/consul-session", "checkout/target/x86_64/debug/deps/consul-session"] {
            assert_eq!(plugin_of(&path(program)), Some(path(built)), "{program}");
        }
        for program in ["checkout/consul-session", "checkout/bin/consul-session", "bin/target/consul-session", "consul-session"]
        {
            assert_eq!(plugin_of(&path(program)), None, "{program}");
        }
        write(beside);
        assert_eq!(plugin_of(&path("checkout/target/release/consul-session")), Some(path(beside)));
    }
}
