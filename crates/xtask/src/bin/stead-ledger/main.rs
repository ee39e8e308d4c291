//! The ledger: the small application of the demo, the soak and the end-to-end tests.
//!
//! `serve` keeps entries in one SQLite file and answers an append only when SQLite has committed it;
//! `client` appends without pause and records every acknowledged entry; `check` finds acknowledged
//! entries that the ledger does not have. It knows nothing of Stead.

mod client;
mod pg;
mod probe;
mod server;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "A ledger in one SQLite file, with a client that remembers every acknowledged write")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the ledger on one HTTP port.
    Serve {
        /// The SQLite file.
        #[arg(long)]
        db: PathBuf,
        /// Port on all addresses.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Append until a file disappears (or --seconds passed), recording every acknowledgement.
    Client(client::Options),
    /// Append every few milliseconds, each time on a connection of its own, until a file disappears.
    Probe(probe::Options),
    /// The same load on a PostgreSQL table `ledger (client text, seq bigint)`, one commit per entry.
    PgClient(client::Options),
    /// Compare what clients recorded with what the ledger has; exit code 1 when something is lost.
    Check {
        /// `IP:PORT` of the ledger.
        #[arg(long)]
        to: String,
        /// Files written by `client`.
        records: Vec<PathBuf>,
    },
    /// The same comparison with PostgreSQL.
    PgCheck {
        /// `IP:PORT` of PostgreSQL.
        #[arg(long)]
        to: String,
        /// Files written by `pg-client`.
        records: Vec<PathBuf>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve { db, port } => server::serve(&db, port).await,
        Command::Client(options) => client::run(options).await,
        Command::Probe(options) => probe::run(options).await,
        Command::PgClient(options) => pg::run(options).await,
        Command::PgCheck { to, records } => pg::check(&to, &records).await,
        Command::Check { to, records } => client::check(&to, &records).await,
    }
}
