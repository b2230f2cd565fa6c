//! The command line: words and environment to one JSON object of options, answers to text. Pure: the program that uses it gives
//! the words, the environment and the calls, and prints what it gets back, so that every program has the same grammar, the same
//! texts and the same exit status.

mod environment;
mod help;
mod output;
mod words;

use crate::json::Json;
use crate::options::Info;
use comfy_table::{Table, presets};

pub use help::{about, options_markdown};
pub use output::{Output, failure, printable, success};
pub use words::parse;

/// The lines of a table without borders, each without the blanks around it.
fn lines(table: &mut Table) -> String {
    table.load_style(presets::NOTHING);
    let mut text = String::new();
    for line in table.lines() {
        text += line.trim();
        text.push('\n');
    }
    text
}

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

impl Invocation {
    /// The value of an option, as given.
    pub fn option(&self, name: &str) -> Option<&Json<'static>> {
        self.options.iter().find(|(option, _)| *option == name).map(|(_, value)| value)
    }

    /// The values of one of the program's own flags, in order.
    pub fn setting<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.settings.iter().filter(move |(setting, _)| *setting == name).map(|(_, value)| value.as_str())
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
