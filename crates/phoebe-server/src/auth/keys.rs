//! API keys of users: identifies their holders; creates, lists and revokes keys.

use std::time::{SystemTime, UNIX_EPOCH};

use super::api_key;
use super::authenticator::Authenticator;
use super::error::AuthError;
use super::identity::{Credential, Identity};
use super::role::Role;
use crate::store::{ApiKey, Holder, LogRecord, NewApiKey};

/// Seconds between two records of the use of a key.
const RECORD_USE_INTERVAL: f64 = 60.0;
const SECONDS_A_DAY: f64 = 86_400.0;

/// A request for a new key.
#[derive(Debug)]
pub struct KeyRequest {
    /// What its user calls it.
    pub name: String,
    /// Days until it expires; never where none are given.
    pub days: Option<u32>,
}

impl KeyRequest {
    /// The key to keep for `holder`, and its whole text, which is known now and never again.
    ///
    /// # Errors
    /// A name or a life that no key may have.
    pub(crate) fn create(self, holder: Holder) -> Result<(NewApiKey, String), AuthError> {
        let is_external = holder.mode == "external";
        let most = if is_external { api_key::MOST_DAYS_EXTERNAL } else { api_key::MOST_DAYS };
        let days = self.days.or(is_external.then_some(most));
        if days.is_some_and(|days| !(1..=most).contains(&days)) {
            let text = format!("A key here is good for 1 to {most} days");
            return Err(AuthError::BadCredentials(text));
        }
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
            let text = "A key needs a name to tell it from others: 1 to 100 characters, no control \
                        characters";
            return Err(AuthError::BadCredentials(text.to_owned()));
        }
        let fresh = api_key::fresh();
        let life_seconds = days.map(|days| f64::from(days) * SECONDS_A_DAY);
        let key = NewApiKey { prefix: fresh.prefix, hash: fresh.hash, holder, name, life_seconds };
        Ok((key, fresh.text))
    }
}

/// The time in Unix seconds.
fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Authenticator {
    /// Who stands behind a user's API key.
    pub(super) async fn identity_of_key(
        &self,
        mode: &'static str,
        text: &str,
    ) -> Result<Identity, AuthError> {
        let prefix = api_key::prefix(text).ok_or(AuthError::InvalidApiKey)?;
        let (key, from_database) = self.find(prefix).await?.ok_or(AuthError::InvalidApiKey)?;
        if !api_key::is(text, &key) || key.holder.mode != mode {
            return Err(AuthError::InvalidApiKey);
        }
        if key.expires_at.is_some_and(|expires_at| expires_at <= unix_now()) {
            return Err(AuthError::ExpiredApiKey);
        }
        if from_database {
            self.shared.key_cache.keys.put(prefix.to_owned(), key.clone());
        }
        let claimed = Identity {
            user_id: key.holder.user_id,
            email: key.holder.email,
            full_name: key.holder.full_name,
            role: Role::or_student(&key.holder.role),
            credential: Credential::ApiKey,
            ..Identity::default()
        };
        let identity = if mode == "jwt" { self.current_user(claimed).await? } else { claimed };
        self.record_use(key.id);
        Ok(identity)
    }

    /// The key with this public beginning, and whether the database said so just now.
    async fn find(&self, prefix: &str) -> Result<Option<(ApiKey, bool)>, AuthError> {
        let remembered = self.shared.key_cache.keys.get(prefix);
        match remembered {
            Some(key) if key.is_fresh => Ok(Some((key.value, false))),
            remembered => match self.shared.store.api_key(prefix).await {
                Ok(key) => {
                    if key.is_none() {
                        self.shared.key_cache.keys.forget(prefix);
                    }
                    Ok(key.map(|key| (key, true)))
                }
                // As with users: a database in trouble keeps nobody out who was let in before.
                Err(error) => remembered.map(|key| Some((key.value, false))).ok_or(error.into()),
            },
        }
    }

    /// Records the use of a key, at most once in [`RECORD_USE_INTERVAL`]. Does not wait.
    fn record_use(&self, id: i64) {
        let (cache, now) = (&self.shared.key_cache, unix_now());
        if cache.recorded_use.get(&id).is_none_or(|at| now - at.value >= RECORD_USE_INTERVAL) {
            cache.recorded_use.put(id, now);
            self.shared.store.log(LogRecord::ApiKeyUsed { id, at: now });
        }
    }

    /// Makes a key for a user, and tells its whole text, this once.
    ///
    /// # Errors
    /// A name or a validity that is not allowed, too many keys, the database.
    pub async fn create_key(
        &self,
        identity: Option<&Identity>,
        request: KeyRequest,
    ) -> Result<(ApiKey, String), AuthError> {
        let (mode, identity) = self.manages_keys(identity)?;
        let (key, text) = request.create(Holder::of(mode, identity))?;
        let kept = self.shared.store.create_api_key(key, api_key::MOST_KEYS).await?;
        kept.map(|key| (key, text)).ok_or(AuthError::TooManyKeys)
    }

    /// A user's keys, oldest first.
    ///
    /// # Errors
    /// The database, or there are no users.
    pub async fn keys_of(&self, identity: Option<&Identity>) -> Result<Vec<ApiKey>, AuthError> {
        let (mode, identity) = self.manages_keys(identity)?;
        Ok(self.shared.store.api_keys_of(mode, &identity.user_id).await?)
    }

    /// Ends one of a user's keys, at once.
    ///
    /// # Errors
    /// The user has no such key, the database, or there are no users.
    pub async fn revoke_key(&self, identity: Option<&Identity>, id: i64) -> Result<(), AuthError> {
        let keys = self.keys_of(identity).await?;
        let key = keys.into_iter().find(|key| key.id == id).ok_or(AuthError::UnknownKey)?;
        self.shared.store.revoke_api_key(key.id).await?;
        self.shared.key_cache.keys.forget(key.prefix.as_str());
        Ok(())
    }

    /// The mode and the user, where there are users, and this one came by more than a key: a key
    /// that leaked must not make others that outlive it.
    fn manages_keys<'a>(
        &self,
        identity: Option<&'a Identity>,
    ) -> Result<(&'static str, &'a Identity), AuthError> {
        let mode = self.mode_of_keys().ok_or(AuthError::NoIdentity)?;
        let identity = identity.ok_or(AuthError::NoIdentity)?;
        match identity.credential {
            Credential::Token => Ok((mode, identity)),
            Credential::ApiKey => Err(AuthError::NeedsLogin),
        }
    }
}
