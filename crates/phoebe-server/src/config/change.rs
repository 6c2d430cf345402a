//! Compares reloaded settings with those in force. No I/O.

use std::path::Path;

use super::load::Resolved;
use super::problem::ConfigError;
use super::settings::{Key, Settings};
use super::validate::validate;

/// The difference between the settings in force and reloaded ones.
pub struct Change {
    /// The settings in force from now on.
    pub settings: Settings,
    /// The applied keys.
    pub applied: Vec<&'static Key>,
    /// The changed keys that need a restart.
    pub needs_restart: Vec<&'static Key>,
}

impl Change {
    /// Compares the settings in force, read from `file` if there is one, with reloaded ones.
    ///
    /// # Errors
    /// If the file is missing, or if the applied keys conflict with the others.
    pub fn between(
        running: &Settings,
        file: Option<&Path>,
        wanted: &Resolved,
    ) -> Result<Self, ConfigError> {
        if let Some(file) = file.filter(|file| wanted.file.as_deref() != Some(file)) {
            return Err(ConfigError::Gone(file.to_owned()));
        }
        // Keys of another mode do not apply to the current one.
        let is_other_mode = running.auth.mode != wanted.settings.auth.mode;
        let keys = Settings::SECTIONS.iter().flat_map(|section| section.keys);
        let changed = keys.filter(|key| !(key.is_same)(running, &wanted.settings));
        let (applied, needs_restart): (Vec<_>, Vec<_>) =
            changed.partition(|key| key.live && !(is_other_mode && key.section == "auth"));
        let mut settings = running.clone();
        for key in &applied {
            (key.copy)(&mut settings, &wanted.settings);
        }
        let problems = validate(&settings, &wanted.origins);
        if problems.is_empty() {
            Ok(Self { settings, applied, needs_restart })
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
    fn live_keys_are_applied_and_the_others_reported() {
        let wanted = wanted(|settings| {
            settings.logging.level = "DEBUG".to_owned();
            settings.auth.password = Secret::new("another");
            settings.server.port = 9000;
        });
        let change = Change::between(&Settings::default(), None, &wanted).unwrap();
        assert_eq!(titles(&change.applied), ["[auth] password", "[logging] level"]);
        assert_eq!(titles(&change.needs_restart), ["[server] port"]);
        assert_eq!(change.settings.logging.level, "DEBUG");
        assert_eq!(change.settings.auth.password.expose(), "another");
        assert_eq!(change.settings.server.port, Settings::default().server.port);
    }

    #[test]
    fn a_missing_file_is_not_replaced_by_defaults() {
        let mut running = Settings::default();
        running.auth.password = Secret::new("first");
        let file = Path::new("/etc/phoebe-server/config.toml");
        let change = Change::between(&running, Some(file), &wanted(|_| {}));
        assert!(matches!(change, Err(ConfigError::Gone(gone)) if gone == file));
    }

    #[test]
    fn an_emptied_file_does_not_weaken_authentication() {
        let mut running = Settings::default();
        running.auth.mode = AuthMode::Jwt;
        running.auth.registration = RegistrationPolicy::Closed;
        running.auth.jwt_secret_key = Secret::new("a secret for this test only, long enough");
        running.auth.min_password_length = 10;
        let change = Change::between(&running, None, &wanted(|_| {})).unwrap();
        assert!(change.applied.is_empty());
        assert_eq!(change.settings.auth.registration, RegistrationPolicy::Closed);
    }

    #[test]
    fn a_conflict_with_the_settings_in_force_is_refused() {
        let mut running = Settings::default();
        running.auth.enabled = true;
        running.auth.api_keys = vec![Secret::new("key")];
        // `enabled` needs a restart, so nobody could use the server until then.
        assert!(Change::between(&running, None, &wanted(|_| {})).is_err());
    }
}
