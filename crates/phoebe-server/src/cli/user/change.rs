//! Changes of single accounts.

use rusqlite::Connection;

use super::{Add, accounts, deed, group_name, named, passwords};
use crate::auth::Role;
use crate::auth::password::hash_now;
use crate::auth::registration::{Rules, check_email};
use crate::cli::{Failure, print};
use crate::config::Settings;
use crate::store::{NewUser, audit, groups, users};

/// Makes one account.
pub(super) fn add(add: Add, settings: &Settings) -> Result<(), Failure> {
    let email = add.email.trim().to_owned();
    if email.is_empty() {
        return Err(Failure::Usage("an account needs an e-mail address".to_owned()));
    }
    check_email(&email).map_err(Failure::failed)?;
    let groups: Vec<&str> = add
        .groups
        .iter()
        .map(|group| group_name(group))
        .collect::<Result<_, _>>()
        .map_err(Failure::Usage)?;
    let mut accounts = accounts(settings)?;
    let is_taken = accounts.change(|change| Ok(users::by_email(change, &email)?.is_some()));
    if is_taken.map_err(Failure::failed)? {
        return Err(Failure::Failed(format!("there is an account {email} already")));
    }
    let (password, hashed_password) = new_password(add.generate_password, settings)?;
    let user = NewUser {
        email: email.clone(),
        hashed_password,
        first_name: add.first_name,
        last_name: add.last_name,
        role: add.role.to_string(),
    };
    let made = accounts.change(|change| {
        let user = users::create(change, user)?;
        for group in &groups {
            groups::join(change, user.id, group)?;
        }
        let detail = format!("role {}, groups {groups:?}", add.role);
        audit::record(change, &deed("user.add", &email, detail))?;
        Ok(())
    });
    made.map_err(Failure::failed)?;
    eprintln!("Made the account {email}, {}.", add.role);
    tell(password)
}

/// Lets accounts in, or keeps them out: all or none.
pub(super) fn set_active(
    emails: &[String],
    active: bool,
    settings: &Settings,
) -> Result<(), Failure> {
    let (action, word) =
        if active { ("user.enable", "enabled") } else { ("user.disable", "disabled") };
    change_each(emails, settings, action, "", |change, user| {
        users::set_active(change, user, active).map(drop)
    })?;
    emails.iter().try_for_each(|email| print(&format!("{email} is {word}.\n")))
}

/// Changes accounts and notes it in the audit log, all or none.
fn change_each(
    emails: &[String],
    settings: &Settings,
    action: &'static str,
    detail: &str,
    apply: impl Fn(&Connection, i64) -> rusqlite::Result<()>,
) -> Result<(), Failure> {
    let changed = accounts(settings)?.change(|change| {
        for email in emails {
            let user = named(change, email)?;
            apply(change, user.id)?;
            audit::record(change, &deed(action, &user.email, detail))?;
        }
        Ok(())
    });
    changed.map_err(Failure::failed)
}

/// Changes an account's role.
pub(super) fn set_role(email: &str, role: Role, settings: &Settings) -> Result<(), Failure> {
    let earlier = accounts(settings)?.change(|change| {
        let user = named(change, email)?;
        users::set_role(change, user.id, role.as_str())?;
        let detail = format!("{} to {role}", user.role);
        audit::record(change, &deed("user.set-role", &user.email, detail))?;
        Ok(user.role)
    });
    let earlier = earlier.map_err(Failure::failed)?;
    print(&format!("{email} is {role} now, and was {earlier}.\n"))
}

/// Changes an account's password.
pub(super) fn set_password(
    email: &str,
    generate: bool,
    settings: &Settings,
) -> Result<(), Failure> {
    let mut accounts = accounts(settings)?;
    accounts.change(|change| named(change, email)).map_err(Failure::failed)?;
    let (password, hash) = new_password(generate, settings)?;
    let changed = accounts.change(|change| {
        let user = named(change, email)?;
        users::set_password(change, user.id, &hash)?;
        audit::record(change, &deed("user.set-password", &user.email, ""))?;
        Ok(())
    });
    changed.map_err(Failure::failed)?;
    eprintln!("Changed the password of {email}.");
    tell(password)
}

/// Puts accounts into a group: all or none.
pub(super) fn join(group: &str, emails: &[String], settings: &Settings) -> Result<(), Failure> {
    let group = group_name(group).map_err(Failure::Usage)?;
    change_each(emails, settings, "group.join", group, |change, user| {
        groups::join(change, user, group).map(drop)
    })?;
    emails.iter().try_for_each(|email| print(&format!("{email} is in {group}.\n")))
}

/// Takes accounts out of a group: all or none.
pub(super) fn leave(group: &str, emails: &[String], settings: &Settings) -> Result<(), Failure> {
    let group = group_name(group).map_err(Failure::Usage)?;
    change_each(emails, settings, "group.leave", group, |change, user| {
        groups::leave(change, user, group).map(drop)
    })?;
    emails.iter().try_for_each(|email| print(&format!("{email} is not in {group}.\n")))
}

/// A password that was made, if that is wanted, and the hash of it or of the one that the user
/// gave.
fn new_password(generate: bool, settings: &Settings) -> Result<(Option<String>, String), Failure> {
    let rules = Rules::of(&settings.auth);
    let generated = generate.then(|| passwords::generate(&rules));
    let password = match &generated {
        Some(password) => password.clone(),
        None => passwords::ask(&rules)?,
    };
    let hash = hash_now(&password).map_err(Failure::failed)?;
    Ok((generated, hash))
}

/// Prints a password that was made; alone, so that a script can take it.
fn tell(password: Option<String>) -> Result<(), Failure> {
    password.map_or(Ok(()), |password| print(&format!("{password}\n")))
}
