//! Standard output and standard error as terminals: their styles and their size.

use consul_session_args::{TerminalStyle, TerminalStyles};
use rustix::fd::AsFd;
use rustix::termios::tcgetwinsize;
use std::io::{self, IsTerminal};

/// Returns the styles of standard output and standard error.
pub fn style() -> TerminalStyles {
    TerminalStyles { stdout: style_of(&io::stdout()), stderr: style_of(&io::stderr()) }
}

fn style_of(stream: &(impl IsTerminal + AsFd)) -> TerminalStyle {
    match stream.is_terminal() {
        true => TerminalStyle { colors: !is_dumb() && !no_color(), width: size(stream).map(|(columns, _)| columns.into()) },
        false => TerminalStyle::default(),
    }
}

/// Returns the columns and rows of a stream, if it is a terminal that reports them.
pub fn size(stream: &impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(stream).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Returns whether the terminal can neither move its cursor nor show colours.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Returns whether colours are turned off; see <https://no-color.org>.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
