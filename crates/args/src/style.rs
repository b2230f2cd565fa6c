//! Terminal output: text with or without colours, wrapped to the terminal's width.

use crate::flags::Format;
use crate::table::{Column, Layout};
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr;

/// Style of errors and of sessions that are gone.
pub const RED: Style = AnsiColor::Red.on_default();
/// Style of new sessions.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// Style of changes, and of a connection that is being retried.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Style of secondary text.
pub const DIM: Style = Style::new().dimmed();

/// The smallest width that the layout supports: an id and its indentation.
const MIN_WIDTH: usize = 40;

/// A space at which [`wrapped`] does not break the line.
pub(crate) const NO_BREAK: &str = "\u{a0}";

/// The style of one output stream. The default is that of a file or a pipe: no colours, no
/// wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalStyle {
    /// Whether the stream shows colours.
    pub colors: bool,
    /// The number of columns, if the stream is a terminal.
    pub width: Option<usize>,
}

/// The styles of a program's two output streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalStyles {
    /// Standard output.
    pub stdout: TerminalStyle,
    /// Standard error.
    pub stderr: TerminalStyle,
}

impl TerminalStyle {
    /// Returns the text in a style, if colours are shown.
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.colors && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Returns the style of tables in this format. [`Format::Wide`] does not fit them to the width.
    #[must_use]
    pub fn of_tables(self, format: Format) -> TerminalStyle {
        TerminalStyle { width: self.width.filter(|_| format != Format::Wide), ..self }
    }

    pub(crate) fn width(self) -> Option<usize> {
        self.width.map(|width| width.max(MIN_WIDTH))
    }

    /// Returns the text wrapped to the width, with every line but the first indented. Text in
    /// backquotes is for copying, so it is not broken at its spaces.
    pub fn fold(self, text: &str) -> String {
        match self.width() {
            Some(width) if text.width() > width => {
                let part = |(at, part): (usize, &str)| if at % 2 == 0 { part.to_owned() } else { part.replace(' ', NO_BREAK) };
                let text = text.split('`').enumerate().map(part).collect::<Vec<_>>().join("`");
                wrapped(&text, width - 2).join("\n  ").replace(NO_BREAK, " ")
            }
            _ => text.to_owned(),
        }
    }

    /// Returns a line with a styled title: `error (timeout): …`.
    pub fn titled(self, style: Style, title: &str, text: &str) -> String {
        let line = self.fold(&format!("{title} {text}"));
        match line.strip_prefix(title) {
            Some(rest) => format!("{}{rest}\n", self.paint(style, title)),
            None => format!("{line}\n"),
        }
    }

    /// Returns a table with a line for each row. One that is too wide for the terminal leaves out
    /// columns and shortens cells; [`Column`] says which.
    pub fn table<const N: usize>(self, columns: &[Column; N], rows: &[([String; N], Option<Style>)]) -> String {
        let layout = Layout::new(columns, rows.iter().map(|(cells, _)| &cells[..]), self.width());
        layout.table(rows, self) + &layout.note(self)
    }

    /// Returns the line of a field, with its mark, name and value: `- delay     15s`.
    pub(crate) fn field(self, mark: &str, header: &[&str], name: &str, value: &str, style: Option<Style>) -> String {
        let names = header.iter().map(|name| name.len()).max().unwrap_or_default();
        let title = format!("{mark}{:<names$}", name.to_ascii_lowercase());
        let value_style = style.unwrap_or_default();
        let title_style = if mark.trim().is_empty() { DIM } else { value_style };
        match self.width() {
            Some(width) if title.len() + 2 + value.width() > width => {
                let indent = format!("{mark}  ");
                let mut text = format!("{}\n", self.paint(title_style, title.trim_end()));
                for line in wrapped(value, width - indent.len()) {
                    text += &format!("{}\n", self.paint(value_style, &(indent.clone() + &line)));
                }
                text
            }
            _ => format!("{}  {}\n", self.paint(title_style, &title), self.paint(value_style, value)),
        }
    }
}

/// Returns text in lines of at most this width, broken at spaces, or within a word that is longer
/// than a line.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX)).add_row([text]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(width: usize) -> TerminalStyle {
        TerminalStyle { colors: false, width: Some(width) }
    }

    #[test]
    fn folded_text_is_indented_after_its_first_line() {
        let text = "error (timeout): no answer from 127.0.0.1:8500 within 10s";
        assert_eq!(TerminalStyle::default().fold(text), text);
        assert_eq!(style(40).fold(text), "error (timeout): no answer from\n  127.0.0.1:8500 within 10s");
        assert_eq!(
            style(40).fold("denied: add it to the allowed hosts: `--allow a:1`"),
            "denied: add it to the allowed hosts:\n  `--allow a:1`"
        );
        assert_eq!(style(80).titled(RED, "error (timeout):", "no"), "error (timeout): no\n");
    }

    #[test]
    fn colours_surround_the_styled_text() {
        let colored = TerminalStyle { colors: true, width: None };
        assert_eq!(colored.paint(RED, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(colored.titled(RED, "error (x):", "why"), "\u{1b}[31merror (x):\u{1b}[0m why\n");
    }
}
