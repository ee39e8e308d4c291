//! What everybody may know of a farm module, or of a light one.

use super::super::publish::Published;
use super::actor::{Loop, NUMBERS};
use cluster::mirror::{Arbiter, View};
use model::api::{FarmGroupView, FarmMemberView, FarmRuleView, FarmView, ReplicationView, VipView};
use model::farm::Wish;
use model::{DataId, DataState, NodeId, NodeName, Role};
use std::sync::Arc;
use tokio::time::Instant;

impl Loop {
    pub(super) fn publish(&mut self) {
        let published = self.snapshot();
        self.parts.published.send_if_modified(|seen| {
            let changed = **seen != published;
            if changed {
                *seen = Arc::new(published);
            }
            changed
        });
    }

    pub(super) fn snapshot(&mut self) -> Published {
        let farm = match &self.farm {
            _ if self.parts.module.settings().is_light => None,
            Some((at, farm)) if at.elapsed() < NUMBERS && farm.draining == self.connections.map(|n| n as u64) => {
                Some(Arc::clone(farm))
            }
            _ => {
                let farm = Arc::new(self.farm_view());
                self.farm = Some((Instant::now(), Arc::clone(&farm)));
                Some(farm)
            }
        };
        let module = &self.parts.module;
        let (state, status) = self.shown_state();
        let mut mirror = empty(state, status);
        mirror.reason = module.reason();
        mirror.remedy = module.remedy();
        mirror.application = module.is_started();
        mirror.is_started = module.is_started();
        mirror.loops = module.loops();
        if let Some(wanted) = &self.oversight.waits {
            mirror.reason = format!("waits: failover rule {}: {}", wanted.rule, wanted.because);
            mirror.remedy = Some(super::super::texts::waits_remedy(&wanted.rule, &module.settings().module));
        }
        if let Some(node) = module.yields_to() {
            let module = &module.settings().module;
            mirror.reason = format!(
                "{} serves with another configuration of {module}: this node accepts nothing",
                self.name_of(node)
            );
        }
        if let Some(count) = self.connections {
            mirror.reason = format!("{} ({count} stand)", mirror.reason);
        }
        if let Some(why) = self.parts.overseer.held()
            && (mirror.state, mirror.status) == (model::ModuleState::Up, model::Status::Ready)
        {
            mirror.status = model::Status::NotReady;
            mirror.reason = why;
        }
        let vips = self.parts.wires.vips();
        Published {
            mirror,
            data: String::new(),
            replication: ReplicationView::default(),
            vips,
            resources: self.parts.overseer.views(),
            since_unix_ms: self.since_unix_ms,
            farm,
            starts: self.starts.see(self.parts.module.is_started()),
            warnings: self.parts.overseer.switches.sentences(&self.parts.module.settings().module),
        }
    }

    fn farm_view(&self) -> FarmView {
        let member = self.parts.module.member();
        let view = member.view();
        let name = |node: NodeId| -> Option<NodeName> {
            if node == member.me() {
                return Some(self.parts.own_name.clone());
            }
            self.parts.others.iter().find(|(id, _)| *id == node).map(|(_, name)| name.clone())
        };
        let row = |node: NodeId, heard: bool, wish: Wish| {
            Some(FarmMemberView {
                node: name(node)?,
                heard,
                wish,
                present: view.is_some_and(|view| view.present.has(node)),
                serving: view.is_some_and(|view| view.serving().has(node)),
            })
        };
        let mut members: Vec<(NodeId, FarmMemberView)> =
            row(member.me(), true, member.wish()).map(|it| (member.me(), it)).into_iter().collect();
        for (node, is_alive, word) in member.peers() {
            let wish = word.map_or(Wish::Out, |word| word.wish);
            members.extend(row(node, is_alive == Some(true), wish).map(|it| (node, it)));
        }
        members.sort_by_key(|(node, _)| *node);
        let farm = self.parts.wires.configured();
        let groups = farm.groups.iter().zip(self.parts.wires.shares()).map(|(group, shares)| FarmGroupView {
            name: group.name.clone(),
            shares: shares.into_iter().filter_map(|(node, count)| Some((name(node)?, count as u32))).collect(),
        });
        FarmView {
            view: view.map_or(0, |view| view.counter),
            director: view.and_then(|view| name(view.director)),
            members: members.into_iter().map(|(_, row)| row).collect(),
            groups: groups.collect(),
            rules: farm
                .rules
                .iter()
                .map(|rule| FarmRuleView {
                    addr: rule.addr.map(|addr| addr.to_string()).unwrap_or_default(),
                    port: rule.port,
                    proto: rule.proto,
                    filter: rule.filter,
                    group: farm.groups.get(usize::from(rule.group)).map(|g| g.name.clone()).unwrap_or_default(),
                })
                .collect(),
            interfaces: self.parts.wires.interfaces(),
            draining: self.connections.map(|count| count as u64),
            flows: None,
        }
    }
}

/// What a farm has of a mirror's view: state and sentences.
fn empty(state: model::ModuleState, status: model::Status) -> View {
    View {
        state,
        status,
        reason: String::new(),
        remedy: None,
        epoch: None,
        data_id: DataId(0),
        data: DataState::Unknown,
        role: Role::None,
        uptodate: false,
        yielded: false,
        arbiter: Arbiter::Proof,
        voter: None,
        open_cases: Vec::new(),
        session: None,
        peer: None,
        application: false,
        is_started: false,
        loops: 0,
        addresses: false,
    }
}

/// Before its loop has said anything.
pub(in crate::runtime) fn nothing(vips: Vec<VipView>, is_light: bool) -> Published {
    let mut mirror = empty(model::ModuleState::Stop, model::Status::NotReady);
    mirror.reason = "stopped".into();
    Published {
        mirror,
        data: String::new(),
        replication: ReplicationView::default(),
        vips,
        resources: Arc::default(),
        since_unix_ms: super::super::chronicle::now_unix_us() / 1000,
        starts: 0,
        warnings: Vec::new(),
        farm: (!is_light).then(Arc::default),
    }
}
