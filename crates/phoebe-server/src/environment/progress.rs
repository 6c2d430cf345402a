//! How far the making of the environment is: a bar on a terminal, log lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells a user what a long preparation is doing.
pub struct Progress {
    started: Instant,
    /// None where standard error is no terminal.
    bar: Option<ProgressBar>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// On standard error; nothing is shown before the first step.
    #[must_use]
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { started: Instant::now(), bar: terminal.then(ProgressBar::no_length) }
    }

    /// Package `position` of `total` is being prepared; `total` 0 where there is nothing to count.
    pub(super) fn step(&self, position: u64, total: u64, what: &str) {
        let Some(bar) = &self.bar else {
            let elapsed_seconds = self.started.elapsed().as_secs();
            tracing::info!(position, total, elapsed_seconds, what, "preparing Python and PHOEBE");
            return;
        };
        let template = match total {
            0 => "{spinner} Preparing Python and PHOEBE [{elapsed}] {msg}",
            _ => "{spinner} Preparing Python and PHOEBE [{elapsed}] {bar:20} {pos}/{len} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar.set_length(total);
        bar.set_position(position);
        bar.set_message(what.to_owned());
    }

    /// It is finished.
    pub(super) fn done(&self, message: &str) {
        self.clear();
        tracing::info!(elapsed_seconds = self.started.elapsed().as_secs(), "{message}");
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
