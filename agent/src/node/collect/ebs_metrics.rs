//! How long volumes and the instance asked more of EBS than they may, from the metrics of the EBS CSI driver's node pod.
//! The `NVMe` command behind them takes `CAP_SYS_ADMIN`, which that pod has and this agent does not.

use agent_core::capacity::{Collector, Counter, CounterName, Scope};
use agent_core::facts::HostFact;

use super::http::{Peer, get};
use super::{Error, Look, exposition};

/// Seconds of each volume, of the volume's own limits and of the instance's.
const EXCEEDED: [&str; 4] = [
    "aws_ebs_csi_exceeded_iops_seconds_total",
    "aws_ebs_csi_exceeded_tp_seconds_total",
    "aws_ebs_csi_ec2_exceeded_iops_seconds_total",
    "aws_ebs_csi_ec2_exceeded_tp_seconds_total",
];
const MICROS: f64 = 1e6;

/// Looks at the metrics of the EBS CSI driver.
pub(super) struct EbsMetrics {
    peer: Peer,
}

// === impl EbsMetrics ===

impl EbsMetrics {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

impl Look for EbsMetrics {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let text = get(&self.peer, "/metrics")?;
        let text = String::from_utf8_lossy(&text);
        let told: Vec<f64> = EXCEEDED.iter().filter_map(|name| exposition::sum(&text, name)).collect();
        if told.is_empty() {
            let why = format!("none of {} and its like is there", EXCEEDED[0]);
            return Err(Error::Malformed { what: self.peer.to_string(), why });
        }
        let micros = told.iter().sum::<f64>() * MICROS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
        let value = micros.max(0.0) as u64;
        let counter = Counter { name: CounterName::EbsExceededMicros, scope: Scope::Node, value };
        facts.push(HostFact::Counters { collector: Collector::EbsMetrics, counters: vec![counter] });
        Ok(())
    }
}
