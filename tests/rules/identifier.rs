//! Identifiers: of payments, as callers send them and as they are kept; and of objects, runs and tasks.

use coinslot::testing::rules::ids::{
    is_hex_128, object_of, object_of_task, owner_object, run_id, run_number, task_id, wallet_object,
};
use coinslot::testing::rules::payment::identifier::{of_extensions, of_header, IdempotencyKey};
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

fn digest_of(header: Option<&str>, extension: Option<&str>) -> Option<String> {
    IdempotencyKey::new(header, extension, "request").map(|key| key.key)
}

/// A client that signs another payment for the same intention sends the same header, and may draw another identifier.
#[test]
fn of_two_identifiers_the_header_is_the_key_and_without_any_there_is_none() {
    let of_header = digest_of(Some("idempotency-key:k"), None);
    assert_eq!(digest_of(Some("idempotency-key:k"), Some("payment-identifier:other")), of_header);
    let of_extension = digest_of(None, Some("payment-identifier:other"));
    assert!(of_header.is_some() && of_extension.is_some() && of_header != of_extension);
    assert_eq!(IdempotencyKey::new(None, None, "request"), None);
}

/// Which payment it comes with, and at what price, is not part of it: another payment is to find the same run.
#[test]
fn a_key_is_of_one_identifier_and_one_request() {
    let key = |id: &str, request: &str| IdempotencyKey::new(Some(id), None, request).unwrap();
    let first = key("idempotency-key:k", "request");
    assert_eq!(first, key("idempotency-key:k", "request"));
    assert_eq!(first.request, "request");
    let other_id = key("idempotency-key:l", "request");
    assert!(other_id.key != first.key && other_id.request == first.request);
    let other_request = key("idempotency-key:k", "other");
    assert!(other_request.key == first.key && other_request.request != first.request);
}

/// What is kept tells nobody what the caller has sent.
#[test]
fn a_key_keeps_a_digest_of_the_identifier_only() {
    let stored = serde_json::to_string(&IdempotencyKey::new(Some("idempotency-key:SECRET"), None, "digest")).unwrap();
    assert!(!stored.contains("SECRET"), "{stored}");
}

// Objects, and the ids of runs and tasks that lead to them.

#[test]
fn a_wallet_has_one_object_for_all_chains_of_a_namespace() {
    let (wallet, other) = (payment().payer, payment().pay_to);
    let object = wallet_object("eip155:8453", wallet);
    assert_eq!(wallet_object("eip155:84532", wallet), object);
    assert_ne!(wallet_object("eip155:8453", other), object);
    assert_ne!(wallet_object("solana:8453", wallet), object);
    assert!(is_hex_128(&object) && !object.contains(&wallet.to_string()[2..10].to_lowercase()), "{object}");
    assert_eq!(payment().object(), wallet_object("eip155:84532", wallet));
    let on_another_chain = Payment { network: "eip155:8453".to_owned(), nonce: "0x01".to_owned(), ..payment() };
    assert_eq!(on_another_chain.object(), object);
}

#[test]
fn a_creators_tests_have_an_object_that_no_wallet_has() {
    let object = owner_object("ada");
    assert!(is_hex_128(&object) && object != owner_object("bob"));
    let wallet = payment().payer;
    assert_ne!(owner_object(&wallet.to_string()), wallet_object("eip155:8453", wallet));
}

#[test]
fn a_runs_id_leads_to_its_object_and_to_its_number_there() {
    let other = "f".repeat(32);
    for object in [HEX, &*other] {
        for number in [0, 1, 255, 0xffff_ffff] {
            let id = run_id(object, number, HEX);
            assert_eq!((object_of(&id), run_number(&id)), (Some(object), Some(number)), "{id}");
            assert_eq!(id.len(), "run_".len() + 65);
        }
    }
    assert_eq!(run_id(HEX, 10, &other), format!("run_{HEX}_0000000a{}", "f".repeat(24)));
    let ids: BTreeSet<String> = [HEX, &*other].iter().flat_map(|a| [run_id(a, 1, HEX), run_id(HEX, 1, a)]).collect();
    assert_eq!(ids.len(), 3);
}

/// An object would have to begin four thousand million runs. The id of the next one leads to no run.
#[test]
fn a_number_that_an_id_has_no_room_for_leads_nowhere() {
    assert_eq!(object_of(&run_id(HEX, 1 << 32, HEX)), None);
}

#[test]
fn a_tasks_id_leads_to_its_seekers_object() {
    let object = wallet_object("eip155:8453", payment().payer);
    let id = task_id(&object, HEX);
    assert_eq!((object_of_task(&id), &*id), (Some(&*object), &*format!("task_{object}_{HEX}")));
    assert_eq!((object_of(&id), object_of_task(&run_id(&object, 1, HEX))), (None, None), "a task is no run");
    for other in ["", "task_", &id.replace("task_", "run_"), &id[..id.len() - 1], &id.to_uppercase(), "task_../../x_y"]
    {
        assert_eq!(object_of_task(other), None, "{other}");
    }
}

#[test]
fn garbage_is_no_runs_id() {
    let (upper, short, long) = (HEX.to_ascii_uppercase(), &HEX[1..], format!("{HEX}0"));
    let wrong = [&*upper, short, &*long, "", "g123456789abcdef0123456789abcdef", "é1234567890abcdef0123456789abcd"];
    let of_parts = wrong.iter().flat_map(|part| [format!("run_{part}_{HEX}"), format!("run_{HEX}_{part}")]);
    let others = [
        String::new(),
        "run_".to_owned(),
        format!("run_{HEX}"),
        format!("{HEX}_{HEX}"),
        format!("RUN_{HEX}_{HEX}"),
        format!("run_{HEX}_{HEX}_"),
        format!("run_{HEX}_{HEX}_{HEX}"),
        format!("run__{HEX}"),
        format!("run__{HEX}_{HEX}"),
        format!("run_test_{HEX}_{HEX}"),
        format!("run_hire_{HEX}_{HEX}"),
        format!(" run_{HEX}_{HEX}"),
        format!("run_{HEX}_{HEX}\n"),
        format!("run_../{HEX}_{HEX}"),
    ];
    for id in of_parts.chain(others) {
        assert_eq!((object_of(&id), run_number(&id)), (None, None), "{id:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn every_id_that_is_made_is_read_and_every_id_that_is_read_is_one_that_is_made(
        object in "[0-9a-f]{32}", number in any::<u32>(), random in "[0-9a-f]{32}", text in "(run_)?[0-9a-f]{31,33}_[0-9a-fg]{31,33}",
    ) {
        let id = run_id(&object, u64::from(number), &random);
        prop_assert_eq!((object_of(&id), run_number(&id)), (Some(&*object), Some(u64::from(number))));
        if let (Some(object), Some(number)) = (object_of(&text), run_number(&text)) {
            prop_assert_eq!(run_id(object, number, &text[text.len() - 24..]), text);
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
