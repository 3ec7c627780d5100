//! x402 on the wire: the specification's own examples (`tests/golden/SOURCES.md`), read and written.

use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::evm::{is_hash, Address, Authorization, PayloadError};
use coinslot::testing::wire::x402::{
    decode_header, encode_header, reason_code, FacilitatorRequest, HeaderError, PaymentPayload, PaymentRequired,
    PaymentRequirements, SettleResponse, Supported, VerifyResponse, MAX_HEADER,
};
use coinslot::testing::wire::x402_v1;
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{json, Map, Value};

const V2_REQUIRED: &str = include_str!("../golden/x402_v2_payment_required.json");
const V2_PAYLOAD: &str = include_str!("../golden/x402_v2_payment_payload.json");
const V1_REQUIRED: &str = include_str!("../golden/x402_v1_payment_required.json");
const V1_PAYLOAD: &str = include_str!("../golden/x402_v1_payment_payload.json");
const EIP3009: &str = include_str!("../golden/x402_exact_evm_eip3009.json");
const PERMIT2: &str = include_str!("../golden/x402_exact_evm_permit2.json");

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn written(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// What the example says, without the members named: those that coinslot does not write.
fn without(mut value: Value, members: &[&str]) -> Value {
    members.iter().for_each(|name| drop(value.as_object_mut().unwrap().remove(*name)));
    value
}

/// v2, 5.1.1
#[test]
fn the_v2_challenge_comes_back_as_it_was_read() {
    let challenge: PaymentRequired = read(V2_REQUIRED);
    assert_eq!(challenge.x402_version, 2);
    assert_eq!(challenge.resource.url, "https://api.example.com/premium-data");
    assert_eq!(challenge.accepts[0].amount, Amount(10_000));
    assert_eq!(challenge.accepts[0].max_timeout_seconds, 60);
    // The example's `extensions: {}` is the same as none.
    assert_eq!(written(&challenge), without(json_of(V2_REQUIRED), &["extensions"]));
    let mut extended = json_of(V2_REQUIRED);
    extended["extensions"] = json!({"payment-identifier": {"info": {"required": false}, "schema": {}}});
    assert_eq!(written(&serde_json::from_value::<PaymentRequired>(extended.clone()).unwrap()), extended);
}

/// v2, 5.1.2: which fields are optional.
#[test]
fn a_v2_challenge_needs_no_optional_field_and_writes_none_it_does_not_have() {
    let bare = json!({"x402Version": 2, "resource": {"url": "https://a/b"}, "accepts": [{
        "scheme": "exact", "network": "eip155:8453", "amount": "1", "asset": "0x1", "payTo": "0x2", "maxTimeoutSeconds": 60,
    }]});
    let challenge: PaymentRequired = serde_json::from_value(bare.clone()).unwrap();
    assert_eq!(challenge.error, None);
    assert_eq!(challenge.accepts[0].extra, None);
    assert_eq!(written(&challenge), bare);
}

/// v2, 5.1.2: `amount` and the rest are required.
#[test]
fn v2_terms_without_a_required_field_are_not_terms() {
    let whole = json_of(V2_REQUIRED)["accepts"][0].clone();
    for name in ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds"] {
        let terms = without(whole.clone(), &[name]);
        assert!(serde_json::from_value::<PaymentRequirements>(terms).is_err(), "{name}");
    }
    for amount in [json!(10000), json!("10000.0"), json!("-1"), json!("010"), json!("1e4"), json!(null)] {
        let mut terms = whole.clone();
        terms["amount"] = amount.clone();
        assert!(serde_json::from_value::<PaymentRequirements>(terms).is_err(), "{amount}");
    }
}

/// v2, 5.2.1
#[test]
fn the_v2_payment_comes_back_as_it_was_read() {
    let payment: PaymentPayload = read(V2_PAYLOAD);
    assert_eq!(payment.accepted, read::<PaymentRequired>(V2_REQUIRED).accepts[0]);
    assert_eq!(written(&payment), without(json_of(V2_PAYLOAD), &["extensions"]));
}

/// v2, 5.2.2: `resource` is optional, `accepted` and `payload` are not.
#[test]
fn a_v2_payment_may_leave_out_the_resource_and_nothing_else() {
    let whole = json_of(V2_PAYLOAD);
    let payment = serde_json::from_value::<PaymentPayload>(without(whole.clone(), &["resource"])).unwrap();
    assert_eq!(payment.resource, None);
    for name in ["x402Version", "accepted", "payload"] {
        assert!(serde_json::from_value::<PaymentPayload>(without(whole.clone(), &[name])).is_err(), "{name}");
    }
}

/// v1, 5.1.1
#[test]
fn the_v1_challenge_comes_back_as_it_was_read() {
    let challenge: x402_v1::PaymentRequired = read(V1_REQUIRED);
    assert_eq!(challenge.accepts[0].network, "base-sepolia");
    assert_eq!(challenge.accepts[0].max_amount_required, Amount(10_000));
    let mut golden = json_of(V1_REQUIRED);
    // The example's `outputSchema: null` is the same as none.
    golden["accepts"][0] = without(golden["accepts"][0].clone(), &["outputSchema"]);
    assert_eq!(written(&challenge), golden);
}

/// v1, 5.2.1
#[test]
fn the_v1_payment_comes_back_as_it_was_read() {
    let payment: x402_v1::PaymentPayload = read(V1_PAYLOAD);
    assert_eq!(written(&payment), json_of(V1_PAYLOAD));
    for name in ["x402Version", "scheme", "network", "payload"] {
        let partial = without(json_of(V1_PAYLOAD), &[name]);
        assert!(serde_json::from_value::<x402_v1::PaymentPayload>(partial).is_err(), "{name}");
    }
}

/// v2, 7.1 and v1, 7.1: "Example with actual data".
#[test]
fn the_facilitator_is_asked_as_the_specifications_show() {
    for (version, text) in [
        (2, include_str!("../golden/x402_v2_verify_request.json")),
        (1, include_str!("../golden/x402_v1_verify_request.json")),
    ] {
        let golden = json_of(text);
        let request = FacilitatorRequest {
            x402_version: version,
            payment_payload: &golden["paymentPayload"],
            payment_requirements: &golden["paymentRequirements"],
        };
        assert_eq!(written(&request), golden);
    }
}

/// v2, 7.1 (v1's are the same)
#[test]
fn verify_answers_are_read() {
    let payer = Some("0x857b06519E91e3A54538791bDbb0E22373e36b66".to_owned());
    let valid: VerifyResponse = read(include_str!("../golden/x402_verify_valid.json"));
    assert_eq!(valid, VerifyResponse { is_valid: true, invalid_reason: None, payer: payer.clone() });
    let invalid: VerifyResponse = read(include_str!("../golden/x402_verify_invalid.json"));
    let reason = Some("insufficient_funds".to_owned());
    assert_eq!(invalid, VerifyResponse { is_valid: false, invalid_reason: reason, payer });
}

#[test]
fn an_answer_without_a_verdict_is_no_verify_answer() {
    for text in ["{}", r#"{"payer":"0x1"}"#, r#"{"isValid":"true"}"#, r#"{"isValid":null}"#, "[]", "true"] {
        assert!(serde_json::from_str::<VerifyResponse>(text).is_err(), "{text}");
    }
    assert!(!read::<VerifyResponse>(r#"{"isValid":false}"#).is_valid, "reason and payer are optional");
    assert!(read::<VerifyResponse>(r#"{"isValid":true,"invalidReason":null,"payer":null,"x":1}"#).is_valid);
}

/// v2, 7.2 and v1, 7.2
#[test]
fn settle_answers_come_back_as_they_were_read() {
    for (text, success, network) in [
        (include_str!("../golden/x402_v2_settle_success.json"), true, "eip155:84532"),
        (include_str!("../golden/x402_v2_settle_failure.json"), false, "eip155:84532"),
        (include_str!("../golden/x402_v1_settle_success.json"), true, "base-sepolia"),
        (include_str!("../golden/x402_v1_settle_failure.json"), false, "base-sepolia"),
    ] {
        let answer: SettleResponse = read(text);
        assert_eq!((answer.success, answer.network.as_str()), (success, network));
        assert_eq!(is_hash(&answer.transaction), success);
        assert_eq!(answer.error_reason.is_some(), !success);
        assert_eq!(written(&answer), json_of(text));
    }
}

#[test]
fn an_answer_without_a_verdict_is_none() {
    for verdict in ["", r#","success":null"#, r#","success":"true""#, r#","success":1"#] {
        let text = format!(r#"{{"transaction":"0x1","network":"base"{verdict}}}"#);
        assert!(serde_json::from_str::<SettleResponse>(&text).is_err(), "{text}");
    }
    for text in ["{}", r#"{"isValid":null}"#, r#"{"isValid":"true"}"#] {
        assert!(serde_json::from_str::<VerifyResponse>(text).is_err(), "{text}");
    }
}

/// What a facilitator may leave out may be null. What is no text is no absent text either: it fits no payment.
#[test]
fn null_is_absent_and_a_value_of_another_type_is_not() {
    let read_settle = |text: &str| read::<SettleResponse>(text);
    let nulls = r#"{"success":false,"errorReason":null,"transaction":null,"network":null,"payer":null}"#;
    assert_eq!(read_settle(nulls), read_settle(r#"{"success":false}"#));
    let odd = read_settle(r#"{"success":true,"errorReason":{},"transaction":[1],"network":7,"payer":{"a":"b"}}"#);
    assert_eq!(odd.error_reason, None);
    assert!(!odd.transaction.is_empty() && !is_hash(&odd.transaction));
    assert!(!odd.network.is_empty() && odd.payer.is_some());
    let verify = |text: &str| read::<VerifyResponse>(text);
    assert_eq!(verify(r#"{"isValid":true,"invalidReason":7,"payer":null}"#), verify(r#"{"isValid":true}"#));
    assert!(verify(r#"{"isValid":true,"payer":7}"#).payer.is_some());
}

/// One odd entry says nothing about the others, and what it does not say excludes nothing.
#[test]
fn an_odd_kind_does_not_hide_the_others() {
    let supported = |kinds: Value| read::<Supported>(&json!({"kinds": kinds, "signers": null}).to_string());
    let base = json!({"x402Version": 2, "scheme": "exact", "network": "eip155:8453"});
    let covers = |supported: &Supported, network: &str| supported.covers(2, "exact", network, "none");
    let odd = supported(json!([null, 7, "exact", ["exact"], base]));
    assert!(covers(&odd, "eip155:8453") && !covers(&odd, "eip155:84532"));
    for unsaid in [json!({"network": "eip155:10", "scheme": null}), json!({"network": "eip155:10", "x402Version": "2"})]
    {
        assert!(covers(&supported(json!([unsaid])), "eip155:10"), "{unsaid}");
        assert!(!covers(&supported(json!([unsaid])), "eip155:8453"), "{unsaid}");
    }
}

/// HTTP transport v2 and v1: the headers of the examples hold the documents beside them.
#[test]
fn the_headers_of_the_examples_hold_their_documents() {
    let required: PaymentRequired =
        decode_header(include_str!("../golden/x402_v2_header_payment_required.txt")).unwrap();
    assert_eq!(required, read(V2_REQUIRED));
    let signature = include_str!("../golden/x402_v2_header_payment_signature.txt");
    assert_eq!(decode_header::<PaymentPayload>(signature).unwrap(), read(V2_PAYLOAD));
    let x_payment = include_str!("../golden/x402_v1_header_x_payment.txt");
    assert_eq!(decode_header::<x402_v1::PaymentPayload>(x_payment).unwrap(), read(V1_PAYLOAD));
    for (header, document) in [
        (
            include_str!("../golden/x402_v2_header_payment_response_success.txt"),
            include_str!("../golden/x402_v2_settle_success.json"),
        ),
        (
            include_str!("../golden/x402_v2_header_payment_response_failure.txt"),
            include_str!("../golden/x402_v2_settle_failure.json"),
        ),
        (
            include_str!("../golden/x402_v1_header_payment_response_success.txt"),
            include_str!("../golden/x402_v1_settle_success.json"),
        ),
        (
            include_str!("../golden/x402_v1_header_payment_response_failure.txt"),
            include_str!("../golden/x402_v1_settle_failure.json"),
        ),
    ] {
        assert_eq!(decode_header::<SettleResponse>(header).unwrap(), read(document));
    }
}

/// The member order of our types is that of the transport's example, so even the base64 is the same.
#[test]
fn our_settlement_header_is_the_example_to_the_letter() {
    let golden = include_str!("../golden/x402_v2_header_payment_response_success.txt").trim();
    let answer: SettleResponse = decode_header(golden).unwrap();
    assert_eq!(encode_header(&answer), golden);
    let golden = include_str!("../golden/x402_v2_header_payment_response_failure.txt").trim();
    let answer: SettleResponse = decode_header(golden).unwrap();
    assert_eq!(encode_header(&answer), golden);
}

#[test]
fn a_header_comes_back_as_it_was_written_with_or_without_padding() {
    for filler in ["", "x", "xy", "xyz", "né €"] {
        let value = json!({"filler": filler});
        let header = encode_header(&value);
        assert_eq!(header.len() % 4, 0, "written with padding");
        assert_eq!(decode_header::<Value>(&header), Ok(value.clone()));
        assert_eq!(decode_header::<Value>(header.trim_end_matches('=')), Ok(value.clone()));
        assert_eq!(decode_header::<Value>(&format!("  {header}\t")), Ok(value));
    }
}

#[test]
fn a_header_beyond_the_limit_is_too_long_and_one_at_the_limit_is_not() {
    let fill = |len: usize| encode_header(&json!("a".repeat(len)));
    let at = fill(MAX_HEADER / 4 * 3 - 2);
    assert_eq!(at.len(), MAX_HEADER);
    assert!(decode_header::<Value>(&at).is_ok());
    assert_eq!(decode_header::<Value>(&fill(MAX_HEADER / 4 * 3 - 1)), Err(HeaderError::TooLong));
    assert_eq!(decode_header::<Value>(&"a".repeat(MAX_HEADER + 1)), Err(HeaderError::TooLong));
}

#[test]
fn a_header_that_is_not_base64_is_told_from_one_that_is_not_json() {
    for text in ["{}", "!!!!", "e30=e30=", "e3_-", "e", "e3é0"] {
        assert_eq!(decode_header::<Value>(text), Err(HeaderError::NotBase64), "{text}");
    }
    for json in ["", "{", "{} {}", "nonsense", "\u{feff}{}"] {
        let header = coinslot::testing::wire::base64::encode(json.as_bytes());
        assert_eq!(decode_header::<Value>(&header), Err(HeaderError::NotJson), "{json}");
    }
    assert_eq!(decode_header::<PaymentPayload>("e30="), Err(HeaderError::NotJson), "{{}} is JSON, and no payment");
    assert_eq!(
        decode_header::<Value>(&coinslot::testing::wire::base64::encode(b"\"\xff\"")),
        Err(HeaderError::NotJson)
    );
}

fn payload(text: &str) -> Map<String, Value> {
    json_of(text)["payload"].as_object().unwrap().clone()
}

/// exact on EVM, 1, phase 1
#[test]
fn an_eip_3009_payload_is_read() {
    let read = Authorization::read(&payload(EIP3009)).unwrap();
    assert_eq!(read.from.to_string(), "0x857b06519E91e3A54538791bDbb0E22373e36b66");
    assert_eq!(read.to.to_string(), "0x209693Bc6afc0C5328bA36FaF03C514EF312287C");
    assert_eq!(read.value, Amount(10_000));
    assert_eq!((read.valid_after, read.valid_before), (1_740_672_089, 1_740_672_154));
    assert_eq!(read.nonce, "0xf3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480");
    assert_eq!(read.signature.len(), 65);
    assert_eq!((read.signature[0], read.signature[64]), (0x2d, 0x1c));
    for text in [V2_PAYLOAD, V1_PAYLOAD] {
        assert_eq!(Authorization::read(&payload(text)), Ok(read.clone()), "v1 and v2 carry the same payload");
    }
}

/// exact on EVM, 2, phase 2
#[test]
fn a_permit2_payload_is_not_read() {
    assert_eq!(Authorization::read(&payload(PERMIT2)), Err(PayloadError("authorization")));
}

/// A facilitator that knows Permit2 settles by it where both are there; another nonce of the
/// authorization beside it would then be another run for the same money.
#[test]
fn a_permit2_authorization_beside_ours_is_not_read_either() {
    let mut both = payload(EIP3009);
    both.insert("permit2Authorization".to_owned(), payload(PERMIT2)["permit2Authorization"].clone());
    assert_eq!(Authorization::read(&both), Err(PayloadError("payload")));
}

/// Every field of the authorization, absent and in every wrong form, is named.
#[test]
fn a_missing_or_malformed_field_is_named() {
    let whole = payload(EIP3009);
    let fields: [(&'static str, Vec<Value>); 6] = [
        (
            "from",
            vec![
                json!(1),
                json!(""),
                json!("0x857b"),
                json!("857b06519E91e3A54538791bDbb0E22373e36b66"),
                json!("0xZZ7b06519E91e3A54538791bDbb0E22373e36b66"),
            ],
        ),
        (
            "to",
            vec![
                json!(null),
                json!("0x209693Bc6afc0C5328bA36FaF03C514EF312287C00"),
                json!(" 0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
            ],
        ),
        (
            "value",
            vec![
                json!(10000),
                json!(""),
                json!("-1"),
                json!("0x2710"),
                json!("1.5"),
                json!("010000"),
                json!("340282366920938463463374607431768211456"),
            ],
        ),
        ("validAfter", vec![json!(""), json!("-1"), json!(-1), json!(1.5), json!(true), json!("soon"), json!(null)]),
        ("validBefore", vec![json!(""), json!("1e10"), json!(-1), json!([1]), json!("+1")]),
        (
            "nonce",
            vec![
                json!(1),
                json!("0x"),
                json!("0xf3"),
                json!("f3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480"),
                json!("0xg3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480"),
            ],
        ),
    ];
    for (name, wrong) in fields {
        let mut absent = whole.clone();
        absent["authorization"].as_object_mut().unwrap().remove(name);
        assert_eq!(Authorization::read(&absent), Err(PayloadError(name)), "{name} absent");
        for value in wrong {
            let mut broken = whole.clone();
            broken["authorization"][name] = value.clone();
            assert_eq!(Authorization::read(&broken), Err(PayloadError(name)), "{name}: {value}");
        }
    }
    let long = format!("0x{}", "00".repeat(8 * 1024 + 1));
    for signature in
        [json!(null), json!(""), json!("0x"), json!("0x2d6"), json!("2d6a"), json!("0xzz"), json!(7), json!(long)]
    {
        let mut broken = whole.clone();
        broken["signature"] = signature;
        assert_eq!(Authorization::read(&broken), Err(PayloadError("signature")));
    }
    for authorization in [json!(null), json!("x"), json!([])] {
        let mut broken = whole.clone();
        broken["authorization"] = authorization;
        assert_eq!(Authorization::read(&broken), Err(PayloadError("authorization")));
    }
    assert_eq!(PayloadError("nonce").to_string(), "the payment's nonce is missing or malformed");
}

#[test]
fn times_are_read_from_strings_and_from_numbers_and_a_far_future_is_the_end_of_time() {
    let mut numbers = payload(EIP3009);
    numbers["authorization"]["validAfter"] = json!(0);
    numbers["authorization"]["validBefore"] = json!(1_740_672_154_u64);
    let read = Authorization::read(&numbers).unwrap();
    assert_eq!((read.valid_after, read.valid_before), (0, 1_740_672_154));
    numbers["authorization"]["validAfter"] = json!("0");
    numbers["authorization"]["validBefore"] = json!("340282366920938463463374607431768211455");
    let read = Authorization::read(&numbers).unwrap();
    assert_eq!((read.valid_after, read.valid_before), (0, u64::MAX));
}

#[test]
fn letter_case_of_addresses_and_nonces_does_not_matter() {
    let mut shouted = payload(EIP3009);
    for name in ["from", "to", "nonce"] {
        let upper = shouted["authorization"][name].as_str().unwrap()[2..].to_ascii_uppercase();
        shouted["authorization"][name] = json!(format!("0x{upper}"));
    }
    assert_eq!(Authorization::read(&shouted), Authorization::read(&payload(EIP3009)));
}

/// EIP-55, "Test Cases"
#[test]
fn addresses_are_written_with_their_checksum_whatever_case_they_came_in() {
    for text in ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x27b1fdb04752bbc536007a920d24acb045561c26"] {
        let address = Address::parse(text).unwrap();
        let upper = format!("0x{}", text[2..].to_ascii_uppercase());
        assert_eq!(Address::parse(&upper), Some(address));
        assert_eq!(Address::parse(&address.to_string()), Some(address));
    }
    let lower = Address::parse("0x52908400098527886e0f7030069857d2e4169ee7").unwrap();
    assert_eq!(lower.to_string(), "0x52908400098527886E0F7030069857D2E4169EE7");
    let document: Address = serde_json::from_value(json!("0xde709f2102306220921060314715629080e2fb77")).unwrap();
    assert_eq!(written(&document), json!("0xde709f2102306220921060314715629080e2fb77"));
    assert!(serde_json::from_value::<Address>(json!("0xde70")).is_err());
}

/// v2, 7.3: the answer of a facilitator that knows both versions, one network by name and one kind as a whole.
#[test]
fn a_facilitator_covers_what_it_lists_in_the_payments_own_version() {
    let supported: Supported = read(
        r#"{"kinds": [
            {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"},
            {"x402Version": 2, "scheme": "exact", "network": "eip155:84532", "extra": {}},
            {"x402Version": 2, "scheme": "upto", "network": "eip155:*"},
            {"x402Version": 1, "scheme": "exact", "network": "eip155:1"},
            {"x402Version": 2, "scheme": "exact", "network": "base"}
        ], "extensions": [], "signers": {"eip155:*": ["0x209693Bc6afc0C5328bA36FaF03C514EF312287C"]}}"#,
    );
    let sepolia = |version, scheme: &str| supported.covers(version, scheme, "eip155:84532", "base-sepolia");
    assert!(sepolia(1, "exact") && sepolia(2, "exact") && sepolia(2, "upto"));
    assert!(!sepolia(1, "upto") && !sepolia(3, "exact") && !sepolia(2, "permit") && !sepolia(2, ""));
    assert!(supported.covers(2, "upto", "eip155:137", "polygon"), "all of the kind");
    assert!(!supported.covers(2, "upto", "solana:137", "polygon"), "and of no other kind");
    assert!(supported.covers(1, "exact", "eip155:1", "ethereum"), "v1 by its id");
    assert!(!supported.covers(2, "exact", "eip155:8453", "base"), "v1's names mean nothing in v2");
    assert!(!supported.covers(1, "exact", "eip155:8453", "base"), "nor does v2's line mean v1");
    let nothing: Supported = read(r#"{"kinds": []}"#);
    assert!(!nothing.covers(2, "exact", "eip155:84532", "base-sepolia"));
    assert!(serde_json::from_str::<Supported>("{}").is_err(), "an answer without kinds says nothing");
}

/// v2, 9 "Error codes": snake case. Other people's prose is not passed on.
#[test]
fn a_facilitators_reason_is_passed_on_only_where_it_is_a_code() {
    for code in [
        "insufficient_funds",
        "invalid_exact_evm_nonce_already_used",
        "unexpected_settle_error",
        "x402",
        &"a".repeat(80),
    ] {
        assert_eq!(reason_code(Some(code)).as_deref(), Some(code));
    }
    for prose in ["", "Insufficient funds", "sk-ant-api03", "a b", "a\nb", "<b>", "schön", "INVALID", &"a".repeat(81)]
    {
        assert_eq!(reason_code(Some(prose)), None, "{prose}");
    }
    assert_eq!(reason_code(None), None);
}
