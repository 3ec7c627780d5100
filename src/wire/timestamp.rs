//! Points in time as JSON spells them: the `date-time` of RFC 3339.

use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

/// The Unix milliseconds of a date-time. `None`: the text is none, or is before 1970.
pub fn parse(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// The date-time of Unix milliseconds, in UTC.
pub fn format(millis: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis).saturating_mul(1_000_000)).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_time_and_back() {
        assert_eq!(parse("2025-01-30T12:00:00Z"), Some(1_738_238_400_000));
        assert_eq!(parse("2025-01-30T13:00:00.250+01:00"), Some(1_738_238_400_250));
        assert_eq!(format(1_738_238_400_000), "2025-01-30T12:00:00Z");
        assert_eq!(format(1_738_238_400_250), "2025-01-30T12:00:00.25Z");
        for text in ["", "2025-01-30", "2025-13-30T12:00:00Z", "tomorrow", "1969-01-01T00:00:00Z", "2025-01-30 12:00"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
