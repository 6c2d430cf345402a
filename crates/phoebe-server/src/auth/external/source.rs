//! Where keys come from: a file, or a URL that is asked with bounds on time and size. It caches
//! nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::Algorithm;
use rustls::ClientConfig;
use rustls::crypto::ring;
use thiserror::Error;
use tokio::time::timeout;

use super::keys::{KeyError, Keys};

/// For how long a URL may take to answer.
const FETCH_WITHIN: Duration = Duration::from_secs(10);
/// The largest key set in bytes.
const MAX_SET: usize = 512 * 1024;

/// Why there are no keys.
#[derive(Debug, Error)]
pub(super) enum SourceError {
    /// A file cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A URL was not answered as it should be.
    #[error("{url} did not give its key set: {reason}")]
    NotFetched {
        /// The URL.
        url: Uri,
        /// What came instead.
        reason: String,
    },
    /// What was read holds no keys.
    #[error("{place}: {source}")]
    NoKeys {
        /// The file or URL.
        place: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// Not one of the URLs that keys may come from.
    #[error("{0:?} is no URL for keys: https://, or http:// on this machine, without a user name")]
    BadUrl(String),
    /// The machine's own certificates.
    #[error("no HTTPS address can be asked: {0}. Install the package ca-certificates")]
    NoRoots(String),
}

/// Where keys are, and which algorithms they may be used with.
pub(super) struct Source {
    place: Place,
    allowed: Vec<Algorithm>,
}

enum Place {
    PublicKeyFile(PathBuf),
    SetFile(PathBuf),
    SetUrl { url: Uri, http: Box<Client<HttpsConnector<HttpConnector>, Body>> },
}

impl Source {
    /// A public key in a PEM file.
    pub(super) fn public_key(path: PathBuf, allowed: Vec<Algorithm>) -> Self {
        Self { place: Place::PublicKeyFile(path), allowed }
    }

    /// A key set: a file, or a URL where the text has a scheme.
    pub(super) fn set(text: &str, allowed: Vec<Algorithm>) -> Result<Self, SourceError> {
        if !text.contains("://") {
            return Ok(Self { place: Place::SetFile(text.into()), allowed });
        }
        let url = checked_url(text)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| SourceError::NoRoots(error.to_string()))?;
        let tls = if url.scheme_str() == Some("https") {
            tls.with_native_roots().map_err(|error| SourceError::NoRoots(error.to_string()))?
        } else {
            tls.with_root_certificates(rustls::RootCertStore::empty())
        };
        Ok(Self::asking(url, tls.with_no_client_auth(), allowed))
    }

    /// A URL, asked with this idea of whom to trust.
    pub(super) fn asking(url: Uri, tls: ClientConfig, allowed: Vec<Algorithm>) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { place: Place::SetUrl { url, http: Box::new(http) }, allowed }
    }

    /// Whether its keys are there as soon as it is asked.
    pub(super) fn is_local(&self) -> bool {
        !matches!(self.place, Place::SetUrl { .. })
    }

    /// The file or URL.
    pub(super) fn name(&self) -> String {
        match &self.place {
            Place::PublicKeyFile(path) | Place::SetFile(path) => path.display().to_string(),
            Place::SetUrl { url, .. } => url.to_string(),
        }
    }

    /// The bytes there now. Files are read on the spot: they are small.
    pub(super) async fn read(&self) -> Result<Vec<u8>, SourceError> {
        match &self.place {
            Place::SetUrl { url, http } => fetch(url, http)
                .await
                .map_err(|reason| SourceError::NotFetched { url: url.clone(), reason }),
            Place::PublicKeyFile(_) | Place::SetFile(_) => self.read_file(),
        }
    }

    /// The bytes of a file now.
    pub(super) fn read_file(&self) -> Result<Vec<u8>, SourceError> {
        match &self.place {
            Place::PublicKeyFile(path) | Place::SetFile(path) => {
                std::fs::read(path).map_err(|error| SourceError::Unreadable {
                    path: path.clone(),
                    reason: error.to_string(),
                })
            }
            Place::SetUrl { url, .. } => Err(SourceError::NotFetched {
                url: url.clone(),
                reason: "it is no file".to_owned(),
            }),
        }
    }

    /// The keys in what was read.
    pub(super) fn parse(&self, bytes: &[u8]) -> Result<Keys, SourceError> {
        let keys = match &self.place {
            Place::PublicKeyFile(_) => Keys::of_pem(bytes, &self.allowed),
            Place::SetFile(_) | Place::SetUrl { .. } => Keys::of_set(bytes, &self.allowed),
        };
        keys.map_err(|source| SourceError::NoKeys { place: self.name(), source })
    }
}

/// A URL whose answer nobody between can change.
fn checked_url(text: &str) -> Result<Uri, SourceError> {
    let bad = || SourceError::BadUrl(text.to_owned());
    let url: Uri = text.parse().map_err(|_| bad())?;
    let authority = url.authority().ok_or_else(bad)?;
    let is_safe = match url.scheme_str() {
        Some("https") => true,
        Some("http") => crate::config::is_loopback(authority.host()),
        _ => false,
    };
    if is_safe && !authority.as_str().contains('@') { Ok(url) } else { Err(bad()) }
}

async fn fetch(
    url: &Uri,
    http: &Client<HttpsConnector<HttpConnector>, Body>,
) -> Result<Vec<u8>, String> {
    let fetched = async {
        let answer = http.get(url.clone()).await.map_err(|error| with_causes(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                return Err(format!("it answered {status}, and redirects are not followed"));
            }
            status => return Err(format!("it answered {status}")),
        }
        let body = to_bytes(Body::new(answer.into_body()), MAX_SET).await;
        let body = body.map_err(|error| {
            format!("its answer broke off or is larger than {} KiB ({error})", MAX_SET / 1024)
        })?;
        Ok(body.to_vec())
    };
    timeout(FETCH_WITHIN, fetched)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH_WITHIN.as_secs())))
}

/// An error with its causes: the first says only that a connection failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_urls_are_accepted() {
        for good in [
            "https://x.org/keys",
            "https://x.org:8443/a?b=c",
            "http://127.0.0.1:9/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
        ] {
            assert!(checked_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://x.org/keys",
            "http://127.0.0.1.x.org/keys",
            "ftp://x.org/keys",
            "https://ada:secret@x.org/keys",
            "http://localhost@x.org/keys",
            "https:///keys",
            "://",
        ] {
            assert!(checked_url(bad).is_err(), "{bad}");
        }
    }
}
