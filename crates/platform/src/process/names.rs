//! What a process is called, where the kernel keeps only the beginning of its name.

use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;

/// Longest name that the kernel keeps (`TASK_COMM_LEN` less the end).
pub const KEPT_MAX: usize = 15;
/// The program's own name is among the first words of its command line; a script's behind its interpreter and an option of it.
const WORDS: usize = 3;
/// As much of a command line as is looked at for them.
const LINE_MAX: u64 = 16 * 1024;

/// What the kernel keeps of a name.
#[must_use]
pub fn kept(name: &[u8]) -> &[u8] {
    &name[..name.len().min(KEPT_MAX)]
}

/// Is the process, whose name the kernel keeps as `comm`, called so? The rest of a longer name tells the program's file, or
/// what it was started as.
#[must_use]
pub fn is_called(pid: i32, comm: &[u8], name: &[u8]) -> bool {
    comm == kept(name) && (name.len() <= KEPT_MAX || is_file(pid, name) || is_word(pid, name))
}

fn is_file(pid: i32, name: &[u8]) -> bool {
    let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let program = program.as_os_str().as_bytes();
    // Replaced on disk since it was started: still the same program.
    last(program.strip_suffix(b" (deleted)").unwrap_or(program)) == name
}

fn is_word(pid: i32, name: &[u8]) -> bool {
    let mut line = Vec::new();
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/cmdline")) else { return false };
    let read = file.take(LINE_MAX).read_to_end(&mut line);
    read.is_ok() && line.split(|byte| *byte == 0).take(WORDS).any(|word| last(word) == name)
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
