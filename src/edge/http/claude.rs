//! Claude over fetch: the call, and its body read chunk by chunk.

use super::{AbortOnDrop, CallError};
use crate::edge::http;
use crate::edge::kv::claude_keys;
use crate::edge::kv::claude_keys::KeyRecord;
use crate::edge::{clock, fault};
use crate::rules::config::Config;
use crate::rules::hire::instructions::repair;
use crate::rules::model_answer::model_error_of;
use crate::rules::record::run_record::RunRecord;
use crate::rules::record::run_request::RenderedPrompt;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::secret::Secret;
use crate::wire::anthropic::{ErrorBody, Message, MessagesRequest, OutputConfig, OutputFormat};
use js_sys::{ArrayBuffer, Reflect, Uint8Array};
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStreamByobReader, ReadableStreamGetReaderOptions, ReadableStreamReaderMode};
use worker::{Env, Headers, Method, Response, ResponseBody};

/// How large a chunk one read may hand out, in bytes.
const CHUNK: u32 = 32 * 1024;

/// An answer whose head has come; its events are still to be read.
pub(crate) struct Body {
    reader: ReadableStreamByobReader,
    buffer: Option<ArrayBuffer>,
    _call: AbortOnDrop,
}

/// Asks Claude with the creator's key; with `mend` (an answer, and what is wrong with it), for a better one. Comes
/// back when the stream is open.
pub(crate) async fn ask(
    env: &Env,
    config: &Config,
    record: &RunRecord,
    prompt: &RenderedPrompt,
    mend: Option<(String, String)>,
) -> Result<Body, ModelError> {
    let headers = creators_headers(env, config, &record.creator_id).await?;
    let mend = mend.map(|(answer, wrong)| (answer, repair(&wrong)));
    let mut messages = vec![Message { role: "user", content: prompt.user.reveal() }];
    if let Some((answer, wrong)) = &mend {
        // Anthropic takes no assistant's turn that ends in white space.
        messages.push(Message { role: "assistant", content: answer.trim_end() });
        messages.push(Message { role: "user", content: wrong });
    }
    let format = prompt.format.as_ref().map(|schema| OutputFormat { kind: "json_schema", schema });
    let request = MessagesRequest {
        model: &record.model,
        max_tokens: record.max_tokens,
        system: prompt.system.reveal(),
        messages,
        stream: true,
        output_config: format.map(|format| OutputConfig { format }),
    };
    let json = serde_json::to_string(&request).unwrap_or_default();
    let url = http::join(&config.anthropic.base_url, "/v1/messages");
    let limit = Duration::from_secs(config.limits.claude_begin_seconds);
    let (response, call) = http::send(Method::Post, &url, headers, Some(&json), limit).await.map_err(no_answer)?;
    match response.status_code() {
        200 => open_body(response, call),
        _ => Err(read_fault(response, limit).await),
    }
}

/// Whether Anthropic takes the key: a call that lists one model costs nothing.
pub(crate) async fn accepts(config: &Config, key: &Secret) -> Result<(), Refusal> {
    let headers = authorized(config, key).map_err(|_| Refusal::ApiKeyRejected)?;
    let url = http::join(&config.anthropic.base_url, "/v1/models?limit=1");
    let limit = Duration::from_secs(config.limits.verify_seconds);
    let answer = http::send(Method::Get, &url, headers, None, limit).await;
    let (response, _call) = answer.map_err(|e| Refusal::Claude(no_answer(e)))?;
    match response.status_code() {
        200 => Ok(()),
        _ => match read_fault(response, limit).await {
            ModelError::KeyInvalid | ModelError::Permission => Err(Refusal::ApiKeyRejected),
            other => Err(Refusal::Claude(other)),
        },
    }
}

/// Whether anything answers at Anthropic's address.
pub(crate) async fn is_reachable(config: &Config, limit: Duration) -> bool {
    let url = http::join(&config.anthropic.base_url, "/v1/models?limit=1");
    http::send(Method::Get, &url, Headers::new(), None, limit).await.is_ok()
}

/// The one place where a stored key is in clear: it goes from the vault into a header.
async fn creators_headers(env: &Env, config: &Config, creator_id: &str) -> Result<Headers, ModelError> {
    let record: Option<KeyRecord> = claude_keys::load(env, creator_id).await.map_err(|_| ModelError::Upstream)?;
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

async fn read_fault(mut response: Response, limit: Duration) -> ModelError {
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let retry_after = header("retry-after").and_then(|s| s.trim().parse().ok());
    let id = header("request-id").unwrap_or_default();
    let status = response.status_code();
    let text = clock::within(limit, response.text()).await;
    let body = text.and_then(Result::ok).and_then(|t| serde_json::from_str::<ErrorBody>(&t).ok());
    let fault = model_error_of(status, body.as_ref(), retry_after);
    worker::console_warn!("claude: HTTP {status}, read as {fault:?}, request {}", request_id(&id));
    fault
}

/// Other people's text in our log: Anthropic's request ids, and nothing else.
fn request_id(text: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_id = text.starts_with("req_") && text.len() <= 64 && text.bytes().all(plain);
    if is_id {
        text
    } else {
        "unnamed"
    }
}

fn open_body(response: Response, call: AbortOnDrop) -> Result<Body, ModelError> {
    let ResponseBody::Stream(stream) = response.body() else {
        return Err(ModelError::CutOff);
    };
    let options = ReadableStreamGetReaderOptions::new();
    options.set_mode(ReadableStreamReaderMode::Byob);
    Ok(Body { reader: stream.get_reader_with_options(&options).unchecked_into(), buffer: None, _call: call })
}

impl Body {
    /// The next bytes; `Ok(None)` at the end. An error is a broken connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, JsValue> {
        // The buffer goes to the runtime with each read and comes back with its answer.
        let buffer = self.buffer.take().unwrap_or_else(|| ArrayBuffer::new(CHUNK));
        let view = Uint8Array::new(&buffer);
        let answer = JsFuture::from(self.reader.read_with_array_buffer_view(&view)).await?;
        if Reflect::get(&answer, &"done".into())?.is_truthy() {
            return Ok(None);
        }
        let chunk: Uint8Array = Reflect::get(&answer, &"value".into())?.dyn_into()?;
        let bytes = chunk.to_vec();
        self.buffer = Some(chunk.buffer());
        Ok(Some(bytes))
    }
}
