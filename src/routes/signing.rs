//! `/integrations/hire/config`: the key a creator signs contracts with. It goes in and never comes out.

use super::{Answer, RequestContext};
use crate::edge::d1::agents;
use crate::edge::kv::{config, signing_keys};
use crate::edge::{fault, jwt};
use crate::rules::refusal::{InputError, Refusal};
use crate::rules::secret::Secret;
use crate::wire::strict;
use serde::Deserialize;
use serde_json::{json, Value};
use worker::Response;

/// Largest body read here, in bytes.
const BODY_LIMIT: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    signing_key: Secret,
}

/// `GET`: whether the creator can be hired, and which wallet is paid.
pub(crate) async fn show(context: RequestContext<'_>) -> Answer {
    let creator = owner(&context).await?;
    told(&context, &creator).await
}

/// `PUT`: stores the key of the wallet that signs contracts and is paid for them.
pub(crate) async fn store(mut context: RequestContext<'_>) -> Answer {
    let creator = owner(&context).await?;
    let bytes = crate::routes::read_limited(&mut context.request, BODY_LIMIT).await?;
    let bytes = bytes.ok_or(Refusal::BodyTooLarge { limit: BODY_LIMIT })?;
    // serde's own words could quote the body, and the body holds a key: they are not passed on.
    let wrong = |field: &str, expected: &str| Refusal::input(InputError::Malformed, field, expected, "something else");
    let change = strict::from_slice(&bytes).ok().filter(Value::is_object).map(serde_json::from_value);
    let change: Option<Change> = change.and_then(Result::ok);
    let change = change.ok_or_else(|| wrong("body", "{\"signingKey\": string}"))?;
    let stored = signing_keys::store(context.env, &creator, &change.signing_key).await?;
    stored.ok_or_else(|| wrong("signingKey", "a private key of secp256k1: 0x and 64 hex digits"))?;
    told(&context, &creator).await
}

/// `DELETE`: forgets the key. Doing it twice is no error.
pub(crate) async fn delete(context: RequestContext<'_>) -> Answer {
    let creator = owner(&context).await?;
    signing_keys::delete(context.env, &creator).await?;
    told(&context, &creator).await
}

async fn owner(context: &RequestContext<'_>) -> Result<String, Refusal> {
    let config = config::load(context.env).await?;
    let header = context.request.headers().get("authorization").map_err(fault("headers"))?;
    jwt::bearer(context.env, &config, header.as_deref()).await
}

async fn told(context: &RequestContext<'_>, creator: &str) -> Answer {
    let agent = agents::find(context.env, creator).await?;
    let body = json!({
        "hasSigningKey": agent.is_some(),
        "agentId": agent.as_ref().map(|agent| &agent.agent_id),
        "wallet": agent.as_ref().map(|agent| agent.wallet),
    });
    let response = Response::from_json(&body).map_err(fault("agent"))?;
    response.headers().set("cache-control", "no-store").map_err(fault("agent"))?;
    Ok(response)
}
