//! `sekisho capacity`: the running node's ceilings, and `sekisho capacity plan`: sizing before there is a node.

mod plan;
mod table;

pub(super) use self::table::{Amount, duration, filled, left, shorten};

use agent_core::output::CapacityRow;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::{Exit, Shape, Socket, print};
use crate::api::client;
use crate::api::protocol::Verb;
use crate::lines::json;

/// What still fits on this node, which limit binds first, and when it is reached. Asks the running agent; `plan` needs none.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Capacity {
    #[command(subcommand)]
    what: Option<What>,

    /// How the answer looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    #[command(flatten)]
    socket: Socket,
}

#[derive(Subcommand)]
enum What {
    Plan(plan::Plan),
}

/// The agent's answer. A row keeps its time outside, as all rows do.
#[derive(Deserialize, Serialize)]
struct Answer {
    schema: String,
    kind: String,
    time: String,
    node: String,
    #[serde(flatten)]
    row: CapacityRow,
}

impl Capacity {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        if let Some(What::Plan(plan)) = self.what {
            return plan.run();
        }
        let answers: Vec<Answer> = client::state(&self.socket.socket, Verb::Capacity)?;
        let mut text = String::new();
        for answer in &answers {
            match self.output {
                Shape::Json => {
                    text.push_str(&json(answer));
                    text.push('\n');
                }
                Shape::Text => text.push_str(&table::table(&answer.node, &answer.row)),
            }
        }
        print(&text)?;
        Ok(Exit::Fine)
    }
}
