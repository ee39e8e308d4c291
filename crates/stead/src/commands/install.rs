//! `stead module …`.

use super::Context;
use crate::cli::{ExportArgs, InstallArgs, ModuleVerb, PackageArgs, SchemaArgs, SchemaOf, UninstallArgs};
use crate::client::CHANGE;
use crate::output::{DONE, Done, FAILED};
use crate::show;
use agent::modules::delivered::SHARED;
use agent::modules::stage;
use model::ModuleId;
use model::api::{ChangeAnswer, Code, ConfigRequest, InstallAnswer, ModuleList, PortList, Problem};
use model::schema::cluster_table::CLUSTER;
use model::schema::table::SAFE;
use model::schema::{form, reference, xsd};
use serde_json::json;
use std::path::{Path, PathBuf};

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
        ModuleVerb::Export(args) => export(context, args).await,
        ModuleVerb::Getports(args) => {
            let mut list: PortList = context.client.get("modules/getports").await?;
            if let Some(id) = args.id {
                let of = |port: u16| ModuleId::of_replication_port(port);
                let module = list.ports.iter().find(|it| it.module.is_some() && of(it.port) == Some(id));
                let Some(module) = module.and_then(|it| it.module.clone()) else {
                    return Err(Problem::new(Code::NotFound, format!("no module has the number {}", id.0), "")
                        .with_help("stead module listid"));
                };
                list.ports.retain(|it| it.module.as_ref() == Some(&module));
            }
            Ok(Done::new(show::ports(&list), &list))
        }
        ModuleVerb::Schema(args) => Ok(schema(*args)),
        ModuleVerb::New(args) => super::template::new(args),
        ModuleVerb::Listid => {
            let list: PortList = context.client.get("modules/getports").await?;
            let named = list.ports.iter().filter_map(|it| Some((it.module.as_ref()?, it.port)));
            let found: Vec<(String, u16)> = named
                .filter_map(|(module, port)| Some((module.to_string(), ModuleId::of_replication_port(port)?.0)))
                .collect();
            let text: String = found.iter().map(|(module, id)| format!("{id} {module}\n")).collect();
            let json: Vec<_> = found.iter().map(|(module, id)| json!({ "module": module, "id": id })).collect();
            Ok(Done::new(text, json!({ "modules": json })))
        }
        ModuleVerb::Genkey => {
            let sentence = "nothing to do: replication is always encrypted, with the keys of the cluster's nodes";
            Ok(Done::new(format!("{sentence}\n"), json!({ "sentence": sentence })))
        }
        ModuleVerb::Delkey => Err(Problem::new(
            Code::Refused,
            "replication stays encrypted",
            "nothing goes over the network without encryption, and modules have no keys of their own",
        )
        .with_help("stead cluster state")),
    }
}

async fn export(context: &Context, args: &ExportArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let request = ConfigRequest { export: Some(args.to.clone()), dry_run: args.dry_run, ..ConfigRequest::default() };
    let answer: ChangeAnswer = context.client.post(&format!("modules/{module}/config"), &request, CHANGE).await?;
    let what = format!("this node's configuration of module {module}");
    let done = Done::new(show::changes(&what, &answer, args.dry_run), &answer);
    Ok(if answer.nodes.iter().any(|node| node.problem.is_some()) { done.exit(FAILED) } else { done })
}

fn schema(args: SchemaArgs) -> Done {
    let (title, root) = match args.of {
        SchemaOf::Userconfig => ("userconfig.xml", &SAFE),
        SchemaOf::Cluster => ("cluster.xml", &CLUSTER),
    };
    if args.xsd {
        let text = xsd::xsd(root);
        return Done::new(text.clone(), json!({ "xsd": text }));
    }
    // Escaped for HTML in the book; a terminal shows it as it is.
    Done::new(reference::markdown(title, root).replace("&lt;", "<"), form::form(root))
}

async fn install(context: &Context, args: &InstallArgs) -> Result<Done, Problem> {
    let copy = || {
        let module = context.module.as_ref().ok_or_else(|| {
            Problem::new(Code::Invalid, "nothing is installed", "no module is named")
                .with_help("stead module install NAME|X.safe|DIR")
        })?;
        let folder = Path::new(agent::modules::EDITABLE).join(module.as_str());
        if folder.is_dir() {
            return Ok(folder.display().to_string());
        }
        let why = format!("{} is not there", folder.display());
        Err(Problem::new(Code::Invalid, "nothing is installed", why).with_help("stead module install NAME|X.safe|DIR"))
    };
    let source = args.source.clone().map_or_else(copy, Ok)?;
    let staged = stage(&source, Path::new(SHARED)).map_err(|error| {
        Problem::new(Code::Invalid, "nothing is installed", error.to_string())
            .with_help("stead module install NAME|X.safe|DIR")
    })?;
    let module = context.module.clone().unwrap_or(staged.name);
    let mut path = format!("modules/{module}/install?local={}&replace={}", args.local, args.replace);
    if let Some(ModuleId(id)) = args.id {
        path.push_str(&format!("&id={id}"));
    }
    let answer: InstallAnswer = context.client.upload(&path, staged.archive).await?;
    let mut text: String = staged.notes.iter().map(|note| format!("note: {note}\n")).collect();
    text.push_str(&format!("module {} is installed with number {}", answer.module, answer.id.0));
    let nodes: Vec<String> = answer.nodes.iter().filter(|n| n.problem.is_none()).map(|n| n.node.to_string()).collect();
    if !nodes.is_empty() {
        text.push_str(&format!(" on {}", nodes.join(", ")));
    }
    text.push('\n');
    answer.left_out.iter().for_each(|left_out| text.push_str(&format!("  - {left_out}\n")));
    let module = &answer.module;
    text.push_str(&format!("  its files: /etc/stead/modules/{module}\n  next: stead config -m {module}\n"));
    Ok(Done::new(text, &answer))
}

async fn uninstall(context: &Context, args: &UninstallArgs) -> Result<Done, Problem> {
    // Never "the only one there is": removing is said by name.
    let Some(module) = args.name.clone().or_else(|| context.module.clone()) else {
        return Err(Problem::new(Code::Invalid, "no module is meant", "a module is only removed by name")
            .with_help("stead module uninstall MODULE"));
    };
    let answer: ChangeAnswer = context.client.delete(&format!("modules/{module}?local={}", args.local)).await?;
    let nodes: Vec<String> = answer.nodes.iter().filter(|n| n.problem.is_none()).map(|n| n.node.to_string()).collect();
    let on = if nodes.is_empty() { String::new() } else { format!(" from {}", nodes.join(", ")) };
    let mut text = format!("module {module} is removed{on}\n");
    for change in &answer.changes {
        text.push_str(&format!("  - {change}\n"));
    }
    Ok(Done::new(text, &answer))
}

async fn package(context: &Context, args: &PackageArgs) -> Result<Done, Problem> {
    let module = context.module().await?;
    let bytes = context.client.bytes(&format!("modules/{module}/package")).await?;
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{module}.safe")));
    let failed = |error: std::io::Error| {
        Problem::new(Code::Internal, format!("cannot write {}", file.display()), error.to_string())
            .with_help("stead module package FILE.safe")
    };
    if file == Path::new("-") {
        if context.json {
            return Err(Problem::new(Code::Invalid, "cannot print an archive as JSON", "")
                .with_help("stead module package FILE.safe"));
        }
        std::io::Write::write_all(&mut std::io::stdout().lock(), &bytes).map_err(failed)?;
        return Ok(Done { exit: DONE, ..Done::default() });
    }
    std::fs::write(&file, &bytes).map_err(failed)?;
    Ok(Done::new(
        format!("{} written, {} bytes\n", file.display(), bytes.len()),
        json!({ "module": module, "file": file, "bytes": bytes.len() }),
    ))
}
