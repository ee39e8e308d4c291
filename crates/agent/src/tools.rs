//! The small programs that scripts of SafeKit call: `boundcmd`, `processtree`, `gencron`, `exitcode`, `safekit`.
//!
//! Each is this binary under another name, in one folder that the scripts have first on their `PATH` (SAFEBIN).

mod boundcmd;
mod gencron;
mod processtree;

use model::patterns::Expression;
use platform::process::list::{Signal, matching, signal};
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;

/// Wrong usage, or what was asked could not be done.
const FAILED: u8 = 1;

type Tool = fn(&[String]) -> Result<u8, String>;

const TOOLS: [(&str, Tool); 4] =
    [("boundcmd", boundcmd::run), ("exitcode", exitcode), ("gencron", gencron::run), ("processtree", processtree::run)];

/// A program by its file name; `None`: it is none of these.
#[must_use]
pub fn find(program: &OsStr) -> Option<&'static str> {
    let name = Path::new(program).file_name()?;
    TOOLS.iter().map(|(known, _)| *known).find(|known| name == *known)
}

/// Runs one to its exit code; what went wrong goes to stderr.
#[must_use]
pub fn run(name: &str, args: &[String]) -> u8 {
    let Some((_, tool)) = TOOLS.iter().find(|(known, _)| *known == name) else { return FAILED };
    tool(args).unwrap_or_else(|why| {
        say(&format!("{name}: {why}"));
        FAILED
    })
}

/// On stderr; that it is closed, or on a full disk, changes nothing of what a tool does.
fn say(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// On stdout, likewise.
fn show(text: &str) {
    drop(write!(io::stdout(), "{text}"));
}

/// Ends with a number.
fn exitcode(args: &[String]) -> Result<u8, String> {
    match args {
        [code] => code.parse().map_err(|_| format!("'{code}' is no exit code: 0 to 255")),
        _ => Err("usage: exitcode NUMBER".to_string()),
    }
}

/// Processes of this name, and of a matching command line: listed (`None`), asked to end, or killed (`true`).
///
/// # Errors
/// The name or the expression is none.
pub fn kill(name: &str, arguments: Option<&str>, hard: Option<bool>) -> Result<Vec<(i32, String)>, String> {
    if name.trim().is_empty() {
        return Err("a process has a name".to_string());
    }
    let regex = match arguments {
        Some(text) => {
            Some(Expression::new(text).ok_or_else(|| format!("'{text}' is no regular expression (POSIX extended)"))?)
        }
        None => None,
    };
    let found = matching(Some(name), regex.as_ref());
    if let Some(hard) = hard {
        found.iter().for_each(|it| signal(it, if hard { Signal::KILL } else { Signal::TERM }));
    }
    Ok(found.into_iter().map(|it| (it.pid, if it.arguments.is_empty() { it.name } else { it.arguments })).collect())
}

/// Makes the folder of these programs, all of them links to `program`.
///
/// # Errors
/// As the system says, with the path.
pub fn lay_out(dir: &Path, program: &Path) -> io::Result<()> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
    };
    std::fs::create_dir_all(dir).map_err(named(dir))?;
    for name in TOOLS.iter().map(|(name, _)| *name).chain(["safekit", "stead"]) {
        let link = dir.join(name);
        if std::fs::read_link(&link).is_ok_and(|target| target == program) {
            continue;
        }
        // Made aside and renamed: a script that runs now always finds one of the two.
        let new = dir.join(format!(".{name}.new"));
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(program, &new).map_err(named(&new))?;
        std::fs::rename(&new, &link).map_err(named(&link))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_once_and_follow_the_program() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("bin");
        for program in ["/usr/local/bin/stead", "/usr/bin/stead", "/usr/bin/stead"] {
            lay_out(&dir, Path::new(program)).expect("laid out");
            for name in ["boundcmd", "processtree", "gencron", "exitcode", "safekit", "stead"] {
                assert_eq!(std::fs::read_link(dir.join(name)).expect(name), Path::new(program));
            }
        }
        assert_eq!(std::fs::read_dir(&dir).expect("there").count(), 6);
    }

    #[test]
    fn exit_codes() {
        assert_eq!(find(OsStr::new("/run/stead/bin/exitcode")), Some("exitcode"));
        assert_eq!(find(OsStr::new("stead")), None);
        assert_eq!(run("exitcode", &["7".into()]), 7);
        assert_eq!(run("exitcode", &["700".into()]), FAILED);
        assert_eq!(run("exitcode", &[]), FAILED);
    }
}
