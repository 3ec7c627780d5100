//! The source is tested too: imports run downward only, and the pure floors stay pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the top. A file may import from its own floor and from those below.
const FLOORS: [&str; 8] = ["lib", "objects", "engine", "routes", "edge", "rules", "json_schema", "wire"];

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

/// The modules of one floor that each of its modules imports: `rules/record` and the like, a folder as a whole.
fn wings(floor: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for (_, path, text) in sources().into_iter().filter(|(at, ..)| FLOORS[*at] == floor) {
        let mut parts = path.split('/').skip(1);
        let wing = parts.next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
        let path_to = format!("crate::{floor}::");
        let named = code
            .split(&path_to)
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
        let others = named.filter(|name| *name != wing && !name.is_empty());
        imports.entry(wing.clone()).or_default().extend(others);
    }
    imports
}

#[test]
fn wings_of_a_floor_form_no_circle() {
    for floor in ["rules", "edge", "wire"] {
        let mut imports = wings(floor);
        assert!(imports.len() > 5, "the modules of {floor} were not found");
        // Whatever imports nothing that is left is taken away; what remains at last imports itself.
        while let Some(free) = imports.iter().find(|(_, of)| of.iter().all(|name| !imports.contains_key(name))) {
            let free = free.0.clone();
            imports.remove(&free);
        }
        assert!(imports.is_empty(), "a circle in {floor}: {imports:?}");
    }
}

/// A template's run must not depend on HIRE. The route table names both.
#[test]
fn routes_outside_of_hire_import_nothing_of_hire() {
    let routes = sources().into_iter().filter(|(_, path, _)| path.starts_with("routes/"));
    let (hire, others): (Vec<_>, Vec<_>) = routes.partition(|(_, path, _)| path.starts_with("routes/hire/"));
    assert!(hire.len() > 5 && others.len() > 8, "the routes were not found");
    for (_, path, text) in others.iter().filter(|(_, path, _)| path != "routes/mod.rs") {
        assert!(!text.contains("hire::"), "{path} imports from HIRE");
    }
}

#[test]
fn json_schema_imports_nothing_of_ours() {
    for (floor, path, text) in sources() {
        assert!(FLOORS[floor] != "json_schema" || named(&text).is_empty(), "{path} imports from another floor");
    }
}

#[test]
fn the_test_sees_an_upward_import_in_every_form() {
    for text in
        ["use crate::engine::Session;", "use crate::{edge::clock, engine};", "let x = crate::engine::Session::new();"]
    {
        assert!(named(text).contains(&2), "{text}");
    }
    assert!(named("// use crate::engine::Session;").is_empty());
}

#[test]
fn wire_and_rules_touch_nothing() {
    let banned = ["worker::", "async ", "js_sys", "web_sys", "wasm_bindgen", "getrandom", "std::time", "SystemTime"];
    for (floor, path, text) in
        sources().into_iter().filter(|(floor, ..)| ["rules", "json_schema", "wire"].contains(&FLOORS[*floor]))
    {
        assert!(floor >= 5);
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
    assert_eq!(opens, ["edge/http/claude.rs"]);
}

/// A comment of one to three words above an item only repeats the item's name.
#[test]
fn a_comment_above_an_item_is_a_sentence() {
    let is_doc = |line: &&str| line.trim_start().starts_with("/// ") || line.trim() == "///";
    let mut checked = 0;
    for (_, path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for comment in lines.split(|line| !is_doc(line)).filter(|comment| !comment.is_empty()) {
            let words = comment.iter().flat_map(|line| line.split_whitespace()).filter(|word| *word != "///").count();
            checked += 1;
            assert!(words >= 4, "{path}: {comment:?}");
        }
    }
    assert!(checked > 500, "only {checked} comments were found: the test no longer sees them");
}
