//! The terms of a contract: whether we accept them, and what is agreed then.

use crate::json_schema::{Schema, Unsupported};
use crate::rules::config::Network;
use crate::rules::hire::capability::Capability;
use crate::rules::hire::output::{FileSpec, OutputType};
use crate::rules::refusal::{ContractError, Refusal};
use crate::rules::run::Millis;
use crate::wire::amount::{Amount, Price};
use crate::wire::evm::Address;
use crate::wire::hire::{Contract, RefundCondition};
use crate::wire::timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a seeker's clock may be ahead of ours.
const CLOCK_SKEW: Millis = 5 * 60 * 1000;
/// How old a contract may be when it is signed or registered.
const MAX_AGE: Millis = 7 * 24 * 60 * 60 * 1000;
/// The latest deadline that we accept, from now.
const MAX_TERM: Millis = 90 * 24 * 60 * 60 * 1000;
/// The longest price, in characters. HIRE's headers repeat it as it is written.
const MAX_PRICE_LENGTH: usize = 40;
/// The shortest `max_latency_ms` that we accept where the capability promises none.
const MIN_LATENCY_MS: u64 = 1000;

/// What a contract agrees, checked. It is stored with the contract, so that a later change of the template does not
/// change it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgreedTerms {
    /// The only wallet that may pay.
    pub seeker: Address,
    /// The wallet that is paid.
    pub worker: Address,
    /// Decimal units of the currency.
    pub price: Price,
    pub deadline: Millis,
    /// How often the contract may be executed.
    pub attempts: u32,
    pub output: OutputType,
    /// JSON Schema that the result has to satisfy.
    pub output_schema: Option<Value>,
    /// The schema is the capability's own, and not the seeker's.
    #[serde(default)]
    pub own_schema: bool,
    /// Name and media type of a result that is a file.
    pub file: FileSpec,
}

/// Whether the capability can be had on these terms at `now`. `network` is the one that HIRE's `base` stands for here.
pub fn check_terms(
    contract: &Contract,
    capability: &Capability,
    network: &Network,
    now: Millis,
) -> Result<AgreedTerms, Refusal> {
    let agreed = agreed_terms(contract, capability)?;
    let worker = &contract.parties.worker;
    let unknown_worker =
        |field: &str, expected: &str| Err(Refusal::contract(ContractError::UnknownWorker, field, expected, "another"));
    if worker.agent_id != capability.agent.id {
        return unknown_worker("parties.worker.agent_id", &capability.agent.id);
    }
    if agreed.worker != capability.agent.wallet {
        return unknown_worker("parties.worker.wallet", &capability.agent.wallet.to_string());
    }
    if agreed.seeker == agreed.worker {
        // The contract would cost its creator nothing, and count as a run and as earnings.
        let (field, expected) = ("parties.seeker.wallet", "another wallet than the worker's");
        return Err(Refusal::contract(ContractError::Malformed, field, expected, "the same"));
    }
    check_price(&agreed.price, capability, network)?;
    check_times(contract, &agreed, capability, now)?;
    for (field, schema) in
        [("task.input_schema", &contract.task.input_schema), ("task.output_schema", &agreed.output_schema)]
    {
        schema.as_ref().map_or(Ok(()), |schema| check_schema(field, schema))?;
    }
    if contract.sla.refund_conditions.contains(&RefundCondition::QualityRejected) {
        let expected = "conditions that can be met by not charging: payment is on delivery, and final";
        return Err(Refusal::contract(ContractError::Sla, "sla.refund_conditions", expected, "quality_rejected"));
    }
    Ok(agreed)
}

fn agreed_terms(contract: &Contract, capability: &Capability) -> Result<AgreedTerms, Refusal> {
    let (parties, terms) = (&contract.parties, &contract.terms);
    let address = |field: &str, text: &str| {
        Address::parse(text)
            .ok_or_else(|| Refusal::contract(ContractError::Malformed, field, "an address", "something else"))
    };
    if terms.payment_trigger != "on_delivery" {
        let field = "terms.payment_trigger";
        return Err(Refusal::contract(ContractError::Trigger, field, "on_delivery", "another trigger"));
    }
    let attempts = contract.sla.attempts().ok_or_else(|| {
        Refusal::contract(ContractError::Sla, "sla.retry_policy", "none, N or \"N attempts\" (1 to 10)", "another text")
    })?;
    let amount = &terms.price.amount;
    let price = amount.parse().ok().filter(|_| amount.len() <= MAX_PRICE_LENGTH).ok_or_else(|| {
        Refusal::contract(ContractError::Price, "terms.price.amount", "digits, or digits.digits", "another text")
    })?;
    let (output, output_schema) = capability.output_of(&contract.task)?;
    Ok(AgreedTerms {
        seeker: address("parties.seeker.wallet", &parties.seeker.wallet)?,
        worker: address("parties.worker.wallet", &parties.worker.wallet)?,
        price,
        deadline: timestamp::parse(&terms.deadline).unwrap_or_default(),
        attempts,
        output,
        output_schema,
        own_schema: capability.output_schema.is_some(),
        file: capability.file.clone(),
    })
}

fn check_price(price: &Price, capability: &Capability, network: &Network) -> Result<(), Refusal> {
    let minimum = &capability.template.price;
    let amounts = price.to_amount(network.decimals).ok().zip(minimum.to_amount(network.decimals).ok());
    match amounts {
        Some((offered, minimum)) if offered >= minimum && offered > Amount(0) => Ok(()),
        _ => {
            let expected = format!("at least {minimum}, with at most {} decimals", network.decimals);
            Err(Refusal::contract(ContractError::Price, "terms.price.amount", &expected, &price.to_string()))
        }
    }
}

fn check_times(contract: &Contract, agreed: &AgreedTerms, capability: &Capability, now: Millis) -> Result<(), Refusal> {
    let created = timestamp::parse(&contract.created_at).unwrap_or_default();
    if created > now.saturating_add(CLOCK_SKEW) {
        return Err(Refusal::contract(ContractError::Malformed, "created_at", "a time that has been", "one to come"));
    }
    if created < now.saturating_sub(MAX_AGE) {
        let received = &contract.created_at;
        return Err(Refusal::contract(
            ContractError::Malformed,
            "created_at",
            "a time of the last seven days",
            received,
        ));
    }
    let signed = timestamp::parse(&contract.signatures.timestamp).unwrap_or_default();
    if signed > now.saturating_add(CLOCK_SKEW) || signed.saturating_add(CLOCK_SKEW) < created {
        let expected = "a time between created_at and now";
        return Err(Refusal::contract(ContractError::Malformed, "signatures.timestamp", expected, "another time"));
    }
    let min_latency = capability.max_latency_ms.unwrap_or(MIN_LATENCY_MS);
    if contract.sla.max_latency_ms.is_some_and(|latency| latency < min_latency) {
        let expected = format!("at least {min_latency}");
        return Err(Refusal::contract(ContractError::Sla, "sla.max_latency_ms", &expected, "less"));
    }
    let (first, last) = (now.saturating_add(min_latency), now.saturating_add(MAX_TERM));
    if agreed.deadline < first || agreed.deadline > last {
        let expected = format!("between {} and {}", timestamp::format(first), timestamp::format(last));
        return Err(Refusal::contract(ContractError::Deadline, "terms.deadline", &expected, &contract.terms.deadline));
    }
    Ok(())
}

/// A schema with a keyword that we do not support is refused as a whole: a result must not be called valid when it
/// was checked in part only.
fn check_schema(field: &str, schema: &Value) -> Result<(), Refusal> {
    Schema::read(schema).map(drop).map_err(|Unsupported { field: at, why }| {
        let field = if at.is_empty() { field.to_owned() } else { format!("{field}.{at}") };
        Refusal::contract(ContractError::Schema, &field, "a schema of the keywords that docs/hire.md lists", &why)
    })
}
