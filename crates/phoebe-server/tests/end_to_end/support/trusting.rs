//! HTTPS as a client speaks it that trusts one certificate.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

/// A certificate for `localhost` and its key.
pub(crate) type Pair = CertifiedKey<KeyPair>;

pub(crate) fn make_pair() -> Pair {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Somebody who trusts one certificate.
#[derive(Clone)]
pub(crate) struct Trusting {
    address: String,
    http: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Trusting {
    /// A client of `https://localhost:PORT`.
    pub(crate) fn new(port: u16, pair: &Pair) -> Self {
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
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { address: format!("https://localhost:{port}"), http }
    }

    /// Scheme, host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Over a connection of its own: an answer whose body is still to be read, if the certificate
    /// is trusted.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Option<Response<Incoming>> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.http.request(request.body(body.into()).unwrap()).await.ok()
    }

    /// Over a connection of its own: status and body, if the certificate is trusted.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let answer = self.open(method, path, &[], body.to_string()).await?;
        let status = answer.status().as_u16();
        let bytes = to_bytes(Body::new(answer.into_body()), usize::MAX).await.unwrap();
        Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}
