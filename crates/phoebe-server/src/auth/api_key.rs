//! The form of a user's API key: `phk_PREFIX_SECRET`. The prefix is public, and finds the key in
//! the database; of the whole only a hash is kept. 256 random bits need no slow hash.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::identity::Identity;
use crate::store::{ApiKey, Holder};

/// What every key begins with.
const MARK: &str = "phk_";
/// Random bytes of the prefix.
const PREFIX_BYTES: usize = 6;
/// Random bytes of the secret.
const SECRET_BYTES: usize = 32;

/// Keys that one user may have.
pub(crate) const MOST_KEYS: usize = 20;
/// Days after which a key of another service's user expires at the latest: here nobody knows what
/// becomes of that user.
pub(crate) const MOST_DAYS_EXTERNAL: u32 = 90;
/// Days that a key may be good for.
pub(crate) const MOST_DAYS: u32 = 3650;

/// A new key. Its text is not stored.
pub(crate) struct FreshKey {
    /// The whole key.
    pub(crate) text: String,
    /// Its public beginning.
    pub(crate) prefix: String,
    /// What is kept of it.
    pub(crate) hash: String,
}

/// Makes a key.
pub(crate) fn fresh() -> FreshKey {
    let prefix = format!("{MARK}{}", hex::encode(rand::random::<[u8; PREFIX_BYTES]>()));
    let text = format!("{prefix}_{}", hex::encode(rand::random::<[u8; SECRET_BYTES]>()));
    FreshKey { hash: hash(&text), prefix, text }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// The user's key in a request: in `X-API-Key`, or as a bearer's token.
pub(super) fn offered(headers: &HeaderMap) -> Option<&str> {
    let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    [key, token.map(|(_, token)| token.trim())]
        .into_iter()
        .flatten()
        .find(|text| text.starts_with(MARK))
}

/// The public beginning of what may be a key.
pub(super) fn prefix(text: &str) -> Option<&str> {
    let (prefix, secret) = text.rsplit_once('_')?;
    let is_hex = |text: &str, bytes: usize| {
        text.len() == 2 * bytes && text.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    let has_form = is_hex(prefix.strip_prefix(MARK)?, PREFIX_BYTES) && is_hex(secret, SECRET_BYTES);
    has_form.then_some(prefix)
}

/// Returns whether `text` is this key. Compares in constant time.
pub(super) fn is(text: &str, key: &ApiKey) -> bool {
    hash(text).as_bytes().ct_eq(key.hash.as_bytes()).into()
}

impl Holder {
    /// The holder of a key that `identity` makes in this mode.
    pub(crate) fn of(mode: &'static str, identity: &Identity) -> Self {
        Self {
            mode,
            user_id: identity.user_id.clone(),
            email: identity.email.clone(),
            full_name: identity.full_name.clone(),
            role: identity.role.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_prefix_and_known_by_its_whole() {
        let (one, other) = (fresh(), fresh());
        assert_eq!(prefix(&one.text), Some(one.prefix.as_str()));
        assert_ne!(one.prefix, other.prefix);
        assert!(!one.hash.contains(&one.text[20..]) && one.text.len() == 81);
        let stored = ApiKey {
            id: 1,
            prefix: one.prefix.clone(),
            hash: one.hash.clone(),
            holder: Holder::of("jwt", &Identity::default()),
            name: String::new(),
            created_at: 0.0,
            expires_at: None,
            last_used_at: None,
        };
        assert!(is(&one.text, &stored));
        assert!(!is(&format!("{}_{}", one.prefix, &other.text[17..]), &stored));
        let short = &one.text[..80];
        for wrong in ["", "phk_", "phk_ab_cd", "phoebe_12", short, "phk_é_", "_"] {
            assert_eq!(prefix(wrong), None, "{wrong}");
        }
    }
}
