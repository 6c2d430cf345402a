//! The keys that verify tokens: what a secret, a PEM file or a JSON Web Key Set (JWKS) holds, each
//! with the algorithms it may be used with. A public key never becomes a shared secret: the
//! algorithms follow from the key's type, never from a token.

use std::str::FromStr as _;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde_json::Value;
use thiserror::Error;

/// Keys in one set; real ones have a handful.
const MAX_KEYS: usize = 64;
/// The smallest RSA modulus that is trusted: 2048 bits.
const MIN_RSA_BYTES: usize = 256;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Why there are no keys in what was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum KeyError {
    /// The file holds a key that nobody else may have.
    #[error("it holds a private key; give the public one only: `openssl pkey -in FILE -pubout`")]
    Private,
    /// A certificate, whose key is meant.
    #[error("it holds a certificate; give its public key: `openssl x509 -in FILE -pubkey -noout`")]
    Certificate,
    /// No public key at all.
    #[error("it holds no public key in PEM form (BEGIN PUBLIC KEY)")]
    NoPublicKey,
    /// A key that is not trusted or not known.
    #[error(
        "it is no RSA key of 2048 bits or more, no EC key on P-256 or P-384, and no Ed25519 key"
    )]
    Unsupported,
    /// No key set.
    #[error("it is no JSON Web Key Set: {0}")]
    NotASet(String),
    /// A key set without a key that can verify a token.
    #[error(
        "the key set has no key that can verify a signature: RSA of 2048 bits or \
         more, EC on P-256 or P-384, or Ed25519"
    )]
    NoUsableKey,
    /// Keys that the settings do not let be used.
    #[error("no key can be used with the algorithms in [auth] jwt_algorithm")]
    NoAllowedAlgorithm,
}

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// The keys of one source.
#[derive(Debug, Clone)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// A shared secret.
    pub(super) fn of_secret(secret: &[u8], allowed: &[Algorithm]) -> Result<Self, KeyError> {
        // Longer ones have to be named: tokens of earlier servers are HS256.
        let algorithms = if allowed.is_empty() { &[Algorithm::HS256][..] } else { allowed };
        let algorithms = algorithms
            .iter()
            .filter(|one| matches!(one, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512));
        let decoding = DecodingKey::from_secret(secret);
        Self::allowed(
            vec![Key { id: None, algorithms: algorithms.copied().collect(), decoding }],
            &[],
        )
    }

    /// A public key in PEM form.
    pub(super) fn of_pem(pem: &[u8], allowed: &[Algorithm]) -> Result<Self, KeyError> {
        match label(pem) {
            Some("PUBLIC KEY" | "RSA PUBLIC KEY") => {}
            Some("CERTIFICATE") => return Err(KeyError::Certificate),
            Some(label) if label.ends_with("PRIVATE KEY") => return Err(KeyError::Private),
            _ => return Err(KeyError::NoPublicKey),
        }
        let decoding = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeyError::Unsupported)?;
        let algorithms = algorithms_of(&decoding).ok_or(KeyError::Unsupported)?;
        Self::allowed(vec![Key { id: None, algorithms, decoding }], allowed)
    }

    /// A JSON Web Key Set. Keys of other kinds and for other uses are left out.
    pub(super) fn of_set(json: &[u8], allowed: &[Algorithm]) -> Result<Self, KeyError> {
        let set: Value =
            serde_json::from_slice(json).map_err(|error| KeyError::NotASet(error.to_string()))?;
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(|| KeyError::NotASet("the list \"keys\" is missing".to_owned()))?;
        let keys: Vec<Key> = keys.iter().filter_map(Key::of_jwk).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(KeyError::NoUsableKey) } else { Self::allowed(keys, allowed) }
    }

    /// The keys with no other than the allowed algorithms; none named means all.
    fn allowed(mut keys: Vec<Key>, allowed: &[Algorithm]) -> Result<Self, KeyError> {
        for key in &mut keys {
            key.algorithms.retain(|one| allowed.is_empty() || allowed.contains(one));
        }
        keys.retain(|key| !key.algorithms.is_empty());
        if keys.is_empty() { Err(KeyError::NoAllowedAlgorithm) } else { Ok(Self(keys)) }
    }

    /// The keys that a token with this id may be signed with: all of them where it names none.
    ///
    /// A key without an id, as in a PEM file, is any.
    pub(super) fn named<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| match (id, key.id.as_deref()) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn of_jwk(json: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
        let is_for_signatures =
            matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let verifies = jwk
            .common
            .key_operations
            .as_ref()
            .is_none_or(|all| all.contains(&KeyOperations::Verify));
        let is_known = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => true,
            AlgorithmParameters::EllipticCurve(key) => {
                matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384)
            }
            AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
            // A shared secret has no place in a public set.
            _ => false,
        };
        if !(is_for_signatures && verifies && is_known) {
            return None;
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let mut algorithms = algorithms_of(&decoding)?;
        if let Some(named) = json.get("alg").and_then(Value::as_str) {
            let named = Algorithm::from_str(named).ok()?;
            algorithms.retain(|one| *one == named);
        }
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, decoding })
    }
}

/// What a PEM file says that it holds.
fn label(pem: &[u8]) -> Option<&str> {
    let (_, after) = std::str::from_utf8(pem).ok()?.split_once("-----BEGIN ")?;
    after.split_once("-----").map(|(label, _)| label)
}

/// What a public key may verify; `None` for a key that is too small or of another kind.
fn algorithms_of(key: &DecodingKey) -> Option<Vec<Algorithm>> {
    use jsonwebtoken::AlgorithmFamily::{Ec, Ed, Hmac, Rsa};
    let bytes = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n,
        DecodingKeyKind::SecretOrDer(bytes) => bytes,
    };
    match (key.family(), bytes.len()) {
        (Rsa, length) if length >= MIN_RSA_BYTES => Some(RSA.to_vec()),
        (Ec, 65) => Some(vec![Algorithm::ES256]),
        (Ec, 97) => Some(vec![Algorithm::ES384]),
        (Ed, 32) => Some(vec![Algorithm::EdDSA]),
        (Rsa | Ec | Ed | Hmac, _) => None,
    }
}
