//! The command line of `consul-session` as pure functions: arguments and environment to options,
//! outcomes to text.
//!
//! The calling program supplies the arguments, the environment and the calls to Consul, and
//! prints the returned text. So every program has the same grammar, the same texts and the same
//! exit status.

mod commands;
mod environment;
pub mod flags;
pub mod help;
mod invocation;
mod mistakes;
mod output;
mod parse;
mod style;
mod table;

pub use commands::{Calls, run};
pub use environment::read as read_environment;
pub use flags::{Command, Format};
pub use invocation::{Invocation, Program, Source};
pub use output::{Output, counted, difference, error_line, failure, json_text, or_dash, printable, success, ttl};
pub use parse::{Parsed, parse};
pub use style::{DIM, GREEN, RED, TerminalStyle, TerminalStyles, YELLOW, wrapped};
pub use table::{Column, Layout};
