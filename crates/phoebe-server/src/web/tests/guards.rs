//! Tests of the middleware of all routes: headers, host names, limits.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

#[tokio::test]
async fn every_answer_has_security_headers() {
    let server = Server::in_mode(AuthMode::Jwt);
    let tls = Server::new(|settings| settings.server.tls_cert = Some("any.pem".into()));
    for path in ["/health", "/auth/config", "/dash/sessions", "/nope", "/docs", "/openapi.json"] {
        let answer = server.get(path, &[]).await.headers;
        assert_eq!(answer["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(answer["x-frame-options"], "DENY", "{path}");
        assert_eq!(answer["cache-control"], "no-store", "{path}");
        let policy = answer["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("script-src 'self' 'unsafe"), "{path}");
        assert!(!answer.contains_key("strict-transport-security"), "{path}");
        let answer = tls.get(path, &[]).await.headers;
        assert_eq!(answer["strict-transport-security"], "max-age=31536000", "{path}");
    }
}

#[tokio::test]
async fn dns_rebinding_is_refused() {
    let server = Server::new(|_| {});
    for (host, status) in
        [("127.0.0.1:8001", 200), ("localhost", 200), ("[::1]:8001", 200), ("evil.org:8001", 421)]
    {
        // For a browser this page has the same origin as the server.
        let origin = format!("http://{host}");
        let headers = [("host", host), ("origin", origin.as_str())];
        let answer = server.get("/dash/sessions", &headers).await;
        assert_eq!(answer.status, status, "{host}");
    }
    let headers = [("host", "evil.org"), ("content-type", JSON)];
    let refused = server.ask(request("POST", "/dash/start-session", &headers, "{}".into())).await;
    assert_eq!(refused.status, 421);
    assert!(refused.body["detail"].as_str().unwrap().contains("public_url"));
}

/// A route that waits, and the number of requests that have reached it.
fn waiting(go_on: &Arc<Notify>, reached: &Arc<AtomicUsize>) -> Router {
    let (go_on, reached) = (Arc::clone(go_on), Arc::clone(reached));
    let wait = move || async move {
        let going_on = go_on.notified();
        reached.fetch_add(1, Ordering::SeqCst);
        going_on.await;
        "done"
    };
    Router::new().route("/wait", get(wait)).route("/health", get(|| async { "well" }))
}

#[tokio::test]
async fn above_the_servers_limit_a_request_gets_a_503() {
    let (go_on, reached) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let mut settings = Settings::default();
    settings.server.max_requests_in_flight = 2;
    let router = with_middleware(waiting(&go_on, &reached), &settings);
    let get = |path| request("GET", path, &[], Body::empty());
    let mut first = Vec::new();
    for count in 1..=2 {
        let router = router.clone();
        first.push(tokio::spawn(async move { ask(&router, get("/wait")).await.status }));
        while reached.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
    let refused = ask(&router, get("/wait")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(ask(&router, get("/health")).await.status, 200, "the server is full, and well");
    go_on.notify_waiters();
    for answer in first {
        assert_eq!(answer.await.unwrap(), 200);
    }
    let again = tokio::spawn(async move { ask(&router, get("/wait")).await.status });
    while reached.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    go_on.notify_waiters();
    assert_eq!(again.await.unwrap(), 200);
}

#[tokio::test]
async fn above_a_callers_limit_only_the_caller_gets_a_429() {
    let server = Server::new(|settings| {
        settings.auth.mode = AuthMode::Jwt;
        settings.server.max_requests_per_caller = 1;
    });
    let ada = bearer(&server.register("ada@x.org").await);
    let bob = bearer(&server.register("bob@x.org").await);
    // The answer is not read, so the request is in flight.
    let list = |token: &str| {
        let headers = [("authorization", token)];
        server.router.clone().oneshot(request("GET", "/dash/sessions", &headers, Body::empty()))
    };
    let unread = list(&ada).await.unwrap();
    assert_eq!(unread.status(), 200);
    let refused = server.get("/dash/sessions", &[("authorization", &ada)]).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(list(&bob).await.unwrap().status(), 200);
    drop(unread);
    assert_eq!(list(&ada).await.unwrap().status(), 200);
}
