//! The same client against PostgreSQL: one transaction per entry.

use crate::client::{Options, Target, append_all, compare};
use crate::server::Entry;
use anyhow::Context;
use std::path::PathBuf;
use tokio_postgres::{Client, NoTls};

async fn connect(to: &str) -> anyhow::Result<Client> {
    let (host, port) = to.rsplit_once(':').context("expected IP:PORT")?;
    let (client, connection) =
        tokio_postgres::connect(&format!("host={host} port={port} user=postgres dbname=postgres"), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

struct Postgresql<'a> {
    to: &'a str,
    connection: Option<(Client, String)>,
}

impl Target for Postgresql<'_> {
    async fn append(&mut self, entry: &Entry) -> anyhow::Result<String> {
        let (client, node) = match self.connection.take() {
            Some(connected) => connected,
            None => {
                let client = connect(self.to).await?;
                let node = client
                    .query_one("select trim(e'\\n' from pg_read_file('/proc/sys/kernel/hostname'))", &[])
                    .await?
                    .get(0);
                (client, node)
            }
        };
        client
            .execute("insert into ledger values ($1, $2) on conflict do nothing", &[&entry.client, &entry.seq])
            .await?;
        self.connection = Some((client, node.clone()));
        Ok(node)
    }
    fn disconnect(&mut self) {
        self.connection = None;
    }
}

/// The client of the PostgreSQL ledger.
pub async fn run(options: Options) -> anyhow::Result<()> {
    append_all(&options, &mut Postgresql { to: &options.to, connection: None }).await
}

/// As [`crate::client::check`].
pub async fn check(to: &str, records: &[PathBuf]) -> anyhow::Result<()> {
    compare(records, async |client: &str| {
        let rows = connect(to).await?.query("select seq from ledger where client = $1", &[&client]).await?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    })
    .await
}
