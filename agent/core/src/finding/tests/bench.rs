//! An Engine with a pod or two, told second by second.

use std::sync::Arc;

use agent_ebpf::wire::Service;

use crate::engine::{Engine, EngineConfig};
use crate::facts::{ClusterFact, HostFact, NodeFacts, PodFacts, ServiceAccountFacts};
use crate::finding::{Code, Severity};
use crate::input::{Category, ImdsVersion, Input, MetadataFact, MetadataOutcome, Method, RequestFact, ResponseFact};
use crate::output::{FindingRow, Output, State};
use crate::testing::*;
pub(super) use crate::testing::{enforced, links};
use crate::time::{BootNs, WallNs};

/// Wall time of boot second 0.
pub(super) const EPOCH: i64 = 1_767_323_000;

pub(super) struct Bench {
    pub(super) engine: Engine,
    second: u64,
    /// Findings as they were put out.
    pub(super) told: Vec<FindingRow>,
}

impl Bench {
    pub(super) fn new(config: EngineConfig) -> Self {
        let mut bench = Self { engine: Engine::new(config), second: 0, told: Vec::new() };
        bench.wait(1);
        bench
    }

    /// An Engine that knows these pods, and has their cgroups.
    pub(super) fn with_pods(pods_: impl IntoIterator<Item = PodFacts>) -> Self {
        let mut bench = Self::new(EngineConfig::default());
        bench.know(pods_);
        bench
    }

    /// Tells pods, and their service accounts without a role.
    pub(super) fn know(&mut self, told: impl IntoIterator<Item = PodFacts>) {
        let told: Vec<_> = told.into_iter().collect();
        let node = NodeFacts { branch_interfaces: Some(9), ..NodeFacts::default() };
        self.feed(cluster(ClusterFact::Node(Arc::new(node))));
        for n in 0..10 {
            self.feed(pod_present(n));
        }
        for pod in &told {
            let account = ServiceAccountFacts {
                namespace: pod.namespace.clone(),
                name: pod.service_account.clone(),
                ..ServiceAccountFacts::default()
            };
            self.feed(cluster(ClusterFact::ServiceAccount(Arc::new(account))));
        }
        self.feed(pods(told));
    }

    pub(super) fn feed(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.engine.handle(input, &mut outputs);
        self.told.extend(outputs.into_iter().filter_map(|output| match output {
            Output::Finding(row) => Some(*row),
            _ => None,
        }));
    }

    pub(super) fn host(&mut self, fact: HostFact) {
        self.feed(Input::Host(Box::new(fact)));
    }

    /// So many seconds pass, tick by tick.
    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let wall = WallNs((EPOCH + i64::try_from(self.second).unwrap()) * 1_000_000_000);
            self.feed(Input::Tick { boot: BootNs(self.second * SECOND), wall });
        }
    }

    /// The rows of the fold that is open now.
    pub(super) fn fold(&mut self) -> Vec<Output> {
        let mut rows = Vec::new();
        for _ in 0..10 {
            self.second += 1;
            let wall = WallNs((EPOCH + i64::try_from(self.second).unwrap()) * 1_000_000_000);
            self.engine.handle(Input::Tick { boot: BootNs(self.second * SECOND), wall }, &mut rows);
        }
        rows.retain(|output| matches!(output, Output::Flow(_)));
        rows
    }

    /// Two evaluations.
    pub(super) fn evaluate_twice(&mut self) {
        self.wait(20);
    }

    pub(super) fn now(&self) -> BootNs {
        BootNs(self.second * SECOND)
    }

    /// Findings that stand: code, severity, cause.
    pub(super) fn open(&self) -> Vec<(Code, Severity, String)> {
        let rows = self.engine.ledger().rows().filter(|row| row.state == State::Open);
        rows.map(|row| (row.code, row.severity, row.cause)).collect()
    }

    pub(super) fn row(&self, code: Code) -> FindingRow {
        let rows: Vec<_> = self.engine.ledger().rows().filter(|row| row.code == code).collect();
        let [row] = &rows[..] else { panic!("{code:?}: {rows:?}") };
        row.clone()
    }

    /// What could not be told of a code.
    pub(super) fn doubts(&self, code: Code) -> Vec<String> {
        self.engine.ledger().doubts().filter(|row| row.code == code).map(|row| row.why).collect()
    }

    /// A request of a pod, as it stands in `Request`.
    pub(super) fn request(&mut self, n: u32, request: Request) {
        let fact = request.fact(pod_cgroup(n), self.now());
        self.feed(Input::Metadata(Box::new(fact)));
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) service: Service,
    pub(super) method: Method,
    pub(super) category: Category,
    pub(super) version: ImdsVersion,
    pub(super) status: Option<u16>,
    pub(super) ttl: u8,
    pub(super) key: bool,
    pub(super) forwarded: bool,
    pub(super) program: &'static str,
    pub(super) outcome: Option<MetadataOutcome>,
}

impl Request {
    /// A request of version 2 that was answered.
    pub(super) fn new(category: Category) -> Self {
        Self {
            service: Service::Imds,
            method: Method::Get,
            category,
            version: ImdsVersion::V2,
            status: Some(200),
            ttl: 254,
            key: true,
            forwarded: false,
            program: "aws",
            outcome: None,
        }
    }

    pub(super) fn status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// A request to the Pod Identity agent.
    pub(super) fn agent(status: Option<u16>, outcome: MetadataOutcome) -> Self {
        Self {
            service: Service::PodIdentity,
            version: ImdsVersion::None,
            status,
            outcome: Some(outcome),
            ..Self::new(Category::PodIdentityCredentials)
        }
    }

    /// A request for a token that nothing answered.
    pub(super) fn unanswered_token() -> Self {
        Self {
            method: Method::Put,
            status: None,
            outcome: Some(MetadataOutcome::Unanswered),
            ..Self::new(Category::Token)
        }
    }

    pub(super) fn fact(self, cgroup_id: u64, time: BootNs) -> MetadataFact {
        let Self { service, method, category, version, status, ttl, key, forwarded, program, outcome } = self;
        let by_status = match status {
            Some(200..=399) => MetadataOutcome::Ok,
            Some(401) => MetadataOutcome::Unauthorized,
            Some(403) => MetadataOutcome::Forbidden,
            Some(404) => MetadataOutcome::NotFound,
            Some(_) => MetadataOutcome::Error,
            None => MetadataOutcome::Unanswered,
        };
        MetadataFact {
            time,
            cgroup_id,
            cookie: 1,
            process: Some(named(10, program)),
            ancestors: vec![named(5, "sh")],
            sender_only: false,
            ends: ends("10.0.0.1", 40_000, "169.254.169.254", 80),
            service,
            request: Some(RequestFact {
                method,
                category,
                role: (category == Category::RoleCredentials).then(|| "node-role".into()),
                version,
                forwarded_for: forwarded.then(|| "10.9.9.9".into()),
            }),
            response: status.map(|status| ResponseFact {
                status,
                ttl,
                bytes: 900,
                access_key_id: (key && status == 200).then(|| "ASIAEXAMPLEEXAMPLE00".into()),
            }),
            outcome: outcome.unwrap_or(by_status),
            latency_ns: Some(1_000_000),
            origin: None,
        }
    }
}

/// The pod's only container has a web identity.
pub(super) fn with_irsa(mut pod: PodFacts) -> PodFacts {
    use crate::facts::{IdentityEnv, Value};
    pod.containers[0].identity = IdentityEnv {
        role_arn: Some(Value::Literal("arn:aws:iam::111122223333:role/cart".into())),
        web_identity_token_file: Some(Value::Literal("/var/run/secrets/token".into())),
        ..IdentityEnv::default()
    };
    pod
}

/// The pod's only container is probed.
pub(super) fn with_probe(mut pod: PodFacts, kind: crate::facts::ProbeKind, port: u16) -> PodFacts {
    let probe = crate::facts::ProbeFacts { kind, port: Some(port), timeout_s: 1, period_s: 10 };
    pod.containers[0].probes.push(probe);
    pod
}
