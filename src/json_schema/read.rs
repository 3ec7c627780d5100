//! Reading a schema: every keyword is known and well-formed, every `$ref` leads to a subschema.

use super::json_path::{clip, JsonPath};
use super::number::{Multiple, Num};
use super::pattern::Pattern;
use super::{Id, ListRule, Node, NumberRule, ObjectRule, Rule, TextRule, Type, Unsupported};
use super::{MAX_BYTES, MAX_NESTING, MAX_SUBSCHEMAS};
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ptr;

/// Most states of all patterns of a schema together: some 1 MiB of memory.
const MAX_STATES: u64 = 16_384;

/// Keywords that are read below.
const CLAIMED: [&str; 44] = [
    "$schema",
    "$id",
    "$anchor",
    "$defs",
    "$ref",
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "maxContains",
    "maxItems",
    "minItems",
    "uniqueItems",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "required",
    "dependentRequired",
    "dependentSchemas",
    "maxProperties",
    "minProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
    "default",
    "examples",
    "$comment",
];
/// Annotations that are a text, and those that are a boolean. They do nothing.
const TEXTS: [&str; 6] = ["title", "description", "format", "contentEncoding", "contentMediaType", "$comment"];
const FLAGS: [&str; 3] = ["deprecated", "readOnly", "writeOnly"];
/// Keywords of the draft that are not taken.
const REFUSED: [&str; 5] =
    ["$dynamicRef", "$dynamicAnchor", "$vocabulary", "unevaluatedItems", "unevaluatedProperties"];

/// Reads a schema into nodes; the root is the first.
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

/// Whether a value has at most so many levels.
fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_shallow(item, below)),
        Value::Object(members) => members.values().all(|member| is_shallow(member, below)),
        _ => true,
    }
}

fn refuse(at: &JsonPath<'_>, why: impl Into<String>) -> Unsupported {
    Unsupported { field: at.path(), why: why.into() }
}

/// What has been read so far.
#[derive(Default)]
struct Reader<'v> {
    root: &'v Value,
    nodes: Vec<Node>,
    /// The root's `$id`.
    id: Option<&'v str>,
    /// Which node a value became, by its address: that is how a JSON pointer finds it.
    places: BTreeMap<usize, Id>,
    anchors: BTreeMap<&'v str, Id>,
    /// Each `$ref`: whose it is, what it says, and where it stands.
    refs: Vec<(Id, &'v str, String)>,
    /// Of the patterns.
    states: u64,
}

fn address(value: &Value) -> usize {
    ptr::from_ref(value) as usize
}

/// The keywords of one subschema.
struct Fields<'v, 'p> {
    map: &'v Map<String, Value>,
    at: &'p JsonPath<'p>,
}

impl<'v> Fields<'v, '_> {
    fn refuse(&self, key: &str, why: impl Into<String>) -> Unsupported {
        refuse(&JsonPath::Name(self.at, key), why)
    }

    /// Reads a value; `why` is told where `read` does not take it.
    fn parsed<T>(
        &self,
        key: &str,
        why: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, Unsupported> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.refuse(key, why))
    }

    /// A whole number of things. 2.0 is one too (core §6.3).
    fn count(&self, key: &str) -> Result<Option<u64>, Unsupported> {
        self.parsed(key, "must be a whole number from 0", |value| match Num::of(value.as_number()?) {
            Num::Whole(whole) => u64::try_from(whole).or_else(|e| if whole > 0 { Ok(u64::MAX) } else { Err(e) }).ok(),
            Num::Float(float) => (float > 0.0 && float.fract() == 0.0).then_some(u64::MAX),
        })
    }

    fn number(&self, key: &str) -> Result<Option<Number>, Unsupported> {
        self.parsed(key, "must be a number", |value| value.as_number().cloned())
    }

    fn text(&self, key: &str) -> Result<Option<&'v str>, Unsupported> {
        self.parsed(key, "must be a string", Value::as_str)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Unsupported> {
        self.parsed(key, "must be true or false", Value::as_bool)
    }

    fn list(&self, key: &str) -> Result<Option<&'v Vec<Value>>, Unsupported> {
        self.parsed(key, "must be an array", Value::as_array)
    }

    fn object(&self, key: &str) -> Result<Option<&'v Map<String, Value>>, Unsupported> {
        self.parsed(key, "must be an object", Value::as_object)
    }

    /// What there is in every subschema and does not ask anything of an instance.
    fn known(&self) -> Result<(), Unsupported> {
        for key in self.map.keys().map(String::as_str) {
            match key {
                _ if TEXTS.contains(&key) => drop(self.text(key)?),
                _ if FLAGS.contains(&key) => drop(self.flag(key)?),
                "examples" => drop(self.list(key)?),
                _ if CLAIMED.contains(&key) => (),
                _ if REFUSED.contains(&key) => return Err(self.refuse(key, "is not taken here")),
                _ => return Err(self.refuse(key, unknown(key))),
            }
        }
        Ok(())
    }
}

/// Why an unknown keyword is not taken, with what older drafts and other dialects mean by it.
fn unknown(key: &str) -> String {
    let instead = match key {
        "definitions" => "; write `$defs`",
        "dependencies" => "; write `dependentRequired` or `dependentSchemas`",
        "additionalItems" => "; write `prefixItems` and `items`",
        "nullable" => "; write `\"type\": [.., \"null\"]`",
        "id" => "; write `$id`",
        _ => "",
    };
    format!("is no keyword of draft 2020-12{instead}")
}

/// Different strings.
fn names(value: &Value) -> Option<Vec<String>> {
    let names: Vec<String> =
        value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    (names.iter().collect::<BTreeSet<_>>().len() == names.len()).then_some(names)
}

/// One type, or several different ones.
fn types(value: &Value) -> Option<Vec<Type>> {
    let one = |value: &Value| match value.as_str()? {
        "null" => Some(Type::Null),
        "boolean" => Some(Type::Boolean),
        "object" => Some(Type::Object),
        "array" => Some(Type::Array),
        "number" => Some(Type::Number),
        "integer" => Some(Type::Integer),
        "string" => Some(Type::String),
        _ => None,
    };
    match value {
        Value::Array(_) => {
            let different = names(value)?;
            let types = value.as_array()?.iter().map(one).collect::<Option<Vec<_>>>()?;
            (!different.is_empty()).then_some(types)
        }
        _ => Some(vec![one(value)?]),
    }
}

impl<'v> Reader<'v> {
    fn subschema(&mut self, value: &'v Value, at: &JsonPath<'_>) -> Result<Id, Unsupported> {
        let id = self.nodes.len();
        if id >= MAX_SUBSCHEMAS {
            return Err(refuse(at, format!("is one of more than {MAX_SUBSCHEMAS} subschemas")));
        }
        self.nodes.push(Node::default());
        self.places.insert(address(value), id);
        let rules = match value {
            Value::Bool(true) => Vec::new(),
            Value::Bool(false) => vec![Rule::Never],
            Value::Object(map) => self.keywords(id, &Fields { map, at })?,
            _ => return Err(refuse(at, "must be a schema: an object, true or false")),
        };
        if let Some(node) = self.nodes.get_mut(id) {
            node.rules = rules;
        }
        Ok(id)
    }

    /// What a subschema asks. What is cheap and plain is asked first.
    fn keywords(&mut self, id: Id, fields: &Fields<'v, '_>) -> Result<Vec<Rule>, Unsupported> {
        fields.known()?;
        self.names_of_its_own(id, fields)?;
        // Read for what a `$ref` may lead to.
        self.table(fields, "$defs")?;
        self.child(fields, "contentSchema")?;
        let mut rules = Vec::new();
        let kinds = "must be one or several different of null, boolean, object, array, number, integer, string";
        rules.extend(fields.parsed("type", kinds, types)?.map(Rule::Type));
        rules.extend(fields.map.get("const").cloned().map(Rule::Const));
        rules.extend(fields.list("enum")?.cloned().map(Rule::Enum));
        rules.extend(numbers(fields)?.into_iter().map(Rule::Number));
        rules.extend(self.texts(fields)?.into_iter().map(Rule::Text));
        rules.extend(self.lists(fields)?.into_iter().map(Rule::List));
        rules.extend(self.objects(fields)?.into_iter().map(Rule::Object));
        self.logic(fields, &mut rules)?;
        Ok(rules)
    }

    /// `$schema`, `$id`, `$anchor`, `$ref`: what it is called, and what it calls (core §8).
    fn names_of_its_own(&mut self, id: Id, fields: &Fields<'v, '_>) -> Result<(), Unsupported> {
        if let Some(dialect) = fields.text("$schema")? {
            if id > 0 || dialect.strip_suffix('#').unwrap_or(dialect) != "https://json-schema.org/draft/2020-12/schema"
            {
                return Err(fields.refuse("$schema", "must be that of draft 2020-12, and stand at the root"));
            }
        }
        if let Some(name) = fields.text("$id")? {
            let name = name.strip_suffix('#').unwrap_or(name);
            if id > 0 || name.contains('#') {
                return Err(fields.refuse("$id", "is taken at the root only, and without a fragment"));
            }
            self.id = Some(name).filter(|name| !name.is_empty());
        }
        if let Some(anchor) = fields.text("$anchor")? {
            if !is_anchor(anchor) || self.anchors.insert(anchor, id).is_some() {
                return Err(fields.refuse("$anchor", "must be a name of letters, digits, `-`, `_` and `.`, used once"));
            }
        }
        if let Some(target) = fields.text("$ref")? {
            self.refs.push((id, target, JsonPath::Name(fields.at, "$ref").path()));
        }
        Ok(())
    }

    /// Gives every `$ref` its node, now that all have been read.
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

    /// Where a `$ref` leads: `#`, `#/a/pointer` (RFC 6901) or `#anchor`, `$id` before it or not.
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
        self.places.get(&address(value)).copied().ok_or("leads to what is no subschema")
    }

    fn child(&mut self, fields: &Fields<'v, '_>, key: &'static str) -> Result<Option<Id>, Unsupported> {
        let value = fields.map.get(key);
        value.map(|value| self.subschema(value, &JsonPath::Name(fields.at, key))).transpose()
    }

    /// An array of subschemas: at least one.
    fn children(&mut self, fields: &Fields<'v, '_>, key: &'static str) -> Result<Option<Vec<Id>>, Unsupported> {
        let Some(list) = fields.list(key)? else { return Ok(None) };
        if list.is_empty() {
            return Err(fields.refuse(key, "must not be empty"));
        }
        let at = JsonPath::Name(fields.at, key);
        let ids = list.iter().enumerate().map(|(i, value)| self.subschema(value, &JsonPath::Index(&at, i)));
        ids.collect::<Result<_, _>>().map(Some)
    }

    /// An object of subschemas.
    fn table(&mut self, fields: &Fields<'v, '_>, key: &'static str) -> Result<Vec<(&'v str, Id)>, Unsupported> {
        let at = JsonPath::Name(fields.at, key);
        let table = fields.object(key)?.into_iter().flatten();
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

    fn texts(&mut self, fields: &Fields<'v, '_>) -> Result<Vec<TextRule>, Unsupported> {
        let mut rules = Vec::new();
        rules.extend(fields.count("maxLength")?.map(TextRule::MaxLength));
        rules.extend(fields.count("minLength")?.map(TextRule::MinLength));
        if let Some(source) = fields.text("pattern")? {
            rules.push(TextRule::Pattern(self.pattern(source, &JsonPath::Name(fields.at, "pattern"))?));
        }
        Ok(rules)
    }

    fn lists(&mut self, fields: &Fields<'v, '_>) -> Result<Vec<ListRule>, Unsupported> {
        let mut rules = Vec::new();
        rules.extend(fields.count("maxItems")?.map(ListRule::MaxItems));
        rules.extend(fields.count("minItems")?.map(ListRule::MinItems));
        rules.extend(fields.flag("uniqueItems")?.filter(|unique| *unique).map(|_| ListRule::Unique));
        let (prefix, rest) = (self.children(fields, "prefixItems")?, self.child(fields, "items")?);
        if prefix.is_some() || rest.is_some() {
            rules.push(ListRule::Items { prefix: prefix.unwrap_or_default(), rest });
        }
        let (min, max) = (fields.count("minContains")?, fields.count("maxContains")?);
        rules.extend(self.child(fields, "contains")?.map(|id| ListRule::Contains { id, min, max }));
        Ok(rules)
    }

    fn objects(&mut self, fields: &Fields<'v, '_>) -> Result<Vec<ObjectRule>, Unsupported> {
        const NAMES: &str = "must be an array of different strings";
        let mut rules = Vec::new();
        rules.extend(fields.count("maxProperties")?.map(ObjectRule::MaxProperties));
        rules.extend(fields.count("minProperties")?.map(ObjectRule::MinProperties));
        rules.extend(fields.parsed("required", NAMES, names)?.map(ObjectRule::Required));
        if let Some(table) = fields.object("dependentRequired")? {
            let at = JsonPath::Name(fields.at, "dependentRequired");
            let entry = |(name, value): (&String, &Value)| match names(value) {
                Some(needed) => Ok((name.clone(), needed)),
                None => Err(refuse(&JsonPath::Name(&at, name), NAMES)),
            };
            rules.push(ObjectRule::DependentRequired(table.iter().map(entry).collect::<Result<_, _>>()?));
        }
        rules.extend(self.child(fields, "propertyNames")?.map(ObjectRule::Names));
        rules.extend(self.properties(fields)?);
        let dependent = self.table(fields, "dependentSchemas")?;
        let dependent: Vec<_> = dependent.into_iter().map(|(name, id)| (name.to_owned(), id)).collect();
        rules.extend((!dependent.is_empty()).then_some(ObjectRule::DependentSchemas(dependent)));
        Ok(rules)
    }

    fn properties(&mut self, fields: &Fields<'v, '_>) -> Result<Option<ObjectRule>, Unsupported> {
        let named = self.table(fields, "properties")?;
        let named: BTreeMap<_, _> = named.into_iter().map(|(name, id)| (name.to_owned(), id)).collect();
        let at = JsonPath::Name(fields.at, "patternProperties");
        let table = self.table(fields, "patternProperties")?.into_iter();
        let patterns = table.map(|(source, id)| Ok((self.pattern(source, &JsonPath::Name(&at, source))?, id)));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let rest = self.child(fields, "additionalProperties")?;
        let asks = !named.is_empty() || !patterns.is_empty() || rest.is_some();
        Ok(asks.then_some(ObjectRule::Properties { named, patterns, rest }))
    }

    fn logic(&mut self, fields: &Fields<'v, '_>, rules: &mut Vec<Rule>) -> Result<(), Unsupported> {
        rules.extend(self.children(fields, "allOf")?.map(Rule::AllOf));
        rules.extend(self.children(fields, "anyOf")?.map(Rule::AnyOf));
        rules.extend(self.children(fields, "oneOf")?.map(Rule::OneOf));
        rules.extend(self.child(fields, "not")?.map(Rule::Not));
        let condition = self.child(fields, "if")?;
        let (then, otherwise) = (self.child(fields, "then")?, self.child(fields, "else")?);
        rules.extend(condition.map(|condition| Rule::If { condition, then, otherwise }));
        Ok(())
    }
}

fn numbers(fields: &Fields<'_, '_>) -> Result<Vec<NumberRule>, Unsupported> {
    let mut rules = Vec::new();
    if let Some(number) = fields.number("multipleOf")? {
        let multiple = Multiple::read(&number).ok_or_else(|| fields.refuse("multipleOf", "must be above 0"))?;
        rules.push(NumberRule::MultipleOf(number, multiple));
    }
    rules.extend(fields.number("maximum")?.map(NumberRule::Maximum));
    rules.extend(fields.number("exclusiveMaximum")?.map(NumberRule::ExclusiveMaximum));
    rules.extend(fields.number("minimum")?.map(NumberRule::Minimum));
    rules.extend(fields.number("exclusiveMinimum")?.map(NumberRule::ExclusiveMinimum));
    Ok(rules)
}

/// `[A-Za-z_][-A-Za-z0-9._]*` (core §8.2.2).
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
