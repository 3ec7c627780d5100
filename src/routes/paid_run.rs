//! What both paid routes do: a template's run, and a contract's execution.
//!
//! Each makes its quote, checks the payment against it, collects what keeps the request from beginning a run, and
//! sends both to the run's object. The object may know a run that the payment has bought already.

use super::request::RequestContext;
use crate::edge::clock;
use crate::edge::http::{accounts, facilitator};
use crate::edge::kv::claude_keys;
use crate::edge::objects::wallets;
use crate::edge::objects::wallets::Answer as RunAnswer;
use crate::rules::config::Config;
use crate::rules::payment::matching;
use crate::rules::payment::matching::{PaymentCheck, Presented};
use crate::rules::payment::quote::Quote;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::Event;
use crate::rules::template::Template;

/// Whether a run of the template can be answered at all. Checked before a payment is asked for.
pub(crate) async fn check_readiness(
    context: &RequestContext<'_>,
    config: &Config,
    template: &Template,
) -> Result<(), Refusal> {
    if config.paused {
        return Err(Refusal::Paused);
    }
    if !template.is_bounded(&config.limits) {
        worker::console_error!("template {}: its prompt is too long, or could be filled in to be", template.id);
        return Err(Refusal::TemplateTooLong);
    }
    config.model(&template.model, &clock::today()).ok_or(Refusal::ModelUnavailable)?;
    let key = claude_keys::recent(context.env, &template.creator_id, config.limits.cache_time()).await?;
    let key = key.ok_or(Refusal::KeyMissing)?;
    key.is_enabled.then_some(()).ok_or(Refusal::KeyDisabled)?;
    key.can_be_opened(context.env)
}

/// Checks a payment against the quote, at this moment. The payer has a key.
pub(crate) fn check_payment(presented: &mut Presented, quote: &Quote, window: u64) -> PaymentCheck {
    matching::check_payment(presented, quote, window, clock::seconds())
}

/// As [`check_payment`], for a payer who may be a contract wallet: a signature that is not by the payer's key says
/// nothing where the payer's address has code.
pub(crate) async fn check_payment_of_any(
    config: &Config,
    presented: &mut Presented,
    quote: &Quote,
    window: u64,
) -> PaymentCheck {
    let check = check_payment(presented, quote, window);
    let (PaymentCheck::Forged(_), Some((network, payer))) = (&check, presented.payer(quote)) else { return check };
    let network = config.networks.iter().find(|configured| configured.id == network);
    // Where no node says so, the facilitator is asked, which checks the signature itself.
    match accounts::has_code(network, payer).await {
        Some(false) => check,
        Some(true) | None => matching::check_payment_of_contract(presented, quote, window, clock::seconds()),
    }
}

/// Sends a request to its wallet's object, and waits for the answer or for the caller to hang up.
///
/// Whose payment it is where a contract wallet has signed, only a facilitator can tell. It is asked here, so that a
/// stranger who names a wallet takes nothing in that wallet's object.
pub(crate) async fn send(
    context: &RequestContext<'_>,
    config: &Config,
    mut run_request: RunRequest,
) -> Result<RunAnswer, Refusal> {
    let answer = wallets::present(context.env, &context.request, &run_request).await?;
    let (RunAnswer::VerifyFirst, Some(payment)) = (&answer, &run_request.payment) else { return Ok(answer) };
    match facilitator::verify(config, payment).await {
        (Event::Verified, facilitator) => {
            run_request.verified_by = Some(facilitator.unwrap_or_default());
            wallets::present(context.env, &context.request, &run_request).await
        }
        (Event::VerifyRefused(refusal), _) => Err(refusal),
        _ => Err(Refusal::Internal),
    }
}
