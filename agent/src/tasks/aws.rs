//! The EC2 API in the running agent: wishes of the Engine out, facts into the pump.

use std::sync::Arc;
use std::time::Duration;

use agent_core::engine::Engine;
use agent_core::facts::{Ec2Call, Ec2Fact, Ec2Wishes};
use agent_core::input::Input;
use agent_core::time::WallNs;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::protocol::{Ec2Standing, Ec2Status};
use crate::aws::{self, Examined, Options};
use crate::config::{AwsMode, Config};
use crate::node;

/// The file of EC2's answers, in the data directory.
const FILE: &str = "ec2.json";
const NS_PER_SECOND: u64 = 1_000_000_000;

/// The part, running.
pub(super) struct Ec2 {
    /// Ends when it is aborted; `None` when it is off.
    pub(super) work: Option<JoinHandle<()>>,
    /// The way back.
    pub(super) wisher: Wisher,
}

/// Hands over what the Engine wishes to know: to nobody, when EC2 is off.
#[derive(Default)]
pub(super) struct Wisher(Option<watch::Sender<Ec2Wishes>>);

/// Starts to follow the wishes.
pub(super) fn start(config: &Config, node: &Arc<str>, tell: &mpsc::Sender<Vec<Input>>) -> Ec2 {
    match config.aws.mode {
        AwsMode::Off => Ec2 { work: None, wisher: Wisher::default() },
        AwsMode::Auto => {
            let (send, wishes) = watch::channel(Ec2Wishes::default());
            let work = tokio::spawn(aws::follow(options(config, node), wishes, tell.clone()));
            Ec2 { work: Some(work), wisher: Wisher(Some(send)) }
        }
    }
}

fn options(config: &Config, node: &Arc<str>) -> Options {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Options {
        region: given(&config.aws.region),
        endpoint: given(&config.aws.endpoint),
        fleet_nodes: Some(config.aws.fleet_nodes).filter(|nodes| *nodes > 0),
        refresh: Duration::from_secs(config.aws.refresh_seconds.into()),
        file: Some(config.data_dir.join(FILE)),
        node: Arc::clone(node),
        now: || node::clock().1,
    }
}

// === impl Wisher ===

impl Wisher {
    /// Hands over what is wished for now.
    pub(super) fn wish(&self, engine: &Engine) {
        let Some(send) = &self.0 else { return };
        let wishes = engine.wishes();
        send.send_if_modified(|last| {
            let is_new = *last != wishes;
            *last = wishes;
            is_new
        });
    }

    /// How the calls stand, for whoever asks the agent.
    pub(super) fn status(&self, engine: &Engine, now: WallNs) -> Ec2Status {
        let seconds = |at: WallNs| now.0.abs_diff(at.0) / NS_PER_SECOND;
        let calls = engine.ec2().calls().map(|(call, standing)| Ec2Standing {
            name: call.name().to_owned(),
            gives: aws::gives(call).to_owned(),
            age_seconds: standing.fresh_at.map(seconds),
            error: standing.error.clone(),
            missing_actions: if standing.denied { named(call) } else { Vec::new() },
        });
        Ec2Status { enabled: self.0.is_some(), place: None, unreachable: None, calls: calls.collect() }
    }
}

/// A call's actions as a policy names them.
fn named(call: Ec2Call) -> Vec<String> {
    aws::actions(call).iter().map(|action| format!("ec2:{action}")).collect()
}

/// Asks for what is wished, until it is taken as enough or so many seconds are over.
pub(super) fn ask<E: From<std::io::Error>>(
    config: &Config,
    wishes: Ec2Wishes,
    seconds: u32,
    mut take: impl FnMut(&Ec2Fact) -> Result<bool, E>,
) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (tell, mut facts) = mpsc::channel(1);
        let (_wisher, wishes) = watch::channel(wishes);
        let mut work = aws::follow(options(config, &config.node().into()), wishes, tell);
        let mut end = std::pin::pin!(tokio::time::sleep(Duration::from_secs(seconds.into())));
        loop {
            tokio::select! {
                () = &mut work => return Ok(()),
                () = &mut end => return Ok(()),
                Some(inputs) = facts.recv() => {
                    for input in inputs {
                        if let Input::Ec2(fact) = input
                            && take(&fact)?
                        {
                            return Ok(());
                        }
                    }
                }
            }
        }
    })
}

/// What `sekisho doctor` finds at EC2 without a running agent.
pub(super) fn examine(config: &Config) -> std::io::Result<Ec2Status> {
    if config.aws.mode == AwsMode::Off {
        return Ok(Ec2Status::default());
    }
    let options = options(config, &config.node().into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = Ec2Status { enabled: true, ..Ec2Status::default() };
    Ok(match runtime.block_on(aws::examine(&options, &config.roots.sys)) {
        Examined::NotConfigured => status,
        Examined::Unreachable(why) => Ec2Status { unreachable: Some(why), ..status },
        Examined::Asked { place, calls } => {
            let calls = calls.into_iter().map(|(call, refused)| Ec2Standing {
                name: call.name().to_owned(),
                gives: aws::gives(call).to_owned(),
                age_seconds: None,
                missing_actions: if refused.is_some() { named(call) } else { Vec::new() },
                error: refused,
            });
            Ec2Status { place: Some(place), calls: calls.collect(), ..status }
        }
    })
}
