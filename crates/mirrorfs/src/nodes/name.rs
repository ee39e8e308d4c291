//! The name of an entry, as a node keeps it: short ones, which most are, without an allocation of their own.
//!
//! Two words whatever the length: there is one in every node, and a node is what a million files are paid in.

use std::fmt;
use std::ops::Deref;

/// What fits beside its length into two words.
const SHORT: usize = 14;
/// One allocation of 48 bytes, of which the allocator takes eight: a slice would need its length outside of it.
const MEDIUM: usize = 40;

/// See the module's page.
#[derive(Clone)]
pub struct Name(Form);

#[derive(Clone)]
enum Form {
    Short(u8, [u8; SHORT]),
    Medium(u8, Box<[u8; MEDIUM]>),
    Long(Box<Box<[u8]>>),
}

const _: () = assert!(size_of::<Option<Name>>() == 16);

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Self {
        let length = name.len();
        Self(if length <= SHORT {
            Form::Short(length as u8, padded(name))
        } else if length <= MEDIUM {
            Form::Medium(length as u8, Box::new(padded(name)))
        } else {
            Form::Long(Box::new(name.into()))
        })
    }
}

fn padded<const N: usize>(name: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..name.len()].copy_from_slice(name);
    bytes
}

impl Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Short(length, bytes) => &bytes[..usize::from(*length)],
            Form::Medium(length, bytes) => &bytes[..usize::from(*length)],
            Form::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_and_of_any_bytes_comes_back_as_it_was() {
        for length in 0..=255 {
            for bytes in [vec![0; length], (0..length).map(|n| 255 - n as u8).collect()] {
                let name = Name::from(&*bytes);
                assert_eq!((&*name, &*name.clone()), (&*bytes, &*bytes));
                assert_eq!(length <= SHORT, matches!(name.0, Form::Short(..)), "a short one is not allocated");
            }
        }
        assert_ne!(Name::from(&b"a"[..]), Name::from(&b"a\0"[..]));
        assert_eq!(format!("{:?}", Name::from(&b"a\xff"[..])), r#""a\xff""#);
    }
}
