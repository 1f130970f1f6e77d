//! The books' two sides, and what an imbalance looks like.

use agent_ebpf::shared::{FATES as KERNEL_FATES, KINDS};
use proptest::prelude::*;

use super::*;
use crate::continuity::{KernelMark, Place};

fn totals(counts: &[(Kind, [u64; KERNEL_FATES])]) -> KernelTotals {
    let mut records = [[0; KERNEL_FATES]; KINDS];
    for (kind, fates) in counts {
        records[kind.index()] = *fates;
    }
    KernelTotals { records, ..KernelTotals::default() }
}

fn assert_balanced(books: &Books) {
    assert_eq!(books.imbalance(), None);
    for (ledger, line) in books.lines() {
        assert_eq!(line.seen, line.accounted(), "{ledger:?} {line:?}");
    }
}

#[test]
fn ledgers_and_fates_stand_in_the_order_of_their_numbers() {
    assert!(Ledger::ALL.iter().enumerate().all(|(at, ledger)| *ledger as usize == at));
    assert!(Fate::ALL.iter().enumerate().all(|(at, fate)| *fate as usize == at));
    assert_eq!(Kind::ALL.iter().map(|kind| Ledger::of(*kind)).max(), Some(Ledger::Dns));
    assert!(Kind::ALL.iter().enumerate().all(|(at, kind)| kind.index() == at));
}

#[test]
fn pending_is_what_is_between_seen_and_ended() {
    let mut books = Books::default();
    // 20 seen: 10 written, 4 merged, 3 suppressed, 2 lost, 1 still in a probe. Two kinds share a ledger.
    let lost = books.kernel(&totals(&[(Kind::TcpEnd, [15, 10, 4, 0, 0]), (Kind::TcpOpen, [5, 0, 0, 3, 2])]));
    assert_eq!(lost, BTreeMap::from([("tcp", 2)]));
    let line = books.line(Ledger::Tcp);
    assert_eq!((line.seen, line.pending), (20, 11));
    assert_eq!((line.fate(Fate::Merged), line.fate(Fate::Suppressed), line.fate(Fate::LostRing)), (4, 3, 2));
    assert_balanced(&books);
    books.held(Ledger::Tcp);
    books.held(Ledger::Tcp);
    books.refused(Some(Kind::TcpEnd));
    books.lost_queue(Ledger::Tcp, 1);
    assert_eq!(books.line(Ledger::Tcp).pending, 9, "seven in the ring or a probe, two held");
    books.folded(Ledger::Tcp, 1, false);
    books.folded(Ledger::Tcp, 1, true);
    books.lost_store(Ledger::Tcp, 1);
    let line = books.line(Ledger::Tcp);
    assert_eq!((line.seen, line.pending, line.fate(Fate::Merged), line.fate(Fate::LostStore)), (20, 7, 5, 1));
    assert_eq!((line.fate(Fate::LostDecode), line.fate(Fate::LostQueue), line.fate(Fate::Aggregated)), (1, 1, 0));
    assert_balanced(&books);
    assert_eq!(books.kernel(&totals(&[(Kind::TcpEnd, [20, 15, 4, 3, 2])])), BTreeMap::new(), "told once");
}

#[test]
fn what_was_merged_to_spare_cpu_is_sampled() {
    let mut books = Books::default();
    let reading = totals(&[(Kind::TcpEnd, [9, 2, 7, 0, 0]), (Kind::UdpEnd, [4, 1, 3, 0, 0])]);
    books.kernel(&KernelTotals { sampled_tcp: 5, sampled_udp: 3, ..reading });
    let fates = |books: &Books, ledger| {
        let line = books.line(ledger);
        (line.fate(Fate::Sampled), line.fate(Fate::Merged), line.pending)
    };
    assert_eq!((fates(&books, Ledger::Tcp), fates(&books, Ledger::Udp)), ((5, 2, 2), (3, 0, 1)));
    assert_balanced(&books);
    // Counted behind the fate, and read one by one.
    let torn = totals(&[(Kind::TcpEnd, [9, 2, 7, 0, 0]), (Kind::UdpEnd, [4, 1, 3, 0, 0])]);
    books.kernel(&KernelTotals { sampled_tcp: 8, sampled_udp: 3, ..torn });
    assert_eq!(fates(&books, Ledger::Tcp), (7, 0, 2));
    assert_balanced(&books);
}

#[test]
fn records_received_since_the_totals_were_read_were_seen() {
    let mut books = Books::default();
    books.kernel(&totals(&[(Kind::Exec, [3, 1, 0, 1, 1])]));
    for _ in 0..4 {
        books.held(Ledger::Process);
        books.stored(Ledger::Process);
    }
    let line = books.line(Ledger::Process);
    assert_eq!((line.seen, line.pending, line.fate(Fate::Stored)), (6, 0, 4));
    assert_balanced(&books);
}

#[test]
fn a_record_received_that_was_never_written_is_an_imbalance() {
    let mut books = Books::default();
    books.aggregated(Ledger::Process, 2);
    let reading = totals(&[(Kind::Exec, [1, 1, 0, 0, 0])]);
    books.kernel(&reading);
    assert_eq!(books.imbalance(), None, "this reading may be older than the record");
    books.kernel(&reading);
    let imbalance = books.imbalance().unwrap();
    assert_eq!((imbalance.ledger, imbalance.expected, imbalance.found), (Ledger::Process, 1, 2));
    assert_eq!(
        imbalance.to_string(),
        "books of process records do not balance: records received and written by the kernel: expected 1, found 2"
    );
}

#[test]
fn a_record_written_off_twice_is_an_imbalance() {
    let mut books = Books::default();
    books.held(Ledger::Udp);
    books.folded(Ledger::Udp, 2, false);
    assert_eq!(books.imbalance().map(|imbalance| (imbalance.expected, imbalance.found)), Some((1, 2)));
    assert_ne!(books.line(Ledger::Udp).seen, books.line(Ledger::Udp).accounted());
}

#[test]
fn more_fates_than_records_are_an_imbalance() {
    let mut books = Books::default();
    let torn = totals(&[(Kind::UdpEnd, [5, 4, 2, 0, 0])]);
    books.kernel(&torn);
    assert_balanced(&books);
    books.kernel(&totals(&[(Kind::UdpEnd, [6, 4, 2, 0, 0])]));
    assert_balanced(&books);
    books.kernel(&torn);
    let imbalance = books.imbalance().unwrap();
    assert_eq!((imbalance.expected, imbalance.found), (5, 6));
}

proptest! {
    /// Whenever totals are read, and whatever is received by then, the books balance and nothing is negative.
    #[test]
    fn books_balance_at_any_moment(steps in proptest::collection::vec((0_u8..7, 0_u64..4), 0..60)) {
        let mut books = Books::default();
        let mut kernel = [0_u64; KERNEL_FATES];
        let (mut received, mut held) = (0, 0);
        for (step, n) in steps {
            match step {
                0 => { kernel[0] += n; kernel[1] += n; }
                1 => { kernel[0] += n; kernel[2] += n; }
                2 => { kernel[0] += n; kernel[3] += n; }
                3 => kernel[0] += n,
                4 => { books.kernel(&totals(&[(Kind::TcpEnd, kernel)])); }
                5 if received + n <= kernel[1] => {
                    (0..n).for_each(|_| books.held(Ledger::Tcp));
                    received += n;
                    held += n;
                }
                6 if n <= held => { books.folded(Ledger::Tcp, n, n.is_multiple_of(2)); held -= n; }
                _ => {}
            }
            assert_balanced(&books);
        }
        books.kernel(&totals(&[(Kind::TcpEnd, kernel)]));
        let line = books.line(Ledger::Tcp);
        prop_assert_eq!(line.seen, kernel[0]);
        prop_assert_eq!(line.pending, kernel[0] - kernel[1] - kernel[2] - kernel[3] + (kernel[1] - received) + held);
    }
}

#[test]
fn books_begin_where_an_earlier_run_ended() {
    let mark = KernelMark { told: at(Ledger::Tcp, 3), settled: at(Ledger::Tcp, 40), ..KernelMark::default() };
    // 60 written, of which 50 were taken out and 40 reached the history; 5 not written, of which 3 were told.
    let then = totals(&[(Kind::TcpEnd, [65, 60, 5, 0, 0])]);
    let mut consumed = [0; KINDS];
    consumed[Kind::TcpEnd.index()] = 50;
    let adopted = Adopted { pins: 1, consumed, totals: then.clone(), mark: Some(mark), replaced: None };
    assert_eq!(adopted.lost(), Some(at(Ledger::Tcp, 12)));
    assert_eq!(adopted.settled_before(), at(Ledger::Tcp, 50));
    let mut books = Books::default();
    books.adopt(&adopted);
    assert_balanced(&books);
    assert_eq!(books.kernel(&then), BTreeMap::new(), "the gap of the start tells of the loss");
    let line = books.line(Ledger::Tcp);
    assert_eq!((line.seen, line.pending), (22, 10), "ten in the ring, twelve lost");
    assert_eq!((line.fate(Fate::LostQueue), line.fate(Fate::LostRing), line.fate(Fate::Merged)), (10, 2, 0));
    for _ in 0..10 {
        books.held(Ledger::Tcp);
    }
    books.folded(Ledger::Tcp, 10, false);
    books.kernel(&totals(&[(Kind::TcpEnd, [68, 61, 6, 0, 1])]));
    let line = books.line(Ledger::Tcp);
    assert_eq!((line.seen, line.pending, line.fate(Fate::Merged), line.fate(Fate::LostRing)), (25, 1, 1, 3));
    assert_balanced(&books);
    assert_eq!(books.told_at_once()[0] + books.merged_by_kernel()[0], 7, "all that the kernel did not write");
}

#[test]
fn books_take_in_what_replaced_programs_left() {
    let mark = KernelMark { settled: at(Ledger::Tcp, 50), ..KernelMark::default() };
    let mut consumed = [0; KINDS];
    consumed[Kind::TcpEnd.index()] = 50;
    let then = totals(&[(Kind::TcpEnd, [62, 60, 0, 0, 2])]);
    let replaced = Some((crate::time::BootNs(1), crate::time::BootNs(2)));
    let adopted = Adopted { pins: 1, consumed, totals: then, mark: Some(mark), replaced };
    assert_eq!(adopted.lost(), Some(at(Ledger::Tcp, 2)));
    assert_eq!(adopted.settled_before()[0].wrapping_add(10), 0);
    let mut books = Books::default();
    books.adopt(&adopted);
    for _ in 0..10 {
        books.held(Ledger::Tcp);
    }
    books.kernel(&totals(&[]));
    assert_balanced(&books);
    books.folded(Ledger::Tcp, 10, false);
    // The counters of the new programs.
    books.kernel(&totals(&[(Kind::TcpEnd, [4, 4, 0, 0, 0])]));
    let line = books.line(Ledger::Tcp);
    assert_eq!((line.seen, line.pending, line.fate(Fate::Aggregated), line.fate(Fate::LostRing)), (16, 4, 10, 2));
    assert_balanced(&books);
}

#[test]
fn requests_that_are_stored_and_still_lie_in_the_ring_are_not_read_again() {
    let place = |records| Place { position: 100 * records, records };
    let mut consumed = [0; KINDS];
    consumed[Kind::MetadataSegment.index()] = 10;
    // 30 written, ten given back; the history has what the first 24 told, or only the first eight.
    let then = totals(&[(Kind::MetadataSegment, [30, 30, 0, 0, 0])]);
    for (stored, pending, lost) in [(24, 6, 0), (8, 20, 2)] {
        let mark = Some(KernelMark { metadata: place(stored), ..KernelMark::default() });
        for replaced in [None, Some((crate::time::BootNs(1), crate::time::BootNs(2)))] {
            let adopted = Adopted { pins: 1, consumed, totals: then.clone(), mark, replaced };
            assert_eq!(adopted.lost(), Some(at(Ledger::Metadata, lost)));
            let mut books = Books::default();
            books.adopt(&adopted);
            books.kernel(&if replaced.is_some() { totals(&[]) } else { then.clone() });
            let line = books.line(Ledger::Metadata);
            assert_eq!((line.pending, line.fate(Fate::LostQueue)), (pending, lost), "{stored} {replaced:?}");
            assert_balanced(&books);
        }
    }
}

#[test]
fn a_history_that_knows_nothing_of_the_rings_tells_no_loss() {
    let totals = totals(&[(Kind::TcpEnd, [9, 9, 0, 0, 0])]);
    let adopted = Adopted { pins: 1, consumed: [0; KINDS], totals, mark: None, replaced: None };
    assert_eq!(adopted.lost(), None);
    let mut books = Books::default();
    books.adopt(&adopted);
    assert_balanced(&books);
}

fn at(ledger: Ledger, records: u64) -> Losses {
    let mut losses = [0; LEDGERS];
    losses[ledger as usize] = records;
    losses
}
