//! Time values with units (`d h m s ms us`), each attribute with its own implicit unit.
//!
//! A value that is not a whole number of the attribute's unit is an error, as in SafeKit: `500ms` for an
//! attribute in seconds would otherwise become 0 or 1 behind the person's back.

use alloc::format;
use alloc::string::String;

/// Unit of an attribute, and of a value that carries none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Milliseconds.
    Millisecond,
    /// Seconds.
    Second,
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
}

impl Unit {
    /// Microseconds in one.
    #[must_use]
    pub const fn microseconds(self) -> u64 {
        match self {
            Self::Millisecond => 1_000,
            Self::Second => 1_000_000,
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
        }
    }

    /// As written after a number.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Millisecond => "ms",
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    /// For a sentence.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Millisecond => "milliseconds",
            Self::Second => "seconds",
            Self::Minute => "minutes",
            Self::Hour => "hours",
        }
    }
}

/// Milliseconds of `text` for an attribute counted in `unit`.
///
/// # Errors
/// The end of the sentence "'X' …": not a time, or not a whole number of the attribute's unit.
pub fn milliseconds(text: &str, unit: Unit) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let not_a_time =
        || format!("is not a time: write a whole number and one of d h m s ms us, as in 10{}", unit.suffix());
    let number: u64 = number.parse().map_err(|_| not_a_time())?;
    let scale = match suffix.trim() {
        "" => unit.microseconds(),
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(not_a_time()),
    };
    let microseconds = number.checked_mul(scale).ok_or_else(|| String::from("is longer than any time we can count"))?;
    if microseconds % unit.microseconds() == 0 {
        Ok(microseconds / 1_000)
    } else {
        Err(format!("is not a whole number of {}, the unit of this attribute", unit.plural()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_convert_into_the_implicit_one() {
        assert_eq!(milliseconds("700", Unit::Millisecond), Ok(700));
        assert_eq!(milliseconds("2s", Unit::Millisecond), Ok(2_000));
        assert_eq!(milliseconds("5000us", Unit::Millisecond), Ok(5));
        assert_eq!(milliseconds("30", Unit::Second), Ok(30_000));
        assert_eq!(milliseconds("1d", Unit::Hour), Ok(86_400_000));
        assert_eq!(milliseconds(" 3 m ", Unit::Second), Ok(180_000));
    }

    #[test]
    fn what_does_not_convert_is_refused() {
        for (text, unit) in [
            ("500ms", Unit::Second),
            ("1us", Unit::Millisecond),
            ("", Unit::Second),
            ("-1", Unit::Second),
            ("1.5s", Unit::Second),
            ("1 fortnight", Unit::Hour),
            ("99999999999999999999", Unit::Second),
            ("18446744073709551615d", Unit::Second),
        ] {
            assert!(milliseconds(text, unit).is_err(), "{text:?} must be refused");
        }
    }
}
