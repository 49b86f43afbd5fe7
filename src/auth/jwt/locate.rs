//! Where tokens are in a request, and how they are taken out of it.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

/// The places of one rule.
#[derive(Debug)]
pub(super) struct Places {
    /// Name and what stands before the token.
    headers: Box<[(HeaderName, Box<str>)]>,
    params: Box<[Box<str>]>,
    cookies: Box<[Box<str>]>,
}

impl Places {
    pub(super) fn new(
        headers: &[(String, String)],
        params: &[String],
        cookies: &[String],
    ) -> Result<Places, String> {
        if headers.is_empty() && params.is_empty() && cookies.is_empty() {
            return Ok(Places {
                headers: [(AUTHORIZATION, "Bearer ".into())].into(),
                params: ["access_token".into()].into(),
                cookies: [].into(),
            });
        }
        let header = |(name, prefix): &(String, String)| match HeaderName::try_from(name.as_str()) {
            Ok(name) => Ok((name, prefix.as_str().into())),
            Err(_) => Err(format!("{name:?} is no header")),
        };
        let all = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        Ok(Places {
            headers: headers.iter().map(header).collect::<Result<_, _>>()?,
            params: all(params),
            cookies: all(cookies),
        })
    }

    /// Every token there is. One that is not text is given as the empty one, which is no token.
    pub(super) fn find<'r>(&self, headers: &'r HeaderMap, query: Option<&'r str>) -> SmallVec<[&'r str; 2]> {
        let mut found = SmallVec::new();
        for (name, prefix) in &self.headers {
            for value in headers.get_all(name) {
                if let Some(token) = value.as_bytes().strip_prefix(prefix.as_bytes()) {
                    found.push(std::str::from_utf8(token).unwrap_or_default().trim());
                }
            }
        }
        for name in &self.params {
            let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            found.extend(pairs.filter(|(key, _)| *key == &**name).map(|(_, token)| token));
        }
        if !self.cookies.is_empty() {
            for value in headers.get_all(COOKIE) {
                let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
                let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
                found.extend(
                    pairs
                        .filter(|(key, _)| self.cookies.iter().any(|name| **name == **key))
                        .map(|(_, token)| token.trim_matches('"')),
                );
            }
        }
        found
    }

    /// Takes the tokens out of the fields. Cookies stay: they are the application's.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        for (name, prefix) in &self.headers {
            if headers.get_all(name).iter().any(|value| value.as_bytes().starts_with(prefix.as_bytes())) {
                headers.remove(name);
            }
        }
    }

    /// The query without the tokens; `None`: there are none in it.
    pub(super) fn without(&self, query: &str) -> Option<String> {
        let is_token = |pair: &&str| {
            let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
            self.params.iter().any(|name| **name == *key)
        };
        query.split('&').any(|pair| is_token(&pair)).then(|| {
            let left: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
            left.join("&")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(headers: &[(&str, &str)], params: &[&str], cookies: &[&str]) -> Places {
        let headers: Vec<_> = headers.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned())).collect();
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Places::new(&headers, &own(params), &own(cookies)).unwrap()
    }

    #[test]
    fn tokens_are_found_wherever_a_rule_says() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer a1"),
            ("authorization", "Basic eDp5"),
            ("x-token", "b1"),
            ("x-token", "b2"),
            ("cookie", "s=1; jwt=c1"),
            ("cookie", "jwt=\"c2\""),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let query = Some("x=1&access_token=q1&access_token=q2&t=q3");
        let rows: [(Places, &[&str]); 4] = [
            (places(&[], &[], &[]), &["a1", "q1", "q2"]),
            (places(&[("x-token", "")], &[], &[]), &["b1", "b2"]),
            (places(&[("authorization", "Basic ")], &["t"], &["jwt"]), &["eDp5", "q3", "c1", "c2"]),
            (places(&[("x-none", "")], &[], &[]), &[]),
        ];
        for (places, wanted) in rows {
            assert_eq!(&places.find(&headers, query)[..], wanted, "{places:?}");
        }
    }

    #[test]
    fn a_query_loses_its_token_and_nothing_else() {
        let places = places(&[], &[], &[]);
        for (query, wanted) in [
            ("a=1&access_token=x&b=%20", Some("a=1&b=%20")),
            ("access_token=x", Some("")),
            ("access_token", Some("")),
            ("access_tokens=x", None),
            ("", None),
        ] {
            assert_eq!(places.without(query).as_deref(), wanted, "{query}");
        }
    }
}
