//! The measuring hand of `cargo xtask bench`: loads for a directory and for a web server, the floor under every
//! mirror, and the farm's packet filter by itself.
//!
//! Compiled optimised, so that what is measured is the file system and not the measuring. Every command prints
//! one JSON object of figures on standard output.

mod certificates;
mod filter;
mod floor;
mod latency;
mod loads;
mod web;

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
    /// What the farm's packet filter costs, and how evenly it deals out flows: through the kernel's test run. Runs in a network
    /// namespace that is thrown away.
    Filter {
        /// How many flows.
        #[arg(long, default_value_t = 1_000_000)]
        flows: u32,
    },
    /// A small HTTP server: one answer to every request, uploads and downloads of any size.
    Serve {
        /// Where to listen.
        at: SocketAddr,
        /// What it says.
        name: String,
    },
    /// A load for it.
    Web {
        /// The servers, separated by commas, taken in turns.
        to: String,
        /// `keep-alive`, `connections`, `upload` or `download`.
        load: web::Load,
        /// How long, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        ms: u64,
        /// How many connections at the same time.
        #[arg(long, default_value_t = 32)]
        at_once: usize,
        /// The client's addresses, taken in turns: `10.0.1.120@c1` speaks through the interface c1.
        #[arg(long, value_delimiter = ',')]
        from: Vec<web::Near>,
    },
    /// New connections every few milliseconds until the file is gone: the longest time without an answer.
    Outage {
        /// The server.
        to: SocketAddr,
        /// The file.
        running: PathBuf,
        /// Where the answers are written: time in ms since 1970, the client's address, and who answered.
        record: PathBuf,
        /// The client's addresses, each of which asks.
        #[arg(long, value_delimiter = ',')]
        from: Vec<web::Near>,
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
        Command::Filter { flows } => filter::run(flows)?,
        Command::Serve { at, name } => return web::serve(at, &name),
        Command::Web { to, load, ms, at_once, from } => {
            let to = to.split(',').map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
            web::run(&to, load, &from, at_once, std::time::Duration::from_millis(ms))?
        }
        Command::Outage { to, running, record, from } => return web::outage(to, &running, &record, &from),
        Command::Certificates { dir, names } => return certificates::make(&dir, &names),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
