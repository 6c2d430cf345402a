//! Both recordings of the server that existing clients were written for, replayed in order with
//! real PHOEBE. What differs is in [`WANTED`], each difference with its reason, and nowhere else.
//!
//! The numbers that PHOEBE computes are held against PHOEBE alone on the same machine: the recorded
//! binary is seen exactly edge-on, and which triangles at the rim are visible then hangs on the
//! last bit of a sine, which differs between processors.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::{Client, Reply, TestServer, run_stock_phoebe};

/// Relative difference allowed between PHOEBE's numbers here and there.
const TOLERANCE: f64 = 1e-9;

#[derive(Debug, Deserialize)]
struct Exchange {
    name: String,
    request: Request,
    response: Response,
}

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Debug, Deserialize)]
struct Response {
    status: u16,
    content_type: String,
    body: Value,
}

/// A wanted difference: in which exchanges of which mode, why, and what it does to the expected
/// answer.
struct Difference {
    mode: Option<&'static str>,
    exchanges: &'static [&'static str],
    why: &'static str,
    apply: fn(&mut Value),
}

const WANTED: [Difference; 6] = [
    Difference {
        mode: Some("none"),
        exchanges: &["start", "sessions one"],
        why: "without an authenticated user there is no full_name: a client in use breaks on it",
        apply: |expected| {
            session_object(expected).remove("full_name");
        },
    },
    Difference {
        mode: None,
        exchanges: &["start", "sessions one"],
        why: "the session object says who the user is, what else was told, and where the \
        session is in its life",
        apply: |expected| {
            let session = session_object(expected);
            for name in ["first_name", "last_name", "email", "display_name"] {
                session.insert(format!("user_{name}"), json!("<text or null>"));
            }
            session.insert("status".to_owned(), json!("awake"));
        },
    },
    Difference {
        mode: None,
        exchanges: &["update_uniqueid"],
        why: "the older name answers like get_uniqueid",
        apply: |expected| *expected = json!({"success": true, "result": "<uniqueid>"}),
    },
    Difference {
        mode: None,
        exchanges: &["run_compute", "run_compute w solution"],
        why: "radial velocities come under their older names too, and with each star's own times",
        apply: |expected| {
            let dataset = expected["result"]["model"]["rv01"].as_object_mut().unwrap();
            for (older, newer) in [("rv1s", "rvs_primary"), ("rv2s", "rvs_secondary")] {
                dataset.insert(older.to_owned(), dataset[newer].clone());
            }
            let star = |rvs: &str| {
                json!({
                    "times": dataset["times"],
                    "phases": dataset["phases"],
                    "rvs": dataset[rvs],
                })
            };
            let stars =
                json!({ "primary": star("rvs_primary"), "secondary": star("rvs_secondary") });
            dataset.insert("components".to_owned(), stars);
        },
    },
    Difference {
        mode: None,
        exchanges: &["add bad passband"],
        why: "where PHOEBE's error helps nobody over HTTP, a further field says what does",
        apply: |expected| {
            let advice = "The passbands of this server are files that its operator installs with \
                          `phoebe-server passbands install`; sessions can use a new one at once. \
                          `GET /system/passbands` lists them.";
            expected["advice"] = json!(advice);
        },
    },
    Difference {
        mode: None,
        exchanges: &["fluxes"],
        why: "a failed run_compute leaves the earlier model in place",
        apply: |expected| {
            let fluxes = "<fluxes of run_compute>";
            *expected = json!({"success": true, "result": fluxes});
        },
    },
];

/// The session object in an answer, or in the list by id.
fn session_object(expected: &mut Value) -> &mut Map<String, Value> {
    let object = expected.as_object_mut().unwrap();
    if object.contains_key("session_id") {
        return object;
    }
    object.values_mut().next().unwrap().as_object_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recording_without_authentication() {
    replay("none", TestServer::builder().python().ports(30).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recording_with_tokens() {
    let server = TestServer::builder()
        .python()
        .ports(30)
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", "a secret for this test only, long enough")
        .start()
        .await;
    replay("jwt", server).await;
}

async fn replay(mode: &'static str, server: TestServer) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../protocol/contract/exchanges-{mode}.json"));
    let recorded: Vec<Exchange> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut replay = Replay {
        client: server.client(),
        // The range of ports is free; the recording's first one stands for ours.
        first_port: server.port_pool().start,
        tokens: BTreeMap::new(),
        newest_token: String::new(),
        bound: BTreeMap::new(),
        fluxes: Value::Null,
        differences: Vec::new(),
    };
    let stock =
        run_stock_phoebe(&server.interpreter(), "../../worker/tests/stock.py", "no argument");
    let mut used = 0;
    for mut exchange in recorded {
        if let Some(computed) = stock.get(&exchange.name) {
            as_computed_here(&mut exchange, computed);
        }
        for wanted in &WANTED {
            let applies = wanted.mode.is_none_or(|only| only == mode)
                && wanted.exchanges.contains(&exchange.name.as_str());
            if applies {
                assert!(!wanted.why.is_empty());
                (wanted.apply)(&mut exchange.response.body);
            }
        }
        replay.exchange(&exchange).await;
        used += 1;
    }
    assert!(used > 70, "only {used} exchanges in the recording");
    let differences = replay.differences;
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    server.finish().await;
}

/// How far numbers of light curves and radial velocities may be from the recorded ones because of
/// the rim: in flux, and in km/s. It shows that PHOEBE alone was asked for the same as the recorded
/// server.
const RIM: [(&str, f64); 3] = [("fluxes", 2e-3), ("rvs_primary", 2.0), ("rvs_secondary", 0.05)];

/// Puts what PHOEBE alone computes on this machine in the place of what it computed on another.
fn as_computed_here(exchange: &mut Exchange, computed: &Value) {
    let result = &mut exchange.response.body["result"];
    if let Some(solution) = result.get_mut("solution") {
        solution["fitted_values"] = computed.clone();
        return;
    }
    for (field, tolerance) in RIM {
        let dataset = if field == "fluxes" { "lc01" } else { "rv01" };
        let (recorded, here) = (&mut result["model"][dataset][field], &computed[field]);
        let pairs = recorded.as_array().unwrap().iter().zip(here.as_array().unwrap());
        // What a solver makes of the rim, and what is computed from that, may be anything.
        if exchange.name == "run_compute" {
            for (recorded, here) in pairs {
                let difference = (recorded.as_f64().unwrap() - here.as_f64().unwrap()).abs();
                assert!(difference < tolerance, "{field}: {here} here, {recorded} recorded");
            }
        }
        *recorded = here.clone();
    }
}

struct Replay {
    client: Client,
    first_port: u16,
    tokens: BTreeMap<String, String>,
    newest_token: String,
    /// Placeholders in requests stand for what an answer had in their place first.
    bound: BTreeMap<&'static str, String>,
    fluxes: Value,
    differences: Vec<String>,
}

/// Placeholders whose first value is used in later requests.
const BINDING: [&str; 3] = ["<session_id>", "<uniqueid>", "<bundle json string>"];
const RECORDED_FIRST_PORT: u64 = 6560;

impl Replay {
    async fn exchange(&mut self, exchange: &Exchange) {
        let reply = Reply::of(self.request(exchange)).await;
        let mut found = Vec::new();
        if reply.status != exchange.response.status {
            found.push(format!(
                "status {} where {} was recorded",
                reply.status, exchange.response.status
            ));
        }
        let content_type = reply.header("content-type").unwrap_or_default();
        if content_type != exchange.response.content_type {
            found.push(format!("content type {content_type}"));
        }
        self.compare("", &exchange.response.body, &reply.body, &mut found);
        if let Some(token) = reply.body["access_token"].as_str() {
            let email = reply.body["user"]["email"].as_str().unwrap_or_default();
            self.tokens.insert(email.to_owned(), token.to_owned());
            token.clone_into(&mut self.newest_token);
        }
        if exchange.name == "run_compute" {
            self.fluxes = reply.body["result"]["model"]["lc01"]["fluxes"].clone();
        }
        self.differences.extend(found.iter().map(|what| format!("{}: {what}", exchange.name)));
    }

    fn request(&self, exchange: &Exchange) -> reqwest::RequestBuilder {
        let recorded = &exchange.request;
        let method = recorded.method.parse().unwrap();
        let mut request = self.client.request(method, &self.fill(&recorded.path));
        for (name, value) in &recorded.headers {
            let token = match exchange.name.starts_with("other user") {
                true => &self.tokens["bob@x.org"],
                false => &self.newest_token,
            };
            request = request.header(name, value.replace("<jwt>", token));
        }
        match &recorded.body {
            Value::Null => request,
            Value::Object(raw) if raw.len() == 1 && raw.contains_key("raw") => request
                .header("content-type", "application/json")
                .body(raw["raw"].as_str().unwrap().to_owned()),
            body => request.json(&self.fill_all(body)),
        }
    }

    fn fill(&self, text: &str) -> String {
        self.bound
            .iter()
            .fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }

    fn fill_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.fill(text)),
            Value::Array(list) => list.iter().map(|value| self.fill_all(value)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.clone(), self.fill_all(value))).collect()
            }
            other => other.clone(),
        }
    }

    fn compare(&mut self, path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
        let equal = match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => {
                return self.compare_objects(path, expected, actual, found);
            }
            (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.compare(&format!("{path}[{index}]"), expected, actual, found);
                }
                return;
            }
            (Value::Number(expected), Value::Number(actual)) => {
                self.numbers_agree(path, expected, actual)
            }
            (Value::String(expected), actual) if is_free(path, expected) => actual.is_string(),
            (Value::String(expected), actual) if expected.contains('<') => {
                self.fits(expected, actual)
            }
            (Value::String(range), _) if path == ".port_range" && range.contains('-') => {
                let pool = format!("{}-{}", self.first_port, self.first_port + 29);
                actual.as_str() == Some(&pool)
            }
            _ => expected == actual,
        };
        if !equal {
            found.push(format!("{path}: {} where {expected} was recorded", shortened(actual)));
        }
    }

    fn compare_objects(
        &mut self,
        path: &str,
        expected: &Map<String, Value>,
        actual: &Map<String, Value>,
        found: &mut Vec<String>,
    ) {
        for (key, expected) in expected {
            let key = self.fill(key);
            match actual.get(&key) {
                Some(actual) => self.compare(&format!("{path}.{key}"), expected, actual, found),
                None => found.push(format!("{path}.{key} is missing")),
            }
        }
        for (key, value) in actual {
            if !expected.keys().any(|known| self.fill(known) == *key) {
                found.push(format!("{path}.{key} was not recorded: {}", shortened(value)));
            }
        }
    }

    fn numbers_agree(
        &self,
        path: &str,
        expected: &serde_json::Number,
        actual: &serde_json::Number,
    ) -> bool {
        if expected.as_u64() == Some(RECORDED_FIRST_PORT) && path.contains("port") {
            return actual.as_u64() == Some(self.first_port.into());
        }
        if expected.is_f64() != actual.is_f64() {
            return false;
        }
        let (expected, actual) = (expected.as_f64().unwrap(), actual.as_f64().unwrap());
        (expected - actual).abs() <= TOLERANCE * expected.abs()
    }

    /// Whether `actual` is what the placeholder in `expected` stands for.
    fn fits(&mut self, expected: &str, actual: &Value) -> bool {
        let text = actual.as_str();
        let fits = match expected {
            "<session_id>" => {
                let id = text.and_then(|text| uuid::Uuid::parse_str(text).ok());
                id.is_some_and(|id| id.get_version_num() == 4)
            }
            "<uniqueid>" => text.is_some_and(|text| {
                text.len() == 30 && text.bytes().all(|byte| byte.is_ascii_alphabetic())
            }),
            "<epoch float>" => actual.as_f64().is_some_and(|time| actual.is_f64() && time > 1.7e9),
            "<MiB float>" => actual.as_f64().is_some_and(|size| actual.is_f64() && size >= 0.0),
            "<jwt>" => text.is_some_and(|text| text.split('.').count() == 3),
            "<traceback>" => text.is_some_and(|text| !text.is_empty()),
            // Python's JSON, in which there are infinities.
            "<bundle json string>" => {
                text.is_some_and(|text| text.starts_with("[{") && text.ends_with("}]"))
            }
            "<text or null>" => actual.is_string() || actual.is_null(),
            "<fluxes of run_compute>" => *actual == self.fluxes && actual.is_array(),
            _ => {
                let (before, after) =
                    expected.split_once("<site-packages>").unwrap_or((expected, ""));
                text.is_some_and(|text| {
                    let known = expected.contains("<site-packages>") || text == expected;
                    known && text.starts_with(before) && text.ends_with(after)
                })
            }
        };
        if let (true, Some(text)) = (fits, text)
            && let Some(placeholder) = BINDING.iter().find(|placeholder| **placeholder == expected)
        {
            self.bound.entry(placeholder).or_insert_with(|| text.to_owned());
        }
        fits
    }
}

/// Texts whose wording is free: a 422's `msg`, the server's version.
fn is_free(path: &str, expected: &str) -> bool {
    (path.starts_with(".detail[") && path.ends_with(".msg"))
        || (path == ".version" && !expected.is_empty())
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}
