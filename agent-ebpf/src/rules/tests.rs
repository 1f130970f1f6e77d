//! Tables of the kernel-side rules.

use super::*;

fn end(old_state: u8, error: u32, established: bool) -> TcpEnding {
    TcpEnding { old_state, error, stale_error: 0, established, retransmitted: false }
}

#[test]
fn tells_the_outcomes_before_establishment_apart() {
    let syn = tcp_state::SYN_SENT;
    assert_eq!(tcp_outcome(end(syn, errno::ECONNREFUSED, false)), Outcome::Refused);
    assert_eq!(tcp_outcome(end(syn, errno::EHOSTUNREACH, false)), Outcome::Unreachable);
    assert_eq!(tcp_outcome(end(syn, errno::ENETUNREACH, false)), Outcome::Unreachable);
    assert_eq!(tcp_outcome(end(syn, errno::ETIMEDOUT, false)), Outcome::TimedOut);
    assert_eq!(tcp_outcome(end(syn, 0, false)), Outcome::Aborted);
    assert_eq!(tcp_outcome(TcpEnding { retransmitted: true, ..end(syn, 0, false) }), Outcome::TimedOut);
}

#[test]
fn tells_a_reset_from_an_orderly_end() {
    assert_eq!(tcp_outcome(end(tcp_state::LAST_ACK, 0, true)), Outcome::Established);
    assert_eq!(tcp_outcome(end(tcp_state::FIN_WAIT2, 0, true)), Outcome::Established);
    assert_eq!(tcp_outcome(end(tcp_state::ESTABLISHED, errno::ECONNRESET, true)), Outcome::Reset);
    assert_eq!(tcp_outcome(end(tcp_state::CLOSE_WAIT, errno::EPIPE, true)), Outcome::Reset);
    assert_eq!(tcp_outcome(end(tcp_state::ESTABLISHED, 0, true)), Outcome::Reset, "linger 0 on this side");
    assert_eq!(tcp_outcome(end(tcp_state::ESTABLISHED, errno::ETIMEDOUT, true)), Outcome::TimedOut);
}

#[test]
fn an_error_of_an_earlier_connection_is_not_this_ones() {
    let stale = TcpEnding { stale_error: errno::ECONNRESET, ..end(tcp_state::LAST_ACK, errno::ECONNRESET, true) };
    assert_eq!(tcp_outcome(stale), Outcome::Established);
    let stale = TcpEnding { stale_error: errno::ECONNRESET, ..end(tcp_state::SYN_SENT, errno::ECONNRESET, false) };
    assert_eq!(tcp_outcome(stale), Outcome::Aborted);
}

#[test]
fn knows_the_four_services_and_nothing_else() {
    assert_eq!(metadata_service(&mapped([169, 254, 169, 254]), 80), Some(Service::Imds));
    assert_eq!(metadata_service(&mapped([169, 254, 170, 23]), 80), Some(Service::PodIdentity));
    let v6: std::net::Ipv6Addr = "fd00:ec2::254".parse().expect("a literal");
    assert_eq!(metadata_service(&v6.octets(), 80), Some(Service::Imds));
    let v6: std::net::Ipv6Addr = "fd00:ec2::23".parse().expect("a literal");
    assert_eq!(metadata_service(&v6.octets(), 80), Some(Service::PodIdentity));
    assert_eq!(metadata_service(&mapped([169, 254, 169, 254]), 443), None);
    assert_eq!(metadata_service(&mapped([169, 254, 169, 253]), 80), None);
    let compatible: std::net::Ipv6Addr = "::169.254.169.254".parse().expect("a literal");
    assert_eq!(metadata_service(&compatible.octets(), 80), None);
}

#[test]
fn a_window_starts_anew_and_a_share_is_guaranteed() {
    let (word, used) = window_add(0, 5 << WINDOW_SHIFT, 100);
    assert_eq!(used, 100);
    let (word, used) = window_add(word, (5 << WINDOW_SHIFT) + 1, 50);
    assert_eq!(used, 150);
    let (_, used) = window_add(word, 6 << WINDOW_SHIFT, 7);
    assert_eq!(used, 7);
    assert!(may_write(10, 10, u64::MAX, 100), "within the share, however full");
    assert!(may_write(dns_share(10), 10, u64::MAX, 100) && dns_share(10) < 10, "queries leave room for flows");
    assert!(may_write(11, 10, 50, 100));
    assert!(!may_write(11, 10, 51, 100));
}

#[test]
fn one_in_two_to_the_power_of_the_shift_is_told() {
    for shift in 0..=7 {
        let told = (0..1_024).filter(|random| !samples_out(shift, *random)).count();
        assert_eq!(told, 1_024 >> shift, "shift {shift}");
    }
}
