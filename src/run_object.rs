//! The other door: one Durable Object for each payment. It loads, answers those who present the
//! payment, keeps the run alive without them, and cleans up a day after the end.

use crate::edge::runs::{random_hex, Refused, KIND, REFUSED};
use crate::edge::store::Store;
use crate::edge::subscriber::{self, Writer};
use crate::edge::vault::Vault;
use crate::edge::{clock, config, fault};
use crate::engine::Session;
use crate::rules::dossier::{rejected_headers, settled_headers, Presentation, Representation, Ticket};
use crate::rules::quote::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Ending, Event, Policy, Run, State as RunState, View};
use crate::wire::sse;
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use worker::{durable_object, Env, Headers, Request, Response, ResponseBody, Result, State};

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

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        // Through serde_json: JavaScript's numbers would round what is above 2^53.
        let presentation: Presentation = serde_json::from_str(&request.text().await?)?;
        match self.presented(presentation).await {
            Ok(response) => Ok(response),
            Err(refused) => {
                let response = Response::from_json(&refused)?;
                response.headers().set(KIND, REFUSED)?;
                Ok(response)
            }
        }
    }

    async fn alarm(&self) -> Result<Response> {
        let session = self.session()?;
        session.tell(Event::Woken);
        session.drive().await;
        // Another call may be driving: then this one keeps the object alive until that is done.
        while session.is_driven() {
            let rings = session.bell.rings();
            if session.is_driven() {
                session.bell.after(rings).await;
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
        let wait = i64::try_from(deadline.saturating_sub(now)).unwrap_or(i64::MAX);
        self.state.storage().set_alarm(wait.max(1)).await
    }

    async fn presented(&self, presentation: Presentation) -> std::result::Result<Response, Refused> {
        let representation = presentation.representation;
        let ticket = presentation.ticket();
        let session = self.take_up(presentation).await?;
        match representation {
            Representation::Stream => stream(&session, ticket).await,
            Representation::Json => document(&session, ticket).await,
        }
    }

    /// Joins the run that this payment already is, or sets out on it.
    async fn take_up(&self, presentation: Presentation) -> std::result::Result<Rc<Session>, Refused> {
        let config = config::load(&self.env).await.map_err(plain)?;
        // Each start is a run of its own in the ledger, also after one that failed.
        let run_id = self.new_run_id(&presentation).map_err(plain)?;
        let question = match &presentation.objection {
            None => self.seal(&run_id, &presentation).await.map_err(plain)?,
            Some(_) => String::new(),
        };
        let session = loop {
            // Asked for anew after each wait: a run that was forgotten meanwhile has taken its session along.
            let session = self.session().map_err(fault("run storage")).map_err(plain)?;
            let rings = session.bell.rings();
            match admit(&session, &presentation) {
                Admission::Wait => session.bell.after(rings).await,
                Admission::Refuse(refusal) => return Err(plain(refusal)),
                Admission::Join => break session,
                Admission::Begin => {
                    // No await from the look above to here: two callers cannot both set out.
                    let policy = presentation.policy();
                    let dossier = presentation.dossier(run_id, clock::now());
                    let begun = session.begin(policy, &config.limits, dossier, question);
                    begun.map_err(fault("run storage")).map_err(plain)?;
                    break session;
                }
            }
        };
        session.tell(Event::Presented);
        self.set_going(&session).await.map_err(fault("alarm")).map_err(plain)?;
        Ok(session)
    }

    async fn seal(&self, run_id: &str, presentation: &Presentation) -> std::result::Result<String, Refusal> {
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let question = serde_json::to_vec(&presentation.question()).map_err(fault("question"))?;
        vault.seal(run_id, &question).await.map_err(fault("vault"))
    }

    fn new_run_id(&self, presentation: &Presentation) -> std::result::Result<String, Refusal> {
        // The payment's own name is public once it is on the chain, so the id needs more than that.
        let name = presentation.payment.as_ref().map_or("test", |p: &Payment| p.name.as_str());
        let short = name.get(..16).unwrap_or(name);
        Ok(format!("run_{short}_{}", random_hex()?))
    }

    /// Drives the session for as long as the object lives; the alarm joins in, so that it lives on
    /// without callers.
    async fn set_going(&self, session: &Rc<Session>) -> Result<()> {
        if session.is_driven() {
            return Ok(());
        }
        let driver = session.clone();
        self.state.wait_until(async move { driver.drive().await });
        self.next_alarm(session).await
    }
}

/// Whether the object's run is still the one that the caller came for. It may have passed on to somebody
/// else's meanwhile (this one was refused), and the caller must not be shown that.
fn is_for(session: &Session, ticket: &Ticket) -> bool {
    session.desk.borrow().dossier.as_ref().is_some_and(|d| d.ticket() == *ticket)
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

fn plain(refusal: Refusal) -> Refused {
    Refused { refusal, run: None, settlement: Vec::new(), charged: false }
}

/// The refusal with what belongs to it: the run's id, and the failed settlement.
fn refused(session: &Session, refusal: Refusal) -> Refused {
    let desk = session.desk.borrow();
    let payment = desk.dossier.as_ref().and_then(|d| d.payment.as_ref());
    let settlement = match (desk.run.receipt(), &refusal, payment) {
        (Some(receipt), ..) => settled_headers(receipt),
        (None, Refusal::SettlementRejected { .. }, Some(payment)) => rejected_headers(payment, refusal.x402_reason()),
        _ => Vec::new(),
    };
    let run = desk.dossier.as_ref().map(|d| d.run_id.clone());
    Refused { refusal, run, settlement, charged: desk.run.receipt().is_some() }
}

/// Waits until the machine shows text, then lets the caller follow it.
async fn stream(session: &Rc<Session>, ticket: Ticket) -> std::result::Result<Response, Refused> {
    wait_for(session, &ticket, |run| !matches!(run.view(), View::Wait)).await?;
    let (view, silent) = {
        let desk = session.desk.borrow();
        (desk.run.view(), desk.transcript.is_empty())
    };
    match view {
        // Paid and given up: what there is of the answer is the caller's.
        View::Refuse(Refusal::Refundable) if !silent => {}
        View::Refuse(refusal) => return Err(refused(session, refusal)),
        View::Wait | View::Show => {}
    }
    let internal = |e: &str| refused(session, fault("caller's body")(e));
    let (body, writer) = subscriber::pipe().map_err(|_| internal("no stream"))?;
    wasm_bindgen_futures::spawn_local(follow(session.clone(), ticket, writer));
    let headers = headers(session, "text/event-stream; charset=utf-8").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_body(ResponseBody::Stream(body)).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

/// Waits for the whole answer.
async fn document(session: &Rc<Session>, ticket: Ticket) -> std::result::Result<Response, Refused> {
    wait_for(session, &ticket, |run| run.ending().is_some() || matches!(run.view(), View::Refuse(_))).await?;
    let refusal = {
        let desk = session.desk.borrow();
        match (desk.run.ending(), desk.run.view()) {
            (Some(Ending::Done), _) => None,
            (Some(Ending::Error(refusal)), _) | (None, View::Refuse(refusal)) => Some(refusal),
            (None, View::Wait | View::Show) => Some(Refusal::Internal),
        }
    };
    if let Some(refusal) = refusal {
        return Err(refused(session, refusal));
    }
    let json = {
        let desk = session.desk.borrow();
        let text = desk.transcript.text();
        desk.dossier.as_ref().map(|d| d.document(text, &desk.tally, desk.run.receipt()))
    };
    let internal = |e: &str| refused(session, fault("caller's document")(e));
    let json = json.ok_or_else(|| internal("no dossier"))?;
    let headers = headers(session, "application/json").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_bytes(json.to_string().into_bytes()).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

async fn wait_for(
    session: &Session,
    ticket: &Ticket,
    ready: impl Fn(&Run) -> bool,
) -> std::result::Result<(), Refused> {
    loop {
        let rings = session.bell.rings();
        if !is_for(session, ticket) {
            return Err(plain(Refusal::PaymentReused));
        }
        if ready(&session.desk.borrow().run) {
            return Ok(());
        }
        session.bell.after(rings).await;
    }
}

/// How far a caller has read, and of which edition.
#[derive(Clone, Copy)]
struct Bookmark {
    position: usize,
    edition: u32,
}

/// Writes the transcript to one caller, from its start to its end, as it grows.
async fn follow(session: Rc<Session>, ticket: Ticket, writer: Writer) {
    let mut bookmark = Bookmark { position: 0, edition: 0 };
    loop {
        let rings = session.bell.rings();
        if !is_for(&session, &ticket) {
            return writer.close().await;
        }
        let (chunk, last) = next_chunk(&session, &mut bookmark);
        if !chunk.is_empty() && writer.write(&chunk).await.is_err() {
            return;
        }
        if last {
            return writer.close().await;
        }
        if chunk.is_empty() {
            session.bell.after(rings).await;
        }
    }
}

/// The next bytes for a caller; the flag says that they are the last.
fn next_chunk(session: &Session, bookmark: &mut Bookmark) -> (Vec<u8>, bool) {
    let desk = session.desk.borrow();
    let run_id = desk.dossier.as_ref().map(|d| d.run_id.clone());
    let charged = desk.run.receipt().is_some();
    let error = |refusal: &Refusal| {
        let message = refusal.message_when(charged);
        json!({"type": "error", "code": refusal.code(), "message": message, "charged": charged, "run": run_id})
    };
    if bookmark.position == 0 {
        bookmark.edition = desk.transcript.edition;
    }
    let (mut chunk, last) = if desk.transcript.edition != bookmark.edition {
        // The answer is being written anew; this caller has seen part of the old one.
        (Vec::new(), Some(error(&Refusal::Interrupted)))
    } else {
        let (chunk, next) = desk.transcript.events(bookmark.position);
        bookmark.position = next;
        let at_end = next == desk.transcript.len();
        let last = match desk.run.ending().filter(|_| at_end) {
            Some(Ending::Done) => desk.dossier.as_ref().map(|d| d.done_event(&desk.tally, desk.run.receipt())),
            Some(Ending::Error(refusal)) => Some(error(&refusal)),
            None => None,
        };
        (chunk, last)
    };
    if let Some(event) = &last {
        sse::write(&mut chunk, bookmark.position as u64 + 1, &event.to_string());
    }
    (chunk, last.is_some())
}

fn headers(session: &Session, content_type: &str) -> Result<Headers> {
    let desk = session.desk.borrow();
    let headers = Headers::new();
    headers.set("content-type", content_type)?;
    headers.set("cache-control", "private, no-store")?;
    if let Some(dossier) = &desk.dossier {
        headers.set("x-run-id", &dossier.run_id)?;
    }
    if desk.run.policy() == Policy::Free {
        headers.set("x-owner-test", "true")?;
    }
    for (name, value) in desk.run.receipt().into_iter().flat_map(settled_headers) {
        headers.set(&name, &value)?;
    }
    Ok(headers)
}
