//! `sekisho replay`: a recorded run through the Engine once more, on any machine.

use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::PathBuf;

use agent_core::engine::Engine;
use agent_core::recording::{Entry, Why};
use clap::Args;

use super::{Exit, Shape};
use crate::api::client;
use crate::lines::{self, Form};
use crate::recording::Reader;

/// Shows what an agent says to what another one recorded (sekisho run --record): the same lines, when both are of one version.
/// Exits with 1 when the recording ended before its agent did, and with 3 when it is damaged or cut off; what stands before
/// that is shown.
#[derive(Args)]
pub(super) struct Replay {
    /// The recording.
    file: PathBuf,

    /// Show what was recorded instead of what follows from it, one JSON object per line.
    #[arg(long)]
    inputs: bool,

    /// How rows look.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,
}

impl Replay {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut reader = Reader::open(&self.file)?;
        let header = reader.header().clone();
        if header.agent != env!("CARGO_PKG_VERSION") {
            eprintln!(
                "sekisho: recorded by version {}, replayed by {}: rows may differ",
                header.agent,
                env!("CARGO_PKG_VERSION")
            );
        }
        let mut out = BufWriter::new(std::io::stdout().lock());
        let form = Form::from(self.output);
        let mut engine = Engine::new(header.engine);
        let mut outputs = Vec::new();
        let mut text = String::new();
        let read = loop {
            let entry: Entry<'_> = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if self.inputs {
                text.push_str(&lines::json(&entry));
                text.push('\n');
            } else {
                engine.apply(entry, &mut outputs);
                for output in outputs.drain(..) {
                    lines::write(&output, form, &header.node, &mut text);
                }
            }
            match out.write_all(text.as_bytes()) {
                // Whoever read has enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Fine),
                result => result.map_err(client::Error::Output)?,
            }
            text.clear();
        };
        match out.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Fine),
            result => result.map_err(client::Error::Output)?,
        }
        read?;
        let why = match reader.end().map(|end| end.why) {
            None | Some(Why::Stopped) => return Ok(Exit::Fine),
            Some(Why::Full) => "it had the size that --record-bytes allowed",
            Some(Why::TooSlow) => "the disk was too slow for it",
        };
        eprintln!("sekisho: the recording ends before its agent did: {why}");
        Ok(Exit::Found)
    }
}
