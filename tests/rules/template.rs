//! Filling in a prompt: one pass, values as they were typed, unknown tags left alone.

use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::{is_parameter_name, render, rendered_len, USER_MESSAGE};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn tag(name: &str) -> String {
    format!("{{{name}}}{{/{name}}}")
}

/// The same rule said another way: at each place, is there a tag of one of the names? Longest code
/// first is not needed, since a tag's name ends at its brace.
fn reference(prompt: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < prompt.len() {
        let here = values.iter().find(|(name, _)| prompt[at..].starts_with(&tag(name)));
        match here {
            Some((name, value)) => {
                out.push_str(value);
                at += tag(name).len();
            }
            None => {
                let c = prompt[at..].chars().next().unwrap();
                out.push(c);
                at += c.len_utf8();
            }
        }
    }
    out
}

#[test]
fn a_tag_becomes_the_value() {
    let values = values(&[("topic", "rust"), ("tone", "dry")]);
    assert_eq!(render("Write of {topic}{/topic}, {tone}{/tone}.", &values), "Write of rust, dry.");
    assert_eq!(render("{topic}{/topic}{topic}{/topic}", &values), "rustrust");
    assert_eq!(render("", &values), "");
    assert_eq!(render("no tags {here}", &values), "no tags {here}");
}

#[test]
fn a_tag_without_a_value_stays_as_it_was_typed() {
    let values = values(&[("a", "1")]);
    for prompt in [
        "{b}{/b}",
        "{a}",
        "{/a}",
        "{a}{/b}",
        "{b}{/a}",
        "{a} {/a}",
        "{A}{/A}",
        "{ a }{/ a }",
        "{a{/a}",
        "{a}{/a",
        "{}{/}",
        "{{a}}",
        "{a}/{a}",
    ] {
        assert_eq!(render(prompt, &values), prompt);
    }
}

#[test]
fn braces_around_a_tag_do_not_hide_it() {
    let values = values(&[("a", "1")]);
    for (prompt, filled) in [
        ("{{a}{/a}}", "{1}"),
        ("{x{a}{/a}", "{x1"),
        ("{a}{a}{/a}", "{a}1"),
        ("{a}{/a}{/a}", "1{/a}"),
        ("{b}{a}{/a}{/b}", "{b}1{/b}"),
        ("{\"k\": \"{a}{/a}\"}", "{\"k\": \"1\"}"),
        ("é{a}{/a}🦀", "é1🦀"),
    ] {
        assert_eq!(render(prompt, &values), filled);
    }
}

/// What peers get wrong: `$&` as a replacement pattern, and substitution in what was substituted.
#[test]
fn values_are_never_read_as_patterns_or_as_template_text() {
    for value in [
        "$", "$&", "$1", "$$", "\\", "\\1", "\\n", "{", "}", "{b}{/b}", "{a}{/a}", "{a", "/a}", "{{", ".*", "\0",
        "\u{202e}",
    ] {
        let values = values(&[("a", value), ("b", "SECRET")]);
        assert_eq!(render("<{a}{/a}|{b}{/b}>", &values), format!("<{value}|SECRET>"));
    }
}

/// `{b` from one value and `}{/b}` from the next must not meet and become a tag.
#[test]
fn two_values_side_by_side_do_not_become_a_tag() {
    let values = values(&[("a", "{b"), ("c", "}{/b}"), ("b", "SECRET")]);
    assert_eq!(render("{a}{/a}{c}{/c}", &values), "{b}{/b}");
}

#[test]
fn a_name_is_letters_digits_underscores_and_hyphens_and_is_not_the_user_message() {
    for name in ["a", "A", "_", "a1", "snake_case", "kebab-case", "_1", &"a".repeat(64)] {
        assert!(is_parameter_name(name), "{name}");
        assert_eq!(render(&tag(name), &values(&[(name, "v")])), "v");
    }
    for name in ["", "1a", "-a", "a b", "a.b", "é", "a{", "a}", "/a", USER_MESSAGE, &"a".repeat(65)] {
        assert!(!is_parameter_name(name), "{name}");
        assert_eq!(render(&tag(name), &values(&[(name, "v")])), tag(name), "{name}");
    }
}

/// Everybody's runs share one isolate: one creator's prompt must not hold up the rest.
#[test]
#[allow(clippy::disallowed_methods)] // the one test about time
fn a_prompt_full_of_braces_takes_no_longer_than_any_other() {
    let prompt = "{".repeat(500_000);
    let start = std::time::Instant::now();
    assert_eq!(render(&prompt, &values(&[("a", "1")])), prompt);
    assert!(start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
}

/// A megabyte of tags and a megabyte of a value would be a hundred gigabytes.
#[test]
fn the_length_of_what_could_never_be_held_is_known_too() {
    let prompt = tag("a").repeat(100_000);
    let million = "x".repeat(1_000_000);
    assert_eq!(rendered_len(&prompt, &values(&[("a", &million)])), 100_000_000_000);
}

#[test]
fn a_prompt_is_not_shown_by_debug() {
    let secret = Secret::new("You are the hidden prompt".to_owned());
    assert_eq!(format!("{secret:?}"), "<25 secret bytes>");
    assert_eq!(secret.reveal(), "You are the hidden prompt");
}

/// Text full of what could confuse a substitution.
fn tricky() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{a}{/a}".to_owned()),
        Just("{b}{/b}".to_owned()),
        Just("{zz}{/zz}".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("{/".to_owned()),
        Just("{/a}".to_owned()),
        Just("{a}".to_owned()),
        Just("a".to_owned()),
        Just("/".to_owned()),
        Just("$&".to_owned()),
        Just("$1".to_owned()),
        Just("\\".to_owned()),
        "[a-z é🦀]{0,3}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn rendering_agrees_with_the_reference(prompt in tricky(), a in tricky(), b in tricky(), with_b: bool) {
        let mut values = values(&[("a", &a)]);
        if with_b {
            values.insert("b".to_owned(), b);
        }
        prop_assert_eq!(render(&prompt, &values), reference(&prompt, &values));
        prop_assert_eq!(rendered_len(&prompt, &values), reference(&prompt, &values).len());
    }

    #[test]
    fn the_length_is_known_before_anything_is_rendered(prompt in any::<String>(), value in any::<String>(), times in 0usize..9) {
        let values = values(&[("a", &value)]);
        let prompt = format!("{prompt}{}", tag("a").repeat(times));
        prop_assert_eq!(rendered_len(&prompt, &values), render(&prompt, &values).len());
    }

    #[test]
    fn a_value_comes_out_as_it_was_typed(before in "[^{}]{0,10}", value in any::<String>(), after in "[^{}]{0,10}") {
        let prompt = format!("{before}{}{after}", tag("a"));
        prop_assert_eq!(render(&prompt, &values(&[("a", &value)])), format!("{before}{value}{after}"));
    }

    #[test]
    fn a_prompt_without_values_is_unchanged(prompt in any::<String>(), tricky in tricky()) {
        prop_assert_eq!(render(&prompt, &BTreeMap::new()), prompt);
        prop_assert_eq!(render(&tricky, &BTreeMap::new()), tricky);
    }
}
