//! What is asked of the history, and how that reads in SQL. Values are always parameters.

use std::net::IpAddr;

use agent_core::output::{FindingRow, GapRow, ObjectFacts, ObjectKind, ObjectRow};
use agent_core::time::WallNs;
use rusqlite::types::Value;

use crate::history::codes::{mapped, unmapped};
use crate::lines::LineKind;

/// Which rows. Lists that are empty let everything pass; of several values one must fit, of several lists all. Gaps concern
/// everybody, and pass all but time and kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// From this moment on.
    pub(crate) since: Option<WallNs>,
    /// Up to this moment.
    pub(crate) until: Option<WallNs>,
    /// Of these kinds.
    pub(crate) kinds: Vec<LineKind>,
    /// By these pods: namespace and name.
    pub(crate) pods: Vec<(String, String)>,
    /// By pods with these uids.
    pub(crate) uids: Vec<String>,
    /// By these workloads.
    pub(crate) workloads: Vec<String>,
    /// With an address here at either end.
    pub(crate) networks: Vec<Network>,
    /// To peers that were known by one of these names, see [`name_patterns`].
    pub(crate) names: Vec<String>,
    /// Answers with these access key ids.
    pub(crate) keys: Vec<String>,
    /// Requests that name these roles.
    pub(crate) roles: Vec<String>,
    /// By programs whose name or path holds one of these.
    pub(crate) processes: Vec<String>,
    /// Findings with these ids or codes.
    pub(crate) findings: Vec<String>,
}

/// A span of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    first: [u8; 16],
    last: [u8; 16],
}

/// A condition with its parameters.
#[derive(Default)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

// === impl Network ===

impl std::str::FromStr for Network {
    type Err = &'static str;

    /// An address, or an address and the length of its prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address like 10.1.2.3 or a network like 10.1.0.0/16 or fd00::/8";
        let (ip, length) = match text.split_once('/') {
            None => (text, None),
            Some((ip, length)) if !length.starts_with('+') => (ip, Some(length.parse::<u32>().map_err(|_| EXPECTED)?)),
            Some(_) => return Err(EXPECTED),
        };
        let ip: IpAddr = ip.parse().map_err(|_| EXPECTED)?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(bits);
        if length > bits {
            return Err(EXPECTED);
        }
        let mask = u128::MAX.checked_shr(128 - bits + length).unwrap_or(0);
        let ip = u128::from_be_bytes(mapped(ip));
        Ok(Self { first: (ip & !mask).to_be_bytes(), last: (ip | mask).to_be_bytes() })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, last) = (u128::from_be_bytes(self.first), u128::from_be_bytes(self.last));
        let length = (first ^ last).leading_zeros();
        match unmapped(self.first) {
            IpAddr::V4(ip) if length >= 96 => write!(f, "{ip}/{}", length - 96),
            _ => write!(f, "{}/{length}", std::net::Ipv6Addr::from(self.first)),
        }
    }
}

impl Network {
    fn holds(&self, ip: IpAddr) -> bool {
        (self.first..=self.last).contains(&mapped(ip))
    }
}

// === impl Query ===

impl Query {
    /// From the first moment to the last, both included.
    pub(super) fn span(&self) -> (i64, i64) {
        (self.since.map_or(i64::MIN, |since| since.0), self.until.map_or(i64::MAX, |until| until.0))
    }

    fn wants(&self, kind: LineKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    pub(super) fn wants_flows(&self) -> bool {
        self.wants(LineKind::Flow) && self.keys.is_empty() && self.roles.is_empty() && self.findings.is_empty()
    }

    pub(super) fn wants_metadata(&self) -> bool {
        self.wants(LineKind::Metadata) && self.findings.is_empty() && self.names.is_empty()
    }

    pub(super) fn wants_execs(&self) -> bool {
        let others = self.keys.is_empty() && self.roles.is_empty() && self.findings.is_empty();
        self.wants(LineKind::Process) && others && self.networks.is_empty() && self.names.is_empty()
    }

    pub(super) fn wants_findings(&self) -> bool {
        let others = self.keys.is_empty() && self.roles.is_empty() && self.processes.is_empty();
        self.wants(LineKind::Finding) && others && self.names.is_empty()
    }

    pub(super) fn wants_capacity(&self) -> bool {
        self.wants(LineKind::Capacity) && self.wants_execs_of_all() && self.processes.is_empty()
    }

    fn wants_execs_of_all(&self) -> bool {
        let lists = [&self.uids, &self.workloads, &self.names, &self.keys, &self.roles, &self.findings];
        lists.iter().all(|list| list.is_empty()) && self.pods.is_empty() && self.networks.is_empty()
    }

    /// An address is a pod's own; who asks for keys, roles, programs or findings asks for nothing that an object tells.
    pub(super) fn wants_objects(&self) -> bool {
        let others = self.keys.is_empty() && self.roles.is_empty() && self.findings.is_empty();
        self.wants(LineKind::Object) && others && self.processes.is_empty()
    }

    /// Whether an object is about whom is asked for, whatever the kinds and whenever.
    pub(crate) fn concerns(&self, row: &ObjectRow) -> bool {
        self.wants_object(row)
    }

    /// Whether an object passes. A pod is asked for by name, uid, workload or address; what is no pod passes by its
    /// namespace, for it may be about the pod that is asked for.
    pub(super) fn wants_object(&self, row: &ObjectRow) -> bool {
        let any = |list: &[String], text: &str| list.is_empty() || list.iter().any(|wanted| *wanted == *text);
        let is_pod = row.object == ObjectKind::Pod;
        let named = |(space, name): &(String, String)| *row.namespace == **space && (!is_pod || *row.name == **name);
        let ips = match &row.facts {
            Some(ObjectFacts::Pod(pod)) => &pod.ips[..],
            _ => &[],
        };
        (self.pods.is_empty() || self.pods.iter().any(named))
            && any(&self.uids, row.uid.as_deref().unwrap_or_default())
            && any(&self.workloads, &row.workload)
            && (self.networks.is_empty() || ips.iter().any(|ip| self.networks.iter().any(|network| network.holds(*ip))))
    }

    pub(super) fn wants_gaps(&self) -> bool {
        self.wants(LineKind::Gap)
    }

    /// Whether a gap passes: it overlaps the span.
    pub(super) fn wants_gap(&self, gap: &GapRow) -> bool {
        let (since, until) = self.span();
        self.wants_gaps() && gap.end.0 >= since && gap.start.0 <= until
    }

    /// Whether a finding passes. It is about pods by name, by uid or by workload, and perhaps about a peer.
    pub(super) fn wants_finding(&self, row: &FindingRow) -> bool {
        let subject = &row.subject;
        let named = |name: &str| *subject.pod == *name || row.pods.iter().any(|pod| **pod == *name);
        let any = |list: &[String], fits: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|text| fits(text));
        let peer = || subject.peer.rsplit_once(':').and_then(|(ip, _)| ip.trim_matches(['[', ']']).parse().ok());
        (self.pods.is_empty() || self.pods.iter().any(|(space, name)| *subject.namespace == **space && named(name)))
            && any(&self.uids, &|uid| *subject.uid == *uid)
            && any(&self.workloads, &|workload| *subject.workload == *workload)
            && any(&self.findings, &|text| row.id == text || row.code.name() == text)
            && (self.networks.is_empty()
                || peer().is_some_and(|ip| self.networks.iter().any(|network| network.holds(ip))))
    }

    /// On the columns of `who`.
    pub(super) fn who(&self) -> Condition {
        let mut condition = Condition::default();
        condition.any(&self.pods, "(namespace = ? AND pod = ?)", |(namespace, pod)| vec![text(namespace), text(pod)]);
        condition.any(&self.uids, "uid = ?", |uid| vec![text(uid)]);
        condition.any(&self.workloads, "workload = ?", |workload| vec![text(workload)]);
        condition
    }

    /// On columns that hold addresses.
    pub(super) fn addresses(&self, columns: &[&str]) -> Condition {
        let mut condition = Condition::default();
        let each: Vec<_> = columns.iter().map(|column| format!("{column} BETWEEN ? AND ?")).collect();
        condition.any(&self.networks, &format!("({})", each.join(" OR ")), |network| {
            columns.iter().flat_map(|_| [Value::Blob(network.first.into()), Value::Blob(network.last.into())]).collect()
        });
        condition
    }

    /// On a column that holds names of peers.
    pub(super) fn peer_names(&self, column: &str) -> Condition {
        let mut condition = Condition::default();
        condition.any(&self.names, &format!("({column} GLOB ? OR {column} GLOB ?)"), |name| {
            name_patterns(name).map(Value::Text).into()
        });
        condition
    }

    /// On the columns of `program`.
    pub(super) fn programs(&self) -> Condition {
        let mut condition = Condition::default();
        let sql = "(instr(exe, ?) > 0 OR instr(exe_resolved, ?) > 0 OR instr(comm, ?) > 0)";
        condition.any(&self.processes, sql, |part| vec![text(part); 3]);
        condition
    }

    /// On the columns of `metadata`.
    pub(super) fn requests(&self) -> Condition {
        let mut condition = self.addresses(&["local"]);
        condition.any(&self.keys, "access_key_id = ?", |key| vec![text(key)]);
        condition.any(&self.roles, "role = ?", |role| vec![text(role)]);
        condition
    }
}

// === impl Condition ===

impl Condition {
    /// Nothing is asked.
    pub(super) fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    /// One of a list must fit.
    fn any<T>(&mut self, list: &[T], sql: &str, values: impl Fn(&T) -> Vec<Value>) {
        if !list.is_empty() {
            let each = vec![sql; list.len()].join(" OR ");
            self.and(&format!("({each})"), list.iter().flat_map(values));
        }
    }

    /// This too.
    pub(super) fn and(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        if !sql.is_empty() {
            let and = if self.sql.is_empty() { "" } else { " AND " };
            self.sql.push_str(and);
            self.sql.push_str(sql);
            self.values.extend(values);
        }
    }

    /// ` WHERE …`, or nothing.
    pub(super) fn clause(&self) -> String {
        if self.sql.is_empty() { String::new() } else { format!(" WHERE {}", self.sql) }
    }
}

/// What a name is asked for by, as patterns of SQLite's GLOB: with `*` or `?` that pattern, else the name and all below it.
/// Names stand in the history in lower case and without a last dot.
fn name_patterns(name: &str) -> [String; 2] {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    // GLOB knows sets of characters too; here brackets are brackets.
    let pattern = name.replace('[', "[[]");
    if name.contains(['*', '?']) { [pattern.clone(), pattern] } else { [pattern.clone(), format!("*.{pattern}")] }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, ip: &str) -> bool {
        network.parse::<Network>().expect("a network").holds(ip.parse().expect("an address"))
    }

    #[test]
    fn networks_hold_what_they_say() {
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.4"));
        assert!(holds("10.1.9.9/16", "10.1.255.255") && !holds("10.1.0.0/16", "10.2.0.0"));
        assert!(holds("0.0.0.0/0", "255.255.255.255") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("::/0", "10.0.0.1") && holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::"));
        assert!(holds("::ffff:10.0.0.0/104", "10.9.9.9"));
    }

    #[test]
    fn networks_read_as_they_were_given() {
        for text in ["10.1.2.3/32", "10.1.0.0/16", "0.0.0.0/0", "::/0", "fd00::/8", "fd00::1/128"] {
            assert_eq!(text.parse::<Network>().expect("a network").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "example.com"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
