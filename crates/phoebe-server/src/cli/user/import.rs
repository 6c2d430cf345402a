//! A class at once: all accounts of a roster or none.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;

use super::roster::{self, Person};
use super::{Import, accounts, deed, group_name, passwords};
use crate::auth::Role;
use crate::auth::password::hash_now;
use crate::auth::registration::Rules;
use crate::cli::{Failure, print};
use crate::config::Settings;
use crate::store::{NewUser, QueryError, StoreError, audit, groups, users};

/// A person and what becomes of them.
struct Planned {
    person: Person,
    /// The password of a new account; none for one that is there already.
    password: Option<String>,
    hash: String,
}

/// Imports a roster.
pub(super) fn run(import: &Import, settings: &Settings) -> Result<(), Failure> {
    let rules = Rules::of(&settings.auth);
    let common: Vec<&str> = import
        .groups
        .iter()
        .map(|group| group_name(group))
        .collect::<Result<_, _>>()
        .map_err(Failure::Usage)?;
    let mut people = roster::read(&import.file, &rules)?;
    for person in &mut people {
        person.groups.extend(common.iter().map(|group| (*group).to_owned()));
    }
    let mut accounts = accounts(settings)?;
    let planned = accounts.change(|change| Ok(plan(change, people, &rules)?));
    let mut planned = planned.map_err(Failure::failed)?.map_err(|problems| {
        Failure::Failed(format!("nothing was imported:\n{}", problems.join("\n")))
    })?;
    if import.dry_run {
        report(&planned, "would be made");
        return Ok(());
    }
    hash_all(&mut planned)?;
    let made: Vec<&Planned> = planned
        .iter()
        .filter(|plan| plan.person.password.is_none() && plan.password.is_some())
        .collect();
    let list = password_list(&made)?;
    let file = import.passwords.as_deref().filter(|_| !made.is_empty());
    file.map_or(Ok(()), |path| write_passwords(path, &list))?;
    let done =
        accounts.change(|change| planned.iter().try_for_each(|plan| carry_out(change, plan)));
    if let Err(error) = done {
        // What it holds opens nothing.
        file.map(std::fs::remove_file);
        return Err(Failure::failed(format!("nothing was imported: {error}")));
    }
    report(&planned, "made");
    match file {
        Some(path) => {
            eprintln!("The passwords are in {}, once: nobody can read them again.", path.display())
        }
        None if !made.is_empty() => print(&list)?,
        None => {}
    }
    Ok(())
}

/// What becomes of each person, or why nothing can.
fn plan(
    connection: &Connection,
    people: Vec<Person>,
    rules: &Rules,
) -> rusqlite::Result<Result<Vec<Planned>, Vec<String>>> {
    let mut planned = Vec::new();
    let mut problems = Vec::new();
    for person in people {
        let password = match users::by_email(connection, &person.email)? {
            None => Some(person.password.clone().unwrap_or_else(|| passwords::generate(rules))),
            Some(user) => {
                let role = Role::or_student(&user.role);
                if let Some(wanted) = person.role.filter(|wanted| *wanted != role) {
                    problems.push(format!(
                        "line {}: {} has an account as {role}, not {wanted}; change it with \
                         `user set-role`",
                        person.line, person.email
                    ));
                }
                None
            }
        };
        planned.push(Planned { person, password, hash: String::new() });
    }
    Ok(if problems.is_empty() { Ok(planned) } else { Err(problems) })
}

/// Hashes the passwords on all cores: each takes a quarter of a second.
fn hash_all(planned: &mut [Planned]) -> Result<(), Failure> {
    let total = planned.iter().filter(|plan| plan.password.is_some()).count();
    if total > 20 {
        eprintln!("Hashing {total} passwords …");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let failures = AtomicUsize::new(0);
    let share = planned.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        for part in planned.chunks_mut(share) {
            scope.spawn(|| {
                for plan in part {
                    let Some(password) = &plan.password else { continue };
                    match hash_now(password) {
                        Ok(hash) => plan.hash = hash,
                        Err(_) => drop(failures.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    match failures.into_inner() {
        0 => Ok(()),
        count => Err(Failure::failed(format!("{count} passwords could not be hashed"))),
    }
}

fn carry_out(connection: &Connection, plan: &Planned) -> Result<(), QueryError> {
    let person = &plan.person;
    let user = match (&plan.password, users::by_email(connection, &person.email)?) {
        (None, Some(user)) => user,
        // Somebody was quicker; or deleted the account.
        (None, None) => return Err(StoreError::NoUser(person.email.clone()).into()),
        (Some(_), Some(_)) => return Err(StoreError::EmailTaken.into()),
        (Some(_), None) => {
            let user = NewUser {
                email: person.email.clone(),
                hashed_password: plan.hash.clone(),
                first_name: person.first_name.clone(),
                last_name: person.last_name.clone(),
                role: person.role.unwrap_or_default().to_string(),
            };
            users::create(connection, user)?
        }
    };
    for group in &person.groups {
        groups::join(connection, user.id, group)?;
    }
    let detail = format!("groups {:?}", person.groups);
    let is_new = plan.password.is_some();
    let action = if is_new { "user.import" } else { "group.join" };
    audit::record(connection, &deed(action, &user.email, detail))?;
    Ok(())
}

/// Says what became of each line.
fn report(planned: &[Planned], made: &str) {
    for Planned { person, password, .. } in planned {
        let role = person.role.unwrap_or_default();
        let what = match password {
            Some(_) => format!("{made}, {role}"),
            None => "has an account, which stays".to_owned(),
        };
        let groups: Vec<&str> = person.groups.iter().map(String::as_str).collect();
        let groups =
            if groups.is_empty() { String::new() } else { format!(", in {}", groups.join(" | ")) };
        eprintln!("line {}: {} {what}{groups}", person.line, person.email);
    }
    let new = planned.iter().filter(|plan| plan.password.is_some()).count();
    eprintln!("{new} accounts {made}, {} there already", planned.len() - new);
}

fn password_list(made: &[&Planned]) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |row: [&str; 4]| writer.write_record(row).map_err(Failure::failed);
    write(["email", "first_name", "last_name", "password"])?;
    for Planned { person, password, .. } in made {
        let password = password.as_deref().unwrap_or_default();
        write([&person.email, &person.first_name, &person.last_name, password])?;
    }
    let bytes = writer.into_inner().map_err(Failure::failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A new file, for its user alone.
fn write_passwords(path: &Path, list: &str) -> Result<(), Failure> {
    let write = |mut file: File| file.write_all(list.as_bytes()).and_then(|()| file.sync_all());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(write).map_err(|error| {
        Failure::failed(format!(
            "nothing was imported: the passwords cannot be written to {}: {error}",
            path.display()
        ))
    })
}
