//! What the server takes from a worker's reply, which may be hostile.

use bytes::Bytes;
use phoebe_protocol::command::{Header, Message};

/// Takes what scripts begin with out of a reply that has it, or has a reason why it has none.
pub(super) fn take_base(reply: &mut Message) -> Option<Result<Bytes, String>> {
    if reply.header.base == Some(true) {
        return reply.attachments.pop().map(Ok);
    }
    reply.header.base_error.take().map(Err)
}

/// For a worker that gives neither.
pub(super) fn no_base() -> Result<Bytes, String> {
    Err("the worker gave none".to_owned())
}

/// Why a reply is a failure, in short.
pub(super) fn problem_of(reply: &Message) -> String {
    reply.header.error.clone().unwrap_or_else(|| "it says nothing more".to_owned())
}

/// The log's bound on a worker's word on why a command failed.
const REASON_CHARACTERS_MAX: usize = 100;

/// Why a command failed, for the log: a class of exceptions or a fixed text. A worker may be made
/// to send anything else, which is not logged.
pub(super) fn logged_reason(header: &Header) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || " _.,()-".contains(character);
    match header.reason.as_deref() {
        Some(reason) if reason.len() <= REASON_CHARACTERS_MAX && reason.chars().all(is_plain) => {
            reason.to_owned()
        }
        Some(_) => "the worker gives no proper reason".to_owned(),
        None => "the worker gives no reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_reasons_are_logged() {
        let said = |text: Option<&str>| {
            let header = Header::reply("s", 1, false, false);
            logged_reason(&Header { reason: text.map(str::to_owned), ..header })
        };
        for text in ["ValueError", "unknown command", "The computation crashed (SIGSEGV)"] {
            assert_eq!(said(Some(text)), text);
        }
        for text in ["a\nline", "\u{1b}[31m", "'value'", &"x".repeat(101)] {
            assert_eq!(said(Some(text)), "the worker gives no proper reason");
        }
        assert_eq!(said(None), "the worker gives no reason");
    }
}
