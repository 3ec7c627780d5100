//! HIRE/1.0: what is offered, agreed, signed and delivered. This file has what the tests share: a worker agent, its
//! capability, and a contract that both parties have signed.

mod capability;
mod context;
mod contract;
mod contract_signatures;
mod contract_state;
mod contract_terms;
mod deliverables;
mod execution;
mod instructions;
mod manifest;
mod open_contracts;
mod proposal;
mod shown_schema;
mod task;
mod webhook;
mod webhook_target;

use coinslot::testing::rules::config::{Config, Network};
use coinslot::testing::rules::hire::capability::{agent_id, Agent, Capability};
use coinslot::testing::rules::hire::contract::{
    check_signed, check_terms, complete, read, with_signature, AgreedTerms,
};
use coinslot::testing::rules::hire::output::FileSpec;
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::rules::run::{Millis, Release};
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::{Parameter, Template};
use coinslot::testing::wire::eip191::Signer;
use coinslot::testing::wire::hire;
use coinslot::testing::wire::timestamp;
use serde_json::{json, Value};
use std::collections::BTreeMap;

const NOW: Millis = 1_750_000_000_000;
const MINUTE: Millis = 60_000;
const DAY: Millis = 24 * 60 * MINUTE;
const CONTRACT_ID: &str = "ctr_xyz789";

fn worker() -> Signer {
    Signer::read(&"11".repeat(32)).unwrap()
}

fn seeker() -> Signer {
    Signer::read(&"22".repeat(32)).unwrap()
}

/// A wallet that is neither party's.
fn stranger() -> Signer {
    Signer::read(&"33".repeat(32)).unwrap()
}

fn network() -> Network {
    Config::built_in().networks.remove(0)
}

fn parameter(name: &str, required: bool, default: Option<&str>, max_length: Option<usize>) -> Parameter {
    let (name, default) = (name.to_owned(), default.map(str::to_owned));
    Parameter { description: Some(format!("The {name}.")), name, required, default, max_length }
}

/// A capability of this creator, whose agent has the wallet of [`worker`].
fn capability(handle: &str, slug: &str) -> Capability {
    Capability {
        template: Template {
            id: format!("template_{handle}_{slug}"),
            creator_id: format!("creator_{handle}"),
            agent_wallet: None,
            wallets: BTreeMap::new(),
            name: format!("{slug} by {handle}"),
            description: "One haiku about anything.".to_owned(),
            model: "claude-haiku-5-5".to_owned(),
            prompt: Secret::new("THE SECRET PROMPT".to_owned()),
            parameters: vec![
                parameter("topic", true, None, Some(200)),
                parameter("mood", false, None, None),
                parameter("language", true, Some("English"), None),
            ],
            allow_user_message: false,
            max_tokens: 100,
            price: "0.01".parse().unwrap(),
            published: true,
            release: Release::Settled,
            runs: 0,
            usual_ms: None,
        },
        handle: handle.to_owned(),
        slug: slug.to_owned(),
        agent: Agent { id: agent_id(&format!("creator_{handle}")), wallet: worker().address() },
        output: None,
        output_schema: None,
        file: FileSpec { name: "haiku.txt".to_owned(), mime: "text/plain; charset=utf-8".to_owned() },
        max_latency_ms: None,
        created_at: 1_700_000_000,
        updated_at: 1_700_000_001,
    }
}

fn haiku() -> Capability {
    capability("ada", "haiku")
}

/// What a seeker sends to get a proposal.
fn draft() -> Value {
    json!({
        "parties": {
            "seeker": {"agent_id": "agent_seeker", "wallet": seeker().address().to_string()},
            "worker": {"agent_id": haiku().agent.id},
        },
        "task": {"capability": "haiku", "description": "One haiku about a coin"},
    })
}

/// A draft, completed by the worker.
fn completed(draft: &Value) -> Value {
    complete(draft, &haiku(), CONTRACT_ID, NOW).unwrap()
}

/// A completed draft of a contract with the usual terms.
fn unsigned() -> Value {
    completed(&draft())
}

/// The document with its hash, signed by these two.
fn sign_as(document: Value, worker: &Signer, seeker: &Signer, signed_at: Millis) -> Value {
    let hash = hire::hash(&document);
    let mut signed = with_signature(document, &hash, &worker.sign(&hash).unwrap(), signed_at);
    signed["signatures"]["seeker"] = seeker.sign(&hash).unwrap().into();
    signed
}

fn sign(document: Value) -> Value {
    sign_as(document, &worker(), &seeker(), NOW)
}

/// The member at a path such as `terms.price.amount`. Missing objects on the way are added.
fn set(document: &mut Value, path: &str, value: Value) {
    let member = path.split('.').fold(document, |parent, name| &mut parent[name]);
    *member = value;
}

fn remove(document: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = parent.split('.').filter(|name| !name.is_empty()).fold(document, |parent, name| &mut parent[name]);
    parent.as_object_mut().unwrap().remove(name).unwrap();
}

/// A contract of the usual terms but for one member, signed by both parties.
fn signed_with(path: &str, value: Value) -> Value {
    let mut document = unsigned();
    set(&mut document, path, value);
    sign(document)
}

/// RFC 3339, this long before or after [`NOW`].
fn date(offset: i64) -> Value {
    timestamp::format(NOW.checked_add_signed(offset).unwrap()).into()
}

/// Everything that is checked of a contract that is registered, in the order of `POST /contracts`.
fn register(document: &Value, capability: &Capability) -> Result<AgreedTerms, Refusal> {
    let contract = read(document)?;
    check_signed(document, &contract)?;
    check_terms(&contract, capability, &network(), NOW)
}

/// A refusal's code and the field that it names.
fn code_and_field(refusal: &Refusal) -> (&'static str, String) {
    (refusal.code(), refusal.detail().map(|detail| detail.field).unwrap_or_default())
}

/// Asserts that the result is a refusal with this code, which names this field and says what is expected there.
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Refusal>, code: &str, field: &str, case: &str) {
    let refusal = result.expect_err(case);
    assert_eq!(code_and_field(&refusal), (code, field.to_owned()), "{case}");
    let detail = refusal.detail().expect(case);
    assert!(!detail.expected.is_empty() && !detail.received.is_empty(), "{case}: {detail:?}");
    assert!(refusal.message().len() > 10, "{case}");
}
