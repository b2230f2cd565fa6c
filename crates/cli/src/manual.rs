//! `completions` and `man`: shell completions and the manual page, generated from the tables that
//! the parser uses.
//!
//! clap serves only as a generator: it has no arguments such as `name=value`, so it cannot parse
//! the command line.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ValueEnum, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{Info, Kind, TABLE};
use consul_session_args::help::{EXAMPLES, EXIT, FORMAT, INPUT, PURPOSE, described, environment, flags_of, usage};
use consul_session_args::{Command, Format, Invocation, Output, Program};
use roff::{Roff, bold, roman};

/// The command that prints the completions of a shell.
pub const COMPLETIONS: Command = Command {
    name: "completions",
    args: &["SHELL"],
    rest: None,
    flags: &[],
    settings: &[],
    help: "Print the completion script for SHELL: bash, zsh, fish, elvish or powershell",
};

/// The command that prints the manual page.
pub const MAN: Command =
    Command { name: "man", args: &[], rest: None, flags: &[], settings: &[], help: "Print the manual page, for `man -l -`" };

/// Runs `completions SHELL`.
pub fn completions(program: &Program, invocation: &Invocation) -> Result<Output, Error> {
    only_as_text(invocation, COMPLETIONS.name)?;
    let arg = invocation.args.first().map(String::as_str).unwrap_or_default();
    let shell = Shell::from_str(arg, true).map_err(|_| {
        let known: Vec<String> = Shell::value_variants().iter().map(ToString::to_string).collect();
        Error::invalid("arguments", format!("invalid value `{arg}` for <SHELL>: unknown (expected {})", known.join(", ")))
    })?;
    let mut script = Vec::new();
    let name = if shell == Shell::Bash { function_name(program) } else { program.name.to_owned() };
    clap_complete::generate(shell, &mut command(program, shell), name, &mut script);
    let script = String::from_utf8_lossy(&script);
    Ok(text(match shell {
        Shell::Bash => bash(program, &script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(program, &script),
        _ => script.into_owned(),
    }))
}

/// Runs `man`.
pub fn man(program: &Program, invocation: &Invocation) -> Result<Output, Error> {
    only_as_text(invocation, MAN.name)?;
    let page = page(program).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?;
    Ok(text(page))
}

/// Checks that no other format than text is asked for.
fn only_as_text(invocation: &Invocation, command: &str) -> Result<(), Error> {
    invocation.accept(&[Format::Table], command)
}

fn text(stdout: String) -> Output {
    Output { stdout, stderr: String::new(), success: true }
}

/// Returns the command line in clap's terms.
fn command(program: &Program, shell: Shell) -> clap::Command {
    // With positional arguments beside its commands, zsh takes a command for such an argument.
    let args_alone = (shell != Shell::Zsh).then(|| positional(TABLE.iter().flat_map(values)));
    let mut command = clap::Command::new(program.name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(PURPOSE)
        .disable_help_subcommand(true)
        .args(every_flag(program))
        .args(args_alone);
    for own in program.commands {
        let is_alone = [COMPLETIONS.name, MAN.name].contains(&own.name);
        let mut sub = clap::Command::new(own.name).about(own.help).args(own.args.iter().map(|arg| match *arg {
            "SHELL" => Arg::new("SHELL").required(true).value_parser(clap::value_parser!(Shell)),
            arg => Arg::new(arg).required(true).value_hint(ValueHint::Other),
        }));
        if !is_alone {
            sub = sub
                .args(flags(own.flags, own.settings))
                .args(every_flag(program))
                .arg(positional(TABLE.iter().flat_map(values)));
        }
        if let Some(rest) = own.rest {
            sub = sub.arg(Arg::new(rest).last(true).num_args(1..).value_hint(ValueHint::CommandWithArguments));
        }
        command = command.subcommand(sub);
    }
    let known = TABLE.iter().map(|info| info.name).chain(program.commands.iter().map(|command| command.name));
    command.subcommand(clap::Command::new("help").about("Print the help of an option or of a command").arg(positional(known)))
}

/// Returns the flags that every command accepts: the options and the program's flags.
fn every_flag(program: &Program) -> impl Iterator<Item = Arg> + use<> {
    let format = Arg::new("format").long("format").help(FORMAT.1).hide_possible_values(true);
    let format = format.value_parser(Format::ALL.map(|(name, _)| name));
    TABLE.iter().map(option).chain(flags(program.flags, program.settings)).chain([format])
}

/// Returns an option of the table as `--name VALUE`.
fn option(info: &'static Info) -> Arg {
    let arg = Arg::new(info.name).long(info.name.replace('_', "-")).help(described(info));
    let arg = if info.kind == Kind::Boolean { arg.num_args(0..=1) } else { arg };
    let hint = if info.kind == Kind::Host { ValueHint::Hostname } else { ValueHint::Other };
    match choices(info) {
        [] => arg.value_name("VALUE").value_hint(hint),
        // The help lists the values.
        choices => arg.value_name("VALUE").value_parser(PossibleValuesParser::new(choices)).hide_possible_values(true),
    }
}

/// Returns the values that an option accepts, if they can be listed.
fn choices(info: &Info) -> &'static [&'static str] {
    match info.kind {
        Kind::Choice(names) => names,
        Kind::Boolean => &["true", "false"],
        _ => &[],
    }
}

/// Returns an option with each of its values, as `name=value`.
fn values(info: &'static Info) -> impl Iterator<Item = String> {
    choices(info).iter().map(|choice| format!("{}={choice}", info.name))
}

/// Returns positional arguments with these values.
fn positional(known: impl Iterator<Item = impl Into<clap::builder::PossibleValue>>) -> Arg {
    Arg::new("ARGUMENT").num_args(0..).value_parser(PossibleValuesParser::new(known))
}

/// Returns flags without a value, and flags with one.
fn flags(
    flags: &'static [(&'static str, &'static str)],
    settings: &'static [(&'static str, &'static str, &'static str)],
) -> impl Iterator<Item = Arg> {
    let flags = flags.iter().map(|(name, help)| Arg::new(*name).long(*name).help(*help).action(ArgAction::SetTrue));
    let settings = settings.iter().map(|(name, value, help)| {
        let hint = match *value {
            "FILE" => ValueHint::FilePath,
            "FOLDER" => ValueHint::DirPath,
            _ => ValueHint::Other,
        };
        Arg::new(*name).long(*name).help(*help).value_name(*value).value_hint(hint)
    });
    flags.chain(settings)
}

/// Returns the program's name as a part of bash function names. clap_complete 4.6.11 omits the
/// commands of a program with a `-` in its name.
fn function_name(program: &Program) -> String {
    program.name.replace('-', "_")
}

/// Extends clap's script for bash with `name=value`: bash splits arguments at `=`, which clap's
/// script does not expect.
fn bash(program: &Program, script: &str) -> String {
    let function = function_name(program);
    let cases: String = TABLE
        .iter()
        .map(|info| (info.name, choices(info).join(" ")))
        .chain([("format", Format::ALL.map(|(name, _)| name).join(" "))])
        .filter(|(_, choices)| !choices.is_empty())
        .map(|(name, choices)| format!("        {name}) values=\"{choices}\" ;;\n"))
        .collect();
    let names = names();
    // The line that registers the function for the program.
    let script = script
        .replace(&format!("complete -F _{function} "), &format!("complete -F _{function}_args "))
        .replace(&format!("-o default {function}\n"), &format!("-o default {}\n", program.name));
    script
        + &format!(
            r#"
_{function}_args() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" word name values=""
    word="${{line##*[[:space:]]}}"
    if [[ "${{line}}" == *" -- "* ]]; then
        COMPREPLY=()
        return 0
    fi
    if [[ "${{word}}" != *=* ]]; then
        _{function} "$@"
        if [[ "${{word}}" != -* && "$3" != --* && "${{line}}" != *" help "* && "${{line}}" != *" completions "* ]]; then
            COMPREPLY+=( $(compgen -W "{names}" -- "${{word}}") )
        fi
        if [[ "${{#COMPREPLY[@]}}" -eq 1 && "${{COMPREPLY[0]}}" == *= ]]; then
            compopt -o nospace 2>/dev/null
        fi
        return 0
    fi
    name="${{word%%=*}}"
    name="${{name#--}}"
    case "${{name//-/_}}" in
{cases}    esac
    COMPREPLY=( $(compgen -W "${{values}}" -- "${{word#*=}}") )
    if [[ "${{COMP_WORDBREAKS}}" != *=* ]]; then
        COMPREPLY=( "${{COMPREPLY[@]/#/${{word%%=*}}=}}" )
    fi
    return 0
}}
"#
        )
}

/// Extends clap's script for zsh with `name=value`: offers these arguments, and hides those
/// already typed from clap's script, which would take them for commands.
fn zsh(script: &str) -> String {
    const BEGIN: &str = "    local context curcontext=\"$curcontext\" state line\n";
    let (names, values) = (names(), every_value());
    let more = format!(
        r#"    if [[ "$PREFIX" != -* && "$words[CURRENT-1]" != --* && ! " $words " == *" "(help|completions|--)" "* ]]; then
        compadd -- {values} && ret=0
        compadd -S "" -- {names} && ret=0
    fi
    local -i at
    for (( at = CURRENT - 1; at > 1; at-- )); do
        if [[ "$words[at]" == [a-z]*=* ]]; then
            words[at]=()
            (( CURRENT-- ))
        fi
    done
"#
    );
    script.replacen(BEGIN, &format!("{BEGIN}{more}"), 1)
}

/// Returns `state= id= …`.
fn names() -> String {
    TABLE.iter().map(|info| format!("{}=", info.name)).collect::<Vec<_>>().join(" ")
}

/// Returns `state=present state=absent …`.
fn every_value() -> String {
    TABLE.iter().flat_map(values).collect::<Vec<_>>().join(" ")
}

/// Extends clap's script for fish, which has flags and commands only.
fn fish(program: &Program, script: &str) -> String {
    format!("{script}complete -c {} -f -a '{} {}'\n", program.name, names(), every_value())
}

/// Returns the manual page.
fn page(program: &Program) -> std::io::Result<String> {
    let mut flat = clap::Command::new(program.name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(PURPOSE)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(every_flag(program));
    flat.build();
    let man = Man::new(flat).manual("Consul sessions");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;

    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    let name = program.name;
    page.text([bold(name), roman(" [--FLAG]... [OPTION=VALUE | --OPTION VALUE]... [-]")]);
    for command in program.commands {
        page.control("br", []);
        let usage = usage(program, command);
        page.text([bold(name), roman(usage.strip_prefix(name).unwrap_or(&usage))]);
    }
    page.control("br", []);
    page.text([bold(name), roman(" help [OPTION | COMMAND]")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(PURPOSE)]);
    page.control("PP", []);
    page.text([roman(
        "An option is written NAME=VALUE, with _ in its name, or --NAME VALUE as below. A boolean option may stand alone.",
    )]);
    page.control("TP", []);
    page.text([bold(INPUT.0)]);
    page.text([roman(INPUT.1)]);
    page.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;

    let mut page = Roff::new();
    page.control("SH", ["COMMANDS"]);
    for command in program.commands {
        page.control("TP", []);
        page.text([bold(command.args.iter().fold(command.name.to_owned(), |usage, arg| usage + " " + arg))]);
        page.text([roman(command.help)]);
        for (flag, help) in flags_of(command.flags, command.settings) {
            page.control("RS", []);
            page.control("TP", []);
            page.text([bold(flag)]);
            page.text([roman(help)]);
            page.control("RE", []);
        }
    }
    page.control("SH", ["ENVIRONMENT"]);
    page.text([roman("Each is used for an option or a flag that is not given.")]);
    for (variable, help) in environment(program) {
        page.control("TP", []);
        page.text([bold(variable)]);
        page.text([roman(help)]);
    }
    page.control("SH", ["EXIT STATUS"]);
    page.text([roman(EXIT)]);
    page.control("SH", ["EXAMPLES"]);
    for example in EXAMPLES {
        page.control("PP", []);
        page.text([roman(format!("{name} {example}"))]);
    }
    page.to_writer(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
