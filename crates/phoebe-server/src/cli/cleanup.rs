//! `phoebe-server cleanup`: ends what a server left behind.

use super::{Failure, print, wiring};
use crate::config::Settings;

/// Ends leftover processes of the data directory and says which.
pub(super) fn execute(settings: &Settings) -> Result<(), Failure> {
    let ended = wiring::clean(settings)?;
    if ended.is_empty() {
        return print("Nothing to clean up.\n");
    }
    ended.iter().try_for_each(|line| print(&format!("{line}\n")))
}
