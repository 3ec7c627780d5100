//! Everything that can happen to one run, as a model for stateright: which actions there are in a world, what each makes
//! of it, and which promises hold in all of them.

use crate::faults::Seeded;
use crate::world::*;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{Effect, Event, Evidence, Policy, Release, Run, State, Terms, View};
use stateright::{Model, Property};

/// What the explored worlds have in common.
#[derive(Clone, Debug)]
pub struct Lane {
    pub policy: Policy,
    pub release: Release,
    /// Whether there is a node of the chain to ask.
    pub node: bool,
    /// A contract's: it goes on without callers, and is due at some time.
    pub contract: bool,
    pub seeded: Option<Seeded>,
    pub most: Budget,
}

impl Lane {
    pub fn new(policy: Policy) -> Self {
        Lane {
            policy,
            release: Release::Settled,
            node: true,
            contract: false,
            seeded: None,
            most: Budget {
                presentations: 2,
                crashes: 1,
                losses: 1,
                claude_faults: 2,
                doubles: 1,
                cancels: 1,
                alarms: 1,
                deadlines: 0,
            },
        }
    }

    pub fn is_paid_for(&self) -> bool {
        self.policy != Policy::Free
    }
}

impl Model for Lane {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let run = Run::new(Terms {
            policy: self.policy,
            release: self.release,
            start_attempts: 2,
            paid_attempts: 2,
            valid_until: NOW * 10,
            detached: self.contract,
            due_by: self.contract.then_some(NOW * 5),
            kept_until: None,
        });
        vec![World::new(run, self.most)]
    }

    fn actions(&self, w: &World, actions: &mut Vec<Action>) {
        if w.broken.is_some() {
            return;
        }
        let lossy = w.left.losses > 0;
        // The driver does what is queued before it waits; only a crash comes in between.
        if w.left.crashes > 0 && w.run.state() != &State::New {
            actions.push(Action::Crash);
        }
        if let Some(effect) = w.todo.first() {
            let outcomes: &[Settling] = match (effect, w.money) {
                (Effect::Settle, _) if w.run.should_withhold() => &[Settling::No],
                // Some facilitators answer again what they have answered before.
                (Effect::Settle, Money::Moved) if lossy => &[Settling::Silent, Settling::Spent, Settling::Submitted],
                (Effect::Settle, Money::Moved) => &[Settling::Spent, Settling::Submitted],
                (Effect::Settle, Money::SpentOtherwise) if lossy => &[Settling::Silent, Settling::Spent],
                (Effect::Settle, Money::SpentOtherwise) => &[Settling::Spent],
                (Effect::Settle, _) if w.expired && lossy => &[Settling::Silent, Settling::Refused],
                (Effect::Settle, _) if w.expired => &[Settling::Refused],
                (Effect::Settle, _) if lossy => {
                    &[Settling::Silent, Settling::NotSent, Settling::Submitted, Settling::Refused]
                }
                (Effect::Settle, _) => &[Settling::Submitted, Settling::Refused],
                _ => &[Settling::No],
            };
            actions.extend(outcomes.iter().map(|o| Action::Do(*o)));
            return;
        }
        if w.callers < 2 && w.may_be_presented() {
            actions.push(Action::Present);
        }
        if w.callers > 0 {
            actions.push(Action::Leave);
        }
        if w.left.deadlines > 0 && w.run.is_late(NOW * 5) {
            actions.push(Action::MissDeadline);
        }
        if w.verifying {
            actions.push(Action::Hear(Event::Verified));
            actions.push(Action::Hear(Event::VerifyRefused(Refusal::PaymentInvalid { reason: None })));
            if self.contract && w.callers > 0 && !w.told {
                actions.push(Action::Hear(Event::ToldPending));
            }
        }
        self.claude(w, actions);
        if w.lingering {
            actions.push(Action::Hear(Event::GraceElapsed));
        }
        if w.backing_off {
            actions.push(Action::Hear(Event::BackOffElapsed));
        }
        match w.settling {
            Settling::No => {}
            Settling::Silent => actions.push(Action::Lose(Lost::Settle)),
            Settling::NotSent => actions.push(Action::Hear(Event::SettleNotSent)),
            Settling::Refused => actions.push(Action::Hear(Event::SettleRejected(None))),
            Settling::Spent => actions.push(Action::Hear(Event::SettleSpent)),
            Settling::Submitted => {
                match w.money {
                    Money::Moved => actions.push(Action::Hear(Event::Settled(receipt()))),
                    // The transaction failed: who cannot say why says nothing.
                    Money::SpentOtherwise | Money::WithPayer => actions.push(Action::Hear(Event::SettleFailed)),
                    Money::Pending => {}
                }
                if lossy {
                    actions.push(Action::Lose(Lost::Settle));
                }
            }
        }
        if w.looking {
            let evidence = match (w.money, self.node) {
                (Money::Moved, true) => Evidence::Paid(receipt()),
                (Money::SpentOtherwise, true) => Evidence::Never(None),
                (Money::Moved | Money::SpentOtherwise, false) => Evidence::Spent(receipt()),
                (Money::WithPayer | Money::Pending, true) if w.expired => Evidence::Never(None),
                (Money::WithPayer | Money::Pending, false) if w.expired => Evidence::Nothing,
                (Money::WithPayer | Money::Pending, _) => Evidence::Unspent,
            };
            actions.push(Action::Hear(Event::Reconciled(evidence)));
            if lossy && self.node {
                // A node that cannot say how the nonce was spent, or says nothing.
                actions.push(Action::Hear(Event::Reconciled(Evidence::Nothing)));
                // A node that is behind.
                if matches!(w.money, Money::Moved | Money::SpentOtherwise) && !w.expired {
                    actions.push(Action::Hear(Event::Reconciled(Evidence::Unspent)));
                }
            }
        }
        if w.recording.is_some() {
            actions.push(Action::Hear(Event::LedgerRowWritten));
            if lossy {
                actions.push(Action::Lose(Lost::Record));
            }
        }
        if w.reporting {
            actions.push(Action::Hear(Event::Reported));
            if lossy {
                actions.push(Action::Lose(Lost::Report));
            }
        }
        if w.is_stored && w.asked == Asked::Wrote && w.stored != (w.run.clone(), w.heard) {
            actions.push(Action::Checkpoint);
        }
        // An answer that comes twice comes before the next question.
        if w.left.doubles > 0 && w.last.is_some() {
            actions.push(Action::Again);
        }
        if w.money == Money::Pending && !w.expired {
            actions.push(Action::Mine);
        }
        let spendable = matches!(w.money, Money::WithPayer | Money::Pending);
        if w.left.cancels > 0 && spendable && !w.expired && w.heard.verified {
            actions.push(Action::Cancel);
        }
        // The clock runs on when nothing else does, or with a settlement in doubt.
        if !w.expired && w.run.is_settling() && w.settling == Settling::No {
            actions.push(Action::Expire);
        }
        let in_doubt = matches!(w.run.state(), State::SettlementUnknown { .. });
        if w.needs_alarm(self) && (w.left.alarms > 0 || !in_doubt || w.expired) {
            actions.push(Action::Alarm);
        }
    }

    fn next_state(&self, w: &World, action: Action) -> Option<World> {
        let mut next = w.clone();
        let mut world = match action {
            Action::Present => {
                next.left.presentations -= 1;
                next.present(self)
            }
            Action::Leave => next.leave(self),
            Action::MissDeadline => {
                next.left.deadlines -= 1;
                next.late = true;
                // The machine is told when anything else happens, or when the alarm fires for it.
                next.tell(self, Event::AlarmFired, NOW)
            }
            Action::Crash => w.crash(self),
            Action::Do(settling) => {
                if matches!(settling, Settling::Silent | Settling::NotSent) {
                    next.left.losses -= 1;
                }
                next.effect(self, settling)
            }
            Action::Hear(event) => self.hear(next, event),
            Action::Lose(lost) => self.lose(next, lost),
            Action::Again => {
                next.left.doubles -= 1;
                let event = next.last.take()?;
                next.tell(self, event, NOW)
            }
            Action::Checkpoint => World { stored: (next.run.clone(), next.heard), ..next },
            Action::Mine => World { money: Money::Moved, ..next },
            Action::Cancel => {
                next.left.cancels -= 1;
                World { money: Money::SpentOtherwise, ..next }
            }
            Action::Expire => {
                next.expired = true;
                // Time for as many alarms again.
                next.left.alarms = next.left.alarms.max(self.most.alarms);
                if next.money == Money::Pending {
                    next.money = Money::WithPayer;
                }
                next
            }
            Action::Alarm => {
                if matches!(next.run.state(), State::SettlementUnknown { .. }) {
                    next.left.alarms = next.left.alarms.saturating_sub(1);
                }
                // It also fires to keep the object alive, until it is time.
                let woken = |mut world: World, _| {
                    let now = world.run.deadline(world.now).unwrap_or(world.now);
                    world.now = now;
                    if world.todo.is_empty() && world.run.state() == w.run.state() {
                        world = world.tell(self, Event::AlarmFired, now);
                    }
                    world
                };
                let mut woken = (0..5).fold(World { now: NOW, ..next }, woken);
                woken.breaks(ALARMS, woken.todo.iter().all(|effect| *effect == Effect::Save));
                World { now: NOW, ..woken }
            }
        };
        self.check(&mut world);
        (world != *w).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = promises::<Self>();
        properties.push(Property::eventually("every story comes to an end", |m: &Lane, w: &World| {
            let mut actions = Vec::new();
            m.actions(w, &mut actions);
            actions.is_empty() && (w.broken.is_some() || w.is_over(m))
        }));
        properties.push(Property::sometimes("a run is delivered", |_, w: &World| w.run.state() == &State::Delivered));
        properties.push(Property::sometimes("a run fails and costs nothing", |_, w: &World| {
            matches!(w.run.state(), State::Failed(_)) && w.money == Money::WithPayer
        }));
        if self.policy == Policy::OnStart {
            properties.push(Property::sometimes("a refund is reported", |_, w: &World| {
                matches!(w.run.state(), State::Reported(_))
            }));
            properties.push(Property::sometimes("a run goes on though its callers have gone", |_, w: &World| {
                w.callers == 0 && w.run.state() == &State::Streaming
            }));
        }
        if self.is_paid_for() && self.most.losses > 0 {
            properties.push(Property::sometimes("a lost settlement is found again and delivered", |_, w: &World| {
                w.ambiguous && w.run.state() == &State::Delivered
            }));
        }
        if self.is_paid_for() && self.most.crashes > 0 {
            properties.push(Property::sometimes("a paid run survives a crash", |m: &Lane, w: &World| {
                w.left.crashes < m.most.crashes && w.run.state() == &State::Delivered
            }));
        }
        properties
    }
}

/// The promises that hold for each run.
pub fn promises<M: Model<State: Keeps>>() -> Vec<Property<M>> {
    macro_rules! kept {
        ($($promise:ident),*) => {
            vec![$(Property::<M>::always($promise, |_, w: &M::State| w.keeps($promise))),*]
        };
    }
    kept![
        SETTLED_ONCE,
        SHOWN_PAID,
        BEGUN_FIRST,
        SAVED_FIRST,
        ONE_CALL,
        NO_ORPHANS,
        NOT_LOST,
        SEEN_STAYS,
        NOT_FOR_NOBODY,
        BROKEN_UNPAID,
        LATE_UNPAID,
        TOLD_STORED,
        PAID_ENDS,
        UNPAID_ENDS,
        ALARMS,
        ENDS_STORED
    ]
}

impl Lane {
    pub fn claude(&self, w: &World, actions: &mut Vec<Action>) {
        let faulty = w.left.claude_faults > 0;
        match w.asked {
            Asked::No => return,
            Asked::Waiting => actions.push(Action::Hear(Event::Began)),
            Asked::Begun => actions.extend([Action::Hear(Event::FirstText), Action::Hear(Event::Ended)]),
            Asked::Wrote => actions.push(Action::Hear(Event::Ended)),
        }
        if faulty {
            let silent = w.asked != Asked::Wrote;
            actions.push(Action::Hear(Event::Broke { error: ModelError::CutOff, no_text: silent }));
            actions.push(Action::Hear(Event::Broke { error: ModelError::Declined, no_text: silent }));
        }
    }

    pub fn hear(&self, mut w: World, event: Event) -> World {
        w.last = None;
        match &event {
            Event::Verified => {
                w.verifying = false;
                w.heard.verified = true;
            }
            Event::VerifyRefused(_) => w.verifying = false,
            Event::ToldPending => w.told = true,
            Event::Began => {
                w.asked = Asked::Begun;
                w.heard.begun = true;
            }
            Event::FirstText => w.asked = Asked::Wrote,
            Event::Ended => {
                w.asked = Asked::No;
                w.heard.ended = true;
            }
            Event::Broke { .. } => {
                w.asked = Asked::No;
                w.left.claude_faults -= 1;
            }
            Event::GraceElapsed => w.lingering = false,
            Event::BackOffElapsed => w.backing_off = false,
            Event::Settled(_) => {
                w.settling = Settling::No;
                w.heard.definite = true;
            }
            Event::SettleRejected(_) => {
                w.settling = Settling::No;
                w.heard.definite = !w.ambiguous;
            }
            Event::SettleFailed => {
                w.settling = Settling::No;
                w.ambiguous = true;
            }
            Event::SettleNotSent => w.settling = Settling::No,
            // By whom, nobody knows: from here on the money may have moved.
            Event::SettleSpent => {
                w.settling = Settling::No;
                w.ambiguous = true;
            }
            Event::Reconciled(evidence) => {
                w.looking = false;
                let spent = matches!(w.money, Money::Moved | Money::SpentOtherwise);
                if self.node && (*evidence == Evidence::Nothing || (spent && *evidence == Evidence::Unspent)) {
                    w.left.losses -= 1;
                }
            }
            Event::LedgerRowWritten => {
                w.ledger = w.recording.take();
                // A row that is out of date by now leaves the next one owed.
                if w.ledger != w.row() || w.run.is_busy() {
                    return w;
                }
            }
            Event::Reported => w.reporting = false,
            _ => {}
        }
        if matches!(event, Event::Verified | Event::Settled(_) | Event::SettleRejected(_) | Event::Reconciled(_)) {
            w.last = Some(event.clone());
        }
        w.tell(self, event, NOW)
    }

    /// An answer does not arrive. A request that never arrived has cost its loss already.
    pub fn lose(&self, mut w: World, lost: Lost) -> World {
        if lost != Lost::Settle || w.settling != Settling::Silent {
            w.left.losses -= 1;
        }
        match lost {
            Lost::Record => w.recording = None,
            Lost::Report => w.reporting = false,
            Lost::Settle => {
                w.settling = Settling::No;
                w.ambiguous = true;
                return w.tell(self, Event::SettleUnanswered, NOW);
            }
        }
        w
    }

    pub fn check(&self, w: &mut World) {
        let paid = w.run.receipt().is_some();
        if self.is_paid_for() && self.view(&w.run) == View::Show {
            let allowed = match self.release {
                Release::Settled => w.money == Money::Moved && paid,
                Release::Verified => w.heard.verified || paid,
            };
            w.breaks(SHOWN_PAID, !allowed);
        }
        w.breaks(NOT_LOST, w.money == Money::Moved && (w.run.is_replaceable() || w.stored.0.is_replaceable()));
        w.breaks(UNPAID_ENDS, paid && w.money != Money::Moved);
        if !w.todo.is_empty() {
            return;
        }
        w.breaks(NO_ORPHANS, w.hangs());
        w.breaks(NOT_FOR_NOBODY, w.asked != Asked::No && w.is_abandoned());
        if w.is_over(self) {
            self.check_end(w);
        }
    }

    pub fn check_end(&self, w: &mut World) {
        let state = w.run.state().clone();
        let unknown = matches!(state, State::SettlementUnknown { .. });
        let kept = matches!(state, State::Delivered | State::Reported(_)) || (unknown && !self.node);
        w.breaks(PAID_ENDS, self.is_paid_for() && w.money == Money::Moved && !kept);
        w.breaks(UNPAID_ENDS, w.money != Money::Moved && w.ledger.as_ref().is_some_and(|(_, charged)| *charged));
        w.breaks(TOLD_STORED, w.told && w.stored.0.state() != w.run.state());
        if !w.run.is_kept() {
            // Nothing is kept of a payment that was not good.
            return;
        }
        let durable = |run: &Run| (run.state().clone(), run.receipt().cloned());
        w.breaks(ENDS_STORED, durable(&w.stored.0) != durable(&w.run));
        w.breaks(ENDS_STORED, w.ledger != w.row());
    }
}
