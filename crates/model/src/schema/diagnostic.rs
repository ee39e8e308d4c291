//! A finding about a configuration, at a place a person can go to.
//!
//! The API and the command line pass these on unchanged; rendering (colours, the line itself) is theirs.

use super::tree::Position;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// Accepted; a person should know.
    Note,
}

/// One finding: where, what, and what helps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file as the person knows it (`/etc/stead/modules/AM/conf/userconfig.xml`).
    pub file: String,
    /// 1-based; 0: the file as a whole.
    pub line: u32,
    /// 1-based, in characters; 0: the file as a whole.
    pub column: u32,
    /// Refused or told.
    pub severity: Severity,
    /// What is wrong, with what, and why.
    pub message: String,
    /// What to write or to run instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding that refuses the configuration.
    #[must_use]
    pub fn error(file: &str, at: Position, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: at.line,
            column: at.column,
            severity: Severity::Error,
            message: shortened(message.into()),
            help: None,
        }
    }

    /// A finding a person should know of.
    #[must_use]
    pub fn note(file: &str, at: Position, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(file, at, message) }
    }

    /// The same with what helps.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(shortened(help.into()));
        self
    }

    /// Whether this finding refuses the configuration.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        let severity = if self.is_error() { "error" } else { "note" };
        write!(f, " {severity}: {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n    help: {help}")?;
        }
        Ok(())
    }
}

/// Longest sentence: names in a hostile file are as long as the file.
const SENTENCE_MAX: usize = 600;

fn shortened(text: String) -> String {
    match text.char_indices().nth(SENTENCE_MAX) {
        Some((end, _)) => {
            let mut text = text;
            text.truncate(end);
            text.push('…');
            text
        }
        None => text,
    }
}

/// Most findings shown: whoever made more has one cause in common.
const FINDINGS_MAX: usize = 200;

/// What a check found: the value when nothing refuses it, and everything there is to say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checked<T> {
    /// `None` when at least one diagnostic is an error.
    pub value: Option<T>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Checked<T> {
    /// Withholds the value when a diagnostic is an error, and puts the findings in the order of the file.
    #[must_use]
    pub fn new(value: T, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|a| (a.line, a.column));
        diagnostics.dedup();
        let refused = diagnostics.iter().any(Diagnostic::is_error);
        if let Some(first) = diagnostics.get(FINDINGS_MAX) {
            let more = diagnostics.len() - FINDINGS_MAX;
            let at = Position { line: first.line, column: first.column };
            let rest = Diagnostic {
                severity: if refused { Severity::Error } else { Severity::Note },
                ..Diagnostic::note(&first.file, at, alloc::format!("and {more} more findings from here on"))
            };
            diagnostics.truncate(FINDINGS_MAX);
            diagnostics.push(rest);
        }
        Self { value: (!refused).then_some(value), diagnostics }
    }

    /// Nothing but one error.
    #[must_use]
    pub fn refused(diagnostic: Diagnostic) -> Self {
        Self { value: None, diagnostics: alloc::vec![diagnostic] }
    }

    /// Only the errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|d| d.is_error())
    }
}
