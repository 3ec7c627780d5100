//! Quotes, and payments held against them: every field that differs is refused, and what names a run.

use coinslot::testing::rules::config::{Config, Eip712Domain, Network};
use coinslot::testing::rules::payment::matching::{
    check_payment, check_payment_of_contract, check_signature, identify, match_payment, read_payment, PaymentCheck,
};
use coinslot::testing::rules::payment::quote::{quote, Quote};
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::rules::run::Release;
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::{Parameter, Template};
use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::base64;
use coinslot::testing::wire::evm::Address;
use coinslot::testing::wire::x402::encode_header;
use serde_json::{json, Value};
use std::collections::BTreeMap;

pub const URL: &str = "https://coinslot.example/@alice/haiku";
pub const WALLET: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
pub const PAYER: &str = "0x857b06519E91e3A54538791bDbb0E22373e36b66";
pub const BASE: &str = "eip155:8453";
pub const SEPOLIA: &str = "eip155:84532";
const NOW: u64 = 1_740_672_100;
/// For how many seconds a payment has to be valid still.
const WINDOW: u64 = 36;
const PERMIT2: &str = include_str!("../golden/x402_exact_evm_permit2.json");

pub fn template(wallets: &[(&str, &str)]) -> Template {
    let parameter = |name: &str, required, default: Option<&str>| Parameter {
        name: name.to_owned(),
        description: Some(format!("the {name}")),
        required,
        default: default.map(str::to_owned),
        max_length: None,
    };
    Template {
        id: "t1".to_owned(),
        creator_id: "c1".to_owned(),
        agent_wallet: None,
        wallets: wallets
            .iter()
            .map(|(network, wallet)| ((*network).to_owned(), (*wallet).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        name: "Haiku".to_owned(),
        description: "A haiku on anything".to_owned(),
        model: "claude-haiku-5-5".to_owned(),
        prompt: Secret::new("THE SECRET PROMPT".to_owned()),
        parameters: vec![parameter("topic", true, None), parameter("tone", true, Some("dry"))],
        allow_user_message: true,
        max_tokens: 100,
        price: "0.01".parse().unwrap(),
        published: true,
        release: Release::Settled,
        runs: 0,
        usual_ms: None,
    }
}

fn networks() -> Vec<Network> {
    Config::built_in().networks
}

fn make(template: &Template) -> Result<Quote, Refusal> {
    quote(template, &Config::built_in(), URL)
}

fn both() -> Quote {
    make_at(URL)
}

fn make_at(url: &str) -> Quote {
    quote(&template(&[(BASE, WALLET), (SEPOLIA, WALLET)]), &Config::built_in(), url).unwrap()
}

/// A v2 payment for our terms on Base Sepolia, as the official client makes it.
fn payment() -> Value {
    json!({
        "x402Version": 2,
        "resource": {"url": URL},
        "accepted": serde_json::to_value(&both().offers()[1].v2).unwrap(),
        "payload": payload(),
    })
}

fn payment_v1(network: &str) -> Value {
    json!({"x402Version": 1, "scheme": "exact", "network": network, "payload": payload()})
}

fn payload() -> Value {
    json!({
        "signature": format!("0x{}", "1b".repeat(65)),
        "authorization": {
            "from": PAYER, "to": WALLET, "value": "10000", "validAfter": "0", "validBefore": "1740672400",
            "nonce": format!("0x{}", "ab".repeat(32)),
        },
    })
}

fn present_at(payment: &Value, now: u64) -> Result<Payment, Refusal> {
    let presented = read_payment(Some(&encode_header(payment)), None)?.unwrap();
    match_payment(&presented, &both(), WINDOW, now)
}

fn present(payment: &Value) -> Result<Payment, Refusal> {
    present_at(payment, NOW)
}

/// The payment with the member at `path` replaced.
fn with(mut payment: Value, path: &str, value: Value) -> Value {
    *payment.pointer_mut(path).unwrap() = value;
    payment
}

fn mismatch(field: &str) -> Refusal {
    Refusal::PaymentMismatch { field: field.to_owned() }
}

#[test]
fn each_network_the_creator_takes_money_on_is_offered_in_the_operators_order() {
    let quote = both();
    let networks: Vec<_> = quote.offers().iter().map(|o| (o.v2.network.as_str(), o.v1.network.as_str())).collect();
    assert_eq!(networks, [(BASE, "base"), (SEPOLIA, "base-sepolia")]);
    let one = make(&template(&[(SEPOLIA, WALLET), ("eip155:1", WALLET)])).unwrap();
    assert_eq!(one.offers().len(), 1, "a wallet on a network the operator does not offer does not count");
}

#[test]
fn the_offers_say_the_same_in_both_versions() {
    for offer in both().offers() {
        assert_eq!((offer.v2.amount, offer.v1.max_amount_required), (Amount(10_000), Amount(10_000)));
        assert_eq!(
            (&offer.v2.pay_to, &offer.v2.asset, &offer.v2.extra),
            (&offer.v1.pay_to, &offer.v1.asset, &offer.v1.extra)
        );
        assert_eq!((&*offer.v2.scheme, &*offer.v1.scheme), ("exact", "exact"));
        assert_eq!((offer.v2.max_timeout_seconds, offer.v1.max_timeout_seconds), (300, 300));
        assert_eq!(offer.v1.resource, URL);
    }
}

/// The wrong domain name fails every signature.
#[test]
fn the_terms_carry_the_tokens_eip_712_domain() {
    let quote = both();
    let extra = |n: usize| serde_json::to_value(quote.offers()[n].v2.extra.as_ref().unwrap()).unwrap();
    assert_eq!(extra(0), json!({"name": "USD Coin", "version": "2"}));
    assert_eq!(extra(1), json!({"name": "USDC", "version": "2"}));
    assert_eq!(quote.offers()[0].v2.asset, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
    assert_eq!(quote.offers()[1].v2.asset, "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
}

#[test]
fn a_template_that_cannot_be_sold_is_not_for_sale() {
    for wallets in [&[][..], &[("eip155:1", WALLET)], &[(BASE, "0x123")], &[(BASE, "alice.eth")]] {
        assert_eq!(make(&template(wallets)), Err(Refusal::NotForSale), "{wallets:?}");
    }
    for price in ["0", "0.0000001", "999999999999999999999999999999999"] {
        let unpriced = Template { price: price.parse().unwrap(), ..template(&[(BASE, WALLET)]) };
        assert_eq!(make(&unpriced), Err(Refusal::NotForSale), "{price}");
    }
}

#[test]
fn the_price_is_exact_in_each_tokens_decimals() {
    let dai = Network {
        id: "eip155:1".to_owned(),
        v1: "ethereum".to_owned(),
        decimals: 18,
        eip712: Eip712Domain { name: "DAI".to_owned(), version: "1".to_owned() },
        ..networks()[0].clone()
    };
    let config = Config { networks: vec![networks()[0].clone(), dai], ..Config::built_in() };
    let fine = Template { price: "0.0000001".parse().unwrap(), ..template(&[(BASE, WALLET), ("eip155:1", WALLET)]) };
    let quote = quote(&fine, &config, URL).unwrap();
    assert_eq!(quote.offers().len(), 1, "too fine for six decimals");
    assert_eq!(quote.offers()[0].v2.amount, Amount(100_000_000_000));
}

#[test]
fn the_challenges_name_the_url_and_never_the_prompt() {
    let quote = both();
    let v2 = serde_json::to_value(quote.challenge(Some("why".to_owned()))).unwrap();
    assert_eq!((&v2["x402Version"], &v2["error"]), (&json!(2), &json!("why")));
    assert_eq!(
        v2["resource"],
        json!({"url": URL, "description": "Haiku: A haiku on anything", "mimeType": "text/event-stream"})
    );
    let v1 = serde_json::to_value(quote.challenge_v1("why".to_owned())).unwrap();
    assert_eq!((&v1["x402Version"], &v1["error"]), (&json!(1), &json!("why")));
    let fields = &v1["accepts"][0]["outputSchema"]["input"]["bodyFields"];
    assert_eq!(fields["topic"], json!({"type": "string", "required": true, "description": "the topic"}));
    assert_eq!(fields["tone"]["required"], json!(false), "it has a default");
    assert_eq!(fields["user_message"]["required"], json!(false));
    for challenge in [v2, v1] {
        assert!(!challenge.to_string().contains("SECRET"));
    }
    assert!(!serde_json::to_string(&quote.challenge(None)).unwrap().contains("\"error\""));
}

/// x402 `payment_identifier`: a client that knows the extension learns from the challenge whether it must be sent.
#[test]
fn the_challenge_declares_the_payment_identifier_and_whether_it_is_required() {
    for required in [false, true] {
        let config = Config { require_payment_identifier: required, ..Config::built_in() };
        let quote = quote(&template(&[(BASE, WALLET)]), &config, URL).unwrap();
        let challenge = serde_json::to_value(quote.challenge(None)).unwrap();
        let declared = &challenge["extensions"]["payment-identifier"];
        assert_eq!(declared["info"], json!({"required": required}));
        let id = &declared["schema"]["properties"]["id"];
        assert_eq!(
            (&id["minLength"], &id["maxLength"], &id["pattern"]),
            (&json!(16), &json!(128), &json!("^[a-zA-Z0-9_-]+$"))
        );
        assert_eq!(declared["schema"]["required"], json!(["required"]), "the id itself is the payer's to add");
    }
    let v1 = serde_json::to_value(both().challenge_v1("why".to_owned())).unwrap();
    assert_eq!(v1.get("extensions"), None, "version 1 has no extensions");
}

/// Header budget: aim for 4 KB.
#[test]
fn a_long_description_still_makes_a_header_under_4_kb() {
    for description in ["x".repeat(10_000), "🦀".repeat(10_000), "\"\\".repeat(10_000)] {
        let long = Template { description, ..template(&[(BASE, WALLET), (SEPOLIA, WALLET)]) };
        let header =
            encode_header(&make(&long).unwrap().challenge(Some("PAYMENT-SIGNATURE header is required".to_owned())));
        assert!(header.len() < 4096, "{}", header.len());
    }
}

#[test]
fn no_header_is_no_payment_and_the_v2_header_goes_first() {
    assert!(read_payment(None, None).unwrap().is_none());
    let good = encode_header(&payment());
    let v1 = encode_header(&payment_v1("base-sepolia"));
    let read = |a, b| match_payment(&read_payment(a, b).unwrap().unwrap(), &both(), WINDOW, NOW).unwrap();
    assert_eq!(read(Some(&good), Some("nonsense")).x402_version, 2);
    assert_eq!(read(None, Some(&v1)).x402_version, 1);
    assert_eq!(read(Some(&v1), None).x402_version, 1, "the payment's own version counts, not the header's");
    assert_eq!(read(None, Some(&good)).x402_version, 2);
}

#[test]
fn a_header_that_cannot_be_read_is_malformed() {
    for header in ["", "nonsense!", "e30=", &encode_header(&json!([])), &"a".repeat(20_000)] {
        assert!(matches!(read_payment(Some(header), None), Err(Refusal::PaymentMalformed { .. })), "{header}");
    }
    for broken in [
        with(payment(), "/x402Version", json!(3)),
        with(payment(), "/x402Version", json!("2")),
        with(payment(), "/accepted", json!(null)),
        with(payment(), "/accepted/amount", json!(10000)),
        with(payment(), "/payload", json!("0x")),
        with(payment(), "/payload/signature", json!("")),
        with(payment_v1("base"), "/scheme", json!(1)),
        with(payment_v1("base"), "/x402Version", json!(2)),
    ] {
        assert!(matches!(present(&broken), Err(Refusal::PaymentMalformed { .. })), "{broken}");
    }
}

#[test]
fn a_payment_as_the_official_client_makes_it_is_taken() {
    let payment_sent = payment();
    let payment = present(&payment_sent).unwrap();
    assert_eq!(payment.x402_version, 2);
    let for_facilitator = with(payment_sent, "/resource", json!(both().challenge(None).resource));
    assert_eq!(payment.payload, for_facilitator, "it goes to the facilitator with our own resource");
    assert_eq!(payment.requirements, serde_json::to_value(&both().offers()[1].v2).unwrap());
    assert_eq!((&*payment.network, &*payment.network_v1), (SEPOLIA, "base-sepolia"));
    assert_eq!((payment.amount, payment.payer.to_string().as_str()), (Amount(10_000), PAYER));
    assert_eq!(payment.valid_before, 1_740_672_400);
    assert_eq!(payment.asset.to_string(), both().offers()[1].v2.asset);
    assert_eq!(payment.pay_to, Address::parse(WALLET).unwrap());
    assert_eq!(payment.nonce, format!("0x{}", "ab".repeat(32)));
}

#[test]
fn every_changed_field_of_the_accepted_terms_is_refused_by_name() {
    for (field, value) in [
        ("scheme", json!("upto")),
        ("network", json!("eip155:1")),
        ("network", json!("base-sepolia")),
        ("amount", json!("9999")),
        ("amount", json!("10001")),
        ("asset", json!("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")),
        ("payTo", json!(PAYER)),
        ("maxTimeoutSeconds", json!(299)),
        ("maxTimeoutSeconds", json!(301)),
        ("extra", json!(null)),
        ("extra", json!({})),
        ("extra", json!({"name": "USDC"})),
        ("extra", json!({"name": "USD Coin", "version": "2"})),
        ("extra", json!({"name": "USDC", "version": 2})),
    ] {
        let changed = with(payment(), &format!("/accepted/{field}"), value.clone());
        assert_eq!(present(&changed), Err(mismatch(field)), "{field}: {value}");
    }
}

#[test]
fn terms_of_one_network_do_not_pass_for_those_of_another() {
    let swapped = with(payment(), "/accepted/network", json!(BASE));
    assert_eq!(present(&swapped), Err(mismatch("asset")));
}

#[test]
fn a_superset_of_extra_and_another_spelling_of_addresses_are_accepted() {
    let more = json!({"name": "USDC", "version": "2", "assetTransferMethod": "eip3009"});
    let mut odd = with(payment(), "/accepted/extra", more);
    for path in ["/accepted/asset", "/accepted/payTo", "/payload/authorization/to"] {
        let lower = odd.pointer(path).unwrap().as_str().unwrap().to_ascii_lowercase();
        odd = with(odd, path, json!(lower));
    }
    assert_eq!(
        present(&odd).unwrap().requirements,
        present(&payment()).unwrap().requirements,
        "our terms, not their echo"
    );
}

#[test]
fn what_was_signed_counts_and_not_what_was_echoed() {
    let authorization =
        |name: &str, value: &str| with(payment(), &format!("/payload/authorization/{name}"), json!(value));
    assert_eq!(present(&authorization("to", PAYER)), Err(mismatch("authorization.to")));
    for value in ["9999", "10001", "0", "100000"] {
        assert_eq!(present(&authorization("value", value)), Err(mismatch("authorization.value")), "{value}");
    }
}

#[test]
fn the_time_window_is_checked_to_the_second() {
    let window = |after: u64, before: u64| {
        let payment = with(payment(), "/payload/authorization/validAfter", json!(after.to_string()));
        present(&with(payment, "/payload/authorization/validBefore", json!(before.to_string()))).map(drop)
    };
    assert_eq!(window(NOW, NOW + 300), Ok(()));
    assert_eq!(window(NOW + 1, NOW + 300), Err(Refusal::PaymentNotYetValid));
    assert_eq!(window(0, NOW + WINDOW + 1), Ok(()));
    assert_eq!(window(0, NOW + WINDOW), Err(Refusal::PaymentExpired));
    assert_eq!(window(0, NOW - 1), Err(Refusal::PaymentExpired));
    assert_eq!(present_at(&payment(), u64::MAX).map(drop), Err(Refusal::PaymentExpired), "no overflow");
}

/// Each presentation of an authorization may cost the creator an answer that comes to nothing.
#[test]
fn an_authorization_is_not_valid_for_longer_than_the_terms_ask_and_a_minute() {
    let until = |before: u64| {
        let path = "/payload/authorization/validBefore";
        [payment(), payment_v1("base-sepolia")].map(|p| present(&with(p, path, json!(before.to_string()))).map(drop))
    };
    let longest = NOW + both().offers()[1].v2.max_timeout_seconds + 60;
    assert_eq!(longest, NOW + 360);
    assert_eq!(until(longest), [Ok(()), Ok(())]);
    for before in [longest + 1, u64::MAX] {
        let refused = || Err(mismatch("authorization.validBefore"));
        assert_eq!(until(before), [refused(), refused()], "{before}");
    }
}

#[test]
fn a_v1_payment_names_its_network_by_name_or_by_caip_2() {
    for (network, caip) in [("base-sepolia", SEPOLIA), (SEPOLIA, SEPOLIA), ("base", BASE), (BASE, BASE)] {
        let payment = present(&payment_v1(network)).unwrap();
        assert_eq!((payment.x402_version, payment.network.as_str()), (1, caip), "{network}");
        let offer = both().offers().iter().find(|o| o.v2.network == caip).cloned().unwrap();
        assert_eq!(payment.requirements, serde_json::to_value(&offer.v1).unwrap());
    }
    for network in ["", "ethereum", "eip155:1", "BASE"] {
        assert_eq!(present(&payment_v1(network)), Err(mismatch("network")), "{network}");
    }
    assert_eq!(present(&with(payment_v1("base"), "/scheme", json!("upto"))), Err(mismatch("scheme")));
    let wrong = with(payment_v1("base"), "/payload/authorization/value", json!("1"));
    assert_eq!(present(&wrong), Err(mismatch("authorization.value")));
}

#[test]
fn a_permit2_payload_is_refused_alone_and_beside_an_authorization() {
    let permit2: Value = serde_json::from_str(PERMIT2).unwrap();
    let alone = with(payment(), "/payload", permit2["payload"].clone());
    assert!(matches!(present(&alone), Err(Refusal::PaymentMalformed { .. })));
    let mut beside = payment();
    beside["payload"]["permit2Authorization"] = permit2["payload"]["permit2Authorization"].clone();
    assert!(matches!(present(&beside), Err(Refusal::PaymentMalformed { .. })));
}

/// What nobody has read here might be what the facilitator goes by.
#[test]
fn only_the_signature_and_the_six_members_of_the_authorization_go_on_to_the_facilitator() {
    for plain in [payment(), payment_v1("base-sepolia")] {
        let mut more = plain.clone();
        more["payload"]["transaction"] = json!("0x00");
        more["payload"]["Authorization"] = plain["payload"]["authorization"].clone();
        for name in ["From", "valid_before", "permitted", "permit2Authorization", "authorization", "", "__proto__"] {
            more["payload"]["authorization"][name] = json!({"to": PAYER});
        }
        assert_eq!(present(&more), present(&plain), "nor do they change the name or the proof");
        let payload = present(&more).unwrap().payload;
        assert_eq!(payload["payload"], plain["payload"]);
        let members = payload["payload"]["authorization"].as_object().unwrap().keys();
        assert_eq!(members.collect::<Vec<_>>(), ["from", "nonce", "to", "validAfter", "validBefore", "value"]);
    }
}

/// The reference facilitator answers 4xx without a verdict to a description of 501 characters.
#[test]
fn nothing_else_that_the_payer_writes_goes_on_to_the_facilitator() {
    let long = "x".repeat(600);
    for plain in [payment(), payment_v1("base-sepolia")] {
        let mut more = plain.clone();
        more["resource"] = json!({"url": format!("https://coinslot.example/@alice/haiku?{long}"), "description": long, "serviceName": long});
        more["extensions"] = json!({"bazaar": {"info": {"input": long}}});
        more["paymentRequirements"] = json!({"payTo": PAYER});
        if more["x402Version"] == 2 {
            more["accepted"]["extra"]["more"] = json!(long);
            more["accepted"]["outputSchema"] = json!({"input": long});
        }
        assert_eq!(present(&more), present(&plain));
        let payment = present(&more).unwrap();
        assert!(!payment.payload.to_string().contains(&long) && !payment.requirements.to_string().contains(&long));
    }
}

#[test]
fn what_is_signed_goes_on_in_one_spelling() {
    let mut odd = payment();
    let signed = &mut odd["payload"]["authorization"];
    // Common libraries refuse an address with a wrong checksum, and fail on the request.
    signed["from"] = json!(format!("0x{}", PAYER[2..].to_ascii_uppercase()));
    signed["to"] = json!(WALLET.to_ascii_lowercase());
    signed["validAfter"] = json!(0);
    signed["validBefore"] = json!("0001740672400");
    signed["nonce"] = json!(format!("0x{}", "AB".repeat(32)));
    odd["payload"]["signature"] = json!(format!("0x{}", "1B".repeat(65)));
    let (odd, plain) = (present(&odd).unwrap(), present(&payment()).unwrap());
    assert_eq!(odd.payload, plain.payload);
    let spelled = &plain.payload["payload"]["authorization"];
    let address = |text: &str| Address::parse(text).unwrap().to_string();
    assert_eq!((spelled["from"].clone(), spelled["to"].clone()), (json!(address(PAYER)), json!(address(WALLET))));
}

#[test]
fn the_query_of_a_call_is_not_told_to_the_facilitator() {
    let of = |url: &str, sent: &Value| {
        let quote = make_at(url);
        let presented = read_payment(Some(&encode_header(sent)), None).unwrap().unwrap();
        match_payment(&presented, &quote, WINDOW, NOW).unwrap()
    };
    let long = format!("{URL}?{}", "y".repeat(10_000));
    for sent in [payment(), payment_v1("base-sepolia")] {
        assert_eq!(of(&long, &sent), of(URL, &sent));
    }
    assert_eq!(make_at(&long).challenge(None).resource.url, long, "the terms name the URL that was called");
}

fn name(payment: &Value) -> String {
    present(payment).unwrap().name
}

#[test]
fn a_run_is_named_by_network_asset_payer_and_nonce_and_by_nothing_else() {
    let first = name(&payment());
    let change = |path: &str, value: &str| name(&with(payment(), path, json!(value)));
    for (what, same) in [
        ("signature", change("/payload/signature", &format!("0x{}", "1c".repeat(65)))),
        ("validBefore", change("/payload/authorization/validBefore", "1740672399")),
        ("validAfter", change("/payload/authorization/validAfter", "1")),
        ("resource", change("/resource/url", "https://coinslot.example/@alice/haiku?from=here")),
        ("nonce's case", change("/payload/authorization/nonce", &format!("0x{}", "AB".repeat(32)))),
        ("payer's case", change("/payload/authorization/from", &PAYER.to_ascii_lowercase())),
        ("version", name(&payment_v1("base-sepolia"))),
        ("CAIP-2", name(&payment_v1(SEPOLIA))),
    ] {
        assert_eq!(same, first, "{what}");
    }
    for (what, other) in [
        ("nonce", change("/payload/authorization/nonce", &format!("0x{}", "ac".repeat(32)))),
        ("payer", change("/payload/authorization/from", WALLET)),
        ("network", name(&payment_v1("base"))),
    ] {
        assert_ne!(other, first, "{what}");
    }
    assert!(first.len() == 32 && first.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{first}");
}

#[test]
fn another_token_on_the_same_network_names_another_run() {
    let other = Network { asset: [7; 20].into(), ..networks()[1].clone() };
    let config = Config { networks: vec![other], ..Config::built_in() };
    let quote = quote(&template(&[(SEPOLIA, WALLET)]), &config, URL).unwrap();
    let presented = read_payment(Some(&encode_header(&payment_v1("base-sepolia"))), None).unwrap().unwrap();
    let payment = match_payment(&presented, &quote, WINDOW, NOW).unwrap();
    assert_ne!(payment.name, name(&payment_v1("base-sepolia")));
}

/// A payment that was signed for other terms of the same amount and recipient, a contract's or another template's.
#[test]
fn a_payment_that_names_a_resource_buys_that_resource_alone() {
    let named = |resource: Value| present(&with(payment(), "/resource", resource)).map(drop);
    let v1 = |resource: Value| {
        let mut payment = payment_v1("base-sepolia");
        payment["resource"] = resource;
        present(&payment).map(drop)
    };
    for url in [
        URL,
        "https://coinslot.example/@alice/haiku/",
        "https://coinslot.example/@alice/haiku?from=here#top",
        "https://coinslot.example:443/%40alice/haiku",
        "http://COINSLOT.example/@alice/haiku",
        "/@alice/haiku",
    ] {
        assert_eq!(named(json!({"url": url})), Ok(()), "{url}");
        assert_eq!(v1(json!(url)), Ok(()), "{url}");
    }
    for url in [
        "https://coinslot.example/execute",
        "https://coinslot.example/@alice/haiku2",
        "https://coinslot.example/@alice",
        "https://coinslot.example/@alice/Haiku",
        "https://coinslot.example/@alice/haiku/more",
        "https://coinslot.example/execute?next=/@alice/haiku",
        "https://coinslot.example/execute#/@alice/haiku",
        "https://coinslot.example/",
        "https://elsewhere.example/@alice/haiku",
        "https://coinslot.example:8443/@alice/haiku",
        "https://coinslot.example@elsewhere.example/@alice/haiku",
        "//elsewhere.example/@alice/haiku",
        "/execute",
        "execute",
        "mailto:alice",
        "https://[",
    ] {
        assert_eq!(named(json!({"url": url})), Err(mismatch("resource")), "{url}");
        assert_eq!(v1(json!(url)), Err(mismatch("resource")), "{url}");
        assert_eq!(v1(json!({"url": url})), Err(mismatch("resource")), "{url}");
    }
    assert_eq!(named(Value::Null), Ok(()), "it names none");
    assert_eq!(v1(Value::Null), Ok(()));
    let mut none = payment();
    none.as_object_mut().unwrap().remove("resource");
    assert_eq!(present(&none).map(drop), Ok(()));
}

/// A run that it has bought is found by its name all the same.
#[test]
fn a_payment_for_another_resource_has_a_name() {
    let other = with(payment(), "/resource/url", json!("https://coinslot.example/execute"));
    let presented = read_payment(Some(&encode_header(&other)), None).unwrap().unwrap();
    assert_eq!(identify(&presented, &both()).unwrap().name, name(&payment()));
}

/// A Safe with one owner signs 65 bytes, from which another address or none is recovered.
#[test]
fn where_the_payer_has_code_only_a_facilitator_can_tell_what_a_signature_is_worth() {
    let mut presented = read_payment(Some(&encode_header(&payment())), None).unwrap().unwrap();
    let quote = both();
    assert!(matches!(check_payment(&mut presented, &quote, WINDOW, NOW), PaymentCheck::Forged(_)));
    assert_eq!(presented.payer(&quote), Some((SEPOLIA, Address::parse(PAYER).unwrap())));
    let PaymentCheck::Matches(payment) = check_payment_of_contract(&presented, &quote, WINDOW, NOW) else {
        panic!("the terms are ours")
    };
    assert!(!payment.by_key, "it is verified before the wallet's object keeps anything, and never shown early");
    // It is found again by its name when it has expired.
    let late = check_payment_of_contract(&presented, &quote, WINDOW, u64::MAX);
    assert_eq!(late, PaymentCheck::Differs(Refusal::PaymentExpired, Some(payment)));
}

/// Who knows the nonce, which is public once it is settled, still cannot look at the run.
#[test]
fn the_proof_changes_with_whatever_was_signed_and_with_the_signature() {
    let first = present(&payment()).unwrap().proof;
    for (path, value) in [
        ("/payload/signature", format!("0x{}", "1c".repeat(65))),
        ("/payload/authorization/validBefore", "1740672399".to_owned()),
        ("/payload/authorization/validAfter", "1".to_owned()),
        ("/payload/authorization/nonce", format!("0x{}", "ac".repeat(32))),
    ] {
        assert_ne!(present(&with(payment(), path, json!(value))).unwrap().proof, first, "{path}");
    }
    assert_eq!(present(&with(payment(), "/resource/url", json!(format!("{URL}/")))).unwrap().proof, first);
    assert_eq!(present(&payment_v1("base-sepolia")).unwrap().proof, first, "either version proves the same");
}

#[test]
fn the_order_of_the_members_changes_neither_the_name_nor_the_proof() {
    let written = |payload: &str| {
        let accepted = serde_json::to_string(&both().offers()[1].v2).unwrap();
        let text = format!(r#"{{"payload":{payload},"accepted":{accepted},"x402Version":2}}"#);
        let presented = read_payment(Some(&base64::encode(text.as_bytes())), None).unwrap().unwrap();
        match_payment(&presented, &both(), WINDOW, NOW).unwrap()
    };
    let (signature, nonce) = (format!("0x{}", "1b".repeat(65)), format!("0x{}", "ab".repeat(32)));
    let forward = format!(
        r#"{{"signature":"{signature}","authorization":{{"from":"{PAYER}","to":"{WALLET}","value":"10000","validAfter":"0","validBefore":"1740672400","nonce":"{nonce}"}}}}"#
    );
    let backward = format!(
        r#"{{"authorization":{{"nonce":"{nonce}","validBefore":"1740672400","validAfter":"0","value":"10000","to":"{WALLET}","from":"{PAYER}"}},"signature":"{signature}"}}"#
    );
    let (first, other) = (written(&forward), written(&backward));
    assert_eq!((&first.name, &first.proof), (&other.name, &other.proof));
    assert_eq!(first.proof, present(&payment()).unwrap().proof);
}

/// One that has bought a run finds it again when its time is up or the terms have changed since.
#[test]
fn a_payment_that_no_longer_matches_is_still_named_the_same() {
    let before = present(&payment()).unwrap();
    let presented = read_payment(Some(&encode_header(&payment())), None).unwrap().unwrap();
    let dearer = Template { price: "0.02".parse().unwrap(), ..template(&[(BASE, WALLET), (SEPOLIA, PAYER)]) };
    let quote = make(&dearer).unwrap();
    assert!(match_payment(&presented, &quote, WINDOW, u64::MAX).is_err());
    let named = identify(&presented, &quote).unwrap();
    assert_eq!((named.name, named.proof), (before.name, before.proof));
    assert!(identify(&presented, &make(&template(&[(BASE, WALLET)])).unwrap()).is_none(), "no offer, no name");
}

#[test]
fn an_identifier_that_comes_with_a_payment_is_read_and_a_malformed_one_is_refused() {
    let carrying = |id: Value| {
        let mut payment = payment();
        payment["extensions"] = json!({"payment-identifier": {"info": {"required": true, "id": id}}});
        read_payment(Some(&encode_header(&payment)), None).map(|presented| presented.unwrap().identifier)
    };
    assert_eq!(carrying(json!("order_0123456789")), Ok(Some("payment-identifier:order_0123456789".to_owned())));
    assert_eq!(carrying(json!(null)), Ok(None));
    assert_eq!(carrying(json!("short")), Err(Refusal::IdentifierInvalid));
    assert_eq!(read_payment(Some(&encode_header(&payment())), None).unwrap().unwrap().identifier, None);
}

/// The payments of `golden/eip3009_signed.json` on the networks offered here, in both versions.
fn signed() -> Vec<Value> {
    let golden: Vec<Value> = serde_json::from_str(include_str!("../golden/eip3009_signed.json")).unwrap();
    let on = |n: usize, name: &str| {
        let v2 = with(payment(), "/accepted", serde_json::to_value(&both().offers()[n].v2).unwrap());
        [v2, payment_v1(name)].map(|payment| with(payment, "/payload", golden[n]["payload"].clone()))
    };
    [on(0, "base"), on(1, "base-sepolia")].concat()
}

fn check(payment: &Value) -> Result<(), Refusal> {
    check_signature(&mut read_payment(Some(&encode_header(payment)), None).unwrap().unwrap(), &both())
}

/// What is noted of the payer's own key, by either way to a payment, once the signature has been looked at.
fn by_key(payment: &Value) -> bool {
    let mut presented = read_payment(Some(&encode_header(payment)), None).unwrap().unwrap();
    drop(check_signature(&mut presented, &both()));
    let matched = match_payment(&presented, &both(), WINDOW, NOW).unwrap();
    assert_eq!(identify(&presented, &both()), Some(matched.clone()));
    matched.by_key
}

#[test]
fn a_payment_that_its_payer_has_signed_passes_in_both_versions() {
    assert_eq!(signed().len(), 4);
    for payment in signed() {
        assert_eq!(check(&payment), Ok(()));
        assert!(present(&payment).is_ok(), "and it is for our terms");
    }
}

/// What the paid routes act on: the same answers as the checks one by one.
#[test]
fn a_payment_matches_is_forged_or_differs_with_or_without_a_name() {
    let against = |payment: &Value, quote: &Quote, now| {
        let mut presented = read_payment(Some(&encode_header(payment)), None).unwrap().unwrap();
        check_payment(&mut presented, quote, WINDOW, now)
    };
    let signed = &signed()[0];
    let PaymentCheck::Matches(matched) = against(signed, &both(), NOW) else { panic!("it matches") };
    assert!(matched.by_key && matched.name == name(signed));

    let forged = with(signed.clone(), "/payload/signature", json!(format!("0x{}", "1b".repeat(65))));
    let reason = Some("invalid_exact_evm_payload_signature".to_owned());
    assert_eq!(against(&forged, &both(), NOW), PaymentCheck::Forged(Refusal::PaymentInvalid { reason }));
    // Forged and too late: nobody is told more than that it is forged.
    assert!(matches!(against(&forged, &both(), u64::MAX), PaymentCheck::Forged(_)));

    let late = against(signed, &both(), u64::MAX);
    assert_eq!(late, PaymentCheck::Differs(Refusal::PaymentExpired, Some(matched)));
    let elsewhere = make(&template(&[(SEPOLIA, WALLET)])).unwrap();
    assert_eq!(against(signed, &elsewhere, NOW), PaymentCheck::Differs(mismatch("network"), None));
}

#[test]
fn a_forged_signature_is_refused_before_the_facilitator_is_troubled() {
    let wrong = Err(Refusal::PaymentInvalid { reason: Some("invalid_exact_evm_payload_signature".to_owned()) });
    for payment in signed() {
        for (path, value) in [
            ("/payload/authorization/from", json!(PAYER)),
            ("/payload/authorization/to", json!(PAYER)),
            ("/payload/authorization/value", json!("10001")),
            ("/payload/authorization/nonce", json!(format!("0x{}", "ab".repeat(32)))),
            ("/payload/signature", json!(format!("0x{}", "1b".repeat(65)))),
        ] {
            assert_eq!(check(&with(payment.clone(), path, value)), wrong, "{path}");
        }
    }
    let elsewhere = |n: usize, path: &str, network: &str| check(&with(signed()[n].clone(), path, json!(network)));
    assert_eq!(elsewhere(1, "/network", "base-sepolia"), wrong, "signed for one network, presented on another");
    assert_eq!(elsewhere(2, "/accepted/network", BASE), wrong);
}

/// Contract wallets' signatures are for the facilitator to check; a network that is not offered has another fault.
#[test]
fn what_cannot_be_told_from_the_signature_alone_passes_this_check() {
    for payment in signed() {
        assert_eq!(check(&with(payment, "/payload/signature", json!(format!("0x{}", "1b".repeat(96))))), Ok(()));
    }
    assert_eq!(check(&with(signed()[0].clone(), "/accepted/network", json!("eip155:1"))), Ok(()));
    assert_eq!(check(&with(signed()[1].clone(), "/network", json!("ethereum"))), Ok(()));
}

/// Only the payer's own key can be told from here; what nobody has looked at is not taken for it.
#[test]
fn a_payment_says_whether_its_signature_was_seen_to_be_of_the_payers_own_key() {
    for payment in signed() {
        assert!(by_key(&payment));
        for length in [64, 66, 96] {
            let elsewhere = with(payment.clone(), "/payload/signature", json!(format!("0x{}", "1b".repeat(length))));
            assert_eq!((check(&elsewhere), by_key(&elsewhere)), (Ok(()), false), "{length} bytes");
        }
        let forged = with(payment.clone(), "/payload/signature", json!(format!("0x{}", "1b".repeat(65))));
        assert!(check(&forged).is_err() && !by_key(&forged));
        assert!(!present(&payment).unwrap().by_key, "not looked at");
    }
}
