//! HTTPS with the real server: a session inside TLS, and certificates that are renewed while requests run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustix::process::Signal;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Program, TestServer, fake_worker, until};

const DEADLINE: Duration = Duration::from_secs(20);

type Pair = CertifiedKey<KeyPair>;

struct Files {
    _folder: TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn holding(pair: &Pair) -> Self {
        let folder = TempDir::new().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let files = Self { _folder: folder, certificate, key };
        files.write(pair);
        files
    }

    fn write(&self, pair: &Pair) {
        fs::write(&self.certificate, pair.cert.pem()).unwrap();
        fs::write(&self.key, pair.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&self.key, Permissions::from_mode(0o600)).unwrap();
    }

    async fn serve(&self) -> TestServer {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let server = TestServer::builder();
        let server = server.set("server.tls_cert", text(&self.certificate));
        server.set("server.tls_key", text(&self.key)).start().await
    }
}

/// Somebody who trusts one certificate.
#[derive(Clone)]
struct Trusting {
    address: String,
    http: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Trusting {
    fn new(server: &TestServer, pair: &Pair) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed session shows no certificate.
        tls.resumption = Resumption::disabled();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let port = server.address().rsplit_once(':').unwrap().1;
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { address: format!("https://localhost:{port}"), http }
    }

    /// Over a connection of its own: status and body, if the certificate is trusted.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        let answer =
            self.http.request(request.body(body.to_string().into()).unwrap()).await.ok()?;
        let status = answer.status().as_u16();
        let bytes = to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
        Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

fn make() -> Pair {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_inside_tls_while_the_certificate_is_renewed() {
    let (old, new) = (make(), make());
    let files = Files::holding(&old);
    let server = files.serve().await;
    let before = Trusting::new(&server, &old);
    let after = Trusting::new(&server, &new);

    let (status, session) = before.ask("POST", "/dash/start-session", &json!({})).await.unwrap();
    assert_eq!(status, 200, "{session}");
    let path = format!("/send/{}", session["session_id"].as_str().unwrap());
    let ping = json!({"command": "ping"});

    // Half a renewal is reported, and the old pair served on.
    fs::write(&files.certificate, new.cert.pem()).unwrap();
    server.signal(Signal::HUP);
    let is_report = |entry: &Value| entry.to_string().contains("the earlier one is served on");
    server.log().wait_for("the broken renewal", DEADLINE, is_report).await;
    assert_eq!(before.ask("POST", &path, &ping).await.unwrap().0, 200);

    files.write(&new);
    server.signal(Signal::HUP);
    let mut requests = 0;
    until("the renewed certificate", DEADLINE, async || {
        // Each request is answered to whoever trusts one of the two.
        let answer = match before.ask("POST", &path, &ping).await {
            None => Some(after.ask("POST", &path, &ping).await.expect("trusted by one of both")),
            Some((status, _)) => {
                assert_eq!(status, 200);
                None
            }
        };
        requests += 1;
        answer.map(|(status, answer)| assert_eq!((status, &answer["success"]), (200, &json!(true))))
    })
    .await;
    assert!(requests > 0 && before.ask("POST", &path, &ping).await.is_none());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_to_use_https() {
    let pair = make();
    let files = Files::holding(&pair);
    let server = files.serve().await;
    let listening =
        |entry: &Value| entry["url"].as_str().is_some_and(|url| url.starts_with("https://"));
    server.log().wait_for("the address", DEADLINE, listening).await;
    let answer = reqwest::get(format!("http://{}/health", server.address())).await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    assert!(answer.text().await.unwrap().contains("https://"));
    let healthy = Trusting::new(&server, &pair).ask("GET", "/health", &Value::Null).await.unwrap();
    assert_eq!(healthy, (200, json!({"status": "ok"})));
    server.finish().await;
}

#[test]
fn a_key_that_does_not_fit_stops_the_start() {
    let files = Files::holding(&make());
    fs::write(&files.key, make().signing_key.serialize_pem()).unwrap();
    let folder = TempDir::new().unwrap();
    let ended = Program::new(folder.path())
        .arguments(["run", "--port", "0", "--python"])
        .arguments([fake_worker()])
        .environment("PHOEBE_SERVER__SERVER__TLS_CERT", &files.certificate)
        .environment("PHOEBE_SERVER__SERVER__TLS_KEY", &files.key)
        .run();
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("is not the key of the certificate"), "{}", ended.stderr);
}
