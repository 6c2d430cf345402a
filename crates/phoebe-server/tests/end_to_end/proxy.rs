//! Behind a real nginx that ends TLS and serves the server under a path, configured as
//! `docs/operations.md` says, word for word.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::Response;
use axum::routing::get;
use futures::{StreamExt as _, stream};
use hyper::body::Incoming;
use reqwest::Url;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Builder, Pair, PortRange, TestServer, Trusting, make_pair, until};

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");
const PREFIX: &str = "/phoebe";
const DEADLINE: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret that nobody knows";

/// What the documented configuration has that is another's here, and what it is here.
struct Substitutes<'a> {
    port: u16,
    certificate: &'a Path,
    key: &'a Path,
    server: &'a str,
}

/// A running nginx.
struct Nginx {
    process: Child,
    client: Trusting,
    folder: TempDir,
    _port: PortRange,
}

impl Nginx {
    /// In front of `server`; nothing where there is no nginx and none is required.
    async fn start(place: Place, server: &str) -> Self {
        let Place { program, port, pair } = place;
        let folder = TempDir::new().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let number = port.range().start;
        let substitutes =
            Substitutes { port: number, certificate: &certificate, key: &key, server };
        let configuration = configuration(folder.path(), &documented(&substitutes));
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut process = Command::new(program)
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let errors = folder.path().join("error.log");
        until("nginx listens", DEADLINE, async || {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("nginx: {status}: {}", fs::read_to_string(&errors).unwrap_or_default());
            }
            TcpStream::connect(("127.0.0.1", number)).await.ok()
        })
        .await;
        Self { process, client: Trusting::new(number, &pair), folder, _port: port }
    }

    /// The address of the server, as clients know it.
    fn address(&self) -> String {
        format!("{}{PREFIX}", self.client.address())
    }

    /// An answer to a path below the prefix.
    async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response<Incoming> {
        let answer = self.client.open(method, &format!("{PREFIX}{path}"), headers, body).await;
        answer.unwrap_or_else(|| panic!("no answer: {}", self.errors()))
    }

    /// The JSON of an answer, which must be one of success.
    async fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = self.open(method, path, &headers, body.to_string()).await;
        let status = answer.status();
        let bytes = to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(status, 200, "{method} {path}: {text} {}", self.errors());
        serde_json::from_str(&text).unwrap()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _gone = self.process.wait();
    }
}

/// What nginx needs before the server behind it is started.
struct Place {
    program: PathBuf,
    port: PortRange,
    pair: Pair,
}

impl Place {
    /// None where nginx is not installed: the gate installs it, so that it is missing nowhere else.
    fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
        let program = folders.map(|folder| folder.join("nginx")).find(|path| path.is_file());
        let Some(program) = program else {
            assert!(std::env::var_os("CI").is_none(), "nginx is missing (Debian: nginx-light)");
            eprintln!("SKIPPED: nginx is not installed (Debian: nginx-light)");
            return None;
        };
        Some(Self { program, port: PortRange::claim(1), pair: make_pair() })
    }

    fn address(&self) -> String {
        format!("https://localhost:{}{PREFIX}", self.port.range().start)
    }
}

/// The code in `language` that the documentation has under `heading`.
fn block(heading: &str, language: &str) -> &'static str {
    let section = OPERATIONS.split_once(heading).expect(heading).1;
    let code = section.split_once(&format!("```{language}\n")).expect(language).1;
    code.split_once("```").expect("an end").0
}

/// The documented server, with the ports and paths of this test.
fn documented(substitutes: &Substitutes) -> String {
    let Substitutes { port, certificate, key, server } = substitutes;
    let mut text = block("## Reverse proxy", "nginx").to_owned();
    for (documented, here) in [
        ("listen 443 ssl;", format!("listen 127.0.0.1:{port} ssl;")),
        ("server_name uni.example.org;", "server_name localhost;".to_owned()),
        ("/etc/ssl/uni.example.org/fullchain.pem", certificate.display().to_string()),
        ("/etc/ssl/uni.example.org/privkey.pem", key.display().to_string()),
        ("127.0.0.1:8001", (*server).to_owned()),
    ] {
        assert_eq!(text.matches(documented).count(), 1, "{documented}");
        text = text.replace(documented, &here);
    }
    text
}

/// A whole configuration around the documented part. Its own bounds are like nginx's, but so small
/// that whatever the documented part does not set is noticed at once.
fn configuration(folder: &Path, server: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders = kinds.map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()));
    format!(
        "daemon off;\nmaster_process off;\npid {}/nginx.pid;\nevents {{}}\n\
         http {{\naccess_log off;\nproxy_read_timeout 1s;\nproxy_send_timeout 1s;\n\
         client_max_body_size 1k;\n{}{server}}}\n",
        folder.display(),
        folders.concat()
    )
}

/// A server with the settings that the documentation gives for a class.
fn documented_settings(public_url: &str) -> Builder {
    let settings: toml::Table = block("## Settings", "toml").parse().unwrap();
    let mut builder = TestServer::builder().environment("PHOEBE_JWT_SECRET_KEY", SECRET);
    let mut is_replaced = false;
    for (section, values) in &settings {
        for (key, value) in values.as_table().unwrap() {
            let name = format!("{section}.{key}");
            builder = match name.as_str() {
                // The test's own.
                "database.path" => builder,
                "server.public_url" => {
                    is_replaced = true;
                    builder.set(&name, public_url)
                }
                _ => builder.set(&name, value.clone()),
            };
        }
    }
    assert!(is_replaced, "the documentation gives no public_url");
    builder
}

async fn register(nginx: &Nginx) -> String {
    let account = json!({"email": "ada@uni.edu", "password": "s3cret!", "full_name": "Ada"});
    let answer = nginx.ask("POST", "/auth/register", "", &account).await;
    answer["access_token"].as_str().unwrap().to_owned()
}

/// Starts a session with a shared checkpoint; its id, and the link that the server tells.
async fn share(nginx: &Nginx, token: &str) -> (String, String) {
    let ask = async |path: &str, body: Value| nginx.ask("POST", path, token, &body).await;
    let session = ask("/dash/start-session", json!({})).await;
    let id = session["session_id"].as_str().unwrap();
    let path = format!("/v1/sessions/{id}/checkpoints");
    let checkpoint = ask(&path, json!({"name": "one"})).await;
    let path = format!("{path}/{}/share", checkpoint["id"].as_str().unwrap());
    let link = ask(&path, json!({})).await;
    (id.to_owned(), link["url"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_proxy_and_settings_serve_a_class_under_a_path() {
    let Some(place) = Place::find() else { return };
    let public_url = format!("{}/", place.address());
    let server = documented_settings(&public_url).start().await;
    let nginx = Nginx::start(place, server.address()).await;
    let token = register(&nginx).await;
    let (id, link) = share(&nginx, &token).await;

    let path = link.strip_prefix(&nginx.address()).expect("as clients reach it");
    assert_eq!(nginx.ask("GET", path, &token, &json!({})).await["name"], "one");

    // More than nginx lets through by itself.
    let large = json!({"command": "ping", "unused": "x".repeat(2 << 20)});
    assert_eq!(nginx.ask("POST", &format!("/send/{id}"), &token, &large).await["success"], true);

    // What came before the proxy is in its header, and a page of the server's own is let in.
    let headers = [("origin", nginx.client.address()), ("x-forwarded-for", "203.0.113.7")];
    let answer = nginx.open("POST", "/auth/login", &headers, "{}").await;
    assert_eq!(answer.status(), 422, "told what is missing");
    let of_client =
        |entry: &Value| entry["message"] == "request" && entry["client"] == "203.0.113.7";
    let line = server.log().wait_for("the client's address", DEADLINE, of_client).await;
    assert_eq!(line["route"], "/auth/login");
    drop(nginx);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_links_work_under_a_path_that_only_the_proxy_knows() {
    let Some(place) = Place::find() else { return };
    let server = TestServer::builder()
        .set("server.trusted_proxies", "127.0.0.1")
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", SECRET)
        .start()
        .await;
    let nginx = Nginx::start(place, server.address()).await;
    let token = register(&nginx).await;
    let (_, link) = share(&nginx, &token).await;
    let path = link.strip_prefix(&nginx.address()).expect("as clients reach it");
    assert_eq!(nginx.ask("GET", path, &token, &json!({})).await["name"], "one");

    let mut loaded = 0;
    for page in ["/docs", "/docs/", "/redoc", "/redoc/"] {
        let page = Url::parse(&format!("{}{page}", nginx.address())).unwrap();
        for link in links(&text_of(&nginx, &page).await) {
            text_of(&nginx, &page.join(&link).unwrap()).await;
            loaded += 1;
        }
    }
    assert!(loaded >= 8, "only {loaded} links were found");
    let document = Url::parse(&format!("{}/openapi.json", nginx.address())).unwrap();
    let described: Value = serde_json::from_str(&text_of(&nginx, &document).await).unwrap();
    let routes = document.join(described["servers"][0]["url"].as_str().unwrap()).unwrap();
    assert_eq!(routes.as_str(), format!("{}/", nginx.address()));
    text_of(&nginx, &routes.join("health").unwrap()).await;

    let without_slash = nginx.open("GET", "", &[], Body::empty()).await;
    assert_eq!(without_slash.headers()["location"], format!("{}/", nginx.address()));
    drop(nginx);
    server.finish().await;
}

/// What an address below the prefix answers.
async fn text_of(nginx: &Nginx, address: &Url) -> String {
    let path = address.as_str().strip_prefix(&nginx.address());
    let path = path.unwrap_or_else(|| panic!("{address} leads out of {PREFIX}"));
    let answer = nginx.open("GET", path, &[], Body::empty()).await;
    assert_eq!(answer.status(), 200, "{address}");
    let bytes = to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a page loads.
fn links(page: &str) -> Vec<String> {
    let attributes = ["href=\"", "src=\"", "spec-url=\""];
    let found = attributes.into_iter().flat_map(|attribute| page.split(attribute).skip(1));
    let links = found.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    links.filter(|link| !link.starts_with("data:")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_proxy_waits_for_a_long_command() {
    let Some(place) = Place::find() else { return };
    let server = TestServer::builder().fake().set("server.trusted_proxies", "127.0.0.1");
    let server = server.set("server.public_url", place.address()).start().await;
    let nginx = Nginx::start(place, server.address()).await;
    let session = nginx.ask("POST", "/dash/start-session", "", &json!({})).await;
    let path = format!("/send/{}", session["session_id"].as_str().unwrap());
    // Longer than the proxy waits by itself here.
    let long = json!({"command": "run_compute", "seconds": 3});
    assert_eq!(nginx.ask("POST", &path, "", &long).await["success"], true);
    drop(nginx);
    server.finish().await;
}

/// Nothing of the server streams slowly yet: behind the proxy stands a server that does.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_proxy_passes_each_piece_of_an_answer_at_once() {
    let Some(place) = Place::find() else { return };
    let go_on = Arc::new(Notify::new());
    let gate = Arc::clone(&go_on);
    let events = move || async move {
        let pieces = stream::unfold(0, move |number| {
            let gate = Arc::clone(&gate);
            async move {
                if number == 1 {
                    gate.notified().await;
                }
                let piece = Bytes::from(format!("data: {number}\n\n"));
                (number < 2).then_some((Ok::<_, Infallible>(piece), number + 1))
            }
        });
        ([("content-type", "text/event-stream")], Body::from_stream(pieces))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().route("/events", get(events));
    let streaming = tokio::spawn(async move { axum::serve(listener, router).await });
    let nginx = Nginx::start(place, &address).await;

    let answer = nginx.open("GET", "/events", &[], Body::empty()).await;
    let mut pieces = Body::new(answer.into_body()).into_data_stream();
    let mut next =
        async || timeout(DEADLINE, pieces.next()).await.expect("at once").unwrap().unwrap();
    assert_eq!(next().await, "data: 0\n\n", "while the second is still to come");
    go_on.notify_one();
    assert_eq!(next().await, "data: 1\n\n");
    streaming.abort();
}
