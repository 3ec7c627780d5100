//! How large a pattern is, and how much work it is to match.

use super::{too_large, MAX_STATES};

/// How much work a part of a pattern is.
#[derive(Clone, Copy)]
pub struct Size {
    pub states: u64,
    /// An upper bound of the states in which a match can be at the same time, if it enters this part at one character.
    pub at_once: u64,
    /// How many characters the part matches, where that is always the same number.
    pub length: Option<u64>,
}

impl Size {
    pub const NOTHING: Size = Size { states: 0, at_once: 0, length: Some(0) };

    pub fn of(states: u64, length: u64) -> Size {
        Size { states, at_once: states, length: Some(length) }
    }

    /// This part, and then the next.
    pub fn then(self, next: Size) -> Size {
        let at_once = match (self.length, next.length) {
            (None, _) => self.at_once + next.states,
            (Some(0), _) | (_, Some(0)) => self.at_once + next.at_once,
            // A match has left the first part when it is in the next.
            _ => self.at_once.max(next.at_once),
        };
        let length = self.length.zip(next.length).map(|(a, b)| a.saturating_add(b));
        Size { states: self.states + next.states, at_once, length }
    }

    /// This part, or the other.
    pub fn or(self, other: Size) -> Size {
        let length = self.length.filter(|_| self.length == other.length);
        Size { states: self.states + other.states + 1, at_once: self.at_once + other.at_once + 1, length }
    }

    /// This part from `min` to `max` times, written out.
    pub fn repeated(self, min: u64, max: Option<u64>) -> Result<Size, String> {
        let copies = max.unwrap_or(min).max(1);
        let splits = max.map_or(2, |max| max - min);
        let states = self.states.max(1).saturating_mul(copies).saturating_add(splits);
        if states > MAX_STATES {
            return Err(too_large());
        }
        match self.length.filter(|length| *length > 0 && max == Some(min)) {
            Some(length) => Ok(Size { states, at_once: self.at_once, length: Some(length.saturating_mul(min)) }),
            None => Ok(Size { states, at_once: states, length: None }),
        }
    }
}
