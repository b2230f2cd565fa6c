//! Words to an [`Invocation`].

use crate::environment;
use crate::invocation::{Action, Command, Format, Invocation, Program, Source};
use consul_session::error::Error;
use consul_session::options::{self, Info, Kind, Options, nearest};
use lexopt::{Arg, Parser, ValueExt};
use serde_json::Value;

/// Reads the words behind the program's name: `OPTION=VALUE`, `--OPTION VALUE` and `--OPTION=VALUE` in any order, names with `_`
/// or `-`; an option that is a list may be repeated; a boolean one may stand alone for `true`. The word `-` stands for a JSON object
/// of options on standard input, which `input` reads. What is typed counts for more than what is read, and that for more than the
/// environment, which is not looked at when the program has an agent of its own ([`Program::OWN_AGENT`]).
///
/// # Errors
///
/// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), with the format in which to print it.
pub fn parse(
    program: &Program,
    args: Vec<String>,
    environment: &dyn Fn(&str) -> Option<String>,
    input: &mut dyn FnMut() -> Result<String, Error>,
) -> Result<Invocation, (Format, Error)> {
    // Known first: an error before `--format json` is printed as JSON too.
    let asks_json = |pair: &[String]| matches!(pair, [flag, value] if flag == "--format" && value == "json");
    let json = args.windows(2).any(asks_json) || args.iter().any(|arg| arg == "--format=json");
    let format = if json { Format::Json } else { Format::Table };
    read(program, args, environment, input).map_err(|error| (format, error))
}

fn read(
    program: &Program,
    args: Vec<String>,
    environment: &dyn Fn(&str) -> Option<String>,
    input: &mut dyn FnMut() -> Result<String, Error>,
) -> Result<Invocation, Error> {
    let mut invocation = Invocation::default();
    let mut command: Option<&'static Command> = None;
    let mut typed: Vec<(&'static Info, String)> = Vec::new();
    let mut from_input = false;
    let mut help = false;
    let (args, rest) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (args.get(..at).unwrap_or_default().to_vec(), Some(args.get(at + 1..).unwrap_or_default().to_vec())),
        None => (args, None),
    };
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(refused)? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => help = true,
            Arg::Short('V') | Arg::Long("version") => invocation.action = Action::Version,
            Arg::Long("format") => invocation.format = format(&text(parser.value().map_err(refused)?)?)?,
            Arg::Long(name) => {
                let own = |command: &Command| (command.flags, command.settings);
                let (flags, settings) = command.map(own).unwrap_or_default();
                if let Some((flag, _)) = program.flags.iter().chain(flags).find(|(flag, _)| *flag == name) {
                    invocation.flags.push(flag);
                    continue;
                }
                if let Some((setting, ..)) = program.settings.iter().chain(settings).find(|(setting, ..)| *setting == name) {
                    invocation.settings.push((setting, text(parser.value().map_err(refused)?)?));
                    continue;
                }
                let info = known(program, command, name)?;
                let value = match (info.kind, parser.optional_value()) {
                    (_, Some(value)) => text(value)?,
                    (Kind::Boolean, None) => boolean(&mut parser)?,
                    (_, None) => text(parser.value().map_err(refused)?)?,
                };
                add(&mut typed, info, value)?;
            }
            Arg::Value(arg) => {
                let arg = text(arg)?;
                if command.is_some_and(|command| invocation.args.len() < command.args.len()) {
                    invocation.args.push(arg);
                    continue;
                }
                match arg.split_once('=') {
                    None if arg == "-" => from_input = true,
                    None if arg == "help" => help = true,
                    Some((name, value)) => add(&mut typed, known(program, command, name)?, value.to_owned())?,
                    None => match program.commands.iter().find(|command| command.name == arg) {
                        Some(named) if command.is_none() => command = Some(named),
                        _ if help => invocation.action = Action::Help(Some(known(program, command, &arg)?)),
                        _ => return Err(stray(program, &arg)),
                    },
                }
            }
            Arg::Short(letter) => {
                return Err(Error::invalid("arguments", format!("unknown flag `-{letter}`; options are written name=value")));
            }
        }
    }
    match (command, &invocation.action) {
        (_, Action::Help(_) | Action::Version) => return Ok(invocation),
        (command, _) if help => {
            invocation.action = command.map_or(Action::Help(None), |command| Action::HelpOf(command.name));
            return Ok(invocation);
        }
        (Some(command), _) => {
            invocation.action = Action::Command(command.name);
            complete(command, &invocation.args, rest.as_deref())?;
        }
        (None, _) if rest.is_some() => {
            return Err(Error::invalid("arguments", "unexpected argument after `--`: options are written name=value"));
        }
        (None, _) => {}
    }
    invocation.rest = rest.unwrap_or_default();
    for (info, value) in typed {
        invocation.give(info.name, &Value::String(value), Source::Arguments)?;
    }
    if from_input {
        for (name, value) in &options::json_object(&input()?)? {
            invocation.give(name, value, Source::Input)?;
        }
    }
    if !invocation.flags.contains(&Program::OWN_AGENT) {
        environment::read(&mut invocation, environment)?;
    }
    Ok(invocation)
}

/// Whether a command has the words that it needs.
fn complete(command: &Command, args: &[String], rest: Option<&[String]>) -> Result<(), Error> {
    let name = command.name;
    if let Some(missing) = command.args.get(args.len()) {
        return Err(Error::invalid("arguments", format!("missing argument <{missing}> of `{name}`; see `help {name}`")));
    }
    match (command.rest, rest) {
        (Some(what), None | Some([])) => {
            Err(Error::invalid("arguments", format!("`{name}` needs `-- {what}` at the end; see `help {name}`")))
        }
        (None, Some(_)) => Err(Error::invalid("arguments", format!("`{name}` takes no arguments after `--`"))),
        _ => Ok(()),
    }
}

/// What stands behind a boolean option without `=`: the next word if it is a boolean, else nothing, which means yes.
fn boolean(parser: &mut Parser) -> Result<String, Error> {
    let mut rest = parser.try_raw_args();
    let next = rest.as_mut().and_then(|rest| rest.peek()).and_then(|arg| arg.to_str()).map(str::to_owned);
    match next {
        Some(arg) if Options::default().set("dry_run", &Value::from(arg.as_str())).is_ok() => {
            rest.and_then(|mut rest| rest.next());
            Ok(arg)
        }
        _ => Ok("true".into()),
    }
}

/// Adds what was typed for an option. A list may be typed in several pieces.
fn add(typed: &mut Vec<(&'static Info, String)>, info: &'static Info, value: String) -> Result<(), Error> {
    match typed.iter_mut().find(|(known, _)| *known == info) {
        None => typed.push((info, value)),
        Some((_, list)) if info.kind == Kind::List => {
            list.push(',');
            list.push_str(&value);
        }
        Some(_) => return Err(Error::invalid(info.name, format!("option `{}` is given twice", info.name))),
    }
    Ok(())
}

/// The option of this name. A flag of the program counts as near too.
fn known(program: &Program, command: Option<&Command>, name: &str) -> Result<&'static Info, Error> {
    let option = name.replace('-', "_");
    if let Some(info) = options::info(&option) {
        return Ok(info);
    }
    let error = options::unknown(&option);
    let (own_flags, own_settings) = command.map(|command| (command.flags, command.settings)).unwrap_or_default();
    let settings = program.settings.iter().chain(own_settings).map(|(setting, ..)| *setting);
    let flags = program.flags.iter().chain(own_flags).map(|(flag, _)| *flag);
    let flags = flags.chain(settings).chain(["format", "help", "version"]);
    match nearest(&option, options::TABLE.iter().map(|info| info.name)) {
        Some(_) => Err(error),
        None => match nearest(&option, flags) {
            Some(flag) => Err(Error::invalid(name, format!("unknown option `{option}`: did you mean `--{flag}`?"))),
            None => Err(error),
        },
    }
}

/// A word that is neither. It may be the value of an option that was written with a space, so that it is not shown where it could
/// be a token.
fn stray(program: &Program, arg: &str) -> Error {
    let commands = program.commands.iter().map(|command| command.name);
    let option = arg.replace('-', "_");
    let hint = if options::info(&option).is_some() {
        format!("`{arg}` is an option and needs a value: {arg}=VALUE")
    } else if let Some(command) = nearest(arg, commands) {
        format!("did you mean `{command}`?")
    } else {
        "a word is neither OPTION=VALUE nor --OPTION VALUE; `--help` lists the options".into()
    };
    Error::invalid("arguments", hint)
}

fn format(arg: &str) -> Result<Format, Error> {
    let known = Format::ALL.iter().find(|(name, _)| *name == arg);
    known.map(|(_, format)| *format).ok_or_else(|| {
        let accepted = Format::ALL.map(|(name, _)| name).join(", ");
        Error::invalid("format", format!("invalid value `{arg}` for `format`: unknown (expected {accepted})"))
    })
}

fn text(arg: std::ffi::OsString) -> Result<String, Error> {
    arg.string().map_err(|_| Error::invalid("arguments", "an argument is not UTF-8"))
}

fn refused(error: lexopt::Error) -> Error {
    // `lexopt` quotes the value of an option that takes none, which is none of ours that could be a token.
    Error::invalid("arguments", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PROGRAM: Program = Program {
        name: "program",
        flags: &[("dev", "own agent")],
        settings: &[("allow", "RULE", "where it may connect")],
        environment: &[],
        commands: &[
            Command { name: "demo", help: "shows it", args: &[], rest: None, flags: &[], settings: &[] },
            Command {
                name: "lock",
                help: "runs it",
                args: &["KEY"],
                rest: Some("COMMAND..."),
                flags: &[("once", "not twice")],
                settings: &[("child-exit", "CODE", "what to answer")],
            },
        ],
    };

    #[track_caller]
    fn typed(args: &[&str]) -> Result<Invocation, (Format, Error)> {
        let mut input = || Ok(r#"{"name":"from input","delay":20,"checks":["a"]}"#.to_owned());
        parse(&PROGRAM, args.iter().map(|arg| (*arg).to_owned()).collect(), &|_| None, &mut input)
    }

    /// The options of a JSON object.
    #[track_caller]
    fn options(json: Value) -> Options {
        Options::from_json(&json.to_string()).unwrap()
    }

    #[test]
    fn both_spellings() {
        let expected = options(json!({"name": "s1", "delay": 20, "validate_certs": false}));
        for args in [
            &["name=s1", "delay=20s", "validate_certs=no"][..],
            &["--name", "s1", "--delay", "20s", "--validate-certs", "no"],
            &["--name=s1", "delay=20s", "--validate_certs=no"],
        ] {
            let invocation = typed(args).unwrap();
            assert_eq!(invocation.options, expected, "{args:?}");
            let given = ["name", "delay", "validate_certs"].map(|name| (name, Source::Arguments));
            assert_eq!(invocation.given, given, "{args:?}");
        }
        assert_eq!(typed(&["name=a=b"]).unwrap().options, options(json!({"name": "a=b"})));
        let (_, error) = typed(&["--delay", "-5"]).unwrap_err();
        assert!(error.message.starts_with("invalid value `-5` for `delay`: out of range"), "{error}");
    }

    #[test]
    fn booleans_may_stand_alone() {
        let dry_run = |args: &[&str]| typed(args).unwrap().options.dry_run;
        assert_eq!(dry_run(&["--dry-run"]), Some(true));
        assert_eq!(typed(&["--dry-run", "name=x"]).unwrap().options, options(json!({"dry_run": true, "name": "x"})));
        assert_eq!(dry_run(&["--dry-run", "off"]), Some(false));
    }

    #[test]
    fn lists_add_up() {
        assert_eq!(typed(&["checks=a", "--checks", "b,c"]).unwrap().options, options(json!({"checks": ["a", "b", "c"]})));
        assert_eq!(typed(&["checks="]).unwrap().options, options(json!({"checks": []})));
    }

    #[test]
    fn values_are_checked_unless_help_is_asked_for() {
        assert!(typed(&["delay=61"]).is_err());
        assert_eq!(typed(&["delay=61", "--help"]).unwrap().action, Action::Help(None));
        assert_eq!(typed(&["delay=61", "--version"]).unwrap().action, Action::Version);
    }

    #[test]
    fn flags_commands_and_formats() {
        let demo = typed(&["--dev", "demo", "--format", "json"]).unwrap();
        assert_eq!((demo.action, demo.flags, demo.format), (Action::Command("demo"), vec!["dev"], Format::Json));
        assert_eq!(typed(&["--help"]).unwrap().action, Action::Help(None));
        assert_eq!(typed(&["help"]).unwrap().action, Action::Help(None));
        assert_eq!(typed(&["help", "on-mismatch"]).unwrap().action, Action::Help(options::info("on_mismatch")));
        assert_eq!(typed(&["-V"]).unwrap().action, Action::Version);
        for args in [&["help", "demo"][..], &["demo", "--help"], &["demo", "help"]] {
            assert_eq!(typed(args).unwrap().action, Action::HelpOf("demo"), "{args:?}");
        }
    }

    #[test]
    fn commands_have_words_and_flags_of_their_own() {
        let lock = typed(&["lock", "a=b/c", "ttl=15s", "--once", "--child-exit=3", "--", "sh", "-c", "--dev", "--"]).unwrap();
        assert_eq!((lock.action.clone(), &lock.options), (Action::Command("lock"), &options(json!({"ttl": 15}))));
        assert_eq!((lock.args.as_slice(), lock.flags.as_slice()), (&["a=b/c".to_owned()][..], &["once"][..]));
        assert_eq!(lock.rest, ["sh", "-c", "--dev", "--"]);
        assert_eq!(lock.setting("child-exit").collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    fn settings_may_be_repeated() {
        let given = typed(&["--allow", "a:1", "name=x", "--allow=b:2"]).unwrap();
        assert_eq!(given.setting("allow").collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(given.options, options(json!({"name": "x"})));
    }

    #[test]
    fn options_from_standard_input() {
        let read = typed(&["delay=1", "-"]).unwrap();
        assert_eq!(read.options, options(json!({"name": "from input", "delay": 1, "checks": ["a"]})));
        let source = |name| read.source(name);
        assert_eq!(
            (source("delay"), source("name"), source("checks"), source("ttl")),
            (Some(Source::Arguments), Some(Source::Input), Some(Source::Input), None)
        );
        assert_eq!(typed(&["-"]).unwrap().options, options(json!({"name": "from input", "delay": 20, "checks": ["a"]})));
        let both = typed(&["name=typed", "-"]).unwrap();
        assert_eq!(both.options, options(json!({"name": "typed", "delay": 20, "checks": ["a"]})));
        let read = |input: &str| parse(&PROGRAM, vec!["-".into()], &|_| None, &mut || Ok(input.to_owned()));
        let given = read(r#"{"host":"unix:///run/consul.sock","name":"x"}"#).unwrap();
        assert_eq!((given.socket.as_deref(), given.source("host")), (Some("unix:///run/consul.sock"), Some(Source::Input)));
        assert_eq!(given.options, options(json!({"name": "x"})));
        // An option that is `null` is not given, so that nobody else named it either.
        assert_eq!(read(r#"{"host":null}"#).unwrap().given, []);
        for (input, option) in [
            ("[]", "options"),
            ("{", "options"),
            (r#"{"nmae":"x"}"#, "nmae"),
            (r#"{"delay":61}"#, "delay"),
            (r#"{"host":"unix:///x","nmae":"x"}"#, "nmae"),
            (r#"{"host":"http://x"}"#, "host"),
        ] {
            let (_, error) = read(input).unwrap_err();
            assert_eq!(error.kind, consul_session::error::ErrorKind::InvalidOption { option: option.into() }, "{input}");
        }
    }

    #[test]
    fn slips_are_named() {
        for (args, option, part) in [
            (&["dealy=20s"][..], "dealy", "did you mean `delay`?"),
            (&["--tokn", "secret-secret"], "tokn", "did you mean `token`?"),
            (&["--fromat", "json"], "fromat", "did you mean `--format`?"),
            (&["--alow", "a:1"], "alow", "did you mean `--allow`?"),
            (&["--allow"], "arguments", "allow"),
            (&["frobnicate=1"], "frobnicate", "known are state, id, name"),
            (&["name=a", "name=b"], "name", "given twice"),
            (&["name"], "arguments", "name=VALUE"),
            (&["dmeo"], "arguments", "`demo`"),
            (&["token", "secret-secret"], "arguments", "token=VALUE"),
            (&["secret-secret"], "arguments", "OPTION=VALUE"),
            (&["--name"], "arguments", "name"),
            (&["-x"], "arguments", "-x"),
            (&["help", "dealy"], "dealy", "did you mean `delay`?"),
            (&["lock"], "arguments", "missing argument <KEY> of `lock`"),
            (&["lock", "k"], "arguments", "`lock` needs `-- COMMAND...`"),
            (&["lock", "k", "--"], "arguments", "`lock` needs `-- COMMAND...`"),
            (&["lock", "k", "--ocne", "--", "x"], "ocne", "did you mean `--once`?"),
            (&["--once"], "once", "unknown option"),
            (&["demo", "--", "x"], "arguments", "takes no arguments after `--`"),
            (&["name=x", "--", "y"], "arguments", "after `--`"),
            (&["--format", "yaml"], "format", "(expected table, json, ids)"),
        ] {
            let (_, error) = typed(args).unwrap_err();
            assert_eq!(error.kind, consul_session::error::ErrorKind::InvalidOption { option: option.into() }, "{args:?}");
            assert!(error.message.contains(part), "{args:?}: {error}");
            assert!(!error.message.contains("secret-secret"), "{args:?}: {error}");
        }
    }

    #[test]
    fn errors_know_the_format_that_comes_later() {
        assert_eq!(typed(&["dealy=1", "--format", "json"]).unwrap_err().0, Format::Json);
        assert_eq!(typed(&["dealy=1"]).unwrap_err().0, Format::Table);
    }
}
