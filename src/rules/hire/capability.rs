//! Capabilities: a template as the worker agent of its creator offers it.

use crate::rules::hire::output::{FileSpec, OutputType};
use crate::rules::refusal::{ContractError, Refusal};
use crate::rules::template::{Template, USER_MESSAGE};
use crate::wire::canonical::sha256_hex;
use crate::wire::evm::Address;
use crate::wire::hire::Task;
use serde_json::{json, Map, Value};

/// The id of the agent that offers the capabilities of all creators of a deployment.
pub const PLATFORM_AGENT: &str = "agent_coinslot";

/// A creator as a worker agent of HIRE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub id: String,
    /// The wallet that is paid, and whose key signs contracts.
    pub wallet: Address,
}

/// A template that can be hired.
#[derive(Clone, Debug)]
pub struct Capability {
    /// Without its prompt, which no listing reads.
    pub template: Template,
    /// The creator's name in paths: `alice` of `/@alice/haiku`.
    pub handle: String,
    /// The template's name in paths: `haiku` of `/@alice/haiku`.
    pub slug: String,
    pub agent: Agent,
    /// The only output type of its results; `None`: text, or what the contract asks for.
    pub output: Option<OutputType>,
    /// JSON Schema that every result satisfies.
    pub output_schema: Option<Value>,
    /// Name and media type of a result that is a file.
    pub file: FileSpec,
    /// The latency that the manifest promises; `None`: no promise of its own.
    pub max_latency_ms: Option<u64>,
    /// The time in Unix seconds.
    pub created_at: u64,
    /// The time in Unix seconds.
    pub updated_at: u64,
}

/// The id of a creator's agent. A digest, for HIRE allows a-z and 0-9 only, and the creator's own id stays private.
pub fn agent_id(creator_id: &str) -> String {
    let digest = sha256_hex(format!("agent|{creator_id}").as_bytes());
    format!("agent_{}", digest.get(..24).unwrap_or_default())
}

/// Whether a manifest can use this as a capability's name (`^[a-z][a-z0-9-]*$`).
pub fn is_capability_name(name: &str) -> bool {
    let starts_with_letter = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    starts_with_letter && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The longest full name, in bytes. A stranger may ask for any name, and each dash in it is a pair to be looked up.
const MAX_FULL_NAME: usize = 129;
/// The most dashes of a full name.
const MAX_DASHES: usize = 32;

/// Whether a full name is short enough to be listed and looked up.
pub fn is_short_enough(full_name: &str) -> bool {
    full_name.len() <= MAX_FULL_NAME && full_name.bytes().filter(|b| *b == b'-').count() <= MAX_DASHES
}

/// The handles and slugs whose full name this is: `a` and `b-c`, and `a-b` and `c`, of `a-b-c`. None, where no manifest
/// can have the name.
pub fn full_name_readings(full_name: &str) -> impl Iterator<Item = (&str, &str)> {
    let full_name = if is_short_enough(full_name) && is_capability_name(full_name) { full_name } else { "" };
    let dashes = full_name.match_indices('-');
    let readings = dashes.filter_map(|(at, dash)| Some((full_name.get(..at)?, full_name.get(at + dash.len()..)?)));
    readings.filter(|(handle, slug)| !handle.is_empty() && !slug.is_empty())
}

impl Capability {
    /// The name in the manifest of all creators.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.handle, self.slug)
    }

    /// The output type and the JSON Schema of a contract's result.
    pub fn output_of(&self, task: &Task) -> Result<(OutputType, Option<Value>), Refusal> {
        let refused = |field: &str, expected: &str, received: &str| {
            Err(Refusal::contract(ContractError::Output, field, expected, received))
        };
        let requested = match task.output_type.as_deref().map(|name| (OutputType::parse(name), name)) {
            Some((None, _)) => return refused("task.output_type", OutputType::NAMES, "another word"),
            Some((Some(requested), name)) if self.output.is_some_and(|only| only != requested) => {
                let only = self.output.map_or("", OutputType::as_str);
                return refused("task.output_type", only, name);
            }
            Some((requested, _)) => requested,
            None => None,
        };
        if self.output_schema.is_some() && task.output_schema.is_some() && self.output_schema != task.output_schema {
            return refused("task.output_schema", "the capability's own output_schema, or none", "another");
        }
        let schema = task.output_schema.clone().or_else(|| self.output_schema.clone());
        let default = if schema.is_some() { OutputType::Json } else { OutputType::Text };
        let output = self.output.or(requested).unwrap_or(default);
        if output != OutputType::Json && task.output_schema.is_some() {
            return refused("task.output_schema", "none: only results of type json have one", "a schema");
        }
        Ok((output, schema.filter(|_| output == OutputType::Json)))
    }

    /// JSON Schema of the template's input.
    pub fn input_schema(&self) -> Value {
        let mut properties = Map::new();
        for parameter in &self.template.parameters {
            let mut schema = Map::new();
            schema.insert("type".to_owned(), "string".into());
            // The template refuses an empty value of a required parameter, so the schema does too.
            if parameter.required && parameter.default.is_none() {
                schema.insert("minLength".to_owned(), 1.into());
            }
            if let Some(text) = &parameter.description {
                schema.insert("description".to_owned(), text.clone().into());
            }
            if let Some(max_length) = parameter.max_length {
                schema.insert("maxLength".to_owned(), max_length.into());
            }
            if let Some(default) = &parameter.default {
                schema.insert("default".to_owned(), default.clone().into());
            }
            properties.insert(parameter.name.clone(), schema.into());
        }
        if self.template.allow_user_message {
            properties.insert(USER_MESSAGE.to_owned(), json!({"type": "string"}));
        }
        let required = self.template.parameters.iter().filter(|p| p.required && p.default.is_none());
        let required: Vec<&str> = required.map(|p| p.name.as_str()).collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }
}
