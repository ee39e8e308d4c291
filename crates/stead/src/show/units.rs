//! Numbers as people say them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::orders::Progress;
use std::fmt::Write as _;

/// "350 ms", "4.2 s", "3 min 2 s", "5 h 10 min", "3 d 4 h".
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", s, ms % 1000 / 100),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// "80 ms ago", "never".
pub fn age(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".into(), |ms| format!("{} ago", duration(ms)))
}

/// "12 B", "3.4 KiB", "1.0 GiB".
pub fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut whole = count;
    let mut tenths = 0;
    while whole >= 1024 && unit < 5 {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{whole} B"),
        _ => format!("{whole}.{tenths} {}", ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]),
    }
}

/// How far a resync is: "43 %, 4.3 GiB of 10.0 GiB done, 12.0 MiB sent, 98.0 MiB/s, 1 min 20 s left".
pub fn progress(p: &Progress) -> String {
    let mut text = String::new();
    if p.bytes_total > 0 {
        let percent = u128::from(p.bytes_done()) * 100 / u128::from(p.bytes_total);
        let _ = write!(text, "{} %, {} of {} done", percent.min(100), bytes(p.bytes_done()), bytes(p.bytes_total));
    } else {
        let _ = write!(text, "{} entries, {} compared", p.entries, bytes(p.bytes_compared));
    }
    let _ = write!(text, ", {} sent", bytes(p.bytes_sent));
    if p.bytes_per_s > 0 {
        let _ = write!(text, ", {}/s", bytes(p.bytes_per_s));
    }
    if let Some(eta) = p.eta_ms {
        let _ = write!(text, ", {} left", duration(eta));
    }
    text
}

/// The beginning of a signature: enough to tell two apart, short enough for a table.
pub fn short(signature: &str) -> String {
    signature.chars().take(12).collect()
}

/// Local date and time to the second; "-" for the beginning of time.
pub fn when(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".into();
    }
    stamp(i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()), "%Y-%m-%d %H:%M:%S")
}

/// Local date and time to the microsecond, as in the log.
pub fn when_us(unix_us: u64) -> String {
    stamp(i64::try_from(unix_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok()), "%Y-%m-%d %H:%M:%S.%6f")
}

fn stamp(at: Option<Timestamp>, format: &str) -> String {
    at.map_or_else(|| "?".into(), |at| at.to_zoned(TimeZone::system()).strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_say_them() {
        let said: Vec<String> = [0, 999, 4_200, 182_000, 18_600_000, 273_600_000].map(duration).into();
        assert_eq!(said, ["0 ms", "999 ms", "4.2 s", "3 min 2 s", "5 h 10 min", "3 d 4 h"]);
        assert_eq!(
            [0, 1023, 3_500, 1 << 30, u64::MAX].map(bytes),
            ["0 B", "1023 B", "3.4 KiB", "1.0 GiB", "16383.9 PiB"]
        );
        assert_eq!(when_us(u64::MAX), "?");
    }

    #[test]
    fn a_first_copy_gets_on_although_nothing_is_compared() {
        let (bytes_total, bytes_sent, bytes_per_s) = (4096, 1024, 512);
        let p = Progress { bytes_total, bytes_sent, bytes_per_s, eta_ms: Some(6_000), ..Progress::default() };
        assert_eq!(progress(&p), "25 %, 1.0 KiB of 4.0 KiB done, 1.0 KiB sent, 512 B/s, 6.0 s left");
    }

    #[test]
    fn progress_survives_an_estimate_that_was_too_small() {
        let p = Progress { bytes_total: 10, bytes_compared: 2048, eta_ms: Some(0), ..Progress::default() };
        assert_eq!(progress(&p), "100 %, 2.0 KiB of 10 B done, 0 B sent, 0 ms left");
    }
}
