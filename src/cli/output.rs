//! Answers and errors to text.

use super::{Format, Invocation, lines};
use crate::duration;
use crate::error::{Case, Error};
use crate::json::Json;
use crate::options::Options;
use crate::session::Session;
use comfy_table::Table;

/// What a program prints, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// Exit status 0 or 1.
    pub success: bool,
}

/// Prints an answer of `apply-json` to what was typed.
pub fn success(answer: &str, invocation: &Invocation) -> Output {
    let dry_run = Options::from_json(&invocation.json()).is_ok_and(|options| options.dry_run == Some(true));
    print(answer, invocation.format, dry_run)
}

fn print(answer: &str, format: Format, dry_run: bool) -> Output {
    let json = match Json::parse(answer.as_bytes()) {
        Ok(json) => json,
        Err(error) => return failure(&Case::Other.because(format!("the component's answer is not JSON: {error}")), format),
    };
    let stdout = match format {
        Format::Json => format!("{json:#}\n"),
        Format::Table => table(&json, dry_run),
    };
    Output { stdout, stderr: String::new(), success: true }
}

/// Prints an error: for people on standard error, as JSON on standard output.
pub fn failure(error: &Error, format: Format) -> Output {
    let (stdout, stderr) = match format {
        Format::Json => (format!("{:#}\n", error.to_json()), String::new()),
        Format::Table => (String::new(), format!("error ({}): {}\n", error.case.name(), printable(&error.message))),
    };
    Output { stdout, stderr, success: false }
}

fn table(answer: &Json, dry_run: bool) -> String {
    let sessions = |json: &Json| json.items().iter().map(Session::from).collect::<Vec<Session>>();
    let shown = sessions(answer.get("sessions"));
    let (before, after) =
        (sessions(answer.get("diff").get("before").get("sessions")), sessions(answer.get("diff").get("after").get("sessions")));
    let changed = *answer.get("changed") == Json::Bool(true);
    let is_read = *answer.get("diff") == Json::Null;

    let (create, destroy) = if dry_run { ("would create", "would destroy") } else { ("created", "destroyed") };
    let summary = match (changed, before.len(), after.len(), shown.len()) {
        _ if is_read => match shown.len() {
            0 => "no session".into(),
            count => counted(count),
        },
        (true, 0, _, _) => format!("changed: {create} a session"),
        (true, count, 0, _) => format!("changed: {destroy} {}", counted(count)),
        (true, count, _, _) => format!("changed: {create} a session and {destroy} {}", counted(count)),
        (false, _, 0, _) => "unchanged: there is no such session".into(),
        (false, ..) => "unchanged: the session is as wanted".into(),
    };
    let mut text = summary + "\n";
    text += &rows(&shown);
    if changed && !before.is_empty() {
        text += if dry_run { "to be destroyed:\n" } else { "destroyed:\n" };
        text += &rows(&before);
    }
    for note in answer.get("notes").texts() {
        text += &format!("note: {}\n", printable(&note));
    }
    text
}

fn counted(count: usize) -> String {
    if count == 1 { "1 session".into() } else { format!("{count} sessions") }
}

fn rows(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.set_header(["ID", "NAME", "NODE", "BEHAVIOR", "DELAY", "TTL", "CHECKS"]);
    for session in sessions {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { printable(text) };
        table.add_row([
            or_dash(&session.id),
            or_dash(&session.name),
            or_dash(&session.node),
            or_dash(&session.behavior),
            duration::format(session.lock_delay),
            or_dash(&session.ttl),
            or_dash(&session.all_checks().join(",")),
        ]);
    }
    lines(&mut table)
}

/// A text that somebody else chose, without what would move the cursor or recolour the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Diff, Outcome};

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
        let output = print(&outcome.to_json().to_string(), Format::Table, dry_run);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.success), (expected, "", true));
    }

    #[test]
    fn each_kind_of_answer() {
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
        shows(&created, true, &format!("changed: would create a session\n{HEADER}{ROW}"));
        let same = Outcome { changed: false, diff: Some(Diff { before: one.clone(), after: one.clone() }), ..created.clone() };
        shows(&same, false, &format!("unchanged: the session is as wanted\n{HEADER}{ROW}"));
        let destroyed =
            Outcome { changed: true, diff: Some(Diff { before: one.clone(), after: none.clone() }), ..Outcome::default() };
        shows(&destroyed, false, &format!("changed: destroyed 1 session\ndestroyed:\n{HEADER}{ROW}"));
        shows(&destroyed, true, &format!("changed: would destroy 1 session\nto be destroyed:\n{HEADER}{ROW}"));
        shows(&Outcome { diff: Some(Diff::default()), ..Outcome::default() }, false, "unchanged: there is no such session\n");
        shows(&Outcome::default(), false, "no session\n");
        let read = Outcome { sessions: one, filtered: true, notes: vec!["a note".into()], ..Outcome::default() };
        shows(&read, false, &format!("1 session\n{HEADER}{ROW}note: a note\n"));
    }

    #[test]
    fn what_others_named_cannot_steer_the_terminal() {
        let mut odd = session("a");
        odd.name = "x\u{1b}[2Jy\n".into();
        let outcome = Outcome { sessions: vec![odd], ..Outcome::default() };
        let text = print(&outcome.to_json().to_string(), Format::Table, false).stdout;
        assert!(text.contains("x\u{fffd}[2Jy\u{fffd}") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn errors_in_both_formats() {
        let error = Case::InvalidOption { option: "delay".into() }.because("option `delay`: `x` is no duration");
        let people = failure(&error, Format::Table);
        assert_eq!(
            (people.stdout.as_str(), people.stderr.as_str(), people.success),
            ("", "error (invalid-option): option `delay`: `x` is no duration\n", false)
        );
        let programs = failure(&error, Format::Json);
        assert_eq!(programs.stderr, "");
        let json = Json::parse(programs.stdout.as_bytes()).unwrap();
        assert_eq!((json.get("failed"), json.get("error").text()), (&Json::Bool(true), "invalid-option"));
    }
}
