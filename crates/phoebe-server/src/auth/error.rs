//! Errors of authentication, and of its settings.

use std::time::Duration;

use thiserror::Error;

use super::api_key;
use crate::store::StoreError;

/// Why a request, a login or a registration is refused.
#[derive(Debug, Error)]
pub enum AuthError {
    /// No `Authorization: Bearer …`.
    #[error("Missing or invalid Authorization header. Use: Bearer <token>")]
    MissingToken,
    /// The token is not ours or damaged.
    #[error("Invalid token: {0}")]
    InvalidToken(String),
    /// The token was good once.
    #[error("Token has expired")]
    ExpiredToken,
    /// The keys that verify tokens have never been there.
    #[error(
        "Tokens cannot be verified now: the keys of the service that signs them cannot be had. \
         Try again in a moment"
    )]
    NoKeys,
    /// The token's user has been deleted or disabled.
    #[error("User not found or inactive")]
    UnknownUser,
    /// No `X-API-Key`.
    #[error("Missing API key. Include X-API-Key header.")]
    MissingApiKey,
    /// Not one of the keys.
    #[error("Invalid API key")]
    InvalidApiKey,
    /// No such account, or not its password.
    #[error("Invalid email or password")]
    WrongCredentials,
    /// Not the password of mode `password`.
    #[error("Invalid password")]
    WrongGatePassword,
    /// The account has been disabled.
    #[error("This account is disabled; ask the server's administrator")]
    InactiveAccount,
    /// An account cannot be made of this.
    #[error("{0}")]
    BadCredentials(String),
    /// Nobody may make an account for themself.
    #[error("Registration is closed; ask the server's administrator for an account")]
    RegistrationClosed,
    /// Not everybody may make an account for themself.
    #[error(
        "Registration is for e-mail addresses of {0}; ask the server's administrator for an account"
    )]
    ForeignDomain(String),
    /// Too many attempts to get in.
    #[error("Too many attempts; try again in {seconds} s")]
    Throttled {
        /// When the next one is accepted.
        seconds: u64,
    },
    /// As many wait to log in or to register as may.
    #[error("Too many people log in or register at this moment; try again in a moment")]
    Busy,
    /// The API key was good once.
    #[error("API key has expired")]
    ExpiredApiKey,
    /// A user has as many keys as allowed.
    #[error("You have {} API keys, which is the limit; revoke one first", api_key::MOST_KEYS)]
    TooManyKeys,
    /// The user has no such key.
    #[error("API key not found")]
    UnknownKey,
    /// Keys are managed by somebody who logged in.
    #[error("API keys are managed with a token, not with an API key; log in")]
    NeedsLogin,
    /// There are no local accounts.
    #[error("Registration is only available in jwt auth mode")]
    NoRegistration,
    /// There is nothing to log in to.
    #[error("Login is only available in jwt auth mode")]
    NoLogin,
    /// Nobody has an identity.
    #[error("Not available in current auth mode")]
    NoIdentity,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something that should not happen.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why the `[auth]` settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthSetupError {
    /// Tokens would be signed with what everybody knows.
    #[error(
        "[auth] jwt_secret_key is {0}: modes jwt and external need a secret of their own; set it, \
         or $PHOEBE_JWT_SECRET_KEY, to e.g. the output of `openssl rand -hex 32`"
    )]
    WeakSecret(&'static str),
    /// Another algorithm.
    #[error(
        "[auth] jwt_algorithm is \"{0}\": a shared secret signs with \"HS256\"; others need \
         mode external, and all but HS384 and HS512 a public key: [auth] jwt_public_key or jwks"
    )]
    Algorithm(String),
    /// The keys of another service.
    #[error("[auth] {setting}: {error}")]
    Keys {
        /// The setting that names them.
        setting: &'static str,
        /// What is wrong.
        error: String,
    },
    /// A gate without a lock.
    #[error("[auth] mode is \"password\", but [auth] password is empty; set one")]
    NoPassword,
    /// Keys are asked for, and there is none.
    #[error(
        "[auth] enabled is true, but [auth] api_keys is empty; `phoebe-server generate-key` makes \
         one"
    )]
    NoApiKeys,
}

impl AuthError {
    pub(super) fn throttled(wait: Duration) -> Self {
        Self::Throttled { seconds: wait.as_secs() + u64::from(wait.subsec_nanos() > 0) }
    }
}
