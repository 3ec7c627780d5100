//! The documents are tested too: what they name exists, and the README stays short.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// README, CHANGELOG and the pages of `docs/`, each with its path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(pages.len() >= 8, "only {} pages were found", pages.len());
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|name| !name.contains(char::is_whitespace))
}

#[test]
fn every_file_that_a_page_names_exists() {
    let mut checked = 0;
    for (page, text) in pages() {
        let ours =
            |name: &&str| ["src/", "tests/", "dev/", "docs/", "migrations/"].iter().any(|dir| name.starts_with(dir));
        for name in quoted(&text).filter(ours) {
            checked += 1;
            assert!(root().join(name).exists(), "{} names {name}, which is not there", page.display());
        }
    }
    assert!(checked > 40, "only {checked} names were found: the test no longer sees them");
}

#[test]
fn every_link_leads_to_a_page() {
    for (page, text) in pages() {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let file = target.split('#').next().unwrap();
            assert!(page.parent().unwrap().join(file).exists(), "{} links to {target}", page.display());
        }
    }
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for (page, text) in pages() {
        let named =
            text.split("make ").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap());
        let code = |name: &&str| text.contains(&format!("`make {name}`")) || text.contains(&format!("$ make {name}"));
        for target in named.filter(|name| !name.is_empty()).filter(code) {
            let rule = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
            assert!(rule, "{} names `make {target}`", page.display());
        }
    }
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.lines().count() <= 120, "README.md has {} lines", readme.lines().count());
}
