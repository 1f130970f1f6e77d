//! The report for people.

use std::fmt::{Formatter, Result};

use super::neighbours::{HEAD, NEIGHBOURS, Neighbour};
use super::{Report, Row, Table};
use crate::figures::Load;

const WHAT: &str = "\
Medians of rounds, least and greatest in brackets; kernel figures of a round are medians of its parts. Gross: as the kernel counts, its clock's 20 to 40 ns a run included.
Net: less empty programs on the same hooks in the same round. Both ends of all traffic are on this machine. What the
kernel does for socket storage (the clone to accepted sockets, the freeing) does not show in program statistics.
";

pub(super) fn write(report: &Report, f: &mut Formatter<'_>) -> Result {
    writeln!(f, "{WHAT}")?;
    for table in &report.kernel {
        programs(table, f)?;
    }
    writeln!(f, "{:<58} {:>26} {:>8} {:<4}", "", "measured", "aim", "")?;
    for figure in report.figures.iter().filter(|figure| !figure.is_detail) {
        let at_most = figure.at_most.map_or(String::new(), |most| format!("{most}"));
        let verdict = match figure.reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        let what = match figure.load {
            Some(Load { amount, of }) => format!("{}, {amount} {of}", figure.what),
            None => figure.what.clone(),
        };
        writeln!(f, "{what:<58} {:>26} {at_most:>8} {:<4} {verdict}", figure.measured, figure.unit)?;
    }
    writeln!(f)?;
    neighbour(&HEAD, f)?;
    NEIGHBOURS.iter().try_for_each(|line| neighbour(line, f))
}

fn programs(table: &Table, f: &mut Formatter<'_>) -> Result {
    let Table { work, unit, .. } = table;
    writeln!(f, "{work}: a {unit}")?;
    writeln!(f, "  {:<14} {:>22} {:>22} {:>26} {:>26}", "program", "runs", "ns a run", "ns gross", "ns net")?;
    for row in table.programs.iter().filter(|row| !row.apart) {
        program(row, f)?;
    }
    let blank = "";
    writeln!(f, "  {:<14} {blank:>22} {blank:>22} {:>26} {:>26}", "all", table.gross_ns, table.net_ns)?;
    for row in table.programs.iter().filter(|row| row.apart) {
        program(row, f)?;
    }
    writeln!(f)
}

fn program(row: &Row, f: &mut Formatter<'_>) -> Result {
    let Row { program, runs, run_ns, gross_ns, net_ns, .. } = row;
    writeln!(f, "  {program:<14} {runs:>22} {run_ns:>22} {gross_ns:>26} {net_ns:>26}")
}

fn neighbour(line: &Neighbour, f: &mut Formatter<'_>) -> Result {
    let [who, runs, connection, bulk, resident, cpu, maps, saw] = line;
    writeln!(f, "{who:<31} {runs:>4} {connection:>8} {bulk:>6} {resident:>12} {cpu:>6} {maps:>8}  {saw}")
}
