//! What the agent's orders do to an application: hold, lease, fence, covers, adoption.

mod common;

use common::{Agent, Bench, DEADLINE, alone, be_mirrorfs_if_asked, epoch, eventually, sh};
use model::ids::DataId;
use model::orders::{Order, Report, Situation};
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

#[test]
fn mirrorfs_process() {
    be_mirrorfs_if_asked();
}

/// Long enough to be sure that something waits, short enough to be patient.
const A_MOMENT: Duration = Duration::from_millis(150);

fn serving() -> (Agent, Bench) {
    let bench = Bench::new(32);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(bench.configuration());
    (agent, bench)
}

/// A shell command in its own process; its exit status arrives when it ends.
fn application(command: String) -> (u32, Receiver<std::process::ExitStatus>) {
    let mut child: Child = Command::new("sh").arg("-c").arg(command).stderr(Stdio::null()).spawn().expect("sh");
    let (tx, rx) = channel();
    let pid = child.id();
    std::thread::spawn(move || tx.send(child.wait().expect("wait")));
    (pid, rx)
}

fn is_covered(bench: &Bench) -> bool {
    platform::mounts::is_covered(&bench.data()).expect("mount table")
        && fs::write(bench.data().join("probe"), "x").is_err_and(|e| e.raw_os_error() == Some(libc::EROFS))
}

#[test]
fn while_held_a_write_waits_and_nothing_reaches_the_disk_then_it_goes_on() {
    let (mut agent, bench) = serving();
    agent.reach(&Order::Hold);
    let (_, done) = application(format!("echo held > {}/f", bench.data().display()));
    assert!(done.recv_timeout(A_MOMENT).is_err(), "a write was answered while held");
    assert!(!bench.lower().join("f").exists(), "a write reached the disk while held");
    agent.reach(&alone(false));
    assert!(done.recv_timeout(DEADLINE).expect("goes on").success());
    assert_eq!(fs::read(bench.lower().join("f")).expect("read below"), b"held\n");
}

#[test]
fn a_lapsed_lease_holds_and_a_renewed_one_lets_go() {
    let (agent, bench) = serving();
    fs::write(bench.data().join("f"), "x").expect("write");
    agent.lease(false);
    // The last lease is at most two seconds long.
    std::thread::sleep(Duration::from_millis(2_100));
    let (_, write) = application(format!("echo y >> {}/f", bench.data().display()));
    let (_, look) = application(format!("ls {}/nothing-known-of", bench.data().display()));
    assert!(write.recv_timeout(A_MOMENT).is_err(), "a write was answered without a lease");
    assert!(look.try_recv().is_err(), "a lookup was answered without a lease");
    agent.lease(true);
    assert!(write.recv_timeout(DEADLINE).expect("goes on").success());
    assert!(!look.recv_timeout(DEADLINE).expect("goes on").success(), "the file does not exist");
}

#[test]
fn a_fence_answers_eio_to_those_who_wait_and_leaves_the_directory_covered() {
    let (mut agent, bench) = serving();
    fs::write(bench.data().join("f"), "x").expect("write");
    agent.reach(&Order::Hold);
    let d = bench.data();
    let (pid, done) = application(format!("echo y >> {}/f", d.display()));
    assert!(done.recv_timeout(A_MOMENT).is_err());
    agent.reach(&Order::Fence);
    assert!(!done.recv_timeout(DEADLINE).expect("answered").success(), "process {pid} must get an error");
    assert!(is_covered(&bench));
    assert_eq!(fs::read(d.join("f")).expect("read through the cover"), b"x");
    // And it can serve again, in the same process.
    agent.reach(&alone(false));
    fs::write(d.join("g"), "z").expect("write");
}

/// Who hears "idle" gives the directory back, and ends this process.
#[test]
fn nothing_is_called_idle_before_its_mounts_are_gone() {
    let bench = Bench::new(32);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.reach(&Order::Configure { configuration: bench.configuration() });
    // The fence acts at once, in the middle of the order before it: at another place of it in each turn.
    let idle = Report::Reached { situation: Situation::Idle };
    for turn in 0..60 {
        agent.order(&alone(true));
        std::thread::sleep(Duration::from_micros(250 * turn));
        agent.order(&Order::Fence);
        let mut outcome = || agent.wait("outcome", |r| matches!(r, Report::Reached { .. } | Report::Refused { .. }));
        let (opened, fenced) = (outcome(), outcome());
        assert!(opened != idle, "turn {turn}: called idle while it is mounted");
        assert_eq!(fenced, idle, "turn {turn}");
        assert!(is_covered(&bench), "turn {turn}");
    }
}

#[test]
fn a_fence_acts_at_once_even_when_the_lease_is_long_gone() {
    let (mut agent, bench) = serving();
    agent.reach(&Order::Hold);
    agent.lease(false);
    let waiting: Vec<_> = (0..40).map(|i| application(format!("echo y > {}/f{i}", bench.data().display())).1).collect();
    std::thread::sleep(A_MOMENT);
    let before = Instant::now();
    agent.reach(&Order::Fence);
    for done in waiting {
        assert!(!done.recv_timeout(DEADLINE).expect("answered").success());
    }
    assert!(before.elapsed() < Duration::from_secs(5), "fencing took {:?}", before.elapsed());
}

#[test]
fn when_mirrorfs_is_killed_with_its_keeper_the_cover_is_still_there_and_the_next_one_serves_the_same_data() {
    let (mut agent, bench) = serving();
    fs::write(bench.data().join("f"), "x").expect("write");
    agent.end();
    let error = fs::write(bench.data().join("f"), "y").expect_err("nobody answers");
    assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error}");
    let mut agent = Agent::start(&bench.path("socket"));
    agent.reach(&Order::Configure { configuration: bench.configuration() });
    assert!(is_covered(&bench), "the dead mount is gone, the cover is not");
    agent.reach(&alone(false));
    assert_eq!(fs::read(bench.data().join("f")).expect("read"), b"x");
    fs::write(bench.data().join("f"), "y").expect("write");
}

#[test]
fn a_process_that_holds_the_tree_open_is_named() {
    let bench = Bench::new(32);
    fs::write(bench.data().join("log"), "").expect("write");
    let mut holder = Command::new("sleep")
        .arg("1000")
        .stdout(fs::File::options().append(true).open(bench.data().join("log")).expect("open"))
        .spawn()
        .expect("sleep");
    let mut agent = Agent::start(&bench.path("socket"));
    let report = agent.obey(&Order::Configure { configuration: bench.configuration() });
    // Its agent fences what did not begin, and tries again later.
    agent.reach(&Order::Fence);
    let _ = holder.kill();
    let _ = holder.wait();
    let Report::Refused { order, reason } = report else { panic!("{report:?}") };
    assert_eq!(order, "configure");
    assert!(reason.contains(&holder.id().to_string()) && reason.contains("sleep 1000"), "{reason}");
    assert!(!platform::mounts::is_covered(&bench.data()).expect("mount table"), "nothing was changed");
    agent.reach(&alone(true));
    assert_eq!(fs::read(bench.data().join("log")).expect("what was fenced before is served now"), b"");
}

#[test]
fn a_mount_inside_is_refused_and_named() {
    let bench = Bench::new(32);
    fs::create_dir(bench.data().join("in")).expect("mkdir");
    sh(&format!("mount -t tmpfs x {}/in", bench.data().display()));
    let mut agent = Agent::start(&bench.path("socket"));
    let report = agent.obey(&Order::Configure { configuration: bench.configuration() });
    sh(&format!("umount {}/in", bench.data().display()));
    assert!(matches!(&report, Report::Refused { reason, .. } if reason.contains("data/in")), "{report:?}");
}

#[test]
fn a_copy_without_the_right_stamp_is_not_served() {
    let bench = Bench::new(32);
    let mut agent = Agent::start(&bench.path("socket"));
    agent.reach(&Order::Configure { configuration: bench.configuration() });
    let report = agent.obey(&alone(false));
    assert!(matches!(&report, Report::Refused { reason, .. } if reason.contains("no stamp")), "{report:?}");
    assert!(is_covered(&bench));
    agent.reach(&alone(true));
    agent.reach(&Order::Idle);
    let other = Order::ServeAlone { epoch: epoch(2), data_id: DataId(43), stamp: false, fresh_map: true };
    let report = agent.obey(&other);
    assert!(matches!(&report, Report::Refused { reason, .. } if reason.contains("000000000000002a")), "{report:?}");
    agent.reach(&alone(false));
}

#[test]
fn something_of_tocheck_that_is_missing_is_named() {
    let bench = Bench::new(32);
    let mut configuration = bench.configuration();
    configuration.dirs[0].tocheck = vec!["PG_VERSION".into()];
    let mut agent = Agent::start(&bench.path("socket"));
    agent.reach(&Order::Configure { configuration });
    let report = agent.obey(&alone(true));
    assert!(matches!(&report, Report::Refused { reason, .. } if reason.contains("PG_VERSION")), "{report:?}");
}

#[test]
fn what_is_not_replicated_is_served_and_does_not_mix_with_the_rest() {
    let bench = Bench::new(32);
    let mut configuration = bench.configuration();
    configuration.dirs[0].notreplicated = vec!["tmp".into()];
    let mut agent = Agent::start(&bench.path("socket"));
    agent.serve(configuration);
    let d = bench.data();
    fs::create_dir(d.join("tmp")).expect("mkdir");
    fs::write(d.join("tmp/f"), "x").expect("write");
    fs::rename(d.join("tmp/f"), d.join("tmp/g")).expect("rename inside");
    let linked = fs::hard_link(d.join("tmp/g"), d.join("g")).expect_err("across the edge");
    assert_eq!(linked.raw_os_error(), Some(libc::EXDEV));
    fs::rename(d.join("tmp/g"), d.join("g")).expect("across the edge");
    fs::rename(d.join("g"), d.join("tmp/h")).expect("and back");
    assert_eq!(fs::read(d.join("tmp/h")).expect("moved"), b"x");
}

#[test]
fn a_stop_ends_the_process_and_leaves_the_cover_until_it_is_taken_off() {
    for by_signal in [false, true] {
        let (mut agent, bench) = serving();
        fs::write(bench.data().join("f"), "x").expect("write");
        if by_signal {
            let pid = libc::pid_t::try_from(agent.child.id()).expect("a pid");
            // SAFETY: a signal to our own child.
            assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        } else {
            agent.order(&Order::Stop);
        }
        assert!(agent.child.wait().expect("wait").success());
        assert!(is_covered(&bench));
        mirrorfs::cover::uncover(&bench.data()).expect("uncover");
        fs::write(bench.data().join("f"), "y").expect("write natively");
    }
}

#[test]
fn the_next_agent_is_told_what_goes_on_and_the_one_before_is_let_go() {
    let (mut agent, bench) = serving();
    let before = agent.serial();
    let mut next = Agent::connect(&bench.path("socket"), agent.give_child());
    let adopted = next.adopted.clone();
    assert!(
        matches!(adopted, Report::Adopted { situation: Situation::Alone { epoch: e, .. }, .. } if e == epoch(1)),
        "{adopted:?}"
    );
    eventually("the old connection is closed", || agent.is_closed());
    assert_eq!(before, next.serial());
    next.reach(&Order::Configure { configuration: bench.configuration() });
    fs::write(bench.data().join("f"), "x").expect("still served");
}

#[test]
fn garbage_on_the_socket_is_refused_and_harms_nothing() {
    use std::io::Write;
    let (mut agent, bench) = serving();
    agent.raw(b"{\"order\":\"fly\"}\n\xff\xfe\n\n");
    let report = agent.wait("refusal", |r| matches!(r, Report::Refused { .. }));
    assert!(matches!(&report, Report::Refused { reason, .. } if reason.contains("not an order")), "{report:?}");
    // A line without an end closes the connection; the process goes on.
    let mut stream = UnixStream::connect(bench.path("socket")).expect("connect");
    let endless = vec![b'x'; 1 << 16];
    eventually("a line without end is cut off", || stream.write_all(&endless).is_err());
    let mut agent = Agent::connect(&bench.path("socket"), agent.give_child());
    agent.reach(&alone(false));
    fs::write(bench.data().join("f"), "x").expect("still served");
}
