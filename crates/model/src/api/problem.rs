//! A refusal or failure as a person meets it: what happened, to what, why, and the command that helps.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// What kind of problem, for programs; decides the HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is malformed (name, value, JSON). 400.
    Invalid,
    /// Wrong or expired token or certificate. 401.
    Unauthenticated,
    /// Known, and not allowed. 403.
    Forbidden,
    /// The caller has a certificate of this cluster and is no member of it (any more). 403.
    NotMember,
    /// No such node, module, endpoint. 404.
    NotFound,
    /// The present situation does not allow it; state unchanged. 409.
    Refused,
    /// Larger than the API reads. 413.
    TooLarge,
    /// A configuration was read and is wrong: see the diagnostics. 422.
    Misconfigured,
    /// Asked too often (pairing). 429.
    RateLimited,
    /// Belongs to a later stage. 501.
    NotYet,
    /// Another node did not answer, or answered nonsense. 502.
    Unreachable,
    /// Starting, stopping, or a queue is full: retry is safe. 503.
    Busy,
    /// The wanted situation was not reached in time; work may go on. 504.
    Timeout,
    /// No agent answers on the socket (made by the command line, never sent). 503.
    NoAgent,
    /// A defect or a fault of this machine (disk full, unreadable file). 500; also any code this version does not know.
    #[default]
    #[serde(other)]
    Internal,
}

impl Code {
    /// The HTTP status that carries it.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::NotMember => 403,
            Self::NotFound => 404,
            Self::Refused => 409,
            Self::TooLarge => 413,
            Self::Misconfigured => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::NotYet => 501,
            Self::Unreachable => 502,
            Self::Busy | Self::NoAgent => 503,
            Self::Timeout => 504,
        }
    }
}

/// A refusal or a failure.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Problem {
    /// What was attempted on what, and that it did not happen: "cannot start module 'pg' on node1".
    pub what: String,
    /// Why, without a final stop: "its data is not up to date".
    #[serde(default)]
    pub why: String,
    /// The command (or the sentence holding it) that helps; empty when there is none.
    #[serde(default)]
    pub help: String,
    /// For programs.
    #[serde(default)]
    pub code: Code,
    /// Positions in files, when the problem is a configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

impl Problem {
    /// A problem without help.
    #[must_use]
    pub fn new(code: Code, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), help: String::new(), code, diagnostics: Vec::new() }
    }

    /// The same with the command that helps.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same with positions in files.
    #[must_use]
    pub fn with_diagnostics(mut self, diagnostics: Vec<Diagnostic>) -> Self {
        self.diagnostics = diagnostics;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}
impl core::error::Error for Problem {}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    #[default]
    Error,
    /// Applied, and worth reading.
    Warning,
}

/// A finding at a place of a configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    #[serde(default)]
    pub severity: Severity,
    /// Path or name of the file.
    pub file: String,
    /// 1-based; 0: the file as a whole.
    #[serde(default)]
    pub line: u32,
    /// 1-based, in characters.
    #[serde(default)]
    pub column: u32,
    /// Characters the caret underlines, at least 1.
    #[serde(default)]
    pub width: u32,
    /// What is wrong.
    pub message: String,
    /// The line as written, for the caret; empty when unknown.
    #[serde(default)]
    pub source_line: String,
    /// Suggestion; empty when there is none.
    #[serde(default)]
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}
