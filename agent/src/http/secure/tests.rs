//! Over real TLS on loopback, with a gate that says what the test wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::super::tests::Fixed;
use super::super::{Admission, Files, Gate, Tls, bind};
use super::{Ends, Secure};

/// Knows four tokens, and what it was asked.
#[derive(Default)]
struct Porter(Mutex<Vec<String>>);

impl Gate for Porter {
    fn admit<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Admission> + Send + 'a>> {
        self.0.lock().unwrap().push(token.to_owned());
        Box::pin(async move {
            match token {
                "good" => Admission::Admitted,
                "other" => Admission::Forbidden("system:serviceaccount:shop:web".to_owned()),
                "late" => Admission::CannotTell,
                _ => Admission::Unknown,
            }
        })
    }
}

/// A running server.
struct World {
    address: SocketAddr,
    tls: Arc<Tls>,
    ends: Arc<Ends>,
    porter: Arc<Porter>,
    work: tokio::task::JoinHandle<()>,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl World {
    async fn new(tls: Tls, source: Fixed) -> Self {
        let listener = bind(SocketAddr::from((LOOPBACK, 0)), "metrics.secure_listen").await.unwrap();
        let secure = Secure::new(listener, tls);
        let (address, tls, ends) = (secure.address().unwrap(), secure.tls(), secure.ends());
        let porter = Arc::new(Porter::default());
        let work = tokio::spawn(secure.serve(Arc::new(source), Arc::clone(&porter) as Arc<dyn Gate>));
        Self { address, tls, ends, porter, work }
    }

    async fn well() -> Self {
        Self::new(Tls::self_signed(&["node-1"], LOOPBACK).unwrap(), Fixed { healthy: true, ready: true }).await
    }

    /// A GET with headers, each with its line's end, over TLS with the certificate that is shown.
    async fn get(&self, path: &str, headers: &str) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = connect(stream, self.tls.certificate(), "127.0.0.1").await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn count(&self, end: &str) -> u64 {
        self.ends.counts().into_iter().find(|(name, _)| *name == end).unwrap().1
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Shakes hands with whoever shows this certificate.
async fn connect(
    stream: TcpStream,
    trusted: CertificateDer<'static>,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

#[tokio::test]
async fn health_is_open_and_tells_no_reason() {
    let world = World::well().await;
    for path in ["/healthz", "/readyz"] {
        let answer = world.get(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
    let tls = Tls::self_signed(&[], LOOPBACK).unwrap();
    let unwell = World::new(tls, Fixed { healthy: false, ready: false }).await;
    for (path, text) in [("/healthz", "\r\n\r\nnot healthy\n"), ("/readyz", "\r\n\r\nnot ready\n")] {
        // A token is no reason to tell more: nobody asked whose it is.
        for headers in ["", "authorization: Bearer good\r\n"] {
            let answer = unwell.get(path, headers).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(text), "{answer}");
        }
    }
    assert!(world.porter.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn metrics_are_for_those_who_are_let_through() {
    let world = World::well().await;
    for (headers, status, text, end) in [
        ("", 401, "a bearer token of this cluster", "unauthenticated"),
        ("authorization: Basic YTpi\r\n", 401, "a bearer token of this cluster", "unauthenticated"),
        ("authorization: Bearer nobodys\r\n", 401, "does not know this token", "unauthenticated"),
        ("authorization: Bearer other\r\n", 403, "system:serviceaccount:shop:web may not read this", "forbidden"),
        ("authorization: Bearer late\r\n", 503, "could not be asked about this token", "cannot_tell"),
        ("authorization: Bearer good\r\n", 200, "a 1\n", "served"),
        ("authorization: Bearer good\r\naccept: application/openmetrics-text\r\n", 200, "# EOF\n", "served"),
    ] {
        let before = world.count(end);
        let answer = world.get("/metrics", headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{headers}: {answer}");
        assert_eq!(answer.contains("www-authenticate: Bearer\r\n"), status == 401, "{answer}");
        assert_eq!(status == 200, answer.contains("a 1\n") || answer.contains("# EOF"), "{answer}");
        assert_eq!(world.count(end), before + 1, "{headers}");
    }
    assert_eq!(*world.porter.0.lock().unwrap(), ["nobodys", "other", "late", "good", "good"]);
    let answer = world.get("/", "authorization: Bearer good\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn without_tls_nothing_is_said() {
    let world = World::well().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    assert_eq!(world.count("no_handshake"), 1);
}

/// Connections that say nothing: an address has its part, and another is served at once.
#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let world = World::well().await;
    let from = async |address: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        socket.connect(world.address).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(from([127, 0, 0, 2]).await);
    }
    let mut byte = [0];
    let (mut closed, mut open) = (0, 0);
    while closed < 4 {
        for stream in &mut held {
            match stream.try_read(&mut byte) {
                Ok(0) => closed += 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => open += 1,
                other => panic!("{other:?}"),
            }
        }
        if closed < 4 {
            (closed, open) = (0, 0);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((closed, open), (4, 4));
    assert_eq!(world.count("turned_away"), 4);
    let stream = from([127, 0, 0, 3]).await;
    connect(stream, world.tls.certificate(), "127.0.0.1").await.expect("another address has its own part");
}

#[tokio::test]
async fn its_own_certificate_has_the_nodes_names() {
    let tls = Tls::self_signed(&["ip-10-0-0-1.example", "not a name", ""], LOOPBACK).unwrap();
    let world = World::new(tls, Fixed { healthy: true, ready: true }).await;
    for (name, good) in [("ip-10-0-0-1.example", true), ("127.0.0.1", true), ("other.example", false)] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let shaken = connect(stream, world.tls.certificate(), name).await;
        assert_eq!(shaken.is_ok(), good, "{name}: {:?}", shaken.err());
        if let Ok(stream) = shaken {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }
}

/// Files with a new certificate.
fn write(directory: &Path) -> (Files, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let files = Files { certificate: directory.join("tls.crt"), key: directory.join("tls.key") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

#[tokio::test]
async fn files_are_read_again_and_broken_ones_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (files, first) = write(directory.path());
    let world = World::new(Tls::of_files(files.clone()).unwrap(), Fixed { healthy: true, ready: true }).await;
    // To the end of an answer: an address has few connections at a time.
    let shows = async |certificate: &CertificateDer<'static>| {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let Ok(mut stream) = connect(stream, certificate.clone(), "127.0.0.1").await else { return false };
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.starts_with("HTTP/1.1 200 ")
    };
    assert!(shows(&first).await);

    let (_, second) = write(directory.path());
    assert!(shows(&first).await, "nobody looked yet");
    world.tls.look();
    assert!(shows(&second).await && !shows(&first).await);

    // One of the two files is ahead of the other; then it is no PEM; then it is gone.
    let of_first = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    for broken in [Some(of_first.signing_key.serialize_pem()), Some("secret".to_owned()), None] {
        match &broken {
            Some(text) => std::fs::write(&files.key, text).unwrap(),
            None => std::fs::remove_file(&files.key).unwrap(),
        }
        world.tls.look();
        let failing = world.tls.failing().expect("says so");
        assert!(failing.contains("tls.key") && !failing.contains("secret"), "{failing}");
        assert!(shows(&second).await);
    }
    let (_, third) = write(directory.path());
    world.tls.look();
    assert_eq!(world.tls.failing(), None);
    assert!(shows(&third).await);
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = write(directory.path());
    let broken = |certificate: &str, key: &str| {
        let write = |path: &Path, text: &str| {
            if !text.is_empty() {
                std::fs::write(path, text).unwrap();
            }
        };
        write(&files.certificate, certificate);
        write(&files.key, key);
        crate::lines::chain(&Tls::of_files(files.clone()).unwrap_err())
    };
    let error = broken("", "nonsense");
    assert!(error.contains("tls.key holds no private key in PEM"), "{error}");
    let error = broken("nonsense", "");
    assert!(error.contains("tls.crt holds no certificate in PEM"), "{error}");
    std::fs::remove_file(&files.certificate).unwrap();
    let error = crate::lines::chain(&Tls::of_files(files.clone()).unwrap_err());
    assert!(error.contains("could not read") && error.contains("metrics.tls_cert_file"), "{error}");
}
