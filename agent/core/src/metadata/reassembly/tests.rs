//! Segments in any order, repeated, overlapping, missing, and more than are held.

use super::*;
use crate::metadata::http::is_request;

const STREAM: &[u8] = b"GET /0123456789abcdefghijklmnopqrstuvwxyz";

fn stamp(time: u64) -> Stamp {
    Stamp { time: BootNs(time), ttl: 64 }
}

/// Text of all that is delivered: bytes as they are, gaps as `[n]`.
fn drain(reassembly: &mut Reassembly, now: u64, hurry: bool) -> String {
    let mut pieces = Vec::new();
    while let Some(piece) = reassembly.pop(BootNs(now), hurry) {
        pieces.push(match piece {
            Piece::Bytes(chunk) => String::from_utf8_lossy(chunk.bytes()).into_owned(),
            Piece::Gap(Some(bytes), _) => format!("[{bytes}]"),
            Piece::Gap(None, _) => "[?]".to_owned(),
            Piece::Early(_) => "[early]".to_owned(),
        });
    }
    pieces.concat()
}

fn push(reassembly: &mut Reassembly, base: u32, from: usize, to: usize) {
    let len = u32::try_from(to - from).expect("small");
    reassembly.push(base.wrapping_add(u32::try_from(from).expect("small")), len, &STREAM[from..to], stamp(0));
}

#[test]
fn any_order_repeated_and_overlapping_across_the_wrap() {
    for base in [0, 7, u32::MAX - 12, u32::MAX, 1 << 31] {
        let mut whole = Reassembly::new(is_request);
        let mut text = String::new();
        for (from, to) in [(0, 9), (20, 30), (5, 12), (0, 9), (12, 14), (13, 25), (28, 41), (0, 41)] {
            push(&mut whole, base, from, to);
            text.push_str(&drain(&mut whole, 0, false));
        }
        assert_eq!(text.as_bytes(), STREAM, "from {base}");
        assert_eq!(whole.held_bytes(), 0);
    }
}

#[test]
fn beginning_is_recognised_across_segments() {
    let mut whole = Reassembly::new(is_request);
    for at in [1, 2, 3, 4, 5] {
        push(&mut whole, 100, at, at + 1);
        assert_eq!(drain(&mut whole, 0, false), "", "nothing before the beginning");
    }
    push(&mut whole, 100, 0, 1);
    assert_eq!(drain(&mut whole, 0, false), "GET /0");
}

#[test]
fn holes_become_gaps_after_the_wait() {
    let mut holed = Reassembly::new(is_request);
    push(&mut holed, 0, 0, 10);
    push(&mut holed, 0, 15, 20);
    assert_eq!(drain(&mut holed, REORDER_WAIT_NS - 1, false), "GET /01234");
    assert_eq!(drain(&mut holed, REORDER_WAIT_NS, false), "[5]abcde");
    push(&mut holed, 0, 25, 30);
    assert_eq!(drain(&mut holed, 0, true), "[5]klmno");
    push(&mut holed, 0, 20, 25);
    assert_eq!(drain(&mut holed, 0, true), "", "a late segment was given up");
}

#[test]
fn what_was_not_captured_is_a_gap() {
    let mut cut = Reassembly::new(is_request);
    cut.push(0, 30, &STREAM[..10], stamp(0));
    cut.push(30, 11, &STREAM[30..], stamp(0));
    assert_eq!(drain(&mut cut, 0, false), "GET /01234[20]pqrstuvwxyz");
    cut.push(41, 5, b"", stamp(0));
    assert_eq!(drain(&mut cut, 0, false), "[5]");
}

#[test]
fn before_the_beginning_and_far_away() {
    let mut reassembly = Reassembly::new(is_request);
    push(&mut reassembly, 1000, 0, 10);
    assert_eq!(drain(&mut reassembly, 0, false), "GET /01234");
    reassembly.push(990, 5, b"early", stamp(0));
    assert_eq!(drain(&mut reassembly, 0, false), "[early]");
    reassembly.push(1 << 30, 5, b"other", stamp(0));
    assert_eq!(drain(&mut reassembly, 0, false), "[?]other");
    reassembly.push(5, 0, b"", stamp(0));
    assert_eq!(drain(&mut reassembly, 0, true), "");
}

#[test]
fn holding_is_bounded() {
    let mut holding = Reassembly::new(is_request);
    let payload = vec![b'x'; HELD_BYTES];
    holding.push(0, 100_000, &vec![b'x'; 100_000], stamp(0));
    assert_eq!(holding.held_bytes(), HELD_BYTES);
    assert!(!holding.is_full());
    holding.push(200_000, u32::try_from(HELD_BYTES).expect("small"), &payload, stamp(0));
    assert!(holding.is_full());
    drain(&mut holding, 0, true);
    assert_eq!(holding.held_bytes(), 0);
    for at in 0..=HELD_SEGMENTS {
        push(&mut holding, u32::try_from(at * 1000).expect("small") + 1_000_000, 9, 10);
    }
    assert!(holding.is_full());
}
