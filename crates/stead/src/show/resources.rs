//! Resources and rules.

use super::table::{plain, table};
use super::units::when;
use model::api::ResourceView;

/// One row per resource; what it was before, the last three.
pub fn resources(all: &[ResourceView]) -> String {
    if all.is_empty() {
        return "no resource: nothing of this module is watched\n".into();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|it| {
            let past: Vec<String> = it.past.iter().rev().take(3).map(|past| past.value.to_string()).collect();
            let since = if it.since_unix_ms == 0 { "-".into() } else { when(it.since_unix_ms) };
            vec![it.name.clone(), it.value.to_string(), since, past.join(" < "), it.why.clone()]
        })
        .collect();
    table(&["RESOURCE", "VALUE", "SINCE", "BEFORE", "WHY"], &rows, plain)
}

/// What was played, and what followed.
pub fn played(rules: &[String], steps: &[(String, Vec<String>)]) -> String {
    let mut text = String::new();
    if rules.is_empty() {
        text.push_str("no rule: there are no checkers and no <failover>\n");
    }
    rules.iter().for_each(|rule| text.push_str(&format!("{rule}\n")));
    for (step, followed) in steps {
        text.push_str(&format!("> {step}\n"));
        followed.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    text
}
