//! Which names are replicated and which stay on this node: `<notreplicated>` of one directory.
//!
//! Pure. **Invariant:** what a name is depends on its path and on the configuration only, so both nodes agree.

use model::orders::ReplicatedDir;
use model::patterns::Patterns;
use std::sync::Arc;

/// Whether changes of a file are the peer's business.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Replicated.
    Replicated(Shown),
    /// Under a `notreplicated` name: stays on this node.
    Local,
}

/// What stays local below something replicated.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The rest of each `notreplicated` path that goes through here.
    paths: Arc<[Vec<Box<[u8]>>]>,
    names: Arc<Patterns>,
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.paths == other.paths && Arc::ptr_eq(&self.names, &other.names)
    }
}

impl Eq for Shown {}

impl Scope {
    /// Scope of a replicated directory.
    #[must_use]
    pub fn root(dir: &ReplicatedDir) -> Scope {
        let split = |path: &String| -> Vec<Box<[u8]>> {
            path.split('/').filter(|part| !part.is_empty() && *part != ".").map(|part| part.as_bytes().into()).collect()
        };
        let paths = dir.notreplicated.iter().map(split).filter(|path| !path.is_empty()).collect();
        Scope::Replicated(Shown { paths, names: Arc::new(Patterns::new(&dir.notreplicated_names)) })
    }

    /// Everything is replicated.
    #[must_use]
    pub fn everything() -> Scope {
        Scope::Replicated(Shown { paths: Arc::new([]), names: Arc::default() })
    }

    /// Scope of the entry `name` of a directory with this scope.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Scope {
        let Scope::Replicated(Shown { paths, names }) = self else {
            return Scope::Local;
        };
        if names.hide(name) {
            return Scope::Local;
        }
        if paths.is_empty() {
            return self.clone();
        }
        let mut rest = Vec::new();
        for path in paths.iter().filter(|p| p.first().is_some_and(|first| **first == *name)) {
            if path.len() == 1 {
                return Scope::Local;
            }
            rest.push(path[1..].to_vec());
        }
        Scope::Replicated(Shown { paths: rest.into(), names: names.clone() })
    }

    /// It stays on this node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        *self == Scope::Local
    }

    /// Nothing below stays local.
    #[must_use]
    pub fn hides_nothing(&self) -> bool {
        matches!(self, Scope::Replicated(Shown { paths, names }) if paths.is_empty() && names.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(paths: &[&str], names: &[&str]) -> Scope {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let (notreplicated, notreplicated_names) = (texts(paths), texts(names));
        Scope::root(&ReplicatedDir { path: "/d".into(), tocheck: vec![], notreplicated, notreplicated_names })
    }

    #[test]
    fn a_path_that_is_not_replicated_is_local_from_its_last_part_on() {
        let root = root(&["a/b", "/tmp/", ""], &[]);
        assert!(!root.is_local() && !root.hides_nothing());
        assert!(root.child(b"tmp").is_local() && root.child(b"tmp").child(b"x").is_local());
        assert!(root.child(b"a").child(b"b").child(b"c").is_local());
        assert!(
            !root.child(b"a").is_local() && !root.child(b"a").child(b"c").is_local() && !root.child(b"b").is_local()
        );
        assert_ne!(root.child(b"a"), root.child(b"b"), "what may not be renamed to each other is not the same");
        assert_eq!(root.child(b"b"), root.child(b"c"));
    }

    #[test]
    fn an_expression_holds_in_every_directory_and_for_all_that_is_below() {
        let root = root(&[], &[r"\.tmp$"]);
        assert!(root.child(b"d").child(b"x.tmp").is_local() && root.child(b"d.tmp").child(b"x").is_local());
        assert_eq!(root.child(b"d"), root);
        assert!(Scope::everything().child(b"x.tmp").hides_nothing());
    }
}
