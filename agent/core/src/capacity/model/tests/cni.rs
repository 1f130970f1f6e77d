//! What the VPC CNI's own pod and its pool tell.

use super::nodes::line;
use super::*;
use crate::capacity::CniEnvironment;

/// The CNI's pod, with these settings in its environment.
fn aws_node(settings: IpamSettings, partial: bool) -> PodFacts {
    PodFacts { cni: Some(Box::new(CniEnvironment { settings, partial })), ..pod(99, 0, 0) }
}

/// Of an m5.large: where addresses end, who says so, and why the pool is as great as it is.
fn addresses(setting: &mut Setting) -> (Option<u64>, String, Option<String>) {
    let row = setting.row();
    let line = line(&row, Resource::PodIps);
    (line.limit, line.source, row.pool.expect("ipamd told").why)
}

#[test]
fn what_introspection_leaves_out_the_environment_tells() {
    let mut setting = m5_large();
    // Introspection knows nothing of MINIMUM_IP_TARGET, nor whether prefixes are on.
    setting.ipam(3, IpamSettings { warm_eni_target: Some(1), ..IpamSettings::default() });
    let (limit, source, why) = addresses(&mut setting);
    assert_eq!((limit, source.as_str()), (Some(27), "ipamd; m5.large carries 27"));
    assert!(why.is_some_and(|why| why.starts_with("WARM_ENI_TARGET=1")));
    let environment = IpamSettings { minimum_ip_target: Some(12), warm_eni_target: Some(7), ..IpamSettings::default() };
    setting.pods([aws_node(environment.clone(), true)]);
    let (limit, source, why) = addresses(&mut setting);
    assert_eq!(limit, Some(12), "without WARM_IP_TARGET nothing asks for more");
    assert_eq!(source, "ipamd and aws-node's environment; m5.large carries 12");
    assert_eq!(
        why.as_deref(),
        Some(
            "WARM_IP_TARGET=0 MINIMUM_IP_TARGET=12 (aws-node's environment); and pods that came and went left what others still hold on to"
        )
    );
    setting.pods([aws_node(IpamSettings { prefix_delegation: true, ..environment }, true)]);
    assert_eq!(line(&setting.row(), Resource::IpPrefixes).limit, Some(27));
    // What both tell introspection tells.
    setting.ipam(3, IpamSettings { minimum_ip_target: Some(20), ..IpamSettings::default() });
    setting.pods([aws_node(IpamSettings { minimum_ip_target: Some(12), ..IpamSettings::default() }, false)]);
    assert_eq!(addresses(&mut setting).0, Some(20));
}

#[test]
fn without_introspection_the_environment_counts_where_it_is_whole() {
    let mut setting = m5_large();
    let silent = |setting: &mut Setting| {
        let facts = IpamFacts { total: Some(18), assigned: Some(3), ..IpamFacts::default() };
        setting.host(HostFact::Ipam(Box::new(facts)));
    };
    let environment = IpamSettings { max_eni: Some(2), ..IpamSettings::default() };
    silent(&mut setting);
    assert_eq!(addresses(&mut setting), (None, "ipamd".to_owned(), None));
    setting.pods([aws_node(environment.clone(), true)]);
    assert_eq!(addresses(&mut setting).0, None, "some setting may come from elsewhere");
    setting.pods([aws_node(environment.clone(), false)]);
    let (limit, source, why) = addresses(&mut setting);
    assert_eq!((limit, source.as_str()), (Some(18), "ipamd; aws-node's environment; m5.large carries 18"));
    assert!(why.is_some_and(|why| why.contains("(aws-node's environment)")));
    // One that has ended says nothing.
    let ended = PodFacts { phase: Some(Phase::Failed), ..aws_node(environment, false) };
    setting.pods([ended]);
    assert_eq!(addresses(&mut setting).0, None);
}

#[test]
fn of_two_cni_pods_the_younger_counts() {
    let mut setting = m5_large();
    setting.ipam(3, IpamSettings::default());
    let at = |created, minimum, index| PodFacts {
        created: Some(WallNs(created)),
        uid: Some(Arc::from(format!("cni-{index}"))),
        ..aws_node(IpamSettings { minimum_ip_target: Some(minimum), ..IpamSettings::default() }, false)
    };
    setting.pods([at(2, 20, 0), at(1, 10, 1)]);
    assert_eq!(addresses(&mut setting).0, Some(20));
}

#[test]
fn with_ipv6_no_address_runs_out_and_the_output_says_so() {
    let mut setting = m5_large();
    setting.pods([pod(1, 0, 0)]);
    setting.ipam(3, IpamSettings { ipv6: true, prefix_delegation: true, ..IpamSettings::default() });
    let row = setting.row();
    let addresses = line(&row, Resource::PodIps);
    assert_eq!((addresses.used, addresses.limit, addresses.headroom), (Some(3), None, None));
    assert!(addresses.source.contains("does not run out"), "{}", addresses.source);
    assert_eq!((row.pods_fit, row.binding_resource), (Some(28), Some(Resource::Pods)));
    let pool = row.pool.expect("ipamd told");
    assert_eq!((pool.ipv6, pool.addresses_held, pool.assigned, pool.free), (true, None, 3, None));
    assert!(pool.why.is_some_and(|why| why.contains("max-pods binds")) && pool.recommended.is_none());
    assert!(row.resources.iter().all(|row| row.resource != Resource::IpPrefixes));
}

/// How many places interfaces take nobody knows as long as nobody sees them; where they take none that does not matter.
#[test]
fn volumes_end_where_the_type_says_unless_interfaces_that_nobody_sees_share_the_places() {
    let limit = |name: &str| {
        let mut setting = Setting::default();
        setting.second();
        setting.host(HostFact::InstanceType { name: Arc::from(name), source: Arc::from("DMI") });
        let row = setting.row();
        row.resources.iter().find(|row| row.resource == Resource::EbsVolumes).and_then(|row| row.limit)
    };
    assert_eq!((limit("m5.large"), limit("c7a.large")), (None, Some(31)));
}

#[test]
fn address_translation_is_told_by_ipamd_or_by_an_environment_that_is_whole() {
    let mut setting = m5_large();
    assert_eq!(setting.capacity.external_snat(), None);
    let external = |external_snat| IpamSettings { external_snat, ..IpamSettings::default() };
    setting.pods([aws_node(external(None), true)]);
    assert_eq!(setting.capacity.external_snat(), None, "a part of the environment is not known");
    setting.pods([aws_node(external(None), false)]);
    assert_eq!(setting.capacity.external_snat(), Some(false), "unset is off");
    setting.pods([aws_node(external(Some(true)), true)]);
    assert_eq!(setting.capacity.external_snat(), Some(true));
    setting.ipam(3, external(Some(false)));
    assert_eq!(setting.capacity.external_snat(), Some(false), "ipamd's word counts");
}
