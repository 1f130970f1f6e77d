//! Rows that leave the node while the agent runs: to a rotated file and to a collector, with a token that nobody may see.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::{Agent, Lab, Pod, Sum, Wire, scale};

/// Between two looks at something that must come.
const LOOK: Duration = Duration::from_millis(50);
const TOKEN: &str = "hunter2-of-the-collector";

/// Answers every request with success, and keeps it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Request>>>);

/// Head, and body unpacked.
type Request = (String, Vec<u8>);

impl Collector {
    fn start() -> Result<(Self, SocketAddr)> {
        let collector = Self::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen")?;
        let address = listener.local_addr().context("an address")?;
        let ours = collector.clone();
        // Both end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let ours = ours.clone();
                std::thread::spawn(move || ours.serve(stream));
            }
        });
        Ok((collector, address))
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                ensure!(reader.read_line(&mut head)? > 0, "closed");
            }
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| Some(line.strip_prefix("content-length:")?.trim().parse()));
            let mut body = vec![0; length.context("no length")??];
            reader.read_exact(&mut body)?;
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((head, plain));
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
    }

    fn holds(&self, text: &str) -> bool {
        any_holds(&self.0.lock().unwrap_or_else(PoisonError::into_inner), text)
    }
}

/// The file holds the lines of standard output, the collector gets the pod's flows, and the token goes to the collector and
/// nowhere else.
#[test]
fn rows_leave_the_node_and_the_token_is_not_shown() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let (web, caller) = (Pod::new()?, Pod::new()?);
    let (collector, address) = Collector::start()?;
    let home = tempfile::tempdir().context("make a directory")?;
    let file = home.path().join("rows.json");
    let export = json!({
        "file": { "path": file },
        "otlp": { "endpoint": format!("http://{address}"), "interval_seconds": 1 },
    });
    let headers = format!("authorization=Bearer%20{TOKEN}");
    let agent =
        Agent::with_environment(json!({ "export": export }), &[("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str())])?;
    let (mut server, mut client) = (web.actor(&lab.server)?, caller.actor(&lab.client)?);
    let load = client.load_http(server.serve_http(lab.server_v4(0))?, 50, 4)?;
    // Totals are shown once a second.
    let shipped = |metrics: &str, sink: &str| {
        let sample = format!("sekisho_export_rows_total{{sink=\"{sink}\",fate=\"shipped\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&sample)).is_some_and(|total| total != "0")
    };
    let deadline = Instant::now() + scale::deadline();
    let metrics = loop {
        let metrics = agent.metrics()?.text;
        if collector.holds(&caller.uid) && shipped(&metrics, "file") && shipped(&metrics, "otlp") {
            break metrics;
        }
        ensure!(
            Instant::now() < deadline,
            "the collector got no row of the client's pod, or nobody counts it: {metrics}"
        );
        std::thread::sleep(LOOK);
    };
    let doctor = agent.command(&["doctor"])?;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    for wanted in ["export file", "export otlp", &format!("shipped to http://{address}")] {
        ensure!(doctor.contains(wanted), "no {wanted}: {doctor}");
    }
    let finished = agent.finish()?;

    assert_eq!(Sum::over(finished.rows.flows_of(&caller)), load.into());
    let written = std::fs::read_to_string(&file).context("read the file")?;
    ensure!(written.trim_end() == finished.stdout.trim_end(), "the file is not what standard output shows");
    ensure!(collector.holds("sekisho.flow"), "no flow by its name");

    let mut leaks = finished.leaks(TOKEN)?;
    for (name, text) in [("doctor", &doctor), ("/metrics", &metrics), ("the file", &written)] {
        leaks.extend(text.contains(TOKEN).then(|| name.to_owned()));
    }
    ensure!(leaks.is_empty(), "the token stands in {leaks:?}");
    let requests = collector.0.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(requests.iter().all(|(head, _)| head.contains(&format!("Bearer {TOKEN}"))), "a request without its token");
    ensure!(!any_holds(&requests, TOKEN), "the token stands in a row");
    Ok(())
}

fn any_holds(requests: &[Request], text: &str) -> bool {
    requests.iter().any(|(_, body)| body.windows(text.len()).any(|window| window == text.as_bytes()))
}
