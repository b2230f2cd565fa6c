//! Mistakes of the command line, each with the word that was not understood, where it stood, and
//! the nearest command, option or flag.

use crate::flags::{self, CommandLine};
use clap::error::{ContextKind, ContextValue, ErrorKind as ClapError};
use clap::{Arg, Command, CommandFactory};
use consul_session::error::Error;
use consul_session::options::{self, TABLE, name_of_token, nearest, resembles_token};

/// Where to read on.
pub(crate) const SEE_HELP: &str = "see `consul-session --help`";

/// Returns clap's error as one of ours: one line, which does not repeat a secret.
pub(crate) fn named(error: &clap::Error, args: &[String], definition: &Command) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(" ")),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    // clap's `--name <NAME>`, as it is typed.
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let option = match flag.trim_start_matches('-') {
        name if flag.starts_with('-') && !name.is_empty() => name.replace('-', "_"),
        _ => "arguments".to_owned(),
    };
    let command = command_of(args, definition);
    let see = match command {
        Some(command) => format!("see `consul-session help {}`", command.get_name()),
        None => SEE_HELP.to_owned(),
    };
    let message = match error.kind() {
        ClapError::UnknownArgument => return unexpected(&argument, args, command),
        ClapError::ArgumentConflict if text(ContextKind::PriorArg).as_ref() == Some(&argument) => {
            format!("`{flag}` is given twice")
        }
        ClapError::MissingRequiredArgument => {
            let name = command.map_or("", Command::get_name);
            format!("`{name}` needs {argument}; {see}")
        }
        ClapError::InvalidValue | ClapError::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let accepted = text(ContextKind::ValidValue).unwrap_or_default().replace(' ', ", ");
            let reason = std::error::Error::source(error).map(ToString::to_string);
            match (value.as_str(), reason) {
                ("", _) => format!("`{flag}` needs a value: {argument}"),
                (value, _) if let Some(name) = name_of_token(value) => format!("invalid value `{name}=…` for `{flag}`"),
                (value, Some(reason)) => format!("invalid value `{value}` for `{flag}`: {reason}"),
                (value, None) => format!("invalid value `{value}` for `{flag}`: unknown (expected {accepted})"),
            }
        }
        // The first paragraph of clap's own words.
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            format!("{}; {see}", first.trim_start_matches("error: ").replace('\n', " "))
        }
    };
    Error::invalid(&option, message)
}

/// Returns the command whose name is typed.
fn command_of<'a>(args: &[String], definition: &'a Command) -> Option<&'a Command> {
    let own = args.iter().take_while(|arg| *arg != "--");
    own.filter(|arg| !arg.starts_with('-')).find_map(|arg| definition.find_subcommand(arg))
}

/// Returns the error for an option that no command has.
pub(crate) fn unknown(name: &str) -> Error {
    let error = options::unknown(name);
    let flags = CommandLine::command();
    let flags: Vec<String> = flags.get_arguments().flat_map(longs).collect();
    match (nearest(name, TABLE.iter().map(|info| info.name)), nearest(name, flags.iter().map(String::as_str))) {
        (None, Some(flag)) => Error::invalid(name, format!("unknown option `{name}`: did you mean `--{flag}`?")),
        _ => error,
    }
}

/// Returns the error for a word or a flag that does not fit where it stands.
pub(crate) fn unexpected(word: &str, args: &[String], command: Option<&Command>) -> Error {
    // A dash among short flags, as in `-n-x`. clap names a flag without a name.
    let cluster = |arg: &&String| arg.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains('-'));
    let word = if word == "--" { args.iter().find(cluster).map_or(word, String::as_str) } else { word };
    let at = args.iter().position(|arg| arg == word || arg.split('=').next() == Some(word));
    let place = at.map(|at| format!(" (argument {})", at + 1)).unwrap_or_default();
    let definition = CommandLine::command();
    let command = command.map(Command::get_name).and_then(|name| definition.find_subcommand(name));
    let flags_of = |command: &Command| command.get_arguments().flat_map(longs).collect::<Vec<_>>();
    let commands: Vec<&str> = definition.get_subcommands().map(Command::get_name).collect();
    if let Some(name) = word.strip_prefix("--") {
        let option = name.replace('-', "_");
        let own = command.map(flags_of).unwrap_or_default();
        let global = definition.get_arguments().filter(|arg| arg.is_global_set() || command.is_none());
        let mut known = own.clone();
        known.extend(global.flat_map(longs));
        let hint = match (nearest(name, known.iter().map(String::as_str)), command) {
            (_, Some(command)) if flags::option(name).is_some() => {
                let own: Vec<String> = own.iter().map(|flag| format!("--{flag}")).collect();
                let takes = if own.is_empty() { "no options of its own".into() } else { own.join(", ") };
                format!("`{}` takes {takes}", command.get_name())
            }
            (Some(flag), _) => format!("did you mean `--{flag}`?"),
            (None, Some(command)) => format!("see `consul-session help {}`", command.get_name()),
            (None, None) => SEE_HELP.to_owned(),
        };
        return Error::invalid(&option, format!("unknown flag `{word}`{place}: {hint}"));
    }
    let hint = match command {
        _ if word.starts_with('-') => SEE_HELP.to_owned(),
        Some(command) if let Some(info) = flags::option_of_word(word) => {
            let flag = info.name.replace('_', "-");
            format!("after `{}`, options are written --{flag} VALUE", command.get_name())
        }
        None if let Some(info) = flags::option(word) => {
            format!("`{word}` is an option and needs a value: {}=VALUE", info.name)
        }
        None if commands.contains(&word) => format!("`{word}` is a command, which comes first"),
        None => match nearest(word, commands.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected a command first, or OPTION=VALUE; {SEE_HELP}"),
        },
        Some(command) => format!("see `consul-session help {}`", command.get_name()),
    };
    let what = match name_of_token(word) {
        _ if may_be_secret(word, at.and_then(|at| args.get(at.checked_sub(1)?))) => "unexpected argument".to_owned(),
        Some(name) => format!("unexpected argument `{}=…`", crate::output::printable(name)),
        None => format!("unexpected argument `{}`", crate::output::printable(word)),
    };
    Error::invalid("arguments", format!("{what}{place}: {hint}"))
}

/// Returns the names of a flag, without their dashes.
fn longs(arg: &Arg) -> Vec<String> {
    arg.get_long_and_visible_aliases().unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// Returns whether a word may be a token, which errors do not repeat: tokens of Consul are UUIDs,
/// and any word after one that resembles `token` may be another's.
fn may_be_secret(word: &str, before: Option<&String>) -> bool {
    let is_after_token = before.is_some_and(|before| resembles_token(before.trim_start_matches('-')));
    let is_uuid = word.len() == 36 && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_after_token || is_uuid
}

/// Returns the error for a word that has no help.
pub(crate) fn no_help(word: &str, definition: &Command) -> Error {
    let commands = definition.get_subcommands().map(Command::get_name);
    let known = commands.chain(TABLE.iter().map(|info| info.name));
    let hint = match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => SEE_HELP.to_owned(),
    };
    Error::invalid(
        "arguments",
        format!("no help on `{}`: it is neither a command nor an option; {hint}", crate::output::printable(word)),
    )
}
