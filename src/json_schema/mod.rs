//! JSON Schema, draft 2020-12, for schemas and instances that strangers choose. `format` and the `content*` keywords
//! are annotations, which is the draft's default. References within the schema are followed, others are not.
//!
//! A keyword that is not understood is refused by its name when the schema is read, because a typo must not turn a
//! check off. A check that takes too long is a mismatch by its own name: all of its work is counted in steps against
//! one budget, so that no schema can block the isolate for others.

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

/// The longest schema, in bytes of compact JSON.
pub const MAX_BYTES: usize = 64 * 1024;
/// The deepest schema, in JSON values inside each other.
pub const MAX_NESTING: usize = 64;
/// The most subschemas of a schema, the root and booleans included.
pub const MAX_SUBSCHEMAS: usize = 2_000;
/// The deepest check, in subschemas inside each other, `$ref` included. (The stack is 1 MiB.)
pub const MAX_DEPTH: usize = 128;
/// The steps of one check: at worst some 50 ms in wasm on a desktop processor.
pub const STEP_BUDGET: u64 = 30_000_000;

/// A schema that has been read and can be checked against.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The subschemas, of which the first is the root.
    nodes: Vec<Node>,
}

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The place in the schema, such as `properties.score.pattern`; empty for the whole schema.
    pub field: String,
    /// The reason, for people.
    pub why: String,
}

/// Where an instance does not satisfy a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The place in the instance, such as `colors[0]`; empty for the whole instance. A property that is missing is
    /// named at the place where it should be.
    pub field: String,
    /// What the schema expects there, for people, such as `a string` or `at most 10`.
    pub expected: String,
    /// The keyword that is not satisfied; `fuel` where the steps did not suffice, `depth` where the check went too
    /// deep.
    pub keyword: &'static str,
}

impl Schema {
    /// Reads a schema. Whatever is not refused here is checked as the draft says.
    pub fn read(schema: &Value) -> Result<Schema, Unsupported> {
        read::read(schema).map(|nodes| Schema { nodes })
    }

    /// Checks an instance, and returns the first mismatch, which is the same one each time.
    pub fn check(&self, instance: &Value) -> Result<(), Mismatch> {
        let mut checker = Checker::new(&self.nodes);
        checker.node(0, "false", instance, &JsonPath::Root).map_err(|failure| failure.mismatch)
    }

    /// How many steps of [`STEP_BUDGET`] the check of an instance takes; all of them where they do not suffice.
    #[cfg(feature = "testing")]
    pub fn steps_for(&self, instance: &Value) -> u64 {
        let mut checker = Checker::new(&self.nodes);
        let _ = checker.node(0, "false", instance, &JsonPath::Root);
        STEP_BUDGET - checker.steps_left
    }
}

/// A subschema's index in the list of nodes.
type Id = usize;

/// A subschema: its rules, in the order in which they are checked.
#[derive(Clone, Debug, Default)]
struct Node {
    rules: Vec<Rule>,
}

/// The rule of one keyword, or of several that belong together.
#[derive(Clone, Debug)]
enum Rule {
    /// The schema `false`, which accepts nothing.
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

/// A rule for numbers.
#[derive(Clone, Debug)]
enum NumberRule {
    MultipleOf(Number, Multiple),
    Maximum(Number),
    ExclusiveMaximum(Number),
    Minimum(Number),
    ExclusiveMinimum(Number),
}

/// A rule for strings. Lengths count code points.
#[derive(Clone, Debug)]
enum TextRule {
    MaxLength(u64),
    MinLength(u64),
    Pattern(Pattern),
}

/// A rule for arrays.
#[derive(Clone, Debug)]
enum ListRule {
    MaxItems(u64),
    MinItems(u64),
    Unique,
    Items { prefix: Vec<Id>, rest: Option<Id> },
    Contains { id: Id, min: Option<u64>, max: Option<u64> },
}

/// A rule for objects.
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

/// A value of the keyword `type`.
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
