//! Loads the settings from defaults, file, environment and flags; the later source wins.

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
/// PHOEBE's own variable for a folder of passbands. The file wins over it, because it may be set
/// for all programs that use PHOEBE.
const PASSBAND_VARIABLE: &str = "PHOEBE_PBDIR";
/// The prefix of PHOEBE's variables, and our variables with the same prefix.
const PHOEBE_PREFIX: &str = "PHOEBE_";
const OURS: [&str; 4] = ["PHOEBE_SERVER_", "PHOEBE_TEST_", SECRET_VARIABLE, PASSBAND_VARIABLE];

/// The sources of settings. Tests replace the real environment and home directory.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// The files to try if none is named. The first that exists is read.
    pub search: Vec<PathBuf>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Values from flags.
    pub flags: Vec<Flag>,
}

/// A setting from the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, such as `--port`.
    pub name: &'static str,
    /// The setting's section and key.
    pub key: (&'static str, &'static str),
    /// The value's text.
    pub text: String,
}

impl Sources {
    /// Returns the sources of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let mut search = vec![PathBuf::from("config.toml")];
        if let Some(home) = std::env::home_dir() {
            search.push(home.join(".config/phoebe-server/config.toml"));
        }
        search.push(PathBuf::from("/etc/phoebe-server/config.toml"));
        Self { file, search, environment: std::env::vars_os().collect(), flags }
    }

    /// Returns the variables of PHOEBE that the server does not pass on to its processes.
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

/// The settings and their origins.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The settings.
    pub settings: Settings,
    /// The origin of each value.
    pub origins: Origins,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Variables of PHOEBE that the server does not pass on to its processes.
    pub ignored_variables: Vec<String>,
    /// Existing files that were not read because `file` comes first.
    pub passed_over: Vec<PathBuf>,
}

impl Resolved {
    /// Returns notes to log at the start: settings and variables that are set but have no effect.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let keys = Settings::SECTIONS.iter().flat_map(|section| section.keys);
        let settings = keys.filter_map(|key| {
            let origin = self.origins.of(key);
            let note = key.note.filter(|_| origin.0 != Place::Default)?;
            Some(format!("the setting {} ({origin}) {note}", key.title()))
        });
        let variables = self.ignored_variables.iter().map(|name| {
            format!("the variable {name} has no effect: the server configures PHOEBE itself")
        });
        settings.chain(variables).collect()
    }
}

/// Loads and validates the settings.
///
/// # Errors
/// If a named file is missing, or values or their combination are invalid. All errors are reported.
pub fn load(sources: &Sources) -> Result<Resolved, ConfigError> {
    let resolved = load_values(sources)?;
    // The combination is checked only if all values are valid.
    let problems = validate(&resolved.settings, &resolved.origins);
    if problems.is_empty() { Ok(resolved) } else { Err(ConfigError::Wrong(problems)) }
}

/// Loads the settings without validating their combination, for commands that need only some of
/// them.
///
/// # Errors
/// Those of [`load`] for single values.
pub fn load_values(sources: &Sources) -> Result<Resolved, ConfigError> {
    let file = find_file(sources)?;
    let (resolved, problems) = resolve(sources, file);
    if problems.is_empty() { Ok(resolved) } else { Err(ConfigError::Wrong(problems)) }
}

/// Loads all valid values, and returns all errors. Invalid values keep their defaults.
#[must_use]
pub fn load_lenient(sources: &Sources) -> (Resolved, Vec<ConfigError>) {
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

/// Merges the values of all sources. Returns the invalid ones as problems.
fn resolve(sources: &Sources, file: Option<File>) -> (Resolved, Vec<Problem>) {
    let mut settings = Settings::default();
    let mut origins = Origins::default();
    let mut values =
        TextValues { settings: &mut settings, origins: &mut origins, problems: Vec::new() };
    values.passband_variable(sources);
    if let Some(File { path, text, .. }) = &file {
        values.problems.extend(file::apply(text, path, values.settings, values.origins));
    }
    values.environment(sources);
    values.flags(&sources.flags);
    let problems = values.problems;
    let (file, passed_over) = file.map(|file| (file.path, file.passed_over)).unzip();
    let passed_over = passed_over.unwrap_or_default();
    let ignored_variables = sources.ignored();
    (Resolved { settings, origins, file, ignored_variables, passed_over }, problems)
}

/// The settings file.
struct File {
    path: PathBuf,
    text: String,
    /// Existing files that come later in the search.
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

/// Reads a file. A missing file is an error only if it was named explicitly.
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

/// Applies values that are given as text.
struct TextValues<'a> {
    settings: &'a mut Settings,
    origins: &'a mut Origins,
    problems: Vec<Problem>,
}

impl TextValues<'_> {
    /// Applies PHOEBE's variable for passbands, which is the default of a setting.
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
            None => self.problem(place, "its value is not UTF-8".to_owned()),
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
