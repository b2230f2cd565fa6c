//! Outcomes and errors to text.

use crate::flags::{Command, Format};
use crate::invocation::Invocation;
use crate::style::{DIM, GREEN, RED, TerminalStyle, TerminalStyles, YELLOW};
use crate::table::{Column, Layout};
use anstyle::Style;
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session::outcome::Outcome;
use consul_session::session::Session;
use serde::Serialize;

/// The text that a program prints, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Text for standard output.
    pub stdout: String,
    /// Text for standard error.
    pub stderr: String,
    /// The exit status.
    pub status: u8,
}

impl Output {
    /// The exit status of success.
    pub const DONE: u8 = 0;
    /// The exit status of a failure.
    pub const FAILED: u8 = 1;
    /// The exit status of a command line that is wrong, so that nothing was sent.
    pub const USAGE: u8 = 2;

    /// Returns text for standard output, as of a success.
    pub fn text(stdout: String) -> Output {
        Output { stdout, stderr: String::new(), status: Output::DONE }
    }
}

/// Formats the outcome of an invocation.
pub fn success(outcome: &Outcome, invocation: &Invocation, styles: &TerminalStyles) -> Output {
    let output = print(outcome, invocation.format, invocation.is_dry_run(), styles);
    match &invocation.command {
        // For scripts, as other tools have it. The option `state=info` only reads.
        Some(Command::Info(_)) if outcome.sessions.is_empty() => Output { status: Output::FAILED, ..output },
        _ => output,
    }
}

fn print(outcome: &Outcome, format: Format, dry_run: bool, styles: &TerminalStyles) -> Output {
    let (stdout, stderr) = match format {
        Format::Json => (json_text(outcome), String::new()),
        Format::Table | Format::Wide => {
            (table(outcome, dry_run, styles.stdout, format) + &notes(outcome, styles.stdout), String::new())
        }
        Format::Ids => (ids(outcome), notes(outcome, styles.stderr)),
    };
    Output { stdout, stderr, status: Output::DONE }
}

/// Formats an error: as a line on standard error, or as JSON on standard output.
pub fn failure(error: &Error, format: Format, styles: &TerminalStyles) -> Output {
    let (stdout, stderr) = match format {
        Format::Json => (json_text(error), String::new()),
        Format::Table | Format::Wide | Format::Ids => (String::new(), error_line(error, "", styles.stderr)),
    };
    let status = if matches!(error.kind, ErrorKind::InvalidOption { .. }) { Output::USAGE } else { Output::FAILED };
    Output { stdout, stderr, status }
}

/// Returns a value as JSON, indented by two spaces.
pub fn json_text(value: &impl Serialize) -> String {
    #[expect(clippy::expect_used, reason = "strings and numbers can always be serialized")]
    let text = serde_json::to_string_pretty(value).expect("serializing strings and numbers does not fail");
    text + "\n"
}

/// Returns the line of an error, with a prefix for its message:
/// `error (timeout): sessions.yaml:3: …`.
pub fn error_line(error: &Error, prefix: &str, terminal: TerminalStyle) -> String {
    terminal.titled(RED, &format!("error ({}):", error.kind.name()), &format!("{prefix}{}", printable(&error.message)))
}

fn notes(outcome: &Outcome, terminal: TerminalStyle) -> String {
    outcome.notes.iter().map(|note| terminal.titled(DIM, "note:", &printable(note))).collect()
}

/// Returns the ids of the outcome, one a line: of the session that is now present, of the destroyed
/// sessions, or of the sessions that were read.
fn ids(outcome: &Outcome) -> String {
    let ids: Vec<&str> = match &outcome.diff {
        None => outcome.sessions.iter().map(|session| session.id.as_str()).collect(),
        Some(diff) if diff.after.is_empty() => outcome.destroyed.iter().map(String::as_str).collect(),
        // A session that a dry run would create has no id yet.
        Some(_) => outcome.session_id().into_iter().collect(),
    };
    ids.iter().map(|id| format!("{}\n", printable(id))).collect()
}

fn table(outcome: &Outcome, dry_run: bool, terminal: TerminalStyle, format: Format) -> String {
    let Outcome { changed, sessions, diff, .. } = outcome;
    let (before, after) = diff.as_ref().map_or((&[][..], &[][..]), |diff| (&diff.before, &diff.after));
    let (changed, is_read) = (*changed, diff.is_none());

    let (create, destroy) = if dry_run { ("would create", "would destroy") } else { ("created", "destroyed") };
    let (title, what) = match (changed, before.len(), after.len()) {
        _ if is_read && !sessions.is_empty() => ("", counted(sessions.len())),
        _ if is_read && outcome.filtered => ("", "no session is visible: ACLs hide sessions, or may".into()),
        _ if is_read => ("", "no session".into()),
        (true, 0, _) => ("changed:", format!("{create} a session")),
        (true, count, 0) => ("changed:", format!("{destroy} {}", counted(count))),
        (true, count, _) => ("changed:", format!("{create} a session and {destroy} {}", counted(count))),
        (false, _, 0) => ("unchanged:", "there is no such session".into()),
        (false, ..) => ("unchanged:", "the session is as wanted".into()),
    };
    let mut text = match title {
        "" => format!("{what}\n"),
        title => terminal.titled(if changed { YELLOW } else { DIM }, title, &what),
    };
    let tables = terminal.of_tables(format);
    match (changed, dry_run) {
        (true, true) => text += &difference(before, after, terminal),
        (true, false) => {
            let is_new = |session: &Session| after.iter().any(|one| one.id == session.id);
            let present = rows(sessions, |session| is_new(session).then_some(GREEN));
            let destroyed = rows(before, |_| Some(RED));
            // One layout, so that what differs is in both tables, at the same place.
            let both = present.iter().chain(&destroyed).map(|(cells, _)| &cells[..]);
            let layout = Layout::new(&COLUMNS, both, tables.width());
            if !present.is_empty() {
                text += &layout.table(&present, tables);
            }
            if !destroyed.is_empty() {
                text += "destroyed:\n";
                text += &layout.table(&destroyed, tables);
            }
            text += &layout.note(terminal);
        }
        (false, _) if sessions.is_empty() => {}
        (false, _) => text += &tables.table(&COLUMNS, &rows(sessions, |_| None)),
    }
    text
}

/// Returns a number of sessions as text: `1 session`, `2 sessions`.
pub fn counted(count: usize) -> String {
    if count == 1 { "1 session".into() } else { format!("{count} sessions") }
}

const COLUMNS: [Column; 7] =
    [Column::ID, Column::NAME, Column::NODE, Column::BEHAVIOR, Column::DELAY, Column::TTL, Column::CHECKS];

fn cells(session: &Session) -> [String; 7] {
    [
        or_dash(&session.id),
        or_dash(&session.name),
        or_dash(&session.node),
        or_dash(&session.behavior),
        duration::for_people(session.lock_delay),
        ttl(&session.ttl),
        or_dash(&session.all_checks().join(",")),
    ]
}

fn rows(sessions: &[Session], style: impl Fn(&Session) -> Option<Style>) -> Vec<([String; 7], Option<Style>)> {
    sessions.iter().map(|session| (cells(session), style(session))).collect()
}

/// Returns the planned change of each session, field by field: `-` marks the old value, `+` the new
/// one, and an unchanged field has no mark. Unset fields are left out.
pub fn difference(before: &[Session], after: &[Session], terminal: TerminalStyle) -> String {
    let names = COLUMNS.map(|column| column.name());
    let mut text = String::new();
    for at in 0..before.len().max(after.len()) {
        if at > 0 {
            text.push('\n');
        }
        let (old, new) = (before.get(at).map(cells), after.get(at).map(cells));
        for (field, name) in names.iter().enumerate() {
            let value = |cells: &Option<[String; 7]>| {
                cells.as_ref().and_then(|cells| cells.get(field)).filter(|value| *value != UNSET).cloned()
            };
            let mut add = |mark, value: Option<String>, style| {
                text += &value.map(|value| terminal.field(mark, &names, name, &value, style)).unwrap_or_default();
            };
            match (value(&old), value(&new)) {
                (old, new) if old == new => add("  ", old, None),
                (old, new) => {
                    add("- ", old, Some(RED));
                    add("+ ", new, Some(GREEN));
                }
            }
        }
    }
    text
}

/// Placeholder for an empty value.
const UNSET: &str = "-";

/// Returns untrusted text in printable form, or a dash if it is empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { UNSET.to_owned() } else { printable(text) }
}

/// Returns a TTL as Consul stores it in readable form: `600s` as `10m`.
pub fn ttl(stored: &str) -> String {
    match duration::parse_go(stored) {
        Some(0) => UNSET.to_owned(),
        Some(nanoseconds) => duration::for_people(nanoseconds),
        None => or_dash(stored),
    }
}

/// Returns untrusted text with every character that does not show as one escaped, as in Rust
/// (`\u{202e}`): control characters, which could move the cursor or recolour the terminal, and
/// format characters, which could reorder or hide text.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Quotes and backslashes need no escape: nothing parses this text.
            ' '..='~' => shown.push(c),
            // After another character, which is left out again, a combining mark is not escaped.
            _ => shown.extend(format!(".{c}").escape_debug().skip(1)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use consul_session::outcome::Diff;

    fn session(id: &str) -> Session {
        Session {
            id: id.into(),
            name: "web".into(),
            node: "n1".into(),
            lock_delay: 15 * duration::SECOND,
            behavior: "release".into(),
            node_checks: vec!["serfHealth".into()],
            ..Session::default()
        }
    }

    #[track_caller]
    fn shows(outcome: &Outcome, dry_run: bool, expected: &str) {
        let output = print(outcome, Format::Table, dry_run, &TerminalStyles::default());
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.status), (expected, "", Output::DONE));
    }

    /// The session `a`, field by field.
    fn block(mark: char) -> String {
        let fields =
            ["id        a", "name      web", "node      n1", "behavior  release", "delay     15s", "checks    serfHealth"];
        fields.map(|field| format!("{mark} {field}\n")).concat()
    }

    #[test]
    fn dry_run_of_a_replacement_prints_each_field() {
        let mut old = session("a");
        old.ttl = "600s".into();
        let new = Session { id: String::new(), lock_delay: 90 * duration::SECOND, ..session("") };
        let other = Session { name: "other".into(), ..session("b") };
        let outcome = Outcome {
            changed: true,
            diff: Some(Diff { before: vec![old, other], after: vec![new] }),
            destroyed: vec!["a".into(), "b".into()],
            ..Outcome::default()
        };
        let expected = "\
changed: would create a session and would destroy 2 sessions
- id        a
  name      web
  node      n1
  behavior  release
- delay     15s
+ delay     1m30s
- ttl       10m
  checks    serfHealth

- id        b
- name      other
- node      n1
- behavior  release
- delay     15s
- checks    serfHealth
";
        shows(&outcome, true, expected);
        // The planned session has no id, and the sessions to destroy are not the requested one.
        assert_eq!(print(&outcome, Format::Ids, true, &TerminalStyles::default()).stdout, "");
    }

    #[test]
    fn format_ids_prints_only_ids_to_standard_output() {
        let (one, two) = (vec![session("a")], vec![session("a"), session("b")]);
        let diff = |before: &[Session], after: &[Session]| Some(Diff { before: before.to_vec(), after: after.to_vec() });
        let present = Outcome { session: Some(session("a")), sessions: two.clone(), ..Outcome::default() };
        let destroyed = vec!["b".to_owned(), "a".to_owned()];
        for (outcome, expected) in [
            (Outcome { diff: diff(&one, &one), ..present.clone() }, "a\n"),
            (Outcome { changed: true, diff: diff(&two, &one), destroyed: destroyed.clone(), ..present }, "a\n"),
            (Outcome { changed: true, diff: diff(&two, &[]), destroyed, ..Outcome::default() }, "b\na\n"),
            (Outcome { diff: diff(&[], &[]), ..Outcome::default() }, ""),
            (Outcome { sessions: two, ..Outcome::default() }, "a\nb\n"),
            (Outcome::default(), ""),
        ] {
            let outcome = Outcome { notes: vec!["a note".into()], ..outcome };
            let output = print(&outcome, Format::Ids, false, &TerminalStyles::default());
            assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (expected, "note: a note\n"));
        }
        let error = failure(&Error::new(ErrorKind::Timeout, "why"), Format::Ids, &TerminalStyles::default());
        assert_eq!((error.stdout.as_str(), error.stderr.as_str()), ("", "error (timeout): why\n"));
    }

    #[test]
    fn ttls_are_readable() {
        for (stored, expected) in [("", "-"), ("0s", "-"), ("90s", "1m30s"), ("600000ms", "10m"), ("odd\u{1b}", "odd\\u{1b}")] {
            assert_eq!(ttl(stored), expected);
        }
    }

    #[test]
    fn outcomes_print_as_tables() {
        const HEADER: &str = "ID  NAME  NODE  BEHAVIOR  DELAY  TTL  CHECKS\n";
        const ROW: &str = "a   web   n1    release   15s    -    serfHealth\n";
        let (one, none) = (vec![session("a")], Vec::new());
        let created = Outcome {
            changed: true,
            session: Some(session("a")),
            sessions: one.clone(),
            diff: Some(Diff { before: none.clone(), after: one.clone() }),
            ..Outcome::default()
        };
        shows(&created, false, &format!("changed: created a session\n{HEADER}{ROW}"));
        shows(&created, true, &format!("changed: would create a session\n{}", block('+')));
        let same = Outcome { changed: false, diff: Some(Diff { before: one.clone(), after: one.clone() }), ..created.clone() };
        shows(&same, false, &format!("unchanged: the session is as wanted\n{HEADER}{ROW}"));
        let destroyed =
            Outcome { changed: true, diff: Some(Diff { before: one.clone(), after: none.clone() }), ..Outcome::default() };
        shows(&destroyed, false, &format!("changed: destroyed 1 session\ndestroyed:\n{HEADER}{ROW}"));
        shows(&destroyed, true, &format!("changed: would destroy 1 session\n{}", block('-')));
        shows(&Outcome { diff: Some(Diff::default()), ..Outcome::default() }, false, "unchanged: there is no such session\n");
        shows(&Outcome::default(), false, "no session\n");
        let read = Outcome { sessions: one, filtered: true, notes: vec!["a note".into()], ..Outcome::default() };
        shows(&read, false, &format!("1 session\n{HEADER}{ROW}note: a note\n"));
    }

    #[test]
    fn control_characters_in_names_are_escaped() {
        let mut odd = session("a");
        odd.name = "x\u{1b}[2Jy\n".into();
        let outcome = Outcome { sessions: vec![odd], ..Outcome::default() };
        let text = print(&outcome, Format::Table, false, &TerminalStyles::default()).stdout;
        assert!(text.contains(r"x\u{1b}[2Jy\n") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn invisible_characters_are_escaped() {
        // The characters that Unicode names bidirectional controls, and others that have no width.
        let bidi =
            ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter().chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        let others =
            "\u{ad}\u{180e}\u{200b}\u{200c}\u{200d}\u{2028}\u{2029}\u{2060}\u{2064}\u{206f}\u{feff}\u{fff9}\u{e0001}\u{e0020}";
        for c in bidi.chain(others.chars()).chain('\0'..'\u{20}').chain('\u{7f}'..'\u{a0}') {
            let shown = printable(&format!("a{c}b"));
            assert!(shown.starts_with("a\\") && shown.ends_with('b') && !shown.contains(c), "{:x}: {shown}", u32::from(c));
        }
        assert_eq!(printable("x\u{202e}y\u{1b}\n"), r"x\u{202e}y\u{1b}\n");
        // What shows as itself stays, also composed of several characters, and a second pass
        // changes nothing.
        for text in [r#"a "b" 'c' \d `e` <é>"#, "e\u{301}", "हिन्दी", "長", "🦀", "\u{301}", r"\u{202e}"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn hidden_sessions_are_mentioned_first() {
        let hidden = Outcome { filtered: true, notes: vec!["a note".into()], ..Outcome::default() };
        shows(&hidden, false, "no session is visible: ACLs hide sessions, or may\nnote: a note\n");
    }

    #[test]
    fn errors_print_as_lines_and_as_json() {
        let error =
            Error::new(ErrorKind::InvalidOption { option: "delay".into() }, "invalid value `x` for `delay`: not a duration");
        let line = failure(&error, Format::Table, &TerminalStyles::default());
        assert_eq!(
            (line.stdout.as_str(), line.stderr.as_str(), line.status),
            ("", "error (invalid-option): invalid value `x` for `delay`: not a duration\n", Output::USAGE)
        );
        let json = failure(&error, Format::Json, &TerminalStyles::default());
        assert_eq!(json.stderr, "");
        let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!((&json["failed"], &json["error"]), (&true.into(), &"invalid-option".into()));
    }
}
