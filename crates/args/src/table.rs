//! Tables that fit the terminal.
//!
//! A table that is too wide leaves out, from the right, the columns that have their usual value in
//! every row. If that is not enough, it leaves out others that may be, and shortens the longest
//! cells. Ids stay whole: where there is no room beside one, it is below its row.

use crate::style::{DIM, TerminalStyle};
use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// The spaces between two columns.
const GAP: usize = 2;

/// A column of a table: its name, and how it gives way where the table is too wide.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    usual: Option<&'static str>,
    least: Option<usize>,
    optional: bool,
    below: bool,
}

impl Column {
    /// The id of a session: whole, below the row if need be.
    pub const ID: Column = Column { below: true, ..Column::new("ID") };
    /// The name of a session.
    pub const NAME: Column = Column::new("NAME").usual("-").shortened(12);
    /// The node of a session.
    pub const NODE: Column = Column::new("NODE").shortened(8);
    /// What happens to the locks of a session that ends.
    pub const BEHAVIOR: Column = Column::new("BEHAVIOR").usual("release").optional();
    /// The lock delay of a session.
    pub const DELAY: Column = Column::new("DELAY").usual("15s").optional();
    /// The TTL of a session.
    pub const TTL: Column = Column::new("TTL").usual("-").optional();
    /// The checks of a session.
    pub const CHECKS: Column = Column::new("CHECKS").usual("serfHealth").shortened(10).optional();

    /// Creates a column that is always shown whole.
    pub const fn new(name: &'static str) -> Column {
        Column { name, usual: None, least: None, optional: false, below: false }
    }

    /// Returns the column as one that may be left out if each row has this value.
    #[must_use]
    pub const fn usual(self, value: &'static str) -> Column {
        Column { usual: Some(value), ..self }
    }

    /// Returns the column as one whose cells may be shortened to this width.
    #[must_use]
    pub const fn shortened(self, least: usize) -> Column {
        Column { least: Some(least), ..self }
    }

    /// Returns the column as one that may be left out, whatever its values.
    #[must_use]
    pub const fn optional(self) -> Column {
        Column { optional: true, ..self }
    }

    /// Returns the name in the table's header.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// The columns that a table shows, and their widths.
#[derive(Clone, Debug)]
pub struct Layout {
    columns: Vec<Column>,
    widths: Vec<usize>,
    /// The columns beside each other.
    shown: Vec<usize>,
    /// The column below each row.
    below: Option<usize>,
    /// The names of the columns that are left out although a row has an unusual value.
    left_out: Vec<&'static str>,
    /// Whether a cell may be shortened.
    shortens: bool,
    /// The width of a line.
    limit: usize,
}

impl Layout {
    /// Lays out a table with these rows for a width; none for a table of any width.
    pub fn new<'a>(columns: &[Column], rows: impl IntoIterator<Item = &'a [String]>, width: Option<usize>) -> Layout {
        let mut widths: Vec<usize> = columns.iter().map(|column| column.name.width()).collect();
        let mut usual: Vec<bool> = columns.iter().map(|column| column.usual.is_some()).collect();
        for row in rows {
            for (at, (cell, column)) in row.iter().zip(columns).enumerate() {
                widths[at] = widths[at].max(cell.width());
                usual[at] &= column.usual == Some(cell);
            }
        }
        let all = 0..columns.len();
        let mut layout = Layout {
            columns: columns.to_vec(),
            widths,
            shown: all.clone().collect(),
            below: None,
            left_out: Vec::new(),
            shortens: false,
            limit: width.unwrap_or(usize::MAX),
        };
        if let Some(width) = width
            && !layout.fit(&usual, width)
        {
            layout.below = columns.iter().position(|column| column.below);
            if layout.below.is_some() {
                layout.shown = all.filter(|at| Some(*at) != layout.below).collect();
                layout.left_out.clear();
                layout.fit(&usual, width);
            }
        }
        layout
    }

    /// Leaves out and shortens columns until a row fits the width. Returns whether it does.
    fn fit(&mut self, usual: &[bool], width: usize) -> bool {
        let sum = |shown: &[usize], widths: &[usize]| shown.iter().map(|at| widths[*at] + GAP).sum::<usize>();
        let width = width + GAP;
        while sum(&self.shown, &self.widths) > width
            && let Some(last) = self.shown.iter().rposition(|at| usual[*at])
        {
            self.shown.remove(last);
        }
        let least = |at: usize, width: usize| self.columns[at].least.map_or(width, |least| least.min(width));
        let smallest: Vec<usize> = self.widths.iter().enumerate().map(|(at, width)| least(at, *width)).collect();
        while sum(&self.shown, &smallest) > width {
            let Some(last) = self.shown.iter().rposition(|at| self.columns[*at].optional) else { return false };
            self.left_out.insert(0, self.columns[self.shown.remove(last)].name);
        }
        while sum(&self.shown, &self.widths) > width {
            let long = self.shown.iter().copied().filter(|at| self.widths[*at] > smallest[*at]);
            let Some(longest) = long.max_by_key(|at| self.widths[*at]) else { return false };
            self.widths[longest] -= 1;
            self.shortens = true;
        }
        true
    }

    /// Returns whether the table lacks something other than usual values.
    pub fn is_cut(&self) -> bool {
        self.shortens || !self.left_out.is_empty()
    }

    /// Returns the line with the names of the columns.
    pub fn header(&self) -> String {
        self.line(&self.columns.iter().map(|column| column.name).collect::<Vec<_>>())
    }

    /// Returns the line of a row.
    pub fn line(&self, cells: &[impl AsRef<str>]) -> String {
        let mut line = String::new();
        let mut end = 0;
        for at in &self.shown {
            let (cell, width) = (shortened(cells[*at].as_ref(), self.widths[*at]), self.widths[*at]);
            line.extend(std::iter::repeat_n(' ', end));
            line += &cell;
            end = width.saturating_sub(cell.width()) + GAP;
        }
        line.truncate(line.trim_end().len());
        shortened(&line, self.limit)
    }

    /// Returns a table of rows, each with its style.
    pub fn table<const N: usize>(&self, rows: &[([String; N], Option<Style>)], terminal: TerminalStyle) -> String {
        let mut text = terminal.paint(DIM, &self.header()) + "\n";
        for (cells, style) in rows {
            let style = style.unwrap_or_default();
            text += &terminal.paint(style, &self.line(cells));
            text.push('\n');
            if let Some(id) = self.below.map(|at| &cells[at]).filter(|id| *id != "-") {
                text += &terminal.paint(style, &format!("  {id}"));
                text.push('\n');
            }
        }
        text
    }

    /// Returns the line that names the columns that are left out, other than those with their usual
    /// value in every row.
    pub fn note(&self, terminal: TerminalStyle) -> String {
        match self.left_out.is_empty() {
            true => String::new(),
            false => terminal.titled(DIM, "not shown:", &format!("{} (`-o wide` shows all)", self.left_out.join(", "))),
        }
    }
}

/// Returns a text whose end is replaced by `…` if it is wider than this.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let ends = text.char_indices().map(|(end, _)| end);
    let end = ends.take_while(|end| text[..*end].width() < width).last().unwrap_or_default();
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::{GREEN, RED};

    const ID: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
    const COLUMNS: [Column; 7] =
        [Column::ID, Column::NAME, Column::NODE, Column::BEHAVIOR, Column::DELAY, Column::TTL, Column::CHECKS];

    fn terminal(width: usize) -> TerminalStyle {
        TerminalStyle { colors: false, width: Some(width) }
    }

    /// A row as text: name, node, behavior, delay, TTL, checks.
    fn row(text: &str) -> ([String; 7], Option<Style>) {
        let mut cells = vec![ID.to_owned()];
        cells.extend(text.split(' ').map(str::to_owned));
        (cells.try_into().unwrap(), None)
    }

    #[track_caller]
    fn shows(rows: &[&str], width: usize, expected: &str) {
        let rows: Vec<_> = rows.iter().map(|text| row(text)).collect();
        let text = terminal(width).table(&COLUMNS, &rows);
        assert_eq!(text, expected.replace("{ID}", ID), "{width}");
        assert!(text.lines().all(|line| line.width() <= width.max(40)), "{width}: {text}");
    }

    #[test]
    fn usual_columns_are_left_out_from_the_right() {
        let rows = ["session1 agent-node release 20s - serfHealth", "db agent-node release 15s - serfHealth"];
        let whole = "\
ID                                    NAME      NODE        BEHAVIOR  DELAY  TTL  CHECKS
{ID}  session1  agent-node  release   20s    -    serfHealth
{ID}  db        agent-node  release   15s    -    serfHealth
";
        shows(&rows, 92, whole);
        // Without the trailing column, nothing else has to go.
        shows(&rows, 91, &whole.replace("  CHECKS", "").replace("    serfHealth", ""));
        let shorter = whole.replace("  TTL  CHECKS", "").replace("    -    serfHealth", "");
        shows(&rows, 79, &shorter);
        // `20s` is not the usual delay.
        shows(&rows, 74, &shorter.replace("  BEHAVIOR", "").replace("release   ", ""));
    }

    #[test]
    fn unusual_columns_are_left_out_last_and_named() {
        let rows = ["web agent-node delete 20s 10m serfHealth,web", "- n1 release 15s - -"];
        shows(
            &rows,
            80,
            "\
ID                                    NAME  NODE        BEHAVIOR  DELAY  TTL
{ID}  web   agent-node  delete    20s    10m
{ID}  -     n1          release   15s    -
not shown: CHECKS (`-o wide` shows all)
",
        );
        shows(
            &rows,
            60,
            "\
ID                                    NAME  NODE
{ID}  web   agent-node
{ID}  -     n1
not shown: BEHAVIOR, DELAY, TTL, CHECKS (`-o wide` shows
  all)
",
        );
    }

    #[test]
    fn long_cells_are_shortened_at_their_end() {
        let rows =
            ["web-frontend-production-eu-west-1 agent-node release 15s - serfHealth", "長い名前 n1 release 15s - serfHealth"];
        shows(
            &rows,
            80,
            "\
ID                                    NAME                            NODE
{ID}  web-frontend-production-eu-we…  agent-node
{ID}  長い名前                        n1
",
        );
        assert_eq!(shortened("長い名前", 8), "長い名前");
        // A wide character that does not fit whole leaves a column empty.
        assert_eq!(["長い名前", "e\u{301}xyz", "abc"].map(|text| shortened(text, 2)), ["…", "e\u{301}…", "a…"]);
        assert_eq!(shortened("長い名前", 4), "長…");
    }

    #[test]
    fn ids_without_room_are_below_their_rows() {
        let rows = ["session1 agent-node release 20s 1m30s serfHealth", "- n1 release 15s - serfHealth"];
        for width in [40, 20, 1] {
            shows(
                &rows,
                width,
                "\
NAME      NODE        DELAY  TTL
session1  agent-node  20s    1m30s
  {ID}
-         n1          15s    -
  {ID}
",
            );
        }
        // The row of a session that does not exist yet has no id.
        let columns = [Column::new("LINE"), Column::new("RESULT"), Column::NAME, Column::NODE, Column::ID];
        let rows = [["1", "to replace", "session-one", "agent-node", "-"].map(str::to_owned)].map(|cells| (cells, None));
        let expected = "LINE  RESULT      NAME         NODE\n1     to replace  session-one  agent-no…\n";
        assert_eq!(terminal(40).table(&columns, &rows), expected);
    }

    #[test]
    fn width_of_a_file_shows_every_cell_whole() {
        let rows =
            ["web-frontend-production-eu-west-1 agent-node delete 20s 10m serfHealth,passing-check,service:web"].map(row);
        let text = TerminalStyle::default().table(&COLUMNS, &rows);
        let [_, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>(), rows[0].0);
    }

    #[test]
    fn colours_change_nothing_else() {
        let rows = [row("web n1 delete 20s 10m serfHealth,web")].map(|(cells, _)| (cells, Some(GREEN)));
        for width in [None, Some(80), Some(40)] {
            let text = TerminalStyle { colors: true, width }.table(&COLUMNS, &rows);
            let mut plain = text.replace("\u{1b}[0m", "");
            for style in [DIM, GREEN] {
                plain = plain.replace(&style.to_string(), "");
            }
            assert_eq!(plain, TerminalStyle { colors: false, width }.table(&COLUMNS, &rows));
            assert!(text.contains("\u{1b}[32m") && text.contains("\u{1b}[2m") && !text.contains(&RED.to_string()), "{text:?}");
        }
    }
}
