//! `boundcmd TIMEOUT COMMAND…`: runs a command for so long at most. Exit 2: it took longer, and was killed with what it
//! had started.

use model::schema::units::{Unit, milliseconds};
use platform::process::list::{Process, Signal, all, signal, with_descendants};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

const TIMED_OUT: u8 = 2;
/// The shell's codes.
const NOT_FOUND: u8 = 127;
const SIGNALLED: i32 = 128;
/// Between being asked and being killed.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &[String]) -> Result<u8, String> {
    let [time, program, rest @ ..] = args else {
        return Err("usage: boundcmd SECONDS COMMAND [ARGUMENT…]".to_string());
    };
    let is_plain = time.bytes().all(|byte| byte.is_ascii_digit());
    let bound = Duration::from_millis(milliseconds(time, if is_plain { Unit::Second } else { Unit::Millisecond })?);
    let child = match Command::new(program).args(rest).spawn() {
        Ok(child) => child,
        Err(error) => {
            super::say(&format!("boundcmd: {program}: {error}"));
            return Ok(NOT_FOUND);
        }
    };
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let (ended, end) = channel();
    std::thread::spawn(move || {
        let mut child: Child = child;
        // Nobody listens any more when time is up.
        let _ = ended.send(child.wait());
    });
    match end.recv_timeout(bound) {
        Ok(status) => Ok(code(status.map_err(|error| error.to_string())?)),
        Err(RecvTimeoutError::Disconnected) => Err("the end of the command was not seen".to_string()),
        Err(RecvTimeoutError::Timeout) => {
            super::say(&format!("boundcmd: {program} took longer than {time} and is killed"));
            let mut tree = below(pid);
            tree.iter().for_each(|process| signal(process, Signal::TERM));
            if end.recv_timeout(GRACE).is_err() {
                tree.extend(below(pid));
            }
            tree.iter().for_each(|process| signal(process, Signal::KILL));
            Ok(TIMED_OUT)
        }
    }
}

fn below(pid: i32) -> Vec<Process> {
    all().iter().find(|process| process.pid == pid).map(with_descendants).unwrap_or_default()
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(super::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn sh(time: &str, script: &str) -> u8 {
        run(&[time.into(), "sh".into(), "-c".into(), script.into()]).expect("it runs")
    }

    #[test]
    fn the_commands_own_code_is_passed_on() {
        assert_eq!(sh("10", "exit 0"), 0);
        assert_eq!(sh("10s", "exit 5"), 5);
        assert_eq!(sh("10", "kill -9 $$"), 137);
        assert_eq!(run(&["1".into(), "/no/such/program".into()]), Ok(127));
        assert!(run(&["soon".into(), "true".into()]).is_err());
        assert!(run(&["1".into()]).is_err());
    }

    #[test]
    fn what_takes_longer_is_killed_with_its_children() {
        let dir = tempfile::tempdir().expect("a directory");
        let pids = dir.path().join("pids");
        let begin = Instant::now();
        let script = format!("sleep 1000 & echo $! > {0}; echo $$ >> {0}; trap '' TERM; wait; wait", pids.display());
        assert_eq!(sh("300ms", &script), TIMED_OUT);
        assert!(begin.elapsed() < Duration::from_secs(60));
        for pid in std::fs::read_to_string(&pids).expect("written").lines() {
            let end = Instant::now() + Duration::from_secs(20);
            // A child of the killed shell is reaped by somebody else: dead is enough.
            let lives =
                || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
            while lives() {
                assert!(Instant::now() < end, "{pid} lives");
                std::thread::yield_now();
            }
        }
    }
}
