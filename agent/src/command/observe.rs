//! `sekisho observe`: what a running agent sees.

use clap::Args;

use super::{Exit, Shape, Socket};
use crate::api::client;
use crate::api::protocol::{Filter, PodName, Request};
use crate::lines::LineKind;

/// What a running agent saw lately, and with --follow what it sees.
#[derive(Args)]
pub(super) struct Observe {
    /// Only this pod; may be repeated.
    #[arg(long, value_name = "NS/NAME")]
    pod: Vec<PodName>,

    /// Only this workload; may be repeated. Without a cluster: a pod's uid as pod-UID, a container's short id, a unit.
    #[arg(long, value_name = "NAME")]
    workload: Vec<String>,

    /// Only this kind; may be repeated.
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<LineKind>,

    /// How lines look.
    #[arg(short, value_enum, default_value = "text")]
    output: Shape,

    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    socket: Socket,
}

impl Observe {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Self { pod, workload, kind, output, follow, socket } = self;
        let filter = Filter { kinds: kind, pods: pod, workloads: workload };
        let request = Request::observe(output.into(), follow, filter);
        client::observe(&socket.socket, &request, &mut std::io::stdout().lock())?;
        Ok(Exit::Fine)
    }
}
