//! Local ports of a row's connections to an address that the node translates: by them it is asked into what.

use crate::fast::FastMap;

/// Most ports kept of all rows of a fold, at about 32 bytes with the room of the tables: 1 MiB. Rows with more are not
/// complete.
pub(super) const MAX_PORTS: usize = 32_768;

/// No socket's cookie: several used the port.
pub(super) const MANY: u64 = u64::MAX;

/// See the module's text. `None` of a row: its peer is not translated, as far as is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    /// And the socket's cookie.
    sockets: FastMap<u16, u64>,
    /// Some connection is not among them, or a port was used twice: the first translation is not known any more.
    incomplete: bool,
}

impl Ports {
    /// Notes a connection; `room` is what may still be kept of all rows together.
    pub(super) fn note(&mut self, port: u16, cookie: u64, room: &mut usize) {
        match self.sockets.get_mut(&port) {
            Some(known) if *known != cookie => (*known, self.incomplete) = (MANY, true),
            Some(_) => {}
            None if *room > 0 && port != 0 => {
                *room -= 1;
                self.sockets.insert(port, cookie);
            }
            None => self.incomplete = true,
        }
    }

    /// Takes in those of another row.
    pub(super) fn absorb(&mut self, more: Self) {
        self.incomplete |= more.incomplete;
        for (port, cookie) in more.sockets {
            match self.sockets.get_mut(&port) {
                Some(known) if *known != cookie => (*known, self.incomplete) = (MANY, true),
                Some(_) => {}
                None => {
                    self.sockets.insert(port, cookie);
                }
            }
        }
    }

    /// Those that are known, with their sockets' cookies: [`MANY`] of a port that several used.
    pub(super) fn known(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.sockets.iter().map(|(port, cookie)| (*port, *cookie))
    }

    /// All of them; `None`: some are missing.
    pub(super) fn all(&self) -> Option<impl Iterator<Item = (u16, u64)> + '_> {
        (!self.incomplete).then(|| self.known())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ports: &Ports) -> Option<Vec<u16>> {
        let mut all: Vec<_> = ports.all()?.map(|(port, _)| port).collect();
        all.sort_unstable();
        Some(all)
    }

    #[test]
    fn a_port_that_another_socket_uses_makes_them_incomplete() {
        let (mut ports, mut room) = (Ports::default(), 10);
        ports.note(1, 7, &mut room);
        ports.note(1, 7, &mut room);
        ports.note(2, 8, &mut room);
        assert_eq!((all(&ports), room), (Some(vec![1, 2]), 8));
        ports.note(2, 9, &mut room);
        assert_eq!(all(&ports), None);
    }

    #[test]
    fn what_does_not_fit_is_missed() {
        let (mut ports, mut room) = (Ports::default(), 1);
        ports.note(1, 7, &mut room);
        assert_eq!(all(&ports), Some(vec![1]));
        ports.note(2, 8, &mut room);
        assert_eq!(all(&ports), None);
        let mut unknown = Ports::default();
        unknown.note(0, 7, &mut 1);
        assert_eq!(all(&unknown), None);
    }

    #[test]
    fn rows_that_become_one_have_the_ports_of_both() {
        let row = |ports: &[(u16, u64)]| {
            let mut row = Ports::default();
            for (port, cookie) in ports {
                row.note(*port, *cookie, &mut 9);
            }
            row
        };
        let mut one = row(&[(1, 7)]);
        one.absorb(row(&[(2, 8), (1, 7)]));
        assert_eq!(all(&one), Some(vec![1, 2]));
        one.absorb(row(&[(2, 9)]));
        assert_eq!(all(&one), None);
    }
}
