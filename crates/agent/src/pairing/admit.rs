//! The node's side of a join: greet a machine that proves a token, give it a number and a certificate, tell everybody.
//!
//! **Invariant:** the new configuration is in force on every present member, and the token is closed, before the
//! newcomer gets its keys; if any of that fails nothing has changed and the token stays open.

use super::init::{Greeted, Pairing, authority_problem, certificate_problem, disk};
use super::messages::{Conversation, Done, Enter, EnterAnswer, Hello, HelloAnswer, JOIN_VERSION, Sealed, Step};
use super::tokens::{Attempt, Closed, Now, WRONG_MAX};
use crate::api::{Answer, Reply};
use crate::cluster_config::{Applied, Cluster, Member, causes, read, with_node, with_witness};
use crate::identity::{Authority, fingerprint_of_pem, from_hex, random, to_hex};
use crate::transport::{PeerRole, Stranger};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::routing::post;
use axum::{Json, Router};
use model::NodeId;
use model::api::{Code, Problem};
use model::schema::WITNESSES_MAX;
use platform::clock::wall_ms;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Machines between hello and done.
const GREETED_MAX: usize = 32;
/// How long one may take.
const GREETED_LIFE: Duration = Duration::from_secs(60);
/// One message of a join.
const MESSAGE_MAX: usize = 64 * 1024;
/// Certificate requests are far smaller.
const REQUEST_MAX: usize = 8 * 1024;

/// All that a machine without certificate can reach.
pub(super) fn routes(pairing: Pairing) -> Router {
    Router::new()
        .route("/v1/join/hello", post(hello))
        .route("/v1/join/enter", post(enter))
        .route("/v1/join/done", post(done))
        .layer(DefaultBodyLimit::max(MESSAGE_MAX))
        .method_not_allowed_fallback(nothing_else)
        .fallback(nothing_else)
        .with_state(pairing)
}

type Told = Result<Json<Sealed>, JsonRejection>;

async fn hello(State(pairing): State<Pairing>, Extension(from): Extension<Stranger>, told: Told) -> Reply<Sealed> {
    Reply(message(told).and_then(|sealed| pairing.hello(&from, &sealed)))
}

async fn enter(State(pairing): State<Pairing>, Extension(from): Extension<Stranger>, told: Told) -> Reply<Sealed> {
    let sealed = match message(told) {
        Ok(sealed) => sealed,
        Err(problem) => return Reply(Err(problem)),
    };
    // A task of its own: the machine may hang up, the change must come to its end.
    let answer = tokio::spawn(async move { pairing.enter(&from, &sealed).await }).await;
    Reply(answer.unwrap_or_else(|error| Err(Problem::new(Code::Internal, "cannot join", error.to_string()))))
}

async fn done(State(pairing): State<Pairing>, Extension(from): Extension<Stranger>, told: Told) -> Reply<Sealed> {
    Reply(message(told).and_then(|sealed| pairing.done(&from, &sealed)))
}

fn message(told: Told) -> Answer<Sealed> {
    told.map(|Json(sealed)| sealed)
        .map_err(|rejection| Problem::new(Code::Invalid, "cannot join", rejection.body_text()))
}

async fn nothing_else() -> Reply<()> {
    let problem =
        Problem::new(Code::Forbidden, "nothing is answered here", "the client showed no certificate of this cluster");
    Reply(Err(problem.with_help("a machine that wants to join runs stead cluster join ADDRESS --token TOKEN")))
}

fn stale() -> Problem {
    Problem::new(Code::Refused, "cannot join", "the conversation was not begun, or took too long")
        .with_help("run stead cluster join again")
}

impl Pairing {
    fn greeted(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Greeted>> {
        let mut greeted = self.0.greeted.lock().unwrap_or_else(PoisonError::into_inner);
        greeted.retain(|_, one| one.at.elapsed() < GREETED_LIFE);
        greeted
    }

    fn hello(&self, from: &Stranger, sealed: &Sealed) -> Answer<Sealed> {
        let what = "cannot join";
        let cluster = self.0.store.current().ok_or_else(stale)?;
        if sealed.version != JOIN_VERSION {
            let why = format!(
                "this node speaks version {JOIN_VERSION} of joining, the new machine version {}",
                sealed.version
            );
            return Err(Problem::new(Code::Refused, what, why).with_help("install the same version of stead on both"));
        }
        let unreadable = |error: rustls::pki_types::pem::Error| Problem::new(Code::Internal, what, error.to_string());
        let identity = &cluster.identity;
        let mut conversation = Conversation {
            binding: from.binding,
            ca_der: CertificateDer::from_pem_slice(identity.ca_pem.as_bytes()).map_err(unreadable)?.to_vec(),
            server_der: CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes())
                .map_err(unreadable)?
                .to_vec(),
            nonces: Vec::new(),
        };
        let (attempt, key) = self.0.tokens.attempt(&sealed.token_id, from.source, &Now::read(), |key| {
            conversation.is_proven(key, Step::Hello, sealed)
        });
        let again = format!("make another on {}: stead cluster token", identity.name);
        let refuse = |why: String| Err(Problem::new(Code::Unauthenticated, what, why).with_help(again));
        let key = match (attempt, key) {
            (Attempt::Open, Some(key)) => key,
            (Attempt::Expired, _) => return refuse("the token has expired: it is good for one hour".into()),
            (Attempt::Closed(Closed::Used { by }), _) => {
                return refuse(format!("the token was used already, by '{by}': each is good for one machine"));
            }
            (Attempt::Closed(Closed::Missed), _) => {
                return refuse(format!("the token was closed after {WRONG_MAX} wrong attempts"));
            }
            (Attempt::Closed(Closed::Replaced), _) => {
                return refuse("the token was closed when newer ones were made".into());
            }
            (Attempt::TooOften, _) => {
                return Err(Problem::new(Code::RateLimited, what, "too many wrong tokens were tried within a minute")
                    .with_help("wait a minute, then join again"));
            }
            (Attempt::Wrong | Attempt::Open, _) => {
                tracing::warn!(source = %from.source, "somebody tried to join with a wrong token");
                return refuse(format!("the token is wrong: '{}' has not given it out", identity.name));
            }
        };
        let hello: Hello = serde_json::from_str(&sealed.payload).map_err(|_| stale())?;
        let theirs = from_hex::<32>(&hello.nonce).ok_or_else(stale)?;
        let ours: [u8; 32] = random();
        let answer = HelloAnswer {
            nonce: to_hex(&ours),
            cluster: identity.cluster,
            node: identity.name.clone(),
            lans: cluster
                .configuration
                .places_of(&identity.name)
                .map(|(lan, node)| (lan.to_owned(), node.addr))
                .collect(),
        };
        // The answer proves the joiner's nonce; from here on both are in every proof.
        conversation.nonces = theirs.to_vec();
        let sealed_answer = conversation.seal(&key, Step::HelloAnswer, &answer);
        conversation.nonces.extend(ours);
        let mut greeted = self.greeted();
        if greeted.len() >= GREETED_MAX {
            return Err(
                Problem::new(Code::Busy, what, "too many machines are joining").with_help("try again in a minute")
            );
        }
        let one = Greeted { at: Instant::now(), token_id: sealed.token_id.clone(), key, conversation, node: None };
        greeted.insert(from.binding, one);
        Ok(sealed_answer)
    }

    async fn enter(&self, from: &Stranger, sealed: &Sealed) -> Answer<Sealed> {
        let what = "cannot join";
        let _entering = self.0.entering.try_lock().map_err(|_| {
            Problem::new(Code::Busy, what, "another machine is joining at this moment")
                .with_help("try again in a moment")
        })?;
        let greeted = self.greeted().get(&from.binding).filter(|one| one.node.is_none()).cloned().ok_or_else(stale)?;
        // It may have been used, or missed out, since the hello.
        let (attempt, _) =
            self.0.tokens.attempt(&greeted.token_id, from.source, &Now::read(), |key| *key == greeted.key);
        if attempt != Attempt::Open {
            return Err(stale());
        }
        let enter: Enter = greeted.conversation.open(&greeted.key, Step::Enter, sealed).ok_or_else(stale)?;
        let cluster = self.0.store.current().ok_or_else(stale)?;
        let replaced = replaced(&cluster, &enter)?;
        if let Some(gone) = replaced.filter(|gone| gone.confirmed)
            && self.0.applier.is_alive(&gone.name).await
        {
            let name = &gone.name;
            return Err(Problem::new(Code::Refused, what, format!("'{name}' answers: it is not gone")).with_help(
                format!("stop stead on {name} first (systemctl stop stead), or choose another name with --name"),
            ));
        }
        let (mut member, mut applied) = newcomer(&cluster, &enter, replaced)?;
        let request = decode(&enter.request).ok_or_else(stale)?;
        let identity = &cluster.identity;
        let ca_key = identity.ca_key_pem.as_deref().ok_or_else(stale)?;
        let certificate_pem = Authority::load(&identity.ca_pem, ca_key)
            .map_err(|error| authority_problem(what, self.0.store.places(), ca_key, &error))?
            .sign(&request, identity.cluster, member.id, &member.name, member.role)
            .map_err(|error| certificate_problem(what, &error))?;
        member.certificate =
            Some(fingerprint_of_pem(&certificate_pem).map_err(|error| certificate_problem(what, &error))?);
        applied.members.push(member.clone());
        self.0.applier.apply(applied.clone(), false).await.map_err(|problem| {
            let why = format!("the other members could not be told of '{}': {}", member.name, problem.why);
            Problem { what: what.into(), why, ..problem }
        })?;
        self.0.tokens.used(&greeted.token_id, &member.name).map_err(|error| disk(what, &error))?;
        let is_node = member.role == PeerRole::Node;
        let answer = EnterAnswer {
            cluster: identity.cluster,
            node: member.id,
            certificate_pem,
            ca_pem: identity.ca_pem.clone(),
            ca_key_pem: is_node.then(|| ca_key.to_owned()),
            secret: is_node.then(|| to_hex(identity.secret())),
            applied,
            now_unix_ms: wall_ms(),
        };
        if let Some(one) = self.greeted().get_mut(&from.binding) {
            one.node = Some(member.id);
        }
        tracing::info!(node = %member.name, id = member.id.0, source = %from.source, "admitted to the cluster");
        Ok(greeted.conversation.seal(&greeted.key, Step::EnterAnswer, &answer))
    }

    fn done(&self, from: &Stranger, sealed: &Sealed) -> Answer<Sealed> {
        let greeted = self.greeted().get(&from.binding).cloned().ok_or_else(stale)?;
        let done: Done = greeted.conversation.open(&greeted.key, Step::Done, sealed).ok_or_else(stale)?;
        if greeted.node != Some(done.node) {
            return Err(stale());
        }
        self.greeted().remove(&from.binding);
        self.0
            .store
            .confirm(done.node)
            .map_err(|error| Problem::new(Code::Internal, "cannot note that the machine has joined", causes(&error)))?;
        Ok(greeted.conversation.seal(&greeted.key, Step::DoneAnswer, &done))
    }
}

/// The member whose place the newcomer takes: one that was admitted and never heard, or one that it is told to replace.
fn replaced<'a>(cluster: &'a Cluster, enter: &Enter) -> Answer<Option<&'a Member>> {
    let what = "cannot join";
    let members = &cluster.applied.members;
    let same_name = members.iter().find(|member| member.name.as_str().eq_ignore_ascii_case(enter.name.as_str()));
    let replace = "if it is gone for good and this machine takes its place: add --replace";
    if let Some(taken) = same_name {
        let is_witness = taken.role == PeerRole::Witness;
        if (taken.confirmed && !enter.replace) || is_witness != enter.witness || taken.id == cluster.identity.node {
            let help = if is_witness == enter.witness && taken.id != cluster.identity.node {
                format!("choose another name with --name; {replace}")
            } else {
                "choose another name with --name".into()
            };
            return Err(Problem::new(
                Code::Refused,
                what,
                format!("the cluster has a member called '{}' already", taken.name),
            )
            .with_help(help));
        }
    }
    if same_name.is_some() || !enter.witness {
        return Ok(same_name);
    }
    let witnesses: Vec<&Member> = members.iter().filter(|member| member.role == PeerRole::Witness).collect();
    let names = || witnesses.iter().map(|witness| witness.name.as_str()).collect::<Vec<_>>().join(", ");
    match (witnesses.iter().find(|witness| !witness.confirmed), witnesses.as_slice()) {
        (Some(never_heard), _) => Ok(Some(never_heard)),
        (None, [one]) if enter.replace => Ok(Some(one)),
        (None, [_, _, ..]) if enter.replace => Err(Problem::new(
            Code::Refused,
            what,
            format!("the cluster has several witnesses ({}): which one is replaced?", names()),
        )
        .with_help("give its name: --name NAME --replace")),
        (None, many) if many.len() >= WITNESSES_MAX => Err(Problem::new(
            Code::Refused,
            what,
            format!("the cluster has {} witnesses already ({})", many.len(), names()),
        )
        .with_help(replace)),
        // One votes: this one is a spare.
        _ => Ok(None),
    }
}

/// The newcomer, and the configuration that has its lines (it becomes a member with its certificate); or why it cannot come in.
fn newcomer(cluster: &Cluster, enter: &Enter, replaced: Option<&Member>) -> Answer<(Member, Applied)> {
    let what = "cannot join";
    let present = &cluster.applied;
    let members: Vec<Member> =
        present.members.iter().filter(|member| Some(member.id) != replaced.map(|gone| gone.id)).cloned().collect();
    let role = if enter.witness { PeerRole::Witness } else { PeerRole::Node };
    let member =
        Member { id: NodeId(present.next_node), name: enter.name.clone(), role, confirmed: false, certificate: None };
    let text = if enter.witness {
        let (_, addr) = enter.addrs.first().ok_or_else(stale)?;
        with_witness(&present.xml, replaced.map(|gone| &gone.name), &enter.name, *addr)
    } else {
        with_node(&present.xml, &enter.name, &enter.addrs)
    };
    let lans = || cluster.configuration.lans.iter().map(|lan| lan.name.as_str()).collect::<Vec<_>>().join(", ");
    let xml = text.ok_or_else(|| {
        let named: Vec<&str> = enter.addrs.iter().map(|(lan, _)| lan.as_str()).collect();
        Problem::new(Code::Invalid, what, format!("one of the networks {} does not exist", named.join(", ")))
            .with_help(format!("the cluster has: {}; name them with --addr NETWORK=ADDRESS", lans()))
    })?;
    if let Err(found) = read(&xml, &present.names.clone().into_iter().collect()) {
        let why = found.first().map(|found| found.message.clone()).unwrap_or_default();
        return Err(Problem::new(Code::Invalid, what, why)
            .with_help(format!(
                "the cluster's networks are: {}; give an address on each with --addr NETWORK=ADDRESS",
                lans()
            ))
            .with_diagnostics(found));
    }
    let applied = Applied {
        version: present.version,
        applied_unix_ms: wall_ms(),
        by: cluster.identity.name.clone(),
        next_node: present.next_node.checked_add(1).ok_or_else(stale)?,
        members,
        xml,
        names: present.names.clone(),
    };
    Ok((member, applied))
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    if hex.len() > 2 * REQUEST_MAX || !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
}
