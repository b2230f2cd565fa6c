//! `completions` and `man`: shell completions and the manual pages, made by clap's own generators
//! from the definition that parses the command line.

use clap_complete::Shell;
use consul_session::error::{Error, ErrorKind};
use consul_session_args::flags::{Completions, Man};
use consul_session_args::help::command_line;
use consul_session_args::{Format, Invocation, Output, Program};
use std::io;
use std::path::Path;
use std::str::FromStr;

/// Runs `completions SHELL`.
pub fn completions(args: &Completions, invocation: &Invocation) -> Result<Output, Error> {
    invocation.accept(&[Format::Table], "completions")?;
    let shell = Shell::from_str(&args.shell).map_err(|error| Error::invalid("arguments", error))?;
    let mut command = command_line();
    if shell == Shell::Bash {
        // clap_complete 4.6.12 looks for a command under this name if the program's has a `-`.
        command = command.mut_subcommands(|sub| {
            let name = format!("{} {}", Program::NAME.replace('-', "__"), sub.get_name());
            sub.bin_name(name)
        });
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, Program::NAME, &mut script);
    Ok(Output::text(String::from_utf8_lossy(&script).into_owned()))
}

/// Runs `man`.
pub fn man(args: &Man, invocation: &Invocation) -> Result<Output, Error> {
    invocation.accept(&[Format::Table], "man")?;
    match &args.to {
        Some(folder) => {
            pages(folder).map_err(|error| Error::new(ErrorKind::Other, format!("{}: {error}", folder.display())))?;
            Ok(Output::text(String::new()))
        }
        None => {
            let mut page = Vec::new();
            let written = clap_mangen::Man::new(command_line()).render(&mut page);
            written.map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?;
            Ok(Output::text(String::from_utf8_lossy(&page).into_owned()))
        }
    }
}

/// Writes a page for the program and for each command.
fn pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command_line(), folder)
}
