//! The wallet's object with two payments: each begins a run of its own, joins the other's, waits or is refused, as the
//! real admission decides. The object keeps which run a key has bought, and counts what came to nothing.

use crate::lane::Lane;
use crate::world::{Asked, Keeps, Money, Settling, World, NOW};
use coinslot::testing::rules::admission::{admit, Admission, Known, KnownRun, Usage, Which};
use coinslot::testing::rules::config::Limits;
use coinslot::testing::rules::payment::identifier::IdempotencyKey;
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::record::run_record::RunRecord;
use coinslot::testing::rules::record::run_request::{Representation, RunRequest};
use coinslot::testing::rules::refusal::ModelError;
use coinslot::testing::rules::run::{Policy, Release, Run, State};
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::input::Input;
use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::evm::Address;
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
    /// The request has no idempotency key.
    None,
}

/// What the explored worlds of two payments have in common.
#[derive(Debug)]
pub struct Pair {
    pub lanes: [Lane; 2],
    pub keys: Keys,
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
    pub guests: [u8; 2],
    /// How many requests with each payment wait until the other payment is verified.
    pub waiting: [u8; 2],
    /// The number of each lane's run. Only their order matters.
    pub numbers: [u8; 2],
    /// The same, of the run that is stored; 0: none.
    pub stored_numbers: [u8; 2],
    /// The lane of the run that is stored for the key.
    pub key_row: Option<usize>,
    /// How many runs the wallet has counted as unpaid by the payer's doing.
    pub counted: u8,
    /// How many runs are stored that came to nothing by the payer's doing. The object does not know this number.
    pub in_vain: u8,
    /// The promise that was broken, if any.
    pub broken: Option<&'static str>,
}

pub const ONE_CHARGE: &str = "of two payments with one key and one request, one is charged at the most";
pub const KEY_VERIFIED: &str = "a key is held by the run of a verified payment only";
pub const SAME_REQUEST: &str = "a caller who joins by a key has sent the request of the run that the key has bought";
pub const WITHIN_CAP: &str = "no more runs are unsettled than the wallet may have";
pub const WITHIN_DAY: &str = "no more runs come to nothing by the payer's doing than the wallet may have in a day";
pub const COUNTED: &str = "a run that came to nothing by the payer's doing and is stored has been counted";
pub const NOT_STOPPED: &str = "no run is stopped for want of a caller while one follows it";
pub const ISOLATED: &str = "what happens to one run changes nothing under way in the other";

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
        own_payment: false,
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

    pub fn is(&self, fault: WalletFault) -> bool {
        self.fault == Some(fault)
    }

    /// The decision about a request with the payment of lane `n`, and the lane of the run that the key leads to.
    pub fn decide(&self, w: &PairWorld, n: usize) -> (Admission, usize) {
        let keyed = self.find_keyed(w);
        let known_run = |lane: usize, run| KnownRun { run, record: &self.records[lane] };
        let own = &w.lanes[n].run;
        let unsettled = if self.is(WalletFault::CapIgnored) { 0 } else { w.unsettled() };
        let known = Known {
            named: (*own.state() != State::New).then(|| known_run(n, own)),
            keyed: keyed.map(|(lane, run)| known_run(lane, run)),
            payment_is_taken: false,
            usage: Usage { unsettled, counted: &[NOW; 8][..usize::from(w.counted)] },
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
    pub fn act(&self, w: &mut PairWorld, n: usize) {
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
    pub fn change(&self, w: &mut PairWorld, n: usize, change: impl FnOnce(World, &Lane) -> World) {
        let before = w.lanes[n].clone();
        let mut after = change((*before).clone(), &self.lanes[n]);
        self.lanes[n].check(&mut after);
        w.lanes[n] = Arc::new(after);
        self.keep(w, n, &before);
    }

    /// The run of lane `n` is saved with its key, and with the count of those that came to nothing.
    pub fn keep(&self, w: &mut PairWorld, n: usize, before: &World) {
        let after = w.lanes[n].clone();
        let is_first = !before.is_stored && after.is_stored;
        if is_first {
            w.stored_numbers[n] = w.numbers[n];
            w.key_row = (self.keys != Keys::None).then_some(n);
            w.breaks(KEY_VERIFIED, w.key_row == Some(n) && !after.stored.1.verified);
        }
        let was_counted = before.is_stored && before.stored.0.is_unpaid_by_payer();
        if after.is_stored && after.stored.0.is_unpaid_by_payer() && !was_counted {
            w.counted += 1;
            w.in_vain += 1;
        }
    }

    /// The object dies, with both runs.
    pub fn crash(&self, w: &mut PairWorld) {
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
    pub fn leave(&self, w: &mut PairWorld, n: usize) {
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
    pub fn is_turned_away(&self, w: &PairWorld) -> bool {
        let second = &w.lanes[1];
        let most = self.lanes[1].most;
        let is_presented = second.left.presentations < most.presentations && second.left.crashes == most.crashes;
        is_presented && *second.run.state() == State::New && w.waiting[1] == 0
    }

    pub fn check(&self, w: &mut PairWorld) {
        let charged = w.lanes.iter().filter(|lane| lane.money == Money::Moved).count();
        w.breaks(ONE_CHARGE, self.keys == Keys::Same && charged > 1);
        w.breaks(WITHIN_DAY, u32::from(w.in_vain) > self.limits.unpaid_per_wallet_day);
        w.breaks(COUNTED, w.counted < w.in_vain);
    }
}

impl Keeps for PairWorld {
    fn keeps(&self, promise: &'static str) -> bool {
        self.broken != Some(promise) && self.lanes.iter().all(|lane| lane.keeps(promise))
    }
}

impl PairWorld {
    pub fn breaks(&mut self, promise: &'static str, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some() || self.lanes.iter().any(|lane| lane.broken.is_some())
    }

    /// How many runs in memory are not settled. All such runs are in memory.
    pub fn unsettled(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.run.is_unsettled(NOW)).count()
    }

    /// Whether a driver is about to do what a machine wants. It is done before anything is heard from outside.
    pub fn is_pending(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.todo.is_empty())
    }

    /// Whoever follows a run that has ended is told so, and goes.
    pub fn tell_callers_of_what_has_ended(&mut self) {
        for n in 0..2 {
            let lane = &self.lanes[n];
            if lane.callers > 0 && lane.todo.is_empty() && lane.run.is_final() {
                Arc::make_mut(&mut self.lanes[n]).callers = 0;
                self.guests[n] = 0;
            }
        }
    }

    /// The same order of the runs, with the smallest numbers.
    pub fn renumber(&mut self) {
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
