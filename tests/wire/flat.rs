//! JSON read flat: the first level as any reader has it, and of what is below no more than its kind.

use coinslot::testing::wire::flat::from_slice;
use coinslot::testing::wire::strict;
use proptest::prelude::*;
use serde_json::{json, Value};

fn read(text: &str) -> Value {
    from_slice(text.as_bytes()).unwrap()
}

/// What is left of a member.
fn kind(value: Value) -> Value {
    match value {
        Value::Number(_) => json!(0),
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
        rest => rest,
    }
}

/// What is left of a whole text.
fn flat(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(members.into_iter().map(|(name, value)| (name, kind(value))).collect()),
        rest => kind(rest),
    }
}

#[test]
fn an_objects_strings_are_kept_and_of_everything_else_only_the_kind() {
    let text = r#" {"text": "\u00e9\n\"x\"", "": "", "null": null, "yes": true, "no": false, "whole": 7, "less": -7,
        "part": 1.5, "list": ["a", {"b": "c"}], "more": {"text": "x"}} "#;
    let expected = json!({"text": "\u{e9}\n\"x\"", "": "", "null": null, "yes": true, "no": false, "whole": 0, "less": 0,
        "part": 0, "list": [], "more": {}});
    assert_eq!(read(text), expected);
}

#[test]
fn what_is_no_object_is_read_for_its_kind() {
    for (text, value) in [
        ("null", json!(null)),
        ("true", json!(true)),
        ("12", json!(0)),
        ("-1e9", json!(0)),
        (r#""x""#, json!("x")),
        (r#"["x", ["y"]]"#, json!([])),
        ("{}", json!({})),
    ] {
        assert_eq!(read(text), value, "{text}");
    }
}

#[test]
fn a_member_that_comes_twice_is_its_last() {
    assert_eq!(read(r#"{"a": "x", "b": "y", "a": 1, "\u0062": "z"}"#), json!({"a": 0, "b": "z"}));
}

#[test]
fn what_is_not_json_is_not_read_at_any_depth() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{'a':1}",
        "{} {}",
        "{\"a\":1,}",
        "{\"a\":01}",
        "{\"a\":[{\"b\":]}",
        "{\"a\":{\"b\" 1}}",
        "{\"a\":[tru]}",
        "{\"a\":{1:2}}",
        "{\"a\":\"\\x\"}",
        "{\"a\":NaN}",
        "nul",
    ] {
        assert!(from_slice(text.as_bytes()).is_err(), "{text}");
    }
    assert!(from_slice(b"{\"a\":\"\xff\"}").is_err() && from_slice(b"{\"\xff\":1}").is_err());
}

/// Half a megabyte of brackets neither overflows the stack nor becomes a tree.
#[test]
fn depth_does_not_matter() {
    let deep = format!("{}{}", "[".repeat(250_000), "]".repeat(250_000));
    assert_eq!(read(&deep), json!([]));
    assert_eq!(read(&format!("{{\"a\":{deep},\"b\":\"x\"}}")), json!({"a": [], "b": "x"}));
    let objects = format!("{}1{}", "{\"a\":".repeat(80_000), "}".repeat(80_000));
    assert_eq!(read(&objects), json!({"a": {}}));
    assert!(from_slice(&deep.as_bytes()[1..]).is_err() && from_slice(&deep.as_bytes()[..499_999]).is_err());
}

/// With its features `raw_value` and `arbitrary_precision`, serde_json reads an object with such a name as something
/// else: a contract would be another document when it is read back than when it was signed.
#[test]
fn no_name_of_a_member_has_a_meaning_of_its_own() {
    for name in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        let text = format!("{{\"{name}\":\"[1]\"}}");
        let value = Value::Object([(name.to_owned(), json!("[1]"))].into_iter().collect());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(strict::from_slice(text.as_bytes()).unwrap(), value);
        assert_eq!(read(&text), value);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_read_is_what_is_there_made_flat(value in any_json(), pretty: bool) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        prop_assert_eq!(read(&text), flat(value));
    }

    /// Cut off anywhere, it is JSON to this reader where it is to any other.
    #[test]
    fn a_text_that_is_cut_off_is_read_as_by_any_other_reader(value in any_json(), cut in any::<prop::sample::Index>()) {
        let text = value.to_string();
        let part = &text.as_bytes()[..cut.index(text.len() + 1)];
        let other = serde_json::from_slice::<Value>(part);
        prop_assert_eq!(from_slice(part).ok(), other.ok().map(flat));
    }
}
