//! The place of a value in a JSON document, as people write it: `a.b[2].c`.

use std::fmt;

/// A path, as its last step with a reference to the path before it. So that no path is copied while a document is
/// walked through.
#[derive(Clone, Copy)]
pub enum JsonPath<'p> {
    /// The document as a whole.
    Root,
    /// A member of an object, by its name.
    Name(&'p JsonPath<'p>, &'p str),
    /// An item of an array, by its index.
    Index(&'p JsonPath<'p>, usize),
}

/// The longest name within a path, in characters.
const MAX_NAME: usize = 64;
/// The longest path, in characters.
const MAX_PATH: usize = 256;

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonPath::Root => Ok(()),
            JsonPath::Index(parent, index) => write!(f, "{parent}[{index}]"),
            JsonPath::Name(parent, name) if !is_plain(name) => write!(f, "{parent}[{:?}]", clip(name, MAX_NAME)),
            JsonPath::Name(JsonPath::Root, name) => f.write_str(&clip(name, MAX_NAME)),
            JsonPath::Name(parent, name) => write!(f, "{parent}.{}", clip(name, MAX_NAME)),
        }
    }
}

impl JsonPath<'_> {
    /// The path as text, cut off at its limit.
    pub fn path(&self) -> String {
        clip(&self.to_string(), MAX_PATH)
    }
}

/// Whether a name can stand in a path without quotes.
fn is_plain(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_alphabetic() || matches!(c, '_' | '$'));
    first && name.chars().take(MAX_NAME).all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))
}

/// The first `max` characters of a text, and `…` where more follow.
pub fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
