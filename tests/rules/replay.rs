//! What a follower of a run is sent: from which position, which bytes, and how it ends.

use super::sample::{begun, payment, receipt, request, RUN_ID};
use coinslot::testing::rules::record::replay::{next_chunk, start, Chunk, ReadPosition, Snapshot, Start};
use coinslot::testing::rules::record::run_record::{RunRecord, RunStats};
use coinslot::testing::rules::record::run_request::{Representation, RunRequest};
use coinslot::testing::rules::record::transcript::Transcript;
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{Ending, Event, Moment, Release, Run, State};
use coinslot::testing::wire::sse::{self, Parser};
use serde_json::{json, Value};

fn settled() -> Vec<Event> {
    vec![Event::Presented, Event::Verified, Event::Began, Event::FirstText, Event::Settled(receipt())]
}

fn broke(error: ModelError) -> Event {
    Event::Broke { error, no_text: false }
}

/// A run and its text, as the object has them.
struct Sample {
    run: Run,
    record: RunRecord,
    stats: RunStats,
    transcript: Transcript,
}

impl Sample {
    fn of(request: RunRequest, events: &[Event], edition: u32, pieces: &[&str]) -> Self {
        let (run, record) = begun(request, events);
        let transcript = Transcript::restore(edition, pieces.iter().map(|piece| (*piece).to_owned()));
        Self { run, record, stats: RunStats::default(), transcript }
    }

    /// A stream, paid by "p".
    fn stream(events: &[Event], edition: u32, pieces: &[&str]) -> Self {
        Self::of(request(Some(payment("p")), "d"), events, edition, pieces)
    }

    fn handle(&mut self, event: Event) {
        self.run.handle(event, Moment { now: super::sample::NOW, jitter: 0 });
    }

    fn snapshot(&self) -> Snapshot<'_> {
        let Self { run, record, stats, transcript } = self;
        Snapshot { run, record, stats, transcript }
    }

    fn start(&self, last_event_id: Option<u64>) -> ReadPosition {
        match start(self.snapshot(), last_event_id) {
            Start::From(position) => position,
            other => panic!("{other:?}"),
        }
    }

    fn next(&self, position: &mut ReadPosition) -> Chunk {
        next_chunk(self.snapshot(), position)
    }
}

/// The events in these bytes, each with its id where it has one.
fn read(chunk: &Chunk) -> Vec<(Option<u64>, Value)> {
    let text = String::from_utf8(chunk.bytes.clone()).unwrap();
    let event = |block: &str| {
        let mut json = Value::Null;
        let on_event = |event: sse::Event<'_>| json = serde_json::from_str(event.data).unwrap();
        Parser::default().push(format!("{block}\n\n").as_bytes(), on_event).unwrap();
        let id = block.lines().find_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap());
        (id, json)
    };
    text.split_terminator("\n\n").map(event).collect()
}

fn text(id: u64, content: &str) -> (Option<u64>, Value) {
    (Some(id), json!({"type": "text", "content": content}))
}

fn error(refusal: &Refusal, charged: Option<bool>) -> Value {
    let message = refusal.message_when(charged == Some(true));
    json!({"type": "error", "code": refusal.code(), "message": message, "charged": charged, "run": RUN_ID})
}

// How it begins.

#[test]
fn a_refused_run_is_not_streamed() {
    let invalid = Refusal::PaymentInvalid { reason: None };
    let refused = Sample::stream(&[Event::Presented, Event::VerifyRefused(invalid.clone())], 1, &[]);
    assert_eq!(start(refused.snapshot(), None), Start::Refuse(invalid));
}

#[test]
fn of_a_run_that_was_paid_and_given_up_the_text_is_shown_where_there_is_any() {
    let events = [settled(), vec![broke(ModelError::Declined)]].concat();
    let silent = Sample::stream(&events, 1, &[]);
    assert_eq!(start(silent.snapshot(), None), Start::Refuse(Refusal::Refundable));
    let partial = Sample::stream(&events, 1, &["a"]);
    let chunk = partial.next(&mut partial.start(None));
    assert_eq!(read(&chunk)[0], text(1, "a"));
    assert!(chunk.is_last);
}

#[test]
fn a_follower_gets_everything_from_the_beginning() {
    let sample = Sample::stream(&settled(), 1, &["Hel", "lo"]);
    let mut position = sample.start(None);
    let chunk = sample.next(&mut position);
    assert_eq!((read(&chunk), chunk.is_last), (vec![text(1, "Hel"), text(2, "lo")], false));
    let nothing_new = Chunk { bytes: Vec::new(), is_last: false };
    assert_eq!(sample.next(&mut position), nothing_new);
}

#[test]
fn a_follower_who_comes_back_gets_what_comes_after_their_last_event_and_no_restart() {
    let sample = Sample::stream(&settled(), 2, &["a", "b", "c"]);
    let chunk = sample.next(&mut sample.start(Some(1_000_001)));
    assert_eq!(read(&chunk), [text(1_000_002, "b"), text(1_000_003, "c")]);
}

#[test]
fn a_follower_who_read_an_older_edition_is_told_to_restart_once_and_gets_everything() {
    let mut sample = Sample::stream(&settled(), 2, &["a"]);
    let mut position = sample.start(Some(7));
    let restart = (Some(1_000_000), json!({"type": "restart", "run": RUN_ID}));
    assert_eq!(read(&sample.next(&mut position)), [restart, text(1_000_001, "a")]);
    sample.transcript.push("b");
    assert_eq!(read(&sample.next(&mut position)), [text(1_000_002, "b")]);
}

#[test]
fn a_last_event_id_that_no_edition_has_given_restarts_too() {
    let sample = Sample::stream(&settled(), 1, &["a"]);
    let chunk = sample.next(&mut sample.start(Some(99)));
    assert_eq!(read(&chunk)[0], (Some(0), json!({"type": "restart", "run": RUN_ID})));
}

#[test]
fn nothing_is_left_for_who_has_read_the_event_that_ends_the_run() {
    let delivered = Sample::stream(&[settled(), vec![Event::Ended]].concat(), 1, &["a", "b"]);
    assert_eq!(start(delivered.snapshot(), Some(3)), Start::NothingLeft);
    let mut position = delivered.start(Some(2));
    let chunk = delivered.next(&mut position);
    assert_eq!((read(&chunk).len(), read(&chunk)[0].0, chunk.is_last), (1, Some(3), true), "the end alone");
}

#[test]
fn past_the_end_of_a_run_that_goes_on_a_follower_waits_for_more() {
    let mut sample = Sample::stream(&settled(), 1, &["a"]);
    let mut position = sample.start(Some(2));
    assert_eq!(sample.next(&mut position), Chunk { bytes: Vec::new(), is_last: false });
    sample.transcript.push("b");
    sample.transcript.push("c");
    assert_eq!(
        read(&sample.next(&mut position)),
        [text(3, "c")],
        "the piece that has the id they gave is theirs already"
    );
}

// How it goes on and ends.

#[test]
fn the_end_comes_after_the_text_with_the_id_after_it() {
    let mut sample = Sample::stream(&settled(), 1, &["a"]);
    let mut position = sample.start(None);
    assert!(!sample.next(&mut position).is_last);
    sample.transcript.push("b");
    sample.handle(Event::Ended);
    let chunk = sample.next(&mut position);
    let done: Value = serde_json::from_str(&sample.record.done_event(&sample.stats, sample.run.receipt())).unwrap();
    assert_eq!((done["type"].as_str(), done["receipt"]["transaction"].as_str()), (Some("done"), Some("0x1")));
    assert_eq!((read(&chunk), chunk.is_last), (vec![text(2, "b"), (Some(3), done)], true));
}

#[test]
fn a_long_answer_ends_only_with_its_last_chunk() {
    let piece = "x".repeat(60 * 1024);
    let sample = Sample::stream(&[settled(), vec![Event::Ended]].concat(), 1, &[&piece, &piece, &piece]);
    let mut position = sample.start(None);
    let mut last = Vec::new();
    while !last.contains(&true) {
        last.push(sample.next(&mut position).is_last);
    }
    assert_eq!(last, [false, true]);
}

#[test]
fn an_error_that_is_final_has_an_id_and_says_that_the_run_was_charged() {
    let events = [settled(), vec![broke(ModelError::Declined)]].concat();
    let sample = Sample::stream(&events, 1, &["a"]);
    let chunk = sample.next(&mut sample.start(None));
    let expected = error(&Refusal::Claude(ModelError::Declined), Some(true));
    assert_eq!((read(&chunk), chunk.is_last), (vec![text(1, "a"), (Some(2), expected)], true));
    assert_eq!(start(sample.snapshot(), Some(2)), Start::NothingLeft);
}

#[test]
fn the_error_event_has_exactly_these_bytes() {
    let sample = Sample::stream(&[settled(), vec![broke(ModelError::CutOff)]].concat(), 1, &["a"]);
    let chunk = sample.next(&mut sample.start(Some(1)));
    let message = Refusal::Claude(ModelError::CutOff).message_when(true);
    let expected = format!(
        "data: {{\"type\":\"error\",\"code\":\"{}\",\"message\":\"{message}\",\"run\":\"run_0123\",\"charged\":true}}\n\n",
        ModelError::CutOff.code(),
    );
    assert_eq!(String::from_utf8(chunk.bytes).unwrap(), expected);
}

#[test]
fn an_error_after_which_the_run_goes_on_has_no_id_so_that_who_comes_back_gets_what_follows() {
    let sample = Sample::stream(&[settled(), vec![broke(ModelError::CutOff)]].concat(), 1, &["a"]);
    assert_eq!(sample.run.state(), &State::Interrupted(ModelError::CutOff));
    let chunk = sample.next(&mut sample.start(None));
    let expected = error(&Refusal::Claude(ModelError::CutOff), Some(true));
    assert_eq!((read(&chunk), chunk.is_last), (vec![text(1, "a"), (None, expected)], true));
}

#[test]
fn an_owner_test_that_breaks_off_ends_with_an_error_that_was_not_charged() {
    let events = [Event::Presented, Event::Began, broke(ModelError::CutOff)];
    let sample = Sample::of(request(None, "d"), &events, 1, &["a"]);
    // It is final and shows no text to who comes later; who follows it already gets its end.
    let mut position = Sample::of(request(None, "d"), &events[..2], 1, &["a"]).start(None);
    let chunk = sample.next(&mut position);
    let expected = error(&Refusal::Claude(ModelError::CutOff), Some(false));
    assert_eq!(read(&chunk), [text(1, "a"), (Some(2), expected)]);
}

/// Text that was shown before it was settled, and then it is not known whether it was.
#[test]
fn charged_is_null_where_the_settlement_is_in_doubt() {
    let early = RunRequest { release: Release::Verified, ..request(Some(payment("p")), "d") };
    assert_eq!(early.representation, Representation::Stream);
    let mut events = vec![Event::Presented, Event::Verified, Event::Began, Event::FirstText];
    let following = Sample::of(request(Some(payment("p")), "d"), &settled(), 1, &["a"]).start(None);
    events.extend([Event::SettleUnanswered, Event::Ended]);
    let sample = Sample::of(early, &events, 1, &["a"]);
    assert_eq!(sample.run.ending(), Some(Ending::Error(Refusal::SettlementUnknown)));
    let chunk = sample.next(&mut { following });
    assert_eq!(read(&chunk), [text(1, "a"), (None, error(&Refusal::SettlementUnknown, None))]);
}

#[test]
fn who_has_read_part_of_an_edition_that_changes_is_told_that_it_was_interrupted() {
    let mut sample = Sample::stream(&settled(), 1, &["a"]);
    let mut position = sample.start(None);
    sample.next(&mut position);
    sample.transcript.clear();
    sample.transcript.push("anew");
    let chunk = sample.next(&mut position);
    assert_eq!((read(&chunk), chunk.is_last), (vec![(None, error(&Refusal::Interrupted, Some(true)))], true));
    // Also where the new edition is whole by then: its end is not the end of what they read.
    let mut position = Sample::stream(&settled(), 1, &["a"]).start(Some(1));
    sample.handle(Event::Ended);
    assert_eq!(sample.run.ending(), Some(Ending::Done));
    assert_eq!(read(&sample.next(&mut position)), [(None, error(&Refusal::Interrupted, Some(true)))]);
}

#[test]
fn who_has_read_nothing_of_an_edition_that_changes_just_gets_the_new_one() {
    let mut sample = Sample::stream(&settled(), 1, &[]);
    let mut position = sample.start(None);
    sample.transcript.clear();
    sample.transcript.push("anew");
    let chunk = sample.next(&mut position);
    assert_eq!((read(&chunk), chunk.is_last), (vec![text(1_000_001, "anew")], false));
}
