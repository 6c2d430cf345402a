//! What holds for any bytes that come from a worker or zygote. The fuzzer and a test that replays
//! its corpus share it.

use bytes::Bytes;
use phoebe_protocol::VERSION;
use phoebe_protocol::command::{DecodeError, decode, encode};
use phoebe_protocol::packet::{
    FromWorker, FromZygote, Info, PassbandAnswer, PassbandRequest, Start, ToZygote,
};
use phoebe_protocol::sign::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;

const SESSION: &str = "3f2b8c1e-5d47-4a6b-9e0f-7c1d2a3b4c5d";
/// Never part of UTF-8, so that every header can be written without it.
const BETWEEN_FRAMES: u8 = 0xff;

/// Panics where a property does not hold.
pub(crate) fn hold_for(bytes: &[u8]) {
    let frames: Vec<Bytes> =
        bytes.split(|byte| *byte == BETWEEN_FRAMES).map(Bytes::copy_from_slice).collect();
    a_stranger_is_refused(&frames);
    a_signed_message_is_read_as_it_is(&frames);
    packet::<FromZygote>(bytes);
    packet::<FromWorker>(bytes);
    packet::<ToZygote>(bytes);
    packet::<PassbandRequest>(bytes);
    packet::<PassbandAnswer>(bytes);
    packet::<Start>(bytes);
    packet::<Info>(bytes);
}

fn key() -> Key {
    Key::new([7; 32])
}

fn a_stranger_is_refused(frames: &[Bytes]) {
    match decode(&key(), SESSION, frames.to_vec()) {
        Err(DecodeError::TooFewFrames(count)) => assert!(count == frames.len() && count < 3),
        Err(error) => assert_eq!(error, DecodeError::BadSignature),
        Ok(message) => panic!("accepted without a signature: {message:?}"),
    }
}

fn a_signed_message_is_read_as_it_is(frames: &[Bytes]) {
    let signature = key().sign(frames.iter().map(|frame| &frame[..]));
    let mut signed = vec![Bytes::copy_from_slice(&signature)];
    signed.extend_from_slice(frames);
    assert!(decode(&Key::new([8; 32]), SESSION, signed.clone()).is_err());
    let Ok(message) = decode(&key(), SESSION, signed) else { return };
    assert_eq!((message.header.v, message.header.session.as_str()), (VERSION, SESSION));
    assert_eq!(message.body, frames[1]);
    assert_eq!(message.attachments, frames[2..]);
    let again = encode(&key(), &message.header, message.body.clone(), &message.attachments);
    assert_eq!(decode(&key(), SESSION, again), Ok(message));
}

/// What is read of a packet is what is written for it.
fn packet<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(packet) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&packet).expect("a packet is plain data");
        let again: T = serde_json::from_slice(&written).expect("what was written is read");
        assert_eq!(again, packet);
    }
}
