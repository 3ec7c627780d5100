//! `POST /execute`: a contract is executed (HIRE, "Execution").
//!
//! The contract's own object knows whether it has been already; whatever keeps this request from beginning
//! anything goes with it as an begin_refusal.

use super::{problem, Answer, RequestContext};
use crate::edge::d1::contracts;
use crate::edge::d1::contracts::Registered;
use crate::edge::d1::templates;
use crate::edge::d1::templates::CapabilityQuery;
use crate::edge::kv::config;
use crate::edge::objects::runs;
use crate::edge::objects::runs::Answer as RunAnswer;
use crate::edge::{clock, fault, files};
use crate::json_schema::{Mismatch, Schema};
use crate::routes::problem::Success;
use crate::routes::run::ready_to_run;
use crate::rules::config::Config;
use crate::rules::hire::capability::Capability;
use crate::rules::hire::context::ContractContext;
use crate::rules::hire::contract::{Agreed, ContractState};
use crate::rules::hire::contract_quote::contract_quote;
use crate::rules::hire::task::TaskReport;
use crate::rules::ids::object_of_contract;
use crate::rules::payment::matching;
use crate::rules::payment::quote::Quote;
use crate::rules::payment::Payment;
use crate::rules::record::run_request::{Representation, RunRequest};
use crate::rules::refusal::{InputError, ModelError, Refusal, Retry};
use crate::rules::run::Millis;
use crate::rules::template::input;
use crate::rules::template::input::{Body, Input};
use crate::rules::template::Template;
use crate::wire::canonical::digest;
use crate::wire::prefer;
use crate::wire::prefer::Prefer;
use crate::wire::{hire, strict};
use serde_json::{json, Map, Value};
use worker::{Request, Response};

/// Largest input, in bytes: it is kept as it is, with all its depth.
const BODY_LIMIT: usize = 128 * 1024;
/// HIRE's connection limit is 30 s. An answer is on its way before that.
const PATIENCE: Millis = 27_000;

/// Executes a contract, or tells how its execution stands.
pub(crate) async fn create(mut context: RequestContext<'_>) -> Answer {
    let id = header(&context.request, "x-contract-id")?.unwrap_or_default().trim().to_owned();
    let told = match hire::is_contract_id(&id) {
        true => execute(&mut context, &id).await,
        false => Err(Refusal::ContractIdMissing),
    };
    match told {
        Ok(response) => Ok(response),
        Err(refusal) => problem::of_contract(&refusal, &id).map_err(fault("problem")),
    }
}

async fn execute(context: &mut RequestContext<'_>, id: &str) -> Answer {
    let arrived_at = clock::now();
    let config = config::load(context.env).await?;
    let registered = contracts::find(context.env, id).await?.ok_or(Refusal::NotFound)?;
    let wanted = CapabilityQuery::OfTemplate { id: &registered.template_id };
    let capability = templates::capabilities(context.env, wanted).await?.pop().ok_or(Refusal::NotFound)?.0;
    let agreed = &registered.agreed;
    let body = read_body(context).await?;
    let max_latency = registered.contract.sla.max_latency_ms;
    let url = context.request.inner().url();
    let quote = contract_quote(&config, &capability.template, agreed, max_latency, &url)?;
    let (payment, unpaid) = payment_of(&context.request, &config, &quote, agreed)?;
    let checked = input_of(&body, &registered, &capability.template, &config);
    let ready = ready_to_run(context, &config, &capability.template).await;
    let no_files = (agreed.output.needs_files() && !files::are_kept(context.env)).then_some(Refusal::NotForSale);
    let late = (agreed.deadline <= clock::now()).then_some(Refusal::Claude(ModelError::DeadlineMissed));
    let (input, wrong) = match checked {
        Ok(input) => (input, None),
        Err(refusal) => (Input::default(), Some(refusal)),
    };
    // The object knows the result as long as it is kept.
    let rejected = registered.state == ContractState::Rejected.word();
    let ended = ContractState::is_end(&registered.state).then_some(Refusal::ContractEnded);
    let ended = late.clone().filter(|_| rejected).or(ended);
    let begin_refusal = ended.or(late).or(wrong).or(ready.err()).or(no_files).or(unpaid);
    let prefer = prefer::read(&header(&context.request, "prefer")?.unwrap_or_default());
    let contract_context = contract_context(&context.request, &registered);
    let run_request = present(
        &config,
        capability,
        ExecutionParts { id, body, input, payment, begin_refusal, prefer, contract_context, arrived_at },
    );
    match runs::present(context.env, &context.request, &run_request).await? {
        RunAnswer::Task(told) => task(&told, Some(prefer)),
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended => problem::ended().map_err(fault("answer")),
        RunAnswer::Refused(refused) => {
            let price = &registered.contract.terms.price;
            problem::of_execution(&refused, id, &quote, price).map_err(fault("problem"))
        }
    }
}

/// How a task stands, as an answer.
pub(super) fn task(told: &TaskReport, prefer: Option<Prefer>) -> Answer {
    let response = Response::from_bytes(told.document.to_string().into_bytes()).map_err(fault("task"))?;
    let headers = response.headers();
    let set = |name: &str, value: &str| headers.set(name, value).map_err(fault("task"));
    set("content-type", "application/json")?;
    set("cache-control", "private, no-store")?;
    for (name, value) in &told.headers {
        set(name, value)?;
    }
    let retryable = told.document.pointer("/error/retryable") == Some(&Value::Bool(true));
    if let Some(Retry::After(seconds)) = told.refusal.as_ref().map(Refusal::retry).filter(|_| retryable) {
        set("retry-after", &seconds.to_string())?;
    }
    if told.pending {
        set("retry-after", "1")?;
        if let Some(url) = told.document.get("poll_url").and_then(Value::as_str) {
            set("location", url)?;
        }
    }
    match prefer {
        Some(Prefer { at_once: true, .. }) if told.pending => set("preference-applied", "respond-async")?,
        Some(Prefer { wait: Some(seconds), .. }) => {
            let applied = Millis::from(seconds).min(PATIENCE / 1000);
            set("preference-applied", &format!("wait={applied}"))?;
        }
        _ => {}
    }
    Ok(match (&told.refusal, prefer) {
        (Some(refusal), Some(_)) => problem::fail(response, refusal),
        _ if told.pending && prefer.is_some() => problem::succeed(response, Success::Pending),
        // Who polls has been answered, whatever the answer is.
        _ => problem::succeed(response, Success::Done),
    })
}

pub(super) fn header(request: &Request, name: &str) -> Result<Option<String>, Refusal> {
    request.headers().get(name).map_err(fault("headers"))
}

async fn read_body(context: &mut RequestContext<'_>) -> Result<Value, Refusal> {
    let bytes = crate::routes::read_limited(&mut context.request, BODY_LIMIT).await?;
    let bytes = bytes.ok_or(Refusal::BodyTooLarge { limit: BODY_LIMIT })?;
    if bytes.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    let refused = |fault, received: &str| Err(Refusal::input(fault, "body", "a JSON object", received));
    match strict::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => refused(InputError::NotAnObject, "another value"),
        Err(error) => refused(InputError::NotJson, &error.to_string()),
    }
}

/// The payment, and what is wrong with it. Only the contract's seeker pays.
fn payment_of(
    request: &Request,
    config: &Config,
    quote: &Quote,
    agreed: &Agreed,
) -> Result<(Option<Payment>, Option<Refusal>), Refusal> {
    let (v2, v1) = (header(request, "payment-signature")?, header(request, "x-payment")?);
    let Some(mut presented) = matching::read_payment(v2.as_deref(), v1.as_deref())? else {
        return Ok((None, Some(Refusal::PaymentRequired)));
    };
    let matched = matching::check_signature(&mut presented, quote)
        .and_then(|()| matching::match_payment(&presented, quote, &config.limits, clock::seconds()));
    Ok(match matched {
        Ok(payment) if payment.payer != agreed.seeker => (None, Some(Refusal::SeekerMismatch)),
        // A seeker signs contracts with a key; whatever is signed otherwise is not theirs.
        Ok(payment) if !payment.by_key => {
            let reason = Some("invalid_exact_evm_payload_signature".to_owned());
            (None, Some(Refusal::PaymentInvalid { reason }))
        }
        Ok(payment) => (Some(payment), None),
        Err(refusal) => (None, Some(refusal)),
    })
}

/// The input, held against the contract and the template. A value that is no string is its JSON text in the prompt.
fn input_of(body: &Value, registered: &Registered, template: &Template, config: &Config) -> Result<Input, Refusal> {
    if let Some(schema) = &registered.contract.task.input_schema {
        let schema = Schema::read(schema).map_err(|_| Refusal::Internal)?;
        schema.check(body).map_err(|Mismatch { field, expected, keyword }| {
            let received = if keyword == "required" { "nothing" } else { body_at(body, &field) };
            let expected = if keyword == "required" { "a value".to_owned() } else { expected };
            let field = if field.is_empty() { "body".to_owned() } else { field };
            Refusal::input(InputError::Malformed, &field, &expected, received)
        })?;
    }
    let text = |value: &Value| match value {
        Value::String(_) => value.clone(),
        other => other.to_string().into(),
    };
    let members = body.as_object().into_iter().flatten();
    let texts: Map<String, Value> = members.map(|(name, value)| (name.clone(), text(value))).collect();
    input::validate(&Body::Json(Value::Object(texts)), template, &config.limits)
}

fn body_at(body: &Value, field: &str) -> &'static str {
    match field {
        "" if !body.is_object() => "another value",
        _ => "something else",
    }
}

fn contract_context(request: &Request, registered: &Registered) -> ContractContext {
    let origin = crate::routes::origin(request);
    let task_id = registered.task_id.clone();
    let mut contract_context = ContractContext::new(&registered.contract, &registered.agreed, task_id, origin);
    let url = registered.contract.parties.seeker.webhook_url.clone();
    contract_context.webhook = url.zip(registered.webhook_secret.clone());
    contract_context
}

struct ExecutionParts<'a> {
    id: &'a str,
    body: Value,
    input: Input,
    payment: Option<Payment>,
    begin_refusal: Option<Refusal>,
    prefer: Prefer,
    contract_context: ContractContext,
    arrived_at: Millis,
}

fn present(config: &Config, capability: Capability, asked: ExecutionParts<'_>) -> RunRequest {
    let template = capability.template;
    let wait = asked.prefer.wait.map(|seconds| Millis::from(seconds).saturating_mul(1000));
    let patience = match asked.prefer.at_once {
        true => wait.unwrap_or(0),
        false => wait.unwrap_or(PATIENCE),
    };
    let answer_by = asked.arrived_at.saturating_add(patience.min(PATIENCE));
    RunRequest {
        object: object_of_contract(asked.id),
        release: template.release,
        template_id: template.id,
        creator_id: template.creator_id,
        max_tokens: config.max_tokens(&template.model, template.max_tokens),
        model: template.model,
        prompt: template.prompt,
        input: asked.input,
        payment: asked.payment,
        digest: digest(&json!(["HIRE", asked.id, asked.body])),
        representation: Representation::Json,
        begin_refusal: asked.begin_refusal,
        contract_context: Some(asked.contract_context),
        answer_by,
    }
}
