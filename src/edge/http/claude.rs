//! Calls to Claude: one for each answer, whose body is read chunk by chunk, and one that checks a key.

use super::{AbortOnDrop, CallError};
use crate::edge::body_reader::BodyReader;
use crate::edge::http;
use crate::edge::kv::claude_keys;
use crate::edge::{clock, fault};
use crate::rules::config::Config;
use crate::rules::model_answer::{key_refusal_of, model_error_of};
use crate::rules::model_request;
use crate::rules::record::run_record::RunRecord;
use crate::rules::record::run_request::RenderedPrompt;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::secret::Secret;
use crate::wire::anthropic::{loggable_request_id, ErrorBody};
use crate::wire::retry_after;
use std::time::Duration;
use wasm_bindgen::JsValue;
use worker::{Env, Headers, Method, Response, ResponseBody};

/// How long the end of a body is waited for, after the last event.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The body of an answer whose head has arrived.
pub(crate) struct Body {
    reader: BodyReader,
    /// `None`: the whole body has been read.
    call: Option<AbortOnDrop>,
}

/// Asks Claude with the creator's key, and returns when the stream is open. `rejected` is an earlier answer and what is
/// wrong with it: then Claude is asked for a better one. `structured`: with structured outputs, where the prompt has a
/// schema for them.
pub(crate) async fn ask(
    env: &Env,
    config: &Config,
    record: &RunRecord,
    prompt: &RenderedPrompt,
    rejected: Option<(String, String)>,
    structured: bool,
) -> Result<Body, ModelError> {
    let headers = creators_headers(env, config, &record.creator_id).await?;
    let rejected = rejected.as_ref().map(|(answer, mismatch)| (answer.as_str(), mismatch.as_str()));
    let json = model_request::body(&record.model, record.max_tokens, prompt, rejected, structured);
    let url = http::join(&config.anthropic.base_url, "/v1/messages");
    let limit = Duration::from_secs(config.limits.claude_begin_seconds);
    let (response, call) = http::send(Method::Post, &url, headers, Some(&json), limit).await.map_err(no_answer)?;
    match response.status_code() {
        200 => open_body(response, call),
        _ => Err(read_error(response, limit).await),
    }
}

/// Whether Anthropic accepts the key. The call lists one model, which costs nothing.
pub(crate) async fn accepts(config: &Config, key: &Secret) -> Result<(), Refusal> {
    let headers = authorized(config, key).map_err(|_| Refusal::ApiKeyRejected)?;
    let url = http::join(&config.anthropic.base_url, "/v1/models?limit=1");
    let limit = Duration::from_secs(config.limits.verify_seconds);
    let answer = http::send(Method::Get, &url, headers, None, limit).await;
    let (response, _call) = answer.map_err(|e| Refusal::Claude(no_answer(e)))?;
    match response.status_code() {
        200 => Ok(()),
        _ => Err(key_refusal_of(read_error(response, limit).await)),
    }
}

/// Whether anything answers at Anthropic's URL.
pub(crate) async fn is_reachable(config: &Config, limit: Duration) -> bool {
    let url = http::join(&config.anthropic.base_url, "/v1/models?limit=1");
    http::send(Method::Get, &url, Headers::new(), None, limit).await.is_ok()
}

/// The one place where a stored key is in clear: it goes from the vault into a header.
async fn creators_headers(env: &Env, config: &Config, creator_id: &str) -> Result<Headers, ModelError> {
    let record = claude_keys::recent(env, creator_id, config.limits.cache_time()).await;
    let record = record.map_err(|_| ModelError::Upstream)?;
    let record = record.filter(|r| r.is_enabled).ok_or(ModelError::KeyInvalid)?;
    let key = record.open(env, creator_id).await.map_err(fault("vault"));
    authorized(config, &key.map_err(|_| ModelError::KeyInvalid)?)
}

fn authorized(config: &Config, key: &Secret) -> Result<Headers, ModelError> {
    let headers = Headers::new();
    let set = |name: &str, value: &str| headers.set(name, value).map_err(|_| ModelError::KeyInvalid);
    set("content-type", "application/json")?;
    set("anthropic-version", &config.anthropic.version)?;
    set("x-api-key", key.reveal())?;
    Ok(headers)
}

fn no_answer(error: CallError) -> ModelError {
    worker::console_error!("claude: {error}");
    match error {
        CallError::TimedOut => ModelError::TimedOut,
        CallError::Connection(_) => ModelError::Unreachable,
    }
}

async fn read_error(mut response: Response, limit: Duration) -> ModelError {
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let retry_after = header("retry-after").and_then(|text| retry_after::seconds(&text, clock::now()));
    let request_id = header("request-id").unwrap_or_default();
    let status = response.status_code();
    let text = clock::within(limit, response.text()).await;
    let body = text.and_then(Result::ok).and_then(|t| serde_json::from_str::<ErrorBody>(&t).ok());
    let error = model_error_of(status, body.as_ref(), retry_after);
    worker::console_warn!("claude: HTTP {status}, read as {error:?}, request {}", loggable_request_id(&request_id));
    error
}

fn open_body(response: Response, call: AbortOnDrop) -> Result<Body, ModelError> {
    let ResponseBody::Stream(stream) = response.body() else {
        return Err(ModelError::CutOff);
    };
    Ok(Body { reader: BodyReader::new(stream), call: Some(call) })
}

impl Body {
    /// The next bytes; `Ok(None)` at the end of the body. An error means that the connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, JsValue> {
        let bytes = self.reader.next().await?;
        if bytes.is_none() {
            self.call.take().into_iter().for_each(AbortOnDrop::complete);
        }
        Ok(bytes)
    }

    /// Reads on after the last event, up to the end of the body, so that the connection can be used again.
    pub(crate) fn finish(self) {
        let Self { reader, call } = self;
        wasm_bindgen_futures::spawn_local(async move {
            if clock::within(END_LIMIT, reader.until_end()).await.is_some() {
                call.into_iter().for_each(AbortOnDrop::complete);
            }
        });
    }
}
