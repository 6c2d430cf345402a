//! Whether the certificate and key of the settings can be served.

use super::Finding;
use crate::config::Settings;
use crate::web::Tls;

const SUBJECT: &str = "TLS";

/// Nothing where plain HTTP is served.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let server = &settings.server;
    let Some((certificate, key)) = server.tls_cert.clone().zip(server.tls_key.clone()) else {
        return Vec::new();
    };
    let text = format!("{} and its key fit", certificate.display());
    vec![match Tls::open(certificate, key) {
        Ok(_) => Finding::ok(SUBJECT, text),
        Err(error) => Finding::failed(
            SUBJECT,
            error.to_string(),
            "correct [server] tls_cert and tls_key, or remove both and put a proxy that ends TLS in front",
        ),
    }]
}
