//! The generic tree of a configuration file: what was written, and where.
//!
//! Independent of the syntax it was read from (XML today). Values change only by macro substitution, which
//! keeps the place of the original text.

use alloc::string::String;
use alloc::vec::Vec;

/// A place in a file: 1-based line and column (in characters). Zero: the file as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// 1-based line.
    pub line: u32,
    /// 1-based column in characters.
    pub column: u32,
}

/// `name="value"` of an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// As written.
    pub name: String,
    /// As written, references resolved; after `macros::expand`, macros substituted.
    pub value: String,
    /// Where the name begins.
    pub position: Position,
    /// Where the value begins.
    pub value_position: Position,
    /// Macros that the value was made of, in order: an error in the value is an error in one of them.
    pub macros: Vec<String>,
    /// A name in it means nothing: reported already, and no more is said about the value.
    pub unresolved: bool,
}

/// An element with what is inside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// As written.
    pub name: String,
    /// In the order of the file.
    pub attributes: Vec<Attribute>,
    /// In the order of the file.
    pub children: Vec<Element>,
    /// Character data directly inside, concatenated.
    pub text: String,
    /// Where `<name` begins.
    pub position: Position,
    /// Where the character data begins; the element itself without any.
    pub text_position: Position,
}

impl Element {
    /// The attribute of that name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }

    /// Its value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.attribute(name).map(|a| a.value.as_str())
    }

    /// Children of that name, in the order of the file.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |c| c.name == name)
    }

    /// The first child of that name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    /// Where an attribute's value is; the element itself when it was not written.
    #[must_use]
    pub fn place_of(&self, attribute: &str) -> Position {
        self.attribute(attribute).map_or(self.position, |a| a.value_position)
    }
}
