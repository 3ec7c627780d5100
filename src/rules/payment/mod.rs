//! Payments: what a run costs, whether a payment matches that, and what became of its settlement.

pub mod breaker;
pub mod facilitator;
pub mod identifier;
pub mod matching;
pub mod quote;
pub mod reconcile;

use crate::wire::amount::Amount;
use crate::wire::evm::Address;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A payment that matches our terms: all that verifying and settling it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// Which version of x402 it came in.
    pub x402_version: u8,
    /// As it came, for the facilitator.
    pub payload: Value,
    /// Our terms, in the payment's version.
    pub requirements: Value,
    /// CAIP-2.
    pub network: String,
    /// The same network in v1's words.
    pub network_v1: String,
    /// The token.
    pub asset: Address,
    /// Who is paid.
    pub pay_to: Address,
    /// Atomic units.
    pub amount: Amount,
    /// Who pays.
    pub payer: Address,
    /// The signature has been seen to be that of the payer's own key.
    pub by_key: bool,
    /// Unix seconds.
    pub valid_before: u64,
    /// 32 bytes in lower-case hex, which the token accepts once.
    pub nonce: String,
    /// Names the run: whatever is presented with this network, asset, payer and nonce is one run. 128 bits
    /// of a digest, in hex.
    pub name: String,
    /// Digest of the signed payload: only who presents it again is shown the run.
    pub proof: String,
}
