//! Anthropic's Messages API on the wire: the documentation's own examples (`tests/golden/SOURCES.md`),
//! and which failure is which.

use crate::answer::{end_of_stream, push, Step};
use coinslot::testing::rules::model_answer::{key_refusal_of, model_error_of, AnswerReader};
use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::wire::anthropic::{
    loggable_request_id, read_event, ErrorBody, ErrorType, MalformedEvent, Message, MessagesRequest, StopReason,
    StreamEvent, Usage, UsageUpdate,
};
use coinslot::testing::wire::sse::Parser;
use serde_json::{json, Value};
use std::borrow::Cow;

const BASIC: &str = include_str!("../golden/anthropic_basic.sse");
const THINKING: &str = include_str!("../golden/anthropic_thinking.sse");
const TOOL_USE: &str = include_str!("../golden/anthropic_tool_use.sse");
const WEB_SEARCH_END: &str = include_str!("../golden/anthropic_web_search_end.sse");
const ERROR_EVENT: &str = include_str!("../golden/anthropic_error_event.sse");

/// What was read of an event, with a text of its own.
type Read = Result<StreamEvent<'static>, MalformedEvent>;

fn read(data: &str) -> Read {
    read_named("message", data)
}

fn read_named(name: &str, data: &str) -> Read {
    read_event(name, data).map(|event| match event {
        StreamEvent::Text(text) => StreamEvent::Text(text.into_owned().into()),
        StreamEvent::Start(usage) => StreamEvent::Start(usage),
        StreamEvent::TextBlock => StreamEvent::TextBlock,
        StreamEvent::Delta(reason, usage) => StreamEvent::Delta(reason, usage),
        StreamEvent::Stop => StreamEvent::Stop,
        StreamEvent::Error(kind) => StreamEvent::Error(kind),
        StreamEvent::Other => StreamEvent::Other,
    })
}

fn events(stream: &str) -> Vec<Read> {
    let mut events = Vec::new();
    Parser::default().push(stream.as_bytes(), |event| events.push(read_named(event.name, event.data))).unwrap();
    events
}

fn event(data: Value) -> Read {
    read(&data.to_string())
}

fn usage(json: Value) -> UsageUpdate {
    serde_json::from_value(json).unwrap()
}

fn text(text: &str) -> Read {
    Ok(StreamEvent::Text(text.to_owned().into()))
}

const OTHER: Read = Ok(StreamEvent::Other);
const TEXT_BLOCK: Read = Ok(StreamEvent::TextBlock);

/// Streaming, "Basic streaming request"
#[test]
fn the_basic_stream_is_read() {
    let expected = vec![
        Ok(StreamEvent::Start(usage(json!({"input_tokens": 25, "output_tokens": 1})))),
        TEXT_BLOCK,
        OTHER,
        text("Hello"),
        text("!"),
        OTHER,
        Ok(StreamEvent::Delta(Some(StopReason::EndTurn), usage(json!({"output_tokens": 15})))),
        Ok(StreamEvent::Stop),
    ];
    assert_eq!(events(BASIC), expected);
}

/// Streaming, "Streaming request with extended thinking": thinking is not the answer. Its example
/// leaves usage out.
#[test]
fn thinking_and_signatures_are_passed_over() {
    let none = UsageUpdate::default();
    let expected = vec![
        Ok(StreamEvent::Start(none)),
        OTHER,
        OTHER,
        OTHER,
        OTHER,
        TEXT_BLOCK,
        text("27 * 453 = 12,231"),
        OTHER,
        Ok(StreamEvent::Delta(Some(StopReason::EndTurn), none)),
        Ok(StreamEvent::Stop),
    ];
    assert_eq!(events(THINKING), expected);
}

/// Streaming, "Streaming request with tool use"
#[test]
fn input_json_deltas_are_passed_over() {
    let read = events(TOOL_USE);
    let texts: Vec<_> = read.iter().filter(|e| matches!(e, Ok(StreamEvent::Text(_)))).collect();
    assert_eq!(texts, [&text("Okay")]);
    let stop = StopReason::Other("tool_use".to_owned());
    assert_eq!(read[read.len() - 2], Ok(StreamEvent::Delta(Some(stop), usage(json!({"output_tokens": 89})))));
}

/// Streaming, "Error events"
#[test]
fn the_error_event_is_read() {
    assert_eq!(events(ERROR_EVENT), [Ok(StreamEvent::Error(ErrorType::OverloadedError))]);
}

/// Streaming, "Other events": "your code should handle unknown event types gracefully".
#[test]
fn unknown_events_and_deltas_are_tolerated() {
    assert_eq!(event(json!({"type": "ping"})), OTHER);
    assert_eq!(event(json!({"type": "message_pause", "reason": {"a": [1]}})), OTHER);
    let delta = |delta: Value| event(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    assert_eq!(delta(json!({"type": "citations_delta", "citation": {"cited_text": "x"}})), OTHER);
    assert_eq!(delta(json!({"type": "hologram_delta", "text": "not text"})), OTHER);
    assert_eq!(delta(json!({"type": "text_delta", "text": "x", "confidence": 1})), text("x"));
    assert_eq!(
        event(json!({"type": "error", "error": {"type": "melted_error"}})),
        Ok(StreamEvent::Error(ErrorType::Unknown))
    );
    let stop = Some(StopReason::Other("bored".to_owned()));
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "bored"}, "usage": {"new_tokens": 1}});
    assert_eq!(event(delta), Ok(StreamEvent::Delta(stop, UsageUpdate::default())));
    let none = json!({"type": "message_delta", "delta": {"stop_reason": null}});
    assert_eq!(event(none), Ok(StreamEvent::Delta(None, UsageUpdate::default())));
}

/// Streaming, "Content block delta types": a text without escapes is not copied.
#[test]
fn a_text_is_borrowed_from_the_event_wherever_its_members_stand() {
    for data in [
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße"}}"#,
        r#"{ "delta": { "text": "Grüße", "type": "text_delta", "x": [{}] }, "index": 1e9, "type": "content_block_delta" }"#,
    ] {
        let Ok(StreamEvent::Text(Cow::Borrowed("Grüße"))) = read_event("message", data) else { panic!("{data}") };
    }
    let escaped = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a\n\u00fc \ud83e\udd80"}}"#;
    assert_eq!(read(escaped), text("a\nü 🦀"));
    let escaped = r#"{"type":"content_block\u005fdelta","delta":{"type":"text\u005fdelta","text":"x"}}"#;
    assert_eq!(read(escaped), text("x"));
}

/// A new type of delta may have a member `text` of any kind; a delta of text may not.
#[test]
fn what_is_odd_in_a_delta_counts_only_where_it_is_text() {
    let delta = |delta: Value| event(json!({"type": "content_block_delta", "delta": delta}));
    assert_eq!(delta(json!({"type": "hologram_delta", "text": {"a": 1}})), OTHER);
    assert_eq!(delta(json!({"type": "hologram_delta", "text": null})), OTHER);
    assert_eq!(delta(json!({"type": "text_delta", "text": null})), Err(MalformedEvent));
    assert_eq!(delta(json!({"text": "x"})), Err(MalformedEvent));
    assert_eq!(delta(json!("text_delta")), Err(MalformedEvent));
    assert_eq!(event(json!({"type": "message_pause", "delta": {"type": "text_delta", "text": "x"}})), OTHER);
}

/// Streaming, "Event types": only a block of text says that there will be text.
#[test]
fn the_start_of_a_text_block_is_told_from_all_other_blocks() {
    let start = |block: Value| event(json!({"type": "content_block_start", "index": 0, "content_block": block}));
    assert_eq!(start(json!({"type": "text", "text": ""})), TEXT_BLOCK);
    assert_eq!(start(json!({"type": "text", "text": "", "citations": []})), TEXT_BLOCK);
    for other in
        [json!({"type": "thinking", "text": "x"}), json!({"type": "hologram"}), json!({}), json!("text"), json!(null)]
    {
        assert_eq!(start(other.clone()), OTHER, "{other}");
    }
    assert_eq!(event(json!({"type": "content_block_start"})), OTHER);
}

/// The name of the SSE event is not what counts, as in the official SDKs.
#[test]
fn the_type_inside_the_data_counts() {
    assert_eq!(events("event: ping\ndata: {\"type\":\"message_stop\"}\n\n"), [Ok(StreamEvent::Stop)]);
}

#[test]
fn an_event_that_may_have_held_text_and_cannot_be_read_is_malformed() {
    for data in [
        json!({"type": "content_block_delta", "delta": {"type": "text_delta"}}),
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": 1}}),
        json!({"type": "content_block_delta", "delta": [1]}),
    ] {
        assert_eq!(event(data.clone()), Err(MalformedEvent), "{data}");
    }
    assert_eq!(read(r#"{"type":"message_st"#), Err(MalformedEvent));
}

fn usage_after(stream: &str) -> Usage {
    let mut reading = AnswerReader::default();
    reading.push(stream.as_bytes());
    reading.usage
}

/// Streaming, "Event types": "The token counts … are cumulative".
#[test]
fn usage_is_cumulative_and_never_added_up() {
    let basic = usage_after(BASIC);
    assert_eq!((basic.input_tokens, basic.output_tokens), (25, 15), "not 16");
    let search = usage_after(WEB_SEARCH_END);
    assert_eq!((search.input_tokens, search.output_tokens), (10_682, 510), "the last word counts");
    assert_eq!(usage_after(THINKING), Usage::default());
    let mut usage = Usage::default();
    usage.update(self::usage(json!({"input_tokens": 7, "cache_read_input_tokens": 100, "output_tokens": 1})));
    usage.update(self::usage(json!({"output_tokens": 40, "cache_creation_input_tokens": 20})));
    usage.update(self::usage(json!({"output_tokens": 50})));
    let expected =
        Usage { input_tokens: 7, output_tokens: 50, cache_creation_input_tokens: 20, cache_read_input_tokens: 100 };
    assert_eq!(usage, expected);
    assert_eq!(usage.all_input(), 127);
    let huge = Usage { input_tokens: u64::MAX, cache_read_input_tokens: 1, ..usage };
    assert_eq!(huge.all_input(), u64::MAX);
}

/// Handling stop reasons: the documented values, and whatever comes later.
#[test]
fn stop_reasons_keep_their_names() {
    for (name, reason) in [
        ("end_turn", StopReason::EndTurn),
        ("max_tokens", StopReason::MaxTokens),
        ("stop_sequence", StopReason::StopSequence),
        ("refusal", StopReason::Refusal),
        ("model_context_window_exceeded", StopReason::ContextWindowExceeded),
        ("tool_use", StopReason::Other("tool_use".to_owned())),
        ("pause_turn", StopReason::Other("pause_turn".to_owned())),
    ] {
        assert_eq!(StopReason::from(name.to_owned()), reason);
        assert_eq!(serde_json::to_value(&reason).unwrap(), json!(name));
        assert_eq!(serde_json::from_value::<StopReason>(json!(name)).unwrap(), reason);
    }
}

/// Messages, "Create a Message": what we send.
#[test]
fn the_request_has_the_documented_form() {
    let request = MessagesRequest {
        model: "claude-haiku-5-5",
        max_tokens: 100,
        system: "You write haiku.",
        messages: vec![Message { role: "user", content: "Please proceed." }],
        output_config: None,
        stream: true,
    };
    let expected = json!({
        "model": "claude-haiku-5-5", "max_tokens": 100, "system": "You write haiku.", "stream": true,
        "messages": [{"role": "user", "content": "Please proceed."}],
    });
    assert_eq!(serde_json::to_value(&request).unwrap(), expected);
}

/// Errors, "Error shapes"
#[test]
fn an_error_body_is_read_and_new_types_are_tolerated() {
    let body: ErrorBody = serde_json::from_str(include_str!("../golden/anthropic_error.json")).unwrap();
    assert_eq!(body.error.kind, ErrorType::NotFoundError);
    assert_eq!(body.error.message, "The requested resource could not be found.");
    for (name, kind) in [
        ("invalid_request_error", ErrorType::InvalidRequestError),
        ("authentication_error", ErrorType::AuthenticationError),
        ("billing_error", ErrorType::BillingError),
        ("permission_error", ErrorType::PermissionError),
        ("not_found_error", ErrorType::NotFoundError),
        ("request_too_large", ErrorType::RequestTooLarge),
        ("rate_limit_error", ErrorType::RateLimitError),
        ("api_error", ErrorType::ApiError),
        ("timeout_error", ErrorType::TimeoutError),
        ("overloaded_error", ErrorType::OverloadedError),
        ("conflict_error", ErrorType::Unknown),
        ("melted_error", ErrorType::Unknown),
    ] {
        assert_eq!(error(name, "").error.kind, kind, "{name}");
    }
    for text in ["", "<html>529</html>"] {
        assert!(serde_json::from_str::<ErrorBody>(text).is_err(), "{text}");
    }
}

fn error(kind: &str, message: &str) -> ErrorBody {
    serde_json::from_value(json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}))
        .unwrap()
}

/// Errors, "HTTP errors", with the messages that share a type with others.
#[test]
fn every_documented_failure_is_told_apart() {
    use ModelError as F;
    let invalid = "invalid_request_error";
    let table = [
        (400, invalid, "messages: at least one message is required", F::Rejected),
        (400, invalid, "`temperature` may only be set to 1", F::Rejected),
        (400, invalid, "prompt is too long: 210000 tokens > 200000 maximum", F::TooLong),
        (400, invalid, "input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000", F::TooLong),
        (400, invalid, "Your credit balance is too low to access the Anthropic API.", F::Billing),
        (
            400,
            invalid,
            "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
            F::Billing,
        ),
        (400, invalid, "This workspace has reached its spend limit.", F::Billing),
        (401, "authentication_error", "invalid x-api-key", F::KeyInvalid),
        (402, "billing_error", "There is an issue with your billing or payment information.", F::Billing),
        (403, "permission_error", "Your API key does not have permission.", F::Permission),
        (404, "not_found_error", "model: claude-3-opus-20240229", F::ModelRetired),
        (413, "request_too_large", "Request exceeds the maximum size", F::TooLong),
        (500, "api_error", "Internal server error", F::Upstream),
        (504, "timeout_error", "Request timed out", F::TimedOut),
        (529, "overloaded_error", "Overloaded", F::Overloaded),
        // A type we do not know: the status decides.
        (409, "conflict_error", "", F::Upstream),
        (418, "melted_error", "", F::Upstream),
        (400, "melted_error", "", F::Rejected),
        (402, "melted_error", "", F::Billing),
        (529, "api_error", "", F::Overloaded),
    ];
    for (status, kind, message, fault) in table {
        assert_eq!(model_error_of(status, Some(&error(kind, message)), None), fault, "{status} {kind} {message}");
    }
}

/// Errors, 429: without `retry-after` it is a spend cap, and waiting does not help soon.
#[test]
fn a_429_keeps_its_retry_after_and_has_none_where_none_was_said() {
    let body = error("rate_limit_error", "This request would exceed your organization's rate limit.");
    for (body, retry_after) in [(Some(&body), Some(7)), (Some(&body), None), (None, Some(7)), (None, None)] {
        assert_eq!(model_error_of(429, body, retry_after), ModelError::RateLimited { retry_after });
    }
}

#[test]
fn a_body_that_cannot_be_read_leaves_the_decision_to_the_status() {
    use ModelError as F;
    for (status, fault) in [
        (400, F::Rejected),
        (401, F::KeyInvalid),
        (402, F::Billing),
        (403, F::Permission),
        (404, F::ModelRetired),
        (408, F::TimedOut),
        (413, F::TooLong),
        (500, F::Upstream),
        (502, F::Upstream),
        (503, F::Overloaded),
        (504, F::TimedOut),
        (520, F::Upstream),
        (529, F::Overloaded),
        (302, F::Upstream),
    ] {
        assert_eq!(model_error_of(status, None, None), fault, "{status}");
    }
}

/// A key is refused for what Anthropic says of the key. Whatever else failed says nothing about it.
#[test]
fn a_key_is_refused_only_where_anthropic_refuses_the_key() {
    use ModelError as F;
    for error in [F::KeyInvalid, F::Permission] {
        assert_eq!(key_refusal_of(error), Refusal::ApiKeyRejected);
    }
    for error in [F::Billing, F::Overloaded, F::TimedOut, F::Unreachable, F::RateLimited { retry_after: Some(1) }] {
        assert_eq!(key_refusal_of(error), Refusal::Claude(error));
    }
}

/// Errors, "Request id"
#[test]
fn only_a_request_id_of_anthropics_form_is_logged() {
    let id = "req_018EeWyXxfu5pfWkrYcMdjWG";
    assert_eq!(loggable_request_id(id), id);
    let long = format!("req_{}", "a".repeat(61));
    for text in ["", "req-1", "018EeWyXxfu5pfWkrYcMdjWG", "req_a b", "req_a\nb", "req_é", "sk-ant-api03", &long] {
        assert_eq!(loggable_request_id(text), "unnamed", "{text}");
    }
}

fn steps(stream: &str) -> Vec<Step> {
    let mut reading = AnswerReader::default();
    let mut steps = push(&mut reading, stream.as_bytes());
    steps.extend(end_of_stream(&mut reading));
    steps
}

#[test]
fn the_examples_are_whole_answers() {
    for (stream, text) in [(BASIC, "Hello!"), (THINKING, "27 * 453 = 12,231")] {
        assert_eq!(steps(stream), [Step::Began, Step::Text(text.to_owned()), Step::Whole]);
    }
}

fn stream(events: &[Value]) -> String {
    events.iter().map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())).collect()
}

fn answer(text: &[&str], stop_reason: Value) -> String {
    let delta = |text: &&str| json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}});
    let mut events = vec![json!({"type": "message_start", "message": {}})];
    events.push(json!({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}));
    events.extend(text.iter().map(delta));
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 1}}));
    events.push(json!({"type": "message_stop"}));
    stream(&events)
}

/// Handling stop reasons: `tool_use` and `pause_turn` ask for another request.
#[test]
fn an_answer_that_claude_has_not_finished_is_not_whole() {
    let text = || Step::Text("Okay".to_owned());
    assert_eq!(steps(TOOL_USE), [Step::Began, text(), Step::Broke(ModelError::CutOff)]);
    for reason in ["tool_use", "pause_turn"] {
        let cut_off = [Step::Began, text(), Step::Broke(ModelError::CutOff)];
        assert_eq!(steps(&answer(&["Okay"], json!(reason))), cut_off, "{reason}");
    }
    for reason in ["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded", "bored"] {
        assert_eq!(steps(&answer(&["Okay"], json!(reason))), [Step::Began, text(), Step::Whole], "{reason}");
    }
}

#[test]
fn an_answer_without_anything_to_see_is_empty() {
    for text in [&[][..], &[""], &[" "], &["\n", "\n"], &["\u{200b}"], &["\u{feff}\u{a0}\t"]] {
        for reason in ["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded"] {
            let empty = [Step::Began, Step::Broke(ModelError::Empty)];
            assert_eq!(steps(&answer(text, json!(reason))), empty, "{text:?} {reason}");
        }
    }
    let declined = [Step::Began, Step::Broke(ModelError::Declined)];
    assert_eq!(steps(&answer(&[], json!("refusal"))), declined, "that Claude declines says more");
}

#[test]
fn white_space_before_the_text_is_kept_for_it() {
    let mut reading = AnswerReader::default();
    let head = answer(&["\n", " "], json!("end_turn"));
    let head = head.split("event: message_delta").next().unwrap();
    assert_eq!(push(&mut reading, head.as_bytes()), [Step::Began, Step::TextBegins]);
    let rest = answer(&["Hi", " ", "\n"], json!("end_turn"));
    let rest = &rest[rest.find("event: content_block_delta").unwrap()..];
    assert_eq!(push(&mut reading, rest.as_bytes()), [Step::Text("\n Hi \n".to_owned()), Step::Whole]);
}

/// Proxies and compatible endpoints write all of these in the middle of whole answers.
#[test]
fn odd_events_and_side_figures_change_nothing_of_a_whole_answer() {
    let whole = answer(&["Hel", "lo"], json!("end_turn"));
    let expected = steps(&whole);
    assert_eq!(expected, [Step::Began, Step::Text("Hello".to_owned()), Step::Whole]);
    for odd in [
        "event: ping\ndata:\n\n",
        "event: ping\ndata: {}\n\n",
        "event: ping\ndata: null\n\n",
        "event: ping\ndata: {\n\n",
        "data:\n\n",
        "data: keep-alive\n\n",
        "data: [DONE]\n\n",
        "data: []\n\n",
        "data: null\n\n",
        "data: 17\n\n",
        "data: {}\n\n",
        "data: {\"no\": \"type\"}\n\n",
        "data: {\"type\": null}\n\n",
        "data: {\"type\": 3}\n\n",
        "event: keepalive\ndata: []\n\n",
        "event: heartbeat\ndata: 12:00:01 alive\n\n",
        "event: heartbeat\ndata: {alive}\n\n",
        "event: tomorrow\ndata: {\"type\":\"tomorrow\",\"delta\":null}\n\n",
        "event: content_block_stop\ndata: null\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":null}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":null}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\"}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":null,\"usage\":null}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":[],\"usage\":[]}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":7},\"usage\":\"none\"}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1e999}}\n\n",
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":null}\n\n",
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":null}}\n\n",
        "event: message_start\ndata: {\"type\":\"message_start\"}\n\n",
    ] {
        for (at, _) in whole.match_indices("event: ") {
            let stream = format!("{}{odd}{}", &whole[..at], &whole[at..]);
            assert_eq!(steps(&stream), expected, "{odd:?} at {at}");
        }
    }
}

/// Text that was lost, or an end that was not there, is not passed over.
#[test]
fn what_may_have_held_text_is_never_passed_over() {
    let whole = answer(&["Hel", "lo"], json!("end_turn"));
    let at = whole.find("event: message_delta").unwrap();
    for damaged in [
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_del\n\n",
        "event: content_block_delta\ndata:\n\n",
        "event: content_block_delta\ndata: \"text\"\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"lost\n\n",
        "data: {\"type\":null,\"delta\":{\"type\":\"text_delta\",\"text\":\"lost\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":null}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":[\"lost\"]}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"lost\"}}\n\n",
        "event: message_stop\ndata:\n\n",
    ] {
        let stream = format!("{}{damaged}{}", &whole[..at], &whole[at..]);
        let broken = [Step::Began, Step::Text("Hello".to_owned()), Step::Broke(ModelError::Broken)];
        assert_eq!(steps(&stream), broken, "{damaged:?}");
    }
    for error in ["", "{}", "null", "overloaded", r#"{"type":"error"}"#, r#"{"type":"error","error":null}"#] {
        let stream = format!("{}event: error\ndata: {error}\n\n{}", &whole[..at], &whole[at..]);
        let broken = [Step::Began, Step::Text("Hello".to_owned()), Step::Broke(ModelError::Broken)];
        assert_eq!(steps(&stream), broken, "{error:?}");
    }
}

#[test]
fn the_first_text_of_a_block_is_text() {
    let start = |block: Value| event(json!({"type": "content_block_start", "content_block": block}));
    assert_eq!(start(json!({"type": "text", "text": "Hel"})), text("Hel"));
    for odd in [json!({"type": "text"}), json!({"type": "text", "text": null}), json!({"type": "text", "text": 1})] {
        assert_eq!(start(odd.clone()), TEXT_BLOCK, "{odd}");
    }
}

/// An event is read by its name where its data names no type.
#[test]
fn the_name_of_an_event_counts_where_its_data_has_no_type() {
    assert_eq!(read_named("message_stop", "{}"), Ok(StreamEvent::Stop));
    let stop = Ok(StreamEvent::Delta(Some(StopReason::EndTurn), usage(json!({"output_tokens": 2}))));
    let delta = r#"{"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}"#;
    assert_eq!(read_named("message_delta", delta), stop);
    assert_eq!(read_named("ping", "{}"), OTHER);
    assert_eq!(read_named("error", "<html>"), Ok(StreamEvent::Error(ErrorType::Unknown)));
}

#[test]
fn a_count_that_is_none_leaves_the_count_as_it_was() {
    let mut usage = Usage::default();
    usage.update(self::usage(json!({"input_tokens": 7, "output_tokens": 5})));
    for odd in [json!(null), json!(-1), json!("12"), json!(true), json!([3]), json!({"a": 1})] {
        usage.update(self::usage(json!({"input_tokens": odd, "output_tokens": odd})));
        assert_eq!((usage.input_tokens, usage.output_tokens), (7, 5), "{odd}");
    }
    usage.update(self::usage(json!({"output_tokens": 40.5, "cache_read_input_tokens": null})));
    assert_eq!(usage.output_tokens, 40);
    usage.update(self::usage(json!({"output_tokens": 1e30})));
    assert_eq!(usage.output_tokens, u64::MAX);
}

#[test]
fn an_error_body_of_another_form_leaves_the_decision_to_the_status() {
    for body in [
        json!({"error": null}),
        json!({"error": "overloaded"}),
        json!({"error": {"type": 7, "message": null}}),
        json!({"type": "error"}),
        json!({}),
    ] {
        let read: ErrorBody = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(model_error_of(529, Some(&read), None), ModelError::Overloaded, "{body}");
    }
    let read: ErrorBody =
        serde_json::from_value(json!({"error": {"type": "overloaded_error", "message": []}})).unwrap();
    assert_eq!(model_error_of(500, Some(&read), None), ModelError::Overloaded);
}

/// Streaming, "Error events": the same event before and after `message_start`.
#[test]
fn an_error_event_is_an_http_error_before_the_beginning_and_a_break_after_it() {
    assert_eq!(steps(ERROR_EVENT), [Step::Broke(ModelError::Overloaded)]);
    let start = BASIC.split_inclusive("\n\n").next().unwrap();
    assert_eq!(steps(&format!("{start}{ERROR_EVENT}")), [Step::Began, Step::Broke(ModelError::Broken)]);
}
