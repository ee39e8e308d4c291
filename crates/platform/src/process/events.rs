//! Starts and ends of processes, as the kernel's proc connector tells them: to one thread of this process, and from it to
//! everybody who asked.
//!
//! The connector speaks only in the first network and pid namespace, and to a process with the right to ask; elsewhere
//! (in a container, in a lab) [`subscribe`] says why not, and the caller looks by itself.
//! **Invariant:** who is slow loses notices and is told so; nobody waits for a reader.

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// What happened to a process (not to a mere thread).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// It began, or has another program or name now.
    Appeared {
        /// Its number.
        pid: i32,
        /// Its name, at most 15 bytes.
        name: Vec<u8>,
    },
    /// It ended.
    Ended {
        /// Its number, which may belong to another one soon.
        pid: i32,
    },
    /// The kernel told more than was read: look again.
    Missed,
}

/// There are no notices here.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The kernel has no connector, or not for this network namespace or process.
    #[error("the kernel's proc connector is not here: {source}")]
    Unavailable {
        /// Why.
        source: io::Error,
    },
    /// It took the question and said nothing: another pid namespace.
    #[error("the kernel's proc connector does not answer here")]
    Silent,
    /// It spoke, and its socket failed since.
    #[error("the kernel's proc connector failed")]
    Failed,
}

/// What the kernel says in one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Acknowledged { error: u32 },
    Forked { pid: i32 },
    Executed { pid: i32 },
    Renamed { pid: i32 },
    Ended { pid: i32 },
}

/// Notices on their way to a reader.
const QUEUE: usize = 1024;
/// The kernel acknowledges at once, or never.
const ANSWER: Duration = Duration::from_millis(500);
/// Room for bursts before the kernel drops.
const BUFFER: usize = 1 << 20;

/// `CN_IDX_PROC`, `CN_VAL_PROC`.
const PROC: (u32, u32) = (1, 1);
const LISTEN: u32 = 1;
const NLMSG_DONE: u16 = 3;
const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
/// `struct proc_event` up to its `event_data`.
const EVENT_HEADER: usize = 16;

/// Notices from now on. The first call asks the kernel (at most half a second), and blocks for as long.
///
/// # Errors
/// [`EventsError`]: the same for the life of this process.
pub fn subscribe() -> Result<broadcast::Receiver<Notice>, &'static EventsError> {
    static LISTENER: OnceLock<Result<broadcast::WeakSender<Notice>, EventsError>> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| {
        let socket = open()?;
        let (out, _) = broadcast::channel(QUEUE);
        // Only the thread holds it: when it ends, those who hear know.
        let weak = out.downgrade();
        let thread = std::thread::Builder::new().name("proc-events".into()).spawn(move || read(&socket, &out));
        thread.map(|_| weak).map_err(|source| EventsError::Unavailable { source })
    });
    let listener = listener.as_ref()?;
    listener.upgrade().map(|it| it.subscribe()).ok_or(&EventsError::Failed)
}

fn open() -> Result<OwnedFd, EventsError> {
    let no = |error: rustix::io::Errno| EventsError::Unavailable { source: error.into() };
    let flags = SocketFlags::CLOEXEC;
    let connector = Some(netlink::CONNECTOR);
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, connector).map_err(no)?;
    // Less room is less patience, no failure.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, PROC.0)).map_err(no)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &listen(), SendFlags::empty(), &kernel).map_err(no)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER)).map_err(no)?;
    let begun = Instant::now();
    let mut buffer = [0; 4096];
    // Others may have subscribed already: their events come first.
    while begun.elapsed() < ANSWER {
        match receive(&socket, &mut buffer) {
            Ok(told) => match told.iter().find_map(|it| acknowledged(*it)) {
                Some(0) => {
                    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, None).map_err(no)?;
                    return Ok(socket);
                }
                Some(error) => {
                    let source = io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(libc::EINVAL));
                    return Err(EventsError::Unavailable { source });
                }
                None => {}
            },
            Err(rustix::io::Errno::AGAIN) => break,
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(no(error)),
        }
    }
    Err(EventsError::Silent)
}

const fn acknowledged(told: Told) -> Option<u32> {
    match told {
        Told::Acknowledged { error } => Some(error),
        _ => None,
    }
}

/// `PROC_CN_MCAST_LISTEN` in its envelopes.
fn listen() -> [u8; NETLINK_HEADER + CONNECTOR_HEADER + 4] {
    let mut message = [0; NETLINK_HEADER + CONNECTOR_HEADER + 4];
    let length = u32::try_from(message.len()).unwrap_or_default();
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
    message[16..20].copy_from_slice(&PROC.0.to_ne_bytes());
    message[20..24].copy_from_slice(&PROC.1.to_ne_bytes());
    message[32..34].copy_from_slice(&4_u16.to_ne_bytes());
    message[36..40].copy_from_slice(&LISTEN.to_ne_bytes());
    message
}

fn read(socket: &OwnedFd, out: &broadcast::Sender<Notice>) {
    let mut buffer = [0; 4096];
    loop {
        match receive(socket, &mut buffer) {
            // Nobody listening at the moment is no error.
            Ok(all) => all.iter().filter_map(|told| notice(*told)).for_each(|it| drop(out.send(it))),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NOBUFS) => drop(out.send(Notice::Missed)),
            // A socket that fails otherwise fails for good: looks go on as they do without notices.
            Err(_) => return,
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<Vec<Told>> {
    let (read, _, from) = rustix::net::recvfrom(socket, &mut *buffer, RecvFlags::empty())?;
    // Any process may send to this socket; only the kernel is believed.
    let is_kernel = from.and_then(|it| SocketAddrNetlink::try_from(it).ok()).is_some_and(|it| it.pid() == 0);
    Ok(if is_kernel { parse(buffer.get(..read).unwrap_or_default()) } else { Vec::new() })
}

fn notice(told: Told) -> Option<Notice> {
    match told {
        Told::Acknowledged { .. } => None,
        Told::Ended { pid } => Some(Notice::Ended { pid }),
        // One that is gone already is no news.
        Told::Forked { pid } | Told::Executed { pid } | Told::Renamed { pid } => {
            crate::probe::process::living_name(pid).map(|name| Notice::Appeared { pid, name })
        }
    }
}

/// What a datagram tells of processes; what is not understood is left out.
fn parse(mut bytes: &[u8]) -> Vec<Told> {
    let mut all = Vec::new();
    while let Some(length) = word(bytes, 0) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|it| it.len() >= NETLINK_HEADER) else { break };
        all.extend(event(message.get(NETLINK_HEADER..).unwrap_or_default()));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn event(message: &[u8]) -> Option<Told> {
    if (word(message, 0)?, word(message, 4)?) != PROC {
        return None;
    }
    let event = message.get(CONNECTOR_HEADER..)?;
    let what = word(event, 0)?;
    let data = event.get(EVENT_HEADER..)?;
    // Thread and process have the same number when it is no mere thread.
    let process = |at| {
        let (thread, group) = (word(data, at)?, word(data, at + 4)?);
        i32::try_from(group).ok().filter(|_| thread == group)
    };
    match what {
        0x0000_0000 => Some(Told::Acknowledged { error: word(data, 0)? }),
        0x0000_0001 => process(8).map(|pid| Told::Forked { pid }),
        0x0000_0002 => process(0).map(|pid| Told::Executed { pid }),
        0x0000_0200 => process(0).map(|pid| Told::Renamed { pid }),
        0x8000_0000 => process(0).map(|pid| Told::Ended { pid }),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
