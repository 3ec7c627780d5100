//! A run's input, validated whole before anything about money: in order, by name, and without an echo.

use coinslot::testing::rules::config::Limits;
use coinslot::testing::rules::refusal::{Detail, InputError, Refusal};
use coinslot::testing::rules::run::Release;
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::input::{validate, Body, Input};
use coinslot::testing::rules::template::{Parameter, Template};
use proptest::prelude::*;
use serde_json::{json, Value};
use std::collections::BTreeMap;

fn parameter(name: &str) -> Parameter {
    Parameter { name: name.to_owned(), description: None, required: false, default: None, max_length: None }
}

fn template(parameters: Vec<Parameter>, allow_user_message: bool) -> Template {
    Template {
        id: "t1".to_owned(),
        creator_id: "c1".to_owned(),
        agent_wallet: None,
        wallets: BTreeMap::new(),
        name: "Haiku".to_owned(),
        description: String::new(),
        model: "claude-haiku-5-5".to_owned(),
        prompt: Secret::new(String::new()),
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

/// topic: required. tone: optional, with a default. length: required, with a default. mood: optional.
fn haiku() -> Template {
    let some = |text: &str| Some(text.to_owned());
    template(
        vec![
            Parameter { required: true, max_length: Some(5), ..parameter("topic") },
            Parameter { default: some("dry"), ..parameter("tone") },
            Parameter { required: true, default: some("short"), ..parameter("length") },
            parameter("mood"),
        ],
        true,
    )
}

fn limits() -> Limits {
    Limits { value_chars: 10, user_message_chars: 12, ..Limits::default() }
}

fn check(body: Value) -> Result<Input, Refusal> {
    validate(&Body::read(body.to_string().as_bytes()), &haiku(), &limits())
}

/// Values in the order topic, tone, length, mood.
fn values(body: Value) -> [String; 4] {
    let input = check(body).unwrap();
    assert_eq!(input.values.len(), 4, "one value for each declared parameter");
    ["topic", "tone", "length", "mood"].map(|name| input.values[name].clone())
}

fn refused(result: Result<Input, Refusal>) -> (InputError, [String; 3]) {
    match result.unwrap_err() {
        Refusal::Input(fault, Detail { field, expected, received }) => (fault, [field, expected, received]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_body_is_told_from_json_and_from_anything_else() {
    for bytes in ["", " \r\n\t", "{}", " { } "] {
        assert_eq!(Body::read(bytes.as_bytes()), Body::Empty, "{bytes:?}");
    }
    assert_eq!(Body::read(b"[]"), Body::Json(json!([])));
    assert_eq!(Body::read(br#"{"a":""}"#), Body::Json(json!({"a": ""})));
    for bytes in
        [&b"{"[..], b"topic=rust", b"{\"a\":1}{}", b"\xff", b"{\"a\":\"\xff\"}", b"\xef\xbb\xbf{}", b"{'a':'b'}"]
    {
        assert_eq!(Body::read(bytes), Body::Malformed, "{bytes:?}");
    }
}

#[test]
fn the_values_given_are_taken_and_the_defaults_fill_the_rest() {
    assert_eq!(values(json!({"topic": "rust"})), ["rust", "dry", "short", ""]);
    assert_eq!(
        values(json!({"topic": "rust", "tone": "wry", "length": "long", "mood": "sad"})),
        ["rust", "wry", "long", "sad"]
    );
}

#[test]
fn an_explicit_empty_string_is_a_value_only_where_the_parameter_is_optional() {
    assert_eq!(values(json!({"topic": "rust", "tone": "", "mood": ""})), ["rust", "", "short", ""]);
    assert_eq!(values(json!({"topic": "rust", "length": ""}))[2], "short", "a required one falls back to its default");
    let missing = [String::from("topic"), "a non-empty string".to_owned(), "an empty string".to_owned()];
    assert_eq!(refused(check(json!({"topic": ""}))), (InputError::MissingParameter, missing));
}

#[test]
fn white_space_is_a_value() {
    assert_eq!(values(json!({"topic": "  "}))[0], "  ");
}

#[test]
fn every_fault_names_its_field_what_was_expected_and_what_came() {
    let many = "one of: topic, tone, length, mood, user_message";
    for (body, fault, field, expected, received) in [
        ("{", InputError::NotJson, "body", "a JSON object", "text that is not JSON"),
        ("[]", InputError::NotAnObject, "body", "a JSON object", "an array"),
        ("null", InputError::NotAnObject, "body", "a JSON object", "null"),
        ("\"x\"", InputError::NotAnObject, "body", "a JSON object", "a string"),
        ("7", InputError::NotAnObject, "body", "a JSON object", "a number"),
        ("true", InputError::NotAnObject, "body", "a JSON object", "a boolean"),
        ("", InputError::MissingParameter, "topic", "a non-empty string", "nothing"),
        ("{}", InputError::MissingParameter, "topic", "a non-empty string", "nothing"),
        (r#"{"tone":"x"}"#, InputError::MissingParameter, "topic", "a non-empty string", "nothing"),
        (r#"{"topic":"x","Tone":"x"}"#, InputError::UnknownParameter, "Tone", many, "an undeclared parameter"),
        (r#"{"topic":1}"#, InputError::NotAString, "topic", "a string", "a number"),
        (r#"{"topic":7}"#, InputError::NotAString, "topic", "a string", "a number"),
        (r#"{"topic":["x"]}"#, InputError::NotAString, "topic", "a string", "an array"),
        (r#"{"topic":{"x":1}}"#, InputError::NotAString, "topic", "a string", "an object"),
        (r#"{"topic":"x","mood":false}"#, InputError::NotAString, "mood", "a string", "a boolean"),
        (
            r#"{"topic":"abcdef"}"#,
            InputError::TooLong,
            "topic",
            "a string of at most 5 characters",
            "a string of 6 characters",
        ),
        (r#"{"topic":"x","user_message":7}"#, InputError::NotAString, "user_message", "a string", "a number"),
    ] {
        let result = validate(&Body::read(body.as_bytes()), &haiku(), &limits());
        assert_eq!(refused(result), (fault, [field, expected, received].map(str::to_owned)), "{body}");
    }
}

#[test]
fn null_is_absent_for_every_field_and_a_name_that_is_not_declared_stays_refused() {
    let refusal = refused(check(json!({"topic": null})));
    assert_eq!((refusal.0, refusal.1[2].as_str()), (InputError::MissingParameter, "nothing"));
    let (with, without) = (json!({"topic": "x", "tone": null, "length": null, "mood": null}), json!({"topic": "x"}));
    assert_eq!(check(with), check(without));
    let input = check(json!({"topic": "x", "user_message": null})).unwrap();
    assert_eq!(input.user_message, None);
    let closed = template(vec![], false);
    assert!(validate(&Body::Json(json!({"user_message": null})), &closed, &limits()).is_ok());
    let message = validate(&Body::Json(json!({"user_message": ""})), &closed, &limits());
    assert_eq!(refused(message).0, InputError::UserMessageNotAllowed);
    assert_eq!(refused(check(json!({"topic": "x", "Tone": null}))).0, InputError::UnknownParameter);
}

#[test]
fn a_template_without_parameters_says_so() {
    let result = validate(&Body::Json(json!({"a": "b"})), &template(vec![], false), &limits());
    assert_eq!(refused(result).1[1], "no parameters");
    let input = validate(&Body::Empty, &template(vec![], false), &limits()).unwrap();
    assert_eq!(input, Input { values: BTreeMap::new(), user_message: None });
}

/// Form, unknown fields, types and lengths, what is missing: each body has this fault and all later ones.
#[test]
fn the_first_fault_is_told_in_the_order_of_the_checks() {
    let long = "x".repeat(11);
    for (body, fault, field) in [
        (json!([{"unknown": 1}]), InputError::NotAnObject, "body"),
        (json!({"unknown": 1, "mood": 1, "tone": long}), InputError::UnknownParameter, "unknown"),
        (json!({"mood": 1}), InputError::NotAString, "mood"),
        (json!({"mood": long}), InputError::TooLong, "mood"),
        (json!({"user_message": 1}), InputError::NotAString, "user_message"),
        (json!({"mood": "ok"}), InputError::MissingParameter, "topic"),
    ] {
        let (told, [name, ..]) = refused(check(body.clone()));
        assert_eq!((told, name.as_str()), (fault, field), "{body}");
    }
}

#[test]
fn among_equal_faults_the_first_declared_parameter_is_told() {
    assert_eq!(refused(check(json!({"mood": 1, "tone": 1, "topic": 1}))).1[0], "topic");
    assert_eq!(refused(check(json!({"mood": 1, "tone": 1}))).1[0], "tone");
}

#[test]
fn bounds_count_characters_not_bytes() {
    assert_eq!(values(json!({"topic": "🦀🦀🦀🦀é"}))[0], "🦀🦀🦀🦀é");
    assert_eq!(refused(check(json!({"topic": "🦀🦀🦀🦀🦀🦀"}))).1[2], "a string of 6 characters");
    assert_eq!(values(json!({"topic": "x", "mood": "道".repeat(10)}))[3].len(), 30);
}

#[test]
fn the_lower_of_the_templates_and_the_operators_bound_applies() {
    let generous = template(vec![Parameter { max_length: Some(1000), ..parameter("a") }], false);
    let of = |length: usize| validate(&Body::Json(json!({"a": "x".repeat(length)})), &generous, &limits());
    assert!(of(10).is_ok());
    assert_eq!(refused(of(11)).1[1], "a string of at most 10 characters");
    assert!(check(json!({"topic": "x", "tone": "x".repeat(10)})).is_ok());
    assert_eq!(refused(check(json!({"topic": "x", "tone": "x".repeat(11)}))).0, InputError::TooLong);
    assert!(check(json!({"topic": "x", "user_message": "é".repeat(12)})).is_ok());
    assert_eq!(refused(check(json!({"topic": "x", "user_message": "é".repeat(13)}))).0, InputError::TooLong);
}

/// How long a prompt is, and how often it has a value, could be measured by values that just fit.
#[test]
fn no_value_is_refused_because_of_the_prompt_that_it_fills_in() {
    let parameters = vec![Parameter { required: true, ..parameter("topic") }];
    for uses in [0, 1, 1_000] {
        let prompt = Secret::new("{topic}{/topic}".repeat(uses));
        let echo = Template { prompt, ..template(parameters.clone(), true) };
        let of = |topic: &str| {
            let body = json!({"topic": topic}).to_string();
            validate(&Body::read(body.as_bytes()), &echo, &Limits { prompt_bytes: 1, ..limits() })
        };
        assert!(of(&"x".repeat(10)).is_ok());
        let expected = ["topic", "a string of at most 10 characters", "a string of 11 characters"];
        assert_eq!(refused(of(&"x".repeat(11))), (InputError::TooLong, expected.map(str::to_owned)));
    }
}

#[test]
fn a_user_message_is_taken_as_it_is_and_a_blank_one_is_none() {
    let message = |text: &str| check(json!({"topic": "x", "user_message": text})).unwrap().user_message;
    assert_eq!(message(" hi\n").as_deref(), Some(" hi\n"));
    assert_eq!(message("{mood}{/mo}").as_deref(), Some("{mood}{/mo}"));
    assert_eq!(message(""), None);
    assert_eq!(message(" \n\t "), None);
    assert_eq!(check(json!({"topic": "x"})).unwrap().user_message, None);
}

#[test]
fn a_user_message_is_refused_where_the_template_takes_none() {
    let closed = template(vec![], false);
    for message in [json!("hi"), json!(""), json!(7)] {
        let result = validate(&Body::Json(json!({"user_message": message})), &closed, &limits());
        let expected = ["user_message", "no user message", "one"].map(str::to_owned);
        assert_eq!(refused(result), (InputError::UserMessageNotAllowed, expected));
    }
}

#[test]
fn a_long_unknown_name_is_shortened() {
    let (_, [field, ..]) = refused(check(json!({"é".repeat(500): "x"})));
    assert_eq!(field, "é".repeat(64));
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = "MARK[a-zA-Z0-9é🦀<>&]{0,30}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (1_000_000_u64..).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,9}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// Whatever was sent, a refusal says its kind and its size, and nothing of it.
    #[test]
    fn a_refusal_never_echoes_a_value(topic in any_json(), tone in any_json(), message in any_json(), which in 0..3) {
        let body = match which {
            0 => json!({"topic": topic, "tone": tone, "user_message": message}),
            1 => json!({"topic": "x", "mood": tone}),
            _ => topic,
        };
        if let Err(refusal) = check(body.clone()) {
            let detail = refusal.detail().unwrap();
            let words = [refusal.message(), detail.expected, detail.received, refusal.code().to_owned()];
            let text = words.join(" ");
            prop_assert!(!text.contains("MARK"), "{} gives {}", body, text);
            // The numbers that are sent have seven digits and more; the sizes in a refusal have two.
            let run = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
            prop_assert!(run <= Some(2), "{} gives {}", body, text);
        }
    }

    /// What is accepted has exactly the declared parameters, within their bounds, as they were typed.
    #[test]
    fn what_is_accepted_is_what_was_typed(topic in any::<String>(), mood in any::<String>()) {
        let fits = (1..=5).contains(&topic.chars().count()) && mood.chars().count() <= 10;
        let result = check(json!({"topic": topic, "mood": mood}));
        prop_assert_eq!(result.is_ok(), fits);
        if let Ok(input) = result {
            prop_assert_eq!(&input.values["topic"], &topic);
            prop_assert_eq!(&input.values["mood"], &mood);
        }
    }
}
