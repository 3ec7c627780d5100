//! The responses to a run's callers: its text as it grows, one document when it is whole, or its status.

use super::Outcome;
use crate::edge::body_writer;
use crate::edge::body_writer::BodyWriter;
use crate::edge::fault;
use crate::edge::objects::runs;
use crate::edge::objects::runs::Refused;
use crate::engine::{CallerGuard, RunData, Session};
use crate::rules::record::receipt::{rejected_headers, settled_headers};
use crate::rules::record::replay;
use crate::rules::record::replay::{next_chunk, ReadPosition, Start, Viewer};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Ending, Policy, Run, View};
use std::rc::Rc;
use worker::{Headers, Response, ResponseBody, Result};

/// Waits until there is text to show, then sends it as events, from where the caller has read to.
pub(super) async fn stream(
    session: &Rc<Session>,
    caller: CallerGuard,
    viewer: Viewer,
    last_event_id: Option<u64>,
) -> Outcome {
    wait_until(session, &viewer, |run| !matches!(run.view(), View::Wait)).await?;
    let start = replay::start(session.data.borrow().snapshot(), last_event_id);
    let internal = |e: &str| refused(session, fault("caller's stream")(e));
    let position = match start {
        Start::Refuse(refusal) => return Err(refused(session, refusal)),
        Start::NothingLeft => return runs::nothing_left().map_err(|e| internal(&e.to_string())),
        Start::From(position) => position,
    };
    let (body, writer) = body_writer::pipe().map_err(|_| internal("no stream"))?;
    // The response has to be returned before its body is read, so the body is written by a task of its own.
    wasm_bindgen_futures::spawn_local(write_events(session.clone(), caller, viewer, writer, position));
    let headers = headers(session, "text/event-stream; charset=utf-8").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_body(ResponseBody::Stream(body)).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

/// Writes the run's events to one caller as they come, up to the last one.
async fn write_events(
    session: Rc<Session>,
    _caller: CallerGuard,
    viewer: Viewer,
    writer: BodyWriter,
    mut position: ReadPosition,
) {
    loop {
        let version = session.updates.version();
        if !may_see(&viewer, &session) {
            return writer.close().await;
        }
        let chunk = next_chunk(session.data.borrow().snapshot(), &mut position);
        if !chunk.bytes.is_empty() && writer.write(&chunk.bytes).await.is_err() {
            return;
        }
        if chunk.is_last {
            return writer.close().await;
        }
        if chunk.bytes.is_empty() {
            session.updates.changed_since(version).await;
        }
    }
}

/// Waits for the whole answer and sends it as one JSON document.
pub(super) async fn document(session: &Rc<Session>, viewer: Viewer) -> Outcome {
    let is_over = |run: &Run| run.ending().is_some() || matches!(run.view(), View::Refuse(_));
    wait_until(session, &viewer, is_over).await?;
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
    json_response(session, |data| {
        let record = data.record.as_ref()?;
        Some(record.document(data.transcript.text(), &data.stats, data.run.receipt()))
    })
}

/// How far the run is, with its output where that may be shown.
pub(super) fn status(session: &Session) -> Outcome {
    let response = json_response(session, |data| {
        let record = data.record.as_ref()?;
        Some(record.status(&data.run, &data.stats, data.transcript.text()))
    })?;
    if session.data.borrow().run.is_busy() {
        // A header that cannot be set is no reason to fail: without it, the caller chooses when to ask again.
        let _ = response.headers().set("retry-after", "1");
    }
    Ok(response)
}

fn json_response(session: &Session, document: impl FnOnce(&RunData) -> Option<String>) -> Outcome {
    let internal = |e: &str| refused(session, fault("caller's document")(e));
    let json = document(&session.data.borrow()).ok_or_else(|| internal("no record"))?;
    let headers = headers(session, "application/json").map_err(|e| internal(&e.to_string()))?;
    let response = Response::from_bytes(json.into_bytes()).map_err(|e| internal(&e.to_string()))?;
    Ok(response.with_headers(headers))
}

/// Waits until the run is as `is_ready` wants it. Ends early where another run takes its place.
pub(super) async fn wait_until(session: &Session, viewer: &Viewer, is_ready: impl Fn(&Run) -> bool) -> Outcome<()> {
    loop {
        let version = session.updates.version();
        if !may_see(viewer, session) {
            return Err(viewer.replaced().into());
        }
        if is_ready(&session.data.borrow().run) {
            return Ok(());
        }
        session.updates.changed_since(version).await;
    }
}

fn may_see(viewer: &Viewer, session: &Session) -> bool {
    viewer.may_see(session.data.borrow().record.as_deref())
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

/// A refusal of this run: with its id and, where a settlement was asked for, what became of that.
pub(super) fn refused(session: &Session, refusal: Refusal) -> Box<Refused> {
    let data = session.data.borrow();
    let payment = data.record.as_ref().and_then(|record| record.payment.as_ref());
    let settlement = match (data.run.receipt(), &refusal, payment) {
        (Some(receipt), ..) => settled_headers(receipt),
        (None, Refusal::SettlementRejected { .. }, Some(payment)) => rejected_headers(payment, refusal.x402_reason()),
        _ => Vec::new(),
    };
    let run = data.record.as_ref().map(|record| record.run_id.clone());
    Box::new(Refused { refusal, run, settlement, charged: data.run.receipt().is_some() })
}
