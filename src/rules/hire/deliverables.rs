//! Deliverables: what Claude's text amounts to under a contract.

use super::output::{is_file_name, is_media_type, FileSpec, OutputType};
use crate::json_schema::{Mismatch, Schema};
use crate::wire::canonical::{canonical, sha256_hex};
use crate::wire::strict;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The most deliverables of one result of type `multiple`.
pub(super) const MAX_DELIVERABLES: usize = 20;

const TEXT_MIME: &str = "text/plain; charset=utf-8";

/// A result, or a named part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Deliverable {
    /// Unique within its result.
    pub name: String,
    /// One of text, json and file.
    pub kind: OutputType,
    pub mime: String,
    /// The bytes that size and checksum are of. JSON is in its canonical form (RFC 8785), so that a seeker can
    /// compute the checksum from the inline value.
    pub bytes: Vec<u8>,
    /// Inline content; `None` for a file.
    pub content: Option<Value>,
}

impl Deliverable {
    fn text(name: &str, text: &str) -> Self {
        let (bytes, content) = (text.as_bytes().to_vec(), Some(text.into()));
        Self { name: name.to_owned(), kind: OutputType::Text, mime: TEXT_MIME.to_owned(), bytes, content }
    }

    fn json(name: &str, value: Value) -> Self {
        let (mime, bytes) = ("application/json".to_owned(), canonical(&value));
        Self { name: name.to_owned(), kind: OutputType::Json, mime, bytes, content: Some(value) }
    }

    fn file(name: &str, mime: &str, text: &str) -> Self {
        let (mime, bytes) = (mime.to_owned(), text.as_bytes().to_vec());
        Self { name: name.to_owned(), kind: OutputType::File, mime, bytes, content: None }
    }

    pub fn checksum(&self) -> String {
        format!("sha256:{}", sha256_hex(&self.bytes))
    }

    /// The members of HIRE's document. `url` is where a file can be downloaded.
    pub fn describe(&self, url: Option<String>) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("name".to_owned(), self.name.clone().into());
        members.insert("type".to_owned(), self.kind.as_str().into());
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

/// Reads Claude's text as deliverables. The error says what is wrong with the text, for Claude to correct it.
pub fn deliverables(
    output: OutputType,
    schema: Option<&Value>,
    file: &FileSpec,
    text: &str,
) -> Result<Vec<Deliverable>, String> {
    match output {
        OutputType::Text | OutputType::Stream => Ok(vec![Deliverable::text("output.txt", text)]),
        OutputType::File => Ok(vec![Deliverable::file(&file.name, &file.mime, text)]),
        OutputType::Json => {
            let value = parse_json(text)?;
            if let Some(schema) = schema {
                check(schema, &value)?;
            }
            Ok(vec![Deliverable::json("output.json", value)])
        }
        OutputType::Multiple => several(&parse_json(text)?),
    }
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    // The schema could be read when the contract was registered, so this error is not expected.
    let schema = Schema::read(schema).map_err(|unsupported| unsupported.why)?;
    schema.check(value).map_err(|Mismatch { field, expected, keyword }| {
        let place = if field.is_empty() { "The whole value".to_owned() } else { format!("`{field}`") };
        format!("{place} does not satisfy `{keyword}`: expected {expected}.")
    })
}

/// Parses one JSON value. Models often put it into a code fence, so one fence around it is allowed.
fn parse_json(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let fenced = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let json = fenced.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner));
    strict::from_slice(json.as_bytes()).map_err(|error| format!("It is not one JSON value: {error}."))
}

/// One of the `items` that Claude writes for a result of type `multiple`.
#[derive(Deserialize)]
struct Item {
    name: String,
    #[serde(rename = "type")]
    kind: OutputType,
    #[serde(default)]
    mime: Option<String>,
    content: Value,
}

fn several(value: &Value) -> Result<Vec<Deliverable>, String> {
    let wrong_form = || "It is not {\"items\": [{\"name\", \"type\", \"mime\", \"content\"}, …]}.".to_owned();
    let items = value.get("items").cloned().ok_or_else(wrong_form)?;
    let items: Vec<Item> = serde_json::from_value(items).map_err(|_| wrong_form())?;
    if items.is_empty() || items.len() > MAX_DELIVERABLES {
        return Err(format!("There must be 1 to {MAX_DELIVERABLES} items."));
    }
    let mut deliverables: Vec<Deliverable> = Vec::new();
    for item in items {
        if !is_file_name(&item.name) || deliverables.iter().any(|other| other.name == item.name) {
            return Err("Each item needs a name of its own, of letters, digits, dots, - and _.".to_owned());
        }
        deliverables.push(deliverable(item)?);
    }
    Ok(deliverables)
}

fn deliverable(Item { name, kind, mime, content }: Item) -> Result<Deliverable, String> {
    match (kind, content.as_str()) {
        (OutputType::Text, Some(text)) => Ok(Deliverable::text(&name, text)),
        (OutputType::File, Some(text)) => {
            let mime = mime.unwrap_or_else(|| TEXT_MIME.to_owned());
            if !is_media_type(&mime) {
                return Err(format!("The mime of {name} is not a media type."));
            }
            Ok(Deliverable::file(&name, &mime, text))
        }
        (OutputType::Json, Some(text)) => {
            let value = parse_json(text).map_err(|wrong| format!("The content of {name}: {wrong}"))?;
            Ok(Deliverable::json(&name, value))
        }
        (OutputType::Json, None) => Ok(Deliverable::json(&name, content)),
        _ => Err(format!("The type of {name} must be text, json or file, its content a string.")),
    }
}
