//! The other door: one Durable Object for each payment. It loads, answers those who present the
//! payment or hold the run's id, keeps the run alive without them, and cleans up a day after the end.

use crate::edge::d1::ledger;
use crate::edge::kv::config;
use crate::edge::objects::payers;
use crate::edge::objects::run_store::RunStore;
use crate::edge::objects::runs;
use crate::edge::objects::runs::{ObjectRequest, Refused, RunSummary};
use crate::edge::vault::Vault;
use crate::edge::{clock, fault};
use crate::engine::{Listener, Session};
use crate::rules::config::Config;
use crate::rules::hire::context::ContractContext;
use crate::rules::ids::run_id;
use crate::rules::record::receipt::{rejected_headers, settled_headers};
use crate::rules::record::run_record::RunRecord;
use crate::rules::record::run_request::{Representation, RunRequest};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Release, Run, State as RunState, Terms, RETENTION, RETENTION_IN_DOUBT};
use answers::Viewer;
use futures::future::{select, Either};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use worker::{durable_object, Delay, Env, Request, Response, Result, State};

mod answers;

/// One run. See the module's text.
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
        let (visit, gone) = runs::receive(request).await?;
        let answered = async {
            match visit {
                ObjectRequest::Present(run_request) => self.presented(*run_request).await,
                ObjectRequest::Status { run } => answers::status(self.of_run(&run).await?.as_ref()),
                ObjectRequest::Follow { run, last_event_id } => {
                    self.followed(self.of_run(&run).await?, Viewer::Holder(run), last_event_id).await
                }
                ObjectRequest::Task { task, contract } => {
                    answers::task_report(self.of_task(&task, Some(&contract)).await?.as_ref())
                }
                ObjectRequest::FollowTask { task, last_event_id } => {
                    let session = self.of_task(&task, None).await?;
                    self.followed(session, Viewer::Seeker(task), last_event_id).await
                }
                ObjectRequest::Reserve { to, until } => self.reserve(&to, until).await,
                ObjectRequest::Summary => self.summary(),
            }
        };
        // Dropped where it stands when the caller goes: what listens then is gone too.
        match select(std::pin::pin!(answered), std::pin::pin!(gone)).await {
            Either::Left((Ok(response), _)) => Ok(response),
            Either::Left((Err(refused), _)) => runs::refused(&refused),
            Either::Right(_) => Response::empty(),
        }
    }

    async fn alarm(&self) -> Result<Response> {
        let session = self.session()?;
        session.tell(Event::AlarmFired);
        self.set_going(&session).await?;
        // This call keeps the object alive until the driver is done, and wakes the machine meanwhile. Before
        // its own time is up it hands over to the next alarm.
        let until = clock::now().saturating_add(ALARM_MAX);
        while session.is_driven() && clock::now() < until {
            let version = session.updates.version();
            let now = clock::now();
            let due = session.deadline(now).unwrap_or(now).saturating_sub(now);
            let time = Delay::from(Duration::from_millis(due.max(1)));
            if session.is_driven() {
                if let Either::Right(_) = select(std::pin::pin!(session.updates.changed_since(version)), time).await {
                    session.tell(Event::AlarmFired);
                }
            }
        }
        self.next_alarm(&session).await?;
        Response::empty()
    }
}

impl RunObject {
    fn session(&self) -> Result<Rc<Session>> {
        if let Some(session) = self.session.borrow().as_ref() {
            return Ok(session.clone());
        }
        let session = Rc::new(Session::new(self.env.clone(), RunStore::open(&self.state))?);
        self.session.replace(Some(session.clone()));
        Ok(session)
    }

    /// Sets the alarm to the machine's deadline; a run that is over for good is deleted.
    async fn next_alarm(&self, session: &Session) -> Result<()> {
        let now = clock::now();
        if session.is_expired(now) {
            let reservation = session.reservation(now)?;
            self.session.replace(None);
            self.state.storage().delete_all().await?;
            // Of the run nothing is left; the payment is still somebody's.
            if let Some(reservation) = reservation {
                RunStore::open(&self.state).reserve(&reservation)?;
                self.state.storage().set_alarm(until(reservation.until, now)).await?;
            }
            let _ = session.give_up().await;
            // What cannot be deleted now is deleted by the bucket's own rule (README, "Deploy").
            let _ = session.delete_files().await;
            return Ok(());
        }
        let Some(deadline) = session.deadline(now) else {
            if session.had_reservation(now)? {
                self.session.replace(None);
                self.state.storage().delete_all().await?;
            }
            return Ok(());
        };
        self.state.storage().set_alarm(until(deadline, now)).await
    }

    async fn presented(&self, mut run_request: RunRequest) -> std::result::Result<Response, Box<Refused>> {
        if run_request.contract_context.is_some() {
            self.find_payment(&mut run_request).await?;
            let answer_by = run_request.answer_by;
            let to = Viewer::Presenter(run_request.identity());
            let (session, _listener) = self.take_up(run_request).await?;
            return answers::task(&session, to, answer_by).await;
        }
        let representation = run_request.representation;
        let to = Viewer::Presenter(run_request.identity());
        let (session, listener) = self.take_up(run_request).await?;
        match representation {
            Representation::Stream => answers::stream(&session, listener, to, None).await,
            Representation::Json => answers::document(&session, to).await,
        }
    }

    /// The session, where it is that of this run.
    async fn of_run(&self, run: &str) -> std::result::Result<Rc<Session>, Box<Refused>> {
        self.found(|record| record.run_id == run).await
    }

    /// The session, where it is that of this task (and contract).
    async fn of_task(&self, task: &str, contract: Option<&str>) -> std::result::Result<Rc<Session>, Box<Refused>> {
        let is_it = |e: &ContractContext| e.task_id == task && contract.is_none_or(|id| e.contract_id == id);
        self.found(|record| record.contract_context.as_ref().is_some_and(is_it)).await
    }

    async fn found(&self, is_it: impl Fn(&RunRecord) -> bool) -> std::result::Result<Rc<Session>, Box<Refused>> {
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let is_it = session.data.borrow().record.as_ref().is_some_and(|record| is_it(record));
        if is_it && session.has_todo() {
            // Found in storage as it was left: it goes on now, not when the alarm version.
            self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
        }
        is_it.then_some(session).ok_or_else(|| plain(Refusal::NotFound))
    }

    async fn followed(
        &self,
        session: Rc<Session>,
        to: Viewer,
        last_event_id: Option<u64>,
    ) -> std::result::Result<Response, Box<Refused>> {
        let listener = Listener::of(&session);
        answers::stream(&session, listener, to, last_event_id).await
    }

    /// Takes this object's payment to a contract's.
    async fn reserve(&self, to: &str, until: Millis) -> std::result::Result<Response, Box<Refused>> {
        let internal = |e: worker::Error| plain(fault("run storage")(e));
        let (session, now) = (self.session().map_err(internal)?, clock::now());
        let reservation = session.reserve(to, until, now).map_err(internal)?;
        if reservation && session.deadline(now).is_none() {
            self.state.storage().set_alarm(self::until(until, now)).await.map_err(internal)?;
        }
        Response::from_json(&reservation).map_err(internal)
    }

    /// A contract is executed again with the payment it was executed with before, as long as that is good.
    async fn find_payment(&self, run_request: &mut RunRequest) -> std::result::Result<(), Box<Refused>> {
        if run_request.begin_refusal != Some(Refusal::PaymentRequired) {
            return Ok(());
        }
        let config = config::load(&self.env).await.map_err(plain)?;
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let data = session.data.borrow();
        let refused = matches!(data.run.state(), RunState::Refused(Refusal::SettlementRejected { .. }));
        let failed = data.run.is_unpaid_execution() && !refused;
        let before = data.record.as_ref().filter(|_| failed).and_then(|record| record.payment.clone());
        let good_until = clock::seconds().saturating_add(config.limits.window_needed());
        if let Some(payment) = before.filter(|payment| payment.valid_before > good_until) {
            (run_request.payment, run_request.begin_refusal) = (Some(payment), None);
        }
        Ok(())
    }

    /// What other objects of ours ask of this one.
    fn summary(&self) -> std::result::Result<Response, Box<Refused>> {
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let data = session.data.borrow();
        let glance = RunSummary {
            new: *data.run.state() == RunState::New,
            failed: data.run.is_replaceable() && *data.run.state() != RunState::New,
            cleared: data.run.is_cleared(),
        };
        Response::from_json(&glance).map_err(fault("glance")).map_err(plain)
    }

    /// Joins the run that this payment already is, or sets out on it.
    async fn take_up(&self, run_request: RunRequest) -> std::result::Result<(Rc<Session>, Listener), Box<Refused>> {
        let mut prepared = None;
        let (session, listener) = loop {
            // Asked for anew after each wait: a run that was forgotten meanwhile has taken its session along.
            let session = self.session().map_err(fault("run storage")).map_err(plain)?;
            let version = session.updates.version();
            if session.has_todo() {
                // Of the run before: its row is still to be written. (The driver needs a turn for that.)
                self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
                Delay::from(Duration::from_millis(1)).await;
                continue;
            }
            match admit(&session, &run_request) {
                Admission::Wait => session.updates.changed_since(version).await,
                Admission::Refuse(refusal) => return Err(plain(refusal)),
                Admission::Join => break (session.clone(), Listener::of(&session)),
                Admission::Begin => match prepared.take() {
                    None => prepared = Some(self.prepare(&session, &run_request).await.map_err(plain)?),
                    Some(Prepared { run_id, sealed_prompt, terms, contract_context }) => {
                        // No await from the look above to here: two callers cannot both set out.
                        let now = clock::now();
                        if session.reservation(now).map_err(fault("run storage")).map_err(plain)?.is_some() {
                            return Err(plain(Refusal::PaymentReused));
                        }
                        let record = RunRecord::of(RunRequest { contract_context, ..run_request }, run_id, now);
                        session.begin(terms, record, sealed_prompt).map_err(fault("run storage")).map_err(plain)?;
                        break (session.clone(), Listener::of(&session));
                    }
                },
            }
        };
        session.tell(Event::Presented);
        self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
        Ok((session, listener))
    }

    /// What takes a while, and only who sets out needs.
    async fn prepare(&self, session: &Session, run_request: &RunRequest) -> std::result::Result<Prepared, Refusal> {
        let config = config::load(&self.env).await?;
        // Each start is a run of its own in the ledger, also after one that failed.
        let run_id = run_id(&run_request.object, &runs::random_hex()?);
        let sealed_prompt = self.seal(&run_id, run_request).await?;
        if sealed_prompt.len() > SEALED_PROMPT_MAX {
            return Err(Refusal::BodyTooLarge { limit: config.limits.body_bytes });
        }
        let owes = session.data.borrow().run.is_outstanding();
        let release = match run_request.may_be_shown_early() && !owes {
            true => payers::release(&self.env, run_request, config.limits.outstanding_per_payer).await,
            false => Release::Settled,
        };
        let contract_context = match &run_request.contract_context {
            Some(contract_context) => Some(self.engage(session, run_request, contract_context.clone(), &config).await?),
            None => None,
        };
        let terms = run_request.terms(release, &config.limits, clock::now());
        Ok(Prepared { run_id, sealed_prompt, terms, contract_context })
    }

    /// A contract's run: the payment is taken from its own object, and the contract is under way.
    async fn engage(
        &self,
        session: &Session,
        run_request: &RunRequest,
        mut contract_context: ContractContext,
        config: &Config,
    ) -> std::result::Result<ContractContext, Refusal> {
        let payment = run_request.payment.as_ref().ok_or(Refusal::PaymentRequired)?;
        // Longer than its settlement can be in doubt.
        let until = clock::now().saturating_add(RETENTION_IN_DOUBT + RETENTION);
        if !runs::reserve(&self.env, &payment.name, &run_request.object, until).await? {
            return Err(Refusal::PaymentReused);
        }
        // Without it there is an estimate all the same.
        contract_context.usual_ms = ledger::usual_duration(&self.env, &run_request.template_id).await.ok().flatten();
        contract_context.execution = {
            let data = session.data.borrow();
            let before = data.record.as_ref().and_then(|record| record.contract_context.as_ref());
            let counts = u32::from(data.run.is_unpaid_execution());
            before.map_or(1, |before| before.execution.saturating_add(counts))
        };
        let most = config.limits.unpaid_executions_per_payer;
        payers::count_execution(&self.env, payment, &run_request.object, contract_context.execution, most).await?;
        Ok(contract_context)
    }

    async fn seal(&self, run_id: &str, run_request: &RunRequest) -> std::result::Result<String, Refusal> {
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let sealed_prompt = serde_json::to_vec(&run_request.rendered_prompt()).map_err(fault("sealed_prompt"))?;
        vault.seal(run_id, &sealed_prompt).await.map_err(fault("vault"))
    }

    /// Drives the session for as long as the object lives; the alarm joins in, so that it lives on
    /// without callers.
    async fn set_going(&self, session: &Rc<Session>) -> Result<()> {
        if session.is_driven() {
            return Ok(());
        }
        let (driver, storage) = (session.clone(), self.state.storage());
        self.state.wait_until(async move {
            driver.drive().await;
            // What the machine waits for from here on may be due sooner than the heartbeat.
            let now = clock::now();
            let deadline = driver.deadline(now);
            if let Some(deadline) = deadline {
                let set = storage.set_alarm(until(deadline, now)).await;
                let _ = set.map_err(fault("alarm"));
            }
        });
        self.next_alarm(session).await
    }
}

/// How long one alarm goes on. The runtime ends it after 15 minutes, and the object with it.
const ALARM_MAX: Millis = 10 * 60 * 1000;

/// Milliseconds until then, as the runtime wants them.
fn until(deadline: Millis, now: Millis) -> i64 {
    i64::try_from(deadline.saturating_sub(now)).unwrap_or(i64::MAX).max(1)
}

/// A row of the object's storage holds no more than 2 MB.
const SEALED_PROMPT_MAX: usize = 1_900_000;

struct Prepared {
    run_id: String,
    sealed_prompt: String,
    terms: Terms,
    contract_context: Option<ContractContext>,
}

/// What becomes of somebody who presents a payment to this object.
enum Admission {
    Begin,
    Join,
    Wait,
    Refuse(Refusal),
}

fn admit(session: &Session, run_request: &RunRequest) -> Admission {
    let data = session.data.borrow();
    if let (Some(_), Some(record)) = (&run_request.contract_context, &data.record) {
        if let Some(refusal) = contract_refusal(&data.run, record, run_request) {
            return Admission::Refuse(refusal);
        }
    }
    let Some(record) = data.record.as_ref().filter(|_| !data.run.is_replaceable()) else {
        return match &run_request.begin_refusal {
            None => Admission::Begin,
            Some(begin_refusal) => Admission::Refuse(begin_refusal.clone()),
        };
    };
    let (ours, theirs) = (record.identity(), run_request.identity());
    match ours.proof == theirs.proof {
        true if ours == theirs => Admission::Join,
        true => Admission::Refuse(Refusal::PaymentReused),
        // Somebody else's signature under the same nonce. Until one of them is verified, neither
        // may keep the other out.
        false if matches!(data.run.state(), RunState::Presented) => Admission::Wait,
        false => Admission::Refuse(Refusal::PaymentReused),
    }
}

/// Why a contract that was executed before is not executed so: one contract is one task, as often as agreed.
fn contract_refusal(run: &Run, record: &RunRecord, run_request: &RunRequest) -> Option<Refusal> {
    let failed = run.is_unpaid_execution();
    let contract_context = record.contract_context.as_ref()?;
    match record.digest == run_request.digest {
        false if failed || !run.is_replaceable() => Some(Refusal::ContractInputDiffers),
        true if failed && contract_context.execution >= contract_context.attempts => Some(Refusal::RetriesExhausted),
        _ => None,
    }
}

fn plain(refusal: Refusal) -> Box<Refused> {
    Box::new(Refused { refusal, run: None, settlement: Vec::new(), charged: false })
}

/// The refusal with what belongs to it: the run's id, and the failed settlement.
fn refused(session: &Session, refusal: Refusal) -> Box<Refused> {
    let data = session.data.borrow();
    let payment = data.record.as_ref().and_then(|d| d.payment.as_ref());
    let settlement = match (data.run.receipt(), &refusal, payment) {
        (Some(receipt), ..) => settled_headers(receipt),
        (None, Refusal::SettlementRejected { .. }, Some(payment)) => rejected_headers(payment, refusal.x402_reason()),
        _ => Vec::new(),
    };
    let run = data.record.as_ref().map(|d| d.run_id.clone());
    Box::new(Refused { refusal, run, settlement, charged: data.run.receipt().is_some() })
}
