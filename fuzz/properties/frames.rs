//! What holds for any bytes that arrive on a worker's connection. The fuzzer and a test that
//! replays its corpus share it.

use bytes::{Bytes, BytesMut};
use phoebe_server::worker::zmtp::decoder::{Bounds, Decoder, Step, Violation};

const BOUNDS: Bounds =
    Bounds { frames: 4, first_frames: &[32, 64], message_bytes: 4096, command_bytes: 100 };

/// The longest header of a frame: flags and eight bytes of length.
const HEADER_BYTES: usize = 9;

/// Panics where a property does not hold. The first byte says how many bytes come at a time.
pub(crate) fn hold_for(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(*piece) + 1), whole, "pieces change what is read");
}

/// What a reader gets that asks for no more than it needs, in pieces of at most `piece` bytes.
fn read(stream: &[u8], piece: usize) -> (Vec<Step>, Option<Violation>) {
    let (mut decoder, mut buffer, mut rest) = (Decoder::new(BOUNDS), BytesMut::new(), stream);
    let (mut steps, mut held) = (Vec::new(), 0);
    loop {
        let step = decoder.step(&mut buffer);
        memory_is_bounded(&decoder, &buffer, held);
        match step {
            Ok(Step::NeedsBytes { missing, .. }) => {
                assert!(missing > 0, "nothing is missing, and nothing is done");
                let next = rest.len().min(piece).min(missing);
                if next == 0 {
                    return (steps, None);
                }
                buffer.extend_from_slice(&rest[..next]);
                rest = &rest[next..];
                held = decoder.announced();
            }
            Ok(step) => {
                step_is_within_bounds(&step);
                steps.push(step);
            }
            Err(violation) => return (steps, Some(violation)),
        }
    }
}

/// Neither what is announced nor what is buffered is more than a message and a header. `before` is
/// what was announced when bytes were asked for: only that may have been buffered.
fn memory_is_bounded(decoder: &Decoder, buffer: &BytesMut, before: usize) {
    let most = BOUNDS.message_bytes.max(BOUNDS.command_bytes);
    assert!(decoder.announced() <= most, "{} bytes are announced", decoder.announced());
    let allowed = before.max(decoder.announced()) + HEADER_BYTES;
    assert!(buffer.len() <= allowed, "{} bytes are buffered", buffer.len());
    assert!(buffer.capacity() <= 2 * (most + HEADER_BYTES), "{} reserved", buffer.capacity());
}

fn step_is_within_bounds(step: &Step) {
    match step {
        Step::Announced(length) => assert!(*length <= BOUNDS.message_bytes),
        Step::Command(command) => assert!(command.len() <= BOUNDS.command_bytes),
        Step::Message(frames) => {
            assert!((1..=BOUNDS.frames).contains(&frames.len()));
            assert!(frames.iter().map(Bytes::len).sum::<usize>() <= BOUNDS.message_bytes);
            let own = frames.iter().zip(BOUNDS.first_frames);
            own.for_each(|(frame, bound)| assert!(frame.len() <= *bound));
        }
        Step::NeedsBytes { .. } => {}
    }
}
