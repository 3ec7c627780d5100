//! The JSON of every error, in each place where one is shown: `tests/golden/errors.json`.

use crate::golden::assert_golden;
use crate::refusals::all;
use coinslot::testing::rules::hire::context::ContractContext;
use coinslot::testing::rules::hire::output::{FileSpec, OutputType};
use coinslot::testing::rules::hire::shown_schema::ShownSchema;
use coinslot::testing::rules::hire::task::{task_report, RefusalDocument, TaskFacts};
use coinslot::testing::rules::record::events;
use coinslot::testing::rules::refusal::body::ErrorBody;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{Event, Millis, Moment, Policy, Receipt, Release, Run, Terms};
use coinslot::testing::wire::anthropic::Usage;
use coinslot::testing::wire::hire::RefundCondition;
use serde::Serialize;
use serde_json::{to_string, Value};
use std::collections::BTreeMap;

const RUN: &str = "run_1";
const NOW: Millis = 1_000_000_000;
const DEADLINE: Millis = NOW + 60_000;

fn contract_context(attempts: u32) -> ContractContext {
    ContractContext {
        contract_id: "ctr_1".to_owned(),
        task_id: "task_1".to_owned(),
        origin: "https://coinslot.example".to_owned(),
        output: OutputType::Text,
        output_schema: None,
        shown_schema: ShownSchema::default(),
        file: FileSpec { name: "output.txt".to_owned(), mime: "text/plain".to_owned() },
        allow_partial: false,
        deadline: DEADLINE,
        max_latency_ms: None,
        attempts,
        execution: 1,
        refund_conditions: vec![RefundCondition::NoResponse],
        webhook: None,
        usual_ms: None,
    }
}

/// A contract's run that was told these events.
fn run_after(policy: Policy, events: impl IntoIterator<Item = Event>) -> Run {
    let mut run = Run::new(Terms {
        policy,
        release: Release::Settled,
        start_attempts: 1,
        paid_attempts: 1,
        valid_until: NOW + 300_000,
        detached: true,
        due_by: None,
        kept_until: None,
    });
    events.into_iter().for_each(|event| drop(run.handle(event, Moment { now: NOW, jitter: 0 })));
    run
}

/// A run whose answer broke off before anything was charged.
fn failed(error: ModelError) -> Run {
    run_after(
        Policy::OnResult,
        [Event::Presented, Event::Verified, Event::Began, Event::Broke { error, no_text: true }],
    )
}

/// A stream that broke off after it was charged.
fn charged() -> Run {
    let text = str::to_owned;
    let receipt = Receipt {
        transaction: text("0x1"),
        network: text("eip155:8453"),
        network_v1: text("base"),
        payer: text("0x2"),
    };
    let broke = Event::Broke { error: ModelError::Declined, no_text: false };
    run_after(
        Policy::OnStart,
        [Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::Settled(receipt), broke],
    )
}

/// The document of a task whose execution failed.
fn failed_task(run: &Run, attempts: u32, now: Millis) -> Value {
    let facts = TaskFacts { run_id: RUN, model: "m", started_at: NOW, usage: Usage::default(), stop_reason: None };
    let report = task_report(&facts, &contract_context(attempts), run, "", now, |_, _| String::new());
    assert!(report.refusal.is_some(), "{run:?}");
    report.document
}

fn line(form: &str, refusal: &Refusal, body: &impl Serialize) -> String {
    line_of_text(form, refusal, &to_string(body).unwrap())
}

fn line_of_text(form: &str, refusal: &Refusal, body: &str) -> String {
    format!("{{\"form\":\"{form}\",\"refusal\":{:?},\"body\":{body}}}", format!("{refusal:?}"))
}

fn lines_of(refusal: &Refusal) -> Vec<String> {
    let body = |form: &str, error| line(form, refusal, &BTreeMap::from([("error", error)]));
    let mut lines = vec![
        body("error", ErrorBody::new(refusal)),
        body("error of no run", ErrorBody::of_run(refusal, None, false)),
        body("error of a run", ErrorBody::of_run(refusal, Some(RUN), false)),
        body("error of a charged run", ErrorBody::of_run(refusal, Some(RUN), true)),
        line_of_text("event", refusal, &events::error(refusal, Some(RUN), false)),
        line_of_text("event of a charged run", refusal, &events::error(refusal, Some(RUN), true)),
        line("HIRE", refusal, &RefusalDocument::new(refusal, "ctr_1")),
    ];
    match refusal {
        Refusal::Contract(..) => lines.push(line("verification", refusal, &ErrorBody::of_verification(refusal))),
        // A run ends in none that is about a field.
        _ if refusal.detail().is_some() => {}
        _ => lines.extend([
            line("status", refusal, &ErrorBody::in_status(refusal, false)),
            line("status of a charged run", refusal, &ErrorBody::in_status(refusal, true)),
        ]),
    }
    match refusal {
        // Claude is shown what is wrong: the run goes on.
        Refusal::Claude(ModelError::OutputMismatch { repair: true }) => {}
        Refusal::Claude(error) => {
            let run = failed(*error);
            lines.extend([
                line("failed task", refusal, &failed_task(&run, 3, NOW)),
                line("failed task without attempts", refusal, &failed_task(&run, 1, NOW)),
                line("failed task after its deadline", refusal, &failed_task(&run, 3, DEADLINE)),
            ]);
        }
        _ if refusal.detail().is_none() => {
            let run = run_after(Policy::OnResult, [Event::Presented, Event::VerifyRefused(refusal.clone())]);
            lines.push(line("failed task", refusal, &failed_task(&run, 3, NOW)));
        }
        _ => {}
    }
    lines
}

#[test]
fn every_error_is_written_as_in_the_golden_file() {
    let mut lines: Vec<String> = all().iter().flat_map(lines_of).collect();
    let declined = Refusal::Claude(ModelError::Declined);
    lines.push(line("failed task that was charged", &declined, &failed_task(&charged(), 3, NOW)));
    assert!(lines.len() > 500, "only {} lines", lines.len());
    assert_golden("errors.json", &lines);
}
