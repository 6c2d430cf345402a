//! Who is asking: tokens, passwords and API keys. It decides identity only; what an identity may do is said where it is used.

mod authenticator;
mod external;
mod password;
mod role;
mod token;

pub use authenticator::{Authenticator, LoggedIn, Registration};
pub use role::Role;

use std::collections::HashSet;
use std::sync::Arc;

use thiserror::Error;

use crate::store::{StoreError, User};

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's id as text.
    pub user_id: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// First and last name; may be empty.
    pub full_name: String,
    /// What they are to the server.
    pub role: Role,
    /// Ids of the students whose sessions this user looks after; empty unless they are an instructor.
    pub students: Arc<HashSet<String>>,
}

impl Identity {
    /// Whether this user may do everything with everybody's sessions.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether this user is an instructor in a group of the student with this id.
    #[must_use]
    pub fn looks_after(&self, user_id: &str) -> bool {
        self.role == Role::Instructor && self.students.contains(user_id)
    }
}

impl From<&User> for Identity {
    fn from(user: &User) -> Self {
        Self {
            user_id: user.id.to_string(),
            email: user.email.clone(),
            full_name: format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
            role: Role::or_student(&user.role),
            ..Self::default()
        }
    }
}

/// Why somebody is not let in.
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
        "Tokens cannot be verified now: the keys of the service that signs them cannot be had. Try again in a moment"
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
    BadCredentials(&'static str),
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
        "[auth] jwt_secret_key is {0}: modes jwt and external need a secret of their own; set it, or $PHOEBE_JWT_SECRET_KEY, \
         to e.g. the output of `openssl rand -hex 32`"
    )]
    WeakSecret(&'static str),
    /// Another algorithm.
    #[error(
        "[auth] jwt_algorithm is \"{0}\": a shared secret signs with \"HS256\"; others need mode external, and all but HS384 and \
         HS512 a public key: [auth] jwt_public_key or jwks"
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
        "[auth] enabled is true, but [auth] api_keys is empty; `phoebe-server generate-key` makes one"
    )]
    NoApiKeys,
    /// The password could not be hashed.
    #[error("the password of mode \"password\" could not be hashed: {0}")]
    Hash(String),
}
