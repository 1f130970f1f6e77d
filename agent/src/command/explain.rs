//! `sekisho explain`: what a finding means and what to do about it.

use agent_core::finding::{Code, catalogue};
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{Exit, Shape};
use crate::lines;

/// Lines of text are wrapped at this width.
const WIDTH: usize = 100;

/// What a finding means, what causes it and what to do about it.
#[derive(Args)]
pub(super) struct Explain {
    /// The finding's code; all codes are listed without one.
    #[arg(value_name = "CODE", value_parser = PossibleValuesParser::new(Code::ALL.iter().map(|code| code.name())))]
    code: Option<String>,

    /// How it looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { code, output } = self;
        let text = match (code.as_deref().and_then(Code::by_name), output) {
            (Some(code), Shape::Text) => code.text(WIDTH),
            (None, Shape::Text) => catalogue::list(),
            (Some(code), Shape::Json) => format!("{}\n", lines::json(&code.explanation())),
            (None, Shape::Json) => {
                let explanations: Vec<_> = Code::ALL.iter().map(|code| lines::json(&code.explanation())).collect();
                explanations.join("\n") + "\n"
            }
        };
        super::print(&text)?;
        Ok(Exit::Fine)
    }
}
