//! Sends webhooks to seekers.

use super::CallError;
use crate::edge::clock;
use crate::edge::http;
use crate::rules::config::{Config, Hire};
use crate::rules::hire::webhook::{signature, Outcome, Webhook, SECRET_PREFIX};
use crate::rules::hire::webhook_target::{address, check, check_new, check_text, is_public, Target};
use crate::wire::base64;
use serde::Deserialize;
use std::time::Duration;
use web_sys::Url;
use worker::{Headers, Method};

/// The limit of one attempt.
const LIMIT: Duration = Duration::from_secs(10);
/// The limit of one DNS look-up.
const LOOK_UP: Duration = Duration::from_secs(4);
/// The DNS record types of IPv4 and IPv6 addresses.
const RECORD_TYPES: [&str; 2] = ["A", "AAAA"];

/// Whether webhooks may be sent to the URL, as far as the URL itself shows. The error says what is expected instead.
pub(crate) fn is_allowed(config: &Config, url: &str) -> Result<(), &'static str> {
    check_text(url)?;
    parse(&config.hire, url, check_new).map(drop)
}

/// What decides where a webhook may be sent: [`check_new`] or [`check`].
type Check = fn(Target<'_>, bool) -> Result<(), &'static str>;

fn parse(hire: &Hire, url: &str, check: Check) -> Result<Url, &'static str> {
    let parsed = Url::new(url).map_err(|_| "a URL")?;
    let (scheme, host, port) = (parsed.protocol(), parsed.hostname(), parsed.port().parse().ok());
    let has_credentials = !parsed.username().is_empty() || !parsed.password().is_empty();
    check(Target { scheme: &scheme, host: &host, port, has_credentials }, hire.allow_loopback)?;
    Ok(parsed)
}

/// Makes one attempt. Of the response only the status counts: its body is neither read nor logged.
pub(crate) async fn send(config: &Config, url: &str, secret: &str, webhook: &Webhook, body: &str) -> Outcome {
    // A contract that was registered under other rules for text and port keeps its webhook. What is sent to is the URL as
    // the runtime has parsed it.
    let url = match parse(&config.hire, url, check) {
        Ok(url) => url,
        Err(_) => return Outcome::Refused("the URL is not allowed"),
    };
    if let Err(outcome) = look_up(&config.hire, &url).await {
        return outcome;
    }
    let seconds = clock::seconds();
    let secret = secret.strip_prefix(SECRET_PREFIX).and_then(base64::decode);
    let signature = secret.and_then(|secret| signature(&secret, &webhook.id, seconds, body));
    let Some(signature) = signature else {
        return Outcome::Refused("the secret is unreadable");
    };
    let headers = Headers::new();
    let values = [
        ("content-type", "application/json"),
        ("user-agent", "coinslot-webhook"),
        ("webhook-id", &webhook.id),
        ("webhook-timestamp", &seconds.to_string()),
        ("webhook-signature", &signature),
    ];
    if values.iter().any(|(name, value)| headers.set(name, value).is_err()) {
        return Outcome::Refused("the headers cannot be set");
    }
    // Redirects are not followed: only the host that was looked up may be called.
    match http::send(Method::Post, &url.href(), headers, Some(body), LIMIT).await {
        Ok((response, _call)) => Outcome::Status(response.status_code()),
        Err(CallError::TimedOut) => Outcome::NoAnswer("no answer in 10 s"),
        Err(CallError::Connection(_)) => Outcome::NoAnswer("no connection"),
    }
}

/// An answer of DNS over HTTPS, in its JSON form.
#[derive(Deserialize)]
struct DnsAnswer {
    #[serde(rename = "Answer", default)]
    records: Vec<DnsRecord>,
}

#[derive(Deserialize)]
struct DnsRecord {
    data: String,
}

/// Looks the host up before anything is sent to it: each of its addresses must be public. (The connection resolves the
/// name once more, at Cloudflare, from where private addresses are not reachable.)
async fn look_up(hire: &Hire, url: &Url) -> Result<(), Outcome> {
    let host = url.hostname();
    if hire.resolver_url.is_empty() || address(&host).is_some() || (hire.allow_loopback && host == "localhost") {
        return Ok(());
    }
    let mut found = false;
    for record_type in RECORD_TYPES {
        let query = format!("{}?name={host}&type={record_type}", hire.resolver_url);
        let headers = Headers::new();
        let _ = headers.set("accept", "application/dns-json");
        let answer = http::read(Method::Get, &query, headers, None, LOOK_UP).await;
        let text = answer.ok().filter(|(status, _)| *status == 200).map(|(_, text)| text);
        let resolved = text.and_then(|text| serde_json::from_str::<DnsAnswer>(&text).ok());
        let resolved = resolved.ok_or(Outcome::NoAnswer("the name cannot be looked up"))?;
        for address in resolved.records.iter().filter_map(|record| record.data.parse().ok()) {
            if !is_public(address) {
                return Err(Outcome::Refused("the name leads to an address that is not public"));
            }
            found = true;
        }
    }
    found.then_some(()).ok_or(Outcome::NoAnswer("the name has no address"))
}
