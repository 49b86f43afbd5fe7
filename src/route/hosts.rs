//! Virtual hosts by domain: exact, then the longest suffix, then `*`.
//!
//! The first step of routing. Never allocates for a host name that DNS could hold, and never looks at ports.

use smallvec::SmallVec;
use std::collections::HashMap;

type Map = HashMap<Box<str>, usize, foldhash::fast::RandomState>;

/// Values by domain. The precedence is Envoy's: exact, the longest matching suffix, the star.
#[derive(Clone, Debug)]
pub struct Hosts<T> {
    values: Vec<T>,
    exact: Map,
    /// `.example.com` for `*.example.com`.
    suffix: Map,
    /// The lengths that occur among `suffix`, longest first.
    lengths: Vec<usize>,
    star: Option<usize>,
}

impl<T> Hosts<T> {
    /// From groups of domains. Of two equal domains the first keeps its value. A domain is an exact name,
    /// `*` with a suffix behind it, or `*`.
    pub fn new<D, S>(groups: impl IntoIterator<Item = (D, T)>) -> Hosts<T>
    where
        D: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut hosts = Hosts {
            values: Vec::new(),
            exact: Map::default(),
            suffix: Map::default(),
            lengths: Vec::new(),
            star: None,
        };
        for (domains, value) in groups {
            let index = hosts.values.len();
            hosts.values.push(value);
            for domain in domains {
                hosts.insert(domain.as_ref(), index);
            }
        }
        hosts.lengths.sort_unstable_by(|a, b| b.cmp(a));
        hosts.lengths.dedup();
        hosts
    }

    fn insert(&mut self, domain: &str, index: usize) {
        let domain = domain.to_ascii_lowercase();
        match domain.strip_prefix('*') {
            Some("") => _ = self.star.get_or_insert(index),
            Some(suffix) => {
                self.lengths.push(suffix.len());
                self.suffix.entry(suffix.into()).or_insert(index);
            }
            None => _ = self.exact.entry(domain.into()).or_insert(index),
        }
    }

    /// The value for a host without port, in whatever case.
    pub fn find(&self, host: &str) -> Option<&T> {
        let index = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let mut lower: SmallVec<[u8; 256]> = SmallVec::from_slice(host.as_bytes());
            lower.make_ascii_lowercase();
            // Lower-casing ASCII letters keeps UTF-8 intact, so this is the same text.
            self.index(std::str::from_utf8(&lower).unwrap_or_default())
        } else {
            self.index(host)
        };
        index.map(|index| &self.values[index])
    }

    fn index(&self, host: &str) -> Option<usize> {
        if !self.exact.is_empty()
            && let Some(index) = self.exact.get(host)
        {
            return Some(*index);
        }
        for length in &self.lengths {
            // A suffix stands for at least one more byte.
            if *length >= host.len() {
                continue;
            }
            if let Some(tail) = host.get(host.len() - length..)
                && let Some(index) = self.suffix.get(tail)
            {
                return Some(*index);
            }
        }
        self.star
    }

    /// The values, in the order given.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(domains: &[&'static str]) -> Hosts<&'static str> {
        Hosts::new(domains.iter().map(|domain| ([*domain], *domain)))
    }

    #[test]
    fn an_exact_domain_wins_over_suffixes_and_the_longest_suffix_over_shorter_ones() {
        let hosts = table(&["*", "*.example.com", "api.example.com", "*.a.example.com", "*.com"]);
        let rows = [
            ("api.example.com", "api.example.com"),
            ("API.Example.COM", "api.example.com"),
            ("x.example.com", "*.example.com"),
            ("x.y.example.com", "*.example.com"),
            ("b.a.example.com", "*.a.example.com"),
            ("B.A.EXAMPLE.com", "*.a.example.com"),
            ("example.com", "*.com"),
            ("a.example.com", "*.example.com"),
            (".example.com", "*.com"),
            ("other.org", "*"),
            ("", "*"),
            ("[::1]", "*"),
        ];
        for (host, wanted) in rows {
            assert_eq!(hosts.find(host), Some(&wanted), "{host}");
        }
    }

    #[test]
    fn without_a_star_an_unknown_host_finds_nothing() {
        let hosts = table(&["a.b", "*.c"]);
        for host in ["", "b", "c", ".c", "a.b.", "a.b.d", "xa.b", "é.d"] {
            assert_eq!(hosts.find(host), None, "{host}");
        }
        assert_eq!(hosts.find("é.c"), Some(&"*.c"));
    }

    #[test]
    fn the_first_of_equal_domains_keeps_its_value_and_one_value_may_have_many_domains() {
        let hosts = Hosts::new([(vec!["a", "b", "*.c"], 1), (vec!["b", "d", "*.c"], 2)]);
        for (host, wanted) in [("a", 1), ("b", 1), ("x.c", 1), ("d", 2)] {
            assert_eq!(hosts.find(host), Some(&wanted), "{host}");
        }
        assert_eq!(hosts.values(), [1, 2]);
    }

    #[test]
    fn a_host_longer_than_any_name_is_still_compared() {
        let long = format!("{}.EXAMPLE.com", "a".repeat(70_000));
        assert_eq!(table(&["*.example.com"]).find(&long), Some(&"*.example.com"));
    }

    /// The rule, told the slow way.
    fn naive(domains: &[String], host: &str) -> Option<usize> {
        let host = host.to_ascii_lowercase();
        let best = domains.iter().enumerate().filter_map(|(index, domain)| {
            let domain = domain.to_ascii_lowercase();
            let rank = match domain.strip_prefix('*') {
                Some("") => 0,
                Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => suffix.len(),
                None if domain == host => usize::MAX,
                _ => return None,
            };
            Some((rank, usize::MAX - index))
        });
        best.max().map(|(_, index)| usize::MAX - index)
    }

    proptest! {
        #[test]
        fn hosts_agree_with_the_rule_told_the_slow_way(
            domains in prop::collection::vec("(\\*|\\*\\.[abA]{1,2}(\\.[ab])?|[abA]{1,2}(\\.[ab]){0,2})", 0..12),
            asked in prop::collection::vec("[abB.]{0,6}", 1..8),
        ) {
            let hosts = Hosts::new(domains.iter().enumerate().map(|(index, domain)| ([domain], index)));
            for host in asked {
                prop_assert_eq!(hosts.find(&host).copied(), naive(&domains, &host), "{}", host);
            }
        }
    }
}
