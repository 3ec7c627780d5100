//! The `Accept` header (RFC 9110, 12.5.1), for the one choice that coinslot offers: SSE or JSON.

/// Whether the caller prefers JSON to an event stream. A header that names neither, or both with the same weight, means
/// the stream.
pub fn prefers_json(accept: &str) -> bool {
    weight(accept, "application/json") > weight(accept, "text/event-stream")
}

/// The weight of a media type that the header names in full, in thousandths; 0 where it does not.
fn weight(accept: &str, media_type: &str) -> u16 {
    let weights = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(media_type))?;
        let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        Some(q.map_or(1000, thousandths))
    });
    weights.max().unwrap_or(0)
}

/// Reads a weight in thousandths: `0.5` is 500. A malformed weight counts as 1, like an absent one.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole, digits.parse::<u16>()) {
        ("0", Ok(fraction)) => fraction,
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::prefers_json;

    #[test]
    fn json_is_preferred_only_where_it_says_so() {
        for accept in [
            "application/json",
            "application/json, */*",
            "Application/JSON; charset=utf-8",
            "text/event-stream;q=0, application/json",
            "text/event-stream;q=0.5,application/json;q=0.9",
        ] {
            assert!(prefers_json(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/event-stream",
            "application/json, text/event-stream",
            "application/jsonx",
            "application/json;q=0",
            "text/event-stream, application/json;q=0.9",
        ] {
            assert!(!prefers_json(accept), "{accept}");
        }
    }
}
