//! The source is tested too: imports run downward only, and the pure floors stay pure.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top. A file may import from its own floor and from those below.
const FLOORS: [&str; 8] = ["lib", "run_object", "payer_object", "engine", "routes", "edge", "rules", "wire"];

/// Every source file with its floor, relative path and text.
fn sources() -> Vec<(usize, String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    assert!(paths.len() > 30, "the sources were not found");
    let floor = |path: &Path| {
        let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let name = relative.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let floor = FLOORS.iter().position(|f| *f == name);
        (floor.unwrap_or_else(|| panic!("{relative} is on no floor")), relative, fs::read_to_string(path).unwrap())
    };
    paths.iter().map(|p| floor(p)).collect()
}

/// The floors that a text names as `crate::floor`, in whatever form of `use` or path.
fn named(text: &str) -> Vec<usize> {
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let after = code.split("crate::").skip(1);
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split(';').next().unwrap_or_default();
                group.split([',', '{']).map(|w| word(w.trim())).collect::<Vec<_>>()
            }
            None => vec![word(rest)],
        })
        .filter_map(|name| FLOORS.iter().position(|f| *f == name))
        .collect()
}

#[test]
fn imports_run_downward_only() {
    let mut checked = 0;
    for (floor, path, text) in sources() {
        for imported in named(&text) {
            checked += 1;
            assert!(imported >= floor, "{path} ({}) imports from {} above it", FLOORS[floor], FLOORS[imported]);
        }
    }
    assert!(checked > 60, "only {checked} imports were found: the test has gone blind");
}

#[test]
fn the_test_sees_an_upward_import_in_every_form() {
    for text in
        ["use crate::engine::Session;", "use crate::{edge::clock, engine};", "let x = crate::engine::Session::new();"]
    {
        assert!(named(text).contains(&3), "{text}");
    }
    assert!(named("// use crate::engine::Session;").is_empty());
}

#[test]
fn wire_and_rules_touch_nothing() {
    let banned = ["worker::", "async ", "js_sys", "web_sys", "wasm_bindgen", "getrandom", "std::time", "SystemTime"];
    for (floor, path, text) in
        sources().into_iter().filter(|(floor, ..)| FLOORS[*floor] == "rules" || FLOORS[*floor] == "wire")
    {
        assert!(floor >= 6);
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for word in banned {
                assert!(!line.contains(word), "{path} names {word}: {line}");
            }
        }
    }
}

#[test]
fn files_stay_short_enough_to_be_one_idea() {
    for (_, path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 500, "{path} has {lines} lines");
    }
}

#[test]
fn only_problem_rs_knows_status_codes_of_answers() {
    for (_, path, text) in sources() {
        if path == "routes/problem.rs" || path == "routes/cors.rs" {
            continue;
        }
        assert!(!text.contains("with_status("), "{path} sets a status");
        assert!(!text.contains("Response::error("), "{path} sets a status");
    }
}

#[test]
fn one_function_opens_a_stored_key() {
    let opens: Vec<String> = sources()
        .into_iter()
        .flat_map(|(_, path, text)| {
            let calls = text.matches(".open(env, creator_id)").count();
            std::iter::repeat_n(path, calls)
        })
        .collect();
    assert_eq!(opens, ["edge/claude.rs"]);
}
