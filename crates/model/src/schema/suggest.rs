//! "Did you mean": the nearest known word to one that is not known.

use alloc::string::String;
use alloc::vec::Vec;

/// The nearest of `known` when it is near enough to be a slip of the hand (case does not count).
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names longer than any of ours are not slips, and the distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    // Of two letters, one is half the word: only their case may differ.
    let length = word.chars().count();
    let limit = if length < 3 { 0 } else { (length / 3).min(3) };
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, replacements, and swapped neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = Vec::with_capacity(a.len() + 1);
    rows.push((0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i);
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// `a, b, c` for a sentence.
#[must_use]
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["replicated", "tocheck", "notreplicated", "flow"];
        assert_eq!(nearest("replicatd", known), Some("replicated"));
        assert_eq!(nearest("Tocheck", known), Some("tocheck"));
        assert_eq!(nearest("folw", known), Some("flow"));
        assert_eq!(nearest("quorum", known), None);
        assert_eq!(nearest("X", ["Y"]), None);
        assert_eq!(nearest(&"x".repeat(5000), known), None);
    }
}
