//! Prints the settings as TOML with the origin of each value. Secrets are masked.

use std::fmt::Write as _;

use super::load::Resolved;
use super::origin::Origins;
use super::settings::Settings;

/// Returns all settings, each with a comment `# from …`.
#[must_use]
pub fn with_origins(resolved: &Resolved) -> String {
    let mut text = match &resolved.file {
        Some(path) => format!("# settings file: {}\n", path.display()),
        None => "# no settings file\n".to_owned(),
    };
    for path in &resolved.passed_over {
        let _ = writeln!(text, "# not read, because another file comes first: {}", path.display());
    }
    text.push_str(&to_toml(&resolved.settings, &resolved.origins));
    text
}

fn to_toml(settings: &Settings, origins: &Origins) -> String {
    let mut text = String::new();
    for section in Settings::SECTIONS {
        let _ = writeln!(text, "\n[{}]", section.name);
        let lines: Vec<(String, String)> = section
            .keys
            .iter()
            .map(|key| {
                let line = format!("{} = {}", key.name, key.value(settings));
                (line, origins.of(key).to_string().replace(char::is_control, "?"))
            })
            .collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(50);
        for (line, origin) in lines {
            let _ = writeln!(text, "{line:width$}  # from {origin}");
        }
    }
    text
}
