//! The other door: one Durable Object for each payment. It loads, answers those who present the
//! payment or hold the run's id, keeps the run alive without them, and cleans up a day after the end.

use crate::edge::runs::{self, Glance, Refused, Visit};
use crate::edge::store::Store;
use crate::edge::vault::Vault;
use crate::edge::{clock, config, fault, payers};
use crate::engine::{Listener, Session};
use crate::rules::dossier::{rejected_headers, run_id, settled_headers, Presentation, Representation};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Release, State as RunState, Terms};
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
                Visit::Follow { run, last_event_id } => self.followed(&run, last_event_id).await,
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
            let due = session.desk.borrow().run.deadline(now).unwrap_or(now).saturating_sub(now);
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
        let (deadline, erase) = {
            let desk = session.desk.borrow();
            (desk.run.deadline(now), desk.run.is_forgotten(now))
        };
        if erase {
            self.session.replace(None);
            return self.state.storage().delete_all().await;
        }
        let Some(deadline) = deadline else {
            return Ok(());
        };
        self.state.storage().set_alarm(until(deadline, now)).await
    }

    async fn presented(&self, presentation: Presentation) -> std::result::Result<Response, Box<Refused>> {
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
        let session = self.session().map_err(fault("run storage")).map_err(plain)?;
        let is_it = session.desk.borrow().dossier.as_ref().is_some_and(|d| d.run_id == run);
        if is_it && session.has_todo() {
            // Found in storage as it was left: it goes on now, not when the alarm rings.
            self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
        }
        is_it.then_some(session).ok_or_else(|| plain(Refusal::NotFound))
    }

    async fn followed(&self, run: &str, last_event_id: Option<u64>) -> std::result::Result<Response, Box<Refused>> {
        let session = self.of_run(run).await?;
        let listener = Listener::of(&session);
        answers::stream(&session, listener, Told::Holder(run.to_owned()), last_event_id).await
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
                    Some(Prepared { run_id, question, terms }) => {
                        // No await from the look above to here: two callers cannot both set out.
                        let dossier = presentation.dossier(run_id, clock::now());
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
        Ok(Prepared { run_id, question, terms: presentation.terms(release, &config.limits) })
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
            let deadline = driver.desk.borrow().run.deadline(now);
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
