//! What callers of a run read: the events of its stream, the whole answer, its status, its receipt. Each is written
//! byte for byte here, for people read the members in this order.

use crate::identifier::payment;
use crate::quote::{template, BASE, WALLET};
use crate::sample::free_terms;
use coinslot::testing::rules::config::Config;
use coinslot::testing::rules::ids::{ledger_id, object_of};
use coinslot::testing::rules::payment::reconcile::Confirmation;
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::record::events;
use coinslot::testing::rules::record::ledger_row::Row;
use coinslot::testing::rules::record::receipt::{rejected_headers, settled_headers};
use coinslot::testing::rules::record::run_record::{RunRecord, RunStats};
use coinslot::testing::rules::record::run_request::{CallerRequest, Representation, RunRequest};
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{Event, Moment, Policy, Receipt, Run, Terms};
use coinslot::testing::rules::template::input::Input;
use coinslot::testing::rules::template::Template;
use coinslot::testing::wire::anthropic::{StopReason, Usage};
use coinslot::testing::wire::base64;
use serde_json::Value;

const RUN: &str = "run_0123456789abcdef0123456789abcdef_fedcba9876543210fedcba9876543210";
const RECEIPT: &str = r#"{"success":true,"transaction":"0xt","network":"eip155:84532","payer":"0xp"}"#;
const USAGE: &str =
    r#"{"input_tokens":11,"output_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}"#;

fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt {
        transaction: text("0xt"),
        network: text("eip155:84532"),
        network_v1: text("base-sepolia"),
        payer: text("0xp"),
    }
}

fn stats() -> RunStats {
    let usage = Usage { input_tokens: 11, output_tokens: 7, ..Usage::default() };
    RunStats { usage, stop_reason: Some(StopReason::EndTurn), ..RunStats::default() }
}

fn record() -> RunRecord {
    RunRecord {
        run_id: RUN.to_owned(),
        template_id: "t1".to_owned(),
        creator_id: "c1".to_owned(),
        model: "claude-haiku-5-5".to_owned(),
        max_tokens: 100,
        payment: Some(payment()),
        own_payment: false,
        digest: "d".to_owned(),
        key: None,
        started_at: 1_740_672_000_000,
        contract_context: None,
    }
}

fn run_after(events: impl IntoIterator<Item = Event>) -> Run {
    let mut run = Run::new(Terms { policy: Policy::OnStart, valid_until: u64::MAX, ..free_terms() });
    events.into_iter().for_each(|event| drop(run.handle(event, Moment { now: 0, jitter: 0 })));
    run
}

fn settled() -> [Event; 5] {
    [Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::Settled(receipt())]
}

#[test]
fn the_ledger_has_a_digest_of_the_runs_id_and_nothing_that_opens_the_run() {
    let row = record().row(&run_after(settled()), &stats(), 1_740_672_001_000);
    assert_eq!(row.id, ledger_id(RUN));
    let again = record().row(&run_after([Event::Presented]), &RunStats::default(), 1_740_672_002_000);
    assert_eq!(again.id, row.id, "each write is of the same row");
    assert!(!serde_json::to_string(&row).unwrap().contains(RUN));
    assert_eq!([object_of(&row.id), object_of(&format!("run_{}", row.id))], [None, None]);
    // `printf %s run_0 | sha256sum`
    assert_eq!(ledger_id("run_0"), "c684ed4b2316540381a19434accafd20eb58b634fa27d8060997cc3276559690");
}

#[test]
fn a_run_that_a_wallet_of_the_creator_has_paid_is_a_test_in_the_ledger() {
    let row =
        |own_payment| RunRecord { own_payment, ..record() }.row(&run_after(settled()), &stats(), 1_740_672_001_000);
    let (own, others) = (row(true), row(false));
    assert_eq!((own.owner_test, others.owner_test), (true, false));
    // What was paid is told all the same.
    assert_eq!(Row { owner_test: false, ..own }, others);
    assert!(others.transaction.is_some() && others.payer.is_some());
}

#[test]
fn a_payment_by_any_wallet_of_the_creator_is_their_own() {
    let request = |template: &Template, payment: Option<Payment>| {
        let caller = CallerRequest {
            object: String::new(),
            name: String::new(),
            key: None,
            input: Input::default(),
            payment,
            digest: String::new(),
            representation: Representation::Json,
            begin_refusal: None,
        };
        RunRequest::new(template, &Config::built_in(), caller).own_payment
    };
    let payer = payment().payer;
    let strangers = template(&[(BASE, WALLET)]);
    assert!(!request(&strangers, Some(payment())) && !request(&strangers, None));
    // The wallet of another network is the same account.
    let own = template(&[(BASE, WALLET), ("eip155:1", &payer.to_string().to_ascii_lowercase())]);
    assert!(request(&own, Some(payment())) && !request(&own, None));
    assert!(request(&Template { agent_wallet: Some(payer), ..strangers.clone() }, Some(payment())));
    // A contract is paid to the wallet that it names, which may be one that the creator had before.
    assert!(request(&strangers, Some(Payment { pay_to: payer, ..payment() })));
}

#[test]
fn an_event_begins_with_its_type() {
    let mut text = Vec::new();
    events::append_text(&mut text, "\"Grüße\"\n🦀");
    assert_eq!(String::from_utf8(text).unwrap(), r#"{"type":"text","content":"\"Grüße\"\n🦀"}"#);
    assert_eq!(events::restart(Some(RUN)), format!(r#"{{"type":"restart","run":"{RUN}"}}"#));
    let declined = Refusal::Claude(ModelError::Declined);
    let message = "Claude declined to answer this input. Nothing was charged.";
    assert_eq!(
        events::error(&declined, Some(RUN), false),
        format!(r#"{{"type":"error","code":"CLAUDE_REFUSED","message":"{message}","run":"{RUN}","charged":false}}"#)
    );
    assert_eq!(
        record().done_event(&stats(), Some(&receipt())),
        format!(r#"{{"type":"done","usage":{USAGE},"stop_reason":"end_turn","run":"{RUN}","receipt":{RECEIPT}}}"#)
    );
    assert_eq!(
        record().done_event(&RunStats { stop_reason: None, ..stats() }, None),
        format!(r#"{{"type":"done","usage":{USAGE},"stop_reason":null,"run":"{RUN}","receipt":null}}"#)
    );
}

#[test]
fn an_error_names_whom_it_concerns_only_where_that_is_known() {
    let event = events::error(&Refusal::SettlementUnknown, None, false);
    assert!(event.ends_with(r#","run":null,"charged":null}"#), "{event}");
}

#[test]
fn the_whole_answer_is_one_document() {
    let expected =
        format!(r#"{{"run":"{RUN}","status":"delivered","model":"claude-haiku-5-5","output":"Quiet \"pond\"","#)
            + &format!(r#""stop_reason":"end_turn","usage":{USAGE},"receipt":{RECEIPT}}}"#);
    assert_eq!(record().document("Quiet \"pond\"", &stats(), Some(&receipt())), expected);
    let free = record().document("", &stats(), None);
    assert!(free.ends_with(r#","receipt":null}"#), "{free}");
}

#[test]
fn the_status_of_a_delivered_run_has_its_output_and_its_receipt() {
    let run = run_after(settled().into_iter().chain([Event::Ended]));
    let expected = format!(
        r#"{{"run":"{RUN}","status":"delivered","model":"claude-haiku-5-5","startedAt":1740672000000,"charged":true,"#
    ) + r#""amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","network":"eip155:84532","#
        + &format!(r#""receipt":{RECEIPT},"output":"Quiet pond","stop_reason":"end_turn","usage":{USAGE},"#)
        + &format!(r#""error":null,"stream":"/runs/{RUN}/stream"}}"#);
    assert_eq!(record().status(&run, &stats(), "Quiet pond"), expected);
}

#[test]
fn the_status_of_a_run_without_an_answer_says_why_and_shows_no_text() {
    let broke = Event::Broke { error: ModelError::Declined, no_text: true };
    let run = run_after([Event::Presented, Event::Verified, Event::Began, broke]);
    let status = record().status(&run, &stats(), "half of");
    let expected = r#""output":null,"stop_reason":"end_turn","#;
    assert!(status.contains(r#""status":"failed""#) && status.contains(expected), "{status}");
    assert!(status.contains(r#""charged":false,"amount":"0","asset":"#), "{status}");
    let message = "Claude declined to answer this input. Nothing was charged.";
    let error = format!(r#""error":{{"code":"CLAUDE_REFUSED","message":"{message}","retryable":false}},"stream":"#);
    assert!(status.contains(&error), "{status}");
}

/// While the money may be moving, nobody is told that it has or that it has not.
#[test]
fn the_status_of_a_run_that_is_being_settled_leaves_the_charge_open() {
    let [presented, verified, began, text, settled] = settled();
    let settling = run_after([presented.clone(), verified.clone(), began.clone(), text.clone()]);
    let status = record().status(&settling, &stats(), "half of");
    assert!(status.contains(r#""status":"running""#) && status.contains(r#""charged":null,"amount":"0""#), "{status}");
    let streaming = run_after([presented, verified, began, text, settled]);
    let status = record().status(&streaming, &stats(), "half of");
    assert!(status.contains(r#""charged":true"#) && status.contains(r#""output":null"#), "{status}");
}

fn decoded(headers: &[(String, String)]) -> Vec<(&str, String)> {
    let text = |value: &String| String::from_utf8(base64::decode(value).unwrap()).unwrap();
    headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
}

/// x402 v2, 5.3; v1 has the same members, and names networks in its own words.
#[test]
fn a_settlement_is_told_in_the_headers_of_both_versions() {
    let settled = settled_headers(&receipt());
    let v1 = RECEIPT.replace("eip155:84532", "base-sepolia");
    assert_eq!(decoded(&settled), [("payment-response", RECEIPT.to_owned()), ("x-payment-response", v1)]);

    let rejected = rejected_headers(&payment(), "insufficient_funds".to_owned());
    let v2 = r#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532","#
        .to_owned()
        + r#""payer":"0x857b06519E91e3A54538791bDbb0E22373e36b66"}"#;
    let v1 = v2.replace("eip155:84532", "base-sepolia");
    assert_eq!(decoded(&rejected), [("payment-response", v2), ("x-payment-response", v1)]);
}

/// See `serde_json` in Cargo.toml: a payment's proof, the schema validator's first mismatch and its `uniqueItems` go by
/// this order.
#[test]
fn a_json_object_that_is_no_type_of_ours_is_kept_in_the_order_of_its_names() {
    let read: Value = serde_json::from_str(r#"{"b":1,"type":2,"a":3}"#).unwrap();
    assert_eq!(read.to_string(), r#"{"a":3,"b":1,"type":2}"#);
}

/// A facilitator may have invented the transaction.
#[test]
fn the_ledger_counts_a_payment_only_where_the_chain_confirms_it() {
    let run = run_after(settled().into_iter().chain([Event::Ended]));
    let row = |confirmation| record().ledger_row(&run, &RunStats { confirmation, ..stats() }, 1_740_672_001_000);
    let books = |confirmation| {
        let row = row(confirmation);
        (row.status.into_owned(), row.amount, row.transaction, row.code)
    };
    let text = str::to_owned;
    let price = payment().amount.to_string();
    let unpaid = |status: &str, code: &str| (text(status), text("0"), None, Some(text(code)));
    assert_eq!(books(Confirmation::Unchecked), (text("delivered"), price.clone(), Some(text("0xt")), None));
    assert_eq!(books(Confirmation::Paid(text("0xu"))), (text("delivered"), price, Some(text("0xu")), None));
    assert_eq!(books(Confirmation::Awaited), unpaid("unknown", "SETTLEMENT_UNKNOWN"));
    assert_eq!(books(Confirmation::Refuted), unpaid("refused", "SETTLEMENT_REJECTED"));
    let failed =
        run_after([Event::Presented, Event::Verified, Event::Broke { error: ModelError::Declined, no_text: true }]);
    let row = record().ledger_row(&failed, &stats(), 1_740_672_001_000);
    assert_eq!(
        (row.status.as_ref(), row.code.as_deref()),
        ("failed", Some("CLAUDE_REFUSED")),
        "nobody said that it is paid"
    );
}
