//! What the database said a moment ago, so that not every request asks it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long an answer is believed without asking again.
const FRESH: Duration = Duration::from_secs(5);
/// Above this many answers, those that are not fresh are dropped.
const CROWDED: usize = 1000;

/// Answers by key. What may be asked must be bounded by the caller: only keys that were proved are
/// put in.
pub(super) struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

/// An answer and its age.
pub(super) struct Remembered<V> {
    pub(super) value: V,
    pub(super) is_fresh: bool,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<Remembered<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (at, value) = self.lock().get(key).cloned()?;
        Some(Remembered { value, is_fresh: at.elapsed() < FRESH })
    }

    pub(super) fn put(&self, key: K, value: V) {
        let mut answers = self.lock();
        if answers.len() >= CROWDED {
            answers.retain(|_, (at, _)| at.elapsed() < FRESH);
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
