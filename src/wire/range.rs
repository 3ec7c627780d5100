//! Byte ranges (RFC 9110, 14): one range of a body whose length is known.

/// What of a body is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// From the first position to the last, both included.
    Part(usize, usize),
    /// Nothing that is there.
    Nothing,
}

/// Reads a `Range` header for a body of `length` bytes. What is no range of bytes, or several, asks for all of it,
/// as the RFC allows.
pub fn read(header: &str, length: usize) -> Wanted {
    let range = header.trim().strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = range else { return Wanted::Whole };
    let end = length.saturating_sub(1);
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // Beyond any body is the end of this one.
        plain.then(|| text.parse().unwrap_or(usize::MAX))
    };
    match (first, last, number(first), number(last)) {
        ("", _, None, Some(0)) => Wanted::Nothing,
        ("", _, None, Some(suffix)) if length > 0 => Wanted::Part(length.saturating_sub(suffix), end),
        (_, "", Some(first), None) if first < length => Wanted::Part(first, end),
        (_, _, Some(first), Some(last)) if first <= last && first < length => Wanted::Part(first, last.min(end)),
        ("", _, None, Some(_)) | (_, "", Some(_), None) => Wanted::Nothing,
        (_, _, Some(first), Some(last)) if first <= last => Wanted::Nothing,
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_ten_bytes() {
        for (header, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 0)),
            ("bytes=2-4", Wanted::Part(2, 4)),
            ("bytes=2-", Wanted::Part(2, 9)),
            ("bytes=2-400", Wanted::Part(2, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-30", Wanted::Part(0, 9)),
            ("bytes=9-9", Wanted::Part(9, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-12", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(read(header, 10), wanted, "{header}");
        }
        assert_eq!(read("bytes=-3", 0), Wanted::Nothing);
        assert_eq!(read("bytes=0-", 0), Wanted::Nothing);
    }
}
