//! Compiles the farm's packet filter, when the feature `farm` wants it. Nothing but clang is needed: the source includes nothing.

use std::path::Path;
use std::process::Command;
use std::{env, process};

const SOURCE: &str = "src/farm/filter.c";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=CLANG");
    if env::var_os("CARGO_FEATURE_FARM").is_none() {
        return;
    }
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let object = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("filter.o");
    let compiled = Command::new(&clang)
        .args(["-O2", "-g0", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-c", SOURCE, "-o"])
        .arg(&object)
        .status();
    let why = match compiled {
        Ok(status) if status.success() => return,
        Ok(_) => format!("{clang} refused {SOURCE}: see above"),
        Err(error) => format!("the farm's packet filter needs {clang} ({error}): apt-get install clang"),
    };
    eprintln!("error: {why}");
    process::exit(1);
}
