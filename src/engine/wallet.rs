//! The runs of one wallet in memory: those that are under way or being read. What has ended is in storage, and is read
//! on demand.

use super::session::{Beginning, Session, Shared};
use crate::edge::clock;
use crate::edge::objects::wallet_store::{StoredRun, WalletStore};
use crate::rules::admission::{admit, Admission, Known, Usage, Which};
use crate::rules::config::Limits;
use crate::rules::ids::run_number;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Release};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use worker::{Env, Result};

pub(crate) struct Wallet {
    env: Env,
    pub(crate) store: Rc<WalletStore>,
    sessions: RefCell<BTreeMap<u64, Rc<Session>>>,
    next_number: Cell<u64>,
    pub(crate) shared: Rc<Shared>,
}

/// Counts one caller who waits for the run or follows it, for as long as it is held.
pub(crate) struct CallerGuard {
    wallet: Rc<Wallet>,
    session: Rc<Session>,
}

impl CallerGuard {
    pub(crate) fn new(wallet: &Rc<Wallet>, session: &Rc<Session>) -> Self {
        session.connect();
        Self { wallet: wallet.clone(), session: session.clone() }
    }
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.session.disconnect();
        self.wallet.forget_idle(&self.session);
    }
}

/// What becomes of a request, with the run that the decision is about.
pub(crate) enum Decision {
    /// With the last run of the same name.
    Begin(Option<Rc<Session>>),
    Join(Rc<Session>),
    Wait(Rc<Session>),
    VerifyFirst,
    Refuse(Refusal, Option<Rc<Session>>),
}

impl Wallet {
    /// Loads what may still change. Runs that were under way are continued by the next drive.
    pub(crate) fn load(env: Env, store: WalletStore) -> Result<Self> {
        let wallet = Self {
            env,
            next_number: Cell::new(store.next_number()),
            store: Rc::new(store),
            sessions: RefCell::default(),
            shared: Rc::default(),
        };
        for stored in wallet.store.open_runs()? {
            let session = wallet.restore(stored);
            // The alarm is set already, unless it was lost.
            session.wake(clock::now());
            wallet.sessions.borrow_mut().insert(session.number, session);
        }
        Ok(wallet)
    }

    fn restore(&self, stored: StoredRun) -> Rc<Session> {
        Rc::new(Session::restore(self.env.clone(), self.store.clone(), self.shared.clone(), stored))
    }

    // Finding a run.

    /// The runs in memory.
    pub(crate) fn sessions(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().values().cloned().collect()
    }

    fn session(&self, number: u64) -> Result<Option<Rc<Session>>> {
        if let Some(session) = self.sessions.borrow().get(&number) {
            return Ok(Some(session.clone()));
        }
        Ok(self.store.run(number)?.map(|stored| self.restore(stored)))
    }

    /// The run with this id.
    pub(crate) fn find(&self, run_id: &str) -> Result<Option<Rc<Session>>> {
        let Some(number) = run_number(run_id) else { return Ok(None) };
        Ok(self.session(number)?.filter(|session| session.record.run_id == run_id))
    }

    /// The last run of this name. One that came to nothing may still be in memory, because its ledger row is due, when
    /// a later one has ended already and is in storage only.
    pub(crate) fn find_named(&self, name: &str) -> Result<Option<Rc<Session>>> {
        let in_memory = self.sessions.borrow().values().rev().find(|session| session.name == name).cloned();
        if in_memory.as_ref().is_some_and(|session| !session.data.borrow().run.is_replaceable()) {
            return Ok(in_memory);
        }
        Ok(match (in_memory, self.store.run_named(name)?) {
            (Some(session), Some(stored)) if stored.number <= session.number => Some(session),
            (session, stored) => stored.map(|stored| self.restore(stored)).or(session),
        })
    }

    /// The last run that has taken a key, which may be in storage only, as in [`Self::find_named`].
    fn find_keyed(&self, key: &str) -> Result<Option<Rc<Session>>> {
        let has_key = |session: &&Rc<Session>| session.record.key.as_ref().is_some_and(|held| held.key == key);
        let in_memory = self.sessions.borrow().values().rev().find(has_key).cloned();
        match (in_memory, self.store.run_of_key(key)?) {
            (Some(session), Some(number)) if number > session.number => self.session(number),
            (Some(session), _) => Ok(Some(session)),
            (None, Some(number)) => self.session(number),
            (None, None) => Ok(None),
        }
    }

    /// Whether a payment is used by a run of another name than `name`.
    fn is_taken(&self, payment: &str, name: &str) -> Result<bool> {
        let is_it = |session: &Rc<Session>| {
            session.name != name && session.record.payment.as_ref().is_some_and(|used| used.name == payment)
        };
        if self.sessions.borrow().values().any(|session| is_it(session) && !session.data.borrow().run.is_replaceable())
        {
            return Ok(true);
        }
        let of_contract = match self.store.run_of_payment(payment)? {
            Some(number) => self.session(number)?.is_some_and(|session| session.name != name),
            None => false,
        };
        // A contract may not be executed with a payment that has bought a run.
        let of_run =
            name != payment && self.store.run_named(payment)?.is_some_and(|stored| !stored.run.is_replaceable());
        Ok(of_contract || of_run)
    }

    // Admission.

    /// Decides about a request. Nothing is awaited here, so that two requests cannot both begin a run.
    pub(crate) fn admit(&self, request: &RunRequest, limits: &Limits) -> Result<Decision> {
        let now = clock::now();
        let named = self.find_named(&request.name)?;
        let keyed = match &request.key {
            Some(key) => self.find_keyed(&key.key)?,
            None => None,
        };
        let payment_is_taken = match &request.payment {
            Some(payment) => self.is_taken(&payment.name, &request.name)?,
            None => false,
        };
        let sessions = self.sessions();
        let unsettled = sessions.iter().filter(|session| session.data.borrow().run.is_unsettled(now)).count();
        let counted = self.store.counted(now);
        let named_data = named.as_ref().map(|session| session.data.borrow());
        let keyed_data = keyed.as_ref().map(|session| session.data.borrow());
        let known = Known {
            named: named.as_ref().zip(named_data.as_ref()).map(|(session, data)| session.known(data)),
            keyed: keyed.as_ref().zip(keyed_data.as_ref()).map(|(session, data)| session.known(data)),
            payment_is_taken,
            usage: Usage { unsettled, counted: &counted },
        };
        let admission = admit(request, &known, limits, now);
        let of = |which| match which {
            Which::Named => named.clone(),
            Which::Keyed => keyed.clone(),
        };
        let lost = || Decision::Refuse(Refusal::Internal, None);
        Ok(match admission {
            Admission::Begin => Decision::Begin(named.clone()),
            Admission::VerifyFirst => Decision::VerifyFirst,
            Admission::Join(which) => of(which).map_or_else(lost, Decision::Join),
            Admission::Wait(which) => of(which).map_or_else(lost, Decision::Wait),
            Admission::Refuse(refusal) => Decision::Refuse(refusal, None),
            Admission::RefuseFor(which, refusal) => Decision::Refuse(refusal, of(which)),
        })
    }

    /// When the text of a stream may be shown: before it is settled, if the wallet has a slot left for that.
    /// `last` is the last run of the request's name.
    pub(crate) fn release(&self, request: &RunRequest, last: Option<&Session>, limits: &Limits) -> Release {
        let by_key = request.payment.as_ref().is_some_and(|payment| payment.by_key);
        let is_outstanding = last.is_some_and(|last| last.data.borrow().run.is_outstanding());
        if !request.may_be_shown_early() || !by_key || is_outstanding {
            return Release::Settled;
        }
        let now = clock::now();
        let takes_slot = |session: &&Rc<Session>| {
            let run = &session.data.borrow().run;
            run.is_unsettled(now) && run.terms().release == Release::Verified
        };
        let taken = self.sessions().iter().filter(takes_slot).count();
        let taken = taken.saturating_add(self.store.shown_unpaid(now));
        match taken < usize::try_from(limits.outstanding_per_payer).unwrap_or(usize::MAX) {
            true => Release::Verified,
            false => Release::Settled,
        }
    }

    /// The number that the next run will have. It is taken by [`Self::begin`].
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.get()
    }

    /// Begins a run. It is in memory only until the machine wants it saved.
    pub(crate) fn begin(&self, new: Beginning) -> Result<Rc<Session>> {
        let number = self.next_number.get();
        self.next_number.set(number.saturating_add(1));
        let session = Session::begin(self.env.clone(), self.store.clone(), self.shared.clone(), number, new);
        let session = Rc::new(session);
        if session.is_test() {
            self.store.count(&session.name, false, clock::now())?;
        }
        self.sessions.borrow_mut().insert(number, session.clone());
        Ok(session)
    }

    // The driver and the alarm.

    /// Does what the machine of one run wants, until it wants nothing more.
    pub(crate) async fn drive(&self, session: &Rc<Session>) {
        session.drive().await;
        session.wake(clock::now());
        self.shared.updates.notify();
        self.forget_idle(session);
    }

    /// Drops a run from memory where nothing needs it there.
    fn forget_idle(&self, session: &Session) {
        if session.is_idle() {
            self.sessions.borrow_mut().remove(&session.number);
        }
    }

    /// Whether any run is being driven.
    pub(crate) fn is_driven(&self) -> bool {
        self.sessions.borrow().values().any(|session| session.is_driven())
    }

    /// Tells each run that the alarm has fired. What it has to do by then is done, also what failed before: there the
    /// deadline is counted from the present. A run that only waits for its row is told when its own time has come.
    pub(crate) fn wake_all(&self) {
        let (now, sessions) = (clock::now(), self.sessions());
        let woken = sessions.iter().filter(|session| !session.waits_for_row(now));
        woken.for_each(|session| session.handle_event(Event::AlarmFired));
    }

    /// Tells each run whose time has come. A run that is being driven is told when its driver has ended: until then its
    /// deadline does not move.
    pub(crate) fn wake_due(&self, now: Millis) {
        for session in self.sessions() {
            let is_due = session.deadline(now).is_some_and(|deadline| deadline <= now);
            if is_due && !session.is_driven() {
                session.handle_event(Event::AlarmFired);
            }
        }
    }

    /// When the next run in memory has to be woken.
    pub(crate) fn next_deadline(&self, now: Millis) -> Option<Millis> {
        self.sessions.borrow().values().filter_map(|session| session.deadline(now)).min()
    }

    /// Deletes what has expired, and everything where nothing is left.
    pub(crate) async fn delete_expired(&self, now: Millis) -> Result<()> {
        let in_doubt = self.sessions().into_iter().filter(|session| session.is_expired(now));
        let expired: Vec<_> = self.store.expired(now)?.into_iter().map(|stored| self.restore(stored)).collect();
        for session in expired.into_iter().chain(in_doubt) {
            self.store.delete(session.number)?;
            self.sessions.borrow_mut().remove(&session.number);
            super::hire::forgotten(&session).await;
        }
        Ok(())
    }

    /// Sets the alarm for what is to happen next. Where nothing is stored any more, the object is deleted.
    pub(crate) async fn set_alarm(&self, now: Millis) -> Result<()> {
        let expiry = self.store.next_expiry(now)?;
        match self.next_deadline(now).into_iter().chain(expiry).min() {
            Some(deadline) => self.store.wake_by(deadline, now),
            None if self.sessions.borrow().is_empty() && self.store.is_empty()? => self.store.delete_all().await?,
            None => {}
        }
        Ok(())
    }
}
