//! Virtual hosts by domain: exact, then the longest suffix, then `*`.
//!
//! The first step of routing. Never allocates for a host name that DNS could hold, and never looks at ports.

use smallvec::SmallVec;
use std::hash::BuildHasher;

/// Values by domain. The precedence is Envoy's: exact, the longest matching suffix, the star.
#[derive(Clone, Debug)]
pub struct Hosts<T> {
    values: Box<[T]>,
    exact: Names,
    /// `.example.com` for `*.example.com`.
    suffix: Names,
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
        let (mut values, mut lengths, mut star) = (Vec::new(), Vec::new(), None);
        let (mut exact, mut suffixes) = (Writing::default(), Writing::default());
        for (domains, value) in groups {
            let index = values.len();
            values.push(value);
            for domain in domains {
                let domain = domain.as_ref();
                match domain.strip_prefix('*') {
                    Some("") => _ = star.get_or_insert(index),
                    Some(suffix) => {
                        lengths.push(suffix.len());
                        suffixes.add(suffix, index);
                    }
                    None => exact.add(domain, index),
                }
            }
        }
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let (exact, suffix) = (Names::new(exact), Names::new(suffixes));
        Hosts { values: values.into(), exact, suffix, lengths, star }
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
            return Some(index);
        }
        for length in &self.lengths {
            // A suffix stands for at least one more byte.
            if *length >= host.len() {
                continue;
            }
            if let Some(tail) = host.get(host.len() - length..)
                && let Some(index) = self.suffix.get(tail)
            {
                return Some(index);
            }
        }
        self.star
    }

    /// The values, in the order given.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

/// Names by hash, with as little beside them as they need: a function has nine, and most functions idle. A name that
/// begins the one before it, as `hello.default` does `hello.default.svc`, takes no room of its own.
#[derive(Clone, Debug)]
struct Names {
    text: Box<str>,
    entries: Box<[Entry]>,
    /// The entry of each place, by hash, or of one of the next places; a power of two of them, some of them free.
    places: Box<[u32]>,
    hash: foldhash::fast::RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    length: u32,
    value: u32,
}

/// Names as they come.
#[derive(Default)]
struct Writing {
    text: String,
    entries: Vec<Entry>,
}

const FREE: u32 = u32::MAX;

impl Writing {
    fn add(&mut self, name: &str, value: usize) {
        let name = name.to_ascii_lowercase();
        let last = self.entries.last().map_or(0, |last| last.at as usize);
        let at = if self.text[last..].starts_with(&name) { last } else { self.text.len() };
        if at == self.text.len() {
            self.text.push_str(&name);
        }
        let small = |number: usize| u32::try_from(number).unwrap_or(FREE);
        self.entries.push(Entry { at: small(at), length: small(name.len()), value: small(value) });
    }
}

impl Names {
    /// Of two equal names the first counts.
    fn new(writing: Writing) -> Names {
        let count = writing.entries.len();
        let places = if count == 0 { 0 } else { (count + count / 2 + 1).next_power_of_two() };
        let mut names = Names {
            text: writing.text.into(),
            entries: writing.entries.into(),
            places: vec![FREE; places].into(),
            hash: foldhash::fast::RandomState::default(),
        };
        for (number, entry) in (0..FREE).zip(&names.entries) {
            let (place, known) = names.place(names.name(entry));
            if known.is_none() {
                names.places[place] = number;
            }
        }
        names
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn name(&self, entry: &Entry) -> &str {
        let (at, length) = (entry.at as usize, entry.length as usize);
        self.text.get(at..at + length).unwrap_or_default()
    }

    /// The value of a name.
    fn get(&self, name: &str) -> Option<usize> {
        if self.is_empty() { None } else { self.place(name).1 }
    }

    /// Where a name is, with its value; else where it would be. Some place is free, so the search ends.
    fn place(&self, name: &str) -> (usize, Option<usize>) {
        let last = self.places.len() - 1;
        let mut place = self.hash.hash_one(name) as usize & last;
        while let Some(entry) = self.entries.get(self.places[place] as usize) {
            if entry.length as usize == name.len() && self.name(entry) == name {
                return (place, Some(entry.value as usize));
            }
            place = (place + 1) & last;
        }
        (place, None)
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
