//! The help texts: clap's, of the definition in `flags`, and those made from the table of options.

use crate::flags::{self, CommandLine, HostFlags, needs_program};
use crate::invocation::Program;
use crate::mistakes;
use crate::output::Output;
use crate::style::{NO_BREAK, TerminalStyle, wrapped};
use clap::{Arg, Args, CommandFactory};
use consul_session::error::Error;
use consul_session::options::{Info, Kind, TABLE};

/// Columns of the help on a terminal that is at least as wide.
const WIDTH: usize = 80;
/// On a narrower terminal a description is below its name, not beside it.
const TWO_COLUMNS: usize = 60;

/// The purpose of the programs.
const PURPOSE: &str = "Makes, finds, reads and destroys Consul sessions, with the options of Ansible's consul_session.";

/// The environment variables, each with its help.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("CONSUL_HTTP_ADDR", "host and port, optionally with the scheme: https://consul.example:8501"),
    ("CONSUL_HTTP_TOKEN", "token; safer than the option, which other users see in the list of processes"),
    ("CONSUL_HTTP_SSL", "true for scheme https"),
    ("CONSUL_HTTP_SSL_VERIFY", "false for validate_certs=false"),
    ("CONSUL_NAMESPACE", "namespace"),
    ("CONSUL_PARTITION", "partition"),
];

/// The environment variables of the program alone.
const HOST_ENVIRONMENT: [(&str, &str); 9] = [
    ("CONSUL_HTTP_TOKEN_FILE", "as --token-file"),
    ("CONSUL_HTTP_AUTH", "USER:PASSWORD for a proxy before the agent, which the host adds to requests"),
    ("CONSUL_CACERT", "as --ca-file"),
    ("CONSUL_CAPATH", "as --ca-path"),
    ("CONSUL_CLIENT_CERT", "as --client-cert"),
    ("CONSUL_CLIENT_KEY", "as --client-key"),
    ("CONSUL_TLS_SERVER_NAME", "as --tls-server-name"),
    ("CONSUL_SESSION_PLUGIN", "the component's file"),
    ("CONSUL_SESSION_CACHE", "folder of compiled components; empty for none. Default: the user's cache folder"),
];

/// The exit status, each with its meaning.
pub const EXIT_STATUS: [(&str, &str); 8] = [
    ("0", "done; for `watch`, `hold` and `dev`, ended by a signal"),
    ("1", "failed; for `info`, the session does not exist"),
    ("2", "wrong usage; nothing was changed"),
    ("124", "`lock`: the lock was not to be had in the time of --wait"),
    ("125", "`lock`, `hold`: the lock or the session was lost, or may stay"),
    ("126", "`lock`, `hold`: the command cannot be run"),
    ("127", "`lock`, `hold`: the command was not found"),
    ("128+N", "signal N ended the command of `lock` or `hold`, the wait, the clean-up, `apply` or `destroy`"),
];

/// Example command lines of the whole program, without its name.
const EXAMPLES: [&str; 3] = ["present session1 --delay 20s", "name=session1 delay=20s", "state=absent name=session1 --dry-run"];

/// For each command, what its help says below the flags, and an example.
const MORE: [(&str, &str, &str); 16] = [
    ("list", "Lists the sessions of the datacenter, or those that --name and --node select.", "list --name session1"),
    ("info", "The exit status is 1 if the session does not exist.", "info adf4238a-882b-9ddc-4a9d-5b6758e4159e"),
    ("node", "", "node db-1"),
    ("create", "", "create --ttl 30s"),
    (
        "present",
        "Finds the session of this name on the node, or creates it. A session that differs from the options is an error, unless \
         --on-mismatch replace.",
        "present session1 --delay 20s",
    ),
    (
        "destroy",
        "Destroys the sessions with these ids, those of --name on their node, or after asking all whose name begins with \
         --name-prefix. An id or a name without a session is not an error.",
        "destroy --name session1",
    ),
    (
        "renew",
        "Starts the TTL of the session again. `hold` keeps a session alive.",
        "renew adf4238a-882b-9ddc-4a9d-5b6758e4159e",
    ),
    ("watch", "With -o json, or where standard output is not a terminal, it prints one event a line.", "watch --name session1"),
    (
        "apply",
        "A file is a list of records in YAML or JSON, each with the options of one session: [{name: session1, delay: 20s}]. \
         Everything is checked before the first request. All options can be given, as defaults for the records. Run the \
         command again to finish after an interruption.",
        "apply sessions.yaml --dry-run",
    ),
    (
        "lock",
        "The default of --ttl is 15s. Excludes `consul lock PREFIX` where KEY is PREFIX/.lock. The command finds \
         CONSUL_LOCK_HELD, _KEY, _SESSION, _INDEX and _FENCE, the fencing number, in its environment; with --semaphore not \
         the last two. If the lock is lost, the command is ended.",
        "lock service/leader --wait 1m -- ./backup --full",
    ),
    (
        "hold",
        "Creates a session of its own with this name, and renews its TTL (default: 15s) while the command runs, or until \
         interrupted, and destroys it then. The command finds CONSUL_SESSION_ID and _NAME in its environment; without one, \
         the id is printed. If the session is lost, the command is ended.",
        "hold worker-7 --ttl 30s -- ./worker",
    ),
    ("demo", "", "demo --dev"),
    ("dev", "It listens on 127.0.0.1, and keeps nothing.", "dev --port 8500"),
    ("completions", "", "completions bash"),
    ("man", "", "man"),
    ("help", "", "help delay"),
];

/// Returns the command line of the program, for the completions and the manual page.
pub fn command_line() -> clap::Command {
    with_texts(Program::Host, WIDTH, " ")
}

/// Returns the command line, for parsing and for help of this width.
pub(crate) fn definition(program: Program, terminal: TerminalStyle) -> clap::Command {
    let command = with_texts(program, width(terminal), NO_BREAK);
    // A command's help does not repeat the global flags.
    let global: Vec<Arg> =
        command.get_arguments().filter(|arg| arg.is_global_set()).map(|arg| arg.clone().hide(true)).collect();
    command.mut_subcommands(|command| {
        // It takes all options, and its help is to fit one screen.
        let takes_all = command.get_name() == "apply";
        let is_option = |arg: &Arg| arg.get_help_heading() == Some(flags::OPTIONS);
        let command = command.mut_args(|arg| if takes_all && is_option(&arg) { arg.hide(true) } else { arg });
        let is_own = |arg: &Arg| command.get_name() == "dev" && arg.get_id() == "port";
        let hidden: Vec<Arg> = global.iter().filter(|arg| !is_own(arg)).cloned().collect();
        command.args(hidden)
    })
}

/// Returns the flags of the program that a component does not have.
pub(crate) fn host_flags() -> Vec<Arg> {
    HostFlags::augment_args(clap::Command::new("")).get_arguments().cloned().collect()
}

/// Returns the command line with its texts, in which `space` is that of examples.
fn with_texts(program: Program, width: usize, space: &str) -> clap::Command {
    let name = Program::NAME;
    let mut environment = ENVIRONMENT.to_vec();
    let mut status = EXIT_STATUS.to_vec();
    match program {
        Program::Host => environment.extend(HOST_ENVIRONMENT),
        // A runtime of WASI 0.2 tells success from failure, and no more.
        Program::Component => status = vec![("0", "done"), ("1", "failed, or wrong usage")],
    }
    let rows =
        |rows: &[(&str, &str)]| two_columns(rows.iter().map(|(name, help)| ((*name).to_owned(), (*help).to_owned())), width);
    let example = |example: &&str| format!("  {name} {example}\n").replace(' ', space);
    let long = format!(
        "Environment, for options that are not given:\n{}\nExit status:\n{}\nExamples:\n{}",
        rows(&environment),
        rows(&status),
        EXAMPLES.iter().map(example).collect::<String>()
    );
    let is_global = |arg: &Arg| arg.is_global_set() && arg.get_help_heading() != Some(flags::EVERYWHERE);
    let missing = match program {
        Program::Host => Vec::new(),
        Program::Component => host_flags(),
    };
    CommandLine::command()
        .about(PURPOSE)
        .long_about(PURPOSE)
        .term_width(width)
        .override_usage(format!("{name} COMMAND [ARGUMENT]...\n       {name} OPTION=VALUE..."))
        .after_help(format!("Options, connection, permissions, environment, exit status: {name} --help"))
        .after_long_help(long)
        .mut_args(|arg| {
            let hidden = missing.iter().any(|flag| flag.get_id() == arg.get_id());
            let more = is_global(&arg) || arg.get_help_heading() == Some(flags::OPTIONS);
            let arg = if more { arg.hide_short_help(true) } else { arg };
            arg.hide(hidden)
        })
        .mut_subcommands(|command| {
            let hidden = program == Program::Component && needs_program(command.get_name());
            let more = MORE.iter().filter(|(of, ..)| *of == command.get_name()).map(|(_, more, typed)| {
                let gap = if more.is_empty() { "" } else { "\n\n" };
                format!("{more}{gap}Example:\n{}\n", example(typed))
            });
            let more = more.collect::<String>() + &format!("Connection, permissions and other global flags: {name} --help");
            command.after_help(more).hide(hidden)
        })
}

/// Returns the output of a help text of [`definition`].
pub(crate) fn output(text: impl ToString) -> Output {
    Output::text(text.to_string().replace(NO_BREAK, " "))
}

fn width(terminal: TerminalStyle) -> usize {
    terminal.width.map_or(WIDTH, |width| width.clamp(40, WIDTH))
}

/// Returns the help of a command or an option, or the whole help.
pub(crate) fn of_word(word: Option<&str>, definition: &mut clap::Command, terminal: TerminalStyle) -> Result<Output, Error> {
    let Some(word) = word else { return Ok(output(definition.render_long_help())) };
    definition.build();
    if let Some(command) = definition.find_subcommand_mut(word) {
        return Ok(output(command.render_help()));
    }
    match flags::option(word.trim_start_matches('-')) {
        Some(info) => Ok(Output::text(option_help(info, width(terminal)))),
        None => Err(mistakes::no_help(word, definition)),
    }
}

/// Returns the help of one option.
fn option_help(info: &Info, width: usize) -> String {
    let mut rows = vec![("what it is for", info.help.trim().to_owned()), ("accepted", info.kind.to_string())];
    let default = info.default.unwrap_or(info.default_note);
    rows.push(("default", if default.is_empty() { "none".into() } else { default.to_owned() }));
    rows.push(("in WIT", info.name.replace('_', "-")));
    format!("{}\n{}", info.name, two_columns(rows.into_iter().map(|(title, text)| (title.to_owned(), text)), width))
}

/// Returns the table of options as Markdown, for the documentation.
pub fn options_markdown() -> String {
    let mut text = "| option | default | accepted | what it is for |\n|---|---|---|---|\n".to_owned();
    for info in TABLE {
        let default = match (info.default, info.default_note) {
            (Some(default), _) => format!("`{default}`"),
            (None, note) => note.to_owned(),
        };
        text += &format!("| `{}` | {default} | {} | {} |\n", info.name, info.kind, info.help.trim());
    }
    text
}

/// Returns the table of the commands as Markdown, for the documentation.
pub fn commands_markdown() -> String {
    let mut text = "| command | what it does |\n|---|---|\n".to_owned();
    let mut definition = command_line();
    definition.build();
    for command in definition.get_subcommands() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: consul-session ").replace("[OPTIONS] ", "").replace(" [OPTIONS]", "");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        text += &format!("| `{usage}` | {about} |\n");
    }
    text
}

/// Returns the table of the exit status as Markdown, for the documentation.
pub fn exit_status_markdown() -> String {
    let rows = EXIT_STATUS.iter().map(|(status, meaning)| format!("| {status} | {meaning} |\n"));
    "| exit status | meaning |\n|---|---|\n".to_owned() + &rows.collect::<String>()
}

/// Returns the help of an option with its accepted values and its default.
pub(crate) fn described(info: &Info) -> String {
    let mut text = info.help.trim().to_owned();
    if info.kind != Kind::Text {
        text += &format!(". Accepted: {}", info.kind);
    }
    match (info.default, info.default_note) {
        (Some(default), _) => text += &format!(". Default: {default}"),
        (None, "") => {}
        (None, note) => text += &format!(". Default: {note}"),
    }
    text
}

/// Lays out names and descriptions in two columns, or below each other on a narrow terminal.
fn two_columns(rows: impl Iterator<Item = (String, String)>, width: usize) -> String {
    let rows: Vec<(String, String)> = rows.collect();
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, help) in rows {
        let indent = if width < TWO_COLUMNS { 6 } else { names + 4 };
        let lines = wrapped(&help, width - indent).join(&format!("\n{:indent$}", ""));
        text += &match width < TWO_COLUMNS {
            true => format!("  {name}\n      {lines}\n"),
            false => format!("  {name:names$}  {lines}\n"),
        };
    }
    text
}
