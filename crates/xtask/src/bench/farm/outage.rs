//! How long clients wait when a member dies, or the director; keepalived's address beside it.

use super::super::figure::{Figure, Goal};
use super::lab::Bench;
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const MODULE: &str = "steered";
const FARM: &str = "10.0.1.100";
const VRRP: &str = "10.0.1.110";
const CLIENTS: u32 = 16;
const SOON: Duration = Duration::from_secs(40);
/// Long after everything has moved: keepalived's takes three seconds.
const AFTERWARDS: Duration = Duration::from_millis(1_500);

pub fn measure(bench: &Bench, rounds: u32) -> anyhow::Result<Vec<Figure>> {
    let names =
        ["a member dies: farm, defaults", "the director dies: farm, defaults", "keepalived, 1 s", "keepalived, 100 ms"];
    let mut figures: Vec<Figure> = names.iter().map(|name| Figure::new(format!("outage, {name}"), "ms")).collect();
    figures[0] = figures[0].clone().goal(Goal::AtMost(550.0));
    figures[1] = figures[1].clone().goal(Goal::AtMost(550.0));
    for round in 1..=rounds {
        for (figure, directs) in figures.iter_mut().zip([false, true]) {
            figure.values.push(farm(bench, directs).with_context(|| format!("farm, directs: {directs}"))?);
        }
        for (figure, advert_ms) in figures[2..].iter_mut().zip([1_000, 100]) {
            figure.values.push(keepalived(bench, advert_ms).with_context(|| format!("keepalived, {advert_ms} ms"))?);
        }
        let last: Vec<String> = figures.iter().filter_map(|f| f.values.last()).map(|ms| format!("{ms:.0}")).collect();
        println!("round {round}: outages in ms, member · director · keepalived 1 s · 100 ms: {}", last.join(" · "));
    }
    Ok(figures)
}

/// The longest time without an answer for any of the clients around what `strike` does.
fn outage(bench: &Bench, to: &str, strike: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let cluster = &bench.cluster;
    let dir = std::env::temp_dir().join(format!("stead-outage-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (running, record) = (dir.join("running"), dir.join("record"));
    std::fs::write(&running, "")?;
    let program = cluster.programs().join("stead-bench").to_string_lossy().into_owned();
    let (to, from) = (format!("{to}:80"), bench.from(CLIENTS));
    let (r, w) = (running.to_string_lossy(), record.to_string_lossy());
    let mut probe = cluster.spawn("client", &[&program, "outage", &to, &r, &w, "--from", &from], &dir.join("log"))?;
    let measured = (|| {
        wait_for("all clients are answered", SOON, || Ok((seen(&record).len() == CLIENTS as usize).then_some(())))?;
        let begin = now_ms();
        strike()?;
        let struck = now_ms();
        wait_for("all clients are answered again", SOON, || {
            let after = struck + AFTERWARDS.as_millis() as u64;
            let back = seen(&record).values().filter(|times| times.last().is_some_and(|last| *last > after)).count();
            Ok((back == CLIENTS as usize).then_some(()))
        })
        .with_context(|| {
            let last = |times: &Vec<u64>| times.last().map(|last| *last as i64 - struck as i64);
            format!("last answers after the blow, in ms: {:?}", seen(&record).values().map(last).collect::<Vec<_>>())
        })?;
        let gaps = seen(&record);
        let longest = gaps.values().flat_map(|times| times.windows(2)).filter(|pair| pair[1] >= begin);
        longest.map(|pair| pair[1] - pair[0]).max().context("no answers")
    })();
    std::fs::remove_file(&running)?;
    probe.wait()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(measured? as f64)
}

/// When each client was answered.
fn seen(record: &PathBuf) -> BTreeMap<String, Vec<u64>> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    // The last line may be half written.
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(at), Some(client), Some(_who)) = (words.next(), words.next(), words.next()) else { continue };
        if let Ok(at) = at.parse() {
            seen.entry(client.to_string()).or_default().push(at);
        }
    }
    seen.values_mut().for_each(|times| times.sort_unstable());
    seen
}

fn farm(bench: &Bench, directs: bool) -> anyhow::Result<f64> {
    let cluster = &bench.cluster;
    let view = cluster.view("node1", MODULE).context("node1 says nothing of the farm")?;
    let director = view["farm"]["director"].as_str().context("nobody directs")?.to_string();
    let nodes = ["node1", "node2", "node3"];
    let victim = nodes.into_iter().find(|node| (*node == director) == directs).context("no such node")?;
    let outage = outage(bench, FARM, || cluster.act(&["power", "cut", victim]))?;
    cluster.act(&["power", "on", victim])?;
    // By itself, as after any power cut.
    bench.all_serve(super::SERVERS)?;
    Ok(outage)
}

fn keepalived(bench: &Bench, advert_ms: u32) -> anyhow::Result<f64> {
    let cluster = &bench.cluster;
    // Two nodes that no farm serves on now.
    for (node, priority) in [("node5", 200), ("node6", 100)] {
        let configuration = format!(
            "global_defs {{\n router_id {node}\n vrrp_version 3\n}}\nvrrp_instance V {{\n interface net1\n virtual_router_id 51\n priority {priority}\n advert_int {}\n virtual_ipaddress {{\n  {VRRP}/24\n }}\n}}\n",
            f64::from(advert_ms) / 1_000.0
        );
        let script = format!(
            "cat > /run/bench/k.conf <<'END'\n{configuration}END\n[ -e /run/bench/pid ] && kill -0 $(cat /run/bench/pid) 2>/dev/null || nginx -p /run/bench -c /run/bench/nginx.conf\nexec keepalived -f /run/bench/k.conf -p /run/bench/k.pid -r /run/bench/kv.pid"
        );
        cluster.exec(node, &["sh", "-c", &script])?;
    }
    let holds = |node: &str| -> anyhow::Result<bool> {
        Ok(cluster.try_exec(node, &["ip", "-o", "-4", "addr"])?.stdout.contains(VRRP))
    };
    wait_for("keepalived holds its address", SOON, || Ok((holds("node5")? && !holds("node6")?).then_some(())))?;
    let outage = outage(bench, VRRP, || cluster.act(&["power", "cut", "node5"]))?;
    cluster.act(&["power", "on", "node5"])?;
    for node in ["node5", "node6"] {
        // Gone before the next one starts: two on one node are none.
        let end = "mkdir -p /run/bench; [ -e /run/bench/k.pid ] || exit 0; p=$(cat /run/bench/k.pid); kill $p; for i in $(seq 200); do kill -0 $p 2> /dev/null || break; sleep 0.05; done; rm -f /run/bench/k.pid /run/bench/kv.pid";
        cluster.exec(node, &["sh", "-c", end])?;
    }
    bench.configure("node5")?;
    wait_for("keepalived is gone", SOON, || Ok((!holds("node6")?).then_some(())))?;
    Ok(outage)
}
