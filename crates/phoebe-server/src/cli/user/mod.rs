//! `phoebe-server user`: accounts, also while a server runs, which follows within seconds. What is
//! done is written to the audit log with it.

mod change;
mod import;
mod list;
mod passwords;
mod roster;

pub(super) use list::table;

use std::path::PathBuf;

use clap::Subcommand;

use super::Failure;
use crate::auth::Role;
use crate::config::Settings;
use crate::store::{Accounts, AuditEntry, QueryError, User, users};

/// Arguments of `user`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an account
    ///
    /// Asks for the password, or reads it from the first line of standard input where that is no
    /// terminal.
    #[command(after_help = "Examples:
  phoebe-server user add ada@uni.edu --first-name Ada --last-name Lovelace --group stars2026
  phoebe-server user add prof@uni.edu --role instructor --group stars2026 --generate-password")]
    Add(Add),
    /// List accounts
    List(List),
    /// Keep accounts out: their tokens and API keys stop within seconds
    Disable {
        /// E-mail addresses of the accounts
        #[arg(required = true, value_name = "EMAIL")]
        emails: Vec<String>,
    },
    /// Let accounts in again
    Enable {
        /// E-mail addresses of the accounts
        #[arg(required = true, value_name = "EMAIL")]
        emails: Vec<String>,
    },
    /// Change an account's role
    SetRole {
        /// E-mail address of the account
        email: String,
        /// What it may do
        role: Role,
    },
    /// Change an account's password
    ///
    /// Asks for it, or reads it from the first line of standard input where that is no terminal.
    /// Tokens that were given before stay good until they expire; `user disable` ends them at once.
    SetPassword {
        /// E-mail address of the account
        email: String,
        /// Make a random password, and print it
        #[arg(long)]
        generate_password: bool,
    },
    /// Put accounts into a group
    Join {
        /// The group, as a course
        group: String,
        /// E-mail addresses of the accounts
        #[arg(required = true, value_name = "EMAIL")]
        emails: Vec<String>,
    },
    /// Take accounts out of a group
    Leave {
        /// The group
        group: String,
        /// E-mail addresses of the accounts
        #[arg(required = true, value_name = "EMAIL")]
        emails: Vec<String>,
    },
    /// Make the accounts of a class from a CSV file: all or none
    ///
    /// The first line names the columns: `email`, and any of `first_name`, `last_name`, `role`,
    /// `group` (several are separated by `|`) and `password`. Passwords that are not given are
    /// made. Accounts that are there already keep their password, and join the groups.
    #[command(after_help = "Examples:
  phoebe-server user import roster.csv --dry-run
  phoebe-server user import roster.csv --group stars2026 --passwords passwords.csv")]
    Import(Import),
}

#[derive(Debug, clap::Args)]
struct Add {
    /// E-mail address, the account's name
    email: String,
    #[arg(long, value_name = "NAME", default_value = "")]
    first_name: String,
    #[arg(long, value_name = "NAME", default_value = "")]
    last_name: String,
    /// What it may do
    #[arg(long, default_value = "student")]
    role: Role,
    /// A group, as a course; may be given more than once
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Make a random password, and print it
    #[arg(long)]
    generate_password: bool,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only accounts of this group
    #[arg(long)]
    group: Option<String>,
    /// Only accounts of this role
    #[arg(long)]
    role: Option<Role>,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// The CSV file
    file: PathBuf,
    /// A group for all of them; may be given more than once
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Write passwords that are made to this new file, for you alone to read, and not to standard
    /// output
    #[arg(long, value_name = "FILE")]
    passwords: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Does what is asked.
pub(super) fn execute(arguments: Arguments, settings: &Settings) -> Result<(), Failure> {
    match arguments.command {
        Command::Add(add) => change::add(add, settings),
        Command::List(list) => list::print_accounts(&list, settings),
        Command::Disable { emails } => change::set_active(&emails, false, settings),
        Command::Enable { emails } => change::set_active(&emails, true, settings),
        Command::SetRole { email, role } => change::set_role(&email, role, settings),
        Command::SetPassword { email, generate_password } => {
            change::set_password(&email, generate_password, settings)
        }
        Command::Join { group, emails } => change::join(&group, &emails, settings),
        Command::Leave { group, emails } => change::leave(&group, &emails, settings),
        Command::Import(import) => import::run(&import, settings),
    }
}

/// The accounts of the settings' database.
pub(super) fn accounts(settings: &Settings) -> Result<Accounts, Failure> {
    Accounts::open(&settings.database.path).map_err(Failure::failed)
}

/// The account with this address; upper and lower case count the same.
pub(super) fn named(connection: &rusqlite::Connection, email: &str) -> Result<User, QueryError> {
    users::by_email(connection, email.trim())?
        .ok_or_else(|| crate::store::StoreError::NoUser(email.trim().to_owned()).into())
}

/// Something that was done here, for the audit log.
pub(super) fn deed(action: &'static str, subject: &str, detail: impl Into<String>) -> AuditEntry {
    let actor = format!("command line, uid {}", rustix::process::getuid().as_raw());
    AuditEntry { actor, action, subject: subject.to_owned(), detail: detail.into() }
}

/// The name of a group without blanks around it.
fn group_name(group: &str) -> Result<&str, String> {
    let group = group.trim();
    if group.is_empty() || group.chars().count() > 100 || group.contains(char::is_control) {
        return Err(format!("{group:?} is no name for a group: 1 to 100 characters are"));
    }
    Ok(group)
}
