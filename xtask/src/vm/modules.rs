//! Which module files a kernel needs for some features, in the order in which they must be loaded.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};

/// What the tests use of the kernel beyond what is built into it. Autoloading is not packed: a list that is loaded whole
/// fails at once, by name, instead of somewhere in a test.
pub(super) const WANTED: [&str; 20] = [
    // Networks of the tests.
    "veth",
    "bridge",
    "dummy",
    "macvlan",
    // Raw sockets below IP, which bypass the cgroup hooks.
    "af_packet",
    // Dropping, refusing and translating packets.
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_limit",
    // Delay and loss.
    "sch_netem",
    "sch_ingress",
    "sch_fq",
    // Sockets by netlink.
    "tcp_diag",
    "udp_diag",
];

/// Module files for the wanted features with all that they depend on, dependencies first.
///
/// `dep` is the text of `modules.dep` (a line `file: file …` for each module), `builtin` that of `modules.builtin`.
pub(super) fn load_order(wanted: &[&str], dep: &str, builtin: &str) -> Result<Vec<String>> {
    let mut modules = HashMap::new();
    for line in dep.lines() {
        if let Some((file, needs)) = line.split_once(':') {
            modules.insert(name(file), (file, needs));
        }
    }
    let builtin: HashSet<_> = builtin.lines().map(name).collect();
    let mut order = Vec::new();
    for feature in wanted {
        match modules.get(*feature) {
            // modules.dep names all dependencies, the last loaded first.
            Some((file, needs)) => {
                for file in needs.split_whitespace().rev().chain([*file]) {
                    if !order.iter().any(|present| present == file) {
                        order.push(file.to_owned());
                    }
                }
            }
            None if builtin.contains(*feature) => {}
            None => bail!("the kernel has no module {feature}, neither as a file nor built in"),
        }
    }
    Ok(order)
}

/// `veth` of `kernel/drivers/net/veth.ko.xz`.
fn name(file: &str) -> &str {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split_once(".ko").map_or(file, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n\
                       kernel/net/802/stp.ko: kernel/net/llc/llc.ko\nkernel/net/llc/llc.ko:\n\
                       kernel/drivers/net/veth.ko.xz:\n";

    #[test]
    fn dependencies_come_first_and_once() {
        let order = load_order(&["bridge", "veth", "llc"], DEP, "").unwrap();
        let expected = [
            "kernel/net/llc/llc.ko",
            "kernel/net/802/stp.ko",
            "kernel/net/bridge/bridge.ko",
            "kernel/drivers/net/veth.ko.xz",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        assert!(load_order(&["ipv6"], DEP, "kernel/net/ipv6/ipv6.ko\n").unwrap().is_empty());
    }

    #[test]
    fn a_feature_that_the_kernel_lacks_is_named() {
        let error = load_order(&["nf_tables"], DEP, "").unwrap_err().to_string();
        assert!(error.contains("nf_tables"), "{error}");
    }
}
