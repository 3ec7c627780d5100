//! Templates: what a creator publishes, and how its prompt is filled in.

pub mod input;

use crate::rules::run::Release;
use crate::rules::secret::Secret;
use crate::wire::amount::Price;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The field of the input that is not a parameter.
pub const USER_MESSAGE: &str = "user_message";

/// What Claude is sent as the user's turn where the caller sends no message of their own.
pub const NEUTRAL_MESSAGE: &str = "Please proceed.";

/// One declared parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameter {
    /// `[A-Za-z_][A-Za-z0-9_-]*`, as it stands in the prompt's tags.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a run needs it.
    #[serde(default)]
    pub required: bool,
    /// Used where the input has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// In characters; the operator's limit applies besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
}

/// A template with what a run needs to know of its creator.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its id in the database.
    pub id: String,
    /// The creator's id: the `sub` of the owner's token.
    pub creator_id: String,
    /// The creator's wallets: CAIP-2 network to address.
    pub wallets: BTreeMap<String, String>,
    /// Display name.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Anthropic's model id.
    pub model: String,
    /// The system prompt with its tags. Secret.
    pub prompt: Secret,
    /// The declared parameters.
    pub parameters: Vec<Parameter>,
    /// Whether the input may carry `user_message`.
    pub allow_user_message: bool,
    /// Upper bound of an answer, in tokens.
    pub max_tokens: u32,
    /// Price of one run.
    pub price: Price,
    /// Drafts exist for their owner only.
    pub published: bool,
    /// When a stream's text is shown.
    pub release: Release,
    /// Ended runs, owner tests left out.
    pub runs: u64,
}

/// Longest name of a parameter, in bytes.
const MAX_NAME: usize = 64;

/// Whether `name` can stand in a tag.
pub fn is_parameter_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    head && name.len() <= MAX_NAME
        && name != USER_MESSAGE
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Fills in a prompt: each `{name}{/name}` becomes the value of `name`.
///
/// One pass over the prompt; values are copied as they are and never read as template text. A tag
/// whose name has no value is left as it was typed.
pub fn render(prompt: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(rendered_len(prompt, values));
    fill_in(prompt, values, |piece| out.push_str(piece));
    out
}

/// How long [`render`] gets, in bytes.
pub fn rendered_len(prompt: &str, values: &BTreeMap<String, String>) -> usize {
    let mut length = 0usize;
    fill_in(prompt, values, |piece| length = length.saturating_add(piece.len()));
    length
}

fn fill_in<'a>(prompt: &'a str, values: &'a BTreeMap<String, String>, mut take: impl FnMut(&'a str)) {
    let mut rest = prompt;
    while let Some((before, from_brace)) = split_at_char(rest, '{') {
        take(before);
        match leading_tag(from_brace).and_then(|(name, after)| Some((values.get(name)?, after))) {
            Some((value, after)) => {
                take(value);
                rest = after;
            }
            None => {
                take("{");
                rest = from_brace.strip_prefix('{').unwrap_or_default();
            }
        }
    }
    take(rest);
}

/// `{name}{/name}` at the very start of `text`: the name, and what follows.
fn leading_tag(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('{')?;
    // A name is short: looking for its end all the way would make a prompt full of braces very slow.
    let end = text.bytes().take(MAX_NAME + 1).position(|b| b == b'}')?;
    let (name, after) = (text.get(..end)?, text.get(end + 1..)?);
    let after = after.strip_prefix("{/")?.strip_prefix(name)?.strip_prefix('}')?;
    is_parameter_name(name).then_some((name, after))
}

fn split_at_char(text: &str, c: char) -> Option<(&str, &str)> {
    text.find(c).and_then(|at| text.split_at_checked(at))
}
