//! Reads JSON of which only the first level matters: the strings of an object are kept, and of every other value only
//! its type. So half a megabyte of nested arrays takes no more memory than it has bytes.
//!
//! `serde_json`'s `RawValue` would make this shorter, but its feature `raw_value` changes every reader of [`Value`] in
//! the crate: an object whose first member is named `$serde_json::private::RawValue` is then replaced by the JSON
//! inside that member. A contract with such a member would be another document when it is read back than when it was
//! signed.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads JSON. Arrays, and objects below the first level, become empty ones, and numbers become 0.
pub fn from_slice(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Top>(bytes).map(|top| top.0)
}

struct Top(Value);

struct Field(Value);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Reader { keep: true }).map(Top)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Reader { keep: false }).map(Field)
    }
}

struct Reader {
    /// Whether the members of an object are kept.
    keep: bool,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(0.into())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(0.into())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(0.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        if self.keep {
            while let Some((name, Field(value))) = map.next_entry::<String, Field>()? {
                fields.insert(name, value);
            }
        } else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        }
        Ok(Value::Object(fields))
    }
}
