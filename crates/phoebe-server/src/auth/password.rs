//! Passwords: bcrypt, off the runtime's threads and few at a time, so that logins cannot starve
//! everything else, nor registrations logins.
//!
//! bcrypt reads 72 bytes. A longer password is hashed before, and its hash carries a mark; shorter
//! ones are plain bcrypt, as earlier servers made them and can read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::AuthError;

/// bcrypt reads no more of a password.
const BCRYPT_BYTES: usize = 72;

/// Before a bcrypt hash that was made of the SHA-256 of the password, in Base64.
const MARK: &str = "sha256:";

/// Work factor of new hashes: 2¹² rounds.
const COST: u32 = 12;

/// The hash that is compared for an unknown account, so that it takes as long as a known one.
const UNKNOWN_ACCOUNT_HASH: &str = "$2b$12$4tsFBgZT9C1EHxoWRLNPduGi3FpX4TH8eG3NKcpzoHEsTXmzFuhPi";

/// How many may wait for each core that logins have. A hash takes a quarter of a second, so that
/// nobody waits for much longer than a minute, which most proxies allow.
const LOGINS_WAITING: usize = 256;
/// The same of registrations.
const REGISTRATIONS_WAITING: usize = 64;

/// Hashes and compares passwords.
#[derive(Clone)]
pub(super) struct Passwords {
    logins: Queue,
    registrations: Queue,
}

/// A bounded queue: limits how many run at once and how many wait.
#[derive(Clone)]
struct Queue {
    at_once: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// The permit to hash or compare one password.
pub(super) struct Turn {
    _at_once: OwnedSemaphorePermit,
    _room: OwnedSemaphorePermit,
}

impl Passwords {
    /// Uses half of the cores for logins, and a quarter for registrations: at least one each.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            logins: Queue::new((cores / 2).max(1), LOGINS_WAITING),
            registrations: Queue::new((cores / 4).max(1), REGISTRATIONS_WAITING),
        }
    }

    /// Waits for a turn to log in.
    ///
    /// # Errors
    /// [`AuthError::Busy`] where too many wait.
    pub(super) async fn turn_to_log_in(&self) -> Result<Turn, AuthError> {
        self.logins.turn().await
    }

    /// Waits for a turn to register.
    ///
    /// # Errors
    /// [`AuthError::Busy`] where too many wait.
    pub(super) async fn turn_to_register(&self) -> Result<Turn, AuthError> {
        self.registrations.turn().await
    }
}

impl Queue {
    fn new(at_once: usize, waiting: usize) -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(at_once)),
            room: Arc::new(Semaphore::new(at_once * (1 + waiting))),
        }
    }

    async fn turn(&self) -> Result<Turn, AuthError> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| AuthError::Busy)?;
        let at_once = Arc::clone(&self.at_once).acquire_owned().await;
        let at_once = at_once.map_err(|error| AuthError::Internal(error.to_string()))?;
        Ok(Turn { _at_once: at_once, _room: room })
    }
}

impl Turn {
    /// The hash to store for a new password.
    pub(super) async fn hash(self, password: String) -> Result<String, AuthError> {
        self.run(move || hash_now(&password)).await?
    }

    /// Whether `password` belongs to `hash`; without a hash the answer is no, after the same time.
    ///
    /// Of a hash without a mark, bytes after the 72nd are ignored, as they were when earlier
    /// servers made it: such accounts go on working.
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
        // The permit lives in the closure: a client that leaves does not free a core that is still
        // hashing.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(self);
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
        None => (UNKNOWN_ACCOUNT_HASH, None),
    };
    // A hash that cannot be read, e.g. of a locked account, fits no password, after the same time.
    let is_readable = hash.parse::<bcrypt::HashParts>().is_ok();
    let compared = if is_readable { hash } else { UNKNOWN_ACCOUNT_HASH };
    let same = bcrypt::verify(digest.as_deref().unwrap_or(password), compared).unwrap_or(false);
    same && is_readable && compared != UNKNOWN_ACCOUNT_HASH
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
    use futures::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new();
        let hash =
            passwords.turn_to_log_in().await.unwrap().hash("s3cret!".to_owned()).await.unwrap();
        assert!(hash.starts_with("$2b$12$"));
        for (password, hash, expected) in [
            ("s3cret!", Some(hash.clone()), true),
            ("s3cret", Some(hash), false),
            ("", None, false),
            ("x", Some("!locked".to_owned()), false),
            ("", Some(String::new()), false),
        ] {
            let turn = passwords.turn_to_log_in().await.unwrap();
            assert_eq!(turn.matches(password.to_owned(), hash).await.unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_account_costs_as_much_as_a_known_one() {
        let parts: bcrypt::HashParts = UNKNOWN_ACCOUNT_HASH.parse().unwrap();
        assert_eq!(parts.get_cost(), COST);
        assert!(
            matches!(bcrypt::verify("", UNKNOWN_ACCOUNT_HASH), Ok(false)),
            "a whole hash, of nothing known"
        );
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

    #[tokio::test]
    async fn the_queue_is_bounded_and_cancelled_requests_leave_it() {
        let queue = Queue::new(1, 2);
        let first = queue.turn().await.unwrap();
        let mut second = Box::pin(queue.turn());
        let mut third = Box::pin(queue.turn());
        for waiting in [&mut second, &mut third] {
            assert!(poll_immediate(waiting).await.is_none());
        }
        assert!(matches!(queue.turn().await, Err(AuthError::Busy)));
        drop(third);
        let mut fourth = Box::pin(queue.turn());
        assert!(poll_immediate(&mut fourth).await.is_none());
        drop(first);
        drop(second.await.unwrap());
        fourth.await.unwrap();
    }

    #[tokio::test]
    async fn registrations_take_no_turn_of_a_login() {
        let passwords = Passwords::new();
        let mut taken = Vec::new();
        while let Ok(permit) = Arc::clone(&passwords.registrations.room).try_acquire_owned() {
            taken.push(permit);
        }
        assert!(matches!(passwords.turn_to_register().await, Err(AuthError::Busy)));
        passwords.turn_to_log_in().await.unwrap();
    }
}
