//! Filling in a prompt: one pass, values as they were typed, unknown tags left alone.

use crate::quote;
use coinslot::testing::rules::config::{Config, Limits};
use coinslot::testing::rules::payment;
use coinslot::testing::rules::secret::Secret;
use coinslot::testing::rules::template::input::{validate, Body};
use coinslot::testing::rules::template::{is_parameter_name, render, rendered_len, Parameter, Template, USER_MESSAGE};
use coinslot::testing::wire::evm::Address;
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

fn template_of(prompt: &str, parameters: &[(&str, Option<usize>, Option<&str>)]) -> Template {
    let parameter = |(name, max_length, default): &(&str, Option<usize>, Option<&str>)| Parameter {
        name: (*name).to_owned(),
        description: None,
        required: false,
        default: default.map(str::to_owned),
        max_length: *max_length,
    };
    Template {
        prompt: Secret::new(prompt.to_owned()),
        parameters: parameters.iter().map(parameter).collect(),
        ..quote::template(&[])
    }
}

#[test]
fn the_longest_prompt_has_each_value_as_long_and_as_often_as_the_template_and_the_body_allow() {
    let limits = |body_bytes| Limits { value_chars: 10, body_bytes, ..Limits::default() };
    let text = "A haiku on : {odd}{/odd}";
    let prompt = format!("A haiku on {}: {{odd}}{{/odd}}", tag("a").repeat(3));
    let at = |max_length, default, longest: usize| {
        let template = template_of(&prompt, &[("a", max_length, default), ("unused", None, None)]);
        assert_eq!(template.prompt_bytes(&limits(1_000)), (text.len(), text.len() + longest));
    };
    // A character has up to four bytes.
    at(None, None, 3 * 10 * 4);
    at(Some(11), None, 3 * 10 * 4);
    at(Some(2), None, 3 * 2 * 4);
    at(Some(0), Some("nine bytes"), 3 * 10);
    // All values together come in one body.
    let many = ["a", "b", "c", "d"].map(|name| (name, None, None));
    let each_once = template_of(&many.map(|(name, ..)| tag(name)).concat(), &many);
    assert_eq!(each_once.prompt_bytes(&limits(100)), (0, 100));
    assert_eq!(each_once.prompt_bytes(&limits(1_000)), (0, 160));
    let endless = template_of(&tag("a").repeat(100_000), &[("a", Some(usize::MAX), None)]);
    assert!(!endless.is_bounded(&Limits { value_chars: usize::MAX, ..Limits::default() }), "without an overflow");
}

#[test]
fn with_the_limits_as_they_are_all_values_may_be_used_twice_and_one_fifteen_times() {
    let limits = Limits::default();
    let of = |uses| template_of(&tag("a").repeat(uses), &[("a", None, None)]).is_bounded(&limits);
    assert!(of(15) && !of(16));
    let seven = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, None, None));
    let twice = |text: usize| "x".repeat(text) + &seven.map(|(name, ..)| tag(name).repeat(2)).concat();
    assert!(template_of(&twice(100_000), &seven).is_bounded(&limits), "without a maxLength");
    assert!(!template_of(&twice(200_000), &seven).is_bounded(&limits));
    let text = |bytes| template_of(&"x".repeat(bytes), &[]).is_bounded(&limits);
    assert!(
        text(limits.prompt_bytes) && !text(limits.prompt_bytes + 1),
        "the prompt's own text has a limit of its own"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// Whatever the input: so no input is ever refused because of the prompt.
    #[test]
    fn no_input_fills_a_template_in_to_more_than_its_longest_prompt(
        prompt in tricky(), a in tricky(), b in tricky(), default in tricky(), max_length in 0usize..12,
    ) {
        let limits = Limits { value_chars: 8, body_bytes: 40, ..Limits::default() };
        let template = template_of(&prompt, &[("a", Some(max_length), None), ("b", None, Some(&default))]);
        let body = serde_json::json!({"a": a, "b": b}).to_string();
        if body.len() <= limits.body_bytes {
            if let Ok(input) = validate(&Body::read(body.as_bytes()), &template, &limits) {
                let length = render(&prompt, &input.values).len();
                prop_assert!(length <= template.prompt_bytes(&limits).1, "{length}");
            }
        }
    }
}

/// Nobody can buy it, and who has bought a run before finds it by the network, the token, the payer and the nonce.
#[test]
fn in_the_place_of_a_draft_there_is_something_that_names_payments_and_sells_nothing() {
    let config = Config::built_in();
    let withdrawn = Template::withdrawn(&config);
    let quote = payment::quote::quote(&withdrawn, &config, quote::URL).unwrap();
    assert_eq!(quote.offers().len(), config.networks.len());
    assert!(!withdrawn.published && withdrawn.is_bounded(&config.limits));
    assert_eq!(config.model(&withdrawn.model, "2026-01-01"), None);
    let nobody = Address::from([0; 20]).to_string();
    assert!(quote.offers().iter().all(|offer| offer.v2.pay_to == nobody));
}
