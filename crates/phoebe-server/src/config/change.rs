//! What changes in a running server's settings when they are read again. It decides and does nothing.

use std::path::Path;

use super::load::Resolved;
use super::problem::ConfigError;
use super::settings::{Key, Settings};
use super::validate::validate;

/// The difference between the settings in force and those that were read again.
pub struct Change {
    /// The settings in force from now on.
    pub settings: Settings,
    /// What is taken.
    pub taken: Vec<&'static Key>,
    /// What differs, and needs a restart.
    pub needs_restart: Vec<&'static Key>,
}

impl Change {
    /// Compares the settings in force, which `file` holds if there is one, with those that were read
    /// again.
    ///
    /// # Errors
    /// The file is gone; or what can be taken makes no sense beside what cannot.
    pub fn between(
        running: &Settings,
        file: Option<&Path>,
        wanted: &Resolved,
    ) -> Result<Self, ConfigError> {
        if let Some(file) = file.filter(|file| wanted.file.as_deref() != Some(file)) {
            return Err(ConfigError::Gone(file.to_owned()));
        }
        // What belongs to another mode says nothing of the one in force.
        let is_other_mode = running.auth.mode != wanted.settings.auth.mode;
        let keys = Settings::SECTIONS.iter().flat_map(|section| section.keys);
        let changed = keys.filter(|key| !(key.is_same)(running, &wanted.settings));
        let (taken, needs_restart): (Vec<_>, Vec<_>) =
            changed.partition(|key| key.live && !(is_other_mode && key.section == "auth"));
        let mut settings = running.clone();
        for key in &taken {
            (key.copy)(&mut settings, &wanted.settings);
        }
        let problems = validate(&settings, &wanted.origins);
        if problems.is_empty() {
            Ok(Self { settings, taken, needs_restart })
        } else {
            Err(ConfigError::Wrong(problems))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthMode, Origins, RegistrationPolicy, Secret};

    fn wanted(change: impl FnOnce(&mut Settings)) -> Resolved {
        let mut settings = Settings::default();
        change(&mut settings);
        Resolved {
            settings,
            origins: Origins::default(),
            file: None,
            ignored_variables: Vec::new(),
            passed_over: Vec::new(),
        }
    }

    fn titles(keys: &[&Key]) -> Vec<String> {
        keys.iter().map(|key| key.title()).collect()
    }

    #[test]
    fn what_can_be_taken_is_and_the_rest_is_named() {
        let wanted = wanted(|settings| {
            settings.logging.level = "DEBUG".to_owned();
            settings.auth.password = Secret::new("another");
            settings.server.port = 9000;
        });
        let change = Change::between(&Settings::default(), None, &wanted).unwrap();
        assert_eq!(titles(&change.taken), ["[auth] password", "[logging] level"]);
        assert_eq!(titles(&change.needs_restart), ["[server] port"]);
        assert_eq!(change.settings.logging.level, "DEBUG");
        assert_eq!(change.settings.auth.password.expose(), "another");
        assert_eq!(change.settings.server.port, Settings::default().server.port);
    }

    #[test]
    fn a_file_that_is_gone_is_not_taken_for_the_defaults() {
        let mut running = Settings::default();
        running.auth.password = Secret::new("first");
        let file = Path::new("/etc/phoebe-server/config.toml");
        let change = Change::between(&running, Some(file), &wanted(|_| {}));
        assert!(matches!(change, Err(ConfigError::Gone(gone)) if gone == file));
    }

    #[test]
    fn a_file_that_was_emptied_opens_nothing() {
        let mut running = Settings::default();
        running.auth.mode = AuthMode::Jwt;
        running.auth.registration = RegistrationPolicy::Closed;
        running.auth.jwt_secret_key = Secret::new("a secret for this test only, long enough");
        running.auth.min_password_length = 10;
        let change = Change::between(&running, None, &wanted(|_| {})).unwrap();
        assert!(change.taken.is_empty());
        assert_eq!(change.settings.auth.registration, RegistrationPolicy::Closed);
    }

    #[test]
    fn what_makes_no_sense_beside_what_runs_is_refused() {
        let mut running = Settings::default();
        running.auth.enabled = true;
        running.auth.api_keys = vec![Secret::new("key")];
        // `enabled` needs a restart, so nobody could use the server until then.
        assert!(Change::between(&running, None, &wanted(|_| {})).is_err());
    }
}
