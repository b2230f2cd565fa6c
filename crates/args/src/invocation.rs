//! What was typed, as data.

use consul_session::error::Error;
use consul_session::options::{self, Info, Options};
use serde_json::Value;

/// What a program has beside the options: its name, and flags and commands of its own.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// As it is typed.
    pub name: &'static str,
    /// Flags without a value, each with its help.
    pub flags: &'static [(&'static str, &'static str)],
    /// Flags with a value: name, what the value is, and help. Each may be repeated.
    pub settings: &'static [(&'static str, &'static str, &'static str)],
    /// Environment variables that the program reads itself, each with its help.
    pub environment: &'static [(&'static str, &'static str)],
    /// What it can do beside applying options.
    pub commands: &'static [Command],
}

/// A command of a program.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// As it is typed.
    pub name: &'static str,
    /// What is typed behind the name, beside options: `KEY`, say. One word each.
    pub args: &'static [&'static str],
    /// What is typed behind `--`, for a command that takes that: `COMMAND...`.
    pub rest: Option<&'static str>,
    /// Flags of its own without a value, each with its help.
    pub flags: &'static [(&'static str, &'static str)],
    /// Flags of its own with a value: name, what the value is, and help. Each may be repeated.
    pub settings: &'static [(&'static str, &'static str, &'static str)],
    /// What it is for.
    pub help: &'static str,
}

impl Program {
    /// The flag that says that the program has an agent of its own.
    pub const OWN_AGENT: &str = "dev";
    /// How the address of a Unix socket begins: as `host`, and in `CONSUL_HTTP_ADDR`. For programs that know such ones; to the
    /// component it is no host.
    pub const UNIX: &str = "unix://";
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// The ids of the sessions, one a line.
    Ids,
}

impl Format {
    /// Each as it is typed.
    pub const ALL: [(&str, Format); 3] = [("table", Format::Table), ("json", Format::Json), ("ids", Format::Ids)];
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Action {
    /// Apply the options.
    #[default]
    Apply,
    /// One of the program's own commands.
    Command(&'static str),
    /// Print the help, or that of one option.
    Help(Option<&'static Info>),
    /// Print the help of a command.
    HelpOf(&'static str),
    /// Print the version.
    Version,
}

/// Where an option was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was typed.
    Arguments,
    /// In JSON on standard input.
    Input,
    /// In an environment variable.
    Environment,
}

/// What was typed, with what was read and what the environment says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invocation {
    /// What is to be done.
    pub action: Action,
    /// How the answer is printed.
    pub format: Format,
    /// Which of the program's own flags were given.
    pub flags: Vec<&'static str>,
    /// The program's own flags with a value, as they were given, in order.
    pub settings: Vec<(&'static str, String)>,
    /// The command's own words, as many as it has.
    pub args: Vec<String>,
    /// What stands behind `--`.
    pub rest: Vec<String>,
    /// The options that were given, each checked.
    pub options: Options,
    /// The address of a Unix socket that was given as `host`, which is then not among the options.
    pub socket: Option<String>,
    /// The names of the options that were given, and where.
    pub given: Vec<(&'static str, Source)>,
}

/// The options that say where the agent is, and how it is reached.
const CONNECTION: [&str; 9] =
    ["datacenter", "token", "host", "port", "scheme", "validate_certs", "timeout", "namespace", "partition"];

impl Invocation {
    /// Where an option was given, if it was.
    pub fn source(&self, name: &str) -> Option<Source> {
        self.given.iter().find(|(option, _)| *option == name).map(|(_, source)| *source)
    }

    /// Whether an option was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.source(name).is_some()
    }

    /// Takes the value of an option, unless it was given already. `null` is an option that is not given.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), also for a value that is not taken.
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

    /// Forgets an option.
    pub fn forget(&mut self, name: &str) -> Result<(), Error> {
        self.given.retain(|(option, _)| *option != name);
        self.options.set(name, &Value::Null)
    }

    /// The values of one of the program's own flags, in order.
    pub fn setting<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.settings.iter().filter(move |(setting, _)| *setting == name).map(|(_, value)| value.as_str())
    }

    /// Fails if it is to be printed otherwise than so.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption).
    pub fn accept(&self, formats: &[Format], command: &str) -> Result<(), Error> {
        if formats.contains(&self.format) {
            return Ok(());
        }
        let named = |wanted: &dyn Fn(Format) -> bool| {
            Format::ALL.iter().filter(|(_, format)| wanted(*format)).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        let (given, accepted) = (named(&|format| format == self.format), named(&|format| formats.contains(&format)));
        Err(Error::invalid(
            "format",
            format!("invalid value `{given}` for `format`: `{command}` cannot print it (expected {accepted})"),
        ))
    }

    /// Fails if there is an option that a command has no use for: neither of these, nor of the connection. `why` is told its name.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption).
    pub fn only(&self, used: &[&str], why: impl FnOnce(&str) -> String) -> Result<(), Error> {
        match self.given.iter().find(|(option, _)| !used.contains(option) && !CONNECTION.contains(option)) {
            Some((option, _)) => Err(Error::invalid(option, why(option))),
            None => Ok(()),
        }
    }

    /// Whether nothing is to be changed.
    pub fn is_dry_run(&self) -> bool {
        self.options.dry_run == Some(true)
    }
}
