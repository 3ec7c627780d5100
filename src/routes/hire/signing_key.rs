//! `/integrations/hire/config`: the key a creator signs contracts with. It goes in and never comes out.

use crate::edge::d1::agents;
use crate::edge::kv::{config, signing_keys};
use crate::routes::reply;
use crate::routes::reply::{Reply, NO_STORE};
use crate::routes::request::{json_object, RequestContext};
use crate::rules::refusal::{InputError, Refusal};
use crate::rules::secret::Secret;
use crate::wire::evm::Address;
use serde::{Deserialize, Serialize};

/// Largest body read here, in bytes.
const BODY_LIMIT: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    signing_key: Secret,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SigningKeyState {
    has_signing_key: bool,
    agent_id: Option<String>,
    wallet: Option<Address>,
}

/// `GET`: whether the creator can be hired, and which wallet is paid.
pub(crate) async fn show(context: RequestContext<'_>) -> Reply {
    let creator = signed_in(&context).await?;
    respond(&context, &creator).await
}

/// `PUT`: stores the key of the wallet that signs contracts and is paid for them.
pub(crate) async fn store(mut context: RequestContext<'_>) -> Reply {
    let creator = signed_in(&context).await?;
    let bytes = context.read_body(BODY_LIMIT).await?;
    // serde's error text could quote the body, which holds a key, so it is not passed on.
    let wrong = |field: &str, expected: &str| Refusal::input(InputError::Malformed, field, expected, "something else");
    let change: Option<Change> = json_object(&bytes).ok().and_then(|object| serde_json::from_value(object).ok());
    let change = change.ok_or_else(|| wrong("body", "{\"signingKey\": string}"))?;
    let stored = signing_keys::store(context.env, &creator, &change.signing_key).await?;
    stored.ok_or_else(|| wrong("signingKey", "a private key of secp256k1: 0x and 64 hex digits"))?;
    respond(&context, &creator).await
}

/// `DELETE`: forgets the key. Doing it twice is no error.
pub(crate) async fn delete(context: RequestContext<'_>) -> Reply {
    let creator = signed_in(&context).await?;
    signing_keys::delete(context.env, &creator).await?;
    respond(&context, &creator).await
}

async fn signed_in(context: &RequestContext<'_>) -> Result<String, Refusal> {
    let config = config::load(context.env).await?;
    context.creator(&config).await
}

async fn respond(context: &RequestContext<'_>, creator: &str) -> Reply {
    let agent = agents::find(context.env, creator).await?;
    let state = SigningKeyState {
        has_signing_key: agent.is_some(),
        wallet: agent.as_ref().map(|agent| agent.wallet),
        agent_id: agent.map(|agent| agent.agent_id),
    };
    reply::json(&state, NO_STORE)
}
