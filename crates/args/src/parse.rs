//! Arguments to an [`Invocation`].

use crate::environment;
use crate::invocation::{Action, Command, Format, Invocation, Program, Source};
use consul_session::error::Error;
use consul_session::options::{self, Info, Kind, Options, nearest};
use lexopt::{Arg, Parser, ValueExt};
use serde_json::Value;

/// Parses the arguments after the program's name.
///
/// - `OPTION=VALUE`, `--OPTION VALUE` and `--OPTION=VALUE` come in any order; names have `_` or `-`.
/// - An option that is a list may be repeated; a boolean option may stand alone for `true`.
/// - The argument `-` means a JSON object of options on standard input, which `input` reads.
/// - Arguments take precedence over standard input, and standard input over the environment.
/// - The environment is ignored when the program starts its own agent ([`Program::OWN_AGENT`]).
///
/// # Errors
///
/// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), with the format to print
/// it in.
pub fn parse(
    program: &Program,
    args: Vec<String>,
    environment: &dyn Fn(&str) -> Option<String>,
    input: &mut dyn FnMut() -> Result<String, Error>,
) -> Result<Invocation, (Format, Error)> {
    // Found before parsing: an error ahead of `--format json` is printed as JSON too.
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
    let mut given: Vec<(&'static Info, String)> = Vec::new();
    let mut from_input = false;
    let mut help = false;
    let (args, rest) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (args.get(..at).unwrap_or_default().to_vec(), Some(args.get(at + 1..).unwrap_or_default().to_vec())),
        None => (args, None),
    };
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(invalid)? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => help = true,
            Arg::Short('V') | Arg::Long("version") => invocation.action = Action::Version,
            Arg::Long("format") => invocation.format = format(&text(parser.value().map_err(invalid)?)?)?,
            Arg::Long(name) => {
                let of_command = |command: &Command| (command.flags, command.settings);
                let (flags, settings) = command.map(of_command).unwrap_or_default();
                if let Some((flag, _)) = program.flags.iter().chain(flags).find(|(flag, _)| *flag == name) {
                    invocation.flags.push(flag);
                    continue;
                }
                if let Some((setting, ..)) = program.settings.iter().chain(settings).find(|(setting, ..)| *setting == name) {
                    invocation.settings.push((setting, text(parser.value().map_err(invalid)?)?));
                    continue;
                }
                let info = known(program, command, name)?;
                let value = match (info.kind, parser.optional_value()) {
                    (_, Some(value)) => text(value)?,
                    (Kind::Boolean, None) => boolean(&mut parser)?,
                    (_, None) => text(parser.value().map_err(invalid)?)?,
                };
                add(&mut given, info, value)?;
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
                    Some((name, value)) => add(&mut given, known(program, command, name)?, value.to_owned())?,
                    None => match program.commands.iter().find(|command| command.name == arg) {
                        Some(named) if command.is_none() => command = Some(named),
                        _ if help => invocation.action = Action::Help(Some(known(program, command, &arg)?)),
                        _ => return Err(unexpected(program, &arg)),
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
            check_arguments(command, &invocation.args, rest.as_deref())?;
        }
        (None, _) if rest.is_some() => {
            return Err(Error::invalid("arguments", "unexpected argument after `--`: options are written name=value"));
        }
        (None, _) => {}
    }
    invocation.rest = rest.unwrap_or_default();
    for (info, value) in given {
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

/// Checks that a command has the arguments that it needs.
fn check_arguments(command: &Command, args: &[String], rest: Option<&[String]>) -> Result<(), Error> {
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

/// Returns the value of a boolean option without `=`: the next argument if that is a boolean, else
/// `true`.
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

/// Adds the value of an option. A list may be given in several arguments.
fn add(given: &mut Vec<(&'static Info, String)>, info: &'static Info, value: String) -> Result<(), Error> {
    match given.iter_mut().find(|(known, _)| *known == info) {
        None => given.push((info, value)),
        Some((_, list)) if info.kind == Kind::List => {
            list.push(',');
            list.push_str(&value);
        }
        Some(_) => return Err(Error::invalid(info.name, format!("option `{}` is given twice", info.name))),
    }
    Ok(())
}

/// Returns the option with this name. The suggestion of the error may be a flag of the program.
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

/// Returns the error for an argument that is neither an option nor a command. It is not quoted
/// unless it is an option's name: it may be a value after a space, such as a token.
fn unexpected(program: &Program, arg: &str) -> Error {
    let commands = program.commands.iter().map(|command| command.name);
    let option = arg.replace('-', "_");
    let hint = if options::info(&option).is_some() {
        format!("`{arg}` is an option and needs a value: {arg}=VALUE")
    } else if let Some(command) = nearest(arg, commands) {
        format!("did you mean `{command}`?")
    } else {
        "an argument is neither OPTION=VALUE nor --OPTION VALUE; `--help` lists the options".into()
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

fn invalid(error: lexopt::Error) -> Error {
    // `lexopt` quotes the value of a flag that takes none. No such flag's value could be a token.
    Error::invalid("arguments", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PROGRAM: Program = Program {
        name: "program",
        flags: &[("dev", "starts an agent")],
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
    fn parsed(args: &[&str]) -> Result<Invocation, (Format, Error)> {
        let mut input = || Ok(r#"{"name":"from input","delay":20,"checks":["a"]}"#.to_owned());
        parse(&PROGRAM, args.iter().map(|arg| (*arg).to_owned()).collect(), &|_| None, &mut input)
    }

    /// Parses options from a JSON object.
    #[track_caller]
    fn options(json: Value) -> Options {
        Options::from_json(&json.to_string()).unwrap()
    }

    #[test]
    fn spellings_are_equivalent() {
        let expected = options(json!({"name": "s1", "delay": 20, "validate_certs": false}));
        for args in [
            &["name=s1", "delay=20s", "validate_certs=no"][..],
            &["--name", "s1", "--delay", "20s", "--validate-certs", "no"],
            &["--name=s1", "delay=20s", "--validate_certs=no"],
        ] {
            let invocation = parsed(args).unwrap();
            assert_eq!(invocation.options, expected, "{args:?}");
            let given = ["name", "delay", "validate_certs"].map(|name| (name, Source::Arguments));
            assert_eq!(invocation.given, given, "{args:?}");
        }
        assert_eq!(parsed(&["name=a=b"]).unwrap().options, options(json!({"name": "a=b"})));
        let (_, error) = parsed(&["--delay", "-5"]).unwrap_err();
        assert!(error.message.starts_with("invalid value `-5` for `delay`: out of range"), "{error}");
    }

    #[test]
    fn booleans_without_a_value_are_true() {
        let dry_run = |args: &[&str]| parsed(args).unwrap().options.dry_run;
        assert_eq!(dry_run(&["--dry-run"]), Some(true));
        assert_eq!(parsed(&["--dry-run", "name=x"]).unwrap().options, options(json!({"dry_run": true, "name": "x"})));
        assert_eq!(dry_run(&["--dry-run", "off"]), Some(false));
    }

    #[test]
    fn repeated_lists_are_joined() {
        assert_eq!(parsed(&["checks=a", "--checks", "b,c"]).unwrap().options, options(json!({"checks": ["a", "b", "c"]})));
        assert_eq!(parsed(&["checks="]).unwrap().options, options(json!({"checks": []})));
    }

    #[test]
    fn values_are_checked_except_with_help() {
        assert!(parsed(&["delay=61"]).is_err());
        assert_eq!(parsed(&["delay=61", "--help"]).unwrap().action, Action::Help(None));
        assert_eq!(parsed(&["delay=61", "--version"]).unwrap().action, Action::Version);
    }

    #[test]
    fn flags_commands_and_formats_are_parsed() {
        let demo = parsed(&["--dev", "demo", "--format", "json"]).unwrap();
        assert_eq!((demo.action, demo.flags, demo.format), (Action::Command("demo"), vec!["dev"], Format::Json));
        assert_eq!(parsed(&["--help"]).unwrap().action, Action::Help(None));
        assert_eq!(parsed(&["help"]).unwrap().action, Action::Help(None));
        assert_eq!(parsed(&["help", "on-mismatch"]).unwrap().action, Action::Help(options::info("on_mismatch")));
        assert_eq!(parsed(&["-V"]).unwrap().action, Action::Version);
        for args in [&["help", "demo"][..], &["demo", "--help"], &["demo", "help"]] {
            assert_eq!(parsed(args).unwrap().action, Action::HelpOf("demo"), "{args:?}");
        }
    }

    #[test]
    fn commands_have_their_own_arguments_and_flags() {
        let lock = parsed(&["lock", "a=b/c", "ttl=15s", "--once", "--child-exit=3", "--", "sh", "-c", "--dev", "--"]).unwrap();
        assert_eq!((lock.action.clone(), &lock.options), (Action::Command("lock"), &options(json!({"ttl": 15}))));
        assert_eq!((lock.args.as_slice(), lock.flags.as_slice()), (&["a=b/c".to_owned()][..], &["once"][..]));
        assert_eq!(lock.rest, ["sh", "-c", "--dev", "--"]);
        assert_eq!(lock.setting("child-exit").collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    fn settings_can_be_repeated() {
        let invocation = parsed(&["--allow", "a:1", "name=x", "--allow=b:2"]).unwrap();
        assert_eq!(invocation.setting("allow").collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(invocation.options, options(json!({"name": "x"})));
    }

    #[test]
    fn options_are_read_from_standard_input() {
        let read = parsed(&["delay=1", "-"]).unwrap();
        assert_eq!(read.options, options(json!({"name": "from input", "delay": 1, "checks": ["a"]})));
        let source = |name| read.source(name);
        assert_eq!(
            (source("delay"), source("name"), source("checks"), source("ttl")),
            (Some(Source::Arguments), Some(Source::Input), Some(Source::Input), None)
        );
        assert_eq!(parsed(&["-"]).unwrap().options, options(json!({"name": "from input", "delay": 20, "checks": ["a"]})));
        let both = parsed(&["name=typed", "-"]).unwrap();
        assert_eq!(both.options, options(json!({"name": "typed", "delay": 20, "checks": ["a"]})));
        let read = |input: &str| parse(&PROGRAM, vec!["-".into()], &|_| None, &mut || Ok(input.to_owned()));
        let given = read(r#"{"host":"unix:///run/consul.sock","name":"x"}"#).unwrap();
        assert_eq!((given.socket.as_deref(), given.source("host")), (Some("unix:///run/consul.sock"), Some(Source::Input)));
        assert_eq!(given.options, options(json!({"name": "x"})));
        // An option that is `null` is not given, so it has no source either.
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
    fn mistakes_are_named() {
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
            (&["--format", "yaml"], "format", "(expected table, wide, json, ids)"),
        ] {
            let (_, error) = parsed(args).unwrap_err();
            assert_eq!(error.kind, consul_session::error::ErrorKind::InvalidOption { option: option.into() }, "{args:?}");
            assert!(error.message.contains(part), "{args:?}: {error}");
            assert!(!error.message.contains("secret-secret"), "{args:?}: {error}");
        }
    }

    #[test]
    fn errors_use_a_format_that_comes_later() {
        assert_eq!(parsed(&["dealy=1", "--format", "json"]).unwrap_err().0, Format::Json);
        assert_eq!(parsed(&["dealy=1"]).unwrap_err().0, Format::Table);
    }
}
