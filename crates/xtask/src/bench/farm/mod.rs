//! `cargo xtask bench farm`: what a request costs behind the farm, beside no balancer, proxies and nftables; outages beside
//! keepalived's; and the packet filter by itself.
//!
//! One lab, interleaved rounds, ratios taken within each round. The robust figure is the processor time of the servers' and
//! proxies' control groups per request; what the kernel does for a frame is booked on whoever sent it, so that the sum over all hosts,
//! the client's included, is told as well.

mod lab;
mod outage;

use super::figure::{Figure, Goal, report, results, table};
use crate::{build, packages};
use lab::{Bench, Candidate};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Servers that every candidate deals out to.
const SERVERS: usize = 3;

/// Measures, prints, and writes `benches/RESULTS.md` (unless quick) and the JSON file.
pub fn run(quick: bool, json: Option<&Path>) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::FARM)?;
    packages::ensure(packages::PEERS)?;
    packages::ensure(packages::FARM_PEERS)?;
    let programs = build::measuring()?;
    // Many short rounds: the machine's other work changes within seconds.
    let (rounds, ms, blows, flows) = if quick { (7, 300, 2, 100_000) } else { (25, 500, 7, 1_000_000) };
    let mut figures = alone(&programs, flows)?;
    let bench = Bench::up(&programs)?;
    figures.extend(loads(&bench, rounds, ms)?);
    figures.extend(members(&bench, ms)?);
    figures.extend(outage::measure(&bench, blows)?);
    let text = format!(
        "`cargo xtask bench farm`: clients, {SERVERS} servers (nginx, `return 200`) and proxies are hosts of one lab on this machine; 100 client\naddresses, each with a hardware address of its own; interleaved rounds, ratios within each round. *steered*: `on_addr` with a rule\n`proto=\"arp\"`, so that most frames find their owner at once; *µs of servers and proxies*: processor time of their control groups per\nrequest, agents included; *of all*: the client's as well (on one machine, a frame's way through the switch is booked on who sent it).\nBulk: one stream; `on_port` deals two of three to another\nmember than the one it reaches first. Outage: the longest time without an answer for any of 16 clients that ask\nevery 10 ms. The filter by itself: `BPF_PROG_TEST_RUN` (a frame passed on is timed one by one, the clock's share taken off). Of the filter's nanoseconds, a frame of a connection spends seventy-five and more on the question\nwhether that connection is here, which is asked only where the bucket has earlier owners: after any node was away. An outage is the silence of\nfive pulses (400 to 500 ms) and what the machine's other work adds.\n\n{}",
        table(&figures)
    );
    report(&figures, json)?;
    if quick { Ok(()) } else { results("Farm", &text) }
}

/// The filter without a network.
fn alone(programs: &Path, flows: u32) -> anyhow::Result<Vec<Figure>> {
    let mut measure = Command::new(programs.join("stead-bench"));
    measure.args(["filter", "--flows", &flows.to_string()]);
    let said = crate::shell::must(&mut measure, Duration::from_secs(300))?;
    let said: Value = serde_json::from_str(&said)?;
    let of = |name: &str| said[name].as_f64().unwrap_or(f64::NAN);
    let cost = |name: &str, key: &str| Figure::new(format!("filter: {name}"), "ns").values([of(key)]);
    let mut figures = vec![
        cost("frame for another address", "cost_other_address"),
        cost("own, first of a connection", "cost_own_syn").goal(Goal::AtMost(80.0)),
        cost("own, of a connection", "cost_own_standing").goal(Goal::AtMost(80.0)),
        cost("passed on, first of a connection", "cost_passed_syn"),
        cost("passed on, of a connection", "cost_passed_standing"),
        Figure::new("reconfiguration: a view of 8 until the next packet is judged by it", "ms")
            .goal(Goal::AtMost(1.0))
            .values([of("show_us") / 1_000.0]),
    ];
    for members in [3, 8, 16] {
        for (name, key) in [("on_addr", "addr"), ("on_port", "port")] {
            let figure =
                Figure::new(format!("balance, {members} members, {flows} flows, {name}: worst from its share"), "%");
            let figure = figure.values([of(&format!("balance_{key}_{members}"))]);
            figures.push(if members <= 8 { figure.goal(Goal::AtMost(2.0)) } else { figure });
        }
    }
    Ok(figures)
}

/// Requests and streams, every candidate in turn.
fn loads(bench: &Bench, rounds: u32, ms: u64) -> anyhow::Result<Vec<Figure>> {
    use Candidate::{Addr, Direct, Haproxy, Jhash, Nginx, Port};
    const ALL: [Candidate; 6] = [Direct, Addr, Port, Haproxy, Nginx, Jhash];
    let mut figures = Vec::new();
    for load in ["keep-alive", "connections"] {
        let mut seen = vec![Vec::new(); ALL.len()];
        for round in 1..=rounds {
            for (candidate, seen) in ALL.iter().zip(&mut seen) {
                let one = bench.load(*candidate, load, ms, SERVERS)?;
                println!(
                    "round {round}: {load:<12} {:<34} {:>8.0} requests/s, {:>6.1} µs each, of all {:>6.1}, failed {}",
                    candidate.name(),
                    one.per_s,
                    one.servers_us,
                    one.all_us,
                    one.failed
                );
                seen.push(one);
            }
        }
        let place = |wanted: Candidate| ALL.iter().position(|it| *it == wanted).unwrap_or(0);
        let ratio = |a: Candidate, b: Candidate, of: fn(&lab::Seen) -> f64| {
            seen[place(a)].iter().zip(&seen[place(b)]).map(|(a, b)| of(a) / of(b)).collect::<Vec<_>>()
        };
        let servers = |seen: &lab::Seen| seen.servers_us;
        let all = |seen: &lab::Seen| seen.all_us;
        let goals: [(Candidate, Candidate, Option<Goal>); 6] = match load {
            "keep-alive" => [
                (Addr, Direct, Some(Goal::AtMost(1.1))),
                (Port, Direct, Some(Goal::AtMost(1.2))),
                (Haproxy, Addr, Some(Goal::AtLeast(2.4))),
                (Nginx, Addr, None),
                (Jhash, Direct, None),
                (Haproxy, Direct, None),
            ],
            _ => [
                (Addr, Direct, Some(Goal::AtMost(1.15))),
                (Port, Direct, None),
                (Haproxy, Addr, None),
                (Nginx, Addr, None),
                (Jhash, Direct, None),
                (Haproxy, Direct, None),
            ],
        };
        for (a, b, goal) in goals {
            let figure = Figure::new(format!("{load}: µs of servers and proxies, {} / {}", a.name(), b.name()), "×");
            let figure = goal.map_or(figure.clone(), |goal| figure.goal(goal));
            figures.push(figure.values(ratio(a, b, servers)));
            let whole = Figure::new(format!("{load}: µs of all, {} / {}", a.name(), b.name()), "×");
            figures.push(whole.values(ratio(a, b, all)));
        }
        for (candidate, seen) in ALL.iter().zip(&seen) {
            let figure = Figure::new(format!("{load}: {}", candidate.name()), "req/s");
            figures.push(figure.values(seen.iter().map(|seen| seen.per_s)));
        }
    }
    for load in ["upload", "download"] {
        let mut ratios = vec![Vec::new(); 3];
        for _ in 0..rounds {
            let direct = bench.stream(Direct, load, ms)?;
            for (candidate, ratios) in [Addr, Port, Haproxy].into_iter().zip(&mut ratios) {
                ratios.push(bench.stream(candidate, load, ms)? / direct);
            }
        }
        for (candidate, ratios) in [Addr, Port, Haproxy].into_iter().zip(ratios) {
            let figure = Figure::new(format!("{load}: {} / direct", candidate.name()), "×").values(ratios);
            let is_held = load == "upload" && candidate == Port;
            figures.push(if is_held { figure.goal(Goal::AtLeast(0.95)) } else { figure });
        }
    }
    Ok(figures)
}

/// Requests per second with two, four and eight members, and how long a view takes to reach all of eight.
fn members(bench: &Bench, ms: u64) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for count in [2, 4, 8] {
        bench.members(count)?;
        let mut seen = vec![Vec::new(); 2];
        for _ in 0..5 {
            for (candidate, seen) in [Candidate::Direct, Candidate::Addr].into_iter().zip(&mut seen) {
                seen.push(bench.load(candidate, "keep-alive", ms, count)?.per_s);
            }
        }
        for (candidate, seen) in [Candidate::Direct, Candidate::Addr].into_iter().zip(seen) {
            figures
                .push(Figure::new(format!("keep-alive, {count} members: {}", candidate.name()), "req/s").values(seen));
        }
    }
    let reached = Figure::new("reconfiguration: from the first of 8 members' tables to the last", "ms");
    figures.push(reached.goal(Goal::AtMost(5.0)).values(bench.view_reaches_all()?));
    bench.members(SERVERS)?;
    Ok(figures)
}
