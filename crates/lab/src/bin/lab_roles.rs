//! The two processes a lab is made of, for the tests of this crate; users have them inside `stead`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lab", lab::roles::SUPERVISOR] => lab::roles::supervisor(),
        ["lab", lab::roles::INIT] => lab::roles::init(),
        _ => {
            eprintln!("this program only plays the hidden roles of a lab; use `stead lab`");
            ExitCode::from(2)
        }
    }
}
