//! Tokens of another service: every algorithm, every way to forge one, and keys that change while
//! the server runs, fetched from a real HTTP server.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header as JwtHeader};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::keys::KeyError;
use super::*;
use crate::config::Secret;

const SECRET: &[u8] = b"a secret that nobody knows";

/// A key pair of somebody who signs tokens.
struct Signer {
    encoding: EncodingKey,
    public_pem: String,
    jwk: Value,
}

static RSA_SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let private = RsaPrivateKey::new(&mut OsRng, 2048).unwrap();
    let public = private.to_public_key();
    let private_pem = private.to_pkcs8_pem(LineEnding::LF).unwrap();
    let (n, e) = (public.n().to_bytes_be(), public.e().to_bytes_be());
    Signer {
        encoding: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
        public_pem: public.to_public_key_pem(LineEnding::LF).unwrap(),
        jwk: json!({"kty": "RSA", "n": base64(&n), "e": base64(&e)}),
    }
});

impl Signer {
    fn ec(kind: &'static SignatureAlgorithm, curve: &str) -> Self {
        let pair = KeyPair::generate_for(kind).unwrap();
        let point = &pair.public_key_raw()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        Self {
            encoding: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(),
            public_pem: pair.public_key_pem(),
            jwk: json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)}),
        }
    }

    fn p256() -> Self {
        Self::ec(&PKCS_ECDSA_P256_SHA256, "P-256")
    }

    fn ed25519() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self {
            encoding: EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap(),
            public_pem: pair.public_key_pem(),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key_raw())}),
        }
    }

    /// A token with these claims beside `sub` and `exp`; `kid` where it is not empty.
    fn sign(&self, algorithm: Algorithm, kid: &str, claims: Value) -> String {
        sign(&self.encoding, algorithm, kid, claims)
    }

    /// The public key under a name, with more fields.
    fn jwk(&self, kid: &str, more: Value) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(kid);
        for (name, value) in more.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn pem_keys(&self) -> Keys {
        Keys::of_pem(self.public_pem.as_bytes(), &[]).unwrap()
    }
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn sign(key: &EncodingKey, algorithm: Algorithm, kid: &str, claims: Value) -> String {
    let mut all = json!({"sub": "7", "exp": now() + 600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let header =
        JwtHeader { kid: (!kid.is_empty()).then(|| kid.to_owned()), ..JwtHeader::new(algorithm) };
    jsonwebtoken::encode(&header, &all, key).unwrap()
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn tokens(keys: Keys) -> ExternalTokens {
    ExternalTokens::new(KeyRing::fixed(keys), &AuthSettings::default())
}

async fn refusal_of(tokens: &ExternalTokens, token: &str) -> String {
    tokens.verify(token).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn each_kind_of_key_verifies_its_own_algorithms() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let (p256, p384, ed) =
        (Signer::p256(), Signer::ec(&PKCS_ECDSA_P384_SHA384, "P-384"), Signer::ed25519());
    let cases: [(&Signer, &[Algorithm]); 4] = [
        (&RSA_SIGNER, &[RS256, RS384, RS512, PS256, PS384, PS512]),
        (&p256, &[ES256]),
        (&p384, &[ES384]),
        (&ed, &[EdDSA]),
    ];
    for (signer, algorithms) in cases {
        for &algorithm in algorithms {
            let token = signer.sign(algorithm, "", json!({"email": "ada@x.org"}));
            let keys = Keys::of_set(&set(&[signer.jwk("k", json!({}))]), &[]).unwrap();
            for keys in [signer.pem_keys(), keys] {
                let ada = tokens(keys).verify(&token).await.unwrap();
                assert_eq!((ada.user_id.as_str(), ada.email.as_str()), ("7", "ada@x.org"));
            }
        }
    }
    for (secret_algorithm, allowed) in
        [(Algorithm::HS256, vec![]), (Algorithm::HS512, vec![Algorithm::HS256, Algorithm::HS512])]
    {
        let token = sign(&EncodingKey::from_secret(SECRET), secret_algorithm, "any", json!({}));
        let keys = Keys::of_secret(SECRET, &allowed).unwrap();
        assert_eq!(tokens(keys).verify(&token).await.unwrap().user_id, "7");
    }
}

#[tokio::test]
async fn no_key_is_confused_with_another() {
    let not_allowed = "Invalid token: The specified alg value is not allowed";
    let ec = Signer::p256();
    let pem = EncodingKey::from_secret(RSA_SIGNER.public_pem.as_bytes());
    let rsa_set = |more: Value| Keys::of_set(&set(&[RSA_SIGNER.jwk("k", more)]), &[]).unwrap();
    let modulus = RSA_SIGNER.jwk["n"].as_str().unwrap();
    let modulus = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(modulus).unwrap());

    // The public key as a shared secret.
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let forged = sign(&pem, algorithm, "", json!({"role": "admin"}));
        assert_eq!(refusal_of(&tokens(RSA_SIGNER.pem_keys()), &forged).await, not_allowed);
        assert_eq!(refusal_of(&tokens(rsa_set(json!({}))), &forged).await, not_allowed);
        let forged = sign(&modulus, algorithm, "k", json!({"role": "admin"}));
        assert_eq!(refusal_of(&tokens(rsa_set(json!({}))), &forged).await, not_allowed);
    }
    // An algorithm other than the one the key is for, or than the settings allow.
    let token = RSA_SIGNER.sign(Algorithm::PS256, "k", json!({}));
    assert_eq!(refusal_of(&tokens(rsa_set(json!({"alg": "RS256"}))), &token).await, not_allowed);
    let only = Keys::of_pem(RSA_SIGNER.public_pem.as_bytes(), &[Algorithm::RS256]).unwrap();
    assert_eq!(refusal_of(&tokens(only), &token).await, not_allowed);
    // A key of another kind under the same name, and another key of the same kind.
    let token = ec.sign(Algorithm::ES256, "k", json!({}));
    assert_eq!(refusal_of(&tokens(rsa_set(json!({}))), &token).await, not_allowed);
    let other = tokens(Signer::p256().pem_keys());
    assert_eq!(refusal_of(&other, &token).await, "Invalid token: Signature verification failed");
    // A secret accepts what is signed with it only, and no longer hash than named.
    let by_secret = tokens(Keys::of_secret(SECRET, &[]).unwrap());
    for token in [
        RSA_SIGNER.sign(Algorithm::RS256, "", json!({})),
        sign(&EncodingKey::from_secret(SECRET), Algorithm::HS512, "", json!({})),
    ] {
        assert_eq!(refusal_of(&by_secret, &token).await, not_allowed);
    }
}

#[tokio::test]
async fn what_is_not_signed_is_refused() {
    let signer = Signer::p256();
    let tokens = tokens(signer.pem_keys());
    let good = signer.sign(Algorithm::ES256, "", json!({}));
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = rest.split_once('.').unwrap();
    let admin = base64(br#"{"sub":"7","role":"admin","exp":4000000000}"#);
    for header in
        [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":"NONE"}"#, r#"{"alg":""}"#, "{}"]
    {
        for signature in ["", signature] {
            let token = format!("{}.{payload}.{signature}", base64(header.as_bytes()));
            let refused = refusal_of(&tokens, &token).await;
            assert_eq!(
                refused, "Invalid token: The specified alg value is not allowed",
                "{header}"
            );
        }
    }
    for (token, reason) in [
        (format!("{header}.{admin}.{signature}"), "Signature verification failed"),
        (format!("{header}.{payload}."), "Signature verification failed"),
        (format!("{header}.{payload}"), "Not enough segments"),
        (format!("{}.{payload}.{signature}", base64(br#"{"alg":"ES256","crit":["b64"]}"#)), "crit"),
        (
            format!("{}.{payload}.{signature}", base64(br#"{"alg":"HS256","alg":"ES256"}"#)),
            "Invalid payload string",
        ),
    ] {
        let refused = refusal_of(&tokens, &token).await;
        assert!(refused.contains(reason), "{token}: {refused}");
    }
}

#[tokio::test]
async fn claims_are_checked_against_the_settings() {
    let signer = Signer::p256();
    let settings = AuthSettings {
        jwt_issuer: "https://issuer.org".to_owned(),
        jwt_audience: vec!["phoebe".to_owned(), "phoebe-test".to_owned()],
        jwt_leeway_seconds: 30,
        ..AuthSettings::default()
    };
    let tokens = ExternalTokens::new(KeyRing::fixed(signer.pem_keys()), &settings);
    let good = json!({"iss": "https://issuer.org", "aud": "phoebe"});
    let cases: [(Value, &str); 18] = [
        (json!({}), ""),
        (json!({"aud": ["other", "phoebe-test"]}), ""),
        (json!({"exp": now() - 10}), ""),
        (json!({"nbf": now() + 10}), ""),
        (json!({"aud": "other"}), "Audience doesn't match"),
        (json!({"aud": ["other"]}), "Audience doesn't match"),
        (json!({"aud": []}), "Audience doesn't match"),
        (json!({"aud": null}), "missing the \"aud\" claim"),
        (json!({"aud": {"phoebe": 1}}), "\"aud\""),
        (json!({"iss": "https://issuer.org.evil.org"}), "Invalid issuer"),
        (json!({"iss": null}), "missing the \"iss\" claim"),
        (json!({"exp": now() - 3600}), "Token has expired"),
        (json!({"exp": -1}), "exp"),
        (json!({"exp": "4000000000"}), "exp"),
        (json!({"exp": null}), "missing the \"exp\" claim"),
        (json!({"nbf": now() + 3600}), "not yet valid"),
        (json!({"nbf": "soon"}), "nbf"),
        (json!({"sub": null}), "missing the \"sub\" claim"),
    ];
    for (change, reason) in cases {
        let mut claims = good.clone();
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = signer.sign(Algorithm::ES256, "", claims);
        match tokens.verify(&token).await {
            Ok(_) => assert_eq!(reason, "", "{change} was accepted"),
            Err(error) => {
                let error = error.to_string();
                assert!(!reason.is_empty() && error.contains(reason), "{change}: {error}");
            }
        }
    }
}

#[test]
fn sources_without_a_usable_key_are_refused() {
    let pem = |text: &str| Keys::of_pem(text.as_bytes(), &[]).map(|_| ()).unwrap_err();
    let private = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(pem(&private), KeyError::Private);
    assert_eq!(pem(""), KeyError::NoPublicKey);
    assert_eq!(pem("ssh-rsa AAAA"), KeyError::NoPublicKey);
    assert_eq!(
        pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        KeyError::Unsupported
    );
    let small = RsaPrivateKey::new(&mut OsRng, 1024).unwrap().to_public_key();
    assert_eq!(pem(&small.to_public_key_pem(LineEnding::LF).unwrap()), KeyError::Unsupported);

    let keys = |keys: &[Value]| Keys::of_set(&set(keys), &[]).map(|keys| keys.len());
    let ec = Signer::p256();
    let small = json!({"kty": "RSA", "n": base64(&small.n().to_bytes_be()), "e": "AQAB"});
    for useless in [
        json!({"kty": "oct", "k": base64(SECRET), "alg": "HS256"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        ec.jwk("k", json!({"use": "enc"})),
        ec.jwk("k", json!({"alg": "RS256"})),
        ec.jwk("k", json!({"key_ops": ["sign"]})),
        small,
        json!({"kty": "new"}),
        json!("text"),
    ] {
        assert_eq!(keys(std::slice::from_ref(&useless)), Err(KeyError::NoUsableKey), "{useless}");
        assert_eq!(keys(&[useless, ec.jwk("k", json!({"use": "sig"}))]), Ok(1));
    }
    assert!(matches!(Keys::of_set(b"<html>", &[]), Err(KeyError::NotASet(_))));
    assert!(matches!(Keys::of_set(b"[]", &[]), Err(KeyError::NotASet(_))));
    let only_rsa = Keys::of_pem(ec.public_pem.as_bytes(), &[Algorithm::RS256]).map(|_| ());
    assert_eq!(only_rsa, Err(KeyError::NoAllowedAlgorithm));
}

#[tokio::test]
async fn settings_that_cannot_verify_anything_are_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key.pem");
    fs::write(&file, "nothing").unwrap();
    let refused = |change: &dyn Fn(&mut AuthSettings)| {
        let mut settings = AuthSettings::default();
        change(&mut settings);
        ExternalTokens::from_settings(&settings).map(|_| ()).expect_err("refused").to_string()
    };
    let told = refused(&|auth| auth.jwt_public_key = Some(PathBuf::from("/no/such/key.pem")));
    assert!(told.contains("[auth] jwt_public_key: /no/such/key.pem cannot be read"), "{told}");
    let told = refused(&|auth| auth.jwt_public_key = Some(file.clone()));
    assert!(told.contains("no public key in PEM form"), "{told}");
    let told = refused(&|auth| auth.jwks = file.to_str().unwrap().to_owned());
    assert!(told.contains("no JSON Web Key Set"), "{told}");
    let told = refused(&|auth| auth.jwks = "http://x.org/keys".to_owned());
    assert!(told.contains("https://"), "{told}");
    let told = refused(&|auth| auth.jwt_secret_key = Secret::new(&*RSA_SIGNER.public_pem));
    assert!(told.contains("a key in PEM form"), "{told}");
    let told = refused(&|auth| {
        auth.jwt_secret_key = Secret::new("long enough");
        auth.jwt_algorithm = vec!["RS256".to_owned()];
    });
    assert!(told.contains("RS256"), "{told}");
}

/// A service that gives its keys over HTTP, and counts how often it is asked.
struct KeyServer {
    url: Uri,
    answer: Arc<Mutex<(StatusCode, Vec<u8>)>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

const QUICK: RefreshIntervals = RefreshIntervals {
    pause: Duration::from_millis(200),
    period: Duration::from_secs(600),
    again: Duration::from_millis(250),
};

impl KeyServer {
    async fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn listen(listener: TcpListener) -> Self {
        let address: SocketAddr = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((StatusCode::OK, Vec::new())));
        let asked = Arc::new(AtomicUsize::new(0));
        let give = {
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            move || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let (status, body) = answer.lock().unwrap().clone();
                let mut response: Response = (status, body).into_response();
                if status.is_redirection() {
                    response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
                }
                response
            }
        };
        let router = Router::new().route("/keys", get(give));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let url = format!("http://{address}/keys").parse().unwrap();
        Self { url, answer, asked, task }
    }

    fn gives(&self, keys: &[Value]) {
        self.answers(StatusCode::OK, set(keys));
    }

    fn answers(&self, status: StatusCode, body: Vec<u8>) {
        *self.answer.lock().unwrap() = (status, body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn fetching(url: &Uri, intervals: RefreshIntervals) -> ExternalTokens {
    let source = Source::set(&url.to_string(), Vec::new()).unwrap();
    ExternalTokens::new(KeyRing::of_source(source, intervals).unwrap(), &AuthSettings::default())
}

#[tokio::test]
async fn rotated_keys_are_fetched_when_a_token_names_them() {
    let (old, new) = (Signer::p256(), Signer::ed25519());
    let server = KeyServer::start().await;
    server.gives(&[old.jwk("old", json!({}))]);
    let tokens = fetching(&server.url, QUICK);
    let by_old = old.sign(Algorithm::ES256, "old", json!({}));
    let by_new = new.sign(Algorithm::EdDSA, "new", json!({}));
    assert_eq!(tokens.verify(&by_old).await.unwrap().user_id, "7");
    tokio::time::sleep(QUICK.pause).await;

    server.gives(&[old.jwk("old", json!({})), new.jwk("new", json!({}))]);
    assert_eq!(tokens.verify(&by_new).await.unwrap().user_id, "7");
    assert_eq!(tokens.verify(&by_old).await.unwrap().user_id, "7");
    tokio::time::sleep(QUICK.pause).await;

    // The old key is withdrawn: noticed when the next unknown name is asked for.
    server.gives(&[new.jwk("new", json!({}))]);
    let stranger = old.sign(Algorithm::ES256, "never", json!({}));
    let refused = refusal_of(&tokens, &stranger).await;
    assert!(refused.contains("a key that is not known here"), "{refused}");
    assert!(refusal_of(&tokens, &by_old).await.contains("not known here"));
    assert_eq!(tokens.verify(&by_new).await.unwrap().user_id, "7");
}

#[tokio::test]
async fn a_key_under_its_old_name_is_fetched_too() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let server = KeyServer::start().await;
    server.gives(&[old.jwk("k", json!({}))]);
    let tokens = fetching(&server.url, QUICK);
    tokens.verify(&old.sign(Algorithm::ES256, "k", json!({}))).await.unwrap();
    tokio::time::sleep(QUICK.pause).await;
    server.gives(&[new.jwk("k", json!({}))]);
    tokens.verify(&new.sign(Algorithm::ES256, "k", json!({}))).await.unwrap();
}

#[tokio::test]
async fn unknown_names_do_not_flood_the_service() {
    let signer = Signer::p256();
    let server = KeyServer::start().await;
    server.gives(&[signer.jwk("k", json!({}))]);
    let intervals = RefreshIntervals { pause: Duration::from_secs(600), ..QUICK };
    let tokens = Arc::new(fetching(&server.url, intervals));
    tokens.verify(&signer.sign(Algorithm::ES256, "k", json!({}))).await.unwrap();
    let mut tries = Vec::new();
    for number in 0..200 {
        let (tokens, token) = (
            Arc::clone(&tokens),
            signer.sign(Algorithm::ES256, &format!("no-{number}"), json!({})),
        );
        tries.push(tokio::spawn(async move { tokens.verify(&token).await.is_err() }));
    }
    for refused in tries {
        assert!(refused.await.unwrap());
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_service_that_fails_leaves_the_last_keys_in_use() {
    let signer = Signer::p256();
    let server = KeyServer::start().await;
    server.gives(&[signer.jwk("k", json!({}))]);
    let tokens = fetching(&server.url, QUICK);
    let good = signer.sign(Algorithm::ES256, "k", json!({}));
    let unknown = signer.sign(Algorithm::ES256, "unknown", json!({}));
    tokens.verify(&good).await.unwrap();
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, set(&[])),
        (StatusCode::OK, b"<html>".to_vec()),
        (StatusCode::OK, set(&[])),
        (StatusCode::OK, vec![b' '; 600 * 1024]),
        (StatusCode::FOUND, Vec::new()),
    ] {
        server.answers(status, body);
        let before = server.asked();
        while server.asked() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(refusal_of(&tokens, &unknown).await.contains("not known here"));
        }
        tokens.verify(&good).await.unwrap();
    }
}

#[tokio::test]
async fn tokens_are_refused_until_the_service_has_answered() {
    let signer = Signer::p256();
    let good = signer.sign(Algorithm::ES256, "k", json!({}));
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let tokens = fetching(&format!("http://{address}/keys").parse().unwrap(), QUICK);
    assert!(matches!(tokens.verify(&good).await, Err(AuthError::NoKeys)));
    let server = KeyServer::listen(TcpListener::bind(address).await.unwrap());
    server.gives(&[signer.jwk("k", json!({}))]);
    let comes = async {
        while tokens.verify(&good).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), comes).await.expect("it is asked again");
}

#[tokio::test]
async fn a_renewed_file_is_read_and_a_broken_one_ignored() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key.pem");
    fs::write(&file, &old.public_pem).unwrap();
    let intervals = RefreshIntervals { period: QUICK.pause, ..QUICK };
    let ring = KeyRing::of_source(Source::public_key(file.clone(), Vec::new()), intervals).unwrap();
    let tokens = ExternalTokens::new(ring, &AuthSettings::default());
    let (by_old, by_new) =
        (old.sign(Algorithm::ES256, "", json!({})), new.sign(Algorithm::ES256, "any", json!({})));
    tokens.verify(&by_old).await.unwrap();
    fs::write(&file, "half of a").unwrap();
    tokio::time::sleep(2 * QUICK.pause).await;
    tokens.verify(&by_old).await.unwrap();
    fs::write(&file, &new.public_pem).unwrap();
    let comes = async {
        while tokens.verify(&by_new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), comes).await.expect("the new key is read");
    assert!(tokens.verify(&by_old).await.is_err());
}

#[tokio::test]
async fn https_sources_need_a_trusted_certificate() {
    use rcgen::generate_simple_self_signed;
    use rustls::crypto::ring;
    use rustls::{ClientConfig, RootCertStore};

    let folder = TempDir::new().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let tls = crate::web::Tls::open(certificate, key).unwrap();
    let signer = Signer::p256();
    let keys = set(&[signer.jwk("k", json!({}))]);
    let router = Router::new().route("/keys", get(move || async move { keys }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = crate::web::ConnectionLimits::of(&crate::config::ServerSettings::default());
    let served =
        crate::web::serve_http(listener, Some(tls), limits, router, std::future::pending());
    let serving = tokio::spawn(served);

    let url: Uri = format!("https://localhost:{port}/keys").parse().unwrap();
    let good = signer.sign(Algorithm::ES256, "k", json!({}));
    let mut roots = RootCertStore::empty();
    let strangers = roots.clone();
    roots.add(made.cert.der().clone()).unwrap();
    for (roots, is_trusted) in [(roots, true), (strangers, false)] {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let source = Source::asking(url.clone(), tls, Vec::new());
        let ring = KeyRing::of_source(source, QUICK).unwrap();
        let tokens = ExternalTokens::new(ring, &AuthSettings::default());
        assert_eq!(tokens.verify(&good).await.is_ok(), is_trusted);
    }
    serving.abort();
}
