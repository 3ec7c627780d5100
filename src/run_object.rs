//! The other door: one Durable Object for each payment. It loads, answers those who present the
//! payment or hold the run's id, keeps the run alive without them, and cleans up a day after the end.

use crate::edge::runs::{self, Glance, Refused, Visit};
use crate::edge::store::Store;
use crate::edge::vault::Vault;
use crate::edge::{clock, config, fault, ledger, payers};
use crate::engine::{Listener, Session};
use crate::rules::config::Config;
use crate::rules::dossier::{rejected_headers, run_id, settled_headers, Dossier, Presentation, Representation};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Release, Run, State as RunState, Terms, KEEP, KEEP_OPEN};
use crate::rules::task::Engagement;
use answers::Told;
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
                Visit::Present(presentation) => self.presented(*presentation).await,
                Visit::Status { run } => answers::status(self.of_run(&run).await?.as_ref()),
                Visit::Follow { run, last_event_id } => {
                    self.followed(self.of_run(&run).await?, Told::Holder(run), last_event_id).await
                }
                Visit::Task { task, contract } => answers::told(self.of_task(&task, Some(&contract)).await?.as_ref()),
                Visit::FollowTask { task, last_event_id } => {
                    let session = self.of_task(&task, None).await?;
                    self.followed(session, Told::Seeker(task), last_event_id).await
                }
                Visit::Lend { to, until } => self.lend(&to, until).await,
                Visit::Glance => self.glanced(),
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
        session.tell(Event::Woken);
        self.set_going(&session).await?;
        // This call keeps the object alive until the driver is done, and wakes the machine meanwhile. Before
        // its own time is up it hands over to the next alarm.
        let until = clock::now().saturating_add(ALARM_MOST);
        while session.is_driven() && clock::now() < until {
            let rings = session.bell.rings();
            let now = clock::now();
            let due = session.deadline(now).unwrap_or(now).saturating_sub(now);
            let time = Delay::from(Duration::from_millis(due.max(1)));
            if session.is_driven() {
                if let Either::Right(_) = select(std::pin::pin!(session.bell.after(rings)), time).await {
                    session.tell(Event::Woken);
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
        let session = Rc::new(Session::new(self.env.clone(), Store::open(&self.state))?);
        self.session.replace(Some(session.clone()));
        Ok(session)
    }

    /// Sets the alarm to the machine's deadline; a run that is over for good is deleted.
    async fn next_alarm(&self, session: &Session) -> Result<()> {
        let now = clock::now();
        if session.is_forgotten(now) {
            let lent = session.lent(now)?;
            self.session.replace(None);
            self.state.storage().delete_all().await?;
            // Of the run nothing is left; the payment is still somebody's.
            if let Some(lent) = lent {
                Store::open(&self.state).lend(&lent)?;
                self.state.storage().set_alarm(until(lent.until, now)).await?;
            }
            let _ = session.give_up().await;
            // What cannot be deleted now is deleted by the bucket's own rule (README, "Deploy").
            let _ = session.delete_files().await;
            return Ok(());
        }
        let Some(deadline) = session.deadline(now) else {
            if session.was_lent(now)? {
                self.session.replace(None);
                self.state.storage().delete_all().await?;
            }
            return Ok(());
        };
        self.state.storage().set_alarm(until(deadline, now)).await
    }

    async fn presented(&self, mut presentation: Presentation) -> std::result::Result<Response, Box<Refused>> {
        if presentation.engagement.is_some() {
            self.find_payment(&mut presentation).await?;
            let answer_by = presentation.answer_by;
            let to = Told::Presenter(presentation.ticket());
            let (session, _listener) = self.take_up(presentation).await?;
            return answers::task(&session, to, answer_by).await;
        }
        let representation = presentation.representation;
        let to = Told::Presenter(presentation.ticket());
        let (session, listener) = self.take_up(presentation).await?;
        match representation {
            Representation::Stream => answers::stream(&session, listener, to, None).await,
            Representation::Json => answers::document(&session, to).await,
        }
    }

    /// The session, where it is that of this run.
    async fn of_run(&self, run: &str) -> std::result::Result<Rc<Session>, Box<Refused>> {
        self.found(|dossier| dossier.run_id == run).await
    }

    /// The session, where it is that of this task (and contract).
    async fn of_task(&self, task: &str, contract: Option<&str>) -> std::result::Result<Rc<Session>, Box<Refused>> {
        let is_it = |e: &Engagement| e.task_id == task && contract.is_none_or(|id| e.contract_id == id);
        self.found(|dossier| dossier.engagement.as_ref().is_some_and(is_it)).await
    }

    async fn found(&self, is_it: impl Fn(&Dossier) -> bool) -> std::result::Result<Rc<Session>, Box<Refused>> {
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let is_it = session.desk.borrow().dossier.as_ref().is_some_and(|dossier| is_it(dossier));
        if is_it && session.has_todo() {
            // Found in storage as it was left: it goes on now, not when the alarm rings.
            self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
        }
        is_it.then_some(session).ok_or_else(|| plain(Refusal::NotFound))
    }

    async fn followed(
        &self,
        session: Rc<Session>,
        to: Told,
        last_event_id: Option<u64>,
    ) -> std::result::Result<Response, Box<Refused>> {
        let listener = Listener::of(&session);
        answers::stream(&session, listener, to, last_event_id).await
    }

    /// Takes this object's payment to a contract's.
    async fn lend(&self, to: &str, until: Millis) -> std::result::Result<Response, Box<Refused>> {
        let internal = |e: worker::Error| plain(fault("run storage")(e));
        let (session, now) = (self.session().map_err(internal)?, clock::now());
        let lent = session.lend(to, until, now).map_err(internal)?;
        if lent && session.deadline(now).is_none() {
            self.state.storage().set_alarm(self::until(until, now)).await.map_err(internal)?;
        }
        Response::from_json(&lent).map_err(internal)
    }

    /// A contract is executed again with the payment it was executed with before, as long as that is good.
    async fn find_payment(&self, presentation: &mut Presentation) -> std::result::Result<(), Box<Refused>> {
        if presentation.objection != Some(Refusal::PaymentRequired) {
            return Ok(());
        }
        let config = config::load(&self.env).await.map_err(plain)?;
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let desk = session.desk.borrow();
        let refused = matches!(desk.run.state(), RunState::Refused(Refusal::SettlementRejected { .. }));
        let failed = desk.run.was_in_vain() && !refused;
        let before = desk.dossier.as_ref().filter(|_| failed).and_then(|dossier| dossier.payment.clone());
        let good_until = clock::seconds().saturating_add(config.limits.window_needed());
        if let Some(payment) = before.filter(|payment| payment.valid_before > good_until) {
            (presentation.payment, presentation.objection) = (Some(payment), None);
        }
        Ok(())
    }

    /// What other objects of ours ask of this one.
    fn glanced(&self) -> std::result::Result<Response, Box<Refused>> {
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let desk = session.desk.borrow();
        let glance = Glance {
            new: *desk.run.state() == RunState::New,
            failed: desk.run.is_blank() && *desk.run.state() != RunState::New,
            cleared: desk.run.is_cleared(),
        };
        Response::from_json(&glance).map_err(fault("glance")).map_err(plain)
    }

    /// Joins the run that this payment already is, or sets out on it.
    async fn take_up(&self, presentation: Presentation) -> std::result::Result<(Rc<Session>, Listener), Box<Refused>> {
        let mut prepared = None;
        let (session, listener) = loop {
            // Asked for anew after each wait: a run that was forgotten meanwhile has taken its session along.
            let session = self.session().map_err(fault("run storage")).map_err(plain)?;
            let rings = session.bell.rings();
            if session.has_todo() {
                // Of the run before: its row is still to be written. (The driver needs a turn for that.)
                self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
                Delay::from(Duration::from_millis(1)).await;
                continue;
            }
            match admit(&session, &presentation) {
                Admission::Wait => session.bell.after(rings).await,
                Admission::Refuse(refusal) => return Err(plain(refusal)),
                Admission::Join => break (session.clone(), Listener::of(&session)),
                Admission::Begin => match prepared.take() {
                    None => prepared = Some(self.prepare(&session, &presentation).await.map_err(plain)?),
                    Some(Prepared { run_id, question, terms, engagement }) => {
                        // No await from the look above to here: two callers cannot both set out.
                        let now = clock::now();
                        if session.lent(now).map_err(fault("run storage")).map_err(plain)?.is_some() {
                            return Err(plain(Refusal::PaymentReused));
                        }
                        let dossier = Presentation { engagement, ..presentation }.dossier(run_id, now);
                        session.begin(terms, dossier, question).map_err(fault("run storage")).map_err(plain)?;
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
    async fn prepare(&self, session: &Session, presentation: &Presentation) -> std::result::Result<Prepared, Refusal> {
        let config = config::load(&self.env).await?;
        // Each start is a run of its own in the ledger, also after one that failed.
        let run_id = run_id(&presentation.object, &runs::random_hex()?);
        let question = self.seal(&run_id, presentation).await?;
        if question.len() > QUESTION_MOST {
            return Err(Refusal::BodyTooLarge { limit: config.limits.body_bytes });
        }
        let owes = session.desk.borrow().run.is_outstanding();
        let release = match presentation.may_be_shown_early() && !owes {
            true => payers::release(&self.env, presentation, config.limits.outstanding_per_payer).await,
            false => Release::Settled,
        };
        let engagement = match &presentation.engagement {
            Some(engagement) => Some(self.engage(session, presentation, engagement.clone(), &config).await?),
            None => None,
        };
        let terms = presentation.terms(release, &config.limits, clock::now());
        Ok(Prepared { run_id, question, terms, engagement })
    }

    /// A contract's run: the payment is taken from its own object, and the contract is under way.
    async fn engage(
        &self,
        session: &Session,
        presentation: &Presentation,
        mut engagement: Engagement,
        config: &Config,
    ) -> std::result::Result<Engagement, Refusal> {
        let payment = presentation.payment.as_ref().ok_or(Refusal::PaymentRequired)?;
        // Longer than its settlement can be in doubt.
        let until = clock::now().saturating_add(KEEP_OPEN + KEEP);
        if !runs::lend(&self.env, &payment.name, &presentation.object, until).await? {
            return Err(Refusal::PaymentReused);
        }
        // Without it there is an estimate all the same.
        engagement.usual_ms = ledger::usual_duration(&self.env, &presentation.template_id).await.ok().flatten();
        engagement.execution = {
            let desk = session.desk.borrow();
            let before = desk.dossier.as_ref().and_then(|dossier| dossier.engagement.as_ref());
            let counts = u32::from(desk.run.was_in_vain());
            before.map_or(1, |before| before.execution.saturating_add(counts))
        };
        let most = config.limits.in_vain_per_payer;
        payers::work(&self.env, payment, &presentation.object, engagement.execution, most).await?;
        Ok(engagement)
    }

    async fn seal(&self, run_id: &str, presentation: &Presentation) -> std::result::Result<String, Refusal> {
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let question = serde_json::to_vec(&presentation.question()).map_err(fault("question"))?;
        vault.seal(run_id, &question).await.map_err(fault("vault"))
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
const ALARM_MOST: Millis = 10 * 60 * 1000;

/// Milliseconds until then, as the runtime wants them.
fn until(deadline: Millis, now: Millis) -> i64 {
    i64::try_from(deadline.saturating_sub(now)).unwrap_or(i64::MAX).max(1)
}

/// A row of the object's storage holds no more than 2 MB.
const QUESTION_MOST: usize = 1_900_000;

struct Prepared {
    run_id: String,
    question: String,
    terms: Terms,
    engagement: Option<Engagement>,
}

/// What becomes of somebody who presents a payment to this object.
enum Admission {
    Begin,
    Join,
    Wait,
    Refuse(Refusal),
}

fn admit(session: &Session, presentation: &Presentation) -> Admission {
    let desk = session.desk.borrow();
    if let (Some(_), Some(dossier)) = (&presentation.engagement, &desk.dossier) {
        if let Some(refusal) = objection_to_another(&desk.run, dossier, presentation) {
            return Admission::Refuse(refusal);
        }
    }
    let Some(dossier) = desk.dossier.as_ref().filter(|_| !desk.run.is_blank()) else {
        return match &presentation.objection {
            None => Admission::Begin,
            Some(objection) => Admission::Refuse(objection.clone()),
        };
    };
    let (ours, theirs) = (dossier.ticket(), presentation.ticket());
    match ours.proof == theirs.proof {
        true if ours == theirs => Admission::Join,
        true => Admission::Refuse(Refusal::PaymentReused),
        // Somebody else's signature under the same nonce. Until one of them is verified, neither
        // may keep the other out.
        false if matches!(desk.run.state(), RunState::Presented) => Admission::Wait,
        false => Admission::Refuse(Refusal::PaymentReused),
    }
}

/// Why a contract that was executed before is not executed so: one contract is one task, as often as agreed.
fn objection_to_another(run: &Run, dossier: &Dossier, presentation: &Presentation) -> Option<Refusal> {
    let failed = run.was_in_vain();
    let engagement = dossier.engagement.as_ref()?;
    match dossier.digest == presentation.digest {
        false if failed || !run.is_blank() => Some(Refusal::ContractInputDiffers),
        true if failed && engagement.execution >= engagement.attempts => Some(Refusal::RetriesExhausted),
        _ => None,
    }
}

fn plain(refusal: Refusal) -> Box<Refused> {
    Box::new(Refused { refusal, run: None, settlement: Vec::new(), charged: false })
}

/// The refusal with what belongs to it: the run's id, and the failed settlement.
fn refused(session: &Session, refusal: Refusal) -> Box<Refused> {
    let desk = session.desk.borrow();
    let payment = desk.dossier.as_ref().and_then(|d| d.payment.as_ref());
    let settlement = match (desk.run.receipt(), &refusal, payment) {
        (Some(receipt), ..) => settled_headers(receipt),
        (None, Refusal::SettlementRejected { .. }, Some(payment)) => rejected_headers(payment, refusal.x402_reason()),
        _ => Vec::new(),
    };
    let run = desk.dossier.as_ref().map(|d| d.run_id.clone());
    Box::new(Refused { refusal, run, settlement, charged: desk.run.receipt().is_some() })
}
