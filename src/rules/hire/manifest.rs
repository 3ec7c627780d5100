//! The manifest (`/.well-known/hire.json`): the capabilities of one creator's agent, or of all agents here.

use crate::rules::hire::capability::{is_capability_name, Capability, PLATFORM_AGENT};
use crate::rules::hire::output::OutputType;
use crate::rules::run::Millis;
use crate::wire::amount::Amount;
use crate::wire::base64;
use crate::wire::evm::Address;
use crate::wire::hire;
use crate::wire::timestamp;
use serde_json::{json, Value};
use std::collections::BTreeSet;

/// Whose capabilities a manifest lists.
#[derive(Clone, Copy, Debug)]
pub enum ManifestScope<'a> {
    Creator { display_name: &'a str },
    AllCreators,
}

impl ManifestScope<'_> {
    fn name_of(self, capability: &Capability) -> String {
        match self {
            Self::Creator { .. } => capability.slug.clone(),
            Self::AllCreators => capability.full_name(),
        }
    }
}

/// The longest cursor that is read, in bytes.
const MAX_CURSOR: usize = 1024;

/// Where a page of a manifest begins: after the capability of this creator with this slug. The default is before all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub handle: String,
    pub slug: String,
}

impl Cursor {
    /// The value of the query's `cursor`. It is opaque, so that its form may change.
    pub fn encode(&self) -> String {
        base64::encode_url(format!("{}/{}", self.handle, self.slug).as_bytes())
    }

    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR {
            return None;
        }
        let text = String::from_utf8(base64::decode_url(text)?).ok()?;
        let (handle, slug) = text.split_once('/')?;
        Some(Self { handle: handle.to_owned(), slug: slug.to_owned() })
    }
}

/// A page of capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub capabilities: &'a [Capability],
    /// Full names that are those of several capabilities, on this page or another.
    pub shared_names: &'a BTreeSet<String>,
    /// There are no others.
    pub is_whole: bool,
    /// The URL of the next page.
    pub next: Option<&'a str>,
}

/// A page of the manifest of an agent; `None` where none of its capabilities can be hired, for HIRE has no empty
/// manifest. `decimals` is of the asset that contracts are paid in, `latency` the longest that a run takes here.
pub fn manifest(
    scope: ManifestScope<'_>,
    page: Page<'_>,
    platform_wallet: Option<Address>,
    origin: &str,
    decimals: u8,
    latency: Millis,
) -> Option<Value> {
    let capabilities = page.capabilities;
    let first = capabilities.first()?;
    let entries = entries(scope, page, origin, decimals, latency);
    if entries.is_empty() {
        return None;
    }
    let same_wallet = capabilities.iter().all(|c| c.agent.wallet == first.agent.wallet);
    let is_known = page.is_whole || matches!(scope, ManifestScope::Creator { .. });
    let shared_wallet = (same_wallet && is_known).then_some(first.agent.wallet);
    let (id, handle, name, wallet) = match scope {
        ManifestScope::Creator { display_name } => {
            (first.agent.id.as_str(), first.handle.as_str(), display_name, shared_wallet)
        }
        ManifestScope::AllCreators => (PLATFORM_AGENT, "coinslot", "coinslot", platform_wallet.or(shared_wallet)),
    };
    let description = match scope {
        ManifestScope::Creator { display_name } => {
            format!("Prompt templates of {display_name}, run by Claude and paid per task.")
        }
        ManifestScope::AllCreators => {
            "Prompt templates of several creators, run by Claude and paid per task.".to_owned()
        }
    };
    let created = capabilities.iter().map(|c| c.created_at).min().unwrap_or_default();
    let updated = capabilities.iter().map(|c| c.updated_at).max().unwrap_or_default();
    let date = |seconds: u64| timestamp::format(seconds.saturating_mul(1000));
    let mut manifest = json!({
        "version": "1.0",
        "agent": {
            "id": id,
            "publisher": publisher_of(handle),
            "name": shortened(name, 100),
            "description": shortened(&description, 500),
            // Where the creators' wallets differ, only the capabilities say whom to pay.
            "owner": {"wallet": wallet.map_or_else(String::new, |wallet| wallet.to_string())},
        },
        "capabilities": entries,
        "endpoint": {"url": origin, "protocol": hire::VERSION, "auth": "x402"},
        "metadata": {"created_at": date(created), "updated_at": date(updated), "tags": ["prompt", "claude", "x402"]},
    });
    // Not in HIRE's schema, which has no pages.
    if let (Some(next), Some(members)) = (page.next, manifest.as_object_mut()) {
        members.insert("next".to_owned(), next.into());
    }
    Some(manifest)
}

/// The capabilities that a seeker can name and pay for.
fn entries(scope: ManifestScope<'_>, page: Page<'_>, origin: &str, decimals: u8, latency: Millis) -> Vec<Value> {
    let has_name = |capability: &&Capability| match scope {
        // Templates whose slug is no capability name are left out when D1 is read.
        ManifestScope::Creator { .. } => true,
        // A capability without a valid, unique full name is still offered by its creator's own manifest.
        ManifestScope::AllCreators => {
            let name = capability.full_name();
            is_capability_name(&name) && !page.shared_names.contains(&name)
        }
    };
    let is_payable =
        |capability: &&Capability| capability.template.price.to_amount(decimals).is_ok_and(|a| a > Amount(0));
    let offered = page.capabilities.iter().filter(has_name).filter(is_payable);
    offered.map(|capability| entry(capability, &scope.name_of(capability), origin, latency)).collect()
}

fn entry(capability: &Capability, name: &str, origin: &str, latency: Millis) -> Value {
    let template = &capability.template;
    let description = match template.description.is_empty() {
        true => &template.name,
        false => &template.description,
    };
    let mut entry = json!({
        "name": name,
        "description": description,
        "input_schema": capability.input_schema(),
        "pricing": {"type": "per-task", "amount": template.price, "currency": "USDC"},
        "sla": {"max_latency_ms": capability.max_latency_ms.unwrap_or(latency)},
        // The members below are not in HIRE's schema. A seeker needs them to write a contract.
        "agent_id": capability.agent.id,
        "wallet": capability.agent.wallet,
        "resource": format!("{origin}/@{}/{}", capability.handle, capability.slug),
        "output_type": capability.output.map_or("any", OutputType::as_str),
    });
    if let (Some(schema), Some(members)) = (&capability.output_schema, entry.as_object_mut()) {
        members.insert("output_schema".to_owned(), schema.clone());
    }
    entry
}

/// The handle in the form that HIRE's schema has for a publisher (`^@[a-z0-9][a-z0-9-]*$`).
fn publisher_of(handle: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = handle.chars().map(allowed).collect();
    match name.trim_start_matches('-') {
        "" => "@creator".to_owned(),
        name => format!("@{name}"),
    }
}

/// At most this many characters, and at least one, as HIRE's schema demands.
fn shortened(text: &str, max_length: usize) -> String {
    let text: String = text.chars().take(max_length).collect();
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}
