//! Proposals: what a draft leaves to the worker is added, what it says stays, and it is signed as it stands.

use super::{assert_refused, date, draft, haiku, network, seeker, set, worker, CONTRACT_ID, DAY, NOW};
use coinslot::testing::rules::hire::contract::{check_signed, check_terms, complete, read, with_signature};
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::wire::hire;
use serde_json::{json, Value};

/// Everything that is checked of a draft before it is signed, in the order of `POST /contracts/proposals`.
fn propose(draft: &Value) -> Result<Value, Refusal> {
    let document = complete(draft, &haiku(), CONTRACT_ID, NOW)?;
    let unsigned = with_signature(document, &hire::hash(draft), "", NOW);
    let contract = read(&unsigned)?;
    check_terms(&contract, &haiku(), &network(), NOW)?;
    Ok(unsigned)
}

fn refused(path: &str, value: Value, code: &str) {
    let mut draft = draft();
    set(&mut draft, path, value);
    assert_refused(propose(&draft), code, path, path);
}

#[test]
fn a_short_draft_is_completed() {
    let mut short = draft();
    short["parties"].as_object_mut().unwrap().remove("worker");
    short["task"].as_object_mut().unwrap().remove("capability");
    let completed = complete(&short, &haiku(), CONTRACT_ID, NOW).unwrap();
    let wallet = worker().address().to_string();
    let expected = json!({
        "version": "HIRE/1.0",
        "contract_id": CONTRACT_ID,
        "created_at": date(0),
        "parties": {
            "seeker": {"agent_id": "agent_seeker", "wallet": seeker().address()},
            "worker": {"agent_id": haiku().agent.id, "wallet": wallet},
        },
        "task": {"capability": "haiku", "description": "One haiku about a coin"},
        "terms": {
            "price": {"amount": "0.01", "currency": "USDC", "network": "base"},
            "deadline": date(i64::try_from(DAY).unwrap()),
            "payment_trigger": "on_delivery",
            "platform_fee": {"percentage": 0, "wallet": wallet},
        },
    });
    assert_eq!(completed, expected);
    assert!(propose(&short).is_ok());
}

#[test]
fn what_the_draft_says_stays_but_for_hash_and_signatures() {
    let mut own = json!({
        "version": "HIRE/1.0",
        "contract_id": "ctr_mine",
        "created_at": date(-1000),
        "parties": {
            "seeker": {"agent_id": "agent_seeker", "wallet": seeker().address(), "x_department": "poetry"},
            "worker": {"agent_id": haiku().agent.id, "wallet": worker().address(), "x_nickname": "the poet"},
        },
        "task": {"description": "x", "capability": "ada-haiku", "x_priority": 3},
        "terms": {
            "price": {"amount": "0.25", "currency": "USDC", "network": "base", "x_tax": "0.02"},
            "deadline": date(3_600_000),
            "payment_trigger": "on_delivery",
            "platform_fee": {"percentage": 1.5, "wallet": seeker().address()},
        },
        "sla": {"retry_policy": "2 attempts"},
        "x_invoice": {"number": "A-1"},
    });
    let wanted = own.clone();
    own["hash"] = format!("sha256:{}", "0".repeat(64)).into();
    own["signatures"] = json!({"seeker": "mine", "worker": "yours", "more": 1});
    assert_eq!(complete(&own, &haiku(), CONTRACT_ID, NOW), Ok(wanted));
}

#[test]
fn what_is_no_object_in_a_draft_is_named() {
    let without = |name: &str| {
        let mut draft = draft();
        draft.as_object_mut().unwrap().remove(name);
        draft
    };
    assert_refused(propose(&json!([draft()])), "CONTRACT_MALFORMED", "body", "an array");
    assert_refused(propose(&without("parties")), "CONTRACT_MALFORMED", "parties", "no parties");
    assert_refused(propose(&without("task")), "CONTRACT_MALFORMED", "task", "no task");
    for path in ["parties", "parties.worker", "task", "terms"] {
        for value in [json!("agent_ada"), json!([]), json!(null)] {
            refused(path, value, "CONTRACT_MALFORMED");
        }
    }
}

#[test]
fn a_draft_is_refused_for_its_form() {
    for path in [
        "parties.seeker",
        "parties.seeker.wallet",
        "parties.seeker.agent_id",
        "task.description",
        "terms.price.network",
    ] {
        let mut draft = draft();
        draft["terms"]["price"] = json!({"amount": "0.01", "currency": "USDC", "network": "base"});
        super::remove(&mut draft, path);
        assert_refused(propose(&draft), "CONTRACT_MALFORMED", path, path);
    }
    let price = json!({"amount": "0.01", "currency": "EUR", "network": "base"});
    let mut in_euros = draft();
    in_euros["terms"]["price"] = price;
    assert_refused(propose(&in_euros), "CONTRACT_MALFORMED", "terms.price.currency", "EUR");
    refused("sla.refund_conditions", json!("no_response"), "CONTRACT_MALFORMED");
    refused("version", json!("HIRE/2.0"), "CONTRACT_MALFORMED");
    refused("contract_id", json!("ctr_ABC"), "CONTRACT_MALFORMED");
    refused("parties.seeker.wallet", json!("0x12"), "CONTRACT_MALFORMED");
}

#[test]
fn a_draft_is_refused_for_its_terms() {
    let mut cheap = draft();
    cheap["terms"]["price"] = json!({"amount": "0.0099", "currency": "USDC", "network": "base"});
    assert_refused(propose(&cheap), "PRICE_NOT_ACCEPTED", "terms.price.amount", "too little");
    refused("parties.worker.wallet", json!(seeker().address()), "WORKER_UNKNOWN");
    refused("terms.payment_trigger", json!("escrow"), "PAYMENT_TRIGGER_UNSUPPORTED");
    refused("terms.deadline", date(-86_400_000), "DEADLINE_NOT_ACCEPTED");
    refused("sla.retry_policy", json!("as often as it takes"), "SLA_NOT_OFFERED");
    refused("task.output_type", json!("video"), "OUTPUT_NOT_OFFERED");
    let mut unreadable = draft();
    unreadable["task"]["input_schema"] = json!({"unevaluatedProperties": false});
    assert_refused(propose(&unreadable), "SCHEMA_UNSUPPORTED", "task.input_schema.unevaluatedProperties", "a schema");
}

#[test]
fn the_workers_signature_is_added_and_the_seekers_is_left_empty() {
    let document = complete(&draft(), &haiku(), CONTRACT_ID, NOW).unwrap();
    let hash = hire::hash(&document);
    let signature = worker().sign(&hash).unwrap();
    let mut signed = with_signature(document.clone(), &hash, &signature, NOW);
    assert_eq!(signed["hash"], hash);
    assert_eq!(signed["signatures"], json!({"seeker": "", "worker": signature, "timestamp": date(0)}));
    let contract = read(&signed).unwrap();
    assert_refused(check_signed(&signed, &contract), "SEEKER_SIGNATURE_INVALID", "signatures.seeker", "not yet signed");
    signed["signatures"]["seeker"] = seeker().sign(&hash).unwrap().into();
    assert_eq!(check_signed(&signed, &read(&signed).unwrap()), Ok(()));
    for member in ["hash", "signatures"] {
        signed.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(signed, document, "nothing else is changed");
}
