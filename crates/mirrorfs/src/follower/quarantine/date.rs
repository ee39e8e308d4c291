//! What a folder of the quarantine is called.

/// `2026-11-22T07-30-00Z`: sorts, and is a file name everywhere (civil-from-days, Hinnant).
pub(super) fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}-{m:02}-{s:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(super::date(0), "1970-01-01T00-00-00Z");
        assert_eq!(super::date(951_826_154), "2000-02-29T12-09-14Z");
        assert_eq!(super::date(1_795_332_600), "2026-11-22T07-30-00Z");
    }
}
