//! Generates the reference of all settings and the example file.

use std::fmt::Write as _;

use super::settings::{Key, Settings};

const INTRODUCTION: &str = "\
# Settings

<!-- Made by `phoebe-server config --reference` from src/config/settings.rs of the server. -->

The server reads one file: the one given by `--config`, else by `$PHOEBE_SERVER_CONFIG`, else the
first that exists of `./config.toml`, `~/.config/phoebe-server/config.toml` and
`/etc/phoebe-server/config.toml`. A variable `PHOEBE_SERVER__SECTION__KEY` wins over the file, a
flag of the command line over both. A variable holds a list as text with commas. With an invalid
file the server does not start and reports each error with its position. `phoebe-server config`
prints the settings in force, the origin of each value, and the files that are not read because
another comes first.
";

const EXAMPLE: &str = "\
# Settings of phoebe-server. Every line that is commented out shows the default.
# `phoebe-server config` prints the settings in force and where each came from.
# A variable PHOEBE_SERVER__SECTION__KEY wins over this file, a flag over both.
";

/// Returns `docs/settings.md`.
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

/// Returns `config.example.toml`: every key with its documentation, commented out.
#[must_use]
pub fn example() -> String {
    let defaults = Settings::default();
    let mut text = EXAMPLE.to_owned();
    for section in Settings::SECTIONS {
        let _ = writeln!(text, "\n# {}\n[{}]", section.doc.trim(), section.name);
        for key in section.keys {
            text.push('\n');
            push_comment(&mut text, &meaning(key));
            push_comment(&mut text, &format!("Accepts {}.", (key.kind)()));
            let _ = writeln!(text, "#{} = {}", key.name, key.value(&defaults));
        }
    }
    text
}

/// Appends a comment, wrapped at 100 columns.
fn push_comment(text: &mut String, comment: &str) {
    let mut line = "#".to_owned();
    for word in comment.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 100 {
            text.push_str(&line);
            line = "\n#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
