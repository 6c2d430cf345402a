//! Who may do what: every route that the server documents, asked by everybody, in every mode.
//!
//! A new route fails here until it has an entry in [`ROUTES`], which says who it is for.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Reply, TestServer};

const SECRET: &str = "a secret for this test only, long enough";

const NOT_OWNER: &str = "You are not the owner of this session";
const NOT_ADMIN: &str = "The metrics are for administrators and for the bearer of [metrics] token";
const NEEDS_LOGIN: &str = "API keys are managed with a token, not with an API key; log in";

/// Whom a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Everybody.
    All,
    /// Whoever the server lets in.
    Guests,
    /// Whoever the server lets in by more than an API key.
    LoggedIn,
    /// The owner of the session in the path, and administrators.
    Owner,
    /// The same, and instructors of a group of the owner.
    Supervisor,
    /// Administrators.
    Admin,
}

/// Every route, whom it is for, and the body of a request to it.
const ROUTES: &[(&str, For, &str)] = &[
    ("GET /", For::All, ""),
    ("GET /health", For::All, ""),
    ("GET /health/ready", For::All, ""),
    ("GET /auth/config", For::All, ""),
    // The empty credentials are refused with 400, before anybody is asked who they are.
    ("POST /auth/register", For::All, r#"{"email": "", "password": ""}"#),
    ("POST /auth/login", For::All, "{}"),
    ("GET /auth/me", For::Guests, ""),
    ("GET /v1/api-keys", For::LoggedIn, ""),
    ("POST /v1/api-keys", For::LoggedIn, r#"{"name": "notebook"}"#),
    ("DELETE /v1/api-keys/{key_id}", For::LoggedIn, ""),
    ("GET /system/passbands", For::Guests, ""),
    ("GET /system/info", For::Guests, ""),
    ("GET /metrics", For::Admin, ""),
    ("POST /dash/start-session", For::Guests, "{}"),
    ("GET /dash/sessions", For::Guests, ""),
    ("GET /dash/session-memory", For::Guests, ""),
    ("GET /dash/port-status", For::Guests, ""),
    ("POST /dash/end-session/{session_id}", For::Supervisor, ""),
    ("POST /dash/session-memory/{session_id}", For::Supervisor, ""),
    ("POST /dash/update-user-info/{session_id}", For::Owner, r#"{"first_name": "Eve"}"#),
    ("POST /send/{session_id}", For::Owner, r#"{"command": "ping"}"#),
    ("POST /send/{session_id}/batch", For::Owner, r#"[{"command": "ping"}]"#),
    ("GET /v1/sessions/{session_id}", For::Supervisor, ""),
    ("GET /v1/sessions/{session_id}/history", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/undo", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/redo", For::Owner, ""),
    ("GET /v1/sessions/{session_id}/checkpoints", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/checkpoints", For::Owner, r#"{"name": "one"}"#),
    ("DELETE /v1/sessions/{session_id}/checkpoints/{checkpoint_id}", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/checkpoints/{checkpoint_id}/restore", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", For::Owner, ""),
    ("DELETE /v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", For::Owner, ""),
    ("GET /v1/shared/{token}", For::Guests, ""),
    ("POST /v1/shared/{token}/clone", For::Guests, ""),
    ("POST /v1/sessions/{session_id}/clone", For::Owner, ""),
    ("GET /v1/sessions/{session_id}/bundle", For::Owner, ""),
    ("PUT /v1/sessions/{session_id}/bundle", For::Owner, "{}"),
    ("GET /v1/sessions/{session_id}/script", For::Owner, ""),
    ("GET /v1/sessions/{session_id}/snapshots/{format}", For::Owner, ""),
    ("GET /v1/jobs", For::Guests, ""),
    ("GET /v1/sessions/{session_id}/events", For::Owner, ""),
    ("GET /v1/sessions/{session_id}/jobs", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/jobs", For::Owner, r#"{"command": "run_compute"}"#),
    ("POST /v1/sessions/{session_id}/jobs/cancel", For::Supervisor, ""),
    ("GET /v1/sessions/{session_id}/jobs/{job_id}", For::Owner, ""),
    ("DELETE /v1/sessions/{session_id}/jobs/{job_id}", For::Owner, ""),
    ("GET /v1/sessions/{session_id}/jobs/{job_id}/result", For::Owner, ""),
    ("POST /v1/sessions/{session_id}/jobs/{job_id}/cancel", For::Supervisor, ""),
];

/// Somebody who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Owner,
    /// The owner, by an API key of theirs.
    OwnersKey,
    OtherStudent,
    /// In a group of the owner.
    Instructor,
    /// In another group.
    OtherInstructor,
    Admin,
}

const PEOPLE: [Who; 7] = [
    Who::Nobody,
    Who::Owner,
    Who::OwnersKey,
    Who::OtherStudent,
    Who::Instructor,
    Who::OtherInstructor,
    Who::Admin,
];

impl Who {
    fn email(self) -> String {
        let name = if self == Self::OwnersKey { Self::Owner } else { self };
        format!("{name:?}@x.org").to_lowercase()
    }

    fn group(self) -> Option<&'static str> {
        match self {
            Self::Owner | Self::OwnersKey | Self::Instructor => Some("stars"),
            Self::OtherStudent | Self::OtherInstructor => Some("planets"),
            Self::Nobody | Self::Admin => None,
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::Nobody | Self::Owner | Self::OwnersKey | Self::OtherStudent => "student",
            Self::Instructor | Self::OtherInstructor => "instructor",
            Self::Admin => "admin",
        }
    }
}

/// What a mode makes of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    Password,
    Jwt,
    External,
}

impl Mode {
    /// Whether the answer must be one to a request that is let through.
    fn expected(self, route: For, who: Who) -> Expected {
        if route == For::All || self == Self::None {
            return Expected::LetThrough;
        }
        if who == Who::Nobody {
            return Expected::Unknown;
        }
        let by_key = who == Who::OwnersKey && self != Self::Password;
        let is_owner = who == Who::Owner || by_key || self == Self::Password;
        let supervises = who == Who::Instructor && self == Self::Jwt;
        let may = match route {
            For::All | For::Guests => true,
            For::LoggedIn if by_key => return Expected::Forbidden(NEEDS_LOGIN),
            For::LoggedIn => true,
            For::Owner => is_owner || who == Who::Admin,
            For::Supervisor => is_owner || who == Who::Admin || supervises,
            For::Admin if who == Who::Admin || self == Self::Password => true,
            For::Admin => return Expected::Forbidden(NOT_ADMIN),
        };
        if may { Expected::LetThrough } else { Expected::Forbidden(NOT_OWNER) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Unknown,
    Forbidden(&'static str),
    LetThrough,
}

impl Expected {
    #[track_caller]
    fn check(self, reply: &Reply, case: &str) {
        match self {
            Self::Unknown => assert_eq!(reply.status, 401, "{case}: {}", reply.body),
            Self::Forbidden(detail) => {
                assert_eq!(reply.status, 403, "{case}: {}", reply.body);
                assert_eq!(reply.body, json!({"detail": detail}), "{case}");
            }
            Self::LetThrough => {
                let is_answer = ![401, 403, 405, 500].contains(&reply.status);
                assert!(is_answer, "{case}: {} {}", reply.status, reply.body);
                // Behind the session there may be other things that do not exist, as in a path of
                // two ids.
                let no_session = ["Session not found", "Invalid session ID", "Not Found"];
                assert!(!no_session.map(Value::from).contains(&reply.body["detail"]), "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_everybody_may_do_everything() {
    let server = TestServer::builder().fake().start().await;
    let clients = PEOPLE.map(|_| server.client());
    ask_everything(server, Mode::None, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_gate_everybody_may_do_everything() {
    let server = TestServer::builder()
        .fake()
        .set("auth.mode", "password")
        .set("auth.password", "open sesame")
        .start()
        .await;
    let mut clients = PEOPLE.map(|_| server.client());
    for (who, client) in PEOPLE.into_iter().zip(&mut clients).skip(1) {
        let login = json!({"email": who.email(), "password": "open sesame"});
        let token = server.post("/auth/login", &login).await.expect(200);
        *client = server.with_token(token["access_token"].as_str().unwrap());
    }
    ask_everything(server, Mode::Password, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_reach_what_is_theirs() {
    let server = TestServer::builder()
        .fake()
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", SECRET)
        .start()
        .await;
    let mut clients = PEOPLE.map(|_| server.client());
    for (who, client) in PEOPLE.into_iter().zip(&mut clients).skip(1) {
        if who == Who::OwnersKey {
            continue;
        }
        let account = json!({"email": who.email(), "password": "s3cret!"});
        let account = server.post("/auth/register", &account).await.expect(200);
        let (role, email) = (who.role(), who.email());
        let database = server.database();
        database.execute(&format!("UPDATE users SET role = '{role}' WHERE email = '{email}'"));
        if let Some(group) = who.group() {
            let user = format!("SELECT '{group}', id FROM users WHERE email = '{email}'");
            database.execute(&format!("INSERT INTO user_groups (group_name, user_id) {user}"));
        }
        *client = server.with_token(account["access_token"].as_str().unwrap());
    }
    clients[2] = with_key_of(&clients[1]).await;
    ask_everything(server, Mode::Jwt, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bearers_of_other_services_tokens_reach_what_is_theirs() {
    let server = TestServer::builder()
        .fake()
        .set("auth.mode", "external")
        .set("auth.jwt_secret_key", SECRET)
        .start()
        .await;
    let mut clients = PEOPLE.map(|_| server.client());
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    for (who, client) in PEOPLE.into_iter().zip(&mut clients).skip(1) {
        let claims = json!({"sub": who.email(), "role": who.role(), "exp": exp});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        *client = server.with_token(&token);
    }
    clients[2] = with_key_of(&clients[1]).await;
    ask_everything(server, Mode::External, clients).await;
}

/// The same user by an API key.
async fn with_key_of(client: &Client) -> Client {
    let key = client.post("/v1/api-keys", &json!({"name": "notebook"})).await.expect(200);
    client.with_token(key["api_key"].as_str().unwrap())
}

/// The routes that the server documents, each with its entry.
async fn routes(server: &Client) -> Vec<(Method, String, For, &'static str)> {
    let document = server.get("/openapi.json").await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, operations)| {
        operations.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path))
    });
    let routes: Vec<_> = operations
        .map(|(method, path)| {
            let name = format!("{method} {path}");
            let entry = ROUTES.iter().find(|(route, ..)| *route == name);
            let (_, whom, body) = entry.unwrap_or_else(|| {
                panic!("whom is `{name}` for? Give it an entry in ROUTES");
            });
            (method.parse().unwrap(), path.clone(), *whom, *body)
        })
        .collect();
    assert_eq!(routes.len(), ROUTES.len(), "ROUTES holds a route that is gone");
    routes
}

async fn ask_everything(server: TestServer, mode: Mode, clients: [Client; PEOPLE.len()]) {
    let owner = &clients[1];
    let ask = async |client: &Client, method: &Method, path: &str, body: &'static str| {
        let request = client.request(method.clone(), path);
        Reply::of(if body.is_empty() { request } else { request.body(body) }).await
    };
    for (method, path, whom, body) in routes(&server).await {
        for (who, client) in PEOPLE.into_iter().zip(&clients) {
            let case = format!("{method} {path} by {who:?} in mode {mode:?}");
            let expected = mode.expected(whom, who);
            if !path.contains("{session_id}") {
                let reply = ask(client, &method, &fill(&path, ""), body).await;
                expected.check(&reply, &case);
                end(client, &reply.body["session_id"]).await;
                continue;
            }
            let session = owner.start_session().await;
            let reply = ask(client, &method, &fill(&path, &session.id), body).await;
            expected.check(&reply, &case);
            end(owner, &json!(session.id)).await;
            // Now it is nobody's, for whoever is let in.
            let reply = ask(client, &method, &fill(&path, &session.id), body).await;
            let gone = if expected == Expected::Unknown { 401 } else { 404 };
            assert_eq!(reply.status, gone, "{case}, after its end: {}", reply.body);
        }
    }
    server.finish().await;
}

/// The path with this session, and of everything else that it names one that does not exist.
fn fill(path: &str, session: &str) -> String {
    let path = path.replace("{session_id}", session);
    let segments = path.split('/').map(|part| if part.starts_with('{') { "0" } else { part });
    segments.collect::<Vec<_>>().join("/")
}

async fn end(client: &Client, session: &Value) {
    if let Some(id) = session.as_str() {
        client.post_empty(&format!("/dash/end-session/{id}")).await;
    }
}
