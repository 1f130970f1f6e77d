//! Drawings of a result: how each cost grows with its load.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::result::{Figure, Outcome};
use crate::plot::{self, Curve, Panel, Scale};

/// A curve: figures of a name, one for each load.
struct Line {
    name: &'static str,
    figures: &'static str,
    /// By what a figure is divided to be of one unit of its load, and multiplied to be in the panel's unit.
    per: Per,
}

#[derive(Clone, Copy)]
enum Per {
    /// One unit of load, times this.
    Load(f64),
    /// As it is.
    Whole,
}

/// A file of panels.
struct Drawing {
    file: &'static str,
    panels: &'static [(&'static str, &'static str, &'static str, Scale, &'static [Line])],
}

const fn each(name: &'static str, figures: &'static str, times: f64) -> Line {
    Line { name, figures, per: Per::Load(times) }
}

const fn whole(name: &'static str, figures: &'static str) -> Line {
    Line { name, figures, per: Per::Whole }
}

const DRAWINGS: [Drawing; 3] = [
    Drawing {
        file: "growth.svg",
        panels: &[
            (
                "Agent CPU for one, by how many there are",
                "connections, 5-tuples, requests",
                "microseconds",
                Scale::Logarithmic,
                // Milliseconds to microseconds.
                &[
                    each("HTTP connection", "growth/agent-cpu/http", 1e3),
                    each("TCP connection held", "growth/agent-cpu/tcp-open", 1e3),
                    each("UDP 5-tuple", "growth/agent-cpu/udp", 1e3),
                    each("metadata request", "growth/agent-cpu/metadata", 1e3),
                ],
            ),
            (
                "Resident, kernel memory included, by open connections",
                "connections",
                "MB",
                Scale::Linear,
                &[whole("resident", "growth/resident")],
            ),
        ],
    },
    Drawing {
        file: "nodes.svg",
        panels: &[
            (
                "CPU by pods on the node",
                "pods",
                "milliseconds",
                Scale::Linear,
                &[
                    whole("a look at all ceilings", "nodes/sweep/later"),
                    whole("a scrape", "nodes/scrape/cpu"),
                    whole("idle, a second", "nodes/agent-cpu/idle"),
                ],
            ),
            (
                "Resident by pods on the node, kernel memory included",
                "pods",
                "MB",
                Scale::Linear,
                &[whole("resident without traffic", "nodes/resident/idle")],
            ),
        ],
    },
    Drawing {
        file: "functions.svg",
        panels: &[(
            "Instructions for one, by size",
            "records, peers, connections, rules a side",
            "instructions",
            Scale::Logarithmic,
            &[
                whole("decode a record", "functions/decode/instructions"),
                whole("fold a connection", "functions/fold/instructions"),
                whole("metadata exchange", "functions/metadata/instructions"),
                whole("verdict", "functions/verdict/instructions"),
            ],
        )],
    },
];

/// Draws whatever was measured; the files that were written.
pub(super) fn draw(outcome: &Outcome, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for Drawing { file, panels } in DRAWINGS {
        let panels: Vec<Panel> = panels
            .iter()
            .map(|(title, x, y, scale, lines)| Panel {
                title: (*title).to_owned(),
                x: (*x).to_owned(),
                y: (*y).to_owned(),
                scale: *scale,
                curves: lines.iter().filter_map(|line| curve(outcome, line)).collect(),
            })
            .filter(|panel| !panel.curves.is_empty())
            .collect();
        if !panels.is_empty() {
            let path = directory.join(file);
            plot::write(&path, &panels)?;
            written.push(path);
        }
    }
    Ok(written)
}

/// None when nothing of it was measured.
fn curve(outcome: &Outcome, line: &Line) -> Option<Curve> {
    let mut points: Vec<(f64, f64)> = outcome.of(line.figures).filter_map(|figure| point(figure, line.per)).collect();
    points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    (!points.is_empty()).then(|| Curve { name: line.name.to_owned(), points })
}

#[expect(clippy::cast_precision_loss, reason = "loads are far below 2^53")]
fn point(figure: &Figure, per: Per) -> Option<(f64, f64)> {
    let load = figure.load.as_ref()?.amount as f64;
    let median = figure.measured.median;
    let value = match per {
        Per::Load(times) => median * times / load,
        Per::Whole => median,
    };
    // Logarithmic axes have no place for nothing.
    (load > 0.0 && value > 0.0).then_some((load, value))
}
