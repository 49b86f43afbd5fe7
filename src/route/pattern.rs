//! One compiled condition on a string, with RE2's meaning of a regex that must match the whole.
//!
//! The leaf of route matching. A literal compares bytes; a regex costs time linear in the text, and its
//! compiled size is bounded, so a pattern can be slow to write but never to run.

use proxy_config::model::StringMatch;
use proxy_config::regex;
use regex_automata::meta::Regex;

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

fn whole(pattern: &str) -> Result<Regex, String> {
    regex::whole(pattern).map_err(|why| format!("regex `{pattern}`: {why}"))
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
    fn a_regex_matches_the_whole_string_and_never_ignores_case_by_itself() {
        for ignore_case in [false, true] {
            let rows = [("/v1", true), ("/v12", false), ("/V1", false)];
            check(StringMatch::Regex(r"/v\d".into()), ignore_case, &rows);
            check(StringMatch::Regex(".*".into()), ignore_case, &[("", true), ("anything", true)]);
        }
    }

    #[test]
    fn a_regex_that_is_wrong_does_not_compile_and_is_named() {
        let error = Pattern::compile(&StringMatch::Regex("a)|(b".into()), false).unwrap_err();
        assert!(error.contains("a)|(b"), "{error}");
    }
}
