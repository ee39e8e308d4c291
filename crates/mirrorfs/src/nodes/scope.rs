//! Which names are replicated and which stay on this node: `<notreplicated>` of one directory.
//!
//! Pure. **Invariant:** what a name is depends on its path and on the configuration only, so both nodes agree.

use model::orders::ReplicatedDir;
use model::patterns::Patterns;
use std::sync::Arc;

/// Whether changes of a file are the peer's business. One word: each node has its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Replicated.
    Replicated(Arc<Shown>),
    /// Under a `notreplicated` name: stays on this node.
    Local,
}

/// What stays local below something replicated.
#[derive(Debug)]
pub struct Shown {
    /// The rest of each `notreplicated` path that goes through here.
    paths: Vec<Vec<Box<[u8]>>>,
    names: Arc<Patterns>,
    /// What there is beside these paths, one for all files. `None`: there are no paths, everything below is as this.
    beside: Option<Arc<Shown>>,
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
        let paths: Vec<_> = dir.notreplicated.iter().map(split).filter(|path| !path.is_empty()).collect();
        let names = Arc::new(Patterns::new(&dir.notreplicated_names));
        let beside = Arc::new(Shown { paths: Vec::new(), names: names.clone(), beside: None });
        if paths.is_empty() {
            return Scope::Replicated(beside);
        }
        Scope::Replicated(Arc::new(Shown { paths, names, beside: Some(beside) }))
    }

    /// Everything is replicated.
    #[must_use]
    pub fn everything() -> Scope {
        Scope::Replicated(Arc::new(Shown { paths: Vec::new(), names: Arc::default(), beside: None }))
    }

    /// Scope of the entry `name` of a directory with this scope.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Scope {
        let Scope::Replicated(shown) = self else {
            return Scope::Local;
        };
        if shown.names.hide(name) {
            return Scope::Local;
        }
        let Some(beside) = &shown.beside else {
            return self.clone();
        };
        let mut rest = Vec::new();
        for path in shown.paths.iter().filter(|p| p.first().is_some_and(|first| **first == *name)) {
            if path.len() == 1 {
                return Scope::Local;
            }
            rest.push(path[1..].to_vec());
        }
        if rest.is_empty() {
            return Scope::Replicated(beside.clone());
        }
        let (names, beside) = (shown.names.clone(), Some(beside.clone()));
        Scope::Replicated(Arc::new(Shown { paths: rest, names, beside }))
    }

    /// It stays on this node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        *self == Scope::Local
    }

    /// Nothing below stays local.
    #[must_use]
    pub fn hides_nothing(&self) -> bool {
        matches!(self, Scope::Replicated(shown) if shown.paths.is_empty() && shown.names.is_empty())
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
    fn files_beside_a_path_that_is_not_replicated_share_what_they_are() {
        let root = root(&["a/b"], &[]);
        let (Scope::Replicated(one), Scope::Replicated(other)) = (root.child(b"c"), root.child(b"d").child(b"e"))
        else {
            panic!("both are replicated");
        };
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn an_expression_holds_in_every_directory_and_for_all_that_is_below() {
        let root = root(&[], &[r"\.tmp$"]);
        assert!(root.child(b"d").child(b"x.tmp").is_local() && root.child(b"d.tmp").child(b"x").is_local());
        assert_eq!(root.child(b"d"), root);
        assert!(Scope::everything().child(b"x.tmp").hides_nothing());
    }
}
