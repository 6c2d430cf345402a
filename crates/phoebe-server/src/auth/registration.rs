//! Who may make an account, and of what. Accounts that an administrator makes obey the same rules
//! on e-mail and password.

use super::error::AuthError;
use crate::config::{AuthSettings, RegistrationPolicy};

/// What somebody gives to get an account.
#[derive(Debug)]
pub struct Registration {
    /// E-mail address, the account's name.
    pub email: String,
    /// Password in clear.
    pub password: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
}

/// The rules of the settings.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    is_open: bool,
    domains: Vec<String>,
    min_password_length: usize,
}

impl Rules {
    pub(crate) fn of(settings: &AuthSettings) -> Self {
        let domain = |domain: &String| domain.trim().trim_start_matches('@').to_lowercase();
        Self {
            is_open: settings.registration == RegistrationPolicy::Open,
            domains: settings.registration_domains.iter().map(domain).collect(),
            min_password_length: settings.min_password_length,
        }
    }

    /// Least number of characters of a password.
    pub(crate) fn min_password_length(&self) -> usize {
        self.min_password_length
    }

    /// Whether somebody may make an account of this for themself.
    pub(super) fn check(&self, wish: &Registration) -> Result<(), AuthError> {
        if !self.is_open {
            return Err(AuthError::RegistrationClosed);
        }
        if wish.email.is_empty() || wish.password.is_empty() {
            return Err(bad("Email and password are required"));
        }
        check_email(&wish.email)?;
        self.check_password(&wish.password)?;
        let domain = wish.email.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
        if self.domains.is_empty() || domain.is_some_and(|domain| self.domains.contains(&domain)) {
            return Ok(());
        }
        Err(AuthError::ForeignDomain(self.domains.join(", ")))
    }

    /// Whether a password may be anybody's.
    pub(crate) fn check_password(&self, password: &str) -> Result<(), AuthError> {
        let least = self.min_password_length;
        if password.is_empty() {
            return Err(bad("The password is empty; choose one"));
        }
        if password.chars().count() < least {
            let text =
                format!("The password is shorter than {least} characters; choose a longer one");
            return Err(AuthError::BadCredentials(text));
        }
        if password.len() > MOST_PASSWORD_BYTES {
            return Err(bad("The password is longer than 1024 bytes; choose a shorter one"));
        }
        if password.contains('\0') {
            return Err(bad("The password contains a NUL character; choose another one"));
        }
        Ok(())
    }
}

/// No person types more.
const MOST_PASSWORD_BYTES: usize = 1024;

/// Whether an account may have this name.
pub(crate) fn check_email(email: &str) -> Result<(), AuthError> {
    if email.len() > 320 {
        return Err(bad("The email is longer than 320 bytes"));
    }
    if email.chars().any(char::is_control) {
        return Err(bad("The email contains a control character"));
    }
    Ok(())
}

fn bad(text: &str) -> AuthError {
    AuthError::BadCredentials(text.to_owned())
}
