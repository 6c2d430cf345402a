//! Reads a settings file. Reports all errors at once, each with its position.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::origin::{Origin, Origins};
use super::problem::{Place, Problem};
use super::settings::{Key, Settings};
use super::suggest::nearest;

/// Applies the TOML `text` of the file `path` to `settings`, and records the origins.
///
/// Returns all errors in the order of the text. Valid values are applied anyway, so that the caller
/// can check them.
pub fn apply(
    text: &str,
    path: &Path,
    settings: &mut Settings,
    origins: &mut Origins,
) -> Vec<Problem> {
    let mut reader = Reader { text, path, settings, origins, problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        reader.document(document.into_inner());
    }
    for error in errors {
        reader.problem(&error.span().unwrap_or(0..0), format!("invalid TOML: {}", error.message()));
    }
    reader.problems.sort_by_key(|(offset, _)| *offset);
    reader.problems.into_iter().map(|(_, problem)| problem).collect()
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    settings: &'a mut Settings,
    origins: &'a mut Origins,
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn document(&mut self, document: DeTable<'_>) {
        for (name, value) in document {
            let span = name.span();
            let name = name.into_inner();
            let known = Settings::SECTIONS.iter().any(|section| section.name == name);
            match value.into_inner() {
                DeValue::Table(table) if known => self.section(&name, table),
                _ if known => {
                    self.problem(&span, format!("{name} is a section: write [{name}] on a line"));
                }
                _ => self.problem(&span, unknown_section(&name)),
            }
        }
    }

    fn section(&mut self, section: &str, table: DeTable<'_>) {
        for (name, value) in table {
            let span = name.span();
            let name = name.into_inner();
            let Some(key) = Settings::key(section, &name) else {
                self.problem(&span, unknown_key(section, &name));
                continue;
            };
            let span = value.span();
            let read = Value::deserialize(ValueDeserializer::from(value))
                .map_err(|error| error.message().to_owned())
                .and_then(|value| (key.read)(self.settings, &value));
            match read {
                Ok(()) => self.set(key, &span),
                Err(message) => self.problem(&span, format!("{}: {message}", key.title())),
            }
        }
    }

    fn set(&mut self, key: &Key, span: &Range<usize>) {
        self.origins.set(key, Origin(self.place(span)));
    }

    fn problem(&mut self, span: &Range<usize>, message: String) {
        let place = self.place(span);
        self.problems.push((span.start, Problem { place, message }));
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Returns the error for an unknown section or top-level key.
pub(super) fn unknown_section(name: &str) -> String {
    if let Some(key) = all_keys().find(|key| key.name == name) {
        return format!("{name} is outside a section; it belongs in [{}]", key.section);
    }
    let hint = nearest(name, Settings::SECTIONS.iter().map(|section| section.name))
        .map(|near| format!("; did you mean [{near}]?"))
        .unwrap_or_else(|| format!("; there are {}", section_names()));
    format!("unknown section [{name}]{hint}")
}

/// Returns the error for an unknown key in `section`.
pub(super) fn unknown_key(section: &str, name: &str) -> String {
    let own = all_keys().filter(|key| key.section == section).map(|key| key.name);
    let hint = nearest(name, own)
        .map(|near| format!("; did you mean {near}?"))
        .or_else(|| elsewhere(name))
        .unwrap_or_else(|| "; `phoebe-server config` lists all keys".to_owned());
    format!("unknown key {name} in [{section}]{hint}")
}

fn elsewhere(name: &str) -> Option<String> {
    let near = nearest(name, all_keys().map(|key| key.name))?;
    let key = all_keys().find(|key| key.name == near)?;
    Some(format!("; did you mean {}?", key.title()))
}

fn all_keys() -> impl Iterator<Item = &'static Key> {
    Settings::SECTIONS.iter().flat_map(|section| section.keys)
}

fn section_names() -> String {
    let names = Settings::SECTIONS.iter().map(|section| format!("[{}]", section.name));
    names.collect::<Vec<_>>().join(", ")
}
