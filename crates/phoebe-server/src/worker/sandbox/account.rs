//! The account that workers change to where the server runs as root.

use phoebe_protocol::packet::Account;
use rustix::process::geteuid;
use thiserror::Error;
use uzers::{get_user_by_name, get_user_by_uid};

/// Why workers cannot change to the account of the settings.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AccountError {
    /// Nobody is called so.
    #[error(
        "[worker] user = \"{0}\": there is no such user. Make one, for example \
         with `useradd --system {0}`"
    )]
    Unknown(String),
    /// Workers would be root.
    #[error(
        "[worker] user = \"{0}\" is root, which is what workers shall not be: name another user"
    )]
    Root(String),
    /// The server is not root.
    #[error(
        "[worker] user = \"{0}\": only root can change to another user. Start the \
         server as root, or as that user and with user = \"\""
    )]
    NotPermitted(String),
}

/// The account called `user`, by name or number; none where it is empty.
pub(super) fn find(user: &str) -> Result<Option<Account>, AccountError> {
    if user.is_empty() {
        return Ok(None);
    }
    let named = || user.to_owned();
    let found = match user.parse() {
        Ok(uid) => get_user_by_uid(uid),
        Err(_) => get_user_by_name(user),
    };
    let found = found.ok_or_else(|| AccountError::Unknown(named()))?;
    if found.uid() == 0 {
        return Err(AccountError::Root(named()));
    }
    if !geteuid().is_root() {
        return Err(AccountError::NotPermitted(named()));
    }
    Ok(Some(Account { uid: found.uid(), gid: found.primary_group_id() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_setting_names_no_account() {
        assert_eq!(find(""), Ok(None));
    }

    #[test]
    fn an_unknown_user_and_root_are_refused() {
        assert_eq!(find("no-such-user"), Err(AccountError::Unknown("no-such-user".to_owned())));
        assert_eq!(find("root"), Err(AccountError::Root("root".to_owned())));
        assert_eq!(find("0"), Err(AccountError::Root("0".to_owned())));
    }
}
