//! Tests with real handshakes over loopback and certificates made here.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use rcgen::{CertifiedKey as Made, KeyPair, generate_simple_self_signed};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::web::{ConnectionLimits, serve_http};

const PATIENCE: Duration = Duration::from_secs(20);
const ASK: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Two files in a folder.
struct Files {
    folder: TempDir,
}

impl Files {
    fn holding(made: &Made<KeyPair>) -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        files.write(made);
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn write(&self, made: &Made<KeyPair>) {
        fs::write(self.certificate(), made.cert.pem()).unwrap();
        self.write_key(&made.signing_key.serialize_pem());
    }

    fn write_key(&self, pem: &str) {
        fs::write(self.key(), pem).unwrap();
        fs::set_permissions(self.key(), Permissions::from_mode(0o600)).unwrap();
    }

    fn open(&self) -> Result<Tls, TlsError> {
        Tls::open(self.certificate(), self.key())
    }

    fn refusal(&self) -> String {
        self.open().map(|_| ()).expect_err("refused").to_string()
    }
}

fn make() -> Made<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// A server on a free port that answers `/health`.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(tls: &Tls, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::listen(listener, address, tls, limit)
    }

    fn listen(listener: TcpListener, address: SocketAddr, tls: &Tls, total: usize) -> Self {
        let limits = ConnectionLimits { total, per_address: 0, shared_addresses: Vec::new() };
        let router = Router::new().route("/health", get(|| async { "all is well" }));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(serve_http(listener, Some(tls.clone()), limits, router, stopped));
        Self { address, stop, task }
    }

    async fn ends(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it ends").unwrap();
    }
}

/// A client that trusts these certificates.
fn client(trusted: &[&Made<KeyPair>]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for made in trusted {
        roots.add(made.cert.der().clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session shows no certificate.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn connect(client: &TlsConnector, address: SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    timeout(PATIENCE, client.connect(name, stream)).await.expect("in time").unwrap()
}

fn served(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Asks for `/health` and reads until the answer has `text`.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) {
    stream.write_all(ASK).await.unwrap();
    let mut got = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&got).contains(text) {
            let answer = String::from_utf8_lossy(&got).into_owned();
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "closed after {answer:?}");
        }
    };
    timeout(PATIENCE, read).await.expect("an answer in time");
}

#[tokio::test]
async fn requests_are_answered_inside_tls() {
    let made = make();
    let tls = Files::holding(&made).open().unwrap();
    let server = Server::start(&tls, 8).await;
    let mut stream = connect(&client(&[&made]), server.address).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    for _ in 0..2 {
        ask(&mut stream, "all is well").await;
    }
    let foreign_origin = client(&[&make()]);
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let refused = foreign_origin.connect(ServerName::try_from("localhost").unwrap(), tcp).await;
    assert!(refused.is_err(), "a client that trusts another certificate only");
    server.stop.cancel();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("in time")
        .expect("closed in order");
    server.ends().await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_a_400() {
    let made = make();
    let tls = Files::holding(&made).open().unwrap();
    let server = Server::start(&tls, 8).await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    ask(&mut plain, "use https://").await;
    server.ends().await;
}

#[tokio::test]
async fn stalled_handshakes_are_closed_for_new_connections() {
    let made = make();
    let tls = Files::holding(&made).open().unwrap();
    let server = Server::start(&tls, 4).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        slow.push(stream);
    }
    ask(&mut connect(&client(&[&made]), server.address).await, "all is well").await;
    server.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_time_limit() {
    let tls = Files::holding(&make()).open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&[0x16, 0x03]).await.unwrap();
    // The byte is there before the server accepts, so the handshake limit expires first.
    let started = tokio::time::Instant::now();
    let server = Server::listen(listener, address, &tls, 4);
    assert!(matches!(slow.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(started.elapsed() < Duration::from_secs(30), "sooner than silence is given up");
    server.ends().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_under_load_without_a_failed_request() {
    let (old, new) = (make(), make());
    let files = Files::holding(&old);
    let tls = files.open().unwrap();
    let server = Server::start(&tls, 64).await;
    let connector = client(&[&old, &new]);
    let mut kept = connect(&connector, server.address).await;
    ask(&mut kept, "all is well").await;

    let renewed = Arc::new(AtomicBool::new(false));
    let new_der = new.cert.der().clone();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (connector, address) = (connector.clone(), server.address);
            let (renewed, new_der) = (Arc::clone(&renewed), new_der.clone());
            tokio::spawn(async move {
                let mut requests = 0;
                loop {
                    // Connections after the renewal get the new certificate.
                    let after = renewed.load(Ordering::SeqCst);
                    let mut stream = connect(&connector, address).await;
                    let is_new = served(&stream) == new_der;
                    assert!(is_new || !after, "the old certificate after the renewal");
                    ask(&mut stream, "all is well").await;
                    requests += 1;
                    if after && requests > 20 {
                        return requests;
                    }
                }
            })
        })
        .collect();
    files.write(&new);
    assert_eq!(tls.reload(None).await, None);
    renewed.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(timeout(PATIENCE, client).await.expect("in time").unwrap() > 20);
    }
    ask(&mut kept, "all is well").await;
    server.ends().await;
}

#[tokio::test]
async fn a_broken_renewal_is_reported_and_the_earlier_pair_stays() {
    let (old, new) = (make(), make());
    let files = Files::holding(&old);
    let tls = files.open().unwrap();
    let server = Server::start(&tls, 8).await;
    let connector = client(&[&old, &new]);

    fs::write(files.certificate(), new.cert.pem()).unwrap();
    let problem = tls.reload(None).await.expect("half a renewal");
    assert!(problem.contains("is not the key of the certificate"), "{problem}");
    fs::remove_file(files.key()).unwrap();
    let problem = tls.reload(Some(problem)).await.expect("no key");
    assert!(problem.contains("cannot be read"), "{problem}");
    let mut stream = connect(&connector, server.address).await;
    assert_eq!(served(&stream), *old.cert.der());
    ask(&mut stream, "all is well").await;

    files.write(&new);
    assert_eq!(tls.reload(Some(problem)).await, None);
    assert_eq!(served(&connect(&connector, server.address).await), *new.cert.der());
    server.ends().await;
}

#[test]
fn unchanged_files_are_not_reloaded() {
    let tls = Files::holding(&make()).open().unwrap();
    assert!(tls.certificate.renew().is_err(), "the folder is gone");
    let files = Files::holding(&make());
    let tls = files.open().unwrap();
    assert!(!tls.certificate.renew().unwrap());
    files.write(&make());
    assert!(tls.certificate.renew().unwrap());
}

#[test]
fn unusable_files_are_refused_with_the_remedy() {
    let made = make();
    let files = Files::holding(&made);
    files.write_key(&make().signing_key.serialize_pem());
    assert!(files.refusal().contains("made together"));

    files.write_key("no key");
    assert!(files.refusal().contains("holds no private key"), "{}", files.refusal());
    files.write(&made);
    for (pem, problem) in [
        ("", "holds no certificate in PEM form: there is none"),
        (
            "-----BEGIN CERTIFICATE-----\nnot base 64!\n-----END CERTIFICATE-----\n",
            "holds no certificate",
        ),
        ("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", "cannot be used"),
    ] {
        fs::write(files.certificate(), pem).unwrap();
        assert!(files.refusal().contains(problem), "{pem}: {}", files.refusal());
    }
    files.write(&made);
    for (mode, allowed) in
        [(0o644, false), (0o604, false), (0o660, false), (0o640, true), (0o400, true)]
    {
        fs::set_permissions(files.key(), Permissions::from_mode(mode)).unwrap();
        match files.open() {
            Ok(_) => assert!(allowed, "{mode:o}"),
            Err(error) => {
                assert!(!allowed && error.to_string().contains("chmod 640"), "{mode:o}: {error}");
            }
        }
    }
    let missing = Tls::open(files.certificate(), Path::new("/no/such/key.pem").to_owned());
    let problem = missing.map(|_| ()).expect_err("refused").to_string();
    assert!(problem.contains("[server] tls_key /no/such/key.pem cannot be read"), "{problem}");
}
