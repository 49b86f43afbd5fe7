//! One compiled condition on a string, with RE2's meaning of a regex that must match the whole.
//!
//! The leaf of route matching. A literal compares bytes; a regex costs time linear in the text, and its
//! compiled size is bounded, so a pattern can be slow to write but never to run.

use proxy_config::model::StringMatch;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// Bytes a compiled regex may take before it is refused.
const PROGRAM_LIMIT: usize = 1 << 20;
/// Bytes its lazily built automaton may take for one thread.
const CACHE_LIMIT: usize = 256 << 10;

/// A compiled [`StringMatch`].
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Holds for every string that is there.
    Present,
    /// The whole string.
    Exact(Box<[u8]>),
    /// The whole string, ASCII case ignored.
    ExactIgnoringCase(Box<[u8]>),
    /// Its beginning.
    Prefix(Box<[u8]>),
    /// Its beginning, ASCII case ignored.
    PrefixIgnoringCase(Box<[u8]>),
    /// The whole string, RE2 syntax.
    Regex(Regex),
}

impl Pattern {
    /// Compiles a condition; `ignore_case` acts on literals only, as in Istio.
    ///
    /// # Errors
    /// What is wrong with the regex.
    pub fn compile(wanted: &StringMatch, ignore_case: bool) -> Result<Pattern, String> {
        Ok(match (wanted, ignore_case) {
            (StringMatch::Present, _) => Pattern::Present,
            (StringMatch::Exact(text), false) => Pattern::Exact(text.as_bytes().into()),
            (StringMatch::Exact(text), true) => Pattern::ExactIgnoringCase(text.as_bytes().into()),
            (StringMatch::Prefix(text), false) => Pattern::Prefix(text.as_bytes().into()),
            (StringMatch::Prefix(text), true) => Pattern::PrefixIgnoringCase(text.as_bytes().into()),
            // No line ends are found in what routes look at, so these two need no engine.
            (StringMatch::Regex(text), _) if text == ".*" => Pattern::Prefix([].into()),
            (StringMatch::Regex(text), _) => Pattern::Regex(whole(text)?),
        })
    }

    /// Whether the string satisfies the condition.
    #[inline]
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Pattern::Present => true,
            Pattern::Exact(wanted) => text == &**wanted,
            Pattern::ExactIgnoringCase(wanted) => text.eq_ignore_ascii_case(wanted),
            Pattern::Prefix(wanted) => text.starts_with(wanted),
            Pattern::PrefixIgnoringCase(wanted) => {
                text.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
            }
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A regex that must match the whole text. The anchors are part of the pattern: anchoring the search
/// instead would let `a|ab` miss `ab`.
fn whole(pattern: &str) -> Result<Regex, String> {
    // By itself first, so that `a)|(b` cannot close the group it is put into.
    anywhere(pattern)?;
    build(pattern, &format!(r"\A(?:{pattern})\z"))
}

/// A regex that may match anywhere, for substitution.
pub(super) fn anywhere(pattern: &str) -> Result<Regex, String> {
    build(pattern, pattern)
}

fn build(written: &str, pattern: &str) -> Result<Regex, String> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(PROGRAM_LIMIT))
        .onepass_size_limit(Some(CACHE_LIMIT))
        .hybrid_cache_capacity(CACHE_LIMIT);
    // RE2's \d, \w and \s are ASCII.
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    Regex::builder().configure(config).syntax(syntax).build(pattern).map_err(|error| {
        let what = match (error.size_limit(), error.syntax_error()) {
            (Some(limit), _) => format!("it would take more than {limit} bytes"),
            (_, Some(syntax)) => syntax.to_string(),
            _ => error.to_string(),
        };
        format!("regex `{written}`: {what}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: StringMatch, ignore_case: bool, rows: &[(&str, bool)]) {
        let pattern = Pattern::compile(&wanted, ignore_case).unwrap();
        for (text, holds) in rows {
            assert_eq!(pattern.matches(text.as_bytes()), *holds, "{wanted:?} on {text:?}");
        }
    }

    #[test]
    fn literals_compare_bytes_and_ignore_case_only_when_told() {
        check(StringMatch::Exact("/Api".into()), false, &[("/Api", true), ("/api", false), ("/Api/", false)]);
        check(StringMatch::Exact("/Api".into()), true, &[("/aPI", true), ("/Api/", false)]);
        check(
            StringMatch::Prefix("/api".into()),
            false,
            &[("/apifoo", true), ("/Api", false), ("/ap", false)],
        );
        check(StringMatch::Prefix("/api".into()), true, &[("/APIfoo", true), ("/ap", false), ("/é", false)]);
        check(StringMatch::Prefix(String::new()), false, &[("", true), ("x", true)]);
        check(StringMatch::Present, false, &[("", true), ("x", true)]);
    }

    #[test]
    fn a_regex_matches_the_whole_string_with_the_meaning_of_re2() {
        let rows: &[(&str, &[(&str, bool)])] = &[
            ("a|ab", &[("a", true), ("ab", true), ("abc", false)]),
            ("/api/v[12]", &[("/api/v1", true), ("/api/v3", false), ("x/api/v1", false)]),
            (".*", &[("", true), ("anything", true)]),
            (".+", &[("", false), ("x", true)]),
            ("(?i)chrome.*", &[("Chrome/1", true), ("chrome", true)]),
            (r"\d+", &[("12", true), ("\u{0663}", false)]),
            (r"\w", &[("é", false), ("_", true)]),
            ("a$", &[("a", true), ("a\n", false)]),
            ("(?m)a$", &[("a", true), ("a\nb", false)]),
            ("^a", &[("a", true), ("ba", false)]),
            ("é", &[("é", true), ("e", false)]),
            ("(?P<x>a)b", &[("ab", true)]),
            ("", &[("", true), ("a", false)]),
        ];
        for (regex, texts) in rows {
            check(StringMatch::Regex((*regex).into()), false, texts);
            check(StringMatch::Regex((*regex).into()), true, texts);
        }
    }

    #[test]
    fn a_regex_that_re2_refuses_or_that_is_too_large_does_not_compile() {
        for regex in ["a)|(b", "(", "*", r"(?=a)", r"\1", "(?x) a # b", "((a{1000}){1000}){1000}"] {
            let error = Pattern::compile(&StringMatch::Regex(regex.into()), false).unwrap_err();
            assert!(error.contains(regex), "{error}");
        }
    }
}
