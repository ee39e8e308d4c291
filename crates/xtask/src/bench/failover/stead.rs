//! Ours: the ledger as a mirror module.

use super::probe::Probe;
use super::{Blow, Contender};
use crate::app::App;
use crate::cluster::Cluster;
use crate::stories::now_ms;
use anyhow::{Context, ensure};
use std::path::Path;
use std::time::Duration;

/// How patient the module is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rhythm {
    /// As shipped: a node is lost after 1 s.
    Default,
    /// After 200 ms.
    Tuned,
}

impl Rhythm {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "Stead, defaults (1 s)",
            Self::Tuned => "Stead, timeout=\"200ms\"",
        }
    }
}

/// A pair of its own.
pub struct Stead {
    cluster: Cluster,
    lab: String,
    rhythm: Rhythm,
    witness: bool,
}

const WHOLE: Duration = Duration::from_secs(120);

impl Stead {
    /// Raises it and starts the module.
    pub fn up(programs: &Path, lab: &str, rhythm: Rhythm, witness: bool) -> anyhow::Result<Self> {
        let cluster = Cluster::up(programs, lab, if witness { &["--witness"] } else { &[] })?;
        match rhythm {
            Rhythm::Default => App::Ledger.install(&cluster)?,
            Rhythm::Tuned => {
                let folder = tuned(lab)?;
                App::Ledger.install_from(&cluster, &folder)?;
                std::fs::remove_dir_all(folder.parent().unwrap_or(&folder))?;
            }
        }
        Ok(Self { cluster, lab: lab.into(), rhythm, witness })
    }

    fn act(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.cluster.act(arguments)
    }
}

impl Contender for Stead {
    fn name(&self) -> &'static str {
        if self.witness { "Stead, defaults, witness" } else { self.rhythm.name() }
    }

    fn strike(&self, blow: Blow) -> anyhow::Result<f64> {
        let module = App::Ledger.module();
        let (primary, secondary) = self.cluster.wait_whole(module, WHOLE)?;
        let probe = Probe::start(&self.cluster, &self.lab)?;
        let since = now_ms();
        match blow {
            Blow::PowerCut => self.act(&["power", "cut", &primary])?,
            Blow::NetworkCut => self.act(&["link", "cut", &primary])?,
            Blow::Freeze => self.act(&["freeze", &primary])?,
            Blow::Swap => drop(self.cluster.exec(&primary, &["stead", "swap", "-m", module])?),
            Blow::Kill => drop(self.cluster.exec(&primary, &["sh", "-c", "pkill -KILL -x stead-ledger"])?),
            Blow::Plane => drop(self.cluster.exec(&primary, &["pkill", "-KILL", "-f", "stead mirrorfs"])?),
            Blow::Agent => drop(self.cluster.exec(&primary, &["pkill", "-KILL", "-f", "stead agent"])?),
        }
        let moves = !matches!(blow, Blow::Kill | Blow::Plane | Blow::Agent);
        let outage = probe.outage_ms(since, now_ms(), moves.then_some(primary.as_str()))?;
        let serving = probe.serving()?;
        let expected = if moves { &secondary } else { &primary };
        ensure!(serving == *expected, "{serving} serves after a {}, expected {expected}", blow.name());
        match blow {
            Blow::PowerCut => self.act(&["power", "on", &primary])?,
            Blow::NetworkCut => self.act(&["link", "heal", &primary])?,
            Blow::Freeze => self.act(&["thaw", &primary])?,
            Blow::Swap | Blow::Kill | Blow::Plane | Blow::Agent => {}
        }
        self.cluster.wait_whole(module, WHOLE)?;
        Ok(outage)
    }

    fn alarms(&self) -> anyhow::Result<u64> {
        let view = self.cluster.view("node1", App::Ledger.module()).context("node1 does not answer")?;
        view["epoch"]["counter"].as_u64().context("the view has no epoch")
    }
}

/// The ledger's module with a timeout of 200 ms.
fn tuned(lab: &str) -> anyhow::Result<std::path::PathBuf> {
    let from = crate::build::root().join("modules").join(App::Ledger.module());
    let to = std::env::temp_dir().join(format!("stead-{lab}-{}", std::process::id())).join(App::Ledger.module());
    for folder in ["conf", "bin"] {
        std::fs::create_dir_all(to.join(folder))?;
        for entry in std::fs::read_dir(from.join(folder))? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(folder).join(entry.file_name()))?;
        }
    }
    let path = to.join("conf/userconfig.xml");
    let text = std::fs::read_to_string(&path)?;
    let changed = text.replace("<heart/>", "<heart pulse=\"20ms\" timeout=\"200ms\"/>");
    ensure!(changed != text, "the ledger's userconfig.xml has no <heart/>");
    std::fs::write(path, changed)?;
    Ok(to)
}
