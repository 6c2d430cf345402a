//! What a server must bear: bodies that are too big, connections that say nothing, clients that go
//! away. `/health` answers all the while, and memory stays bounded.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{Reply, TestServer, until};

const SOON: Duration = Duration::from_secs(20);
/// `/health` is for load balancers, which give up after seconds.
const HEALTHY: Duration = Duration::from_secs(3);

/// A number of KiB from the server's `/proc/PID/status`, in MiB.
pub(crate) fn status_mb(server: &TestServer, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let number: f64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    number / 1024.0
}

async fn assert_healthy(server: &TestServer) {
    let started = Instant::now();
    server.get("/health").await.expect(200);
    assert!(started.elapsed() < HEALTHY, "/health took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_100_mb_is_refused_without_being_kept() {
    let server = TestServer::builder().fake().alone().start().await;
    let session = server.start_session().await;
    session.ping().await;
    let before = status_mb(&server, "VmHWM");
    let body = vec![b' '; 100_000_000];
    for path in [format!("/send/{}", session.id), "/dash/start-session".to_owned()] {
        let request = server
            .request(reqwest::Method::POST, &path)
            .header("content-type", "application/json")
            .body(body.clone());
        // The server may answer and close before it has read everything.
        match Reply::try_of(request).await {
            Ok(reply) => {
                assert_eq!(reply.status, 413);
                assert!(reply.body["detail"].is_string(), "{}", reply.body);
            }
            Err(error) => assert!(error.is_request(), "{error:?}"),
        }
        assert_healthy(&server).await;
    }
    let grown = status_mb(&server, "VmHWM") - before;
    assert!(grown < 40.0, "the server grew by {grown} MiB");
    session.ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_that_grows_too_big_is_refused_without_being_kept() {
    let server = TestServer::builder().fake().alone().set("server.max_body_mb", 1).start().await;
    let session = server.start_session().await;
    let before = status_mb(&server, "VmHWM");
    let address = server.address().parse().unwrap();
    let path = format!("/send/{}", session.id);
    let answer = tokio::task::spawn_blocking(move || send_chunks(address, &path)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_healthy(&server).await;
    let grown = status_mb(&server, "VmHWM") - before;
    assert!(grown < 20.0, "the server grew by {grown} MiB");
    server.finish().await;
}

/// Sends 64 MiB in chunks, without saying so before, and returns the answer.
fn send_chunks(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
         application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..1024 {
        stream.write_all(&chunk).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Opens connections that send nothing, as many as this process may have.
fn silent_connections(address: SocketAddr, wanted: usize) -> Vec<TcpStream> {
    let mut connections = Vec::with_capacity(wanted);
    for number in 0..wanted {
        // The system has too few ports for so many connections between two addresses at once;
        // loopback has more addresses.
        match TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
            Ok(stream) => connections.push(stream),
            // A server at its limit may refuse; one that is not must not.
            Err(error) => {
                assert!(number > 100, "connection {number}: {error}");
                break;
            }
        }
    }
    connections
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_connections_leave_the_server_responsive() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { ..limit }).unwrap();
    // Each connection takes one descriptor here and one in the server, which inherits the limit.
    let allowed = limit.current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    let wanted = 10_000.min(allowed.saturating_sub(500));
    if wanted < 10_000 {
        eprintln!("scaled down to {wanted} connections: this user may open {allowed} files");
    }

    let server = TestServer::builder().fake().alone().start().await;
    let session = server.start_session().await;
    let before = status_mb(&server, "VmHWM");
    let address: SocketAddr = server.address().parse().unwrap();
    assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
    let opening = tokio::task::spawn_blocking(move || silent_connections(address, wanted));
    while !opening.is_finished() {
        assert_healthy(&server).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connections = opening.await.unwrap();
    assert_eq!(connections.len(), wanted);
    for _ in 0..20 {
        assert_healthy(&server).await;
        session.ping().await;
    }
    let grown = status_mb(&server, "VmHWM") - before;
    assert!(grown < 200.0, "the server grew by {grown} MiB");
    drop(connections);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_its_command_and_its_session_in_order() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let body = json!({"command": "run_compute", "seconds": 1.0, "steps": 4}).to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "POST /send/{} HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n",
        session.id,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    // Long enough for the command to be with the worker; if it is not, the test shows the same of
    // the queue.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);

    let model = until("the command completes", SOON, async || {
        let answer = session.command(json!({"command": "get_value", "twig": "model"})).await;
        answer.get("result").cloned()
    })
    .await;
    assert_eq!(model, json!({"steps": 4}));
    server.stop().await;
    let commands: Vec<i64> = server
        .database()
        .column("SELECT success FROM session_commands WHERE command_name = 'run_compute'");
    assert_eq!(commands, [1]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_request_holds_nobody_up() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let mut half = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "POST /send/{} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{",
        session.id
    );
    half.write_all(head.as_bytes()).unwrap();
    session.ping().await;
    assert_healthy(&server).await;
    // The end of the server waits for requests in flight, but not for one that never comes.
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_unpacked_within_the_bounds() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let send = async |body: Vec<u8>, encoding: &str| {
        let request = server.request(Method::POST, &format!("/send/{}", session.id));
        let headers = request.header("content-encoding", encoding);
        Reply::of(headers.header("content-type", "application/json").body(body)).await
    };
    let pack = |pieces: usize, piece: &[u8]| {
        let mut writer = GzEncoder::new(Vec::new(), Compression::best());
        (0..pieces).for_each(|_| writer.write_all(piece).unwrap());
        writer.finish().unwrap()
    };
    let ping = pack(1, br#"{"command": "ping"}"#);
    assert_eq!(send(ping.clone(), "gzip").await.expect(200)["success"], true);
    send(ping, "zstd").await.expect(415);
    let before = status_mb(&server, "VmHWM");
    send(pack(2048, &[b' '; 1 << 20]), "gzip").await.expect(413);
    let more = status_mb(&server, "VmHWM") - before;
    assert!(more < 300.0, "2 GiB of blanks took {more} MB");
    assert_healthy(&server).await;
    server.finish().await;
}
