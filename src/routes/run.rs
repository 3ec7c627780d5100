//! `POST /@{user}/{slug}`: run a template.
//!
//! The order of the checks is the promise "nothing wrong is ever charged": the template, the input,
//! the owner, what the creator lacks, and only then money.

use super::{problem, Answer, Call};
use crate::edge::runs::{self, Answer as RunAnswer};
use crate::edge::{clock, config, fault, jwt, keys, payers, templates};
use crate::rules::config::Config;
use crate::rules::dossier::{Presentation, Representation};
use crate::rules::identifier::{self, Claim};
use crate::rules::input::{self, Body, Input};
use crate::rules::quote::{self, Payment, Presented, Quote};
use crate::rules::refusal::Refusal;
use crate::rules::template::Template;
use crate::wire::accept::prefers_json;
use crate::wire::canonical::digest;
use serde_json::{json, Value};
use worker::{Env, Request, Response};

/// Runs the template, for a payer or for its owner.
pub async fn create(call: Call<'_>, user: &str, slug: &str) -> Answer {
    let config = config::load(call.env).await?;
    let asked = Asked::read(&call.request)?;

    let template = templates::find(call.env, user, slug).await?.ok_or(Refusal::NotFound)?;
    if template.published || (asked.owner_test && asked.is_owner(&call, &config, &template).await.is_ok()) {
        return offer(call, &config, asked, template).await;
    }
    // To anyone but its owner a draft is nothing, token or no token. But whoever paid for a run before it
    // was withdrawn has a right to it, and to nothing else.
    let paid_before = match asked.pays() {
        true => offer(call, &config, asked, template).await.ok(),
        false => None,
    };
    let is_of_a_run = |response: &Response| response.headers().has("x-run-id").unwrap_or_default();
    paid_before.filter(is_of_a_run).ok_or(Refusal::NotFound)
}

/// What happens at a template that the caller may see.
async fn offer(mut call: Call<'_>, config: &Config, asked: Asked, template: Template) -> Answer {
    let body = read_body(&mut call.request, config.limits.body_bytes).await?;
    let input = input::validate(&body, &template, &config.limits);
    if asked.owner_test {
        let input = input?;
        asked.is_owner(&call, config, &template).await?;
        ready_to_run(&call, config, &template).await?;
        return run(&call, present(&asked, &body, config, template, input, None)?, None).await;
    }

    // Whoever sends nothing wants to know the terms; indexers list only what answers 402.
    let curious = body == Body::Empty && !asked.pays();
    if !curious && !asked.pays() {
        input.clone()?;
    }
    let ready = ready_to_run(&call, config, &template).await;
    // A wrong input is told before a wrong payment.
    let presented = asked.payment().or_else(|refusal| input.clone().and(Err(refusal)))?;
    if presented.is_none() {
        // Said before any payment is asked for.
        ready.clone()?;
    }
    let quote = quote::quote(&template, config, &asked.url)?;
    let challenge = |refusal: &Refusal| problem::challenge(refusal, &quote).map_err(fault("challenge"));
    let Some(mut presented) = presented else {
        return challenge(&Refusal::PaymentRequired);
    };
    // What is not the payer's costs nobody anything: no object, and no call of the facilitator. (A contract
    // wallet's signature only the facilitator can tell from garbage.)
    if let Err(refusal) = quote::check_signature(&mut presented, &quote) {
        input?;
        return challenge(&refusal);
    }
    let matched = quote::match_payment(&presented, &quote, &config.limits, clock::seconds());
    // What cannot begin a run (any more) may have bought one already: its object knows. The template may
    // have other parameters by now.
    let (input, objection) = match input {
        Ok(input) => (input, None),
        Err(refusal) => (Input::default(), Some(refusal)),
    };
    let (payment, objection) = match matched {
        Ok(payment) if !template.published => (payment, Some(Refusal::NotFound)),
        Ok(payment) => (payment, objection.or(ready.err())),
        Err(refusal) => match (quote::identify(&presented, &quote), objection) {
            (Some(payment), objection) => (payment, Some(objection.unwrap_or(refusal))),
            (None, Some(objection)) => return Err(objection),
            (None, None) => return challenge(&refusal),
        },
    };
    let mut presentation = present(&asked, &body, config, template, input, Some(payment))?;
    presentation.objection = objection;
    if let Some(identifier) = &presented.identifier {
        // The payment's signature is public once it is on the chain; its identifier is not.
        presentation.digest = digest(&json!([presentation.digest, identifier]));
    }
    let in_header = identifier::of_header(asked.idempotency_key.as_deref())?;
    let identifiers: Vec<String> = presented.identifier.into_iter().chain(in_header).collect();
    claim_identifiers(call.env, config, &identifiers, &presentation).await?;
    run(&call, presentation, Some(&quote)).await
}

/// An identifier stands for one payment of one request. It is claimed before anything is verified; what has
/// been bought already needs no claim.
async fn claim_identifiers(
    env: &Env,
    config: &Config,
    identifiers: &[String],
    presentation: &Presentation,
) -> Result<(), Refusal> {
    let (Some(payment), None) = (&presentation.payment, &presentation.objection) else {
        return Ok(());
    };
    if identifiers.is_empty() && config.require_payment_identifier {
        return Err(Refusal::IdentifierMissing);
    }
    for identifier in identifiers {
        let claim = Claim::new(identifier, &presentation.digest, payment);
        payers::claim(env, payment, &claim).await?;
    }
    Ok(())
}

async fn run(call: &Call<'_>, presentation: Presentation, quote: Option<&Quote>) -> Answer {
    match runs::present(call.env, &call.request, &presentation).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended | RunAnswer::Task(_) => problem::ended().map_err(fault("answer")),
        RunAnswer::Refused(refused) => problem::of_run(&refused, quote).map_err(fault("problem")),
    }
}

/// What the request's head says.
struct Asked {
    url: String,
    owner_test: bool,
    authorization: Option<String>,
    payment_v2: Option<String>,
    payment_v1: Option<String>,
    idempotency_key: Option<String>,
    representation: Representation,
}

impl Asked {
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
        quote::read_payment(self.payment_v2.as_deref(), self.payment_v1.as_deref())
    }

    async fn is_owner(&self, call: &Call<'_>, config: &Config, template: &Template) -> Result<(), Refusal> {
        let creator = jwt::bearer(call.env, config, self.authorization.as_deref()).await?;
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
    let bytes = super::read_limited(request, limit).await?.ok_or(too_large)?;
    Ok(Body::read(&bytes))
}

/// Whether a run could be answered at all: checked before any payment is asked for.
pub(super) async fn ready_to_run(call: &Call<'_>, config: &Config, template: &Template) -> Result<(), Refusal> {
    if config.paused {
        return Err(Refusal::Paused);
    }
    config.model(&template.model, &clock::today()).ok_or(Refusal::ModelUnavailable)?;
    let key = keys::load(call.env, &template.creator_id).await?.ok_or(Refusal::KeyMissing)?;
    key.is_enabled.then_some(()).ok_or(Refusal::KeyDisabled)?;
    key.can_be_opened(call.env)
}

fn present(
    asked: &Asked,
    body: &Body,
    config: &Config,
    template: Template,
    input: input::Input,
    payment: Option<Payment>,
) -> Result<Presentation, Refusal> {
    let body = match body {
        Body::Json(value) => value.clone(),
        Body::Empty | Body::Malformed => Value::Object(serde_json::Map::new()),
    };
    let object = match &payment {
        Some(payment) => payment.name.clone(),
        None => format!("test_{}", runs::random_hex()?),
    };
    Ok(Presentation {
        object,
        release: template.release,
        template_id: template.id,
        creator_id: template.creator_id,
        max_tokens: config.max_tokens(&template.model, template.max_tokens),
        model: template.model,
        prompt: template.prompt,
        input,
        payment,
        digest: digest(&json!(["POST", asked.target(), body])),
        representation: asked.representation,
        objection: None,
        engagement: None,
        answer_by: 0,
    })
}
