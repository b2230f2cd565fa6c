//! Events as lines: JSON for programs, text for people without a terminal.

use super::news::News;
use super::state::{Event, Summary};
use crate::util::merge;
use consul_session::Session;
use consul_session::error::Error;
use consul_session_args::{counted, or_dash, printable, ttl};
use humantime::format_rfc3339_millis;
use serde_json::json;

/// Returns one JSON object per line. docs/cli.md describes the keys.
pub fn json(news: &News, agent: &str) -> String {
    news.events.iter().map(|event| format!("{}\n", object(news, event, agent))).collect()
}

/// Returns the line of an error that ends the program.
pub fn json_of_final(error: Error) -> String {
    json(&News::new(0, vec![Event::Failed(error)]), "")
}

fn object(news: &News, event: &Event, agent: &str) -> String {
    let time = format_rfc3339_millis(news.time).to_string();
    let summary = |summary: &Summary| json!({ "agent": agent, "sessions": summary.sessions, "filtered": summary.filtered });
    let details = match event {
        Event::Is(session) | Event::Came(session) | Event::Went(session, None) => json!({ "session": session }),
        Event::Went(session, Some(why)) => json!({ "session": session, "why": why.name() }),
        Event::Listed(totals) | Event::Recovered(totals) => summary(totals),
        Event::Failed(error) => json!({ "error": error.kind.name(), "msg": error.message }),
    };
    let mut line = json!({ "event": name(event), "time": time, "index": news.index });
    merge(&mut line, details);
    line.to_string()
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Is(_) => "is",
        Event::Came(_) => "came",
        Event::Went(..) => "went",
        Event::Listed(_) => "listed",
        Event::Failed(_) => "error",
        Event::Recovered(_) => "recovered",
    }
}

/// Returns one line per event: time, event, and for a session its id, name, node, TTL and why it
/// went.
pub fn text(news: &News, agent: &str) -> String {
    let time = format_rfc3339_millis(news.time).to_string();
    let line = |event: &Event| {
        let text = match event {
            Event::Is(session) | Event::Came(session) => columns(session),
            Event::Went(session, None) => columns(session),
            Event::Went(session, Some(why)) => format!("{}  {}", columns(session), why.text()),
            Event::Listed(summary) | Event::Recovered(summary) => summary_text(summary, agent),
            Event::Failed(error) => format!("({}) {}; trying again", error.kind.name(), printable(&error.message)),
        };
        format!("{time}  {:<9}  {text}\n", name(event))
    };
    news.events.iter().map(line).collect()
}

fn columns(session: &Session) -> String {
    [or_dash(&session.id), or_dash(&session.name), or_dash(&session.node), ttl(&session.ttl)].join("  ")
}

/// Returns a summary as text: `3 sessions at localhost:8500`.
pub fn summary_text(summary: &Summary, agent: &str) -> String {
    let sessions = match summary.sessions {
        0 => "no session".into(),
        count => counted(count),
    };
    format!("{sessions} at {agent}{}", if summary.filtered { ", ACLs hide others, or may" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::super::state::Why;
    use super::*;
    use consul_session::error::ErrorKind;
    use std::time::{Duration, UNIX_EPOCH};

    fn news() -> News {
        let session = Session { id: "a".into(), name: "x\u{1b}[2J\n".into(), node: "n1".into(), ..Session::default() };
        let summary = Summary { sessions: 1, filtered: true };
        let events = vec![
            Event::Is(session.clone()),
            Event::Listed(summary),
            Event::Came(session.clone()),
            Event::Went(session.clone(), None),
            Event::Went(session, Some(Why::Ttl)),
            Event::Failed(Error::new(ErrorKind::Unreachable, "gone\u{1b}")),
            Event::Recovered(Summary::default()),
        ];
        News { index: 7, time: UNIX_EPOCH + Duration::from_millis(1_500), events }
    }

    #[test]
    fn events_print_as_json() {
        let session = r#""session":{"ID":"a","Name":"x\u001b[2J\n","Node":"n1","LockDelay":0,"Behavior":"","TTL":"","NodeChecks":[],"ServiceChecks":[],"CreateIndex":0,"ModifyIndex":0}"#;
        let at = r#""time":"1970-01-01T00:00:01.500Z","index":7"#;
        assert_eq!(
            json(&news(), "h:1").lines().collect::<Vec<_>>(),
            [
                format!(r#"{{"event":"is",{at},{session}}}"#),
                format!(r#"{{"event":"listed",{at},"agent":"h:1","sessions":1,"filtered":true}}"#),
                format!(r#"{{"event":"came",{at},{session}}}"#),
                format!(r#"{{"event":"went",{at},{session}}}"#),
                format!(r#"{{"event":"went",{at},{session},"why":"ttl"}}"#),
                format!(r#"{{"event":"error",{at},"error":"unreachable","msg":"gone\u001b"}}"#),
                format!(r#"{{"event":"recovered",{at},"agent":"h:1","sessions":0,"filtered":false}}"#),
            ]
        );
    }

    #[test]
    fn events_print_as_text() {
        let at = "1970-01-01T00:00:01.500Z";
        assert_eq!(
            text(&news(), "h:1").lines().collect::<Vec<_>>(),
            [
                format!("{at}  is         a  x\\u{{1b}}[2J\\n  n1  -"),
                format!("{at}  listed     1 session at h:1, ACLs hide others, or may"),
                format!("{at}  came       a  x\\u{{1b}}[2J\\n  n1  -"),
                format!("{at}  went       a  x\\u{{1b}}[2J\\n  n1  -"),
                format!("{at}  went       a  x\\u{{1b}}[2J\\n  n1  -  TTL ran out?"),
                format!("{at}  error      (unreachable) gone\\u{{1b}}; trying again"),
                format!("{at}  recovered  no session at h:1"),
            ]
        );
    }
}
