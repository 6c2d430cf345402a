//! What a Python process writes to its standard output and error goes to the server's log, line by line, with the session's id.
//!
//! A process may write as much and as fast as it likes: the pipe is always drained, long lines are cut, and beyond a rate lines are
//! counted instead of logged.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tracing::{info, warn};

/// The longest line that is logged whole, in bytes.
const LINE_MAXIMUM: usize = 2048;
/// Lines a second that one process may log.
const LINES_PER_SECOND: u32 = 100;

/// Makes a pipe, logs what is written to it, and returns the end to write to.
pub(crate) fn open(source: String) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    let receiver = pipe::Receiver::from_owned_fd(read)?;
    tokio::spawn(drain(receiver, source));
    Ok(write)
}

async fn drain(mut pipe: pipe::Receiver, source: String) {
    let mut lines = Lines::default();
    let mut rate = Rate::new(Instant::now());
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        lines.feed(&buffer[..length], |line| match rate.pass(Instant::now()) {
            Pass::Yes { suppressed: 0 } => info!(%source, line, "worker output"),
            Pass::Yes { suppressed } => {
                warn!(%source, suppressed, "worker output came too fast, lines were left out");
                info!(%source, line, "worker output");
            }
            Pass::No => {}
        });
    }
    lines.finish(|line| info!(%source, line, "worker output"));
    if rate.suppressed > 0 {
        let suppressed = rate.suppressed;
        warn!(%source, suppressed, "worker output came too fast, lines were left out");
    }
}

/// Cuts bytes into lines of bounded length.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_MAXIMUM - self.pending.len().min(LINE_MAXIMUM);
            self.pending.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.finish(&mut line);
            }
        }
    }

    fn finish(&mut self, mut line: impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.pending);
        let text = text.trim_end();
        if !text.is_empty() {
            line(text);
        }
        self.pending.clear();
    }
}

/// Lets so many lines pass in a second, and counts the rest.
struct Rate {
    second: Instant,
    passed: u32,
    suppressed: u64,
}

enum Pass {
    Yes { suppressed: u64 },
    No,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { second: now, passed: 0, suppressed: 0 }
    }

    fn pass(&mut self, now: Instant) -> Pass {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.passed = 0;
        }
        if self.passed == LINES_PER_SECOND {
            self.suppressed += 1;
            return Pass::No;
        }
        self.passed += 1;
        Pass::Yes { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_newlines_and_at_the_bound() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        lines.feed(b"one\ntw", |line| seen.push(line.to_owned()));
        lines.feed(b"o\n\n", |line| seen.push(line.to_owned()));
        lines.feed(&vec![b'x'; 5 * LINE_MAXIMUM], |line| seen.push(line.to_owned()));
        lines.feed(b"y\nend", |line| seen.push(line.to_owned()));
        lines.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", &"x".repeat(LINE_MAXIMUM), "end"]);
    }

    #[test]
    fn a_flood_is_counted_and_reported_in_the_next_second() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let passed = (0..1000).filter(|_| matches!(rate.pass(start), Pass::Yes { .. })).count();
        assert_eq!(passed, LINES_PER_SECOND as usize);
        let later = start + Duration::from_secs(1);
        assert!(matches!(rate.pass(later), Pass::Yes { suppressed: 900 }));
    }
}
