//! Where passwords come from: typed without echo, read from standard input, or made. Never from an
//! argument, which other users of the machine can read.

use std::io::{BufRead as _, IsTerminal as _};

use crate::auth::registration::Rules;
use crate::cli::Failure;

/// Letters and digits that are not mistaken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters between two dashes.
const GROUP: usize = 4;
/// Characters of a password that is made: 60 random bits.
const LENGTH: usize = 3 * GROUP;

/// A new password from the user, which obeys the rules.
pub(super) fn ask(rules: &Rules) -> Result<String, Failure> {
    let password = if std::io::stdin().is_terminal() { typed()? } else { first_line()? };
    rules.check_password(&password).map_err(Failure::failed)?;
    Ok(password)
}

fn typed() -> Result<String, Failure> {
    let prompt = |text: &str| {
        rpassword::prompt_password(text)
            .map_err(|error| Failure::failed(format!("the password cannot be read: {error}")))
    };
    let password = prompt("New password: ")?;
    if prompt("The same again: ")? != password {
        return Err(Failure::Failed("the two passwords differ; nothing was changed".to_owned()));
    }
    Ok(password)
}

fn first_line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::failed(format!("the password cannot be read: {error}")))?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

/// A random password, at least as long as the rules ask for.
pub(super) fn generate(rules: &Rules) -> String {
    let length = LENGTH.max(rules.min_password_length());
    let random = || ALPHABET[usize::from(rand::random::<u8>() & 31)] as char;
    let mut password = String::new();
    for position in 0..length {
        if position > 0 && position % GROUP == 0 {
            password.push('-');
        }
        password.push(random());
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn passwords_that_are_made_obey_the_rules_and_differ() {
        let mut settings = Settings::default().auth;
        for least in [1, 40] {
            settings.min_password_length = least;
            let rules = Rules::of(&settings);
            let (one, other) = (generate(&rules), generate(&rules));
            rules.check_password(&one).unwrap();
            assert!(one != other && one.len() >= 14, "{one}");
        }
    }
}
