//! One ledger per module, each in two alternating copies on disk.

use crate::api::Answer as ApiAnswer;
use crate::identity::random;
use crate::places::Places;
use crate::transport::{Peer, PeerRole};
use cluster::witness::{Answer, Ledger, LedgerRecord, Question, WITNESS_VERSION};
use model::api::{Code, Problem};
use model::limits::MODULES_MAX;
use model::{Epoch, ModuleName, NodeId};
use platform::clock::{boot_ms, wall_ms};
use platform::store::{StateFile, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// `POST /v1/witness/ask`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub version: u32,
    pub module: ModuleName,
    pub question: Question,
    /// The node followed a primary, which did not step aside for it, and has not heard it for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard_ms: Option<u64>,
}

/// `POST /v1/witness/pulse`: many modules at once.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Pulsed {
    pub version: u32,
    pub pulses: Vec<Asked>,
}

/// `GET /v1/witness/state`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WitnessState {
    /// By module.
    pub modules: Vec<LedgerView>,
}

/// What the witness remembers of one module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerView {
    /// The module.
    pub module: ModuleName,
    /// Its memory's number.
    pub incarnation: u64,
    /// Nodes that registered with it.
    pub registered: Vec<NodeId>,
    /// Epoch granted, or learnt to be in use.
    pub granted: Option<Epoch>,
    /// When it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_unix_ms: Option<u64>,
}

/// All of them.
#[derive(Clone)]
pub(super) struct Ledgers {
    dir: PathBuf,
    modules: Arc<Mutex<BTreeMap<ModuleName, Arc<Mutex<Kept>>>>>,
}

/// `None`: not read yet, or to be read again because a write failed.
#[derive(Default)]
struct Kept(Option<(Ledger, StateFile<LedgerRecord>)>);

impl Ledgers {
    /// Those on disk are known at once, so that the state shows them before anybody asks.
    pub fn open(places: &Places) -> Self {
        let ledgers = Self { dir: places.witness_dir().join("modules"), modules: Arc::default() };
        let names = std::fs::read_dir(&ledgers.dir).into_iter().flatten().flatten();
        for module in names.filter_map(|entry| ModuleName::new(entry.file_name().to_str()?).ok()).take(MODULES_MAX) {
            ledgers.of(&module);
        }
        ledgers
    }

    fn of(&self, module: &ModuleName) -> Option<Arc<Mutex<Kept>>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if !modules.contains_key(module) && modules.len() >= MODULES_MAX {
            return None;
        }
        Some(Arc::clone(modules.entry(module.clone()).or_default()))
    }

    /// Decides, stores, and only then answers. Blocks on the disk.
    pub fn answer(&self, asked: &Asked, from: &Peer) -> ApiAnswer<Answer> {
        let module = &asked.module;
        let what = format!("the witness does not answer about module {module}");
        if asked.version > WITNESS_VERSION {
            let why =
                format!("the node speaks version {} of its language, the witness {WITNESS_VERSION}", asked.version);
            return Err(Problem::new(Code::Refused, what, why).with_help("install the newer stead on the witness"));
        }
        let (Question::Ask { node, peer, .. } | Question::Pulse { node, peer, .. }) = &asked.question;
        if *node != from.node || peer == node || from.role != PeerRole::Node {
            return Err(Problem::new(
                Code::Forbidden,
                what,
                format!("'{}' asked in the name of node {}", from.name, node.0),
            ));
        }
        let kept = self.of(module).ok_or_else(|| {
            Problem::new(Code::Refused, what.clone(), format!("it remembers {MODULES_MAX} modules already"))
                .with_help("remove what is no longer needed below /var/lib/stead/witness/modules, and start it again")
        })?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: &StoreError| {
            Problem::new(Code::Internal, what.clone(), crate::cluster_config::causes(error))
                .with_help("look at the disk of the witness")
        };
        let (ledger, file) = match &mut kept.0 {
            Some(ready) => ready,
            empty @ None => empty.insert(self.read(module).map_err(|error| failed(&error))?),
        };
        let step = ledger.at(wall_ms()).handle(&asked.question, asked.unheard_ms, boot_ms());
        if let Some(record) = &step.store
            && let Err(error) = file.write(record)
        {
            // What the ledger now believes is not on disk: forget it, and say nothing.
            kept.0 = None;
            return Err(failed(&error));
        }
        Ok(step.answer)
    }

    fn read(&self, module: &ModuleName) -> Result<(Ledger, StateFile<LedgerRecord>), StoreError> {
        let dir = self.dir.join(module.as_str());
        std::fs::create_dir_all(&dir).map_err(|source| StoreError::Os {
            action: "create",
            path: dir.clone(),
            source,
        })?;
        let (mut file, record) = match StateFile::open(&dir, "ledger") {
            Ok((file, record, _)) => (file, record),
            // Memory lost is memory lost (R15): a new one begins, and grants nothing until both nodes registered.
            Err(error @ StoreError::Unreadable { .. }) => {
                tracing::error!(%module, %error, "the witness has lost its memory of a module and begins anew");
                (StateFile::replace_unreadable(&dir, "ledger")?, None)
            }
            Err(error) => return Err(error),
        };
        let record = match record {
            Some(record) => record,
            None => {
                let record = Ledger::empty(u64::from_be_bytes(random()));
                file.write(&record)?;
                record
            }
        };
        Ok((Ledger::new(record, boot_ms()), file))
    }

    /// What is remembered, by module.
    pub fn state(&self) -> WitnessState {
        let modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let view = |(module, kept): (ModuleName, Arc<Mutex<Kept>>)| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.0.is_none() {
                kept.0 = self.read(&module).ok();
            }
            let record = kept.0.as_ref()?.0.record().clone();
            let LedgerRecord { incarnation, registered, granted, granted_unix_ms, .. } = record;
            Some(LedgerView { module, incarnation, registered, granted, granted_unix_ms })
        };
        WitnessState { modules: modules.into_iter().filter_map(view).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node of version 1 sends, byte for byte; a change that breaks this breaks N−1.
    const ASKED: &str = r#"{"version":1,"module":"am","question":{"question":"ask","node":1,"peer":2,"incarnation":5,"ticket":{"boots":3,"n":4},"epoch":{"counter":2,"node":1,"random":7},"history":[{"counter":2,"node":1,"random":7}],"data":"full","floor":null,"random":9}}"#;
    const PULSED: &str = r#"{"version":1,"pulses":[{"version":1,"module":"am","question":{"question":"pulse","node":2,"peer":1,"incarnation":null,"epoch":null,"history":[],"data":"unknown","yielded":false,"state":"WAIT","in_session":false,"forced":false}}]}"#;

    #[test]
    fn questions_of_version_one_are_understood() {
        let asked: Asked = serde_json::from_str(ASKED).expect("version 1");
        assert!(matches!(&asked.question, Question::Ask { node: NodeId(1), ticket, .. } if ticket.n == 4));
        let pulsed: Pulsed = serde_json::from_str(PULSED).expect("version 1");
        assert!(matches!(pulsed.pulses[0].question, Question::Pulse { node: NodeId(2), .. }));
        // And what this version sends is what version 1 understood.
        assert_eq!(serde_json::to_string(&asked).expect("JSON"), ASKED);
        assert_eq!(serde_json::to_string(&pulsed).expect("JSON"), PULSED);
    }

    #[test]
    fn a_newer_language_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        let ledgers = Ledgers::open(&Places::below(dir.path()));
        let asked = Asked { version: 2, ..serde_json::from_str(ASKED).expect("version 1") };
        let from = Peer { node: NodeId(1), name: model::NodeName::new("node1").expect("a name"), role: PeerRole::Node };
        let refused = ledgers.answer(&asked, &from).expect_err("a newer node");
        assert!(refused.why.contains("version 2") && refused.help.contains("newer stead"), "{refused}");
    }
}
