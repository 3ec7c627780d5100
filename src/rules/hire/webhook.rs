//! Webhooks to seekers: one message per ended execution, its signature (Standard Webhooks), and when it is sent again.

use crate::rules::run::Millis;
use crate::wire::base64;
use crate::wire::timestamp;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use sha2::Sha256;

/// Waits before the second and each further attempt. Together they are some twelve hours: a task is kept for a day.
const RETRY_DELAYS: [Millis; 9] =
    [5_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 14_400_000];
/// Standard Webhooks' prefix of a secret.
pub const SECRET_PREFIX: &str = "whsec_";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The same for every attempt, so that the seeker can recognise a message that comes twice.
    pub id: String,
    /// Either `task_completed` or `task_failed`, in HIRE's words.
    pub event: String,
    /// When the execution ended.
    pub at: Millis,
    /// The number of attempts made.
    pub attempts: u32,
    /// When to send it next; `None`: it was delivered, or given up.
    pub due: Option<Millis>,
    pub delivered_at: Option<Millis>,
    /// The outcome of the last attempt: a status or a reason of ours, and nothing of the response's text.
    pub last: Option<String>,
}

impl Webhook {
    /// The message of an execution that ended at `now`.
    pub fn new(run_id: &str, event: &str, now: Millis) -> Self {
        Self {
            id: format!("msg_{run_id}_{event}"),
            event: event.to_owned(),
            at: now,
            attempts: 0,
            due: Some(now),
            delivered_at: None,
            last: None,
        }
    }

    pub fn record_attempt(&mut self, outcome: Outcome, now: Millis) {
        let attempts_before = usize::try_from(self.attempts).unwrap_or(usize::MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.due = match outcome {
            // 410 is how Standard Webhooks lets a receiver unsubscribe.
            Outcome::Status(200..=299) | Outcome::Status(410) | Outcome::Refused(_) => None,
            Outcome::Status(_) | Outcome::NoAnswer(_) => {
                RETRY_DELAYS.get(attempts_before).map(|delay| now.saturating_add(*delay))
            }
        };
        if let Outcome::Status(200..=299) = outcome {
            self.delivered_at = Some(now);
        }
        self.last = Some(match outcome {
            Outcome::Status(status) => format!("HTTP {status}"),
            Outcome::NoAnswer(why) | Outcome::Refused(why) => why.to_owned(),
        });
    }

    /// The state of the delivery, as a task's report shows it to the seeker.
    pub fn describe(&self, url: &str) -> Value {
        let state = match (self.delivered_at, self.due) {
            (Some(_), _) => "delivered",
            (None, Some(_)) => "pending",
            (None, None) => "dead",
        };
        json!({
            "id": self.id,
            "event": self.event,
            "url": url,
            "state": state,
            "attempts": self.attempts,
            "last": self.last,
            "next_attempt_at": self.due.map(timestamp::format),
            "delivered_at": self.delivered_at.map(timestamp::format),
        })
    }
}

/// The outcome of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered with this status.
    Status(u16),
    /// There was no answer, for this reason. It is tried again.
    NoAnswer(&'static str),
    /// It must not be sent, for this reason. It is not tried again.
    Refused(&'static str),
}

/// The signature of a message (Standard Webhooks, "Signature scheme", symmetric): `v1,` and base64.
pub fn signature(secret: &[u8], id: &str, seconds: u64, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    Some(format!("v1,{}", base64::encode(&mac.finalize().into_bytes())))
}
