//! Byte ranges (RFC 9110, 14): one range of a body whose length is known.

/// The part of a body that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    Whole,
    /// From the first byte to the last, both included.
    Part(usize, usize),
    /// A part that is beyond the body.
    Nothing,
}

/// Reads a `Range` header for a body of `length` bytes. A header that is malformed, or asks for several ranges, asks
/// for the whole body, as the RFC allows.
pub fn read(header: &str, length: usize) -> RangeRequest {
    let range = header.trim().strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = range else { return RangeRequest::Whole };
    let end = length.saturating_sub(1);
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that is too large for the type is beyond the end of any body.
        plain.then(|| text.parse().unwrap_or(usize::MAX))
    };
    match (first, last, number(first), number(last)) {
        ("", _, None, Some(0)) => RangeRequest::Nothing,
        ("", _, None, Some(suffix)) if length > 0 => RangeRequest::Part(length.saturating_sub(suffix), end),
        (_, "", Some(first), None) if first < length => RangeRequest::Part(first, end),
        (_, _, Some(first), Some(last)) if first <= last && first < length => RangeRequest::Part(first, last.min(end)),
        ("", _, None, Some(_)) | (_, "", Some(_), None) => RangeRequest::Nothing,
        (_, _, Some(first), Some(last)) if first <= last => RangeRequest::Nothing,
        _ => RangeRequest::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_ten_bytes() {
        for (header, wanted) in [
            ("bytes=0-0", RangeRequest::Part(0, 0)),
            ("bytes=2-4", RangeRequest::Part(2, 4)),
            ("bytes=2-", RangeRequest::Part(2, 9)),
            ("bytes=2-400", RangeRequest::Part(2, 9)),
            ("bytes=-3", RangeRequest::Part(7, 9)),
            ("bytes=-30", RangeRequest::Part(0, 9)),
            ("bytes=9-9", RangeRequest::Part(9, 9)),
            ("bytes=10-", RangeRequest::Nothing),
            ("bytes=10-12", RangeRequest::Nothing),
            ("bytes=-0", RangeRequest::Nothing),
            ("bytes=99999999999999999999999-", RangeRequest::Nothing),
            ("bytes=4-2", RangeRequest::Whole),
            ("bytes=0-1,3-4", RangeRequest::Whole),
            ("bytes=a-b", RangeRequest::Whole),
            ("bytes=-", RangeRequest::Whole),
            ("bytes=+1-2", RangeRequest::Whole),
            ("lines=0-1", RangeRequest::Whole),
            ("", RangeRequest::Whole),
        ] {
            assert_eq!(read(header, 10), wanted, "{header}");
        }
        assert_eq!(read("bytes=-3", 0), RangeRequest::Nothing);
        assert_eq!(read("bytes=0-", 0), RangeRequest::Nothing);
    }
}
