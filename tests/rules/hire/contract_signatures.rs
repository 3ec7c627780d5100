//! Hash and signatures: whatever is changed after signing is found, and only the two wallets can sign.

use super::{
    assert_refused, draft, haiku, seeker, set, sign, sign_as, stranger, unsigned, worker, CONTRACT_ID, DAY, MINUTE, NOW,
};
use coinslot::testing::rules::hire::contract::{check_signed, read};
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::wire::eip191::Signer;
use coinslot::testing::wire::evm::keccak;
use coinslot::testing::wire::hire;
use coinslot::testing::wire::timestamp;
use k256::ecdsa::{Signature, SigningKey};
use serde_json::{json, Value};

const MISMATCH: &str = "CONTRACT_HASH_MISMATCH";
const WORKER_INVALID: &str = "WORKER_SIGNATURE_INVALID";
const SEEKER_INVALID: &str = "SEEKER_SIGNATURE_INVALID";

fn check(document: &Value) -> Result<(), Refusal> {
    check_signed(document, &read(document).unwrap())
}

/// A contract that has every member there is, and some that no schema knows.
fn rich() -> Value {
    json!({
        "version": "HIRE/1.0",
        "contract_id": CONTRACT_ID,
        "created_at": timestamp::format(NOW - MINUTE),
        "parties": {
            "seeker": {
                "agent_id": "agent_seeker", "wallet": seeker().address(),
                "webhook_url": "https://hooks.example.com/heard?by=me", "x_department": "poetry",
            },
            "worker": {"agent_id": haiku().agent.id, "wallet": worker().address(), "x_nickname": "the poet"},
        },
        "task": {
            "description": "Un haïku, s’il vous plaît 💰", "requirements": ["three lines", "no rhyme"],
            "capability": "haiku", "output_type": "json",
            "input_schema": {
                "type": "object", "properties": {"topic": {"type": "string", "maxLength": 40}}, "required": ["topic"],
            },
            "output_schema": {
                "type": "object", "properties": {"lines": {"type": "array", "minItems": 3}}, "required": ["lines"],
                "additionalProperties": false,
            },
            "x_priority": 3,
        },
        "terms": {
            "price": {"amount": "0.25", "currency": "USDC", "network": "base", "x_tax": "0.02"},
            "deadline": timestamp::format(NOW + DAY),
            "payment_trigger": "on_delivery",
            "platform_fee": {"percentage": 1.5, "wallet": stranger().address(), "x_reason": "because"},
            "x_penalty": {"steps": [1, -2.5, true, null, "é"]},
        },
        "sla": {
            "max_latency_ms": 60_000, "retry_policy": "2 attempts",
            "refund_conditions": ["deadline_missed", "no_response"], "allow_partial": true, "x_uptime": 0.99,
        },
        "x_invoice": {"number": "A-1", "paid": false, "lines": []},
    })
}

/// The JSON pointers of all members and items of a value, from the outside inward.
fn pointers(value: &Value, here: &str) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        _ => vec![],
    };
    let below = |(name, value): (String, &Value)| {
        let pointer = format!("{here}/{name}");
        [vec![pointer.clone()], pointers(value, &pointer)].concat()
    };
    children.into_iter().flat_map(below).collect()
}

/// Asserts that this document, which is a contract by its form, is refused for its hash.
fn assert_mismatch(changed: &Value, case: &str) {
    let result = check(changed);
    assert_refused(result.clone(), MISMATCH, "hash", case);
    let detail = result.unwrap_err().detail().unwrap();
    assert_eq!(detail.expected, hire::hash(changed), "{case}");
}

/// Another value that could stand at this place just as well.
fn another(pointer: &str, value: &Value) -> Value {
    let a_second_later = |date: &str| timestamp::format(timestamp::parse(date).unwrap() + 1000).into();
    match (pointer, value) {
        ("/terms/payment_trigger", _) => "on_acceptance".into(),
        ("/sla/refund_conditions/0" | "/sla/refund_conditions/1", _) => "output_schema_invalid".into(),
        ("/created_at" | "/terms/deadline", Value::String(date)) => a_second_later(date),
        ("/terms/price/amount", _) => "0.26".into(),
        (_, Value::String(text)) => {
            let last = if text.ends_with('a') { 'b' } else { 'a' };
            let kept: String = text.chars().take(text.chars().count() - 1).collect();
            format!("{kept}{last}").into()
        }
        (_, Value::Number(number)) => match number.as_i64() {
            Some(whole) => (whole + 1).into(),
            None => (number.as_f64().unwrap() + 1.0).into(),
        },
        (_, Value::Bool(flag)) => (!flag).into(),
        (_, Value::Null) => false.into(),
        _ => json!(["more"]),
    }
}

/// The members of a signed contract that the hash covers.
fn hashed_pointers(document: &Value) -> Vec<String> {
    let all = pointers(document, "");
    all.into_iter().filter(|at| at != "/hash" && !at.starts_with("/signatures")).collect()
}

#[test]
fn a_signed_contract_is_what_both_have_signed() {
    for document in [unsigned(), rich()] {
        assert_eq!(check(&sign(document)), Ok(()));
    }
}

#[test]
fn another_value_of_any_member_is_found() {
    let contract = sign(rich());
    let is_leaf = |at: &String| {
        let value = contract.pointer(at).unwrap();
        pointers(value, "").is_empty()
    };
    // The schema allows one value for each of these.
    let fixed = ["/version", "/terms/price/currency", "/terms/price/network"];
    let leaves = hashed_pointers(&contract).into_iter().filter(is_leaf).filter(|at| !fixed.contains(&at.as_str()));
    let leaves: Vec<String> = leaves.collect();
    assert!(leaves.len() >= 45, "only {} members", leaves.len());
    for at in leaves {
        let mut changed = contract.clone();
        let value = changed.pointer_mut(&at).unwrap();
        *value = another(&at, value);
        assert_mismatch(&changed, &at);
    }
}

#[test]
fn a_missing_member_is_found() {
    let contract = sign(rich());
    // Without these it would be no contract by its form.
    let needed = [
        "/version",
        "/contract_id",
        "/created_at",
        "/parties",
        "/parties/seeker",
        "/parties/worker",
        "/parties/seeker/agent_id",
        "/parties/seeker/wallet",
        "/parties/worker/agent_id",
        "/parties/worker/wallet",
        "/task",
        "/task/description",
        "/terms",
        "/terms/price",
        "/terms/price/amount",
        "/terms/price/currency",
        "/terms/price/network",
        "/terms/deadline",
        "/terms/payment_trigger",
        "/terms/platform_fee",
        "/terms/platform_fee/percentage",
        "/terms/platform_fee/wallet",
    ];
    let optional = hashed_pointers(&contract).into_iter().filter(|at| !needed.contains(&at.as_str()));
    let optional: Vec<String> = optional.collect();
    assert!(optional.len() > 30, "only {} members", optional.len());
    for at in optional {
        let mut changed = contract.clone();
        let (parent, name) = at.rsplit_once('/').unwrap();
        match changed.pointer_mut(parent).unwrap() {
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            parent => drop(parent.as_object_mut().unwrap().remove(name).unwrap()),
        }
        assert_mismatch(&changed, &at);
    }
}

#[test]
fn an_added_member_is_found_in_any_object() {
    let contract = sign(rich());
    let objects = [String::new()].into_iter().chain(hashed_pointers(&contract));
    let objects: Vec<String> = objects.filter(|at| contract.pointer(at).unwrap().is_object()).collect();
    assert!(objects.len() > 12, "only {} objects", objects.len());
    for at in objects {
        let mut changed = contract.clone();
        changed.pointer_mut(&at).unwrap()["x_more"] = Value::Null;
        assert_mismatch(&changed, &at);
    }
}

#[test]
fn another_order_type_or_normalisation_is_found() {
    let contract = sign(rich());
    let with = |path: &str, value: Value| {
        let mut changed = contract.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    for (path, value) in [
        ("/task/requirements", json!(["no rhyme", "three lines"])),
        ("/task/x_priority", json!("3")),
        ("/terms/x_penalty/steps/3", json!("null")),
        ("/x_invoice/paid", Value::Null),
        // The same text with its letters decomposed (NFD).
        ("/task/description", json!("Un hai\u{308}ku, s’il vous plai\u{302}t 💰")),
    ] {
        assert_mismatch(&with(path, value), path);
    }
}

#[test]
fn another_hash_is_found() {
    let contract = sign(rich());
    let hash = contract["hash"].as_str().unwrap();
    let other_end = if hash.ends_with('0') { '1' } else { '0' };
    for other in [format!("{}{other_end}", &hash[..hash.len() - 1]), format!("sha256:{}", "0".repeat(64))] {
        let mut changed = contract.clone();
        changed["hash"] = other.into();
        assert_mismatch(&changed, "the hash itself");
    }
}

#[test]
fn a_new_text_with_its_own_hash_needs_both_signatures_anew() {
    let contract = sign(rich());
    let mut changed = contract.clone();
    set(&mut changed, "task.description", "Ten haiku".into());
    let hash = hire::hash(&changed);
    changed["hash"] = hash.clone().into();
    assert_refused(check(&changed), WORKER_INVALID, "signatures.worker", "by neither");
    let mut by_seeker = changed.clone();
    by_seeker["signatures"]["seeker"] = seeker().sign(&hash).unwrap().into();
    assert_refused(check(&by_seeker), WORKER_INVALID, "signatures.worker", "by the seeker alone");
    let mut by_worker = changed.clone();
    by_worker["signatures"]["worker"] = worker().sign(&hash).unwrap().into();
    assert_refused(check(&by_worker), SEEKER_INVALID, "signatures.seeker", "by the worker alone");
    by_worker["signatures"]["seeker"] = seeker().sign(&hash).unwrap().into();
    assert_eq!(check(&by_worker), Ok(()));
}

/// The signature with `n - s` for `s`, and the other `v`: it recovers to the same key, and is another text.
fn with_high_s(signature: &str) -> String {
    let bytes = hex::decode(&signature[2..]).unwrap();
    let low = Signature::from_slice(&bytes[..64]).unwrap();
    let high = Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
    format!("0x{}{:02x}", hex::encode(high.to_bytes()), 27 + 28 - bytes[64])
}

/// EIP-191 over bytes. Our own signer takes texts only.
fn sign_bytes(key: &str, bytes: &[u8]) -> String {
    let digest = keccak(&[format!("\u{19}Ethereum Signed Message:\n{}", bytes.len()).as_bytes(), bytes].concat());
    let key = SigningKey::from_slice(&hex::decode(key).unwrap()).unwrap();
    let (signature, id) = key.sign_prehash_recoverable(&digest).unwrap();
    format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + id.to_byte())
}

/// Signatures that are not accepted for `own`, which is `signer`'s of `hash`.
fn wrong_signatures(own: &str, others: &str, hash: &str, signer: &Signer, key: &str) -> Vec<(&'static str, String)> {
    let with_v = |v: &str| format!("{}{v}", &own[..own.len() - 2]);
    let (is_27, digits) = (own.ends_with("1b"), &own[2..]);
    let last_letter = own.rfind(|c: char| ('a'..='f').contains(&c)).unwrap();
    let mut one_capital = own.to_owned();
    one_capital[last_letter..=last_letter].make_ascii_uppercase();
    let digest = hash.strip_prefix("sha256:").unwrap();
    vec![
        ("of another wallet", stranger().sign(hash).unwrap()),
        ("the other party's", others.to_owned()),
        ("in capitals", format!("0x{}", digits.to_uppercase())),
        ("with one capital", one_capital),
        ("without 0x", digits.to_owned()),
        ("with v 0 or 1", with_v(if is_27 { "00" } else { "01" })),
        ("with the other v", with_v(if is_27 { "1c" } else { "1b" })),
        ("with v 29", with_v("1d")),
        ("with a high s", with_high_s(own)),
        ("cut by a byte", own[..own.len() - 2].to_owned()),
        ("cut by a digit", own[..own.len() - 1].to_owned()),
        ("with a byte more", format!("{own}00")),
        ("with a space", format!("{own} ")),
        ("of zeros", format!("0x{}1b", "00".repeat(64))),
        ("empty", String::new()),
        ("of the digest alone, without sha256:", signer.sign(digest).unwrap()),
        ("of the digest's bytes", sign_bytes(key, &hex::decode(digest).unwrap())),
    ]
}

#[test]
fn a_signature_in_any_other_form_or_of_anything_else_is_refused_by_its_party() {
    let contract = sign(unsigned());
    let text = |pointer: &str| contract.pointer(pointer).unwrap().as_str().unwrap();
    let (hash, of_worker, of_seeker) = (text("/hash"), text("/signatures/worker"), text("/signatures/seeker"));
    for (party, signer, key, own, others, code) in [
        ("worker", worker(), "11".repeat(32), of_worker, of_seeker, WORKER_INVALID),
        ("seeker", seeker(), "22".repeat(32), of_seeker, of_worker, SEEKER_INVALID),
    ] {
        assert_eq!(sign_bytes(&key, hash.as_bytes()), own, "the test signs as the parties do");
        for (name, wrong) in wrong_signatures(own, others, hash, &signer, &key) {
            assert_ne!(wrong, own, "{name}");
            let mut changed = contract.clone();
            changed["signatures"][party] = wrong.into();
            assert_refused(check(&changed), code, &format!("signatures.{party}"), &format!("the {party}'s, {name}"));
        }
    }
}

#[test]
fn of_two_wrong_signatures_the_workers_is_named() {
    let mut contract = sign(unsigned());
    let (worker, seeker) = (contract["signatures"]["worker"].take(), contract["signatures"]["seeker"].take());
    contract["signatures"]["worker"] = seeker;
    contract["signatures"]["seeker"] = worker;
    assert_refused(check(&contract), WORKER_INVALID, "signatures.worker", "exchanged");
}

#[test]
fn a_contract_signed_by_strangers_is_refused() {
    let contract = sign_as(unsigned(), &stranger(), &seeker(), NOW);
    assert_refused(check(&contract), WORKER_INVALID, "signatures.worker", "the worker's by a stranger");
    let contract = sign_as(unsigned(), &worker(), &stranger(), NOW);
    assert_refused(check(&contract), SEEKER_INVALID, "signatures.seeker", "the seeker's by a stranger");
}

#[test]
fn wallets_in_lower_case_sign_just_as_well() {
    let mut draft = draft();
    for party in ["seeker", "worker"] {
        let wallet = if party == "seeker" { seeker().address() } else { worker().address() };
        draft["parties"][party]["wallet"] = wallet.to_string().to_lowercase().into();
    }
    assert_eq!(check(&sign(super::completed(&draft))), Ok(()));
}

#[test]
fn the_time_of_signing_is_not_part_of_the_hash() {
    let mut contract = sign(unsigned());
    contract["signatures"]["timestamp"] = timestamp::format(NOW - 1000).into();
    assert_eq!(check(&contract), Ok(()));
}

#[test]
fn a_signing_key_is_32_bytes_in_hex_within_the_order_of_the_curve() {
    let key = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
    for spelling in [key.to_owned(), format!("0x{key}"), format!("0x{}", key.to_uppercase())] {
        let wallet = Signer::read(&spelling).unwrap().address();
        assert_eq!(wallet.to_string(), "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23", "{spelling}");
    }
    for (name, text) in [
        ("too short", format!("0x{}", &key[1..])),
        ("too long", format!("0x{key}0")),
        ("a byte too long", format!("0x{key}00")),
        ("no hex", format!("0xg{}", &key[1..])),
        ("with white space", format!("0x{key}\n")),
        ("with 0x twice", format!("0x0x{key}")),
        ("empty", String::new()),
        ("a mnemonic", "test test test test test test test test test test test junk".to_owned()),
        ("an address", worker().address().to_string()),
        ("zero", format!("0x{}", "0".repeat(64))),
        ("the order of the curve", "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141".to_owned()),
    ] {
        assert!(Signer::read(&text).is_none(), "{name}");
    }
}
