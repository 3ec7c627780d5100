//! Equality of JSON values, and `uniqueItems`, which needs it most.

use super::super::json_path::JsonPath;
use super::super::number::Num;
use super::{limit_reached, Checked, Checker, Failure, COMPARE, HASH, MAX_COMPARED, UNIQUE};
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

impl Checker<'_> {
    /// Items that are equal have equal hashes, so only items with equal hashes are compared. Each comparison costs
    /// steps, which also bounds the work where somebody makes the hashes collide.
    pub(super) fn unique(&mut self, items: &[Value], at: &JsonPath<'_>) -> Checked {
        let mut seen: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let here = JsonPath::Index(at, i);
            self.spend(UNIQUE, &here)?;
            let mut hasher = DefaultHasher::new();
            self.hash(item, &mut hasher, MAX_COMPARED, &here)?;
            let same_hash = seen.entry(hasher.finish()).or_default();
            for other in same_hash.iter() {
                if self.same(items.get(*other).unwrap_or(&Value::Null), item, MAX_COMPARED, &here)? {
                    return Err(
                        self.mismatch(&here, "uniqueItems", || format!("an item that differs from item [{other}]"))
                    );
                }
            }
            same_hash.push(i);
        }
        Ok(())
    }

    fn hash(&mut self, value: &Value, hasher: &mut DefaultHasher, levels: usize, at: &JsonPath<'_>) -> Checked {
        let below = self.below(levels, at)?;
        self.spend(HASH, at)?;
        match value {
            Value::Null => hasher.write_u8(0),
            Value::Bool(truth) => truth.hash(hasher),
            Value::Number(number) => match Num::of(number) {
                Num::Whole(whole) => whole.hash(hasher),
                Num::Float(float) => float.to_bits().hash(hasher),
            },
            Value::String(text) => {
                self.spend(text.len() as u64, at)?;
                text.hash(hasher);
            }
            Value::Array(items) => {
                items.len().hash(hasher);
                items.iter().try_for_each(|item| self.hash(item, hasher, below, at))?;
            }
            Value::Object(members) => {
                // The map keeps its members in the order of their names.
                for (name, member) in members {
                    self.spend(name.len() as u64, at)?;
                    name.hash(hasher);
                    self.hash(member, hasher, below, at)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the steps of comparing one value. Returns how many levels may be below it.
    fn below(&mut self, levels: usize, at: &JsonPath<'_>) -> Result<usize, Failure> {
        self.spend(COMPARE, at)?;
        let why = || format!("what has at most {MAX_COMPARED} levels where it is compared");
        levels.checked_sub(1).ok_or_else(|| limit_reached(at, why(), "depth"))
    }

    /// Whether two values are equal (draft 2020-12, core §4.2.2).
    pub(super) fn same(&mut self, a: &Value, b: &Value, levels: usize, at: &JsonPath<'_>) -> Result<bool, Failure> {
        let below = self.below(levels, at)?;
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => Ok(Num::of(a) == Num::of(b)),
            (Value::String(a), Value::String(b)) => {
                self.spend(a.len().min(b.len()) as u64, at)?;
                Ok(a == b)
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (a, b) in a.iter().zip(b) {
                    if !self.same(a, b, below, at)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
                for (name, a) in a {
                    let Some(b) = self.member(b, name, at)? else { return Ok(false) };
                    if !self.same(a, b, below, at)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Null, Value::Null) => Ok(true),
            (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
            _ => Ok(false),
        }
    }
}
