//! The command line: arguments and environment to options, outcomes to text. Pure: the program that uses it gives the arguments,
//! the environment and the calls, and prints what it gets back, so that every program has the same grammar, the same texts and
//! the same exit status.

mod environment;
pub mod help;
mod invocation;
mod output;
mod parse;
mod style;

pub use environment::read as read_environment;
pub use help::{about, options_markdown};
pub use invocation::{Action, Command, Format, Invocation, Program, Source};
pub use output::{Output, counted, difference, error_line, failure, json_text, or_dash, printable, success, ttl};
pub use parse::parse;
pub use style::{DIM, GREEN, RED, TerminalStyle, TerminalStyles, YELLOW, wrapped};
