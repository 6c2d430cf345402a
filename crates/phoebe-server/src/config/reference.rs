//! The reference of all settings, in Markdown, and a commented example file; both from the table.

use std::fmt::Write as _;

use super::settings::{Key, Settings};

const INTRODUCTION: &str = "\
# Settings

<!-- Made by `phoebe-server config --reference`; change the table in crates/phoebe-server/src/config/settings.rs instead. -->

The server reads one file: the one named by `--config`, else by `$PHOEBE_SERVER_CONFIG`, else the first that exists of
`./config.toml`, `~/.config/phoebe-server/config.toml` and `/etc/phoebe-server/config.toml`. A variable
`PHOEBE_SERVER__SECTION__KEY` wins over the file, a flag of the command line over both. A list is given in a variable as
text with commas. A wrong file stops the start and says where it is wrong. `phoebe-server config` prints the settings in
force, where each came from, and which files are not read because another comes first.
";

const EXAMPLE: &str = "\
# Settings of phoebe-server. Every line that is commented out shows the default.
# `phoebe-server config` prints the settings in force and where each came from.
# A variable PHOEBE_SERVER__SECTION__KEY wins over this file, a flag over both.
";

/// `docs/settings.md`.
#[must_use]
pub fn markdown() -> String {
    let defaults = Settings::default();
    let mut text = INTRODUCTION.to_owned();
    for section in Settings::SECTIONS {
        let _ = writeln!(text, "\n## `[{}]`\n\n{}\n", section.name, section.doc.trim());
        text.push_str("| key | accepts | default | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            let _ = writeln!(
                text,
                "| `{}` | {} | `{}` | {} |",
                key.name,
                (key.kind)(),
                key.value(&defaults),
                meaning(key)
            );
        }
    }
    text
}

fn meaning(key: &Key) -> String {
    let note = key.note.map(|note| format!(" This key {note}.")).unwrap_or_default();
    let live = if key.live { " SIGHUP makes a running server take a new value." } else { "" };
    format!("{}{note}{live}", key.doc.trim())
}

/// `config.example.toml`: every key with its meaning, commented out.
#[must_use]
pub fn example() -> String {
    let defaults = Settings::default();
    let mut text = EXAMPLE.to_owned();
    for section in Settings::SECTIONS {
        let _ = writeln!(text, "\n# {}\n[{}]", section.doc.trim(), section.name);
        for key in section.keys {
            let _ = writeln!(text, "\n# {}", meaning(key));
            let _ = writeln!(text, "# Accepts {}.", (key.kind)());
            let _ = writeln!(text, "#{} = {}", key.name, key.value(&defaults));
        }
    }
    text
}
