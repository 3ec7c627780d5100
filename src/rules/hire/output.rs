//! Output types: the forms in which a result can be delivered (HIRE, "Output Types").

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputType {
    /// Delivered inline, as it was written.
    Text,
    /// Delivered inline, and checked against the contract's schema.
    Json,
    /// Stored, and delivered by its URL.
    File,
    /// Several named deliverables, each of type text, json or file.
    Multiple,
    /// Events, as the text is written. Payment is due when it begins.
    Stream,
}

impl OutputType {
    /// Lists all names, for messages.
    pub const NAMES: &'static str = "text, json, file, multiple or stream";

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::File => "file",
            Self::Multiple => "multiple",
            Self::Stream => "stream",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Text, Self::Json, Self::File, Self::Multiple, Self::Stream];
        all.into_iter().find(|output| output.as_str() == name)
    }

    /// Whether a result of this type may need a store for files.
    pub const fn needs_files(self) -> bool {
        matches!(self, Self::File | Self::Multiple)
    }
}

/// Name and media type of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    pub name: String,
    pub mime: String,
}

/// Whether a name is safe in a URL, in a header, and in a folder of any operating system.
pub fn is_file_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

/// Whether a text is `type/subtype`, with parameters that need no quotes.
pub fn is_media_type(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parts = essence.split_once('/');
    let named = parts.is_some_and(|(a, b)| [a, b].iter().all(|part| !part.is_empty() && part.bytes().all(token)));
    named && text.len() <= 100 && parameters.bytes().all(|b| token(b) || matches!(b, b' ' | b'=' | b';'))
}
