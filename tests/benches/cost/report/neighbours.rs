//! What other agents cost with the same work, measured once on a machine of two CPUs with Linux 6.18: 50,000 HTTP
//! connections, 20,000 TCP and 20,000 UDP 5-tuples, one bulk stream, between pods behind veths.

/// A line of the table: who; runs and microseconds of kernel time a connection; nanoseconds a MB; resident MB idle and at
/// most; CPU seconds for the connections; MB of maps; what it saw.
pub(super) type Neighbour = [&'static str; 8];

pub(super) const HEAD: Neighbour =
    ["neighbour", "runs", "us/conn", "ns/MB", "MB resident", "CPU s", "maps MB", "what it saw"];

pub(super) const NEIGHBOURS: [Neighbour; 7] = [
    ["NetObserv, defaults", "20", "6.9", "14700", "57 -> 72", "0.05", "1.2", "13.5 % of packets, 25 % of TCP flows"],
    ["NetObserv, 200k flows", "20", "5.1", "13200", "57 -> 181", "0.44", "5", "all packets; connections merged"],
    ["OpenTelemetry, 200k flows", "20", "11.0", "17700", "118 -> 232", "3.3", "101", "91 % of TCP, 17 % of UDP"],
    ["AWS flow monitor, defaults", "11", "1.0", "13500", "-", "-", "0.2", "6.7 % of sockets, no UDP"],
    ["AWS flow monitor, largest maps", "32", "5.3", "14000", "-", "-", "3", "81 % of sockets, no UDP"],
    ["Retina packetparser", "20", "10.7", "17500", "-", "-", "52", "IPv4 only"],
    ["coroot without L7", "20", "4.5", "44", "-", "-", "236", "every connection; no bytes, no UDP"],
];
