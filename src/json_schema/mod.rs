//! JSON Schema, draft 2020-12, for schemas and instances that strangers choose. `format` and the `content*`
//! keywords are annotations, as is the draft's default; of references, those within the schema are followed.
//!
//! What is not understood is refused when a schema is read, by its name: a typo in a keyword must not turn a
//! check off. What takes too long is a mismatch, by its name: everything that is done for a check is paid for
//! from one purse of fuel, so that nobody's schema can hold up the isolate that others share.

mod check;
mod json_path;
mod number;
mod pattern;
mod read;

use check::Checker;
use json_path::JsonPath;
use number::Multiple;
use pattern::Pattern;
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// Longest schema, in bytes of compact JSON.
pub const MAX_BYTES: usize = 64 * 1024;
/// Deepest schema, in JSON values inside each other.
pub const MAX_NESTING: usize = 64;
/// Most subschemas, the root and booleans included.
pub const MAX_SUBSCHEMAS: usize = 2_000;
/// How deep a check goes: subschemas inside each other, `$ref` included. The stack is 1 MiB.
pub const MAX_DEPTH: usize = 128;
/// What one check may do: at worst some 50 ms in wasm on a desktop processor.
pub const FUEL: u64 = 30_000_000;

/// A schema that has been read and can be checked against.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The root is the first.
    nodes: Vec<Node>,
}

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Where: `properties.score.pattern`; empty for the whole.
    pub field: String,
    /// Why, for people.
    pub why: String,
}

/// Where an instance does not satisfy a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where: `colors[0]`; empty for the whole. Of a property that is missing: where it should be.
    pub field: String,
    /// What the schema expects there, for people: `a string`, `at most 10`.
    pub expected: String,
    /// The keyword that says so; `fuel` or `depth` where the check was given up.
    pub keyword: &'static str,
}

impl Schema {
    /// Reads a schema. Whatever this takes is checked as the draft says.
    pub fn read(schema: &Value) -> Result<Schema, Unsupported> {
        read::read(schema).map(|nodes| Schema { nodes })
    }

    /// Checks an instance. The first mismatch is told; the same one each time.
    pub fn check(&self, instance: &Value) -> Result<(), Mismatch> {
        let mut checker = Checker::new(&self.nodes);
        checker.node(0, "false", instance, &JsonPath::Root).map_err(|fault| fault.mismatch)
    }

    /// What checking an instance uses up of [`FUEL`]; all of it where it does not suffice.
    #[cfg(feature = "testing")]
    pub fn fuel_for(&self, instance: &Value) -> u64 {
        let mut checker = Checker::new(&self.nodes);
        let _ = checker.node(0, "false", instance, &JsonPath::Root);
        FUEL - checker.fuel
    }
}

/// A subschema's place among the nodes.
type Id = usize;

/// A subschema: what it asks, in the order in which it is checked.
#[derive(Clone, Debug, Default)]
struct Node {
    rules: Vec<Rule>,
}

/// What one keyword asks, or several that belong together.
#[derive(Clone, Debug)]
enum Rule {
    /// The schema `false`.
    Never,
    Ref(Id),
    Type(Vec<Type>),
    Const(Value),
    Enum(Vec<Value>),
    Number(NumberRule),
    Text(TextRule),
    List(ListRule),
    Object(ObjectRule),
    AllOf(Vec<Id>),
    AnyOf(Vec<Id>),
    OneOf(Vec<Id>),
    Not(Id),
    If {
        condition: Id,
        then: Option<Id>,
        otherwise: Option<Id>,
    },
}

/// Of numbers only.
#[derive(Clone, Debug)]
enum NumberRule {
    MultipleOf(Number, Multiple),
    Maximum(Number),
    ExclusiveMaximum(Number),
    Minimum(Number),
    ExclusiveMinimum(Number),
}

/// Of strings only. Lengths in code points.
#[derive(Clone, Debug)]
enum TextRule {
    MaxLength(u64),
    MinLength(u64),
    Pattern(Pattern),
}

/// Of arrays only.
#[derive(Clone, Debug)]
enum ListRule {
    MaxItems(u64),
    MinItems(u64),
    Unique,
    Items { prefix: Vec<Id>, rest: Option<Id> },
    Contains { id: Id, min: Option<u64>, max: Option<u64> },
}

/// Of objects only.
#[derive(Clone, Debug)]
enum ObjectRule {
    MaxProperties(u64),
    MinProperties(u64),
    Required(Vec<String>),
    DependentRequired(Vec<(String, Vec<String>)>),
    Names(Id),
    Properties { named: BTreeMap<String, Id>, patterns: Vec<(Pattern, Id)>, rest: Option<Id> },
    DependentSchemas(Vec<(String, Id)>),
}

/// The values of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Null,
    Boolean,
    Object,
    Array,
    Number,
    Integer,
    String,
}
