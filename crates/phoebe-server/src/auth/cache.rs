//! A cache of recent answers of the database.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::ApiKey;

/// The age up to which an answer is used without asking again.
const MAXIMUM_AGE: Duration = Duration::from_secs(5);
/// Above this many answers, those that are not fresh are dropped.
const PURGE_THRESHOLD: usize = 1000;

/// Answers by key. What may be asked must be bounded by the caller: only keys that were proved are
/// put in.
pub(super) struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

/// An answer and its age.
pub(super) struct Cached<V> {
    pub(super) value: V,
    pub(super) is_fresh: bool,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<Cached<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (at, value) = self.lock().get(key).cloned()?;
        Some(Cached { value, is_fresh: at.elapsed() < MAXIMUM_AGE })
    }

    pub(super) fn put(&self, key: K, value: V) {
        let mut answers = self.lock();
        if answers.len() >= PURGE_THRESHOLD {
            answers.retain(|_, (at, _)| at.elapsed() < MAXIMUM_AGE);
        }
        answers.insert(key, (Instant::now(), value));
    }

    pub(super) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Recently used API keys.
pub(super) struct KeyCache {
    /// By their public prefix.
    pub(super) keys: Cache<String, ApiKey>,
    /// When the use of a key was last recorded, in Unix seconds, by its id.
    pub(super) recorded_use: Cache<i64, f64>,
}

impl KeyCache {
    pub(super) fn new() -> Self {
        Self { keys: Cache::new(), recorded_use: Cache::new() }
    }
}
