//! The token of a share link: its text form and its hash. No I/O.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The prefix identifies a token wherever it is found.
const PREFIX: &str = "phoebe_share_";

/// The token of a share link: the ids of session and checkpoint, and a secret of 256 bits. It has
/// no `Debug`, so that it is never logged.
pub(super) struct ShareToken {
    session: Uuid,
    checkpoint: Uuid,
    secret: [u8; 32],
}

impl ShareToken {
    /// Creates a token. `None` if the ids are not valid.
    pub(super) fn new(session: &str, checkpoint: &str) -> Option<Self> {
        Some(Self {
            session: Uuid::parse_str(session).ok()?,
            checkpoint: Uuid::parse_str(checkpoint).ok()?,
            secret: rand::random(),
        })
    }

    /// Parses a token.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (session, rest) = bytes.split_first_chunk()?;
        let (checkpoint, secret) = rest.split_first_chunk()?;
        Some(Self {
            session: Uuid::from_bytes(*session),
            checkpoint: Uuid::from_bytes(*checkpoint),
            secret: secret.try_into().ok()?,
        })
    }

    /// Returns the text form.
    pub(super) fn text(&self) -> String {
        let bytes =
            [&self.session.as_bytes()[..], self.checkpoint.as_bytes(), &self.secret].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Returns the session's id.
    pub(super) fn session(&self) -> String {
        self.session.to_string()
    }

    /// Returns the checkpoint's id.
    pub(super) fn checkpoint(&self) -> String {
        self.checkpoint.simple().to_string()
    }

    /// Returns the hash that is stored instead of the secret.
    pub(super) fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.secret))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A token is read as it was written; any other text is another token or none.
        #[test]
        fn a_token_is_read_as_it_was_written(ids in any::<[u128; 2]>(), other in ".{0,120}") {
            let [session, checkpoint] = ids.map(Uuid::from_u128);
            let checkpoint = checkpoint.simple().to_string();
            let token = ShareToken::new(&session.to_string(), &checkpoint).unwrap();
            let read = ShareToken::parse(&token.text()).unwrap();
            prop_assert_eq!(read.session(), session.to_string());
            prop_assert_eq!(read.checkpoint(), checkpoint);
            prop_assert_eq!(read.hash(), token.hash());
            let mut cut = token.text();
            cut.pop();
            prop_assert!(ShareToken::parse(&cut).is_none());
            prop_assert!(ShareToken::parse(&other).is_none());
        }
    }
}
