//! `stead module …`: where a module comes from, and what becomes of it.

use super::Context;
use crate::cli::{InstallArgs, ModuleVerb, PackageArgs, UninstallArgs};
use crate::output::{DONE, Done};
use crate::{roles, show};
use model::api::{ChangeAnswer, Code, InstallAnswer, ModuleList, PACKAGE_MAX, PortList, Problem};
use model::{ModuleId, ModuleName};
use serde_json::json;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where delivered modules are looked for, after `modules/` beside or above the program.
const DELIVERED: &[&str] = &[
    "/usr/local/share/stead/modules",
    "/usr/share/stead/modules",
    "/usr/lib/stead/modules",
];

/// The verb.
pub async fn module(context: &Context, verb: &ModuleVerb) -> Result<Done, Problem> {
    match verb {
        ModuleVerb::Install(args) => install(context, args).await,
        ModuleVerb::List => {
            let list: ModuleList = context.client.get("modules").await?;
            Ok(Done::new(show::list(&list.modules), &list))
        }
        ModuleVerb::Uninstall(args) => uninstall(context, args).await,
        ModuleVerb::Package(args) => package(context, args).await,
        ModuleVerb::Getports => {
            let list: PortList = context.client.get("modules/getports").await?;
            Ok(Done::new(show::ports(&list), &list))
        }
    }
}

async fn install(context: &Context, args: &InstallArgs) -> Result<Done, Problem> {
    let source = find(&args.source)?;
    let module = match &context.module {
        Some(module) => module.clone(),
        None => name_of(&source)?,
    };
    let bytes = if source.is_dir() {
        roles::pack(&source)?
    } else {
        read_package(&source)?
    };
    let mut path = format!("modules/{module}/install?local={}", args.local);
    if let Some(ModuleId(id)) = args.id {
        path.push_str(&format!("&id={id}"));
    }
    let answer: InstallAnswer = context.client.upload(&path, bytes).await?;
    let mut text = format!(
        "module {} is installed with number {}",
        answer.module, answer.id.0
    );
    let nodes: Vec<String> = answer
        .nodes
        .iter()
        .filter(|n| n.problem.is_none())
        .map(|n| n.node.to_string())
        .collect();
    if !nodes.is_empty() {
        text.push_str(&format!(" on {}", nodes.join(", ")));
    }
    text.push_str(&format!(
        "\n  next: stead config -m {} (its files: /etc/stead/modules/{})\n",
        answer.module, answer.module
    ));
    Ok(Done::new(text, &answer))
}

async fn uninstall(context: &Context, args: &UninstallArgs) -> Result<Done, Problem> {
    // Never "the only one there is": removing is said by name.
    let Some(module) = args.name.clone().or_else(|| context.module.clone()) else {
        return Err(Problem::new(
            Code::Invalid,
            "no module is meant",
            "a module is only removed by name",
        )
        .with_help("stead module uninstall MODULE"));
    };
    let answer: ChangeAnswer = context
        .client
        .delete(&format!("modules/{module}?local={}", args.local))
        .await?;
    let nodes: Vec<String> = answer
        .nodes
        .iter()
        .filter(|n| n.problem.is_none())
        .map(|n| n.node.to_string())
        .collect();
    let on = if nodes.is_empty() {
        String::new()
    } else {
        format!(" from {}", nodes.join(", "))
    };
    let mut text = format!("module {module} is removed{on}\n");
    for change in &answer.changes {
        text.push_str(&format!("  - {change}\n"));
    }
    Ok(Done::new(text, &answer))
}

async fn package(context: &Context, args: &PackageArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let bytes = context
        .client
        .bytes(&format!("modules/{module}/package"))
        .await?;
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{module}.safe")));
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::Internal,
            format!("cannot write {}", file.display()),
            error.to_string(),
        )
        .with_help("stead module package FILE.safe")
    };
    if file == Path::new("-") {
        if context.json {
            return Err(
                Problem::new(Code::Invalid, "cannot print an archive as JSON", "")
                    .with_help("stead module package FILE.safe"),
            );
        }
        std::io::Write::write_all(&mut std::io::stdout().lock(), &bytes).map_err(failed)?;
        return Ok(Done {
            exit: DONE,
            ..Done::default()
        });
    }
    std::fs::write(&file, &bytes).map_err(failed)?;
    Ok(Done::new(
        format!("{} written, {} bytes\n", file.display(), bytes.len()),
        json!({ "module": module, "file": file, "bytes": bytes.len() }),
    ))
}

/// The archive or folder meant: a path that exists, or a delivered module's name.
fn find(source: &Path) -> Result<PathBuf, Problem> {
    let name = source.to_string_lossy();
    let is_name = ModuleName::new(&name).is_ok() && !name.ends_with(".safe");
    // A name means the delivered module, even where a folder of that name happens to be; ./NAME means the folder.
    let delivered = if is_name { delivered(&name) } else { None };
    if let Some(found) = delivered {
        return Ok(found);
    }
    if source.exists() {
        return Ok(source.into());
    }
    let why = if is_name {
        let known = delivered_names();
        let known = if known.is_empty() {
            "none is found".into()
        } else {
            known.join(", ")
        };
        format!("no folder has this name, and no delivered module (delivered: {known})")
    } else {
        "there is no such file or folder".into()
    };
    Err(Problem::new(
        Code::NotFound,
        format!("cannot install module '{name}'"),
        why,
    )
    .with_help("stead module install NAME|X.safe|DIR"))
}

fn delivered(name: &str) -> Option<PathBuf> {
    delivered_dirs().into_iter().find_map(|dir| {
        let folder = dir.join(name);
        let archive = dir.join(format!("{name}.safe"));
        if is_module(&folder) {
            Some(folder)
        } else {
            archive.is_file().then_some(archive)
        }
    })
}

fn delivered_names() -> Vec<String> {
    let mut names: Vec<String> = delivered_dirs()
        .into_iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| is_module(path) || path.extension().is_some_and(|e| e == "safe"))
        .filter_map(|path| {
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// `modules/` beside the program or above it (a source tree, an unpacked archive), then where packages put them.
fn delivered_dirs() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let above = program
        .iter()
        .flat_map(|p| p.ancestors().skip(1).take(4).map(|dir| dir.join("modules")));
    above
        .chain(DELIVERED.iter().map(PathBuf::from))
        .filter(|dir| dir.is_dir())
        .collect()
}

fn is_module(folder: &Path) -> bool {
    folder.join("conf/userconfig.xml").is_file()
}

fn name_of(source: &Path) -> Result<ModuleName, Problem> {
    let absolute = std::path::absolute(source).unwrap_or_else(|_| source.into());
    let absolute = absolute.canonicalize().unwrap_or(absolute);
    let name = if absolute.is_dir() {
        absolute.file_name()
    } else {
        absolute.file_stem()
    };
    let name = name.unwrap_or_default().to_string_lossy();
    ModuleName::new(&name).map_err(|error| {
        Problem::new(
            Code::Invalid,
            format!("cannot name a module after {}", source.display()),
            error.to_string(),
        )
        .with_help("name it: stead module install SOURCE -m NAME")
    })
}

fn read_package(file: &Path) -> Result<Vec<u8>, Problem> {
    let failed = |why: String| {
        Problem::new(
            Code::Invalid,
            format!("cannot read {}", file.display()),
            why,
        )
        .with_help("stead module install NAME|X.safe|DIR")
    };
    let mut bytes = Vec::new();
    let limit = PACKAGE_MAX as u64 + 1;
    std::fs::File::open(file)
        .and_then(|f| f.take(limit).read_to_end(&mut bytes))
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() > PACKAGE_MAX {
        return Err(failed(format!(
            "it is larger than {} MiB",
            PACKAGE_MAX / 1024 / 1024
        )));
    }
    if !bytes.starts_with(b"PK") {
        return Err(failed("it is not a .safe archive (a zip)".into()));
    }
    Ok(bytes)
}
