//! What a run carries with it: what the front door hands to the run object, and what the object keeps.

use super::config::Limits;
use super::input::Input;
use super::ledger::{row, Facts, Row};
use super::output::{instructions, structured, OutputType};
use super::quote::Payment;
use super::refusal::{Refusal, Retry};
use super::run::{Ending, Millis, Policy, Receipt, Release, Run, Terms, View};
use super::task::{Engagement, OBJECT_PREFIX};
use super::template::{render, Secret, NEUTRAL_MESSAGE};
use crate::wire::anthropic::{StopReason, Usage};
use crate::wire::x402::encode_header;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// How a caller wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Representation {
    /// Server-Sent Events, as the answer is written.
    Stream,
    /// One JSON document, when it is whole.
    Json,
}

/// What the front door hands to the run object: a validated request and a payment that matches the
/// terms, or an owner's test. It lives in memory only; see [`Dossier`] for what is stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Presentation {
    /// Which template.
    pub template_id: String,
    /// Whose.
    pub creator_id: String,
    /// The model asked.
    pub model: String,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: u32,
    /// The template's prompt. Secret.
    pub prompt: Secret,
    /// The input, defaults filled in.
    pub input: Input,
    /// `None`: an owner's test.
    pub payment: Option<Payment>,
    /// The name of its object: the payment's, or drawn for an owner's test.
    pub object: String,
    /// Digest of method, path, query and body: one payment buys one request.
    pub digest: String,
    /// How this caller wants the answer.
    pub representation: Representation,
    /// When the template's text is shown.
    pub release: Release,
    /// Why this cannot begin a run. It may still join the run that the payment has bought already.
    pub objection: Option<Refusal>,
    /// The contract that it executes.
    pub engagement: Option<Engagement>,
    /// When a contract's caller wants an answer, result or not. Unix milliseconds.
    pub answer_by: Millis,
}

/// The id of a run: it leads to the object, and its second half, drawn at random, is known only to who was
/// told it. (The payment, and with it the object's name, is public once it is on the chain.)
pub fn run_id(object: &str, random: &str) -> String {
    format!("run_{object}_{random}")
}

/// The object that an id leads to; `None` where it is no run's id.
pub fn object_of(run_id: &str) -> Option<&str> {
    let (object, random) = run_id.strip_prefix("run_")?.rsplit_once('_')?;
    let name = object.strip_prefix("test_").or_else(|| object.strip_prefix(OBJECT_PREFIX));
    (is_drawn(name.unwrap_or(object)) && is_drawn(random)).then_some(object)
}

/// Whether a text has the form of 128 bits, drawn or of a digest, as our ids have them.
pub(super) fn is_drawn(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What Claude is asked: the filled-in prompt. Secret as a whole, and sealed where it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The rendered template.
    pub system: Secret,
    /// The user's turn.
    pub user: Secret,
    /// A schema for Claude's structured outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
}

/// What the object keeps of a run in clear: nothing secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dossier {
    /// The run's id: who holds it may look at the run.
    pub run_id: String,
    /// Which template.
    pub template_id: String,
    /// Whose.
    pub creator_id: String,
    /// The model asked.
    pub model: String,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: u32,
    /// `None`: an owner's test.
    pub payment: Option<Payment>,
    /// See [`Presentation::digest`].
    pub digest: String,
    /// When it was first presented.
    pub started_at: Millis,
    /// The contract that it executes.
    #[serde(default)]
    pub engagement: Option<Engagement>,
}

/// What a caller came with: who holds the same payment and asks the same is shown the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Of the whole signed payload, so that knowing a nonce is not enough. `None`: an owner's test.
    pub proof: Option<String>,
    /// See [`Presentation::digest`].
    pub digest: String,
}

impl Ticket {
    fn of(payment: &Option<Payment>, digest: &str, engagement: &Option<Engagement>) -> Self {
        // A contract is executed once, whatever is presented with it.
        let payment = payment.as_ref().filter(|_| engagement.is_none());
        Self { proof: payment.map(|p| p.proof.clone()), digest: digest.to_owned() }
    }
}

/// What a run has used so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Tokens of this edition of the answer.
    pub usage: Usage,
    /// Tokens of the editions before it: the creator pays Anthropic for those too.
    pub before: Usage,
    /// Why Claude stopped.
    pub stop_reason: Option<StopReason>,
    /// The facilitator that was asked last, by its URL.
    pub facilitator: Option<String>,
    /// Claude was asked to mend an answer.
    #[serde(default)]
    pub repaired: bool,
}

impl Tally {
    /// A new edition begins.
    pub fn next_edition(&mut self) {
        self.before = self.all();
        self.usage = Usage::default();
        self.stop_reason = None;
    }

    /// Tokens of all editions.
    pub fn all(&self) -> Usage {
        let (a, b) = (self.before, self.usage);
        Usage {
            input_tokens: a.input_tokens.saturating_add(b.input_tokens),
            output_tokens: a.output_tokens.saturating_add(b.output_tokens),
            cache_creation_input_tokens: a.cache_creation_input_tokens.saturating_add(b.cache_creation_input_tokens),
            cache_read_input_tokens: a.cache_read_input_tokens.saturating_add(b.cache_read_input_tokens),
        }
    }
}

impl Presentation {
    /// See [`Ticket`].
    pub fn ticket(&self) -> Ticket {
        Ticket::of(&self.payment, &self.digest, &self.engagement)
    }

    /// What a run of it is held to that sets out at `now`. `release` may be less than the template allows.
    pub fn terms(&self, release: Release, limits: &Limits, now: Millis) -> Terms {
        Terms {
            policy: match (&self.payment, self.representation) {
                _ if self.engagement.is_some() => self.engaged_policy(),
                (None, _) => Policy::Free,
                (Some(_), Representation::Stream) => Policy::OnStart,
                (Some(_), Representation::Json) => Policy::OnResult,
            },
            release,
            start_attempts: limits.start_attempts,
            paid_attempts: limits.paid_attempts,
            valid_until: self.payment.as_ref().map_or(0, |p| p.valid_before.saturating_mul(1000)),
            detached: self.engagement.is_some(),
            due_by: self.engagement.as_ref().map(|e| e.due_by(now)),
            kept_until: self.engagement.as_ref().map(|e| e.deadline),
        }
    }

    fn engaged_policy(&self) -> Policy {
        match self.engagement.as_ref().map(|e| e.output) {
            // Delivery begins with the first text.
            Some(OutputType::Stream) => Policy::OnStart,
            _ => Policy::OnResult,
        }
    }

    /// Whether its text may be shown before it is settled, as far as the template goes.
    pub fn may_be_shown_early(&self) -> bool {
        let stream = self.representation == Representation::Stream;
        self.release == Release::Verified && stream && self.payment.is_some()
    }

    /// Fills in the prompt.
    pub fn question(&self) -> Question {
        let user = self.input.user_message.clone().unwrap_or_else(|| NEUTRAL_MESSAGE.to_owned());
        let wanted = self.engagement.as_ref().map(|e| (e.output, e.output_schema.as_ref()));
        let form = wanted.and_then(|(output, schema)| instructions(output, schema));
        Question {
            system: Secret::new(render(self.prompt.reveal(), &self.input.values)),
            user: Secret::new(form.map_or_else(|| user.clone(), |form| format!("{user}\n\n{form}"))),
            format: wanted.and_then(|(output, schema)| structured(output, schema)),
        }
    }

    /// What is kept of it.
    pub fn dossier(self, run_id: String, now: Millis) -> Dossier {
        Dossier {
            run_id,
            template_id: self.template_id,
            creator_id: self.creator_id,
            model: self.model,
            max_tokens: self.max_tokens,
            payment: self.payment,
            digest: self.digest,
            started_at: now,
            engagement: self.engagement,
        }
    }
}

impl Dossier {
    /// See [`Ticket`].
    pub fn ticket(&self) -> Ticket {
        Ticket::of(&self.payment, &self.digest, &self.engagement)
    }

    /// The ledger's row of this run, at rest since `now`.
    pub fn row(&self, run: &Run, tally: &Tally, now: Millis) -> Row {
        let payment = self.payment.as_ref();
        row(
            run,
            Facts {
                run_id: &self.run_id,
                template_id: &self.template_id,
                creator_id: &self.creator_id,
                model: &self.model,
                payer: payment.map(|p| p.payer.to_string()),
                price: payment.map(|p| (p.network.as_str(), p.asset.to_string(), p.amount.to_string())),
                usage: tally.all(),
                stop_reason: tally.stop_reason.as_ref(),
                started_at: self.started_at,
                duration_ms: now.saturating_sub(self.started_at),
            },
        )
    }

    /// The event that ends a whole answer.
    pub fn done_event(&self, tally: &Tally, receipt: Option<&Receipt>) -> Value {
        json!({
            "type": "done",
            "usage": tally.usage,
            "stop_reason": tally.stop_reason,
            "run": self.run_id,
            "receipt": receipt.map(receipt_json),
        })
    }

    /// The whole answer as one document.
    pub fn document(&self, text: &str, tally: &Tally, receipt: Option<&Receipt>) -> Value {
        json!({
            "run": self.run_id,
            "status": "delivered",
            "model": self.model,
            "output": text,
            "stop_reason": tally.stop_reason,
            "usage": tally.usage,
            "receipt": receipt.map(receipt_json),
        })
    }
}

impl Dossier {
    /// Where the run stands, for who holds its id.
    pub fn status(&self, run: &Run, tally: &Tally, text: &str) -> Value {
        let charged = run.receipt().is_some();
        let refusal = match (run.view(), run.ending()) {
            (_, Some(Ending::Error(refusal))) | (View::Refuse(refusal), _) => Some(refusal),
            _ => None,
        };
        let known = refusal.as_ref().is_none_or(Refusal::knows_charge) && !run.is_settling();
        let error = refusal.map(|refusal| {
            let retryable = matches!(refusal.retry(), Retry::After(_));
            json!({"code": refusal.code(), "message": refusal.message_when(charged), "retryable": retryable})
        });
        let row = self.row(run, tally, self.started_at);
        json!({
            "run": self.run_id,
            "status": row.status,
            "model": self.model,
            "startedAt": self.started_at,
            "charged": known.then_some(charged),
            "amount": row.amount,
            "asset": row.asset,
            "network": row.network,
            "receipt": run.receipt().map(receipt_json),
            "output": (run.ending() == Some(Ending::Done)).then_some(text),
            "stop_reason": tally.stop_reason,
            "usage": tally.usage,
            "error": error,
            "stream": format!("/runs/{}/stream", self.run_id),
        })
    }
}

/// The headers that tell of a settlement: v2's and v1's, each with the network in its own words.
fn payment_response(settlement: &Value, network_v1: &str) -> Vec<(String, String)> {
    let mut v1 = settlement.clone();
    if let Some(map) = v1.as_object_mut() {
        map.insert("network".to_owned(), network_v1.into());
    }
    let header = |name: &str, json: &Value| (name.to_owned(), encode_header(json));
    vec![header("payment-response", settlement), header("x-payment-response", &v1)]
}

/// The headers of a settlement that was made.
pub fn settled_headers(receipt: &Receipt) -> Vec<(String, String)> {
    payment_response(&receipt_json(receipt), &receipt.network_v1)
}

/// The headers of a settlement that was refused, with x402's code for why.
pub fn rejected_headers(payment: &Payment, reason: String) -> Vec<(String, String)> {
    let settlement = json!({
        "success": false,
        "errorReason": reason,
        "transaction": "",
        "network": payment.network,
        "payer": payment.payer,
    });
    payment_response(&settlement, &payment.network_v1)
}

/// A receipt as x402 v2 says it (5.3).
fn receipt_json(receipt: &Receipt) -> Value {
    json!({
        "success": true,
        "transaction": receipt.transaction,
        "network": receipt.network,
        "payer": receipt.payer,
    })
}
