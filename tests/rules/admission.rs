//! Who joins a run, waits, is refused or begins one, when a payment is presented to its object.

use super::sample::{begun, contract, payment, receipt, request, VALID_BEFORE};
use coinslot::testing::rules::admission::{admit, next_execution, reusable_payment, Admission};
use coinslot::testing::rules::record::run_record::RunRecord;
use coinslot::testing::rules::record::run_request::RunRequest;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{Event, Run, State, Terms};

const PRESENTED: [Event; 1] = [Event::Presented];
const VERIFIED: [Event; 2] = [Event::Presented, Event::Verified];

fn paid(proof: &str, digest: &str) -> RunRequest {
    request(Some(payment(proof)), digest)
}

fn invalid() -> Event {
    Event::VerifyRefused(Refusal::PaymentInvalid { reason: None })
}

fn declined() -> Event {
    Event::Broke { error: ModelError::Declined, no_text: true }
}

fn rejected() -> Event {
    Event::SettleRejected(None)
}

/// The decision about `second`, after `first` has begun a run and these events have come.
fn decide(first: RunRequest, events: &[Event], second: &RunRequest) -> Admission {
    let (run, record) = begun(first, events);
    admit(&run, Some(&record), second)
}

fn new_run() -> Run {
    Run::new(Terms::free())
}

#[test]
fn the_first_request_begins_a_run() {
    assert_eq!(admit(&new_run(), None, &paid("p", "d")), Admission::Begin);
    assert_eq!(admit(&new_run(), None, &request(None, "d")), Admission::Begin);
}

#[test]
fn a_request_that_must_not_begin_a_run_is_refused_and_still_joins_the_one_it_has_paid_for() {
    let refused = || RunRequest { begin_refusal: Some(Refusal::Paused), ..paid("p", "d") };
    assert_eq!(admit(&new_run(), None, &refused()), Admission::Refuse(Refusal::Paused));
    assert_eq!(
        decide(paid("p", "d"), &[&VERIFIED[..], &[declined()]].concat(), &refused()),
        Admission::Refuse(Refusal::Paused)
    );
    assert_eq!(decide(paid("p", "d"), &VERIFIED, &refused()), Admission::Join);
}

#[test]
fn the_same_payment_and_request_join_the_run_wherever_it_is() {
    let to_settled = [Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::Settled(receipt())];
    for (events, state) in [
        (PRESENTED.to_vec(), State::Presented),
        (VERIFIED.to_vec(), State::Verified),
        (to_settled.to_vec(), State::Streaming),
        ([&to_settled[..], &[Event::Ended]].concat(), State::Delivered),
        ([&to_settled[..], &[declined()]].concat(), State::Refundable(ModelError::Declined)),
    ] {
        assert_eq!(begun(paid("p", "d"), &events).0.state(), &state);
        assert_eq!(decide(paid("p", "d"), &events, &paid("p", "d")), Admission::Join, "{state:?}");
    }
}

#[test]
fn another_request_with_the_same_payment_is_refused_whether_or_not_the_payment_is_verified() {
    for events in [&PRESENTED[..], &VERIFIED] {
        let decision = decide(paid("p", "d"), events, &paid("p", "other"));
        assert_eq!(decision, Admission::Refuse(Refusal::PaymentReused));
    }
}

#[test]
fn another_signature_under_the_same_nonce_waits_until_the_first_is_verified_and_then_is_refused() {
    assert_eq!(decide(paid("p", "d"), &PRESENTED, &paid("forged", "d")), Admission::Wait);
    assert_eq!(decide(paid("forged", "x"), &PRESENTED, &paid("p", "d")), Admission::Wait, "also with another request");
    let refused = Admission::Refuse(Refusal::PaymentReused);
    assert_eq!(decide(paid("p", "d"), &VERIFIED, &paid("forged", "d")), refused);
}

#[test]
fn another_signature_begins_a_run_once_the_first_is_found_invalid() {
    let events = [Event::Presented, invalid()];
    assert_eq!(decide(paid("forged", "d"), &events, &paid("p", "d")), Admission::Begin);
}

#[test]
fn a_run_that_failed_before_it_was_charged_begins_anew_also_with_another_request() {
    let failed = [Event::Presented, Event::Verified, declined()];
    assert_eq!(begun(paid("p", "d"), &failed).0.state(), &State::Failed(ModelError::Declined));
    assert_eq!(decide(paid("p", "d"), &failed, &paid("p", "d")), Admission::Begin);
    assert_eq!(decide(paid("p", "d"), &failed, &paid("p", "other")), Admission::Begin);
}

#[test]
fn a_payment_is_refused_where_an_owner_test_runs() {
    assert_eq!(decide(request(None, "d"), &PRESENTED, &request(None, "d")), Admission::Join);
    assert_eq!(decide(request(None, "d"), &PRESENTED, &paid("p", "d")), Admission::Refuse(Refusal::PaymentReused));
}

// Contracts: one contract is one task, whatever is paid with.

fn execution(number: u32, attempts: u32, proof: &str, digest: &str) -> RunRequest {
    RunRequest { contract_context: Some(contract(number, attempts)), ..paid(proof, digest) }
}

/// An execution that Claude declined: nothing was charged.
const FAILED: [Event; 3] =
    [Event::Presented, Event::Verified, Event::Broke { error: ModelError::Declined, no_text: true }];

#[test]
fn a_contract_under_way_is_joined_with_whatever_payment() {
    for events in [&PRESENTED[..], &VERIFIED] {
        let decision = decide(execution(1, 3, "p", "d"), events, &execution(1, 3, "another", "d"));
        assert_eq!(decision, Admission::Join);
    }
    let without =
        RunRequest { payment: None, begin_refusal: Some(Refusal::PaymentRequired), ..execution(1, 3, "", "d") };
    assert_eq!(decide(execution(1, 3, "p", "d"), &VERIFIED, &without), Admission::Join, "or with none");
}

#[test]
fn a_contract_is_not_executed_with_another_input() {
    let refused = Admission::Refuse(Refusal::ContractInputDiffers);
    for events in [&PRESENTED[..], &VERIFIED, &FAILED] {
        let decision = decide(execution(1, 3, "p", "d"), events, &execution(1, 3, "p", "other"));
        assert_eq!(decision, refused, "{events:?}");
    }
}

#[test]
fn a_contract_whose_payment_was_not_valid_may_still_change_its_input() {
    let events = [Event::Presented, invalid()];
    assert_eq!(decide(execution(1, 3, "p", "d"), &events, &execution(1, 3, "q", "other")), Admission::Begin);
}

#[test]
fn a_contract_is_executed_again_until_its_retries_are_exhausted() {
    let second = execution(1, 2, "p", "d");
    assert_eq!(decide(execution(1, 2, "p", "d"), &FAILED, &second), Admission::Begin);
    let third = decide(execution(2, 2, "p", "d"), &FAILED, &second);
    assert_eq!(third, Admission::Refuse(Refusal::RetriesExhausted));
}

#[test]
fn an_execution_without_a_call_of_claude_exhausts_no_retries() {
    let events = [Event::Presented, invalid()];
    assert_eq!(decide(execution(2, 2, "p", "d"), &events, &execution(1, 2, "q", "d")), Admission::Begin);
}

#[test]
fn an_execution_has_the_number_after_the_last_that_called_claude() {
    let next = |number, events: &[Event]| {
        let (run, record) = begun(execution(number, 5, "p", "d"), events);
        next_execution(&run, Some(&record))
    };
    assert_eq!(next_execution(&new_run(), None), 1);
    assert_eq!((next(1, &FAILED), next(3, &FAILED)), (2, 4));
    assert_eq!(next(3, &[Event::Presented, invalid()]), 3, "Claude was not called");
}

/// The proof of the payment that another execution may use, which needs it to be good until then.
fn reusable(events: &[Event], good_until: u64) -> Option<String> {
    let (run, record): (Run, RunRecord) = begun(execution(1, 3, "p", "d"), events);
    reusable_payment(&run, Some(&record), good_until).map(|payment| payment.proof.clone())
}

#[test]
fn an_execution_that_was_not_charged_leaves_its_payment_to_the_next() {
    assert_eq!(reusable(&FAILED, VALID_BEFORE - 1).as_deref(), Some("p"));
    assert_eq!(reusable_payment(&new_run(), None, 0), None);
}

#[test]
fn a_payment_that_runs_out_too_soon_is_not_used_again() {
    assert_eq!(reusable(&FAILED, VALID_BEFORE), None);
}

#[test]
fn a_payment_that_no_facilitator_settles_or_verifies_is_not_used_again() {
    let to_settling = [Event::Presented, Event::Verified, Event::Began, Event::Ended];
    let rejected = [&to_settling[..], &[rejected()]].concat();
    let refused = Refusal::SettlementRejected { reason: None };
    assert_eq!(begun(execution(1, 3, "p", "d"), &rejected).0.state(), &State::Refused(refused));
    assert_eq!(reusable(&rejected, 0), None);
    assert_eq!(reusable(&[Event::Presented, invalid()], 0), None);
    // The facilitator did not take the request to settle: that says nothing about the payment.
    let not_sent = [&to_settling[..], &[Event::SettleNotSent]].concat();
    assert_eq!(reusable(&not_sent, 0).as_deref(), Some("p"));
}

#[test]
fn a_payment_that_is_being_used_or_has_paid_is_not_used_again() {
    let to_settling = [Event::Presented, Event::Verified, Event::Began, Event::Ended];
    let paid = [&to_settling[..], &[Event::Settled(receipt())]].concat();
    assert_eq!(begun(execution(1, 3, "p", "d"), &paid).0.state(), &State::Delivered);
    for events in [&PRESENTED[..], &VERIFIED, &to_settling, &paid] {
        assert_eq!(reusable(events, 0), None, "{events:?}");
    }
}
