//! Messages over ZeroMQ: frame 0 the signature, frame 1 the [`Header`], frame 2 the body, then
//! attachments.
//!
//! Encoding and decoding only; who sends what when is the business of the two ends.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use thiserror::Error;

use crate::VERSION;
use crate::sign::Key;

/// Characters of a text in a header; what is longer is cut where it is decoded.
pub const TEXT_CHARACTERS: usize = 500;
/// Characters of a notice.
pub const NOTICE_CHARACTERS: usize = 4000;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To the worker: the body is a command.
    Request,
    /// To the worker: end the runner of request `target`.
    Cancel,
    /// To the worker: the attachment becomes the Bundle, in the form that `format` names.
    Restore,
    /// To the worker: answer with the Bundle attached, in the form that `format` names.
    Export,
    /// To the server: the body is the answer to request `seq`.
    Reply,
    /// To the server: the body tells how far request `seq` has come.
    Progress,
}

/// In which form a Bundle travels as an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotFormat {
    /// Python's pickle: exact and fast, for the same versions of Python and PHOEBE.
    Pickle,
    /// PHOEBE's JSON with everything that clients attached, for any version.
    Portable,
    /// Export: a file that stock PHOEBE opens. Restore: any file that PHOEBE can import.
    File,
    /// Export only: a Python script made from the journal in the body.
    Script,
}

/// Frame 1 of every message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Protocol version, [`VERSION`].
    pub v: u32,
    /// The session's id.
    pub session: String,
    /// Towards the worker: greater in each message. Back: the request's.
    pub seq: u64,
    /// What the message is.
    pub kind: Kind,
    /// Request: on how many cores a long command may compute; one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<usize>,
    /// Request: whether a long command gives way to all other work of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
    /// Request and restore: whether to attach the Bundle, pickled, to the reply if it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<bool>,
    /// Request and restore: whether to attach what a script can begin with to the reply, if a
    /// Bundle from outside took the place of this one. Reply: whether the last attachment is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<bool>,
    /// Restore and export: the form of the Bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<SnapshotFormat>,
    /// Cancel: the `seq` of the request to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    /// Cancel: why, for the cancelled request's answer. Reply: why it failed, for the log: the
    /// exception's class or a fixed text, nothing that a user sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Reply: whether the command succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// Reply: whether the Bundle may differ from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// Reply: the failure in at most 500 characters, for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Reply: why the Bundle, which was asked for, is not attached; at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_error: Option<String>,
    /// Reply: why what a script can begin with, which was asked for, is not attached; at most 500
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_error: Option<String>,
    /// Reply: the tags of the parameter that the command named by its unique id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<serde_json::Map<String, serde_json::Value>>,
    /// Reply to a restore: what the user must know of how the Bundle was read; at most 4000
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

impl Header {
    fn bare(session: &str, seq: u64, kind: Kind) -> Self {
        Self {
            v: VERSION,
            session: session.to_owned(),
            seq,
            kind,
            cores: None,
            background: None,
            snapshot: None,
            base: None,
            format: None,
            target: None,
            reason: None,
            success: None,
            changed: None,
            error: None,
            snapshot_error: None,
            base_error: None,
            parameter: None,
            notice: None,
        }
    }

    /// The header of a command.
    #[must_use]
    pub fn request(session: &str, seq: u64) -> Self {
        Self::bare(session, seq, Kind::Request)
    }

    /// The header that ends the runner of request `target`.
    #[must_use]
    pub fn cancel(session: &str, seq: u64, target: u64, reason: &str) -> Self {
        Self {
            target: Some(target),
            reason: Some(reason.to_owned()),
            ..Self::bare(session, seq, Kind::Cancel)
        }
    }

    /// The header that replaces the worker's Bundle by the attachment.
    #[must_use]
    pub fn restore(session: &str, seq: u64, format: SnapshotFormat) -> Self {
        Self { format: Some(format), ..Self::bare(session, seq, Kind::Restore) }
    }

    /// The header that asks for the worker's Bundle.
    #[must_use]
    pub fn export(session: &str, seq: u64, format: SnapshotFormat) -> Self {
        Self { format: Some(format), ..Self::bare(session, seq, Kind::Export) }
    }

    /// The header of an answer.
    #[must_use]
    pub fn reply(session: &str, seq: u64, success: bool, changed: bool) -> Self {
        Self {
            success: Some(success),
            changed: Some(changed),
            ..Self::bare(session, seq, Kind::Reply)
        }
    }
}

/// A decoded message whose signature, version and session were right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Frame 1.
    pub header: Header,
    /// Frame 2, byte for byte.
    pub body: Bytes,
    /// Frames 3 and on.
    pub attachments: Vec<Bytes>,
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer than signature, header and body.
    #[error("a message has at least 3 frames, this one has {0}")]
    TooFewFrames(usize),
    /// Not signed with this session's key.
    #[error("the signature is wrong")]
    BadSignature,
    /// Frame 1 is no header.
    #[error("the header cannot be read: {0}")]
    BadHeader(String),
    /// Another protocol version.
    #[error("protocol version {0}, this side speaks {VERSION}")]
    UnknownVersion(u32),
    /// Signed with the right key, but for another session.
    #[error("the message is for another session")]
    WrongSession,
}

/// Cuts a text of a header to its bound.
fn cut(text: &mut Option<String>, characters: usize) {
    if let Some(text) = text
        && let Some((end, _)) = text.char_indices().nth(characters)
    {
        text.truncate(end);
    }
}

/// Signs a message and returns its frames.
#[must_use]
pub fn encode(key: &Key, header: &Header, body: Bytes, attachments: &[Bytes]) -> Vec<Bytes> {
    let header = Bytes::from(serde_json::to_vec(header).expect("a header is plain data"));
    let signed = [&header, &body].into_iter().chain(attachments).map(|frame| &frame[..]);
    let signature = Bytes::copy_from_slice(&key.sign(signed));
    [signature, header, body].into_iter().chain(attachments.iter().cloned()).collect()
}

/// What is wrong with a header, without what is in it: the text goes into logs.
fn fault(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Io | Category::Eof => "it ends too early",
        Category::Syntax => "no valid JSON",
        Category::Data => "a field is missing or of another type",
    };
    format!("{what} (column {})", error.column())
}

/// Checks a message's signature, version and session and reads its header.
///
/// # Errors
/// [`DecodeError`] says what is wrong with it; such a message is to be dropped.
pub fn decode(key: &Key, session: &str, frames: Vec<Bytes>) -> Result<Message, DecodeError> {
    let mut frames = frames;
    if frames.len() < 3 {
        return Err(DecodeError::TooFewFrames(frames.len()));
    }
    let attachments = frames.split_off(3);
    let (signature, header, body) = (&frames[0], &frames[1], &frames[2]);
    let signed = [header, body].into_iter().chain(&attachments).map(|frame| &frame[..]);
    if !key.verify(signature, signed) {
        return Err(DecodeError::BadSignature);
    }
    let mut header: Header =
        serde_json::from_slice(header).map_err(|error| DecodeError::BadHeader(fault(&error)))?;
    // Signed or not, a worker's word is not taken for how long a text is.
    for text in
        [&mut header.error, &mut header.reason, &mut header.snapshot_error, &mut header.base_error]
    {
        cut(text, TEXT_CHARACTERS);
    }
    cut(&mut header.notice, NOTICE_CHARACTERS);
    if header.v != VERSION {
        return Err(DecodeError::UnknownVersion(header.v));
    }
    if header.session != session {
        return Err(DecodeError::WrongSession);
    }
    Ok(Message { header, body: body.clone(), attachments })
}
