//! A look at passband files through PHOEBE, for what no zygote tells: the command line's, and the
//! list of a server without a zygote.
//!
//! Files come from elsewhere, and PHOEBE evaluates a part of them: the process that opens one is
//! contained as a worker is.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use phoebe_protocol::packet::{Info, Limits, PassbandAnswer, PassbandRequest, Start};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::error::LaunchError;
use super::interpreter::Interpreter;
use super::sandbox::{Containment, SandboxError};
use crate::config::Settings;

/// The import of PHOEBE and the reading of files may take so long.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Why nothing could be said of passband files.
#[derive(Debug, Error)]
pub enum PassbandError {
    /// The containment.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The operating system refused something.
    #[error("PHOEBE cannot be started: {0}")]
    System(#[from] io::Error),
    /// No answer.
    #[error(
        "PHOEBE ended before it had read the file: a file that needs more memory than \
         [resources] worker_memory_mb allows, or is made to do harm, does that; so does an \
         environment that `phoebe-server doctor` finds wrong"
    )]
    NoAnswer,
    /// No answer in time.
    #[error("PHOEBE did not read the file within {} s", TIMEOUT.as_secs())]
    TooSlow,
}

/// Asks PHOEBE, in a contained process: which passband files there are, or whether `file` is one
/// that sessions can use.
///
/// # Errors
/// When PHOEBE says nothing.
pub async fn inspect_passbands(
    interpreter: &Interpreter,
    settings: &Settings,
    file: Option<&Path>,
) -> Result<PassbandAnswer, PassbandError> {
    // Another account must be able to pass through.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    let place = tempfile::Builder::new().prefix("phoebe-server-").permissions(all).tempdir()?;
    let containment = Containment::plan_in(&settings.worker, &place.path().join("scratch"))?;
    let memory_mb = Some(settings.resources.worker_memory_mb).filter(|megabytes| *megabytes > 0);
    let mut start = Start {
        session: "passbands".to_owned(),
        port: u16::MAX,
        key: "00".repeat(32),
        limits: Limits { memory_mb, ..Limits::default() },
        sandbox: None,
    };
    let mut _scratch = None;
    if let Some(containment) = &containment {
        let (sandbox, scratch) = containment.for_worker()?;
        start.limits = Limits { memory_mb, ..containment.limits() };
        start.sandbox = Some(sandbox);
        _scratch = Some(scratch);
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let folder = interpreter.passband_dir.as_deref().map(text);
    let request = PassbandRequest { start, folder, check: file.map(text) };
    match timeout(TIMEOUT, interpreter.inspect_passbands(&request)).await {
        Ok(answer) => answer?.ok_or(PassbandError::NoAnswer),
        Err(_) => Err(PassbandError::TooSlow),
    }
}

/// The passbands of a server whose workers are fresh interpreters: asked for anew when the folder
/// has changed.
#[derive(Default)]
pub(super) struct PassbandList {
    asked: Mutex<Option<(Option<SystemTime>, Vec<String>)>>,
}

impl PassbandList {
    /// The list as it is now. `info` is what an interpreter said at the server's start.
    pub(super) async fn current(
        &self,
        interpreter: &Interpreter,
        info: &Info,
    ) -> Result<Vec<String>, LaunchError> {
        let changed = interpreter.passband_dir.as_deref().and_then(changed_at);
        let mut asked = self.asked.lock().await;
        match &*asked {
            Some((at, names)) if *at == changed => return Ok(names.clone()),
            None if changed.is_none() => return Ok(info.passbands.clone()),
            _ => {}
        }
        let names = interpreter.probe().await?.passbands;
        *asked = Some((changed, names.clone()));
        Ok(names)
    }
}

fn changed_at(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder).and_then(|found| found.modified()).ok()
}
