//! How much of a result's JSON Schema Claude is shown. The answer is checked against all of it in any case.
//!
//! A capability's schema is its creator's own text. A seeker's schema is a stranger's: a description in it would be a
//! message to Claude, also where the template takes none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much of a schema Claude is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownSchema {
    /// The capability's own schema is shown as it is.
    Whole,
    /// A seeker's, of a template that takes user messages: without its annotations.
    WithoutProse,
    /// A seeker's, of a template that takes none: structure, names, and values that are no texts.
    #[default]
    NamesOnly,
}

/// The longest name that is shown, in characters.
const MAX_NAME: usize = 40;
/// The most names and values that are shown of one schema.
const MAX_NAMES: usize = 200;
/// How long they may be together, in characters: many short names are a message too.
const MAX_TOTAL: usize = 500;
/// Keywords that bound a value by a number, or a boolean.
pub(super) const BOUNDS: [&str; 12] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];
/// Keywords whose value is a subschema.
const ONE_SCHEMA: [&str; 8] =
    ["items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"];
/// Keywords whose value is a list of subschemas.
const SCHEMAS: [&str; 4] = ["prefixItems", "allOf", "anyOf", "oneOf"];
/// Keywords whose value has a subschema for each name.
const NAMED_SCHEMAS: [&str; 3] = ["properties", "dependentSchemas", "$defs"];
/// The formats of draft 2020-12.
const FORMATS: [&str; 19] = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "idn-email",
    "hostname",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "iri",
    "iri-reference",
    "uuid",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
    "regex",
];

impl ShownSchema {
    /// `is_own`: the schema is the capability's.
    pub const fn of(is_own: bool, allow_user_message: bool) -> Self {
        match (is_own, allow_user_message) {
            (true, _) => Self::Whole,
            (false, true) => Self::WithoutProse,
            (false, false) => Self::NamesOnly,
        }
    }

    /// The part of the schema that is shown; `None` where a seeker's schema has more or longer names than are shown.
    pub fn part_of(self, schema: &Value) -> Option<Value> {
        if self == Self::Whole {
            return Some(schema.clone());
        }
        let mut reader = Reader { any_text: self == Self::WithoutProse, names: 0, total: 0 };
        let shown = reader.schema(schema);
        let is_short = reader.names <= MAX_NAMES && reader.total <= MAX_TOTAL;
        (reader.any_text || is_short).then_some(shown)
    }
}

/// Reads a seeker's schema. The recursion is bounded, because a contract's schema was read when it was registered.
struct Reader {
    /// Names and values may be any text: the seeker may write one anyway.
    any_text: bool,
    /// How many names and values were shown.
    names: usize,
    /// How long they are together, in characters.
    total: usize,
}

impl Reader {
    fn schema(&mut self, schema: &Value) -> Value {
        let Value::Object(members) = schema else { return Value::Bool(schema != &Value::Bool(false)) };
        let shown = members.iter().filter_map(|(keyword, value)| {
            let shown = match keyword.as_str() {
                "required" => self.required(value, members.get("properties")),
                _ => self.member(keyword, value)?,
            };
            Some((keyword.clone(), shown))
        });
        Value::Object(shown.collect())
    }

    /// The value of one keyword as it is shown. Keywords that are not named here are annotations, or hold a text.
    fn member(&mut self, keyword: &str, value: &Value) -> Option<Value> {
        let is_bound = BOUNDS.contains(&keyword) || matches!(keyword, "minContains" | "maxContains");
        match keyword {
            _ if is_bound && (value.is_number() || value.is_boolean()) => Some(value.clone()),
            // A schema with another type than the draft's could not be registered.
            "type" => Some(value.clone()),
            "dependentRequired" => Some(self.named(value, Self::name_list)),
            "enum" => value.as_array()?.iter().all(|value| self.is_value(value)).then(|| value.clone()),
            "const" => self.is_value(value).then(|| value.clone()),
            "format" => FORMATS.iter().any(|format| value == format).then(|| value.clone()),
            "$ref" | "$anchor" => {
                let text = value.as_str()?.trim_start_matches('#').trim_start_matches('/');
                text.split('/').all(|part| part.is_empty() || self.is_name(part)).then(|| value.clone())
            }
            "pattern" => self.any_text.then(|| value.clone()),
            "patternProperties" if self.any_text => Some(self.named(value, Self::schema)),
            _ if ONE_SCHEMA.contains(&keyword) => Some(self.schema(value)),
            _ if SCHEMAS.contains(&keyword) => Some(value.as_array()?.iter().map(|value| self.schema(value)).collect()),
            _ if NAMED_SCHEMAS.contains(&keyword) => Some(self.named(value, Self::schema)),
            _ => None,
        }
    }

    fn named(&mut self, value: &Value, mut shown: impl FnMut(&mut Self, &Value) -> Value) -> Value {
        let mut named = Map::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            if self.is_name(name) {
                named.insert(name.clone(), shown(self, value));
            }
        }
        Value::Object(named)
    }

    /// Names of the same schema's properties come in the order of those, once each: so they add nothing to what is shown
    /// there, and are not counted twice.
    fn required(&mut self, names: &Value, properties: Option<&Value>) -> Value {
        if self.any_text {
            return self.name_list(names);
        }
        let properties = properties.and_then(Value::as_object);
        let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let of_properties = properties.into_iter().flat_map(Map::keys).filter(|name| names.contains(&name.as_str()));
        let of_properties = of_properties.filter(|name| is_plain(name)).map(|name| Value::from(name.as_str()));
        let mut shown: Vec<Value> = of_properties.collect();
        let others = names.iter().filter(|name| properties.is_none_or(|properties| !properties.contains_key(**name)));
        shown.extend(others.filter(|name| self.is_name(name)).map(|name| Value::from(*name)));
        Value::from(shown)
    }

    fn name_list(&mut self, names: &Value) -> Value {
        let names = names.as_array().into_iter().flatten();
        names.filter(|name| name.as_str().is_some_and(|name| self.is_name(name))).cloned().collect()
    }

    /// Whether a value of `enum` or `const` can be shown: a number, a boolean or null. A list of texts would be a message.
    fn is_value(&mut self, value: &Value) -> bool {
        match value {
            Value::String(_) | Value::Array(_) | Value::Object(_) => self.any_text,
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.count(value.to_string().len());
                true
            }
        }
    }

    /// Whether a text can be shown as a name.
    fn is_name(&mut self, text: &str) -> bool {
        if self.any_text {
            return true;
        }
        let is_shown = is_plain(text);
        if is_shown {
            self.count(text.chars().count());
        }
        is_shown
    }

    fn count(&mut self, length: usize) {
        self.names = self.names.saturating_add(1);
        self.total = self.total.saturating_add(length);
    }
}

/// Whether a text could be a name: it is short and has no blanks.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '@' | '+');
    text.chars().count() <= MAX_NAME && text.chars().all(plain)
}
