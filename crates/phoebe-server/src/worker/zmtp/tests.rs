//! Against a peer that speaks as it likes. That ZeroMQ itself understands us is seen in every
//! end-to-end test.

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const BOUNDS: Bounds =
    Bounds { frames: 4, first_frames: &[], message_bytes: 16 * 1024 * 1024, command_bytes: 100 };
const MEDIUM: usize = 600 * 1024;
const LARGE: usize = 5 * 1024 * 1024;

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
    let lengths = [3, LARGE, MEDIUM, LARGE, 5];
    let (address, _peer) = peer(lengths.map(|length| frame(length, length)).concat()).await;
    let memory = Memory::new(BOUNDS.message_bytes);
    let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
    for length in lengths {
        let frames = dealer.receive().await.unwrap();
        assert_eq!(frames, [vec![b'x'; length]]);
        assert!(dealer.buffer.capacity() <= 2 * READ_BYTES, "a large buffer stays");
    }
    assert_eq!(memory.turn.available_permits(), 1);
}

#[tokio::test]
async fn a_frame_beyond_its_bounds_ends_the_connection() {
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
    for length in [MEDIUM, LARGE] {
        let (address, _peer) = peer(frame(length, 1000)).await;
        let memory = Memory::new(BOUNDS.message_bytes);
        let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
        // The clock of the test stands still but where everybody waits for it.
        tokio::time::pause();
        let error = dealer.receive().await.unwrap_err();
        tokio::time::resume();
        assert!(matches!(error, TransportError::TooSlow), "{error}");
        drop(dealer);
        assert_eq!(memory.turn.available_permits(), 1);
    }
}

#[tokio::test]
async fn an_announced_message_blocks_others_for_a_bounded_time() {
    let memory = Memory::new(BOUNDS.message_bytes);
    let connect = async |says| {
        let (address, peer) = peer(says).await;
        (Dealer::connect(address, BOUNDS, &memory).await.unwrap(), peer)
    };
    let (mut stalls, _first) = connect(frame(LARGE, 1000)).await;
    let (mut medium, _second) = connect(frame(MEDIUM, MEDIUM)).await;
    let (mut large, _third) = connect(frame(LARGE, LARGE)).await;
    let stalled = tokio::spawn(async move { stalls.receive().await });
    while memory.turn.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    // Whoever needs no turn is not held up at all.
    assert_eq!(medium.receive().await.unwrap()[0].len(), MEDIUM);
    // Cancelled and asked again, a large one keeps its place, and its turn comes.
    assert!(timeout(Duration::from_millis(1), large.receive()).await.is_err());
    tokio::time::pause();
    assert_eq!(large.receive().await.unwrap()[0].len(), LARGE);
    assert!(matches!(stalled.await.unwrap(), Err(TransportError::TooSlow)));
}

#[tokio::test]
async fn a_large_message_of_several_frames_takes_one_turn() {
    let memory = Memory::new(BOUNDS.message_bytes);
    let mut says = BytesMut::new();
    for more in [true, false] {
        put_header(&mut says, LARGE, more);
        says.resize(says.len() + LARGE, b'x');
    }
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (address, peer) = peer(says.to_vec()).await;
        let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let frames = dealer.receive().await.unwrap();
            drop(peer);
            frames.len()
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 2);
    }
}

#[tokio::test]
async fn what_arrived_before_the_connection_broke_is_still_read() {
    const SMALL: usize = 20_000;
    let (address, peer) = peer(frame(SMALL, SMALL)).await;
    let memory = Memory::new(BOUNDS.message_bytes);
    let mut dealer = Dealer::connect(address, BOUNDS, &memory).await.unwrap();
    // All of the message is here before the other side goes.
    let mut arrived = vec![0; SMALL];
    while dealer.buffer.len() < SMALL
        && dealer.stream.peek(&mut arrived).await.unwrap() + dealer.buffer.len() < SMALL
    {
        tokio::task::yield_now().await;
    }
    peer.abort();
    let until = Instant::now() + HANDSHAKE_LIMIT;
    while dealer.send(vec![Bytes::from_static(b"x")]).is_ok() {
        assert!(Instant::now() < until, "one can write to a peer that is gone");
        tokio::task::yield_now().await;
    }
    assert_eq!(dealer.receive().await.unwrap(), [vec![b'x'; SMALL]]);
    assert!(dealer.receive().await.is_err());
}

#[tokio::test]
async fn a_peer_that_is_no_router_is_an_error() {
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
