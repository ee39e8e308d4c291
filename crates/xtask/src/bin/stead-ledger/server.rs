//! The server: one connection to SQLite, `synchronous=FULL`: an answered append is a committed one.

use anyhow::Context;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// One entry; (client, seq) is unique, so an unanswered append may be repeated.
#[derive(Serialize, Deserialize, Debug)]
pub struct Entry {
    /// Who wrote it.
    pub client: String,
    /// Its number there.
    pub seq: i64,
}

/// The answer to an append.
#[derive(Serialize, Deserialize, Debug)]
pub struct Appended {
    /// Host name of the server that committed it.
    pub node: String,
}

#[derive(Deserialize)]
struct Which {
    client: String,
}

struct Ledger {
    db: Mutex<rusqlite::Connection>,
    node: String,
}

/// Serves until killed. SQLite's own recovery runs when the file is opened.
pub async fn serve(db: &Path, port: u16) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(db).with_context(|| format!("opening the ledger {}", db.display()))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "create table if not exists entry (client text not null, seq integer not null, body text not null, primary key (client, seq)) without rowid",
    )?;
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_string();
    let ledger = Arc::new(Ledger { db: Mutex::new(connection), node });
    let router = Router::new().route("/append", post(append)).route("/entries", get(entries)).with_state(ledger);
    let listener =
        tokio::net::TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("listening on port {port}"))?;
    println!("ledger {} on port {port}", db.display());
    axum::serve(listener, router).await?;
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn append(
    State(ledger): State<Arc<Ledger>>,
    Json(entry): Json<Entry>,
) -> Result<Json<Appended>, (StatusCode, String)> {
    let node = ledger.node.clone();
    tokio::task::spawn_blocking(move || {
        let db = ledger.db.lock().map_err(failed)?;
        let body = format!("{} wrote {} — {}", entry.client, entry.seq, "x".repeat(200));
        db.execute("insert or ignore into entry values (?1, ?2, ?3)", rusqlite::params![entry.client, entry.seq, body])
            .map_err(failed)
    })
    .await
    .map_err(failed)??;
    Ok(Json(Appended { node }))
}

async fn entries(
    State(ledger): State<Arc<Ledger>>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<i64>>, (StatusCode, String)> {
    tokio::task::spawn_blocking(move || {
        let db = ledger.db.lock().map_err(failed)?;
        let mut query = db.prepare("select seq from entry where client = ?1 order by seq").map_err(failed)?;
        let rows = query.query_map([which.client], |row| row.get::<_, i64>(0)).map_err(failed)?;
        rows.collect::<Result<Vec<_>, _>>().map(Json).map_err(failed)
    })
    .await
    .map_err(failed)?
}
