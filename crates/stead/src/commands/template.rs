//! `stead module new`: a folder to begin with, from a delivered module; right as it is.

use crate::cli::NewArgs;
use crate::output::Done;
use agent::configuration::read_module;
use agent::modules::Package;
use agent::modules::delivered::{SHARED, find, names};
use agent::modules::package::USERCONFIG;
use model::api::{Code, Problem};
use model::schema::Surroundings;
use model::schema::names::Answers;
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Makes the folder.
pub fn new(args: &NewArgs) -> Result<Done, Problem> {
    let what = format!("module {} is not made", args.name);
    let refused = |why: String| Problem::new(Code::Refused, what.clone(), why).with_help("stead module new NAME");
    let found = find(&args.template, Path::new(SHARED)).map_err(|error| refused(error.to_string()))?;
    let package = found.ok_or_else(|| {
        refused(format!(
            "there is no module '{}' to begin with: {}",
            args.template,
            names(Path::new(SHARED)).join(", ")
        ))
    })?;
    let folder = args.into.clone().unwrap_or_else(|| PathBuf::from(".")).join(args.name.as_str());
    if folder.exists() {
        return Err(refused(format!("{} is there already", folder.display())));
    }
    let package = fill(package, args).map_err(&refused)?;
    write(&package, &folder).map_err(|error| refused(format!("{}: {error}", folder.display())))?;
    let (name, at) = (&args.name, folder.display());
    let text = format!(
        "{at} is made: {at}/{USERCONFIG} and the scripts in {at}/bin\n  next: edit them, then\n    stead confcheck {at}\n    stead module install {at}\n    stead config -m {name}\n"
    );
    Ok(Done::new(text, json!({ "module": name, "folder": folder })))
}

/// The template with what is known already; what is not is left out, so that the rest is right.
fn fill(package: Package, args: &NewArgs) -> Result<Package, String> {
    let mut text = String::from_utf8_lossy(package.userconfig()).into_owned();
    if args.dir.is_some() && !text.contains("<macro name=\"DIR\"") {
        return Err(format!("{} replicates no directory of its own choice: leave --dir out", args.template));
    }
    if args.services.is_some() && !text.contains("<macro name=\"SERVICES\"") {
        return Err(format!("{} starts what it is made for: leave --services out", args.template));
    }
    let dir = args.dir.clone().unwrap_or_else(|| format!("/srv/stead/{}", args.name));
    let mut set = vec![("DIR", Some(dir)), ("SERVICES", args.services.clone()), ("VIP", args.vip.clone())];
    // A template of one application has its own values.
    set.retain(|(name, value)| value.is_some() && text.contains(&format!("<macro name=\"{name}\"")));
    let changes: Vec<(String, String)> =
        set.into_iter().map(|(name, value)| (name.to_string(), value.unwrap_or_default())).collect();
    let bytes = agent::configuration::splice::set_macros(text.as_bytes(), USERCONFIG, args.name.as_str(), &changes)
        .map_err(|found| found.message.clone())?;
    text = String::from_utf8_lossy(&bytes).into_owned();
    if args.vip.is_none() {
        text = without_address(&text);
    }
    text = with_own_head(&text, args.name.as_str());
    // A host name is looked up when the module is configured; any address stands for it until then.
    let stands = |name: String| (name, std::net::Ipv4Addr::new(192, 0, 2, 1).into());
    let names: Answers = agent::configuration::names::of_module(text.as_bytes()).into_iter().map(stands).collect();
    let around = Surroundings { module: args.name.as_str(), cluster: None, subnets: &[], others: &[], names: &names };
    let checked = read_module(text.as_bytes(), USERCONFIG, &around);
    match checked.diagnostics.iter().find(|found| found.severity == model::schema::Severity::Error) {
        Some(error) => Err(format!("the template is not right as it is: {}", error.message)),
        None => Ok(package.with_userconfig(text.into_bytes())),
    }
}

/// Nobody knows the address yet: its block is a comment, to be taken out of it.
fn without_address(text: &str) -> String {
    let (Some(begin), Some(end)) = (text.find("    <vip>"), text.find("</vip>")) else { return text.to_string() };
    if !text.contains("name=\"VIP\" value=\"\"") || end < begin {
        return text.to_string();
    }
    let end = end + "</vip>".len();
    format!(
        "{}    <!-- Give VIP a value, and take this out of the comment:\n{}\n    -->{}",
        &text[..begin],
        without_comments(&text[begin..end]),
        &text[end..]
    )
}

/// There is no comment in a comment.
fn without_comments(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        let Some((_, behind)) = after.split_once("-->") else { break };
        let line = before.trim_end_matches(' ');
        // One that has lines of its own leaves none behind.
        let is_alone = line.ends_with('\n') && behind.starts_with('\n');
        left.push_str(if is_alone { line } else { before });
        rest = if is_alone { &behind[1..] } else { behind };
    }
    left + rest
}

/// What stands above a delivered module says how it is installed; this one is somebody's own.
fn with_own_head(text: &str, name: &str) -> String {
    let head = format!(
        "<!-- Module {name}: what is replicated, watched and moved. Its scripts are in bin/, beside the folder of this file.\n     \
         Check it with: stead confcheck, and the folder. Installed, its files are in /etc/stead/modules/{name}/ on every node;\n     \
         after a change there: stead config -m {name} -->"
    );
    let end = text.find("-->").filter(|_| text.contains("What has to be set"));
    match (text.find("<!--"), end, text.find("<safe>")) {
        (Some(begin), Some(end), Some(root)) if begin < end && end < root => {
            format!("{}{head}{}", &text[..begin], &text[end + "-->".len()..])
        }
        _ => text.to_string(),
    }
}

fn write(package: &Package, folder: &Path) -> std::io::Result<()> {
    for (path, bytes) in package.files() {
        let file = folder.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(package.mode(path)).open(&file)?.write_all(bytes)?;
    }
    Ok(())
}
