//! Counts how often a command crashed its worker in a row. After [`CRASHES_MAX`] times the command
//! is refused, with the reason.

use sha2::{Digest, Sha256};

/// A command may crash its worker this many times in a row.
const CRASHES_MAX: u32 = 3;
/// This many commands are remembered.
const SUSPECTS: usize = 16;

/// The commands that crashed the worker, and how often in a row.
#[derive(Default)]
pub(super) struct CrashCounter {
    suspects: Vec<Suspect>,
}

struct Suspect {
    command: [u8; 32],
    count: u32,
    reason: String,
}

impl CrashCounter {
    /// Records that the worker ended while `command` ran.
    pub(super) fn record(&mut self, command: &[u8], reason: &str) {
        let digest = digest(command);
        let place = self.suspects.iter().position(|suspect| suspect.command == digest);
        let count = place.map_or(0, |place| self.suspects.remove(place).count) + 1;
        if self.suspects.len() == SUSPECTS {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect { command: digest, count, reason: reason.to_owned() });
    }

    /// Records that `command` was answered.
    pub(super) fn clear(&mut self, command: &[u8]) {
        if !self.suspects.is_empty() {
            let digest = digest(command);
            self.suspects.retain(|suspect| suspect.command != digest);
        }
    }

    /// Why `command` is refused, if it is.
    pub(super) fn refusal(&self, command: &[u8]) -> Option<String> {
        if self.suspects.is_empty() {
            return None;
        }
        let digest = digest(command);
        let suspect = self.suspects.iter().find(|suspect| suspect.command == digest)?;
        (suspect.count >= CRASHES_MAX).then(|| {
            format!(
                "This command ended the session's worker {CRASHES_MAX} times in a row, so it is \
                 not run again. {} Change the command; everything before it is kept",
                suspect.reason
            )
        })
    }
}

fn digest(command: &[u8]) -> [u8; 32] {
    Sha256::digest(command).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_refused_after_three_crashes_in_a_row() {
        let mut crashes = CrashCounter::default();
        for _ in 0..2 {
            crashes.record(b"a", "It crashed.");
            crashes.record(b"b", "It crashed.");
        }
        crashes.clear(b"b");
        crashes.record(b"a", "It crashed (SIGSEGV).");
        crashes.record(b"b", "It crashed.");
        assert!(crashes.refusal(b"a").unwrap().contains("SIGSEGV"));
        assert_eq!(crashes.refusal(b"b"), None);
        assert_eq!(crashes.refusal(b"c"), None);
        for other in 0..50u8 {
            crashes.record(&[other], "");
        }
        assert_eq!(crashes.suspects.len(), SUSPECTS);
    }
}
