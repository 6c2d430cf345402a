//! What the settings alone let in: the password of mode `password`, and the API keys of `[auth]
//! api_keys`. Nobody in particular stands behind either.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::error::{AuthError, AuthSetupError};
use crate::config::{AuthSettings, MetricsSettings};

type Fingerprint = [u8; 32];

fn fingerprint(text: impl AsRef<[u8]>) -> Fingerprint {
    Sha256::digest(text).into()
}

/// The one password of mode `password`.
pub(super) struct SharedPassword(Fingerprint);

impl SharedPassword {
    /// The password of the settings.
    pub(super) fn new(settings: &AuthSettings) -> Result<Self, AuthSetupError> {
        match settings.password.expose() {
            "" => Err(AuthSetupError::NoPassword),
            password => Ok(Self(fingerprint(password))),
        }
    }

    /// Compares in constant time.
    pub(super) fn matches(&self, password: &str) -> bool {
        self.0.ct_eq(&fingerprint(password)).into()
    }
}

/// The secret that signs tokens, if nobody can guess it.
pub(super) fn checked_secret(settings: &AuthSettings) -> Result<&[u8], AuthSetupError> {
    match settings.jwt_secret_key.expose() {
        "" => Err(AuthSetupError::WeakSecret("empty")),
        "test" => Err(AuthSetupError::WeakSecret("\"test\"")),
        // Everybody has the public key of a pair.
        secret if secret.contains("-----BEGIN ") => {
            Err(AuthSetupError::WeakSecret("a key in PEM form"))
        }
        secret => Ok(secret.as_bytes()),
    }
}

/// The secret for tokens of mode `password`: a new password makes old tokens invalid, and so does a
/// restart where no secret is set.
pub(super) fn token_secret(settings: &AuthSettings) -> [u8; 32] {
    let secret = settings.jwt_secret_key.expose();
    let mut hash = Sha256::new();
    if secret.is_empty() {
        hash.update(rand::random::<[u8; 32]>());
    }
    hash.update(b"gate\0");
    hash.update(Sha256::digest(secret));
    hash.update(Sha256::digest(settings.password.expose()));
    hash.finalize().into()
}

/// The password of `Authorization: Basic …`; the user's name before it may be any.
pub(super) fn basic_password(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// The API keys of the settings, beside the mode: who has none of them is asked nothing more.
pub(super) struct ServerKeys(Option<Vec<Fingerprint>>);

impl ServerKeys {
    /// The keys that the settings ask for, if they ask.
    pub(super) fn new(settings: &AuthSettings) -> Result<Self, AuthSetupError> {
        let keys = || settings.api_keys.iter().map(|key| fingerprint(key.expose())).collect();
        let keys: Option<Vec<_>> = settings.enabled.then(keys);
        if keys.as_ref().is_some_and(Vec::is_empty) {
            return Err(AuthSetupError::NoApiKeys);
        }
        Ok(Self(keys))
    }

    /// Whether a request may pass.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), AuthError> {
        let Some(accepted) = &self.0 else { return Ok(()) };
        let given = headers.get("x-api-key").ok_or(AuthError::MissingApiKey)?;
        let given = fingerprint(given.as_bytes());
        // Every key is compared to its end: the time tells nothing.
        let fits = accepted.iter().fold(Choice::from(0), |fits, key| fits | key.ct_eq(&given));
        if bool::from(fits) { Ok(()) } else { Err(AuthError::InvalidApiKey) }
    }
}

/// The token that may read the metrics, if one is set.
pub(crate) struct MetricsToken(Option<Fingerprint>);

impl MetricsToken {
    /// The token of the settings.
    pub(crate) fn new(settings: &MetricsSettings) -> Self {
        let token = settings.token.expose();
        Self((!token.is_empty()).then(|| fingerprint(token)))
    }

    /// Whether the request brings it as a bearer token. Compares in constant time.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        match (&self.0, given) {
            (Some(token), Some((scheme, given))) if scheme.eq_ignore_ascii_case("bearer") => {
                token.ct_eq(&fingerprint(given.trim())).into()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn only_the_bearer_of_the_token_reads_the_metrics() {
        let is_in = |token: &str, header: &str| {
            let token = MetricsToken::new(&MetricsSettings { token: Secret::new(token) });
            token.is_in(&HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]))
        };
        assert!(is_in("t0ken", "Bearer t0ken") && is_in("t0ken", "bearer t0ken"));
        for header in ["Bearer t0ke", "Bearer t0kens", "Bearer ", "Bearer", "Basic t0ken", "t0ken"]
        {
            assert!(!is_in("t0ken", header), "{header}");
        }
        assert!(!is_in("", "Bearer ") && !is_in("", "Bearer x"));
        assert!(!MetricsToken::new(&MetricsSettings::default()).is_in(&HeaderMap::new()));
    }

    fn password_of(header: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
        basic_password(&headers)
    }

    #[test]
    fn the_password_follows_the_first_colon() {
        for (credentials, password) in [
            ("ada@x.org:open sesame", Some("open sesame")),
            (":open:sesame", Some("open:sesame")),
            ("ada:", Some("")),
            ("no colon", None),
        ] {
            let header = format!("Basic {}", STANDARD.encode(credentials));
            assert_eq!(password_of(&header).as_deref(), password, "{credentials}");
        }
        for header in ["Basic !", "Basic", "Bearer YTpi", "Basic /w=="] {
            assert_eq!(password_of(header), None, "{header}");
        }
        assert_eq!(password_of("bAsIc YTpi").as_deref(), Some("b"));
    }
}
