//! Two payments of one wallet, as a model for stateright. A crash hits both runs at once.

use crate::lane::promises;
use crate::wallet::*;
use crate::world::{Action, Asked, Keeps, World};
use coinslot::testing::rules::admission::Admission;
use coinslot::testing::rules::run::{State, View};
use stateright::{Model, Property};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PairAction {
    /// Whatever can happen to the run of one lane.
    Lane(usize, Action),
    /// A payment is presented.
    Present(usize),
    /// The object decides again about a request that waits.
    Retry(usize),
    /// A caller of a lane's run disconnects who has come with the run's own payment.
    Leave(usize),
    /// A caller of a lane's run disconnects who has come with the other payment.
    GuestLeaves(usize),
    Crash,
}

impl Model for Pair {
    type State = PairWorld;
    type Action = PairAction;

    fn init_states(&self) -> Vec<PairWorld> {
        let lane = |n: usize| Arc::new(self.lanes[n].init_states().remove(0));
        vec![PairWorld {
            lanes: [lane(0), lane(1)],
            guests: [0; 2],
            waiting: [0; 2],
            numbers: [0; 2],
            stored_numbers: [0; 2],
            key_row: None,
            counted: 0,
            in_vain: 0,
            broken: None,
        }]
    }

    fn actions(&self, w: &PairWorld, actions: &mut Vec<PairAction>) {
        if w.is_broken() {
            return;
        }
        let is_pending = w.is_pending();
        for (n, lane) in w.lanes.iter().enumerate() {
            let mut of_lane = Vec::new();
            self.lanes[n].actions(lane, &mut of_lane);
            for action in of_lane {
                match action {
                    Action::Present | Action::Leave | Action::Crash => {}
                    Action::Do(_) => actions.push(PairAction::Lane(n, action)),
                    _ if !is_pending => actions.push(PairAction::Lane(n, action)),
                    _ => {}
                }
            }
            if !is_pending && lane.may_be_presented() {
                actions.push(PairAction::Present(n));
            }
            // A request that waits is woken by the same event as the driver, and may come first.
            if w.waiting[n] > 0 && lane.todo.is_empty() && !matches!(self.decide(w, n).0, Admission::Wait(_)) {
                actions.push(PairAction::Retry(n));
            }
            if !is_pending && lane.callers > w.guests[n] {
                actions.push(PairAction::Leave(n));
            }
            if !is_pending && w.guests[n] > 0 {
                actions.push(PairAction::GuestLeaves(n));
            }
        }
        let exists = |lane: &Arc<World>| *lane.run.state() != State::New;
        if w.lanes[0].left.crashes > 0 && w.lanes.iter().any(exists) {
            actions.push(PairAction::Crash);
        }
    }

    fn next_state(&self, w: &PairWorld, action: PairAction) -> Option<PairWorld> {
        let mut next = w.clone();
        match action {
            PairAction::Lane(n, action) => {
                let after = self.lanes[n].next_state(&w.lanes[n], action)?;
                next.lanes[n] = Arc::new(after);
                self.keep(&mut next, n, &w.lanes[n]);
                let has_failed = |lane: &World| matches!(lane.run.state(), State::Failed(_));
                let fails = has_failed(&next.lanes[n]) && !has_failed(&w.lanes[n]);
                if fails && self.is(WalletFault::FailureStopsTheOtherRun) {
                    Arc::make_mut(&mut next.lanes[1 - n]).asked = Asked::No;
                }
                next.breaks(ISOLATED, next.lanes[1 - n] != w.lanes[1 - n]);
            }
            PairAction::Present(n) => {
                Arc::make_mut(&mut next.lanes[n]).left.presentations -= 1;
                self.act(&mut next, n);
            }
            PairAction::Retry(n) => {
                next.waiting[n] -= 1;
                self.act(&mut next, n);
            }
            PairAction::Leave(n) => self.leave(&mut next, n),
            PairAction::GuestLeaves(n) => {
                next.guests[n] -= 1;
                self.leave(&mut next, n);
            }
            PairAction::Crash => self.crash(&mut next),
        }
        next.tell_callers_of_what_has_ended();
        next.renumber();
        self.check(&mut next);
        (next != *w).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! kept {
            ($($promise:ident),*) => {
                [$(Property::<Self>::always($promise, |_, w: &PairWorld| w.keeps($promise))),*]
            };
        }
        let mut properties = promises::<Self>();
        properties.extend(kept![
            ONE_CHARGE,
            KEY_VERIFIED,
            SAME_REQUEST,
            WITHIN_CAP,
            WITHIN_DAY,
            COUNTED,
            NOT_STOPPED,
            ISOLATED
        ]);
        properties.push(Property::eventually("every story comes to an end", |m: &Pair, w: &PairWorld| {
            let mut actions = Vec::new();
            m.actions(w, &mut actions);
            let is_over = || w.waiting == [0; 2] && (0..2).all(|n| w.lanes[n].is_over(&m.lanes[n]));
            actions.is_empty() && (w.is_broken() || is_over())
        }));
        let cap = self.limits.unpaid_per_wallet;
        match self.keys {
            Keys::Same => properties.extend([
                Property::sometimes("a payment joins the run that the other has bought", |_, w: &PairWorld| {
                    w.guests.iter().any(|guests| *guests > 0)
                }),
                Property::sometimes("a request waits until the other payment is verified", |_, w: &PairWorld| {
                    w.waiting.iter().any(|waiting| *waiting > 0)
                }),
                Property::sometimes("a key buys another run after its first came to nothing", |_, w: &PairWorld| {
                    let [first, second] = &w.lanes;
                    first.has_come_to_nothing() && first.is_stored && *second.run.state() == State::Delivered
                }),
                Property::sometimes("a caller is shown what the other payment has bought", |_, w: &PairWorld| {
                    (0..2).any(|n| w.guests[n] > 0 && w.lanes[n].run.view() == View::Show)
                }),
            ]),
            Keys::OtherRequest => {
                properties
                    .push(Property::sometimes("a key is refused to another request", |m: &Pair, w: &PairWorld| {
                        m.is_turned_away(w) && *w.lanes[0].run.state() == State::Delivered
                    }));
            }
            Keys::None if cap == 1 => {
                properties.push(Property::sometimes("a payment is refused while the other is not settled", |m, w| {
                    m.is_turned_away(w) && w.unsettled() == 1
                }));
                properties.push(Property::sometimes("a payment is refused for the day", |m: &Pair, w: &PairWorld| {
                    m.is_turned_away(w) && u32::from(w.counted) >= m.limits.unpaid_per_wallet_day
                }));
            }
            Keys::None => {
                properties.push(Property::sometimes("two runs are under way at once", |_, w: &PairWorld| {
                    w.lanes.iter().all(|lane| lane.run.is_busy())
                }));
                properties.push(Property::sometimes("two runs are delivered", |_, w: &PairWorld| {
                    w.lanes.iter().all(|lane| *lane.run.state() == State::Delivered)
                }));
            }
        }
        properties
    }
}
