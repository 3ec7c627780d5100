//! Payments: the price of a run, whether a payment matches it, what facilitators answer, and what became of a
//! settlement.

pub mod account_code;
pub mod breaker;
pub mod facilitator;
pub mod identifier;
pub mod matching;
pub mod quote;
pub mod reconcile;

use crate::rules::ids::wallet_object;
use crate::wire::amount::Amount;
use crate::wire::evm::Address;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A payment that matches our terms, with everything that is needed to verify and settle it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// The version of x402 in which it was presented.
    pub x402_version: u8,
    /// The payment as the facilitator is asked about it: what the payer has signed, and nothing else of their writing.
    pub payload: Value,
    /// Our terms, in the payment's version of x402.
    pub requirements: Value,
    /// The CAIP-2 id of the network.
    pub network: String,
    /// The name of the same network in v1.
    pub network_v1: String,
    /// The address of the token.
    pub asset: Address,
    /// The address of the recipient.
    pub pay_to: Address,
    pub amount: Amount,
    /// The address of the payer.
    pub payer: Address,
    /// Whether the signature has been checked here, and is by the payer's own key.
    pub by_key: bool,
    /// The time in Unix seconds.
    pub valid_before: u64,
    /// 32 bytes in lower-case hex. The token accepts a nonce once.
    pub nonce: String,
    /// The name of the run in its wallet's object: 128 bits of a digest of network, asset, payer and nonce, in hex.
    /// Everything that is presented with these four is one run.
    pub name: String,
    /// The digest of the signed payload. Only a caller who presents the same payload is shown the run.
    pub proof: String,
}

impl Payment {
    /// The name of the payer's object, where all runs of this wallet are.
    pub fn object(&self) -> String {
        wallet_object(&self.network, self.payer)
    }
}
