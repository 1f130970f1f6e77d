//! Kubernetes' API server and etcd, which the cluster tests run.

use anyhow::Result;

use super::Need;
use crate::kube::build;

pub(super) fn missing(needs: &[Need]) -> Option<String> {
    let wanted = needs.contains(&Need::Cluster) && !build::is_built();
    wanted.then(|| format!("Kubernetes {} (takes some five minutes)", build::VERSION))
}

pub(super) fn install(_: &[Need]) -> Result<()> {
    build::build()
}
