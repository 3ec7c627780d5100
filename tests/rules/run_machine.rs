//! The run machine: its paths one by one. Every order of events is `tests/run_model`.

use crate::sample::free_terms;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{
    Answer, Effect, Ending, Event, Evidence, Millis, Moment, Policy, Receipt, Release, Run, State, Terms, View,
    BACK_OFF_MAX, EVIDENCE_LAG, HEARTBEAT, INTERRUPTED_MAX, MAX_SETTLES, RECONCILE_WAIT_LATE, RECORD_AGAIN,
    REPORT_AGAIN_MAX, RETENTION, RETENTION_IN_DOUBT,
};
use proptest::prelude::*;
use Effect::{
    BackOff, CallModel, CancelModelCall, Clear, Reconcile, Report, Save, Settle, StartGrace, Verify, WriteLedgerRow,
};

const NOW: Millis = 1_000_000_000;
/// The payment can be settled until then.
const VALID_UNTIL: Millis = NOW + 300_000;
const CUT: ModelError = ModelError::CutOff;
/// Dice that leave a wait as long as it can be, and jitter that halve it.
const LONG: u16 = u16::MAX;
const SHORT: u16 = 0;

fn at(now: Millis) -> Moment {
    Moment { now, jitter: LONG }
}

fn terms(policy: Policy) -> Terms {
    Terms {
        policy,
        release: Release::Settled,
        start_attempts: 3,
        paid_attempts: 3,
        valid_until: VALID_UNTIL,
        detached: false,
        due_by: None,
        kept_until: None,
    }
}

fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt { transaction: text("0x1"), network: text("eip155:8453"), network_v1: text("base"), payer: text("0x2") }
}

fn broke(silent: bool) -> Event {
    Event::Broke { error: CUT, no_text: silent }
}

/// An end that waiting does not mend.
fn declined() -> Event {
    Event::Broke { error: ModelError::Declined, no_text: true }
}

fn settled() -> Event {
    Event::Settled(receipt())
}

fn funds() -> Option<String> {
    Some("insufficient_funds".to_owned())
}

fn rejected() -> Event {
    Event::SettleRejected(funds())
}

fn reconciled(evidence: Evidence) -> Event {
    Event::Reconciled(evidence)
}

/// A run under these terms after these events.
fn under(terms: Terms, events: &[Event]) -> Run {
    let mut run = Run::new(terms);
    events.iter().for_each(|event| drop(run.handle(event.clone(), at(NOW))));
    run
}

fn after(policy: Policy, events: &[Event]) -> Run {
    under(terms(policy), events)
}

/// Tells one more event and gives back what is wanted and where the run is then.
fn step(run: &mut Run, event: Event) -> (Vec<Effect>, State) {
    step_at(run, event, NOW)
}

fn step_at(run: &mut Run, event: Event, now: Millis) -> (Vec<Effect>, State) {
    (run.handle(event, at(now)), run.state().clone())
}

fn answering(settling: bool, answer: Answer) -> State {
    State::Answering { settling, answer }
}

fn unknown(looking: bool, answer: Answer) -> State {
    State::SettlementUnknown { looking, answer }
}

/// Presented, verified, begun, first text: on `OnStart`, settling.
const fn to_settling() -> [Event; 4] {
    [Event::Presented, Event::Verified, Event::Began, Event::FirstText]
}

/// A stream that is being settled, and more.
fn settling(more: &[Event]) -> Run {
    after(Policy::OnStart, &[&to_settling()[..], more].concat())
}

fn streaming() -> Run {
    let run = settling(&[settled()]);
    assert_eq!(run.state(), &State::Streaming);
    run
}

/// A paid run that was given up at [`NOW`] and is recorded.
fn refundable() -> Run {
    let run = settling(&[settled(), declined(), Event::LedgerRowWritten]);
    assert_eq!(run.state(), &State::Refundable(ModelError::Declined));
    run
}

#[test]
fn a_stream_is_verified_asked_settled_at_its_first_text_and_delivered() {
    let mut run = Run::new(terms(Policy::OnStart));
    assert_eq!(step(&mut run, Event::Presented), (vec![Verify], State::Presented));
    assert_eq!(step(&mut run, Event::Verified), (vec![CallModel], State::Verified));
    assert_eq!(step(&mut run, Event::Began), (vec![StartGrace], answering(false, Answer::Writing)));
    assert_eq!(step(&mut run, Event::FirstText), (vec![Save, Settle], answering(true, Answer::Writing)));
    assert_eq!(run.view(), View::Wait);
    assert_eq!(step(&mut run, settled()), (vec![], State::Streaming));
    assert_eq!((run.view(), run.receipt(), run.ending()), (View::Show, Some(&receipt()), None));
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, WriteLedgerRow], State::Delivered));
    assert_eq!((run.view(), run.ending()), (View::Show, Some(Ending::Done)));
}

#[test]
fn a_stream_that_is_slow_to_speak_is_settled_when_the_grace_is_over_or_when_it_ends() {
    let mut run = after(Policy::OnStart, &[Event::Presented, Event::Verified, Event::Began]);
    assert_eq!(step(&mut run.clone(), Event::Ended), (vec![Save, Settle], answering(true, Answer::Whole)));
    assert_eq!(step(&mut run, Event::GraceElapsed).0, [Save, Settle]);
    assert_eq!(step(&mut run, Event::FirstText).0, [], "once");
    assert_eq!(step(&mut run, Event::GraceElapsed).0, []);
}

#[test]
fn a_document_is_settled_only_when_it_is_whole() {
    let mut run = after(Policy::OnResult, &[Event::Presented, Event::Verified]);
    for event in [Event::Began, Event::FirstText, Event::GraceElapsed] {
        assert_eq!(step(&mut run, event), (vec![], answering(false, Answer::Writing)));
    }
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, Settle], answering(true, Answer::Whole)));
    assert_eq!(run.view(), View::Wait);
    assert_eq!(step(&mut run, settled()), (vec![Save, WriteLedgerRow], State::Delivered));
}

#[test]
fn an_owners_test_is_asked_and_shown_without_any_payment() {
    let mut run = Run::new(free_terms());
    assert_eq!(step(&mut run, Event::Presented), (vec![CallModel], State::Verified));
    assert_eq!(step(&mut run, Event::Began), (vec![], State::Streaming));
    assert_eq!(run.view(), View::Show);
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, WriteLedgerRow], State::Delivered));
    assert_eq!(run.receipt(), None);
}

#[test]
fn a_stream_that_ends_before_its_settlement_is_delivered_when_it_is_settled() {
    let mut run = settling(&[]);
    assert_eq!(step(&mut run, Event::Ended), (vec![], answering(true, Answer::Whole)), "nobody has seen it");
    assert_eq!(run.view(), View::Wait);
    assert_eq!(step(&mut run, settled()), (vec![Save, WriteLedgerRow], State::Delivered));
}

/// The run that the same payment begins next.
fn next(run: &Run) -> Run {
    let mut next = run.next(run.terms().clone());
    assert_eq!(step(&mut next, Event::Presented), (vec![Verify], State::Presented));
    next
}

/// Whoever has not proven a payment leaves nothing behind.
#[test]
fn of_a_payment_that_does_not_verify_nothing_is_stored_and_it_may_come_again() {
    let invalid = Refusal::PaymentInvalid { reason: None };
    for refusal in [invalid, Refusal::PaymentReused, Refusal::FacilitatorUnavailable, Refusal::Internal] {
        for terms in [terms(Policy::OnStart), terms(Policy::OnResult), contract_terms()] {
            let mut run = under(terms, &[Event::Presented]);
            let refused = (vec![], State::Refused(refusal.clone()));
            assert_eq!(step(&mut run, Event::VerifyRefused(refusal.clone())), refused);
            assert_eq!((run.view(), run.is_replaceable()), (View::Refuse(refusal.clone()), true));
            assert_eq!(step(&mut run, Event::AlarmFired).0, [], "no row is owed");
            assert!(!run.is_kept() && run.is_closed());
            next(&run);
        }
    }
}

/// A run that was refused or has failed stays as it is, in its row.
#[test]
fn a_run_that_came_to_nothing_does_not_begin_again_itself() {
    for mut run in one_of_each().into_iter().filter(|run| run.is_replaceable() && *run.state() != State::New) {
        let before = run.clone();
        assert_eq!(step(&mut run, Event::Presented).0, []);
        assert_eq!(run, before);
    }
}

/// Runs of which Claude has been asked, and which are not paid: before its answer, and in the middle of it.
fn on_credit() -> Vec<Run> {
    let asked = [Event::Presented, Event::Verified];
    let begun = [Event::Presented, Event::Verified, Event::Began];
    [Policy::OnStart, Policy::OnResult].iter().flat_map(|p| [after(*p, &asked), after(*p, &begun)]).collect()
}

#[test]
fn a_failure_before_the_settlement_costs_nothing_and_the_same_payment_may_try_again() {
    for mut run in on_credit() {
        assert_eq!(step(&mut run, declined()), (vec![Save, WriteLedgerRow], State::Failed(ModelError::Declined)));
        assert_eq!(run.view(), View::Refuse(Refusal::Claude(ModelError::Declined)));
        assert!(run.is_replaceable() && run.receipt().is_none());
        next(&run);
    }
}

#[test]
fn a_fault_that_passes_is_given_time_to_before_anything_is_charged() {
    for mut run in on_credit() {
        for wait in [500, 2_000] {
            assert_eq!(step(&mut run, broke(true)), (vec![Clear, BackOff], State::Verified));
            assert_eq!((run.back_off(), run.view()), (wait, View::Wait));
            assert_eq!(step(&mut run, Event::BackOffElapsed).0, [CallModel]);
            assert_eq!(step(&mut run, Event::BackOffElapsed).0, [], "once");
        }
        assert_eq!(
            step(&mut run, broke(true)),
            (vec![Save, WriteLedgerRow], State::Failed(CUT)),
            "after the third call"
        );
        let mut run = next(&run);
        step(&mut run, Event::Verified);
        assert_eq!(step(&mut run, broke(true)).0, [Clear, BackOff], "the next run has three calls again");
        assert_eq!(run.back_off(), 500);
    }
}

/// The waits before each of the calls that may be made before the payment.
fn start_waits(calls: u8, jitter: u16) -> Vec<Millis> {
    let many = Terms { start_attempts: calls, ..terms(Policy::OnResult) };
    let mut run = under(many, &[Event::Presented, Event::Verified]);
    let mut waits = Vec::new();
    while run.handle(broke(true), Moment { now: NOW, jitter }) == [Clear, BackOff] {
        waits.push(run.back_off());
        step(&mut run, Event::BackOffElapsed);
    }
    assert_eq!(run.state(), &State::Failed(CUT));
    waits
}

#[test]
fn as_many_calls_before_the_payment_as_are_allowed_are_made_eight_seconds_apart_at_the_most() {
    assert_eq!(start_waits(6, LONG), [500, 2_000, 8_000, 8_000, 8_000]);
    assert_eq!(start_waits(6, SHORT), [250, 1_000, 4_000, 4_000, 4_000]);
    assert_eq!((start_waits(1, LONG).len(), start_waits(u8::MAX, LONG).len()), (0, 254));
}

#[test]
fn an_answer_that_was_begun_anew_is_settled_like_any_other() {
    let mut run = after(Policy::OnStart, &[Event::Presented, Event::Verified, broke(true), Event::BackOffElapsed]);
    assert_eq!(step(&mut run, Event::Began), (vec![StartGrace], answering(false, Answer::Writing)));
    assert_eq!(step(&mut run, Event::FirstText), (vec![Save, Settle], answering(true, Answer::Writing)));
    step(&mut run, settled());
    assert_eq!(
        step(&mut run, broke(true)).0,
        [Clear, Save, CallModel],
        "the paid calls are counted from the payment on"
    );
    assert_eq!(step(&mut run, broke(true)).0, [Clear, Save, BackOff]);
}

/// What becomes of a run of three calls that Claude turns away with this fault the first time.
fn turned_away(fault: ModelError, jitter: u16) -> Option<Millis> {
    let mut run = after(Policy::OnResult, &[Event::Presented, Event::Verified]);
    let effects = run.handle(Event::Broke { error: fault, no_text: true }, Moment { now: NOW, jitter });
    match run.state() {
        State::Verified => Some(run.back_off()),
        state => {
            assert_eq!((effects, state), (vec![Save, WriteLedgerRow], &State::Failed(fault)));
            None
        }
    }
}

#[test]
fn only_a_fault_that_passes_soon_is_waited_for_before_the_money_moves() {
    use ModelError as C;
    for fault in [C::Overloaded, C::Upstream, C::Unreachable, C::Broken, C::CutOff] {
        assert_eq!(turned_away(fault, LONG), Some(500), "{fault:?}");
    }
    for fault in [C::KeyInvalid, C::Permission, C::Billing, C::ModelRetired, C::TooLong, C::Rejected, C::Declined] {
        assert_eq!(turned_away(fault, LONG), None, "{fault:?}");
    }
    assert_eq!(turned_away(C::TimedOut, LONG), None, "the caller has waited long enough");
    let limited = |retry_after| turned_away(C::RateLimited { retry_after }, LONG);
    assert_eq!(limited(None), None, "a spend cap");
    assert_eq!((limited(Some(0)), limited(Some(1)), limited(Some(8))), (Some(500), Some(1_000), Some(8_000)));
    assert_eq!((limited(Some(9)), limited(Some(u32::MAX))), (None, None), "the caller is told instead");
}

#[test]
fn the_dice_take_off_half_of_a_wait_at_the_most() {
    assert_eq!((turned_away(CUT, SHORT), turned_away(CUT, LONG)), (Some(250), Some(500)));
    let limited = ModelError::RateLimited { retry_after: Some(3) };
    assert_eq!(turned_away(limited, SHORT), Some(3_000), "and nothing of what Anthropic asks for");
}

#[test]
fn an_owners_test_is_not_asked_again() {
    let mut run = under(Terms { start_attempts: 3, ..free_terms() }, &[Event::Presented]);
    assert_eq!(step(&mut run, broke(true)), (vec![Save, WriteLedgerRow], State::Failed(CUT)));
    for silent in [true, false] {
        let mut run = under(free_terms(), &[Event::Presented, Event::Began]);
        assert_eq!(step(&mut run, broke(silent)), (vec![Save, WriteLedgerRow], State::Failed(CUT)));
    }
}

#[test]
fn claude_is_stopped_when_nobody_has_paid_and_nobody_is_there() {
    let gone = State::Failed(ModelError::CallerGone);
    let waiting = after(Policy::OnStart, &[Event::Presented, Event::Verified, broke(true)]);
    let free = under(free_terms(), &[Event::Presented, Event::Began]);
    for mut run in on_credit().into_iter().chain([waiting, free]) {
        assert!(run.is_generating_unpaid());
        assert_eq!(step(&mut run, Event::Abandoned), (vec![CancelModelCall, Save, WriteLedgerRow], gone.clone()));
        assert!(run.is_replaceable() && run.receipt().is_none());
        assert_eq!(step(&mut run, Event::BackOffElapsed).0, [], "nor is it asked later");
    }
}

#[test]
fn a_run_goes_on_without_callers_once_its_settlement_has_been_asked_for() {
    for run in one_of_each().into_iter().filter(|run| !run.is_generating_unpaid()) {
        let mut left = run.clone();
        assert_eq!(left.handle(Event::Abandoned, at(NOW + 1)), [], "{:?}", run.state());
        assert_eq!(left, run);
    }
}

#[test]
fn a_settlement_not_yet_asked_for_is_withheld_when_the_answer_has_broken_off() {
    let mut run = settling(&[]);
    assert!(!run.should_withhold());
    assert_eq!(step(&mut run, broke(false)).1, answering(true, Answer::Broken(CUT)));
    assert!(run.should_withhold());
    assert_eq!(
        step(&mut run, Event::SettleWithheld),
        (vec![CancelModelCall, Save, WriteLedgerRow], State::Failed(CUT))
    );
}

#[test]
fn a_settlement_that_may_have_moved_the_money_is_never_withheld() {
    for answered in [
        vec![Event::SettleUnanswered],
        vec![Event::SettleFailed],
        vec![Event::SettleSpent, reconciled(Evidence::Nothing)],
    ] {
        let mut run =
            settling(&[&answered[..], &[broke(true), Event::Presented, reconciled(Evidence::Unspent)]].concat());
        assert_eq!(run.state(), &answering(true, Answer::Broken(CUT)));
        assert!(!run.should_withhold());
        assert_eq!(step(&mut run, Event::SettleWithheld), (vec![], answering(true, Answer::Broken(CUT))));
    }
}

#[test]
fn a_rejected_settlement_stops_claude_and_shows_nothing() {
    let mut run = settling(&[]);
    let refusal = Refusal::SettlementRejected { reason: funds() };
    assert_eq!(
        step(&mut run, rejected()),
        (vec![CancelModelCall, Save, WriteLedgerRow], State::Refused(refusal.clone()))
    );
    assert_eq!(run.view(), View::Refuse(refusal));
    assert!(run.receipt().is_none());
    assert_eq!(step(&mut run, Event::Ended).0, [], "what Claude still says goes nowhere");
}

/// What was not known of the settlement before says nothing of the next.
#[test]
fn a_refused_payment_that_comes_again_starts_from_nothing() {
    let refused = settling(&[
        Event::SettleUnanswered,
        Event::Presented,
        reconciled(Evidence::Never(None)),
        Event::LedgerRowWritten,
    ]);
    assert!(refused.is_replaceable());
    let mut run = next(&refused);
    assert_eq!(run, after(Policy::OnStart, &[Event::Presented]));
    to_settling()[1..].iter().for_each(|event| drop(step(&mut run, event.clone())));
    assert_eq!(step(&mut run, rejected()).1, State::Refused(Refusal::SettlementRejected { reason: funds() }));
}

// The outcome of a settlement that was not answered.

#[test]
fn after_an_unanswered_settlement_a_no_is_not_believed_and_evidence_is_looked_for() {
    let mut run = settling(&[]);
    assert_eq!(step(&mut run, Event::SettleUnanswered), (vec![Save, WriteLedgerRow], unknown(false, Answer::Writing)));
    assert_eq!(run.view(), View::Refuse(Refusal::SettlementUnknown));
    assert!(run.is_busy() && !run.is_replaceable(), "Claude goes on");
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, WriteLedgerRow], unknown(false, Answer::Whole)));
    assert_eq!(run.ending(), Some(Ending::Error(Refusal::SettlementUnknown)));
    assert_eq!(step(&mut run, Event::Presented), (vec![Reconcile], unknown(true, Answer::Whole)));
    assert_eq!((run.view(), run.ending()), (View::Wait, None), "the caller waits for what is found");
    assert_eq!(step(&mut run, reconciled(Evidence::Unspent)), (vec![Save, Settle], answering(true, Answer::Whole)));
    assert_eq!(step(&mut run, rejected()), (vec![Save], unknown(false, Answer::Whole)), "it is in the ledger already");
    assert_eq!(step(&mut run, Event::Presented).0, [Reconcile]);
    assert_eq!(step(&mut run, reconciled(Evidence::Paid(receipt()))), (vec![Save, WriteLedgerRow], State::Delivered));
}

#[test]
fn an_answer_that_goes_on_while_the_money_moves_or_is_looked_for_ends_once() {
    for (event, late, answer) in
        [(Event::Ended, broke(true), Answer::Whole), (broke(true), Event::Ended, Answer::Broken(CUT))]
    {
        for (before, effects, state) in [
            (vec![], vec![], answering(true, answer.clone())),
            (vec![Event::SettleUnanswered], vec![Save, WriteLedgerRow], unknown(false, answer.clone())),
            (vec![Event::SettleUnanswered, Event::Presented], vec![Save, WriteLedgerRow], unknown(true, answer)),
        ] {
            let mut run = settling(&before);
            assert_eq!(step(&mut run, event.clone()), (effects, state.clone()));
            assert_eq!(step(&mut run, late.clone()), (vec![], state));
        }
    }
}

/// The node lags: asked again at once, both would say the same again, and again.
#[test]
fn a_nonce_that_only_the_facilitator_calls_spent_is_settled_again_after_the_next_look() {
    for (answer, said) in answers() {
        let (mut run, mut now, mut first) = (settling(&said), NOW, vec![Save, WriteLedgerRow]);
        for wait in [2_000, 8_000] {
            assert_eq!(
                step_at(&mut run, Event::SettleSpent, now),
                (vec![Save, Reconcile], unknown(true, answer.clone()))
            );
            assert_eq!(step_at(&mut run, Event::Presented, now).0, []);
            let waits = (std::mem::replace(&mut first, vec![Save]), unknown(false, answer.clone()));
            assert_eq!(step_at(&mut run, reconciled(Evidence::Unspent), now), waits, "though a caller waits");
            step_at(&mut run, Event::LedgerRowWritten, now);
            assert_eq!(run.deadline(now), Some(now + wait));
            now += wait;
            assert_eq!(step_at(&mut run, Event::AlarmFired, now).0, [Reconcile]);
            step_at(&mut run, Event::Presented, now);
            let again = (vec![Save, Settle], answering(true, answer.clone()));
            assert_eq!(step_at(&mut run, reconciled(Evidence::Unspent), now), again);
        }
    }
}

#[test]
fn a_settlement_that_failed_leaves_the_money_open_and_is_no_silence() {
    let mut run = settling(&[Event::Ended]);
    assert_eq!(step(&mut run, Event::SettleFailed), (vec![Save, WriteLedgerRow], unknown(false, Answer::Whole)));
    for (answered, spent) in [
        (rejected(), unknown(false, Answer::Whole)),
        (Event::SettleFailed, unknown(false, Answer::Whole)),
        (Event::SettleUnanswered, State::Delivered),
    ] {
        step(&mut run, Event::Presented);
        assert_eq!(step(&mut run, reconciled(Evidence::Unspent)).1, answering(true, Answer::Whole));
        assert_eq!(step(&mut run, answered.clone()), (vec![Save], unknown(false, Answer::Whole)), "{answered:?}");
        step(&mut run, Event::Presented);
        assert_eq!(step(&mut run, reconciled(Evidence::Spent(receipt()))).1, spent, "{answered:?}");
    }
}

#[test]
fn a_settlement_that_nobody_took_is_refused_unless_an_earlier_one_may_have_moved_the_money() {
    let again = [Event::Presented, reconciled(Evidence::Unspent)];
    for (answer, said) in answers() {
        for (before, open) in [
            (vec![], false),
            (vec![Event::SettleSpent, reconciled(Evidence::Nothing)], true),
            (vec![Event::SettleFailed], true),
            (vec![Event::SettleUnanswered], true),
        ] {
            let mut run = settling(&[&said[..], &before].concat());
            if !before.is_empty() {
                again.iter().for_each(|event| drop(step(&mut run, event.clone())));
            }
            assert_eq!(run.state(), &answering(true, answer.clone()));
            let expected = match open {
                true => (vec![Save], unknown(false, answer.clone())),
                false => (vec![CancelModelCall, Save, WriteLedgerRow], State::Refused(Refusal::FacilitatorUnavailable)),
            };
            assert_eq!(step(&mut run, Event::SettleNotSent), expected, "{before:?}");
            assert_eq!((run.is_replaceable(), run.receipt()), (!open, None));
        }
    }
    let mut run = settling(&[Event::Ended, Event::Restarted, reconciled(Evidence::Unspent)]);
    assert_eq!(step(&mut run, Event::SettleNotSent).1, unknown(false, Answer::Whole));
}

/// The "no" that follows may come of just that: the nonce is spent.
#[test]
fn a_no_after_a_nonce_was_called_spent_is_not_believed() {
    for (answer, said) in answers() {
        let called_spent =
            [Event::SettleSpent, reconciled(Evidence::Nothing), Event::Presented, reconciled(Evidence::Unspent)];
        let mut run = settling(&[&said[..], &called_spent].concat());
        assert_eq!(run.state(), &answering(true, answer.clone()));
        assert_eq!(step(&mut run, rejected()), (vec![Save], unknown(false, answer)));
        assert_eq!(step(&mut run, Event::Presented).0, [Reconcile]);
        assert!(
            matches!(step(&mut run, reconciled(Evidence::Never(funds()))).1, State::Refused(_)),
            "of the chain it is"
        );
    }
}

/// How far Claude's answer can be, and the events that lead there.
fn answers() -> [(Answer, Vec<Event>); 3] {
    [(Answer::Writing, vec![]), (Answer::Whole, vec![Event::Ended]), (Answer::Broken(CUT), vec![broke(false)])]
}

/// Every run that looks for evidence: with its answer, whether a call of settle had no answer at all, and whether a
/// caller waits.
fn reconciling() -> Vec<(Run, Answer, bool, bool)> {
    let mut all = Vec::new();
    for (answer, said) in answers() {
        for (timed_out, lost) in [
            (true, vec![Event::SettleUnanswered]),
            (false, vec![Event::SettleFailed]),
            (false, vec![Event::SettleSpent, reconciled(Evidence::Nothing)]),
        ] {
            for awaited in [true, false] {
                let mut run = settling(&[&said[..], &lost].concat());
                let call = if awaited { Event::Presented } else { Event::AlarmFired };
                let due = run.deadline(NOW).unwrap();
                step_at(&mut run, Event::LedgerRowWritten, NOW);
                run.handle(call, at(due));
                assert_eq!(run.state(), &unknown(true, answer.clone()));
                all.push((run, answer.clone(), timed_out, awaited));
            }
        }
    }
    assert_eq!(all.len(), 18);
    all
}

/// Where the run goes from here when the money has moved.
fn paid(answer: &Answer) -> (Vec<Effect>, State) {
    match answer {
        // The receipt is stored with the next text.
        Answer::Writing => (vec![], State::Streaming),
        Answer::Whole => (vec![Save, WriteLedgerRow], State::Delivered),
        Answer::Broken(_) => (vec![Clear, Save, CallModel], State::Streaming),
    }
}

#[test]
fn a_transfer_that_the_chain_shows_is_paid_whoever_asked_for_it() {
    for (mut run, answer, ..) in reconciling() {
        assert_eq!(step(&mut run, reconciled(Evidence::Paid(receipt()))), paid(&answer));
        assert_eq!(run.receipt(), Some(&receipt()));
    }
}

/// Who takes "spent" for "paid" gives a run away: the payer may have spent the nonce on themselves.
#[test]
fn a_nonce_that_is_spent_is_paid_only_where_a_settlement_of_ours_went_without_any_answer() {
    for (mut run, answer, timed_out, _) in reconciling() {
        let (effects, state) = step(&mut run, reconciled(Evidence::Spent(receipt())));
        match timed_out {
            true => assert_eq!((effects, state), paid(&answer)),
            false => {
                assert_eq!(state, unknown(false, answer));
                assert_eq!((effects[0], run.receipt()), (Save, None));
            }
        }
    }
}

#[test]
fn a_nonce_that_is_not_spent_is_settled_again_unless_there_is_nothing_to_sell_and_nobody_to_buy() {
    for (mut run, answer, _, awaited) in reconciling() {
        let broken = matches!(answer, Answer::Broken(_));
        let (effects, state) = step(&mut run, reconciled(Evidence::Unspent));
        match broken && !awaited {
            true => assert_eq!((effects[0], state), (Save, unknown(false, answer))),
            false => assert_eq!((effects, state), (vec![Save, Settle], answering(true, answer))),
        }
        assert_eq!(run.receipt(), None);
    }
}

#[test]
fn a_broken_answer_is_settled_for_who_asked_for_it_in_doubt_or_was_there_when_the_object_died_and_for_nobody_else() {
    let mut nobody = settling(&[broke(true), Event::SettleUnanswered]);
    let due = nobody.deadline(NOW).unwrap();
    assert_eq!(step_at(&mut nobody, Event::AlarmFired, due).0[0], Reconcile);
    assert_eq!(step_at(&mut nobody, reconciled(Evidence::Unspent), due).1, unknown(false, Answer::Broken(CUT)));

    let wanted = (vec![Save, Settle], answering(true, Answer::Broken(CUT)));
    let mut asked = settling(&[broke(true), Event::SettleUnanswered, Event::Presented, reconciled(Evidence::Nothing)]);
    let due = asked.deadline(NOW).unwrap();
    assert_eq!(step_at(&mut asked, Event::AlarmFired, due).0[0], Reconcile);
    assert_eq!(step_at(&mut asked, reconciled(Evidence::Unspent), due), wanted);

    let mut died_while_writing = settling(&[Event::Restarted]);
    assert_eq!(step(&mut died_while_writing, reconciled(Evidence::Unspent)), wanted);
    let mut died_after = settling(&[broke(true), Event::SettleUnanswered, Event::Restarted]);
    let due = died_after.deadline(NOW).unwrap();
    step_at(&mut died_after, Event::AlarmFired, due);
    assert_eq!(step_at(&mut died_after, reconciled(Evidence::Unspent), due).1, unknown(false, Answer::Broken(CUT)));
}

#[test]
fn a_payment_that_can_be_settled_no_more_is_refused_and_claude_is_stopped() {
    let expired = Some("invalid_exact_evm_payload_authorization_valid_before".to_owned());
    for (mut run, ..) in reconciling() {
        let refused = State::Refused(Refusal::SettlementRejected { reason: expired.clone() });
        assert_eq!(
            step(&mut run, reconciled(Evidence::Never(expired.clone()))),
            (vec![CancelModelCall, Save, WriteLedgerRow], refused)
        );
        assert_eq!(run.receipt(), None);
    }
}

#[test]
fn where_nothing_is_found_it_is_looked_for_later() {
    for (mut run, answer, ..) in reconciling() {
        let (effects, state) = step(&mut run, reconciled(Evidence::Nothing));
        assert_eq!((effects[0], state), (Save, unknown(false, answer)));
        assert_eq!(run.view(), View::Refuse(Refusal::SettlementUnknown));
    }
}

/// Otherwise one reverted settlement of an authorization that is valid for long is settled for as long as that.
#[test]
fn a_payment_is_settled_five_times_at_the_most_and_then_watched_until_its_end() {
    for awaited in [true, false] {
        let mut run = settling(&[Event::Ended]);
        let (mut now, mut settles) = (NOW, 1);
        for _ in 0..20 {
            step_at(&mut run, Event::SettleFailed, now);
            step_at(&mut run, Event::LedgerRowWritten, now);
            now = run.deadline(now).unwrap();
            step_at(&mut run, if awaited { Event::Presented } else { Event::AlarmFired }, now);
            settles += usize::from(step_at(&mut run, reconciled(Evidence::Unspent), now).0.contains(&Settle));
        }
        assert_eq!((settles, MAX_SETTLES), (5, 5));
        assert_eq!(run.state(), &unknown(false, Answer::Whole));
        assert!(!run.is_replaceable(), "the money may still have moved");
        now = run.deadline(now).unwrap();
        assert_eq!(step_at(&mut run, Event::AlarmFired, now).0[0], Reconcile);
        let refused = State::Refused(Refusal::SettlementRejected { reason: None });
        assert_eq!(step_at(&mut run.clone(), reconciled(Evidence::Never(None)), now).1, refused);
        assert_eq!(step_at(&mut run, reconciled(Evidence::Paid(receipt())), now).1, State::Delivered);
    }
}

#[test]
fn the_next_run_of_a_payment_has_five_settlements_of_its_own() {
    let ended = settling(&[Event::Ended, Event::SettleFailed, Event::Presented, reconciled(Evidence::Never(None))]);
    let mut run = next(&ended);
    to_settling()[1..].iter().chain([&Event::Ended]).for_each(|event| drop(step(&mut run, event.clone())));
    for _ in 1..MAX_SETTLES {
        step(&mut run, Event::SettleFailed);
        step(&mut run, Event::Presented);
        assert_eq!(step(&mut run, reconciled(Evidence::Unspent)).0, [Save, Settle]);
    }
}

/// An unknown settlement with a whole answer, recorded.
fn unknown_since_now() -> Run {
    let run = settling(&[Event::Ended, Event::SettleUnanswered, Event::LedgerRowWritten]);
    assert_eq!(run.state(), &unknown(false, Answer::Whole));
    run
}

/// Looks again and again, each time with nothing found, and gives back the waits in between.
fn waits_between_looks(run: &mut Run, mut now: Millis, looks: usize, jitter: u16) -> Vec<Millis> {
    let mut waits = Vec::new();
    for _ in 0..looks {
        let due = run.deadline(now).unwrap();
        waits.push(due - now);
        assert_eq!(run.handle(Event::AlarmFired, Moment { now: due - 1, jitter }), [], "not before it is due");
        assert_eq!(run.handle(Event::AlarmFired, Moment { now: due, jitter }), [Reconcile]);
        assert_eq!(
            run.handle(reconciled(Evidence::Nothing), Moment { now: due, jitter }),
            [Save],
            "no row is owed again"
        );
        now = due;
    }
    waits
}

#[test]
fn evidence_is_looked_for_ever_more_rarely() {
    let waits = waits_between_looks(&mut unknown_since_now(), NOW, 6, LONG);
    assert_eq!(waits, [2_000, 8_000, 32_000, 60_000, 60_000, 60_000]);
    let waits = waits_between_looks(&mut unknown_since_now(), NOW, 5, SHORT);
    assert_eq!(waits, [2_000, 4_000, 16_000, 30_000, 30_000], "the jitter take off half");
}

#[test]
fn once_the_payments_time_is_up_the_chain_is_asked_once_an_hour() {
    let last = VALID_UNTIL + EVIDENCE_LAG;
    assert_eq!(RECONCILE_WAIT_LATE, 3_600_000);
    for (now, wait) in [(last, 8_000), (last + 1, RECONCILE_WAIT_LATE)] {
        let mut run = unknown_since_now();
        assert_eq!(run.handle(Event::AlarmFired, at(now)), [Reconcile]);
        run.handle(reconciled(Evidence::Nothing), at(now));
        assert_eq!(run.deadline(now), Some(now + wait));
    }
}

#[test]
fn an_unknown_settlement_is_given_up_a_week_after_it_became_so() {
    let mut run = unknown_since_now();
    let mut now = NOW;
    let mut looks = 0;
    for _ in 0..500 {
        if run.is_expired(now) {
            break;
        }
        let due = run.deadline(now).unwrap();
        assert!(due > now && due <= NOW + RETENTION_IN_DOUBT, "{due}");
        now = due;
        if run.handle(Event::AlarmFired, at(now)) == [Reconcile] {
            looks += 1;
            assert!(!run.is_expired(now), "not while it looks");
            run.handle(reconciled(Evidence::Nothing), at(now));
        }
    }
    assert_eq!((now, RETENTION_IN_DOUBT), (NOW + RETENTION_IN_DOUBT, 7 * RETENTION));
    assert_eq!(looks, 10 + 167, "in the payment's own time, and once an hour after it");
}

#[test]
fn a_look_that_is_under_way_is_waited_for_before_anything_is_forgotten() {
    let mut run = unknown_since_now();
    assert_eq!(run.handle(Event::AlarmFired, at(NOW + RETENTION_IN_DOUBT)), [Reconcile]);
    assert!(!run.is_expired(NOW + RETENTION_IN_DOUBT));
    run.handle(reconciled(Evidence::Nothing), at(NOW + RETENTION_IN_DOUBT));
    assert!(run.is_expired(NOW + RETENTION_IN_DOUBT));
}

#[test]
fn a_run_under_way_is_joined_also_while_evidence_is_waited_for() {
    let mut run = settling(&[Event::SettleUnanswered]);
    assert_eq!(run.deadline(NOW), Some(NOW + 2_000), "what is due goes first");
    run.handle(Event::AlarmFired, at(NOW + 2_000));
    assert_eq!(run.deadline(NOW + 2_000), Some(NOW + 2_000 + HEARTBEAT), "it looks");
}

// Claude, once the money has moved.

#[test]
fn an_answer_that_broke_off_before_its_settlement_is_written_anew_once_settled() {
    let mut run = settling(&[]);
    assert_eq!(step(&mut run, broke(false)).0, []);
    assert_eq!(step(&mut run, settled()), (vec![Clear, Save, CallModel], State::Streaming));
    assert_eq!(step(&mut run, Event::Began).0, []);
    assert_eq!(step(&mut run, Event::Ended).1, State::Delivered);
}

#[test]
fn a_paid_answer_that_breaks_off_unseen_is_asked_again_as_often_as_allowed_and_then_refundable() {
    let mut run = streaming();
    assert_eq!(step(&mut run, broke(true)), (vec![Clear, Save, CallModel], State::Streaming), "the second call");
    assert_eq!(step(&mut run, broke(true)), (vec![Clear, Save, BackOff], State::Streaming), "the third waits");
    assert_eq!(run.back_off(), 2_000);
    assert_eq!(step(&mut run, Event::BackOffElapsed).0, [Save, CallModel]);
    assert_eq!(step(&mut run, Event::BackOffElapsed).0, [], "once");
    assert_eq!(step(&mut run, broke(true)), (vec![Save, WriteLedgerRow, Report], State::Refundable(CUT)));
    let refundable = (View::Refuse(Refusal::Refundable), Some(Ending::Error(Refusal::Refundable)), Some(CUT));
    assert_eq!((run.view(), run.ending(), run.model_error()), refundable);
    assert_eq!(step(&mut run, Event::Presented).0, [], "final");
    step(&mut run, Event::Reported);
    assert_eq!((run.view(), run.ending(), run.model_error()), refundable);
    assert!(run.receipt().is_some());
}

#[test]
fn a_paid_answer_that_breaks_off_in_sight_is_interrupted_and_the_same_payment_gets_it_again() {
    let mut run = streaming();
    assert_eq!(step(&mut run, broke(false)), (vec![Save, WriteLedgerRow], State::Interrupted(CUT)));
    assert_eq!((run.view(), run.ending()), (View::Show, Some(Ending::Error(Refusal::Claude(CUT)))));
    assert_eq!(step(&mut run, Event::Presented), (vec![Clear, Save, CallModel], State::Streaming));
    assert_eq!(step(&mut run, broke(false)).1, State::Interrupted(CUT));
    assert_eq!(step(&mut run, Event::Presented).0, [Clear, Save, CallModel]);
    assert_eq!(step(&mut run, broke(false)).1, State::Refundable(CUT), "after the third call");
}

#[test]
fn an_interrupted_run_goes_on_by_itself_when_its_time_has_come() {
    let mut run = streaming();
    let mut now = NOW;
    for wait in [2_000, 8_000] {
        assert_eq!(step_at(&mut run, broke(false), now).1, State::Interrupted(CUT));
        assert_eq!(step_at(&mut run, Event::LedgerRowWritten, now).0, [Save]);
        assert_eq!(run.deadline(now), Some(now + wait));
        assert_eq!(step_at(&mut run, Event::AlarmFired, now + wait - 1).0, []);
        assert_eq!(step_at(&mut run, Event::AlarmFired, now + wait), (vec![Clear, Save, CallModel], State::Streaming));
        assert_eq!(step_at(&mut run, Event::AlarmFired, now + wait).0, [], "once");
        now += wait;
    }
    assert_eq!(step_at(&mut run, broke(false), now).1, State::Refundable(CUT));
}

#[test]
fn an_interrupted_run_that_is_presented_goes_on_at_once_and_not_a_second_time_when_due() {
    let mut run = settling(&[settled(), broke(false), Event::Presented]);
    assert_eq!(run.deadline(NOW), Some(NOW + HEARTBEAT));
    assert_eq!(step_at(&mut run, Event::AlarmFired, NOW + 2_000).0, []);
}

/// The wait after a paid answer has broken off with this fault: in sight, and unseen the second time, where it is
/// under way or interrupted.
fn paid_waits(fault: ModelError, jitter: u16) -> (Millis, Millis) {
    let moment = Moment { now: NOW, jitter };
    let (mut seen, mut unseen) = (streaming(), settling(&[settled(), broke(true)]));
    seen.handle(Event::Broke { error: fault, no_text: false }, moment);
    unseen.handle(Event::Broke { error: fault, no_text: true }, moment);
    let wait = |run: &mut Run| match run.state() {
        State::Streaming => run.back_off(),
        state => {
            assert_eq!(state, &State::Interrupted(fault));
            run.handle(Event::LedgerRowWritten, moment);
            run.deadline(NOW).unwrap() - NOW
        }
    };
    (wait(&mut seen), wait(&mut unseen))
}

fn limited(retry_after: Option<u32>) -> ModelError {
    ModelError::RateLimited { retry_after }
}

#[test]
fn a_paid_run_waits_as_long_as_claude_asks_for_and_an_hour_at_the_most() {
    assert_eq!(paid_waits(CUT, LONG), (2_000, 2_000));
    assert_eq!(paid_waits(CUT, SHORT), (1_000, 1_000));
    for (seconds, wait) in [(7, 7_000), (30, BACK_OFF_MAX), (31, 31_000), (3_600, INTERRUPTED_MAX)] {
        assert_eq!(paid_waits(limited(Some(seconds)), SHORT), (wait, wait));
    }
    for seconds in [3_601, u32::MAX] {
        assert_eq!(paid_waits(limited(Some(seconds)), LONG), (INTERRUPTED_MAX, INTERRUPTED_MAX));
    }
    for fault in [limited(None), ModelError::TimedOut, ModelError::KeyInvalid] {
        assert_eq!(paid_waits(fault, LONG), (2_000, 2_000), "money has moved: {fault:?} is tried again all the same");
    }
}

/// A caller who waits would learn nothing for as long as that.
#[test]
fn a_paid_run_that_claude_keeps_waiting_for_more_than_half_a_minute_is_interrupted() {
    let turned_away = |seconds| Event::Broke { error: limited(Some(seconds)), no_text: true };
    let unseen = settling(&[settled(), broke(true)]);
    assert_eq!(step(&mut unseen.clone(), turned_away(30)), (vec![Clear, Save, BackOff], State::Streaming));
    let mut run = unseen;
    let interrupted = State::Interrupted(limited(Some(31)));
    assert_eq!(step(&mut run, turned_away(31)), (vec![Save, WriteLedgerRow], interrupted.clone()));
    assert_eq!(run.ending(), Some(Ending::Error(Refusal::Claude(limited(Some(31))))));
    assert_eq!(step(&mut run, Event::BackOffElapsed).0, [], "nothing is waited for");
    step(&mut run, Event::LedgerRowWritten);
    assert_eq!(step(&mut run.clone(), Event::Presented), (vec![Clear, Save, CallModel], State::Streaming));
    assert_eq!(step_at(&mut run, Event::AlarmFired, NOW + 30_999), (vec![], interrupted));
    assert_eq!(step_at(&mut run, Event::AlarmFired, NOW + 31_000), (vec![Clear, Save, CallModel], State::Streaming));
    let given_up = (vec![Save, WriteLedgerRow, Report], State::Refundable(limited(Some(31))));
    assert_eq!(step_at(&mut run, turned_away(31), NOW + 31_000), given_up, "after the third call");
}

#[test]
fn a_paid_answer_that_claude_declines_is_not_asked_again() {
    for silent in [true, false] {
        let mut run = streaming();
        let declined = Event::Broke { error: ModelError::Declined, no_text: silent };
        assert_eq!(
            step(&mut run, declined),
            (vec![Save, WriteLedgerRow, Report], State::Refundable(ModelError::Declined))
        );
    }
    for mut run in [settling(&[declined()]), early(&[declined()])] {
        let refundable = (vec![Save, WriteLedgerRow, Report], State::Refundable(ModelError::Declined));
        assert_eq!(step(&mut run, settled()), refundable, "nor one declined before");
    }
}

// The report of a refund.

/// Wakes a run whose report no facilitator accepts, and returns the waits in between.
fn waits_between_reports(run: &mut Run, jitter: u16) -> Vec<Millis> {
    let (mut now, mut waits) = (NOW, Vec::new());
    for _ in 0..6 {
        let due = run.deadline(now).unwrap();
        waits.push(due - now);
        assert_eq!(run.handle(Event::AlarmFired, Moment { now: due - 1, jitter }), []);
        assert_eq!(
            run.handle(Event::AlarmFired, Moment { now: due, jitter }),
            [Save, Report],
            "it outlives the object"
        );
        now = due;
    }
    waits
}

#[test]
fn a_refund_is_reported_until_somebody_takes_the_report() {
    let mut run = refundable();
    let (waits, most) = (waits_between_reports(&mut run, LONG), REPORT_AGAIN_MAX);
    assert_eq!(waits, [30_000, 120_000, 480_000, 1_920_000, most, most]);
    let now = NOW + waits.iter().sum::<Millis>();
    assert_eq!(
        step_at(&mut run, Event::Reported, now),
        (vec![Save, WriteLedgerRow], State::Reported(ModelError::Declined))
    );
    assert_eq!((run.view(), run.receipt()), (View::Refuse(Refusal::Refundable), Some(&receipt())));
    assert_eq!(run.ending(), Some(Ending::Error(Refusal::Claude(ModelError::Declined))));
    assert_eq!(step_at(&mut run, Event::LedgerRowWritten, now).0, [Save]);
    assert_eq!(step_at(&mut run, Event::AlarmFired, now + RETENTION).0, [], "it is not reported again");
    assert!(run.is_expired(now + RETENTION) && !run.is_expired(now + RETENTION - 1), "a day after that");
}

#[test]
fn a_refund_that_nobody_takes_the_report_of_is_forgotten_after_a_week() {
    let mut run = refundable();
    let mut now = NOW;
    for _ in 0..100 {
        if !run.is_expired(now) {
            now = run.deadline(now).unwrap();
            run.handle(Event::AlarmFired, at(now));
        }
    }
    assert_eq!(now, NOW + RETENTION_IN_DOUBT);
}

#[test]
fn reports_start_on_their_own_schedule_however_long_the_settlement_took_to_be_known() {
    let mut run = settling(&[declined(), Event::SettleUnanswered, Event::LedgerRowWritten]);
    waits_between_looks(&mut run, NOW, 5, LONG);
    let now = VALID_UNTIL;
    run.handle(Event::AlarmFired, at(now));
    run.handle(reconciled(Evidence::Paid(receipt())), at(now));
    assert_eq!(run.state(), &State::Refundable(ModelError::Declined));
    run.handle(Event::LedgerRowWritten, at(now));
    assert_eq!(run.deadline(now), Some(now + 30_000));
}

/// The row says what the alarm has found: both are due at once.
#[test]
fn the_alarm_reports_and_records_in_one_go() {
    let mut run = settling(&[settled(), declined()]);
    let (effects, _) = step_at(&mut run, Event::AlarmFired, NOW + 30_000);
    assert_eq!(effects, [Save, Report, WriteLedgerRow]);
}

// Text that is shown before it is paid for.

fn verified_release() -> Terms {
    Terms { release: Release::Verified, ..terms(Policy::OnStart) }
}

fn early(more: &[Event]) -> Run {
    under(verified_release(), &[&to_settling()[..], more].concat())
}

#[test]
fn text_may_be_shown_as_soon_as_it_is_there_and_its_payment_verified() {
    let mut run = Run::new(verified_release());
    for event in [Event::Presented, Event::Verified, Event::Began] {
        step(&mut run, event);
        assert_eq!((run.view(), run.is_outstanding()), (View::Wait, false), "{:?}", run.state());
    }
    step(&mut run, Event::FirstText);
    assert_eq!((run.view(), run.ending(), run.is_outstanding()), (View::Show, None, true));
    assert_eq!(step(&mut run, Event::Ended).0, [Save], "what has been seen outlives a restart");
    assert_eq!((run.view(), run.ending(), run.is_outstanding()), (View::Show, None, true), "no end before it is paid");
    step(&mut run, settled());
    assert_eq!((run.view(), run.ending(), run.is_outstanding()), (View::Show, Some(Ending::Done), false));
}

#[test]
fn text_shown_early_stays_in_sight_while_nobody_knows_whether_it_is_paid() {
    let mut run = early(&[Event::SettleUnanswered]);
    assert_eq!((run.view(), run.ending(), run.is_outstanding()), (View::Show, None, true), "Claude goes on");
    for (event, ending) in [
        (Event::Ended, Some(Ending::Error(Refusal::SettlementUnknown))),
        (Event::Presented, None),
        (reconciled(Evidence::Nothing), Some(Ending::Error(Refusal::SettlementUnknown))),
    ] {
        step(&mut run, event);
        assert_eq!((run.view(), run.ending(), run.is_outstanding()), (View::Show, ending, true));
    }
    assert_eq!(step(&mut run, Event::Presented).0, [Reconcile]);
    assert_eq!(step(&mut run, reconciled(Evidence::Spent(receipt()))).1, State::Delivered);
    assert!(!run.is_outstanding());
}

#[test]
fn text_shown_early_and_never_paid_is_outstanding_for_as_long_as_it_is_remembered() {
    let mut run = early(&[]);
    assert_eq!(step(&mut run, rejected()).0, [CancelModelCall, Save, WriteLedgerRow]);
    let refusal = Refusal::SettlementRejected { reason: funds() };
    assert_eq!((run.view(), run.ending()), (View::Refuse(refusal.clone()), Some(Ending::Error(refusal))));
    assert!(run.is_outstanding());
}

/// Runs whose text was shown early and never paid for, by each way there, recorded.
fn in_debt() -> Vec<Run> {
    let ends = [
        vec![rejected()],
        vec![Event::SettleNotSent],
        vec![Event::Ended, Event::SettleNotSent],
        vec![Event::SettleUnanswered, Event::Presented, reconciled(Evidence::Never(None))],
        vec![Event::Restarted, reconciled(Evidence::Never(None))],
    ];
    ends.iter().map(|end| early(&[&end[..], &[Event::LedgerRowWritten]].concat())).collect()
}

#[test]
fn text_shown_early_is_outstanding_too_where_nobody_took_its_settlement() {
    let run = early(&[Event::SettleNotSent]);
    assert_eq!(run.state(), &State::Refused(Refusal::FacilitatorUnavailable));
    assert!(run.is_outstanding());
}

#[test]
fn a_debt_is_remembered_for_a_day() {
    for run in in_debt() {
        assert!(run.is_replaceable() && run.is_outstanding(), "{:?}", run.state());
        assert!(!run.is_expired(NOW + RETENTION - 1) && run.is_expired(NOW + RETENTION), "{:?}", run.state());
    }
}

/// Otherwise a payer who presents the payment again gets the text for nothing.
#[test]
fn a_debt_stays_when_the_same_payment_sets_out_anew_until_it_is_paid() {
    let later = [verified_release(), terms(Policy::OnStart), terms(Policy::OnResult)];
    let starts = |run: Run| later.clone().map(|terms| run.next(terms));
    for start in in_debt().into_iter().flat_map(starts) {
        let after = |events: &[Event]| {
            let mut run = start.clone();
            for event in events {
                assert!(run.is_outstanding(), "{:?}", run.state());
                step(&mut run, event.clone());
            }
            run
        };
        let begun = [Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::Ended];
        for owing in [
            vec![Event::Presented, Event::VerifyRefused(Refusal::Internal)],
            vec![Event::Presented, Event::Verified, Event::Abandoned],
            vec![Event::Presented, Event::Verified, declined()],
            [&begun[..], &[rejected()]].concat(),
            [&begun[..], &[Event::SettleUnanswered]].concat(),
        ] {
            let run = after(&owing);
            assert!(run.is_outstanding() && run.receipt().is_none(), "{:?}", run.state());
            assert!(run.next(verified_release()).is_outstanding(), "and the run after that owes it too");
        }
        let paid = after(&[&begun[..], &[settled()]].concat());
        assert_eq!((paid.state(), paid.is_outstanding()), (&State::Delivered, false));
    }
}

/// What an earlier start owes shows nothing of a later one before it is paid.
#[test]
fn a_debt_does_not_show_the_text_of_a_run_that_is_released_when_settled() {
    for debt in in_debt() {
        let mut run = debt.next(terms(Policy::OnStart));
        for event in to_settling() {
            step(&mut run, event);
            assert_eq!(run.view(), View::Wait, "{:?}", run.state());
        }
        step(&mut run, Event::SettleUnanswered);
        assert_eq!((run.view(), run.is_outstanding()), (View::Refuse(Refusal::SettlementUnknown), true));
    }
}

#[test]
fn what_sets_out_anew_without_a_debt_is_as_new() {
    for run in one_of_each().into_iter().filter(Run::is_replaceable) {
        assert_eq!(run.next(verified_release()), Run::new(verified_release()), "{:?}", run.state());
    }
    for debt in in_debt() {
        assert_ne!(debt.next(verified_release()), Run::new(verified_release()));
        assert_eq!(debt.next(verified_release()).state(), &State::New);
    }
}

#[test]
fn nothing_else_is_ever_outstanding() {
    let document = |release| under(Terms { release, ..terms(Policy::OnResult) }, &to_settling());
    let mut whole = document(Release::Verified);
    step(&mut whole, Event::Ended);
    assert_eq!((whole.view(), whole.is_outstanding()), (View::Wait, false), "a document is not shown in part");
    let unverified = Event::VerifyRefused(Refusal::PaymentInvalid { reason: None });
    assert!(!under(verified_release(), &[Event::Presented, unverified]).is_outstanding());
    for run in one_of_each() {
        assert!(!run.is_outstanding(), "{:?}", run.state());
    }
}

/// A new edition would take back what has been read.
#[test]
fn text_shown_early_that_broke_off_before_it_was_paid_is_interrupted_and_not_rewritten() {
    for (silent, paid) in [
        (false, vec![settled()]),
        (true, vec![Event::SettleUnanswered, Event::Presented, reconciled(Evidence::Paid(receipt()))]),
    ] {
        let mut run = early(&[&[broke(silent)], &paid[..]].concat());
        assert_eq!(run.state(), &State::Interrupted(CUT));
        assert_eq!((run.view(), run.ending()), (View::Show, Some(Ending::Error(Refusal::Claude(CUT)))));
        assert_eq!(run.receipt(), Some(&receipt()));
        assert_eq!(step(&mut run, Event::Presented), (vec![Clear, Save, CallModel], State::Streaming));
    }
}

// Every state.

/// One run in each state, reached as it is reached.
fn one_of_each() -> Vec<Run> {
    let on = |policy, more: &[Event]| after(policy, &[&[Event::Presented, Event::Verified][..], more].concat());
    vec![
        Run::new(terms(Policy::OnStart)),
        after(Policy::OnStart, &[Event::Presented]),
        on(Policy::OnStart, &[]),
        on(Policy::OnStart, &[broke(true)]),
        on(Policy::OnStart, &[Event::Began]),
        on(Policy::OnResult, &[Event::Began]),
        settling(&[]),
        settling(&[Event::Ended]),
        settling(&[broke(true)]),
        settling(&[settled()]),
        settling(&[settled(), Event::Ended]),
        settling(&[rejected()]),
        settling(&[Event::SettleNotSent]),
        after(Policy::OnStart, &unverified()),
        on(Policy::OnStart, &[declined()]),
        settling(&[Event::SettleUnanswered]),
        settling(&[Event::Ended, Event::SettleFailed]),
        settling(&[broke(true), Event::SettleUnanswered]),
        settling(&[Event::SettleSpent]),
        settling(&[Event::Ended, Event::SettleSpent]),
        settling(&[broke(true), Event::SettleSpent]),
        settling(&[settled(), broke(false)]),
        settling(&[settled(), declined()]),
        settling(&[settled(), declined(), Event::Reported]),
        under(free_terms(), &[Event::Presented]),
        under(free_terms(), &[Event::Presented, Event::Began]),
    ]
}

/// A payment that no facilitator has verified.
fn unverified() -> [Event; 2] {
    [Event::Presented, Event::VerifyRefused(Refusal::FacilitatorUnavailable)]
}

/// One event of each kind.
fn events() -> Vec<Event> {
    use Event as E;
    let others = [E::Presented, E::Verified, E::VerifyRefused(Refusal::Internal), E::ToldPending, E::Reported];
    let claude = [E::Began, E::FirstText, E::GraceElapsed, E::Ended, broke(true), E::BackOffElapsed, E::Abandoned];
    let answered = [settled(), rejected(), E::SettleFailed, E::SettleSpent];
    let lost = [E::SettleUnanswered, E::SettleNotSent, E::SettleWithheld];
    let (paid, spent) = (Evidence::Paid(receipt()), Evidence::Spent(receipt()));
    let found = [paid, spent, Evidence::Unspent, Evidence::Never(None), Evidence::Nothing].map(reconciled);
    [&others[..], &claude, &answered, &lost, &found].concat()
}

#[test]
fn presenting_again_does_something_only_where_something_is_to_be_done() {
    for run in one_of_each() {
        let mut again = run.clone();
        let effects = again.handle(Event::Presented, at(NOW));
        let expected: &[Effect] = match run.state() {
            State::New => &[Verify],
            State::SettlementUnknown { looking: false, .. } => &[Reconcile],
            State::Interrupted(_) => &[Clear, Save, CallModel],
            _ => &[],
        };
        assert_eq!(effects, expected, "{:?}", run.state());
        // A run that looks for evidence remembers that a caller waits.
        if expected.is_empty() && !matches!(run.state(), State::SettlementUnknown { .. }) {
            assert_eq!(again, run);
        }
    }
}

/// The states in which an event of this kind is news.
fn is_news(run: &Run, event: &Event) -> bool {
    use Event as E;
    let streams = run.terms().policy == Policy::OnStart;
    match (run.state(), event) {
        (State::New | State::Interrupted(_), E::Presented) => true,
        (State::SettlementUnknown { .. }, E::Presented) => true,
        (State::SettlementUnknown { answer, .. }, E::Ended | E::Broke { .. }) => *answer == Answer::Writing,
        (State::SettlementUnknown { looking, .. }, E::Reconciled(_)) => *looking,
        (State::Presented, E::Verified | E::VerifyRefused(_) | E::ToldPending) => true,
        (State::Verified, E::Began | E::Broke { .. } | E::Abandoned) => true,
        (State::Verified | State::Streaming, E::BackOffElapsed) => run.back_off() > 0,
        (State::Answering { settling: false, .. }, E::FirstText | E::GraceElapsed) => streams,
        (State::Answering { settling: false, .. }, E::Ended | E::Broke { .. } | E::Abandoned) => true,
        (State::Answering { settling: true, answer }, E::Ended | E::Broke { .. }) => *answer == Answer::Writing,
        (State::Answering { settling: true, .. }, E::Settled(_) | E::SettleRejected(_)) => true,
        (State::Answering { settling: true, .. }, E::SettleUnanswered | E::SettleSpent) => true,
        (State::Answering { settling: true, .. }, E::SettleNotSent | E::SettleFailed) => true,
        (State::Answering { settling: true, answer: Answer::Broken(_) }, E::SettleWithheld) => true,
        (State::Streaming, E::Ended | E::Broke { .. }) => true,
        (State::Streaming, E::Abandoned) => run.terms().policy == Policy::Free,
        (State::Refundable(_), E::Reported) => true,
        _ => false,
    }
}

#[test]
fn an_event_that_comes_late_twice_or_out_of_place_changes_nothing() {
    for run in one_of_each() {
        for event in events() {
            let mut after = run.clone();
            let effects = after.handle(event.clone(), at(NOW + 1));
            let news = is_news(&run, &event);
            assert_eq!(!effects.is_empty() || after != run, news, "{event:?} in {:?}", run.state());
        }
    }
}

#[test]
fn a_restart_finds_each_state_and_goes_on_from_there() {
    let lost = |answer: &Answer| match answer {
        Answer::Writing => Answer::Broken(CUT),
        answer => answer.clone(),
    };
    for run in one_of_each() {
        let mut restarted = run.clone();
        let (effects, state) = step(&mut restarted, Event::Restarted);
        let expected = match run.state() {
            // Nothing is stored of a payment that is being verified, so it is never found.
            State::Presented => (vec![], State::Presented),
            State::Verified | State::Answering { settling: false, .. } => {
                (vec![Save, WriteLedgerRow], State::Failed(CUT))
            }
            State::Answering { settling: true, answer } | State::SettlementUnknown { answer, .. } => {
                (vec![Save, Reconcile], unknown(true, lost(answer)))
            }
            // Nor is an owner's test stored before it has ended.
            State::Streaming if run.terms().policy == Policy::Free => continue,
            State::Streaming => (vec![Clear, Save, CallModel], State::Streaming),
            resting => (vec![], resting.clone()),
        };
        assert_eq!((effects, state), expected, "{:?}", run.state());
    }
}

/// The settlement that was under way may have moved the money, and its answer is lost.
#[test]
fn a_settlement_that_a_restart_has_cut_off_counts_as_unanswered() {
    let mut run = settling(&[Event::Ended, Event::Restarted]);
    assert_eq!(step(&mut run, reconciled(Evidence::Spent(receipt()))).1, State::Delivered);
    let mut run = settling(&[Event::Ended, Event::Restarted, reconciled(Evidence::Unspent)]);
    assert_eq!(step(&mut run, rejected()).1, unknown(false, Answer::Whole), "a no is not believed");
    for answered in [Event::SettleSpent, Event::SettleFailed] {
        let mut run = settling(&[Event::Ended, answered, Event::Restarted]);
        assert_eq!(
            step(&mut run, reconciled(Evidence::Spent(receipt()))).1,
            unknown(false, Answer::Whole),
            "it was answered"
        );
    }
}

#[test]
fn a_paid_run_that_is_cut_off_by_restarts_is_given_up_after_as_many_calls_as_were_made() {
    let mut run = streaming();
    assert_eq!(step(&mut run, Event::Restarted).0, [Clear, Save, CallModel]);
    for _ in 0..3 {
        assert_eq!(step(&mut run, Event::Restarted).0, [Clear, Save, BackOff], "a call that is waited for is not made");
        assert_eq!(run.back_off(), 2_000);
    }
    assert_eq!(step(&mut run, Event::BackOffElapsed).0, [Save, CallModel]);
    assert_eq!(step(&mut run, Event::Restarted), (vec![Save, WriteLedgerRow, Report], State::Refundable(CUT)));
}

#[test]
fn a_row_is_owed_until_it_is_recorded_and_the_alarm_asks_for_it() {
    let mut run = settling(&[settled(), Event::Ended]);
    assert_eq!(run.deadline(NOW), Some(NOW + RECORD_AGAIN));
    assert_eq!(step(&mut run, Event::AlarmFired).0, [WriteLedgerRow]);
    assert!(!run.is_expired(NOW + 2 * RETENTION_IN_DOUBT), "not before it is recorded");
    assert!(!run.is_closed());
    assert_eq!(step(&mut run, Event::LedgerRowWritten).0, [Save]);
    assert!(run.is_closed());
    assert_eq!(step(&mut run, Event::AlarmFired).0, []);
    assert_eq!((run.deadline(NOW), run.expires_at()), (Some(NOW + RETENTION), NOW + RETENTION));
    assert!(!run.is_expired(NOW + RETENTION - 1) && run.is_expired(NOW + RETENTION));
}

#[test]
fn a_row_that_is_owed_is_not_asked_for_while_the_run_goes_on_again() {
    let mut run = settling(&[settled(), broke(false), Event::Presented]);
    assert_eq!(step(&mut run, Event::AlarmFired).0, [], "the row would say that it is running");
    step(&mut run, Event::Ended);
    assert_eq!(step(&mut run, Event::AlarmFired).0, [WriteLedgerRow]);
}

#[test]
fn what_is_at_rest_is_forgotten_after_a_day_and_what_is_open_after_a_week() {
    let resting = one_of_each().into_iter().filter(|run| !run.is_busy() && *run.state() != State::New);
    let mut seen = 0;
    for mut run in resting.filter(Run::is_kept) {
        step(&mut run, Event::LedgerRowWritten);
        let keep = match run.state() {
            State::SettlementUnknown { .. } | State::Refundable(_) => RETENTION_IN_DOUBT,
            _ => RETENTION,
        };
        assert!(!run.is_expired(NOW + keep - 1) && run.is_expired(NOW + keep), "{:?}", run.state());
        assert!(run.deadline(NOW).unwrap() <= NOW + keep);
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn a_busy_run_is_woken_to_be_joined_and_a_blank_one_not_at_all() {
    assert_eq!(Run::new(terms(Policy::OnStart)).deadline(NOW), None);
    assert!(!Run::new(terms(Policy::OnStart)).is_expired(Millis::MAX));
    for mut run in one_of_each().into_iter().filter(Run::is_busy) {
        let due = if *run.state() == unknown(false, Answer::Writing) { 2_000 } else { HEARTBEAT };
        assert_eq!(run.deadline(NOW), Some(NOW + due), "{:?}", run.state());
        assert!(!run.is_expired(NOW + 2 * RETENTION_IN_DOUBT));
        assert_eq!(run.handle(Event::AlarmFired, at(NOW)), []);
    }
}

/// What callers, routes and the payer's object ask of a run: for each state, as it is.
#[test]
fn a_run_says_of_itself_what_its_state_means() {
    for run in one_of_each() {
        let (settling, credit, last, blank) = match run.state() {
            State::New => (false, false, false, true),
            State::Presented => (false, false, false, false),
            State::Verified | State::Answering { settling: false, .. } => (false, true, false, false),
            State::Answering { settling: true, .. } | State::SettlementUnknown { .. } => (true, false, false, false),
            State::Streaming => (false, run.terms().policy == Policy::Free, false, false),
            State::Delivered => (false, false, true, false),
            State::Refused(_) | State::Failed(_) => (false, false, true, true),
            State::Interrupted(_) => (false, false, false, false),
            State::Refundable(_) | State::Reported(_) => (false, false, true, false),
        };
        let said = (run.is_settling(), run.is_generating_unpaid(), run.is_final(), run.is_replaceable());
        assert_eq!(said, (settling, credit, last, blank), "{:?}", run.state());
        let shown = matches!(run.state(), State::Streaming | State::Delivered | State::Interrupted(_));
        assert_eq!(run.view() == View::Show, shown, "only what is paid (or free) is shown: {:?}", run.state());
        assert!(run.is_busy() || run.view() != View::Wait || *run.state() == State::New, "nobody waits for nothing");
        assert!(!run.is_final() || run.ending().is_some(), "{:?}", run.state());
    }
}

/// What the object asks of a run: for each state, as it is.
#[test]
fn a_run_counts_as_unsettled_from_its_presentation_until_its_money_is_known_to_have_moved_or_not() {
    for run in one_of_each() {
        let unsettled = match run.state() {
            State::Presented | State::Verified | State::Answering { .. } => run.terms().policy != Policy::Free,
            State::SettlementUnknown { .. } => true,
            State::New | State::Streaming | State::Delivered | State::Refused(_) | State::Failed(_) => false,
            State::Interrupted(_) | State::Refundable(_) | State::Reported(_) => false,
        };
        assert_eq!(run.is_unsettled(NOW), unsettled, "{:?}", run.state());
    }
}

/// It may never be known, where no node can be asked.
#[test]
fn a_settlement_in_doubt_keeps_no_place_once_the_payments_time_is_over() {
    let last = VALID_UNTIL + EVIDENCE_LAG;
    for (answer, said) in answers() {
        for looking in [vec![], vec![Event::Presented]] {
            let run = settling(&[&said[..], &[Event::SettleUnanswered], &looking].concat());
            assert!(run.is_unsettled(last) && !run.is_unsettled(last + 1), "{answer:?}");
        }
    }
    assert!(settling(&[]).is_unsettled(last + 1), "a facilitator answers, or does not, within seconds");
}

fn claude(error: ModelError) -> Event {
    Event::Broke { error, no_text: false }
}

/// The payer of a contract has chosen the deadline and the form of the result.
#[test]
fn only_what_came_to_nothing_by_the_payers_doing_counts_against_them() {
    use ModelError as C;
    let begun = [Event::Presented, Event::Verified, Event::Began];
    let of = |terms: Terms, event: Event| under(terms, &[&begun[..], &[event]].concat()).is_unpaid_by_payer();
    let one_call = |terms| Terms { start_attempts: 1, ..terms };
    let (run, contract) = (|| one_call(terms(Policy::OnResult)), || one_call(contract_terms()));
    assert!(of(run(), Event::Abandoned));
    for terms in [run(), contract()] {
        for error in [
            C::KeyInvalid,
            C::Permission,
            C::Billing,
            C::ModelRetired,
            C::TooLong,
            C::Rejected,
            limited(Some(7)),
            limited(None),
            C::Overloaded,
            C::Upstream,
            C::Unreachable,
            C::TimedOut,
            C::Broken,
            C::CutOff,
            C::Declined,
            C::NotStored,
        ] {
            assert!(!of(terms.clone(), claude(error)), "{error:?}");
        }
        assert!(of(terms.clone(), claude(C::WindowOver)));
    }
    let mismatch = C::OutputMismatch { repair: false };
    for event in [Event::DeadlineMissed, claude(mismatch), claude(C::Truncated)] {
        assert!(of(contract(), event.clone()), "{event:?}");
    }
    for event in [claude(mismatch), claude(C::Truncated)] {
        assert!(!of(run(), event.clone()), "{event:?}");
    }
    assert!(settling(&[rejected()]).is_unpaid_by_payer());
    assert!(
        settling(&[Event::SettleUnanswered, Event::Presented, reconciled(Evidence::Never(None))]).is_unpaid_by_payer()
    );
    assert!(!settling(&[Event::SettleNotSent]).is_unpaid_by_payer(), "no facilitator took it");
    assert!(!settling(&[broke(true), Event::SettleWithheld]).is_unpaid_by_payer());
    let free = under(free_terms(), &[Event::Presented, Event::Began]);
    for run in one_of_each().iter().chain([&free]).filter(|run| !run.is_final() || run.receipt().is_some()) {
        assert!(!run.is_unpaid_by_payer(), "not before it has ended, nor once it is paid: {:?}", run.state());
    }
    let unverified =
        under(run(), &[Event::Presented, Event::VerifyRefused(Refusal::SettlementRejected { reason: None })]);
    assert!(!unverified.is_unpaid_by_payer(), "Claude was not called");
}

#[test]
fn nothing_is_kept_of_a_payment_before_it_is_verified() {
    for run in one_of_each() {
        let kept = match run.state() {
            State::New | State::Presented => false,
            State::Refused(_) => run != after(Policy::OnStart, &unverified()),
            _ => true,
        };
        assert_eq!(run.is_kept(), kept, "{:?}", run.state());
    }
}

#[test]
fn a_run_is_closed_when_nothing_will_happen_to_it_any_more_and_the_ledger_knows() {
    for mut run in one_of_each() {
        assert!(!run.is_closed() || run.is_final() && !run.is_kept(), "a row is due: {:?}", run.state());
        step(&mut run, Event::LedgerRowWritten);
        let closed = match run.state() {
            State::Delivered | State::Refused(_) | State::Failed(_) | State::Reported(_) => true,
            // Its report is still to be accepted.
            State::Refundable(_) => false,
            State::New | State::Presented | State::Verified | State::Answering { .. } | State::Streaming => false,
            State::SettlementUnknown { .. } | State::Interrupted(_) => false,
        };
        assert_eq!(run.is_closed(), closed, "{:?}", run.state());
    }
}

/// Its answer could not be sold any more, and to ask again would take as long.
#[test]
fn an_answer_that_outlasts_the_payments_window_has_failed_and_is_not_asked_for_again() {
    for mut run in on_credit() {
        let failed = (vec![Save, WriteLedgerRow], State::Failed(ModelError::WindowOver));
        assert_eq!(step(&mut run, claude(ModelError::WindowOver)), failed);
        assert!(run.is_unpaid_by_payer() && run.is_replaceable());
    }
}

#[test]
fn a_run_comes_back_from_its_stored_form() {
    for run in one_of_each() {
        let stored = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&stored).unwrap(), run);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever the jitter say, what failed together neither comes back at once nor waits beyond the limits.
    #[test]
    fn every_wait_is_between_half_and_the_whole_of_what_the_schedule_and_its_limit_allow(jitter in any::<u16>()) {
        let within = |waits: &[Millis], longest: &[Millis]| {
            waits.len() == longest.len() && waits.iter().zip(longest).all(|(wait, most)| (most / 2..=*most).contains(wait))
        };
        let starts = start_waits(6, jitter);
        prop_assert!(within(&starts, &[500, 2_000, 8_000, 8_000, 8_000]), "{:?}", starts);
        prop_assert!(within(&[paid_waits(CUT, jitter).0], &[2_000]));
        let looks = waits_between_looks(&mut unknown_since_now(), NOW, 5, jitter);
        prop_assert!(within(&looks[1..], &[8_000, 32_000, 60_000, 60_000]), "{:?}", looks);
        let mut paid = under(Terms { paid_attempts: 6, ..terms(Policy::OnStart) }, &[&to_settling()[..], &[settled(), broke(true)]].concat());
        let mut again = || {
            paid.handle(broke(true), Moment { now: NOW, jitter });
            paid.back_off()
        };
        let waits = [again(), again(), again(), again()];
        prop_assert!(within(&waits, &[2_000, 8_000, 30_000, 30_000]), "{:?}", waits);
        let (reports, most) = (waits_between_reports(&mut refundable(), jitter), REPORT_AGAIN_MAX);
        prop_assert!(within(&reports, &[30_000, 120_000, 480_000, 1_920_000, most, most]), "{:?}", reports);
    }

    /// No time and no terms, however far off, make the arithmetic of waits go wrong.
    #[test]
    fn no_time_overflows(now in any::<u64>(), valid_until in any::<u64>(), jitter in any::<u16>(), rounds in 0usize..260) {
        let terms = Terms { valid_until, start_attempts: u8::MAX, paid_attempts: u8::MAX, ..terms(Policy::OnStart) };
        let moment = Moment { now, jitter };
        let mut run = Run::new(terms);
        let tell = |run: &mut Run, event: Event| drop((run.handle(event, moment), run.deadline(now), run.is_expired(now)));
        [Event::Presented, Event::Verified].into_iter().for_each(|event| tell(&mut run, event));
        (0..rounds).for_each(|_| tell(&mut run, broke(true)));
        [Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::SettleUnanswered].into_iter().for_each(|event| tell(&mut run, event));
        for _ in 0..rounds {
            tell(&mut run, Event::Presented);
            tell(&mut run, reconciled(Evidence::Nothing));
        }
        tell(&mut run, settled());
        (0..rounds).for_each(|_| tell(&mut run, broke(true)));
    }
}

// A contract's run.

const DUE: Millis = NOW + 5_000;
const DAY: Millis = RETENTION;

/// Of a contract that is due soon, and can be executed for ten days.
fn contract_terms() -> Terms {
    Terms { detached: true, due_by: Some(DUE), kept_until: Some(NOW + 10 * DAY), ..terms(Policy::OnResult) }
}

fn contract(events: &[Event]) -> Run {
    under(contract_terms(), events)
}

/// Nobody may be there to present it again: it has to be found after a restart.
#[test]
fn a_contracts_run_is_stored_before_each_call_of_claude() {
    let mut run = contract(&[]);
    assert_eq!(step(&mut run, Event::Presented), (vec![Verify], State::Presented));
    assert_eq!(step(&mut run, Event::Verified), (vec![Save, CallModel], State::Verified));
    assert_eq!(step(&mut run, broke(true)), (vec![Clear, Save, BackOff], State::Verified));
    assert_eq!(step(&mut run, Event::BackOffElapsed), (vec![Save, CallModel], State::Verified));
}

/// Its caller comes back to ask what became of it.
#[test]
fn a_contracts_run_that_was_told_to_be_under_way_is_kept_when_its_payment_is_refused() {
    let mut run = contract(&[Event::Presented]);
    assert_eq!(step(&mut run, Event::ToldPending), (vec![], State::Presented));
    assert!(!run.is_kept(), "not before its payment is answered for");
    let refusal = Refusal::PaymentInvalid { reason: None };
    let refused = (vec![Save, WriteLedgerRow], State::Refused(refusal.clone()));
    assert_eq!(step(&mut run, Event::VerifyRefused(refusal)), refused);
    assert!(run.is_kept() && !run.is_closed() && run.is_replaceable());
    assert!(!run.is_unpaid_execution() && !run.is_unpaid_by_payer(), "Claude was not called");
    assert_eq!(step(&mut run, Event::AlarmFired).0, [WriteLedgerRow]);
    let again = next(&run);
    assert_eq!(again, contract(&[Event::Presented]), "the next run has been told to nobody");
}

#[test]
fn a_contracts_run_goes_on_without_callers() {
    let mut run = contract(&[Event::Presented, Event::Verified]);
    assert!(!run.is_generating_unpaid());
    assert_eq!(run.terms().policy, Policy::OnResult);
    assert_eq!(step(&mut run, Event::Began).1, answering(false, Answer::Writing));
    assert!(!run.is_generating_unpaid());
}

#[test]
fn a_contracts_run_that_was_restarted_goes_on_by_itself() {
    for events in
        [&[Event::Verified][..], &[Event::Verified, Event::Began], &[Event::Verified, Event::Began, Event::FirstText]]
    {
        let mut run = contract(&[&[Event::Presented], events].concat());
        assert_eq!(step(&mut run, Event::Restarted), (vec![Clear, Save, BackOff], State::Verified));
        assert_eq!(step(&mut run, Event::BackOffElapsed), (vec![Save, CallModel], State::Verified));
    }
    // As often as Claude is asked before payment, and no oftener; a call that was waited for was none.
    let mut run = contract(&[Event::Presented, Event::Verified, Event::Restarted, Event::Restarted, Event::Restarted]);
    assert_eq!(run.state(), &State::Verified);
    for _ in 0..2 {
        step(&mut run, Event::BackOffElapsed);
        step(&mut run, Event::Restarted);
    }
    assert_eq!(run.state(), &State::Failed(CUT));
}

#[test]
fn what_is_late_before_it_is_settled_has_failed() {
    for events in [&[][..], &[Event::Began], &[Event::Began, Event::FirstText], &[broke(true)]] {
        let mut run = contract(&[&[Event::Presented, Event::Verified], events].concat());
        assert!(!run.is_late(DUE - 1) && run.is_late(DUE));
        assert_eq!(run.deadline(NOW), Some(DUE));
        let missed = State::Failed(ModelError::DeadlineMissed);
        assert_eq!(
            step(&mut run, Event::DeadlineMissed),
            (vec![CancelModelCall, Save, WriteLedgerRow], missed.clone())
        );
        // What was under way then comes too late.
        for late in [Event::Began, Event::FirstText, Event::Ended, Event::BackOffElapsed, settled()] {
            assert_eq!(step(&mut run, late), (vec![], missed.clone()));
        }
    }
}

#[test]
fn what_is_being_settled_or_is_paid_was_in_time() {
    let whole = [Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::Ended];
    let streams = Terms { policy: Policy::OnStart, ..contract(&[]).terms().clone() };
    for mut run in
        [contract(&whole), contract(&[&whole[..], &[settled()]].concat()), under(streams.clone(), &to_settling())]
    {
        let state = run.state().clone();
        assert!(!run.is_late(DUE + DAY));
        assert_eq!(step(&mut run, Event::DeadlineMissed), (vec![], state));
    }
    let mut stream = under(streams, &[&to_settling()[..], &[settled()]].concat());
    assert_eq!(step(&mut stream, Event::DeadlineMissed), (vec![], State::Streaming));
    assert_eq!(step(&mut stream, Event::Ended).1, State::Delivered);
}

#[test]
fn the_alarm_rings_for_the_deadline_though_it_was_set_while_the_payment_was_verified() {
    let run = contract(&[Event::Presented]);
    assert_eq!(run.deadline(NOW), Some(DUE));
    assert_eq!(run.deadline(DUE), Some(DUE + HEARTBEAT));
    assert!(!run.is_late(DUE + DAY), "the payment is answered for first");
}

#[test]
fn an_answer_that_is_shown_to_claude_again_is_one_call_more_whatever_was_before() {
    let mend = || Event::Broke { error: ModelError::OutputMismatch { repair: true }, no_text: false };
    let last = || Event::Broke { error: ModelError::OutputMismatch { repair: false }, no_text: false };
    let again = [broke(true), Event::BackOffElapsed, broke(true), Event::BackOffElapsed];
    let mut run =
        contract(&[&[Event::Presented, Event::Verified][..], &again, &[Event::Began, Event::FirstText]].concat());
    assert_eq!(step(&mut run, mend()), (vec![Clear, Save, BackOff], State::Verified));
    assert_eq!(run.back_off(), 0);
    step(&mut run, Event::BackOffElapsed);
    step(&mut run, Event::Began);
    let failed = State::Failed(ModelError::OutputMismatch { repair: false });
    assert_eq!(step(&mut run, last()), (vec![Save, WriteLedgerRow], failed));
}

#[test]
fn what_came_to_nothing_is_known_as_long_as_the_contract_can_be_executed() {
    let whole = [Event::Presented, Event::Verified, Event::Began, Event::Ended];
    let in_vain = [
        contract(&[Event::Presented, Event::Verified, declined()]),
        contract(&[&whole[..], &[rejected()]].concat()),
        contract(&[&whole[..], &[Event::SettleNotSent]].concat()),
    ];
    for mut run in in_vain {
        assert!(run.is_unpaid_execution(), "{:?}", run.state());
        step(&mut run, Event::LedgerRowWritten);
        assert!(!run.is_expired(NOW + 10 * DAY - 1) && run.is_expired(NOW + 10 * DAY));
    }
    let mut delivered = contract(&[&whole[..], &[settled()]].concat());
    assert!(!delivered.is_unpaid_execution());
    step(&mut delivered, Event::LedgerRowWritten);
    assert!(delivered.is_expired(NOW + DAY), "a result is kept for a day");
    assert!(!contract(&whole).is_unpaid_execution() && !contract(&[]).is_unpaid_execution());
}
