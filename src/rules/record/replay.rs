//! Replay: what a caller who follows a run is sent next. A position goes in, bytes come out; the caller of
//! [`next_chunk`] writes them to whoever follows.

use super::events;
use super::run_record::{RunRecord, RunStats};
use super::transcript::Transcript;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Ending, Run, View};
use crate::wire::sse;

/// A run at one moment, as far as its followers are shown it.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    pub run: &'a Run,
    pub record: &'a RunRecord,
    pub stats: &'a RunStats,
    pub transcript: &'a Transcript,
}

/// How far a follower has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPosition {
    /// How many pieces of the transcript they have.
    pieces: usize,
    /// The edition of the transcript that those are part of.
    edition: u32,
    /// What they read before belongs to an older edition, and they have not been told so.
    restart: bool,
}

impl ReadPosition {
    /// The position of a follower whose last event had this id. `None`: they have read nothing.
    fn after(transcript: &Transcript, last_event_id: Option<u64>) -> Self {
        let pieces = last_event_id.map(|id| transcript.position_of(id));
        Self {
            pieces: pieces.flatten().unwrap_or_default(),
            edition: transcript.edition,
            restart: matches!(pieces, Some(None)),
        }
    }
}

/// How the answer to a follower begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is no text to show.
    Refuse(Refusal),
    /// They have read everything, and nothing more will come.
    NothingLeft,
    /// Events are sent from this position on.
    From(ReadPosition),
}

/// Decides how to answer a follower, once the run does not say [`View::Wait`] any more.
pub fn start(snapshot: Snapshot<'_>, last_event_id: Option<u64>) -> Start {
    let Snapshot { run, transcript, .. } = snapshot;
    match run.view() {
        // Paid and given up: the caller gets the part of the answer that there is.
        View::Refuse(Refusal::Refundable) if !transcript.is_empty() => {}
        View::Refuse(refusal) => return Start::Refuse(refusal),
        View::Wait | View::Show => {}
    }
    let position = ReadPosition::after(transcript, last_event_id);
    match run.is_final() && position.pieces > transcript.len() {
        true => Start::NothingLeft,
        false => Start::From(position),
    }
}

/// What is sent next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whole events. Empty: there is nothing new.
    pub bytes: Vec<u8>,
    pub is_last: bool,
}

/// The events after `position`, which is moved behind them.
pub fn next_chunk(snapshot: Snapshot<'_>, position: &mut ReadPosition) -> Chunk {
    let Snapshot { run, record, stats, transcript } = snapshot;
    let run_id = Some(record.run_id.as_str());
    let charged = run.receipt().is_some();
    if position.pieces == 0 {
        position.edition = transcript.edition;
    }
    let mut bytes = Vec::new();
    if std::mem::take(&mut position.restart) {
        sse::write(&mut bytes, transcript.event_id(0), &events::restart(run_id));
    }
    let last = if transcript.edition != position.edition {
        // The answer is being written anew, and this follower has read part of the old one.
        Some(events::error(&Refusal::Interrupted, run_id, charged))
    } else {
        position.pieces = transcript.write_events(position.pieces, &mut bytes);
        match run.ending().filter(|_| position.pieces >= transcript.len()) {
            Some(Ending::Done) => Some(record.done_event(stats, run.receipt())),
            Some(Ending::Error(refusal)) => Some(events::error(&refusal, run_id, charged)),
            None => None,
        }
    };
    match &last {
        // Only an end that stays has an id: a follower who comes back after any other gets what has come since.
        Some(event) if run.is_final() && transcript.edition == position.edition => {
            let id = transcript.event_id(position.pieces.saturating_add(1));
            sse::write(&mut bytes, id, event);
        }
        Some(event) => sse::write_unnumbered(&mut bytes, event),
        None => {}
    }
    Chunk { bytes, is_last: last.is_some() }
}
