//! Secrets appear nowhere: with the most talkative log, in `config`, in errors, in the process
//! list.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::support::{Program, Reply, TestServer};

/// One for each place where a secret is set or sent.
const CANARIES: [&str; 9] = [
    "canary-of-the-gate",
    "canary-of-the-token-secret",
    "canary-of-the-first-key",
    "canary-of-the-second-key",
    "canary-of-a-right-password",
    "canary-of-a-wrong-password",
    "canary-of-a-wrong-key",
    "canary-of-the-metrics-token",
    "canary-of-a-wrong-metrics-token",
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
            .set("metrics.token", CANARIES[7])
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
        for (token, status) in [(CANARIES[7], 200), (CANARIES[8], 401)] {
            let metrics = server.with_token(token).get("/metrics").await;
            assert_eq!(metrics.status, status, "{}", metrics.body);
            answers += &metrics.body.to_string();
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

/// In every text and name that a user sends.
const MARKER: &str = "marker-of-a-user";
/// Where the database is to hold what users sent of themselves and their sessions, and the names of
/// commands.
const DOCUMENTED: [(&str, &str); 11] = [
    ("sessions", "project_name"),
    ("sessions", "user_agent"),
    ("session_user_info", "first_name"),
    ("session_user_info", "last_name"),
    ("session_user_info", "email"),
    ("session_commands", "command_name"),
    ("jobs", "idempotency_key"),
    ("jobs", "command"),
    ("jobs", "record"),
    ("users", "email"),
    ("users", "first_name"),
];

/// The commands that docs/commands.md lists.
fn commands() -> Vec<String> {
    let text = include_str!("../../../../docs/commands.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.split('|').nth(1));
    names.flat_map(|names| names.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Requests for every documented route that does not end what the test needs.
fn routes(session: &str) -> Vec<(reqwest::Method, String)> {
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let ends = path.contains("end-session") || path.contains("kill");
        for method in methods.as_object().unwrap().keys().filter(|method| *method != "delete") {
            let mut path = path.replace("{session_id}", if ends { MARKER } else { session });
            while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
                path.replace_range(start..=end, MARKER);
            }
            routes.push((method.to_uppercase().parse().unwrap(), format!("{path}?x={MARKER}")));
        }
    }
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_send_is_in_no_log() {
    let server = TestServer::builder().python().set("logging.level", "TRACE").start().await;
    let session = server.start_session().await;
    let commands = commands();
    assert!(commands.iter().any(|command| command == "run_solver"), "{commands:?}");
    let mut failures = 0;
    for command in &commands {
        for fields in [
            json!({"twig": MARKER}),
            json!({"twig": "period@binary", "value": MARKER}),
            json!({"kind": MARKER}),
            json!({"kind": "lc", "dataset": MARKER, "times": MARKER}),
            json!({"compute": MARKER}),
            json!({"solver": MARKER}),
            json!({"bundle": MARKER}),
            json!({"morphology": MARKER}),
            json!({MARKER: MARKER}),
        ] {
            let mut body = fields;
            body["command"] = json!(command);
            let answer = session.send(&body).await;
            failures += usize::from(answer.body["success"] == false);
        }
    }
    assert!(failures > 100, "{failures}");
    for (method, path) in routes(&session.id) {
        for body in [json!({"command": MARKER, "name": MARKER, "email": MARKER}), json!(MARKER)] {
            let request = server.request(method.clone(), &path);
            // Some are asked with what they cannot take, and some streams do not end.
            let request = request.timeout(std::time::Duration::from_secs(20)).json(&body);
            let _answered = Reply::try_of(request).await;
        }
    }
    let log = server.log().clone();
    server
        .finish_keeping(|server| {
            let database = server.database();
            let tables: Vec<String> =
                database.column("SELECT name FROM sqlite_master WHERE type = 'table'");
            for table in tables {
                let columns: Vec<String> =
                    database.column(&format!("SELECT name FROM pragma_table_info('{table}')"));
                for column in columns {
                    let found: Vec<String> = database.column(&format!(
                    "SELECT CAST({column} AS TEXT) FROM {table} WHERE {column} LIKE '%{MARKER}%'"
                ));
                    let documented = DOCUMENTED.contains(&(table.as_str(), column.as_str()));
                    assert!(found.is_empty() || documented, "{table}.{column}: {found:?}");
                }
            }
            let reasons: Vec<String> = database
                .column("SELECT DISTINCT error_message FROM session_commands WHERE NOT success");
            assert!(reasons.iter().any(|reason| reason == "ValueError"), "{reasons:?}");
            let text = log.text();
            let lines = text.lines().filter(|line| line.contains(MARKER));
            // What a session's own code prints is documented, and its own line.
            let ours: Vec<_> = lines.filter(|line| !line.contains("\"worker output\"")).collect();
            assert_eq!(ours, Vec::<&str>::new());
        })
        .await;
}
