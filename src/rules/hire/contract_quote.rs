//! The quote of a contract's execution: the price that was agreed, asked for as x402 asks.

use super::contract::Agreed;
use crate::rules::config::Config;
use crate::rules::payment::quote::{Quote, QuoteTerms};
use crate::rules::refusal::Refusal;
use crate::rules::template::Template;

/// The longest window of a payment, in seconds.
const MAX_WINDOW: u64 = 3600;

/// The quote for a call of `url` that executes a contract. Its worker is paid on the one network that HIRE's `base`
/// stands for here.
pub fn contract_quote(
    config: &Config,
    template: &Template,
    agreed: &Agreed,
    max_latency_ms: Option<u64>,
    url: &str,
) -> Result<Quote, Refusal> {
    let network = config.hire_network().ok_or(Refusal::NotForSale)?;
    // A payment has to outlast the work. The window is the same for every call, for payers echo it.
    let latency = max_latency_ms.unwrap_or_default().div_ceil(1000);
    let window = latency.saturating_add(2 * config.limits.window_needed()).min(MAX_WINDOW);
    let terms = QuoteTerms {
        payees: vec![(network, agreed.worker)],
        price: &agreed.price,
        max_timeout_seconds: window.max(config.limits.max_timeout_seconds),
        mime: "application/json",
        ..QuoteTerms::of_template(template, config)
    };
    Quote::new(terms, url)
}
