//! Who is let in and who is not, in every mode, with a real database.

use std::net::IpAddr;
use std::path::PathBuf;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::{AuthMode, AuthSettings, RegistrationPolicy, Secret, Settings};
use crate::store::{CommandFilter, Store};

const SECRET: &str = "a secret that nobody knows, long enough";
const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

struct Server {
    _folder: TempDir,
    path: PathBuf,
    store: Store,
    authenticator: Authenticator,
}

impl Server {
    fn new(mode: AuthMode, change: impl FnOnce(&mut AuthSettings)) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("sessions.db");
        let mut settings = Settings::default().auth;
        settings.mode = mode;
        settings.jwt_secret_key = Secret::new(SECRET);
        settings.password = Secret::new("open sesame");
        change(&mut settings);
        let store = Store::open(&path, CommandFilter::default()).unwrap();
        let authenticator = Authenticator::from_settings(&settings, store.clone()).unwrap();
        Self { _folder: folder, path, store, authenticator }
    }

    async fn register(&self, email: &str, password: &str) -> Result<LoggedIn, AuthError> {
        let wish = Registration {
            email: email.to_owned(),
            password: password.to_owned(),
            first_name: "Ada".to_owned(),
            last_name: String::new(),
        };
        self.authenticator.register(wish, HERE).await
    }

    async fn ask(&self, header: &str, value: &str) -> Result<Option<Identity>, AuthError> {
        let name: HeaderName = header.parse().unwrap();
        let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
        self.authenticator.authenticate(&headers, HERE).await
    }

    async fn bearer(&self, token: &str) -> Result<Option<Identity>, AuthError> {
        self.ask(AUTHORIZATION.as_str(), &format!("Bearer {token}")).await
    }

    fn sql(&self, statement: &str) {
        let database = Connection::open(&self.path).unwrap();
        assert_eq!(database.execute(statement, ()).unwrap(), 1, "{statement}");
    }
}

fn signed(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn unsigned(header: &str, claims: &Value) -> String {
    let segment = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", segment(header), segment(&claims.to_string()))
}

const LATER: u64 = 4_000_000_000;

#[tokio::test]
async fn tokens_that_are_not_ours_are_refused() {
    for mode in [AuthMode::Jwt, AuthMode::External] {
        let server = Server::new(mode, |auth| auth.jwt_issuer = "here".to_owned());
        if mode == AuthMode::Jwt {
            server.register("ada@x.org", "s3cret!").await.unwrap();
        }
        let good = json!({"sub": "1", "exp": LATER, "iss": "here", "role": "admin"});
        let with = |field: &str, value: Value| {
            let mut claims = good.clone();
            claims[field] = value;
            signed(Algorithm::HS256, SECRET.as_bytes(), &claims)
        };
        let without = |field: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(field);
            signed(Algorithm::HS256, SECRET.as_bytes(), &claims)
        };
        let token = signed(Algorithm::HS256, SECRET.as_bytes(), &good);
        assert!(server.bearer(&token).await.is_ok(), "{mode:?}: the good one");
        let (head, tail) = token.rsplit_once('.').unwrap();
        let body = head.split_once('.').unwrap().1;
        let promoted =
            URL_SAFE_NO_PAD.encode(json!({"sub": "2", "exp": LATER, "iss": "here"}).to_string());
        for (what, token) in [
            ("of another server", signed(Algorithm::HS256, b"another secret", &good)),
            ("expired", with("exp", json!(1_000_000_000))),
            ("expires never", without("exp")),
            ("not yet good", with("nbf", json!(LATER))),
            ("of another issuer", with("iss", json!("elsewhere"))),
            ("of nobody's issue", without("iss")),
            ("for nobody", without("sub")),
            ("for the empty user", with("sub", json!(""))),
            ("alg none", unsigned(r#"{"alg":"none","typ":"JWT"}"#, &good)),
            ("alg None", unsigned(r#"{"alg":"None"}"#, &good)),
            ("no alg", unsigned(r#"{"typ":"JWT"}"#, &good)),
            (
                "alg none, signed",
                format!("{}.{body}.{tail}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)),
            ),
            ("HS384", signed(Algorithm::HS384, SECRET.as_bytes(), &good)),
            ("HS512", signed(Algorithm::HS512, SECRET.as_bytes(), &good)),
            (
                "RS256, signed as HS256",
                format!("{}.{body}.{tail}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#)),
            ),
            (
                "other claims under the signature",
                format!("{}.{promoted}.{tail}", head.split_once('.').unwrap().0),
            ),
            ("without its signature", format!("{head}.")),
            ("nonsense", "nonsense".to_owned()),
        ] {
            let refused = server.bearer(&token).await;
            assert!(
                matches!(
                    refused,
                    Err(AuthError::InvalidToken(_)
                        | AuthError::ExpiredToken
                        | AuthError::UnknownUser)
                ),
                "{mode:?}, {what}: {refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_of_one_mode_is_refused_in_another() {
    let gate = Server::new(AuthMode::Password, |_| {});
    let token = gate.authenticator.login("", "open sesame".to_owned(), HERE).await.unwrap().token;
    assert_eq!(gate.bearer(&token).await.unwrap(), None);
    for mode in [AuthMode::Jwt, AuthMode::External] {
        assert!(Server::new(mode, |_| {}).bearer(&token).await.is_err(), "{mode:?}");
    }
    // The secret is the same, what is signed with is not.
    let external = signed(Algorithm::HS256, SECRET.as_bytes(), &json!({"sub": "1", "exp": LATER}));
    assert!(gate.bearer(&external).await.is_err());
    let renamed = Server::new(AuthMode::Password, |auth| auth.password = Secret::new("new"));
    assert!(renamed.bearer(&token).await.is_err(), "a new password ends old tokens");
}

#[tokio::test]
async fn tokens_and_keys_of_disabled_and_deleted_users_are_refused() {
    let server = Server::new(AuthMode::Jwt, |_| {});
    for (email, change) in [
        ("ada@x.org", "UPDATE users SET is_active = 0 WHERE email = 'ada@x.org'"),
        ("bob@x.org", "DELETE FROM users WHERE email = 'bob@x.org'"),
    ] {
        let account = server.register(email, "s3cret!").await.unwrap();
        let wish = KeyRequest { name: "notebook".to_owned(), days: None };
        let (_, key) =
            server.authenticator.create_key(account.identity.as_ref(), wish).await.unwrap();
        // Nothing was asked yet, so nothing is remembered.
        server.sql(change);
        for refused in [
            server.bearer(&account.token).await,
            server.bearer(&key).await,
            server.ask("x-api-key", &key).await,
        ] {
            assert!(matches!(refused, Err(AuthError::UnknownUser)), "{email}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn roles_come_from_the_database_not_the_token() {
    let server = Server::new(AuthMode::Jwt, |_| {});
    server.register("ada@x.org", "s3cret!").await.unwrap();
    let claims = json!({"sub": "1", "exp": LATER, "role": "admin"});
    let token = signed(Algorithm::HS256, SECRET.as_bytes(), &claims);
    assert_eq!(server.bearer(&token).await.unwrap().unwrap().role, Role::Student);
    let external = Server::new(AuthMode::External, |_| {});
    assert_eq!(external.bearer(&token).await.unwrap().unwrap().role, Role::Admin);
}

#[tokio::test]
async fn a_key_identifies_its_user_until_it_expires_or_is_revoked() {
    let server = Server::new(AuthMode::Jwt, |_| {});
    let ada = server.register("ada@x.org", "s3cret!").await.unwrap().identity.unwrap();
    let bob = server.register("bob@x.org", "s3cret!").await.unwrap().identity.unwrap();
    let wish = |days| KeyRequest { name: "notebook".to_owned(), days };
    let auth = &server.authenticator;
    let (key, text) = auth.create_key(Some(&ada), wish(Some(1))).await.unwrap();
    for came in [server.bearer(&text).await, server.ask("x-api-key", &text).await] {
        let came = came.unwrap().unwrap();
        assert_eq!(came, Identity { credential: Credential::ApiKey, ..ada.clone() });
        let refused = auth.create_key(Some(&came), wish(None)).await;
        assert!(matches!(refused, Err(AuthError::NeedsLogin)), "{refused:?}");
    }
    let another = api_key::fresh().text;
    let mixed = format!("{}{}", key.prefix, &another[key.prefix.len()..]);
    for wrong in [another, mixed, text.to_uppercase(), format!("{text}0"), key.prefix.clone()] {
        let refused = server.ask("authorization", &format!("bearer {wrong}")).await;
        assert!(refused.is_err(), "{wrong}");
    }
    assert!(matches!(auth.revoke_key(Some(&bob), key.id).await, Err(AuthError::UnknownKey)));
    assert_eq!(auth.keys_of(Some(&bob)).await.unwrap(), []);

    server.store.flush().await;
    let kept = auth.keys_of(Some(&ada)).await.unwrap();
    assert!(kept[0].last_used_at.is_some() && kept[0].expires_at > Some(kept[0].created_at));
    auth.revoke_key(Some(&ada), key.id).await.unwrap();
    assert!(matches!(server.bearer(&text).await, Err(AuthError::InvalidApiKey)), "at once");

    let (_, text) = auth.create_key(Some(&ada), wish(Some(1))).await.unwrap();
    server.sql("UPDATE api_keys SET expires_at = 1000 WHERE revoked_at IS NULL");
    assert!(matches!(server.bearer(&text).await, Err(AuthError::ExpiredApiKey)));
    let file = std::fs::read(&server.path).unwrap();
    let secret = &text.as_bytes()[key.prefix.len() + 1..];
    assert!(!file.windows(secret.len()).any(|window| window == secret));
}

#[tokio::test]
async fn keys_are_bounded_in_number_name_and_life() {
    for (mode, most_days) in [(AuthMode::Jwt, 3650), (AuthMode::External, 90)] {
        let server = Server::new(mode, |_| {});
        let identity = Identity { user_id: "1".to_owned(), ..Identity::default() };
        let create = async |name: &str, days| {
            let wish = KeyRequest { name: name.to_owned(), days };
            server.authenticator.create_key(Some(&identity), wish).await
        };
        for (name, days) in
            [("", None), (" ", None), ("a\nb", None), ("n", Some(0)), ("n", Some(most_days + 1))]
        {
            let refused = create(name, days).await;
            assert!(matches!(refused, Err(AuthError::BadCredentials(_))), "{name:?} {days:?}");
        }
        let (key, _) = create("n", None).await.unwrap();
        assert_eq!(key.expires_at.is_some(), mode == AuthMode::External);
        for _ in 1..api_key::MOST_KEYS {
            create("n", Some(most_days)).await.unwrap();
        }
        assert!(matches!(create("n", None).await, Err(AuthError::TooManyKeys)));
    }
}

#[tokio::test]
async fn a_key_of_one_mode_is_refused_in_another() {
    let external = Server::new(AuthMode::External, |_| {});
    let identity = Identity {
        user_id: "1".to_owned(),
        role: Role::Instructor,
        email: "ada@x.org".to_owned(),
        ..Identity::default()
    };
    let wish = || KeyRequest { name: "n".to_owned(), days: None };
    let (_, key) = external.authenticator.create_key(Some(&identity), wish()).await.unwrap();
    let came = external.bearer(&key).await.unwrap().unwrap();
    assert_eq!((came.user_id.as_str(), came.role), ("1", Role::Instructor));

    let mut settings = Settings::default().auth;
    settings.mode = AuthMode::Jwt;
    settings.jwt_secret_key = Secret::new(SECRET);
    let store = external.store.clone();
    let jwt = Authenticator::from_settings(&settings, store).unwrap();
    let jwt = Server { authenticator: jwt, ..external };
    jwt.register("eve@x.org", "s3cret!").await.unwrap();
    let refused = jwt.bearer(&key).await;
    assert!(matches!(refused, Err(AuthError::InvalidApiKey)), "another's user 1: {refused:?}");
    for mode in [AuthMode::None, AuthMode::Password] {
        let server = Server::new(mode, |_| {});
        let refused = server.authenticator.create_key(Some(&identity), wish()).await;
        assert!(matches!(refused, Err(AuthError::NoIdentity)), "{mode:?}");
    }
}

#[tokio::test]
async fn a_users_key_is_accepted_where_server_keys_are_required() {
    let server = Server::new(AuthMode::Jwt, |auth| {
        auth.enabled = true;
        auth.api_keys = vec![Secret::new("phoebe_one")];
    });
    let ada = server.register("ada@x.org", "s3cret!").await.unwrap();
    let refused = server.bearer(&ada.token).await;
    assert!(matches!(refused, Err(AuthError::MissingApiKey)), "{refused:?}");
    let both = HeaderMap::from_iter([
        (AUTHORIZATION, format!("Bearer {}", ada.token).parse().unwrap()),
        ("x-api-key".parse().unwrap(), "phoebe_one".parse().unwrap()),
    ]);
    assert!(server.authenticator.authenticate(&both, HERE).await.is_ok());
    let wish = KeyRequest { name: "n".to_owned(), days: None };
    let (_, key) = server.authenticator.create_key(ada.identity.as_ref(), wish).await.unwrap();
    assert!(server.ask("x-api-key", &key).await.is_ok());
    assert!(matches!(server.ask("x-api-key", "phoebe_two").await, Err(AuthError::InvalidApiKey)));
}

#[tokio::test]
async fn mode_password_accepts_http_basic_and_throttles_failures() {
    let server = Server::new(AuthMode::Password, |_| {});
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for user in ["", "ada@x.org", "anybody"] {
        let came = server.ask("authorization", &basic(&format!("{user}:open sesame"))).await;
        assert_eq!(came.unwrap(), None, "{user}");
    }
    let mut answers = Vec::new();
    for _ in 0..101 {
        answers.push(server.ask("authorization", &basic("ada:open barley")).await.unwrap_err());
    }
    assert!(answers[..100].iter().all(|answer| matches!(answer, AuthError::WrongGatePassword)));
    assert!(matches!(answers[100], AuthError::Throttled { seconds: 1..=5 }), "{:?}", answers[100]);
    let login = server.authenticator.login("", "open sesame".to_owned(), HERE).await;
    assert!(matches!(login, Err(AuthError::Throttled { .. })), "by either way");
    let elsewhere = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));
    assert!(server.authenticator.login("", "open sesame".to_owned(), elsewhere).await.is_ok());
}

#[tokio::test]
async fn registration_obeys_the_settings() {
    let closed = Server::new(AuthMode::Jwt, |auth| auth.registration = RegistrationPolicy::Closed);
    let refused = closed.register("ada@x.org", "s3cret!").await.err();
    assert!(matches!(refused, Some(AuthError::RegistrationClosed)), "{refused:?}");
    let limited = Server::new(AuthMode::Jwt, |auth| {
        auth.registration_domains = vec!["Uni.edu".to_owned(), "@students.uni.edu".to_owned()];
        auth.min_password_length = 8;
    });
    for email in ["ada@x.org", "ada@evil-uni.edu", "ada@uni.edu.x.org", "uni.edu", "ada@x.uni.edu"]
    {
        let refused = limited.register(email, "long enough").await.err();
        assert!(matches!(refused, Some(AuthError::ForeignDomain(_))), "{email}: {refused:?}");
    }
    let refused = limited.register("ada@uni.edu", "s3cret!").await.err().unwrap();
    assert!(refused.to_string().contains("8 characters"), "{refused}");
    for email in ["ada@UNI.edu", "bob@students.uni.edu"] {
        assert!(limited.register(email, "long enough").await.is_ok(), "{email}");
    }
}

#[tokio::test]
async fn all_bytes_of_a_long_password_count() {
    let server = Server::new(AuthMode::Jwt, |_| {});
    let long = "correct horse battery staple ".repeat(4);
    server.register("ada@x.org", &long).await.unwrap();
    let login = async |password: &str| {
        server.authenticator.login("ada@x.org", password.to_owned(), HERE).await.is_ok()
    };
    assert!(login(&long).await);
    assert!(!login(&long[..72]).await);
    assert!(!login(&format!("{}x", &long[..long.len() - 1])).await);
}

#[tokio::test]
async fn an_instructor_looks_after_the_students_of_their_groups() {
    let server = Server::new(AuthMode::Jwt, |_| {});
    let mut tokens = Vec::new();
    for name in ["prof", "ada", "bob", "dean", "eve"] {
        tokens.push(server.register(&format!("{name}@x.org"), "s3cret!").await.unwrap().token);
    }
    server.sql("UPDATE users SET role = 'instructor' WHERE id = 1");
    server.sql("UPDATE users SET role = 'admin' WHERE id = 4");
    for (group, id) in [("stars", 1), ("stars", 2), ("Stars", 4), ("planets", 3), ("planets", 5)] {
        server.sql(&format!("INSERT INTO user_groups VALUES ('{group}', {id})"));
    }
    let prof = server.bearer(&tokens[0]).await.unwrap().unwrap();
    let after: Vec<bool> = ["1", "2", "3", "4", "5"].map(|id| prof.looks_after(id)).into();
    assert_eq!(after, [false, true, false, false, false], "students only, of shared groups");
    let ada = server.bearer(&tokens[1]).await.unwrap().unwrap();
    assert!(!ada.looks_after("1") && !ada.looks_after("2"));
}
