//! Which facilitators are asked about a payment, and what each answer means.

use crate::reconcile::{payment, receipt_with, PAYER, STRANGER, TRANSACTION};
use coinslot::testing::rules::config::Facilitator;
use coinslot::testing::rules::payment::facilitator::{
    candidates, checked_on_chain, claim, claims_facilitator, is_definite_no, is_failure, is_not_submitted, is_reported,
    may_settle, names_spent_nonce, needs_chain, read_verify, says_spent, settle_event, verify_event, verify_evidence,
};
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::rules::run::{Event, Evidence};
use coinslot::testing::wire::x402::{SettleResponse, Supported, VerifyResponse};
use serde_json::{json, Value};

// Who is asked.

fn facilitator(url: &str, claims_secret: Option<&str>) -> Facilitator {
    Facilitator { url: url.to_owned(), claims_secret: claims_secret.map(str::to_owned) }
}

fn three() -> [Facilitator; 3] {
    [facilitator("https://a", None), facilitator("https://b", Some("B_KEY")), facilitator("https://c", Some("C_KEY"))]
}

#[test]
fn facilitators_are_asked_in_the_operators_order_but_the_one_that_knows_the_payment_goes_first() {
    let three = three();
    let order = |asked_before: Option<&str>, left_out: &str| -> Vec<String> {
        candidates(&three, asked_before, |url| url != left_out, |_| false).iter().map(|f| f.url.clone()).collect()
    };
    assert_eq!(order(None, ""), ["https://a", "https://b", "https://c"]);
    assert_eq!(order(Some("https://b"), ""), ["https://b", "https://a", "https://c"]);
    assert_eq!(order(Some("https://c"), ""), ["https://c", "https://a", "https://b"]);
    assert_eq!(order(Some("https://gone"), ""), ["https://a", "https://b", "https://c"], "no longer configured");
    assert_eq!(order(None, "https://a"), ["https://b", "https://c"]);
    assert_eq!(order(Some("https://c"), "https://c"), ["https://a", "https://b"], "it does not settle this payment");
}

#[test]
fn a_facilitator_that_seems_not_to_answer_is_asked_last_and_never_left_out() {
    let three = three();
    let order = |asked_before: Option<&str>, open: &[&str]| -> Vec<String> {
        candidates(&three, asked_before, |_| true, |url| open.contains(&url)).iter().map(|f| f.url.clone()).collect()
    };
    assert_eq!(order(None, &["https://a"]), ["https://b", "https://c", "https://a"]);
    assert_eq!(order(None, &["https://b", "https://a"]), ["https://c", "https://a", "https://b"]);
    assert_eq!(order(None, &["https://a", "https://b", "https://c"]), ["https://a", "https://b", "https://c"]);
    assert_eq!(
        order(Some("https://b"), &["https://b"]),
        ["https://b", "https://a", "https://c"],
        "it knows the payment"
    );
    assert_eq!(candidates(&three[..1], None, |_| true, |_| true).len(), 1, "nobody is refused unasked");
}

#[test]
fn a_facilitator_settles_everything_until_it_has_said_what_it_settles() {
    let lists = |version: u8, scheme: &str, network: &str| -> Supported {
        serde_json::from_value(json!({"kinds": [{"x402Version": version, "scheme": scheme, "network": network}]}))
            .unwrap()
    };
    let v1 = Payment { x402_version: 1, ..payment() };
    assert!(may_settle(None, &payment()) && may_settle(None, &v1));
    assert!(may_settle(Some(&lists(2, "exact", "eip155:8453")), &payment()));
    assert!(may_settle(Some(&lists(2, "exact", "eip155:*")), &payment()));
    assert!(may_settle(Some(&lists(1, "exact", "base")), &v1));
    for other in [lists(1, "exact", "base"), lists(2, "upto", "eip155:8453"), lists(2, "exact", "eip155:84532")] {
        assert!(!may_settle(Some(&other), &payment()), "{other:?}");
    }
}

// What an answer to verify means.

fn verify_body(members: Value) -> String {
    members.to_string()
}

#[test]
fn a_yes_to_verify_is_believed_with_status_200_and_no_other_payer() {
    let yes = |payer: Value| verify_body(json!({"isValid": true, "payer": payer}));
    for payer in [json!(null), json!(PAYER), json!(PAYER.to_ascii_lowercase())] {
        let answer = read_verify(200, &yes(payer.clone()), &payment()).unwrap();
        assert_eq!(verify_event(&answer), Event::Verified, "{payer}");
    }
    for payer in [json!(STRANGER), json!(""), json!("somebody")] {
        assert_eq!(read_verify(200, &yes(payer.clone()), &payment()), None, "{payer}");
    }
    for status in [201, 202, 302, 400, 402, 404, 500, 503] {
        assert_eq!(read_verify(status, &yes(json!(PAYER)), &payment()), None, "{status}");
    }
}

#[test]
fn a_no_to_verify_is_believed_with_any_status_but_a_servers_error() {
    let no = verify_body(json!({"isValid": false, "invalidReason": "insufficient_funds", "payer": STRANGER}));
    let refused = Event::VerifyRefused(Refusal::PaymentInvalid { reason: Some("insufficient_funds".to_owned()) });
    for status in [200, 400, 402, 422, 499] {
        let answer = read_verify(status, &no, &payment()).unwrap();
        assert_eq!(verify_event(&answer), refused, "{status}: whoever it names as the payer");
    }
    for status in [500, 502, 503, 522] {
        assert_eq!(read_verify(status, &no, &payment()), None, "{status}");
    }
}

#[test]
fn an_answer_without_a_verdict_is_none() {
    for text in ["", "{}", "[]", "<html>", r#"{"isValid":"true"}"#, r#"{"error":"x"}"#] {
        for status in [200, 400] {
            assert_eq!(read_verify(status, text, &payment()), None, "{text}");
        }
    }
}

#[test]
fn a_new_payment_with_a_spent_nonce_is_a_used_one_and_no_invalid_one() {
    for reason in SPENT {
        assert_eq!(verify_event(&verdict(false, reason)), Event::VerifyRefused(Refusal::PaymentReused), "{reason}");
    }
    for (reason, code) in [("", None), ("Not enough money!", None), ("nonce", Some("nonce".to_owned()))] {
        let refused = Event::VerifyRefused(Refusal::PaymentInvalid { reason: code });
        assert_eq!(verify_event(&verdict(false, reason)), refused, "only a code is passed on: {reason}");
    }
}

fn answer(reason: &str, transaction: &str) -> SettleResponse {
    SettleResponse {
        success: false,
        error_reason: (!reason.is_empty()).then(|| reason.to_owned()),
        transaction: transaction.to_owned(),
        network: "eip155:8453".to_owned(),
        payer: None,
    }
}

/// Once a transaction is submitted, nothing that a facilitator answers is a definite no: the payer would sign and pay
/// again.
#[test]
fn only_what_is_found_before_submitting_is_a_definite_no() {
    for reason in [
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_signature",
        "invalid_exact_evm_payload_authorization_valid_before",
        "invalid_network",
        "unsupported_scheme",
    ] {
        assert!(is_definite_no(&answer(reason, "")), "{reason}");
        assert!(!is_definite_no(&answer(reason, TRANSACTION)), "{reason} with a transaction");
        assert!(!is_definite_no(&SettleResponse { success: true, ..answer(reason, "") }), "a yes is no no");
    }
    for reason in [
        "",
        "settlement_pending",
        "transaction_failed",
        "invalid_transaction_state",
        "invalid_exact_evm_transaction_failed",
        "invalid_exact_evm_nonce_already_used",
        "unexpected_settle_error",
        "Timed out while waiting for transaction to be confirmed.",
        "whatever_comes_next",
    ] {
        assert!(!is_definite_no(&answer(reason, "")), "{reason}");
    }
}

/// Facilitators' words for a nonce that is spent.
const SPENT: [&str; 3] =
    ["invalid_exact_evm_nonce_already_used", "authorization_nonce_used", "invalid_exact_evm_payload_nonce_spent"];
/// Words that are not.
const NOT_SPENT: [&str; 5] =
    ["", "nonce", "invalid_exact_evm_payload_authorization_nonce", "insufficient_funds", "amount_already_used"];

#[test]
fn a_facilitator_says_spent_where_it_names_a_nonce_that_is_used() {
    for reason in SPENT {
        assert!(says_spent(&answer(reason, "")) && names_spent_nonce(Some(reason)), "{reason}");
        assert!(!is_definite_no(&answer(reason, "")), "spent on what, it does not say: {reason}");
        assert!(!says_spent(&answer(reason, TRANSACTION)), "by a transaction of its own, perhaps");
        assert!(!says_spent(&SettleResponse { success: true, ..answer(reason, "") }));
    }
    for reason in NOT_SPENT {
        assert!(!says_spent(&answer(reason, "")) && !names_spent_nonce(Some(reason)), "{reason}");
    }
    assert!(!names_spent_nonce(None));
}

/// What is still under way may yet move the money: only what has failed is an answer.
#[test]
fn a_settlement_has_failed_only_where_the_facilitator_says_so_in_so_many_words() {
    for (reason, failed) in [
        ("transaction_failed", true),
        ("invalid_transaction_state", true),
        ("invalid_exact_evm_transaction_failed", true),
        ("invalid_exact_evm_transfer_event_mismatch", true),
        ("settle_exact_failed_onchain", true),
        ("execution reverted: FiatTokenV2: authorization is used or canceled", true),
        ("", false),
        ("unexpected_settle_error", false),
        ("HTTP request failed.", false),
        ("whatever_comes_next", false),
        ("settlement_pending", false),
        ("transaction_pending", false),
        ("settlement_timeout", false),
        ("settle_exact_transaction_confirmation_timed_out", false),
    ] {
        for transaction in ["", TRANSACTION] {
            assert_eq!(is_failure(&answer(reason, transaction)), failed, "{reason}: {transaction}");
        }
        assert!(!is_failure(&SettleResponse { success: true, ..answer(reason, "") }), "a yes is no failure");
    }
}

/// In version 1 the reference facilitator passes on what its library threw, as it is (`x402/evm`, `exact/v1`).
#[test]
fn a_confirmation_that_timed_out_is_no_failure_in_the_librarys_own_words_either() {
    for reason in [
        "Timed out while waiting for transaction to be confirmed.",
        "Timed out while waiting for transaction with hash \"0x12\" to be confirmed.",
        "The request timed out.",
        "Timeout",
    ] {
        assert!(!is_failure(&answer(reason, "")), "{reason}");
    }
}

#[test]
fn a_facilitator_that_did_not_take_the_request_cannot_have_submitted_anything() {
    let sure: Vec<u16> = (100..600).filter(|status| is_not_submitted(*status)).collect();
    assert_eq!(sure, [401, 403, 404, 405, 415, 429, 501, 521, 523, 525, 526, 530]);
    for status in [200, 400, 402, 408, 409, 500, 502, 503, 504, 520, 522, 524] {
        assert!(!is_not_submitted(status), "{status} may come after the submission");
    }
}

fn verdict(is_valid: bool, reason: &str) -> VerifyResponse {
    let invalid_reason = (!reason.is_empty()).then(|| reason.to_owned());
    VerifyResponse { is_valid, invalid_reason, payer: None }
}

#[test]
fn what_verify_says_of_a_payment_that_was_to_be_settled() {
    assert_eq!(verify_evidence(&verdict(true, ""), &payment()), Evidence::Unspent);
    for reason in SPENT {
        let spent = Evidence::Spent(receipt_with(""));
        assert_eq!(verify_evidence(&verdict(false, reason), &payment()), spent, "never paid, only spent: {reason}");
    }
    let too_late = "invalid_exact_evm_payload_authorization_valid_before";
    for reason in NOT_SPENT.into_iter().chain([too_late, "invalid_exact_evm_payload_signature"]) {
        assert_eq!(verify_evidence(&verdict(false, reason), &payment()), Evidence::Nothing, "{reason}");
    }
}

// What an answer to settle means.

/// A settle response that fits the payment.
fn settled() -> Value {
    json!({"success": true, "transaction": TRANSACTION, "network": "eip155:8453", "payer": PAYER})
}

fn with(mut answer: Value, name: &str, value: Value) -> Value {
    answer[name] = value;
    answer
}

fn event(status: u16, answer: &Value) -> Event {
    event_of(status, &answer.to_string())
}

fn event_of(status: u16, text: &str) -> Event {
    settle_event(status, serde_json::from_str(text).ok().as_ref(), &payment())
}

#[test]
fn a_yes_that_fits_the_payment_is_its_receipt() {
    let receipt = Event::Settled(receipt_with(TRANSACTION));
    assert_eq!(event(200, &settled()), receipt);
    assert_eq!(event(200, &with(settled(), "network", json!("base"))), receipt, "by its name in v1");
    assert_eq!(event(200, &with(settled(), "payer", json!(null))), receipt, "the payer need not be named");
    assert_eq!(event(200, &with(settled(), "payer", json!(PAYER.to_ascii_lowercase()))), receipt);
    assert_eq!(event(200, &with(settled(), "errorReason", json!("insufficient_funds"))), receipt, "success counts");
}

/// The money may have moved all the same: such an answer is neither a yes nor a no.
#[test]
fn a_yes_that_does_not_fit_the_payment_leaves_open_whether_the_money_has_moved() {
    for (name, value) in [
        ("transaction", json!("")),
        ("transaction", json!("0x12")),
        ("transaction", json!(TRANSACTION.trim_start_matches("0x"))),
        ("network", json!("eip155:84532")),
        ("network", json!("base-sepolia")),
        ("network", json!("")),
        ("payer", json!(STRANGER)),
        ("payer", json!("")),
        ("payer", json!(7)),
        ("transaction", json!(null)),
        ("transaction", json!([TRANSACTION])),
        ("network", json!(null)),
    ] {
        let answer = with(settled(), name, value);
        assert_eq!(event(200, &answer), Event::SettleUnanswered, "{answer}");
    }
    for status in [201, 202, 400, 402, 409, 500, 503] {
        assert_eq!(event(status, &settled()), Event::SettleUnanswered, "{status}");
    }
}

#[test]
fn every_no_is_read_as_what_it_makes_certain() {
    let no = |reason: &str, transaction: &str| json!({"success": false, "errorReason": reason, "transaction": transaction, "network": "eip155:8453"});
    let rejected = |reason: &str| Event::SettleRejected(Some(reason.to_owned()));
    for status in [200, 400, 402, 500] {
        for (answer, expected) in [
            (no("insufficient_funds", ""), rejected("insufficient_funds")),
            (no("invalid_exact_evm_payload_signature", ""), rejected("invalid_exact_evm_payload_signature")),
            (no("invalid_Signature!", ""), Event::SettleRejected(None)),
            (no("invalid_exact_evm_nonce_already_used", ""), Event::SettleSpent),
            (no("invalid_exact_evm_nonce_already_used", TRANSACTION), Event::SettleFailed),
            (no("transaction_failed", TRANSACTION), Event::SettleFailed),
            (no("insufficient_funds", TRANSACTION), Event::SettleFailed),
            (no("settlement_pending", TRANSACTION), Event::SettleUnanswered),
            (no("unexpected_settle_error", ""), Event::SettleUnanswered),
            (json!({"success": false}), Event::SettleUnanswered),
            (json!({"success": false, "transaction": null}), Event::SettleUnanswered),
            (with(no("insufficient_funds", ""), "transaction", json!(null)), rejected("insufficient_funds")),
            (with(no("insufficient_funds", ""), "payer", json!({})), rejected("insufficient_funds")),
            (with(no("insufficient_funds", ""), "transaction", json!({})), Event::SettleFailed),
            (with(no("", ""), "errorReason", json!({"code": "insufficient_funds"})), Event::SettleUnanswered),
        ] {
            assert_eq!(event(status, &answer), expected, "{status} {answer}");
        }
    }
}

#[test]
fn without_a_settle_response_the_status_says_whether_another_facilitator_may_be_asked() {
    for text in ["", "<html>", "{}", r#"{"error":"rate limited"}"#, r#"{"success":"true"}"#] {
        for status in [401, 403, 404, 405, 415, 429, 501, 521, 530] {
            assert_eq!(event_of(status, text), Event::SettleNotSent, "{status} {text}");
        }
        for status in [200, 400, 402, 408, 409, 500, 502, 503, 504, 520, 522, 524] {
            assert_eq!(event_of(status, text), Event::SettleUnanswered, "{status} {text}");
        }
    }
    let no = json!({"success": false, "errorReason": "insufficient_funds"});
    assert_eq!(event(404, &no), Event::SettleRejected(Some("insufficient_funds".to_owned())), "a body counts first");
}

/// A facilitator that takes the money and answers no would be paid twice.
#[test]
fn only_a_definite_no_is_checked_against_the_chain_and_stands_only_where_that_confirms_it() {
    let no = Event::SettleRejected(Some("insufficient_funds".to_owned()));
    let paid = receipt_with(TRANSACTION);
    assert!(needs_chain(&no) && needs_chain(&Event::SettleRejected(None)));
    for other in [
        Event::Settled(paid.clone()),
        Event::SettleUnanswered,
        Event::SettleNotSent,
        Event::SettleFailed,
        Event::SettleSpent,
    ] {
        assert!(!needs_chain(&other), "{other:?}");
    }
    assert_eq!(checked_on_chain(no.clone(), Some(Err(paid.clone()))), Event::Settled(paid));
    assert_eq!(checked_on_chain(no.clone(), Some(Ok(()))), no);
    assert_eq!(checked_on_chain(no, None), Event::SettleFailed, "the payer is not told to sign again");
}

// The report of a refund.

#[test]
fn a_refund_is_reported_where_it_was_settled_or_to_the_first_that_takes_claims() {
    let three = three();
    let to = |settled_by| claims_facilitator(&three, settled_by);
    assert_eq!(to(Some("https://c")), Some(("https://c", "C_KEY")));
    assert_eq!(to(Some("https://b")), Some(("https://b", "B_KEY")));
    assert_eq!(to(Some("https://a")), Some(("https://b", "B_KEY")), "the one that settled takes no claims");
    assert_eq!(to(None), Some(("https://b", "B_KEY")));
    assert_eq!(claims_facilitator(&three[..1], Some("https://a")), None);
}

/// OpenFacilitator, `POST /claims/report-failure`
#[test]
fn a_claim_names_the_transaction_and_who_is_owed_how_much() {
    let expected = json!({
        "originalTxHash": TRANSACTION, "userWallet": PAYER, "amount": "10000",
        "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "network": "base", "reason": "CLAUDE_OVERLOADED",
    });
    assert_eq!(claim(&payment(), TRANSACTION, "CLAUDE_OVERLOADED"), expected);
}

#[test]
fn a_report_is_taken_where_the_claim_is_there() {
    for (status, text) in [
        (200, r#"{"success":true,"claimId":"clm_1"}"#),
        (201, r#"{"success":true}"#),
        (409, r#"{"error":"Claim already exists for this transaction"}"#),
        (400, r#"{"success":false,"error":"A claim ALREADY EXISTS"}"#),
    ] {
        assert!(is_reported(status, text), "{status} {text}");
    }
    for (status, text) in [
        (200, r#"{"success":false}"#),
        (200, r#"{"success":"true"}"#),
        (200, "{}"),
        (200, ""),
        (200, "OK"),
        (200, "[]"),
        (302, r#"{"success":true}"#),
        (401, r#"{"success":true}"#),
        (500, r#"{"success":true}"#),
        (400, r#"{"success":false,"error":"No such server"}"#),
        (409, "already exists"),
        (404, r#"{"error":"not found"}"#),
    ] {
        assert!(!is_reported(status, text), "{status} {text}");
    }
}
