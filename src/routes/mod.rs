//! What we offer. One file per resource; this one is the route table and nothing else.

mod contracts;
mod cors;
mod execute;
mod files;
mod health;
mod integrations;
mod manifest;
mod problem;
mod refunds;
mod run;
mod runs;
mod signing;
mod tasks;
mod templates;

use crate::rules::refusal::Refusal;
use worker::{Env, Method, Request, Response, Result};

/// A request on its way to a resource.
pub(crate) struct RequestContext<'a> {
    /// The deployment's bindings.
    pub(crate) env: &'a Env,
    /// As it came.
    pub(crate) request: Request,
}

/// Answers a request. Whatever happens inside, the outside sees a response with CORS headers.
pub(crate) async fn answer(request: Request, env: &Env) -> Result<Response> {
    if request.method() == Method::Options {
        return cors::preflight();
    }
    let head = request.method() == Method::Head;
    if request.inner().method() != request.method().as_ref() {
        // worker reads a method it does not know as GET.
        return cors::allow(problem::response(&only("GET, HEAD, POST, PUT, DELETE"))?, head);
    }
    let path = request.path();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(&path).split('/').collect();
    let segments = match segments.as_slice() {
        // One slash at the end is a slip; two are another path.
        [all @ .., last, ""] if !last.is_empty() => [all, &[*last]].concat(),
        all => all.to_vec(),
    };
    let result = route(segments.as_slice(), RequestContext { env, request }).await;
    let response = match result {
        Ok(response) => response,
        Err(refusal) => problem::response(&refusal)?,
    };
    cors::allow(response, head)
}

type Answer = std::result::Result<Response, Refusal>;

async fn route(segments: &[&str], context: RequestContext<'_>) -> Answer {
    use Method::{Delete, Get, Head, Post, Put};
    let method = context.request.method();
    match (segments, method) {
        (["healthz"], Get | Head) => health::show(context).await,
        (["healthz"], _) => Err(only("GET")),

        (["integrations", "claude", "config"], Get | Head) => integrations::show(context).await,
        (["integrations", "claude", "config"], Put) => integrations::store(context).await,
        (["integrations", "claude", "config"], Delete) => integrations::delete(context).await,
        (["integrations", "claude", "config"], _) => Err(only("GET, PUT, DELETE")),

        (["integrations", "hire", "config"], Get | Head) => signing::show(context).await,
        (["integrations", "hire", "config"], Put) => signing::store(context).await,
        (["integrations", "hire", "config"], Delete) => signing::delete(context).await,
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

        ([".well-known", "refund-policy.json"], Get | Head) => refunds::policy(context).await,
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
            (Some(user), Post) => run::create(context, user, slug).await,
            (Some(user), Get | Head) => templates::show(context, user, slug).await,
            (Some(_), _) => Err(only("GET, POST")),
            (None, _) => Err(Refusal::NotFound),
        },

        _ => Err(Refusal::NotFound),
    }
}

/// `ada` of `@ada`; some clients escape the sign.
fn handle(segment: &str) -> Option<&str> {
    segment.strip_prefix('@').or_else(|| segment.strip_prefix("%40"))
}

fn only(allow: &str) -> Refusal {
    Refusal::MethodNotAllowed { allow: allow.to_owned() }
}

/// `https://host`, as the caller has it.
fn origin(request: &Request) -> String {
    let url = request.inner().url();
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", &url));
    format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default())
}

/// A request's body, read no further than `limit` bytes; `None` where there is more.
async fn read_limited(request: &mut Request, limit: usize) -> std::result::Result<Option<Vec<u8>>, Refusal> {
    use crate::edge::fault;
    use futures::StreamExt;
    if request.inner().body().is_none() {
        return Ok(Some(Vec::new()));
    }
    let mut stream = request.stream().map_err(fault("body"))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend(chunk.map_err(fault("body"))?);
        if bytes.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}
