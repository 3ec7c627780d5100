//! Digests of JSON. `serde_json::Value` keeps object keys sorted, so its compact text is one
//! spelling per value (RFC 8785 for the strings, booleans and integers we digest).

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 of the compact, key-sorted text of `value`, in lower-case hex.
pub fn digest(value: &Value) -> String {
    sha256_hex(value.to_string().as_bytes())
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_order_and_white_space_do_not_change_a_digest() {
        let parse = |s: &str| digest(&serde_json::from_str(s).unwrap());
        assert_eq!(parse(r#"{"b":1,"a":{"d":2,"c":3}}"#), parse("{ \"a\": {\"c\":3, \"d\":2},\n\"b\":1}"));
        assert_ne!(parse(r#"{"a":"1"}"#), parse(r#"{"a":"2"}"#));
    }
}
