use super::*;
use crate::store;
use rustix::fs::CWD;
use std::collections::BTreeSet;

fn tree() -> (tempfile::TempDir, NodeTable, Arc<Node>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let table = NodeTable::new();
    let fd = store::open_child(CWD, dir.path().to_str().expect("UTF-8").as_bytes()).expect("open");
    let stat = store::stat(&fd).expect("stat");
    let root = table.insert_root(0, fd, store::key(&stat), store::kind(&stat), Scope::everything());
    (dir, table, root)
}

fn look(table: &NodeTable, parent: &Arc<Node>, name: &str) -> Arc<Node> {
    let fd = store::open_child(parent.fd(), name.as_bytes()).expect("open");
    let stat = store::stat(&fd).expect("stat");
    table.adopt(fd, store::key(&stat), store::kind(&stat), parent, name.as_bytes(), 1)
}

#[test]
fn an_inode_has_one_number_whatever_the_name_and_a_new_one_after_it_was_forgotten() {
    let (dir, table, root) = tree();
    std::fs::write(dir.path().join("a"), "x").expect("write");
    std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).expect("link");
    let a = look(&table, &root, "a");
    let b = look(&table, &root, "b");
    assert_eq!(a.id, b.id);
    assert_eq!(table.release(&a, 1), vec![]);
    assert_eq!(table.release(&b, 1), vec![a.id]);
    assert_eq!(table.len(), 1, "only the root is left");
    assert!(look(&table, &root, "a").id > a.id, "a number is never used twice");
}

#[test]
fn a_directory_stays_known_as_long_as_a_child_is_named_by_it() {
    let (dir, table, root) = tree();
    std::fs::create_dir_all(dir.path().join("d/e")).expect("mkdir");
    std::fs::write(dir.path().join("d/e/f"), "x").expect("write");
    let d = look(&table, &root, "d");
    let e = look(&table, &d, "e");
    let f = look(&table, &e, "f");
    assert_eq!(table.release(&d, 1), vec![]);
    assert_eq!(table.release(&e, 1), vec![]);
    let hint = f.hint().expect("named");
    assert_eq!((hint.parent, &*hint.name), (e.id, &b"f"[..]));
    assert_eq!(table.release(&f, 1), vec![f.id, e.id, d.id]);
}

#[test]
fn a_new_name_moves_the_reference_to_the_new_parent() {
    let (dir, table, root) = tree();
    std::fs::create_dir(dir.path().join("d")).expect("mkdir");
    std::fs::write(dir.path().join("d/f"), "x").expect("write");
    let d = look(&table, &root, "d");
    let f = look(&table, &d, "f");
    table.release(&d, 1);
    assert_eq!(table.set_hint(&f, Some((&root, b"g"))), vec![d.id]);
    assert_eq!(table.set_hint(&f, None), vec![]);
    assert!(table.get(root.id).is_some());
}

#[test]
fn what_a_table_noted_is_gone_with_it_and_with_what_leaves_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let estate = Estate::create().expect("memory");
    let noted = || estate.nodes().map(|(_, slot)| slot.id).collect::<BTreeSet<_>>();
    let table = NodeTable::noting(Some(estate.clone()));
    let fd = store::open_child(CWD, dir.path().to_str().expect("UTF-8").as_bytes()).expect("open");
    let stat = store::stat(&fd).expect("stat");
    let root = table.insert_root(0, fd, store::key(&stat), store::kind(&stat), Scope::everything());
    for name in ["a", "b"] {
        std::fs::write(dir.path().join(name), "x").expect("write");
    }
    let (a, b) = (look(&table, &root, "a"), look(&table, &root, "b"));
    assert_eq!(noted(), BTreeSet::from([root.id.0, a.id.0, b.id.0]));
    table.release(&a, 1);
    table.set_nameless(&a, true);
    assert_eq!(noted(), BTreeSet::from([root.id.0, b.id.0]), "its descriptor is open still, and nobody's");
    drop(table);
    assert_eq!(noted(), BTreeSet::new());
}

#[test]
fn a_scope_is_found_once_for_each_number_of_crossings_and_always_after_the_last() {
    let (dir, table, root) = tree();
    std::fs::create_dir(dir.path().join("d")).expect("mkdir");
    std::fs::write(dir.path().join("d/f"), "x").expect("write");
    let d = look(&table, &root, "d");
    let f = look(&table, &d, "f");
    let crossed = || {
        table.set_scope(&d, Scope::Local);
        table.crossed(&d, &root, b"d");
        // What `crossed` leaves to the next who asks is answered by the name, and that is replicated.
        (table.scope(&f).is_local(), table.seek_once(&f), table.seek_once(&f))
    };
    assert!(table.seek_once(&f) && !table.seek_once(&f));
    assert_eq!(crossed(), (false, true, false));
    table.set_scope(&f, Scope::Local);
    assert!(table.scope(&f).is_local(), "known as of this number");
    table.crossings.store(ANEW - 1, Ordering::Release);
    assert_eq!(crossed(), (false, true, true));
    assert_eq!(crossed(), (false, true, true));
    table.set_scope(&f, Scope::Local);
    assert!(!table.scope(&f).is_local(), "asked anew");
}
