//! What the API shows of a module, which command would move it, and when a command has settled.
//!
//! Reads what the loops publish; asks and changes nothing.

use super::instance::ModulePlaces;
use super::protection::{Asked, protection};
use super::publish::Published;
use cluster::mirror::{Arbiter, Command as Order};
use model::api::{Command, CommandRequest, ModuleView, MoveView, OpenCaseView};
use model::schema::Mode;
use model::{ModuleState, NodeName, Status};

pub(super) fn quarantines(places: &ModulePlaces) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(places.var.join("quarantine")) else { return Vec::new() };
    let mut found: Vec<String> = entries.flatten().take(100).map(|e| e.path().to_string_lossy().into_owned()).collect();
    found.sort();
    found
}

pub(super) fn view_of(
    active: &crate::modules::Active,
    node: NodeName,
    published: &Published,
    asked: &Asked,
) -> ModuleView {
    let mirror = &published.mirror;
    let mut view = ModuleView::new(active.name.clone(), node, mirror.state, mirror.status);
    view.reason.clone_from(&mirror.reason);
    view.remedy = mirror.remedy.clone().unwrap_or_default();
    view.epoch = mirror.epoch;
    view.data.clone_from(&published.data);
    view.role = mirror.role;
    view.arbiter = match mirror.arbiter {
        Arbiter::Witness => "witness".into(),
        Arbiter::Proof => "proof".into(),
    };
    (view.protection, view.not_promised) = protection(asked, &active.configuration.vips);
    if let Asked::Witness(voter, _) = asked {
        view.voter.clone_from(voter);
    }
    view.open_cases = mirror
        .open_cases
        .iter()
        .map(|case| OpenCaseView { label: case.label.clone(), now: case.now, sentence: case.sentence.clone() })
        .collect();
    view.vips.clone_from(&published.vips);
    view.mode = active.configuration.mode.word().into();
    view.farm = published.farm.as_deref().cloned();
    if active.configuration.mode != Mode::Mirror {
        view.arbiter.clear();
        view.protection.clear();
        view.not_promised.clear();
    }
    if let Some(rfs) = &active.configuration.rfs {
        let mut replication = published.replication.clone();
        replication.dirs = rfs.dirs.iter().map(|d| d.path.clone()).collect();
        view.replication = Some(replication);
    }
    view.resources = published.resources.as_ref().clone();
    view.since_unix_ms = published.since_unix_ms;
    view.signature = active.signature.0.clone();
    view
}

/// The automaton's command, and when it has settled.
pub(super) const fn order_of(request: &CommandRequest) -> Option<Order> {
    Some(match request.command {
        Command::Start => Order::Start,
        Command::Stop | Command::Shutdown => Order::Stop,
        Command::Restart => Order::Restart,
        Command::StopStart => Order::StopStart,
        Command::Swap => Order::Swap,
        Command::Prim => Order::Prim { force: request.force, full: request.full },
        Command::Second => Order::Second { full: request.full },
        Command::ForceStop => Order::ForceStop,
        Command::Release => return None,
    })
}

pub(super) fn has_settled(order: Order, published: &Published) -> bool {
    let (state, status) = (published.mirror.state, published.mirror.status);
    match order {
        Order::Stop | Order::Wait | Order::ForceStop => state == ModuleState::Stop,
        Order::Swap => status == Status::Ready && matches!(state, ModuleState::Second | ModuleState::Prim),
        Order::Start | Order::Second { .. } | Order::StopStart => {
            state != ModuleState::Stop && status != Status::Transient
        }
        Order::Prim { .. } => status == Status::Ready || (state == ModuleState::Stop && status == Status::NotReady),
        Order::Restart => status == Status::Ready,
    }
}

/// Roles may be exchanged in a moment: the other node has just begun to follow, or this one is on its way.
pub(super) fn is_on_its_way(published: &Published) -> bool {
    let peer = published.mirror.peer.map(|peer| peer.state);
    match (published.mirror.state, published.mirror.status) {
        (ModuleState::Prim | ModuleState::Second | ModuleState::Wait, Status::Transient) => true,
        (ModuleState::Alone, _) => matches!(peer, Some(ModuleState::Second | ModuleState::Wait)),
        _ => false,
    }
}

/// The remedy, taken apart into its alternatives, each with its command.
pub(super) fn remedies(view: &ModuleView) -> Vec<MoveView> {
    let m = &view.module;
    let one = |part: &str| {
        let part = part.trim();
        if part.starts_with("stead ") {
            return MoveView { what: "what the present state needs".into(), command: part.into() };
        }
        if let Some((what, command)) = part.split_once(": stead ") {
            return MoveView { what: what.into(), command: format!("stead {command}") };
        }
        let peer = view.peer.as_ref().filter(|peer| part == format!("start {}", peer.node));
        match peer {
            // Its agent answers: the module alone is missing.
            Some(peer) if peer.state.is_some() => MoveView {
                what: format!("{} takes part", peer.node),
                command: format!("stead start -m {m} -H {}", peer.node),
            },
            Some(peer) => MoveView {
                what: format!("{} is heard again: switch it on, or start its agent there", peer.node),
                command: "systemctl start stead".into(),
            },
            None => MoveView { what: part.into(), command: String::new() },
        }
    };
    view.remedy
        .split("; or, ")
        .flat_map(|part| part.split("; when "))
        .filter(|part| !part.is_empty())
        .map(one)
        .collect()
}

/// What would move a module from where it is.
pub(super) fn moves(view: &ModuleView) -> Vec<MoveView> {
    let m = &view.module;
    let mut moves = remedies(view);
    let known: Vec<String> = moves.iter().map(|known| known.command.clone()).collect();
    let mut add = |what: &str, command: &str| {
        let command = format!("stead {command} -m {m}");
        if !known.contains(&command) {
            moves.push(MoveView { what: what.into(), command });
        }
    };
    match view.state {
        ModuleState::Stop => {
            add("takes part again", "start");
            if view.is_mirror() {
                add("serves with this node's data", "prim");
            }
        }
        ModuleState::Wait => add("stops", "stop"),
        ModuleState::Alone => add("stops; nobody serves then", "stop"),
        ModuleState::Prim => {
            add("the other node serves, this one follows", "swap");
            add("the other node serves", "stop");
        }
        ModuleState::Up if view.farm.is_none() => {
            add("its application stops and starts again", "restart");
            add("stops", "stop");
        }
        ModuleState::Up => {
            add("its share goes to the other nodes, and comes back", "restart");
            add("its share goes to the other nodes", "stop");
        }
        ModuleState::Second => {
            add("this node serves, the other one follows", "swap");
            add("the other node serves without a copy", "stop");
        }
    }
    moves
}
