//! Regular expressions with RE2's meaning, the same wherever configuration is read and wherever it runs.
//!
//! Matching takes time linear in the text, whatever the expression, and what one compiles to is bounded.

use regex_automata::meta::{BuildError, Regex};
use regex_automata::util::syntax;

/// Bytes a compiled expression may take before it is refused.
const PROGRAM_LIMIT: usize = 1 << 20;
/// Bytes its lazily built automaton may take for one thread.
const CACHE_LIMIT: usize = 256 << 10;

/// An expression that must match the whole text. The anchors are part of it: anchoring the search instead would
/// let `a|ab` miss `ab`.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn whole(expression: &str) -> Result<Regex, String> {
    // By itself first, so that `a)|(b` cannot close the group it is put into.
    anywhere(expression)?;
    build(&format!(r"\A(?:{expression})\z"))
}

/// An expression that may match anywhere, for substitution.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn anywhere(expression: &str) -> Result<Regex, String> {
    build(expression)
}

fn build(expression: &str) -> Result<Regex, String> {
    // RE2's \d, \w and \s are ASCII. Only what cannot be said in bytes, as a class of other letters, is read
    // as Unicode.
    attempt(expression, false).or_else(|error| attempt(expression, true).map_err(|_| reason(&error)))
}

fn attempt(expression: &str, unicode: bool) -> Result<Regex, Box<BuildError>> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(PROGRAM_LIMIT))
        .onepass_size_limit(Some(CACHE_LIMIT))
        .hybrid_cache_capacity(CACHE_LIMIT);
    let syntax = syntax::Config::new().unicode(unicode).utf8(false);
    Regex::builder().configure(config).syntax(syntax).build(expression).map_err(Box::new)
}

fn reason(error: &BuildError) -> String {
    match (error.size_limit(), error.syntax_error()) {
        (Some(limit), _) => format!("it would take more than {limit} bytes"),
        // The parser draws the place in several lines; the last says what.
        (_, Some(syntax)) => {
            let text = syntax.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_the_whole_text_with_the_meaning_of_re2() {
        let rows: &[(&str, &[(&str, bool)])] = &[
            ("a|ab", &[("a", true), ("ab", true), ("abc", false)]),
            ("/api/v[12]", &[("/api/v1", true), ("/api/v3", false), ("x/api/v1", false)]),
            (".+", &[("", false), ("x", true)]),
            ("(?i).*chrome.*", &[("X Chrome/1", true), ("firefox", false)]),
            (r"\d+", &[("12", true), ("\u{0663}", false)]),
            (r"\w\s\b\S", &[("a b", true), ("é b", false)]),
            ("a$", &[("a", true), ("a\n", false)]),
            ("(?m)a$", &[("a", true), ("a\nb", false)]),
            ("^a", &[("a", true), ("ba", false)]),
            ("é[éx]", &[("éx", true), ("éé", true), ("ée", false)]),
            ("(?P<x>a)b", &[("ab", true)]),
            ("", &[("", true), ("a", false)]),
        ];
        for (expression, texts) in rows {
            let regex = whole(expression).unwrap();
            for (text, holds) in *texts {
                assert_eq!(regex.is_match(text.as_bytes()), *holds, "{expression} on {text:?}");
            }
        }
    }

    #[test]
    fn what_re2_refuses_or_what_is_too_large_is_not_taken() {
        for expression in ["a)|(b", "(", "*", "(?=a)", r"(a)\1", "(?x) a # b", "((a{1000}){1000}){1000}"] {
            let error = whole(expression).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{expression}: {error}");
        }
    }
}
