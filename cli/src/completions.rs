//! `tomograd completions SHELL` and `tomograd man [COMMAND]`.

use std::io::{Write, stdout};

use clap::CommandFactory;
use tomograd::{Error, Result};

use crate::{Arguments, Failure};

/// Prints what a shell needs to complete arguments.
pub(crate) fn shell(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tomograd", &mut text);
    print(&text)
}

/// Prints the manual page of the program, or of a command, in the language of `man`.
pub(crate) fn manual(command: Option<&str>) -> Result<(), Failure> {
    let mut program = Arguments::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
            Failure::CommandLine(
                Error::argument("man", format!("no command {name:?}")).expected(format!("one of {}", known.join(", "))),
            )
        })?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|error| Error::io("man", "the page", error))?;
    Ok(print(&text)?)
}

/// A reader that has gone (`tomograd man | head`) isn't an error.
fn print(text: &[u8]) -> Result<()> {
    match stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", "standard output", error))
        }
        _ => Ok(()),
    }
}
