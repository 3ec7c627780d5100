//! The document in KV: how it is read, laid over the configuration below it, and validated.

use super::{Anthropic, Config, Facilitator, Hire, Jwt, Limits, Model, Network};
use serde::Deserialize;
use std::collections::BTreeSet;

/// The document as it stands in KV. A section that is left out keeps what the configuration below has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    pub revision: Option<String>,
    pub paused: Option<bool>,
    pub facilitators: Option<Vec<Facilitator>>,
    pub networks: Option<Vec<Network>>,
    pub models: Option<Vec<Model>>,
    pub limits: Option<Limits>,
    pub anthropic: Option<Anthropic>,
    pub jwt: Option<Jwt>,
    pub require_payment_identifier: Option<bool>,
    pub refund_policy: Option<String>,
    pub hire: Option<Hire>,
}

/// Why a document does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The document is not JSON of the documented form.
    #[error("not a config document: {0}")]
    Form(String),
    /// One of its values cannot be right.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Lays a document over this configuration, and validates the result as a whole.
    pub fn with_document(self, document: Document) -> Result<Self, ConfigError> {
        let config = Config {
            revision: document.revision.unwrap_or(self.revision),
            paused: document.paused.unwrap_or(self.paused),
            facilitators: document.facilitators.unwrap_or(self.facilitators),
            networks: document.networks.unwrap_or(self.networks),
            models: document.models.unwrap_or(self.models),
            limits: document.limits.unwrap_or(self.limits),
            anthropic: document.anthropic.unwrap_or(self.anthropic),
            jwt: document.jwt.unwrap_or(self.jwt),
            require_payment_identifier: document.require_payment_identifier.unwrap_or(self.require_payment_identifier),
            refund_policy: document.refund_policy.or(self.refund_policy),
            hire: document.hire.unwrap_or(self.hire),
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads the text of a document.
    pub fn read_document(text: &str) -> Result<Document, ConfigError> {
        serde_json::from_str(text).map_err(|e| ConfigError::Form(e.to_string()))
    }

    /// Reads the text of a document and lays it over this configuration. A document without a `revision` of its own is
    /// named by the start of its digest.
    pub fn with_text(self, text: &str, digest: &str) -> Result<Self, ConfigError> {
        let mut document = Self::read_document(text)?;
        let short_digest = digest.get(..12).unwrap_or(digest);
        document.revision.get_or_insert_with(|| short_digest.to_owned());
        self.with_document(document)
    }

    /// The configuration under an invalid document, where no valid one is known. What the operator wanted is not known
    /// either, so nothing is sold, rather than on other terms.
    pub fn closed(self) -> Self {
        Self { paused: true, revision: "invalid".to_owned(), ..self }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        check(!self.facilitators.is_empty(), "facilitators: none")?;
        for facilitator in &self.facilitators {
            check(is_http_url(&facilitator.url), "facilitators: a url is not http(s)")?;
        }
        let resolver = &self.hire.resolver_url;
        check(resolver.is_empty() || is_http_url(resolver), "hire: resolverUrl is not http(s)")?;
        self.validate_networks()?;
        self.validate_models()?;
        self.limits.validate()?;
        check(is_http_url(&self.anthropic.base_url), "anthropic: baseUrl is not http(s)")?;
        self.jwt.validate()
    }

    fn validate_networks(&self) -> Result<(), ConfigError> {
        check(!self.networks.is_empty(), "networks: none")?;
        for network in &self.networks {
            let chain = network.id.strip_prefix("eip155:").unwrap_or_default();
            let is_number = chain.bytes().all(|b| b.is_ascii_digit()) && chain.parse::<u64>().is_ok();
            check(is_number, "networks: an id is not eip155:<chain id>")?;
            check(network.rpc_url.as_deref().is_none_or(is_http_url), "networks: an rpcUrl is not http(s)")?;
            check(!network.v1.is_empty(), "networks: v1 is empty")?;
            // Sums of earnings are 64-bit integers in D1: 9 decimals leave room for 9 billion whole units.
            check(network.decimals <= 9, "networks: decimals above 9")?;
            check(!network.eip712.name.is_empty(), "networks: eip712.name is empty")?;
            check(!network.eip712.version.is_empty(), "networks: eip712.version is empty")?;
        }
        check(are_distinct(self.networks.iter().map(|n| n.id.as_str())), "networks: an id stands twice")?;
        check(are_distinct(self.networks.iter().map(|n| n.v1.as_str())), "networks: a v1 name stands twice")
    }

    fn validate_models(&self) -> Result<(), ConfigError> {
        check(!self.models.is_empty(), "models: none")?;
        check(are_distinct(self.models.iter().map(|m| m.id.as_str())), "models: an id stands twice")?;
        for model in &self.models {
            check(model.max_output > 0, "models: maxOutput is 0")?;
            check(model.retired_on.as_deref().is_none_or(is_day), "models: retiredOn is not YYYY-MM-DD")?;
        }
        Ok(())
    }
}

impl Limits {
    fn validate(&self) -> Result<(), ConfigError> {
        let seconds = [
            self.max_timeout_seconds,
            self.verify_seconds,
            self.settle_seconds,
            self.claude_begin_seconds,
            self.claude_idle_seconds,
            self.claude_total_seconds,
        ];
        check(seconds.iter().all(|s| (1..=3600).contains(s)), "limits: seconds are 1 to 3600")?;
        check(
            self.max_timeout_seconds > self.window_needed(),
            "limits: maxTimeoutSeconds must exceed claudeBeginSeconds + settleMarginSeconds",
        )?;
        check((1..=16 << 20).contains(&self.body_bytes), "limits: bodyBytes is 1 to 16 MiB")?;
        check((1..=1 << 20).contains(&self.prompt_bytes), "limits: promptBytes is 1 to 1 MiB")?;
        // What is under way counts against the day too, so the smaller of the two binds.
        check(self.unpaid_per_wallet >= 1, "limits: unpaidPerWallet is 0")?;
        check(self.unpaid_per_wallet_day >= 1, "limits: unpaidPerWalletDay is 0")?;
        check(self.start_attempts >= 1, "limits: startAttempts is 0")?;
        check(self.paid_attempts >= 1, "limits: paidAttempts is 0")?;
        check(self.cache_seconds <= 60, "limits: cacheSeconds is 0 to 60")
    }
}

impl Jwt {
    fn validate(&self) -> Result<(), ConfigError> {
        for issuer in &self.issuers {
            check(!issuer.issuer.is_empty() && !issuer.audience.is_empty(), "jwt: issuer or audience is empty")?;
            let sources = [issuer.secret.is_some(), issuer.jwks.is_some(), issuer.jwks_url.is_some()];
            let has_one_source = sources.iter().filter(|s| **s).count() == 1;
            check(has_one_source, "jwt: an issuer has exactly one of secret, jwks, jwksUrl")?;
            check(issuer.jwks_url.as_deref().is_none_or(is_http_url), "jwt: jwksUrl is not http(s)")?;
        }
        check(are_distinct(self.issuers.iter().map(|i| i.issuer.as_str())), "jwt: an issuer stands twice")
    }
}

fn check(is_valid: bool, message: &str) -> Result<(), ConfigError> {
    match is_valid {
        true => Ok(()),
        false => Err(ConfigError::Value(message.to_owned())),
    }
}

fn are_distinct<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    names.all(|name| seen.insert(name))
}

fn is_http_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|r| !r.is_empty() && !r.contains(|c: char| c.is_whitespace() || c == '#' || c == '?'))
}

fn is_day(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |len: usize, max: u16| {
        let digits = parts.next().filter(|p| p.len() == len && p.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|p| p.parse::<u16>().ok()).is_some_and(|n| (1..=max).contains(&n))
    };
    part(4, 9999) && part(2, 12) && part(2, 31) && parts.next().is_none()
}
