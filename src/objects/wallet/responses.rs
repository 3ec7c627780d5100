//! The responses to a run's callers: its text as it grows, one document when it is whole, or its status.

use super::Outcome;
use crate::edge::body_writer;
use crate::edge::body_writer::BodyWriter;
use crate::edge::objects::wallets;
use crate::edge::objects::wallets::Refused;
use crate::edge::{clock, fault};
use crate::engine::{CallerGuard, RunData, Session};
use crate::routes::cors;
use crate::rules::ids::run_path;
use crate::rules::record::receipt::{rejected_headers, settled_headers};
use crate::rules::record::replay;
use crate::rules::record::replay::{next_chunk, ReadPosition, Start};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Ending, Millis, Policy, Run, View};
use std::rc::Rc;
use std::time::Duration;
use worker::{Headers, Response, ResponseBody, Result};

/// For how long text is gathered before it is written to a caller, in milliseconds.
const GATHER: Millis = 8;
/// The longest, where the runtime has more to do than it can.
const GATHER_MAX: Millis = 200;

/// Waits until there is text to show, then sends it as events, from where the caller has read to.
pub(super) async fn stream(session: &Rc<Session>, caller: CallerGuard, last_event_id: Option<u64>) -> Outcome {
    wait_until(session, |run| !matches!(run.view(), View::Wait)).await;
    let start = replay::start(session.snapshot(&session.data.borrow()), last_event_id);
    let internal = |e: &str| refused(session, fault("caller's stream")(e));
    let position = match start {
        Start::Refuse(refusal) => return Err(refused(session, refusal)),
        Start::NothingLeft => return wallets::nothing_left().map_err(|e| internal(&e.to_string())),
        Start::From(position) => position,
    };
    let (body, writer) = body_writer::pipe().map_err(|_| internal("no stream"))?;
    // The response has to be returned before its body is read, so the body is written by a task of its own.
    wasm_bindgen_futures::spawn_local(write_events(session.clone(), caller, writer, position));
    let headers = headers(session, "text/event-stream; charset=utf-8").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_body(ResponseBody::Stream(body)).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

/// Writes the run's events to one caller as they come, up to the last one.
///
/// Text that comes within a few milliseconds of the last is written together with what follows: waking up for a piece of
/// text costs more than the piece. The first text and the end are written at once. Where the runtime is behind with its
/// work, more is gathered, so that all streams of the isolate go on.
async fn write_events(session: Rc<Session>, _caller: CallerGuard, writer: BodyWriter, mut position: ReadPosition) {
    let (mut written_at, mut wait) = (0, GATHER);
    loop {
        let version = session.updates.version();
        let chunk = next_chunk(session.snapshot(&session.data.borrow()), &mut position);
        if !chunk.bytes.is_empty() && writer.write(&chunk.bytes).await.is_err() {
            return;
        }
        if chunk.is_last {
            return writer.close().await;
        }
        if !chunk.bytes.is_empty() {
            written_at = clock::now();
            continue;
        }
        session.updates.changed_since(version).await;
        let left = wait.saturating_sub(clock::now().saturating_sub(written_at));
        if left > 0 {
            let late = gather(&session, left).await;
            wait = GATHER.saturating_add(late.saturating_mul(4)).min(GATHER_MAX);
        }
    }
}

/// Waits for some milliseconds, or until the run changes its state. Returns how much later than asked for it ended.
async fn gather(session: &Session, left: Millis) -> Millis {
    let version = session.transitions.version();
    let has_ended = session.data.borrow().run.ending().is_some();
    if has_ended {
        return 0;
    }
    let begun = clock::now();
    let time = worker::Delay::from(Duration::from_millis(left));
    futures::future::select(std::pin::pin!(session.transitions.changed_since(version)), time).await;
    clock::now().saturating_sub(begun).saturating_sub(left)
}

/// Waits for the whole answer and sends it as one JSON document.
pub(super) async fn document(session: &Session) -> Outcome {
    wait_until(session, |run| run.ending().is_some() || matches!(run.view(), View::Refuse(_))).await;
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
    json_response(session, |data| session.record.document(data.transcript.text(), &data.stats, data.run.receipt()))
}

/// How far the run is, with its output where that may be shown.
pub(super) fn status(session: &Session) -> Outcome {
    let response =
        json_response(session, |data| session.record.status(&data.run, &data.stats, data.transcript.text()))?;
    if session.data.borrow().run.is_busy() {
        // A header that cannot be set is no reason to fail: without it, the caller chooses when to ask again.
        let _ = response.headers().set("retry-after", "1");
    }
    Ok(response)
}

fn json_response(session: &Session, document: impl FnOnce(&RunData) -> String) -> Outcome {
    let internal = |e: &str| refused(session, fault("caller's document")(e));
    let json = document(&session.data.borrow());
    let headers = headers(session, "application/json").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_bytes(json.into_bytes()).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

/// Waits until the run is as `is_ready` wants it.
pub(super) async fn wait_until(session: &Session, is_ready: impl Fn(&Run) -> bool) {
    loop {
        let version = session.transitions.version();
        if is_ready(&session.data.borrow().run) {
            return;
        }
        session.transitions.changed_since(version).await;
    }
}

fn headers(session: &Session, content_type: &str) -> Result<Headers> {
    let data = session.data.borrow();
    let headers = Headers::new();
    headers.set("content-type", content_type)?;
    headers.set("cache-control", "private, no-store")?;
    cors::set_headers(&headers)?;
    headers.set("x-run-id", &session.record.run_id)?;
    headers.set("content-location", &run_path(&session.record.run_id))?;
    if data.run.terms().policy == Policy::Free {
        headers.set("x-owner-test", "true")?;
    }
    for (name, value) in data.run.receipt().into_iter().flat_map(settled_headers) {
        headers.set(&name, &value)?;
    }
    Ok(headers)
}

/// A refusal of this run: with its id and, where a settlement was asked for, what became of that.
pub(super) fn refused(session: &Session, refusal: Refusal) -> Box<Refused> {
    let data = session.data.borrow();
    let settlement = match (data.run.receipt(), &refusal, &session.record.payment) {
        (Some(receipt), ..) => settled_headers(receipt),
        (None, Refusal::SettlementRejected { .. }, Some(payment)) => rejected_headers(payment, refusal.x402_reason()),
        _ => Vec::new(),
    };
    // Nothing is kept of a payment that is not good.
    let run = data.run.is_kept().then(|| session.record.run_id.clone());
    Box::new(Refused { verify_first: false, refusal, run, settlement, charged: data.run.receipt().is_some() })
}
