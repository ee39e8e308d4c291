//! Text into rules, by descent. What is not understood ends its rule, with its place; the next one begins behind a `;`.

use super::words::{Word, cut};
use super::{Act, DEPTH_MAX, Expr, Name, Operand, RULES_MAX, Rule, TEXT_MAX, Then};
use crate::resource::Value;
use crate::schema::Position;
use crate::schema::suggest::{listed, nearest};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What a text of rules holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    /// Each with the place of its label.
    pub rules: Vec<(Rule, Position)>,
    /// Labels of built-in rules that are switched off (`Rules.disable("…")`).
    pub disabled: Vec<String>,
}

/// What is wrong, where, and what helps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// In the text of the rules.
    pub at: Position,
    /// A sentence.
    pub message: String,
    /// What to write instead; may be empty.
    pub help: String,
}

const EXAMPLE: &str = "a rule is written: label: if (tcp.http == down) then restart();";
const PLACE_ZERO: Position = Position { line: 1, column: 1 };

/// All rules of a text, in SafeKit's language, or translated from the plain tables of its Lua form.
///
/// # Errors
/// What is not understood: of each rule the first thing. (Of a text that is no text of rules, or a program: one.)
pub fn parse(text: &str) -> Result<Parsed, Vec<Fault>> {
    if text.len() > TEXT_MAX {
        let message = format!("these rules have {} bytes: no more than {TEXT_MAX} are read", text.len());
        return Err(Vec::from([Fault { at: PLACE_ZERO, message, help: String::new() }]));
    }
    if super::lua::is_lua(text) {
        return super::lua::translate(text).map_err(|fault| Vec::from([fault]));
    }
    let words = cut(text).map_err(|(at, message)| Vec::from([Fault { at, message, help: EXAMPLE.to_string() }]))?;
    let mut parser = Parser { words: &words, next: 0, depth: 0 };
    let mut rules: Vec<(Rule, Position)> = Vec::new();
    let mut faults = Vec::new();
    while parser.next < words.len() {
        if rules.len() + faults.len() == RULES_MAX {
            let at = parser.peek().map_or(PLACE_ZERO, |word| word.at);
            faults.push(Fault { at, message: format!("more than {RULES_MAX} rules"), help: String::new() });
            break;
        }
        match parser.rule() {
            Ok((rule, at)) if rules.iter().any(|(other, _)| other.label == rule.label) => {
                let message = format!("the rule {} stands twice", rule.label);
                faults.push(Fault { at, message, help: "give it another name".to_string() });
            }
            Ok(rule) => rules.push(rule),
            Err(fault) => {
                faults.push(fault);
                parser.skip();
            }
        }
    }
    if faults.is_empty() { Ok(Parsed { rules, disabled: Vec::new() }) } else { Err(faults) }
}

struct Parser<'a> {
    words: &'a [Word<'a>],
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Word<'a>> {
        self.words.get(self.next)
    }

    fn fault<T>(&self, wanted: &str, help: &str) -> Result<T, Fault> {
        let (at, message) = match self.peek() {
            Some(word) => (word.at, format!("'{}' where {wanted} belongs", word.text)),
            None => {
                let at = self.words.last().map_or(PLACE_ZERO, |word| word.at);
                (at, format!("the rules end where {wanted} belongs"))
            }
        };
        Err(Fault { at, message, help: help.to_string() })
    }

    fn sign(&mut self, text: &str) -> Result<(), Fault> {
        if self.is_sign(text) {
            self.next += 1;
            return Ok(());
        }
        self.fault(&format!("'{text}'"), EXAMPLE)
    }

    fn is_sign(&self, text: &str) -> bool {
        self.peek().is_some_and(|word| !word.is_name && word.text == text)
    }

    /// Behind the end of a rule that is not understood.
    fn skip(&mut self) {
        self.depth = 0;
        while self.next < self.words.len() && !self.takes(";") {
            self.next += 1;
        }
    }

    fn takes(&mut self, text: &str) -> bool {
        let taken = self.is_sign(text);
        self.next += usize::from(taken);
        taken
    }

    fn name(&mut self, wanted: &str) -> Result<&'a Word<'a>, Fault> {
        match self.peek() {
            Some(word) if word.is_name => {
                self.next += 1;
                Ok(word)
            }
            _ => self.fault(wanted, EXAMPLE),
        }
    }

    fn keyword(&mut self, text: &str) -> Result<(), Fault> {
        if self.peek().is_some_and(|word| word.is_name && word.text == text) {
            self.next += 1;
            return Ok(());
        }
        self.fault(&format!("'{text}'"), EXAMPLE)
    }

    fn rule(&mut self) -> Result<(Rule, Position), Fault> {
        let label = self.name("the name of a rule")?;
        self.sign(":")?;
        self.keyword("if")?;
        self.sign("(")?;
        let when = self.either()?;
        self.sign(")")?;
        self.keyword("then")?;
        let then = self.then()?;
        self.sign(";")?;
        Ok((Rule { label: label.text.to_string(), when, then }, label.at))
    }

    fn then(&mut self) -> Result<Then, Fault> {
        let word = self.name("an action")?;
        if self.takes("=") {
            let value = self.name("a value")?;
            return assignment(word, value);
        }
        let Some(act) = Act::new(word.text) else {
            let names = || Act::ALL.into_iter().map(Act::as_str);
            let help = match nearest(word.text, names()) {
                Some(near) => format!("did you mean {near}()?"),
                None => format!("an action is one of {}, or an assignment such as custom.x=up", listed(names())),
            };
            return Err(Fault { at: word.at, message: format!("'{}' is no action", word.text), help });
        };
        if self.takes("(") {
            self.sign(")")?;
        }
        Ok(Then::Act(act))
    }

    fn either(&mut self) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fault(&format!("no expression nested deeper than {DEPTH_MAX}"), "write two rules");
        }
        let mut left = self.both()?;
        while self.takes("||") {
            left = Expr::Or(Box::new(left), Box::new(self.both()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn both(&mut self) -> Result<Expr, Fault> {
        let mut left = self.one()?;
        while self.takes("&&") {
            left = Expr::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Expr, Fault> {
        if self.is_sign("!") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return self.fault(&format!("no expression nested deeper than {DEPTH_MAX}"), "write two rules");
            }
            self.next += 1;
            let inner = self.one()?;
            self.depth -= 1;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.takes("(") {
            let inner = self.either()?;
            self.sign(")")?;
            return Ok(inner);
        }
        let at = self.peek().map_or(PLACE_ZERO, |word| word.at);
        let left = self.operand()?;
        let equal = self.is_sign("==");
        if self.takes("==") || self.takes("!=") {
            let right = self.operand()?;
            return Ok(Expr::Is { left, equal, right });
        }
        match left {
            Operand::Resource(_) => Ok(Expr::Is { left, equal: true, right: Operand::Value(Value::Up) }),
            Operand::Value(value) => Err(Fault {
                at,
                message: format!("'{value}' alone is no condition"),
                help: "compare it: heartbeat.* == down".to_string(),
            }),
        }
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let word = self.name("a resource or a value")?;
        // `cluster()`: is the other node heard at all?
        if word.text == "cluster" && self.takes("(") {
            self.sign(")")?;
            return Ok(Operand::Resource(Name { remote: false, class: "cluster".into(), id: "peer".into() }));
        }
        operand(word.text).map_err(|(message, help)| Fault { at: word.at, message, help })
    }
}

/// A resource or a value of one word; else what is wrong, and what helps.
pub(super) fn operand(text: &str) -> Result<Operand, (String, String)> {
    if let Some(name) = name(text)? {
        return Ok(Operand::Resource(name));
    }
    let known = ["up", "down", "init", "unknown"];
    if let Some(value) = Value::new(text)
        && (!matches!(value, Value::Word(_)) || text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
    {
        return Ok(Operand::Value(value));
    }
    let help = match nearest(text, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("a resource is written class.name, a value is one of {}", listed(known)),
    };
    Err((format!("'{text}' is neither a resource nor a value"), help))
}

/// `[local.|remote.]class.id`; `None`: no dot in it.
fn name(text: &str) -> Result<Option<Name>, (String, String)> {
    let (remote, rest) = match text.split_once('.') {
        Some(("local", rest)) if rest.contains('.') => (false, rest),
        Some(("remote", rest)) => (true, rest),
        Some(_) => (false, text),
        None => return Ok(None),
    };
    let wrong = |why: &str| {
        Err((
            format!("'{text}' names no resource: {why}"),
            "write class.name, as in tcp.http or heartbeat.*".to_string(),
        ))
    };
    let Some((class, id)) = rest.split_once('.') else { return wrong("it has no class") };
    if class.is_empty() || id.is_empty() {
        return wrong("a part of it is empty");
    }
    let wild = |part: &str| part.contains(['*', '?']);
    if wild(class) || (wild(id) && id != "*" && id != "?") {
        return wrong("* and ? stand for a whole name, not for a part of one");
    }
    Ok(Some(Name { remote, class: class.into(), id: id.into() }))
}

fn assignment(word: &Word<'_>, value: &Word<'_>) -> Result<Then, Fault> {
    let fault = |at, message: String, help: &str| Err(Fault { at, message, help: help.to_string() });
    match operand(word.text) {
        Ok(Operand::Resource(name)) if !name.remote && name.several().is_none() => {
            if !matches!(name.class.as_str(), "custom" | "user") {
                return fault(
                    word.at,
                    format!("{name} is not a rule's to set: Stead decides it itself"),
                    "rules may set custom.NAME and user.NAME; who is up to date is decided by the stored epochs",
                );
            }
            let Some(value) = Value::new(value.text) else {
                return fault(value.at, format!("'{}' is no value", value.text), "write up, down, init or unknown");
            };
            Ok(Then::Assign { resource: name.to_string(), value })
        }
        _ => fault(word.at, format!("'{}' is no single resource of this node", word.text), "write custom.NAME=up"),
    }
}
