//! Webhooks to seekers: where one may go, how it is signed (Standard Webhooks), and when it is tried again.

use crate::rules::run::Millis;
use crate::wire::base64;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use sha2::Sha256;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Waits before each further attempt: an answer that is not a 2xx is waited out for half a day.
const WAITS: [Millis; 9] = [5_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 14_400_000];
/// What a secret's text begins with.
pub const SECRET_PREFIX: &str = "whsec_";

/// One message, until it has been taken or given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The same for every attempt: who hears it twice knows.
    pub id: String,
    /// `task_completed` or `task_failed`.
    pub event: String,
    /// When it happened.
    pub at: Millis,
    /// Attempts made.
    pub attempts: u32,
    /// When to try next; `None`: it has been taken, or given up.
    pub due: Option<Millis>,
    /// When it was taken.
    pub delivered_at: Option<Millis>,
    /// What the last attempt came to: a status, or our word. Nothing of the answer's text.
    pub last: Option<String>,
}

impl Webhook {
    /// Of an execution that ended at `now`.
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

    /// An attempt has come to this at `now`.
    pub fn tried(&mut self, outcome: Outcome, now: Millis) {
        let waited = usize::try_from(self.attempts).unwrap_or(usize::MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.due = match outcome {
            Outcome::Status(200..=299) | Outcome::Status(410) | Outcome::Refused(_) => None,
            Outcome::Status(_) | Outcome::NoAnswer(_) => WAITS.get(waited).map(|wait| now.saturating_add(*wait)),
        };
        if let Outcome::Status(200..=299) = outcome {
            self.delivered_at = Some(now);
        }
        self.last = Some(match outcome {
            Outcome::Status(status) => format!("HTTP {status}"),
            Outcome::NoAnswer(why) | Outcome::Refused(why) => why.to_owned(),
        });
    }

    /// For the seeker's eyes.
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
            "next_attempt_at": self.due.map(crate::wire::timestamp::format),
            "delivered_at": self.delivered_at.map(crate::wire::timestamp::format),
        })
    }
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer. 410: the seeker wants no more of it.
    Status(u16),
    /// None, for this reason.
    NoAnswer(&'static str),
    /// It must not be sent.
    Refused(&'static str),
}

/// The signature of a message (Standard Webhooks, "Signature scheme", symmetric): `v1,` and base64.
pub fn signature(secret: &[u8], id: &str, seconds: u64, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    Some(format!("v1,{}", base64::encode(&mac.finalize().into_bytes())))
}

/// A URL, taken apart as the runtime reads it (WHATWG: numbers are IPv4 addresses already, names lower-case).
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// With its colon.
    pub scheme: &'a str,
    /// IPv6 in brackets.
    pub host: &'a str,
    /// User or password.
    pub has_credentials: bool,
}

/// Whether we may send to a URL. `development`: to this machine too, and in clear.
pub fn check(target: Target<'_>, development: bool) -> Result<(), &'static str> {
    if target.has_credentials {
        return Err("a URL without user and password");
    }
    if development && is_this_machine(target.host) && matches!(target.scheme, "http:" | "https:") {
        return Ok(());
    }
    if target.scheme != "https:" {
        return Err("an https URL");
    }
    match address(target.host) {
        Some(address) if is_public(address) => Ok(()),
        Some(_) => Err("a public address"),
        None if is_public_name(target.host) => Ok(()),
        None => Err("a public host"),
    }
}

/// The address that a host is; `None`: it is a name.
pub fn address(host: &str) -> Option<IpAddr> {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    v6.unwrap_or(host).parse().ok()
}

fn is_this_machine(host: &str) -> bool {
    let loopback = |ip: IpAddr| ip.is_loopback();
    host == "localhost" || address(host).is_some_and(loopback)
}

/// Names that lead to machines of one's own, wherever they are asked.
const OWN: [&str; 9] = ["localhost", "local", "internal", "intranet", "private", "corp", "home", "lan", "arpa"];

fn is_public_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit_once('.').map(|(_, last)| last);
    // A single label is a neighbour.
    last.is_some_and(|last| !OWN.contains(&last) && last != "onion" && !last.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether an address is one of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// IANA's special-purpose registry, as far as it is not reachable globally.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    !matches!(
        ip.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Another way to write an IPv4 address: mapped, translated, 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Of what is assigned, 2000::/3 alone is global unicast; not Teredo, benchmarks, ORCHID, documentation.
        [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}
