//! Why the store refused or failed: each names the module, the file, and the command that helps.

use super::package::PackageError;
use model::api::{Code, Problem};
use model::ids::{ModuleId, ModuleName};
use model::schema::Diagnostic;
use std::io;
use std::path::PathBuf;

/// A refusal or failure of the module store. State unchanged, retry safe, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such module on this node. State unchanged.
    #[error("module '{name}' is not installed on this node{}", .near.as_ref().map(|n| format!(": did you mean '{n}'?")).unwrap_or_default())]
    NotInstalled {
        /// What was asked for.
        name: ModuleName,
        /// A module with a name like it.
        near: Option<String>,
    },
    /// The module is installed already. State unchanged.
    #[error("module '{name}' is installed already, in {}", .path.display())]
    AlreadyInstalled {
        /// The module.
        name: ModuleName,
        /// Its editable copy.
        path: PathBuf,
    },
    /// It was here, and both its copies are lost. State unchanged.
    #[error("module '{name}' was configured on this node, and its files are lost: {} and {} are gone", .editable.display(), .active.display())]
    Lost {
        /// The module.
        name: ModuleName,
        /// Its editable copy.
        editable: PathBuf,
        /// What was in force.
        active: PathBuf,
    },
    /// The module was installed and never configured. State unchanged.
    #[error("module '{name}' is installed and has no active configuration yet")]
    NotConfigured {
        /// The module.
        name: ModuleName,
    },
    /// Fewer configurations were in force before. State unchanged.
    #[error("module '{name}' has no configuration number {number} from before: {kept} are kept")]
    NoPast {
        /// The module.
        name: ModuleName,
        /// The one asked for.
        number: u32,
        /// How many there are.
        kept: usize,
    },
    /// Its number belongs to another module, or it has another number here. State unchanged.
    #[error("module '{name}' cannot have number {id} on this node: {why}")]
    Number {
        /// The module.
        name: ModuleName,
        /// The number asked for.
        id: u16,
        /// Who has it.
        why: String,
    },
    /// All 256 numbers are taken. State unchanged.
    #[error("the cluster has {} modules: no number is left for another", model::limits::MODULES_MAX)]
    NoNumberLeft,
    /// The configuration is wrong. State unchanged.
    #[error("the configuration of module '{name}' is refused: {} {}", .diagnostics.iter().filter(|d| d.is_error()).count(), if .diagnostics.iter().filter(|d| d.is_error()).count() == 1 { "error" } else { "errors" })]
    Refused {
        /// The module.
        name: ModuleName,
        /// All findings, notes included.
        diagnostics: Vec<Diagnostic>,
        /// The file they are about, for showing its lines.
        text: Vec<u8>,
    },
    /// A macro cannot be set. State unchanged.
    #[error("macros of module '{name}' are not changed: {}", .diagnostic.message)]
    Macros {
        /// The module.
        name: ModuleName,
        /// Why.
        diagnostic: Box<Diagnostic>,
    },
    /// It is not a module. State unchanged.
    #[error("module '{name}' is not installed from this archive: {source}")]
    Archive {
        /// The module.
        name: ModuleName,
        /// Why.
        source: PackageError,
    },
    /// It runs. State unchanged.
    #[error("module '{name}' is running on this node and cannot be uninstalled")]
    Running {
        /// The module.
        name: ModuleName,
    },
    /// Prepared by an agent that has restarted since, replaced by a later one, or finished already. State unchanged.
    #[error("no configuration is prepared under token {token}")]
    UnknownToken {
        /// The token.
        token: String,
    },
    /// A file the store wrote cannot be understood. State unchanged.
    #[error("{} of module '{name}' cannot be understood: {why}", .path.display())]
    Corrupted {
        /// The module.
        name: ModuleName,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The disk did not do it: old or new is in force, never half; retry safe.
    #[error("{what} {} failed", .path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StoreError {
    /// The command or sentence that helps.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotInstalled { name, .. } => {
                format!("`stead module list` shows what is; `stead module install {name}` installs it")
            }
            Self::Lost { name, .. } => format!(
                "on the other node: stead module export -m {name}; or, where it is to run no more: stead module uninstall {name} --local"
            ),
            Self::AlreadyInstalled { name, path } => format!(
                "edit {} and run `stead config -m {name}`; to replace its files: `stead module install -r …`",
                path.display()
            ),
            Self::NotConfigured { name } => {
                format!("`stead config -m {name}` checks and applies {name}'s configuration")
            }
            Self::NoPast { name, .. } => format!("`stead confinfo -m {name}` lists them: 1 is the last one"),
            Self::Number { .. } => {
                "`stead module list` shows the numbers; leave the number out to get a free one".into()
            }
            Self::NoNumberLeft => "`stead module uninstall -m AM` frees one".into(),
            Self::Refused { name, .. } => format!("correct the file and run `stead config -m {name}`"),
            Self::Macros { name, diagnostic } => {
                diagnostic.help.clone().unwrap_or_else(|| format!("`stead config -m {name} --set MACRO=VALUE`"))
            }
            Self::Archive { source, .. } => source.help().into(),
            Self::Running { name } => {
                format!("`stead stop -m {name}` on both nodes, then `stead module uninstall -m {name}`")
            }
            Self::UnknownToken { .. } => "run the command again: `stead config -m AM`".into(),
            Self::Corrupted { name, .. } => format!("`stead config -m {name}` writes it anew"),
            Self::Io { path, source, .. } => match source.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => {
                    format!("free space on the file system of {} and run the command again", path.display())
                }
                Some(libc::EROFS) => format!("the file system of {} is read-only: see `dmesg`", path.display()),
                _ => "correct it and run the command again".into(),
            },
        }
    }

    /// As the API says it. `what` says what was attempted, on what: "cannot configure module 'pg' on node1".
    #[must_use]
    pub fn problem(&self, what: impl Into<String>) -> Problem {
        let code = match self {
            Self::NotInstalled { .. } | Self::NoPast { .. } => Code::NotFound,
            Self::AlreadyInstalled { .. }
            | Self::NotConfigured { .. }
            | Self::Number { .. }
            | Self::NoNumberLeft
            | Self::Running { .. }
            | Self::UnknownToken { .. } => Code::Refused,
            Self::Refused { .. } => Code::Misconfigured,
            Self::Macros { .. } | Self::Archive { .. } => Code::Invalid,
            Self::Corrupted { .. } | Self::Lost { .. } | Self::Io { .. } => Code::Internal,
        };
        let why = match std::error::Error::source(self) {
            Some(source) if matches!(self, Self::Io { .. }) => format!("{self}: {source}"),
            _ => self.to_string(),
        };
        let problem = Problem::new(code, what, why).with_help(self.help());
        match self {
            Self::Refused { diagnostics, text, .. } => {
                problem.with_diagnostics(crate::configuration::for_api(diagnostics, text))
            }
            Self::Macros { diagnostic, .. } => {
                problem.with_diagnostics(crate::configuration::for_api(std::slice::from_ref(diagnostic), b""))
            }
            _ => problem,
        }
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(super) fn number(name: &ModuleName, id: ModuleId, why: impl Into<String>) -> Self {
        Self::Number { name: name.clone(), id: id.0, why: why.into() }
    }
}
