//! Contracts: whether a document is one, whether both parties have signed it, and whether its terms are ours.

use crate::json_schema::{Schema, Unsupported};
use crate::rules::config::Network;
use crate::rules::hire::capability::Capability;
use crate::rules::hire::output::{FileKind, OutputType};
use crate::rules::refusal::{ContractError, Refusal};
use crate::rules::run::{Millis, Run, State};
use crate::wire::amount::{Amount, Price};
use crate::wire::eip191::is_signed;
use crate::wire::evm::Address;
use crate::wire::hire;
use crate::wire::hire::{Contract, RefundCondition};
use crate::wire::timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};
use std::sync::OnceLock;

/// What other clocks may be ahead of ours.
const SKEW: Millis = 5 * 60 * 1000;
/// The latest deadline that is taken.
const LATEST: Millis = 90 * 24 * 60 * 60 * 1000;
/// The deadline of a proposal that names none.
const USUAL: Millis = 24 * 60 * 60 * 1000;
/// In characters: it goes into a header as it is.
const MAX_PRICE: usize = 40;
/// The shortest latency that is taken.
const SHORTEST: u64 = 1000;

/// How a contract stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContractState {
    /// Registered; nothing of it is under way.
    Signed,
    /// A task is under way.
    Executing,
    /// Delivered, and paid.
    Completed,
    /// Nothing more will come of it, and nothing was charged.
    Rejected,
    /// Charged, and not delivered.
    Disputed,
}

impl ContractState {
    /// As HIRE writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Signed => "SIGNED",
            Self::Executing => "EXECUTING",
            Self::Completed => "COMPLETED",
            Self::Rejected => "REJECTED",
            Self::Disputed => "DISPUTED",
        }
    }

    /// Whether a stored word says that it has come to its end.
    pub fn is_end(word: &str) -> bool {
        [Self::Completed, Self::Rejected, Self::Disputed].iter().any(|end| end.word() == word)
    }

    /// What a run of its task makes of it; `over`: no other execution is allowed.
    pub fn after(run: &Run, over: bool) -> Self {
        match run.state() {
            State::Delivered => Self::Completed,
            State::Refundable(_) | State::Reported(_) => Self::Disputed,
            _ if run.is_unpaid_execution() && over => Self::Rejected,
            State::New | State::Failed(_) | State::Refused(_) => Self::Signed,
            _ => Self::Executing,
        }
    }
}

/// What a contract agrees, checked. It is kept with the contract: what the template comes to be does not change it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agreed {
    /// Who pays, and nobody else.
    pub seeker: Address,
    /// Who is paid.
    pub worker: Address,
    /// Decimal units.
    pub price: Price,
    /// Unix milliseconds.
    pub deadline: Millis,
    /// How often it may be executed.
    pub attempts: u32,
    /// In which form the result is delivered.
    pub output: OutputType,
    /// What the result has to satisfy.
    pub output_schema: Option<Value>,
    /// Name and type of a result that is a file.
    pub file: FileKind,
}

/// Reads a contract: its form, its dates, its wallets. Nothing is said about hash and signatures.
pub fn read(document: &Value) -> Result<Contract, Refusal> {
    let malformed =
        |field: &str, expected: &str| Refusal::contract(ContractError::Malformed, field, expected, "something else");
    for schema in contract_schemas()? {
        schema.check(document).map_err(|m| match m.keyword {
            "required" => Refusal::contract(ContractError::Malformed, or_body(&m.field), "a value", "nothing"),
            _ => malformed(or_body(&m.field), &m.expected),
        })?;
    }
    let contract: Contract =
        serde_json::from_value(document.clone()).map_err(|_| malformed("body", "members of the schema's types"))?;
    if contract.version != hire::VERSION {
        return Err(malformed("version", hire::VERSION));
    }
    if !hire::is_contract_id(&contract.contract_id) {
        return Err(malformed("contract_id", "ctr_ and at most 64 of a-z and 0-9"));
    }
    for (field, date) in [
        ("created_at", &contract.created_at),
        ("terms.deadline", &contract.terms.deadline),
        ("signatures.timestamp", &contract.signatures.timestamp),
    ] {
        timestamp::parse(date).ok_or_else(|| malformed(field, "an RFC 3339 date-time"))?;
    }
    for (field, party) in
        [("parties.seeker.wallet", &contract.parties.seeker), ("parties.worker.wallet", &contract.parties.worker)]
    {
        Address::parse(&party.wallet).ok_or_else(|| malformed(field, "an address: 0x and 40 hex digits"))?;
    }
    Ok(contract)
}

fn contract_schemas() -> Result<&'static [Schema; 2], Refusal> {
    static SCHEMAS: OnceLock<Option<[Schema; 2]>> = OnceLock::new();
    let read = |text| serde_json::from_str(text).ok().and_then(|schema| Schema::read(&schema).ok());
    let both = || Some([read(hire::CONTRACT_SCHEMA)?, read(hire::EXTENSIONS_SCHEMA)?]);
    SCHEMAS.get_or_init(both).as_ref().ok_or(Refusal::Internal)
}

/// Whether the document is what both parties have signed.
pub fn check_signed(document: &Value, contract: &Contract) -> Result<(), Refusal> {
    let hash = hire::hash(document);
    if contract.hash != hash {
        return Err(Refusal::contract(ContractError::HashMismatch, "hash", &hash, "another hash"));
    }
    let signed = |wallet: &str, signature: &str| {
        Address::parse(wallet).is_some_and(|wallet| is_signed(&hash, signature, wallet))
    };
    let expected = "the wallet's EIP-191 signature of the hash: 0x, 130 lower-case hex digits, v 27 or 28";
    let (parties, signatures) = (&contract.parties, &contract.signatures);
    if !signed(&parties.worker.wallet, &signatures.worker) {
        return Err(Refusal::contract(
            ContractError::WorkerSignature,
            "signatures.worker",
            expected,
            "another signature",
        ));
    }
    if !signed(&parties.seeker.wallet, &signatures.seeker) {
        return Err(Refusal::contract(
            ContractError::SeekerSignature,
            "signatures.seeker",
            expected,
            "another signature",
        ));
    }
    Ok(())
}

/// Whether the capability can be had on these terms at `now`. `network`: what HIRE's `base` stands for here.
pub fn check_terms(
    contract: &Contract,
    capability: &Capability,
    network: &Network,
    now: Millis,
) -> Result<Agreed, Refusal> {
    let agreed = agreed(contract, capability)?;
    let worker = &contract.parties.worker;
    if worker.agent_id != capability.agent.id {
        return Err(Refusal::contract(
            ContractError::UnknownWorker,
            "parties.worker.agent_id",
            &capability.agent.id,
            "another",
        ));
    }
    if agreed.worker != capability.agent.wallet {
        let wallet = capability.agent.wallet.to_string();
        return Err(Refusal::contract(ContractError::UnknownWorker, "parties.worker.wallet", &wallet, "another"));
    }
    check_price(&agreed.price, capability, network)?;
    check_times(contract, &agreed, capability, now)?;
    for (field, schema) in
        [("task.input_schema", &contract.task.input_schema), ("task.output_schema", &agreed.output_schema)]
    {
        schema.as_ref().map_or(Ok(()), |schema| readable(field, schema))?;
    }
    if contract.sla.refund_conditions.contains(&RefundCondition::QualityRejected) {
        let expected = "conditions that can be met by not charging: payment is on delivery, and final";
        return Err(Refusal::contract(ContractError::Sla, "sla.refund_conditions", expected, "quality_rejected"));
    }
    Ok(agreed)
}

fn agreed(contract: &Contract, capability: &Capability) -> Result<Agreed, Refusal> {
    let (parties, terms) = (&contract.parties, &contract.terms);
    let address = |field: &str, text: &str| {
        Address::parse(text)
            .ok_or_else(|| Refusal::contract(ContractError::Malformed, field, "an address", "something else"))
    };
    if terms.payment_trigger != "on_delivery" {
        return Err(Refusal::contract(
            ContractError::Trigger,
            "terms.payment_trigger",
            "on_delivery",
            "another trigger",
        ));
    }
    let attempts = contract.sla.attempts().ok_or_else(|| {
        Refusal::contract(ContractError::Sla, "sla.retry_policy", "none, N or \"N attempts\" (1 to 10)", "another text")
    })?;
    let price = terms.price.amount.parse().ok().filter(|_| terms.price.amount.len() <= MAX_PRICE).ok_or_else(|| {
        Refusal::contract(ContractError::Price, "terms.price.amount", "digits, or digits.digits", "another text")
    })?;
    let (output, output_schema) = capability.output_of(&contract.task)?;
    Ok(Agreed {
        seeker: address("parties.seeker.wallet", &parties.seeker.wallet)?,
        worker: address("parties.worker.wallet", &parties.worker.wallet)?,
        price,
        deadline: timestamp::parse(&terms.deadline).unwrap_or_default(),
        attempts,
        output,
        output_schema,
        file: capability.file.clone(),
    })
}

fn check_price(price: &Price, capability: &Capability, network: &Network) -> Result<(), Refusal> {
    let least = &capability.template.price;
    let amounts = price.to_amount(network.decimals).ok().zip(least.to_amount(network.decimals).ok());
    match amounts {
        Some((offered, least)) if offered >= least && offered > Amount(0) => Ok(()),
        _ => {
            let expected = format!("at least {least}, with at most {} decimals", network.decimals);
            Err(Refusal::contract(ContractError::Price, "terms.price.amount", &expected, &price.to_string()))
        }
    }
}

fn check_times(contract: &Contract, agreed: &Agreed, capability: &Capability, now: Millis) -> Result<(), Refusal> {
    let created = timestamp::parse(&contract.created_at).unwrap_or_default();
    if created > now.saturating_add(SKEW) {
        return Err(Refusal::contract(ContractError::Malformed, "created_at", "a time that has been", "one to come"));
    }
    let signed = timestamp::parse(&contract.signatures.timestamp).unwrap_or_default();
    if signed > now.saturating_add(SKEW) || signed.saturating_add(SKEW) < created {
        let expected = "a time between created_at and now";
        return Err(Refusal::contract(ContractError::Malformed, "signatures.timestamp", expected, "another time"));
    }
    let least = capability.max_latency_ms.unwrap_or(SHORTEST);
    if contract.sla.max_latency_ms.is_some_and(|latency| latency < least) {
        let expected = format!("at least {least}");
        return Err(Refusal::contract(ContractError::Sla, "sla.max_latency_ms", &expected, "less"));
    }
    let (first, last) = (now.saturating_add(least), now.saturating_add(LATEST));
    if agreed.deadline < first || agreed.deadline > last {
        let expected = format!("between {} and {}", timestamp::format(first), timestamp::format(last));
        return Err(Refusal::contract(ContractError::Deadline, "terms.deadline", &expected, &contract.terms.deadline));
    }
    Ok(())
}

/// Whether we can check against a schema. One that we could check in part only is refused whole.
pub fn readable(field: &str, schema: &Value) -> Result<(), Refusal> {
    Schema::read(schema).map(drop).map_err(|Unsupported { field: at, why }| {
        let field = if at.is_empty() { field.to_owned() } else { format!("{field}.{at}") };
        Refusal::contract(ContractError::Schema, &field, "a schema of the keywords that the README lists", &why)
    })
}

/// Fills in what a seeker's draft leaves to the worker. What it says stays as it is; what it says of hash and
/// signatures is dropped.
pub fn complete(draft: &Value, capability: &Capability, contract_id: &str, now: Millis) -> Result<Value, Refusal> {
    let mut document = draft.clone();
    let members = object(Some(&mut document), "body")?;
    members.remove("hash");
    members.remove("signatures");
    fill(members, "version", hire::VERSION);
    fill(members, "contract_id", contract_id);
    fill(members, "created_at", timestamp::format(now));
    let agent = &capability.agent;
    let parties = object(members.get_mut("parties"), "parties")?;
    let worker = parties.entry("worker").or_insert_with(|| json!({}));
    let worker = object(Some(worker), "parties.worker")?;
    fill(worker, "agent_id", agent.id.as_str());
    fill(worker, "wallet", agent.wallet.to_string());
    let task = object(members.get_mut("task"), "task")?;
    fill(task, "capability", capability.slug.as_str());
    let terms = members.entry("terms").or_insert_with(|| json!({}));
    let terms = object(Some(terms), "terms")?;
    let price = json!({"amount": capability.template.price, "currency": "USDC", "network": "base"});
    fill(terms, "price", price);
    fill(terms, "deadline", timestamp::format(now.saturating_add(USUAL)));
    fill(terms, "payment_trigger", "on_delivery");
    // Recorded, and collected by nobody here.
    fill(terms, "platform_fee", json!({"percentage": 0, "wallet": agent.wallet}));
    Ok(document)
}

/// A completed draft with its hash and the worker's signature. The seeker's is still to come.
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

fn fill(members: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    members.entry(name).or_insert_with(|| value.into());
}

fn or_body(field: &str) -> &str {
    match field {
        "" => "body",
        field => field,
    }
}
