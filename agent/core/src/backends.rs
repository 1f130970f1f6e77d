//! Which backend answered behind a service's address.
//!
//! The node translates such addresses when a connection begins, and its connection tracking knows into what. A fold that
//! saw such connections asks for theirs just before it closes, by addresses and ports, and waits for the answer a moment:
//! entries outlive their connections by ten seconds or more, so one look for each fold finds nearly all. A connection that
//! is not found has no backend: one that ended by a reset long ago, or one that somebody else translated (a program at
//! the socket, a node elsewhere). Nothing is made of what is missing.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::fast::FastMap;
use crate::output::{ActualPeer, Protocol};
use crate::time::BootNs;

/// Most connections asked about for a fold, at about 70 bytes: 1.1 MiB, twice while the answer is there. Rows beyond it
/// have no backend.
pub const MAX_ASKED: usize = 16_384;
/// How long a fold waits for the answer: the next tick. A dump of 20,000 entries takes 70 ms on two busy cores.
const PATIENCE_NS: u64 = 900_000_000;
/// Folds that do not ask after nobody answered: five minutes.
const REST_FOLDS: u32 = 30;

/// A connection as its own socket knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// This end.
    pub local: SocketAddr,
    /// Whom it asked for.
    pub remote: SocketAddr,
}

/// A connection, and who answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The connection.
    pub of: Connection,
    /// Who answers.
    pub backend: SocketAddr,
}

/// Asks once a fold, and keeps the answer until it is used.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    asked: Option<BootNs>,
    /// Not handed over yet.
    question: Option<Vec<Connection>>,
    answer: Option<FastMap<Connection, SocketAddr>>,
    /// Folds until somebody is asked again.
    rest: u32,
}

/// Whether a fold that is due may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Close.
    Now,
    /// An answer is on its way.
    Soon,
}

impl Backends {
    /// A fold is due, with these connections. Whether it may close now.
    pub(crate) fn due(&mut self, connections: impl FnOnce() -> Vec<Connection>, now: BootNs) -> Ready {
        match self.asked {
            None if self.rest > 0 => {
                self.rest -= 1;
                Ready::Now
            }
            None => {
                let connections = connections();
                if connections.is_empty() {
                    return Ready::Now;
                }
                (self.asked, self.question) = (Some(now), Some(connections));
                Ready::Soon
            }
            Some(asked) if self.answer.is_none() && now.since(asked) < PATIENCE_NS => Ready::Soon,
            Some(_) => {
                self.rest = if self.answer.is_some() { 0 } else { REST_FOLDS };
                Ready::Now
            }
        }
    }

    /// What is to be asked, once.
    pub(crate) fn question(&mut self) -> Option<Vec<Connection>> {
        self.question.take()
    }

    /// An answer; whether a fold waits for it.
    pub(crate) fn answer(&mut self, backends: &[Backend]) -> bool {
        self.rest = 0;
        if self.asked.is_none() {
            return false;
        }
        let mut answer = FastMap::default();
        for Backend { of, backend } in backends.iter().take(MAX_ASKED) {
            answer.insert(*of, *backend);
        }
        self.answer = Some(answer);
        true
    }

    /// The fold closes: the answer, if it came.
    pub(crate) fn take(&mut self) -> Answer {
        (self.asked, self.question) = (None, None);
        Answer(self.answer.take().unwrap_or_default())
    }
}

/// What one look told.
#[derive(Debug, Default)]
pub(crate) struct Answer(FastMap<Connection, SocketAddr>);

impl Answer {
    /// The one backend of all these connections; `None`: of one of them it is not known, or they have several.
    pub(crate) fn of(&self, connections: impl Iterator<Item = Connection>) -> Option<ActualPeer> {
        let mut all = None;
        for connection in connections {
            let backend = *self.0.get(&connection)?;
            if *all.get_or_insert(backend) != backend {
                return None;
            }
        }
        all.map(|backend| ActualPeer { ip: backend.ip().to_canonical(), port: backend.port() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(port: u16) -> Connection {
        Connection {
            protocol: Protocol::Tcp,
            local: SocketAddr::new("10.0.0.1".parse().unwrap(), port),
            remote: "172.20.0.9:80".parse().unwrap(),
        }
    }

    fn backend(port: u16, backend: &str) -> Backend {
        Backend { of: connection(port), backend: backend.parse().unwrap() }
    }

    #[test]
    fn only_one_backend_of_all_connections_is_told() {
        let mut backends = Backends::default();
        assert_eq!(backends.due(|| vec![connection(1)], BootNs(1)), Ready::Soon);
        let told = [backend(1, "10.0.1.1:8080"), backend(2, "10.0.1.1:8080"), backend(3, "10.0.1.2:8080")];
        assert!(backends.answer(&told));
        assert_eq!(backends.due(Vec::new, BootNs(2)), Ready::Now);
        let answer = backends.take();
        let of = |ports: &[u16]| answer.of(ports.iter().map(|port| connection(*port)));
        assert_eq!(of(&[1, 2]), Some(ActualPeer { ip: "10.0.1.1".parse().unwrap(), port: 8_080 }));
        assert_eq!(of(&[1, 3]), None, "two backends");
        assert_eq!(of(&[1, 4]), None, "one is not known");
        assert_eq!(of(&[]), None);
        assert_eq!(backends.take().of([connection(1)].into_iter()), None, "an answer holds for one fold");
    }

    #[test]
    fn nobody_waits_for_nobody() {
        let mut backends = Backends::default();
        let second = 1_000_000_000;
        assert_eq!(backends.due(Vec::new, BootNs(0)), Ready::Now, "nothing to ask");
        assert_eq!(backends.due(|| vec![connection(1)], BootNs(second)), Ready::Soon);
        assert_eq!(backends.question().map(|asked| asked.len()), Some(1));
        assert_eq!(backends.question(), None, "asked once");
        assert_eq!(backends.due(Vec::new, BootNs(2 * second)), Ready::Now);
        backends.take();
        for _ in 0..REST_FOLDS {
            assert_eq!(backends.due(|| vec![connection(1)], BootNs(3 * second)), Ready::Now);
        }
        assert_eq!(backends.due(|| vec![connection(1)], BootNs(4 * second)), Ready::Soon);
        // Late, and the fold is closed: the next one asks anew.
        backends.due(Vec::new, BootNs(6 * second));
        backends.take();
        assert!(!backends.answer(&[backend(1, "10.0.1.1:80")]));
        assert_eq!(backends.due(|| vec![connection(1)], BootNs(7 * second)), Ready::Soon);
    }
}
