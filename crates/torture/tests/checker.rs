//! The checker judges histories truly: its own tests in Go, and the way from Rust's records to a
//! verdict.

use anyhow::{Result, ensure};
use consul_session_torture::checker::{self, Verdict};
use consul_session_torture::history::{Answer, Event, Record, Session, Wish};
use std::collections::BTreeMap;
use std::io::Write;
use test_support::program::stdout_of;

/// Wrong and right histories by hand and by chance.
#[test]
fn checker_tests_in_go_pass() -> Result<()> {
    let output = stdout_of(&mut checker::go(&["test", "-v", "./..."]))?;
    let shares: Vec<&str> = output.lines().filter(|line| line.contains(" refused")).collect();
    println!("{}", shares.join("\n"));
    for test in ["WrongHistories", "RightHistories", "MutationsOfRightHistoriesAreRefused"] {
        ensure!(output.contains(&format!("--- PASS: Test{test} ")), "{test} did not run:\n{output}");
    }
    Ok(())
}

/// Returns a record of a call of `present` or `absent` on one name.
fn record(id: u64, start: u64, event: Event, answer: Answer) -> Record {
    Record { id, client: "c".into(), host: "h".into(), server: Some(0), start, end: start + 10, event, answer: Some(answer) }
}

fn present(id: u64, start: u64, changed: bool, session: &Session) -> Record {
    let event = Event::Present { name: "x".into(), node: "n1".into(), wish: Wish::default(), replace: false };
    let answer = Answer::Outcome {
        changed,
        session: Some(session.id.clone()),
        sessions: vec![session.clone()],
        destroyed: Vec::new(),
        before: Vec::new(),
        notes: Vec::new(),
    };
    record(id, start, event, answer)
}

fn session(number: u64) -> Session {
    Session {
        id: format!("{number:08}-0000-0000-0000-000000000000"),
        name: "x".into(),
        node: "n1".into(),
        index: number,
        behavior: "release".into(),
        ..Session::default()
    }
}

/// Returns the truth at the end.
fn end(id: u64, start: u64, sessions: &[Session]) -> Record {
    let event =
        Event::Final { sessions: sessions.to_vec(), holders: BTreeMap::new(), registers: BTreeMap::new(), watches: Vec::new() };
    Record { id, client: "judge".into(), host: "h".into(), server: None, start, end: start + 10, event, answer: None }
}

fn judge(records: &[Record]) -> Result<Verdict> {
    let mut file = tempfile::NamedTempFile::new()?;
    for record in records {
        writeln!(file, "{}", serde_json::to_string(record)?)?;
    }
    checker::judge(file.path())
}

#[test]
fn history_of_records_is_judged() -> Result<()> {
    let [a, b] = [session(1), session(2)];
    let right = judge(&[present(1, 0, true, &a), present(2, 20, false, &a), end(3, 40, std::slice::from_ref(&a))])?;
    ensure!(right.right && right.calls["present"]["ok"] == 2, "{right}");
    let wrong = judge(&[present(1, 0, true, &a), present(2, 20, true, &b), end(3, 40, &[a, b])])?;
    ensure!(!wrong.right && wrong.wrong.len() == 1 && wrong.wrong[0].check == "sessions", "{wrong}");
    ensure!(wrong.wrong[0].history.len() == 2, "{wrong}");
    ensure!(wrong.to_string().contains("no sequence of calls explains these answers"), "{wrong}");
    Ok(())
}

#[test]
fn file_that_is_not_a_history_has_no_verdict() -> Result<()> {
    let error = judge(&[]).expect_err("an empty history").to_string();
    ensure!(error.contains("the history is empty"), "{error}");
    let error = judge(&[present(1, 0, true, &session(1))]).expect_err("a run that did not end").to_string();
    ensure!(error.contains("the history is incomplete"), "{error}");
    Ok(())
}
