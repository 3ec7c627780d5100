//! The run machine: its paths one by one, and then every order of events, losses and crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use coinslot::rules::refusal::{ClaudeFault, Refusal};
use coinslot::rules::run::{
    Answer, Effect, Ending, Event, Policy, Receipt, Run, State, View, HEARTBEAT, KEEP, RECORD_AGAIN,
};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::panic::{catch_unwind, AssertUnwindSafe};
use Effect::{Ask, BackOff, Clear, Hush, Linger, Record, Save, Settle, Verify};

const NOW: u64 = 1_000_000;
const CUT: ClaudeFault = ClaudeFault::CutOff;

fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt { transaction: text("0x1"), network: text("eip155:8453"), network_v1: text("base"), payer: text("0x2") }
}

fn broke(silent: bool) -> Event {
    Event::Broke { fault: CUT, silent }
}

fn settled() -> Event {
    Event::Settled(receipt())
}

fn rejected() -> Event {
    Event::SettleRejected(Some("insufficient_funds".to_owned()))
}

/// A run with three paid attempts that has been told these events.
fn after(policy: Policy, events: &[Event]) -> Run {
    let mut run = Run::new(policy, 3);
    events.iter().for_each(|event| drop(run.handle(event.clone(), NOW)));
    run
}

/// Tells one more event and gives back what is wanted and where the run is then.
fn step(run: &mut Run, event: Event) -> (Vec<Effect>, State) {
    (run.handle(event, NOW), run.state().clone())
}

fn answering(settling: bool, answer: Answer) -> State {
    State::Answering { settling, answer }
}

/// Presented, verified, begun, first text: on `OnStart`, settling.
const fn to_settling() -> [Event; 4] {
    [Event::Presented, Event::Verified, Event::Began, Event::Wrote]
}

fn streaming() -> Run {
    let run = after(Policy::OnStart, &[&to_settling()[..], &[settled()]].concat());
    assert_eq!(run.state(), &State::Streaming);
    run
}

#[test]
fn a_stream_is_verified_asked_settled_at_its_first_text_and_delivered() {
    let mut run = Run::new(Policy::OnStart, 3);
    assert_eq!(step(&mut run, Event::Presented), (vec![Clear, Save, Verify], State::Presented));
    assert_eq!(step(&mut run, Event::Verified), (vec![Save, Ask], State::Verified));
    assert_eq!(step(&mut run, Event::Began), (vec![Linger], answering(false, Answer::Writing)));
    assert_eq!(step(&mut run, Event::Wrote), (vec![Save, Settle], answering(true, Answer::Writing)));
    assert_eq!(run.view(), View::Wait);
    assert_eq!(step(&mut run, settled()), (vec![Save], State::Streaming));
    assert_eq!((run.view(), run.receipt(), run.ending()), (View::Show, Some(&receipt()), None));
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, Record], State::Delivered));
    assert_eq!((run.view(), run.ending()), (View::Show, Some(Ending::Done)));
}

#[test]
fn a_stream_that_is_slow_to_speak_is_settled_when_the_grace_is_over() {
    let mut run = after(Policy::OnStart, &[Event::Presented, Event::Verified, Event::Began]);
    assert_eq!(step(&mut run, Event::Lingered).0, [Save, Settle]);
    assert_eq!(step(&mut run, Event::Wrote).0, [], "once");
    assert_eq!(step(&mut run, Event::Lingered).0, []);
}

#[test]
fn a_document_is_settled_only_when_it_is_whole() {
    let mut run = after(Policy::OnResult, &[Event::Presented, Event::Verified]);
    for event in [Event::Began, Event::Wrote, Event::Lingered] {
        assert_eq!(step(&mut run, event), (vec![], answering(false, Answer::Writing)));
    }
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, Settle], answering(true, Answer::Whole)));
    assert_eq!(run.view(), View::Wait);
    assert_eq!(step(&mut run, settled()), (vec![Save, Record], State::Delivered));
}

#[test]
fn an_owners_test_is_asked_and_shown_without_any_payment() {
    let mut run = Run::new(Policy::Free, 3);
    assert_eq!(step(&mut run, Event::Presented), (vec![Clear, Save, Ask], State::Verified));
    assert_eq!(step(&mut run, Event::Began), (vec![Save], State::Streaming));
    assert_eq!(run.view(), View::Show);
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, Record], State::Delivered));
    assert_eq!(run.receipt(), None);
}

#[test]
fn a_stream_that_ends_before_its_settlement_is_delivered_when_it_is_settled() {
    let mut run = after(Policy::OnStart, &to_settling());
    assert_eq!(step(&mut run, Event::Ended), (vec![Save], answering(true, Answer::Whole)));
    assert_eq!(run.view(), View::Wait);
    assert_eq!(step(&mut run, settled()), (vec![Save, Record], State::Delivered));
}

#[test]
fn a_stream_that_ends_without_a_word_is_settled_at_its_end() {
    let mut run = after(Policy::OnStart, &[Event::Presented, Event::Verified, Event::Began]);
    assert_eq!(step(&mut run, Event::Ended), (vec![Save, Settle], answering(true, Answer::Whole)));
}

#[test]
fn a_payment_that_does_not_verify_is_refused_and_may_come_again() {
    let mut run = after(Policy::OnStart, &[Event::Presented]);
    let refusal = Refusal::PaymentInvalid { reason: None };
    assert_eq!(step(&mut run, Event::VerifyRefused(refusal.clone())), (vec![Save], State::Refused(refusal.clone())));
    assert_eq!((run.view(), run.is_blank()), (View::Refuse(refusal), true));
    assert_eq!(step(&mut run, Event::Presented).0, [Clear, Save, Verify]);
}

#[test]
fn a_failure_before_the_settlement_costs_nothing_and_the_same_payment_may_try_again() {
    for policy in [Policy::OnStart, Policy::OnResult] {
        for events in [&[Event::Presented, Event::Verified][..], &[Event::Presented, Event::Verified, Event::Began]] {
            let mut run = after(policy, events);
            assert_eq!(step(&mut run, broke(true)), (vec![Save, Record], State::Failed(CUT)));
            assert_eq!(run.view(), View::Refuse(Refusal::Claude(CUT)));
            assert!(run.is_blank() && run.receipt().is_none());
            assert_eq!(step(&mut run, Event::Presented).0, [Clear, Save, Verify]);
        }
    }
}

#[test]
fn a_settlement_not_yet_asked_for_is_withheld_when_the_answer_has_broken_off() {
    let mut run = after(Policy::OnStart, &to_settling());
    assert!(!run.should_withhold());
    assert_eq!(step(&mut run, broke(false)).1, answering(true, Answer::Broken(CUT)));
    assert!(run.should_withhold());
    assert_eq!(step(&mut run, Event::SettleWithheld), (vec![Save, Record], State::Failed(CUT)));
}

#[test]
fn a_settlement_that_may_have_moved_the_money_is_never_withheld() {
    let events = [&to_settling()[..], &[Event::SettleUnanswered, broke(true), Event::Presented]].concat();
    let mut run = after(Policy::OnStart, &events);
    assert_eq!(run.state(), &answering(true, Answer::Broken(CUT)));
    assert!(!run.should_withhold());
    assert_eq!(step(&mut run, Event::SettleWithheld), (vec![], answering(true, Answer::Broken(CUT))));
}

#[test]
fn a_rejected_settlement_stops_claude_and_shows_nothing() {
    let mut run = after(Policy::OnStart, &to_settling());
    let refusal = Refusal::SettlementRejected { reason: Some("insufficient_funds".to_owned()) };
    assert_eq!(step(&mut run, rejected()), (vec![Hush, Save, Record], State::Refused(refusal.clone())));
    assert_eq!(run.view(), View::Refuse(refusal));
    assert_eq!(step(&mut run, Event::Ended).0, [], "what Claude still says goes nowhere");
}

#[test]
fn an_unanswered_settlement_is_asked_again_by_the_same_payment_and_a_no_is_then_not_believed() {
    let mut run = after(Policy::OnStart, &to_settling());
    let unknown = |answer| State::SettlementUnknown { answer };
    assert_eq!(step(&mut run, Event::SettleUnanswered), (vec![Save, Record], unknown(Answer::Writing)));
    assert_eq!(run.view(), View::Refuse(Refusal::SettlementUnknown));
    assert!(run.is_busy() && !run.is_blank());
    assert_eq!(step(&mut run, Event::Ended), (vec![Save], unknown(Answer::Whole)));
    assert_eq!(step(&mut run, Event::Presented), (vec![Save, Settle], answering(true, Answer::Whole)));
    assert_eq!(step(&mut run, rejected()), (vec![Save, Record], unknown(Answer::Whole)));
    assert_eq!(step(&mut run, Event::Presented).0, [Save, Settle]);
    assert_eq!(step(&mut run, settled()), (vec![Save, Record], State::Delivered));
}

#[test]
fn an_answer_that_broke_off_before_its_settlement_is_written_anew_once_settled() {
    let mut run = after(Policy::OnStart, &to_settling());
    assert_eq!(step(&mut run, broke(false)).0, [Save]);
    assert_eq!(step(&mut run, settled()), (vec![Clear, Save, Ask], State::Streaming));
    assert_eq!(step(&mut run, Event::Began).0, []);
    assert_eq!(step(&mut run, Event::Ended).1, State::Delivered);
}

#[test]
fn a_paid_answer_that_breaks_off_unseen_is_asked_again_as_often_as_allowed_and_then_refundable() {
    let mut run = streaming();
    assert_eq!(step(&mut run, broke(true)), (vec![Clear, Save, Ask], State::Streaming), "the second call");
    assert_eq!(step(&mut run, broke(true)), (vec![Clear, Save, BackOff], State::Streaming), "the third waits");
    assert_eq!(run.back_off(), 2_000);
    assert_eq!(step(&mut run, Event::BackedOff).0, [Ask]);
    assert_eq!(step(&mut run, Event::BackedOff).0, [], "once");
    assert_eq!(step(&mut run, broke(true)), (vec![Save, Record], State::Refundable(CUT)));
    assert_eq!(run.view(), View::Refuse(Refusal::Refundable));
    assert_eq!(step(&mut run, Event::Presented).0, [], "final");
    assert!(run.receipt().is_some());
}

#[test]
fn a_paid_answer_that_breaks_off_in_sight_is_interrupted_and_the_same_payment_gets_it_again() {
    let mut run = streaming();
    assert_eq!(step(&mut run, broke(false)), (vec![Save, Record], State::Interrupted(CUT)));
    assert_eq!((run.view(), run.ending()), (View::Show, Some(Ending::Error(Refusal::Claude(CUT)))));
    assert_eq!(step(&mut run, Event::Presented), (vec![Clear, Save, Ask], State::Streaming));
    assert_eq!(step(&mut run, broke(false)).1, State::Interrupted(CUT));
    assert_eq!(step(&mut run, Event::Presented).0, [Clear, Save, Ask]);
    assert_eq!(step(&mut run, broke(false)).1, State::Refundable(CUT), "after the third call");
}

#[test]
fn a_paid_answer_that_claude_declines_is_not_asked_again() {
    for silent in [true, false] {
        let mut run = streaming();
        let declined = Event::Broke { fault: ClaudeFault::Declined, silent };
        assert_eq!(step(&mut run, declined).1, State::Refundable(ClaudeFault::Declined));
    }
}

#[test]
fn an_owners_test_that_breaks_off_has_failed_and_is_not_asked_again() {
    for silent in [true, false] {
        let mut run = after(Policy::Free, &[Event::Presented, Event::Began]);
        assert_eq!(step(&mut run, broke(silent)), (vec![Save, Record], State::Failed(CUT)));
    }
}

/// One run in each state, reached as it is reached.
fn one_of_each() -> Vec<Run> {
    let on = |policy, more: &[Event]| after(policy, &[&[Event::Presented, Event::Verified][..], more].concat());
    let settling = |more: &[Event]| after(Policy::OnStart, &[&to_settling()[..], more].concat());
    vec![
        Run::new(Policy::OnStart, 3),
        after(Policy::OnStart, &[Event::Presented]),
        on(Policy::OnStart, &[]),
        on(Policy::OnStart, &[Event::Began]),
        on(Policy::OnResult, &[Event::Began]),
        settling(&[]),
        settling(&[Event::Ended]),
        settling(&[broke(true)]),
        settling(&[settled()]),
        settling(&[settled(), Event::Ended]),
        settling(&[rejected()]),
        on(Policy::OnStart, &[broke(true)]),
        settling(&[Event::SettleUnanswered]),
        settling(&[Event::Ended, Event::SettleUnanswered]),
        settling(&[settled(), broke(false)]),
        settling(&[settled(), Event::Broke { fault: ClaudeFault::Declined, silent: true }]),
        after(Policy::Free, &[Event::Presented, Event::Began]),
    ]
}

#[test]
fn presenting_again_does_something_only_where_something_is_to_be_done() {
    for run in one_of_each() {
        let mut again = run.clone();
        let effects = again.handle(Event::Presented, NOW);
        let expected: &[Effect] = match run.state() {
            State::New | State::Refused(_) | State::Failed(_) => &[Clear, Save, Verify],
            State::SettlementUnknown { .. } => &[Save, Settle],
            State::Interrupted(_) => &[Clear, Save, Ask],
            _ => &[],
        };
        assert_eq!(effects, expected, "{:?}", run.state());
        if expected.is_empty() {
            assert_eq!(again, run);
        }
    }
}

#[test]
fn an_event_that_comes_late_twice_or_out_of_place_changes_nothing() {
    for run in one_of_each() {
        let expected: Vec<Event> = match run.state() {
            State::Presented => vec![Event::Verified, Event::VerifyRefused(Refusal::Internal)],
            State::Verified => vec![Event::Began, broke(true)],
            State::Answering { settling: false, .. } => vec![Event::Wrote, Event::Lingered, Event::Ended, broke(true)],
            State::Answering { settling: true, .. } => {
                vec![Event::Ended, broke(true), settled(), rejected(), Event::SettleUnanswered, Event::SettleWithheld]
            }
            State::Streaming => vec![Event::Ended, broke(true)],
            State::SettlementUnknown { .. } => vec![Event::Ended, broke(true)],
            _ => vec![],
        };
        for event in [
            Event::Verified,
            Event::VerifyRefused(Refusal::Internal),
            Event::Began,
            Event::Wrote,
            Event::Lingered,
            Event::Ended,
            broke(true),
            settled(),
            rejected(),
            Event::SettleUnanswered,
            Event::SettleWithheld,
        ] {
            if expected.contains(&event) {
                continue;
            }
            let mut late = run.clone();
            assert_eq!(late.handle(event.clone(), NOW + 1), [], "{event:?} in {:?}", run.state());
            assert_eq!(late, run, "{event:?}");
        }
    }
}

#[test]
fn a_restart_finds_each_state_and_goes_on_from_there() {
    let lost = || Answer::Broken(CUT);
    for run in one_of_each() {
        let mut restarted = run.clone();
        let (effects, state) = step(&mut restarted, Event::Restarted);
        let expected = match run.state() {
            State::Presented => (vec![Save], State::New),
            State::Verified | State::Answering { settling: false, .. } => (vec![Save, Record], State::Failed(CUT)),
            State::Answering { settling: true, answer: Answer::Writing } => {
                (vec![Save, Record], State::SettlementUnknown { answer: lost() })
            }
            State::Answering { settling: true, answer } => {
                (vec![Save, Record], State::SettlementUnknown { answer: answer.clone() })
            }
            State::SettlementUnknown { answer: Answer::Writing } => {
                (vec![], State::SettlementUnknown { answer: lost() })
            }
            State::Streaming if run.policy() == Policy::Free => (vec![Save, Record], State::Failed(CUT)),
            State::Streaming => (vec![Clear, Save, Ask], State::Streaming),
            resting => (vec![], resting.clone()),
        };
        assert_eq!((effects, state), expected, "{:?}", run.state());
    }
}

#[test]
fn a_row_is_owed_until_it_is_recorded_and_the_alarm_asks_for_it() {
    let mut run = after(Policy::OnStart, &[&to_settling()[..], &[settled(), Event::Ended]].concat());
    assert_eq!(run.deadline(NOW), Some(NOW + RECORD_AGAIN));
    assert_eq!(step(&mut run, Event::Woken).0, [Record]);
    assert!(!run.is_forgotten(NOW + 2 * KEEP), "not before it is recorded");
    assert_eq!(step(&mut run, Event::Recorded).0, [Save]);
    assert_eq!(step(&mut run, Event::Woken).0, []);
    assert_eq!(run.deadline(NOW), Some(NOW + KEEP));
    assert!(!run.is_forgotten(NOW + KEEP - 1) && run.is_forgotten(NOW + KEEP));
}

#[test]
fn a_busy_run_is_woken_to_be_joined_and_a_blank_one_not_at_all() {
    assert_eq!(Run::new(Policy::OnStart, 3).deadline(NOW), None);
    for run in one_of_each().into_iter().filter(Run::is_busy) {
        assert_eq!(run.deadline(NOW), Some(NOW + HEARTBEAT));
        assert_eq!(run.clone().handle(Event::Woken, NOW), []);
        assert!(!run.is_forgotten(NOW + 2 * KEEP));
    }
}

#[test]
fn a_run_comes_back_from_its_stored_form() {
    for run in one_of_each() {
        let stored = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&stored).unwrap(), run);
    }
}

// Every order of events. The world around the machine: what is queued, what is under way, what is
// stored, and what is true whether or not the machine knows.

/// How far Claude's current answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Asked {
    No,
    Waiting,
    Begun,
    Wrote,
}

#[derive(Clone, Debug)]
struct World {
    run: Run,
    /// As [`Effect::Save`] left it, with what was known then.
    stored: (Run, Known),
    todo: VecDeque<Effect>,
    verifying: bool,
    asked: Asked,
    lingering: bool,
    backing_off: bool,
    settling: bool,
    recording: bool,
    /// The money is gone from the payer's wallet.
    moved: bool,
    /// A settlement may have been asked for without its answer having been heard.
    ambiguous: bool,
    known: Known,
}

/// What has been heard since the run last began from nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The facilitator has answered for certain.
    definite: bool,
    /// Claude has begun.
    begun: bool,
    /// Claude has ended.
    ended: bool,
}

impl World {
    fn new(policy: Policy) -> Self {
        let run = Run::new(policy, 2);
        World {
            stored: (run.clone(), Known::default()),
            run,
            todo: VecDeque::new(),
            verifying: false,
            asked: Asked::No,
            lingering: false,
            backing_off: false,
            settling: false,
            recording: false,
            moved: false,
            ambiguous: false,
            known: Known::default(),
        }
    }

    /// The driver queues what the machine wants.
    fn tell(mut self, event: Event) -> Self {
        let effects = self.run.handle(event, NOW);
        self.todo.extend(effects);
        self
    }

    /// Everything that can happen next.
    fn successors(&self) -> Vec<World> {
        let mut next = vec![self.presented(), self.clone().tell(Event::Woken)];
        next.extend(self.crashes());
        if let Some(worlds) = self.effect() {
            next.extend(worlds);
        }
        if self.verifying {
            let done = World { verifying: false, ..self.clone() };
            next.push(done.clone().tell(Event::Verified));
            next.push(done.tell(Event::VerifyRefused(Refusal::FacilitatorUnavailable)));
        }
        next.extend(self.claude());
        if self.lingering {
            next.push(World { lingering: false, ..self.clone() }.tell(Event::Lingered));
        }
        if self.backing_off {
            next.push(World { backing_off: false, ..self.clone() }.tell(Event::BackedOff));
        }
        next.extend(self.facilitator());
        if self.recording {
            let done = World { recording: false, ..self.clone() };
            next.push(done.clone());
            next.push(done.tell(Event::Recorded));
        }
        next
    }

    fn presented(&self) -> World {
        let mut world = self.clone();
        if world.run.is_blank() {
            world.known = Known::default();
        }
        world.tell(Event::Presented)
    }

    /// The object dies: memory is gone, what was under way is not any more, what is stored is found.
    fn crashes(&self) -> Vec<World> {
        let (run, known) = self.stored.clone();
        let found = World {
            // Who finds "settling" stored cannot know whether it was asked for.
            ambiguous: self.ambiguous || matches!(run.state(), State::Answering { settling: true, .. }),
            moved: self.moved,
            stored: self.stored.clone(),
            run,
            known,
            ..World::new(self.run.policy())
        };
        // The driver tells only a busy run of it; the machine must bear it in any state.
        let told = found.clone().tell(Event::Restarted);
        if found.run.is_busy() {
            vec![told]
        } else {
            vec![found, told]
        }
    }

    /// The driver does the next effect.
    fn effect(&self) -> Option<Vec<World>> {
        let mut world = self.clone();
        let effect = world.todo.pop_front()?;
        match effect {
            Clear => world.lingering = false,
            Save => world.stored = (world.run.clone(), world.known),
            Verify => {
                assert!(!world.verifying, "verify is asked twice at a time");
                world.verifying = true;
            }
            Ask => {
                assert_eq!(world.asked, Asked::No, "two calls of Claude at a time");
                world.asked = Asked::Waiting;
            }
            Linger => world.lingering = true,
            BackOff => world.backing_off = true,
            Settle if world.run.should_withhold() => world = world.tell(Event::SettleWithheld),
            Settle => return Some(world.settle()),
            Hush => world.asked = Asked::No,
            Record => world.recording = true,
        }
        Some(vec![world])
    }

    fn settle(mut self) -> Vec<World> {
        assert!(!self.settling, "settle is asked twice at a time");
        assert!(!self.known.definite, "settle is asked again after a definite answer");
        assert!(!self.stored.0.is_blank(), "settle is asked before anything of it is stored");
        match self.run.policy() {
            Policy::Free => panic!("an owner's test is settled"),
            Policy::OnStart => assert!(self.known.begun, "settle is asked before Claude has begun"),
            Policy::OnResult => assert!(self.known.ended, "settle is asked before the result is whole"),
        }
        self.settling = true;
        vec![World { moved: true, ..self.clone() }, self]
    }

    /// What Claude can say now.
    fn claude(&self) -> Vec<World> {
        let becomes = |asked| World { asked, ..self.clone() };
        let mut next = Vec::new();
        match self.asked {
            Asked::No => return next,
            Asked::Waiting => next
                .push(World { known: Known { begun: true, ..self.known }, ..becomes(Asked::Begun) }.tell(Event::Began)),
            Asked::Begun | Asked::Wrote => {
                next.push(
                    World { known: Known { ended: true, ..self.known }, ..becomes(Asked::No) }.tell(Event::Ended),
                );
                let first = self.asked == Asked::Begun;
                let declined = Event::Broke { fault: ClaudeFault::Declined, silent: first };
                next.push(becomes(Asked::No).tell(declined));
                if first {
                    next.push(becomes(Asked::Wrote).tell(Event::Wrote));
                }
            }
        }
        next.push(becomes(Asked::No).tell(broke(self.asked != Asked::Wrote)));
        next
    }

    /// What the facilitator can say now, without lying: a no is definite only where nothing was in doubt.
    fn facilitator(&self) -> Vec<World> {
        if !self.settling {
            return vec![];
        }
        let done = World { settling: false, ..self.clone() };
        let mut next = vec![World { ambiguous: true, ..done.clone() }.tell(Event::SettleUnanswered)];
        if self.moved {
            next.push(World { known: Known { definite: true, ..self.known }, ..done.clone() }.tell(settled()));
        }
        if !self.moved || self.ambiguous {
            next.push(World { known: Known { definite: !self.ambiguous, ..self.known }, ..done }.tell(rejected()));
        }
        next
    }

    fn check(&self) {
        let paid = self.run.policy() != Policy::Free;
        let has_receipt = self.run.receipt().is_some();
        if paid && self.run.view() == View::Show {
            assert!(has_receipt, "shown before it is settled");
        }
        assert!(!has_receipt || self.moved, "a receipt for money that has not moved");
        assert!(!(has_receipt && self.run.is_blank()), "a blank run holds a receipt");
        if self.moved {
            assert!(!self.run.is_blank(), "the money has moved and the run says that nothing has happened");
            assert!(!self.stored.0.is_blank(), "the money has moved and nothing of it is stored");
        }
        if self.todo.is_empty() {
            self.check_settled_down();
        }
    }

    /// With nothing left to do, whatever the run waits for is under way, and nothing else is.
    fn check_settled_down(&self) {
        let asked = self.asked != Asked::No;
        let (verifying, asking, settling) = match self.run.state() {
            State::Presented => (true, false, false),
            State::Verified | State::Streaming | State::Answering { settling: false, .. } => (false, true, false),
            State::Answering { settling: true, answer } => (false, *answer == Answer::Writing, true),
            State::SettlementUnknown { answer } => (false, *answer == Answer::Writing, false),
            _ => (false, false, false),
        };
        assert_eq!(
            (self.verifying, asked, self.settling),
            (verifying, asking, settling),
            "something hangs, or is lost"
        );
        assert_eq!(self.run.is_busy(), verifying || asking || settling);
        let durable = |run: &Run| (run.state().clone(), run.receipt().cloned());
        if !self.run.is_busy() && !matches!(self.run.state(), State::SettlementUnknown { .. }) {
            assert_eq!(durable(&self.stored.0), durable(&self.run), "a run at rest is stored");
        }
    }
}

/// The state's name, without what it carries.
fn name(state: &State) -> String {
    let debug = format!("{state:?}");
    debug.split([' ', '(']).next().unwrap().to_owned()
}

/// Visits every world that can be reached; gives back how many, and which states the run was in.
fn explore(policy: Policy) -> (usize, BTreeSet<String>) {
    // Each world with the one it came from: a broken promise is told with its story.
    let mut worlds = vec![(World::new(policy), 0)];
    let mut seen: HashSet<String> = HashSet::new();
    let mut names = BTreeSet::new();
    let mut at = 0;
    while at < worlds.len() {
        let world = worlds[at].0.clone();
        names.insert(name(world.run.state()));
        let looked = catch_unwind(AssertUnwindSafe(|| {
            world.check();
            world.successors()
        }));
        let Ok(successors) = looked else {
            panic!("a promise is broken (see above) in:\n{}", story(&worlds, at));
        };
        for successor in successors.into_iter().filter(|w| w.todo.len() <= QUEUE) {
            if seen.insert(format!("{successor:?}")) {
                worlds.push((successor, at));
            }
        }
        at += 1;
        assert!(at < 1_000_000, "the exploration does not close");
    }
    println!("{policy:?}: {} worlds, all explored", worlds.len());
    (worlds.len(), names)
}

/// How a world came about, one line a world.
fn story(worlds: &[(World, usize)], mut at: usize) -> String {
    let mut lines = Vec::new();
    loop {
        let (w, from) = &worlds[at];
        lines.push(format!(
            "{:?} {:?} asked {:?} settling {} known {:?} todo {:?}",
            w.run.state(),
            w.run.receipt().is_some(),
            w.asked,
            w.settling,
            w.known,
            w.todo
        ));
        if at == 0 {
            lines.reverse();
            return lines.join("\n");
        }
        at = *from;
    }
}

/// More effects than this never wait at a time: the driver does them before it waits for anything.
const QUEUE: usize = 6;

#[test]
fn every_order_of_events_keeps_the_promises_of_a_stream() {
    let (worlds, names) = explore(Policy::OnStart);
    assert!(worlds > 1000);
    let all = [
        "Answering",
        "Delivered",
        "Failed",
        "Interrupted",
        "New",
        "Presented",
        "Refundable",
        "Refused",
        "SettlementUnknown",
        "Streaming",
        "Verified",
    ];
    assert_eq!(names, all.map(str::to_owned).into(), "every state but Refunded, which nothing reports yet");
}

#[test]
fn every_order_of_events_keeps_the_promises_of_a_document() {
    let (worlds, names) = explore(Policy::OnResult);
    assert!(worlds > 1000);
    assert!(names.contains("Delivered") && names.contains("SettlementUnknown"));
}

#[test]
fn every_order_of_events_keeps_the_promises_of_an_owners_test() {
    let (worlds, names) = explore(Policy::Free);
    assert!(worlds > 100);
    let all = ["Delivered", "Failed", "New", "Streaming", "Verified"];
    assert_eq!(names, all.map(str::to_owned).into());
}

/// The exploration can fail: a world that breaks a promise is told.
#[test]
fn the_exploration_would_notice_a_broken_promise() {
    let noticed = |world: World| catch_unwind(move || world.check()).is_err();
    let base = World {
        run: streaming(),
        stored: (streaming(), Known::default()),
        asked: Asked::Wrote,
        moved: true,
        ..World::new(Policy::OnStart)
    };
    assert!(!noticed(base.clone()));
    assert!(noticed(World { moved: false, ..base.clone() }));
    assert!(noticed(World { asked: Asked::No, ..base.clone() }));
    assert!(noticed(World { run: Run::new(Policy::OnStart, 2), ..base.clone() }));
    assert!(noticed(World { stored: (Run::new(Policy::OnStart, 2), Known::default()), ..base }));
}
