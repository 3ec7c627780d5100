//! `/integrations/claude/config`: the creator's Claude key. It goes in and never comes out.

use super::{Answer, RequestContext};
use crate::edge::http::claude;
use crate::edge::kv::claude_keys;
use crate::edge::kv::claude_keys::KeyRecord;
use crate::edge::kv::config;
use crate::edge::{clock, fault, jwt};
use crate::rules::config::Config;
use crate::rules::refusal::{InputError, Refusal};
use crate::rules::secret::Secret;
use serde::Deserialize;
use serde_json::{json, Value};
use std::rc::Rc;
use worker::Response;

/// Largest body read here, in bytes.
const BODY_LIMIT: usize = 4 * 1024;
/// The form of Anthropic's keys.
const KEY_PREFIX: &str = "sk-ant-";
const KEY_LENGTH: std::ops::RangeInclusive<usize> = 20..=512;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Change {
    #[serde(default)]
    api_key: Option<Secret>,
    #[serde(default)]
    is_enabled: Option<bool>,
}

/// `GET`: whether there is a key, and which.
pub(crate) async fn show(context: RequestContext<'_>) -> Answer {
    let (creator, _) = owner(&context).await?;
    told(claude_keys::load(context.env, &creator).await?.as_ref())
}

/// `PUT`: stores a key, or switches the stored one on and off. `?verify=true` asks Anthropic first.
pub(crate) async fn store(mut context: RequestContext<'_>) -> Answer {
    let (creator, config) = owner(&context).await?;
    let change = read_change(&mut context).await?;
    let record = match change.api_key {
        Some(key) => {
            check_form(&key)?;
            if asks_for_verification(&context.request.inner().url()) {
                claude::accepts(&config, &key).await?;
            }
            let enabled = change.is_enabled.unwrap_or(true);
            let record = KeyRecord::seal(context.env, &creator, &key, enabled).await.map_err(fault("vault"))?;
            claude_keys::store(context.env, &creator, &record).await?;
            record
        }
        None => {
            let mut stored = claude_keys::load(context.env, &creator).await?.ok_or_else(|| missing("apiKey"))?;
            let is_enabled = change.is_enabled.ok_or_else(|| missing("apiKey or isEnabled"))?;
            // Always later than the key it is about, whatever the clocks of two colos say.
            stored.updated_at = clock::now().max(stored.updated_at.saturating_add(1));
            stored.is_enabled = is_enabled;
            claude_keys::switch(context.env, &creator, is_enabled, stored.updated_at).await?;
            stored
        }
    };
    told(Some(&record))
}

/// `DELETE`: forgets the key. Doing it twice is no error.
pub(crate) async fn delete(context: RequestContext<'_>) -> Answer {
    let (creator, _) = owner(&context).await?;
    claude_keys::delete(context.env, &creator).await?;
    told(None)
}

async fn owner(context: &RequestContext<'_>) -> Result<(String, Rc<Config>), Refusal> {
    let config = config::load(context.env).await?;
    let header = context.request.headers().get("authorization").map_err(fault("headers"))?;
    let creator = jwt::bearer(context.env, &config, header.as_deref()).await?;
    Ok((creator, config))
}

async fn read_change(context: &mut RequestContext<'_>) -> Result<Change, Refusal> {
    let bytes = crate::routes::read_limited(&mut context.request, BODY_LIMIT).await?;
    let bytes = bytes.ok_or(Refusal::BodyTooLarge { limit: BODY_LIMIT })?;
    // serde's own words could quote the body, and the body holds a key: they are not passed on.
    let fields: Result<serde_json::Map<String, Value>, _> = serde_json::from_slice(&bytes);
    let change = fields.and_then(|fields| serde_json::from_value(Value::Object(fields)));
    change.map_err(|_| {
        let expected = "{\"apiKey\": string, \"isEnabled\"?: boolean}";
        Refusal::input(InputError::Malformed, "body", expected, "something else")
    })
}

fn check_form(key: &Secret) -> Result<(), Refusal> {
    let text = key.reveal();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if text.starts_with(KEY_PREFIX) && plain && KEY_LENGTH.contains(&text.len()) {
        return Ok(());
    }
    let received = format!("{} characters of another form", text.chars().count());
    Err(Refusal::input(InputError::Malformed, "apiKey", "an Anthropic API key (sk-ant-…)", &received))
}

fn missing(field: &str) -> Refusal {
    Refusal::input(InputError::MissingParameter, field, "a value", "nothing")
}

fn asks_for_verification(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair == "verify=true")
}

fn told(record: Option<&KeyRecord>) -> Answer {
    let body: Value = json!({
        "hasApiKey": record.is_some(),
        "isEnabled": record.is_some_and(|r| r.is_enabled),
        "fingerprint": record.map(|r| &r.fingerprint),
        "updatedAt": record.map(|r| r.updated_at),
    });
    let response = Response::from_json(&body).map_err(fault("key state"))?;
    response.headers().set("cache-control", "no-store").map_err(fault("key state"))?;
    Ok(response)
}
