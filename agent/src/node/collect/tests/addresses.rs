//! ipamd in all its shapes, the EBS CSI driver's metrics, the kubelet, the instance's type. Servers are the test's own, on
//! loopback.

use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixListener;

use agent_core::capacity::IpamFacts;

use super::*;
use crate::config::Endpoint;
use crate::node::collect::http::Peer;
use crate::node::collect::{ebs_metrics, instance_type, ipam, kubelet};

/// Answers each path with a page, until the test ends; a path that it does not know gets a 404. `PUT` gets a token.
fn answer(mut stream: impl std::io::Read + std::io::Write, pages: &[(&str, String)]) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, page) = match pages.iter().find(|(known, _)| *known == path) {
        _ if path == "/latest/meta-data/instance-type" && !head.contains("x-aws-ec2-metadata-token: t0ken") => {
            (401, "")
        }
        Some((_, page)) => (200, page.as_str()),
        None => (404, ""),
    };
    // Whoever asked may have gone.
    let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}", page.len());
}

pub(super) fn serve(pages: &[(&'static str, &str)]) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let pages: Vec<(&str, String)> = pages.iter().map(|(path, page)| (*path, (*page).to_owned())).collect();
    // Ends with the test's process: nobody waits for it.
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, &pages)));
    Peer::new(&Endpoint::Tcp(address), "the server")
}

/// An address at which nobody listens.
pub(super) fn nobody() -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    Peer::new(&Endpoint::Tcp(listener.local_addr().expect("an address")), "nobody")
}

fn told(look: &mut impl Look) -> (Option<IpamFacts>, Option<String>, bool) {
    let mut facts = Vec::new();
    let result = look.look(&mut facts);
    let absent = result.as_ref().is_err_and(Error::is_absent);
    let ipam = facts.into_iter().find_map(|fact| match fact {
        HostFact::Ipam(facts) => Some(*facts),
        _ => None,
    });
    (ipam, result.err().map(|error| error.chain()), absent)
}

const CHECKPOINT: &str = r#"{"version":"vpc-cni-ipam/1","allocations":[
 {"networkName":"aws-cni","containerID":"s1","ifName":"eth0","ipv4":"10.0.1.7","ipv6":"",
  "allocationTimestamp":1700000000000000000,"metadata":{"k8sPodNamespace":"shop","k8sPodName":"cart-0","interfacesCount":1}},
 {"networkName":"aws-cni","containerID":"s2","ifName":"eth0","ipv4":"","ipv6":"2600::1",
  "metadata":{"k8sPodNamespace":"shop","k8sPodName":"cart-1"}}]}"#;

#[test]
fn the_checkpoint_and_its_ruins() {
    let node = Fixture::new();
    let mut look = ipam::Checkpoint::new(&node.roots, ipam::Shared::default());
    assert_eq!(told(&mut look).0, None);
    assert!(told(&mut look).2, "no ipamd, no failure");

    node.put("run/aws-node/ipam.json", CHECKPOINT);
    node.put("run/aws-node/ipam.json.tmp123", "{");
    let card = CHECKPOINT.replace("10.0.1.7", "10.0.2.7").replace("2600::1", "2600::2");
    node.put("run/aws-node/ipam-nic-1.json", &card);
    let (facts, error, _) = told(&mut look);
    let facts = facts.expect("told");
    assert_eq!(error, None);
    let ips: Vec<IpAddr> = facts.allocations.iter().map(|allocation| allocation.ip).collect();
    let expected = ["10.0.1.7", "2600::1", "10.0.2.7", "2600::2"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    assert_eq!(ips, expected);
    assert_eq!((&*facts.allocations[0].pod, &*facts.allocations[0].sandbox), ("cart-0", "s1"));
    assert_eq!((facts.assigned, facts.total), (Some(4), None), "absent is not zero");
    node.remove("run/aws-node/ipam-nic-1.json");

    node.put("run/aws-node/ipam.json", &CHECKPOINT.replace("2600::1", "many"));
    let (facts, error, _) = told(&mut look);
    assert!(error.is_some_and(|error| error.contains("ipam.json: allocation 1") && error.contains("many")));
    assert_eq!(facts.map(|facts| facts.allocations.len()), Some(1), "the rest is right");

    for ruin in [&CHECKPOINT[..CHECKPOINT.len() / 2], "", "[]", &CHECKPOINT.replace("ipam/1", "ipam/2")] {
        node.put("run/aws-node/ipam.json", ruin);
        let (facts, error, absent) = told(&mut look);
        assert!(error.is_some_and(|error| error.contains("ipam.json")) && !absent, "{ruin}");
        let facts = facts.unwrap_or_default();
        assert_eq!((facts.allocations.len(), facts.assigned), (0, None), "{ruin}");
    }
}

const METRICS: &str = "# TYPE awscni_eni_allocated gauge\nawscni_eni_allocated 2\nawscni_eni_max 3\nawscni_ip_max 27\n\
                       awscni_total_ip_addresses 18\nawscni_assigned_ip_addresses 5\nawscni_total_ipv4_prefixes 0\n\
                       awscni_no_available_ip_addresses 4\nawscni_ec2api_error_count{fn=\"AttachNetworkInterface\"} 2\n\
                       awscni_ec2api_error_count{fn=\"AssignPrivateIpAddresses\"} 1\n\
                       awscni_aws_api_error_count{api=\"AssignPrivateIpAddresses\",error=\"InsufficientCidrBlocks\"} 2\n\
                       awscni_aws_api_error_count{api=\"CreateNetworkInterface\",\
                       error=\"InsufficientFreeAddressesInSubnet\"} 3\n\
                       awscni_aws_api_error_count{api=\"CreateTags\",error=\"UnauthorizedOperation\"} 9\n";

#[test]
fn metrics_of_ipamd() {
    let shared = ipam::Shared::default();
    let mut look = ipam::Metrics::new(serve(&[("/metrics", METRICS)]), shared.clone());
    let seen = Seen::again(Collector::IpamMetrics, &mut look);
    assert_eq!(seen.error, None);
    assert_eq!(seen.figures(Resource::PodIps, &Scope::Node), Some((Some(5), Limit::Of(27))));
    assert_eq!(seen.figures(Resource::Interfaces, &Scope::Node), Some((Some(2), Limit::Of(3))));
    assert_eq!(seen.figures(Resource::IpPrefixes, &Scope::Node), Some((Some(0), Limit::Unknown)));
    assert_eq!(seen.counter(CounterName::NoAvailableAddress, &Scope::Node), Some(4));
    assert_eq!(seen.counter(CounterName::Ec2CallsFailed, &Scope::Node), Some(3));
    assert_eq!(seen.counter(CounterName::SubnetFull, &Scope::Node), Some(5), "a lack of permission is none");
    let facts = told(&mut look).0.expect("told");
    assert_eq!((facts.total, facts.assigned, facts.prefixes), (Some(18), Some(5), Some(0)));

    let mut other = ipam::Metrics::new(serve(&[("/metrics", "up 1\n")]), shared.clone());
    let (facts, error, absent) = told(&mut other);
    assert!(error.is_some_and(|error| error.contains("not ipamd's")) && !absent);
    assert_eq!(facts.map(|facts| facts.total), Some(None), "what it said before does not stand");
    let mut gone = ipam::Metrics::new(nobody(), shared);
    let (facts, error, absent) = told(&mut gone);
    assert!(absent && error.is_some_and(|error| error.contains("nobody at 127.0.0.1")));
    assert_eq!(facts, None);
    let mut wrong = ipam::Metrics::new(serve(&[]), ipam::Shared::default());
    assert!(told(&mut wrong).1.is_some_and(|error| error.contains("status 404")));
}

fn enis(prefix: bool) -> String {
    let cidr = if prefix { "10.0.1.16/28" } else { "10.0.1.7/32" };
    format!(
        r#"{{"TotalIPs":{total},"AssignedIPs":1,"ENIs":{{
        "eni-a":{{"ID":"eni-a","IsPrimary":true,"IsTrunk":false,"IsEFA":false,"DeviceNumber":0,
          "AvailableIPv4Cidrs":{{"{cidr}":{{"Cidr":{{"IP":"10.0.1.7","Mask":"/////w=="}},"IPAddresses":{{
            "10.0.1.17":{{"Address":"10.0.1.17","IPAMKey":{{"networkName":"aws-cni","containerID":"","ifName":""}}}},
            "10.0.1.18":{{"Address":"10.0.1.18","IPAMKey":{{"networkName":"","containerID":"","ifName":""}}}}}},
            "IsPrefix":{prefix},"AddressFamily":""}}}},"IPv6Cidrs":null,"IsExcludedForPodIPs":false}},
        "eni-b":{{"ID":"eni-b","IsTrunk":true,"DeviceNumber":2,"AvailableIPv4Cidrs":{{}},"IPv6Cidrs":{{}}}}}}}}"#,
        total = if prefix { 16 } else { 1 },
    )
}

const SETTINGS: &str = r#"{"WARM_IP_TARGET":0,"WARM_ENI_TARGET":1,"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG":false}"#;
const NETWORK: &str = r#"{"AWS_VPC_K8S_CNI_EXTERNALSNAT":true,"AWS_VPC_K8S_CNI_VETHPREFIX":"eni"}"#;

#[test]
fn introspection_in_both_shapes() {
    for (name, page) in [("before 1.20", enis(true)), ("since 1.20", format!(r#"{{"0":{}}}"#, enis(true)))] {
        let pages = [
            ("/v1/enis", page.as_str()),
            ("/v1/ipamd-env-settings", SETTINGS),
            ("/v1/networkutils-env-settings", NETWORK),
        ];
        let mut look = ipam::Introspection::new(serve(&pages), ipam::Shared::default());
        let (facts, error, _) = told(&mut look);
        assert_eq!(error, None, "{name}");
        let facts = facts.expect("told");
        assert_eq!((facts.total, facts.assigned, facts.prefixes), (Some(16), Some(1), Some(1)), "{name}");
        let [first, second] = &facts.interfaces[..] else { panic!("{name}: {facts:?}") };
        assert!(first.primary && !first.trunk && second.trunk && second.device == 2, "{name}");
        assert_eq!((first.addresses, first.prefixes, first.assigned), (16, 1, 1), "{name}");
        let settings = facts.settings.expect("settings");
        assert_eq!((settings.warm_ip_target, settings.warm_eni_target), (None, Some(1)), "0 is how it says: not set");
        assert!(settings.prefix_delegation && settings.pod_eni && !settings.custom_networking && !settings.ipv6);
        assert_eq!(settings.external_snat, Some(true));
    }
}

#[test]
fn several_network_cards_and_missing_settings() {
    let page = format!(r#"{{"0":{},"1":{}}}"#, enis(false), enis(false).replace("eni-", "eni-1"));
    let mut look = ipam::Introspection::new(serve(&[("/v1/enis", &page)]), ipam::Shared::default());
    let (facts, error, _) = told(&mut look);
    let facts = facts.expect("told");
    assert!(error.is_some_and(|error| error.contains("ipamd-env-settings")), "named");
    assert_eq!((facts.total, facts.assigned, facts.settings), (Some(2), Some(2), None), "the rest is right");
    let cards: Vec<u32> = facts.interfaces.iter().map(|interface| interface.card).collect();
    assert_eq!(cards, [0, 0, 1, 1]);
}

#[test]
fn introspection_of_ipv6_over_a_unix_socket() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("introspection.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let page = r#"{"0":{"TotalIPs":281474976710656,"AssignedIPs":3,"ENIs":{"eni-a":{"IsPrimary":true,
        "AvailableIPv4Cidrs":null,"IPv6Cidrs":{"2600::/80":{"IsPrefix":true,"IPAddresses":null}}}}}}"#;
    let pages = vec![("/v1/enis", page.to_owned()), ("/v1/ipamd-env-settings", "{}".to_owned())];
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, &pages)));
    let peer = Peer::new(&Endpoint::Unix(path), "introspection");
    let facts = told(&mut ipam::Introspection::new(peer, ipam::Shared::default())).0.expect("told");
    assert_eq!((facts.total, facts.assigned, facts.prefixes), (Some(u32::MAX), Some(3), Some(0)));
}

#[test]
fn answers_that_are_none() {
    for page in [&enis(true)[..100], "{", "[]", r#"{"0":{"TotalIPs":"many","AssignedIPs":1,"ENIs":{}}}"#] {
        let mut look = ipam::Introspection::new(serve(&[("/v1/enis", page)]), ipam::Shared::default());
        let (facts, error, absent) = told(&mut look);
        assert!(error.is_some_and(|error| error.contains("/v1/enis")) && !absent && facts.is_none(), "{page}");
    }
}

#[test]
fn ebs_exceeded_seconds() {
    let page = "aws_ebs_csi_exceeded_iops_seconds_total{volume_id=\"vol-1\"} 1.5\n\
                aws_ebs_csi_ec2_exceeded_tp_seconds_total{volume_id=\"vol-1\"} 0.25\n";
    let seen = Seen::by(Collector::EbsMetrics, ebs_metrics::EbsMetrics::new(serve(&[("/metrics", page)])));
    assert_eq!(seen.counter(CounterName::EbsExceededMicros, &Scope::Node), Some(1_750_000));
    let seen = Seen::by(Collector::EbsMetrics, ebs_metrics::EbsMetrics::new(serve(&[("/metrics", "up 1\n")])));
    assert!(seen.error.is_some() && seen.counters.is_empty());
}

fn max_pods(node: &Fixture) -> Result<(Limit, String), String> {
    let seen = Seen::by(Collector::Kubelet, kubelet::Kubelet::new(&node.roots));
    let sample = seen.samples.first().map(|sample| (sample.limit, sample.source.to_string()));
    sample.ok_or_else(|| seen.error.expect("an error"))
}

#[test]
fn max_pods_of_the_kubelet() {
    let node = Fixture::new();
    assert!(max_pods(&node).is_err_and(|why| why.contains("no kubelet")));
    node.put("etc/kubernetes/kubelet/config", "kind: KubeletConfiguration\nmaxPods: 29 # Bottlerocket\n");
    assert_eq!(max_pods(&node).map(|(limit, _)| limit), Ok(Limit::Of(29)));
    node.put("etc/kubernetes/kubelet/config.json", r#"{"kind":"KubeletConfiguration","maxPods":58}"#);
    assert_eq!(max_pods(&node).map(|(limit, _)| limit), Ok(Limit::Of(58)));
    node.put("etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf", r#"{"maxPods":110}"#);
    node.put("etc/kubernetes/kubelet/config.json.d/50-other.conf", r#"{"other":1}"#);
    node.put("etc/kubernetes/kubelet/config.json.d/60-backup.conf.bak", r#"{"maxPods":1}"#);
    let (limit, source) = max_pods(&node).expect("told");
    assert_eq!(limit, Limit::Of(110));
    assert!(source.ends_with("40-nodeadm.conf"), "{source}");
    node.put("etc/kubernetes/kubelet/config.json.d/50-other.conf", r#"{"maxPods":"#);
    assert!(max_pods(&node).is_err_and(|why| why.contains("50-other.conf")));
}

#[test]
fn type_of_the_instance() {
    let node = Fixture::new();
    let imds = || serve(&[("/latest/api/token", "t0ken"), ("/latest/meta-data/instance-type", "m4.large\n")]);
    let find = |imds: Peer| {
        let mut facts = Vec::new();
        let result = instance_type::InstanceType::new(&node.roots, imds).look(&mut facts);
        result.map_err(|error| error.chain()).map(|()| facts)
    };
    let is = |name: &str, source: &str| Ok(vec![HostFact::InstanceType { name: name.into(), source: source.into() }]);
    assert!(find(imds()).is_err_and(|why| why.contains("no EC2 instance")), "nobody is asked elsewhere");
    node.put("sys/devices/virtual/dmi/id/sys_vendor", "Xen\n");
    node.put("sys/devices/virtual/dmi/id/bios_version", "4.11.amazon\n");
    assert_eq!(find(imds()), is("m4.large", "IMDS"));
    assert!(find(serve(&[])).is_err_and(|why| why.contains("no token")));
    assert!(find(Peer::new(&Endpoint::Off, "IMDS")).is_err_and(|why| why.contains("not asked")));
    node.put("sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2\n");
    node.put("sys/devices/virtual/dmi/id/product_name", "u-6tb1.112xlarge\n");
    assert_eq!(find(nobody()), is("u-6tb1.112xlarge", "DMI product_name"));
    node.put("sys/devices/virtual/dmi/id/product_name", "HVM domU\n");
    assert!(find(nobody()).is_err_and(|why| why.contains("product_name")));
}

/// The service is asked once, whatever it answers.
#[test]
fn the_metadata_service_is_asked_once() {
    let node = Fixture::new();
    node.put("sys/devices/virtual/dmi/id/bios_version", "4.11.amazon\n");
    let mut look = instance_type::InstanceType::new(&node.roots, serve(&[]));
    let mut why = || look.look(&mut Vec::new()).map_err(|error| error.chain());
    assert!(why().is_err_and(|why| why.contains("no token")));
    assert!(why().is_err_and(|why| why.contains("not asked")));
}
