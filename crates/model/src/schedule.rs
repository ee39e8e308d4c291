//! When something is due: the five fields of a crontab.
//!
//! Pure: a minute of the node's own time is asked about, and answered yes or no. As crontabs have it, a day is meant when
//! either its number or its weekday is, if both are given. A minute that a change to summer time leaves out does not come.

use alloc::format;
use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};

/// A minute on the clock of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Minute {
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 23.
    pub hour: u8,
    /// Of the month: 1 to 31.
    pub day: u8,
    /// 1 to 12.
    pub month: u8,
    /// 0 (Sunday) to 6.
    pub weekday: u8,
}

/// Minutes, hours, days, months and weekdays at which something is due.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both days and weekdays are given: either will do.
    either: bool,
}

struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// Of the first value.
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, words: &[] },
    Field { name: "hour", least: 0, most: 23, words: &[] },
    Field { name: "day of the month", least: 1, most: 31, words: &[] },
    Field {
        name: "month",
        least: 1,
        most: 12,
        words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // 7 is Sunday as well.
    Field { name: "weekday", least: 0, most: 7, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

const NAMED: [(&str, &str); 4] =
    [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *")];

impl Schedule {
    /// Reads `MINUTE HOUR DAY MONTH WEEKDAY`, or `@hourly`, `@daily`, `@weekly`, `@monthly`.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let meant = NAMED.iter().find(|(name, _)| *name == text).map_or(text, |(_, fields)| *fields);
        let mut sets = [0_u64; 5];
        let mut words = meant.split_ascii_whitespace();
        for (set, field) in sets.iter_mut().zip(&FIELDS) {
            let Some(word) = words.next() else {
                return Err(format!(
                    "'{text}' has no {}: five fields as in a crontab, such as '0 3 * * *'",
                    field.name
                ));
            };
            *set = field.set(word)?;
        }
        if words.next().is_some() {
            return Err(format!("'{text}' has more than five fields"));
        }
        let [minutes, hours, days, months, weekdays] = sets;
        let given = |at: usize| meant.split_ascii_whitespace().nth(at).is_some_and(|word| !word.starts_with('*'));
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        Ok(Self { text: text.to_string(), minutes, hours, days, months, weekdays, either: given(2) && given(4) })
    }

    /// Is it due in this minute?
    #[must_use]
    pub fn is_due(&self, at: Minute) -> bool {
        let has = |set: u64, value: u8| set >> value & 1 == 1;
        let (day, weekday) = (has(self.days, at.day), has(self.weekdays, at.weekday));
        has(self.minutes, at.minute)
            && has(self.hours, at.hour)
            && has(self.months, at.month)
            && if self.either { day || weekday } else { day && weekday }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
    }
}

impl Field {
    /// `*`, `3`, `1-5`, `*/10`, `mon-fri`, and several of them with commas between.
    fn set(&self, word: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in word.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    (range, self.number(step).filter(|step| *step > 0).ok_or_else(|| self.wrong(part))?)
                }
                None => (part, 1),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => (self.value(from, part)?, self.value(to, part)?),
                None if part.contains('/') => (self.value(range, part)?, self.most),
                None => (self.value(range, part)?, self.value(range, part)?),
            };
            if from > to {
                return Err(self.wrong(part));
            }
            for value in (from..=to).step_by(step.into()) {
                set |= 1 << value;
            }
        }
        Ok(set)
    }

    fn value(&self, word: &str, part: &str) -> Result<u8, String> {
        let lower = word.to_ascii_lowercase();
        let at = self.words.iter().position(|name| *name == lower);
        let named = at.and_then(|at| u8::try_from(at).ok()).map(|at| at + self.least);
        let value = named.or_else(|| self.number(word)).ok_or_else(|| self.wrong(part))?;
        if (self.least..=self.most).contains(&value) { Ok(value) } else { Err(self.wrong(part)) }
    }

    /// At most two digits.
    fn number(&self, word: &str) -> Option<u8> {
        let plain = !word.is_empty() && word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| word.parse().ok()).flatten()
    }

    fn wrong(&self, part: &str) -> String {
        format!("'{part}' is no {} (*, {} to {}, a-b, a,b, */n)", self.name, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(minute: u8, hour: u8, day: u8, month: u8, weekday: u8) -> Minute {
        Minute { minute, hour, day, month, weekday }
    }

    #[test]
    fn the_fields_of_a_crontab() {
        let due = |text: &str, minute| Schedule::new(text).expect(text).is_due(minute);
        assert!(due("0 3 * * *", at(0, 3, 9, 5, 1)) && !due("0 3 * * *", at(1, 3, 9, 5, 1)));
        assert!(
            due("*/15 8-17 * * mon-fri", at(45, 17, 1, 1, 5)) && !due("*/15 8-17 * * mon-fri", at(45, 17, 1, 1, 6))
        );
        assert!(due("5,10 * * jan,DEC *", at(10, 0, 1, 12, 0)) && !due("5,10 * * jan,DEC *", at(10, 0, 1, 11, 0)));
        assert!(due("0 0 * * 7", at(0, 0, 3, 3, 0)), "7 is Sunday");
        assert!(due("30/10 * * * *", at(50, 1, 1, 1, 1)) && !due("30/10 * * * *", at(20, 1, 1, 1, 1)));
        // Both given: either will do; one of them with a star: both must.
        assert!(due("0 0 13 * 5", at(0, 0, 13, 6, 2)) && due("0 0 13 * 5", at(0, 0, 14, 6, 5)));
        assert!(!due("0 0 */2 * 5", at(0, 0, 14, 6, 5)));
        assert!(due("@daily", at(0, 0, 31, 12, 3)) && due(" @hourly ", at(0, 9, 31, 12, 3)));
    }

    #[test]
    fn what_is_none_is_refused_with_its_field() {
        for (text, word) in [
            ("", "minute"),
            ("60 * * * *", "minute"),
            ("0 24 * * *", "hour"),
            ("0 0 0 * *", "day of the month"),
            ("0 0 1 13 *", "month"),
            ("0 0 1 1 8", "weekday"),
            ("0 0 1 1 fry", "weekday"),
            ("0 5-3 * * *", "hour"),
            ("*/0 * * * *", "minute"),
            ("0 3 * *", "weekday"),
            ("0 3 * * * root", "more than five"),
            ("@never", "hour"),
            ("0, * * * *", "minute"),
            ("999999999999 * * * *", "minute"),
        ] {
            let error = Schedule::new(text).expect_err(text);
            assert!(error.contains(word) || text == "@never", "{text}: {error}");
        }
    }

    #[test]
    fn it_is_kept_as_its_text() {
        let schedule = Schedule::new("0 3 * * mon").expect("valid");
        let text = String::from(schedule.clone());
        assert_eq!(text, "0 3 * * mon");
        assert_eq!(Schedule::try_from(text), Ok(schedule));
        assert!(Schedule::try_from("never".to_string()).is_err());
    }
}
