//! HTTP calls to other services. Each has a limit of time, and is aborted when it is dropped.

pub(crate) mod accounts;
pub(crate) mod chain;
pub(crate) mod claude;
pub(crate) mod facilitator;
pub(crate) mod webhooks;

use super::clock;
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, RequestInit, RequestRedirect, WorkerGlobalScope};
use worker::{Headers, Method, Response};

/// Why there is no HTTP response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection failed. The request may have been received all the same.
    #[error("no connection: {0}")]
    Connection(worker::Error),
    #[error("no answer in time")]
    TimedOut,
}

/// Aborts a call when dropped.
pub(crate) struct AbortOnDrop(Option<AbortController>);

impl AbortOnDrop {
    /// The whole answer has arrived, so nothing is left to abort. An abort costs CPU time all the same.
    fn complete(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(controller) = self.0.take() {
            controller.abort();
        }
    }
}

/// Sends a request that carries a secret, and waits for the head of the response. The body can be read as long as the
/// [`AbortOnDrop`] lives. Redirects are not followed: they would carry the secret to a host that nobody configured.
pub(crate) async fn send(
    method: Method,
    url: &str,
    headers: Headers,
    body: Option<&str>,
    limit: Duration,
) -> Result<(Response, AbortOnDrop), CallError> {
    let controller = AbortController::new().map_err(connection)?;
    let signal = controller.signal();
    let call = AbortOnDrop(Some(controller));
    let answer = fetch(method, url, &headers, body, RequestRedirect::Manual, &signal);
    match clock::within(limit, answer).await {
        None => Err(CallError::TimedOut),
        Some(Err(error)) => Err(connection(error)),
        Some(Ok(response)) => Ok((response.into(), call)),
    }
}

async fn fetch(
    method: Method,
    url: &str,
    headers: &Headers,
    body: Option<&str>,
    redirect: RequestRedirect,
    signal: &AbortSignal,
) -> Result<web_sys::Response, JsValue> {
    let init = RequestInit::new();
    init.set_method(method.as_ref());
    init.set_headers(&headers.0);
    init.set_redirect(redirect);
    init.set_signal(Some(signal));
    if let Some(body) = body {
        init.set_body(&body.into());
    }
    let global: WorkerGlobalScope = js_sys::global().unchecked_into();
    let response = JsFuture::from(global.fetch_with_str_and_init(url, &init)).await?;
    Ok(response.unchecked_into())
}

fn connection(error: JsValue) -> CallError {
    CallError::Connection(error.into())
}

/// Posts JSON and reads the whole response, within one limit.
pub(crate) async fn post_json(url: &str, json: &str, limit: Duration) -> Result<(u16, String), CallError> {
    let headers = Headers::new();
    // Setting a constant header cannot fail.
    let _ = headers.set("content-type", "application/json");
    let _ = headers.set("accept", "application/json");
    read(Method::Post, url, headers, Some(json), limit).await
}

/// Sends a request and reads the whole response, within one limit.
pub(crate) async fn read(
    method: Method,
    url: &str,
    headers: Headers,
    body: Option<&str>,
    limit: Duration,
) -> Result<(u16, String), CallError> {
    read_all(method, url, headers, body, RequestRedirect::Follow, limit).await
}

/// As [`read`], for a request that carries a secret: like [`send`], it follows no redirects.
pub(crate) async fn read_unredirected(
    method: Method,
    url: &str,
    headers: Headers,
    body: Option<&str>,
    limit: Duration,
) -> Result<(u16, String), CallError> {
    read_all(method, url, headers, body, RequestRedirect::Manual, limit).await
}

/// (Not by `AbortSignal.timeout`: its timer goes on after the answer, and keeps the object awake as long.)
async fn read_all(
    method: Method,
    url: &str,
    headers: Headers,
    body: Option<&str>,
    redirect: RequestRedirect,
    limit: Duration,
) -> Result<(u16, String), CallError> {
    let controller = AbortController::new().map_err(connection)?;
    let signal = controller.signal();
    let call = AbortOnDrop(Some(controller));
    let answer = async {
        let response = fetch(method, url, &headers, body, redirect, &signal).await?;
        let text = JsFuture::from(response.text()?).await?;
        Ok((response.status(), text.as_string().unwrap_or_default()))
    };
    let answer = clock::within(limit, answer).await.ok_or(CallError::TimedOut)?.map_err(connection)?;
    call.complete();
    Ok(answer)
}

/// Joins a base URL and a path, with one slash between them.
pub(crate) fn join(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/'))
}
