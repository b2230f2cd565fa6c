//! The commands that call Consul a few times: the same steps for the program, which calls through
//! its host, and for the command component, which calls itself.

use crate::flags::{Command, Format};
use crate::invocation::{Invocation, Program};
use crate::output::{self, Output};
use crate::style::TerminalStyles;
use consul_session::Session;
use consul_session::apply::unchecked;
use consul_session::consul::NewSession;
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{Options, State};
use consul_session::outcome::{Diff, Outcome};
use serde_json::{Value, json};

/// The calls of the commands.
#[expect(async_fn_in_trait, reason = "the futures stay in one task")]
pub trait Calls {
    /// Applies the options.
    async fn apply(&mut self, options: &Options) -> Result<Outcome, Error>;

    /// Creates the session that the options describe, and returns its id.
    async fn create(&mut self, options: &Options) -> Result<String, Error>;

    /// Renews the session of the option `id`.
    async fn renew(&mut self, options: &Options) -> Result<Session, Error>;
}

/// Runs a command that needs no more than these calls, or the words of the options.
///
/// # Errors
///
/// Those of the calls; [`InvalidOption`](ErrorKind::InvalidOption) for another command.
pub async fn run(invocation: &Invocation, calls: &mut impl Calls, styles: &TerminalStyles) -> Result<Output, Error> {
    let options = &invocation.options;
    let outcome = match &invocation.command {
        None | Some(Command::List(_) | Command::Info(_) | Command::Node(_) | Command::Present(_)) => {
            calls.apply(options).await?
        }
        Some(Command::Create(_)) => create(options, calls).await?,
        Some(Command::Renew(_)) => renewed(calls.renew(options).await?),
        Some(Command::Destroy(destroy)) if !destroy.ids.is_empty() => {
            return destroy_each(&destroy.ids, invocation, calls, styles).await;
        }
        Some(Command::Destroy(destroy)) if destroy.name_prefix.is_none() => calls.apply(options).await?,
        Some(Command::Destroy(_)) => return Err(needs_program("destroy --name-prefix")),
        Some(other) => return Err(needs_program(other.name())),
    };
    Ok(output::success(&outcome, invocation, styles))
}

/// Returns the error for a part of the command line that a component cannot do.
pub(crate) fn needs_program(what: &str) -> Error {
    let message = format!("`{what}` needs the program {}: a component has no files, signals or processes", Program::NAME);
    Error::invalid("arguments", message)
}

/// Creates a session and reads it back.
async fn create(options: &Options, calls: &mut impl Calls) -> Result<Outcome, Error> {
    let planned = NewSession::new(&options.clone().resolve()).planned();
    let (session, notes) = if options.dry_run == Some(true) {
        (planned, unchecked(options).into_iter().collect())
    } else {
        let id = calls.create(options).await?;
        let mut info = Options { state: Some(State::Info), name: None, node: None, ..options.clone() };
        info.set("id", &Value::from(id.as_str()))?;
        match calls.apply(&info).await.map(|outcome| outcome.session) {
            Ok(Some(session)) => (session, Vec::new()),
            // The session was created, whatever became of it.
            Ok(None) => (Session { id, ..planned }, vec!["the session was gone when it was read back".into()]),
            Err(error) => (Session { id, ..planned }, vec![format!("the session could not be read back: {error}")]),
        }
    };
    Ok(Outcome {
        changed: true,
        session: Some(session.clone()),
        sessions: vec![session.clone()],
        diff: Some(Diff { before: Vec::new(), after: vec![session] }),
        notes,
        ..Outcome::default()
    })
}

/// Returns the outcome of a renewal.
fn renewed(session: Session) -> Outcome {
    let note = match duration::parse_go(&session.ttl) {
        Some(ttl) if ttl > 0 => format!(
            "its TTL of {} runs anew: without another renewal, Consul ends the session between once and twice that time from now",
            duration::for_people(ttl)
        ),
        _ => "it has no TTL, so it needs no renewal".into(),
    };
    Outcome { session: Some(session.clone()), sessions: vec![session], notes: vec![note], ..Outcome::default() }
}

/// Destroys the sessions with these ids, one after another. An error does not stop the others.
async fn destroy_each(
    ids: &[String],
    invocation: &Invocation,
    calls: &mut impl Calls,
    styles: &TerminalStyles,
) -> Result<Output, Error> {
    // All ids are checked before the first is destroyed.
    let of_id = |id: &String| {
        let mut options = invocation.options.clone();
        options.set("id", &Value::from(id.as_str())).map(|()| options)
    };
    let each = ids.iter().map(of_id).collect::<Result<Vec<_>, _>>()?;
    if let ([id], [options]) = (ids, &each[..]) {
        let outcome = calls.apply(options).await;
        return outcome.map(|outcome| output::success(&outcome, invocation, styles)).map_err(|error| named(error, id));
    }
    let mut all = Outcome { diff: Some(Diff::default()), ..Outcome::default() };
    let mut errors = Vec::new();
    for (id, options) in ids.iter().zip(&each) {
        match calls.apply(options).await {
            Ok(outcome) => {
                if !outcome.changed {
                    all.notes.push(format!("there is no session {id}"));
                }
                all.changed |= outcome.changed;
                all.destroyed.extend(outcome.destroyed);
                all.notes.extend(outcome.notes);
                all.diff.get_or_insert_default().before.extend(outcome.diff.unwrap_or_default().before);
            }
            Err(error) => errors.push(named(error, id)),
        }
    }
    let mut output = output::success(&all, invocation, styles);
    if errors.is_empty() {
        return Ok(output);
    }
    output.status = Output::FAILED;
    match invocation.format {
        Format::Json => {
            let mut answer = json!(all);
            answer["failed"] = true.into();
            answer["errors"] = json!(errors);
            output.stdout = output::json_text(&answer);
        }
        _ => output.stderr.extend(errors.iter().map(|error| output::error_line(error, "", styles.stderr))),
    }
    Ok(output)
}

/// Returns the error with the id, unless it names it.
fn named(error: Error, id: &str) -> Error {
    let known = matches!(error.kind, ErrorKind::InvalidOption { .. }) || error.message.contains(id);
    if known { error } else { error.context(&format!("session {id}")) }
}
