//! Why a change could not be made here, and what that means.

use replica::op::FileId;
use rustix::io::Errno;

/// What went wrong with one change.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The id means nothing here.
    Absent(FileId),
    /// A rename of which as much was made as could be: only one of two was here, or both are one file.
    Half,
    /// The system said no.
    Os(Errno),
    /// A leader that does not keep to what was agreed, or a disk we cannot use.
    Fatal(String),
}

impl Trouble {
    pub fn fatal(what: impl Into<String>) -> Self {
        Self::Fatal(what.into())
    }

    /// Does it only say that this copy is not (yet) like the leader's? A target may differ; a disk that is
    /// full or broken is another matter.
    pub fn is_difference(&self) -> bool {
        match self {
            Self::Absent(_) | Self::Half => true,
            Self::Os(e) => matches!(
                *e,
                Errno::NOENT
                    | Errno::EXIST
                    | Errno::NOTDIR
                    | Errno::ISDIR
                    | Errno::NOTEMPTY
                    | Errno::LOOP
                    | Errno::INVAL
                    | Errno::MLINK
                    | Errno::NODATA
            ),
            Self::Fatal(_) => false,
        }
    }
}

impl From<Errno> for Trouble {
    fn from(e: Errno) -> Self {
        Self::Os(e)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Self {
        e.raw_os_error().map_or_else(|| Self::Fatal(e.to_string()), |code| Self::Os(Errno::from_raw_os_error(code)))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(id) => write!(f, "file {} is unknown here", id.0),
            Self::Half => f.write_str("of two names, only one is here, or both are one file"),
            Self::Os(e) => write!(f, "{e}"),
            Self::Fatal(text) => f.write_str(text),
        }
    }
}
