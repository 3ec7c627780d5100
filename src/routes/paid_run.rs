//! What both paid routes do: a template's run, and a contract's execution.
//!
//! Each makes its quote, checks the payment against it, collects what keeps the request from beginning a run, and
//! sends both to the run's object. The object may know a run that the payment has bought already.

use super::request::RequestContext;
use crate::edge::clock;
use crate::edge::kv::claude_keys;
use crate::edge::objects::runs;
use crate::edge::objects::runs::Answer as RunAnswer;
use crate::rules::config::Config;
use crate::rules::payment::matching;
use crate::rules::payment::matching::{PaymentCheck, Presented};
use crate::rules::payment::quote::Quote;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
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
    config.model(&template.model, &clock::today()).ok_or(Refusal::ModelUnavailable)?;
    let key = claude_keys::recent(context.env, &template.creator_id, config.limits.cache_time()).await?;
    let key = key.ok_or(Refusal::KeyMissing)?;
    key.is_enabled.then_some(()).ok_or(Refusal::KeyDisabled)?;
    key.can_be_opened(context.env)
}

/// Checks a payment against the quote, at this moment.
pub(crate) fn check_payment(presented: &mut Presented, quote: &Quote, config: &Config) -> PaymentCheck {
    matching::check_payment(presented, quote, &config.limits, clock::seconds())
}

/// Sends a request to its run's object, and waits for the answer or for the caller to hang up.
pub(crate) async fn send(context: &RequestContext<'_>, run_request: &RunRequest) -> Result<RunAnswer, Refusal> {
    runs::present(context.env, &context.request, run_request).await
}
