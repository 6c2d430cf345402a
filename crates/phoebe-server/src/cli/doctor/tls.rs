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
            "correct [server] tls_cert and tls_key, or remove both and put a proxy that \
             ends TLS in front",
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn only_a_certificate_in_the_settings_is_looked_at() {
        let mut settings = Settings::default();
        assert!(check(&settings).is_empty());
        settings.server.tls_cert = Some("/no/such/cert.pem".into());
        settings.server.tls_key = Some("/no/such/key.pem".into());
        let findings = check(&settings);
        assert_eq!(findings[0].level, Level::Failed);
        assert!(findings[0].text.contains("/no/such/cert.pem cannot be read"));
    }
}
