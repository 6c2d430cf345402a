//! Tests of the router without sockets and without sessions.

use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::routing::get;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::api::{self, App};
use crate::auth::Authenticator;
use crate::config::{AuthMode, PublicUrl, Secret};
use crate::session::SessionManager;
use crate::store::{CommandFilter, DataDirectoryProbe, Store};
use crate::worker::{Interpreter, Launcher, Registry, orphans};

mod guards;

const JSON: &str = "application/json";
const SOME_ID: &str = "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11";

/// A server without sessions and without Python, with a real database.
struct Server {
    folder: TempDir,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Value,
}

impl Server {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut settings = Settings::default();
        settings.auth.jwt_secret_key = Secret::new("a secret that nobody knows");
        change(&mut settings);
        let settings = Arc::new(settings);
        let store =
            Store::open(&folder.path().join("sessions.db"), CommandFilter::default()).unwrap();
        let interpreter = Interpreter {
            python: folder.path().join("no-python"),
            package: folder.path().to_owned(),
            instance: "test".to_owned(),
            accelerate: true,
            passband_dir: None,
            root_folder: None,
        };
        let records = orphans::Records::open(folder.path()).unwrap();
        let registry = Registry::new(records, None);
        let launcher = Launcher::spawn(interpreter, registry, None);
        let sessions = SessionManager::new(Arc::clone(&settings), store.clone(), launcher, None);
        let authenticator = Authenticator::from_settings(&settings.auth, store.clone()).unwrap();
        let data = DataDirectoryProbe::of(folder.path()).unwrap();
        let app = App { settings, sessions, store, data, authenticator };
        let settings = Arc::clone(&app.settings);
        let router = with_middleware(api::routes(app), &settings);
        Self { folder, router }
    }

    fn in_mode(mode: AuthMode) -> Self {
        Self::new(|settings| {
            settings.auth.mode = mode;
            settings.auth.password = Secret::new("open sesame");
        })
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        ask(&self.router, request).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(request("GET", path, headers, Body::empty())).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(request("POST", path, &[("content-type", JSON)], body.to_string().into())).await
    }

    /// Registers `email` and returns its token.
    async fn register(&self, email: &str) -> String {
        let answer = self.post("/auth/register", json!({"email": email, "password": "pw"})).await;
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    /// Returns the body of a page.
    async fn text(&self, path: &str) -> String {
        let request = request("GET", path, &[], Body::empty());
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn change_users(&self, sql: &str) {
        let database = Connection::open(self.folder.path().join("sessions.db")).unwrap();
        assert_eq!(database.execute(sql, ()).unwrap(), 1);
    }

    /// Returns every operation of the document: method, path with an id filled in, whether it needs
    /// authentication.
    async fn operations(&self) -> Vec<(String, String, bool)> {
        let document = self.get("/openapi.json", &[]).await.body;
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let path = path.replace("{session_id}", SOME_ID);
                let protected = operation["security"].is_array();
                operations.push((method.to_uppercase(), path, protected));
            }
        }
        operations
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(body)
        .unwrap()
}

async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let server = Server::new(|_| {});
    assert_eq!(server.get("/health", &[]).await.body, json!({"status": "ok"}));
    let root = server.get("/", &[]).await.body;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(root, json!({"service": "phoebe-server", "version": version, "status": "running"}));
    let ready = server.get("/health/ready", &[]).await;
    assert_eq!(ready.status, 503, "there is no Python");
    assert_eq!(ready.body["checks"]["database"], "ok");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json() {
    let server = Server::new(|_| {});
    let answer = server.get("/nope", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.body), (404, json!({"detail": "Not Found"})));
    assert_eq!(answer.headers["content-type"], JSON);
    let answer = server.get("/dash/start-session", &[]).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.body, json!({"detail": "Method Not Allowed"}));
    assert_eq!(answer.headers["allow"], "POST");
}

#[tokio::test]
async fn unknown_sessions_are_named_as_recorded() {
    let server = Server::new(|_| {});
    let send = server.post("/send/nope", json!({"command": "ping"})).await;
    assert_eq!((send.status.as_u16(), send.body), (404, json!({"detail": "Invalid session ID"})));
    for path in ["end-session", "session-memory", "update-user-info"] {
        let answer = server.post(&format!("/dash/{path}/nope"), json!({})).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (404, json!({"detail": "Session not found"})),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_wrong_body_is_a_422_on_every_route_that_reads_one() {
    let server = Server::in_mode(AuthMode::Jwt);
    let token = bearer(&server.register("ada@x.org").await);
    let headers = [("authorization", token.as_str())];
    for path in ["/dash/start-session", "/auth/login", "/auth/register"] {
        for body in ["\"text\"", "{\"command\":"] {
            let answer = server.ask(request("POST", path, &headers, body.into())).await;
            assert_eq!(answer.status, 422, "{path} {body}");
            assert_eq!(answer.body["detail"][0]["loc"][0], "body", "{path} {body}");
        }
    }
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let server = Server::new(|settings| settings.server.max_body_mb = 1);
    let large = || Body::from(vec![b' '; 1024 * 1024 + 1]);
    let answer = server.ask(request("POST", "/dash/start-session", &[], large())).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body["detail"].as_str().unwrap().contains("256 KiB"));
    let answer = server.ask(request("POST", "/send/x", &[], large())).await;
    assert_eq!(answer.status, 404, "for no session a body is read");
}

#[tokio::test]
async fn without_authentication_there_are_no_accounts() {
    let server = Server::new(|_| {});
    let credentials = json!({"email": "a", "password": "b"});
    assert_eq!(server.get("/auth/config", &[]).await.body, json!({"mode": "none"}));
    for (answer, detail) in [
        (server.get("/auth/me", &[]).await, "Not available in current auth mode"),
        (
            server.post("/auth/register", credentials.clone()).await,
            "Registration is only available in jwt auth mode",
        ),
        (server.post("/auth/login", credentials).await, "Login is only available in jwt auth mode"),
    ] {
        assert_eq!((answer.status.as_u16(), answer.body), (404, json!({"detail": detail})));
    }
}

#[tokio::test]
async fn every_protected_route_asks_for_a_token() {
    for mode in [AuthMode::Password, AuthMode::Jwt, AuthMode::External] {
        let server = Server::in_mode(mode);
        let operations = server.operations().await;
        assert!(operations.iter().filter(|(.., protected)| *protected).count() >= 12);
        for (method, path, protected) in operations {
            let answer = server.ask(request(&method, &path, &[], Body::empty())).await;
            assert_eq!(answer.status == 401, protected, "{method} {path}: {}", answer.status);
            if protected {
                assert_eq!(answer.headers["www-authenticate"], "Bearer", "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let server = Server::new(|_| {});
    for (method, path, _) in server.operations().await {
        let answer = server.ask(request(&method, &path, &[], Body::empty())).await;
        assert_ne!(answer.body["detail"], "Not Found", "{method} {path}");
        assert_ne!(answer.status, 405, "{method} {path}");
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_with_the_recorded_texts() {
    let server = Server::in_mode(AuthMode::Jwt);
    let missing = "Missing or invalid Authorization header. Use: Bearer <token>";
    for (header, detail) in [
        ("Bearer not.a.token", "Invalid token: Invalid header padding"),
        ("Bearer ", missing),
        ("Basic abc", missing),
        ("nonsense", missing),
    ] {
        let answer = server.get("/dash/sessions", &[("authorization", header)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (401, json!({"detail": detail})),
            "{header}"
        );
    }
}

#[tokio::test]
async fn registration_and_login_answer_as_recorded() {
    let server = Server::in_mode(AuthMode::Jwt);
    let ada =
        json!({"email": "ada@x.org", "password": "s3cret!", "first_name": "Ada", "last_name": "L"});
    let registered = server.post("/auth/register", ada).await;
    let user =
        json!({"user_id": "1", "email": "ada@x.org", "full_name": "Ada L", "role": "student"});
    assert_eq!(registered.status, 200);
    assert_eq!(registered.body["token_type"], "bearer");
    assert_eq!(registered.body["user"], user);

    let again = json!({"email": "ada@x.org", "password": "x"});
    let again = server.post("/auth/register", again).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.body, json!({"detail": "A user with this email already exists"}));

    let login = |email: &str, password: &str| json!({"email": email, "password": password});
    for (email, password) in [("ada@x.org", "bad"), ("nobody@x.org", "s3cret!")] {
        let answer = server.post("/auth/login", login(email, password)).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.body, json!({"detail": "Invalid email or password"}));
    }
    let logged_in = server.post("/auth/login", login("ada@x.org", "s3cret!")).await;
    assert_eq!(logged_in.body["user"], user);
    let token = bearer(logged_in.body["access_token"].as_str().unwrap());
    assert_eq!(server.get("/auth/me", &[("authorization", &token)]).await.body, user);
}

#[tokio::test]
async fn unacceptable_credentials_are_refused_with_a_reason() {
    let server = Server::in_mode(AuthMode::Jwt);
    let long = "x".repeat(1025);
    for (email, password, word) in [
        ("", "", "required"),
        ("a@x.org", "", "required"),
        ("a@x.org", long.as_str(), "1024 bytes"),
    ] {
        let body = json!({"email": email, "password": password});
        let answer = server.post("/auth/register", body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body["detail"].as_str().unwrap().contains(word), "{}", answer.body);
    }
}

#[tokio::test]
async fn disabled_and_deleted_users_are_refused() {
    let server = Server::in_mode(AuthMode::Jwt);
    let ada = bearer(&server.register("ada@x.org").await);
    let bob = bearer(&server.register("bob@x.org").await);
    server.change_users("UPDATE users SET is_active = 0 WHERE email = 'ada@x.org'");
    server.change_users("DELETE FROM users WHERE email = 'bob@x.org'");
    for token in [ada, bob] {
        let answer = server.get("/dash/sessions", &[("authorization", &token)]).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.body, json!({"detail": "User not found or inactive"}));
    }
    let login = json!({"email": "ada@x.org", "password": "pw"});
    assert_eq!(server.post("/auth/login", login).await.status, 403);
    let login = json!({"email": "bob@x.org", "password": "pw"});
    assert_eq!(server.post("/auth/login", login).await.status, 401);
}

#[tokio::test]
async fn mode_password_accepts_the_password() {
    let server = Server::in_mode(AuthMode::Password);
    let wrong = server.post("/auth/login", json!({"password": "open barley"})).await;
    assert_eq!((wrong.status.as_u16(), wrong.body), (401, json!({"detail": "Invalid password"})));
    let right = server.post("/auth/login", json!({"password": "open sesame"})).await;
    assert_eq!(right.status, 200);
    let token = bearer(right.body["access_token"].as_str().unwrap());
    let sessions = server.get("/dash/sessions", &[("authorization", &token)]).await;
    assert_eq!((sessions.status.as_u16(), sessions.body), (200, json!({})));
    assert_eq!(server.get("/auth/me", &[("authorization", &token)]).await.status, 404);
}

#[tokio::test]
async fn tokens_of_another_service_are_accepted_in_mode_external_only() {
    let local = Server::in_mode(AuthMode::Jwt);
    let token = bearer(&local.register("ada@x.org").await);
    let headers = [("authorization", token.as_str())];
    let external = Server::in_mode(AuthMode::External);
    let me = external.get("/auth/me", &headers).await;
    assert_eq!((me.status.as_u16(), &me.body["email"]), (200, &json!("ada@x.org")));
    let another = Server::in_mode(AuthMode::Jwt);
    assert_eq!(another.get("/auth/me", &headers).await.status, 401, "no such user here");
}

#[tokio::test]
async fn a_token_of_another_service_identifies_its_user() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let folder = TempDir::new().unwrap();
    let public = folder.path().join("public.pem");
    std::fs::write(&public, pair.public_key_pem()).unwrap();
    let server = Server::new(|settings| {
        settings.auth.mode = AuthMode::External;
        settings.auth.jwt_secret_key = Secret::default();
        settings.auth.jwt_public_key = Some(public);
        settings.auth.jwt_audience = vec!["phoebe".to_owned()];
        settings.auth.jwt_role_claim = "realm.roles".to_owned();
    });
    let signed = |audience: &str| {
        let key = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let claims = json!({
            "sub": "4f2a", "name": "Ada L", "email": "ada@x.org", "aud": audience,
            "exp": 4_000_000_000_u64, "realm": {"roles": ["offline", "instructor"]},
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        bearer(&jsonwebtoken::encode(&header, &claims, &key).unwrap())
    };
    let me = server.get("/auth/me", &[("authorization", &signed("phoebe"))]).await;
    let ada = json!({
        "user_id": "4f2a", "email": "ada@x.org", "full_name": "Ada L", "role": "instructor",
    });
    assert_eq!((me.status.as_u16(), me.body), (200, ada));
    let foreign = server.get("/auth/me", &[("authorization", &signed("mail"))]).await;
    assert_eq!(foreign.status, 401);
    let login = json!({"email": "ada@x.org", "password": "pw"});
    assert_eq!(server.post("/auth/login", login).await.status, 404, "there are no local users");
}

#[tokio::test]
async fn without_the_keys_of_the_other_service_a_token_gets_a_503() {
    let server = Server::new(|settings| {
        settings.auth.mode = AuthMode::External;
        settings.auth.jwt_secret_key = Secret::default();
        // Nobody listens on the discard port.
        settings.auth.jwks = "http://127.0.0.1:9/keys".to_owned();
    });
    let local = Server::in_mode(AuthMode::Jwt);
    let token = bearer(&local.register("ada@x.org").await);
    let answer = server.get("/dash/sessions", &[("authorization", &token)]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(answer.body["detail"].as_str().unwrap().contains("keys"));
    assert_eq!(server.get("/dash/sessions", &[]).await.status, 401);
}

#[tokio::test]
async fn api_keys_are_required_if_enabled() {
    let server = Server::new(|settings| {
        settings.auth.enabled = true;
        settings.auth.api_keys = vec![Secret::new("phoebe_one"), Secret::new("phoebe_two")];
    });
    let missing = server.get("/dash/sessions", &[]).await;
    assert_eq!(missing.status, 401);
    assert_eq!(missing.headers["www-authenticate"], "ApiKey");
    assert_eq!(missing.body, json!({"detail": "Missing API key. Include X-API-Key header."}));
    let wrong = server.get("/dash/sessions", &[("x-api-key", "phoebe_thr")]).await;
    assert_eq!((wrong.status.as_u16(), wrong.body), (403, json!({"detail": "Invalid API key"})));
    for key in ["phoebe_one", "phoebe_two"] {
        assert_eq!(server.get("/dash/sessions", &[("x-api-key", key)]).await.status, 200);
    }
    assert_eq!(server.get("/health", &[]).await.status, 200);
}

#[test]
fn settings_without_secrets_are_refused() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("s.db"), CommandFilter::default()).unwrap();
    let refused = |mode: AuthMode, secret: &str, enabled: bool| {
        let mut settings = Settings::default().auth;
        settings.mode = mode;
        settings.jwt_secret_key = Secret::new(secret);
        settings.enabled = enabled;
        let refused = Authenticator::from_settings(&settings, store.clone()).err();
        refused.map(|error| error.to_string()).unwrap_or_default()
    };
    for mode in [AuthMode::Jwt, AuthMode::External] {
        for secret in ["", "test"] {
            assert!(refused(mode, secret, false).contains("jwt_secret_key"));
        }
    }
    assert!(refused(AuthMode::Password, "s", false).contains("[auth] password"));
    assert!(refused(AuthMode::None, "", true).contains("api_keys"));
}

#[tokio::test]
async fn other_origins_are_allowed_by_settings() {
    let origin = [("origin", "https://x.org"), ("access-control-request-method", "POST")];
    let open = Server::new(|_| {});
    let headers = open.get("/health", &origin).await.headers;
    assert!(!headers.contains_key("access-control-allow-origin"));
    let plain =
        request("POST", "/dash/end-session/x", &[("origin", "https://x.org")], Body::empty());
    let refused = open.ask(plain).await;
    assert_eq!(refused.status, 403, "a page of another origin changes nothing");
    let plain =
        request("POST", "/dash/end-session/x", &[("origin", "http://localhost:80")], Body::empty());
    assert_eq!(open.ask(plain).await.status, 404);

    let listed = Server::new(|settings| {
        settings.server.cors_origins = vec!["https://x.org".to_owned()];
        settings.auth.mode = AuthMode::Jwt;
    });
    let preflight = request("OPTIONS", "/dash/start-session", &origin, Body::empty());
    let preflight = listed.ask(preflight).await;
    assert_eq!(preflight.status, 200, "asked without a token");
    assert_eq!(preflight.headers["access-control-allow-origin"], "https://x.org");
    assert_eq!(preflight.headers["access-control-allow-methods"], "POST");
    let refused = listed.get("/dash/sessions", &origin).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.headers["access-control-allow-origin"], "https://x.org");
    let foreign_origin = listed.get("/health", &[("origin", "https://evil.org")]).await;
    assert!(!foreign_origin.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn the_pages_are_complete_and_have_a_content_security_policy() {
    let server = Server::in_mode(AuthMode::Jwt);
    for path in ["/docs", "/redoc", "/docs/swagger-ui.css", "/docs/redoc.standalone.js"] {
        let plain = server.get(path, &[]).await;
        assert_eq!(plain.status, 200, "{path}");
        let policy = plain.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
    }
    let script = server.get("/docs/swagger-ui-bundle.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!(script.headers["content-encoding"], "gzip");
    assert_eq!(server.get("/docs/other.js", &[]).await.status, 404);
}

#[tokio::test]
async fn a_page_with_a_final_slash_has_the_same_links() {
    let server = Server::in_mode(AuthMode::Jwt);
    for path in ["/docs", "/redoc"] {
        let page = server.text(path).await;
        let in_folder = server.text(&format!("{path}/")).await;
        assert!(page.contains("=\"docs/") && in_folder.contains("=\"../docs/"), "{in_folder}");
        assert_eq!(in_folder.replace("=\"../", "=\""), page);
        assert!(!page.contains("=\"/"), "a link leads to the root: {page}");
    }
    let document = server.get("/openapi.json", &[]).await.body;
    assert_eq!(document["servers"][0]["url"], ".");
}

#[tokio::test]
async fn a_prefix_that_the_proxy_does_not_strip_is_reported() {
    let server = Server::new(|settings| {
        settings.server.public_url = PublicUrl::parse("https://uni.example.org/phoebe/");
    });
    let answer = server.get("/phoebe/health", &[]).await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.body["detail"].as_str().unwrap().contains("strip /phoebe from"),
        "{}",
        answer.body
    );
    assert_eq!(server.get("/nope", &[]).await.body["detail"], "Not Found");
    let by_its_name = server.get("/health", &[("host", "uni.example.org")]).await;
    assert_eq!(by_its_name.status, 200, "its own name");
}

#[tokio::test]
async fn a_panic_affects_one_request_only() {
    async fn defect() -> &'static str {
        panic!("a defect")
    }
    let router = with_middleware(Router::new().route("/defect", get(defect)), &Settings::default());
    for _ in 0..2 {
        let answer = ask(&router, request("GET", "/defect", &[], Body::empty())).await;
        assert_eq!(answer.status, 500);
        assert!(answer.body["detail"].is_string());
        assert!(!answer.body.to_string().contains("a defect"));
    }
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

struct LogWriter<'a>(MutexGuard<'a, Vec<u8>>);

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter(self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn a_request_is_logged_as_one_line_without_secrets() {
    let server = Server::new(|settings| {
        settings.auth.mode = AuthMode::Jwt;
        settings.server.trusted_proxies = vec!["10.0.0.1/32".parse().unwrap()];
    });
    let token = bearer(&server.register("ada@x.org").await);
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let path = format!("/dash/end-session/{SOME_ID}?first_name=hidden");
    let headers = [("authorization", token.as_str()), ("x-forwarded-for", "6.6.6.6, 203.0.113.7")];
    let mut asked = request("POST", &path, &headers, "{\"hidden\": 1}".into());
    asked.extensions_mut().insert(client_address::Peer("10.0.0.1".parse().unwrap()));
    server.ask(asked).await;
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.contains("\"message\":\"request\"")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    let fields = serde_json::from_str::<Value>(lines[0]).unwrap()["fields"].take();
    assert_eq!(fields["method"], "POST");
    assert_eq!(fields["route"], "/dash/end-session/{session_id}");
    assert_eq!(fields["status"], 404);
    assert_eq!(fields["session"], SOME_ID);
    assert_eq!(fields["user"], "1");
    assert_eq!(fields["client"], "203.0.113.7", "what the trusted proxy says");
    assert!(fields["duration_ms"].is_number());
    assert!(!text.contains("hidden") && !text.contains(&token[7..]));
}
