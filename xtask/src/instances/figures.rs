//! The figures of instance types in the project's own form: a line a type, comma separated, blank where no source says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};

/// First line of the file, and the order of [`Type`]'s fields.
const HEADER: &str = "instance_type,vcpus,memory_mib,interfaces,interfaces_total,network_cards,ipv4_per_interface,\
                      branch_interfaces,hypervisor,network_mbps,network_peak_mbps,ebs_attachments,ebs_mbps,\
                      ebs_peak_mbps,ebs_iops,ebs_peak_iops,conntrack_tcp_s";

/// Longest name that the table takes.
const NAME_BYTES: usize = 20;

/// All types by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) types: BTreeMap<String, Type>,
}

/// A type; `None`: no source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) vcpus: Option<u16>,
    pub(super) memory_mib: Option<u32>,
    pub(super) interfaces: u8,
    pub(super) interfaces_total: u8,
    pub(super) network_cards: u8,
    pub(super) ipv4_per_interface: u8,
    pub(super) branch_interfaces: u8,
    pub(super) hypervisor: Hypervisor,
    pub(super) network_mbps: Option<u32>,
    pub(super) network_peak_mbps: Option<u32>,
    /// How many, and whether they share places with network interfaces.
    pub(super) ebs_attachments: Option<(u8, bool)>,
    pub(super) ebs_mbps: Option<u32>,
    pub(super) ebs_peak_mbps: Option<u32>,
    pub(super) ebs_iops: Option<u32>,
    pub(super) ebs_peak_iops: Option<u32>,
    /// 350 or 432000.
    pub(super) conntrack_tcp_s: Option<u32>,
}

/// What runs below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hypervisor {
    #[default]
    Nitro,
    Xen,
    Metal,
}

// === impl Figures ===

impl Figures {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        ensure!(lines.next() == Some(HEADER), "the first line is not `{HEADER}`");
        let mut types = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            let (name, of_type) = Type::parse(line).with_context(|| format!("line {}", index + 2))?;
            ensure!(types.insert(name.clone(), of_type).is_none(), "line {}: {name} stands here twice", index + 2);
        }
        Ok(Self { types })
    }

    pub(super) fn csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (name, of_type) in &self.types {
            let _ = writeln!(text, "{name}{}", of_type.csv());
        }
        text
    }

    /// The source of the table.
    pub(super) fn table(&self) -> Result<String> {
        let mut text = format!(
            "//! Instance types by name, written by `cargo xtask instances`: change `agent/core/data/instance-types.csv`.\n\n\
             #![expect(clippy::unreadable_literal, reason = \"written by a program, read as a table\")]\n\n\
             use super::{{Row, row}};\n\n\
             #[rustfmt::skip]\n\
             pub(super) static ROWS: [Row; {}] = [\n",
            self.types.len()
        );
        for (name, of_type) in &self.types {
            ensure!(name.len() <= NAME_BYTES, "{name} is longer than {NAME_BYTES} bytes: make room in the agent's Row");
            let _ = writeln!(text, "    {},", of_type.row(name)?);
        }
        text.push_str("];\n");
        Ok(text)
    }

    /// What became different, for whoever renews.
    pub(super) fn changes(&self, new: &Self) -> String {
        let gone: Vec<_> = self.types.keys().filter(|name| !new.types.contains_key(*name)).cloned().collect();
        let come: Vec<_> = new.types.keys().filter(|name| !self.types.contains_key(*name)).cloned().collect();
        let other = new.types.iter().filter(|(name, of_type)| self.types.get(*name).is_some_and(|old| old != *of_type));
        format!(
            "{} types; {} new: {}; {} gone: {}; {} changed",
            new.types.len(),
            come.len(),
            come.join(" "),
            gone.len(),
            gone.join(" "),
            other.count()
        )
    }
}

// === impl Type ===

impl Type {
    fn parse(line: &str) -> Result<(String, Self)> {
        let fields: Vec<_> = line.split(',').collect();
        let [
            name,
            vcpus,
            memory,
            interfaces,
            total,
            cards,
            ipv4,
            branches,
            hypervisor,
            network,
            network_peak,
            attachments,
            ebs,
            ebs_peak,
            iops,
            iops_peak,
            conntrack,
        ] = fields[..]
        else {
            bail!("has {} fields", fields.len());
        };
        ensure!(!name.is_empty(), "has no name");
        let of_type = Self {
            vcpus: number(vcpus)?,
            memory_mib: number(memory)?,
            interfaces: needed(interfaces)?,
            interfaces_total: needed(total)?,
            network_cards: needed(cards)?,
            ipv4_per_interface: needed(ipv4)?,
            branch_interfaces: needed(branches)?,
            hypervisor: Hypervisor::parse(hypervisor)?,
            network_mbps: number(network)?,
            network_peak_mbps: number(network_peak)?,
            ebs_attachments: attachment(attachments)?,
            ebs_mbps: number(ebs)?,
            ebs_peak_mbps: number(ebs_peak)?,
            ebs_iops: number(iops)?,
            ebs_peak_iops: number(iops_peak)?,
            conntrack_tcp_s: number(conntrack)?,
        };
        Ok((name.to_owned(), of_type))
    }

    fn csv(&self) -> String {
        let shown = |figure: Option<u32>| figure.map(|figure| figure.to_string()).unwrap_or_default();
        let attachments = match self.ebs_attachments {
            None => String::new(),
            Some((count, shared)) => format!("{count}{}", if shared { "s" } else { "d" }),
        };
        let mut text = String::new();
        for field in [
            shown(self.vcpus.map(u32::from)),
            shown(self.memory_mib),
            self.interfaces.to_string(),
            self.interfaces_total.to_string(),
            self.network_cards.to_string(),
            self.ipv4_per_interface.to_string(),
            self.branch_interfaces.to_string(),
            self.hypervisor.name().to_owned(),
            shown(self.network_mbps),
            shown(self.network_peak_mbps),
            attachments,
            shown(self.ebs_mbps),
            shown(self.ebs_peak_mbps),
            shown(self.ebs_iops),
            shown(self.ebs_peak_iops),
            shown(self.conntrack_tcp_s),
        ] {
            let _ = write!(text, ",{field}");
        }
        text
    }

    fn row(&self, name: &str) -> Result<String> {
        let conntrack = match self.conntrack_tcp_s {
            None => 0,
            Some(350) => 1,
            Some(432_000) => 2,
            Some(other) => bail!("{name}: an idle time of {other} s has no code in the agent's Row yet"),
        };
        let (attachments, shared) = self.ebs_attachments.unwrap_or_default();
        let wide = [
            self.memory_mib,
            self.network_mbps,
            self.network_peak_mbps,
            self.ebs_mbps,
            self.ebs_peak_mbps,
            self.ebs_iops,
            self.ebs_peak_iops,
        ];
        let narrow = [
            self.interfaces,
            self.interfaces_total,
            self.network_cards,
            self.ipv4_per_interface,
            self.branch_interfaces,
            attachments,
            self.hypervisor as u8,
            u8::from(shared),
            conntrack,
        ];
        let (wide, vcpus) = (wide.map(Option::unwrap_or_default), self.vcpus.unwrap_or_default());
        Ok(format!("row(\"{name}\", {vcpus}, {wide:?}, {narrow:?})"))
    }
}

// === impl Hypervisor ===

impl Hypervisor {
    fn parse(text: &str) -> Result<Self> {
        [Self::Nitro, Self::Xen, Self::Metal]
            .into_iter()
            .find(|found| found.name() == text)
            .with_context(|| format!("`{text}` is no hypervisor: nitro, xen or metal"))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Xen => "xen",
            Self::Metal => "metal",
        }
    }
}

fn needed<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().with_context(|| format!("`{text}` is no number that fits"))
}

/// A number, or nothing. Zero would be read as nothing in the table, and stands for nothing here.
fn number<T: std::str::FromStr + PartialEq + From<u8>>(text: &str) -> Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    if text.is_empty() {
        return Ok(None);
    }
    let number: T = needed(text)?;
    ensure!(number != T::from(0), "0 where a blank belongs");
    Ok(Some(number))
}

/// `32d` (dedicated), `27s` (shared with interfaces), or nothing.
fn attachment(text: &str) -> Result<Option<(u8, bool)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (count, shared) = match (text.strip_suffix('s'), text.strip_suffix('d')) {
        (Some(count), _) => (count, true),
        (_, Some(count)) => (count, false),
        (None, None) => bail!("`{text}` is no number of attachments with s (shared) or d (dedicated)"),
    };
    Ok(Some((needed(count)?, shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "m5.large,2,8192,3,3,1,10,9,nitro,750,10000,,650,4750,3600,18750,432000";

    #[test]
    fn what_is_read_is_written_again() {
        let text = format!("{HEADER}\n{LINE}\nx1.odd,,,2,4,2,4,0,metal,,,31s,,,,,350\n");
        let figures = Figures::parse(&text).expect("well formed");
        assert_eq!(figures.csv(), text);
        let odd = figures.types.get("x1.odd").expect("read");
        assert_eq!((odd.vcpus, odd.ebs_attachments, odd.hypervisor), (None, Some((31, true)), Hypervisor::Metal));
        assert!(figures.table().expect("fits").contains(
            "    row(\"m5.large\", 2, [8192, 750, 10000, 650, 4750, 3600, 18750], [3, 3, 1, 10, 9, 0, 0, 0, 2]),\n"
        ));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (line, part) in [
            ("m5.large,2", "has 2 fields"),
            (&*LINE.replace(",3,3,", ",3,x,"), "`x` is no number"),
            (&*LINE.replace("8192", "0"), "0 where a blank belongs"),
            (&*LINE.replace(",9,", ",900,"), "`900` is no number that fits"),
            (&*LINE.replace("nitro", "vmware"), "`vmware` is no hypervisor"),
            (&*LINE.replace("10000,,", "10000,27,"), "`27` is no number of attachments"),
        ] {
            let error = Figures::parse(&format!("{HEADER}\n{line}\n")).expect_err("malformed");
            let text = format!("{error:#}");
            assert!(text.contains(part) && text.contains("line 2"), "{text}");
        }
        let twice = Figures::parse(&format!("{HEADER}\n{LINE}\n{LINE}\n")).expect_err("twice");
        assert!(twice.to_string().contains("twice"), "{twice}");
        assert!(Figures::parse("a,b\n").is_err());
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused() {
        let figures = Figures::parse(&format!("{HEADER}\n{}\n", LINE.replace("432000", "600"))).expect("well formed");
        assert!(figures.table().expect_err("no code").to_string().contains("600 s"));
        let figures = Figures::parse(&format!("{HEADER}\n{}{LINE}\n", "a".repeat(20))).expect("well formed");
        assert!(figures.table().expect_err("too long").to_string().contains("longer than 20"));
    }
}
