//! Who functions on this host are taken for when they call: simulated, where no certificate can speak for them.
//!
//! Each revision is told a secret with the address of the mesh, and HTTP clients send it along without being
//! taught to. It proves nothing to anybody else, says nothing of itself, and is gone with the process.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Bytes of a secret: nobody guesses it.
const SECRET: usize = 16;
const SCHEME: &[u8] = b"basic ";

/// Makes the secrets: the same for a revision as long as the process lives, and unknown to others.
pub struct Passes(hmac::Key);

impl fmt::Debug for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passes")
    }
}

impl Passes {
    /// With a key that exists nowhere else.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Passes, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        key.map(Passes).map_err(|_| "the system has no random numbers".to_owned())
    }

    /// What stands before the `@` of a URL that is for the revision `namespace/name` alone. Of characters that no
    /// client has to decode.
    pub fn of(&self, revision: &str) -> String {
        let secret = hmac::sign(&self.0, revision.as_bytes());
        let secret = URL_SAFE_NO_PAD.encode(&secret.as_ref()[..SECRET]);
        format!("{}:{secret}", revision.replace('/', "."))
    }
}

/// Principals by the credentials that speak for them. Looked up by a keyed hash of the whole, so that how long it
/// takes says nothing about how much of a guess was right.
#[derive(Debug, Default)]
pub struct Callers {
    principals: HashMap<u128, Arc<str>>,
    keys: [RandomState; 2],
}

impl Callers {
    /// From now on the revision `namespace/name` is `principal`.
    pub fn learn(&mut self, passes: &Passes, revision: &str, principal: Arc<str>) {
        let credentials = STANDARD.encode(passes.of(revision));
        self.principals.insert(self.hash(credentials.as_bytes()), principal);
    }

    /// Long enough to stand for the whole: two credentials have the same one as seldom as a guess is right.
    fn hash(&self, credentials: &[u8]) -> u128 {
        let [high, low] = [0, 1].map(|key: usize| u128::from(self.keys[key].hash_one(credentials)));
        high << 64 | low
    }

    /// Who sends these credentials, a value of `Proxy-Authorization`.
    pub fn find(&self, credentials: &[u8]) -> Option<&Arc<str>> {
        let (scheme, rest) = credentials.split_at_checked(SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        self.principals.get(&self.hash(rest.trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_belongs_to_one_revision_of_one_process() {
        let (passes, others) = (Passes::new().unwrap(), Passes::new().unwrap());
        let own = passes.of("default/a-00001");
        assert_eq!(own, passes.of("default/a-00001"));
        let secret = own.strip_prefix("default.a-00001:").unwrap();
        assert_eq!(secret.len(), 22);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert!(!passes.of("default/a-00002").ends_with(secret) && own != others.of("default/a-00001"));
        assert!(!format!("{passes:?}").contains(secret));
    }

    #[test]
    fn only_the_whole_secret_speaks_for_a_caller() {
        let passes = Passes::new().unwrap();
        let mut callers = Callers::default();
        callers.learn(&passes, "default/a-00001", "td/ns/default/sa/a".into());
        callers.learn(&passes, "default/b-00001", "td/ns/default/sa/b".into());
        let encoded = |text: &str| STANDARD.encode(text);
        let own = passes.of("default/a-00001");
        let (name, secret) = own.split_once(':').unwrap();
        let rows = [
            (format!("Basic {}", encoded(&own)), Some("td/ns/default/sa/a")),
            (format!("basic   {} ", encoded(&own)), Some("td/ns/default/sa/a")),
            (format!("Basic {}", encoded(&passes.of("default/b-00001"))), Some("td/ns/default/sa/b")),
            (format!("Basic {}", encoded(&format!("default.b-00001:{secret}"))), None),
            (format!("Basic {}", encoded(&own[..own.len() - 1])), None),
            (format!("Basic {}", encoded(&format!("{name}:"))), None),
            (format!("Bearer {}", encoded(&own)), None),
            (encoded(&own), None),
            ("Basic".to_owned(), None),
            (String::new(), None),
        ];
        for (credentials, wanted) in rows {
            assert_eq!(callers.find(credentials.as_bytes()).map(|found| &**found), wanted, "{credentials}");
        }
    }
}
