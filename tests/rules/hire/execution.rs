//! Before a contract is executed: whether it still may be, who pays, and what its input is.

use crate::identifier::payment;
use crate::quote::{template, BASE, PAYER, WALLET};
use coinslot::testing::rules::config::Limits;
use coinslot::testing::rules::hire::contract::AgreedTerms;
use coinslot::testing::rules::hire::execution::{input_of, payment_of_seeker, why_over};
use coinslot::testing::rules::hire::output::{FileSpec, OutputType};
use coinslot::testing::rules::payment::matching::PaymentCheck;
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::refusal::{InputError, ModelError, Refusal};
use coinslot::testing::wire::evm::Address;
use serde_json::{json, Value};

const DEADLINE: u64 = 1_740_672_000_000;

/// The contract whose seeker signs [`payment`].
fn agreed() -> AgreedTerms {
    AgreedTerms {
        seeker: Address::parse(PAYER).unwrap(),
        worker: Address::parse(WALLET).unwrap(),
        price: "0.01".parse().unwrap(),
        deadline: DEADLINE,
        attempts: 1,
        output: OutputType::Text,
        output_schema: None,
        own_schema: false,
        file: FileSpec { name: "output.txt".to_owned(), mime: "text/plain".to_owned() },
    }
}

#[test]
fn only_the_seekers_own_key_pays_for_the_contract() {
    let pays = |payment| payment_of_seeker(PaymentCheck::Matches(payment), &agreed());
    assert_eq!(pays(payment()), Ok(payment()));
    let other = Payment { payer: Address::parse(WALLET).unwrap(), ..payment() };
    assert_eq!(pays(other), Err(Refusal::SeekerMismatch));
    let by_a_contract_wallet = Payment { by_key: false, ..payment() };
    let reason = Some("invalid_exact_evm_payload_signature".to_owned());
    assert_eq!(pays(by_a_contract_wallet), Err(Refusal::PaymentInvalid { reason }));
}

/// A template's run is found again by a payment that matches no more; a contract's is found by the contract.
#[test]
fn a_payment_that_does_not_match_is_refused_also_where_it_has_a_name() {
    for check in [
        PaymentCheck::Forged(Refusal::PaymentExpired),
        PaymentCheck::Differs(Refusal::PaymentExpired, None),
        PaymentCheck::Differs(Refusal::PaymentExpired, Some(payment())),
    ] {
        assert_eq!(payment_of_seeker(check, &agreed()), Err(Refusal::PaymentExpired));
    }
}

#[test]
fn a_contract_is_over_at_its_deadline_or_at_its_end() {
    let late = Some(Refusal::Claude(ModelError::DeadlineMissed));
    let ended = Some(Refusal::ContractEnded);
    let before = |state| why_over(state, DEADLINE, DEADLINE - 1);
    let after = |state| why_over(state, DEADLINE, DEADLINE);
    for state in ["SIGNED", "EXECUTING"] {
        assert_eq!((before(state), after(state)), (None, late.clone()), "{state}");
    }
    for state in ["COMPLETED", "DISPUTED"] {
        assert_eq!((before(state), after(state)), (ended.clone(), ended.clone()), "{state}");
    }
    assert_eq!((before("REJECTED"), after("REJECTED")), (ended, late), "it says that it came to nothing in time");
}

fn read(body: &Value, schema: Option<&Value>) -> Result<Vec<(String, String)>, Refusal> {
    let input = input_of(body, schema, &template(&[(BASE, WALLET)]), &Limits::default())?;
    Ok(input.values.into_iter().collect())
}

#[test]
fn a_value_that_is_no_string_is_its_json_text_in_the_prompt() {
    let text = |value: Value| read(&json!({"topic": value, "tone": "dry"}), None).unwrap()[1].1.clone();
    assert_eq!(text(json!("a pond")), "a pond");
    assert_eq!(text(json!(["a", 1, {"b": null}])), r#"["a",1,{"b":null}]"#);
    assert_eq!((text(json!(7)), text(json!(true))), ("7".to_owned(), "true".to_owned()));
}

#[test]
fn without_a_schema_in_the_contract_the_templates_parameters_are_the_schema() {
    let refused = |body: Value| read(&body, None).unwrap_err();
    for absent in [json!({}), json!({"topic": ""}), json!({"topic": null})] {
        let refusal = refused(absent);
        assert!(matches!(refusal, Refusal::Input(InputError::MissingParameter, _)), "{refusal:?}");
    }
    let undeclared = refused(json!({"topic": "a pond", "extra": "x"}));
    assert!(matches!(undeclared, Refusal::Input(InputError::UnknownParameter, _)), "{undeclared:?}");
    assert_eq!(read(&json!({"topic": "a pond"}), None).unwrap()[1].1, "a pond");
}

#[test]
fn null_is_an_absent_value_whatever_the_contracts_schema_admits() {
    let any = json!({});
    let nullable = json!({"properties": {"topic": {"type": ["string", "null"]}}});
    for schema in [None, Some(&any), Some(&nullable)] {
        let refusal = read(&json!({"topic": null}), schema).unwrap_err();
        assert!(matches!(refusal, Refusal::Input(InputError::MissingParameter, _)), "{refusal:?}");
        let values = read(&json!({"topic": "a pond", "tone": null}), schema).unwrap();
        assert_eq!(values[0], ("tone".to_owned(), "dry".to_owned()), "the default");
    }
}

#[test]
fn the_contracts_schema_is_checked_first_and_then_the_template() {
    let schema = json!({"required": ["topic"], "properties": {"topic": {"type": "string"}, "extra": true}});
    let refused = |body: Value| read(&body, Some(&schema)).unwrap_err();
    let malformed = |field, expected, received| Refusal::input(InputError::Malformed, field, expected, received);
    assert_eq!(refused(json!({})), malformed("topic", "a value", "nothing"));
    assert_eq!(refused(json!({"topic": 7})), malformed("topic", "a string", "something else"));
    let undeclared = refused(json!({"topic": "a pond", "extra": 1}));
    assert!(matches!(undeclared, Refusal::Input(InputError::UnknownParameter, _)), "{undeclared:?}");
    assert!(read(&json!({"topic": "a pond"}), Some(&schema)).is_ok());
    let whole = json!({"maxProperties": 0});
    let refusal = read(&json!({"topic": "a pond"}), Some(&whole)).unwrap_err();
    assert_eq!(refusal, malformed("body", "at most 0 properties", "something else"));
}

#[test]
fn a_schema_that_cannot_be_read_is_our_fault_and_not_the_seekers() {
    assert_eq!(read(&json!({}), Some(&json!({"unheardOf": 1}))), Err(Refusal::Internal));
}
