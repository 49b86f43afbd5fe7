//! Which functions a request came through, so that one that waits for itself can be told.
//!
//! Each request to a function carries the revisions that its chain of calls has passed, this one last, in a
//! header that a function hands on with its own calls, as it does with trace headers. Clients outside
//! cannot write it: gateways drop all of ours.

use http::{HeaderMap, HeaderName, HeaderValue};

/// `default/a-00001,default/b-00001`
pub(super) const LINEAGE: HeaderName = HeaderName::from_static("x-pilotlight-lineage");
/// Longer chains forget how they began.
const LONGEST: usize = 16;

/// Notes that the request goes to `own`, or, where that is no function, what came `before`.
pub(super) fn extend(headers: &mut HeaderMap, before: Option<HeaderValue>, own: Option<&HeaderValue>) {
    let value = match (before, own) {
        (None, None) => return,
        (Some(before), None) => before,
        (None, Some(own)) => own.clone(),
        (Some(before), Some(own)) => joined(&before, own),
    };
    headers.insert(LINEAGE, value);
}

fn joined(before: &HeaderValue, own: &HeaderValue) -> HeaderValue {
    let mut last = before.as_bytes();
    let commas: Vec<usize> = memchr::memchr_iter(b',', last).collect();
    if let Some(surplus) = (commas.len() + 2).checked_sub(LONGEST + 1) {
        last = &last[commas[surplus] + 1..];
    }
    let all = [last, b",", own.as_bytes()].concat();
    // Made of valid values and a comma.
    HeaderValue::from_bytes(&all).unwrap_or_else(|_| own.clone())
}

/// Whether the chain passed `own` before it came there now.
pub(super) fn passed_before(headers: &HeaderMap, own: &HeaderValue) -> bool {
    let Some(all) = headers.get(LINEAGE) else { return false };
    let mut passed = all.as_bytes().rsplit(|byte| *byte == b',');
    passed.next();
    passed.any(|one| one.trim_ascii() == own.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_knows_whom_it_passed() {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let rows = [
            (None, Some("n/a"), Some("n/a"), false),
            (Some("n/a"), Some("n/b"), Some("n/a,n/b"), false),
            (Some("n/a,n/b"), Some("n/a"), Some("n/a,n/b,n/a"), true),
            (Some("n/ab,xn/a"), Some("n/a"), Some("n/ab,xn/a,n/a"), false),
            (Some("n/a"), None, Some("n/a"), false),
            (None, None, None, false),
        ];
        for (before, own, want, again) in rows {
            let mut headers = HeaderMap::new();
            let own = own.map(value);
            extend(&mut headers, before.map(value), own.as_ref());
            assert_eq!(headers.get(LINEAGE).map(|v| v.to_str().unwrap()), want);
            assert_eq!(own.is_some_and(|own| passed_before(&headers, &own)), again, "{want:?}");
        }
    }

    #[test]
    fn a_chain_is_bounded() {
        let mut before = HeaderValue::from_static("n/0");
        for n in 1..100 {
            before = joined(&before, &HeaderValue::from_str(&format!("n/{n}")).unwrap());
        }
        let text = before.to_str().unwrap();
        assert_eq!(text.split(',').count(), LONGEST);
        assert!(text.starts_with("n/84,") && text.ends_with(",n/99"), "{text}");
    }
}
