//! A run as the object has it, for the tests of admission and replay: its payment, its request, its contract.

use coinslot::testing::rules::config::Limits;
use coinslot::testing::rules::hire::context::ContractContext;
use coinslot::testing::rules::hire::output::{FileSpec, OutputType};
use coinslot::testing::rules::hire::shown_schema::ShownSchema;
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::record::run_record::RunRecord;
use coinslot::testing::rules::record::run_request::{Representation, RunRequest};
use coinslot::testing::rules::run::{Event, Millis, Moment, Policy, Receipt, Release, Run, Terms};
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::input::Input;
use coinslot::testing::wire::amount::Amount;
use coinslot::testing::wire::evm::Address;
use serde_json::json;

pub const NOW: Millis = 1_740_672_100_000;
/// The payment can be settled until then: Unix seconds.
pub const VALID_BEFORE: u64 = NOW / 1000 + 300;
pub const RUN_ID: &str = "run_0123";
pub const TASK_ID: &str = "task_4567";

/// A payment under the sample's one nonce. Another `proof` is another signed payload.
pub fn payment(proof: &str) -> Payment {
    Payment {
        x402_version: 2,
        payload: json!({}),
        requirements: json!({}),
        network: "eip155:8453".to_owned(),
        network_v1: "base".to_owned(),
        asset: Address::from([1; 20]),
        pay_to: Address::from([2; 20]),
        amount: Amount(10_000),
        payer: Address::from([3; 20]),
        by_key: true,
        valid_before: VALID_BEFORE,
        nonce: format!("0x{}", "05".repeat(32)),
        name: "ab".repeat(16),
        proof: proof.to_owned(),
    }
}

pub fn request(payment: Option<Payment>, digest: &str) -> RunRequest {
    RunRequest {
        template_id: "template_ada_haiku".to_owned(),
        creator_id: "ada".to_owned(),
        model: "claude-haiku-5-5".to_owned(),
        max_tokens: 100,
        prompt: Secret::new("THE SECRET PROMPT".to_owned()),
        input: Input::default(),
        payment,
        own_payment: false,
        object: "cd".repeat(16),
        name: "ab".repeat(16),
        key: None,
        verified_by: None,
        digest: digest.to_owned(),
        representation: Representation::Stream,
        release: Release::Settled,
        begin_refusal: None,
        contract_context: None,
        answer_by: NOW,
    }
}

/// The terms of an owner's test.
pub const fn free_terms() -> Terms {
    Terms {
        policy: Policy::Free,
        release: Release::Settled,
        start_attempts: 1,
        paid_attempts: 0,
        valid_until: 0,
        detached: false,
        due_by: None,
        kept_until: None,
    }
}

/// The `execution`th of `attempts` executions of a contract.
pub fn contract(execution: u32, attempts: u32) -> ContractContext {
    ContractContext {
        contract_id: "ctr_1".to_owned(),
        task_id: TASK_ID.to_owned(),
        origin: "https://coinslot.example".to_owned(),
        output: OutputType::Text,
        output_schema: None,
        shown_schema: ShownSchema::default(),
        file: FileSpec { name: "haiku.txt".to_owned(), mime: "text/plain".to_owned() },
        allow_partial: false,
        deadline: NOW + 3_600_000,
        max_latency_ms: None,
        attempts,
        execution,
        refund_conditions: Vec::new(),
        webhook: None,
        usual_ms: None,
    }
}

/// The run that a request has begun, after these events, and what is kept of the request.
pub fn begun(request: RunRequest, events: &[Event]) -> (Run, RunRecord) {
    let mut run = Run::new(request.terms(request.release, &Limits::default(), NOW));
    events.iter().for_each(|event| drop(run.handle(event.clone(), Moment { now: NOW, jitter: 0 })));
    (run, RunRecord::of(request, RUN_ID.to_owned(), NOW))
}

pub fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt { transaction: text("0x1"), network: text("eip155:8453"), network_v1: text("base"), payer: text("0x3") }
}
