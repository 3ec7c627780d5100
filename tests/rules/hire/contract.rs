//! Reading a contract: its form, down to the member that is wrong, and the JSON that it is sent as.

use super::{assert_refused, date, draft, remove, set, sign, signed_with, unsigned, CONTRACT_ID, NOW};
use coinslot::testing::rules::hire::contract::{check_signed, read};
use coinslot::testing::wire::hire::{RefundCondition, Sla};
use coinslot::testing::wire::strict;
use serde_json::{json, Value};

const MALFORMED: &str = "CONTRACT_MALFORMED";

/// Also read by the stack tests, which check that HIRE's own schema refuses each of them in another implementation.
const MALFORMED_CONTRACTS: &str = include_str!("../../hire/malformed_contracts.json");

#[test]
fn a_signed_contract_is_read() {
    let document = sign(unsigned());
    let contract = read(&document).unwrap();
    assert_eq!(contract.contract_id, CONTRACT_ID);
    assert_eq!(contract.parties.seeker.wallet, super::seeker().address().to_string());
    assert_eq!(
        (contract.terms.price.amount.as_str(), contract.terms.payment_trigger.as_str()),
        ("0.01", "on_delivery")
    );
    assert_eq!(Value::from(contract.hash), document["hash"]);
}

#[test]
fn what_the_schema_of_hire_refuses_is_refused_at_the_member_that_is_wrong() {
    let cases: Vec<Value> = serde_json::from_str(MALFORMED_CONTRACTS).unwrap();
    assert!(cases.len() > 100, "only {} cases", cases.len());
    for case in cases {
        let path = case["path"].as_str().unwrap();
        let field = case["field"].as_str().unwrap_or(path);
        let mut document = sign(unsigned());
        match case.get("value") {
            Some(value) => set(&mut document, path, value.clone()),
            None => remove(&mut document, path),
        }
        // Where hash and signatures are not what is wrong, they are right.
        let is_signature = path.starts_with("hash") || path.starts_with("signatures");
        let document = if is_signature { document } else { sign(document) };
        assert_refused(read(&document), MALFORMED, field, &case.to_string());
    }
}

#[test]
fn a_value_that_only_we_can_judge_is_refused_at_its_member() {
    let long_id = format!("ctr_{}", "a".repeat(65));
    let (short, hex, bare, long) = (
        format!("0x{}", "0".repeat(39)),
        format!("0x{}", "g".repeat(40)),
        "f".repeat(40),
        format!("0x{}", "0".repeat(41)),
    );
    let worker = format!(" {}", super::worker().address());
    let cases: [(&str, &[&str]); 6] = [
        ("version", &["HIRE/2.0", "HIRE/1.1", "hire/1.0", "1.0"]),
        ("contract_id", &["ctr_", "ctr_ABC", "ctr_a-b", "contract_1", &long_id]),
        (
            "created_at",
            &[
                "yesterday",
                "2025-01-30",
                "2025-02-30T12:00:00Z",
                "2025-01-30T12:00:00",
                "1738238400",
                "1960-01-01T00:00:00Z",
            ],
        ),
        ("terms.deadline", &["soon", "2099-13-01T00:00:00Z", "2099-01-01 00:00"]),
        ("parties.seeker.wallet", &["", "0x", "ada.eth", &short, &hex, &bare, &long]),
        ("parties.worker.wallet", &["0x12", &worker]),
    ];
    for (path, values) in cases {
        for value in values {
            let document = signed_with(path, (*value).into());
            assert_refused(read(&document), MALFORMED, path, &format!("{path} {value}"));
        }
    }
    let mut document = sign(unsigned());
    document["signatures"]["timestamp"] = "now".into();
    assert_refused(read(&document), MALFORMED, "signatures.timestamp", "signed at no date");
}

#[test]
fn a_wrong_value_of_a_member_of_ours_is_refused_at_its_member() {
    for (path, value) in [
        ("task.capability", json!(7)),
        ("task.output_type", json!(["text"])),
        ("parties.seeker.webhook_url", json!(7)),
        ("sla.allow_partial", json!("yes")),
    ] {
        assert_refused(read(&signed_with(path, value)), MALFORMED, path, path);
    }
}

#[test]
fn what_is_no_object_is_no_contract() {
    for document in [json!(null), json!([sign(unsigned())]), json!("contract"), json!({}), draft()] {
        assert!(read(&document).is_err(), "{document}");
    }
    assert_refused(read(&json!([])), MALFORMED, "body", "an array");
}

#[test]
fn a_body_that_is_not_one_plain_json_value_is_not_read() {
    let text = sign(unsigned()).to_string();
    let with_member = |member: &str| text.replacen("\"version\":", &format!("{member},\"version\":"), 1);
    let bodies = [
        String::new(),
        "contract".to_owned(),
        text[..text.len() - 1].to_owned(),
        format!("{text} x"),
        format!("{text}{text}"),
        with_member("\"version\":\"HIRE/1.0\""),
        with_member("\"vers\\u0069on\":\"HIRE/1.0\""),
        text.replacen("\"amount\":", "\"amount\":\"0.01\",\"amount\":", 1),
        with_member("\"x\":[{\"a\":1,\"a\":1}]"),
        with_member("\"x\":\"\\ud800\""),
        with_member("\"x\":1e999"),
        with_member(&format!("\"x\":{}{}", "[".repeat(200), "]".repeat(200))),
        with_member(&format!("\"x\":[{}0]", "0,".repeat(30_000))),
        text.replacen("\"version\":", "/* x */\"version\":", 1),
    ];
    for body in &bodies {
        assert!(*body != text && strict::from_slice(body.as_bytes()).is_err(), "{body}");
    }
    let mut latin1 = text.replacen("a coin", "a caf#", 1).into_bytes();
    let place = latin1.iter().position(|byte| *byte == b'#').unwrap();
    latin1[place] = 0xe9;
    assert!(strict::from_slice(&latin1).is_err(), "not UTF-8");
    // These are JSON, and no objects.
    for body in [format!("[{text}]"), serde_json::to_string(&text).unwrap(), "null".to_owned()] {
        let value = strict::from_slice(body.as_bytes()).unwrap();
        assert!(!value.is_object(), "{body}");
        assert_refused(read(&value), MALFORMED, "body", &body);
    }
    assert!(strict::from_slice(text.as_bytes()).is_ok());
}

/// RFC 8785 has one spelling for a number, and the signatures are over that one. Python writes 1.0.
#[test]
fn a_number_in_another_spelling_is_the_same_contract() {
    for (value, spelling) in [(json!(1), "1.0"), (json!(1), "1e0"), (json!(0), "-0.0"), (json!(1.5), "15e-1")] {
        let document = signed_with("terms.platform_fee.percentage", value.clone());
        let text = document.to_string();
        let respelled = text.replacen(&format!("\"percentage\":{value}"), &format!("\"percentage\":{spelling}"), 1);
        assert_ne!(respelled, text);
        let document = strict::from_slice(respelled.as_bytes()).unwrap();
        let contract = read(&document).unwrap();
        assert_eq!(check_signed(&document, &contract), Ok(()), "{spelling}");
    }
}

/// JSON Schema's `integer` is about the number, and not about its spelling.
#[test]
fn a_latency_of_30000_point_0_is_a_whole_number() {
    let text = signed_with("sla", json!({"max_latency_ms": 30_000})).to_string().replacen(":30000", ":30000.0", 1);
    let document = strict::from_slice(text.as_bytes()).unwrap();
    let contract = read(&document).unwrap();
    assert_eq!(contract.sla.max_latency_ms, Some(30_000));
    assert!(super::register(&document, &super::haiku()).is_ok());
}

#[test]
fn the_sla_is_read_with_its_defaults() {
    let contract = read(&sign(unsigned())).unwrap();
    assert_eq!((contract.sla.max_latency_ms, contract.sla.allow_partial), (None, false));
    assert_eq!(contract.sla.refund_conditions, []);
    let sla = json!({"refund_conditions": ["deadline_missed", "no_response"], "allow_partial": true});
    let contract = read(&signed_with("sla", sla)).unwrap();
    assert!(contract.sla.allow_partial);
    assert_eq!(contract.sla.refund_conditions, [RefundCondition::DeadlineMissed, RefundCondition::NoResponse]);
    let created = date(0);
    assert_eq!(Value::from(contract.created_at), created, "{NOW}");
}

#[test]
fn how_often_a_contract_may_be_executed() {
    let attempts = |policy: Option<&str>| Sla { retry_policy: policy.map(str::to_owned), ..Sla::default() }.attempts();
    assert_eq!(attempts(None), Some(3));
    for (policy, wanted) in [("none", 1), ("1", 1), ("1 attempt", 1), ("3", 3), ("3 attempts", 3), ("10 attempts", 10)]
    {
        assert_eq!(attempts(Some(policy)), Some(wanted), "{policy}");
    }
    for policy in
        ["", "0", "11", "01", "-1", "+3", "3 attempt s", "three", "3 attempts ", "None", "3 retries", "attempts"]
    {
        assert_eq!(attempts(Some(policy)), None, "{policy}");
    }
}
