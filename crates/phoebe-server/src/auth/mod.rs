//! Authentication: tokens, passwords and API keys. It decides identity only; what an identity may
//! do is said where it is used.

pub(crate) mod api_key;
mod authenticator;
mod cache;
mod error;
mod external;
mod gate;
mod identity;
mod keys;
pub(crate) mod password;
pub(crate) mod registration;
mod role;
#[cfg(test)]
mod tests;
mod throttle;
mod token;

pub use authenticator::{Authenticator, LoggedIn};
pub use error::{AuthError, AuthSetupError};
pub(crate) use gate::MetricsToken;
pub use identity::{Credential, Identity};
pub use keys::KeyRequest;
pub use registration::Registration;
pub use role::Role;
