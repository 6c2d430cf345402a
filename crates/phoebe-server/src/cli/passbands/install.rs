//! Passband files, checked and installed: all or none.

use std::path::{Path, PathBuf};

use phoebe_protocol::packet::PassbandFile;

use super::{Install, Phoebe};
use crate::cli::{Failure, print};
use crate::passbands::{self, Incoming, file_name};

/// A file that was checked, and where it goes.
struct Checked {
    source: PathBuf,
    incoming: Incoming,
    passband: PassbandFile,
    target: PathBuf,
}

/// Checks the files, then installs them.
pub(super) fn run(install: &Install, phoebe: &Phoebe<'_>) -> Result<(), Failure> {
    let folder = phoebe.folder()?;
    passbands::create(folder).map_err(Failure::failed)?;
    let there = phoebe.files()?;
    let mut checked: Vec<Checked> = Vec::new();
    let mut problems = Vec::new();
    for source in &install.files {
        let twin = |name: &str| {
            let twin = checked.iter().find(|other| other.passband.name == name)?;
            Some(format!("{} holds {name} too", twin.source.display()))
        };
        match check(source, folder, phoebe, &there, install.replace, twin) {
            Ok(file) => match checked.iter().find(|other| other.target == file.target) {
                Some(other) => problems.push(format!(
                    "{}: {} would be the same file as {}",
                    source.display(),
                    file.passband.name,
                    other.passband.name
                )),
                None => checked.push(file),
            },
            Err(reason) => problems.push(format!("{}: {reason}", source.display())),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::Failed(format!("nothing was installed:\n{}", problems.join("\n"))));
    }
    for Checked { incoming, passband, target, .. } in checked {
        incoming.install(&target).map_err(Failure::failed)?;
        let atmospheres = passband.atmospheres.join(", ");
        let name = &passband.name;
        print(&format!("{name} ({atmospheres}): {}\n", target.display()))?;
        if let Some(earlier) = there.iter().find(|file| file.in_force && file.name == *name) {
            eprintln!("{name} replaces version {} of {}.", earlier.version, earlier.file);
        }
        if !passband.atmospheres.iter().any(|atmosphere| atmosphere == "ck2004") {
            eprintln!(
                "{name} has no tables of ck2004, PHOEBE's default: datasets need `ld_mode` manual, \
                 and stars `atm` {}.",
                passband.atmospheres.join(" or ")
            );
        }
    }
    eprintln!("Sessions can use what was installed from their next command on.");
    Ok(())
}

fn check(
    source: &Path,
    folder: &Path,
    phoebe: &Phoebe<'_>,
    there: &[PassbandFile],
    replace: bool,
    twin: impl Fn(&str) -> Option<String>,
) -> Result<Checked, String> {
    let incoming = Incoming::copy(source, folder).map_err(|error| error.to_string())?;
    let passband = phoebe.check(incoming.path())?;
    let name = &passband.name;
    if let Some(reason) = twin(name) {
        return Err(reason);
    }
    let namesakes = || there.iter().filter(|file| file.name == *name);
    if let Some(earlier) = namesakes().next().filter(|_| !replace) {
        return Err(format!(
            "{name} is there already, version {} in {}: `--replace` replaces it, and sessions \
             compute with the new tables",
            earlier.version, earlier.file
        ));
    }
    let target = match namesakes().find(|file| phoebe.is_installed(file)) {
        Some(earlier) => PathBuf::from(&earlier.file),
        None => folder.join(file_name(name)),
    };
    if let Some(other) = there.iter().find(|file| Path::new(&file.file) == target)
        && other.name != *name
    {
        return Err(format!("{} is there already, with {}", other.file, described(other)));
    }
    Ok(Checked { source: source.to_owned(), incoming, passband, target })
}

fn described(file: &PassbandFile) -> String {
    if file.problem.is_empty() { file.name.clone() } else { "what PHOEBE cannot use".to_owned() }
}
