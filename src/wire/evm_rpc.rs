//! Ethereum's JSON-RPC, as far as it tells what became of an EIP-3009 authorization: the requests, and
//! the answers as a node writes them (Ethereum execution API; EIP-3009 for the token's own events).

use crate::wire::evm::{keccak, Address};
use serde::Deserialize;
use serde_json::{json, Value};

/// The signature of an event.
pub struct EventSignature(&'static str);

/// EIP-3009: the nonce was spent on a transfer.
pub const AUTHORIZATION_USED: EventSignature = EventSignature("AuthorizationUsed(address,bytes32)");
/// EIP-3009: the nonce was spent on nothing.
pub const AUTHORIZATION_CANCELED: EventSignature = EventSignature("AuthorizationCanceled(address,bytes32)");
/// ERC-20.
pub const TRANSFER: EventSignature = EventSignature("Transfer(address,address,uint256)");

impl EventSignature {
    /// The first topic of its logs.
    pub fn topic(&self) -> String {
        format!("0x{}", hex::encode(keccak(self.0.as_bytes())))
    }
}

/// One call, ready to be posted.
pub fn request(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

/// `eth_chainId`.
pub fn chain_id() -> String {
    request("eth_chainId", json!([]))
}

/// `eth_getBlockByNumber`: the newest block.
pub fn latest_block() -> String {
    request("eth_getBlockByNumber", json!(["latest", false]))
}

/// `eth_getBlockByNumber`.
pub fn block(number: u64) -> String {
    request("eth_getBlockByNumber", json!([quantity(number), false]))
}

/// `eth_call` of the token's `authorizationState(payer, nonce)`, as of a block.
pub fn authorization_state(asset: Address, payer: Address, nonce: &str, block: u64) -> String {
    let [a, b, c, d, ..] = keccak(b"authorizationState(address,bytes32)");
    let selector = hex::encode([a, b, c, d]);
    let bare = |word: &str| word.strip_prefix("0x").unwrap_or(word).to_owned();
    let data = format!("0x{selector}{}{}", bare(&payer.to_topic()), bare(nonce));
    request("eth_call", json!([{"to": asset, "data": data}, quantity(block)]))
}

/// `eth_getLogs`: where the nonce was spent, from one block to another.
pub fn spending_of(asset: Address, payer: Address, nonce: &str, from: u64, to: u64) -> String {
    let events = [AUTHORIZATION_USED.topic(), AUTHORIZATION_CANCELED.topic()];
    let topics = json!([events, payer.to_topic(), nonce]);
    let range = json!({"address": asset, "topics": topics, "fromBlock": quantity(from), "toBlock": quantity(to)});
    request("eth_getLogs", json!([range]))
}

/// `eth_getTransactionReceipt`.
pub fn receipt_of(transaction: &str) -> String {
    request("eth_getTransactionReceipt", json!([transaction]))
}

fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// The `result` of an answer; `None` where it holds an error, or nothing of the expected form.
pub fn result<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    #[derive(Deserialize)]
    struct Answer<T> {
        result: Option<T>,
    }
    serde_json::from_str::<Answer<T>>(text).ok()?.result
}

/// A number: `0x` and hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(pub u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digits = text.strip_prefix("0x").unwrap_or_default();
        u64::from_str_radix(digits, 16).map(Quantity).map_err(serde::de::Error::custom)
    }
}

/// A block's head.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Block {
    /// Its number.
    pub number: Quantity,
    /// Unix seconds.
    pub timestamp: Quantity,
}

/// One event of a contract. Hex is in lower case, as nodes write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// The event's signature and its indexed arguments.
    pub topics: Vec<String>,
    /// The other arguments.
    pub data: String,
    /// The transaction it is from.
    pub transaction_hash: String,
}

/// A transaction that was mined.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionReceipt {
    /// Where it was mined.
    pub block_number: Quantity,
    /// In their order.
    pub logs: Vec<Log>,
}
