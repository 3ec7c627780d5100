//! Checks an instance: walks through schema and instance together, and counts the steps.

mod equality;

use super::json_path::{clip, JsonPath};
use super::number::Num;
use super::{Id, ListRule, Mismatch, Node, NumberRule, ObjectRule, Rule, TextRule, Type, MAX_DEPTH, STEP_BUDGET};
use serde_json::{Map, Number, Value};
use std::cmp::Ordering;

// How many steps each operation costs. Texts cost more steps for each byte, and patterns for each visit of a state.
const SUBSCHEMA: u64 = 30;
const RULE: u64 = 10;
const LOOK_UP: u64 = 20;
const COMPARE: u64 = 10;
const HASH: u64 = 40;
const UNIQUE: u64 = 300;
const MULTIPLE: u64 = 500;
const NAME: u64 = 40;
/// The fixed part of matching a pattern.
const MATCH: u64 = 100;
/// One visit of a state while a pattern is matched.
const STATE: u64 = 8;
/// The deepest nesting of values that are compared with each other.
const MAX_COMPARED: usize = 128;

/// Why a check fails.
#[derive(Debug)]
pub struct Failure {
    pub mismatch: Mismatch,
    /// A limit was reached: the whole check fails, even inside an `anyOf` or a `not` that a mismatch would satisfy.
    is_limit: bool,
}

type Checked = Result<(), Failure>;

/// One check of an instance.
pub struct Checker<'s> {
    nodes: &'s [Node],
    pub steps_left: u64,
    depth: usize,
    /// How many of the enclosing keywords only ask whether a subschema accepts the value, so that its mismatch is not
    /// reported.
    unreported: usize,
}

impl<'s> Checker<'s> {
    pub fn new(nodes: &'s [Node]) -> Self {
        Checker { nodes, steps_left: STEP_BUDGET, depth: 0, unreported: 0 }
    }

    /// Checks a value against the subschema of the keyword `via`.
    pub fn node(&mut self, id: Id, via: &'static str, value: &Value, at: &JsonPath<'_>) -> Checked {
        self.spend(SUBSCHEMA, at)?;
        if self.depth >= MAX_DEPTH {
            let why = format!("what can be checked with at most {MAX_DEPTH} subschemas inside each other");
            return Err(limit_reached(at, why, "depth"));
        }
        let nodes = self.nodes;
        let Some(node) = nodes.get(id) else { return Err(self.schema_is_false(via, at)) };
        self.depth += 1;
        let checked = node.rules.iter().try_for_each(|rule| self.rule(rule, via, value, at));
        self.depth -= 1;
        checked
    }

    fn spend(&mut self, amount: u64, at: &JsonPath<'_>) -> Checked {
        match self.steps_left.checked_sub(amount) {
            Some(left) => {
                self.steps_left = left;
                Ok(())
            }
            None => {
                self.steps_left = 0;
                Err(limit_reached(at, "what can be checked in fewer steps".to_owned(), "fuel"))
            }
        }
    }

    /// A mismatch. Its texts are only written where it is reported.
    fn mismatch(&self, at: &JsonPath<'_>, keyword: &'static str, expected: impl FnOnce() -> String) -> Failure {
        let (field, expected) = match self.unreported {
            0 => (at.path(), expected()),
            _ => (String::new(), String::new()),
        };
        Failure { mismatch: Mismatch { field, expected, keyword }, is_limit: false }
    }

    fn schema_is_false(&self, via: &'static str, at: &JsonPath<'_>) -> Failure {
        self.mismatch(at, via, || match via {
            "properties" | "patternProperties" | "additionalProperties" => "no such property".to_owned(),
            "prefixItems" | "items" => "no such item".to_owned(),
            _ => "nothing: the schema there is `false`".to_owned(),
        })
    }

    /// Whether a subschema accepts a value.
    fn accepts(&mut self, id: Id, value: &Value, at: &JsonPath<'_>) -> Result<bool, Failure> {
        self.unreported += 1;
        let checked = self.node(id, "", value, at);
        self.unreported -= 1;
        match checked {
            Err(failure) if failure.is_limit => Err(failure),
            checked => Ok(checked.is_ok()),
        }
    }

    fn rule(&mut self, rule: &Rule, via: &'static str, value: &Value, at: &JsonPath<'_>) -> Checked {
        self.spend(RULE, at)?;
        match (rule, value) {
            (Rule::Never, _) => Err(self.schema_is_false(via, at)),
            (Rule::Ref(id), _) => self.node(*id, "$ref", value, at),
            (Rule::Type(types), _) => self.types(types, value, at),
            (Rule::Const(only), _) => match self.same(only, value, MAX_COMPARED, at)? {
                true => Ok(()),
                false => Err(self.mismatch(at, "const", || listed(std::slice::from_ref(only)))),
            },
            (Rule::Enum(values), _) => self.one_of_values(values, value, at),
            (Rule::Number(rule), Value::Number(number)) => self.number(rule, number, at),
            (Rule::Text(rule), Value::String(text)) => self.text(rule, text, at),
            (Rule::List(rule), Value::Array(items)) => self.list(rule, items, at),
            (Rule::Object(rule), Value::Object(members)) => self.object(rule, members, value, at),
            (Rule::Number(_) | Rule::Text(_) | Rule::List(_) | Rule::Object(_), _) => Ok(()),
            _ => self.logic(rule, value, at),
        }
    }

    fn types(&mut self, types: &[Type], value: &Value, at: &JsonPath<'_>) -> Checked {
        match types.iter().any(|kind| is_type(*kind, value)) {
            true => Ok(()),
            false => {
                Err(self.mismatch(at, "type", || types.iter().map(|t| type_name(*t)).collect::<Vec<_>>().join(" or ")))
            }
        }
    }

    fn one_of_values(&mut self, values: &[Value], value: &Value, at: &JsonPath<'_>) -> Checked {
        for one in values {
            if self.same(one, value, MAX_COMPARED, at)? {
                return Ok(());
            }
        }
        Err(self.mismatch(at, "enum", || listed(values)))
    }

    fn number(&mut self, rule: &NumberRule, number: &Number, at: &JsonPath<'_>) -> Checked {
        let than = |limit: &Number| Num::of(number).compare(Num::of(limit));
        let (holds, keyword, relation, limit) = match rule {
            NumberRule::MultipleOf(shown, multiple) => {
                self.spend(MULTIPLE, at)?;
                (multiple.divides(number), "multipleOf", "a multiple of", shown)
            }
            NumberRule::Maximum(limit) => (than(limit) != Ordering::Greater, "maximum", "at most", limit),
            NumberRule::ExclusiveMaximum(limit) => (than(limit) == Ordering::Less, "exclusiveMaximum", "below", limit),
            NumberRule::Minimum(limit) => (than(limit) != Ordering::Less, "minimum", "at least", limit),
            NumberRule::ExclusiveMinimum(limit) => {
                (than(limit) == Ordering::Greater, "exclusiveMinimum", "above", limit)
            }
        };
        holds.then_some(()).ok_or_else(|| self.mismatch(at, keyword, || format!("{relation} {limit}")))
    }

    fn text(&mut self, rule: &TextRule, text: &str, at: &JsonPath<'_>) -> Checked {
        self.spend(text.len() as u64 / 2, at)?;
        let length = || text.chars().count() as u64;
        match rule {
            TextRule::MaxLength(max) => self.bound(length() <= *max, "maxLength", "at most", *max, "character", at),
            TextRule::MinLength(least) => {
                self.bound(length() >= *least, "minLength", "at least", *least, "character", at)
            }
            TextRule::Pattern(pattern) => {
                self.spend(pattern.cost(text).saturating_mul(STATE).saturating_add(MATCH), at)?;
                let expected = || format!("text that matches `{}`", pattern.shown());
                pattern.matches(text).then_some(()).ok_or_else(|| self.mismatch(at, "pattern", expected))
            }
        }
    }

    /// Checks a count against a limit.
    fn bound(
        &self,
        holds: bool,
        keyword: &'static str,
        relation: &str,
        n: u64,
        of: &str,
        at: &JsonPath<'_>,
    ) -> Checked {
        holds.then_some(()).ok_or_else(|| self.mismatch(at, keyword, || format!("{relation} {}", counted(n, of))))
    }

    fn list(&mut self, rule: &ListRule, items: &[Value], at: &JsonPath<'_>) -> Checked {
        let length = items.len() as u64;
        match rule {
            ListRule::MaxItems(max) => self.bound(length <= *max, "maxItems", "at most", *max, "item", at),
            ListRule::MinItems(least) => self.bound(length >= *least, "minItems", "at least", *least, "item", at),
            ListRule::Unique => self.unique(items, at),
            ListRule::Items { prefix, rest } => {
                let first = prefix.iter().map(|id| (*id, "prefixItems"));
                let rest = rest.iter().flat_map(|id| std::iter::repeat((*id, "items")));
                let mut pairs = items.iter().enumerate().zip(first.chain(rest));
                pairs.try_for_each(|((i, item), (id, via))| self.node(id, via, item, &JsonPath::Index(at, i)))
            }
            ListRule::Contains { id, min, max } => self.contains(*id, *min, *max, items, at),
        }
    }

    fn contains(&mut self, id: Id, min: Option<u64>, max: Option<u64>, items: &[Value], at: &JsonPath<'_>) -> Checked {
        let least = min.unwrap_or(1);
        let enough = max.map_or(least, |max| max.saturating_add(1));
        let mut found = 0;
        for (i, item) in items.iter().enumerate() {
            if found >= enough && found >= least {
                break;
            }
            found += u64::from(self.accepts(id, item, &JsonPath::Index(at, i))?);
        }
        let named = |n| format!("{} of the kind that `contains` describes", counted(n, "item"));
        if found < least {
            let keyword = if min.is_some() { "minContains" } else { "contains" };
            return Err(self.mismatch(at, keyword, || format!("at least {}", named(least))));
        }
        match max.filter(|max| found > *max) {
            Some(max) => Err(self.mismatch(at, "maxContains", || format!("at most {}", named(max)))),
            None => Ok(()),
        }
    }

    fn member<'v>(
        &mut self,
        members: &'v Map<String, Value>,
        name: &str,
        at: &JsonPath<'_>,
    ) -> Result<Option<&'v Value>, Failure> {
        self.spend(look_up(name), at)?;
        Ok(members.get(name))
    }

    fn object(&mut self, rule: &ObjectRule, members: &Map<String, Value>, value: &Value, at: &JsonPath<'_>) -> Checked {
        let length = members.len() as u64;
        match rule {
            ObjectRule::MaxProperties(max) => {
                self.bound(length <= *max, "maxProperties", "at most", *max, "property", at)
            }
            ObjectRule::MinProperties(least) => {
                self.bound(length >= *least, "minProperties", "at least", *least, "property", at)
            }
            ObjectRule::Required(names) => self.required(names, None, members, at),
            ObjectRule::DependentRequired(table) => {
                table.iter().try_for_each(|(name, needed)| match self.member(members, name, at)? {
                    Some(_) => self.required(needed, Some(name), members, at),
                    None => Ok(()),
                })
            }
            ObjectRule::Names(id) => members.keys().try_for_each(|name| self.name(*id, name, at)),
            ObjectRule::Properties { .. } => self.properties(rule, members, at),
            ObjectRule::DependentSchemas(table) => {
                table.iter().try_for_each(|(name, id)| match self.member(members, name, at)? {
                    Some(_) => self.node(*id, "dependentSchemas", value, at),
                    None => Ok(()),
                })
            }
        }
    }

    fn required(
        &mut self,
        names: &[String],
        because: Option<&str>,
        members: &Map<String, Value>,
        at: &JsonPath<'_>,
    ) -> Checked {
        for name in names {
            if self.member(members, name, at)?.is_some() {
                continue;
            }
            let place = JsonPath::Name(at, name);
            return Err(match because {
                None => self.mismatch(&place, "required", || "to be there".to_owned()),
                Some(other) => {
                    let expected = || format!("to be there, since `{}` is", clip(other, 64));
                    self.mismatch(&place, "dependentRequired", expected)
                }
            });
        }
        Ok(())
    }

    fn name(&mut self, id: Id, name: &str, at: &JsonPath<'_>) -> Checked {
        self.spend(NAME + name.len() as u64 / 2, at)?;
        let checked = self.node(id, "propertyNames", &Value::String(name.to_owned()), &JsonPath::Name(at, name));
        checked.map_err(|mut failure| {
            if !failure.is_limit && failure.mismatch.keyword != "propertyNames" {
                failure.mismatch.expected.insert_str(0, "as its name: ");
                failure.mismatch.keyword = "propertyNames";
            }
            failure
        })
    }

    fn properties(&mut self, rule: &ObjectRule, members: &Map<String, Value>, at: &JsonPath<'_>) -> Checked {
        let ObjectRule::Properties { named, patterns, rest } = rule else { return Ok(()) };
        for (name, value) in members {
            let place = JsonPath::Name(at, name);
            self.spend(look_up(name), at)?;
            let own = named.get(name);
            own.map_or(Ok(()), |id| self.node(*id, "properties", value, &place))?;
            let mut is_known = own.is_some();
            for (pattern, id) in patterns {
                self.spend(pattern.cost(name).saturating_mul(STATE).saturating_add(MATCH), &place)?;
                if pattern.matches(name) {
                    is_known = true;
                    self.node(*id, "patternProperties", value, &place)?;
                }
            }
            if let Some(id) = rest.filter(|_| !is_known) {
                self.node(id, "additionalProperties", value, &place)?;
            }
        }
        Ok(())
    }

    fn logic(&mut self, rule: &Rule, value: &Value, at: &JsonPath<'_>) -> Checked {
        match rule {
            Rule::AllOf(ids) => ids.iter().try_for_each(|id| self.node(*id, "allOf", value, at)),
            Rule::AnyOf(ids) => {
                for id in ids {
                    if self.accepts(*id, value, at)? {
                        return Ok(());
                    }
                }
                Err(self.mismatch(at, "anyOf", || {
                    format!("what fits at least one of {}", counted(ids.len() as u64, "alternative"))
                }))
            }
            Rule::OneOf(ids) => self.one_of(ids, value, at),
            Rule::Not(id) => match self.accepts(*id, value, at)? {
                true => Err(self.mismatch(at, "not", || "anything but what `not` describes".to_owned())),
                false => Ok(()),
            },
            Rule::If { condition, then, otherwise } => {
                let (next, via) = match self.accepts(*condition, value, at)? {
                    true => (then, "then"),
                    false => (otherwise, "else"),
                };
                next.map_or(Ok(()), |id| self.node(id, via, value, at))
            }
            _ => Ok(()),
        }
    }

    fn one_of(&mut self, ids: &[Id], value: &Value, at: &JsonPath<'_>) -> Checked {
        let mut fit = None;
        for (i, id) in ids.iter().enumerate() {
            if !self.accepts(*id, value, at)? {
                continue;
            }
            if let Some(first) = fit.replace(i) {
                let expected = || format!("what fits exactly one alternative, not both [{first}] and [{i}]");
                return Err(self.mismatch(at, "oneOf", expected));
            }
        }
        let expected = || format!("what fits exactly one of {}", counted(ids.len() as u64, "alternative"));
        fit.map(|_| ()).ok_or_else(|| self.mismatch(at, "oneOf", expected))
    }
}

/// The steps of looking up a name: it is compared with several others, which may begin as it does.
fn look_up(name: &str) -> u64 {
    LOOK_UP + name.len() as u64 * 4
}

fn limit_reached(at: &JsonPath<'_>, expected: String, keyword: &'static str) -> Failure {
    Failure { mismatch: Mismatch { field: at.path(), expected, keyword }, is_limit: true }
}

fn is_type(kind: Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::Integer, Value::Number(number)) => Num::of(number).is_whole(),
        (Type::Null, Value::Null)
        | (Type::Boolean, Value::Bool(_))
        | (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::Number, Value::Number(_))
        | (Type::String, Value::String(_)) => true,
        _ => false,
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Null => "null",
        Type::Boolean => "true or false",
        Type::Object => "an object",
        Type::Array => "an array",
        Type::Number => "a number",
        Type::Integer => "a whole number",
        Type::String => "a string",
    }
}

/// The first few values, for a message.
fn listed(values: &[Value]) -> String {
    const SHOWN: usize = 20;
    let shown = values.iter().take(SHOWN).map(|value| clip(&value.to_string(), 64)).collect::<Vec<_>>().join(", ");
    match values.len() {
        0 => "nothing: `enum` is empty".to_owned(),
        1 => shown,
        2..=SHOWN => format!("one of: {shown}"),
        more => format!("one of: {shown}, and {} more", more - SHOWN),
    }
}

fn counted(n: u64, of: &str) -> String {
    match (n, of) {
        (1, _) => format!("1 {of}"),
        (_, "property") => format!("{n} properties"),
        _ => format!("{n} {of}s"),
    }
}
