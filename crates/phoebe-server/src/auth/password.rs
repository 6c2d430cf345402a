//! Passwords: bcrypt, off the runtime's threads and few at a time, so that logins cannot starve everything else.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::AuthError;

/// bcrypt reads no more of a password.
const MAX_PASSWORD_BYTES: usize = 72;

/// Work factor of new hashes: 2¹² rounds.
const COST: u32 = 12;

/// A hash nobody knows the password of: an unknown account costs as much time as a known one.
const NOBODY: &str = "$2b$12$4tsFBgZT9C1EHxoWRLNPduGi3FpX4TH8eG3NKcpzoHEsTXmzFuhPi";

/// Hashes and compares passwords.
#[derive(Clone)]
pub(super) struct Passwords {
    at_once: Arc<Semaphore>,
}

impl Passwords {
    /// Uses at most half of the cores.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { at_once: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }

    /// The hash to store for a new password, all of which has to fit.
    pub(super) async fn hash(&self, password: String) -> Result<String, AuthError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(AuthError::BadCredentials(
                "The password is longer than 72 bytes; choose a shorter one",
            ));
        }
        self.run(move || bcrypt::hash(password, COST))
            .await?
            .map_err(|error| AuthError::Internal(error.to_string()))
    }

    /// Whether `password` belongs to `hash`; without a hash the answer is no, after the same time.
    ///
    /// Bytes after the 72nd are ignored, as they were when earlier servers made their hashes: such accounts go on working.
    pub(super) async fn matches(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, AuthError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        // A hash that cannot be read, e.g. of a locked account, fits no password.
        let fits = self.run(move || bcrypt::verify(password, &hash).unwrap_or(false)).await?;
        Ok(known && fits)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let permit = Arc::clone(&self.at_once)
            .acquire_owned()
            .await
            .map_err(|error| AuthError::Internal(error.to_string()))?;
        // The permit lives in the closure: a client that leaves does not free a core that is still hashing.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .map_err(|error| AuthError::Internal(error.to_string()))
    }
}

/// The hash of a password, made now on this thread; for the start of the server.
pub(super) fn hash_now(password: &str) -> Result<String, bcrypt::BcryptError> {
    bcrypt::hash(password, COST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_fit_their_own_hash_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash("s3cret!".to_owned()).await.unwrap();
        assert!(hash.starts_with("$2b$12$"));
        assert!(passwords.matches("s3cret!".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.matches("s3cret".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.matches(String::new(), None).await.unwrap());
        assert!(!passwords.matches("x".to_owned(), Some("!locked".to_owned())).await.unwrap());
    }

    #[test]
    fn an_unknown_account_costs_as_much_as_a_known_one() {
        let parts: bcrypt::HashParts = NOBODY.parse().unwrap();
        assert_eq!(parts.get_cost(), COST);
        assert!(matches!(bcrypt::verify("", NOBODY), Ok(false)), "a whole hash, of nothing known");
    }

    #[tokio::test]
    async fn a_long_password_of_an_earlier_server_is_compared_by_its_first_72_bytes() {
        let passwords = Passwords::new();
        let hash = passwords.hash("é".repeat(36)).await.unwrap();
        assert!(passwords.matches("é".repeat(40), Some(hash)).await.unwrap());
        assert!(passwords.hash("é".repeat(37)).await.is_err(), "a new one is never cut");
    }
}
