//! Failover rules: what is written in `<failover>`, and what it means.
//!
//! ```text
//! rule   ::= label: if ( expr ) then action;
//! action ::= stop() | stopstart() | wait() | restart() | swap() | noaction() | resource = value
//! expr   ::= ( expr ) | !expr | expr && expr | expr || expr | operand == operand | operand != operand | resource
//! ```
//! Names are `[local.|remote.]class.id`; the id may be `?` (any one) or `*` (all of them). Only the grammar is here;
//! what rules lead to is decided in crate `cluster`.
//! **Invariant:** a text is understood whole or refused with a place; nothing in it is dropped.

mod lua;
mod parse;
mod words;

pub use parse::{Fault, Parsed, parse};

use crate::resource::Value;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Longest text of rules.
pub const TEXT_MAX: usize = 64 * 1024;
/// Most rules of a module.
pub const RULES_MAX: usize = 256;
/// Deepest nesting of an expression.
pub const DEPTH_MAX: usize = 32;

/// `label: if (when) then …;`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, in logs.
    pub label: String,
    /// When it holds.
    pub when: Expr,
    /// What follows.
    pub then: Then,
}

impl Rule {
    /// All names of its condition, in the order they are written.
    #[must_use]
    pub fn names(&self) -> Vec<&Name> {
        let (mut found, mut next) = (Vec::new(), alloc::vec![&self.when]);
        while let Some(expr) = next.pop() {
            match expr {
                Expr::Not(it) => next.push(it),
                Expr::And(a, b) | Expr::Or(a, b) => next.extend([&**b, &**a]),
                Expr::Is { left, right, .. } => {
                    found.extend([left, right].into_iter().filter_map(|operand| match operand {
                        Operand::Resource(name) => Some(name),
                        Operand::Value(_) => None,
                    }));
                }
            }
        }
        found
    }
}

/// A condition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expr {
    /// `!a`
    Not(Box<Expr>),
    /// `a && b`
    And(Box<Expr>, Box<Expr>),
    /// `a || b`
    Or(Box<Expr>, Box<Expr>),
    /// `a == b`, `a != b`; a resource alone means `== up`.
    Is {
        /// What is looked at.
        left: Operand,
        /// `==`, not `!=`.
        equal: bool,
        /// What it is compared with.
        right: Operand,
    },
}

/// One side of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// A resource, or several.
    Resource(Name),
    /// A value.
    Value(Value),
}

/// Names one resource, or with `?` and `*` several of a class.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Name {
    /// On the other node.
    #[serde(default)]
    pub remote: bool,
    /// `tcp`, `heartbeat`, …
    pub class: String,
    /// The rest: a name, `?` or `*`.
    pub id: String,
}

impl Name {
    /// `?`: one is enough. `*`: all of them, and at least one. `None`: a single resource.
    #[must_use]
    pub fn several(&self) -> Option<Several> {
        match self.id.as_str() {
            "?" => Some(Several::Any),
            "*" => Some(Several::All),
            _ => None,
        }
    }
}

/// How a name of several resources is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Several {
    /// `?`
    Any,
    /// `*`
    All,
}

/// What a rule leads to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// An action on the module.
    Act(Act),
    /// A resource of this node gets a value.
    Assign {
        /// `class.name`
        resource: String,
        /// What it becomes.
        value: Value,
    },
}

/// What may be done to a module, the strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Stop it on this node; the other one takes over.
    Stop,
    /// Stop it on this node until no rule says so any more.
    Wait,
    /// Stop it and start it again; the other one takes over.
    StopStart,
    /// Exchange the roles.
    Swap,
    /// Stop and start the application, where it is.
    Restart,
    /// Nothing: the resource is shown, and rules may use it.
    NoAction,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Stop, Self::Wait, Self::StopStart, Self::Swap, Self::Restart, Self::NoAction];

    /// As written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Wait => "wait",
            Self::StopStart => "stopstart",
            Self::Swap => "swap",
            Self::Restart => "restart",
            Self::NoAction => "noaction",
        }
    }

    /// Of a word.
    #[must_use]
    pub fn new(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.as_str() == word)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = if self.remote { "remote." } else { "" };
        write!(f, "{remote}{}.{}", self.class, self.id)
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(name) => name.fmt(f),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Not(it) => write!(f, "!({it})"),
            Self::And(a, b) => write!(f, "({a} && {b})"),
            Self::Or(a, b) => write!(f, "({a} || {b})"),
            Self::Is { left, equal, right } => write!(f, "{left} {} {right}", if *equal { "==" } else { "!=" }),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: if ({}) then ", self.label, self.when)?;
        match &self.then {
            Then::Act(act) => write!(f, "{act}();"),
            Then::Assign { resource, value } => write!(f, "{resource}={value};"),
        }
    }
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
