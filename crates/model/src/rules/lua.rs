//! The Lua form of newer modules: translated where it is a plain table, refused with an explanation otherwise.
//!
//! ```text
//! Rules = Rules + { label = if_then("tcp.x","down",Action.stopstart), _group = "checker" }
//! Rules.disable("ip_failure")
//! ```

use super::parse::{Fault, Parsed, operand};
use super::words::{Word, cut};
use super::{Act, Expr, Operand, RULES_MAX, Rule, Then};
use crate::resource::Value;
use alloc::format;
use alloc::string::{String, ToString};

const HELP: &str = "write it in the language of rules: label: if (tcp.x == down) then stopstart();";

/// Is it the Lua form?
pub fn is_lua(text: &str) -> bool {
    let code = || text.lines().map(str::trim_start).filter(|line| !line.starts_with("--"));
    text.trim_start().starts_with("--Lua")
        || code().any(|line| {
            line.starts_with("Rules.")
                || line.strip_prefix("Rules").is_some_and(|rest| rest.trim_start().starts_with('='))
        })
}

/// See the head of the file.
pub fn translate(text: &str) -> Result<Parsed, Fault> {
    let words = cut(text).map_err(|(at, message)| Fault { at, message, help: HELP.to_string() })?;
    let mut reader = Reader { words: &words, next: 0 };
    let mut parsed = Parsed::default();
    while reader.next < words.len() {
        if reader.takes("Rules.disable") {
            reader.sign("(")?;
            parsed.disabled.push(reader.word()?.text.to_string());
            reader.sign(")")?;
        } else {
            reader.sign("Rules")?;
            reader.sign("=")?;
            reader.sign("Rules")?;
            reader.sign("+")?;
            reader.sign("{")?;
            while !reader.takes("}") {
                reader.entry(&mut parsed)?;
                if !reader.takes(",") && !reader.takes(";") {
                    reader.sign("}")?;
                    break;
                }
            }
        }
    }
    Ok(parsed)
}

struct Reader<'a> {
    words: &'a [Word<'a>],
    next: usize,
}

impl<'a> Reader<'a> {
    fn fault<T>(&self, why: &str) -> Result<T, Fault> {
        let word = self.words.get(self.next).or(self.words.last());
        let at = word.map(|word| word.at).unwrap_or_default();
        let what = word.map_or("", |word| word.text);
        let message = format!("these rules are a program, not a plain table of rules: {why} at '{what}'");
        Err(Fault { at, message, help: HELP.to_string() })
    }

    fn takes(&mut self, text: &str) -> bool {
        let taken = self.words.get(self.next).is_some_and(|word| word.text == text);
        self.next += usize::from(taken);
        taken
    }

    fn sign(&mut self, text: &str) -> Result<(), Fault> {
        if self.takes(text) { Ok(()) } else { self.fault(&format!("'{text}' is expected")) }
    }

    fn word(&mut self) -> Result<&'a Word<'a>, Fault> {
        match self.words.get(self.next) {
            Some(word) if word.is_name => {
                self.next += 1;
                Ok(word)
            }
            _ => self.fault("a name is expected"),
        }
    }

    /// `label = if_then("resource","value",Action.name)`, or a word about all of them (`_group = "checker"`).
    fn entry(&mut self, parsed: &mut Parsed) -> Result<(), Fault> {
        let label = self.word()?;
        self.sign("=")?;
        if label.text.starts_with('_') {
            return self.word().map(drop);
        }
        self.sign("if_then")?;
        self.sign("(")?;
        let resource = self.word()?;
        self.sign(",")?;
        let value = self.word()?;
        self.sign(",")?;
        let action = self.word()?;
        self.sign(")")?;
        let wrong = |word: &Word<'_>, message: String| Fault { at: word.at, message, help: HELP.to_string() };
        let left = match operand(resource.text) {
            Ok(left @ Operand::Resource(_)) => left,
            _ => return Err(wrong(resource, format!("'{}' names no resource", resource.text))),
        };
        let right = Value::new(value.text).ok_or_else(|| wrong(value, format!("'{}' is no value", value.text)))?;
        let act = action.text.strip_prefix("Action.").and_then(Act::new);
        let act = act.ok_or_else(|| wrong(action, format!("'{}' is no action", action.text)))?;
        if parsed.rules.len() == RULES_MAX {
            return self.fault("there are too many rules");
        }
        let when = Expr::Is { left, equal: true, right: Operand::Value(right) };
        parsed.rules.push((Rule { label: label.text.to_string(), when, then: Then::Act(act) }, label.at));
        Ok(())
    }
}
