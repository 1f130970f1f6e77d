//! Over real connections on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{CONNECTIONS_MAX, Error, Format, HEAD_BYTES_MAX, Source, bind, serve};

const KEYS: &str = "metrics.listen";

pub(super) struct Fixed {
    pub(super) healthy: bool,
    pub(super) ready: bool,
}

impl Source for Fixed {
    fn healthy(&self) -> Result<(), String> {
        self.healthy.then_some(()).ok_or_else(|| "the loop stands still".to_owned())
    }
    fn ready(&self) -> Result<(), String> {
        self.ready.then_some(()).ok_or_else(|| "tcp is missing".to_owned())
    }
    fn metrics(&self, format: Format) -> Result<(&'static str, String), String> {
        match format {
            Format::OpenMetrics => Ok(("application/openmetrics-text", "# EOF\n".to_owned())),
            Format::Prometheus => Ok(("text/plain", "a 1\n".to_owned())),
        }
    }
}

/// Serves while `body` runs.
fn with_server<F: Future<Output = ()>>(source: Fixed, body: impl FnOnce(SocketAddr) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), KEYS).await.expect("binds");
        let address = listener.local_addr().expect("an address");
        tokio::select! {
            () = serve(listener, Arc::new(source)) => panic!("the server ended"),
            () = body(address) => {}
        }
    });
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
}

const WELL: Fixed = Fixed { healthy: true, ready: true };

#[test]
fn a_healthy_agent_says_so() {
    with_server(WELL, async |address| {
        for path in ["/healthz", "/readyz"] {
            let answer = get(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        }
    });
}

#[test]
fn trouble_is_503_with_the_reason() {
    with_server(Fixed { healthy: false, ready: false }, async |address| {
        for (path, why) in [("/healthz", "the loop stands still\n"), ("/readyz", "tcp is missing\n")] {
            let answer = get(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(why), "{answer}");
        }
    });
}

#[test]
fn metrics_have_their_content_type() {
    with_server(WELL, async |address| {
        let answer = get(address, "/metrics?name[]=x").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\na 1\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain\r\n") && answer.contains("vary: accept\r\n"), "{answer}");
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nAccept: application/openmetrics-text\r\n\r\n";
        let answer = ask(address, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n# EOF\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text\r\n"), "{answer}");
        let head = ask(address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    });
}

#[test]
fn anything_else_is_refused() {
    with_server(WELL, async |address| {
        for (request, status) in [
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        }
    });
}

#[test]
fn long_heads_are_refused() {
    with_server(WELL, async |address| {
        let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX));
        let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
        for request in [long, many] {
            let answer = ask(address, &request).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
    });
}

/// Connections that say nothing take the places; the next waits and is served when one of them goes.
#[test]
fn connections_are_bounded() {
    with_server(WELL, async |address| {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(TcpStream::connect(address).await.expect("connects"));
        }
        let mut waiting = TcpStream::connect(address).await.expect("waits in the backlog");
        waiting.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
        // The server has run whatever it can run: each of these turns lets it poll.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut byte = [0];
        assert!(waiting.try_read(&mut byte).is_err(), "there is no place yet");
        held.pop();
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.expect("reads");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn a_port_in_use_is_named_with_a_cure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), KEYS).await.expect("binds");
        let address = first.local_addr().expect("an address");
        let error = bind(address, KEYS).await.expect_err("is in use");
        assert!(matches!(error, Error::InUse { .. }));
        let text = error.to_string();
        assert!(text.contains(&address.port().to_string()) && text.contains(KEYS), "{text}");
    });
}
