//! How the loop of a farm begins, and that of a light module, which is a farm of its own node without addresses.

use super::super::agent::Agent;
use super::super::application::Application;
use super::super::checkers::{Around, Overseer, Said, Switches};
use super::super::chronicle::Chronicle;
use super::super::instance::{Beginning, Instance, ModulePlaces, policy, timing};
use super::super::module::INPUTS;
use super::actor::{self, Parts};
use super::lans::lans_of;
use super::wires::{Wires, Wiring};
use crate::heartbeat::Judge;
use crate::modules::Active;
use cluster::farm::module::{Event, Module, Settings};
use cluster::farm::shares::Shares;
use cluster::mirror::Command;
use model::api::{Code, Problem};
use model::farm::NODE_MAX;
use model::schema::Mode;
use model::schema::farm::Farm;
use model::schema::module::{Boot, ModuleConfiguration};
use model::{NodeId, NodeName};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

/// Digest of what two nodes must say alike to be in one view.
fn traffic(configuration: &ModuleConfiguration) -> u64 {
    let text = configuration.canonical();
    let is_of_it = |line: &&str| ["vip ", "group ", "power ", "rule "].iter().any(|key| line.starts_with(key));
    let mut hasher = blake3::Hasher::new_derive_key("stead 2026-11 farm traffic");
    for line in text.lines().filter(is_of_it) {
        hasher.update(line.as_bytes());
        hasher.update(b"\n");
    }
    let mut digits = [0; 8];
    hasher.finalize_xof().fill(&mut digits);
    u64::from_le_bytes(digits)
}

impl Instance {
    /// Makes the loop of an active farm or light module and lets it begin.
    ///
    /// # Errors
    /// A [`Problem`] that names the file or the missing node; nothing runs then.
    pub async fn begin_farm(agent: &Arc<Agent>, active: Active, mut beginning: Beginning) -> Result<Self, Problem> {
        let name = active.name.clone();
        let what = format!("cannot run module {name}");
        let internal = |why: String| Problem::new(Code::Internal, what.clone(), why);
        let refused = |why: String| Problem::new(Code::Refused, what.clone(), why);
        let cluster = agent.paired(&what)?;
        let cfg = &active.configuration;
        let own = &cluster.identity.name;
        let is_light = cfg.mode == Mode::Light;
        let (farm, named) = if is_light {
            (Farm::of_one(cfg.timings), vec![own.clone()])
        } else {
            let farm = cfg.farm.clone().ok_or_else(|| internal("its configuration says nothing of a farm".into()))?;
            (farm, cfg.nodes(&cluster.configuration))
        };
        if !named.contains(own) {
            let names: Vec<&str> = named.iter().map(NodeName::as_str).collect();
            return Err(refused(format!("it runs on {}: {own} is on none of its networks", names.join(", "))));
        }
        let nodes: Vec<(NodeId, NodeName)> =
            named.iter().filter_map(|name| Some((cluster.applied.member(name)?.id, name.clone()))).collect();
        if let Some((id, node)) = nodes.iter().find(|(id, _)| !is_light && id.0 > NODE_MAX) {
            let why = format!("{node} has number {}, and a farm's nodes have numbers up to {NODE_MAX}", id.0);
            return Err(refused(why).with_help("make a new cluster: numbers begin at 1 there"));
        }
        let places = ModulePlaces::of(agent, &name);
        for dir in [&places.var, &places.run, &places.runs()] {
            std::fs::create_dir_all(dir).map_err(|e| internal(format!("{}: {e}", dir.display())))?;
        }
        let chronicle = Arc::new(Mutex::new(Chronicle::open(&places.var)));
        super::super::records::tell_damage(agent, &chronicle, &active, &places.var);
        let (inputs_in, inputs) = mpsc::channel(INPUTS);
        let mailbox = Arc::<super::Mailbox>::default();
        let others: Vec<(NodeId, NodeName)> =
            nodes.iter().filter(|(id, _)| *id != cluster.identity.node).cloned().collect();
        let around = Around {
            agent: Arc::downgrade(agent),
            module: name.clone(),
            peer: None,
            heartbeats: Vec::new(),
            network: Arc::clone(&agent.network),
            peer_macs: others.iter().map(|(_, name)| agent.peer_macs(name)).collect(),
            peer_may_answer: Arc::new(true.into()),
            shared_macs: cfg.vips.iter().filter_map(|vip| vip.vmac.map(platform::net::Mac)).collect(),
            bin: active.bin_dir(),
            env: crate::modules::environment::script_environment(&active, &places.run),
        };
        let kept = (Switches::open(&places.var), Said::open(&places.run));
        let overseer = Overseer::new(cfg.checkers.clone(), false, around, kept, inputs_in.clone());
        let application = Application::new(agent, &active, &places, Arc::clone(&chronicle), inputs_in.clone());
        let chosen = policy(&active, own);
        let settings = Settings {
            module: name.to_string(),
            is_light,
            has_addresses: !cfg.vips.is_empty(),
            is_invisible: cfg.vips.iter().any(|vip| vip.vmac.is_some()),
            by_script: farm.by_script,
            drain_ms: farm.drain_ms,
            max_loop: chosen.max_loop,
            loop_ms: chosen.loop_ms,
        };
        let powers = |group: &model::schema::farm::Group| -> Vec<(NodeId, u64)> {
            nodes.iter().map(|(id, name)| (*id, group.power(name))).collect()
        };
        let wires = Wires::new(Wiring {
            module: name.to_string(),
            id: active.id,
            me: cluster.identity.node,
            dir: agent.places.run.join("bpf"),
            vips: cfg.vips.clone(),
            groups: farm.groups.iter().map(|group| Shares::new(&powers(group))).collect(),
            farm: farm.clone(),
            tcpreset: cfg.tcpreset,
            network: Arc::clone(&agent.network),
            chronicle: Arc::clone(&chronicle),
        });
        let serving_mark = places.run.join("serving");
        let mark = std::fs::read(&serving_mark).ok();
        let is_serving = mark.is_some();
        // Whatever the note in /run says: where it served, or its application lives, the farm runs.
        let lives = is_serving || application.lives();
        if beginning != Beginning::Adopt && lives {
            let text = "the module was taken for stopped, and it runs: it is adopted";
            let mut chronicle = chronicle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            chronicle.line("heart", model::api::LogLevel::C, text);
            beginning = Beginning::Adopt;
        }
        let first = match beginning {
            Beginning::Stay => Vec::new(),
            Beginning::Start => vec![Event::Command(Command::Start)],
            Beginning::Adopt => {
                let mut first =
                    vec![Event::Adopted { serving: is_serving, open: mark.is_some_and(|mark| mark != actor::CLOSED) }];
                // It was being stopped when the earlier agent left.
                if cfg.boot != Boot::On && !places.wanted().exists() {
                    first.push(Event::Command(Command::Stop));
                }
                first
            }
        };
        let instance = u32::from_be_bytes(crate::identity::random());
        // Alone in its farm it needs no number that others know, and the filter's bound does not concern it.
        let me = if is_light { NodeId(1) } else { cluster.identity.node };
        let mut module = Module::new(settings, me, instance, nodes.iter().map(|(id, _)| *id).filter(|_| !is_light));
        if beginning == Beginning::Adopt {
            module.remember_loops(crate::runtime::running::loops(&places.running()));
        }
        let (published, watched) = watch::channel(Arc::new(super::publish::nothing(wires.vips(), is_light)));
        let parts = Parts {
            module,
            id: active.id,
            patience: timing(&active),
            own_name: own.clone(),
            others: others.clone(),
            agent: Arc::downgrade(agent),
            chronicle: Arc::clone(&chronicle),
            application: application.clone(),
            wires,
            overseer,
            boot: cfg.boot,
            traffic: traffic(cfg),
            serving_mark,
            mailbox: Arc::clone(&mailbox),
            own: inputs_in.clone(),
            published,
        };
        // Where it is not known yet, any network counts until the addresses are taken.
        let networks = lans_of(cfg, &cluster, &agent.network).await.unwrap_or_default().into();
        let judge = Judge { timing: timing(&active), networks };
        let task = tokio::spawn(actor::run(parts, inputs, first));
        crate::runtime::running::begun(&watched, beginning).await;
        tokio::spawn(crate::runtime::running::mark(watched.clone(), places.running(), places.stopping(), beginning));
        let members = others.into_iter().map(|(id, _)| id).collect();
        Ok(Self::of_farm(
            active,
            judge,
            own.clone(),
            members,
            &places,
            inputs_in,
            mailbox,
            application,
            watched,
            chronicle,
            task,
        ))
    }
}
