//! The live table: its lines for the size of the terminal, and how they replace the previous ones.

use super::lines::summary_text;
use super::news::News;
use super::state::{Event, Summary, Why};
use anstyle::Style;
use comfy_table::{ContentArrangement, Row, Table, presets};
use consul_session::Session;
use consul_session_args::{DIM, GREEN, RED, TerminalStyle, YELLOW, or_dash, printable, ttl, wrapped};
use crossterm::cursor::{MoveToColumn, MoveToPreviousLine};
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::{QueueableCommand, style::Print};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use unicode_width::UnicodeWidthStr;

/// How long a change stays marked, and a session that went stays in the table.
const MARKED: Duration = Duration::from_secs(60);
/// The width from which there is room for whole ids and for reasons.
const MEDIUM: u16 = 72;
/// The width from which there is room for TTLs and checks.
const WIDE: u16 = 110;
/// The characters of an id that a narrow table shows.
const SHORT_ID: usize = 8;

/// The screen's contents.
pub struct Screen {
    agent: String,
    terminal: TerminalStyle,
    /// By age, the oldest first.
    rows: BTreeMap<(u64, String), Entry>,
    summary: Option<Summary>,
    error: Option<(Instant, String)>,
    /// The widths of the lines that are on the terminal.
    drawn: Vec<usize>,
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
        Screen { agent, terminal, rows: BTreeMap::new(), summary: None, error: None, drawn: Vec::new() }
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

    /// Returns whether the screen shows ages, which change without events.
    pub fn shows_ages(&self) -> bool {
        self.error.is_some() || self.rows.values().any(|row| row.change.is_some())
    }

    /// Draws the screen over the previous one. The cursor stays visible, below the last line.
    pub fn draw(&mut self, to: &mut impl Write, (width, height): (u16, u16), now: Instant) -> io::Result<()> {
        let old = |row: &Entry| row.change.is_some_and(|(_, since)| now.saturating_duration_since(since) >= MARKED);
        self.rows.retain(|_, row| !(old(row) && is_gone(row)));
        for row in self.rows.values_mut() {
            if old(row) {
                row.change = None;
            }
        }
        // On a terminal that is narrower now, an old line takes more than one row.
        let above: usize = self.drawn.iter().map(|line| line.div_ceil(width.max(1).into()).max(1)).sum();
        to.queue(BeginSynchronizedUpdate)?.queue(MoveToColumn(0))?;
        if let Some(above) = u16::try_from(above).ok().filter(|above| *above > 0) {
            to.queue(MoveToPreviousLine(above))?;
        }
        to.queue(Clear(ClearType::FromCursorDown))?;
        self.drawn.clear();
        for (line, style) in self.lines(width, height, now) {
            self.drawn.push(line.width());
            to.queue(Print(self.terminal.paint(style.unwrap_or_default(), &line)))?.queue(Print("\r\n"))?;
        }
        to.queue(EndSynchronizedUpdate)?.flush()
    }

    /// Returns the lines: none wider than the terminal, and fewer than its height.
    fn lines(&self, width: u16, height: u16, now: Instant) -> Vec<(String, Option<Style>)> {
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
        let (rows, more) = self.fitting(room);
        if !rows.is_empty() {
            let styles = [Some(DIM)].into_iter().chain(rows.iter().map(|row| style(row)));
            lines.extend(table(&rows, width, now).zip(styles));
        }
        if more > 0 {
            lines.extend(wrapped(&format!("and {more} more"), width.into()).into_iter().map(|line| (line, None)));
        }
        lines.truncate(usize::from(height).saturating_sub(1));
        lines
    }

    /// Returns the rows that fit, and how many do not. Changed and new sessions are preferred.
    fn fitting(&self, room: usize) -> (Vec<&Entry>, usize) {
        let mut rows: Vec<&Entry> = self.rows.values().collect();
        let all = rows.len();
        if all > room {
            rows.sort_by_key(|row| std::cmp::Reverse((row.change.is_some(), row.session.create_index)));
            rows.truncate(room.saturating_sub(1));
            rows.sort_by(|a, b| a.session.age().cmp(&b.session.age()));
        }
        let more = all - rows.len();
        (rows, more)
    }
}

fn is_gone(row: &Entry) -> bool {
    matches!(row.change, Some((Change::Went(_), _)))
}

fn style(row: &Entry) -> Option<Style> {
    row.change.map(|(change, _)| if change == Change::Came { GREEN } else { RED })
}

/// Returns the lines of the table: a header, and one for each row.
fn table(rows: &[&Entry], width: u16, now: Instant) -> impl Iterator<Item = String> {
    let columns: &[&str] = match width {
        WIDE.. => &["", "ID", "NAME", "NODE", "TTL", "CHECKS", "AGO", "WHY"],
        MEDIUM.. => &["", "ID", "NAME", "NODE", "AGO", "WHY"],
        _ => &["", "ID", "NAME", "NODE", "AGO"],
    };
    let cell = |row: &Entry, column: &str| match (column, row.change) {
        ("", None) => " ".into(),
        ("", Some((Change::Came, _))) => "+".into(),
        ("", Some((Change::Went(_), _))) => "-".into(),
        ("ID", _) if width < MEDIUM => or_dash(&row.session.id).chars().take(SHORT_ID).collect(),
        ("ID", _) => or_dash(&row.session.id),
        ("NAME", _) => or_dash(&row.session.name),
        ("NODE", _) => or_dash(&row.session.node),
        ("TTL", _) => ttl(&row.session.ttl),
        ("CHECKS", _) => or_dash(&row.session.all_checks().join(",")),
        ("AGO", Some((_, since))) => age(since, now),
        ("WHY", Some((Change::Went(Some(why)), _))) => why.text().into(),
        _ => String::new(),
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(columns);
    for row in rows {
        let mut cells = Row::from(columns.iter().map(|column| cell(row, column)).collect::<Vec<String>>());
        cells.max_height(1);
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, if column.index == 0 { 1 } else { 2 }));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.into_iter()
}

/// Returns the time since then in short form: `59s`, `3m`, `2h`.
fn age(since: Instant, now: Instant) -> String {
    match now.saturating_duration_since(since).as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}
