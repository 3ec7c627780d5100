//! What the chain shows of a payment.

use coinslot::testing::rules::payment::reconcile::{
    confirmation_wait, evidence, of_spent, of_unspent, receipt, search_from, ChainView, Confirmation,
    ConfirmationTurns, NoCheck, Spending, Turn,
};
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::run::{Evidence, Receipt};
use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::evm::Address;
use coinslot::testing::wire::evm_rpc::{
    self, authorization_state, chain_id, code_of, latest_block, read_bool, read_has_code, receipt_of, result,
    spending_of, Block, Log, Quantity, TransactionReceipt,
};
use proptest::prelude::*;
use serde_json::{json, Value};

const USDC: &str = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
pub const PAYER: &str = "0xa3A36f80221FcDbD73c2bF716013e2167BE89659";
const WALLET: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
pub const STRANGER: &str = "0x857b06519E91e3A54538791bDbb0E22373e36b66";
const NONCE: &str = "0x23dc111d7c3ad1df9806ce1e8eb4f55f57dba117339c545e7593d1f6c3b02662";
const OTHER_NONCE: &str = "0xf3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480";
pub const TRANSACTION: &str = "0x1234567890abcdef1234567890abcdef1234567890abcdef1234567890abcdef";
const EXPIRES: u64 = 1_740_672_389;
/// When the run was first presented.
const SINCE: u64 = EXPIRES - 300;
/// By how much the chain's clock and ours may differ.
const CLOCKS_DIFFER: u64 = 15 * 60;

// As viem's `encodeEventTopics` has them.
const USED: &str = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5";
const CANCELED: &str = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81";
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
const PAYER_TOPIC: &str = "0x000000000000000000000000a3a36f80221fcdbd73c2bf716013e2167be89659";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub fn payment() -> Payment {
    Payment {
        x402_version: 2,
        payload: json!({}),
        requirements: json!({}),
        network: "eip155:8453".to_owned(),
        network_v1: "base".to_owned(),
        asset: address(USDC),
        pay_to: address(WALLET),
        amount: Amount(10_000),
        payer: address(PAYER),
        by_key: true,
        valid_before: EXPIRES,
        nonce: NONCE.to_owned(),
        name: "n".to_owned(),
        proof: "p".to_owned(),
    }
}

pub fn receipt_with(transaction: &str) -> Receipt {
    Receipt {
        transaction: transaction.to_owned(),
        network: "eip155:8453".to_owned(),
        network_v1: "base".to_owned(),
        payer: PAYER.to_owned(),
    }
}

// What the chain is asked.

fn request_of(request: &str) -> (String, Value) {
    let request: Value = serde_json::from_str(request).unwrap();
    assert_eq!((&request["jsonrpc"], request["id"].is_number()), (&json!("2.0"), true));
    (request["method"].as_str().unwrap().to_owned(), request["params"].clone())
}

fn call(method: &str, params: Value) -> (String, Value) {
    (method.to_owned(), params)
}

/// The data is what viem's `encodeFunctionData` and `encodeEventTopics` make of the same.
#[test]
fn the_node_is_asked_in_the_chains_own_words() {
    assert_eq!(request_of(&chain_id()), call("eth_chainId", json!([])));
    assert_eq!(request_of(&latest_block()), call("eth_getBlockByNumber", json!(["latest", false])));
    assert_eq!(request_of(&evm_rpc::block(0)), call("eth_getBlockByNumber", json!(["0x0", false])));
    assert_eq!(request_of(&evm_rpc::block(19_088_743)), call("eth_getBlockByNumber", json!(["0x1234567", false])));
    let data = "0xe94a0102000000000000000000000000a3a36f80221fcdbd73c2bf716013e2167be89659\
                23dc111d7c3ad1df9806ce1e8eb4f55f57dba117339c545e7593d1f6c3b02662";
    let state = authorization_state(address(USDC), address(PAYER), NONCE, 19_088_743);
    assert_eq!(request_of(&state), call("eth_call", json!([{"to": USDC, "data": data}, "0x1234567"])));
    let spending = spending_of(address(USDC), address(PAYER), NONCE, 0, 19_088_743);
    let filter = json!({
        "address": USDC,
        "topics": [[USED, CANCELED], PAYER_TOPIC, NONCE],
        "fromBlock": "0x0",
        "toBlock": "0x1234567",
    });
    assert_eq!(request_of(&spending), call("eth_getLogs", json!([filter])));
    assert_eq!(request_of(&receipt_of(TRANSACTION)), call("eth_getTransactionReceipt", json!([TRANSACTION])));
}

// What the chain answers, as a node writes it.

fn answered(result: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string()
}

fn block(timestamp: u64) -> Block {
    let head = json!({
        "baseFeePerGas": "0x4c4b40", "difficulty": "0x0", "extraData": "0x", "gasLimit": "0x11e1a300",
        "gasUsed": "0x1f3c2a4", "hash": OTHER_NONCE, "number": "0x1a2b3c4", "parentHash": NONCE, "size": "0x2c1f",
        "timestamp": format!("{timestamp:#x}"), "transactions": [TRANSACTION], "withdrawals": [],
    });
    result(&answered(head)).unwrap()
}

#[test]
fn a_nodes_answer_is_its_result_and_an_error_is_no_answer() {
    let head = block(EXPIRES);
    assert_eq!((head.number.0, head.timestamp.0), (27_440_068, EXPIRES));
    assert_eq!(result::<Quantity>(&answered(json!("0x2105"))), Some(Quantity(8_453)), "a chain's number");
    let word = format!("0x{}1", "0".repeat(63));
    assert_eq!(result::<String>(&answered(json!(word))), Some(word));
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"query exceeds max block range"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":7}"#,
        "<html>",
        "",
        "[]",
    ] {
        assert_eq!(result::<String>(text), None, "{text}");
        assert_eq!(result::<TransactionReceipt>(text), None, "a transaction that is not mined has none: {text}");
    }
    for number in [json!("0x"), json!("12"), json!(12), json!("0xzz"), json!("0x1ffffffffffffffff"), json!(null)] {
        let text = answered(json!({"number": number, "timestamp": "0x1"}));
        assert_eq!(result::<Block>(&text), None, "{number}");
    }
}

/// A log as it stands in a receipt.
fn log(contract: &str, topics: Value, data: &str) -> Value {
    json!({
        "address": contract.to_ascii_lowercase(), "topics": topics, "data": data,
        "blockHash": OTHER_NONCE, "blockNumber": "0x1a2b3c4", "blockTimestamp": "0x67c09e45", "logIndex": "0x1b2",
        "removed": false, "transactionHash": TRANSACTION, "transactionIndex": "0x4f",
    })
}

fn topic(text: &str) -> String {
    format!("0x{}{}", "0".repeat(24), text[2..].to_ascii_lowercase())
}

fn used(payer: &str, nonce: &str) -> Value {
    log(USDC, json!([USED, topic(payer), nonce]), "0x")
}

fn canceled(payer: &str, nonce: &str) -> Value {
    log(USDC, json!([CANCELED, topic(payer), nonce]), "0x")
}

fn transfer_of(contract: &str, from: &str, to: &str, amount: u128) -> Value {
    log(contract, json!([TRANSFER, topic(from), topic(to)]), &format!("0x{amount:064x}"))
}

fn transfer(from: &str, to: &str, amount: u128) -> Value {
    transfer_of(USDC, from, to, amount)
}

/// The transfer that was paid for.
fn the_transfer() -> Value {
    transfer(PAYER, WALLET, 10_000)
}

/// The evidence in a transaction with these logs, mined right after the payment was presented.
fn evidence_of(logs: &[Value]) -> Evidence {
    evidence_at(logs, SINCE + 2)
}

/// The same evidence, mined at this time.
fn evidence_at(logs: &[Value], at: u64) -> Evidence {
    let text = answered(json!({
        "blockHash": OTHER_NONCE, "blockNumber": "0x1a2b3c4", "contractAddress": null, "cumulativeGasUsed": "0x5f5e100",
        "effectiveGasPrice": "0x4c4b41", "from": STRANGER.to_ascii_lowercase(), "gasUsed": "0x14f2b", "l1Fee": "0x1b3",
        "logs": logs, "logsBloom": "0x00", "status": "0x1", "to": USDC.to_ascii_lowercase(),
        "transactionHash": TRANSACTION, "transactionIndex": "0x4f", "type": "0x2",
    }));
    let mined: TransactionReceipt = result(&text).unwrap();
    assert_eq!((mined.logs.len(), mined.block_number.0), (logs.len(), 27_440_068));
    of_spent(&payment(), SINCE, &Spending { transaction: TRANSACTION.to_owned(), logs: mined.logs, at })
}

fn paid() -> Evidence {
    Evidence::Paid(receipt_with(TRANSACTION))
}

fn never(reason: &str) -> Evidence {
    Evidence::Never(Some(reason.to_owned()))
}

/// EIP-7702: the address of a key may have code too, which names another address.
#[test]
fn an_address_has_code_where_a_node_shows_any() {
    let delegated = format!("0xef0100{}", "ab".repeat(20));
    assert_eq!((read_has_code("0x6080"), read_has_code(&delegated)), (Some(true), Some(true)));
    assert_eq!((read_has_code("0x"), read_has_code("0x0")), (Some(false), Some(false)));
    for text in ["", "0xzz", "6080", "null"] {
        assert_eq!(read_has_code(text), None, "{text}");
    }
    let call: Value = serde_json::from_str(&code_of(Address::from([1; 20]))).unwrap();
    assert_eq!(call["method"], "eth_getCode");
    assert_eq!(call["params"], json!([Address::from([1; 20]).to_string(), "latest"]));
}

#[test]
fn the_state_of_an_authorization_is_read_from_a_whole_word() {
    let word = |last: &str| format!("0x{}{last}", "0".repeat(64 - last.len()));
    assert_eq!((read_bool(&word("0")), read_bool(&word("1"))), (Some(false), Some(true)));
    for text in ["", "0x", &word("2"), &word("10"), "0xzz", "true"] {
        assert_eq!(read_bool(text), None, "{text}");
    }
}

/// Four blocks a second at most, some before the run for clocks that differ, and no more than nodes search.
#[test]
fn the_search_for_a_spent_nonce_goes_back_to_before_the_run_within_the_limit_of_nodes() {
    for (age, from) in [
        (0, 1_000_000 - 300),
        (999, 1_000_000 - 300),
        (60_000, 1_000_000 - 540),
        (2_175_000, 1_000_000 - 9_000),
        (2_176_000, 1_000_000 - 9_000),
        (u64::MAX, 1_000_000 - 9_000),
    ] {
        assert_eq!(search_from(1_000_000, age), from, "{age}");
    }
    assert_eq!(search_from(299, 0), 0, "a chain that is younger than that");
}

const ELSEWHERE: &str = "invalid_exact_evm_nonce_already_used";

#[test]
fn a_nonce_that_is_not_spent_can_still_be_until_its_time_is_up_on_the_chain() {
    assert_eq!(of_unspent(&payment(), &block(EXPIRES - 1)), Evidence::Unspent);
    for time in [EXPIRES, EXPIRES + 1] {
        let expired = never("invalid_exact_evm_payload_authorization_valid_before");
        assert_eq!(of_unspent(&payment(), &block(time)), expired, "the token wants a time before it");
    }
    let endless = Payment { valid_before: u64::MAX, ..payment() };
    assert_eq!(of_unspent(&endless, &block(EXPIRES)), Evidence::Unspent);
}

#[test]
fn a_transfer_right_after_the_nonce_is_the_payment() {
    assert_eq!(evidence_of(&[used(PAYER, NONCE), the_transfer()]), paid());
    assert_eq!(receipt(&payment(), TRANSACTION.to_owned()), receipt_with(TRANSACTION));
}

#[test]
fn a_payment_is_found_among_others_of_the_same_transaction() {
    let before =
        [used(STRANGER, NONCE), transfer(STRANGER, WALLET, 1), used(PAYER, OTHER_NONCE), transfer(PAYER, STRANGER, 9)];
    let after = [used(STRANGER, OTHER_NONCE), transfer(STRANGER, PAYER, 2)];
    assert_eq!(evidence_of(&[&before[..], &[used(PAYER, NONCE), the_transfer()], &after].concat()), paid());
}

/// The payer signs the nonce a second time, to themselves, and has both nonces spent in one transaction.
#[test]
fn another_payments_transfer_in_the_same_transaction_does_not_pay_for_this_one() {
    let to_self = [used(PAYER, NONCE), transfer(PAYER, PAYER, 10_000)];
    let other = [used(PAYER, OTHER_NONCE), the_transfer()];
    assert_eq!(evidence_of(&[&to_self[..], &other].concat()), never(ELSEWHERE));
    assert_eq!(evidence_of(&[&other[..], &to_self].concat()), never(ELSEWHERE));
    let canceled = [canceled(PAYER, NONCE)];
    assert_eq!(evidence_of(&[&canceled[..], &other].concat()), never("authorization_canceled"));
    assert_eq!(evidence_of(&[&other[..], &canceled].concat()), never("authorization_canceled"));
}

#[test]
fn a_nonce_that_was_spent_on_anything_else_is_never_the_payment() {
    for transfer in [
        transfer(PAYER, STRANGER, 10_000),
        transfer(PAYER, PAYER, 10_000),
        transfer(STRANGER, WALLET, 10_000),
        transfer(PAYER, WALLET, 9_999),
        transfer(PAYER, WALLET, 10_001),
        transfer(PAYER, WALLET, 0),
        log(USDC, json!([USED, topic(PAYER), topic(WALLET)]), &format!("0x{:064x}", 10_000)),
        log(USDC, json!([TRANSFER, topic(PAYER)]), &format!("0x{:064x}", 10_000)),
    ] {
        assert_eq!(evidence_of(&[used(PAYER, NONCE), transfer.clone()]), never(ELSEWHERE), "{transfer}");
    }
    assert_eq!(evidence_of(&[used(PAYER, NONCE)]), never(ELSEWHERE));
    assert_eq!(
        evidence_of(&[the_transfer(), used(PAYER, NONCE)]),
        never(ELSEWHERE),
        "the transfer comes after its nonce"
    );
}

#[test]
fn an_authorization_that_was_canceled_never_pays() {
    assert_eq!(evidence_of(&[canceled(PAYER, NONCE)]), never("authorization_canceled"));
    assert_eq!(evidence_of(&[canceled(PAYER, NONCE), the_transfer()]), never("authorization_canceled"));
}

/// A contract of the payer's own may write whatever events it likes.
#[test]
fn other_contracts_events_do_not_count() {
    let forged = |event: &str| log(STRANGER, json!([event, topic(PAYER), NONCE]), "0x");
    let worthless = transfer_of(STRANGER, PAYER, WALLET, 10_000);
    assert_eq!(evidence_of(&[forged(USED), the_transfer()]), Evidence::Nothing, "who spent it is not seen here");
    assert_eq!(evidence_of(&[forged(CANCELED), used(PAYER, NONCE), the_transfer()]), paid());
    assert_eq!(evidence_of(&[used(PAYER, NONCE), worthless.clone()]), never(ELSEWHERE));
    assert_eq!(evidence_of(&[used(PAYER, NONCE), worthless.clone(), the_transfer()]), paid());
    assert_eq!(evidence_of(&[used(PAYER, NONCE), worthless, transfer(PAYER, PAYER, 10_000)]), never(ELSEWHERE));
}

/// The node of a chain may write what it likes into the logs of others.
#[test]
fn an_odd_log_of_another_contract_hides_no_payment_and_one_without_an_address_may_be_the_transfer() {
    let odd = |member: &str, value: Value| {
        let mut log = log(STRANGER, json!([TRANSFER]), "0x");
        log[member] = value;
        log
    };
    let no_address = [json!(null), json!(7), json!("0x12"), json!([]), json!({})].map(|value| odd("address", value));
    let no_topics = [json!(null), json!("0x"), json!({}), json!(1)].map(|value| odd("topics", value));
    for odd in no_address.iter().chain(&no_topics).chain(&[json!(null), json!("log"), json!([])]) {
        let pays = [odd.clone(), used(PAYER, NONCE), the_transfer(), odd.clone()];
        assert_eq!(evidence_of(&pays), Evidence::Paid(receipt_with(TRANSACTION)), "{odd}");
    }
    for odd in no_address.iter().chain(&[json!(null), json!("log")]) {
        for after in [the_transfer(), transfer(PAYER, PAYER, 10_000)] {
            assert_eq!(evidence_of(&[used(PAYER, NONCE), odd.clone(), after]), Evidence::Nothing, "{odd}");
        }
    }
    for odd in no_topics {
        let pays = [used(PAYER, NONCE), odd.clone(), the_transfer()];
        assert_eq!(evidence_of(&pays), Evidence::Paid(receipt_with(TRANSACTION)), "{odd}");
    }
}

/// A spent nonce is no evidence where it is not seen what it was spent on: taken for paid, it would give a run away.
#[test]
fn a_transaction_that_says_nothing_of_the_nonce_is_no_evidence() {
    let odd = log(USDC, json!([USED, topic(PAYER), NONCE, NONCE]), "0x");
    for logs in [
        vec![],
        vec![the_transfer()],
        vec![used(STRANGER, NONCE), the_transfer()],
        vec![used(PAYER, OTHER_NONCE), the_transfer()],
        vec![odd, the_transfer()],
        vec![log(USDC, json!([]), "0x"), the_transfer()],
    ] {
        assert_eq!(evidence_of(&logs), Evidence::Nothing, "{logs:?}");
        assert_eq!(evidence_at(&logs, 0), Evidence::Nothing, "however old it is: {logs:?}");
    }
}

/// Another shop of the same creator may have taken the same signature, for something else.
#[test]
fn a_transfer_from_before_the_run_has_bought_something_else() {
    let pays = [used(PAYER, NONCE), the_transfer()];
    for at in [SINCE - CLOCKS_DIFFER, SINCE - 1, SINCE, SINCE + 1, EXPIRES, u64::MAX] {
        assert_eq!(evidence_at(&pays, at), paid(), "{at}: clocks differ by so much");
    }
    for at in [SINCE - CLOCKS_DIFFER - 1, SINCE - 86_400, 0] {
        assert_eq!(evidence_at(&pays, at), never(ELSEWHERE), "{at}");
        assert_eq!(evidence_at(&[used(PAYER, NONCE)], at), never(ELSEWHERE), "{at}");
        assert_eq!(evidence_at(&[canceled(PAYER, NONCE)], at), never(ELSEWHERE), "{at}");
    }
    let of = |since, at| {
        let logs = result(&answered(json!(pays))).unwrap();
        of_spent(&payment(), since, &Spending { transaction: TRANSACTION.to_owned(), logs, at })
    };
    assert_eq!((of(0, 0), of(u64::MAX, u64::MAX)), (paid(), paid()), "no overflow");
    assert_eq!(of(u64::MAX, 0), never(ELSEWHERE));
}

#[test]
fn a_nodes_odd_spelling_and_an_odd_log_of_another_contract_hide_no_payment() {
    let upper = |log: Value| -> Value { serde_json::from_str(&in_upper_case(&log.to_string())).unwrap() };
    let odd = [
        json!({"address": STRANGER, "topics": [], "data": null, "transactionHash": TRANSACTION}),
        json!({"address": STRANGER, "topics": null}),
        json!({"address": STRANGER, "topics": [null, 7], "data": {"a": 1}, "transactionHash": null}),
    ];
    for log in &odd {
        assert_eq!(evidence_of(&[log.clone(), used(PAYER, NONCE), log.clone(), the_transfer()]), paid(), "{log}");
    }
    assert_eq!(evidence_of(&[upper(used(PAYER, NONCE)), upper(the_transfer())]), paid(), "hex digits in upper case");
    let unreadable = json!({"address": USDC, "topics": null, "data": "0x"});
    assert_eq!(evidence_of(&[used(PAYER, NONCE), unreadable]), Evidence::Nothing, "it may be the transfer");
}

/// Writes the hex digits of topics and data in upper case.
fn in_upper_case(json: &str) -> String {
    json.split('"')
        .map(|part| match part.strip_prefix("0x") {
            Some(digits) if digits.len() == 64 => format!("0x{}", digits.to_ascii_uppercase()),
            _ => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\"")
}

// Which witness counts.

fn shown(evidence: Evidence, number: u64, timestamp: u64) -> ChainView {
    ChainView::Shown(evidence, Block { number: Quantity(number), timestamp: Quantity(timestamp) })
}

/// A payer can spend a nonce without paying, and only the chain shows that.
#[test]
fn a_facilitators_spent_is_no_evidence_where_a_node_is_configured() {
    let spent = || Evidence::Spent(receipt_with(""));
    assert_eq!(evidence(ChainView::NoNode, spent()), spent());
    assert_eq!(evidence(ChainView::NoAnswer, spent()), Evidence::Nothing);
    for told in [Evidence::Unspent, Evidence::Nothing] {
        for view in [ChainView::NoNode, ChainView::NoAnswer] {
            assert_eq!(evidence(view, told.clone()), told);
        }
    }
    for seen in [paid(), never("authorization_canceled"), Evidence::Unspent, Evidence::Nothing] {
        assert_eq!(evidence(shown(seen.clone(), 1, 1), spent()), seen);
    }
}

#[test]
fn after_a_no_unspent_counts_only_from_a_later_block() {
    let at = |seconds: u64| NoCheck::new(seconds * 1000 + 999);
    let unspent = |number, timestamp| shown(Evidence::Unspent, number, timestamp);
    let mut check = at(1_000);
    for (view, outcome) in [
        (unspent(50, 998), None),
        (unspent(50, 998), None),
        (unspent(51, 1_000), None),
        (unspent(52, 1_001), Some(Ok(()))),
    ] {
        assert_eq!(check.outcome(&view), outcome, "{view:?}");
    }
    let mut check = at(1_000);
    assert_eq!(check.outcome(&unspent(50, 2_000)), None, "the chain's clock may be ahead of ours");
    assert_eq!(check.outcome(&unspent(51, 2_002)), Some(Ok(())));
    let mut check = at(1_000);
    assert_eq!([50, 51, 52].map(|n| check.outcome(&unspent(n, 10))), [None, None, Some(Ok(()))], "or far behind");
    let mut check = at(1_000);
    assert_eq!([50, 51, 59].map(|n| check.outcome(&unspent(n, 950))), [None, None, None], "the node is behind");
    let mut check = at(1_000);
    assert_eq!(check.outcome(&unspent(50, 998)), None);
    assert_eq!(
        check.outcome(&shown(paid(), 51, 1_000)),
        Some(Err(receipt_with(TRANSACTION))),
        "it has moved the money"
    );
    for (view, outcome) in [
        (ChainView::NoNode, Some(Ok(()))),
        (ChainView::NoAnswer, None),
        (shown(Evidence::Nothing, 50, 2_000), None),
        (shown(never("authorization_canceled"), 50, 998), Some(Ok(()))),
    ] {
        assert_eq!(at(1_000).outcome(&view), outcome, "{view:?}");
    }
}

#[test]
fn a_facilitators_yes_counts_as_paid_once_the_chain_shows_the_transfer() {
    for (view, confirmation) in [
        (ChainView::NoNode, Confirmation::Unchecked),
        (ChainView::NoAnswer, Confirmation::Awaited),
        (shown(paid(), 1, 1), Confirmation::Paid(TRANSACTION.to_owned())),
        (shown(Evidence::Unspent, 1, 1), Confirmation::Awaited),
        (shown(Evidence::Nothing, 1, 1), Confirmation::Awaited),
        (shown(never("authorization_canceled"), 1, 1), Confirmation::Refuted),
    ] {
        assert_eq!(Confirmation::of(&view), confirmation, "{view:?}");
        let counts = matches!(confirmation, Confirmation::Unchecked | Confirmation::Paid(_));
        assert_eq!(confirmation.is_paid(), counts);
    }
}

#[test]
fn the_chain_is_asked_to_confirm_less_and_less_often_for_a_day() {
    let day = 24 * 60 * 60 * 1000;
    let waits: Vec<_> = (0..5).map(|looks| confirmation_wait(looks, 1_000, 2_000).unwrap()).collect();
    assert_eq!(waits, [2_000, 8_000, 32_000, 60_000, 60_000]);
    assert_eq!(confirmation_wait(u8::MAX, 1_000, day), Some(60_000));
    assert_eq!(confirmation_wait(0, 1_000, day + 1_000), None);
}

#[test]
fn one_run_of_a_wallet_asks_for_its_confirmation_at_a_time() {
    let mut turns = ConfirmationTurns::default();
    assert_eq!((turns.take(1_000), turns.take(1_000), turns.wait(1_000)), (Turn::Now, Turn::Taken, 0));
    turns.end(Some(&ChainView::Shown(Evidence::Nothing, block(EXPIRES))), 2_000);
    assert_eq!(turns.take(2_000), Turn::Now, "an answer, even one that decides nothing, delays no other run");
    turns.end(None, 3_000);
    assert_eq!((turns.take(3_000), turns.wait(3_000)), (Turn::Now, 0));
    assert_eq!((turns.take(122_999), turns.take(123_000)), (Turn::Taken, Turn::Now), "a turn that never ended is over");
}

#[test]
fn a_node_that_does_not_answer_one_run_is_not_asked_by_the_wallets_others_before_a_growing_wait() {
    let mut turns = ConfirmationTurns::default();
    let mut now = 1_000;
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert_eq!(turns.take(now), Turn::Now);
        turns.end(Some(&ChainView::NoAnswer), now);
        let wait = turns.wait(now);
        assert_eq!((turns.take(now), turns.take(now + wait - 1)), (Turn::TooEarly, Turn::TooEarly));
        waits.push(wait / 1_000);
        now += wait;
    }
    assert_eq!(waits, [2, 8, 32, 128, 512, 900, 900]);
    assert_eq!(turns.take(now), Turn::Now);
    turns.end(Some(&ChainView::Shown(Evidence::Nothing, block(EXPIRES))), now);
    assert_eq!((turns.take(now), turns.wait(now)), (Turn::Now, 0));
}

#[test]
fn the_logs_of_a_query_are_read_as_those_of_a_receipt() {
    let logs: Vec<Log> = result(&answered(json!([used(PAYER, NONCE)]))).unwrap();
    assert_eq!((logs.len(), logs[0].address, &*logs[0].transaction_hash), (1, Some(address(USDC)), TRANSACTION));
    assert_eq!(logs[0].topics, [USED, PAYER_TOPIC, NONCE]);
    assert_eq!(result::<Vec<Log>>(&answered(json!([]))), Some(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// Whatever else happens in a transaction: it is paid only where the nonce and then the transfer stand, and
    /// nothing of the token's between them.
    #[test]
    fn only_the_tokens_next_word_after_the_nonce_counts(picks in prop::collection::vec(0usize..9, 0..8)) {
        let all = [
            used(PAYER, NONCE), the_transfer(), used(PAYER, OTHER_NONCE), transfer(PAYER, PAYER, 10_000), canceled(PAYER, NONCE),
            used(STRANGER, NONCE), transfer(PAYER, WALLET, 1), transfer_of(STRANGER, PAYER, WALLET, 10_000),
            log(STRANGER, json!([USED, topic(PAYER), NONCE]), "0x"),
        ];
        let logs: Vec<Value> = picks.iter().map(|n| all[*n].clone()).collect();
        let of_token: Vec<usize> = picks.into_iter().filter(|n| *n < 7).collect();
        let at = of_token.iter().position(|n| matches!(n, 0 | 4));
        let expected = match at.map(|at| (of_token[at], of_token.get(at + 1))) {
            None => Evidence::Nothing,
            Some((4, _)) => never("authorization_canceled"),
            Some((_, Some(1))) => paid(),
            Some(_) => never(ELSEWHERE),
        };
        let old = if expected == Evidence::Nothing { Evidence::Nothing } else { never(ELSEWHERE) };
        prop_assert_eq!(evidence_at(&logs, SINCE - CLOCKS_DIFFER - 1), old);
        prop_assert_eq!(evidence_of(&logs), expected);
    }
}
