//! Session keys and the signature over a message's frames. It must not know what the frames mean.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of a key and of a signature in bytes.
pub const LENGTH: usize = 32;

/// The secret of one session: whoever holds it may command the session's worker. It cannot print
/// itself.
#[derive(Clone)]
pub struct Key([u8; LENGTH]);

impl Key {
    /// A key from 32 random bytes of the caller's.
    #[must_use]
    pub fn new(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    /// A key from its 64 hexadecimal digits; `None` if it is anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The key in the form in which it travels over a private channel. Not for logs.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The signature over `frames`: HMAC-SHA-256 of each frame preceded by its length (8 bytes,
    /// big-endian), so that bytes cannot move from one frame to the next.
    pub fn sign<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> [u8; LENGTH] {
        self.mac(frames).finalize().into_bytes().into()
    }

    /// Whether `signature` is that of `frames`, compared in constant time.
    pub fn verify<'a>(&self, signature: &[u8], frames: impl IntoIterator<Item = &'a [u8]>) -> bool {
        self.mac(frames).verify_slice(signature).is_ok()
    }

    fn mac<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for frame in frames {
            mac.update(&(frame.len() as u64).to_be_bytes());
            mac.update(frame);
        }
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(…)")
    }
}
