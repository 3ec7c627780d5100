//! Identifiers: of payments, as callers send them and as they are claimed; and of runs.

use coinslot::testing::rules::ids::{object_of, run_id};
use coinslot::testing::rules::payment::identifier::{of_extensions, of_header, Claim};
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::evm::Address;
use proptest::prelude::*;
use serde_json::{json, Value};
use std::collections::BTreeSet;

const HEX: &str = "0123456789abcdef0123456789abcdef";

pub fn payment() -> Payment {
    let address = |text| Address::parse(text).unwrap();
    Payment {
        x402_version: 2,
        payload: json!({}),
        requirements: json!({}),
        network: "eip155:84532".to_owned(),
        network_v1: "base-sepolia".to_owned(),
        asset: address("0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
        pay_to: address("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
        amount: Amount(10_000),
        payer: address("0x857b06519E91e3A54538791bDbb0E22373e36b66"),
        by_key: true,
        valid_before: 1_740_672_154,
        nonce: format!("0x{}", "ab".repeat(32)),
        name: HEX.to_owned(),
        proof: "p".to_owned(),
    }
}

fn extension(id: Value) -> Result<Option<String>, Refusal> {
    of_extensions(
        &json!({"x402Version": 2, "extensions": {"payment-identifier": {"info": {"required": false, "id": id}}}}),
    )
}

fn header(text: &str) -> Result<Option<String>, Refusal> {
    of_header(Some(text))
}

/// x402 `payment_identifier`: 16 to 128 characters, alphanumeric, hyphen and underscore.
#[test]
fn a_payment_identifier_has_the_form_that_the_extension_gives_it() {
    let (shortest, longest) = ("a".repeat(16), "Z".repeat(128));
    for id in [&*shortest, &*longest, "pay_7d5d747be160e280", "----------------", "0123456789012345"] {
        assert_eq!(extension(json!(id)), Ok(Some(format!("payment-identifier:{id}"))));
    }
    let (short, long) = ("a".repeat(15), "a".repeat(129));
    for id in [
        &*short,
        &*long,
        "",
        "pay 7d5d747be160e280",
        "pay.7d5d747be160e280",
        "päy_7d5d747be160e280",
        "pay_7d5d747be160e280\n",
    ] {
        assert_eq!(extension(json!(id)), Err(Refusal::IdentifierInvalid), "{id:?}");
    }
    for id in [json!(1234567890123456_u64), json!(true), json!([]), json!({}), json!(["a".repeat(16)])] {
        assert_eq!(extension(id.clone()), Err(Refusal::IdentifierInvalid), "{id}");
    }
}

#[test]
fn a_payment_without_the_extension_has_no_identifier() {
    for payment in [
        json!({}),
        json!({"extensions": null}),
        json!({"extensions": {}}),
        json!({"extensions": {"payment-identifier": {}}}),
        json!({"extensions": {"payment-identifier": {"info": {"required": true}}}}),
        json!({"extensions": {"payment-identifier": {"info": {"id": null}}}}),
        json!({"extensions": {"bazaar": {"info": {"id": "x"}}}}),
        json!([]),
    ] {
        assert_eq!(of_extensions(&payment), Ok(None), "{payment}");
    }
}

#[test]
fn an_idempotency_key_is_visible_ascii_with_or_without_quotes() {
    assert_eq!(of_header(None), Ok(None));
    let key = |key: &str| Ok(Some(format!("idempotency-key:{key}")));
    for (text, read) in [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("\"8e03978e\"", "8e03978e"),
        ("  8e03978e\t", "8e03978e"),
        ("x", "x"),
        ("\"", "\""),
        ("\"half", "\"half"),
        ("a b~!", "a b~!"),
    ] {
        assert_eq!(header(text), key(read), "{text:?}");
    }
    let (longest, long) = ("k".repeat(255), "k".repeat(256));
    assert_eq!(header(&longest), key(&longest));
    assert_eq!(header(&format!("\"{longest}\"")), key(&longest), "the quotes do not count");
    for text in ["", "  ", "\"\"", "schlüssel", "a\u{7f}", "a\nb", "a\0b", &long] {
        assert_eq!(header(text), Err(Refusal::IdentifierInvalid), "{text:?}");
    }
}

#[test]
fn the_two_kinds_of_identifiers_never_meet() {
    let id = "a".repeat(16);
    assert_ne!(header(&id), extension(json!(id)));
    assert_ne!(header(&format!("payment-identifier:{id}")), extension(json!(id)));
}

fn claim(payment: &Payment) -> Claim {
    Claim::new("idempotency-key:k", "digest", payment)
}

#[test]
fn a_claim_is_for_one_identifier_one_request_under_its_terms_and_one_payment() {
    let first = claim(&payment());
    assert_eq!(first, claim(&payment()));
    assert_eq!(first.object, HEX);
    let other = Claim::new("idempotency-key:l", "digest", &payment());
    assert_eq!((&other.request, &other.object), (&first.request, &first.object));
    assert_ne!(other.identifier, first.identifier);
    let address = Address::from([7; 20]);
    for (what, other) in [
        ("request", Claim::new("idempotency-key:k", "other", &payment())),
        ("network", claim(&Payment { network: "eip155:8453".to_owned(), ..payment() })),
        ("asset", claim(&Payment { asset: address, ..payment() })),
        ("amount", claim(&Payment { amount: Amount(10_001), ..payment() })),
        ("payTo", claim(&Payment { pay_to: address, ..payment() })),
    ] {
        assert_eq!(other.identifier, first.identifier, "{what}");
        assert_ne!(other.request, first.request, "{what}");
    }
    let (nonce, name) = ("0x01".to_owned(), "another".to_owned());
    let again = claim(&Payment { nonce, name, valid_before: 0, proof: String::new(), ..payment() });
    assert_eq!(
        (&again.identifier, &again.request),
        (&first.identifier, &first.request),
        "another payment for the same"
    );
    assert_ne!(again.object, first.object);
}

/// What is kept tells nobody what the caller has sent.
#[test]
fn a_claim_keeps_digests_only() {
    let stored = serde_json::to_string(&Claim::new("idempotency-key:SECRET", "DIGEST", &payment())).unwrap();
    assert!(!stored.contains("SECRET") && !stored.contains("DIGEST"), "{stored}");
}

#[test]
fn a_runs_id_leads_to_its_object_and_to_no_other() {
    let (other, test) = ("f".repeat(32), format!("test_{HEX}"));
    for object in [HEX, &*other, &*test] {
        let id = run_id(object, HEX);
        assert_eq!(object_of(&id), Some(object), "{id}");
    }
    let ids: BTreeSet<String> = [HEX, &*other].iter().flat_map(|a| [run_id(a, HEX), run_id(HEX, a)]).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn garbage_is_no_runs_id() {
    let (upper, short, long) = (HEX.to_ascii_uppercase(), &HEX[1..], format!("{HEX}0"));
    let wrong = [&*upper, short, &*long, "", "g123456789abcdef0123456789abcdef", "é1234567890abcdef0123456789abcd"];
    for part in wrong {
        for id in [run_id(part, HEX), run_id(HEX, part), run_id(&format!("test_{part}"), HEX)] {
            assert_eq!(object_of(&id), None, "{id}");
        }
    }
    for id in [
        String::new(),
        "run_".to_owned(),
        format!("run_{HEX}"),
        format!("{HEX}_{HEX}"),
        format!("RUN_{HEX}_{HEX}"),
        format!("run_{HEX}_{HEX}_"),
        format!("run_{HEX}_{HEX}_{HEX}"),
        format!("run__{HEX}"),
        format!("run_test_{HEX}"),
        format!("run_test_test_{HEX}_{HEX}"),
        format!("run_toast_{HEX}_{HEX}"),
        format!(" run_{HEX}_{HEX}"),
        format!("run_{HEX}_{HEX}\n"),
        format!("run_../{HEX}_{HEX}"),
    ] {
        assert_eq!(object_of(&id), None, "{id:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn every_id_that_is_made_is_read_and_every_id_that_is_read_is_one_that_is_made(
        object in "(test_)?[0-9a-f]{32}", random in "[0-9a-f]{32}", text in "(run_)?(test_)?[0-9a-fg_]{28,70}",
    ) {
        let id = run_id(&object, &random);
        prop_assert_eq!(object_of(&id), Some(&*object));
        if let Some(object) = object_of(&text) {
            prop_assert_eq!(run_id(object, text.rsplit('_').next().unwrap()), text);
        }
    }

    /// A header may hold anything: what is taken is what was sent.
    #[test]
    fn an_idempotency_key_comes_through_as_it_was_sent(text in any::<String>(), key in "[!#-~]{1,255}") {
        if let Ok(read) = header(&text) {
            let read = read.unwrap();
            prop_assert!(text.contains(read.strip_prefix("idempotency-key:").unwrap()));
        }
        prop_assert_eq!(header(&key), Ok(Some(format!("idempotency-key:{key}"))));
        prop_assert_eq!(header(&format!("\"{key}\"")), header(&key));
    }
}
