//! Members of others' documents that decide nothing. What has another form than the specification says counts as
//! absent, so that it does not spoil the document around it. Nothing of it is kept in memory.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Any JSON value, of which a scalar or an object is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Any<T> {
    Null,
    Text(String),
    Integer(u64),
    /// A number that is no `u64`.
    Number(f64),
    Object(T),
    True,
    /// `false` or an array.
    Other,
}

struct AnyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyVisitor<T> {
    type Value = Any<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Any<T>, E> {
        Ok(Any::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Any<T>, E> {
        Ok(if value { Any::True } else { Any::Other })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Any<T>, E> {
        Ok(Any::Integer(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Any<T>, E> {
        // serde_json gives positive numbers to `visit_u64`.
        Ok(Any::Number(-1.0))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Any<T>, E> {
        Ok(Any::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Any<T>, E> {
        Ok(Any::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Any<T>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Any::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Any<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Any::Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Any<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(AnyVisitor(PhantomData))
    }
}

/// An object of which nothing is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Unread {}

/// A value that is not an object.
type Scalar = Any<Unread>;

// For `deserialize_with`, together with `default`.

/// An object, or the default of one.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(match Any::deserialize(d)? {
        Any::Object(value) => value,
        _ => T::default(),
    })
}

pub fn text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(match Scalar::deserialize(d)? {
        Any::Text(text) => Some(text),
        _ => None,
    })
}

pub fn text_or_empty<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    text(d).map(Option::unwrap_or_default)
}

pub fn is_true<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    Ok(matches!(Scalar::deserialize(d)?, Any::True))
}

/// What stands for a text that is none. It fits nothing that a text is compared with.
const NO_TEXT: &str = "(no text)";

/// A text that is believed where it is there. `null` is none; any other value is not mistaken for an absent one.
pub fn strict_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(match Scalar::deserialize(d)? {
        Any::Null => None,
        Any::Text(text) => Some(text),
        _ => Some(NO_TEXT.to_owned()),
    })
}

/// As [`strict_text`], for a text that is empty where there is none.
pub fn strict_text_or_empty<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    strict_text(d).map(Option::unwrap_or_default)
}

/// The objects of a list, without what stands between them.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    let items = Vec::<Any<T>>::deserialize(d)?.into_iter();
    Ok(items.filter_map(|item| if let Any::Object(object) = item { Some(object) } else { None }).collect())
}

/// A number of things, such as tokens. `None`: there is none, or what is there is no such number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self(match Scalar::deserialize(d)? {
            Any::Integer(number) => Some(number),
            // Rust's conversion stops at the limits of the integer.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Any::Number(number) if number >= 0.0 => Some(number as u64),
            _ => None,
        }))
    }
}
