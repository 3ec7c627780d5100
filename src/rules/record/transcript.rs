//! The transcript: an append-only log of an answer's text. A position goes in, events come out. Positions count the
//! pieces that were appended. With the edition in front they become the `id:` of their events, by which a caller who
//! comes back says how far they have read.

use super::events;
use crate::wire::sse;

/// Above this many bytes, [`Transcript::write_events`] stops and leaves the rest to the next call.
const BATCH: usize = 64 * 1024;

/// The distance between the ids of two editions. No answer has this many pieces.
const EDITION: u64 = 1_000_000;

/// The text of an answer, in the pieces in which it arrived.
#[derive(Clone, Debug)]
pub struct Transcript {
    text: String,
    /// Where each piece ends in `text`.
    ends: Vec<usize>,
    /// How many pieces have been checkpointed.
    saved: usize,
    /// The number of this attempt at the answer. When Claude is asked again, the text begins anew.
    pub edition: u32,
}

/// The first edition has the number 1, so that no later one has its ids.
impl Default for Transcript {
    fn default() -> Self {
        Self { text: String::new(), ends: Vec::new(), saved: 0, edition: 1 }
    }
}

impl Transcript {
    /// Restores a transcript from its checkpointed pieces.
    pub fn restore(edition: u32, pieces: impl IntoIterator<Item = String>) -> Self {
        let mut transcript = Self { edition, ..Self::default() };
        pieces.into_iter().for_each(|piece| transcript.push(&piece));
        transcript.saved = transcript.ends.len();
        transcript
    }

    pub fn push(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.text.push_str(piece);
            self.ends.push(self.text.len());
        }
    }

    /// Begins a new edition of the answer.
    pub fn clear(&mut self) {
        *self = Self { edition: self.edition.wrapping_add(1), ..Self::default() };
    }

    /// The whole text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of pieces, which is also the position after the last.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where the piece at `position` begins in `text`.
    fn start_of(&self, position: usize) -> usize {
        match position.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(self.text.len()),
            None => 0,
        }
    }

    fn pieces(&self, position: usize) -> impl Iterator<Item = &str> {
        let start = self.start_of(position);
        self.ends.iter().skip(position).scan(start, |from, &end| {
            let piece = self.text.get(*from..end);
            *from = end;
            piece
        })
    }

    /// Appends the pieces from `position` on as events, and returns the position after them.
    pub fn write_events(&self, position: usize, out: &mut Vec<u8>) -> usize {
        let limit = out.len().saturating_add(BATCH);
        let mut next = position;
        for piece in self.pieces(position) {
            next += 1;
            sse::write_data(out, self.event_id(next), |out| events::append_text(out, piece));
            if out.len() > limit {
                break;
            }
        }
        next
    }

    /// The `id:` of the event at `position`. In the first edition it is the position itself.
    pub fn event_id(&self, position: usize) -> u64 {
        self.before_first().saturating_add(position as u64)
    }

    fn before_first(&self) -> u64 {
        u64::from(self.edition.saturating_sub(1)).saturating_mul(EDITION)
    }

    /// The position of a caller whose last event had this id. `None`: that event was of another edition, so the caller
    /// has to read this one from its beginning.
    pub fn position_of(&self, event_id: u64) -> Option<usize> {
        let position = event_id.checked_sub(self.before_first())?;
        // The position after the last one is the event that ends the answer.
        usize::try_from(position).ok().filter(|position| *position <= self.len().saturating_add(1))
    }

    /// The bytes of text that are in no checkpoint yet.
    pub fn unsaved_bytes(&self) -> usize {
        self.text.len().saturating_sub(self.start_of(self.saved))
    }

    /// The pieces that are in no checkpoint yet, with the position of the first.
    pub fn unsaved(&self) -> (usize, Vec<String>) {
        (self.saved, self.pieces(self.saved).map(str::to_owned).collect())
    }

    /// Notes that all pieces are in a checkpoint now.
    pub fn saved(&mut self) {
        self.saved = self.ends.len();
    }
}
