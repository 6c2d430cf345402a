//! `phoebe-server environment`: the Python environment, made before it is needed.

use super::{Failure, print};
use crate::config::Settings;
use crate::{environment, logging};

/// Makes the environment if there is none, and prints the interpreter that workers run in.
pub(super) fn execute(settings: &Settings) -> Result<(), Failure> {
    logging::start(&settings.logging);
    let python = environment::python(settings, &environment::Progress::new());
    print(&format!("{}\n", python.map_err(Failure::failed)?.display()))
}
