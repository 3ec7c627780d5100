//! The `Prefer` header (RFC 7240): a caller asks for a response at once, or after at most some seconds.

/// The preferences that are honoured here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// Whether the caller sent `respond-async`.
    pub at_once: bool,
    /// The value of `wait`, in seconds.
    pub wait: Option<u32>,
}

/// Reads the header's value. Unknown preferences are ignored, and of two `wait` the first one counts.
pub fn read(header: &str) -> Prefer {
    let mut prefer = Prefer::default();
    for preference in header.split(',') {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => prefer.at_once = true,
            "wait" => prefer.wait = prefer.wait.or(value.trim().trim_matches('"').parse().ok()),
            _ => {}
        }
    }
    prefer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_preferred() {
        let prefer = |at_once, wait| Prefer { at_once, wait };
        assert_eq!(read(""), prefer(false, None));
        assert_eq!(read("respond-async"), prefer(true, None));
        assert_eq!(read("Respond-Async, wait=5"), prefer(true, Some(5)));
        assert_eq!(read("return=minimal; foo=bar, wait = \"10\", wait=3"), prefer(false, Some(10)));
        assert_eq!(read("wait=soon, wait=-1"), prefer(false, None));
    }
}
