//! What operators have switched off for maintenance: kept on disk, so that it survives stop, start and the agent.

use model::schema::module::Boot;
use platform::store::write_atomic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Classes of one's own that may be enabled.
const CLASSES_MAX: usize = 64;

/// Switched off.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Off {
    /// Until then; 0: until somebody switches it on.
    #[serde(default)]
    pub until_unix_ms: u64,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who.
    #[serde(default)]
    pub by: String,
}

/// `stead failover on|off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failover {
    /// What was said.
    pub on: bool,
    /// What the configuration said then.
    pub configured: bool,
}

/// All switches of one module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Switches {
    /// Of `<check>`.
    #[serde(default)]
    pub checker: Option<Off>,
    /// Of `<errd>`.
    #[serde(default)]
    pub errd: Option<Off>,
    /// What `stead failover` said, and under which `failover=` of the configuration: another one ends it.
    #[serde(default)]
    pub failover: Option<Failover>,
    /// What `stead boot` said.
    #[serde(default)]
    pub boot: Option<bool>,
    /// Classes of one's own that are watched.
    #[serde(default)]
    pub classes: BTreeSet<String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Switches {
    /// What happens to the module when the node boots; `boot` is what its configuration says.
    pub fn boot_sentence(&self, boot: Boot) -> String {
        match (boot, self.boot) {
            (Boot::Ignore, Some(on)) => format!("boot {}", if on { "on" } else { "off" }),
            (Boot::Ignore, None) => "boot auto: started with the node when it was started before".into(),
            (boot, _) => format!("boot {}: its configuration says it", boot.word()),
        }
    }

    /// An operator says it. `Err`: the configuration does.
    pub fn choose_boot(&mut self, boot: Boot, on: bool) -> Result<String, String> {
        if boot != Boot::Ignore {
            return Err(format!(
                "its configuration says it: boot=\"{}\" (this command decides where that says ignore)",
                boot.word()
            ));
        }
        self.boot = Some(on);
        self.keep()?;
        Ok(format!("boot {}", if on { "on" } else { "off" }))
    }

    /// The module's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/var/lib/stead"))
    }

    /// As they were left below the module's directory. What cannot be read is as if nothing had been switched.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("checkers.json");
        let kept: Self =
            std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { path, ..kept }
    }

    /// Sets aside what cannot be read, and says so; `None`: there is nothing of the kind.
    pub fn set_aside(dir: &Path) -> Option<String> {
        let path = dir.join("checkers.json");
        let why = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Self>(&text).err()?.to_string(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        let aside = dir.join("checkers.json.damaged");
        let kept = match std::fs::rename(&path, &aside) {
            Ok(()) => format!("it is set aside as {}", aside.display()),
            Err(error) => format!("it cannot be set aside: {error}"),
        };
        Some(format!(
            "{} is damaged: {why}; {kept}; what `stead checker`, `errd`, `failover` and `boot` said is forgotten: what was off is on",
            path.display()
        ))
    }

    /// Whatever was switched off until now is on again.
    pub fn expire(&mut self, now_unix_ms: u64) {
        let over = |off: &Option<Off>| off.as_ref().is_some_and(|off| (1..=now_unix_ms).contains(&off.until_unix_ms));
        let (checker, errd) = (over(&self.checker), over(&self.errd));
        if checker {
            self.checker = None;
        }
        if errd {
            self.errd = None;
        }
        if (checker || errd)
            && let Err(error) = self.keep()
        {
            tracing::warn!(%error, "cannot note that checkers are on again");
        }
    }

    /// What is off, for people: who, why, until when, and how it is on again.
    #[must_use]
    pub fn sentences(&self, module: &str) -> Vec<String> {
        let off = |what: &str, verb: &str, off: &Off| {
            let by = if off.by.is_empty() { String::new() } else { format!(" by {}", off.by) };
            let why = if off.reason.is_empty() { String::new() } else { format!(" ({})", off.reason) };
            let until = match off.until_unix_ms {
                0 => String::new(),
                ms => format!(" until {}", platform::clock::local_stamp(ms, ":")),
            };
            format!("{what}, switched off{by}{until}{why}: stead {verb} on -m {module}")
        };
        let checker = self.checker.as_ref().map(|it| off("no checker looks", "checker", it));
        let errd = self.errd.as_ref().map(|it| off("no process is watched", "errd", it));
        let failover = self
            .failover
            .filter(|said| !said.on)
            .map(|_| format!("a secondary does not take over by itself, switched off: stead failover on -m {module}"));
        [checker, errd, failover].into_iter().flatten().collect()
    }

    /// Does a secondary take over by itself?
    #[must_use]
    pub fn fails_over(&self, configured: bool) -> bool {
        self.failover.filter(|said| said.configured == configured).map_or(configured, |said| said.on)
    }

    /// Enables a class, or disables it.
    ///
    /// # Errors
    /// Too many.
    pub fn class(&mut self, name: &str, on: bool) -> Result<(), String> {
        if !on {
            self.classes.remove(name);
        } else if self.classes.len() >= CLASSES_MAX {
            return Err(format!("more than {CLASSES_MAX} classes are enabled"));
        } else {
            self.classes.insert(name.to_string());
        }
        Ok(())
    }

    /// Writes them down.
    ///
    /// # Errors
    /// What could not be written.
    pub fn keep(&self) -> Result<(), String> {
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        write_atomic(&self.path, &text, 0o600).map_err(|error| crate::cluster_config::causes(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_set_aside_and_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Switches::set_aside(dir.path()), None);
        let mut switches = Switches::open(dir.path());
        switches.errd = Some(Off::default());
        switches.keep().unwrap();
        assert_eq!(Switches::set_aside(dir.path()), None);
        let file = dir.path().join("checkers.json");
        std::fs::write(&file, "{\"errd\":").unwrap();
        let said = Switches::set_aside(dir.path()).expect("it is damaged");
        assert!(said.contains("checkers.json is damaged") && said.contains("checkers.json.damaged"), "{said}");
        assert!(!file.exists() && dir.path().join("checkers.json.damaged").is_file());
        assert_eq!(Switches::set_aside(dir.path()), None, "it is told once");
    }

    #[test]
    fn what_is_off_stays_off_until_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut switches = Switches::open(dir.path());
        switches.checker = Some(Off { until_unix_ms: 1_000, reason: "backup".into(), by: "root".into() });
        switches.errd = Some(Off::default());
        switches.class("night", true).unwrap();
        switches.keep().unwrap();
        let mut again = Switches::open(dir.path());
        assert_eq!(again, switches);
        again.expire(999);
        assert_eq!(again, switches);
        let said = again.sentences("db");
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("no checker looks, switched off by root until 19"), "{said:?}");
        assert!(said[0].ends_with("(backup): stead checker on -m db"), "{said:?}");
        assert_eq!(said[1], "no process is watched, switched off: stead errd on -m db");
        again.expire(1_000);
        assert!(again.checker.is_none() && again.errd.is_some(), "without a time it stays off");
        assert_eq!(Switches::open(dir.path()), again);
    }
}
