//! One Durable Object for each payment, contract and owner's test. It loads the run, answers those who present the
//! payment or hold the run's id, keeps the run going when they have disconnected, and deletes it a day after its end.

use crate::edge::kv::config;
use crate::edge::objects::payers;
use crate::edge::objects::run_store::RunStore;
use crate::edge::objects::runs;
use crate::edge::objects::runs::{ObjectRequest, Refused, RunSummary};
use crate::edge::vault::Vault;
use crate::edge::{clock, fault};
use crate::engine;
use crate::engine::{CallerGuard, Session};
use crate::rules::admission::{admit, Admission};
use crate::rules::hire::context::ContractContext;
use crate::rules::ids::run_id;
use crate::rules::record::replay::Viewer;
use crate::rules::record::run_record::RunRecord;
use crate::rules::record::run_request::{Representation, RunRequest};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Release, State as RunState, Terms};
use futures::future::{select, Either};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use worker::{durable_object, Delay, Env, Request, Response, Result, State};

mod hire;
mod responses;

/// How long one alarm call stays open. The runtime ends an alarm after 15 minutes, and the object with it.
const ALARM_MAX: Millis = 10 * 60 * 1000;
/// A row of the object's storage holds no more than 2 MB.
const SEALED_PROMPT_MAX: usize = 1_900_000;

/// What a caller gets from this object: a response, or why there is none.
type Outcome<T = Response> = std::result::Result<T, Box<Refused>>;

#[durable_object(alarm)]
pub struct RunObject {
    state: State,
    env: Env,
    session: RefCell<Option<Rc<Session>>>,
}

// Needed with panic=unwind: a panic in one call leaves the object to the next. No borrow is held
// across a call that can panic between two writes that belong together.
impl std::panic::UnwindSafe for RunObject {}
impl std::panic::RefUnwindSafe for RunObject {}

impl worker::DurableObject for RunObject {
    fn new(state: State, env: Env) -> Self {
        Self { state, env, session: RefCell::new(None) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let (request, disconnected) = runs::read_request(request).await?;
        // When the caller disconnects, the answer is dropped at the await where it is, and its CallerGuard with it.
        match select(std::pin::pin!(self.answer(request)), std::pin::pin!(disconnected)).await {
            Either::Left((Ok(response), _)) => Ok(response),
            Either::Left((Err(refused), _)) => runs::refused(&refused),
            Either::Right(_) => Response::empty(),
        }
    }

    async fn alarm(&self) -> Result<Response> {
        let session = self.load_session()?;
        session.handle_event(Event::AlarmFired);
        self.ensure_driven(&session).await?;
        // The runtime keeps an object while a call to it is open. So this call stays open until the driver is done, and
        // tells the machine meanwhile when a deadline has passed. Before ALARM_MAX ends it, it sets the next alarm.
        let until = clock::now().saturating_add(ALARM_MAX);
        while session.is_driven() && clock::now() < until {
            let version = session.updates.version();
            let now = clock::now();
            let wait = session.deadline(now).unwrap_or(now).saturating_sub(now);
            let time = Delay::from(Duration::from_millis(wait.max(1)));
            if session.is_driven() {
                if let Either::Right(_) = select(std::pin::pin!(session.updates.changed_since(version)), time).await {
                    session.handle_event(Event::AlarmFired);
                }
            }
        }
        self.set_next_alarm(&session).await?;
        Response::empty()
    }
}

impl RunObject {
    async fn answer(&self, request: ObjectRequest) -> Outcome {
        match request {
            ObjectRequest::Present(request) if request.contract_context.is_some() => {
                hire::present(self, *request).await
            }
            ObjectRequest::Present(request) => self.present(*request).await,
            ObjectRequest::Status { run } => responses::status(self.session_of_run(&run).await?.as_ref()),
            ObjectRequest::Follow { run, last_event_id } => {
                let session = self.session_of_run(&run).await?;
                let caller = CallerGuard::new(&session);
                responses::stream(&session, caller, Viewer::Holder(run), last_event_id).await
            }
            ObjectRequest::Summary => self.summary(),
            ObjectRequest::Contract(query) => hire::answer(self, query).await,
        }
    }

    async fn present(&self, request: RunRequest) -> Outcome {
        let (viewer, representation) = (Viewer::Presenter(request.identity()), request.representation);
        let (session, caller) = self.join_or_begin(request).await?;
        match representation {
            Representation::Stream => responses::stream(&session, caller, viewer, None).await,
            Representation::Json => responses::document(&session, viewer).await,
        }
    }

    /// What other objects of ours ask about this one.
    fn summary(&self) -> Outcome {
        let session = self.session()?;
        let data = session.data.borrow();
        let summary = RunSummary {
            new: *data.run.state() == RunState::New,
            failed: data.run.is_replaceable() && *data.run.state() != RunState::New,
            cleared: data.run.is_cleared(),
        };
        Ok(Response::from_json(&summary).map_err(fault("run summary"))?)
    }

    fn load_session(&self) -> Result<Rc<Session>> {
        if let Some(session) = self.session.borrow().as_ref() {
            return Ok(session.clone());
        }
        let session = Rc::new(Session::load(self.env.clone(), RunStore::open(&self.state))?);
        self.session.replace(Some(session.clone()));
        Ok(session)
    }

    fn session(&self) -> Outcome<Rc<Session>> {
        Ok(self.load_session().map_err(fault("run storage"))?)
    }

    async fn session_of_run(&self, run: &str) -> Outcome<Rc<Session>> {
        self.find_session(|record| record.run_id == run).await
    }

    /// The session, if its run is the one that is looked for.
    async fn find_session(&self, is_it: impl Fn(&RunRecord) -> bool) -> Outcome<Rc<Session>> {
        let session = self.session()?;
        let is_it = session.data.borrow().record.as_ref().is_some_and(|record| is_it(record));
        if is_it && session.has_pending_effects() {
            // The run has just been loaded from storage. It goes on now, without waiting for the alarm.
            self.ensure_driven(&session).await.map_err(fault("alarm"))?;
        }
        match is_it {
            true => Ok(session),
            false => Err(Refusal::NotFound.into()),
        }
    }

    /// Joins the run that this payment has bought already, or begins one.
    async fn join_or_begin(&self, request: RunRequest) -> Outcome<(Rc<Session>, CallerGuard)> {
        let mut prepared = None;
        let (session, caller) = loop {
            // Loaded again after each await: a run that was deleted meanwhile has taken its session along.
            let session = self.session()?;
            let version = session.updates.version();
            if session.has_pending_effects() {
                // They belong to the last run, whose ledger row is not written yet: the driver needs a turn first.
                self.ensure_driven(&session).await.map_err(fault("alarm"))?;
                Delay::from(Duration::from_millis(1)).await;
                continue;
            }
            let admission = {
                let data = session.data.borrow();
                admit(&data.run, data.record.as_deref(), &request)
            };
            match admission {
                Admission::Wait => session.updates.changed_since(version).await,
                Admission::Refuse(refusal) => return Err(refusal.into()),
                Admission::Join => break (session.clone(), CallerGuard::new(&session)),
                Admission::Begin => match prepared.take() {
                    None => prepared = Some(self.prepare(&session, &request).await?),
                    Some(Prepared { run_id, sealed_prompt, terms, contract_context }) => {
                        // No await between the admission above and here: two callers cannot both begin a run.
                        let now = clock::now();
                        if engine::hire::reservation(&session, now).map_err(fault("run storage"))?.is_some() {
                            return Err(Refusal::PaymentReused.into());
                        }
                        let record = RunRecord::of(RunRequest { contract_context, ..request }, run_id, now);
                        session.begin(terms, record, sealed_prompt).map_err(fault("run storage"))?;
                        break (session.clone(), CallerGuard::new(&session));
                    }
                },
            }
        };
        session.handle_event(Event::Presented);
        self.ensure_driven(&session).await.map_err(fault("alarm"))?;
        Ok((session, caller))
    }

    /// Does what takes time before a run can begin. Another request may begin one meanwhile; then this is dropped.
    async fn prepare(&self, session: &Session, request: &RunRequest) -> std::result::Result<Prepared, Refusal> {
        let config = config::load(&self.env).await?;
        // A run that begins after one that failed has its own id, and its own row in the ledger.
        let run_id = run_id(&request.object, &runs::random_hex()?);
        let sealed_prompt = self.seal_prompt(&run_id, request).await?;
        if sealed_prompt.len() > SEALED_PROMPT_MAX {
            return Err(Refusal::BodyTooLarge { limit: config.limits.body_bytes });
        }
        let is_outstanding = session.data.borrow().run.is_outstanding();
        let release = match request.may_be_shown_early() && !is_outstanding {
            true => payers::release(&self.env, request, config.limits.outstanding_per_payer).await,
            false => Release::Settled,
        };
        let contract_context = hire::prepare(self, session, request, &config).await?;
        let terms = request.terms(release, &config.limits, clock::now());
        Ok(Prepared { run_id, sealed_prompt, terms, contract_context })
    }

    async fn seal_prompt(&self, run_id: &str, request: &RunRequest) -> std::result::Result<String, Refusal> {
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let prompt = serde_json::to_vec(&request.rendered_prompt()).map_err(fault("rendered prompt"))?;
        vault.seal(run_id, &prompt).await.map_err(fault("vault"))
    }

    /// Makes sure that the driver runs: here for as long as the runtime lets it, then in the alarm.
    async fn ensure_driven(&self, session: &Rc<Session>) -> Result<()> {
        if session.is_driven() {
            return Ok(());
        }
        let (driver, storage) = (session.clone(), self.state.storage());
        self.state.wait_until(async move {
            driver.drive().await;
            // The alarm was set for a run under way. What the run waits for now may be due sooner.
            let now = clock::now();
            let deadline = driver.deadline(now);
            if let Some(deadline) = deadline {
                let set = storage.set_alarm(milliseconds_until(deadline, now)).await;
                let _ = set.map_err(fault("alarm"));
            }
        });
        self.set_next_alarm(session).await
    }

    /// Sets the alarm to the session's deadline, or deletes what is not needed any more.
    async fn set_next_alarm(&self, session: &Session) -> Result<()> {
        let now = clock::now();
        if session.is_expired(now) {
            return self.delete(session, now).await;
        }
        let Some(deadline) = session.deadline(now) else {
            if engine::hire::is_reservation_over(session, now)? {
                self.session.replace(None);
                self.state.storage().delete_all().await?;
            }
            return Ok(());
        };
        self.state.storage().set_alarm(milliseconds_until(deadline, now)).await
    }

    /// Deletes the run. A reservation of its payment is kept until its own time is up.
    async fn delete(&self, session: &Session, now: Millis) -> Result<()> {
        let reservation = engine::hire::reservation(session, now)?;
        self.session.replace(None);
        self.state.storage().delete_all().await?;
        if let Some(reservation) = reservation {
            RunStore::open(&self.state).reserve(&reservation)?;
            self.state.storage().set_alarm(milliseconds_until(reservation.until, now)).await?;
        }
        engine::hire::forgotten(session).await;
        Ok(())
    }
}

/// For `set_alarm`, to which a number is an offset from now.
fn milliseconds_until(deadline: Millis, now: Millis) -> i64 {
    i64::try_from(deadline.saturating_sub(now)).unwrap_or(i64::MAX).max(1)
}

/// What a run begins with.
struct Prepared {
    run_id: String,
    sealed_prompt: String,
    terms: Terms,
    contract_context: Option<ContractContext>,
}
