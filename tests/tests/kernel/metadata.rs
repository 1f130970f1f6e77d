//! Every request to a metadata service once, with what it asked for and what came of it, and never with a secret.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use system_tests::agent::{Agent, Finished, Observer};
use system_tests::exchanges::{self, Row};
use system_tests::lab::{IMDS_V4, IMDS_V6, POD_IDENTITY_V4, POD_IDENTITY_V6};
use system_tests::metadata_server::{Behaviour, IDENTITY_KEY, Manner, POD_KEY, ROLE, ROLE_KEY};
use system_tests::protocol::Exchanged;
use system_tests::rows::Metadata;
use system_tests::{Actor, Lab, MetadataServer, Pod, Wire};

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/eks-node-role";

/// Services, a client in a pod, an agent, and somebody who watches the agent's socket.
struct Scene {
    lab: Lab,
    services: MetadataServer,
    pod: Pod,
    agent: Agent,
    observer: Observer,
    client: Actor,
}

/// What came of a scene.
struct Seen {
    pod: Pod,
    client: u32,
    requests: usize,
    finished: Finished,
}

impl Scene {
    fn new(behaviour: Behaviour) -> Result<Self> {
        Self::in_lab(Lab::new(Wire::Veth)?, behaviour)
    }

    fn in_lab(lab: Lab, behaviour: Behaviour) -> Result<Self> {
        let services = MetadataServer::start(&lab.server, behaviour)?;
        let pod = Pod::new()?;
        let agent = Agent::start()?;
        let observer = agent.observe(&[])?;
        let client = pod.actor(&lab.client)?;
        Ok(Self { lab, services, pod, agent, observer, client })
    }

    /// Sends one request in one piece and reads the answer.
    fn ask(&mut self, service: SocketAddr, request: &str) -> Result<Exchanged> {
        self.client.exchange(service, &[request])
    }

    /// A session token, by a request of its own.
    fn token(&mut self, service: SocketAddr) -> Result<String> {
        let answer = self.ask(service, &token_request())?.answer;
        Ok(answer.split_once("\r\n\r\n").context("an answer without a body")?.1.to_owned())
    }

    /// Ends everything; the secret that the services planted must stand in no output.
    fn end(self) -> Result<Seen> {
        let client = self.client.pid();
        self.client.end()?;
        let secret = self.services.canary().to_owned();
        // The services' own sockets are closed when they have stopped.
        let requests = self.services.stop()?.len();
        self.lab.wait_until_closed()?;
        let metrics = self.agent.metrics()?.text;
        let finished = self.agent.finish()?;
        let observed = self.observer.lines().join("\n");
        let mut leaks = finished.leaks(&secret)?;
        leaks.extend(metrics.contains(&secret).then(|| "/metrics".to_owned()));
        leaks.extend(observed.contains(&secret).then(|| "the socket".to_owned()));
        ensure!(leaks.is_empty(), "the planted secret stands in {leaks:?}");
        Ok(Seen { pod: self.pod, client, requests, finished })
    }
}

impl Seen {
    fn rows(&self) -> Vec<&Metadata> {
        self.finished.rows.metadata_of(&self.pod).collect()
    }

    /// The rows are these, in any order, and every one has its owner.
    fn check(&self, expected: &[Row<'_>]) -> Result<()> {
        exchanges::compare(expected, self.rows().into_iter().map(Row::of))?;
        for row in self.rows() {
            ensure!(row.who.container == self.pod.container, "wrong container: {row:?}");
            let process = row.who.process.as_ref().with_context(|| format!("no process: {row:?}"))?;
            ensure!(process.pid == self.client && process.by == "connect", "wrong process: {row:?}");
            ensure!(row.status.is_none() || row.response_ttl.is_some(), "an answer without a time to live: {row:?}");
            let measured = row.latency_us.is_some() == (row.status.is_some() && row.method.is_some());
            ensure!(measured, "latency without question and answer, or none with them: {row:?}");
        }
        Ok(())
    }
}

fn imds() -> SocketAddr {
    SocketAddr::from((IMDS_V4, 80))
}

fn token_request() -> String {
    "PUT /latest/api/token HTTP/1.1\r\nHost: imds\r\nX-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\
     Connection: close\r\n\r\n"
        .to_owned()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: imds\r\nUser-Agent: test\r\n{headers}Connection: close\r\n\r\n")
}

/// Paths of EC2's metadata, their class and the access key id in the answer.
const PATHS: [(&str, &str, Option<&str>); 9] = [
    ("/latest/meta-data/iam/security-credentials/", "role_list", None),
    (CREDENTIALS, "role_credentials", Some(ROLE_KEY)),
    ("/latest/meta-data/iam/info", "role_info", None),
    (
        "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
        "identity_credentials",
        Some(IDENTITY_KEY),
    ),
    ("/latest/user-data", "user_data", None),
    ("/latest/dynamic/instance-identity/document", "identity_document", None),
    ("/latest/meta-data/instance-id", "metadata", None),
    ("/2021-07-15/meta-data/placement/region", "metadata", None),
    ("/latest/meta-data/iam/security-credentials", "role_list", None),
];

fn every_path(service: SocketAddr) -> Result<()> {
    let mut scene = Scene::new(Behaviour::default())?;
    let token = scene.token(service)?;
    let mut expected = vec![Row::imds("v2", "PUT", "token")];
    for (path, category, key) in PATHS {
        for (version, header) in [("v1", String::new()), ("v2", format!("X-aws-ec2-metadata-token: {token}\r\n"))] {
            let answer = scene.ask(service, &get(path, &header))?;
            ensure!(answer.answer.starts_with("HTTP/1.1 200 "), "{path} is answered by {answer:?}");
            expected.push(Row { key, ..Row::imds(version, "GET", category) });
        }
    }
    let seen = scene.end()?;
    assert_eq!(seen.requests, expected.len());
    seen.check(&expected)?;
    for row in seen.rows().iter().filter(|row| row.category.as_deref() == Some("role_credentials")) {
        assert_eq!(row.role.as_deref(), Some(ROLE), "{row:?}");
        assert_eq!(row.response_ttl, Some(64), "{row:?}");
    }
    Ok(())
}

#[test]
fn every_path_with_and_without_token() -> Result<()> {
    every_path(imds())
}

#[test]
fn every_path_over_ipv6() -> Result<()> {
    every_path(SocketAddr::from((IMDS_V6, 80)))
}

#[test]
fn refusals_are_told_apart() -> Result<()> {
    let mut scene = Scene::new(Behaviour { tokens_required: true, ..Behaviour::default() })?;
    let secret = scene.services.canary().to_owned();
    let forwarded = token_request().replace("Host", "X-Forwarded-For: 10.1.2.3\r\nHost");
    scene.ask(imds(), &get(CREDENTIALS, ""))?;
    scene.ask(imds(), &get(CREDENTIALS, &format!("X-aws-ec2-metadata-token: forged{secret}\r\n")))?;
    scene.ask(imds(), &forwarded)?;
    scene.ask(imds(), "PUT /latest/api/token HTTP/1.0\r\n\r\n")?;
    let token = scene.token(imds())?;
    let header = format!("X-aws-ec2-metadata-token: {token}\r\n");
    scene.ask(imds(), &get("/latest/meta-data/none", &header))?;
    scene.ask(imds(), &get("/computeMetadata/v1/instance/service-accounts/", &header))?;

    let seen = scene.end()?;
    seen.check(&[
        Row::imds("v1", "GET", "role_credentials").failed(401, "unauthorized"),
        Row::imds("v2", "GET", "role_credentials").failed(401, "unauthorized"),
        Row::imds("v2", "PUT", "token").failed(403, "forbidden"),
        Row::imds("v2", "PUT", "token").failed(400, "error"),
        Row::imds("v2", "PUT", "token"),
        Row::imds("v2", "GET", "metadata").failed(404, "not_found"),
        Row::imds("none", "GET", "other_cloud").failed(404, "not_found"),
    ])?;
    let forwarded: Vec<_> = seen.rows().into_iter().filter_map(|row| row.forwarded_for.as_deref()).collect();
    assert_eq!(forwarded, ["10.1.2.3"]);
    Ok(())
}

#[test]
fn pod_identity() -> Result<()> {
    let mut scene = Scene::new(Behaviour::default())?;
    let authorization = format!("Authorization: eyJhbGciOi{}\r\n", scene.services.canary());
    let mut expected = Vec::new();
    for service in [SocketAddr::from((POD_IDENTITY_V4, 80)), SocketAddr::from((POD_IDENTITY_V6, 80))] {
        scene.ask(service, &get("/v1/credentials", &authorization))?;
        scene.ask(service, &get("/v1/credentials", ""))?;
        let row = Row { service: "pod_identity", ..Row::imds("none", "GET", "pod_identity_credentials") };
        expected.extend([Row { key: Some(POD_KEY), ..row }, row.failed(401, "unauthorized")]);
    }
    scene.end()?.check(&expected)
}

#[test]
fn a_request_split_at_every_byte() -> Result<()> {
    let mut scene = Scene::new(Behaviour::default())?;
    let token = scene.token(imds())?;
    let request = get(CREDENTIALS, &format!("X-aws-ec2-metadata-token: {token}\r\n"));
    for at in 1..request.len() {
        let answer = scene.client.exchange(imds(), &[&request[..at], &request[at..]])?;
        ensure!(answer.answer.contains(ROLE_KEY), "split at {at}: {answer:?}");
    }
    let bytes: Vec<&str> = (0..request.len()).map(|at| &request[at..=at]).collect();
    scene.client.exchange(imds(), &bytes)?;

    let row = Row { key: Some(ROLE_KEY), ..Row::imds("v2", "GET", "role_credentials") };
    let mut expected = vec![row; request.len()];
    expected.push(Row::imds("v2", "PUT", "token"));
    scene.end()?.check(&expected)
}

#[test]
fn answers_in_every_manner() -> Result<()> {
    for manner in [Manner::Whole, Manner::HeadInPieces, Manner::SlowBody, Manner::Chunked] {
        let mut scene = Scene::new(Behaviour { manner, ..Behaviour::default() })?;
        scene.ask(imds(), &get(CREDENTIALS, ""))?;
        scene.ask(imds(), &get("/latest/user-data", ""))?;
        let credentials = Row { key: Some(ROLE_KEY), ..Row::imds("v1", "GET", "role_credentials") };
        let seen = scene.end()?;
        seen.check(&[credentials, Row::imds("v1", "GET", "user_data")]).with_context(|| format!("{manner:?}"))?;
    }
    Ok(())
}

#[test]
fn several_requests_on_one_connection() -> Result<()> {
    let mut scene = Scene::new(Behaviour::default())?;
    let one = "GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: imds\r\n\r\n";
    let two = format!("GET {CREDENTIALS} HTTP/1.1\r\nHost: imds\r\n\r\n");
    let three = get("/latest/user-data", "");
    let answer = scene.client.exchange(imds(), &[one, &two, &three])?;
    assert_eq!(answer.answer.matches("HTTP/1.1 200 ").count(), 3);
    // And all of them in one packet.
    scene.ask(imds(), &format!("{one}{two}{three}"))?;

    let rows = [
        Row::imds("v1", "GET", "metadata"),
        Row { key: Some(ROLE_KEY), ..Row::imds("v1", "GET", "role_credentials") },
        Row::imds("v1", "GET", "user_data"),
    ];
    scene.end()?.check(&[rows, rows].concat())
}

#[test]
fn no_answer() -> Result<()> {
    let mut scene = Scene::new(Behaviour { silent_put: true, ..Behaviour::default() })?;
    let answer = scene.client.exchange_within(imds(), &[&token_request()], 500)?;
    assert_eq!(answer.errno, Some(libc::ETIMEDOUT));
    let row = Row { status: None, outcome: "unanswered", ..Row::imds("v2", "PUT", "token") };
    scene.end()?.check(&[row])
}

#[test]
fn blocked_on_the_way() -> Result<()> {
    let lab = Lab::with_blocked_metadata()?;
    let pod = Pod::new()?;
    let agent = Agent::start()?;
    let mut client = pod.actor(&lab.client)?;
    let answer = client.exchange_within(imds(), &[&token_request()], 2_500)?;
    assert_eq!(answer.errno, Some(libc::ETIMEDOUT));
    let (requests, pid) = (0, client.pid());
    client.end()?;
    lab.wait_until_closed()?;
    Seen { pod, client: pid, requests, finished: agent.finish()? }.check(&[Row::unseen("blocked")])
}

#[test]
fn refused_and_idle_connections() -> Result<()> {
    let lab = Lab::new(Wire::Veth)?;
    let pod = Pod::new()?;
    let agent = Agent::start()?;
    let mut client = pod.actor(&lab.client)?;
    let answer = client.exchange(imds(), &[&token_request()])?;
    assert_eq!(answer.errno, Some(libc::ECONNREFUSED));
    let services = MetadataServer::start(&lab.server, Behaviour::default())?;
    client.connect("idle", imds())?;
    client.close("idle")?;
    let (requests, pid) = (services.stop()?.len(), client.pid());
    client.end()?;
    lab.wait_until_closed()?;
    let seen = Seen { pod, client: pid, requests, finished: agent.finish()? };
    seen.check(&[Row::unseen("failed"), Row::unseen("idle")])
}

#[test]
fn time_to_live_of_the_answer() -> Result<()> {
    let mut scene = Scene::new(Behaviour { ttl: Some(1), ..Behaviour::default() })?;
    scene.ask(imds(), &get("/latest/meta-data/instance-id", ""))?;
    let seen = scene.end()?;
    seen.check(&[Row::imds("v1", "GET", "metadata")])?;
    assert_eq!(seen.rows()[0].response_ttl, Some(1));
    Ok(())
}

#[test]
fn garbage_is_unparsed() -> Result<()> {
    let mut scene = Scene::new(Behaviour::default())?;
    let secret = scene.services.canary().to_owned();
    let garbage = [format!("\u{16}\u{3}\u{1}\u{2}{secret}"), format!("SSH-2.0-{secret}\r\n"), "\r\0\r\0".repeat(300)];
    for payload in &garbage {
        scene.ask(imds(), payload)?;
    }
    let seen = scene.end()?;
    let (unparsed, answers): (Vec<_>, Vec<_>) = seen.rows().into_iter().partition(|row| row.outcome == "unparsed");
    assert_eq!(unparsed.len(), garbage.len(), "{:?}", seen.rows());
    // Beside them only what the service said to it, as evidence without a request.
    assert!(answers.iter().all(|row| row.method.is_none() && row.status == Some(400)), "{answers:?}");
    Ok(())
}

#[test]
fn credentials_that_nobody_asked_for() -> Result<()> {
    let mut scene = Scene::new(Behaviour { unasked: true, ..Behaviour::default() })?;
    let answer = scene.client.exchange(imds(), &[])?;
    ensure!(answer.answer.contains(ROLE_KEY), "the service said {answer:?}");
    let seen = scene.end()?;
    let rows = seen.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].access_key_id.as_deref(), Some(ROLE_KEY), "{rows:?}");
    assert_eq!((rows[0].method.as_deref(), rows[0].status), (None, Some(200)), "{rows:?}");
    Ok(())
}
