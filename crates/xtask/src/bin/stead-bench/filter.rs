//! The farm's packet filter without a network: nanoseconds per packet, and the balance over many flows, through the kernel's test run.
//!
//! Runs in a network namespace with the addresses [`VIP`] and [`CLIENT`] on `lo`: a connection that stands is a real one.

use crate::latency::Figures;
use anyhow::{Context, ensure};
use cluster::farm::picture::{Plan, Presence};
use cluster::farm::shares::Shares;
use model::NodeId;
use model::farm::{Filter as By, NodeSet, Picture, Proto, Rule, Station, View};
use platform::farm::Filter;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 9);
/// Rule by client; the other port's is by connection.
const BY_ADDR: u16 = 80;
const BY_PORT: u16 = 443;
const RUNS: u32 = 1_000_000;
/// Frames that change as they are passed on are played one by one.
const SINGLE: usize = 200_000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn picture(members: u16) -> Picture {
    let nodes: Vec<NodeId> = (1..=members).map(NodeId).collect();
    let powers: Vec<(NodeId, u64)> = nodes.iter().map(|node| (*node, 1)).collect();
    // As after a rolling restart of all.
    let mut past = vec![nodes.clone()];
    past.extend(nodes.iter().map(|gone| nodes.iter().copied().filter(|node| node != gone).collect::<Vec<_>>()));
    let rule = |port, filter| Rule { vip: None, port: Some(port), proto: Proto::Tcp, filter, group: 0 };
    Picture {
        number: u64::from(members),
        me: 0,
        director: 0,
        stations: (0u8..).zip(&nodes).map(|(at, node)| Station { node: *node, mac: mac(at) }).collect(),
        since: vec![1; nodes.len()],
        vips: vec![IpAddr::V4(VIP)],
        vmacs: vec![None],
        pin_ms: 0,
        part_ms: 2_000,
        doubts: false,
        rules: vec![rule(BY_ADDR, By::OnAddr), rule(BY_PORT, By::OnPort)],
        arp_group: None,
        tables: vec![Shares::new(&powers).table(&nodes, &past)],
    }
}

const fn mac(member: u8) -> [u8; 6] {
    [2, 0, 0, 0, 7, member]
}

/// A frame of 66 bytes from a client to the first member.
fn frame(client: Ipv4Addr, from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![0u8; 66];
    frame[..6].copy_from_slice(&mac(0));
    frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[17] = 52;
    frame[22] = 64;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&client.octets());
    frame[30..34].copy_from_slice(&VIP.octets());
    frame[34..36].copy_from_slice(&from.to_be_bytes());
    frame[36..38].copy_from_slice(&to.to_be_bytes());
    frame[46] = 0x80;
    frame[47] = flags;
    frame
}

/// The place of the member that keeps it, or to which it is passed.
fn owner(filter: &mut Filter, frame: &[u8]) -> anyhow::Result<u8> {
    let (verdict, after) = filter.play(frame)?;
    match verdict {
        0 => Ok(0),
        7 => Ok(after[5]),
        other => anyhow::bail!("a frame for the farm was answered with {other}"),
    }
}

/// A namespace of this thread's own, with both addresses.
fn namespace() -> anyhow::Result<()> {
    // SAFETY: an integer is passed; the process has one thread.
    ensure!(
        unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0,
        "no network namespace: {}",
        std::io::Error::last_os_error()
    );
    let script = format!("ip link set lo up && ip addr add {VIP}/32 dev lo && ip addr add {CLIENT}/32 dev lo");
    ensure!(std::process::Command::new("sh").arg("-c").arg(script).status()?.success(), "addresses on lo");
    Ok(())
}

pub fn run(flows: u32) -> anyhow::Result<Figures> {
    namespace()?;
    let mut filter = Filter::load()?;
    filter.renew(Duration::from_secs(3_600))?;
    filter.show(&picture(3))?;
    let mut figures = costs(&mut filter)?;
    figures.insert("show_us".into(), show(&mut filter)?);
    for members in [2, 3, 4, 8, 16] {
        filter.show(&picture(members))?;
        for (name, by) in [("addr", BY_ADDR), ("port", BY_PORT)] {
            let worst = balance(&mut filter, members, by, flows)?;
            figures.insert(format!("balance_{name}_{members}"), worst);
        }
    }
    Ok(figures)
}

/// Microseconds from a view to the next packet that is judged by it: eight members, each of which was away once. Median.
fn show(filter: &mut Filter) -> anyhow::Result<f64> {
    let nodes: NodeSet = (1..=8).map(NodeId).collect();
    let shares = Shares::new(&nodes.nodes().map(|node| (node, 1)).collect::<Vec<_>>());
    let vmacs = vec![None];
    let plan =
        Plan { vips: vec![IpAddr::V4(VIP)], vmacs, rules: picture(8).rules, arp_group: None, groups: vec![shares] };
    let (mut times, mut presence) = (Vec::new(), Presence::default());
    for counter in 1..=51 {
        let mut past = vec![nodes];
        past.extend(nodes.nodes().map(|gone| nodes.without(gone)));
        let view = View { counter, director: NodeId(1), instance: 1, present: nodes, past };
        let begin = Instant::now();
        presence.see(&view);
        let picture = plan.picture(&view, &presence, NodeId(1), |node| Some(mac(node.0 as u8 - 1)));
        filter.show(&picture.context("the view has this node")?)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// Nanoseconds for each kind of frame.
fn costs(filter: &mut Filter) -> anyhow::Result<Figures> {
    let listener = TcpListener::bind((VIP, BY_ADDR))?;
    let ours = (1u16..).map(|from| frame(CLIENT, from, BY_PORT, SYN));
    let ours = ours.take(1000).find(|frame| owner(filter, frame).is_ok_and(|it| it == 0)).context("no flow is ours")?;
    let (mut theirs, mut own_client) = (None, None);
    for low in 1..=250u8 {
        let client = Ipv4Addr::new(10, 0, 1, low);
        match owner(filter, &frame(client, 5, BY_ADDR, SYN))? {
            0 => own_client = Some(client),
            _ => theirs = Some(client),
        }
    }
    let (theirs, own_client) = (theirs.context("all are ours")?, own_client.context("none is ours")?);
    let script = format!("ip addr add {own_client}/32 dev lo 2>/dev/null || true");
    std::process::Command::new("sh").arg("-c").arg(script).status()?;
    let client = crate::web::connect(Some(&own_client.into()), SocketAddr::from((VIP, BY_ADDR)))?;
    let (_server, from) = listener.accept()?;
    let standing = frame(own_client, from.port(), BY_ADDR, ACK);
    let mut of_others = frame(CLIENT, 7, BY_ADDR, SYN);
    of_others[30..34].copy_from_slice(&[10, 0, 1, 2]);
    let mut figures = Figures::new();
    for (name, frame) in [("cost_other_address", &of_others), ("cost_own_syn", &ours), ("cost_own_standing", &standing)]
    {
        figures.insert(name.into(), filter.cost(frame, RUNS)?.as_nanos() as f64);
    }
    let mut single = |frame: &[u8]| -> anyhow::Result<f64> {
        let mut times = BTreeMap::<u128, usize>::new();
        for _ in 0..SINGLE {
            *times.entry(filter.cost(frame, 1)?.as_nanos()).or_default() += 1;
        }
        let mut seen = 0;
        let median = times.iter().find(|(_, count)| {
            seen += **count;
            seen * 2 >= SINGLE
        });
        Ok(median.map_or(f64::NAN, |(nanos, _)| *nanos as f64))
    };
    // One run is timed with its clock: what a frame of nobody's takes so is known from many runs, the rest is the clock's.
    let clock = single(&of_others)? - figures["cost_other_address"];
    for (name, flags) in [("cost_passed_syn", SYN), ("cost_passed_standing", ACK)] {
        figures.insert(name.into(), single(&frame(theirs, 5, BY_ADDR, flags))? - clock);
    }
    drop(client);
    Ok(figures)
}

/// How far the worst member is from its share, in percent.
fn balance(filter: &mut Filter, members: u16, by: u16, flows: u32) -> anyhow::Result<f64> {
    let mut counts = vec![0u32; usize::from(members)];
    for flow in 0..flows {
        // Clients of a large network, or the connections of a few hundred clients.
        let (client, from) = match by {
            BY_ADDR => (Ipv4Addr::from(0x0a00_0000 | flow), 40_000),
            _ => (Ipv4Addr::from(0x0a01_0000 | flow / 20_000), 10_000 + (flow % 20_000) as u16),
        };
        counts[usize::from(owner(filter, &frame(client, from, by, SYN))?)] += 1;
    }
    let fair = f64::from(flows) / f64::from(members);
    Ok(counts.iter().map(|count| (f64::from(*count) / fair - 1.0).abs() * 100.0).fold(0.0, f64::max))
}
