//! The canonical form of JSON (RFC 8785), in which each value has one spelling, and digests of it.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The canonical form of `value`.
pub fn canonical(value: &Value) -> Vec<u8> {
    // This cannot fail, because all numbers of a `Value` are finite.
    serde_json_canonicalizer::to_vec(value).unwrap_or_default()
}

/// SHA-256 of the canonical form, in lower-case hex.
pub fn digest(value: &Value) -> String {
    sha256_hex(&canonical(value))
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        String::from_utf8(canonical(&serde_json::from_str(json).unwrap())).unwrap()
    }

    #[test]
    fn key_order_and_white_space_do_not_change_a_digest() {
        let parse = |s: &str| digest(&serde_json::from_str(s).unwrap());
        assert_eq!(parse(r#"{"b":1,"a":{"d":2,"c":3}}"#), parse("{ \"a\": {\"c\":3, \"d\":2},\n\"b\":1}"));
        assert_ne!(parse(r#"{"a":"1"}"#), parse(r#"{"a":"2"}"#));
    }

    /// RFC 8785, 3.2.2 to 3.2.4 and appendix B.
    #[test]
    fn the_rfcs_own_examples() {
        let sample = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let wanted = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                      \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(text(sample), wanted);
        // By UTF-16 code units: the astral name goes before U+FB33.
        let names = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        let order = text(names);
        let at = |c: char| order.find(c).unwrap();
        assert!(at('\u{1F600}') < at('\u{FB33}'), "{order}");
        for (json, wanted) in [
            ("-0.0", "0"),
            ("1.0", "1"),
            ("9007199254740993", "9007199254740992"),
            ("18446744073709551615", "18446744073709552000"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("295147905179352830000", "295147905179352830000"),
            ("1e21", "1e+21"),
            ("0.000001", "0.000001"),
            ("1e-7", "1e-7"),
        ] {
            assert_eq!(text(json), wanted, "{json}");
        }
    }
}
