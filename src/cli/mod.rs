//! The command line: words and environment to one JSON object of options, answers to text. Pure: the program that uses it gives
//! the words, the environment and the calls, and prints what it gets back, so that every program has the same grammar, the same
//! texts and the same exit status.

mod environment;
pub mod help;
mod look;
mod output;
mod words;

use crate::error::Error;
use crate::json::Json;
use crate::options::{Info, Options};

pub use help::{about, options_markdown};
pub use look::{DIM, GREEN, Look, Looks, RED, YELLOW, wrapped};
pub use output::{Output, counted, difference, error_line, failure, or_dash, printable, success, ttl};
pub use words::parse;

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
    pub words: &'static [&'static str],
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

/// What was typed.
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
    /// Names of the options that were read from standard input.
    pub from_input: Vec<&'static str>,
    /// The command's own words, as many as it has.
    pub words: Vec<String>,
    /// What stands behind `--`.
    pub rest: Vec<String>,
    /// Names of the options that were taken from the environment.
    pub from_environment: Vec<&'static str>,
    /// The options, checked for their names only: what the values are worth is said by whoever applies them.
    pub options: Vec<(&'static str, Json<'static>)>,
}

/// The options that say where the agent is, and how it is reached.
const CONNECTION: [&str; 9] =
    ["datacenter", "token", "host", "port", "scheme", "validate_certs", "timeout", "namespace", "partition"];

impl Invocation {
    /// The value of an option, as given.
    pub fn option(&self, name: &str) -> Option<&Json<'static>> {
        self.options.iter().find(|(option, _)| *option == name).map(|(_, value)| value)
    }

    /// The values of one of the program's own flags, in order.
    pub fn setting<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.settings.iter().filter(move |(setting, _)| *setting == name).map(|(_, value)| value.as_str())
    }

    /// Fails if it is to be printed otherwise than so.
    ///
    /// Errors: [`InvalidOption`](crate::error::Case::InvalidOption).
    pub fn accept(&self, formats: &[Format], command: &str) -> Result<(), Error> {
        if formats.contains(&self.format) {
            return Ok(());
        }
        let named = |wanted: &dyn Fn(Format) -> bool| {
            Format::ALL.iter().filter(|(_, format)| wanted(*format)).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        let (given, accepted) = (named(&|format| format == self.format), named(&|format| formats.contains(&format)));
        Err(Error::invalid("format", format!("option `format`: `{command}` cannot print `{given}`; accepted: {accepted}")))
    }

    /// Fails if there is an option that a command has no use for: neither of these, nor of the connection. `why` is told its name.
    ///
    /// Errors: [`InvalidOption`](crate::error::Case::InvalidOption).
    pub fn only(&self, used: &[&str], why: impl FnOnce(&str) -> String) -> Result<(), Error> {
        match self.options.iter().find(|(option, _)| !used.contains(option) && !CONNECTION.contains(option)) {
            Some((option, _)) => Err(Error::invalid(option, why(option))),
            None => Ok(()),
        }
    }

    /// The options, each checked, without defaults.
    ///
    /// Errors: [`InvalidOption`](crate::error::Case::InvalidOption).
    pub fn checked(&self) -> Result<Options, Error> {
        Options::from_json(&self.json())
    }

    /// Whether nothing is to be changed.
    pub fn is_dry_run(&self) -> bool {
        self.checked().is_ok_and(|options| options.dry_run == Some(true))
    }

    /// Sets an option that was not given.
    pub fn set_default(&mut self, name: &'static str, value: impl Into<String>) {
        if self.option(name).is_none() {
            self.options.push((name, Json::Text(value.into().into())));
        }
    }

    /// The options as the JSON object that `apply-json` takes.
    pub fn json(&self) -> String {
        Json::object(self.options.clone()).to_string()
    }
}
