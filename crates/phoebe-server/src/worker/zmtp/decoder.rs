//! Bytes from a worker become messages, within bounds. Pure: it reads no socket and takes no memory
//! for what is only announced.
//!
//! ```text
//!             header, length                     all of its bytes
//!  Header ─────────────────► Frame (announced) ─────────────────► Header │ last frame: a message
//! ```
//!
//! A frame's length is checked when it is announced, before a byte of it is waited for: against the
//! bound of its place in the message, and with all frames before it against the bound of the
//! message.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Flags of a frame; the others are reserved.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What a peer may send.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Frames in a message.
    pub frames: usize,
    /// Bytes of each of the first frames, as far as they have bounds of their own.
    pub first_frames: &'static [usize],
    /// Bytes in a message.
    pub message_bytes: usize,
    /// Bytes of a command of the transport.
    pub command_bytes: usize,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// At least so many more bytes are needed in the buffer. `frame` of them belong to a frame
    /// whose length is within its bounds.
    NeedsBytes {
        /// Bytes that are missing.
        missing: usize,
        /// Whether they belong to a frame that was announced.
        in_frame: bool,
    },
    /// A frame of so many bytes begins: whoever counts memory does it now.
    Announced(usize),
    /// A command of the transport, whole.
    Command(Bytes),
    /// A message, whole.
    Message(Vec<Bytes>),
}

/// How a peer broke the protocol. It is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// A frame that its place does not allow.
    #[error("frame {place} of a message has {length} bytes, {bound} are allowed")]
    FrameTooLong {
        /// Counted from 0.
        place: usize,
        /// What was announced.
        length: u64,
        /// What is allowed.
        bound: usize,
    },
    /// Frames without an end.
    #[error("a message has more than {0} frames")]
    TooManyFrames(usize),
    /// A command of the transport of an absurd size.
    #[error("a command of {0} bytes")]
    CommandTooLong(u64),
    /// A reserved flag is set, or a command in the middle of a message.
    #[error("a frame with the flags {0:#04x}")]
    BadFlags(u8),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Frame { length: usize, more: bool, command: bool },
}

/// The state between two reads: the frames of a message that is not whole yet.
#[derive(Debug)]
pub struct Decoder {
    bounds: Bounds,
    state: State,
    frames: Vec<Bytes>,
    /// Bytes in `frames`.
    message_length: usize,
}

impl Decoder {
    /// At the beginning of a message.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, state: State::Header, frames: Vec::new(), message_length: 0 }
    }

    /// Whether a message has begun and is not whole.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        !self.frames.is_empty() || matches!(self.state, State::Frame { .. })
    }

    /// Bytes of the message under way, as far as they are announced.
    #[must_use]
    pub fn announced(&self) -> usize {
        match self.state {
            State::Frame { length, .. } => self.message_length + length,
            State::Header => self.message_length,
        }
    }

    /// Takes what can be taken from `buffer`.
    ///
    /// # Errors
    /// [`Violation`]: the peer must not be read any further.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Violation> {
        loop {
            match self.state {
                State::Header => {
                    let Some((flags, length)) = header(buffer)? else {
                        let missing = header_length(buffer) - buffer.len();
                        return Ok(Step::NeedsBytes { missing, in_frame: false });
                    };
                    let length = self.check_length(flags, length)?;
                    buffer.advance(header_length(buffer));
                    let (more, command) = (flags & MORE != 0, flags & COMMAND != 0);
                    self.state = State::Frame { length, more, command };
                    return Ok(Step::Announced(length));
                }
                State::Frame { length, more, command } => {
                    if buffer.len() < length {
                        let missing = length - buffer.len();
                        return Ok(Step::NeedsBytes { missing, in_frame: true });
                    }
                    let frame = buffer.split_to(length).freeze();
                    self.state = State::Header;
                    if command {
                        return Ok(Step::Command(frame));
                    }
                    self.message_length += length;
                    self.frames.push(frame);
                    if !more {
                        self.message_length = 0;
                        return Ok(Step::Message(std::mem::take(&mut self.frames)));
                    }
                }
            }
        }
    }

    /// The length of the frame that begins, if it is within its bounds.
    fn check_length(&self, flags: u8, length: u64) -> Result<usize, Violation> {
        if flags & COMMAND != 0 {
            if flags & MORE != 0 || !self.frames.is_empty() {
                return Err(Violation::BadFlags(flags));
            }
            let fits = usize::try_from(length).ok().filter(|it| *it <= self.bounds.command_bytes);
            return fits.ok_or(Violation::CommandTooLong(length));
        }
        let place = self.frames.len();
        if place >= self.bounds.frames {
            return Err(Violation::TooManyFrames(self.bounds.frames));
        }
        let left = self.bounds.message_bytes - self.message_length;
        let bound = self.bounds.first_frames.get(place).map_or(left, |own| left.min(*own));
        let fits = usize::try_from(length).ok().filter(|it| *it <= bound);
        fits.ok_or(Violation::FrameTooLong { place, length, bound })
    }
}

/// Flags and length of the frame that begins at the start of `buffer`, once they are there.
fn header(buffer: &BytesMut) -> Result<Option<(u8, u64)>, Violation> {
    let Some(&flags) = buffer.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 {
        return Err(Violation::BadFlags(flags));
    }
    if buffer.len() < header_length(buffer) {
        return Ok(None);
    }
    let mut rest = &buffer[1..];
    Ok(Some((flags, if flags & LONG != 0 { rest.get_u64() } else { u64::from(rest.get_u8()) })))
}

fn header_length(buffer: &BytesMut) -> usize {
    if buffer.first().is_some_and(|flags| flags & LONG != 0) { 9 } else { 2 }
}

/// Writes the header of a frame of `length` bytes, `more` saying whether another follows.
pub(super) fn put_header(out: &mut BytesMut, length: usize, more: bool) {
    let flags = if more { MORE } else { 0 };
    match u8::try_from(length) {
        Ok(short) => out.extend_from_slice(&[flags, short]),
        Err(_) => {
            out.extend_from_slice(&[flags | LONG]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Writes a command of the transport, of at most 255 bytes.
pub(super) fn put_command(out: &mut BytesMut, command: &[u8]) {
    let length = u8::try_from(command.len()).expect("our own commands are short");
    out.extend_from_slice(&[COMMAND, length]);
    out.extend_from_slice(command);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { frames: 4, first_frames: &[32, 64], message_bytes: 4096, command_bytes: 100 };

    fn written(frames: &[Vec<u8>]) -> BytesMut {
        let mut out = BytesMut::new();
        for (place, frame) in frames.iter().enumerate() {
            put_header(&mut out, frame.len(), place + 1 < frames.len());
            out.extend_from_slice(frame);
        }
        out
    }

    /// Feeds `bytes` in pieces, as a reader does that reads no more than is needed; what came of
    /// it, and the most that was message_length at a time.
    fn read(bytes: &[u8], piece: usize) -> (Vec<Step>, Option<Violation>, usize) {
        let (mut decoder, mut buffer) = (Decoder::new(BOUNDS), BytesMut::new());
        let (mut rest, mut steps, mut most) = (bytes, Vec::new(), 0);
        loop {
            most = most.max(buffer.len() + decoder.message_length);
            match decoder.step(&mut buffer) {
                Ok(Step::NeedsBytes { missing, .. }) => {
                    assert!(missing > 0);
                    let next = rest.len().min(piece.min(missing));
                    if next == 0 {
                        return (steps, None, most);
                    }
                    buffer.extend_from_slice(&rest[..next]);
                    rest = &rest[next..];
                }
                Ok(step) => steps.push(step),
                Err(violation) => return (steps, Some(violation), most),
            }
        }
    }

    #[test]
    fn a_frame_beyond_its_bound_is_refused_when_announced() {
        let mut long = vec![LONG];
        long.extend_from_slice(&(1_u64 << 40).to_be_bytes());
        let refused = read(&long, 100).1;
        let expected = Violation::FrameTooLong { place: 0, length: 1 << 40, bound: 32 };
        assert_eq!(refused, Some(expected));
        let mut third = written(&[vec![0; 32], vec![0; 64], vec![0; 5000]]);
        third.truncate(34 + 66 + 9);
        let refused = read(&third, 7).1;
        let expected = Violation::FrameTooLong { place: 2, length: 5000, bound: 4000 };
        assert_eq!(refused, Some(expected));
    }

    #[test]
    fn frames_without_an_end_are_refused() {
        let endless: Vec<u8> = [MORE, 0].repeat(1000);
        assert_eq!(read(&endless, 3).1, Some(Violation::TooManyFrames(4)));
    }

    #[test]
    fn commands_are_bounded_and_not_allowed_inside_messages() {
        assert_eq!(read(&[COMMAND, 101], 9).1, Some(Violation::CommandTooLong(101)));
        assert_eq!(read(&[COMMAND | MORE, 1], 9).1, Some(Violation::BadFlags(5)));
        assert_eq!(read(&[MORE, 0, COMMAND, 0], 9).1, Some(Violation::BadFlags(4)));
        assert_eq!(read(&[8, 0], 9).1, Some(Violation::BadFlags(8)));
    }

    proptest! {
        #[test]
        fn messages_come_as_they_were_sent(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..32), 1..=4),
            piece in 1..200_usize,
        ) {
            let (steps, violation, _) = read(&written(&frames), piece);
            prop_assert_eq!(violation, None);
            let expected = frames.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(steps.last(), Some(&Step::Message(expected)));
        }

        #[test]
        fn the_decoder_never_holds_more_than_the_bound(
            bytes in prop::collection::vec(prop_oneof![0..=7_u8, any::<u8>()], 0..20_000),
            piece in 1..5000_usize,
        ) {
            let (_, _, most) = read(&bytes, piece);
            prop_assert!(most <= BOUNDS.message_bytes + 9, "{most}");
        }
    }
}
