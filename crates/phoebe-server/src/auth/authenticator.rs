//! The modes of `[auth]`: how a request, a registration or a login becomes an [`Identity`].

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::api_key;
use super::cache::{Cache, KeyCache};
use super::error::{AuthError, AuthSetupError};
use super::external::ExternalTokens;
use super::gate::{self, ServerKeys, SharedPassword};
use super::identity::Identity;
use super::password::Passwords;
use super::registration::{Registration, Rules};
use super::role::Role;
use super::throttle::Throttle;
use super::token::{Claims, TokenSigner};
use crate::config::{AuthMode, AuthSettings};
use crate::store::{NewUser, Store, StoreError};

/// Whom a token of mode `password` is for.
const GATE: &str = "gate";

/// Authenticates requests; cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    mode: Mode,
    server_keys: RwLock<ServerKeys>,
    rules: RwLock<Rules>,
    throttle: Throttle,
    passwords: Passwords,
    pub(super) store: Store,
    users: Cache<i64, Option<Identity>>,
    pub(super) key_cache: KeyCache,
}

enum Mode {
    None,
    Password(RwLock<Arc<PasswordMode>>),
    Jwt(Box<TokenSigner>),
    External(ExternalTokens),
}

/// What mode `password` asks for and gives.
struct PasswordMode {
    password: SharedPassword,
    signer: TokenSigner,
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
        let mode = match settings.mode {
            AuthMode::None => Mode::None,
            AuthMode::Password => {
                Mode::Password(RwLock::new(Arc::new(PasswordMode::of_settings(settings)?)))
            }
            AuthMode::Jwt if settings.jwt_algorithm.iter().any(|name| name != "HS256") => {
                return Err(AuthSetupError::Algorithm(settings.jwt_algorithm.join(", ")));
            }
            AuthMode::Jwt => Mode::Jwt(Box::new(signer(settings, gate::checked_secret(settings)?))),
            AuthMode::External => Mode::External(ExternalTokens::from_settings(settings)?),
        };
        let shared = Shared {
            mode,
            server_keys: RwLock::new(ServerKeys::new(settings)?),
            rules: RwLock::new(Rules::of(settings)),
            throttle: Throttle::new(),
            passwords: Passwords::new(),
            store,
            users: Cache::new(),
            key_cache: KeyCache::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes what may change while the server runs: the password of mode `password`, API keys and
    /// the rules of registration. With another password the tokens of the earlier one end.
    ///
    /// # Errors
    /// [`AuthSetupError`] names the key of `[auth]` that is wrong; then nothing is taken.
    pub fn reload(&self, before: &AuthSettings, now: &AuthSettings) -> Result<(), AuthSetupError> {
        let server_keys = ServerKeys::new(now)?;
        if let Mode::Password(mode_state) = &self.shared.mode
            && before.password != now.password
        {
            let renewed = Arc::new(PasswordMode::of_settings(now)?);
            *mode_state.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        }
        *self.shared.server_keys.write().unwrap_or_else(PoisonError::into_inner) = server_keys;
        *self.shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules::of(now);
        Ok(())
    }

    /// The mode's name in `/auth/config`.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self.shared.mode {
            Mode::None => "none",
            Mode::Password(_) => "password",
            Mode::Jwt(_) => "jwt",
            Mode::External(_) => "external",
        }
    }

    /// The mode in which users have API keys of their own, if this is one.
    pub(super) fn mode_of_keys(&self) -> Option<&'static str> {
        matches!(self.shared.mode, Mode::Jwt(_) | Mode::External(_)).then(|| self.mode_name())
    }

    /// Who sent a request with these headers from this address; `None` where the mode knows no
    /// users.
    ///
    /// # Errors
    /// [`AuthError`] says why the request must be refused.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Result<Option<Identity>, AuthError> {
        if let Some(mode) = self.mode_of_keys()
            && let Some(key) = api_key::offered(headers)
        {
            return self.identity_of_key(mode, key).await.map(Some);
        }
        read(&self.shared.server_keys).check(headers)?;
        match &self.shared.mode {
            Mode::None => Ok(None),
            Mode::Password(mode_state) => {
                let mode_state = Arc::clone(&read(mode_state));
                match gate::basic_password(headers) {
                    Some(password) => {
                        self.check_password(&mode_state.password, &password, address)?
                    }
                    None => drop(mode_state.signer.verify(bearer(headers)?)?),
                }
                Ok(None)
            }
            Mode::Jwt(signer) => {
                self.current_user(signer.verify(bearer(headers)?)?.into()).await.map(Some)
            }
            Mode::External(tokens) => tokens.verify(bearer(headers)?).await.map(Some),
        }
    }

    /// Makes an account and a token for it. Only in mode `jwt`.
    ///
    /// # Errors
    /// Registration is closed, unusable credentials, an address that is taken, too many attempts,
    /// the database.
    pub async fn register(
        &self,
        mut request: Registration,
        address: Option<IpAddr>,
    ) -> Result<LoggedIn, AuthError> {
        let Mode::Jwt(signer) = &self.shared.mode else { return Err(AuthError::NoRegistration) };
        request.email = request.email.trim().to_owned();
        read(&self.shared.rules).check(&request)?;
        self.shared.throttle.register(address, Instant::now()).map_err(AuthError::throttled)?;
        if self.shared.store.user_by_email(&request.email).await?.is_some() {
            return Err(StoreError::EmailTaken.into());
        }
        let turn = self.shared.passwords.turn_to_register().await?;
        let hashed_password = turn.hash(request.password).await?;
        let user = NewUser {
            email: request.email,
            hashed_password,
            first_name: request.first_name,
            last_name: request.last_name,
            role: Role::Student.to_string(),
        };
        let user = self.shared.store.create_user(user).await?;
        log_in(signer, Identity::from(&user))
    }

    /// Gives a token for an account's password, or in mode `password` for the gate's.
    ///
    /// # Errors
    /// Wrong credentials, a disabled account, too many attempts, a mode without logins, the
    /// database.
    pub async fn login(
        &self,
        email: &str,
        password: String,
        address: Option<IpAddr>,
    ) -> Result<LoggedIn, AuthError> {
        match &self.shared.mode {
            Mode::None | Mode::External(_) => Err(AuthError::NoLogin),
            Mode::Password(mode_state) => {
                let mode_state = Arc::clone(&read(mode_state));
                self.check_password(&mode_state.password, &password, address)?;
                let bearer = Claims {
                    sub: GATE.to_owned(),
                    email: String::new(),
                    full_name: String::new(),
                    role: Role::Student.to_string(),
                };
                Ok(LoggedIn { token: mode_state.signer.sign(&bearer, now())?, identity: None })
            }
            Mode::Jwt(signer) => {
                let email = email.trim();
                let throttle = &self.shared.throttle;
                let check =
                    || throttle.check(email, address, Instant::now()).map_err(AuthError::throttled);
                check()?;
                let user = self.shared.store.user_by_email(email).await?;
                let hash = user.as_ref().map(|user| user.hashed_password.clone());
                let turn = self.shared.passwords.turn_to_log_in().await?;
                // Again: those who were before in the line may have used up the attempts.
                check()?;
                throttle.count(email, address, Instant::now());
                if !turn.matches(password, hash).await? {
                    return Err(AuthError::WrongCredentials);
                }
                throttle.succeeded(email, address);
                match user {
                    Some(user) if user.is_active => log_in(signer, Identity::from(&user)),
                    _ => Err(AuthError::InactiveAccount),
                }
            }
        }
    }

    /// Whether one password lets everybody in, without accounts.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        matches!(self.shared.mode, Mode::Password(_))
    }

    /// Lets somebody through the gate, or counts the failure.
    fn check_password(
        &self,
        expected: &SharedPassword,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<(), AuthError> {
        let (throttle, now) = (&self.shared.throttle, Instant::now());
        throttle.check_address(address, now).map_err(AuthError::throttled)?;
        if expected.matches(password) {
            return Ok(());
        }
        throttle.failed_at(address, now);
        Err(AuthError::WrongGatePassword)
    }

    /// The user with this id as the database has it now, so that a disabled account is out within
    /// seconds. `claimed` is who they were when they were last let in.
    pub(super) async fn current_user(&self, claimed: Identity) -> Result<Identity, AuthError> {
        let id: i64 = claimed.user_id.parse().map_err(|_| AuthError::UnknownUser)?;
        let credential = claimed.credential;
        let remembered = self.shared.users.get(&id);
        let found = match remembered {
            Some(user) if user.is_fresh => user.value,
            remembered => match self.active_user(id).await {
                Ok(user) => {
                    self.shared.users.put(id, user.clone());
                    user
                }
                // Where the database fails, the last answer is used, else the signed claims.
                Err(error) => {
                    tracing::warn!(
                        %error,
                        user = id,
                        "user lookup failed; the last answer is used"
                    );
                    remembered.map_or(Some(claimed), |user| user.value)
                }
            },
        };
        found.map(|user| Identity { credential, ..user }).ok_or(AuthError::UnknownUser)
    }

    /// The account with this id, if it is there and active.
    async fn active_user(&self, id: i64) -> Result<Option<Identity>, StoreError> {
        let store = &self.shared.store;
        let user = store.user_by_id(id).await?.filter(|user| user.is_active);
        let Some(mut identity) = user.as_ref().map(Identity::from) else { return Ok(None) };
        if identity.role == Role::Instructor {
            identity.students = Arc::new(store.students_of(id).await?);
        }
        Ok(Some(identity))
    }
}

impl PasswordMode {
    fn of_settings(settings: &AuthSettings) -> Result<Self, AuthSetupError> {
        let password = SharedPassword::new(settings)?;
        Ok(Self { password, signer: signer(settings, &gate::token_secret(settings)) })
    }
}

fn signer(settings: &AuthSettings, secret: &[u8]) -> TokenSigner {
    let life = settings.jwt_expire_minutes.saturating_mul(60);
    TokenSigner::new(secret, &settings.jwt_issuer, life)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
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

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
