//! The parsed command line.

use consul_session::error::Error;
use consul_session::options::{self, Info, Options};
use serde_json::Value;

/// A program's part of the command line, in addition to the options: its name, flags and commands.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The name, as it is typed.
    pub name: &'static str,
    /// Flags without a value, each with its help.
    pub flags: &'static [(&'static str, &'static str)],
    /// Flags with a value: name, placeholder of the value, and help. Each may be repeated.
    pub settings: &'static [(&'static str, &'static str, &'static str)],
    /// Environment variables that the program reads itself, each with its help.
    pub environment: &'static [(&'static str, &'static str)],
    /// Its commands.
    pub commands: &'static [Command],
}

/// A command of a program.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The name, as it is typed.
    pub name: &'static str,
    /// Placeholders of the arguments after the name, in addition to options, such as `KEY`.
    pub args: &'static [&'static str],
    /// Placeholder of the arguments after `--`, such as `COMMAND...`; none if the command takes
    /// none.
    pub rest: Option<&'static str>,
    /// The command's flags without a value, each with its help.
    pub flags: &'static [(&'static str, &'static str)],
    /// The command's flags with a value: name, placeholder of the value, and help. Each may be
    /// repeated.
    pub settings: &'static [(&'static str, &'static str, &'static str)],
    /// Its help.
    pub help: &'static str,
}

impl Program {
    /// The flag with which the program starts its own agent.
    pub const OWN_AGENT: &str = "dev";
    /// Prefix of a Unix socket's address, in `host` and in `CONSUL_HTTP_ADDR`. Only some programs
    /// support it; to the component such an address is not a valid host.
    pub const UNIX: &str = "unix://";
}

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A table with every column and every cell whole, however wide the terminal is.
    Wide,
    /// One JSON object.
    Json,
    /// The ids of the sessions, one a line.
    Ids,
}

impl Format {
    /// The formats, each with its name as it is typed.
    pub const ALL: [(&str, Format); 4] =
        [("table", Format::Table), ("wide", Format::Wide), ("json", Format::Json), ("ids", Format::Ids)];
}

/// The action to perform.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Action {
    /// Apply the options.
    #[default]
    Apply,
    /// Run this command of the program.
    Command(&'static str),
    /// Print the help, or that of one option.
    Help(Option<&'static Info>),
    /// Print the help of a command.
    HelpOf(&'static str),
    /// Print the version.
    Version,
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
    /// The action to perform.
    pub action: Action,
    /// The output format.
    pub format: Format,
    /// The program's and the command's flags that are given.
    pub flags: Vec<&'static str>,
    /// The program's and the command's flags with a value, in the order given.
    pub settings: Vec<(&'static str, String)>,
    /// The command's arguments.
    pub args: Vec<String>,
    /// The arguments after `--`.
    pub rest: Vec<String>,
    /// The given options, each checked.
    pub options: Options,
    /// The address of a Unix socket that is given as `host`, which is then not among the options.
    pub socket: Option<String>,
    /// The names of the given options, each with its source.
    pub given: Vec<(&'static str, Source)>,
}

/// The options about the connection: where the agent is, and how to reach it.
const CONNECTION: [&str; 9] =
    ["datacenter", "token", "host", "port", "scheme", "validate_certs", "timeout", "namespace", "partition"];

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

    /// Returns the values of a flag, in the order given.
    pub fn setting<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.settings.iter().filter(move |(setting, _)| *setting == name).map(|(_, value)| value.as_str())
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
        let names = |filter: &dyn Fn(Format) -> bool| {
            Format::ALL.iter().filter(|(_, format)| filter(*format)).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        let (given, accepted) = (names(&|format| format == self.format), names(&|format| formats.contains(&format)));
        Err(Error::invalid(
            "format",
            format!("invalid value `{given}` for `format`: `{command}` cannot print it (expected {accepted})"),
        ))
    }

    /// Checks that each given option is one of `used` or one of the connection. `message` makes the
    /// error's message from the name of an option that is neither.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption).
    pub fn only(&self, used: &[&str], message: impl FnOnce(&str) -> String) -> Result<(), Error> {
        match self.given.iter().find(|(option, _)| !used.contains(option) && !CONNECTION.contains(option)) {
            Some((option, _)) => Err(Error::invalid(option, message(option))),
            None => Ok(()),
        }
    }

    /// Returns whether this is a dry run, which changes nothing.
    pub fn is_dry_run(&self) -> bool {
        self.options.dry_run == Some(true)
    }
}
