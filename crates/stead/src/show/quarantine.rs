//! What is kept of copies that lost.

use super::table::{plain, table};
use super::units::{bytes, when};
use model::api::{QuarantineFolder, QuarantineList, QuarantineView};
use std::fmt::Write as _;

fn size(view: &QuarantineView) -> String {
    format!("{}{}", if view.at_least { "at least " } else { "" }, bytes(view.bytes))
}

fn dash(epoch: Option<model::Epoch>) -> String {
    epoch.map_or_else(|| "-".into(), |epoch| epoch.to_string())
}

/// `stead quarantine list`.
pub fn quarantines(list: &QuarantineList) -> String {
    if list.folders.is_empty() {
        return format!("module {} keeps nothing in quarantine on {}\n", list.module, list.node);
    }
    let rows: Vec<Vec<String>> = list
        .folders
        .iter()
        .map(|view| vec![view.name.clone(), view.files.to_string(), size(view), dash(view.lost), dash(view.won)])
        .collect();
    let mut text = table(&["FOLDER", "FILES", "BYTES", "EPOCH LOST", "OVERWRITTEN UNDER"], &rows, plain);
    let _ = writeln!(text, "\non {}; look into one: stead quarantine show FOLDER -m {}", list.node, list.module);
    text
}

/// `stead quarantine show`.
pub fn quarantine(shown: &QuarantineFolder) -> String {
    let view = &shown.folder;
    let mut text = format!("{}\n  {} files, {}\n", view.path, view.files, size(view));
    let _ = writeln!(text, "  of the copy of epoch {}, overwritten under epoch {}\n", dash(view.lost), dash(view.won));
    if view.attributes > 0 {
        let (count, list) = (view.attributes, model::api::QUARANTINE_ATTRIBUTES);
        let _ = writeln!(
            text,
            "  mode, owner, time or extended attributes of {count} entries, as they were: {}/{list}\n",
            view.path
        );
    }
    let rows: Vec<Vec<String>> = shown
        .entries
        .iter()
        .map(|e| vec![e.path.clone(), bytes(e.bytes), when(e.modified_unix_ms), e.was.clone()])
        .collect();
    text.push_str(&table(&["FILE", "BYTES", "MODIFIED", "WAS"], &rows, plain));
    let more = view.files.saturating_sub(shown.entries.len() as u64);
    if more > 0 || view.at_least {
        let _ = writeln!(text, "and {more} more: find {} -type f", view.path);
    }
    text
}
