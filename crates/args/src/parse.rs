//! Arguments to an [`Invocation`].

use crate::commands;
use crate::environment;
use crate::flags::{self, Command, CommandLine, Format, Given, SessionOptions, needs_program, option_of_word};
use crate::help;
use crate::invocation::{Invocation, Program, Source};
use crate::mistakes::{self, SEE_HELP};
use crate::output::Output;
use crate::style::TerminalStyles;
use clap::FromArgMatches;
use clap::error::ErrorKind as ClapError;
use clap::parser::ValueSource;
use consul_session::error::Error;
use consul_session::options::{self, Info, Kind};
use serde_json::Value;

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// To print this, such as the help, and no more.
    Print(Output),
    /// To run a command, or the words of the options.
    Run(Box<Invocation>),
}

/// Parses the arguments after the program's name.
///
/// - The first word is a command, or else one of the options as a word, `OPTION=VALUE`. Then the
///   others are such words too, and `-` for a JSON object of options on standard input, which
///   `input` reads.
/// - Options are also written `--OPTION VALUE` and `--OPTION=VALUE`; names have `_` or `-`.
/// - An option that is a list may be repeated.
/// - Arguments take precedence over standard input, and standard input over the environment.
/// - The environment is ignored when the program starts its own agent (`--dev`).
///
/// # Errors
///
/// [`InvalidOption`](consul_session::error::ErrorKind::InvalidOption), with the format to print
/// it in.
pub fn parse(
    program: Program,
    args: Vec<String>,
    environment: &dyn Fn(&str) -> Option<String>,
    input: &mut dyn FnMut() -> Result<String, Error>,
    styles: &TerminalStyles,
) -> Result<Parsed, (Format, Error)> {
    let format = if asks_json(&args) { Format::Json } else { Format::Table };
    read(program, &args, environment, input, styles).map_err(|error| (format, error))
}

/// Returns whether the arguments ask for JSON. An error ahead of `-o json` is printed as JSON too.
fn asks_json(args: &[String]) -> bool {
    let own: Vec<&str> = args.iter().map(String::as_str).take_while(|arg| *arg != "--").collect();
    let in_two = own.windows(2).any(|pair| matches!(pair, ["-o" | "--output" | "--format", "json"]));
    in_two || own.iter().any(|arg| matches!(*arg, "-ojson" | "-o=json" | "--output=json" | "--format=json"))
}

fn read(
    program: Program,
    args: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
    input: &mut dyn FnMut() -> Result<String, Error>,
    styles: &TerminalStyles,
) -> Result<Parsed, Error> {
    let mut definition = help::definition(program, styles.stdout);
    let typed = std::iter::once(Program::NAME).chain(args.iter().map(String::as_str));
    let matches = match definition.try_get_matches_from_mut(typed) {
        Ok(matches) => matches,
        Err(error) => match error.kind() {
            ClapError::DisplayHelp | ClapError::DisplayVersion => return Ok(Parsed::Print(help::output(error))),
            _ => return Err(mistakes::named(&error, args, &definition)),
        },
    };
    let line = CommandLine::from_arg_matches(&matches).map_err(|error| mistakes::named(&error, args, &definition))?;
    if program == Program::Component {
        let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let flag = help::host_flags().into_iter().find(|arg| is_typed(arg.get_id().as_str()));
        let flag = flag.as_ref().and_then(clap::Arg::get_long).map(|long| format!("--{long}"));
        let command = line.command.as_ref().map(Command::name).filter(|name| needs_program(name)).map(str::to_owned);
        if let Some(what) = command.or(flag) {
            return Err(commands::needs_program(&what));
        }
    }
    if let Some(Command::Help(asked)) = &line.command {
        return help::of_word(asked.word.as_deref(), &mut definition, styles.stdout).map(Parsed::Print);
    }
    let mut invocation = Invocation { format: line.global.format, flags: line.global.flags.clone(), ..Invocation::default() };
    let mut given = line.connection.values.clone();
    let mut from_input = false;
    match &line.command {
        Some(command) => {
            if let Some((info, _)) = line.options.values.first() {
                let (name, flag) = (command.name(), info.name.replace('_', "-"));
                return Err(Error::invalid(info.name, format!("`--{flag}` belongs after the command: {name} … --{flag} …")));
            }
            given.extend_from_slice(command.given());
            for (name, value) in command.implied() {
                invocation.give(name, &Value::from(value), Source::Arguments)?;
            }
        }
        None => {
            if line.words.is_empty() && line.options.values.is_empty() {
                return nothing(&mut definition, &invocation);
            }
            let words = words(&line.words, &line.options, args)?;
            from_input = words.from_input;
            given.extend(words.given);
        }
    }
    for (info, value) in given {
        if invocation.is_given(info.name) {
            return Err(twice(info));
        }
        invocation.give(info.name, &Value::String(value), Source::Arguments)?;
    }
    if from_input {
        for (name, value) in &options::json_object(&input()?)? {
            invocation.give(name, value, Source::Input)?;
        }
    }
    if line.command.is_none() && !["state", "name", "id"].iter().any(|name| invocation.is_given(name)) {
        return Err(Error::invalid(
            "name",
            "nothing says which session is meant: give name=NAME, id=ID or state=STATE; `create` makes one without a name",
        ));
    }
    if let Some(command) = &line.command {
        check(command, &invocation, args, &definition)?;
    }
    // The environment is about another agent than an own one.
    if !invocation.flags.dev && line.command.as_ref().is_none_or(Command::calls_consul) {
        environment::read(&mut invocation, environment)?;
    }
    invocation.command = line.command;
    Ok(Parsed::Run(Box::new(invocation)))
}

/// Checks what a command needs that its definition cannot say.
fn check(command: &Command, invocation: &Invocation, args: &[String], definition: &clap::Command) -> Result<(), Error> {
    match command {
        Command::Apply(apply) => {
            let mut words = apply.files().filter_map(|file| file.to_str());
            if let Some(word) = words.find(|word| option_of_word(word).is_some()) {
                return Err(mistakes::unexpected(word, args, definition.find_subcommand(command.name())));
            }
            if apply.files().next().is_none() {
                return Err(Error::invalid("arguments", "`apply` needs a FILE, a list of records; `-` for standard input"));
            }
        }
        Command::Destroy(destroy) => {
            let ways = [!destroy.ids.is_empty(), invocation.is_given("name"), destroy.name_prefix.is_some()];
            if ways.iter().filter(|way| **way).count() != 1 {
                let message = "`destroy` needs one of: ids, --name NAME, --name-prefix TEXT";
                return Err(Error::invalid("arguments", message));
            }
        }
        Command::Dev if invocation.is_given("host") => {
            return Err(Error::invalid("host", "`dev` takes no `host`: it listens on 127.0.0.1"));
        }
        _ => {}
    }
    Ok(())
}

/// Returns the usage where nothing was typed that would do anything.
fn nothing(definition: &mut clap::Command, invocation: &Invocation) -> Result<Parsed, Error> {
    if invocation.format == Format::Json {
        return Err(Error::invalid("arguments", format!("no command and no options; {SEE_HELP}")));
    }
    let stderr = help::output(definition.render_help()).stdout;
    Ok(Parsed::Print(Output { stdout: String::new(), stderr, status: Output::USAGE }))
}

struct Words {
    given: Vec<(&'static Info, String)>,
    from_input: bool,
}

/// Reads the words of the options, in addition to the options that were typed as flags.
fn words(words: &[String], typed: &Given<SessionOptions>, args: &[String]) -> Result<Words, Error> {
    let mut read = Words { given: typed.values.clone(), from_input: false };
    for word in words {
        match word.split_once('=') {
            None if word == "-" && !read.from_input => read.from_input = true,
            None => return Err(mistakes::unexpected(word, args, None)),
            Some((name, value)) => {
                let name = name.trim_start_matches('-');
                let info = flags::option(name).ok_or_else(|| mistakes::unknown(&name.replace('-', "_")))?;
                match read.given.iter_mut().find(|(known, _)| *known == info) {
                    None => read.given.push((info, value.to_owned())),
                    Some((_, list)) if info.kind == Kind::List => {
                        list.push(',');
                        list.push_str(value);
                    }
                    Some(_) => return Err(twice(info)),
                }
            }
        }
    }
    Ok(read)
}

fn twice(info: &Info) -> Error {
    Error::invalid(info.name, format!("option `{}` is given twice", info.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use consul_session::error::ErrorKind;
    use consul_session::options::Options;
    use serde_json::json;

    fn parse_all(program: Program, args: &[&str], text: &str) -> Result<Parsed, (Format, Error)> {
        let mut input = || Ok(text.to_owned());
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(program, args, &|_| None, &mut input, &TerminalStyles::default())
    }

    #[track_caller]
    fn parsed(args: &[&str]) -> Invocation {
        let text = r#"{"name":"from input","delay":20,"checks":["a"]}"#;
        match parse_all(Program::Host, args, text) {
            Ok(Parsed::Run(invocation)) => *invocation,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn printed(args: &[&str]) -> Output {
        match parse_all(Program::Host, args, "") {
            Ok(Parsed::Print(output)) => output,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn mistake(args: &[&str]) -> (String, String) {
        let (_, error) = parse_all(Program::Host, args, "").expect_err("not a mistake");
        match &error.kind {
            ErrorKind::InvalidOption { option } => (option.to_string(), error.message.clone()),
            kind => panic!("{args:?}: {kind:?}"),
        }
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
            let invocation = parsed(args);
            assert_eq!(invocation.options, expected, "{args:?}");
            assert_eq!(invocation.command, None);
            for name in ["name", "delay", "validate_certs"] {
                assert_eq!(invocation.source(name), Some(Source::Arguments));
            }
        }
        assert_eq!(parsed(&["name=a=b"]).options, options(json!({"name": "a=b"})));
        let (option, message) = mistake(&["name=x", "--delay", "-5"]);
        assert!(option == "delay" && message.starts_with("invalid value `-5` for `delay`: out of range"), "{message}");
    }

    #[test]
    fn commands_stand_for_options() {
        let id = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
        for (args, name, expected) in [
            (&["list"][..], "list", json!({"state": "list"})),
            (&["list", "--name", "a", "--node=n"], "list", json!({"state": "list", "name": "a", "node": "n"})),
            (&["info", id], "info", json!({"state": "info", "id": id})),
            (&["node", "n1"], "node", json!({"state": "node", "node": "n1"})),
            (&["create", "--ttl", "30s"], "create", json!({"ttl": 30})),
            (&["present", "a=b", "--delay", "20s"], "present", json!({"state": "present", "name": "a=b", "delay": 20})),
            (&["ensure", "x", "-n"], "present", json!({"state": "present", "name": "x", "dry_run": true})),
            (&["destroy", id, id], "destroy", json!({"state": "absent"})),
            (&["destroy", "--name", "x", "-n"], "destroy", json!({"state": "absent", "name": "x", "dry_run": true})),
            (&["renew", id], "renew", json!({"id": id})),
            (&["watch", "--name=x"], "watch", json!({"name": "x"})),
            (&["--host", "h", "list", "--port", "1"], "list", json!({"state": "list", "host": "h", "port": 1})),
            (&["hold", "w", "--ttl=1m"], "hold", json!({"name": "w", "ttl": 60})),
        ] {
            let invocation = parsed(args);
            assert_eq!(invocation.command.as_ref().map(Command::name), Some(name), "{args:?}");
            assert_eq!(invocation.options, options(expected), "{args:?}");
        }
    }

    #[test]
    fn commands_have_their_own_arguments_and_flags() {
        let lock = parsed(&["lock", "a=b/c", "--ttl=15s", "--wait", "1m30s", "-n3", "--", "sh", "-c", "--dev", "--"]);
        assert_eq!(lock.options, options(json!({"ttl": 15})));
        let Some(Command::Lock(lock)) = lock.command else { panic!("{lock:?}") };
        assert_eq!((lock.key.as_str(), lock.semaphore, lock.wait.map(|wait| wait.as_secs())), ("a=b/c", Some(3), Some(90)));
        assert_eq!(lock.command, ["sh", "-c", "--dev", "--"]);
        assert_eq!(lock.kill_after.time.as_secs(), 5);
        let apply = parsed(&["apply", "a.yaml", "-f", "b.yaml", "c.yaml", "--file=d", "./delay=1s"]);
        let Some(Command::Apply(apply)) = apply.command else { panic!("{apply:?}") };
        let files: Vec<_> = apply.files().filter_map(|file| file.to_str()).collect();
        assert_eq!(files, ["a.yaml", "c.yaml", "./delay=1s", "b.yaml", "d"]);
        assert_eq!(apply.concurrency.requests, 16);
    }

    #[test]
    fn flags_for_all_commands_stand_anywhere() {
        for args in [
            &["-o", "json", "-v", "--allow", "a:1", "list", "--allow=b:2"][..],
            &["list", "-ojson", "--verbose", "--allow", "a:1", "--allow=b:2"],
            &["list", "--format", "json", "-v", "--allow", "a:1", "--allow=b:2"],
        ] {
            let invocation = parsed(args);
            assert_eq!((invocation.format, invocation.flags.verbose), (Format::Json, true), "{args:?}");
            assert!(invocation.flags.allow.iter().any(|rule| rule == "b:2"), "{args:?}: {:?}", invocation.flags.allow);
        }
        assert_eq!(parsed(&["--allow", "a:1", "name=x", "--allow=b:2"]).flags.allow, ["a:1", "b:2"]);
    }

    #[test]
    fn dry_run_without_a_value_is_true() {
        let dry_run = |args: &[&str]| parsed(args).options.dry_run;
        assert_eq!(dry_run(&["--dry-run", "name=x"]), Some(true));
        assert_eq!(dry_run(&["name=x", "-n"]), Some(true));
        assert_eq!(dry_run(&["name=x", "--dry-run=off"]), Some(false));
        assert_eq!(dry_run(&["name=x", "dry_run=on"]), Some(true));
    }

    #[test]
    fn repeated_lists_are_joined() {
        let all = options(json!({"name": "x", "checks": ["b", "c", "a"]}));
        assert_eq!(parsed(&["name=x", "checks=a", "--checks", "b,c"]).options, all);
        let two = parsed(&["present", "x", "--checks", "a", "--checks=b"]).options;
        assert_eq!(two, options(json!({"state": "present", "name": "x", "checks": ["a", "b"]})));
        assert_eq!(parsed(&["name=x", "checks="]).options, options(json!({"name": "x", "checks": []})));
    }

    #[test]
    fn help_and_version_are_printed() {
        let [short, long] = [printed(&["-h"]), printed(&["--help"])];
        assert!(short.stdout.lines().count() < long.stdout.lines().count() / 2, "{}", short.stdout);
        assert_eq!(printed(&["help"]), long);
        for info in options::TABLE {
            let flag = format!("--{} ", info.name.replace('_', "-"));
            assert!(long.stdout.contains(&flag) || long.stdout.contains(&flag.replace(' ', "[")), "{flag}: {}", long.stdout);
        }
        assert_eq!(printed(&["-V"]).stdout, format!("consul-session {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(printed(&["list", "--help"]), printed(&["help", "list"]));
        assert_eq!(printed(&["list", "--help"]), printed(&["list", "-h"]));
        assert!(printed(&["help", "on-mismatch"]).stdout.starts_with("on_mismatch\n  what it is for  "));
        // Help comes before the check of values.
        assert_eq!(printed(&["delay=61", "--help"]), long);
    }

    #[test]
    fn help_of_each_command_fits_one_screen() {
        for width in [40, 80, 100] {
            let terminal = crate::TerminalStyle { colors: false, width: Some(width) };
            let mut definition = help::definition(Program::Host, terminal);
            definition.build();
            let names: Vec<String> = definition.get_subcommands().map(|command| command.get_name().to_owned()).collect();
            assert_eq!(names.len(), 16);
            for name in names {
                let help = help::of_word(Some(&name), &mut definition, terminal).unwrap().stdout;
                let lines = help.lines().count();
                assert!(width < 80 || lines <= 48, "{lines} lines:\n{help}");
                // Examples and usages are not broken, so that they can be copied.
                let prose = help.lines().filter(|line| !line.contains("consul-session"));
                for line in prose.filter(|line| !line.ends_with("adf4238a-882b-9ddc-4a9d-5b6758e4159e")) {
                    assert!(line.chars().count() <= width.min(80), "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn nothing_typed_prints_the_usage() {
        for args in [&[][..], &["--verbose"], &["--dev"], &["--host", "h"]] {
            let output = printed(args);
            assert_eq!((output.stdout.as_str(), output.status), ("", Output::USAGE), "{args:?}");
            assert!(output.stderr.contains("Usage: consul-session COMMAND"), "{}", output.stderr);
        }
        for args in [&["delay=5"][..], &["--delay", "5"], &["dry_run=yes"]] {
            let (option, message) = mistake(args);
            assert!(option == "name" && message.contains("`create`"), "{args:?}: {message}");
        }
        assert_eq!(parsed(&["state=present"]).options, options(json!({"state": "present"})));
        assert_eq!(parsed(&["create"]).options, Options::default());
        let (_, error) = parse_all(Program::Host, &["-o", "json"], "").unwrap_err();
        assert!(error.message.starts_with("no command"), "{error}");
    }

    #[test]
    fn options_are_read_from_standard_input() {
        let read = parsed(&["delay=1", "-"]);
        assert_eq!(read.options, options(json!({"name": "from input", "delay": 1, "checks": ["a"]})));
        let source = |name| read.source(name);
        assert_eq!(
            (source("delay"), source("name"), source("checks"), source("ttl")),
            (Some(Source::Arguments), Some(Source::Input), Some(Source::Input), None)
        );
        assert_eq!(parsed(&["-"]).options, options(json!({"name": "from input", "delay": 20, "checks": ["a"]})));
        let both = parsed(&["name=typed", "-"]);
        assert_eq!(both.options, options(json!({"name": "typed", "delay": 20, "checks": ["a"]})));
        let read = |input: &str| match parse_all(Program::Host, &["-"], input) {
            Ok(Parsed::Run(invocation)) => Ok(*invocation),
            Ok(Parsed::Print(output)) => panic!("{output:?}"),
            Err((_, error)) => Err(error),
        };
        let given = read(r#"{"host":"unix:///run/consul.sock","name":"x"}"#).unwrap();
        assert_eq!((given.socket.as_deref(), given.source("host")), (Some("unix:///run/consul.sock"), Some(Source::Input)));
        assert_eq!(given.options, options(json!({"name": "x"})));
        // An option that is `null` is not given, so it has no source either.
        assert_eq!(read(r#"{"host":null,"name":"x"}"#).unwrap().given, [("name", Source::Input)]);
        for (input, option) in [
            ("[]", "options"),
            ("{", "options"),
            ("{}", "name"),
            (r#"{"nmae":"x"}"#, "nmae"),
            (r#"{"delay":61}"#, "delay"),
            (r#"{"host":"unix:///x","nmae":"x"}"#, "nmae"),
            (r#"{"host":"http://x"}"#, "host"),
        ] {
            let error = read(input).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidOption { option: option.into() }, "{input}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        const SECRET: &str = "5ec2e700-0000-4000-8000-cafecafecafe";
        for (args, option, part) in [
            (&["dealy=20s"][..], "dealy", "did you mean `delay`?"),
            (&["--tokn", SECRET], "tokn", "unknown flag `--tokn` (argument 1): did you mean `--token`?"),
            (&["name=x", "--fromat", "json"], "fromat", "(argument 2): did you mean `--format`?"),
            (&["--alow", "a:1"], "alow", "did you mean `--allow`?"),
            (&["list", "--vebose"], "vebose", "did you mean `--verbose`?"),
            (&["--allow"], "allow", "`--allow` needs a value"),
            (&["frobnicate=1"], "frobnicate", "known are state, id, name"),
            (&["name=a", "name=b"], "name", "given twice"),
            (&["name=a", "--name", "b"], "name", "given twice"),
            (&["--name", "a", "--name", "b"], "name", "`--name` is given twice"),
            (&["list", "-o", "json", "-o", "ids"], "output", "given twice"),
            (&["present", "x", "--state", "list"], "state", "unknown flag `--state` (argument 3): `present` takes --node"),
            (&["name"], "arguments", "name=VALUE"),
            (&["lst"], "arguments", "unexpected argument `lst` (argument 1): did you mean `list`?"),
            (&["name=x", "list"], "arguments", "`list` is a command, which comes first"),
            (&["name=x", "frob"], "arguments", "unexpected argument `frob` (argument 2)"),
            (&["--name", "x", "list"], "name", "belongs after the command: list … --name …"),
            (&["token", SECRET], "arguments", "token=VALUE"),
            (&[SECRET], "arguments", "unexpected argument (argument 1)"),
            (&["name=x", "--token=a", "secret"], "arguments", "unexpected argument (argument 3)"),
            (&["present", "x", "token=secret"], "arguments", "`token=…` (argument 3): after `present`, options are written"),
            (&["present", "x", "--ttl", "token=secret"], "ttl", "invalid value `token=…` for `ttl`: not a duration"),
            (&["list", "--output", "token=secret"], "output", "invalid value `token=…` for `--output`"),
            (&["renew", "x", "tkoen=secret"], "arguments", "unexpected argument `tkoen=…` (argument 3): see"),
            (&["--name"], "name", "`--name` needs a value"),
            (&["-x"], "arguments", "`-x`"),
            (&["-n-x"], "arguments", "unexpected argument `-n-x` (argument 1)"),
            (&["help", "dealy"], "arguments", "did you mean `delay`?"),
            (&["help", "lits"], "arguments", "did you mean `list`?"),
            (&["info"], "arguments", "`info` needs <ID>"),
            (&["info", "x"], "id", "invalid value `x` for `id`"),
            (&["lock", "k"], "arguments", "`lock` needs <COMMAND>"),
            (&["lock", "k", "--"], "arguments", "`lock` needs <COMMAND>"),
            (&["lock", "k", "--wiat", "1", "--", "x"], "wiat", "did you mean `--wait`?"),
            (&["lock", "k", "--wait", "soon", "--", "x"], "wait", "invalid value `soon` for `--wait`: not a duration"),
            (&["lock", "k", "ttl=15s", "--", "x"], "arguments", "after `lock`, options are written --ttl VALUE"),
            (&["apply", "a.yaml", "delay=1s"], "arguments", "after `apply`, options are written --delay VALUE"),
            (&["watch", "name=x"], "arguments", "`name=x` (argument 2): after `watch`, options are written --name VALUE"),
            (&["destroy", "--concurrency", "0", "--name", "x"], "concurrency", "0 is not in 1..=100"),
            (&["destroy"], "arguments", "`destroy` needs one of: ids, --name NAME, --name-prefix TEXT"),
            (&["destroy", "--name", "x", "--name-prefix", "x"], "arguments", "`destroy` needs one of"),
            (&["dev", "--host", "0.0.0.0"], "host", "it listens on 127.0.0.1"),
            (&["demo", "--", "x"], "arguments", "unexpected argument `x` (argument 3)"),
            (&["name=x", "--", "y"], "arguments", "unexpected argument `y` (argument 3)"),
            (
                &["list", "--output", "yaml"],
                "output",
                "invalid value `yaml` for `--output`: unknown (expected table, wide, json, ids)",
            ),
            (&["present", "x", "--on-mismatch", "no"], "on_mismatch", "unknown (expected fail, replace)"),
        ] {
            let (given, message) = mistake(args);
            assert!(message.contains(part), "{args:?}: {message}");
            assert_eq!(given, option, "{args:?}: {message}");
            assert!(!message.contains(SECRET) && !message.contains("secret"), "{args:?}: {message}");
        }
    }

    #[test]
    fn component_names_what_needs_the_program() {
        let error = |args: &[&str]| parse_all(Program::Component, args, "").unwrap_err().1.message.clone();
        assert!(error(&["watch"]).starts_with("`watch` needs the program consul-session"), "{}", error(&["watch"]));
        assert!(error(&["list", "--allow", "a:1"]).starts_with("`--allow` needs the program"));
        assert!(error(&["--dev", "name=x"]).starts_with("`--dev` needs the program"));
        assert!(matches!(parse_all(Program::Component, &["list"], ""), Ok(Parsed::Run(_))));
        let Ok(Parsed::Print(help)) = parse_all(Program::Component, &["--help"], "") else { panic!() };
        assert!(!help.stdout.contains("--allow") && !help.stdout.contains("watch"), "{}", help.stdout);
    }

    #[test]
    fn commands_without_consul_ignore_the_environment() {
        let options = |args: &[&str]| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            let variable = |name: &str| (name == "CONSUL_HTTP_ADDR").then(|| "http://a:1/odd".to_owned());
            parse(Program::Host, args, &variable, &mut || Ok(String::new()), &TerminalStyles::default())
        };
        for args in [&["dev"][..], &["completions", "bash"], &["man"], &["--dev", "list"]] {
            assert!(matches!(options(args), Ok(Parsed::Run(_))), "{args:?}");
        }
        assert!(options(&["list"]).is_err());
    }

    #[test]
    fn errors_use_a_format_that_comes_later() {
        for args in [["dealy=1", "--format=json"], ["dealy=1", "-ojson"]] {
            assert_eq!(parse_all(Program::Host, &args, "").unwrap_err().0, Format::Json);
        }
        assert_eq!(parse_all(Program::Host, &["dealy=1"], "").unwrap_err().0, Format::Table);
    }
}
