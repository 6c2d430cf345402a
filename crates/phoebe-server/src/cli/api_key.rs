//! `phoebe-server api-key`: API keys of users, also while a server runs, which follows within
//! seconds.

use clap::Subcommand;
use rusqlite::Connection;

use super::user::{accounts, deed, named, table};
use super::{Failure, print};
use crate::auth::{Identity, KeyRequest, api_key};
use crate::config::{AuthMode, Settings};
use crate::store::{ApiKey, Holder, QueryError, StoreError, api_keys, audit};

/// Arguments of `api-key`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an API key for a user, and print it: this once
    #[command(after_help = "Examples:
  phoebe-server api-key create --user ada@uni.edu --name notebook --days 120")]
    Create {
        /// E-mail address of the account
        #[arg(long, value_name = "EMAIL")]
        user: String,
        /// To tell it from others
        #[arg(long)]
        name: String,
        /// Days until it expires; never where none are given
        #[arg(long)]
        days: Option<u32>,
    },
    /// List API keys, without their secrets
    List {
        /// Only those of this user: e-mail address, or in mode external the id
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Revoke an API key: it stops within seconds
    #[command(after_help = "Examples:
  phoebe-server api-key revoke phk_3f9a1c2b7d4e
  phoebe-server api-key revoke --user ada@uni.edu      all of a user's keys")]
    Revoke {
        /// The beginning of the key, as `list` shows it
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        prefix: Option<String>,
        /// All keys of this user: e-mail address, or in mode external the id
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
}

/// Does what is asked.
pub(super) fn execute(arguments: Arguments, settings: &Settings) -> Result<(), Failure> {
    let mode = if settings.auth.mode == AuthMode::External { "external" } else { "jwt" };
    match arguments.command {
        Command::Create { user, name, days } => {
            if mode == "external" {
                let text = "in mode external the server knows no users; they make their keys \
                            themselves: POST /v1/api-keys";
                return Err(Failure::Failed(text.to_owned()));
            }
            create(&user, KeyRequest { name, days }, settings)
        }
        Command::List { user } => list(mode, user.as_deref(), settings),
        Command::Revoke { prefix: Some(prefix), .. } => revoke(&prefix, settings),
        Command::Revoke { user, .. } => revoke_all(mode, &user.unwrap_or_default(), settings),
    }
}

fn create(user: &str, wish: KeyRequest, settings: &Settings) -> Result<(), Failure> {
    let mut accounts = accounts(settings)?;
    let user = accounts.change(|change| named(change, user)).map_err(Failure::failed)?;
    let holder = Holder::of("jwt", &Identity::from(&user));
    let (key, text) = wish.create(holder).map_err(Failure::failed)?;
    let kept = accounts.change(|change| {
        let kept = api_keys::insert(change, &key, api_key::MOST_KEYS)?;
        if kept.is_some() {
            audit::record(change, &deed("api-key.create", &key.prefix, &user.email))?;
        }
        Ok(kept.is_some())
    });
    if !kept.map_err(Failure::failed)? {
        let text = format!("{} has {} keys, which is the limit", user.email, api_key::MOST_KEYS);
        return Err(Failure::Failed(format!("{text}; revoke one first")));
    }
    eprintln!("The key of {}, told this once:", user.email);
    print(&format!("{text}\n"))
}

fn list(mode: &'static str, user: Option<&str>, settings: &Settings) -> Result<(), Failure> {
    let keys = accounts(settings)?.change(|change| match user {
        Some(user) => of_user(change, mode, user),
        None => Ok(api_keys::all(change, mode)?),
    });
    let heads = ["PREFIX", "USER", "NAME", "MADE", "EXPIRES", "LAST USED"].map(str::to_owned);
    let rows = keys.map_err(Failure::failed)?.into_iter().map(|key| {
        let never = || "never".to_owned();
        [
            key.prefix,
            Some(key.holder.email).filter(|email| !email.is_empty()).unwrap_or(key.holder.user_id),
            key.name,
            day(key.created_at),
            key.expires_at.map_or_else(never, day),
            key.last_used_at.map_or_else(never, day),
        ]
    });
    print(&table(&std::iter::once(heads).chain(rows).collect::<Vec<_>>()))
}

fn revoke(prefix: &str, settings: &Settings) -> Result<(), Failure> {
    let revoked = accounts(settings)?.change(|change| {
        let key = api_keys::by_prefix(change, prefix.trim())?;
        if let Some(key) = &key {
            end(change, key)?;
        }
        Ok(key)
    });
    match revoked.map_err(Failure::failed)? {
        Some(key) => print(&format!("{} of {} is revoked.\n", key.prefix, key.holder.email)),
        None => {
            // What was typed may be a whole key.
            let text = "no key in force begins so; `phoebe-server api-key list` shows the prefixes";
            Err(Failure::Failed(text.to_owned()))
        }
    }
}

fn revoke_all(mode: &'static str, user: &str, settings: &Settings) -> Result<(), Failure> {
    let revoked = accounts(settings)?.change(|change| {
        let keys = of_user(change, mode, user)?;
        keys.iter().try_for_each(|key| end(change, key))?;
        Ok(keys.len())
    });
    print(&format!("{} keys of {user} are revoked.\n", revoked.map_err(Failure::failed)?))
}

fn end(connection: &Connection, key: &ApiKey) -> Result<(), QueryError> {
    api_keys::revoke(connection, key.id)?;
    audit::record(connection, &deed("api-key.revoke", &key.prefix, &key.holder.email))?;
    Ok(())
}

/// The keys of a user, who must be there where the server knows its users.
fn of_user(
    connection: &Connection,
    mode: &'static str,
    user: &str,
) -> Result<Vec<ApiKey>, QueryError> {
    if mode == "jwt" {
        let id = named(connection, user)?.id.to_string();
        return Ok(api_keys::of_user(connection, mode, &id)?);
    }
    let keys = api_keys::all(connection, mode)?.into_iter();
    let keys: Vec<_> =
        keys.filter(|key| key.holder.user_id == user || key.holder.email == user).collect();
    if keys.is_empty() { Err(StoreError::NoUser(user.to_owned()).into()) } else { Ok(keys) }
}

/// `2026-01-31`, in UTC.
fn day(seconds: f64) -> String {
    let query = "SELECT date(?1, 'unixepoch')";
    let day = Connection::open_in_memory()
        .and_then(|connection| connection.query_row(query, [seconds], |row| row.get(0)));
    day.unwrap_or_else(|_| "?".to_owned())
}
