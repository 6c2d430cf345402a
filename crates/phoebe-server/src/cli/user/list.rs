//! Accounts as a table.

use super::{List, accounts};
use crate::auth::{Identity, Role};
use crate::cli::{Failure, print};
use crate::config::Settings;
use crate::store::snapshots::usage_by_user;
use crate::store::{DataDirectory, groups, users};

/// Prints the accounts that are asked for.
pub(super) fn print_accounts(list: &List, settings: &Settings) -> Result<(), Failure> {
    let read = accounts(settings)?.change(|change| Ok((users::all(change)?, groups::all(change)?)));
    let (users, groups) = read.map_err(Failure::failed)?;
    let root = DataDirectory::peek(&settings.database.path).map_err(Failure::failed)?;
    let disk = usage_by_user(root.root()).map_err(Failure::failed)?;
    let mut rows = vec![["E-MAIL", "NAME", "ROLE", "GROUPS", "DISK", ""].map(str::to_owned)];
    for user in users {
        let joined = groups.get(&user.id).cloned().unwrap_or_default();
        let role = Role::or_student(&user.role);
        let taken = disk.get(&Some(Identity::from(&user).user_id)).map_or(0, |(bytes, _)| *bytes);
        let is_wanted = list.role.is_none_or(|wanted| wanted == role)
            && list.group.as_ref().is_none_or(|wanted| {
                joined.iter().any(|group| group.eq_ignore_ascii_case(wanted.trim()))
            });
        if is_wanted {
            rows.push([
                user.email,
                format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
                role.to_string(),
                joined.into_iter().collect::<Vec<_>>().join(" | "),
                format!("{} MiB", taken.div_ceil(1 << 20)),
                if user.is_active { "" } else { "disabled" }.to_owned(),
            ]);
        }
    }
    let count = rows.len() - 1;
    print(&table(&rows))?;
    eprintln!("{count} account{}", if count == 1 { "" } else { "s" });
    Ok(())
}

/// Columns below each other, whatever the terminal would make of the text in them.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let clean = |cell: &String| cell.replace(char::is_control, "?");
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", clean(cell)));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
