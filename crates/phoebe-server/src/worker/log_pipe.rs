//! What a Python process writes to its standard output and error goes to the server's log, line by
//! line, with the session's id.
//!
//! A process may write as much and as fast as it likes: the pipe is always drained, long lines are
//! cut, and beyond a rate lines are counted instead of logged.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tracing::{info, warn};

/// The longest line that is logged whole, in bytes.
const LINE_MAXIMUM: usize = 2048;
/// Lines a second that one process may log.
const LINES_PER_SECOND: u32 = 100;
/// Bytes that it may log at once, and those that it earns again each second: in the long run 100 MB
/// a day.
const BYTES_AT_ONCE: usize = 512 * 1024;
const BYTES_PER_SECOND: usize = 1024;
/// What the log adds to a line: time, session, and a word on lines that were left out.
const BYTES_AROUND: usize = 256;

/// Makes a pipe, logs what is written to it, and returns the end to write to. Whose it is may
/// become known later.
pub(crate) fn open(source: Arc<OnceLock<String>>) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    let receiver = pipe::Receiver::from_owned_fd(read)?;
    tokio::spawn(drain(receiver, source));
    Ok(write)
}

/// The name of a process that never serves a session.
pub(crate) fn fixed_source(name: &str) -> Arc<OnceLock<String>> {
    Arc::new(OnceLock::from(name.to_owned()))
}

async fn drain(mut pipe: pipe::Receiver, source: Arc<OnceLock<String>>) {
    let source = || source.get().map_or("a spare worker", String::as_str);
    let mut lines = Lines::default();
    let mut rate = Rate::new(Instant::now());
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        lines.feed(&buffer[..length], |line| match rate.pass(Instant::now(), line.len()) {
            Pass::Yes { suppressed: 0 } => info!(source = source(), line, "worker output"),
            Pass::Yes { suppressed } => {
                warn!(
                    source = source(),
                    suppressed, "worker output came too fast, lines were left out"
                );
                info!(source = source(), line, "worker output");
            }
            Pass::No => {}
        });
    }
    lines.finish(|line| info!(source = source(), line, "worker output"));
    if rate.suppressed > 0 {
        let suppressed = rate.suppressed;
        warn!(source = source(), suppressed, "worker output came too fast, lines were left out");
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

/// Lets so many lines pass in a second, and in the long run so many bytes; counts the rest.
struct Rate {
    second: Instant,
    passed: u32,
    bytes: usize,
    suppressed: u64,
}

enum Pass {
    Yes { suppressed: u64 },
    No,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { second: now, passed: 0, bytes: BYTES_AT_ONCE, suppressed: 0 }
    }

    fn pass(&mut self, now: Instant, length: usize) -> Pass {
        let seconds = now.duration_since(self.second).as_secs();
        if seconds >= 1 {
            let earned = usize::try_from(seconds).unwrap_or(usize::MAX);
            self.bytes = earned
                .saturating_mul(BYTES_PER_SECOND)
                .saturating_add(self.bytes)
                .min(BYTES_AT_ONCE);
            self.second = now;
            self.passed = 0;
        }
        let cost = length + BYTES_AROUND;
        if self.passed == LINES_PER_SECOND || self.bytes < cost {
            self.suppressed += 1;
            return Pass::No;
        }
        self.passed += 1;
        self.bytes -= cost;
        Pass::Yes { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let passed =
            (0..1000).filter(|_| matches!(rate.pass(start, 100), Pass::Yes { .. })).count();
        assert_eq!(passed, LINES_PER_SECOND as usize);
        let later = start + Duration::from_secs(1);
        assert!(matches!(rate.pass(later, 100), Pass::Yes { suppressed: 900 }));
    }
    #[test]
    fn in_the_long_run_bytes_are_bounded() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut passed = 0;
        for second in 0..3600 {
            for _ in 0..200 {
                let now = start + Duration::from_secs(second);
                if matches!(rate.pass(now, LINE_MAXIMUM), Pass::Yes { .. }) {
                    passed += LINE_MAXIMUM;
                }
            }
        }
        assert!(passed <= BYTES_AT_ONCE + 3600 * BYTES_PER_SECOND, "{passed}");
        assert!(passed > 1024 * 1024, "{passed}");
    }
}
