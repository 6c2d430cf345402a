//! Where settings come from: defaults, then a file, then the environment, then flags; the later wins.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file;
use super::origin::{Origin, Origins};
use super::problem::{ConfigError, Place, Problem};
use super::settings::Settings;
use super::validate::validate;

const PREFIX: &str = "PHOEBE_SERVER__";
const FILE_VARIABLE: &str = "PHOEBE_SERVER_CONFIG";
const SECRET_VARIABLE: &str = "PHOEBE_JWT_SECRET_KEY";
/// PHOEBE's own variable for a further folder of passbands. A setting of the file wins over it: it may be set for all
/// programs that use PHOEBE.
const PASSBAND_VARIABLE: &str = "PHOEBE_PBDIR";
/// What PHOEBE's own variables begin with, and those of ours that do too.
const PHOEBE_PREFIX: &str = "PHOEBE_";
const OURS: [&str; 4] = ["PHOEBE_SERVER_", "PHOEBE_TEST_", SECRET_VARIABLE, PASSBAND_VARIABLE];

/// Everything that settings are made of, so that tests need neither the real environment nor the
/// real home directory.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// Files that are tried in this order if none is named; the first that exists is read.
    pub search: Vec<PathBuf>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Values given by flags.
    pub flags: Vec<Flag>,
}

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, as `--port`.
    pub name: &'static str,
    /// The setting's section and key.
    pub key: (&'static str, &'static str),
    /// The value's text.
    pub text: String,
}

impl Sources {
    /// The sources of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let mut search = vec![PathBuf::from("config.toml")];
        if let Some(home) = std::env::home_dir() {
            search.push(home.join(".config/phoebe-server/config.toml"));
        }
        search.push(PathBuf::from("/etc/phoebe-server/config.toml"));
        Self { file, search, environment: std::env::vars_os().collect(), flags }
    }

    /// Variables that PHOEBE would read, and that its processes here do not get.
    fn ignored(&self) -> Vec<String> {
        let names = self.environment.iter().map(|(name, _)| name.to_string_lossy().into_owned());
        let mut ignored: Vec<String> = names
            .filter(|name| name.starts_with(PHOEBE_PREFIX))
            .filter(|name| !OURS.iter().any(|ours| name.starts_with(ours)))
            .collect();
        ignored.sort_unstable();
        ignored
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// The settings, and where they came from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The settings.
    pub settings: Settings,
    /// Where each came from.
    pub origins: Origins,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Variables of the environment that PHOEBE would read, and that its processes here do not get.
    pub ignored_variables: Vec<String>,
    /// Files that are there and were not read, because `file` comes first.
    pub passed_over: Vec<PathBuf>,
}

impl Resolved {
    /// What to say at the start of settings and variables that somebody gave and that do not do what
    /// their name says: one line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let keys = Settings::SECTIONS.iter().flat_map(|section| section.keys);
        let settings = keys.filter_map(|key| {
            let origin = self.origins.of(key);
            let note = key.note.filter(|_| origin.0 != Place::Default)?;
            Some(format!("the setting {} ({origin}) {note}", key.title()))
        });
        let variables = self.ignored_variables.iter().map(|name| {
            format!("the variable {name} has no effect: the server sets PHOEBE up for its sessions by itself")
        });
        settings.chain(variables).collect()
    }
}

/// Resolves the settings.
///
/// # Errors
/// A named file that is missing, and everything that is wrong in file, environment and flags, or in
/// their combination.
pub fn load(sources: &Sources) -> Result<Resolved, ConfigError> {
    let resolved = load_values(sources)?;
    // Combinations say little while single values are wrong.
    let problems = validate(&resolved.settings, &resolved.origins);
    if problems.is_empty() { Ok(resolved) } else { Err(ConfigError::Wrong(problems)) }
}

/// Resolves the settings without a look at their combination: for what needs a part of them, and must not ask for
/// secrets that are another's.
///
/// # Errors
/// Those of [`load`] for single values.
pub fn load_values(sources: &Sources) -> Result<Resolved, ConfigError> {
    let file = find_file(sources)?;
    let (resolved, problems) = resolve(sources, file);
    if problems.is_empty() { Ok(resolved) } else { Err(ConfigError::Wrong(problems)) }
}

/// Resolves what can be resolved, and tells everything that is wrong besides: what is wrong itself
/// keeps its default.
#[must_use]
pub fn load_what_can_be(sources: &Sources) -> (Resolved, Vec<ConfigError>) {
    let (file, unreadable) = match find_file(sources) {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let (resolved, mut problems) = resolve(sources, file);
    problems.extend(validate(&resolved.settings, &resolved.origins));
    let each_problem = problems.into_iter().map(|problem| ConfigError::Wrong(vec![problem]));
    let errors = unreadable.into_iter().chain(each_problem).collect();
    (resolved, errors)
}

/// The values of all sources, and what is wrong with single ones.
fn resolve(sources: &Sources, file: Option<File>) -> (Resolved, Vec<Problem>) {
    let mut settings = Settings::default();
    let mut origins = Origins::default();
    let mut texts = Texts { settings: &mut settings, origins: &mut origins, problems: Vec::new() };
    texts.passband_variable(sources);
    if let Some(File { path, text, .. }) = &file {
        texts.problems.extend(file::apply(text, path, texts.settings, texts.origins));
    }
    texts.environment(sources);
    texts.flags(&sources.flags);
    let problems = texts.problems;
    let (file, passed_over) = file.map(|file| (file.path, file.passed_over)).unzip();
    let passed_over = passed_over.unwrap_or_default();
    let ignored_variables = sources.ignored();
    (Resolved { settings, origins, file, ignored_variables, passed_over }, problems)
}

/// The file that is read.
struct File {
    path: PathBuf,
    text: String,
    /// Files that are there and come later.
    passed_over: Vec<PathBuf>,
}

fn find_file(sources: &Sources) -> Result<Option<File>, ConfigError> {
    let named = |path: &Path, named_by| {
        let text = read(path, Some(named_by))?;
        Ok(text.map(|text| File { path: path.to_owned(), text, passed_over: Vec::new() }))
    };
    if let Some(path) = &sources.file {
        return named(path, "--config");
    }
    let variable = sources.variable(FILE_VARIABLE).filter(|value| !value.is_empty());
    if let Some(path) = variable {
        return named(Path::new(path), "$PHOEBE_SERVER_CONFIG");
    }
    let mut search = sources.search.iter();
    while let Some(path) = search.next() {
        if let Some(text) = read(path, None)? {
            let passed_over = search.filter(|later| later.is_file()).cloned().collect();
            return Ok(Some(File { path: path.clone(), text, passed_over }));
        }
    }
    Ok(None)
}

/// Reads a file; one that is missing is an error only if somebody named it.
fn read(path: &Path, named_by: Option<&'static str>) -> Result<Option<String>, ConfigError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if named_by.is_none() && matches!(error.kind(), NotFound | NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(ConfigError::Unreadable {
            path: path.to_owned(),
            named_by,
            reason: error.to_string(),
        }),
    }
}

/// Sets values that are given as text.
struct Texts<'a> {
    settings: &'a mut Settings,
    origins: &'a mut Origins,
    problems: Vec<Problem>,
}

impl Texts<'_> {
    /// Where PHOEBE itself would look for further passbands: the default of a setting.
    fn passband_variable(&mut self, sources: &Sources) {
        let folder = sources.variable(PASSBAND_VARIABLE).filter(|text| !text.is_empty());
        if let Some(folder) = folder {
            self.variable(PASSBAND_VARIABLE, "worker", "passband_dir", folder);
        }
    }

    fn environment(&mut self, sources: &Sources) {
        if let Some(secret) = sources.variable(SECRET_VARIABLE).filter(|text| !text.is_empty()) {
            self.variable(SECRET_VARIABLE, "auth", "jwt_secret_key", secret);
        }
        for (name, value) in &sources.environment {
            let name = name.to_string_lossy();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let rest = rest.to_ascii_lowercase();
            match rest.split_once("__") {
                Some((section, key)) => self.variable(&name, section, key, value),
                None => self.problem(
                    Place::Variable(name.clone().into_owned()),
                    format!("settings are named {PREFIX}SECTION__KEY, with two underscores each"),
                ),
            }
        }
    }

    fn variable(&mut self, name: &str, section: &str, key: &str, value: &OsString) {
        let place = Place::Variable(name.to_owned());
        match value.to_str() {
            Some(text) => self.text(place, section, key, text),
            None => self.problem(place, "its value is no UTF-8 text".to_owned()),
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            self.text(Place::Flag(flag.name.to_owned()), flag.key.0, flag.key.1, &flag.text);
        }
    }

    fn text(&mut self, place: Place, section: &str, name: &str, text: &str) {
        if !Settings::SECTIONS.iter().any(|known| known.name == section) {
            return self.problem(place, file::unknown_section(section));
        }
        let Some(key) = Settings::key(section, name) else {
            return self.problem(place, file::unknown_key(section, name));
        };
        match (key.read_text)(self.settings, text) {
            Ok(()) => self.origins.set(key, Origin(place)),
            Err(message) => self.problem(place, format!("{}: {message}", key.title())),
        }
    }

    fn problem(&mut self, place: Place, message: String) {
        self.problems.push(Problem { place, message });
    }
}
