//! Terms: what is agreed, and every term that we do not accept, refused by the member that asks for it.

use super::{
    assert_refused, capability, date, haiku, register, remove, set, sign, sign_as, signed_with, stranger, unsigned,
    worker, DAY, MINUTE, NOW,
};
use coinslot::testing::rules::hire::contract::{check_terms, read, AgreedTerms};
use coinslot::testing::rules::hire::output::OutputType;
use coinslot::testing::rules::refusal::{ContractError, Refusal};
use serde_json::{json, Value};

/// Registers a contract whose member at this path has this value.
fn with(path: &str, value: impl Into<Value>) -> Result<AgreedTerms, Refusal> {
    register(&signed_with(path, value.into()), &haiku())
}

/// In milliseconds, for dates before and after now.
const MINUTES: i64 = MINUTE as i64;
const DAYS: i64 = DAY as i64;

#[test]
fn what_is_agreed_is_what_the_contract_says() {
    let mut document = unsigned();
    set(&mut document, "terms.price.amount", "0.25".into());
    set(&mut document, "terms.deadline", date(2 * DAYS));
    set(&mut document, "sla.retry_policy", "2 attempts".into());
    set(&mut document, "task.output_schema", json!({"type": "object"}));
    let agreed = register(&sign(document), &haiku()).unwrap();
    assert_eq!((agreed.seeker, agreed.worker), (super::seeker().address(), worker().address()));
    assert_eq!((agreed.price.to_string().as_str(), agreed.attempts), ("0.25", 2));
    assert_eq!(agreed.deadline, NOW + 2 * DAY);
    assert_eq!((agreed.output, agreed.output_schema), (OutputType::Json, Some(json!({"type": "object"}))));
    assert_eq!(agreed.file, haiku().file);
}

#[test]
fn the_agreed_terms_are_stored_and_read_again() {
    let agreed = with("task.output_type", "file").unwrap();
    let stored = serde_json::to_value(&agreed).unwrap();
    let names: Vec<&str> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    let expected =
        ["attempts", "deadline", "file", "output", "output_schema", "own_schema", "price", "seeker", "worker"];
    assert_eq!(names, expected);
    let read: AgreedTerms = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), stored);
}

/// It would cost its creator nothing, and raise their runs and earnings.
#[test]
fn a_contract_between_a_wallet_and_itself_is_refused() {
    let mut document = unsigned();
    document["parties"]["seeker"]["wallet"] = worker().address().to_string().into();
    let field = "parties.seeker.wallet";
    let refusal = Refusal::contract(ContractError::Malformed, field, "another wallet than the worker's", "the same");
    assert_eq!(register(&sign_as(document.clone(), &worker(), &worker(), NOW), &haiku()).err(), Some(refusal.clone()));
    document["parties"]["seeker"]["wallet"] = worker().address().to_string().to_ascii_lowercase().into();
    assert_eq!(register(&sign_as(document, &worker(), &worker(), NOW), &haiku()).err(), Some(refusal));
}

#[test]
fn a_price_that_is_too_little_or_no_price_is_refused() {
    let nines = "9".repeat(60);
    for price in [
        "0.009999",
        "0.0099",
        "0",
        "0.000000",
        "0.0100001",
        "1e3",
        "1E3",
        "",
        "-1",
        "+1",
        ".5",
        "1.",
        " 0.02",
        "0.02 ",
        "0x10",
        "1,5",
        "１",
        "NaN",
        &nines,
    ] {
        assert_refused(with("terms.price.amount", price), "PRICE_NOT_ACCEPTED", "terms.price.amount", price);
    }
    let detail = with("terms.price.amount", "0.001").unwrap_err().detail().unwrap();
    assert_eq!(
        (detail.expected.as_str(), detail.received.as_str()),
        ("at least 0.01, with at most 6 decimals", "0.001")
    );
}

#[test]
fn a_template_without_a_payable_price_cannot_be_hired_at_any_price() {
    for (own, offered) in [("0", "0"), ("0.0000001", "0.0000001"), ("0.0000001", "1")] {
        let mut free = haiku();
        free.template.price = own.parse().unwrap();
        let contract = signed_with("terms.price.amount", offered.into());
        assert_refused(register(&contract, &free), "PRICE_NOT_ACCEPTED", "terms.price.amount", own);
    }
}

#[test]
fn a_price_of_more_than_40_characters_is_refused() {
    let price = |zeros: usize| format!("0.01{}", "0".repeat(zeros));
    assert!(with("terms.price.amount", price(36)).is_ok());
    assert_refused(with("terms.price.amount", price(37)), "PRICE_NOT_ACCEPTED", "terms.price.amount", "41 characters");
}

#[test]
fn payment_is_due_on_delivery_only() {
    for trigger in ["on_acceptance", "escrow", "milestone"] {
        let refused = with("terms.payment_trigger", trigger);
        assert_refused(refused, "PAYMENT_TRIGGER_UNSUPPORTED", "terms.payment_trigger", trigger);
    }
}

#[test]
fn a_retry_policy_is_a_small_number_of_attempts() {
    for policy in [
        "as often as you like",
        "0",
        "0 attempts",
        "11",
        "11 attempts",
        "3 attempts ",
        " 3",
        "03",
        "-1",
        "+3",
        "3.0",
        "3  attempts",
        "3 Attempts",
        "attempts",
        "",
        "None",
        "two",
        "3 retries",
        "99999999999999999999",
        "as often as it takes",
    ] {
        assert_refused(with("sla.retry_policy", policy), "SLA_NOT_OFFERED", "sla.retry_policy", policy);
    }
    for (policy, attempts) in [("none", 1), ("1", 1), ("3", 3), ("10", 10), ("1 attempt", 1), ("10 attempts", 10)] {
        assert_eq!(with("sla.retry_policy", policy).unwrap().attempts, attempts, "{policy}");
    }
}

#[test]
fn a_latency_below_what_the_capability_promises_is_refused() {
    for latency in [0, 10, 999] {
        let refused = with("sla.max_latency_ms", latency);
        assert_refused(refused, "SLA_NOT_OFFERED", "sla.max_latency_ms", &latency.to_string());
    }
    assert!(with("sla.max_latency_ms", 1000).is_ok());
    let slow = super::Capability { max_latency_ms: Some(30_000), ..haiku() };
    let of_slow = |latency: u64| register(&signed_with("sla.max_latency_ms", latency.into()), &slow);
    assert_refused(of_slow(29_999), "SLA_NOT_OFFERED", "sla.max_latency_ms", "the capability's own latency");
    assert!(of_slow(30_000).is_ok());
}

#[test]
fn a_refund_for_quality_is_refused() {
    for conditions in [json!(["quality_rejected"]), json!(["no_response", "quality_rejected", "deadline_missed"])] {
        let case = conditions.to_string();
        assert_refused(with("sla.refund_conditions", conditions), "SLA_NOT_OFFERED", "sla.refund_conditions", &case);
    }
    assert!(with("sla.refund_conditions", json!(["deadline_missed", "output_schema_invalid", "no_response"])).is_ok());
}

#[test]
fn a_deadline_is_between_the_latency_and_90_days_from_now() {
    for offset in [-DAYS, 0, 300, 999, 90 * DAYS + 1, 90 * DAYS + 60 * MINUTES, 36_500 * DAYS] {
        let refused = with("terms.deadline", date(offset));
        assert_refused(refused, "DEADLINE_NOT_ACCEPTED", "terms.deadline", &offset.to_string());
    }
    for offset in [1000, 5000, 90 * DAYS - MINUTES, 90 * DAYS] {
        assert!(with("terms.deadline", date(offset)).is_ok(), "{offset}");
    }
    let slow = super::Capability { max_latency_ms: Some(30_000), ..haiku() };
    let of_slow = |offset| register(&signed_with("terms.deadline", date(offset)), &slow);
    assert_refused(of_slow(20_000), "DEADLINE_NOT_ACCEPTED", "terms.deadline", "sooner than the capability's latency");
    assert!(of_slow(30_000).is_ok());
}

#[test]
fn a_deadline_in_another_time_zone_is_taken() {
    let local = date(DAYS).as_str().unwrap().replace('Z', "+02:00");
    assert_eq!(with("terms.deadline", local).unwrap().deadline, NOW + DAY - 2 * 60 * MINUTE);
}

#[test]
fn a_contract_cannot_be_of_the_future() {
    let minutes = |n: i64| date(n * MINUTES);
    assert_refused(with("created_at", minutes(10)), "CONTRACT_MALFORMED", "created_at", "created in ten minutes");
    // It must not be signed before it was made, so it is signed two minutes from now as well.
    let mut document = unsigned();
    set(&mut document, "created_at", minutes(2));
    assert!(register(&sign_as(document, &worker(), &super::seeker(), NOW + 2 * MINUTE), &haiku()).is_ok());
    assert!(with("created_at", minutes(2)).is_ok(), "a clock that is two minutes ahead");
}

#[test]
fn a_contract_is_not_older_than_a_week() {
    for (age, name) in
        [(7 * DAYS + MINUTES, "over a week"), (365 * DAYS, "a year"), (i64::try_from(NOW).unwrap(), "1970")]
    {
        assert_refused(with("created_at", date(-age)), "CONTRACT_MALFORMED", "created_at", name);
    }
    for age in [0, DAYS, 7 * DAYS - MINUTES] {
        assert!(with("created_at", date(-age)).is_ok(), "{age}");
    }
}

#[test]
fn a_contract_is_signed_between_its_making_and_now() {
    for signed_at in [NOW + 10 * MINUTE, NOW - DAY, NOW - 6 * MINUTE] {
        let document = sign_as(unsigned(), &worker(), &super::seeker(), signed_at);
        assert_refused(
            register(&document, &haiku()),
            "CONTRACT_MALFORMED",
            "signatures.timestamp",
            &format!("signed {signed_at}"),
        );
    }
    for signed_at in [NOW - 4 * MINUTE, NOW, NOW + 4 * MINUTE] {
        assert!(register(&sign_as(unsigned(), &worker(), &super::seeker(), signed_at), &haiku()).is_ok());
    }
}

#[test]
fn the_worker_is_the_capabilitys_agent_with_its_wallet() {
    for agent_id in ["agent_nobody", "agent_coinslot", "agent_grace"] {
        let refused = with("parties.worker.agent_id", agent_id);
        assert_refused(refused, "WORKER_UNKNOWN", "parties.worker.agent_id", agent_id);
    }
    // Another wallet than the agent's, with that wallet's own signature.
    let mut document = unsigned();
    set(&mut document, "parties.worker.wallet", stranger().address().to_string().into());
    let document = sign_as(document, &stranger(), &super::seeker(), NOW);
    assert_refused(register(&document, &haiku()), "WORKER_UNKNOWN", "parties.worker.wallet", "another wallet");
    // And a worker whose key has changed since.
    let mut moved = haiku();
    moved.agent.wallet = stranger().address();
    assert_refused(register(&sign(unsigned()), &moved), "WORKER_UNKNOWN", "parties.worker.wallet", "another key");
}

#[test]
fn an_output_that_is_not_offered_is_refused() {
    for output in ["video", "JSON", ""] {
        assert_refused(with("task.output_type", output), "OUTPUT_NOT_OFFERED", "task.output_type", output);
    }
    for output in ["text", "file", "multiple", "stream"] {
        let mut document = unsigned();
        set(&mut document, "task.output_type", output.into());
        set(&mut document, "task.output_schema", json!({"type": "object"}));
        assert_refused(register(&sign(document), &haiku()), "OUTPUT_NOT_OFFERED", "task.output_schema", output);
    }
}

/// Schemas with something that we cannot check, and the keyword that is named.
fn unsupported_schemas() -> Vec<(&'static str, Value, &'static str)> {
    let of_x = |schema: Value| json!({"properties": {"x": schema}});
    vec![
        ("$dynamicRef", json!({"$dynamicRef": "#node"}), "$dynamicRef"),
        ("a $dynamicAnchor", json!({"$dynamicAnchor": "node", "type": "object"}), "$dynamicAnchor"),
        ("unevaluatedProperties", json!({"type": "object", "unevaluatedProperties": false}), "unevaluatedProperties"),
        (
            "unevaluatedItems, far down",
            of_x(json!({"items": {"unevaluatedItems": false}})),
            "properties.x.items.unevaluatedItems",
        ),
        ("a remote $ref", of_x(json!({"$ref": "https://example.com/schema.json"})), "properties.x.$ref"),
        ("a $ref to a file", json!({"$ref": "other.json#/x"}), "$ref"),
        ("a $ref that leads nowhere", json!({"$ref": "#/$defs/none"}), "$ref"),
        ("a typo", of_x(json!({"type": "string", "maxLenght": 3})), "properties.x.maxLenght"),
        ("a keyword of another draft", json!({"definitions": {"a": true}}), "definitions"),
        ("another draft", json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "$schema"),
        ("a lookahead", of_x(json!({"pattern": "^(?=a)"})), "properties.x.pattern"),
        ("a lookbehind", of_x(json!({"pattern": "(?<!a)b"})), "properties.x.pattern"),
        ("a back-reference", of_x(json!({"pattern": "^(a)\\1$"})), "properties.x.pattern"),
        ("half a pattern", of_x(json!({"pattern": "("})), "properties.x.pattern"),
        ("a type that does not exist", of_x(json!({"type": "text"})), "properties.x.type"),
        ("a negative maxLength", of_x(json!({"maxLength": -1})), "properties.x.maxLength"),
        ("a subschema that is a string", of_x(json!("string")), "properties.x"),
    ]
}

#[test]
fn a_schema_that_cannot_be_checked_in_full_is_refused_at_its_keyword() {
    for member in ["task.input_schema", "task.output_schema"] {
        for (name, schema, field) in unsupported_schemas() {
            let refused = with(member, schema);
            assert_refused(refused, "SCHEMA_UNSUPPORTED", &format!("{member}.{field}"), &format!("{name} in {member}"));
        }
    }
    let own = super::Capability { output_schema: Some(json!({"unevaluatedProperties": false})), ..haiku() };
    let field = "task.output_schema.unevaluatedProperties";
    assert_refused(register(&sign(unsigned()), &own), "SCHEMA_UNSUPPORTED", field, "the capability's own");
}

#[test]
fn a_schema_that_can_be_checked_is_taken() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"line": {"type": "string", "pattern": "^[^\\n]+$", "maxLength": 80}},
        "type": "object",
        "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 3, "maxItems": 3}},
        "required": ["lines"],
        "additionalProperties": false,
    });
    let mut document = unsigned();
    set(&mut document, "task.input_schema", schema.clone());
    set(&mut document, "task.output_schema", schema.clone());
    let agreed = register(&sign(document), &haiku()).unwrap();
    assert_eq!((agreed.output, agreed.output_schema), (OutputType::Json, Some(schema)));
}

#[test]
fn other_terms_that_can_be_promised_are_taken() {
    for (path, value) in [
        ("terms.price.amount", json!("3")),
        ("terms.price.amount", json!("0.010000000")),
        ("terms.platform_fee", json!({"percentage": 100, "wallet": stranger().address()})),
        ("task.output_type", json!("stream")),
        ("task.output_schema", json!({"type": "object"})),
        ("sla.allow_partial", json!(true)),
    ] {
        let case = value.to_string();
        assert!(with(path, value).is_ok(), "{path} {case}");
    }
    let mut document = unsigned();
    remove(&mut document, "task.capability");
    assert!(register(&sign(document), &haiku()).is_ok(), "which capability is meant is not a question of its terms");
}

/// The order of the checks is the order in which a seeker hears of several faults.
#[test]
fn of_several_terms_the_first_is_named() {
    let mut document = unsigned();
    let mut expected = Vec::new();
    for (path, value, field) in [
        ("sla.refund_conditions", json!(["quality_rejected"]), "sla.refund_conditions"),
        ("task.input_schema", json!({"unevaluatedItems": true}), "task.input_schema.unevaluatedItems"),
        ("terms.deadline", date(-DAYS), "terms.deadline"),
        ("sla.max_latency_ms", json!(1), "sla.max_latency_ms"),
        ("created_at", date(6 * MINUTES), "created_at"),
        ("terms.price.amount", json!("0.001"), "terms.price.amount"),
        ("parties.worker.agent_id", json!("agent_grace"), "parties.worker.agent_id"),
        ("task.output_type", json!("video"), "task.output_type"),
        ("sla.retry_policy", json!("often"), "sla.retry_policy"),
        ("terms.payment_trigger", json!("escrow"), "terms.payment_trigger"),
    ] {
        set(&mut document, path, value);
        let signed = sign(document.clone());
        let refusal = check_terms(&read(&signed).unwrap(), &capability("ada", "haiku"), &super::network(), NOW);
        expected.push(field);
        assert_eq!(super::code_and_field(&refusal.unwrap_err()).1, field, "after {expected:?}");
    }
}
