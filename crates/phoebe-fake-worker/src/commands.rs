//! The good commands, on a small map in place of a Bundle. It knows neither sockets nor sequence
//! numbers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use bytes::Bytes;
use phoebe_protocol::kinds::{self, CommandKind};
use phoebe_protocol::packet::Info;
use serde_json::{Value, json};

/// Twigs and values.
pub(crate) type Bundle = BTreeMap<String, Value>;

/// What is asked, with defaults where nothing was said.
#[derive(Debug, Clone)]
pub(crate) struct Command(Value);

impl Command {
    /// Reads a request's body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::from_slice(body)?))
    }

    /// The field `command`, empty where it is missing or no text.
    pub(crate) fn name(&self) -> &str {
        self.text("command")
    }

    /// Whether it asks for a misbehaviour.
    pub(crate) fn misbehaves(&self) -> bool {
        self.0.get("misbehave").is_some()
    }

    /// A text field.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A duration field in seconds.
    pub(crate) fn seconds(&self, key: &str, default: f64) -> Duration {
        Duration::from_secs_f64(self.0.get(key).and_then(Value::as_f64).unwrap_or(default))
    }

    /// A whole number field.
    pub(crate) fn number(&self, key: &str, default: u64) -> u64 {
        self.0.get(key).and_then(Value::as_u64).unwrap_or(default)
    }

    /// A truth field.
    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(default)
    }
}

/// An answer and whether the map changed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Value,
    pub(crate) changed: bool,
}

impl Answer {
    /// A success.
    pub(crate) fn success(result: &Value, changed: bool) -> Self {
        Self { body: json!({"success": true, "result": result}), changed }
    }

    /// A failure that left the map as it was.
    pub(crate) fn failure(error: &str) -> Self {
        Self { body: json!({"success": false, "error": error}), changed: false }
    }

    /// The failure's text, if it is one.
    pub(crate) fn error(&self) -> Option<&str> {
        self.body.get("error").and_then(Value::as_str)
    }
}

/// What it says of itself.
pub(crate) fn info() -> Info {
    let phoebe = phoebe_version();
    let version: String = phoebe.bytes().map(|byte| format!("{byte:02x}")).collect();
    Info {
        python: "3.11.0".to_owned(),
        phoebe,
        numpy: "2.0.0".to_owned(),
        optional_packages: [("emcee".to_owned(), Some("3.1.6".to_owned()))].into(),
        passbands: vec!["Bolometric:900-40000".to_owned(), "Johnson:V".to_owned()],
        // What stands for the digest of a fresh Bundle: another one with another PHOEBE.
        template: format!("{version:f>64}"),
        metadata_problem: None,
    }
}

/// What a forked worker says of itself.
pub(crate) fn forked_info() -> Info {
    let optional_packages = [].into();
    Info { numpy: String::new(), optional_packages, passbands: Vec::new(), ..info() }
}

/// The version of PHOEBE that it claims: what the file `phoebe-version` beside the program says,
/// which is there where a test "upgrades" PHOEBE.
fn phoebe_version() -> String {
    let file =
        env::args_os().next().map(|program| Path::new(&program).with_file_name("phoebe-version"));
    let version = file.and_then(|file| fs::read_to_string(file).ok());
    version.unwrap_or_else(|| "2.5.4".to_owned())
}

/// The kind of `name`; what is unknown is answered like a read.
pub(crate) fn kind(name: &str) -> CommandKind {
    kinds::kind_of(name).unwrap_or(CommandKind::Read)
}

/// Executes one short command.
pub(crate) fn execute(command: &Command, bundle: &mut Bundle) -> Answer {
    match command.name() {
        "ping" => Answer::success(&json!({"status": "ready"}), false),
        "get_value" => match bundle.get(command.text("twig")) {
            Some(value) => Answer::success(value, false),
            None => {
                Answer::failure(&format!("0 results found for twig: '{}'", command.text("twig")))
            }
        },
        "set_value" => match command.0.get("value") {
            Some(value) => {
                bundle.insert(command.text("twig").to_owned(), value.clone());
                Answer::success(&json!({}), true)
            }
            None => Answer::failure("missing 1 required positional argument: 'value'"),
        },
        unknown => Answer::failure(&format!("API does not recognize command {unknown}.")),
    }
}

/// The map as bytes, in every format.
pub(crate) fn to_bytes(bundle: &Bundle) -> Bytes {
    Bytes::from(serde_json::to_vec(bundle).unwrap_or_default())
}

/// The map that these bytes are comes in the place of the map.
pub(crate) fn restore(bytes: &[u8], bundle: &mut Bundle) -> Answer {
    match serde_json::from_slice(bytes) {
        Ok(restored) => {
            *bundle = restored;
            Answer::success(&json!({}), true)
        }
        Err(error) => Answer::failure(&format!("this is no bundle: {error}")),
    }
}

/// What stands for a script: the journal, with the map that it begins with under `begins_with`.
pub(crate) fn script(journal: &[u8], attached: &[Bytes]) -> Bytes {
    let mut script: Value = serde_json::from_slice(journal).unwrap_or_default();
    if let Some(base) = attached.first() {
        script["begins_with"] = serde_json::from_slice(base).unwrap_or_default();
    }
    Bytes::from(script.to_string())
}

/// A long command's last step: the model of `steps` steps comes into the map.
pub(crate) fn adopt_model(steps: u64, cores: Option<usize>, bundle: &mut Bundle) -> Answer {
    let model = json!({"steps": steps});
    bundle.insert("model".to_owned(), model.clone());
    Answer::success(&json!({"model": model, "cores": cores}), true)
}
