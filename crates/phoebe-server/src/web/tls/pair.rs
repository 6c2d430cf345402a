//! Reads a certificate chain and its private key from disk and checks them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Permission bits that a private key must not have: its group may read it, others have no access.
const FORBIDDEN_MODE: u32 = 0o027;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "[server] {setting} {} cannot be read: {source}. The server's user must be able to read it",
        path.display()
    )]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The key's file is accessible to others.
    #[error(
        "[server] tls_key {} is open to others (mode {mode:o}): whoever reads it can impersonate \
         this server. Run `chmod 640 {}`, or 600", path.display(), path.display()
    )]
    KeyIsOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file holds no PEM item of the expected kind.
    #[error("[server] {setting} {} holds no {expected} in PEM form: {reason}", path.display())]
    NotPem {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The expected kind.
        expected: &'static str,
        /// The parser's error.
        reason: String,
    },
    /// The key does not belong to the certificate.
    #[error(
        "[server] tls_key {} is not the key of the certificate {}: name the two files that were \
         made together. The server's own certificate comes first in its file, then those of its \
         issuers", key.display(), certificate.display()
    )]
    NotAPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or key is not supported.
    #[error(
        "[server] tls_cert {} or tls_key {} cannot be used: {source}",
        certificate.display(), key.display()
    )]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The library's error.
        source: Error,
    },
    /// The TLS library cannot be configured.
    #[error("TLS cannot be set up: {0}")]
    Library(Error),
}

/// The paths of a certificate chain and its key.
#[derive(Debug)]
pub(super) struct PairFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// A certificate chain with its matching key.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// SHA-256 of both files.
    fingerprint: [u8; 32],
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl PairFiles {
    /// Reads the pair from disk.
    pub(super) fn read(&self) -> Result<Pair, TlsError> {
        let chain_pem = read("tls_cert", &self.certificate)?;
        let key_pem = read("tls_key", &self.key)?;
        self.check_mode()?;
        let chain = self.chain(&chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|error| not_pem("tls_key", &self.key, "private key", &error))?;
        let provider = ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|source| {
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            match source {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::NotAPair { certificate, key }
                }
                source => TlsError::Unusable { certificate, key, source },
            }
        })?;
        let mut digest = Sha256::new();
        digest.update(Sha256::digest(&chain_pem));
        digest.update(Sha256::digest(&key_pem));
        Ok(Pair { certified: Arc::new(certified), fingerprint: digest.finalize().into() })
    }

    fn chain(&self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.and_then(|chain| {
            if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) }
        });
        chain.map_err(|error| not_pem("tls_cert", &self.certificate, "certificate", &error))
    }

    fn check_mode(&self) -> Result<(), TlsError> {
        let path = self.key.clone();
        let found = fs::metadata(&path);
        let mode = match found {
            Ok(found) => found.permissions().mode() & 0o7777,
            Err(source) => return Err(TlsError::Unreadable { setting: "tls_key", path, source }),
        };
        if mode & FORBIDDEN_MODE == 0 { Ok(()) } else { Err(TlsError::KeyIsOpen { path, mode }) }
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { setting, path: path.to_owned(), source })
}

fn not_pem(
    setting: &'static str,
    path: &Path,
    expected: &'static str,
    error: &pem::Error,
) -> TlsError {
    let reason = match error {
        pem::Error::NoItemsFound => "there is none".to_owned(),
        other => other.to_string(),
    };
    TlsError::NotPem { setting, path: path.to_owned(), expected, reason }
}
