//! The measuring hand of `cargo xtask bench`: loads for a directory, and the floor under every mirror.
//!
//! Compiled optimised, so that what is measured is the file system and not the measuring. Every command prints
//! one JSON object of figures on standard output. It knows nothing of Stead.

mod certificates;
mod floor;
mod latency;
mod loads;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Loads for a directory, measured")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one load in a directory.
    Load {
        /// Which: see `loads::run`.
        load: String,
        /// Where.
        dir: PathBuf,
        /// How long, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        ms: u64,
        /// How many writers at the same time.
        #[arg(long, default_value_t = 1)]
        writers: usize,
        /// The same directory below a mount: what is cold must be cold there, too.
        #[arg(long)]
        lower: Option<PathBuf>,
    },
    /// The far end of the floor: writes and syncs what comes.
    FloorServe {
        /// Where to listen.
        at: SocketAddr,
        /// `ca.pem`, `cert.pem`, `key.pem`.
        tls: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// The near end: write and sync here and there, over one TLS connection.
    Floor {
        /// The far end.
        to: SocketAddr,
        /// `ca.pem`, `cert.pem`, `key.pem`.
        tls: PathBuf,
        /// The file.
        file: PathBuf,
        /// How long, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        ms: u64,
    },
    /// A certificate authority and one certificate per name, each in a directory of its own.
    Certificates {
        /// Where.
        dir: PathBuf,
        /// TLS names.
        names: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let figures = match Arguments::parse().command {
        Command::Load { load, dir, ms, writers, lower } => {
            loads::run(&load, &loads::Place { dir, lower, ms, writers })?
        }
        Command::FloorServe { at, tls, file } => return floor::serve(at, &tls, &file),
        Command::Floor { to, tls, file, ms } => floor::run(to, &tls, &file, ms)?,
        Command::Certificates { dir, names } => return certificates::make(&dir, &names),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
