//! Conditions on strings, and regular expressions.

use crate::decode::Cursor;
use crate::model::StringMatch;
use crate::regex;
use regex_automata::meta::Regex;

/// Istio's bound on the text of an expression.
const MAX_REGEX_CHARS: usize = 1024;
/// What an empty condition (`{}`) says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// That there is a value at all.
    Present,
    /// Nothing: it is an error.
    Refused,
}

/// `exact`, `prefix` or `regex`: exactly one of them.
pub(super) fn string_match(cursor: &Cursor<'_>, empty: Empty) -> Option<StringMatch> {
    if !cursor.is_present() || cursor.node().is_some_and(|n| n.text().is_some()) {
        return None;
    }
    let [exact, prefix, regex] = ["exact", "prefix", "regex"].map(|name| cursor.field(name));
    let written = [&exact, &prefix, &regex].iter().filter(|c| c.is_present()).count();
    if written == 0 && empty == Empty::Present {
        return Some(StringMatch::Present);
    }
    if written != 1 {
        cursor.error("IST0106", "exactly one of exact, prefix or regex must be set");
        return None;
    }
    if let Some(text) = exact.string() {
        return Some(StringMatch::Exact(text));
    }
    if let Some(text) = prefix.string() {
        if text.is_empty() && !cursor.path().ends_with(".uri") {
            prefix.error("IST0106", "prefix string match should not be empty");
            return None;
        }
        return Some(StringMatch::Prefix(text));
    }
    let text = regex.string()?;
    if text == "*" && empty == Empty::Present {
        return Some(StringMatch::Present);
    }
    if text.is_empty() {
        regex.error("IST0106", "regex string match should not be empty");
        return None;
    }
    is_regex(&regex, &text).then_some(StringMatch::Regex(text))
}

/// Whether an expression is one that can match whole strings.
fn is_regex(cursor: &Cursor<'_>, text: &str) -> bool {
    checked(cursor, text, regex::whole).is_some()
}

/// The expression, to match anywhere.
pub(super) fn anywhere(cursor: &Cursor<'_>, text: &str) -> Option<Regex> {
    checked(cursor, text, regex::anywhere)
}

/// Built as the proxy will build it, so that it cannot fail there.
fn checked(cursor: &Cursor<'_>, text: &str, build: fn(&str) -> Result<Regex, String>) -> Option<Regex> {
    if text.chars().count() > MAX_REGEX_CHARS {
        cursor.error("IST0106", format!("regex is too large, max length allowed is {MAX_REGEX_CHARS}"));
        return None;
    }
    let reason = match build(text) {
        Ok(regex) => return Some(regex),
        Err(reason) => reason,
    };
    let message = format!("invalid regex {text:?}: {reason}; Istio uses RE2 style regex-based match");
    if text == "*" || text.starts_with("*.") {
        cursor.error_with_help("IST0106", message, "a regular expression, not a glob: write `.*`");
    } else {
        cursor.error("IST0106", message);
    }
    None
}
