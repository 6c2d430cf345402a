//! What each signal does to a running server. No signal ends it silently: some stop it, SIGHUP lets
//! it read its settings again, the others are logged or ignored.
//!
//! This module decides; [`crate::serve`] acts.

use std::fs::{self, File};
use std::future::pending;
use std::io;
use std::time::Duration;

use futures::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::worker::signal_name;

/// Signals that stop the server. SIGXCPU comes when its processor time is used up, each second
/// anew.
const STOP: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGXCPU];
/// Signals of which a second one ends a server that stops already.
const FORCE_STOP: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];
/// Signals that would end the server and mean nothing to it, besides those of real time.
const LOGGED: [i32; 8] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];
/// Signals that the kernel sends where a write cannot be done, which fails then, or where a server
/// in the background uses the terminal. Nothing is logged of them: the log may be the cause.
const IGNORED: [i32; 4] = [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGTTIN, libc::SIGTTOU];
/// A shell that ends its jobs sends SIGHUP some moments before the terminal is gone.
const TERMINAL_TIMEOUT: Duration = Duration::from_secs(3);
const TERMINAL_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To stop, because of this signal.
    Stop(i32),
    /// To read settings and certificates again.
    Reload,
}

/// The signals that are waited for.
pub struct Signals {
    stops: Vec<(i32, Signal)>,
    hangup: Signal,
    terminal: Terminal,
    /// SIGHUP came during the start.
    reload: bool,
}

impl Signals {
    /// From now on no signal ends this process by default, except those of a crash, SIGKILL and
    /// what stops and continues a job. To be called in a runtime.
    ///
    /// # Errors
    /// The system grants no handler.
    pub fn listen() -> io::Result<Self> {
        let terminal = Terminal::of_process();
        ignore(&IGNORED)?;
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        for number in LOGGED.into_iter().chain(real_time) {
            let signal = signal(SignalKind::from_raw(number))?;
            tokio::spawn(log_signal(number, signal));
        }
        let stops = STOP.into_iter().map(|number| Ok((number, handler(number)?)));
        Ok(Self {
            stops: stops.collect::<io::Result<_>>()?,
            hangup: handler(libc::SIGHUP)?,
            terminal,
            reload: false,
        })
    }

    /// Waits until the server is to stop before it serves; a reload is kept for
    /// [`Self::next_action`].
    pub async fn stopped_at_start(&mut self) -> i32 {
        loop {
            match self.next().await {
                Action::Stop(number) => return number,
                Action::Reload => self.reload = true,
            }
        }
    }

    /// Waits for the next action.
    pub async fn next_action(&mut self) -> Action {
        if std::mem::take(&mut self.reload) {
            return Action::Reload;
        }
        self.next().await
    }

    async fn next(&mut self) -> Action {
        let terminal_closed = self.terminal.closed();
        tokio::select! {
            number = first(&mut self.stops) => Action::Stop(number),
            () = terminal_closed => Action::Stop(libc::SIGHUP),
            _ = self.hangup.recv() => {
                if self.terminal.hangup_is_from_terminal() {
                    Action::Stop(libc::SIGHUP)
                } else {
                    Action::Reload
                }
            }
        }
    }

    /// Waits for a second signal, which ends a stopping server at once.
    pub async fn second_signal(&mut self) {
        self.stops.retain(|(number, _)| FORCE_STOP.contains(number));
        first(&mut self.stops).await;
        warn!("a second signal: ending at once");
    }
}

/// What a signal is called.
#[must_use]
pub fn name(number: i32) -> String {
    signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}

/// The terminal from which the server was started, if it was and is to end with it.
struct Terminal {
    is_held: bool,
    /// Until when to look whether it goes.
    look_until: Option<Instant>,
}

impl Terminal {
    fn of_process() -> Self {
        // `nohup` has SIGHUP ignored: the server is to outlive its terminal.
        Self { is_held: !is_ignored(libc::SIGHUP) && terminal_exists(), look_until: None }
    }

    /// Whether SIGHUP came because the terminal was closed.
    fn hangup_is_from_terminal(&mut self) -> bool {
        self.look_until = self.is_held.then(|| Instant::now() + TERMINAL_TIMEOUT);
        self.is_held && !terminal_exists()
    }

    /// Waits until the terminal is gone, for a while after SIGHUP; for ever otherwise.
    fn closed(&self) -> impl Future<Output = ()> + use<> {
        let look_until = self.look_until;
        async move {
            if let Some(until) = look_until {
                let gone = async {
                    while terminal_exists() {
                        sleep(TERMINAL_POLL_INTERVAL).await;
                    }
                };
                if timeout_at(until, gone).await.is_ok() {
                    return;
                }
            }
            pending().await
        }
    }
}

/// Whether this process has a controlling terminal. After a hang-up it has none.
fn terminal_exists() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether this process ignores a signal, as the kernel says.
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (number - 1)) != 0
}

fn handler(number: i32) -> io::Result<Signal> {
    signal(SignalKind::from_raw(number))
}

async fn first(signals: &mut [(i32, Signal)]) -> i32 {
    let waits = signals.iter_mut().map(|(number, signal)| {
        Box::pin(async move {
            signal.recv().await;
            *number
        })
    });
    select_all(waits).await.0
}

async fn log_signal(number: i32, mut signal: Signal) {
    while signal.recv().await.is_some() {
        info!(signal = name(number), "a signal that means nothing to the server");
    }
}

#[allow(unsafe_code, reason = "no safe call ignores a signal")]
fn ignore(numbers: &[i32]) -> io::Result<()> {
    for number in numbers {
        // SAFETY: SIG_IGN runs no code of ours, and nobody else in this process handles these.
        // The standard library and tokio have no call for it; a handler would not do, for a
        // write in the background with a handled SIGTTOU is tried again for ever.
        if unsafe { libc::signal(*number, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ignored_signals_from_the_kernel() {
        // Rust's runtime ignores it.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGCHLD));
    }
}
