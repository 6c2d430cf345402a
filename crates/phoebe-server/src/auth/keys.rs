//! API keys of users: who stands behind one, and their making, listing and end.

use super::memory::Memory;
use super::{AuthError, Authenticator, Credential, Identity, Role, api_key, unix_now};
use crate::store::{ApiKey, Holder, LogRecord, NewApiKey};

/// Seconds between two notes of when a key was used.
const NOTE_USE_EVERY: f64 = 60.0;
const SECONDS_A_DAY: f64 = 86_400.0;

/// The keys that were used a moment ago, and when their use was noted last.
pub(super) struct Keys {
    found: Memory<String, ApiKey>,
    noted: Memory<i64, f64>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { found: Memory::new(), noted: Memory::new() }
    }
}

/// A wish for a key.
#[derive(Debug)]
pub struct KeyWish {
    /// What its user calls it.
    pub name: String,
    /// Days until it expires; never where none are given.
    pub days: Option<u32>,
}

impl KeyWish {
    /// The key to keep for `holder`, and its whole text, which is known now and never again.
    ///
    /// # Errors
    /// A name or a life that no key may have.
    pub(crate) fn fulfil(self, holder: Holder) -> Result<(NewApiKey, String), AuthError> {
        let is_external = holder.mode == "external";
        let most = if is_external { api_key::MOST_DAYS_EXTERNAL } else { api_key::MOST_DAYS };
        let days = self.days.or(is_external.then_some(most));
        if days.is_some_and(|days| !(1..=most).contains(&days)) {
            let text = format!("A key here is good for 1 to {most} days");
            return Err(AuthError::BadCredentials(text));
        }
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
            let text = "A key needs a name to tell it from others: 1 to 100 characters, no control characters";
            return Err(AuthError::BadCredentials(text.to_owned()));
        }
        let fresh = api_key::fresh();
        let life_seconds = days.map(|days| f64::from(days) * SECONDS_A_DAY);
        let key = NewApiKey { prefix: fresh.prefix, hash: fresh.hash, holder, name, life_seconds };
        Ok((key, fresh.text))
    }
}

impl Authenticator {
    /// Who stands behind a user's API key.
    pub(super) async fn holder_of(
        &self,
        mode: &'static str,
        text: &str,
    ) -> Result<Identity, AuthError> {
        let prefix = api_key::prefix(text).ok_or(AuthError::InvalidApiKey)?;
        let (key, is_news) = self.find(prefix).await?.ok_or(AuthError::InvalidApiKey)?;
        if !api_key::is(text, &key) || key.holder.mode != mode {
            return Err(AuthError::InvalidApiKey);
        }
        if key.expires_at.is_some_and(|expires_at| expires_at <= unix_now()) {
            return Err(AuthError::ExpiredApiKey);
        }
        if is_news {
            self.shared.keys.found.put(prefix.to_owned(), key.clone());
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
        self.note_use(key.id);
        Ok(identity)
    }

    /// The key with this public beginning, and whether the database said so just now.
    async fn find(&self, prefix: &str) -> Result<Option<(ApiKey, bool)>, AuthError> {
        let remembered = self.shared.keys.found.get(prefix);
        match remembered {
            Some(key) if key.is_fresh => Ok(Some((key.value, false))),
            remembered => match self.shared.store.api_key(prefix).await {
                Ok(key) => {
                    if key.is_none() {
                        self.shared.keys.found.forget(prefix);
                    }
                    Ok(key.map(|key| (key, true)))
                }
                // As with users: a database in trouble keeps nobody out who was let in before.
                Err(error) => remembered.map(|key| Some((key.value, false))).ok_or(error.into()),
            },
        }
    }

    /// Notes that a key is used; not each time, and nobody waits for it.
    fn note_use(&self, id: i64) {
        let (keys, now) = (&self.shared.keys, unix_now());
        if keys.noted.get(&id).is_none_or(|at| now - at.value >= NOTE_USE_EVERY) {
            keys.noted.put(id, now);
            self.shared.store.log(LogRecord::ApiKeyUsed { id, at: now });
        }
    }

    /// Makes a key for a user, and tells its whole text, this once.
    ///
    /// # Errors
    /// A wish that cannot be fulfilled, too many keys, the database.
    pub async fn create_key(
        &self,
        identity: Option<&Identity>,
        wish: KeyWish,
    ) -> Result<(ApiKey, String), AuthError> {
        let (mode, identity) = self.manages_keys(identity)?;
        let (key, text) = wish.fulfil(Holder::of(mode, identity))?;
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
        self.shared.keys.found.forget(key.prefix.as_str());
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
