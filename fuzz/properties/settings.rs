//! What holds for any text of a settings file or variable. The fuzzer and a test that replays its
//! corpus share it.

use std::ffi::OsString;
use std::path::Path;

use phoebe_server::config::{Origins, Resolved, Settings, Sources, file, load, print};

/// Panics where a property does not hold.
pub(crate) fn hold_for(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    a_file_is_settings_or_complaints(&text);
    variables_are_settings_or_complaints(&text);
}

/// A file that is right is printed as one that says the same; one that is wrong is told where.
fn a_file_is_settings_or_complaints(text: &str) {
    let (mut settings, mut origins) = (Settings::default(), Origins::default());
    let problems = file::apply(text, Path::new("config.toml"), &mut settings, &mut origins);
    for problem in &problems {
        assert!(!problem.message.is_empty(), "{text:?}");
    }
    if !problems.is_empty() || has_secrets(&settings) {
        return;
    }
    let resolved = Resolved {
        settings,
        origins,
        file: None,
        ignored_variables: Vec::new(),
        passed_over: Vec::new(),
    };
    let printed = print::with_origins(&resolved);
    let mut again = Settings::default();
    let problems =
        file::apply(&printed, Path::new("printed.toml"), &mut again, &mut Origins::default());
    assert!(problems.is_empty(), "{printed}\n{problems:?}");
    assert_eq!(again, resolved.settings);
}

/// They are printed masked, and a mask is not read.
fn has_secrets(settings: &Settings) -> bool {
    let auth = &settings.auth;
    !(auth.password.is_empty() && auth.jwt_secret_key.is_empty() && auth.api_keys.is_empty())
}

/// Each line is a variable: name, `=`, value.
fn variables_are_settings_or_complaints(text: &str) {
    let environment: Vec<(OsString, OsString)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("PHOEBE_SERVER__{name}").into(), value.into()))
        .collect();
    match load(&Sources { environment, ..Sources::default() }) {
        Ok(resolved) => assert!(!print::with_origins(&resolved).is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
