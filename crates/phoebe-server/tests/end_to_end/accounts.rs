//! Accounts, groups, keys and guesses, while the server runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Client, Finished, Program, Reply, TestServer, until};

const SECRET: &str = "a secret for this test only, long enough";
/// What was remembered of an account is asked anew after five seconds.
const SOON: Duration = Duration::from_secs(20);

async fn server() -> TestServer {
    let builder = TestServer::builder().fake().set("auth.mode", "jwt");
    builder.set("auth.jwt_secret_key", SECRET).start().await
}

/// Runs the program beside the server, on its settings.
fn run(server: &TestServer, arguments: &[&str], input: &str) -> Finished {
    let config = server.config().to_str().unwrap();
    let program = Program::new(server.root()).arguments(["--config", config]);
    program.arguments(arguments).input(input).run()
}

#[track_caller]
fn succeed(server: &TestServer, arguments: &[&str], input: &str) -> String {
    let finished = run(server, arguments, input);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

async fn log_in(server: &TestServer, email: &str, password: &str) -> Reply {
    server.post("/auth/login", &json!({"email": email, "password": password})).await
}

async fn client(server: &TestServer, email: &str, password: &str) -> Client {
    let account = log_in(server, email, password).await.expect(200);
    server.with_token(account["access_token"].as_str().unwrap())
}

async fn status_becomes(client: &Client, status: u16) {
    until(&format!("status {status}"), SOON, async || {
        (client.get("/auth/me").await.status == status).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_is_imported_whole_and_its_instructor_looks_after_it() {
    let server = server().await;
    let roster = "email,first_name,last_name,role,group\n\
                  prof@uni.edu,Maria,Mitchell,instructor,\n\
                  ada@uni.edu,Ada,Lovelace,,\n\
                  bob@uni.edu,Bob,\"=1+1\",,planets | stars\n";
    fs::write(server.root().join("roster.csv"), roster).unwrap();
    let import =
        ["user", "import", "roster.csv", "--group", "stars", "--passwords", "passwords.csv"];

    let dry = run(&server, &[&import[..], &["--dry-run"]].concat(), "");
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let count = "SELECT count(*) FROM users";
    assert_eq!(server.database().column::<i64>(count), [0]);

    let done = run(&server, &import, "");
    assert_eq!(done.code, Some(0), "{done:?}");
    for line in [
        "line 2: prof@uni.edu made, instructor, in stars",
        "line 4: bob@uni.edu made, student, in planets | stars",
        "3 accounts made, 0 there already",
    ] {
        assert!(done.stderr.contains(line), "{line}: {}", done.stderr);
    }
    let path = server.root().join("passwords.csv");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        !done.stdout.contains('-') && written.starts_with("email,first_name,last_name,password\n")
    );
    let mut clients = Vec::new();
    for line in written.lines().skip(1) {
        let (email, password) = (line.split(',').next().unwrap(), line.rsplit(',').next().unwrap());
        clients.push(client(&server, email, password).await);
    }
    let [prof, ada, bob] = &clients[..] else { panic!("{written}") };
    assert_eq!(ada.get("/auth/me").await.expect(200)["full_name"], "Ada Lovelace");

    let theirs = ada.start_session().await;
    bob.start_session().await;
    assert_eq!(prof.sessions().await.as_object().unwrap().len(), 2);
    assert_eq!(ada.sessions().await.as_object().unwrap().len(), 1);
    let send = prof.post(&format!("/send/{}", theirs.id), &json!({"command": "ping"})).await;
    send.expect(403);
    prof.post_empty(&format!("/dash/end-session/{}", theirs.id)).await.expect(200);
    assert_eq!(server.database().end_of(&theirs.id).await, "admin");
    let audit = "SELECT actor || ' ' || detail FROM audit_log WHERE action = 'session.end'";
    until("the audit log's line", SOON, async || {
        (server.database().column::<String>(audit) == ["1 owner 2"]).then_some(())
    })
    .await;

    succeed(&server, &["user", "leave", "stars", "bob@uni.edu"], "");
    until("bob's session is not the instructor's matter any more", SOON, async || {
        prof.sessions().await.as_object().unwrap().is_empty().then_some(())
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_with_a_mistake_changes_nothing() {
    let server = server().await;
    succeed(&server, &["user", "add", "prof@uni.edu", "--role", "instructor"], "s3cret!\n");
    let roster = server.root().join("roster.csv");
    let passwords = server.root().join("passwords.csv");
    let count = || server.database().column::<i64>("SELECT count(*) FROM users")[0];
    for (text, word) in [
        ("email\nada@x.org\nnobody\n", "line 3"),
        ("email,role\nada@x.org,\nprof@uni.edu,student\n", "set-role"),
        ("email\nada@x.org\n", "passwords.csv"),
    ] {
        if word == "passwords.csv" {
            fs::write(&passwords, "precious").unwrap();
        }
        fs::write(&roster, text).unwrap();
        let import = ["user", "import", "roster.csv", "--passwords", "passwords.csv"];
        let refused = run(&server, &import, "");
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("nothing was imported"), "{refused:?}");
        assert!(refused.stderr.contains(word), "{refused:?}");
        assert_eq!(count(), 1, "{text}");
    }
    assert_eq!(fs::read_to_string(&passwords).unwrap(), "precious");

    // Again with more people: who is there stays, and joins the group.
    fs::write(&roster, "email,role\nPROF@uni.edu,instructor\nada@x.org,\n").unwrap();
    let done = run(&server, &["user", "import", "roster.csv", "--group", "stars"], "");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("1 accounts made, 1 there already"), "{done:?}");
    assert_eq!(done.stdout.lines().count(), 2, "{done:?}");
    log_in(&server, "prof@uni.edu", "s3cret!").await.expect(200);
    let list = succeed(&server, &["user", "list", "--group", "STARS"], "");
    assert!(list.contains("prof@uni.edu") && list.contains("ada@x.org"), "{list}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_changed_while_the_server_runs() {
    let server = server().await;
    let add = ["user", "add", "ada@x.org", "--first-name", "Ada", "--group", "stars"];
    let told = succeed(&server, &add, "first one\n");
    assert_eq!(told, "", "a password that was given is not repeated");
    assert_eq!(run(&server, &add, "again\n").code, Some(1), "there is one already");
    let ada = client(&server, "ada@x.org", "first one").await;
    let key = succeed(&server, &["api-key", "create", "--user", "ADA@x.org", "--name", "n"], "");
    let by_key = server.with_token(key.trim());
    assert_eq!(by_key.get("/auth/me").await.expect(200)["email"], "ada@x.org");

    succeed(&server, &["user", "set-role", "ada@x.org", "admin"], "");
    until("the role", SOON, async || {
        (ada.get("/auth/me").await.body["role"] == "admin").then_some(())
    })
    .await;
    succeed(&server, &["user", "disable", "ada@x.org"], "");
    status_becomes(&ada, 401).await;
    status_becomes(&by_key, 401).await;
    log_in(&server, "ada@x.org", "first one").await.expect(403);
    assert!(succeed(&server, &["user", "list"], "").contains("disabled"));
    succeed(&server, &["user", "enable", "ada@x.org"], "");
    status_becomes(&by_key, 200).await;

    let made = succeed(&server, &["user", "set-password", "ada@x.org", "--generate-password"], "");
    log_in(&server, "ada@x.org", "first one").await.expect(401);
    log_in(&server, "ada@x.org", made.trim()).await.expect(200);

    let keys = succeed(&server, &["api-key", "list", "--user", "ada@x.org"], "");
    let prefix = &key[.."phk_".len() + 12];
    assert!(keys.contains(prefix) && !keys.contains(key.trim()), "{keys}");
    succeed(&server, &["api-key", "revoke", prefix], "");
    status_becomes(&by_key, 403).await;

    for arguments in [
        &["user", "disable", "ada@x.org", "nobody@x.org"][..],
        &["user", "set-role", "nobody@x.org", "admin"],
        &["user", "join", "stars", "nobody@x.org"],
        &["api-key", "create", "--user", "nobody@x.org", "--name", "n"],
        &["api-key", "list", "--user", "nobody@x.org"],
    ] {
        let refused = run(&server, arguments, "");
        assert_eq!(refused.code, Some(1), "{arguments:?} {refused:?}");
        assert!(refused.stderr.contains("there is no account nobody@x.org"), "{refused:?}");
    }
    assert_eq!(run(&server, &["api-key", "revoke", prefix], "").code, Some(1), "it is gone");
    log_in(&server, "ada@x.org", made.trim()).await.expect(200);
    let deeds: Vec<String> = server.database().column("SELECT action FROM audit_log ORDER BY id");
    let expected = [
        "user.add",
        "api-key.create",
        "user.set-role",
        "user.disable",
        "user.enable",
        "user.set-password",
        "api-key.revoke",
    ];
    assert_eq!(deeds, expected, "all that was done, and nothing that was not");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_and_go_over_http() {
    let server = server().await;
    let account = json!({"email": "ada@x.org", "password": "s3cret!"});
    let account = server.post("/auth/register", &account).await.expect(200);
    let ada = server.with_token(account["access_token"].as_str().unwrap());
    let made = ada.post("/v1/api-keys", &json!({"name": "notebook", "expires_in_days": 7})).await;
    let made = made.expect(200);
    let key = made["api_key"].as_str().unwrap();
    let listed = ada.get("/v1/api-keys").await.expect(200);
    assert_eq!(listed["api_keys"][0]["name"], "notebook");
    assert!(!listed.to_string().contains(key), "it is told once");
    assert_eq!(listed["api_keys"][0]["last_used_at"], Value::Null);

    let by_header = server.request(Method::GET, "/auth/me").header("X-API-Key", key);
    assert_eq!(Reply::of(by_header).await.expect(200)["user_id"], "1");
    let by_key = server.with_token(key);
    let session = by_key.start_session().await;
    session.ping().await;
    assert_eq!(ada.sessions().await[&session.id]["user_id"], "1");
    by_key.post("/v1/api-keys", &json!({"name": "more"})).await.expect(403);
    until("its use is noted", SOON, async || {
        let listed = ada.get("/v1/api-keys").await.expect(200);
        listed["api_keys"][0]["last_used_at"].as_f64()
    })
    .await;

    for (body, status) in [
        (json!({}), 422),
        (json!({"name": 7}), 422),
        (json!({"name": "n", "expires_in_days": "soon"}), 422),
        (json!({"name": "n", "expires_in_days": 0}), 400),
    ] {
        ada.post("/v1/api-keys", &body).await.expect(status);
    }
    let path = format!("/v1/api-keys/{}", made["id"]);
    let revoke = async |path: &str| Reply::of(ada.request(Method::DELETE, path)).await;
    assert_eq!(revoke(&path).await.expect(200), json!({"success": true}));
    by_key.get("/auth/me").await.expect(403);
    revoke(&path).await.expect(404);
    revoke("/v1/api-keys/x").await.expect(404);
    session.end().await.expect(403);
    ada.post_empty(&format!("/dash/end-session/{}", session.id)).await.expect(200);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_is_told_to_wait_and_the_class_is_not() {
    let builder = TestServer::builder().fake().set("auth.mode", "password");
    let builder = builder.set("server.trusted_proxies", vec!["127.0.0.0/8"]);
    let server = builder.set("auth.password", "open sesame").start().await;
    let login = async |password: &str, from: &str| {
        let body = json!({"email": "ada@x.org", "password": password});
        let request = server.request(Method::POST, "/auth/login").json(&body);
        Reply::of(request.header("X-Forwarded-For", from)).await
    };
    for _ in 0..300 {
        login("open sesame", "192.0.2.1").await.expect(200);
    }
    for _ in 0..100 {
        login("open barley", "192.0.2.1").await.expect(401);
    }
    let wait = login("open barley", "192.0.2.1").await;
    assert_eq!(wait.status, 429);
    let seconds: u64 = wait.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    assert!(wait.body["detail"].as_str().unwrap().contains("Too many attempts"));
    login("open sesame", "192.0.2.1").await.expect(429);
    login("open sesame", "192.0.2.2").await.expect(200);
    let basic = server.request(Method::GET, "/dash/sessions");
    let basic = basic.basic_auth("anybody", Some("open sesame"));
    Reply::of(basic.header("X-Forwarded-For", "192.0.2.2")).await.expect(200);
    server.finish().await;
}

async fn register(client: &Client, email: &str) -> Reply {
    let wish = json!({
        "email": email, "password": "password-1", "first_name": "Ada", "last_name": "L",
    });
    client.post("/auth/register", &wish).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_registrations_holds_up_no_login() {
    let server = server().await;
    register(&server.client(), "ada@x.org").await.expect(200);
    let mut flood = JoinSet::new();
    for number in 0..120 {
        let client = server.client();
        flood.spawn(async move { register(&client, &format!("{number}@x.org")).await });
    }
    // At least one is in the line.
    until("a registration is over", SOON, async || flood.try_join_next()).await.unwrap();
    log_in(&server, "ada@x.org", "password-1").await.expect(200);
    while flood.try_join_next().is_some() {}
    assert!(!flood.is_empty(), "the login came behind the flood");
    while let Some(reply) = flood.join_next().await {
        let reply = reply.unwrap();
        if reply.status != 200 {
            assert!(reply.header("retry-after").is_some(), "{}", reply.body);
            reply.expect(503);
        }
    }
    server.finish().await;
}

const COMPOSED: &str = "j\u{fc}rgen@uni.edu";
const DECOMPOSED: &str = "ju\u{308}rgen@uni.edu";
const CAPITALS: &str = "J\u{dc}RGEN@UNI.EDU";

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_one_account_however_it_is_spelled() {
    let mut server = server().await;
    let id = |reply: Reply| reply.expect(200)["user"]["user_id"].clone();
    let first = id(register(&server.client(), DECOMPOSED).await);
    for spelling in [COMPOSED, CAPITALS, DECOMPOSED] {
        register(&server.client(), spelling).await.expect(409);
        assert_eq!(id(log_in(&server, spelling, "password-1").await), first, "{spelling}");
    }

    // As an earlier server left it, which told spellings apart.
    server.stop().await;
    for statement in [
        "DROP INDEX phoebe_users_by_account_name",
        "UPDATE users SET account_name = NULL",
        &format!(
            "INSERT INTO users (email, hashed_password, role, created_at)
             SELECT '{CAPITALS}', hashed_password, role, created_at FROM users"
        ),
        "PRAGMA user_version = 5",
    ] {
        server.database().execute(statement);
    }
    server.start_again().await;
    let second = id(log_in(&server, CAPITALS, "password-1").await);
    assert_ne!(second, first);
    for spelling in [COMPOSED, DECOMPOSED] {
        assert_eq!(id(log_in(&server, spelling, "password-1").await), first, "{spelling}");
    }
    let told = |entry: &Value| entry["email"] == CAPITALS;
    server.log().wait_for("what the second account is", SOON, told).await;
    server.finish().await;
}
