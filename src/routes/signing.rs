//! `/integrations/hire/config`: the key a creator signs contracts with. It goes in and never comes out.

use super::{Answer, Call};
use crate::edge::{agents, config, fault, jwt};
use crate::rules::input::fault as input_fault;
use crate::rules::refusal::{InputFault, Refusal};
use crate::rules::template::Secret;
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
pub async fn show(call: Call<'_>) -> Answer {
    let creator = owner(&call).await?;
    told(&call, &creator).await
}

/// `PUT`: stores the key of the wallet that signs contracts and is paid for them.
pub async fn store(mut call: Call<'_>) -> Answer {
    let creator = owner(&call).await?;
    let bytes = super::read_limited(&mut call.request, BODY_LIMIT).await?;
    let bytes = bytes.ok_or(Refusal::BodyTooLarge { limit: BODY_LIMIT })?;
    // serde's own words could quote the body, and the body holds a key: they are not passed on.
    let wrong = |field: &str, expected: &str| input_fault(InputFault::Malformed, field, expected, "something else");
    let change = strict::from_slice(&bytes).ok().filter(Value::is_object).map(serde_json::from_value);
    let change: Option<Change> = change.and_then(Result::ok);
    let change = change.ok_or_else(|| wrong("body", "{\"signingKey\": string}"))?;
    let stored = agents::store(call.env, &creator, &change.signing_key).await?;
    stored.ok_or_else(|| wrong("signingKey", "a private key of secp256k1: 0x and 64 hex digits"))?;
    told(&call, &creator).await
}

/// `DELETE`: forgets the key. Doing it twice is no error.
pub async fn delete(call: Call<'_>) -> Answer {
    let creator = owner(&call).await?;
    agents::delete(call.env, &creator).await?;
    told(&call, &creator).await
}

async fn owner(call: &Call<'_>) -> Result<String, Refusal> {
    let config = config::load(call.env).await?;
    let header = call.request.headers().get("authorization").map_err(fault("headers"))?;
    jwt::bearer(call.env, &config, header.as_deref()).await
}

async fn told(call: &Call<'_>, creator: &str) -> Answer {
    let agent = agents::find(call.env, creator).await?;
    let body = json!({
        "hasSigningKey": agent.is_some(),
        "agentId": agent.as_ref().map(|agent| &agent.agent_id),
        "wallet": agent.as_ref().map(|agent| agent.wallet),
    });
    let response = Response::from_json(&body).map_err(fault("agent"))?;
    response.headers().set("cache-control", "no-store").map_err(fault("agent"))?;
    Ok(response)
}
