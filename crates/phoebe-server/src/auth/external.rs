//! Mode `external`: tokens that another service signed. A token that its keys verify is believed;
//! there are no local users.
//!
//! Which algorithm a token may use is said by the keys and the settings, never by the token.

mod claims;
mod key_ring;
mod keys;
mod source;
#[cfg(test)]
mod tests;

use std::str::FromStr as _;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};

use claims::Claims;
use key_ring::{KeyRing, RefreshIntervals};
use keys::Keys;
use source::{Source, SourceError};

use super::error::{AuthError, AuthSetupError};
use super::identity::Identity;
use super::token::{Header, not_allowed, read_header, refusal};
use crate::config::AuthSettings;

/// Why a token is refused.
enum Refusal {
    /// Another key might verify it.
    OtherKey(AuthError),
    /// No key could make it good.
    Final(AuthError),
}

/// Verifies tokens of another service.
pub(super) struct ExternalTokens {
    keys: KeyRing,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway_seconds: u64,
    role_claim: String,
}

impl ExternalTokens {
    /// Takes the keys that the settings name: a key set, a public key, or a shared secret.
    ///
    /// Must be called inside a runtime: keys of files and URLs are kept fresh by a task.
    pub(super) fn from_settings(settings: &AuthSettings) -> Result<Self, AuthSetupError> {
        let allowed = settings
            .jwt_algorithm
            .iter()
            .map(|name| Algorithm::from_str(name))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| AuthSetupError::Algorithm(settings.jwt_algorithm.join(", ")))?;
        if settings.jwt_secret_key.is_empty() && settings.jwt_audience.is_empty() {
            tracing::warn!(
                "tokens that the same service signed for somebody else are accepted too: name this \
                 server in [auth] jwt_audience"
            );
        }
        let keys = if !settings.jwks.is_empty() {
            let source = Source::set(&settings.jwks, allowed).map_err(setup("jwks"))?;
            let intervals =
                if source.is_local() { RefreshIntervals::FILE } else { RefreshIntervals::URL };
            KeyRing::of_source(source, intervals).map_err(setup("jwks"))?
        } else if let Some(path) = settings.jwt_public_key.clone() {
            let source = Source::public_key(path, allowed);
            KeyRing::of_source(source, RefreshIntervals::FILE).map_err(setup("jwt_public_key"))?
        } else {
            let secret = super::gate::checked_secret(settings)?;
            KeyRing::fixed(
                Keys::of_secret(secret, &allowed)
                    .map_err(|_| AuthSetupError::Algorithm(settings.jwt_algorithm.join(", ")))?,
            )
        };
        Ok(Self::new(keys, settings))
    }

    fn new(keys: KeyRing, settings: &AuthSettings) -> Self {
        let issuer = &settings.jwt_issuer;
        Self {
            keys,
            issuer: (!issuer.is_empty()).then(|| issuer.clone()),
            audience: settings.jwt_audience.clone(),
            leeway_seconds: settings.jwt_leeway_seconds,
            role_claim: settings.jwt_role_claim.clone(),
        }
    }

    /// Whose a valid token is.
    pub(super) async fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let header = read_header(token)?;
        let algorithm = Algorithm::from_str(&header.algorithm).map_err(|_| not_allowed())?;
        let keys = self.keys.current();
        let mut found = keys.as_ref().map(|keys| self.claims(token, algorithm, &header, keys));
        // The service may have new keys.
        if matches!(found, None | Some(Err(Refusal::OtherKey(_)))) {
            let newer = self.keys.refreshed().await.ok_or(AuthError::NoKeys)?;
            if keys.is_none_or(|keys| !Arc::ptr_eq(&keys, &newer)) {
                found = Some(self.claims(token, algorithm, &header, &newer));
            }
        }
        match found.ok_or(AuthError::NoKeys)? {
            Ok(claims) => claims::identity(&claims, &self.role_claim),
            Err(Refusal::OtherKey(error) | Refusal::Final(error)) => Err(error),
        }
    }

    /// What the token says, if one of the keys that it may be signed with verifies it.
    fn claims(
        &self,
        token: &str,
        algorithm: Algorithm,
        header: &Header,
        keys: &Keys,
    ) -> Result<Claims, Refusal> {
        let validation = self.validation(algorithm);
        let unknown = "It is signed with a key that is not known here".to_owned();
        let mut refused = Refusal::OtherKey(AuthError::InvalidToken(unknown));
        for key in keys.named(header.key_id.as_deref()) {
            if !key.algorithms.contains(&algorithm) {
                refused = Refusal::Final(not_allowed());
                continue;
            }
            match jsonwebtoken::decode(token, &key.decoding, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                    refused = Refusal::OtherKey(refusal(error.kind()));
                }
                Err(error) => return Err(Refusal::Final(refusal(error.kind()))),
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut required = vec!["exp", "sub"];
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_seconds;
        validation.validate_nbf = true;
        validation.validate_aud = !self.audience.is_empty();
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

fn setup(setting: &'static str) -> impl Fn(SourceError) -> AuthSetupError {
    move |error| AuthSetupError::Keys { setting, error: error.to_string() }
}
