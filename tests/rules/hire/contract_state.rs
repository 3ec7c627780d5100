//! The state of a contract, after each state of its run.

use coinslot::testing::rules::hire::contract::ContractState;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{
    Answer, Event, Evidence, Moment, Policy, Receipt, Release, Run, State, Terms, RETENTION,
};
use ContractState::{Completed, Disputed, Executing, Rejected, Signed};

const NOW: u64 = super::NOW;

/// A run of a contract after these events.
pub(super) fn run_after(policy: Policy, events: &[Event]) -> Run {
    let terms = Terms {
        policy,
        release: Release::Settled,
        start_attempts: 1,
        paid_attempts: 3,
        valid_until: NOW + 300_000,
        detached: true,
        due_by: Some(NOW + RETENTION),
        kept_until: Some(NOW + RETENTION),
    };
    let mut run = Run::new(terms);
    events.iter().for_each(|event| drop(run.handle(event.clone(), Moment { now: NOW, jitter: 0 })));
    run
}

pub(super) fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt { transaction: text("0x1"), network: text("eip155:8453"), network_v1: text("base"), payer: text("0x2") }
}

/// An error that no further call of Claude helps with.
pub(super) fn broke() -> Event {
    Event::Broke { error: ModelError::Declined, no_text: true }
}

pub(super) const BEGUN: [Event; 3] = [Event::Presented, Event::Verified, Event::Began];

pub(super) fn begun_and(more: &[Event]) -> Vec<Event> {
    [&BEGUN[..], more].concat()
}

fn interrupted() -> Vec<Event> {
    let broke = Event::Broke { error: ModelError::CutOff, no_text: false };
    begun_and(&[Event::FirstText, Event::Settled(receipt()), broke])
}

#[test]
fn each_state_of_a_run_makes_one_of_its_contract() {
    use Event::{
        Ended, FirstText, Presented, Reconciled, Reported, SettleRejected, SettleUnanswered, Settled, Verified,
    };
    let (result, stream) = (Policy::OnResult, Policy::OnStart);
    let rejected = || SettleRejected(None);
    let unknown = |more: &[Event]| [&begun_and(&[Ended, SettleUnanswered])[..], more].concat();
    let given_up = || [&begun_and(&[FirstText, Settled(receipt())])[..], &[broke()]].concat();
    // Policy and events, the run's state, the contract's state while it may be executed again, and when it may not.
    let cases: Vec<(Policy, Vec<Event>, State, ContractState, ContractState)> = vec![
        (result, vec![], State::New, Signed, Signed),
        (result, vec![Presented], State::Presented, Executing, Executing),
        (result, vec![Presented, Verified], State::Verified, Executing, Executing),
        (result, begun_and(&[]), State::Answering { settling: false, answer: Answer::Writing }, Executing, Executing),
        (result, begun_and(&[Ended]), State::Answering { settling: true, answer: Answer::Whole }, Executing, Executing),
        (stream, begun_and(&[FirstText, Settled(receipt())]), State::Streaming, Executing, Executing),
        (result, begun_and(&[Ended, Settled(receipt())]), State::Delivered, Completed, Completed),
        // Claude was not called, so this was no execution: it can be tried again as often as one likes.
        (
            result,
            vec![Presented, Event::VerifyRefused(Refusal::PaymentReused)],
            State::Refused(Refusal::PaymentReused),
            Signed,
            Signed,
        ),
        (
            result,
            begun_and(&[Ended, rejected()]),
            State::Refused(Refusal::SettlementRejected { reason: None }),
            Signed,
            Rejected,
        ),
        (result, [&BEGUN[..], &[broke()]].concat(), State::Failed(ModelError::Declined), Signed, Rejected),
        (
            result,
            unknown(&[]),
            State::SettlementUnknown { looking: false, answer: Answer::Whole },
            Executing,
            Executing,
        ),
        (result, unknown(&[Presented, Reconciled(Evidence::Paid(receipt()))]), State::Delivered, Completed, Completed),
        (stream, interrupted(), State::Interrupted(ModelError::CutOff), Executing, Executing),
        (stream, given_up(), State::Refundable(ModelError::Declined), Disputed, Disputed),
        (stream, [given_up(), vec![Reported]].concat(), State::Reported(ModelError::Declined), Disputed, Disputed),
    ];
    for (policy, events, state, before_the_end, at_the_end) in cases {
        let run = run_after(policy, &events);
        assert_eq!(run.state(), &state, "{events:?}");
        assert_eq!(ContractState::after(&run, false), before_the_end, "{state:?}");
        assert_eq!(ContractState::after(&run, true), at_the_end, "{state:?}");
    }
}

#[test]
fn the_states_have_the_names_of_hire_and_three_are_final() {
    let named = [
        (Signed, "SIGNED", false),
        (Executing, "EXECUTING", false),
        (Completed, "COMPLETED", true),
        (Rejected, "REJECTED", true),
        (Disputed, "DISPUTED", true),
    ];
    for (state, name, is_final) in named {
        assert_eq!((state.as_str(), ContractState::is_final(name)), (name, is_final));
    }
    assert!(!ContractState::is_final("completed"));
}
