//! Sources made for the test: each fails alone, one that hangs stops nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::*;

const PATIENT: Pace = Pace { cadence_percent: 100, patience: Duration::from_mins(10) };
/// Even a good look may be called late with this; nothing below rests on that it is not.
const HASTY: Pace = Pace { cadence_percent: 100, patience: Duration::from_millis(20) };

/// Fails as it is told to.
struct Fake {
    looks: Arc<AtomicU32>,
    outcomes: Vec<Result<(), &'static str>>,
    /// Waits for a word before it comes back.
    gate: Option<Receiver<()>>,
}

impl Look for Fake {
    fn look(&mut self, facts: &mut Vec<HostFact>) -> Result<(), Error> {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = self.gate.take() {
            let _ = gate.recv();
        }
        facts.push(HostFact::Links(Vec::new()));
        match self.outcomes.get(look as usize) {
            Some(Err("fall over")) => panic!("as told"),
            Some(Err("absent")) => Err(Error::Absent("there is none".to_owned())),
            Some(Err(why)) => Err(Error::Malformed { what: "x".to_owned(), why: (*why).to_owned() }),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

fn source(collector: Collector, outcomes: &[Result<(), &'static str>]) -> (Source, Arc<AtomicU32>) {
    let looks = Arc::new(AtomicU32::new(0));
    let look = Fake { looks: Arc::clone(&looks), outcomes: outcomes.to_vec(), gate: None };
    (Source { collector, every: Duration::from_millis(1), look: Box::new(look) }, looks)
}

/// What was told of collectors, in order.
async fn told(facts: &mut mpsc::Receiver<Vec<Input>>) -> Vec<(Collector, Option<String>, bool)> {
    let batch = facts.recv().await.expect("the schedule runs");
    let standings = batch.into_iter().filter_map(|input| match input {
        Input::Host(fact) => match *fact {
            HostFact::Collector { collector, error, absent, .. } => Some((collector, error, absent)),
            _ => None,
        },
        other => panic!("{other:?}"),
    });
    standings.collect()
}

#[tokio::test]
async fn each_source_fails_alone_and_is_looked_at_again() {
    let (good, good_looks) = source(Collector::Links, &[]);
    let (bad, _) = source(Collector::Conntrack, &[Err("absent"), Err("broken"), Ok(()), Err("absent")]);
    let (tell, mut facts) = mpsc::channel(1);
    let schedule = tokio::spawn(run(vec![good, bad], PATIENT, tell));
    let mut of_bad = Vec::new();
    while of_bad.len() < 4 {
        for (collector, error, absent) in told(&mut facts).await {
            match collector {
                Collector::Links => assert_eq!(error, None),
                _ => of_bad.push((error, absent)),
            }
        }
    }
    assert_eq!(
        of_bad,
        [
            (Some("there is none".to_owned()), true),
            (Some("x: broken".to_owned()), false),
            (None, false),
            (Some("there is none".to_owned()), false),
        ],
        "what was there and is gone is a failure"
    );
    assert!(good_looks.load(Ordering::Relaxed) >= 3);
    drop(facts);
    schedule.await.expect("ends when nobody listens");
}

#[tokio::test]
async fn a_look_that_hangs_is_left_behind_and_counts_when_it_comes_back() {
    let (open, gate) = channel();
    let looks = Arc::new(AtomicU32::new(0));
    let hanging = Fake { looks: Arc::clone(&looks), outcomes: Vec::new(), gate: Some(gate) };
    let hanging = Source { collector: Collector::Disks, every: Duration::from_millis(1), look: Box::new(hanging) };
    let (good, _) = source(Collector::Links, &[]);
    let (tell, mut facts) = mpsc::channel(1);
    let schedule = tokio::spawn(run(vec![hanging, good], HASTY, tell));
    let (mut late, mut good) = (0, 0);
    while late < 1 || good < 2 {
        for (collector, error, _) in told(&mut facts).await {
            match collector {
                Collector::Disks => {
                    assert_eq!(error.as_deref(), Some("has not come back for 0 s"));
                    late += 1;
                }
                _ => good += u32::from(error.is_none()),
            }
        }
    }
    assert_eq!((late, looks.load(Ordering::Relaxed)), (1, 1), "told once, and not looked at again meanwhile");
    open.send(()).expect("it waits");
    while !told(&mut facts).await.contains(&(Collector::Disks, None, false)) {}
    drop(facts);
    schedule.await.expect("ends");
}

#[test]
fn waits_differ_by_up_to_a_tenth() {
    let every = Duration::from_secs(100);
    let waits: std::collections::BTreeSet<u64> = (0..1_000).map(|random| jittered(every, random).as_secs()).collect();
    assert_eq!(waits, (90..=110).collect());
}

#[tokio::test]
async fn a_look_that_falls_over_failed_and_is_made_again() {
    let (bad, looks) = source(Collector::Conntrack, &[Err("fall over"), Ok(())]);
    let (tell, mut facts) = mpsc::channel(1);
    let schedule = tokio::spawn(run(vec![bad], PATIENT, tell));
    let why = Error::FellOver.to_string();
    assert_eq!(told(&mut facts).await, [(Collector::Conntrack, Some(why), false)]);
    assert_eq!(told(&mut facts).await, [(Collector::Conntrack, None, false)]);
    assert!(looks.load(Ordering::Relaxed) >= 2);
    drop(facts);
    schedule.await.expect("it ends");
}

#[tokio::test]
async fn a_node_without_threads_left_is_looked_at_again_later() {
    static REFUSALS: AtomicU32 = AtomicU32::new(0);
    fn refused_twice(back: mpsc::Sender<Done>) -> std::io::Result<std::sync::mpsc::Sender<Job>> {
        match REFUSALS.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(std::io::ErrorKind::WouldBlock.into()),
            _ => thread(back),
        }
    }
    let (good, _) = source(Collector::Links, &[]);
    let (tell, mut facts) = mpsc::channel(1);
    let mut schedule = Schedule::new(vec![good], PATIENT, tell);
    schedule.start_thread = refused_twice;
    let schedule = tokio::spawn(schedule.run());
    for _ in 0..2 {
        let [(_, Some(why), false)] = &told(&mut facts).await[..] else { panic!("it failed") };
        assert!(why.starts_with("no thread could be started: "), "{why}");
    }
    assert_eq!(told(&mut facts).await, [(Collector::Links, None, false)]);
    drop(facts);
    schedule.await.expect("it ends");
}
