//! Golden files: what is written today, byte for byte.

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
    for (line, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(line, expected, "{name}");
    }
    assert_eq!(text, golden, "{name} has another number of lines");
}
