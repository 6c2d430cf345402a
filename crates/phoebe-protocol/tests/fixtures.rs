//! The golden messages that the Python side reads too: what is accepted, what is refused, and what
//! is read from it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use phoebe_protocol::command::{Header, Message, decode};
use phoebe_protocol::sign::Key;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    name: String,
    key: String,
    session: String,
    last_seq: u64,
    frames: Vec<String>,
    valid: bool,
    reason: Option<String>,
    header: Option<Header>,
    body: Option<String>,
}

impl Fixture {
    fn frames(&self) -> Vec<Bytes> {
        self.frames.iter().map(|frame| STANDARD.decode(frame).unwrap().into()).collect()
    }

    /// The message, if a receiver that accepted `last_seq` before accepts it.
    fn accepted(&self) -> Option<Message> {
        let key = Key::from_hex(&self.key).unwrap();
        let message = decode(&key, &self.session, self.frames()).ok()?;
        (message.header.seq > self.last_seq).then_some(message)
    }
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/fixtures");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            serde_json::from_str(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

#[test]
fn golden_messages_are_accepted_and_refused_as_python_does() {
    let fixtures = fixtures();
    assert!(fixtures.iter().any(|fixture| fixture.valid), "no valid fixture");
    assert!(fixtures.iter().any(|fixture| !fixture.valid), "no invalid fixture");
    for fixture in fixtures {
        let accepted = fixture.accepted();
        let (name, reason) = (&fixture.name, &fixture.reason);
        assert_eq!(accepted.is_some(), fixture.valid, "{name}: {reason:?}");
        assert_eq!(reason.is_none(), fixture.valid, "{name}: a reason is for the refused");
        if let Some(message) = accepted {
            assert_eq!(message.attachments, fixture.frames()[3..], "{name}");
            assert_eq!(Some(message.header), fixture.header, "{name}");
            assert_eq!(message.body, fixture.body.unwrap_or_default(), "{name}");
        }
    }
}
