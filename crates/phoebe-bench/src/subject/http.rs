//! One kept-alive HTTP connection, as thin as a client can be; opened anew when the server closed
//! it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection to the server.
pub(crate) struct Connection {
    address: SocketAddr,
    requests: SendRequest<Full<Bytes>>,
}

/// An answer and how long it took, the whole body included.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) elapsed: Duration,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body of a 200.
    pub(crate) fn json(&self) -> Result<Value> {
        if self.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&self.body);
            bail!("{}: {}", self.status, text.chars().take(500).collect::<String>());
        }
        serde_json::from_slice(&self.body).context("the answer is no JSON")
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the last request handle; what breaks it is told to the request.
        tokio::spawn(connection);
        Ok(Self { address, requests })
    }

    /// Sends a GET and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends a POST and reads the whole answer.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Reply> {
        self.call(Method::POST, path, body).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Reply> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        // The server closes connections that were idle for long; like any client, open another one.
        // Not counted.
        if self.requests.ready().await.is_err() {
            *self = Self::open(self.address).await?;
        }
        let asked = Instant::now();
        let answer = self.requests.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(Reply { elapsed: asked.elapsed(), status, body })
    }
}
