//! `/contracts`: HIRE's contracts, proposed, registered, shown and verified.

use super::reply;
use crate::edge::d1::capabilities;
use crate::edge::d1::capabilities::CapabilityQuery;
use crate::edge::d1::contracts;
use crate::edge::d1::contracts::{Inserted, NewContract, Registered, MAX_OPEN_OF_SEEKER};
use crate::edge::http::webhooks;
use crate::edge::kv::{config, signing_keys};
use crate::edge::objects::wallets;
use crate::edge::rate_limit::Kind;
use crate::edge::vault::Vault;
use crate::edge::{clock, fault, files};
use crate::routes::problem::Success;
use crate::routes::reply::Reply;
use crate::routes::request::{json_object, RequestContext};
use crate::rules::config::Config;
use crate::rules::hire::capability::{Capability, PLATFORM_AGENT};
use crate::rules::hire::contract;
use crate::rules::hire::contract::{AgreedTerms, ContractState};
use crate::rules::hire::webhook::SECRET_PREFIX;
use crate::rules::ids::{task_id, wallet_object};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ContractError, Refusal};
use crate::wire::canonical::canonical;
use crate::wire::hire;
use crate::wire::hire::Contract;
use crate::wire::{base64, timestamp};
use serde::Serialize;
use serde_json::Value;
use worker::Env;

/// Largest contract, in bytes.
const BODY_LIMIT: usize = 32 * 1024;

#[derive(Serialize)]
struct Proposal {
    contract: Value,
    hash: String,
    next: &'static str,
}

const NEXT: &str = "Sign `hash` with the seeker's wallet (EIP-191), put it into contract.signatures.seeker, and POST \
                    the contract to /contracts.";

/// `POST /contracts/proposals`: a seeker's draft, completed, hashed, and signed by the worker. Nothing is stored.
pub(crate) async fn propose(mut context: RequestContext<'_>) -> Reply {
    let proposal = proposal(&mut context).await;
    reply::of_contract(proposal, "", |_| Success::Done)
}

async fn proposal(context: &mut RequestContext<'_>) -> Result<Proposal, Refusal> {
    // They cost a seeker nothing, and us a row.
    context.count(Kind::Contract).await?;
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
            return Err(id_is_taken());
        }
    }
    if matches!(agent_of(&draft).as_deref(), None | Some(PLATFORM_AGENT)) {
        // The platform's agent speaks for all creators. One of them signs, under their own agent and the name that the
        // capability has there.
        if let Some(worker) = draft.pointer_mut("/parties/worker").and_then(Value::as_object_mut) {
            worker.remove("agent_id");
        }
        if let Some(task) = draft.get_mut("task").and_then(Value::as_object_mut) {
            task.insert("capability".to_owned(), capability.slug.as_str().into());
        }
    }
    let now = clock::now();
    let id = format!("ctr_{}", wallets::random_hex()?);
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
    Ok(Proposal { contract: document, hash, next: NEXT })
}

/// A registered contract as both parties see it.
#[derive(Serialize)]
struct ContractView {
    contract_id: Value,
    state: String,
    hash: Value,
    contract: Value,
    /// Shown when the contract is registered, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
}

impl ContractView {
    fn new(document: &Value, state: &str) -> Self {
        let member = |name: &str| document.get(name).cloned().unwrap_or_default();
        Self {
            contract_id: member("contract_id"),
            state: state.to_owned(),
            hash: member("hash"),
            contract: document.clone(),
            webhook_secret: None,
        }
    }
}

/// `POST /contracts`: registers a contract that both have signed. Doing it twice is no error.
pub(crate) async fn register(mut context: RequestContext<'_>) -> Reply {
    let mut id = String::new();
    let view = store(&mut context, &mut id).await;
    reply::of_contract(view, &id, |view| match view.webhook_secret {
        Some(_) => Success::Created,
        None => Success::Done,
    })
}

/// Stores the contract of the body. `id` becomes the one that it claims, for the answer.
async fn store(context: &mut RequestContext<'_>, id: &mut String) -> Result<ContractView, Refusal> {
    // They cost a seeker nothing, and us a row.
    context.count(Kind::Contract).await?;
    let config = config::load(context.env).await?;
    let document = read_body(context).await?;
    // Bounded, for a refusal repeats it: it has not been checked yet.
    let claimed = document.get("contract_id").and_then(Value::as_str).unwrap_or_default();
    *id = claimed.chars().take(100).filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let contract = contract::read(&document)?;
    contract::check_signed(&document, &contract)?;
    // A registered contract stays registered, whatever has become of the template.
    if let Some(before) = contracts::find(context.env, id).await? {
        return registered_before(&before, &document);
    }
    let capability = capability_of(context.env, &document).await?;
    let agreed = check(context.env, &config, &contract, &capability)?;
    let secret = format!("{SECRET_PREFIX}{}", base64::encode(wallets::random_hex()?.as_bytes()));
    let vault = Vault::new(context.env).map_err(fault("vault"))?;
    let sealed = vault.seal(&contracts::secret_owner(id), secret.as_bytes()).await.map_err(fault("vault"))?;
    let text = String::from_utf8(canonical(&document)).map_err(fault("contract"))?;
    let network = config.hire_network().ok_or(Refusal::NotForSale)?;
    let seekers_object = wallet_object(&network.id, agreed.seeker);
    let new = NewContract {
        id,
        template_id: &capability.template.id,
        creator_id: &capability.template.creator_id,
        document: &text,
        agreed: &agreed,
        task_id: &task_id(&seekers_object, &wallets::random_hex()?),
        webhook_secret: Some(sealed),
    };
    match contracts::insert(context.env, new).await? {
        Inserted::Yes => {}
        Inserted::IdIsTaken(before) => return registered_before(&before, &document),
        Inserted::TooMany => {
            let expected = format!("at most {MAX_OPEN_OF_SEEKER} that are not executed");
            return Err(Refusal::contract(ContractError::TooMany, "parties.seeker.wallet", &expected, "more"));
        }
        Inserted::TooManyOfCreator => {
            let (field, expected) = ("parties.worker.agent_id", "a worker with fewer contracts that are not executed");
            return Err(Refusal::contract(ContractError::TooMany, field, expected, "too many"));
        }
    }
    let view = ContractView::new(&document, ContractState::Signed.as_str());
    Ok(ContractView { webhook_secret: Some(secret), ..view })
}

/// The same contract may be registered again; another one of the same id may not.
fn registered_before(before: &Registered, document: &Value) -> Result<ContractView, Refusal> {
    match canonical(&before.document) == canonical(document) {
        true => Ok(ContractView::new(document, state_of(before))),
        false => Err(id_is_taken()),
    }
}

fn id_is_taken() -> Refusal {
    Refusal::contract(ContractError::Exists, "contract_id", "an id of its own", "one that is taken")
}

/// `GET /contracts/{id}`: the contract, and its state.
pub(crate) async fn show(context: RequestContext<'_>, id: &str) -> Reply {
    let found = contracts::find(context.env, id).await;
    let view = found.and_then(|found| {
        let registered = found.ok_or(Refusal::NotFound)?;
        Ok(ContractView::new(&registered.document, state_of(&registered)))
    });
    reply::of_contract(view, id, |_| Success::Done)
}

#[derive(Serialize)]
struct Verification<'a> {
    contract_id: &'a str,
    valid: bool,
    /// Whether the document is the registered contract.
    registered: bool,
    hash: Hashes,
    error: Option<ErrorBody<'a>>,
    state: String,
}

#[derive(Serialize)]
struct Hashes {
    claimed: Option<Value>,
    computed: String,
}

/// `POST /contracts/{id}/verify`: whether the registered contract, or the one in the body, is what was signed.
pub(crate) async fn verify(mut context: RequestContext<'_>, id: &str) -> Reply {
    let verification = verification(&mut context, id).await;
    reply::of_contract(verification, id, |_| Success::Done)
}

async fn verification<'a>(context: &mut RequestContext<'_>, id: &'a str) -> Result<Verification<'a>, Refusal> {
    let registered = contracts::find(context.env, id).await?.ok_or(Refusal::NotFound)?;
    let bytes = context.read_body(BODY_LIMIT).await?;
    let document = match bytes.trim_ascii().is_empty() {
        true => registered.document.clone(),
        false => parse(&bytes)?,
    };
    let signed = contract::read(&document).and_then(|contract| contract::check_signed(&document, &contract));
    let same = canonical(&document) == canonical(&registered.document);
    Ok(Verification {
        contract_id: id,
        valid: signed.is_ok() && same,
        registered: same,
        hash: Hashes { claimed: document.get("hash").cloned(), computed: hire::hash(&document) },
        error: signed.err().as_ref().map(ErrorBody::of_verification),
        state: state_of(&registered).to_owned(),
    })
}

/// Checks the terms of a contract or a draft.
fn check(env: &Env, config: &Config, contract: &Contract, capability: &Capability) -> Result<AgreedTerms, Refusal> {
    let network = config.hire_network().ok_or(Refusal::NotForSale)?;
    let agreed = contract::check_terms(contract, capability, network, clock::now())?;
    if agreed.output.needs_files() && !files::are_kept(env) {
        let kind = agreed.output.as_str();
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
    // The platform's agent offers the capabilities of all creators.
    let agent = agent_of(document).filter(|agent| agent != PLATFORM_AGENT);
    let query = match (agent.as_deref(), name) {
        (None, Some(name)) => CapabilityQuery::Full { name },
        (None, None) => CapabilityQuery::Any,
        (Some(agent_id), Some(name)) => CapabilityQuery::Named { agent_id, name },
        (Some(agent_id), None) => CapabilityQuery::OfAgent { agent_id },
    };
    let found = capabilities::find(env, query).await?;
    // An agent's own name for a capability goes before another capability's full name.
    let own = found.iter().find(|capability| agent.is_some() && Some(capability.slug.as_str()) == name);
    if let (Some(capability), _) | (None, [capability]) = (own, found.as_slice()) {
        return Ok(capability.clone());
    }
    if let Some(agent_id) = agent.as_deref() {
        if capabilities::find(env, CapabilityQuery::OfAgent { agent_id }).await?.is_empty() {
            let (field, expected) = ("parties.worker.agent_id", "an agent of /.well-known/hire.json");
            return Err(Refusal::contract(ContractError::UnknownWorker, field, expected, "another"));
        }
    }
    let expected = "the name of one of the agent's capabilities (/.well-known/hire.json)";
    let received = if name.is_some() { "another" } else { "none" };
    Err(Refusal::contract(ContractError::UnknownCapability, "task.capability", expected, received))
}

fn agent_of(document: &Value) -> Option<String> {
    document.pointer("/parties/worker/agent_id").and_then(Value::as_str).map(str::to_owned)
}

/// A contract that was not executed by its deadline is rejected, though nobody has written that down.
fn state_of(registered: &Registered) -> &str {
    let deadline = timestamp::parse(&registered.contract.terms.deadline).unwrap_or_default();
    match registered.state == ContractState::Signed.as_str() && deadline <= clock::now() {
        true => ContractState::Rejected.as_str(),
        false => &registered.state,
    }
}

async fn read_body(context: &mut RequestContext<'_>) -> Result<Value, Refusal> {
    parse(&context.read_body(BODY_LIMIT).await?)
}

fn parse(bytes: &[u8]) -> Result<Value, Refusal> {
    json_object(bytes).map_err(|not_an_object| {
        Refusal::contract(ContractError::Malformed, "body", "a JSON object", &not_an_object.received)
    })
}
