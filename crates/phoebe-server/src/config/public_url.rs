//! The public address of the server: scheme, host, and a path prefix. Parses settings and headers
//! alike, and rejects anything unusual.

use std::fmt::{self, Display, Formatter};

use axum::http::uri::Authority;

/// The most bytes of a prefix.
const MAX_PREFIX: usize = 256;
/// The most bytes of a host with port; a name has at most 253.
const MAX_HOST: usize = 259;

/// A path prefix of all routes, such as `/phoebe`; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Parses a path such as `/phoebe` or `/phoebe/`: letters, digits, `-`, `.`, `_`, `~` and
    /// slashes; no empty, `.` or `..` segment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.is_empty() {
            return Some(Self::default());
        }
        let mut segments = path.strip_prefix('/')?.split('/');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_segment =
            |text: &str| !["", ".", ".."].contains(&text) && text.bytes().all(is_plain);
        (path.len() <= MAX_PREFIX && segments.all(is_segment)).then(|| Self(path.to_owned()))
    }

    /// Returns whether `path` is below the prefix; false for an empty prefix.
    #[must_use]
    pub fn leads_to(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.0).filter(|_| !self.0.is_empty());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Display for PathPrefix {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An `http` or `https` address with an optional prefix. Printed without a final slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    prefix: PathPrefix,
}

impl PublicUrl {
    /// Parses an address such as `https://uni.example.org/phoebe/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let host_ends = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(host_ends);
        Self::of(&scheme.to_ascii_lowercase(), host, PathPrefix::parse(path)?)
    }

    /// Builds an address from its parts.
    #[must_use]
    pub fn of(scheme: &str, host: &str, prefix: PathPrefix) -> Option<Self> {
        let usual_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        if host.len() > MAX_HOST || host.contains('@') {
            return None;
        }
        let authority: Authority = host.parse().ok()?;
        let name = authority.host();
        let port = match host.get(name.len()..)? {
            "" => usual_port,
            rest => rest.strip_prefix(':')?.parse::<u16>().ok()?,
        };
        // Browsers omit the default port from an origin.
        let port = if port == usual_port { String::new() } else { format!(":{port}") };
        let origin = format!("{scheme}://{name}{port}").to_ascii_lowercase();
        (!name.is_empty()).then_some(Self { origin, prefix })
    }

    /// Returns scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the path prefix.
    #[must_use]
    pub fn prefix(&self) -> &PathPrefix {
        &self.prefix
    }
}

impl Display for PublicUrl {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.origin, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_path() {
        for (text, displayed) in [
            ("", ""),
            ("/", ""),
            ("/phoebe", "/phoebe"),
            ("/phoebe/", "/phoebe"),
            ("/a-1/b.c_d~", "/a-1/b.c_d~"),
        ] {
            assert_eq!(
                PathPrefix::parse(text).map(|prefix| prefix.to_string()).unwrap(),
                displayed
            );
        }
        let long = format!("/{}", "x".repeat(MAX_PREFIX));
        for text in [
            "phoebe",
            "//evil.org",
            "/a//b",
            "/a/../b",
            "/.",
            "/a b",
            "/a?b",
            "/a#b",
            "/a%2f",
            "/ä",
            "/a\"b",
            "/a,/b",
            "/a\\b",
            "/<b>",
            "https://x",
            "//",
            &long,
        ] {
            assert_eq!(PathPrefix::parse(text), None, "{text}");
        }
    }

    #[test]
    fn paths_below_a_prefix_are_recognized() {
        let prefix = PathPrefix::parse("/phoebe").unwrap();
        assert!(prefix.leads_to("/phoebe") && prefix.leads_to("/phoebe/health"));
        assert!(!prefix.leads_to("/phoebes") && !prefix.leads_to("/health"));
        assert!(!PathPrefix::default().leads_to("/health"));
    }

    #[test]
    fn an_address_is_scheme_host_and_prefix() {
        for (text, displayed) in [
            ("https://uni.example.org/phoebe/", "https://uni.example.org/phoebe"),
            ("https://uni.example.org", "https://uni.example.org"),
            ("HTTPS://Uni.Example.org:8443/Phoebe", "https://uni.example.org:8443/Phoebe"),
            ("http://[::1]:8001/", "http://[::1]:8001"),
            ("https://uni.example.org:443/phoebe", "https://uni.example.org/phoebe"),
        ] {
            assert_eq!(PublicUrl::parse(text).map(|url| url.to_string()).unwrap(), displayed);
        }
        let long = format!("https://{}.org", "x".repeat(MAX_HOST));
        for text in [
            "uni.example.org",
            "ftp://x.org",
            "https://",
            "https:///phoebe",
            "https://a@x.org",
            "https://x.org?a",
            "https://x.org/?a",
            "https://x.org/#a",
            "https://x.org:port",
            "https://x y.org",
            "javascript://x",
            "https://:8443",
            "https://x.org/../a",
            &long,
        ] {
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
    }
}
