//! Public sources of the figures, read as far as they are needed. A source that says nothing about a type leaves what was
//! known of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::figures::{Figures, Hypervisor, Type};

/// Fewer types than this in a source means that it was not read rightly: it had 1,401 in August 2026.
const FEWEST_TYPES: usize = 1_000;

/// `zz_generated.vpclimits.go` of Karpenter's AWS provider: a Go map literal, one `"type": {` with `Field: value,` lines
/// each. It says which types there are.
pub(super) fn vpc_limits(figures: &mut Figures, text: &str) -> Result<()> {
    let limits = parse_limits(text)?;
    ensure!(limits.len() >= FEWEST_TYPES, "only {} types in it: is this zz_generated.vpclimits.go?", limits.len());
    figures.types.retain(|name, _| limits.contains_key(name));
    for (name, limit) in limits {
        let of_type = figures.types.entry(name.clone()).or_default();
        limit.put(of_type).with_context(|| name)?;
    }
    Ok(())
}

#[derive(Default)]
struct Limit<'a> {
    fields: BTreeMap<&'a str, &'a str>,
    /// Interfaces by card.
    cards: BTreeMap<u32, u8>,
    /// Interfaces of the card whose index was not read yet.
    card: Option<u8>,
}

fn parse_limits(text: &str) -> Result<BTreeMap<String, Limit<'_>>> {
    let mut limits: BTreeMap<String, Limit<'_>> = BTreeMap::new();
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('"').and_then(|rest| rest.strip_suffix("\": {")) {
            ensure!(limits.insert(name.to_owned(), Limit::default()).is_none(), "line {}: {name} again", index + 1);
            current = Some(name.to_owned());
            continue;
        }
        let Some(limit) = current.as_ref().and_then(|name| limits.get_mut(name)) else { continue };
        let Some((field, value)) = line.strip_suffix(',').and_then(|line| line.split_once(':')) else { continue };
        let value = value.trim().trim_matches('"');
        let at = || format!("line {}: `{line}`", index + 1);
        match field.trim() {
            "MaximumNetworkInterfaces" => limit.card = Some(value.parse().with_context(at)?),
            "NetworkCardIndex" => {
                let interfaces = limit.card.take().with_context(at)?;
                limit.cards.insert(value.parse().with_context(at)?, interfaces);
            }
            field => {
                limit.fields.insert(field, value);
            }
        }
    }
    Ok(limits)
}

impl Limit<'_> {
    fn put(&self, of_type: &mut Type) -> Result<()> {
        of_type.interfaces_total = self.number("Interface")?;
        of_type.ipv4_per_interface = self.number("IPv4PerInterface")?;
        of_type.branch_interfaces = self.number("BranchInterface")?;
        if self.field("IsTrunkingCompatible")? != "true" {
            of_type.branch_interfaces = 0;
        }
        let default: u32 = self.number("DefaultNetworkCardIndex")?;
        of_type.interfaces = *self.cards.get(&default).with_context(|| format!("has no network card {default}"))?;
        of_type.network_cards = u8::try_from(self.cards.len()).context("has too many network cards")?;
        of_type.hypervisor = match (self.field("IsBareMetal")?, self.field("Hypervisor")?) {
            ("true", _) => Hypervisor::Metal,
            (_, "nitro") => Hypervisor::Nitro,
            (_, "xen") => Hypervisor::Xen,
            (_, other) => bail!("hypervisor `{other}` is not known here"),
        };
        Ok(())
    }

    fn field(&self, name: &str) -> Result<&str> {
        self.fields.get(name).copied().with_context(|| format!("has no {name}"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.field(name)?.parse().with_context(|| format!("{name} is no number that fits"))
    }
}

/// `zz_generated.bandwidth.go` of Karpenter's AWS provider: `"type": megabits,` lines.
pub(super) fn bandwidth(figures: &mut Figures, text: &str) -> Result<()> {
    let mut found = 0;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let Some((name, value)) = line.strip_prefix('"').and_then(|rest| rest.split_once("\":")) else { continue };
        let value = value.trim().trim_end_matches(',');
        let megabits: u32 = value.parse().with_context(|| format!("line {}: `{line}`", index + 1))?;
        found += 1;
        if let Some(of_type) = figures.types.get_mut(name) {
            of_type.network_mbps = Some(megabits).filter(|&megabits| megabits > 0);
        }
    }
    ensure!(found >= FEWEST_TYPES, "only {found} types in it: is this zz_generated.bandwidth.go?");
    Ok(())
}

/// What of the answer to `DescribeInstanceTypes` is used.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    instance_types: Vec<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    instance_type: String,
    v_cpu_info: Option<VCpuInfo>,
    memory_info: Option<MemoryInfo>,
    network_info: Option<NetworkInfo>,
    ebs_info: Option<EbsInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VCpuInfo {
    #[serde(rename = "DefaultVCpus")]
    default: u16,
}

#[derive(Deserialize)]
struct MemoryInfo {
    #[serde(rename = "SizeInMiB")]
    mib: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkInfo {
    #[serde(default)]
    network_cards: Vec<NetworkCard>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkCard {
    peak_bandwidth_in_gbps: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EbsInfo {
    maximum_ebs_attachments: Option<u8>,
    attachment_limit_type: Option<String>,
    ebs_optimized_info: Option<EbsOptimized>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EbsOptimized {
    baseline_bandwidth_in_mbps: u32,
    maximum_bandwidth_in_mbps: u32,
    baseline_iops: u32,
    maximum_iops: u32,
}

/// The output of `aws ec2 describe-instance-types`, one region's types; run it for each region that matters.
pub(super) fn describe(figures: &mut Figures, text: &str) -> Result<()> {
    let answer: Answer = serde_json::from_str(text).context("not the output of `aws ec2 describe-instance-types`")?;
    ensure!(!answer.instance_types.is_empty(), "no instance types in it");
    for described in answer.instance_types {
        // Which types there are says the table of limits: without its figures a type is of no use.
        let Some(of_type) = figures.types.get_mut(&described.instance_type) else { continue };
        described.put(of_type);
    }
    Ok(())
}

impl Described {
    fn put(self, of_type: &mut Type) {
        let known = |figure: u32| Some(figure).filter(|&figure| figure > 0);
        of_type.vcpus = self.v_cpu_info.map(|info| info.default).or(of_type.vcpus);
        of_type.memory_mib = self.memory_info.and_then(|info| known(info.mib)).or(of_type.memory_mib);
        let cards = self.network_info.map(|info| info.network_cards).unwrap_or_default();
        let gigabits: Option<Vec<f64>> = cards.iter().map(|card| card.peak_bandwidth_in_gbps).collect();
        if let Some(gigabits) = gigabits.filter(|cards| !cards.is_empty()) {
            of_type.network_peak_mbps = known(megabits(gigabits.iter().sum()));
        }
        let Some(ebs) = self.ebs_info else { return };
        if let (Some(count), Some(kind)) = (ebs.maximum_ebs_attachments, ebs.attachment_limit_type) {
            of_type.ebs_attachments = Some((count, kind == "shared"));
        }
        if let Some(optimized) = ebs.ebs_optimized_info {
            of_type.ebs_mbps = known(optimized.baseline_bandwidth_in_mbps);
            of_type.ebs_peak_mbps = known(optimized.maximum_bandwidth_in_mbps);
            of_type.ebs_iops = known(optimized.baseline_iops);
            of_type.ebs_peak_iops = known(optimized.maximum_iops);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and a card has few gigabits"
)]
fn megabits(gigabits: f64) -> u32 {
    (gigabits * 1_000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// So many types `x1.size0` and so on in Karpenter's form, the first with two cards.
    fn limits(types: usize) -> String {
        let mut text = String::from("var Limits = map[string]*VPCLimits{\n");
        for index in 0..types {
            let card = |index: u32| {
                format!(
                    "\t\t\t{{\n\t\t\t\tMaximumNetworkInterfaces: 7,\n\t\t\t\tNetworkCardIndex: {index},\n\t\t\t}},\n"
                )
            };
            let cards = if index == 0 { card(0).replace('7', "2") + &card(1) } else { card(0) };
            let _ = write!(
                text,
                "\t\"x1.size{index}\": {{\n\t\tInterface:               9,\n\t\tIPv4PerInterface:        15,\n\
                 \t\tIsTrunkingCompatible:    {},\n\t\tBranchInterface:         38,\n\t\tDefaultNetworkCardIndex: 0,\n\
                 \t\tNetworkCards: []NetworkCard{{\n{cards}\t\t}},\n\t\tHypervisor:  \"nitro\",\n\
                 \t\tIsBareMetal: {},\n\t}},\n",
                index != 1,
                index == 2
            );
        }
        text + "}\n"
    }

    #[test]
    fn limits_are_read_from_their_go_form() {
        let mut figures = Figures::default();
        figures.types.insert("m1.gone".to_owned(), Type::default());
        vpc_limits(&mut figures, &limits(FEWEST_TYPES)).expect("well formed");
        assert_eq!(figures.types.len(), FEWEST_TYPES);
        let first = figures.types.get("x1.size0").expect("read");
        assert_eq!((first.interfaces, first.interfaces_total, first.network_cards), (2, 9, 2));
        assert_eq!((first.ipv4_per_interface, first.branch_interfaces), (15, 38));
        assert_eq!(figures.types.get("x1.size1").map(|of_type| of_type.branch_interfaces), Some(0));
        assert_eq!(figures.types.get("x1.size2").map(|of_type| of_type.hypervisor), Some(Hypervisor::Metal));
    }

    #[test]
    fn half_a_source_changes_nothing_unnoticed() {
        let text = limits(FEWEST_TYPES);
        let mut figures = Figures::default();
        for (wrong, part) in [
            (limits(3), "only 3 types"),
            (text.replacen("BranchInterface:         38,\n", "", 1), "has no BranchInterface"),
            (
                text.replacen("IPv4PerInterface:        15", "IPv4PerInterface: many", 1),
                "IPv4PerInterface is no number",
            ),
            (text.replacen("\"nitro\"", "\"other\"", 1), "hypervisor `other`"),
        ] {
            let error = vpc_limits(&mut figures, &wrong).expect_err("malformed");
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        assert!(bandwidth(&mut figures, "\"m5.large\": 750,\n").is_err());
        assert!(describe(&mut figures, "{}").is_err());
    }

    #[test]
    fn bandwidth_and_descriptions_complete_what_is_there() {
        let mut figures = Figures::default();
        vpc_limits(&mut figures, &limits(FEWEST_TYPES)).expect("well formed");
        let mut text = String::new();
        for index in 0..FEWEST_TYPES {
            let _ = writeln!(text, "\t\t\"x1.size{index}\": {},", 100 + index);
        }
        bandwidth(&mut figures, &text).expect("well formed");
        describe(
            &mut figures,
            r#"{"InstanceTypes":[{"InstanceType":"x1.size0","VCpuInfo":{"DefaultVCpus":4},"MemoryInfo":{"SizeInMiB":8192},
                "NetworkInfo":{"NetworkCards":[{"PeakBandwidthInGbps":12.5},{"PeakBandwidthInGbps":12.5}]},
                "EbsInfo":{"MaximumEbsAttachments":32,"AttachmentLimitType":"dedicated","EbsOptimizedInfo":
                {"BaselineBandwidthInMbps":650,"MaximumBandwidthInMbps":4750,"BaselineIops":3600,"MaximumIops":18750}}},
                {"InstanceType":"y9.other"}]}"#,
        )
        .expect("well formed");
        let first = figures.types.get("x1.size0").expect("read");
        assert_eq!((first.vcpus, first.memory_mib), (Some(4), Some(8_192)));
        assert_eq!((first.network_mbps, first.network_peak_mbps), (Some(100), Some(25_000)));
        assert_eq!((first.ebs_attachments, first.ebs_iops), (Some((32, false)), Some(3_600)));
        assert!(!figures.types.contains_key("y9.other"));
        assert_eq!(
            figures.types.get("x1.size7").map(|of_type| (of_type.vcpus, of_type.network_mbps)),
            Some((None, Some(107)))
        );
    }
}
