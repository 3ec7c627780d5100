//! `POST /execute`: a contract is executed (HIRE, "Execution").
//!
//! The contract's object knows whether it has been executed already, so every request with a contract goes there.
//! What keeps the request from beginning an execution goes with it as its `begin_refusal`.

use super::reply::MAX_WAIT;
use super::{contract_id, problem, reply};
use crate::edge::d1::contracts;
use crate::edge::d1::contracts::Registered;
use crate::edge::d1::templates;
use crate::edge::kv::config;
use crate::edge::objects::wallets::Answer as RunAnswer;
use crate::edge::{clock, files};
use crate::routes::paid_run::{check_payment, check_readiness, send};
use crate::routes::reply::Reply;
use crate::routes::request::{json_object, RequestContext, RequestHead};
use crate::rules::hire::context::ContractContext;
use crate::rules::hire::execution::{contract_quote, input_of, payment_of_seeker, why_over};
use crate::rules::hire::shown_schema::ShownSchema;
use crate::rules::ids::object_of_task;
use crate::rules::record::run_request::{CallerRequest, Representation, RunRequest};
use crate::rules::refusal::{InputError, Refusal};
use crate::rules::run::Millis;
use crate::rules::template::Template;
use crate::wire::canonical::digest;
use crate::wire::hire;
use crate::wire::prefer::Prefer;
use serde_json::{json, Value};

/// Largest input, in bytes. It is kept as it is, with all its depth.
const BODY_LIMIT: usize = 128 * 1024;

/// Executes a contract, or says how its execution stands.
pub(crate) async fn create(mut context: RequestContext<'_>) -> Reply {
    let id = contract_id(&context)?;
    let reply = match hire::is_contract_id(&id) {
        true => execute(&mut context, &id).await,
        false => Err(Refusal::ContractIdMissing),
    };
    reply.or_else(|refusal| problem::of_contract(&refusal, &id))
}

async fn execute(context: &mut RequestContext<'_>, id: &str) -> Reply {
    let arrived_at = clock::now();
    let config = config::load(context.env).await?;
    let registered = contracts::find(context.env, id).await?.ok_or(Refusal::NotFound)?;
    let template = templates::of_contract(context.env, &registered.template_id).await?.ok_or(Refusal::NotFound)?;
    let agreed = &registered.agreed;
    let body = read_body(context).await?;
    let max_latency = registered.contract.sla.max_latency_ms;
    let quote = contract_quote(&config, &template, agreed, max_latency, &context.url())?;
    let head = RequestHead::read(context)?;
    let payment = match head.read_payment()? {
        Some(mut presented) => {
            payment_of_seeker(check_payment(&mut presented, &quote, config.limits.window_needed()), agreed)
        }
        None => Err(Refusal::PaymentRequired),
    };
    let input = input_of(&body, registered.contract.task.input_schema.as_ref(), &template, &config.limits);
    let ready = check_readiness(context, &config, &template).await;
    let over = why_over(&registered.state, agreed.deadline, clock::now());
    let no_files = (agreed.output.needs_files() && !files::are_kept(context.env)).then_some(Refusal::NotForSale);
    let (wrong_input, unpaid) = (input.as_ref().err().cloned(), payment.as_ref().err().cloned());
    let begin_refusal = over.or(wrong_input).or(ready.err()).or(no_files).or(unpaid);
    let caller = CallerRequest {
        object: object_of_task(&registered.task_id).ok_or(Refusal::Internal)?.to_owned(),
        name: registered.task_id.clone(),
        key: None,
        input: input.unwrap_or_default(),
        payment: payment.ok(),
        digest: digest(&json!(["HIRE", id, body])),
        representation: Representation::Json,
        begin_refusal,
    };
    let run_request = RunRequest {
        contract_context: Some(contract_context(context, &registered, &template)),
        answer_by: arrived_at.saturating_add(max_wait(head.prefer)),
        ..RunRequest::new(&template, &config, caller)
    };
    match send(context, &config, run_request).await? {
        RunAnswer::Task(report) => reply::of_execution(&report, head.prefer),
        RunAnswer::Refused(refused) => problem::of_execution(&refused, id, &quote, &registered.contract.terms.price),
        answer @ (RunAnswer::Ready(_) | RunAnswer::Ended | RunAnswer::VerifyFirst) => {
            crate::routes::reply::of_run(answer, None)
        }
    }
}

async fn read_body(context: &mut RequestContext<'_>) -> Result<Value, Refusal> {
    let bytes = context.read_body(BODY_LIMIT).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    json_object(&bytes).map_err(|not_an_object| {
        let error = if not_an_object.is_json { InputError::NotAnObject } else { InputError::NotJson };
        Refusal::input(error, "body", "a JSON object", &not_an_object.received)
    })
}

fn contract_context(context: &RequestContext<'_>, registered: &Registered, template: &Template) -> ContractContext {
    let task_id = registered.task_id.clone();
    let url = registered.contract.parties.seeker.webhook_url.clone();
    ContractContext {
        shown_schema: ShownSchema::of(registered.agreed.own_schema, template.allow_user_message),
        webhook: url.zip(registered.webhook_secret.clone()),
        ..ContractContext::new(&registered.contract, &registered.agreed, task_id, context.origin())
    }
}

/// How long the caller waits for a result, in milliseconds.
fn max_wait(prefer: Prefer) -> Millis {
    let wait = prefer.wait.map(|seconds| Millis::from(seconds).saturating_mul(1000));
    let default = if prefer.at_once { 0 } else { MAX_WAIT };
    wait.unwrap_or(default).min(MAX_WAIT)
}
