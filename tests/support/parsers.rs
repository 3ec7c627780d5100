//! What must hold of every parser that reads what a stranger sends, whatever the bytes. There is one function
//! for each: `tests/wire/parsers.rs` calls it a few thousand times, `tests/fuzz` for as long as there is time.
//!
//! The bytes of a case make its decisions, and those run out into zeros: every case is a valid one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code)] // a fuzz target calls one of them

#[path = "answer.rs"]
#[allow(clippy::duplicate_mod)] // tests/wire has it, too
mod answer;

use answer::{end_of_stream, push, push_events, Event, Step};
use coinslot::testing::json_schema::Schema;
use coinslot::testing::rules::config::{Config, Issuer, Limits};
use coinslot::testing::rules::hire::contract;
use coinslot::testing::rules::hire::deliverables::deliverables;
use coinslot::testing::rules::hire::output::{is_file_name, is_media_type, FileSpec, OutputType};
use coinslot::testing::rules::model_answer::AnswerReader;
use coinslot::testing::rules::owner::{candidates, claims_hold, takes_secret};
use coinslot::testing::rules::payment::matching::{identify, match_payment, read_payment};
use coinslot::testing::rules::payment::quote::{quote, Quote};
use coinslot::testing::rules::payment::Payment;
use coinslot::testing::rules::refusal::{Detail, Refusal};
use coinslot::testing::rules::run::Release;
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::input::{validate, Body};
use coinslot::testing::rules::template::{is_parameter_name, render, Parameter, Template, USER_MESSAGE};
use coinslot::testing::wire::canonical::{canonical, digest, sha256_hex};
use coinslot::testing::wire::evm::Authorization;
use coinslot::testing::wire::sse::{Parser, TooLong};
use coinslot::testing::wire::x402::{decode_header, encode_header, MAX_HEADER};
use coinslot::testing::wire::{accept, base64, hire, jwt, strict};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const URL: &str = "https://coinslot.example/@alice/haiku";
const WALLET: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
const PAYER: &str = "0x857b06519E91e3A54538791bDbb0E22373e36b66";
const BASE: &str = "eip155:8453";
const SEPOLIA: &str = "eip155:84532";
const NOW: u64 = 1_740_672_100;
/// For how many seconds a payment has to be valid still.
const WINDOW: u64 = 36;
const ANSWER: &str = include_str!("../golden/anthropic_basic.sse");
const CONFIG: &str = r#"{"revision":"r1","paused":false,"facilitators":[{"url":"https://x402.example/f"}],"networks":
    [{"id":"eip155:8453","v1":"base","asset":"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913","decimals":6,
    "eip712":{"name":"USD Coin","version":"2"}}],"models":[{"id":"claude-haiku-5-5","maxOutput":64000,"retiredOn":
    "2027-01-31"}],"anthropic":{"baseUrl":"https://api.example"},"limits":{"maxTimeoutSeconds":300,"bodyBytes":9,
    "verifySeconds":10,"settleSeconds":60,"paidAttempts":3},
    "jwt":{"issuers":[{"issuer":"https://id.example","audience":"coinslot","jwksUrl":"https://id.example/j"}]}}"#;

/// A case's bytes, spent on one decision after another.
struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn place(&mut self, length: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % (length + 1)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// `text` after a few changes of the kind that a hand or a faulty client makes.
    fn edited(&mut self, text: &str) -> Vec<u8> {
        #[rustfmt::skip]
        let words = [
            "", "\"", "{", "}", "[", "]", ",", ":", "\\", "\n", "\r", "\n\n", "data:", "0", "-1", "1e999", "null",
            "é", "\u{feff}", ".", "true", "18446744073709551616", "\"value\":\"1\",", "\"to\":\"\",",
        ];
        let mut out = text.as_bytes().to_vec();
        for _ in 0..self.below(5) {
            let (from, to) = (self.place(out.len()), self.place(out.len()));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(5) {
                0 => drop(out.splice(from..from, self.pick(&words).bytes())),
                1 => drop(out.splice(from..to, self.pick(&words).bytes())),
                2 => drop(out.splice(from..from, self.bytes().to_vec())),
                3 => drop(out.splice(to..to, out[from..to].to_vec())),
                _ => out.truncate(to),
            }
        }
        out
    }
}

fn template_of(parameters: Vec<Parameter>, allow_user_message: bool, networks: &[&str]) -> Template {
    Template {
        id: "t1".to_owned(),
        creator_id: "c1".to_owned(),
        agent_wallet: None,
        wallets: networks.iter().map(|network| ((*network).to_owned(), WALLET.to_owned())).collect(),
        name: "Haiku".to_owned(),
        description: "A haiku on anything".to_owned(),
        model: "claude-haiku-5-5".to_owned(),
        prompt: Secret::new("THE SECRET PROMPT".to_owned()),
        parameters,
        allow_user_message,
        max_tokens: 100,
        price: "0.01".parse().unwrap(),
        published: true,
        release: Release::Settled,
        runs: 0,
        usual_ms: None,
    }
}

/// What one run costs, on both networks.
pub static QUOTE: LazyLock<Quote> = LazyLock::new(|| {
    let template = template_of(vec![], true, &[BASE, SEPOLIA]);
    quote(&template, &Config::built_in(), URL).unwrap()
});

/// A payment for our own terms, in version 2 or 1.
pub fn payment(version: u8, offer: usize) -> Value {
    let offer = &QUOTE.offers()[offer];
    let payload = json!({
        "signature": format!("0x{}", "1b".repeat(65)),
        "authorization": {
            "from": PAYER, "to": WALLET, "value": "10000", "validAfter": "0", "validBefore": "1740672400",
            "nonce": format!("0x{}", "ab".repeat(32)),
        },
    });
    match version {
        1 => json!({"x402Version": 1, "scheme": "exact", "network": offer.v1.network, "payload": payload}),
        _ => json!({"x402Version": 2, "resource": {"url": URL}, "accepted": offer.v2, "payload": payload}),
    }
}

/// What becomes of a header, from reading it to the match; and everything that must hold on the way.
fn present(v2: Option<&str>, v1: Option<&str>) -> Option<Payment> {
    let presented = match read_payment(v2, v1) {
        Ok(Some(presented)) => presented,
        Ok(None) => {
            assert_eq!((v2, v1), (None, None));
            return None;
        }
        Err(Refusal::PaymentMalformed { what }) => {
            assert!(what.len() < 100, "what is wrong is told in our own words: {what}");
            return None;
        }
        Err(Refusal::PaymentMismatch { field }) => {
            assert_eq!(field, "scheme");
            return None;
        }
        Err(other) => panic!("{other:?}"),
    };
    let sent: Value = decode_header(v2.or(v1).unwrap()).unwrap();
    let named = identify(&presented, &QUOTE);
    match match_payment(&presented, &QUOTE, WINDOW, NOW) {
        Ok(payment) => {
            assert_eq!(named.as_ref(), Some(&payment), "what matches is also named");
            assert_on_our_terms(&payment, &sent);
            Some(payment)
        }
        Err(Refusal::PaymentMismatch { .. } | Refusal::PaymentNotYetValid | Refusal::PaymentExpired) => None,
        Err(other) => panic!("{other:?}"),
    }
}

/// Looks at the JSON that was sent with other eyes than `rules::quote` does.
fn assert_on_our_terms(payment: &Payment, sent: &Value) {
    let offer = QUOTE.offers().iter().find(|o| o.v2.network == payment.network).unwrap();
    let same = |a: &Value, b: &str| a.as_str().is_some_and(|a| a.eq_ignore_ascii_case(b));
    let signed = &sent["payload"]["authorization"];
    assert!(same(&signed["to"], WALLET), "recipient");
    assert!(same(&signed["from"], &payment.payer.to_string()), "payer");
    assert_eq!(signed["value"], "10000", "value");
    assert_eq!((payment.amount, payment.asset.to_string()), (offer.v2.amount, offer.v2.asset.clone()));
    let seconds = |name: &str| match &signed[name] {
        Value::String(text) => text.parse::<u128>().unwrap_or(u128::MAX),
        other => u128::from(other.as_u64().unwrap()),
    };
    assert!(seconds("validAfter") <= u128::from(NOW), "already valid");
    assert!(seconds("validBefore") > u128::from(NOW + WINDOW), "valid for long enough");
    assert!(seconds("validBefore") <= u128::from(NOW + 300 + 60), "and not for much longer");
    let accepted = &sent["accepted"];
    let terms = match sent["x402Version"].as_u64() {
        Some(2) => {
            assert_eq!(accepted["scheme"], "exact", "scheme");
            assert_eq!(accepted["network"], offer.v2.network, "network");
            assert_eq!(accepted["amount"], "10000", "amount");
            assert!(same(&accepted["asset"], &offer.v2.asset), "asset");
            assert!(same(&accepted["payTo"], WALLET), "payTo");
            assert_eq!(accepted["maxTimeoutSeconds"], 300, "window");
            for (key, value) in offer.v2.extra.iter().flatten() {
                assert_eq!(&accepted["extra"][key], value, "extra");
            }
            serde_json::to_value(&offer.v2)
        }
        Some(1) => {
            assert_eq!(sent["scheme"], "exact", "scheme");
            assert!(sent["network"] == offer.v1.network || sent["network"] == offer.v2.network, "network");
            assert_eq!(payment.payload["network"], offer.v1.network);
            serde_json::to_value(&offer.v1)
        }
        other => panic!("version {other:?}"),
    };
    assert_eq!(payment.requirements, terms.unwrap(), "our terms go on, not their echo");
    let signed = Authorization::read(sent["payload"].as_object().unwrap()).unwrap();
    assert_eq!(payment.payload["payload"], signed.to_payload(), "what is signed goes on");
    let members: Vec<&str> = payment.payload.as_object().unwrap().keys().map(String::as_str).collect();
    match payment.x402_version {
        1 => assert_eq!(members, ["network", "payload", "scheme", "x402Version"], "nothing rides along"),
        _ => {
            assert_eq!(members, ["accepted", "payload", "resource", "x402Version"], "nothing rides along");
            assert_eq!(payment.payload["accepted"], payment.requirements);
        }
    }
}

/// Any text as either header.
pub fn payment_header(case: &[u8]) {
    let mut jitter = Dice(case);
    let header = match jitter.byte() & 3 {
        0 => base64::encode(jitter.rest()),
        1 => String::from_utf8_lossy(jitter.rest()).into_owned(),
        2 => base64::encode(&jitter.edited(&payment(2, 0).to_string())),
        _ => base64::encode(&jitter.edited(&payment(1, 1).to_string())),
    };
    let found = present(Some(&header), None);
    assert_eq!(present(None, Some(&header)), found, "the version is told by the content, not by the header");
    assert_eq!(present(Some(&header), Some("elsewhere")), found, "the v2 header goes first");
    if let Some(payment) = found {
        assert!(header.len() <= MAX_HEADER);
        let again = encode_header(&payment.payload);
        if again.len() <= MAX_HEADER {
            let named = present(Some(&again), None).map(|p| p.name);
            assert_eq!(named, Some(payment.name), "the facilitator is asked about the same payment");
        }
    }
}

/// A payment for our own terms, changed: accepted only where the changes do not matter.
pub fn accepted_echo(case: &[u8]) {
    let mut jitter = Dice(case);
    let (version, offer) = (jitter.pick(&[2, 2, 2, 1]), jitter.below(2));
    let mut sent = payment(version, offer);
    let changes = jitter.below(4);
    for _ in 0..changes {
        change(&mut sent, &mut jitter);
    }
    let mut text = sent.to_string();
    let twice = jitter.below(3);
    for _ in 0..twice {
        state_twice(&mut text, &mut jitter);
    }
    let accepted = present(Some(&base64::encode(text.as_bytes())), None);
    assert!(accepted.is_some() || changes + twice > 0, "a payment for our own terms is taken");
}

#[rustfmt::skip]
const MEMBERS: [&str; 20] = [
    "/x402Version", "/scheme", "/network", "/resource", "/accepted", "/accepted/scheme", "/accepted/network",
    "/accepted/amount", "/accepted/asset", "/accepted/payTo", "/accepted/maxTimeoutSeconds", "/accepted/extra",
    "/accepted/extra/name", "/payload", "/payload/signature", "/payload/authorization", "/payload/authorization/to",
    "/payload/authorization/value", "/payload/authorization/validBefore", "/payload/authorization/nonce",
];

fn value(jitter: &mut Dice) -> Value {
    #[rustfmt::skip]
    let texts = [
        "", "exact", "upto", "permit", BASE, SEPOLIA, "base", "base-sepolia", "10000", "9999", "10001", "010000",
        "+10000", "1e4", "0x2710", "10000 ", WALLET, PAYER, "0x209693bc6afc0c5328ba36faf03c514ef312287c",
        "0X209693BC6AFC0C5328BA36FAF03C514EF312287C", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
        "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "18446744073709551616", "1740672136", "1740672137", "USDC", "2",
        "115792089237316195423570985008687907853269984665640564039457584007913129639935",
    ];
    match jitter.below(8) {
        0 => json!([]),
        1 => jitter.pick(&[json!(null), json!(true), json!({}), json!([{"to": WALLET}])]),
        2 => {
            jitter.pick(&[json!(0), json!(1), json!(2), json!(300), json!(10_000), json!(-1), json!(1e30), json!(2.0)])
        }
        3 => jitter.text().into(),
        4 => json!(u64::MAX - u64::from(jitter.byte())),
        _ => jitter.pick(&texts).into(),
    }
}

/// What a payment could say instead, and almost does.
const NEAR: [(&str, &[&str]); 9] = [
    ("/payload/authorization/to", &[PAYER, "0x209693bc6afc0c5328ba36faf03c514ef312287c", "0x"]),
    ("/payload/authorization/value", &["9999", "10001", "010000", "0", "10000.0"]),
    (
        "/payload/authorization/validBefore",
        &["1740672136", "1740672137", "1740672460", "1740672461", "18446744073709551616"],
    ),
    ("/payload/authorization/validAfter", &["1740672100", "1740672101", "18446744073709551616"]),
    ("/accepted/amount", &["9999", "10001", "010000"]),
    ("/accepted/network", &[BASE, SEPOLIA, "base"]),
    ("/network", &[BASE, SEPOLIA, "base", "base-sepolia", "BASE"]),
    ("/accepted/payTo", &[PAYER, "0X209693BC6AFC0C5328BA36FAF03C514EF312287C"]),
    ("/accepted/scheme", &["upto", "Exact"]),
];

fn change(sent: &mut Value, jitter: &mut Dice) {
    if jitter.byte() & 1 == 1 {
        let (place, texts) = jitter.pick(&NEAR);
        let text = jitter.pick(texts);
        sent.pointer_mut(place).into_iter().for_each(|member| *member = text.into());
        return;
    }
    let value = value(jitter);
    let from = sent.pointer(jitter.pick(&MEMBERS)).cloned();
    let place = jitter.pick(&MEMBERS);
    let how = jitter.below(8);
    let (parent, name) = place.rsplit_once('/').unwrap();
    match (how, sent.pointer_mut(place)) {
        (0, Some(Value::String(text))) => *text = text.to_ascii_lowercase(),
        (1, Some(Value::String(text))) => *text = text.to_ascii_uppercase(),
        (2, Some(Value::String(text))) => text.push_str(value.as_str().unwrap_or("0")),
        (3, Some(Value::String(text))) => text.insert_str(0, value.as_str().unwrap_or("0")),
        (4, Some(member)) => *member = json!([member.take()]),
        (5, Some(member)) => *member = from.unwrap_or_default(),
        (6, Some(_)) => drop(sent.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(name)),
        (_, Some(member)) => *member = value,
        (_, None) => {
            let names = [name, "permit2Authorization", "to", "value", "extensions"];
            if let Some(map) = sent.pointer_mut(parent).and_then(Value::as_object_mut) {
                map.insert(jitter.pick(&names).to_owned(), value);
            }
        }
    }
}

/// Gives an object a member that it may have already, before or after the one that it has.
fn state_twice(text: &mut String, jitter: &mut Dice) {
    let names = ["to", "value", "authorization", "accepted", "network", "payTo", "x402Version", "scheme", "asset"];
    let member = format!("\"{}\":{}", jitter.pick(&names), value(jitter));
    let braces: Vec<usize> = text.match_indices(['{', '}']).map(|(at, _)| at).collect();
    if let Some(&at) = braces.get(jitter.below(braces.len().max(1))) {
        match text.as_bytes()[at] {
            b'{' if text.as_bytes()[at + 1] == b'}' => text.insert_str(at + 1, &member),
            b'{' => text.insert_str(at + 1, &format!("{member},")),
            _ if text.as_bytes()[at - 1] == b'{' => text.insert_str(at, &member),
            _ => text.insert_str(at, &format!(",{member}")),
        }
    }
}

/// Any bytes as a stream, in any pieces.
pub fn sse(case: &[u8]) {
    let mut jitter = Dice(case);
    let cuts: Vec<usize> = (0..jitter.below(8)).map(|_| jitter.place(usize::from(u16::MAX))).collect();
    let stream = match jitter.byte() & 3 {
        0 => jitter.rest().to_vec(),
        1 => jitter.edited(ANSWER),
        _ => stream_of(&mut jitter),
    };
    sse_in_pieces(&stream, &cuts);
}

/// A stream gives the same events and the same answer whole, in these pieces, and in very small ones.
pub fn sse_in_pieces(stream: &[u8], cuts: &[usize]) {
    let mut cuts: Vec<usize> = cuts.iter().map(|at| at % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([stream.len()]);
    let pieces: Vec<&[u8]> = ends.scan(0, |from, end| Some(&stream[std::mem::replace(from, end)..end])).collect();
    let small: Vec<&[u8]> = stream.chunks(if stream.len() > 4096 { 61 } else { 1 }).collect();
    let (events, answer) = (events_of(&[stream]), answer_of(&[stream]));
    for pieces in [pieces, small] {
        assert_eq!(events_of(&pieces), events);
        assert_eq!(answer_of(&pieces), answer);
    }
    // What is not UTF-8 is three bytes for each of its own.
    let held: usize = events.0.iter().map(|e| e.data.len() + e.name.len()).sum();
    assert!(held <= 3 * stream.len() + "message".len() * events.0.len(), "{held} bytes of events");
}

fn events_of(pieces: &[&[u8]]) -> (Vec<Event>, Result<(), TooLong>) {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    let outcome = pieces.iter().try_for_each(|piece| push_events(&mut parser, piece, &mut events));
    (events, outcome)
}

fn answer_of(pieces: &[&[u8]]) -> (Vec<Step>, String) {
    let mut reading = AnswerReader::default();
    let (mut steps, mut text_begun) = (Vec::<Step>::new(), false);
    for piece in pieces {
        let was_over = reading.is_over();
        let more = push(&mut reading, piece);
        assert!(!was_over || more.is_empty(), "nothing comes after the end");
        for step in more {
            if step == Step::TextBegins {
                // Told only where the read ends there, so it depends on the pieces.
                assert!(!std::mem::replace(&mut text_begun, true) && steps == [Step::Began], "before the first text");
                continue;
            }
            match (steps.last_mut(), step) {
                (Some(Step::Text(so_far)), Step::Text(more)) => so_far.push_str(&more),
                (_, step) => steps.push(step),
            }
        }
    }
    steps.extend(end_of_stream(&mut reading));
    let (last, before) = steps.split_last().unwrap();
    assert!(matches!(last, Step::Whole | Step::Broke(_)), "an answer ends");
    assert!(before.first().is_none_or(|step| *step == Step::Began), "an answer begins");
    assert!(before.iter().skip(1).all(|step| matches!(step, Step::Text(_))));
    assert_eq!(reading.has_begun(), !before.is_empty());
    (steps, format!("{:?} {:?}", reading.usage, reading.stop_reason))
}

fn stream_of(jitter: &mut Dice) -> Vec<u8> {
    let lines = [
        r#"data: {"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}"#,
        r#"data: {"type":"content_block_start","content_block":{"type":"text","text":""}}"#,
        r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Grüße 🦀"}}"#,
        r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":""}}"#,
        r#"data: {"type":"content_block_delta","delta":{"type":"thinking_delta"}}"#,
        r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#,
        r#"data: {"type":"message_delta","delta":{"stop_reason":"refusal"}}"#,
        r#"data: {"type":"message_stop"}"#,
        r#"data: {"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
        r#"data:{"type":"ping"}"#,
        r#"data: {"type":"#,
        r#"data: "ping"}"#,
        "data",
        "event: ping",
        "event",
        ": a comment",
        "id: 7",
        "\u{feff}",
    ];
    let mut out = Vec::new();
    while !jitter.0.is_empty() {
        match jitter.below(24) {
            at if at < lines.len() => out.extend_from_slice(lines[at].as_bytes()),
            at if at < 20 => out.extend_from_slice(jitter.bytes()),
            _ => {}
        }
        out.extend_from_slice(jitter.pick(&["\n\n", "\n", "\r", "\r\n", "\r\n\r\n", "", "\n\r"]).as_bytes());
    }
    out
}

const NAMES: [&str; 8] = ["a", "b", "snake_case", "A-1", "user_message", "1a", "", "{"];

fn tricky(jitter: &mut Dice) -> String {
    #[rustfmt::skip]
    let pieces = [
        "{a}{/a}", "{b}{/b}", "{A-1}{/A-1}", "{snake_case}{/snake_case}", "{user_message}{/user_message}",
        "{1a}{/1a}", "{}{/}", "{zz}{/zz}", "{", "}", "{/", "{/a}", "{a}", "a", "/", "$&", "$1", "\\", "é🦀",
    ];
    let mut out = String::new();
    for _ in 0..jitter.below(32) {
        match jitter.below(24) {
            at if at < pieces.len() => out.push_str(pieces[at]),
            _ => out.push_str(&jitter.text()),
        }
    }
    out
}

/// Any prompt, with any values.
pub fn template(case: &[u8]) {
    let mut jitter = Dice(case);
    let values: BTreeMap<String, String> =
        (0..jitter.below(4)).map(|_| (jitter.pick(&NAMES).to_owned(), tricky(&mut jitter))).collect();
    let mut prompt = tricky(&mut jitter);
    prompt.push_str(&String::from_utf8_lossy(jitter.rest()));
    let rendered = render(&prompt, &values);

    assert_eq!(rendered, one_pass(&prompt, &values));
    assert_eq!(render(&prompt, &BTreeMap::new()), prompt, "without values nothing changes");
    // The shortest tag is `{a}{/a}`.
    let longest = values.values().map(String::len).max().unwrap_or_default();
    assert!(rendered.len() <= prompt.len() + prompt.len() / 7 * longest, "{} bytes", rendered.len());

    // Where the values go does not depend on what they are.
    let marker = |at: usize| char::from_u32(0xE000 + u32::try_from(at).unwrap()).unwrap();
    if !prompt.contains(|c| ('\u{E000}'..'\u{E100}').contains(&c)) {
        let markers = values.keys().enumerate().map(|(at, name)| (name.clone(), marker(at).to_string())).collect();
        let filled: String = render(&prompt, &markers)
            .chars()
            .map(|c| values.values().enumerate().find(|(at, _)| marker(*at) == c).map_or(c.into(), |(_, v)| v.clone()))
            .collect();
        assert_eq!(filled, rendered);
    }
}

/// The rule said another way: at each place, is there a tag of one of the names?
fn one_pass(prompt: &str, values: &BTreeMap<String, String>) -> String {
    let tags: Vec<(String, &String)> = values
        .iter()
        .filter(|(name, _)| is_parameter_name(name))
        .map(|(name, value)| (format!("{{{name}}}{{/{name}}}"), value))
        .collect();
    let (mut out, mut rest) = (String::new(), prompt);
    while let Some(c) = rest.chars().next() {
        match tags.iter().find(|(tag, _)| rest.starts_with(tag)) {
            Some((tag, value)) => {
                out.push_str(value);
                rest = &rest[tag.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// Bounds low enough to be met by short inputs.
fn limits() -> Limits {
    Limits { value_chars: 10, user_message_chars: 12, ..Limits::default() }
}

/// Any bytes as a body.
pub fn json_body(case: &[u8]) {
    let mut jitter = Dice(case);
    let how = jitter.byte();
    let parameter = |name: &str, required, default: Option<&str>, max_length| Parameter {
        name: name.to_owned(),
        description: None,
        required,
        default: default.map(str::to_owned),
        max_length,
    };
    let parameters = vec![
        parameter("topic", how & 4 == 0, None, Some(5)),
        parameter("tone", false, Some("dry"), Some(1000)),
        parameter("length", true, Some("short"), None),
        parameter("mood", false, None, None),
    ];
    let template = template_of(parameters, how & 8 == 0, &[]);
    let bytes = match how & 3 {
        0 => jitter.rest().to_vec(),
        1 => jitter.edited(r#"{"topic":"rust","tone":"","length":"long","user_message":" hello "}"#),
        _ => object(&mut jitter).to_string().into_bytes(),
    };
    let (read, body) = (serde_json::from_slice::<Value>(&bytes), Body::read(&bytes));
    match (&read, &body) {
        (_, Body::Empty) => assert!(bytes.trim_ascii().is_empty() || read.is_ok_and(|v| v == json!({}))),
        (Ok(read), Body::Json(value)) => {
            let strings = |v: &Value| {
                v.as_object()
                    .map(|m| m.iter().map(|(k, v)| (k.clone(), v.as_str().map(str::to_owned))).collect::<Vec<_>>())
            };
            assert_eq!(strings(read), strings(value));
        }
        // What lies below the first level is not looked at: deep nesting and huge numbers pass as what they are.
        (Err(_), Body::Malformed | Body::Json(_)) => {}
        other => panic!("{other:?}"),
    }
    match validate(&body, &template, &limits()) {
        Ok(input) => {
            let empty = Map::new();
            let fields = if let Body::Json(value) = &body { value.as_object().unwrap() } else { &empty };
            let declared: Vec<&str> = template.parameters.iter().map(|p| p.name.as_str()).collect();
            let known = |name: &String| {
                let takes_message = template.allow_user_message || fields[name].is_null();
                declared.contains(&name.as_str()) || (takes_message && name == USER_MESSAGE)
            };
            assert!(fields.keys().all(known), "no field goes unread");
            assert_eq!(input.values.len(), declared.len(), "one value for each parameter");
            for parameter in &template.parameters {
                assert_value(
                    parameter,
                    fields.get(&parameter.name).filter(|value| !value.is_null()),
                    &input.values[&parameter.name],
                );
            }
            let message = input.user_message.as_deref();
            assert!(message.is_none_or(|m| m.chars().count() <= 12 && !m.trim().is_empty()));
            assert!(message.is_none_or(|m| fields[USER_MESSAGE] == m));
            if let Body::Json(value) = &body {
                let again = Body::read(value.to_string().as_bytes());
                assert_eq!(validate(&again, &template, &limits()), Ok(input));
                assert!(matches!(again, Body::Json(v) if digest(&v) == digest(value)), "one digest for one input");
            }
        }
        Err(Refusal::Input(_, Detail { field, expected, received })) => {
            assert!(field.chars().count() <= 64, "{field}");
            assert!(expected.len() <= 80, "{expected}");
            let kinds = ["a boolean", "a number", "an array", "an object", "null", "nothing", "an empty string", "one"];
            let others = ["a string", "an undeclared parameter", "text that is not JSON"];
            let size = received.strip_prefix("a string of ").and_then(|s| s.strip_suffix(" characters"));
            let sized = size.is_some_and(|s| s.parse::<usize>().is_ok());
            assert!(sized || kinds.contains(&&*received) || others.contains(&&*received), "an echo: {received}");
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn assert_value(parameter: &Parameter, given: Option<&Value>, value: &str) {
    let bound = parameter.max_length.unwrap_or(usize::MAX).min(limits().value_chars);
    let default = parameter.default.as_deref();
    match given.map(|given| given.as_str().expect("a string")) {
        Some(given) if !given.is_empty() || !parameter.required => {
            assert_eq!(value, given);
            assert!(value.chars().count() <= bound);
        }
        Some(_) => assert_eq!(Some(value), default),
        None => assert_eq!(value, default.unwrap_or_default()),
    }
    assert!(!parameter.required || !value.is_empty());
}

fn object(jitter: &mut Dice) -> Value {
    let names = ["topic", "tone", "length", "mood", "user_message", "Topic", "topic ", ""];
    let mut map = Map::new();
    for _ in 0..jitter.below(6) {
        let name = if jitter.below(16) == 15 { jitter.text() } else { jitter.pick(&names).to_owned() };
        let value = match jitter.below(8) {
            0 => jitter.pick(&[json!(null), json!(1e300), json!(true), json!([[]]), json!({"a": {}}), json!(u64::MAX)]),
            1 => jitter.text().into(),
            _ => jitter.pick(&["", " ", "rust", "🦀🦀🦀🦀é", "🦀🦀🦀🦀éé", "0123456789", "0123456789a"]).into(),
        };
        map.insert(name, value);
    }
    Value::Object(map)
}

/// Any text as the operator's document.
pub fn config_document(case: &[u8]) {
    let mut jitter = Dice(case);
    let bytes = match jitter.byte() & 3 {
        0 => jitter.rest().to_vec(),
        1 => jitter.edited(CONFIG),
        _ => {
            let mut document = serde_json::from_str(CONFIG).unwrap();
            (0..jitter.below(4)).for_each(|_| change_somewhere(&mut document, &mut jitter));
            document.to_string().into_bytes()
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let taken = Config::read_document(&text).and_then(|document| Config::built_in().with_document(document));
    let Ok(config) = taken else { return };
    assert!(!config.facilitators.is_empty() && !config.models.is_empty() && !config.networks.is_empty());
    let l = &config.limits;
    assert!(l.max_timeout_seconds > l.claude_begin_seconds + l.settle_margin_seconds);
    assert!((1..=16 << 20).contains(&l.body_bytes));
    let seconds = [l.max_timeout_seconds, l.verify_seconds, l.settle_seconds, l.claude_idle_seconds];
    assert!(seconds.iter().all(|s| (1..=3600).contains(s)) && l.paid_attempts > 0);
    assert!(config.networks.iter().all(|n| n.decimals <= 9 && n.id.starts_with("eip155:") && !n.v1.is_empty()));
    for (at, network) in config.networks.iter().enumerate() {
        assert!(config.networks[..at].iter().all(|n| n.id != network.id && n.v1 != network.v1), "each once");
    }
    let networks: Vec<&str> = config.networks.iter().map(|n| n.id.as_str()).collect();
    let template = template_of(vec![], true, &networks);
    match quote(&template, &config, URL) {
        Ok(quote) => assert!(quote.offers().iter().all(|o| o.v2.amount.0 > 0 && networks.contains(&&*o.v2.network))),
        Err(refusal) => assert_eq!(refusal, Refusal::NotForSale),
    }
}

fn change_somewhere(value: &mut Value, jitter: &mut Dice) {
    #[rustfmt::skip]
    let values = [
        json!(null), json!([]), json!({}), json!(""), json!("x"), json!(0), json!(9), json!(10), json!(3601),
        json!(-1),
    ];
    let stop = jitter.below(16) == 15;
    match value {
        Value::Object(map) if !stop && !map.is_empty() => {
            let at = jitter.below(map.len());
            change_somewhere(map.values_mut().nth(at).unwrap(), jitter);
        }
        Value::Array(list) if !stop && !list.is_empty() => match jitter.below(4) {
            0 => list.push(list[0].clone()),
            1 => drop(list.pop()),
            _ => change_somewhere(&mut list[0], jitter),
        },
        other => *other = jitter.pick(&values),
    }
}

/// Any text as an owner's token.
pub fn jwt(case: &[u8]) {
    let mut jitter = Dice(case);
    let text = match jitter.byte() & 3 {
        0 => String::from_utf8_lossy(jitter.rest()).into_owned(),
        1 => {
            let header = jitter.edited(r#"{"alg":"HS256","kid":"k1","crit":null}"#);
            let claims =
                jitter.edited(r#"{"iss":"https://id.example","sub":"ada","aud":["coinslot"],"exp":2e9,"nbf":1.5}"#);
            [&header, &claims, jitter.rest()].map(base64::encode_url).join(".")
        }
        2 => {
            let (header, claims) = (token_header(&mut jitter).to_string(), token_claims(&mut jitter).to_string());
            [header.as_bytes(), claims.as_bytes(), jitter.rest()].map(base64::encode_url).join(".")
        }
        _ => {
            let (header, claims) = (jitter.bytes(), jitter.bytes());
            let plain = [header, claims, jitter.bytes()].map(base64::encode_url).join(".");
            String::from_utf8_lossy(&jitter.edited(&plain)).into_owned()
        }
    };
    let Some(token) = jwt::parse(&text) else { return };
    assert!(text.len() <= jwt::MAX_TOKEN, "{} bytes", text.len());
    let signed = std::str::from_utf8(&token.signed).unwrap();
    assert_eq!(
        format!("{signed}.{}", base64::encode_url(&token.signature)),
        text,
        "one spelling, and all of it signed"
    );
    let part = |at: usize| {
        let part = base64::decode_url(signed.split('.').nth(at).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&part)
    };
    assert_eq!(signed.matches('.').count(), 1);
    if let (Ok(header), Ok(claims)) = (part(0), part(1)) {
        assert_eq!(header["alg"], format!("{:?}", token.algorithm));
        assert!(header["crit"].is_null());
        assert!(claims["iss"] == *token.claims.iss && claims["sub"] == *token.claims.sub);
    }
    let ours = Issuer {
        issuer: "https://id.example".to_owned(),
        audience: "coinslot".to_owned(),
        secret: Some("JWT_SECRET".to_owned()),
        jwks: None,
        jwks_url: None,
    };
    let claims = &token.claims;
    if claims_hold(claims, &ours, 1e9) {
        assert!(claims.iss == ours.issuer && claims.aud.contains("coinslot") && !claims.sub.is_empty());
        assert!(claims.exp > 999_999_970.0 && claims.nbf.is_none_or(|nbf| nbf <= 1_000_000_030.0));
    }
    let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1"}, {"kty": "RSA"}, {"kty": "oct"}]});
    let keys: jwt::JwkSet = serde_json::from_value(keys).unwrap();
    let taken = candidates(&token, &keys).count();
    assert!(taken <= 1 && !(taken == 1 && takes_secret(&token)), "a public key is never a secret");
}

fn token_header(jitter: &mut Dice) -> Value {
    let mut header = json!({"alg": jitter.pick(&["HS256", "ES256", "RS256", "none", "HS512"])});
    match jitter.below(4) {
        0 => header["crit"] = jitter.pick(&[json!([]), json!(["exp"]), json!("exp"), json!(null)]),
        1 => header["kid"] = jitter.pick(&[json!("k1"), json!("k2"), json!(1), json!(null)]),
        _ => {}
    }
    header
}

fn token_claims(jitter: &mut Dice) -> Value {
    let audiences = [json!("coinslot"), json!(["a", "coinslot"]), json!("other"), json!([]), json!("coinslot2")];
    let times = [json!(1e9), json!(999_999_969), json!(999_999_970), json!(2e9), json!(-1), json!(1e308), json!("1")];
    json!({
        "iss": jitter.pick(&["https://id.example", "https://id.example/"]),
        "sub": jitter.pick(&["ada", ""]),
        "aud": jitter.pick(&audiences),
        "exp": jitter.pick(&times),
        "nbf": if jitter.below(2) == 0 { json!(null) } else { jitter.pick(&times) },
    })
}

/// Any text as an `Accept` header.
pub fn accept(case: &[u8]) {
    let mut jitter = Dice(case);
    #[rustfmt::skip]
    let words = [
        "application/json", "text/event-stream", "*/*", ",", ";", "q=", ";q=0", ";q=1", ".", "0.", "999", " ",
        "Q=1.0", "é", "-", "+1", "application/json;q=1", ".999",
    ];
    let mut text = String::new();
    while !jitter.0.is_empty() {
        text.push_str(&if jitter.below(20) == 0 { jitter.text() } else { jitter.pick(&words).to_owned() });
    }
    let wanted = accept::prefers_json(&text);
    assert!(!wanted || text.to_ascii_lowercase().contains("application/json"), "{text}");
    assert!(!accept::prefers_json(&format!("{text},text/event-stream")), "the stream is never weighed below JSON");
}

const CONTRACT: &str = r##"{"version":"HIRE/1.0","contract_id":"ctr_xyz789","created_at":"2026-01-30T10:00:00Z",
    "parties":{"seeker":{"agent_id":"agent_a","wallet":"0x857b06519E91e3A54538791bDbb0E22373e36b66",
    "webhook_url":"https://example.com/h"},"worker":{"agent_id":"agent_b",
    "wallet":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C"}},"task":{"capability":"haiku","description":"d",
    "output_type":"json","requirements":["r"],"input_schema":{"type":"object","properties":{"a":{"pattern":"^a+$"}}},
    "output_schema":{"$defs":{"x":{"type":["integer","null"]}},"items":{"$ref":"#/$defs/x"}}},"terms":{"price":
    {"amount":"0.01","currency":"USDC","network":"base"},"deadline":"2026-01-30T12:00:00Z","payment_trigger":
    "on_delivery","platform_fee":{"percentage":1.5,"wallet":"w"}},"sla":{"max_latency_ms":5000,"retry_policy":
    "3 attempts","refund_conditions":["no_response"],"allow_partial":true},"signatures":{"seeker":"0x","worker":"0x",
    "timestamp":"2026-01-30T10:00:01Z"},"hash":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}"##;

/// A contract is read or refused; what is read has one canonical form and one hash, whatever its spelling; and it is
/// signed by nobody whose key we do not hold.
pub fn contract(case: &[u8]) {
    let mut jitter = Dice(case);
    let text = match jitter.byte() {
        0 => jitter.rest().to_vec(),
        1 => {
            let mut document: Value = serde_json::from_str(CONTRACT).unwrap();
            change_somewhere(&mut document, &mut jitter);
            document.to_string().into_bytes()
        }
        _ => jitter.edited(CONTRACT),
    };
    let Ok(document) = strict::from_slice(&text) else { return };
    let form = canonical(&document);
    let again = strict::from_slice(&form).unwrap();
    assert_eq!(canonical(&again), form, "the canonical form is its own");
    assert_eq!(hire::hash(&again), hire::hash(&document));
    let Ok(read) = contract::read(&document) else { return };
    assert!(hire::is_contract_id(&read.contract_id));
    assert!(contract::check_signed(&document, &read).is_err());
    for schema in [&read.task.input_schema, &read.task.output_schema].into_iter().flatten() {
        if let Ok(schema) = Schema::read(schema) {
            let _ = schema.check(&document);
        }
    }
}

/// Claude's text is read as deliverables, each with the checksum of its bytes, or is refused.
pub fn deliverable(case: &[u8]) {
    let mut jitter = Dice(case);
    let forms = [OutputType::Json, OutputType::Multiple, OutputType::File, OutputType::Text, OutputType::Stream];
    let output = jitter.pick(&forms);
    let text = String::from_utf8_lossy(&jitter.edited(
        "```json\n{\"items\":[{\"name\":\"a.md\",\"type\":\"file\",\"mime\":\"text/plain\",\"content\":\"x\"},
         {\"name\":\"b\",\"type\":\"json\",\"content\":{\"c\":[1,2.5]}}]}\n```",
    ))
    .into_owned();
    let file = FileSpec { name: "a.txt".to_owned(), mime: "text/plain".to_owned() };
    let schema = json!({"type": "object", "required": ["items"]});
    let Ok(items) = deliverables(output, Some(&schema), &file, &text) else { return };
    let names: std::collections::BTreeSet<_> = items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names.len(), items.len());
    for item in &items {
        assert!(is_file_name(&item.name) && is_media_type(&item.mime));
        let told = item.describe(None);
        assert_eq!(told["size"], item.bytes.len());
        assert_eq!(told["checksum"], format!("sha256:{}", sha256_hex(&item.bytes)));
        assert_eq!(item.content.is_none(), item.kind == OutputType::File);
    }
}
