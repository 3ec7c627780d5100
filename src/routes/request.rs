//! What routes need of a request: its headers, its URL, its body, and who sent it.

use crate::edge::body_reader::BodyReader;
use crate::edge::rate_limit::Kind;
use crate::edge::{fault, jwt, rate_limit};
use crate::rules::config::Config;
use crate::rules::payment::matching;
use crate::rules::payment::matching::Presented;
use crate::rules::record::run_request::Representation;
use crate::rules::refusal::Refusal;
use crate::wire::accept::prefers_json;
use crate::wire::prefer;
use crate::wire::prefer::Prefer;
use crate::wire::strict;
use serde_json::Value;
use worker::{Env, Request};

/// A request on its way to a resource.
pub(crate) struct RequestContext<'a> {
    /// The bindings of this deployment.
    pub(crate) env: &'a Env,
    pub(crate) request: Request,
}

impl RequestContext<'_> {
    pub(crate) fn header(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.request.headers().get(name).map_err(fault("headers"))
    }

    /// The URL as the caller wrote it. worker's own reading of it would change some.
    pub(crate) fn url(&self) -> String {
        self.request.inner().url()
    }

    /// `https://host`, as the caller has it.
    pub(crate) fn origin(&self) -> String {
        let url = self.url();
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", &url));
        format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default())
    }

    /// Path and query of the URL.
    pub(crate) fn target(&self) -> String {
        let url = self.url();
        let after_scheme = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or("/").to_owned()
    }

    /// What follows the `?` of the URL, as it was sent.
    pub(crate) fn query(&self) -> String {
        self.url().split_once('?').map_or_else(String::new, |(_, query)| query.to_owned())
    }

    /// The address of the caller, as Cloudflare has it.
    pub(crate) fn address(&self) -> Result<Option<String>, Refusal> {
        self.header("cf-connecting-ip")
    }

    /// Counts a request of this kind, and refuses an address that has sent too many.
    pub(crate) async fn count(&self, kind: Kind) -> Result<(), Refusal> {
        let address = self.address()?;
        rate_limit::allows(self.env, kind, address.as_deref()).await.then_some(()).ok_or(Refusal::RateLimited)
    }

    /// The id of the last event that the caller has read.
    pub(crate) fn last_event_id(&self) -> Result<Option<u64>, Refusal> {
        Ok(self.header("last-event-id")?.and_then(|id| id.trim().parse().ok()))
    }

    /// The id of the creator that the request's token speaks for.
    pub(crate) async fn creator(&self, config: &Config) -> Result<String, Refusal> {
        jwt::bearer(self.env, config, self.header("authorization")?.as_deref()).await
    }

    /// The body, of which no more than `limit` bytes are read.
    pub(crate) async fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, Refusal> {
        let declared = self.header("content-length")?.and_then(|length| length.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(Refusal::BodyTooLarge { limit });
        }
        let Some(body) = self.request.inner().body() else { return Ok(Vec::new()) };
        if declared.is_some() {
            // The runtime reads no more than was declared.
            return self.request.bytes().await.map_err(fault("body"));
        }
        let mut body = BodyReader::new(&body);
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await.map_err(|error| fault("body")(worker::Error::from(error)))? {
            bytes.extend(chunk);
            if bytes.len() > limit {
                return Err(Refusal::BodyTooLarge { limit });
            }
        }
        Ok(bytes)
    }
}

/// Whether worker knows the request's method. One that it does not know, it reads as GET.
pub(crate) fn has_known_method(request: &Request) -> bool {
    request.inner().method() == request.method().as_ref()
}

/// The segments of a path. One slash at its end makes no difference; with two it is another path.
pub(crate) fn segments(path: &str) -> Vec<&str> {
    let mut segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    if let [.., last, ""] = segments.as_slice() {
        if !last.is_empty() {
            segments.pop();
        }
    }
    segments
}

/// The first value that a query has for a name, as it was sent.
pub(crate) fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A body that is not a JSON object.
pub(crate) struct NotAnObject {
    /// It is JSON of another kind.
    pub(crate) is_json: bool,
    /// For the refusal's details.
    pub(crate) received: String,
}

/// Reads a body that is signed, hashed or kept: see [`strict`].
pub(crate) fn json_object(body: &[u8]) -> Result<Value, NotAnObject> {
    match strict::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(NotAnObject { is_json: true, received: "another value".to_owned() }),
        Err(error) => Err(NotAnObject { is_json: false, received: error.to_string() }),
    }
}

/// What the headers say of a request that is paid, or is an owner's test.
pub(crate) struct RequestHead {
    pub(crate) owner_test: bool,
    payment_v2: Option<String>,
    payment_v1: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) representation: Representation,
    pub(crate) prefer: Prefer,
}

impl RequestHead {
    pub(crate) fn read(context: &RequestContext<'_>) -> Result<Self, Refusal> {
        let is_true = |value: Option<String>| value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
        let prefers_json = prefers_json(&context.header("accept")?.unwrap_or_default());
        let no_stream = is_true(context.header("x-no-stream")?);
        Ok(Self {
            owner_test: is_true(context.header("x-owner-test")?),
            payment_v2: context.header("payment-signature")?,
            payment_v1: context.header("x-payment")?,
            idempotency_key: context.header("idempotency-key")?,
            representation: if prefers_json || no_stream { Representation::Json } else { Representation::Stream },
            prefer: prefer::read(&context.header("prefer")?.unwrap_or_default()),
        })
    }

    pub(crate) fn has_payment(&self) -> bool {
        self.payment_v2.is_some() || self.payment_v1.is_some()
    }

    pub(crate) fn read_payment(&self) -> Result<Option<Presented>, Refusal> {
        matching::read_payment(self.payment_v2.as_deref(), self.payment_v1.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slash_at_the_end_of_a_path_makes_no_difference_and_two_make_another_path() {
        for (path, expected) in [
            ("/", vec![""]),
            ("//", vec!["", ""]),
            ("/@ada/haiku", vec!["@ada", "haiku"]),
            ("/@ada/haiku/", vec!["@ada", "haiku"]),
            ("/@ada/haiku//", vec!["@ada", "haiku", "", ""]),
            ("/@ada//haiku", vec!["@ada", "", "haiku"]),
        ] {
            assert_eq!(segments(path), expected, "{path}");
        }
    }

    #[test]
    fn a_query_value_is_that_of_the_whole_name_and_the_first_of_several() {
        let query = "statuses=x&status=failed&status=delivered&before=&flag";
        assert_eq!(query_value(query, "status"), Some("failed"));
        assert_eq!(query_value(query, "before"), Some(""));
        assert_eq!((query_value(query, "flag"), query_value(query, "stat"), query_value("", "a")), (None, None, None));
    }

    #[test]
    fn a_body_is_one_json_object_with_each_name_once() {
        assert!(json_object(b" {\"a\":[1]} ").is_ok());
        for (body, is_json) in
            [("[]", true), ("null", true), ("{", false), ("{} {}", false), (r#"{"a":1,"a":1}"#, false)]
        {
            let error = json_object(body.as_bytes()).err().map(|error| error.is_json);
            assert_eq!(error, Some(is_json), "{body}");
        }
    }
}
