//! The name under which something is made on the follower until it is whole and gets its own.
//!
//! The leader chooses it, in the directory where the thing will be; the follower removes what never got its name when
//! the session it was made in cannot go on.

use replica::op::FileId;

const PREFIX: &str = ".stead-arriving-";

/// For this file of the leader's.
pub(crate) fn name(id: FileId) -> Vec<u8> {
    format!("{PREFIX}{:016x}", id.0).into_bytes()
}

/// Is it such a name?
pub(crate) fn is_one(name: &[u8]) -> bool {
    let number = name.strip_prefix(PREFIX.as_bytes());
    number.is_some_and(|rest| rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    #[test]
    fn our_names_are_known_again_and_others_are_not() {
        assert!(super::is_one(&super::name(replica::op::FileId(1 << 62))));
        assert!(!super::is_one(b".stead-arriving-") && !super::is_one(b".stead-arriving-00000000000000zz"));
    }
}
