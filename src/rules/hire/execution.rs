//! Before a contract is executed: whether it still may be, what it costs, who pays, and what its input is.

use super::contract::{AgreedTerms, ContractState};
use crate::json_schema::{Mismatch, Schema};
use crate::rules::config::{Config, Limits};
use crate::rules::payment::matching::PaymentCheck;
use crate::rules::payment::quote::{Quote, QuoteTerms};
use crate::rules::payment::Payment;
use crate::rules::refusal::{InputError, ModelError, Refusal};
use crate::rules::run::Millis;
use crate::rules::template::input;
use crate::rules::template::input::{Body, Input};
use crate::rules::template::Template;
use serde_json::{Map, Value};

/// The longest window of a payment, in seconds.
const MAX_WINDOW: u64 = 3600;

/// The quote for a call of `url` that executes a contract. The worker is paid the agreed price, on the one network that
/// HIRE's `base` stands for here.
pub fn contract_quote(
    config: &Config,
    template: &Template,
    agreed: &AgreedTerms,
    max_latency_ms: Option<u64>,
    url: &str,
) -> Result<Quote, Refusal> {
    let network = config.hire_network().ok_or(Refusal::NotForSale)?;
    // A payment has to outlast the work. The window is the same for every call, for payers echo it.
    let latency = max_latency_ms.unwrap_or_default().div_ceil(1000);
    let window = latency.saturating_add(2 * config.limits.window_needed()).min(MAX_WINDOW);
    let terms = QuoteTerms {
        payees: vec![(network, agreed.worker)],
        price: &agreed.price,
        max_timeout_seconds: window.max(config.limits.max_timeout_seconds),
        mime: "application/json",
        ..QuoteTerms::of_template(template, config)
    };
    Quote::new(terms, url)
}

/// The payment, where it is one that executes the contract: it matches the quote, and the contract's seeker has signed
/// it with a key. (A seeker signs contracts with a key too, so a contract wallet's payment is somebody else's.)
pub fn payment_of_seeker(check: PaymentCheck, agreed: &AgreedTerms) -> Result<Payment, Refusal> {
    match check {
        PaymentCheck::Matches(payment) if payment.payer != agreed.seeker => Err(Refusal::SeekerMismatch),
        PaymentCheck::Matches(payment) if !payment.by_key => {
            Err(Refusal::PaymentInvalid { reason: Some("invalid_exact_evm_payload_signature".to_owned()) })
        }
        PaymentCheck::Matches(payment) => Ok(payment),
        PaymentCheck::Forged(refusal) | PaymentCheck::Differs(refusal, _) => Err(refusal),
    }
}

/// Why a contract in this state is not executed any more at `now`. Its object may still know the result.
pub fn why_over(state: &str, deadline: Millis, now: Millis) -> Option<Refusal> {
    let late = (deadline <= now).then_some(Refusal::Claude(ModelError::DeadlineMissed));
    match ContractState::is_final(state) {
        // It came to nothing in time, and says so.
        true if state == ContractState::Rejected.as_str() => late.or(Some(Refusal::ContractEnded)),
        true => Some(Refusal::ContractEnded),
        false => late,
    }
}

/// The input, checked against the contract's schema and the template. Where the contract has none, the template's
/// parameters are the schema: which members there may be, which there must be, and how long they are. In the prompt, a
/// value that is no string is its JSON text.
pub fn input_of(
    body: &Value,
    input_schema: Option<&Value>,
    template: &Template,
    limits: &Limits,
) -> Result<Input, Refusal> {
    if let Some(schema) = input_schema {
        // It could be read when the contract was registered.
        let schema = Schema::read(schema).map_err(|_| Refusal::Internal)?;
        schema.check(body).map_err(refusal_of)?;
    }
    let text = |value: &Value| match value {
        // `null` is an absent value, and not the text "null".
        Value::String(_) | Value::Null => value.clone(),
        other => other.to_string().into(),
    };
    let members = body.as_object().into_iter().flatten();
    let texts: Map<String, Value> = members.map(|(name, value)| (name.clone(), text(value))).collect();
    input::validate(&Body::Json(Value::Object(texts)), template, limits)
}

fn refusal_of(Mismatch { field, expected, keyword }: Mismatch) -> Refusal {
    let field = if field.is_empty() { "body" } else { &field };
    match keyword {
        "required" => Refusal::input(InputError::Malformed, field, "a value", "nothing"),
        _ => Refusal::input(InputError::Malformed, field, &expected, "something else"),
    }
}
