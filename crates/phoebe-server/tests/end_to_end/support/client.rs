//! HTTP as a client of the server speaks it.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// A client without authentication, or with a token.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body; null where it is no JSON.
    pub(crate) body: Value,
}

impl Client {
    pub(crate) fn new(base: String) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(120))
            .no_proxy()
            .build()
            .unwrap();
        Self { base, token: None, http }
    }

    /// The same client with a bearer token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// `host:port` of the server.
    pub(crate) fn address(&self) -> &str {
        self.base.split_once("://").map_or("", |(_, address)| address)
    }

    /// A request to be completed by the caller.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::GET, path)).await
    }

    /// POST without a body.
    pub(crate) async fn post_empty(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::POST, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.request(Method::POST, path).json(body)).await
    }

    /// Starts a session, which must succeed.
    pub(crate) async fn start_session(&self) -> Session {
        self.start_session_with(&json!({})).await
    }

    /// Starts a session with metadata, which must succeed.
    pub(crate) async fn start_session_with(&self, metadata: &Value) -> Session {
        let reply = self.post("/dash/start-session", metadata).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let id = reply.body["session_id"].as_str().unwrap().to_owned();
        let port = u16::try_from(reply.body["port"].as_u64().unwrap()).unwrap();
        Session { id, port, client: self.clone() }
    }

    /// A session that was started before; its port is not known.
    pub(crate) fn session(&self, id: &str) -> Session {
        Session { id: id.to_owned(), port: 0, client: self.clone() }
    }

    /// All sessions by id.
    pub(crate) async fn sessions(&self) -> Value {
        self.get("/dash/sessions").await.expect(200)
    }

    /// The ports that sessions use.
    pub(crate) async fn reserved_ports(&self) -> Vec<u64> {
        let status = self.get("/dash/port-status").await.expect(200);
        status["reserved_port_list"].as_array().unwrap().iter().filter_map(Value::as_u64).collect()
    }
}

impl Reply {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.expect("the server answers")
    }

    pub(crate) async fn try_of(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        // A stream of events has no end.
        let is_endless =
            headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let bytes = if is_endless { Default::default() } else { response.bytes().await? };
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Self { status, headers, body })
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A session that was started.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) port: u16,
    client: Client,
}

impl Session {
    /// Sends a command, whatever comes of it.
    pub(crate) async fn send(&self, command: &Value) -> Reply {
        self.client.post(&format!("/send/{}", self.id), command).await
    }

    /// Sends a command to a server that may end meanwhile.
    pub(crate) async fn try_send(&self, command: &Value) -> reqwest::Result<Reply> {
        let path = format!("/send/{}", self.id);
        Reply::try_of(self.client.request(Method::POST, &path).json(command)).await
    }

    /// Sends a command and returns its answer, which is one of success or failure.
    pub(crate) async fn command(&self, command: Value) -> Value {
        let answer = self.send(&command).await.expect(200);
        assert!(answer["success"].is_boolean(), "{command} was answered {answer}");
        answer
    }

    /// Sends a command that must succeed and returns its result.
    pub(crate) async fn result(&self, command: Value) -> Value {
        let mut answer = self.command(command.clone()).await;
        assert_eq!(answer["success"], true, "{command} was answered {answer}");
        answer["result"].take()
    }

    pub(crate) async fn ping(&self) -> Value {
        self.result(json!({"command": "ping"})).await
    }

    pub(crate) async fn end(&self) -> Reply {
        self.client.post_empty(&format!("/dash/end-session/{}", self.id)).await
    }
}
