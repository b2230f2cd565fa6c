//! The live table on the terminal's alternate screen, and the lines that it leaves behind.

use super::lines::summary_text;
use super::news::News;
use super::state::{Event, Summary, Why};
use anstyle::Style;
use consul_session::Session;
use consul_session_args::{Column, DIM, GREEN, Layout, RED, TerminalStyle, YELLOW, or_dash, printable, ttl, wrapped};
use crossterm::cursor::MoveTo;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{ExecutableCommand, QueueableCommand, style::Print};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long a change stays marked, and a session that went stays in the table.
const MARKED: Duration = Duration::from_secs(60);
/// The width from which there is room for TTLs and checks.
const WIDE: u16 = 110;
/// The characters of an id where whole ids would cost other columns.
const SHORT_ID: usize = 8;

/// The columns, but for the mark before each row. The last to give way are the age of a change and
/// why a session went.
const COLUMNS: [Column; 7] = [
    Column::new("ID").optional(),
    Column::NAME.shortened(7),
    Column::NODE.optional(),
    Column::TTL,
    Column::CHECKS,
    Column::new("AGO").usual(""),
    Column::new("WHY").usual(""),
];

/// The terminal's alternate screen, which is left when this is dropped. Nothing of it gets into the
/// scrollback.
pub struct Alternate(());

impl Alternate {
    /// Switches to the alternate screen.
    pub fn enter() -> io::Result<Alternate> {
        io::stdout().execute(EnterAlternateScreen)?;
        Ok(Alternate(()))
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        // Where the terminal is gone, there is nothing to restore.
        let _ = io::stdout().execute(LeaveAlternateScreen);
    }
}

/// The screen's contents.
pub struct Screen {
    agent: String,
    terminal: TerminalStyle,
    /// By age, the oldest first.
    rows: BTreeMap<(u64, String), Entry>,
    summary: Option<Summary>,
    error: Option<(Instant, String)>,
}

/// A session in the table.
struct Entry {
    session: Session,
    change: Option<(Change, Instant)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Came,
    Went(Option<Why>),
}

impl Screen {
    /// Creates an empty screen.
    pub fn new(agent: String, terminal: TerminalStyle) -> Screen {
        Screen { agent, terminal, rows: BTreeMap::new(), summary: None, error: None }
    }

    /// Applies the events.
    pub fn update(&mut self, news: News, now: Instant) {
        for event in news.events {
            let (session, change) = match event {
                Event::Is(session) => (session, None),
                Event::Came(session) => (session, Some(Change::Came)),
                Event::Went(session, why) => (session, Some(Change::Went(why))),
                Event::Listed(summary) => {
                    self.summary = Some(summary);
                    continue;
                }
                Event::Recovered(_) => {
                    self.error = None;
                    continue;
                }
                Event::Failed(error) => {
                    let since = self.error.as_ref().map_or(now, |(since, _)| *since);
                    self.error = Some((since, format!("({}) {}", error.kind.name(), printable(&error.message))));
                    continue;
                }
            };
            let key = (session.create_index, session.id.clone());
            self.rows.insert(key, Entry { session, change: change.map(|change| (change, now)) });
        }
    }

    /// Returns whether there was an answer.
    pub fn has_begun(&self) -> bool {
        self.summary.is_some()
    }

    /// Returns whether the screen shows ages, which change without events.
    pub fn shows_ages(&self) -> bool {
        self.error.is_some() || self.rows.values().any(|row| row.change.is_some())
    }

    /// Draws the screen over the previous one. The cursor stays visible, below the last line.
    pub fn draw(&mut self, to: &mut impl Write, size: (u16, u16), now: Instant) -> io::Result<()> {
        let old = |row: &Entry| row.change.is_some_and(|(_, since)| now.saturating_duration_since(since) >= MARKED);
        self.rows.retain(|_, row| !(old(row) && is_gone(row)));
        for row in self.rows.values_mut() {
            if old(row) {
                row.change = None;
            }
        }
        to.queue(BeginSynchronizedUpdate)?.queue(MoveTo(0, 0))?;
        for (line, style) in self.lines(self.rows.values().collect(), size, now) {
            let line = self.terminal.paint(style.unwrap_or_default(), &line);
            // Clears first: after a line of the whole width, that would take its last character.
            to.queue(Clear(ClearType::UntilNewLine))?.queue(Print(line))?.queue(Print("\r\n"))?;
        }
        to.queue(Clear(ClearType::FromCursorDown))?.queue(EndSynchronizedUpdate)?.flush()
    }

    /// Prints what is to stay on the terminal after the alternate screen is left: the sum, an error,
    /// and the last changes, on at most half of the terminal.
    pub fn print_last(&self, to: &mut impl Write, (width, height): (u16, u16), now: Instant) -> io::Result<()> {
        let changed = self.rows.values().filter(|row| row.change.is_some()).collect();
        for (line, style) in self.lines(changed, (width, height / 2), now) {
            writeln!(to, "{}", self.terminal.paint(style.unwrap_or_default(), &line))?;
        }
        to.flush()
    }

    /// Returns the lines with these rows: none wider than the terminal, and fewer than its height.
    fn lines(&self, rows: Vec<&Entry>, (width, height): (u16, u16), now: Instant) -> Vec<(String, Option<Style>)> {
        let status = match self.summary {
            Some(summary) => {
                let sessions = self.rows.values().filter(|row| !is_gone(row)).count();
                summary_text(&Summary { sessions, ..summary }, &self.agent)
            }
            None => format!("waiting for {}", self.agent),
        };
        let mut lines: Vec<_> = wrapped(&status, width.into()).into_iter().map(|line| (line, None)).collect();
        if let Some((since, error)) = &self.error {
            let text = format!("no answer for {}, trying again: {error}", age(*since, now));
            lines.extend(wrapped(&text, width.into()).into_iter().map(|line| (line, Some(YELLOW))));
        }
        // Two lines are the cursor's and the table header's.
        let room = usize::from(height).saturating_sub(lines.len() + 2);
        let (rows, more) = fitting(rows, room);
        if !rows.is_empty() {
            let styles = [Some(DIM)].into_iter().chain(rows.iter().map(|row| style(row)));
            lines.extend(table(&rows, width, now).into_iter().zip(styles));
        }
        if more > 0 {
            lines.extend(wrapped(&format!("and {more} more"), width.into()).into_iter().map(|line| (line, None)));
        }
        lines.truncate(usize::from(height).saturating_sub(1));
        lines
    }
}

/// Returns the rows that fit, and how many do not. Changed and new sessions are preferred.
fn fitting(mut rows: Vec<&Entry>, room: usize) -> (Vec<&Entry>, usize) {
    let all = rows.len();
    if all > room {
        rows.sort_by_key(|row| std::cmp::Reverse((row.change.is_some(), row.session.create_index)));
        rows.truncate(room.saturating_sub(1));
        rows.sort_by(|a, b| a.session.age().cmp(&b.session.age()));
    }
    let more = all - rows.len();
    (rows, more)
}

fn is_gone(row: &Entry) -> bool {
    matches!(row.change, Some((Change::Went(_), _)))
}

fn style(row: &Entry) -> Option<Style> {
    row.change.map(|(change, _)| if change == Change::Came { GREEN } else { RED })
}

/// Returns the lines of the table: a header, and one for each row.
fn table(rows: &[&Entry], width: u16, now: Instant) -> Vec<String> {
    let is_shown = |column: &Column| width >= WIDE || !["TTL", "CHECKS"].contains(&column.name());
    let columns: Vec<Column> = COLUMNS.into_iter().filter(is_shown).collect();
    let cells = |row: &Entry, short: bool| -> Vec<String> {
        let Entry { session, change } = row;
        let cell = |column: &Column| match (column.name(), change) {
            ("ID", _) if short => or_dash(&session.id).chars().take(SHORT_ID).collect(),
            ("ID", _) => or_dash(&session.id),
            ("NAME", _) => or_dash(&session.name),
            ("NODE", _) => or_dash(&session.node),
            ("TTL", _) => ttl(&session.ttl),
            ("CHECKS", _) => or_dash(&session.all_checks().join(",")),
            ("AGO", Some((_, since))) => age(*since, now),
            ("WHY", Some((Change::Went(Some(why)), _))) => why.text().into(),
            _ => String::new(),
        };
        columns.iter().map(cell).collect()
    };
    let laid_out = |short: bool| {
        let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, short)).collect();
        // Two columns are the mark's.
        let layout = Layout::new(&columns, cells.iter().map(Vec::as_slice), Some(usize::from(width).saturating_sub(2)));
        (cells, layout)
    };
    let (mut cells, mut layout) = laid_out(false);
    if layout.is_cut() {
        (cells, layout) = laid_out(true);
    }
    let mark = |row: &Entry| match row.change {
        None => ' ',
        Some((Change::Came, _)) => '+',
        Some((Change::Went(_), _)) => '-',
    };
    let lines = rows.iter().zip(&cells).map(|(row, cells)| format!("{} {}", mark(row), layout.line(cells)));
    std::iter::once(format!("  {}", layout.header())).chain(lines).collect()
}

/// Returns the time since then in short form: `59s`, `3m`, `2h`.
fn age(since: Instant, now: Instant) -> String {
    match now.saturating_duration_since(since).as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consul_session_args::TerminalStyle;

    /// Returns the lines of a screen of this width, on which a session went.
    fn lines(width: u16, name: &str, why: Option<Why>) -> Vec<String> {
        let session = Session {
            id: "adf4238a-882b-9ddc-4a9d-5b6758e4159e".into(),
            name: name.into(),
            node: "agent-node".into(),
            ..Session::default()
        };
        let mut screen = Screen::new("h:1".into(), TerminalStyle::default());
        let now = Instant::now();
        screen.update(News::new(1, vec![Event::Went(session, why)]), now);
        let lines = screen.lines(screen.rows.values().collect(), (width, 24), now);
        assert!(lines.iter().all(|(line, _)| line.chars().count() <= width.into()), "{lines:?}");
        lines.into_iter().skip(1).map(|(line, _)| line).collect()
    }

    #[test]
    fn reason_is_the_last_to_go_on_a_narrow_screen() {
        let why = Some(Why::Checks);
        for (width, name, expected) in [
            (
                112,
                "web",
                "  ID                                    NAME  NODE        TTL  CHECKS  AGO  WHY\n\
                 - adf4238a-882b-9ddc-4a9d-5b6758e4159e  web   agent-node  -    -       0s   node or check?",
            ),
            (
                80,
                "web",
                "  ID                                    NAME  NODE        AGO  WHY\n\
                 - adf4238a-882b-9ddc-4a9d-5b6758e4159e  web   agent-node  0s   node or check?",
            ),
            // Whole names are worth more than the whole id.
            (
                80,
                "web-frontend-production",
                "  ID        NAME                     NODE        AGO  WHY\n\
                 - adf4238a  web-frontend-production  agent-node  0s   node or check?",
            ),
            (
                60,
                "web-frontend-production",
                "  ID        NAME             NODE        AGO  WHY\n\
                 - adf4238a  web-frontend-p…  agent-node  0s   node or check?",
            ),
            (40, "web", "  ID        NAME  AGO  WHY\n- adf4238a  web   0s   node or check?"),
            (40, "web-frontend", "  ID        NAME     AGO  WHY\n- adf4238a  web-fr…  0s   node or check?"),
            (30, "web-frontend", "  NAME     AGO  WHY\n- web-fr…  0s   node or check?"),
        ] {
            assert_eq!(lines(width, name, why).join("\n"), expected, "{width}");
        }
        // Without a reason there is room for the node.
        let expected = "  ID        NAME         NODE        AGO\n- adf4238a  web-fronte…  agent-node  0s";
        assert_eq!(lines(40, "web-frontend", None).join("\n"), expected);
        lines(10, "web-frontend", why);
    }
}
