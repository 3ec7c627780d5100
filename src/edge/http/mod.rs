//! HTTP calls to other services. Each has a limit of time, and is aborted when it is dropped.

pub(crate) mod chain;
pub(crate) mod claude;
pub(crate) mod facilitator;
pub(crate) mod webhooks;

use super::clock;
use std::time::Duration;
use worker::{AbortController, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Response};

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
    start(method, url, headers, body, RequestRedirect::Manual, limit).await
}

async fn start(
    method: Method,
    url: &str,
    headers: Headers,
    body: Option<&str>,
    redirect: RequestRedirect,
    limit: Duration,
) -> Result<(Response, AbortOnDrop), CallError> {
    let mut init = RequestInit::new();
    init.with_method(method).with_headers(headers).with_redirect(redirect).with_body(body.map(Into::into));
    let request = Request::new_with_init(url, &init).map_err(CallError::Connection)?;
    let controller = AbortController::default();
    let signal = controller.signal();
    let call = AbortOnDrop(Some(controller));
    let answer = clock::within(limit, Fetch::Request(request).send_with_signal(&signal)).await;
    match answer {
        None => Err(CallError::TimedOut),
        Some(Err(error)) => Err(CallError::Connection(error)),
        Some(Ok(response)) => Ok((response, call)),
    }
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

async fn read_all(
    method: Method,
    url: &str,
    headers: Headers,
    body: Option<&str>,
    redirect: RequestRedirect,
    limit: Duration,
) -> Result<(u16, String), CallError> {
    let work = async {
        let (mut response, call) = start(method, url, headers, body, redirect, limit).await?;
        let text = response.text().await.map_err(CallError::Connection)?;
        call.complete();
        Ok((response.status_code(), text))
    };
    clock::within(limit, work).await.unwrap_or(Err(CallError::TimedOut))
}

/// Joins a base URL and a path, with one slash between them.
pub(crate) fn join(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/'))
}
