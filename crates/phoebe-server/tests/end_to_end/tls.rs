//! HTTPS with the real server: a session inside TLS, and certificates that are renewed while
//! requests run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Pair, Program, TestServer, Trusting, fake_worker, make_pair, until};

const DEADLINE: Duration = Duration::from_secs(20);

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

fn trusting(server: &TestServer, pair: &Pair) -> Trusting {
    Trusting::new(server.address().rsplit_once(':').unwrap().1.parse().unwrap(), pair)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_inside_tls_while_the_certificate_is_renewed() {
    let (old, new) = (make_pair(), make_pair());
    let files = Files::holding(&old);
    let server = files.serve().await;
    let before = trusting(&server, &old);
    let after = trusting(&server, &new);

    let (status, session) = before.ask("POST", "/dash/start-session", &json!({})).await.unwrap();
    assert_eq!(status, 200, "{session}");
    let path = format!("/send/{}", session["session_id"].as_str().unwrap());
    let ping = json!({"command": "ping"});

    // Half a renewal is reported, and the earlier pair stays in use.
    fs::write(&files.certificate, new.cert.pem()).unwrap();
    server.signal(Signal::HUP);
    let is_report = |entry: &Value| entry.to_string().contains("the earlier one stays in use");
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
async fn plain_http_on_a_tls_port_gets_a_400() {
    let pair = make_pair();
    let files = Files::holding(&pair);
    let server = files.serve().await;
    let listening =
        |entry: &Value| entry["url"].as_str().is_some_and(|url| url.starts_with("https://"));
    server.log().wait_for("the address", DEADLINE, listening).await;
    let answer = reqwest::get(format!("http://{}/health", server.address())).await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    assert!(answer.text().await.unwrap().contains("https://"));
    let healthy = trusting(&server, &pair).ask("GET", "/health", &Value::Null).await.unwrap();
    assert_eq!(healthy, (200, json!({"status": "ok"})));
    server.finish().await;
}

#[test]
fn a_key_that_does_not_fit_stops_the_start() {
    let files = Files::holding(&make_pair());
    fs::write(&files.key, make_pair().signing_key.serialize_pem()).unwrap();
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
