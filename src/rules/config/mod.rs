//! The operator's configuration: one JSON document in KV under `config`, which applies as a whole or not at all.
//!
//! A section that the document leaves out comes from the `[vars]` of the deployment, and one that those leave out from
//! [`Config::built_in`].

mod document;
mod vars;

pub use document::{ConfigError, Document};

use crate::rules::run::Millis;
use crate::wire::evm::{Address, Domain};
use crate::wire::jwt::JwkSet;
use serde::{Deserialize, Serialize};

/// The configuration that applies now.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Names the document: its own `revision`, else the start of its digest, else `vars`.
    pub revision: String,
    /// No new runs begin. Callers are refused before any payment is asked for.
    pub paused: bool,
    /// In the order in which they are asked.
    pub facilitators: Vec<Facilitator>,
    /// In the order in which they are offered.
    pub networks: Vec<Network>,
    /// The models that templates may name.
    pub models: Vec<Model>,
    pub limits: Limits,
    pub anthropic: Anthropic,
    pub jwt: Jwt,
    /// Whether every payment must come with x402's `payment-identifier`, or with an `Idempotency-Key`.
    pub require_payment_identifier: bool,
    /// What the operator promises about refunds beyond what the software does; shown at
    /// `/.well-known/refund-policy.json`.
    pub refund_policy: Option<String>,
    pub hire: Hire,
}

/// Settings of the HIRE protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hire {
    /// The CAIP-2 id of the network that contracts call `base`.
    pub network: String,
    /// The operator's own wallet, which the manifest of all creators names.
    pub wallet: Option<Address>,
    /// For development: webhooks may be sent to this machine, and over plain HTTP.
    pub allow_loopback: bool,
    /// The DNS over HTTPS service (JSON) that looks up a webhook's host before anything is sent. Empty: no look-up.
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

/// A facilitator of the x402 protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facilitator {
    /// The base URL, to which `/verify` and `/settle` are appended.
    pub url: String,
    /// Where the facilitator takes claims at `/claims/report-failure`: the name of the Worker secret with the API key
    /// for them. Never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims_secret: Option<String>,
}

/// A network and the one asset accepted there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// The CAIP-2 id, such as `eip155:8453`.
    pub id: String,
    /// The name that x402 v1 uses: `base`.
    pub v1: String,
    /// The address of the token's contract.
    pub asset: Address,
    pub decimals: u8,
    /// The token's EIP-712 domain. With a wrong name every signature fails.
    pub eip712: Eip712Domain,
    /// A JSON-RPC node of the chain. It is asked what became of a payment whose settlement was not answered, and whether
    /// a payer whose key has not signed is a contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_url: Option<String>,
}

impl Network {
    pub fn chain_id(&self) -> u64 {
        // Validation has made sure that this is a number.
        self.id.strip_prefix("eip155:").and_then(|id| id.parse().ok()).unwrap_or_default()
    }

    /// The whole EIP-712 domain of the token.
    pub fn domain(&self) -> Domain {
        Domain {
            name: self.eip712.name.clone(),
            version: self.eip712.version.clone(),
            chain_id: self.chain_id(),
            contract: self.asset,
        }
    }
}

/// The `name` and `version` of an EIP-712 domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Eip712Domain {
    /// "USD Coin" on Base, "USDC" on Base Sepolia.
    pub name: String,
    pub version: String,
}

/// A model that templates may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// The id that Anthropic gives the model.
    pub id: String,
    /// The most tokens it writes in one answer.
    pub max_output: u32,
    /// The day (`YYYY-MM-DD`) from which no template that names the model is sold.
    #[serde(default)]
    pub retired_on: Option<String>,
}

/// Limits of what callers send, and of how long others may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Longest body of a request, in bytes.
    pub body_bytes: usize,
    /// Longest value of a parameter, in characters.
    pub value_chars: usize,
    /// Longest user message, in characters.
    pub user_message_chars: usize,
    /// Longest prompt without its tags, in bytes.
    pub prompt_bytes: usize,
    /// The `maxTimeoutSeconds` of our terms, within which the answer is generated and settled.
    pub max_timeout_seconds: u64,
    /// How long a payment must still be valid when it is presented, beyond `claude_begin_seconds`.
    pub settle_margin_seconds: u64,
    /// The limit of one call of `/verify`.
    pub verify_seconds: u64,
    /// The limit of one call of `/settle`, after which the outcome counts as unknown.
    pub settle_seconds: u64,
    /// The longest wait from the request to Claude until `message_start`.
    pub claude_begin_seconds: u64,
    /// The longest pause in an answer.
    pub claude_idle_seconds: u64,
    /// The limit of a whole answer.
    pub claude_total_seconds: u64,
    /// How many streams of one payer may show their text before they are settled (`release: verified`). Further ones
    /// show it when they are settled.
    pub outstanding_per_payer: u32,
    /// How many runs of one wallet may be under way that are not settled. They are limited because Claude works, and
    /// the creator pays for it, before the caller pays.
    pub unpaid_per_wallet: u32,
    /// How many runs of one wallet may have come to nothing by the payer's doing within a day.
    pub unpaid_per_wallet_day: u32,
    /// How many free tests an owner has in a day.
    pub owner_tests_per_day: u32,
    /// The most calls of Claude for one run before it is paid, where the error is a temporary one.
    pub start_attempts: u8,
    /// The most calls of Claude for one run once it is paid.
    pub paid_attempts: u8,
    /// For how many seconds an isolate keeps a template and its creator's key record, so that a change may be noticed
    /// that much later. 0: they are read for each request.
    pub cache_seconds: u64,
}

impl Limits {
    /// For how many seconds a payment must still be valid when it is presented, so that Claude can begin and the
    /// payment be settled.
    pub const fn window_needed(&self) -> u64 {
        self.claude_begin_seconds.saturating_add(self.settle_margin_seconds)
    }

    /// As [`Self::window_needed`], for an answer that is settled when it is whole, of a template whose answers usually
    /// take `usual` milliseconds. A payment with the window of our own terms is always long enough.
    pub fn window_needed_for(&self, usual: Option<u64>) -> u64 {
        let whole = usual.unwrap_or_default().div_ceil(1000).saturating_add(self.settle_margin_seconds);
        let longest = self.max_timeout_seconds.saturating_sub(self.max_timeout_seconds / 4);
        self.window_needed().max(whole.min(longest))
    }

    /// The same as `cache_seconds`, in milliseconds.
    pub const fn cache_time(&self) -> Millis {
        self.cache_seconds.saturating_mul(1000)
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
            unpaid_per_wallet: 8,
            unpaid_per_wallet_day: 20,
            owner_tests_per_day: 200,
            start_attempts: 3,
            paid_attempts: 3,
            cache_seconds: 5,
        }
    }
}

/// How Anthropic's API is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anthropic {
    /// The base URL, to which `/v1/messages` is appended.
    pub base_url: String,
    /// The value of the `anthropic-version` header.
    #[serde(default = "anthropic_version")]
    pub version: String,
}

/// The version that the official SDKs send, and that every model answers to.
pub fn anthropic_version() -> String {
    "2023-06-01".to_owned()
}

/// Who issues owners' tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    pub issuers: Vec<Issuer>,
}

/// One issuer, with exactly one source of keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The name that `aud` must contain.
    pub audience: String,
    /// For HS256: the name of the Worker secret with the shared secret. Never the secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// For ES256 and RS256: the public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwkSet>,
    /// For ES256 and RS256: the URL at which the public keys are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
}

impl Config {
    /// The configuration without a document and without vars: Base and Base Sepolia with Circle's USDC, the current
    /// models, the public facilitator. No token is valid.
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

    /// The most tokens of an answer for which a template allows `allowed`: no more than the model writes.
    pub fn max_tokens(&self, model: &str, allowed: u32) -> u32 {
        let max_output = self.models.iter().find(|m| m.id == model).map(|m| m.max_output);
        max_output.map_or(allowed, |max_output| allowed.min(max_output))
    }

    /// The network that HIRE's contracts call `base`, if it is configured.
    pub fn hire_network(&self) -> Option<&Network> {
        self.networks.iter().find(|n| n.id == self.hire.network)
    }

    /// The model with this id, unless it is retired on `today` (`YYYY-MM-DD`).
    pub fn model(&self, id: &str, today: &str) -> Option<&Model> {
        let current = |m: &&Model| m.retired_on.as_deref().is_none_or(|day| today < day);
        self.models.iter().find(|m| m.id == id).filter(current)
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
