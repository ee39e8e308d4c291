//! Arguments of `stead quarantine`.

use clap::{Args, Subcommand};

/// quarantine …
#[derive(Subcommand)]
pub enum QuarantineVerb {
    /// List what this node keeps: when, how much, of which epoch
    #[command(
        after_help = "Example:\n  stead quarantine list -m postgresql\nNext:\n  stead quarantine show FOLDER -m postgresql"
    )]
    List,
    /// Show the files of one folder, and where they were
    #[command(
        after_help = "Example:\n  stead quarantine show 2026-11-22T07-30-00Z -m postgresql\nNext:\n  stead quarantine drop FOLDER -m postgresql    (when nothing in it is needed)"
    )]
    Show(FolderArgs),
    /// Remove folders for good
    #[command(
        after_help = "Example:\n  stead quarantine drop 2026-11-22T07-30-00Z -m postgresql\nNext:\n  stead quarantine list -m postgresql"
    )]
    Drop(FoldersArgs),
}

/// quarantine show.
#[derive(Args, Debug)]
pub struct FolderArgs {
    /// The folder, as `stead quarantine list` names it
    #[arg(value_name = "FOLDER")]
    pub folder: String,
}

/// quarantine drop.
#[derive(Args, Debug)]
pub struct FoldersArgs {
    /// The folders, as `stead quarantine list` names them
    #[arg(value_name = "FOLDER", required = true)]
    pub folders: Vec<String>,
}
