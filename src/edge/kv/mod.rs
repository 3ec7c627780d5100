//! Cloudflare KV: the operator's config, and the creators' keys, which the vault seals.

pub(crate) mod claude_keys;
pub(crate) mod config;
pub(crate) mod signing_keys;
