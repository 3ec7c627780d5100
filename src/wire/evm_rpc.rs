//! The calls of Ethereum's JSON-RPC that show what became of an EIP-3009 authorization, and a node's answers to them
//! (Ethereum execution API; EIP-3009 for the token's events).

use super::lenient::{self, Any, Unread};
use crate::wire::evm::{keccak, Address};
use serde::de::IgnoredAny;
use serde::Deserialize;
use serde_json::{json, Value};

/// An event's name with the types of its arguments.
pub struct EventSignature(&'static str);

/// EIP-3009: a transfer has spent the nonce.
pub const AUTHORIZATION_USED: EventSignature = EventSignature("AuthorizationUsed(address,bytes32)");
/// EIP-3009: the payer has canceled the authorization, which spends the nonce without a transfer.
pub const AUTHORIZATION_CANCELED: EventSignature = EventSignature("AuthorizationCanceled(address,bytes32)");
/// ERC-20: a transfer of the token.
pub const TRANSFER: EventSignature = EventSignature("Transfer(address,address,uint256)");

impl EventSignature {
    /// The first topic of its logs.
    pub fn topic(&self) -> String {
        format!("0x{}", hex::encode(keccak(self.0.as_bytes())))
    }
}

/// The body of one call.
fn request(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

/// A call of `eth_chainId`, without arguments.
pub fn chain_id() -> String {
    request("eth_chainId", json!([]))
}

/// `eth_getBlockByNumber`, for the newest block.
pub fn latest_block() -> String {
    request("eth_getBlockByNumber", json!(["latest", false]))
}

/// The answer to a call of `eth_getBlockByNumber`.
pub fn block(number: u64) -> String {
    request("eth_getBlockByNumber", json!([quantity(number), false]))
}

/// `eth_call` of the token's `authorizationState(payer, nonce)`, as of a block. [`read_bool`] reads the result.
pub fn authorization_state(asset: Address, payer: Address, nonce: &str, block: u64) -> String {
    let [a, b, c, d, ..] = keccak(b"authorizationState(address,bytes32)");
    let selector = hex::encode([a, b, c, d]);
    let bare = |word: &str| word.strip_prefix("0x").unwrap_or(word).to_owned();
    let data = format!("0x{selector}{}{}", bare(&payer.to_topic()), bare(nonce));
    request("eth_call", json!([{"to": asset, "data": data}, quantity(block)]))
}

/// `eth_getLogs` of the events that spend the nonce, in the blocks `from` to `to`.
pub fn spending_of(asset: Address, payer: Address, nonce: &str, from: u64, to: u64) -> String {
    let events = [AUTHORIZATION_USED.topic(), AUTHORIZATION_CANCELED.topic()];
    let topics = json!([events, payer.to_topic(), nonce]);
    let range = json!({"address": asset, "topics": topics, "fromBlock": quantity(from), "toBlock": quantity(to)});
    request("eth_getLogs", json!([range]))
}

/// The answer to a call of `eth_getTransactionReceipt`.
pub fn receipt_of(transaction: &str) -> String {
    request("eth_getTransactionReceipt", json!([transaction]))
}

/// `eth_getCode` of an address, as of the newest block. [`read_has_code`] reads the result.
pub fn code_of(address: Address) -> String {
    request("eth_getCode", json!([address, "latest"]))
}

/// Whether an address has code; `None` where the text is no code.
pub fn read_has_code(code: &str) -> Option<bool> {
    let digits = code.strip_prefix("0x")?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| digits.bytes().any(|b| b != b'0'))
}

fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// The `result` of an answer; `None` where the answer is an error, or of another form.
pub fn result<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    #[derive(Deserialize)]
    struct Answer<T> {
        result: Option<T>,
    }
    serde_json::from_str::<Answer<T>>(text).ok()?.result
}

/// Reads a word of the EVM's ABI as a boolean; `None` where it is neither 0 nor 1.
pub fn read_bool(word: &str) -> Option<bool> {
    match word.trim_start_matches("0x").trim_start_matches('0') {
        "" if word.len() > 2 => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// A number, written as `0x` and hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(pub u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digits = text.strip_prefix("0x").unwrap_or_default();
        u64::from_str_radix(digits, 16).map(Quantity).map_err(serde::de::Error::custom)
    }
}

/// The part of a block that is read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Block {
    pub number: Quantity,
    /// The time in Unix seconds.
    pub timestamp: Quantity,
}

/// One event of a contract. Its hex digits are in lower case. Members that cannot be read are empty, because one odd log
/// of another contract must not hide a payment in the same transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The contract that logged it. `None`: it cannot be read.
    #[serde(default, deserialize_with = "address")]
    pub address: Option<Address>,
    /// The hash of the event's signature, and the indexed arguments.
    #[serde(default, deserialize_with = "lower_case_list")]
    pub topics: Vec<String>,
    /// The arguments after the first one.
    #[serde(default, deserialize_with = "lower_case")]
    pub data: String,
    #[serde(default, deserialize_with = "lower_case")]
    pub transaction_hash: String,
}

impl Log {
    /// Whether the log has what every event has.
    pub fn is_readable(&self) -> bool {
        self.address.is_some() && !self.topics.is_empty() && self.data.starts_with("0x")
    }
}

fn address<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Address>, D::Error> {
    Ok(lenient::text(d)?.and_then(|text| Address::parse(&text)))
}

/// A log that is no object keeps its place: it may be the one that is looked for.
fn logs<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Log>, D::Error> {
    let logs = Vec::<Any<Log>>::deserialize(d)?.into_iter();
    Ok(logs.map(|log| if let Any::Object(log) = log { log } else { Log::default() }).collect())
}

fn lower_case<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    lenient::text_or_empty(d).map(|text| text.to_ascii_lowercase())
}

fn lower_case_list<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Topics {
        List(Vec<Any<Unread>>),
        Unreadable(IgnoredAny),
    }
    let topics = match Topics::deserialize(d)? {
        Topics::List(topics) => topics,
        Topics::Unreadable(_) => Vec::new(),
    };
    let text = |topic| if let Any::Text(text) = topic { text.to_ascii_lowercase() } else { String::new() };
    Ok(topics.into_iter().map(text).collect())
}

/// A transaction that was mined.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionReceipt {
    pub block_number: Quantity,
    /// In the order in which they were logged.
    #[serde(deserialize_with = "logs")]
    pub logs: Vec<Log>,
}
