//! Templates: what a creator publishes, and how its prompt is rendered.

pub mod input;

use crate::rules::config::{Config, Limits};
use crate::rules::run::Release;
use crate::rules::secret::Secret;
use crate::wire::amount::Price;
use crate::wire::evm::Address;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The field of the input that is not a parameter.
pub const USER_MESSAGE: &str = "user_message";

/// The user's turn that Claude gets where the caller sends no message.
pub const NEUTRAL_MESSAGE: &str = "Please proceed.";

/// A parameter that a template declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameter {
    /// The name in the prompt's tags: `[A-Za-z_][A-Za-z0-9_-]*`.
    pub name: String,
    /// A text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a run needs a value for it.
    #[serde(default)]
    pub required: bool,
    /// The value where the input has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The longest value, in characters. The operator's limit applies as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
}

/// A template, with the creator's data that a run needs.
#[derive(Clone, Debug)]
pub struct Template {
    /// The template's id in the database.
    pub id: String,
    /// The creator's id, which is the `sub` of the owner's token.
    pub creator_id: String,
    /// The creator's addresses, by the CAIP-2 id of the network.
    pub wallets: BTreeMap<String, String>,
    /// The wallet that signs the creator's contracts, and is paid for them.
    pub agent_wallet: Option<Address>,
    /// The name that is displayed.
    pub name: String,
    /// A line for people.
    pub description: String,
    /// The model's id at Anthropic.
    pub model: String,
    /// The system prompt with its tags.
    pub prompt: Secret,
    pub parameters: Vec<Parameter>,
    /// Whether the input may have a `user_message`.
    pub allow_user_message: bool,
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// The price of one run.
    pub price: Price,
    /// Whether the template is shown to others than its owner.
    pub published: bool,
    /// When the text of a stream is shown.
    pub release: Release,
    /// The number of runs that have ended, without those of the owner.
    pub runs: u64,
    /// How long the last delivered runs took, in milliseconds, without the longest one. `None`: there are too few.
    pub usual_ms: Option<u64>,
}

impl Parameter {
    /// The longest value that an input may have, in characters.
    pub fn longest_value(&self, limits: &Limits) -> usize {
        self.max_length.unwrap_or(usize::MAX).min(limits.value_chars)
    }
}

/// The longest prompt that any input may fill in, in bytes. With the longest user message it is stored in one row.
pub const FILLED_MAX: usize = 1_200_000;
/// The most bytes of a character in UTF-8.
const CHAR_BYTES: usize = 4;

impl Template {
    /// Whether the prompt's own text has at most `limits.prompt_bytes`, and no input fills it in to more than
    /// [`FILLED_MAX`]. It does not depend on the input: a limit of one input's prompt would tell how long the prompt is,
    /// and how often it has a value.
    pub fn is_bounded(&self, limits: &Limits) -> bool {
        let (own, filled) = self.prompt_bytes(limits);
        own <= limits.prompt_bytes && filled <= FILLED_MAX
    }

    /// How many bytes the prompt has without its tags, and how many at most with values in their places.
    pub fn prompt_bytes(&self, limits: &Limits) -> (usize, usize) {
        let longest = |parameter: &Parameter| {
            let given = parameter.longest_value(limits).saturating_mul(CHAR_BYTES);
            given.max(parameter.default.as_ref().map_or(0, String::len))
        };
        let longest: BTreeMap<&str, usize> = self.parameters.iter().map(|p| (p.name.as_str(), longest(p))).collect();
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        let mut length = 0usize;
        pieces(
            self.prompt.reveal(),
            |name| longest.contains_key(name),
            |piece| match piece {
                Piece::Text(text) => length = length.saturating_add(text.len()),
                Piece::Tag(name) => *uses.entry(name).or_default() += 1,
            },
        );
        let filled = |(name, count): (&&str, &usize)| longest.get(name).map_or(0, |bytes| bytes.saturating_mul(*count));
        // All values together are no longer than the body that they come in, and the defaults.
        let defaults = self.parameters.iter().filter_map(|p| p.default.as_ref()).map(String::len).sum::<usize>();
        let most_uses = uses.values().max().copied().unwrap_or_default();
        let of_body = most_uses.saturating_mul(limits.body_bytes.saturating_add(defaults));
        let values = uses.iter().map(filled).fold(0usize, usize::saturating_add).min(of_body);
        (length, length.saturating_add(values))
    }

    /// What a stranger is shown in the place of a draft, and of a template that does not exist: nothing that they can
    /// buy. A payment that has bought a run while there was a template still finds that run.
    pub fn withdrawn(config: &Config) -> Self {
        let nobody = Address::from([0; 20]).to_string();
        Self {
            id: String::new(),
            creator_id: String::new(),
            agent_wallet: None,
            wallets: config.networks.iter().map(|network| (network.id.clone(), nobody.clone())).collect(),
            name: String::new(),
            description: String::new(),
            model: String::new(),
            prompt: Secret::new(String::new()),
            parameters: Vec::new(),
            allow_user_message: true,
            max_tokens: 1,
            price: Price::whole(1),
            published: false,
            release: Release::Settled,
            runs: 0,
            usual_ms: None,
        }
    }

    /// Whether a wallet is the creator's own. An address is one account on every network.
    pub fn is_of_creator(&self, wallet: Address) -> bool {
        let paid = self.wallets.values().filter_map(|text| Address::parse(text));
        paid.chain(self.agent_wallet).any(|own| own == wallet)
    }
}

/// The longest name of a parameter, in bytes.
const MAX_NAME: usize = 64;

/// Whether a parameter may have this name.
pub fn is_parameter_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    head && name.len() <= MAX_NAME
        && name != USER_MESSAGE
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Renders a prompt: each `{name}{/name}` becomes the value of `name`.
///
/// The prompt is read once. Values are copied as they are, and never read as template text. A tag whose name has no
/// value stays as it is.
pub fn render(prompt: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(rendered_len(prompt, values));
    render_pieces(prompt, values, |piece| out.push_str(piece));
    out
}

/// A piece of a prompt.
enum Piece<'a> {
    Text(&'a str),
    /// A tag, by its name.
    Tag(&'a str),
}

/// The length of what [`render`] returns, in bytes.
pub fn rendered_len(prompt: &str, values: &BTreeMap<String, String>) -> usize {
    let mut length = 0usize;
    render_pieces(prompt, values, |piece| length = length.saturating_add(piece.len()));
    length
}

fn render_pieces<'a>(prompt: &'a str, values: &'a BTreeMap<String, String>, mut push: impl FnMut(&'a str)) {
    pieces(
        prompt,
        |name| values.contains_key(name),
        |piece| match piece {
            Piece::Text(text) => push(text),
            Piece::Tag(name) => push(values.get(name).map_or("", String::as_str)),
        },
    );
}

/// Reads a prompt once, from its start to its end. A tag whose name is not known is text.
fn pieces<'a>(prompt: &'a str, is_known: impl Fn(&str) -> bool, mut push: impl FnMut(Piece<'a>)) {
    let mut rest = prompt;
    while let Some((before, from_brace)) = split_at_char(rest, '{') {
        push(Piece::Text(before));
        match leading_tag(from_brace).filter(|(name, _)| is_known(name)) {
            Some((name, after)) => {
                push(Piece::Tag(name));
                rest = after;
            }
            None => {
                push(Piece::Text("{"));
                rest = from_brace.strip_prefix('{').unwrap_or_default();
            }
        }
    }
    push(Piece::Text(rest));
}

/// Where `text` begins with `{name}{/name}`: the name, and the text after the tag.
fn leading_tag(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('{')?;
    // Names are short. A search for the end of the name through the whole prompt would be very slow for one full of
    // braces.
    let end = text.bytes().take(MAX_NAME + 1).position(|b| b == b'}')?;
    let (name, after) = (text.get(..end)?, text.get(end + 1..)?);
    let after = after.strip_prefix("{/")?.strip_prefix(name)?.strip_prefix('}')?;
    is_parameter_name(name).then_some((name, after))
}

fn split_at_char(text: &str, c: char) -> Option<(&str, &str)> {
    text.find(c).and_then(|at| text.split_at_checked(at))
}
