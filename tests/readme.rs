//! The README's table of faults is the one the proxy runs by.
//!
//! `PILOTLIGHT_BLESS=1 cargo test --test readme` writes it anew. docs/operations.md names every flag, its
//! variable and every metric.

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

#[test]
fn the_operators_page_names_every_flag_and_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(&path).expect("docs/operations.md");
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    let help = { program }.args(["run", "--help"]).output().expect("it prints its help");
    let help = String::from_utf8(help.stdout).expect("text");
    let flags = help.lines().map(str::trim).filter(|line| line.starts_with("--"));
    let flags = flags.filter_map(|line| line.split([' ', '=']).next());
    let variables = help.split("[env: ").skip(1).filter_map(|rest| rest.split([']', '=']).next());
    let telemetry = pilotlight::telemetry::Telemetry::new(1);
    let _kept = (telemetry.function("default/hello-00001"), telemetry.cluster("outbound|80||hello"));
    let metrics = telemetry.encode();
    let metrics = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let metrics = metrics.filter(|name| name.starts_with("pilotlight_"));
    let missing: Vec<&str> = flags
        .chain(variables)
        .chain(metrics)
        .filter(|word| !page.contains(&format!("`{word}`")) && !page.contains(&format!("`{word} ")))
        .collect();
    assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
}
