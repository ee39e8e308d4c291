//! The supervisor: one process per lab. It lives in the switch's network namespace, so the switch exists exactly as
//! long as it does, and it is the parent of every host's PID 1, which the kernel kills when it dies.
//!
//! One thread: requests are answered one after the other, so a lab has one state.

use crate::error::Context;
use crate::host::Host;
use crate::place::Place;
use crate::plan::{Kind, Plan};
use crate::protocol::{Answer, Entry, Request};
use crate::status::Status;
use crate::{LabError, cgroup, sweep, switch, tools};
use rustix::event::{PollFd, PollFlags};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// A client that connects and says nothing does not hold the lab for longer.
const CLIENT_LIMIT: Duration = Duration::from_secs(2);
/// Longest request line.
const REQUEST_MAX: u64 = 64 << 10;

struct Supervisor {
    plan: Plan,
    hosts: Vec<Host>,
}

/// Runs until `down`, or until `up` goes away before it said "keep".
pub fn run() -> Result<(), LabError> {
    // `up` gives a socket as standard input: it moves out of the way of what expects none there.
    let up = std::io::stdin().as_fd().try_clone_to_owned().what(|| "no standard input".into())?;
    let up = UnixStream::from(up);
    let null = std::fs::File::open("/dev/null").what(|| "cannot open /dev/null".into())?;
    // SAFETY: a plain system call on descriptors that are open.
    unsafe { libc::dup2(null.as_raw_fd(), 0) };
    let mut line = String::new();
    BufReader::new(&up).read_line(&mut line).what(|| "no word from `up`".into())?;
    let plan: Plan = serde_json::from_str(&line)
        .map_err(|error| LabError::Machine(format!("the word of `up` is not understood: {error}")))?;
    let place = Place::new(&plan.name);

    let built = Supervisor::build(plan, &place);
    let answer = match &built {
        Ok(_) => Answer::Done { note: None },
        Err(error) => Answer::Refused { reason: error.to_string() },
    };
    // Nobody listens: then nobody wants the lab, and the loop below notices.
    let _ = (&up).write_all(to_line(&answer).as_bytes());
    let (mut supervisor, listener) = built?;
    let end = supervisor.serve(&listener, up)?;
    supervisor.end();
    if end == End::Abandoned {
        // Nobody is left who would sweep: this process steps out of the lab and does it.
        cgroup::enter(&cgroup::root()?)?;
        sweep::sweep(&supervisor.plan.name)?;
    }
    Ok(())
}

/// Why a supervisor ends.
#[derive(PartialEq, Eq)]
enum End {
    /// `down` asked for it, and sweeps.
    Asked,
    /// `up` died before it was done.
    Abandoned,
}

impl Supervisor {
    fn build(plan: Plan, place: &Place) -> Result<(Self, UnixListener), LabError> {
        let lab_cgroup = cgroup::lab(&plan.name)?;
        let own = lab_cgroup.join("supervisor");
        cgroup::make(&own)?;
        cgroup::enter(&own)?;
        // SAFETY: this process has one thread, and no descriptor depends on the namespace it leaves.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .what(|| "cannot make a network namespace".into())?;
        switch::make(&plan)?;
        let listener = UnixListener::bind(place.socket()).what(|| "cannot make the control socket".into())?;
        let hosts: Vec<_> = plan.hosts.iter().map(|host| Host::new(host, place, &lab_cgroup)).collect();
        let mut supervisor = Self { plan, hosts };
        match supervisor.boot_all(place) {
            Ok(()) => Ok((supervisor, listener)),
            Err(error) => {
                supervisor.end();
                Err(error)
            }
        }
    }

    fn boot_all(&mut self, place: &Place) -> Result<(), LabError> {
        let mib = self.plan.disk_mib;
        std::thread::scope(|scope| {
            let made: Vec<_> = self.hosts.iter().map(|host| scope.spawn(move || host.make_disk(mib))).collect();
            made.into_iter().try_for_each(|thread| thread.join().expect("a panic aborts"))
        })?;
        let mut booting = Vec::new();
        for host in &mut self.hosts {
            booting.push(host.begin_boot(&self.plan, place)?);
        }
        for (host, booting) in self.hosts.iter_mut().zip(booting) {
            host.finish_boot(booting)?;
        }
        self.hosts.iter_mut().try_for_each(Host::start_service)
    }

    fn serve(&mut self, listener: &UnixListener, up: UnixStream) -> Result<End, LabError> {
        let mut up = Some(up);
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
            fds.push(match &up {
                Some(up) => PollFd::from_borrowed_fd(up.as_fd(), PollFlags::IN),
                None => PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::empty()),
            });
            for host in &self.hosts {
                if let Some(pidfd) = host.pidfd() {
                    fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
                }
            }
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).what(|| "cannot poll".into()),
            }
            let (asked, told) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            drop(fds);
            for host in &mut self.hosts {
                if host.notice_death() {
                    eprintln!("{}: PID 1 died, the host is off", host.plan.name);
                }
            }
            if told && let Some(mut stream) = up.take() {
                let mut word = [0; 16];
                if !stream.read(&mut word).is_ok_and(|n| n > 0) {
                    eprintln!("`up` went away before it was done");
                    return Ok(End::Abandoned);
                }
            }
            if asked && let Ok((stream, _)) = listener.accept() {
                match self.talk(stream) {
                    Ok(true) => return Ok(End::Asked),
                    Ok(false) => {}
                    Err(error) => eprintln!("a client went away: {error}"),
                }
            }
        }
    }

    /// One request, one answer. True: the lab ends.
    fn talk(&mut self, stream: UnixStream) -> Result<bool, LabError> {
        stream.set_read_timeout(Some(CLIENT_LIMIT)).what(|| "timeout".into())?;
        stream.set_write_timeout(Some(CLIENT_LIMIT)).what(|| "timeout".into())?;
        let mut line = String::new();
        BufReader::new((&stream).take(REQUEST_MAX)).read_line(&mut line).what(|| "no request".into())?;
        if line.is_empty() {
            // Only looked whether the lab is up.
            return Ok(false);
        }
        let mut down = false;
        let answer = match serde_json::from_str(&line) {
            Err(error) => Answer::Refused { reason: format!("the request is not understood: {error}") },
            Ok(Request::Down) => {
                down = true;
                self.end();
                Answer::Done { note: None }
            }
            Ok(request) => self.handle(request).unwrap_or_else(|error| Answer::Refused { reason: error.to_string() }),
        };
        (&stream).write_all(to_line(&answer).as_bytes()).what(|| "cannot answer".into())?;
        Ok(down)
    }

    fn handle(&mut self, request: Request) -> Result<Answer, LabError> {
        let done = |note: Option<String>| Ok(Answer::Done { note });
        let already = |host: &str, what: &str| Ok(Answer::Done { note: Some(format!("{host} is {what} already")) });
        match request {
            Request::Status => Ok(Answer::Status { status: Box::new(self.status()) }),
            Request::Enter { host } => {
                let host = self.host(&host)?;
                let (pid, start_time) = host.init()?;
                let cgroup = host.cgroup.join(cgroup::HOST);
                let path = tools::path_for(&self.plan.program);
                Ok(Answer::Entry { entry: Entry { pid, start_time, cgroup, path } })
            }
            Request::PowerCut { host } => {
                let host = self.host(&host)?;
                if host.is_off() {
                    return already(&host.plan.name, "off");
                }
                host.cut_power()?;
                done(None)
            }
            Request::PowerOn { host } => {
                let at = self.plan.host(&host)?;
                if !self.hosts[at].is_off() {
                    return already(&host, "on");
                }
                self.power_on(at)?;
                done(None)
            }
            Request::Freeze { host, userspace } => {
                self.host(&host)?.freeze(userspace)?;
                done(None)
            }
            Request::Thaw { host } => {
                let host = self.host(&host)?;
                let frozen = host.is_frozen();
                host.thaw()?;
                done((!frozen).then(|| format!("{} was not frozen", host.plan.name)))
            }
            Request::LinkCut { host, net, carrier } => {
                let nets = self.plan.nets(net.as_deref())?;
                let host = self.host(&host)?;
                for net in nets {
                    host.faults[net].cut = true;
                    host.faults[net].carrier_down |= carrier;
                }
                host.apply_faults()?;
                if carrier {
                    host.apply_carriers()?;
                }
                done(None)
            }
            Request::LinkHeal { host, net } => {
                self.heal(&host, net.as_deref())?;
                done(None)
            }
            Request::LinkOneway { host, peer, net } => {
                let nets = self.plan.nets(net.as_deref())?;
                let peer = self.plan.hosts[self.plan.host(&peer)?].clone();
                let host = self.host(&host)?;
                if host.plan.name == peer.name {
                    return Err(LabError::BadOption(format!("{} always hears itself: name another host", peer.name)));
                }
                for net in nets {
                    host.faults[net].deaf_to.insert(peer.name.clone(), peer.links[net].mac.clone());
                }
                host.apply_faults()?;
                done(None)
            }
            Request::Down => unreachable!("answered by the caller"),
        }
    }

    fn power_on(&mut self, at: usize) -> Result<(), LabError> {
        let place = Place::new(&self.plan.name);
        let host = &mut self.hosts[at];
        let booted = host
            .begin_boot(&self.plan, &place)
            .and_then(|booting| host.finish_boot(booting))
            .and_then(|()| host.start_service());
        if booted.is_err() {
            let _ = host.end();
        }
        booted
    }

    /// After this nothing is wrong with these links: neither what the host says nor what it hears.
    fn heal(&mut self, name: &str, net: Option<&str>) -> Result<(), LabError> {
        let nets = self.plan.nets(net)?;
        let at = self.plan.host(name)?;
        for net in &nets {
            self.hosts[at].faults[*net] = switch::LinkFaults::default();
        }
        self.hosts[at].apply_carriers()?;
        self.hosts[at].apply_faults()?;
        for host in &mut self.hosts {
            let mut changed = false;
            for net in &nets {
                changed |= host.faults[*net].deaf_to.remove(name).is_some();
            }
            if changed {
                host.apply_faults()?;
            }
        }
        Ok(())
    }

    fn host(&mut self, name: &str) -> Result<&mut Host, LabError> {
        let at = self.plan.host(name)?;
        Ok(&mut self.hosts[at])
    }

    fn status(&self) -> Status {
        let of = |kind| self.hosts.iter().filter(move |host| host.plan.kind == kind).map(Host::status);
        Status {
            name: self.plan.name.clone(),
            nodes: of(Kind::Node).collect(),
            client: of(Kind::Client).next().expect("every lab has a client"),
            witness: of(Kind::Witness).next(),
            vip_pool: self.plan.vip_pool.clone(),
            gateways: self.plan.nets.iter().map(|net| (net.name.clone(), net.gateway.clone())).collect(),
        }
    }

    fn end(&mut self) {
        for host in &mut self.hosts {
            if let Err(error) = host.end() {
                eprintln!("{}: {error}", host.plan.name);
            }
        }
    }
}

fn to_line(answer: &Answer) -> String {
    let mut text = serde_json::to_string(answer).expect("plain data");
    text.push('\n');
    text
}
