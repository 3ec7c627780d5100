//! What callers of a run are shown: its text as it grows, one document when it is whole, or where it stands.

use super::{plain, refused, Refused};
use crate::edge::body_writer;
use crate::edge::body_writer::BodyWriter;
use crate::edge::objects::runs;
use crate::edge::objects::runs::ENDED;
use crate::edge::{clock, fault};
use crate::engine::{Listener, Session};
use crate::rules::record::events;
use crate::rules::record::receipt::settled_headers;
use crate::rules::record::run_request::RequestIdentity;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Ending, Millis, Policy, Run, State, View};
use crate::wire::sse;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use worker::{Headers, Response, ResponseBody, Result};

type Answer = std::result::Result<Response, Box<Refused>>;

/// Who is told. The object may pass on to somebody else's run meanwhile (this one was refused), and they
/// must not be shown that.
pub(crate) enum Viewer {
    /// Somebody with the payment and the request.
    Presenter(RequestIdentity),
    /// Somebody with the run's id.
    Holder(String),
    /// Somebody with the task's id.
    Seeker(String),
}

impl Viewer {
    fn may_see(&self, session: &Session) -> bool {
        let data = session.data.borrow();
        data.record.as_ref().is_some_and(|record| match self {
            Viewer::Presenter(identity) => record.identity() == *identity,
            Viewer::Holder(run_id) => record.run_id == *run_id,
            Viewer::Seeker(task_id) => record.contract_context.as_ref().is_some_and(|e| e.task_id == *task_id),
        })
    }

    fn lost(&self) -> Refusal {
        match self {
            Viewer::Presenter(_) => Refusal::PaymentReused,
            Viewer::Holder(_) | Viewer::Seeker(_) => Refusal::NotFound,
        }
    }
}

/// Waits until the machine shows text, then lets the caller follow it, from where they have read.
pub(crate) async fn stream(
    session: &Rc<Session>,
    listener: Listener,
    told: Viewer,
    last_event_id: Option<u64>,
) -> Answer {
    wait_for(session, &told, |run| !matches!(run.view(), View::Wait)).await?;
    let (view, silent, bookmark, over) = {
        let data = session.data.borrow();
        let bookmark = Bookmark::after(&data.transcript, last_event_id);
        let over = data.run.is_final() && bookmark.position > data.transcript.len();
        (data.run.view(), data.transcript.is_empty(), bookmark, over)
    };
    match view {
        // Paid and given up: what there is of the answer is the caller's.
        View::Refuse(Refusal::Refundable) if !silent => {}
        View::Refuse(refusal) => return Err(refused(session, refusal)),
        View::Wait | View::Show => {}
    }
    let internal = |e: &str| refused(session, fault("caller's body")(e));
    if over {
        return runs::marked(ENDED).map_err(|e| internal(&e.to_string()));
    }
    let (body, writer) = body_writer::pipe().map_err(|_| internal("no stream"))?;
    wasm_bindgen_futures::spawn_local(follow(session.clone(), listener, told, writer, bookmark));
    let headers = headers(session, "text/event-stream; charset=utf-8").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_body(ResponseBody::Stream(body)).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

/// Waits for the whole answer.
pub(crate) async fn document(session: &Rc<Session>, told: Viewer) -> Answer {
    wait_for(session, &told, |run| run.ending().is_some() || matches!(run.view(), View::Refuse(_))).await?;
    let refusal = {
        let data = session.data.borrow();
        match (data.run.ending(), data.run.view()) {
            (Some(Ending::Done), _) => None,
            (Some(Ending::Error(refusal)), _) | (None, View::Refuse(refusal)) => Some(refusal),
            (None, View::Wait | View::Show) => Some(Refusal::Internal),
        }
    };
    if let Some(refusal) = refusal {
        return Err(refused(session, refusal));
    }
    let json = {
        let data = session.data.borrow();
        let text = data.transcript.text();
        data.record.as_ref().map(|d| d.document(text, &data.stats, data.run.receipt()))
    };
    json_response(session, json)
}

/// What whoever wants an answer at once waits for, in milliseconds: mostly it suffices to see a bad payment.
const AT_ONCE: Millis = 2_000;

/// Waits for a task's end, but no longer than until `answer_by`.
pub(crate) async fn task(session: &Rc<Session>, told: Viewer, answer_by: Millis) -> Answer {
    let begun = |run: &Run| !matches!(run.state(), State::New | State::Presented);
    let left = |by: Millis| by.saturating_sub(clock::now());
    within(left(answer_by).max(AT_ONCE), wait_for(session, &told, begun)).await?;
    let begun_or_over = |run: &Run| match run.terms().policy {
        // A stream is followed from when it begins.
        Policy::OnStart => !matches!(run.view(), View::Wait),
        Policy::OnResult | Policy::Free => run.is_final(),
    };
    within(left(answer_by), wait_for(session, &told, begun_or_over)).await?;
    let refusal = match session.data.borrow().run.view() {
        // The payment's fault, and no word about the task.
        View::Refuse(refusal) if session.data.borrow().run.is_replaceable() && refusal.is_about_payment() => {
            Some(refusal)
        }
        _ => None,
    };
    match refusal {
        Some(refusal) => Err(refused(session, refusal)),
        None => self::task_report(session),
    }
}

/// Waits, but no longer than some milliseconds.
async fn within(
    limit: Millis,
    work: impl Future<Output = std::result::Result<(), Box<Refused>>>,
) -> std::result::Result<(), Box<Refused>> {
    clock::within(Duration::from_millis(limit), work).await.unwrap_or(Ok(()))
}

/// How a task stands.
pub(crate) fn task_report(session: &Session) -> Answer {
    let internal = |e: &str| refused(session, fault("task")(e));
    let told = session.task().ok_or_else(|| internal("no contract"))?;
    let mut told = told;
    {
        let data = session.data.borrow();
        let run_id = data.record.as_ref().map(|d| ("x-run-id".to_owned(), d.run_id.clone()));
        told.headers.extend(run_id);
        told.headers.extend(data.run.receipt().into_iter().flat_map(settled_headers));
    }
    runs::task_report(&told).map_err(|e| internal(&e.to_string()))
}

/// Where the run stands, and its output once that is to be shown.
pub(crate) fn status(session: &Session) -> Answer {
    let json = {
        let data = session.data.borrow();
        data.record.as_ref().map(|d| d.status(&data.run, &data.stats, data.transcript.text()))
    };
    let response = json_response(session, json)?;
    if session.data.borrow().run.is_busy() {
        // Without it a caller asks again when they like.
        let _ = response.headers().set("retry-after", "1");
    }
    Ok(response)
}

fn json_response(session: &Session, json: Option<String>) -> Answer {
    let internal = |e: &str| refused(session, fault("caller's document")(e));
    let json = json.ok_or_else(|| internal("no record"))?;
    let headers = headers(session, "application/json").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_bytes(json.into_bytes()).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

async fn wait_for(
    session: &Session,
    told: &Viewer,
    ready: impl Fn(&Run) -> bool,
) -> std::result::Result<(), Box<Refused>> {
    loop {
        let version = session.updates.version();
        if !told.may_see(session) {
            return Err(plain(told.lost()));
        }
        if ready(&session.data.borrow().run) {
            return Ok(());
        }
        session.updates.changed_since(version).await;
    }
}

/// How far a caller has read, and of which edition.
#[derive(Clone, Copy)]
struct Bookmark {
    position: usize,
    edition: u32,
    /// What the caller has read before is not part of this edition.
    restarted: bool,
}

impl Bookmark {
    fn after(transcript: &crate::rules::record::transcript::Transcript, last_event_id: Option<u64>) -> Self {
        let position = last_event_id.map(|id| transcript.position_of(id));
        Self {
            position: position.flatten().unwrap_or_default(),
            edition: transcript.edition,
            restarted: matches!(position, Some(None)),
        }
    }
}

/// Writes the transcript to one caller, to its end, as it grows.
async fn follow(session: Rc<Session>, _listener: Listener, told: Viewer, writer: BodyWriter, mut bookmark: Bookmark) {
    loop {
        let version = session.updates.version();
        if !told.may_see(&session) {
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
            session.updates.changed_since(version).await;
        }
    }
}

/// The next bytes for a caller; the flag says that they are the last.
fn next_chunk(session: &Session, bookmark: &mut Bookmark) -> (Vec<u8>, bool) {
    let data = session.data.borrow();
    let run_id = data.record.as_ref().map(|d| d.run_id.clone());
    let charged = data.run.receipt().is_some();
    let error = |refusal: &Refusal| events::error(refusal, run_id.as_deref(), charged);
    if bookmark.position == 0 {
        bookmark.edition = data.transcript.edition;
    }
    let mut chunk = Vec::new();
    if std::mem::take(&mut bookmark.restarted) {
        sse::write(&mut chunk, data.transcript.event_id(0), &events::restart(run_id.as_deref()));
    }
    let last = if data.transcript.edition != bookmark.edition {
        // The answer is being written anew; this caller has seen part of the old one.
        Some(error(&Refusal::Interrupted))
    } else {
        let (text, next) = data.transcript.events(bookmark.position);
        chunk.extend(text);
        bookmark.position = next;
        match data.run.ending().filter(|_| next >= data.transcript.len()) {
            Some(Ending::Done) => data.record.as_ref().map(|d| d.done_event(&data.stats, data.run.receipt())),
            Some(Ending::Error(refusal)) => Some(error(&refusal)),
            None => None,
        }
    };
    match &last {
        Some(event) if data.run.is_final() && data.transcript.edition == bookmark.edition => {
            let id = data.transcript.event_id(bookmark.position.saturating_add(1));
            sse::write(&mut chunk, id, event);
        }
        Some(event) => sse::write_unnumbered(&mut chunk, event),
        None => {}
    }
    (chunk, last.is_some())
}

fn headers(session: &Session, content_type: &str) -> Result<Headers> {
    let data = session.data.borrow();
    let headers = Headers::new();
    headers.set("content-type", content_type)?;
    headers.set("cache-control", "private, no-store")?;
    if let Some(record) = &data.record {
        headers.set("x-run-id", &record.run_id)?;
        headers.set("content-location", &format!("/runs/{}", record.run_id))?;
    }
    if data.run.terms().policy == Policy::Free {
        headers.set("x-owner-test", "true")?;
    }
    for (name, value) in data.run.receipt().into_iter().flat_map(settled_headers) {
        headers.set(&name, &value)?;
    }
    Ok(headers)
}
