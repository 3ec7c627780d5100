//! Capabilities: a template as HIRE's worker agent of its creator offers it, and the manifest that says so.

use crate::rules::hire::output::{FileKind, OutputType};
use crate::rules::refusal::{ContractError, Refusal};
use crate::rules::run::Millis;
use crate::rules::template::{Template, USER_MESSAGE};
use crate::wire::amount::Amount;
use crate::wire::canonical::sha256_hex;
use crate::wire::evm::Address;
use crate::wire::hire;
use crate::wire::hire::Task;
use crate::wire::timestamp;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

/// The id of the agent that speaks for all creators of a deployment.
pub const PLATFORM_AGENT: &str = "agent_coinslot";

/// A creator as HIRE's worker agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// `agent_…`.
    pub id: String,
    /// Is paid, and signs.
    pub wallet: Address,
}

/// A template that can be hired.
#[derive(Clone, Debug)]
pub struct Capability {
    /// The template.
    pub template: Template,
    /// The creator's name in paths.
    pub handle: String,
    /// The template's.
    pub slug: String,
    /// The creator.
    pub agent: Agent,
    /// The one form of its result; `None`: text, or what the contract asks for.
    pub output: Option<OutputType>,
    /// What every result satisfies.
    pub output_schema: Option<Value>,
    /// Name and type of a result that is a file.
    pub file: FileKind,
    /// How fast it promises to be; `None`: no promise.
    pub max_latency_ms: Option<u64>,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds.
    pub updated_at: u64,
}

/// The id of a creator's agent.
pub fn agent_id(creator_id: &str) -> String {
    let digest = sha256_hex(format!("agent|{creator_id}").as_bytes());
    format!("agent_{}", digest.get(..24).unwrap_or_default())
}

/// Whether a manifest can name a capability so (`^[a-z][a-z0-9-]*$`).
pub fn is_capability_name(name: &str) -> bool {
    let head = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    head && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Capability {
    /// Its name among those of all creators.
    pub fn full_name(&self) -> String {
        format!("{}-{}", self.handle, self.slug)
    }

    /// In which form a contract's result is delivered, and what it has to satisfy.
    pub fn output_of(&self, task: &Task) -> Result<(OutputType, Option<Value>), Refusal> {
        let refused = |field: &str, expected: &str, received: &str| {
            Err(Refusal::contract(ContractError::Output, field, expected, received))
        };
        let asked = match task.output_type.as_deref().map(|word| (OutputType::read(word), word)) {
            Some((None, _)) => return refused("task.output_type", OutputType::WORDS, "another word"),
            Some((Some(asked), word)) if self.output.is_some_and(|only| only != asked) => {
                let only = self.output.map_or("", OutputType::word);
                return refused("task.output_type", only, word);
            }
            Some((asked, _)) => asked,
            None => None,
        };
        if self.output_schema.is_some() && task.output_schema.is_some() && self.output_schema != task.output_schema {
            return refused("task.output_schema", "the capability's own output_schema, or none", "another");
        }
        let schema = task.output_schema.clone().or_else(|| self.output_schema.clone());
        let by_schema = if schema.is_some() { OutputType::Json } else { OutputType::Text };
        let output = self.output.or(asked).unwrap_or(by_schema);
        if output != OutputType::Json && task.output_schema.is_some() {
            return refused("task.output_schema", "none: only results of type json have one", "a schema");
        }
        Ok((output, schema.filter(|_| output == OutputType::Json)))
    }

    /// JSON Schema of what the template takes.
    pub fn input_schema(&self) -> Value {
        let mut properties = Map::new();
        for parameter in &self.template.parameters {
            let mut schema = Map::new();
            schema.insert("type".to_owned(), "string".into());
            if parameter.required && parameter.default.is_none() {
                schema.insert("minLength".to_owned(), 1.into());
            }
            if let Some(text) = &parameter.description {
                schema.insert("description".to_owned(), text.clone().into());
            }
            if let Some(most) = parameter.max_length {
                schema.insert("maxLength".to_owned(), most.into());
            }
            if let Some(default) = &parameter.default {
                schema.insert("default".to_owned(), default.clone().into());
            }
            properties.insert(parameter.name.clone(), schema.into());
        }
        if self.template.allow_user_message {
            properties.insert(USER_MESSAGE.to_owned(), json!({"type": "string"}));
        }
        let needed = self.template.parameters.iter().filter(|p| p.required && p.default.is_none());
        let needed: Vec<&str> = needed.map(|p| p.name.as_str()).collect();
        json!({"type": "object", "properties": properties, "required": needed, "additionalProperties": false})
    }

    /// As a manifest has it, under `name`.
    fn entry(&self, name: String, origin: &str, latency: Millis) -> Value {
        let template = &self.template;
        let description = match template.description.is_empty() {
            true => &template.name,
            false => &template.description,
        };
        let mut entry = json!({
            "name": name,
            "description": description,
            "input_schema": self.input_schema(),
            "pricing": {"type": "per-task", "amount": template.price, "currency": "USDC"},
            "sla": {"max_latency_ms": self.max_latency_ms.unwrap_or(latency)},
            // Not in the schema, and of use to whoever wants to write a contract.
            "agent_id": self.agent.id,
            "wallet": self.agent.wallet,
            "resource": format!("{origin}/@{}/{}", self.handle, self.slug),
            "output_type": self.output.map_or("any", OutputType::word),
        });
        if let (Some(schema), Some(map)) = (&self.output_schema, entry.as_object_mut()) {
            map.insert("output_schema".to_owned(), schema.clone());
        }
        entry
    }
}

/// Who a manifest is of.
pub enum Publisher<'a> {
    /// One creator, by their display name.
    Creator(&'a str),
    /// All of them.
    Platform,
}

/// The manifest of an agent with these capabilities (`None`: without one there is no manifest). `decimals`: of the
/// asset that contracts are paid in. `latency`: the longest that a run takes here, in milliseconds.
pub fn manifest(
    publisher: &Publisher<'_>,
    capabilities: &[Capability],
    platform_wallet: Option<Address>,
    origin: &str,
    decimals: u8,
    latency: Millis,
) -> Option<Value> {
    let first = capabilities.first()?;
    let shared = capabilities.iter().all(|c| c.agent.wallet == first.agent.wallet).then_some(first.agent.wallet);
    let (id, handle, name, wallet) = match publisher {
        Publisher::Creator(name) => (first.agent.id.as_str(), first.handle.as_str(), *name, shared),
        Publisher::Platform => (PLATFORM_AGENT, "coinslot", "coinslot", platform_wallet.or(shared)),
    };
    let mut names = BTreeMap::<String, u32>::new();
    for capability in capabilities {
        *names.entry(capability.full_name()).or_default() += 1;
    }
    let nameable = |capability: &&Capability| match publisher {
        Publisher::Creator(_) => true,
        // Who cannot be named among all can be hired by their own manifest.
        Publisher::Platform => {
            let name = capability.full_name();
            is_capability_name(&name) && names.get(&name) == Some(&1)
        }
    };
    let payable = |capability: &&Capability| capability.template.price.to_amount(decimals).is_ok_and(|a| a > Amount(0));
    let entries = capabilities.iter().filter(nameable).filter(payable).map(|capability| {
        let name = match publisher {
            Publisher::Creator(_) => capability.slug.clone(),
            Publisher::Platform => capability.full_name(),
        };
        capability.entry(name, origin, latency)
    });
    let entries: Vec<Value> = entries.collect();
    if entries.is_empty() {
        return None;
    }
    let description = match publisher {
        Publisher::Creator(name) => format!("Prompt templates of {name}, run by Claude and paid per task."),
        Publisher::Platform => "Prompt templates of several creators, run by Claude and paid per task.".to_owned(),
    };
    let created = capabilities.iter().map(|c| c.created_at).min().unwrap_or_default();
    let updated = capabilities.iter().map(|c| c.updated_at).max().unwrap_or_default();
    let date = |seconds: u64| timestamp::format(seconds.saturating_mul(1000));
    Some(json!({
        "version": "1.0",
        "agent": {
            "id": id,
            "publisher": publisher_of(handle),
            "name": bounded(name, 100),
            "description": bounded(&description, 500),
            // Where creators differ, each capability says whom to pay.
            "owner": {"wallet": wallet.map_or_else(String::new, |wallet| wallet.to_string())},
        },
        "capabilities": entries,
        "endpoint": {"url": origin, "protocol": hire::VERSION, "auth": "x402"},
        "metadata": {"created_at": date(created), "updated_at": date(updated), "tags": ["prompt", "claude", "x402"]},
    }))
}

/// `@` and what a manifest may have after it.
fn publisher_of(handle: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = handle.chars().map(plain).collect();
    match name.trim_start_matches('-') {
        "" => "@creator".to_owned(),
        name => format!("@{name}"),
    }
}

fn bounded(text: &str, most: usize) -> String {
    let text: String = text.chars().take(most).collect();
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}
