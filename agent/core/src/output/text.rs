//! Rows as lines for people: time, kind, who, what, aligned so that lines of a kind read as columns.

use std::fmt::{self, Display, Write as _};

use super::{
    ActualPeer, AttributionKind, CapacityRow, FindingRow, FlowRow, GapRow, Identity, JudgedBy, MetadataRow, ObjectRow,
    Output, Peer, ProcessRow, Protocol, SgRow, Who, name_of,
};

/// Digits of a container id shown.
const SHORT_ID_DIGITS: usize = 12;

impl Output {
    /// The row as one line, without its end. For people: its form may change; programs read [`Output::to_json`].
    pub fn to_text(&self) -> String {
        // Second and fraction suffice on a terminal: `12:03:04.567`.
        let time = self.time().to_string();
        self.to_text_at(time.get(11..23).unwrap_or(&time))
    }

    /// As [`Output::to_text`], with the time as the caller writes it.
    pub fn to_text_at(&self, time: &str) -> String {
        let mut line = String::with_capacity(160);
        // Writing to a String cannot fail.
        let _ = self.write_text(time, &mut line);
        // Program names, arguments and roles are chosen by workloads: no escape sequence of theirs reaches a terminal.
        if line.contains(char::is_control) {
            line = line.replace(char::is_control, "\u{fffd}");
        }
        line
    }

    fn write_text(&self, time: &str, line: &mut String) -> fmt::Result {
        write!(line, "{time} {:<8} ", self.kind())?;
        match self {
            Self::Flow(row) => flow(line, row),
            Self::Metadata(row) => metadata(line, row),
            Self::Process(row) => process(line, row),
            Self::Gap(row) => gap(line, row),
            Self::Finding(row) => finding(line, row),
            Self::Capacity(row) => capacity(line, row),
            Self::Object(row) => object(line, row),
        }
    }
}

fn flow(line: &mut String, row: &FlowRow) -> fmt::Result {
    who(line, &row.who)?;
    let protocol = match row.protocol {
        Some(Protocol::Tcp) => "tcp",
        Some(Protocol::Udp) => "udp",
        None => "any",
    };
    let (arrow, service) = match row.direction {
        "outbound" => ("->", row.service_port),
        "inbound" => ("<-", None),
        _ => ("--", None),
    };
    let local_port = if row.direction == "inbound" { row.service_port } else { None };
    let local = Address { ip: row.local.ip.as_deref(), port: local_port };
    let peer = Address { ip: row.peer.ip.as_deref(), port: service };
    write!(line, " {protocol} {local} {arrow} {peer}")?;
    if let Some(ActualPeer { ip, port }) = row.actual_peer {
        write!(line, " = {}", std::net::SocketAddr::new(ip, port))?;
    }
    named_peer(line, &row.peer)?;
    if let Some(via) = row.via {
        write!(line, " via {}", name_of(&via))?;
    }
    match row.outcome {
        Some(outcome) => write!(line, "  {outcome} x{}", row.connections)?,
        None if row.open > 0 => write!(line, "  open x{}", row.open)?,
        None => {}
    }
    write!(line, "  {} out {} in", Bytes(row.bytes_sent), Bytes(row.bytes_received))?;
    if let Some(rtt) = row.rtt_us {
        write!(line, "  rtt {}", Micros(u64::from(rtt)))?;
    }
    if let Some(retransmits @ 1..) = row.retransmits {
        write!(line, "  {retransmits} retransmitted")?;
    }
    if row.merged {
        line.push_str("  (merged)");
    }
    row.sg.as_deref().map_or(Ok(()), |row| sg(line, row))
}

/// `  sg allowed by sgr-1,sgr-2`, `  sg no rule (node's groups)`, `  sg not judged: same node`.
fn sg(line: &mut String, row: &SgRow) -> fmt::Result {
    write!(line, "  sg {}", row.verdict.name().replace('_', " "))?;
    if !row.rules.is_empty() {
        write!(line, " by {}", row.rules.join(","))?;
    }
    if row.by == Some(JudgedBy::Node) {
        line.push_str(" (node's groups)");
    }
    row.why.map_or(Ok(()), |why| write!(line, ": {}", why.name().replace('_', " ")))
}

fn metadata(line: &mut String, row: &MetadataRow) -> fmt::Result {
    who(line, &row.who)?;
    write!(line, " {}", row.service)?;
    // The names of the JSON form, without its quotes.
    let version = name_of(&row.version);
    if version != "none" {
        write!(line, " {version}")?;
    }
    if let Some(method) = row.method {
        write!(line, " {}", name_of(&method))?;
    }
    if let Some(category) = row.category {
        write!(line, " {}", name_of(&category))?;
    }
    if let Some(role) = &row.role {
        write!(line, " role {role}")?;
    }
    write!(line, "  {}", name_of(&row.outcome))?;
    if let Some(status) = row.status {
        write!(line, " {status}")?;
    }
    if let Some(key) = &row.access_key_id {
        write!(line, "  key {key}")?;
    }
    if let Some(forwarded) = &row.forwarded_for {
        write!(line, "  forwarded for {forwarded}")?;
    }
    if let Some(latency) = row.latency_us {
        write!(line, "  {}", Micros(latency))?;
    }
    Ok(())
}

fn process(line: &mut String, row: &ProcessRow) -> fmt::Result {
    who(line, &row.who)?;
    write!(line, " user {}", row.uid_number)?;
    let Some(process) = &row.who.process else { return Ok(()) };
    if !process.args.is_empty() {
        write!(line, "  {}", process.args.join(" "))?;
    }
    for ancestor in &process.ancestors {
        write!(line, " < {}[{}]", ancestor.comm, ancestor.pid)?;
    }
    Ok(())
}

fn gap(line: &mut String, row: &GapRow) -> fmt::Result {
    write!(line, "not covered from {} to {}: {}", row.start, row.end, name_of(&row.cause))?;
    if row.records_lost.is_empty() {
        return write!(line, "  loss unknown");
    }
    let mut known = row.records_lost.iter().filter(|(_, lost)| **lost > 0).peekable();
    if known.peek().is_none() {
        return write!(line, "  nothing lost");
    }
    for (kind, lost) in known {
        write!(line, "  {lost} {kind} lost")?;
    }
    Ok(())
}

fn finding(line: &mut String, row: &FindingRow) -> fmt::Result {
    let whom = match (&*row.subject.namespace, &*row.subject.workload) {
        ("", workload) => workload.to_owned(),
        (namespace, workload) => format!("{namespace}/{workload}"),
    };
    write!(line, "{whom:<32} {} {} {}", row.severity.name(), row.code.name(), name_of(&row.state))?;
    write!(line, "  {}", row.text)
}

fn capacity(line: &mut String, row: &CapacityRow) -> fmt::Result {
    match (row.pods_fit, row.binding_resource) {
        (Some(fit), Some(resource)) => write!(line, "{fit} more pods fit; {} binds", resource.name()),
        (Some(fit), None) => write!(line, "{fit} more pods fit"),
        (None, _) => write!(line, "cannot tell how many more pods fit"),
    }
}

/// `shop/cart-0   pod changed: labels, phase Running`: what is short stands with its name.
fn object(line: &mut String, row: &ObjectRow) -> fmt::Result {
    let name = format!("{}/{}", row.namespace, row.name);
    write!(line, "{name:<32} {} {}", row.object.name().replace('_', " "), name_of(&row.change))?;
    let fields = serde_json::to_value(&row.facts).unwrap_or_default();
    for (n, field) in row.changed.iter().enumerate() {
        write!(line, "{} {field}", if n == 0 { ":" } else { "," })?;
        match fields.get(field) {
            Some(serde_json::Value::String(text)) => write!(line, " {text}")?,
            Some(value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_))) => write!(line, " {value}")?,
            _ => {}
        }
    }
    Ok(())
}

fn who(line: &mut String, who: &Who) -> fmt::Result {
    let program = who.process.as_deref().map_or_else(String::new, |process| {
        let path = process.exe.as_deref().unwrap_or(&process.comm);
        let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("?");
        format!("{name}[{}]", process.pid)
    });
    write!(line, "{:<32} {program:<20}", identity(&who.identity))
}

fn identity(identity: &Identity) -> String {
    match identity.attribution {
        AttributionKind::Pod if identity.pod.is_empty() => {
            let container = identity.container.get(..SHORT_ID_DIGITS).unwrap_or(&identity.container);
            let pod = identity.uid.get(..8).unwrap_or(&identity.uid);
            format!("pod-{pod}/{container}")
        }
        AttributionKind::Pod => format!("{}/{}", identity.namespace, identity.pod),
        AttributionKind::Container | AttributionKind::Host => identity.workload.clone(),
        AttributionKind::Unknown => "?".to_owned(),
    }
}

fn named_peer(line: &mut String, peer: &Peer) -> fmt::Result {
    match (&peer.namespace, &peer.pod, &peer.name) {
        (Some(namespace), Some(pod), _) if !namespace.is_empty() => write!(line, " ({namespace}/{pod})"),
        (_, Some(pod), _) => write!(line, " ({pod})"),
        (_, None, Some(name)) => write!(line, " ({name})"),
        (_, None, None) => write!(line, " ({})", name_of(&peer.class)),
    }
}

struct Address<'a> {
    ip: Option<&'a str>,
    port: Option<u16>,
}

impl Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => f.write_char('*')?,
            Some(ip) if self.port.is_some() && ip.contains(':') => write!(f, "[{ip}]")?,
            Some(ip) => f.write_str(ip)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut tenths = u128::from(self.0) * 10 / 1024;
        let mut units = UNITS.iter();
        let mut unit = units.next();
        while tenths >= 10_240
            && let Some(next) = units.next()
        {
            tenths /= 1024;
            unit = Some(next);
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, unit.unwrap_or(&"B"))
    }
}

struct Micros(u64);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ ..1_000 => write!(f, "{us} us"),
            us @ ..1_000_000 => write!(f, "{}.{} ms", us / 1_000, us % 1_000 / 100),
            us => write!(f, "{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
        }
    }
}
