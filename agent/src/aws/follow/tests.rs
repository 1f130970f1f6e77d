//! The loop against a server that answers as a test wants: throttling, refusals, pages, nonsense.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use agent_core::sg::{Peer, Service};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpListener;

use super::*;
use crate::aws::access::Access;

/// Credentials that no other text holds.
const SECRET: &str = "canarysecretQzX7canarysecretQzX7canaryse";
const TOKEN: &str = "canarytokenQzX7";

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    form: Vec<(String, String)>,
    authorization: String,
    token: String,
}

/// A server on loopback; it ends with the test's runtime.
struct Server {
    endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Seen {
    fn get(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn action(&self) -> &str {
        self.get("Action").unwrap_or_default()
    }
}

impl Server {
    async fn start(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    async move {
                        let seen = read(request).await;
                        let (status, body) = answer(&seen);
                        log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
                        let body = Full::new(Bytes::from(body));
                        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
                    }
                });
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            }
        });
        Self { endpoint, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn actions(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.action().to_owned()).collect()
    }
}

async fn read(request: Request<Incoming>) -> Seen {
    let header = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (authorization, token) = (header("authorization"), header("x-amz-security-token"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let form = text.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (decode(key), decode(value)));
    Seen { form: form.collect(), authorization, token }
}

/// Other ones each time they are asked for.
#[derive(Debug, Default)]
struct Provider(AtomicU32);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let given = Credentials::new(format!("AKID{number}"), SECRET, Some(TOKEN.to_owned()), None, "test");
        future::ProvideCredentials::ready(Ok(given))
    }
}

struct Bench {
    follower: Follower,
    facts: mpsc::Receiver<Vec<Input>>,
}

fn bench(server: &Server, file: Option<std::path::PathBuf>) -> Bench {
    let options = Options {
        region: None,
        endpoint: None,
        fleet_nodes: None,
        refresh: Duration::from_hours(1),
        file,
        node: "n".into(),
        now: || WallNs(1_700_000_000_000_000_000),
    };
    let (tell, facts) = mpsc::channel(1_000);
    let mut follower = Follower::new(options, tell);
    let provider = SharedCredentialsProvider::new(Provider::default());
    follower.client = Client::with(Access::given(server.endpoint.clone(), provider));
    Bench { follower, facts }
}

impl Bench {
    /// A look at wishes that have settled.
    async fn look(&mut self, wishes: &Ec2Wishes) -> Vec<Ec2Fact> {
        self.follower.settled = Some(Instant::now());
        self.follower.look(wishes).await;
        let mut told = Vec::new();
        while let Ok(inputs) = self.facts.try_recv() {
            told.extend(inputs.into_iter().map(|input| match input {
                Input::Ec2(fact) => *fact,
                other => panic!("{other:?}"),
            }));
        }
        told
    }
}

fn wish(interfaces: &[&str], groups: &[&str]) -> Ec2Wishes {
    Ec2Wishes {
        interfaces: interfaces.iter().map(|&id| id.into()).collect(),
        groups: groups.iter().map(|id| id.parse().unwrap()).collect(),
        ..Ec2Wishes::default()
    }
}

fn page(action: &str, list: &str, items: &str, next: Option<&str>) -> (u16, String) {
    let next = next.map_or(String::new(), |next| format!("<nextToken>{next}</nextToken>"));
    let text = format!(
        "<?xml version=\"1.0\"?><{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><{list}>{items}</{list}>{next}</{action}Response>"
    );
    (200, text)
}

fn error(status: u16, code: &str, message: &str) -> (u16, String) {
    let text = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    );
    (status, text)
}

fn interface(id: &str) -> String {
    format!(
        "<item><networkInterfaceId>{id}</networkInterfaceId><groupSet/><macAddress>0A:00:00:00:00:01</macAddress></item>"
    )
}

/// A group that lets `MySQL` in from a network, in its own description.
fn group(id: &str, protocol: &str) -> String {
    format!(
        "<item><ownerId>1</ownerId><groupId>{id}</groupId><groupName>g</groupName><vpcId>vpc-1</vpcId><ipPermissions><item>\
         <ipProtocol>{protocol}</ipProtocol><fromPort>3306</fromPort><toPort>3306</toPort><groups/><ipRanges><item>\
         <cidrIp>10.0.0.0/16</cidrIp></item></ipRanges></item></ipPermissions><ipPermissionsEgress/><tagSet><item>\
         <key>aws:eks:cluster-name</key><value>prod</value></item></tagSet></item>"
    )
}

fn source(facts: &[Ec2Fact], of: Ec2Call) -> (Option<&str>, bool) {
    let last = facts.iter().rev().find_map(|fact| match fact {
        Ec2Fact::Source { call, error, denied, .. } if *call == of => Some((error.as_deref(), *denied)),
        _ => None,
    });
    last.unwrap_or_else(|| panic!("nothing is said of {of:?}"))
}

#[tokio::test]
async fn all_pages_are_read_and_what_is_known_is_not_asked_again() {
    let server = Server::start(|seen| match (seen.action(), seen.get("NextToken")) {
        ("DescribeNetworkInterfaces", None) => {
            page("DescribeNetworkInterfaces", "networkInterfaceSet", &interface("eni-1"), Some("a/b+c=="))
        }
        ("DescribeNetworkInterfaces", Some("a/b+c==")) => {
            page("DescribeNetworkInterfaces", "networkInterfaceSet", &interface("eni-2"), None)
        }
        other => panic!("{other:?}"),
    })
    .await;
    let mut bench = bench(&server, None);
    let wishes = wish(&["eni-1", "eni-2", "eni-3"], &[]);
    let facts = bench.look(&wishes).await;
    let Ec2Fact::Interfaces { interfaces, missing, .. } = &facts[0] else { panic!("{facts:?}") };
    assert_eq!(interfaces.iter().map(|one| &*one.id).collect::<Vec<_>>(), ["eni-1", "eni-2"]);
    assert_eq!(interfaces[0].mac.as_deref(), Some("0a:00:00:00:00:01"));
    assert_eq!(missing, &["eni-3".into()]);
    assert_eq!(source(&facts, Ec2Call::NetworkInterfaces), (None, false));
    assert!(bench.look(&wishes).await.is_empty());
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].get("Version"), Some("2016-11-15"));
    assert_eq!(seen[0].get("Filter.1.Name"), Some("network-interface-id"));
    assert_eq!(seen[0].get("Filter.1.Value.3"), Some("eni-3"));
    assert!(seen[0].authorization.contains("/eu-central-1/ec2/aws4_request"), "{}", seen[0].authorization);
    assert!(seen[0].authorization.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token"));
    assert_eq!(seen[0].token, TOKEN);
}

#[tokio::test]
async fn who_is_throttled_waits_with_all_calls() {
    let server = Server::start(|_| error(503, "RequestLimitExceeded", "Request limit exceeded.")).await;
    let mut bench = bench(&server, None);
    let wishes = wish(&["eni-1"], &["sg-1"]);
    let facts = bench.look(&wishes).await;
    assert_eq!(source(&facts, Ec2Call::NetworkInterfaces), (Some("RequestLimitExceeded"), false));
    assert!(bench.look(&wishes).await.is_empty());
    assert_eq!(server.actions(), ["DescribeNetworkInterfaces"]);
    assert!(bench.follower.throttled.is_waiting(Instant::now() + Duration::from_secs(1)));
    assert!(!bench.follower.throttled.is_waiting(Instant::now() + 2 * pace::THROTTLED.max));
    // The pause is over.
    bench.follower.throttled.pause(Duration::ZERO, Instant::now());
    bench.look(&wishes).await;
    assert_eq!(server.actions().len(), 2);
}

#[tokio::test]
async fn refused_credentials_are_gotten_anew() {
    let server = Server::start(|seen| {
        if seen.authorization.contains("AKID1/") {
            error(400, "RequestExpired", "Request has expired.")
        } else {
            page("DescribeNetworkInterfaces", "networkInterfaceSet", "", None)
        }
    })
    .await;
    let mut bench = bench(&server, None);
    let wishes = wish(&["eni-1"], &[]);
    let facts = bench.look(&wishes).await;
    for call in Ec2Call::ALL {
        assert_eq!(source(&facts, call), (Some("RequestExpired"), false), "none of them can be made");
    }
    assert!(bench.look(&wishes).await.is_empty());
    bench.follower.credentials.pause(Duration::ZERO, Instant::now());
    let facts = bench.look(&wishes).await;
    assert_eq!(source(&facts, Ec2Call::NetworkInterfaces), (None, false));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_role_that_may_not_list_rules_still_learns_them_from_the_groups() {
    let server = Server::start(|seen| match seen.action() {
        "DescribeSecurityGroups" => page("DescribeSecurityGroups", "securityGroupInfo", &group("sg-1", "tcp"), None),
        _ => error(403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
    })
    .await;
    let mut bench = bench(&server, None);
    let facts = bench.look(&wish(&[], &["sg-1", "sg-2"])).await;
    let told = facts.iter().find_map(|fact| match fact {
        Ec2Fact::Groups { groups, missing, .. } => Some((groups.clone(), missing.clone())),
        _ => None,
    });
    let (groups, missing) = told.unwrap();
    let rule = &groups[0].group.rules[0];
    assert!(!rule.id.is_given());
    assert!(matches!((&rule.service, &rule.peer), (Service::Ports { first: 3306, .. }, Peer::Net(_))), "{rule:?}");
    assert!(groups[0].clusters[0].by_eks && &*groups[0].clusters[0].cluster == "prod");
    assert_eq!(missing, ["sg-2".parse().unwrap()]);
    let (error, denied) = source(&facts, Ec2Call::SecurityGroupRules);
    assert!(denied && error.is_some_and(|error| error.starts_with("UnauthorizedOperation: You are not authorized")));
    assert_eq!(source(&facts, Ec2Call::SecurityGroups), (None, false));
    // What is denied is not asked again with the next group.
    bench.look(&wish(&[], &["sg-3"])).await;
    let rules = server.actions().iter().filter(|action| *action == "DescribeSecurityGroupRules").count();
    assert_eq!(rules, 1);
    assert!(bench.follower.calls[&Ec2Call::SecurityGroupRules].is_waiting(Instant::now() + Duration::from_mins(59)));
}

#[tokio::test]
async fn a_group_that_cannot_be_read_leaves_the_others_known() {
    let server = Server::start(|seen| match seen.action() {
        "DescribeSecurityGroups" => {
            let both = group("sg-1", "tcp") + &group("sg-2", "carrier-pigeon");
            page("DescribeSecurityGroups", "securityGroupInfo", &both, None)
        }
        _ => page("DescribeSecurityGroupRules", "securityGroupRuleSet", "", None),
    })
    .await;
    let mut bench = bench(&server, None);
    let facts = bench.look(&wish(&[], &["sg-1", "sg-2"])).await;
    let known: Vec<_> = bench.follower.known.groups.keys().map(ToString::to_string).collect();
    assert_eq!(known, ["sg-1"], "neither there nor absent");
    let (error, denied) = source(&facts, Ec2Call::SecurityGroups);
    assert!(
        error.is_some_and(|error| error.contains("sg-2") && error.contains("carrier-pigeon")) && !denied,
        "{error:?}"
    );
}

#[tokio::test]
async fn a_group_that_cannot_be_read_is_asked_for_ever_more_rarely_and_holds_up_no_other() {
    let server = Server::start(|seen| match (seen.action(), seen.get("Filter.1.Value.1")) {
        ("DescribeSecurityGroups", Some("sg-2")) => {
            page("DescribeSecurityGroups", "securityGroupInfo", &group("sg-2", "carrier-pigeon"), None)
        }
        ("DescribeSecurityGroups", _) => {
            page("DescribeSecurityGroups", "securityGroupInfo", &group("sg-3", "tcp"), None)
        }
        _ => error(403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
    })
    .await;
    let mut bench = bench(&server, None);
    let id: GroupId = "sg-2".parse().unwrap();
    for least in [5, 10, 20, 40] {
        bench.look(&wish(&[], &["sg-2"])).await;
        let (backoff, _) = bench.follower.unreadable.get_mut(&id).unwrap();
        assert!(backoff.is_waiting(Instant::now() + Duration::from_secs(least - 1)), "{least}");
        backoff.pause(Duration::ZERO, Instant::now());
    }
    // What may not be asked is not asked because something else went wrong beside it.
    assert_eq!(server.actions().iter().filter(|action| *action == "DescribeSecurityGroupRules").count(), 1);
    bench.look(&wish(&[], &["sg-2"])).await;
    let facts = bench.look(&wish(&[], &["sg-2", "sg-3"])).await;
    assert!(bench.follower.known.groups.contains_key(&"sg-3".parse().unwrap()), "{facts:?}");
    let (error, _) = source(&facts, Ec2Call::SecurityGroups);
    assert!(error.is_some_and(|error| error.contains("sg-2")), "it still cannot be read: {error:?}");
    let asked = server.actions().len();
    assert!(bench.look(&wish(&[], &["sg-2", "sg-3"])).await.is_empty());
    assert_eq!(server.actions().len(), asked);
}

#[tokio::test]
async fn the_cluster_says_how_many_nodes_share_the_calls_unless_it_is_set() {
    let server = Server::start(|_| page("DescribeNetworkInterfaces", "networkInterfaceSet", "", None)).await;
    let hours = |bench: &Bench| bench.follower.old.as_secs() / 3_600;
    let mut bench = bench(&server, None);
    assert_eq!((bench.follower.nodes, hours(&bench)), (100, 1), "nobody said");
    let told = |nodes| Ec2Wishes { fleet_nodes: Some(nodes), ..Ec2Wishes::default() };
    bench.look(&told(36_000)).await;
    assert_eq!(bench.follower.nodes, 36_000);
    assert!((10..=12).contains(&hours(&bench)), "a second a node, and up to a quarter more");
    bench.look(&told(3)).await;
    assert_eq!((bench.follower.nodes, hours(&bench)), (3, 1));
    bench.follower.options.fleet_nodes = Some(7_200);
    bench.look(&told(3)).await;
    assert_eq!((bench.follower.nodes, hours(&bench)), (7_200, 2));
}

#[tokio::test]
async fn answers_that_are_none_are_not_believed() {
    for body in ["", "<html>a proxy's page</html>", "<DescribeNetworkInterfacesResponse>", "\u{0}"] {
        let server = Server::start(move |_| (200, body.to_owned())).await;
        let mut bench = bench(&server, None);
        let facts = bench.look(&wish(&["eni-1"], &[])).await;
        assert_eq!(facts.len(), 1, "{facts:?}");
        let (error, _) = source(&facts, Ec2Call::NetworkInterfaces);
        assert!(error.is_some_and(|error| error.contains("cannot be read")), "{body:?}: {error:?}");
        assert!(bench.follower.known.interfaces.is_empty());
    }
}

#[tokio::test]
async fn who_is_away_is_named() {
    let server = Server::start(|_| (200, String::new())).await;
    let mut bench = bench(&server, None);
    let provider = SharedCredentialsProvider::new(Provider::default());
    // A port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.follower.client = Client::with(Access::given(format!("http://127.0.0.1:{port}"), provider));
    let facts = bench.look(&wish(&["eni-1"], &[])).await;
    let (error, _) = source(&facts, Ec2Call::NetworkInterfaces);
    assert!(
        error.is_some_and(|error| error.contains("the connection failed: ") && error.contains("refused")),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_is_on_disk_is_told_without_asking() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ec2.json");
    let server =
        Server::start(|_| page("DescribeNetworkInterfaces", "networkInterfaceSet", &interface("eni-1"), None)).await;
    let wishes = wish(&["eni-1", "eni-2"], &[]);
    let mut first = bench(&server, Some(path.clone()));
    let told = first.look(&wishes).await;
    drop(first);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut second = bench(&server, Some(path.clone()));
    second.follower.restore().await;
    let restored = second.look(&wishes).await;
    assert_eq!(restored, told);
    assert_eq!(server.seen().len(), 1);
    // A broken one is set aside, and asked for anew.
    std::fs::write(&path, "{").unwrap();
    let mut third = bench(&server, Some(path.clone()));
    third.follower.restore().await;
    assert_eq!(third.look(&wishes).await, told);
    assert_eq!(std::fs::read_to_string(directory.path().join("ec2.json.unreadable")).unwrap(), "{");
}

#[tokio::test]
async fn a_disk_that_stands_still_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ec2.json");
    let server =
        Server::start(|_| page("DescribeNetworkInterfaces", "networkInterfaceSet", &interface("eni-1"), None)).await;
    let mut bench = bench(&server, Some(path.clone()));
    bench.look(&wish(&["eni-1"], &[])).await;
    let file = bench.follower.file.clone().unwrap();
    let under_way = file.under_way();
    drop(bench);
    assert!(!path.exists());
    drop(under_way);
    while !path.exists() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_gets_out_even_when_the_server_sends_it_back() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || lines.clone());
    // Where there is one dispatcher alone, a line that another test's thread comes to first is off for all.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ec2.json");
    let echo = |seen: &Seen| format!("{SECRET} {} {}", seen.token, seen.authorization);
    let server = Server::start(move |seen| match seen.action() {
        "DescribeNetworkInterfaces" => error(400, "InvalidParameterValue", &echo(seen)),
        "DescribeSecurityGroups" => error(403, "UnauthorizedOperation", &echo(seen)),
        "DescribeInstanceTypes" => (502, echo(seen)),
        _ => error(401, "AuthFailure", &echo(seen)),
    })
    .await;
    let mut bench = bench(&server, Some(path.clone()));
    let wishes = Ec2Wishes { instance_type: Some("x9.large".into()), ..wish(&["eni-1"], &["sg-1"]) };
    let facts = bench.look(&wishes).await;
    assert_eq!(server.seen().len(), 3, "{:?}", server.actions());
    bench.follower.is_unsaved = true;
    bench.follower.save().await;
    let mut out = serde_json::to_string(&facts).unwrap();
    let _ = write!(out, "{facts:?}{:?}", bench.follower.errors);
    out.push_str(&std::fs::read_to_string(&path).unwrap());
    let own = |line: &&str| line.contains("sekisho::");
    let log = String::from_utf8(log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap();
    out.extend(log.lines().filter(own));
    assert!(out.contains("EC2 does not answer") && out.contains("UnauthorizedOperation"), "{out}");
    for canary in [SECRET, TOKEN, "Signature="] {
        assert!(!out.contains(canary), "{canary} is in {out}");
    }
}
