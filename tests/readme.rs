//! The README's table of faults is the one the proxy runs by.
//!
//! `PILOTLIGHT_BLESS=1 cargo test --test readme` writes it anew.

use std::path::Path;

const BEGIN: &str = "<!-- faults:";
const END: &str = "<!-- /faults -->";

#[test]
fn the_fault_table_of_the_readme_is_the_programs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md marks where the table begins");
    let (mark, rest) = rest.split_once("-->\n").expect("the mark ends");
    let (_, after) = rest.split_once(END).expect("README.md marks where the table ends");
    let table = pilotlight::fault::table();
    let wanted = format!("{before}{BEGIN}{mark}-->\n\n{table}\n{END}{after}");
    if std::env::var("PILOTLIGHT_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, wanted).expect("README.md can be written");
        return;
    }
    assert!(
        readme == wanted,
        "the table in README.md is not that of src/fault.rs: run `PILOTLIGHT_BLESS=1 cargo test --test readme`"
    );
}
