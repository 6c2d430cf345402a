//! `phoebe-server passbands`: the passband files that sessions can use, also while a server runs,
//! whose sessions follow with their next command. PHOEBE itself looks at the files, in a contained
//! process.

mod install;
mod list;
mod remove;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use phoebe_protocol::packet::{PassbandAnswer, PassbandFile};

use super::Failure;
use crate::config::Settings;
use crate::worker::{Interpreter, PassbandError, inspect_passbands, reap_children};
use crate::{environment, logging, passbands};

/// Arguments of `passbands`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List passbands: PHOEBE's own and those that were installed
    List,
    /// Check passband files with PHOEBE, and install them
    ///
    /// All or none. Sessions, living ones too, can use them from their next command on.
    #[command(after_help = "Examples:
  phoebe-server passbands install tess_t.fits
  phoebe-server passbands install --replace ~/downloads/*.fits")]
    Install(Install),
    /// Remove a passband that was installed
    #[command(after_help = "Examples:
  phoebe-server passbands remove TESS:T")]
    Remove {
        /// The passband's name, as `list` shows it
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Install {
    /// Passband files in PHOEBE's FITS format; gzip is unpacked
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Replace passbands that are there, also PHOEBE's own: sessions compute with the new tables
    /// then
    #[arg(long)]
    replace: bool,
}

/// Does what is asked.
pub(super) fn execute(arguments: Arguments, settings: &Settings) -> Result<(), Failure> {
    logging::start(&settings.logging);
    let phoebe = Phoebe::find(settings)?;
    match arguments.command {
        Command::List => list::print_passbands(&phoebe),
        Command::Install(install) => install::run(&install, &phoebe),
        Command::Remove { name } => remove::run(&name, &phoebe),
    }
}

/// PHOEBE, to be asked about passband files, and the folder of those that were installed.
struct Phoebe<'a> {
    settings: &'a Settings,
    interpreter: Interpreter,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Phoebe<'a> {
    fn find(settings: &'a Settings) -> Result<Self, Failure> {
        let python = environment::python(settings, &environment::Progress::new());
        let interpreter = Interpreter {
            python: python.map_err(Failure::failed)?,
            package: environment::package_directory().map_err(Failure::failed)?,
            instance: String::new(),
            accelerate: false,
            passband_dir: passbands::folder(settings).map_err(Failure::failed)?,
            root_folder: None,
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().map_err(Failure::failed)?;
        runtime.block_on(async { reap_children() }).map_err(Failure::failed)?;
        Ok(Self { settings, interpreter, runtime })
    }

    /// The folder of installed files.
    fn folder(&self) -> Result<&Path, Failure> {
        self.interpreter.passband_dir.as_deref().ok_or_else(|| {
            Failure::Usage(format!(
                "workers run as {:?}, who cannot read the data directory: name a folder that this \
                 user can read in [worker] passband_dir",
                self.settings.worker.user
            ))
        })
    }

    /// All passband files, in the order of PHOEBE's folders.
    fn files(&self) -> Result<Vec<PassbandFile>, Failure> {
        match self.ask(None).map_err(Failure::failed)? {
            PassbandAnswer::Files(files) => Ok(files),
            other => Err(Failure::failed(format!("PHOEBE answered out of turn: {other:?}"))),
        }
    }

    /// What PHOEBE says of one file, or why sessions could not use it.
    fn check(&self, file: &Path) -> Result<PassbandFile, String> {
        match self.ask(Some(file)).map_err(|error| error.to_string())? {
            PassbandAnswer::Accepted(passband) => Ok(passband),
            PassbandAnswer::Refused(reason) => Err(reason),
            PassbandAnswer::Files(_) => Err("PHOEBE answered out of turn".to_owned()),
        }
    }

    fn ask(&self, file: Option<&Path>) -> Result<PassbandAnswer, PassbandError> {
        self.runtime.block_on(inspect_passbands(&self.interpreter, self.settings, file))
    }

    /// Whether a file is one of those that were installed.
    fn is_installed(&self, file: &PassbandFile) -> bool {
        let folder = self.interpreter.passband_dir.as_deref();
        folder.is_some() && Path::new(&file.file).parent() == folder
    }
}
