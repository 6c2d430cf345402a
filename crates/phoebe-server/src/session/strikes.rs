//! Commands that end their worker again and again: after so many times in a row one is refused, with the reason.

use sha2::{Digest, Sha256};

/// So many times a command may end its worker.
const ALLOWED: u32 = 3;
/// So many suspects are remembered.
const SUSPECTS: usize = 16;

/// Who ended the worker, and how often in a row.
#[derive(Default)]
pub(super) struct Strikes {
    suspects: Vec<Suspect>,
}

struct Suspect {
    command: [u8; 32],
    count: u32,
    reason: String,
}

impl Strikes {
    /// Notes that the worker ended while `command` ran.
    pub(super) fn note(&mut self, command: &[u8], reason: &str) {
        let digest = digest(command);
        let place = self.suspects.iter().position(|suspect| suspect.command == digest);
        let count = place.map_or(0, |place| self.suspects.remove(place).count) + 1;
        if self.suspects.len() == SUSPECTS {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect { command: digest, count, reason: reason.to_owned() });
    }

    /// Notes that `command` was answered: it ends no worker.
    pub(super) fn clear(&mut self, command: &[u8]) {
        if !self.suspects.is_empty() {
            let digest = digest(command);
            self.suspects.retain(|suspect| suspect.command != digest);
        }
    }

    /// Why `command` is not run any more.
    pub(super) fn refusal(&self, command: &[u8]) -> Option<String> {
        if self.suspects.is_empty() {
            return None;
        }
        let digest = digest(command);
        let suspect = self.suspects.iter().find(|suspect| suspect.command == digest)?;
        (suspect.count >= ALLOWED).then(|| {
            format!(
                "This command ended the session's worker {ALLOWED} times in a row, so it is not run again. {} Change the command; \
                 everything before it is kept",
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
    fn three_in_a_row_are_enough() {
        let mut strikes = Strikes::default();
        for _ in 0..2 {
            strikes.note(b"a", "It crashed.");
            strikes.note(b"b", "It crashed.");
        }
        strikes.clear(b"b");
        strikes.note(b"a", "It crashed (SIGSEGV).");
        strikes.note(b"b", "It crashed.");
        assert!(strikes.refusal(b"a").unwrap().contains("SIGSEGV"));
        assert_eq!(strikes.refusal(b"b"), None);
        assert_eq!(strikes.refusal(b"c"), None);
        for other in 0..50u8 {
            strikes.note(&[other], "");
        }
        assert_eq!(strikes.suspects.len(), SUSPECTS);
    }
}
