//! Lists the folders of `modules/` so that the binary carries the delivered modules (`modules::delivered`).

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let modules = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../modules");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", modules.display());
    let mut code = String::from("&[\n");
    for module in sorted(&modules)? {
        if !module.join("conf/userconfig.xml").is_file() {
            continue;
        }
        let name = module.file_name().and_then(|n| n.to_str()).expect("names of delivered modules are plain");
        let _ = writeln!(code, "    ({name:?}, &[");
        for part in ["bin", "conf"] {
            list(&module.join(part), part, &mut code)?;
        }
        code.push_str("    ]),\n");
    }
    code.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("delivered.rs"), code)
}

fn list(folder: &Path, name: &str, code: &mut String) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for path in sorted(folder)? {
        let part = path.file_name().and_then(|n| n.to_str()).expect("names in delivered modules are plain");
        let name = format!("{name}/{part}");
        if path.is_dir() {
            list(&path, &name, code)?;
        } else {
            let absolute = fs::canonicalize(&path)?;
            let _ = writeln!(code, "        ({name:?}, include_bytes!({absolute:?})),");
        }
    }
    Ok(())
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
