//! Messages that lie.

use super::*;

#[test]
fn names_that_point_at_themselves_and_at_each_other_end() {
    for pointers in [[0xc0, 12, 0xc0, 12], [0xc0, 14, 0xc0, 12], [0xff, 0xff, 0xff, 0xff], [1, b'a', 0xc0, 12]] {
        let head = [7_u16, 0x8180, 1, 1, 0, 0].map(u16::to_be_bytes).concat();
        let bytes = [&head[..], &pointers, &[0, 1, 0, 1], &[0; 64]].concat();
        let read = parse(&bytes, true);
        assert!(read.is_none_or(|read| read.answer.is_some_and(|answer| answer.addresses.is_empty())), "{pointers:?}");
    }
    // Aliases in a circle.
    let answers =
        [alias("a.example", 5, "b.example"), alias("b.example", 5, "a.example"), a("c.example", 5, [1, 2, 3, 4])];
    let read = parse(&message(0x8180, ("a.example", A), &answers), true).and_then(|read| read.answer);
    assert_eq!(read.expect("an answer").addresses, []);
}

#[test]
fn lengths_and_counts_that_lie_give_nothing_beyond_the_bytes() {
    let honest = message(0x8180, ("a.example", A), &[a("a.example", 5, [1, 2, 3, 4])]);
    let mut many = honest.clone();
    many[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
    let read = parse(&many, true).and_then(|read| read.answer).expect("an answer");
    assert_eq!(read.addresses, [(ip("1.2.3.4"), 5)]);
    let mut long = honest.clone();
    let at = long.len() - 6;
    long[at..at + 2].copy_from_slice(&u16::MAX.to_be_bytes());
    let read = parse(&long, true).and_then(|read| read.answer).expect("an answer");
    assert_eq!(read.addresses, []);
    let mut short = honest;
    short[at..at + 2].copy_from_slice(&3_u16.to_be_bytes());
    let read = parse(&short, true).and_then(|read| read.answer).expect("an answer");
    assert_eq!(read.addresses, []);
}

#[test]
fn the_longest_message_is_read_within_bounds() {
    // 64 KiB of records, each with a name of pointers as deep as they may be.
    let mut bytes = message(0x8180, ("x.example", A), &[]);
    bytes[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut last = 12_u16;
    while bytes.len() < 60_000 {
        let at = u16::try_from(bytes.len()).expect("a datagram");
        let owner =
            if last < 0x3f00 { [&[1, b'l'][..], &(0xc000 | last).to_be_bytes()].concat() } else { vec![0xc0, 12] };
        bytes.extend(record(&owner, A, 5, &[10, 0, 0, 1]));
        last = at;
    }
    bytes.resize(u16::MAX.into(), 0xc0);
    let read = parse(&bytes, true).expect("an answer");
    assert!(read.answer.expect("an answer").addresses.len() <= MAX_RECORDS);
}
