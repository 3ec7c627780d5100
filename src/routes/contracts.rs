//! `/contracts`: HIRE's contracts, proposed, registered, shown and verified.

use super::problem;
use super::{Answer, RequestContext};
use crate::edge::d1::contracts;
use crate::edge::d1::contracts::{NewContract, Registered};
use crate::edge::d1::templates;
use crate::edge::d1::templates::CapabilityQuery;
use crate::edge::http::webhooks;
use crate::edge::kv::{config, signing_keys};
use crate::edge::objects::runs;
use crate::edge::vault::Vault;
use crate::edge::{clock, fault, files};
use crate::routes::problem::Success;
use crate::rules::config::Config;
use crate::rules::hire::capability::{Capability, PLATFORM_AGENT};
use crate::rules::hire::contract;
use crate::rules::hire::contract::{Agreed, ContractState};
use crate::rules::hire::webhook::SECRET_PREFIX;
use crate::rules::ids::task_id;
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ContractError, Refusal};
use crate::wire::canonical::canonical;
use crate::wire::hire;
use crate::wire::hire::Contract;
use crate::wire::{base64, strict, timestamp};
use serde_json::{json, Map, Value};
use worker::{Env, Response};

/// Largest contract, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// `POST /contracts/proposals`: a seeker's draft, completed, hashed, and signed by the worker. Nothing is stored.
pub(crate) async fn propose(mut context: RequestContext<'_>) -> Answer {
    let answer = answer_draft(&mut context).await;
    hire(answer, "", Success::Done)
}

async fn answer_draft(context: &mut RequestContext<'_>) -> Result<Value, Refusal> {
    let config = config::load(context.env).await?;
    let mut draft = read_body(context).await?;
    for member in ["parties", "task"] {
        if !draft.get(member).is_some_and(Value::is_object) {
            return Err(Refusal::contract(ContractError::Malformed, member, "an object", "something else"));
        }
    }
    let capability = capability_of(context.env, &draft).await?;
    if let Some(id) = draft.get("contract_id").and_then(Value::as_str) {
        if contracts::find(context.env, id).await?.is_some() {
            return Err(taken());
        }
    }
    if matches!(agent_of(&draft).as_deref(), None | Some(PLATFORM_AGENT)) {
        // The house speaks for its creators; who signs is one of them, under the name they have for it.
        if let Some(worker) = draft.pointer_mut("/parties/worker").and_then(Value::as_object_mut) {
            worker.remove("agent_id");
        }
        if let Some(task) = draft.get_mut("task").and_then(Value::as_object_mut) {
            task.insert("capability".to_owned(), capability.slug.as_str().into());
        }
    }
    let now = clock::now();
    let id = format!("ctr_{}", runs::random_hex()?);
    let document = contract::complete(&draft, &capability, &id, now)?;
    let hash = hire::hash(&document);
    let unsigned = contract::with_signature(document, &hash, "", now);
    let contract = contract::read(&unsigned)?;
    check(context.env, &config, &contract, &capability)?;
    let signature =
        signing_keys::sign(context.env, &capability.template.creator_id, capability.agent.wallet, &hash).await?;
    let mut document = contract::with_signature(unsigned, &hash, &signature, now);
    if let Some(signatures) = document.get_mut("signatures").and_then(Value::as_object_mut) {
        signatures.remove("seeker");
    }
    Ok(json!({
        "contract": document,
        "hash": hash,
        "next": "Sign `hash` with the seeker's wallet (EIP-191), put it into contract.signatures.seeker, and POST \
                 the contract to /contracts.",
    }))
}

/// `POST /contracts`: registers a contract that both have signed. Doing it twice is no error.
pub(crate) async fn register(mut context: RequestContext<'_>) -> Answer {
    let mut id = String::new();
    let answer = take(&mut context, &mut id).await;
    let is_new = answer.as_ref().is_ok_and(|body| body.get("webhook_secret").is_some());
    hire(answer, &id, if is_new { Success::Created } else { Success::Done })
}

async fn take(context: &mut RequestContext<'_>, id: &mut String) -> Result<Value, Refusal> {
    let config = config::load(context.env).await?;
    let document = read_body(context).await?;
    // For the answer, also where it is too long for ours.
    let claimed = document.get("contract_id").and_then(Value::as_str).unwrap_or_default();
    *id = claimed.chars().take(100).filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let contract = contract::read(&document)?;
    contract::check_signed(&document, &contract)?;
    // What is registered stays so, whatever the template has come to.
    if let Some(before) = contracts::find(context.env, id).await? {
        return again(&before, &document);
    }
    let capability = capability_of(context.env, &document).await?;
    let agreed = check(context.env, &config, &contract, &capability)?;
    let secret = format!("{SECRET_PREFIX}{}", base64::encode(runs::random_hex()?.as_bytes()));
    let vault = Vault::new(context.env).map_err(fault("vault"))?;
    let sealed = vault.seal(&contracts::secret_owner(id), secret.as_bytes()).await.map_err(fault("vault"))?;
    let text = String::from_utf8(canonical(&document)).map_err(fault("contract"))?;
    let new = NewContract {
        id,
        template_id: &capability.template.id,
        creator_id: &capability.template.creator_id,
        document: &text,
        agreed: &agreed,
        task_id: &task_id(id, &runs::random_hex()?),
        webhook_secret: Some(sealed),
    };
    if !contracts::insert(context.env, new).await? {
        let before = contracts::find(context.env, id).await?.ok_or(Refusal::Internal)?;
        return again(&before, &document);
    }
    let mut body = shown(&document, ContractState::Signed.word());
    // Told this once.
    body.insert("webhook_secret".to_owned(), secret.into());
    Ok(Value::Object(body))
}

/// The same contract again, or another of the same id.
fn again(before: &Registered, document: &Value) -> Result<Value, Refusal> {
    match canonical(&before.document) == canonical(document) {
        true => Ok(Value::Object(shown(document, state_of(before)))),
        false => Err(taken()),
    }
}

fn taken() -> Refusal {
    Refusal::contract(ContractError::Exists, "contract_id", "an id of its own", "one that is taken")
}

/// `GET /contracts/{id}`: the contract, and how it stands.
pub(crate) async fn show(context: RequestContext<'_>, id: &str) -> Answer {
    let found = contracts::find(context.env, id).await;
    let answer = found.and_then(|found| {
        let registered = found.ok_or(Refusal::NotFound)?;
        Ok(Value::Object(shown(&registered.document, state_of(&registered))))
    });
    hire(answer, id, Success::Done)
}

/// `POST /contracts/{id}/verify`: whether the registered contract, or the one in the body, is what was signed.
pub(crate) async fn verify(mut context: RequestContext<'_>, id: &str) -> Answer {
    let answer = verified(&mut context, id).await;
    hire(answer, id, Success::Done)
}

async fn verified(context: &mut RequestContext<'_>, id: &str) -> Result<Value, Refusal> {
    let registered = contracts::find(context.env, id).await?.ok_or(Refusal::NotFound)?;
    let bytes = crate::routes::read_limited(&mut context.request, BODY_LIMIT).await?;
    let bytes = bytes.ok_or(Refusal::BodyTooLarge { limit: BODY_LIMIT })?;
    let document = match bytes.trim_ascii().is_empty() {
        true => registered.document.clone(),
        false => parse(&bytes)?,
    };
    let fault = contract::read(&document).and_then(|contract| contract::check_signed(&document, &contract)).err();
    let same = canonical(&document) == canonical(&registered.document);
    let valid = fault.is_none() && same;
    let error = fault.as_ref().map(ErrorBody::of_verification);
    Ok(json!({
        "contract_id": id,
        "valid": valid,
        "registered": same,
        "hash": {"claimed": document.get("hash"), "computed": hire::hash(&document)},
        "error": error,
        "state": state_of(&registered),
    }))
}

/// What is said no to by name, of a contract or a draft.
fn check(env: &Env, config: &Config, contract: &Contract, capability: &Capability) -> Result<Agreed, Refusal> {
    let network = config.hire_network().ok_or(Refusal::NotForSale)?;
    let agreed = contract::check_terms(contract, capability, network, clock::now())?;
    if agreed.output.needs_files() && !files::are_kept(env) {
        let kind = agreed.output.word();
        return Err(Refusal::contract(ContractError::Output, "task.output_type", "a form without files", kind));
    }
    if let Some(url) = &contract.parties.seeker.webhook_url {
        let refused = |expected: &str| {
            Refusal::contract(ContractError::Webhook, "parties.seeker.webhook_url", expected, "another URL")
        };
        webhooks::is_allowed(config, url).map_err(refused)?;
    }
    Ok(agreed)
}

/// The capability that a contract or draft is about.
async fn capability_of(env: &Env, document: &Value) -> Result<Capability, Refusal> {
    let name = document.pointer("/task/capability").and_then(Value::as_str);
    let agent = agent_of(document);
    let (found, wanted) = match (agent.as_deref(), name) {
        (None | Some(PLATFORM_AGENT), Some(name)) => {
            (templates::capabilities(env, CapabilityQuery::Full { name }).await?, name)
        }
        (None | Some(PLATFORM_AGENT), None) => (templates::capabilities(env, CapabilityQuery::All).await?, "a name"),
        (Some(agent_id), Some(name)) => {
            (templates::capabilities(env, CapabilityQuery::Named { agent_id, name }).await?, name)
        }
        (Some(agent_id), None) => {
            (templates::capabilities(env, CapabilityQuery::OfAgent { agent_id }).await?, "a name")
        }
    };
    // One's own name goes before another's full one.
    let exact = found.iter().find(|(capability, _)| agent.is_some() && capability.slug == wanted);
    if let (Some((capability, _)), _) | (None, [(capability, _)]) = (exact, found.as_slice()) {
        return Ok(capability.clone());
    }
    let known = match agent.as_deref() {
        None | Some(PLATFORM_AGENT) => true,
        Some(agent_id) => !templates::capabilities(env, CapabilityQuery::OfAgent { agent_id }).await?.is_empty(),
    };
    match known {
        false => {
            let (field, expected) = ("parties.worker.agent_id", "an agent of /.well-known/hire.json");
            Err(Refusal::contract(ContractError::UnknownWorker, field, expected, "another"))
        }
        true => {
            let expected = "the name of one of the agent's capabilities (/.well-known/hire.json)";
            let received = if wanted == "a name" { "none" } else { "another" };
            Err(Refusal::contract(ContractError::UnknownCapability, "task.capability", expected, received))
        }
    }
}

fn agent_of(document: &Value) -> Option<String> {
    document.pointer("/parties/worker/agent_id").and_then(Value::as_str).map(str::to_owned)
}

/// A contract that was never executed in time has come to nothing.
fn state_of(registered: &Registered) -> &str {
    let deadline = timestamp::parse(&registered.contract.terms.deadline).unwrap_or_default();
    match registered.state == ContractState::Signed.word() && deadline <= clock::now() {
        true => ContractState::Rejected.word(),
        false => &registered.state,
    }
}

fn shown(document: &Value, state: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("contract_id".to_owned(), document.get("contract_id").cloned().unwrap_or_default());
    body.insert("state".to_owned(), state.into());
    body.insert("hash".to_owned(), document.get("hash").cloned().unwrap_or_default());
    body.insert("contract".to_owned(), document.clone());
    body
}

async fn read_body(context: &mut RequestContext<'_>) -> Result<Value, Refusal> {
    let bytes = crate::routes::read_limited(&mut context.request, BODY_LIMIT).await?;
    parse(&bytes.ok_or(Refusal::BodyTooLarge { limit: BODY_LIMIT })?)
}

fn parse(bytes: &[u8]) -> Result<Value, Refusal> {
    let malformed = |received: &str| Refusal::contract(ContractError::Malformed, "body", "a JSON object", received);
    let value = strict::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(malformed("another value")),
    }
}

/// A document, or a refusal in HIRE's form.
fn hire(answer: Result<Value, Refusal>, contract_id: &str, success: Success) -> Answer {
    let body = match answer {
        Ok(body) => body,
        Err(refusal) => return problem::of_contract(&refusal, contract_id).map_err(fault("problem")),
    };
    let response = Response::from_bytes(body.to_string().into_bytes()).map_err(fault("contract"))?;
    let headers = response.headers();
    headers.set("content-type", "application/json").map_err(fault("contract"))?;
    headers.set("cache-control", "private, no-store").map_err(fault("contract"))?;
    Ok(problem::succeed(response, success))
}
