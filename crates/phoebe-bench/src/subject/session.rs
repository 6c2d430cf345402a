//! One session of the server, with a connection of its own.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Answer;
use super::http::Connection;

/// A started session.
pub(crate) struct Session {
    connection: Connection,
    id: String,
    port: u16,
}

impl Session {
    /// Starts a session over `connection`; also tells how long the request took.
    pub(crate) async fn start(mut connection: Connection) -> Result<(Self, Duration)> {
        let reply = connection.post("/dash/start-session", Bytes::from_static(b"{}")).await?;
        let view = reply.json().context("start-session")?;
        let id = view["session_id"].as_str().context("start-session told no id")?.to_owned();
        let port = view["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.context("start-session told no port")?;
        Ok((Self { connection, id, port }, reply.elapsed))
    }

    /// The same session over another connection.
    pub(crate) fn also_over(&self, connection: Connection) -> Self {
        Self { connection, id: self.id.clone(), port: self.port }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The port of the worker that it was started with.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs one command; a command that fails is an error.
    pub(crate) async fn send(&mut self, command: &Value) -> Result<Answer> {
        send(&mut self.connection, &self.id, command).await
    }

    /// Whether it is asleep.
    pub(crate) async fn is_asleep(&mut self) -> Result<bool> {
        is_asleep(&mut self.connection, &self.id).await
    }

    /// Pings it.
    pub(crate) async fn ping(&mut self) -> Result<Duration> {
        Ok(self.send(&json!({"command": "ping"})).await?.elapsed)
    }

    /// Ends it; tells how long the request took, and gives the connection back.
    pub(crate) async fn end(mut self) -> Result<(Connection, Duration)> {
        let path = format!("/dash/end-session/{}", self.id);
        let reply = self.connection.post(&path, Bytes::new()).await?;
        reply.json().context("end-session")?;
        Ok((self.connection, reply.elapsed))
    }
    /// Leaves it as it is; gives back connection and id.
    pub(crate) fn leave(self) -> (Connection, String) {
        (self.connection, self.id)
    }
}

/// Runs one command in session `id`; a command that fails is an error.
pub(crate) async fn send(connection: &mut Connection, id: &str, command: &Value) -> Result<Answer> {
    let body = Bytes::from(serde_json::to_vec(command)?);
    let reply = connection.post(&format!("/send/{id}"), body).await?;
    let mut answer = reply.json()?;
    if answer["success"] != json!(true) {
        bail!("{} failed: {}", command["command"], answer["error"]);
    }
    Ok(Answer { elapsed: reply.elapsed, result: answer["result"].take() })
}

/// Whether session `id` is asleep. Asking does not wake it.
pub(crate) async fn is_asleep(connection: &mut Connection, id: &str) -> Result<bool> {
    let view = connection.get(&format!("/v1/sessions/{id}")).await?.json()?;
    Ok(view["status"] == json!("asleep"))
}
