//! `sekisho audit`: what pods of this node hold, and whether they use it.

use std::fmt::Write as _;

use agent_core::facts::TokenMount;
use agent_core::finding::TokenRow;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::api::client;
use crate::api::protocol::Verb;
use crate::command::{Exit, Shape, Socket, print};
use crate::lines;

/// What pods of this node hold, and whether they use it.
#[derive(Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Tokens(Tokens),
}

/// Every pod of this node with a token for the Kubernetes API: whose it is, how it gets there, and what the pod did with it
/// since it is watched. Asks the running agent. Exits with 1 when a token stayed unused for as long as the configuration
/// says.
#[derive(Args)]
struct Tokens {
    /// How the answer looks.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    #[command(flatten)]
    socket: Socket,
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Command::Tokens(Tokens { output, socket }) = self.command;
        let lines: Vec<Value> = client::state(&socket.socket, Verb::TokenAudit)?;
        // Lines of a kind that this version does not know are left out.
        let tokens = lines.iter().filter(|line| line["kind"] == "token");
        let rows: Vec<TokenRow> = tokens.filter_map(|line| serde_json::from_value(line.clone()).ok()).collect();
        print(&match output {
            Shape::Json => lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n"),
            Shape::Text => text(&rows),
        })?;
        Ok(if rows.iter().any(|row| row.used == Some(false)) { Exit::Found } else { Exit::Fine })
    }
}

fn text(rows: &[TokenRow]) -> String {
    if rows.is_empty() {
        return "no running pod of this node is known to have a token for the Kubernetes API\n".to_owned();
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        let TokenRow { namespace, workload, pod, service_account, mount, connections, bytes, .. } = row;
        let mount = mount.map_or("mounted", TokenMount::text);
        // Writing to a string does not fail.
        let _ = write!(line, "{namespace}/{pod} ({workload}) account {service_account}, {mount}: ");
        let _ = match (row.used, row.last_used) {
            (Some(true), Some(last)) => write!(line, "used, {connections} connections and {bytes} bytes, last {last}"),
            (Some(true), None) => write!(line, "used"),
            (Some(false), _) => write!(line, "unused, watched since {}", row.watched_since),
            (None, _) => {
                let why = row.why.as_deref().unwrap_or("not known");
                write!(line, "cannot tell ({why}), watched since {}", row.watched_since)
            }
        };
        // Names come from workloads: no escape sequence of theirs reaches a terminal.
        lines::clean_into(&line, &mut out);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use agent_core::time::WallNs;

    use super::*;

    #[test]
    fn each_token_is_a_line() {
        let row = TokenRow {
            namespace: "shop".into(),
            workload: "cart".into(),
            pod: "cart-\u{1b}[2J0".into(),
            service_account: "default".into(),
            mount: Some(TokenMount::Automounted),
            used: Some(true),
            why: None,
            first_used: Some(WallNs(0)),
            last_used: Some(WallNs(5_000_000_000)),
            connections: 3,
            bytes: 70,
            watched_since: WallNs(0),
        };
        let unused = TokenRow { pod: "cart-1".into(), used: Some(false), last_used: None, ..row.clone() };
        let unknown = TokenRow { used: None, why: Some("api_server_not_known".to_owned()), ..unused.clone() };
        let text = text(&[row, unused, unknown]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("used, 3 connections and 70 bytes, last 1970-01-01T00:00:05.000000Z"), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(
            lines[1],
            "shop/cart-1 (cart) account default, mounted by admission: unused, watched since 1970-01-01T00:00:00.000000Z"
        );
        assert!(lines[2].contains("cannot tell (api_server_not_known)"));
        assert!(self::text(&[]).starts_with("no running pod"));
    }
}
