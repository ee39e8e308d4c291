//! Time: the boot-time clock decides, the wall clock only dates logs.
//!
//! The boot-time clock never jumps back and counts suspended time; it starts anew with the machine, so a
//! value from disk means something only together with the [`boot_id`] it was taken in.

use model::schedule::Minute;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the machine booted, suspended time included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the boot-time clock starts at zero");
    let nanos = u64::try_from(now.tv_nsec).expect("nanoseconds are 0..1e9");
    seconds * 1_000 + nanos / 1_000_000
}

/// Identity of this boot of the machine (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
/// When the file is absent or is not a UUID: the caller must not start.
pub fn boot_id() -> io::Result<u128> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
    parse_uuid(text.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} does not hold a UUID: {text:?}")))
}

fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    shaped.then(|| u128::from_str_radix(&text.replace('-', ""), 16).ok())?
}

/// Milliseconds since 1970 by the wall clock. For logs and names of files only: it may jump.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The minute that the clock of this node shows.
#[must_use]
pub fn local_minute(wall_ms: u64) -> Minute {
    let parts = local(wall_ms);
    let small = |value: libc::c_int| u8::try_from(value).unwrap_or(0);
    Minute {
        minute: small(parts.tm_min),
        hour: small(parts.tm_hour),
        day: small(parts.tm_mday),
        month: small(parts.tm_mon + 1),
        weekday: small(parts.tm_wday),
    }
}

/// `2026-11-22T053210` in local time, for names of files; `separator` goes between hour, minute, second.
#[must_use]
pub fn local_stamp(wall_ms: u64, separator: &str) -> String {
    let parts = local(wall_ms);
    format!(
        "{:04}-{:02}-{:02}T{:02}{separator}{:02}{separator}{:02}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    )
}

fn local(wall_ms: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(wall_ms / 1_000).unwrap_or(libc::time_t::MAX);
    // SAFETY: `tm` is plain integers and a pointer that is never followed here; zero is a valid value.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live, properly aligned values of the right type for the whole call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_advances_and_agrees_with_the_kernel() {
        let first = boot_ms();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((first as f64 / 1000.0 - seconds).abs() < 2.0);
        assert!(boot_ms() >= first);
    }

    #[test]
    fn the_boot_id_is_a_uuid_and_nothing_else() {
        assert_ne!(boot_id().unwrap(), 0);
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(parse_uuid("00000000-0000-0000-0000-00000000000f"), Some(15));
        for bad in [
            "",
            "0",
            "00000000-0000-0000-0000-00000000000g",
            "+0000000-0000-0000-0000-000000000001",
            "000000000000-0000-0000-0000-0000000f",
        ] {
            assert_eq!(parse_uuid(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn stamps_sort_by_time() {
        assert!(local_stamp(1_700_000_000_000, "") < local_stamp(1_700_000_001_000, ""));
        assert_eq!(local_stamp(1_700_000_000_000, "").len(), "2026-11-22T053210".len());
    }
}
