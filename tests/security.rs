//! docs/security.md promises tests: every one that it names exists.

use std::path::{Path, PathBuf};

fn sources(path: &Path, found: &mut String) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a readable directory");
        let mut entries: Vec<PathBuf> =
            entries.map(|entry| entry.expect("a readable entry").path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| sources(entry, found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        *found += &std::fs::read_to_string(path).expect("a readable source");
    }
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).expect("docs/security.md");
    let mut text = String::new();
    ["src", "tests", "proxy-config"].iter().for_each(|part| sources(&root.join(part), &mut text));
    // Names of tests are sentences: but for metrics, nothing else between backticks has three underscores.
    let sentence = |word: &&str| word.matches('_').count() >= 3 && !word.starts_with("pilotlight_");
    let names = page.split('`').skip(1).step_by(2).filter(sentence);
    let names: Vec<&str> =
        names.filter(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_')).collect();
    assert!(names.len() > 30, "the page names its tests: {names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !text.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
}
