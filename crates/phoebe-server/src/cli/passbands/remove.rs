//! A passband that was installed, removed.

use super::Phoebe;
use crate::cli::{Failure, print};

/// Removes the passband called `name`.
pub(super) fn run(name: &str, phoebe: &Phoebe<'_>) -> Result<(), Failure> {
    phoebe.folder()?;
    let there = phoebe.files()?;
    let mut namesakes = there.iter().filter(|file| file.name == name);
    let Some(installed) = namesakes.clone().find(|file| phoebe.is_installed(file)) else {
        return Err(Failure::failed(match namesakes.next() {
            Some(other) => {
                format!("{name} was not installed by this command: it is in {}", other.file)
            }
            None => {
                format!("there is no passband {name}; `phoebe-server passbands list` shows all")
            }
        }));
    };
    let path = &installed.file;
    std::fs::remove_file(path).map_err(|error| Failure::failed(format!("{path}: {error}")))?;
    print(&format!("{name}: removed {path}\n"))?;
    match namesakes.find(|file| !phoebe.is_installed(file)) {
        Some(other) => eprintln!("Sessions use version {} of {} now.", other.version, other.file),
        None => eprintln!(
            "Datasets that use it stay as they are, and fail at their next run_compute with \
             PHOEBE's reason. Which sessions have some is not known: only a session's own worker \
             opens its Bundle."
        ),
    }
    Ok(())
}
