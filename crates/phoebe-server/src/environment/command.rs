//! Programs that are run to their end, with a limit of time, every line they say being seen at
//! once.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How a program ended.
pub(super) struct Outcome {
    /// Its status; none if it was ended because it took too long.
    pub(super) status: Option<ExitStatus>,
    /// What it said, on both channels.
    pub(super) said: String,
}

impl Outcome {
    pub(super) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, in words.
    pub(super) fn end(&self) -> String {
        match self.status {
            None => "it took too long".to_owned(),
            Some(status) => status.to_string(),
        }
    }

    /// The last line it said.
    pub(super) fn last_line(&self) -> &str {
        self.said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()
    }
}

/// Runs `command`; tells each line of its output and errors to `see`.
///
/// # Errors
/// If it cannot be started.
pub(super) fn run(
    command: &mut Command,
    limit: Duration,
    mut see: impl FnMut(&str),
) -> io::Result<Outcome> {
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let (sender, lines) = channel();
    read_lines(child.stdout.take(), sender.clone());
    read_lines(child.stderr.take(), sender);
    let mut said = String::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                see(&line);
                said.push_str(&line);
                said.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                return Ok(Outcome { status: None, said });
            }
        }
    }
    // Both its channels are closed: it has ended or is about to.
    Ok(Outcome { status: Some(child.wait()?), said })
}

/// A file that was written a moment ago may still be open in a process that is being forked.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..20 {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
    command.spawn()
}

/// Sends the lines of `source` from a thread that ends with it.
fn read_lines(source: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(source) = source else { return };
    thread::spawn(move || {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
}
