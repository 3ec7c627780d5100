//! What the front door hands to the run object.

use crate::rules::config::{Config, Limits};
use crate::rules::hire::context::ContractContext;
use crate::rules::hire::instructions::{instructions, structured_output_schema};
use crate::rules::hire::output::OutputType;
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Policy, Release, Terms};
use crate::rules::secret::Secret;
use crate::rules::template::input::Input;
use crate::rules::template::{render, Template, NEUTRAL_MESSAGE};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a caller wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Representation {
    /// Server-Sent Events, as the answer is written.
    Stream,
    /// One JSON document, when it is whole.
    Json,
}

/// What the front door hands to the run object: a validated request and a payment that matches the
/// terms, or an owner's test. It lives in memory only; see [`RunRecord`] for what is stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunRequest {
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
    pub begin_refusal: Option<Refusal>,
    /// The contract that it executes.
    pub contract_context: Option<ContractContext>,
    /// When a contract's caller wants an answer, result or not. Unix milliseconds.
    pub answer_by: Millis,
}

/// What Claude is asked: the filled-in prompt. Secret as a whole, and sealed where it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenderedPrompt {
    /// The rendered template.
    pub system: Secret,
    /// The user's turn.
    pub user: Secret,
    /// A schema for Claude's structured outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
}

/// What a caller came with: who holds the same payment and asks the same is shown the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIdentity {
    /// Of the whole signed payload, so that knowing a nonce is not enough. `None`: an owner's test.
    pub proof: Option<String>,
    /// See [`RunRequest::digest`].
    pub digest: String,
}

impl RequestIdentity {
    pub(super) fn of(payment: &Option<Payment>, digest: &str, contract_context: &Option<ContractContext>) -> Self {
        // A contract is executed once, whatever is presented with it.
        let payment = payment.as_ref().filter(|_| contract_context.is_none());
        Self { proof: payment.map(|p| p.proof.clone()), digest: digest.to_owned() }
    }
}

/// What a caller asks of a template.
pub struct CallerRequest {
    pub object: String,
    pub input: Input,
    pub payment: Option<Payment>,
    pub digest: String,
    pub representation: Representation,
    pub begin_refusal: Option<Refusal>,
}

impl RunRequest {
    /// A request for a run of `template`, under no contract.
    pub fn new(template: Template, config: &Config, caller: CallerRequest) -> Self {
        Self {
            max_tokens: config.max_tokens(&template.model, template.max_tokens),
            template_id: template.id,
            creator_id: template.creator_id,
            model: template.model,
            prompt: template.prompt,
            release: template.release,
            input: caller.input,
            payment: caller.payment,
            object: caller.object,
            digest: caller.digest,
            representation: caller.representation,
            begin_refusal: caller.begin_refusal,
            contract_context: None,
            answer_by: 0,
        }
    }

    /// See [`RequestIdentity`].
    pub fn identity(&self) -> RequestIdentity {
        RequestIdentity::of(&self.payment, &self.digest, &self.contract_context)
    }

    /// What a run of it is held to that sets out at `now`. `release` may be less than the template allows.
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
    pub fn rendered_prompt(&self) -> RenderedPrompt {
        let user = self.input.user_message.clone().unwrap_or_else(|| NEUTRAL_MESSAGE.to_owned());
        let wanted = self.contract_context.as_ref().map(|e| (e.output, e.output_schema.as_ref()));
        let form = wanted.and_then(|(output, schema)| instructions(output, schema));
        RenderedPrompt {
            system: Secret::new(render(self.prompt.reveal(), &self.input.values)),
            user: Secret::new(form.map_or_else(|| user.clone(), |form| format!("{user}\n\n{form}"))),
            format: wanted.and_then(|(output, schema)| structured_output_schema(output, schema)),
        }
    }
}
