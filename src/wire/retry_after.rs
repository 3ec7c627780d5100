//! The header `Retry-After` (RFC 9110, 10.2.3). Some servers write a fraction of a second.

use time::format_description::well_known::Rfc2822;
use time::OffsetDateTime;

/// How many seconds to wait, at `now` (Unix milliseconds). `None`: the text is neither a number nor a date.
pub fn seconds(text: &str, now: u64) -> Option<u32> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        // Rust's conversion stops at the limits of the integer.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        return seconds.is_finite().then(|| seconds.ceil() as u32);
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?.unix_timestamp();
    let wait = u64::try_from(at).unwrap_or_default().saturating_sub(now / 1000);
    Some(u32::try_from(wait).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_fractions_and_dates_are_read_and_nothing_else() {
        let now = 1_445_412_470_000; // Wed, 21 Oct 2015 07:27:50 GMT
        for (text, wait) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("1.5", Some(2)),
            ("-3", Some(0)),
            ("99999999999", Some(u32::MAX)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(10)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("", None),
            ("soon", None),
            ("NaN", None),
            ("inf", None),
            ("2015-10-21", None),
        ] {
            assert_eq!(seconds(text, now), wait, "{text:?}");
        }
    }
}
