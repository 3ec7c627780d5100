//! Two payments of one wallet: each begins a run of its own, joins the other's, waits or is refused, as the real
//! admission decides. The wallet's object keeps which run a key has bought, and counts what came to nothing.

use crate::lane::Lane;
use crate::world::{Action, Asked, Money, Settling, World, NOW};
use coinslot::testing::rules::admission::{admit, Admission, Known, KnownRun, Usage, Which};
use coinslot::testing::rules::config::Limits;
use coinslot::testing::rules::payment::identifier::IdempotencyKey;
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::record::run_record::RunRecord;
use coinslot::testing::rules::record::run_request::{Representation, RunRequest};
use coinslot::testing::rules::refusal::ModelError;
use coinslot::testing::rules::run::{Policy, Release, Run, State, View};
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::input::Input;
use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::evm::Address;
use stateright::{Model, Property};
use std::sync::Arc;

/// A fault seeded into the wallet's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletFault {
    KeyTakenBeforeVerify,
    KeyForgottenUnderWay,
    KeyJoinedWithAnotherRequest,
    FailedRunHidesTheKeysRun,
    CapIgnored,
    CountLostByACrash,
    JoiningBeginsASecondRun,
    GuestsDoNotCount,
    FailureStopsTheOtherRun,
}

pub const WALLET_FAULTS: [WalletFault; 9] = [
    WalletFault::KeyTakenBeforeVerify,
    WalletFault::KeyForgottenUnderWay,
    WalletFault::KeyJoinedWithAnotherRequest,
    WalletFault::FailedRunHidesTheKeysRun,
    WalletFault::CapIgnored,
    WalletFault::CountLostByACrash,
    WalletFault::JoiningBeginsASecondRun,
    WalletFault::GuestsDoNotCount,
    WalletFault::FailureStopsTheOtherRun,
];

/// Whether the two payments come with an idempotency key, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One key, and the same request.
    Same,
    /// One key, and another request with the second payment.
    OtherRequest,
    /// No key.
    None,
}

/// What the explored worlds of two payments have in common.
#[derive(Debug)]
pub struct Pair {
    lanes: [Lane; 2],
    keys: Keys,
    requests: [RunRequest; 2],
    records: [RunRecord; 2],
    pub limits: Limits,
    fault: Option<WalletFault>,
}

/// The wallet's object with the two payments. A lane has the last run of its payment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PairWorld {
    pub lanes: [Arc<World>; 2],
    /// How many callers of each lane's run have come with the other payment.
    guests: [u8; 2],
    /// How many requests with each payment wait until the other payment is verified.
    waiting: [u8; 2],
    /// The number of each lane's run. Only their order matters.
    numbers: [u8; 2],
    /// The same, of the run that is stored; 0: none.
    stored_numbers: [u8; 2],
    /// The lane of the run that is stored for the key.
    key_row: Option<usize>,
    /// How many runs the wallet has counted as unpaid by the payer's doing.
    counted: u8,
    /// How many runs are stored that came to nothing by the payer's doing. The object does not know this number.
    in_vain: u8,
    /// The promise that was broken, if any.
    broken: Option<&'static str>,
}

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

const ONE_CHARGE: &str = "of two payments with one key and one request, one is charged at the most";
const KEY_VERIFIED: &str = "a key is held by the run of a verified payment only";
const SAME_REQUEST: &str = "a caller who joins by a key has sent the request of the run that the key has bought";
const WITHIN_CAP: &str = "no more runs are unsettled than the wallet may have";
const WITHIN_DAY: &str = "no more runs come to nothing by the payer's doing than the wallet may have in a day";
const COUNTED: &str = "a run that came to nothing by the payer's doing and is stored has been counted";
const NOT_STOPPED: &str = "no run is stopped for want of a caller while one follows it";
const ISOLATED: &str = "what happens to one run changes nothing under way in the other";

fn payment(lane: usize) -> Payment {
    let text = str::to_owned;
    Payment {
        x402_version: 2,
        payload: serde_json::json!({}),
        requirements: serde_json::json!({}),
        network: text("eip155:8453"),
        network_v1: text("base"),
        asset: Address::from([1; 20]),
        pay_to: Address::from([2; 20]),
        amount: Amount(10_000),
        payer: Address::from([3; 20]),
        by_key: true,
        valid_before: NOW / 100,
        nonce: format!("nonce {lane}"),
        name: format!("payment {lane}"),
        proof: format!("proof {lane}"),
    }
}

fn request(lane: usize, policy: Policy, keys: Keys) -> RunRequest {
    let payment = payment(lane);
    let digest = if keys == Keys::OtherRequest { format!("request {lane}") } else { "request".to_owned() };
    RunRequest {
        template_id: String::new(),
        creator_id: String::new(),
        model: String::new(),
        max_tokens: 1,
        prompt: Secret::new(String::new()),
        input: Input::default(),
        object: payment.object(),
        name: payment.name.clone(),
        payment: Some(payment),
        key: (keys != Keys::None).then(|| IdempotencyKey::new(Some("key"), None, &digest)).flatten(),
        verified_by: None,
        digest,
        representation: if policy == Policy::OnStart { Representation::Stream } else { Representation::Json },
        release: Release::Settled,
        begin_refusal: None,
        contract_context: None,
        answer_by: 0,
    }
}

impl Pair {
    pub fn new(lanes: [Lane; 2], keys: Keys) -> Self {
        let request = |n: usize| request(n, lanes[n].policy, keys);
        let record = |n: usize| RunRecord::of(request(n), format!("run of payment {n}"), NOW);
        let requests = [request(0), request(1)];
        let records = [record(0), record(1)];
        Pair { lanes, keys, requests, records, limits: Limits::default(), fault: None }
    }

    /// The same with a fault.
    pub fn with(self, fault: WalletFault) -> Self {
        Pair { fault: Some(fault), ..self }
    }

    fn is(&self, fault: WalletFault) -> bool {
        self.fault == Some(fault)
    }

    /// The decision about a request with the payment of lane `n`, and the lane of the run that the key leads to.
    fn decide(&self, w: &PairWorld, n: usize) -> (Admission, usize) {
        let keyed = self.find_keyed(w);
        let known_run = |lane: usize, run| KnownRun { run, record: &self.records[lane] };
        let own = &w.lanes[n].run;
        let counted = vec![NOW; usize::from(w.counted)];
        let unsettled = if self.is(WalletFault::CapIgnored) { 0 } else { w.unsettled() };
        let known = Known {
            named: (*own.state() != State::New).then(|| known_run(n, own)),
            keyed: keyed.map(|(lane, run)| known_run(lane, run)),
            payment_is_taken: false,
            usage: Usage { unsettled, counted: &counted },
        };
        let decision = match admit(&self.requests[n], &known, &self.limits, NOW) {
            Admission::Wait(Which::Keyed) if self.is(WalletFault::KeyTakenBeforeVerify) => {
                Admission::Join(Which::Keyed)
            }
            Admission::RefuseFor(Which::Keyed, _) if self.is(WalletFault::KeyJoinedWithAnotherRequest) => {
                Admission::Join(Which::Keyed)
            }
            Admission::Join(Which::Keyed) if self.is(WalletFault::JoiningBeginsASecondRun) => Admission::Begin,
            decision => decision,
        };
        (decision, keyed.map_or(n, |(lane, _)| lane))
    }

    /// The run that the key leads to, as the object looks for it: the last one in memory that has the key, or the one
    /// that is stored for it, whichever has begun later.
    fn find_keyed<'a>(&self, w: &'a PairWorld) -> Option<(usize, &'a Run)> {
        if self.keys == Keys::None {
            return None;
        }
        let in_memory = (0..2).filter(|n| w.lanes[*n].is_in_memory()).max_by_key(|n| w.numbers[*n]);
        let stored = w.key_row.map(|lane| (lane, &w.lanes[lane].stored.0));
        let found = match (in_memory, stored) {
            (Some(lane), Some((row, run))) if w.stored_numbers[row] > w.numbers[lane] => {
                match self.is(WalletFault::FailedRunHidesTheKeysRun) {
                    true => Some((lane, &w.lanes[lane].run)),
                    false => Some((row, run)),
                }
            }
            (Some(lane), _) => Some((lane, &w.lanes[lane].run)),
            (None, stored) => stored,
        };
        found.filter(|(_, run)| !(self.is(WalletFault::KeyForgottenUnderWay) && run.is_busy() && run.is_kept()))
    }

    /// What the object does with a request that has the payment of lane `n`.
    fn act(&self, w: &mut PairWorld, n: usize) {
        let (decision, keyed) = self.decide(w, n);
        match decision {
            Admission::Begin => {
                self.change(w, n, |world, lane| world.present(lane));
                w.guests[n] = 0;
                w.numbers[n] = 1 + w.numbers.iter().chain(&w.stored_numbers).max().unwrap();
                w.breaks(WITHIN_CAP, w.unsettled() > self.limits.unpaid_per_wallet as usize);
            }
            Admission::Join(Which::Named) => self.change(w, n, |world, lane| world.present(lane)),
            Admission::Join(Which::Keyed) => {
                let held = |n: usize| self.records[n].key.as_ref().map(|key| &key.request);
                w.breaks(SAME_REQUEST, held(keyed) != held(n));
                w.breaks(KEY_VERIFIED, !w.lanes[keyed].heard.verified);
                w.guests[keyed] += 1;
                self.change(w, keyed, |world, lane| world.present(lane));
            }
            Admission::RefuseFor(..) => w.breaks(KEY_VERIFIED, !w.lanes[keyed].heard.verified),
            Admission::Wait(_) => w.waiting[n] += 1,
            Admission::Refuse(_) => {}
            Admission::VerifyFirst => unreachable!("both payments are signed by the payer's key"),
        }
    }

    /// Something that happens to the run of lane `n`, and what the object keeps of it.
    fn change(&self, w: &mut PairWorld, n: usize, change: impl FnOnce(World, &Lane) -> World) {
        let before = w.lanes[n].clone();
        let mut after = change((*before).clone(), &self.lanes[n]);
        self.lanes[n].check(&mut after);
        w.lanes[n] = Arc::new(after);
        self.keep(w, n, &before);
    }

    /// The run of lane `n` is saved with its key, and with the count of those that came to nothing.
    fn keep(&self, w: &mut PairWorld, n: usize, before: &World) {
        let after = w.lanes[n].clone();
        let is_first = !before.is_stored && after.is_stored;
        if is_first {
            w.stored_numbers[n] = w.numbers[n];
            w.key_row = (self.keys != Keys::None).then_some(n);
            w.breaks(KEY_VERIFIED, !after.stored.1.verified);
        }
        let was_counted = before.is_stored && before.stored.0.is_unpaid_by_payer();
        if after.is_stored && after.stored.0.is_unpaid_by_payer() && !was_counted {
            w.counted += 1;
            w.in_vain += 1;
        }
    }

    /// The object dies, with both runs.
    fn crash(&self, w: &mut PairWorld) {
        for n in 0..2 {
            let mut found = w.lanes[n].crash(&self.lanes[n]);
            self.lanes[n].check(&mut found);
            w.lanes[n] = Arc::new(found);
        }
        w.numbers = w.stored_numbers;
        (w.guests, w.waiting) = ([0; 2], [0; 2]);
        if self.is(WalletFault::CountLostByACrash) {
            w.counted = 0;
        }
    }

    /// A caller of lane `n`'s run disconnects.
    fn leave(&self, w: &mut PairWorld, n: usize) {
        let guests = if self.is(WalletFault::GuestsDoNotCount) { w.guests[n] } else { 0 };
        let gone = State::Failed(ModelError::CallerGone);
        let was_gone = *w.lanes[n].run.state() == gone;
        self.change(w, n, |mut world, lane| {
            world.callers -= guests;
            world = world.leave(lane);
            world.callers += guests;
            world
        });
        let is_gone = *w.lanes[n].run.state() == gone;
        w.breaks(NOT_STOPPED, is_gone && !was_gone && w.lanes[n].callers > 0);
    }

    /// Whether the second payment was presented, and nothing has come of it.
    fn is_turned_away(&self, w: &PairWorld) -> bool {
        let second = &w.lanes[1];
        let is_presented = second.left.presentations < self.lanes[1].most.presentations;
        is_presented && *second.run.state() == State::New && w.waiting[1] == 0
    }

    fn check(&self, w: &mut PairWorld) {
        let charged = w.lanes.iter().filter(|lane| lane.money == Money::Moved).count();
        w.breaks(ONE_CHARGE, self.keys == Keys::Same && charged > 1);
        w.breaks(WITHIN_DAY, u32::from(w.in_vain) > self.limits.unpaid_per_wallet_day);
        w.breaks(COUNTED, w.counted < w.in_vain);
    }
}

impl PairWorld {
    fn breaks(&mut self, promise: &'static str, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.is_some() || self.lanes.iter().any(|lane| lane.broken.is_some())
    }

    /// How many runs in memory are not settled. All such runs are in memory.
    fn unsettled(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.run.is_unsettled(NOW)).count()
    }

    /// Whether a driver is about to do what a machine wants. It is done before anything is heard from outside.
    fn is_pending(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.todo.is_empty())
    }

    /// Whoever follows a run that has ended is told so, and goes.
    fn tell_callers_of_what_has_ended(&mut self) {
        for n in 0..2 {
            let lane = &self.lanes[n];
            if lane.callers > 0 && lane.todo.is_empty() && lane.run.is_final() {
                Arc::make_mut(&mut self.lanes[n]).callers = 0;
                self.guests[n] = 0;
            }
        }
    }

    /// The same order of the runs, with the smallest numbers.
    fn renumber(&mut self) {
        let mut all: Vec<u8> = self.numbers.into_iter().chain(self.stored_numbers).filter(|n| *n > 0).collect();
        all.sort_unstable();
        all.dedup();
        let rank = |number: u8| all.iter().position(|n| *n == number).map_or(0, |at| at as u8 + 1);
        self.numbers = self.numbers.map(rank);
        self.stored_numbers = self.stored_numbers.map(rank);
    }
}

impl World {
    /// Whether the object has the run in memory: it is being driven or followed, or something may still happen to it.
    fn is_in_memory(&self) -> bool {
        let asked = self.verifying || self.asked != Asked::No || self.settling != Settling::No || self.looking;
        let is_driven = asked || !self.todo.is_empty() || self.recording.is_some() || self.reporting;
        let exists = *self.run.state() != State::New;
        exists && (self.callers > 0 || is_driven || (self.is_stored && !self.run.is_closed()))
    }
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
                vec![$(Property::<Self>::always($promise, |_, w: &PairWorld| w.broken != Some($promise))),*]
            };
        }
        let mut properties =
            kept![ONE_CHARGE, KEY_VERIFIED, SAME_REQUEST, WITHIN_CAP, WITHIN_DAY, COUNTED, NOT_STOPPED, ISOLATED];
        properties.push(Property::always("each run keeps the promises of a single run", |_, w: &PairWorld| {
            w.lanes.iter().all(|lane| lane.broken.is_none())
        }));
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
