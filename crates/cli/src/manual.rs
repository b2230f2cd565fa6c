//! `completions` and `man`: what a shell and `man` are to know of the command line, made from what the command line is made from.
//!
//! clap is here for its generators alone: it knows no words such as `name=value`, so that it cannot read what is typed.

use crate::PROGRAM;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ValueEnum, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{Info, Kind, TABLE};
use consul_session_args::help::{EXAMPLES, EXIT, FORMAT, INPUT, PURPOSE, described, environment, flags_of, usage};
use consul_session_args::{Command, Format, Invocation, Output};
use roff::{Roff, bold, roman};

/// Prints the completions of a shell.
pub const COMPLETIONS: Command = Command {
    name: "completions",
    args: &["SHELL"],
    rest: None,
    flags: &[],
    settings: &[],
    help: "Print a script that has SHELL complete what is typed: bash, zsh, fish, elvish or powershell",
};

/// Prints the manual page.
pub const MAN: Command =
    Command { name: "man", args: &[], rest: None, flags: &[], settings: &[], help: "Print the manual page, for `man -l -`" };

/// `completions SHELL`.
pub fn completions(invocation: &Invocation) -> Result<Output, Error> {
    only_a_text(invocation, COMPLETIONS.name)?;
    let word = invocation.args.first().map(String::as_str).unwrap_or_default();
    let shell = Shell::from_str(word, true).map_err(|_| {
        let known: Vec<String> = Shell::value_variants().iter().map(ToString::to_string).collect();
        Error::invalid("arguments", format!("invalid value `{word}` for <SHELL>: unknown (expected {})", known.join(", ")))
    })?;
    let mut script = Vec::new();
    let name = if shell == Shell::Bash { function_name() } else { PROGRAM.name.to_owned() };
    clap_complete::generate(shell, &mut command(shell), name, &mut script);
    let script = String::from_utf8_lossy(&script);
    Ok(printed(match shell {
        Shell::Bash => bash(&script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(&script),
        _ => script.into_owned(),
    }))
}

/// `man`.
pub fn man(invocation: &Invocation) -> Result<Output, Error> {
    only_a_text(invocation, MAN.name)?;
    let page = page().map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?;
    Ok(printed(page))
}

fn only_a_text(invocation: &Invocation, command: &str) -> Result<(), Error> {
    invocation.accept(&[Format::Table], command)
}

fn printed(stdout: String) -> Output {
    Output { stdout, stderr: String::new(), success: true }
}

/// The command line as clap would have it.
fn command(shell: Shell) -> clap::Command {
    // Where zsh may find words, it takes a command for one.
    let words_alone = (shell != Shell::Zsh).then(|| words(TABLE.iter().flat_map(typed)));
    let mut command = clap::Command::new(PROGRAM.name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(PURPOSE)
        .disable_help_subcommand(true)
        .args(every_flag())
        .args(words_alone);
    for own in PROGRAM.commands {
        let is_alone = [COMPLETIONS.name, MAN.name].contains(&own.name);
        let mut sub = clap::Command::new(own.name).about(own.help).args(own.args.iter().map(|word| match *word {
            "SHELL" => Arg::new("SHELL").required(true).value_parser(clap::value_parser!(Shell)),
            word => Arg::new(word).required(true).value_hint(ValueHint::Other),
        }));
        if !is_alone {
            sub = sub.args(flags(own.flags, own.settings)).args(every_flag()).arg(words(TABLE.iter().flat_map(typed)));
        }
        if let Some(rest) = own.rest {
            sub = sub.arg(Arg::new(rest).last(true).num_args(1..).value_hint(ValueHint::CommandWithArguments));
        }
        command = command.subcommand(sub);
    }
    let known = TABLE.iter().map(|info| info.name).chain(PROGRAM.commands.iter().map(|command| command.name));
    command.subcommand(clap::Command::new("help").about("Print the help of an option or of a command").arg(words(known)))
}

/// What may be typed beside a command, and without one: the options and the program's flags.
fn every_flag() -> impl Iterator<Item = Arg> {
    let format = Arg::new("format").long("format").help(FORMAT.1).hide_possible_values(true);
    let format = format.value_parser(Format::ALL.map(|(name, _)| name));
    TABLE.iter().map(option).chain(flags(PROGRAM.flags, PROGRAM.settings)).chain([format])
}

/// An option of the table as `--name VALUE`.
fn option(info: &'static Info) -> Arg {
    let arg = Arg::new(info.name).long(info.name.replace('_', "-")).help(described(info));
    let arg = if info.kind == Kind::Boolean { arg.num_args(0..=1) } else { arg };
    let hint = if info.kind == Kind::Host { ValueHint::Hostname } else { ValueHint::Other };
    match choices(info) {
        [] => arg.value_name("VALUE").value_hint(hint),
        // They are in the help.
        choices => arg.value_name("VALUE").value_parser(PossibleValuesParser::new(choices)).hide_possible_values(true),
    }
}

/// What can be listed of what an option accepts.
fn choices(info: &Info) -> &'static [&'static str] {
    match info.kind {
        Kind::Choice(names) => names,
        Kind::Boolean => &["true", "false"],
        _ => &[],
    }
}

/// An option with each of its values as a word.
fn typed(info: &'static Info) -> impl Iterator<Item = String> {
    choices(info).iter().map(|choice| format!("{}={choice}", info.name))
}

fn words(known: impl Iterator<Item = impl Into<clap::builder::PossibleValue>>) -> Arg {
    Arg::new("WORD").num_args(0..).value_parser(PossibleValuesParser::new(known))
}

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

/// The program's name as a part of the names of bash's functions. clap_complete 4.6.11 forgets the commands of a program with a `-`.
fn function_name() -> String {
    PROGRAM.name.replace('-', "_")
}

/// bash splits words at `=`, which clap's script does not reckon with; nor does it know words to which a value belongs.
fn bash(script: &str) -> String {
    let function = function_name();
    let cases: String = TABLE
        .iter()
        .map(|info| (info.name, choices(info).join(" ")))
        .chain([("format", Format::ALL.map(|(name, _)| name).join(" "))])
        .filter(|(_, choices)| !choices.is_empty())
        .map(|(name, choices)| format!("        {name}) values=\"{choices}\" ;;\n"))
        .collect();
    let names = names();
    // Where it says for which program which function is asked.
    let script = script
        .replace(&format!("complete -F _{function} "), &format!("complete -F _{function}_words "))
        .replace(&format!("-o default {function}\n"), &format!("-o default {}\n", PROGRAM.name));
    script
        + &format!(
            r#"
_{function}_words() {{
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

/// In zsh too: they are offered here, and those that stand there already are hidden from clap's script, to which they would be commands.
fn zsh(script: &str) -> String {
    const BEGIN: &str = "    local context curcontext=\"$curcontext\" state line\n";
    let (names, typed) = (names(), every_typed());
    let more = format!(
        r#"    if [[ "$PREFIX" != -* && "$words[CURRENT-1]" != --* && ! " $words " == *" "(help|completions|--)" "* ]]; then
        compadd -- {typed} && ret=0
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

/// `state= id= …`.
fn names() -> String {
    TABLE.iter().map(|info| format!("{}=", info.name)).collect::<Vec<_>>().join(" ")
}

/// `state=present state=absent …`.
fn every_typed() -> String {
    TABLE.iter().flat_map(typed).collect::<Vec<_>>().join(" ")
}

/// clap's script for fish knows flags and commands only.
fn fish(script: &str) -> String {
    format!("{script}complete -c {} -f -a '{} {}'\n", PROGRAM.name, names(), every_typed())
}

/// The manual page.
fn page() -> std::io::Result<String> {
    let mut flat = clap::Command::new(PROGRAM.name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(PURPOSE)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(every_flag());
    flat.build();
    let man = Man::new(flat).manual("Consul sessions");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;

    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    let name = PROGRAM.name;
    page.text([bold(name), roman(" [--FLAG]... [OPTION=VALUE | --OPTION VALUE]... [-]")]);
    for command in PROGRAM.commands {
        page.control("br", []);
        let typed = usage(&PROGRAM, command);
        page.text([bold(name), roman(typed.strip_prefix(name).unwrap_or(&typed))]);
    }
    page.control("br", []);
    page.text([bold(name), roman(" help [OPTION | COMMAND]")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(PURPOSE)]);
    page.control("PP", []);
    page.text([roman(
        "An option is written NAME=VALUE, with _ in its name, or --NAME VALUE as below. A boolean one may stand alone.",
    )]);
    page.control("TP", []);
    page.text([bold(INPUT.0)]);
    page.text([roman(INPUT.1)]);
    page.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;

    let mut page = Roff::new();
    page.control("SH", ["COMMANDS"]);
    for command in PROGRAM.commands {
        page.control("TP", []);
        page.text([bold(command.args.iter().fold(command.name.to_owned(), |typed, word| typed + " " + word))]);
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
    page.text([roman("Each counts for what is not typed.")]);
    for (variable, help) in environment(&PROGRAM) {
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
