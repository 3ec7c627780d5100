//! The terms that templates and contracts are sold on, as payers get them: `tests/golden/quotes.json`.

use crate::golden::assert_golden;
use crate::quote::{template, BASE, PAYER, SEPOLIA, URL, WALLET};
use crate::refusals::all;
use coinslot::testing::rules::config::{Config, Network};
use coinslot::testing::rules::hire::contract::AgreedTerms;
use coinslot::testing::rules::hire::execution::contract_quote;
use coinslot::testing::rules::hire::output::{FileSpec, OutputType};
use coinslot::testing::rules::payment::quote::{quote, Quote};
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::rules::template::Template;
use coinslot::testing::wire::amount::Price;
use coinslot::testing::wire::evm::Address;
use coinslot::testing::wire::x402::{decode_header, PaymentRequired};
use coinslot::testing::wire::x402_v1;
use serde_json::{from_str, to_string};

const EXECUTE: &str = "https://coinslot.example/execute";

fn line(what: &str, quote: Result<Quote, Refusal>) -> String {
    let quote = quote.unwrap();
    let v2 = to_string(&quote.challenge(Some("Payment required".to_owned()))).unwrap();
    let v1 = to_string(&quote.challenge_v1("Payment required".to_owned())).unwrap();
    let domains: Vec<String> = quote.offers().iter().map(|offer| format!("{:?}", offer.domain)).collect();
    format!("{{\"of\":\"{what}\",\"v2\":{v2},\"v1\":{v1},\"domains\":{}}}", to_string(&domains).unwrap())
}

/// A contract's price for its template.
fn of_contract(
    config: &Config,
    template: &Template,
    price: &Price,
    worker: Address,
    max_latency_ms: Option<u64>,
) -> Result<Quote, Refusal> {
    let agreed = AgreedTerms {
        seeker: Address::parse(PAYER).unwrap(),
        worker,
        price: price.clone(),
        deadline: 0,
        attempts: 1,
        output: OutputType::Text,
        output_schema: None,
        own_schema: false,
        file: FileSpec { name: "output.txt".to_owned(), mime: "text/plain".to_owned() },
    };
    contract_quote(config, template, &agreed, max_latency_ms, EXECUTE)
}

fn on(network: &str) -> Config {
    let mut config = Config::built_in();
    config.hire.network = network.to_owned();
    config
}

fn with_identifier() -> Config {
    Config { require_payment_identifier: true, ..Config::built_in() }
}

fn templates() -> Vec<(&'static str, Template)> {
    let plain = template(&[(BASE, WALLET), (SEPOLIA, WALLET)]);
    let bare = Template { parameters: Vec::new(), allow_user_message: false, ..plain.clone() };
    let long = Template { description: "\"long\" ".repeat(100), ..plain.clone() };
    let lower = Template { wallets: [(BASE.to_owned(), PAYER.to_ascii_lowercase())].into(), ..plain.clone() };
    vec![("both networks", plain), ("no parameters", bare), ("a long description", long), ("one network", lower)]
}

#[test]
fn the_quotes_of_templates_and_contracts_are_those_of_the_golden_file() {
    let mut lines = Vec::new();
    for (what, template) in templates() {
        lines.push(line(&format!("a template, {what}"), quote(&template, &Config::built_in(), URL)));
        let contract = |config: &Config, price: &str, max_latency_ms| {
            of_contract(config, &template, &price.parse().unwrap(), Address::parse(PAYER).unwrap(), max_latency_ms)
        };
        lines.push(line(&format!("a contract, {what}"), contract(&on(BASE), "0.05", None)));
    }
    let plain = template(&[(SEPOLIA, WALLET)]);
    lines.push(line("a template that needs an identifier", quote(&plain, &with_identifier(), URL)));
    let mut slow = Config::built_in();
    slow.limits.max_timeout_seconds = 60;
    for (config, limits) in [(on(SEPOLIA), "usual limits"), (slow, "a short window"), (with_identifier(), "identifier")]
    {
        for latency in [None, Some(1), Some(250_000), Some(1_234_567), Some(100_000_000), Some(u64::MAX)] {
            let quote = of_contract(&config, &plain, &"1.5".parse().unwrap(), Address::parse(WALLET).unwrap(), latency);
            lines.push(line(&format!("a contract, {limits}, latency {latency:?}"), quote));
        }
    }
    assert_golden("quotes.json", &lines);
}

#[test]
fn every_refusal_can_stand_in_a_402_beside_the_terms() {
    let quote = quote(&template(&[(BASE, WALLET)]), &Config::built_in(), URL).unwrap();
    let mut lines = Vec::new();
    for refusal in all() {
        let (body, header) = quote.challenge_of(&refusal);
        let required: PaymentRequired = decode_header(&header).unwrap();
        let text = to_string(&body).unwrap();
        let terms: x402_v1::PaymentRequired = from_str(&text).unwrap();
        assert_eq!(Some(&terms.error), required.error.as_ref());
        assert_eq!((terms.accepts.len(), required.accepts.len()), (1, 1));
        let body = text.replace(&to_string(&terms.accepts).unwrap(), "[]");
        let refusal = format!("{refusal:?}");
        lines.push(format!("{{\"refusal\":{refusal:?},\"body\":{body}}}"));
    }
    assert_golden("challenges.json", &lines);
}

#[test]
fn a_contract_is_not_for_sale_without_its_network_or_for_a_price_that_has_no_amount() {
    let plain = template(&[(BASE, WALLET)]);
    let worker = Address::parse(WALLET).unwrap();
    let quote = |config: &Config, price: &str| of_contract(config, &plain, &price.parse().unwrap(), worker, None);
    assert!(quote(&on(BASE), "0.000001").is_ok());
    assert_eq!(quote(&on("eip155:1"), "1"), Err(Refusal::NotForSale));
    for price in ["0", "0.0000001"] {
        assert_eq!(quote(&on(BASE), price), Err(Refusal::NotForSale), "{price}");
    }
    let fine: Vec<Network> = on(BASE).networks.into_iter().map(|n| Network { decimals: 9, ..n }).collect();
    assert!(quote(&Config { networks: fine, ..on(BASE) }, "0.0000001").is_ok());
}
