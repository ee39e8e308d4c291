//! What the answers of the API share: where a module is, and what is wanted of it.

use crate::api::Answer;
use crate::runtime::agent::Agent;
use crate::runtime::instance::{Instance, ModulePlaces};
use crate::runtime::protection::Asked;
use crate::runtime::running::{FORCE_STOP, STOP};
use crate::runtime::views::{quarantines, view_of};
use cluster::mirror::Command as Order;
use model::api::{ApplicationView, Code, CommandAnswer, ModuleView, PeerView, Problem};
use model::{ModuleName, ModuleState, NodeName, Status};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long the other node may take to say what it lacks.
const REASON: Duration = Duration::from_secs(2);
/// More notes on a configuration than these would bury what is wrong now.
const NOTES_SHOWN: usize = 2;

/// What its author should know stands beside what is wrong only while it is little.
fn notes(notes: &[impl ToString], module: &ModuleName) -> Vec<String> {
    match notes.len() {
        0..=NOTES_SHOWN => notes.iter().map(ToString::to_string).collect(),
        count => vec![format!("{count} notes on its configuration: stead confcheck -m {module}")],
    }
}

/// The agent behind the API.
#[derive(Clone)]
pub struct Door(pub Arc<Agent>);

impl Door {
    /// A swap that is refused because of the other node: its own words say more.
    pub(super) async fn with_peers_reason(&self, instance: &Instance, problem: Problem) -> Problem {
        let follows = instance
            .published
            .borrow()
            .mirror
            .peer
            .is_some_and(|peer| (peer.state, peer.status) == (ModuleState::Second, Status::NotReady));
        let (true, Some(peer)) = (follows, &instance.peer) else { return problem };
        let path = format!("/v1/modules/{}/state", instance.active().name);
        let asked: Result<ModuleView, _> = self.0.client.call::<(), _>(peer, "GET", &path, None, REASON).await;
        match asked {
            Ok(view) if !view.remedy.is_empty() => {
                Problem { why: format!("{peer} could not take over: {}", view.reason), ..problem }
                    .with_help(view.remedy)
            }
            _ => problem,
        }
    }

    pub(super) fn name(&self) -> Answer<NodeName> {
        // Before pairing a module has no node to be on; the host's name is what a person expects to read.
        if let Some(cluster) = self.0.cluster.current() {
            return Ok(cluster.identity.name.clone());
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        NodeName::new(host.trim())
            .or_else(|_| NodeName::new("unpaired"))
            .map_err(|e| Problem::new(Code::Internal, "no name", e.to_string()))
    }

    pub(super) async fn view(&self, instance: &Instance) -> Answer<ModuleView> {
        let published = Arc::clone(&instance.published.borrow());
        let active = instance.active();
        let checker = &active.configuration.splitbrain;
        let asked = Asked::of(&self.0, &published.mirror, checker).await;
        let mut view = view_of(&active, self.name()?, &published, &asked);
        view.peer = instance.peer.as_ref().map(|peer| PeerView {
            node: peer.clone(),
            state: published.mirror.peer.map(|p| p.state),
            status: published.mirror.peer.map(|p| p.status),
            seen_ms_ago: crate::runtime::heart::seen(&self.0, peer).0,
        });
        if let Some(replication) = &mut view.replication {
            replication.quarantines = quarantines(&ModulePlaces::of(&self.0, &view.module));
        }
        view.application = Some(ApplicationView { running: published.mirror.application, pids: instance.pids() });
        view.warnings = published.warnings.clone();
        let (agent, looked_at) = (Arc::clone(&self.0), Arc::clone(&active));
        let look = tokio::task::spawn_blocking(move || agent.looks.altered(&looked_at));
        // A disk that hangs keeps nobody from the rest.
        let altered = tokio::time::timeout(REASON, look).await.ok().and_then(Result::ok).flatten();
        // A mirror that runs says it itself.
        view.warnings.extend(altered.filter(|altered| !view.reason.contains(altered)));
        let chronicle = instance.chronicle.lock().unwrap_or_else(PoisonError::into_inner);
        view.warnings.extend_from_slice(chronicle.damages());
        drop(chronicle);
        view.warnings.extend(notes(&active.configuration.notes, &view.module));
        Ok(view)
    }

    /// A module without a loop: not configured, or no second node yet.
    pub(super) fn idle_view(&self, module: &ModuleName) -> Answer<ModuleView> {
        let installed =
            self.0.store.list().into_iter().find(|it| it.name == *module).ok_or_else(|| not_installed(module))?;
        let mut view = ModuleView::new(module.clone(), self.name()?, ModuleState::Stop, Status::NotReady);
        let refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner).get(module).cloned();
        let config = || format!("stead config -m {module}");
        let lost = self.0.store.active(module).err();
        let is_lost = matches!(lost, Some(crate::modules::StoreError::Lost { .. }));
        (view.reason, view.remedy) = match (&installed.active, &installed.broken, refused) {
            // Here is nothing that could be configured.
            (None, Some(why), _) if is_lost => (why.clone(), lost.map_or_else(config, |error| error.help())),
            (None, Some(why), refused) => (refused.map_or_else(|| why.clone(), |problem| problem.why), config()),
            (None, None, Some(problem)) => (problem.why, config()),
            (None, None, None) => ("installed, never configured".into(), config()),
            (_, _, Some(problem)) => (problem.why, problem.help),
            // It runs, as far as this agent knows, which has not come to it yet: whoever waits for its end must not be told that it is there.
            (Some(_), _, None) if ModulePlaces::of(&self.0, module).running().exists() => {
                (view.state, view.status) = (ModuleState::Wait, Status::Transient);
                (cluster::mirror::LOOKING.into(), String::new())
            }
            (Some(_), _, None) => ("stopped".into(), format!("stead start -m {module}")),
        };
        view.is_lost = installed.broken.is_some();
        if installed.broken.is_some() && !is_lost {
            view.warnings.push(format!("its configuration in force is lost on this node: {}", config()));
        }
        view.signature = installed.active.map(|s| s.0).unwrap_or_default();
        Ok(view)
    }

    pub(super) async fn module_view(&self, module: &ModuleName) -> Answer<ModuleView> {
        match self.0.instance(module).await {
            Some(instance) => self.view(&instance).await,
            None => self.idle_view(module),
        }
    }

    /// Where this node keeps what the module's copy lost.
    pub(super) fn quarantine_dir(&self, module: &ModuleName) -> Answer<std::path::PathBuf> {
        self.idle_view(module)?;
        Ok(ModulePlaces::of(&self.0, module).var.join("quarantine"))
    }

    pub(super) async fn release(&self, module: &ModuleName) -> Answer<CommandAnswer> {
        let what = format!("release of module {module} is refused");
        let _one = self.0.changing.lock().await;
        let instance = self.0.instance(module).await.ok_or_else(|| not_running(module, &self.0))?;
        if instance.peer.is_none() {
            return Err(Problem::new(Code::Refused, what, "a farm replicates no directories: none is covered"));
        }
        let started = || {
            Problem::new(Code::Refused, what.clone(), "the module is started")
                .with_help(format!("stead stop -m {module}"))
        };
        if instance.state() != ModuleState::Stop {
            return Err(started());
        }
        // Who takes it out of the list ends its loop, and nobody else.
        let instance = self.0.instances.write().await.remove(module).ok_or_else(|| not_running(module, &self.0))?;
        instance.leave().await;
        let active = crate::modules::Active::clone(&instance.active());
        if instance.state() != ModuleState::Stop {
            // A start came between the look and the end of the loop: it goes on.
            self.0.begin_module(active, crate::runtime::instance::Beginning::Adopt).await;
            return Err(started());
        }
        let released = crate::runtime::copies::release(&active, &ModulePlaces::of(&self.0, module));
        self.0.begin_module(active, crate::runtime::instance::Beginning::Stay).await;
        released?;
        let sentence =
            "the directories are writable on this node; the next start compares everything with the other node".into();
        Ok(CommandAnswer { sentence, settled: true, module: self.module_view(module).await? })
    }

    /// Before the order is given: a stop outlives the agent that was told it.
    pub(super) fn note_stop(&self, module: &ModuleName, command: Order) {
        let how = match command {
            Order::Stop | Order::Wait => STOP,
            Order::ForceStop => FORCE_STOP,
            _ => return,
        };
        let path = ModulePlaces::of(&self.0, module).stopping();
        if let Err(error) = std::fs::write(&path, how) {
            tracing::error!(%error, path = %path.display(), "cannot note that the module is being stopped");
        }
    }

    /// Nothing is being stopped.
    pub(super) fn forget_stop(&self, module: &ModuleName) {
        let _ = std::fs::remove_file(ModulePlaces::of(&self.0, module).stopping());
    }

    /// That a module is wanted which was not, before it starts. `true`: it is noted by this.
    pub(super) fn note_start(&self, module: &ModuleName, command: Order) -> Result<bool, Problem> {
        let path = ModulePlaces::of(&self.0, module).wanted();
        if path.exists() || !matches!(command, Order::Start | Order::Prim { .. } | Order::Second { .. }) {
            return Ok(false);
        }
        let noted = platform::store::write_atomic(&path, b"started\n", 0o600);
        noted.map(|()| true).map_err(|error| Self::not_noted(module, crate::cluster_config::causes(&error)))
    }

    /// It was refused.
    pub(super) fn forget_start(&self, module: &ModuleName) {
        if let Err(error) = platform::store::remove_durably(&ModulePlaces::of(&self.0, module).wanted()) {
            tracing::warn!(%module, %error, "a start that was refused stays noted");
        }
    }

    fn not_noted(module: &ModuleName, why: String) -> Problem {
        Problem::new(Code::Internal, format!("what is wanted of module {module} cannot be noted"), why)
            .with_help("df -h /var/lib/stead")
    }

    /// What was wanted last outlives a reboot.
    pub(super) fn note_wish(&self, module: &ModuleName, command: Order) -> Result<(), Problem> {
        let places = ModulePlaces::of(&self.0, module);
        let path = places.wanted();
        // Who says something now means that, not what the boot would have begun.
        let _ = std::fs::remove_file(places.delayed());
        let noted = match command {
            Order::Start | Order::Prim { .. } | Order::Second { .. } => {
                // That the tree was open is in the record; without this note it is covered again after the run.
                let _ = std::fs::remove_file(places.released());
                return self.note_start(module, command).map(drop);
            }
            Order::Stop | Order::Wait | Order::ForceStop => {
                platform::store::remove_durably(&path).map_err(|e| crate::cluster_config::causes(&e))
            }
            Order::Restart | Order::StopStart | Order::Swap => Ok(()),
        };
        noted.map_err(|why| Self::not_noted(module, why))
    }
}

pub(super) fn not_installed(module: &ModuleName) -> Problem {
    Problem::new(Code::NotFound, format!("there is no module {module} on this node"), "it is not installed")
        .with_help("stead module list, or stead module install")
}

pub(super) fn not_running(module: &ModuleName, agent: &Agent) -> Problem {
    if !agent.store.list().iter().any(|it| it.name == *module) {
        return not_installed(module);
    }
    let refused = agent.refused.lock().unwrap_or_else(PoisonError::into_inner).get(module).cloned();
    match refused {
        // Nothing is wrong here: it runs elsewhere.
        Some(problem) if problem.help.is_empty() => problem.with_help(format!("stead state -m {module}")),
        Some(problem) => problem,
        None => Problem::new(Code::Refused, format!("module {module} cannot run yet"), "it was never configured")
            .with_help(format!("stead config -m {module}")),
    }
}
