//! Every parser that reads what a stranger sends: nothing breaks it, and nothing makes it take much memory.
//! `dev/fuzz.sh` asks the same of them for hours.

#[allow(clippy::module_inception)] // shared with the fuzz targets under this name
#[path = "../support/parsers.rs"]
mod properties;

use crate::answer::{push, push_events};
use coinslot::testing::rules::config::{Config, Limits};
use coinslot::testing::rules::model_answer::AnswerReader;
use coinslot::testing::rules::payment::matching::{identify, match_payment, read_payment};
use coinslot::testing::rules::template::input::Body;
use coinslot::testing::rules::template::render;
use coinslot::testing::wire::base64::{encode, encode_url};
use coinslot::testing::wire::sse::{Parser, MAX_EVENT};
use coinslot::testing::wire::x402::MAX_HEADER;
use coinslot::testing::wire::{accept, jwt};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The count is of the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most bytes that are allocated at once while `work` runs, beyond those before it.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    drop(work());
    MEMORY.peak_usage().saturating_sub(before)
}

/// JSON of about this size that is more work to read than it looks.
fn documents(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let many = |piece: &str| format!("[{}0]", piece.repeat(size / piece.len())).into_bytes();
    let around = |open: &str, close: &str| {
        let depth = size / (open.len() + close.len());
        format!("{}0{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    let tree = format!("{}0{},", "{\"\":".repeat(120), "}".repeat(120));
    let keys: String = (0..size / 9).map(|n| format!("\"{n:04x}\":0,")).collect();
    vec![
        ("arrays in arrays", around("[", "]")),
        ("objects in objects", around("{\"\":", "}")),
        ("brackets that are never closed", vec![b'['; size]),
        ("an array of numbers", many("0,")),
        ("an array of arrays", many("[0],")),
        ("an array of objects", many("{\"\":0},")),
        ("an array of deep objects", many(&tree)),
        ("an array of texts", many("\"a\",")),
        ("an object of many members", format!("{{{keys}\"a\":0}}").into_bytes()),
        ("a number of many digits", vec![b'9'; size]),
        ("a number out of range", format!("1e{}", "9".repeat(size)).into_bytes()),
        ("a fraction of many digits", format!("0.{}", "1".repeat(size)).into_bytes()),
        ("a long text", format!("\"{}\"", "a".repeat(size)).into_bytes()),
        ("a text of escapes", format!("\"{}\"", "\\u0000".repeat(size / 6)).into_bytes()),
        ("a text that does not end", format!("\"{}", "\\\"".repeat(size / 2)).into_bytes()),
        ("white space", vec![b' '; size]),
        ("bytes that are not text", vec![0xff; size]),
    ]
}

/// Fails where reading `length` bytes takes more than 64 KiB and `times` as much as they are.
fn assert_modest<T>(what: &str, length: usize, times: usize, work: impl FnOnce() -> T) {
    let taken = peak(work);
    assert!(taken <= 64 * 1024 + times * length, "{what}: {length} bytes took {taken}");
}

/// A tree of JSON takes far more room than its text: an object of one member is a node for eleven.
const TREE: usize = 128;

#[test]
fn a_body_takes_no_more_memory_than_its_first_level() {
    let _alone = alone();
    for (what, json) in documents(Limits::default().body_bytes) {
        assert_modest(what, json.len(), 24, || Body::read(&json));
    }
}

#[test]
fn a_payment_header_takes_little_memory_whatever_it_holds() {
    let _alone = alone();
    let quote = &*properties::QUOTE;
    let payments = [properties::payment(2, 0).to_string(), properties::payment(1, 1).to_string()];
    let mut matched = 0;
    for (what, json) in documents(MAX_HEADER * 3 / 4 - 1000) {
        let junk = String::from_utf8_lossy(&json).into_owned();
        let beside = payments.iter().map(|p| p.replacen('{', &format!("{{\"extensions\":{junk},"), 1));
        let within = payments.iter().map(|p| p.replacen("\"from\"", &format!("\"junk\":{junk},\"from\""), 1));
        for json in beside.chain(within).chain([junk.clone()]) {
            let header = encode(json.as_bytes());
            // Of three bytes for each four of the header: as they came, as they were read, and as they go on.
            assert_modest(what, header.len(), 5 * TREE * 3 / 4, || {
                let presented = read_payment(Some(&header), None).ok().flatten()?;
                let found = match_payment(&presented, quote, 36, 1_740_672_100);
                matched += usize::from(found.is_ok());
                Some((found.ok().or_else(|| identify(&presented, quote)), presented))
            });
        }
    }
    assert!(matched > 10, "only {matched} headers were read to the end");
    let long = "A".repeat(1 << 20);
    assert_modest("a header over the limit", 0, 0, || read_payment(Some(&long), None));
}

#[test]
fn a_stream_takes_little_memory_whatever_it_holds() {
    let _alone = alone();
    let mut streams: Vec<(&str, Vec<u8>)> = Vec::new();
    for (what, json) in documents(MAX_EVENT - 100) {
        for start in [
            "{\"type\":\"message_start\",\"message\":{\"usage\":{},\"a\":",
            "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\",\"a\":",
        ] {
            streams.push((what, [b"data: ", start.as_bytes(), &json, b"}}\n\n"].concat()));
        }
    }
    for line in ["a", "\n", "data", "data\n", "data\n\n", "event:a\n", "\u{feff}"] {
        streams.push((line, line.repeat((1 << 20) / line.len()).into_bytes()));
    }
    streams.push(("bytes that are not text", [b"data:", &vec![0xff; MAX_EVENT - 10][..], b"\n\n"].concat()));
    for (what, stream) in streams {
        assert_modest(what, stream.len(), 64, || {
            let mut reading = AnswerReader::default();
            let steps: Vec<_> = stream.chunks(32 * 1024).flat_map(|piece| push(&mut reading, piece)).collect();
            (reading, steps)
        });
        assert_modest(what, stream.len(), 64, || {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            let outcome = push_events(&mut parser, &stream, &mut events);
            (parser, events, outcome)
        });
    }
}

#[test]
fn a_stream_that_never_ends_a_line_takes_no_more_than_the_limit() {
    let _alone = alone();
    let piece = vec![b'a'; 32 * 1024];
    let taken = peak(|| {
        let mut reading = AnswerReader::default();
        let steps: usize = (0..1000).map(|_| push(&mut reading, &piece).len()).sum();
        assert!(reading.is_over());
        (reading, steps)
    });
    assert!(taken <= 4 * MAX_EVENT, "32 MB took {taken}");
}

#[test]
fn a_token_and_a_config_document_take_little_memory_whatever_they_hold() {
    let _alone = alone();
    for (what, json) in documents(jwt::MAX_TOKEN / 2) {
        let claims = [b"{\"iss\":\"i\",\"sub\":\"s\",\"exp\":1,\"aud\":\"a\",\"x\":", &json[..], b"}"].concat();
        for header in [&json[..], b"{\"alg\":\"HS256\"}"] {
            for claims in [&json, &claims] {
                let token = format!("{}.{}.AAAA", encode_url(header), encode_url(claims));
                assert_modest(what, token.len(), 64, || jwt::parse(&token));
            }
        }
    }
    let claims = encode_url(b"{\"iss\":\"i\",\"sub\":\"s\",\"exp\":1,\"aud\":\"a\"}");
    let of = |length: usize| format!("{}.{claims}.{}", encode_url(b"{\"alg\":\"HS256\"}"), "A".repeat(length));
    assert!(jwt::parse(&of(4)).is_some() && jwt::parse(&of(jwt::MAX_TOKEN)).is_none());
    for (what, json) in documents(128 * 1024) {
        let text = String::from_utf8_lossy(&json);
        for text in [text.clone().into_owned(), format!("{{\"models\":{text}}}"), format!("{{\"jwt\":{text}}}")] {
            assert_modest(what, text.len(), 64, || {
                Config::read_document(&text).and_then(|document| Config::built_in().with_document(document))
            });
        }
    }
    let accepted = "application/json;q=0.1,".repeat(10_000);
    assert_modest("a long Accept", accepted.len(), 1, || accept::prefers_json(&accepted));
}

#[test]
fn a_prompt_takes_its_own_size_and_what_its_tags_become() {
    let _alone = alone();
    let value = |length: usize| BTreeMap::from([("a".to_owned(), "v".repeat(length))]);
    for (tag, tags) in [("{a}{/a}", 10_000), ("{b}{/b}", 10_000), ("{", 100_000), ("{a}{/", 10_000)] {
        let prompt = tag.repeat(tags);
        for length in [0, 1, 100, 2_000] {
            let values = value(length);
            let filled = if tag == "{a}{/a}" { tags * length } else { prompt.len() };
            // While a text grows its old place and its new one are held, and that may be twice what is needed.
            assert_modest(tag, prompt.len() + filled, 3, || render(&prompt, &values));
        }
    }
}

#[test]
fn json_a_hundred_thousand_levels_deep_is_refused_and_not_followed() {
    let _alone = alone();
    for deep in ["[".repeat(100_000), "{\"topic\":".repeat(100_000), format!("{{\"topic\":{}", "[".repeat(100_000))] {
        assert_eq!(Body::read(deep.as_bytes()), Body::Malformed);
        assert!(Config::read_document(&deep).is_err());
        assert!(jwt::parse(&format!("{0}.{0}.", encode_url(&deep.as_bytes()[..3000]))).is_none());
        assert!(read_payment(Some(&encode(&deep.as_bytes()[..12_000])), None).is_err());
    }
}

#[test]
fn a_stream_around_the_limit_is_read_the_same_in_any_pieces() {
    let _alone = alone();
    for length in [MAX_EVENT - 1, MAX_EVENT, MAX_EVENT + 1, MAX_EVENT + 62] {
        let line = [&vec![b'a'; length][..], b"\n\ndata: x\n\n"].concat();
        properties::sse_in_pieces(&line, &[length, length + 1]);
        let data = [b"data: ", &vec![b'a'; length / 2][..], b"\ndata: ", &vec![b'a'; length / 2], b"\n\n"].concat();
        properties::sse_in_pieces(&data, &[1, length]);
    }
}

#[test]
fn a_payment_for_our_own_terms_is_taken_and_one_that_is_not_is_noticed() {
    let _alone = alone();
    properties::accepted_echo(&[]);
    properties::accepted_echo(&[3]);
}

macro_rules! holds_for_any_bytes {
    ($($name:ident: $property:ident, $most:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]
            $(
                #[test]
                fn $name(case in prop::collection::vec(any::<u8>(), 0..$most)) {
                    let _alone = alone();
                    properties::$property(&case);
                }
            )*
        }
    };
}

holds_for_any_bytes! {
    any_payment_header_is_read_or_refused: payment_header, 200;
    no_change_to_a_payment_gets_past_our_terms: accepted_echo, 120;
    any_stream_is_read_the_same_in_any_pieces: sse, 400;
    any_prompt_is_filled_in_one_pass: template, 300;
    any_body_is_an_input_within_the_limits_or_refused: json_body, 120;
    any_config_document_is_valid_or_refused: config_document, 120;
    any_token_is_taken_apart_or_refused: jwt, 120;
    any_accept_header_is_understood: accept, 60;
    any_contract_has_one_hash_or_is_refused: contract, 120;
    any_answer_is_deliverables_or_is_none: deliverable, 120;
}
