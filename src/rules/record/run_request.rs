//! The request that a route sends to the run object.

use crate::rules::config::{Config, Limits};
use crate::rules::hire::context::ContractContext;
use crate::rules::hire::instructions::{instructions, structured_output_schema};
use crate::rules::hire::output::OutputType;
use crate::rules::payment::identifier::IdempotencyKey;
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Policy, Release, Terms};
use crate::rules::secret::Secret;
use crate::rules::template::input::Input;
use crate::rules::template::{render, Template, NEUTRAL_MESSAGE};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form in which a caller gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Representation {
    /// Server-Sent Events, as the answer is written.
    Stream,
    /// One JSON document, once the answer is whole.
    Json,
}

/// A validated request, with a payment that matches the quote, or an owner's test. It is never stored as a whole: the
/// object keeps a `RunRecord` of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunRequest {
    pub template_id: String,
    pub creator_id: String,
    pub model: String,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: u32,
    /// The template's prompt, with its tags.
    pub prompt: Secret,
    pub input: Input,
    /// `None`: an owner's test.
    pub payment: Option<Payment>,
    /// The payment is by a wallet of the template's creator, so the run counts as a test and earns nothing.
    pub own_payment: bool,
    /// The name of the object that keeps the run.
    pub object: String,
    /// The run's name there: the payment's, the id of the contract's task, or random for an owner's test.
    pub name: String,
    /// `None`: the request has none.
    pub key: Option<IdempotencyKey>,
    /// The URL of the facilitator that has verified the payment already.
    pub verified_by: Option<String>,
    /// Digest of method, path, query and body: one payment buys one request.
    pub digest: String,
    pub representation: Representation,
    /// When the creator allows a stream's text to be shown.
    pub release: Release,
    /// Why this request cannot begin a run. It may still join a run that the payment bought before.
    pub begin_refusal: Option<Refusal>,
    /// `None`: the request executes no contract.
    pub contract_context: Option<ContractContext>,
    /// When the caller of a contract's execution gets an answer at the latest, with or without a result.
    pub answer_by: Millis,
}

/// The prompt as Claude gets it. All of it is secret, and it is sealed where it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenderedPrompt {
    /// The template, filled in.
    pub system: Secret,
    /// The user's turn, with the instructions for a contract's output.
    pub user: Secret,
    /// A schema for Claude's structured outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
}

impl RenderedPrompt {
    /// Its length in bytes, without the schema of its format.
    pub fn size(&self) -> usize {
        self.system.reveal().len().saturating_add(self.user.reveal().len())
    }
}

/// What a caller presented. Whoever presents the same payment and the same request is shown the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIdentity {
    /// [`Payment::proof`]. `None`: an owner's test, or a contract's execution.
    pub proof: Option<String>,
    pub digest: String,
}

impl RequestIdentity {
    pub(super) fn of(payment: &Option<Payment>, digest: &str, contract_context: &Option<ContractContext>) -> Self {
        // A contract has one execution at a time, whichever payment is presented with it.
        let payment = payment.as_ref().filter(|_| contract_context.is_none());
        Self { proof: payment.map(|p| p.proof.clone()), digest: digest.to_owned() }
    }
}

/// The caller's part of a request: everything that is not the template's. See [`RunRequest`] for each field.
pub struct CallerRequest {
    pub object: String,
    pub name: String,
    pub key: Option<IdempotencyKey>,
    pub input: Input,
    pub payment: Option<Payment>,
    pub digest: String,
    pub representation: Representation,
    pub begin_refusal: Option<Refusal>,
}

impl RunRequest {
    /// A request for a run of `template`, under no contract.
    pub fn new(template: &Template, config: &Config, caller: CallerRequest) -> Self {
        let is_own = |payment: &Payment| payment.payer == payment.pay_to || template.is_of_creator(payment.payer);
        Self {
            own_payment: caller.payment.as_ref().is_some_and(is_own),
            max_tokens: config.max_tokens(&template.model, template.max_tokens),
            template_id: template.id.clone(),
            creator_id: template.creator_id.clone(),
            model: template.model.clone(),
            prompt: template.prompt.clone(),
            release: template.release,
            input: caller.input,
            payment: caller.payment,
            object: caller.object,
            name: caller.name,
            key: caller.key,
            verified_by: None,
            digest: caller.digest,
            representation: caller.representation,
            begin_refusal: caller.begin_refusal,
            contract_context: None,
            answer_by: 0,
        }
    }

    /// About how many bytes it holds.
    pub fn size(&self) -> usize {
        let values = self.input.values.values().map(String::len).sum::<usize>();
        let message = self.input.user_message.as_ref().map_or(0, String::len);
        self.prompt.reveal().len().saturating_add(values).saturating_add(message)
    }

    pub fn identity(&self) -> RequestIdentity {
        RequestIdentity::of(&self.payment, &self.digest, &self.contract_context)
    }

    /// The terms of a run that begins at `now`. `release` may be stricter than the template's.
    pub fn terms(&self, release: Release, limits: &Limits, now: Millis) -> Terms {
        Terms {
            policy: match (&self.payment, self.representation) {
                _ if self.contract_context.is_some() => self.contract_policy(),
                (None, _) => Policy::Free,
                (Some(_), Representation::Stream) => Policy::OnStart,
                (Some(_), Representation::Json) => Policy::OnResult,
            },
            release,
            start_attempts: limits.start_attempts,
            paid_attempts: limits.paid_attempts,
            valid_until: self.payment.as_ref().map_or(0, |p| p.valid_before.saturating_mul(1000)),
            detached: self.contract_context.is_some(),
            due_by: self.contract_context.as_ref().map(|e| e.due_by(now)),
            kept_until: self.contract_context.as_ref().map(|e| e.deadline),
        }
    }

    fn contract_policy(&self) -> Policy {
        match self.contract_context.as_ref().map(|e| e.output) {
            // Delivery begins with the first text, and payment is due on delivery.
            Some(OutputType::Stream) => Policy::OnStart,
            _ => Policy::OnResult,
        }
    }

    /// Whether the template allows its text to be shown before the payment is settled.
    pub fn may_be_shown_early(&self) -> bool {
        let stream = self.representation == Representation::Stream;
        self.release == Release::Verified && stream && self.payment.is_some()
    }

    /// Fills the input into the prompt.
    pub fn rendered_prompt(&self) -> RenderedPrompt {
        let user = self.input.user_message.clone().unwrap_or_else(|| NEUTRAL_MESSAGE.to_owned());
        let wanted = self.contract_context.as_ref().map(|e| (e.output, e.schema_for_model()));
        let form = wanted.as_ref().and_then(|(output, schema)| instructions(*output, schema.as_ref()));
        RenderedPrompt {
            system: Secret::new(render(self.prompt.reveal(), &self.input.values)),
            user: Secret::new(form.map_or_else(|| user.clone(), |form| format!("{user}\n\n{form}"))),
            format: wanted.and_then(|(output, schema)| structured_output_schema(output, schema.as_ref())),
        }
    }
}
