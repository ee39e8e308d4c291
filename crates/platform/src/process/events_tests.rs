//! Messages of a Linux 6.18 kernel, stored; and, where it speaks to us, the kernel itself.

use super::*;
use std::time::{Duration, Instant};

const ACKNOWLEDGED: &str = "4c00000003000000000000000000000001000000010000000000000001000000280000000000000001000000dc6009b3262c0000000000000000000000000000000000000000000000000000";
const FORKED: &str = "4c000000030000000100000000000000010000000100000001000000000000002800000001000000010000001ab00cb3262c0000a4200000a4200000d3200000d32000000000000000000000";
const EXECUTED: &str = "4c00000003000000020000000000000001000000010000000200000000000000280000000200000001000000977d1bb3262c0000d3200000d320000000000000000000000000000000000000";
const ENDED: &str = "4c00000003000000030000000000000001000000010000000300000000000000280000000000008001000000883625b3262c0000d3200000d32000000000000011000000a4200000a4200000";
/// Of a thread: `7e 94` is not the process.
const THREAD_ENDED: &str = "4c000000030000000000000000000000010000000100000000000000000000002800000000000080000000000f61a9b8262c0000d2200000941d000000000000ffffffff0000000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

#[test]
#[cfg(target_endian = "little")]
fn what_the_kernel_says_is_understood() {
    for (stored, told) in [
        (ACKNOWLEDGED, Some(Told::Acknowledged { error: 0 })),
        (FORKED, Some(Told::Forked { pid: 0x20d3 })),
        (EXECUTED, Some(Told::Executed { pid: 0x20d3 })),
        (ENDED, Some(Told::Ended { pid: 0x20d3 })),
        (THREAD_ENDED, None),
    ] {
        assert_eq!(parse(&bytes(stored)), told.into_iter().collect::<Vec<_>>(), "{stored}");
    }
    let both = [bytes(FORKED), bytes(ENDED)].concat();
    assert_eq!(parse(&both).len(), 2, "several in one datagram");
}

#[test]
fn no_altered_message_is_more_than_left_out() {
    for stored in [ACKNOWLEDGED, FORKED, EXECUTED, ENDED] {
        let whole = bytes(stored);
        (0..whole.len()).for_each(|length| assert!(parse(&whole[..length]).is_empty(), "{length} bytes of it"));
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut altered = whole.clone();
                altered[at] = value;
                assert!(parse(&altered).len() <= 2);
            }
        }
    }
}

/// In the machine's first namespaces this is the kernel's own word; in a container there is none, and that is told.
#[test]
fn a_process_that_starts_and_ends_is_told() {
    let mut notices = match subscribe() {
        Ok(notices) => notices,
        Err(why) => {
            assert!(why.to_string().starts_with("the kernel's proc connector"), "{why}");
            println!("not shown here: {why}");
            return;
        }
    };
    let mut child = std::process::Command::new("sleep").arg("961").spawn().expect("spawned");
    let pid = i32::try_from(child.id()).expect("a number");
    let appeared = Notice::Appeared { pid, name: b"sleep".to_vec() };
    await_notice(&mut notices, &appeared);
    child.kill().expect("killed");
    child.wait().expect("waited");
    await_notice(&mut notices, &Notice::Ended { pid });
}

fn await_notice(notices: &mut broadcast::Receiver<Notice>, wanted: &Notice) {
    let begun = Instant::now();
    loop {
        match notices.blocking_recv() {
            Ok(it) if it == *wanted => return,
            Ok(Notice::Missed) | Err(broadcast::error::RecvError::Lagged(_)) => panic!("too busy a machine to tell"),
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(60), "{wanted:?} was never told"),
            Err(closed) => panic!("{closed}"),
        }
    }
}
