//! What a verified token says.

use serde_json::{Map, Value};
use std::fmt;

/// Claims that are lists separated by blanks, whatever a rule says.
const SPACED: [&str; 2] = ["scope", "permission"];

/// The payload of one verified token.
#[derive(Clone)]
pub struct Claims {
    all: Map<String, Value>,
    /// Further claims that are lists separated by blanks.
    spaced: Box<[Box<str>]>,
}

impl fmt::Debug for Claims {
    /// Nothing of what is said: it is somebody's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({})", self.all.len())
    }
}

impl Claims {
    /// From a payload.
    pub fn new(all: Map<String, Value>, spaced: Box<[Box<str>]>) -> Claims {
        Claims { all, spaced }
    }

    /// `iss`
    pub fn issuer(&self) -> Option<&str> {
        self.all.get("iss")?.as_str()
    }

    /// `sub`
    pub fn subject(&self) -> Option<&str> {
        self.all.get("sub")?.as_str()
    }

    /// Whether the claim at `path` is a text, or a list with a text, that `fits`.
    pub fn any(&self, path: &[Box<str>], fits: impl Fn(&str) -> bool) -> bool {
        let Some(value) = self.at(path) else { return false };
        match value {
            Value::String(text) if self.is_spaced(path) => {
                text.split(' ').filter(|word| !word.is_empty()).any(fits)
            }
            Value::String(text) => fits(text),
            Value::Array(list) => list.iter().filter_map(Value::as_str).any(fits),
            _ => false,
        }
    }

    /// The claim at `path` as a header field carries it; only texts, whole numbers and truth values can be.
    pub(super) fn text(&self, path: &[Box<str>]) -> Option<String> {
        match self.at(path)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if !number.is_f64() => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    fn at(&self, path: &[Box<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.all.get(&**first)?, |value, name| value.get(&**name))
    }

    fn is_spaced(&self, path: &[Box<str>]) -> bool {
        let [name] = path else { return false };
        SPACED.contains(&&**name) || self.spaced.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_a_text_or_a_list_of_texts() {
        let Value::Object(all) = serde_json::json!({
            "a": "x y", "scope": "read write", "roles": "r1 r2", "list": ["p", 7, "q"], "n": 7, "t": true,
            "deep": {"er": ["z"]}
        }) else {
            panic!("an object");
        };
        let claims = Claims::new(all, ["roles".into()].into());
        let rows: [(&[&str], &str, bool); 12] = [
            (&["a"], "x y", true),
            (&["a"], "x", false),
            (&["scope"], "write", true),
            (&["scope"], "read write", false),
            (&["roles"], "r2", true),
            (&["list"], "q", true),
            (&["list"], "7", false),
            (&["n"], "7", false),
            (&["t"], "true", false),
            (&["deep", "er"], "z", true),
            (&["deep"], "z", false),
            (&["none"], "", false),
        ];
        for (path, text, holds) in rows {
            let path: Vec<Box<str>> = path.iter().map(|name| (*name).into()).collect();
            assert_eq!(claims.any(&path, |one| one == text), holds, "{path:?} {text}");
        }
        let header = |path: &str| claims.text(&[path.into()]);
        assert_eq!((header("n"), header("t")), (Some("7".into()), Some("true".into())));
        assert_eq!((header("list"), header("deep"), header("none")), (None, None, None));
    }
}
