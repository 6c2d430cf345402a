//! The command line: arguments to calls, errors to exit codes. Each command has a file of its own;
//! what they do is done elsewhere.

mod api_key;
mod backup;
mod cleanup;
mod completions;
mod config;
mod doctor;
mod environment;
mod export_session;
mod failure;
mod generate_key;
mod import_session;
pub mod init_db;
mod namesake;
mod passbands;
mod restore;
mod run;
mod user;
mod wiring;

pub use failure::Failure;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Flag, Resolved, Settings, Sources};

/// PHOEBE sessions over HTTP: every user gets an own, isolated PHOEBE Bundle.
#[derive(Debug, Parser)]
#[command(name = "phoebe-server", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Examples:
  phoebe-server run                      start on http://127.0.0.1:8001
  phoebe-server run --port 9000          the same on another port
  phoebe-server config                   show the settings in force and where they come from
  phoebe-server doctor                   check this machine, and say what to do

PHOEBE's Python package installs a script of this name too, for PHOEBE's own desktop and web
clients. `phoebe-server doctor` says which of both this shell starts.")]
struct Cli {
    /// Settings file [default: the first that exists of $PHOEBE_SERVER_CONFIG, ./config.toml,
    /// ~/.config/phoebe-server/config.toml, /etc/phoebe-server/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server, and stop it with Ctrl-C
    ///
    /// The first start makes a private Python environment with PHOEBE, which takes a few minutes;
    /// later starts reuse it. Flags win over the environment (PHOEBE_SERVER__SECTION__KEY), which
    /// wins over the settings file.
    Run(run::Arguments),
    /// Create the database of sessions and users
    ///
    /// `run` does so too. Of an existing database a copy is kept, after a question.
    InitDb(InitDbArguments),
    /// Make, list and change accounts, one by one or a class at once
    User(user::Arguments),
    /// Make, list and revoke API keys of users
    ApiKey(api_key::Arguments),
    /// Write all sessions and the database to one file, also while the server runs
    ///
    /// What was acknowledged before it began is in it. It holds the users' password hashes: keep it
    /// as well as the data directory.
    Backup(backup::Target),
    /// Bring a backup back, into a data directory that no server uses
    ///
    /// The file is checked whole before anything changes.
    Restore(restore::Arguments),
    /// Write one session to a file, also while the server runs
    ExportSession(export_session::Arguments),
    /// Bring a session from a file into a data directory that no server uses, and print its id
    ///
    /// It keeps its id and its owner, or gets a new id if its own is taken. Bundles can hold code:
    /// it is opened by a session's worker only.
    ImportSession(import_session::Arguments),
    /// List, install and remove passbands, also while the server runs
    Passbands(passbands::Arguments),
    /// Make a random API key or secret
    ///
    /// Prints PREFIX_ and 64 random hexadecimal digits, for [auth] api_keys or jwt_secret_key.
    GenerateKey(generate_key::Arguments),
    /// Show the settings in force and where each came from
    ///
    /// Prints TOML with a comment on where each value came from. Secrets are masked.
    Config(config::Arguments),
    /// End worker processes that a server left behind
    Cleanup,
    /// Check settings, Python, PHOEBE, ports, data directory and kernel, and say what to do
    ///
    /// Each line says ok, warning or failed. What is wrong with the settings is told as a finding,
    /// and everything else is checked all the same. Exit code 1 if anything failed. Nothing is
    /// changed.
    Doctor,
    /// Make the private Python environment now, and print its interpreter
    ///
    /// `run` does so too. Of use where a machine is prepared before the server is started on it.
    Environment,
    /// Print completions for a shell
    ///
    /// Load them in the shell's start file, or save them where the shell looks for completions.
    Completions(completions::Arguments),
}

/// Arguments of `init-db`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  phoebe-server init-db
  phoebe-server init-db --force          keep a copy of an existing database, make a new one")]
struct InitDbArguments {
    /// Do not ask: put an existing database aside, as a copy, and make a new one
    #[arg(long)]
    force: bool,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Err(failure) = namesake::refuse_its_call(&arguments) {
        return failure.report();
    }
    let cli = Cli::parse();
    match cli.command.execute(cli.config) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

impl Command {
    fn execute(self, file: Option<PathBuf>) -> Result<ExitCode, Failure> {
        match self {
            Self::Run(arguments) => {
                run::execute(Sources::of_process(file, arguments.flags()))?;
            }
            Self::InitDb(arguments) => wiring::init_db(&values(file)?, arguments.force)?,
            Self::User(arguments) => user::execute(arguments, &values(file)?)?,
            Self::ApiKey(arguments) => api_key::execute(arguments, &values(file)?)?,
            Self::Backup(target) => backup::execute(&target, &values(file)?)?,
            Self::Restore(arguments) => restore::execute(&arguments, &values(file)?)?,
            Self::ExportSession(arguments) => export_session::execute(&arguments, &values(file)?)?,
            Self::ImportSession(arguments) => import_session::execute(&arguments, &values(file)?)?,
            Self::Passbands(arguments) => passbands::execute(arguments, &values(file)?)?,
            Self::GenerateKey(arguments) => generate_key::execute(&arguments)?,
            Self::Config(arguments) => {
                config::execute(&arguments, || settings(file, Vec::new()))?;
            }
            Self::Cleanup => cleanup::execute(&values(file)?)?,
            Self::Doctor => {
                let sources = Sources::of_process(file, Vec::new());
                let (resolved, errors) = crate::config::load_lenient(&sources);
                return doctor::execute(&resolved, &errors);
            }
            Self::Environment => environment::execute(&values(file)?)?,
            Self::Completions(arguments) => completions::execute(&arguments)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn settings(file: Option<PathBuf>, flags: Vec<Flag>) -> Result<Resolved, Failure> {
    Ok(crate::config::load(&Sources::of_process(file, flags))?)
}

/// The settings for a command that needs some of them: the server's secrets may be for the server
/// alone.
fn values(file: Option<PathBuf>) -> Result<Settings, Failure> {
    Ok(crate::config::load_values(&Sources::of_process(file, Vec::new()))?.settings)
}

/// Writes `text` to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
