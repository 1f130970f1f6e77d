//! The loop: looks at the wishes, asks what is unknown or old, and tells the answers.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_core::facts::{Ec2Call, Ec2Fact, Ec2Wishes, PeerInterface};
use agent_core::input::Input;
use agent_core::sg::{GroupId, PrefixListId};
use agent_core::time::WallNs;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::ask::Ask;
use super::client::Client;
use super::known::{Known, Told};
use super::pace::{self, Backoff};
use super::plan::{Look, Targets, When};
use super::trouble::{Kind, Trouble};
use super::turns::Turns;
use super::{Options, groups, interfaces, lists, networks, types};
use crate::kept::{self, Form};

/// Between two looks at the wishes and the clock.
const LOOK: Duration = Duration::from_secs(1);
/// News are asked for after this, so that what comes together is asked for together,
const SETTLE_MIN: Duration = Duration::from_secs(1);
/// and within this much more a node: what all nodes see at a time, they ask within the 20 calls a second that EC2 gives.
const SETTLE_PER_NODE: Duration = Duration::from_millis(50);
/// News are written after this long at the soonest.
const WRITE_EVERY: Duration = Duration::from_secs(30);

/// 1,024 groups with 120 rules of 200 bytes are 24 MB, more than any node has.
const FORM: Form = Form { what: "the answers of EC2", version: 1, bytes_max: 32 << 20 };

/// See [`super::follow`].
pub(super) async fn follow(options: Options, wishes: watch::Receiver<Ec2Wishes>, tell: mpsc::Sender<Vec<Input>>) {
    let mut follower = Follower::new(options, tell);
    follower.restore().await;
    loop {
        sleep(LOOK).await;
        let wished = wishes.borrow().clone();
        follower.look(&wished).await;
        follower.save().await;
    }
}

/// What the loop goes by.
pub(super) struct Follower {
    options: Options,
    client: Client,
    known: Known,
    tell: mpsc::Sender<Vec<Input>>,
    /// That share the account's calls.
    nodes: u32,
    /// Of all calls.
    throttled: Backoff,
    credentials: Backoff,
    /// Of each.
    calls: BTreeMap<Ec2Call, Backoff>,
    errors: BTreeMap<Ec2Call, Trouble>,
    /// Groups that cannot be read: each is asked for again by itself, ever more rarely. At most as many as are wished for.
    unreadable: BTreeMap<GroupId, (Backoff, Trouble)>,
    turns: Turns,
    /// When news may be asked for; `None`: there are none yet.
    settled: Option<Instant>,
    /// What is older is asked for again; another one each time, so that nodes do not stay in step.
    old: Duration,
    file: Option<kept::File<Known>>,
    is_unsaved: bool,
    written: Option<Instant>,
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(options: Options, tell: mpsc::Sender<Vec<Input>>) -> Self {
        let file = options.file.clone().map(|path| kept::File::new(path, Arc::clone(&options.node), FORM));
        let nodes = options.nodes(None);
        Self {
            client: Client::new(&options),
            nodes,
            known: Known::default(),
            tell,
            throttled: Backoff::new(pace::THROTTLED),
            credentials: Backoff::new(pace::NO_CREDENTIALS),
            calls: Ec2Call::ALL.into_iter().map(|call| (call, Backoff::new(pace::FAILED))).collect(),
            errors: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            turns: Turns::default(),
            settled: None,
            old: pace::jittered(options.interval(nodes)),
            file,
            is_unsaved: false,
            written: None,
            options,
        }
    }

    /// Tells what is on disk.
    async fn restore(&mut self) {
        let Some(file) = &self.file else { return };
        if let Some(known) = file.load().await {
            self.known = known;
            let facts = self.known.facts();
            self.say(facts).await;
        }
    }

    /// One look at what is wished for: asks as long as there is something to ask and it may be asked.
    pub(super) async fn look(&mut self, wishes: &Ec2Wishes) {
        let nodes = self.options.nodes(wishes.fleet_nodes);
        if nodes != self.nodes {
            tracing::info!(nodes, "so many nodes share the calls of EC2");
            self.nodes = nodes;
            self.old = pace::jittered(self.options.interval(nodes));
            self.client.bucket().share(nodes, Instant::now());
        }
        loop {
            let mut targets = Targets::new(wishes, &self.known);
            let now = Instant::now();
            self.unreadable.retain(|id, _| targets.groups.contains(id));
            let paused = self.unreadable.iter().filter(|(_, (backoff, _))| backoff.is_waiting(now));
            targets.paused = paused.map(|(id, _)| id.clone()).collect();
            let Some(ask) = self.next(&targets) else { break };
            self.answer(ask, &targets).await;
            self.known.prune(&targets, (self.options.now)());
        }
    }

    fn next(&mut self, targets: &Targets) -> Option<Ask> {
        let now = Instant::now();
        let when = When { now: (self.options.now)(), old: self.old };
        if self.throttled.is_waiting(now) || self.credentials.is_waiting(now) {
            return None;
        }
        let may = |call| self.calls.get(&call).is_none_or(|backoff| !backoff.is_waiting(now));
        let news = targets.next(&self.known, Look::News, when, may).map(|(_, ask)| ask);
        let old = targets.next(&self.known, Look::Old, when, may);
        let is_settled = if news.is_some() {
            let settle = SETTLE_MIN + (SETTLE_PER_NODE * self.nodes).mul_f64(fastrand::f64());
            *self.settled.get_or_insert(now + settle) <= now
        } else {
            self.settled = None;
            true
        };
        self.turns.next(news.filter(|_| is_settled), old, self.old, self.client.bucket(), now)
    }

    async fn answer(&mut self, ask: Ask, targets: &Targets) {
        let (call, at) = (ask.call(), (self.options.now)());
        let told = match ask {
            Ask::Interfaces(ids) => self.interfaces(&ids, at).await,
            Ask::Macs(macs) => self.macs(&macs, at).await,
            Ask::Peers(peers) => self.peers(&peers, targets.vpc.as_deref(), at).await,
            Ask::Groups(ids) => self.groups(&ids, at).await,
            Ask::Lists(ids) => self.lists(&ids, at).await,
            Ask::Subnets(ids) => self.subnets(&ids, at).await,
            Ask::Vpc(id) => self.vpc(id, at).await,
            Ask::InstanceType(name) => self.instance_type(name, at).await,
        };
        match told {
            Ok((fact, troubles)) => {
                self.old = pace::jittered(self.options.interval(self.nodes));
                self.is_unsaved = true;
                let mut facts: Vec<Ec2Fact> = fact.into_iter().collect();
                // One that answered in part has worked, and says what is wrong; its pause is not over before it begins.
                if troubles.iter().any(|(of, _)| *of == call) {
                    self.reached(call, at);
                } else {
                    facts.push(self.worked(call, at));
                }
                facts.extend(troubles.into_iter().flat_map(|(call, trouble)| self.failed(call, &trouble)));
                self.say(facts).await;
            }
            Err(trouble) => {
                let facts = self.failed(call, &trouble);
                self.say(facts).await;
            }
        }
    }

    async fn interfaces(&mut self, ids: &[Arc<str>], at: WallNs) -> Answered {
        let interfaces = interfaces::by_id(&mut self.client, ids).await?;
        self.known.put_interfaces(&interfaces, at);
        let missing: Vec<Arc<str>> =
            ids.iter().filter(|id| !interfaces.iter().any(|one| one.id == **id)).cloned().collect();
        for id in &missing {
            self.known.interfaces.insert(Arc::clone(id), Told { what: None, at });
        }
        Ok((Some(Ec2Fact::Interfaces { interfaces, missing, at }), Vec::new()))
    }

    async fn macs(&mut self, macs: &[Arc<str>], at: WallNs) -> Answered {
        let interfaces = interfaces::by_mac(&mut self.client, macs).await?;
        self.known.put_interfaces(&interfaces, at);
        for mac in macs {
            let found = interfaces.iter().find(|one| one.mac.as_ref() == Some(mac));
            let what = found.map(|one| Arc::clone(&one.id));
            self.known.macs.insert(Arc::clone(mac), Told { what, at });
        }
        Ok((Some(Ec2Fact::Interfaces { interfaces, missing: Vec::new(), at }), Vec::new()))
    }

    async fn peers(&mut self, peers: &[std::net::IpAddr], vpc: Option<&str>, at: WallNs) -> Answered {
        let mut found = interfaces::by_address(&mut self.client, peers, vpc).await?;
        let peers: Vec<PeerInterface> =
            peers.iter().map(|ip| PeerInterface { ip: *ip, interface: found.remove(ip) }).collect();
        for peer in &peers {
            self.known.peers.insert(peer.ip, Told { what: peer.interface.clone(), at });
        }
        Ok((Some(Ec2Fact::Peers { peers, at }), Vec::new()))
    }

    async fn groups(&mut self, ids: &[GroupId], at: WallNs) -> Answered {
        let now = Instant::now();
        let by_rule = !self.calls.get(&Ec2Call::SecurityGroupRules).is_some_and(|backoff| backoff.is_waiting(now));
        let groups::Answer { groups, unreadable, rules } = groups::ask(&mut self.client, ids, by_rule).await?;
        let rules = match rules {
            // What a moment may change is better asked again than told by half.
            Some(Err(trouble)) if !matches!(trouble.kind, Kind::Denied | Kind::Refused) => return Err(trouble),
            Some(Err(trouble)) => Some((Ec2Call::SecurityGroupRules, trouble)),
            Some(Ok(())) => {
                let fact = self.worked(Ec2Call::SecurityGroupRules, at);
                self.say(vec![fact]).await;
                None
            }
            None => None,
        };
        let is_unreadable = |id: &GroupId| unreadable.iter().any(|(one, _)| one == id);
        let absent = |id: &&GroupId| !groups.iter().any(|one| one.group.id == **id) && !is_unreadable(id);
        let missing: Vec<_> = ids.iter().filter(absent).cloned().collect();
        for facts in &groups {
            self.known.groups.insert(facts.group.id.clone(), Told { what: Some(facts.clone()), at });
        }
        for id in &missing {
            self.known.groups.insert(id.clone(), Told { what: None, at });
        }
        for id in ids {
            match unreadable.iter().find(|(one, _)| one == id) {
                None => drop(self.unreadable.remove(id)),
                Some((id, trouble)) => {
                    let fresh = || (Backoff::new(pace::FAILED), trouble.clone());
                    let (backoff, told) = self.unreadable.entry(id.clone()).or_insert_with(fresh);
                    backoff.failed(now);
                    told.clone_from(trouble);
                }
            }
        }
        // Those of other answers too: what stands is that they cannot be read.
        let unreadable = self.unreadable.values().next();
        let unreadable = unreadable.map(|(_, trouble)| (Ec2Call::SecurityGroups, trouble.clone()));
        Ok((Some(Ec2Fact::Groups { groups, missing, at }), unreadable.into_iter().chain(rules).collect()))
    }

    async fn lists(&mut self, ids: &[PrefixListId], at: WallNs) -> Answered {
        let (lists, denied) = lists::ask(&mut self.client, ids).await?;
        let missing: Vec<_> = ids.iter().filter(|id| !lists.iter().any(|one| one.id == **id)).cloned().collect();
        for list in &lists {
            self.known.lists.insert(list.id.clone(), Told { what: Some(list.clone()), at });
        }
        for id in &missing {
            self.known.lists.insert(id.clone(), Told { what: None, at });
        }
        let fact = Ec2Fact::PrefixLists { lists, missing, at };
        Ok((Some(fact), denied.map(|trouble| (Ec2Call::PrefixLists, trouble)).into_iter().collect()))
    }

    async fn subnets(&mut self, ids: &[Arc<str>], at: WallNs) -> Answered {
        let subnets = networks::subnets(&mut self.client, ids).await?;
        for id in ids {
            let what = subnets.iter().find(|one| one.id == *id).cloned();
            self.known.subnets.insert(Arc::clone(id), Told { what, at });
        }
        Ok((self.known.subnets(), Vec::new()))
    }

    async fn vpc(&mut self, id: Arc<str>, at: WallNs) -> Answered {
        let ranges = networks::vpc(&mut self.client, &id).await?;
        self.known.vpcs.insert(Arc::clone(&id), Told { what: ranges.clone(), at });
        Ok((ranges.map(|ranges| Ec2Fact::Vpc { id, ranges, at }), Vec::new()))
    }

    async fn instance_type(&mut self, name: Arc<str>, at: WallNs) -> Answered {
        let figures = types::ask(&mut self.client, &name).await?;
        self.known.types.insert(Arc::clone(&name), Told { what: figures.clone(), at });
        Ok((Some(Ec2Fact::InstanceType { figures, name, at }), Vec::new()))
    }

    /// EC2 answered, be it in part.
    fn reached(&mut self, call: Ec2Call, at: WallNs) {
        self.throttled.worked();
        self.credentials.worked();
        self.known.worked.insert(call, at);
    }

    /// A call was answered.
    fn worked(&mut self, call: Ec2Call, at: WallNs) -> Ec2Fact {
        self.reached(call, at);
        if let Some(backoff) = self.calls.get_mut(&call) {
            backoff.worked();
        }
        if self.errors.remove(&call).is_some() {
            tracing::info!(call = call.name(), "EC2 answers again");
        }
        Ec2Fact::Source { call, fresh_at: Some(at), error: None, denied: false }
    }

    /// A call was not answered, or in part.
    fn failed(&mut self, call: Ec2Call, trouble: &Trouble) -> Vec<Ec2Fact> {
        let now = Instant::now();
        let mut concerned = vec![call];
        match (trouble.kind, self.calls.get_mut(&call)) {
            (Kind::Throttled, _) => self.throttled.failed(now),
            (Kind::Credentials | Kind::NotConfigured, _) => {
                self.credentials.failed(now);
                concerned = Ec2Call::ALL.to_vec();
            }
            (Kind::Denied, Some(backoff)) => backoff.pause(pace::DENIED, now),
            // What cannot be read waits by itself.
            (Kind::Unreadable, _) | (_, None) => {}
            (_, Some(backoff)) => backoff.failed(now),
        }
        let known = concerned.iter().all(|call| self.errors.get(call) == Some(trouble));
        if !known {
            let call = if concerned.len() == 1 { call.name() } else { "all" };
            tracing::warn!(call, why = trouble.text, "EC2 does not answer");
        }
        concerned.into_iter().map(|call| self.stands(call, trouble)).collect()
    }

    fn stands(&mut self, call: Ec2Call, trouble: &Trouble) -> Ec2Fact {
        self.errors.insert(call, trouble.clone());
        let fresh_at = self.known.worked.get(&call).copied();
        Ec2Fact::Source { call, fresh_at, error: Some(trouble.text.clone()), denied: trouble.kind == Kind::Denied }
    }

    async fn say(&self, facts: Vec<Ec2Fact>) {
        let inputs = facts.into_iter().map(|fact| Input::Ec2(Box::new(fact))).collect();
        // Closed at the agent's end, which drops this too.
        let _ = self.tell.send(inputs).await;
    }

    async fn save(&mut self) {
        let now = Instant::now();
        let is_early = self.written.is_some_and(|at| now.saturating_duration_since(at) < WRITE_EVERY);
        let Some(file) = self.file.clone().filter(|_| self.is_unsaved && !is_early) else { return };
        self.written = Some(now);
        // Not before: whoever drops this while it waits here does not know whether the write has begun.
        self.is_unsaved = !file.write(self.known.clone()).await;
    }
}

/// The loop is ended by dropping it, and so the last news are written here.
impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.is_unsaved) {
            file.write_last(self.known.clone());
        }
    }
}

/// What an answer tells, and what beside it went wrong.
type Answered = Result<(Option<Ec2Fact>, Vec<(Ec2Call, Trouble)>), Trouble>;
