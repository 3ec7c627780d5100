//! Proposals: a seeker's draft, completed and signed by the worker.

use crate::rules::hire::capability::Capability;
use crate::rules::refusal::{ContractError, Refusal};
use crate::rules::run::Millis;
use crate::wire::hire;
use crate::wire::timestamp;
use serde_json::{json, Map, Value};

/// The deadline of a draft that names none, from now.
const DEFAULT_TERM: Millis = 24 * 60 * 60 * 1000;

/// Adds the members that a seeker's draft leaves to the worker. Members that the draft has stay as they are, but for
/// hash and signatures: those are removed.
pub fn complete(draft: &Value, capability: &Capability, contract_id: &str, now: Millis) -> Result<Value, Refusal> {
    let mut document = draft.clone();
    let members = object(Some(&mut document), "body")?;
    members.remove("hash");
    members.remove("signatures");
    add(members, "version", hire::VERSION);
    add(members, "contract_id", contract_id);
    add(members, "created_at", timestamp::format(now));
    let agent = &capability.agent;
    let parties = object(members.get_mut("parties"), "parties")?;
    let worker = parties.entry("worker").or_insert_with(|| json!({}));
    let worker = object(Some(worker), "parties.worker")?;
    add(worker, "agent_id", agent.id.as_str());
    add(worker, "wallet", agent.wallet.to_string());
    let task = object(members.get_mut("task"), "task")?;
    add(task, "capability", capability.slug.as_str());
    let terms = members.entry("terms").or_insert_with(|| json!({}));
    let terms = object(Some(terms), "terms")?;
    let price = json!({"amount": capability.template.price, "currency": "USDC", "network": "base"});
    add(terms, "price", price);
    add(terms, "deadline", timestamp::format(now.saturating_add(DEFAULT_TERM)));
    add(terms, "payment_trigger", "on_delivery");
    // HIRE's schema demands a fee. We collect none.
    add(terms, "platform_fee", json!({"percentage": 0, "wallet": agent.wallet}));
    Ok(document)
}

/// Adds the hash and the worker's signature to a completed draft. The seeker's signature is left empty.
pub fn with_signature(mut document: Value, hash: &str, signature: &str, now: Millis) -> Value {
    let signatures = json!({"seeker": "", "worker": signature, "timestamp": timestamp::format(now)});
    if let Some(members) = document.as_object_mut() {
        members.insert("hash".to_owned(), hash.into());
        members.insert("signatures".to_owned(), signatures);
    }
    document
}

fn object<'a>(value: Option<&'a mut Value>, field: &str) -> Result<&'a mut Map<String, Value>, Refusal> {
    let malformed = || Refusal::contract(ContractError::Malformed, field, "an object", "something else");
    value.and_then(Value::as_object_mut).ok_or_else(malformed)
}

fn add(members: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    members.entry(name).or_insert_with(|| value.into());
}
