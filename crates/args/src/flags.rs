//! The commands and flags, as clap parses them. The help, the manual page and the completions are
//! made from the same definition.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use consul_session::duration;
use consul_session::options::{self, Info, Kind, TABLE};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

/// The whole command line.
///
/// Without a command it is in the words of the `consul_session` options: `name=session1 delay=20s`.
#[derive(Debug, Parser)]
#[command(name = "consul-session", version, disable_help_subcommand = true, max_term_width = 0)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub connection: Given<ConnectionOptions>,
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub options: Given<SessionOptions>,
    /// One of the options below, without its dashes; or `-`, for a JSON object of options on
    /// standard input
    #[arg(value_name = "OPTION=VALUE", hide_short_help = true)]
    pub words: Vec<String>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Help heading of the flags that every command takes.
pub(crate) const EVERYWHERE: &str = "Global flags";
/// Help heading of the options about the connection.
pub(crate) const CONNECTION: &str = "Connection";
/// Help heading of what the component may do.
pub(crate) const PERMISSIONS: &str = "Permissions, TLS and limits";
/// Help heading of the options about sessions.
pub(crate) const OPTIONS: &str = "Options of consul_session";

const ALLOW: &str = "Where the component may connect, besides `host` and CONSUL_HTTP_ADDR: NAME:PORT, *.SUFFIX:PORT, \
                     10.0.0.0/8:8500-8510, [::1]:8500, unix:///PATH. May be repeated";

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people, as wide as the terminal.
    #[default]
    Table,
    /// A table with every column, whole.
    Wide,
    /// One JSON object.
    Json,
    /// The ids of the sessions, one a line.
    Ids,
}

impl Format {
    /// Returns the name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Wide => "wide",
            Format::Json => "json",
            Format::Ids => "ids",
        }
    }
}

/// The flags that every command takes, in addition to the options about the connection.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Global {
    /// Output format: table (as wide as the terminal), wide (every column), json (an error too) or
    /// ids (one a line)
    #[arg(short = 'o', long = "output", visible_alias = "format", global = true, value_name = "FORMAT", value_enum, default_value_t, hide_possible_values = true, help_heading = EVERYWHERE)]
    pub format: Format,
    #[command(flatten)]
    #[expect(missing_docs, reason = "described at its type")]
    pub flags: HostFlags,
}

/// The flags of a program that is a plugin host itself. They need more than a component may do.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct HostFlags {
    /// Report each request on standard error: method, URL, status, size, time; never a header
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub verbose: bool,
    /// Start an embedded dev agent on a free port and use it: needs no Consul, and keeps nothing
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub dev: bool,
    /// Where the component may connect, besides `host` and CONSUL_HTTP_ADDR. May be repeated.
    // Not the documentation, in which an address in brackets would be a link.
    #[arg(long, global = true, value_name = "RULE", help = ALLOW, help_heading = PERMISSIONS)]
    pub allow: Vec<String>,
    /// Where validate_certs=false is granted: certificates are not verified. May be repeated
    #[arg(long, global = true, value_name = "RULE", help_heading = PERMISSIONS)]
    pub insecure: Vec<String>,
    /// Configuration file in TOML, with the same and more; see docs/cli.md. May be repeated
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = PERMISSIONS)]
    pub config: Vec<PathBuf>,
    /// CA certificates (PEM) to trust in place of the platform's
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = PERMISSIONS)]
    pub ca_file: Option<PathBuf>,
    /// Folder of such files
    #[arg(long, global = true, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = PERMISSIONS)]
    pub ca_path: Option<PathBuf>,
    /// Client certificate (PEM), with --client-key
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = PERMISSIONS)]
    pub client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = PERMISSIONS)]
    pub client_key: Option<PathBuf>,
    /// Name to verify the agent's certificate against, in place of `host`
    #[arg(long, global = true, value_name = "NAME", help_heading = PERMISSIONS)]
    pub tls_server_name: Option<String>,
    /// ACL token that the host adds to allowed requests; the component never sees it
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = PERMISSIONS)]
    pub token_file: Option<PathBuf>,
    /// What the component may use: memory=256MiB, compute=10s, time=15m, ... May be repeated
    #[arg(long, global = true, value_name = "NAME=VALUE", help_heading = PERMISSIONS)]
    pub limit: Vec<String>,
}

/// A command, with its arguments. Its options are those of the [`Invocation`](crate::Invocation).
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// List the sessions
    List(List),
    /// Show one session
    Info(InfoArgs),
    /// List the sessions of a node
    Node(Node),
    /// Create a session, even if there is one of the same name
    Create(Create),
    /// Ensure that a session of this name exists, as wanted
    #[command(visible_alias = "ensure")]
    Present(Present),
    /// Destroy sessions, by id, by name or by the beginning of the name
    Destroy(Destroy),
    /// Renew the TTL of a session, once
    Renew(Renew),
    /// Show the sessions as they come and go, until interrupted
    Watch(Watch),
    /// Apply files of many sessions
    Apply(Apply),
    /// Run a command while a session of its own holds a key
    Lock(Lock),
    /// Keep a session alive, and destroy it at the end
    Hold(Hold),
    /// Walk through the five examples of the options; needs --dev
    Demo,
    /// Start the dev agent alone, until interrupted
    Dev,
    /// Print the completion script of a shell
    Completions(Completions),
    /// Print the manual page, for `man -l -`
    Man(Man),
    /// Print the help of a command or of an option
    Help(Help),
}

/// The arguments of `list`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct List {
    #[command(flatten)]
    pub(crate) options: Given<Filters>,
}

/// The arguments of `info`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct InfoArgs {
    /// Id of the session
    pub(crate) id: String,
}

/// The arguments of `node`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Node {
    /// Name of the node
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) options: Given<NameFilter>,
}

/// The arguments of `create`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Create {
    #[command(flatten)]
    pub(crate) options: Given<CreateOptions>,
}

/// The arguments of `present`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Present {
    /// Name of the session
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) options: Given<PresentOptions>,
}

/// The arguments of `destroy`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Destroy {
    /// Ids of the sessions
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All sessions whose names begin with this, on --node or everywhere in the datacenter
    #[arg(long, value_name = "TEXT")]
    pub name_prefix: Option<String>,
    /// Do not ask. Needed with --name-prefix where standard input is not a terminal
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "described at its type")]
    pub concurrency: Concurrency,
    #[command(flatten)]
    pub(crate) options: Given<DestroyOptions>,
}

/// How many requests are under way at once.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// How many requests are under way at once, 1 to 100, and at most the limit `instances`
    #[arg(long = "concurrency", value_name = "N", default_value = "16", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub requests: u8,
}

/// The arguments of `renew`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Renew {
    /// Id of the session
    pub(crate) id: String,
}

/// The arguments of `watch`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Watch {
    #[command(flatten)]
    pub(crate) options: Given<Filters>,
}

/// The arguments of `apply`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Apply {
    /// Files of records; `-` for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    args: Vec<PathBuf>,
    /// The same, as kubectl has it. May be repeated
    #[arg(short, long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Vec<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "described at its type")]
    pub concurrency: Concurrency,
    #[command(flatten)]
    pub(crate) options: Given<SessionOptions>,
}

impl Apply {
    /// Returns the files, in the order of the arguments and then of the flags.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.args.iter().chain(&self.file)
    }
}

/// The arguments of `lock`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Lock {
    /// The key, or with --semaphore the prefix of the keys
    pub key: String,
    /// At most N holders at once, as with `consul lock -n N`
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub semaphore: Option<u32>,
    /// How long to wait for the lock before failing; 0 for one attempt. Default: no limit
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = duration_of)]
    pub wait: Option<Duration>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "described at its type")]
    pub kill_after: KillAfter,
    #[command(flatten)]
    pub(crate) options: Given<LockOptions>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

/// How long after SIGTERM a command is killed.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillAfter {
    /// How long after SIGTERM a command without its lock is killed
    #[arg(long = "kill-after", value_name = "TIME", default_value = "5s", allow_negative_numbers = true, value_parser = duration_of)]
    pub time: Duration,
}

/// The arguments of `hold`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Hold {
    /// Name of the session
    pub(crate) name: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "described at its type")]
    pub kill_after: KillAfter,
    #[command(flatten)]
    pub(crate) options: Given<Wishes>,
    /// The command, and its arguments, during which the session is kept
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

/// The arguments of `completions`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    pub shell: String,
}

/// The arguments of `man`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Man {
    /// Write the manual page of each command to this folder instead
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,
}

/// The arguments of `help`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Help {
    /// A command or an option
    #[arg(value_name = "WORD")]
    pub(crate) word: Option<String>,
}

impl Command {
    /// Returns the name, as it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Command::List(_) => "list",
            Command::Info(_) => "info",
            Command::Node(_) => "node",
            Command::Create(_) => "create",
            Command::Present(_) => "present",
            Command::Destroy(_) => "destroy",
            Command::Renew(_) => "renew",
            Command::Watch(_) => "watch",
            Command::Apply(_) => "apply",
            Command::Lock(_) => "lock",
            Command::Hold(_) => "hold",
            Command::Demo => "demo",
            Command::Dev => "dev",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
            Command::Help(_) => "help",
        }
    }

    /// Returns whether the command has to do with an agent that the environment may name.
    pub(crate) fn calls_consul(&self) -> bool {
        !matches!(self, Command::Dev | Command::Completions(_) | Command::Man(_) | Command::Help(_))
    }

    /// Returns the options that the command and its arguments stand for, in addition to those typed.
    pub(crate) fn implied(&self) -> Vec<(&'static str, &str)> {
        match self {
            Command::List(_) => vec![("state", "list")],
            Command::Info(info) => vec![("state", "info"), ("id", &info.id)],
            Command::Node(node) => vec![("state", "node"), ("node", &node.node)],
            Command::Present(present) => vec![("state", "present"), ("name", &present.name)],
            Command::Destroy(_) => vec![("state", "absent")],
            Command::Renew(renew) => vec![("id", &renew.id)],
            Command::Hold(hold) => vec![("name", &hold.name)],
            _ => Vec::new(),
        }
    }

    /// Returns the options that were typed.
    pub(crate) fn given(&self) -> &[(&'static Info, String)] {
        match self {
            Command::List(List { options }) | Command::Watch(Watch { options }) => &options.values,
            Command::Node(node) => &node.options.values,
            Command::Create(create) => &create.options.values,
            Command::Present(present) => &present.options.values,
            Command::Destroy(destroy) => &destroy.options.values,
            Command::Apply(apply) => &apply.options.values,
            Command::Lock(lock) => &lock.options.values,
            Command::Hold(hold) => &hold.options.values,
            _ => &[],
        }
    }
}

/// Returns the option of this name, which is typed with `_` or `-`.
pub(crate) fn option(name: &str) -> Option<&'static Info> {
    options::info(&name.replace('-', "_"))
}

/// Returns the option of a word `OPTION=VALUE`.
pub(crate) fn option_of_word(word: &str) -> Option<&'static Info> {
    word.split_once('=').and_then(|(name, _)| option(name))
}

/// The commands that a component can run. The others need files, signals, processes or a dev agent.
const OF_COMPONENTS: [&str; 8] = ["list", "info", "node", "create", "present", "destroy", "renew", "help"];

/// Returns whether a command needs the program.
pub(crate) fn needs_program(command: &str) -> bool {
    !OF_COMPONENTS.contains(&command)
}

/// Parses a duration that is not negative.
fn duration_of(text: &str) -> Result<Duration, String> {
    let nanoseconds = duration::parse(text).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    let invalid = || "not a duration (expected 0 or more, such as 30, 30s or 1m30s)".to_owned();
    nanoseconds.map(Duration::from_nanos).ok_or_else(invalid)
}

/// Options of the table that a part of the command line takes.
pub(crate) trait Set {
    /// Their names, in the order of the table.
    const NAMES: &'static [&'static str];
    /// Whether every command takes them.
    const IS_GLOBAL: bool = false;
    /// Their help heading.
    const HEADING: &'static str = OPTIONS;
}

macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident = [$($option:literal),*];)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(crate) struct $name;
            impl Set for $name {
                const NAMES: &'static [&'static str] = &[$($option),*];
            }
        )*
    };
}

sets! {
    /// All but those of the connection.
    SessionOptions = ["state", "id", "name", "node", "checks", "node_checks", "service_checks", "behavior", "delay", "ttl", "on_mismatch", "dry_run"];
    Filters = ["name", "node"];
    NameFilter = ["name"];
    /// What a new session is like.
    Wishes = ["node", "checks", "node_checks", "service_checks", "behavior", "delay", "ttl"];
    CreateOptions = ["name", "node", "checks", "node_checks", "service_checks", "behavior", "delay", "ttl", "dry_run"];
    PresentOptions = ["node", "checks", "node_checks", "service_checks", "behavior", "delay", "ttl", "on_mismatch", "dry_run"];
    DestroyOptions = ["name", "node", "dry_run"];
    LockOptions = ["name", "node", "checks", "node_checks", "service_checks", "behavior", "delay", "ttl"];
}

/// The options about the connection: where the agent is, and how to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionOptions;

impl Set for ConnectionOptions {
    const NAMES: &'static [&'static str] =
        &["datacenter", "token", "host", "port", "scheme", "validate_certs", "timeout", "namespace", "partition"];
    const IS_GLOBAL: bool = true;
    const HEADING: &'static str = CONNECTION;
}

/// The options of a [`Set`] that were typed as `--name VALUE`, unchecked. A list that was repeated
/// is joined by commas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Given<S> {
    pub values: Vec<(&'static Info, String)>,
    set: PhantomData<S>,
}

impl<S: Set> Args for Given<S> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let of_set = TABLE.iter().filter(|info| S::NAMES.contains(&info.name));
        of_set.fold(command, |command, info| command.arg(arg(info).global(S::IS_GLOBAL).help_heading(S::HEADING)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Given::<S>::augment_args(command)
    }
}

impl<S: Set> FromArgMatches for Given<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Given<S>, clap::Error> {
        let of_set = TABLE.iter().filter(|info| S::NAMES.contains(&info.name));
        let typed = of_set.filter_map(|info| {
            let values: Vec<&str> = matches.get_many::<String>(info.name)?.map(String::as_str).collect();
            Some((info, values.join(",")))
        });
        Ok(Given { values: typed.collect(), set: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns an option of the table as `--name VALUE`. The table checks the value.
fn arg(info: &'static Info) -> Arg {
    let long = info.name.replace('_', "-");
    let arg = if long == info.name { Arg::new(info.name) } else { Arg::new(info.name).alias(info.name) };
    let arg = arg.long(long).help(crate::help::described(info));
    let arg = match info.kind {
        Kind::List => arg.action(ArgAction::Append),
        // Off by default: the flag alone turns it on.
        Kind::Boolean if info.default == Some("false") => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        _ => arg.action(ArgAction::Set),
    };
    let arg = if info.name == "dry_run" { arg.short('n') } else { arg };
    let arg = match info.kind {
        // The help lists the values.
        Kind::Choice(names) => arg.value_parser(PossibleValuesParser::new(names)).hide_possible_values(true),
        _ => arg,
    };
    let hint = if info.kind == Kind::Host { ValueHint::Hostname } else { ValueHint::Other };
    // A negative number is a wrong value, and not an unknown flag.
    arg.value_name(placeholder(info)).value_hint(hint).allow_negative_numbers(true)
}

/// Returns the placeholder of an option's value. It is short: clap puts a description beside a flag
/// only where `--service-checks` and its placeholder take at most 20 columns.
fn placeholder(info: &Info) -> &'static str {
    match info.kind {
        Kind::Choice(_) => "WORD",
        Kind::Text => "NAME",
        Kind::Secret => "TOKEN",
        Kind::Node => "NODE",
        Kind::Uuid => "ID",
        Kind::List => "A",
        Kind::Boolean => "BOOL",
        Kind::Host => "HOST",
        Kind::Port => "PORT",
        Kind::Duration(_) => "DURATION",
    }
}
