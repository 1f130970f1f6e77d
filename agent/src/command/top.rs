//! `sekisho top`: a running node at a glance, on a terminal or once as plain text.
//!
//! [`picture`] is what the agent said, [`state`] what whoever looks wants to see of it, [`columns`], [`lists`] and [`page`]
//! make text of both, and [`terminal`] alone touches the terminal.

mod columns;
mod lists;
mod page;
mod picture;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use self::picture::Picture;
use super::{Exit, Socket, print};

/// Columns of a picture that goes to no terminal.
const COLUMNS_DEFAULT: u16 = 80;

/// A running node at a glance: pods by bytes, connections, requests to metadata services and findings, and the node's
/// ceilings. Keys are on the screen; --once prints one picture as text.
#[derive(Args)]
pub(super) struct Top {
    /// Print one picture as plain text and end; needs no terminal.
    #[arg(long)]
    once: bool,

    /// Ask the agent every so many seconds. Bytes and connections are told once a fold, every ten seconds by default.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,

    #[command(flatten)]
    socket: Socket,
}

impl Top {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { once, interval, socket } = self;
        if once {
            let picture = Picture::ask(&socket.socket)?;
            let width = if std::io::stdout().is_terminal() { terminal::columns() } else { None };
            print(&page::text(&picture, width.unwrap_or(COLUMNS_DEFAULT)))?;
            return Ok(Exit::Fine);
        }
        if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            bail!("top needs a terminal as standard input and output; `sekisho top --once` prints one picture as text");
        }
        if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
            bail!("TERM=dumb: this terminal cannot place text; `sekisho top --once` prints one picture as text");
        }
        terminal::run(&socket.socket, Duration::from_secs(interval))?;
        Ok(Exit::Fine)
    }
}
