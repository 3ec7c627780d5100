//! CORS: any page may pay. What a browser must be allowed to send, and what it may read, is x402's.

use worker::{Headers, Response, ResponseBody, Result};

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
/// The official client sends `Access-Control-Expose-Headers` as a request header.
const ALLOW_HEADERS: &str = "Content-Type, Accept, Authorization, PAYMENT-SIGNATURE, X-PAYMENT, X-Owner-Test, \
     X-No-Stream, Last-Event-ID, Idempotency-Key, X-Contract-ID, Prefer, Range, If-Range, If-None-Match, Access-Control-Expose-Headers";
const EXPOSE_HEADERS: &str =
    "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, Retry-After, X-Run-Id, Content-Location, X-Owner-Test, \
     X-Payment-Address, X-Payment-Amount, X-Payment-Currency, X-Payment-Network, Location, Preference-Applied, \
     ETag, Accept-Ranges, Content-Range, Content-Disposition";

/// The answer to a preflight request.
pub(crate) fn preflight() -> Result<Response> {
    let headers = Headers::new();
    headers.set(ALLOW_ORIGIN, "*")?;
    headers.set("access-control-allow-methods", ALLOW_METHODS)?;
    headers.set("access-control-allow-headers", ALLOW_HEADERS)?;
    headers.set("access-control-max-age", "86400")?;
    Ok(Response::empty()?.with_status(204).with_headers(headers))
}

/// Lets any page read the response. An answer to `HEAD` loses its body.
pub(crate) fn allow(response: Response, head: bool) -> Result<Response> {
    // The wallet's object has set them already. Its response cannot be changed here, and need not be made anew.
    let is_set = response.headers().has(ALLOW_ORIGIN)?;
    if !head && (is_set || set_headers(response.headers()).is_ok()) {
        return Ok(response);
    }
    let status = response.status_code();
    let headers = Headers::new();
    for (name, value) in response.headers().entries() {
        headers.set(&name, &value)?;
    }
    set_headers(&headers)?;
    let (_, body) = response.into_parts();
    let body = if head { ResponseBody::Empty } else { body };
    Ok(Response::from_body(body)?.with_status(status).with_headers(headers))
}

/// Sets the headers that let any page read a response.
pub(crate) fn set_headers(headers: &Headers) -> Result<()> {
    headers.set(ALLOW_ORIGIN, "*")?;
    headers.set("access-control-expose-headers", EXPOSE_HEADERS)?;
    headers.set("x-content-type-options", "nosniff")
}
