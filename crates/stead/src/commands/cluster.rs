//! `stead cluster …`.

use super::Context;
use crate::cli::ClusterVerb;
use crate::client::CHANGE;
use crate::output::Done;
use crate::show;
use model::api::{
    ChangeAnswer, ClusterConfig, ClusterConfigRequest, ClusterState, Code, ConfInfo, InitAnswer, InitRequest,
    JoinAnswer, JoinRequest, Problem, TokenAnswer,
};
use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest cluster.xml read from a file.
const XML_MAX: u64 = 1024 * 1024;

/// The verb.
pub async fn cluster(context: &Context, verb: &ClusterVerb) -> Result<Done, Problem> {
    let client = &context.client;
    match verb {
        ClusterVerb::Init(args) => {
            let request = InitRequest { name: args.name.clone(), addrs: args.addrs.clone() };
            let answer: InitAnswer = client.post("cluster/init", &request, CHANGE).await?;
            let text = format!(
                "cluster {:016x} is made, this machine is its node {}\n\n{}",
                answer.cluster.0,
                answer.node,
                show::token(&answer.token, now_unix_ms())
            );
            Ok(Done::new(text, &answer))
        }
        ClusterVerb::Join(args) => {
            let request = JoinRequest {
                addr: args.member.clone(),
                token: args.token.clone(),
                name: args.name.clone(),
                addrs: args.addrs.clone(),
                witness: args.witness,
                replace: args.replace,
            };
            let answer: JoinAnswer = client.post("cluster/join", &request, CHANGE).await?;
            let names = |names: Vec<&str>| names.join(", ");
            let mut text = format!("this machine is now {} of cluster {:016x}", answer.node, answer.cluster.0);
            text.push_str(&format!(" (members: {})\n", names(answer.members.iter().map(|n| n.as_str()).collect())));
            if !answer.modules.is_empty() {
                text.push_str(&format!(
                    "modules installed: {}\n",
                    names(answer.modules.iter().map(|m| m.as_str()).collect())
                ));
            }
            for warning in &answer.warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            text.push_str(&match args.replace {
                // Nothing of the machine before it is here.
                true => format!(
                    "  next: on a node that has them, for each module of this one: stead module export -m MODULE --to {}\n",
                    answer.node
                ),
                false => "  next: stead cluster state\n".to_string(),
            });
            Ok(Done::new(text, &answer))
        }
        ClusterVerb::Token => {
            let answer: TokenAnswer = client.post("cluster/token", &serde_json::json!({}), CHANGE).await?;
            Ok(Done::new(show::token(&answer, now_unix_ms()), &answer))
        }
        ClusterVerb::Confcheck(args) => {
            let request = ClusterConfigRequest { xml: read(&args.file)?, dry_run: true, forget: Vec::new() };
            let answer: ChangeAnswer = client.post("cluster/config", &request, CHANGE).await?;
            Ok(Done::new(show::changes("cluster configuration", &answer, true), &answer))
        }
        ClusterVerb::Genkey => {
            let sentence = "nothing to do: what the nodes say to each other is always encrypted and authenticated";
            Ok(Done::new(format!("{sentence}\n"), serde_json::json!({ "sentence": sentence })))
        }
        ClusterVerb::Delkey => Err(Problem::new(
            Code::Refused,
            "the cluster's traffic stays encrypted",
            "nodes know each other by their certificates, and say nothing to anybody else",
        )
        .with_help("stead cluster state")),
        ClusterVerb::Deconfig => Err(Problem::new(
            Code::NotYet,
            "the cluster stays as it is",
            "a node that left could not prove to the others that it serves nothing",
        )
        .with_help(
            "stead module uninstall MODULE; then, on a node that stays: stead cluster config FILE --forget NODE",
        )),
        ClusterVerb::Config(args) => match &args.file {
            None => {
                let answer: ClusterConfig = client.get("cluster/config").await?;
                let newline = if answer.xml.ends_with('\n') { "" } else { "\n" };
                Ok(Done::new(format!("{}{newline}", answer.xml), &answer))
            }
            Some(file) => {
                let request =
                    ClusterConfigRequest { xml: read(file)?, dry_run: args.dry_run, forget: args.forget.clone() };
                let answer: ChangeAnswer = client.post("cluster/config", &request, CHANGE).await?;
                Ok(Done::new(show::changes("cluster configuration", &answer, args.dry_run), &answer))
            }
        },
        ClusterVerb::Confinfo => {
            let info: ConfInfo = client.get("cluster/confinfo").await?;
            Ok(Done::new(show::conf_info(&info), &info))
        }
        ClusterVerb::State => {
            let state: ClusterState = client.get("cluster/state").await?;
            Ok(Done::new(show::cluster_rows(&state), &state))
        }
    }
}

fn read(file: &Path) -> Result<String, Problem> {
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip")) {
        let what = format!("{} is an archive", file.display());
        return Err(Problem::new(Code::Invalid, what, "the keys in SafeKit's archives mean nothing here")
            .with_help("unzip it, then stead cluster config cluster.xml"));
    }
    let mut text = String::new();
    let outcome = if file == Path::new("-") {
        std::io::stdin().take(XML_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(XML_MAX).read_to_string(&mut text))
    };
    match outcome {
        Ok(_) => Ok(text),
        Err(error) => Err(Problem::new(Code::Invalid, format!("cannot read {}", file.display()), error.to_string())
            .with_help("stead cluster config > cluster.xml writes the present one")),
    }
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
