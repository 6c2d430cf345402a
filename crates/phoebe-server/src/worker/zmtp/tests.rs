//! Against a peer that speaks as it likes. That ZeroMQ itself understands us is seen in every
//! end-to-end test.

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const BOUNDS: Bounds =
    Bounds { frames: 4, first_frames: &[], message_bytes: 4 * 1024 * 1024, command_bytes: 100 };
const LARGE: usize = 600 * 1024;

/// A ROUTER's greeting and READY, then whatever is given; the connection stays open.
async fn peer(says: Vec<u8>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; GREETING_BYTES];
        (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
        greeting[MECHANISM].copy_from_slice(NULL);
        let mut bytes = BytesMut::from(&greeting[..]);
        put_command(&mut bytes, b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER");
        bytes.extend_from_slice(&says);
        // The other side may have gone amid what we say.
        let _ = stream.write_all(&bytes).await;
        std::future::pending::<()>().await;
    });
    (address, task)
}

fn frame(length: usize, sent: usize) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    put_header(&mut bytes, length, false);
    bytes.resize(bytes.len() + sent, b'x');
    bytes.to_vec()
}

#[tokio::test]
async fn messages_small_and_large_are_received_and_their_memory_is_given_back() {
    let says = [frame(3, 3), frame(LARGE, LARGE), frame(LARGE, LARGE), frame(5, 5)].concat();
    let (address, _peer) = peer(says).await;
    let memory = Memory::new(1024 * 1024);
    let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
    for length in [3, LARGE, LARGE, 5] {
        let frames = dealer.receive().await.unwrap();
        assert_eq!(frames, [vec![b'x'; length]]);
    }
    assert_eq!(memory.semaphore.available_permits(), 1024);
    assert!(dealer.buffer.capacity() <= 2 * SMALL_FRAME, "a large buffer stays");
}

#[tokio::test]
async fn what_is_beyond_its_bounds_ends_the_connection() {
    let mut tebibyte = vec![2];
    tebibyte.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    let (address, _peer) = peer(tebibyte).await;
    let memory = Memory::new(BOUNDS.message_bytes);
    let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
    let error = dealer.receive().await.unwrap_err();
    assert!(matches!(error, TransportError::Violation(Violation::FrameTooLong { .. })), "{error}");
}

#[tokio::test]
async fn a_message_that_does_not_end_is_given_up() {
    let (address, _peer) = peer(frame(LARGE, 1000)).await;
    let memory = Memory::new(BOUNDS.message_bytes);
    let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
    // The clock of the test stands still but where everybody waits for it.
    tokio::time::pause();
    let error = dealer.receive().await.unwrap_err();
    assert!(matches!(error, TransportError::TooSlow), "{error}");
    drop(dealer);
    assert_eq!(memory.semaphore.available_permits(), 4096);
}

#[tokio::test]
async fn large_messages_take_turns_at_the_memory() {
    let memory = Memory::new(1024 * 1024);
    let (stalls, _first) = peer(frame(LARGE, 1000)).await;
    let (goes_on, _second) = peer(frame(LARGE, LARGE)).await;
    let mut first = Dealer::connect(stalls, BOUNDS, &memory).await.unwrap();
    let mut second = Dealer::connect(goes_on, BOUNDS, &memory).await.unwrap();
    let stalled = tokio::spawn(async move { first.receive().await });
    while memory.semaphore.available_permits() == 1024 {
        tokio::task::yield_now().await;
    }
    // Cancelled and asked again, it keeps its place.
    assert!(timeout(Duration::from_millis(1), second.receive()).await.is_err());
    stalled.abort();
    assert_eq!(second.receive().await.unwrap()[0].len(), LARGE);
}

#[tokio::test]
async fn whoever_is_no_router_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[b'H'; GREETING_BYTES]).await.unwrap();
        std::future::pending::<()>().await;
    });
    let memory = Memory::new(1024 * 1024);
    let error = Dealer::connect(address, BOUNDS, &memory).await.err().unwrap();
    assert!(matches!(error, TransportError::Handshake(_)), "{error}");
    task.abort();
}
