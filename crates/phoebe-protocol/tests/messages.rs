//! Properties of encoding, signing and decoding over all messages.

use bytes::Bytes;
use phoebe_protocol::command::{DecodeError, Header, SnapshotFormat, decode, encode};
use phoebe_protocol::sign::Key;
use proptest::collection::vec;
use proptest::prelude::*;

const SESSION: &str = "0b7f3c1e-55aa-4c8e-9d2e-3f1a2b4c5d6e";

fn header() -> impl Strategy<Value = Header> {
    let error = proptest::option::of(".{0,500}");
    prop_oneof![
        any::<u64>().prop_map(|seq| Header::request(SESSION, seq)),
        (any::<u64>(), any::<u64>(), ".*")
            .prop_map(|(seq, target, reason)| Header::cancel(SESSION, seq, target, &reason)),
        (any::<u64>(), any::<bool>(), any::<bool>(), error).prop_map(
            |(seq, success, changed, error)| Header {
                error,
                ..Header::reply(SESSION, seq, success, changed)
            }
        ),
        (any::<u64>(), format()).prop_map(|(seq, format)| Header::restore(SESSION, seq, format)),
        (any::<u64>(), format()).prop_map(|(seq, format)| Header::export(SESSION, seq, format)),
    ]
}

fn format() -> impl Strategy<Value = SnapshotFormat> {
    use SnapshotFormat::{File, Pickle, Portable, Script};
    prop::sample::select(vec![Pickle, Portable, File, Script])
}

fn attachments() -> impl Strategy<Value = Vec<Bytes>> {
    vec(body(), 0..3)
}

fn body() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        key in any::<[u8; 32]>(),
        header in header(),
        body in body(),
        attachments in attachments(),
    ) {
        let key = Key::new(key);
        let frames = encode(&key, &header, body.clone(), &attachments);
        let message = decode(&key, SESSION, frames).unwrap();
        prop_assert_eq!(message.header, header);
        prop_assert_eq!(message.body, body);
        prop_assert_eq!(message.attachments, attachments);
    }

    #[test]
    fn one_changed_bit_anywhere_is_refused(
        key in any::<[u8; 32]>(),
        header in header(),
        body in body(),
        attachments in attachments(),
        position in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let key = Key::new(key);
        let mut frames: Vec<Vec<u8>> =
            encode(&key, &header, body, &attachments)
                .into_iter()
                .map(|frame| frame.to_vec())
                .collect();
        let total = frames.iter().map(Vec::len).sum::<usize>();
        let mut position = position.index(total);
        let changed = frames.iter_mut().find_map(|frame| {
            if position < frame.len() {
                return Some(&mut frame[position]);
            }
            position -= frame.len();
            None
        });
        *changed.unwrap() ^= 1 << bit;
        let frames = frames.into_iter().map(Bytes::from).collect();
        prop_assert_eq!(decode(&key, SESSION, frames), Err(DecodeError::BadSignature));
    }

    #[test]
    fn bytes_cannot_move_between_frames(header in header(), body in body(), count in 1..50usize) {
        let key = Key::new([1; 32]);
        let frames = encode(&key, &header, body, &[]);
        let count = count.min(frames[1].len());
        let cut = frames[1].len() - count;
        let moved = [&frames[1][cut..], &frames[2][..]].concat();
        let frames = vec![frames[0].clone(), frames[1].slice(..cut), moved.into()];
        prop_assert_eq!(decode(&key, SESSION, frames), Err(DecodeError::BadSignature));
    }

    #[test]
    fn another_key_or_session_is_refused(
        header in header(),
        body in body(),
        other in any::<[u8; 32]>(),
    ) {
        let key = Key::new([1; 32]);
        prop_assume!(other != [1; 32]);
        let frames = encode(&key, &header, body, &[]);
        let refused = decode(&Key::new(other), SESSION, frames.clone());
        prop_assert_eq!(refused, Err(DecodeError::BadSignature));
        prop_assert_eq!(decode(&key, "another", frames), Err(DecodeError::WrongSession));
    }

    #[test]
    fn garbage_is_refused_and_never_panics(frames in vec(body(), 0..6)) {
        prop_assert!(decode(&Key::new([1; 32]), SESSION, frames).is_err());
    }
}
