//! Who joins a run, waits, is refused or begins one, when a payment is presented to the object of its wallet.

use super::sample::{begun, contract, free_terms, payment, receipt, request, NOW, VALID_BEFORE};
use coinslot::testing::rules::admission::{
    admit, counts_against_payer, next_execution, reusable_payment, Admission, Known, KnownRun, Usage, Which,
    COUNTED_FOR,
};
use coinslot::testing::rules::config::Limits;
use coinslot::testing::rules::payment::identifier::IdempotencyKey;
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::record::run_record::{RunRecord, RunStats};
use coinslot::testing::rules::record::run_request::RunRequest;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{Event, Millis, Moment, Policy, Run, State, Terms};
use coinslot::testing::rules::template::input::Input;

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

/// Presented, verified, begun, first text: a stream that is being settled.
fn to_settling(more: &[Event]) -> Vec<Event> {
    [&VERIFIED[..], &[Event::Began, Event::FirstText], more].concat()
}

fn delivered() -> Vec<Event> {
    to_settling(&[Event::Settled(receipt()), Event::Ended])
}

/// A run that has been begun, as the object knows it.
struct Begun(Run, RunRecord);

impl Begun {
    fn new(first: RunRequest, events: &[Event]) -> Self {
        let (run, record) = begun(first, events);
        Self(run, record)
    }

    fn known(&self) -> KnownRun<'_> {
        KnownRun { run: &self.0, record: &self.1 }
    }
}

/// The decision about a request under the built-in limits.
fn decide_with(request: &RunRequest, known: &Known<'_>) -> Admission {
    admit(request, known, &Limits::default(), NOW)
}

/// The decision about `second`, after `first` has begun a run of the same name and these events have come.
fn decide(first: RunRequest, events: &[Event], second: &RunRequest) -> Admission {
    let first = Begun::new(first, events);
    decide_with(second, &Known { named: Some(first.known()), ..Known::default() })
}

/// The decision about a request of whose payment, contract and key the object knows nothing.
fn decide_first(request: &RunRequest) -> Admission {
    decide_with(request, &Known::default())
}

#[test]
fn the_first_request_begins_a_run() {
    assert_eq!(decide_first(&paid("p", "d")), Admission::Begin);
    assert_eq!(decide_first(&request(None, "d")), Admission::Begin);
}

#[test]
fn a_request_that_must_not_begin_a_run_is_refused_and_still_joins_the_one_it_has_paid_for() {
    let refused = || RunRequest { begin_refusal: Some(Refusal::Paused), ..paid("p", "d") };
    assert_eq!(decide_first(&refused()), Admission::Refuse(Refusal::Paused));
    assert_eq!(
        decide(paid("p", "d"), &[&VERIFIED[..], &[declined()]].concat(), &refused()),
        Admission::Refuse(Refusal::Paused)
    );
    assert_eq!(decide(paid("p", "d"), &VERIFIED, &refused()), Admission::Join(Which::Named));
}

#[test]
fn the_same_payment_and_request_join_the_run_wherever_it_is() {
    let to_settled = to_settling(&[Event::Settled(receipt())]);
    for (events, state) in [
        (PRESENTED.to_vec(), State::Presented),
        (VERIFIED.to_vec(), State::Verified),
        (to_settled.clone(), State::Streaming),
        ([&to_settled[..], &[Event::Ended]].concat(), State::Delivered),
        ([&to_settled[..], &[declined()]].concat(), State::Refundable(ModelError::Declined)),
    ] {
        assert_eq!(begun(paid("p", "d"), &events).0.state(), &state);
        assert_eq!(decide(paid("p", "d"), &events, &paid("p", "d")), Admission::Join(Which::Named), "{state:?}");
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
    let wait = Admission::Wait(Which::Named);
    assert_eq!(decide(paid("p", "d"), &PRESENTED, &paid("forged", "d")), wait);
    assert_eq!(decide(paid("forged", "x"), &PRESENTED, &paid("p", "d")), wait, "also with another request");
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
    assert_eq!(decide(request(None, "d"), &PRESENTED, &request(None, "d")), Admission::Join(Which::Named));
    assert_eq!(decide(request(None, "d"), &PRESENTED, &paid("p", "d")), Admission::Refuse(Refusal::PaymentReused));
}

// Payments of other runs, and payments that only a facilitator can check.

#[test]
fn a_payment_that_another_run_uses_begins_none() {
    let known = Known { payment_is_taken: true, ..Known::default() };
    assert_eq!(decide_with(&paid("p", "d"), &known), Admission::Refuse(Refusal::PaymentReused));
}

/// A payment whose signature only a facilitator can check.
fn unchecked(proof: &str, digest: &str) -> RunRequest {
    request(Some(Payment { by_key: false, ..payment(proof) }), digest)
}

/// Otherwise anybody could name a wallet, and use up its keys and places.
#[test]
fn a_payment_that_we_cannot_check_is_verified_before_it_begins_a_run_or_is_held_against_a_key() {
    let known_to_the_facilitator =
        || RunRequest { verified_by: Some("https://f.example".to_owned()), ..unchecked("p", "d") };
    assert_eq!(decide_first(&unchecked("p", "d")), Admission::VerifyFirst);
    assert_eq!(decide_first(&known_to_the_facilitator()), Admission::Begin);
    let failed = [Event::Presented, Event::Verified, declined()];
    assert_eq!(decide(unchecked("p", "d"), &failed, &unchecked("p", "d")), Admission::VerifyFirst, "each time");
    for events in [&VERIFIED[..], &delivered()] {
        assert_eq!(decide(unchecked("p", "d"), events, &unchecked("p", "d")), Admission::Join(Which::Named));
    }
    let holder = Begun::new(keyed("q", "k", "d"), &delivered());
    let known = Known { keyed: Some(holder.known()), ..Known::default() };
    let with_key = |request: RunRequest| RunRequest { key: key("k", "d"), ..request };
    assert_eq!(decide_with(&with_key(unchecked("p", "d")), &known), Admission::VerifyFirst);
    let verified = with_key(known_to_the_facilitator());
    assert_eq!(decide_with(&verified, &known), Admission::Join(Which::Keyed));
}

#[test]
fn an_owners_test_has_no_payment_to_verify() {
    assert_eq!(decide_first(&request(None, "d")), Admission::Begin);
}

// Idempotency keys: another payment of the same wallet.

fn key(key: &str, request: &str) -> Option<IdempotencyKey> {
    IdempotencyKey::new(Some(key), None, request)
}

/// A request with a key and a payment of its own.
fn keyed(proof: &str, id: &str, digest: &str) -> RunRequest {
    let own = Payment { name: format!("name of {proof}"), nonce: format!("nonce of {proof}"), ..payment(proof) };
    RunRequest { name: own.name.clone(), key: key(id, digest), ..request(Some(own), digest) }
}

/// The decision about another payment with the key "k" and this request, after the holder's events.
fn decide_keyed(events: &[Event], second: &RunRequest) -> Admission {
    let holder = Begun::new(keyed("first", "k", "d"), events);
    decide_with(second, &Known { keyed: Some(holder.known()), ..Known::default() })
}

#[test]
fn the_same_key_and_request_with_another_payment_join_the_run_that_the_key_has_bought() {
    for events in [
        VERIFIED.to_vec(),
        to_settling(&[]),
        to_settling(&[Event::SettleUnanswered]),
        to_settling(&[Event::Settled(receipt())]),
        to_settling(&[Event::Settled(receipt()), Event::Broke { error: ModelError::CutOff, no_text: false }]),
        to_settling(&[Event::Settled(receipt()), declined()]),
        to_settling(&[Event::Settled(receipt()), declined(), Event::Reported]),
        delivered(),
    ] {
        let decision = decide_keyed(&events, &keyed("second", "k", "d"));
        assert_eq!(decision, Admission::Join(Which::Keyed), "{events:?}");
    }
}

#[test]
fn another_request_with_a_key_that_has_bought_a_run_is_refused_with_that_run() {
    for events in [VERIFIED.to_vec(), to_settling(&[]), to_settling(&[Event::SettleUnanswered]), delivered()] {
        let decision = decide_keyed(&events, &keyed("second", "k", "other"));
        assert_eq!(decision, Admission::RefuseFor(Which::Keyed, Refusal::IdentifierReused), "{events:?}");
    }
}

/// A key belongs to a verified payment. Until then, nobody can tell whether it will.
#[test]
fn whoever_comes_with_a_key_whose_payment_is_being_verified_waits() {
    for digest in ["d", "other"] {
        assert_eq!(decide_keyed(&PRESENTED, &keyed("second", "k", digest)), Admission::Wait(Which::Keyed));
    }
}

#[test]
fn a_key_is_free_again_once_its_run_has_come_to_nothing() {
    for events in [
        vec![Event::Presented, invalid()],
        vec![Event::Presented, Event::Verified, declined()],
        vec![Event::Presented, Event::Verified, Event::Abandoned],
        to_settling(&[rejected()]),
        to_settling(&[Event::SettleNotSent]),
    ] {
        for digest in ["d", "other"] {
            assert_eq!(decide_keyed(&events, &keyed("second", "k", digest)), Admission::Begin, "{events:?}");
        }
    }
}

#[test]
fn a_payment_finds_its_own_run_whatever_its_key_has_bought() {
    let (own, holder) = (keyed("second", "l", "d"), Begun::new(keyed("first", "k", "d"), &delivered()));
    let own = Begun::new(own, &VERIFIED);
    let known = Known { named: Some(own.known()), keyed: Some(holder.known()), ..Known::default() };
    assert_eq!(decide_with(&keyed("second", "k", "d"), &known), Admission::Join(Which::Named));
    assert_eq!(decide_with(&keyed("second", "k", "other"), &known), Admission::Refuse(Refusal::PaymentReused));
}

#[test]
fn a_request_without_a_key_is_not_held_against_any() {
    let holder = Begun::new(keyed("first", "k", "d"), &delivered());
    let without = RunRequest { key: None, ..keyed("second", "k", "other") };
    let known = Known { keyed: Some(holder.known()), ..Known::default() };
    assert_eq!(decide_with(&without, &known), Admission::Begin);
}

/// The record of a run that was begun without a key has none to compare.
#[test]
fn a_run_that_holds_no_key_of_its_own_is_never_joined_by_one() {
    let holder = Begun::new(RunRequest { key: None, ..keyed("first", "k", "d") }, &delivered());
    let known = Known { keyed: Some(holder.known()), ..Known::default() };
    let refused = Admission::RefuseFor(Which::Keyed, Refusal::IdentifierReused);
    assert_eq!(decide_with(&keyed("second", "k", "d"), &known), refused);
}

// What a wallet may leave unpaid.

const HOUR: Millis = 60 * 60 * 1000;

/// The decision about a new payment, with so many runs unsettled, and others counted at these times.
fn decide_under(limits: &Limits, unsettled: usize, counted: &[Millis]) -> Admission {
    let known = Known { usage: Usage { unsettled, counted }, ..Known::default() };
    admit(&paid("p", "d"), &known, limits, NOW)
}

fn limits(unpaid_per_wallet: u32, unpaid_per_wallet_day: u32) -> Limits {
    Limits { unpaid_per_wallet, unpaid_per_wallet_day, ..Limits::default() }
}

fn too_many(retry_after: u32) -> Admission {
    Admission::Refuse(Refusal::TooManyUnpaidRuns { retry_after })
}

#[test]
fn a_wallet_has_no_more_runs_unsettled_than_its_limit_and_room_again_soon() {
    for (unsettled, decision) in [(0, Admission::Begin), (7, Admission::Begin), (8, too_many(2)), (99, too_many(2))] {
        assert_eq!(decide_under(&Limits::default(), unsettled, &[]), decision, "{unsettled}");
    }
    assert_eq!(decide_under(&limits(1, 20), 0, &[]), Admission::Begin);
    assert_eq!(decide_under(&limits(1, 20), 1, &[]), too_many(2));
}

#[test]
fn a_wallet_whose_runs_came_to_nothing_too_often_has_room_again_a_day_after_the_oldest() {
    let counted = |count: u64| (0..count).map(|n| NOW - 20 * HOUR + n * 1000).collect::<Vec<_>>();
    assert_eq!(COUNTED_FOR, 24 * HOUR);
    assert_eq!(decide_under(&Limits::default(), 0, &counted(19)), Admission::Begin);
    for count in [20, 21] {
        assert_eq!(decide_under(&Limits::default(), 0, &counted(count)), too_many(4 * 3600));
    }
    assert_eq!(decide_under(&limits(8, 1), 0, &[NOW]), too_many(24 * 3600));
    assert_eq!(decide_under(&limits(8, 1), 0, &[NOW - COUNTED_FOR + 1]), too_many(1), "rounded up");
    assert_eq!(decide_under(&limits(8, 1), 0, &[0]), too_many(1), "and never 0");
}

/// Otherwise a wallet with one place left for the day has as many answers begun at once as it may have unsettled.
#[test]
fn what_is_under_way_takes_the_places_of_the_day_too() {
    let counted = |count| vec![NOW - HOUR; count];
    for (unsettled, count, decision) in [
        (7, 12, Admission::Begin),
        (7, 13, too_many(2)),
        (1, 18, Admission::Begin),
        (1, 19, too_many(2)),
        (0, 20, too_many(23 * 3600)),
        (5, 20, too_many(23 * 3600)),
        (8, 20, too_many(23 * 3600)),
    ] {
        assert_eq!(decide_under(&Limits::default(), unsettled, &counted(count)), decision, "{unsettled}, {count}");
    }
}

#[test]
fn a_wallet_at_its_limit_is_still_shown_what_it_has_bought() {
    let usage = Usage { unsettled: 8, counted: &[NOW; 20] };
    let own = Begun::new(keyed("second", "k", "d"), &VERIFIED);
    let known = Known { named: Some(own.known()), usage, ..Known::default() };
    assert_eq!(decide_with(&keyed("second", "k", "d"), &known), Admission::Join(Which::Named));
    let holder = Begun::new(keyed("first", "k", "d"), &delivered());
    let known = Known { keyed: Some(holder.known()), usage, ..Known::default() };
    assert_eq!(decide_with(&keyed("second", "k", "d"), &known), Admission::Join(Which::Keyed));
    let refused = Admission::RefuseFor(Which::Keyed, Refusal::IdentifierReused);
    assert_eq!(decide_with(&keyed("second", "k", "other"), &known), refused);
}

/// A deadline that was missed while Claude was overloaded, or a caller who did not wait that long, is not the payer's
/// doing.
#[test]
fn claudes_own_failures_do_not_count_against_the_payer() {
    let after = |terms: Terms, events: &[Event]| {
        let mut run = Run::new(terms);
        events.iter().for_each(|event| drop(run.handle(event.clone(), Moment { now: 0, jitter: 0 })));
        run
    };
    let terms = || Terms { policy: Policy::OnResult, start_attempts: 3, valid_until: u64::MAX, ..free_terms() };
    let contracts = || Terms { detached: true, due_by: Some(60_000), ..terms() };
    let broke = |error| Event::Broke { error, no_text: true };
    let overloaded = [Event::Presented, Event::Verified, broke(ModelError::Overloaded)];
    let (well, mut ill) = (RunStats::default(), RunStats::default());
    ill.note_broken(ModelError::Overloaded);
    for (terms, end) in [
        (contracts(), Event::DeadlineMissed),
        (terms(), Event::Abandoned),
        (contracts(), broke(ModelError::WindowOver)),
    ] {
        let run = after(terms, &[&overloaded[..], &[Event::BackOffElapsed, end.clone()]].concat());
        assert!(counts_against_payer(&run, &well), "{end:?}");
        assert!(!counts_against_payer(&run, &ill), "{end:?}");
    }
    let mismatch = [Event::BackOffElapsed, Event::Began, broke(ModelError::OutputMismatch { repair: false })];
    let run = after(contracts(), &[&overloaded[..], &mismatch].concat());
    assert!(counts_against_payer(&run, &ill), "the schema is the seeker's");
    let run =
        after(terms(), &[&overloaded[..], &[Event::BackOffElapsed, Event::Began, Event::Ended, rejected()]].concat());
    assert!(counts_against_payer(&run, &ill), "the payment is the payer's");
    ill.note_begun();
    let writing = |end| [&overloaded[..], &[Event::BackOffElapsed, Event::Began, end]].concat();
    for (terms, end) in [(terms(), Event::Abandoned), (contracts(), broke(ModelError::WindowOver))] {
        let run = after(terms, &writing(end.clone()));
        assert!(counts_against_payer(&run, &ill), "Claude is writing: {end:?}");
    }
    let late = after(contracts(), &writing(Event::DeadlineMissed));
    assert!(!counts_against_payer(&late, &ill), "the time before is missing at the end");
    ill.note_broken(ModelError::CutOff);
    let gone = after(terms(), &[&writing(broke(ModelError::CutOff))[..], &[Event::Abandoned]].concat());
    assert!(!counts_against_payer(&gone, &ill), "Claude has failed again");
    for error in [ModelError::Overloaded, ModelError::RateLimited { retry_after: Some(1) }, ModelError::Unreachable] {
        assert!(error.is_claudes(), "{error:?}");
    }
    for error in [ModelError::OutputMismatch { repair: true }, ModelError::CallerGone, ModelError::Declined] {
        assert!(!error.is_claudes(), "{error:?}");
    }
}

#[test]
fn an_owner_has_as_many_free_tests_in_a_day_as_the_operator_allows() {
    let decide = |owner_tests_per_day, unsettled, counted: &[Millis]| {
        let limits = Limits { owner_tests_per_day, ..limits(1, 1) };
        let known = Known { usage: Usage { unsettled, counted }, ..Known::default() };
        admit(&request(None, "d"), &known, &limits, NOW)
    };
    let refused = |retry_after| Admission::Refuse(Refusal::TooManyOwnerTests { retry_after });
    let counted = [NOW - HOUR, NOW - 1000, NOW];
    assert_eq!(decide(4, 0, &counted), Admission::Begin);
    assert_eq!(decide(3, 0, &counted), refused(23 * 3600));
    assert_eq!(decide(2, 0, &counted), refused(23 * 3600));
    assert_eq!(decide(4, 9, &counted), Admission::Begin, "the limits of wallets are not for owners");
    assert_eq!(decide(0, 0, &[]), refused(24 * 3600), "the operator wants none");
}

// What waits.

/// What the object holds in memory for a request that waits is bounded.
#[test]
fn the_size_of_a_request_is_that_of_its_prompt_and_its_input() {
    let plain = paid("p", "d");
    let values = [("a", "12345"), ("b", "é")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let input = Input { values: values.into(), user_message: Some("1234567".to_owned()) };
    assert_eq!(RunRequest { input, ..paid("p", "d") }.size(), plain.size() + 5 + 2 + 7);
    assert_eq!(plain.size(), "THE SECRET PROMPT".len());
}

// The order of the checks.

#[test]
fn of_several_reasons_to_turn_a_request_away_the_first_in_the_order_of_the_checks_is_told() {
    let failed = execution(3, 3, "p", "d");
    let failed = Begun::new(failed, &FAILED);
    let replaceable = Begun::new(paid("p", "d"), &[Event::Presented, invalid()]);
    let running = Begun::new(paid("p", "d"), &VERIFIED);
    let holder = Begun::new(keyed("first", "k", "d"), &delivered());
    // A request with everything wrong, and what is found wrong with it when the reasons go one by one.
    let mut request = RunRequest {
        key: key("k", "other"),
        begin_refusal: Some(Refusal::Paused),
        contract_context: Some(contract(1, 3)),
        ..unchecked("p", "other")
    };
    let usage = Usage { unsettled: 8, counted: &[] };
    let mut known = Known { named: Some(failed.known()), keyed: Some(holder.known()), payment_is_taken: true, usage };
    assert_eq!(decide_with(&request, &known), Admission::Refuse(Refusal::ContractInputDiffers));
    request.contract_context = None;
    known.named = Some(running.known());
    assert_eq!(decide_with(&request, &known), Admission::Refuse(Refusal::PaymentReused), "of the run of this name");
    known.named = Some(replaceable.known());
    assert_eq!(decide_with(&request, &known), Admission::Refuse(Refusal::Paused));
    request.begin_refusal = None;
    assert_eq!(decide_with(&request, &known), Admission::Refuse(Refusal::PaymentReused), "the payment is taken");
    known.payment_is_taken = false;
    assert_eq!(decide_with(&request, &known), Admission::VerifyFirst);
    request.verified_by = Some("https://f.example".to_owned());
    let refused = Admission::RefuseFor(Which::Keyed, Refusal::IdentifierReused);
    assert_eq!(decide_with(&request, &known), refused);
    known.keyed = None;
    assert_eq!(decide_with(&request, &known), too_many(2));
    known.usage.unsettled = 7;
    assert_eq!(decide_with(&request, &known), Admission::Begin);
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
        assert_eq!(decision, Admission::Join(Which::Named));
    }
    let without =
        RunRequest { payment: None, begin_refusal: Some(Refusal::PaymentRequired), ..execution(1, 3, "", "d") };
    assert_eq!(decide(execution(1, 3, "p", "d"), &VERIFIED, &without), Admission::Join(Which::Named), "or with none");
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
        let last = Begun::new(execution(number, 5, "p", "d"), events);
        next_execution(Some(last.known()))
    };
    assert_eq!(next_execution(None), 1);
    assert_eq!((next(1, &FAILED), next(3, &FAILED)), (2, 4));
    assert_eq!(next(3, &[Event::Presented, invalid()]), 3, "Claude was not called");
}

/// The proof of the payment that another execution may use, which needs it to be good until then.
fn reusable(events: &[Event], good_until: u64) -> Option<String> {
    let last = Begun::new(execution(1, 3, "p", "d"), events);
    reusable_payment(Some(last.known()), good_until).map(|payment| payment.proof.clone())
}

#[test]
fn an_execution_that_was_not_charged_leaves_its_payment_to_the_next() {
    assert_eq!(reusable(&FAILED, VALID_BEFORE - 1).as_deref(), Some("p"));
    assert_eq!(reusable_payment(None, 0), None);
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
