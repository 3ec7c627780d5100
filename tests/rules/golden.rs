//! Golden files: what is written today, byte for byte.

use serde_json::{from_str, Value};
use std::fs;
use std::path::Path;

/// The golden file with one line for each of `lines`. With `UPDATE_GOLDEN` in the environment it is written instead,
/// and the difference is for `git diff` to show.
pub fn assert_golden(name: &str, lines: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let (found, expected): (Vec<Value>, Vec<Value>) = (from_str(&text).unwrap(), from_str(&golden).unwrap());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(found.len(), expected.len(), "{name}");
}
