//! The house rules that a compiler does not know: order of modules, size of rooms, words that say nothing.
//!
//! It reads the sources as text. Every broken rule is listed at once, with its place and what to do.

#[path = "tidy/blank.rs"]
mod blank;

use blank::{blank, without_tests};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const BANNED: [&str; 9] =
    ["util", "common", "helper", "manager", "handler", "context", "data", "info", "misc"];

/// Who may not name whom, beyond the order of modules: (module, words, why).
const NEVER: [(&str, &[&str], &str); 9] = [
    ("route", &["crate::cluster"], "a route chooses a name, not an endpoint"),
    ("activator", &["crate::http", "tokio::net"], "policy of holding knows no wire"),
    ("autoscaler", &["crate::http", "tokio::net"], "scaling is arithmetic"),
    ("proxy", &["proxy_config"], "the exchange path sees a Snapshot, never a Config"),
    (
        "worker",
        &["crate::control", "proxy_config"],
        "workers and control meet in snapshot, cluster, activator",
    ),
    ("control", &["crate::worker"], "workers and control meet in snapshot, cluster, activator"),
    ("cluster", &["tokio::net"], "mechanisms own no sockets"),
    ("limit", &["tokio::net"], "mechanisms own no sockets"),
    ("auth", &["tokio::net", "crate::cluster"], "a verdict needs no socket and no endpoint"),
];

/// External crates with one home: (crate, modules it may be named in).
const HOMES: [(&str, &[&str]); 13] = [
    ("libc", &["driver"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("webpki", &["tls"]),
    ("x509_parser", &["tls"]),
    ("rustls_native_certs", &["tls"]),
    ("rcgen", &["cli"]),
    ("opentelemetry", &["control"]),
    ("kube", &["driver", "control"]),
    ("arc_swap", &["snapshot", "sync", "auth"]),
    ("aws_lc_rs", &["auth", "tls"]),
    ("notify", &["control"]),
    ("httparse", &["upstream"]),
];

const CLOCKS: [&str; 2] = ["Instant::now", "SystemTime::now"];

/// One source file.
struct Source {
    /// From the root of the repository.
    path: String,
    /// The module of `src/` it is part of; `None` elsewhere.
    module: Option<String>,
    text: String,
    /// `text` with the contents of comments, strings and `mod tests` blanked, line by line.
    code: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(under: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for start in under {
        walk(&root().join(start), &mut paths);
    }
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a readable directory");
        entries.for_each(|entry| walk(&entry.expect("a readable entry").path(), found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

fn read(file: PathBuf) -> Source {
    let text = fs::read_to_string(&file).expect("a readable source");
    let path = file.strip_prefix(root()).expect("below the root").display().to_string();
    let module = path
        .strip_prefix("src/")
        .map(|rest| rest.split('/').next().expect("split gives one").trim_end_matches(".rs").to_owned());
    let code = without_tests(blank(&text)).lines().map(str::to_owned).collect();
    Source { path, module, text, code }
}

/// Whether a file is nothing but tests.
fn is_test(source: &Source) -> bool {
    source.path.ends_with("/tests.rs")
        || source.path.ends_with("_tests.rs")
        || source.path.contains("/tests/")
}

/// Every identifier of a line with the byte it starts at.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let bound = |c: char| !c.is_alphanumeric() && c != '_';
    line.split(bound)
        .map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
        .filter(|(_, w)| !w.is_empty())
}

/// Whether `path` (`a::b`) stands in the line as a whole path, not as part of a longer word.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        edge(line[..at].chars().next_back()) && edge(line[at + path.len()..].chars().next())
    })
}

/// Modules of `src/lib.rs` in the order they stand in.
fn module_order() -> BTreeMap<String, usize> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    lib.lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ").or(line.trim().strip_prefix("mod ")))
        .filter_map(|rest| rest.strip_suffix(';'))
        .enumerate()
        .map(|(place, name)| (name.to_owned(), place))
        .collect()
}

/// Modules named by `crate::X` or inside `use crate::{X, Y::…}`, with the line (from 1) of each.
fn crate_uses(code: &[String]) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    for (number, line) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            if at > 0 && line[..at].ends_with(|c: char| c == '$' || c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let rest: String =
                    std::iter::once(group).chain(code[number + 1..].iter().map(|l| &**l)).collect();
                uses.extend(group_heads(&rest).into_iter().map(|name| (number + 1, name)));
            } else if let Some((0, word)) = words(rest).next() {
                uses.push((number + 1, word.to_owned()));
            }
        }
    }
    uses
}

/// First words of the members of `{a, b::{c, d}, e}`, its opening brace cut off.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut fresh) = (Vec::new(), 0usize, true);
    let mut rest = group;
    while let Some(c) = rest.chars().next() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if c.is_alphanumeric() && depth == 0 && fresh => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                heads.push(rest[..end].to_owned());
                fresh = false;
            }
            _ => (),
        }
        rest = &rest[c.len_utf8()..];
    }
    heads
}

#[track_caller]
fn verdict(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "\n{rule}\n\n  {}\n", broken.join("\n  "));
}

#[test]
fn a_module_names_only_modules_above_it() {
    let order = module_order();
    let mut broken = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| !is_test(s)) {
        let Some((own, place)) = source.module.as_ref().and_then(|m| Some((m, order.get(m)?))) else {
            continue;
        };
        for (line, used) in crate_uses(&source.code) {
            if order.get(&used).is_some_and(|used| used > place) {
                broken.push(format!("{}:{line}: `{own}` names `{used}`, which stands below it", source.path));
            }
        }
    }
    verdict(
        broken,
        "src/lib.rs lists modules in the order of their dependence: a module names only those above it. Move \
         what both need into the upper one, or hand it down as an argument.",
    );
}

#[test]
fn modules_that_must_not_meet_do_not() {
    let mut broken = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| !is_test(s)) {
        let Some(own) = source.module.as_deref() else { continue };
        let uses = crate_uses(&source.code);
        for (module, words, why) in NEVER.iter().filter(|(module, ..)| *module == own) {
            for (number, line) in source.code.iter().enumerate() {
                for word in words.iter().filter(|word| {
                    let used = |name: &str| uses.iter().any(|(at, used)| *at == number + 1 && used == name);
                    word.strip_prefix("crate::").map_or_else(|| names(line, word), used)
                }) {
                    broken.push(format!(
                        "{}:{}: `{module}` never names `{word}`: {why}",
                        source.path,
                        number + 1
                    ));
                }
            }
        }
    }
    verdict(broken, "Some rooms have no door between them (ARCHITECTURE.md, invariants).");
}

#[test]
fn external_crates_stay_at_home() {
    let mut broken = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| !is_test(s)) {
        let own = source.module.as_deref().unwrap_or_default();
        for (name, homes) in HOMES.iter().filter(|(_, homes)| !homes.contains(&own)) {
            for (number, line) in source.code.iter().enumerate() {
                if names(line, &format!("{name}::")) || names(line, &format!("use {name}")) {
                    let homes = homes.join(", ");
                    broken.push(format!("{}:{}: `{name}` lives in {homes}", source.path, number + 1));
                }
            }
        }
    }
    verdict(broken, "An external crate has one home, so that it can be changed there alone.");
}

#[test]
fn only_the_clock_reads_the_time() {
    let mut broken = Vec::new();
    for source in sources(&["src", "proxy-config/src"]).iter().filter(|s| !is_test(s)) {
        if source.module.as_deref() == Some("clock") {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            for clock in CLOCKS.iter().filter(|clock| names(line, clock)) {
                broken.push(format!("{}:{}: {clock}", source.path, number + 1));
            }
        }
    }
    verdict(broken, "Time is an argument; only `clock` reads it, so that policy can be tested by hand.");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let broken = sources(&["src", "proxy-config", "tests", "benches"])
        .iter()
        // The unit tests of a file that grew too long for them: the file beside them says what it is.
        .filter(|source| !is_test(source) && !source.text.starts_with("//! "))
        .map(|source| {
            format!("{}:1: begins with {:?}", source.path, source.text.lines().next().unwrap_or(""))
        })
        .collect();
    verdict(
        broken,
        "A file begins with `//! `: what it is, where it stands in the path, what it never does.",
    );
}

#[test]
fn files_fit_in_the_head() {
    let broken = sources(&["src", "proxy-config", "tests", "benches"])
        .iter()
        .map(|source| (source.text.lines().count(), source))
        .filter(|(lines, _)| *lines > FILE_LINES)
        .map(|(lines, source)| format!("{}: {lines} lines", source.path))
        .collect();
    verdict(broken, &format!("A file has at most {FILE_LINES} lines: find the seam and make it two rooms."));
}

#[test]
fn functions_fit_on_a_screen() {
    let mut broken = Vec::new();
    for source in sources(&["src", "proxy-config/src", "tests", "benches"]) {
        let code: Vec<String> = blank(&source.text).lines().map(str::to_owned).collect();
        for (number, name, lines) in
            functions(&code).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES)
        {
            broken.push(format!("{}:{number}: fn {name} has {lines} lines", source.path));
        }
    }
    verdict(broken, &format!("A function has at most {FUNCTION_LINES} lines: name its steps."));
}

/// First line (from 1), name and length of every function with a body.
fn functions(code: &[String]) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (first, line) in code.iter().enumerate() {
        let mut words = words(line).skip_while(|(_, word)| *word != "fn").skip(1);
        let Some((_, name)) = words.next() else { continue };
        let (mut depth, mut opened) = (0usize, false);
        'body: for (length, line) in code[first..].iter().enumerate() {
            for c in line.chars() {
                match c {
                    ';' if !opened => break 'body,
                    '{' => (depth, opened) = (depth + 1, true),
                    '}' => depth = depth.saturating_sub(1),
                    _ => (),
                }
                if opened && depth == 0 {
                    found.push((first + 1, name.to_owned(), length + 1));
                    break 'body;
                }
            }
        }
    }
    found
}

#[test]
fn names_say_something() {
    let mut broken = Vec::new();
    for source in sources(&["src", "proxy-config/src", "tests", "benches"]) {
        for part in source.path.trim_end_matches(".rs").split('/').filter(|part| says_nothing(part)) {
            broken.push(format!("{}: a file or directory named `{part}`", source.path));
        }
        for (number, line) in source.code.iter().enumerate() {
            for name in declared(line).into_iter().filter(|name| says_nothing(name)) {
                broken.push(format!("{}:{}: `{name}`", source.path, number + 1));
            }
        }
    }
    let banned = BANNED.join(", ");
    verdict(
        broken,
        &format!("These words say nothing and are not used as names: {banned}. Say what the thing is for."),
    );
}

/// Names that a line brings into being: of types, functions, modules, constants and bindings.
fn declared(line: &str) -> Vec<&str> {
    const INTRODUCE: [&str; 12] = [
        "mod",
        "struct",
        "enum",
        "trait",
        "type",
        "fn",
        "const",
        "static",
        "let",
        "union",
        "mut",
        "macro_rules",
    ];
    let words: Vec<(usize, &str)> = words(line).collect();
    // `&mut Type` names a type, `mut name` brings a name.
    let introduces = |(at, word): (usize, &str)| {
        INTRODUCE.contains(&word) && !(word == "mut" && line[..at].ends_with('&'))
    };
    // `fn info` stands beside `fn error` and `fn warning`: there it is a severity.
    let severity = |pair: &[(usize, &str)]| (pair[0].1, pair[1].1) == ("fn", "info");
    let follows =
        words.windows(2).filter(|pair| introduces(pair[0]) && !severity(pair)).map(|pair| pair[1].1);
    // Parameters and fields: `name: Type`, but not a path `name::`, and not the field of a literal of a
    // type from elsewhere, which has a value and not a type behind it.
    let annotated = words.iter().filter(|(at, word)| {
        let rest = &line[at + word.len()..];
        let kind =
            rest.strip_prefix(": ").and_then(|rest| rest.trim_start_matches(['&', '(', '\'']).chars().next());
        !line[..*at].ends_with("::") && kind.is_some_and(char::is_uppercase) && !rest.contains(" = ")
    });
    follows.chain(annotated.map(|(_, word)| *word)).collect()
}

fn says_nothing(name: &str) -> bool {
    let singular = |part: &str| part.strip_suffix('s').unwrap_or(part).to_owned();
    snake(name).split('_').any(|part| BANNED.contains(&part) || BANNED.contains(&&*singular(part)))
        && !is_term(name)
}

/// Terms of the field that hold a banned word and are what the thing is called.
fn is_term(name: &str) -> bool {
    ["metadata", "Metadata"].iter().any(|term| name.contains(term))
        // `Data` is what `http_body::Body` calls its buffers.
        || ["is_data", "into_data", "data_frame", "Data"].contains(&name)
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[test]
fn the_reader_of_sources_reads_them_right() {
    let source =
        "let a = \"fn x() {\"; // fn y() {\nlet b = r#\"{\"#; let c = '{'; let d: &'a str;\nfn z() {\n}\n";
    let code: Vec<String> = blank(source).lines().map(str::to_owned).collect();
    assert_eq!(functions(&code), [(3, "z".to_owned(), 2)]);
    let uses = ["use crate::{a, b::{c, d},".to_owned(), "    e::f};".to_owned(), "crate::g::h()".to_owned()];
    let named: Vec<String> = crate_uses(&uses).into_iter().map(|(_, name)| name).collect();
    assert_eq!(named, ["a", "b", "e", "g"]);
    let tests = without_tests("a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n".to_owned());
    assert_eq!(tests.split_whitespace().collect::<Vec<_>>(), ["a", "c"]);
    assert!(says_nothing("ErrorInfo") && says_nothing("utils") && !says_nothing("metadata"));
    assert_eq!(declared("pub fn load(data: Bytes) {"), ["load", "data"]);
    assert_eq!(declared("let mut a = b(&mut C::new());"), ["mut", "a"]);
}
