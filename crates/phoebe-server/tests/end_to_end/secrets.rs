//! Secrets appear nowhere: with the most talkative log, in `config`, in errors, in the process list.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::support::{Program, Reply, TestServer};

/// One for each place where a secret is set or sent.
const CANARIES: [&str; 7] = [
    "canary-of-the-gate",
    "canary-of-the-token-secret",
    "canary-of-the-first-key",
    "canary-of-the-second-key",
    "canary-of-a-right-password",
    "canary-of-a-wrong-password",
    "canary-of-a-wrong-key",
];

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_to_be_read() {
    for mode in ["password", "jwt"] {
        let server = TestServer::builder()
            .fake()
            .set("logging.level", "TRACE")
            .set("auth.mode", mode)
            .set("auth.password", CANARIES[0])
            .set("auth.jwt_secret_key", CANARIES[1])
            .set("auth.enabled", true)
            .set("auth.api_keys", vec![CANARIES[2], CANARIES[3]])
            .start()
            .await;
        let mut answers = String::new();
        let mut secrets: Vec<String> = CANARIES.map(str::to_owned).into();
        let right = if mode == "jwt" { CANARIES[4] } else { CANARIES[0] };
        let account = json!({"email": "ada@x.org", "password": right});
        server.post("/auth/register", &account).await;
        let login = server.post("/auth/login", &account).await.expect(200);
        let token = login["access_token"].as_str().unwrap().to_owned();
        for body in [
            json!({"email": "ada@x.org", "password": CANARIES[5]}),
            json!({"email": "eve@x.org", "password": CANARIES[5]}),
            json!({"email": "ada@x.org", "password": format!("{}\0", CANARIES[5])}),
        ] {
            for path in ["/auth/login", "/auth/register"] {
                answers += &server.post(path, &body).await.body.to_string();
            }
        }
        let get = async |key: &str, authorization: &str| {
            let request = server.request(reqwest::Method::GET, "/dash/sessions");
            let request = request.header("X-API-Key", key);
            Reply::of(request.header("Authorization", authorization)).await
        };
        let bearer = format!("Bearer {token}");
        assert_eq!(get(CANARIES[2], &bearer).await.status, 200);
        for (key, authorization) in [
            (CANARIES[6], bearer.as_str()),
            (CANARIES[3], "Bearer canary-of-a-wrong-password"),
            (CANARIES[3], "Basic Y2FuYXJ5LW9mLWEtd3JvbmctcGFzc3dvcmQ6eA=="),
        ] {
            let refused = get(key, authorization).await;
            assert!([401, 403].contains(&refused.status), "{}", refused.body);
            answers += &refused.body.to_string();
        }
        if mode == "jwt" {
            let request = server.request(reqwest::Method::POST, "/v1/api-keys");
            let request = request.header("X-API-Key", CANARIES[2]).header("Authorization", &bearer);
            let key = Reply::of(request.json(&json!({"name": "n"}))).await.expect(200);
            let key = key["api_key"].as_str().unwrap().to_owned();
            assert_eq!(get(&key, "").await.status, 200);
            secrets.push(key.rsplit_once('_').unwrap().1.to_owned());
        }
        secrets.push(token.rsplit_once('.').unwrap().1.to_owned());

        let config = server.config().to_str().unwrap().to_owned();
        let printed = Program::new(server.root()).arguments(["--config", &config, "config"]).run();
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let line = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
        let places = [
            ("the log", server.log().text()),
            ("an answer", answers),
            ("config", printed.stdout + &printed.stderr),
            ("the process list", String::from_utf8_lossy(&line).into_owned()),
        ];
        assert!(places[0].1.contains("/auth/login") && places[2].1.contains("********"));
        for (place, text) in places {
            for secret in &secrets {
                assert!(!text.contains(secret), "{secret} is in {place} in mode {mode}");
            }
        }
        server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_settings_file_is_complained_of_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let [gate, secret, ..] = CANARIES;
    for text in [
        format!("[auth]\nmode = \"jwt\"\njwt_secret_key = [\"{secret}\"]\npassword = 7\n"),
        format!("[auth]\npassword = \"{gate}\njwt_secret_key = \"{secret}\"\n"),
        format!("[auth]\nmode = \"password\"\npasword = \"{gate}\"\n"),
        format!("[auth]\nenabled = true\napi_keys = {{ one = \"{gate}\" }}\n"),
    ] {
        fs::write(&file, &text).unwrap();
        let refused = Program::new(folder.path()).arguments(["run"]).run();
        assert_eq!(refused.code, Some(2), "{refused:?}");
        for canary in CANARIES {
            assert!(!format!("{refused:?}").contains(canary), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_can_read_are_told() {
    let mut server = TestServer::builder().fake().set("auth.password", "s3cret").start().await;
    let (config, folder) = (server.config().to_owned(), server.data());
    let database = folder.join("sessions.db");
    let modes = [(&folder, 0o700), (&database, 0o600)];
    for (path, mode) in modes {
        let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    let root = server.root().to_owned();
    let doctor = || {
        let arguments = ["--config", config.to_str().unwrap(), "doctor"];
        Program::new(&root).arguments(arguments).run().stdout
    };
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&config, 0o600);
    let well = doctor();
    assert!(well.contains("ok       secrets"), "{well}");
    for path in [&config, &database] {
        open(path, 0o644);
        let found = doctor();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(found.contains("warning  secrets") && found.contains(name), "{found}");
        assert!(found.contains("chmod"), "{found}");
        open(path, 0o600);
    }
    server.stop().await;
    open(&config, 0o604);
    let told = |server: &TestServer| {
        let entries = server.log().entries();
        let messages = entries.iter().filter_map(|entry| entry["message"].as_str());
        messages.filter(|message| message.contains("mode 604") && message.contains("chmod")).count()
    };
    assert_eq!(told(&server), 0);
    server.start_again().await;
    assert_eq!(told(&server), 1, "told at the start");
    server.finish().await;
}
