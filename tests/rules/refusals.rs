//! Every refusal: its code, its words, and whether to try again.

use coinslot::testing::rules::refusal::{ContractError, Detail, InputError, ModelError, Refusal, Retry};
use std::collections::{BTreeMap, BTreeSet};

/// One row of the table.
struct Row {
    code: &'static str,
    retry: Retry,
}

const fn never(code: &'static str) -> Row {
    Row { code, retry: Retry::Never }
}

const fn after(code: &'static str, seconds: u32) -> Row {
    Row { code, retry: Retry::After(seconds) }
}

/// The table. A new variant without a row does not compile.
fn row(refusal: &Refusal) -> Row {
    match refusal {
        Refusal::NotFound => never("NOT_FOUND"),
        Refusal::MethodNotAllowed { .. } => never("METHOD_NOT_ALLOWED"),
        Refusal::RateLimited => after("RATE_LIMITED", 10),
        Refusal::Paused => after("PAUSED", 60),
        Refusal::BodyTooLarge { .. } => never("BODY_TOO_LARGE"),
        Refusal::ContractIdMissing => never("CONTRACT_ID_MISSING"),
        Refusal::Contract(error, _) => match error {
            ContractError::Malformed => never("CONTRACT_MALFORMED"),
            ContractError::HashMismatch => never("CONTRACT_HASH_MISMATCH"),
            ContractError::WorkerSignature => never("WORKER_SIGNATURE_INVALID"),
            ContractError::SeekerSignature => never("SEEKER_SIGNATURE_INVALID"),
            ContractError::UnknownWorker => never("WORKER_UNKNOWN"),
            ContractError::UnknownCapability => never("CAPABILITY_UNKNOWN"),
            ContractError::Trigger => never("PAYMENT_TRIGGER_UNSUPPORTED"),
            ContractError::Price => never("PRICE_NOT_ACCEPTED"),
            ContractError::Deadline => never("DEADLINE_NOT_ACCEPTED"),
            ContractError::Output => never("OUTPUT_NOT_OFFERED"),
            ContractError::Schema => never("SCHEMA_UNSUPPORTED"),
            ContractError::Sla => never("SLA_NOT_OFFERED"),
            ContractError::Webhook => never("WEBHOOK_REFUSED"),
            ContractError::Exists => never("CONTRACT_EXISTS"),
            ContractError::TooMany => after("TOO_MANY_CONTRACTS", 60),
        },
        Refusal::Input(error, _) => match error {
            InputError::NotJson => never("INVALID_JSON"),
            InputError::NotAnObject | InputError::Malformed => never("INVALID_INPUT"),
            InputError::UnknownParameter => never("UNKNOWN_PARAMETER"),
            InputError::NotAString => never("INVALID_TYPE"),
            InputError::MissingParameter => never("MISSING_PARAMETER"),
            InputError::TooLong => never("VALUE_TOO_LONG"),
            InputError::UserMessageNotAllowed => never("USER_MESSAGE_NOT_ALLOWED"),
        },
        Refusal::TokenMissing => never("TOKEN_MISSING"),
        Refusal::TokenInvalid => never("TOKEN_INVALID"),
        Refusal::NotOwner => never("NOT_OWNER"),
        Refusal::LinkInvalid => never("LINK_INVALID"),
        Refusal::FileDamaged => never("FILE_DAMAGED"),
        Refusal::SigningKeyMissing => after("SIGNING_KEY_MISSING", 600),
        Refusal::KeyMissing => after("CREATOR_KEY_MISSING", 600),
        Refusal::KeyDisabled => after("CREATOR_KEY_DISABLED", 600),
        Refusal::ModelUnavailable => never("MODEL_UNAVAILABLE"),
        Refusal::NotForSale => never("NOT_FOR_SALE"),
        Refusal::TemplateTooLong => never("TEMPLATE_TOO_LONG"),
        Refusal::PaymentRequired => never("PAYMENT_REQUIRED"),
        Refusal::PaymentMalformed { .. } => never("PAYMENT_MALFORMED"),
        Refusal::PaymentMismatch { .. } => never("PAYMENT_MISMATCH"),
        Refusal::PaymentExpired => never("PAYMENT_EXPIRED"),
        Refusal::PaymentNotYetValid => after("PAYMENT_NOT_YET_VALID", 1),
        Refusal::IdentifierInvalid => never("IDENTIFIER_INVALID"),
        Refusal::IdentifierMissing => never("IDENTIFIER_MISSING"),
        Refusal::IdentifierReused => never("IDENTIFIER_REUSED"),
        Refusal::SeekerMismatch => never("SEEKER_MISMATCH"),
        Refusal::ContractInputDiffers => never("CONTRACT_INPUT_DIFFERS"),
        Refusal::RetriesExhausted => never("RETRIES_EXHAUSTED"),
        Refusal::TooManyUnpaidRuns { retry_after } => after("TOO_MANY_UNPAID_RUNS", *retry_after),
        Refusal::TooManyOwnerTests { retry_after } => after("TOO_MANY_OWNER_TESTS", *retry_after),
        Refusal::ContractEnded => never("CONTRACT_ENDED"),
        Refusal::PaymentReused => never("PAYMENT_REUSED"),
        Refusal::PaymentInvalid { .. } => never("PAYMENT_INVALID"),
        Refusal::FacilitatorUnavailable => after("FACILITATOR_UNAVAILABLE", 5),
        Refusal::Claude(error) => match error {
            ModelError::KeyInvalid => never("CLAUDE_KEY_INVALID"),
            ModelError::Permission => never("CLAUDE_PERMISSION_DENIED"),
            ModelError::Billing => never("CLAUDE_BILLING"),
            ModelError::ModelRetired => never("CLAUDE_MODEL_RETIRED"),
            ModelError::TooLong => never("CLAUDE_INPUT_TOO_LONG"),
            ModelError::Rejected => never("CLAUDE_REQUEST_REJECTED"),
            ModelError::RateLimited { retry_after: Some(seconds) } => after("CLAUDE_RATE_LIMITED", *seconds),
            ModelError::RateLimited { retry_after: None } => after("CLAUDE_RATE_LIMITED", 3600),
            ModelError::Overloaded => after("CLAUDE_OVERLOADED", 15),
            ModelError::Upstream => after("CLAUDE_ERROR", 5),
            ModelError::Unreachable => after("CLAUDE_UNREACHABLE", 5),
            ModelError::TimedOut => after("CLAUDE_TIMEOUT", 5),
            ModelError::WindowOver => never("PAYMENT_WINDOW_OVER"),
            ModelError::Broken => after("CLAUDE_STREAM_ERROR", 1),
            ModelError::CutOff => after("CLAUDE_CUT_OFF", 1),
            ModelError::Empty => after("CLAUDE_EMPTY_ANSWER", 1),
            ModelError::Declined => never("CLAUDE_REFUSED"),
            ModelError::CallerGone => after("CALLER_GONE", 1),
            ModelError::DeadlineMissed => never("DEADLINE_MISSED"),
            ModelError::OutputMismatch { .. } => after("OUTPUT_SCHEMA_MISMATCH", 1),
            ModelError::Truncated => never("OUTPUT_TRUNCATED"),
            ModelError::NotStored => after("FILE_STORE_UNAVAILABLE", 5),
        },
        Refusal::SettlementRejected { .. } => never("SETTLEMENT_REJECTED"),
        Refusal::SettlementUnknown => after("SETTLEMENT_UNKNOWN", 5),
        Refusal::Interrupted => after("RUN_INTERRUPTED", 1),
        Refusal::Refundable => never("RUN_REFUNDABLE"),
        Refusal::ApiKeyRejected => never("API_KEY_REJECTED"),
        Refusal::Internal => never("INTERNAL"),
    }
}

/// The code the specification's reason is looked for in, and what an upstream might have said.
const UPSTREAM: &str = "insufficient_funds";

/// One of each, in the order of precedence. `every_code_of_the_table_is_in_the_list` sees that none is missing.
pub fn all() -> Vec<Refusal> {
    use InputError as I;
    use ModelError as C;
    let detail =
        || Detail { field: "topic".to_owned(), expected: "a string".to_owned(), received: "a number".to_owned() };
    let reason = || Some(UPSTREAM.to_owned());
    let mut all = vec![
        Refusal::NotFound,
        Refusal::MethodNotAllowed { allow: "GET, PUT".to_owned() },
        Refusal::RateLimited,
        Refusal::Paused,
        Refusal::BodyTooLarge { limit: 1024 },
        Refusal::ContractIdMissing,
    ];
    use ContractError as K;
    let contracts = [
        K::Malformed,
        K::HashMismatch,
        K::WorkerSignature,
        K::SeekerSignature,
        K::UnknownWorker,
        K::UnknownCapability,
        K::Trigger,
        K::Price,
        K::Deadline,
        K::Output,
        K::Schema,
        K::Sla,
        K::Webhook,
        K::Exists,
        K::TooMany,
    ];
    all.extend(contracts.map(|error| Refusal::Contract(error, detail())));
    let inputs = [
        I::NotJson,
        I::NotAnObject,
        I::UnknownParameter,
        I::NotAString,
        I::MissingParameter,
        I::TooLong,
        I::UserMessageNotAllowed,
        I::Malformed,
    ];
    all.extend(inputs.map(|error| Refusal::Input(error, detail())));
    all.extend([
        Refusal::TokenMissing,
        Refusal::TokenInvalid,
        Refusal::NotOwner,
        Refusal::LinkInvalid,
        Refusal::FileDamaged,
        Refusal::SigningKeyMissing,
        Refusal::KeyMissing,
        Refusal::KeyDisabled,
        Refusal::ModelUnavailable,
        Refusal::NotForSale,
        Refusal::TemplateTooLong,
        Refusal::PaymentRequired,
        Refusal::PaymentMalformed { what: "the header is not base64".to_owned() },
        Refusal::PaymentMismatch { field: "amount".to_owned() },
        Refusal::PaymentExpired,
        Refusal::PaymentNotYetValid,
        Refusal::IdentifierInvalid,
        Refusal::IdentifierMissing,
        Refusal::IdentifierReused,
        Refusal::SeekerMismatch,
        Refusal::ContractInputDiffers,
        Refusal::RetriesExhausted,
        Refusal::TooManyUnpaidRuns { retry_after: 2 },
        Refusal::TooManyOwnerTests { retry_after: 3600 },
        Refusal::ContractEnded,
        Refusal::PaymentReused,
        Refusal::PaymentInvalid { reason: reason() },
        Refusal::PaymentInvalid { reason: None },
        Refusal::FacilitatorUnavailable,
    ]);
    all.extend(
        [
            C::KeyInvalid,
            C::Permission,
            C::Billing,
            C::ModelRetired,
            C::TooLong,
            C::Rejected,
            C::RateLimited { retry_after: Some(7) },
            C::RateLimited { retry_after: None },
            C::Overloaded,
            C::Upstream,
            C::Unreachable,
            C::TimedOut,
            C::WindowOver,
            C::Broken,
            C::CutOff,
            C::Empty,
            C::Declined,
            C::CallerGone,
            C::DeadlineMissed,
            C::OutputMismatch { repair: true },
            C::OutputMismatch { repair: false },
            C::Truncated,
            C::NotStored,
        ]
        .map(Refusal::Claude),
    );
    all.extend([
        Refusal::SettlementRejected { reason: reason() },
        Refusal::SettlementRejected { reason: None },
        Refusal::SettlementUnknown,
        Refusal::Interrupted,
        Refusal::Refundable,
        Refusal::ApiKeyRejected,
        Refusal::Internal,
    ]);
    all
}

#[test]
fn every_refusal_has_the_code_and_the_retry_of_its_row() {
    for refusal in all() {
        let row = row(&refusal);
        assert_eq!((refusal.code(), refusal.retry()), (row.code, row.retry), "{refusal:?}");
    }
}

/// The codes in the table above, read from this file: the list must have each.
#[test]
fn every_code_of_the_table_is_in_the_list() {
    let table = include_str!("refusals.rs").split("fn row(").nth(1).unwrap().split("\n}\n").next().unwrap();
    let of_table: BTreeSet<&str> = table.split('"').skip(1).step_by(2).collect();
    let all = all();
    let of_list: BTreeSet<&str> = all.iter().map(Refusal::code).collect();
    assert_eq!(of_list, of_table);
    assert!(of_table.len() > 40);
}

#[test]
fn codes_are_screaming_snake_case_and_name_one_refusal_each() {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for refusal in all() {
        let code = refusal.code();
        let plain = code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        assert!(plain && !code.starts_with('_') && !code.ends_with('_') && !code.contains("__"), "{code}");
        // The variant's name, without what it carries. A body of the wrong form has one code in two ways.
        let name = format!("{refusal:?}").replace("Malformed, Detail", "NotAnObject, Detail");
        let name = name.split(" {").next().unwrap().to_owned();
        let former = seen.insert(code, name.clone());
        assert!(former.as_ref().is_none_or(|former| *former == name), "{code} is {former:?} and {name}");
    }
}

#[test]
fn messages_are_sentences_for_people_and_hold_nothing_of_the_upstreams() {
    for refusal in all() {
        let message = refusal.message();
        let head = message.chars().next().unwrap();
        assert!(head.is_uppercase() || head == '`', "{message}");
        assert!(message.ends_with('.') && message.len() < 200, "{message}");
        for word in [UPSTREAM, "sk-ant", "None", "Some(", "{", "}", "null", "panic", "\n", "  "] {
            assert!(!message.contains(word), "{message:?} has {word:?}");
        }
        assert!(!message.contains(refusal.code()), "{message}");
    }
}

#[test]
fn a_refusal_before_the_money_moved_says_that_nothing_was_charged_or_asks_for_nothing() {
    for refusal in [
        Refusal::FacilitatorUnavailable,
        Refusal::SettlementRejected { reason: None },
        Refusal::Paused,
        Refusal::KeyMissing,
        Refusal::KeyDisabled,
        Refusal::ModelUnavailable,
        Refusal::TooManyUnpaidRuns { retry_after: 2 },
    ] {
        assert!(refusal.message().contains("Nothing was charged"), "{refusal:?}");
    }
    // The payment may have bought something else; whether it has is not this answer's to say.
    // After a fault of ours nobody has looked.
    let unknown = [Refusal::SettlementUnknown, Refusal::PaymentReused, Refusal::IdentifierReused, Refusal::Internal];
    for refusal in unknown {
        assert!(!refusal.knows_charge() && !refusal.message().contains("charged"), "{refusal:?}");
    }
    assert!(Refusal::Refundable.knows_charge() && Refusal::Claude(ModelError::CutOff).knows_charge());
    // After a day coinslot has forgotten the run that a spent payment bought: it cannot say what was charged.
    let spent = [Refusal::PaymentInvalid { reason: None }, Refusal::PaymentExpired];
    for refusal in [Refusal::SettlementUnknown, Refusal::Interrupted, Refusal::Refundable].into_iter().chain(spent) {
        assert!(!refusal.message().to_lowercase().contains("nothing was charged"), "{refusal:?}");
    }
    let to_be_presented_again = [
        Refusal::SettlementUnknown,
        Refusal::Interrupted,
        Refusal::FacilitatorUnavailable,
        Refusal::TooManyUnpaidRuns { retry_after: 2 },
    ];
    for refusal in to_be_presented_again {
        assert!(refusal.message().contains("the same payment again"), "nobody should sign twice: {refusal:?}");
    }
}

#[test]
fn a_retry_is_a_sensible_wait() {
    for refusal in all() {
        if let Retry::After(seconds) = refusal.retry() {
            assert!((1..=3600).contains(&seconds), "{refusal:?}");
        }
    }
    let limited = ModelError::RateLimited { retry_after: Some(42) };
    assert_eq!(limited.retry(), Retry::After(42), "as long as Anthropic says");
}

/// Which error passes by itself, and after how long where 2 seconds are the usual wait.
#[test]
fn an_error_that_passes_is_waited_for_and_any_other_is_not() {
    use ModelError as C;
    for refusal in all() {
        let Refusal::Claude(error) = refusal else { continue };
        let expected = match error {
            C::Overloaded | C::Upstream | C::Unreachable | C::Broken | C::CutOff => Some(2_000),
            C::Empty | C::NotStored => Some(2_000),
            C::OutputMismatch { repair: true } => Some(0),
            C::OutputMismatch { repair: false } | C::DeadlineMissed | C::Truncated => None,
            C::WindowOver => None,
            C::RateLimited { retry_after: Some(7) } => Some(7_000),
            C::RateLimited { .. } => None,
            C::KeyInvalid | C::Permission | C::Billing | C::ModelRetired | C::TooLong | C::Rejected => None,
            C::TimedOut | C::Declined | C::CallerGone => None,
        };
        assert_eq!(error.passes_in(2_000), expected, "{error:?}");
    }
    let limited = |seconds| C::RateLimited { retry_after: Some(seconds) };
    assert_eq!(limited(1).passes_in(2_000), Some(2_000), "never sooner than we would ourselves");
    assert_eq!(limited(u32::MAX).passes_in(0), Some(u64::from(u32::MAX) * 1000));
}

/// A payer whose money has moved must not sign again; one whose money has not may.
#[test]
fn a_failure_of_claudes_says_what_was_charged() {
    for refusal in all() {
        let (paid, unpaid) = (refusal.message_when(true), refusal.message_when(false));
        match refusal {
            Refusal::Claude(error) => {
                assert!(unpaid.ends_with(" Nothing was charged."), "{unpaid}");
                let advice = match error {
                    ModelError::Declined => "The run is marked for refund.",
                    _ => "present the same payment again, and do not sign another.",
                };
                assert!(paid.ends_with(advice) && !paid.contains("Nothing was charged"), "{paid}");
            }
            other => assert_eq!((&paid, &unpaid), (&other.message(), &other.message())),
        }
    }
}

#[test]
fn details_are_given_where_one_field_is_wrong_and_nowhere_else() {
    for refusal in all() {
        let field = refusal.detail().map(|detail| detail.field);
        let expected = match &refusal {
            Refusal::Input(..) | Refusal::Contract(..) => Some("topic"),
            Refusal::PaymentMismatch { .. } => Some("amount"),
            _ => None,
        };
        assert_eq!(field.as_deref(), expected, "{refusal:?}");
    }
}

/// x402 v2, 9: snake case. A facilitator's code is passed on, our own are spelled the same way.
#[test]
fn the_x402_reason_is_a_code_of_the_specifications_form() {
    for refusal in all() {
        let reason = refusal.x402_reason();
        assert!(reason.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{reason}");
    }
    let with = |reason: &str| Some(reason.to_owned());
    assert_eq!(Refusal::PaymentInvalid { reason: with(UPSTREAM) }.x402_reason(), UPSTREAM);
    assert_eq!(Refusal::SettlementRejected { reason: with(UPSTREAM) }.x402_reason(), UPSTREAM);
    assert_eq!(Refusal::PaymentInvalid { reason: None }.x402_reason(), "payment_invalid");
    assert_eq!(Refusal::PaymentExpired.x402_reason(), "invalid_exact_evm_payload_authorization_valid_before");
    assert_eq!(Refusal::PaymentNotYetValid.x402_reason(), "invalid_exact_evm_payload_authorization_valid_after");
    assert_eq!(Refusal::PaymentRequired.x402_reason(), "payment_required");
}

/// `docs/errors.md` and the table of statuses (a test in `routes/problem.rs`) are compared with this list.
#[test]
fn one_of_each_refusal_stands_in_a_golden_file() {
    let lines: Vec<String> = all().iter().map(|refusal| serde_json::to_string(refusal).unwrap()).collect();
    crate::golden::assert_golden("refusals.json", &lines);
}
