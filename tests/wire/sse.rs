//! Server-Sent Events in any pieces: the same events, and the same answer, under every split.

use crate::answer::{end_of_stream, push, push_events, Event, Step};
use coinslot::testing::rules::model_answer::AnswerReader;
use coinslot::testing::rules::refusal::ModelError;
use coinslot::testing::wire::anthropic::StopReason;
use coinslot::testing::wire::sse;
use coinslot::testing::wire::sse::{write, write_unnumbered, Parser, TooLong, MAX_EVENT};
use proptest::prelude::*;

const BASIC: &str = include_str!("../golden/anthropic_basic.sse");

/// Streaming messages, "Basic streaming request", with text that is more than one byte a character,
/// comments, ids, and data in several lines.
fn transcript() -> String {
    let many_bytes = BASIC.replace("Hello", "Grüße 🦀 道").replace("\"!\"", "\"\u{2028}…\"");
    let lines = many_bytes
        .replace("data: {\"type\": \"ping\"}", ": a comment\nid: 7\nretry: 10\ndata: {\"type\":\ndata: \"ping\"}");
    assert_ne!(lines, many_bytes);
    lines
}

fn events_of(pieces: &[&[u8]]) -> Vec<Event> {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    for piece in pieces {
        push_events(&mut parser, piece, &mut events).unwrap();
    }
    events
}

fn events(text: &str) -> Vec<Event> {
    events_of(&[text.as_bytes()])
}

fn event(name: &str, data: &str) -> Event {
    Event { name: name.to_owned(), data: data.to_owned() }
}

/// The steps of an answer that comes in these pieces, neighbouring text joined, and the reading. That text begins is
/// left out, because it is told only where the read ends there.
fn steps_of(pieces: &[&[u8]]) -> (Vec<Step>, AnswerReader) {
    let mut reading = AnswerReader::default();
    let mut steps: Vec<Step> = Vec::new();
    let read: Vec<Step> = pieces.iter().flat_map(|piece| push(&mut reading, piece)).collect();
    for step in read.into_iter().filter(|step| *step != Step::TextBegins) {
        match (steps.last_mut(), step) {
            (Some(Step::Text(so_far)), Step::Text(more)) => so_far.push_str(&more),
            (_, step) => steps.push(step),
        }
    }
    steps.extend(end_of_stream(&mut reading));
    (steps, reading)
}

fn steps(stream: &str) -> Vec<Step> {
    steps_of(&[stream.as_bytes()]).0
}

fn text(text: &str) -> Step {
    Step::Text(text.to_owned())
}

/// The transcript with each line end, with and without a byte order mark.
fn spellings() -> Vec<String> {
    let plain = transcript();
    let ends = ["\n", "\r", "\r\n"];
    let spelled: Vec<String> = ends.iter().map(|end| plain.replace('\n', end)).collect();
    spelled.iter().flat_map(|s| [s.clone(), format!("\u{feff}{s}")]).collect()
}

/// WHATWG HTML, 9.2.5 and 9.2.6
#[test]
fn every_line_end_and_a_byte_order_mark_give_the_same_events() {
    let expected = events(&transcript());
    assert_eq!(expected.len(), 8);
    assert_eq!(expected[2], event("ping", "{\"type\":\n\"ping\"}"));
    for spelling in spellings() {
        assert_eq!(events(&spelling), expected);
    }
}

#[test]
fn every_single_split_gives_the_same_events() {
    for spelling in spellings() {
        let bytes = spelling.as_bytes();
        let whole = events_of(&[bytes]);
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(events_of(&[head, tail]), whole, "split at {at}");
            assert_eq!(events_of(&[head, b"", tail]), whole, "split at {at}, with an empty read");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events_of(&single), whole, "byte by byte");
    }
}

#[test]
fn every_single_split_gives_the_same_answer() {
    for spelling in spellings() {
        let bytes = spelling.as_bytes();
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            let (steps, reading) = steps_of(&[head, tail]);
            assert_eq!(steps, [Step::Began, text("Grüße 🦀 道\u{2028}…"), Step::Whole], "split at {at}");
            assert_eq!((reading.usage.input_tokens, reading.usage.output_tokens), (25, 15));
            assert_eq!(reading.stop_reason, Some(StopReason::EndTurn));
            assert!(reading.has_begun() && reading.is_over());
        }
    }
}

/// Cuts `bytes` at these places, in whatever order they come.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|p| p.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for at in places {
        pieces.push(&bytes[from..at]);
        from = at;
    }
    pieces.push(&bytes[from..]);
    pieces
}

/// Lines as SSE has them, and lines as it does not, with any line end.
fn any_stream() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(String::new()),
        "data: ?[a-zé🦀: ]{0,6}",
        "event: ?[a-z]{0,4}",
        "(id|retry|x)?: ?[a-z0-9]{0,3}",
        "[a-z\u{feff}]{0,5}",
    ];
    let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    let lines = prop::collection::vec((line, end), 0..20);
    (any::<bool>(), lines).prop_map(|(bom, lines)| {
        let lines: String = lines.into_iter().map(|(line, end)| line + end).collect();
        if bom {
            format!("\u{feff}{lines}")
        } else {
            lines
        }
    })
}

/// The standard's algorithm in a few lines, over the whole text at once.
fn reference(stream: &str) -> Vec<Event> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream).replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), Vec::new());
    let mut lines: Vec<&str> = stream.split('\n').collect();
    lines.pop(); // what no line end follows
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                let name = if name.is_empty() { "message" } else { &name };
                events.push(event(name, &data.join("\n")));
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data.push(value.to_owned()),
            _ => {}
        }
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_stream_in_any_pieces_is_what_the_standard_says(
        stream in any_stream(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        prop_assert_eq!(events_of(&cut(stream.as_bytes(), &places)), reference(&stream));
    }

    #[test]
    fn any_pieces_give_the_same_answer(
        which in 0usize..6,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let spelling = &spellings()[which];
        let (steps, reading) = steps_of(&cut(spelling.as_bytes(), &places));
        prop_assert_eq!(steps, [Step::Began, text("Grüße 🦀 道\u{2028}…"), Step::Whole]);
        prop_assert_eq!(reading.usage.output_tokens, 15);
    }

    #[test]
    fn bytes_that_are_no_stream_at_all_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let (steps, reading) = steps_of(&cut(&bytes, &places));
        prop_assert!(reading.is_over());
        prop_assert!(matches!(steps.last(), Some(Step::Broke(_))));
        prop_assert_eq!(steps_of(&[&bytes]).0, steps);
    }
}

/// WHATWG HTML, 9.2.6, the examples after "Event streams": comments, joined data, an empty event.
#[test]
fn the_standards_own_examples_are_read() {
    let joined = "data: YHOO\ndata: +2\ndata: 10\n\n";
    assert_eq!(events(joined), [event("message", "YHOO\n+2\n10")]);
    let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let read = events(four);
    assert_eq!(
        read,
        [event("message", "first event"), event("message", "second event"), event("message", " third event")]
    );
    let empty = "data\n\ndata\ndata\n\ndata:";
    assert_eq!(events(empty), [event("message", ""), event("message", "\n")]);
    assert_eq!(events("data:test\n\ndata: test\n\n"), [event("message", "test"), event("message", "test")]);
}

#[test]
fn an_event_without_data_is_none_and_its_name_does_not_stick() {
    assert_eq!(events("event: a\n\ndata: x\n\n"), [event("message", "x")]);
    assert_eq!(events("event: a\ndata: x\n\ndata: y\n\n"), [event("a", "x"), event("message", "y")]);
}

#[test]
fn an_event_that_no_blank_line_follows_is_not_dispatched() {
    assert_eq!(events("data: x\n"), []);
    assert_eq!(events("data: x"), []);
}

#[test]
fn what_we_write_is_what_a_client_reads() {
    let mut out = Vec::new();
    write(&mut out, 7, r#"{"type":"text","content":"a\nb"}"#);
    write(&mut out, u64::MAX, "{}");
    let expected =
        format!("id: 7\ndata: {{\"type\":\"text\",\"content\":\"a\\nb\"}}\n\nid: {}\ndata: {{}}\n\n", u64::MAX);
    assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
    assert_eq!(events_of(&[&out]).len(), 2);
}

/// Who comes back after it goes on from the event before.
#[test]
fn an_event_that_does_not_count_has_no_id() {
    let mut out = Vec::new();
    write_unnumbered(&mut out, r#"{"type":"error"}"#);
    assert_eq!(out, b"data: {\"type\":\"error\"}\n\n");
    assert_eq!(events_of(&[&out]), [event("message", r#"{"type":"error"}"#)]);
}

#[test]
fn a_line_beyond_the_limit_is_refused_in_one_piece_and_in_many() {
    let long = vec![b'a'; MAX_EVENT + 1];
    assert_eq!(Parser::default().push(&long, |_| {}), Err(TooLong));
    let mut parser = Parser::default();
    let refused = (0..).take(2000).find(|_| parser.push(&[b'a'; 1024], |_| {}).is_err());
    assert_eq!(refused, Some(1024), "the piece that goes beyond");
}

#[test]
fn an_event_of_many_lines_beyond_the_limit_is_refused() {
    let mut parser = Parser::default();
    let line = format!("data: {}\n", "a".repeat(1000));
    let refused = (0..).take(2000).find(|_| parser.push(line.as_bytes(), |_| {}).is_err());
    assert!(refused.is_some_and(|n| (1040..1050).contains(&n)), "{refused:?}");
}

#[test]
fn an_event_just_below_the_limit_is_read_and_the_count_starts_anew_with_the_next() {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    let line = format!("data: {}\n\n", "a".repeat(MAX_EVENT - 10));
    for _ in 0..3 {
        push_events(&mut parser, line.as_bytes(), &mut events).unwrap();
    }
    assert_eq!(events.len(), 3);
}

#[test]
fn an_answer_with_an_oversized_event_is_broken() {
    let start = head();
    let long = format!("{start}data: {}", "a".repeat(MAX_EVENT + 1));
    assert_eq!(steps(&long), [Step::Began, Step::Broke(ModelError::Broken)]);
}

/// The `message_start` of the example.
fn head() -> String {
    BASIC.split_inclusive("\n\n").next().unwrap().to_owned()
}

fn text_delta(text: &str) -> String {
    format!("data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n")
}

fn stop(reason: &str) -> String {
    format!("data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"{reason}\"}},\"usage\":{{\"output_tokens\":9}}}}\n\n{STOP}")
}

const STOP: &str = "data: {\"type\":\"message_stop\"}\n\n";
const ERROR: &str = include_str!("../golden/anthropic_error_event.sse");

#[test]
fn an_end_without_message_stop_is_cut_off_wherever_it_comes() {
    let whole = transcript();
    let last = whole.rfind("\n\n").unwrap() + 1;
    for at in 0..=last {
        let (steps, reading) = steps_of(&[&whole.as_bytes()[..at]]);
        assert_eq!(steps.last(), Some(&Step::Broke(ModelError::CutOff)), "cut at {at}");
        assert!(!steps.contains(&Step::Whole), "cut at {at}");
        assert_eq!(reading.has_begun(), steps.contains(&Step::Began));
    }
}

#[test]
fn the_end_of_the_stream_is_told_once_and_not_after_a_whole_answer() {
    let mut reading = AnswerReader::default();
    assert_eq!(end_of_stream(&mut reading), [Step::Broke(ModelError::CutOff)]);
    assert_eq!(end_of_stream(&mut reading), []);
    let mut reading = AnswerReader::default();
    reading.push(BASIC.as_bytes());
    assert_eq!(end_of_stream(&mut reading), []);
}

#[test]
fn a_refusal_is_declined_and_every_other_reason_to_stop_is_a_whole_answer() {
    let refused = format!("{}{}{}", head(), text_delta("I"), stop("refusal"));
    let (steps_of_refusal, reading) = steps_of(&[refused.as_bytes()]);
    assert_eq!(steps_of_refusal, [Step::Began, text("I"), Step::Broke(ModelError::Declined)]);
    assert_eq!(reading.usage.output_tokens, 9, "the tokens are billed all the same");
    for reason in ["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded", "new"] {
        let stream = format!("{}{}{}", head(), text_delta("I"), stop(reason));
        assert_eq!(steps(&stream), [Step::Began, text("I"), Step::Whole], "{reason}");
    }
}

#[test]
fn a_later_delta_without_a_reason_does_not_take_the_refusal_back() {
    let delta = "data: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":10}}\n\n";
    let refusal = stop("refusal").replace(STOP, "");
    let stream = format!("{}{refusal}{delta}{STOP}", head());
    assert_eq!(steps(&stream), [Step::Began, Step::Broke(ModelError::Declined)]);
}

#[test]
fn an_error_event_is_a_failure_to_begin_before_message_start_and_a_break_after_it() {
    let error = |kind: &str| ERROR.replace("overloaded_error", kind);
    for (kind, fault) in [
        ("overloaded_error", ModelError::Overloaded),
        ("rate_limit_error", ModelError::RateLimited { retry_after: None }),
        ("api_error", ModelError::Upstream),
        ("melted_error", ModelError::Upstream),
    ] {
        assert_eq!(steps(&error(kind)), [Step::Broke(fault)]);
        let late = format!("{}{}{}", head(), text_delta("Hel"), error(kind));
        assert_eq!(steps(&late), [Step::Began, text("Hel"), Step::Broke(ModelError::Broken)]);
    }
}

#[test]
fn nothing_after_the_end_counts() {
    for ending in [STOP.to_owned(), ERROR.to_owned(), "data: {\"nonsense\n\n".to_owned()] {
        let stream = format!("{}{}{ending}", head(), text_delta("a"));
        let after = format!("{}{}{STOP}{ERROR}{}", text_delta("b"), head(), stop("refusal"));
        let alone = steps(&stream);
        let (together, reading) = steps_of(&[format!("{stream}{after}").as_bytes()]);
        assert_eq!(together, alone);
        assert_eq!((reading.usage.output_tokens, &reading.stop_reason), (1, &None));
        assert_eq!(steps_of(&[stream.as_bytes(), after.as_bytes()]).0, alone, "in a later read");
    }
}

#[test]
fn text_or_an_end_before_the_beginning_is_not_the_messages_api() {
    assert_eq!(steps(&text_delta("early")), [Step::Broke(ModelError::Broken)]);
    assert_eq!(steps(STOP), [Step::Broke(ModelError::Broken)]);
}

#[test]
fn a_second_message_start_is_not_a_second_beginning() {
    let stream = format!("{}{}{}{STOP}", head(), text_delta("a"), head());
    assert_eq!(steps(&stream), [Step::Began, text("a"), Step::Whole]);
}

/// Settlement may begin before the first text is there.
#[test]
fn that_text_begins_is_a_step_once_and_only_before_the_first_text() {
    let block = |kind: &str| {
        format!("data: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{{\"type\":\"{kind}\"}}}}\n\n")
    };
    let (head, thinking, begins, a) = (head(), block("thinking"), block("text"), text_delta("a"));
    let read = |reads: &[&str]| {
        let mut reading = AnswerReader::default();
        reads.iter().map(|read| push(&mut reading, read.as_bytes())).collect::<Vec<_>>()
    };
    let none = Vec::new;
    assert_eq!(
        read(&[&head, &thinking, &begins, &a, &begins]),
        [vec![Step::Began], none(), vec![Step::TextBegins], vec![text("a")], none()]
    );
    assert_eq!(read(&[&format!("{head}{begins}"), &a]), [vec![Step::Began, Step::TextBegins], vec![text("a")]]);
    assert_eq!(read(&[&head, &a, &begins]), [vec![Step::Began], vec![text("a")], none()], "there is text already");
    assert_eq!(read(&[&head, &text_delta(""), &begins]), [vec![Step::Began], none(), vec![Step::TextBegins]]);
    assert_eq!(read(&[&begins, &head, &a]), [none(), vec![Step::Began], vec![text("a")]], "before the beginning");
    // One read: the text is the step, and an answer that has ended without any must not look as if there will be some.
    assert_eq!(read(&[&format!("{head}{begins}{a}{STOP}")]), [[Step::Began, text("a"), Step::Whole]]);
    assert_eq!(read(&[&format!("{head}{begins}{ERROR}")]), [[Step::Began, Step::Broke(ModelError::Broken)]]);
    assert_eq!(read(&[&format!("{head}{begins}{STOP}")]), [[Step::Began, Step::Broke(ModelError::Empty)]]);
}

/// An event that lies in one read is not copied.
#[test]
fn the_data_of_an_event_is_borrowed_from_its_read() {
    let stream = format!("{}{}", text_delta("a"), text_delta("b"));
    let bytes = stream.as_bytes().as_ptr_range();
    let mut read = 0;
    let on_event = |event: sse::Event<'_>| {
        read += 1;
        assert!(bytes.contains(&event.data.as_ptr()), "{}", event.data);
    };
    Parser::default().push(stream.as_bytes(), on_event).unwrap();
    assert_eq!(read, 2);
}

/// The number of wake-ups is what streaming costs.
#[test]
fn the_text_of_one_read_is_one_step() {
    let mut reading = AnswerReader::default();
    let read = format!("{}{}{}", head(), text_delta("a"), text_delta("b"));
    assert_eq!(push(&mut reading, read.as_bytes()), [Step::Began, text("ab")]);
    let ping = "data: {\"type\":\"ping\"}\n\n";
    assert_eq!(push(&mut reading, format!("{}{ping}{}", text_delta("c"), text_delta("d")).as_bytes()), [text("cd")]);
}
