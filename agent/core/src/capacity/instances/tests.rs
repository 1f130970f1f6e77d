//! The table against figures that AWS publishes.

use super::*;

#[test]
fn the_table_is_sorted_small_and_whole() {
    let names: Vec<_> = instance_types().map(|found| found.name).collect();
    assert_eq!(names.len(), 1_401);
    assert!(names.is_sorted_by(|a, b| a < b));
    assert!(names.iter().all(|name| instance_type(name).is_some_and(|found| found.name == *name)));
    assert!(size_of_val(&table::ROWS) < 100 << 10, "{}", size_of_val(&table::ROWS));
}

#[test]
fn interfaces_and_branches_are_the_published_ones() {
    // Name, interfaces of the default card and of all, addresses an interface, branch interfaces: limits.go of the VPC
    // resource controller and of Karpenter.
    for (name, interfaces, total, ipv4, branches) in [
        ("m5.large", 3, 3, 10, 9),
        ("m5.xlarge", 4, 4, 15, 18),
        ("m6i.large", 3, 3, 10, 9),
        ("c7g.xlarge", 4, 4, 15, 18),
        ("m6g.medium", 2, 2, 4, 4),
        ("g5.xlarge", 4, 4, 15, 4),
        ("m7i.48xlarge", 15, 15, 50, 107),
        ("p5.48xlarge", 2, 64, 50, 120),
        ("p4d.24xlarge", 15, 60, 50, 62),
        ("t3.medium", 3, 3, 6, 0),
        ("a1.2xlarge", 4, 4, 15, 38),
    ] {
        let found = instance_type(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            (found.interfaces, found.interfaces_total, found.ipv4_per_interface, found.branch_interfaces),
            (interfaces, total, ipv4, branches),
            "{name}"
        );
    }
    let with_trunk = instance_types().filter(|found| found.branch_interfaces > 0);
    assert_eq!(with_trunk.count(), 1_298);
    assert_eq!(instance_types().map(|found| found.branch_interfaces).max(), Some(120));
    assert_eq!(instance_types().filter(|found| found.hypervisor == Hypervisor::Xen).count(), 80);
    assert_eq!(instance_types().filter(|found| found.hypervisor == Hypervisor::Metal).count(), 153);
}

#[test]
fn every_type_has_the_figures_that_nobody_may_lack() {
    for found in instance_types() {
        assert!(found.interfaces >= 1 && found.interfaces <= found.interfaces_total, "{found:?}");
        assert!(found.ipv4_per_interface >= 2 && found.network_cards >= 1, "{found:?}");
        assert!(found.volumes.attachments >= 1, "{found:?}");
        assert!(found.network_peak_mbps >= found.network_mbps || found.network_peak_mbps.is_none(), "{found:?}");
    }
}

#[test]
fn what_the_sources_leave_out_is_not_zero() {
    let bare = instance_type("f1.2xlarge").expect("in the table");
    assert_eq!((bare.vcpus, bare.memory_mib, bare.network_mbps, bare.ebs_iops), (None, None, None, None));
    assert_eq!(bare.volumes, VolumeLimit::DEFAULT);
    let known = instance_type("m5.large").expect("in the table");
    assert_eq!((known.vcpus, known.memory_mib, known.network_mbps), (Some(2), Some(8_192), Some(750)));
    assert_eq!(known.conntrack_tcp_s, Some(432_000));
    assert_eq!(known.volumes, VolumeLimit::DEFAULT);
}

#[test]
fn volumes_share_places_with_interfaces_only_where_they_do() {
    let shared = instance_type("m5.large").expect("in the table").volumes;
    assert_eq!((shared.slots(1), shared.slots(3)), (26, 24));
    let dedicated = instance_type("c7a.large").expect("in the table").volumes;
    assert_eq!((dedicated.slots(1), dedicated.slots(3)), (31, 31));
    assert_eq!(instance_type("c7a.48xlarge").expect("in the table").volumes.attachments, 128);
    assert_eq!(instance_type("m5.metal").expect("in the table").volumes, VolumeLimit { attachments: 31, shared: true });
    // Never less than one, as the driver reports.
    assert_eq!(VolumeLimit { attachments: 3, shared: true }.slots(15), 1);
    assert_eq!(VolumeLimit { attachments: 0, shared: true }.slots(0), 1);
}

#[test]
fn unknown_names_have_neighbours() {
    for unknown in ["", "m5", "M5.LARGE", "m5.large ", "zz9.plural"] {
        assert_eq!(instance_type(unknown), None);
    }
    assert_eq!(nearest("M5.Large", 1), ["m5.large"]);
    assert_eq!(nearest("m5large", 1), ["m5.large"]);
    assert_eq!(nearest("c7gxlarge", 1), ["c7g.xlarge"]);
    assert!(nearest("", 3).is_empty());
    assert!(nearest("something else entirely", 3).is_empty());
    assert!(nearest(&"m5.large".repeat(100_000), 3).is_empty());
}
