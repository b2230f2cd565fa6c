//! The parsed command line.

use crate::flags::{Command, Format, HostFlags};
use consul_session::error::Error;
use consul_session::options::{self, Options};
use serde_json::Value;

/// A program with this command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The program, a plugin host: every command and flag.
    Host,
    /// The command component, which has the network and nothing else: the commands that call Consul
    /// a few times.
    Component,
}

impl Program {
    /// The name, as it is typed.
    pub const NAME: &str = "consul-session";
    /// Prefix of a Unix socket's address, in `host` and in `CONSUL_HTTP_ADDR`. Only the program
    /// supports it; to the component such an address is not a valid host.
    pub const UNIX: &str = "unix://";
}

/// The source of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Arguments,
    /// JSON on standard input.
    Input,
    /// An environment variable.
    Environment,
}

/// The parsed command line, merged with standard input and the environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invocation {
    /// The command; none for the words of the options, such as `name=session1`.
    pub command: Option<Command>,
    /// The output format.
    pub format: Format,
    /// The flags of a plugin host.
    pub flags: HostFlags,
    /// The given options, each checked.
    pub options: Options,
    /// The address of a Unix socket that is given as `host`, which is then not among the options.
    pub socket: Option<String>,
    /// The names of the given options, each with its source.
    pub given: Vec<(&'static str, Source)>,
}

impl Invocation {
    /// Returns the source of an option, if it is given.
    pub fn source(&self, name: &str) -> Option<Source> {
        self.given.iter().find(|(option, _)| *option == name).map(|(_, source)| *source)
    }

    /// Returns whether an option is given.
    pub fn is_given(&self, name: &str) -> bool {
        self.source(name).is_some()
    }

    /// Sets an option, unless it is given already. `null` means that the option is not given.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), even if the value is
    /// not used because the option is given already.
    pub fn give(&mut self, name: &str, value: &Value, source: Source) -> Result<(), Error> {
        let info = options::info(name).ok_or_else(|| options::unknown(name))?;
        let socket = value.as_str().filter(|host| name == "host" && host.starts_with(Program::UNIX));
        if self.is_given(name) {
            return if socket.is_some() { Ok(()) } else { Options::default().set(name, value) };
        }
        match socket {
            Some(address) => self.socket = Some(address.to_owned()),
            None => self.options.set(name, value)?,
        }
        if !value.is_null() {
            self.given.push((info.name, source));
        }
        Ok(())
    }

    /// Removes an option.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), for an unknown name.
    pub fn forget(&mut self, name: &str) -> Result<(), Error> {
        self.given.retain(|(option, _)| *option != name);
        self.options.set(name, &Value::Null)
    }

    /// Checks that the output format is one of those that a command can print.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption).
    pub fn accept(&self, formats: &[Format], command: &str) -> Result<(), Error> {
        if formats.contains(&self.format) {
            return Ok(());
        }
        let accepted: Vec<&str> = formats.iter().map(|format| format.name()).collect();
        Err(Error::invalid(
            "output",
            format!(
                "invalid value `{}` for `--output`: `{command}` cannot print it (expected {})",
                self.format.name(),
                accepted.join(", ")
            ),
        ))
    }

    /// Returns whether this is a dry run, which changes nothing.
    pub fn is_dry_run(&self) -> bool {
        self.options.dry_run == Some(true)
    }
}
