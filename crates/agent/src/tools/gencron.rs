//! `gencron add|del USER all|COMMAND -c COMMENT`: lines of a user's crontab, active only where the module serves.
//!
//! `del` turns matching lines into comments that begin with COMMENT, `add` turns them back. Other lines stay as they are.

use std::io::Write as _;
use std::process::{Command, Stdio};

const USAGE: &str = "usage: gencron add|del USER all|COMMAND -c COMMENT";
/// A crontab that is larger is not ours to rewrite.
const CRONTAB_MAX: usize = 1024 * 1024;

pub(super) fn run(args: &[String]) -> Result<u8, String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let [verb @ ("add" | "del"), user, which, "-c", comment] = words.as_slice() else {
        return Err(USAGE.to_string());
    };
    if comment.trim().is_empty() || comment.contains('\n') {
        return Err("the comment is one line, and tells these lines from others: it is not empty".to_string());
    }
    let old = read(user)?;
    let new = edit(&old, *verb == "add", which, comment);
    if new != old {
        write(user, &new)?;
    }
    Ok(0)
}

/// The crontab with the matching lines switched on or off.
fn edit(text: &str, on: bool, which: &str, comment: &str) -> String {
    let mark = format!("#{comment}#");
    let is_meant = |line: &str| which == "all" || line.contains(which);
    // A line that sets a variable holds for those below it: it is no job.
    let is_job = |line: &str| {
        let first = line.trim_start().chars().next();
        first.is_some_and(|c| c.is_ascii_digit() || matches!(c, '*' | '@'))
    };
    let mut edited = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_prefix(&mark) {
            Some(job) if on && is_meant(job) => edited.push_str(job),
            None if !on && is_job(line) && is_meant(line) => {
                edited.push_str(&mark);
                edited.push_str(line);
            }
            _ => edited.push_str(line),
        }
        edited.push('\n');
    }
    edited
}

fn read(user: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("crontab -u {user} -l: {error}");
    let output = Command::new("crontab").args(["-u", user, "-l"]).output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        // Without one there is nothing to switch.
        return if said.contains("no crontab") {
            Ok(String::new())
        } else {
            Err(format!("crontab -u {user} -l: {said}"))
        };
    }
    if output.stdout.len() > CRONTAB_MAX {
        return Err(format!("the crontab of {user} is larger than {CRONTAB_MAX} bytes: it is left as it is"));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("the crontab of {user} is no UTF-8: it is left as it is"))
}

fn write(user: &str, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("crontab -u {user} -: {error}");
    let mut child = Command::new("crontab").args(["-u", user, "-"]).stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("crontab -u {user} -: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# my jobs\nMAILTO=me\n5 * * * * /opt/app/backup\n@daily /opt/app/clean\n";

    #[test]
    fn del_and_add_are_each_others_opposite() {
        let off = edit(TABLE, false, "all", "stead am");
        assert_eq!(off, "# my jobs\nMAILTO=me\n#stead am#5 * * * * /opt/app/backup\n#stead am#@daily /opt/app/clean\n");
        assert_eq!(edit(&off, false, "all", "stead am"), off);
        assert_eq!(edit(&off, true, "all", "stead am"), TABLE);
        assert_eq!(edit(TABLE, true, "all", "stead am"), TABLE);
    }

    #[test]
    fn one_command_and_somebody_elses_comment() {
        let off = edit(TABLE, false, "clean", "stead am");
        assert_eq!(off, "# my jobs\nMAILTO=me\n5 * * * * /opt/app/backup\n#stead am#@daily /opt/app/clean\n");
        assert_eq!(edit(&off, true, "all", "stead other"), off);
        assert_eq!(edit(&off, true, "backup", "stead am"), off);
    }

    #[test]
    fn usage() {
        let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
        for line in ["", "add root all", "clear root all -c x", "add root all -c  "] {
            assert!(run(&words(line)).is_err(), "{line}");
        }
    }
}
