//! API documentation pages. Their scripts are part of the binary, so the pages work without
//! internet access.

use std::io::Read as _;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HeaderName, VARY,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;

use crate::error::HttpError;

/// The relative path from a page to the root. It replaces `{root}` in the pages.
const FROM_ROOT: &str = "";
const FROM_FOLDER: &str = "../";

const SWAGGER_UI: &str = r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>phoebe-server: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{root}docs/swagger-ui-bundle.js"></script>
<script src="{root}docs/swagger-ui-start.js"></script>
</body>
</html>
"##;

/// The document is in the parent folder of this script, under any path prefix of a proxy.
const SWAGGER_UI_START: &str = r##"SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null,
});
"##;

const REDOC: &str = r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>phoebe-server: API reference</title>
<link rel="icon" href="data:,">
<style>body { margin: 0; }</style>
</head>
<body>
<redoc spec-url="{root}openapi.json" disable-search></redoc>
<script src="{root}docs/redoc.standalone.js"></script>
</body>
</html>
"##;

/// Scripts and styles come from this server only. No site may frame the pages.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of a page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    gzip: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

static ASSETS: [Asset; 3] = [
    Asset {
        name: "swagger-ui.css",
        content_type: "text/css; charset=utf-8",
        gzip: include_bytes!("../../assets/swagger-ui/swagger-ui.css.gz"),
    },
    Asset {
        name: "swagger-ui-bundle.js",
        content_type: SCRIPT,
        gzip: include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js.gz"),
    },
    Asset {
        name: "redoc.standalone.js",
        content_type: SCRIPT,
        gzip: include_bytes!("../../assets/redoc/redoc.standalone.js.gz"),
    },
];

/// `/docs`
pub(super) async fn swagger_ui() -> Response {
    page(SWAGGER_UI, FROM_ROOT)
}

/// `/docs/`
pub(super) async fn swagger_ui_in_folder() -> Response {
    page(SWAGGER_UI, FROM_FOLDER)
}

/// `/redoc`
pub(super) async fn redoc() -> Response {
    page(REDOC, FROM_ROOT)
}

/// `/redoc/`
pub(super) async fn redoc_in_folder() -> Response {
    page(REDOC, FROM_FOLDER)
}

/// `/docs/{file}`: scripts and styles of the pages.
pub(super) async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    if file == "swagger-ui-start.js" {
        return with_policy(([(CONTENT_TYPE, SCRIPT)], SWAGGER_UI_START).into_response());
    }
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == file) else {
        return HttpError::not_found("Not Found").into_response();
    };
    let mut response = if accepts_gzip(&headers) {
        let mut response = Body::from(Bytes::from_static(asset.gzip)).into_response();
        set(&mut response, CONTENT_ENCODING, "gzip");
        response
    } else {
        match inflated(asset.gzip) {
            Ok(bytes) => bytes.into_response(),
            Err(error) => {
                tracing::error!(%error, file, "an embedded file is damaged");
                return HttpError::internal().into_response();
            }
        }
    };
    set(&mut response, CONTENT_TYPE, asset.content_type);
    set(&mut response, CACHE_CONTROL, "public, max-age=3600");
    set(&mut response, VARY, "accept-encoding");
    with_policy(response)
}

/// Answers with a page. Its links are relative, so that it works under any path prefix.
fn page(html: &str, root: &str) -> Response {
    let html = html.replace("{root}", root);
    with_policy(([(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response())
}

fn with_policy(mut response: Response) -> Response {
    set(&mut response, CONTENT_SECURITY_POLICY, POLICY);
    response
}

fn set(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// Returns whether the client accepts gzip: named or `*`, with a weight above zero.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|offer| {
        let (coding, parameters) = offer.split_once(';').unwrap_or((offer, ""));
        let refused = parameters
            .trim()
            .strip_prefix("q=")
            .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
        matches!(coding.trim(), "gzip" | "*") && !refused
    })
}

fn inflated(gzip: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_clients_that_accept_it() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(
                ACCEPT_ENCODING,
                HeaderValue::from_static(value),
            )]))
        };
        assert!(accepts("gzip, deflate, br"));
        assert!(accepts("br;q=1.0, gzip;q=0.8"));
        assert!(accepts("*"));
        assert!(!accepts("identity"));
        assert!(!accepts("gzip;q=0"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn embedded_files_are_complete() {
        for asset in &ASSETS {
            let bytes = inflated(asset.gzip).unwrap();
            assert!(bytes.len() > 100_000, "{}", asset.name);
            assert!(std::str::from_utf8(&bytes).is_ok(), "{}", asset.name);
        }
    }

    #[test]
    fn pages_load_nothing_from_elsewhere() {
        for page in [SWAGGER_UI, REDOC, SWAGGER_UI_START] {
            assert!(!page.contains("//"), "an address of another host");
        }
    }
}
