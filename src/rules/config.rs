//! The operator's live configuration: one JSON document in KV under `config`, validated whole.
//!
//! Every section may be left out; what is left out comes from the `[vars]` of the deployment, and
//! what those leave out from [`Config::built_in`]. A document with one bad line changes nothing.

use crate::wire::evm::{Address, Domain};
use crate::wire::jwt::JwkSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The configuration in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Names the document: its own `revision`, else a digest of its text; `vars` without one.
    pub revision: String,
    /// No new runs. Callers are told before any payment is asked for.
    pub paused: bool,
    /// In order of preference.
    pub facilitators: Vec<Facilitator>,
    /// In order of preference.
    pub networks: Vec<Network>,
    /// What templates may name.
    pub models: Vec<Model>,
    /// Bounds.
    pub limits: Limits,
    /// Where Claude is.
    pub anthropic: Anthropic,
    /// Whose tokens are believed.
    pub jwt: Jwt,
    /// Every payment must come with x402's `payment-identifier`, or with an `Idempotency-Key`.
    pub require_payment_identifier: bool,
    /// What the operator promises beyond what the software does; shown at `/.well-known/refund-policy.json`.
    pub refund_policy: Option<String>,
    /// HIRE.
    pub hire: Hire,
}

/// The document as it stands in KV.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// See [`Config::revision`].
    pub revision: Option<String>,
    /// See [`Config::paused`].
    pub paused: Option<bool>,
    /// See [`Config::facilitators`].
    pub facilitators: Option<Vec<Facilitator>>,
    /// See [`Config::networks`].
    pub networks: Option<Vec<Network>>,
    /// See [`Config::models`].
    pub models: Option<Vec<Model>>,
    /// See [`Config::limits`].
    pub limits: Option<Limits>,
    /// See [`Config::anthropic`].
    pub anthropic: Option<Anthropic>,
    /// See [`Config::jwt`].
    pub jwt: Option<Jwt>,
    /// See [`Config::require_payment_identifier`].
    pub require_payment_identifier: Option<bool>,
    /// See [`Config::refund_policy`].
    pub refund_policy: Option<String>,
    /// See [`Config::hire`].
    pub hire: Option<Hire>,
}

/// What there is to say about HIRE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hire {
    /// What contracts mean by `base`: the CAIP-2 id of one of the networks.
    pub network: String,
    /// The operator's own, for the manifest of all creators.
    pub wallet: Option<Address>,
    /// For development: webhooks may lead to this machine, and in clear.
    pub allow_loopback: bool,
    /// DNS over HTTPS, in JSON: where the names of webhooks are looked up before anything is sent. Empty: not at
    /// all.
    pub resolver_url: String,
}

impl Default for Hire {
    fn default() -> Self {
        Self {
            network: "eip155:8453".to_owned(),
            wallet: None,
            allow_loopback: false,
            resolver_url: "https://cloudflare-dns.com/dns-query".to_owned(),
        }
    }
}

/// An x402 facilitator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facilitator {
    /// Base URL; `/verify` and `/settle` are appended.
    pub url: String,
    /// Takes reports of failed runs at `/claims/report-failure`: the name of the Worker secret that holds
    /// the API key for it. Never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims_secret: Option<String>,
}

/// A network and the one asset accepted there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// CAIP-2: `eip155:8453`.
    pub id: String,
    /// The name that x402 v1 uses: `base`.
    pub v1: String,
    /// The token's contract.
    pub asset: Address,
    /// The token's decimals.
    pub decimals: u8,
    /// The token's EIP-712 domain: a wrong name fails every signature.
    pub eip712: Eip712Domain,
    /// A JSON-RPC node of the chain. It is asked for one thing only: what became of a payment whose
    /// settlement was not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_url: Option<String>,
}

impl Network {
    /// The chain's own number.
    pub fn chain_id(&self) -> u64 {
        // Validated: it is one.
        self.id.strip_prefix("eip155:").and_then(|id| id.parse().ok()).unwrap_or_default()
    }

    /// The token's EIP-712 domain in full.
    pub fn domain(&self) -> Domain {
        Domain {
            name: self.eip712.name.clone(),
            version: self.eip712.version.clone(),
            chain_id: self.chain_id(),
            contract: self.asset,
        }
    }
}

/// `name` and `version` of an EIP-712 domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Eip712Domain {
    /// "USD Coin" on Base, "USDC" on Base Sepolia.
    pub name: String,
    /// "2".
    pub version: String,
}

/// A model that templates may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// Anthropic's id.
    pub id: String,
    /// The most tokens it writes in one answer.
    pub max_output: u32,
    /// `YYYY-MM-DD`: from that day on nothing is sold that needs it.
    #[serde(default)]
    pub retired_on: Option<String>,
}

/// Bounds on what callers send and how long others may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// A request's body, in bytes.
    pub body_bytes: usize,
    /// One parameter's value, in characters.
    pub value_chars: usize,
    /// The user message, in characters.
    pub user_message_chars: usize,
    /// A filled-in prompt, in bytes: a template may repeat a value many times.
    pub prompt_bytes: usize,
    /// `maxTimeoutSeconds` of our terms: covers generation and settlement.
    pub max_timeout_seconds: u64,
    /// What must be left of a payment's window, beyond `claude_begin_seconds`, when it is presented.
    pub settle_margin_seconds: u64,
    /// One `/verify` call.
    pub verify_seconds: u64,
    /// One `/settle` call; beyond it the outcome counts as unknown.
    pub settle_seconds: u64,
    /// From asking Claude to `message_start`.
    pub claude_begin_seconds: u64,
    /// Silence in the middle of an answer.
    pub claude_idle_seconds: u64,
    /// A whole answer.
    pub claude_total_seconds: u64,
    /// How many streams of one payer may show their text before they are settled (`release: verified`).
    /// One more is shown when it is settled, as others are.
    pub outstanding_per_payer: u32,
    /// How many executions of contracts of one seeker may be under way, or have come to nothing within a day. (Claude
    /// works before the seeker pays.)
    #[serde(alias = "inVainPerPayer")]
    pub unpaid_executions_per_payer: u32,
    /// Claude calls for one run before it is paid, where the fault is one that passes.
    pub start_attempts: u8,
    /// Claude calls for one run once it is paid.
    pub paid_attempts: u8,
}

impl Limits {
    /// What must be left of a payment's window when it is presented, in seconds: Claude has to begin, and the
    /// payment to be settled.
    pub const fn window_needed(&self) -> u64 {
        self.claude_begin_seconds.saturating_add(self.settle_margin_seconds)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 512 * 1024,
            value_chars: 20_000,
            user_message_chars: 50_000,
            prompt_bytes: 1 << 20,
            max_timeout_seconds: 300,
            settle_margin_seconds: 6,
            verify_seconds: 10,
            settle_seconds: 60,
            claude_begin_seconds: 30,
            claude_idle_seconds: 60,
            claude_total_seconds: 600,
            outstanding_per_payer: 3,
            unpaid_executions_per_payer: 20,
            start_attempts: 3,
            paid_attempts: 3,
        }
    }
}

/// Where Claude is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anthropic {
    /// `/v1/messages` is appended.
    pub base_url: String,
    /// The `anthropic-version` header.
    #[serde(default = "anthropic_version")]
    pub version: String,
}

/// The version every Claude model answers to, as the older official SDKs send it.
pub fn anthropic_version() -> String {
    "2023-06-01".to_owned()
}

/// Whose tokens are believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    /// The issuers.
    pub issuers: Vec<Issuer>,
}

/// One issuer of owners' tokens, with the one place its keys come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
    /// HS256: the name of the Worker secret that holds the shared secret. Never the secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// ES256 and RS256: the public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwkSet>,
    /// ES256 and RS256: where the public keys are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
}

/// Why a document is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON of the documented form.
    #[error("not a config document: {0}")]
    Form(String),
    /// A value that cannot be right.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// What applies where neither KV nor the vars say anything: Base and Base Sepolia with Circle's
    /// USDC, the current models, the public facilitator. Nobody's token is believed.
    pub fn built_in() -> Self {
        let usdc = |id: &str, v1: &str, asset: [u8; 20], name: &str, rpc_url: &str| Network {
            id: id.to_owned(),
            v1: v1.to_owned(),
            asset: Address::from(asset),
            decimals: 6,
            eip712: Eip712Domain { name: name.to_owned(), version: "2".to_owned() },
            rpc_url: Some(rpc_url.to_owned()),
        };
        let model = |id: &str, max_output| Model { id: id.to_owned(), max_output, retired_on: None };
        Config {
            revision: "built-in".to_owned(),
            paused: false,
            facilitators: vec![Facilitator { url: "https://x402.org/facilitator".to_owned(), claims_secret: None }],
            networks: vec![
                usdc("eip155:8453", "base", BASE_USDC, "USD Coin", "https://mainnet.base.org"),
                usdc("eip155:84532", "base-sepolia", BASE_SEPOLIA_USDC, "USDC", "https://sepolia.base.org"),
            ],
            models: vec![
                model("claude-opus-5-5", 64_000),
                model("claude-sonnet-5-5", 64_000),
                model("claude-haiku-5-5", 64_000),
                model("claude-sonnet-4-6", 64_000),
                model("claude-haiku-4-5-20251001", 64_000),
                model("claude-haiku-4-5", 64_000),
            ],
            limits: Limits::default(),
            anthropic: Anthropic { base_url: "https://api.anthropic.com".to_owned(), version: anthropic_version() },
            jwt: Jwt::default(),
            require_payment_identifier: false,
            refund_policy: None,
            hire: Hire::default(),
        }
    }

    /// Lays a document over this configuration, and validates the result whole.
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

    /// How many tokens an answer may have that its template allows `wanted`: no more than the model writes.
    pub fn max_tokens(&self, model: &str, wanted: u32) -> u32 {
        let most = self.models.iter().find(|m| m.id == model).map(|m| m.max_output);
        most.map_or(wanted, |most| wanted.min(most))
    }

    /// The network that HIRE's contracts call `base`, where there is one.
    pub fn hire_network(&self) -> Option<&Network> {
        self.networks.iter().find(|n| n.id == self.hire.network)
    }

    /// The model a template names, where it can be sold on `today` (`YYYY-MM-DD`).
    pub fn model(&self, id: &str, today: &str) -> Option<&Model> {
        let current = |m: &&Model| m.retired_on.as_deref().is_none_or(|day| today < day);
        self.models.iter().find(|m| m.id == id).filter(current)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, what: &str| match ok {
            true => Ok(()),
            false => Err(ConfigError::Value(what.to_owned())),
        };
        check(!self.facilitators.is_empty(), "facilitators: none")?;
        for facilitator in &self.facilitators {
            check(is_http_url(&facilitator.url), "facilitators: a url is not http(s)")?;
        }
        let resolver = &self.hire.resolver_url;
        check(resolver.is_empty() || is_http_url(resolver), "hire: resolverUrl is not http(s)")?;
        check(!self.networks.is_empty(), "networks: none")?;
        for network in &self.networks {
            let chain = network.id.strip_prefix("eip155:").unwrap_or_default();
            let plain = chain.bytes().all(|b| b.is_ascii_digit()) && chain.parse::<u64>().is_ok();
            check(plain, "networks: an id is not eip155:<chain id>")?;
            check(network.rpc_url.as_deref().is_none_or(is_http_url), "networks: an rpcUrl is not http(s)")?;
            check(!network.v1.is_empty(), "networks: v1 is empty")?;
            // Sums of earnings are 64-bit integers in D1: 9 decimals leave room for 9 billion whole units.
            check(network.decimals <= 9, "networks: decimals above 9")?;
            check(!network.eip712.name.is_empty(), "networks: eip712.name is empty")?;
            check(!network.eip712.version.is_empty(), "networks: eip712.version is empty")?;
        }
        let once = |names: Vec<&str>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
        let ids = self.networks.iter().map(|n| n.id.as_str()).collect();
        check(once(ids), "networks: an id stands twice")?;
        let names = self.networks.iter().map(|n| n.v1.as_str()).collect();
        check(once(names), "networks: a v1 name stands twice")?;
        check(!self.models.is_empty(), "models: none")?;
        check(once(self.models.iter().map(|m| m.id.as_str()).collect()), "models: an id stands twice")?;
        for model in &self.models {
            check(model.max_output > 0, "models: maxOutput is 0")?;
            let day = model.retired_on.as_deref();
            check(day.is_none_or(is_day), "models: retiredOn is not YYYY-MM-DD")?;
        }
        let l = &self.limits;
        let positive = [
            l.max_timeout_seconds,
            l.verify_seconds,
            l.settle_seconds,
            l.claude_begin_seconds,
            l.claude_idle_seconds,
            l.claude_total_seconds,
        ];
        check(positive.iter().all(|s| (1..=3600).contains(s)), "limits: seconds are 1 to 3600")?;
        check(
            l.max_timeout_seconds > l.window_needed(),
            "limits: maxTimeoutSeconds must exceed claudeBeginSeconds + settleMarginSeconds",
        )?;
        check((1..=16 << 20).contains(&l.body_bytes), "limits: bodyBytes is 1 to 16 MiB")?;
        check((1..=1 << 20).contains(&l.prompt_bytes), "limits: promptBytes is 1 to 1 MiB")?;
        check(l.start_attempts >= 1, "limits: startAttempts is 0")?;
        check(l.paid_attempts >= 1, "limits: paidAttempts is 0")?;
        check(is_http_url(&self.anthropic.base_url), "anthropic: baseUrl is not http(s)")?;
        for issuer in &self.jwt.issuers {
            check(!issuer.issuer.is_empty() && !issuer.audience.is_empty(), "jwt: issuer or audience is empty")?;
            let sources = [issuer.secret.is_some(), issuer.jwks.is_some(), issuer.jwks_url.is_some()];
            let one = sources.iter().filter(|s| **s).count() == 1;
            check(one, "jwt: an issuer has exactly one of secret, jwks, jwksUrl")?;
            check(issuer.jwks_url.as_deref().is_none_or(is_http_url), "jwt: jwksUrl is not http(s)")?;
        }
        let issuers = self.jwt.issuers.iter().map(|i| i.issuer.as_str()).collect();
        check(once(issuers), "jwt: an issuer stands twice")
    }
}

const BASE_USDC: [u8; 20] = [
    0x83, 0x35, 0x89, 0xfc, 0xd6, 0xed, 0xb6, 0xe0, 0x8f, 0x4c, 0x7c, 0x32, 0xd4, 0xf7, 0x1b, 0x54, 0xbd, 0xa0, 0x29,
    0x13,
];
const BASE_SEPOLIA_USDC: [u8; 20] = [
    0x03, 0x6c, 0xbd, 0x53, 0x84, 0x2c, 0x54, 0x26, 0x63, 0x4e, 0x79, 0x29, 0x54, 0x1e, 0xc2, 0x31, 0x8f, 0x3d, 0xcf,
    0x7e,
];

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
