//! Tokens: found, verified, remembered, and what is passed on of them.
//!
//! A request without a token passes, without an identity. With several rules each looks at its own places; one that
//! finds good tokens gives the identity. A rule that finds several tokens wants all of them good. Where no rule is
//! satisfied although there is a token, the request is refused.

mod cache;
mod claims;
mod keys;
mod locate;
mod mistake;
mod ring;
#[cfg(test)]
mod tests;
mod token;

pub use cache::Cache;
pub use claims::Claims;
pub use keys::KeySet;
pub use mistake::Mistake;
pub use ring::{KeyRing, Origin, Remote};

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use locate::Places;
use proxy_config::model::{self, JwtKeys};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use token::Token;

/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 60;
const PREFLIGHT: HeaderName = HeaderName::from_static("access-control-request-method");

/// All rules of one workload.
#[derive(Debug)]
pub struct Jwt {
    rules: Box<[Rule]>,
    /// Of this set of rules, in this process.
    number: u64,
}

#[derive(Debug)]
struct Rule {
    issuer: Box<str>,
    audiences: Box<[Box<str>]>,
    keys: Keys,
    places: Places,
    forward: bool,
    payload_header: Option<HeaderName>,
    claim_headers: Box<[(HeaderName, ClaimPath)]>,
    spaced: Box<[Box<str>]>,
}

/// A claim within claims.
type ClaimPath = Box<[Box<str>]>;

#[derive(Debug)]
enum Keys {
    Fixed(Result<KeySet, Mistake>),
    Fetched(Arc<Remote>),
}

/// A token that was verified, and what follows from it.
#[derive(Debug)]
pub struct Verified {
    claims: Claims,
    from: u64,
    until: u64,
    fields: Box<[(HeaderName, HeaderValue)]>,
}

impl Verified {
    #[inline]
    fn holds(&self, now: u64) -> bool {
        self.from <= now && now <= self.until
    }
}

/// The identity of a request: the token of one rule.
#[derive(Debug)]
pub struct Accepted<'j> {
    rule: &'j Rule,
    verified: Rc<Verified>,
    /// It was remembered.
    pub remembered: bool,
}

impl Accepted<'_> {
    /// What the token says.
    pub fn claims(&self) -> &Claims {
        &self.verified.claims
    }

    /// Writes what is to be passed on, takes the token out where it is not. The new query, where it changes.
    pub fn apply(&self, headers: &mut HeaderMap, query: Option<&str>) -> Option<String> {
        let mut changed = None;
        if !self.rule.forward {
            self.rule.places.strip(headers);
            changed = query.and_then(|query| self.rule.places.without(query));
        }
        for (name, value) in &self.verified.fields {
            headers.insert(name, value.clone());
        }
        changed
    }
}

impl Jwt {
    /// Compiles the rules of one workload; none: `None`. Also the objects that no rule can be made of.
    pub(super) fn compile(
        wanted: &[model::JwtRule],
        ring: &KeyRing,
        problems: &mut Vec<String>,
    ) -> (Option<Jwt>, Vec<String>) {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let (mut rules, mut unusable) = (Vec::new(), Vec::new());
        if wanted.is_empty() {
            return (None, unusable);
        }
        for rule in wanted {
            match Rule::compile(rule, ring) {
                Ok(made) => {
                    if let Keys::Fixed(Err(mistake)) = &made.keys {
                        problems.push(format!("{}: jwks: {mistake}; every token fails", rule.origin));
                    }
                    rules.push(made);
                }
                Err(why) => {
                    problems.push(format!("{}: {why}; its workload refuses every request", rule.origin));
                    unusable.push(rule.origin.to_string());
                }
            }
        }
        (Some(Jwt { rules: rules.into(), number: NUMBERS.fetch_add(1, Ordering::Relaxed) }), unusable)
    }

    /// Whether tokens are not looked at: a browser asks beforehand, and sends none.
    pub fn passes_over(&self, method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(PREFLIGHT)
    }

    /// Whether there are fields that only a verified token may fill.
    pub fn fills_fields(&self) -> bool {
        self.rules.iter().any(|rule| rule.payload_header.is_some() || !rule.claim_headers.is_empty())
    }

    /// Removes fields that only a verified token may fill.
    pub fn clean(&self, headers: &mut HeaderMap) {
        for rule in &self.rules {
            for name in rule.payload_header.iter().chain(rule.claim_headers.iter().map(|(name, _)| name)) {
                headers.remove(name);
            }
        }
    }

    /// Looks at the tokens of a request at `now`, in seconds since 1970. `None`: there is none.
    ///
    /// # Errors
    /// There is one, and it does not count.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: u64,
        cache: &mut Cache,
    ) -> Result<Option<Accepted<'_>>, Mistake> {
        let mut mistake = None;
        for (nth, rule) in self.rules.iter().enumerate() {
            match rule.verify(headers, query, now, (self.number, nth), cache) {
                Ok(None) => {}
                Ok(Some((verified, remembered))) => return Ok(Some(Accepted { rule, verified, remembered })),
                // What is wrong says more than who it is not from.
                Err(found) if mistake.is_none_or(|known| known == Mistake::Issuer) => mistake = Some(found),
                Err(_) => {}
            }
        }
        mistake.map_or(Ok(None), Err)
    }
}

impl Rule {
    fn compile(wanted: &model::JwtRule, ring: &KeyRing) -> Result<Rule, String> {
        let own = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        let header = |name: &str| HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header"));
        let claim = |(name, path): &(String, String)| {
            Ok((header(name)?, path.split('.').map(Into::into).collect::<ClaimPath>()))
        };
        let keys = match &wanted.keys {
            JwtKeys::Inline(text) => Keys::Fixed(KeySet::parse(text.as_bytes())),
            JwtKeys::Uri(uri) => Keys::Fetched(ring.remote(Origin::Uri(uri.clone()), wanted.timeout)),
            JwtKeys::Discover => {
                Keys::Fetched(ring.remote(Origin::Issuer(wanted.issuer.clone()), wanted.timeout))
            }
        };
        Ok(Rule {
            issuer: wanted.issuer.as_str().into(),
            audiences: own(&wanted.audiences),
            keys,
            places: Places::new(&wanted.headers, &wanted.params, &wanted.cookies)?,
            forward: wanted.forward,
            payload_header: wanted.payload_header.as_deref().map(header).transpose()?,
            claim_headers: wanted.claim_headers.iter().map(claim).collect::<Result<_, String>>()?,
            spaced: own(&wanted.space_delimited),
        })
    }

    /// All tokens at the rule's places must be good; the first gives the identity.
    fn verify(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: u64,
        number: (u64, usize),
        cache: &mut Cache,
    ) -> Result<Option<(Rc<Verified>, bool)>, Mistake> {
        let mut first = None;
        for token in self.places.find(headers, query) {
            let version = match &self.keys {
                Keys::Fixed(_) => 0,
                Keys::Fetched(remote) => remote.version(),
            };
            let found = match cache.get(token, number, version, now) {
                Some(verified) => (verified, true),
                None => {
                    let (verified, version) = self.examine(token, now)?;
                    let verified = Rc::new(verified);
                    cache.put(token, number, version, verified.clone());
                    (verified, false)
                }
            };
            first.get_or_insert(found);
        }
        Ok(first)
    }

    /// Everything about one token, its signature last; with the version of the keys that verified it.
    #[cold]
    fn examine(&self, text: &str, now: u64) -> Result<(Verified, u64), Mistake> {
        let token = Token::parse(text)?;
        if !self.issuer.is_empty() && token.issuer() != &*self.issuer {
            return Err(Mistake::Issuer);
        }
        if token.not_before.is_some_and(|from| now.saturating_add(LEEWAY) < from) {
            return Err(Mistake::NotYet);
        }
        if token.expires.is_some_and(|until| now > until.saturating_add(LEEWAY)) {
            return Err(Mistake::Expired);
        }
        if !token.is_for(&self.audiences) {
            return Err(Mistake::Audience);
        }
        let by = |keys: &KeySet| {
            keys.verify(token.kid.as_deref(), token.algorithm, token.signed.as_bytes(), &token.signature)
        };
        let version = match &self.keys {
            Keys::Fixed(keys) => {
                by(keys.as_ref().map_err(|mistake| *mistake)?)?;
                0
            }
            Keys::Fetched(remote) => {
                let fetched = remote.keys().ok_or(Mistake::JwksFetch)?;
                by(&fetched.keys).inspect_err(|mistake| {
                    if *mistake == Mistake::NoSuchKey {
                        remote.miss();
                    }
                })?;
                fetched.version
            }
        };
        let (from, until) = (token.not_before.unwrap_or(0), token.expires.unwrap_or(u64::MAX));
        let payload = token.payload.to_owned();
        let claims = Claims::new(token.claims, self.spaced.clone());
        let fields = self.fields(&claims, payload);
        Ok((
            Verified {
                claims,
                from: from.saturating_sub(LEEWAY),
                until: until.saturating_add(LEEWAY),
                fields,
            },
            version,
        ))
    }

    /// The fields that a token fills.
    fn fields(&self, claims: &Claims, payload: String) -> Box<[(HeaderName, HeaderValue)]> {
        let payload = self
            .payload_header
            .iter()
            .filter_map(|name| Some((name.clone(), HeaderValue::from_str(&payload).ok()?)));
        let claims = self.claim_headers.iter().filter_map(|(name, path)| {
            // What no field can carry is left out; the client's own value is gone all the same.
            Some((name.clone(), HeaderValue::from_str(&claims.text(path)?).ok()?))
        });
        payload.chain(claims).collect()
    }
}
