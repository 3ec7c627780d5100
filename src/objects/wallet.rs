//! One Durable Object for each paying wallet, and one for each owner who tests. It answers those who present a payment
//! or hold a run's id, keeps runs going when their callers have disconnected, and deletes them a day after their end.

use crate::edge::kv::config;
use crate::edge::objects::wallet_store::WalletStore;
use crate::edge::objects::wallets;
use crate::edge::objects::wallets::{ObjectRequest, Refused};
use crate::edge::{clock, fault};
use crate::engine::{Beginning, CallerGuard, Decision, Session, Wallet};
use crate::rules::config::Config;
use crate::rules::ids::run_id;
use crate::rules::record::run_record::RunRecord;
use crate::rules::record::run_request::{Representation, RunRequest};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Run};
use futures::future::{select, Either};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use worker::{durable_object, Delay, Env, Request, Response, Result, State};

mod hire;
mod responses;

/// How long one alarm call stays open. The runtime ends an alarm after 15 minutes, and the object with it.
const ALARM_MAX: Millis = 10 * 60 * 1000;
/// A row of the object's storage holds no more than 2 MB, and sealing makes a prompt a third longer.
const PROMPT_MAX: usize = 1_400_000;
/// How many requests may wait for what becomes of another one, and how many bytes they may hold in memory together.
const WAITING_MAX: (usize, usize) = (64, 4 << 20);

/// What a caller gets from this object: a response, or why there is none.
type Outcome<T = Response> = std::result::Result<T, Box<Refused>>;

#[durable_object(alarm)]
pub struct WalletObject {
    state: State,
    env: Env,
    wallet: RefCell<Option<Rc<Wallet>>>,
    /// The requests that wait, and their bytes.
    waiting: Cell<(usize, usize)>,
}

// Needed with panic=unwind: a panic in one call leaves the object to the next. No borrow is held
// across a call that can panic between two writes that belong together.
impl std::panic::UnwindSafe for WalletObject {}
impl std::panic::RefUnwindSafe for WalletObject {}

impl worker::DurableObject for WalletObject {
    fn new(state: State, env: Env) -> Self {
        Self { state, env, wallet: RefCell::default(), waiting: Cell::default() }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let (request, disconnected) = wallets::read_request(request).await?;
        // When the caller disconnects, the answer is dropped at the await where it is, and its CallerGuard with it.
        match select(std::pin::pin!(self.answer(request)), std::pin::pin!(disconnected)).await {
            Either::Left((Ok(response), _)) => Ok(response),
            Either::Left((Err(refused), _)) => wallets::refused(&refused),
            Either::Right(_) => Response::empty(),
        }
    }

    /// The runtime keeps an object while a call to it is open. So this call stays open as long as a run is driven, and
    /// tells each run meanwhile when its time has come: the next alarm would only come after this one.
    async fn alarm(&self) -> Result<Response> {
        let wallet = self.wallet()?;
        wallet.store.alarm_fired();
        wallet.wake_all();
        let until = clock::now().saturating_add(ALARM_MAX);
        loop {
            let now = clock::now();
            // What cannot be deleted now must not keep the runs from going on.
            let _ = wallet.delete_expired(now).await.map_err(fault("wallet storage"));
            wallet.wake_due(now);
            self.drive_all(&wallet);
            // The drivers get a turn, and the clock goes on: it stands still between two awaits.
            Delay::from(Duration::from_millis(1)).await;
            let version = wallet.shared.updates.version();
            if !wallet.is_driven() || now >= until {
                break;
            }
            let next = wallet.next_deadline(now).map_or(until, |deadline| deadline.min(until));
            let time = Delay::from(Duration::from_millis(next.saturating_sub(now).max(1)));
            select(std::pin::pin!(wallet.shared.updates.changed_since(version)), time).await;
        }
        wallet.set_alarm(clock::now()).await?;
        Response::empty()
    }
}

impl WalletObject {
    async fn answer(&self, request: ObjectRequest) -> Outcome {
        match request {
            ObjectRequest::Present(request) if request.contract_context.is_some() => {
                hire::present(self, *request).await
            }
            ObjectRequest::Present(request) => self.present(*request).await,
            ObjectRequest::Status { run } => {
                let session = self.find(&run)?;
                responses::status(&session)
            }
            ObjectRequest::Follow { run, last_event_id } => {
                let session = self.find(&run)?;
                let caller = self.caller(&session)?;
                responses::stream(&session, caller, last_event_id).await
            }
            ObjectRequest::Task { task, contract } => hire::task(self, &task, &contract),
            ObjectRequest::FollowTask { task, last_event_id } => hire::follow(self, &task, last_event_id).await,
        }
    }

    async fn present(&self, request: RunRequest) -> Outcome {
        let representation = request.representation;
        let config = config::load(&self.env).await?;
        // Held until there is a response: a stream takes it along.
        let (session, caller) = self.join_or_begin(request, &config).await?;
        match representation {
            Representation::Stream => responses::stream(&session, caller, None).await,
            Representation::Json => responses::document(&session).await,
        }
    }

    /// The wallet's runs, which are loaded by the first call. Those that were under way go on at once.
    fn wallet(&self) -> Result<Rc<Wallet>> {
        if let Some(wallet) = self.wallet.borrow().as_ref() {
            return Ok(wallet.clone());
        }
        let wallet = Rc::new(Wallet::load(self.env.clone(), WalletStore::open(&self.state)?)?);
        self.wallet.replace(Some(wallet.clone()));
        self.drive_all(&wallet);
        Ok(wallet)
    }

    fn loaded(&self) -> Outcome<Rc<Wallet>> {
        Ok(self.wallet().map_err(fault("wallet storage"))?)
    }

    fn caller(&self, session: &Rc<Session>) -> Outcome<CallerGuard> {
        Ok(CallerGuard::new(&self.loaded()?, session))
    }

    fn find(&self, run: &str) -> Outcome<Rc<Session>> {
        let found = self.loaded()?.find(run).map_err(fault("wallet storage"))?;
        Ok(found.ok_or(Refusal::NotFound)?)
    }

    /// Joins the run that this payment or its idempotency key has bought already, or begins one.
    async fn join_or_begin(&self, mut request: RunRequest, config: &Config) -> Outcome<(Rc<Session>, CallerGuard)> {
        let wallet = self.loaded()?;
        let session = loop {
            let internal = fault::<worker::Error>;
            match wallet.admit(&request, &config.limits).map_err(internal("wallet storage"))? {
                Decision::Begin(last) => {
                    hire::number_execution(last.as_deref(), &mut request);
                    break self.begin(&wallet, request, last.as_deref(), config)?;
                }
                Decision::Join(session) => break session,
                Decision::Wait(session) => {
                    let _waiting = Waiting::new(&self.waiting, request.size())?;
                    let version = session.updates.version();
                    session.updates.changed_since(version).await;
                }
                Decision::VerifyFirst => return Err(Box::new(Refused::verify_first())),
                Decision::Refuse(refusal, None) => return Err(refusal.into()),
                Decision::Refuse(refusal, Some(session)) => return Err(responses::refused(&session, refusal)),
            }
        };
        let caller = CallerGuard::new(&wallet, &session);
        session.handle_event(Event::Presented);
        self.drive(&wallet, &session);
        Ok((session, caller))
    }

    /// Begins a run. Nothing is awaited between the admission and here: two callers cannot both begin one.
    fn begin(
        &self,
        wallet: &Rc<Wallet>,
        request: RunRequest,
        last: Option<&Session>,
        config: &Config,
    ) -> Outcome<Rc<Session>> {
        let (limits, now) = (&config.limits, clock::now());
        let prompt = request.rendered_prompt();
        if prompt.size() > PROMPT_MAX {
            return Err(Refusal::BodyTooLarge { limit: limits.body_bytes }.into());
        }
        let terms = request.terms(wallet.release(&request, last, limits), limits, now);
        let run = match last {
            // It still owes for text that was shown.
            Some(last) => last.data.borrow().run.next(terms),
            None => Run::new(terms),
        };
        let run_id = run_id(&request.object, wallet.next_number(), &wallets::random_hex()?);
        let (name, verified_by) = (request.name.clone(), request.verified_by.clone());
        let record = RunRecord::of(request, run_id, now);
        let begun = wallet.begin(Beginning { name, run, record, prompt, verified_by });
        Ok(begun.map_err(fault("wallet storage"))?)
    }

    /// Makes sure that the run is driven: here for as long as the runtime lets it, then in the alarm.
    fn drive(&self, wallet: &Rc<Wallet>, session: &Rc<Session>) {
        if session.waits_for_driver() {
            let (wallet, session) = (wallet.clone(), session.clone());
            self.state.wait_until(async move { wallet.drive(&session).await });
        }
    }

    fn drive_all(&self, wallet: &Rc<Wallet>) {
        wallet.sessions().iter().for_each(|session| self.drive(wallet, session));
    }
}

/// Counts one request that waits, and its bytes, for as long as it is held.
struct Waiting<'a> {
    all: &'a Cell<(usize, usize)>,
    bytes: usize,
}

impl<'a> Waiting<'a> {
    fn new(all: &'a Cell<(usize, usize)>, bytes: usize) -> Outcome<Self> {
        let (count, held) = all.get();
        let (count, held) = (count.saturating_add(1), held.saturating_add(bytes));
        if count > WAITING_MAX.0 || held > WAITING_MAX.1 {
            return Err(Refusal::TooManyUnpaidRuns { retry_after: 2 }.into());
        }
        all.set((count, held));
        Ok(Self { all, bytes })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (count, held) = self.all.get();
        self.all.set((count.saturating_sub(1), held.saturating_sub(self.bytes)));
    }
}
