use super::*;
use crate::store;
use rustix::fs::CWD;

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
