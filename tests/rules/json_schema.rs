//! JSON Schema: the official suite, what is refused by name, and that nothing a stranger writes takes long.

use coinslot::testing::json_schema::{Mismatch, Schema, Unsupported, STEP_BUDGET};
use proptest::prelude::*;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn read(schema: &Value) -> Schema {
    Schema::read(schema).unwrap_or_else(|e| panic!("{:.200}: {e:?}", schema.to_string()))
}

fn refused(schema: Value) -> Unsupported {
    Schema::read(&schema).err().unwrap_or_else(|| panic!("taken: {:.200}", schema.to_string()))
}

fn accepts(schema: &Value, instance: &Value) -> bool {
    read(schema).check(instance).is_ok()
}

/// The mismatch of an instance: field, expected, keyword.
fn mismatch_of(schema: Value, instance: Value) -> (String, String, &'static str) {
    let Mismatch { field, expected, keyword } = read(&schema).check(&instance).unwrap_err();
    (field, expected, keyword)
}

fn suite(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json-schema-suite").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    files
}

/// Why a group is refused: one of what we do not support.
fn reason(refusal: &Unsupported) -> &'static str {
    let Unsupported { field, why } = refusal;
    match field.rsplit('.').next().unwrap() {
        "unevaluatedProperties" if why == "is not taken here" => "unevaluatedProperties",
        "$id" if why.starts_with("is taken at the root only") => "embedded $id",
        "$ref" if why.contains("leads out of this schema") => "remote $ref",
        _ if why == "has a `\\p`, which is not taken" => "\\p",
        _ => panic!("refused for what is supported: {refusal:?}"),
    }
}

/// Runs the files; how many groups there were, how many cases passed, and how many groups were refused for what.
fn run(files: &[PathBuf]) -> (usize, usize, BTreeMap<&'static str, usize>) {
    let (mut groups, mut passed, mut refusals) = (0, 0, BTreeMap::new());
    for path in files {
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for group in file.as_array().unwrap() {
            groups += 1;
            let schema = match Schema::read(&group["schema"]) {
                Ok(schema) => schema,
                Err(refusal) => {
                    *refusals.entry(reason(&refusal)).or_default() += 1;
                    continue;
                }
            };
            for case in group["tests"].as_array().unwrap() {
                let checked = schema.check(&case["data"]);
                let name = format!("{path:?}: {}: {}: {checked:?}", group["description"], case["description"]);
                assert_eq!(checked.is_ok(), case["valid"], "{name}");
                passed += 1;
            }
        }
    }
    (groups, passed, refusals)
}

/// JSON-Schema-Test-Suite, draft 2020-12, what is required of everyone.
#[test]
fn the_official_suite_is_passed_or_refused_by_name() {
    let files = suite("");
    let (groups, passed, refusals) = run(&files);
    println!("{} files, {groups} groups, {passed} cases passed; refused groups: {refusals:?}", files.len());
    assert_eq!((files.len(), groups, passed), (40, 271, 975));
    let expected = [("\\p", 2), ("embedded $id", 15), ("remote $ref", 1), ("unevaluatedProperties", 2)];
    assert_eq!(refusals, BTreeMap::from(expected));
}

/// Of the optional part: numbers and patterns.
#[test]
fn the_optional_suite_of_numbers_and_patterns_is_passed_but_for_properties_of_characters() {
    let (groups, passed, refusals) = run(&suite("optional"));
    println!("optional: {groups} groups, {passed} cases passed; refused groups: {refusals:?}");
    assert_eq!((groups, passed), (30, 82));
    assert_eq!(refusals, BTreeMap::from([("\\p", 4)]));
}

/// Fails unless the schema is refused at the place, and for the reason.
fn assert_refused(schema: Value, field: &str, why: &str) {
    let refusal = refused(schema);
    assert_eq!(refusal.field, field, "{refusal:?}");
    assert!(refusal.why.contains(why), "{refusal:?}");
}

const NOT_TAKEN: &str = "is not taken here";

/// In the suite's `unevaluatedItems.json`.
#[test]
fn unevaluated_items_are_refused_by_name() {
    assert_refused(json!({"unevaluatedItems": true}), "unevaluatedItems", NOT_TAKEN);
    let beside = json!({"prefixItems": [{"type": "string"}], "unevaluatedItems": {"type": "string"}});
    assert_refused(beside, "unevaluatedItems", NOT_TAKEN);
    let nested = json!({"properties": {"a": {"anyOf": [{"items": true}, {"unevaluatedItems": false}]}}});
    assert_refused(nested, "properties.a.anyOf[1].unevaluatedItems", NOT_TAKEN);
}

/// In the suite's `unevaluatedProperties.json`.
#[test]
fn unevaluated_properties_are_refused_by_name() {
    assert_refused(json!({"type": "object", "unevaluatedProperties": true}), "unevaluatedProperties", NOT_TAKEN);
    let beside = json!({"allOf": [{"properties": {"bar": true}}], "unevaluatedProperties": {"minLength": 3}});
    assert_refused(beside, "unevaluatedProperties", NOT_TAKEN);
    let nested = json!({"if": {"required": ["a"]}, "then": {"unevaluatedProperties": false}});
    assert_refused(nested, "then.unevaluatedProperties", NOT_TAKEN);
}

/// In the suite's `dynamicRef.json`.
#[test]
fn dynamic_references_and_anchors_are_refused_by_name() {
    let reference =
        json!({"type": "array", "items": {"$dynamicRef": "#items"}, "$defs": {"foo": {"$anchor": "items"}}});
    assert_refused(reference, "items.$dynamicRef", NOT_TAKEN);
    let anchor = json!({"items": {"$ref": "#items"}, "$defs": {"foo": {"$dynamicAnchor": "items", "type": "string"}}});
    assert_refused(anchor, "$defs.foo.$dynamicAnchor", NOT_TAKEN);
}

/// In the suite's `refRemote.json` and `defs.json`: nothing is fetched, not even the draft's own schema.
#[test]
fn a_reference_to_another_document_is_refused() {
    for target in [
        "http://localhost:1234/draft2020-12/integer.json",
        "integer.json",
        "urn:uuid:feebdaed-ffff-0000-ffff-0000deadbeef",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        assert_refused(json!({"items": {"$ref": target}}), "items.$ref", "leads out of this schema");
    }
    let embedded = json!({"$id": "http://localhost:1234/base.json", "items": {"$id": "folder/", "items": true}});
    assert_refused(embedded, "items.$id", "at the root only");
}

/// In the suite's `vocabulary.json`.
#[test]
fn another_vocabulary_is_refused() {
    assert_refused(
        json!({"$vocabulary": {"https://json-schema.org/draft/2020-12/vocab/core": true}}),
        "$vocabulary",
        NOT_TAKEN,
    );
    let custom = json!({"$schema": "http://localhost:1234/metaschema-no-validation.json", "properties": {}});
    assert_refused(custom, "$schema", "must be that of draft 2020-12");
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    for (schema, field, why) in [
        (json!({"requred": ["a"]}), "requred", "is no keyword"),
        (json!({"properties": {"a": {"minLenght": 1}}}), "properties.a.minLenght", "is no keyword"),
        (json!({"definitions": {}}), "definitions", "write `$defs`"),
        (json!({"nullable": true}), "nullable", "\"null\""),
        (json!({"$dynamicRef": "#a"}), "$dynamicRef", "is not taken"),
        (json!({"$defs": {"a": {"$dynamicAnchor": "a"}}}), "$defs.a.$dynamicAnchor", "is not taken"),
        (json!({"$vocabulary": {}}), "$vocabulary", "is not taken"),
        (json!({"anyOf": [true, {"unevaluatedItems": false}]}), "anyOf[1].unevaluatedItems", "is not taken"),
        (json!({"unevaluatedProperties": false}), "unevaluatedProperties", "is not taken"),
        (json!({"items": {"$id": "http://a/b"}}), "items.$id", "at the root only"),
        (json!({"$id": "http://a/b#c"}), "$id", "without a fragment"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "$schema", "draft 2020-12"),
        (json!({"$ref": "http://example.com/x"}), "$ref", "leads out of this schema"),
        (json!({"$ref": "other.json#/a"}), "$ref", "leads out of this schema"),
        (json!({"$ref": ""}), "$ref", "leads out of this schema"),
        (json!({"$ref": "#/$defs/a"}), "$ref", "leads nowhere"),
        (json!({"$ref": "#a"}), "$ref", "names an anchor that is not there"),
        (json!({"$ref": "#/a~2"}), "$ref", "`~`"),
        (json!({"$ref": "#/%zz"}), "$ref", "`%`"),
        (json!({"$ref": "#/properties", "properties": {}}), "$ref", "no subschema"),
        (json!({"$ref": "#/const", "const": {}}), "$ref", "no subschema"),
        (json!({"$ref": "#/default", "default": {"type": "string"}}), "$ref", "no subschema"),
        (json!({"allOf": [true, {"$ref": "#/allOf/01"}]}), "allOf[1].$ref", "leads nowhere"),
        (json!({"$anchor": "1a"}), "$anchor", "must be a name"),
        (json!({"$anchor": "a", "not": {"$anchor": "a"}}), "not.$anchor", "used once"),
        (json!(1), "", "must be a schema"),
        (json!(null), "", "must be a schema"),
        (json!({"items": [true]}), "items", "must be a schema"),
        (json!({"$defs": {"unused": 1}}), "$defs.unused", "must be a schema"),
    ] {
        assert_refused(schema, field, why);
    }
}

#[test]
fn a_keyword_with_a_wrong_value_is_refused() {
    for (keyword, values) in [
        ("type", json!(["strng", 1, null, [], ["string", "string"], ["string", 1], ["any"], {}])),
        ("enum", json!(["a", {}, null])),
        ("multipleOf", json!([0, -1, -0.5, "1", null])),
        ("maximum", json!(["1", null, []])),
        ("exclusiveMinimum", json!([true])),
        ("minLength", json!([-1, 0.5, "1", null, -1e300])),
        ("maxItems", json!([-1, 1.5])),
        ("maxContains", json!([-1, "1"])),
        ("uniqueItems", json!([1, "true"])),
        ("required", json!(["a", [1], ["a", "a"], {}])),
        ("dependentRequired", json!([[], {"a": "b"}, {"a": [1]}])),
        ("dependentSchemas", json!([[], {"a": []}])),
        ("properties", json!([[], true, {"a": 1}])),
        ("patternProperties", json!([{"(": true}, {"a": 1}, []])),
        ("allOf", json!([[], {}, true, [1]])),
        ("anyOf", json!([[]])),
        ("oneOf", json!([[]])),
        ("prefixItems", json!([[], {}])),
        ("not", json!([1, "a", []])),
        ("if", json!([1])),
        ("then", json!([1])),
        ("title", json!([1])),
        ("$comment", json!([1])),
        ("deprecated", json!(["yes"])),
        ("examples", json!([1])),
        ("contentSchema", json!([1])),
        ("$ref", json!([1, {}])),
        ("$defs", json!([[], 1])),
    ] {
        for value in values.as_array().unwrap() {
            let refusal = refused(json!({ keyword: value }));
            assert!(refusal.field.starts_with(keyword), "{keyword}: {value}: {refusal:?}");
        }
    }
    let all = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", "$comment": "c",
        "title": "t", "description": "d", "default": 1, "deprecated": true, "readOnly": false, "writeOnly": true,
        "examples": [1], "format": "email", "contentEncoding": "base64", "contentMediaType": "a/b",
        "contentSchema": {"type": "object"}, "minLength": 2.0, "maxLength": 1e300, "enum": ["ab"],
    });
    assert!(accepts(&all, &json!("ab")));
}

#[test]
fn a_schema_has_limits() {
    let nested = |levels: usize| (1..levels).fold(json!(true), |inner, _| json!({ "not": inner }));
    read(&nested(64));
    assert!(refused(nested(65)).why.contains("64 levels"));
    assert!(refused(nested(1_000)).why.contains("64 levels"));
    read(&json!({ "const": "x".repeat(65_536 - 12) }));
    assert!(refused(json!({ "const": "x".repeat(65_536 - 11) })).why.contains("65536 bytes"));
    read(&json!({ "allOf": vec![true; 1_999] }));
    let refusal = refused(json!({ "allOf": vec![true; 2_000] }));
    assert!(refusal.field == "allOf[1999]" && refusal.why.contains("2000 subschemas"), "{refusal:?}");
}

#[test]
fn a_reference_leads_wherever_a_subschema_is() {
    let schema = json!({
        "$defs": {
            "a~b/c%": {"type": "string"}, "n": {"$anchor": "named", "type": "null"}, "é": {"const": 1},
            "list": {"anyOf": [{"prefixItems": [true, {"type": "boolean"}]}]}, "": {"const": ""}
        },
        "properties": {
            "string": {"$ref": "#/$defs/a~0b~1c%25"}, "null": {"$ref": "#named"}, "one": {"$ref": "#/$defs/%C3%A9"},
            "bool": {"$ref": "#/$defs/list/anyOf/0/prefixItems/1"}, "self": {"$ref": "#"}, "empty": {"$ref": "#/$defs/"}
        },
        "contentSchema": {"type": "number"}, "additionalProperties": {"$ref": "#/contentSchema"}
    });
    let good = json!({"string": "", "null": null, "one": 1.0, "bool": true, "self": {"self": {"x": 1}}, "empty": ""});
    assert!(accepts(&schema, &good));
    for (name, bad) in
        [("string", json!(1)), ("null", json!(1)), ("one", json!(2)), ("bool", json!(1)), ("self", json!({"one": 2}))]
    {
        assert!(!accepts(&schema, &json!({ name: bad })), "{name}");
    }
    assert_eq!(mismatch_of(schema, json!({"self": {"self": {"x": "y"}}})).0, "self.self.x");
    let named = json!({"$id": "urn:a", "$ref": "urn:a#/$defs/b", "$defs": {"b": {"type": "null"}}});
    assert!(accepts(&named, &json!(null)) && !accepts(&named, &json!(1)));
}

#[test]
fn a_mismatch_tells_where_and_what() {
    let expect = |schema, instance, field: &str, expected: &str, keyword: &str| {
        let (f, e, k) = mismatch_of(schema, instance);
        assert_eq!((f.as_str(), e.as_str(), k), (field, expected, keyword));
    };
    let colors = json!({"properties": {"colors": {"items": {"type": "string"}}}});
    expect(colors, json!({"colors": [1]}), "colors[0]", "a string", "type");
    let deep = json!({"properties": {"a": {"properties": {"b": {"items": {"properties": {"c": {"maximum": 10}}}}}}}});
    expect(deep, json!({"a": {"b": [1, {}, {"c": 11}]}}), "a.b[2].c", "at most 10", "maximum");
    expect(json!({"type": ["string", "null"]}), json!(1), "", "a string or null", "type");
    expect(json!({"type": "integer"}), json!(1.5), "", "a whole number", "type");
    expect(json!({"enum": ["a", "b"]}), json!("c"), "", "one of: \"a\", \"b\"", "enum");
    expect(json!({"const": {"a": 1}}), json!("c"), "", "{\"a\":1}", "const");
    expect(json!({"items": {"minLength": 3}}), json!(["abc", "ab"]), "[1]", "at least 3 characters", "minLength");
    expect(json!({"maxLength": 1}), json!("ab"), "", "at most 1 character", "maxLength");
    expect(json!({"pattern": "^a+$"}), json!("ab"), "", "text that matches `^a+$`", "pattern");
    expect(json!({"required": ["a"]}), json!({}), "a", "to be there", "required");
    expect(
        json!({"items": {"dependentRequired": {"a": ["b"]}}}),
        json!([{"a": 1}]),
        "[0].b",
        "to be there, since `a` is",
        "dependentRequired",
    );
    expect(json!({"additionalProperties": false}), json!({"x": 1}), "x", "no such property", "additionalProperties");
    expect(json!({"prefixItems": [true], "items": false}), json!([1, 2]), "[1]", "no such item", "items");
    expect(json!(false), json!(1), "", "nothing: the schema there is `false`", "false");
    let names = json!({"propertyNames": {"maxLength": 2}});
    expect(names, json!({"odd name": 1}), "[\"odd name\"]", "as its name: at most 2 characters", "propertyNames");
    expect(json!({"multipleOf": 0.5}), json!(0.7), "", "a multiple of 0.5", "multipleOf");
    expect(
        json!({"uniqueItems": true}),
        json!([1, 2, 1.0]),
        "[2]",
        "an item that differs from item [0]",
        "uniqueItems",
    );
    expect(json!({"minProperties": 2}), json!({}), "", "at least 2 properties", "minProperties");
    let contains = json!({"contains": {"type": "null"}, "maxContains": 1});
    let kind = "of the kind that `contains` describes";
    expect(contains.clone(), json!([]), "", &format!("at least 1 item {kind}"), "contains");
    expect(contains, json!([null, null]), "", &format!("at most 1 item {kind}"), "maxContains");
    expect(json!({"anyOf": [false, false]}), json!(1), "", "what fits at least one of 2 alternatives", "anyOf");
    expect(
        json!({"oneOf": [false, true, true]}),
        json!(1),
        "",
        "what fits exactly one alternative, not both [1] and [2]",
        "oneOf",
    );
    expect(json!({"not": {}}), json!(1), "", "anything but what `not` describes", "not");
    expect(json!({"if": true, "then": {"type": "null"}}), json!(1), "", "null", "type");
}

/// Schema and instance come from strangers, and the mismatch becomes part of a response.
#[test]
fn a_mismatch_and_a_refusal_are_short() {
    let long = "x".repeat(60_000);
    let (field, expected, _) =
        mismatch_of(json!({"additionalProperties": {"const": long.clone()}}), json!({long.clone(): 1}));
    assert!(field.len() < 300 && expected.len() < 300, "{field} {expected}");
    let values: Vec<_> = (0..5_000).collect();
    let (_, expected, _) = mismatch_of(json!({ "enum": values }), json!("a"));
    assert!(expected.len() < 2_000 && expected.ends_with("and 4980 more"), "{expected}");
    assert!(refused(json!({ long: 1 })).field.len() < 300);
}

#[test]
fn numbers_are_compared_by_their_value() {
    let equal = |a: Value, b: Value| {
        let by_const = accepts(&json!({ "const": a }), &b);
        assert_eq!(by_const, accepts(&json!({ "enum": [a] }), &b));
        assert_eq!(by_const, !accepts(&json!({"uniqueItems": true}), &json!([[{"x": a}], [{"x": b}]])));
        by_const
    };
    assert!(equal(json!(1), json!(1.0)) && equal(json!(0), json!(-0.0)) && equal(json!(1e3), json!(1000)));
    assert!(equal(json!(9007199254740992u64), json!(9007199254740992f64)));
    assert!(!equal(json!(9007199254740993u64), json!(9007199254740992f64)));
    assert!(!equal(json!(u64::MAX), json!(u64::MAX - 1)) && !equal(json!(u64::MAX), json!(u64::MAX as f64)));
    assert!(!equal(json!(i64::MIN), json!(i64::MIN + 1)) && !equal(json!(0.1), json!(0)));
    for (a, b) in [(json!(false), json!(0)), (json!(true), json!(1)), (json!(null), json!(0)), (json!(""), json!([]))] {
        assert!(!equal(a.clone(), b.clone()) && !equal(b, a));
    }
    let at_most = |limit: Value, n: Value| {
        let within = accepts(&json!({ "maximum": limit }), &n);
        assert_eq!(within, accepts(&json!({ "minimum": n }), &limit));
        assert_eq!(within, !accepts(&json!({ "exclusiveMinimum": limit }), &n));
        within
    };
    assert!(at_most(json!(u64::MAX), json!(u64::MAX)) && !at_most(json!(u64::MAX - 1), json!(u64::MAX)));
    assert!(at_most(json!(9007199254740993u64), json!(9007199254740992f64)));
    assert!(!at_most(json!(9007199254740992f64), json!(9007199254740993u64)));
    assert!(at_most(json!(1), json!(0.5)) && !at_most(json!(0.5), json!(1)) && !at_most(json!(-1), json!(-0.5)));
    assert!(at_most(json!(1e300), json!(u64::MAX)) && !at_most(json!(-1e300), json!(i64::MIN)));
    for whole in [json!(1.0), json!(-0.0), json!(1e308), json!(u64::MAX)] {
        assert!(accepts(&json!({"type": "integer"}), &whole), "{whole}");
    }
}

#[test]
fn multiples_are_those_of_the_decimals() {
    let multiple = |of: Value, n: Value| accepts(&json!({ "multipleOf": of }), &n);
    for (of, n) in [
        (json!(0.0001), json!(0.0075)),
        (json!(0.01), json!(19.99)),
        (json!(0.1), json!(0.3)),
        (json!(0.1), json!(-1.1)),
        (json!(1e-8), json!(12391239123u64)),
        (json!(0.5), json!(1e308)),
        (json!(2), json!(1e308)),
        (json!(1e-300), json!(1e300)),
        (json!(1e300), json!(0)),
        (json!(u64::MAX), json!(u64::MAX)),
        (json!(7), json!(i64::MIN + 1)),
        (json!(5e-324), json!(f64::MAX)),
    ] {
        assert!(multiple(of.clone(), n.clone()), "{n} is a multiple of {of}");
    }
    for (of, n) in [
        (json!(0.0001), json!(0.00751)),
        (json!(0.123456789), json!(1e308)),
        (json!(0.3), json!(1)),
        (json!(3), json!(1e308)),
        (json!(2), json!(u64::MAX)),
        (json!(1e300), json!(1)),
        (json!(1e300), json!(1e-300)),
        (json!(10), json!(9007199254740993u64)),
    ] {
        assert!(!multiple(of.clone(), n.clone()), "{n} is no multiple of {of}");
    }
}

#[test]
fn a_pattern_means_what_it_means_in_ecmascript() {
    let matches = |pattern: &str, text: &str| accepts(&json!({ "pattern": pattern }), &json!(text));
    for (pattern, text) in [
        ("^a$", "a"),
        ("^.$", "\u{85}"),
        ("^[\\s\\S]$", "\n"),
        ("^[^]$", "\n"),
        ("^\\/\\-\\@\\{\\}\\]$", "/-@{}]"),
        ("^\\cJ\\x41\\u0042\\u{1F432}\\uD83D\\uDC32\\0$", "\nAB🐲🐲\0"),
        ("^\\s\\s\\s$", "\u{feff}\u{a0}\u{2028}"),
        ("^[\\s,]+$", "\u{3000},\u{2029}"),
        ("^[^\\S]$", "\u{feff}"),
        ("^\\S$", "\u{85}"),
        ("^\\W$", "é"),
        ("^\\D$", "\u{7c0}"),
        ("^[\\b]$", "\u{8}"),
        ("\\ba\\b", "é a"),
        ("a\\Bb", "ab"),
        ("^(?<year>\\d{4})-(?:\\d\\d){1}$", "2026-07"),
        ("^[a&&b]+$", "a&b"),
        ("^[a~~b[:alpha:]+$", "~:["),
        ("^[-a-]$", "-"),
        ("^[+--]$", ","),
        ("^[^a-c]$", "é"),
        ("^a{2,}?$", "aaa"),
        ("^(|a)(b|)$", ""),
        ("^(?:){3}x{0}$", ""),
        ("", "anything"),
        ("x*", ""),
        ("^.{2}$", "🐲é"),
        ("^[\\w.+-]+@[\\w-]+\\.[a-z]{2,}$", "a.b+c@example.com"),
        ("#", "#"),
        (" ", " "),
    ] {
        assert!(matches(pattern, text), "{pattern} {text:?}");
    }
    for (pattern, text) in [
        ("^a$", "a\n"),
        ("^a$", "b\na"),
        ("^.$", "\r"),
        ("^.$", "\u{2028}"),
        ("[]", "a"),
        ("^\\s$", "\u{85}"),
        ("^\\w$", "é"),
        ("^\\d$", "\u{7c0}"),
        ("a\\bb", "ab"),
        ("^[a&&b]$", ""),
        ("a", "A"),
    ] {
        assert!(!matches(pattern, text), "{pattern} {text:?}");
    }
}

#[test]
fn a_pattern_that_cannot_be_said_in_linear_time_or_at_all_is_refused() {
    for (pattern, why) in [
        ("(?=a)", "look-around"),
        ("(?!a)", "look-around"),
        ("(?<=a)", "look-around"),
        ("(?<!a)", "look-around"),
        ("(a)\\1", "backreference"),
        ("(?<n>a)\\k<n>", "backreference"),
        ("\\p{L}", "`\\p`"),
        ("[\\P{L}]", "`\\p`"),
        ("(?i)a", "`(?`"),
        ("(?i:a)", "`(?`"),
        ("(?P<n>a)", "`(?`"),
        ("(", "without its `)`"),
        (")", "without its `(`"),
        ("a)b", "without its `(`"),
        ("[a", "without its `]`"),
        ("(?<a", "without its `>`"),
        ("(?<>a)", "no name"),
        ("*", "nothing to repeat"),
        ("a**", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("a{1}{2}", "bare `{`"),
        ("a{", "no `{n}`"),
        ("a{,3}", "no `{n}`"),
        ("a{2,1}", "below its least"),
        ("a}", "bare `}`"),
        ("]", "bare `]`"),
        ("\\", "backslash"),
        ("\\A", "does not know"),
        ("\\z", "does not know"),
        ("\\h", "does not know"),
        ("[\\B]", "does not know"),
        ("\\cé", "`\\c`"),
        ("\\x4", "`\\x`"),
        ("\\u12", "`\\u`"),
        ("\\u{110000}", "`\\u`"),
        ("\\uD83D", "`\\u`"),
        ("[\\uD800-\\uDFFF]", "`\\u`"),
        ("[z-a]", "above its start"),
        ("[a--]", "above its start"),
        ("[a-\\d]", "above its start"),
        ("[\\d-z]", "starts with a set"),
        ("\\00", "backreference"),
        ("a{2000}", "too large"),
        ("((a{20}){20}){20}", "too large"),
        ("(?:){99999999999999999999999}", "too large"),
        (&"(".repeat(40), "inside each other"),
    ] {
        let refusal = refused(json!({ "properties": {"score": {"pattern": pattern}} }));
        assert_eq!(refusal.field, "properties.score.pattern", "{pattern}");
        assert!(refusal.why.contains(why), "{pattern}: {refusal:?}");
    }
    let many: Map<String, Value> = (0..20).map(|i| (format!("{i}a{{1000}}"), json!(true))).collect();
    assert!(refused(json!({ "patternProperties": many })).why.contains("together"));
}

fn millis(schema: &Schema, instance: &Value) -> (Result<(), Mismatch>, u128) {
    #[allow(clippy::disallowed_methods)] // tests about time
    let start = std::time::Instant::now();
    let checked = schema.check(instance);
    (checked, start.elapsed().as_millis())
}

/// Schemas and instances that are as expensive as [`STEP_BUDGET`] and the limits allow, each with a name.
fn attacks() -> Vec<(&'static str, Schema, Value)> {
    let doubled = |keyword: &str, last: Value| {
        let level = |i: usize| json!({ keyword: [{"$ref": format!("#/$defs/{}", i + 1)}, {"$ref": format!("#/$defs/{}", i + 1)}] });
        let mut levels: Map<String, Value> = (0..40).map(|i| (i.to_string(), level(i))).collect();
        levels.insert("40".to_owned(), last);
        json!({ "$ref": "#/$defs/0", "$defs": levels })
    };
    let slow = |pattern: &str| json!({ "pattern": pattern });
    let long_names: Map<String, Value> = (0..60).map(|i| (format!("{}{i}", "n".repeat(2_000)), json!(i))).collect();
    let lists: Vec<Value> = (0..100_000).map(|i| json!([1, 2, 3, i])).collect();
    let floats: Vec<f64> = (0..20_000).map(|i| 1e300 + f64::from(i) * 1e285).collect();
    let objects = vec![json!({"a": 1}); 5_000];
    let values: Vec<String> = (0..2_000).map(|i| format!("value {i}")).collect();
    let all_of_same =
        |rule: Value| json!({ "items": {"allOf": vec![json!({"$ref": "#/$defs/r"}); 900]}, "$defs": {"r": rule} });
    // As much text as the budget of steps allows.
    let repeats = |pattern: &str, text: &str| {
        let paid = |times: usize| read(&slow(pattern)).steps_for(&json!(text.repeat(times))) < STEP_BUDGET;
        let times =
            (0..18).rev().fold(0, |times, bit| if paid(times + (1 << bit)) { times + (1 << bit) } else { times });
        (slow(pattern), json!(text.repeat(times)))
    };
    let full = |name, (schema, instance): (Value, Value)| (name, schema, instance);
    let cases = [
        ("billion laughs, allOf", doubled("allOf", json!(true)), json!(1)),
        ("billion laughs, anyOf", doubled("anyOf", json!(false)), json!(1)),
        ("billion laughs, oneOf", doubled("oneOf", json!({ "enum": values })), json!("value 1999")),
        ("uniqueItems, 100k lists", json!({"uniqueItems": true}), json!(lists)),
        ("uniqueItems, 100k whole numbers", json!({"uniqueItems": true}), json!((0..100_000).collect::<Vec<_>>())),
        ("uniqueItems, nested", json!({"uniqueItems": true}), json!([lists])),
        ("long texts", all_of_same(json!({ "const": "x".repeat(20_000) })), json!(vec!["x".repeat(20_000); 9])),
        (
            "unique long texts",
            all_of_same(json!({"uniqueItems": true})),
            json!(vec![json!(["x".repeat(20_000), "y".repeat(20_000)]); 9]),
        ),
        full("nested quantifiers", repeats("^(a+)+$", "a")),
        full("nested quantifiers, anywhere", repeats("(a*)*(a*)*(a*)*b", "a")),
        full("many states", repeats("(?:a?){500}b", "a")),
        full("many states at once", repeats("(?:a|a|a|a|a|a|a|a|a|a|a|a|a|a){24}b", "a")),
        full("many empty ways", repeats("(?:a|a|a|a|a|a|a|a|a|||a*|a*|a*|){12}b", "a")),
        full("many ranges", repeats("(?:[^\\s\\w][^\\s\\w]?)*(?:\\S?){80}!", "é")),
        full("ranges of the end", repeats("(?:\\S?){200}!", "🦀")),
        full("one start", repeats("^(?:a|b|c|a|b|c|aa|a?a?a?|\\B\\B\\B\\Ba){30}", "a")),
        full("one start, fixed", repeats("^(?:a|b|c|a|b|c|a){30}(?:aa){90}[^b]{200}a*$", "a")),
        full("one start, zero width", repeats("^(?:\\B|a|^|$|\\b)*b", "a")),
        full("nothing to find", repeats("b", "a")),
        full("nothing to find, many bytes", repeats("b", "🦀")),
        ("many patterns", all_of_same(slow("a?a?a?a?a?b")), json!(vec!["aaaaaaaaaab"; 1_000])),
        ("calls itself", json!({"$ref": "#"}), json!(1)),
        ("calls itself twice", json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), json!(1)),
        ("multiples", all_of_same(json!({"multipleOf": 1e-300})), json!(floats)),
        ("multiples, uneven", all_of_same(json!({"multipleOf": 7})), json!(vec![7e300; 20_000])),
        ("bounds", all_of_same(json!({"maximum": 1.7e308, "minimum": 0.5, "type": "integer"})), json!(floats)),
        ("enums", all_of_same(json!({ "enum": values })), json!(vec!["value 1999"; 1_000])),
        (
            "equal objects",
            all_of_same(json!({"const": {"a": {"b": {"c": "d"}}}})),
            json!(vec![json!({"a": {"b": {"c": "d"}}}); 5_000]),
        ),
        ("lengths", all_of_same(json!({"maxLength": 1e9, "minLength": 1})), json!(vec!["é".repeat(1_000); 60])),
        ("long names", all_of_same(json!({"propertyNames": {"minLength": 1}})), json!([long_names])),
        ("short names", all_of_same(json!({"propertyNames": {"minLength": 1}})), json!(objects)),
        ("required", all_of_same(json!({"required": ["a"], "maxProperties": 1, "minProperties": 1})), json!(objects)),
        (
            "required, long",
            all_of_same(json!({"required": long_names.keys().take(9).collect::<Vec<_>>()})),
            json!([long_names]),
        ),
        ("look-ups", all_of_same(json!({"properties": {"a": true, "x": true, "y": true}})), json!(objects)),
        (
            "long look-ups",
            all_of_same(
                json!({"properties": long_names.keys().take(9).map(|k| (k.clone(), json!(true))).collect::<Map<_, _>>()}),
            ),
            json!([long_names]),
        ),
        ("quiet failures", json!({"items": {"anyOf": vec![json!({"required": ["b"]}); 1_500]}}), json!(objects)),
        ("quiet types", json!({"items": {"not": {"anyOf": vec![json!({"type": "null"}); 1_500]}}}), json!(objects)),
        (
            "contains",
            all_of_same(json!({"contains": {"type": "null"}, "minContains": 0, "maxContains": 1})),
            json!([vec![1; 20_000]]),
        ),
    ];
    cases.into_iter().map(|(name, schema, instance)| (name, read(&schema), instance)).collect()
}

#[test]
fn nothing_takes_long() {
    let mut worst = 0;
    for (name, schema, instance) in attacks() {
        let (checked, took) = millis(&schema, &instance);
        let keyword = checked.as_ref().map_or_else(|mismatch| mismatch.keyword, |()| "ok");
        println!("{took:>5} ms  {name}: {keyword}, {} units", schema.steps_for(&instance));
        assert!(took < 1_000, "{name}: {took} ms");
        worst = worst.max(took);
    }
    println!("{worst} ms at worst");
}

#[test]
fn a_check_that_reaches_a_limit_fails_whatever_is_around_it() {
    let mismatch_of = |schema: Value, instance: Value| {
        let Mismatch { field, keyword, .. } = read(&schema).check(&instance).unwrap_err();
        (field, keyword)
    };
    assert_eq!(mismatch_of(json!({"$ref": "#"}), json!(1)), (String::new(), "depth"));
    assert_eq!(mismatch_of(json!({"not": {"$ref": "#"}}), json!(1)).1, "depth");
    assert_eq!(
        mismatch_of(json!({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, true]}}}), json!({"a": 1})),
        ("a".to_owned(), "depth")
    );
    let spent = json!({"pattern": "(?:a?){500}b"});
    let text = json!("a".repeat(50_000));
    for schema in [
        json!({ "not": spent }),
        json!({"anyOf": [spent, true]}),
        json!({"oneOf": [spent, true]}),
        json!({"if": spent, "else": true}),
    ] {
        assert_eq!(mismatch_of(schema, text.clone()).1, "fuel");
    }
    assert_eq!(mismatch_of(json!({"contains": spent}), json!([text, 1])), ("[0]".to_owned(), "fuel"));
    assert_eq!(mismatch_of(json!({"propertyNames": spent}), json!({"a".repeat(50_000): 1})).1, "fuel");
}

/// The stack of wasm is 1 MiB, and others are on it too.
#[test]
fn a_quarter_of_the_stack_is_enough() {
    let check = || {
        let tree = json!({"items": {"allOf": [{"$ref": "#"}, {"additionalProperties": {"$ref": "#"}}]}});
        let mut instance = json!("leaf");
        for i in 0..120 {
            instance = if i % 2 == 0 { json!([instance]) } else { json!([{ "a": instance }]) };
        }
        let deep = Schema::read(&tree).unwrap().check(&instance).unwrap_err().keyword;
        let unique = Schema::read(&json!({"uniqueItems": true})).unwrap();
        let same = unique.check(&json!([instance.clone(), instance.clone()])).unwrap_err().keyword;
        let pattern = format!("{}a{}", "(".repeat(32), ")+".repeat(32));
        let nested = (1..63).fold(json!({ "pattern": pattern }), |inner, _| json!({ "not": inner }));
        let nested = Schema::read(&nested).unwrap().check(&json!("a")).is_ok();
        std::mem::forget(instance); // dropping it is not what is measured
        (deep, same, nested)
    };
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(check).unwrap();
    assert_eq!(thread.join().unwrap(), ("depth", "depth", true));
}

/// What a sensible seller's model writes: 2,000 objects of 10 properties, over 128 KiB.
#[test]
fn an_honest_instance_passes() {
    let schema = json!({
        "type": "array", "minItems": 1, "maxItems": 5_000, "uniqueItems": true,
        "items": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "name", "mail", "day", "score", "tags", "ok", "kind", "at", "note"],
            "properties": {
                "id": {"$ref": "#/$defs/id"}, "name": {"type": "string", "minLength": 1, "maxLength": 80},
                "mail": {"type": "string", "pattern": "^[^@\\s]+@[^@\\s]+\\.[a-z]{2,}$"},
                "day": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"},
                "score": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.01},
                "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": true},
                "ok": {"type": "boolean"}, "kind": {"oneOf": [{"const": "x"}, {"const": "y"}]},
                "at": {"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]},
                "note": {"anyOf": [{"type": "null"}, {"type": "string"}]}
            }
        },
        "$defs": {"id": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}$"}}
    });
    let item = |i: usize| {
        json!({
            "id": format!("{i:08x}-00ff-4abc"), "name": "A name", "mail": "someone@example.com", "day": "2026-07-01",
            "score": (i % 100) as f64 / 100.0, "tags": ["a", "b"], "ok": true, "kind": "x", "at": {"line": i}, "note": null
        })
    };
    let instance = Value::Array((0..2_000).map(item).collect());
    assert!(instance.to_string().len() > 128 * 1024);
    let schema = read(&schema);
    let (checked, took) = millis(&schema, &instance);
    println!(
        "honest: {took} ms, {} of {STEP_BUDGET} units, {} bytes",
        schema.steps_for(&instance),
        instance.to_string().len()
    );
    checked.unwrap();
    assert!(schema.steps_for(&instance) < STEP_BUDGET / 3 * 2);
}

/// Schemas of the vocabulary, mostly well-formed.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        prop::sample::select(vec!["null", "boolean", "object", "array", "number", "integer", "string"])
            .prop_map(|t| json!({ "type": t })),
        prop::sample::select(vec!["#", "#/$defs/a", "#b", "#/items", "#/allOf/0", "#/properties/a"])
            .prop_map(|r| json!({ "$ref": r })),
        prop::sample::select(vec!["^a", "[^b]+$", "(a|b)*", "\\s", "(", "(?=a)", "a{2,3}", "[a-"])
            .prop_map(|p| json!({ "pattern": p })),
        (
            prop::sample::select(vec![
                "maximum",
                "multipleOf",
                "minLength",
                "maxItems",
                "minContains",
                "maxProperties"
            ]),
            numbers()
        )
            .prop_map(|(k, n)| json!({ k: n })),
        instances().prop_map(|v| json!({ "const": v })),
        prop::collection::vec(instances(), 0..3).prop_map(|v| json!({ "enum": v })),
        Just(json!({"uniqueItems": true, "required": ["a"], "dependentRequired": {"a": ["b"]}})),
        Just(json!({"$anchor": "b"})),
        instances(),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let single = prop::sample::select(vec![
            "items",
            "contains",
            "not",
            "if",
            "then",
            "else",
            "additionalProperties",
            "propertyNames",
            "contentSchema",
            "typo",
        ]);
        let several = prop::sample::select(vec!["allOf", "anyOf", "oneOf", "prefixItems"]);
        let table = prop::sample::select(vec!["properties", "patternProperties", "dependentSchemas", "$defs"]);
        prop_oneof![
            prop::collection::vec((single, inner.clone()), 1..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            (several, prop::collection::vec(inner.clone(), 0..4)).prop_map(|(k, v)| json!({ k: v })),
            (table, prop::collection::btree_map("[ab]{1,2}", inner.clone(), 0..3)).prop_map(|(k, v)| json!({ k: v })),
            (inner.clone(), inner).prop_map(|(a, b)| match (a, b) {
                (Value::Object(mut a), Value::Object(b)) => {
                    a.extend(b);
                    Value::Object(a)
                }
                (a, _) => a,
            }),
        ]
    })
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3..9).prop_map(Value::from),
        any::<u64>().prop_map(Value::from)
    ]
}

fn instances() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers(),
        "[ab \u{2028}é🦀]{0,4}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn nothing_panics_and_each_answer_is_the_same_twice(schema in schemas(), instance in instances()) {
        if let Ok(read) = Schema::read(&schema) {
            let checked = read.check(&instance);
            prop_assert_eq!(&checked, &read.check(&instance));
            let by_limit = checked.as_ref().is_err_and(|m| m.keyword == "fuel" || m.keyword == "depth");
            if let (false, Ok(opposite)) = (by_limit, Schema::read(&json!({ "$defs": {"s": schema}, "not": {"$ref": "#/$defs/s"} }))) {
                // References count from the root; where there are none, `not` is the opposite.
                if !schema.to_string().contains("$ref") {
                    prop_assert_eq!(checked.is_ok(), opposite.check(&instance).is_err());
                }
            }
        }
    }

    #[test]
    fn no_pattern_panics(pattern in "[ab(){}\\[\\]|*+?.^$\\\\dDsSwWuxckp0-9,:<>=!-]{0,12}", text in "[ab0 \n-]{0,8}") {
        if let Ok(read) = Schema::read(&json!({ "pattern": pattern })) {
            let _ = read.check(&json!(text));
        }
    }

    #[test]
    fn a_value_is_equal_to_itself_and_satisfies_its_const(value in instances()) {
        let (equal, twice) = (json!({ "const": value }), json!([value, value]));
        prop_assert!(accepts(&equal, &value));
        let unique = json!({"uniqueItems": true});
        prop_assert!(!accepts(&unique, &twice));
    }

    /// Against the division of whole numbers, moved behind the point.
    #[test]
    fn multiples_of_decimals_are_those_of_whole_numbers(a in 0u64..100_000, b in 1u64..1_000, places in 0u32..5) {
        let decimal = |n: u64| serde_json::from_str::<Value>(&format!("{n}e-{places}")).unwrap();
        prop_assert_eq!(accepts(&json!({ "multipleOf": decimal(b) }), &decimal(a)), a % b == 0);
    }
}
