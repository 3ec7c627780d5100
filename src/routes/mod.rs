//! What we offer. One file per resource; this one is the route table and nothing else.

mod claude_key;
pub(crate) mod cors;
mod health;
mod hire;
mod paid_run;
mod problem;
mod refund_policy;
mod reply;
mod request;
mod runs;
mod template_run;
mod templates;

use self::hire::{contracts, execute, files, manifest, signing_key, tasks};
use crate::rules::refusal::Refusal;
use reply::Reply;
use request::RequestContext;
use worker::{Env, Method, Request, Response, Result};

/// Answers a request. Whatever happens inside, the outside sees a response with CORS headers.
pub(crate) async fn answer(request: Request, env: &Env) -> Result<Response> {
    if request.method() == Method::Options {
        return cors::preflight();
    }
    let is_head = request.method() == Method::Head;
    let path = request.path();
    let reply = match request::has_known_method(&request) {
        true => route(&request::segments(&path), RequestContext { env, request }).await,
        false => Err(only("GET, HEAD, POST, PUT, DELETE")),
    };
    let response = reply.or_else(|refusal| problem::response(&refusal))?;
    cors::allow(response, is_head)
}

async fn route(segments: &[&str], context: RequestContext<'_>) -> Reply {
    use Method::{Delete, Get, Head, Post, Put};
    let method = context.request.method();
    match (segments, method) {
        (["healthz"], Get | Head) => health::show(context).await,
        (["healthz"], _) => Err(only("GET")),

        (["integrations", "claude", "config"], Get | Head) => claude_key::show(context).await,
        (["integrations", "claude", "config"], Put) => claude_key::store(context).await,
        (["integrations", "claude", "config"], Delete) => claude_key::delete(context).await,
        (["integrations", "claude", "config"], _) => Err(only("GET, PUT, DELETE")),

        (["integrations", "hire", "config"], Get | Head) => signing_key::show(context).await,
        (["integrations", "hire", "config"], Put) => signing_key::store(context).await,
        (["integrations", "hire", "config"], Delete) => signing_key::delete(context).await,
        (["integrations", "hire", "config"], _) => Err(only("GET, PUT, DELETE")),

        (["contracts"], Post) => contracts::register(context).await,
        (["contracts", "proposals"], Post) => contracts::propose(context).await,
        (["contracts"] | ["contracts", "proposals"], _) => Err(only("POST")),
        (["contracts", id], Get | Head) => contracts::show(context, id).await,
        (["contracts", _], _) => Err(only("GET")),
        (["contracts", id, "verify"], Post) => contracts::verify(context, id).await,
        (["contracts", _, "verify"], _) => Err(only("POST")),
        (["execute"], Post) => execute::create(context).await,
        (["execute"], _) => Err(only("POST")),
        (["tasks", task], Get | Head) => tasks::show(context, task).await,
        (["stream", task], Get) => tasks::follow(context, task).await,
        (["files", run, number, name], Get | Head) => files::show(context, &format!("{run}/{number}/{name}")).await,
        (["tasks" | "stream", _] | ["files", _, _, _], _) => Err(only("GET")),
        ([".well-known", "hire.json"], Get | Head) => manifest::show(context, None).await,
        ([".well-known", "hire.json"], _) => Err(only("GET")),

        (["runs", run], Get | Head) => runs::show(context, run).await,
        (["runs", run, "stream"], Get) => runs::follow(context, run).await,
        (["runs", _] | ["runs", _, "stream"], _) => Err(only("GET")),

        ([".well-known", "refund-policy.json"], Get | Head) => refund_policy::show(context).await,
        ([".well-known", "refund-policy.json"], _) => Err(only("GET")),

        ([user, ".well-known", "hire.json"], method) => match (handle(user), method) {
            (Some(user), Get | Head) => manifest::show(context, Some(user)).await,
            (Some(_), _) => Err(only("GET")),
            (None, _) => Err(Refusal::NotFound),
        },
        ([user, slug, "runs"], method) => match (handle(user), method) {
            (Some(user), Get | Head) => runs::list(context, user, slug).await,
            (Some(_), _) => Err(only("GET")),
            (None, _) => Err(Refusal::NotFound),
        },
        ([user, slug], method) => match (handle(user), method) {
            (Some(user), Post) => template_run::create(context, user, slug).await,
            (Some(user), Get | Head) => templates::show(context, user, slug).await,
            (Some(_), _) => Err(only("GET, POST")),
            (None, _) => Err(Refusal::NotFound),
        },

        _ => Err(Refusal::NotFound),
    }
}

/// `ada` of `@ada`. Some clients escape the sign.
fn handle(segment: &str) -> Option<&str> {
    segment.strip_prefix('@').or_else(|| segment.strip_prefix("%40"))
}

fn only(allow: &str) -> Refusal {
    Refusal::MethodNotAllowed { allow: allow.to_owned() }
}
