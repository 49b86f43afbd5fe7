use super::*;

fn documents(text: &str) -> Documents {
    read(Path::new("t.yaml"), text)
}

#[test]
fn every_key_and_value_knows_its_place() {
    let all = documents("# c\na:\n  - b: 1.10\n    c: \"true\"\n");
    assert!(all.problems.is_empty());
    let root = &all.documents[0].root;
    let (key, list) = root.entry("a").unwrap();
    assert_eq!(key.at, Place { line: 2, column: 1 });
    let item = &list.items()[0];
    assert_eq!(item.get("b").unwrap().value, Value::Number("1.10".to_owned()));
    assert_eq!(item.get("b").unwrap().at, Place { line: 3, column: 8 });
    assert_eq!(item.get("c").unwrap().value, Value::String("true".to_owned()));
}

#[test]
fn empty_documents_are_skipped_and_json_is_yaml() {
    assert_eq!(documents("# only\n---\n# comments\n---\n").documents.len(), 0);
    assert_eq!(documents("").documents.len(), 0);
    let json = documents("{\n\t\"a\": [1, {\"b\": null}],\n\t\"c\": \"x\\ty\"\n}\n");
    assert_eq!(json.problems, []);
    assert_eq!(json.documents[0].root.get("c").unwrap().text(), Some("x\ty"));
}

#[test]
fn a_duplicate_key_names_both_places_and_spares_the_other_documents() {
    let all = documents("a: 1\nb: 2\na: 3\n---\nc: 1\n");
    assert_eq!(all.documents.len(), 2);
    assert!(!all.broken);
    assert_eq!(all.documents[0].faults.len(), 1);
    let fault = &all.documents[0].faults[0];
    assert_eq!((fault.code, fault.at), ("SC002", Place { line: 3, column: 1 }));
    assert!(fault.message.contains("1:1"), "{}", fault.message);
    assert_eq!(all.documents[1].faults, []);
}

#[test]
fn a_syntax_error_ends_its_document_but_not_the_file() {
    let all = documents("a: 1\n---\nb: [1\n---\nc: 1\n---\nd: }\n");
    assert!(all.broken);
    assert_eq!(all.problems.len(), 2, "{:?}", all.problems);
    assert_eq!(all.documents.len(), 2);
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..9 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let all = documents(&bomb);
    assert!(all.documents[0].faults.iter().any(|f| f.message.contains("aliases expanded")));
    let deep = "[".repeat(20_000);
    assert!(documents(&deep).broken);
    let mut chain = "a0: &a0 x\n".to_owned();
    for i in 1..2000 {
        chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(!documents(&chain).documents[0].faults.is_empty());
}

#[test]
fn aliases_and_merge_keys_are_expanded() {
    let all = documents("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nsame: *b\n");
    let root = &all.documents[0].root;
    assert_eq!(root.get("use").unwrap().get("x").unwrap().text(), Some("1"));
    assert_eq!(root.get("use").unwrap().get("y").unwrap().text(), Some("3"));
    assert_eq!(root.get("same").unwrap().get("y").unwrap().text(), Some("2"));
}

#[test]
fn a_call_out_marker_behind_a_quoted_value_is_named() {
    let all = documents("a:\n  b: \"true\" (1)\n");
    assert_eq!(all.problems.len(), 1);
    let problem = &all.problems[0];
    assert_eq!(problem.at, Place { line: 2, column: 13 });
    assert_eq!(problem.message, "unexpected text \"(1)\" after quoted value");
}

#[test]
fn a_syntax_error_leads_to_its_remedy() {
    let check = |text: &str, want: &str| {
        let problem = &documents(text).problems[0];
        let help = problem.help.as_deref().unwrap_or_default();
        assert!(help.contains(want), "{text:?}: {problem}");
    };
    check("a:\n  b: x\n    c: y\n", "indent it as its neighbours are");
    check("a:\n  b: x # why\n    c: y\n", "indented too far");
    check("a:\n  - b: x\n    c: y\n   d: z\n", "other fields of its list element");
    check("a:\n  b: \"x\nc: y\n", "not closed");
    check("a: {b: x\nc: y\n", "close the bracket");
    check("a: @x\n", "quotes");
    check("a:\nb\nc: y\n", "followed by `:`");
}

#[test]
fn only_core_schema_words_are_booleans_and_nulls() {
    let check = |text: &str, want: Value| {
        let all = documents(&format!("k: {text}\n"));
        assert_eq!(all.documents[0].root.get("k").unwrap().value, want, "{text}");
    };
    check("yes", Value::String("yes".to_owned()));
    check("on", Value::String("on".to_owned()));
    check("true", Value::Bool(true));
    check("~", Value::Null);
    check("-1", Value::Number("-1".to_owned()));
    check("1.5s", Value::String("1.5s".to_owned()));
    check("10.0.0.1", Value::String("10.0.0.1".to_owned()));
    check("\"8080\"", Value::String("8080".to_owned()));
    check("1e3", Value::Number("1e3".to_owned()));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = documents(&text);
    }

    #[test]
    fn no_yaml_like_text_makes_the_reader_panic(text in "([a-c]: |- |\\n|  |\\[|\\]|\\{|\\}|&a |\\*a |---\\n|\"|'|\\||#|<<: |\t){0,60}") {
        let _ = documents(&text);
    }
}
