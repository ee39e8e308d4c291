//! Two threads on loopback addresses, and an attacker who has heard everything.

use super::wire::{self, Body};
use super::*;
use model::{Epoch, ModuleState, Status};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

const KEY: [u8; 32] = [42; 32];

/// Each test has its own addresses, so that they can run at once and use one port.
fn addresses() -> [IpAddr; 2] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let test = NEXT.fetch_add(1, Ordering::Relaxed);
    [1, 2].map(|node| IpAddr::V4(Ipv4Addr::new(127, 48, test, node)))
}

fn config(node: u16, addresses: [IpAddr; 2]) -> Config {
    let (mine, theirs) = (addresses[usize::from(node) - 1], addresses[2 - usize::from(node)]);
    Config {
        cluster: ClusterId(77),
        node: NodeId(node),
        incarnation: 100 + u64::from(node),
        key: KEY,
        port: 14_800,
        networks: vec![Network { name: "net1".into(), local: mine }],
        peers: vec![Peer { node: NodeId(3 - node), addresses: vec![Some(theirs)] }],
        timing: Timing::DEFAULT,
        others: vec![],
    }
}

fn advert(counter: u64, state: ModuleState) -> (ModuleId, Advert) {
    let epoch = Some(Epoch { counter, node: NodeId(1), random: 5 });
    (ModuleId(1), Advert { epoch, state, status: Status::Ready })
}

/// Waits for an event that `find` makes something of.
fn expect<T>(events: &mut mpsc::Receiver<Event>, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match events.try_recv() {
            Ok(event) => {
                if let Some(found) = find(&event) {
                    return found;
                }
            }
            Err(mpsc::error::TryRecvError::Disconnected) => panic!("the thread has ended"),
            Err(mpsc::error::TryRecvError::Empty) => {
                assert!(Instant::now() < deadline, "never came: {what}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn has(signals: &[(Judge, Signal)], wanted: Signal) -> bool {
    signals.iter().any(|(_, signal)| *signal == wanted)
}

fn expect_signal(events: &mut mpsc::Receiver<Event>, wanted: Signal) -> u64 {
    expect(events, &format!("{wanted:?}"), |event| match event {
        Event::Signals { at_ms, signals, .. } if has(signals, wanted) => Some(*at_ms),
        _ => None,
    })
}

fn wait_for(heartbeat: &Heartbeat, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let snapshot = heartbeat.snapshot();
        if is_so(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "never so: {what}: {snapshot:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn counters(heartbeat: &Heartbeat) -> Counters {
    heartbeat.snapshot().networks.first().map(|network| network.counters).unwrap_or_default()
}

/// A node played by hand: bound where a node would be.
fn listen(address: IpAddr) -> UdpSocket {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match UdpSocket::bind((address, 14_800)) {
            Ok(socket) => {
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                return socket;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, Body) {
    let mut buffer = [0; 2_000];
    let (length, _) = socket.recv_from(&mut buffer).expect("a heartbeat within five seconds");
    (buffer[..length].to_vec(), wire::decode(&buffer[..length], &KEY).unwrap())
}

/// What node 2 would send to node 1.
fn forge(instance: u64, sequence: u64, echo: Option<(u64, u64)>) -> Body {
    Body {
        cluster: 77,
        from: 2,
        to: 1,
        network: wire::network_id("net1"),
        incarnation: 102,
        sequence,
        instance,
        sent_ms: platform::clock::boot_ms(),
        echo,
        hears: true,
        is_whole: true,
        digests: vec![],
    }
}

#[test]
fn two_nodes_hear_each_other_and_what_changes_at_once() {
    let addresses = addresses();
    let slow = |node| Config { timing: Timing::for_timeout(1_000, 5_000), ..config(node, addresses) };
    let (one, mut at_one) = Heartbeat::start(slow(1), vec![advert(1, ModuleState::Prim)]).unwrap();
    let (two, mut at_two) = Heartbeat::start(slow(2), vec![]).unwrap();
    expect_signal(&mut at_one, Signal::PeerHeard);
    // At the second one by the picture: the first word may come before the signal.
    wait_for(&two, "heard", |snapshot| snapshot.peers.first().is_some_and(|peer| peer.links[0].is_up));
    let told = |event: &Event, wanted: Option<ModuleState>| match event {
        Event::Adverts { from, incarnation, changed, .. } => {
            assert_eq!((*from, *incarnation), (NodeId(1), 101));
            changed.iter().any(|(_, advert)| advert.map(|advert| advert.state) == wanted).then_some(())
        }
        _ => None,
    };
    expect(&mut at_two, "the first word", |event| told(event, Some(ModuleState::Prim)));
    let start = Instant::now();
    one.set_adverts(vec![advert(2, ModuleState::Alone)]);
    expect(&mut at_two, "the change", |event| told(event, Some(ModuleState::Alone)));
    assert!(start.elapsed() < Duration::from_millis(700), "not before the next pulse: {:?}", start.elapsed());
    one.set_adverts(vec![]);
    expect(&mut at_two, "the module's end", |event| told(event, None));
    let snapshot = wait_for(&two, "window open", |snapshot| snapshot.peers[0].window_until_ms.is_some());
    assert!(two.window_is_open(NodeId(1)) && snapshot.peers[0].links[0].is_up && snapshot.realtime.is_some());
}

#[test]
fn the_first_heartbeat_is_out_within_300_ms_and_a_restart_is_heard() {
    let addresses = addresses();
    let socket = listen(addresses[0]);
    let start = Instant::now();
    let (two, _at_two) = Heartbeat::start(config(2, addresses), vec![]).unwrap();
    receive(&socket);
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    drop(socket);
    let (one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    expect_signal(&mut at_one, Signal::PeerHeard);
    drop(two);
    let start = Instant::now();
    let (_two, mut at_two) = Heartbeat::start(Config { incarnation: 500, ..config(2, addresses) }, vec![]).unwrap();
    expect_signal(&mut at_two, Signal::PeerHeard);
    wait_for(&one, "the new start is known", |snapshot| snapshot.peers[0].incarnation == Some(500));
    assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    // One timeout has not passed: nobody was lost.
    while let Ok(event) = at_one.try_recv() {
        assert!(!matches!(&event, Event::Signals { signals, .. } if has(signals, Signal::PeerSilent)), "{event:?}");
    }
}

#[test]
fn a_dead_peer_falls_silent_after_the_timeout() {
    let addresses = addresses();
    let (_one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    let (two, _at_two) = Heartbeat::start(config(2, addresses), vec![]).unwrap();
    expect_signal(&mut at_one, Signal::PeerHeard);
    drop(two);
    let dead_ms = platform::clock::boot_ms();
    let probe_ms = expect_signal(&mut at_one, Signal::ProbeMayBegin);
    let silent_ms = expect_signal(&mut at_one, Signal::PeerSilent);
    assert!(probe_ms < silent_ms);
    let after = silent_ms.saturating_sub(dead_ms);
    assert!((850..2_000).contains(&after), "{after} ms (the upper bound is generous for a busy machine)");
}

/// Before it falls silent it has said for how long its filters go on; the next agent's first word takes that back.
#[test]
fn an_agent_that_ends_says_so_and_the_next_one_is_there_again() {
    let addresses = addresses();
    let (one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    let leaver = |incarnation| Heartbeat::start(Config { incarnation, ..config(2, addresses) }, vec![]).unwrap();
    let (two, mut at_two) = leaver(102);
    two.set_words(vec![(ModuleId(3), Said::default())]);
    expect_signal(&mut at_two, Signal::PeerHeard);
    let away = |wanted: Option<u16>| {
        move |event: &Event| match event {
            Event::Signals { signals, .. } if has(signals, Signal::PeerSilent) => panic!("silent before it said so"),
            Event::Words { words, .. } => (words.away_ms == wanted).then_some(words.of.len()),
            _ => None,
        }
    };
    let told = expect(&mut at_one, "its farm", |event| away(None)(event).filter(|count| *count > 0));
    two.leave(2_500);
    assert_eq!(expect(&mut at_one, "its farewell", away(Some(2_500))), told, "what it said of its farms goes on");
    let (next, _at_next) = leaver(103);
    wait_for(&one, "the next one is heard", |snapshot| snapshot.peers[0].incarnation == Some(103));
    // It does not know its farms yet: what was said before goes on.
    while let Ok(event) = at_one.try_recv() {
        assert!(!matches!(&event, Event::Words { words, .. } if words.away_ms == Some(0)), "{event:?}");
    }
    next.set_words(vec![(ModuleId(3), Said::default())]);
    expect(&mut at_one, "it knows its farms", away(Some(0)));
}

/// The attacker recorded everything node 2 ever sent to node 1, before and after node 1's restart.
#[test]
fn recordings_do_not_bring_a_dead_node_to_life() {
    let addresses = addresses();
    let (two, mut at_two) = Heartbeat::start(config(2, addresses), vec![]).unwrap();
    // Node 1, an earlier start, played by hand so that node 2's words to it are on the tape.
    let socket = listen(addresses[0]);
    let mut tape = Vec::new();
    let (_, first) = receive(&socket);
    for sequence in 1..=5 {
        let echo = Some((first.instance, receive(&socket).1.sent_ms));
        let mut body = forge(9, sequence, echo);
        (body.from, body.to) = (1, 2);
        socket.send_to(&wire::encode(&body, &KEY), (addresses[1], 14_800)).unwrap();
        tape.push(receive(&socket));
    }
    expect_signal(&mut at_two, Signal::PeerHeard);
    assert!(tape.iter().any(|(_, body)| body.echo.is_some_and(|(instance, _)| instance == 9)), "node 2 was convinced");
    drop((two, socket));

    let (one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    wait_for(&one, "node 1 sends", |_| counters(&one).sent > 0);
    let attacker = listen(addresses[1]);
    for _ in 0..3 {
        for (datagram, _) in &tape {
            attacker.send_to(datagram, (addresses[0], 14_800)).unwrap();
        }
    }
    wait_for(&one, "all are seen", |_| counters(&one).unconfirmed == 3 * tape.len() as u64);
    assert_eq!(counters(&one).counted, 0);
    expect_signal(&mut at_one, Signal::PeerSilent);

    // The same with words of *this* session: one that counted counts once, whatever is repeated.
    drain(&attacker);
    let (_, fresh) = receive(&attacker);
    let live = wire::encode(&forge(10, 1, Some((fresh.instance, fresh.sent_ms))), &KEY);
    for _ in 0..4 {
        attacker.send_to(&live, (addresses[0], 14_800)).unwrap();
    }
    wait_for(&one, "one counts, three do not", |_| (counters(&one).counted, counters(&one).replayed) == (1, 3));
    let heard = |event: &Event| matches!(event, Event::Heard { .. }).then_some(());
    expect(&mut at_one, "it is heard", heard);
    assert_eq!(std::iter::from_fn(|| at_one.try_recv().ok()).filter_map(|event| heard(&event)).count(), 0, "once");
}

fn drain(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    while socket.recv_from(&mut [0; 2_000]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
}

#[test]
fn forged_altered_foreign_and_misdirected_datagrams_are_counted_and_nothing_else() {
    let addresses = addresses();
    let (one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    let peer = listen(addresses[1]);
    let (recorded, fresh) = receive(&peer);
    let echo = Some((fresh.instance, fresh.sent_ms));
    let good = forge(10, 1, echo);
    let send = |datagram: &[u8]| {
        peer.send_to(datagram, (addresses[0], 14_800)).unwrap();
    };
    send(b"");
    send(&[1; 10]);
    send(&[2; 300]);
    send(&[0xff; 1_400]);
    for at in [0, 1, 20, 40] {
        let mut altered = wire::encode(&good, &KEY);
        let at = altered.len() - 1 - at;
        altered[at] ^= 1;
        send(&altered);
    }
    send(&wire::encode(&good, &[43; 32]));
    send(&recorded); // Its own word, thrown back.
    send(&wire::encode(&Body { cluster: 78, ..good.clone() }, &KEY));
    send(&wire::encode(&Body { to: 3, ..good.clone() }, &KEY));
    send(&wire::encode(&Body { from: 3, ..good.clone() }, &KEY));
    send(&wire::encode(&Body { network: wire::network_id("net2"), ..good.clone() }, &KEY));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&wire::encode(&good, &KEY), (addresses[0], 14_800)).unwrap();
    let seen = |_: &Snapshot| {
        let counters = counters(&one);
        (counters.garbage, counters.forged, counters.misdirected, counters.strangers) == (4, 5, 5, 1)
    };
    wait_for(&one, "each is counted where it belongs", seen);
    assert_eq!((counters(&one).counted, counters(&one).unconfirmed), (0, 0));
    while let Ok(event) = at_one.try_recv() {
        assert!(!matches!(&event, Event::Heard { .. } | Event::Adverts { .. }), "{event:?}");
    }
    // And the same words, untouched, are welcome.
    let (_, fresh) = receive(&peer);
    send(&wire::encode(&forge(10, 1, Some((fresh.instance, fresh.sent_ms))), &KEY));
    expect(&mut at_one, "the good one", |event| matches!(event, Event::Heard { hears_me: true, .. }).then_some(()));
}

#[test]
fn more_modules_than_fit_are_told_in_turns() {
    let addresses = addresses();
    let modules = (1..=100).map(|module| (ModuleId(module), advert(u64::from(module), ModuleState::Prim).1)).collect();
    let (_one, _at_one) = Heartbeat::start(config(1, addresses), modules).unwrap();
    let (_two, mut at_two) = Heartbeat::start(config(2, addresses), vec![]).unwrap();
    let mut known = std::collections::BTreeSet::new();
    expect(&mut at_two, "all hundred", |event| {
        if let Event::Adverts { changed, .. } = event {
            known.extend(changed.iter().filter(|(_, advert)| advert.is_some()).map(|(module, _)| *module));
        }
        (known.len() == 100).then_some(())
    });
}

#[test]
fn each_patience_judges_the_same_pulses_for_itself() {
    let addresses = addresses();
    let (hasty, slow) = (Timing::for_timeout(50, 200), Timing::for_timeout(500, 3_000));
    let judging = |node, others: Vec<Timing>| Config {
        others: others.into_iter().map(Judge::by_any).collect(),
        ..config(node, addresses)
    };
    let (one, mut at_one) = Heartbeat::start(judging(1, vec![hasty]), vec![]).unwrap();
    let (two, _at_two) = Heartbeat::start(judging(2, vec![hasty]), vec![]).unwrap();
    let mut heard = vec![];
    expect(&mut at_one, "both hear it", |event| {
        let Event::Signals { signals, .. } = event else { return None };
        heard.extend(signals.iter().filter(|(_, signal)| *signal == Signal::PeerHeard).map(|(judge, _)| judge.timing));
        (heard.contains(&hasty) && heard.contains(&Timing::DEFAULT)).then_some(())
    });
    one.reconfigure(judging(1, vec![hasty, slow]));
    expect(&mut at_one, "the one that came later hears it, and the others hear nothing new", |event| {
        let Event::Signals { signals, .. } = event else { return None };
        signals.contains(&(Judge::by_any(slow), Signal::PeerHeard)).then_some(())
    });
    drop(two);
    let mut silent = vec![];
    expect(&mut at_one, "each finds it silent", |event| {
        let Event::Signals { signals, .. } = event else { return None };
        silent
            .extend(signals.iter().filter(|(_, signal)| *signal == Signal::PeerSilent).map(|(judge, _)| judge.timing));
        (silent.len() == 3).then_some(())
    });
    assert_eq!(silent, [hasty, Timing::DEFAULT, slow]);
}

#[test]
fn what_a_peer_says_is_news_again_after_its_silence() {
    let addresses = addresses();
    let (_one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    for _ in 0..2 {
        let (two, _at_two) = Heartbeat::start(config(2, addresses), vec![advert(1, ModuleState::Prim)]).unwrap();
        expect(&mut at_one, "its word", |event| match event {
            Event::Adverts { changed, .. } => {
                changed.iter().any(|(_, it)| *it == Some(advert(1, ModuleState::Prim).1)).then_some(())
            }
            _ => None,
        });
        drop(two);
        expect_signal(&mut at_one, Signal::PeerSilent);
    }
}

#[test]
fn an_agent_that_does_not_read_loses_no_signal_and_stops_nothing() {
    let addresses = addresses();
    let (one, mut at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    let quick = Config { timing: Timing::for_timeout(5, 1_000), ..config(2, addresses) };
    let (two, _at_two) = Heartbeat::start(quick, vec![advert(1, ModuleState::Prim)]).unwrap();
    wait_for(&one, "the channel is full", |_| counters(&one).counted > 2 * EVENTS_MAX as u64);
    assert_eq!(at_one.len(), EVENTS_MAX);
    two.set_adverts(vec![advert(2, ModuleState::Alone)]);
    let before = counters(&one).counted;
    wait_for(&one, "it goes on counting", |_| counters(&one).counted > before + 50);
    drop(two);
    wait_for(&one, "it fell silent", |snapshot| !snapshot.peers[0].links[0].is_up);
    let mut last = None;
    expect(&mut at_one, "silence", |event| {
        if let Event::Adverts { changed, .. } = event {
            last = changed.first().and_then(|(_, advert)| *advert);
        }
        matches!(event, Event::Signals { signals, .. } if has(signals, Signal::PeerSilent)).then_some(())
    });
    // The last word may come after the last signal; words in between may be lost.
    if last.is_none_or(|advert| advert.state != ModuleState::Alone) {
        expect(&mut at_one, "the last word", |event| match event {
            Event::Adverts { changed, .. } => {
                changed.iter().any(|(_, advert)| advert.is_some_and(|it| it.state == ModuleState::Alone)).then_some(())
            }
            _ => None,
        });
    }
}

#[test]
fn extra_pulses_put_off_no_ordinary_one() {
    let addresses = addresses();
    let (one, _at_one) = Heartbeat::start(config(1, addresses), vec![]).unwrap();
    let (_two, mut at_two) = Heartbeat::start(config(2, addresses), vec![]).unwrap();
    expect_signal(&mut at_two, Signal::PeerHeard);
    let before = counters(&one).sent;
    for counter in 0..50 {
        one.set_adverts(vec![advert(counter, ModuleState::Prim)]);
        std::thread::sleep(Duration::from_millis(2));
    }
    wait_for(&one, "extra pulses are sent", |_| counters(&one).sent > before + 10);
    let quiet_from = counters(&one).sent;
    let start = Instant::now();
    wait_for(&one, "five ordinary ones follow", |_| counters(&one).sent > quiet_from + 5);
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    while let Ok(event) = at_two.try_recv() {
        assert!(!matches!(&event, Event::Signals { signals, .. } if has(signals, Signal::PeerSilent)), "{event:?}");
    }
}

#[test]
fn a_missing_address_is_a_status_not_a_failure() {
    let addresses = addresses();
    let absent = Network { name: "net2".into(), local: "192.0.2.1".parse().unwrap() };
    let mut with_absent = config(1, addresses);
    with_absent.networks.push(absent);
    with_absent.peers[0].addresses.push(Some("192.0.2.2".parse().unwrap()));
    let (one, mut at_one) = Heartbeat::start(with_absent, vec![]).unwrap();
    let (_two, _at_two) = Heartbeat::start(config(2, addresses), vec![]).unwrap();
    expect_signal(&mut at_one, Signal::LinkUp(0));
    let snapshot = wait_for(&one, "the problem is told", |snapshot| snapshot.networks[1].problem.is_some());
    assert!(snapshot.networks[1].problem.as_ref().unwrap().contains("192.0.2.1"), "{snapshot:?}");
    assert_eq!(snapshot.networks[0].problem, None);
    assert!(!snapshot.peers[0].links[1].is_up && snapshot.peers[0].links[1].is_configured);

    // cluster.xml changes: the network goes, the peer is heard again.
    one.reconfigure(config(1, addresses));
    wait_for(&one, "one network, up", |snapshot| snapshot.networks.len() == 1 && snapshot.peers[0].links[0].is_up);
}
