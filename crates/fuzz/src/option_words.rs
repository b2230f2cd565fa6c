//! The command line.

use crate::support::{SECRET, canonical, check_redacted};
use consul_session::error::{Error, ErrorKind};
use consul_session_args::flags::HostFlags;
use consul_session_args::{Format, Invocation, Parsed, Program, TerminalStyles, failure, parse};
use serde_json::Value;
use std::collections::BTreeSet;

/// A command line, one word a line. `␤` in a word is a line break.
struct Line {
    program: Program,
    args: Vec<String>,
    /// Lines that begin with `$`.
    environment: Vec<(String, String)>,
    /// The line that begins with `<`: standard input.
    input: String,
}

impl Line {
    fn new(text: &str) -> Line {
        let mut line = Line { program: Program::Host, args: Vec::new(), environment: Vec::new(), input: String::new() };
        for word in text.split('\n').take(40) {
            match word.split_at_checked(1) {
                Some(("$", variable)) => {
                    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                    line.environment.push((name.to_owned(), value.to_owned()));
                }
                Some(("<", input)) => line.input = input.to_owned(),
                Some(("!", "")) => line.program = Program::Component,
                _ => line.args.push(word.replace('␤', "\n")),
            }
        }
        line
    }

    fn parse(&self) -> Result<Parsed, (Format, Error)> {
        let variable = |name: &str| self.environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        let mut input = || Ok(self.input.clone());
        parse(self.program, self.args.clone(), &variable, &mut input, &TerminalStyles::default())
    }

    /// Replaces each value of a name that resembles `token`. Returns whether there is one.
    fn hide(&mut self) -> bool {
        let mut has_secret = false;
        let mut follows = false;
        for arg in &mut self.args {
            match arg.split_once('=') {
                _ if follows => *arg = SECRET.to_owned(),
                Some((name, _)) if name.contains("tok") => *arg = format!("{name}={SECRET}"),
                _ => {
                    follows = !arg.contains('=') && arg.contains("tok");
                    continue;
                }
            }
            (has_secret, follows) = (true, false);
        }
        for (name, value) in &mut self.environment {
            if ["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH"].contains(&name.as_str()) {
                *value = SECRET.to_owned();
                has_secret = true;
            }
        }
        has_secret
    }
}

/// Parses the input as a command line. An error is one line that says what was wrong and shows no
/// secret; words that are accepted are equal after they were written and parsed again.
pub fn option_words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut line = Line::new(text);
    match line.parse() {
        Ok(Parsed::Run(invocation)) => check_words(&invocation),
        Ok(Parsed::Print(output)) => assert!(!(output.stdout + &output.stderr).is_empty(), "nothing is printed"),
        Err((format, error)) => check_error(format, &error),
    }
    if line.hide()
        && let Err((_, error)) = line.parse()
    {
        check_redacted(&error.message);
    }
}

fn check_error(format: Format, error: &Error) {
    assert!(matches!(error.kind, ErrorKind::InvalidOption { .. }) && !error.message.is_empty(), "{error:?}");
    let output = failure(error, format, &TerminalStyles::default());
    match format {
        Format::Json => assert!(serde_json::from_str::<Value>(&output.stdout).is_ok_and(|json| json.is_object()), "{output:?}"),
        _ => {
            let line = output.stderr.strip_suffix('\n').unwrap_or_default();
            assert!(!line.contains(char::is_control), "not one line: {output:?}");
        }
    }
}

/// Checks that the options of an invocation without a command can be written as words.
fn check_words(invocation: &Invocation) {
    let is_plain = invocation.command.is_none()
        && invocation.socket.is_none()
        && invocation.flags == HostFlags::default()
        && invocation.format == Format::default();
    // As words, the elements of a list are between commas.
    let options = &invocation.options;
    let lists = [&options.checks, &options.node_checks, &options.service_checks];
    let is_word = |element: &String| !element.contains(',') && element.trim_ascii() == element;
    if !is_plain || !lists.into_iter().flatten().flatten().all(is_word) {
        return;
    }
    let word = |(name, value): (String, Value)| match value {
        Value::Array(items) => format!("{name}={}", items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    };
    let args: Vec<String> = canonical(options).into_iter().map(word).collect();
    let again = parse(Program::Host, args.clone(), &|_| None, &mut || Ok(String::new()), &TerminalStyles::default());
    match again {
        Ok(Parsed::Run(again)) => {
            assert_eq!(again.options, *options, "{args:?}");
            let has_value = |name: &&str| *name != "token" || options.token.is_some();
            let given = |invocation: &Invocation| {
                invocation.given.iter().map(|(name, _)| *name).filter(has_value).collect::<BTreeSet<_>>()
            };
            assert_eq!(given(&again), given(invocation), "{args:?}");
        }
        other => panic!("{args:?}: {other:?}"),
    }
}
