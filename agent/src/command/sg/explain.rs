//! `sekisho sg explain`: one flow against the groups at both its ends.

use std::net::IpAddr;
use std::path::PathBuf;

use agent_core::sg::{Compiled, Overall};
use clap::{Args, CommandFactory as _};
use ipnet::IpNet;

use super::files::{self, ListFile};
use super::question::{Members, Protocol, Question};
use super::report::Report;
use crate::command::{Cli, Exit, Shape};

/// Which rule lets a flow pass, or which one is missing.
///
/// Give the flow in the direction of its first packet: answers pass by themselves. An end whose groups are not given is
/// not judged, and the answer is about the other one alone.
///
/// Ends with 0 when every end that was judged lets the flow pass, with 1 when one does not or when it cannot be told,
/// with 2 for a question that makes no sense, with 3 when a file cannot be read.
#[derive(Args)]
pub(super) struct Explain {
    /// What `aws ec2 describe-security-groups`, describe-security-group-rules, describe-prefix-lists or (in a file named
    /// pl-….json) get-managed-prefix-list-entries print as JSON; may be repeated.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    groups: Vec<PathBuf>,

    /// Entries of a prefix list, as get-managed-prefix-list-entries prints them; may be repeated.
    #[arg(long, value_name = "ID=FILE")]
    prefix_list: Vec<ListFile>,

    /// Groups of the interface that begins, with commas between; or none.
    #[arg(long, value_name = "IDS", required_unless_present = "source_ip")]
    source_groups: Option<Members>,

    /// Address that begins.
    #[arg(long, value_name = "IP")]
    source_ip: Option<IpAddr>,

    /// Address that is spoken to: behind a service, the backend's.
    #[arg(long, value_name = "IP", required_unless_present = "dest_groups")]
    dest: Option<IpAddr>,

    /// Groups of the interface that is spoken to, with commas between; or none, as for an address in the internet.
    #[arg(long, value_name = "IDS")]
    dest_groups: Option<Members>,

    /// tcp, udp, icmp, icmpv6, or a protocol's number.
    #[arg(long, value_name = "NAME")]
    protocol: Protocol,

    /// Port that is spoken to, with tcp and udp.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Type, with icmp and icmpv6; an echo request unless said.
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,

    /// Code, with icmp and icmpv6; 0 unless said.
    #[arg(long, value_name = "CODE")]
    icmp_code: Option<u8>,

    /// The flow is IPv6; needed only when no address is given.
    #[arg(long)]
    ipv6: bool,

    /// Ranges of the VPC, its first one first: they tell its resolver, which groups do not filter.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    vpc_cidr: Vec<IpNet>,

    /// How the answer looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { groups, prefix_list, source_groups, source_ip, dest, dest_groups, .. } = self;
        let Self { protocol, port, icmp_type, icmp_code, ipv6, vpc_cidr, output, .. } = self;
        let question = Question {
            protocol,
            port,
            icmp_type,
            icmp_code,
            ipv6,
            source: source_ip,
            destination: dest,
            source_groups: source_groups.map(|members| members.0),
            destination_groups: dest_groups.map(|members| members.0),
        };
        let asked = match question.check() {
            Ok(asked) => asked,
            Err(wrong) => return Ok(usage(&wrong)),
        };
        let (groups, lists) = files::read(&groups, &prefix_list)?;
        let compiled = Compiled::new(&groups, &lists).with_vpc(vpc_cidr);
        let (report, overall) = Report::new(&compiled, &groups, &asked);
        crate::command::print(&match output {
            Shape::Text => report.text(),
            Shape::Json => format!("{}\n", crate::lines::json(&report)),
        })?;
        Ok(match overall {
            Overall::Allowed => Exit::Fine,
            Overall::NoRule | Overall::CannotTell => Exit::Found,
        })
    }
}

/// What clap cannot see: flags that do not go together. It looks like what clap says.
fn usage(wrong: &str) -> Exit {
    let mut command = Cli::command();
    command.build();
    let explain = command.find_subcommand_mut("sg").and_then(|sg| sg.find_subcommand_mut("explain"));
    if let Some(explain) = explain {
        // Where printing fails, nobody is there to be told.
        let _ = explain.error(clap::error::ErrorKind::ValueValidation, wrong).print();
    }
    Exit::Usage
}
