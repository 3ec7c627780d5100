//! Reads JSON that is signed or hashed. Each name may occur once in an object, and a whole number must fit into a
//! double exactly (I-JSON, which RFC 8785 asks for). The number of values is limited too, because `[[],[],…` takes a
//! hundred times its size in memory.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// The most values of a document.
const MAX_VALUES: usize = 20_000;
/// The deepest nesting of a document. It is less than the 128 of `serde_json`, because other documents contain this
/// one.
const MAX_DEPTH: usize = 96;
/// The largest whole number that every reader of JSON reads as the same number (RFC 7493, 2.2).
const MAX_EXACT: u64 = (1 << 53) - 1;
const TOO_LARGE: &str = "a whole number beyond 2^53, which belongs into a string";

/// Reads JSON. The error says what is wrong, and where.
pub fn from_slice(bytes: &[u8]) -> serde_json::Result<Value> {
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { left: &left, depth: 0 }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    left: &'a Cell<usize>,
    depth: usize,
}

impl Reader<'_> {
    /// The reader of the values inside this one.
    fn nested<E: Error>(self) -> Result<Self, E> {
        match self.depth < MAX_DEPTH {
            true => Ok(Self { depth: self.depth + 1, ..self }),
            false => Err(E::custom("too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
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

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        match value.unsigned_abs() <= MAX_EXACT {
            true => Ok(value.into()),
            false => Err(E::custom(TOO_LARGE)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        match value <= MAX_EXACT {
            true => Ok(value.into()),
            false => Err(E::custom(TOO_LARGE)),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let (mut values, nested) = (Vec::new(), self.nested()?);
        while let Some(value) = seq.next_element_seed(nested)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut fields, nested) = (Map::new(), self.nested()?);
        while let Some(Name(name)) = map.next_key()? {
            let value = map.next_value_seed(nested)?;
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(fields))
    }
}

struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once() {
        assert!(from_slice(br#"{"a":1,"b":{"a":1}}"#).is_ok());
        let error = from_slice(br#"{"b":{"a":1,"a":1}}"#).unwrap_err().to_string();
        assert!(error.contains("stands twice"), "{error}");
    }

    #[test]
    fn the_depth_of_a_document_is_limited() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(from_slice(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert!(from_slice(deep(MAX_DEPTH + 1).as_bytes()).is_err());
    }

    #[test]
    fn the_number_of_values_is_limited() {
        let arrays = |n: usize| format!("[{}]", vec!["[]"; n].join(","));
        assert!(from_slice(arrays(MAX_VALUES - 1).as_bytes()).is_ok());
        assert!(from_slice(arrays(MAX_VALUES).as_bytes()).is_err());
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in [r#"{"a":[1,-2,3.5,1e-300,true,null,"x\u00e9"],"b":{}}"#, "0.1", "9007199254740991", "-1e2"] {
            assert_eq!(from_slice(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
        for text in ["", "{} {}", "nul", "[1,]", "1e999", "9007199254740993", "-9007199254740993"] {
            assert!(from_slice(text.as_bytes()).is_err(), "{text}");
        }
    }
}
