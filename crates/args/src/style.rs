//! How a text style where it is printed: coloured or not, and no wider than the terminal.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr;

/// Errors, and what went.
pub const RED: Style = AnsiColor::Red.on_default();
/// What came.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// What was changed, and what is being waited for.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// What matters less than what stands beside it.
pub const DIM: Style = Style::new().dimmed();

/// The narrowest that is reckoned with: an id, and the blanks in front of it.
const NARROWEST: usize = 40;

/// Stands for a blank at which [`wrapped`] breaks no line.
pub const NO_BREAK: &str = "\u{a0}";

/// What a text is printed to. Default: a file or a pipe, where there are no colours and a line is as long as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalStyle {
    /// Whether it shows colours.
    pub colors: bool,
    /// Its columns, if it is a terminal.
    pub width: Option<usize>,
}

/// What a program's two streams are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalStyles {
    /// Standard output.
    pub stdout: TerminalStyle,
    /// Standard error.
    pub stderr: TerminalStyle,
}

impl TerminalStyle {
    /// The text in this style, where colours are shown.
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.colors && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn width(self) -> Option<usize> {
        self.width.map(|width| width.max(NARROWEST))
    }

    /// The text in lines that fit, each but the first indented. What stands in backquotes, to be typed, is not broken at its blanks.
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

    /// A line with a word in front that says what it is: `error (timeout): …`.
    pub fn titled(self, style: Style, title: &str, text: &str) -> String {
        let line = self.fold(&format!("{title} {text}"));
        match line.strip_prefix(title) {
            Some(rest) => format!("{}{rest}\n", self.paint(style, title)),
            None => format!("{line}\n"),
        }
    }

    /// Rows below their columns' names, a line each; where that is too wide, a block of names and values for each row.
    pub fn table<const N: usize>(self, header: [&str; N], rows: &[([String; N], Option<Style>)]) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        for (cells, _) in rows {
            table.add_row(cells);
        }
        // Two blanks between columns, and one at each end, which are cut off.
        let wide = table.column_max_content_widths().iter().map(|width| usize::from(*width) + 2).sum::<usize>() - 2;
        let mut text = String::new();
        if self.width().is_none_or(|width| wide <= width) {
            let styles = [Some(DIM)].into_iter().chain(rows.iter().map(|(_, style)| *style));
            for (line, style) in table.lines().zip(styles) {
                text += &self.paint(style.unwrap_or_default(), line.trim());
                text.push('\n');
            }
            return text;
        }
        for (cells, style) in rows {
            if !text.is_empty() {
                text.push('\n');
            }
            for (name, cell) in header.iter().zip(cells) {
                text += &self.field("", &header, name, cell, *style);
            }
        }
        text
    }

    /// The name and the value of one of a thing's fields, with a sign in front: `- delay     15s`.
    pub fn field(self, sign: &str, header: &[&str], name: &str, value: &str, style: Option<Style>) -> String {
        let names = header.iter().map(|name| name.len()).max().unwrap_or_default();
        let title = format!("{sign}{:<names$}", name.to_ascii_lowercase());
        let value_style = style.unwrap_or_default();
        let title_style = if sign.trim().is_empty() { DIM } else { value_style };
        match self.width() {
            Some(width) if title.len() + 2 + value.width() > width => {
                let indent = format!("{sign}  ");
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

/// A text in lines of this width: broken at blanks, or within what is too long for a line.
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

    const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

    fn style(width: usize) -> TerminalStyle {
        TerminalStyle { colors: false, width: Some(width) }
    }

    #[test]
    fn a_table_that_is_too_wide_becomes_blocks() {
        let rows = [([ID.into(), "wéb 長".into()], None), (["b".into(), "-".into()], Some(RED))];
        let header = ["ID", "NAME"];
        let table = format!("{:<38}NAME\n{ID}  wéb 長\n{:<38}-\n", "ID", "b");
        assert_eq!(TerminalStyle::default().table(header, &rows), table);
        assert_eq!(style(44).table(header, &rows), table);
        assert_eq!(style(43).table(header, &rows), format!("id    {ID}\nname  wéb 長\n\nid    b\nname  -\n"));
        // An id stays whole, whatever the width.
        for width in [41, 40, 20, 1] {
            assert_eq!(style(width).table(header, &rows), format!("id\n  {ID}\nname  wéb 長\n\nid    b\nname  -\n"), "{width}");
        }
    }

    #[test]
    fn only_the_first_line_of_a_folded_text_is_not_indented() {
        let text = "error (timeout): no answer from 127.0.0.1:8500 within 10s";
        assert_eq!(TerminalStyle::default().fold(text), text);
        assert_eq!(style(40).fold(text), "error (timeout): no answer from\n  127.0.0.1:8500 within 10s");
        assert_eq!(
            style(40).fold("denied: add it to what is allowed: `--allow a:1`"),
            "denied: add it to what is allowed:\n  `--allow a:1`"
        );
        assert_eq!(style(80).titled(RED, "error (timeout):", "no"), "error (timeout): no\n");
    }

    #[test]
    fn colours_add_nothing_else() {
        let colored = TerminalStyle { colors: true, width: None };
        assert_eq!(colored.paint(RED, "x"), "\u{1b}[31mx\u{1b}[0m");
        let rows = [([ID.into(), "web".into()], Some(GREEN))];
        for style in [colored, TerminalStyle { width: Some(40), ..colored }] {
            let text = style.table(["ID", "NAME"], &rows);
            let mut plain = text.replace("\u{1b}[0m", "");
            for style in [DIM, GREEN] {
                plain = plain.replace(&style.to_string(), "");
            }
            assert_eq!(plain, TerminalStyle { colors: false, ..style }.table(["ID", "NAME"], &rows));
            assert!(text.contains("\u{1b}[32m") && text.contains("\u{1b}[2m"), "{text:?}");
        }
        assert_eq!(colored.titled(RED, "error (x):", "why"), "\u{1b}[31merror (x):\u{1b}[0m why\n");
    }
}
