//! The live table: which lines a terminal of some size shows, and how they replace those before.

use super::News;
use super::lines::summed_up;
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

/// How long a change stays marked, and what went stays in the table.
const MARKED: Duration = Duration::from_secs(60);
/// From this width on there is room for whole ids and for reasons.
const MEDIUM: u16 = 72;
/// From this width on there is room for TTLs and checks.
const WIDE: u16 = 110;
/// So much of an id is shown where there is little room.
const SHORT_ID: usize = 8;

/// What is shown.
pub struct Screen {
    agent: String,
    terminal: TerminalStyle,
    /// The oldest first.
    rows: BTreeMap<(u64, String), Shown>,
    summary: Option<Summary>,
    error: Option<(Instant, String)>,
    /// The widths of the lines on the terminal.
    drawn: Vec<usize>,
}

struct Shown {
    session: Session,
    change: Option<(Change, Instant)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Came,
    Went(Option<Why>),
}

impl Screen {
    /// A screen on which there is nothing yet.
    pub fn new(agent: String, terminal: TerminalStyle) -> Screen {
        Screen { agent, terminal, rows: BTreeMap::new(), summary: None, error: None, drawn: Vec::new() }
    }

    /// Takes over what happened.
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
            self.rows.insert(key, Shown { session, change: change.map(|change| (change, now)) });
        }
    }

    /// Whether the lines change though nothing happens.
    pub fn ages(&self) -> bool {
        self.error.is_some() || self.rows.values().any(|row| row.change.is_some())
    }

    /// Draws it all in place of what was drawn before. The cursor, which stays visible, is left below.
    pub fn draw(&mut self, to: &mut impl Write, (width, height): (u16, u16), now: Instant) -> io::Result<()> {
        let old = |row: &Shown| row.change.is_some_and(|(_, since)| now.saturating_duration_since(since) >= MARKED);
        self.rows.retain(|_, row| !(old(row) && is_gone(row)));
        for row in self.rows.values_mut() {
            if old(row) {
                row.change = None;
            }
        }
        // On a terminal that has become narrower a line takes more than one row.
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

    /// The lines, none wider than the terminal and fewer than its height.
    fn lines(&self, width: u16, height: u16, now: Instant) -> Vec<(String, Option<Style>)> {
        let status = match self.summary {
            Some(summary) => {
                let sessions = self.rows.values().filter(|row| !is_gone(row)).count();
                summed_up(&Summary { sessions, ..summary }, &self.agent)
            }
            None => format!("waiting for {}", self.agent),
        };
        let mut lines: Vec<_> = wrapped(&status, width.into()).into_iter().map(|line| (line, None)).collect();
        if let Some((since, error)) = &self.error {
            let text = format!("no answer for {}, trying again: {error}", age(*since, now));
            lines.extend(wrapped(&text, width.into()).into_iter().map(|line| (line, Some(YELLOW))));
        }
        // The cursor's line, and that of the table's head.
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

    /// As many rows as there is room for, and how many there are beside: what changed and what is new stays.
    fn fitting(&self, room: usize) -> (Vec<&Shown>, usize) {
        let mut rows: Vec<&Shown> = self.rows.values().collect();
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

fn is_gone(row: &Shown) -> bool {
    matches!(row.change, Some((Change::Went(_), _)))
}

fn style(row: &Shown) -> Option<Style> {
    row.change.map(|(change, _)| if change == Change::Came { GREEN } else { RED })
}

/// A head and the rows, a line each.
fn table(rows: &[&Shown], width: u16, now: Instant) -> impl Iterator<Item = String> {
    let columns: &[&str] = match width {
        WIDE.. => &["", "ID", "NAME", "NODE", "TTL", "CHECKS", "AGO", "WHY"],
        MEDIUM.. => &["", "ID", "NAME", "NODE", "AGO", "WHY"],
        _ => &["", "ID", "NAME", "NODE", "AGO"],
    };
    let cell = |row: &Shown, column: &str| match (column, row.change) {
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

/// `59s`, `3m`, `2h`.
fn age(since: Instant, now: Instant) -> String {
    match now.saturating_duration_since(since).as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}
