//! Where clients reach the server from outside: scheme, host, and the path in front of every route.
//! Texts of settings and of headers are read here alike; what is not plainly an address is refused.

use std::fmt::{self, Display, Formatter};

use axum::http::uri::Authority;

/// The longest prefix in bytes.
const MAX_PREFIX: usize = 256;
/// The longest host with its port in bytes: a name has 253 at most.
const MAX_HOST: usize = 259;

/// A path in front of every route, such as `/phoebe`; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Reads a path such as `/phoebe` or `/phoebe/`: letters, digits, `-`, `.`, `_`, `~` and
    /// slashes, no empty, `.` or `..` segment.
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

    /// Whether `path` lies below it; nothing lies below an empty one.
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

/// An `http` or `https` address with a host and maybe a prefix; shown without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    prefix: PathPrefix,
}

impl PublicUrl {
    /// Reads a text such as `https://uni.example.org/phoebe/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let host_ends = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(host_ends);
        Self::of(&scheme.to_ascii_lowercase(), host, PathPrefix::parse(path)?)
    }

    /// The address of these parts.
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
        // As browsers write an origin.
        let port = if port == usual_port { String::new() } else { format!(":{port}") };
        let origin = format!("{scheme}://{name}{port}").to_ascii_lowercase();
        (!name.is_empty()).then_some(Self { origin, prefix })
    }

    /// Scheme, host and port: the origin of pages under this address.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The path in front of every route.
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
        for (text, shown) in [
            ("", ""),
            ("/", ""),
            ("/phoebe", "/phoebe"),
            ("/phoebe/", "/phoebe"),
            ("/a-1/b.c_d~", "/a-1/b.c_d~"),
        ] {
            assert_eq!(PathPrefix::parse(text).map(|prefix| prefix.to_string()).unwrap(), shown);
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
    fn what_lies_below_a_prefix_is_told() {
        let prefix = PathPrefix::parse("/phoebe").unwrap();
        assert!(prefix.leads_to("/phoebe") && prefix.leads_to("/phoebe/health"));
        assert!(!prefix.leads_to("/phoebes") && !prefix.leads_to("/health"));
        assert!(!PathPrefix::default().leads_to("/health"));
    }

    #[test]
    fn an_address_is_scheme_host_and_prefix() {
        for (text, shown) in [
            ("https://uni.example.org/phoebe/", "https://uni.example.org/phoebe"),
            ("https://uni.example.org", "https://uni.example.org"),
            ("HTTPS://Uni.Example.org:8443/Phoebe", "https://uni.example.org:8443/Phoebe"),
            ("http://[::1]:8001/", "http://[::1]:8001"),
            ("https://uni.example.org:443/phoebe", "https://uni.example.org/phoebe"),
        ] {
            assert_eq!(PublicUrl::parse(text).map(|url| url.to_string()).unwrap(), shown);
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
