//! `/integrations/claude/config`: the creator's Claude key. It goes in and never comes out.

use super::reply;
use super::reply::{Reply, NO_STORE};
use super::request::RequestContext;
use crate::edge::http::claude;
use crate::edge::kv::claude_keys;
use crate::edge::kv::claude_keys::KeyRecord;
use crate::edge::kv::config;
use crate::edge::{clock, fault};
use crate::rules::config::Config;
use crate::rules::refusal::{InputError, Refusal};
use crate::rules::run::Millis;
use crate::rules::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::rc::Rc;

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

/// What is shown of a key.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyState<'a> {
    has_api_key: bool,
    is_enabled: bool,
    fingerprint: Option<&'a str>,
    updated_at: Option<Millis>,
}

/// `GET`: whether there is a key, and which.
pub(crate) async fn show(context: RequestContext<'_>) -> Reply {
    let (creator, _) = signed_in(&context).await?;
    respond(claude_keys::load(context.env, &creator).await?.as_ref())
}

/// `PUT`: stores a key, or switches the stored one on and off. `?verify=true` asks Anthropic first.
pub(crate) async fn store(mut context: RequestContext<'_>) -> Reply {
    let (creator, config) = signed_in(&context).await?;
    let change = read_change(&mut context).await?;
    let record = match change.api_key {
        Some(key) => {
            check_form(&key)?;
            if context.query().split('&').any(|pair| pair == "verify=true") {
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
            // Later than the key that it is about, also where the clocks of two data centers differ.
            stored.updated_at = clock::now().max(stored.updated_at.saturating_add(1));
            stored.is_enabled = is_enabled;
            claude_keys::switch(context.env, &creator, is_enabled, stored.updated_at).await?;
            stored
        }
    };
    respond(Some(&record))
}

/// `DELETE`: forgets the key. Doing it twice is no error.
pub(crate) async fn delete(context: RequestContext<'_>) -> Reply {
    let (creator, _) = signed_in(&context).await?;
    claude_keys::delete(context.env, &creator).await?;
    respond(None)
}

async fn signed_in(context: &RequestContext<'_>) -> Result<(String, Rc<Config>), Refusal> {
    let config = config::load(context.env).await?;
    Ok((context.creator(&config).await?, config))
}

async fn read_change(context: &mut RequestContext<'_>) -> Result<Change, Refusal> {
    let bytes = context.read_body(BODY_LIMIT).await?;
    // serde's error text could quote the body, which holds a key, so it is not passed on.
    let fields: Result<Map<String, Value>, _> = serde_json::from_slice(&bytes);
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

fn respond(record: Option<&KeyRecord>) -> Reply {
    let state = KeyState {
        has_api_key: record.is_some(),
        is_enabled: record.is_some_and(|record| record.is_enabled),
        fingerprint: record.map(|record| record.fingerprint.as_str()),
        updated_at: record.map(|record| record.updated_at),
    };
    reply::json(&state, NO_STORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN.md, "HTTP": `{hasApiKey, isEnabled}` comes back, the key never.
    #[test]
    fn the_state_of_a_key_begins_with_whether_there_is_one() {
        let json = |state: &KeyState<'_>| serde_json::to_string(state).unwrap();
        let state = KeyState { has_api_key: true, is_enabled: false, fingerprint: Some("f"), updated_at: Some(7) };
        assert_eq!(json(&state), r#"{"hasApiKey":true,"isEnabled":false,"fingerprint":"f","updatedAt":7}"#);
        let none = KeyState { has_api_key: false, is_enabled: false, fingerprint: None, updated_at: None };
        assert_eq!(json(&none), r#"{"hasApiKey":false,"isEnabled":false,"fingerprint":null,"updatedAt":null}"#);
    }
}
