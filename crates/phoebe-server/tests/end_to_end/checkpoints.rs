//! Undo, checkpoints, copies and links to them, from outside.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Reply, Session, TestServer};

const SECRET: &str = "a secret for this test only, long enough";

async fn set(session: &Session, value: i64) {
    session.result(json!({"command": "set_value", "twig": "a", "value": value})).await;
}

async fn get(session: &Session) -> Value {
    session.result(json!({"command": "get_value", "twig": "a"})).await
}

fn path(session: &Session, rest: &str) -> String {
    format!("/v1/sessions/{}/{rest}", session.id)
}

async fn delete(client: &Client, path: &str) -> Reply {
    Reply::of(client.request(Method::DELETE, path)).await
}

/// A checkpoint's id.
async fn checkpoint(client: &Client, session: &Session, name: &str) -> String {
    let made = client.post(&path(session, "checkpoints"), &json!({"name": name})).await.expect(200);
    made["id"].as_str().unwrap().to_owned()
}

/// A new account's client.
async fn account(server: &TestServer, email: &str, first_name: &str) -> Client {
    let account = json!({"email": email, "password": "s3cret!", "first_name": first_name});
    let account = server.post("/auth/register", &account).await.expect(200);
    server.with_token(account["access_token"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_undone_and_made_again_as_far_as_they_are_kept() {
    let server = TestServer::builder().fake().set("session.undo_depth", 3).start().await;
    let session = server.start_session().await;
    let undo = async || server.post_empty(&path(&session, "undo")).await;
    let redo = async || server.post_empty(&path(&session, "redo")).await;
    let history = async || server.get(&path(&session, "history")).await.expect(200);

    let nothing = undo().await.expect(409);
    assert_eq!(nothing["detail"], "There is nothing to undo");
    for value in 1..=5 {
        set(&session, value).await;
    }
    assert_eq!(history().await, json!({"undo": 3, "redo": 0}));
    assert_eq!(undo().await.expect(200), json!({"undo": 2, "redo": 1}));
    assert_eq!(get(&session).await, 4);
    assert_eq!(undo().await.expect(200), json!({"undo": 1, "redo": 2}));
    assert_eq!(undo().await.expect(200), json!({"undo": 0, "redo": 3}));
    assert_eq!(get(&session).await, 2);
    undo().await.expect(409);
    assert_eq!(redo().await.expect(200), json!({"undo": 1, "redo": 2}));
    assert_eq!(get(&session).await, 3);
    // Another way: what was undone cannot be made again.
    set(&session, 30).await;
    let nothing = redo().await.expect(409);
    assert_eq!(nothing["detail"], "There is nothing to redo");
    undo().await.expect(200);
    assert_eq!(get(&session).await, 3);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_gone_back_to_until_it_is_removed() {
    let mut server = TestServer::builder().fake().set("session.max_checkpoints", 2).start().await;
    let session = server.start_session().await;
    set(&session, 1).await;
    let wish = json!({"name": "one", "note": "before the fit"});
    let made = server.post(&path(&session, "checkpoints"), &wish).await.expect(200);
    let id = made["id"].as_str().unwrap().to_owned();
    set(&session, 2).await;
    let second = checkpoint(&server, &session, "two").await;

    let listed = server.get(&path(&session, "checkpoints")).await.expect(200);
    let listed = listed["checkpoints"].as_array().unwrap().clone();
    let names: Vec<_> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(listed[0], made);
    assert_eq!((&made["note"], &made["step"]), (&json!("before the fit"), &json!(1)));
    assert!(made["created_at"].as_f64().unwrap() > 1.7e9);

    let third = server.post(&path(&session, "checkpoints"), &json!({"name": "three"})).await;
    assert!(third.expect(409)["detail"].as_str().unwrap().contains("2 checkpoints"));
    for wrong in [json!({}), json!({"name": " "}), json!({"name": "x".repeat(201)})] {
        let refused = server.post(&path(&session, "checkpoints"), &wrong).await.expect(422);
        assert_eq!(refused["detail"][0]["loc"], json!(["body", "name"]), "{refused}");
    }

    set(&session, 3).await;
    let restore = format!("checkpoints/{id}/restore");
    server.post_empty(&path(&session, &restore)).await.expect(200);
    assert_eq!(get(&session).await, 1);
    server.post_empty(&path(&session, "undo")).await.expect(200);
    assert_eq!(get(&session).await, 3);

    // It outlives the server.
    server.kill_nine().await;
    server.start_again().await;
    let session = server.session(&session.id);
    server.post_empty(&path(&session, &restore)).await.expect(200);
    assert_eq!(get(&session).await, 1);

    let one = path(&session, &format!("checkpoints/{id}"));
    delete(&server, &one).await.expect(200);
    delete(&server, &one).await.expect(404);
    server.post_empty(&path(&session, &restore)).await.expect(404);
    let listed = server.get(&path(&session, "checkpoints")).await.expect(200);
    assert_eq!(listed["checkpoints"][0]["id"], json!(second));
    for id in ["..", "1", &"0".repeat(32)] {
        server.post_empty(&path(&session, &format!("checkpoints/{id}/restore"))).await.expect(404);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_its_own_way() {
    let server = TestServer::builder().fake().start().await;
    let original = server.start_session_with(&json!({"project_name": "Algol"})).await;
    set(&original, 1).await;
    let id = checkpoint(&server, &original, "one").await;
    set(&original, 2).await;

    let copy = server.post_empty(&path(&original, "clone")).await.expect(200);
    assert_eq!(copy["project_name"], "Algol");
    assert_ne!(copy["session_id"], json!(original.id));
    let copy = server.session(copy["session_id"].as_str().unwrap());
    assert_eq!(get(&copy).await, 2);
    let wish = json!({"checkpoint": id, "project_name": "Mizar"});
    let earlier = server.post(&path(&original, "clone"), &wish).await.expect(200);
    assert_eq!(earlier["project_name"], "Mizar");
    let earlier = server.session(earlier["session_id"].as_str().unwrap());
    assert_eq!(get(&earlier).await, 1);

    set(&copy, 20).await;
    set(&earlier, 10).await;
    assert_eq!(get(&original).await, 2);
    original.end().await.expect(200);
    assert_eq!((get(&copy).await, get(&earlier).await), (json!(20), json!(10)));
    let none = server.post(&path(&copy, "clone"), &json!({"checkpoint": id})).await;
    assert_eq!(none.expect(404)["detail"], "Checkpoint not found");
    assert_eq!(server.sessions().await.as_object().unwrap().len(), 2, "nothing half made is left");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lets_others_look_and_copy_and_nothing_else() {
    let mut server = TestServer::builder()
        .fake()
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", SECRET)
        .start()
        .await;
    let ada = account(&server, "ada@x.org", "Ada").await;
    let bob = account(&server, "bob@x.org", "Bob").await;
    let session = ada.start_session_with(&json!({"project_name": "Algol"})).await;
    set(&session, 1).await;
    let id = checkpoint(&ada, &session, "one").await;
    set(&session, 2).await;

    let share = path(&session, &format!("checkpoints/{id}/share"));
    bob.post_empty(&share).await.expect(403);
    let path_of = |link: &Value| format!("/v1/shared/{}", link["token"].as_str().unwrap());
    let first = path_of(&ada.post_empty(&share).await.expect(200));
    let link = ada.post_empty(&share).await.expect(200);
    let url = path_of(&link);
    assert_eq!(link["url"], format!("http://{}{url}", server.address()));
    bob.get(&first).await.expect(404);
    let listed = ada.get(&path(&session, "checkpoints")).await.expect(200);
    assert_eq!(listed["checkpoints"][0]["shared"], true);
    assert!(!files_hold(&server, link["token"].as_str().unwrap()), "the secret is kept");

    server.get(&url).await.expect(401);
    server.kill_nine().await;
    server.start_again().await;
    let [ada, bob] = ["ada@x.org", "bob@x.org"].map(|email| log_in(&server, email));
    let (ada, bob) = (ada.await, bob.await);
    let session = ada.session(&session.id);
    let seen = bob.get(&url).await.expect(200);
    assert_eq!(seen["name"], "one");
    assert_eq!((&seen["owner"], &seen["project_name"]), (&json!("Ada"), &json!("Algol")));
    assert!(!seen.to_string().contains("ada@x.org"));

    let copy = bob.post(&format!("{url}/clone"), &json!({"project_name": "Bob's"})).await;
    let copy = copy.expect(200);
    assert_eq!(copy["full_name"], "Bob");
    assert_eq!(copy["project_name"], "Bob's");
    let copy = bob.session(copy["session_id"].as_str().unwrap());
    assert_eq!(get(&copy).await, 1);
    set(&copy, 10).await;
    assert_eq!(get(&session).await, 2);
    bob.session(&session.id).send(&json!({"command": "ping"})).await.expect(403);

    delete(&bob, &share).await.expect(403);
    delete(&ada, &share).await.expect(200);
    delete(&ada, &share).await.expect(404);
    bob.get(&url).await.expect(404);
    bob.post_empty(&format!("{url}/clone")).await.expect(404);
    // With its checkpoint a link goes too.
    let url = path_of(&ada.post_empty(&share).await.expect(200));
    bob.get(&url).await.expect(200);
    delete(&ada, &path(&session, &format!("checkpoints/{id}"))).await.expect(200);
    bob.get(&url).await.expect(404);
    for wrong in ["phoebe_share_", "nonsense", "%ff", "phoebe_share_AAAA"] {
        bob.get(&format!("/v1/shared/{wrong}")).await.expect(404);
    }
    assert_eq!(get(&copy).await, 10);
    server.finish().await;
}

async fn log_in(server: &TestServer, email: &str) -> Client {
    let login = json!({"email": email, "password": "s3cret!"});
    let token = server.post("/auth/login", &login).await.expect(200);
    server.with_token(token["access_token"].as_str().unwrap())
}

/// Whether `text` is in a file below the data directory.
fn files_hold(server: &TestServer, text: &str) -> bool {
    let mut folders = vec![server.data()];
    let mut found = false;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = std::fs::read(&path).unwrap_or_default();
                found |= content.windows(text.len()).any(|part| part == text.as_bytes());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_there_is_nothing_to_go_back_to() {
    let server = TestServer::builder().fake().set("session.durability", "off").start().await;
    let session = server.start_session().await;
    set(&session, 1).await;
    let rest = ["undo", "redo", "clone"].map(|rest| path(&session, rest));
    for path in rest {
        let refused = server.post_empty(&path).await.expect(409);
        assert!(refused["detail"].as_str().unwrap().contains("Nothing is kept"), "{refused}");
    }
    server.get(&path(&session, "history")).await.expect(409);
    server.post(&path(&session, "checkpoints"), &json!({"name": "one"})).await.expect(409);
    assert_eq!(get(&session).await, 1);
    session.end().await.expect(200);
    server.finish().await;
}
