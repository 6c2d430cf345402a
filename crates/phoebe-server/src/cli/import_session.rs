//! `phoebe-server import-session`: a session from a file, into a data directory that no server
//! uses.

use std::path::PathBuf;

use super::{Failure, print, user};
use crate::auth::Identity;
use crate::config::{AuthMode, Durability, Settings};
use crate::store::archive::{self, NewOwner};
use crate::store::snapshots::Rules;
use crate::store::{DataDirectory, audit};

/// Arguments of `import-session`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  phoebe-server import-session algol.phoebe-session
  phoebe-server import-session algol.phoebe-session --owner ada@uni.edu")]
pub(super) struct Arguments {
    /// A file that `export-session` wrote
    file: PathBuf,
    /// Whose session it shall be: an account's e-mail address, or in mode `external` the user's id
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
}

/// Brings the session in, and says its id.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    if settings.session.durability == Durability::Off {
        let text = "a server with [session] durability = \"off\" takes no sessions over";
        return Err(Failure::Usage(text.to_owned()));
    }
    let data = DataDirectory::open(&settings.database.path).map_err(Failure::failed)?;
    let owner = arguments.owner.as_deref().map(|name| owner(name, settings)).transpose()?;
    let rules = Rules { fsync: true, history: settings.session.undo_depth };
    let most = settings.resources.max_disk_mb_per_session;
    let most = (most > 0).then(|| most.saturating_mul(1 << 20));
    let imported = archive::import_session(&arguments.file, &data, rules, owner, most);
    let record = imported.map_err(Failure::failed)?;
    let whose = record.user_id.map_or("nobody's".to_owned(), |id| format!("user {id}'s"));
    let deed = user::deed("session.import", &record.session_id, whose.clone());
    let noted = user::accounts(settings)?.change(|change| Ok(audit::record(change, &deed)?));
    noted.map_err(Failure::failed)?;
    print(&format!("{}\n", record.session_id))?;
    eprintln!("It is {whose}, and there when the server starts.");
    Ok(())
}

/// The user with this name.
fn owner(name: &str, settings: &Settings) -> Result<NewOwner, Failure> {
    if settings.auth.mode == AuthMode::External {
        return Ok(NewOwner { user_id: name.to_owned(), full_name: String::new() });
    }
    let account = user::accounts(settings)?.change(|change| user::named(change, name));
    let account = account.map_err(Failure::failed)?;
    let Identity { user_id, full_name, .. } = Identity::from(&account);
    Ok(NewOwner { user_id, full_name })
}
