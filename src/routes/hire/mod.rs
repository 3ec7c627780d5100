//! HIRE/1.0: contracts, their execution, tasks and deliverables, the manifest, and the key that signs contracts.

pub(crate) mod contracts;
pub(crate) mod execute;
pub(crate) mod files;
pub(crate) mod manifest;
mod problem;
mod reply;
pub(crate) mod signing_key;
pub(crate) mod tasks;

use super::request::RequestContext;
use crate::rules::refusal::Refusal;

/// The contract that a request names in `X-Contract-ID`; empty where it names none.
fn contract_id(context: &RequestContext<'_>) -> Result<String, Refusal> {
    Ok(context.header("x-contract-id")?.unwrap_or_default().trim().to_owned())
}
