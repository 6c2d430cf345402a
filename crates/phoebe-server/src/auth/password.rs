//! Passwords: bcrypt, off the runtime's threads and few at a time, so that logins cannot starve everything else.
//!
//! bcrypt reads 72 bytes. A longer password is hashed before, and its hash carries a mark; shorter ones are plain bcrypt,
//! as earlier servers made them and can read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AuthError;

/// bcrypt reads no more of a password.
const BCRYPT_BYTES: usize = 72;

/// Before a bcrypt hash that was made of the SHA-256 of the password, in Base64.
const MARK: &str = "sha256:";

/// Work factor of new hashes: 2¹² rounds.
const COST: u32 = 12;

/// A hash nobody knows the password of: an unknown account costs as much time as a known one.
const NOBODY: &str = "$2b$12$4tsFBgZT9C1EHxoWRLNPduGi3FpX4TH8eG3NKcpzoHEsTXmzFuhPi";

/// Hashes and compares passwords.
#[derive(Clone)]
pub(super) struct Passwords {
    at_once: Arc<Semaphore>,
}

/// One's turn to hash or compare.
pub(super) struct Turn(OwnedSemaphorePermit);

impl Passwords {
    /// Uses at most half of the cores.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { at_once: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Result<Turn, AuthError> {
        let permit = Arc::clone(&self.at_once).acquire_owned().await;
        permit.map(Turn).map_err(|error| AuthError::Internal(error.to_string()))
    }
}

impl Turn {
    /// The hash to store for a new password.
    pub(super) async fn hash(self, password: String) -> Result<String, AuthError> {
        self.run(move || hash_now(&password)).await?
    }

    /// Whether `password` belongs to `hash`; without a hash the answer is no, after the same time.
    ///
    /// Of a hash without a mark, bytes after the 72nd are ignored, as they were when earlier servers made it: such
    /// accounts go on working.
    pub(super) async fn matches(
        self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, AuthError> {
        self.run(move || fits(&password, hash.as_deref())).await
    }

    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        // The permit lives in the closure: a client that leaves does not free a core that is still hashing.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(self.0);
            result
        })
        .await
        .map_err(|error| AuthError::Internal(error.to_string()))
    }
}

fn fits(password: &str, hash: Option<&str>) -> bool {
    let (hash, digest) = match hash.map(|hash| (hash, hash.strip_prefix(MARK))) {
        Some((_, Some(marked))) => (marked, Some(digest(password))),
        Some((hash, None)) => (hash, None),
        None => (NOBODY, None),
    };
    // A hash that cannot be read, e.g. of a locked account, fits no password, after the same time.
    let is_readable = hash.parse::<bcrypt::HashParts>().is_ok();
    let compared = if is_readable { hash } else { NOBODY };
    let same = bcrypt::verify(digest.as_deref().unwrap_or(password), compared).unwrap_or(false);
    same && is_readable && compared != NOBODY
}

fn digest(password: &str) -> String {
    STANDARD.encode(Sha256::digest(password))
}

/// The hash of a password, made now on this thread; for the command line.
pub(crate) fn hash_now(password: &str) -> Result<String, AuthError> {
    let hash = if password.len() > BCRYPT_BYTES {
        bcrypt::hash(digest(password), COST).map(|hash| format!("{MARK}{hash}"))
    } else {
        bcrypt::hash(password, COST)
    };
    hash.map_err(|error| AuthError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_fit_their_own_hash_only() {
        let passwords = Passwords::new();
        let hash = passwords.turn().await.unwrap().hash("s3cret!".to_owned()).await.unwrap();
        assert!(hash.starts_with("$2b$12$"));
        for (password, hash, expected) in [
            ("s3cret!", Some(hash.clone()), true),
            ("s3cret", Some(hash), false),
            ("", None, false),
            ("x", Some("!locked".to_owned()), false),
            ("", Some(String::new()), false),
        ] {
            let turn = passwords.turn().await.unwrap();
            assert_eq!(turn.matches(password.to_owned(), hash).await.unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_account_costs_as_much_as_a_known_one() {
        let parts: bcrypt::HashParts = NOBODY.parse().unwrap();
        assert_eq!(parts.get_cost(), COST);
        assert!(matches!(bcrypt::verify("", NOBODY), Ok(false)), "a whole hash, of nothing known");
    }

    #[test]
    fn a_long_password_counts_to_its_last_byte() {
        let long = "é".repeat(40);
        let hash = hash_now(&long).unwrap();
        assert!(hash.starts_with("sha256:$2b$12$"));
        assert!(fits(&long, Some(&hash)));
        assert!(!fits(&long[..78], Some(&hash)), "the first 72 bytes are not enough");
        assert!(!fits(&digest(&long), Some(&hash)), "what is hashed again is not the password");
    }

    #[test]
    fn a_long_password_of_an_earlier_server_is_compared_by_its_first_72_bytes() {
        let hash = bcrypt::hash("é".repeat(36), 4).unwrap();
        assert!(fits(&"é".repeat(40), Some(&hash)));
        assert!(!fits(&"é".repeat(35), Some(&hash)));
    }
}
