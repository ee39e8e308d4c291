//! Dates in universal time, for crates that have no clock and no time zone.

use alloc::format;
use alloc::string::String;

/// Year, month, day, hour, minute and second of so many seconds since 1970 (civil-from-days, Hinnant).
#[must_use]
pub const fn civil(unix: u64) -> [u64; 6] {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + (month <= 2) as u64;
    [year, month, day, second / 3_600, second / 60 % 60, second % 60]
}

/// `2026-11-22T07-30-00Z`: sorts, and is a file name everywhere.
#[must_use]
pub fn file_name(unix: u64) -> String {
    let [year, month, day, h, m, s] = civil(unix);
    format!("{year:04}-{month:02}-{day:02}T{h:02}-{m:02}-{s:02}Z")
}

/// `2026-11-22 07:30:00 UTC`, for a sentence.
#[must_use]
pub fn utc(unix: u64) -> String {
    let [year, month, day, h, m, s] = civil(unix);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(super::file_name(0), "1970-01-01T00-00-00Z");
        assert_eq!(super::file_name(951_826_154), "2000-02-29T12-09-14Z");
        assert_eq!(super::utc(1_795_332_600), "2026-11-22 07:30:00 UTC");
    }
}
