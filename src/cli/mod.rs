//! The command line: words and environment to one JSON object of options, answers to text. Pure: the program that uses it gives
//! the words, the environment and the calls, and prints what it gets back, so that every program has the same grammar, the same
//! texts and the same exit status.

mod environment;
mod help;
mod output;
mod words;

use comfy_table::{Table, presets};

pub use help::{help, options_markdown};
pub use output::{Output, failure, success};
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
    /// Words that are commands, each with its help.
    pub commands: &'static [(&'static str, &'static str)],
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Apply the options.
    Apply,
    /// One of the program's own commands.
    Command(&'static str),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// What was typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// What is to be done.
    pub action: Action,
    /// How the answer is printed.
    pub format: Format,
    /// Which of the program's own flags were given.
    pub flags: Vec<&'static str>,
    /// The options, checked for their names only: what the values are worth is said by whoever applies them.
    pub options: Vec<(&'static str, String)>,
}

impl Invocation {
    /// The value of an option, as typed.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| *option == name).map(|(_, value)| value.as_str())
    }

    /// Sets an option that was not typed.
    pub fn set_default(&mut self, name: &'static str, value: impl Into<String>) {
        if self.option(name).is_none() {
            self.options.push((name, value.into()));
        }
    }

    /// The options as the JSON object that `apply-json` takes.
    pub fn json(&self) -> String {
        crate::json::Json::object(self.options.iter().map(|(name, value)| (*name, value.into())).collect()).to_string()
    }
}
