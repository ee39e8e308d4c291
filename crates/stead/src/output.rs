//! Where words go: results on stdout, refusals and progress on stderr, one JSON document when asked.
//!
//! Colours only on a terminal. A reader that went away (a closed pipe) ends the program quietly.

use model::api::{Code, Diagnostic, Problem, Severity};
use model::{ModuleState, Status};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Exit code: done.
pub const DONE: u8 = 0;
/// Exit code: refused or failed.
pub const FAILED: u8 = 1;
/// Exit code: wrong usage.
pub const USAGE: u8 = 2;
/// Exit code: no agent answers.
pub const NO_AGENT: u8 = 100;
/// Exit code of `state -lq` when it cannot say the state, for another reason than a missing agent.
pub const QUIET_FAILED: u8 = 101;

/// What a verb came to, before it is printed.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// For people; ends with a newline unless empty.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Exit code.
    pub exit: u8,
}

impl Done {
    /// Done well.
    pub fn new(text: impl Into<String>, json: impl serde::Serialize) -> Self {
        let json = serde_json::to_value(json).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        Self { text: text.into(), json, exit: DONE }
    }

    /// The same with another exit code.
    pub const fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }
}

/// The two streams, and whether they are a person's terminal.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// stdout takes colours.
    pub paint: Paint,
    /// stderr is a terminal: progress may rewrite its line.
    pub live: bool,
}

impl Output {
    /// Looks at the streams and `NO_COLOR`.
    pub fn detect() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self { paint: Paint(wanted && std::io::stdout().is_terminal()), live: std::io::stderr().is_terminal() }
    }

    /// Prints what a verb came to.
    pub fn finish(&self, result: Result<Done, Problem>, json: bool) -> ExitCode {
        match result {
            Ok(done) if json => {
                out(&document(&done.json));
                ExitCode::from(done.exit)
            }
            Ok(done) => {
                out(&done.text);
                ExitCode::from(done.exit)
            }
            Err(problem) => self.refuse(&problem, json, exit_code(&problem)),
        }
    }

    /// Prints a refusal: for people on stderr, for programs on stdout.
    pub fn refuse(&self, problem: &Problem, json: bool, exit: u8) -> ExitCode {
        if json {
            out(&document(&json!({ "error": problem })));
        } else {
            err(&refusal(problem));
        }
        ExitCode::from(exit)
    }
}

/// The exit code of a problem.
pub fn exit_code(problem: &Problem) -> u8 {
    if problem.code == Code::NoAgent { NO_AGENT } else { FAILED }
}

/// A problem as a person reads it: what and why, each finding with its line, and the help.
pub fn refusal(problem: &Problem) -> String {
    let mut text = format!("stead: {}", problem.what);
    if !problem.why.is_empty() {
        let _ = write!(text, ": {}", problem.why);
    }
    text.push('\n');
    text.push_str(&findings(&problem.diagnostics));
    if !problem.help.is_empty() {
        let _ = writeln!(text, "  help: {}", problem.help);
    }
    text
}

/// `file:line:column: error: message`, the line, a caret, the suggestion.
pub fn findings(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for found in diagnostics {
        let kind = match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let _ = match (found.line, found.column) {
            (0, _) => writeln!(text, "{}: {kind}: {}", found.file, found.message),
            (line, column) => writeln!(text, "{}:{line}:{column}: {kind}: {}", found.file, found.message),
        };
        if found.line > 0 && !found.source_line.is_empty() {
            let number = found.line.to_string();
            // Tabs stay tabs in front of the caret, so that it stands under its character.
            let before: String = found
                .source_line
                .chars()
                .take(found.column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let rest = found.source_line.chars().count().saturating_sub(before.chars().count()).max(1);
            let carets = "^".repeat((found.width.max(1) as usize).min(rest));
            let _ = writeln!(
                text,
                "  {number} | {}\n  {:width$} | {before}{carets}",
                found.source_line,
                "",
                width = number.len()
            );
        }
        if !found.help.is_empty() {
            let _ = writeln!(text, "  help: {}", found.help);
        }
    }
    text
}

fn document(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    text.push('\n');
    text
}

/// Writes to stdout; a closed pipe ends the program as it ends `cat`.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes to stderr; nobody is left to tell when that fails.
pub fn err(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub bool);

impl Paint {
    /// The text in the colour of a status: red, orange, green.
    pub fn status(self, text: &str, state: ModuleState, status: Status) -> String {
        match (status, state) {
            (Status::Ready, ModuleState::Alone) | (Status::Transient, _) => self.code(text, "33"),
            (Status::Ready, _) => self.code(text, "32"),
            (Status::NotReady, _) => self.code(text, "31"),
        }
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.code(text, "2")
    }

    fn code(self, text: &str, code: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_its_character() {
        let found = Diagnostic {
            file: "userconfig.xml".into(),
            line: 12,
            column: 4,
            width: 4,
            message: "unknown element <vipp>".into(),
            source_line: "\t\t<vipp>".into(),
            help: "did you mean <vip>?".into(),
            ..Diagnostic::default()
        };
        assert_eq!(
            findings(&[found]),
            "userconfig.xml:12:4: error: unknown element <vipp>\n  12 | \t\t<vipp>\n     | \t\t ^^^^\n  help: did you mean <vip>?\n"
        );
    }

    #[test]
    fn a_position_outside_its_line_is_survived() {
        let found = Diagnostic {
            file: "f".into(),
            line: 1,
            column: 4_000_000_000,
            width: u32::MAX,
            source_line: "é".into(),
            ..Diagnostic::default()
        };
        assert!(findings(&[found]).ends_with("|  ^\n"));
    }
}
