//! Other programs of this server's name: PHOEBE's Python package installs a script that is called
//! `phoebe-server` too.

use std::path::Path;

use super::finding::Finding;
use crate::cli::namesake;

const SUBJECT: &str = "program name";

pub(super) fn check() -> Vec<Finding> {
    let Ok(own) = std::env::current_exe() else { return Vec::new() };
    vec![finding(&own, namesake::first_on_path().as_deref())]
}

/// `first` is what a shell starts when it is asked for `phoebe-server`.
fn finding(own: &Path, first: Option<&Path>) -> Finding {
    match first {
        Some(first) if !namesake::is_same(first, own) => Finding::warning(
            SUBJECT,
            format!("`phoebe-server` is {} in this shell, another program", first.display()),
            format!("start this one by its full path, {}", own.display()),
        ),
        _ => Finding::ok(SUBJECT, own.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn another_program_of_that_name_is_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let (own, other) = (folder.path().join("own"), folder.path().join("other"));
        std::fs::write(&own, "").expect("written");
        std::fs::write(&other, "").expect("written");
        let link = folder.path().join("phoebe-server");
        std::os::unix::fs::symlink(&own, &link).expect("a link");
        assert_eq!(finding(&own, None).level, Level::Ok);
        assert_eq!(finding(&own, Some(&link)).level, Level::Ok, "it is this one");
        let warning = finding(&own, Some(&other));
        assert_eq!(warning.level, Level::Warning);
        assert!(warning.advice.contains(&own.display().to_string()), "{warning:?}");
    }
}
