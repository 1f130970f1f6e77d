//! `sekisho timeline`: what the history on this node, or a copy of one, tells.

use std::io::{BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use agent_core::output::Output;
use agent_core::time::WallNs;
use anyhow::Context as _;
use clap::Args;
use jiff::Zoned;

use super::asked::Asked;
use super::{Exit, Shape};
use crate::config::DATA_DIR_DEFAULT;
use crate::history::{Coverage, Query, Reader};
use crate::lines::{self, Form, LineKind};

mod summary;
mod when;

use summary::Summary;
pub(super) use when::{When, zoned};

/// What happened, in order: connections, requests, programs, findings, ceilings and gaps, from the history on this node or
/// from a copy of it (--data-dir). No agent is needed. Exits with 1 when a part of the history cannot be read.
#[derive(Args)]
pub(super) struct Timeline {
    #[command(flatten)]
    asked: Asked,

    /// Only this kind; may be repeated.
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<LineKind>,

    /// Instead of each line: when first and last, and with whom, by volume; peers are marked new that were not seen before
    /// --since.
    #[arg(long)]
    summary: bool,

    /// How lines look.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    /// The agent's data directory, or a copy of it.
    #[arg(long, value_name = "DIR", env = "SEKISHO_DATA_DIR", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
}

impl Timeline {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let now = Zoned::now();
        let query = Query { kinds: self.kind.clone(), ..self.asked.query(&now)? };
        if Asked::is_backwards(&query) {
            return Ok(Exit::Usage);
        }
        let mut reader = Reader::open(&self.data_dir)?;
        let mut out = Out::new(self.output.into(), reader.coverage().node.clone(), now.clone());
        let result = if self.summary {
            let summary = Summary::of(&mut reader, &query);
            out.put(&match self.output {
                Shape::Json => format!("{}\n", lines::json(&summary.report(reader.coverage(), &query))),
                Shape::Text => summary.report(reader.coverage(), &query).text(&now),
            })
            .and_then(|()| out.end())
        } else {
            let mut result = Ok(());
            reader.each(&query, &mut |output| {
                result = out.line(&output);
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            result.and_then(|()| out.end())
        };
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Fine),
            result => result.context("could not write to standard output")?,
        }
        let coverage = reader.coverage();
        if out.lines == 0 {
            eprintln!("sekisho: {}", nothing(coverage, &query, &now));
        }
        for file in &coverage.unreadable {
            eprintln!("sekisho: {} could not be read, and what it holds is missing: {}", file.path.display(), file.why);
        }
        Ok(if coverage.unreadable.is_empty() { Exit::Fine } else { Exit::Found })
    }
}

/// Standard output.
struct Out {
    to: BufWriter<std::io::StdoutLock<'static>>,
    form: Form,
    node: String,
    now: Zoned,
    /// The day under whose heading lines are written.
    day: Option<jiff::civil::Date>,
    lines: u64,
}

impl Out {
    fn new(form: Form, node: String, now: Zoned) -> Self {
        let to = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
        Self { to, form, node, now, day: None, lines: 0 }
    }

    /// An output as `sekisho observe` shows it; for people with the time of their zone, below a heading for each day.
    fn line(&mut self, output: &Output) -> std::io::Result<()> {
        self.lines += 1;
        let mut line = String::new();
        match self.form {
            Form::Json => lines::write(output, Form::Json, &self.node, &mut line),
            Form::Text => {
                let time = zoned(output.time(), &self.now);
                if self.day != Some(time.date()) {
                    self.day = Some(time.date());
                    line.push_str(&time.strftime("# %A, %Y-%m-%d, times are %Z (%:z)\n").to_string());
                }
                let time = time.strftime("%H:%M:%S%.3f").to_string();
                lines::clean_into(&output.to_text_at(&time), &mut line);
                line.push('\n');
            }
        }
        self.to.write_all(line.as_bytes())
    }

    fn put(&mut self, text: &str) -> std::io::Result<()> {
        self.lines += 1;
        self.to.write_all(text.as_bytes())
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// What was looked for in vain, and where.
fn nothing(coverage: &Coverage, query: &Query, now: &Zoned) -> String {
    let show = |time: WallNs| zoned(time, now).strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
    let Some((from, to)) = coverage.span() else { return "the history is empty".to_owned() };
    let asked = match (query.since, query.until) {
        (None, None) => String::new(),
        (since, until) => {
            let part = |word, time: Option<_>| time.map_or(String::new(), |time| format!(" {word} {}", show(time)));
            format!("{}{}", part("from", since), part("to", until))
        }
    };
    format!("nothing was found{asked}; the history covers {} to {}", show(from), show(to))
}
