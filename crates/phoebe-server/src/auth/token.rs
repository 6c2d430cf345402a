//! This server's own tokens: HS256 JSON Web Tokens, written and verified; and the form of all
//! tokens. It knows no users and no settings file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde::{Deserialize, Serialize};

use super::error::AuthError;

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    #[serde(default)]
    pub(super) email: String,
    #[serde(default)]
    pub(super) full_name: String,
    #[serde(default = "student")]
    pub(super) role: String,
}

fn student() -> String {
    "student".to_owned()
}

/// [`Claims`] with what limits a token's life.
#[derive(Serialize)]
struct Signed<'a> {
    #[serde(flatten)]
    claims: &'a Claims,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// Signs and verifies tokens with one secret.
pub(super) struct TokenSigner {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    issuer: Option<String>,
    life_seconds: u64,
}

impl TokenSigner {
    /// A signer; an empty `issuer` is neither written nor expected.
    pub(super) fn new(secret: &[u8], issuer: &str, life_seconds: u64) -> Self {
        let issuer = (!issuer.is_empty()).then(|| issuer.to_owned());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        if let Some(issuer) = &issuer {
            validation.set_required_spec_claims(&["exp", "sub", "iss"]);
            validation.set_issuer(&[issuer]);
        }
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            issuer,
            life_seconds,
        }
    }

    /// A token for `claims` that is good from `now` (Unix seconds) for the configured life.
    pub(super) fn sign(&self, claims: &Claims, now: u64) -> Result<String, AuthError> {
        let exp = now.saturating_add(self.life_seconds);
        let signed = Signed { claims, exp, iss: self.issuer.as_deref() };
        jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &signed, &self.encoding)
            .map_err(|error| AuthError::Internal(error.to_string()))
    }

    /// What a valid token claims.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if read_header(token)?.algorithm != "HS256" {
            return Err(not_allowed());
        }
        jsonwebtoken::decode(token, &self.decoding, &self.validation)
            .map(|decoded| decoded.claims)
            .map_err(|error| refusal(error.kind()))
    }
}

fn invalid(text: impl Into<String>) -> AuthError {
    AuthError::InvalidToken(text.into())
}

/// What a token says of its signature, before anything is verified.
pub(super) struct Header {
    /// `alg`; empty where there is none.
    pub(super) algorithm: String,
    /// `kid`: the key's name among the signer's.
    pub(super) key_id: Option<String>,
}

/// Reads the header and checks the form of all three segments before any signature, so that each
/// mistake has its own words.
pub(super) fn read_header(token: &str) -> Result<Header, AuthError> {
    let segments: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = segments[..] else {
        return Err(invalid("Not enough segments"));
    };
    let header: serde_json::Value = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| invalid("Invalid header padding"))
        .and_then(|text| {
            serde_json::from_str(&text).map_err(|_| invalid("Invalid header string"))
        })?;
    let text = |name: &str| header.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let named = Header {
        algorithm: text("alg").filter(|name| name != "none").ok_or_else(not_allowed)?,
        key_id: text("kid"),
    };
    if header.get("crit").is_some() {
        return Err(invalid("The header asks for extensions that are not known here (crit)"));
    }
    URL_SAFE_NO_PAD.decode(payload).map_err(|_| invalid("Invalid payload padding"))?;
    URL_SAFE_NO_PAD.decode(signature).map_err(|_| invalid("Invalid crypto padding"))?;
    Ok(named)
}

/// The refusal of an algorithm, whatever else is right.
pub(super) fn not_allowed() -> AuthError {
    invalid("The specified alg value is not allowed")
}

/// Why a token was not verified, in words that existing clients know.
pub(super) fn refusal(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::ExpiredSignature => AuthError::ExpiredToken,
        ErrorKind::InvalidSignature => invalid("Signature verification failed"),
        ErrorKind::InvalidIssuer => invalid("Invalid issuer"),
        ErrorKind::InvalidAudience => invalid("Audience doesn't match"),
        ErrorKind::InvalidAlgorithm | ErrorKind::MissingAlgorithm => not_allowed(),
        ErrorKind::ImmatureSignature => invalid("The token is not yet valid (nbf)"),
        ErrorKind::MissingRequiredClaim(claim) => {
            invalid(format!("Token is missing the \"{claim}\" claim"))
        }
        ErrorKind::InvalidClaimFormat(claim) => {
            invalid(format!("The \"{claim}\" claim has the wrong type"))
        }
        _ => invalid("Invalid payload string"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 4_000_000_000;

    fn claims() -> Claims {
        Claims {
            sub: "7".to_owned(),
            email: "ada@x.org".to_owned(),
            full_name: "Ada L".to_owned(),
            role: "student".to_owned(),
        }
    }

    fn refused(signer: &TokenSigner, token: &str) -> String {
        signer.verify(token).expect_err("refused").to_string()
    }

    fn segment(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let signer = TokenSigner::new(b"secret", "phoebe", 60);
        let token = signer.sign(&claims(), NOW).unwrap();
        assert_eq!(signer.verify(&token).unwrap(), claims());
    }

    #[test]
    fn damaged_tokens_are_refused_in_known_words() {
        let signer = TokenSigner::new(b"secret", "", 60);
        let header = segment(r#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(refused(&signer, "not.a.token"), "Invalid token: Invalid header padding");
        assert_eq!(refused(&signer, "nonsense"), "Invalid token: Not enough segments");
        assert_eq!(refused(&signer, "a.b.c.d"), "Invalid token: Not enough segments");
        assert_eq!(
            refused(&signer, &format!("{}.e30.e30", segment("oops"))),
            "Invalid token: Invalid header string"
        );
        assert_eq!(
            refused(&signer, &format!("{header}.!.e30")),
            "Invalid token: Invalid payload padding"
        );
        let other = TokenSigner::new(b"another", "", 60).sign(&claims(), NOW).unwrap();
        assert_eq!(refused(&signer, &other), "Invalid token: Signature verification failed");
    }

    #[test]
    fn a_token_without_signature_is_refused() {
        let signer = TokenSigner::new(b"secret", "", 60);
        let body = segment(r#"{"sub":"1","exp":4000000000}"#);
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS384"}"#, r#"{"alg":"RS256"}"#, "{}"] {
            let token = format!("{}.{body}.", segment(header));
            assert_eq!(
                refused(&signer, &token),
                "Invalid token: The specified alg value is not allowed"
            );
        }
    }

    #[test]
    fn life_and_issuer_are_checked() {
        let signer = TokenSigner::new(b"secret", "phoebe", 60);
        let old = signer.sign(&claims(), 1_000_000_000).unwrap();
        assert_eq!(refused(&signer, &old), "Token has expired");
        let foreign = TokenSigner::new(b"secret", "elsewhere", 60).sign(&claims(), NOW).unwrap();
        assert_eq!(refused(&signer, &foreign), "Invalid token: Invalid issuer");
        let anonymous = TokenSigner::new(b"secret", "", 60).sign(&claims(), NOW).unwrap();
        assert_eq!(
            refused(&signer, &anonymous),
            "Invalid token: Token is missing the \"iss\" claim"
        );
    }
}
