//! Runs the real binary and compares what it says with files under `tests/expected` (`UPDATE=1` rewrites them).

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the program did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Ran {
    /// stdout as the one JSON document it must be.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("stdout is not one JSON document ({e}): {self:?}"))
    }

    /// stdout and stderr are as the file says.
    pub fn is(&self, expected: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected").join(expected);
        let text = format!("exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.out, self.err);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).expect("the expected file can be written");
        }
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, wanted, "differs from {} (UPDATE=1 rewrites it)", path.display());
    }
}

/// `stead` with these arguments on this socket, in UTC, without a module in the environment.
pub fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
    command
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .env("TZ", "UTC")
        .env_remove("STEAD_MODULE")
        .env_remove("SAFEMODULE")
        .stdin(Stdio::null());
    command
}

pub fn run(mut command: Command) -> Ran {
    let start = Instant::now();
    let output = command.output().expect("the program runs");
    Ran {
        code: output.status.code().expect("it exits by itself"),
        out: String::from_utf8(output.stdout).expect("stdout is text"),
        err: String::from_utf8(output.stderr).expect("stderr is text"),
        took: start.elapsed(),
    }
}

/// Both.
pub fn stead(socket: &Path, arguments: &[&str]) -> Ran {
    run(command(socket, arguments))
}
