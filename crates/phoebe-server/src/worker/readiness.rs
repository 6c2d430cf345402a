//! Whether Python is ready for sessions, for everybody to look at; and the look at it where no
//! zygote tells.

use std::sync::Arc;
use std::time::Duration;

use phoebe_protocol::packet::Info;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::interpreter::Interpreter;
use super::sandbox;

/// The import of PHOEBE takes seconds; on a machine under load, many.
pub(crate) const IMPORT_TIMEOUT: Duration = Duration::from_secs(180);
/// The pause before the second try; it doubles up to [`RETRY_PAUSE_MAXIMUM`].
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(250);
pub(crate) const RETRY_PAUSE_MAXIMUM: Duration = Duration::from_secs(30);

/// Whether Python is ready for sessions.
#[derive(Debug, Clone)]
pub(crate) enum Readiness {
    /// PHOEBE is being imported.
    Starting,
    /// Workers can be started.
    Ready(Arc<Info>),
    /// PHOEBE could not be imported; it will be tried again.
    Failed(String),
}

/// Asks a fresh interpreter, once if it answers, again and again if not, until `closing`.
pub(crate) fn probe(
    interpreter: Interpreter,
    closing: CancellationToken,
) -> watch::Receiver<Readiness> {
    let (publish, readiness) = watch::channel(Readiness::Starting);
    tokio::spawn(async move {
        closing.run_until_cancelled(probe_until_ready(&interpreter, &publish)).await;
    });
    readiness
}

async fn probe_until_ready(interpreter: &Interpreter, publish: &watch::Sender<Readiness>) {
    let mut pause = RETRY_PAUSE;
    loop {
        let reason = match timeout(IMPORT_TIMEOUT, interpreter.probe()).await {
            Ok(Ok(info)) => {
                sandbox::announce_metadata(&info);
                publish.send_replace(Readiness::Ready(Arc::new(info)));
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("PHOEBE was not imported within {} s", IMPORT_TIMEOUT.as_secs()),
        };
        error!(reason, retry_in_seconds = pause.as_secs_f64(), "PHOEBE cannot be used");
        publish.send_replace(Readiness::Failed(reason));
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAXIMUM);
    }
}
