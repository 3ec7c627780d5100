//! `POST /@{user}/{slug}`: run a template.
//!
//! The order of the checks is the promise "nothing wrong is ever charged": the template, the input,
//! the owner, what the creator lacks, and only then money.

use super::{problem, Answer, RequestContext};
use crate::edge::d1::templates;
use crate::edge::kv::{claude_keys, config};
use crate::edge::objects::payers;
use crate::edge::objects::runs;
use crate::edge::objects::runs::Answer as RunAnswer;
use crate::edge::{clock, fault, jwt};
use crate::rules::config::Config;
use crate::rules::payment::identifier;
use crate::rules::payment::identifier::Claim;
use crate::rules::payment::matching;
use crate::rules::payment::matching::Presented;
use crate::rules::payment::quote;
use crate::rules::payment::quote::Quote;
use crate::rules::payment::Payment;
use crate::rules::record::run_request::{Representation, RunRequest};
use crate::rules::refusal::Refusal;
use crate::rules::template::input;
use crate::rules::template::input::{Body, Input};
use crate::rules::template::Template;
use crate::wire::accept::prefers_json;
use crate::wire::canonical::digest;
use serde_json::{json, Value};
use worker::{Env, Request, Response};

/// Runs the template, for a payer or for its owner.
pub(crate) async fn create(context: RequestContext<'_>, user: &str, slug: &str) -> Answer {
    let config = config::load(context.env).await?;
    let head = RequestHead::read(&context.request)?;

    let template = templates::find(context.env, user, slug).await?.ok_or(Refusal::NotFound)?;
    if template.published || (head.owner_test && head.is_owner(&context, &config, &template).await.is_ok()) {
        return offer(context, &config, head, template).await;
    }
    // To anyone but its owner a draft is nothing, token or no token. But whoever paid for a run before it
    // was withdrawn has a right to it, and to nothing else.
    let paid_before = match head.pays() {
        true => offer(context, &config, head, template).await.ok(),
        false => None,
    };
    let is_of_a_run = |response: &Response| response.headers().has("x-run-id").unwrap_or_default();
    paid_before.filter(is_of_a_run).ok_or(Refusal::NotFound)
}

/// What happens at a template that the caller may see.
async fn offer(mut context: RequestContext<'_>, config: &Config, head: RequestHead, template: Template) -> Answer {
    let body = read_body(&mut context.request, config.limits.body_bytes).await?;
    let input = input::validate(&body, &template, &config.limits);
    if head.owner_test {
        let input = input?;
        head.is_owner(&context, config, &template).await?;
        ready_to_run(&context, config, &template).await?;
        return run(&context, present(&head, &body, config, template, input, None)?, None).await;
    }

    // Whoever sends nothing wants to know the terms; indexers list only what answers 402.
    let curious = body == Body::Empty && !head.pays();
    if !curious && !head.pays() {
        input.clone()?;
    }
    let ready = ready_to_run(&context, config, &template).await;
    // A wrong input is told before a wrong payment.
    let presented = head.payment().or_else(|refusal| input.clone().and(Err(refusal)))?;
    if presented.is_none() {
        // Said before any payment is head for.
        ready.clone()?;
    }
    let quote = quote::quote(&template, config, &head.url)?;
    let challenge = |refusal: &Refusal| problem::challenge(refusal, &quote).map_err(fault("challenge"));
    let Some(mut presented) = presented else {
        return challenge(&Refusal::PaymentRequired);
    };
    // What is not the payer's costs nobody anything: no object, and no context of the facilitator. (A contract
    // wallet's signature only the facilitator can tell from garbage.)
    if let Err(refusal) = matching::check_signature(&mut presented, &quote) {
        input?;
        return challenge(&refusal);
    }
    let matched = matching::match_payment(&presented, &quote, &config.limits, clock::seconds());
    // What cannot begin a run (any more) may have bought one already: its object knows. The template may
    // have other parameters by now.
    let (input, begin_refusal) = match input {
        Ok(input) => (input, None),
        Err(refusal) => (Input::default(), Some(refusal)),
    };
    let (payment, begin_refusal) = match matched {
        Ok(payment) if !template.published => (payment, Some(Refusal::NotFound)),
        Ok(payment) => (payment, begin_refusal.or(ready.err())),
        Err(refusal) => match (matching::identify(&presented, &quote), begin_refusal) {
            (Some(payment), begin_refusal) => (payment, Some(begin_refusal.unwrap_or(refusal))),
            (None, Some(begin_refusal)) => return Err(begin_refusal),
            (None, None) => return challenge(&refusal),
        },
    };
    let mut run_request = present(&head, &body, config, template, input, Some(payment))?;
    run_request.begin_refusal = begin_refusal;
    if let Some(identifier) = &presented.identifier {
        // The payment's signature is public once it is on the chain; its identifier is not.
        run_request.digest = digest(&json!([run_request.digest, identifier]));
    }
    let in_header = identifier::of_header(head.idempotency_key.as_deref())?;
    let identifiers: Vec<String> = presented.identifier.into_iter().chain(in_header).collect();
    claim_identifiers(context.env, config, &identifiers, &run_request).await?;
    run(&context, run_request, Some(&quote)).await
}

/// An identifier stands for one payment of one request. It is claimed before anything is verified; what has
/// been bought already needs no claim.
async fn claim_identifiers(
    env: &Env,
    config: &Config,
    identifiers: &[String],
    run_request: &RunRequest,
) -> Result<(), Refusal> {
    let (Some(payment), None) = (&run_request.payment, &run_request.begin_refusal) else {
        return Ok(());
    };
    if identifiers.is_empty() && config.require_payment_identifier {
        return Err(Refusal::IdentifierMissing);
    }
    for identifier in identifiers {
        let claim = Claim::new(identifier, &run_request.digest, payment);
        payers::claim(env, payment, &claim).await?;
    }
    Ok(())
}

async fn run(context: &RequestContext<'_>, run_request: RunRequest, quote: Option<&Quote>) -> Answer {
    match runs::present(context.env, &context.request, &run_request).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended | RunAnswer::Task(_) => problem::ended().map_err(fault("answer")),
        RunAnswer::Refused(refused) => problem::of_run(&refused, quote).map_err(fault("problem")),
    }
}

/// What the request's head says.
struct RequestHead {
    url: String,
    owner_test: bool,
    authorization: Option<String>,
    payment_v2: Option<String>,
    payment_v1: Option<String>,
    idempotency_key: Option<String>,
    representation: Representation,
}

impl RequestHead {
    fn read(request: &Request) -> Result<Self, Refusal> {
        let header = |name: &str| request.headers().get(name).map_err(fault("headers"));
        let is_true = |value: Option<String>| value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
        let json = prefers_json(&header("accept")?.unwrap_or_default());
        let no_stream = is_true(header("x-no-stream")?);
        Ok(Self {
            url: request.inner().url(),
            owner_test: is_true(header("x-owner-test")?),
            authorization: header("authorization")?,
            payment_v2: header("payment-signature")?,
            payment_v1: header("x-payment")?,
            idempotency_key: header("idempotency-key")?,
            representation: if json || no_stream { Representation::Json } else { Representation::Stream },
        })
    }

    fn pays(&self) -> bool {
        self.payment_v2.is_some() || self.payment_v1.is_some()
    }

    fn payment(&self) -> Result<Option<Presented>, Refusal> {
        matching::read_payment(self.payment_v2.as_deref(), self.payment_v1.as_deref())
    }

    async fn is_owner(
        &self,
        context: &RequestContext<'_>,
        config: &Config,
        template: &Template,
    ) -> Result<(), Refusal> {
        let creator = jwt::bearer(context.env, config, self.authorization.as_deref()).await?;
        (creator == template.creator_id).then_some(()).ok_or(Refusal::NotOwner)
    }

    /// Path and query of the URL that was called.
    fn target(&self) -> &str {
        let after_scheme = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or("/")
    }
}

async fn read_body(request: &mut Request, limit: usize) -> Result<Body, Refusal> {
    let too_large = Refusal::BodyTooLarge { limit };
    let declared = request.headers().get("content-length").map_err(fault("headers"))?;
    if declared.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n > limit) {
        return Err(too_large);
    }
    let bytes = crate::routes::read_limited(request, limit).await?.ok_or(too_large)?;
    Ok(Body::read(&bytes))
}

/// Whether a run could be answered at all: checked before any payment is head for.
pub(super) async fn ready_to_run(
    context: &RequestContext<'_>,
    config: &Config,
    template: &Template,
) -> Result<(), Refusal> {
    if config.paused {
        return Err(Refusal::Paused);
    }
    config.model(&template.model, &clock::today()).ok_or(Refusal::ModelUnavailable)?;
    let key = claude_keys::load(context.env, &template.creator_id).await?.ok_or(Refusal::KeyMissing)?;
    key.is_enabled.then_some(()).ok_or(Refusal::KeyDisabled)?;
    key.can_be_opened(context.env)
}

fn present(
    head: &RequestHead,
    body: &Body,
    config: &Config,
    template: Template,
    input: input::Input,
    payment: Option<Payment>,
) -> Result<RunRequest, Refusal> {
    let body = match body {
        Body::Json(value) => value.clone(),
        Body::Empty | Body::Malformed => Value::Object(serde_json::Map::new()),
    };
    let object = match &payment {
        Some(payment) => payment.name.clone(),
        None => format!("test_{}", runs::random_hex()?),
    };
    Ok(RunRequest {
        object,
        release: template.release,
        template_id: template.id,
        creator_id: template.creator_id,
        max_tokens: config.max_tokens(&template.model, template.max_tokens),
        model: template.model,
        prompt: template.prompt,
        input,
        payment,
        digest: digest(&json!(["POST", head.target(), body])),
        representation: head.representation,
        begin_refusal: None,
        contract_context: None,
        answer_by: 0,
    })
}
