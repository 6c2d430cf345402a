//! TLS: reads the server's certificate from its files and renews it while the server runs.
//!
//! New connections get the newest valid pair. An invalid pair is logged and changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

mod pair;

pub use pair::TlsError;
use pair::{Pair, PairFiles};

/// How often the files are checked. SIGHUP checks them at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The TLS configuration of the server; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

/// The certificate in use.
#[derive(Debug)]
struct Certificate {
    files: PairFiles,
    served: RwLock<Pair>,
}

impl Tls {
    /// Reads a certificate chain and its private key, both PEM.
    ///
    /// # Errors
    /// [`TlsError`] names the wrong file and the remedy.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let files = PairFiles { certificate, key };
        let served = RwLock::new(files.read()?);
        let certificate = Arc::new(Certificate { files, served });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// Returns the acceptor that performs handshakes.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Reloads renewed files: every minute, and on SIGHUP. Never returns.
    ///
    /// # Errors
    /// If the system cannot deliver SIGHUP.
    pub async fn watch(self) -> std::io::Result<()> {
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut minutes = interval(CHECK_INTERVAL);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            tokio::select! {
                _ = minutes.tick() => {}
                _ = hang_up.recv() => reported = None,
            }
            reported = self.reload(reported).await;
        }
    }

    /// Reloads the pair if the files have changed. Returns the reason why the new pair cannot be
    /// used; `reported` is the reason that is already logged.
    async fn reload(&self, reported: Option<String>) -> Option<String> {
        let certificate = Arc::clone(&self.certificate);
        let renewed = tokio::task::spawn_blocking(move || certificate.renew()).await;
        let files = &self.certificate.files;
        match renewed {
            Ok(Ok(true)) => {
                let certificate = files.certificate.display();
                tracing::info!(%certificate, "serving the renewed certificate");
                None
            }
            Ok(Ok(false)) => None,
            Ok(Err(error)) => {
                let error = error.to_string();
                if reported.as_ref() != Some(&error) {
                    tracing::error!(
                        %error,
                        "the renewed certificate cannot be used; the earlier one stays in use"
                    );
                }
                Some(error)
            }
            Err(error) => {
                tracing::error!(%error, "checking the certificate failed");
                reported
            }
        }
    }
}

impl Certificate {
    /// Reads the files. Returns whether they hold a new pair, which is served from now on.
    fn renew(&self) -> Result<bool, TlsError> {
        let found = self.files.read()?;
        let is_new = found != *self.served.read().unwrap_or_else(PoisonError::into_inner);
        if is_new {
            *self.served.write().unwrap_or_else(PoisonError::into_inner) = found;
        }
        Ok(is_new)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&served.certified))
    }
}

#[cfg(test)]
pub(super) mod tests;
