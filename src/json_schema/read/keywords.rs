//! The keywords of one subschema: which are known, and how the value of each is read.

use super::super::json_path::JsonPath;
use super::super::number::Num;
use super::super::{Type, Unsupported};
use serde_json::{Map, Number, Value};
use std::collections::BTreeSet;

/// The keywords that are read in `super`.
const SUPPORTED: [&str; 44] = [
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
/// Annotations whose value is a text. They have no effect.
const TEXT_ANNOTATIONS: [&str; 6] =
    ["title", "description", "format", "contentEncoding", "contentMediaType", "$comment"];
/// Annotations whose value is a boolean. They have no effect.
const FLAG_ANNOTATIONS: [&str; 3] = ["deprecated", "readOnly", "writeOnly"];
/// Keywords of the draft that are refused.
const REFUSED: [&str; 5] =
    ["$dynamicRef", "$dynamicAnchor", "$vocabulary", "unevaluatedItems", "unevaluatedProperties"];

pub fn refuse(at: &JsonPath<'_>, why: impl Into<String>) -> Unsupported {
    Unsupported { field: at.path(), why: why.into() }
}

/// The keywords of one subschema.
pub struct Keywords<'v, 'p> {
    pub map: &'v Map<String, Value>,
    pub at: &'p JsonPath<'p>,
}

impl<'v> Keywords<'v, '_> {
    pub fn refuse(&self, key: &str, why: impl Into<String>) -> Unsupported {
        refuse(&JsonPath::Name(self.at, key), why)
    }

    /// Reads the value of a keyword. Where `read` does not accept it, the schema is refused because of `why`.
    pub fn parsed<T>(
        &self,
        key: &str,
        why: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, Unsupported> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.refuse(key, why))
    }

    /// A whole number from 0 on. 2.0 is one too (core §6.3).
    pub fn count(&self, key: &str) -> Result<Option<u64>, Unsupported> {
        self.parsed(key, "must be a whole number from 0", |value| match Num::of(value.as_number()?) {
            Num::Whole(whole) => u64::try_from(whole).or_else(|e| if whole > 0 { Ok(u64::MAX) } else { Err(e) }).ok(),
            Num::Float(float) => (float > 0.0 && float.fract() == 0.0).then_some(u64::MAX),
        })
    }

    pub fn number(&self, key: &str) -> Result<Option<Number>, Unsupported> {
        self.parsed(key, "must be a number", |value| value.as_number().cloned())
    }

    pub fn text(&self, key: &str) -> Result<Option<&'v str>, Unsupported> {
        self.parsed(key, "must be a string", Value::as_str)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, Unsupported> {
        self.parsed(key, "must be true or false", Value::as_bool)
    }

    pub fn list(&self, key: &str) -> Result<Option<&'v Vec<Value>>, Unsupported> {
        self.parsed(key, "must be an array", Value::as_array)
    }

    pub fn object(&self, key: &str) -> Result<Option<&'v Map<String, Value>>, Unsupported> {
        self.parsed(key, "must be an object", Value::as_object)
    }

    /// Checks the annotations, and refuses every keyword that is not read elsewhere.
    pub fn check_names(&self) -> Result<(), Unsupported> {
        for key in self.map.keys().map(String::as_str) {
            match key {
                _ if TEXT_ANNOTATIONS.contains(&key) => drop(self.text(key)?),
                _ if FLAG_ANNOTATIONS.contains(&key) => drop(self.flag(key)?),
                "examples" => drop(self.list(key)?),
                _ if SUPPORTED.contains(&key) => (),
                _ if REFUSED.contains(&key) => return Err(self.refuse(key, "is not taken here")),
                _ => return Err(self.refuse(key, unknown_keyword(key))),
            }
        }
        Ok(())
    }
}

/// Why an unknown keyword is refused, with what to write instead of those of older drafts and other dialects.
fn unknown_keyword(key: &str) -> String {
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

/// An array of strings that are all different.
pub fn names(value: &Value) -> Option<Vec<String>> {
    let names: Vec<String> =
        value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    (names.iter().collect::<BTreeSet<_>>().len() == names.len()).then_some(names)
}

/// One type, or an array of different ones.
pub fn types(value: &Value) -> Option<Vec<Type>> {
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
