//! Deliverables: Claude's text as what a contract asks for.

use coinslot::testing::rules::hire::deliverables::{deliverables, Deliverable};
use coinslot::testing::rules::hire::output::{is_file_name, is_media_type, FileSpec, OutputType};
use coinslot::testing::wire::canonical::sha256_hex;
use serde_json::{json, Value};

fn file() -> FileSpec {
    FileSpec { name: "report.md".to_owned(), mime: "text/markdown; charset=utf-8".to_owned() }
}

fn read(output: OutputType, schema: Option<Value>, text: &str) -> Result<Vec<Deliverable>, String> {
    deliverables(output, schema.as_ref(), &file(), text)
}

#[test]
fn text_and_files_are_the_bytes_that_claude_wrote() {
    let text = "  Grüße,\n\u{1F600} ";
    for output in [OutputType::Text, OutputType::Stream, OutputType::File] {
        let item = read(output, None, text).unwrap().remove(0);
        assert_eq!(item.bytes, text.as_bytes());
        assert_eq!(item.checksum(), format!("sha256:{}", sha256_hex(text.as_bytes())));
        assert_eq!(item.content.is_none(), output == OutputType::File);
    }
    let described =
        Value::Object(read(OutputType::File, None, "abc").unwrap()[0].describe(Some("https://x/y".to_owned())));
    let checksum = format!("sha256:{}", sha256_hex(b"abc"));
    let mime = "text/markdown; charset=utf-8";
    let wanted = json!({"name": "report.md", "type": "file", "mime": mime, "size": 3, "checksum": checksum, "url": "https://x/y"});
    assert_eq!(described, wanted);
}

#[test]
fn json_is_read_as_models_write_it_and_its_checksum_is_of_its_canonical_form() {
    for text in
        ["{\"b\": 1.0, \"a\": [true]}", "\n ```json\n{\"a\":[true],\"b\":1}\n``` \n", "```\n{\"a\":[true],\"b\":1}```"]
    {
        let item = read(OutputType::Json, None, text).unwrap().remove(0);
        assert_eq!(
            item.content,
            Some(serde_json::from_str(text.trim().trim_matches('`').trim_start_matches("json")).unwrap())
        );
        assert_eq!(item.bytes, b"{\"a\":[true],\"b\":1}");
    }
    for text in ["", "Here you are: {}", "{} {}", "{\"a\":1,\"a\":2}", "```json\n{}", "{'a':1}"] {
        let wrong = read(OutputType::Json, None, text).unwrap_err();
        assert!(wrong.starts_with("It is not one JSON value"), "{text}: {wrong}");
    }
}

#[test]
fn json_is_checked_against_its_schema_and_the_error_names_what_is_wrong() {
    let schema =
        json!({"type": "object", "required": ["score"], "properties": {"score": {"type": "number", "maximum": 10}}});
    assert!(read(OutputType::Json, Some(schema.clone()), "{\"score\": 8, \"more\": 1}").is_ok());
    let wrong = read(OutputType::Json, Some(schema.clone()), "{\"score\": 11}").unwrap_err();
    assert!(wrong.contains("`score`") && wrong.contains("`maximum`") && wrong.contains("10"), "{wrong}");
    let wrong = read(OutputType::Json, Some(schema), "[]").unwrap_err();
    assert!(wrong.contains("The whole value") && wrong.contains("`type`"), "{wrong}");
}

#[test]
fn of_several_deliverables_each_has_its_name_type_and_bytes() {
    let text = json!({"items": [
        {"name": "logo.svg", "type": "file", "mime": "image/svg+xml", "content": "<svg/>"},
        {"name": "notes.json", "type": "json", "content": "{\"b\":1,\"a\":2}"},
        {"name": "more.json", "type": "json", "content": {"x": null}},
        {"name": "hello", "type": "text", "content": "hi"},
    ]});
    let items = read(OutputType::Multiple, None, &text.to_string()).unwrap();
    let shapes: Vec<_> = items.iter().map(|i| (i.name.as_str(), i.kind.as_str(), i.content.is_some())).collect();
    assert_eq!(
        shapes,
        [
            ("logo.svg", "file", false),
            ("notes.json", "json", true),
            ("more.json", "json", true),
            ("hello", "text", true)
        ]
    );
    assert_eq!(items[0].mime, "image/svg+xml");
    assert_eq!(items[1].bytes, b"{\"a\":2,\"b\":1}");
    for items in [
        json!([]),
        json!([{"name": "a", "type": "text", "content": "1"}, {"name": "a", "type": "text", "content": "2"}]),
        json!([{"name": "../a", "type": "text", "content": "1"}]),
        json!([{"name": "a", "type": "stream", "content": "1"}]),
        json!([{"name": "a", "type": "file", "mime": "no\r\nX: 1", "content": "1"}]),
        json!([{"name": "a", "type": "file", "content": {"b": 1}}]),
        json!([{"name": "a", "type": "json", "content": "{"}]),
        json!([{"name": "a", "type": "text"}]),
        json!((0..21).map(|n| json!({"name": format!("f{n}"), "type": "text", "content": ""})).collect::<Vec<_>>()),
        json!("items"),
    ] {
        assert!(read(OutputType::Multiple, None, &json!({"items": items}).to_string()).is_err(), "{items}");
    }
}

#[test]
fn file_names_and_media_types_need_no_quotes() {
    for name in ["a", "report-2.final_v3.md", "README"] {
        assert!(is_file_name(name), "{name}");
    }
    for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\"b", "ä", "a?b", "a%2f", &"x".repeat(101)] {
        assert!(!is_file_name(name), "{name}");
    }
    for mime in ["text/plain", "image/svg+xml", "text/markdown; charset=utf-8", "application/vnd.x-y.z+json"] {
        assert!(is_media_type(mime), "{mime}");
    }
    for mime in [
        "",
        "text",
        "/",
        "text/",
        "text/plain\r\nX: 1",
        "text/plain; x=\"1\"",
        "a/b/c",
        &format!("a/{}", "b".repeat(100)),
    ] {
        assert!(!is_media_type(mime), "{mime}");
    }
}
