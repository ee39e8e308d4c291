//! A stand-in for `stead agent` and `stead cluster`: enough to see that `up` pairs as a person would.
//!
//! The nodes share a directory (through /tmp, named by STEAD_TEST_DIR) in which every command is recorded.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;

fn shared(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("STEAD_TEST_DIR").expect("given to agents too")).join(name)
}

fn hostname() -> String {
    fs::read_to_string("/etc/hostname").expect("hostname").trim().to_owned()
}

fn add(file: &str, line: &str) {
    let mut file = File::options().create(true).append(true).open(shared(file)).expect("shared file");
    writeln!(file, "{line}").expect("written");
}

/// Listens where the command line asks.
pub fn agent() -> ExitCode {
    println!("agent of {} starts", hostname());
    if shared("no-agents").exists() {
        println!("this agent has no wish to run");
        return ExitCode::FAILURE;
    }
    let _ = fs::create_dir("/run/stead");
    let _ = fs::remove_file("/run/stead/agent.sock");
    let listener = UnixListener::bind("/run/stead/agent.sock").expect("bind");
    loop {
        drop(listener.accept());
    }
}

/// `cluster init|token|join|state`.
pub fn cluster(args: &[String]) -> ExitCode {
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    add("commands", &format!("{}: {}", hostname(), words.join(" ")));
    let new_token = || {
        let number = fs::read_to_string(shared("commands")).expect("recorded").lines().count();
        fs::write(shared("token"), format!("T{number}")).expect("written");
        println!("{{\"token\":\"T{number}\",\"expires_s\":3600}}");
    };
    match words[..] {
        ["init", "--name", name, "--addr", ..] => {
            add("members", name);
            new_token();
        }
        ["token", "--json"] => new_token(),
        ["join", "10.0.1.1", "--token", token, ref rest @ ..] => {
            if fs::read_to_string(shared("token")).is_ok_and(|good| good == token) {
                let _ = fs::remove_file(shared("token"));
            } else {
                eprintln!("this token is not valid (any more)");
                return ExitCode::FAILURE;
            }
            if rest != ["--witness"] {
                add("members", &hostname());
            }
        }
        ["state", "--json"] => {
            let members = fs::read_to_string(shared("members")).unwrap_or_default();
            let members: Vec<_> = members.lines().map(|name| format!("{{\"node\":\"{name}\"}}")).collect();
            println!("{{\"rows\":[{}]}}", members.join(","));
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
