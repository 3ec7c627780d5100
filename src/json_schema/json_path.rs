//! Where something lies in a JSON text, as people write it: `a.b[2].c`.

use std::fmt;

/// The way from the root, from its end: each step knows the one before.
#[derive(Clone, Copy)]
pub enum JsonPath<'p> {
    /// The whole.
    Root,
    /// A member of an object.
    Name(&'p JsonPath<'p>, &'p str),
    /// An item of an array.
    Index(&'p JsonPath<'p>, usize),
}

/// Longest name within a path, and longest path, in characters.
const MAX_NAME: usize = 64;
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
    /// The path; what is too long is cut off.
    pub fn path(&self) -> String {
        clip(&self.to_string(), MAX_PATH)
    }
}

/// Whether a name can stand in a path without quotes.
fn is_plain(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_alphabetic() || matches!(c, '_' | '$'));
    first && name.chars().take(MAX_NAME).all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))
}

/// The first `most` characters of a text.
pub fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
