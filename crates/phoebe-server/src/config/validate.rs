//! Rules for combinations of settings. Each error names the remedy.

use std::net::IpAddr;

use super::origin::Origins;
use super::problem::{Place, Problem};
use super::settings::Settings;
use super::types::{AuthMode, Sandbox};

type Rule = fn(&Settings) -> Option<(&'static [Name], String)>;
type Name = (&'static str, &'static str);

const RULES: [Rule; 11] = [
    port_pool_is_not_empty,
    network_needs_authentication,
    tokens_need_a_secret,
    a_public_key_is_no_secret,
    tokens_are_verified_with_one_kind_of_key,
    local_tokens_need_no_foreign_keys,
    password_mode_needs_a_password,
    api_keys_are_given,
    api_keys_are_not_empty,
    tls_needs_certificate_and_key,
    another_user_needs_the_sandbox,
];

/// Returns all errors of the combination.
pub(super) fn validate(settings: &Settings, origins: &Origins) -> Vec<Problem> {
    let broken = RULES.iter().filter_map(|rule| rule(settings));
    broken.map(|(keys, message)| Problem { place: place(keys, origins), message }).collect()
}

/// Returns the place of the first of `keys` that is set.
fn place(keys: &[Name], origins: &Origins) -> Place {
    let places = keys.iter().map(|(section, name)| origins.get(section, name).0);
    places.into_iter().find(|place| *place != Place::Default).unwrap_or(Place::Default)
}

/// Returns whether `host` is a loopback address.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn port_pool_is_not_empty(settings: &Settings) -> Option<(&'static [Name], String)> {
    let pool = &settings.port_pool;
    (pool.start >= pool.end).then(|| {
        let text = format!(
            "[port_pool] start ({}) must be less than end ({}), which is one past the last port",
            pool.start, pool.end
        );
        (&[("port_pool", "start"), ("port_pool", "end")] as &[Name], text)
    })
}

fn network_needs_authentication(settings: &Settings) -> Option<(&'static [Name], String)> {
    let server = &settings.server;
    let refused = settings.auth.is_off()
        && !is_loopback(&server.host)
        && !server.allow_unauthenticated_network;
    refused.then(|| {
        let text = format!(
            "without authentication the server listens on loopback only, not on {}: whoever \
             reaches it could run code as you. Set [auth] mode to \"jwt\", \"password\" or \
             \"external\", or [server] host to \"127.0.0.1\", or, if everybody in that network \
             may use it, [server] allow_unauthenticated_network = true",
            server.host
        );
        (&[("server", "host"), ("auth", "mode")] as &[Name], text)
    })
}

fn has_public_keys(settings: &Settings) -> bool {
    settings.auth.jwt_public_key.is_some() || !settings.auth.jwks.is_empty()
}

fn tokens_need_a_secret(settings: &Settings) -> Option<(&'static [Name], String)> {
    if settings.auth.mode == AuthMode::External && has_public_keys(settings) {
        return None;
    }
    let mode = match settings.auth.mode {
        AuthMode::Jwt => "jwt",
        AuthMode::External => "external",
        AuthMode::None | AuthMode::Password => return None,
    };
    let wrong = match settings.auth.jwt_secret_key.expose().trim() {
        "" => "there is none",
        "test" => "\"test\" is known to everybody",
        _ => return None,
    };
    let text = format!(
        "mode \"{mode}\" needs a secret that signs tokens, and {wrong}: set [auth] jwt_secret_key \
         or the variable PHOEBE_JWT_SECRET_KEY to a random text, for example the output of \
         `phoebe-server generate-key`"
    );
    Some((&[("auth", "jwt_secret_key"), ("auth", "mode")], text))
}

fn a_public_key_is_no_secret(settings: &Settings) -> Option<(&'static [Name], String)> {
    settings.auth.jwt_secret_key.expose().contains("-----BEGIN ").then(|| {
        let text = "[auth] jwt_secret_key holds a key in PEM form: whoever has a public key could \
                    sign tokens with it as their secret. In mode \"external\", name its file in \
                    [auth] jwt_public_key; else set a random text";
        (&[("auth", "jwt_secret_key")] as &[Name], text.to_owned())
    })
}

fn tokens_are_verified_with_one_kind_of_key(
    settings: &Settings,
) -> Option<(&'static [Name], String)> {
    let auth = &settings.auth;
    let given = [
        ("jwt_secret_key", !auth.jwt_secret_key.is_empty()),
        ("jwt_public_key", auth.jwt_public_key.is_some()),
        ("jwks", !auth.jwks.is_empty()),
    ];
    let given: Vec<&str> =
        given.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    (auth.mode == AuthMode::External && given.len() > 1).then(|| {
        let text = format!(
            "mode \"external\" verifies tokens with one kind of key, and [auth] has {}: keep the \
             one that the tokens are signed with",
            given.join(" and ")
        );
        (&[("auth", "jwks"), ("auth", "jwt_public_key"), ("auth", "mode")] as &[Name], text)
    })
}

fn local_tokens_need_no_foreign_keys(settings: &Settings) -> Option<(&'static [Name], String)> {
    let auth = &settings.auth;
    let foreign = has_public_keys(settings) || !auth.jwt_audience.is_empty();
    let hs256 = auth.jwt_algorithm.iter().all(|name| name == "HS256");
    if auth.mode == AuthMode::External || (!foreign && hs256) {
        return None;
    }
    let text = "[auth] jwt_public_key, jwks, jwt_audience and algorithms other than \"HS256\" are \
                for tokens of another service: set [auth] mode = \"external\", or remove them";
    let keys: &[Name] = &[
        ("auth", "jwt_public_key"),
        ("auth", "jwks"),
        ("auth", "jwt_audience"),
        ("auth", "jwt_algorithm"),
    ];
    Some((keys, text.to_owned()))
}

fn password_mode_needs_a_password(settings: &Settings) -> Option<(&'static [Name], String)> {
    let auth = &settings.auth;
    (auth.mode == AuthMode::Password && auth.password.is_empty()).then(|| {
        let text = "mode \"password\" needs a password: set [auth] password or the variable \
                    PHOEBE_SERVER__AUTH__PASSWORD";
        (&[("auth", "password"), ("auth", "mode")] as &[Name], text.to_owned())
    })
}

fn api_keys_are_given(settings: &Settings) -> Option<(&'static [Name], String)> {
    let auth = &settings.auth;
    (auth.enabled && auth.api_keys.is_empty()).then(|| {
        let text = "[auth] enabled asks for an API key, but [auth] api_keys has none: add the \
                    output of `phoebe-server generate-key`, or set enabled = false";
        (&[("auth", "enabled")] as &[Name], text.to_owned())
    })
}

fn api_keys_are_not_empty(settings: &Settings) -> Option<(&'static [Name], String)> {
    let empty = settings.auth.api_keys.iter().any(|key| key.expose().trim().is_empty());
    empty.then(|| {
        let text = "an empty text in [auth] api_keys would let everybody in: remove it";
        (&[("auth", "api_keys")] as &[Name], text.to_owned())
    })
}

fn tls_needs_certificate_and_key(settings: &Settings) -> Option<(&'static [Name], String)> {
    let server = &settings.server;
    let (there, missing) = match (&server.tls_cert, &server.tls_key) {
        (Some(_), None) => ("tls_cert", "tls_key"),
        (None, Some(_)) => ("tls_key", "tls_cert"),
        _ => return None,
    };
    let text = format!(
        "[server] {there} is set without {missing}: set both for HTTPS, or neither for plain HTTP"
    );
    Some((&[("server", "tls_cert"), ("server", "tls_key")] as &[Name], text))
}

fn another_user_needs_the_sandbox(settings: &Settings) -> Option<(&'static [Name], String)> {
    let worker = &settings.worker;
    (worker.sandbox == Sandbox::Off && !worker.user.is_empty()).then(|| {
        let text = "[worker] user has no effect with sandbox = \"off\": remove it, or set sandbox \
                    to \"enforce\" or \"best-effort\"";
        (&[("worker", "user"), ("worker", "sandbox")] as &[Name], text.to_owned())
    })
}
