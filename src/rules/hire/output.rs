//! Output: Claude's text as what a contract asks for. Text, JSON, a file, several items, or a stream.

use crate::json_schema::{Mismatch, Schema};
use crate::wire::canonical::{canonical, sha256_hex};
use crate::wire::strict;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

/// The forms of a result (HIRE, "Output Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputType {
    /// Inline.
    Text,
    /// Inline, and checked against the contract's schema.
    Json,
    /// By URL.
    File,
    /// Several named items, each of one of the forms above.
    Multiple,
    /// Events, as the text is written. Paid when it begins.
    Stream,
}

impl OutputType {
    /// All words, for messages.
    pub const WORDS: &'static str = "text, json, file, multiple or stream";

    /// As HIRE writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::File => "file",
            Self::Multiple => "multiple",
            Self::Stream => "stream",
        }
    }

    /// Reads HIRE's word.
    pub fn read(word: &str) -> Option<Self> {
        let all = [Self::Text, Self::Json, Self::File, Self::Multiple, Self::Stream];
        all.into_iter().find(|output| output.word() == word)
    }

    /// Whether results of it may have to be stored as files.
    pub const fn needs_files(self) -> bool {
        matches!(self, Self::File | Self::Multiple)
    }
}

/// Name and media type of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileKind {
    /// See [`is_file_name`].
    pub name: String,
    /// See [`is_media_type`].
    pub mime: String,
}

/// The most items of one answer.
const MAX_ITEMS: usize = 20;

/// One deliverable.
#[derive(Clone, Debug, PartialEq)]
pub struct Deliverable {
    /// Unique in its answer.
    pub name: String,
    /// Text, JSON or file.
    pub kind: OutputType,
    /// Media type.
    pub mime: String,
    /// What its size and checksum are of. JSON: its canonical form (RFC 8785).
    pub bytes: Vec<u8>,
    /// Inline content; `None` for a file.
    pub content: Option<Value>,
}

impl Deliverable {
    fn text(name: &str, text: &str) -> Self {
        let mime = "text/plain; charset=utf-8".to_owned();
        let (bytes, content) = (text.as_bytes().to_vec(), Some(text.into()));
        Self { name: name.to_owned(), kind: OutputType::Text, mime, bytes, content }
    }

    fn json(name: &str, value: Value) -> Self {
        let (mime, bytes) = ("application/json".to_owned(), canonical(&value));
        Self { name: name.to_owned(), kind: OutputType::Json, mime, bytes, content: Some(value) }
    }

    fn file(name: &str, mime: &str, text: &str) -> Self {
        let (mime, bytes) = (mime.to_owned(), text.as_bytes().to_vec());
        Self { name: name.to_owned(), kind: OutputType::File, mime, bytes, content: None }
    }

    /// `sha256:` and the digest of its bytes.
    pub fn checksum(&self) -> String {
        format!("sha256:{}", sha256_hex(&self.bytes))
    }

    /// As it stands among the deliverables, and in `output`. A file is at `url`.
    pub fn describe(&self, url: Option<String>) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("name".to_owned(), self.name.clone().into());
        members.insert("type".to_owned(), self.kind.word().into());
        members.insert("mime".to_owned(), self.mime.clone().into());
        members.insert("size".to_owned(), self.bytes.len().into());
        members.insert("checksum".to_owned(), self.checksum().into());
        if let Some(content) = &self.content {
            members.insert("content".to_owned(), content.clone());
        }
        if let Some(url) = url {
            members.insert("url".to_owned(), url.into());
        }
        members
    }
}

/// What Claude's text amounts to, or what is wrong with it, in words that Claude can act on.
pub fn items(
    output: OutputType,
    schema: Option<&Value>,
    file: &FileKind,
    text: &str,
) -> Result<Vec<Deliverable>, String> {
    match output {
        OutputType::Text | OutputType::Stream => Ok(vec![Deliverable::text("output.txt", text)]),
        OutputType::File => Ok(vec![Deliverable::file(&file.name, &file.mime, text)]),
        OutputType::Json => {
            let value = json_of(text)?;
            if let Some(schema) = schema {
                check(schema, &value)?;
            }
            Ok(vec![Deliverable::json("output.json", value)])
        }
        OutputType::Multiple => several(&json_of(text)?),
    }
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    // It was readable when the contract was registered.
    let schema = Schema::read(schema).map_err(|unsupported| unsupported.why)?;
    schema.check(value).map_err(|Mismatch { field, expected, keyword }| {
        let place = if field.is_empty() { "The whole value".to_owned() } else { format!("`{field}`") };
        format!("{place} does not satisfy `{keyword}`: expected {expected}.")
    })
}

/// JSON as models write it: as it is, or in one fence.
fn json_of(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let inner = inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner));
    strict::from_slice(inner.as_bytes()).map_err(|error| format!("It is not one JSON value: {error}."))
}

#[derive(Deserialize)]
struct Written {
    name: String,
    #[serde(rename = "type")]
    kind: OutputType,
    #[serde(default)]
    mime: Option<String>,
    content: Value,
}

fn several(value: &Value) -> Result<Vec<Deliverable>, String> {
    let form = || "It is not {\"items\": [{\"name\", \"type\", \"mime\", \"content\"}, …]}.".to_owned();
    let written = value.get("items").cloned().ok_or_else(form)?;
    let written: Vec<Written> = serde_json::from_value(written).map_err(|_| form())?;
    if written.is_empty() || written.len() > MAX_ITEMS {
        return Err(format!("There must be 1 to {MAX_ITEMS} items."));
    }
    let mut items: Vec<Deliverable> = Vec::new();
    for Written { name, kind, mime, content } in written {
        if !is_file_name(&name) || items.iter().any(|item| item.name == name) {
            return Err("Each item needs a name of its own, of letters, digits, dots, - and _.".to_owned());
        }
        let text = content.as_str();
        let item = match (kind, text) {
            (OutputType::Text, Some(text)) => Deliverable::text(&name, text),
            (OutputType::File, Some(text)) => {
                let mime = mime.unwrap_or_else(|| "text/plain; charset=utf-8".to_owned());
                if !is_media_type(&mime) {
                    return Err(format!("The mime of {name} is not a media type."));
                }
                Deliverable::file(&name, &mime, text)
            }
            (OutputType::Json, Some(text)) => {
                Deliverable::json(&name, json_of(text).map_err(|wrong| format!("The content of {name}: {wrong}"))?)
            }
            (OutputType::Json, None) => Deliverable::json(&name, content),
            _ => return Err(format!("The type of {name} must be text, json or file, its content a string.")),
        };
        items.push(item);
    }
    Ok(items)
}

/// Whether a name can stand in a URL and in a folder of anybody's.
pub fn is_file_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// `type/subtype`, with parameters of plain characters.
pub fn is_media_type(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parts = essence.split_once('/');
    let named = parts.is_some_and(|(a, b)| [a, b].iter().all(|part| !part.is_empty() && part.bytes().all(token)));
    named && text.len() <= 100 && parameters.bytes().all(|b| token(b) || matches!(b, b' ' | b'=' | b';'))
}

/// What is added to the user's turn, so that the answer has the form that is wanted.
pub fn instructions(output: OutputType, schema: Option<&Value>) -> Option<String> {
    match output {
        OutputType::Text | OutputType::Stream | OutputType::File => None,
        OutputType::Json => Some(match schema {
            Some(schema) => format!(
                "Answer with one JSON value and nothing else, no code fence. It must satisfy this JSON Schema:\n{schema}"
            ),
            None => "Answer with one JSON value and nothing else, no code fence.".to_owned(),
        }),
        OutputType::Multiple => Some(format!(
            "Answer with one JSON value and nothing else, no code fence: {{\"items\": […]}}, at most {MAX_ITEMS} \
             items, each {{\"name\", \"type\", \"mime\", \"content\"}}. \"name\" is a file name, \"type\" is text, \
             json or file, \"mime\" its media type, \"content\" a string (for json: JSON text)."
        )),
    }
}

/// What Claude is shown of an answer that will not do.
pub fn repair(wrong: &str) -> String {
    format!("That answer cannot be used. {wrong} Answer again, with the corrected JSON value and nothing else.")
}

/// The schema to ask Claude's structured outputs for: what they can hold of `schema`. `None`: they cannot.
///
/// They want every object's members named and closed, and know no bounds; what is left out here is checked
/// afterwards. Closing an object only narrows what Claude may write.
pub fn structured(output: OutputType, schema: Option<&Value>) -> Option<Value> {
    match output {
        OutputType::Json => narrowed(schema?, 0).filter(|schema| schema.get("type") == Some(&"object".into())),
        OutputType::Multiple => Some(json!({
            "type": "object",
            "properties": {"items": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "type": {"type": "string", "enum": ["text", "json", "file"]},
                    "mime": {"type": "string"},
                    "content": {"type": "string"},
                },
                "required": ["name", "type", "mime", "content"],
                "additionalProperties": false,
            }}},
            "required": ["items"],
            "additionalProperties": false,
        })),
        OutputType::Text | OutputType::File | OutputType::Stream => None,
    }
}

/// How deep a schema may be for Claude.
const DEEPEST: usize = 8;
/// What narrows no value, or only bounds one.
const LEFT_OUT: [&str; 18] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "format",
    "$schema",
    "$comment",
    "default",
    "examples",
];

fn narrowed(schema: &Value, depth: usize) -> Option<Value> {
    let schema = schema.as_object().filter(|_| depth < DEEPEST)?;
    let mut out = Map::new();
    for (keyword, value) in schema {
        let value = match keyword.as_str() {
            word if LEFT_OUT.contains(&word) => continue,
            "type" | "enum" | "const" | "title" | "description" | "required" => value.clone(),
            "properties" => {
                let members = value.as_object()?.iter();
                Value::Object(
                    members.map(|(name, s)| Some((name.clone(), narrowed(s, depth + 1)?))).collect::<Option<_>>()?,
                )
            }
            "items" => narrowed(value, depth + 1)?,
            "anyOf" => Value::Array(value.as_array()?.iter().map(|s| narrowed(s, depth + 1)).collect::<Option<_>>()?),
            "additionalProperties" => continue,
            _ => return None,
        };
        out.insert(keyword.clone(), value);
    }
    let is = |kind: &str| match out.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    };
    let (object, array) = (is("object"), is("array"));
    if (object && !out.contains_key("properties")) || (array && !out.contains_key("items")) {
        return None;
    }
    if !object && !array && ["type", "enum", "const", "anyOf"].iter().all(|word| !out.contains_key(*word)) {
        return None;
    }
    if object {
        let named =
            |name: &Value| name.as_str().is_some_and(|n| out.get("properties").is_some_and(|p| p.get(n).is_some()));
        if !out.get("required").and_then(Value::as_array).is_none_or(|names| names.iter().all(named)) {
            return None;
        }
        out.insert("additionalProperties".to_owned(), false.into());
    }
    Some(Value::Object(out))
}
