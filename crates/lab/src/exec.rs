//! Running programs inside a host.

use crate::LabError;
use crate::host::open_process;
use crate::protocol::Entry;
use crate::spawn::{Child, Namespaces, Spawn, spawn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Exit code; 128 + number when a signal ended it.
    pub code: i32,
}

impl Exit {
    /// Code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.code == 0
    }
}

/// A finished program and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Where a stream of the program goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stdio {
    /// The caller's.
    Inherit,
    /// Nowhere.
    Null,
    /// A pipe, in [`Running`].
    Piped,
}

/// A program running inside a host. Dropping it leaves the program running; it dies with its host.
#[derive(Debug)]
pub struct Running {
    host: String,
    program: String,
    /// Process number as the machine sees it.
    pub pid: i32,
    /// Pipe to its standard input, if asked for.
    pub stdin: Option<File>,
    /// Pipe of its standard output, if asked for.
    pub stdout: Option<File>,
    /// Pipe of its standard error, if asked for.
    pub stderr: Option<File>,
    child: Arc<Child>,
    ended: Arc<(Mutex<Option<Exit>>, Condvar)>,
}

/// How to start.
pub(crate) struct Start<'a> {
    pub host: &'a str,
    pub entry: &'a Entry,
    pub argv: &'a [OsString],
    pub stdio: [Stdio; 3],
    /// For the command line: the program dies with it.
    pub die_with_thread: bool,
}

pub(crate) fn start(start: Start<'_>) -> Result<Running, LabError> {
    let program = start.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let failed = |source| LabError::Exec { host: start.host.to_owned(), program: program.clone(), source };
    let off = || LabError::Off { host: start.host.to_owned() };
    let init = open_process(start.entry.pid, start.entry.start_time).ok_or_else(off)?;
    let mut pipes: [Option<File>; 3] = [None, None, None];
    let mut theirs = Vec::new();
    for (at, stdio) in start.stdio.iter().enumerate() {
        theirs.push(stream(at, *stdio, &mut pipes[at]).map_err(failed)?);
    }
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let child = spawn(Spawn {
        argv: start.argv,
        env: environment(&start.entry.path),
        cwd: vec![&cwd, Path::new("/")],
        stdio: theirs.try_into().expect("three streams"),
        control: None,
        cgroup: &start.entry.cgroup,
        namespaces: Namespaces::Of(init.as_fd()),
        own_session: false,
        die_with_thread: start.die_with_thread,
    })
    .map_err(failed)?;
    let [stdin, stdout, stderr] = pipes;
    let child = Arc::new(child);
    let ended = Arc::new((Mutex::new(None), Condvar::new()));
    // Reaped by a thread of its own, at once: PID 1 of a host cannot go before its last child is reaped.
    let (reaped, ending) = (Arc::clone(&child), Arc::clone(&ended));
    std::thread::spawn(move || {
        let exit = reap(&reaped);
        *ending.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
        ending.1.notify_all();
    });
    Ok(Running { host: start.host.to_owned(), program, pid: child.pid, stdin, stdout, stderr, child, ended })
}

impl Running {
    /// Waits; None when the limit passed and it still runs.
    ///
    /// # Errors
    /// [`LabError::Exec`] when the program could not be started.
    pub fn wait(&self, limit: Duration) -> Result<Option<Exit>, LabError> {
        let end = Instant::now() + limit;
        let mut exit = self.ended.0.lock().unwrap_or_else(PoisonError::into_inner);
        while exit.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            exit = self.ended.1.wait_timeout(exit, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match self.child.exec_error() {
            Some(source) => Err(LabError::Exec { host: self.host.clone(), program: self.program.clone(), source }),
            None => Ok(*exit),
        }
    }

    /// SIGKILL to the program (not to what it started).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGTERM to the program.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.child.pidfd, signal);
    }

    /// Waits and collects what was piped. Past the limit the program is killed.
    ///
    /// # Errors
    /// [`LabError::Exec`], [`LabError::Deadline`].
    pub fn output(mut self, limit: Duration) -> Result<Output, LabError> {
        drop(self.stdin.take());
        let readers = [self.stdout.take(), self.stderr.take()].map(|pipe| pipe.map(Reader::new));
        let exit = self.wait(limit)?;
        if exit.is_none() {
            self.kill();
        }
        let [stdout, stderr] = readers.map(|reader| reader.map(Reader::finish).unwrap_or_default());
        match exit {
            Some(exit) => Ok(Output { exit, stdout, stderr }),
            None => Err(LabError::Deadline {
                what: format!("'{}' on {} (it had printed: {}{})", self.program, self.host, stdout, stderr),
                limit,
            }),
        }
    }
}

/// Collects a pipe while the program runs, so that it never waits for room in it.
struct Reader {
    pipe: Arc<File>,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Reader {
    fn new(pipe: File) -> Self {
        let reader = Self { pipe: Arc::new(pipe), text: Arc::default() };
        let (pipe, text) = (Arc::clone(&reader.pipe), Arc::clone(&reader.text));
        std::thread::spawn(move || {
            let mut ready = [PollFd::new(&*pipe, PollFlags::IN)];
            // Ready and empty: whoever held the other end has closed it.
            while matches!(poll(&mut ready, None), Err(rustix::io::Errno::INTR)) || Self::drain(&pipe, &text) > 0 {}
        });
        reader
    }

    /// Takes what is in the pipe now, and says how much that was.
    fn drain(pipe: &File, text: &Mutex<Vec<u8>>) -> u64 {
        // Looked at by whoever may read it: nobody else takes what is counted here.
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        let there = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        pipe.take(there).read_to_end(&mut text).map_or(0, |_| there)
    }

    /// All that a program that has ended printed: it is collected, or still in the pipe. (Waiting for the pipe's end would be
    /// wrong: what the program left running may hold it open for ever. So would waiting for the thread: on a busy machine it is late.)
    fn finish(self) -> String {
        Self::drain(&self.pipe, &self.text);
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn reap(child: &Child) -> Exit {
    loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return Exit { code: status.exit_status().or(signal).unwrap_or(255) };
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Exit { code: 255 },
        }
    }
}

fn environment(path: &str) -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(key, _)| key != "PATH").chain([("PATH".into(), path.into())]).collect()
}

/// The child's end of a stream; the caller's end of a pipe goes into `ours`.
fn stream(number: usize, stdio: Stdio, ours: &mut Option<File>) -> io::Result<OwnedFd> {
    match stdio {
        Stdio::Null => Ok(File::options().read(true).write(true).open("/dev/null")?.into()),
        Stdio::Inherit => match number {
            0 => io::stdin().as_fd().try_clone_to_owned(),
            1 => io::stdout().as_fd().try_clone_to_owned(),
            _ => io::stderr().as_fd().try_clone_to_owned(),
        },
        Stdio::Piped => {
            let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let (mine, theirs) = if number == 0 { (writing, reading) } else { (reading, writing) };
            *ours = Some(mine.into());
            Ok(theirs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn nothing_that_was_printed_is_missed_and_nobody_who_holds_the_pipe_is_waited_for() {
        let long = vec![b'x'; 300_000];
        for _ in 0..50 {
            let mut pipe = None;
            let mut printing = File::from(stream(1, Stdio::Piped, &mut pipe).expect("a pipe"));
            let reader = Reader::new(pipe.expect("its other end"));
            printing.write_all(&long).expect("it is read all the time");
            printing.write_all(b"token").expect("it is read all the time");
            let text = reader.finish();
            assert!(text.len() == long.len() + 5 && text.ends_with("token"), "{}", text.len());
        }
    }
}
