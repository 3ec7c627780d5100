//! Reads a schema: each keyword must be known and well-formed, and each `$ref` must lead to a subschema.

mod keywords;

use super::json_path::{clip, JsonPath};
use super::number::Multiple;
use super::pattern::Pattern;
use super::{Id, ListRule, Node, NumberRule, ObjectRule, Rule, TextRule, Unsupported};
use super::{MAX_BYTES, MAX_NESTING, MAX_SUBSCHEMAS};
use keywords::{names, refuse, types, Keywords};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ptr;

/// The most states of all patterns of a schema together, for which some 1 MiB of memory is used.
const MAX_STATES: u64 = 16_384;

/// Reads a schema into nodes, of which the first is the root.
pub fn read(schema: &Value) -> Result<Vec<Node>, Unsupported> {
    if !is_shallow(schema, MAX_NESTING) {
        return Err(refuse(&JsonPath::Root, format!("is more than {MAX_NESTING} levels deep")));
    }
    if schema.to_string().len() > MAX_BYTES {
        return Err(refuse(&JsonPath::Root, format!("is longer than {MAX_BYTES} bytes")));
    }
    let mut reader = Reader { root: schema, ..Reader::default() };
    reader.subschema(schema, &JsonPath::Root)?;
    reader.resolve()?;
    Ok(reader.nodes)
}

/// Whether a value has at most this many levels.
fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_shallow(item, below)),
        Value::Object(members) => members.values().all(|member| is_shallow(member, below)),
        _ => true,
    }
}

/// A schema that is being read.
#[derive(Default)]
struct Reader<'v> {
    root: &'v Value,
    nodes: Vec<Node>,
    /// The `$id` of the root schema.
    id: Option<&'v str>,
    /// The node of each subschema, by the address of its JSON value. A JSON pointer leads to a value, and so to its
    /// node.
    nodes_by_address: BTreeMap<usize, Id>,
    anchors: BTreeMap<&'v str, Id>,
    /// Each `$ref`: the node that has it, its text, and its place.
    refs: Vec<(Id, &'v str, String)>,
    /// The states of all patterns.
    states: u64,
}

fn address(value: &Value) -> usize {
    ptr::from_ref(value) as usize
}

impl<'v> Reader<'v> {
    fn subschema(&mut self, value: &'v Value, at: &JsonPath<'_>) -> Result<Id, Unsupported> {
        let id = self.nodes.len();
        if id >= MAX_SUBSCHEMAS {
            return Err(refuse(at, format!("is one of more than {MAX_SUBSCHEMAS} subschemas")));
        }
        self.nodes.push(Node::default());
        self.nodes_by_address.insert(address(value), id);
        let rules = match value {
            Value::Bool(true) => Vec::new(),
            Value::Bool(false) => vec![Rule::Never],
            Value::Object(map) => self.rules(id, &Keywords { map, at })?,
            _ => return Err(refuse(at, "must be a schema: an object, true or false")),
        };
        if let Some(node) = self.nodes.get_mut(id) {
            node.rules = rules;
        }
        Ok(id)
    }

    /// The rules of a subschema. Those that are cheap to check come first.
    fn rules(&mut self, id: Id, keywords: &Keywords<'v, '_>) -> Result<Vec<Rule>, Unsupported> {
        keywords.check_names()?;
        self.identifiers(id, keywords)?;
        // These are only read because a `$ref` may lead to them.
        self.table(keywords, "$defs")?;
        self.child(keywords, "contentSchema")?;
        let mut rules = Vec::new();
        let kinds = "must be one or several different of null, boolean, object, array, number, integer, string";
        rules.extend(keywords.parsed("type", kinds, types)?.map(Rule::Type));
        rules.extend(keywords.map.get("const").cloned().map(Rule::Const));
        rules.extend(keywords.list("enum")?.cloned().map(Rule::Enum));
        rules.extend(numbers(keywords)?.into_iter().map(Rule::Number));
        rules.extend(self.texts(keywords)?.into_iter().map(Rule::Text));
        rules.extend(self.lists(keywords)?.into_iter().map(Rule::List));
        rules.extend(self.objects(keywords)?.into_iter().map(Rule::Object));
        self.logic(keywords, &mut rules)?;
        Ok(rules)
    }

    /// Reads `$schema`, `$id`, `$anchor` and `$ref` (core §8).
    fn identifiers(&mut self, id: Id, keywords: &Keywords<'v, '_>) -> Result<(), Unsupported> {
        if let Some(dialect) = keywords.text("$schema")? {
            if id > 0 || dialect.strip_suffix('#').unwrap_or(dialect) != "https://json-schema.org/draft/2020-12/schema"
            {
                return Err(keywords.refuse("$schema", "must be that of draft 2020-12, and stand at the root"));
            }
        }
        if let Some(name) = keywords.text("$id")? {
            let name = name.strip_suffix('#').unwrap_or(name);
            if id > 0 || name.contains('#') {
                return Err(keywords.refuse("$id", "is taken at the root only, and without a fragment"));
            }
            self.id = Some(name).filter(|name| !name.is_empty());
        }
        if let Some(anchor) = keywords.text("$anchor")? {
            if !is_anchor(anchor) || self.anchors.insert(anchor, id).is_some() {
                return Err(
                    keywords.refuse("$anchor", "must be a name of letters, digits, `-`, `_` and `.`, used once")
                );
            }
        }
        if let Some(target) = keywords.text("$ref")? {
            self.refs.push((id, target, JsonPath::Name(keywords.at, "$ref").path()));
        }
        Ok(())
    }

    /// Finds the node of each `$ref`, once all subschemas have been read.
    fn resolve(&mut self) -> Result<(), Unsupported> {
        for (id, target, field) in std::mem::take(&mut self.refs) {
            let found = self.target(target);
            let found = found.map_err(|why| Unsupported { field, why: format!("{} {why}", clip(target, 100)) })?;
            if let Some(node) = self.nodes.get_mut(id) {
                node.rules.insert(0, Rule::Ref(found));
            }
        }
        Ok(())
    }

    /// The node that a `$ref` leads to: `#`, `#/a/pointer` (RFC 6901) or `#anchor`, with or without the `$id` before
    /// it.
    fn target(&self, target: &str) -> Result<Id, &'static str> {
        let own =
            self.id.and_then(|id| target.strip_prefix(id)).filter(|rest| rest.is_empty() || rest.starts_with('#'));
        let fragment = match own {
            Some("") => Some(""),
            _ => own.unwrap_or(target).strip_prefix('#'),
        };
        let fragment = fragment.ok_or("leads out of this schema: only `#...` is taken")?;
        let fragment = percent_decoded(fragment).ok_or("has a malformed `%`")?;
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.anchors.get(fragment.as_str()).copied().ok_or("names an anchor that is not there");
        }
        if fragment.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err("has a `~` that is neither `~0` nor `~1`");
        }
        let value = self.root.pointer(&fragment).ok_or("leads nowhere")?;
        self.nodes_by_address.get(&address(value)).copied().ok_or("leads to what is no subschema")
    }

    fn child(&mut self, keywords: &Keywords<'v, '_>, key: &'static str) -> Result<Option<Id>, Unsupported> {
        let value = keywords.map.get(key);
        value.map(|value| self.subschema(value, &JsonPath::Name(keywords.at, key))).transpose()
    }

    /// An array of at least one subschema.
    fn children(&mut self, keywords: &Keywords<'v, '_>, key: &'static str) -> Result<Option<Vec<Id>>, Unsupported> {
        let Some(list) = keywords.list(key)? else { return Ok(None) };
        if list.is_empty() {
            return Err(keywords.refuse(key, "must not be empty"));
        }
        let at = JsonPath::Name(keywords.at, key);
        let ids = list.iter().enumerate().map(|(i, value)| self.subschema(value, &JsonPath::Index(&at, i)));
        ids.collect::<Result<_, _>>().map(Some)
    }

    /// An object whose values are subschemas.
    fn table(&mut self, keywords: &Keywords<'v, '_>, key: &'static str) -> Result<Vec<(&'v str, Id)>, Unsupported> {
        let at = JsonPath::Name(keywords.at, key);
        let table = keywords.object(key)?.into_iter().flatten();
        table.map(|(name, value)| Ok((name.as_str(), self.subschema(value, &JsonPath::Name(&at, name))?))).collect()
    }

    fn pattern(&mut self, source: &str, at: &JsonPath<'_>) -> Result<Pattern, Unsupported> {
        let pattern = Pattern::read(source).map_err(|why| refuse(at, why))?;
        self.states += pattern.states;
        if self.states > MAX_STATES {
            return Err(refuse(at, format!("makes the patterns too large: together, {MAX_STATES} states")));
        }
        Ok(pattern)
    }

    fn texts(&mut self, keywords: &Keywords<'v, '_>) -> Result<Vec<TextRule>, Unsupported> {
        let mut rules = Vec::new();
        rules.extend(keywords.count("maxLength")?.map(TextRule::MaxLength));
        rules.extend(keywords.count("minLength")?.map(TextRule::MinLength));
        if let Some(source) = keywords.text("pattern")? {
            rules.push(TextRule::Pattern(self.pattern(source, &JsonPath::Name(keywords.at, "pattern"))?));
        }
        Ok(rules)
    }

    fn lists(&mut self, keywords: &Keywords<'v, '_>) -> Result<Vec<ListRule>, Unsupported> {
        let mut rules = Vec::new();
        rules.extend(keywords.count("maxItems")?.map(ListRule::MaxItems));
        rules.extend(keywords.count("minItems")?.map(ListRule::MinItems));
        rules.extend(keywords.flag("uniqueItems")?.filter(|unique| *unique).map(|_| ListRule::Unique));
        let (prefix, rest) = (self.children(keywords, "prefixItems")?, self.child(keywords, "items")?);
        if prefix.is_some() || rest.is_some() {
            rules.push(ListRule::Items { prefix: prefix.unwrap_or_default(), rest });
        }
        let (min, max) = (keywords.count("minContains")?, keywords.count("maxContains")?);
        rules.extend(self.child(keywords, "contains")?.map(|id| ListRule::Contains { id, min, max }));
        Ok(rules)
    }

    fn objects(&mut self, keywords: &Keywords<'v, '_>) -> Result<Vec<ObjectRule>, Unsupported> {
        const NAMES: &str = "must be an array of different strings";
        let mut rules = Vec::new();
        rules.extend(keywords.count("maxProperties")?.map(ObjectRule::MaxProperties));
        rules.extend(keywords.count("minProperties")?.map(ObjectRule::MinProperties));
        rules.extend(keywords.parsed("required", NAMES, names)?.map(ObjectRule::Required));
        if let Some(table) = keywords.object("dependentRequired")? {
            let at = JsonPath::Name(keywords.at, "dependentRequired");
            let entry = |(name, value): (&String, &Value)| match names(value) {
                Some(needed) => Ok((name.clone(), needed)),
                None => Err(refuse(&JsonPath::Name(&at, name), NAMES)),
            };
            rules.push(ObjectRule::DependentRequired(table.iter().map(entry).collect::<Result<_, _>>()?));
        }
        rules.extend(self.child(keywords, "propertyNames")?.map(ObjectRule::Names));
        rules.extend(self.properties(keywords)?);
        let dependent = self.table(keywords, "dependentSchemas")?;
        let dependent: Vec<_> = dependent.into_iter().map(|(name, id)| (name.to_owned(), id)).collect();
        rules.extend((!dependent.is_empty()).then_some(ObjectRule::DependentSchemas(dependent)));
        Ok(rules)
    }

    fn properties(&mut self, keywords: &Keywords<'v, '_>) -> Result<Option<ObjectRule>, Unsupported> {
        let named = self.table(keywords, "properties")?;
        let named: BTreeMap<_, _> = named.into_iter().map(|(name, id)| (name.to_owned(), id)).collect();
        let at = JsonPath::Name(keywords.at, "patternProperties");
        let table = self.table(keywords, "patternProperties")?.into_iter();
        let patterns = table.map(|(source, id)| Ok((self.pattern(source, &JsonPath::Name(&at, source))?, id)));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let rest = self.child(keywords, "additionalProperties")?;
        let asks = !named.is_empty() || !patterns.is_empty() || rest.is_some();
        Ok(asks.then_some(ObjectRule::Properties { named, patterns, rest }))
    }

    fn logic(&mut self, keywords: &Keywords<'v, '_>, rules: &mut Vec<Rule>) -> Result<(), Unsupported> {
        rules.extend(self.children(keywords, "allOf")?.map(Rule::AllOf));
        rules.extend(self.children(keywords, "anyOf")?.map(Rule::AnyOf));
        rules.extend(self.children(keywords, "oneOf")?.map(Rule::OneOf));
        rules.extend(self.child(keywords, "not")?.map(Rule::Not));
        let condition = self.child(keywords, "if")?;
        let (then, otherwise) = (self.child(keywords, "then")?, self.child(keywords, "else")?);
        rules.extend(condition.map(|condition| Rule::If { condition, then, otherwise }));
        Ok(())
    }
}

fn numbers(keywords: &Keywords<'_, '_>) -> Result<Vec<NumberRule>, Unsupported> {
    let mut rules = Vec::new();
    if let Some(number) = keywords.number("multipleOf")? {
        let multiple = Multiple::read(&number).ok_or_else(|| keywords.refuse("multipleOf", "must be above 0"))?;
        rules.push(NumberRule::MultipleOf(number, multiple));
    }
    rules.extend(keywords.number("maximum")?.map(NumberRule::Maximum));
    rules.extend(keywords.number("exclusiveMaximum")?.map(NumberRule::ExclusiveMaximum));
    rules.extend(keywords.number("minimum")?.map(NumberRule::Minimum));
    rules.extend(keywords.number("exclusiveMinimum")?.map(NumberRule::ExclusiveMinimum));
    Ok(rules)
}

/// Whether the text is `[A-Za-z_][-A-Za-z0-9._]*` (core §8.2.2).
fn is_anchor(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        let code = code.bytes().all(|b| b.is_ascii_hexdigit()).then_some(code)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).ok()
}
