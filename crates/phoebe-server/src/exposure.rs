//! Files with secrets that other users of the machine can read or change. It only looks.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Place, Resolved};

/// The settings that are secrets: section and name.
const SECRETS: [(&str, &str); 4] =
    [("auth", "password"), ("auth", "jwt_secret_key"), ("auth", "api_keys"), ("metrics", "token")];

/// Any right of everybody, and the right of a group to write. A group may read: a service's
/// settings often belong to root.
const TOO_MUCH: u32 = 0o027;

/// A file that is not only its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    path: PathBuf,
    what: &'static str,
    mode: u32,
}

impl Exposed {
    /// What to type.
    #[must_use]
    pub(crate) fn way_out(&self) -> String {
        format!("chmod o=,g-w {}", self.path.display())
    }
}

impl Display for Exposed {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { path, what, mode } = self;
        write!(
            formatter,
            "{}, which holds {what}, is open to others (mode {mode:o})",
            path.display()
        )
    }
}

/// Every such file of these settings.
#[must_use]
pub(crate) fn exposed(resolved: &Resolved) -> Vec<Exposed> {
    let is_set_there = SECRETS
        .into_iter()
        .any(|(section, name)| matches!(resolved.origins.get(section, name).0, Place::File { .. }));
    let settings_file = resolved.file.as_deref().filter(|_| is_set_there);
    let database = resolved.settings.database.path.as_path();
    [
        (settings_file, "secrets"),
        (resolved.settings.server.tls_key.as_deref(), "the key of the certificate"),
        (Some(database), "hashes of passwords"),
    ]
    .into_iter()
    .filter_map(|(path, what)| look(path?, what))
    .collect()
}

fn look(path: &Path, what: &'static str) -> Option<Exposed> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & TOO_MUCH != 0).then(|| Exposed { path: path.to_owned(), what, mode })
}
