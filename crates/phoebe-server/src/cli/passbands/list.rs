//! Passbands as a table.

use phoebe_protocol::packet::PassbandFile;

use super::Phoebe;
use crate::cli::user::table;
use crate::cli::{Failure, print};

/// Prints all passband files, those that sessions do not get included.
pub(super) fn print_passbands(phoebe: &Phoebe<'_>) -> Result<(), Failure> {
    let files = phoebe.files()?;
    let mut rows = vec![["NAME", "VERSION", "ATMOSPHERES", "FILE", ""].map(str::to_owned)];
    rows.extend(files.iter().map(|file| row(file, origin(phoebe, file))));
    print(&table(&rows))
}

fn row(file: &PassbandFile, origin: &str) -> [String; 5] {
    let remark = match (file.problem.as_str(), file.in_force) {
        ("", true) => origin.to_owned(),
        ("", false) => format!("{origin}; replaced by a later one"),
        (problem, _) => format!("{origin}; cannot be used: {problem}"),
    };
    let atmospheres = file.atmospheres.join(" ");
    [file.name.clone(), file.version.clone(), atmospheres, file.file.clone(), remark]
}

fn origin(phoebe: &Phoebe<'_>, file: &PassbandFile) -> &'static str {
    if phoebe.is_installed(file) {
        "installed"
    } else if file.file.contains("/site-packages/phoebe/") {
        "PHOEBE's own"
    } else {
        "of this user's PHOEBE"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_sessions_get() {
        let mut file = PassbandFile { name: "A:b".to_owned(), ..PassbandFile::default() };
        assert_eq!(row(&file, "installed")[4], "installed; replaced by a later one");
        file.in_force = true;
        assert_eq!(row(&file, "installed")[4], "installed");
        file.problem = "OSError: truncated".to_owned();
        assert_eq!(row(&file, "installed")[4], "installed; cannot be used: OSError: truncated");
    }
}
