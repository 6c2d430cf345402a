//! The modes of `[auth]`: how a request, a registration or a login becomes an [`Identity`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::external::ExternalTokens;
use super::password::{Passwords, hash_now};
use super::token::{Claims, TokenSigner};
use super::{AuthError, AuthSetupError, Identity, Role};
use crate::config::{AuthMode, AuthSettings};
use crate::store::{NewUser, Store, StoreError};

/// For how long a user's row is believed without looking again.
const USER_CACHE: Duration = Duration::from_secs(5);
/// Above this many users, rows that are too old leave the cache.
const USER_CACHE_SIZE: usize = 1000;

/// Decides who is asking; cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mode,
    /// SHA-256 of each accepted API key; none where keys are not asked for.
    api_keys: Option<Vec<[u8; 32]>>,
    passwords: Passwords,
    store: Store,
    users: Mutex<HashMap<i64, (Instant, Option<Identity>)>>,
}

enum Mode {
    None,
    Password { hash: String, signer: TokenSigner },
    Jwt(TokenSigner),
    External(ExternalTokens),
}

/// What somebody gives to get an account.
#[derive(Debug)]
pub struct Registration {
    /// E-mail address, the account's name.
    pub email: String,
    /// Password in clear.
    pub password: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
}

/// A token, and whose it is where the mode knows users.
pub struct LoggedIn {
    /// For `Authorization: Bearer …`.
    pub token: String,
    /// Its user.
    pub identity: Option<Identity>,
}

impl Authenticator {
    /// Prepares the mode that the settings ask for.
    ///
    /// # Errors
    /// [`AuthSetupError`] names the key of `[auth]` that is wrong.
    pub fn from_settings(settings: &AuthSettings, store: Store) -> Result<Self, AuthSetupError> {
        let signer = |secret: &[u8]| {
            let life = settings.jwt_expire_minutes.saturating_mul(60);
            TokenSigner::new(secret, &settings.jwt_issuer, life)
        };
        let mode = match settings.mode {
            AuthMode::None => Mode::None,
            AuthMode::Password => {
                let password = settings.password.expose();
                if password.is_empty() {
                    return Err(AuthSetupError::NoPassword);
                }
                let hash = hash_now(&gate_digest(password))
                    .map_err(|error| AuthSetupError::Hash(error.to_string()))?;
                Mode::Password { hash, signer: signer(&gate_secret(settings)) }
            }
            AuthMode::Jwt if settings.jwt_algorithm.iter().any(|name| name != "HS256") => {
                return Err(AuthSetupError::Algorithm(settings.jwt_algorithm.join(", ")));
            }
            AuthMode::Jwt => Mode::Jwt(signer(checked_secret(settings)?)),
            AuthMode::External => Mode::External(ExternalTokens::from_settings(settings)?),
        };
        let api_keys = settings.enabled.then(|| {
            settings.api_keys.iter().map(|key| Sha256::digest(key.expose()).into()).collect()
        });
        if api_keys.as_ref().is_some_and(Vec::is_empty) {
            return Err(AuthSetupError::NoApiKeys);
        }
        let users = Mutex::new(HashMap::new());
        let passwords = Passwords::new();
        Ok(Self { shared: Arc::new(Shared { mode, api_keys, passwords, store, users }) })
    }

    /// The mode's name in `/auth/config`.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self.shared.mode {
            Mode::None => "none",
            Mode::Password { .. } => "password",
            Mode::Jwt(_) => "jwt",
            Mode::External(_) => "external",
        }
    }

    /// Who sent a request with these headers; `None` where the mode knows no users.
    ///
    /// # Errors
    /// [`AuthError`] says why the request must be refused.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Identity>, AuthError> {
        self.check_api_key(headers)?;
        match &self.shared.mode {
            Mode::None => Ok(None),
            Mode::Password { signer, .. } => {
                signer.verify(bearer(headers)?)?;
                Ok(None)
            }
            Mode::Jwt(signer) => {
                self.current_user(signer.verify(bearer(headers)?)?).await.map(Some)
            }
            Mode::External(tokens) => tokens.verify(bearer(headers)?).await.map(Some),
        }
    }

    /// Makes an account and a token for it. Only in mode `jwt`.
    ///
    /// # Errors
    /// Empty or unusable credentials, an address that is taken, the database.
    pub async fn register(&self, wish: Registration) -> Result<LoggedIn, AuthError> {
        let Mode::Jwt(signer) = &self.shared.mode else { return Err(AuthError::NoRegistration) };
        let email = wish.email.trim().to_owned();
        check_credentials(&email, &wish.password)?;
        if self.shared.store.user_by_email(&email).await?.is_some() {
            return Err(StoreError::EmailTaken.into());
        }
        let hashed_password = self.shared.passwords.hash(wish.password).await?;
        let user = NewUser {
            email,
            hashed_password,
            first_name: wish.first_name,
            last_name: wish.last_name,
            role: "student".to_owned(),
        };
        let user = self.shared.store.create_user(user).await?;
        log_in(signer, Identity::from(&user))
    }

    /// Gives a token for an account's password, or in mode `password` for the gate's.
    ///
    /// # Errors
    /// Wrong credentials, a disabled account, a mode without logins, the database.
    pub async fn login(&self, email: &str, password: String) -> Result<LoggedIn, AuthError> {
        match &self.shared.mode {
            Mode::None | Mode::External(_) => Err(AuthError::NoLogin),
            Mode::Password { hash, signer } => {
                let digest = gate_digest(&password);
                if !self.shared.passwords.matches(digest, Some(hash.clone())).await? {
                    return Err(AuthError::WrongGatePassword);
                }
                let bearer = Claims {
                    sub: "gate".to_owned(),
                    email: String::new(),
                    full_name: String::new(),
                    role: "student".to_owned(),
                };
                Ok(LoggedIn { token: signer.sign(&bearer, now())?, identity: None })
            }
            Mode::Jwt(signer) => {
                let user = self.shared.store.user_by_email(email.trim()).await?;
                let hash = user.as_ref().map(|user| user.hashed_password.clone());
                let fits = self.shared.passwords.matches(password, hash).await?;
                match user {
                    Some(user) if fits && user.is_active => log_in(signer, Identity::from(&user)),
                    Some(_) if fits => Err(AuthError::InactiveAccount),
                    _ => Err(AuthError::WrongCredentials),
                }
            }
        }
    }

    /// Whether one password lets everybody in, without accounts.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        matches!(self.shared.mode, Mode::Password { .. })
    }

    fn check_api_key(&self, headers: &HeaderMap) -> Result<(), AuthError> {
        let Some(accepted) = &self.shared.api_keys else { return Ok(()) };
        let given = headers.get("x-api-key").ok_or(AuthError::MissingApiKey)?;
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        // Every key is compared to its end: the time tells nothing.
        let fits = accepted.iter().fold(Choice::from(0), |fits, key| fits | key.ct_eq(&given));
        if bool::from(fits) { Ok(()) } else { Err(AuthError::InvalidApiKey) }
    }

    /// The token's user as the database has it now, so that a disabled account is out within seconds.
    async fn current_user(&self, claims: Claims) -> Result<Identity, AuthError> {
        let id: i64 = claims.sub.parse().map_err(|_| AuthError::UnknownUser)?;
        let remembered = self.remembered(id);
        if let Some((at, identity)) = &remembered
            && at.elapsed() < USER_CACHE
        {
            return identity.clone().ok_or(AuthError::UnknownUser);
        }
        match self.shared.store.user_by_id(id).await {
            Ok(user) => {
                let identity = user.filter(|user| user.is_active).as_ref().map(Identity::from);
                self.remember(id, identity.clone());
                identity.ok_or(AuthError::UnknownUser)
            }
            // A database in trouble must not keep people from their work: what was known last holds, else the signed claims.
            Err(error) => {
                tracing::warn!(%error, user = id, "a token's user could not be looked up; its claims are trusted");
                remembered
                    .map_or_else(|| Some(claims.into()), |(_, identity)| identity)
                    .ok_or(AuthError::UnknownUser)
            }
        }
    }

    fn remembered(&self, id: i64) -> Option<(Instant, Option<Identity>)> {
        self.shared.users.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn remember(&self, id: i64, identity: Option<Identity>) {
        let mut users = self.shared.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USER_CACHE_SIZE {
            users.retain(|_, (at, _)| at.elapsed() < USER_CACHE);
        }
        users.insert(id, (Instant::now(), identity));
    }
}

impl From<Claims> for Identity {
    fn from(claims: Claims) -> Self {
        Self {
            user_id: claims.sub,
            email: claims.email,
            full_name: claims.full_name,
            role: Role::or_student(&claims.role),
            ..Self::default()
        }
    }
}

fn log_in(signer: &TokenSigner, identity: Identity) -> Result<LoggedIn, AuthError> {
    let claims = Claims {
        sub: identity.user_id.clone(),
        email: identity.email.clone(),
        full_name: identity.full_name.clone(),
        role: identity.role.to_string(),
    };
    Ok(LoggedIn { token: signer.sign(&claims, now())?, identity: Some(identity) })
}

/// The token of `Authorization: Bearer <token>`.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let (scheme, token) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .ok_or(AuthError::MissingToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(AuthError::MissingToken);
    }
    Ok(token.trim())
}

fn check_credentials(email: &str, password: &str) -> Result<(), AuthError> {
    let problem = if email.is_empty() || password.is_empty() {
        "Email and password are required"
    } else if email.len() > 320 {
        "The email is longer than 320 bytes"
    } else if password.contains('\0') {
        "The password contains a NUL character; choose another one"
    } else {
        return Ok(());
    };
    Err(AuthError::BadCredentials(problem))
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

/// Of any length, where bcrypt reads 72 bytes.
fn gate_digest(password: &str) -> String {
    hex::encode(Sha256::digest(password))
}

/// The secret for tokens of mode `password`: a new password makes old tokens invalid, and so does a restart where no secret is set.
fn gate_secret(settings: &AuthSettings) -> [u8; 32] {
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

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
