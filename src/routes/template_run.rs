//! `POST /@{user}/{slug}`: run a template.
//!
//! The order of the checks is the promise "nothing wrong is ever charged": the template, the input, the owner, what the
//! creator lacks, and only then money.

use super::problem;
use super::reply;
use super::reply::Reply;
use super::request::{RequestContext, RequestHead};
use crate::edge::d1::templates;
use crate::edge::fault;
use crate::edge::kv::config;
use crate::edge::objects::wallets;
use crate::edge::objects::wallets::Answer as RunAnswer;
use crate::edge::rate_limit;
use crate::edge::rate_limit::Kind;
use crate::routes::paid_run::{check_payment_of_any, check_readiness, send};
use crate::rules::config::Config;
use crate::rules::ids::owner_object;
use crate::rules::payment::identifier;
use crate::rules::payment::identifier::IdempotencyKey;
use crate::rules::payment::matching::PaymentCheck;
use crate::rules::payment::quote;
use crate::rules::record::run_request::{CallerRequest, Representation, RunRequest};
use crate::rules::refusal::Refusal;
use crate::rules::template::input;
use crate::rules::template::input::{Body, Input};
use crate::rules::template::Template;
use crate::wire::canonical::digest;
use futures::future::try_join;
use serde_json::{json, Map, Value};
use worker::Response;

/// Runs the template, for a payer or for its owner.
pub(crate) async fn create(context: RequestContext<'_>, user: &str, slug: &str) -> Reply {
    let head = RequestHead::read(&context)?;
    check_rate(&context, &head).await?;
    let template = templates::recent(context.env, user, slug, config::last_cache_time());
    let (config, template) = try_join(config::load(context.env), template).await?;
    if let Some(template) = template {
        return run(context, &config, &head, &template).await;
    }
    if head.owner_test {
        let creator = context.creator(&config).await.map_err(|_| Refusal::NotFound)?;
        let draft = templates::find(context.env, user, slug, Some(&creator)).await?;
        return run(context, &config, &head, &draft.ok_or(Refusal::NotFound)?).await;
    }
    // To anyone but its owner a draft does not exist. But whoever paid for a run before it was withdrawn has a right to
    // that run, and to nothing else. Whether there is a draft or nothing, the same is done.
    let paid_before = match head.has_payment() {
        true => run(context, &config, &head, &Template::withdrawn(&config)).await.ok(),
        false => None,
    };
    let is_of_a_run = |response: &Response| response.headers().has("x-run-id").unwrap_or_default();
    paid_before.filter(is_of_a_run).ok_or(Refusal::NotFound)
}

/// Runs a template that the caller may see, or sends its terms.
async fn run(mut context: RequestContext<'_>, config: &Config, head: &RequestHead, template: &Template) -> Reply {
    let body = Body::read(&context.read_body(config.limits.body_bytes).await?);
    let input = input::validate(&body, template, &config.limits);
    if head.owner_test {
        return owner_test(&context, config, head, template, body, input?).await;
    }
    // Who sends nothing asks for the terms; indexers list only what answers 402.
    let asks_for_terms = body == Body::Empty && !head.has_payment();
    if !asks_for_terms && !head.has_payment() {
        input.as_ref().map_err(Refusal::clone)?;
    }
    let ready = check_readiness(&context, config, template).await;
    let presented = match head.read_payment() {
        Ok(presented) => presented,
        // Of a wrong input and a payment that cannot be read, the caller hears of the input.
        Err(refusal) => {
            context.count(Kind::InvalidPayment).await?;
            return Err(input.err().unwrap_or(refusal));
        }
    };
    if presented.is_none() {
        ready.clone()?;
    }
    let quote = quote::quote(template, config, &context.url())?;
    let challenge = |refusal: &Refusal| problem::challenge(refusal, &quote).map_err(fault("challenge"));
    let Some(mut presented) = presented else {
        return challenge(&Refusal::PaymentRequired);
    };
    // A request that cannot begin a run goes to the object all the same where its payment has a name: it may have
    // bought a run before, when the template had other parameters or another price.
    let window = match head.representation {
        Representation::Stream => config.limits.window_needed(),
        Representation::Json => config.limits.window_needed_for(template.usual_ms),
    };
    let check = check_payment_of_any(config, &mut presented, &quote, window).await;
    let differs = matches!(check, PaymentCheck::Differs(..));
    let (payment, begin_refusal) = match (check, input.as_ref().err().cloned()) {
        // A forged payment costs nobody anything: no object, and no call of the facilitator. (Only the facilitator can
        // tell a contract wallet's signature from a forged one.)
        (PaymentCheck::Forged(refusal) | PaymentCheck::Differs(refusal, None), wrong_input) => {
            context.count(Kind::InvalidPayment).await?;
            return wrong_input.map_or_else(|| challenge(&refusal), Err);
        }
        (PaymentCheck::Matches(payment), _) if !template.published => (payment, Some(Refusal::NotFound)),
        (PaymentCheck::Matches(payment), wrong_input) => (payment, wrong_input.or(ready.err())),
        (PaymentCheck::Differs(refusal, Some(payment)), wrong_input) => (payment, Some(wrong_input.unwrap_or(refusal))),
    };
    // It touches an object, or asks a facilitator, and nothing of it need be true.
    let is_unproven = differs || input.is_err() || !payment.by_key;
    let request_digest = digest_of(&context, body);
    let in_header = identifier::of_header(head.idempotency_key.as_deref())?;
    let key = IdempotencyKey::new(in_header.as_deref(), presented.identifier.as_deref(), &request_digest);
    let missing_key = (key.is_none() && config.require_payment_identifier).then_some(Refusal::IdentifierMissing);
    let request_digest = match &presented.identifier {
        // The payment's signature is public once it is on the chain; its identifier is not.
        Some(identifier) => digest(&json!([request_digest, identifier])),
        None => request_digest,
    };
    let begin_refusal = begin_refusal.or(missing_key);
    let caller = CallerRequest {
        object: payment.object(),
        name: payment.name.clone(),
        key,
        input: input.unwrap_or_default(),
        payment: Some(payment),
        digest: request_digest,
        representation: head.representation,
        begin_refusal,
    };
    let answer = send(&context, config, RunRequest::new(template, config, caller)).await;
    count_if_invalid(&context, &answer, is_unproven).await;
    match answer {
        Err(refusal) if problem::asks_for_payment(&refusal) => challenge(&refusal),
        answer => reply::of_run(answer?, template.published.then_some(&quote)),
    }
}

/// Refuses an address that has sent too many requests without a valid payment, before anything is read for it.
async fn check_rate(context: &RequestContext<'_>, head: &RequestHead) -> Result<(), Refusal> {
    if head.has_payment() {
        let address = context.address()?;
        let is_over = rate_limit::is_over(Kind::InvalidPayment, address.as_deref());
        return (!is_over).then_some(()).ok_or(Refusal::RateLimited);
    }
    // An owner's token is checked soon.
    if head.owner_test && context.header("authorization")?.is_some() {
        return Ok(());
    }
    context.count(Kind::Unpaid).await
}

/// Counts a payment that a facilitator does not accept. With `is_unproven`, it counts whatever the reason, unless it has
/// found a run. The caller gets the answer all the same.
async fn count_if_invalid(context: &RequestContext<'_>, answer: &Result<RunAnswer, Refusal>, is_unproven: bool) {
    let (refusal, found_run) = match answer {
        Ok(RunAnswer::Refused(refused)) => (&refused.refusal, refused.run.is_some()),
        Ok(_) => return,
        Err(refusal) => (refusal, false),
    };
    let is_invalid = matches!(
        refusal,
        Refusal::PaymentInvalid { .. }
            | Refusal::PaymentMismatch { .. }
            | Refusal::PaymentExpired
            | Refusal::PaymentNotYetValid
    );
    if is_invalid || (is_unproven && !found_run) {
        let _ = context.count(Kind::InvalidPayment).await;
    }
}

async fn owner_test(
    context: &RequestContext<'_>,
    config: &Config,
    head: &RequestHead,
    template: &Template,
    body: Body,
    input: Input,
) -> Reply {
    check_owner(context, config, template).await?;
    check_readiness(context, config, template).await?;
    let caller = CallerRequest {
        object: owner_object(&template.creator_id),
        name: wallets::random_hex()?,
        key: None,
        input,
        payment: None,
        digest: digest_of(context, body),
        representation: head.representation,
        begin_refusal: None,
    };
    reply::of_run(send(context, config, RunRequest::new(template, config, caller)).await?, None)
}

async fn check_owner(context: &RequestContext<'_>, config: &Config, template: &Template) -> Result<(), Refusal> {
    let creator = context.creator(config).await?;
    (creator == template.creator_id).then_some(()).ok_or(Refusal::NotOwner)
}

/// The digest of method, path, query and body.
fn digest_of(context: &RequestContext<'_>, body: Body) -> String {
    let body = match body {
        Body::Json(value) => value,
        Body::Empty | Body::Malformed => Value::Object(Map::new()),
    };
    digest(&json!(["POST", context.target(), body]))
}
