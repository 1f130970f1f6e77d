//! What `sekisho doctor` says of the server that shows metrics beyond loopback.

use std::fmt::Write as _;

use super::{Finding, Verdict};
use crate::api::protocol::SecureStatus;

/// It degrades while its certificate cannot be renewed. Whoever is refused is no trouble of the agent's.
pub(super) fn finding(status: SecureStatus) -> Finding {
    let SecureStatus { address, tls, failing, requests } = status;
    let mut text = format!("on {address} by TLS, with {tls}");
    let some: Vec<_> = requests.iter().filter(|(_, count)| **count > 0).collect();
    if some.is_empty() {
        text.push_str("; nobody asked yet");
    }
    for (end, count) in some {
        // Writing to a string does not fail.
        let _ = write!(text, "; {count} {}", end.replace('_', " "));
    }
    let (state, cure) = match &failing {
        None => (Verdict::Ok, None),
        Some(why) => {
            text = format!("{text}; the files hold none that can be used: {why}");
            (
                Verdict::Degraded,
                Some(
                    "put a certificate and its key where metrics.tls_cert_file and metrics.tls_key_file say".to_owned(),
                ),
            )
        }
    };
    Finding { name: "metrics".to_owned(), state, text, cure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_renewed_degrades_and_refusals_do_not() {
        let status = SecureStatus {
            address: "10.0.0.1:9847".to_owned(),
            tls: "certificate of /tls/tls.crt".to_owned(),
            failing: None,
            requests: [("served".to_owned(), 3), ("forbidden".to_owned(), 1), ("turned_away".to_owned(), 0)].into(),
        };
        let Finding { state, text, cure, .. } = finding(status.clone());
        assert_eq!((state, cure), (Verdict::Ok, None));
        assert_eq!(text, "on 10.0.0.1:9847 by TLS, with certificate of /tls/tls.crt; 1 forbidden; 3 served");
        let Finding { state, text, cure, .. } = finding(SecureStatus { failing: Some("no key".to_owned()), ..status });
        assert_eq!(state, Verdict::Degraded);
        assert!(text.ends_with("none that can be used: no key") && cure.is_some(), "{text}");
    }
}
