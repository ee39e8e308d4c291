//! `stead quarantine …`.

use super::Context;
use crate::cli::QuarantineVerb;
use crate::output::Done;
use crate::show;
use model::api::{Code, Problem, QuarantineFolder, QuarantineList};

/// The verb.
pub async fn quarantine(context: &Context, verb: &QuarantineVerb) -> Result<Done, Problem> {
    let module = context.module().await?;
    let base = format!("modules/{module}/quarantine");
    match verb {
        QuarantineVerb::List => {
            let list: QuarantineList = context.client.get(&base).await?;
            Ok(Done::new(show::quarantines(&list), &list))
        }
        QuarantineVerb::Show(args) => {
            let folder: QuarantineFolder = context.client.get(&format!("{base}/{}", named(&args.folder)?)).await?;
            Ok(Done::new(show::quarantine(&folder), &folder))
        }
        QuarantineVerb::Drop(args) => {
            // All names first: nothing is removed when one of them is wrong.
            let mut paths = Vec::new();
            for folder in &args.folders {
                let path = format!("{base}/{}", named(folder)?);
                let _: QuarantineFolder = context.client.get(&path).await?;
                paths.push(path);
            }
            let mut left = None;
            for path in &paths {
                left = Some(context.client.delete::<QuarantineList>(path).await?);
            }
            let text = format!("dropped: {}\n", args.folders.join(", "));
            let rest = left.as_ref().map(show::quarantines).unwrap_or_default();
            Ok(Done::new(text + &rest, &left))
        }
    }
}

/// A folder's name as it may stand in a path.
fn named(folder: &str) -> Result<&str, Problem> {
    let is_plain = !folder.is_empty() && folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    is_plain.then_some(folder).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no quarantine folder '{folder}'"), "")
            .with_help("stead quarantine list")
    })
}
