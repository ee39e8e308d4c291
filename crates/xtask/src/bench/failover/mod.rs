//! `cargo xtask bench failover`: how long clients wait, whatever happens; ours beside keepalived's, and false alarms.
//!
//! One probing client for all: every 10 ms an append on a new connection. The outage is the longest time between two
//! acknowledgements around the blow. keepalived moves an address and nothing else: its figure is the floor for that. So do corosync and pacemaker, where they install.

mod keepalived;
mod pacemaker;
mod probe;
mod rival;
mod stead;

use super::figure::{Figure, Goal, report, results, table};
use crate::build;
use crate::packages;
use crate::shell::wait_for;
use keepalived::Keepalived;
use pacemaker::Pacemaker;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stead::{Rhythm, Stead};

/// What happens to the node that serves, or to its service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// The node loses power.
    PowerCut,
    /// Its network drops every frame.
    NetworkCut,
    /// The application is killed.
    Kill,
    /// The data plane of the primary is killed: the application must not notice more than a pause.
    Plane,
    /// So is its agent.
    Agent,
    /// An operator asks the other node to serve.
    Swap,
    /// The node is paused, as a virtual machine is.
    Freeze,
}

impl Blow {
    const fn name(self) -> &'static str {
        match self {
            Self::PowerCut => "power cut",
            Self::NetworkCut => "network cut",
            Self::Kill => "application killed",
            Self::Plane => "data plane killed",
            Self::Agent => "agent killed",
            Self::Swap => "planned swap",
            Self::Freeze => "node paused",
        }
    }
}

/// Who is struck.
trait Contender {
    fn name(&self) -> &'static str;
    /// Strikes, measures, and makes everything whole again: the outage in milliseconds.
    fn strike(&self, blow: Blow) -> anyhow::Result<f64>;
    /// How often the service has moved, or a node was taken for dead, since the lab was raised.
    fn alarms(&self) -> anyhow::Result<u64>;
}

/// Measures, prints, and writes `benches/RESULTS.md` (unless quick) and the JSON file.
pub fn run(quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    use Blow::*;
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::PEERS)?;
    let programs = build::programs(true)?;
    let (rounds, watch) = if quick { (3, Duration::from_secs(30)) } else { (7, Duration::from_secs(600)) };
    let ours = Stead::up(&programs, "bench-default", Rhythm::Default, false)?;
    let tuned = Stead::up(&programs, "bench-tuned", Rhythm::Tuned, false)?;
    let voted = Stead::up(&programs, "bench-witness", Rhythm::Default, true)?;
    let slow = Keepalived::up(&programs, "bench-vrrp", 1_000)?;
    let fast = Keepalived::up(&programs, "bench-vrrp-fast", 100)?;
    // It is one more to compare with, and not ours: without it the rest is measured all the same, and the text says why.
    let pacemaker = packages::ensure(packages::PACEMAKER).and_then(|()| Pacemaker::up(&programs, "bench-pacemaker"));
    let without = match &pacemaker {
        Ok(_) => String::new(),
        Err(error) => format!("corosync and pacemaker were not measured: {error:#}.\n\n"),
    };
    print!("{without}");
    let goal = Goal::AtMost;
    let mut plan: Vec<(&dyn Contender, Blow, Option<Goal>)> = vec![
        (&ours, PowerCut, Some(goal(1_200.0))),
        (&tuned, PowerCut, Some(goal(350.0))),
        (&slow, PowerCut, None),
        (&fast, PowerCut, None),
        // 0.3 s and the application, which starts in 50 ms.
        (&ours, Swap, Some(goal(350.0))),
        (&slow, Swap, None),
        (&ours, Kill, None),
        (&ours, Plane, Some(goal(500.0))),
        (&ours, Agent, Some(goal(500.0))),
        (&ours, Freeze, None),
        (&voted, NetworkCut, None),
    ];
    if !quick {
        plan.extend([
            (&tuned as &dyn Contender, Swap, None),
            (&tuned, Freeze, None),
            (&slow, Freeze, None),
            (&slow, NetworkCut, None),
            (&fast, NetworkCut, None),
        ]);
    }
    if let Ok(third) = &pacemaker {
        plan.extend([(third as &dyn Contender, PowerCut, None), (third, Swap, None)]);
        if !quick {
            plan.extend([(third as &dyn Contender, Freeze, None), (third, NetworkCut, None)]);
        }
    }
    let mut figures: Vec<Figure> = plan
        .iter()
        .map(|(who, blow, goal)| {
            let figure = Figure::new(format!("{}: {}", blow.name(), who.name()), "ms");
            goal.map_or(figure.clone(), |goal| figure.goal(goal))
        })
        .collect();
    for round in 1..=rounds {
        for ((who, blow, _), figure) in plan.iter().zip(&mut figures) {
            let outage = who.strike(*blow)?;
            println!("round {round}: {:<20} {:<34} {outage:>6.0} ms", blow.name(), who.name());
            figure.values.push(outage);
        }
    }
    let mut all: Vec<&dyn Contender> = vec![&ours, &tuned, &voted, &slow, &fast];
    all.extend(pacemaker.iter().map(|it| it as &dyn Contender));
    figures.extend(false_alarms(&all, watch)?);
    let text = format!(
        "`cargo xtask bench failover`: the longest time between two acknowledgements, seen by a client that appends every\n10 ms on a new connection and gives an attempt up after 400 ms; interleaved rounds, release build, every lab on this\nmachine. Ours replicates the ledger and starts it on the other node; keepalived moves an address between two\nledgers that run already and share nothing: what was acknowledged before is not there. So do corosync and pacemaker, with\ntheir own defaults and an IPaddr2 resource, without fencing.\n\n{without}{}",
        table(&figures)
    );
    report(&figures, json)?;
    if quick { Ok(()) } else { results("Failover", &text) }
}

/// Everybody at once on a machine whose processors burn: who is taken for dead although nobody is?
fn false_alarms(all: &[&dyn Contender], watch: Duration) -> anyhow::Result<Vec<Figure>> {
    let before = all.iter().map(|who| who.alarms()).collect::<anyhow::Result<Vec<_>>>()?;
    let over = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism()?.get();
    let burning: Vec<_> = (0..2 * cores)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let end = Instant::now() + watch;
    let waited =
        wait_for("the end of the watch", watch + Duration::from_secs(60), || Ok((Instant::now() >= end).then_some(())));
    over.store(true, Ordering::Relaxed);
    for thread in burning {
        let _ = thread.join();
    }
    waited?;
    let mut figures = Vec::new();
    for (who, before) in all.iter().zip(before) {
        let name = format!("false failovers in {} s, {} burning threads: {}", watch.as_secs(), 2 * cores, who.name());
        let figure = Figure::new(name, "").values([(who.alarms()? - before) as f64]);
        figures.push(if who.name() == Rhythm::Default.name() { figure.goal(Goal::AtMost(0.0)) } else { figure });
    }
    Ok(figures)
}
