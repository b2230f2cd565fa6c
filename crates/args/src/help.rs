//! The help texts, generated from the table of options, and the parts of which the manual page and
//! the shell completions are made.

use crate::invocation::{Action, Command, Program};
use crate::output::Output;
use crate::style::{NO_BREAK, TerminalStyle, wrapped};
use comfy_table::{ContentArrangement, Table, presets};
use consul_session::options::{Info, Kind, TABLE};

/// Columns of the help on a terminal that is at least as wide.
const WIDTH: usize = 80;
/// On a narrower terminal a description is below its name, not beside it.
const TWO_COLUMNS: usize = 60;

/// The purpose of each program.
pub const PURPOSE: &str = "Makes, finds, reads and destroys Consul sessions, with the options of Ansible's consul_session.";
/// The values of `--format`, and its help.
pub const FORMAT: (&str, &str) = (
    "table|wide|json|ids",
    "How the answer is printed: for people (wide: every column whole), as one JSON object (an error too), or the ids of the sessions, one a line. Default: table",
);
/// The argument that reads options from standard input, and its help.
pub const INPUT: (&str, &str) =
    ("-", "One JSON object of options on standard input; options on the command line take precedence");
/// The environment variables that each program reads.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("CONSUL_HTTP_ADDR", "host and port, optionally with the scheme: https://consul.example:8501"),
    ("CONSUL_HTTP_TOKEN", "token; safer than the option, which other users see in the list of processes"),
    ("CONSUL_HTTP_SSL", "true for scheme https"),
    ("CONSUL_HTTP_SSL_VERIFY", "false for validate_certs=false"),
];
/// Example command lines, without the program's name.
pub const EXAMPLES: [&str; 3] =
    ["name=session1 delay=20s", "state=info id=adf4238a-882b-9ddc-4a9d-5b6758e4159e", "state=absent name=session1 --dry-run"];
/// The exit status.
pub const EXIT: &str = "0 on success, 1 on failure.";

/// Returns the environment variables that a program reads, each with its help.
pub fn environment(program: &Program) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    ENVIRONMENT.into_iter().chain(program.environment.iter().copied())
}

/// Returns the output of an action about the program itself: the help, the help of one option or
/// command, or the version.
pub fn about(program: &Program, action: &Action, terminal: TerminalStyle) -> Output {
    let width = terminal.width.map_or(WIDTH, |width| width.clamp(40, WIDTH));
    let stdout = match action {
        Action::Version => format!("{} {}\n", program.name, env!("CARGO_PKG_VERSION")),
        Action::Help(Some(info)) => option_help(info, width),
        Action::HelpOf(name) => match program.commands.iter().find(|command| command.name == *name) {
            Some(command) => command_help(program, command, width),
            None => help(program, width),
        },
        _ => help(program, width),
    };
    Output { stdout, stderr: String::new(), success: true }
}

/// Returns the help of one option.
fn option_help(info: &Info, width: usize) -> String {
    let mut rows = vec![("what it is for", info.help.trim().to_owned()), ("accepted", info.kind.to_string())];
    let default = info.default.unwrap_or(info.default_note);
    rows.push(("default", if default.is_empty() { "none".into() } else { default.to_owned() }));
    rows.push(("in WIT", info.name.replace('_', "-")));
    format!("{}\n{}", info.name, two_columns(rows.into_iter().map(|(title, text)| (title.to_owned(), text)), width))
}

/// Returns the whole help.
fn help(program: &Program, width: usize) -> String {
    let name = program.name;
    let flags: String = program.flags.iter().map(|(flag, _)| format!("[--{flag}] ")).collect();
    let (formats, about_format) = FORMAT;
    let apply = format!("{name} {flags}[--format {formats}] [OPTION=VALUE | --OPTION VALUE]... [-]");
    let mut usages = vec![apply, format!("{name} help OPTION")];
    usages.extend(program.commands.iter().map(|command| usage(program, command)));
    if !program.commands.is_empty() {
        usages.push(format!("{name} help COMMAND"));
    }
    let mut text = wrapped(PURPOSE, width).join("\n") + "\n\n";
    text += &usage_lines(&usages, width);
    text += "\nOptions:\n";
    text += &two_columns(TABLE.iter().map(|info| (info.name.to_owned(), described(info))), width);
    text += "\nFlags:\n";
    let common = [
        (format!("--format {formats}"), about_format),
        (INPUT.0.into(), INPUT.1),
        ("-h, --help".into(), "This help"),
        ("-V, --version".into(), "The version"),
    ];
    text += &two_columns(
        flags_of(program.flags, program.settings).chain(common).map(|(flag, help)| (flag, help.to_owned())),
        width,
    );
    if !program.commands.is_empty() {
        text += "\nCommands:\n";
        text += &two_columns(program.commands.iter().map(|command| (command.name.to_owned(), command.help.to_owned())), width);
    }
    text += "\nEnvironment, for options that are not given:\n";
    text += &two_columns(environment(program).map(|(variable, help)| (variable.to_owned(), help.to_owned())), width);
    text += "\nExamples:\n";
    for example in EXAMPLES {
        text += &format!("  {name} {example}\n");
    }
    text + &format!("\nExit status: {EXIT}\n")
}

/// Returns the flags of a program or a command as they are typed, each with its help; flags with a
/// value come last.
pub fn flags_of(
    flags: &'static [(&'static str, &'static str)],
    settings: &'static [(&'static str, &'static str, &'static str)],
) -> impl Iterator<Item = (String, &'static str)> {
    let flags = flags.iter().map(|(flag, help)| (format!("--{flag}"), *help));
    flags.chain(settings.iter().map(|(flag, value, help)| (format!("--{flag} {value}"), *help)))
}

/// Returns the synopsis of a command.
pub fn usage(program: &Program, command: &Command) -> String {
    let mut args = vec![program.name, command.name];
    args.extend(command.args);
    args.push("[OPTION=VALUE]...");
    if let Some(rest) = command.rest {
        args.extend(["--", rest]);
    }
    args.join(" ")
}

/// Returns the help of one command.
fn command_help(program: &Program, command: &Command, width: usize) -> String {
    let help = two_columns([(command.name.to_owned(), command.help.to_owned())].into_iter(), width);
    let flags = flags_of(command.flags, command.settings).map(|(flag, help)| (flag, help.to_owned()));
    format!("{}\n{help}{}\n", usage_lines(&[usage(program, command)], width), two_columns(flags, width))
        + &format!("Options and the other flags: {} help\n", program.name)
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

/// Returns the help of an option with its accepted values and its default.
pub fn described(info: &Info) -> String {
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

/// Returns the usage section: each synopsis begins a line, and a bracketed part is not broken.
fn usage_lines(usages: &[String], width: usize) -> String {
    let mut text = String::new();
    for (at, usage) in usages.iter().enumerate() {
        let mut depth = 0;
        let unbroken = usage.chars().map(|c| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            if c == ' ' && depth > 0 { NO_BREAK.to_owned() } else { c.to_string() }
        });
        let lines = wrapped(&unbroken.collect::<String>(), width - 9).join("\n         ");
        let title = if at == 0 { "Usage:" } else { "      " };
        text += &format!("{title} {}\n", lines.replace(NO_BREAK, " "));
    }
    text
}

/// Lays out names and descriptions in two columns, or below each other on a narrow terminal.
fn two_columns(rows: impl Iterator<Item = (String, String)>, width: usize) -> String {
    if width < TWO_COLUMNS {
        let below =
            |(name, help): (String, String)| format!("  {name}\n      {}\n", wrapped(&help, width - 6).join("\n      "));
        return rows.map(below).collect();
    }
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
    for (name, help) in rows {
        table.add_row([format!(" {name}"), help]);
    }
    // The preset without borders: a continued description begins with the margin of an empty cell.
    table.load_style(presets::NOTHING);
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_option_and_fits_the_width() {
        let program = Program {
            name: "program",
            flags: &[("dev", "starts an agent")],
            settings: &[("allow", "RULE", "where it may connect")],
            environment: &[("OWN", "read by the program")],
            commands: &[Command { name: "demo", help: "shows it", args: &[], rest: None, flags: &[], settings: &[] }],
        };
        let help = help(&program, WIDTH);
        for info in TABLE {
            assert!(help.contains(&format!("\n  {} ", info.name)), "{} is not in\n{help}", info.name);
        }
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        let narrow = super::help(&program, 44);
        // Examples are not wrapped, so that they can be copied.
        for line in narrow.split("Examples").next().unwrap_or_default().lines() {
            assert!(line.chars().count() <= 44, "{line}");
        }
        for info in TABLE {
            assert!(narrow.contains(&format!("\n  {}\n      ", info.name)), "{} is not in\n{narrow}", info.name);
        }
        assert!(help.contains("program demo [OPTION=VALUE]...") && help.contains("--allow RULE") && help.contains("OWN"));
        assert_eq!(
            option_help(consul_session::options::info("on_mismatch").unwrap(), WIDTH),
            "on_mismatch\n  what it is for  What to do with a session that differs from the options:\n                  fail, or create a new one and destroy it\n  accepted        fail, replace\n  default         fail\n  in WIT          on-mismatch\n"
        );
    }
}
